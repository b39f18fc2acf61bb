//! Reaping: forgetting the dead, and remembering that they were (Go `resetNodes`).
//!
//! When the probe ring wraps, records that have been dead or left for longer than
//! `gossip_to_the_dead_time` leave the table. Go then knows nothing of them; here a bounded list of
//! tombstones stays, which serves reconnecting, explains deaths, and refuses stale news: an alive
//! message for a reaped name at the same address and not above its last incarnation is a late echo
//! or a restarted process. The process itself, asked to, refutes above it and is back at once; an
//! echo is not. Invariant: no name is in the table and among the tombstones.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::event::Death;
use super::members::Record;
use super::{Event, Membership};
use crate::message::Alive;
use crate::node::{Node, NodeState, canonical};

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
    /// When it was last asked to refute.
    pub(super) asked_at: Option<Instant>,
}

/// Tombstones, oldest first.
#[derive(Debug)]
pub(super) struct Tombstones {
    list: VecDeque<Tombstone>,
    max: usize,
}

impl Tombstones {
    pub(super) fn new(max: usize) -> Self {
        Self { list: VecDeque::new(), max }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Tombstone> {
        self.list.iter()
    }

    pub(super) fn get_mut(&mut self, name: &str) -> Option<&mut Tombstone> {
        self.list.iter_mut().find(|tombstone| tombstone.node.id.as_str() == name)
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.list.retain(|tombstone| tombstone.node.id.as_str() != name);
    }

    /// Whether this is old news of a reaped member.
    pub(super) fn refuses(&self, alive: &Alive<'_>) -> bool {
        self.list.iter().any(|tombstone| {
            tombstone.node.id.as_str() == alive.node
                && tombstone.node.addr == canonical(alive.addr)
                && alive.incarnation <= tombstone.incarnation
        })
    }

    fn add(&mut self, record: Record) {
        if self.max == 0 {
            return;
        }
        if self.list.len() == self.max {
            self.list.pop_front();
        }
        self.list.push_back(Tombstone {
            incarnation: record.incarnation,
            state: record.state(),
            since: record.since,
            node: record.node,
            death: record.death,
            asked_at: None,
        });
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
            self.tombstones.add(record);
        }
    }

    /// What is remembered of a reaped member.
    pub fn tombstone(&self, name: &str) -> Option<&Tombstone> {
        self.tombstones.iter().find(|tombstone| tombstone.node.id.as_str() == name)
    }
}
