//! The threshold experiment: how long until members that stopped are known to be dead.

use std::collections::BTreeMap;
use std::time::Duration;

use memberlist_protocol::{Event, NodeState};
use rand::RngExt;
use rand::seq::SliceRandom;
use serde::Serialize;

use super::{MEMBERS, Tuning, Variant};
use crate::experiment::lan_link;
use crate::explore::truth::process_of;
use crate::network::{Network, ProcessId};
use crate::parallel::Stop;
use crate::process::Process;
use crate::statistics::Summary;
use crate::time::Time;
use crate::world::{Watch, World};

/// How long is waited for the last member to learn of a death.
const LIMIT: Duration = Duration::from_secs(180);

/// The latencies of one variant and number of victims, in seconds from the stop.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Detection {
    /// Which parts of Lifeguard were on.
    pub variant: Variant,
    /// How many members stopped at once (C).
    pub concurrent: usize,
    /// Until the first member declared the death.
    pub first: Option<Summary>,
    /// Until every member knew of it.
    pub full: Option<Summary>,
    /// Victims that somebody still took for alive at the limit.
    pub undetected: usize,
}

/// The same, sample by sample.
pub(super) struct Samples {
    variant: Variant,
    concurrent: usize,
    first: Vec<f64>,
    full: Vec<f64>,
    undetected: usize,
}

/// When a victim was found.
#[derive(Default)]
struct Found {
    first: Option<Time>,
    last: Option<Time>,
    by: usize,
}

/// Waits for deaths of the victims.
#[derive(Default)]
struct Deaths(BTreeMap<ProcessId, Found>);

impl Watch for Deaths {
    fn happened(&mut self, at: Time, _: &Process, event: &Event) {
        let Event::Gone(member) = event else { return };
        let about = process_of(member.id()).filter(|_| member.state == NodeState::Dead);
        let Some(found) = about.and_then(|about| self.0.get_mut(&about)) else { return };
        found.first.get_or_insert(at);
        found.last = Some(at);
        found.by += 1;
    }
}

pub(super) fn add(all: &mut Vec<Samples>, one: Samples) {
    let same = |row: &&mut Samples| (row.variant, row.concurrent) == (one.variant, one.concurrent);
    match all.iter_mut().find(same) {
        Some(row) => {
            row.first.extend(one.first);
            row.full.extend(one.full);
            row.undetected += one.undetected;
        }
        None => all.push(one),
    }
}

pub(super) fn summarise(all: Vec<Samples>) -> Vec<Detection> {
    let summary = |samples: Samples| Detection {
        variant: samples.variant,
        concurrent: samples.concurrent,
        first: Summary::of(&samples.first),
        full: Summary::of(&samples.full),
        undetected: samples.undetected,
    };
    all.into_iter().map(summary).collect()
}

/// One run; `None` if it was stopped.
pub(super) fn run(
    tuning: Tuning,
    variant: Variant,
    c: usize,
    seed: u64,
    stop: &Stop,
) -> Option<Samples> {
    let mut world = World::new(seed, Network::new(lan_link(0.0)), Deaths::default());
    world.set_stop(stop.clone());
    world.add_cluster(MEMBERS, &tuning.config(variant));
    // Members have probed for a while, and the moment means nothing to anybody.
    let quiet = Duration::from_secs(1).mul_f64(1.0 + world.rng().random::<f64>());
    world.run_for(quiet);
    let mut ids: Vec<ProcessId> = (0..MEMBERS as ProcessId).collect();
    ids.shuffle(world.rng());
    let stopped_at = world.now();
    for &victim in &ids[..c] {
        world.watch.0.insert(victim, Found::default());
        world.crash(victim);
    }
    let left = MEMBERS - c;
    let all_found = |world: &World<Deaths>| world.watch.0.values().all(|f| f.by >= left);
    world.run_until_holds(LIMIT, Duration::from_millis(100), all_found);
    let mut samples =
        Samples { variant, concurrent: c, first: Vec::new(), full: Vec::new(), undetected: 0 };
    for found in world.watch.0.values() {
        let seconds = |at: Time| (at - stopped_at).as_secs_f64();
        samples.first.extend(found.first.map(seconds));
        if found.by >= left {
            samples.full.extend(found.last.map(seconds));
        } else {
            samples.undetected += 1;
        }
    }
    (!stop.is_asked()).then_some(samples)
}
