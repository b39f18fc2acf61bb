//! The messages of the protocol, as values that borrow from the buffer they were read from.
//!
//! Names and meaning are Go memberlist's; each wire format has its own encoding of them (see
//! [`wire`](crate::wire)). Decoding allocates nothing, so news that is already known costs nothing.

use std::net::SocketAddr;

use crate::node::{NodeState, Versions};

/// One message of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Message<'a> {
    /// "Are you there?"
    Ping(Ping<'a>),
    /// "Please ping that node for me."
    IndirectPing(IndirectPing<'a>),
    /// The answer to a ping.
    Ack(Ack<'a>),
    /// The answer of a relay that got none (Lifeguard §IV-A).
    Nack(Nack),
    /// "I could not reach that node."
    Suspect(Suspect<'a>),
    /// "That node is here, at this address, at this incarnation."
    Alive(Alive<'a>),
    /// "That node is gone", or, from the node itself, "I leave".
    Dead(Dead<'a>),
    /// Bytes of the application, for the receiver alone.
    User(&'a [u8]),
    /// Bytes of the application, for everybody.
    Broadcast(Broadcast<'a>),
    /// "This is the digest of what I believe." Not in HashiCorp's format.
    View(View<'a>),
    /// A step of comparing members, see [`wire::sync`](crate::wire::sync). Not in HashiCorp's format.
    Sync(&'a [u8]),
}

/// Asks a node whether it is there. Expects an [`Ack`] with the same sequence number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ping<'a> {
    /// Chosen by the sender; the ack repeats it.
    pub sequence: u32,
    /// Who is meant. Another node at that address does not answer. Empty: whoever is there.
    pub node: &'a str,
    /// Who asks, and where it would like its answer.
    pub source: Option<PingSource<'a>>,
    /// Whether the sender reads the native format: said in Go's format only, by the nodes of a mixed
    /// cluster.
    pub native: bool,
}

/// The sender of a ping, by its own words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PingSource<'a> {
    /// Its name; may be empty on the hashicorp wire.
    pub node: &'a str,
    /// Its advertised address.
    pub addr: SocketAddr,
}

/// Asks a relay to ping `target` on behalf of the sender (SWIM §3.1, ping-req).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IndirectPing<'a> {
    /// Chosen by the sender; the relayed ack or nack repeats it.
    pub sequence: u32,
    /// The name of the node to ping.
    pub node: &'a str,
    /// Its address.
    pub target: SocketAddr,
    /// Whether a [`Nack`] is wanted when the target does not answer in time.
    pub nack: bool,
    /// Who asks.
    pub source: Option<PingSource<'a>>,
}

/// Says "here", to the ping with that sequence number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ack<'a> {
    /// The sequence number of the ping.
    pub sequence: u32,
    /// Bytes of the answering application.
    pub payload: &'a [u8],
    /// As in [`Ping::native`].
    pub native: bool,
}

/// Says "I asked, and heard nothing so far".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Nack {
    /// The sequence number of the indirect ping.
    pub sequence: u32,
}

/// Raises or confirms a suspicion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Suspect<'a> {
    /// The incarnation that is suspected.
    pub incarnation: u32,
    /// Who is suspected.
    pub node: &'a str,
    /// Who suspects; independent suspicions shorten the timeout.
    pub from: &'a str,
}

/// Announces a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Alive<'a> {
    /// The node's incarnation; only the node itself raises it.
    pub incarnation: u32,
    /// Its name.
    pub node: &'a str,
    /// Its address.
    pub addr: SocketAddr,
    /// See [`Node::wide_ipv4`](crate::Node::wide_ipv4).
    pub wide_ipv4: bool,
    /// Its meta.
    pub meta: &'a [u8],
    /// Its versions.
    pub versions: Versions,
}

/// Declares a node dead; from the node itself, that it leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Dead<'a> {
    /// The incarnation that is declared dead.
    pub incarnation: u32,
    /// Who is dead.
    pub node: &'a str,
    /// Who says so.
    pub from: &'a str,
}

/// Bytes of one member's application for those of all members, passed on from member to member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Broadcast<'a> {
    /// The member that made it.
    pub origin: &'a str,
    /// Which run of that member's process: chosen at random when it starts.
    pub epoch: u32,
    /// Its number within that run, counting from 1.
    pub sequence: u64,
    /// How often it has been passed on.
    pub hops: u8,
    /// 0 high, 1 normal, 2 low.
    pub priority: u8,
    /// The bytes.
    pub payload: &'a [u8],
}

/// The digest of the members that the sender believes alive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct View<'a> {
    /// See `docs/WIRE.md` for how it is made.
    pub digest: u64,
    /// Who sends it. Empty beside a ping or ack, which tell that.
    pub node: &'a str,
    /// Whether the receiver is to answer with its own.
    pub ask: bool,
}

/// One node as a push/pull carries it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RemoteNode<'a> {
    /// The announcement of the node.
    pub alive: Alive<'a>,
    /// What the sender believes of it.
    pub state: NodeState,
}

impl Message<'_> {
    /// The message's name, as used for metrics and logs.
    pub fn kind(&self) -> MessageKind {
        match self {
            Self::Ping(_) => MessageKind::Ping,
            Self::IndirectPing(_) => MessageKind::IndirectPing,
            Self::Ack(_) => MessageKind::Ack,
            Self::Nack(_) => MessageKind::Nack,
            Self::Suspect(_) => MessageKind::Suspect,
            Self::Alive(_) => MessageKind::Alive,
            Self::Dead(_) => MessageKind::Dead,
            Self::User(_) => MessageKind::User,
            Self::Broadcast(_) => MessageKind::Broadcast,
            Self::View(_) => MessageKind::View,
            Self::Sync(_) => MessageKind::Sync,
        }
    }
}

/// The kinds of [`Message`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each variant is documented on `Message`")]
pub enum MessageKind {
    Ping,
    IndirectPing,
    Ack,
    Nack,
    Suspect,
    Alive,
    Dead,
    User,
    Broadcast,
    View,
    Sync,
}

impl MessageKind {
    /// All kinds, in the order of their discriminants.
    pub const ALL: [Self; 11] = [
        Self::Ping,
        Self::IndirectPing,
        Self::Ack,
        Self::Nack,
        Self::Suspect,
        Self::Alive,
        Self::Dead,
        Self::User,
        Self::Broadcast,
        Self::View,
        Self::Sync,
    ];

    /// A short name for metrics and logs, such as `indirect_ping`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::IndirectPing => "indirect_ping",
            Self::Ack => "ack",
            Self::Nack => "nack",
            Self::Suspect => "suspect",
            Self::Alive => "alive",
            Self::Dead => "dead",
            Self::User => "user",
            Self::Broadcast => "broadcast",
            Self::View => "view",
            Self::Sync => "sync",
        }
    }
}
