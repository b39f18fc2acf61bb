//! What follows from the notes, without a guess.
//!
//! A [`Finding`] is a conclusion that the notes allow, such as that a member hears nobody. Invariant: only
//! what this node has seen itself, or was told by name, leads to one. The evidence is that of the probes: a
//! packet of a member's own that came while it answered none of this node's means a route that is cut in
//! one direction; an answer through a relay, or over a stream only, tells which leg is cut (Go's users have
//! to find that out from two log files). One lost packet is evidence of nothing, and neither is what was
//! seen before the trouble began.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::diary::{ProbeOutcome, ProbeRecord, Span, Stall};
use super::event::{FailedProbe, StreamOutcome};
use super::explain::Explanation;
use super::shown::Shown;
use super::{Death, Membership};
use crate::node::{NodeId, NodeState};

/// A stall explains this node's health for so long after it.
const STALL_MATTERS: Duration = Duration::from_secs(60);

/// So many probes in a row without a direct answer are more than one lost packet.
const IN_A_ROW: usize = 2;

/// A conclusion, with the evidence for it. Times are spans before the question.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Finding {
    /// Own probes get no packet in answer, and none has come from anybody meanwhile: this node is the one
    /// that is cut off.
    NothingArrives {
        /// How long ago the last packet came; nothing if none ever did.
        last: Option<Duration>,
    },
    /// Own probes get no packet in answer, and none has come from anybody, but nobody else was asked: either
    /// that member is down, or this node is cut off.
    OnlyOneAsked {
        /// Whom.
        node: NodeId,
        /// How long ago the last packet came; nothing if none ever did.
        last: Option<Duration>,
    },
    /// This process stood still at that time, and could not take answers.
    StoodStill {
        /// For how long.
        late: Duration,
        /// When that was over.
        ago: Duration,
    },
    /// The member's packets come here, but it answers none of this node's: the way to it is cut, and
    /// the one from it is not.
    OneWay {
        /// When its last packet came.
        heard: Duration,
    },
    /// It answers, but only after the probe has ended.
    AnswersLate {
        /// How long it took.
        after: Duration,
    },
    /// Own packets to the member, or its answers, are lost, but a relay reaches it.
    OnlyThroughRelays {
        /// Which.
        by: String,
    },
    /// It answers over streams only: packets to it or from it are lost.
    StreamsOnly,
    /// Its acks come from an address that was not asked.
    StrayAcks(SocketAddr),
    /// It answers packets, but streams to it fail.
    PacketsOnly {
        /// How.
        error: Box<str>,
        /// Whether they are refused, which is not a way that is blocked.
        refused: bool,
    },
    /// Packets to it could not even be sent.
    CannotSend,
    /// Neither this node nor the relays that said so reach it, in any way.
    Unreachable {
        /// How many relays said that they got no answer either.
        relays: usize,
    },
    /// It answered this node's own probe after others had begun to suspect it.
    AnswersHere {
        /// Who suspects it, or declared it dead.
        accusers: Vec<NodeId>,
        /// When the probe was sent that it answered.
        probed: Duration,
    },
    /// This node doubts itself: its own failed probes weigh less.
    DoubtsItself(u32),
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NothingArrives { last: Some(last) } => write!(
                f,
                "no packet has arrived here from anybody for {}: this node itself seems to be cut off \
                 (its network, a firewall in front of it, or an advertised address that leads elsewhere)",
                Span(*last)
            ),
            Self::NothingArrives { last: None } => f.write_str(
                "no packet has ever arrived here from anybody: check that this node's advertised address \
                 leads here, and that UDP to its port is let in",
            ),
            Self::OnlyOneAsked { node, last } => {
                match last {
                    Some(last) => write!(f, "no packet has arrived here for {}", Span(*last))?,
                    None => f.write_str("no packet has ever arrived here")?,
                }
                write!(
                    f,
                    ", but {} was the only one to ask: either that is down, or this node itself is cut off",
                    Shown(node.as_str())
                )
            }
            Self::StoodStill { late, ago } => write!(
                f,
                "this process stood still for {} until {} ago, and could not take answers meanwhile \
                 (no processor, a pause of the machine, or a blocked runtime)",
                Span(*late),
                Span(*ago)
            ),
            Self::OneWay { heard } => write!(
                f,
                "its packets arrive here (the last one {} ago), but it answers none of this node's: the \
                 way to it is cut in that direction only, by a firewall or route, or its receiving \
                 side hangs",
                Span(*heard)
            ),
            Self::AnswersLate { after } => write!(
                f,
                "it answers, but later than the timeout (after {}): it or the way to it is slow",
                Span(*after)
            ),
            Self::OnlyThroughRelays { by } => write!(
                f,
                "it is alive and {} reaches it, but packets between it and this node are lost: \
                 compare routes and firewalls of the two",
                Shown(by)
            ),
            Self::StreamsOnly => f.write_str(
                "it answers over streams, but its packets and this node's are lost: UDP is blocked \
                 between the two, or packets of that size do not pass",
            ),
            Self::StrayAcks(from) => write!(
                f,
                "its answers come from {from}, which is not the address that it advertises: set its \
                 advertise address, or switch `verify_ack_source` off"
            ),
            Self::PacketsOnly { error, refused } => write!(
                f,
                "it answers packets, but streams to it fail ({}): {}, and states cannot be exchanged \
                 with it",
                Shown(error),
                match refused {
                    true => "nothing listens on the stream side of its port, or that refuses this node",
                    false => "the stream side of its port is blocked",
                }
            ),
            Self::CannotSend => f.write_str(
                "packets to it could not even be sent: this node's network has no route to it",
            ),
            Self::Unreachable { relays: 0 } => {
                f.write_str("nothing of it answers here; no relay could say whether others reach it")
            }
            Self::Unreachable { relays } => write!(
                f,
                "nothing of it answers, neither here nor at {relays} relay{}: it is down, or cut off \
                 from all of them",
                if *relays == 1 { "" } else { "s" }
            ),
            Self::AnswersHere { accusers, probed } => {
                write!(f, "it answered this node's probe {} ago; it is accused by ", Span(*probed))?;
                list(f, accusers)?;
                f.write_str(", who may be the one with the trouble")
            }
            Self::DoubtsItself(score) => write!(
                f,
                "this node doubts itself (health score {score}), so what it fails to reach may be \
                 healthy"
            ),
        }
    }
}

