//! The command line.

use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand, ValueEnum};
use memberlist_protocol::WireFormat;
use memberlist_simulator::experiment::{convergence, dissemination, lifeguard, swim};
use memberlist_simulator::explore::Scenario;
use memberlist_simulator::parallel::default_jobs;
use memberlist_simulator::report::Files;

use crate::show::complain;

/// The exit status for arguments that cannot be used; clap's own.
pub(crate) const BAD_ARGUMENTS: u8 = 2;

/// A cluster is simulated with every member's table in memory.
const MOST_NODES: i64 = 20_000;

/// Thousands of members in virtual time: a search for faults, and the papers' experiments.
#[derive(Parser, Debug)]
#[command(name = "simulator", version)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Random scenarios, one a seed; every invariant must hold in each
    Explore(ExploreArgs),
    /// False positives, load and latency with the parts of Lifeguard on and off
    Lifeguard {
        /// How much is run
        #[arg(long, value_enum, default_value_t = Grid::Full)]
        grid: Grid,
        /// The suspicion timeouts: alpha 5 and beta 6, or Go's defaults 4 and 6
        #[arg(long, value_enum, default_value_t = TuningArg::Both)]
        tuning: TuningArg,
        /// How long a slow member takes over each packet of its backlog
        #[arg(long, value_name = "MICROSECONDS", default_value_t = 0)]
        service_time: u64,
        /// Instead of the grid's number of runs of each combination
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
        runs: Option<u16>,
        /// Without eager gossip, view digests and delta sync
        #[arg(long)]
        ticks_only: bool,
        #[command(flatten)]
        shared: Shared,
    },
    /// Time to the first probe of a crashed member, load, spread of an update
    Swim {
        /// How much is run
        #[arg(long, value_enum, default_value_t = Grid::Full)]
        grid: Grid,
        #[command(flatten)]
        shared: Shared,
    },
    /// Time until everybody knows: one update, and all joining at once
    Convergence {
        /// How much is run
        #[arg(long, value_enum, default_value_t = Grid::Full)]
        grid: Grid,
        /// Instead of the grid's cluster sizes this one; may be given several times
        #[arg(long, value_parser = nodes)]
        nodes: Vec<usize>,
        /// Instead of the grid's this share of packets is lost; may be given several times
        #[arg(long, value_parser = loss, allow_negative_numbers = true)]
        loss: Vec<f64>,
        /// How often each is run, with --nodes
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
        runs: u16,
        /// Without eager gossip, view digests and delta sync
        #[arg(long)]
        ticks_only: bool,
        #[command(flatten)]
        shared: Shared,
    },
    /// What eager gossip, view digests and delta sync give and cost, beside a cluster without them
    Dissemination {
        /// Which parts; all if none is given
        #[arg(value_enum)]
        parts: Vec<PartArg>,
        /// How much is run
        #[arg(long, value_enum, default_value_t = Grid::Full)]
        grid: Grid,
        /// Mass joins of this many only, of those that the grid has; may be given several times
        #[arg(long, value_name = "N", value_parser = nodes, allow_negative_numbers = true)]
        nodes: Vec<usize>,
        #[command(flatten)]
        shared: Shared,
    },
    /// What simulating a cluster costs: wall time and memory
    Scale {
        /// How many members
        #[arg(long, default_value_t = 1000, value_parser = nodes, allow_negative_numbers = true)]
        nodes: usize,
        /// For how many virtual seconds, in a cluster that agreed long ago
        #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
        seconds: u64,
        /// Instead, let all join one seed at once, until everybody knows everybody
        #[arg(long, conflicts_with = "seconds")]
        mass_join: bool,
        #[command(flatten)]
        shared: Shared,
    },
}

impl Command {
    fn has_plots(&self) -> bool {
        !matches!(self, Self::Explore(_) | Self::Scale { .. } | Self::Dissemination { .. })
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
pub(crate) enum Wire {
    Native,
    Hashicorp,
    Mixed,
}

impl Wire {
    pub(crate) fn format(self) -> WireFormat {
        match self {
            Self::Native => WireFormat::Native,
            Self::Hashicorp => WireFormat::Hashicorp,
            Self::Mixed => WireFormat::Mixed,
        }
    }

    /// The flag that asks for it, behind a space, if one is needed.
    pub(crate) fn flag(self) -> &'static str {
        match self {
            Self::Native => "",
            Self::Hashicorp => " --wire hashicorp",
            Self::Mixed => " --wire mixed",
        }
    }
}

#[derive(clap::Args, Debug)]
pub(crate) struct ExploreArgs {
    /// The seeds, the second one not included, as 0..1000
    #[arg(long, value_name = "A..B", value_parser = seeds)]
    pub(crate) seeds: Range<u64>,
    /// What the processes speak; in a mixed cluster half of them read Go's format alone
    #[arg(long, value_enum, default_value_t = Wire::Native)]
    pub(crate) wire: Wire,
    /// Without eager gossip, view digests and delta sync
    #[arg(long)]
    pub(crate) ticks_only: bool,
    /// Show everything that happens in each; no files are written
    #[arg(long, conflicts_with_all = ["json", "csv", "markdown", "svg"])]
    pub(crate) trace: bool,
    #[command(flatten)]
    pub(crate) shared: Shared,
}

impl ExploreArgs {
    /// The scenario of a seed, as the flags want it.
    pub(crate) fn scenario(&self, seed: u64) -> Scenario {
        Scenario::new(seed).speaking(self.wire.format()).ticking(self.ticks_only)
    }

