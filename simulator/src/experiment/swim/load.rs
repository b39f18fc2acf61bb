//! What a member sends and receives in a cluster in which nothing happens.

use std::time::Duration;

use serde::Serialize;

use crate::experiment::lan_link;
use crate::network::Network;
use crate::parallel::Stop;
use crate::world::World;

/// The load of one cluster size, in packets and bytes a member and period.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Load {
    /// The size.
    pub members: usize,
    /// Packets sent.
    pub sent: f64,
    /// Packets received.
    pub received: f64,
    /// Bytes of the packets sent.
    pub bytes_sent: f64,
}

/// `None` if it was stopped.
pub(super) fn run(members: usize, seed: u64, stop: &Stop) -> Option<Load> {
    const PERIODS: u32 = 60;
    let config = super::swim();
    let mut world = World::new(seed, Network::new(lan_link(0.0)), ());
    world.set_stop(stop.clone());
    world.add_cluster(members, &config);
    world.run_for(config.probe_interval);
    let totals = |world: &World| {
        let stats = world.processes().iter().filter_map(|p| p.machine()).map(|m| m.stats());
        stats.fold([0; 3], |sum, stats| {
            [
                sum[0] + stats.packets_sent,
                sum[1] + stats.packets_received,
                sum[2] + stats.bytes_sent,
            ]
        })
    };
    let before = totals(&world);
    world.run_for(config.probe_interval * PERIODS);
    // Answers that are under way belong to the last period.
    world.run_for(Duration::from_millis(10));
    let after = totals(&world);
    let member_periods = members as f64 * f64::from(PERIODS);
    let rate = |i: usize| (after[i] - before[i]) as f64 / member_periods;
    let load = Load { members, sent: rate(0), received: rate(1), bytes_sent: rate(2) };
    (!stop.is_asked()).then_some(load)
}
