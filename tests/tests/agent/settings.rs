//! Settings from files, and settings that change while it runs.

use std::fs;
use std::process::Command;

use crate::program::{Agent, Folder, KEY, program, run_to_end};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_file_says_what_flags_do_not_and_comes_back_as_it_is() {
    let folder = Folder::new("settings");
    let (toml, json) = (folder.file("a.toml"), folder.file("a.json"));
    let settings = "name = \"a\"\nlabel = \"blue\"\nmeta = \"zone=1\"\n\
        [protocol]\npreset = \"local\"\nprobe_interval = \"2s\"\n\
        [agent]\nbind = \"127.0.0.1:0\"\njson = true\n";
    fs::write(&toml, settings).unwrap();
    let mut command = Command::new(program());
    command.args(["--config", &toml, "--label", "red"]);
    let mut agent = Agent::spawn("a", command);
    let answer = agent.ask("settings", "settings");
    assert_eq!(answer["settings"]["probe_interval"], "2s");
    assert_eq!(answer["settings"]["gossip_interval"], "100ms", "of the preset");
    let lan = run_to_end(&["--config", &toml, "--preset", "lan", "--print-config"]);
    let lan = text(&lan.stdout);
    assert!(lan.contains("gossip_interval = \"200ms\"") && lan.contains("probe_interval = \"2s\""));

    // What it prints is such a file, in either form.
    let printed = run_to_end(&["--config", &toml, "--print-config"]);
    assert_eq!(printed.status.code(), Some(0));
    fs::write(&toml, &printed.stdout).unwrap();
    let again = run_to_end(&["--config", &toml, "--print-config"]);
    assert_eq!(text(&again.stdout), text(&printed.stdout));
    assert!(text(&printed.stdout).contains("probe_interval = \"2s\""));
    fs::write(
        &json,
        r#"{"name": "a", "protocol": {"preset": "local", "probe_interval": "2s"},
        "label": "blue", "meta": "zone=1", "agent": {"bind": "127.0.0.1:0", "json": true}}"#,
    )
    .unwrap();
    let again = run_to_end(&["--config", &json, "--print-config"]);
    assert_eq!(text(&again.stdout), text(&printed.stdout));
}

#[test]
fn every_fault_of_a_file_is_told_in_one_line_with_what_was_meant() {
    let folder = Folder::new("faults");
    let file = folder.file("a.toml");
    let cases = [
        (
            "nam = \"x\"\nevent_capacity = 0\n[protocol]\nprobe_intervall = \"2s\"\nretransmit_mult = 0\n",
            &[
                "`nam`, did you mean `name`?",
                "`event_capacity` must be at least 1",
                "`protocol.probe_intervall`, did you mean `protocol.probe_interval`?",
                "`protocol.retransmit_mult` must be between",
            ][..],
        ),
        ("[protocol]\nprobe_interval = 5\n", &["`protocol.probe_interval`", "200ms"]),
        ("[agent]\nconfig = \"b.toml\"\n", &["unknown setting `agent.config`"]),
        ("[agent]\nhelp = true\n", &["unknown setting `agent.help`"]),
        (
            "lable = \"x\"\n[protocol]\ngossip_nodes = \"3\"\n[agent]\nbindd = \"x\"\nname = \"b\"\n",
            &[
                "`agent.bindd`, did you mean `agent.bind`?",
                "`agent.name` stands at the top",
                "did you mean `label`?",
                "`protocol.gossip_nodes`: invalid type",
            ],
        ),
        ("[agent]\nbind = { x = 1 }\n", &["`agent.bind`"]),
        ("name = \n", &["a.toml"]),
    ];
    for (settings, says) in cases {
        fs::write(&file, settings).unwrap();
        let output = run_to_end(&["--name", "q", "--bind", "127.0.0.1:0", "--config", &file]);
        assert_eq!(output.status.code(), Some(2), "{settings}");
        let error = text(&output.stderr);
        for part in says {
            assert!(error.contains(part), "{part}: {error}");
        }
    }
    fs::write(&file, "lable = \"x\"\n").unwrap();
    let unbound = text(&run_to_end(&["--config", &file]).stderr);
    for part in ["--name is missing", "--bind is missing", "did you mean `label`?"] {
        assert!(unbound.contains(part), "{part}: {unbound}");
    }
    let missing = run_to_end(&["--name", "q", "--config", &folder.file("none.toml")]);
    assert!(text(&missing.stderr).contains("none.toml"));
    let unnamed = run_to_end(&["--bind", "127.0.0.1:0"]);
    assert!(text(&unnamed.stderr).contains("--name is missing"));
}

