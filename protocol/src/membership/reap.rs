//! Reaping: forgetting the dead, and remembering that they were (Go `resetNodes`).
//!
//! When the probe ring wraps, records that have been dead or left for longer than
//! `gossip_to_the_dead_time` leave the table. Go then knows nothing of them; here a bounded list of
//! tombstones stays, which serves reconnecting, explains deaths, and refuses stale news: an alive
//! message for a reaped name at the same address and not above its last incarnation is a late echo
//! or a restarted process. The process itself, asked to, refutes above it and is back at once; an
//! echo is not. This refusal ends after some time. Invariant: no name is in the table and among the tombstones.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::quality::SeedableRandomState;

use super::event::Death;
use super::members::Record;
use super::{Event, Membership};
use crate::message::Alive;
use crate::node::{Node, NodeId, NodeState, canonical};

/// What is remembered of a reaped member.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Tombstone {
    /// What it said of itself last.
    pub node: Arc<Node>,
    /// Its last known incarnation.
    pub incarnation: u32,
    /// Dead or left.
    pub state: NodeState,
    /// Since when.
    pub since: Instant,
    /// Why.
    pub death: Option<Arc<Death>>,
    /// When its record left the table.
    pub reaped_at: Instant,
    /// When it was last asked to refute.
    pub(super) asked_at: Option<Instant>,
}

/// For how many dead windows after the reaping old news is refused. Echoes do not live as long; and a
/// member whose last incarnation is out of its reach (it was restarted, and somebody had raised it)
/// is let in again after that.
const REFUSAL_WINDOWS: u32 = 10;

/// Tombstones, oldest first.
#[derive(Debug)]
pub(super) struct Tombstones {
    by_age: BTreeMap<u64, Tombstone>,
    by_name: HashMap<NodeId, u64, SeedableRandomState>,
    next: u64,
    max: usize,
}

impl Tombstones {
    pub(super) fn new(max: usize, seed: u64) -> Self {
        let hasher = SeedableRandomState::with_seed(seed, foldhash::SharedSeed::global_fixed());
        Self { by_age: BTreeMap::new(), by_name: HashMap::with_hasher(hasher), next: 0, max }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Tombstone> {
        self.by_age.values()
    }

    pub(super) fn get(&self, name: &str) -> Option<&Tombstone> {
        self.by_age.get(self.by_name.get(name)?)
    }

    pub(super) fn get_mut(&mut self, name: &str) -> Option<&mut Tombstone> {
        self.by_age.get_mut(self.by_name.get(name)?)
    }

    pub(super) fn remove(&mut self, name: &str) {
        if let Some(age) = self.by_name.remove(name) {
            self.by_age.remove(&age);
        }
    }

    /// Whether this is old news of a reaped member.
    pub(super) fn refuses(&self, alive: &Alive<'_>, dead_window: Duration, now: Instant) -> bool {
        self.get(alive.node).is_some_and(|tombstone| {
            tombstone.node.addr == canonical(alive.addr)
                && alive.incarnation <= tombstone.incarnation
                && now.saturating_duration_since(tombstone.reaped_at)
                    <= dead_window * REFUSAL_WINDOWS
        })
    }

    fn add(&mut self, record: Record, now: Instant) {
        if self.max == 0 {
            return;
        }
        if self.by_age.len() == self.max {
            if let Some((_, oldest)) = self.by_age.pop_first() {
                self.by_name.remove(oldest.node.id.as_str());
            }
        }
        self.by_name.insert(record.node.id.clone(), self.next);
        let tombstone = Tombstone {
            incarnation: record.incarnation(),
            state: record.state(),
            since: record.since,
            node: record.node,
            death: record.death,
            reaped_at: now,
            asked_at: None,
        };
        self.by_age.insert(self.next, tombstone);
        self.next += 1;
    }
}

impl Membership {
    /// Moves what has been gone for long from the table to the tombstones.
    pub(super) fn reap(&mut self, now: Instant) {
        let age = self.config.gossip_to_the_dead_time;
        let own = self.id.clone();
        let removed = self.members.remove_where(|record| {
            record.state().is_gone()
                && record.node.id != own
                && now.saturating_duration_since(record.since) > age
        });
        for record in removed {
            self.stats.reaped += 1;
            self.events.push_back(Event::Reaped(record.node.id.clone()));
            self.tombstones.add(record, now);
        }
    }

    /// What is remembered of a reaped member.
    pub fn tombstone(&self, name: &str) -> Option<&Tombstone> {
        self.tombstones.get(name)
    }
}
