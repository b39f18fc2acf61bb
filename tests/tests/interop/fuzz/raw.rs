//! What the library's bodies make of bytes, in the words of the Go peer's `--decode`: before anything
//! that a body means to the library.

use std::cell::Cell;

use memberlist_protocol::wire::hashicorp::body::{
    Accusation, Ack, Alive, Body, Bytes, Compressed, ErrorAnswer, IndirectPing, Nack, NodeState,
    Ping, PushPullHeader, UserHeader,
};
use memberlist_protocol::wire::hashicorp::{ReadError, Reader, kind, lzw};
use serde_json::{Value, json};

use super::cases::crc32;
use crate::go_peer::hex;

/// What Go inflates at most, and the most node states and bytes of an application that it reads.
const MAX_INFLATED_BYTES: usize = 2 * 20 * 1024 * 1024;
const MAX_NODES: i64 = 1 << 20;
const MAX_USER_BYTES: i64 = 20 << 20;
/// The longest object that the library reads on a stream.
const MAX_OBJECT_BYTES: usize = 128 * 1024;

/// What was found, and what it took.
#[derive(Default)]
pub(crate) struct Walk {
    pub(crate) leaves: Vec<Value>,
    /// How many layers there are within each other, and how long all is that was compressed.
    pub(crate) nesting: usize,
    pub(crate) inflated: usize,
    /// An object has more values than the library reads.
    pub(crate) too_many_values: bool,
    /// An object of a stream is longer than the library reads.
    pub(crate) object_too_long: bool,
    /// The field is named that Go does not know.
    pub(crate) names_native_wire: bool,
}

fn names_native_wire(bytes: &[u8]) -> bool {
    let name = b"NativeWire";
    bytes.windows(name.len()).any(|window| window == name)
}

type Read<T> = Result<T, ReadError>;

impl Walk {
    pub(crate) fn packet(bytes: &[u8]) -> Self {
        let mut walk = Self { names_native_wire: names_native_wire(bytes), ..Self::default() };
        match bytes {
            [kind::CRC, a, b, c, d, content @ ..] => {
                match u32::from_be_bytes([*a, *b, *c, *d]) == crc32(content) {
                    true => walk.command(content, 0),
                    false => walk.failed("crc"),
                }
            }
            _ => walk.command(bytes, 0),
        }
        walk
    }

    pub(crate) fn stream(bytes: &[u8]) -> Self {
        let mut walk = Self { names_native_wire: names_native_wire(bytes), ..Self::default() };
        match bytes {
            [] => walk.failed("empty"),
            [kind::ENCRYPT, ..] => walk.failed("encrypt"),
            [kind::COMPRESS, body @ ..] => match walk.inflate(body).as_deref() {
                Some([kind, body @ ..]) => drop(walk.message_of_stream(*kind, body)),
                _ => walk.failed("compress"),
            },
            [kind, body @ ..] => {
                let left = walk.message_of_stream(*kind, body);
                // Nothing is known of where an object ends that cannot be read.
                if let (Some(left), Some(leaf)) = (left, walk.leaves.last_mut()) {
                    leaf["used"] = (bytes.len() - left).into();
                }
            }
        }
        walk
    }

    fn failed(&mut self, kind: &str) {
        self.leaves.push(json!({ "type": kind, "error": "" }));
    }

    fn unknown(&mut self, kind: u8) {
        self.failed(&format!("unknown {kind}"));
    }

    fn command(&mut self, bytes: &[u8], nesting: usize) {
        let Some((&kind, body)) = bytes.split_first() else { return self.failed("empty") };
        if matches!(kind, kind::COMPOUND | kind::COMPRESS) {
            self.nesting = self.nesting.max(nesting + 1);
        }
        match kind {
            kind::COMPOUND => self.compound(body, nesting),
            kind::COMPRESS => match self.inflate(body) {
                Some(content) => self.command(&content, nesting + 1),
                None => self.failed("compress"),
            },
            kind::USER => self.leaves.push(json!({ "type": "user", "payload": hex(body) })),
            kind => {
                let mut from = Reader::new(body);
                match message_of_packet(kind, &mut from) {
                    Some((name, read)) => self.tell(name, read),
                    None => self.unknown(kind),
                }
            }
        }
    }

