//! The medians against the number of nodes, as a drawing.

use memberlist_simulator::report::plot::{Axis, Chart, Series, svg};

use super::programs::Library;
use super::report::{Case, Report, median};
use super::scenario::Run;

/// A chart: its title, the label of its vertical axis, and its figures.
type Drawn = (&'static str, &'static str, fn(&Run) -> Vec<Option<f64>>);

const DRAWN: &[Drawn] = &[
    ("Mass join until all views are complete", "seconds", |run| {
        vec![run.join.and_then(|step| step.took_s)]
    }),
    ("Idle: processor time of a node", "% of a core", |run| {
        run.idle.map(|idle| Some(idle.processor_percent)).into_iter().collect()
    }),
    ("Idle: memory of a node", "kB", |run| {
        run.idle.map(|idle| Some(idle.node_bytes / 1e3)).into_iter().collect()
    }),
    ("A killed node is known to be dead by all", "seconds", |run| {
        run.kill.as_ref().map(|kill| kill.last_s.clone()).unwrap_or_default()
    }),
    ("A broadcast has reached all", "seconds", |run| {
        run.broadcast.map(|step| step.took_s).into_iter().collect()
    }),
];

/// Draws a report. A library has no point where its median was not reached.
///
/// # Errors
/// If it cannot be drawn.
pub fn draw(report: &Report) -> Result<String, String> {
    let mut charts = Vec::new();
    // The same in every chart, as colours go by their places.
    let measured = || report.plan.libraries.iter().filter(|l| !report.absent.contains_key(l));
    for encrypted in &report.plan.encrypted {
        for (title, label, of) in DRAWN {
            let line = |library: &Library| {
                let cases = report.cases.iter();
                let own = cases.filter(|c| c.library == *library && c.encrypted == *encrypted);
                let points = own.filter_map(|case| Some((case.nodes as f64, figure(case, *of)?)));
                Series::measured(library.to_string(), points.collect())
            };
            let series: Vec<_> = measured().map(line).collect();
            if series.iter().any(|series| !series.points.is_empty()) {
                let secured = if *encrypted { "encrypted" } else { "plain" };
                charts.push(Chart {
                    title: format!("{title}, {secured}"),
                    x: Axis::logarithmic("nodes"),
                    y: Axis::logarithmic(*label),
                    series,
                });
            }
        }
    }
    svg(&charts).map_err(|error| error.to_string())
}

fn figure(case: &Case, of: fn(&Run) -> Vec<Option<f64>>) -> Option<f64> {
    let all = case.runs.iter().flat_map(of);
    let mut figures: Vec<f64> = all.map(|figure| figure.unwrap_or(f64::INFINITY)).collect();
    figures.sort_by(f64::total_cmp);
    median(&figures).filter(|figure| figure.is_finite())
}
