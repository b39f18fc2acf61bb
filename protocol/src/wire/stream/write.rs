//! From messages to payloads.

use std::sync::Arc;

use bytes::{BufMut, Bytes};

use super::{
    Busy, COMPRESSED, FRAME_HEADER_BYTES, LAST, MAX_COMPRESSED_BODY_BYTES, MAX_ERROR_BYTES,
    SnapshotRecord,
};
use crate::message::{Ack, Message, Ping};
use crate::node::NodeId;
use crate::wire::Dialect;
use crate::wire::compress::Compressor;
use crate::wire::hashicorp::{Lzw, stream as hashicorp};
use crate::wire::native::{self, PushPullHeader, kind};

/// How long a payload gets, in bytes. Only one node that is larger by itself makes a longer one.
const PAYLOAD_BYTES: usize = 64 * 1024;
const MAX_BODY_BYTES: usize = PAYLOAD_BYTES - FRAME_HEADER_BYTES;

/// Appends what stands once at the beginning of each direction of a stream.
pub fn preamble(dialect: Dialect, out: &mut Vec<u8>) {
    if dialect == Dialect::Native {
        out.extend_from_slice(&[native::MAGIC, native::VERSION]);
    }
}

/// The number of the next frame of one direction of a stream, over all its messages.
///
/// The reader accepts each number once: a direction ends after 2^32 frames.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FrameNumber(u32);

impl FrameNumber {
    fn take(&mut self) -> u32 {
        let number = self.0;
        self.0 = number.wrapping_add(1);
        number
    }
}

/// Who sends a push/pull, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PushPullStart {
    /// The name of this node.
    pub from: NodeId,
    /// Which node is meant: another one refuses. None: whoever is there.
    pub to: Option<NodeId>,
    /// Whether this is its first exchange.
    pub join: bool,
}

/// The records of one message, made one after the other.
#[derive(Debug)]
pub struct MessageFrames {
    rest: Rest,
    /// Whether bodies are compressed.
    compressed: bool,
    lz4: Compressor,
}

/// What has not been written yet.
#[derive(Clone, Debug)]
enum Rest {
    Nothing,
    /// A body that is cut into pieces anywhere; `head` is what stands before the caller's bytes.
    Pieces {
        kind: u8,
        head: Bytes,
        body: Bytes,
    },
    /// A push/pull. Nodes are not cut.
    State {
        start: Option<PushPullStart>,
        records: Arc<[SnapshotRecord]>,
        next: usize,
        user: Bytes,
    },
    /// A message in Go's format, all at once: it is compressed and sealed as a whole.
    Hashicorp {
        head: Vec<u8>,
        body: Bytes,
    },
}

impl From<Rest> for MessageFrames {
    fn from(rest: Rest) -> Self {
        Self { rest, compressed: false, lz4: Compressor::default() }
    }
}

impl MessageFrames {
    fn pieces(kind: u8, head: Bytes, body: Bytes) -> Self {
        Rest::Pieces { kind, head, body }.into()
    }

    fn hashicorp(body: Bytes, write_head: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut head = Vec::new();
        write_head(&mut head);
        Rest::Hashicorp { head, body }.into()
    }

    fn message(dialect: Dialect, kind: u8, message: &Message<'_>) -> Self {
        match dialect {
            Dialect::Native => {
                let mut body = Vec::new();
                native::encode_body(message, &mut body);
                Self::pieces(kind, Bytes::new(), body.into())
            }
            Dialect::Hashicorp => Self::hashicorp(Bytes::new(), |out| {
                hashicorp::write_message(message, out);
            }),
        }
    }

    /// A ping.
    pub fn ping(dialect: Dialect, ping: &Ping<'_>) -> Self {
        Self::message(dialect, kind::PING, &Message::Ping(*ping))
    }

    /// An ack.
    pub fn ack(dialect: Dialect, ack: &Ack<'_>) -> Self {
        Self::message(dialect, kind::ACK, &Message::Ack(*ack))
    }

    /// A message of the application.
    pub fn user(dialect: Dialect, bytes: Bytes) -> Self {
        match dialect {
            Dialect::Native => Self::pieces(kind::USER_STREAM, Bytes::new(), bytes),
            Dialect::Hashicorp => {
                let len = bytes.len();
                Self::hashicorp(bytes, |out| hashicorp::write_user_header(len, out))
            }
        }
    }

    /// A question of a layer above, in the native format: Go's has none.
    pub fn request(topic: u16, body: Bytes) -> Self {
        let head = Bytes::copy_from_slice(&topic.to_be_bytes());
        Self::pieces(kind::REQUEST, head, body)
    }

    /// The answer to a request, in the native format.
    pub fn response(status: u8, body: Bytes) -> Self {
        Self::pieces(kind::RESPONSE, Bytes::copy_from_slice(&[status]), body)
    }

    /// A refusal. Text after 1,024 bytes is cut off.
    pub fn error(dialect: Dialect, text: &str) -> Self {
        let mut end = text.len().min(MAX_ERROR_BYTES);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let text = &text[..end];
        match dialect {
            Dialect::Native => {
                Self::pieces(kind::ERROR, Bytes::new(), Bytes::copy_from_slice(text.as_bytes()))
            }
            Dialect::Hashicorp => {
                Self::hashicorp(Bytes::new(), |out| hashicorp::write_error(text, out))
            }
        }
    }

