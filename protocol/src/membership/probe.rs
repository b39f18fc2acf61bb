//! Failure detection: each probe interval one member is asked whether it is there, directly, then
//! through relays and over a stream (SWIM §3.1, §4.3; Lifeguard §IV-A; Go `probeNode`).
//!
//! Members are probed round robin in random order, so that the time to the next probe of any of
//! them is bounded. Invariants: one probe runs at a time; an ack counts only from the member that
//! was probed or from a relay that was asked; a member becomes suspect only at the end of a whole
//! probe interval.
//!
//! A node that doubts itself stretches the interval, not the timeout of the direct ping, as Go
//! does (the paper stretches both).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::diary::{HealthCause, ProbeNote, ProbeOutcome, ProbeRecord};
use super::event::{FailedProbe, OperationId, RelayOutcome, StreamOutcome};
use super::gossip::Outgoing;
use super::push_pull::Purpose as ExchangePurpose;
use super::relay::not_from;
use super::timer::{Timer, TimerKey};
use super::{Event, Membership, StreamRequestKind};
use crate::message::{Ack, Suspect};
use crate::node::{Node, NodeState, Peer};
use crate::stats::DropReason;
use crate::wire::Dialect;

/// Peers of at least this protocol version answer a ping over a stream.
const STREAM_PING_VERSION: u8 = 3;
/// Peers of at least this protocol version know nacks.
const NACK_VERSION: u8 = 4;

/// The probe that is running.
#[derive(Debug)]
pub(super) struct Probe {
    node: Arc<Node>,
    /// That of the direct ping.
    dialect: Dialect,
    incarnation: u32,
    sequence: u32,
    sent_at: Instant,
    /// The probe interval, stretched by the health score.
    interval: Duration,
    /// The end of the direct leg; gone once relays were asked.
    timeout: Option<TimerKey>,
    deadline: TimerKey,
    send_failed: bool,
    relays: Vec<Relay>,
    stream: StreamOutcome,
    stream_id: Option<OperationId>,
    stream_acked: bool,
    /// Where an ack came from that did not count.
    stray_ack: Option<SocketAddr>,
}

/// The least that a ping waits by the round trips of its target: also a fast member pauses.
const MIN_RTT_TIMEOUT: Duration = Duration::from_millis(50);

/// A relay that was asked.
#[derive(Debug)]
struct Relay {
    node: Arc<Node>,
    /// It knows nacks and was asked for one.
    wants_nack: bool,
    nacked: bool,
}

impl Relay {
    /// At its address, and of its name where the transport has verified one.
    fn is(&self, from: &Peer) -> bool {
        self.node.addr == from.addr && from.name.as_ref().is_none_or(|name| *name == self.node.id)
    }
}

impl Membership {
    /// A probe is due. While the last one is still running, it is due as soon as that ends.
    pub(super) fn probe_tick(&mut self, now: Instant) {
        let next = self.timers.arm(now + self.config.probe_interval, Timer::ProbeTick);
        self.probe_timer = Some(next);
        match &self.probe {
            None => self.start_probe(now),
            // It began at this very instant, for the tick before, and is this tick's as well.
            Some(probe) if probe.sent_at == now => {}
            Some(_) => self.probe_overdue = true,
        }
    }

    fn start_probe(&mut self, now: Instant) {
        if self.leaving {
            return;
        }
        let Some(position) = self.next_to_probe(now) else {
            return;
        };
        let record = self.members.at(position);
        let (node, incarnation) = (Arc::clone(&record.node), record.incarnation());
        let suspected = record.state() != NodeState::Alive;

        let mut interval = self.config.probe_interval;
        if self.config.lifeguard.health_aware_probe {
            interval = self.awareness.scale(interval);
        }
        self.stats.probes += 1;
        self.stats.probes_degraded += u64::from(interval > self.config.probe_interval);
        let sequence = self.next_sequence();
        let timeout = self.timers.arm(now + self.config.probe_timeout, Timer::ProbeTimeout);
        let deadline = self.timers.arm(now + interval, Timer::ProbeDeadline);
        // Buddy system: who is suspected hears it with the ping, not some gossip rounds later.
        let accuse = (suspected && self.config.lifeguard.buddy_system).then_some(incarnation);
        let to = Peer::named(node.addr, node.id.clone());
        let (dialect, piggyback) = (self.dialect_for(&to), accuse.is_none());
        self.send_later(Outgoing::Ping { to, dialect: Some(dialect), sequence, accuse, piggyback });
        self.probe = Some(Probe {
            node,
            dialect,
            incarnation,
            sequence,
            sent_at: now,
            interval,
            timeout: Some(timeout),
            deadline,
            send_failed: false,
            relays: Vec::new(),
            stream: StreamOutcome::NotTried,
            stream_id: None,
            stream_acked: false,
            stray_ack: None,
        });
    }