pub(super) fn list(f: &mut fmt::Formatter<'_>, names: &[NodeId]) -> fmt::Result {
    for (i, name) in names.iter().enumerate() {
        write!(f, "{}{}", if i == 0 { "" } else { ", " }, Shown(name.as_str()))?;
    }
    Ok(())
}

impl Membership {
    /// What is wrong here: at the time of that probe, or of late if there is none.
    pub(super) fn own_findings(&self, at: Option<&ProbeRecord>, now: Instant) -> Vec<Finding> {
        let ago = |at: Instant| now.saturating_duration_since(at);
        let mut findings: Vec<Finding> = self.cut_off(now).into_iter().collect();
        let matters = |stall: &Stall| match at {
            Some(probe) => overlaps(stall, probe),
            None => ago(stall.ended) <= STALL_MATTERS,
        };
        if let Some(stall) = self.diary.stalls().into_iter().find(matters) {
            findings.push(Finding::StoodStill { late: stall.late, ago: ago(stall.ended) });
        }
        findings
    }

    /// Whether this node hears nobody. More than one member has to be silent: one alone may be down.
    fn cut_off(&self, now: Instant) -> Option<Finding> {
        let last = self.diary.last_packet;
        let unheard = |probe: &ProbeRecord| {
            !probe.outcome.is_by_packet() && last.is_none_or(|last| last < probe.sent_at)
        };
        let (node, newest) = self.diary.probes().next().filter(|(_, probe)| unheard(probe))?;
        if self.is_refused(node, newest) {
            return None;
        }
        let mut silent = BTreeSet::from([node.as_str()]);
        for (other, probe) in self.diary.probes().take_while(|(_, probe)| unheard(probe)) {
            if !self.is_refused(other, probe) {
                silent.insert(other.as_str());
            }
            silent.extend(self.silent_relays(probe));
        }
        let last = last.map(|last| now.saturating_duration_since(last));
        match newest.outcome {
            _ if silent.len() > 1 => Some(Finding::NothingArrives { last }),
            ProbeOutcome::Failed(_) => Some(Finding::OnlyOneAsked { node: node.clone(), last }),
            // It answers over streams, so that it is not down.
            _ => last.is_none().then_some(Finding::NothingArrives { last }),
        }
    }

