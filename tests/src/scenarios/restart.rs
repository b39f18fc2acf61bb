//! Dying, and coming back: under the same name, at the same address or another.

use std::time::Duration;

use memberlist::{Builder, Config, NodeState};
use tokio::time::Instant;

use crate::cluster::{state, until_state};
use crate::transports::TestTransport;
use crate::wait::{PATIENCE, agree, until};
use crate::{Cluster, EventLog, TestNode, quick};

fn with(name: &str, change: impl Fn(&mut Config)) -> Builder {
    let mut config = quick(name);
    change(&mut config);
    Builder::new(config)
}

/// Ends a node without a farewell, and gives its address.
async fn kill<T: TestTransport>(node: TestNode<T>) -> std::net::SocketAddr {
    let addr = node.addr();
    node.shutdown().await;
    addr
}

/// A node that vanishes is found dead by all, once, and they can say why.
pub async fn killed<T: TestTransport>() {
    let cluster = Cluster::<T>::new();
    let mut nodes = cluster.joined(4).await;
    let logs = [EventLog::of(&nodes[0]).await, EventLog::of(&nodes[1]).await];
    kill(nodes.remove(3)).await;
    let rest: Vec<_> = nodes.iter().collect();
    until_state(&rest, "n3", NodeState::Dead).await;
    agree(&rest).await;

    let deaths: Vec<_> = rest.iter().map(|n| n.member("n3").unwrap().death.unwrap()).collect();
    for death in &deaths {
        assert!(!death.left);
        let text = death.to_string();
        assert!(text.starts_with("declared dead by n"), "{text}");
        let suspicion = death.suspicion.as_ref().expect("a death is preceded by a suspicion");
        assert!(!suspicion.suspected_by.is_empty());
    }
    // Whoever raised the suspicion tells which legs of its probe failed.
    let told = deaths.iter().filter(|death| death.to_string().contains("own ping"));
    assert!(told.count() >= 1, "{deaths:?}");
    for log in &logs {
        until("the death is told", || !log.gone().is_empty()).await;
        assert_eq!(log.gone(), ["n3"]);
    }
}

/// Started again at the same address within a second of being declared dead.
pub async fn just_declared_dead<T: TestTransport>() {
    let cluster = Cluster::<T>::new();
    let mut nodes = cluster.joined(3).await;
    let addr = kill(nodes.remove(2)).await;
    until_state(&[&nodes[0], &nodes[1]], "n2", NodeState::Dead).await;
    let logs = [EventLog::of(&nodes[0]).await, EventLog::of(&nodes[1]).await];
    let back = cluster.start_at(addr, Builder::new(quick("n2"))).await;
    back.join([nodes[0].addr().to_string()]).await.unwrap();
    agree(&[&nodes[0], &nodes[1], &back]).await;
    assert!(back.own().unwrap().incarnation > 1);
    assert!(logs.iter().all(|log| log.gone().is_empty()));
}

/// Started again at the same address after everybody has forgotten it.
pub async fn reaped<T: TestTransport>() {
    let cluster = Cluster::<T>::new();
    let change = |config: &mut Config| {
        config.protocol.gossip_to_the_dead_time = Duration::from_millis(200);
        config.protocol.reconnect_interval = Duration::ZERO;
    };
    let mut nodes = cluster.joined_with(3, change).await;
    let addr = kill(nodes.remove(2)).await;
    until("all have forgotten it", || nodes.iter().all(|node| node.member("n2").is_none())).await;
    // Why it went is still known.
    let tombstone = nodes[0].tombstone("n2").await.unwrap().expect("a tombstone");
    assert_eq!((tombstone.state, tombstone.node.addr), (NodeState::Dead, addr));
    assert!(tombstone.death.is_some_and(|death| !death.left));
    assert_eq!(nodes[0].tombstone("n1").await, Ok(None));
    let back = cluster.start_at(addr, with("n2", change)).await;
    back.join([nodes[0].addr().to_string()]).await.unwrap();
    agree(&[&nodes[0], &nodes[1], &back]).await;
    assert_eq!(nodes[0].tombstone("n2").await, Ok(None));
}

/// Started again at the same address before anybody noticed; what it says now counts, not what its
/// predecessor said at a higher incarnation.
pub async fn unnoticed<T: TestTransport>() {
    let cluster = Cluster::<T>::new();
    let mut nodes = cluster.joined(3).await;
    for meta in ["first", "second", "third"] {
        nodes[2].update_meta(meta).await.unwrap();
    }
    agree(&[&nodes[0], &nodes[1], &nodes[2]]).await;
    let before = nodes[2].own().unwrap().incarnation;
    let addr = kill(nodes.remove(2)).await;
    let fresh = with("n2", |config| config.meta = "fourth".into());
    let back = cluster.start_at(addr, fresh).await;
    back.join([nodes[0].addr().to_string()]).await.unwrap();
    agree(&[&nodes[0], &nodes[1], &back]).await;
    assert!(back.own().unwrap().incarnation > before);
    assert_eq!(&nodes[1].member("n2").unwrap().node.meta[..], b"fourth");
}

