//! Other keys for a cluster of both kinds of nodes: step by step, on each node by itself.

use serde_json::json;

use crate::OTHER_KEY;
use crate::nodes::{Kind, Options, cluster, sees, two};
use crate::process::Process;
use crate::program::KEY;
use crate::talk;

fn sealed() -> Options {
    Options { label: "blue", keys: vec![KEY], ..Options::default() }
}

/// Takes a step on one node, and gives how many keys it has then.
fn step(node: &mut Process, step: &str, key: &str) -> usize {
    let here = if Kind::of(node.name) == Kind::Agent { " --here" } else { "" };
    let report = node.ask(&format!("keys {step} {key}{here}"), "keys");
    assert_eq!(report["step"], step, "{report}");
    report["keys"].as_array().unwrap().len()
}

/// Every node reaches the next one both ways.
fn all_talk(all: &mut [Process]) {
    for at in 0..all.len() {
        let next = (at + 1) % all.len();
        let (from, to) = two(all, at, next);
        for command in ["send", "send-packet"] {
            let text = format!("{command} from {}", from.name);
            from.ask(&format!("{command} {} {text}", to.name), "sent");
            talk::hears(to, &text);
        }
        from.ask(&format!("ping {}", to.name), "pong");
    }
}

fn assert_calm(all: &mut [Process]) {
    let names: Vec<&str> = all.iter().map(|node| node.name).collect();
    for node in all {
        names.iter().for_each(|name| drop(sees(node, name, "alive")));
        let alarm = node.pending.iter().find(|line| {
            ["suspect", "dead", "gone", "leave", "refuted"].iter().any(|e| line["event"] == *e)
        });
        assert_eq!(alarm, None, "{}", node.name);
    }
}

#[test]
#[ignore = "needs Go: cargo test -p memberlist-tests --test interop -- --ignored"]
fn keys_are_replaced_node_by_node() {
    let mut all = cluster(&["g0", "r0", "g1", "r1"], &sealed());
    for (name, key, keys) in
        [("install", OTHER_KEY, 2), ("activate", OTHER_KEY, 2), ("remove", KEY, 1)]
    {
        for at in 0..all.len() {
            assert_eq!(step(&mut all[at], name, key), keys);
            all_talk(&mut all);
        }
        assert_calm(&mut all);
    }
    talk::everything(&mut all, 0, 1);
    // Who has the old key only is a stranger now.
    let mut old = crate::nodes::start("r9", &sealed());
    old.say(&format!("join {}", all[0].addr));
    let error = old.event("error");
    assert!(error["error"].as_str().unwrap().contains("no key of this node opens it"), "{error}");
    drop(old);
    assert_calm(&mut all);
    for node in all.into_iter().filter(|node| Kind::of(node.name) == Kind::Go) {
        let complaints = talk::complaints(node);
        // That of the stranger.
        let about_keys = |line: &String| line.contains("no installed keys could decrypt");
        assert!(complaints.iter().all(about_keys), "{complaints:?}");
    }
}

#[test]
#[ignore = "needs Go: cargo test -p memberlist-tests --test interop -- --ignored"]
fn keys_are_not_rotated_over_the_wire_where_go_peers_are() {
    for wire in ["hashicorp", "mixed"] {
        let options = Options { wire, ..sealed() };
        let mut all = cluster(&["g0", "r0", "g1", "r1"], &options);
        all[1].say("keys rotate");
        let error = all[1].event("error");
        let text = error["error"].as_str().unwrap();
        for words in ["g0", "g1", "HashiCorp's format"] {
            assert!(text.contains(words), "{words}: {text}");
        }
        // All go on with the key that they have.
        all_talk(&mut all);
        let refused = all[1].ask(&format!("keys activate {OTHER_KEY} --here"), "error");
        assert_eq!(refused["command"], json!("keys"), "{refused}");
        all_talk(&mut all);
        assert_calm(&mut all);
        talk::end(all);
    }
}
