//! The [`Transport`] trait.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Duration;

use ecow::EcoString;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{OpenError, RecvError, SendError};

/// Whom a packet or stream is for.
///
/// `name` is the member's name where the caller knows it. A transport that authenticates peers
/// (TLS) uses it to choose the server name and to check the certificate; others ignore it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Destination {
    /// The peer's advertised address.
    pub addr: SocketAddr,
    /// The member's name, if known. Cheap to clone.
    pub name: Option<EcoString>,
}

impl From<SocketAddr> for Destination {
    fn from(addr: SocketAddr) -> Self {
        Self { addr, name: None }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name}/{}", self.addr),
            None => write!(f, "{}", self.addr),
        }
    }
}

/// Where a packet or stream came from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    /// The sender's address as the transport sees it. For packets an answer sent there reaches
    /// the sender; for streams it may be a passing (ephemeral) port.
    pub addr: SocketAddr,
    /// The name the transport has *verified* (for example from a certificate), or `None` if it
    /// verifies none. Never a name that the peer merely claims.
    pub authenticated_name: Option<EcoString>,
}

impl From<SocketAddr> for Source {
    fn from(addr: SocketAddr) -> Self {
        Self { addr, authenticated_name: None }
    }
}

/// A way to move packets and streams between nodes.
///
/// # Contract
///
/// **Packets** are datagrams: they may be lost, repeated or reordered, silently, but what arrives
/// is one whole packet as it was sent, never a part and never two joined. A packet of zero bytes
/// is never delivered. Packets between two nodes do not wait for a stream in progress.
///
/// **Streams** are bidirectional byte pipes with TCP's semantics: in order, without loss, each
/// direction closed by `shutdown` on its own; after the peer's `shutdown` a read gives 0 bytes.
/// Dropping a stream without `shutdown` may discard what has not been read yet; the peer's reads
/// and writes end, with or without an error. The dialler speaks first: the acceptor may learn of a
/// stream only by its first byte or its end.
/// There is no ordering between packets and streams, nor between streams.
///
/// **Limits.** [`max_packet_bytes`](Self::max_packet_bytes) is a promise: a packet of that size or
/// less is not refused with [`SendError::TooLarge`]. An implementation bounds its own queues, and
/// drops *packets* (not streams) when one is full.
///
/// **Cancel safety.** Every future may be dropped before it is ready: no packet and no inbound
/// stream is lost by it that would have been delivered to a later call, and a dial that was given
/// up leaves nothing open.
///
/// **Concurrency.** All methods may be called at the same time, except that
/// [`poll_recv_packet`](Self::poll_recv_packet) and [`accept_stream`](Self::accept_stream) each
/// have one caller: only the last waker is kept.
///
/// **Close.** [`close`](Self::close) ends the transport: when it returns, the local ports are free,
/// nothing more is received or sent, and waiting calls have ended with `Closed`. It may be called
/// more than once. Streams already handed out are the caller's and need not be closed by it.
///
/// **Addresses** are canonical: an IPv4 address never appears as an IPv4-mapped IPv6 one.
///
/// The suite in [`conformance`](crate::conformance) checks what can be checked of this.
pub trait Transport: Send + Sync + 'static {
    /// A reliable byte pipe to a peer.
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// The address that other nodes should use to reach this one: both packets and streams.
    fn advertise_addr(&self) -> SocketAddr;

    /// Sends one packet. Ready when the packet has been handed to the network; that says nothing of
    /// its arrival. An implementation does not wait for long here: a full buffer drops the packet
    /// rather than holding the caller for more than a moment. A node that has waited for as long as
    /// it can drops the future, and the packet with it.
    ///
    /// # Errors
    /// [`SendError::TooLarge`] if over the limit for this peer, [`SendError::Io`] if the system
    /// refused it, [`SendError::Closed`] after [`close`](Self::close).
    fn send_packet(
        &self,
        to: &Destination,
        packet: &[u8],
    ) -> impl Future<Output = Result<(), SendError>> + Send;

    /// Receives one packet into the caller's buffer and gives its length and source.
    ///
    /// The buffer is only used during the call, so many nodes can share one (a thread-local, say).
    /// Give it at least 65,536 bytes: a packet that does not fit is dropped.
    ///
    /// # Errors
    /// [`RecvError::Closed`] for ever after [`close`](Self::close); [`RecvError::Io`] for what
    /// passes.
    fn poll_recv_packet(
        &self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<Result<(usize, Source), RecvError>>;

    /// Opens a stream to a peer within `timeout`.
    ///
    /// # Errors
    /// [`OpenError::Timeout`] if it took longer, [`OpenError::Io`] if it was refused,
    /// [`OpenError::Closed`] after [`close`](Self::close).
    fn open_stream(
        &self,
        to: &Destination,
        timeout: Duration,
    ) -> impl Future<Output = Result<Self::Stream, OpenError>> + Send;

    /// Waits for a stream that a peer opened.
    ///
    /// # Errors
    /// [`RecvError::Closed`] for ever after [`close`](Self::close); [`RecvError::Io`] for what
    /// passes.
    fn accept_stream(
        &self,
    ) -> impl Future<Output = Result<(Self::Stream, Source), RecvError>> + Send;

    /// The largest packet in bytes that can be sent to this peer now. It may change over time.
    fn max_packet_bytes(&self, to: &Destination) -> usize;

    /// A size in bytes that [`max_packet_bytes`](Self::max_packet_bytes) is never below, to whichever
    /// peer: what is to reach all must fit it. Constant. The default takes the limit to this node
    /// itself, which suits transports with one limit for all.
    fn assured_packet_bytes(&self) -> usize {
        self.max_packet_bytes(&self.advertise_addr().into())
    }

    /// The round-trip time to this peer, where the transport measures one.
    fn rtt(&self, to: &Destination) -> Option<Duration> {
        let _ = to;
        None
    }

    /// Whether everything that leaves is already encrypted by the transport itself.
    fn is_encrypted(&self) -> bool {
        false
    }

    /// The name under which peers know this node's transport to speak, where it proves one: what they
    /// see as [`Source::authenticated_name`]. A node of another name is not believed anything there.
    fn own_name(&self) -> Option<EcoString> {
        None
    }

    /// Ends the transport; see the contract.
    fn close(&self) -> impl Future<Output = ()> + Send;
}
