//! The member table: every known record, in probe order, and found by name.
//!
//! Probing walks the records round robin and shuffles them after each round, which bounds the time
//! to the next probe of any member (SWIM §4.3). A new record goes to a random place. Invariants:
//! `index` has the place of every record in the ring, under the hash of its name, `live` is the number
//! of records that are alive or suspect, and `view` their digest.

use std::hash::BuildHasher;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::quality::SeedableRandomState;
use hashbrown::HashTable;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use super::digest::ViewDigest;
use super::event::{Death, Member};
use super::growth;
use super::suspicion::Suspicion;
use crate::node::{Node, NodeState};

/// What is known of one node.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) node: Arc<Node>,
    incarnation: u32,
    state: NodeState,
    /// Since when it is in that state.
    pub(super) since: Instant,
    pub(super) suspicion: Option<Box<Suspicion>>,
    pub(super) death: Option<Arc<Death>>,
    /// Whether it is known to read the native format.
    pub(super) native: bool,
    /// Whether it shows the digest of its view, as far as that is known.
    pub(super) shows_view: Option<bool>,
    /// When a packet of its own last came.
    pub(super) heard: Option<Instant>,
    /// In microseconds, rounded up.
    rtt: Option<NonZeroU32>,
}

impl Record {
    pub(super) fn new(node: Arc<Node>, incarnation: u32, state: NodeState, since: Instant) -> Self {
        Self {
            node,
            incarnation,
            state,
            since,
            suspicion: None,
            death: None,
            native: false,
            shows_view: None,
            heard: None,
            rtt: None,
        }
    }

    /// The last round trip to it.
    pub(super) fn rtt(&self) -> Option<Duration> {
        self.rtt.map(|micros| Duration::from_micros(micros.get().into()))
    }

    pub(super) fn set_rtt(&mut self, rtt: Duration) {
        let micros = u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX);
        self.rtt = NonZeroU32::new(micros.max(1));
    }

    pub(super) fn incarnation(&self) -> u32 {
        self.incarnation
    }

    pub(super) fn state(&self) -> NodeState {
        self.state
    }

    pub(super) fn to_member(&self) -> Member {
        Member {
            node: Arc::clone(&self.node),
            state: self.state,
            incarnation: self.incarnation,
            since: self.since,
            death: self.death.clone(),
        }
    }
}

/// All records.
#[derive(Debug)]
pub(super) struct Members {
    ring: Vec<Record>,
    /// Places in the ring; the names are there.
    index: HashTable<u32>,
    hasher: SeedableRandomState,
    live: usize,
    view: ViewDigest,
    /// Where in the ring the next probe looks.
    pub(super) probe_index: usize,
    /// Where in the ring the next gossip looks.
    gossip_index: usize,
}

impl Members {
    pub(super) fn new(rng: &mut StdRng) -> Self {
        let hasher =
            SeedableRandomState::with_seed(rng.random(), foldhash::SharedSeed::global_fixed());
        Self {
            ring: Vec::new(),
            index: HashTable::new(),
            hasher,
            live: 0,
            view: ViewDigest::default(),
            probe_index: 0,
            gossip_index: 0,
        }
    }

    /// All records, gone ones included: the `n` of the formulas.
    pub(super) fn len(&self) -> usize {
        self.ring.len()
    }

    /// Alive and suspect ones, the own node included.
    pub(super) fn live(&self) -> usize {
        self.live
    }

    /// The digest of the live ones.
    pub(super) fn view(&self) -> ViewDigest {
        self.view
    }

    pub(super) fn position(&self, name: &str) -> Option<usize> {
        let found = self.index.find(self.hasher.hash_one(name), |&at| self.is_named(at, name));
        found.map(|&at| at as usize)
    }

    fn is_named(&self, at: u32, name: &str) -> bool {
        self.ring[at as usize].node.id.as_str() == name
    }

    pub(super) fn get(&self, name: &str) -> Option<&Record> {
        self.position(name).map(|at| &self.ring[at])
    }

    pub(super) fn get_mut(&mut self, name: &str) -> Option<&mut Record> {
        self.position(name).map(|at| &mut self.ring[at])
    }

    pub(super) fn at(&self, position: usize) -> &Record {
        &self.ring[position]
    }

    pub(super) fn at_mut(&mut self, position: usize) -> &mut Record {
        &mut self.ring[position]
    }

