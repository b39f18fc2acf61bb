//! The bodies of the native format, and the framing of packet parts.
//!
//! A body is a struct in `bodies`, its fields as `fields` writes them; `docs/WIRE.md` states those
//! bytes. Every decoding borrows from its input: it allocates nothing, whatever the lengths in the input
//! say. Bytes after a known body are ignored, and so are unknown bits in a `flags` field, which is how
//! later versions add to a message.

mod bodies;
mod busy;
mod fields;
mod packet;

use std::net::SocketAddr;

use super::check::{self, name, name_or_empty};
use super::error::BodyError;
use bodies::{
    AccusationBody, AckBody, AddrBody, AliveBody, BroadcastBody, IndirectPingBody, IpBytes,
    NodeStateBody, PingBody, PushPullBody, SourceBody, SpeakerBody,
};
pub(super) use busy::{decode_busy, encode_busy};
pub(super) use fields::BODY_LIMIT;
use fields::{Field, Fields, Length, Place, Sink};
pub use packet::{PacketMessages, inflate, read_packet};
pub(super) use packet::{finish, overhead, read_part, write_header};

use crate::message::{
    Ack, Alive, Broadcast, Dead, IndirectPing, Message, MessageKind, Nack, Ping, PingSource,
    RemoteNode, Suspect, View,
};
use crate::node::{Node, NodeState, Versions};

/// The first byte of each packet and each direction of a stream: none of Go's types (0 to 13), nor
/// of its label header (244).
pub(super) const MAGIC: u8 = 0x4D;
/// The version of the format.
pub(super) const VERSION: u8 = 1;

/// The numbers of the messages. Packets and streams share those of ping and ack.
pub(super) mod kind {
    pub(in super::super) const PING: u8 = 1;
    pub(in super::super) const INDIRECT_PING: u8 = 2;
    pub(in super::super) const ACK: u8 = 3;
    pub(in super::super) const NACK: u8 = 4;
    pub(in super::super) const SUSPECT: u8 = 5;
    pub(in super::super) const ALIVE: u8 = 6;
    pub(in super::super) const DEAD: u8 = 7;
    pub(in super::super) const USER: u8 = 8;
    pub(in super::super) const BROADCAST: u8 = 9;
    pub(in super::super) const VIEW: u8 = 10;
    pub(in super::super) const SYNC: u8 = 11;
    pub(in super::super) const PUSH_PULL: u8 = 16;
    pub(in super::super) const NODE_STATES: u8 = 17;
    pub(in super::super) const USER_STATE: u8 = 18;
    pub(in super::super) const USER_STREAM: u8 = 19;
    pub(in super::super) const REQUEST: u8 = 20;
    pub(in super::super) const RESPONSE: u8 = 21;
    pub(in super::super) const ERROR: u8 = 22;
    pub(in super::super) const BUSY: u8 = 23;
}

/// The longest part whose length is one byte.
const ONE_BYTE_LENGTH: usize = 0x7F;
/// The most that an alive takes beside its name and meta, if that is one: kind, length, incarnation, flags,
/// the lengths of name and meta, address, port, and versions.
const ALIVE_OVERHEAD_BYTES: usize = 1 + 1 + 5 + 1 + 1 + 1 + 17 + 3 + 7;

/// Bit 0 of the flags of an indirect ping: a nack is wanted.
const WANTS_NACK: u8 = 1;
/// Bit 0 of the flags of an alive: the IPv4 address has 16 bytes on the hashicorp wire.
const WIDE_IPV4: u8 = 1;
/// Bit 0 of the flags of a view: the receiver is to show its own.
const ASKS: u8 = 1;
/// Bit 0 of the flags of a push/pull: the sender joins.
const JOIN: u8 = 1;

/// The first frame of a push/pull.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct PushPullHeader<'a> {
    pub(super) join: bool,
    pub(super) nodes: u32,
    pub(super) user_state_bytes: u32,
    /// Empty: the sender does not say who it is.
    pub(super) from: &'a str,
    /// Empty: whoever is there.
    pub(super) to: &'a str,
}

