//! So often in a time, and no more.

use std::time::{Duration, Instant};

/// Counts what is asked for in a time.
#[derive(Debug)]
pub(super) struct Rate {
    time: Duration,
    since: Instant,
    count: u32,
}

impl Rate {
    pub(super) fn new(time: Duration, now: Instant) -> Self {
        Self { time, since: now, count: 0 }
    }

    /// Whether once more is within that many.
    pub(super) fn allows(&mut self, most: u32, now: Instant) -> bool {
        if now.saturating_duration_since(self.since) >= self.time {
            self.since = now;
            self.count = 0;
        }
        self.count = self.count.saturating_add(1);
        self.count <= most
    }
}
