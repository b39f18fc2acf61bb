//! Cluster membership and failure detection: who is alive?
//!
//! Nodes gossip over a [`Transport`] (SWIM with the Lifeguard extensions, as HashiCorp's Go
//! `memberlist` does): every member learns of every other, of their arrivals, departures, failures
//! and of the application's own broadcasts, without a central server.
//!
//! ```
//! use memberlist::{Config, Memberlist, net::NetTransport};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let seed = Memberlist::start(NetTransport::bind_addr("127.0.0.1:0".parse()?)?, Config::lan("a")).await?;
//! let node = Memberlist::start(NetTransport::bind_addr("127.0.0.1:0".parse()?)?, Config::lan("b")).await?;
//! node.join([seed.addr().to_string()]).await?;
//! for member in node.members() {
//!     println!("{} at {} is {}", member.id(), member.addr(), member.state);
//! }
//! # assert_eq!(node.member_count(), 2);
//! # seed.shutdown().await;
//! # node.shutdown().await;
//! # Ok(()) }
//! ```
//!
//! The manual is [`guide`]: concepts with pictures, a first cluster, security, tuning, and the way over from
//! Go memberlist and other crates. The way into the reference:
//!
//! - [`Memberlist`]: the handle: join, leave, read, send, broadcast, subscribe.
//! - [`Config`]: settings with presets for LAN, WAN and one machine.
//! - [`Delegate`]: what the application may decide, provide and observe.
//! - [`Event`] and [`Subscription`]: what happens.
//! - [`WireFormat`]: in which bytes: this library's own, or HashiCorp's among nodes of Go memberlist.
//! - [`Transport`]: what carries the bytes; [`net`] is UDP and TCP, [`memory`] is for tests.

mod accept;
pub mod address;
mod bootstrap;
mod builder;
mod check;
mod command;
mod config;
mod delegate;
#[cfg(feature = "dns")]
mod dns;
mod driver;
mod error;
mod events;
#[cfg(any(doc, doctest, test))]
pub mod guide;
mod handle;
#[cfg(feature = "serde")]
mod human;
#[cfg(feature = "encryption")]
mod keys;
mod layers;
mod limit;
mod lines;
mod messages;
mod meter;
#[cfg(feature = "metrics")]
pub mod metrics;
mod observe;
mod resolve;
mod shared;
mod streams;
#[doc(hidden)]
pub mod testing;
mod turns;
mod user_state;
mod view;

pub use builder::Builder;
pub use bytes::Bytes;
#[cfg(feature = "encryption")]
pub use config::Encryption;
pub use config::{Config, InboundLabel};
pub use delegate::{Delegate, UserMessage};
#[cfg(feature = "dns")]
pub use dns::Dns;
pub use error::{
    Attempt, Closed, JoinError, LeaveError, PingError, ReconfigureError, SeedError, SeedResult,
    SendError, StartError, UpdateError,
};
pub use events::{Event, Subscription};
pub use handle::Memberlist;
#[cfg(feature = "encryption")]
pub use keys::{HeldKey, KeyAnswer, KeyFailure, KeyReport, KeyUse, Keys, KeysError};
pub use layers::LayerError;
pub use memberlist_protocol as protocol;
pub use memberlist_protocol::{
    BroadcastError, Death, EcoString, ExchangeError, Explanation, Finding, Health, Member, Node,
    NodeId, NodeState, Peer, Priority, Refusal, Relation, Stats, Tombstone, WireFormat,
    wire::stream::RemoteRecord,
};
pub use memberlist_security as security;
pub use memberlist_transport::{self as transport, Transport, memory};
pub use messages::Messages;

/// UDP and TCP on one port.
#[cfg(feature = "net")]
pub use memberlist_transport_net as net;

/// QUIC datagrams and streams on one port, with mutual TLS.
#[cfg(feature = "quic")]
pub use memberlist_transport_quic as quic;
