//! A program that is driven by lines and answers in lines of JSON: spoken to, and waited for.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// More than anything here takes on a busy machine.
pub(crate) const BOUND: Duration = Duration::from_secs(60);

/// A node that runs as a program of its own. It is killed when dropped.
pub(crate) struct Process {
    pub(crate) name: &'static str,
    pub(crate) child: Child,
    pub(crate) input: Option<ChildStdin>,
    lines: Receiver<String>,
    /// What it writes to standard error, if the command wants that piped.
    pub(crate) log: Option<Receiver<String>>,
    /// Lines that nobody has asked for yet.
    pub(crate) pending: Vec<Value>,
    /// Its address.
    pub(crate) addr: String,
}

impl Process {
    /// Starts the program, and waits until it says that it is ready. What it writes to standard
    /// error is shown, unless the command wants it piped.
    pub(crate) fn spawn(name: &'static str, command: Command) -> Self {
        Self::spawn_with(name, command).0
    }

    /// The same, with what it said then.
    pub(crate) fn spawn_with(name: &'static str, mut command: Command) -> (Self, Value) {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take(), child.stdout.take().unwrap());
        let lines = lines_of(output);
        let log = child.stderr.take().map(lines_of);
        let (pending, addr) = (Vec::new(), String::new());
        let mut process = Self { name, child, input, lines, log, pending, addr };
        let ready = process.event("ready");
        assert_eq!(ready["name"], name);
        process.addr = ready["addr"].as_str().unwrap().to_owned();
        (process, ready)
    }

    pub(crate) fn say(&mut self, line: &str) {
        self.write(format!("{line}\n").as_bytes());
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.input.as_mut().unwrap().write_all(bytes).unwrap();
    }

    /// Takes the first line that fits, now or later; lines before it wait for other questions.
    pub(crate) fn wait(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        self.wait_until(Instant::now() + BOUND, fits).unwrap_or_else(|error| {
            let (name, pending) = (self.name, &self.pending);
            let log: Vec<String> = self.log.iter().flat_map(Receiver::try_iter).collect();
            panic!("{name} did not say {what} ({error}); it said {pending:#?}\n{log:#?}")
        })
    }

    /// The same, if such a line comes in time.
    pub(crate) fn wait_until(
        &mut self,
        deadline: Instant,
        fits: impl Fn(&Value) -> bool,
    ) -> Result<Value, RecvTimeoutError> {
        let mut looked_at = 0;
        loop {
            if let Some(found) = self.pending[looked_at..].iter().position(&fits) {
                return Ok(self.pending.remove(looked_at + found));
            }
            looked_at = self.pending.len();
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left)?;
            self.pending
                .push(serde_json::from_str(&line).unwrap_or_else(|error| {
                    panic!("{}: {line:?} is not JSON: {error}", self.name)
                }));
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

/// What is written there, line by line. The channel ends with it.
fn lines_of(output: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    thread::spawn(move || {
        // Logs may have names in them that are not UTF-8.
        for line in BufReader::new(output).split(b'\n') {
            if sender.send(String::from_utf8_lossy(&line.unwrap()).into_owned()).is_err() {
                return;
            }
        }
    });
    lines
}

impl Drop for Process {
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

/// Waits until each has told of all the others.
pub(crate) fn know_each_other(all: &mut [Process]) {
    let names: Vec<&str> = all.iter().map(|process| process.name).collect();
    for process in all {
        let own = process.name;
        for other in names.iter().filter(|name| **name != own) {
            let join = process.event_of("join", other);
            assert_eq!(join["state"], "alive", "{join}");
        }
    }
}