/// Appends `kind | length | body` if `out` then has at most `limit` bytes; otherwise changes
/// nothing and returns false.
pub(super) fn encode_part(message: &Message<'_>, limit: usize, out: &mut Vec<u8>) -> bool {
    let room = limit.saturating_sub(out.len());
    if let Message::Alive(alive) = message {
        // What most packets are made of. With room enough it need not be measured before.
        let longest = ALIVE_OVERHEAD_BYTES + alive.node.len() + alive.meta.len();
        if longest <= room.min(ONE_BYTE_LENGTH) {
            let at = out.len();
            out.resize(at + longest, 0);
            let mut part = Place { room: &mut out[at..], used: 0 };
            part.put(&[kind::ALIVE, 0]);
            alive_body(alive, &IpBytes::new(alive.addr.ip())).write(&mut part);
            let used = part.used;
            part.room[1] = (used - 2) as u8;
            out.truncate(at + used);
            return true;
        }
    }
    let mut length = Length::default();
    write_body(message, &mut length);
    let Ok(body) = u32::try_from(length.0) else { return false };
    let (counted, used) = length_bytes(body);
    let whole = 1 + used + length.0;
    if whole > room {
        return false;
    }
    out.reserve(whole);
    out.push(message_kind(message));
    out.put(&counted[..used]);
    write_body(message, out);
    true
}

/// Appends the body of a message alone, as a frame carries it.
pub(super) fn encode_body(message: &Message<'_>, out: &mut Vec<u8>) {
    write_body(message, out);
}

/// Appends the body of the first frame of a push/pull.
pub(super) fn encode_push_pull(header: &PushPullHeader<'_>, out: &mut Vec<u8>) {
    let body = PushPullBody {
        flags: if header.join { JOIN } else { 0 },
        nodes: header.nodes,
        user_state_bytes: header.user_state_bytes,
        from: header.from,
        to: header.to,
    };
    body.write(out);
}

/// Appends `length | body` of one node's state.
pub(super) fn encode_node_state(
    node: &Node,
    incarnation: u32,
    state: NodeState,
    out: &mut Vec<u8>,
) {
    let alive = Alive {
        incarnation,
        node: node.id.as_str(),
        addr: node.addr,
        wide_ipv4: node.wide_ipv4,
        meta: &node.meta,
        versions: node.versions,
    };
    let ip = IpBytes::new(alive.addr.ip());
    let body = NodeStateBody { state: state.as_u8(), alive: alive_body(&alive, &ip) };
    // Name and meta are far below 4 GiB.
    let (length, used) = length_bytes(u32::try_from(body.encoded_len()).unwrap_or(u32::MAX));
    out.put(&length[..used]);
    body.write(out);
}

/// A length as LEB128: seven bits a byte, lowest first, the top bit set on all bytes but the last.
pub(super) fn length_bytes(mut value: u32) -> ([u8; 5], usize) {
    let mut bytes = [0; 5];
    let mut used = 0;
    loop {
        let low = (value & 0x7F) as u8;
        value >>= 7;
        if value == 0 {
            bytes[used] = low;
            return (bytes, used + 1);
        }
        bytes[used] = low | 0x80;
        used += 1;
    }
}

/// What is wrong with a length, or with what it frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LengthError {
    /// The input ends in the length, or before what it announces.
    Truncated,
    /// Five bytes do not end the number, or it is 2^32 or more.
    Overflow,
}

/// Takes `length | bytes` from the front of `input`.
pub(super) fn take_counted<'a>(input: &mut &'a [u8]) -> Result<&'a [u8], LengthError> {
    let mut rest = *input;
    let len = take_length(&mut rest)?;
    let (taken, rest) = rest.split_at_checked(len).ok_or(LengthError::Truncated)?;
    *input = rest;
    Ok(taken)
}

/// Takes a length from the front of `input`.
pub(super) fn take_length(input: &mut &[u8]) -> Result<usize, LengthError> {
    let mut len = 0u32;
    for (i, &byte) in input.iter().enumerate() {
        if i == 4 && byte > 0x0F {
            return Err(LengthError::Overflow);
        }
        len |= u32::from(byte & 0x7F) << (7 * i);
        if byte < 0x80 {
            *input = &input[i + 1..];
            return usize::try_from(len).map_err(|_| LengthError::Truncated);
        }
    }
    Err(LengthError::Truncated)
}

fn message_kind(message: &Message<'_>) -> u8 {
    match message {
        Message::Ping(_) => kind::PING,
        Message::IndirectPing(_) => kind::INDIRECT_PING,
        Message::Ack(_) => kind::ACK,
        Message::Nack(_) => kind::NACK,
        Message::Suspect(_) => kind::SUSPECT,
        Message::Alive(_) => kind::ALIVE,
        Message::Dead(_) => kind::DEAD,
        Message::User(_) => kind::USER,
        Message::Broadcast(_) => kind::BROADCAST,
        Message::View(_) => kind::VIEW,
        Message::Sync(_) => kind::SYNC,
    }
}