    /// The flags that ask for the same, each behind a space.
    pub(crate) fn flags(&self) -> String {
        let ticks_only = if self.ticks_only { " --ticks-only" } else { "" };
        format!("{}{ticks_only}", self.wire.flag())
    }
}

/// What all commands take.
#[derive(clap::Args, Debug)]
pub(crate) struct Shared {
    /// Runs at once; one a core if not given
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
    /// Everything follows from it (explore takes its own)
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Fail if a figure misses its limits
    #[arg(long)]
    check: bool,
    /// Write all results to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the cells of all tables to this file, one a line
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Write the tables to this file, for a document
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Draw the plots into this file (not of explore, dissemination and scale, which have none)
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

impl Shared {
    pub(crate) fn jobs(&self) -> usize {
        self.jobs.map_or_else(default_jobs, usize::from)
    }

    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    pub(crate) fn check(&self) -> bool {
        self.check
    }

    pub(crate) fn files(&self) -> Files {
        Files {
            json: self.json.clone(),
            csv: self.csv.clone(),
            markdown: self.markdown.clone(),
            svg: self.svg.clone(),
        }
    }
}

#[derive(Clone, Copy, ValueEnum, Debug)]
pub(crate) enum Grid {
    /// What the documents show: takes from minutes to an hour
    Full,
    /// Enough to see that it works: takes a minute or a few
    Small,
}

impl Grid {
    pub(crate) fn lifeguard(self) -> lifeguard::Grid {
        match self {
            Self::Full => lifeguard::Grid::full(),
            Self::Small => lifeguard::Grid::small(),
        }
    }

    pub(crate) fn swim(self) -> swim::Sizes {
        match self {
            Self::Full => swim::Sizes::full(),
            Self::Small => swim::Sizes::small(),
        }
    }

    pub(crate) fn dissemination(self) -> dissemination::Grid {
        match self {
            Self::Full => dissemination::Grid::Full,
            Self::Small => dissemination::Grid::Small,
        }
    }

    pub(crate) fn convergence(
        self,
        nodes: &[usize],
        losses: &[f64],
        runs: u16,
    ) -> convergence::Sizes {
        let mut sizes = match self {
            Self::Full => convergence::Sizes::full(),
            Self::Small => convergence::Sizes::small(),
        };
        if !nodes.is_empty() {
            sizes.updates = nodes.iter().map(|&nodes| (nodes, usize::from(runs))).collect();
            sizes.joins = sizes.updates.clone();
        }
        if !losses.is_empty() {
            sizes.losses = losses.to_vec();
        }
        sizes
    }
}

#[derive(Clone, Copy, ValueEnum, Debug)]
pub(crate) enum PartArg {
    /// One update
    Update,
    /// A hundred updates a second
    Load,
    /// All join one seed at once
    Joins,
    /// Halves that have buried each other, and one member cut off alone
    Partition,
    /// Bytes while nothing happens
    Steady,
    /// Bytes of one sync
    Sync,
}

impl PartArg {
    pub(crate) fn part(self) -> dissemination::Part {
        match self {
            Self::Update => dissemination::Part::Update,
            Self::Load => dissemination::Part::Load,
            Self::Joins => dissemination::Part::Joins,
            Self::Partition => dissemination::Part::Partition,
            Self::Steady => dissemination::Part::Steady,
            Self::Sync => dissemination::Part::Sync,
        }
    }
}

#[derive(Clone, Copy, ValueEnum, Debug)]
pub(crate) enum TuningArg {
    Paper,
    Go,
    Both,
}

impl Args {
    /// Reads the command line; what cannot be used has been said in one line.
    pub(crate) fn from_command_line() -> Result<Self, ExitCode> {
        let args = Self::try_parse().map_err(|error| {
            if !error.use_stderr() {
                // Help and version; nothing is lost if nobody reads them.
                let _ = error.print();
                return ExitCode::SUCCESS;
            }
            if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
                complain("give a command; --help lists them");
                return ExitCode::from(BAD_ARGUMENTS);
            }
            let text = error.to_string();
            let lines = text.lines().map(str::trim).take_while(|line| !line.is_empty());
            let line = lines.collect::<Vec<_>>().join(" ");
            complain(line.trim_start_matches("error: "));
            ExitCode::from(BAD_ARGUMENTS)
        })?;
        if args.shared().svg.is_some() && !args.command.has_plots() {
            complain("this command has nothing to plot: leave out --svg");
            return Err(ExitCode::from(BAD_ARGUMENTS));
        }
        Ok(args)
    }

    pub(crate) fn shared(&self) -> &Shared {
        match &self.command {
            Command::Explore(ExploreArgs { shared, .. })
            | Command::Lifeguard { shared, .. }
            | Command::Swim { shared, .. }
            | Command::Convergence { shared, .. }
            | Command::Dissemination { shared, .. }
            | Command::Scale { shared, .. } => shared,
        }
    }
}

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let (from, to) = text.split_once("..").ok_or("write A..B, such as 0..1000")?;
    let number = |text: &str| text.parse::<u64>().map_err(|_| format!("{text:?} is no number"));
    let (from, to) = (number(from)?, number(to)?);
    if from >= to {
        return Err("the first seed must be less than the second".to_owned());
    }
    if to - from > 100_000_000 {
        return Err("more than 100,000,000 seeds".to_owned());
    }
    Ok(from..to)
}

fn loss(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(loss) if (0.0..=1.0).contains(&loss) => Ok(loss),
        _ => Err("must be from 0 to 1".to_owned()),
    }
}

fn nodes(text: &str) -> Result<usize, String> {
    match text.parse::<i64>() {
        Ok(nodes @ 1..=MOST_NODES) => Ok(nodes as usize),
        _ => Err(format!("must be from 1 to {MOST_NODES}")),
    }
}
