//! Clusters of Go peers and agents, with what all of their nodes have in common.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use memberlist_tests::cluster::own_loopback;
use serde_json::Value;

use crate::process::{BOUND, Process, know_each_other, names};
use crate::{go_peer, program};

/// Where a node of this test finds a free port: at an IP address that no other test has, since the nodes of
/// one go on speaking for a while to where another's may be by then.
pub(crate) fn any_port() -> String {
    thread_local! {
        static OWN: IpAddr = own_loopback();
    }
    OWN.with(|ip| SocketAddr::new(*ip, 0).to_string())
}

/// The preset for tests in which nodes leave and everybody must hear of it: with that for one machine
/// a node tells each of its news twice only, and now and then one of few nodes hears it from nobody,
/// of whichever kind they are.
pub(crate) const FAREWELLS: &str = "lan";

/// Which program a node is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Go,
    Agent,
}

/// What all nodes are started with, of either kind.
#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) preset: &'static str,
    pub(crate) label: &'static str,
    /// In base64; the first one seals.
    pub(crate) keys: Vec<&'static str>,
    pub(crate) compress: bool,
    pub(crate) verify_incoming: bool,
    pub(crate) verify_outgoing: bool,
    /// The protocol version that is announced as the current one.
    pub(crate) protocol: u8,
    /// What a node gives to those with which it exchanges states.
    pub(crate) state: &'static str,
    /// Of the agents alone: what they speak, `native`, `hashicorp` or `mixed`.
    pub(crate) wire: &'static str,
    /// More flags of Go peers, and of agents.
    pub(crate) go_flags: Vec<String>,
    pub(crate) agent_flags: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            preset: "local",
            label: "",
            keys: Vec::new(),
            compress: true,
            verify_incoming: true,
            verify_outgoing: true,
            protocol: 2,
            state: "",
            wire: "hashicorp",
            go_flags: Vec::new(),
            agent_flags: Vec::new(),
        }
    }
}

impl Options {
    fn common(&self) -> Vec<String> {
        let mut flags = strings(&["--preset", self.preset]);
        flags.extend(["--state".to_owned(), self.state.to_owned()]);
        if !self.label.is_empty() {
            flags.extend(strings(&["--label", self.label]));
        }
        for key in &self.keys {
            flags.extend(strings(&["--key", key]));
        }
        flags
    }

    /// The flags of a Go peer.
    pub(crate) fn of_go(&self) -> Vec<String> {
        let mut flags = self.common();
        for (flag, value) in [
            ("--compress", self.compress.to_string()),
            ("--verify-incoming", self.verify_incoming.to_string()),
            ("--verify-outgoing", self.verify_outgoing.to_string()),
            ("--protocol", self.protocol.to_string()),
        ] {
            flags.extend([flag.to_owned(), value]);
        }
        flags.extend(self.go_flags.iter().cloned());
        flags
    }

    /// The flags of an agent.
    pub(crate) fn of_agent(&self) -> Vec<String> {
        let mut flags = self.common();
        flags.extend(strings(&["--wire", self.wire]));
        flags.extend(["--protocol-version".to_owned(), self.protocol.to_string()]);
        for (wanted, flag) in [
            (self.compress, "--no-compress"),
            (self.verify_incoming, "--no-verify-incoming"),
            (self.verify_outgoing, "--no-encrypt-outgoing"),
        ] {
            if !wanted {
                flags.push(flag.to_owned());
            }
        }
        flags.extend(self.agent_flags.iter().cloned());
        flags
    }
}

pub(crate) fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

impl Kind {
    /// Names say it where nothing else does: those of agents begin with r, all others are Go peers.
    pub(crate) fn of(name: &str) -> Self {
        if name.starts_with('r') { Self::Agent } else { Self::Go }
    }

