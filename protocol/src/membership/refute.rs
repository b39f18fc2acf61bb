//! Refutation: contradicting news about oneself (SWIM §4.2; Go `refute`).
//!
//! Only a node raises its own incarnation, and only to contradict. Invariant: after a refutation
//! the own incarnation is above the one in the accusation, so that the alive message wins
//! everywhere. Having to refute is a sign of being slow, and costs one point of health.
//!
//! An accusation may lie as far above what this node says as others accept a jump of, but no
//! further; measured from what it said a while ago, since every refutation raises what it says, and
//! others may not have heard of that. So no burst of accusations brings it out of their reach.
//!
//! Departures from Go: the broadcast is queued under the node's name, so that it replaces older
//! news of it (Go's key is the IP address); incarnations that would leave no room for a refutation
//! are refused (see [`MAX_INCARNATION`](super::MAX_INCARNATION)).

use std::time::{Duration, Instant};

use super::diary::HealthCause;
use super::gossip::Outgoing;
use super::rate::Rate;
use super::relay::Answers;
use super::{Event, MAX_INCARNATION, MAX_INCARNATION_JUMP, Membership, OperationId, alive_of};
use crate::message::{Message, Suspect};
use crate::node::{NodeId, NodeState, Peer};
use crate::stats::DropReason;
use crate::wire::stream::RemoteRecord;

/// What a node said this long ago, everybody who can hear it has heard.
const SETTLING: Duration = Duration::from_secs(600);

/// How many old accusations are answered in a second.
const MAX_ANSWERS_PER_SECOND: u32 = 32;

/// The own incarnation as it was a while ago.
#[derive(Debug)]
pub(super) struct Settled {
    pub(super) incarnation: u32,
    at: Instant,
    /// An earlier life's was taken over.
    caught_up: bool,
    /// Old accusations that are answered.
    answers: Rate,
}

impl Settled {
    /// Whether the refutation of an accusation at that incarnation is in the reach of others.
    fn reaches(&self, accused: u32) -> bool {
        let refutation = accused.saturating_add(1);
        refutation.saturating_sub(self.incarnation) <= MAX_INCARNATION_JUMP
    }

    /// Whether to answer one more piece of old news: the answer is longer than the question, and
    /// anybody can ask in somebody else's name.
    pub(super) fn may_answer(&mut self, now: Instant) -> bool {
        self.answers.allows(MAX_ANSWERS_PER_SECOND, now)
    }

    pub(super) fn new(now: Instant) -> Self {
        // The first that a node announces.
        let answers = Rate::new(Duration::from_secs(1), now);
        Self { incarnation: 1, at: now, caught_up: false, answers }
    }
}

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
        if let Some(position) = self.members.position(self.id.as_str()) {
            self.members.set_incarnation(position, incarnation);
        }
        self.stats.refutations += 1;
        let by = by.and_then(|name| NodeId::new(name).ok());
        self.change_health(1, HealthCause::Accused { of: accusation, by: by.clone() }, now);
        self.queue_own_alive(None, now);
        self.events.push_back(Event::Refuted { accusation, by, incarnation });
    }

    /// Whether others would accept the refutation of an accusation at that incarnation.
    pub(super) fn check_own_jump(&mut self, accused: u32, now: Instant) -> Result<(), DropReason> {
        if now.saturating_duration_since(self.settled.at) >= SETTLING {
            self.settled.incarnation = self.incarnation;
            self.settled.at = now;
        }
        match self.settled.reaches(accused) {
            true => Ok(()),
            false => Err(DropReason::IncarnationJump),
        }
    }

    /// The cluster that this node asked to be let in may know it from an earlier life, at any
    /// incarnation: it is to go on from there. Once a life, and to no more than half of the range.
    pub(super) fn catch_up(&mut self, record: &RemoteRecord) {
        let earlier = self.is_self(record.node.id.as_str())
            && !self.settled.reaches(record.incarnation)
            && record.incarnation <= MAX_INCARNATION / 2;
        if earlier && !self.settled.caught_up {
            self.settled.caught_up = true;
            self.settled.incarnation = record.incarnation;
        }
    }

    /// Somebody still suspects this node at an incarnation that it has contradicted: the news of that
    /// has missed them, so it goes to them directly.
    pub(super) fn answer_old_accusation(
        &mut self,
        from: &Peer,
        suspect: &Suspect<'_>,
        answers: &mut Answers,
        now: Instant,
    ) {
        let old = self.is_self(suspect.node) && suspect.incarnation < self.incarnation;
        let wanted = self.config.lifeguard.buddy_system && !self.leaving;
        if !old || !wanted {
            return;
        }
        let first = std::mem::take(&mut answers.old_news);
        if !first || !self.settled.may_answer(now) {
            self.drop(DropReason::TooManyAnswers);
        } else {
            let (to, dialect) = (from.clone(), answers.dialect);
            self.send_later(Outgoing::OwnAlive { to, dialect });
        }
    }

    pub(super) fn queue_own_alive(&mut self, done: Option<OperationId>, now: Instant) {
        self.await_confirmation(now);
        let record = self.own_record();
        let node = std::sync::Arc::clone(&record.node);
        let incarnation = record.incarnation();
        let message = Message::Alive(alive_of(&node, incarnation));
        self.queue_news(node.id.clone(), &message, done, now);
    }
}
