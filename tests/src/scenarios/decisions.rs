//! What the application decides and provides: whom to admit, its own state, conflicts.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use memberlist::protocol::DropReason;
use memberlist::{
    Builder, Bytes, Config, Delegate, Event, ExchangeError, JoinError, Node, NodeState, Peer,
    Refusal, RemoteRecord,
};

use crate::cluster::{join_all, state};
use crate::transports::TestTransport;
use crate::wait::{PATIENCE, agree, until, until_async, within};
use crate::{Cluster, EventLog, quick};

/// An application with a state of its own, which remembers those of others.
#[derive(Clone)]
struct Stateful {
    own: String,
    seen: Arc<Mutex<Vec<(Bytes, bool)>>>,
}

impl Stateful {
    fn new(own: &str) -> Self {
        Self { own: own.to_owned(), seen: Arc::default() }
    }

    fn has_seen(&self, state: &str, join: bool) -> bool {
        self.seen.lock().unwrap().iter().any(|seen| *seen == (Bytes::from(state.to_owned()), join))
    }
}

impl Delegate for Stateful {
    fn local_state(&self, join: bool) -> Bytes {
        format!("{} {join}", self.own).into()
    }

    fn merge_remote_state(&self, state: Bytes, join: bool) {
        self.seen.lock().unwrap().push((state, join));
    }
}

/// The applications' states are exchanged both ways at a join, and again from time to time.
pub async fn user_state<T: TestTransport>() {
    let cluster = Cluster::<T>::new();
    let apps = [Stateful::new("A"), Stateful::new("B")];
    let mut nodes = Vec::new();
    for app in &apps {
        let mut config = quick(&app.own);
        config.protocol.push_pull_interval = Duration::from_millis(200);
        nodes.push(cluster.start(Builder::new(config).delegate(app.clone())).await);
    }
    join_all(&nodes).await;
    for (app, other) in [(&apps[0], "B"), (&apps[1], "A")] {
        let joined = format!("{other} true");
        until("the state came with the join", || app.has_seen(&joined, true)).await;
        let later = format!("{other} false");
        until("the state came again", || app.has_seen(&later, false)).await;
    }
}

/// Has no state to give, in the worst way.
struct Panicking;

impl Delegate for Panicking {
    fn local_state(&self, _: bool) -> Bytes {
        panic!("no state (the test wants it so)")
    }
}

/// An application that panics instead of giving its state fails the exchange on both sides, at once
/// and as often as it is tried; nobody waits, and no serving slot is lost.
pub async fn no_state<T: TestTransport>() {
    let cluster = Cluster::<T>::new();
    let mut config = quick("panicking");
    // One may be ending while the next begins.
    config.protocol.max_push_pulls = 2;
    let panicking = cluster.start(Builder::new(config).delegate(Panicking)).await;
    let other = cluster.node("other").await;
    for _ in 0..4 {
        let asked = within("an inbound exchange", other.join([panicking.addr().to_string()])).await;
        let Err(JoinError::NoneReached(results)) = asked else { panic!("{asked:?}") };
        let refused = &results[0].attempts[0].result;
        let Err(ExchangeError::Refused { message, .. }) = refused else { panic!("{refused:?}") };
        assert!(message.contains("panicked"), "{message}");

        let asking = within("an own exchange", panicking.join([other.addr().to_string()])).await;
        let Err(JoinError::NoneReached(results)) = asking else { panic!("{asking:?}") };
        let failed = &results[0].attempts[0].result;
        assert!(matches!(failed, Err(ExchangeError::Io { .. })), "{failed:?}");
    }
}

/// Cannot decide, in the worst way.
struct Confused;

impl Delegate for Confused {
    fn admit_alive(&self, node: &Node) -> Result<(), Refusal> {
        panic!("no opinion on {} (the test wants it so)", node.id)
    }

    fn ack_payload(&self) -> Bytes {
        panic!("no payload (the test wants it so)")
    }
}

/// An application that panics instead of deciding admits nobody, and its node lives on.
pub async fn no_decision<T: TestTransport>() {
    let cluster = Cluster::<T>::new();
    let confused = cluster.start(Builder::new(quick("confused")).delegate(Confused)).await;
    let other = cluster.node("other").await;
    within("a join", other.join([confused.addr().to_string()])).await.unwrap();
    let refused = || async { confused.stats().await.unwrap().drops(DropReason::NotAdmitted) > 0 };
    until_async("the newcomer is refused", refused).await;
    assert_eq!(confused.member_count(), 1);
    let answered = || async { other.ping("confused").await.is_ok() };
    until_async("the node answers", answered).await;
}

