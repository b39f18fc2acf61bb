//! What a cluster costs the machine that simulates it: wall time, memory.

use std::time::{Duration, Instant};

use memberlist_protocol::Config;
use serde::Serialize;

use super::{Effort, convergence::mass_join, lan_link};
use crate::network::Network;
use crate::report::{Cell, Report, Table};
use crate::world::World;

/// What is simulated.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub enum Task {
    /// A cluster that agreed long ago, for this many virtual seconds.
    Steady {
        /// How long.
        seconds: u64,
    },
    /// All join at once, until everybody knows everybody.
    MassJoin,
}

/// What it cost.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Cost {
    /// What was simulated.
    pub task: Task,
    /// How many members.
    pub members: usize,
    /// From which seed.
    pub seed: u64,
    /// Virtual seconds.
    pub virtual_seconds: f64,
    /// Wall seconds to set the cluster up.
    pub setup_seconds: f64,
    /// Wall seconds to run it.
    pub run_seconds: f64,
    /// Node-seconds simulated in a wall second of the run.
    pub node_seconds_per_second: f64,
    /// The most memory that the process had, in MiB; Linux only.
    pub peak_mib: Option<f64>,
    /// Memory that the set-up took, in bytes a member and machine; Linux only, steady only.
    pub bytes_per_entry: Option<f64>,
    /// False if it was stopped.
    pub complete: bool,
}

/// Simulates one cluster.
pub fn run(task: Task, members: usize, effort: &mut Effort<'_>) -> Cost {
    let before = status("VmRSS");
    let begun = Instant::now();
    let mut cost = Cost {
        task,
        members,
        seed: effort.seed,
        virtual_seconds: 0.0,
        setup_seconds: 0.0,
        run_seconds: 0.0,
        node_seconds_per_second: 0.0,
        peak_mib: None,
        bytes_per_entry: None,
        complete: true,
    };
    let config = Config::lan();
    match task {
        Task::Steady { seconds } => {
            let mut world = World::new(effort.seed, Network::new(lan_link(0.0)), ());
            world.set_stop(effort.stop.clone());
            world.add_cluster(members, &config);
            cost.setup_seconds = begun.elapsed().as_secs_f64();
            let grown = status("VmRSS").zip(before).map(|(now, then)| now.saturating_sub(then));
            let entries = (members * members) as f64;
            cost.bytes_per_entry = grown.map(|kib| kib as f64 * 1024.0 / entries);
            let started = Instant::now();
            for second in 0..seconds {
                world.run_for(Duration::from_secs(1));
                (effort.progress)(second as usize + 1, seconds as usize);
            }
            cost.run_seconds = started.elapsed().as_secs_f64();
            cost.virtual_seconds = world.now().as_secs_f64();
        }
        Task::MassJoin => {
            let limit = Duration::from_secs(300);
            let stop = effort.stop.clone();
            let spread = mass_join::one(&config, members, 0.0, effort.seed, limit, &stop);
            cost.run_seconds = begun.elapsed().as_secs_f64();
            let all = spread.and_then(|spread| spread.all);
            cost.complete = all.is_some();
            cost.virtual_seconds = all.map_or(f64::NAN, |all| all.as_secs_f64());
        }
    }
    cost.node_seconds_per_second = members as f64 * cost.virtual_seconds / cost.run_seconds;
    cost.peak_mib = status("VmHWM").map(|kib| kib as f64 / 1024.0);
    cost.complete &= !effort.stop.is_asked();
    cost
}

/// A line of what Linux tells of this process, in KiB.
fn status(field: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find(|line| line.starts_with(field))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// What a person wants to see of it.
pub fn report(cost: &Cost) -> Report {
    let what = match cost.task {
        Task::Steady { seconds } => format!("steady for {seconds} s"),
        Task::MassJoin => "mass join until all agree".to_owned(),
    };
    let mut table = Table::new(
        "Cost of the simulation, one core",
        &[
            "task",
            "members",
            "virtual s",
            "set-up s",
            "run s",
            "node-s/s",
            "peak MiB",
            "bytes/entry",
        ],
    );
    table.row([
        what.into(),
        cost.members.into(),
        Cell::Number(cost.virtual_seconds, 2),
        Cell::Number(cost.setup_seconds, 2),
        Cell::Number(cost.run_seconds, 2),
        Cell::Number(cost.node_seconds_per_second, 0),
        Cell::number(cost.peak_mib, 0),
        Cell::number(cost.bytes_per_entry, 0),
    ]);
    if !cost.complete {
        table.note("Interrupted.");
    }
    Report {
        tables: vec![table],
        data: Vec::new(),
        charts: Vec::new(),
        results: serde_json::to_value(cost).unwrap_or_default(),
        gates: Vec::new(),
        runs: (usize::from(cost.complete), 1),
    }
}
