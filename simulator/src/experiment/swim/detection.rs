//! Periods from a crash to the first probe of the crashed member.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use memberlist_protocol::message::Message;
use memberlist_protocol::wire::read_packet;
use rand::RngExt;
use rand::seq::SliceRandom;
use serde::Serialize;

use crate::experiment::lan_link;
use crate::network::{Network, ProcessId};
use crate::parallel::Stop;
use crate::process::Process;
use crate::statistics::Summary;
use crate::time::Time;
use crate::world::{Watch, World};

/// From this size on the limit of the formula is compared with.
pub(super) const LARGE: usize = 128;

/// The detections of one cluster size.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Detection {
    /// The size.
    pub members: usize,
    /// Whole periods until the first probe.
    pub periods: Summary,
    /// Expected by the paper.
    pub formula: f64,
    /// Expected of members that walk a shuffled ring.
    pub round_robin: f64,
}

/// The mean number of periods: by the paper's formula, and exactly for round robin.
///
/// A prober's next pick of a given member is equally likely in each of the coming `n − 1` periods. So
/// none of `n − 1` probers has picked it after `k` periods with `(1 − k/(n−1))^(n−1)`, and the mean
/// is the sum of these.
pub fn expected_periods(members: usize) -> (f64, f64) {
    let others = members.saturating_sub(1).max(1) as f64;
    let formula = match members {
        LARGE.. => std::f64::consts::E / (std::f64::consts::E - 1.0),
        _ => 1.0 / (1.0 - libm::pow(1.0 - 1.0 / others, others)),
    };
    let missed = |k: usize| libm::pow(1.0 - k as f64 / others, others);
    (formula, (0..members.saturating_sub(1)).map(missed).sum())
}

/// How many crash at once: few enough not to count as probers that are missing.
pub(super) fn victims(members: usize) -> usize {
    (members / 200).max(1)
}

/// When each victim was first pinged.
#[derive(Default)]
struct FirstPing(BTreeMap<SocketAddr, Option<Time>>);

impl Watch for FirstPing {
    fn sent(&mut self, at: Time, _: &Process, to: SocketAddr, bytes: &[u8]) {
        let Some(first @ None) = self.0.get_mut(&to) else { return };
        let Ok(mut messages) = read_packet(bytes) else { return };
        if messages.any(|message| matches!(message, Ok(Message::Ping(_)))) {
            *first = Some(at);
        }
    }
}

/// One cluster and its crashes; `None` if it was stopped.
pub(super) fn run(members: usize, seed: u64, stop: &Stop) -> Option<Vec<u32>> {
    let config = super::swim();
    let period = config.probe_interval;
    let mut world = World::new(seed, Network::new(lan_link(0.0)), FirstPing::default());
    world.set_stop(stop.clone());
    world.add_cluster(members, &config);
    let quiet = period.mul_f64(1.0 + world.rng().random::<f64>());
    world.run_for(quiet);
    let mut ids: Vec<ProcessId> = (0..members as ProcessId).collect();
    ids.shuffle(world.rng());
    let crashed_at = world.now();
    for &victim in &ids[..victims(members)] {
        let addr = world.process(victim).addr;
        world.watch.0.insert(addr, None);
        world.crash(victim);
    }
    let all = |world: &World<FirstPing>| world.watch.0.values().all(Option::is_some);
    world.run_until_holds(period * (2 * members as u32), Duration::from_millis(100), all);
    let periods = |first: Time| {
        let elapsed = (first - crashed_at).as_secs_f64() / period.as_secs_f64();
        (elapsed.ceil() as u32).max(1)
    };
    let found = world.watch.0.values().map(|first| first.map(periods)).collect();
    if stop.is_asked() { None } else { found }
}

pub(super) fn summarise(members: usize, found: &[(usize, Vec<u32>)]) -> Option<Detection> {
    let samples: Vec<f64> = (found.iter())
        .filter(|(n, _)| *n == members)
        .flat_map(|(_, periods)| periods.iter().map(|&count| f64::from(count)))
        .collect();
    let (formula, round_robin) = expected_periods(members);
    Some(Detection { members, periods: Summary::of(&samples)?, formula, round_robin })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_clusters_agree_with_the_limit() {
        let (formula, round_robin) = expected_periods(1000);
        assert!((formula - 1.582).abs() < 0.001, "{formula}");
        assert!((round_robin - formula).abs() < 0.002, "{round_robin}");
        // Two members: the other one probes it in every period.
        assert_eq!(expected_periods(2), (1.0, 1.0));
    }
}
