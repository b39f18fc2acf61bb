//! What nodes write into the recorder of the process: nothing without their labels.

use memberlist::memory::MemoryTransport;
use memberlist::metrics::Metrics;
use memberlist::{Builder, NodeState};
use memberlist_tests::{Cluster, agree, quick};
use metrics_util::debugging::DebuggingRecorder;

#[tokio::test]
async fn all_that_is_written_carries_the_labels_of_its_node() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    recorder.install().unwrap();
    let cluster = Cluster::<MemoryTransport>::new();
    let mut nodes = Vec::new();
    for name in ["a", "b"] {
        let mut config = quick(name);
        config.metrics = Metrics::labelled([("node", name)]);
        nodes.push(cluster.start(Builder::new(config)).await);
    }
    nodes[1].join([nodes[0].addr().to_string()]).await.unwrap();
    agree(&nodes.iter().collect::<Vec<_>>()).await;
    let written = snapshotter.snapshot().into_vec();
    let alive = NodeState::Alive.to_string();
    let mut counted = Vec::new();
    for (key, ..) in written {
        let (_, key) = key.into_parts();
        let label = |name| key.labels().find(|label| label.key() == name);
        let node = label("node").unwrap_or_else(|| panic!("{key} has no label of a node"));
        if key.name() == "memberlist.members" && label("state").unwrap().value() == alive {
            counted.push(node.value().to_owned());
        }
    }
    counted.sort();
    assert_eq!(counted, ["a", "b"]);
}
