//! User broadcasts: bytes of one application for those of all members.
//!
//! They spread like news: every member that gets one for the first time gives it to its application
//! and passes it on, as often as the retransmit limit says. (Go sends a broadcast from its origin
//! only, and leaves the rest to the application; Serf adds what is here.) Invariants: a member's
//! application gets each broadcast at most once, as long as no more than 4,096 later ones of the
//! same origin overtook it; nothing is passed on twice, nor more than [`MAX_HOPS`] times in a row,
//! so that nothing circulates for ever.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use foldhash::quality::SeedableRandomState;

use super::gossip::Priority;
use super::{Membership, Relation};
use crate::message::{Broadcast, Message};
use crate::node::NodeId;
use crate::stats::DropReason;

/// Far above the path length of an epidemic in any cluster that fits the member table.
const MAX_HOPS: u8 = 32;
/// Origins whose broadcasts are told apart; the one that was first heard of longest ago is
/// forgotten.
const MAX_ORIGINS: usize = 4096;
/// How far back in an origin's numbers a broadcast is still told apart, in 64-bit words.
const MAX_WORDS: usize = 64;
/// Numbers further apart than this are not of one run.
const MAX_DISTANCE: u64 = 1 << 20;

/// Which broadcasts have been seen: a window an origin.
#[derive(Debug)]
pub(super) struct SeenBroadcasts {
    origins: HashMap<NodeId, Runs, SeedableRandomState>,
    oldest_first: VecDeque<NodeId>,
}

/// The last two runs of an origin's process, the newer last.
#[derive(Debug, Default)]
struct Runs {
    windows: Vec<Window>,
}

/// The numbers of one run that were seen: bit `i` stands for `highest - i`.
#[derive(Debug)]
struct Window {
    epoch: u32,
    highest: u64,
    bits: Vec<u64>,
}

impl SeenBroadcasts {
    pub(super) fn new(seed: u64) -> Self {
        let hasher = SeedableRandomState::with_seed(seed, foldhash::SharedSeed::global_fixed());
        Self { origins: HashMap::with_hasher(hasher), oldest_first: VecDeque::new() }
    }

    /// Remembers a broadcast; says whether it is new.
    fn insert(&mut self, origin: &str, epoch: u32, sequence: u64) -> bool {
        if let Some(runs) = self.origins.get_mut(origin) {
            return runs.insert(epoch, sequence);
        }
        let Ok(id) = NodeId::new(origin) else { return false };
        if self.oldest_first.len() == MAX_ORIGINS {
            if let Some(oldest) = self.oldest_first.pop_front() {
                self.origins.remove(&oldest);
            }
        }
        self.oldest_first.push_back(id.clone());
        self.origins.entry(id).or_default().insert(epoch, sequence)
    }
}

impl Runs {
    fn insert(&mut self, epoch: u32, sequence: u64) -> bool {
        let known = self.windows.iter_mut().find(|window| window.epoch == epoch);
        match known {
            Some(window) if window.highest.abs_diff(sequence) <= MAX_DISTANCE => {
                window.insert(sequence)
            }
            // An invented number must not silence the origin: start anew.
            Some(window) => {
                *window = Window::new(epoch, sequence);
                true
            }
            None => {
                if self.windows.len() == 2 {
                    self.windows.remove(0);
                }
                self.windows.push(Window::new(epoch, sequence));
                true
            }
        }
    }
}

impl Window {
    fn new(epoch: u32, sequence: u64) -> Self {
        Self { epoch, highest: sequence, bits: vec![1] }
    }

    fn insert(&mut self, sequence: u64) -> bool {
        if sequence > self.highest {
            self.shift(sequence - self.highest);
            self.highest = sequence;
            self.bits[0] |= 1;
            return true;
        }
        let back = (self.highest - sequence) as usize;
        let (word, bit) = (back / 64, 1 << (back % 64));
        if word >= MAX_WORDS {
            return false;
        }
        if word >= self.bits.len() {
            self.bits.resize(word + 1, 0);
        }
        let new = self.bits[word] & bit == 0;
        self.bits[word] |= bit;
        new
    }

