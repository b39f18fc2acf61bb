//! Tests that need more than one crate of this workspace, and what they share.
//!
//! - `tests/vectors.rs` runs the machine against what Go memberlist was seen to do; the captured
//!   cases are in `vectors/hashicorp/`, and every file that is put there is run.
//! - `tests/agent.rs` drives `examples/agent.rs`, the real program, over loopback.
//! - `tests/interop.rs` runs HashiCorp's Go memberlist itself, by the program in `go-peer/`; it needs
//!   Go, and is run by `-- --ignored`.
//! - `tests/cluster.rs` runs whole clusters: the [`scenarios`], over every [`TestTransport`].
//! - `tests/hostile.rs` attacks a node with what a network can hold.
//! - `tests/packet_limits.rs` gives it one that carries little.
//! - `tests/faulty.rs` gives a node a transport that does not work.
//! - `tests/seeds.rs` lets nodes find their cluster, by a name server of its own.
//! - `tests/logging.rs` reads what nodes write into the log, `tests/explain.rs` what they say of each other.
//! - `tests/metrics.rs` reads what nodes write into a recorder.
//! - `tests/allocations.rs` counts what a packet costs in allocations.
//! - `tests/stress.rs` is a minute of churn.
//!
//! A scenario is written once, for any transport: it gets its nodes from a [`Cluster`], waits on
//! conditions with [`until`] and [`agree`], and never on time alone. A new transport implements
//! [`TestTransport`] and gets all of them with one line of [`instantiate!`].

pub mod attack;
pub mod cluster;
pub mod events;
pub mod filter;
mod instantiate;
pub mod keys;
pub mod lossy;
pub mod scenarios;
pub mod speaking;
pub mod transports;
pub mod wait;

pub use cluster::{Cluster, TestNode, quick};
pub use events::EventLog;
pub use filter::{FilterTransport, Rules, Traffic};
pub use transports::TestTransport;
pub use wait::{PATIENCE, agree, until, within};

/// The programs in the README compile, and run where that needs no files. Here, since they need both
/// transports.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