    /// A packet is leaving for this peer, and its round trip is known: a ping among it has to wait for
    /// no longer than some of those.
    pub fn handle_rtt(&mut self, to: &Peer, rtt: Duration) {
        let round_trips = self.config.probe_timeout_round_trips;
        let Some(probe) = self.probe.as_mut().filter(|p| round_trips > 0 && p.node.addr == to.addr)
        else {
            return;
        };
        let wait = rtt.saturating_mul(round_trips).max(MIN_RTT_TIMEOUT);
        let Some(timeout) = probe.timeout.filter(|_| wait < self.config.probe_timeout) else {
            return;
        };
        self.timers.cancel(timeout);
        probe.timeout = Some(self.timers.arm(probe.sent_at + wait, Timer::ProbeTimeout));
    }

    /// The next live member of the ring. When the ring wraps, the dead are reaped and the order is
    /// shuffled; at most one wrap a call, so that a cluster of two is probed at every tick.
    pub(super) fn next_to_probe(&mut self, now: Instant) -> Option<usize> {
        let mut wrapped = false;
        loop {
            let at = self.members.probe_index;
            if at >= self.members.len() {
                if wrapped {
                    return None;
                }
                wrapped = true;
                self.reap(now);
                self.members.shuffle(&mut self.rng);
                self.members.probe_index = 0;
                continue;
            }
            self.members.probe_index += 1;
            let record = self.members.at(at);
            if record.state().is_live() && record.node.id != self.id {
                return Some(at);
            }
        }
    }

    /// The direct ping was not answered in time: ask relays, and try a stream.
    pub(super) fn probe_timeout(&mut self, now: Instant) {
        let Some(mut probe) = self.probe.take() else {
            return;
        };
        probe.timeout = None;
        self.ping_in_other_dialect(&probe);
        self.ask_relays(&mut probe);
        self.ping_over_stream(&mut probe, now);
        self.probe = Some(probe);
    }

    /// In a mixed cluster the target may have been replaced by a node of the other kind.
    fn ping_in_other_dialect(&mut self, probe: &Probe) {
        let to = Peer::named(probe.node.addr, probe.node.id.clone());
        let dialect = self.other_dialect(probe.dialect);
        if dialect.is_some() {
            self.forget_dialect(&to);
            let (sequence, accuse) = (probe.sequence, None);
            self.send_later(Outgoing::Ping { to, dialect, sequence, accuse, piggyback: false });
        }
    }

    fn ask_relays(&mut self, probe: &mut Probe) {
        let (own, target) = (&self.id, &probe.node.id);
        let chosen = self.members.random(self.config.indirect_probes, &mut self.rng, |record| {
            record.state() == NodeState::Alive
                && record.node.id != *own
                && record.node.id != *target
        });
        for position in chosen {
            let node = Arc::clone(&self.members.at(position).node);
            let (_, max, _) = node.versions.protocol();
            let wants_nack = self.config.lifeguard.health_aware_probe && max >= NACK_VERSION;
            self.send_later(Outgoing::IndirectPing {
                to: Peer::named(node.addr, node.id.clone()),
                sequence: probe.sequence,
                target: Arc::clone(&probe.node),
                nack: wants_nack,
            });
            probe.relays.push(Relay { node, wants_nack, nacked: false });
        }
    }