#[test]
fn settings_change_while_it_runs_or_nothing_does() {
    let mut agent = Agent::start("a", &["--preset", "local"]);
    agent.ask("set gossip_nodes 5", "set");
    agent.ask("set probe_interval 2s", "set");
    let settings = agent.ask("settings", "settings")["settings"].take();
    assert_eq!((&settings["gossip_nodes"], &settings["probe_interval"]), (&5.into(), &"2s".into()));
    for (command, says) in [
        ("set wire_format mixed", "need a restart: wire_format"),
        ("set probe_interval 5", "`probe_interval`"),
        ("set probe_timeout 1h", "`probe_timeout` must be less than probe_interval"),
        ("set gosip_nodes 5", "did you mean `gossip_nodes`?"),
        ("set gossip_nodes", "VALUE"),
        ("set log =!=", "log"),
        ("set preset wan", "one of application_versions, awareness_max_multiplier"),
    ] {
        agent.say(command);
        let error = agent.wait(command, |line| line["event"] == "error");
        assert_eq!(error["command"], "set");
        let text = error["error"].as_str().unwrap();
        assert!(text.contains(says) || command.contains(says), "{command}: {text}");
    }
    agent.ask("set log debug", "set");
    assert_eq!(agent.ask("settings", "settings")["settings"], settings);
}

/// Prints the settings of this file, which the printed ones are put in place of, and printed again.
fn printed_twice(file: &str) -> [String; 2] {
    [(); 2].map(|()| {
        let printed = run_to_end(&["--config", file, "--print-config"]);
        assert_eq!(printed.status.code(), Some(0), "{}", text(&printed.stderr));
        fs::write(file, &printed.stdout).unwrap();
        text(&printed.stdout)
    })
}

#[test]
fn settings_that_are_printed_are_whole_over_either_transport() {
    let folder = Folder::new("whole");
    let file = folder.file("a.toml");
    let quic = "transport = \"quic\"\ntls_cert = \"c\"\ntls_key = \"k\"\ntls_ca = \"ca\"\nbind_name = true\n";
    for transport in ["", quic] {
        let settings = format!(
            "name = \"a\"\nseeds = [\"x\"]\n[agent]\nbind = \"127.0.0.1:0\"\nstate = \"s\"\n{transport}"
        );
        fs::write(&file, settings).unwrap();
        let [first, second] = printed_twice(&file);
        assert_eq!(first, second);
        for line in transport.lines().chain(["state = \"s\""]) {
            assert!(first.contains(line), "{line}: {first}");
        }
    }
}

fn refusal(file: &str, settings: &str) -> String {
    fs::write(file, settings).unwrap();
    let output = run_to_end(&["--bind", "127.0.0.1:0", "--config", file, "--print-config"]);
    assert_eq!(output.status.code(), Some(2), "{settings}: {}", text(&output.stderr));
    text(&output.stderr)
}

#[test]
fn json_names_each_setting_once_and_is_told_by_name_what_toml_cannot_hold() {
    let folder = Folder::new("json");
    let file = folder.file("a.json");
    let with = |more: &str| {
        let settings =
            format!("{{\"name\": \"a\", \"agent\": {{\"bind\": \"127.0.0.1:0\"}}, {more}}}");
        refusal(&file, &settings)
    };
    let twice = with(r#""label": "a", "label": "b""#);
    assert!(twice.contains("`label` is given twice"), "{twice}");
    let large = with(r#""max_buffered_stream_bytes": 18446744073709551615"#);
    assert!(large.contains("`max_buffered_stream_bytes`"), "{large}");
}

#[test]
fn no_error_about_a_file_repeats_a_key() {
    let folder = Folder::new("secret");
    let file = folder.file("a.toml");
    for settings in [
        "encryption = \"KEY\"",
        "[encryption]\nkeys = [KEY]",
        "[encryption]\nkeys = [\"KEY\"\nencrypt_outgoing = true",
        "[encryption]\nkeys = [\"KEY\", [\"KEY\"]]",
        "[encryption]\nkeyring_file = \"KEY\"",
        "event_capacity = \"KEY\"",
        "[agent]\nkeyy = \"KEY\"",
        "[agent]\nkey = { a = \"KEY\" }",
        "[agent]\nbind = \"KEY\"",
        "[agent]\njson = \"KEY\"",
        "[agent]\nbind = \"xKEY\"",
    ] {
        let settings = format!("name = \"a\"\n{settings}\n").replace("KEY", KEY);
        let told = refusal(&file, &settings);
        assert!(!told.contains(&KEY[4..20]), "{settings}: {told}");
    }
}
