//! What a cluster of both kinds of nodes must be able to do, whatever its options.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::go_peer;
use crate::nodes::{Kind, members_until, two};
use crate::process::{BOUND, Process};

/// Waits until every node lists exactly these nodes as alive, at their addresses and with this meta
/// each. Go peers also tell the versions, which are those of `versions`.
pub(crate) fn agree(all: &mut [Process], meta: &str, versions: impl Fn(&str) -> u8) {
    let mut members: Vec<(&str, String)> =
        all.iter().map(|node| (node.name, node.addr.clone())).collect();
    members.sort();
    for node in all {
        let is_go = Kind::of(node.name) == Kind::Go;
        let expected: Vec<Value> = members
            .iter()
            .map(|(name, addr)| {
                let mut member =
                    json!({ "name": name, "addr": addr, "state": "alive", "meta": meta });
                if is_go {
                    member["vsn"] = json!([1, 5, versions(name), 0, 0, 0]);
                }
                member
            })
            .collect();
        let fields = ["name", "addr", "state", "meta", "vsn"];
        let seen = |answer: &Value| -> Vec<Value> {
            let members = answer["members"].as_array().unwrap();
            let known = |member: &Value| {
                let fields = fields.iter().filter(|field| member.get(**field).is_some());
                fields.map(|field| ((*field).to_owned(), member[*field].clone())).collect()
            };
            members.iter().map(known).map(Value::Object).collect()
        };
        let what = format!("{expected:#?}");
        members_until(node, &what, |answer| seen(answer) == expected);
    }
}

pub(crate) fn hears(node: &mut Process, text: &str) -> Value {
    node.wait(text, |line| line["event"] == "message" && line["text"] == text)
}

/// Sends a message by each way that there is.
pub(crate) fn message(from: &mut Process, to: &mut Process) {
    let long = format!("{}{}", from.name, "x".repeat(60_000));
    for (command, text) in [
        ("send", format!("over TCP, käse, from {}", from.name)),
        ("send-packet", format!("over UDP, käse, from {}", from.name)),
        ("send", "1".to_owned()),
        ("send-packet", "2".to_owned()),
        ("send", long),
    ] {
        let sent = from.ask(&format!("{command} {} {text}", to.name), "sent");
        assert_eq!(sent["bytes"], text.len());
        let heard = hears(to, &text);
        assert_eq!(heard["bytes"], text.len());
        if Kind::of(to.name) == Kind::Agent {
            assert_eq!(heard["reliable"], command == "send");
        }
    }
}

/// Both directions of messages, broadcasts, pings and meta between the nodes at these places.
pub(crate) fn everything(all: &mut [Process], one: usize, other: usize) {
    for (from, to) in [(one, other), (other, one)] {
        let (from, to) = two(all, from, to);
        message(from, to);
        let pong = from.ask(&format!("ping {}", to.name), "pong");
        assert_eq!(pong["addr"], to.addr.as_str());
    }
    for place in [one, other] {
        broadcast(all, place);
        let name = all[place].name;
        // The longest that there may be, and none again.
        for meta in ["zone=2".to_owned(), "m".repeat(512), String::new()] {
            all[place].ask(&format!("meta {meta}"), "meta");
            each_other(all, place, |node| {
                node.wait(&format!("meta of {name}"), |line| {
                    line["event"] == "update" && line["name"] == name && line["meta"] == meta
                });
            });
        }
    }
}

/// A broadcast reaches as many nodes as Go sends it to, which need not be all: nobody passes on what is
/// the application's. So it is repeated until each has heard it.
pub(crate) fn broadcast(all: &mut [Process], place: usize) {
    let text = format!("to all from {}", all[place].name);
    let deadline = Instant::now() + BOUND;
    let mut deaf: Vec<usize> = (0..all.len()).filter(|at| *at != place).collect();
    while !deaf.is_empty() {
        assert!(Instant::now() < deadline, "{text} does not reach the nodes {deaf:?}");
        all[place].ask(&format!("broadcast {text}"), "broadcast");
        let next = Instant::now() + Duration::from_millis(500);
        deaf.retain(|at| all[*at].wait_until(next, |line| line["text"] == text.as_str()).is_err());
    }
}

pub(crate) fn each_other(all: &mut [Process], place: usize, mut run: impl FnMut(&mut Process)) {
    let others = all.iter_mut().enumerate().filter(|(at, _)| *at != place);
    others.for_each(|(_, node)| run(node));
}

/// Takes what each of these told of the state of the other as they joined.
pub(crate) fn exchanged(node: &mut Process, text: &str) {
    let event = match Kind::of(node.name) {
        Kind::Go => "remote_state",
        Kind::Agent => "state",
    };
    let what = format!("the state {text}");
    let state = node.wait(&what, |line| line["event"] == event && line["text"] == text);
    assert_eq!(state["join"], true, "{state}");
}

/// Ends all nodes; no Go peer may have complained of what it was sent.
pub(crate) fn end(all: Vec<Process>) {
    for node in all {
        match Kind::of(node.name) {
            Kind::Go => assert_eq!(complaints(node), [""; 0]),
            Kind::Agent => {
                let mut node = node;
                node.say("quit");
                assert!(node.end().0.success());
            }
        }
    }
}

/// Ends a Go peer, and gives what it complained of, but for nodes that are not there or slow.
pub(crate) fn complaints(peer: Process) -> Vec<String> {
    let end = go_peer::end(peer, "quit");
    assert!(end.status.success());
    let harmless = [
        "refused",
        "timeout",
        "reset by peer",
        // It goes on with its rounds while it ends.
        "use of closed network connection",
        "over TCP but UDP probes failed",
        "Refuting",
    ];
    let is_harmless = |line: &String| harmless.iter().any(|words| line.contains(words));
    end.complaints.into_iter().filter(|line| !is_harmless(line)).collect()
}

/// What the agent has dropped so far, by its reasons.
pub(crate) fn drops(agent: &mut Process) -> Value {
    agent.ask("stats", "stats")["drops"].take()
}