    fn compound(&mut self, bytes: &[u8], nesting: usize) {
        let count = bytes.first().map(|count| usize::from(*count));
        let lengths = count.and_then(|count| bytes.get(1..1 + 2 * count));
        let Some(lengths) = lengths else { return self.failed("compound") };
        let mut rest = &bytes[1 + lengths.len()..];
        let mut lengths = lengths.chunks_exact(2).map(|len| u16::from_be_bytes([len[0], len[1]]));
        while let Some(len) = lengths.next() {
            let Some((part, more)) = rest.split_at_checked(len.into()) else {
                let truncated = 1 + lengths.len();
                self.leaves.push(json!({ "type": "compound", "truncated": truncated }));
                return;
            };
            self.command(part, nesting + 1);
            rest = more;
        }
    }

    fn inflate(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let body = Compressed::read(&mut Reader::new(bytes));
        let body = body.inspect_err(|error| self.look_at(error)).ok()?;
        let mut content = Vec::new();
        let buf = body.buf.unwrap_or_default();
        lzw::decode(&buf, MAX_INFLATED_BYTES, &mut content).ok().filter(|()| body.algo == 0)?;
        self.inflated += content.len();
        self.names_native_wire |= names_native_wire(&content);
        Some(content)
    }

    fn look_at(&mut self, error: &ReadError) {
        self.too_many_values |=
            matches!(error, ReadError::Malformed(what) if what.contains("too many"));
    }

    fn tell(&mut self, name: &str, read: Read<Value>) {
        match read {
            Ok(mut fields) => {
                fields["type"] = name.into();
                self.leaves.push(fields);
            }
            Err(error) => {
                self.look_at(&error);
                self.failed(name);
            }
        }
    }

    /// Gives how much is left behind the message, if it can be read.
    fn message_of_stream(&mut self, kind: u8, body: &[u8]) -> Option<usize> {
        let longest = Cell::new(0);
        let seen = |len| longest.set(longest.get().max(len));
        let object = |read: fn(&mut Reader<'_>) -> Read<Value>| {
            let mut from = Reader::new(body);
            let value = read(&mut from)?;
            seen(from.position());
            Ok((value, from.rest()))
        };
        let (name, read) = match kind {
            kind::PING => ("ping", object(ping)),
            kind::ACK => ("ack", object(ack)),
            kind::ERROR => ("error", object(error)),
            kind::PUSH_PULL => ("push_pull", push_pull(body, seen)),
            kind::USER => ("user", user(body)),
            kind => {
                self.unknown(kind);
                return None;
            }
        };
        let left = read.as_ref().ok().map(|(_, left)| left.len());
        self.object_too_long = longest.get() > MAX_OBJECT_BYTES;
        self.tell(name, read.map(|(fields, _)| fields));
        left
    }
}

fn message_of_packet(kind: u8, from: &mut Reader<'_>) -> Option<(&'static str, Read<Value>)> {
    Some(match kind {
        kind::PING => ("ping", ping(from)),
        kind::INDIRECT_PING => ("indirect_ping", indirect_ping(from)),
        kind::ACK => ("ack", ack(from)),
        kind::NACK => ("nack", Nack::read(from).map(|body| json!({ "SeqNo": body.seq_no }))),
        kind::SUSPECT => ("suspect", accusation(from)),
        kind::DEAD => ("dead", accusation(from)),
        kind::ALIVE => ("alive", alive(from)),
        _ => return None,
    })
}

fn bytes(field: &Bytes<'_>) -> Value {
    field.as_deref().map(hex).into()
}

