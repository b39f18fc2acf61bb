//! What news changes: the rules for alive, suspect and dead messages (SWIM §4.2; Go `aliveNode`,
//! `suspectNode`, `deadNode`).
//!
//! For one name and address the order is: a higher incarnation wins; at the same incarnation dead
//! beats suspect beats alive. Invariant: news that is accepted is also passed on, news that changes
//! nothing is not, and a refused message changes nothing at all.
//!
//! Departures from Go, each closing a way to harm a cluster with one packet: a left member's name
//! moves to a new address only at a higher incarnation; incarnations of 0, of 2^31 and more, and
//! jumps of more than 2^20 over a known one are refused; news of a reaped member that is not newer
//! than its tombstone is refused, and the member itself is asked to refute.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::event::{Death, FailedProbe, SuspicionSummary};
use super::gossip::Outgoing;
use super::members::Record;
use super::suspicion::{Suspicion, SuspicionPlan};
use super::timer::Timer;
use super::{
    Application, Event, MAX_INCARNATION, MAX_INCARNATION_JUMP, Membership, OperationId, alive_of,
    scale,
};
use rand::RngExt;

use crate::message::{Alive, Dead, Message, Suspect};
use crate::node::{Node, NodeId, NodeState, Peer, Versions, canonical};
use crate::stats::DropReason;

/// What is to be done with an alive message.
enum Verdict {
    /// Nothing new, or not to be believed (and then counted).
    Ignore,
    /// Somebody else claims the name.
    Conflict,
    /// Contradict it: it is about this node.
    Refute,
    /// Believe it.
    Accept,
}

impl Membership {
    // ---- alive --------------------------------------------------------------------------------

    /// Applies an alive message that somebody sent.
    pub(super) fn alive(&mut self, alive: &Alive<'_>, now: Instant) {
        let verdict = match self.judge_alive(alive, now) {
            Ok(verdict) => verdict,
            Err(reason) => return self.drop(reason),
        };
        match verdict {
            Verdict::Ignore => {}
            Verdict::Refute => {
                self.stats.alives_accepted += 1;
                self.refute(alive.incarnation, NodeState::Alive, None, now);
            }
            Verdict::Conflict => {
                self.drop(DropReason::AddressConflict);
                if let (Some(record), Some(other)) = (self.members.get(alive.node), to_node(alive))
                {
                    let existing = Arc::clone(&record.node);
                    self.events.push_back(Event::Conflict { existing, other: Box::new(other) });
                }
            }
            Verdict::Accept => {
                let Some(node) = to_node(alive) else {
                    return self.drop(DropReason::BadName);
                };
                if self.app.admit_alive(&node).is_err() {
                    return self.drop(DropReason::NotAdmitted);
                }
                self.accept_alive(node, alive, now);
            }
        }
    }

    fn judge_alive(&mut self, alive: &Alive<'_>, now: Instant) -> Result<Verdict, DropReason> {
        let own = self.is_self(alive.node);
        if own && self.leaving {
            return Ok(Verdict::Ignore);
        }
        check_versions(alive.versions)?;
        if !own {
            check_compatible(self.own_record().node.versions, alive.versions)?;
        }
        check_range(alive.incarnation)?;
        if alive.meta.len() > self.config.max_meta_bytes {
            return Err(DropReason::MetaTooLarge);
        }
        let Some(record) = self.members.get(alive.node) else {
            return self.judge_unknown(alive, now);
        };
        let known = record.incarnation();
        let moved = record.node.addr != canonical(alive.addr);
        if moved && !self.may_move(record, alive, now)? {
            return Ok(Verdict::Conflict);
        }
        match own {
            true => self.check_own_jump(alive.incarnation, now)?,
            false => check_jump(known, alive.incarnation)?,
        }
        let Some(record) = self.members.get(alive.node) else {
            return Ok(Verdict::Ignore);
        };
        if own {
            let identical = alive.incarnation == known
                && record.node.meta == alive.meta
                && record.node.versions == alive.versions;
            return Ok(match alive.incarnation < known || identical {
                true => Verdict::Ignore,
                false => Verdict::Refute,
            });
        }
        // A takeover that is allowed is so at any incarnation: the new process starts again at 1.
        Ok(if moved || alive.incarnation > known { Verdict::Accept } else { Verdict::Ignore })
    }

    fn judge_unknown(&mut self, alive: &Alive<'_>, now: Instant) -> Result<Verdict, DropReason> {
        if self.members.len() >= self.config.max_members {
            return Err(DropReason::TooManyMembers);
        }
        if self.tombstones.refuses(alive, self.config.gossip_to_the_dead_time, now) {
            self.ask_to_refute(alive.node, now);
            return Err(DropReason::StaleNews);
        }
        Ok(Verdict::Accept)
    }

