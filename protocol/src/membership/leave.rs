//! Leaving: saying farewell (Go `Leave`).
//!
//! A farewell is a death that the node declares itself. Others take it for *left*, not *dead*: no
//! suspicion, no reconnecting. Invariant: after its farewell a node does not refute, probe or
//! exchange states of its own accord; it still answers pings, and tells whoever goes on asking that
//! it has left.

use std::time::Instant;

use super::{Event, Membership, OperationId};
use crate::message::Dead;

impl Membership {
    /// Says farewell. When it has been sent as often as news is (or there is nobody to send it to)
    /// [`Event::BroadcastDone`] tells so. A second call says nothing again: while the farewell is
    /// still being sent it gives the same operation, afterwards one that is done at once.
    pub fn leave(&mut self, now: Instant) -> OperationId {
        self.returning = false;
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
}
