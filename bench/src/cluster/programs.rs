//! The programs of the libraries, built where they have to be.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command as Process;

use clap::ValueEnum;
use serde::Serialize;

use super::worker::Program;

/// The argument by which this program becomes one of those that are compared.
pub const FLEET: &str = "fleet";

/// A library, over one of its transports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Library {
    /// This one over UDP and TCP.
    Net,
    /// This one over QUIC.
    Quic,
    /// HashiCorp's memberlist, in Go.
    Go,
    /// The crate `memberlist` 0.8.
    Al8n,
    /// The crate `kinship`.
    Kinship,
    /// Pings and answers without any library: the floor under the figures of idle nodes.
    Bare,
}

impl Library {
    /// Whether it is compared with this one.
    pub fn is_peer(self) -> bool {
        matches!(self, Self::Go | Self::Al8n | Self::Kinship)
    }
}

impl fmt::Display for Library {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Self::Net => "net",
            Self::Quic => "quic",
            Self::Go => "go",
            Self::Al8n => "al8n",
            Self::Kinship => "kinship",
            Self::Bare => "bare",
        })
    }
}

/// Where the programs are, or are made.
#[derive(Debug)]
pub struct Programs {
    /// Of the workspace.
    root: PathBuf,
    /// For what is built.
    target: PathBuf,
}

impl Programs {
    /// In the workspace that this program was built in.
    pub fn of_this_workspace() -> Self {
        let bench = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = bench.parent().unwrap_or(bench).to_owned();
        let target =
            std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
        // The builds run in other folders.
        let target = std::path::absolute(&target).unwrap_or(target);
        Self { target: target.join("bench-peers"), root }
    }

    /// Builds the program of a library.
    ///
    /// # Errors
    /// Why it cannot be had: its toolchain is missing, or its parts could not be fetched.
    pub fn build(&self, library: Library) -> Result<Program, String> {
        match library {
            Library::Net | Library::Quic | Library::Bare => {
                let path = std::env::current_exe().map_err(|error| error.to_string())?;
                Ok(Program { path, args: vec![FLEET.into(), library.to_string()] })
            }
            Library::Go => self.go(),
            Library::Al8n | Library::Kinship => self.peer(library),
        }
    }

    fn go(&self) -> Result<Program, String> {
        let path = self.target.join("go-peer");
        let mut build = Process::new("go");
        build
            .args(["build", "-o"])
            .arg(&path)
            .arg(".")
            .current_dir(self.root.join("tests/go-peer"));
        run(build)?;
        Ok(Program { path, args: vec!["--fleet".into()] })
    }

    fn peer(&self, library: Library) -> Result<Program, String> {
        let mut build = Process::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        build.args(["build", "--release", "--locked", "--bin", &library.to_string()]);
        build.arg("--manifest-path").arg(self.root.join("bench/peers/Cargo.toml"));
        build.arg("--target-dir").arg(&self.target);
        run(build)?;
        let path = self.target.join("release").join(library.to_string());
        Ok(Program { path, args: vec![FLEET.into()] })
    }
}

/// Runs a build with its output shown.
fn run(mut build: Process) -> Result<(), String> {
    let name = build.get_program().to_string_lossy().into_owned();
    match build.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{name} could not build it ({status})")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(format!("there is no {name} here"))
        }
        Err(error) => Err(format!("{name}: {error}")),
    }
}
