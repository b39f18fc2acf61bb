//! Why a member is in its state, and why this node doubts itself: from what was noted, in words.
//!
//! A [`Finding`] is a conclusion that the notes allow, such as that a member hears nobody. Invariant: only
//! what this node has seen itself, or was told by name, leads to one, and asking changes nothing. The
//! evidence is that of the probes: a packet of a member's own that came while it answered none of this
//! node's means a route that is cut in one direction; an answer through a relay, or over a stream only,
//! tells which leg is cut (Go's users have to find that out from two log files).

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::diary::{HealthChange, ProbeOutcome, ProbeRecord, Span, Stall, StreamRecord};
use super::event::{FailedProbe, Member};
use super::members::Record;
use super::reap::Tombstone;
use super::{Death, Membership};
use crate::node::{NodeId, NodeState};

/// So many probes are written out; more are in [`Explanation::probes`].
const PROBES_IN_WORDS: usize = 6;

/// A stall explains what happened this long after it.
const STALL_MATTERS: Duration = Duration::from_secs(60);

/// Why a member is in its state, as far as this node knows. [`Display`](fmt::Display) says it in words,
/// in several lines.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct Explanation {
    /// Its name.
    pub name: NodeId,
    /// When this was asked; all other times are before it, but for those that say otherwise.
    pub asked_at: Instant,
    /// Whether it is this node itself.
    pub own: bool,
    /// The member; nothing if it was forgotten.
    pub member: Option<Member>,
    /// What is remembered of a forgotten one.
    pub tombstone: Option<Tombstone>,
    /// When a packet last came from the member itself that showed whose it is, as pings and answers do.
    pub heard: Option<Instant>,
    /// The last round trip of a direct ping of this node.
    pub rtt: Option<Duration>,
    /// The probes of it by this node that are remembered, newest first. The last 128 of all members are.
    pub probes: Vec<ProbeRecord>,
    /// The last stream between it and this node, if that is remembered.
    pub stream: Option<StreamRecord>,
    /// The suspicion that is running.
    pub suspicion: Option<SuspicionStatus>,
    /// When a gone member will be forgotten, at the earliest: in the future.
    pub forgotten_at: Option<Instant>,
    /// What follows from all this, the most telling first.
    pub findings: Vec<Finding>,
}

