//! Going, in good order.

use std::time::Duration;

use memberlist::protocol::BroadcastError;
use memberlist::{Builder, Event, LeaveError, NodeState, SendError};

use crate::cluster::{state, until_state};
use crate::transports::TestTransport;
use crate::wait::{PATIENCE, agree, until, within};
use crate::{Cluster, EventLog, quick};

/// No gossip tick within a test.
const NEVER: Duration = Duration::from_secs(3600);

/// When `leave` returns the farewell is out: the node may vanish at once and nobody takes it for
/// dead.
pub async fn farewell<T: TestTransport>() {
    let cluster = Cluster::<T>::new();
    let mut nodes = cluster.joined(5).await;
    let leaver = nodes.remove(2);
    let logs = [EventLog::of(&nodes[0]).await, EventLog::of(&nodes[3]).await];
    leaver.leave(PATIENCE).await.unwrap();
    leaver.shutdown().await;

    let rest: Vec<_> = nodes.iter().collect();
    until_state(&rest, "n2", NodeState::Left).await;
    agree(&rest).await;
    for node in &rest {
        let death = node.member("n2").unwrap().death.unwrap();
        assert!(death.left && death.declared_by.as_str() == "n2", "{death}");
    }
    for log in &logs {
        until("the farewell is told", || !log.gone().is_empty()).await;
        assert_eq!(log.gone(), ["n2"]);
        let suspected =
            |event: &Event| matches!(event, Event::Suspected(m) if m.id().as_str() == "n2");
        assert_eq!(log.count(suspected), 0);
    }
}

/// Who has left knows it, may ask again, and may not broadcast.
pub async fn twice<T: TestTransport>() {
    let cluster = Cluster::<T>::new();
    let nodes = cluster.joined(3).await;
    let leaver = &nodes[0];
    let (first, second) = tokio::join!(leaver.leave(PATIENCE), leaver.leave(PATIENCE));
    assert_eq!((first, second), (Ok(()), Ok(())));
    assert_eq!(leaver.leave(PATIENCE).await, Ok(()));
    assert_eq!((state(leaver, "n0"), leaver.member_count()), (Some(NodeState::Left), 2));
    let refused = leaver.broadcast("too late").await;
    assert_eq!(refused, Err(SendError::Broadcast(BroadcastError::Left)));
    // It still answers and can still talk to one member.
    leaver.ping("n1").await.unwrap();
    leaver.send_reliable("n1", "goodbye").await.unwrap();
}

/// With nobody there to be told, leaving does not wait for gossip.
pub async fn alone<T: TestTransport>() {
    let cluster = Cluster::<T>::new();
    let mut nodes = cluster
        .joined_with(2, |config| {
            config.protocol.gossip_interval = NEVER;
            config.protocol.push_pull_interval = Duration::from_millis(100);
        })
        .await;
    let (left_over, other) = (nodes.remove(0), nodes.remove(0));
    other.shutdown().await;
    until_state(&[&left_over], "n1", NodeState::Dead).await;
    left_over.leave(PATIENCE).await.unwrap();
    assert_eq!(left_over.member_count(), 0);

    let mut config = quick("hermit");
    config.protocol.gossip_interval = NEVER;
    let hermit = cluster.start(Builder::new(config)).await;
    hermit.leave(PATIENCE).await.unwrap();
}

/// A farewell that takes too long is an error of its own, and the node has left all the same.
pub async fn too_slow<T: TestTransport>() {
    let cluster = Cluster::<T>::new();
    let nodes = cluster
        .joined_with(2, |config| {
            // Nothing that a farewell could ride on.
            config.protocol.eager_gossip_spacing = Duration::ZERO;
            config.protocol.gossip_interval = NEVER;
            config.protocol.probe_interval = Duration::ZERO;
            config.protocol.push_pull_interval = NEVER;
        })
        .await;
    let patience = Duration::from_millis(50);
    let late = within("the error", nodes[0].leave(patience)).await;
    assert_eq!(late, Err(LeaveError::Timeout(patience)));
    until_state(&[&nodes[0]], "n0", NodeState::Left).await;
    assert_eq!(state(&nodes[1], "n0"), Some(NodeState::Alive));
}

/// The same handle can leave and join as often as it likes.
pub async fn and_join_again<T: TestTransport>() {
    let cluster = Cluster::<T>::new();
    let nodes = cluster.joined(3).await;
    let all: Vec<_> = nodes.iter().collect();
    let log = EventLog::of(&nodes[0]).await;
    for round in 1..=2 {
        nodes[1].leave(PATIENCE).await.unwrap();
        until_state(&[&nodes[0], &nodes[2]], "n1", NodeState::Left).await;
        nodes[1].join([nodes[2].addr().to_string()]).await.unwrap();
        agree(&all).await;
        // Each return is at a higher incarnation than the farewell before it.
        assert!(nodes[1].own().unwrap().incarnation > round);
        nodes[1].broadcast("back").await.unwrap();
    }
    assert_eq!(log.gone(), ["n1", "n1"]);
}

/// Two that leave together do not wait for each other, nor do all of a cluster.
pub async fn all_together<T: TestTransport>() {
    let cluster = Cluster::<T>::new();
    let nodes = cluster.joined(4).await;
    let (a, b, c, d) = tokio::join!(
        nodes[0].leave(PATIENCE),
        nodes[1].leave(PATIENCE),
        nodes[2].leave(PATIENCE),
        nodes[3].leave(PATIENCE),
    );
    assert_eq!([a, b, c, d], [Ok(()), Ok(()), Ok(()), Ok(())]);
    assert!(nodes.iter().all(|node| state(node, node.name()) == Some(NodeState::Left)));
}
