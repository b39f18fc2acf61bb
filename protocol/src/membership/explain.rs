//! Why a member is in its state, and why this node doubts itself: what was noted, and what follows, in
//! words.
//!
//! Invariant: asking changes nothing, and whatever a peer has chosen is [`Shown`], so that a name cannot
//! forge a line.

use std::fmt;
use std::time::{Duration, Instant};

use super::diary::{HealthChange, ProbeRecord, Span, Stall, StreamRecord};
use super::event::Member;
use super::findings::{Finding, list};
use super::members::Record;
use super::reap::Tombstone;
use super::shown::Shown;
use super::{Death, Membership};
use crate::node::NodeId;

/// So many probes are written out; more are in [`Explanation::probes`].
const PROBES_IN_WORDS: usize = 6;

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
                "{}{own} at {addr} has been {state} for {since} (incarnation {}).",
                Shown(self.name.as_str()),
                member.incarnation
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
                Shown(self.name.as_str())
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
        match (self.heard, &self.member) {
            (Some(at), _) => write!(f, "Its last packet came {} ago", self.ago(at))?,
            (None, Some(_)) => f.write_str("No packet of its own has come")?,
            // With a forgotten member it is forgotten when that was.
            (None, None) => {}
        }
        match (self.rtt, &self.member) {
            (Some(rtt), _) => writeln!(f, "; last round trip {}.", Span(rtt))?,
            (None, Some(_)) => writeln!(f, ".")?,
            (None, None) => {}
        }
        if let Some(stream) = &self.stream {
            let (who, at) =
                (if stream.inbound { "its" } else { "this node's" }, self.ago(stream.at));
            match &stream.error {
                None => writeln!(f, "The last stream, {who}, went well {at} ago.")?,
                Some(error) => {
                    writeln!(f, "The last stream, {who}, failed {at} ago: {}.", Shown(error))?
                }
            }
        }
        if !self.probes.is_empty() {
            writeln!(f, "Probes by this node, newest first:")?;
        }
        for probe in self.probes.iter().take(PROBES_IN_WORDS) {
            write!(f, "  {} ago: {}", self.ago(probe.sent_at), probe.outcome)?;
            match probe.late_ack {
                Some(after) => writeln!(f, "; its own answer came after {}", Span(after))?,
                None => writeln!(f)?,
            }
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
}
