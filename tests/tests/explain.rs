//! What nodes say of each other, and of themselves, in words.

use std::time::Duration;

use memberlist::memory::MemoryTransport;
use memberlist::{Finding, NodeState};
use memberlist_tests::cluster::until_state;
use memberlist_tests::wait::until_async;
use memberlist_tests::{Cluster, TestNode};

type Node = TestNode<MemoryTransport>;

/// What one says of another.
async fn says(at: &Node, of: &str) -> String {
    at.explain(of).await.unwrap().map(|why| why.to_string()).unwrap_or_default()
}

async fn finds(at: &Node, of: &str, is: impl Fn(&Finding) -> bool) -> bool {
    let why = at.explain(of).await.unwrap();
    why.is_some_and(|why| why.findings.iter().any(is))
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_cut_off_in_one_direction_is_explained_on_both_sides() {
    let cluster = Cluster::<MemoryTransport>::new();
    // Suspicions last long enough for every other node to hear from the one that is cut off.
    let nodes = cluster.joined_with(5, |config| config.protocol.suspicion_mult = 15).await;
    let (deaf, others) = nodes.split_last().unwrap();
    // Views can agree by streams alone.
    until_async("a packet has come to it", || async {
        says(deaf, "n0").await.contains("Its last packet came")
    })
    .await;
    // What it sends arrives, but nothing that is sent to it.
    for other in others {
        cluster.rules().block_all(other.addr(), deaf.addr());
    }
    let one_way = |f: &Finding| matches!(f, Finding::OneWay { .. });
    // Whoever hears of it after that, by its pings.
    let mut witness = &others[0];
    until_async("others see that it hears nobody", || async {
        for other in others {
            if finds(other, "n4", one_way).await {
                return true;
            }
        }
        false
    })
    .await;
    for other in others {
        if finds(other, "n4", one_way).await {
            witness = other;
        }
    }
    let text = says(witness, "n4").await;
    assert!(text.contains("its packets arrive here"), "{text}");
    assert!(text.contains("cut in that direction only"), "{text}");

    let nothing = |f: &Finding| matches!(f, Finding::NothingArrives { .. });
    until_async("it sees that nothing comes", || finds(deaf, "n0", nothing)).await;
    let text = says(deaf, "n0").await;
    assert!(text.contains("this node itself seems to be cut off"), "{text}");
    let health = deaf.health().await.unwrap();
    assert!(health.findings.iter().any(nothing), "{health}");

    until_state(&others.iter().collect::<Vec<_>>(), "n4", NodeState::Dead).await;
    let text = says(witness, "n4").await;
    assert!(text.contains("has been dead for") && text.contains("declared dead by"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_healthy_member_is_explained_too_and_a_stranger_is_not() {
    let cluster = Cluster::<MemoryTransport>::new();
    let nodes = cluster.joined(3).await;
    until_async("n1 has been probed", || async {
        says(&nodes[0], "n1").await.contains("ago: answered after")
    })
    .await;
    assert!(!says(&nodes[0], "n1").await.contains("What follows"));
    assert_eq!(nodes[0].explain("nobody").await.unwrap(), None);
    assert!(says(&nodes[0], "n0").await.contains("this node itself"));
    nodes[1].leave(Duration::from_secs(10)).await.unwrap();
    until_state(&[&nodes[0]], "n1", NodeState::Left).await;
    assert!(says(&nodes[0], "n1").await.contains("left the cluster by itself"));
    nodes[0].shutdown().await;
    assert!(nodes[0].explain("n1").await.is_err() && nodes[0].health().await.is_err());
}
