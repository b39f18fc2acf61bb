//! The program as tests drive it: built and started. `process.rs` speaks to it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

use crate::process::{know_each_other, names};

/// A key in base64, and one that is cut off.
pub(crate) const KEY: &str = "q1w2e3r4t5z6u7i8o9p0a1s2d3f4g5h6j7k8l9y0x1c=";
pub(crate) const CUT_KEY: &str = "q1w2e3r4t5z6u7i8o9p0a1s2d3f4g5h6j7k8l9y0x1c";

/// The program: what `MEMBERLIST_AGENT` names, or built now if that is still to be done. Cargo knows
/// of no way to depend on an example of another package.
pub(crate) fn program() -> &'static Path {
    static PROGRAM: OnceLock<Result<PathBuf, &'static str>> = OnceLock::new();
    let program = PROGRAM.get_or_init(|| match std::env::var_os("MEMBERLIST_AGENT") {
        Some(program) => Ok(program.into()),
        None => build(),
    });
    program.as_ref().unwrap()
}

fn build() -> Result<PathBuf, &'static str> {
    // <target>/<profile>/deps/<this test>
    let this = std::env::current_exe().unwrap();
    let directory = this.parent().and_then(Path::parent).unwrap();
    let profile = match directory.file_name().and_then(|name| name.to_str()).unwrap() {
        "debug" => "dev",
        profile => profile,
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // Cargo describes this test's package here. Build scripts (ring's) that look at these would run
    // again, and everything above them be built again, at each run.
    let described =
        |name: &str| ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|p| name.starts_with(p));
    let mut command = Command::new(cargo);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(described) {
            command.env_remove(name);
        }
    }
    let built = command
        .args(["build", "--quiet", "--workspace", "--example", "agent"])
        .args(["--profile", profile, "--message-format", "json-render-diagnostics"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .stderr(Stdio::inherit())
        .output()
        .map_err(|_| "cargo could not be run")?;
    if !built.status.success() {
        return Err("the agent could not be built");
    }
    String::from_utf8_lossy(&built.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == "agent")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .ok_or("cargo did not tell where the agent is")
}

pub(crate) fn run_to_end(args: &[&str]) -> Output {
    Command::new(program()).args(args).stdin(Stdio::null()).output().unwrap()
}

/// A running agent with `--json`.
pub(crate) use crate::process::Process as Agent;

impl Agent {
    pub(crate) fn start(name: &'static str, more: &[&str]) -> Self {
        let mut command = Command::new(program());
        command.args(["--name", name, "--bind", "127.0.0.1:0", "--json"]).args(more);
        command.env_remove("RUST_LOG");
        Self::spawn(name, command)
    }

    /// The names of the live members.
    pub(crate) fn members(&mut self) -> Vec<String> {
        names(&self.ask("members", "members")["members"])
    }

    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let kill = Command::new("sh").args(["-c", "kill -\"$0\" \"$1\"", signal, &pid]).status();
        assert!(kill.unwrap().success());
    }
}

/// Agents that know each other; all but the first joined it.
pub(crate) fn cluster<const N: usize>(all: [&'static str; N], more: &[&str]) -> [Agent; N] {
    cluster_with(all, |_| more.iter().map(|flag| (*flag).to_owned()).collect())
}

/// As `cluster`, with flags of each one's own.
pub(crate) fn cluster_with<const N: usize>(
    all: [&'static str; N],
    flags: impl Fn(&str) -> Vec<String>,
) -> [Agent; N] {
    let mut seed: Option<String> = None;
    let mut agents = all.map(|name| {
        let flags = flags(name);
        let mut args: Vec<&str> = flags.iter().map(String::as_str).collect();
        if let Some(seed) = &seed {
            args.extend(["--join", seed]);
        }
        let mut agent = Agent::start(name, &args);
        if seed.is_some() {
            let joined = agent.event("joined");
            assert_eq!(joined["seeds"].as_array().unwrap().len(), 1, "{joined}");
        }
        seed.get_or_insert(agent.addr.clone());
        agent
    });
    know_each_other(&mut agents);
    agents
}

/// A folder of this test's own, which is removed when it is dropped.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("agent-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Nothing depends on it.
        let _ = fs::remove_dir_all(&self.0);
    }
}
