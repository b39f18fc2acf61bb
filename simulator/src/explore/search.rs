//! Many scenarios, and what came of all of them.

use std::ops::Range;
use std::time::Duration;

use serde::Serialize;

use super::run::{Outcome, run_until_stopped};
use super::scenario::{Fault, Scenario};
use crate::experiment::Effort;
use crate::parallel::map;
use crate::report::{Cell, Report, Table};
use crate::statistics::Summary;

/// The outcome of one seed, as far as a summary needs it.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct SeedOutcome {
    /// The seed.
    pub seed: u64,
    /// How many processes.
    pub nodes: usize,
    /// Which faults could happen.
    pub faults: Vec<&'static str>,
    /// The invariant that was broken, in words.
    pub violation: Option<String>,
    /// How much of the calm bound was needed, 0 to 1.
    pub calm_share: f64,
    /// Seconds from the last fault to agreement.
    pub calm_seconds: f64,
    /// How much of the removal bound was needed, 0 to 1.
    pub removal_share: f64,
    /// Inputs that the machines were given.
    pub steps: u64,
    /// Virtual seconds.
    pub virtual_seconds: f64,
    /// Deaths of members that ran.
    pub false_deaths: u64,
    /// The digest of the run.
    pub digest: String,
}

impl From<Outcome> for SeedOutcome {
    fn from(outcome: Outcome) -> Self {
        let share = |(took, bound): (Duration, Duration)| took.as_secs_f64() / bound.as_secs_f64();
        Self {
            seed: outcome.scenario.seed,
            nodes: outcome.scenario.nodes,
            faults: outcome.scenario.faults.iter().map(|fault| fault.name()).collect(),
            violation: outcome.violation.map(|violation| violation.to_string()),
            calm_share: share(outcome.calm),
            calm_seconds: outcome.calm.0.as_secs_f64(),
            removal_share: share(outcome.removal),
            steps: outcome.steps,
            virtual_seconds: outcome.took.as_secs_f64(),
            false_deaths: outcome.false_deaths,
            digest: format!("{:016x}", outcome.digest),
        }
    }
}

/// All outcomes.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Search {
    /// In the order of the seeds; without those that were not begun, or interrupted.
    pub outcomes: Vec<SeedOutcome>,
    /// How many seeds were wanted.
    pub wanted: usize,
}

impl Search {
    /// Those with a broken invariant.
    pub fn violations(&self) -> impl Iterator<Item = &SeedOutcome> {
        self.outcomes.iter().filter(|outcome| outcome.violation.is_some())
    }
}

/// Runs the scenarios of all these seeds.
pub fn search(
    seeds: Range<u64>,
    scenario: impl Fn(u64) -> Scenario + Sync,
    effort: &mut Effort<'_>,
) -> Search {
    let seeds: Vec<u64> = seeds.collect();
    let (mut done, total) = (0, seeds.len());
    let (stop, progress) = (effort.stop.clone(), &mut effort.progress);
    let one = |seed: &u64| {
        let outcome = run_until_stopped(&scenario(*seed), false, &stop);
        // What was found before the stop is true; that nothing was found means nothing.
        let counts = outcome.violation.is_some() || !outcome.interrupted;
        counts.then(|| SeedOutcome::from(outcome))
    };
    let outcomes = map(effort.jobs, &seeds, &stop, one, |_| {
        done += 1;
        progress(done, total);
    });
    Search { outcomes: outcomes.into_iter().flatten().flatten().collect(), wanted: total }
}

/// What a person wants to see of a search. `replay` gives the command that repeats a seed.
pub fn report(search: &Search, replay: impl Fn(u64) -> String) -> Report {
    let mut tables = vec![by_fault(search)];
    let mut violations = Table::new("Broken invariants", &["seed", "what", "replay"]);
    for outcome in search.violations() {
        let what = outcome.violation.clone().unwrap_or_default();
        violations.row([outcome.seed.into(), what.into(), replay(outcome.seed).into()]);
    }
    if !violations.rows.is_empty() {
        tables.push(violations);
    }
    Report {
        tables,
        data: vec![by_seed(search)],
        charts: Vec::new(),
        results: serde_json::to_value(search).unwrap_or_default(),
        gates: Vec::new(),
        runs: (search.outcomes.len(), search.wanted),
    }
}

fn by_seed(search: &Search) -> Table {
    let mut table = Table::new(
        "seeds",
        &[
            "seed",
            "nodes",
            "faults",
            "broken",
            "calm s",
            "calm share of bound",
            "removal share of bound",
            "inputs",
            "virtual s",
            "false deaths",
            "digest",
        ],
    );
    for outcome in &search.outcomes {
        table.row([
            outcome.seed.into(),
            outcome.nodes.into(),
            outcome.faults.join("; ").into(),
            outcome.violation.clone().map_or(Cell::Missing, Cell::from),
            Cell::Number(outcome.calm_seconds, 3),
            Cell::Number(outcome.calm_share, 6),
            Cell::Number(outcome.removal_share, 6),
            outcome.steps.into(),
            Cell::Number(outcome.virtual_seconds, 3),
            outcome.false_deaths.into(),
            outcome.digest.as_str().into(),
        ]);
    }
    table
}

fn by_fault(search: &Search) -> Table {
    let mut table = Table::new(
        "Fault search",
        &[
            "fault class",
            "seeds",
            "broken",
            "calm s median",
            "calm s max",
            "calm % of bound max",
            "removal % of bound max",
            "false deaths",
        ],
    );
    let classes = Fault::ALL.map(|fault| Some(fault.name()));
    for class in [None].into_iter().chain(classes) {
        let with = |outcome: &&SeedOutcome| class.is_none_or(|c| outcome.faults.contains(&c));
        let of: Vec<&SeedOutcome> = search.outcomes.iter().filter(with).collect();
        let calm: Vec<f64> = of.iter().map(|outcome| outcome.calm_seconds).collect();
        let calm = Summary::of(&calm);
        let most = |share: fn(&SeedOutcome) -> f64| {
            Cell::Number(100.0 * of.iter().map(|o| share(o)).fold(0.0, f64::max), 1)
        };
        table.row([
            class.unwrap_or("all").into(),
            of.len().into(),
            of.iter().filter(|outcome| outcome.violation.is_some()).count().into(),
            Cell::number(calm.map(|summary| summary.median), 1),
            Cell::number(calm.map(|summary| summary.max), 1),
            most(|outcome| outcome.calm_share),
            most(|outcome| outcome.removal_share),
            of.iter().map(|outcome| outcome.false_deaths).sum::<u64>().into(),
        ]);
    }
    let steps: u64 = search.outcomes.iter().map(|outcome| outcome.steps).sum();
    let seconds: f64 = search.outcomes.iter().map(|outcome| outcome.virtual_seconds).sum();
    table.note(format!(
        "{} of {} seeds; {steps} inputs, {seconds:.0} virtual seconds. Calm: from the last fault until \
         all views agree. False deaths: of members that ran, in the chaos.",
        search.outcomes.len(),
        search.wanted
    ));
    table
}
