//! The bodies of the native format, and the framing of packet parts.
//!
//! A body is a private struct below, in bincode's standard configuration; `docs/WIRE.md` states
//! those bytes without bincode. bincode gets no more releases, so nothing outside this file names
//! it. Every decoding borrows from its input and stops at [`BODY_LIMIT`]: it allocates nothing,
//! whatever the lengths in the input say. Bytes after a known body are ignored, and so are unknown
//! bits in a `flags` field, which is how later versions add to a message.

mod busy;
mod packet;

use std::net::{IpAddr, SocketAddr};

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use bincode::enc::write::Writer;
use bincode::error::{DecodeError, EncodeError};
use bincode::{BorrowDecode, Encode};

use super::check::{self, name, name_or_empty};
use super::error::BodyError;
pub(super) use busy::{decode_busy, encode_busy};
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

/// More than the largest packet, and than a node with the largest possible name and meta.
pub(super) const BODY_LIMIT: usize = 128 * 1024;

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

/// Bit 0 of the flags of an indirect ping: a nack is wanted.
const WANTS_NACK: u8 = 1;
/// Bit 0 of the flags of an alive: the IPv4 address has 16 bytes on the hashicorp wire.
const WIDE_IPV4: u8 = 1;
/// Bit 0 of the flags of a view: the receiver is to show its own.
const ASKS: u8 = 1;
/// Bit 0 of the flags of a push/pull: the sender joins.
const JOIN: u8 = 1;

#[derive(Encode, BorrowDecode)]
struct AddrBody<'a> {
    ip: &'a [u8],
    port: u16,
}

#[derive(Encode, BorrowDecode)]
struct SourceBody<'a> {
    node: &'a str,
    addr: AddrBody<'a>,
}

#[derive(Encode, BorrowDecode)]
struct PingBody<'a> {
    sequence: u32,
    node: &'a str,
    source: Option<SourceBody<'a>>,
}

#[derive(Encode, BorrowDecode)]
struct IndirectPingBody<'a> {
    sequence: u32,
    flags: u8,
    node: &'a str,
    target: AddrBody<'a>,
    source: Option<SourceBody<'a>>,
}

#[derive(Encode, BorrowDecode)]
struct AckBody<'a> {
    sequence: u32,
    payload: &'a [u8],
}

#[derive(Encode, BorrowDecode)]
struct NackBody {
    sequence: u32,
}

/// Suspect and dead: the same fields.
#[derive(Encode, BorrowDecode)]
struct AccusationBody<'a> {
    incarnation: u32,
    node: &'a str,
    from: &'a str,
}

#[derive(Encode, BorrowDecode)]
struct AliveBody<'a> {
    incarnation: u32,
    flags: u8,
    node: &'a str,
    addr: AddrBody<'a>,
    meta: &'a [u8],
    versions: &'a [u8],
}

#[derive(Encode, BorrowDecode)]
struct BroadcastBody<'a> {
    epoch: u32,
    sequence: u64,
    hops: u8,
    priority: u8,
    origin: &'a str,
    payload: &'a [u8],
}

/// Behind the digest of a view.
#[derive(Encode, BorrowDecode)]
struct SpeakerBody<'a> {
    flags: u8,
    node: &'a str,
}

/// The state comes first so that fields added to an alive can be added here too.
#[derive(Encode, BorrowDecode)]
struct NodeStateBody<'a> {
    state: u8,
    alive: AliveBody<'a>,
}

#[derive(Encode, BorrowDecode)]
struct PushPullBody<'a> {
    flags: u8,
    nodes: u32,
    user_state_bytes: u32,
    from: &'a str,
    to: &'a str,
}

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

fn bincode_config() -> Configuration<LittleEndian, Varint, Limit<BODY_LIMIT>> {
    bincode::config::standard().with_limit::<BODY_LIMIT>()
}

/// A buffer that may grow up to a length, and refuses what would pass it.
struct Bounded<'b> {
    buf: &'b mut Vec<u8>,
    limit: usize,
}

impl Writer for Bounded<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        if bytes.len() > self.limit.saturating_sub(self.buf.len()) {
            return Err(EncodeError::UnexpectedEnd);
        }
        self.buf.extend_from_slice(bytes);
        Ok(())
    }
}

impl Bounded<'_> {
    fn encode(&mut self, body: impl Encode) -> Result<(), EncodeError> {
        bincode::encode_into_writer(body, self, bincode_config())
    }
}