/// As `unnoticed`, but at the very incarnation that is known.
pub async fn unnoticed_at_first_incarnation<T: TestTransport>() {
    let cluster = Cluster::<T>::new();
    let mut nodes = cluster.joined(3).await;
    let addr = kill(nodes.remove(2)).await;
    let fresh = with("n2", |config| config.meta = "new".into());
    let back = cluster.start_at(addr, fresh).await;
    back.join([nodes[0].addr().to_string()]).await.unwrap();
    agree(&[&nodes[0], &nodes[1], &back]).await;
}

/// A failed node that comes back and knows nobody is found by those who know it.
pub async fn without_a_seed<T: TestTransport>() {
    let cluster = Cluster::<T>::new();
    let change = |config: &mut Config| {
        config.protocol.reconnect_interval = Duration::from_millis(300);
    };
    let mut nodes = cluster.joined_with(3, change).await;
    let addr = kill(nodes.remove(2)).await;
    until_state(&[&nodes[0], &nodes[1]], "n2", NodeState::Dead).await;
    let back = cluster.start_at(addr, with("n2", change)).await;
    agree(&[&nodes[0], &nodes[1], &back]).await;
}

/// At another address, once its death is old enough for its name to be free.
pub async fn moved_after_death<T: TestTransport>() {
    let cluster = Cluster::<T>::new();
    let reclaim = Duration::from_millis(200);
    let change = |config: &mut Config| config.protocol.dead_node_reclaim_time = reclaim;
    let mut nodes = cluster.joined_with(3, change).await;
    let old = kill(nodes.remove(2)).await;
    until_state(&[&nodes[0], &nodes[1]], "n2", NodeState::Dead).await;
    until("the name is free", || {
        nodes
            .iter()
            .all(|node| Instant::from_std(node.member("n2").unwrap().since).elapsed() > reclaim)
    })
    .await;
    let back = cluster.start(with("n2", change)).await;
    assert_ne!(back.addr(), old);
    back.join([nodes[0].addr().to_string()]).await.unwrap();
    agree(&[&nodes[0], &nodes[1], &back]).await;
}

/// At another address after a farewell: at once, and without being allowed to by a setting.
pub async fn moved_after_farewell<T: TestTransport>() {
    let cluster = Cluster::<T>::new();
    let mut nodes = cluster.joined(3).await;
    let leaver = nodes.remove(2);
    let old = leaver.addr();
    leaver.leave(PATIENCE).await.unwrap();
    leaver.shutdown().await;
    until_state(&[&nodes[0], &nodes[1]], "n2", NodeState::Left).await;
    // The old address is kept busy, so that the new one is another.
    let _busy = cluster.start_at(old, Builder::new(quick("tenant"))).await;
    let back = cluster.node("n2").await;
    back.join([nodes[0].addr().to_string()]).await.unwrap();
    agree(&[&nodes[0], &nodes[1], &back]).await;
}

/// Somebody else at the address of a dead member is not taken for it, and is left alone.
pub async fn another_tenant<T: TestTransport>() {
    let cluster = Cluster::<T>::new();
    let change = |config: &mut Config| {
        config.protocol.reconnect_interval = Duration::from_millis(100);
        // News would be told to the dead, and the tenant would believe it.
        config.protocol.gossip_to_the_dead_time = Duration::ZERO;
    };
    let mut nodes = cluster.joined_with(2, change).await;
    let addr = kill(nodes.remove(1)).await;
    until_state_or_gone(&nodes[0], "n1").await;
    let tenant = cluster.start_at(addr, with("tenant", change)).await;
    let tried = nodes[0].stats().await.unwrap().reconnects + 3;
    crate::wait::until_async("it was tried again", || async {
        nodes[0].stats().await.unwrap().reconnects >= tried
    })
    .await;
    assert_eq!((nodes[0].member_count(), tenant.member_count()), (1, 1));
    assert!(tenant.member("n0").is_none());
}

async fn until_state_or_gone<T: TestTransport>(at: &TestNode<T>, name: &str) {
    until("it is dead or forgotten", || {
        state(at, name).is_none_or(|state| state == NodeState::Dead)
    })
    .await;
}
