//! How fast a cluster comes to know something: one update, and everybody joining at once, beside the
//! curve of Serf's convergence simulator.

pub mod mass_join;
pub mod update;

use std::time::Duration;

use memberlist_protocol::Config;
use serde::Serialize;

use super::Effort;
use crate::parallel::{Stop, map};
use crate::report::plot::{Axis, Chart, Series};
use crate::report::{Cell, Gate, Report, Table};
use crate::statistics::Summary;

/// How long something took to reach parts of a cluster.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct Spread {
    /// 50 %.
    pub half: Option<Duration>,
    /// 99 %.
    pub most: Option<Duration>,
    /// 100 %.
    pub all: Option<Duration>,
    /// What a node sent per second while it spread, packets and streams, in bytes.
    pub bytes_per_second: f64,
}

/// What is measured.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Sizes {
    /// Cluster sizes and numbers of updates.
    pub updates: Vec<(usize, usize)>,
    /// Cluster sizes and numbers of mass joins.
    pub joins: Vec<(usize, usize)>,
    /// Shares of packets that are lost.
    pub losses: Vec<f64>,
    /// Without eager gossip, view digests and delta sync.
    pub ticks_only: bool,
}

impl Sizes {
    /// Up to 10,000 and 5,000 members.
    pub fn full() -> Self {
        Self {
            updates: vec![(30, 200), (100, 200), (300, 100), (1000, 30), (3000, 5), (10_000, 2)],
            joins: vec![(30, 100), (100, 50), (300, 20), (1000, 4), (2000, 2), (5000, 1)],
            losses: vec![0.0, 0.1, 0.3],
            ticks_only: false,
        }
    }

    /// Enough to see that it works.
    pub fn small() -> Self {
        Self {
            updates: vec![(30, 20), (100, 10), (300, 3)],
            joins: vec![(30, 10), (100, 3)],
            losses: vec![0.0, 0.3],
            ticks_only: false,
        }
    }
}

/// What is spread.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub enum What {
    /// One member's new meta.
    Update,
    /// Every member's existence.
    MassJoin,
}

/// The results for one size and loss.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Row {
    /// Of what.
    pub what: What,
    /// The size.
    pub members: usize,
    /// The share of packets lost.
    pub loss: f64,
    /// Runs.
    pub runs: usize,
    /// Seconds until 50 %.
    pub half: Option<Summary>,
    /// Seconds until 99 %.
    pub most: Option<Summary>,
    /// Seconds until 100 %.
    pub all: Option<Summary>,
    /// Runs that had not reached everybody at the limit.
    pub unfinished: usize,
    /// Bytes that a node sent per second, packets and streams, the mean over the runs.
    pub bytes_per_second: f64,
}

/// All rows.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Results {
    /// What was measured.
    pub sizes: Sizes,
    /// From which seed.
    pub seed: u64,
    /// A row for each combination.
    pub rows: Vec<Row>,
    /// Runs that were done, of those wanted.
    pub runs: (usize, usize),
}

/// Above this size runs go one at a time: each needs much memory.
const LARGE: usize = 2000;

/// Time that something is given to reach everybody.
const LIMIT: Duration = Duration::from_secs(300);

struct Job {
    what: What,
    members: usize,
    loss: f64,
    run: usize,
}

impl Job {
    fn run(&self, ticks_only: bool, seed: u64, stop: &Stop) -> Option<Spread> {
        let seed = super::run_seed(seed, self.run * 16_384 + self.members);
        let lan = Config::lan();
        let config = if ticks_only { super::ticks_only(lan) } else { lan };
        match self.what {
            What::Update => update::one(&config, self.members, self.loss, seed, LIMIT, stop),
            What::MassJoin => mass_join::one(&config, self.members, self.loss, seed, LIMIT, stop),
        }
    }

    fn same(&self, other: &Self) -> bool {
        (self.what, self.members, self.loss) == (other.what, other.members, other.loss)
    }
}

