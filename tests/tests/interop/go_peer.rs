//! The Go peer, `tests/go-peer`: built once, started as a node, or asked what it makes of bytes.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::Instant;

use serde_json::{Value, json};

use crate::nodes::any_port;
use crate::process::{BOUND, Process};

/// The program: what `MEMBERLIST_GO_PEER` names, or built now. Go rebuilds only what has changed.
pub(crate) fn program() -> &'static Path {
    static PROGRAM: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let program = PROGRAM.get_or_init(|| match std::env::var_os("MEMBERLIST_GO_PEER") {
        Some(program) => Ok(program.into()),
        None => build(),
    });
    match program {
        Ok(program) => program,
        // These tests are asked for by name: to pass without Go would say what is not so.
        Err(error) => panic!("no Go peer to test with: {error}"),
    }
}

fn build() -> Result<PathBuf, String> {
    // <target>/<profile>/deps/<this test>
    let this = std::env::current_exe().unwrap();
    let program = this.parent().and_then(Path::parent).unwrap().join("go-peer");
    let built = Command::new("go")
        // Which commit it is of matters to nobody, and asking fails where Git mistrusts the folder.
        .args(["build", "-buildvcs=false", "-o"])
        .args([program.as_path(), Path::new(".")])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/go-peer"))
        .output()
        .map_err(|error| format!("`go` could not be run, is Go installed? {error}"))?;
    match built.status.success() {
        true => Ok(program),
        false => {
            let told = String::from_utf8_lossy(&built.stderr).into_owned();
            Err(format!(
                "`go build` in tests/go-peer failed; it needs Go as new as go.mod says, and the \
                 modules of go.sum, from its cache or the network:\n{told}"
            ))
        }
    }
}

/// Starts a Go node on loopback. What the library logs is kept.
pub(crate) fn start(name: &'static str, flags: &[String]) -> Process {
    let mut command = Command::new(program());
    command.args(["--name", name, "--bind", &any_port()]).args(flags).stderr(Stdio::piped());
    Process::spawn(name, command)
}

/// How a Go peer ended.
pub(crate) struct End {
    pub(crate) status: ExitStatus,
    /// What it still said.
    pub(crate) said: Vec<Value>,
    /// What the library logged as wrong. That is how it tells of bytes that it cannot use.
    pub(crate) complaints: Vec<String>,
}

/// Gives the last command, and waits for the end.
pub(crate) fn end(mut peer: Process, command: &str) -> End {
    peer.say(command);
    ended(peer)
}

pub(crate) fn ended(mut peer: Process) -> End {
    let deadline = Instant::now() + BOUND;
    let (log, mut complaints) = (peer.log.take().unwrap(), Vec::new());
    loop {
        match log.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) if line.contains("[ERR]") || line.contains("[WARN]") => complaints.push(line),
            Ok(_) => {}
            Err(RecvTimeoutError::Disconnected) => break,
            Err(error) => panic!("{} does not end ({error})", peer.name),
        }
    }
    let (status, said) = peer.end();
    End { status, said, complaints }
}

/// What the library makes of each of these, given as `packet` or `stream` without label and
/// encryption: its leaves.
pub(crate) fn decode(cases: &[(&str, Vec<u8>)]) -> Vec<Value> {
    let mut child = Command::new(program())
        .arg("--decode")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let leaves = thread::scope(|scope| {
        // It answers while it reads: to write everything first would block both.
        scope.spawn(move || {
            for (id, (kind, bytes)) in cases.iter().enumerate() {
                let line = json!({ "id": id, "kind": kind, "hex": hex(bytes) });
                writeln!(input, "{line}").unwrap();
            }
        });
        let answers = output.lines().enumerate().map(|(id, line)| {
            let mut answer: Value = serde_json::from_str(&line.unwrap()).unwrap();
            assert_eq!(answer["id"], id, "{answer}");
            assert!(answer["leaves"].is_array(), "{answer}");
            answer["leaves"].take()
        });
        answers.collect::<Vec<Value>>()
    });
    assert!(child.wait().unwrap().success());
    assert_eq!(leaves.len(), cases.len(), "it ended early");
    leaves
}

/// Bytes as the Go peer shows them.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