/// A suspicion that is running.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct SuspicionStatus {
    /// When this node began to suspect.
    pub began: Instant,
    /// Who suspects: first who raised it, then who confirmed it independently.
    pub suspected_by: Vec<NodeId>,
    /// How many confirmations would bring the timeout to its minimum.
    pub confirmations_wanted: u32,
    /// When the member is declared dead unless it contradicts: in the future. It comes closer with
    /// every confirmation.
    pub ends_at: Instant,
}

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
    },
    /// Packets to it could not even be sent.
    CannotSend,
    /// Neither this node nor the relays that said so reach it, in any way.
    Unreachable {
        /// How many relays said that they got no answer either.
        relays: usize,
    },
    /// It answered this node's own probe after others had begun to suspect it, or shortly before.
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
            Self::OnlyThroughRelays { by } => write!(
                f,
                "it is alive and {by} reaches it, but packets between it and this node are lost: \
                 compare routes and firewalls of the two"
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
            Self::PacketsOnly { error } => write!(
                f,
                "it answers packets, but streams to it fail ({error}): the stream side of its port is \
                 blocked, and states cannot be exchanged with it"
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

fn list(f: &mut fmt::Formatter<'_>, names: &[NodeId]) -> fmt::Result {
    for (i, name) in names.iter().enumerate() {
        write!(f, "{}{name}", if i == 0 { "" } else { ", " })?;
    }
    Ok(())
}

impl Explanation {
    fn ago(&self, at: Instant) -> Span {
        Span(self.asked_at.saturating_duration_since(at))
    }

    fn write_state(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let death = |f: &mut fmt::Formatter<'_>, death: Option<&Death>| match death {
            Some(death) if death.left => writeln!(f, "It {death}."),
            Some(death) => writeln!(f, "It was {death}."),
            None => Ok(()),
        };
        if let Some(member) = &self.member {
            let (addr, state, since) = (member.addr(), member.state, self.ago(member.since));
            let own = if self.own { ", this node itself," } else { "" };
            writeln!(
                f,
                "{}{own} at {addr} is {state} since {since} ago (incarnation {}).",
                self.name, member.incarnation
            )?;
            death(f, member.death.as_deref())?;
        }
        if let Some(tombstone) = &self.tombstone {
            let since = self.ago(tombstone.since);
            let (addr, state) = (tombstone.node.addr, tombstone.state);
            let reaped = self.ago(tombstone.reaped_at);
            writeln!(
                f,
                "{} at {addr} became {state} {since} ago, and was forgotten {reaped} ago.",
                self.name
            )?;
            death(f, tombstone.death.as_deref())?;
        }
        if let Some(at) = self.forgotten_at {
            let left = Span(at.saturating_duration_since(self.asked_at));
            writeln!(f, "It is forgotten in {left} at the earliest.")?;
        }
        Ok(())
    }

    fn write_suspicion(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(suspicion) = &self.suspicion else {
            return Ok(());
        };
        write!(f, "Suspected for {} by ", self.ago(suspicion.began))?;
        list(f, &suspicion.suspected_by)?;
        let confirmed = suspicion.suspected_by.len().saturating_sub(1);
        let left = Span(suspicion.ends_at.saturating_duration_since(self.asked_at));
        writeln!(
            f,
            " ({confirmed} of {} confirmations); declared dead in {left} unless it contradicts.",
            suspicion.confirmations_wanted
        )
    }

    fn write_contact(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.heard {
            Some(at) => write!(f, "Its last packet came {} ago", self.ago(at))?,
            None => f.write_str("No packet of its own has come")?,
        }
        match self.rtt {
            Some(rtt) => writeln!(f, "; last round trip {}.", Span(rtt))?,
            None => writeln!(f, ".")?,
        }
        if let Some(stream) = &self.stream {
            let (who, at) =
                (if stream.inbound { "its" } else { "this node's" }, self.ago(stream.at));
            match &stream.error {
                None => writeln!(f, "The last stream, {who}, went well {at} ago.")?,
                Some(error) => writeln!(f, "The last stream, {who}, failed {at} ago: {error}.")?,
            }
        }
        if !self.probes.is_empty() {
            writeln!(f, "Probes by this node, newest first:")?;
        }
        for probe in self.probes.iter().take(PROBES_IN_WORDS) {
            writeln!(f, "  {} ago: {}", self.ago(probe.sent_at), probe.outcome)?;
        }
        match self.probes.len().checked_sub(PROBES_IN_WORDS) {
            Some(more @ 1..) => writeln!(f, "  and {more} before"),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_state(f)?;
        self.write_suspicion(f)?;
        if !self.own {
            self.write_contact(f)?;
        }
        write_findings(f, &self.findings)
    }
}

fn write_findings(f: &mut fmt::Formatter<'_>, findings: &[Finding]) -> fmt::Result {
    if !findings.is_empty() {
        writeln!(f, "What follows:")?;
    }
    findings.iter().try_for_each(|finding| writeln!(f, "  {finding}"))
}

/// How this node is, by its own judgement. [`Display`](fmt::Display) says it in words.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Health {
    /// When this was asked.
    pub asked_at: Instant,
    /// How far this node doubts itself: 0 is healthy.
    pub score: u32,
    /// The score cannot be higher.
    pub max_score: u32,
    /// How often it probes with that score.
    pub probe_interval: Duration,
    /// The last changes of the score, newest first: 16 are remembered.
    pub changes: Vec<HealthChange>,
    /// The last times that this process ran too late, newest first: 8 are remembered.
    pub stalls: Vec<Stall>,
    /// When a packet last came that could be read, from anybody.
    pub last_packet: Option<Instant>,
    /// What follows from all this.
    pub findings: Vec<Finding>,
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ago = |at: Instant| Span(self.asked_at.saturating_duration_since(at));
        write!(f, "The health score is {} of at most {}: ", self.score, self.max_score)?;
        match self.score {
            0 => writeln!(f, "healthy.")?,
            _ => writeln!(f, "it probes every {} only.", Span(self.probe_interval))?,
        }
        match self.last_packet {
            Some(at) => writeln!(f, "The last packet came {} ago.", ago(at))?,
            None => writeln!(f, "No packet has ever come.")?,
        }
        if !self.changes.is_empty() {
            writeln!(f, "Changes, newest first:")?;
        }
        for change in &self.changes {
            writeln!(f, "  {} ago to {}: {}", ago(change.at), change.score, change.cause)?;
        }
        for stall in &self.stalls {
            writeln!(f, "Stood still for {} until {} ago.", Span(stall.late), ago(stall.ended))?;
        }
        write_findings(f, &self.findings)
    }
}

