//! The user's manual, a page a module.
//!
//! | page | what it answers |
//! |---|---|
//! | [`concepts`] | What are members, states, probes, suspicion, gossip, digests and the health score? With pictures. |
//! | [`first_cluster`] | How do I get from an empty project to three nodes that talk? |
//! | [`transports`] | UDP and TCP, or QUIC? Which addresses and ports must be open? |
//! | [`security`] | What is protected against whom, and what is not? |
//! | [`rotation`] | How are keys and certificates replaced while everything runs? |
//! | [`tuning`] | What does each setting do, and what do others set it to? |
//! | [`dissemination`] | What do eager gossip, digests and delta sync cost, and how are they turned off? |
//! | [`go_interop`] | How does a node live among nodes of Go memberlist and Serf, and replace them? |
//! | [`from_go`] | What is what, coming from Go memberlist? |
//! | [`from_other_crates`] | What is what, coming from another Rust crate? |
//! | [`writing_a_transport`] | How do I carry the bytes over something else? |
//! | [`operating`] | Settings from a file, metrics, alerts, the log: is it well, and why is it not? |
//! | [`testing`] | How do I test my application with clusters in one process? |
//!
//! Every Rust snippet is compiled, and run where it needs no network beyond loopback. The reference is at
//! the items themselves; all limits, and all departures from Go memberlist, are tables of
//! `docs/ARCHITECTURE.md` in the repository.

#[doc = include_str!("concepts.md")]
pub mod concepts {}

#[doc = include_str!("first_cluster.md")]
pub mod first_cluster {}

#[doc = include_str!("transports.md")]
pub mod transports {}

#[doc = include_str!("security.md")]
pub mod security {}

#[doc = include_str!("rotation.md")]
pub mod rotation {}

#[doc = include_str!("tuning.md")]
pub mod tuning {}

#[doc = include_str!("dissemination.md")]
pub mod dissemination {}

#[doc = include_str!("go_interop.md")]
pub mod go_interop {}

#[doc = include_str!("from_go.md")]
pub mod from_go {}

#[doc = include_str!("from_other_crates.md")]
pub mod from_other_crates {}

#[doc = include_str!("writing_a_transport.md")]
pub mod writing_a_transport {}

#[doc = include_str!("operating.md")]
pub mod operating {}

#[doc = include_str!("testing.md")]
pub mod testing {}

#[cfg(test)]
mod tests;
