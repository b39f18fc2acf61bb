//! The seam between memberlist and the network.
//!
//! A [`Transport`] moves two things: *packets*, which may be lost, duplicated or reordered, and
//! *streams*, which are reliable byte pipes. It knows nothing of the protocol that runs over it.
//!
//! - [`Transport`] is the trait, and its documentation is the contract an implementation signs.
//! - [`memory`] is a network inside the process, with delay, loss and partitions, for tests.
//! - [`ip`], [`TimedStream`] and [`counters!`] are what transports over IP sockets share.
//! - [`conformance`] checks the contract against any implementation.

mod addr;
pub mod conformance;
mod counters;
mod error;
pub mod ip;
pub mod memory;
mod timed_stream;
mod transport;

/// Text that is cheap to clone, as a node's name is.
pub use ecow::EcoString;

pub use addr::canonical_addr;
pub use counters::Counter;
pub use error::{OpenError, RecvError, SendError};
pub use timed_stream::{StreamTimeouts, TimedStream};
pub use transport::{Destination, Source, Transport};
