//! Keys and labels from the command line: who gets in, and how keys are replaced.

use std::fs;

use memberlist::security::{KeySize, KeyringFile, SecretKey};
use serde_json::Value;

use crate::process::names;
use crate::program::{Agent, Folder, cluster, run_to_end};

pub(crate) fn keygen(flags: &[&str]) -> String {
    let output = run_to_end(&[&["keygen"], flags].concat());
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty());
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    text.trim_end().to_owned()
}

pub(crate) fn fingerprint(key: &str) -> String {
    SecretKey::from_base64(key).unwrap().fingerprint().to_string()
}

/// The answer to `keys list`: fingerprints with how many members hold them and seal with them.
pub(crate) fn keys(agent: &mut Agent) -> Vec<(String, u64, u64)> {
    let answer = agent.ask("keys list", "keys");
    assert_eq!(answer["done"], answer["members"], "{answer}");
    rows(&answer)
}

fn rows(answer: &Value) -> Vec<(String, u64, u64)> {
    let row = |key: &Value| {
        let number = |field: &str| key[field].as_u64().unwrap();
        let name = key["fingerprint"].as_str().unwrap().to_owned();
        (name, number("held_by"), number("primary_of"))
    };
    answer["keys"].as_array().unwrap().iter().map(row).collect()
}

#[test]
fn keygen_prints_a_key_and_nothing_else() {
    for (flags, size) in [
        (&[][..], KeySize::Bits256),
        (&["--bits", "128"], KeySize::Bits128),
        (&["--bits", "192"], KeySize::Bits192),
        (&["--bits", "256"], KeySize::Bits256),
    ] {
        let key = keygen(flags);
        assert_eq!(SecretKey::from_base64(&key).unwrap().size(), size);
        assert_ne!(key, keygen(flags));
    }
}

#[test]
fn a_key_is_replaced_and_who_has_the_old_one_stays_out() {
    let old = keygen(&[]);
    let flags = ["--preset", "local", "--label", "blue", "--key", &old];
    let [mut a, mut b] = cluster(["a", "b"], &flags);
    assert_eq!(keys(&mut a), [(fingerprint(&old), 2, 2)]);

    let answer = b.ask("keys rotate", "keys");
    let new = answer["key"].as_str().unwrap().to_owned();
    assert_ne!(new, fingerprint(&old));
    for agent in [&mut a, &mut b] {
        assert_eq!(keys(agent), [(new.clone(), 2, 2)]);
    }
    a.ask("send b still here", "sent");
    assert_eq!(b.event("message")["text"], "still here");

    let mut late = Agent::start("late", &[&flags[..], &["--join", &a.addr]].concat());
    let error = late.event("error");
    let told = error["error"].as_str().unwrap();
    assert!(told.contains("keys list") && told.contains("labels"), "{told}");
    assert!(!told.contains(&old), "{told}");
    assert_eq!(a.members(), ["a", "b"]);

    // Under another label it is not better off with the right key.
    let third = keygen(&[]);
    a.ask(&format!("keys rotate {third}"), "keys");
    let flags = ["--preset", "local", "--label", "red", "--key", &third, "--join", &a.addr];
    let mut red = Agent::start("red", &flags);
    let error = red.event("error");
    assert!(error["error"].as_str().unwrap().contains("label"), "{error}");
    let flags = ["--preset", "local", "--label", "blue", "--key", &third, "--join", &a.addr];
    let mut blue = Agent::start("blue", &flags);
    blue.event("joined");
    for agent in [&mut a, &mut b] {
        agent.event_of("join", "blue");
    }
}

