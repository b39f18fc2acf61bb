//! Everybody joins one seed at the same moment; everybody is to know everybody.

use std::time::Duration;

use memberlist_protocol::{Config, Event};

use super::Spread;
use super::update::bytes_sent;
use crate::experiment::lan_link;
use crate::network::{LinkModel, Network, ProcessId};
use crate::parallel::Stop;
use crate::process::Process;
use crate::time::Time;
use crate::world::{Watch, World};

/// How long a process whose join was refused waits before it tries again.
const RETRY: Duration = Duration::from_secs(1);

/// How many pairs know of each other, and who has not been let in yet.
#[derive(Default)]
struct Pairs {
    known: usize,
    wanted: [usize; 3],
    reached: [Option<Time>; 3],
    refused: Vec<ProcessId>,
}

impl Watch for Pairs {
    fn happened(&mut self, at: Time, process: &Process, event: &Event) {
        match event {
            Event::Joined(_) => {
                self.known += 1;
                for (reached, &wanted) in self.reached.iter_mut().zip(&self.wanted) {
                    if reached.is_none() && self.known >= wanted {
                        *reached = Some(at);
                    }
                }
            }
            // A death that is not true takes a pair away again.
            Event::Gone(_) => self.known -= 1,
            Event::JoinDone { result: Err(_), .. } => self.refused.push(process.id),
            _ => {}
        }
    }
}

/// One mass join in a data centre; `None` if it was stopped.
pub fn one(
    config: &Config,
    members: usize,
    loss: f64,
    seed: u64,
    limit: Duration,
    stop: &Stop,
) -> Option<Spread> {
    over(config, lan_link(loss), members, seed, limit, stop)
}

/// The same over other links.
pub fn over(
    config: &Config,
    link: LinkModel,
    members: usize,
    seed: u64,
    limit: Duration,
    stop: &Stop,
) -> Option<Spread> {
    let pairs = members * members;
    let wanted = [pairs.div_ceil(2), (pairs * 99).div_ceil(100), pairs];
    let watch = Pairs { wanted, ..Pairs::default() };
    let mut world = World::new(seed, Network::new(link), watch);
    world.set_stop(stop.clone());
    for _ in 0..members {
        world.add(config.clone());
    }
    for id in 1..members as ProcessId {
        world.join(id, 0);
    }
    let end = world.now() + limit;
    while world.watch.known < pairs && world.now() < end && !stop.is_asked() {
        let next = (world.now() + RETRY).min(end);
        while world.now() < next && world.watch.known < pairs && !stop.is_asked() {
            world.run_until((world.now() + Duration::from_millis(50)).min(next));
        }
        for id in std::mem::take(&mut world.watch.refused) {
            world.join(id, 0);
        }
    }
    let took = world.now().as_secs_f64().max(f64::MIN_POSITIVE);
    let since_start = |at: Option<Time>| at.map(Time::since_start);
    let [half, most, all] = world.watch.reached.map(since_start);
    let bytes_per_second = bytes_sent(&world) as f64 / members as f64 / took;
    let spread = Spread { half, most, all, bytes_per_second };
    (!stop.is_asked()).then_some(spread)
}
