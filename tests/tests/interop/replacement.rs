//! A cluster of Go nodes becomes one of agents, one by one, without anybody noticing.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::nodes::{FAREWELLS, Kind, Options, any_port, gone, join, two};
use crate::process::{BOUND, Process, know_each_other};
use crate::program::KEY;
use crate::talk;

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// Packets that an agent has sent: in all, and in Go's format.
fn sent(agent: &mut Process) -> (u64, u64) {
    let counts = agent.ask("stats", "stats")["counts"].take();
    let count = |name: &str| counts.get(name).and_then(Value::as_u64).unwrap_or(0);
    (count("packets_sent"), count("packets_sent_hashicorp"))
}

fn assert_quiet(all: &[Process]) {
    for node in all {
        let alarm = node.pending.iter().find(|line| {
            let event = line["event"].as_str().unwrap();
            event == "suspect"
                // It may have to contradict the farewell that was said in its name.
                || event == "refuted" && line["by"] != node.name
                || event == "conflict"
                || (event == "gone" || event == "dead") && line["state"] != "left"
        });
        assert_eq!(alarm, None, "{}", node.name);
    }
}

fn messages(all: &mut [Process]) {
    for at in 0..all.len() {
        let (from, to) = two(all, at, (at + 1) % NAMES.len());
        for command in ["send", "send-packet"] {
            let text = format!("{command} from {}", from.name);
            from.ask(&format!("{command} {} {text}", to.name), "sent");
            talk::hears(to, &text);
        }
    }
    talk::broadcast(all, 0);
    talk::broadcast(all, 3);
    // What came more than once is of no interest to the next round.
    all.iter_mut().for_each(|node| node.pending.retain(|line| line["event"] != "message"));
}

fn replaced(options: &Options) {
    let mut all: Vec<Process> = Vec::new();
    for name in NAMES {
        let mut node = Kind::Go.start(name, &any_port(), options, &[]);
        if let Some(seed) = all.first() {
            join(&mut node, &seed.addr);
        }
        all.push(node);
    }
    know_each_other(&mut all);
    messages(&mut all);
    for at in 0..all.len() {
        let (name, addr) = (all[at].name, all[at].addr.clone());
        let old = all.remove(at);
        assert_eq!(talk::complaints(old), [""; 0]);
        for node in &mut all {
            let farewell = gone(node, name);
            assert_eq!(farewell["state"], "left", "{}: {farewell}", node.name);
        }
        let mut new = Kind::Agent.start(name, &addr, options, &[]);
        join(&mut new, &all[0].addr);
        for node in &mut all {
            assert_eq!(node.event_of("join", name)["addr"], addr.as_str());
            new.event_of("join", node.name);
        }
        all.insert(at, new);
        messages(&mut all);
        assert_quiet(&all);
    }

    // Once all of them know of each other what they read, nothing is sent in Go's format any more.
    let deadline = Instant::now() + BOUND;
    let mut before: Vec<(u64, u64)> = all.iter_mut().map(sent).collect();
    loop {
        messages(&mut all);
        let now: Vec<(u64, u64)> = all.iter_mut().map(sent).collect();
        let spoke_native =
            before.iter().zip(&now).all(|(before, now)| now.0 > before.0 && now.1 == before.1);
        if spoke_native {
            break;
        }
        assert!(Instant::now() < deadline, "Go's format is still spoken: {before:?}, {now:?}");
        // A round of probes, in which they may learn it.
        thread::sleep(Duration::from_secs(1));
        before = now;
    }
    before = all.iter_mut().map(sent).collect();
    messages(&mut all);
    for (node, before) in all.iter_mut().zip(before) {
        assert_eq!(sent(node).1, before.1, "{} speaks Go's format again", node.name);
    }
    assert_quiet(&all);
    for mut node in all {
        node.say("quit");
        assert!(node.end().0.success());
    }
}

#[test]
#[ignore = "needs Go: cargo test -p memberlist-tests --test interop -- --ignored"]
fn go_nodes_are_replaced_one_by_one_in_the_clear() {
    replaced(&Options { wire: "mixed", preset: FAREWELLS, ..Options::default() });
}

#[test]
#[ignore = "needs Go: cargo test -p memberlist-tests --test interop -- --ignored"]
fn go_nodes_are_replaced_one_by_one_with_label_and_key() {
    let sealed = Options { label: "blue", keys: vec![KEY], ..Options::default() };
    replaced(&Options { wire: "mixed", preset: FAREWELLS, ..sealed });
}
