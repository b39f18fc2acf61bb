//! How long a crowd takes to agree: all nodes of a cluster join one seed at the same moment.
//!
//! Nodes in one process, over loopback sockets, each with the settings of the preset. The time runs
//! from the first join until every node sees every node alive. A run that does not converge within
//! the bound, and a node that is declared dead though it is well, make it fail.
//!
//! ```text
//! cargo run --release --example mass_join -- --nodes 100 --runs 20 --preset lan
//! ```

use std::error::Error;
use std::io::{IsTerminal, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use futures::future::join_all;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use memberlist::net::NetTransport;
use memberlist::{Builder, Config, Delegate, Member, Memberlist, NodeState};
use serde::Serialize;

type Node = Memberlist<NetTransport>;

/// How often it is looked whether all agree.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Measures how long nodes that join one seed at the same moment take to know each other.
#[derive(Parser, Debug)]
struct Flags {
    /// How many nodes, the seed included.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(2..=1000))]
    nodes: u16,
    /// How many runs, each with new nodes.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..))]
    runs: u16,
    /// The timing of the protocol.
    #[arg(long, value_enum, default_value_t = Preset::Lan)]
    preset: Preset,
    /// Seconds after which a run counts as failed.
    #[arg(long, default_value_t = 120)]
    bound_s: u64,
    /// Print one JSON object instead of a report.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Preset {
    /// For nodes on one machine.
    Local,
    /// For one data centre.
    Lan,
    /// For several regions.
    Wan,
}

/// What was measured; times are in seconds.
#[derive(Debug, Serialize)]
struct Summary {
    nodes: u16,
    preset: Preset,
    /// The runs that converged, in order.
    runs_s: Vec<f64>,
    /// Of those runs.
    median_s: Option<f64>,
    max_s: Option<f64>,
    /// Runs that did not converge.
    failed_runs: usize,
    /// How often a node that was well was declared dead.
    false_deaths: usize,
    ok: bool,
}

/// Counts deaths: nobody dies here.
struct Deaths(Arc<AtomicUsize>);

impl Delegate for Deaths {
    fn notify_leave(&self, member: &Member) {
        if member.state == NodeState::Dead {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let flags = Flags::parse();
    let progress = progress(&flags);
    let deaths = Arc::new(AtomicUsize::new(0));
    let (mut times, mut failed_runs) = (Vec::new(), 0);
    for number in 1..=flags.runs {
        match run(&flags, &deaths).await {
            Ok(took) => {
                say(&flags, &progress, &format!("run {number:>3}: {:.3} s", took.as_secs_f64()));
                times.push(took.as_secs_f64());
            }
            Err(error) => {
                say(&flags, &progress, &format!("run {number:>3}: FAILED, {error}"));
                failed_runs += 1;
            }
        }
        progress.inc(1);
    }
    progress.finish_and_clear();
    let summary = summarise(&flags, times, failed_runs, deaths.load(Ordering::Relaxed));
    report(&flags, &summary);
    if summary.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One cluster from its first join until all agree; its nodes are gone when it returns.
async fn run(flags: &Flags, deaths: &Arc<AtomicUsize>) -> Result<Duration, Box<dyn Error>> {
    let mut nodes = Vec::new();
    for i in 0..flags.nodes {
        nodes.push(start(flags.preset, i, deaths).await?);
    }
    let bound = Duration::from_secs(flags.bound_s);
    let outcome = match tokio::time::timeout(bound, converge(&nodes)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(format!("no agreement within {bound:?}").into()),
    };
    join_all(nodes.iter().map(Node::shutdown)).await;
    outcome
}

async fn start(
    preset: Preset,
    number: u16,
    deaths: &Arc<AtomicUsize>,
) -> Result<Node, Box<dyn Error>> {
    let name = format!("node-{number}");
    let config = match preset {
        Preset::Local => Config::local(name),
        Preset::Lan => Config::lan(name),
        Preset::Wan => Config::wan(name),
    };
    let transport = NetTransport::bind_addr(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let delegate = Deaths(Arc::clone(deaths));
    Ok(Builder::new(config).delegate(delegate).start(transport).await?)
}

async fn converge(nodes: &[Node]) -> Result<Duration, Box<dyn Error>> {
    let began = Instant::now();
    let seed = nodes[0].addr().to_string();
    for joined in join_all(nodes[1..].iter().map(|node| node.join([&seed]))).await {
        joined?;
    }
    while !agree(nodes) {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(began.elapsed())
}

/// Whether every node sees every node alive.
fn agree(nodes: &[Node]) -> bool {
    nodes.iter().all(|node| node.member_count() == nodes.len())
        && nodes.iter().all(|node| node.alive_members().len() == nodes.len())
}

fn summarise(flags: &Flags, runs_s: Vec<f64>, failed_runs: usize, false_deaths: usize) -> Summary {
    let mut sorted = runs_s.clone();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let median_s = match sorted.len() % 2 {
        1 => Some(sorted[middle]),
        _ if sorted.is_empty() => None,
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    };
    Summary {
        nodes: flags.nodes,
        preset: flags.preset,
        median_s,
        max_s: sorted.last().copied(),
        runs_s,
        failed_runs,
        false_deaths,
        ok: failed_runs == 0 && false_deaths == 0,
    }
}

fn progress(flags: &Flags) -> ProgressBar {
    let hidden = flags.json || !std::io::stdout().is_terminal();
    let target = if hidden { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stdout() };
    let style = ProgressStyle::with_template("{bar:40} {pos} of {len} runs, {elapsed}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(Some(u64::from(flags.runs)), target).with_style(style)
}

/// A line; on the error output with `--json`, so that standard output holds the object only.
fn say(flags: &Flags, progress: &ProgressBar, line: &str) {
    // An error here means that nobody reads: nobody is left to tell.
    progress.suspend(|| match flags.json {
        true => drop(writeln!(std::io::stderr(), "{line}")),
        false => drop(writeln!(std::io::stdout(), "{line}")),
    });
}

fn report(flags: &Flags, summary: &Summary) {
    let text = match flags.json {
        true => serde_json::to_string(summary).unwrap_or_default(),
        false => {
            let seconds = |time: Option<f64>| time.map_or("-".into(), |s| format!("{s:.3} s"));
            format!(
                "{} nodes joined one seed at once, {} times: median {}, maximum {}; runs that \
                 failed: {}; healthy nodes declared dead: {}",
                summary.nodes,
                flags.runs,
                seconds(summary.median_s),
                seconds(summary.max_s),
                summary.failed_runs,
                summary.false_deaths
            )
        }
    };
    let _ = writeln!(std::io::stdout(), "{text}");
}
