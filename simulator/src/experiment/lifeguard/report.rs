//! Ours beside the published figures.

use super::{Grid, Results, Tuning, Variant};
use crate::report::plot::{Axis, Chart, Series};
use crate::report::{Cell, Gate, Report, Table};

/// Published for alpha 5, beta 6: FP and FP- as parts of SWIM's, messages and bytes likewise.
const PUBLISHED: [(Variant, f64, f64, f64, f64); 5] = [
    (Variant::Swim, 100.0, 100.0, 100.0, 100.0),
    (Variant::LhaProbe, 67.72, 32.88, 98.46, 90.03),
    (Variant::LhaSuspicion, 3.00, 6.71, 111.31, 106.52),
    (Variant::Buddy, 94.08, 44.57, 100.07, 99.01),
    (Variant::Lifeguard, 1.53, 1.89, 110.59, 97.97),
];

/// Published false positives by C, read off Fig. 2: SWIM, LHA-Probe, LHA-Suspicion, Buddy, Lifeguard.
const FIGURE_2: [(usize, [f64; 5]); 9] = [
    (1, [900.0, 507.0, 49.0, 900.0, 18.0]),
    (4, [5950.0, 3120.0, 307.0, 6200.0, 139.0]),
    (8, [11100.0, 7210.0, 143.0, 8500.0, 110.0]),
    (12, [22700.0, 15100.0, 571.0, 20000.0, 220.0]),
    (16, [34100.0, 21600.0, 1320.0, 34000.0, 571.0]),
    (20, [45400.0, 35800.0, 1090.0, 45000.0, 743.0]),
    (24, [57700.0, 41300.0, 1720.0, 58000.0, 838.0]),
    (28, [75100.0, 48800.0, 2900.0, 71000.0, 1320.0]),
    (32, [80600.0, 52400.0, 1940.0, 71000.0, 1170.0]),
];

/// The sums of one variant.
#[derive(Clone, Copy, Default)]
struct Sums {
    all: u64,
    healthy: u64,
    packets: u64,
    bytes: u64,
}

fn sums(results: &Results, variant: Variant, c: Option<usize>) -> Sums {
    let rows = results
        .intervals
        .iter()
        .filter(|row| row.variant == variant && c.is_none_or(|c| c == row.concurrent));
    rows.fold(Sums::default(), |sums, row| Sums {
        all: sums.all + row.false_positives,
        healthy: sums.healthy + row.false_positives_at_healthy,
        packets: sums.packets + row.packets,
        bytes: sums.bytes + row.bytes,
    })
}

fn percent(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| 100.0 * part as f64 / whole as f64)
}

/// What a person wants to see of the results.
pub fn report(all: &[Results]) -> Report {
    let mut report =
        Report { results: serde_json::to_value(all).unwrap_or_default(), ..Report::default() };
    for results in all {
        report.runs.0 += results.runs.0;
        report.runs.1 += results.runs.1;
        report.tables.push(totals(results));
        report.tables.push(by_concurrency(results));
        report.tables.push(by_anomaly(results));
        report.tables.push(latencies(results));
        report.gates.extend(gates(results));
        report.charts.push(false_positives_chart(results));
    }
    report
}

