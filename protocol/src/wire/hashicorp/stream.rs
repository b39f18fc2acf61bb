//! Go's streams: one message a direction, without a length in front (Go `readStream`,
//! `readRemoteState`, `sendLocalState`, `readUserMsg`).
//!
//! What has arrived is read object by object. One that is not all there is not tried again before so much
//! is there as it is known to need, so that reading takes linear time. Safety limit that Go does not have:
//! an object, but for a compressed message, has at most 128 KiB.

use bytes::{Buf, Bytes, BytesMut};

use super::body::{self, Body};
use super::msgpack::{ReadError, Reader};
use super::{convert, kind, lzw};
use crate::message::Message;
use crate::wire::compress::CompressionError;
use crate::wire::stream::{
    RemoteState, SnapshotRecord, StreamError, StreamItem, StreamLimits, ack_item, bad, ping_item,
    remote_record, shown,
};

/// The longest object: more than a node with the longest name and any sensible meta.
const MAX_OBJECT_BYTES: usize = 128 * 1024;
/// What a compressed message may hold without a word to the caller.
const FREE_INFLATED_BYTES: usize = 64 * 1024;

/// Appends a ping or an ack as a stream has it.
pub(crate) fn write_message(message: &Message<'_>, out: &mut Vec<u8>) {
    convert::encode_part(message, usize::MAX, out);
}

/// Appends what stands before a message of the application.
pub(crate) fn write_user_header(len: usize, out: &mut Vec<u8>) {
    out.push(kind::USER);
    body::UserHeader { user_msg_len: length(len) }.write(out);
}

/// Appends a refusal.
pub(crate) fn write_error(text: &str, out: &mut Vec<u8>) {
    out.push(kind::ERROR);
    body::ErrorAnswer { error: text.as_bytes().into() }.write(out);
}

/// Appends the state of this node.
pub(crate) fn write_state(
    join: bool,
    records: &[SnapshotRecord],
    user_state: &[u8],
    out: &mut Vec<u8>,
) {
    out.push(kind::PUSH_PULL);
    let (nodes, user_state_len) = (length(records.len()), length(user_state.len()));
    body::PushPullHeader { join, nodes, user_state_len }.write(out);
    for record in records {
        convert::encode_node_state(&record.node, record.incarnation, record.state, out);
    }
    out.extend_from_slice(user_state);
}

fn length(len: usize) -> i64 {
    i64::try_from(len).unwrap_or(i64::MAX)
}

/// Reads the message of one direction, as its bytes arrive.
#[derive(Debug)]
pub(crate) struct MessageReader {
    limits: StreamLimits,
    /// The port of a node that gives none.
    default_port: u16,
    arrived: BytesMut,
    /// Bytes of the message that have been read.
    read: usize,
    /// What comes next needs at least so many bytes.
    needs: usize,
    /// Whether the message was compressed: then all that there is of it has arrived.
    inflated: bool,
    claim: Claim,
    next: Next,
    failed: Option<StreamError>,
    /// How often an object was tried, and how many bytes were read for that.
    #[cfg(test)]
    pub(crate) tried: (usize, usize),
}

/// What is to become of a compressed message that holds much.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Claim {
    /// It is read like any other.
    Granted,
    /// It is left as it is until the caller agrees.
    ToBeMade,
    /// It holds so many bytes.
    Made(usize),
}

/// What comes next.
#[derive(Debug)]
enum Next {
    Kind,
    /// The object of a message of this kind.
    Body(u8),
    User {
        len: usize,
    },
    Nodes(State),
    /// The message has been read; what follows is ignored, as in Go.
    Nothing,
}

/// A push/pull of which the header has come.
#[derive(Debug)]
struct State {
    nodes_left: usize,
    user_state_len: usize,
    state: RemoteState,
}

/// What a step has come to.
enum Step {
    /// On with this.
    On(Next),
    /// This waits for more bytes.
    Wait(Next),
    Done(StreamItem),
}

impl MessageReader {
    pub(crate) fn new(limits: StreamLimits, default_port: u16) -> Self {
        Self {
            limits,
            default_port,
            arrived: BytesMut::new(),
            read: 0,
            needs: 0,
            inflated: false,
            claim: Claim::Granted,
            next: Next::Kind,
            failed: None,
            #[cfg(test)]
            tried: (0, 0),
        }
    }

