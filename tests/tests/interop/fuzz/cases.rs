//! Random and mutated bytes: honest ones of both libraries, objects that no encoder would write, and
//! what becomes of either when bytes change.

use std::net::SocketAddr;
use std::sync::Arc;

use memberlist_protocol::message::{
    Ack, Alive, Dead, IndirectPing, Message, Nack, Ping, PingSource, Suspect,
};
use memberlist_protocol::wire::hashicorp::body::{self, Body, Compressed};
use memberlist_protocol::wire::hashicorp::{kind, lzw};
use memberlist_protocol::wire::stream::{
    FrameNumber, MessageFrames, PushPullStart, SnapshotRecord,
};
use memberlist_protocol::wire::{Dialect, PacketWriter, Room};
use memberlist_protocol::{Node, NodeId, NodeState, Versions};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, RngExt};

use super::objects::{self, Spec};

/// Makes cases: each `packet` or `stream`, and bytes.
pub(crate) struct Cases {
    random: StdRng,
    /// Captured packets and streams of Go's.
    vectors: Vec<Vec<u8>>,
}

impl Cases {
    pub(crate) fn new(random: StdRng, vectors: Vec<Vec<u8>>) -> Self {
        Self { random, vectors }
    }

    pub(crate) fn next(&mut self) -> (&'static str, Vec<u8>) {
        let stream = self.random.random_bool(0.4);
        let mut bytes = self.honest_or_not(stream);
        if self.random.random_bool(0.6) {
            let other = self.honest_or_not(stream);
            for _ in 0..self.random.random_range(1..4) {
                mutate(&mut self.random, &mut bytes, &other);
            }
        }
        if stream {
            if self.random.random_bool(0.15) {
                bytes = compressed(&bytes);
            }
            return ("stream", bytes);
        }
        ("packet", self.wrapped(bytes))
    }

    fn honest_or_not(&mut self, stream: bool) -> Vec<u8> {
        match self.random.random_range(0..20) {
            0 => {
                let mut bytes = vec![0; self.random.random_range(0..200)];
                self.random.fill_bytes(&mut bytes);
                bytes
            }
            1..5 => self.vectors.choose(&mut self.random).unwrap().clone(),
            5..8 if stream => self.stream_of_ours(),
            5..8 => self.packet_of_ours(),
            _ if stream => self.stream_of_objects(),
            _ => self.message_of_objects(),
        }
    }

    /// A type byte and an object with the fields of its message, more or less.
    fn message_of_objects(&mut self) -> Vec<u8> {
        let (kind, spec): (u8, &Spec) = *objects::IN_PACKETS.choose(&mut self.random).unwrap();
        let mut bytes = vec![kind];
        objects::object(&mut self.random, spec, &mut bytes);
        bytes
    }

    fn stream_of_objects(&mut self) -> Vec<u8> {
        let random = &mut self.random;
        let (kind, spec): (u8, &Spec) = *objects::IN_STREAMS.choose(random).unwrap();
        let mut bytes = vec![kind];
        match kind {
            kind::PUSH_PULL if random.random_bool(0.9) => {
                let (nodes, state) = (random.random_range(0..4_u8), random.random_range(0..9_u8));
                objects::header(random, &[("Nodes", nodes), ("UserStateLen", state)], &mut bytes);
                for _ in 0..nodes {
                    objects::object(random, objects::NODE_STATE, &mut bytes);
                }
                bytes.extend(std::iter::repeat_n(b'u', state.into()));
            }
            kind::USER if random.random_bool(0.7) => {
                let len = random.random_range(0..9_u8);
                objects::header(random, &[("UserMsgLen", len)], &mut bytes);
                bytes.extend(std::iter::repeat_n(b'u', len.into()));
            }
            _ if random.random_range(0..500) == 0 => return long_ack(random),
            _ => objects::object(random, spec, &mut bytes),
        }
        // Which belongs to nothing, and must not be read.
        if random.random_bool(0.3) {
            bytes.extend(b"more");
        }
        bytes
    }

