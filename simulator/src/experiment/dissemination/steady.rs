//! Nothing happens.

use std::time::Duration;

use serde_json::json;

use super::super::{Effort, run_seed};
use super::traffic::bytes_sent;
use super::{Grid, Mode, link, run_all};
use crate::network::Network;
use crate::parallel::Stop;
use crate::report::{Cell, Gate, Report, Table};
use crate::world::World;

/// Bytes that a node sends in a second.
fn one(mode: Mode, members: usize, time: Duration, seed: u64, stop: &Stop) -> Option<f64> {
    let mut world: World = World::new(seed, Network::new(link(0.0)), ());
    world.set_stop(stop.clone());
    world.add_cluster(members, &mode.config());
    // The first exchanges of states come at random times within an interval.
    world.run_for(Duration::from_secs(60));
    let before = bytes_sent(&world);
    world.run_for(time);
    let sent = (bytes_sent(&world) - before) as f64;
    (!stop.is_asked()).then_some(sent / members as f64 / time.as_secs_f64())
}

pub(super) fn run(grid: Grid, effort: &mut Effort<'_>) -> Report {
    let sizes: &[usize] = grid.of(&[100, 500, 2000], &[100]);
    // Long enough for the rare exchanges, too.
    let time = Duration::from_secs(grid.of(4200, 1800));
    let modes = [Mode::Eager, Mode::Plain];
    let jobs: Vec<(usize, Mode)> =
        sizes.iter().flat_map(|&members| modes.map(|mode| (members, mode))).collect();
    let seed = run_seed(effort.seed, 0);
    let finished =
        run_all(&jobs, effort, |(members, mode), stop| one(*mode, *members, time, seed, stop));
    let runs = (finished.len(), jobs.len());
    let rate = |members, mode| {
        let found = finished.iter().find(|(at, _)| jobs[*at] == (members, mode));
        found.map_or(f64::NAN, |(_, rate)| *rate)
    };
    let mut table = Table::new(
        "Dissemination: bytes of a node in a second, steady state",
        &["N", "with sync", "without", "ratio"],
    );
    let (mut gates, mut results) = (Vec::new(), Vec::new());
    for &members in sizes {
        let (with, without) = (rate(members, Mode::Eager), rate(members, Mode::Plain));
        let ratio = with / without;
        table.row([
            members.into(),
            Cell::Number(with, 0),
            Cell::Number(without, 0),
            Cell::Number(ratio, 2),
        ]);
        results.push(json!({ "members": members, "with": with, "without": without }));
        let most = match members {
            100 => 1.0,
            2000 => 1.0 / 3.0,
            _ => continue,
        };
        gates.push(Gate::within(&format!("steady state of {members}, ratio"), ratio, 0.0, most));
    }
    table.note(format!(
        "LAN settings, {} s, packets and streams with their headers.",
        time.as_secs()
    ));
    let results = results.into();
    Report { tables: vec![table], gates, results, runs, ..Report::default() }
}
