//! Errors, one type an operation, split by who is to blame.

use std::fmt;
use std::time::Duration;

use crate::node::{MAX_NAME_BYTES, Peer};
use crate::stats::DropReason;

/// A name that cannot be a node's. Blame: the caller, or the peer that sent it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// Names have at least one byte.
    #[error("a node name must not be empty")]
    Empty,
    /// Names have at most [`MAX_NAME_BYTES`] bytes.
    #[error("a node name has at most {MAX_NAME_BYTES} bytes, not {len}")]
    TooLong {
        /// The length in bytes.
        len: usize,
    },
}

/// One setting that cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConfigFault {
    /// The field of [`Config`](crate::Config).
    pub field: &'static str,
    /// What it must satisfy.
    pub rule: &'static str,
}

/// Settings that cannot be used. Blame: the caller.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigError {
    /// All of them.
    pub faults: Vec<ConfigFault>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("invalid configuration: ")?;
        for (i, fault) in self.faults.iter().enumerate() {
            let separator = if i == 0 { "" } else { "; " };
            write!(f, "{separator}`{}` {}", fault.field, fault.rule)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// Settings that a running node does not take. Blame: the caller.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReconfigureError {
    /// They cannot be used at all.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// Some cannot change while the node runs.
    #[error("these settings need a restart: {}", fields.join(", "))]
    Fixed {
        /// All that differ.
        fields: Vec<&'static str>,
    },
}

/// Own meta that is too long. Blame: the caller.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "meta of {len} bytes is over the limit of {limit} (`max_meta_bytes`, or what fits a packet)"
)]
pub struct MetaError {
    /// Its length in bytes.
    pub len: usize,
    /// The limit in bytes.
    pub limit: usize,
}

/// Why a node could not be made.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The settings cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The meta is too long.
    #[error(transparent)]
    Meta(#[from] MetaError),
    /// The advertised address has no IP or no port.
    #[error("cannot advertise {0}: other nodes need an IP address and a port")]
    Address(std::net::SocketAddr),
}

/// Why a user message or broadcast was not queued. Blame: the caller.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BroadcastError {
    /// It would never fit a packet.
    #[error(
        "{len} bytes do not fit a packet, which has room for {limit}; send it as a reliable message"
    )]
    TooLarge {
        /// Its length in bytes.
        len: usize,
        /// The largest that fits, in bytes.
        limit: usize,
    },
    /// The queue of user broadcasts is switched off.
    #[error("user broadcasts are switched off (`max_user_broadcasts` is 0)")]
    Disabled,
    /// This node has left the cluster.
    #[error("this node has left the cluster; join again first")]
    Left,
}

/// A refusal by the [`Application`](crate::Application), with its reason.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

/// Why an exchange with a peer over a stream failed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExchangeError {
    /// Local I/O, or the peer refused the connection.
    #[error("{peer}: {message}")]
    Io {
        /// With whom.
        peer: Peer,
        /// What the system said.
        message: String,
        /// Whether it was the peer's host that refused the connection.
        refused: bool,
    },
    /// The peer did not answer in time.
    #[error("{peer} did not answer within {timeout:?}")]
    Timeout {
        /// With whom.
        peer: Peer,
        /// The time it was given.
        timeout: Duration,
    },
    /// The peer sent what cannot be understood.
    #[error("{peer} sent a bad answer: {message}")]
    BadAnswer {
        /// With whom.
        peer: Peer,
        /// What was wrong.
        message: String,
    },
    /// The peer's label, keys or encryption are not this node's.
    #[error("{peer} is not to be understood: {message}")]
    Layer {
        /// With whom.
        peer: Peer,
        /// Which: a reason about labels, keys or encryption.
        reason: DropReason,
        /// What to check.
        message: String,
    },
    /// The peer said no.
    #[error("{peer} refused: {message}")]
    Refused {
        /// With whom.
        peer: Peer,
        /// In its words.
        message: String,
    },
    /// The two clusters speak versions that do not go together.
    #[error("{peer} is incompatible: {message}")]
    Incompatible {
        /// With whom.
        peer: Peer,
        /// Which node and version.
        message: String,
    },
    /// The own application refused to merge.
    #[error("merge with {peer} refused here: {message}")]
    MergeRefused {
        /// With whom.
        peer: Peer,
        /// In its words.
        message: String,
    },
    /// The peer had no place for the question, as often as it was asked.
    #[error(
        "{peer} is busy, and so were those that it named: asked {attempts} times in all, told to come \
         back in {} ms", retry_after.as_millis()
    )]
    Busy {
        /// Whom. Of a join its seed, whoever else was asked meanwhile.
        peer: Peer,
        /// How often this node has asked, at other members that the seed named as well.
        attempts: u32,
        /// The time after which it wants to be asked again, by its last words.
        retry_after: Duration,
    },
    /// This node left, or shut down, or nobody waits any more.
    #[error("given up: this node is leaving")]
    Cancelled,
}

impl ExchangeError {
    /// Whether somebody answered at the peer's address, if only to refuse: then there is a way there and back.
    pub fn is_answer(&self) -> bool {
        match self {
            Self::Io { refused, .. } => *refused,
            Self::BadAnswer { .. }
            | Self::Layer { .. }
            | Self::Refused { .. }
            | Self::Incompatible { .. }
            | Self::MergeRefused { .. }
            | Self::Busy { .. } => true,
            Self::Timeout { .. } | Self::Cancelled => false,
        }
    }
}
