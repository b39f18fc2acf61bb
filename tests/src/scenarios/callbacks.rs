//! Applications that call the node from inside its callbacks, and those that are slow in them.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::Duration;

use memberlist::protocol::DropReason;
use memberlist::{
    Builder, Bytes, Delegate, Event, Member, Node, NodeId, NodeState, Peer, Refusal, RemoteRecord,
    UserMessage,
};
use tokio::runtime::Handle;

use crate::cluster::{join_all, until_state};
use crate::transports::TestTransport;
use crate::wait::{agree, until, until_async, within};
use crate::{Cluster, EventLog, TestNode, Traffic, quick};

/// Uses its own node in every callback.
struct Reentrant<T: TestTransport>(Arc<Inner<T>>);

struct Inner<T: TestTransport> {
    /// Whether observations wait for the node.
    waits: bool,
    node: OnceLock<TestNode<T>>,
    called: Mutex<BTreeMap<&'static str, usize>>,
}

impl<T: TestTransport> Clone for Reentrant<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: TestTransport> Reentrant<T> {
    fn new(waits: bool) -> Self {
        Self(Arc::new(Inner { waits, node: OnceLock::new(), called: Mutex::default() }))
    }

    fn called(&self, callback: &str) -> usize {
        self.0.called.lock().unwrap().get(callback).copied().unwrap_or(0)
    }

    fn count(&self, callback: &'static str) {
        *self.0.called.lock().unwrap().entry(callback).or_default() += 1;
    }

    /// What every callback may do: read, and start what waits.
    fn read(&self, callback: &'static str) {
        self.count(callback);
        let Some(node) = self.0.node.get() else { return };
        let known = node.known_members();
        assert!(node.members().len() <= known.len() && node.alive_members().len() <= known.len());
        assert!(node.member_count() <= known.len() + 1);
        assert!(node.own().is_some() && node.member(node.name()).is_some());
        let _ = (node.health_score(), node.messages_dropped(), node.streams_refused());
        let _ = format!("{node:?}");
        drop(node.subscribe());
        let (node, this) = (node.clone(), self.clone());
        tokio::spawn(async move {
            // After shutdown it says so, which is fine.
            let _ = node.stats().await;
            this.count("spawned");
        });
    }

    /// What observations may do beside: wait for the node.
    fn wait(&self, callback: &'static str) {
        self.read(callback);
        // What it does here makes others call back in turn: without an end they would for ever.
        if self.called(callback) > 3 || !self.0.waits {
            return;
        }
        let Some(node) = self.0.node.get() else { return };
        Handle::current().block_on(async {
            // Any of them may fail: the node may be leaving, or down. None may hang.
            let _ = within("stats", node.stats()).await;
            let _ = within("a broadcast", node.broadcast(callback)).await;
            let _ = within("a ping", node.ping("n0")).await;
            let _ = within("a packet", node.send("n0", "packet")).await;
            let _ = within("a join", node.join([node.addr().to_string()])).await;
        });
        self.count("waited");
    }
}

