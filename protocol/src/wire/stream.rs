//! Streams: messages that are too large for a packet, or must arrive.
//!
//! In the native format each direction of a stream is a preamble and a sequence of records,
//! `length | payload`. A payload is what an encryption layer seals as a whole; opened, it is one numbered
//! frame of a message. In Go's format a direction is one message. Each without I/O:
//!
//! - [`MessageFrames`] gives the records of one message, one after the other, so that a large
//!   body is never built at once (in Go's format, as one); [`FrameNumber`] counts them over the whole
//!   direction;
//! - [`MessageReader`] takes bytes as they arrive and gives whole messages. In the native format it is a
//!   [`FrameReader`], which gives whole payloads, before an [`Assembler`].
//!
//! What a stream can cost its reader is bounded by [`StreamLimits`]; memory grows with what has
//! arrived, never with what is announced.
//!
//! ```
//! use memberlist_protocol::wire::{Dialect, WireFormat, stream::*};
//! let (mut bytes, mut number) = (Vec::new(), FrameNumber::default());
//! preamble(Dialect::Native, &mut bytes);
//! let mut frames = MessageFrames::user(Dialect::Native, b"hello".as_slice().into());
//! while frames.next_record(&mut number, &mut bytes) {}
//!
//! let mut reader = MessageReader::new(WireFormat::Native, StreamLimits::default(), 7946);
//! reader.push(&bytes);
//! assert_eq!(reader.next_item()?, Some(StreamItem::User("hello".into())));
//! reader.finish()?;
//! # Ok::<(), StreamError>(())
//! ```

mod assemble;
mod frame;
mod read;
mod write;

use std::any::Any;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::error::MetaError;
use crate::message::{Ack, Ping, PingSource, RemoteNode};
use crate::node::{Node, NodeId, NodeState, Peer};
use crate::stats::DropReason;
use crate::wire::error::BodyError;

pub use super::error::StreamError;
pub use assemble::Assembler;
pub use frame::FrameReader;
pub use read::MessageReader;
pub use write::{FrameNumber, MessageFrames, PushPullStart, preamble};

/// Number, flags and kind: what a frame has before its body, in bytes.
const FRAME_HEADER_BYTES: usize = 6;
/// Bit 0 of a frame's flags: the message ends here.
const LAST: u8 = 1;
/// Bit 1 of a frame's flags: the body is compressed.
const COMPRESSED: u8 = 2;
/// The longest body that a compressed frame may hold, in bytes: what decompressing one frame may
/// cost, whatever else is being received.
const MAX_COMPRESSED_BODY_BYTES: usize = 256 * 1024;
/// The longest text of an error message, in bytes.
const MAX_ERROR_BYTES: usize = 1024;

/// How many others a busy peer may name.
pub const MAX_BUSY_OTHERS: usize = 4;
/// The longest time after which a busy peer may want to be asked again.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// What one stream may cost its reader.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct StreamLimits {
    /// The longest frame, as it stands on the wire, in bytes. Default 20 MiB, Go's limit. This
    /// library writes frames of about 64 KiB.
    pub max_frame_bytes: usize,
    /// The longest message, all its frames together, in bytes. Default 40 MiB, Go's limit.
    pub max_message_bytes: usize,
    /// The most bytes of the application in one message: a user message, the user state of a
    /// push/pull, the body of a request or response. Default 20 MiB.
    pub max_user_bytes: usize,
    /// The most nodes in one push/pull. Default 1,048,576. Each costs its reader about 200 bytes
    /// and its name and meta.
    pub max_nodes: usize,
    /// The longest meta of a node, in bytes; longer ones are refused one by one. Default 512; see
    /// [`Config::max_meta_bytes`](crate::Config::max_meta_bytes).
    pub max_meta_bytes: usize,
}

impl Default for StreamLimits {
    fn default() -> Self {
        Self {
            max_frame_bytes: 20 << 20,
            max_message_bytes: 40 << 20,
            max_user_bytes: 20 << 20,
            max_nodes: 1 << 20,
            max_meta_bytes: 512,
        }
    }
}

/// One message that came over a stream.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum StreamItem {
    /// "Are you there?", for peers whose packets are lost.
    Ping {
        /// The ack repeats it.
        sequence: u32,
        /// Who is meant; nothing if whoever is there.
        node: Option<NodeId>,
        /// Who asks and at what address, by its own words.
        source: Option<(NodeId, SocketAddr)>,
    },
    /// The answer to a ping.
    Ack {
        /// The sequence number of the ping.
        sequence: u32,
        /// Bytes of the answering application.
        payload: Bytes,
    },
    /// The state of the sender: a question when it comes first, an answer otherwise.
    PushPull(RemoteState),
    /// Bytes of the application.
    User(Bytes),
    /// A question of a layer above, which gets one [`Response`](Self::Response).
    Request {
        /// Which layer.
        topic: u16,
        /// Its bytes.
        body: Bytes,
    },
    /// The answer to a request.
    Response {
        /// 0 for success; the other numbers are the topic's.
        status: u8,
        /// Its bytes.
        body: Bytes,
    },
    /// The peer refuses, and says why. Its words: to be shown, not to be interpreted.
    Error(String),
    /// The peer has no place for the question now.
    Busy(Busy),
    /// A message of a kind that this node does not know, which was skipped.
    Unknown(u8),
}