    /// Whether a known name may be used at another address.
    fn may_move(
        &self,
        record: &Record,
        alive: &Alive<'_>,
        now: Instant,
    ) -> Result<bool, DropReason> {
        match record.state() {
            // A forged farewell must not hand over the name: the victim refutes above it.
            NodeState::Left if alive.incarnation > record.incarnation() => Ok(true),
            NodeState::Left => Err(DropReason::NameTaken),
            NodeState::Dead => {
                let reclaim = self.config.dead_node_reclaim_time;
                Ok(!reclaim.is_zero() && now.saturating_duration_since(record.since) > reclaim)
            }
            NodeState::Alive | NodeState::Suspect => Ok(false),
        }
    }

    fn accept_alive(&mut self, mut node: Node, alive: &Alive<'_>, now: Instant) {
        let id = node.id.clone();
        let known = self.members.position(alive.node);
        // What is passed on is what came; what is remembered has all six version numbers.
        if !alive.versions.is_complete() {
            node.versions = known.map_or(Versions::new((0, 0, 0), (0, 0, 0)), |position| {
                self.members.at(position).node.versions
            });
        }
        let (position, news) = match known {
            Some(position) => (position, Some(node)),
            None => {
                self.tombstones.remove(alive.node);
                let record = Record::new(share(&mut *self.app, node), 0, NodeState::Dead, now);
                (self.members.insert(record, &mut self.rng), None)
            }
        };
        self.stats.alives_accepted += 1;
        self.clear_suspicion(position);
        self.members.set_incarnation(position, alive.incarnation);
        let record = self.members.at_mut(position);
        let was = record.state();
        let differs =
            |node: &Node| record.node.meta != node.meta || record.node.versions != node.versions;
        let changed = news.as_ref().is_some_and(differs);
        // Another process may be there now.
        record.native &= was.is_live() && canonical(alive.addr) == record.node.addr;
        if let Some(node) = news.filter(|node| *node != *record.node) {
            record.node = share(&mut *self.app, node);
        }
        record.death = None;
        let node = Arc::clone(&record.node);
        if was != NodeState::Alive {
            self.members.set_state(position, NodeState::Alive, now);
        }
        match alive_of(&node, alive.incarnation) == *alive {
            true => self.queue_announcement(node, alive.incarnation, now),
            // As it came, for instance with fewer version numbers.
            false => self.queue_news(id, &Message::Alive(*alive), None, now),
        }
        let member = self.members.at(position).to_member();
        if was.is_gone() {
            self.events.push_back(Event::Joined(member));
            return;
        }
        if was == NodeState::Suspect {
            self.stats.suspicions_refuted += 1;
            self.events.push_back(Event::Cleared(member.clone()));
        }
        if changed {
            self.events.push_back(Event::Updated(member));
        } else if was == NodeState::Alive {
            self.events.push_back(Event::Renewed(member));
        }
    }

    pub(super) fn clear_suspicion(&mut self, position: usize) -> Option<Box<Suspicion>> {
        let suspicion = self.members.at_mut(position).suspicion.take()?;
        self.timers.cancel(suspicion.timer);
        Some(suspicion)
    }

    // ---- suspect ------------------------------------------------------------------------------

    /// Applies a suspicion: somebody's, or with `probe` the own one.
    pub(super) fn suspect(
        &mut self,
        suspect: &Suspect<'_>,
        probe: Option<Arc<FailedProbe>>,
        now: Instant,
    ) {
        let Some(position) = self.accused(suspect.node, suspect.incarnation, now) else {
            return;
        };
        let record = self.members.at(position);
        if record.suspicion.is_some() {
            return self.confirm_suspicion(position, suspect, probe, now);
        }
        // Who has left suspects nobody: it hears of refutations by chance only.
        if record.state() != NodeState::Alive || self.leaving {
            return;
        }
        if self.is_self(suspect.node) {
            let (accused, by) = (suspect.incarnation, Some(suspect.from));
            return self.refute(accused, NodeState::Suspect, by, now);
        }
        let Ok(from) = NodeId::new(suspect.from) else {
            return self.drop(DropReason::BadName);
        };
        let id = record.node.id.clone();
        self.stats.suspicions += 1;
        self.queue_news(id, &Message::Suspect(*suspect), None, now);
        self.begin_suspicion(position, suspect.incarnation, from, probe, now);
        self.tell_accused(position);
    }

