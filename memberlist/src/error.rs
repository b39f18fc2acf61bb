//! Errors of the handle, one type an operation.

use std::net::SocketAddr;
use std::time::Duration;

use memberlist_protocol::{BroadcastError, ExchangeError, MetaError, NameError};

use crate::address::AddressError;

/// The node was shut down. Start a new one to go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("this node was shut down; start a new one")]
pub struct Closed;

/// Why a node could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// [`Config::name`](crate::Config::name) cannot be used.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The settings, the meta or the address of the transport cannot be used.
    #[error(transparent)]
    Protocol(#[from] memberlist_protocol::StartError),
    /// This node's announcement would fit no packet, so that it could not contradict its own death:
    /// the longest meta, its name, 128 bytes for the rest, and what goes around a packet. Keys count
    /// even while nothing is encrypted.
    #[error(
        "this node's announcement can take {} bytes, over a packet's {max_packet_bytes} \
         (`protocol.max_packet_bytes`, or the transport's limit): {max_meta_bytes} of meta \
         (`protocol.max_meta_bytes`), {name} of `name`, {rest} for the rest, {label} of `label`, \
         {sealing} of `encryption`",
        max_meta_bytes.saturating_add(name + rest + label + sealing)
    )]
    Announcement {
        /// The limit of a packet, in bytes.
        max_packet_bytes: usize,
        /// The longest meta, in bytes.
        max_meta_bytes: usize,
        /// The length of the name, in bytes.
        name: usize,
        /// What the rest of an announcement may need, in bytes.
        rest: usize,
        /// The label with its header, in bytes.
        label: usize,
        /// What sealing adds, in bytes; 0 without keys.
        sealing: usize,
    },
    /// Two settings with which no two nodes could ever talk.
    #[error("{0}")]
    Contradiction(&'static str),
    /// [`Config::label`](crate::Config::label) is too long.
    #[error(transparent)]
    Label(#[from] memberlist_security::LabelTooLong),
    /// The transport's packets are too small.
    #[error("the transport's packets are too small: {limit} bytes; at least {least} are needed")]
    TransportPackets {
        /// The transport's limit in bytes.
        limit: usize,
        /// What is needed, in bytes.
        least: usize,
    },
    /// The transport proves another name to peers than this node's: with a certificate to which names
    /// are bound.
    #[error("this node is called {name}, and its certificate is {certified}'s")]
    CertifiedName {
        /// This node's name.
        name: memberlist_protocol::NodeId,
        /// The name in the certificate.
        certified: String,
    },
    /// The system gave no randomness.
    #[error("no randomness from the system: {0}")]
    Randomness(String),
}

/// Why a join failed altogether.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The list of seeds is empty.
    #[error("no seed was given; a join needs the address of at least one running member")]
    NoSeeds,
    /// None of the seeds could be joined; each says why.
    #[error("no seed could be joined: {}", describe(.0))]
    NoneReached(Vec<SeedResult>),
    /// The node was shut down.
    #[error(transparent)]
    Closed(#[from] Closed),
}

/// What came of one seed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SeedResult {
    /// The seed as it was given.
    pub seed: String,
    /// What came of each of its addresses.
    pub attempts: Vec<Attempt>,
    /// Why it has no addresses.
    pub error: Option<SeedError>,
}

impl SeedResult {
    /// Whether a cluster was joined through this seed.
    pub fn is_joined(&self) -> bool {
        self.attempts.iter().any(|attempt| attempt.result.is_ok())
    }
}

/// What came of one address of a seed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Attempt {
    /// The address.
    pub addr: SocketAddr,
    /// The number of records that the peer sent, or why there were none.
    pub result: Result<usize, ExchangeError>,
}

/// Why a seed has no addresses.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SeedError {
    /// It is not an address.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The name before the `/` cannot be a node's.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Its name could not be resolved.
    #[error("{host} could not be resolved: {message}")]
    Resolve {
        /// The host name.
        host: String,
        /// What the system said.
        message: String,
    },
}

fn describe(results: &[SeedResult]) -> String {
    let mut lines = Vec::new();
    for result in results {
        lines.extend(result.error.as_ref().map(|error| format!("{}: {error}", result.seed)));
        lines.extend(result.attempts.iter().filter_map(|attempt| match &attempt.result {
            Ok(_) => None,
            // It begins with the address.
            Err(error) => Some(error.to_string()),
        }));
    }
    lines.join("; ")
}

/// Why a farewell was not confirmed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LeaveError {
    /// The farewell was not sent as often as it should be in time. The node has left all the same,
    /// and goes on telling until it is shut down.
    #[error("the farewell was not fully sent within {0:?}; some members may see a failure instead")]
    Timeout(Duration),
    /// The node was shut down.
    #[error(transparent)]
    Closed(#[from] Closed),
}

/// Why the own meta was not changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpdateError {
    /// It is too long.
    #[error(transparent)]
    Meta(#[from] MetaError),
    /// The node was shut down.
    #[error(transparent)]
    Closed(#[from] Closed),
}

/// Why settings were not changed while the node runs.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReconfigureError {
    /// They cannot be used, or need a restart.
    #[error(transparent)]
    Settings(#[from] memberlist_protocol::ReconfigureError),
    /// The node was shut down.
    #[error(transparent)]
    Closed(#[from] Closed),
}

/// Why a ping has no result.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PingError {
    /// There is no live member of that name.
    #[error("{0:?} is not a live member")]
    NotAMember(String),
    /// It did not answer.
    #[error("no answer from {name} ({addr}) within {timeout:?}")]
    NoAnswer {
        /// The member.
        name: String,
        /// Its address.
        addr: SocketAddr,
        /// The time that it was given.
        timeout: Duration,
    },
    /// The node was shut down.
    #[error(transparent)]
    Closed(#[from] Closed),
}

/// Why a message was not sent.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// There is no live member of that name.
    #[error("{0:?} is not a live member")]
    NotAMember(String),
    /// It does not fit.
    #[error(transparent)]
    Broadcast(#[from] BroadcastError),
    /// The address is none that anybody can have: port 0, or an unspecified IP address.
    #[error("nobody can be reached at {0}")]
    NoAddress(SocketAddr),
    /// It is longer than a stream message may be.
    #[error("{len} bytes are over the limit of {limit} for a reliable message")]
    TooLarge {
        /// Its length in bytes.
        len: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The stream failed; the member may or may not have the message.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// The node was shut down.
    #[error(transparent)]
    Closed(#[from] Closed),
}