fn jobs(sizes: &Sizes) -> Vec<Job> {
    let mut jobs = Vec::new();
    for (what, list) in [(What::Update, &sizes.updates), (What::MassJoin, &sizes.joins)] {
        for &(members, runs) in list {
            for &loss in &sizes.losses {
                jobs.extend((0..runs).map(|run| Job { what, members, loss, run }));
            }
        }
    }
    jobs
}

/// Measures everything.
pub fn run(sizes: &Sizes, effort: &mut Effort<'_>) -> Results {
    let (mut large, mut small): (Vec<Job>, Vec<Job>) =
        jobs(sizes).into_iter().partition(|job| job.members > LARGE);
    let (total, mut done) = (large.len() + small.len(), 0);
    let (seed, stop, progress) = (effort.seed, effort.stop.clone(), &mut effort.progress);
    let mut finished = Vec::new();
    for (jobs, at_once) in [(&mut small, effort.jobs), (&mut large, 1)] {
        let spreads = map(
            at_once,
            jobs,
            &stop,
            |job| job.run(sizes.ticks_only, seed, &stop),
            |_| {
                done += 1;
                progress(done, total);
            },
        );
        let of_job = jobs.drain(..).zip(spreads);
        finished.extend(of_job.filter_map(|(job, spread)| Some((job, spread??))));
    }
    let runs = (finished.len(), total);
    let mut rows: Vec<Row> = Vec::new();
    while let Some((first, _)) = finished.first() {
        let key = Job { run: 0, ..*first };
        let (same, rest) = finished.into_iter().partition(|(job, _)| job.same(&key));
        finished = rest;
        rows.push(row(&key, same));
    }
    rows.sort_by(|a, b| {
        let key = |row: &Row| (row.what == What::MassJoin, row.members);
        key(a).cmp(&key(b)).then(a.loss.total_cmp(&b.loss))
    });
    Results { sizes: sizes.clone(), seed, rows, runs }
}

fn row(key: &Job, same: Vec<(Job, Spread)>) -> Row {
    let spreads: Vec<Spread> = same.into_iter().map(|(_, spread)| spread).collect();
    let of = |part: fn(&Spread) -> Option<Duration>| {
        let seconds = |spread: &Spread| part(spread).map(|time| time.as_secs_f64());
        Summary::of(&spreads.iter().filter_map(seconds).collect::<Vec<_>>())
    };
    let bytes: f64 = spreads.iter().map(|spread| spread.bytes_per_second).sum();
    Row {
        what: key.what,
        members: key.members,
        loss: key.loss,
        runs: spreads.len(),
        half: of(|spread| spread.half),
        most: of(|spread| spread.most),
        all: of(|spread| spread.all),
        unfinished: spreads.iter().filter(|spread| spread.all.is_none()).count(),
        bytes_per_second: bytes / spreads.len().max(1) as f64,
    }
}

/// Serf's convergence simulator: seconds until this share of `n` is reached, with the gossip settings
/// of `config`. A mean-field curve without a retransmit limit.
pub fn serf(config: &Config, n: usize, loss: f64, share: f64) -> f64 {
    let n = n as f64;
    let contact = config.gossip_nodes as f64 / n * (1.0 - loss) * 0.5;
    let converged =
        |round: u32| 1.0 / (1.0 + (n + 1.0) * libm::exp(-contact * n * f64::from(round)));
    let rounds = (1..10_000).find(|&round| converged(round) >= share).unwrap_or(10_000);
    f64::from(rounds) * config.gossip_interval.as_secs_f64()
}

/// What a person wants to see of the results.
pub fn report(results: &Results) -> Report {
    Report {
        tables: vec![
            table(results, What::Update, "Convergence: one update, seconds"),
            table(results, What::MassJoin, "Convergence: all join one seed at once, seconds"),
        ],
        data: Vec::new(),
        charts: [What::Update, What::MassJoin].map(|what| chart(results, what)).into(),
        results: serde_json::to_value(results).unwrap_or_default(),
        gates: gates(results),
        runs: results.runs,
    }
}

