//! The chaos phase: faults happen to a world, one after the other, and end again.

use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};

use super::check::Checkers;
use super::scenario::{Fault, Scenario, long_partition};
use crate::network::{Delay, LinkModel, ProcessId};
use crate::process::{Pause, Process};
use crate::time::Time;
use crate::world::World;

/// What ends a fault, or continues it.
#[derive(Debug)]
enum Sequel {
    Unblock {
        links: Vec<(ProcessId, ProcessId)>,
        /// Whom they cut off, for the trace.
        who: String,
    },
    Resume(ProcessId),
    /// Another spell of standing still.
    Spell {
        id: ProcessId,
        length: Duration,
        left: u32,
    },
    Restart {
        id: ProcessId,
        elsewhere: bool,
    },
    Return(ProcessId),
    QuietLinks,
}

/// The faults of one run.
pub(crate) struct Chaos<'a> {
    scenario: &'a Scenario,
    rng: StdRng,
    sequels: Vec<(Time, Sequel)>,
}

impl<'a> Chaos<'a> {
    pub(crate) fn new(scenario: &'a Scenario) -> Self {
        Self {
            scenario,
            rng: StdRng::seed_from_u64(scenario.seed ^ 0xc4a0_5000),
            sequels: Vec::new(),
        }
    }

    /// How long until the next fault.
    pub(crate) fn pause(&mut self) -> Duration {
        let mean = self.scenario.chaos / self.scenario.actions;
        mean.mul_f64(2.0 * self.rng.random::<f64>())
    }

    /// When the next fault ends.
    pub(crate) fn next_sequel(&self) -> Option<Time> {
        self.sequels.iter().map(|(at, _)| *at).min()
    }

    /// Ends what is to end by now.
    pub(crate) fn end_due(&mut self, world: &mut World<Checkers>) {
        let now = world.now();
        let sequels = std::mem::take(&mut self.sequels);
        let (due, rest) = sequels.into_iter().partition(|(at, _)| *at <= now);
        self.sequels = rest;
        for (_, sequel) in due {
            self.follow(sequel, world);
        }
    }

    fn follow(&mut self, sequel: Sequel, world: &mut World<Checkers>) {
        match sequel {
            Sequel::Unblock { links, who } => {
                world.note(&format!("no longer {who} ({} links)", links.len()));
                links.into_iter().for_each(|(from, to)| world.network.unblock(from, to));
            }
            Sequel::Resume(id) => world.resume(id),
            Sequel::Spell { id, length, left } => {
                world.pause(id, Pause::Blocked);
                self.later(world, length, Sequel::Resume(id));
                if left > 0 {
                    let next = Sequel::Spell { id, length, left: left - 1 };
                    self.later(world, length * 2, next);
                }
            }
            Sequel::Restart { id, elsewhere } => {
                if !world.process(id).is_up() {
                    let life = world.process(id).life + 1;
                    world.set_config(id, self.scenario.config_of(id, life));
                    world.restart(id, elsewhere);
                }
            }
            Sequel::Return(id) => {
                // Also one that has left itself: through that nobody comes back, and the join fails.
                if let Some(seed) = self.some(world, |p| p.id != id && p.is_up()) {
                    world.join(id, seed);
                }
            }
            Sequel::QuietLinks => {
                world.note("links are quiet");
                world.network.set_default(self.scenario.link);
            }
        }
    }

    /// Ends everything.
    pub(crate) fn end_all(&mut self, world: &mut World<Checkers>) {
        self.sequels.clear();
        world.note("calm");
        world.network.heal();
        world.network.set_default(self.scenario.link);
        for id in 0..world.processes().len() as ProcessId {
            world.resume(id);
        }
    }

    fn later(&mut self, world: &World<Checkers>, after: Duration, sequel: Sequel) {
        self.sequels.push((world.now() + after, sequel));
    }

    /// A time in the order of a probe or of a suspicion.
    fn some_time(&mut self) -> Duration {
        let interval = self.scenario.config.probe_interval;
        let intervals = *[0.3, 1.5, 6.0, 30.0].choose(&mut self.rng).unwrap_or(&1.0);
        interval.mul_f64(intervals * (0.5 + self.rng.random::<f64>()))
    }

    fn some(
        &mut self,
        world: &World<Checkers>,
        wanted: impl Fn(&Process) -> bool,
    ) -> Option<ProcessId> {
        let ids: Vec<ProcessId> =
            world.processes().iter().filter(|p| wanted(p)).map(|p| p.id).collect();
        ids.choose(&mut self.rng).copied()
    }

    /// A running process to join through.
    pub(crate) fn some_other(
        &mut self,
        world: &World<Checkers>,
        id: ProcessId,
    ) -> Option<ProcessId> {
        self.some(world, |process| process.id != id && process.is_member())
    }

