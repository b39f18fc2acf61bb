//! How long things may take once nothing disturbs them: from the settings, never from what was seen.
//!
//! `docs/SIMULATOR.md` derives each formula. Where chance decides, the bound is the time after which
//! the failure has a probability below [`EPSILON`].

use std::time::Duration;

use memberlist_protocol::Config;
use memberlist_protocol::membership::testing::{push_pull_interval, suspicion_timeout};

/// The chance that a random delay exceeds its bound.
pub const EPSILON: f64 = 1e-6;

/// The time after which each of `n` members has been probed by every other, however sick the prober
/// feels: round robin picks a member again after at most `2n − 1` probes (SWIM §4.3), each of which
/// takes at most the awareness limit times the probe interval.
pub fn probe_round(config: &Config, n: usize) -> Duration {
    let probes = (2 * n).saturating_sub(1).max(1) as u32;
    longest_probe(config) * probes
}

/// The longest time from the start of a probe to its verdict.
pub fn longest_probe(config: &Config) -> Duration {
    let stretch =
        if config.lifeguard.health_aware_probe { config.awareness_max_multiplier } else { 1 };
    config.probe_interval * stretch
}

/// The longest life of a suspicion that nobody confirms or refutes.
pub fn suspicion(config: &Config, n: usize) -> Duration {
    let longest =
        if config.lifeguard.dynamic_suspicion { config.suspicion_max_timeout_mult } else { 1 };
    suspicion_timeout(config.suspicion_mult, n, config.probe_interval) * longest
}

/// The time after which nobody takes a crashed or departed member for a live one.
///
/// Everybody finds it by itself within a probe round, and gives up the suspicion at its end. News
/// from before the crash that is still under way can clear one suspicion; then the same begins again.
pub fn removal(config: &Config, n: usize) -> Duration {
    (probe_round(config, n) + longest_probe(config) + suspicion(config, n)) * 2
        + push_pull_spread(config, n)
}

/// The time after which a dead record has left the table: the dead window, and a round of the probe
/// ring, at whose end records are reaped.
pub fn reaping(config: &Config, n: usize) -> Duration {
    config.gossip_to_the_dead_time + longest_probe(config) * (n as u32 + 1)
}

/// The time after which everybody has tried every failed member again.
///
/// Of `f` failed and `a` live members, a tick tries with the chance `min(1, f/a)` one of `f`: a given
/// one with at least `1/n`. It is not tried in `t` ticks with at most `e^(−t/n)`; of `n²` pairs all
/// are tried but with [`EPSILON`] after `n (2 ln n + ln 1/ε)` ticks.
pub fn reconnect(config: &Config, n: usize) -> Duration {
    let n = n.max(2) as f64;
    let ticks = n * (2.0 * libm::log(n) + libm::log(1.0 / EPSILON));
    config.reconnect_interval.mul_f64(ticks.ceil())
}

/// The time after which push/pull alone has brought a piece of news to everybody: it doubles its
/// hold in at most two intervals until half have it; from then on one who does not have it meets one
/// who does with a chance of a half an interval.
pub fn push_pull_spread(config: &Config, n: usize) -> Duration {
    let n_f = n.max(2) as f64;
    let rounds = 2.0 * libm::log2(n_f) + libm::log2(n_f / EPSILON);
    (push_pull_interval(config.push_pull_interval, n) + config.stream_timeout)
        .mul_f64(rounds.ceil())
}

/// The time after which all views agree, whatever happened before: what is wrongly believed alive is
/// found dead, what is in the way of a name's new address is reaped, the failed are tried again, what
/// they say spreads.
pub fn calm(config: &Config, n: usize) -> Duration {
    removal(config, n) + reaping(config, n) + reconnect(config, n) + push_pull_spread(config, n)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(duration: Duration) -> u64 {
        duration.as_secs()
    }

    #[test]
    fn bounds_follow_the_formulas() {
        let lan = Config::lan();
        assert_eq!(secs(probe_round(&lan, 10)), 19 * 8);
        assert_eq!(secs(suspicion(&lan, 10)), 24);
        assert_eq!(secs(reaping(&lan, 10)), 30 + 8 * 11);
        // 10 (2 ln 10 + ln 10^6) = 184.2 ticks of 30 s.
        assert_eq!(secs(reconnect(&lan, 10)), 185 * 30);
        // 2 log2 10 + log2 10^7 = 29.9 rounds of 30 s and a stream's 10 s.
        assert_eq!(secs(push_pull_spread(&lan, 10)), 30 * 40);
    }

    #[test]
    fn parts_that_are_switched_off_do_not_count() {
        let mut swim = Config::lan();
        swim.lifeguard = memberlist_protocol::Lifeguard::OFF;
        assert_eq!(secs(probe_round(&swim, 10)), 19);
        assert_eq!(secs(suspicion(&swim, 10)), 4);
    }
}
