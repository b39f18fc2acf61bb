//! Machines and packets to measure with.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use memberlist::protocol::message::{Alive, Message};
use memberlist::protocol::wire::{PacketWriter, Room};
use memberlist::protocol::{Config, Dialect, Membership, Node, NodeId, Peer, Versions, WireFormat};

pub(crate) const FORMATS: [(&str, WireFormat, Dialect); 2] = [
    ("native", WireFormat::Native, Dialect::Native),
    ("hashicorp", WireFormat::Hashicorp, Dialect::Hashicorp),
];

/// A whole packet, as on Ethernet.
pub(crate) const ROOM: Room = Room { head: 0, tail: 0, max_packet_bytes: 1400 };

pub(crate) fn addr(number: usize) -> SocketAddr {
    ([10, (number >> 16) as u8, (number >> 8) as u8, number as u8], 7946).into()
}

pub(crate) fn name(number: usize) -> String {
    format!("node-{number:06}")
}

pub(crate) fn node(number: usize) -> Arc<Node> {
    let id = NodeId::new(&name(number)).expect("a name");
    let meta = Bytes::from_static(b"some meta");
    Arc::new(Node::new(id, addr(number), meta, Versions::default()))
}

pub(crate) fn peer(number: usize) -> Peer {
    Peer::from(addr(number))
}

/// Node 0 of a cluster that agreed long ago.
pub(crate) fn machine(format: WireFormat, members: usize, now: Instant) -> Membership {
    let mut config = Config::lan();
    config.wire_format = format;
    let own = node(0);
    let (id, addr, meta) = (own.id.clone(), own.addr, own.meta.clone());
    let mut machine =
        Membership::new(config, id, addr, meta, 1, now, Box::new(())).expect("the settings");
    let nodes: Vec<_> = (0..members).map(node).collect();
    machine.testing_adopt(&nodes, now);
    drain(&mut machine);
    machine
}

/// What an owner does after every input; gives how many packets were to be sent.
pub(crate) fn drain(machine: &mut Membership) -> usize {
    let mut packet = Vec::with_capacity(2000);
    drain_into(machine, &mut packet)
}

pub(crate) fn drain_into(machine: &mut Membership, packet: &mut Vec<u8>) -> usize {
    let mut packets = 0;
    while machine.poll_transmit(packet, &mut |_| ROOM).is_some() {
        packets += 1;
    }
    while machine.poll_stream_request().is_some() {}
    while machine.poll_event().is_some() {}
    packets
}

/// Room for 20 updates in either format.
const LARGE_ROOM: Room = Room { head: 0, tail: 0, max_packet_bytes: 2500 };

/// A packet with news of these members.
pub(crate) fn updates(
    dialect: Dialect,
    numbers: std::ops::Range<usize>,
    incarnation: u32,
) -> Vec<u8> {
    let nodes: Vec<_> = numbers.map(node).collect();
    let mut buf = Vec::new();
    write_updates(dialect, &nodes, incarnation, &mut buf);
    buf
}

pub(crate) fn write_updates(
    dialect: Dialect,
    nodes: &[Arc<Node>],
    incarnation: u32,
    buf: &mut Vec<u8>,
) {
    let mut writer = PacketWriter::new(buf, dialect, true, LARGE_ROOM);
    for node in nodes {
        let alive = Alive {
            incarnation,
            node: node.id.as_str(),
            addr: node.addr,
            wide_ipv4: false,
            meta: &node.meta,
            versions: node.versions,
        };
        assert!(writer.push(&Message::Alive(alive)), "a packet has room for them");
    }
    writer.finish();
}