    /// Relays that would have said that they got no answer.
    fn silent_relays<'a>(&self, probe: &'a ProbeRecord) -> impl Iterator<Item = &'a str> {
        let failed = match &probe.outcome {
            ProbeOutcome::Failed(failed) if self.config.lifeguard.health_aware_probe => {
                Some(&failed.relays)
            }
            _ => None,
        };
        let relays = failed.into_iter().flatten();
        relays.filter(|relay| !relay.nacked).map(|relay| relay.relay.as_str())
    }

    /// Whether the member's host refused a stream since that probe was sent: there is a way to it and back.
    fn is_refused(&self, node: &NodeId, probe: &ProbeRecord) -> bool {
        let stream = self.diary.stream_with(node.as_str());
        stream.is_some_and(|stream| stream.refused && stream.at >= probe.sent_at)
    }

    pub(super) fn findings(&self, of: &Explanation) -> Vec<Finding> {
        let now = of.asked_at;
        let newest = of.probes.first();
        let trouble = newest.filter(|probe| !probe.outcome.is_direct());
        let mut findings = match trouble {
            Some(probe) => self.own_findings(Some(probe), now),
            None => Vec::new(),
        };
        let own_fault = !findings.is_empty();
        if let Some(probe) = trouble {
            findings.extend(of_trouble(probe, of, own_fault));
        }
        findings.extend(packets_only(of));
        findings.extend(answers_here(of, &self.id));
        let gone_or_suspect = of.member.as_ref().is_none_or(|m| m.state != NodeState::Alive);
        if self.awareness.score() > 0 && (trouble.is_some() || gone_or_suspect) {
            findings.push(Finding::DoubtsItself(self.awareness.score()));
        }
        findings
    }
}

/// Whether the process stood still while that probe ran.
fn overlaps(stall: &Stall, probe: &ProbeRecord) -> bool {
    // No duration is taken from an instant: the clock may have begun too late for that.
    stall.ended >= probe.sent_at
        && stall.ended.saturating_duration_since(probe.ended_at) <= stall.late
}

/// What the newest probe tells, which was not answered directly.
fn of_trouble(probe: &ProbeRecord, of: &Explanation, own_fault: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let stray = match &probe.outcome {
        ProbeOutcome::StreamOnly { stray_ack } => *stray_ack,
        ProbeOutcome::Failed(failed) => failed.stray_ack,
        _ => None,
    };
    findings.extend(stray.map(Finding::StrayAcks));
    if let Some(after) = answers_late(of) {
        findings.push(Finding::AnswersLate { after });
        return findings;
    }
    let heard = heard_meanwhile(probe, of).filter(|_| stray.is_none());
    if let Some(heard) = heard {
        findings.push(Finding::OneWay { heard: of.asked_at.saturating_duration_since(heard) });
    }
    match &probe.outcome {
        ProbeOutcome::Relayed { by } => {
            findings.push(Finding::OnlyThroughRelays { by: by.clone() });
        }
        ProbeOutcome::StreamOnly { stray_ack: None } => findings.push(Finding::StreamsOnly),
        ProbeOutcome::Failed(failed) if failed.send_failed => findings.push(Finding::CannotSend),
        ProbeOutcome::Failed(failed) if heard.is_none() && stray.is_none() && !own_fault => {
            findings.push(Finding::Unreachable { relays: nacks(failed) });
        }
        _ => {}
    }
    findings
}

