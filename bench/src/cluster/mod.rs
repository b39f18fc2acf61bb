//! Several membership libraries through one scenario, side by side.

pub mod limits;
pub mod plot;
pub mod programs;
pub mod report;
pub mod scenario;
pub mod worker;

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use self::limits::Limits;
use self::programs::{Library, Programs};
use self::report::{Case, Machine, Report};
use self::scenario::Scenario;
use self::worker::{Program, Traffic, Worker};

/// What is to be compared.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// The libraries, in the order of the table.
    pub libraries: Vec<Library>,
    /// Cluster sizes.
    pub nodes: Vec<usize>,
    /// Whether with a key: no, yes, or both in turn.
    pub encrypted: Vec<bool>,
    /// Runs of each library at each size.
    pub runs: u64,
    /// Of the first run; each further one has the next.
    pub seed: u64,
    /// What each run does.
    pub scenario: Scenario,
}

impl Plan {
    /// Carries it out and gives what it found. Libraries that cannot be had are told and left out.
    ///
    /// The libraries take turns, run by run, so that what changes on the machine meanwhile meets all of
    /// them.
    ///
    /// `keep` gets what has been found so far, after each size. Where it fails that is told, and the
    /// comparison goes on.
    ///
    /// # Errors
    /// If the machine has no room for it, or nothing can be compared.
    pub fn carry_out(
        self,
        mut keep: impl FnMut(&Report) -> Result<(), String>,
    ) -> Result<Report, String> {
        let largest = self.nodes.iter().copied().max().unwrap_or_default();
        Limits::of_this_process()?.check(largest)?;
        let (programs, absent) = self.programs();
        let why = |(library, why): (&Library, &String)| format!("{library}: NOT MEASURED, {why}");
        let missing: Vec<_> = absent.iter().map(why).collect();
        if programs.is_empty() {
            return Err(format!("no library is left to be measured\n{}", missing.join("\n")));
        }
        // Told before hours of work. An error means that nobody reads.
        missing.iter().for_each(|line| drop(writeln!(std::io::stderr(), "{line}")));
        let others = Traffic::of_others()?;
        let libraries: Vec<_> = programs.keys().copied().collect();
        let (sizes, runs) = (self.sizes(), self.runs);
        let bar = bar(runs * (sizes.len() * libraries.len()) as u64);
        let said = |line: String| bar.suspend(|| drop(writeln!(std::io::stderr(), "{line}")));
        let mut report = Report {
            plan: self,
            machine: Machine::here(),
            versions: BTreeMap::new(),
            absent,
            others,
            cases: Vec::new(),
        };
        for (nodes, encrypted) in sizes {
            let mut of_size = vec![Vec::new(); libraries.len()];
            for number in 0..runs {
                for (runs, library) in of_size.iter_mut().zip(&libraries) {
                    let seed = report.plan.seed.wrapping_add(number);
                    let does = |part: &str| {
                        bar.set_message(format!("{library}, {nodes} nodes: {part}"));
                    };
                    let scenario = report.plan.scenario.of(*library);
                    let run = match Worker::start(&programs[library]) {
                        Ok(mut worker) => {
                            report.versions.insert(*library, worker.hello.version.clone());
                            scenario.run(&mut worker, nodes, encrypted, seed, does)
                        }
                        Err(error) => scenario.not_run(seed, error),
                    };
                    said(report::line(*library, nodes, encrypted, &run));
                    runs.push(run);
                    bar.inc(1);
                }
            }
            let cases = libraries.iter().copied().zip(of_size);
            let case = |(library, runs)| Case { library, nodes, encrypted, runs };
            report.cases.extend(cases.map(case));
            if let Err(error) = keep(&report) {
                said(format!("not kept: {error}"));
            }
        }
        bar.finish_and_clear();
        Ok(report)
    }

    fn sizes(&self) -> Vec<(usize, bool)> {
        let with = |encrypted: bool| self.nodes.iter().map(move |nodes| (*nodes, encrypted));
        self.encrypted.iter().copied().flat_map(with).collect()
    }

    fn programs(&self) -> (BTreeMap<Library, Program>, BTreeMap<Library, String>) {
        let (makers, mut programs, mut absent) =
            (Programs::of_this_workspace(), BTreeMap::new(), BTreeMap::new());
        for library in &self.libraries {
            match makers.build(*library) {
                Ok(program) => drop(programs.insert(*library, program)),
                Err(error) => drop(absent.insert(*library, error)),
            }
        }
        (programs, absent)
    }
}

fn bar(runs: u64) -> ProgressBar {
    // Standard output is the report's.
    let hidden = !std::io::stderr().is_terminal();
    let target = if hidden { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let style = ProgressStyle::with_template("{bar:30} {pos} of {len} runs, {elapsed}  {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::with_draw_target(Some(runs), target).with_style(style);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
