//! The agent, `examples/agent.rs`: the real program, driven as a script would drive it.
//!
//! Nothing here waits for a time to pass, except for lines that must not come; everything else waits
//! for a line, with a bound that only a broken agent reaches.
#![cfg(unix)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// More than anything here takes on a busy machine.
const BOUND: Duration = Duration::from_secs(60);

/// The program: what `MEMBERLIST_AGENT` names, or built now if that is still to be done. Cargo knows
/// of no way to depend on an example of another package.
fn program() -> &'static Path {
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
    let built = Command::new(cargo)
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

fn run_to_end(args: &[&str]) -> Output {
    Command::new(program()).args(args).stdin(Stdio::null()).output().unwrap()
}

/// A running agent with `--json`. It is killed when dropped.
struct Agent {
    name: &'static str,
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    /// Lines that nobody has asked for yet.
    pending: Vec<Value>,
    /// Its address.
    addr: String,
}

impl Agent {
    fn start(name: &'static str, more: &[&str]) -> Self {
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

    fn say(&mut self, line: &str) {
        self.write(format!("{line}\n").as_bytes());
    }

    fn write(&mut self, bytes: &[u8]) {
        self.input.as_mut().unwrap().write_all(bytes).unwrap();
    }

    /// Takes the first line that fits, now or later; lines before it wait for other questions.
    fn wait(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
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

    fn event(&mut self, event: &str) -> Value {
        self.wait(event, |line| line["event"] == event)
    }

    /// An event about a member.
    fn event_of(&mut self, event: &str, name: &str) -> Value {
        let what = format!("{event} of {name}");
        self.wait(&what, |line| line["event"] == event && line["name"] == name)
    }

    /// Gives a command and takes the first such event after it.
    fn ask(&mut self, command: &str, answer: &str) -> Value {
        let stale = self.pending.iter().filter(|line| line["event"] == answer).count();
        assert_eq!(stale, 0, "{}: {answer} is there before {command:?}", self.name);
        self.say(command);
        self.event(answer)
    }

    /// The names of the live members.
    fn members(&mut self) -> Vec<String> {
        names(&self.ask("members", "members")["members"])
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let kill = Command::new("sh").args(["-c", "kill -\"$0\" \"$1\"", signal, &pid]).status();
        assert!(kill.unwrap().success());
    }

    /// Waits for the end of its output and of itself, and gives what it still said.
    fn end(mut self) -> (ExitStatus, Vec<Value>) {
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

fn wait_for_end(child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + BOUND;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(Instant::now() < deadline, "the process does not end");
        thread::sleep(Duration::from_millis(10));
    }
}

fn names(members: &Value) -> Vec<String> {
    let names = members.as_array().unwrap().iter().map(|member| member["name"].as_str());
    names.map(|name| name.unwrap().to_owned()).collect()
}

fn events(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["event"].as_str().unwrap()).collect()
}

/// Agents that know each other; all but the first joined it.
fn cluster<const N: usize>(all: [&'static str; N], more: &[&str]) -> [Agent; N] {
    let mut seed: Option<String> = None;
    let mut agents = all.map(|name| {
        let mut args = more.to_vec();
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

#[test]
fn three_agents_find_each_other_and_talk() {
    let [mut a, mut b, mut c] =
        cluster(["a", "b", "c"], &["--preset", "local", "--meta", "zone=1"]);
    for agent in [&mut a, &mut b, &mut c] {
        let answer = agent.ask("members", "members");
        assert_eq!(names(&answer["members"]), ["a", "b", "c"]);
        assert_eq!(names(&answer["gone"]), [""; 0]);
        let last = &answer["members"][2];
        assert_eq!((&last["meta"], &last["state"]), (&"zone=1".into(), &"alive".into()));
    }

    assert_eq!(a.ask("broadcast hello,  you ", "broadcast")["bytes"], 12);
    for agent in [&mut b, &mut c] {
        let message = agent.event("message");
        assert_eq!(message["text"], "hello,  you ", "{message}");
        assert_eq!((&message["name"], &message["reliable"]), (&"a".into(), &false.into()));
    }

    assert_eq!(b.ask("send c käse \u{1}", "sent")["name"], "c");
    let message = c.wait("the reliable message", |line| line["reliable"] == true);
    assert_eq!((&message["text"], &message["bytes"]), (&"käse \u{1}".into(), &7.into()));

    let pong = c.ask("ping a", "pong");
    assert_eq!((&pong["name"], &pong["addr"]), (&"a".into(), &a.addr.as_str().into()));
    assert!(pong["rtt_ms"].as_f64().unwrap() > 0.0, "{pong}");

    a.ask("meta zone=2", "meta");
    for agent in [&mut a, &mut b, &mut c] {
        let update = agent.event_of("update", "a");
        assert_eq!(update["meta"], "zone=2", "{update}");
    }
    assert_eq!(a.ask("meta", "meta")["meta"], "");
    assert_eq!(b.event_of("update", "a")["meta"], "");

    let health = a.ask("health", "health");
    assert_eq!(health["members"], 3, "{health}");
    assert!(health["counts"]["packets_sent"].as_u64().unwrap() > 0, "{health}");

    let help = a.ask("help", "help");
    assert!(help["commands"]["quit"].is_string(), "{help}");
}

#[test]
fn a_killed_agent_is_found_dead_and_the_reason_is_told() {
    let [mut a, mut b, mut c] = cluster(["a", "b", "c"], &["--preset", "local"]);
    c.child.kill().unwrap();
    for agent in [&mut a, &mut b] {
        agent.event_of("suspect", "c");
        let dead = agent.event_of("dead", "c");
        assert_eq!(dead["state"], "dead", "{dead}");
        let reason = dead["reason"].as_str().unwrap();
        assert!(reason.starts_with("declared dead by"), "{reason}");
        let answer = agent.ask("members", "members");
        assert_eq!(names(&answer["members"]), ["a", "b"]);
        assert_eq!(names(&answer["gone"]), ["c"]);
    }
}

#[test]
fn signals_and_quit_say_farewell() {
    let [mut a, b, c, d] = cluster(["a", "b", "c", "d"], &["--preset", "local"]);
    // One after another: a farewell goes to two members, who must be there to pass it on.
    for (mut agent, signal) in [(b, Some("SIGTERM")), (c, Some("SIGINT")), (d, None)] {
        match signal {
            Some(signal) => agent.signal(signal.trim_start_matches("SIG")),
            None => agent.say("quit"),
        }
        let leave = a.event_of("leave", agent.name);
        assert_eq!(leave["state"], "left", "{leave}");
        let (status, said) = agent.end();
        assert_eq!(status.code(), Some(0));
        let leaving = said.iter().find(|line| line["event"] == "leaving");
        assert_eq!(leaving.map(|line| line["signal"].as_str()), signal.map(Some));
        assert_eq!(events(&said).last(), Some(&"stopped"), "{said:#?}");
    }
    assert_eq!(a.members(), ["a"]);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    // In a wide area a farewell takes about two seconds.
    let [_a, mut b] = cluster(["a", "b"], &["--preset", "wan"]);
    b.signal("TERM");
    b.event("leaving");
    b.signal("TERM");
    let (status, said) = b.end();
    assert_eq!(status.code(), Some(1));
    assert!(!events(&said).contains(&"stopped"), "{said:#?}");
}

#[test]
fn a_signal_ends_it_in_the_middle_of_a_command() {
    let mut a = Agent::start("a", &["--preset", "wan"]);
    // A peer that takes the connection and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    a.say(&format!("join {}", silent.local_addr().unwrap()));
    let _stream = silent.accept().unwrap();
    a.signal("TERM");
    let (status, said) = a.end();
    assert_eq!((status.code(), events(&said).last()), (Some(0), Some(&"stopped")));
}

#[test]
fn who_left_may_join_again() {
    let [mut a, mut b] = cluster(["a", "b"], &["--preset", "local"]);
    for round in 0..2 {
        assert_eq!(b.ask("leave", "left")["name"], "b");
        a.event_of("leave", "b");
        assert_eq!(a.members(), ["a"]);
        b.event_of("leave", "b");
        b.ask("leave", "left");
        let error = b.ask("broadcast to nobody", "error");
        assert_eq!(error["command"], "broadcast", "{error}");

        let (addr, meta) = (a.addr.clone(), format!("round {round}"));
        b.ask(&format!("meta {meta}"), "meta");
        let joined = b.ask(&format!("join {addr}"), "joined");
        assert_eq!(joined["members"], 2, "{joined}");
        let join = a.event_of("join", "b");
        assert_eq!(join["meta"], meta.as_str(), "{join}");
        b.event_of("join", "b");
        assert_eq!(b.members(), ["a", "b"]);
        b.ask("send a back", "sent");
        a.wait("the message", |line| line["text"] == "back");
    }
}

#[test]
fn flags_that_cannot_be_used_are_refused_with_one_line() {
    let long = "n".repeat(256);
    let meta = "m".repeat(513);
    let name = ["--name", "a"];
    let bind = ["--bind", "127.0.0.1:0"];
    let cases: [(&[&[&str]], &str); 14] = [
        (&[], "--name"),
        (&[&name], "--bind"),
        (&[&bind], "--name"),
        (&[&bind, &["--name", ""]], "empty"),
        (&[&bind, &["--name", "a b"]], "one word"),
        (&[&bind, &["--name", "a\nb"]], "one word"),
        (&[&bind, &["--name", &long]], "255"),
        (&[&name, &["--bind", "127.0.0.1"]], "--bind"),
        (&[&name, &["--bind", "127.0.0.1:70000"]], "--bind"),
        (&[&name, &bind, &["--advertise", "0.0.0.0:1"]], "--advertise"),
        (&[&name, &bind, &["--join", "127.0.0.1:x"]], "not a port"),
        (&[&name, &bind, &["--preset", "moon"]], "lan, wan, local"),
        (&[&name, &bind, &["--meta", &meta]], "513"),
        (&[&name, &bind, &["--frobnicate"]], "--frobnicate"),
    ];
    for (flags, expected) in cases {
        let output = run_to_end(&flags.concat());
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert_eq!(told.lines().count(), 1, "{told}");
        assert!(told.starts_with("error: ") && told.contains(expected), "{expected}: {told}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn an_address_that_is_taken_is_told_in_one_line() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let output = run_to_end(&["--name", "a", "--bind", &addr]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
    assert!(told.contains(&addr), "{told}");
}

#[test]
fn help_and_version_are_no_errors() {
    for (flag, expected) in [("--help", "broadcast TEXT"), ("--version", env!("CARGO_PKG_VERSION"))]
    {
        let output = run_to_end(&[flag]);
        assert_eq!(output.status.code(), Some(0));
        assert!(String::from_utf8(output.stdout).unwrap().contains(expected));
        assert!(output.stderr.is_empty());
    }
}

#[test]
fn bad_commands_have_one_error_each_and_change_nothing() {
    let [mut a, mut b] = cluster(["a", "b"], &["--preset", "local", "--meta", "as it was"]);
    let meta = format!("meta {}", "m".repeat(513));
    let broadcast = format!("broadcast {}", "b".repeat(2000));
    let cases = [
        ("frobnicate", None, "frobnicate"),
        ("MEMBERS", None, "MEMBERS"),
        ("members all", Some("members"), "too much"),
        ("leave now", Some("leave"), "too much"),
        ("quit b", Some("quit"), "too much"),
        ("broadcast", Some("broadcast"), "TEXT"),
        ("broadcast   ", Some("broadcast"), "TEXT"),
        (&broadcast, Some("broadcast"), "2000 bytes"),
        ("send", Some("send"), "NAME"),
        ("send b", Some("send"), "TEXT"),
        ("send nobody hello", Some("send"), "nobody"),
        ("ping", Some("ping"), "NAME"),
        ("ping b b", Some("ping"), "too much"),
        ("ping nobody", Some("ping"), "nobody"),
        (&meta, Some("meta"), "513 bytes"),
        ("join", Some("join"), "ADDR"),
    ];
    for (line, command, expected) in cases {
        let error = a.ask(line, "error");
        assert_eq!(error["command"].as_str(), command, "{error}");
        assert!(error["error"].as_str().unwrap().contains(expected), "{line:?}: {error}");
    }
    a.write(b"\xff\xfe\n");
    assert!(a.event("error")["error"].as_str().unwrap().contains("UTF-8"));

    // Over the limit by one byte, over it by far, and just within it.
    for (len, told) in [(64 * 1024 + 1, "skipped"), (5 << 20, "skipped"), (64 * 1024, "unknown")] {
        a.say(&"x".repeat(len));
        let error = a.event("error");
        assert!(error["error"].as_str().unwrap().contains(told), "{len}: {error}");
    }

    // Blank lines are nothing, and spaces around a command neither.
    a.write(b"\n   \r\n\t members \r\n");
    let answer = a.event("members");
    assert_eq!(names(&answer["members"]), ["a", "b"]);
    assert_eq!(answer["members"][0]["meta"], "as it was");

    // The other one heard nothing of all this.
    a.ask("send b done", "sent");
    let message = b.event("message");
    // The only other member at its address.
    assert_eq!((&message["text"], &message["name"]), (&"done".into(), &"a".into()));
    for agent in [&a, &b] {
        // A slow machine may be suspected for a while.
        let mut others = events(&agent.pending);
        others.retain(|event| !["suspect", "alive", "refuted", "awareness"].contains(event));
        assert_eq!(others, [""; 0], "{:#?}", agent.pending);
    }
}

#[test]
fn a_join_that_reaches_nobody_is_told_and_the_agent_goes_on() {
    // An address that was free a moment ago, and one that is no address.
    let free =
        std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut a = Agent::start("a", &["--preset", "local", "--join", &free]);
    let error = a.event("error");
    assert_eq!(error["command"], "--join", "{error}");
    assert!(error["error"].as_str().unwrap().contains(&free), "{error}");
    let error = a.event("error");
    assert!(error["error"].as_str().unwrap().contains("goes on"), "{error}");

    let mut b = Agent::start("b", &["--preset", "local"]);
    assert_eq!(b.members(), ["b"], "it knows itself from the start");
    let joined = a.ask(&format!("join {free} {}", b.addr), "joined");
    assert_eq!(joined["seeds"], Value::from(vec![b.addr.clone()]));
    assert!(a.event("error")["error"].as_str().unwrap().contains(&free));
    assert_eq!(a.members(), ["a", "b"]);
}

#[test]
fn the_end_of_the_input_leaves_it_running() {
    let [mut a, mut b] = cluster(["a", "b"], &["--preset", "local"]);
    // The last line has no end.
    b.write(b"meta last words");
    b.input = None;
    assert_eq!(a.event_of("update", "b")["meta"], "last words");
    a.ask("send b still there?", "sent");
    assert_eq!(b.event("message")["text"], "still there?");
    a.ask("ping b", "pong");
    b.signal("INT");
    assert_eq!(b.end().0.code(), Some(0));
    a.event_of("leave", "b");
}

#[test]
fn it_ends_quietly_when_nobody_reads_its_output() {
    let mut child = Command::new(program())
        .args(["--name", "a", "--bind", "127.0.0.1:0", "--preset", "local"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    output.read_line(&mut String::new()).unwrap();
    drop(output);
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"members\n").unwrap();
    assert_eq!(wait_for_end(&mut child).code(), Some(0));
    let mut told = String::new();
    child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert_eq!(told, "");
}

#[test]
fn text_is_for_people() {
    let mut a = Agent::start("alpha", &["--preset", "local", "--meta", "steer\u{1b}[2J"]);
    let mut child = Command::new(program())
        .args(["--name", "b", "--bind", "127.0.0.1:0", "--preset", "local", "--join", &a.addr])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    a.event_of("join", "b");
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"nonsense\nmembers\nping alpha\nhealth\nhelp\nquit\n").unwrap();
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(wait_for_end(&mut child).code(), Some(0));
    let words: Vec<&str> = text.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(words.first(), Some(&"ready"), "{text}");
    for word in ["join", "joined", "error", "members", "alpha", "b", "pong", "health", "help"] {
        assert!(words.contains(&word), "{word}: {text}");
    }
    assert_eq!(words.last(), Some(&"stopped"), "{text}");
    assert!(!text.contains('\u{1b}'), "what others say does not steer the terminal: {text:?}");
}
