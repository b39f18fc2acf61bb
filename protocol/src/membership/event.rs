//! What the machine tells its owner.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::shown::Shown;
use crate::error::ExchangeError;
use crate::node::{Node, NodeId, NodeState, Peer};

/// One member as this node sees it at one moment.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct Member {
    /// What it says of itself.
    pub node: Arc<Node>,
    /// What this node believes of it.
    pub state: NodeState,
    /// Its incarnation: raised only by the member itself, to contradict news about it.
    pub incarnation: u32,
    /// Since when it is in this state, by this node's clock.
    pub since: Instant,
    /// Why it is gone, for a dead or left member.
    pub death: Option<Arc<Death>>,
}

impl Member {
    /// Its name.
    pub fn id(&self) -> &NodeId {
        &self.node.id
    }

    /// Its address.
    pub fn addr(&self) -> SocketAddr {
        self.node.addr
    }
}

/// Why a member is gone.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Death {
    /// Who declared it: the member itself if it left, this node if its own suspicion ran out.
    pub declared_by: NodeId,
    /// When this node learned of it.
    pub at: Instant,
    /// Whether the member said farewell itself.
    pub left: bool,
    /// The suspicion that preceded it, as far as this node took part in it.
    pub suspicion: Option<SuspicionSummary>,
    /// The own probe that failed, if it was one of them.
    pub probe: Option<Arc<FailedProbe>>,
}

/// A suspicion that ended in a death.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct SuspicionSummary {
    /// When this node began to suspect.
    pub began: Instant,
    /// Who suspected: first who raised it, then who confirmed it independently.
    pub suspected_by: Vec<NodeId>,
    /// How many confirmations would have brought the timeout to its minimum.
    pub confirmations_wanted: u32,
}

/// A probe that nobody answered, leg by leg.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct FailedProbe {
    /// When the direct ping was sent.
    pub sent_at: Instant,
    /// How long the whole probe waited.
    pub waited: Duration,
    /// Whether the direct ping could not even be sent.
    pub send_failed: bool,
    /// The relays that were asked, and whether each said that it got no answer either.
    pub relays: Vec<RelayOutcome>,
    /// What became of the ping over a stream.
    pub stream: StreamOutcome,
    /// An ack came from this address, which was not asked.
    pub stray_ack: Option<SocketAddr>,
}

/// One relay of a failed probe.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct RelayOutcome {
    /// Which member was asked.
    pub relay: NodeId,
    /// It answered, but with a nack. False: it was silent.
    pub nacked: bool,
}

/// The stream leg of a failed probe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum StreamOutcome {
    /// Not tried: switched off, or the member does not speak it.
    NotTried,
    /// No answer before the end of the probe.
    NoAnswer,
    /// The connection failed.
    Failed,
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.left {
            return write!(f, "left the cluster by itself");
        }
        write!(f, "declared dead by {}", Shown(self.declared_by.as_str()))?;
        if let Some(suspicion) = &self.suspicion {
            let waited = self.at.saturating_duration_since(suspicion.began);
            write!(f, " after {:.1} s of suspicion by ", waited.as_secs_f64())?;
            for (i, id) in suspicion.suspected_by.iter().enumerate() {
                let separator = if i == 0 { "" } else { ", " };
                write!(f, "{separator}{}", Shown(id.as_str()))?;
            }
        }
        match &self.probe {
            Some(probe) => write!(f, "; {probe}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for FailedProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.send_failed {
            write!(f, "own ping could not be sent")?;
        } else {
            write!(f, "own ping unanswered for {:.1} s", self.waited.as_secs_f64())?;
        }
        for outcome in &self.relays {
            let said = if outcome.nacked { "got no answer either" } else { "was silent" };
            write!(f, ", relay {} {said}", Shown(outcome.relay.as_str()))?;
        }
        match self.stream {
            StreamOutcome::NotTried => Ok(()),
            StreamOutcome::NoAnswer => write!(f, ", stream ping unanswered"),
            StreamOutcome::Failed => write!(f, ", stream ping failed"),
        }?;
        match self.stray_ack {
            Some(addr) => write!(f, ", an ack came from {addr}, which was not asked"),
            None => Ok(()),
        }
    }
}

/// Identifies a ping, a join or a broadcast that was asked for, until its end is reported.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct OperationId(pub(super) NonZeroU64);

/// What happened, from [`Membership::poll_event`](crate::Membership::poll_event).
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A member is new, or back from the dead.
    Joined(Member),
    /// A member is dead or has left; [`Member::death`] says why.
    Gone(Member),
    /// A live member announced other meta, versions or (after a death) another address.
    Updated(Member),
    /// A live member is at a higher incarnation, and nothing else changed: it contradicted news that
    /// had not come here. Of no interest to applications; it keeps copies of the table true.
    Renewed(Member),
    /// A live member is suspected.
    Suspected(Member),
    /// A suspected member is alive after all.
    Cleared(Member),
    /// A gone member was forgotten.
    Reaped(NodeId),
    /// Somebody at another address claims a name that is in use.
    Conflict {
        /// The member that has the name.
        existing: Arc<Node>,
        /// The claim.
        other: Box<Node>,
    },
    /// A user message or broadcast arrived in a packet.
    UserMessage {
        /// Who sent the packet.
        from: SocketAddr,
        /// Who made it, if it is a broadcast; else who sent it did.
        origin: Option<NodeId>,
        /// The message.
        payload: Bytes,
    },
    /// A probe was answered directly.
    PingCompleted {
        /// By whom.
        node: Arc<Node>,
        /// The round-trip time.
        rtt: Duration,
        /// The payload that the member's application put into its ack.
        payload: Bytes,
    },
    /// A ping that was asked for has ended; no time means no answer.
    PingDone {
        /// Which.
        id: OperationId,
        /// The round-trip time.
        rtt: Option<Duration>,
    },
    /// A join has ended, with the number of records that the peer sent.
    JoinDone {
        /// Which.
        id: OperationId,
        /// With whom.
        peer: Peer,
        /// How.
        result: Result<usize, ExchangeError>,
    },
    /// An exchange of state that nobody asked for by hand (periodic, or with a failed member) has
    /// failed.
    ExchangeFailed(ExchangeError),
    /// Application state came with a push/pull.
    UserState {
        /// Whose it is, if the peer's name is known: in Go's format a peer that asked does not say it.
        from: Option<NodeId>,
        /// The state, never empty.
        state: Bytes,
        /// Whether the exchange was a join.
        join: bool,
    },
    /// The farewell or the meta update has been sent as often as news is, or there was nobody to
    /// send it to.
    BroadcastDone(OperationId),
    /// What this node announced of itself last is known: the members heard since show the same view.
    /// Of interest to metrics: an estimate, which is late rather than early.
    Converged {
        /// How long that took.
        after: Duration,
    },
    /// The health score changed.
    HealthChanged(u32),
    /// This node contradicted news about itself.
    Refuted {
        /// What was said of it.
        accusation: NodeState,
        /// Who said it, if the news tells.
        by: Option<NodeId>,
        /// The new incarnation.
        incarnation: u32,
    },
    /// This node and a member believe different members alive, and comparing them changes nothing here.
    Disagreement {
        /// The member that has shown another view last.
        member: NodeId,
        /// Since when no member has shown the own view.
        since: Instant,
    },
    /// A member answers over streams only: packets to it or from it are lost.
    PacketsLost {
        /// The member.
        node: Arc<Node>,
        /// Its ack came from this address instead of its own, and did not count: the member's
        /// packets leave from another address than the one that it advertises.
        stray_ack: Option<SocketAddr>,
    },
}