/// The bytes of an IP address: 4 or 16.
struct IpBytes {
    bytes: [u8; 16],
    len: usize,
}

impl IpBytes {
    fn new(ip: IpAddr) -> Self {
        let mut bytes = [0; 16];
        let len = match ip {
            IpAddr::V4(v4) => {
                bytes[..4].copy_from_slice(&v4.octets());
                4
            }
            IpAddr::V6(v6) => {
                bytes = v6.octets();
                16
            }
        };
        Self { bytes, len }
    }

    fn with_port(&self, port: u16) -> AddrBody<'_> {
        AddrBody { ip: &self.bytes[..self.len], port }
    }
}

/// Appends `kind | length | body` if `out` then has at most `limit` bytes; otherwise changes
/// nothing and returns false.
pub(super) fn encode_part(message: &Message<'_>, limit: usize, out: &mut Vec<u8>) -> bool {
    append(out, limit, |out| {
        out.write(&[message_kind(message)])?;
        with_length(out, |out| write_body(message, out))
    })
}

/// Appends the body of a message alone, as a frame carries it.
pub(super) fn encode_body(message: &Message<'_>, out: &mut Vec<u8>) {
    append(out, usize::MAX, |out| write_body(message, out));
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
    append(out, usize::MAX, |out| out.encode(body));
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
    append(out, usize::MAX, |out| with_length(out, |out| out.encode(body)));
}

