//! From payloads of the native format to messages.

use std::borrow::Cow;

use bytes::{Buf, Bytes};

use super::{
    COMPRESSED, FRAME_HEADER_BYTES, LAST, MAX_COMPRESSED_BODY_BYTES, MAX_ERROR_BYTES, RemoteRecord,
    RemoteState, StreamError, StreamItem, StreamLimits, ack_item, bad, ping_item, remote_record,
    shown,
};
use crate::message::{Message, MessageKind};
use crate::node::NodeId;
use crate::wire::compress::decompress;
use crate::wire::error::BodyError;
use crate::wire::native::{self, LengthError, kind};

/// Puts the messages of one direction of a stream together from its payloads.
///
/// After an error the stream is lost: the error is repeated.
#[derive(Debug)]
pub struct Assembler {
    limits: StreamLimits,
    /// The number of the next frame. Wider than on the wire, so that it never repeats.
    expected: u64,
    open: Option<Open>,
    failed: Option<StreamError>,
}

/// A message whose last frame has not come.
#[derive(Debug)]
struct Open {
    /// The kind of its first frame.
    kind: u8,
    /// The bytes of its frames so far.
    len: usize,
    content: Content,
}

#[derive(Debug)]
enum Content {
    /// A body in pieces, and how long it may get.
    Pieces { body: Vec<u8>, limit: usize },
    /// A push/pull.
    State(StateParts),
    /// Nothing is kept of it.
    Skipped,
}

/// One frame of the native format.
struct Frame<'a> {
    number: u32,
    last: bool,
    kind: u8,
    body: Cow<'a, [u8]>,
}

impl<'a> Frame<'a> {
    fn read(payload: &'a [u8]) -> Result<Self, StreamError> {
        let short = StreamError::Malformed("a frame is shorter than its header");
        let (header, body) = payload.split_first_chunk::<FRAME_HEADER_BYTES>().ok_or(short)?;
        let [a, b, c, d, flags, kind] = *header;
        let number = u32::from_be_bytes([a, b, c, d]);
        let body = match flags & COMPRESSED {
            0 => Cow::Borrowed(body),
            _ => {
                let mut content = Vec::new();
                decompress(body, MAX_COMPRESSED_BODY_BYTES, &mut content)?;
                Cow::Owned(content)
            }
        };
        Ok(Self { number, last: flags & LAST != 0, kind, body })
    }
}

impl Assembler {
    /// An assembler at the beginning of a stream.
    pub fn new(limits: StreamLimits) -> Self {
        Self { limits, expected: 0, open: None, failed: None }
    }

    /// Takes the next payload; gives a message if it was the last one's.
    ///
    /// # Errors
    /// If a frame is missing or at the wrong place, a limit is passed, or the message is not
    /// understood. A node that is not understood does not spoil the rest of a push/pull.
    pub fn push(&mut self, payload: &[u8]) -> Result<Option<StreamItem>, StreamError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let item = self.push_frame(payload);
        if let Err(error) = item {
            self.failed = Some(error);
            self.open = None;
        }
        item
    }

    fn push_frame(&mut self, payload: &[u8]) -> Result<Option<StreamItem>, StreamError> {
        let frame = Frame::read(payload)?;
        if u64::from(frame.number) != self.expected {
            return Err(StreamError::OutOfOrder { expected: self.expected, got: frame.number });
        }
        self.expected += 1;
        let mut open = match self.open.take() {
            Some(mut open) => {
                open.add(&frame, &self.limits)?;
                open
            }
            None => Open::begin(&frame, &self.limits)?,
        };
        if !frame.last {
            self.open = Some(open);
            return Ok(None);
        }
        match std::mem::replace(&mut open.content, Content::Skipped) {
            Content::Skipped => Ok(Some(StreamItem::Unknown(open.kind))),
            Content::State(state) => state.finish().map(Some),
            Content::Pieces { body, .. } => read_item(open.kind, body).map(Some),
        }
    }

    /// How many nodes of an unfinished push/pull have been decoded. They take more memory than their
    /// bytes on the wire.
    pub fn pending_nodes(&self) -> usize {
        match &self.open {
            Some(Open { content: Content::State(parts), .. }) => parts.state.nodes.len(),
            _ => 0,
        }
    }

    /// How many bytes of an unfinished message have been decoded. They may be more than came over the
    /// wire, where frames are compressed.
    pub fn pending_bytes(&self) -> usize {
        self.open.as_ref().map_or(0, |open| open.len)
    }

    /// Whether the stream may end here: between two messages.
    pub fn is_idle(&self) -> bool {
        self.open.is_none() && self.failed.is_none()
    }

    /// To be called at the end of the stream, after [`FrameReader::finish`](super::FrameReader).
    ///
    /// # Errors
    /// If it ends in the middle of a message, or had failed before.
    pub fn finish(&self) -> Result<(), StreamError> {
        match self.failed {
            Some(error) => Err(error),
            None if self.is_idle() => Ok(()),
            None => Err(StreamError::Truncated),
        }
    }
}

