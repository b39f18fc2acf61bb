//! The program as tests drive it: started, spoken to, and waited for.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// More than anything here takes on a busy machine.
pub(crate) const BOUND: Duration = Duration::from_secs(60);

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

/// A running agent with `--json`. It is killed when dropped.
pub(crate) struct Agent {
    pub(crate) name: &'static str,
    pub(crate) child: Child,
    pub(crate) input: Option<ChildStdin>,
    lines: Receiver<String>,
    /// Lines that nobody has asked for yet.
    pub(crate) pending: Vec<Value>,
    /// Its address.
    pub(crate) addr: String,
}

impl Agent {
    pub(crate) fn start(name: &'static str, more: &[&str]) -> Self {
        let mut child = Command::new(program())
            .args(["--name", name, "--bind", "127.0.0.1:0", "--json"])
            .args(more)
            .env_remove("RUST_LOG")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take(), child.stdout.take().unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines() {
                if sender.send(line.unwrap()).is_err() {
                    return;
                }
            }
        });
        let addr = String::new();
        let mut agent = Self { name, child, input, lines, pending: Vec::new(), addr };
        let ready = agent.event("ready");
        assert_eq!(ready["name"], name);
        agent.addr = ready["addr"].as_str().unwrap().to_owned();
        agent
    }

    pub(crate) fn say(&mut self, line: &str) {
        self.write(format!("{line}\n").as_bytes());
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.input.as_mut().unwrap().write_all(bytes).unwrap();
    }

    /// Takes the first line that fits, now or later; lines before it wait for other questions.
    pub(crate) fn wait(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + BOUND;
        let mut looked_at = 0;
        loop {
            if let Some(found) = self.pending[looked_at..].iter().position(&fits) {
                return self.pending.remove(looked_at + found);
            }
            looked_at = self.pending.len();
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    self.pending.push(serde_json::from_str(&line).unwrap_or_else(|error| {
                        panic!("{}: {line:?} is not JSON: {error}", self.name)
                    }))
                }
                Err(error) => {
                    panic!(
                        "{} did not say {what} ({error}); it said {:#?}",
                        self.name, self.pending
                    )
                }
            }
        }
    }

    pub(crate) fn event(&mut self, event: &str) -> Value {
        self.wait(event, |line| line["event"] == event)
    }

    /// An event about a member.
    pub(crate) fn event_of(&mut self, event: &str, name: &str) -> Value {
        let what = format!("{event} of {name}");
        self.wait(&what, |line| line["event"] == event && line["name"] == name)
    }

    /// Gives a command and takes the first such event after it.
    pub(crate) fn ask(&mut self, command: &str, answer: &str) -> Value {
        let stale = self.pending.iter().filter(|line| line["event"] == answer).count();
        assert_eq!(stale, 0, "{}: {answer} is there before {command:?}", self.name);
        self.say(command);
        self.event(answer)
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

    /// Waits for the end of its output and of itself, and gives what it still said.
    pub(crate) fn end(mut self) -> (ExitStatus, Vec<Value>) {
        let deadline = Instant::now() + BOUND;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => self.pending.push(serde_json::from_str(&line).unwrap()),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(error) => panic!("{} does not end ({error})", self.name),
            }
        }
        (wait_for_end(&mut self.child), std::mem::take(&mut self.pending))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn wait_for_end(child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + BOUND;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(Instant::now() < deadline, "the process does not end");
        thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) fn names(members: &Value) -> Vec<String> {
    let names = members.as_array().unwrap().iter().map(|member| member["name"].as_str());
    names.map(|name| name.unwrap().to_owned()).collect()
}

pub(crate) fn events(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["event"].as_str().unwrap()).collect()
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
    for agent in &mut agents {
        let own = agent.name;
        for other in all.into_iter().filter(|name| *name != own) {
            let join = agent.event_of("join", other);
            assert_eq!(join["state"], "alive", "{join}");
        }
    }
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
