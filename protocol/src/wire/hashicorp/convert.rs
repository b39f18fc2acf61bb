//! Go's bodies as this library's messages, and back.
//!
//! Refused, and counted by the caller, is what no node of this library can be told: names that are
//! empty, over 255 bytes or not UTF-8, addresses of other than 4 or 16 bytes, and addresses that no node
//! can have.

use std::net::{IpAddr, SocketAddr};

use super::body::{self, Body, Bytes};
use super::msgpack::{ReadError, Reader};
use super::{NATIVE_VERSION, kind};
use crate::message::{
    Ack, Alive, Dead, IndirectPing, Message, MessageKind, Nack, Ping, PingSource, RemoteNode,
    Suspect,
};
use crate::node::{Node, NodeState, Versions, canonical};
use crate::wire::check::{self, address};
use crate::wire::error::{BodyError, PacketError};

/// The bytes of an IP address as Go writes them: 4 or 16.
pub(super) struct IpBytes([u8; 16], usize);

impl IpBytes {
    /// `wide`: IPv4 in the 16 bytes in which it came.
    pub(super) fn new(ip: IpAddr, wide: bool) -> Self {
        let mut bytes = [0; 16];
        match ip {
            IpAddr::V4(v4) if wide => Self(v4.to_ipv6_mapped().octets(), 16),
            IpAddr::V4(v4) => {
                bytes[..4].copy_from_slice(&v4.octets());
                Self(bytes, 4)
            }
            IpAddr::V6(v6) => Self(v6.octets(), 16),
        }
    }

    pub(super) fn as_field(&self) -> Bytes<'_> {
        Some(self.0[..self.1].into())
    }
}

/// Nil if there are none, as Go has it for what was never set.
pub(super) fn bytes_field(bytes: &[u8]) -> Bytes<'_> {
    (!bytes.is_empty()).then(|| bytes.into())
}

/// The source of a ping as its three fields: its address, name and port.
struct Source<'a>(Option<(IpBytes, PingSource<'a>)>);

impl<'a> Source<'a> {
    fn new(source: Option<PingSource<'a>>) -> Self {
        Self(source.map(|source| (IpBytes::new(source.addr.ip(), false), source)))
    }

    fn addr(&self) -> Bytes<'_> {
        self.0.as_ref().and_then(|(ip, _)| ip.as_field())
    }

    fn name(&self) -> &'a [u8] {
        self.0.as_ref().map_or(b"", |(_, source)| source.node.as_bytes())
    }

    fn port(&self) -> u16 {
        self.0.as_ref().map_or(0, |(_, source)| source.addr.port())
    }
}

/// What tells a peer that this node also reads the native format.
fn native(announced: bool) -> u8 {
    if announced { NATIVE_VERSION } else { 0 }
}

/// Appends `type | body` if `out` then has at most `limit` bytes; otherwise changes nothing and returns
/// false.
pub(crate) fn encode_part(message: &Message<'_>, limit: usize, out: &mut Vec<u8>) -> bool {
    let before = out.len();
    match message {
        Message::User(payload) => write_user(payload, limit, out),
        // Go leaves it to the application to tell broadcasts from other messages, and to pass them on.
        Message::Broadcast(broadcast) => write_user(broadcast.payload, limit, out),
        message => write_part(message, out),
    }
    let fits = out.len() <= limit && out.len() > before;
    if !fits {
        out.truncate(before);
    }
    fits
}

fn write_user(payload: &[u8], limit: usize, out: &mut Vec<u8>) {
    // A payload of any length may be asked for: what cannot fit is not copied.
    if payload.len() < limit.saturating_sub(out.len()) {
        out.push(kind::USER);
        out.extend_from_slice(payload);
    }
}

