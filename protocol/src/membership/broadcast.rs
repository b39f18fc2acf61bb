//! The transmit-limited broadcast queue (SWIM §4.1; Go `TransmitLimitedQueue`).
//!
//! Items are taken least-transmitted first, so that fresh news goes out before old, and within a
//! tier largest first, so that a packet is filled well; among equals the newest goes first. After
//! `limit` transmissions an item is finished. Invariant: an item is given out at most once a call,
//! and news about a node is in the queue at most once, the newest.

use std::borrow::Borrow;
use std::cmp::Reverse;
use std::collections::VecDeque;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use foldhash::quality::SeedableRandomState;
use hashbrown::HashTable;
use slab::Slab;

use super::growth;
use crate::node::Node;
use crate::wire::Dialect;

/// Places that an almost empty queue may keep.
const KEPT_PLACES: usize = 64;

/// The order in which items are taken: transmissions, then larger, then newer first.
type Rank = (u32, Reverse<u32>, Reverse<u64>);

/// How an item relates to others in its queue.
pub enum Relation<K> {
    /// It replaces the item of the same name.
    Named(K),
    /// It replaces nothing and nothing replaces it.
    Unique,
    /// It replaces every other `Invalidating` item for whose bytes this says true.
    Invalidating(Invalidates),
}

/// Says for the bytes of a queued item whether the new item makes it pointless.
pub type Invalidates = Box<dyn Fn(&[u8]) -> bool + Send + Sync>;

impl<K: fmt::Debug> fmt::Debug for Relation<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => write!(f, "Named({name:?})"),
            Self::Unique => f.write_str("Unique"),
            Self::Invalidating(_) => f.write_str("Invalidating"),
        }
    }
}

/// One message in each format in which it is to be sent: encoded once, or an announcement that is written
/// from the node's record, which takes no memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Encoded(Content);

#[derive(Clone, PartialEq, Eq, Debug)]
enum Content {
    /// That in the native format, then that in the other.
    Bytes { bytes: Box<[u8]>, native_len: u32 },
    /// With its length in either format.
    Alive { node: Arc<Node>, incarnation: u32, lens: [u16; 2] },
}

/// A message in one format, on its way into a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part<'a> {
    /// As it is to be sent.
    Encoded(&'a [u8]),
    /// An alive, which is to be encoded.
    Alive(&'a Node, u32),
}

impl Encoded {
    /// A message in one format.
    pub fn new(dialect: Dialect, bytes: &[u8]) -> Self {
        match dialect {
            Dialect::Native => Self::joined(bytes, bytes.len()),
            Dialect::Hashicorp => Self::joined(bytes, 0),
        }
    }

    /// A message in both formats: that in the native one has `native_len` of the bytes, none if it is not
    /// sent in that, and that in the other has the rest.
    ///
    /// # Panics
    /// If there are fewer bytes than that, or over 4 GiB.
    pub fn joined(bytes: &[u8], native_len: usize) -> Self {
        assert!(native_len <= bytes.len() && u32::try_from(bytes.len()).is_ok());
        Self(Content::Bytes { bytes: bytes.into(), native_len: native_len as u32 })
    }

    /// An announcement of that node, which has these lengths in the native and in the other format; 0 where
    /// it is not sent in one.
    pub(super) fn alive(node: Arc<Node>, incarnation: u32, lens: [u16; 2]) -> Self {
        Self(Content::Alive { node, incarnation, lens })
    }

    /// The message in that format; nothing if it is not sent in it.
    pub fn get(&self, dialect: Dialect) -> Option<Part<'_>> {
        let len = self.len_in(dialect);
        let part = match &self.0 {
            Content::Alive { node, incarnation, .. } => Part::Alive(node, *incarnation),
            Content::Bytes { bytes, native_len } => match dialect {
                Dialect::Native => Part::Encoded(&bytes[..len]),
                Dialect::Hashicorp => Part::Encoded(&bytes[*native_len as usize..]),
            },
        };
        (len > 0).then_some(part)
    }

    /// Its length in that format; 0 if it is not sent in it.
    pub fn len_in(&self, dialect: Dialect) -> usize {
        let [native, hashicorp] = match &self.0 {
            Content::Bytes { bytes, native_len } => {
                [*native_len as usize, bytes.len() - *native_len as usize]
            }
            Content::Alive { lens, .. } => lens.map(usize::from),
        };
        match dialect {
            Dialect::Native => native,
            Dialect::Hashicorp => hashicorp,
        }
    }

    /// Whether it is sent in that format and in no other.
    pub fn is_only_in(&self, dialect: Dialect) -> bool {
        self.len_in(dialect) > 0 && self.len_in(dialect) == self.total()
    }

    fn total(&self) -> usize {
        self.len_in(Dialect::Native) + self.len_in(Dialect::Hashicorp)
    }

    /// The bytes of the message in the native format, or in the other if it is not sent in that.
    fn any(&self) -> &[u8] {
        let parts = [Dialect::Native, Dialect::Hashicorp].map(|dialect| self.get(dialect));
        match parts.into_iter().flatten().next() {
            Some(Part::Encoded(bytes)) => bytes,
            _ => &[],
        }
    }

    /// The length in the format in which it is longer.
    pub fn len(&self) -> usize {
        self.len_in(Dialect::Native).max(self.len_in(Dialect::Hashicorp))
    }

    /// Whether it is sent in no format.
    pub fn is_empty(&self) -> bool {
        self.total() == 0
    }
}

