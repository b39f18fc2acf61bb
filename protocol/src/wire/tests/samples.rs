//! Random messages, nodes and stream items.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::message::{
    Ack, Alive, Broadcast, Dead, IndirectPing, Message, Nack, Ping, PingSource, Suspect,
};
use crate::node::{Node, NodeId, NodeState, Versions, canonical};
use crate::wire::Dialect;
use crate::wire::stream::{
    MessageFrames, PushPullStart, RemoteRecord, RemoteState, SnapshotRecord, StreamItem,
};

/// What messages are made of; lends itself as a [`Message`].
#[derive(Clone, Debug)]
pub(super) struct Sample {
    kind: usize,
    number: u32,
    node: String,
    other: String,
    addr: SocketAddr,
    source_addr: SocketAddr,
    flag: bool,
    with_source: bool,
    bytes: Vec<u8>,
    versions: Vec<u8>,
}

impl Sample {
    pub(super) fn message(&self) -> Message<'_> {
        let (sequence, incarnation) = (self.number, self.number);
        let (node, from) = (self.node.as_str(), self.other.as_str());
        let source = self.with_source.then_some(PingSource { node: from, addr: self.source_addr });
        match self.kind {
            0 => {
                let node = if self.flag { node } else { "" };
                Message::Ping(Ping { sequence, node, source, native: true })
            }
            1 => {
                let (target, nack) = (self.addr, self.flag);
                Message::IndirectPing(IndirectPing { sequence, node, target, nack, source })
            }
            2 => Message::Ack(Ack { sequence, payload: &self.bytes, native: true }),
            3 => Message::Nack(Nack { sequence }),
            4 => Message::Suspect(Suspect { incarnation, node, from }),
            5 => Message::Alive(Alive {
                incarnation,
                node,
                addr: self.addr,
                wide_ipv4: self.flag && self.addr.is_ipv4(),
                meta: &self.bytes,
                versions: Versions::from_bytes(&self.versions),
            }),
            6 => Message::Dead(Dead { incarnation, node, from }),
            7 => Message::Broadcast(Broadcast {
                origin: node,
                epoch: self.number,
                sequence: u64::from(self.number) << 16,
                hops: self.versions.len() as u8,
                priority: u8::from(self.flag),
                payload: &self.bytes,
            }),
            _ => Message::User(&self.bytes),
        }
    }
}

/// Numbers around the steps of the varint, and any other.
fn number() -> impl Strategy<Value = u32> {
    let steps = vec![0, 1, 250, 251, 252, 253, 254, 255, 65_535, 65_536, u32::MAX];
    prop_oneof![proptest::sample::select(steps), any::<u32>()]
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z0-9-]{1,20}", "\\PC{1,40}", (1usize..=255).prop_map(|len| "n".repeat(len)),]
}

/// Addresses that a node can have, in their canonical form.
fn addr() -> impl Strategy<Value = SocketAddr> {
    let ip = prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(IpAddr::from),
    ];
    (ip, 1u16..)
        .prop_map(|(ip, port)| canonical(SocketAddr::new(ip, port)))
        .prop_filter("not a node's", |a| !a.ip().is_unspecified() && !a.ip().is_multicast())
}

prop_compose! {
    pub(super) fn sample()(
        kind in 0usize..9,
        number in number(),
        node in name(),
        other in name(),
        addr in addr(),
        source_addr in addr(),
        flag: bool,
        with_source: bool,
        bytes in vec(any::<u8>(), 0..300),
        versions in vec(any::<u8>(), 0..=6),
    ) -> Sample {
        Sample {
            kind, number, node, other, addr, source_addr, flag, with_source, bytes, versions,
        }
    }
}

fn state() -> impl Strategy<Value = NodeState> {
    (0u8..4).prop_map(|n| NodeState::from_u8(n).expect("a state"))
}