fn write_part(message: &Message<'_>, out: &mut Vec<u8>) {
    match message {
        Message::Ping(ping) => write(kind::PING, &ping_body(ping, &Source::new(ping.source)), out),
        Message::IndirectPing(ping) => {
            let source = Source::new(ping.source);
            let target = IpBytes::new(ping.target.ip(), false);
            let body = body::IndirectPing {
                nack: ping.nack,
                node: ping.node.as_bytes().into(),
                port: ping.target.port(),
                seq_no: ping.sequence,
                source_addr: source.addr(),
                source_node: source.name().into(),
                source_port: source.port(),
                target: target.as_field(),
            };
            write(kind::INDIRECT_PING, &body, out);
        }
        Message::Ack(ack) => {
            let payload = bytes_field(ack.payload);
            let native = native(ack.native);
            let body = body::Ack { payload, seq_no: ack.sequence, native };
            write(kind::ACK, &body, out);
        }
        Message::Nack(Nack { sequence }) => {
            write(kind::NACK, &body::Nack { seq_no: *sequence }, out);
        }
        Message::Suspect(Suspect { incarnation, node, from }) => {
            write(kind::SUSPECT, &accusation(*incarnation, node, from), out);
        }
        Message::Dead(Dead { incarnation, node, from }) => {
            write(kind::DEAD, &accusation(*incarnation, node, from), out);
        }
        Message::Alive(alive) => {
            let ip = IpBytes::new(alive.addr.ip(), alive.wide_ipv4);
            let body = body::Alive {
                addr: ip.as_field(),
                incarnation: alive.incarnation,
                meta: bytes_field(alive.meta),
                node: alive.node.as_bytes().into(),
                port: alive.addr.port(),
                vsn: bytes_field(alive.versions.as_bytes()),
            };
            write(kind::ALIVE, &body, out);
        }
        Message::User(_) | Message::Broadcast(_) => {}
        // Go's format has neither.
        Message::View(_) | Message::Sync(_) => {}
    }
}

fn write<'a>(kind: u8, body: &impl Body<'a>, out: &mut Vec<u8>) {
    out.push(kind);
    body.write(out);
}

fn ping_body<'a>(ping: &Ping<'a>, source: &'a Source<'_>) -> body::Ping<'a> {
    body::Ping {
        node: ping.node.as_bytes().into(),
        seq_no: ping.sequence,
        source_addr: source.addr(),
        source_node: source.0.as_ref().map_or(b"".as_slice(), |(_, s)| s.node.as_bytes()).into(),
        source_port: source.port(),
        native: native(ping.native),
    }
}

fn accusation<'a>(incarnation: u32, node: &'a str, from: &'a str) -> body::Accusation<'a> {
    let (from, node) = (from.as_bytes().into(), node.as_bytes().into());
    body::Accusation { from, incarnation, node }
}

/// Appends one node of a push/pull.
pub(crate) fn encode_node_state(
    node: &Node,
    incarnation: u32,
    state: NodeState,
    out: &mut Vec<u8>,
) {
    let ip = IpBytes::new(node.addr.ip(), node.wide_ipv4);
    let body = body::NodeState {
        addr: ip.as_field(),
        incarnation,
        meta: bytes_field(&node.meta),
        name: node.id.as_str().as_bytes().into(),
        port: node.addr.port(),
        state: i64::from(state.as_u8()),
        vsn: bytes_field(node.versions.as_bytes()),
    };
    body.write(out);
}

/// Reads a part of a packet that is neither a compound nor compressed, and lends it to `take`: parts of
/// it may have to be put together here.
pub(crate) fn decode_part<R>(
    part: &[u8],
    take: impl FnOnce(Result<Message<'_>, PacketError>) -> R,
) -> R {
    let Some((&kind, body)) = part.split_first() else {
        return take(Err(PacketError::Truncated));
    };
    match kind {
        kind::PING => {
            with_body(body, MessageKind::Ping, |body| read_ping(body).map(Message::Ping), take)
        }
        kind::INDIRECT_PING => with_body(
            body,
            MessageKind::IndirectPing,
            |body| read_indirect_ping(body).map(Message::IndirectPing),
            take,
        ),
        kind::ACK => {
            with_body(body, MessageKind::Ack, |body| Ok(Message::Ack(read_ack(body))), take)
        }
        kind::NACK => with_body(
            body,
            MessageKind::Nack,
            |body: &body::Nack| Ok(Message::Nack(Nack { sequence: body.seq_no })),
            take,
        ),
        kind::SUSPECT => with_body(
            body,
            MessageKind::Suspect,
            |body| {
                let (incarnation, node, from) = read_accusation(body)?;
                Ok(Message::Suspect(Suspect { incarnation, node, from }))
            },
            take,
        ),
        kind::DEAD => with_body(
            body,
            MessageKind::Dead,
            |body| {
                let (incarnation, node, from) = read_accusation(body)?;
                Ok(Message::Dead(Dead { incarnation, node, from }))
            },
            take,
        ),
        kind::ALIVE => {
            with_body(body, MessageKind::Alive, |body| read_alive(body).map(Message::Alive), take)
        }
        kind::USER => take(Ok(Message::User(body))),
        kind => take(Err(PacketError::UnknownKind(kind))),
    }
}

fn with_body<'a, B: Body<'a>, R>(
    bytes: &'a [u8],
    kind: MessageKind,
    read: impl FnOnce(&B) -> Result<Message<'_>, BodyError>,
    take: impl FnOnce(Result<Message<'_>, PacketError>) -> R,
) -> R {
    let bad = |error| PacketError::Body { kind, error };
    match B::read(&mut Reader::new(bytes)) {
        Ok(body) => take(read(&body).map_err(bad)),
        Err(error) => take(Err(bad(error.into()))),
    }
}

impl From<ReadError> for BodyError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Truncated { .. } => Self::Truncated,
            ReadError::Malformed(what) => Self::Malformed(what),
        }
    }
}

