//! UDP for packets and TCP for streams, both on one port: the plain transport of memberlist, as Go
//! memberlist's `NetTransport`.
//!
//! ```no_run
//! # async fn run() -> Result<(), memberlist_transport_net::BindError> {
//! use memberlist_transport_net::{NetConfig, NetTransport};
//!
//! let mut config = NetConfig::new("0.0.0.0:7946".parse().unwrap());
//! config.allowed = Some(vec!["10.0.0.0/8".parse().unwrap()]);
//! let transport = NetTransport::bind(config)?;
//! # Ok(()) }
//! ```
//!
//! Nothing is encrypted or authenticated here: a source address is what the packet's header says.
//! The allow-list ([`NetConfig::allowed`]) keeps accidents out, not attackers who forge addresses.

mod config;
mod error;
mod sockets;
mod stats;
mod tcp;
mod transport;
mod udp;

pub use ipnet::IpNet;

pub use config::NetConfig;
pub use error::BindError;
pub use stats::NetStats;
pub use transport::{NetStream, NetTransport};
