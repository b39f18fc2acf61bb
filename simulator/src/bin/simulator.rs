//! The simulator's command line: `simulator --help`.
//!
//! Exit status: 0 if everything was done and held, 1 if an invariant was broken, a figure missed its
//! limits (with `--check`), or the work was interrupted, 2 if the arguments cannot be used.

#[path = "simulator/args.rs"]
mod args;
#[path = "simulator/show.rs"]
mod show;

use std::process::ExitCode;

use args::{Args, Command, ExploreArgs, Shared, TuningArg};
use memberlist_simulator::experiment::{
    Effort, convergence, dissemination, lifeguard, scale, swim,
};
use memberlist_simulator::explore;
use memberlist_simulator::parallel::Stop;
use memberlist_simulator::report::Report;
use show::{Progress, complain, say};

fn main() -> ExitCode {
    let args = match Args::from_command_line() {
        Ok(args) => args,
        Err(code) => return code,
    };
    if let Err(error) = args.shared().files().check() {
        complain(&error.to_string());
        return ExitCode::from(args::BAD_ARGUMENTS);
    }
    let stop = Stop::default();
    if let Err(error) = stop_on_interrupt(&stop) {
        complain(&format!("Ctrl-C will end this at once: {error}"));
    }
    match &args.command {
        Command::Explore(explore) => search(explore, stop),
        Command::Lifeguard { grid, tuning, service_time, runs, ticks_only, shared } => {
            let tunings = match tuning {
                TuningArg::Paper => vec![lifeguard::Tuning::PAPER],
                TuningArg::Go => vec![lifeguard::Tuning::GO],
                TuningArg::Both => vec![lifeguard::Tuning::PAPER, lifeguard::Tuning::GO],
            };
            let mut grid = grid.lifeguard();
            grid.service_time_us = *service_time;
            grid.repetitions = runs.map_or(grid.repetitions, usize::from);
            experiment(shared, stop, |effort| {
                let with = |tuning| lifeguard::Tuning { ticks_only: *ticks_only, ..tuning };
                let run = |tuning| lifeguard::run(with(tuning), &grid, effort);
                lifeguard::report(&tunings.into_iter().map(run).collect::<Vec<_>>())
            })
        }
        Command::Swim { grid, shared } => {
            experiment(shared, stop, |effort| swim::report(&swim::run(&grid.swim(), effort)))
        }
        Command::Convergence { grid, nodes, loss, runs, ticks_only, shared } => {
            let mut sizes = grid.convergence(nodes, loss, *runs);
            sizes.ticks_only = *ticks_only;
            experiment(shared, stop, |effort| {
                convergence::report(&convergence::run(&sizes, effort))
            })
        }
        Command::Dissemination { parts, grid, nodes, shared } => {
            let parts = match parts.as_slice() {
                [] => dissemination::Part::ALL.to_vec(),
                parts => parts.iter().map(|part| part.part()).collect(),
            };
            let grid = grid.dissemination();
            experiment(shared, stop, |effort| dissemination::run(&parts, grid, nodes, effort))
        }
        Command::Scale { nodes, seconds, mass_join, shared } => {
            let task = match mass_join {
                true => scale::Task::MassJoin,
                false => scale::Task::Steady { seconds: *seconds },
            };
            experiment(shared, stop, |effort| scale::report(&scale::run(task, *nodes, effort)))
        }
    }
}

/// The first Ctrl-C ends the work, and what is known is shown; the second ends the program.
fn stop_on_interrupt(stop: &Stop) -> Result<(), ctrlc::Error> {
    let stop = stop.clone();
    ctrlc::set_handler(move || {
        if stop.is_asked() {
            std::process::exit(130);
        }
        stop.ask();
    })
}

fn experiment(
    shared: &Shared,
    stop: Stop,
    run: impl FnOnce(&mut Effort<'_>) -> Report,
) -> ExitCode {
    let progress = Progress::new("runs");
    let mut show = |done, total| progress.at(done, total);
    let effort =
        &mut Effort { jobs: shared.jobs(), seed: shared.seed(), stop, progress: &mut show };
    let report = run(effort);
    progress.done();
    conclude(&report, shared, true)
}

fn search(args: &ExploreArgs, stop: Stop) -> ExitCode {
    if args.trace {
        return replay(args, &stop);
    }
    let progress = Progress::new("seeds");
    let mut show = |done, total| progress.at(done, total);
    let (jobs, seed) = (args.shared.jobs(), args.shared.seed());
    let effort = &mut Effort { jobs, seed, stop, progress: &mut show };
    let search = explore::search(args.seeds.clone(), |seed| args.scenario(seed), effort);
    progress.done();
    let command = |seed| {
        let (next, flags) = (seed + 1, args.flags());
        format!(
            "cargo run --release -p memberlist-simulator -- explore --seeds {seed}..{next}{flags} --trace"
        )
    };
    let holds = search.violations().next().is_none();
    conclude(&explore::report(&search, command), &args.shared, holds)
}

/// Runs seeds one after the other and shows all that happens.
fn replay(args: &ExploreArgs, stop: &Stop) -> ExitCode {
    let mut holds = true;
    for seed in args.seeds.clone() {
        if stop.is_asked() {
            return ExitCode::FAILURE;
        }
        let scenario = args.scenario(seed);
        say(&format!("seed {seed}: {scenario}"));
        let outcome = explore::run_until_stopped(&scenario, true, stop);
        say(outcome.log.trim_end());
        match &outcome.violation {
            Some(violation) => say(&format!("seed {seed} broke {violation}")),
            None if outcome.interrupted => say(&format!("seed {seed} was interrupted")),
            None => say(&format!("seed {seed} held")),
        }
        say(&format!("{} inputs, digest {:016x}", outcome.steps, outcome.digest));
        holds &= outcome.violation.is_none() && !outcome.interrupted;
    }
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn conclude(report: &Report, shared: &Shared, holds: bool) -> ExitCode {
    // Before anything is said: who closes the standard output ends the program.
    let written = shared.files().write(report);
    for table in &report.tables {
        say(&table.terminal());
    }
    let (done, wanted) = report.runs;
    if done < wanted {
        // A part of the runs proves nothing about the limits.
        say(&format!("Interrupted: {done} of {wanted} runs; no figure is judged."));
    } else {
        for gate in &report.gates {
            say(&format!("{} {}", if gate.holds { "holds " } else { "MISSED" }, gate.what));
        }
    }
    if let Err(error) = written {
        complain(&error.to_string());
        return ExitCode::FAILURE;
    }
    let holds = holds && (!shared.check() || report.gates.iter().all(|gate| gate.holds));
    if holds && done == wanted { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
