//! What a node remembers of its own last doings, so that it can say why it believes what it does.
//!
//! Invariant: nothing is decided by it, and it holds at most [`PROBES`] probes, as many streams as
//! [`STREAMS`], [`HEALTH_CHANGES`] and [`STALLS`]; the oldest goes first. Beside it every record of the
//! member table says when something came from the member itself, and its last round trip. No paper has
//! this, and Go keeps nothing of the kind: its users read logs.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Membership;
use super::event::FailedProbe;
use super::shown::Shown;
use crate::error::ExchangeError;
use crate::node::{Node, NodeId, NodeState, Peer};

const PROBES: usize = 128;
const STREAMS: usize = 32;
const HEALTH_CHANGES: usize = 16;
const STALLS: usize = 8;

/// A text of an error is kept up to this many bytes.
const MAX_TEXT_BYTES: usize = 300;

/// One probe of a member that has ended.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ProbeRecord {
    /// When its direct ping was sent.
    pub sent_at: Instant,
    /// When it ended: after its interval without an answer, or later if this process stood still.
    pub ended_at: Instant,
    /// The incarnation of the member at that time, as far as it was known.
    pub incarnation: u32,
    /// How it ended.
    pub outcome: ProbeOutcome,
    /// The member's own answer to the direct ping came after the end, after this time.
    pub late_ack: Option<Duration>,
}

/// How a probe ended: by the first leg that was answered.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ProbeOutcome {
    /// The direct ping was answered within
    /// [`probe_timeout`](crate::Config::probe_timeout), after this time.
    Direct(Duration),
    /// It was answered later, after this time: relays had been asked by then.
    Late(Duration),
    /// A relay passed the answer on. Own packets to the member, or its answers, did not arrive.
    Relayed {
        /// Which, or the address from which that came where it is no relay's.
        by: String,
    },
    /// The member answered over a stream only.
    StreamOnly {
        /// Its ack came from this address instead of its own, and did not count.
        stray_ack: Option<SocketAddr>,
    },
    /// Nobody answered.
    Failed(Arc<FailedProbe>),
}

impl ProbeOutcome {
    /// Whether the member answered at all.
    pub fn is_answered(&self) -> bool {
        !matches!(self, Self::Failed(_))
    }

    /// Whether an answer came by packet, from the member or through a relay.
    pub fn is_by_packet(&self) -> bool {
        !matches!(self, Self::StreamOnly { .. } | Self::Failed(_))
    }

    /// Whether its own packet came back in answer to one of this node's.
    pub fn is_direct(&self) -> bool {
        matches!(self, Self::Direct(_) | Self::Late(_))
    }
}

impl fmt::Display for ProbeOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct(rtt) => write!(f, "answered after {}", Span(*rtt)),
            Self::Late(rtt) => write!(f, "answered late, after {}", Span(*rtt)),
            Self::Relayed { by } => {
                write!(f, "direct ping unanswered, answered through {}", Shown(by))
            }
            Self::StreamOnly { stray_ack: None } => f.write_str("answered over a stream only"),
            Self::StreamOnly { stray_ack: Some(from) } => {
                write!(f, "answered over a stream; its ack came from {from}, which was not asked")
            }
            Self::Failed(probe) => write!(f, "{probe}"),
        }
    }
}

/// The last stream between this node and a member.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct StreamRecord {
    /// When it ended.
    pub at: Instant,
    /// Whether the member opened it; else this node did.
    pub inbound: bool,
    /// How it failed, if it did. One that the member opened is known here only if it did not.
    pub error: Option<Box<str>>,
    /// Somebody answered, and did not want it: the way there and back is open.
    pub refused: bool,
}

/// A change of the health score.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct HealthChange {
    /// When.
    pub at: Instant,
    /// The score afterwards.
    pub score: u32,
    /// Why.
    pub cause: HealthCause,
}

/// What moves the health score.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum HealthCause {
    /// A probed member answered: one less.
    Answered(NodeId),
    /// A probed member did not: one more if no relay could say nack, else one for each that did not.
    Unanswered {
        /// The member.
        node: NodeId,
        /// How many relays were silent that should have said that they got no answer either.
        silent_relays: u32,
    },
    /// This node had to contradict news about itself: one more.
    Accused {
        /// What was said of it.
        of: NodeState,
        /// Who said so, if the news tells.
        by: Option<NodeId>,
    },
}

impl fmt::Display for HealthCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered(node) => write!(f, "{} answered a probe", Shown(node.as_str())),
            Self::Unanswered { node, silent_relays } => {
                write!(f, "{} answered no probe", Shown(node.as_str()))?;
                match silent_relays {
                    0 => Ok(()),
                    1 => f.write_str(", and one relay was silent too"),
                    more => write!(f, ", and {more} relays were silent too"),
                }
            }
            Self::Accused { of, by } => {
                let by = Shown(by.as_ref().map_or("somebody", NodeId::as_str));
                write!(f, "{by} said that this node is {of}, which it contradicted")
            }
        }
    }
}

/// A time in which this process did not run, or ran too late.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Stall {
    /// When it was over.
    pub ended: Instant,
    /// How late it was then.
    pub late: Duration,
}

