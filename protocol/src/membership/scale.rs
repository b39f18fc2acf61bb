//! Formulas that grow with the size of the cluster. `n` is the number of known records, gone ones
//! included, as in Go.
//!
//! Logarithms go through the two functions here and through a portable implementation, so that a
//! seed replays the same run on every machine.

use std::time::Duration;

fn log10(x: f64) -> f64 {
    libm::log10(x)
}

fn ln(x: f64) -> f64 {
    libm::log(x)
}

/// The minimum suspicion timeout: `mult × max(1, log10 n) × interval`, the logarithm cut to three
/// decimals (Go `suspicionTimeout`).
pub fn suspicion_timeout(mult: u32, n: usize, probe_interval: Duration) -> Duration {
    let scale = log10(n.max(1) as f64).max(1.0);
    let thousandths = (scale * 1000.0).floor() as u128;
    nanos(u128::from(mult) * thousandths * probe_interval.as_nanos() / 1000)
}

/// The suspicion timeout after `confirmations` of the `wanted` independent confirmations:
/// `max − (max − min) × ln(c + 1) / ln(k + 1)`, whole milliseconds, at least `min`
/// (Lifeguard §IV-B; Go `remainingSuspicionTime`).
pub fn suspicion_timeout_after(
    confirmations: u32,
    wanted: u32,
    min: Duration,
    max: Duration,
) -> Duration {
    if wanted == 0 {
        return min;
    }
    let fraction = ln(f64::from(confirmations) + 1.0) / ln(f64::from(wanted) + 1.0);
    let seconds = max.as_secs_f64() - fraction * (max.as_secs_f64() - min.as_secs_f64());
    let millis = (1000.0 * seconds).floor().max(0.0) as u64;
    Duration::from_millis(millis).max(min)
}

/// How often an item of news is sent: `mult × ceil(log10(n + 1))` (SWIM §4.1; Go
/// `retransmitLimit`).
pub fn retransmit_limit(mult: u32, n: usize) -> u32 {
    // The number of decimal digits of n is ceil(log10(n + 1)), without rounding.
    let digits = n.checked_ilog10().map_or(0, |log| log + 1);
    mult.saturating_mul(digits)
}

/// How often news of members is sent: as Go does, but at least to eight others, or to all of a
/// smaller cluster. Gossip that is sent `l` times by each misses a given member with a chance of
/// about `e^-l`; with the two or four times that Go's formula gives below ten members that is often
/// enough to notice.
pub(super) fn news_limit(mult: u32, n: usize) -> u32 {
    retransmit_limit(mult, n).max(others(n).min(8))
}

/// In how many generations news reaches `n` members in a mean field, if each that knows tells
/// `fan_out` others.
pub(super) fn generations(fan_out: usize, n: usize) -> u32 {
    (ln(n.max(2) as f64) / ln(1.0 + fan_out.max(1) as f64)).ceil() as u32
}

/// How often a user broadcast is sent: as often as news, but at least `ln n + 10` times, or to all
/// of a smaller cluster, so that a member is missed in one of 10,000 cases. What was missed of news is
/// repaired by syncs or push/pull; of broadcasts by nothing.
pub(super) fn user_broadcast_limit(news_limit: u32, n: usize) -> u32 {
    let wanted = ln(n.max(1) as f64).ceil() as u32 + 10;
    news_limit.max(others(n).min(wanted))
}

/// How many members there are beside this one.
pub(super) fn others(n: usize) -> u32 {
    u32::try_from(n.saturating_sub(1)).unwrap_or(u32::MAX)
}

/// The push/pull interval in a cluster of `n`: stretched above 32 members by
/// `ceil(log2 n − 5) + 1` (Go `pushPullScale`).
pub fn push_pull_interval(interval: Duration, n: usize) -> Duration {
    if n <= 32 {
        return interval;
    }
    let doublings = (n - 1).ilog2() + 1 - 5;
    interval * (doublings + 1)
}

fn nanos(n: u128) -> Duration {
    Duration::from_nanos(u64::try_from(n).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suspicion_timeout_follows_the_logarithm() {
        let second = Duration::from_secs(1);
        let ms = |n| suspicion_timeout(4, n, second).as_millis();
        assert_eq!([ms(0), ms(1), ms(10), ms(11)], [4000, 4000, 4000, 4164]);
        assert_eq!([ms(32), ms(50), ms(100), ms(500)], [6020, 6792, 8000, 10792]);
        assert_eq!([ms(1000), ms(10_000), ms(100_000)], [12_000, 16_000, 20_000]);
    }

    #[test]
    fn retransmit_limit_steps_at_powers_of_ten() {
        let limits = [0, 1, 9, 10, 99, 100, 999, 1000].map(|n| retransmit_limit(4, n));
        assert_eq!(limits, [0, 4, 4, 8, 8, 12, 12, 16]);
    }

    #[test]
    fn small_clusters_send_to_everybody() {
        assert_eq!([0, 1, 2, 5, 9, 10, 100].map(|n| news_limit(2, n)), [0, 2, 2, 4, 8, 8, 8]);
        assert_eq!([5, 100, 1000].map(|n| news_limit(4, n)), [4, 12, 16]);
        assert_eq!([2, 5, 12, 100, 1000].map(|n| user_broadcast_limit(4, n)), [4, 4, 11, 15, 17]);
    }

    #[test]
    fn push_pull_is_rarer_in_large_clusters() {
        let times = |n| push_pull_interval(Duration::from_secs(1), n).as_secs();
        assert_eq!([0, 1, 32, 33, 64, 65, 128].map(times), [1, 1, 1, 2, 2, 3, 3]);
        assert_eq!([129, 256, 500, 1000, 10_000].map(times), [4, 4, 5, 6, 10]);
    }

    #[test]
    fn confirmations_shorten_the_suspicion() {
        let (min, max) = (Duration::from_secs(2), Duration::from_secs(30));
        let ms = |c, k| suspicion_timeout_after(c, k, min, max).as_millis();
        assert_eq!(
            [ms(0, 3), ms(1, 3), ms(2, 3), ms(3, 3), ms(9, 3)],
            [30_000, 16_000, 7810, 2000, 2000]
        );
        assert_eq!(ms(0, 0), 2000);
    }
}