/// When and where to ask again. What a peer says, not what is so: whoever follows it must limit how
/// often.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Busy {
    /// The time to wait, in whole milliseconds on the wire; at most [`MAX_RETRY_AFTER`].
    pub retry_after: Duration,
    /// Live members that may be asked instead, by name; at most [`MAX_BUSY_OTHERS`]. Those without a
    /// name are not written.
    pub others: Vec<Peer>,
}

/// All that a peer knows of the cluster.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RemoteState {
    /// Who sends it, by its own words.
    pub from: Option<NodeId>,
    /// Whom it is meant for; nothing if whoever is there.
    pub to: Option<NodeId>,
    /// Whether this is its first exchange.
    pub join: bool,
    /// The members it knows.
    pub nodes: Vec<RemoteRecord>,
    /// The state of the application there.
    pub user_state: Bytes,
    /// How many nodes were left out, being in a state that is not known here.
    pub skipped: usize,
    /// Why further nodes were left out, once for each: bad name, bad address, meta too long.
    pub refused: Vec<DropReason>,
    /// What is to be dropped when the records have been merged, or are not going to be.
    pub held: Held,
}

/// Something of the caller's that lives as long as a state's records, such as their share of a
/// memory limit. It is no part of the state: any two are equal.
#[derive(Clone, Default)]
pub struct Held(Option<Arc<dyn Any + Send + Sync>>);

impl Held {
    /// Holds this.
    pub fn new(held: impl Any + Send + Sync) -> Self {
        Self(Some(Arc::new(held)))
    }
}

impl PartialEq for Held {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Held {}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Held" } else { "nothing" })
    }
}

/// One member as a peer knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RemoteRecord {
    /// What it announced.
    pub node: Node,
    /// Its incarnation.
    pub incarnation: u32,
    /// What the peer believes of it.
    pub state: NodeState,
}

/// One member as this node knows it, to be sent in a push/pull. Cheap to make: the node is shared
/// with the member table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotRecord {
    /// What it announced.
    pub node: Arc<Node>,
    /// Its incarnation.
    pub incarnation: u32,
    /// What this node believes of it.
    pub state: NodeState,
}

pub(super) fn bad(message: &'static str) -> impl Fn(BodyError) -> StreamError {
    move |error| StreamError::Body { message, error }
}

/// A ping that came over a stream.
pub(super) fn ping_item(ping: &Ping<'_>) -> Result<StreamItem, StreamError> {
    let id = |name: &str| NodeId::new(name).map_err(|error| bad("ping")(error.into()));
    let node = if ping.node.is_empty() { None } else { Some(id(ping.node)?) };
    let source = match ping.source {
        // Go's may leave out the name.
        Some(PingSource { node: "", .. }) | None => None,
        Some(PingSource { node, addr }) => Some((id(node)?, addr)),
    };
    Ok(StreamItem::Ping { sequence: ping.sequence, node, source })
}

/// An ack that came over a stream.
pub(super) fn ack_item(ack: &Ack<'_>) -> StreamItem {
    StreamItem::Ack { sequence: ack.sequence, payload: Bytes::copy_from_slice(ack.payload) }
}

/// The text of a refusal. It goes to logs and terminals, and may be anybody's.
pub(super) fn shown(text: &[u8]) -> String {
    let shown = |char: char| if char.is_control() { ' ' } else { char };
    let text = text.get(..MAX_ERROR_BYTES).unwrap_or(text);
    String::from_utf8_lossy(text).chars().map(shown).collect()
}

/// A node of a push/pull, to be kept.
pub(super) fn remote_record(
    RemoteNode { alive, state }: &RemoteNode<'_>,
    limits: &StreamLimits,
) -> Result<RemoteRecord, BodyError> {
    let (len, limit) = (alive.meta.len(), limits.max_meta_bytes);
    if len > limit {
        return Err(MetaError { len, limit }.into());
    }
    let node = Node {
        id: NodeId::new(alive.node)?,
        addr: alive.addr,
        meta: Bytes::copy_from_slice(alive.meta),
        versions: alive.versions,
        wide_ipv4: alive.wide_ipv4,
    };
    Ok(RemoteRecord { node, incarnation: alive.incarnation, state: *state })
}
