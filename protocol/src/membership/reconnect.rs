//! Reconnecting: finding failed members again (Serf's `reconnect`; Go memberlist has nothing of the
//! kind).
//!
//! A partition that outlives the dead window leaves two clusters that have buried each other. So
//! from time to time one failed member is pinged under its name and, in the same packet, told at
//! which incarnation it is believed dead: if it is there it refutes, its ack carries the refutation
//! back, and the two sides exchange their states. Asking by name first keeps a recycled address
//! from welding two clusters together. The chance to try is failed / alive, so that a thousand
//! nodes do not hammer one address. Invariant: members that left are never tried.

use std::time::Instant;

use rand::RngExt;

use super::gossip::Outgoing;
use super::push_pull::Purpose as ExchangePurpose;
use super::relay::{Answers, Purpose};
use super::timer::Timer;
use super::{Membership, StreamRequestKind};
use crate::message::PingSource;
use crate::node::{NodeId, NodeState, Peer};
use crate::stats::DropReason;

impl Membership {
    /// Starts the tick when there is somebody to look for.
    pub(super) fn arm_reconnect(&mut self, now: Instant) {
        let config = &self.config;
        let off = config.reconnect_interval.is_zero() || config.reconnect_timeout.is_zero();
        if off || self.leaving || self.reconnect_timer.is_some() {
            return;
        }
        let first = now + self.random_part(self.config.reconnect_interval);
        self.reconnect_timer = Some(self.timers.arm(first, Timer::ReconnectTick));
    }

    pub(super) fn reconnect_tick(&mut self, now: Instant) {
        self.reconnect_timer = None;
        if self.leaving {
            return;
        }
        let failed = self.failed_members(now);
        if failed.is_empty() {
            return;
        }
        let next = now + self.config.reconnect_interval;
        self.reconnect_timer = Some(self.timers.arm(next, Timer::ReconnectTick));

        let chance = failed.len() as f64 / self.members.live().max(1) as f64;
        if self.rng.random::<f64>() >= chance {
            return;
        }
        let chosen = self.rng.random_range(0..failed.len());
        let (peer, incarnation) = failed[chosen].clone();
        self.stats.reconnects += 1;
        let Some(member) = peer.name.clone() else { return };
        self.ask_whether_back(peer, incarnation, Purpose::Reconnect { member }, now);
    }

    fn failed_members(&self, now: Instant) -> Vec<(Peer, u32)> {
        let patience = self.config.reconnect_timeout;
        let wanted = |state: NodeState, since: Instant| {
            state == NodeState::Dead && now.saturating_duration_since(since) <= patience
        };
        let known = (self.members.iter())
            .filter(|record| wanted(record.state(), record.since))
            .map(|record| (&record.node, record.incarnation()));
        let reaped = (self.tombstones.iter())
            .filter(|tombstone| wanted(tombstone.state, tombstone.since))
            .map(|tombstone| (&tombstone.node, tombstone.incarnation));
        known
            .chain(reaped)
            .map(|(node, incarnation)| (Peer::named(node.addr, node.id.clone()), incarnation))
            .collect()
    }

    /// Stale news came of a reaped member: perhaps it is back. Ask it, at most once a probe
    /// interval.
    pub(super) fn ask_to_refute(&mut self, name: &str, now: Instant) {
        let spacing = self.config.probe_interval.max(self.config.probe_timeout);
        let Some(tombstone) = self.tombstones.get_mut(name) else {
            return;
        };
        let recently = |at: Instant| now.saturating_duration_since(at) < spacing;
        if self.leaving || tombstone.asked_at.is_some_and(recently) {
            return;
        }
        tombstone.asked_at = Some(now);
        let peer = Peer::named(tombstone.node.addr, tombstone.node.id.clone());
        let incarnation = tombstone.incarnation;
        self.ask_whether_back(peer, incarnation, Purpose::AskToRefute, now);
    }

    /// Who pings is there: if this node holds it for dead, or for one that has left, it is told so, and refutes.
    /// It may have been cut off alone, or its farewell is somebody else's lie. Who has left pings nobody of its
    /// own accord, and would say farewell again.
    pub(super) fn tell_the_buried(
        &mut self,
        from: &Peer,
        source: PingSource<'_>,
        answers: &mut Answers,
        now: Instant,
    ) {
        let known = (self.members.get(source.node))
            .map(|record| (&record.node, record.incarnation(), record.state()));
        let buried = known.or_else(|| {
            let tombstone = self.tombstones.get(source.node)?;
            Some((&tombstone.node, tombstone.incarnation, tombstone.state))
        });
        let Some((node, incarnation, state)) = buried else { return };
        if state.is_live()
            || self.leaving
            || node.addr != from.addr
            || !std::mem::take(&mut answers.old_news)
        {
            return;
        }
        let to = Peer::named(node.addr, node.id.clone());
        match self.settled.may_answer(now) {
            true => {
                self.send_later(Outgoing::Accuse { to, incarnation, from: self.id.clone() });
            }
            false => self.drop(DropReason::TooManyAnswers),
        }
    }

    fn ask_whether_back(&mut self, peer: Peer, incarnation: u32, purpose: Purpose, now: Instant) {
        let expiry = now + self.config.probe_timeout;
        self.send_ping(peer, Some(incarnation), expiry, purpose);
    }

    /// The failed member is there, under its name: exchange states with it, unless it has been found
    /// meanwhile, or an exchange with another one is under way, which may bring all of them.
    pub(super) fn reconnect_answered(&mut self, member: NodeId, from: &Peer) {
        let found = self.members.get(member.as_str()).is_some_and(|r| r.state().is_live());
        if self.leaving || found || self.is_exchanging(ExchangePurpose::Reconnect) {
            return;
        }
        let peer = Peer::named(from.addr, member);
        let kind = StreamRequestKind::PushPull { join: false };
        self.start_exchange(peer, kind, ExchangePurpose::Reconnect);
    }
}
