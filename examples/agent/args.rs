//! The command line.

use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use memberlist::address::JoinAddress;
use memberlist::net::NetConfig;
use memberlist::{Config, NodeId};

use crate::command::HELP;
use crate::report::clean;

/// The exit status for flags that cannot be used; clap's own.
const BAD_FLAGS: u8 = 2;

/// One long-lived member of a cluster, for a terminal or a script.
#[derive(Parser, Debug)]
#[command(name = "agent", version, after_help = after_help())]
pub(crate) struct Args {
    /// The name of this node: unique in the cluster, one word of 1 to 255 bytes
    #[arg(long)]
    name: String,

    /// Where to listen, by UDP and TCP; port 0 finds a free one
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) bind: SocketAddr,

    /// Where others reach this node, if that is not where it listens; port 0 stands for the bound one
    #[arg(long, value_name = "ADDR:PORT")]
    advertise: Option<SocketAddr>,

    /// A running member to join, as [name/]host[:port]; may be given several times
    #[arg(long, value_name = "ADDR")]
    pub(crate) join: Vec<String>,

    /// The timing: for one data centre, for several regions, or for one machine
    #[arg(long, value_enum, default_value_t = Preset::Lan)]
    preset: Preset,

    /// A text that every member gets to know
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) meta: String,

    /// Write one JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, ValueEnum, Debug)]
enum Preset {
    Lan,
    Wan,
    Local,
}

/// Why there are no arguments.
pub(crate) enum Refusal {
    /// They cannot be used; in one line.
    Bad(String),
    /// Help or the version was asked for.
    Asked(clap::Error),
}

impl Args {
    /// Reads and checks the command line. Nothing is opened or resolved yet.
    pub(crate) fn read() -> Result<Self, Refusal> {
        let args = Self::try_parse().map_err(|error| match error.use_stderr() {
            true => Refusal::Bad(first_paragraph(&error.to_string())),
            false => Refusal::Asked(error),
        })?;
        match args.check() {
            Ok(()) => Ok(args),
            Err(text) => Err(Refusal::Bad(format!("error: {text}"))),
        }
    }

    fn check(&self) -> Result<(), String> {
        let name = &self.name;
        NodeId::new(name).map_err(|error| format!("--name: {error}"))?;
        // Commands name members by one word.
        if name.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(format!(
                "--name {name:?}: a name is one word, without spaces or control characters"
            ));
        }
        let config = self.config();
        let (len, limit) = (self.meta.len(), config.protocol.max_meta_bytes);
        if len > limit {
            return Err(format!("--meta: {len} bytes are over the limit of {limit}"));
        }
        for seed in &self.join {
            JoinAddress::parse(seed, config.default_port)
                .map_err(|error| format!("--join: {error}"))?;
        }
        match self.advertise {
            Some(addr) if addr.ip().is_unspecified() || addr.ip().is_multicast() => {
                Err(format!("--advertise {addr}: this names no single node"))
            }
            _ => Ok(()),
        }
    }

    /// The settings of the node.
    pub(crate) fn config(&self) -> Config {
        let preset = match self.preset {
            Preset::Lan => Config::lan,
            Preset::Wan => Config::wan,
            Preset::Local => Config::local,
        };
        preset(self.name.as_str()).with_meta(self.meta.clone())
    }

    /// The settings of its transport.
    pub(crate) fn net_config(&self) -> NetConfig {
        let mut config = NetConfig::new(self.bind);
        config.advertise_addr = self.advertise;
        config
    }
}

impl Refusal {
    /// Tells it where it belongs, and gives the exit status.
    pub(crate) fn tell(self) -> ExitCode {
        // There is nobody to tell if telling fails.
        match self {
            Self::Bad(line) => {
                let _ = writeln!(std::io::stderr(), "{line}");
                ExitCode::from(BAD_FLAGS)
            }
            Self::Asked(error) => {
                let _ = error.print();
                ExitCode::SUCCESS
            }
        }
    }
}

/// What is wrong, without tips and usage, as one line.
fn first_paragraph(text: &str) -> String {
    let paragraph = text.split("\n\n").next().unwrap_or(text);
    let words: Vec<&str> = paragraph.split_whitespace().collect();
    format!("{}; try --help", clean(&words.join(" ")))
}

fn after_help() -> String {
    let mut help = String::from("Commands on standard input, one a line:\n");
    for (command, what) in HELP {
        help.push_str(&format!("  {command:<16} {what}\n"));
    }
    help
}
