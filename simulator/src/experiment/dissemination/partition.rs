//! Two halves that have buried each other, and one member cut off alone.

use std::time::Duration;

use memberlist_protocol::NodeState;
use serde_json::json;

use super::super::{Effort, run_seed};
use super::traffic::bytes_sent;
use super::{Grid, Mode, link, run_all};
use crate::network::{Network, ProcessId};
use crate::parallel::Stop;
use crate::report::{Cell, Gate, Report, Table};
use crate::statistics::Summary;
use crate::world::World;

const MEMBERS: ProcessId = 200;
const CUT: Duration = Duration::from_secs(600);
const LIMIT: Duration = Duration::from_secs(600);

struct Job {
    mode: Mode,
    /// How many are cut off from the others.
    cut_off: ProcessId,
    seed: u64,
}

struct Outcome {
    /// From the heal until all believe all alive.
    seconds: Option<f64>,
    /// All bytes until then.
    bytes: f64,
}

fn all_agree(world: &World) -> bool {
    world.processes().iter().all(|process| {
        let machine = process.machine();
        machine.is_some_and(|machine| machine.live_members() == MEMBERS as usize)
    })
}

/// Whether neither side believes anybody of the other alive. One that is cut off alone doubts itself and
/// takes hours to bury all others: then they have buried it.
fn all_buried(world: &World, cut_off: ProcessId) -> bool {
    let buried = |of: ProcessId, in_: ProcessId| {
        let member =
            world.machine(in_).map(|machine| machine.member(world.process(of).name.as_str()));
        member.is_some_and(|member| member.is_none_or(|member| member.state == NodeState::Dead))
    };
    (0..cut_off).all(|one| {
        (cut_off..MEMBERS).all(|other| buried(one, other) && (cut_off == 1 || buried(other, one)))
    })
}

impl Job {
    fn run(&self, stop: &Stop) -> Option<Outcome> {
        let mut world: World = World::new(self.seed, Network::new(link(0.0)), ());
        world.set_stop(stop.clone());
        world.add_cluster(MEMBERS as usize, &self.mode.config());
        world.run_for(Duration::from_secs(5));
        let one: Vec<ProcessId> = (0..self.cut_off).collect();
        let other: Vec<ProcessId> = (self.cut_off..MEMBERS).collect();
        world.network.partition(&one, &other);
        world.run_for(CUT);
        if stop.is_asked() {
            return None;
        }
        if !all_buried(&world, self.cut_off) {
            // Then there is nothing to measure.
            return Some(Outcome { seconds: None, bytes: f64::NAN });
        }
        world.network.heal();
        let (healed, before) = (world.now(), bytes_sent(&world));
        let agreed = world.run_until_holds(LIMIT, Duration::from_millis(20), all_agree);
        let seconds = agreed.map(|at| (at - healed).as_secs_f64());
        let bytes = (bytes_sent(&world) - before) as f64;
        (!stop.is_asked()).then_some(Outcome { seconds, bytes })
    }
}

pub(super) fn run(grid: Grid, effort: &mut Effort<'_>) -> Report {
    let seeds = grid.of(20, 3);
    let mut jobs = Vec::new();
    for cut_off in [MEMBERS / 2, 1] {
        for mode in [Mode::Eager, Mode::Plain] {
            let seeds = (0..seeds).map(|run| run_seed(effort.seed, run));
            jobs.extend(seeds.map(|seed| Job { mode, cut_off, seed }));
        }
    }
    let finished = run_all(&jobs, effort, Job::run);
    let runs = (finished.len(), jobs.len());
    let mut table = Table::new(
        "Dissemination: a partition of 10 minutes among 200 members",
        &["cut off", "news by", "runs", "unfinished", "s, median", "s, worst", "KiB a node"],
    );
    let (mut gates, mut results) = (Vec::new(), Vec::new());
    for cut_off in [MEMBERS / 2, 1] {
        for mode in [Mode::Eager, Mode::Plain] {
            let of = |at: &usize| (jobs[*at].cut_off, jobs[*at].mode) == (cut_off, mode);
            let outcomes: Vec<&Outcome> =
                finished.iter().filter(|(at, _)| of(at)).map(|(_, outcome)| outcome).collect();
            let seconds: Vec<f64> = outcomes.iter().filter_map(|outcome| outcome.seconds).collect();
            let bytes: f64 = outcomes.iter().map(|outcome| outcome.bytes).sum();
            let summary = Summary::of(&seconds);
            let per_node = bytes / outcomes.len() as f64 / f64::from(MEMBERS) / 1024.0;
            table.row([
                u64::from(cut_off).into(),
                Cell::Text(mode.name().to_owned()),
                outcomes.len().into(),
                (outcomes.len() - seconds.len()).into(),
                Cell::number(summary.map(|s| s.median), 2),
                Cell::number(summary.map(|s| s.max), 2),
                Cell::Number(per_node, 1),
            ]);
            results.push(json!({ "cut_off": cut_off, "mode": mode.name(), "runs": outcomes.len(),
                "seconds": summary, "kib_per_node": per_node }));
            if mode == Mode::Eager {
                let of = |part: fn(Summary) -> f64| summary.map_or(f64::NAN, part);
                let unfinished = (outcomes.len() - seconds.len()) as f64;
                let what = format!("partition, {cut_off} cut off");
                gates.push(Gate::within(&format!("{what}, unfinished"), unfinished, 0.0, 0.0));
                if cut_off == 1 {
                    gates.push(Gate::within(
                        &format!("{what}, s, worst"),
                        of(|s| s.max),
                        0.0,
                        45.0,
                    ));
                } else {
                    let median = of(|s| s.median);
                    gates.push(Gate::within(&format!("{what}, s, median"), median, 0.0, 5.0));
                    gates.push(Gate::within(
                        &format!("{what}, s, worst"),
                        of(|s| s.max),
                        0.0,
                        15.0,
                    ));
                }
            }
        }
    }
    table.note(
        "LAN settings, links of 1 ms; both halves have buried each other, the others the one that was cut off \
         alone. From the heal until everybody believes everybody alive; bytes until then, headers included.",
    );
    let results = results.into();
    Report { tables: vec![table], gates, results, runs, ..Report::default() }
}
