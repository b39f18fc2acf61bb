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
}

/// The time after which somebody suspects a crashed member, one of `n`, when no prober feels sicker
/// than `health`.
///
/// A prober that walks its ring misses a given one of `n − 1` members in `k` probes with at most
/// `e^(−k/(n−1))`, wherever in its rings it is: with `a` of the probes in one ring and `b` in the next
/// the chance is `(1 − a/(n−1)) (1 − b/(n−1))`. So all `n − 1` probers miss it with at most `e^(−k)`.
/// The probe that picks it takes an interval, stretched by the health, to fail.
pub fn detection(config: &Config, n: usize, health: u32) -> Duration {
    let by_chance = libm::ceil(libm::log(1.0 / EPSILON)) as u32;
    let by_turns = (2 * n).saturating_sub(1).max(1) as u32;
    let stretch = if config.lifeguard.health_aware_probe { health + 1 } else { 1 };
    config.probe_interval * (by_chance.min(by_turns) + stretch)
}

/// The time from the first declaration of a death until half of `members` know of it; `None` without
/// gossip. Of `names` that may take a place in the ring of gossip not all listen.
///
/// Who knows of it tells `f = gossip_nodes · members/names` others a tick who listen, so that in a
/// mean field the number of those who know is multiplied by `1 + f` a tick. A generation takes a tick and
/// a packet's `delay`. The bound counts the generations until all know; that only half have to is what
/// is left for chance. This is a choice and no proof: `docs/SIMULATOR.md` says how much of it runs used.
pub fn spread(config: &Config, members: usize, names: usize, delay: Duration) -> Option<Duration> {
    let fan_out = (config.gossip_nodes * members) as f64 / names.max(1) as f64;
    if config.gossip_interval.is_zero() || fan_out == 0.0 {
        return None;
    }
    let generations = libm::ceil(libm::log2(members.max(2) as f64) / libm::log2(1.0 + fan_out));
    Some((config.gossip_interval + delay).mul_f64(generations))
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
    fn a_crash_is_noticed_by_turns_in_small_clusters_and_by_chance_in_large_ones() {
        let lan = Config::lan();
        assert_eq!(secs(detection(&lan, 3, 0)), 5 + 1);
        assert_eq!(secs(detection(&lan, 200, 0)), 14 + 1);
        assert_eq!(secs(detection(&lan, 200, 7)), 14 + 8);
    }

    #[test]
    fn gossip_grows_by_its_fan_out_and_the_teller() {
        let mut config = Config::lan();
        let delay = Duration::from_millis(50);
        // log 64 / log 4 = 3 generations of 200 + 50 ms.
        assert_eq!(spread(&config, 64, 64, delay), Some(Duration::from_millis(750)));
        config.gossip_interval = Duration::ZERO;
        assert_eq!(spread(&config, 64, 64, delay), None);
    }

    #[test]
    fn parts_that_are_switched_off_do_not_count() {
        let mut swim = Config::lan();
        swim.lifeguard = memberlist_protocol::Lifeguard::OFF;
        assert_eq!(secs(probe_round(&swim, 10)), 19);
        assert_eq!(secs(suspicion(&swim, 10)), 4);
    }
}