/// The room that a packet has for items of a queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Space {
    /// The packet's format.
    pub dialect: Dialect,
    /// What each item costs beside its own length, in bytes.
    pub overhead: usize,
    /// The bytes for all of them.
    pub budget: usize,
}

#[derive(Debug)]
struct Item<K, T> {
    encoded: Encoded,
    relation: Relation<K>,
    transmits: u32,
    id: u64,
    tag: T,
}

impl<K, T> Item<K, T> {
    fn rank(&self) -> Rank {
        // No message is longer than that.
        (self.transmits, Reverse(self.encoded.len() as u32), Reverse(self.id))
    }

    fn is_named<Q: Eq + ?Sized>(&self, name: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        matches!(&self.relation, Relation::Named(own) if own.borrow() == name)
    }
}

/// A queue of encoded items. `K` names them; `T` is carried along and given back when an item is
/// finished: sent often enough, replaced, or pushed out.
///
/// Items stay where they are from when they are queued until they are finished: what is ordered, and
/// found by name, are their places. In a mass join a node has news of everybody, so this is large then.
#[derive(Debug)]
pub struct BroadcastQueue<K, T> {
    items: Slab<Item<K, T>>,
    /// Places, by rank. Most changes are near the front, or between its first tier and the next.
    order: VecDeque<u32>,
    /// Places, under the hash of the name.
    names: HashTable<u32>,
    hasher: SeedableRandomState,
    next_id: u64,
    bytes: usize,
    /// Those that have gone into the packet that is being filled.
    again: Vec<u32>,
}

impl<K: Clone + Eq + Hash, T> BroadcastQueue<K, T> {
    /// An empty queue; `seed` goes into its hash table.
    pub fn new(seed: u64) -> Self {
        Self {
            items: Slab::new(),
            order: VecDeque::new(),
            names: HashTable::new(),
            hasher: SeedableRandomState::with_seed(seed, foldhash::SharedSeed::global_fixed()),
            next_id: 0,
            bytes: 0,
            again: Vec::new(),
        }
    }

    /// How many items wait.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The encoded bytes of all items that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The items in the order in which they would be taken.
    pub fn iter(&self) -> impl Iterator<Item = (&Encoded, &T)> {
        self.in_order().map(|item| (&item.encoded, &item.tag))
    }

