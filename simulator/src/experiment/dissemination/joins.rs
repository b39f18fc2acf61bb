//! Everybody joins one seed at once.

use std::time::Duration;

use serde_json::json;

use super::super::convergence::mass_join;
use super::super::{Effort, run_seed};
use super::{Grid, Mode, link, run_all};
use crate::report::{Cell, Gate, Report, Table};
use crate::statistics::Summary;

/// Time until which everybody is to know everybody.
const LIMIT: Duration = Duration::from_secs(120);
/// The worst may take this long, or twice the median.
const ALLOWED_SECONDS: f64 = 1.0;

struct Job {
    members: usize,
    loss: f64,
    seed: u64,
}

struct Row {
    members: usize,
    loss: f64,
    seconds: Vec<f64>,
    runs: usize,
    bytes: f64,
}

pub(super) fn run(grid: Grid, only: &[usize], effort: &mut Effort<'_>) -> Report {
    let sizes: &[(usize, usize)] =
        grid.of(&[(50, 50), (200, 50), (1000, 50), (5000, 3)], &[(50, 20), (200, 5)]);
    let mut jobs = Vec::new();
    let wanted = |members: &usize| only.is_empty() || only.contains(members);
    for &(members, runs) in sizes.iter().filter(|(members, _)| wanted(members)) {
        for loss in [0.0, 0.1, 0.3] {
            let seeds = (0..runs).map(|run| run_seed(effort.seed, run));
            jobs.extend(seeds.map(|seed| Job { members, loss, seed }));
        }
    }
    // So that no run can wait for it.
    let mut config = Mode::Eager.config();
    config.push_pull_interval = Duration::ZERO;
    let finished = run_all(&jobs, effort, |job, stop| {
        mass_join::over(&config, link(job.loss), job.members, job.seed, LIMIT, stop)
    });
    let runs = (finished.len(), jobs.len());
    let mut rows: Vec<Row> = Vec::new();
    for (at, spread) in finished {
        let Job { members, loss, .. } = jobs[at];
        let same = |row: &Row| (row.members, row.loss) == (members, loss);
        if !rows.iter().any(same) {
            rows.push(Row { members, loss, seconds: Vec::new(), runs: 0, bytes: 0.0 });
        }
        let Some(row) = rows.iter_mut().find(|row| same(row)) else { continue };
        row.runs += 1;
        row.seconds.extend(spread.all.map(|all| all.as_secs_f64()));
        row.bytes += spread.bytes_per_second * spread.all.map_or(0.0, |all| all.as_secs_f64());
    }
    let (table, gates) = (table(&rows), gates(&rows));
    let results = rows.iter().map(|row| {
        json!({ "members": row.members, "loss": row.loss, "runs": row.runs,
            "seconds": Summary::of(&row.seconds) })
    });
    let results = results.collect();
    Report { tables: vec![table], gates, results, runs, ..Report::default() }
}

fn gates(rows: &[Row]) -> Vec<Gate> {
    let mut gates = Vec::new();
    for row in rows {
        let summary = Summary::of(&row.seconds);
        let (worst, median) = summary.map_or((f64::NAN, f64::NAN), |s| (s.max, s.median));
        let what = format!("mass join of {}, {:.0} % loss", row.members, 100.0 * row.loss);
        let unfinished = (row.runs - row.seconds.len()) as f64;
        gates.push(Gate::within(&format!("{what}, unfinished"), unfinished, 0.0, 0.0));
        let most = (2.0 * median).max(ALLOWED_SECONDS);
        gates.push(Gate::within(&format!("{what}, s, worst"), worst, 0.0, most));
        if row.members == 1000 && row.loss == 0.0 {
            gates.push(Gate::within(&format!("{what}, s, worst"), worst, 0.0, 2.0));
        }
    }
    gates
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(
        "Dissemination: all join one seed at once",
        &["N", "loss %", "runs", "unfinished", "s, median", "s, worst", "KiB a node"],
    );
    for row in rows {
        let summary = Summary::of(&row.seconds);
        table.row([
            row.members.into(),
            Cell::Number(100.0 * row.loss, 0),
            row.runs.into(),
            (row.runs - row.seconds.len()).into(),
            Cell::number(summary.map(|s| s.median), 2),
            Cell::number(summary.map(|s| s.max), 2),
            Cell::Number(row.bytes / row.runs as f64 / 1024.0, 0),
        ]);
    }
    table.note(
        "LAN settings, links of 1 ms; time until everybody knows everybody, the periodic exchange of whole \
         states switched off. Bytes: packets and streams without headers, until then.",
    );
    table
}
