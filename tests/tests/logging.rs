//! What nodes write into the log: nothing above `debug` while nothing happens, and never without end.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use memberlist::memory::MemoryTransport;
use memberlist::{Builder, Config, NodeState};
use memberlist_tests::cluster::until_state;
use memberlist_tests::{Cluster, TestNode, agree};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

/// One line of the log.
#[derive(Clone, Debug)]
struct Line {
    level: Level,
    message: String,
    /// Each as `name=value`.
    fields: Vec<String>,
    /// The spans around it, outermost first.
    spans: Vec<&'static str>,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            name => self.fields.push(format!("{name}={value:?}")),
        }
    }
}

/// Keeps all lines.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<Line>>>);

impl Log {
    /// The lines of this level or above it since the last call.
    fn take(&self, level: Level) -> Vec<Line> {
        let lines = std::mem::take(&mut *self.0.lock().unwrap());
        lines.into_iter().filter(|line| line.level <= level).collect()
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Log {
    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let scope = context.event_scope(event).into_iter().flat_map(|scope| scope.from_root());
        let mut line = Line {
            level: *event.metadata().level(),
            message: String::new(),
            fields: Vec::new(),
            spans: scope.map(|span| span.name()).collect(),
        };
        event.record(&mut line);
        self.0.lock().unwrap().push(line);
    }
}

/// Everything that this thread writes from now on, until the guard is dropped.
fn listen() -> (Log, tracing::subscriber::DefaultGuard) {
    let log = Log::default();
    let subscriber = tracing_subscriber::registry().with(log.clone());
    (log, tracing::subscriber::set_default(subscriber))
}

#[tokio::test]
async fn a_line_says_whose_it_is_whatever_is_filtered_out() {
    for filter in [LevelFilter::DEBUG, LevelFilter::INFO, LevelFilter::WARN] {
        let log = Log::default();
        let subscriber = tracing_subscriber::registry().with(log.clone().with_filter(filter));
        let _guard = tracing::subscriber::set_default(subscriber);
        let cluster = Cluster::<MemoryTransport>::new();
        let mut nodes = Vec::new();
        for label in ["blue", "red"] {
            let mut config = Config::lan(label);
            config.label = label.into();
            nodes.push(cluster.start(Builder::new(config)).await);
        }
        nodes[0].join([nodes[1].addr().to_string()]).await.unwrap_err();
        let lines = log.take(Level::WARN);
        assert!(lines.iter().any(|line| line.message.contains("refused")), "{filter}: {lines:?}");
        for line in lines {
            assert_eq!(line.spans.first(), Some(&"memberlist"), "{filter}: {line:?}");
        }
    }
}

async fn lan_cluster(
    cluster: &Cluster<MemoryTransport>,
    n: usize,
) -> Vec<TestNode<MemoryTransport>> {
    let mut nodes = Vec::new();
    for i in 0..n {
        nodes.push(cluster.start(Builder::new(Config::lan(format!("n{i}")))).await);
    }
    for node in &nodes[1..] {
        node.join([nodes[0].addr().to_string()]).await.unwrap();
    }
    agree(&nodes.iter().collect::<Vec<_>>()).await;
    nodes
}

#[tokio::test(start_paused = true)]
async fn a_healthy_cluster_is_silent_for_five_minutes() {
    let (log, _listening) = listen();
    let cluster = Cluster::<MemoryTransport>::new();
    let nodes = lan_cluster(&cluster, 20).await;
    let joins = log.take(Level::INFO);
    assert_eq!(joins.len(), 20 * 20, "everybody says once of everybody that it has joined");
    for line in &joins {
        assert_eq!((line.level, line.message.as_str()), (Level::INFO, "joined"), "{line:?}");
        assert_eq!(line.spans[0], "memberlist", "{line:?}");
        for field in ["node=", "addr=", "incarnation="] {
            assert!(line.fields.iter().any(|f| f.starts_with(field)), "{line:?}");
        }
    }
    tokio::time::sleep(Duration::from_secs(300)).await;
    let lines = log.take(Level::INFO);
    assert!(lines.is_empty(), "{lines:#?}");

    // Who dies and who leaves is told, with the reason.
    nodes[19].shutdown().await;
    let others: Vec<_> = nodes[..19].iter().collect();
    until_state(&others, "n19", NodeState::Dead).await;
    let lines = log.take(Level::INFO);
    assert_eq!(lines.len(), 19, "{lines:#?}");
    assert!(lines.iter().all(|line| line.message.starts_with("declared dead by")), "{lines:#?}");
    nodes[18].leave(Duration::from_secs(30)).await.unwrap();
    until_state(&others, "n18", NodeState::Left).await;
    let lines = log.take(Level::INFO);
    assert_eq!(lines.len(), 19, "{lines:#?}");
    assert!(lines.iter().all(|line| line.message.starts_with("left the cluster")), "{lines:#?}");
}

#[tokio::test(start_paused = true)]
async fn what_a_peer_provokes_fills_no_disk() {
    use memberlist::transport::{Destination, Transport};

    let (log, _listening) = listen();
    let cluster = Cluster::<MemoryTransport>::new();
    let node = cluster.start(Builder::new(Config::lan("n0"))).await;
    let attacker = cluster.transport().await;
    let to = Destination { addr: node.addr(), name: None };
    log.take(Level::INFO);
    for _ in 0..2000 {
        for garbage in [&b"\xff\xff"[..], b"", b"\x0c\0\0\0\0"] {
            attacker.send_packet(&to, garbage).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let dropped = node.stats().await.unwrap().drops_total();
    assert!(dropped >= 4000, "{dropped}");
    let lines = log.take(Level::INFO);
    assert!((1..=6).contains(&lines.len()), "in twenty seconds: {lines:#?}");
}
