//! What was found, as a table and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::process::Command as Process;

use serde::Serialize;

use super::Plan;
use super::programs::Library;
use super::scenario::{Detection, Idle, Part, Run, Step};
use super::worker::Traffic;

/// Everything that a comparison found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// What was compared.
    pub plan: Plan,
    /// Where.
    pub machine: Machine,
    /// Of the libraries.
    pub versions: BTreeMap<Library, String>,
    /// Libraries that could not be had, and why.
    pub absent: BTreeMap<Library, String>,
    /// What others sent over the loopback device before the first run.
    pub others: Traffic,
    /// By size and library.
    pub cases: Vec<Case>,
}

/// All runs of a library at one size.
#[derive(Debug, Serialize)]
pub struct Case {
    /// The library.
    pub library: Library,
    /// Nodes in its one process.
    pub nodes: usize,
    /// Whether with a key.
    pub encrypted: bool,
    /// One after the other.
    pub runs: Vec<Run>,
}

/// Where a comparison was made; what the system does not tell is empty.
#[derive(Debug, Serialize)]
pub struct Machine {
    /// The processor's name.
    pub processor: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// The kernel.
    pub kernel: String,
    /// The commit of this workspace, with a mark if it was changed.
    pub commit: String,
    /// The compiler.
    pub rustc: String,
    /// The compiler of Go.
    pub go: String,
}

impl Machine {
    /// This one.
    pub fn here() -> Self {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let name = cpuinfo.lines().find(|line| line.starts_with("model name"));
        let name = name.and_then(|line| line.split(": ").nth(1)).unwrap_or_default();
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            processor: name.into(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: kernel.trim().into(),
            commit: said(Process::new("git").args(["describe", "--always", "--dirty"])),
            rustc: said(Process::new("rustc").arg("--version")),
            go: said(Process::new("go").arg("version")),
        }
    }
}

fn said(program: &mut Process) -> String {
    let output = program.current_dir(env!("CARGO_MANIFEST_DIR")).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.unwrap_or_default()
}

/// A row of the table: a figure of each run, of which the median is shown. Less is better.
struct Row {
    what: &'static str,
    unit: &'static str,
    decimals: usize,
    /// The figures of a run, one for each time it was measured; none where it should be and is not.
    of: fn(&Run) -> Vec<Option<f64>>,
}

const ROWS: &[Row] = &[
    row("mass join", "s", 2, |run| joined(run, run.join.and_then(|step| step.took_s))),
    row("its processor time", "s", 2, |run| joined(run, run.join_processor_s)),
    row("memory of a node then", "kB", 0, |run| joined(run, run.node_bytes_joined.map(kilo))),
    row("idle: processor time of a node", "% of a core", 4, |run| {
        idle(run, |idle| idle.processor_percent)
    }),
    row("idle: datagrams of a node", "1/s", 1, |run| idle(run, |idle| idle.datagrams_per_s)),
    row("idle: bytes of a node", "B/s", 0, |run| idle(run, |idle| idle.bytes_per_s)),
    row("idle: memory of a node", "kB", 0, |run| idle(run, |idle| kilo(idle.node_bytes))),
    row("broadcast to all", "s", 3, |run| step(run, Part::Broadcast, run.broadcast)),
    row("killed: first detection", "s", 2, |run| killed(run, |kill| &kill.first_s)),
    row("killed: last detection", "s", 2, |run| killed(run, |kill| &kill.last_s)),
    row("10 % leave", "s", 2, |run| step(run, Part::Leave, run.leave)),
    row("all that are gone return", "s", 2, |run| step(run, Part::Restart, run.restart)),
];

const fn row(
    what: &'static str,
    unit: &'static str,
    decimals: usize,
    of: fn(&Run) -> Vec<Option<f64>>,
) -> Row {
    Row { what, unit, decimals, of }
}

fn kilo(bytes: f64) -> f64 {
    bytes / 1e3
}

/// A figure of the mass join, which every run has: none if the views were never complete.
fn joined(run: &Run, figure: Option<f64>) -> Vec<Option<f64>> {
    let is_complete = run.join.is_some_and(|step| step.took_s.is_some());
    vec![figure.filter(|_| is_complete)]
}

/// What a part found; none if it was not reached, and nothing if it was not asked for.
fn of_part(run: &Run, part: Part, found: Option<Vec<Option<f64>>>) -> Vec<Option<f64>> {
    match found {
        Some(figures) => figures,
        None if run.not_reached.contains(&part) => vec![None],
        None => Vec::new(),
    }
}

fn idle(run: &Run, of: fn(&Idle) -> f64) -> Vec<Option<f64>> {
    of_part(run, Part::Idle, run.idle.map(|idle| vec![Some(of(&idle))]))
}

