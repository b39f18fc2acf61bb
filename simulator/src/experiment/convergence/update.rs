//! One member changes its meta; everybody is to know.

use std::time::Duration;

use bytes::Bytes;
use memberlist_protocol::{Config, Event};
use rand::RngExt;

use super::Spread;
use crate::experiment::lan_link;
use crate::network::{Network, ProcessId};
use crate::parallel::Stop;
use crate::process::Process;
use crate::time::Time;
use crate::world::{Watch, World};

/// When each observer learned of the update.
#[derive(Default)]
struct Learned {
    of: Option<ProcessId>,
    times: Vec<Time>,
}

impl Watch for Learned {
    fn happened(&mut self, at: Time, _: &Process, event: &Event) {
        let Event::Updated(member) = event else { return };
        if self.of == crate::explore::truth::process_of(member.id()) && self.of.is_some() {
            self.times.push(at);
        }
    }
}

/// What everybody has sent so far, packets and streams, in bytes.
pub(super) fn bytes_sent<W: Watch>(world: &World<W>) -> u64 {
    let machines = world.processes().iter().filter_map(|process| process.machine());
    machines.map(|machine| machine.stats().bytes_sent).sum::<u64>() + world.stream_bytes()
}

/// One update in a cluster that agreed before; `None` if it was stopped.
pub fn one(
    config: &Config,
    members: usize,
    loss: f64,
    seed: u64,
    limit: Duration,
    stop: &Stop,
) -> Option<Spread> {
    let mut world = World::new(seed, Network::new(lan_link(loss)), Learned::default());
    world.set_stop(stop.clone());
    world.add_cluster(members, config);
    let quiet = Duration::from_secs(1).mul_f64(1.0 + world.rng().random::<f64>());
    world.run_for(quiet);
    let who = world.rng().random_range(0..members as ProcessId);
    world.watch.of = Some(who);
    let (began, before) = (world.now(), bytes_sent(&world));
    world.update_meta(who, Bytes::from_static(b"new"));
    let known = |world: &World<Learned>| world.watch.times.len() >= members;
    world.run_until_holds(limit, Duration::from_millis(50), known);
    let took = (world.now() - began).as_secs_f64().max(f64::MIN_POSITIVE);
    let sent = (bytes_sent(&world) - before) as f64;
    let reached = |share: f64| {
        let wanted = (share * members as f64).ceil() as usize;
        world.watch.times.get(wanted.saturating_sub(1)).map(|&at| at - began)
    };
    let spread = Spread {
        half: reached(0.5),
        most: reached(0.99),
        all: reached(1.0),
        bytes_per_second: sent / members as f64 / took,
    };
    (!stop.is_asked()).then_some(spread)
}
