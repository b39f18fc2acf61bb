//! Nodes of both kinds that fail, stand still, come back, or take each other's names.

use crate::go_peer;
use crate::nodes::{
    self, FAREWELLS, Kind, Options, any_port, cluster, gone, join, lists, sees, sees_from,
};
use crate::process::Process;
use crate::program::KEY;
use crate::talk;

fn sealed() -> Options {
    Options { label: "blue", keys: vec![KEY], ..Options::default() }
}

/// Takes out the node of that name.
fn take(all: &mut Vec<Process>, name: &str) -> Process {
    let place = all.iter().position(|node| node.name == name).unwrap();
    all.remove(place)
}

/// Waits until a node tells that another is suspected. Go tells only who asks.
fn suspects(node: &mut Process, name: &str) {
    match Kind::of(node.name) {
        Kind::Go => drop(sees(node, name, "suspect")),
        Kind::Agent => drop(node.event_of("suspect", name)),
    }
}

fn never_told(node: &Process, events: &[&str], name: &str) {
    let told = |line: &&serde_json::Value| {
        line["name"] == name && events.iter().any(|event| line["event"] == *event)
    };
    assert_eq!(node.pending.iter().find(told), None, "{} of {name}", node.name);
}

#[test]
#[ignore = "needs Go: cargo test -p memberlist-tests --test interop -- --ignored"]
fn the_dead_of_either_kind_are_found_and_may_return() {
    let mut all = cluster(&["g0", "r0", "g1", "r1"], &sealed());
    for name in ["g1", "r1"] {
        let mut dead = take(&mut all, name);
        let addr = dead.addr.clone();
        dead.child.kill().unwrap();
        dead.child.wait().unwrap();
        for node in &mut all {
            assert_eq!(gone(node, name)["state"], "dead", "{}", node.name);
        }
        // At the same address: elsewhere it would be another node for some time.
        let mut back = Kind::of(name).start(name, &addr, &sealed(), &[]);
        join(&mut back, &all[0].addr);
        for node in &mut all {
            node.event_of("join", name);
            talk::message(&mut back, node);
        }
        all.push(back);
        talk::agree(&mut all, "", |_| 2);
    }
    talk::end(all);
}

#[test]
#[ignore = "needs Go: cargo test -p memberlist-tests --test interop -- --ignored"]
fn a_pair_finds_the_other_dead() {
    for names in [["g0", "r0"], ["r0", "g0"]] {
        let mut all = cluster(&names, &Options::default());
        let mut dead = all.pop().unwrap();
        dead.child.kill().unwrap();
        suspects(&mut all[0], dead.name);
        assert_eq!(gone(&mut all[0], dead.name)["state"], "dead");
        lists(&mut all[0], &[names[0]]);
        talk::end(all);
    }
}

#[test]
#[ignore = "needs Go: cargo test -p memberlist-tests --test interop -- --ignored"]
fn who_stood_still_refutes_its_suspicion() {
    let mut all = cluster(&["g0", "r0", "g1", "r1"], &sealed());
    for name in ["g1", "r1", "g1"] {
        let paused = take(&mut all, name);
        let before = sees(&mut all[0], name, "alive")["incarnation"].as_u64().unwrap();
        paused.signal("STOP");
        // One who tells at once, then one of the other kind.
        for observer in ["r0", "g0"] {
            let node = all.iter_mut().find(|node| node.name == observer).unwrap();
            suspects(node, name);
        }
        paused.signal("CONT");
        for node in &mut all {
            sees_from(node, name, "alive", before + 1);
            never_told(node, &["gone", "dead", "leave"], name);
        }
        all.push(paused);
    }
    talk::agree(&mut all, "", |_| 2);
    talk::end(all);
}

#[test]
#[ignore = "needs Go: cargo test -p memberlist-tests --test interop -- --ignored"]
fn a_farewell_is_no_death_and_the_leaver_may_come_back() {
    let options = Options { preset: FAREWELLS, ..Options::default() };
    let mut all = cluster(&["r0", "g0", "r1", "g1"], &options);
    for name in ["g1", "r1"] {
        let mut leaver = take(&mut all, name);
        let addr = leaver.addr.clone();
        leaver.ask("leave", "left");
        for node in &mut all {
            assert_eq!(gone(node, name)["state"], "left", "{}", node.name);
            sees(node, name, "left");
        }
        // An agent comes back by joining; Go's library needs a new process for that.
        let mut back = match Kind::of(name) {
            Kind::Agent => leaver,
            Kind::Go => {
                talk::end(vec![leaver]);
                Kind::Go.start(name, &addr, &options, &[])
            }
        };
        join(&mut back, &all[0].addr);
        for node in &mut all {
            node.event_of("join", name);
            never_told(node, &["suspect", "dead"], name);
        }
        all.push(back);
        talk::agree(&mut all, "", |_| 2);
    }
    talk::end(all);
}

