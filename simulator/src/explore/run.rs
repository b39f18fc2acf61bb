//! One run of a scenario: chaos, then calm, then a crash in the calm; the checkers watch throughout.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::bounds;
use super::chaos::Chaos;
use super::check::{Calm, Checkers, Violation, disagreement};
use super::islands::islands;
use super::scenario::Scenario;
use crate::network::{Network, ProcessId};
use crate::parallel::Stop;
use crate::process::Process;
use crate::time::Time;
use crate::world::World;

const SECOND: Duration = Duration::from_secs(1);
/// How long nothing may change once everybody agrees.
const QUIET: Duration = Duration::from_secs(30);

/// What came of a run.
#[derive(Clone, PartialEq, Debug)]
pub struct Outcome {
    /// Its scenario.
    pub scenario: Scenario,
    /// The invariant that was broken, if one was.
    pub violation: Option<Violation>,
    /// How long it took from the last fault until all views agreed, and how long it might have.
    pub calm: (Duration, Duration),
    /// The same for the removal of a member that crashed in the calm.
    pub removal: (Duration, Duration),
    /// It was stopped on its way: that nothing was broken proves nothing.
    pub interrupted: bool,
    /// Deaths of members that ran, as anybody believed them.
    pub false_deaths: u64,
    /// Inputs that the machines were given.
    pub steps: u64,
    /// The virtual time of the whole run.
    pub took: Duration,
    /// The digest of everything that happened.
    pub digest: u64,
    /// The log, if one was kept.
    pub log: String,
}

/// Runs a scenario. A machine that panics has broken an invariant, too.
pub fn run(scenario: &Scenario, keep_log: bool) -> Outcome {
    run_until_stopped(scenario, keep_log, &Stop::default())
}

/// As [`run`], but ends early if that is asked.
pub fn run_until_stopped(scenario: &Scenario, keep_log: bool, stop: &Stop) -> Outcome {
    catch_unwind(AssertUnwindSafe(|| attempt(scenario, keep_log, stop))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
        let what = text.unwrap_or_else(|| "it does not say why".to_owned());
        Outcome {
            scenario: scenario.clone(),
            violation: Some(Violation { check: "panic", at: Time::ZERO, what }),
            calm: (Duration::ZERO, SECOND),
            removal: (Duration::ZERO, SECOND),
            interrupted: false,
            false_deaths: 0,
            steps: 0,
            took: Duration::ZERO,
            digest: 0,
            log: String::new(),
        }
    })
}

fn attempt(scenario: &Scenario, keep_log: bool, stop: &Stop) -> Outcome {
    let network = Network::new(scenario.link);
    let mut world = World::new(scenario.seed, network, Checkers::default());
    world.set_stop(stop.clone());
    if keep_log {
        world.trace().keep_log();
    }
    let mut run = Run { scenario, stop, chaos: Chaos::new(scenario), world };
    run.form();
    run.disturb();
    let calm = run.calm();
    let removal = run.crash_in_the_calm();
    run.outcome(calm, removal)
}

struct Run<'a> {
    scenario: &'a Scenario,
    stop: &'a Stop,
    chaos: Chaos<'a>,
    world: World<Checkers>,
}