    /// Puts layers around a message.
    fn wrapped(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        while self.random.random_bool(0.25) {
            bytes = match self.random.random_bool(0.5) {
                true => compressed(&bytes),
                false => self.compound(bytes),
            };
        }
        if self.random.random_range(0..2_000) == 0 {
            for _ in 0..self.random.random_range(6..12) {
                bytes = self.compound(bytes);
            }
        }
        // Far over what fits a packet.
        if self.random.random_range(0..5_000) == 0 {
            bytes.resize(200_000, b'x');
            bytes = compressed(&bytes);
        }
        if self.random.random_bool(0.1) {
            let mut sum = crc32(&bytes);
            if self.random.random_bool(0.1) {
                sum ^= 1 << self.random.random_range(0..32);
            }
            let mut with_sum = vec![kind::CRC];
            with_sum.extend(sum.to_be_bytes());
            with_sum.append(&mut bytes);
            bytes = with_sum;
        }
        bytes
    }

    fn compound(&mut self, part: Vec<u8>) -> Vec<u8> {
        let mut parts = vec![part];
        while self.random.random_bool(0.4) {
            let part = match self.random.random_bool(0.5) {
                true => self.message_of_objects(),
                false => self.packet_of_ours(),
            };
            parts.push(part);
        }
        parts.shuffle(&mut self.random);
        let mut bytes = vec![kind::COMPOUND, parts.len() as u8];
        for part in &parts {
            // What is longer is cut off by that.
            bytes.extend((part.len() as u16).to_be_bytes());
        }
        parts.iter().for_each(|part| bytes.extend_from_slice(part));
        if self.random.random_bool(0.1) {
            let at = self.random.random_range(0..bytes.len().min(6));
            bytes[at] = self.random.random();
        }
        bytes
    }

    /// As the library writes it.
    fn packet_of_ours(&mut self) -> Vec<u8> {
        let mut buf = Vec::with_capacity(2048);
        let (sum, random) = (self.random.random_bool(0.2), &mut self.random);
        let room = Room { head: 0, tail: 0, max_packet_bytes: 1400 };
        let mut writer = PacketWriter::new(&mut buf, Dialect::Hashicorp, sum, room);
        for _ in 0..random.random_range(1..4) {
            let addr = address(random);
            let source = random.random_bool(0.7).then_some(PingSource { node: "foo", addr });
            let (sequence, incarnation) = (random.random(), random.random_range(0..9));
            let native = random.random_bool(0.3);
            writer.push(&match random.random_range(0..8) {
                0 => Message::Ping(Ping { sequence, node: "bar", source, native }),
                1 => Message::IndirectPing(IndirectPing {
                    sequence,
                    node: "bar",
                    target: address(random),
                    nack: random.random(),
                    source,
                }),
                2 => Message::Ack(Ack { sequence, payload: b"payload", native }),
                3 => Message::Nack(Nack { sequence }),
                4 => Message::Suspect(Suspect { incarnation, node: "bar", from: "foo" }),
                5 => Message::Dead(Dead { incarnation, node: "bar", from: "foo" }),
                6 => Message::User(b"hello"),
                _ => Message::Alive(Alive {
                    incarnation,
                    node: "bar",
                    addr,
                    wide_ipv4: random.random(),
                    meta: b"meta",
                    versions: Versions::from_bytes(&[1, 5, 2, 0, 0, 0]),
                }),
            });
        }
        match random.random_bool(0.2) {
            true => writer.finish_compressed(),
            false => writer.finish(),
        };
        buf
    }

