//! The view digest: 64 bits that are equal where two nodes believe the same members alive.
//!
//! With `M` the live members that a node knows (suspects are alive still; the dead and those that left
//! are out, since they are forgotten at different times) and `h` a keyed hash,
//!
//! ```text
//! view = Σ h(key, incarnation ‖ id) mod 2^64    over (id, incarnation) in M
//! ```
//!
//! A sum does not depend on the order, and a change costs two hashes, however large the cluster is. It
//! rides on pings and acks, and on gossip that has room for it.
//!
//! Equal digests of different views do no harm but a delay: nothing is believed because of a digest, and
//! nobody is alive or dead by it. It only decides whether two nodes compare their members now, and the
//! whole states are exchanged from time to time all the same. By chance it happens once in 2^64
//! comparisons. The key is the same for all, or digests could not be compared, so a member may look for
//! names that make it happen; a member may as well lie. The comparison itself (`sync`) is keyed anew
//! each time.

use std::hash::Hasher;
use std::time::Instant;

use siphasher::sip::SipHasher13;

use super::gossip::Outgoing;
use super::relay::Answers;
use super::{Event, Membership};
use crate::message::View;
use crate::node::{NodeId, Peer};
use crate::stats::DropReason;

/// `memberlist view1` as two little-endian numbers.
const KEY: (u64, u64) = (0x696c_7265_626d_656d, 0x3177_6569_7620_7473);

/// SipHash-1-3 of an incarnation, as four bytes in little-endian order, and a name behind it.
pub(super) fn hash(key: (u64, u64), id: &str, incarnation: u32) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(key.0, key.1);
    hasher.write(&incarnation.to_le_bytes());
    hasher.write(id.as_bytes());
    hasher.finish()
}

/// The digest of a set of live members.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct ViewDigest(u64);

impl ViewDigest {
    pub(super) fn add(&mut self, id: &str, incarnation: u32) {
        self.0 = self.0.wrapping_add(hash(KEY, id, incarnation));
    }

    pub(super) fn remove(&mut self, id: &str, incarnation: u32) {
        self.0 = self.0.wrapping_sub(hash(KEY, id, incarnation));
    }

    pub(super) fn to_u64(self) -> u64 {
        self.0
    }
}

/// So many members must show the same view before an own update counts as known.
const CONFIRMATIONS: usize = 3;

/// An announcement of this node that members have not confirmed yet.
#[derive(Debug)]
pub(super) struct OwnUpdate {
    since: Instant,
    confirmed_by: Vec<NodeId>,
}

impl Membership {
    /// A member shows its view; whose, a name beside it or the rest of the packet tells.
    pub(super) fn handle_view(&mut self, from: &Peer, view: &View<'_>, answers: &mut Answers) {
        if !view.node.is_empty() {
            let record = self.members.get(view.node);
            let there = record.filter(|record| record.node.addr == from.addr);
            let Some(record) = there.filter(|record| !self.is_self(record.node.id.as_str())) else {
                self.stats.views_of_strangers += 1;
                return;
            };
            if from.name.as_ref().is_some_and(|verified| *verified != record.node.id) {
                return self.drop(DropReason::IdentityMismatch);
            }
            answers.speaker = Some(record.node.id.clone());
        }
        answers.view = Some(view.digest);
        let Some(name) = answers.speaker.clone().filter(|_| view.ask && self.syncs()) else {
            return;
        };
        if self.take_answer(answers) {
            let to = Peer::named(from.addr, name);
            self.send_later(Outgoing::View { to, ask: false });
        }
    }

    /// This node announces something of itself: from now on, who shows the same view has heard of it.
    pub(super) fn await_confirmation(&mut self, now: Instant) {
        let confirmed_by = Vec::new();
        self.own_update = self.syncs().then_some(OwnUpdate { since: now, confirmed_by });
    }

    /// A member has shown its view. The own update counts as known when several in a row, each another,
    /// show the same view as this node.
    pub(super) fn note_confirmation(&mut self, from: &NodeId, equal: bool, now: Instant) {
        let wanted = CONFIRMATIONS.min(self.members.live().saturating_sub(1)).max(1);
        let Some(update) = self.own_update.as_mut() else {
            return;
        };
        if !equal {
            return update.confirmed_by.clear();
        }
        if !update.confirmed_by.contains(from) {
            update.confirmed_by.push(from.clone());
        }
        if update.confirmed_by.len() >= wanted {
            let after = now.saturating_duration_since(update.since);
            self.own_update = None;
            self.events.push_back(Event::Converged { after });
        }
    }

    /// The member that was pinged at this address with that number.
    pub(super) fn asked_member(&self, from: &Peer, sequence: u32) -> Option<NodeId> {
        let probed = self.probed(sequence);
        let pinged = || self.pending_pings.get(&sequence).map(|pending| pending.target.clone());
        let asked = probed.or_else(pinged).filter(|asked| asked.addr == from.addr)?;
        let name = asked.name?;
        from.name.as_ref().is_none_or(|verified| *verified == name).then_some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By another implementation of SipHash-1-3, and the example of `docs/WIRE.md`.
    #[test]
    fn a_digest_is_the_documented_sum() {
        let mut view = ViewDigest::default();
        view.add("db", 300);
        view.add("cache-7", 1);
        assert_eq!(view.to_u64(), 0x2990c53f5028c498);
        view.remove("db", 300);
        view.add("db", 301);
        assert_ne!(view.to_u64(), 0x2990c53f5028c498);
        view.remove("cache-7", 1);
        view.remove("db", 301);
        assert_eq!(view, ViewDigest::default());
    }
}