fn step(run: &Run, part: Part, found: Option<Step>) -> Vec<Option<f64>> {
    of_part(run, part, found.map(|step| vec![step.took_s]))
}

fn killed(run: &Run, of: fn(&Detection) -> &Vec<Option<f64>>) -> Vec<Option<f64>> {
    of_part(run, Part::Kill, run.kill.as_ref().map(|kill| of(kill).clone()))
}

/// Figures in order; those that were not reached are the largest.
fn sorted(row: &Row, case: &Case) -> Vec<f64> {
    let all = case.runs.iter().flat_map(|run| (row.of)(run));
    let mut figures: Vec<f64> = all.map(|figure| figure.unwrap_or(f64::INFINITY)).collect();
    figures.sort_by(f64::total_cmp);
    figures
}

/// Of figures in order; none of none.
pub(crate) fn median(sorted: &[f64]) -> Option<f64> {
    let middle = sorted.len() / 2;
    match sorted.len() % 2 {
        _ if sorted.is_empty() => None,
        1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

impl Report {
    /// The tables, in Markdown: one for each size, with a column for each library.
    pub fn tables(&self) -> String {
        let mut text = String::new();
        for (library, why) in &self.absent {
            let _ = writeln!(text, "{library}: NOT MEASURED, {why}");
        }
        if self.others.datagrams_per_s >= 1.0 {
            let Traffic { datagrams_per_s, bytes_per_s } = self.others;
            let _ = writeln!(
                text,
                "other programs sent {datagrams_per_s:.0} datagrams and {bytes_per_s:.0} bytes a second \
                 before it began: what the table says of traffic is too much by about that"
            );
        }
        let same_size = |a: &Case, b: &Case| (a.nodes, a.encrypted) == (b.nodes, b.encrypted);
        for of_size in self.cases.chunk_by(same_size) {
            if let Some(case) = of_size.first() {
                let secured = if case.encrypted { "encrypted" } else { "plain" };
                let _ = writeln!(text, "\n{} nodes, {secured}\n", case.nodes);
                self.table(&mut text, of_size);
            }
        }
        for (library, version) in &self.versions {
            let _ = writeln!(text, "{library}: {version}");
        }
        text
    }

    fn table(&self, text: &mut String, cases: &[Case]) {
        let has_peers = cases.iter().any(|case| case.library.is_peer());
        let has_net = cases.iter().any(|case| case.library == Library::Net);
        let ratio = has_peers && has_net;
        let _ = write!(text, "| {:<31} | {:<11} |", "median (least to most)", "");
        for case in cases {
            let _ = write!(text, " {:>22} |", case.library);
        }
        text.push_str(if ratio { " net : best peer |\n|---|---|" } else { "\n|---|---|" });
        text.push_str(&"---:|".repeat(cases.len() + usize::from(ratio)));
        text.push('\n');
        for row in ROWS {
            let figures: Vec<_> = cases.iter().map(|case| sorted(row, case)).collect();
            if figures.iter().all(Vec::is_empty) {
                continue;
            }
            let _ = write!(text, "| {:<31} | {:<11} |", row.what, row.unit);
            for figures in &figures {
                let _ = write!(text, " {:>22} |", cell(row, figures));
            }
            if ratio {
                let _ = write!(text, " {:>15} |", versus(cases, &figures));
            }
            text.push('\n');
        }
        let mut count = |what: &str, of: fn(&Run) -> usize| {
            let _ = write!(text, "| {what:<31} | {:<11} |", "");
            for case in cases {
                let _ = write!(text, " {:>22} |", case.runs.iter().map(of).sum::<usize>());
            }
            text.push_str(if ratio { "                 |\n" } else { "\n" });
        };
        count("joins and farewells that failed", failures);
        count("running nodes declared dead", |run| run.false_deaths);
        count("runs that were broken off", |run| usize::from(run.error.is_some()));
        text.push('\n');
    }
}

fn failures(run: &Run) -> usize {
    [run.join, run.leave, run.restart].into_iter().flatten().map(|step| step.failed).sum()
}

fn cell(row: &Row, figures: &[f64]) -> String {
    let shown = |figure: f64| match figure.is_finite() {
        true => format!("{figure:.*}", row.decimals),
        false => "never".into(),
    };
    match (median(figures), figures) {
        (Some(median), [least, .., most]) => {
            format!("{} ({} to {})", shown(median), shown(*least), shown(*most))
        }
        (Some(median), _) => shown(median),
        (None, _) => "-".into(),
    }
}

/// Ours over UDP and TCP as a share of the best of the others, by medians.
fn versus(cases: &[Case], figures: &[Vec<f64>]) -> String {
    let medians = || cases.iter().zip(figures.iter().map(|figures| median(figures)));
    let ours = medians().find(|(case, _)| case.library == Library::Net).and_then(|(_, m)| m);
    let peers = medians().filter(|(case, _)| case.library.is_peer()).filter_map(|(_, m)| m);
    match (ours, peers.min_by(f64::total_cmp)) {
        // Zero is less than the steps in which it is counted.
        (Some(ours), Some(best))
            if ours.is_finite() && best.is_finite() && best > 0.0 && ours > 0.0 =>
        {
            format!("{:.2}", ours / best)
        }
        _ => "-".into(),
    }
}

/// One run in one line.
pub fn line(library: Library, nodes: usize, encrypted: bool, run: &Run) -> String {
    let secured = if encrypted { "encrypted" } else { "plain" };
    let mut text = format!("{library:<8} {nodes:>5} {secured:<9} seed {:<3}", run.seed);
    for row in ROWS {
        let figures: Vec<_> =
            (row.of)(run).into_iter().map(|f| f.unwrap_or(f64::INFINITY)).collect();
        if let Some(worst) = figures.iter().copied().max_by(f64::total_cmp) {
            let unit = if worst.is_finite() { row.unit } else { "" };
            let _ = write!(text, "  {} {} {unit}", row.what, cell(row, &[worst]));
        }
    }
    let (failed, dead) = (failures(run), run.false_deaths);
    if failed + dead > 0 {
        let _ = write!(text, "  FAILED joins and farewells {failed}, FALSE deaths {dead}");
    }
    if let Some(error) = &run.error {
        let _ = write!(text, "  NOT FINISHED: {error}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::scenario::Scenario;

    fn step(took_s: Option<f64>) -> Step {
        Step { took_s, failed: 0, missing: 0 }
    }

    fn case(library: Library, joins: &[Option<f64>]) -> Case {
        let run = |took: &Option<f64>| Run {
            join: Some(step(*took)),
            kill: Some(Detection { first_s: vec![Some(1.0), None], last_s: vec![Some(2.0), None] }),
            ..Run::default()
        };
        Case { library, nodes: 50, encrypted: false, runs: joins.iter().map(run).collect() }
    }

    fn report(cases: Vec<Case>) -> Report {
        let scenario = Scenario {
            parts: Vec::new(),
            in_flight: 16,
            limit_s: 1,
            settle_s: 0,
            idle_s: 1,
            broadcast_bytes: 1,
        };
        let plan = Plan {
            libraries: cases.iter().map(|case| case.library).collect(),
            nodes: vec![50],
            encrypted: vec![false],
            runs: 3,
            seed: 1,
            scenario,
        };
        let absent = [(Library::Go, "there is no go here".to_owned())].into();
        let (versions, others) = (BTreeMap::new(), Traffic::default());
        Report { plan, machine: Machine::here(), versions, absent, others, cases }
    }

    #[test]
    fn a_run_that_did_not_converge_counts_as_the_longest_and_is_not_dropped() {
        let report = report(vec![
            case(Library::Net, &[Some(1.0), Some(0.5), Some(2.0)]),
            case(Library::Al8n, &[Some(4.0), None, Some(3.0)]),
            case(Library::Kinship, &[None, None, Some(3.0)]),
        ]);
        let tables = report.tables();
        let join = tables.lines().find(|line| line.contains("mass join")).expect("a row");
        assert!(join.contains("1.00 (0.50 to 2.00)"), "{join}");
        assert!(join.contains("4.00 (3.00 to never)"), "{join}");
        assert!(join.contains("never (3.00 to never)"), "{join}");
        assert!(join.ends_with("0.25 |"), "{join}");
        assert!(tables.starts_with("go: NOT MEASURED, there is no go here"), "{tables}");
        assert!(!tables.contains("broadcast"), "what was not asked for has no row");
        let mut broken = case(Library::Net, &[Some(1.0)]);
        broken.runs.push(Run { not_reached: vec![Part::Idle], ..Run::default() });
        for what in ["mass join", "its processor time", "idle: bytes of a node"] {
            let row = ROWS.iter().find(|row| row.what == what).expect("a row");
            assert!(sorted(row, &broken).contains(&f64::INFINITY), "{what} was not reached");
        }
        assert!(serde_json::to_string(&report).is_ok_and(|json| json.contains("\"took_s\":null")));
    }

    #[test]
    fn a_line_tells_what_failed() {
        let run = Run { error: Some("out of time".into()), false_deaths: 3, ..Run::default() };
        let line = line(Library::Go, 50, true, &run);
        assert!(
            line.contains("NOT FINISHED: out of time") && line.contains("FALSE deaths 3"),
            "{line}"
        );
    }
}
