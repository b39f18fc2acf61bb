//! A cluster in one process, from its first second to its last.
//!
//! Real nodes over loopback sockets form a cluster, spread a message and a change of meta, lose a
//! node, find out why, take it back, see one leave, and shut down. Each step waits for what it
//! claims, prints how long that took, and fails the run if it does not hold. At the end no healthy
//! node may ever have been declared dead.
//!
//! With `--encrypt` everything is encrypted, and the key is replaced on all nodes while messages flow
//! between them: none may be lost, and nobody may be suspected meanwhile.
//!
//! With `--wire hashicorp` the bytes are those of HashiCorp's Go memberlist, with `--wire mixed` of both
//! formats; keys are then replaced on each node by itself.
//!
//! With `--transport quic` they speak QUIC, and each shows a certificate that speaks for its name
//! alone, of a CA that is made on the spot; `--encrypt` goes with it as well.
//!
//! ```text
//! cargo run --release --example demo
//! cargo run --release --example demo -- --nodes 100 --preset lan
//! cargo run --release --example demo -- --encrypt --label blue
//! cargo run --release --example demo -- --transport quic
//! ```

#[path = "demo/cluster.rs"]
mod cluster;
#[path = "demo/display.rs"]
mod display;
#[path = "demo/network.rs"]
mod network;
#[path = "demo/rotate.rs"]
mod rotate;
#[path = "demo/steps.rs"]
mod steps;

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use serde::Serialize;

use crate::network::{Net, Quic};

/// Shows a cluster form, talk, lose a node, heal and end.
#[derive(Parser, Debug)]
struct Flags {
    /// How many nodes, at least 3.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(3..=1000))]
    nodes: u16,
    /// The timing of the protocol.
    #[arg(long, value_enum, default_value_t = Preset::Local)]
    preset: Preset,
    /// What the nodes speak over.
    #[arg(long, value_enum, default_value_t = TransportKind::Net)]
    transport: TransportKind,
    /// The format on the wire.
    #[arg(long, value_enum, default_value_t = Wire::Native)]
    wire: Wire,
    /// Encrypt everything by a key of the cluster, and replace the key while messages flow.
    #[arg(long)]
    encrypt: bool,
    /// The name of the cluster.
    #[arg(long, value_name = "TEXT", default_value = "")]
    label: String,
    /// Do not compress.
    #[arg(long)]
    no_compress: bool,
    /// Print one JSON object instead of a report.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, Default, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
enum TransportKind {
    /// UDP and TCP.
    #[default]
    Net,
    /// QUIC, with a certificate for each node.
    Quic,
}

#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
enum Wire {
    /// This library's own.
    #[default]
    Native,
    /// HashiCorp memberlist's.
    Hashicorp,
    /// Both: each peer is spoken to in the one that it speaks.
    Mixed,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Preset {
    /// For nodes on one machine.
    Local,
    /// For one data centre.
    Lan,
    /// For several regions.
    Wan,
}

/// What the demo measured; times are in seconds, and missing if their step was not reached.
#[derive(Debug, Default, Serialize)]
struct Summary {
    nodes: u16,
    transport: TransportKind,
    wire: Wire,
    /// From the first join until every node knows every other.
    converge_s: Option<f64>,
    /// From a broadcast until every other node has it.
    broadcast_s: Option<f64>,
    /// From a change of meta until every node knows it.
    meta_s: Option<f64>,
    /// With `--encrypt`: what came of replacing the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    rotation: Option<rotate::Rotation>,
    /// From the end of a node until the first other suspects it,
    suspect_s: Option<f64>,
    /// the first declares it dead,
    detect_first_s: Option<f64>,
    /// and all know it.
    detect_all_s: Option<f64>,
    /// From its new start under the old name until all know it.
    rejoin_s: Option<f64>,
    /// From a farewell until all know it.
    leave_s: Option<f64>,
    /// How often a node that was well was declared dead.
    false_deaths: usize,
    ok: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let flags = Flags::parse();
    let display = display::Display::new(flags.json);
    let Flags { nodes, transport, wire, .. } = flags;
    let mut summary = Summary { nodes, transport, wire, ..Summary::default() };
    let outcome = match flags.transport {
        TransportKind::Net => steps::run::<Net>(&flags, &display, &mut summary).await,
        TransportKind::Quic => steps::run::<Quic>(&flags, &display, &mut summary).await,
    };
    summary.ok = outcome.is_ok() && summary.false_deaths == 0;
    if let Err(error) = outcome {
        display.failed(&error.to_string());
    }
    display.finish(&summary);
    if summary.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