impl Run<'_> {
    /// Whether there is nothing more to find out: something is broken, or time stands still.
    fn is_over(&self) -> bool {
        self.world.watch.violation().is_some() || self.stop.is_asked()
    }

    /// Starts all processes within a few seconds of each other; each joins through another.
    fn form(&mut self) {
        for id in 0..self.scenario.nodes as ProcessId {
            let id = self.world.add(self.scenario.config_of(id, 1));
            self.world.set_room(id, self.scenario.room);
            self.world.run_for(SECOND / self.scenario.nodes as u32);
            self.join_who_is_alone();
        }
    }

    /// A program that is started joins, and tries again until it has.
    fn join_who_is_alone(&mut self) {
        let alone = |process: &&Process| {
            process.is_member() && !self.world.watch.truth().subject(process.id).joined
        };
        let alone: Vec<ProcessId> =
            self.world.processes().iter().filter(alone).map(|process| process.id).collect();
        for id in alone {
            if let Some(seed) = self.chaos.some_other(&self.world, id) {
                self.world.join(id, seed);
            }
        }
    }

    /// Lets time pass, a second at most at a time, and faults end.
    fn pass(&mut self, until: Time) {
        while self.world.now() < until && !self.is_over() {
            let next = self.chaos.next_sequel().unwrap_or(until);
            let slice = next.min(until).min(self.world.now() + SECOND);
            self.world.run_until(slice.max(self.world.now()));
            self.chaos.end_due(&mut self.world);
        }
    }

    fn disturb(&mut self) {
        let end = self.world.now() + self.scenario.chaos;
        while self.world.now() < end && !self.is_over() {
            let until = (self.world.now() + self.chaos.pause()).min(end);
            self.pass(until);
            self.join_who_is_alone();
            self.chaos.strike(&mut self.world);
        }
    }

    /// Nothing disturbs any more: all views must agree within the bound.
    fn calm(&mut self) -> (Duration, Duration) {
        self.chaos.end_all(&mut self.world);
        self.pass(self.world.last_arrival());
        let since = self.world.now();
        let bound = bounds::calm(&self.scenario.config, self.scenario.nodes);
        let removal = bounds::removal(&self.scenario.config, self.scenario.nodes);
        let delay = self.scenario.link.packets.delay.longest();
        let mut calm = Calm { since, settled: since + bound, removal, delay };
        self.world.watch.set_calm(calm);
        // Until then a probe that began under a fault may still fail.
        let probed = since + bounds::longest_probe(&self.scenario.config);
        let mut seconds = 0_u32;
        while !self.is_over() {
            let Some(what) = self.unsettled(probed) else { break };
            if self.world.now() - since > bound {
                let at = self.world.now();
                self.world.watch.report(Violation { check: "agreement", at, what });
                break;
            }
            self.join_who_is_alone();
            if seconds % 10 == 0 {
                self.join_islands();
            }
            seconds += 1;
            self.pass(self.world.now() + SECOND);
        }
        let took = self.world.now() - since;
        calm.settled = self.world.now();
        self.world.watch.set_calm(calm);
        self.world.note("all views agree");
        self.pass(self.world.now() + QUIET);
        self.agree_still();
        (took, bound)
    }

    /// What keeps the views from being equal for good, if something does.
    fn unsettled(&self, probed: Time) -> Option<String> {
        let returns = |process: &&Process| process.is_returning();
        if self.world.now() < probed {
            return Some("probes that began under a fault are still running".to_owned());
        }
        if let Some(process) = self.world.processes().iter().find(returns) {
            return Some(format!("n{} is coming back", process.id));
        }
        disagreement(&self.world)
    }

    fn join_islands(&mut self) {
        let islands = islands(&self.world);
        let Some((mainland, others)) = islands.split_first() else { return };
        for island in others {
            self.world.join(island[0], mainland[0]);
        }
    }

    fn crash_in_the_calm(&mut self) -> (Duration, Duration) {
        let bound = bounds::removal(&self.scenario.config, self.scenario.nodes);
        let members = self.world.processes().iter().filter(|process| process.is_member()).count();
        let victim = match members {
            0 | 1 => None,
            _ => self.chaos.some_other(&self.world, ProcessId::MAX),
        };
        let Some(victim) = victim.filter(|_| !self.is_over()) else {
            return (Duration::ZERO, bound);
        };
        let since = self.world.now();
        self.world.crash(victim);
        while !self.is_over() && disagreement(&self.world).is_some() {
            // The removal checker ends this if it takes too long.
            self.pass(self.world.now() + SECOND);
        }
        let took = self.world.now() - since;
        self.pass(self.world.now() + QUIET);
        self.agree_still();
        (took, bound)
    }

    fn agree_still(&mut self) {
        if self.is_over() {
            return;
        }
        if let Some(what) = disagreement(&self.world) {
            let at = self.world.now();
            self.world.watch.report(Violation { check: "agreement", at, what });
        }
    }

    fn outcome(mut self, calm: (Duration, Duration), removal: (Duration, Duration)) -> Outcome {
        let interrupted = self.stop.is_asked();
        for id in 0..self.world.processes().len() as ProcessId {
            let at = self.world.now();
            if let Err(what) = self.world.watch.final_view(self.world.process(id)) {
                self.world.watch.report(Violation { check: "sequence", at, what });
            }
        }
        Outcome {
            scenario: self.scenario.clone(),
            violation: self.world.watch.violation().cloned(),
            calm,
            removal,
            interrupted,
            false_deaths: self.world.watch.truth().false_deaths(),
            steps: self.world.steps(),
            took: self.world.now().since_start(),
            digest: self.world.trace().digest(),
            log: self.world.trace().log().to_owned(),
        }
    }
}