    /// Starts a node. What a Go peer's library logs is kept.
    pub(crate) fn start(
        self,
        name: &'static str,
        bind: &str,
        options: &Options,
        more: &[&str],
    ) -> Process {
        let (program, flags) = match self {
            Self::Go => (go_peer::program(), options.of_go()),
            Self::Agent => (program::program(), options.of_agent()),
        };
        let mut command = Command::new(program);
        command.args(["--name", name, "--bind", bind]).args(flags).args(more);
        match self {
            Self::Go => drop(command.stderr(std::process::Stdio::piped())),
            Self::Agent => drop(command.arg("--json").env_remove("RUST_LOG")),
        }
        Process::spawn(name, command)
    }
}

/// Starts a node of the kind that its name says.
pub(crate) fn start(name: &'static str, options: &Options) -> Process {
    Kind::of(name).start(name, &any_port(), options, &[])
}

/// Starts these nodes, each after the first by joining the one before it, and waits until all know
/// each other.
pub(crate) fn cluster(nodes: &[&'static str], options: &Options) -> Vec<Process> {
    cluster_of(&nodes.iter().map(|name| (*name, options)).collect::<Vec<_>>())
}

/// The same with options of each one's own.
pub(crate) fn cluster_of(nodes: &[(&'static str, &Options)]) -> Vec<Process> {
    let mut all: Vec<Process> = Vec::new();
    for (name, options) in nodes {
        let mut node = start(name, options);
        if let Some(seed) = all.last() {
            join(&mut node, &seed.addr);
        }
        all.push(node);
    }
    know_each_other(&mut all);
    all
}

/// The nodes at these two places.
pub(crate) fn two(all: &mut [Process], one: usize, other: usize) -> (&mut Process, &mut Process) {
    let (before, from) = all.split_at_mut(one.max(other));
    let (low, high) = (&mut before[one.min(other)], &mut from[0]);
    if one < other { (low, high) } else { (high, low) }
}

/// Lets a node join another, at an address.
pub(crate) fn join(node: &mut Process, addr: &str) {
    node.ask(&format!("join {addr}"), "joined");
}

/// Waits until a node, of either kind, tells that a member is gone; `state` says how: `dead`, or
/// `left`.
pub(crate) fn gone(node: &mut Process, name: &str) -> Value {
    let what = format!("the end of {name}");
    node.wait(&what, |line| {
        line["name"] == name && ["gone", "dead", "leave"].iter().any(|e| line["event"] == *e)
    })
}

/// Asks for the members until the answer fits.
pub(crate) fn members_until(
    node: &mut Process,
    what: &str,
    fits: impl Fn(&Value) -> bool,
) -> Value {
    let deadline = Instant::now() + BOUND;
    loop {
        let answer = node.ask("members", "members");
        if fits(&answer) {
            return answer;
        }
        assert!(Instant::now() < deadline, "{} does not see {what}: {answer:#}", node.name);
        thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until a node, of either kind, lists exactly these as live, in the order of their names.
pub(crate) fn lists(node: &mut Process, expected: &[&str]) {
    let what = expected.join(", ");
    members_until(node, &what, |answer| names(&answer["members"]) == expected);
}

/// Waits until a node, of either kind, has a member in a state. Go tells of no suspicion by itself.
pub(crate) fn sees(node: &mut Process, name: &str, state: &str) -> Value {
    sees_from(node, name, state, 0)
}

/// The same at this incarnation or a later one.
pub(crate) fn sees_from(node: &mut Process, name: &str, state: &str, incarnation: u64) -> Value {
    let of = |answer: &Value| {
        let all = ["members", "gone"].into_iter().filter_map(|list| answer[list].as_array());
        all.flatten().find(|member| member["name"] == name).cloned().unwrap_or_default()
    };
    let what = format!("{name} as {state} at {incarnation} or later");
    of(&members_until(node, &what, |answer| {
        let member = of(answer);
        member["state"] == state && member["incarnation"].as_u64() >= Some(incarnation)
    }))
}