/// Runs an encoding step; takes back what it wrote if it did not fit.
fn append(
    out: &mut Vec<u8>,
    limit: usize,
    write: impl FnOnce(&mut Bounded<'_>) -> Result<(), EncodeError>,
) -> bool {
    let before = out.len();
    let done = write(&mut Bounded { buf: out, limit }).is_ok();
    if !done {
        out.truncate(before);
    }
    done
}

/// Writes a body behind its length. One byte is kept for the length, which is what most bodies
/// need; a longer one is moved.
fn with_length(
    out: &mut Bounded<'_>,
    write: impl FnOnce(&mut Bounded<'_>) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let at = out.buf.len();
    out.write(&[0])?;
    write(out)?;
    let body = out.buf.len() - at - 1;
    let (length, used) = length_bytes(u32::try_from(body).map_err(|_| EncodeError::UnexpectedEnd)?);
    out.write(&[0; 4][..used - 1])?;
    out.buf.copy_within(at + 1..at + 1 + body, at + used);
    out.buf[at..at + used].copy_from_slice(&length[..used]);
    Ok(())
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

fn write_body(message: &Message<'_>, out: &mut Bounded<'_>) -> Result<(), EncodeError> {
    match message {
        Message::Ping(Ping { sequence, node, source, .. }) => {
            with_source(source, |source| out.encode(PingBody { sequence: *sequence, node, source }))
        }
        Message::IndirectPing(m) => with_source(&m.source, |source| {
            out.encode(IndirectPingBody {
                sequence: m.sequence,
                flags: if m.nack { WANTS_NACK } else { 0 },
                node: m.node,
                target: IpBytes::new(m.target.ip()).with_port(m.target.port()),
                source,
            })
        }),
        Message::Ack(Ack { sequence, payload, .. }) => {
            out.encode(AckBody { sequence: *sequence, payload })
        }
        Message::Nack(Nack { sequence }) => out.encode(NackBody { sequence: *sequence }),
        Message::Suspect(Suspect { incarnation, node, from })
        | Message::Dead(Dead { incarnation, node, from }) => {
            out.encode(AccusationBody { incarnation: *incarnation, node, from })
        }
        Message::Alive(alive) => out.encode(alive_body(alive, &IpBytes::new(alive.addr.ip()))),
        Message::User(bytes) | Message::Sync(bytes) => out.write(bytes),
        Message::View(view) => write_view(view, out),
        Message::Broadcast(broadcast) => out.encode(BroadcastBody {
            epoch: broadcast.epoch,
            sequence: broadcast.sequence,
            hops: broadcast.hops,
            priority: broadcast.priority,
            origin: broadcast.origin,
            payload: broadcast.payload,
        }),
    }
}

/// The digest alone where what stands beside it tells who sends it.
fn write_view(view: &View<'_>, out: &mut Bounded<'_>) -> Result<(), EncodeError> {
    out.write(&view.digest.to_le_bytes())?;
    if view.node.is_empty() && !view.ask {
        return Ok(());
    }
    out.encode(SpeakerBody { flags: if view.ask { ASKS } else { 0 }, node: view.node })
}

fn read_view(body: &[u8]) -> Result<View<'_>, BodyError> {
    let (digest, rest) = body.split_first_chunk().ok_or(BodyError::Truncated)?;
    let digest = u64::from_le_bytes(*digest);
    if rest.is_empty() {
        return Ok(View { digest, node: "", ask: false });
    }
    let SpeakerBody { flags, node } = decode(rest)?;
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

/// Reads the body of a message.
pub(super) fn decode_body(kind: MessageKind, body: &[u8]) -> Result<Message<'_>, BodyError> {
    Ok(match kind {
        MessageKind::Ping => {
            let PingBody { sequence, node, source } = decode(body)?;
            Message::Ping(Ping {
                sequence,
                node: name_or_empty(node)?,
                source: read_source(source)?,
                native: true,
            })
        }
        MessageKind::IndirectPing => Message::IndirectPing(read_indirect_ping(decode(body)?)?),
        MessageKind::Ack => {
            let AckBody { sequence, payload } = decode(body)?;
            Message::Ack(Ack { sequence, payload, native: true })
        }
        MessageKind::Nack => {
            let NackBody { sequence } = decode(body)?;
            Message::Nack(Nack { sequence })
        }
        MessageKind::Suspect => {
            let (incarnation, node, from) = read_accusation(body)?;
            Message::Suspect(Suspect { incarnation, node, from })
        }
        MessageKind::Alive => Message::Alive(read_alive(decode(body)?)?),
        MessageKind::Dead => {
            let (incarnation, node, from) = read_accusation(body)?;
            Message::Dead(Dead { incarnation, node, from })
        }
        MessageKind::User => Message::User(body),
        MessageKind::View => Message::View(read_view(body)?),
        MessageKind::Sync => Message::Sync(body),
        MessageKind::Broadcast => {
            let body: BroadcastBody<'_> = decode(body)?;
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
    let NodeStateBody { state, alive } = decode(body)?;
    let Some(state) = NodeState::from_u8(state) else {
        return Ok(None);
    };
    Ok(Some(RemoteNode { alive: read_alive(alive)?, state }))
}

/// Reads the first frame of a push/pull.
pub(super) fn decode_push_pull(body: &[u8]) -> Result<PushPullHeader<'_>, BodyError> {
    let PushPullBody { flags, nodes, user_state_bytes, from, to } = decode(body)?;
    let (from, to) = (name_or_empty(from)?, name_or_empty(to)?);
    Ok(PushPullHeader { join: flags & JOIN != 0, nodes, user_state_bytes, from, to })
}

fn decode<'a, T: BorrowDecode<'a, ()>>(body: &'a [u8]) -> Result<T, BodyError> {
    let mut ignored_rest = body;
    decode_next(&mut ignored_rest)
}

/// Takes one value from the front of `input`.
fn decode_next<'a, T: BorrowDecode<'a, ()>>(input: &mut &'a [u8]) -> Result<T, BodyError> {
    match bincode::borrow_decode_from_slice(input, bincode_config()) {
        Ok((value, used)) => {
            *input = input.get(used..).unwrap_or_default();
            Ok(value)
        }
        Err(error) => Err(body_error(&error)),
    }
}

fn body_error(error: &DecodeError) -> BodyError {
    match error {
        DecodeError::UnexpectedEnd { .. } => BodyError::Truncated,
        // Names are the only text there is.
        DecodeError::Utf8 { .. } => BodyError::NameNotUtf8,
        DecodeError::LimitExceeded | DecodeError::OutsideUsizeRange(_) => {
            BodyError::Malformed("a length is out of range")
        }
        DecodeError::InvalidIntegerType { .. } => BodyError::Malformed("a number is out of range"),
        DecodeError::UnexpectedVariant { .. } => {
            BodyError::Malformed("an optional field is neither there nor absent")
        }
        _ => BodyError::Malformed("a field cannot be read"),
    }
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
    let AccusationBody { incarnation, node, from } = decode(body)?;
    Ok((incarnation, name(node)?, name(from)?))
}

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

fn address(addr: AddrBody<'_>) -> Result<SocketAddr, BodyError> {
    check::address(check::ip(addr.ip)?, addr.port)
}
