//! What peers or the system can provoke without end, at a bounded rate: log lines, and attempts.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The time between two lines of the same kind.
const SPACING: Duration = Duration::from_secs(10);

/// Lets some lines through in each spacing, one if nothing else is said, and counts the others.
#[derive(Debug)]
pub(crate) struct RateLimit {
    most: u64,
    since: Option<Instant>,
    written: u64,
    suppressed: u64,
}

impl Default for RateLimit {
    fn default() -> Self {
        Self::of(1)
    }
}

impl RateLimit {
    /// That many lines in each spacing.
    pub(crate) fn of(most: u64) -> Self {
        Self { most, since: None, written: 0, suppressed: 0 }
    }

    /// How many lines were suppressed since the last one, if this one may be written.
    pub(crate) fn allow(&mut self) -> Option<u64> {
        let now = Instant::now();
        if self.since.is_none_or(|since| now.duration_since(since) >= SPACING) {
            (self.since, self.written) = (Some(now), 0);
        }
        if self.written >= self.most {
            self.suppressed += 1;
            return None;
        }
        self.written += 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

/// One for several tasks.
#[derive(Debug, Default)]
pub(crate) struct SharedLimit(Mutex<RateLimit>);

impl SharedLimit {
    /// That many lines in each spacing.
    #[cfg(feature = "encryption")]
    pub(crate) fn of(most: u64) -> Self {
        Self(Mutex::new(RateLimit::of(most)))
    }

    pub(crate) fn allow(&self) -> Option<u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).allow()
    }
}

/// The pauses between attempts that fail, as in Go: 5 ms, doubled up to a second.
#[derive(Debug, Default)]
pub(crate) struct Backoff(Option<Duration>);

impl Backoff {
    const FIRST: Duration = Duration::from_millis(5);
    const LONGEST: Duration = Duration::from_secs(1);

    /// How long to wait after a failure.
    pub(crate) fn pause(&mut self) -> Duration {
        let pause = self.0.map_or(Self::FIRST, |last| (last * 2).min(Self::LONGEST));
        self.0 = Some(pause);
        pause
    }

    /// An attempt went well.
    pub(crate) fn reset(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn so_many_lines_a_spacing() {
        let mut limit = RateLimit::default();
        assert_eq!(limit.allow(), Some(0));
        assert_eq!((limit.allow(), limit.allow()), (None, None));
        tokio::time::advance(SPACING).await;
        assert_eq!(limit.allow(), Some(2));
        let mut limit = RateLimit::of(3);
        assert_eq!([(); 5].map(|()| limit.allow()), [Some(0), Some(0), Some(0), None, None]);
        tokio::time::advance(SPACING).await;
        assert_eq!([limit.allow(), limit.allow()], [Some(2), Some(0)]);
    }

    #[test]
    fn pauses_grow_until_an_attempt_goes_well() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..10).map(|_| backoff.pause().as_millis()).collect();
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        backoff.reset();
        assert_eq!(backoff.pause(), Backoff::FIRST);
    }
}