prop_compose! {
    pub(super) fn record()(
        name in name(),
        addr in addr(),
        wide: bool,
        meta in vec(any::<u8>(), 0..300),
        versions in vec(any::<u8>(), 0..=6),
        incarnation in number(),
        state in state(),
    ) -> SnapshotRecord {
        let id = NodeId::new(&name).expect("a name");
        let mut node = Node::new(id, addr, meta.into(), Versions::from_bytes(&versions));
        node.wide_ipv4 = wide && addr.is_ipv4();
        SnapshotRecord { node: Arc::new(node), incarnation, state }
    }
}

fn bytes() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        4 => vec(any::<u8>(), 0..300).prop_map(Bytes::from),
        1 => (0usize..200_000).prop_map(|len| vec![7u8; len].into()),
    ]
}

/// What is sent over a stream. [`Sending::item`] is what must arrive.
#[derive(Clone, Debug)]
pub(super) enum Sending {
    Message(Sample),
    User(Bytes),
    Request(u16, Bytes),
    Response(u8, Bytes),
    Error(String),
    PushPull(PushPullStart, Vec<SnapshotRecord>, Bytes),
}

pub(super) fn sending() -> impl Strategy<Value = Sending> {
    let start = (name(), any::<bool>()).prop_map(|(name, join)| PushPullStart {
        from: NodeId::new(&name).expect("a name"),
        to: None,
        join,
    });
    prop_oneof![
        (sample(), any::<bool>()).prop_map(|(mut sample, ping)| {
            sample.kind = if ping { 0 } else { 2 };
            Sending::Message(sample)
        }),
        bytes().prop_map(Sending::User),
        (any::<u16>(), bytes()).prop_map(|(topic, body)| Sending::Request(topic, body)),
        (any::<u8>(), bytes()).prop_map(|(status, body)| Sending::Response(status, body)),
        "\\PC{0,200}".prop_map(Sending::Error),
        (start, vec(record(), 0..40), bytes()).prop_map(|(s, r, u)| Sending::PushPull(s, r, u)),
    ]
}

impl Sending {
    pub(super) fn frames(&self, format: Dialect) -> MessageFrames {
        match self.clone() {
            Self::Message(sample) => match sample.message() {
                Message::Ping(ping) => MessageFrames::ping(format, &ping),
                Message::Ack(ack) => MessageFrames::ack(format, &ack),
                other => unreachable!("{other:?} is not sent over streams"),
            },
            Self::User(bytes) => MessageFrames::user(format, bytes),
            Self::Request(topic, body) => MessageFrames::request(topic, body),
            Self::Response(status, body) => MessageFrames::response(status, body),
            Self::Error(text) => MessageFrames::error(format, &text),
            Self::PushPull(start, records, user) => {
                MessageFrames::push_pull(format, start, records.into(), user)
            }
        }
    }

    pub(super) fn item(&self) -> StreamItem {
        let id = |name: &str| NodeId::new(name).ok();
        match self.clone() {
            Self::Message(sample) => match sample.message() {
                Message::Ping(Ping { sequence, node, source, native: true }) => StreamItem::Ping {
                    sequence,
                    node: id(node),
                    source: source.and_then(|s| Some((id(s.node)?, s.addr))),
                },
                Message::Ack(Ack { sequence, payload, native: true }) => {
                    StreamItem::Ack { sequence, payload: Bytes::copy_from_slice(payload) }
                }
                other => unreachable!("{other:?} is not sent over streams"),
            },
            Self::User(bytes) => StreamItem::User(bytes),
            Self::Request(topic, body) => StreamItem::Request { topic, body },
            Self::Response(status, body) => StreamItem::Response { status, body },
            Self::Error(text) => StreamItem::Error(text),
            Self::PushPull(start, records, user_state) => StreamItem::PushPull(RemoteState {
                from: Some(start.from),
                join: start.join,
                nodes: records.iter().map(remote).collect(),
                user_state,
                ..RemoteState::default()
            }),
        }
    }
}

/// The record as its reader sees it.
pub(super) fn remote(record: &SnapshotRecord) -> RemoteRecord {
    let SnapshotRecord { node, incarnation, state } = record;
    RemoteRecord { node: Node::clone(node), incarnation: *incarnation, state: *state }
}