    pub(super) fn iter(&self) -> std::slice::Iter<'_, Record> {
        self.ring.iter()
    }

    /// Adds a record at a random place and gives that place.
    pub(super) fn insert(&mut self, record: Record, rng: &mut StdRng) -> usize {
        debug_assert!(self.position(record.node.id.as_str()).is_none());
        self.count(&record);
        let last = self.ring.len();
        let at = rng.random_range(0..=last);
        if last == self.ring.capacity() {
            self.ring.reserve_exact(growth(last));
        }
        self.ring.push(record);
        // Who was there moves to the end.
        let hash = self.hash_at(last);
        let moved = self.hash_at(at);
        if let Some(place) = self.index.find_mut(moved, |&place| place as usize == at) {
            *place = last as u32;
        }
        self.ring.swap(at, last);
        self.note_place(hash, at);
        at
    }

    fn hash_at(&self, at: usize) -> u64 {
        self.hasher.hash_one(self.ring[at].node.id.as_str())
    }

    /// Notes the place of a record that has none yet.
    fn note_place(&mut self, hash: u64, at: usize) {
        let (ring, hasher) = (&self.ring, &self.hasher);
        let rehash = |&at: &u32| hasher.hash_one(ring[at as usize].node.id.as_str());
        self.index.insert_unique(hash, at as u32, rehash);
    }

    /// Adds about `count` records that are not there yet, in random order.
    pub(super) fn extend(
        &mut self,
        count: usize,
        records: impl Iterator<Item = Record>,
        rng: &mut StdRng,
    ) {
        self.ring.reserve_exact(count);
        for record in records {
            debug_assert!(self.position(record.node.id.as_str()).is_none());
            self.count(&record);
            self.ring.push(record);
            self.note_place(self.hash_at(self.ring.len() - 1), self.ring.len() - 1);
        }
        self.shuffle(rng);
    }

    fn count(&mut self, record: &Record) {
        if record.state.is_live() {
            self.live += 1;
            self.view.add(record.node.id.as_str(), record.incarnation);
        }
    }

    /// Changes the state and stamps the time.
    pub(super) fn set_state(&mut self, position: usize, state: NodeState, now: Instant) {
        let record = &mut self.ring[position];
        let (was, is) = (record.state.is_live(), state.is_live());
        self.live -= usize::from(was);
        self.live += usize::from(is);
        match (was, is) {
            (false, true) => self.view.add(record.node.id.as_str(), record.incarnation),
            (true, false) => self.view.remove(record.node.id.as_str(), record.incarnation),
            _ => {}
        }
        record.state = state;
        record.since = now;
        // Who comes back may be another process.
        record.native &= is;
        if !is {
            record.shows_view = None;
        }
    }

    pub(super) fn set_incarnation(&mut self, position: usize, incarnation: u32) {
        let record = &mut self.ring[position];
        if record.state.is_live() && record.incarnation != incarnation {
            self.view.remove(record.node.id.as_str(), record.incarnation);
            self.view.add(record.node.id.as_str(), incarnation);
        }
        record.incarnation = incarnation;
    }

    /// Removes the records that `expired` names and gives them back.
    pub(super) fn remove_where(&mut self, expired: impl FnMut(&Record) -> bool) -> Vec<Record> {
        let keep = partition_to_end(&mut self.ring, expired);
        let removed: Vec<Record> = self.ring.drain(keep..).collect();
        debug_assert!(removed.iter().all(|record| record.state.is_gone()));
        if !removed.is_empty() {
            self.reindex();
        }
        removed
    }

    /// A new random probe order.
    pub(super) fn shuffle(&mut self, rng: &mut StdRng) {
        self.ring.shuffle(rng);
        self.reindex();
    }

    /// Up to `k` different random records that `wanted` accepts, as positions (Go
    /// `kRandomNodes`). Where many are wanted a few draws find them; else all are looked at.
    pub(super) fn random(
        &self,
        k: usize,
        rng: &mut StdRng,
        mut wanted: impl FnMut(&Record) -> bool,
    ) -> Vec<usize> {
        let n = self.ring.len();
        let k = k.min(n);
        let mut chosen = Vec::with_capacity(k);
        if n >= 3 * k {
            for _ in 0..8 * k {
                let at = rng.random_range(0..n);
                if !chosen.contains(&at) && wanted(&self.ring[at]) {
                    chosen.push(at);
                }
                if chosen.len() == k {
                    return chosen;
                }
            }
        }
        let left = |at: &usize| !chosen.contains(at) && wanted(&self.ring[*at]);
        let mut rest: Vec<usize> = (0..n).filter(left).collect();
        rest.shuffle(rng);
        rest.truncate(k - chosen.len());
        chosen.extend(rest);
        chosen
    }

    /// The next up to `k` records of the ring that `wanted` accepts, as positions. Walking the
    /// shuffled ring instead of drawing at random sends the transmissions of an item to different
    /// members, so that fewer are missed.
    pub(super) fn next_in_ring(
        &mut self,
        k: usize,
        mut wanted: impl FnMut(&Record) -> bool,
    ) -> Vec<usize> {
        let n = self.ring.len();
        let mut chosen = Vec::with_capacity(k.min(n));
        for _ in 0..n {
            if chosen.len() == k {
                break;
            }
            let at = self.gossip_index % n;
            self.gossip_index = at + 1;
            if wanted(&self.ring[at]) {
                chosen.push(at);
            }
        }
        chosen
    }

    /// Notes all places anew.
    fn reindex(&mut self) {
        self.index.clear();
        for at in 0..self.ring.len() {
            self.note_place(self.hash_at(at), at);
        }
    }
}