/// What the paper claims, with room for another implementation; and its formulas at alpha 5.
fn gates(results: &Results) -> Vec<Gate> {
    let swim = sums(results, Variant::Swim, None).all;
    let of_swim = |variant| percent(sums(results, variant, None).all, swim).unwrap_or(f64::NAN);
    let [lifeguard, suspicion, probe, buddy] =
        [Variant::Lifeguard, Variant::LhaSuspicion, Variant::LhaProbe, Variant::Buddy].map(of_swim);
    let named = |what: &str| titled(what, results.tuning);
    let mut gates = vec![
        Gate::within(&named("Lifeguard's FP, % of SWIM's"), lifeguard, 0.0, 5.0),
        Gate::within(&named("LHA-Suspicion's FP, % of SWIM's"), suspicion, 0.0, 10.0),
        Gate::within(
            &named("LHA-Suspicion's FP, % of LHA-Probe's"),
            100.0 * suspicion / probe,
            0.0,
            50.0,
        ),
        Gate::within(&named("LHA-Probe's FP, % of Buddy's"), 100.0 * probe / buddy, 0.0, 100.0),
    ];
    for row in &results.detection {
        let (variant, c) = (row.variant.name(), row.concurrent);
        let what = named(&format!("{variant}, C = {c}, crashed members not found by all"));
        gates.push(Gate::within(&what, row.undetected as f64, 0.0, 0.0));
    }
    if results.tuning == Tuning::PAPER {
        let alone = results.detection.iter().filter(|row| row.concurrent == 1);
        for row in alone {
            let median = row.full.map_or(f64::NAN, |summary| summary.median);
            let what = format!("{}, median until all know of a crash, s", row.variant.name());
            gates.push(Gate::within(&what, median, 12.1, 13.1));
        }
    }
    gates
}

/// Whether these are all the combinations of the paper.
fn is_whole(grid: &Grid) -> bool {
    let whole = Grid::full();
    let combinations = |grid: &Grid| {
        (grid.concurrent.clone(), grid.durations_ms.clone(), grid.intervals_ms.clone())
    };
    combinations(grid) == combinations(&whole)
}

fn extent(grid: &Grid) -> &'static str {
    if is_whole(grid) { "the whole grid" } else { "a part of the grid" }
}

fn titled(what: &str, tuning: Tuning) -> String {
    format!("{what} (alpha {}, beta {})", tuning.alpha, tuning.beta)
}

fn totals(results: &Results) -> Table {
    let mut table = Table::new(
        titled(
            &format!("Lifeguard: false positives and load, summed over {}", extent(&results.grid)),
            results.tuning,
        ),
        &[
            "configuration",
            "FP",
            "FP-",
            "FP %",
            "FP paper %",
            "FP- %",
            "FP- paper %",
            "packets M",
            "packets %",
            "packets paper %",
            "GiB",
            "bytes %",
            "bytes paper %",
        ],
    );
    let swim = sums(results, Variant::Swim, None);
    for (variant, fp, healthy, packets, bytes) in PUBLISHED {
        let ours = sums(results, variant, None);
        let published = |value| match results.tuning == Tuning::PAPER {
            true => Cell::Number(value, 2),
            false => Cell::Missing,
        };
        table.row([
            variant.name().into(),
            ours.all.into(),
            ours.healthy.into(),
            Cell::number(percent(ours.all, swim.all), 2),
            published(fp),
            Cell::number(percent(ours.healthy, swim.healthy), 2),
            published(healthy),
            Cell::Number(ours.packets as f64 / 1e6, 2),
            Cell::number(percent(ours.packets, swim.packets), 2),
            published(packets),
            Cell::Number(ours.bytes as f64 / (1u64 << 30) as f64, 2),
            Cell::number(percent(ours.bytes, swim.bytes), 2),
            published(bytes),
        ]);
    }
    let grid = &results.grid;
    table.note(format!(
        "128 members, 120 s a run; C = {:?}, D = {:?} ms, I = {:?} ms, {} repetitions; a slow \
         member takes {} us over each packet of its backlog; seed {}; {} of {} runs. FP: deaths of members without anomalies that anybody believed; FP-: that members \
         without anomalies believed. Percentages are of SWIM's.",
        grid.concurrent,
        grid.durations_ms,
        grid.intervals_ms,
        grid.repetitions,
        grid.service_time_us,
        results.seed,
        results.runs.0,
        results.runs.1
    ));
    table
}