impl Open {
    fn begin(frame: &Frame<'_>, limits: &StreamLimits) -> Result<Self, StreamError> {
        let pieces = |limit| Content::Pieces { body: Vec::new(), limit };
        let content = match frame.kind {
            kind::PING | kind::ACK | kind::BUSY => pieces(native::BODY_LIMIT),
            kind::USER_STREAM => pieces(limits.max_user_bytes),
            kind::REQUEST => pieces(limits.max_user_bytes.saturating_add(TOPIC_BYTES)),
            kind::RESPONSE => pieces(limits.max_user_bytes.saturating_add(STATUS_BYTES)),
            kind::ERROR => pieces(MAX_ERROR_BYTES),
            kind::PUSH_PULL => Content::State(StateParts::begin(&frame.body, limits)?),
            kind::NODE_STATES | kind::USER_STATE => {
                return Err(StreamError::Malformed("a piece of a push/pull came before its head"));
            }
            _ => Content::Skipped,
        };
        let mut open = Self { kind: frame.kind, len: 0, content };
        open.grow(frame.body.len(), limits)?;
        // The first frame of a push/pull is its header, which has been read.
        match &mut open.content {
            Content::Pieces { body, limit } => append(body, &frame.body, *limit)?,
            Content::State(_) | Content::Skipped => {}
        }
        Ok(open)
    }

    fn add(&mut self, frame: &Frame<'_>, limits: &StreamLimits) -> Result<(), StreamError> {
        if frame.body.is_empty() && !frame.last {
            // No limit of bytes would ever end such a message.
            return Err(StreamError::Malformed("a frame of nothing in the middle of a message"));
        }
        self.grow(frame.body.len(), limits)?;
        match &mut self.content {
            Content::Skipped => Ok(()),
            Content::State(state) => state.add(frame, limits),
            Content::Pieces { .. } if frame.kind != self.kind => {
                Err(StreamError::Malformed("a message began before the last one ended"))
            }
            Content::Pieces { body, limit } => append(body, &frame.body, *limit),
        }
    }

    fn grow(&mut self, by: usize, limits: &StreamLimits) -> Result<(), StreamError> {
        self.len = self.len.saturating_add(by);
        let limit = limits.max_message_bytes;
        if self.len > limit {
            return Err(StreamError::MessageTooLarge { len: self.len, limit });
        }
        Ok(())
    }
}

fn append(body: &mut Vec<u8>, piece: &[u8], limit: usize) -> Result<(), StreamError> {
    let len = body.len().saturating_add(piece.len());
    if len > limit {
        return Err(StreamError::MessageTooLarge { len, limit });
    }
    body.extend_from_slice(piece);
    Ok(())
}

const TOPIC_BYTES: usize = 2;
const STATUS_BYTES: usize = 1;

/// Reads a message that was put together from its pieces.
fn read_item(number: u8, body: Vec<u8>) -> Result<StreamItem, StreamError> {
    let short = StreamError::Malformed("a request or response is shorter than its head");
    let mut bytes = Bytes::from(body);
    Ok(match number {
        kind::PING => read_ping(&bytes)?,
        kind::ACK => read_ack(&bytes)?,
        kind::USER_STREAM => StreamItem::User(bytes),
        kind::REQUEST => {
            let topic = bytes.try_get_u16().map_err(|_| short)?;
            StreamItem::Request { topic, body: bytes }
        }
        kind::RESPONSE => {
            let status = bytes.try_get_u8().map_err(|_| short)?;
            StreamItem::Response { status, body: bytes }
        }
        kind::ERROR => StreamItem::Error(shown(&bytes)),
        kind::BUSY => StreamItem::Busy(native::decode_busy(&bytes).map_err(bad("busy answer"))?),
        _ => StreamItem::Unknown(number),
    })
}

fn read_ping(body: &[u8]) -> Result<StreamItem, StreamError> {
    match native::decode_body(MessageKind::Ping, body).map_err(bad("ping"))? {
        Message::Ping(ping) => ping_item(&ping),
        _ => Err(StreamError::Malformed("not a ping")),
    }
}

