//! Nodes of both kinds that cannot be in one cluster: neither falls over, and the agent says why.

use crate::OTHER_KEY;
use crate::nodes::{Options, cluster, join, lists, start, strings};
use crate::program::KEY;
use crate::talk::{self, drops};

const CLOSED: &str = "another label, other keys or another wire format";

/// Lets an agent and a Go peer try to join each other. The agent's error when it tries has the first
/// words, the Go peer's the second, which come from the agent unless Go sees by itself what is wrong. The
/// agent's counter of that name has counted.
fn apart(agent: &Options, go: &Options, ours: &str, gos: &str, counter: &str) {
    let (mut agent, mut peer) = (start("r0", agent), start("g0", go));
    agent.say(&format!("join {}", peer.addr));
    let error = agent.event("error");
    assert!(error["error"].as_str().unwrap().contains(ours), "{error}");
    assert!(error["error"].as_str().unwrap().contains(&peer.addr), "{error}");
    let last = agent.event("error");
    assert!(last["error"].as_str().unwrap().contains("goes on without"), "{last}");

    peer.say(&format!("join {}", agent.addr));
    let error = peer.event("error");
    assert!(error["error"].as_str().unwrap().contains(gos), "{error}");
    let drops = drops(&mut agent);
    assert!(drops[counter].as_u64() > Some(0), "no {counter} in {drops}");

    // Both go on, apart.
    lists(&mut agent, &["r0"]);
    lists(&mut peer, &["g0"]);
    assert!(!talk::complaints(peer).is_empty());
    talk::end(vec![agent]);
}

fn keyed(key: &'static str) -> Options {
    Options { keys: vec![key], ..Options::default() }
}

fn labelled(label: &'static str) -> Options {
    Options { label, ..Options::default() }
}

#[test]
#[ignore = "needs Go: cargo test -p memberlist-tests --test interop -- --ignored"]
fn a_native_agent_and_a_go_peer() {
    let native = |options: Options| Options { wire: "native", ..options };
    let plain = Options::default();
    apart(&native(plain.clone()), &plain, CLOSED, "looks like a hashicorp stream", "wrong_format");
    apart(
        &native(keyed(KEY)),
        &keyed(KEY),
        CLOSED,
        "looks like a hashicorp stream",
        "wrong_format",
    );
}

#[test]
#[ignore = "needs Go: cargo test -p memberlist-tests --test interop -- --ignored"]
fn with_a_key_and_without_or_with_another() {
    let plain = Options::default();
    apart(
        &keyed(KEY),
        &plain,
        "remote state is encrypted and encryption is not configured",
        "only encrypted streams are accepted here: this cluster's keyring is needed",
        "plaintext_refused",
    );
    apart(
        &plain,
        &keyed(KEY),
        "it is encrypted, and this node has no keys; give it the cluster's keyring",
        "encryption is configured but remote state is not encrypted",
        "no_key",
    );
    apart(
        &keyed(KEY),
        &keyed(OTHER_KEY),
        "no key of this node opens it: the sender has another key or label",
        "encryption is configured but remote state is not encrypted",
        "wrong_key",
    );
}

#[test]
#[ignore = "needs Go: cargo test -p memberlist-tests --test interop -- --ignored"]
fn with_a_label_and_without_or_with_another() {
    let plain = Options::default();
    let expected = "another label is expected here";
    apart(&labelled("blue"), &plain, CLOSED, expected, "label_missing");
    apart(&plain, &labelled("blue"), CLOSED, expected, "label_unexpected");
    apart(&labelled("blue"), &labelled("green"), CLOSED, expected, "label_mismatch");
}

#[test]
#[ignore = "needs Go: cargo test -p memberlist-tests --test interop -- --ignored"]
fn with_other_versions_of_what_runs_above() {
    let serf = strings(&["--delegate-versions", "2:5:4"]);
    let flags = Options { go_flags: serf.clone(), agent_flags: serf, ..Options::default() };
    let plain = Options::default();
    let words = "node g0 speaks application version 0, all others together 2 to 0";
    apart(&flags, &plain, words, words, "incompatible");
    // As all nodes of a Serf pool have them.
    let mut all = cluster(&["g0", "r0", "g1", "r1"], &flags);
    talk::everything(&mut all, 1, 2);
    talk::end(all);
}

/// What does not belong there does not disturb those that do.
#[test]
#[ignore = "needs Go: cargo test -p memberlist-tests --test interop -- --ignored"]
fn strangers_at_the_door_of_a_cluster() {
    let sealed = Options { label: "blue", ..keyed(KEY) };
    let mut all = cluster(&["g0", "r0", "r1"], &sealed);
    for options in [
        Options::default(),
        labelled("blue"),
        keyed(KEY),
        Options { keys: vec![OTHER_KEY], ..sealed.clone() },
        Options { wire: "native", ..sealed.clone() },
    ] {
        for name in ["g9", "r9"] {
            // The Go peer knows of no other format.
            if name == "g9" && options.wire == "native" {
                continue;
            }
            let mut stranger = start(name, &options);
            for node in &all {
                stranger.say(&format!("join {}", node.addr));
                stranger.wait("that it goes on", |line| {
                    line["error"].as_str().is_some_and(|error| error.contains("no seed"))
                });
            }
        }
    }
    talk::everything(&mut all, 0, 1);
    talk::agree(&mut all, "", |_| 2);
    let mut late = start("r9", &sealed);
    join(&mut late, &all[0].addr);
    all.iter_mut().for_each(|node| drop(node.event_of("join", "r9")));
}