/// Swaps what `expired` names to the end and gives the length of the rest (Go `moveDeadNodes`,
/// whose order the rest of a probe round depends on).
pub fn partition_to_end<T>(items: &mut [T], mut expired: impl FnMut(&T) -> bool) -> usize {
    let mut keep = items.len();
    let mut at = 0;
    while at < keep {
        if expired(&items[at]) {
            keep -= 1;
            items.swap(at, keep);
        } else {
            at += 1;
        }
    }
    keep
}

/// The generator behind every random choice of a machine.
pub(super) fn seeded_rng(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use bytes::Bytes;

    use super::*;
    use crate::node::{NodeId, Versions};

    /// A table of `n`, of which the first `alive` are alive and the others dead.
    fn table(n: usize, alive: usize, rng: &mut StdRng) -> Members {
        let mut members = Members::new(rng);
        for i in 0..n {
            let id = NodeId::new(&format!("n{i}")).unwrap();
            let addr = ([10, 0, 0, 1], 1 + i as u16).into();
            let node = Arc::new(Node::new(id, addr, Bytes::new(), Versions::default()));
            let state = if i < alive { NodeState::Alive } else { NodeState::Dead };
            members.insert(Record::new(node, 1, state, Instant::now()), rng);
        }
        members
    }

    fn is_alive(record: &Record) -> bool {
        record.state() == NodeState::Alive
    }

    #[test]
    fn random_choice_finds_the_few_among_the_many() {
        let mut rng = seeded_rng(1);
        for (n, alive, k) in [(100, 1, 1), (100, 2, 3), (100, 60, 3), (5, 3, 3), (5, 5, 100)] {
            let members = table(n, alive, &mut rng);
            let mut found = BTreeSet::new();
            for _ in 0..300 {
                let chosen = members.random(k, &mut rng, is_alive);
                let different: BTreeSet<_> = chosen.iter().collect();
                assert_eq!(chosen.len(), k.min(alive), "{k} of {alive} in {n}");
                assert_eq!(different.len(), chosen.len());
                assert!(chosen.iter().all(|&at| is_alive(members.at(at))));
                found.extend(chosen);
            }
            assert_eq!(found.len(), alive, "everybody is chosen now and then");
        }
        let members = table(3, 3, &mut rng);
        assert_eq!(members.random(usize::MAX, &mut rng, is_alive).len(), 3);
        assert_eq!(members.random(0, &mut rng, is_alive), [0_usize; 0]);
        assert_eq!(members.random(2, &mut rng, |_| false), [0_usize; 0]);
    }

    #[test]
    fn the_ring_is_walked_evenly() {
        let mut rng = seeded_rng(2);
        let mut members = table(10, 7, &mut rng);
        let mut times = [0; 10];
        for _ in 0..21 {
            members.next_in_ring(2, is_alive).into_iter().for_each(|at| times[at] += 1);
        }
        let of = |wanted: fn(&Record) -> bool| -> Vec<i32> {
            (0..10).filter(|&at| wanted(members.at(at))).map(|at| times[at]).collect()
        };
        assert_eq!(of(is_alive), [6; 7]);
        assert_eq!(of(|record| !is_alive(record)), [0; 3]);
        assert_eq!(members.next_in_ring(usize::MAX, is_alive).len(), 7);
    }

    #[test]
    fn a_new_record_goes_to_a_random_place() {
        let mut places = BTreeSet::new();
        for seed in 0..40 {
            let mut rng = seeded_rng(seed);
            let members = table(4, 4, &mut rng);
            places.insert(members.position("n3").unwrap());
        }
        assert_eq!(places, BTreeSet::from([0, 1, 2, 3]));
    }

    #[test]
    fn what_is_removed_is_not_found_and_the_rest_is() {
        let mut rng = seeded_rng(3);
        let mut members = table(50, 20, &mut rng);
        assert_eq!(members.remove_where(|record| !is_alive(record)).len(), 30);
        assert_eq!((members.len(), members.live()), (20, 20));
        members.shuffle(&mut rng);
        for i in 0..50 {
            let name = format!("n{i}");
            let found = members.get(&name).map(|record| record.node.id.as_str().to_owned());
            assert_eq!(found, (i < 20).then_some(name));
        }
    }
}
