//! What the handle and the stream tasks ask of the node's task.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use memberlist_protocol::wire::Dialect;
use memberlist_protocol::wire::stream::{Busy, RemoteState};
use memberlist_protocol::wire::sync::SyncBody;
use memberlist_protocol::{
    BroadcastError, Config, DropReason, ExchangeError, Explanation, Health, MetaError, NodeId,
    OperationId, Peer, Priority, ReconfigureError, Relation, Stats, StreamResponse, Tombstone,
};
use tokio::sync::oneshot;

use crate::turns::Served;

/// Ends when the caller gives up waiting: the other end is dropped.
pub(crate) type Cancelled = oneshot::Receiver<()>;

/// Boxed on its way: a channel has room for 32 from the beginning.
pub(crate) enum Command {
    Join {
        peer: Peer,
        /// Whether nobody but the node itself wants it: then a node that has left stays so.
        by_itself: bool,
        cancelled: Cancelled,
        reply: oneshot::Sender<Result<usize, ExchangeError>>,
    },
    Leave {
        reply: oneshot::Sender<()>,
    },
    UpdateMeta {
        meta: Bytes,
        reply: oneshot::Sender<Result<oneshot::Receiver<()>, MetaError>>,
    },
    Ping {
        peer: Peer,
        reply: oneshot::Sender<Option<Duration>>,
    },
    Broadcast {
        payload: Bytes,
        relation: Relation<Arc<str>>,
        priority: Priority,
        reply: oneshot::Sender<Result<(), BroadcastError>>,
    },
    Send {
        to: Peer,
        payload: Bytes,
        reply: oneshot::Sender<Result<(), BroadcastError>>,
    },
    BroadcastsAvailable,
    /// In which format this node speaks to a peer.
    Dialect {
        peer: Peer,
        reply: oneshot::Sender<Dialect>,
    },
    Tombstone {
        name: Box<str>,
        reply: oneshot::Sender<Option<Tombstone>>,
    },
    /// The names of reaped members.
    #[cfg(feature = "encryption")]
    Lost {
        reply: oneshot::Sender<Vec<NodeId>>,
    },
    Stats {
        reply: oneshot::Sender<Stats>,
    },
    Explain {
        name: Box<str>,
        reply: oneshot::Sender<Option<Explanation>>,
    },
    Health {
        reply: oneshot::Sender<Health>,
    },
    Settings {
        reply: oneshot::Sender<Config>,
    },
    Reconfigure {
        settings: Box<Config>,
        reply: oneshot::Sender<Result<(), ReconfigureError>>,
    },
    RoundTrips {
        reply: oneshot::Sender<Vec<(NodeId, Duration)>>,
    },
    Shutdown {
        reply: oneshot::Sender<()>,
    },

    /// Nobody waits for that join any more.
    GiveUpJoin {
        id: OperationId,
    },
    /// A stream that the machine asked for has ended.
    StreamDone {
        id: OperationId,
        response: StreamResponse,
    },
    /// A ping came over a stream; the answer says whether to ack it.
    StreamPing {
        peer: Peer,
        node: Option<NodeId>,
        source: Option<NodeId>,
        reply: oneshot::Sender<bool>,
    },
    /// A peer has sent its state and wants this node's; its own is given back with it. While too many are
    /// being served it waits for its turn, until the other end of `reply` is dropped.
    ServePushPull {
        peer: Peer,
        state: RemoteState,
        reply: oneshot::Sender<Result<Served, ExchangeError>>,
    },
    /// What to tell a peer in the native format for which there is no place.
    TellBusy {
        asker: Option<NodeId>,
        join: bool,
        reply: oneshot::Sender<Busy>,
    },
    /// A peer compares its members with this node's, step by step.
    ServeSync {
        peer: Peer,
        body: SyncBody,
        reply: oneshot::Sender<Result<Bytes, ExchangeError>>,
    },
    /// A peer still uses this key, not the primary: gives it that.
    #[cfg(feature = "encryption")]
    HandOver(crate::keys::Newcomer),
    /// Something was dropped on the way to the machine.
    CountDrop {
        reason: DropReason,
    },
    /// The exchange with that peer has ended; with its state if it went well.
    FinishPushPull {
        peer: Peer,
        state: Option<RemoteState>,
    },
}