/// The kind that a packet's part announces, or nothing if it is not known here.
pub(super) fn kind_of(number: u8) -> Option<MessageKind> {
    Some(match number {
        kind::PING => MessageKind::Ping,
        kind::INDIRECT_PING => MessageKind::IndirectPing,
        kind::ACK => MessageKind::Ack,
        kind::NACK => MessageKind::Nack,
        kind::SUSPECT => MessageKind::Suspect,
        kind::ALIVE => MessageKind::Alive,
        kind::DEAD => MessageKind::Dead,
        kind::USER => MessageKind::User,
        kind::BROADCAST => MessageKind::Broadcast,
        kind::VIEW => MessageKind::View,
        kind::SYNC => MessageKind::Sync,
        _ => return None,
    })
}

#[inline]
fn write_body(message: &Message<'_>, out: &mut impl Sink) {
    match message {
        Message::Ping(Ping { sequence, node, source, .. }) => {
            with_source(source, |source| PingBody { sequence: *sequence, node, source }.write(out));
        }
        Message::IndirectPing(m) => with_source(&m.source, |source| {
            let ip = IpBytes::new(m.target.ip());
            let body = IndirectPingBody {
                sequence: m.sequence,
                flags: if m.nack { WANTS_NACK } else { 0 },
                node: m.node,
                target: ip.with_port(m.target.port()),
                source,
            };
            body.write(out);
        }),
        Message::Ack(Ack { sequence, payload, .. }) => {
            AckBody { sequence: *sequence, payload }.write(out);
        }
        Message::Nack(Nack { sequence }) => sequence.write(out),
        Message::Suspect(Suspect { incarnation, node, from })
        | Message::Dead(Dead { incarnation, node, from }) => {
            AccusationBody { incarnation: *incarnation, node, from }.write(out);
        }
        Message::Alive(alive) => alive_body(alive, &IpBytes::new(alive.addr.ip())).write(out),
        Message::User(bytes) | Message::Sync(bytes) => out.put(bytes),
        Message::View(view) => write_view(view, out),
        Message::Broadcast(broadcast) => {
            let body = BroadcastBody {
                epoch: broadcast.epoch,
                sequence: broadcast.sequence,
                hops: broadcast.hops,
                priority: broadcast.priority,
                origin: broadcast.origin,
                payload: broadcast.payload,
            };
            body.write(out);
        }
    }
}

/// The digest alone where what stands beside it tells who sends it.
fn write_view(view: &View<'_>, out: &mut impl Sink) {
    out.put(&view.digest.to_le_bytes());
    if !view.node.is_empty() || view.ask {
        SpeakerBody { flags: if view.ask { ASKS } else { 0 }, node: view.node }.write(out);
    }
}

fn read_view(body: &[u8]) -> Result<View<'_>, BodyError> {
    let (digest, rest) = body.split_first_chunk().ok_or(BodyError::Truncated)?;
    let digest = u64::from_le_bytes(*digest);
    if rest.is_empty() {
        return Ok(View { digest, node: "", ask: false });
    }
    let SpeakerBody { flags, node } = SpeakerBody::read(&mut Fields(rest))?;
    Ok(View { digest, node: name_or_empty(node)?, ask: flags & ASKS != 0 })
}

/// Lends the bytes of a source's address for the time of an encoding.
fn with_source<R>(
    source: &Option<PingSource<'_>>,
    encode: impl FnOnce(Option<SourceBody<'_>>) -> R,
) -> R {
    match source {
        None => encode(None),
        Some(source) => {
            let ip = IpBytes::new(source.addr.ip());
            let addr = ip.with_port(source.addr.port());
            encode(Some(SourceBody { node: source.node, addr }))
        }
    }
}

fn alive_body<'a>(alive: &'a Alive<'a>, ip: &'a IpBytes) -> AliveBody<'a> {
    AliveBody {
        incarnation: alive.incarnation,
        flags: if alive.wide_ipv4 { WIDE_IPV4 } else { 0 },
        node: alive.node,
        addr: ip.with_port(alive.addr.port()),
        meta: alive.meta,
        versions: alive.versions.as_bytes(),
    }
}

