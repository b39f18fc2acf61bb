//! Local health awareness: how far this node doubts itself (Lifeguard §IV-A; Go `awareness`).
//!
//! Invariant: `0 ≤ score < awareness_max_multiplier`. Every missed ack or nack, and every suspicion
//! of itself that a node has to refute, raises the score; every probe that succeeds lowers it. A
//! node that doubts itself gives others more time, by stretching its probe interval by
//! `score + 1`.

use std::time::Duration;

/// The health score: 0 is healthy.
#[derive(Debug)]
pub(super) struct Awareness {
    score: u32,
    max: u32,
}

impl Awareness {
    /// `multiplier` is the upper bound plus one, at least 1.
    pub(super) fn new(multiplier: u32) -> Self {
        Self { score: 0, max: multiplier.saturating_sub(1) }
    }

    pub(super) fn score(&self) -> u32 {
        self.score
    }

    /// Adds `delta` within the bounds; says whether the score changed.
    pub(super) fn apply(&mut self, delta: i32) -> bool {
        let before = self.score;
        self.score = before.saturating_add_signed(delta).min(self.max);
        self.score != before
    }

    /// The time that a doubting node allows instead of `base`.
    pub(super) fn scale(&self, base: Duration) -> Duration {
        base * (self.score + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_within_its_bounds() {
        let mut awareness = Awareness::new(8);
        assert!(!awareness.apply(-1));
        assert!(awareness.apply(3));
        assert_eq!(awareness.scale(Duration::from_secs(1)), Duration::from_secs(4));
        assert!(awareness.apply(100));
        assert_eq!(awareness.score(), 7);
        assert!(!awareness.apply(1));
        assert!(awareness.apply(-100));
        assert_eq!(awareness.score(), 0);

        let mut fixed = Awareness::new(1);
        assert!(!fixed.apply(5));
        assert_eq!(fixed.scale(Duration::from_secs(1)), Duration::from_secs(1));
    }
}
