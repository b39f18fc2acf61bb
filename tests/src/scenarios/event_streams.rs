//! Subscriptions.

use memberlist::{Builder, Event, NodeState};

use crate::cluster::until_state;
use crate::events::check;
use crate::transports::TestTransport;
use crate::wait::{PATIENCE, agree, until, within};
use crate::{Cluster, EventLog, quick};

/// All subscribers see everything, in the same order, which is a possible one and ends at what the
/// node shows.
pub async fn complete<T: TestTransport>() {
    let cluster = Cluster::<T>::new();
    let watcher = cluster.node("watcher").await;
    let mut logs = Vec::new();
    for _ in 0..3 {
        logs.push(EventLog::of(&watcher).await);
    }
    let mut nodes = Vec::new();
    for name in ["a", "b", "c", "d"] {
        let node = cluster.node(name).await;
        node.join([watcher.addr().to_string()]).await.unwrap();
        nodes.push(node);
    }
    agree(&[&watcher, &nodes[0], &nodes[1], &nodes[2], &nodes[3]]).await;
    nodes[0].update_meta("changed").await.unwrap();
    nodes[1].leave(PATIENCE).await.unwrap();
    let addr = nodes[2].addr();
    nodes.remove(2).shutdown().await;
    until_state(&[&watcher], "c", NodeState::Dead).await;
    let back = cluster.start_at(addr, Builder::new(quick("c"))).await;
    back.join([watcher.addr().to_string()]).await.unwrap();
    nodes[1].join([watcher.addr().to_string()]).await.unwrap();
    agree(&[&watcher, &nodes[0], &nodes[1], &back, &nodes[2]]).await;
    let late = EventLog::of(&watcher).await;
    watcher.shutdown().await;
    until("the subscriptions end", || logs.iter().chain([&late]).all(EventLog::has_ended)).await;

    let all = logs[0].all();
    assert!(logs[1].all() == all && logs[2].all() == all);
    let expected: std::collections::BTreeMap<_, _> =
        watcher.known_members().iter().map(|m| (m.id().to_string(), m.state)).collect();
    assert_eq!(check(&all), expected);
    assert_eq!(check(&late.all()), expected);
    let names = logs[0].names();
    for seen in ["joined a", "updated a", "left b", "suspected c", "dead c", "joined c"] {
        assert!(names.iter().any(|name| name == seen), "{seen} is missing from {names:?}");
    }
    assert_eq!(names.iter().filter(|name| *name == "joined b").count(), 2);
}

/// A subscriber that does not keep up is told how much it missed, and goes on from how things are.
pub async fn slow<T: TestTransport>() {
    let cluster = Cluster::<T>::new();
    let mut config = quick("watcher");
    config.event_capacity = 4;
    let watcher = cluster.start(Builder::new(config)).await;
    let mut slow = watcher.subscribe();
    let first = within("the first snapshot", slow.next()).await;
    assert!(
        matches!(first, Some(Event::Snapshot { missed: 0, ref members }) if members.len() == 1)
    );
    let quick_log = EventLog::of(&watcher).await;
    let mut nodes = Vec::new();
    for i in 0..8 {
        let node = cluster.node(&format!("n{i}")).await;
        node.join([watcher.addr().to_string()]).await.unwrap();
        nodes.push(node);
    }
    agree(&nodes.iter().chain([&watcher]).collect::<Vec<_>>()).await;
    let joined = |event: &Event| matches!(event, Event::Joined(_));
    until("a quick subscriber saw all", || quick_log.count(joined) == 8).await;

    let mut events = vec![within("the fresh snapshot", slow.next()).await.unwrap()];
    let Event::Snapshot { members, missed } = &events[0] else { panic!("{events:?}") };
    assert!(members.len() == 9 && *missed >= 8, "{} members, {missed} missed", members.len());
    nodes.pop().unwrap().leave(PATIENCE).await.unwrap();
    while !matches!(events.last(), Some(Event::Left(member)) if member.id().as_str() == "n7") {
        events.push(within("what happens afterwards", slow.next()).await.unwrap());
    }
}
