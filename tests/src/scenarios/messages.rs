//! Messages by packet, and broadcasts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use memberlist::protocol::BroadcastError;
use memberlist::{Builder, Delegate, Messages, SendError, UserMessage, WireFormat};

use crate::cluster::join_all;
use crate::transports::TestTransport;
use crate::wait::{until, until_async, within};
use crate::{Cluster, TestNode, quick};

/// A node and the queue of its messages.
pub(super) async fn listener<T: TestTransport>(
    cluster: &Cluster<T>,
    name: &str,
    capacity: usize,
) -> (TestNode<T>, Messages) {
    let mut config = quick(name);
    config.message_capacity = capacity;
    let (builder, messages) = Builder::new(config).messages();
    (cluster.start(builder).await, messages)
}

pub(super) async fn next(messages: &mut Messages) -> UserMessage {
    within("a message", messages.next()).await.expect("the node runs")
}

/// Remembers every message, and what was wrong with any.
#[derive(Clone, Default)]
struct Inbox(Arc<Mutex<BTreeMap<(String, String), usize>>>);

impl Delegate for Inbox {
    fn notify_message(&self, message: UserMessage) {
        let origin = message.origin.map(|id| id.to_string()).unwrap_or_default();
        let text = String::from_utf8(message.payload.to_vec()).unwrap();
        *self.0.lock().unwrap().entry((origin, text)).or_default() += 1;
    }
}

const NODES: usize = 8;
const EACH: usize = 10;

/// Nodes that have all broadcast to all, and what has arrived everywhere.
async fn broadcasting<T: TestTransport>() -> (Vec<TestNode<T>>, Vec<Inbox>) {
    let cluster = Cluster::<T>::new();
    let (mut nodes, mut inboxes) = (Vec::new(), Vec::new());
    for i in 0..NODES {
        let inbox = Inbox::default();
        let builder = Builder::new(quick(&format!("n{i}"))).delegate(inbox.clone());
        nodes.push(cluster.start(builder).await);
        inboxes.push(inbox);
    }
    join_all(&nodes).await;
    for i in 0..EACH {
        for node in &nodes {
            node.broadcast(format!("{i} of {}", node.name())).await.unwrap();
        }
    }
    let complete = |inbox: &Inbox| {
        let texts: BTreeSet<_> =
            inbox.0.lock().unwrap().keys().map(|(_, text)| text.clone()).collect();
        texts.len() >= (NODES - 1) * EACH
    };
    until("all broadcasts have arrived everywhere", || inboxes.iter().all(complete)).await;
    (nodes, inboxes)
}

/// What every member broadcasts reaches every other one, and not itself, be it more than once.
pub async fn broadcasts_arrive<T: TestTransport>() {
    let (nodes, inboxes) = broadcasting::<T>().await;
    for (node, inbox) in nodes.iter().zip(&inboxes) {
        for (_, text) in inbox.0.lock().unwrap().keys() {
            assert!(!text.ends_with(node.name()), "{text} at {}", node.name());
        }
    }
}

/// What every member broadcasts reaches every other one exactly once, and not itself.
pub async fn broadcasts<T: TestTransport>() {
    let (nodes, inboxes) = broadcasting::<T>().await;
    // Each came many times over, and would have been delivered again by now.
    let copies = (2 * (NODES - 1) * EACH) as u64;
    for node in &nodes {
        until_async("copies have arrived as well", || async {
            node.stats().await.unwrap().broadcasts_repeated >= copies
        })
        .await;
    }
    for (node, inbox) in nodes.iter().zip(&inboxes) {
        for ((origin, text), times) in inbox.0.lock().unwrap().iter() {
            assert_eq!(*times, 1, "{text} arrived {times} times at {}", node.name());
            assert!(text.ends_with(origin) && origin != node.name(), "{text} by {origin}");
        }
        assert_eq!(inbox.0.lock().unwrap().len(), (NODES - 1) * EACH);
    }
}

/// One packet to one member, with who sent it; what does not fit or has nobody to go to is said.
pub async fn by_packet<T: TestTransport>() {
    let cluster = Cluster::<T>::new();
    let a = cluster.node("a").await;
    let (b, mut messages) = listener(&cluster, "b", 16).await;
    a.join([b.addr().to_string()]).await.unwrap();
    a.send("b", "hello").await.unwrap();
    let message = next(&mut messages).await;
    assert_eq!((&message.payload[..], message.from), (&b"hello"[..], a.addr()));
    assert!(!message.reliable && message.origin.is_none());

    let stranger = a.send("c", "hello").await;
    assert_eq!(stranger, Err(SendError::NotAMember("c".to_owned())));
    for nowhere in ["127.0.0.1:0", "0.0.0.0:7946", "[::]:7946"] {
        let nowhere: std::net::SocketAddr = nowhere.parse().unwrap();
        assert_eq!(a.send_to(nowhere, "hello").await, Err(SendError::NoAddress(nowhere)));
    }
    let limit = match a.send("b", vec![1; 1400]).await {
        Err(SendError::Broadcast(BroadcastError::TooLarge { len: 1400, limit })) => limit,
        other => panic!("{other:?}"),
    };
    a.send("b", vec![2; limit]).await.unwrap();
    assert_eq!(next(&mut messages).await.payload, vec![2; limit]);

    let limit = match a.broadcast(vec![3; 1400]).await {
        Err(SendError::Broadcast(BroadcastError::TooLarge { len: 1400, limit })) => limit,
        other => panic!("{other:?}"),
    };
    a.broadcast(vec![3; limit]).await.unwrap();
    let message = next(&mut messages).await;
    assert_eq!(message.payload, vec![3; limit]);
    match message.origin {
        Some(origin) => assert_eq!(origin.as_str(), "a"),
        // Go's format does not say it.
        None => assert_ne!(T::WIRE, WireFormat::Native),
    }
}

/// Packets for an application that does not take them are dropped and counted; the others come
/// when it does.
pub async fn slow_application_drops_packets<T: TestTransport>() {
    const SENT: u64 = 60;
    let cluster = Cluster::<T>::new();
    let a = cluster.node("a").await;
    let (b, mut messages) = listener(&cluster, "b", 4).await;
    a.join([b.addr().to_string()]).await.unwrap();
    for i in 0..SENT {
        a.send("b", i.to_string()).await.unwrap();
    }
    until("the rest is dropped", || b.messages_dropped() == SENT - 4).await;
    for expected in 0..4 {
        assert_eq!(next(&mut messages).await.payload, expected.to_string());
    }
    a.send("b", "again").await.unwrap();
    assert_eq!(next(&mut messages).await.payload, "again");
    assert_eq!(b.messages_dropped(), SENT - 4);
}
