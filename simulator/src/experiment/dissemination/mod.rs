//! How fast news reaches everybody, how views come to agree again, and what both cost: with eager gossip,
//! view digests and delta sync, beside the ticks and whole states that there would be without them.

mod joins;
mod load;
mod partition;
mod steady;
mod sync_cost;
mod traffic;
mod update;

use std::time::Duration;

use memberlist_protocol::Config;

use super::Effort;
use crate::network::LinkModel;
use crate::parallel::{Stop, map};
use crate::report::Report;

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// One update: the time until all know, and all bytes of ten seconds.
    Update,
    /// A hundred updates a second: their times, and the bytes.
    Load,
    /// All join one seed at once.
    Joins,
    /// Two halves that have buried each other, and one member cut off alone.
    Partition,
    /// Bytes while nothing happens.
    Steady,
    /// Bytes of one sync.
    Sync,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Update, Self::Load, Self::Joins, Self::Partition, Self::Steady, Self::Sync];
}

/// What spreads news and brings views together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    /// LAN settings.
    Eager,
    /// The same without eager rounds.
    Ticks,
    /// Without digests and delta sync, too: as in Go.
    Plain,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Self::Eager => "eager, sync",
            Self::Ticks => "ticks, sync",
            Self::Plain => "ticks, no sync",
        }
    }

    fn config(self) -> Config {
        if self == Self::Eager {
            return Config::lan();
        }
        let mut config = super::ticks_only(Config::lan());
        config.delta_sync = self == Self::Ticks;
        config
    }
}

/// How much is run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Grid {
    /// What the documents show.
    Full,
    /// Enough to see that it works.
    Small,
}

impl Grid {
    /// One or the other.
    fn of<T>(self, full: T, small: T) -> T {
        match self {
            Self::Full => full,
            Self::Small => small,
        }
    }
}

/// Every link takes a millisecond.
fn link(loss: f64) -> LinkModel {
    LinkModel::perfect(Duration::from_millis(1)).with_loss(loss)
}

/// Measures these parts, one after the other; mass joins of these sizes only, if any are given.
pub fn run(parts: &[Part], grid: Grid, join_sizes: &[usize], effort: &mut Effort<'_>) -> Report {
    let mut report = Report::default();
    let mut results = serde_json::Map::new();
    for part in parts {
        let (name, mut of_part) = match part {
            Part::Update => ("update", update::run(grid, effort)),
            Part::Load => ("load", load::run(grid, effort)),
            Part::Joins => ("joins", joins::run(grid, join_sizes, effort)),
            Part::Partition => ("partition", partition::run(grid, effort)),
            Part::Steady => ("steady", steady::run(grid, effort)),
            Part::Sync => ("sync", sync_cost::run(effort)),
        };
        report.tables.append(&mut of_part.tables);
        report.gates.append(&mut of_part.gates);
        report.charts.append(&mut of_part.charts);
        report.runs.0 += of_part.runs.0;
        report.runs.1 += of_part.runs.1;
        results.insert(name.to_owned(), of_part.results);
    }
    report.results = results.into();
    report
}

/// Runs all jobs; those that were stopped are missing.
fn run_all<J: Sync, R: Send>(
    jobs: &[J],
    effort: &mut Effort<'_>,
    run: impl Fn(&J, &Stop) -> Option<R> + Sync,
) -> Vec<(usize, R)> {
    let (total, mut done) = (jobs.len(), 0);
    let (stop, progress) = (effort.stop.clone(), &mut effort.progress);
    let results = map(
        effort.jobs,
        jobs,
        &stop,
        |job| run(job, &stop),
        |_| {
            done += 1;
            progress(done, total);
        },
    );
    let finished = results.into_iter().enumerate();
    finished.filter_map(|(at, result)| Some((at, result??))).collect()
}
