//! Agents over QUIC: making certificates, being let in by them or not, and replacing them.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::Value;

use crate::keys::{fingerprint, keygen, keys};
use crate::process::{BOUND, names, wait_for_end};
use crate::program::{Agent, Folder, cluster_with, program, run_to_end};

/// Makes certificates, which must succeed.
fn certs(out: &str, names: &[&str], more: &[&str]) -> String {
    let output = run_to_end(&[&["certs", "--out", out, "--name"], names, more].concat());
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), told.as_str()), (Some(0), ""));
    String::from_utf8(output.stdout).unwrap()
}

/// Flags of an agent over QUIC with the certificate of this name.
fn quic(out: &str, certificate: &str, more: &[&str]) -> Vec<String> {
    let [cert, key] = ["pem", "key"].map(|extension| format!("{out}/{certificate}.{extension}"));
    let ca = format!("{out}/ca.pem");
    let flags = ["--preset", "local", "--transport", "quic"];
    let files = ["--tls-cert", &cert, "--tls-key", &key, "--tls-ca", &ca];
    [&flags[..], &files, more].concat().into_iter().map(str::to_owned).collect()
}

fn start(name: &'static str, flags: &[String]) -> Agent {
    Agent::start(name, &flags.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Each sends to each other one, and it arrives.
fn talk(agents: &mut [Agent], text: &str) {
    for from in 0..agents.len() {
        for to in (0..agents.len()).filter(|to| *to != from) {
            let (name, sender) = (agents[to].name, agents[from].name);
            agents[from].ask(&format!("send {name} {text}"), "sent");
            agents[to].wait("the message", |line| {
                line["event"] == "message" && line["text"] == text && line["name"] == sender
            });
        }
    }
}

/// Replaces a file as a whole.
fn replace(file: &str, text: &str) {
    let beside = format!("{file}.beside");
    fs::write(&beside, text).unwrap();
    fs::rename(&beside, file).unwrap();
}

/// Waits until the agent has seen the changed files, and could use them.
fn reloaded(agent: &mut Agent) {
    agent.wait("tls", |line| line["event"] == "tls" && line["reloaded"] == true);
}

#[test]
fn certificates_are_made_and_none_is_overwritten() {
    let folder = Folder::new("certs");
    let out = folder.file("made");
    let read = |name: &str| fs::read_to_string(format!("{out}/{name}")).unwrap();
    let told = certs(&out, &["a", "b.example"], &[]);
    let files = ["ca.key", "ca.pem", "a.key", "a.pem", "b.example.key", "b.example.pem"];
    assert_eq!(told.lines().count(), files.len(), "{told}");
    for file in files {
        assert!(told.contains(&format!("{out}/{file}")), "{told}");
        let mode = fs::metadata(format!("{out}/{file}")).unwrap().permissions().mode();
        assert_eq!((file, file.ends_with(".key")), (file, mode & 0o777 == 0o600), "{mode:o}");
    }

    let before = files.map(read);
    let output = run_to_end(&["certs", "--out", &out, "--name", "c", "--name", "a"]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), told.lines().count()), (Some(1), 1), "{told}");
    assert!(told.contains("a.pem") && told.contains("--force"), "{told}");
    assert!(fs::metadata(format!("{out}/c.pem")).is_err(), "all or nothing");
    assert_eq!(files.map(read), before);

    // The CA stays the same, by force as well.
    certs(&out, &["c"], &[]);
    assert_eq!(files.map(read), before);
    certs(&out, &["a"], &["--force"]);
    let after = files.map(read);
    let same: Vec<bool> =
        before.iter().zip(&after).map(|(before, after)| before == after).collect();
    assert_eq!(same, [true, true, false, false, true, true]);
    let mode = fs::metadata(format!("{out}/a.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    // A CA that is not complete, or not one.
    replace(&format!("{out}/ca.key"), &read("a.key"));
    let output = run_to_end(&["certs", "--out", &out, "--name", "d"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("ca.pem and its key"));
    fs::remove_file(format!("{out}/ca.key")).unwrap();
    let output = run_to_end(&["certs", "--out", &out, "--name", "d"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("without"));
    assert_eq!(read("ca.pem"), before[1]);
}

#[test]
fn three_agents_over_quic_find_each_other_and_talk() {
    let folder = Folder::new("quic");
    let out = folder.file("certs");
    certs(&out, &["a", "b", "c"], &[]);
    let old = keygen(&[]);
    let mut agents = cluster_with(["a", "b", "c"], |name| {
        quic(&out, name, &["--bind-name", "--key", &old, "--label", "blue"])
    });
    for agent in &mut agents {
        let answer = agent.ask("members", "members");
        assert_eq!(names(&answer["members"]), ["a", "b", "c"]);
    }
    talk(&mut agents, "hello");
    let [a, b, c] = &mut agents;
    a.ask("broadcast to all", "broadcast");
    for agent in [&mut *b, &mut *c] {
        let message = agent.wait("the broadcast", |line| line["text"] == "to all");
        assert_eq!((&message["name"], &message["reliable"]), (&"a".into(), &false.into()));
    }
    assert_eq!(b.ask("ping c", "pong")["addr"], c.addr.as_str());

    // Keys are replaced as they are over any transport.
    assert_eq!(keys(c), [(fingerprint(&old), 3, 3)]);
    let new = c.ask("keys rotate", "keys")["key"].as_str().unwrap().to_owned();
    assert_eq!(keys(a), [(new, 3, 3)]);
    talk(&mut agents, "under a new key");

    agents[2].say("quit");
    agents[0].event_of("leave", "c");
}

#[test]
fn a_wrong_ca_is_told_in_words() {
    let folder = Folder::new("wrong-ca");
    let (ours, theirs) = (folder.file("ours"), folder.file("theirs"));
    certs(&ours, &["a", "b"], &[]);
    certs(&theirs, &["b"], &[]);
    let mut a = start("a", &quic(&ours, "a", &[]));
    let mut b = start("b", &quic(&theirs, "b", &["--join", &a.addr]));
    let error = b.event("error");
    let told = error["error"].as_str().unwrap();
    assert!(told.contains("certificate") && told.contains("CA"), "{told}");
    assert!(b.event("error")["error"].as_str().unwrap().contains("tries again"));
    let stats = a.ask("stats", "stats");
    assert!(stats["drops"]["handshakes_failed"].as_u64().unwrap() >= 1, "{stats}");
    assert_eq!(a.members(), ["a"]);

    // With the right files in place it gets in, without a restart.
    for file in ["b.key", "b.pem", "ca.pem"] {
        let text = fs::read_to_string(format!("{ours}/{file}")).unwrap();
        replace(&format!("{theirs}/{file}"), &text);
    }
    b.say("tls reload");
    reloaded(&mut b);
    // The address may be left alone for a moment, as the last dial failed.
    let deadline = Instant::now() + BOUND;
    let outcome = |line: &Value| line["event"] == "joined" || line["event"] == "error";
    loop {
        b.say(&format!("join {}", a.addr));
        match b.wait("the outcome", outcome) {
            joined if joined["event"] == "joined" => break,
            error => assert!(Instant::now() < deadline, "{error}"),
        }
        b.wait("that it goes on", outcome);
    }
    a.event_of("join", "b");
}

#[test]
fn a_certificate_of_another_name_is_told() {
    let folder = Folder::new("names");
    let out = folder.file("certs");
    certs(&out, &["a", "b"], &[]);
    let bound = quic(&out, "b", &["--bind-name", "--name", "a", "--bind", "127.0.0.1:0"]);
    let output = run_to_end(&bound.iter().map(String::as_str).collect::<Vec<_>>());
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), told.lines().count()), (Some(2), 1), "{told}");
    for part in ["--bind-name", "b.pem", "for \"b\"", "this node is \"a\""] {
        assert!(told.contains(part), "{told}");
    }

    // Nor can a running node become another.
    let mut agents = cluster_with(["a", "b"], |name| quic(&out, name, &["--bind-name"]));
    for extension in ["key", "pem"] {
        let text = fs::read_to_string(format!("{out}/b.{extension}")).unwrap();
        replace(&format!("{out}/a.{extension}"), &text);
    }
    agents[0].say("tls reload");
    let told = agents[0].wait("the refusal", |line| line["event"] == "tls");
    assert_eq!(told["reloaded"], false, "{told}");
    assert!(told["error"].as_str().unwrap().contains("this node is \"a\""), "{told}");
    talk(&mut agents, "still the same");
}

/// The CA of three agents is replaced, by nothing but their files.
#[test]
fn files_that_change_are_used_while_the_agents_talk() {
    let folder = Folder::new("reload");
    let (old, new) = (folder.file("old"), folder.file("new"));
    let all = ["a", "b", "c"];
    certs(&old, &[&all[..], &["late"]].concat(), &[]);
    certs(&new, &all, &[]);
    // Each has files of its own.
    for name in all {
        let own = folder.file(name);
        fs::create_dir(&own).unwrap();
        for file in [format!("{name}.key"), format!("{name}.pem"), "ca.pem".to_owned()] {
            fs::copy(format!("{old}/{file}"), format!("{own}/{file}")).unwrap();
        }
    }
    let mut agents = cluster_with(all, |name| quic(&folder.file(name), name, &["--bind-name"]));
    talk(&mut agents, "with the old certificates");

    let read = |file: String| fs::read_to_string(file).unwrap();
    let [old_ca, new_ca] = [&old, &new].map(|out| read(format!("{out}/ca.pem")));
    for agent in &mut agents {
        replace(&folder.file(&format!("{}/ca.pem", agent.name)), &format!("{old_ca}{new_ca}"));
    }
    agents.iter_mut().for_each(reloaded);
    talk(&mut agents, "trusting both");

    for agent in &mut agents {
        for extension in ["key", "pem"] {
            let file = format!("{}.{extension}", agent.name);
            let own = folder.file(&format!("{}/{file}", agent.name));
            replace(&own, &read(format!("{new}/{file}")));
        }
    }
    agents.iter_mut().for_each(reloaded);
    talk(&mut agents, "with the new certificates");

    for agent in &mut agents {
        replace(&folder.file(&format!("{}/ca.pem", agent.name)), &new_ca);
    }
    agents.iter_mut().for_each(reloaded);
    talk(&mut agents, "trusting the new CA alone");

    // What makes no sense is told, and changes nothing.
    replace(&folder.file("b/b.pem"), "no certificate");
    let told =
        agents[1].wait("the error", |line| line["event"] == "tls" && line["reloaded"] == false);
    assert!(told["error"].as_str().unwrap().contains("b.pem"), "{told}");
    talk(&mut agents, "as before");

    let mut late = start("late", &quic(&old, "late", &["--join", &agents[0].addr]));
    assert!(late.event("error")["error"].as_str().unwrap().contains("CA"));
    assert_eq!(agents[0].members(), all);
}

#[test]
fn text_of_a_reload_is_for_people() {
    let folder = Folder::new("tls-text");
    let out = folder.file("certs");
    certs(&out, &["a"], &[]);
    let mut child = Command::new(program())
        .args(["--name", "a", "--bind", "127.0.0.1:0"])
        .args(quic(&out, "a", &[]))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"tls reload\nhealth\nquit\n").unwrap();
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(wait_for_end(&mut child).code(), Some(0));
    assert!(text.lines().next().unwrap().ends_with("over quic"), "{text}");
    let line = text.lines().find(|line| line.starts_with("tls")).unwrap();
    assert!(line.contains("reloaded") && line.contains("a.pem"), "{line}");
}