    pub(crate) fn ask_before_inflating(&mut self) {
        self.claim = Claim::ToBeMade;
    }

    pub(crate) fn grant_inflating(&mut self) -> bool {
        let asked = matches!(self.claim, Claim::Made(_));
        if asked {
            self.claim = Claim::Granted;
        }
        asked
    }

    /// Takes what has arrived.
    pub(crate) fn push(&mut self, arrived: &[u8]) {
        let over = self.inflated || matches!(self.next, Next::Nothing);
        if self.failed.is_none() && !over {
            self.arrived.extend_from_slice(arrived);
        }
    }

    /// The message, once it is all there.
    pub(crate) fn next_item(&mut self) -> Result<Option<StreamItem>, StreamError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let item = self.read_item();
        if let Err(error) = item {
            self.failed = Some(error);
        }
        if !matches!(item, Ok(None)) {
            self.next = Next::Nothing;
            self.arrived = BytesMut::new();
        }
        item
    }

    /// How many nodes of an unfinished push/pull have been decoded.
    pub(crate) fn pending_nodes(&self) -> usize {
        match &self.next {
            Next::Nodes(state) => state.state.nodes.len(),
            _ => 0,
        }
    }

    /// Bytes of the message that have been read, wait to be read, or wait to be decompressed.
    pub(crate) fn pending_bytes(&self) -> usize {
        let claimed = if let Claim::Made(len) = self.claim { len } else { 0 };
        self.read + self.arrived.len() + claimed
    }

    #[cfg(test)]
    pub(crate) fn reserved_bytes(&self) -> usize {
        let nodes = match &self.next {
            Next::Nodes(state) => state.state.nodes.capacity(),
            _ => 0,
        };
        self.arrived.capacity() + nodes * size_of::<crate::wire::stream::RemoteRecord>()
    }

    /// Whether the stream may end here.
    pub(crate) fn is_idle(&self) -> bool {
        let between = matches!(self.next, Next::Kind | Next::Nothing);
        between && self.arrived.is_empty() && self.failed.is_none()
    }

    pub(crate) fn finish(&self) -> Result<(), StreamError> {
        match self.failed {
            Some(error) => Err(error),
            None if self.is_idle() => Ok(()),
            None => Err(StreamError::Truncated),
        }
    }

    fn read_item(&mut self) -> Result<Option<StreamItem>, StreamError> {
        while self.arrived.len() >= self.needs {
            let next = std::mem::replace(&mut self.next, Next::Nothing);
            self.needs = 0;
            match self.step(next)? {
                Step::On(next) => self.next = next,
                Step::Done(item) => return Ok(Some(item)),
                Step::Wait(next) => {
                    self.next = next;
                    break;
                }
            }
        }
        match self.next {
            Next::Nothing => Ok(None),
            _ if self.inflated => Err(StreamError::Truncated),
            _ => Ok(None),
        }
    }

    fn step(&mut self, next: Next) -> Result<Step, StreamError> {
        match next {
            Next::Nothing => Ok(Step::Wait(next)),
            Next::Kind => match self.arrived.first() {
                None if self.inflated => Err(StreamError::Truncated),
                None => Ok(Step::Wait(next)),
                Some(&kind) => {
                    self.advance(1);
                    self.begin(kind)
                }
            },
            Next::Body(kind) => self.step_body(kind),
            Next::User { len } => {
                self.check_total(len)?;
                if self.arrived.len() < len {
                    self.needs = len;
                    return Ok(Step::Wait(next));
                }
                Ok(Step::Done(StreamItem::User(self.take(len))))
            }
            Next::Nodes(state) => self.step_nodes(state),
        }
    }

    fn begin(&self, kind: u8) -> Result<Step, StreamError> {
        match kind {
            // Only one layer of compression, as in Go.
            kind::COMPRESS if self.inflated => {
                Err(StreamError::Malformed("compressed within compressed"))
            }
            kind::PING
            | kind::ACK
            | kind::PUSH_PULL
            | kind::USER
            | kind::ERROR
            | kind::COMPRESS => Ok(Step::On(Next::Body(kind))),
            kind => Ok(Step::Done(StreamItem::Unknown(kind))),
        }
    }

    fn step_body(&mut self, kind: u8) -> Result<Step, StreamError> {
        let (limits, limit) = (self.limits, MAX_OBJECT_BYTES);
        let step = match kind {
            kind::PING => self.object("ping", limit, |from| {
                let body = body::Ping::read(from)?;
                Ok(convert::read_ping(&body).map_err(bad("ping")).and_then(|p| ping_item(&p)))
            })?,
            kind::ACK => self.object("ack", limit, |from| {
                Ok(Ok(ack_item(&convert::read_ack(&body::Ack::read(from)?))))
            })?,
            kind::ERROR => self.object("error", limit, |from| {
                Ok(Ok(StreamItem::Error(shown(&body::ErrorAnswer::read(from)?.error))))
            })?,
            kind::USER => {
                let read = |from: &mut Reader<'_>| Ok(body::UserHeader::read(from)?.user_msg_len);
                return self.header("user message", kind, read, |len| {
                    Ok(Next::User { len: checked_len(len, limits.max_user_bytes)? })
                });
            }
            kind::PUSH_PULL => {
                let read = |from: &mut Reader<'_>| {
                    let header = body::PushPullHeader::read(from)?;
                    Ok((header.join, header.nodes, header.user_state_len))
                };
                return self.header("push/pull", kind, read, |header| {
                    State::begin(header, &limits).map(Next::Nodes)
                });
            }
            _ => return self.inflate(),
        };
        Ok(match step {
            Some(item) => Step::Done(item?),
            None => Step::Wait(Next::Body(kind)),
        })
    }

    fn header<T>(
        &mut self,
        message: &'static str,
        kind: u8,
        read: impl FnOnce(&mut Reader<'_>) -> Result<T, ReadError>,
        next: impl FnOnce(T) -> Result<Next, StreamError>,
    ) -> Result<Step, StreamError> {
        Ok(match self.object(message, MAX_OBJECT_BYTES, read)? {
            Some(header) => Step::On(next(header)?),
            None => Step::Wait(Next::Body(kind)),
        })
    }

    /// Reads the object at the beginning of what has arrived; nothing if it is not all there.
    fn object<T>(
        &mut self,
        message: &'static str,
        limit: usize,
        read: impl FnOnce(&mut Reader<'_>) -> Result<T, ReadError>,
    ) -> Result<Option<T>, StreamError> {
        let room = self.limits.max_message_bytes.saturating_sub(self.read);
        // The limits hold however much has arrived: the same bytes are read alike in any pieces.
        let held = self.arrived.len().min(limit).min(room);
        let mut reader = Reader::new(&self.arrived[..held]);
        let value = read(&mut reader);
        #[cfg(test)]
        {
            self.tried = (self.tried.0 + 1, self.tried.1 + reader.position());
        }
        match value {
            Ok(value) => {
                let used = reader.position();
                self.advance(used);
                Ok(Some(value))
            }
            Err(ReadError::Truncated { needs }) if needs > limit => {
                Err(StreamError::FrameTooLarge { len: needs, limit })
            }
            Err(ReadError::Truncated { needs }) => {
                self.check_total(needs)?;
                self.needs = needs;
                Ok(None)
            }
            Err(error) => Err(bad(message)(error.into())),
        }
    }

    /// Refuses the message if so much more of it makes it too long.
    fn check_total(&self, more: usize) -> Result<(), StreamError> {
        let (len, limit) = (self.read.saturating_add(more), self.limits.max_message_bytes);
        if len > limit { Err(StreamError::MessageTooLarge { len, limit }) } else { Ok(()) }
    }

    fn advance(&mut self, len: usize) {
        self.arrived.advance(len);
        self.read += len;
    }

    fn take(&mut self, len: usize) -> Bytes {
        self.read += len;
        self.arrived.split_to(len).freeze()
    }

    /// The message is in a compressed one: on with what that holds.
    fn inflate(&mut self) -> Result<Step, StreamError> {
        let limit = self.limits.max_message_bytes;
        let (asks, mut claim) = (self.claim != Claim::Granted, self.claim);
        let content = self.object("compressed", self.limits.max_frame_bytes, |from| {
            let body = body::Compressed::read(from)?;
            let mut content = Vec::new();
            let inflated = match body.algo {
                0 => lzw::decode(body.buf.as_deref().unwrap_or_default(), limit, &mut content),
                _ => Err(CompressionError::Malformed),
            };
            if inflated.is_ok() && asks && content.len() > FREE_INFLATED_BYTES {
                // It is made again when it may be kept: to count it takes as long as to make it.
                claim = Claim::Made(content.len());
                return Err(ReadError::Truncated { needs: from.position() });
            }
            Ok(inflated.map(|()| content))
        })?;
        self.claim = claim;
        let Some(content) = content else {
            return Ok(Step::Wait(Next::Body(kind::COMPRESS)));
        };
        self.arrived = Bytes::from(content?).into();
        (self.inflated, self.read) = (true, 0);
        Ok(Step::On(Next::Kind))
    }

    fn step_nodes(&mut self, mut state: State) -> Result<Step, StreamError> {
        let (limits, default_port) = (self.limits, self.default_port);
        while state.nodes_left > 0 {
            let record = self.object("node state", MAX_OBJECT_BYTES, |from| {
                let body = body::NodeState::read(from)?;
                let node = convert::decode_node_state(&body, default_port);
                Ok(node.and_then(|node| node.map(|node| remote_record(&node, &limits)).transpose()))
            })?;
            match record {
                None => return Ok(Step::Wait(Next::Nodes(state))),
                Some(Ok(Some(record))) => state.state.nodes.push(record),
                Some(Ok(None)) => state.state.skipped += 1,
                Some(Err(error)) => state.state.refused.push(error.reason()),
            }
            state.nodes_left -= 1;
        }
        self.check_total(state.user_state_len)?;
        if self.arrived.len() < state.user_state_len {
            self.needs = state.user_state_len;
            return Ok(Step::Wait(Next::Nodes(state)));
        }
        state.state.user_state = self.take(state.user_state_len);
        Ok(Step::Done(StreamItem::PushPull(state.state)))
    }
}

impl State {
    fn begin(
        (join, nodes, user_state_len): (bool, i64, i64),
        limits: &StreamLimits,
    ) -> Result<Self, StreamError> {
        let negative = StreamError::Malformed("a negative number of nodes");
        let nodes_left = usize::try_from(nodes).map_err(|_| negative)?;
        if nodes_left > limits.max_nodes {
            return Err(StreamError::TooManyNodes { count: nodes_left, limit: limits.max_nodes });
        }
        let user_state_len = checked_len(user_state_len, limits.max_user_bytes)?;
        let state = RemoteState { join, ..RemoteState::default() };
        Ok(Self { nodes_left, user_state_len, state })
    }
}

fn checked_len(len: i64, limit: usize) -> Result<usize, StreamError> {
    let len = usize::try_from(len).map_err(|_| StreamError::Malformed("a negative length"))?;
    if len > limit {
        return Err(StreamError::MessageTooLarge { len, limit });
    }
    Ok(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[&[u8]]) -> Result<Option<StreamItem>, StreamError> {
        let mut reader = MessageReader::new(StreamLimits::default(), 7946);
        let mut item = Ok(None);
        for piece in pieces {
            reader.push(piece);
            item = reader.next_item();
        }
        item
    }

    #[test]
    fn an_object_has_the_same_limit_however_it_comes() {
        let ack = |len| {
            let mut bytes = vec![kind::ACK];
            let payload = Some(vec![0; len].into());
            body::Ack { payload, ..Default::default() }.write(&mut bytes);
            bytes
        };
        let overhead = ack(100_000).len() - 1 - 100_000;
        for (len, fits) in [(MAX_OBJECT_BYTES - overhead, true), (MAX_OBJECT_BYTES, false)] {
            let bytes = ack(len);
            let (first, second) = bytes.split_at(1000);
            let mut compressed = bytes.clone();
            crate::wire::hashicorp::Lzw::default().replace(&mut compressed, 0);
            for pieces in [&[bytes.as_slice()][..], &[first, second], &[&compressed]] {
                assert_eq!(matches!(read(pieces), Ok(Some(StreamItem::Ack { .. }))), fits);
                assert_eq!(matches!(read(pieces), Err(StreamError::FrameTooLarge { .. })), !fits);
            }
        }
    }
}