impl<T: TestTransport> Delegate for Reentrant<T> {
    fn node_meta(&self, _: usize) -> Option<Bytes> {
        self.read("node_meta");
        None
    }
    fn admit_alive(&self, _: &Node) -> Result<(), Refusal> {
        self.read("admit_alive");
        Ok(())
    }
    fn admit_merge(&self, _: &Peer, _: &[RemoteRecord]) -> Result<(), Refusal> {
        self.read("admit_merge");
        Ok(())
    }
    fn ack_payload(&self) -> Bytes {
        self.read("ack_payload");
        "pong".into()
    }
    fn has_broadcasts(&self) -> bool {
        self.read("has_broadcasts");
        self.called("broadcasts") < 3
    }
    fn broadcasts(&self, _: usize, _: usize) -> Vec<Bytes> {
        self.read("broadcasts");
        vec!["by hand".into()]
    }
    fn allows_stream_ping(&self, _: &Node) -> bool {
        self.read("allows_stream_ping");
        true
    }
    fn local_state(&self, _: bool) -> Bytes {
        self.read("local_state");
        "state".into()
    }
    fn notify_message(&self, _: UserMessage) {
        self.wait("notify_message");
    }
    fn notify_snapshot(&self, _: &Arc<[Member]>, _: u64) {
        self.wait("notify_snapshot");
    }
    fn notify_join(&self, member: &Member) {
        let shown = self.0.node.get().and_then(|node| node.member(member.id().as_str()));
        assert!(self.0.node.get().is_none() || shown.is_some(), "members() shows it already");
        self.wait("notify_join");
    }
    fn notify_leave(&self, _: &Member) {
        self.wait("notify_leave");
    }
    fn notify_update(&self, _: &Member) {
        self.wait("notify_update");
    }
    fn notify_state(&self, _: &Member) {
        self.wait("notify_state");
    }
    fn notify_conflict(&self, _: &Arc<Node>, _: &Node) {
        self.wait("notify_conflict");
    }
    fn notify_forgotten(&self, _: &NodeId) {
        self.wait("notify_forgotten");
    }
    fn notify_ping_complete(&self, _: &Arc<Node>, _: Duration, payload: &Bytes) {
        // A member that does not know this node yet keeps its payload to itself.
        assert!(payload.is_empty() || payload == "pong");
        self.wait("notify_ping_complete");
    }
    fn merge_remote_state(&self, _: Bytes, _: bool) {
        self.wait("merge_remote_state");
    }
}

/// Every callback is called, and may read and start what it likes.
pub async fn reentrant<T: TestTransport>() {
    exercise::<T>(false).await;
}

/// Observations may even wait for the node, on any runtime. Needs the machine's clock: another one
/// stands still while a thread is blocked.
pub async fn waiting<T: TestTransport>() {
    exercise::<T>(true).await;
}

async fn exercise<T: TestTransport>(waits: bool) {
    let cluster = Cluster::<T>::new();
    let (mut nodes, mut apps) = (Vec::new(), Vec::new());
    for i in 0..4 {
        let mut config = quick(&format!("n{i}"));
        config.protocol.gossip_to_the_dead_time = Duration::from_millis(500);
        let app = Reentrant::new(waits);
        let node = cluster.start(Builder::new(config).delegate(app.clone())).await;
        assert!(app.0.node.set(node.clone()).is_ok());
        nodes.push(node);
        apps.push(app);
    }
    join_all(&nodes).await;
    nodes[1].update_meta("new").await.unwrap();
    nodes[2].send_reliable("n0", "hello").await.unwrap();
    nodes[1].broadcasts_available().await.unwrap();
    let namesake = cluster.node("n1").await;
    namesake.join([nodes[0].addr().to_string()]).await.unwrap();
    until("the conflict is told", || apps[0].called("notify_conflict") > 0).await;
    namesake.shutdown().await;
    cluster.rules().block(nodes[3].addr(), nodes[0].addr(), Traffic::Packets);
    cluster.rules().block(nodes[1].addr(), nodes[0].addr(), Traffic::Packets);
    until("a stream was tried", || apps[0].called("allows_stream_ping") > 0).await;
    cluster.rules().heal();
    agree(&nodes.iter().collect::<Vec<_>>()).await;
    nodes[3].shutdown().await;

    let observed = [
        "notify_message",
        "notify_snapshot",
        "notify_join",
        "notify_leave",
        "notify_update",
        "notify_state",
        "notify_forgotten",
        "notify_ping_complete",
        "merge_remote_state",
    ];
    let decided =
        ["admit_alive", "admit_merge", "ack_payload", "has_broadcasts", "local_state", "spawned"];
    for callback in observed.iter().chain(&decided) {
        until(callback, || apps[0].called(callback) > 0).await;
    }
    until("broadcasts", || apps.iter().any(|app| app.called("broadcasts") >= 3)).await;
    if waits {
        until("waited", || apps[0].called("waited") > observed.len()).await;
    }
    agree(&[&nodes[0], &nodes[1], &nodes[2]]).await;
    // Handles inside delegates keep their nodes running.
    for node in &nodes {
        node.shutdown().await;
    }
}

