//! SWIM with the Lifeguard extensions, as a state machine.
//!
//! This crate decides who is alive. It has no sockets, no clock, no threads and no global
//! randomness: [`Membership`] takes packets, stream contents and the time, and gives packets, stream
//! requests, events and the time of its next wake-up. That makes a run replayable from a seed, and
//! a thousand nodes simulable in one thread.
//!
//! Most users want the `memberlist` crate, which drives this machine over a transport.
//!
//! - [`Membership`]: the machine, with the order of calls.
//! - [`Config`]: every knob, with presets.
//! - [`message`]: what nodes say; [`wire`]: in which bytes.
//! - [`Stats`]: what was counted, every drop with its [reason](DropReason).
//!
//! # What is believed
//!
//! A peer that can send packets at all is trusted, as in every SWIM: it may speak about any member.
//! What one hostile or broken packet can do is bounded (see [`MAX_INCARNATION_JUMP`]), and a living
//! member can contradict every claim about itself. What remains: a peer that goes on claiming
//! incarnations, 2^20 in ten minutes, can after two weeks bring a member to a point from which it
//! cannot refute; one that claims a farewell *and* a newer life elsewhere takes a name over. Keep
//! strangers out with encryption.

mod config;
mod error;
#[cfg(feature = "serde")]
#[doc(hidden)]
pub mod human;
pub mod membership;
pub mod message;
mod node;
mod stats;
pub mod wire;

/// Text that is cheap to clone, as names are.
pub use ecow::EcoString;

pub use config::{ALIVE_FIXED_BYTES, Config, Lifeguard};
pub use error::{
    BroadcastError, ConfigError, ConfigFault, ExchangeError, MetaError, NameError,
    ReconfigureError, Refusal, StartError,
};
pub use membership::{
    Application, Death, Encoded, Event, Explanation, FailedProbe, Finding, Gauges, Health,
    HealthCause, HealthChange, Invalidates, MAX_INCARNATION, MAX_INCARNATION_JUMP, Member,
    Membership, OperationId, Pending, Priority, ProbeOutcome, ProbeRecord, QueueGauge, Relation,
    RelayOutcome, SYNC_TOPIC, Shown, Stall, StreamOutcome, StreamRecord, StreamRequest,
    StreamRequestKind, StreamResponse, SuspicionStatus, SuspicionSummary, Tombstone, Transmit,
};
pub use message::MessageKind;
pub use node::{
    MAX_NAME_BYTES, Node, NodeId, NodeState, PROTOCOL_VERSION_MAX, PROTOCOL_VERSION_MIN, Peer,
    Versions, canonical,
};
pub use stats::{DropReason, PacketKind, Packets, Stats};
pub use wire::{Dialect, WireFormat};