    fn ping_over_stream(&mut self, probe: &mut Probe, now: Instant) {
        let (_, max, _) = probe.node.versions.protocol();
        let allowed = self.config.stream_ping
            && max >= STREAM_PING_VERSION
            && self.app.allows_stream_ping(&probe.node);
        if !allowed {
            return;
        }
        let left = (probe.deadline.at()).saturating_duration_since(now);
        let to = Peer::named(probe.node.addr, probe.node.id.clone());
        let kind = StreamRequestKind::Ping { sequence: probe.sequence, timeout: left };
        probe.stream = StreamOutcome::NoAnswer;
        probe.stream_id = Some(self.start_exchange(to, kind, ExchangePurpose::ProbePing));
    }

    /// The ping of the running probe could not be sent: do not wait for its answer.
    pub(super) fn probe_send_failed(&mut self, to: &Peer, now: Instant) {
        let Some(probe) = self.probe.as_mut() else {
            return;
        };
        if probe.node.addr != to.addr || probe.send_failed {
            return;
        }
        let Some(timeout) = probe.timeout.take() else {
            return;
        };
        probe.send_failed = true;
        self.timers.cancel(timeout);
        self.probe_timeout(now);
    }

    /// Whom the running probe pings, if it has that number.
    pub(super) fn probed(&self, sequence: u32) -> Option<Peer> {
        let probe = self.probe.as_ref().filter(|probe| probe.sequence == sequence)?;
        Some(Peer::named(probe.node.addr, probe.node.id.clone()))
    }

    /// Whether this ack is for the running probe (and then it has been dealt with).
    pub(super) fn probe_acked(&mut self, from: &Peer, ack: &Ack<'_>, now: Instant) -> bool {
        let Some(probe) = self.probe.as_ref().filter(|p| p.sequence == ack.sequence) else {
            self.note_late_ack(from, ack.sequence, now);
            return false;
        };
        if !self.is_asked(from, probe) {
            let reason = not_from(from, probe.node.addr);
            if let Some(probe) = &mut self.probe {
                probe.stray_ack = Some(from.addr);
            }
            self.drop(reason);
            return true;
        }
        let Some(probe) = self.probe.as_ref() else { return true };
        let target = Arc::clone(&probe.node);
        self.learn_dialect(target.id.as_str(), from, ack.native);
        let elsewhere = from.addr != target.addr;
        if elsewhere && !self.probe.as_ref().is_some_and(|p| p.relays.iter().any(|r| r.is(from))) {
            // The digests of such a member cannot be heard.
            self.miss_view(&target.id);
        }
        let Some(probe) = self.probe.as_ref() else { return true };
        let rtt = now.saturating_duration_since(probe.sent_at);
        let outcome = match probe.timeout {
            Some(_) => {
                self.stats.probes_acked_direct += 1;
                let (node, payload) = (target, Bytes::copy_from_slice(ack.payload));
                self.events.push_back(Event::PingCompleted { node, rtt, payload });
                ProbeOutcome::Direct(rtt)
            }
            None => {
                self.stats.probes_acked_indirect += 1;
                match probe.relays.iter().find(|relay| relay.is(from)) {
                    Some(relay) => ProbeOutcome::Relayed { by: relay.node.id.to_string() },
                    None if from.addr == probe.node.addr => ProbeOutcome::Late(rtt),
                    None => ProbeOutcome::Relayed { by: from.addr.to_string() },
                }
            }
        };
        // A ping that could not even be sent tells of this node's network, not of its health.
        let delta = if probe.send_failed { 0 } else { -1 };
        self.end_probe(outcome, delta, 0, now);
        true
    }

    /// Whether an ack may come from there: the probed node, or one that was asked to ping it.
    fn is_asked(&self, from: &Peer, probe: &Probe) -> bool {
        self.is_from(from, &Peer::named(probe.node.addr, probe.node.id.clone()))
            || probe.relays.iter().any(|relay| relay.is(from))
    }

    pub(super) fn probe_nacked(&mut self, from: &Peer, sequence: u32) {
        let Some(probe) = self.probe.as_mut().filter(|p| p.sequence == sequence) else {
            return self.drop(DropReason::UnexpectedAck);
        };
        match probe.relays.iter_mut().find(|relay| relay.is(from)) {
            Some(relay) => relay.nacked = true,
            None => self.drop(DropReason::AckFromStranger),
        }
    }

