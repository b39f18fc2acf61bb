//! What can go wrong at the seam, split by operation.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// Why a packet was not sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The packet is larger than [`Transport::max_packet_bytes`](crate::Transport::max_packet_bytes)
    /// allows for this peer. Nothing was sent.
    #[error("packet of {len} bytes to {to} is over the transport's limit of {limit} bytes")]
    TooLarge {
        /// Where it was to go.
        to: SocketAddr,
        /// The packet's length in bytes.
        len: usize,
        /// The limit in bytes that was in force.
        limit: usize,
    },
    /// The operating system or the connection refused the packet, for example "network
    /// unreachable". The failure detector counts this against the peer's reachability.
    #[error("could not send a packet to {to}: {source}")]
    Io {
        /// Where it was to go.
        to: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The transport was closed.
    #[error("the transport is closed")]
    Closed,
}

/// Why no more packets or streams can be received.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecvError {
    /// The transport was closed; every later call says the same.
    #[error("the transport is closed")]
    Closed,
    /// Something passing went wrong (for example no file descriptors left while accepting).
    /// Calling again is allowed and may work.
    #[error("receive failed: {0}")]
    Io(#[from] io::Error),
}

/// Why a stream was not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Nobody answered within the time given.
    #[error("no stream to {to} within {timeout:?}")]
    Timeout {
        /// Who was dialled.
        to: SocketAddr,
        /// The time that was given.
        timeout: Duration,
    },
    /// The peer or the system refused the stream.
    #[error("could not open a stream to {to}: {source}")]
    Io {
        /// Who was dialled.
        to: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The transport was closed.
    #[error("the transport is closed")]
    Closed,
}