    /// Marks a member as suspect, and gives it its time to refute.
    fn begin_suspicion(
        &mut self,
        position: usize,
        incarnation: u32,
        accuser: NodeId,
        probe: Option<Arc<FailedProbe>>,
        now: Instant,
    ) {
        let id = self.members.at(position).node.id.clone();
        let plan = self.suspicion_plan();
        let timer = self.timers.arm(now + plan.first_timeout(), Timer::Suspicion(id));
        self.members.set_incarnation(position, incarnation);
        let record = self.members.at_mut(position);
        record.suspicion = Some(Box::new(Suspicion {
            timer,
            began: now,
            accusers: vec![accuser],
            wanted: plan.wanted,
            min: plan.min,
            max: plan.max,
            probe,
        }));
        self.members.set_state(position, NodeState::Suspect, now);
        self.events.push_back(Event::Suspected(self.members.at(position).to_member()));
    }

    /// Suspects a member without telling others: of that they know better.
    pub(super) fn doubt(&mut self, id: &NodeId, now: Instant) {
        let Some(position) = self.members.position(id.as_str()) else { return };
        let record = self.members.at(position);
        if record.state() != NodeState::Alive || self.is_self(id.as_str()) {
            return;
        }
        let (incarnation, own) = (record.incarnation(), self.id.clone());
        let to = Peer::named(record.node.addr, id.clone());
        self.stats.suspicions += 1;
        self.begin_suspicion(position, incarnation, own.clone(), None, now);
        self.send_later(Outgoing::Accuse { to, incarnation, from: own });
    }

    /// Tells a member at once that it is suspected. Of all that learn of a suspicion about three do,
    /// so that its refutation does not depend on gossip finding it (the buddy system, taken further).
    fn tell_accused(&mut self, position: usize) {
        const TELLERS: f64 = 3.0;
        let others = self.members.live().saturating_sub(2).max(1);
        let chance = TELLERS / others as f64;
        let wanted = self.config.lifeguard.buddy_system && !self.leaving;
        if !wanted || (chance < 1.0 && self.rng.random::<f64>() >= chance) {
            return;
        }
        let record = self.members.at(position);
        let Some(suspicion) = &record.suspicion else { return };
        let to = Peer::named(record.node.addr, record.node.id.clone());
        let (incarnation, from) = (record.incarnation(), suspicion.accusers[0].clone());
        self.send_later(Outgoing::Accuse { to, incarnation, from });
    }

    fn suspicion_plan(&self) -> SuspicionPlan {
        // Only the living can confirm: who has left must not be waited for.
        let (n, live) = (self.members.len(), self.members.live());
        let config = &self.config;
        // A node that does not probe still hears of suspicions, and must give time to refute them.
        let interval = match config.probe_interval {
            Duration::ZERO => Duration::from_secs(1),
            interval => interval,
        };
        let min = scale::suspicion_timeout(config.suspicion_mult, n, interval);
        let mut plan =
            SuspicionPlan::new(config.suspicion_mult, live, min, config.suspicion_max_timeout_mult);
        if !config.lifeguard.dynamic_suspicion {
            plan.wanted = 0;
        }
        plan
    }

    fn confirm_suspicion(
        &mut self,
        position: usize,
        suspect: &Suspect<'_>,
        probe: Option<Arc<FailedProbe>>,
        now: Instant,
    ) {
        let record = self.members.at_mut(position);
        let id = record.node.id.clone();
        let Some(suspicion) = record.suspicion.as_mut() else {
            return;
        };
        if probe.is_some() {
            suspicion.probe = probe;
        }
        let Some(timeout) = suspicion.confirm(suspect.from) else {
            return;
        };
        let (old, at) = (suspicion.timer, suspicion.began + timeout);
        self.timers.cancel(old);
        let timer = self.timers.arm(at, Timer::Suspicion(id.clone()));
        if let Some(suspicion) = self.members.at_mut(position).suspicion.as_mut() {
            suspicion.timer = timer;
        }
        self.stats.suspicions_confirmed += 1;
        self.queue_news(id, &Message::Suspect(*suspect), None, now);
    }

    /// The suspicion was not refuted in time: declare the member dead.
    pub(super) fn suspicion_expired(&mut self, id: &NodeId, now: Instant) {
        let Some(record) = self.members.get(id.as_str()) else {
            return;
        };
        let Some(suspicion) = record.suspicion.as_ref() else {
            return;
        };
        self.stats.suspicions_expired += 1;
        if suspicion.confirmations() < suspicion.wanted {
            self.stats.suspicions_degraded += 1;
        }
        let (incarnation, own) = (record.incarnation(), self.id.clone());
        self.dead(&Dead { incarnation, node: id.as_str(), from: own.as_str() }, now);
    }

    // ---- dead ---------------------------------------------------------------------------------