    /// The ping over a stream has ended, with the ack of that sequence number or without any.
    pub(super) fn probe_stream_done(&mut self, id: OperationId, acked: Option<u32>) {
        let Some(probe) = self.probe.as_mut().filter(|p| p.stream_id == Some(id)) else {
            return;
        };
        probe.stream_acked = acked == Some(probe.sequence);
        if !probe.stream_acked {
            probe.stream = StreamOutcome::Failed;
        }
    }

    /// The probe interval is over without an ack.
    pub(super) fn probe_deadline(&mut self, now: Instant) {
        let Some(probe) = self.probe.as_ref() else {
            return;
        };
        if probe.stream_acked {
            self.stats.probes_acked_stream += 1;
            let (node, stray_ack) = (Arc::clone(&probe.node), probe.stray_ack);
            self.events.push_back(Event::PacketsLost { node, stray_ack });
            return self.end_probe(ProbeOutcome::StreamOnly { stray_ack }, -1, 0, now);
        }
        let expected = probe.relays.iter().filter(|relay| relay.wants_nack).count();
        let nacks = probe.relays.iter().filter(|relay| relay.wants_nack && relay.nacked).count();
        let delta = if expected > 0 { (expected - nacks) as i32 } else { 1 };
        let failed = Arc::new(FailedProbe {
            sent_at: probe.sent_at,
            waited: probe.interval,
            send_failed: probe.send_failed,
            relays: (probe.relays.iter())
                .map(|r| RelayOutcome { relay: r.node.id.clone(), nacked: r.nacked })
                .collect(),
            stream: probe.stream,
            stray_ack: probe.stray_ack,
        });
        let (id, incarnation) = (probe.node.id.clone(), probe.incarnation);
        let own = self.id.clone();
        self.stats.probes_failed += 1;
        let suspect = Suspect { incarnation, node: id.as_str(), from: own.as_str() };
        self.suspect(&suspect, Some(Arc::clone(&failed)), now);
        let silent_relays = (expected - nacks) as u32;
        self.end_probe(ProbeOutcome::Failed(failed), delta, silent_relays, now);
    }

    fn end_probe(
        &mut self,
        outcome: ProbeOutcome,
        health_delta: i32,
        silent_relays: u32,
        now: Instant,
    ) {
        let Some(probe) = self.probe.take() else {
            return;
        };
        let node = probe.node.id.clone();
        let cause = match outcome.is_answered() {
            true => HealthCause::Answered(node.clone()),
            false => HealthCause::Unanswered { node: node.clone(), silent_relays },
        };
        if let (ProbeOutcome::Direct(rtt) | ProbeOutcome::Late(rtt), Some(record)) =
            (&outcome, self.members.get_mut(node.as_str()))
        {
            record.set_rtt(*rtt);
        }
        let (asked_relays, asked_stream) = (!probe.relays.is_empty(), probe.stream_id.is_some());
        let (direct, by_stream, by_nobody) = match &outcome {
            ProbeOutcome::Direct(_) => (true, false, false),
            ProbeOutcome::Late(_) | ProbeOutcome::Relayed { .. } => (false, false, false),
            ProbeOutcome::StreamOnly { .. } => (false, true, false),
            ProbeOutcome::Failed(_) => (false, false, true),
        };
        let stats = &mut self.stats;
        stats.probes_unanswered_direct += u64::from(!direct);
        stats.probes_unanswered_indirect += u64::from(asked_relays && (by_stream || by_nobody));
        stats.probes_unanswered_stream += u64::from(asked_stream && by_nobody);
        let (sent_at, incarnation, late_ack) = (probe.sent_at, probe.incarnation, None);
        let record = ProbeRecord { sent_at, ended_at: now, incarnation, outcome, late_ack };
        self.diary.note_probe(ProbeNote { node: probe.node, sequence: probe.sequence, record });
        probe.timeout.into_iter().for_each(|key| self.timers.cancel(key));
        self.timers.cancel(probe.deadline);
        self.change_health(health_delta, cause, now);
        if std::mem::take(&mut self.probe_overdue) {
            self.start_probe(now);
        }
    }
}
