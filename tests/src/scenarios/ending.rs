//! The end of a node.

use std::time::Duration;

use memberlist::{
    Builder, Closed, JoinError, LeaveError, NodeState, PingError, SendError, UpdateError,
};

use super::messages::listener;
use crate::attack::Fake;
use crate::cluster::until_state;
use crate::transports::TestTransport;
use crate::wait::{PATIENCE, until, until_async, within};
use crate::{Cluster, EventLog, TestNode, quick};

/// Every method of a node that was shut down says so; reading shows the last that was known.
pub async fn closed<T: TestTransport>() {
    let cluster = Cluster::<T>::new();
    let nodes = cluster.joined(2).await;
    let (node, other) = (&nodes[0], nodes[1].addr());
    node.shutdown().await;
    within("a second shutdown", node.shutdown()).await;

    let seed = other.to_string();
    assert!(matches!(node.join([&seed]).await, Err(JoinError::Closed(Closed))));
    assert!(matches!(node.join(["[::1"]).await, Err(JoinError::Closed(Closed))));
    assert_eq!(node.leave(PATIENCE).await, Err(LeaveError::Closed(Closed)));
    assert_eq!(node.update_meta("new").await, Err(UpdateError::Closed(Closed)));
    assert_eq!(node.stats().await.unwrap_err(), Closed);
    assert_eq!(node.broadcasts_available().await, Err(Closed));
    for name in ["n1", "nobody"] {
        assert_eq!(node.ping(name).await, Err(PingError::Closed(Closed)));
        assert_eq!(node.send(name, "hello").await, Err(SendError::Closed(Closed)));
        assert_eq!(node.send_reliable(name, "hello").await, Err(SendError::Closed(Closed)));
    }
    assert_eq!(node.broadcast("hello").await, Err(SendError::Closed(Closed)));
    assert_eq!(node.send_to(other, "hello").await, Err(SendError::Closed(Closed)));

    assert_eq!((node.name(), node.member_count()), ("n0", 2));
    let log = EventLog::of(node).await;
    until("a late subscription ends", || log.has_ended()).await;
    assert_eq!(log.names(), ["snapshot of 2, 0"]);
}

/// What waits when the node is shut down ends with it.
pub async fn waiting_calls<T: TestTransport>() {
    let cluster = Cluster::<T>::new();
    let never = Duration::from_secs(3600);
    let mut config = quick("a");
    let protocol = &mut config.protocol;
    (protocol.stream_timeout, protocol.gossip_interval) = (never, never);
    (protocol.probe_interval, protocol.push_pull_interval) = (Duration::ZERO, never);
    let a = cluster.start(Builder::new(config)).await;
    // An application that takes no messages: its node holds the sender back.
    let (b, _messages) = listener(&cluster, "b", 1).await;
    a.join([b.addr().to_string()]).await.unwrap();
    a.send_reliable("b", "fills the queue").await.unwrap();

    let silent = Fake::silent(cluster.transport().await);
    let seed = silent.addr().to_string();
    let spawn = |node: &TestNode<T>| node.clone();
    let (one, two, three) = (spawn(&a), spawn(&a), spawn(&a));
    let join = tokio::spawn(async move { one.join([seed]).await });
    let send = tokio::spawn(async move { two.send_reliable("b", "waits").await });
    // A join that comes after a farewell takes it back: the join first.
    silent.until_accepted(1).await;
    let leave = tokio::spawn(async move { three.leave(never).await });
    until("the farewell has begun", || a.own().unwrap().state == NodeState::Left).await;
    a.shutdown().await;
    let joined = within("the join", join).await.unwrap();
    assert!(matches!(joined, Err(JoinError::Closed(Closed))), "{joined:?}");
    assert_eq!(within("the leave", leave).await.unwrap(), Err(LeaveError::Closed(Closed)));
    assert_eq!(within("the message", send).await.unwrap(), Err(SendError::Closed(Closed)));
}

/// After shutdown the port is free, whatever streams were open.
pub async fn frees_its_port<T: TestTransport>() {
    let cluster = Cluster::<T>::new();
    let nodes = cluster.joined(2).await;
    let dialler = cluster.transport().await;
    let to = nodes[0].addr().into();
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(dialler.open_stream(&to, PATIENCE).await.unwrap());
    }
    nodes[0].send_reliable("n1", "hello").await.unwrap();
    for _ in 0..3 {
        assert!(!cluster.is_free(nodes[0].addr()).await);
    }
    let (one, two) = (nodes[0].clone(), nodes[0].clone());
    tokio::join!(one.shutdown(), two.shutdown());
    assert!(cluster.is_free(nodes[0].addr()).await);
    let again = cluster.start_at(nodes[0].addr(), Builder::new(quick("again"))).await;
    again.join([nodes[1].addr().to_string()]).await.unwrap();
}

/// The last handle that is dropped ends the node, without a farewell; subscriptions and message
/// queues do not keep it.
pub async fn last_handle<T: TestTransport>() {
    let cluster = Cluster::<T>::new();
    let a = cluster.node("a").await;
    let (b, mut messages) = listener(&cluster, "b", 4).await;
    let addr = b.addr();
    b.join([a.addr().to_string()]).await.unwrap();
    let log = EventLog::of(&b).await;
    let clone = b.clone();
    drop(b);
    assert_eq!(clone.ping("a").await.map(drop), Ok(()));
    drop(clone);
    until_async("the port is free", || cluster.is_free(addr)).await;
    until("the subscription ends", || log.has_ended()).await;
    assert!(within("the messages end", messages.next()).await.is_none());
    until_state(&[&a], "b", NodeState::Dead).await;
}

/// An exchange with a peer that never answers does not keep a node whose last handle is gone.
pub async fn last_handle_in_an_exchange<T: TestTransport>() {
    let cluster = Cluster::<T>::new();
    let mut config = quick("a");
    config.protocol.stream_timeout = Duration::from_secs(3600);
    config.protocol.push_pull_interval = Duration::from_millis(100);
    let a = cluster.start(Builder::new(config)).await;
    let b = cluster.node("b").await;
    a.join([b.addr().to_string()]).await.unwrap();
    let addr = a.addr();
    // From here on the exchange that is begun from time to time waits for a dial.
    cluster.rules().block(addr, b.addr(), crate::Traffic::Streams);
    until("an exchange waits", || cluster.rules().dials_held() > 0).await;
    drop(a);
    until_async("the port is free", || cluster.is_free(addr)).await;
}