/// A probe that has ended, and what its answer is known by.
#[derive(Debug)]
pub(super) struct ProbeNote {
    pub(super) node: Arc<Node>,
    pub(super) sequence: u32,
    pub(super) record: ProbeRecord,
}

/// The node's own notes.
#[derive(Debug, Default)]
pub(super) struct Diary {
    probes: VecDeque<ProbeNote>,
    streams: VecDeque<(NodeId, StreamRecord)>,
    health: VecDeque<HealthChange>,
    stalls: VecDeque<Stall>,
    /// When a packet came that could be read, from anybody.
    pub(super) last_packet: Option<Instant>,
}

fn push<T>(to: &mut VecDeque<T>, item: T, max: usize) {
    if to.len() == max {
        to.pop_front();
    }
    to.push_back(item);
}

impl Diary {
    pub(super) fn note_probe(&mut self, note: ProbeNote) {
        push(&mut self.probes, note, PROBES);
    }

    /// Only the last of each member is kept.
    pub(super) fn note_stream(&mut self, node: &NodeId, record: StreamRecord) {
        self.streams.retain(|(other, _)| other != node);
        push(&mut self.streams, (node.clone(), record), STREAMS);
    }

    pub(super) fn note_health(&mut self, change: HealthChange) {
        push(&mut self.health, change, HEALTH_CHANGES);
    }

    /// The probes of a member, newest first.
    pub(super) fn probes_of(&self, name: &str) -> Vec<ProbeRecord> {
        let of = self.probes.iter().rev().filter(|note| note.node.id.as_str() == name);
        of.map(|note| note.record.clone()).collect()
    }

    /// The newest probes of anybody, newest first.
    pub(super) fn probes(&self) -> impl Iterator<Item = (&NodeId, &ProbeRecord)> {
        self.probes.iter().rev().map(|note| (&note.node.id, &note.record))
    }

    pub(super) fn stream_with(&self, name: &str) -> Option<&StreamRecord> {
        self.streams.iter().find(|(node, _)| node.as_str() == name).map(|(_, record)| record)
    }

    /// The last changes of the health score, newest first.
    pub(super) fn health_changes(&self) -> Vec<HealthChange> {
        self.health.iter().rev().cloned().collect()
    }

    /// Newest first.
    pub(super) fn stalls(&self) -> Vec<Stall> {
        self.stalls.iter().rev().copied().collect()
    }
}

impl Membership {
    /// Tells that this process has just done, `late` by so much, what was due: it stood still, or had
    /// no processor. Nothing changes by it but what [`explain`](Self::explain) says.
    pub fn handle_stall(&mut self, late: Duration, now: Instant) {
        self.stats.stalls += 1;
        push(&mut self.diary.stalls, Stall { ended: now, late }, STALLS);
    }

    /// An ack that no running probe waits for: perhaps the answer to one that has ended.
    pub(super) fn note_late_ack(&mut self, from: &Peer, sequence: u32, now: Instant) {
        let mut notes = self.diary.probes.iter_mut().rev();
        let Some(note) = notes.find(|note| note.sequence == sequence) else {
            return;
        };
        // That of a relay says nothing of the way between the two.
        let named = from.name.as_ref().is_none_or(|name| *name == note.node.id);
        if named && from.addr == note.node.addr && !note.record.outcome.is_direct() {
            let after = now.saturating_duration_since(note.record.sent_at);
            note.record.late_ack.get_or_insert(after);
        }
    }

    /// Something came by packet from a member itself.
    pub(super) fn note_heard(&mut self, name: &str, now: Instant) {
        if let Some(record) = self.members.get_mut(name) {
            record.heard = Some(now);
        }
    }

    /// A member has opened a stream, which went well.
    pub(super) fn note_inbound_stream(&mut self, name: &NodeId, now: Instant) {
        if self.members.get(name.as_str()).is_some() {
            let record = StreamRecord { at: now, inbound: true, error: None, refused: false };
            self.diary.note_stream(name, record);
        }
    }

    /// A stream that this node asked for has ended.
    pub(super) fn note_stream(&mut self, peer: &Peer, error: Option<&ExchangeError>, now: Instant) {
        let known = |name: &&NodeId| self.members.get(name.as_str()).is_some();
        let Some(name) = peer.name.as_ref().filter(known) else {
            return;
        };
        let refused = error.is_some_and(ExchangeError::is_answer);
        let error = error.map(|error| {
            let mut text = error.to_string();
            let end =
                (0..=MAX_TEXT_BYTES.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
            text.truncate(end.unwrap_or(0));
            text.into_boxed_str()
        });
        let record = StreamRecord { at: now, inbound: false, error, refused };
        self.diary.note_stream(name, record);
    }
}

/// A span of time for people: three digits at most, with a unit.
#[derive(Clone, Copy)]
pub(super) struct Span(pub(super) Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs_f64();
        match seconds {
            s if s < 0.001 => write!(f, "{:.2} ms", s * 1e3),
            s if s < 0.1 => write!(f, "{:.1} ms", s * 1e3),
            s if s < 1.0 => write!(f, "{:.0} ms", s * 1e3),
            s if s < 60.0 => write!(f, "{s:.1} s"),
            s if s < 7200.0 => write!(f, "{:.0} min", s / 60.0),
            s => write!(f, "{:.0} h", s / 3600.0),
        }
    }
}
