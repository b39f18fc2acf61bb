//! The experiments of the Lifeguard paper (Dadgar, Phillips, Currey 2018, §V): how often members are
//! declared dead that are well, and how fast members that are not.
//!
//! *Interval*: `C` of 128 members suffer anomalies of length `D`, all at once, separated by
//! intervals `I` of health, for two minutes. During an anomaly a member neither sends nor receives;
//! what came meanwhile is delivered at its end. A false positive is a death that anybody believes of
//! a member that never suffered an anomaly: those that do may well be declared dead. *Threshold*:
//! `C` members stop for good at the same time.

mod detection;
mod intervals;
mod report;

use std::time::Duration;

use memberlist_protocol::{Config, Lifeguard};
use serde::Serialize;

pub use detection::Detection;
pub use intervals::Intervals;
pub use report::report;

use super::Effort;

/// The size of the paper's cluster.
pub const MEMBERS: usize = 128;

/// Which parts of Lifeguard are on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub enum Variant {
    /// None.
    Swim,
    /// LHA-Probe.
    LhaProbe,
    /// LHA-Suspicion.
    LhaSuspicion,
    /// The buddy system.
    Buddy,
    /// All.
    Lifeguard,
}

impl Variant {
    /// In the paper's order.
    pub const ALL: [Self; 5] =
        [Self::Swim, Self::LhaProbe, Self::LhaSuspicion, Self::Buddy, Self::Lifeguard];

    /// As the paper calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Swim => "SWIM",
            Self::LhaProbe => "LHA-Probe",
            Self::LhaSuspicion => "LHA-Suspicion",
            Self::Buddy => "Buddy System",
            Self::Lifeguard => "Lifeguard",
        }
    }

    fn parts(self) -> Lifeguard {
        let mut parts = Lifeguard::OFF;
        match self {
            Self::Swim => {}
            Self::LhaProbe => parts.health_aware_probe = true,
            Self::LhaSuspicion => parts.dynamic_suspicion = true,
            Self::Buddy => parts.buddy_system = true,
            Self::Lifeguard => parts = Lifeguard::ON,
        }
        parts
    }
}

/// The suspicion timeouts: alpha and beta of the paper.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Tuning {
    /// `suspicion_mult`.
    pub alpha: u32,
    /// `suspicion_max_timeout_mult`.
    pub beta: u32,
    /// Without eager gossip, view digests and delta sync.
    pub ticks_only: bool,
}

impl Tuning {
    /// The paper's.
    pub const PAPER: Self = Self { alpha: 5, beta: 6, ticks_only: false };
    /// Go memberlist's defaults, and this library's.
    pub const GO: Self = Self { alpha: 4, beta: 6, ticks_only: false };

    /// The settings of a member.
    pub fn config(self, variant: Variant) -> Config {
        let mut config = Config::lan();
        config.suspicion_mult = self.alpha;
        config.suspicion_max_timeout_mult = self.beta;
        config.lifeguard = variant.parts();
        match self.ticks_only {
            true => super::ticks_only(config),
            false => config,
        }
    }
}

/// What is run.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Grid {
    /// Numbers of members with anomalies (C).
    pub concurrent: Vec<usize>,
    /// Lengths of an anomaly in milliseconds (D).
    pub durations_ms: Vec<u64>,
    /// Health between two anomalies in milliseconds (I).
    pub intervals_ms: Vec<u64>,
    /// How long a slow member takes over each packet of what came during an anomaly, in
    /// microseconds; 0 takes all of it at once.
    pub service_time_us: u64,
    /// Runs of each combination.
    pub repetitions: usize,
    /// Members that stop for good, for each variant, if they do so one by one.
    pub victims: usize,
    /// The same for each other C.
    pub victims_together: usize,
}

impl Grid {
    /// Everything.
    pub fn full() -> Self {
        Self {
            concurrent: vec![1, 4, 8, 12, 16, 20, 24, 28, 32],
            durations_ms: vec![128, 512, 2048, 8192, 32768],
            intervals_ms: vec![1, 16, 256, 4096, 16384],
            service_time_us: 0,
            repetitions: 3,
            victims: 1000,
            victims_together: 200,
        }
    }