    /// When and where to ask again, in the native format: Go's has nothing of the kind.
    pub fn busy(busy: &Busy) -> Self {
        let mut body = Vec::new();
        native::encode_busy(busy, &mut body);
        Self::pieces(kind::BUSY, Bytes::new(), body.into())
    }

    /// The state of this node. Go's format does not say from whom it is and for whom.
    pub fn push_pull(
        dialect: Dialect,
        start: PushPullStart,
        records: Arc<[SnapshotRecord]>,
        user_state: Bytes,
    ) -> Self {
        match dialect {
            Dialect::Native => {
                Rest::State { start: Some(start), records, next: 0, user: user_state }.into()
            }
            Dialect::Hashicorp => Self::hashicorp(Bytes::new(), |out| {
                hashicorp::write_state(start.join, &records, &user_state, out);
            }),
        }
    }

    /// The same, compressed: in the native format those bodies that become shorter by that, in Go's the
    /// message in any case, as Go does.
    #[must_use]
    pub fn compressed(self, wanted: bool) -> Self {
        Self { compressed: wanted, ..self }
    }

    /// Appends one payload, without its length; false, and nothing appended, after the last.
    pub fn next_payload(&mut self, number: &mut FrameNumber, out: &mut Vec<u8>) -> bool {
        match std::mem::replace(&mut self.rest, Rest::Nothing) {
            Rest::Nothing => false,
            Rest::Hashicorp { head, body } => {
                let at = out.len();
                out.extend_from_slice(&head);
                out.extend_from_slice(&body);
                if self.compressed {
                    Lzw::default().replace(out, at);
                }
                true
            }
            rest => {
                self.rest = rest;
                self.next_frame(number, out);
                true
            }
        }
    }

    /// As [`next_payload`](Self::next_payload), in the native format with the length in front: what goes
    /// to the wire when no layer is between.
    pub fn next_record(&mut self, number: &mut FrameNumber, out: &mut Vec<u8>) -> bool {
        if matches!(self.rest, Rest::Hashicorp { .. }) {
            return self.next_payload(number, out);
        }
        let at = out.len();
        out.put_u32(0);
        if !self.next_payload(number, out) {
            out.truncate(at);
            return false;
        }
        let payload = out.len() - at - 4;
        // A payload is not much longer than `PAYLOAD_BYTES`.
        let length = u32::try_from(payload).unwrap_or(u32::MAX);
        out[at..at + 4].copy_from_slice(&length.to_be_bytes());
        true
    }

    fn next_frame(&mut self, number: &mut FrameNumber, out: &mut Vec<u8>) {
        out.put_u32(number.take());
        // Flags and kind are known when the body is.
        let at = out.len();
        out.extend_from_slice(&[0; 2]);
        let (kind, last) = self.rest.write_body(out);
        if last {
            self.rest = Rest::Nothing;
        }
        let body = at + 2;
        let compressed = self.compressed
            && out.len() - body <= MAX_COMPRESSED_BODY_BYTES
            && self.lz4.compress(out, body);
        out[at] = if last { LAST } else { 0 } | if compressed { COMPRESSED } else { 0 };
        out[at + 1] = kind;
    }
}

impl Rest {
    /// Appends the body of the next frame; returns its kind and whether it is the last.
    fn write_body(&mut self, out: &mut Vec<u8>) -> (u8, bool) {
        match self {
            Self::Nothing | Self::Hashicorp { .. } => (0, true),
            Self::Pieces { kind, head, body } => {
                let free = MAX_BODY_BYTES - take_piece(head, MAX_BODY_BYTES, out);
                take_piece(body, free, out);
                (*kind, body.is_empty())
            }
            Self::State { start, records, next, user } => {
                let kind = if let Some(start) = start.take() {
                    write_start(&start, records.len(), user.len(), out);
                    kind::PUSH_PULL
                } else if *next < records.len() {
                    *next += write_nodes(&records[*next..], out);
                    kind::NODE_STATES
                } else {
                    take_piece(user, MAX_BODY_BYTES, out);
                    kind::USER_STATE
                };
                (kind, *next == records.len() && user.is_empty())
            }
        }
    }
}

/// Moves at most `limit` bytes from the front of `bytes` to `out`; returns how many.
fn take_piece(bytes: &mut Bytes, limit: usize, out: &mut Vec<u8>) -> usize {
    let piece = bytes.split_to(bytes.len().min(limit));
    out.extend_from_slice(&piece);
    piece.len()
}

fn write_start(start: &PushPullStart, nodes: usize, user_state: usize, out: &mut Vec<u8>) {
    // What does not fit 32 bits is over every reader's limit, and is refused there.
    let header = PushPullHeader {
        join: start.join,
        nodes: u32::try_from(nodes).unwrap_or(u32::MAX),
        user_state_bytes: u32::try_from(user_state).unwrap_or(u32::MAX),
        from: start.from.as_str(),
        to: start.to.as_ref().map_or("", NodeId::as_str),
    };
    native::encode_push_pull(&header, out);
}

/// Appends as many nodes as a frame holds, at least one; returns how many.
fn write_nodes(records: &[SnapshotRecord], out: &mut Vec<u8>) -> usize {
    let end = out.len() + MAX_BODY_BYTES;
    for (i, record) in records.iter().enumerate() {
        let at = out.len();
        native::encode_node_state(&record.node, record.incarnation, record.state, out);
        if i > 0 && out.len() > end {
            out.truncate(at);
            return i;
        }
    }
    records.len()
}
