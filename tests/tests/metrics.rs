//! What nodes write into a recorder of their own.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use memberlist::memory::MemoryTransport;
use memberlist::metrics::{CATALOGUE, MetricKind, Metrics};
use memberlist::security::{KeySize, Keyring, SecretKey};
use memberlist::{Builder, Encryption, NodeState};
use memberlist_tests::{Cluster, TestNode, agree, quick, until};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

type Node = TestNode<MemoryTransport>;

/// A node with a recorder of its own, which brings everything up to date at once.
async fn start(cluster: &Cluster<MemoryTransport>, name: &str, key: &SecretKey) -> (Node, Reader) {
    let recorder = DebuggingRecorder::new();
    let reader = Reader(recorder.snapshotter(), RefCell::default());
    let mut config = quick(name);
    config.encryption = Some(Encryption::new(Keyring::new(key.clone())));
    config.metrics =
        Metrics::labelled([("node", name), ("cluster", "blue")]).with_recorder(recorder);
    config.metrics.interval = Duration::ZERO;
    (cluster.start(Builder::new(config)).await, reader)
}

/// Two nodes that know each other, and what the first one writes.
async fn two() -> (Node, Reader, Node) {
    let cluster = Cluster::<MemoryTransport>::new();
    let key = SecretKey::generate(KeySize::Bits128).unwrap();
    let (a, metrics) = start(&cluster, "a", &key).await;
    let (b, _) = start(&cluster, "b", &key).await;
    b.join([a.addr().to_string()]).await.unwrap();
    agree(&[&a, &b]).await;
    (a, metrics, b)
}

/// A name and the labels beside those of the node.
type Key = (String, BTreeMap<String, String>);

/// What a recorder holds, with what was read before: this recorder gives each value once.
struct Reader(Snapshotter, RefCell<BTreeMap<Key, f64>>);

impl Reader {
    /// All values; of a histogram, how often something was recorded.
    fn read(&self) -> BTreeMap<Key, f64> {
        let mut all = self.1.borrow_mut();
        for (key, unit, help, value) in self.0.snapshot().into_vec() {
            let (_, key) = key.into_parts();
            assert!(unit.is_some() && help.is_some_and(|help| !help.is_empty()), "{key:?}");
            let mut labels: BTreeMap<String, String> =
                key.labels().map(|l| (l.key().to_owned(), l.value().to_owned())).collect();
            assert_eq!(labels.remove("cluster").as_deref(), Some("blue"));
            assert!(labels.remove("node").is_some());
            let slot = all.entry((key.name().to_owned(), labels)).or_insert(0.0);
            match value {
                DebugValue::Counter(count) => *slot += count as f64,
                DebugValue::Gauge(value) => *slot = value.into_inner(),
                DebugValue::Histogram(values) => *slot += values.len() as f64,
            }
        }
        all.clone()
    }

    /// One value.
    fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let all = self.read();
        *all.get(&(name.to_owned(), labels)).unwrap_or_else(|| panic!("no {name}: {all:#?}"))
    }
}

#[tokio::test]
async fn every_metric_is_there_with_its_labels_and_no_other() {
    let (_a, metrics, _b) = two().await;
    let found = || {
        let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (name, labels) in metrics.read().into_keys() {
            found.entry(name).or_default().extend(labels.into_keys());
        }
        found
    };
    until("the first values are there", || found().contains_key("memberlist.key.sealed")).await;
    let catalogue: BTreeMap<String, BTreeSet<String>> = CATALOGUE
        .iter()
        .map(|metric| {
            let labels = metric.labels.iter().map(|label| (*label).to_owned()).collect();
            (metric.name.to_owned(), labels)
        })
        .collect();
    assert_eq!(catalogue.len(), CATALOGUE.len(), "each name once");
    assert_eq!(found(), catalogue);
}