#[test]
fn keys_are_installed_activated_and_removed_step_by_step() {
    let (old, new) = (keygen(&[]), keygen(&["--bits", "128"]));
    let (old_name, new_name) = (fingerprint(&old), fingerprint(&new));
    let [mut a, mut b] = cluster(["a", "b"], &["--preset", "local", "--key", &old]);

    // What would cut members off is refused.
    let error = a.ask(&format!("keys activate {new}"), "error");
    let told = error["error"].as_str().unwrap();
    assert!(told.contains("cut off a, b (does not have it)"), "{told}");
    let error = a.ask(&format!("keys remove {old_name}"), "error");
    let told = error["error"].as_str().unwrap();
    assert!(told.contains("cut off a, b (seals with it)"), "{told}");
    let answer = a.ask(&format!("keys remove {new_name}"), "keys");
    assert_eq!(answer["note"], "no member had this key", "{answer}");
    let answer = a.ask(&format!("keys remove --force {old_name}"), "keys");
    assert_eq!(answer["failures"].as_object().unwrap().len(), 2, "nobody removes its primary");

    let answer = a.ask(&format!("keys install {new}"), "keys");
    assert_eq!((&answer["step"], &answer["done"]), (&"install".into(), &2.into()));
    let mut expected = [(old_name.clone(), 2, 2), (new_name.clone(), 2, 0)];
    expected.sort();
    assert_eq!(keys(&mut b), expected);
    b.ask(&format!("keys activate {new_name}"), "keys");
    let answer = b.ask(&format!("keys remove {old}"), "keys");
    assert_eq!(rows(&answer), [(new_name, 2, 2)]);
    assert!(answer["note"].is_null(), "{answer}");
    assert_eq!(answer["keys"][0]["bits"], 128);
}

#[test]
fn a_keyring_file_is_made_and_kept_up_to_date() {
    let folder = Folder::new("keyring");
    let (file, key) = (folder.file("keyring.json"), keygen(&[]));
    let mut a = Agent::start("a", &["--preset", "local", "--keyring", &file, "--key", &key]);
    let new = a.ask("keys rotate", "keys")["key"].as_str().unwrap().to_owned();
    let saved = KeyringFile::load(&file).unwrap().keys;
    let saved: Vec<String> = saved.iter().map(|key| key.fingerprint().to_string()).collect();
    assert_eq!((saved.len(), &saved[0]), (1, &new));
    drop(a);

    // The key on the command line is the one from before, and not looked at.
    let mut a = Agent::start("a", &["--preset", "local", "--keyring", &file, "--key", &key]);
    assert_eq!(keys(&mut a), [(new, 1, 1)]);

    // A file that cannot be used is told without what stands in it.
    let bad = folder.file("bad.json");
    fs::write(&bad, format!("[{key:?}, \"{}\"]", &key[1..])).unwrap();
    let output = run_to_end(&["--name", "a", "--bind", "127.0.0.1:0", "--keyring", &bad]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("key 1") && !told.contains(&key[8..24]), "{told}");
    for (text, hint) in [(key.as_str(), "a bare key is given with --key"), ("[]", "is empty")] {
        fs::write(&bad, text).unwrap();
        let output = run_to_end(&["--name", "a", "--bind", "127.0.0.1:0", "--keyring", &bad]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(told.contains(hint) && !told.contains(&key[8..24]), "{told}");
    }
}

/// First both are accepted, then both are sent, then both are required; each step restarts one agent
/// after another.
#[test]
fn a_running_cluster_is_brought_to_encryption_and_a_label() {
    let key = keygen(&[]);
    let given = ["--key", &key, "--label", "blue"];
    let accepted = [
        "--no-encrypt-outgoing",
        "--no-label-outgoing",
        "--no-verify-incoming",
        "--no-require-label",
    ];
    let steps =
        [[&given, &accepted[..]].concat(), [&given, &accepted[2..]].concat(), given.to_vec()];
    let [mut a, mut b] = cluster(["a", "b"], &["--preset", "local"]);
    for flags in steps {
        for name in ["a", "b"] {
            let (old, other) = if name == "a" { (&mut a, &mut b) } else { (&mut b, &mut a) };
            old.say("quit");
            other.event_of("leave", name);
            let join = ["--preset", "local", "--join", &other.addr];
            let mut new = Agent::start(name, &[&join[..], &flags].concat());
            new.event("joined");
            // Both know each other before the next one goes: its farewell must have somebody to go to.
            new.event_of("join", other.name);
            other.event_of("join", name);
            *old = new;
        }
    }
    assert_eq!(keys(&mut a), [(fingerprint(&key), 2, 2)]);
    let mut plain = Agent::start("plain", &["--preset", "local", "--join", &a.addr]);
    let error = plain.event("error");
    assert!(error["error"].as_str().unwrap().contains("label"), "{error}");
    assert_eq!(names(&a.ask("members", "members")["members"]), ["a", "b"]);
}
