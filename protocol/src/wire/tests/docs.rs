//! The examples of `docs/WIRE.md` are what the encoders write.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::hex;
use crate::message::{Alive, Message, Ping, PingSource};
use crate::node::{Node, NodeId, NodeState, Versions};
use crate::wire::stream::{FrameNumber, MessageFrames, PushPullStart, SnapshotRecord, preamble};
use crate::wire::{Dialect, PacketWriter, Room};

const FORMAT: Dialect = Dialect::Native;

/// The blocks of the page that are marked `hex NAME`. A line's bytes end at a semicolon.
fn documented() -> BTreeMap<&'static str, Vec<u8>> {
    let mut blocks = BTreeMap::new();
    let mut lines = include_str!("../../../../docs/WIRE.md").lines();
    while let Some(line) = lines.next() {
        let Some(name) = line.strip_prefix("```hex ") else {
            continue;
        };
        let digits: String = lines
            .by_ref()
            .take_while(|line| !line.starts_with("```"))
            .map(|line| line.split(';').next().unwrap_or_default())
            .collect();
        assert!(blocks.insert(name, hex(&digits)).is_none(), "{name} is there twice");
    }
    blocks
}

fn source() -> PingSource<'static> {
    PingSource { node: "a", addr: "10.0.0.1:7946".parse().unwrap() }
}

fn packet() -> Vec<u8> {
    let mut buf = Vec::new();
    let room = Room { head: 0, tail: 0, max_packet_bytes: 1400 };
    let mut writer = PacketWriter::new(&mut buf, FORMAT, true, room);
    assert!(writer.push(&Message::Ping(Ping {
        sequence: 7,
        node: "b",
        source: Some(source()),
        native: true
    })));
    assert!(writer.push(&Message::Alive(Alive {
        incarnation: 300,
        node: "c",
        addr: "[2001:db8::1]:7946".parse().unwrap(),
        wide_ipv4: false,
        meta: b"web",
        versions: Versions::default(),
    })));
    writer.finish();
    buf
}

fn stream() -> Vec<u8> {
    let a = NodeId::new("a").unwrap();
    let addr = source().addr;
    let node = Node::new(a.clone(), addr, b"web".as_slice().into(), Versions::default());
    let record = SnapshotRecord { node: Arc::new(node), incarnation: 1, state: NodeState::Alive };
    let start = PushPullStart { from: a, to: None, join: true };
    let (mut bytes, mut number) = (Vec::new(), FrameNumber::default());
    preamble(FORMAT, &mut bytes);
    for mut frames in [
        MessageFrames::push_pull(FORMAT, start, [record].into(), "state".into()),
        MessageFrames::request(1, "hello".into()),
    ] {
        while frames.next_record(&mut number, &mut bytes) {}
    }
    bytes
}

#[test]
fn the_examples_are_what_is_written() {
    let written = BTreeMap::from([("packet", packet()), ("stream", stream())]);
    for (name, bytes) in &written {
        let documented = documented().remove(name).unwrap_or_default();
        assert_eq!(format!("{documented:02x?}"), format!("{bytes:02x?}"), "example {name}");
    }
    assert_eq!(documented(), written);
}