    fn in_order(&self) -> impl Iterator<Item = &Item<K, T>> {
        self.order.iter().map(|&at| &self.items[at as usize])
    }

    /// What is carried along with the items, in no order.
    pub fn tags_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.items.iter_mut().map(|(_, item)| &mut item.tag)
    }

    /// Adds an item; `replaced` gets the tags of those that it replaces.
    pub fn push(
        &mut self,
        encoded: Encoded,
        relation: Relation<K>,
        tag: T,
        mut replaced: impl FnMut(T),
    ) {
        match &relation {
            Relation::Named(name) => {
                if let Some(old) = self.remove_named(name) {
                    replaced(old);
                }
            }
            Relation::Unique => {}
            Relation::Invalidating(invalidates) => {
                let is_stale = |item: &Item<K, T>| {
                    matches!(item.relation, Relation::Invalidating(_))
                        && invalidates(item.encoded.any())
                };
                for tag in self.remove_all(is_stale) {
                    replaced(tag);
                }
            }
        }
        self.next_id += 1;
        self.bytes += encoded.len();
        if self.items.len() == self.items.capacity() {
            self.items.reserve_exact(growth(self.items.len()));
            self.order.reserve_exact(growth(self.items.len()));
        }
        let item = Item { encoded, relation, transmits: 0, id: self.next_id, tag };
        let at = self.items.insert(item) as u32;
        self.put_in_order(at);
        self.note_name(at);
    }

    /// How many items come before what has that rank.
    fn before(&self, rank: Rank) -> usize {
        self.order.partition_point(|&at| self.items[at as usize].rank() < rank)
    }

    fn put_in_order(&mut self, at: u32) {
        let before = self.before(self.items[at as usize].rank());
        self.order.insert(before, at);
    }

    fn note_name(&mut self, at: u32) {
        let (items, hasher) = (&self.items, &self.hasher);
        // Without a name it is not in the table.
        let hash = |&at: &u32| match &items[at as usize].relation {
            Relation::Named(name) => hasher.hash_one(name),
            _ => 0,
        };
        if let Relation::Named(_) = &items[at as usize].relation {
            self.names.insert_unique(hash(&at), at, hash);
        }
    }

    /// Removes the item of that name and gives its tag.
    pub fn remove_named<Q>(&mut self, name: &Q) -> Option<T>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let items = &self.items;
        let is_it = |&at: &u32| items[at as usize].is_named(name);
        let at = *self.names.find(self.hasher.hash_one(name), is_it)?;
        self.order.remove(self.before(self.items[at as usize].rank()));
        Some(self.finish(at))
    }

    /// Drops from the tail (most transmitted, smallest, oldest) until `max` remain.
    pub fn prune(&mut self, max: usize, mut dropped: impl FnMut(T)) {
        while self.items.len() > max {
            let Some(at) = self.order.pop_back() else {
                return;
            };
            dropped(self.finish(at));
        }
    }

    /// Drops what `unwanted` says so of, by its relation and its encodings; gives how many.
    pub fn remove_if(
        &mut self,
        unwanted: impl Fn(&Relation<K>, &Encoded) -> bool,
        dropped: impl FnMut(T),
    ) -> usize {
        let removed = self.remove_all(|item| unwanted(&item.relation, &item.encoded));
        let count = removed.len();
        removed.into_iter().for_each(dropped);
        count
    }

    /// Removes what `unwanted` says so of, in the order in which it would be taken.
    fn remove_all(&mut self, unwanted: impl Fn(&Item<K, T>) -> bool) -> Vec<T> {
        let items = &self.items;
        let mut stale = Vec::new();
        self.order.retain(|&at| {
            let stays = !unwanted(&items[at as usize]);
            if !stays {
                stale.push(at);
            }
            stays
        });
        stale.into_iter().map(|at| self.finish(at)).collect()
    }

    /// Gives back what the items that wait do not need.
    pub fn release_memory(&mut self) {
        self.items.shrink_to_fit();
        self.order.shrink_to_fit();
        self.again.shrink_to_fit();
        let (items, hasher) = (&self.items, &self.hasher);
        self.names.shrink_to_fit(|&at| match &items[at as usize].relation {
            Relation::Named(name) => hasher.hash_one(name),
            _ => 0,
        });
    }

    /// Whether an item waits that was sent less often than this, and of whose tag `wanted` says so.
    pub fn has_fresh(&self, below: u32, mut wanted: impl FnMut(&T) -> bool) -> bool {
        let mut fresh = self.in_order().take_while(|item| item.transmits < below);
        fresh.any(|item| wanted(&item.tag))
    }

    /// Takes items for one packet that were sent less often than `below`, and of whose tag `wanted` says so.
    /// `take` gets the message and the tag and says whether it had room, `finished` gets the tags of those that
    /// reached their `limit` of transmissions. Gives the bytes used. Without a limit the transmissions of an
    /// item do not count.
    pub fn take(
        &mut self,
        Space { dialect, overhead, budget }: Space,
        (below, wanted): (u32, impl Fn(&T) -> bool),
        limit: impl Fn(&Encoded) -> Option<u32>,
        mut take: impl FnMut(Part<'_>, &T) -> bool,
        mut finished: impl FnMut(T),
    ) -> usize {
        let (mut used, mut next) = (0, 0);
        while let Some(free) = budget.checked_sub(used + overhead).filter(|free| *free > 0) {
            let Some(&at) = self.order.get(next) else {
                break;
            };
            let item = &self.items[at as usize];
            if item.transmits >= below {
                break;
            }
            if item.encoded.len() > free {
                // Nor do others of this tier fit, up to the largest that does.
                let fitting = u32::try_from(free).unwrap_or(u32::MAX);
                next = self.before((item.transmits, Reverse(fitting), Reverse(u64::MAX)));
                continue;
            }
            next += 1;
            let Some(part) = item.encoded.get(dialect).filter(|_| wanted(&item.tag)) else {
                continue;
            };
            if !take(part, &item.tag) {
                break;
            }
            used += item.encoded.len_in(dialect) + overhead;
            if let Some(limit) = limit(&item.encoded) {
                next -= 1;
                self.order.remove(next);
                self.transmitted(at, limit, &mut finished);
            }
        }
        let mut again = std::mem::take(&mut self.again);
        again.drain(..).for_each(|at| self.put_in_order(at));
        self.again = again;
        if self.items.capacity() > 4 * self.items.len() + KEPT_PLACES {
            // A crowd has gone by, and something always waits.
            self.items.shrink_to_fit();
            self.order.shrink_to_fit();
        }
        used
    }

    /// Counts a transmission of what was taken out of the order. What is to be sent again goes back only
    /// after the packet is full.
    fn transmitted(&mut self, at: u32, limit: u32, finished: &mut impl FnMut(T)) {
        let item = &mut self.items[at as usize];
        item.transmits += 1;
        if item.transmits >= limit {
            return finished(self.finish(at));
        }
        self.again.push(at);
    }

    /// Takes an item out that is no longer in the order.
    fn finish(&mut self, at: u32) -> T {
        let item = self.items.remove(at as usize);
        self.bytes -= item.encoded.len();
        if let Relation::Named(name) = &item.relation {
            let found = self.names.find_entry(self.hasher.hash_one(name), |&other| other == at);
            // It was noted when it was queued.
            let _ = found.map(|entry| entry.remove());
        }
        item.tag
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Queue = BroadcastQueue<String, usize>;
    const NATIVE: Dialect = Dialect::Native;

    fn bytes<'p>(part: &Part<'p>) -> &'p [u8] {
        match part {
            Part::Encoded(bytes) => bytes,
            Part::Alive(..) => unreachable!("none is queued"),
        }
    }

    fn native(bytes: impl AsRef<[u8]>) -> Encoded {
        Encoded::new(NATIVE, bytes.as_ref())
    }

    fn named(queue: &mut Queue, name: &str, len: usize, tag: usize) -> Vec<usize> {
        let mut replaced = Vec::new();
        let relation = Relation::Named(name.to_owned());
        queue.push(native(vec![tag as u8; len]), relation, tag, |tag| replaced.push(tag));
        replaced
    }

    fn take(queue: &mut Queue, budget: usize, limit: u32) -> (Vec<usize>, Vec<usize>) {
        let (mut got, mut done) = (Vec::new(), Vec::new());
        let take = |part: Part<'_>, _: &usize| {
            got.push(bytes(&part)[0] as usize);
            true
        };
        let space = Space { dialect: NATIVE, overhead: 2, budget };
        queue.take(space, (u32::MAX, |_: &_| true), |_| Some(limit), take, |tag| done.push(tag));
        (got, done)
    }

    #[test]
    fn least_transmitted_then_largest_then_newest() {
        let mut queue = Queue::new(0);
        named(&mut queue, "a", 10, 0);
        named(&mut queue, "b", 20, 1);
        named(&mut queue, "c", 20, 2);
        assert_eq!(take(&mut queue, 1000, 9).0, [2, 1, 0]);
        named(&mut queue, "d", 5, 3);
        assert_eq!(take(&mut queue, 30, 9).0, [3, 2]);
        assert_eq!(take(&mut queue, 30, 9).0, [1, 3]);
    }

    #[test]
    fn an_item_is_sent_as_often_as_the_limit_says() {
        let mut queue = Queue::new(0);
        named(&mut queue, "a", 10, 7);
        assert_eq!(take(&mut queue, 100, 3), (vec![7], vec![]));
        assert_eq!(take(&mut queue, 100, 3), (vec![7], vec![]));
        assert_eq!(take(&mut queue, 100, 3), (vec![7], vec![7]));
        assert_eq!(take(&mut queue, 100, 3), (vec![], vec![]));
        assert_eq!((queue.len(), queue.bytes()), (0, 0));
    }

    #[test]
    fn a_crowd_that_has_gone_by_keeps_no_memory_though_something_always_waits() {
        let mut queue = Queue::new(0);
        for i in 0..10_000 {
            named(&mut queue, &i.to_string(), 10, i % 200);
        }
        assert!(queue.items.capacity() >= 10_000);
        while queue.len() > 1 {
            take(&mut queue, 1000, 1);
            named(&mut queue, "another", 10, 1);
        }
        assert!(queue.items.capacity() <= 4 + KEPT_PLACES, "{}", queue.items.capacity());
    }

    #[test]
    fn newer_news_of_a_name_replaces_older() {
        let mut queue = Queue::new(0);
        assert!(named(&mut queue, "a", 10, 1).is_empty());
        assert_eq!(named(&mut queue, "a", 30, 2), [1]);
        assert_eq!(take(&mut queue, 1000, 3).0, [2]);
        assert_eq!(named(&mut queue, "a", 5, 3), [2]);
        assert_eq!((queue.len(), queue.bytes()), (1, 5));
    }

    #[test]
    fn unique_items_stay_and_invalidating_ones_look_at_each_other() {
        let mut queue = Queue::new(0);
        let mut replaced = Vec::new();
        queue.push(native(b"x1".as_slice()), Relation::Unique, 1, |_| unreachable!());
        named(&mut queue, "x", 2, 2);
        let same_first =
            |first: u8| Relation::Invalidating(Box::new(move |b: &[u8]| b[0] == first));
        queue.push(native(b"x3".as_slice()), same_first(b'x'), 3, |_| unreachable!());
        queue.push(native(b"y4".as_slice()), same_first(b'y'), 4, |_| unreachable!());
        queue.push(native(b"x5".as_slice()), same_first(b'x'), 5, |tag| replaced.push(tag));
        assert_eq!((replaced, queue.len()), (vec![3], 4));
    }

    #[test]
    fn each_format_gets_its_own_bytes_and_what_is_not_sent_in_it_waits() {
        let mut queue = Queue::new(0);
        let both = Encoded::joined(&[[1; 20], [2; 20]].concat(), 10);
        queue.push(both, Relation::Unique, 0, |_| unreachable!());
        queue.push(native(vec![3; 20]), Relation::Unique, 1, |_| unreachable!());
        let mut taken = |dialect, budget, room: usize| {
            let mut got = Vec::new();
            let take = |part: Part<'_>, tag: &usize| {
                let fits = got.len() < room;
                if fits {
                    got.push((*tag, bytes(&part).len()));
                }
                fits
            };
            let space = Space { dialect, overhead: 2, budget };
            let used =
                queue.take(space, (u32::MAX, |_: &_| true), |_| Some(9), take, |_| unreachable!());
            (got, used)
        };
        assert_eq!(taken(Dialect::Hashicorp, 1000, 9), (vec![(0, 30)], 32));
        // The first of them, which has not been sent, and not the second, for which there is no room.
        assert_eq!(taken(NATIVE, 1000, 1), (vec![(1, 20)], 22));
        assert_eq!(taken(NATIVE, 1000, 9), (vec![(0, 10), (1, 20)], 34));
        // An item goes where it fits in either format.
        assert_eq!(taken(Dialect::Hashicorp, 31, 9), (vec![], 0));
    }

    #[test]
    fn pruning_drops_the_most_transmitted() {
        let mut queue = Queue::new(0);
        named(&mut queue, "a", 10, 1);
        take(&mut queue, 100, 9);
        named(&mut queue, "b", 10, 2);
        named(&mut queue, "c", 10, 3);
        let mut dropped = Vec::new();
        queue.prune(1, |tag| dropped.push(tag));
        assert_eq!((dropped, take(&mut queue, 100, 9).0), (vec![1, 2], vec![3]));
    }

    proptest! {
        #[test]
        fn never_over_budget_never_twice_and_never_lost(
            items in prop::collection::vec((0u8..20, 1usize..60), 1..40),
            budgets in prop::collection::vec(0usize..150, 1..60),
            limit in 1u32..6,
        ) {
            let mut queue = BroadcastQueue::<u8, usize>::new(1);
            let (mut sent, mut ended) = (vec![0u32; items.len()], vec![false; items.len()]);
            for (tag, (name, len)) in items.iter().enumerate() {
                let mut bytes = vec![0; (*len).max(2)];
                bytes[..2].copy_from_slice(&(tag as u16).to_be_bytes());
                queue.push(native(bytes), Relation::Named(*name), tag, |old| ended[old] = true);
            }
            for budget in budgets {
                let mut got = Vec::new();
                let take = |part: Part<'_>, _: &usize| {
                    let b = bytes(&part);
                    got.push((u16::from_be_bytes([b[0], b[1]]) as usize, b.len()));
                    true
                };
                let space = Space { dialect: NATIVE, overhead: 3, budget };
                let done = |tag: usize| ended[tag] = true;
                let used = queue.take(space, (u32::MAX, |_: &_| true), |_| Some(limit), take, done);
                prop_assert!(used <= budget);
                prop_assert_eq!(used, got.iter().map(|(_, len)| len + 3).sum::<usize>());
                for (tag, _) in &got {
                    sent[*tag] += 1;
                }
                got.sort();
                got.dedup();
                prop_assert!(got.iter().all(|(tag, _)| sent[*tag] <= limit));
                let waiting = queue.iter().map(|(bytes, _)| bytes.len()).sum::<usize>();
                prop_assert_eq!(waiting, queue.bytes());
            }
            for (_, tag) in queue.iter() {
                prop_assert!(!ended[*tag]);
            }
            prop_assert_eq!(queue.len(), ended.iter().filter(|e| !**e).count());
        }
    }
}
