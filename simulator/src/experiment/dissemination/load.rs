//! A hundred updates a second.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use memberlist_protocol::Event;
use serde_json::json;

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
/// Between two updates.
const SPACING: Duration = Duration::from_millis(10);

#[derive(Default)]
struct Learned {
    /// Of each updated member: when it was, and how many know.
    updates: BTreeMap<ProcessId, (Time, usize)>,
    /// Seconds until 99 % of the members knew of one.
    most: Vec<f64>,
}

impl Watch for Learned {
    fn happened(&mut self, at: Time, _: &Process, event: &Event) {
        let Event::Updated(member) = event else { return };
        let update = process_of(member.id()).and_then(|id| self.updates.get_mut(&id));
        let Some((began, knows)) = update else { return };
        *knows += 1;
        if *knows == MEMBERS * 99 / 100 {
            self.most.push((at - *began).as_secs_f64());
        }
    }
}

struct Outcome {
    most: Option<Summary>,
    bytes_per_second: f64,
}

fn one(mode: Mode, updates: usize, seed: u64, stop: &Stop) -> Option<Outcome> {
    let mut world = World::new(seed, Network::new(link(0.0)), Learned::default());
    world.set_stop(stop.clone());
    world.add_cluster(MEMBERS, &mode.config());
    world.run_for(Duration::from_secs(2));
    let (began, before) = (world.now(), bytes_sent(&world));
    for id in 0..updates as ProcessId {
        let now = world.now();
        world.watch.updates.insert(id, (now, 0));
        world.update_meta(id, Bytes::from_static(b"new"));
        world.run_for(SPACING);
    }
    let sent = (bytes_sent(&world) - before) as f64;
    let seconds = (world.now() - began).as_secs_f64();
    // What is still under way arrives.
    world.run_for(Duration::from_secs(20));
    let most = Summary::of(&world.watch.most);
    let bytes_per_second = sent / seconds / MEMBERS as f64;
    (!stop.is_asked()).then_some(Outcome { most, bytes_per_second })
}

pub(super) fn run(grid: Grid, effort: &mut Effort<'_>) -> Report {
    let updates = grid.of(1000, 600);
    let seed = run_seed(effort.seed, 0);
    let modes = [Mode::Eager, Mode::Ticks, Mode::Plain];
    let finished = run_all(&modes, effort, |mode, stop| one(*mode, updates, seed, stop));
    let mut table = Table::new(
        "Dissemination: 100 updates a second among 1,000 members",
        &[
            "news by",
            "updates",
            "known to 99 %",
            "s to 99 %: median",
            "s to 99 %: worst",
            "bytes/node/s",
        ],
    );
    let mut results = Vec::new();
    let mut rates = BTreeMap::new();
    for (at, outcome) in &finished {
        let mode = modes[*at];
        rates.insert(*at, outcome.bytes_per_second);
        let known = outcome.most.map_or(0, |most| most.samples);
        results.push(json!({ "mode": mode.name(), "updates": updates, "seconds": outcome.most,
            "bytes_per_second": outcome.bytes_per_second }));
        table.row([
            Cell::Text(mode.name().to_owned()),
            updates.into(),
            known.into(),
            Cell::number(outcome.most.map(|s| s.median), 2),
            Cell::number(outcome.most.map(|s| s.max), 2),
            Cell::Number(outcome.bytes_per_second, 0),
        ]);
    }
    table.note(
        "LAN settings, links of 1 ms, no loss; bytes while updates are made, headers included.",
    );
    let rate = |at| rates.get(&at).copied().unwrap_or(f64::NAN);
    let gates = vec![
        Gate::within("100 updates/s, bytes of ticks only, ratio", rate(0) / rate(1), 0.0, 1.5),
        Gate::within("100 updates/s, bytes without sync, ratio", rate(0) / rate(2), 0.0, 1.5),
    ];
    let runs = (finished.len(), modes.len());
    Report { tables: vec![table], gates, results: results.into(), runs, ..Report::default() }
}