impl Membership {
    /// Why a member is in its state; nothing if none of that name is known or remembered.
    pub fn explain(&self, name: &str, now: Instant) -> Option<Explanation> {
        let record = self.members.get(name);
        let tombstone = self.tombstones.get(name);
        let node = record.map(|r| &r.node).or(tombstone.map(|t| &t.node))?;
        let window = self.config.gossip_to_the_dead_time;
        let gone_since = record.filter(|r| r.state().is_gone()).map(|r| r.since);
        let mut explanation = Explanation {
            name: node.id.clone(),
            asked_at: now,
            own: self.is_self(name),
            member: record.map(Record::to_member),
            tombstone: tombstone.cloned(),
            heard: record.and_then(|record| record.heard),
            rtt: record.and_then(Record::rtt),
            probes: self.diary.probes_of(name),
            stream: self.diary.stream_with(name).cloned(),
            suspicion: record.and_then(|record| self.suspicion_status(record)),
            forgotten_at: gone_since.and_then(|since| since.checked_add(window)),
            findings: Vec::new(),
        };
        explanation.findings = match explanation.own {
            true => self.own_findings(None, now),
            false => self.findings(&explanation),
        };
        Some(explanation)
    }

    /// Why the health score is what it is.
    pub fn health(&self, now: Instant) -> Health {
        let interval = self.config.probe_interval;
        Health {
            asked_at: now,
            score: self.awareness.score(),
            max_score: self.config.awareness_max_multiplier.saturating_sub(1),
            probe_interval: self.awareness.scale(interval),
            changes: self.diary.health_changes(),
            stalls: self.diary.stalls(),
            last_packet: self.diary.last_packet,
            findings: self.own_findings(None, now),
        }
    }

    fn suspicion_status(&self, record: &Record) -> Option<SuspicionStatus> {
        let suspicion = record.suspicion.as_ref()?;
        Some(SuspicionStatus {
            began: suspicion.began,
            suspected_by: suspicion.accusers.clone(),
            confirmations_wanted: suspicion.wanted,
            ends_at: suspicion.timer.at(),
        })
    }

    /// What is wrong here. `since` is when that began to matter.
    fn own_findings(&self, since: Option<Instant>, now: Instant) -> Vec<Finding> {
        let ago = |at: Instant| now.saturating_duration_since(at);
        let mut findings = Vec::new();
        let newest = self.diary.probes().next();
        if let Some(probe) = newest.filter(|probe| !probe.outcome.is_by_packet()) {
            let last = self.diary.last_packet;
            if last.is_none_or(|last| last < probe.sent_at) {
                findings.push(Finding::NothingArrives { last: last.map(ago) });
            }
        }
        let matters = |stall: &Stall| match since {
            Some(since) => stall.ended >= since,
            None => ago(stall.ended) <= STALL_MATTERS,
        };
        if let Some(stall) = self.diary.stalls().into_iter().find(matters) {
            findings.push(Finding::StoodStill { late: stall.late, ago: ago(stall.ended) });
        }
        findings
    }

    fn findings(&self, of: &Explanation) -> Vec<Finding> {
        let now = of.asked_at;
        let newest = of.probes.first();
        let trouble = newest.filter(|probe| !probe.outcome.is_direct());
        let mut findings = match trouble {
            Some(probe) => self.own_findings(Some(probe.sent_at), now),
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

/// What the newest probe tells, which was not answered directly.
fn of_trouble(probe: &ProbeRecord, of: &Explanation, own_fault: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let stray = match &probe.outcome {
        ProbeOutcome::StreamOnly { stray_ack } => *stray_ack,
        ProbeOutcome::Failed(failed) => failed.stray_ack,
        _ => None,
    };
    findings.extend(stray.map(Finding::StrayAcks));
    // Its own packets, since it stopped answering: not in answer to a probe, or that would have counted.
    let failed = |probe: &&ProbeRecord| !probe.outcome.is_answered();
    let first = of.probes.iter().take_while(failed).last().unwrap_or(probe);
    let heard = of.heard.filter(|heard| *heard > first.sent_at && stray.is_none());
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

fn nacks(failed: &FailedProbe) -> usize {
    failed.relays.iter().filter(|relay| relay.nacked).count()
}

fn packets_only(of: &Explanation) -> Option<Finding> {
    let (probe, stream) = (of.probes.first()?, of.stream.as_ref()?);
    let error = stream.error.as_ref().filter(|_| probe.outcome.is_direct())?;
    Some(Finding::PacketsOnly { error: error.clone() })
}

/// Whether it answered this node although others accuse it.
fn answers_here(of: &Explanation, own: &NodeId) -> Option<Finding> {
    let probe = of.probes.first().filter(|probe| probe.outcome.is_answered())?;
    let member = of.member.as_ref();
    let death = member.and_then(|m| m.death.as_ref()).filter(|death| !death.left);
    let accusers: Vec<NodeId> = match (&of.suspicion, death) {
        (Some(suspicion), _) => suspicion.suspected_by.clone(),
        (None, Some(death)) => vec![death.declared_by.clone()],
        (None, None) => return None,
    };
    if accusers.contains(own) {
        return None;
    }
    let probed = of.asked_at.saturating_duration_since(probe.sent_at);
    Some(Finding::AnswersHere { accusers, probed })
}
