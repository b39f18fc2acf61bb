//! The agent, `examples/agent.rs`: the real program, driven as a script would drive it.
//!
//! Nothing here waits for a time to pass, except for lines that must not come; everything else waits
//! for a line, with a bound that only a broken agent reaches.
#![cfg(unix)]

#[path = "agent/keys.rs"]
mod keys;
#[path = "agent/process.rs"]
mod process;
#[path = "agent/program.rs"]
mod program;
#[path = "agent/settings.rs"]
mod settings;
#[path = "agent/tls.rs"]
mod tls;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::UdpSocket;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::process::{events, names, wait_for_end};
use crate::program::{Agent, CUT_KEY, KEY, cluster, program, run_to_end};

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

    let stats = a.ask("stats", "stats");
    assert_eq!(stats["members"], 3, "{stats}");
    assert!(stats["counts"]["packets_sent"].as_u64().unwrap() > 0, "{stats}");
    let health = a.ask("health", "health");
    assert_eq!((&health["score"], &health["findings"]), (&0.into(), &serde_json::json!([])));
    let why = a.ask("explain b", "explain");
    assert!(why["text"][0].as_str().unwrap().contains("has been alive for"), "{why}");

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
        let why = agent.ask("explain c", "explain");
        let text = why["text"].to_string();
        assert!(text.contains("has been dead for") && text.contains("declared dead by"), "{why}");
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
    let label = "l".repeat(256);
    let quic = ["--transport", "quic"];
    let files = ["--tls-cert", "no such.pem", "--tls-key", "b", "--tls-ca", "c"];
    let cases: [(&[&[&str]], &str); 38] = [
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
        (&[&name, &bind, &["--label", &label]], "255"),
        (&[&name, &bind, &["--no-encrypt-outgoing"]], "--key or --keyring"),
        (&[&name, &bind, &["--no-verify-incoming"]], "--key or --keyring"),
        (&[&name, &bind, &["--no-require-label"]], "--label"),
        (&[&name, &bind, &["--keyring", "no such folder/file"]], "give a --key"),
        (&[&name, &bind, &["--key", CUT_KEY]], "number 1, read as base64: the key is not"),
        (&[&name, &bind, &["--key", KEY, CUT_KEY]], "number 2, read as base64: the key is not"),
        (&[&name, &bind, &["--key", KEY], &["--key", CUT_KEY]], "number 2"),
        (&[&name, &bind, &[CUT_KEY]], "belongs to no flag"),
        (&[&name, &bind, &["--preset", KEY]], "lan, wan, local"),
        (&[&["keygen", "--bits", "100"]], "128, 192, 256"),
        (&[&name, &bind, &["--transport", "udp"]], "net, quic"),
        (&[&name, &bind, &quic], "needs --tls-cert"),
        (&[&name, &bind, &quic, &files[2..]], "needs --tls-cert"),
        (&[&name, &bind, &quic, &files[..2], &files[4..]], "needs --tls-key"),
        (&[&name, &bind, &quic, &files[..4], &["--bind-name"]], "needs --tls-ca"),
        (&[&name, &bind, &files[..2]], "--tls-cert means nothing without --transport quic"),
        (&[&name, &bind, &["--bind-name"]], "--bind-name means nothing without"),
        (&[&name, &bind, &quic, &files], "could not read no such.pem"),
        (&[&["certs", "--out", "x"]], "--name"),
        (&[&["certs", "--name", "x"]], "--out"),
        (&[&["certs", "--out", "x", "--name", "a", "../a"]], "\"../a\": a name in a certificate"),
        (&[&["certs", "--out", "x", "--name", "a", "ca"]], "the CA's"),
        (&[&["certs", "--out", "x", "--name", "a", "--name", "A"]], "given twice"),
    ];
    for (flags, expected) in cases {
        let output = run_to_end(&flags.concat());
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert_eq!(told.lines().count(), 1, "{told}");
        assert!(told.starts_with("error: ") && told.contains(expected), "{expected}: {told}");
        assert!(!told.contains(&KEY[8..24]), "a key is repeated: {told}");
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
        ("keys", Some("keys"), "rotate"),
        ("tls", Some("tls"), "reload"),
        ("tls reload now", Some("tls"), "too much"),
        ("tls reload", Some("tls"), "--transport quic"),
        (KEY, None, "unknown command;"),
        ("keys list", Some("keys"), "no keys"),
        (&format!("keys install {CUT_KEY}"), Some("keys"), "the key is not"),
        (&format!("keys install {KEY}"), Some("keys"), "no keys"),
        (&format!("keys remove {CUT_KEY}"), Some("keys"), "fingerprint"),
    ];
    for (line, command, expected) in cases {
        let error = a.ask(line, "error");
        assert_eq!(error["command"].as_str(), command, "{error}");
        let told = error["error"].as_str().unwrap();
        assert!(told.contains(expected), "{line:?}: {error}");
        assert!(!told.contains(&KEY[8..24]), "a key is repeated: {error}");
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
    assert!(error["error"].as_str().unwrap().contains("tries again"), "{error}");

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
fn the_first_line_shows_tags_as_all_others_do() {
    let flags = ["--bind", "127.0.0.1:0", "--tag", "role=cache", "--tag", "lang=rust"];
    let mut child = Command::new(program())
        .args(["--name", "a"])
        .args(flags)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"quit\n").unwrap();
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(wait_for_end(&mut child).code(), Some(0));
    let first = text.lines().next().unwrap();
    assert!(first.starts_with("ready") && first.ends_with("  tags lang=rust,role=cache"), "{text}");
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
    input
        .write_all(b"nonsense\nmembers\nping alpha\nhealth\nstats\nexplain alpha\nhelp\nquit\n")
        .unwrap();
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(wait_for_end(&mut child).code(), Some(0));
    let words: Vec<&str> = text.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(words.first(), Some(&"ready"), "{text}");
    for word in [
        "join", "joined", "error", "members", "alpha", "b", "pong", "health", "stats", "explain",
        "help",
    ] {
        assert!(words.contains(&word), "{word}: {text}");
    }
    assert_eq!(words.last(), Some(&"stopped"), "{text}");
    assert!(!text.contains('\u{1b}'), "what others say does not steer the terminal: {text:?}");
}