    /// A minute's worth, where the differences show.
    pub fn small() -> Self {
        Self {
            concurrent: vec![8, 24],
            durations_ms: vec![2048, 32768],
            intervals_ms: vec![16, 4096],
            service_time_us: 0,
            repetitions: 1,
            victims: 50,
            victims_together: 50,
        }
    }
}

/// The results of both experiments with one tuning.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Results {
    /// With which.
    pub tuning: Tuning,
    /// Over what.
    pub grid: Grid,
    /// From which seed.
    pub seed: u64,
    /// The interval experiment, a row a combination, repetitions added up.
    pub intervals: Vec<Intervals>,
    /// The threshold experiment, a row a C and variant.
    pub detection: Vec<Detection>,
    /// Runs that were done, of those wanted.
    pub runs: (usize, usize),
}

/// Runs both experiments.
pub fn run(tuning: Tuning, grid: &Grid, effort: &mut Effort<'_>) -> Results {
    let (jobs, mut done) = (jobs(grid), 0);
    let total = jobs.len();
    let (seed, stop, progress) = (effort.seed, effort.stop.clone(), &mut effort.progress);
    let outcomes = crate::parallel::map(
        effort.jobs,
        &jobs,
        &stop,
        |job| job.run(tuning, Duration::from_micros(grid.service_time_us), seed, &stop),
        |_| {
            done += 1;
            progress(done, total);
        },
    );
    // A run that was stopped on its way does not count.
    let outcomes: Vec<Outcome> = outcomes.into_iter().flatten().flatten().collect();
    let runs = (outcomes.len(), total);
    let (mut intervals, mut detection) = (Vec::new(), Vec::new());
    for outcome in outcomes {
        match outcome {
            Outcome::Interval(one) => intervals::add(&mut intervals, one),
            Outcome::Threshold(one) => detection::add(&mut detection, one),
        }
    }
    let detection = detection::summarise(detection);
    Results { tuning, grid: grid.clone(), seed, intervals, detection, runs }
}

/// One run.
enum Job {
    Interval { variant: Variant, c: usize, d: Duration, i: Duration, run: usize },
    Threshold { variant: Variant, c: usize, run: usize },
}

enum Outcome {
    Interval(Intervals),
    Threshold(detection::Samples),
}

impl Job {
    fn run(
        &self,
        tuning: Tuning,
        service_time: Duration,
        seed: u64,
        stop: &crate::parallel::Stop,
    ) -> Option<Outcome> {
        match *self {
            Self::Interval { variant, c, d, i, run } => {
                let seed = super::run_seed(seed, run);
                let anomaly =
                    intervals::Anomaly { members: c, length: d, interval: i, service_time };
                intervals::run(tuning, variant, anomaly, seed, stop).map(Outcome::Interval)
            }
            Self::Threshold { variant, c, run } => {
                let seed = super::run_seed(seed, run);
                detection::run(tuning, variant, c, seed, stop).map(Outcome::Threshold)
            }
        }
    }
}

/// The variants of one combination have the same run number: the same members suffer.
fn jobs(grid: &Grid) -> Vec<Job> {
    let mut jobs = Vec::new();
    let mut run = 0;
    for &c in &grid.concurrent {
        for &d in &grid.durations_ms {
            for &i in &grid.intervals_ms {
                for _ in 0..grid.repetitions {
                    run += 1;
                    let (d, i) = (Duration::from_millis(d), Duration::from_millis(i));
                    jobs.extend(Variant::ALL.map(|variant| Job::Interval {
                        variant,
                        c,
                        d,
                        i,
                        run,
                    }));
                }
            }
        }
        let victims = if c == 1 { grid.victims } else { grid.victims_together };
        for _ in 0..victims.div_ceil(c) {
            run += 1;
            jobs.extend(Variant::ALL.map(|variant| Job::Threshold { variant, c, run }));
        }
    }
    jobs
}
