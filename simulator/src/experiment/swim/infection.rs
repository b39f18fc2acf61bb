//! Periods until an update is known to half, and to all.

use std::time::Duration;

use memberlist_protocol::Config;
use serde::Serialize;

use crate::experiment::convergence::update;
use crate::parallel::Stop;
use crate::statistics::Summary;

/// The spread of updates in one cluster size, in periods.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Infection {
    /// The size.
    pub members: usize,
    /// Until half know it, on pings and acks alone.
    pub piggyback_half: Option<Summary>,
    /// Until all know it.
    pub piggyback_all: Option<Summary>,
    /// The paper's model for half.
    pub model_half: f64,
    /// Until half know it, with gossip ticks.
    pub ticks_half: Option<Summary>,
    /// Until all know it.
    pub ticks_all: Option<Summary>,
}

pub(super) struct Sample {
    members: usize,
    ticks: bool,
    half: Option<f64>,
    all: Option<f64>,
}

/// One update; `None` if it was stopped.
pub(super) fn run(members: usize, ticks: bool, seed: u64, stop: &Stop) -> Option<Sample> {
    let mut config: Config = super::swim();
    if !ticks {
        config.gossip_interval = Duration::ZERO;
    }
    // What push/pull brings is not gossip's.
    config.push_pull_interval = Duration::ZERO;
    let limit = config.probe_interval * 60;
    let spread = update::one(&config, members, 0.0, seed, limit, stop)?;
    let periods = |time: Duration| time.as_secs_f64() / config.probe_interval.as_secs_f64();
    Some(Sample { members, ticks, half: spread.half.map(periods), all: spread.all.map(periods) })
}

pub(super) fn summarise(members: usize, samples: &[Sample]) -> Option<Infection> {
    let of = |ticks: bool, value: fn(&Sample) -> Option<f64>| {
        let of_size = samples.iter().filter(|s| s.members == members && s.ticks == ticks);
        Summary::of(&of_size.filter_map(value).collect::<Vec<_>>())
    };
    let n = members as f64;
    let infection = Infection {
        members,
        piggyback_half: of(false, |sample| sample.half),
        piggyback_all: of(false, |sample| sample.all),
        model_half: libm::log(n - 1.0) / (2.0 - 1.0 / n),
        ticks_half: of(true, |sample| sample.half),
        ticks_all: of(true, |sample| sample.all),
    };
    samples.iter().any(|sample| sample.members == members).then_some(infection)
}
