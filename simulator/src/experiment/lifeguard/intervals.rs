//! The interval experiment: false positives and load while some members are slow.

use std::time::Duration;

use memberlist_protocol::{Event, NodeState};
use rand::seq::SliceRandom;
use serde::Serialize;

use super::{MEMBERS, Tuning, Variant};
use crate::experiment::lan_link;
use crate::explore::truth::process_of;
use crate::network::{Network, ProcessId};
use crate::parallel::Stop;
use crate::process::{Pause, Process};
use crate::time::Time;
use crate::world::{Watch, World};

/// The length of a run.
const RUN: Duration = Duration::from_secs(120);

/// What happened in the runs of one combination.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Intervals {
    /// Which parts of Lifeguard were on.
    pub variant: Variant,
    /// How many members suffered (C).
    pub concurrent: usize,
    /// The length of an anomaly in milliseconds (D).
    pub duration_ms: u64,
    /// The health between two in milliseconds (I).
    pub interval_ms: u64,
    /// Deaths of well members that anybody believed (FP).
    pub false_positives: u64,
    /// Those of them that a well member believed (FP-).
    pub false_positives_at_healthy: u64,
    /// Packets sent.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Counts deaths of members that are well.
struct FalseDeaths {
    anomalous: Vec<bool>,
    everywhere: u64,
    at_healthy: u64,
}

impl Watch for FalseDeaths {
    fn happened(&mut self, _: Time, process: &Process, event: &Event) {
        let Event::Gone(member) = event else { return };
        let Some(about) = process_of(member.id()) else { return };
        if member.state == NodeState::Dead && !self.anomalous[about as usize] {
            self.everywhere += 1;
            self.at_healthy += u64::from(!self.anomalous[process.id as usize]);
        }
    }
}

/// Adds a run to those of the same combination.
pub(super) fn add(all: &mut Vec<Intervals>, one: Intervals) {
    let same = |row: &&mut Intervals| {
        (row.variant, row.concurrent, row.duration_ms, row.interval_ms)
            == (one.variant, one.concurrent, one.duration_ms, one.interval_ms)
    };
    match all.iter_mut().rev().find(same) {
        Some(row) => {
            row.false_positives += one.false_positives;
            row.false_positives_at_healthy += one.false_positives_at_healthy;
            row.packets += one.packets;
            row.bytes += one.bytes;
        }
        None => all.push(one),
    }
}

/// What some members suffer.
#[derive(Clone, Copy)]
pub(super) struct Anomaly {
    pub(super) members: usize,
    pub(super) length: Duration,
    pub(super) interval: Duration,
    pub(super) service_time: Duration,
}

/// One run; `None` if it was stopped.
pub(super) fn run(
    tuning: Tuning,
    variant: Variant,
    anomaly: Anomaly,
    seed: u64,
    stop: &Stop,
) -> Option<Intervals> {
    let deaths = FalseDeaths { anomalous: vec![false; MEMBERS], everywhere: 0, at_healthy: 0 };
    let mut world = World::new(seed, Network::new(lan_link(0.0)), deaths);
    world.set_stop(stop.clone());
    world.add_cluster(MEMBERS, &tuning.config(variant));
    let mut ids: Vec<ProcessId> = (0..MEMBERS as ProcessId).collect();
    ids.shuffle(world.rng());
    ids.truncate(anomaly.members);
    for &id in &ids {
        world.set_service_time(id, anomaly.service_time);
        world.watch.anomalous[id as usize] = true;
    }
    let end = Time::ZERO + RUN;
    while world.now() < end && !stop.is_asked() {
        ids.iter().for_each(|&id| world.pause(id, Pause::Blocked));
        world.run_until((world.now() + anomaly.length).min(end));
        ids.iter().for_each(|&id| world.resume(id));
        world.run_until((world.now() + anomaly.interval).min(end));
    }
    let stats = || world.processes().iter().filter_map(|p| p.machine()).map(|m| m.stats());
    (!stop.is_asked()).then(|| Intervals {
        variant,
        concurrent: anomaly.members,
        duration_ms: anomaly.length.as_millis() as u64,
        interval_ms: anomaly.interval.as_millis() as u64,
        false_positives: world.watch.everywhere,
        false_positives_at_healthy: world.watch.at_healthy,
        packets: stats().map(|stats| stats.packets_sent).sum(),
        bytes: stats().map(|stats| stats.bytes_sent).sum(),
    })
}