#[tokio::test]
async fn values_follow_what_happens() {
    let cluster = Cluster::<MemoryTransport>::new();
    let key = SecretKey::generate(KeySize::Bits128).unwrap();
    let (a, metrics) = start(&cluster, "a", &key).await;
    let mut events = a.subscribe();
    assert!(events.next().await.is_some());
    let (b, _) = start(&cluster, "b", &key).await;
    b.join([a.addr().to_string()]).await.unwrap();
    agree(&[&a, &b]).await;
    assert!(events.next().await.is_some());
    let is =
        |name: &str, labels: &[(&str, &str)], wanted: f64| metrics.value(name, labels) == wanted;
    until("two are alive", || is("memberlist.members", &[("state", "alive")], 2.0)).await;
    until("its exchange is counted", || {
        is("memberlist.push_pulls.served", &[], 1.0)
            && is("memberlist.streams", &[("role", "served")], 1.0)
    })
    .await;
    until("its stream is over", || is("memberlist.streams.open", &[("role", "served")], 0.0)).await;
    assert!(metrics.value("memberlist.stream.bytes", &[("direction", "received")]) > 100.0);
    let fingerprint = key.fingerprint().to_string();
    for name in ["memberlist.key.sealed", "memberlist.key.opened"] {
        assert!(metrics.value(name, &[("key", &fingerprint)]) >= 1.0, "{name}");
    }
    until("it has one key", || is("memberlist.keys", &[], 1.0)).await;
    let counted = |kind: &str, direction: &str| {
        metrics.value("memberlist.packets", &[("kind", kind), ("direction", direction)])
    };
    until("pings went both ways", || {
        counted("ping", "sent") > 0.0 && counted("ping", "received") > 0.0
    })
    .await;

    b.shutdown().await;
    until("b is dead", || is("memberlist.members", &[("state", "dead")], 1.0)).await;
    until("so is its death", || is("memberlist.suspicions.expired", &[], 1.0)).await;
    assert!(metrics.value("memberlist.probes.unanswered", &[("leg", "direct")]) >= 1.0);
    let stats = a.stats().await.unwrap();
    until("all is brought up to date", || {
        is("memberlist.probes.started", &[], stats.probes as f64)
    })
    .await;
    a.shutdown().await;
}

#[tokio::test]
async fn histograms_are_recorded_at_once() {
    let cluster = Cluster::<MemoryTransport>::new();
    let key = SecretKey::generate(KeySize::Bits128).unwrap();
    let (a, metrics) = start(&cluster, "a", &key).await;
    let mut nodes = vec![a];
    for name in ["b", "c", "d", "e"] {
        nodes.push(start(&cluster, name, &key).await.0);
    }
    // What comes after this snapshot is an event.
    let mut events = nodes[0].subscribe();
    assert!(events.next().await.is_some());
    for node in &nodes[1..] {
        node.join([nodes[0].addr().to_string()]).await.unwrap();
    }
    agree(&nodes.iter().collect::<Vec<_>>()).await;
    assert!(events.next().await.is_some());
    nodes[0].update_meta("new").await.unwrap();
    let mut seen = BTreeMap::new();
    let histograms = [
        ("memberlist.push_pull.duration", "role", "served"),
        ("memberlist.push_pull.size", "direction", "sent"),
        ("memberlist.probe.rtt", "", ""),
        ("memberlist.event.lag", "", ""),
        ("memberlist.convergence.lag", "", ""),
    ];
    until("each was recorded", || {
        for ((name, labels), count) in metrics.read() {
            seen.insert((name, labels.into_values().collect::<String>()), count);
        }
        histograms.iter().all(|(name, _, value)| {
            seen.get(&((*name).to_owned(), (*value).to_owned())).is_some_and(|count| *count > 0.0)
        })
    })
    .await;
    for metric in CATALOGUE.iter().filter(|metric| metric.kind == MetricKind::Histogram) {
        assert!(seen.keys().any(|(name, _)| name == metric.name), "{}", metric.name);
    }
    assert_eq!(nodes[0].own().unwrap().state, NodeState::Alive);
}

#[tokio::test]
async fn keys_that_come_and_go_make_no_series_without_end() {
    let cluster = Cluster::<MemoryTransport>::new();
    let key = SecretKey::generate(KeySize::Bits128).unwrap();
    let (a, metrics) = start(&cluster, "a", &key).await;
    for _ in 0..80 {
        let new = SecretKey::generate(KeySize::Bits128).unwrap();
        let id = new.fingerprint();
        a.keys().unwrap().install(new).await;
        // Something happens at the node, and with that its metrics are brought up to date.
        a.stats().await.unwrap();
        a.stats().await.unwrap();
        a.keys().unwrap().forced().remove(id).await.unwrap();
    }
    a.stats().await.unwrap();
    let all = metrics.read();
    let labels = |name: &str| all.keys().filter(|(of, _)| of == name).count();
    assert_eq!(labels("memberlist.key.opened"), 64 + 1);
    assert_eq!(labels("memberlist.key.sealed"), 64 + 1);
    assert_eq!(metrics.value("memberlist.key.opened", &[("key", "other")]), 0.0);
}

#[tokio::test]
async fn gauges_of_a_node_that_has_ended_are_zero() {
    let (a, metrics, _b) = two().await;
    a.shutdown().await;
    for ((name, labels), value) in metrics.read() {
        let metric = CATALOGUE.iter().find(|metric| metric.name == name).unwrap();
        if metric.kind == MetricKind::Gauge {
            assert_eq!(value, 0.0, "{name} {labels:?}");
        }
    }
}
