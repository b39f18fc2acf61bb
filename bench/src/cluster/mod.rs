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
use self::worker::{Program, Worker};

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
    /// `keep` gets what has been found so far, at the beginning and after each size.
    ///
    /// # Errors
    /// If the machine has no room for it, or nothing can be compared, or it cannot be kept.
    pub fn carry_out(
        mut self,
        mut keep: impl FnMut(&Report) -> Result<(), String>,
    ) -> Result<Report, String> {
        let largest = self.nodes.iter().copied().max().unwrap_or_default();
        Limits::of_this_process()?.check(largest)?;
        let empty = |plan: &Self, absent| Report {
            plan: plan.clone(),
            machine: Machine::here(),
            versions: BTreeMap::new(),
            absent,
            cases: Vec::new(),
        };
        // What cannot be kept is told before hours of work.
        keep(&empty(&self, BTreeMap::new()))?;
        let (programs, absent) = self.programs();
        self.libraries.retain(|library| programs.contains_key(library));
        if self.libraries.is_empty() {
            let all: Vec<_> =
                absent.iter().map(|(library, why)| format!("{library}: {why}")).collect();
            return Err(format!("no library is left to be measured; {}", all.join("; ")));
        }
        let mut report = empty(&self, absent);
        let bar = bar(self.total_runs());
        for (nodes, encrypted) in self.sizes() {
            let mut runs = vec![Vec::new(); self.libraries.len()];
            for number in 0..self.runs {
                for (runs, library) in runs.iter_mut().zip(&self.libraries) {
                    let seed = self.seed.wrapping_add(number);
                    let said = |part: &str| {
                        bar.set_message(format!("{library}, {nodes} nodes: {part}"));
                    };
                    let scenario = self.scenario.of(*library);
                    let run = match Worker::start(&programs[library]) {
                        Ok(mut worker) => {
                            report.versions.insert(*library, worker.hello.version.clone());
                            scenario.run(&mut worker, nodes, encrypted, seed, said)
                        }
                        Err(error) => scenario.not_run(seed, error),
                    };
                    let line = report::line(*library, nodes, encrypted, &run);
                    // An error means that nobody reads.
                    bar.suspend(|| drop(writeln!(std::io::stderr(), "{line}")));
                    runs.push(run);
                    bar.inc(1);
                }
            }
            report.cases.extend(self.libraries.iter().zip(runs).map(|(library, runs)| Case {
                library: *library,
                nodes,
                encrypted,
                runs,
            }));
            keep(&report)?;
        }
        bar.finish_and_clear();
        Ok(report)
    }

    fn sizes(&self) -> Vec<(usize, bool)> {
        let with = |encrypted: bool| self.nodes.iter().map(move |nodes| (*nodes, encrypted));
        self.encrypted.iter().copied().flat_map(with).collect()
    }

    fn total_runs(&self) -> u64 {
        self.runs * (self.sizes().len() * self.libraries.len()) as u64
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
