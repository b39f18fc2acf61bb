//! Networks that lose everything between some nodes, or only some of it.

use std::time::Duration;

use memberlist::{Config, Event, NodeState};

use crate::cluster::{addrs, state, until_state};
use crate::transports::TestTransport;
use crate::wait::{agree, until, until_async};
use crate::{Cluster, EventLog, TestNode, Traffic};

/// Failed members are looked for often.
fn reconnecting(config: &mut Config) {
    config.protocol.reconnect_interval = Duration::from_millis(300);
}

/// A partition that heals before anybody is declared dead leaves no trace.
pub async fn short<T: TestTransport>() {
    let cluster = Cluster::<T>::new();
    // A suspicion lasts long enough to heal in it, however busy the machine is.
    let nodes = cluster.joined_with(4, |config| config.protocol.suspicion_mult = 25).await;
    let all: Vec<_> = nodes.iter().collect();
    let log = EventLog::of(all[0]).await;
    cluster.rules().partition(&addrs(&all[..2]), &addrs(&all[2..]));
    let suspects = |at: &TestNode<T>, names: [&str; 2]| {
        names.iter().any(|name| state(at, name) == Some(NodeState::Suspect))
    };
    until("each side suspects the other", || {
        suspects(all[0], ["n2", "n3"]) && suspects(all[2], ["n0", "n1"])
    })
    .await;
    assert!(cluster.rules().packets_lost() > 0 && cluster.rules().dials_held() > 0);
    cluster.rules().heal();
    agree(&all).await;
    assert_eq!(log.gone(), [""; 0]);
    assert!(log.count(|event| matches!(event, Event::Cleared(_))) > 0);
}

async fn long_partition<T: TestTransport>(change: impl Fn(&mut Config), until_forgotten: bool) {
    let cluster = Cluster::<T>::new();
    let nodes = cluster.joined_with(5, change).await;
    let all: Vec<_> = nodes.iter().collect();
    let (one, other) = all.split_at(2);
    let logs = [EventLog::of(one[0]).await, EventLog::of(other[0]).await];
    cluster.rules().partition(&addrs(one), &addrs(other));
    let gone = |at: &TestNode<T>, whom: &[&TestNode<T>]| {
        whom.iter().all(|node| match state(at, node.name()) {
            Some(state) => state == NodeState::Dead && !until_forgotten,
            None => until_forgotten,
        })
    };
    until("each side has buried the other", || {
        one.iter().all(|at| gone(at, other)) && other.iter().all(|at| gone(at, one))
    })
    .await;
    agree(one).await;
    agree(other).await;
    // Until here nobody lost one of its own side. From here on it may, for a moment: the other side's
    // verdict on its neighbours may still be on its way, and holds until they contradict it.
    for (log, own) in logs.iter().zip([one, other]) {
        let lost = |node: &&TestNode<T>| log.gone().iter().any(|name| name == node.name());
        assert!(!own.iter().any(lost), "{:#?}", log.all());
    }
    cluster.rules().heal();
    agree(&all).await;
}

/// Two halves that have declared each other dead find together again by themselves.
pub async fn long<T: TestTransport>() {
    long_partition::<T>(reconnecting, false).await;
}

/// So do halves that have forgotten each other.
pub async fn forgotten<T: TestTransport>() {
    let change = |config: &mut Config| {
        reconnecting(config);
        config.protocol.gossip_to_the_dead_time = Duration::from_millis(200);
    };
    long_partition::<T>(change, true).await;
}

/// A member that cannot be reached directly by one node is kept alive by relays.
pub async fn one_way<T: TestTransport>() {
    let cluster = Cluster::<T>::new();
    let nodes = cluster.joined_with(4, |config| config.protocol.indirect_probes = 3).await;
    let all: Vec<_> = nodes.iter().collect();
    let logs = [EventLog::of(all[0]).await, EventLog::of(all[1]).await];
    cluster.rules().block_all(all[0].addr(), all[1].addr());
    until_async("relays have answered for it", || async {
        all[0].stats().await.unwrap().probes_acked_indirect >= 3
    })
    .await;
    assert_eq!(all[0].stats().await.unwrap().probes_acked_stream, 0);
    assert!(logs.iter().all(|log| log.gone().is_empty()));
    cluster.rules().heal();
    agree(&all).await;
}

/// A node that hears nothing any more is declared dead, doubts itself rather than the others, and
/// takes none of them along.
pub async fn deaf<T: TestTransport>() {
    let cluster = Cluster::<T>::new();
    let nodes = cluster.joined_with(4, reconnecting).await;
    let all: Vec<_> = nodes.iter().collect();
    let logs = [EventLog::of(all[0]).await, EventLog::of(all[1]).await];
    for node in &all[..3] {
        cluster.rules().block_all(node.addr(), all[3].addr());
    }
    until_state(&all[..3], "n3", NodeState::Dead).await;
    assert!(all[3].health_score() > 0);
    agree(&all[..3]).await;
    cluster.rules().heal();
    agree(&all).await;
    for log in &logs {
        assert!(log.gone().iter().all(|name| name == "n3"), "{:?}", log.names());
    }
}

/// A member whose packets are lost in both directions stays alive by its streams, and that is
/// counted.
pub async fn packets_lost<T: TestTransport>() {
    let cluster = Cluster::<T>::new();
    let nodes = cluster.joined(2).await;
    let log = EventLog::of(&nodes[0]).await;
    let (a, b) = (nodes[0].addr(), nodes[1].addr());
    cluster.rules().block(a, b, Traffic::Packets);
    cluster.rules().block(b, a, Traffic::Packets);
    until_async("streams keep it alive", || async {
        nodes[0].stats().await.unwrap().probes_acked_stream >= 4
    })
    .await;
    assert_eq!(log.gone(), [""; 0]);
    cluster.rules().heal();
    let before = nodes[0].stats().await.unwrap().probes_acked_direct;
    until_async("packets are answered again", || async {
        nodes[0].stats().await.unwrap().probes_acked_direct > before
    })
    .await;
    agree(&[&nodes[0], &nodes[1]]).await;
}

/// A link over which no stream passes loses nobody either.
pub async fn streams_lost<T: TestTransport>() {
    let cluster = Cluster::<T>::new();
    let change = |config: &mut Config| {
        config.protocol.push_pull_interval = Duration::from_millis(200);
        config.protocol.stream_timeout = Duration::from_millis(200);
    };
    let nodes = cluster.joined_with(2, change).await;
    let log = EventLog::of(&nodes[0]).await;
    cluster.rules().block(nodes[0].addr(), nodes[1].addr(), Traffic::Streams);
    until_async("exchanges of states have failed", || async {
        nodes[0].stats().await.unwrap().push_pulls_failed >= 3
    })
    .await;
    assert!(cluster.rules().dials_held() >= 3);
    assert_eq!(log.gone(), [""; 0]);
    nodes[1].update_meta("by gossip").await.unwrap();
    agree(&[&nodes[0], &nodes[1]]).await;
}
