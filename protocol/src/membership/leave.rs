//! Leaving: saying farewell (Go `Leave`).
//!
//! A farewell is a death that the node declares itself. Others take it for *left*, not *dead*: no
//! suspicion, no reconnecting. Invariant: after its farewell a node does not refute, probe, suspect
//! anybody or exchange states of its own accord, and what it says is about itself alone: it still
//! answers pings, and tells whoever goes on asking that it has left.
//!
//! Departures from Go: there, a node that has left goes on judging others, though nobody tells it of
//! refutations, and what it believed at the time is still in its queue. And a process that was
//! started again may leave before it has heard of its earlier life, at an incarnation below what the
//! others know. To them that is old news, and since it still answers pings, they would keep it for
//! ever. They tell it what they know, as an accusation, and it says farewell there.

use std::time::Instant;

use super::gossip::Outgoing;
use super::relay::Answers;
use super::transition::check_range;
use super::{Event, Membership, OperationId, Relation};
use crate::message::{Dead, Message, Suspect};
use crate::node::{NodeState, Peer};
use crate::stats::DropReason;

impl Membership {
    /// Says farewell. When it has been sent as often as news is (or there is nobody to send it to)
    /// [`Event::BroadcastDone`] tells so. A second call says nothing again: while the farewell is
    /// still being sent it gives the same operation, afterwards one that is done at once.
    pub fn leave(&mut self, now: Instant) -> OperationId {
        self.returning = false;
        self.end_deferred_joins();
        if let Some(under_way) = self.farewell {
            return under_way;
        }
        let done = self.next_operation();
        if self.leaving {
            self.events.push_back(Event::BroadcastDone(done));
            return done;
        }
        let waiting = self.somebody_listens().then_some(done);
        self.leaving = true;
        self.farewell_repeated = false;
        self.forget_news_of_others();
        self.sync.running = None;
        self.end_suspicions(now);
        self.farewell = Some(done);
        // The own incarnation and name are valid: nothing here can be refused.
        let (own, incarnation) = (self.id.clone(), self.incarnation);
        let farewell = Dead { incarnation, node: own.as_str(), from: own.as_str() };
        if let Some(position) = self.members.position(own.as_str()) {
            self.accept_dead(position, &farewell, waiting, now);
        }
        if waiting.is_none() {
            self.events.push_back(Event::BroadcastDone(done));
        }
        done
    }

    /// The own farewell is the only news from now on.
    fn forget_news_of_others(&mut self) {
        let (own, events) = (&self.id, &mut self.events);
        self.news.remove_if(
            |relation, _| !matches!(relation, Relation::Named(about) if about == own),
            |news| events.extend(news.done.map(Event::BroadcastDone)),
        );
    }

    /// It hears of refutations by chance only, so it suspects nobody any more.
    fn end_suspicions(&mut self, now: Instant) {
        for position in 0..self.members.len() {
            if self.clear_suspicion(position).is_some() {
                self.members.set_state(position, NodeState::Alive, now);
                self.events.push_back(Event::Cleared(self.members.at(position).to_member()));
            }
        }
    }

    /// A live member said farewell, but in an incarnation that is out of date: tells it the one that
    /// is known here.
    pub(super) fn answer_old_farewell(
        &mut self,
        from: &Peer,
        dead: &Dead<'_>,
        answers: &mut Answers,
        now: Instant,
    ) {
        let Some(record) = self.members.get(dead.node) else { return };
        let old = dead.node == dead.from && dead.incarnation < record.incarnation();
        let itself = from.addr == record.node.addr && !self.is_self(dead.node);
        if !old || !itself || self.leaving || !record.state().is_live() {
            return;
        }
        let to = Peer::named(record.node.addr, record.node.id.clone());
        let (incarnation, from) = (record.incarnation(), self.id.clone());
        let first = std::mem::take(&mut answers.old_news);
        match first && self.settled.may_answer(now) {
            true => self.send_later(Outgoing::Accuse { to, incarnation, from }),
            false => self.drop(DropReason::TooManyAnswers),
        }
    }

    /// After its farewell, this node hears of itself in a later incarnation: repeats it there.
    pub(super) fn repeat_farewell(&mut self, suspect: &Suspect<'_>, now: Instant) {
        let incarnation = suspect.incarnation;
        if !self.leaving || !self.is_self(suspect.node) || incarnation <= self.incarnation {
            return;
        }
        let in_reach =
            check_range(incarnation).and_then(|()| self.check_own_jump(incarnation, now));
        if let Err(reason) = in_reach {
            return self.drop(reason);
        }
        self.incarnation = incarnation;
        let own = self.id.clone();
        if let Some(position) = self.members.position(own.as_str()) {
            self.members.set_incarnation(position, incarnation);
        }
        let farewell = Dead { incarnation, node: own.as_str(), from: own.as_str() };
        // Whoever waits for the first one waits for this one; but not for a third, or forged
        // accusations could hold it up for ever.
        let done = self.news.remove_named(&own).and_then(|replaced| replaced.done);
        let (done, over) = match std::mem::replace(&mut self.farewell_repeated, true) {
            false => (done, None),
            true => (None, done),
        };
        self.events.extend(over.map(Event::BroadcastDone));
        self.queue_news(own.clone(), &Message::Dead(farewell), done, now);
    }
}