    /// Applies a death or a farewell.
    pub(super) fn dead(&mut self, dead: &Dead<'_>, now: Instant) {
        let Some(position) = self.accused(dead.node, dead.incarnation, now) else {
            return;
        };
        if self.members.at(position).state().is_gone() {
            return;
        }
        if self.is_self(dead.node) && !self.leaving {
            return self.refute(dead.incarnation, NodeState::Dead, Some(dead.from), now);
        }
        self.accept_dead(position, dead, None, now);
    }

    /// Marks a member as gone and tells the others.
    pub(super) fn accept_dead(
        &mut self,
        position: usize,
        dead: &Dead<'_>,
        done: Option<OperationId>,
        now: Instant,
    ) {
        let Ok(declared_by) = NodeId::new(dead.from) else {
            return self.drop(DropReason::BadName);
        };
        let suspicion = self.clear_suspicion(position);
        let id = self.members.at(position).node.id.clone();
        self.queue_news(id, &Message::Dead(*dead), done, now);
        self.stats.deads_accepted += 1;

        let left = dead.node == dead.from;
        let death = Death {
            declared_by,
            at: now,
            left,
            probe: suspicion.as_ref().and_then(|s| s.probe.clone()),
            suspicion: suspicion.map(|s| SuspicionSummary {
                began: s.began,
                suspected_by: s.accusers,
                confirmations_wanted: s.wanted,
            }),
        };
        self.members.set_incarnation(position, dead.incarnation);
        let record = self.members.at_mut(position);
        record.death = Some(Arc::new(death));
        let state = if left { NodeState::Left } else { NodeState::Dead };
        self.members.set_state(position, state, now);
        self.events.push_back(Event::Gone(self.members.at(position).to_member()));
        self.arm_reconnect(now);
    }

    /// Where the accused is in the table, if the accusation is not out of date or out of range.
    fn accused(&mut self, name: &str, incarnation: u32, now: Instant) -> Option<usize> {
        let position = self.members.position(name)?;
        let known = self.members.at(position).incarnation();
        if incarnation < known {
            return None;
        }
        let in_reach = check_range(incarnation).and_then(|()| match self.is_self(name) {
            // What is said of a node that has left is not refuted.
            true if !self.leaving => self.check_own_jump(incarnation, now),
            _ => check_jump(known, incarnation),
        });
        match in_reach {
            Ok(()) => Some(position),
            Err(reason) => {
                self.drop(reason);
                None
            }
        }
    }
}

/// The record to keep. The table finds it by its name, so that must be the same.
fn share(app: &mut dyn Application, node: Node) -> Arc<Node> {
    let id = node.id.clone();
    let shared = app.share(node);
    if shared.id == id { shared } else { Arc::new(Node { id, ..(*shared).clone() }) }
}

fn to_node(alive: &Alive<'_>) -> Option<Node> {
    Some(Node {
        id: NodeId::new(alive.node).ok()?,
        addr: canonical(alive.addr),
        meta: bytes::Bytes::copy_from_slice(alive.meta),
        versions: alive.versions,
        wide_ipv4: alive.wide_ipv4,
    })
}

/// Version numbers must make a range, as far as they were sent.
fn check_versions(versions: Versions) -> Result<(), DropReason> {
    let (min, max, _) = versions.protocol();
    let complete = versions.as_bytes().len() >= 3;
    if complete && (min == 0 || max == 0 || min > max) {
        return Err(DropReason::BadVersions);
    }
    Ok(())
}

/// Whether two nodes understand each other: each speaks a version in the other's range. One announcement
/// of a node that nobody here could talk to would otherwise make every exchange of states fail.
fn check_compatible(own: Versions, other: Versions) -> Result<(), DropReason> {
    let understood =
        |(min, max, _): (u8, u8, u8), (_, _, current): (u8, u8, u8)| (min..=max).contains(&current);
    let both = |a: (u8, u8, u8), b: (u8, u8, u8)| understood(a, b) && understood(b, a);
    let compatible = !other.is_complete()
        || (both(own.protocol(), other.protocol()) && both(own.application(), other.application()));
    if compatible { Ok(()) } else { Err(DropReason::Incompatible) }
}

/// No living node is at incarnation 0, and above the maximum nobody could refute any more.
pub(super) fn check_range(incarnation: u32) -> Result<(), DropReason> {
    match incarnation {
        1..=MAX_INCARNATION => Ok(()),
        _ => Err(DropReason::IncarnationOutOfRange),
    }
}

fn check_jump(known: u32, incarnation: u32) -> Result<(), DropReason> {
    match incarnation.saturating_sub(known) > MAX_INCARNATION_JUMP {
        true => Err(DropReason::IncarnationJump),
        false => Ok(()),
    }
}