/// Reads the body of a message. Inlined, as what it calls: a message is large, and would be moved from one
/// result to the next.
#[inline(always)]
pub(super) fn decode_body(kind: MessageKind, body: &[u8]) -> Result<Message<'_>, BodyError> {
    Ok(match kind {
        MessageKind::Ping => {
            let PingBody { sequence, node, source } = PingBody::read(&mut Fields(body))?;
            Message::Ping(Ping {
                sequence,
                node: name_or_empty(node)?,
                source: read_source(source)?,
                native: true,
            })
        }
        MessageKind::IndirectPing => {
            Message::IndirectPing(read_indirect_ping(IndirectPingBody::read(&mut Fields(body))?)?)
        }
        MessageKind::Ack => {
            let AckBody { sequence, payload } = AckBody::read(&mut Fields(body))?;
            Message::Ack(Ack { sequence, payload, native: true })
        }
        MessageKind::Nack => {
            let sequence = Field::read(&mut Fields(body))?;
            Message::Nack(Nack { sequence })
        }
        MessageKind::Suspect => {
            let (incarnation, node, from) = read_accusation(body)?;
            Message::Suspect(Suspect { incarnation, node, from })
        }
        MessageKind::Alive => Message::Alive(read_alive(AliveBody::read(&mut Fields(body))?)?),
        MessageKind::Dead => {
            let (incarnation, node, from) = read_accusation(body)?;
            Message::Dead(Dead { incarnation, node, from })
        }
        MessageKind::User => Message::User(body),
        MessageKind::View => Message::View(read_view(body)?),
        MessageKind::Sync => Message::Sync(body),
        MessageKind::Broadcast => {
            let body = BroadcastBody::read(&mut Fields(body))?;
            Message::Broadcast(Broadcast {
                origin: name(body.origin)?,
                epoch: body.epoch,
                sequence: body.sequence,
                hops: body.hops,
                priority: body.priority,
                payload: body.payload,
            })
        }
    })
}

/// Reads one node's state; nothing if the state is not known here.
pub(super) fn decode_node_state(body: &[u8]) -> Result<Option<RemoteNode<'_>>, BodyError> {
    let NodeStateBody { state, alive } = NodeStateBody::read(&mut Fields(body))?;
    let Some(state) = NodeState::from_u8(state) else {
        return Ok(None);
    };
    Ok(Some(RemoteNode { alive: read_alive(alive)?, state }))
}

/// Reads the first frame of a push/pull.
pub(super) fn decode_push_pull(body: &[u8]) -> Result<PushPullHeader<'_>, BodyError> {
    let PushPullBody { flags, nodes, user_state_bytes, from, to } =
        PushPullBody::read(&mut Fields(body))?;
    let (from, to) = (name_or_empty(from)?, name_or_empty(to)?);
    Ok(PushPullHeader { join: flags & JOIN != 0, nodes, user_state_bytes, from, to })
}

fn read_indirect_ping(body: IndirectPingBody<'_>) -> Result<IndirectPing<'_>, BodyError> {
    Ok(IndirectPing {
        sequence: body.sequence,
        node: name(body.node)?,
        target: address(body.target)?,
        nack: body.flags & WANTS_NACK != 0,
        source: read_source(body.source)?,
    })
}

/// Incarnation, who is accused, and by whom.
fn read_accusation(body: &[u8]) -> Result<(u32, &str, &str), BodyError> {
    let AccusationBody { incarnation, node, from } = AccusationBody::read(&mut Fields(body))?;
    Ok((incarnation, name(node)?, name(from)?))
}

#[inline(always)]
fn read_alive(body: AliveBody<'_>) -> Result<Alive<'_>, BodyError> {
    let addr = address(body.addr)?;
    Ok(Alive {
        incarnation: body.incarnation,
        node: name(body.node)?,
        addr,
        wide_ipv4: body.flags & WIDE_IPV4 != 0 && addr.is_ipv4(),
        meta: body.meta,
        versions: Versions::from_bytes(body.versions),
    })
}

fn read_source(source: Option<SourceBody<'_>>) -> Result<Option<PingSource<'_>>, BodyError> {
    let Some(SourceBody { node, addr }) = source else {
        return Ok(None);
    };
    Ok(Some(PingSource { node: name(node)?, addr: address(addr)? }))
}

#[inline(always)]
fn address(addr: AddrBody<'_>) -> Result<SocketAddr, BodyError> {
    check::address(check::ip(addr.ip)?, addr.port)
}
