//! With HashiCorp's Go memberlist itself: the peer in `tests/go-peer`, which needs Go. Run by
//! `cargo test -p memberlist-tests --test interop -- --ignored`.
//!
//! Live clusters of Go peers and of agents, whose names begin with r: `live` with each option, `library`
//! with a node in this process, `failures`, `keys`, `replacement` of the one kind by the other, `refusals`
//! of those that do not belong there. `fuzz` compares the decoders.
#![cfg(unix)]

#[path = "interop/failures.rs"]
mod failures;
#[path = "interop/fuzz.rs"]
mod fuzz;
#[path = "interop/go_peer.rs"]
mod go_peer;
#[path = "interop/keys.rs"]
mod keys;
#[path = "interop/library.rs"]
mod library;
#[path = "interop/live.rs"]
mod live;
#[path = "interop/nodes.rs"]
mod nodes;
#[path = "agent/process.rs"]
mod process;
#[path = "interop/refusals.rs"]
mod refusals;
#[path = "interop/replacement.rs"]
mod replacement;
// Not everything in there has a use here.
#[allow(dead_code)]
#[path = "agent/program.rs"]
mod program;
#[path = "interop/talk.rs"]
mod talk;

use std::process::{Command, Stdio};

use serde_json::json;

use crate::nodes::{Options, cluster, gone, lists, sees, strings};
use crate::process::events;
use crate::program::KEY;

const OTHER_KEY: &str = "AAECAwQFBgcICQoLDA0ODw==";

fn sealed() -> Options {
    Options { label: "blue", keys: vec![KEY], ..Options::default() }
}

#[test]
#[ignore = "needs Go: cargo test -p memberlist-tests --test interop -- --ignored"]
fn two_go_peers_meet_talk_and_part() {
    let go_flags = strings(&["--state", "what I know", "--ack-payload", "here"]);
    let options = Options { go_flags, ..sealed() };
    let mut all = cluster(&["a", "b"], &options);
    let (mut b, mut a) = (all.pop().unwrap(), all.pop().unwrap());
    for peer in [&mut a, &mut b] {
        lists(peer, &["a", "b"]);
        let state = peer.event("remote_state");
        assert_eq!((&state["text"], &state["join"]), (&"what I know".into(), &true.into()));
        assert_eq!(peer.event("merge")["members"].as_array().unwrap().len(), 1);
    }
    let first = &b.ask("members", "members")["members"][0];
    assert_eq!(first["vsn"], json!([1, 5, 2, 0, 0, 0]), "{first}");
    assert_eq!((&first["addr"], &first["addr_bytes"]), (&a.addr.as_str().into(), &4.into()));

    for (command, text) in [("send b", "over TCP, käse"), ("send-packet b", "over UDP")] {
        assert_eq!(a.ask(&format!("{command} {text}"), "sent")["bytes"], text.len());
        b.wait(text, |line| line["event"] == "message" && line["text"] == text);
    }
    b.ask("broadcast to  all ", "broadcast");
    a.wait("the broadcast", |line| line["event"] == "message" && line["text"] == "to  all ");

    assert_eq!(a.ask("ping b", "pong")["addr"], b.addr.as_str());
    assert_eq!(a.event_of("ping_completed", "b")["text"], "here");
    b.ask("meta zone=2", "meta");
    assert_eq!(a.event_of("update", "b")["meta"], "zone=2");
    let health = a.ask("health", "health");
    assert_eq!((&health["score"], &health["members"]), (&0.into(), &2.into()));

    b.ask("leave", "left");
    assert_eq!(gone(&mut a, "b")["state"], "left");
    assert_eq!(gone(&mut b, "b")["state"], "left");
    lists(&mut a, &["a"]);
    for peer in [b, a] {
        let end = go_peer::end(peer, "quit");
        assert!(end.status.success());
        assert_eq!(events(&end.said).last(), Some(&"stopped"), "{:#?}", end.said);
        assert_eq!(end.complaints, [""; 0]);
    }
}

#[test]
#[ignore = "needs Go: cargo test -p memberlist-tests --test interop -- --ignored"]
fn a_go_peer_that_goes_without_a_word_is_found_dead() {
    // Suspected after a fraction of a second, for three seconds: long enough to be seen.
    let mut go_flags = strings(&["--probe-interval", "200ms", "--probe-timeout", "100ms"]);
    go_flags.extend(strings(&["--suspicion-mult", "15"]));
    let mut all = cluster(&["a", "b", "c"], &Options { go_flags, ..Options::default() });
    // One by the command for it, the other because nobody drives it any more.
    let c = go_peer::end(all.pop().unwrap(), "shutdown");
    assert!(c.status.success());
    sees(&mut all[0], "c", "suspect");
    for peer in &mut all {
        assert_eq!(gone(peer, "c")["state"], "dead");
    }
    let mut b = all.pop().unwrap();
    b.input = None;
    assert!(go_peer::ended(b).status.success());
    assert_eq!(gone(&mut all[0], "b")["state"], "dead");
    sees(&mut all[0], "c", "dead");
    lists(&mut all[0], &["a"]);
}