fn by_concurrency(results: &Results) -> Table {
    let mut heads = vec!["C"];
    heads.extend(Variant::ALL.map(Variant::name));
    heads.extend(["Lifeguard %", "paper %"]);
    let title = titled("Lifeguard: false positives by concurrent anomalies", results.tuning);
    let mut table = Table::new(title, &heads);
    for &c in &results.grid.concurrent {
        let ours = Variant::ALL.map(|variant| sums(results, variant, Some(c)).all);
        let published = FIGURE_2.iter().find(|(at, _)| *at == c).map(|(_, fp)| fp);
        let published = published.filter(|_| results.tuning == Tuning::PAPER);
        let mut row: Vec<Cell> = vec![c.into()];
        row.extend(ours.map(Cell::from));
        row.push(Cell::number(percent(ours[4], ours[0]), 2));
        row.push(Cell::number(published.map(|fp| 100.0 * fp[4] / fp[0]), 2));
        table.row(row);
    }
    table
}

/// Where they arise.
fn by_anomaly(results: &Results) -> Table {
    let intervals = results.grid.intervals_ms.iter().map(|i| format!("I = {i} ms"));
    let heads: Vec<String> =
        ["configuration", "D, ms"].map(str::to_owned).into_iter().chain(intervals).collect();
    let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
    let title = titled("Lifeguard: false positives by anomaly, all C", results.tuning);
    let mut table = Table::new(title, &heads);
    for variant in Variant::ALL {
        for &d in &results.grid.durations_ms {
            let of = |i: u64| {
                let cell = results.intervals.iter().filter(|row| {
                    (row.variant, row.duration_ms, row.interval_ms) == (variant, d, i)
                });
                cell.map(|row| row.false_positives).sum::<u64>()
            };
            let mut row: Vec<Cell> = vec![variant.name().into(), d.into()];
            row.extend(results.grid.intervals_ms.iter().map(|&i| Cell::from(of(i))));
            table.row(row);
        }
    }
    table.note("D: length of an anomaly; I: health between two.");
    table
}

fn latencies(results: &Results) -> Table {
    let mut table = Table::new(
        titled("Lifeguard: detection of members that stopped, seconds", results.tuning),
        &[
            "C",
            "configuration",
            "victims",
            "first median",
            "first 99 %",
            "first 99.9 %",
            "all median",
            "all 99 %",
            "all 99.9 %",
            "all max",
            "undetected",
        ],
    );
    for row in &results.detection {
        let first = |of: fn(&crate::statistics::Summary) -> f64| {
            Cell::number(row.first.as_ref().map(of), 2)
        };
        let full =
            |of: fn(&crate::statistics::Summary) -> f64| Cell::number(row.full.as_ref().map(of), 2);
        table.row([
            row.concurrent.into(),
            row.variant.name().into(),
            row.first.map_or(0, |summary| summary.samples).into(),
            first(|s| s.median),
            first(|s| s.p99),
            first(|s| s.p999),
            full(|s| s.median),
            full(|s| s.p99),
            full(|s| s.p999),
            full(|s| s.max),
            row.undetected.into(),
        ]);
    }
    table.note(
        "First: until the first member declared the death; all: until every member that runs knew of \
         it. Derived from the paper's formulas at alpha 5: 12.1 to 13.1 s in the median.",
    );
    table
}

fn false_positives_chart(results: &Results) -> Chart {
    let mut series: Vec<Series> = Variant::ALL
        .map(|variant| {
            let ours = |&c: &usize| (c as f64, sums(results, variant, Some(c)).all as f64);
            Series::measured(variant.name(), results.grid.concurrent.iter().map(ours).collect())
        })
        .into();
    // The paper gives sums over all of its grid; those over a part of it do not compare.
    if results.tuning == Tuning::PAPER && is_whole(&results.grid) {
        for (at, name) in [(0, "SWIM, published"), (4, "Lifeguard, published")] {
            let published = FIGURE_2.iter().map(|(c, fp)| (*c as f64, fp[at])).collect();
            series.push(Series::published(name, published));
        }
    }
    Chart {
        title: titled(
            &format!("False positives, 128 members, {}", extent(&results.grid)),
            results.tuning,
        ),
        x: Axis::linear("members with concurrent anomalies (C)"),
        y: Axis::logarithmic("deaths of well members"),
        series,
    }
}