pub(super) fn read_ping<'b>(body: &'b body::Ping<'_>) -> Result<Ping<'b>, BodyError> {
    Ok(Ping {
        sequence: body.seq_no,
        node: name_or_empty(&body.node)?,
        source: read_source(&body.source_addr, &body.source_node, body.source_port)?,
        native: body.native == NATIVE_VERSION,
    })
}

fn read_indirect_ping<'b>(body: &'b body::IndirectPing<'_>) -> Result<IndirectPing<'b>, BodyError> {
    Ok(IndirectPing {
        sequence: body.seq_no,
        node: name(&body.node)?,
        target: canonical(SocketAddr::new(ip(&body.target)?, body.port)),
        nack: body.nack,
        source: read_source(&body.source_addr, &body.source_node, body.source_port)?,
    })
}

pub(super) fn read_ack<'b>(body: &'b body::Ack<'_>) -> Ack<'b> {
    let native = body.native == NATIVE_VERSION;
    Ack { sequence: body.seq_no, payload: bytes(&body.payload), native }
}

/// Incarnation, who is accused, and by whom.
fn read_accusation<'b>(
    body: &'b body::Accusation<'_>,
) -> Result<(u32, &'b str, &'b str), BodyError> {
    Ok((body.incarnation, name(&body.node)?, name(&body.from)?))
}

fn read_alive<'b>(body: &'b body::Alive<'_>) -> Result<Alive<'b>, BodyError> {
    let ip = ip(&body.addr)?;
    Ok(Alive {
        incarnation: body.incarnation,
        node: name(&body.node)?,
        addr: address(ip, body.port)?,
        wide_ipv4: is_wide_ipv4(ip),
        meta: bytes(&body.meta),
        versions: Versions::from_bytes(bytes(&body.vsn)),
    })
}

/// A node of a push/pull as a message would announce it; nothing if its state is not known here. A port
/// that is not given is `default_port`, as old peers leave it out.
pub(crate) fn decode_node_state<'b>(
    body: &'b body::NodeState<'_>,
    default_port: u16,
) -> Result<Option<RemoteNode<'b>>, BodyError> {
    let Some(state) = u8::try_from(body.state).ok().and_then(NodeState::from_u8) else {
        return Ok(None);
    };
    let ip = ip(&body.addr)?;
    let port = if body.port == 0 { default_port } else { body.port };
    let alive = Alive {
        incarnation: body.incarnation,
        node: name(&body.name)?,
        addr: address(ip, port)?,
        wide_ipv4: is_wide_ipv4(ip),
        meta: bytes(&body.meta),
        versions: Versions::from_bytes(bytes(&body.vsn)),
    };
    Ok(Some(RemoteNode { alive, state }))
}

fn read_source<'b>(
    addr: &Bytes<'_>,
    node: &'b [u8],
    port: u16,
) -> Result<Option<PingSource<'b>>, BodyError> {
    // As in Go: without either the answer goes to where the packet came from.
    if bytes(addr).is_empty() || port == 0 {
        return Ok(None);
    }
    Ok(Some(PingSource { node: name_or_empty(node)?, addr: address(ip(addr)?, port)? }))
}

fn bytes<'b>(field: &'b Bytes<'_>) -> &'b [u8] {
    field.as_deref().unwrap_or_default()
}

fn name(bytes: &[u8]) -> Result<&str, BodyError> {
    check::name(text(bytes)?)
}

fn name_or_empty(bytes: &[u8]) -> Result<&str, BodyError> {
    check::name_or_empty(text(bytes)?)
}

fn text(bytes: &[u8]) -> Result<&str, BodyError> {
    std::str::from_utf8(bytes).map_err(|_| BodyError::NameNotUtf8)
}

/// As it came: an IPv4 address in 16 bytes stays one.
fn ip(field: &Bytes<'_>) -> Result<IpAddr, BodyError> {
    check::ip(bytes(field))
}

fn is_wide_ipv4(ip: IpAddr) -> bool {
    ip.is_ipv6() && canonical(SocketAddr::new(ip, 0)).is_ipv4()
}