    /// Moves every bit `by` places up, growing as far as the limit.
    fn shift(&mut self, by: u64) {
        let words = usize::try_from(by / 64).unwrap_or(usize::MAX).min(MAX_WORDS);
        let rest = (by % 64) as u32;
        self.bits.splice(0..0, std::iter::repeat_n(0, words));
        if rest > 0 {
            let mut carry = 0;
            for word in &mut self.bits {
                let overflow = *word >> (64 - rest);
                *word = *word << rest | carry;
                carry = overflow;
            }
            if carry != 0 {
                self.bits.push(carry);
            }
        }
        self.bits.truncate(MAX_WORDS);
    }
}

impl Membership {
    /// A broadcast arrived: give it to the application and pass it on, if it is new.
    pub(super) fn handle_broadcast(
        &mut self,
        from: std::net::SocketAddr,
        broadcast: &Broadcast<'_>,
        now: Instant,
    ) {
        let Broadcast { origin, epoch, sequence, hops, payload, .. } = *broadcast;
        if self.is_self(origin) || !self.seen_broadcasts.insert(origin, epoch, sequence) {
            self.stats.broadcasts_repeated += 1;
            return;
        }
        let Ok(id) = NodeId::new(origin) else { return self.drop(DropReason::BadName) };
        self.deliver(from, Some(id), payload);
        if hops >= MAX_HOPS || self.config.max_user_broadcasts == 0 {
            return;
        }
        let priority = match broadcast.priority {
            0 => Priority::High,
            1 => Priority::Normal,
            _ => Priority::Low,
        };
        let next = Broadcast { hops: hops + 1, ..*broadcast };
        let encoded = self.encode(&Message::Broadcast(next));
        self.queue_user(encoded, Relation::Unique, priority, now);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_is_new_once_in_any_order() {
        let mut seen = SeenBroadcasts::new(1);
        for sequence in [5, 4, 6, 200, 137, 136, 1, 4000] {
            assert!(seen.insert("a", 9, sequence), "{sequence}");
            assert!(!seen.insert("a", 9, sequence), "{sequence}");
        }
        assert!(seen.insert("b", 9, 5), "another origin");
        assert!(seen.insert("a", 10, 5), "another run");
        assert!(!seen.insert("a", 9, 5), "the run before is still known");
    }

    #[test]
    fn what_is_far_behind_is_not_taken_for_new() {
        let mut seen = SeenBroadcasts::new(1);
        seen.insert("a", 1, 10_000);
        assert!(!seen.insert("a", 1, 10_000 - 64 * 64));
        assert!(seen.insert("a", 1, 10_000 - 64 * 64 + 1));
    }

    #[test]
    fn an_invented_number_does_not_silence_an_origin() {
        let mut seen = SeenBroadcasts::new(1);
        seen.insert("a", 1, 7);
        assert!(seen.insert("a", 1, u64::MAX));
        assert!(seen.insert("a", 1, 8));
    }

    #[test]
    fn memory_is_bounded() {
        let mut seen = SeenBroadcasts::new(1);
        for i in 0..MAX_ORIGINS + 10 {
            assert!(seen.insert(&format!("n{i}"), 1, 1));
        }
        assert_eq!((seen.origins.len(), seen.oldest_first.len()), (MAX_ORIGINS, MAX_ORIGINS));
        let mut window = Window::new(1, 1);
        for step in [64, 63, 1, 4095, 100_000] {
            window.insert(window.highest + step);
            assert!(window.bits.len() <= MAX_WORDS);
        }
    }

    proptest! {
        #[test]
        fn a_window_agrees_with_a_set(sequences in prop::collection::vec(1u64..3000, 1..400)) {
            let (mut window, mut set) = (Window::new(1, sequences[0]), HashSet::new());
            set.insert(sequences[0]);
            for sequence in &sequences[1..] {
                prop_assert_eq!(window.insert(*sequence), set.insert(*sequence));
            }
        }
    }
}