/// Refuses names and merges.
#[derive(Clone)]
struct Choosy(&'static str);

impl Delegate for Choosy {
    fn admit_alive(&self, node: &Node) -> Result<(), Refusal> {
        match node.id.as_str() == self.0 {
            true => Err(Refusal("not this one".to_owned())),
            false => Ok(()),
        }
    }

    fn admit_merge(&self, _: &Peer, nodes: &[RemoteRecord]) -> Result<(), Refusal> {
        match nodes.iter().any(|record| record.node.id.as_str() == self.0) {
            true => Err(Refusal("not with this one".to_owned())),
            false => Ok(()),
        }
    }
}

/// Refuses names only.
struct Doorman(&'static str);

impl Delegate for Doorman {
    fn admit_alive(&self, node: &Node) -> Result<(), Refusal> {
        Choosy(self.0).admit_alive(node)
    }
}

/// A node that one application does not admit is a member for the others only.
pub async fn refused_node<T: TestTransport>() {
    let cluster = Cluster::<T>::new();
    let choosy = cluster.start(Builder::new(quick("choosy")).delegate(Doorman("bad"))).await;
    let open = cluster.node("open").await;
    choosy.join([open.addr().to_string()]).await.unwrap();
    agree(&[&choosy, &open]).await;
    let log = EventLog::of(&choosy).await;
    let bad = cluster.node("bad").await;
    bad.join([choosy.addr().to_string(), open.addr().to_string()]).await.unwrap();
    until("the others know it", || state(&open, "bad") == Some(NodeState::Alive)).await;
    until_async("it is refused and counted", || async {
        choosy.stats().await.unwrap().drops(DropReason::NotAdmitted) >= 2
    })
    .await;
    assert_eq!((choosy.member("bad"), log.count(|_| true)), (None, 1));
    assert_eq!(choosy.member_count(), 2);
}

/// Who refuses to merge with what it would join gets an error of its own and none of the members.
pub async fn refused_by_the_joiner<T: TestTransport>() {
    let cluster = Cluster::<T>::new();
    let nodes = cluster.joined(2).await;
    let joiner = cluster.start(Builder::new(quick("joiner")).delegate(Choosy("n1"))).await;
    let Err(JoinError::NoneReached(results)) = joiner.join([nodes[0].addr().to_string()]).await
    else {
        panic!("the join should have failed");
    };
    let error = results[0].attempts[0].result.as_ref().unwrap_err();
    assert!(matches!(error, ExchangeError::MergeRefused { .. }), "{error}");
    assert!(error.to_string().contains("not with this one"), "{error}");
}

/// Who is refused by the seed is told so, knows nobody, and nobody knows it.
pub async fn refused_by_the_seed<T: TestTransport>() {
    let cluster = Cluster::<T>::new();
    let seed = cluster.start(Builder::new(quick("seed")).delegate(Choosy("bad"))).await;
    let other = cluster.node("other").await;
    other.join([seed.addr().to_string()]).await.unwrap();
    agree(&[&seed, &other]).await;

    let bad = cluster.node("bad").await;
    let Err(JoinError::NoneReached(results)) = bad.join([seed.addr().to_string()]).await else {
        panic!("the join should have failed");
    };
    let error = results[0].attempts[0].result.as_ref().unwrap_err();
    assert!(matches!(error, ExchangeError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("not with this one"), "{error}");
    assert_eq!(seed.stats().await.unwrap().drops(DropReason::NotAdmitted), 1);
    for (node, count) in [(&seed, 2), (&other, 2), (&bad, 1)] {
        assert_eq!(node.known_members().len(), count, "{}", node.name());
    }
    // Exchanges with others go on.
    let good = cluster.node("good").await;
    good.join([seed.addr().to_string()]).await.unwrap();
    agree(&[&seed, &other, &good]).await;
}

/// Clusters whose versions do not go together stay apart, and say so.
pub async fn incompatible<T: TestTransport>() {
    let cluster = Cluster::<T>::new();
    let nodes = cluster
        .joined_with(2, |config: &mut Config| config.protocol.application_versions = (1, 2, 2))
        .await;
    let mut config = quick("new");
    config.protocol.application_versions = (3, 4, 3);
    let newer = cluster.start(Builder::new(config)).await;
    let failed = newer.join([nodes[0].addr().to_string()]).await.unwrap_err().to_string();
    assert!(failed.contains("application version"), "{failed}");
    assert_eq!(newer.known_members().len(), 1);
    agree(&[&nodes[0], &nodes[1]]).await;
    assert!(nodes[0].member("new").is_none());
}

/// Of two nodes that claim one name the first keeps it; the others are told, and neither the claim
/// nor the farewell of the second does it any harm that lasts.
pub async fn conflict<T: TestTransport>() {
    let cluster = Cluster::<T>::new();
    let nodes = cluster.joined(3).await;
    let all: Vec<_> = nodes.iter().collect();
    let log = EventLog::of(all[0]).await;
    let second = cluster.node("n1").await;
    second.join([all[0].addr().to_string()]).await.unwrap();
    let mine = all[1].addr();
    let told = |event: &Event| match event {
        Event::Conflict { existing, other } => {
            existing.addr == mine && other.addr == second.addr() && other.id.as_str() == "n1"
        }
        _ => false,
    };
    until("the conflict is told", || log.count(told) > 0).await;
    agree(&all).await;
    assert_eq!(log.gone(), [""; 0]);

    second.leave(PATIENCE).await.unwrap();
    second.shutdown().await;
    agree(&all).await;
    assert_eq!(all[0].member("n1").unwrap().addr(), mine);
}