/// Nobody may be left out for good.
fn gates(results: &Results) -> Vec<Gate> {
    let unfinished: usize = results.rows.iter().map(|row| row.unfinished).sum();
    vec![Gate::within("runs that had not reached everybody", unfinished as f64, 0.0, 0.0)]
}

fn table(results: &Results, what: What, title: &str) -> Table {
    let mut table = Table::new(
        title,
        &[
            "N",
            "loss %",
            "runs",
            "50 %",
            "Serf 50 %",
            "99 %",
            "Serf 99 %",
            "100 % median",
            "99 % of runs",
            "max",
            "unfinished",
            "bytes/node/s",
        ],
    );
    let config = Config::lan();
    for row in results.rows.iter().filter(|row| row.what == what) {
        let serf = |share| match what {
            What::Update => Cell::Number(serf(&config, row.members, row.loss, share), 1),
            What::MassJoin => Cell::Missing,
        };
        table.row([
            row.members.into(),
            Cell::Number(100.0 * row.loss, 0),
            row.runs.into(),
            Cell::number(row.half.map(|s| s.median), 2),
            serf(0.5),
            Cell::number(row.most.map(|s| s.median), 2),
            serf(0.99),
            Cell::number(row.all.map(|s| s.median), 2),
            Cell::number(row.all.map(|s| s.p99), 2),
            Cell::number(row.all.map(|s| s.max), 2),
            row.unfinished.into(),
            Cell::Number(row.bytes_per_second, 0),
        ]);
    }
    table.note(format!(
        "LAN settings; median over the runs for 50, 99 and 100 %; seed {}; given up after {} s. Serf: \
         its own simulator's curve for the same settings. Bytes: packets and streams that a node sent \
         per second until everybody knew. Loss is of packets; streams only wait longer.",
        results.seed,
        LIMIT.as_secs()
    ));
    table
}

fn chart(results: &Results, what: What) -> Chart {
    let mut series = Vec::new();
    let config = Config::lan();
    for &loss in &results.sizes.losses {
        let rows = || results.rows.iter().filter(|row| row.what == what && row.loss == loss);
        let points = |value: fn(&Row) -> Option<f64>| -> Vec<(f64, f64)> {
            rows().filter_map(|row| Some((row.members as f64, value(row)?))).collect()
        };
        let percent = 100.0 * loss;
        series.push(Series::measured(
            format!("100 %, median, {percent:.0} % loss"),
            points(|row| Some(row.all?.median)),
        ));
        if what == What::Update {
            let curve = |row: &Row| (row.members as f64, serf(&config, row.members, loss, 0.9999));
            let name = format!("Serf's curve to 99.99 %, {percent:.0} % loss");
            series.push(Series::published(name, rows().map(curve).collect()));
        } else {
            let name = format!("99 %, median, {percent:.0} % loss");
            series.push(Series::measured(name, points(|row| Some(row.most?.median))));
        }
    }
    let title = match what {
        What::Update => "Time until everybody knows of one update",
        What::MassJoin => "Time until everybody knows everybody, all joining one seed at once",
    };
    Chart {
        title: title.to_owned(),
        x: Axis::logarithmic("members"),
        y: Axis::linear("seconds"),
        series,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serfs_curve_is_the_published_one() {
        let lan = Config::lan();
        let seconds = |n, loss, share| (serf(&lan, n, loss, share) * 10.0).round() / 10.0;
        assert_eq!([seconds(30, 0.0, 0.5), seconds(30, 0.0, 0.9999)], [0.6, 1.8]);
        assert_eq!([seconds(1000, 0.1, 0.9999), seconds(1000, 0.3, 0.9999)], [2.4, 3.2]);
        assert_eq!(seconds(10_000, 0.0, 0.99), 2.0);
    }
}
