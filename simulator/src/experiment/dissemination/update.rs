//! One member changes its meta.

use std::time::Duration;

use bytes::Bytes;
use memberlist_protocol::Event;
use rand::RngExt;
use serde_json::json;

use super::super::convergence::serf;
use super::super::{Effort, run_seed};
use super::traffic::bytes_sent;
use super::{Grid, Mode, link, run_all};
use crate::explore::truth::process_of;
use crate::network::{Network, ProcessId};
use crate::parallel::Stop;
use crate::process::Process;
use crate::report::{Cell, Gate, Report, Table};
use crate::statistics::Summary;
use crate::time::Time;
use crate::world::{Watch, World};

const MEMBERS: usize = 1000;
/// All bytes of this time count.
const WINDOW: Duration = Duration::from_secs(10);

struct Job {
    mode: Mode,
    loss: f64,
    seed: u64,
}

#[derive(Clone, Copy)]
struct Outcome {
    /// Until all know, if they did in the window.
    all: Option<Duration>,
    /// A node's bytes in the window.
    bytes: f64,
}

#[derive(Default)]
struct Learned {
    of: Option<ProcessId>,
    members: usize,
    last: Time,
}

impl Watch for Learned {
    fn happened(&mut self, at: Time, _: &Process, event: &Event) {
        let Event::Updated(member) = event else { return };
        if self.of.is_some() && self.of == process_of(member.id()) {
            self.members += 1;
            self.last = at;
        }
    }
}

impl Job {
    fn run(&self, stop: &Stop) -> Option<Outcome> {
        let mut world = World::new(self.seed, Network::new(link(self.loss)), Learned::default());
        world.set_stop(stop.clone());
        world.add_cluster(MEMBERS, &self.mode.config());
        let quiet = Duration::from_secs(1).mul_f64(1.0 + world.rng().random::<f64>());
        world.run_for(quiet);
        let who = world.rng().random_range(0..MEMBERS as ProcessId);
        world.watch.of = Some(who);
        let (began, before) = (world.now(), bytes_sent(&world));
        world.update_meta(who, Bytes::from_static(b"new"));
        world.run_for(WINDOW);
        let bytes = (bytes_sent(&world) - before) as f64 / MEMBERS as f64;
        let all = (world.watch.members >= MEMBERS).then(|| world.watch.last - began);
        (!stop.is_asked()).then_some(Outcome { all, bytes })
    }
}

struct Row {
    mode: Mode,
    loss: f64,
    outcomes: Vec<Outcome>,
}

impl Row {
    fn times(&self) -> Option<Summary> {
        let times = self.outcomes.iter().filter_map(|outcome| outcome.all);
        Summary::of(&times.map(|time| time.as_secs_f64()).collect::<Vec<_>>())
    }

    fn bytes(&self) -> f64 {
        let sum: f64 = self.outcomes.iter().map(|outcome| outcome.bytes).sum();
        sum / self.outcomes.len() as f64
    }

    fn unfinished(&self) -> usize {
        self.outcomes.iter().filter(|outcome| outcome.all.is_none()).count()
    }
}

pub(super) fn run(grid: Grid, effort: &mut Effort<'_>) -> Report {
    let runs = |loss: f64| grid.of(if loss == 0.0 { 100 } else { 20 }, 6);
    let losses: &[f64] = grid.of(&[0.0, 0.1, 0.3], &[0.0]);
    let mut jobs = Vec::new();
    for &loss in losses {
        for mode in [Mode::Eager, Mode::Ticks, Mode::Plain] {
            // The same runs in each mode.
            let seeds = (0..runs(loss)).map(|run| run_seed(effort.seed, run));
            jobs.extend(seeds.map(|seed| Job { mode, loss, seed }));
        }
    }
    let finished = run_all(&jobs, effort, Job::run);
    let done = (finished.len(), jobs.len());
    let mut rows: Vec<Row> = Vec::new();
    for (at, outcome) in finished {
        let Job { mode, loss, .. } = jobs[at];
        match rows.iter_mut().find(|row| (row.mode, row.loss) == (mode, loss)) {
            Some(row) => row.outcomes.push(outcome),
            None => rows.push(Row { mode, loss, outcomes: vec![outcome] }),
        }
    }
    let results = rows.iter().map(|row| {
        json!({ "mode": row.mode.name(), "loss": row.loss, "runs": row.outcomes.len(),
            "seconds": row.times(), "unfinished": row.unfinished(), "bytes": row.bytes() })
    });
    let results = results.collect();
    let (tables, gates) = (vec![table(&rows)], gates(&rows));
    Report { tables, gates, results, runs: done, ..Report::default() }
}

fn gates(rows: &[Row]) -> Vec<Gate> {
    let of = |mode| rows.iter().find(|row: &&Row| row.mode == mode && row.loss == 0.0);
    let (Some(eager), Some(ticks), Some(plain)) =
        (of(Mode::Eager), of(Mode::Ticks), of(Mode::Plain))
    else {
        return Vec::new();
    };
    let ms = |part: fn(Summary) -> f64| eager.times().map_or(f64::NAN, |s| 1000.0 * part(s));
    vec![
        Gate::within("update, 1,000 members, ms to all, median", ms(|s| s.median), 0.0, 150.0),
        Gate::within("update, 1,000 members, ms to all, worst", ms(|s| s.max), 0.0, 300.0),
        Gate::within("update, not known to all in 10 s", eager.unfinished() as f64, 0.0, 0.0),
        Gate::within("update, bytes of ticks only, ratio", eager.bytes() / ticks.bytes(), 0.0, 1.0),
        Gate::within(
            "update, bytes of ticks and whole states, ratio",
            eager.bytes() / plain.bytes(),
            0.0,
            1.0,
        ),
    ]
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(
        "Dissemination: one update among 1,000 members",
        &[
            "loss %",
            "news by",
            "runs",
            "ms to all: median",
            "ms to all: worst",
            "not in 10 s",
            "bytes a node in 10 s",
            "Serf's curve to 99.99 %, ms",
        ],
    );
    let config = memberlist_protocol::Config::lan();
    for row in rows {
        let ms = |part: fn(Summary) -> f64| Cell::number(row.times().map(|s| 1000.0 * part(s)), 0);
        table.row([
            Cell::Number(100.0 * row.loss, 0),
            Cell::Text(row.mode.name().to_owned()),
            row.outcomes.len().into(),
            ms(|s| s.median),
            ms(|s| s.max),
            row.unfinished().into(),
            Cell::Number(row.bytes(), 0),
            Cell::Number(1000.0 * serf(&config, MEMBERS, row.loss, 0.9999), 0),
        ]);
    }
    table.note(
        "LAN settings, links of 1 ms. Bytes: packets and streams with IP, UDP and TCP headers.",
    );
    table
}
