//! Why a transport could not be made.

use std::io;
use std::net::SocketAddr;

/// Why [`NetTransport::bind`](crate::NetTransport::bind) failed. Nothing stays open after it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The caller gave no address to bind.
    #[error("no address to bind was given")]
    NoBindAddress,
    /// The caller's packet limit is out of range.
    #[error("max_packet_bytes is {got}, allowed is {min} to {max}")]
    MaxPacketBytes {
        /// What was given.
        got: usize,
        /// The least that is allowed.
        min: usize,
        /// The most that is allowed.
        max: usize,
    },
    /// The caller's limit of inbound streams is 0, which would refuse every push/pull.
    #[error("max_inbound_streams is 0, which would refuse every stream")]
    NoInboundStreams,
    /// The caller's timeout is zero, so that every stream would fail at once.
    #[error("{name} is zero, so that every stream would fail at once")]
    ZeroTimeout {
        /// The field of [`NetConfig`](crate::NetConfig).
        name: &'static str,
    },
    /// The address that the caller wants to advertise names no single node, like `0.0.0.0`.
    #[error("{addr} cannot be advertised: it names no single node")]
    UnusableAdvertiseAddr {
        /// What was given.
        addr: SocketAddr,
    },
    /// Called from outside a tokio runtime.
    #[error("no tokio runtime here; bind from within one that has I/O and time enabled")]
    NoRuntime,
    /// The system refused a socket.
    #[error("could not bind {protocol} {addr}: {source}")]
    Socket {
        /// `"udp"` or `"tcp"`.
        protocol: &'static str,
        /// The address that was to be bound.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Port 0 was asked for, and several ports in a row were free for one protocol or address but
    /// taken for another.
    #[error("found no port that is free for all of UDP and TCP in {attempts} attempts: {last}")]
    NoCommonPort {
        /// How many ports were tried.
        attempts: u32,
        /// What the last one failed with.
        last: Box<BindError>,
    },
    /// A wildcard address is bound and the system did not tell its interfaces, so that an address to
    /// advertise cannot be chosen.
    #[error("could not list the interfaces; set an address to advertise instead: {0}")]
    Interfaces(#[source] io::Error),
}
