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
/// The same in numbers. A window moves by no more than this at once.
const WIDTH: u64 = 64 * MAX_WORDS as u64;
/// Windows an origin: of its last runs, and of numbers far apart within one.
const MAX_WINDOWS: usize = 3;

/// Which broadcasts have been seen: a window an origin.
#[derive(Debug)]
pub(super) struct SeenBroadcasts {
    origins: HashMap<NodeId, Heard, SeedableRandomState>,
    oldest_first: VecDeque<NodeId>,
}

/// Which broadcasts of one origin have been seen. An invented number, of whatever run, opens a
/// window of its own beside the one in use, and so cannot silence the origin.
#[derive(Clone, Debug, Default)]
struct Heard {
    /// The least recently used first.
    windows: Vec<Window>,
}

/// Some numbers of one run that were seen: bit `i` stands for `highest - i`.
#[derive(Clone, Debug)]
struct Window {
    epoch: u32,
    highest: u64,
    bits: Vec<u64>,
    /// A second number fell into it.
    confirmed: bool,
}

impl SeenBroadcasts {
    pub(super) fn new(seed: u64) -> Self {
        let hasher = SeedableRandomState::with_seed(seed, foldhash::SharedSeed::global_fixed());
        Self { origins: HashMap::with_hasher(hasher), oldest_first: VecDeque::new() }
    }

    /// Remembers a broadcast; says whether it is new.
    fn insert(&mut self, origin: &str, epoch: u32, sequence: u64) -> bool {
        if let Some(heard) = self.origins.get_mut(origin) {
            return heard.insert(epoch, sequence);
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

impl Heard {
    /// Remembers a broadcast; says whether it is new.
    fn insert(&mut self, epoch: u32, sequence: u64) -> bool {
        let same_run = || self.windows.iter().enumerate().filter(|(_, w)| w.epoch == epoch);
        let covering = || same_run().filter(|(_, window)| window.covers(sequence));
        if covering().any(|(_, window)| window.contains(sequence)) {
            return false;
        }
        let Some((at, _)) = covering().max_by_key(|(_, window)| window.confirmed) else {
            // Shortly before a window it is a late copy, of which nobody knows whether it came.
            if same_run().any(|(_, window)| window.is_just_above(sequence)) {
                return false;
            }
            self.open(Window::new(epoch, sequence));
            return true;
        };
        let mut window = self.windows.remove(at);
        window.insert(sequence);
        self.windows.push(window);
        true
    }

    /// Makes room by closing a window that nothing confirmed, else the one unused for longest.
    fn open(&mut self, window: Window) {
        if self.windows.len() == MAX_WINDOWS {
            let at = self.windows.iter().position(|window| !window.confirmed);
            self.windows.remove(at.unwrap_or(0));
        }
        self.windows.push(window);
    }
}

impl Window {
    fn new(epoch: u32, sequence: u64) -> Self {
        Self { epoch, highest: sequence, bits: vec![1], confirmed: false }
    }

    /// Whether the number lies in the window, or so little above it that it may move there.
    fn covers(&self, sequence: u64) -> bool {
        match sequence.checked_sub(self.highest) {
            Some(above) => above <= WIDTH,
            None => self.highest - sequence < WIDTH,
        }
    }

    /// Whether the window lies above the number, by less than its width.
    fn is_just_above(&self, sequence: u64) -> bool {
        let below = self.highest.saturating_sub(sequence);
        (WIDTH..2 * WIDTH).contains(&below)
    }

    fn contains(&self, sequence: u64) -> bool {
        let Some(back) = self.highest.checked_sub(sequence) else { return false };
        let word = self.bits.get((back / 64) as usize);
        word.is_some_and(|word| word & 1 << (back % 64) != 0)
    }

    /// Marks a number that the window covers.
    fn insert(&mut self, sequence: u64) {
        self.confirmed = true;
        if sequence > self.highest {
            self.shift(sequence - self.highest);
            self.highest = sequence;
        }
        let back = self.highest - sequence;
        let word = (back / 64) as usize;
        if word >= self.bits.len() {
            self.bits.resize(word + 1, 0);
        }
        self.bits[word] |= 1 << (back % 64);
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
    fn invented_numbers_do_not_silence_an_origin() {
        let ahead = [1, 2, WIDTH, WIDTH + 1, 6000, 2 * WIDTH, 1_000_000, 1 << 40];
        for ahead in ahead {
            let mut seen = SeenBroadcasts::new(1);
            for sequence in 1..=7 {
                seen.insert("a", 1, sequence);
            }
            seen.insert("a", 1, 7 + ahead);
            seen.insert("a", 99, 7 + ahead);
            let missed = (8..20_000).filter(|sequence| !seen.insert("a", 1, *sequence)).count();
            assert!(missed <= 1, "{missed} missed after a jump of {ahead}");
            assert!((19_000..20_000).all(|sequence| !seen.insert("a", 1, sequence)));
        }
    }

    #[test]
    fn after_a_true_gap_an_origin_goes_on() {
        let mut seen = SeenBroadcasts::new(1);
        for sequence in (1..100).chain(1_000_000..1_000_100) {
            assert!(seen.insert("a", 1, sequence), "{sequence}");
        }
        assert!((1..100).chain(1_000_000..1_000_100).all(|n| !seen.insert("a", 1, n)));
    }

    #[test]
    fn memory_is_bounded() {
        let mut seen = SeenBroadcasts::new(1);
        for i in 0..MAX_ORIGINS + 10 {
            assert!(seen.insert(&format!("n{i}"), 1, 1));
        }
        assert_eq!((seen.origins.len(), seen.oldest_first.len()), (MAX_ORIGINS, MAX_ORIGINS));
        let (mut heard, mut sequence) = (Heard::default(), 1);
        for step in [64, 63, 1, 4095, 4096, 4096, 100_000, 1 << 30] {
            sequence += step;
            for epoch in 0..5 {
                assert!(heard.insert(epoch, sequence));
                assert!(heard.windows.len() <= MAX_WINDOWS);
                assert!(heard.windows.iter().all(|window| window.bits.len() <= MAX_WORDS));
            }
        }
    }

    proptest! {
        #[test]
        fn a_window_agrees_with_a_set(sequences in prop::collection::vec(1u64..3000, 1..400)) {
            let (mut heard, mut set) = (Heard::default(), HashSet::new());
            for sequence in &sequences {
                prop_assert_eq!(heard.insert(1, *sequence), set.insert(*sequence));
            }
        }
    }
}