#[test]
#[ignore = "needs Go: cargo test -p memberlist-tests --test interop -- --ignored"]
fn go_peers_are_kept_apart_by_keys_and_labels() {
    let mut a = go_peer::start("a", &sealed().of_go());
    let others = [
        Options::default(),
        Options { keys: vec![], ..sealed() },
        Options { label: "green", ..sealed() },
        Options { keys: vec![OTHER_KEY], ..sealed() },
    ];
    for options in others {
        let mut b = go_peer::start("b", &options.of_go());
        let error = b.ask(&format!("join {}", a.addr), "error");
        assert!(error["error"].as_str().unwrap().contains(&a.addr), "{error}");
        assert!(b.event("error")["error"].as_str().unwrap().contains("no seed"));
    }
    // A key that is installed later opens the door.
    let mut b = go_peer::start("b", &Options { keys: vec![OTHER_KEY], ..sealed() }.of_go());
    a.ask(&format!("keys install {OTHER_KEY}"), "keys");
    let keys = b.ask(&format!("keys install {KEY}"), "keys");
    assert_eq!(keys["keys"], json!([OTHER_KEY, KEY]));
    b.ask(&format!("join {}", a.addr), "joined");
    a.event_of("join", "b");
    assert_eq!(b.ask(&format!("keys activate {KEY}"), "keys")["keys"], json!([KEY, OTHER_KEY]));
    assert_eq!(b.ask(&format!("keys remove {OTHER_KEY}"), "keys")["keys"], json!([KEY]));
    b.ask("send a still here", "sent");
    assert_eq!(a.event("message")["text"], "still here");
    // Which is what it complains of to those who come to test that.
    assert!(!go_peer::end(a, "quit").complaints.is_empty());
}

#[test]
#[ignore = "needs Go: cargo test -p memberlist-tests --test interop -- --ignored"]
fn go_tells_what_it_makes_of_bytes() {
    let ping = b"\x00\x82\xa4Node\xa3bar\xa5SeqNo\x2a";
    let told = json!({ "type": "ping", "SeqNo": 42, "Node": "626172",
        "SourceAddr": null, "SourcePort": 0, "SourceNode": "" });
    let mut in_stream = told.clone();
    in_stream["used"] = ping.len().into();
    let mut compound = vec![7, 3, 0, ping.len() as u8, 0, 2, 0, 9];
    compound.extend([ping.as_slice(), b"\x08x"].concat());
    let user = json!({ "type": "user", "payload": "78" });
    let truncated = json!({ "type": "compound", "truncated": 1 });
    let cases = [
        ("packet", ping.to_vec(), json!([told])),
        ("stream", [ping.as_slice(), b"more"].concat(), json!([in_stream])),
        ("packet", compound, json!([told, user, truncated])),
        ("packet", ping[..9].to_vec(), json!([{ "type": "ping", "error": "EOF" }])),
        (
            "packet",
            vec![99],
            json!([{ "type": "unknown 99", "error": "msg type (99) not supported" }]),
        ),
    ];
    let asked = cases.clone().map(|(kind, bytes, _)| (kind, bytes));
    assert_eq!(go_peer::decode(&asked), cases.map(|(.., expected)| expected));

    // More than any pipe holds, both ways.
    let many = vec![("packet", [b"\x08".as_slice(), &[b'x'; 1000]].concat()); 2000];
    let expected = json!([{ "type": "user", "payload": "78".repeat(1000) }]);
    assert!(go_peer::decode(&many).iter().all(|leaves| *leaves == expected));
}

#[test]
#[ignore = "needs Go: cargo test -p memberlist-tests --test interop -- --ignored"]
fn flags_that_the_go_peer_cannot_use_are_refused() {
    let good = ["--name", "a", "--bind", "127.0.0.1:0"];
    let cases: [&[&str]; 8] = [
        &["--name", ""],
        &["--bind", "127.0.0.1"],
        &["--compress", "perhaps"],
        &["--protocol", "x"],
        &["--delegate-versions", "1:2"],
        &["--key", "short"],
        &["--preset", "moon"],
        &["--frobnicate"],
    ];
    for bad in cases {
        let mut command = Command::new(go_peer::program());
        let output = command.args(good).args(bad).stdin(Stdio::null()).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{bad:?}: {told}");
        assert!(told.starts_with("error: ") && output.stdout.is_empty(), "{bad:?}: {told}");
    }
    // This is the library's to refuse.
    let mut command = Command::new(go_peer::program());
    let output =
        command.args(good).args(["--protocol", "6"]).stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
}
