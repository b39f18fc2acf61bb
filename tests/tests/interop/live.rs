//! Clusters of both kinds of nodes, with each option that both have: they meet, talk and part.

use crate::nodes::{self, FAREWELLS, Kind, Options, cluster_of, gone, lists, two};
use crate::process::Process;
use crate::program::KEY;
use crate::talk;

const GO: [&str; 10] = ["g0", "g1", "g2", "g3", "g4", "g5", "g6", "g7", "g8", "g9"];
const AGENTS: [&str; 10] = ["r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8", "r9"];
const AES_128: &str = "AAECAwQFBgcICQoLDA0ODw==";
const AES_192: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";

/// So many nodes of both kinds, in turns as long as there are both.
fn names(go: usize, agents: usize, agent_first: bool) -> Vec<&'static str> {
    let mut names = Vec::new();
    for at in 0..go.max(agents) {
        let pair = [(at < go).then(|| GO[at]), (at < agents).then(|| AGENTS[at])];
        names.extend(pair.into_iter().flatten());
    }
    let first = usize::from(agent_first);
    names.swap(0, first);
    names
}

/// Runs a cluster of these nodes through its life. `protocol` says the version of each.
fn live(names: &[&'static str], go: &Options, agents: &Options, protocol: fn(&str) -> u8) {
    let options: Vec<Options> = names
        .iter()
        .map(|name| {
            let options = if Kind::of(name) == Kind::Go { go } else { agents };
            Options { protocol: protocol(name), state: name, preset: FAREWELLS, ..options.clone() }
        })
        .collect();
    let nodes: Vec<_> = names.iter().copied().zip(&options).collect();
    let mut all = cluster_of(&nodes);
    for at in 1..all.len() {
        let (seed, node) = two(&mut all, at - 1, at);
        talk::exchanged(node, seed.name);
        talk::exchanged(seed, node.name);
    }
    talk::agree(&mut all, "", protocol);
    let place = |kind| names.iter().position(|name| Kind::of(name) == kind).unwrap();
    talk::everything(&mut all, place(Kind::Go), place(Kind::Agent));
    talk::agree(&mut all, "", protocol);

    // One of each kind leaves, the last that there are.
    for kind in [Kind::Go, Kind::Agent] {
        if all.len() == 1 {
            break;
        }
        let place = all.iter().rposition(|node| Kind::of(node.name) == kind).unwrap();
        let name = all[place].name;
        all[place].ask("leave", "left");
        for node in &mut all {
            assert_eq!(gone(node, name)["state"], "left", "{}", node.name);
        }
        let left = all.remove(place);
        talk::end(vec![left]);
        let mut rest: Vec<&str> = all.iter().map(|node| node.name).collect();
        rest.sort_unstable();
        all.iter_mut().for_each(|node| lists(node, &rest));

        // And comes back at another address.
        let at = names.iter().position(|other| *other == name).unwrap();
        let mut back = nodes::start(name, &options[at]);
        nodes::join(&mut back, &all[0].addr);
        for node in &mut all {
            assert_eq!(node.event_of("join", name)["addr"], back.addr.as_str());
            assert_eq!(back.event_of("join", node.name)["addr"], node.addr.as_str());
        }
        all.push(back);
        talk::agree(&mut all, "", protocol);
        let last = all.len() - 1;
        for other in 0..last.min(2) {
            let (one, other) = two(&mut all, last, other);
            talk::message(one, other);
            talk::message(other, one);
        }
    }
    talk::end(all);
}

fn alike(names: &[&'static str], options: Options) {
    live(names, &options, &options, |_| 2);
}

#[test]
#[ignore = "needs Go: cargo test -p memberlist-tests --test interop -- --ignored"]
fn in_the_clear() {
    alike(&names(1, 1, false), Options::default());
    alike(&names(2, 3, true), Options::default());
}

#[test]
#[ignore = "needs Go: cargo test -p memberlist-tests --test interop -- --ignored"]
fn with_keys_of_each_length() {
    for (key, names) in
        [(AES_128, names(1, 1, true)), (AES_192, names(5, 1, false)), (KEY, names(1, 5, true))]
    {
        alike(&names, Options { keys: vec![key], ..Options::default() });
    }
}

#[test]
#[ignore = "needs Go: cargo test -p memberlist-tests --test interop -- --ignored"]
fn with_labels() {
    alike(&names(2, 2, false), Options { label: "blue", ..Options::default() });
    let sealed = Options { label: "blue", keys: vec![KEY], ..Options::default() };
    alike(&names(2, 3, true), sealed);
}

#[test]
#[ignore = "needs Go: cargo test -p memberlist-tests --test interop -- --ignored"]
fn compressed_on_one_side_or_none() {
    let on = Options { label: "blue", keys: vec![KEY], ..Options::default() };
    let off = Options { compress: false, ..on.clone() };
    live(&names(2, 2, false), &on, &off, |_| 2);
    live(&names(2, 2, true), &off, &on, |_| 2);
    alike(&names(1, 2, true), Options { compress: false, ..Options::default() });
}

#[test]
#[ignore = "needs Go: cargo test -p memberlist-tests --test interop -- --ignored"]
fn with_each_protocol_version() {
    let sealed = Options { keys: vec![KEY], ..Options::default() };
    for protocol in [|_: &str| 3, |_: &str| 4, |_: &str| 5] {
        live(&names(1, 2, false), &sealed, &sealed, protocol);
    }
    // Two nodes of each version, and no two kinds in step.
    let mixed = |name: &str| {
        let number = name.as_bytes()[1] - b'0';
        2 + if name.starts_with('g') { number % 4 } else { 3 - number % 4 }
    };
    live(&names(4, 4, true), &Options::default(), &Options::default(), mixed);
}

#[test]
#[ignore = "needs Go: cargo test -p memberlist-tests --test interop -- --ignored"]
fn ten_of_each() {
    let sealed = Options { label: "blue", keys: vec![KEY], ..Options::default() };
    alike(&names(10, 10, false), sealed);
}

/// Each two steps that nodes take from a plain cluster to an encrypted one.
#[test]
#[ignore = "needs Go: cargo test -p memberlist-tests --test interop -- --ignored"]
fn on_the_way_to_encryption() {
    let plain = Options::default();
    let keyed = Options { keys: vec![KEY], ..plain.clone() };
    let opens = Options { verify_incoming: false, verify_outgoing: false, ..keyed.clone() };
    let seals = Options { verify_incoming: false, ..keyed.clone() };
    for (before, after) in [(&plain, &opens), (&opens, &seals), (&seals, &keyed)] {
        let nodes = [("g0", before), ("r0", after), ("g1", after), ("r1", before)];
        let mut all = cluster_of(&nodes);
        talk::everything(&mut all, 0, 1);
        talk::everything(&mut all, 2, 3);
        talk::agree(&mut all, "", |_| 2);
        talk::end(all);
    }
}

#[test]
#[ignore = "needs Go: cargo test -p memberlist-tests --test interop -- --ignored"]
fn over_ipv6() {
    let mut all: Vec<Process> = Vec::new();
    for name in ["g0", "r0", "g1", "r1"] {
        let mut node = Kind::of(name).start(name, "[::1]:0", &Options::default(), &[]);
        if let Some(seed) = all.last() {
            nodes::join(&mut node, &seed.addr);
        }
        all.push(node);
    }
    talk::agree(&mut all, "", |_| 2);
    talk::everything(&mut all, 0, 1);
    talk::end(all);
}

/// Nodes of version 1 know no ports of others than their own, and seal as no other does.
#[test]
#[ignore = "needs Go: cargo test -p memberlist-tests --test interop -- --ignored"]
fn with_protocol_version_1() {
    let options = Options { protocol: 1, keys: vec![KEY], ..Options::default() };
    let mut all = vec![Kind::Agent.start("r0", "127.0.0.2:0", &options, &[])];
    let port = all[0].addr.split_once(':').unwrap().1.to_owned();
    for (name, ip) in [("g0", "127.0.0.3"), ("r1", "127.0.0.4"), ("g1", "127.0.0.5")] {
        let mut node = Kind::of(name).start(name, &format!("{ip}:{port}"), &options, &[]);
        nodes::join(&mut node, &all.last().unwrap().addr);
        all.push(node);
    }
    talk::agree(&mut all, "", |_| 1);
    talk::everything(&mut all, 0, 1);
    talk::end(all);
}
