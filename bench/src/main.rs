//! Puts membership libraries side by side: one scenario, one machine, one run.
//!
//! ```text
//! cargo run --release -p memberlist-bench -- cluster --nodes 50,200 --runs 3
//! cargo run --release -p memberlist-bench -- cluster --nodes 50 --runs 50 --parts none
//! ```

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use memberlist::net::NetTransport;
use memberlist::quic::QuicTransport;
use memberlist_bench::bare::Bare;
use memberlist_bench::cluster::programs::Library;
use memberlist_bench::cluster::report::Report;
use memberlist_bench::cluster::scenario::{Part, Scenario};
use memberlist_bench::cluster::{Plan, plot};
use memberlist_bench::ours::Ours;
use memberlist_bench_fleet::serve;

/// Side-by-side benchmarks of membership libraries.
#[derive(Parser, Debug)]
struct Flags {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Clusters of each library through one scenario, and a table of what they took.
    Cluster(ClusterFlags),
    /// A packet of gossip made and sealed, opened and read, beside the crate `memberlist`'s.
    Packets {
        /// The two take turns so often.
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
        rounds: u16,
    },
    /// Nodes of this library, driven by standard input; `cluster` starts it.
    #[command(hide = true)]
    Fleet {
        /// Over which transport.
        library: Library,
    },
}

#[derive(Args, Debug)]
struct ClusterFlags {
    /// Which libraries, with commas between them.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "net,quic,go,al8n,kinship")]
    only: Vec<Library>,
    /// Cluster sizes, with commas between them: 2 to 4000.
    #[arg(long, value_delimiter = ',', default_value = "50,100,200,500,1000", value_parser = parse_nodes)]
    nodes: Vec<usize>,
    /// Runs of each library at each size.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    runs: u64,
    /// Whether nodes encrypt: with AES-128-GCM, kinship with XChaCha20-Poly1305.
    #[arg(long, value_enum, default_value_t = Secured::Plain)]
    secured: Secured,
    /// What is done after the mass join, with commas in between.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "idle,broadcast,kill,leave,restart"
    )]
    parts: Vec<PartFlag>,
    /// Seconds that idle nodes are measured.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    idle_s: u64,
    /// Seconds between the mass join and that.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(..=86_400))]
    settle_s: u64,
    /// Seconds after which a part counts as not done.
    #[arg(long, default_value_t = 180, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    limit_s: u64,
    /// Joins under way at once.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    in_flight: u16,
    /// Length of the broadcast.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u16).range(1..=1024))]
    broadcast_bytes: u16,
    /// Of the first run: it picks who is killed and who leaves. Each further run has the next.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write every figure of every run here.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Draw the medians here, as SVG.
    #[arg(long)]
    plot: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Secured {
    Plain,
    Encrypted,
    Both,
}

impl Secured {
    fn encrypted(self) -> Vec<bool> {
        match self {
            Self::Plain => vec![false],
            Self::Encrypted => vec![true],
            Self::Both => vec![false, true],
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum PartFlag {
    /// Nothing.
    None,
    /// What an idle node costs.
    Idle,
    /// A broadcast to all.
    Broadcast,
    /// One in a hundred, and at least one, ends without a farewell.
    Kill,
    /// One in ten leaves.
    Leave,
    /// All that are gone come back.
    Restart,
}

impl PartFlag {
    fn part(self) -> Option<Part> {
        match self {
            Self::None => None,
            Self::Idle => Some(Part::Idle),
            Self::Broadcast => Some(Part::Broadcast),
            Self::Kill => Some(Part::Kill),
            Self::Leave => Some(Part::Leave),
            Self::Restart => Some(Part::Restart),
        }
    }
}

fn parse_nodes(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(nodes @ 2..=4000) => Ok(nodes),
        _ => Err("between 2 and 4000 nodes".into()),
    }
}

fn main() -> ExitCode {
    match Flags::parse().command {
        Command::Cluster(flags) => ended(cluster(&flags)),
        Command::Packets { rounds } => ended(packets(rounds)),
        Command::Fleet { library: Library::Quic } => serve(Ours::<QuicTransport>::default()),
        Command::Fleet { library: Library::Bare } => serve(Bare::default()),
        Command::Fleet { .. } => serve(Ours::<NetTransport>::default()),
    }
}

fn ended(outcome: Result<(), String>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody may read this either.
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn packets(rounds: u16) -> Result<(), String> {
    let table = memberlist_bench::packets::compare(rounds)?;
    write!(std::io::stdout(), "{table}").map_err(|error| error.to_string())
}

fn cluster(flags: &ClusterFlags) -> Result<(), String> {
    if flags.parts.len() > 1 && flags.parts.contains(&PartFlag::None) {
        return Err("--parts: none beside others".into());
    }
    let parts = sorted(flags.parts.iter().filter_map(|part| part.part()));
    if parts.contains(&Part::Restart) && !parts.iter().any(|part| part.ends_nodes()) {
        return Err("--parts: restart needs kill or leave before it".into());
    }
    let plan = Plan {
        libraries: sorted(flags.only.iter().copied()),
        nodes: sorted(flags.nodes.iter().copied()),
        encrypted: flags.secured.encrypted(),
        runs: flags.runs,
        seed: flags.seed,
        scenario: Scenario {
            parts,
            in_flight: flags.in_flight.into(),
            limit_s: flags.limit_s,
            settle_s: flags.settle_s,
            idle_s: flags.idle_s,
            broadcast_bytes: flags.broadcast_bytes.into(),
        },
    };
    let outputs = Outputs { json: flags.json.clone(), plot: flags.plot.clone() };
    outputs.check()?;
    let report = plan.carry_out(|report| outputs.save(report))?;
    let saved = outputs.save(&report);
    // The tables are shown though nothing could be saved, and it is saved though nobody reads them.
    write!(std::io::stdout(), "{}", report.tables()).map_err(|error| error.to_string())?;
    saved
}

/// Each once, in order.
fn sorted<T: Ord>(all: impl Iterator<Item = T>) -> Vec<T> {
    all.collect::<std::collections::BTreeSet<_>>().into_iter().collect()
}

/// Where a report goes beside standard output.
struct Outputs {
    json: Option<PathBuf>,
    plot: Option<PathBuf>,
}

impl Outputs {
    /// Whether it can be written: told before hours of work. What is there already stays until there is
    /// something to put in its place.
    fn check(&self) -> Result<(), String> {
        if self.json.is_some() && self.json == self.plot {
            return Err("--json and --plot: the same file".into());
        }
        for path in self.json.iter().chain(&self.plot) {
            let opened = std::fs::OpenOptions::new().append(true).create(true).open(path);
            opened.map_err(|error| format!("{}: {error}", path.display()))?;
        }
        Ok(())
    }

    /// Writes all that has been found so far.
    fn save(&self, report: &Report) -> Result<(), String> {
        let write = |path: &PathBuf, text: String| {
            std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
        };
        let json = self.json.as_ref().map_or(Ok(()), |path| {
            let json = serde_json::to_string_pretty(report).map_err(|error| error.to_string())?;
            write(path, json)
        });
        let plot = self.plot.as_ref().map_or(Ok(()), |path| write(path, plot::draw(report)?));
        json.and(plot)
    }
}