    /// Lets one fault of the classes that are on happen.
    pub(crate) fn strike(&mut self, world: &mut World<Checkers>) {
        let faults: Vec<Fault> = self.scenario.faults.iter().copied().collect();
        let Some(&fault) = faults.choose(&mut self.rng) else { return };
        match fault {
            Fault::Loss | Fault::Duplication | Fault::Reordering => {
                self.trouble_links(fault, world)
            }
            Fault::Clogging => self.clog(world),
            Fault::OneWay => self.cut(world, false, self.scenario.config.probe_interval),
            Fault::Partition => self.cut(world, true, self.scenario.config.probe_interval),
            Fault::LongPartition => self.cut(world, true, long_partition(&self.scenario.config)),
            Fault::Crash => self.crash(world, false),
            Fault::Move => self.crash(world, true),
            Fault::Freeze => {
                let Some(id) = self.some(world, Process::is_member) else { return };
                world.pause(id, Pause::Frozen);
                let length = self.some_time();
                self.later(world, length, Sequel::Resume(id));
            }
            Fault::Block => {
                let Some(id) = self.some(world, Process::is_member) else { return };
                let length = self.some_time() / 2;
                let left = self.rng.random_range(0..6);
                self.follow(Sequel::Spell { id, length, left }, world);
            }
            Fault::Leave => self.leave(world),
            Fault::Meta => {
                let Some(id) = self.some(world, Process::is_member) else { return };
                let longest = self.scenario.config.max_meta_bytes;
                let length = self.rng.random_range(0..=longest);
                world.update_meta(id, Bytes::from(vec![self.rng.random(); length]));
            }
            Fault::Broadcast => {
                let Some(id) = self.some(world, Process::is_member) else { return };
                let length = self.rng.random_range(0..600);
                for _ in 0..self.rng.random_range(1..10) {
                    world.broadcast(id, &vec![7; length]);
                }
            }
            // It is there from the beginning.
            Fault::TightPackets => {}
        }
    }

    /// Makes all links, or those of one process, lossy, doubling or slow.
    fn trouble_links(&mut self, fault: Fault, world: &mut World<Checkers>) {
        let mut model: LinkModel = world.network.default_model();
        match fault {
            Fault::Loss => {
                model.packets.loss = self.rng.random_range(0.01..0.7);
                model.streams.loss = model.packets.loss / 2.0;
            }
            Fault::Duplication => model.packets.duplicate = self.rng.random_range(0.01..0.5),
            _ => {
                let longest = self.scenario.config.probe_interval.mul_f64(self.rng.random());
                model.packets.delay = Delay::Uniform(Duration::from_micros(100), longest);
            }
        }
        if self.rng.random_bool(0.5) {
            world.note(&format!("all links: {model}"));
            world.network.set_default(model);
            let length = self.some_time() * 2;
            return self.later(world, length, Sequel::QuietLinks);
        }
        let Some(one) = self.some(world, Process::is_up) else { return };
        world.note(&format!("links of n{one}: {model}"));
        for other in 0..world.processes().len() as ProcessId {
            world.network.set_link(one, other, model);
            world.network.set_link(other, one, model);
        }
    }

    fn clog(&mut self, world: &mut World<Checkers>) {
        let length = self.some_time().min(Duration::from_secs(20));
        let until = world.now() + length;
        let Some(one) = self.some(world, Process::is_up) else { return };
        let everything = self.rng.random_bool(0.5);
        world.note(&format!("clog the links of n{one} until {until}"));
        for other in 0..world.processes().len() as ProcessId {
            if everything || self.rng.random_bool(0.3) {
                world.network.clog(one, other, until);
                world.network.clog(other, one, until);
            }
        }
    }

    /// Cuts the processes in two.
    fn cut(&mut self, world: &mut World<Checkers>, both_ways: bool, at_least: Duration) {
        let mut ids: Vec<ProcessId> = (0..world.processes().len() as ProcessId).collect();
        ids.shuffle(&mut self.rng);
        let (one, other) = ids.split_at(self.rng.random_range(1..ids.len()));
        let mut links = Vec::new();
        for &a in one {
            for &b in other {
                links.push((a, b));
                if both_ways {
                    links.push((b, a));
                }
            }
        }
        let names: Vec<String> = one.iter().map(|id| format!("n{id}")).collect();
        let how = if both_ways { "cut off" } else { "not heard by the others" };
        let who = format!("{how}: {}", names.join(" "));
        world.note(&who);
        links.iter().for_each(|&(from, to)| world.network.block(from, to));
        let length = at_least + self.some_time();
        self.later(world, length, Sequel::Unblock { links, who });
    }

    /// Ends a process; in most cases it comes back. At least half of them stay up.
    fn crash(&mut self, world: &mut World<Checkers>, elsewhere: bool) {
        let up = world.processes().iter().filter(|process| process.is_up()).count();
        if up <= 1 || up * 2 <= world.processes().len() {
            return;
        }
        let Some(id) = self.some(world, Process::is_up) else { return };
        world.crash(id);
        if elsewhere || self.rng.random_bool(0.7) {
            let length = self.some_time();
            self.later(world, length, Sequel::Restart { id, elsewhere });
        }
    }

    fn leave(&mut self, world: &mut World<Checkers>) {
        let members = world.processes().iter().filter(|process| process.is_member()).count();
        if members <= 1 {
            return;
        }
        let Some(id) = self.some(world, Process::is_member) else { return };
        world.leave(id);
        match self.rng.random_range(0..4) {
            0 => {}
            1 => {
                // As a program does that ends after its farewell.
                let length = self.some_time() / 2;
                self.later(world, length, Sequel::Restart { id, elsewhere: false });
                world.run_for(Duration::from_millis(300));
                world.crash(id);
            }
            _ => {
                let length = self.some_time();
                self.later(world, length, Sequel::Return(id));
            }
        }
    }
}