fn read_ack(body: &[u8]) -> Result<StreamItem, StreamError> {
    match native::decode_body(MessageKind::Ack, body).map_err(bad("ack"))? {
        Message::Ack(ack) => Ok(ack_item(&ack)),
        _ => Err(StreamError::Malformed("not an ack")),
    }
}

fn id(name: &str, message: &'static str) -> Result<NodeId, StreamError> {
    NodeId::new(name).map_err(|error| bad(message)(error.into()))
}

fn optional_id(name: &str, message: &'static str) -> Result<Option<NodeId>, StreamError> {
    if name.is_empty() { Ok(None) } else { id(name, message).map(Some) }
}

/// A push/pull of which some frames have come.
#[derive(Debug)]
struct StateParts {
    /// What the header announces.
    nodes: usize,
    user_state_bytes: usize,
    /// What has come.
    state: RemoteState,
    user_state: Vec<u8>,
}

impl StateParts {
    fn begin(body: &[u8], limits: &StreamLimits) -> Result<Self, StreamError> {
        let header = native::decode_push_pull(body).map_err(bad("push/pull"))?;
        let count = usize::try_from(header.nodes).unwrap_or(usize::MAX);
        if count > limits.max_nodes {
            return Err(StreamError::TooManyNodes { count, limit: limits.max_nodes });
        }
        let len = usize::try_from(header.user_state_bytes).unwrap_or(usize::MAX);
        if len > limits.max_user_bytes {
            return Err(StreamError::MessageTooLarge { len, limit: limits.max_user_bytes });
        }
        let from = optional_id(header.from, "push/pull")?;
        let to = optional_id(header.to, "push/pull")?;
        let state = RemoteState { from, to, join: header.join, ..RemoteState::default() };
        Ok(Self { nodes: count, user_state_bytes: len, state, user_state: Vec::new() })
    }

    /// Takes a further frame. One of a kind that is not known here is skipped: later versions may
    /// say more in a push/pull.
    fn add(&mut self, frame: &Frame<'_>, limits: &StreamLimits) -> Result<(), StreamError> {
        match frame.kind {
            kind::NODE_STATES => self.add_nodes(&frame.body, limits),
            kind::USER_STATE => self.add_user_state(&frame.body),
            kind::PING | kind::ACK | kind::PUSH_PULL | kind::USER_STREAM..=kind::BUSY => {
                Err(StreamError::Malformed("a message began before the last one ended"))
            }
            _ => Ok(()),
        }
    }

    fn add_nodes(&mut self, mut body: &[u8], limits: &StreamLimits) -> Result<(), StreamError> {
        while !body.is_empty() {
            let record = native::take_counted(&mut body).map_err(|error| match error {
                LengthError::Truncated => StreamError::Malformed("a node is cut off by its frame"),
                LengthError::Overflow => StreamError::Malformed("the length of a node"),
            })?;
            if self.nodes_came() == self.nodes {
                return Err(StreamError::Malformed("more nodes than announced"));
            }
            match read_record(record, limits) {
                Ok(Some(record)) => self.state.nodes.push(record),
                Ok(None) => self.state.skipped += 1,
                Err(error) => self.state.refused.push(error.reason()),
            }
        }
        Ok(())
    }

    fn nodes_came(&self) -> usize {
        self.state.nodes.len() + self.state.skipped + self.state.refused.len()
    }

    fn add_user_state(&mut self, piece: &[u8]) -> Result<(), StreamError> {
        if piece.len() > self.user_state_bytes - self.user_state.len() {
            return Err(StreamError::Malformed("more user state than announced"));
        }
        self.user_state.extend_from_slice(piece);
        Ok(())
    }

    fn finish(mut self) -> Result<StreamItem, StreamError> {
        if self.nodes_came() != self.nodes {
            return Err(StreamError::Malformed("fewer nodes than announced"));
        }
        if self.user_state.len() != self.user_state_bytes {
            return Err(StreamError::Malformed("less user state than announced"));
        }
        self.state.user_state = self.user_state.into();
        Ok(StreamItem::PushPull(self.state))
    }
}

fn read_record(body: &[u8], limits: &StreamLimits) -> Result<Option<RemoteRecord>, BodyError> {
    match native::decode_node_state(body)? {
        Some(node) => remote_record(&node, limits).map(Some),
        None => Ok(None),
    }
}
