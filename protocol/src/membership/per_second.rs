//! So often in a second, and no more.

use std::time::{Duration, Instant};

/// Counts what is asked for in a second.
#[derive(Debug)]
pub(super) struct PerSecond {
    most: u32,
    since: Instant,
    count: u32,
}

impl PerSecond {
    pub(super) fn new(most: u32, now: Instant) -> Self {
        Self { most, since: now, count: 0 }
    }

    /// Whether once more is within the limit.
    pub(super) fn allows(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.since) >= Duration::from_secs(1) {
            self.since = now;
            self.count = 0;
        }
        self.count = self.count.saturating_add(1);
        self.count <= self.most
    }
}