#[test]
#[ignore = "needs Go: cargo test -p memberlist-tests --test interop -- --ignored"]
fn two_nodes_of_one_name_are_reported_and_nobody_flaps() {
    for (name, kind) in
        [("g1", Kind::Go), ("r1", Kind::Go), ("g1", Kind::Agent), ("r1", Kind::Agent)]
    {
        let mut all = cluster(&["g0", "r0", name], &Options::default());
        let mut second = kind.start(name, &any_port(), &Options::default(), &[]);
        let addr = all[2].addr.clone();
        // Whom it meets learns that the name is claimed, and it learns whose it is.
        for node in &mut all {
            second.say(&format!("join {}", node.addr));
            let conflict = node.event_of("conflict", name);
            assert_eq!(conflict["other"], second.addr.as_str(), "{} {conflict}", node.name);
            assert_eq!(conflict["addr"], addr.as_str(), "{} {conflict}", node.name);
            let conflict = second.event_of("conflict", name);
            assert_eq!(conflict["other"], addr.as_str(), "{conflict}");
        }
        drop(second);
        talk::everything(&mut all, 0, 1);
        talk::agree(&mut all, "", |_| 2);
        for node in &all {
            never_told(node, &["gone", "dead", "leave", "suspect"], name);
        }
        for node in all.into_iter().filter(|node| Kind::of(node.name) == Kind::Go) {
            // That of the name, and nothing else.
            let complaints = talk::complaints(node);
            assert!(
                complaints.iter().all(|line| line.contains("onflicting address")),
                "{complaints:?}"
            );
        }
    }
}

#[test]
#[ignore = "needs Go: cargo test -p memberlist-tests --test interop -- --ignored"]
fn two_clusters_become_one() {
    let mut all = cluster(&["g0", "r0", "g1"], &sealed());
    let mut others = cluster(&["r1", "g2", "r2"], &sealed());
    join(&mut others[1], &all[1].addr);
    for node in &mut all {
        others.iter().for_each(|other| drop(node.event_of("join", other.name)));
    }
    for node in &mut others {
        all.iter().for_each(|other| drop(node.event_of("join", other.name)));
    }
    all.append(&mut others);
    talk::agree(&mut all, "", |_| 2);
    talk::everything(&mut all, 0, 3);
    talk::end(all);
}

/// Half of the nodes, of both kinds, stand still for longer than it takes to declare them dead.
#[test]
#[ignore = "needs Go: cargo test -p memberlist-tests --test interop -- --ignored"]
fn halves_that_lost_each_other_become_one_again() {
    let mut all = cluster(&["g0", "r0", "g1", "r1", "g2", "r2"], &Options::default());
    let paused = all.split_off(3);
    paused.iter().for_each(|node| node.signal("STOP"));
    for node in &mut all {
        for other in &paused {
            assert_eq!(gone(node, other.name)["state"], "dead", "{}", node.name);
        }
        lists(node, &["g0", "g1", "r0"]);
    }
    paused.iter().for_each(|node| node.signal("CONT"));
    all.extend(paused);
    // They know each other's addresses, refute their deaths, and need nobody to tell them.
    talk::agree(&mut all, "", |_| 2);
    talk::everything(&mut all, 0, 5);
    talk::end(all);
}

#[test]
#[ignore = "needs Go: cargo test -p memberlist-tests --test interop -- --ignored"]
fn a_go_peer_that_is_not_driven_any_more_ends() {
    let mut all = cluster(&["r0", "g0"], &Options::default());
    let mut peer = all.pop().unwrap();
    peer.input = None;
    assert!(go_peer::ended(peer).status.success());
    assert_eq!(gone(&mut all[0], "g0")["state"], "dead");
    let mut back = nodes::start("g0", &Options::default());
    // Another address, and the name was not given up: the agent that knows the dead node decides.
    back.say(&format!("join {}", all[0].addr));
    let conflict = all[0].event_of("conflict", "g0");
    assert_eq!(conflict["other"], back.addr.as_str());
}
