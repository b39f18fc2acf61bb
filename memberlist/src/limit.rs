//! Log lines that peers can provoke, at a bounded rate.

use std::time::Duration;

use tokio::time::Instant;

/// The time between two lines of the same kind.
const SPACING: Duration = Duration::from_secs(10);

/// Lets one line through now and then, and counts the others.
#[derive(Debug, Default)]
pub(crate) struct RateLimit {
    last: Option<Instant>,
    suppressed: u64,
}

impl RateLimit {
    /// How many lines were suppressed since the last one, if this one may be written.
    pub(crate) fn allow(&mut self) -> Option<u64> {
        let now = Instant::now();
        if self.last.is_some_and(|last| now.duration_since(last) < SPACING) {
            self.suppressed += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_line_a_spacing() {
        let mut limit = RateLimit::default();
        assert_eq!(limit.allow(), Some(0));
        assert_eq!((limit.allow(), limit.allow()), (None, None));
        tokio::time::advance(SPACING).await;
        assert_eq!(limit.allow(), Some(2));
    }
}