    fn stream_of_ours(&mut self) -> Vec<u8> {
        let random = &mut self.random;
        let (wire, sequence) = (Dialect::Hashicorp, random.random());
        let mut frames = match random.random_range(0..5) {
            0 => {
                let source = Some(PingSource { node: "foo", addr: address(random) });
                MessageFrames::ping(wire, &Ping { sequence, node: "bar", source, native: false })
            }
            1 => MessageFrames::ack(wire, &Ack { sequence, payload: b"", native: false }),
            2 => MessageFrames::user(wire, b"hello, hello, hello".as_slice().into()),
            3 => MessageFrames::error(wire, "no installed keys could decrypt the message"),
            _ => {
                let records = ["a", "b", "c"].map(|name| {
                    let (id, meta) = (NodeId::new(name).unwrap(), b"meta".as_slice().into());
                    let mut node = Node::new(id, address(random), meta, Versions::default());
                    node.wide_ipv4 = random.random();
                    let state = NodeState::from_u8(random.random_range(0..4)).unwrap();
                    SnapshotRecord { node: Arc::new(node), incarnation: random.random(), state }
                });
                let start = PushPullStart {
                    from: NodeId::new("a").unwrap(),
                    to: None,
                    join: random.random(),
                };
                let count = random.random_range(0..4);
                let records: Arc<[_]> = records.into_iter().take(count).collect();
                MessageFrames::push_pull(wire, start, records, b"state".as_slice().into())
            }
        };
        frames = frames.compressed(random.random_bool(0.3));
        let mut bytes = Vec::new();
        while frames.next_record(&mut FrameNumber::default(), &mut bytes) {}
        bytes
    }
}

/// About as long as an object on a stream may be.
fn long_ack(random: &mut StdRng) -> Vec<u8> {
    let payload = Some(vec![b'p'; random.random_range(131_000..131_100)].into());
    let mut bytes = vec![kind::ACK];
    body::Ack { payload, ..Default::default() }.write(&mut bytes);
    bytes
}

fn address(random: &mut StdRng) -> SocketAddr {
    let port: u16 = random.random_range(1..u16::MAX);
    match random.random_bool(0.7) {
        true => ([127, 0, 0, random.random_range(1..9)], port).into(),
        false => ([0xFD00, 0, 0, 0, 0, 0, 0, 1_u16], port).into(),
    }
}

fn compressed(bytes: &[u8]) -> Vec<u8> {
    let mut buf = Vec::new();
    lzw::Encoder::default().encode(bytes, &mut buf);
    let mut wrapped = vec![kind::COMPRESS];
    Compressed { algo: 0, buf: Some(buf.into()) }.write(&mut wrapped);
    wrapped
}

/// CRC-32 bit by bit: few packets need it.
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0xEDB8_8320 * (sum & 1)))
    })
}

/// Changes bytes anywhere.
fn mutate(random: &mut StdRng, bytes: &mut Vec<u8>, other: &[u8]) {
    let at = random.random_range(0..=bytes.len());
    let end = (at + random.random_range(1..12)).min(bytes.len());
    match random.random_range(0..9) {
        0 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << random.random_range(0..8);
            }
        }
        1 => bytes.truncate(at),
        2 => drop(bytes.drain(at..end)),
        3 => bytes.insert(at, random.random()),
        4 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = *MARKERS.choose(random).unwrap();
            }
        }
        5 => {
            let mut value = Vec::new();
            objects::any_value(random, 3, &mut value);
            bytes.splice(at..end, value);
        }
        6 => {
            let copied = bytes[at..end].to_vec();
            bytes.splice(at..at, copied);
        }
        7 => {
            let from = random.random_range(0..=other.len());
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
        _ => {
            // A length or a number a little off.
            if let Some(byte) = bytes.get_mut(at) {
                *byte = byte.wrapping_add(random.random_range(0..5)).wrapping_sub(2);
            }
        }
    }
}

/// What values of MessagePack begin with.
const MARKERS: [u8; 40] = [
    0x00, 0x7F, 0x80, 0x81, 0x8F, 0x90, 0x91, 0x9F, 0xA0, 0xA1, 0xBF, 0xC0, 0xC1, 0xC2, 0xC3, 0xC4,
    0xC5, 0xC6, 0xC7, 0xC8, 0xC9, 0xCA, 0xCB, 0xCC, 0xCD, 0xCE, 0xCF, 0xD0, 0xD1, 0xD2, 0xD3, 0xD4,
    0xD8, 0xD9, 0xDA, 0xDB, 0xDC, 0xDD, 0xDE, 0xFF,
];
