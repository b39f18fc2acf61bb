//! QUIC for packets and streams, on one UDP port: the transport of memberlist in which nothing
//! leaves in the clear and every peer has shown a certificate.
//!
//! ```no_run
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! use memberlist_transport_quic::{QuicConfig, QuicTransport, TlsConfig};
//!
//! let tls = TlsConfig::from_pem_files("node.pem", "node.key", "ca.pem")?;
//! let transport = QuicTransport::bind(QuicConfig::new("0.0.0.0:7946".parse()?, tls))?;
//! # Ok(()) }
//! ```
//!
//! - Packets are QUIC datagrams (RFC 9221), which are lost like UDP's. One that does not fit the path
//!   any more takes a unidirectional stream of its own.
//! - Streams are bidirectional QUIC streams.
//! - Two nodes share one connection, whoever dialled it; see [`QuicTransport`].
//! - [`TlsConfig`] says who may take part, and [`QuicTransport::reload`] changes that under traffic.

mod accept;
mod close;
mod config;
mod connection;
mod dial;
mod endpoint;
mod error;
#[cfg(feature = "metrics")]
mod metrics;
mod packets;
mod pool;
mod retire;
mod send;
mod socket;
mod stats;
mod stream;
mod tls;
mod transport;

pub use config::QuicConfig;
pub use error::BindError;
pub use stats::{ConnectionStats, QuicStats};
pub use stream::{BiStream, QuicStream};
#[cfg(feature = "dev-certs")]
pub use tls::{ClusterCa, NodeCertificate};
pub use tls::{TlsConfig, TlsError};
pub use transport::QuicTransport;