/// Blocks in every observation until it is let go.
#[derive(Clone, Default)]
struct Blocking(Arc<(Mutex<bool>, Condvar)>);

impl Blocking {
    fn block(&self) {
        let (free, changed) = &*self.0;
        let mut free = free.lock().unwrap();
        while !*free {
            free = changed.wait(free).unwrap();
        }
    }

    /// Lets go when it is dropped: a test that fails must not wait for the blocked thread.
    fn held(&self) -> Held {
        Held(self.clone())
    }
}

struct Held(Blocking);

impl Drop for Held {
    fn drop(&mut self) {
        let (free, changed) = &*self.0.0;
        *free.lock().unwrap() = true;
        changed.notify_all();
    }
}

impl Delegate for Blocking {
    fn notify_event(&self, _: &Event) {
        self.block();
    }
    fn notify_message(&self, _: UserMessage) {
        self.block();
    }
}

/// A delegate that blocks its thread stalls neither probes nor joins nor readers, on any runtime.
pub async fn blocking<T: TestTransport>() {
    let cluster = Cluster::<T>::new();
    let app = Blocking::default();
    let held = app.held();
    // Not even a busy machine takes a second to answer.
    let patient = |name: &str| {
        let mut config = quick(name);
        config.protocol.probe_interval = Duration::from_secs(1);
        config.protocol.probe_timeout = Duration::from_millis(500);
        config
    };
    let blocked = cluster.start(Builder::new(patient("blocked")).delegate(app.clone())).await;
    let other = cluster.start(Builder::new(patient("other"))).await;
    let log = EventLog::of(&other).await;
    other.join([blocked.addr().to_string()]).await.unwrap();
    other.send("blocked", "a message that is not taken").await.unwrap();
    agree(&[&blocked, &other]).await;
    let answered = other.stats().await.unwrap().probes_acked_direct + 4;
    until_async("probes are answered", || async {
        other.stats().await.unwrap().probes_acked_direct >= answered
    })
    .await;
    assert_eq!(log.names(), ["snapshot of 1, 0", "joined blocked"]);
    let third = cluster.start(Builder::new(patient("third"))).await;
    third.join([blocked.addr().to_string()]).await.unwrap();
    agree(&[&blocked, &other, &third]).await;
    drop(held);
    blocked.shutdown().await;
}

/// A delegate that cannot keep up is given a snapshot instead of what it missed.
pub async fn slow<T: TestTransport>() {
    /// Blocks at the first join, counts snapshots.
    #[derive(Clone, Default)]
    struct Slow(Blocking, Arc<Mutex<Vec<(usize, u64)>>>);
    impl Delegate for Slow {
        fn notify_event(&self, event: &Event) {
            match event {
                Event::Snapshot { members, missed } => {
                    self.1.lock().unwrap().push((members.len(), *missed));
                }
                Event::Joined(_) => self.0.block(),
                _ => {}
            }
        }
    }
    let cluster = Cluster::<T>::new();
    let app = Slow::default();
    let held = app.0.held();
    let mut config = quick("n0");
    config.event_capacity = 2;
    let mut nodes = vec![cluster.start(Builder::new(config).delegate(app.clone())).await];
    until("the first snapshot", || !app.1.lock().unwrap().is_empty()).await;
    for i in 1..8 {
        let node = cluster.node(&format!("n{i}")).await;
        node.join([nodes[0].addr().to_string()]).await.unwrap();
        nodes.push(node);
    }
    agree(&nodes.iter().collect::<Vec<_>>()).await;
    drop(held);
    until("a second snapshot", || app.1.lock().unwrap().len() >= 2).await;
    let (members, missed) = app.1.lock().unwrap()[1];
    assert!(members == 8 && missed > 0, "{members} members, {missed} missed");
    // It goes on as usual.
    nodes.pop().unwrap().shutdown().await;
    let rest: Vec<_> = nodes.iter().collect();
    until_state(&rest, "n7", NodeState::Dead).await;
    assert_eq!(nodes[0].stats().await.unwrap().drops(DropReason::Malformed), 0);
}