fn ping(from: &mut Reader<'_>) -> Read<Value> {
    let body = Ping::read(from)?;
    Ok(json!({
        "SeqNo": body.seq_no,
        "Node": hex(&body.node),
        "SourceAddr": bytes(&body.source_addr),
        "SourcePort": body.source_port,
        "SourceNode": hex(&body.source_node),
    }))
}

fn indirect_ping(from: &mut Reader<'_>) -> Read<Value> {
    let body = IndirectPing::read(from)?;
    Ok(json!({
        "SeqNo": body.seq_no,
        "Target": bytes(&body.target),
        "Port": body.port,
        "Node": hex(&body.node),
        "Nack": body.nack,
        "SourceAddr": bytes(&body.source_addr),
        "SourcePort": body.source_port,
        "SourceNode": hex(&body.source_node),
    }))
}

fn ack(from: &mut Reader<'_>) -> Read<Value> {
    let body = Ack::read(from)?;
    Ok(json!({ "SeqNo": body.seq_no, "Payload": bytes(&body.payload) }))
}

fn error(from: &mut Reader<'_>) -> Read<Value> {
    Ok(json!({ "Error": hex(&ErrorAnswer::read(from)?.error) }))
}

fn accusation(from: &mut Reader<'_>) -> Read<Value> {
    let body = Accusation::read(from)?;
    let (node, from) = (hex(&body.node), hex(&body.from));
    Ok(json!({ "Incarnation": body.incarnation, "Node": node, "From": from }))
}

fn alive(from: &mut Reader<'_>) -> Read<Value> {
    let body = Alive::read(from)?;
    Ok(json!({
        "Incarnation": body.incarnation,
        "Node": hex(&body.node),
        "Addr": bytes(&body.addr),
        "Port": body.port,
        "Meta": bytes(&body.meta),
        "Vsn": bytes(&body.vsn),
    }))
}

const OVER_LIMIT: ReadError = ReadError::Malformed("over a limit of Go's");

/// So many bytes of an application, and what stands behind them.
fn application(bytes: &[u8], len: i64) -> Read<(&[u8], &[u8])> {
    let len = usize::try_from(len).ok().filter(|_| len <= MAX_USER_BYTES).ok_or(OVER_LIMIT)?;
    bytes.split_at_checked(len).ok_or(ReadError::Truncated { needs: len })
}

fn user(bytes: &[u8]) -> Read<(Value, &[u8])> {
    let mut from = Reader::new(bytes);
    let header = UserHeader::read(&mut from)?;
    let (payload, left) = application(from.rest(), header.user_msg_len)?;
    Ok((json!({ "payload": hex(payload) }), left))
}

fn push_pull(bytes: &[u8], seen: impl Fn(usize)) -> Read<(Value, &[u8])> {
    let mut from = Reader::new(bytes);
    let header = PushPullHeader::read(&mut from)?;
    if !(0..=MAX_NODES).contains(&header.nodes) {
        return Err(OVER_LIMIT);
    }
    let (mut left, mut nodes) = (from.rest(), Vec::new());
    for _ in 0..header.nodes {
        let mut from = Reader::new(left);
        nodes.push(node_state(&mut from)?);
        seen(from.position());
        left = from.rest();
    }
    let (state, left) = application(left, header.user_state_len)?;
    let state = if state.is_empty() { Value::Null } else { hex(state).into() };
    Ok((json!({ "Join": header.join, "Nodes": nodes, "UserState": state }), left))
}

fn node_state(from: &mut Reader<'_>) -> Read<Value> {
    let body = NodeState::read(from)?;
    Ok(json!({
        "Name": hex(&body.name),
        "Addr": bytes(&body.addr),
        "Port": body.port,
        "Meta": bytes(&body.meta),
        "Incarnation": body.incarnation,
        "State": body.state,
        "Vsn": bytes(&body.vsn),
    }))
}
