//! Refutation: contradicting news about oneself (SWIM §4.2; Go `refute`).
//!
//! Only a node raises its own incarnation, and only to contradict. Invariant: after a refutation
//! the own incarnation is above the one in the accusation, so that the alive message wins
//! everywhere. Having to refute is a sign of being slow, and costs one point of health.
//!
//! Departures from Go: the broadcast is queued under the node's name, so that it replaces older
//! news of it (Go's key is the IP address); incarnations that would leave no room for a refutation
//! are refused (see [`MAX_INCARNATION`](super::MAX_INCARNATION)).

use std::time::Instant;

use super::gossip::Outgoing;
use super::{Event, Membership, OperationId, alive_of};
use crate::message::{Message, Suspect};
use crate::node::{NodeId, NodeState, Peer};

impl Membership {
    /// Raises the own incarnation above `accused` and tells everybody.
    pub(super) fn refute(
        &mut self,
        accused: u32,
        accusation: NodeState,
        by: Option<&str>,
        now: Instant,
    ) {
        self.incarnation = self.incarnation.max(accused) + 1;
        let incarnation = self.incarnation;
        if let Some(record) = self.members.get_mut(self.id.as_str()) {
            record.incarnation = incarnation;
        }
        self.stats.refutations += 1;
        self.change_health(1);
        self.queue_own_alive(None, now);
        let by = by.and_then(|name| NodeId::new(name).ok());
        self.events.push_back(Event::Refuted { accusation, by, incarnation });
    }

    /// Somebody still suspects this node at an incarnation that it has contradicted: the news of that
    /// has missed them, so it goes to them directly.
    pub(super) fn answer_old_accusation(
        &mut self,
        from: &Peer,
        suspect: &Suspect<'_>,
        answers: &mut usize,
    ) {
        let old = self.is_self(suspect.node) && suspect.incarnation < self.incarnation;
        if old && !self.leaving && self.take_answer(answers) {
            self.send_later(Outgoing::OwnAlive { to: from.clone() });
        }
    }

    pub(super) fn queue_own_alive(&mut self, done: Option<OperationId>, now: Instant) {
        let record = self.own_record();
        let node = std::sync::Arc::clone(&record.node);
        let incarnation = record.incarnation;
        let message = Message::Alive(alive_of(&node, incarnation));
        self.queue_news(node.id.clone(), &message, done, now);
    }
}