/// How long its answer took, which came after the end of the probe.
fn answers_late(of: &Explanation) -> Option<Duration> {
    let newest = of.probes.first()?;
    let before = || {
        // The answer to the newest may be under way yet.
        let waited = of.asked_at.saturating_duration_since(newest.sent_at);
        let last = of.probes.get(1)?;
        let late = match last.outcome {
            ProbeOutcome::Late(rtt) => rtt,
            _ => last.late_ack?,
        };
        (waited <= late.saturating_mul(2)).then_some(late)
    };
    newest.late_ack.or_else(before)
}

/// When a packet of its own came since it stopped answering: not in answer to a probe, or that would have
/// counted.
fn heard_meanwhile(probe: &ProbeRecord, of: &Explanation) -> Option<Instant> {
    let in_a_row = of.probes.iter().take_while(|probe| !probe.outcome.is_direct()).count();
    let certain = match &probe.outcome {
        // The relays, or a stream, were not answered either.
        ProbeOutcome::Failed(failed) => {
            nacks(failed) > 0 || failed.stream != StreamOutcome::NotTried
        }
        _ => false,
    };
    let failed = |probe: &&ProbeRecord| !probe.outcome.is_answered();
    let first = of.probes.iter().take_while(failed).last().unwrap_or(probe);
    let since = suspected_since(of).map_or(first.sent_at, |began| began.min(first.sent_at));
    of.heard.filter(|heard| *heard > since && (certain || in_a_row >= IN_A_ROW))
}

/// When anybody began to suspect it, as far as that is known here: it answered nobody from then on.
fn suspected_since(of: &Explanation) -> Option<Instant> {
    let ended = death(of).and_then(|death| death.suspicion.as_ref()).map(|s| s.began);
    of.suspicion.as_ref().map(|suspicion| suspicion.began).or(ended)
}

fn death(of: &Explanation) -> Option<&Death> {
    of.member.as_ref().and_then(|member| member.death.as_deref())
}

fn nacks(failed: &FailedProbe) -> usize {
    failed.relays.iter().filter(|relay| relay.nacked).count()
}

/// Whether a stream failed while the member, which is still the same process, answered packets before and
/// after it, and was not found silent between.
fn packets_only(of: &Explanation) -> Option<Finding> {
    let (member, stream) = (of.member.as_ref()?, of.stream.as_ref()?);
    let error = stream.error.as_ref()?;
    let after = of.probes.first()?;
    let direct_before =
        |probe: &&ProbeRecord| probe.outcome.is_direct() && probe.sent_at < stream.at;
    let mut back_then = of.probes.iter().take_while(|probe| probe.outcome.is_answered());
    let before = back_then.find(direct_before)?;
    // A new process, or one that was suspected, has a higher incarnation.
    let same_life = member.since <= before.sent_at
        && [before.incarnation, after.incarnation] == [member.incarnation; 2];
    let shown = same_life && after.outcome.is_direct() && after.sent_at >= stream.at;
    shown.then(|| Finding::PacketsOnly { error: error.clone(), refused: stream.refused })
}

/// Whether it answered this node although others accuse it: after they began, or it may have stopped
/// in between.
fn answers_here(of: &Explanation, own: &NodeId) -> Option<Finding> {
    let probe = of.probes.first().filter(|probe| probe.outcome.is_answered())?;
    let death = death(of).filter(|death| !death.left);
    let accusers: Vec<NodeId> = match (&of.suspicion, death) {
        (Some(suspicion), _) => suspicion.suspected_by.clone(),
        (None, Some(death)) => vec![death.declared_by.clone()],
        (None, None) => return None,
    };
    let began = suspected_since(of).or_else(|| death.map(|death| death.at))?;
    let answered_at = match &probe.outcome {
        ProbeOutcome::Direct(rtt) => probe.sent_at + *rtt,
        // When the member itself answered is not known.
        _ => probe.sent_at,
    };
    if accusers.contains(own) || answered_at < began {
        return None;
    }
    let probed = of.asked_at.saturating_duration_since(probe.sent_at);
    Some(Finding::AnswersHere { accusers, probed })
}
