//! Looking and reaching into the machine, for conformance tests that bring it into a given state.
//! Not for applications: what is here may change at any time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

pub use super::broadcast::{BroadcastQueue, Part, Space};
use super::members::Record;
pub use super::members::partition_to_end;
pub use super::scale::{
    push_pull_interval, retransmit_limit, suspicion_timeout, suspicion_timeout_after,
};
use super::{Membership, Relation, alive_of};
use crate::message::{Alive, Dead, Message, Suspect};
use crate::node::{Node, NodeState, Peer};
use crate::wire::Dialect;
use crate::wire::stream::RemoteRecord;

/// A running suspicion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SuspicionView {
    /// Independent confirmations so far.
    pub confirmations: u32,
    /// How many count.
    pub wanted: u32,
    /// The timeout with all of them.
    pub min: Duration,
    /// The timeout with none.
    pub max: Duration,
}

impl Membership {
    /// Applies one alive message.
    #[doc(hidden)]
    pub fn testing_alive(&mut self, alive: &Alive<'_>, now: Instant) {
        self.alive(alive, now);
    }

    /// Applies one suspect message.
    #[doc(hidden)]
    pub fn testing_suspect(&mut self, suspect: &Suspect<'_>, now: Instant) {
        self.suspect(suspect, None, now);
    }

    /// Applies one dead message.
    #[doc(hidden)]
    pub fn testing_dead(&mut self, dead: &Dead<'_>, now: Instant) {
        self.dead(dead, now);
    }

    /// Merges one record of a push/pull.
    #[doc(hidden)]
    pub fn testing_merge(&mut self, record: &RemoteRecord, now: Instant) {
        self.merge_record(record, now);
    }

    /// Makes members of these nodes, none of which but the own one is known yet: alive at their first
    /// incarnation, without a word to anybody, as in a cluster that agreed long ago.
    #[doc(hidden)]
    pub fn testing_adopt(&mut self, nodes: &[Arc<Node>], now: Instant) {
        self.adopt(nodes.len(), nodes.iter().map(|node| (node, 1)), now);
    }

    /// The same, each at its incarnation.
    #[doc(hidden)]
    pub fn testing_adopt_at(&mut self, nodes: &[(Arc<Node>, u32)], now: Instant) {
        self.adopt(nodes.len(), nodes.iter().map(|(node, at)| (node, *at)), now);
    }

    fn adopt<'a>(
        &mut self,
        count: usize,
        nodes: impl Iterator<Item = (&'a Arc<Node>, u32)>,
        now: Instant,
    ) {
        let own = self.id.clone();
        let others = nodes.filter(|(node, _)| node.id != own);
        let record = |(node, at)| Record::new(Arc::clone(node), at, NodeState::Alive, now);
        self.members.extend(count, others.map(record), &mut self.rng);
        // Nobody is to be asked about what all know.
        self.sync.testing_trust(self.members.view());
    }

    /// The digest of the own view.
    #[doc(hidden)]
    pub fn testing_view(&self) -> u64 {
        self.members.view().to_u64()
    }

    /// Compares members with that one now.
    #[doc(hidden)]
    pub fn testing_sync(&mut self, peer: Peer, now: Instant) {
        self.begin_sync(peer, (0, 0), true, now);
    }

    /// Merges all that waits for it.
    #[doc(hidden)]
    pub fn testing_merge_all(&mut self, now: Instant) {
        while !self.merges.is_empty() {
            self.merge_slice(now);
        }
    }

    /// So many different members at random.
    #[doc(hidden)]
    pub fn testing_random(&mut self, k: usize) -> Vec<usize> {
        self.members.random(k, &mut self.rng, |record| record.state() == NodeState::Alive)
    }

    /// The place of the member that is probed next.
    #[doc(hidden)]
    pub fn testing_next_to_probe(&mut self, now: Instant) -> Option<usize> {
        self.next_to_probe(now)
    }

    /// The running suspicion of a member.
    #[doc(hidden)]
    pub fn testing_suspicion(&self, name: &str) -> Option<SuspicionView> {
        let suspicion = self.members.get(name)?.suspicion.as_ref()?;
        Some(SuspicionView {
            confirmations: suspicion.confirmations(),
            wanted: suspicion.wanted,
            min: suspicion.min,
            max: suspicion.max,
        })
    }

    /// When the next suspicion runs out.
    #[doc(hidden)]
    pub fn testing_next_suspicion(&self) -> Option<Instant> {
        self.timers.next_suspicion()
    }

    /// Lets suspicions run out that are due, and nothing else: as in a process of which everything
    /// waits that wants to send.
    #[doc(hidden)]
    pub fn testing_expire_suspicions(&mut self, now: Instant) {
        while let Some(id) = self.timers.pop_due_suspicion(now) {
            self.suspicion_expired(&id, now);
        }
    }

    /// The own incarnation counter.
    #[doc(hidden)]
    pub fn testing_incarnation(&self) -> u32 {
        self.incarnation
    }

    /// Sets counter and record.
    #[doc(hidden)]
    pub fn testing_set_incarnation(&mut self, incarnation: u32) {
        self.incarnation = incarnation;
        self.settled.incarnation = incarnation;
        if let Some(position) = self.members.position(self.id.as_str()) {
            self.members.set_incarnation(position, incarnation);
        }
    }

    /// The queued news in that format, in the order in which it would be sent.
    #[doc(hidden)]
    pub fn testing_queued(&self, dialect: Dialect) -> Vec<Bytes> {
        self.news
            .iter()
            .filter_map(|(encoded, _)| encoded.get(dialect))
            .map(|part| match part {
                Part::Encoded(bytes) => Bytes::copy_from_slice(bytes),
                Part::Alive(node, incarnation) => {
                    let mut bytes = Vec::new();
                    dialect.encode(&Message::Alive(alive_of(node, incarnation)), &mut bytes);
                    bytes.into()
                }
            })
            .collect()
    }

    /// Forgets queued news and reported events, and makes the node healthy.
    #[doc(hidden)]
    pub fn testing_clear(&mut self) {
        self.news.prune(0, |_| {});
        self.events.clear();
        self.awareness.apply(i32::MIN);
        self.own_update = None;
    }
}

/// A queue of named items, as the machine uses it for news.
pub fn named(name: &str) -> Relation<String> {
    Relation::Named(name.to_owned())
}
