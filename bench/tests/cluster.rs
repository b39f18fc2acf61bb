//! The comparison as a user runs it, small.
#![cfg(target_os = "linux")]

use std::process::Command;

fn bench() -> Command {
    Command::new(env!("CARGO_BIN_EXE_bench"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_whole_scenario_is_measured_and_written_down() {
    let dir = tempfile::tempdir().expect("a folder");
    let (json, plot) = (dir.path().join("all.json"), dir.path().join("all.svg"));
    let output = bench()
        .args(["cluster", "--nodes", "4", "--runs", "1", "--only", "net,quic", "--secured", "both"])
        .args(["--idle-s", "1", "--settle-s", "0", "--limit-s", "60"])
        .arg("--json")
        .arg(&json)
        .arg("--plot")
        .arg(&plot)
        .output()
        .expect("it starts");
    let (tables, lines) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{tables}\n{lines}");
    for part in ["4 nodes, plain", "4 nodes, encrypted", "mass join", "killed: last detection"] {
        assert!(tables.contains(part), "{part} is missing in:\n{tables}");
    }
    assert!(!tables.contains("never"), "{tables}");
    let report = std::fs::read_to_string(json).expect("the report");
    let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
    let run = &report["cases"][0]["runs"][0];
    assert!(run["join"]["took_s"].as_f64().is_some_and(|seconds| seconds > 0.0), "{run}");
    assert!(run["idle"]["datagrams_per_s"].as_f64().is_some_and(|rate| rate > 0.5), "{run}");
    assert_eq!(run["false_deaths"], 0);
    assert!(std::fs::read_to_string(plot).is_ok_and(|svg| svg.starts_with("<svg")));
}

#[test]
fn a_library_that_cannot_be_had_is_told_and_the_others_are_measured() {
    let output = bench()
        .env("PATH", "/nonexistent")
        .env_remove("CARGO")
        .args(["cluster", "--nodes", "4", "--runs", "1", "--parts", "broadcast", "--limit-s", "60"])
        .output()
        .expect("it starts");
    let (tables, lines) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{tables}\n{lines}");
    let told = |text: &str, library| text.find(&format!("{library}: NOT MEASURED, there is no"));
    for library in ["go", "al8n", "kinship"] {
        assert!(
            told(&tables, library).is_some_and(|at| at < tables.find('|').unwrap()),
            "{tables}"
        );
        assert!(
            told(&lines, library).is_some_and(|at| at < lines.find("seed").unwrap()),
            "{lines}"
        );
    }
    assert!(tables.contains("net: 0.1"), "{tables}");
}

#[test]
fn what_cannot_be_written_is_told_and_costs_no_figure() {
    let small = ["cluster", "--nodes", "3", "--runs", "1", "--only", "net", "--parts", "none"];
    // It can be opened.
    let output = bench().args(small).args(["--json", "/dev/full"]).output().expect("it starts");
    let (tables, lines) = (text(&output.stdout), text(&output.stderr));
    assert!(!output.status.success() && tables.contains("mass join"), "{tables}\n{lines}");
    assert!(lines.contains("not kept: /dev/full") && lines.contains("error: /dev/full"), "{lines}");

    let output = bench().args(small).args(["--json", "/nonexistent/x"]).output();
    let output = output.expect("it starts");
    let lines = text(&output.stderr);
    assert!(!output.status.success() && lines.contains("/nonexistent/x"), "{lines}");
    assert!(!lines.contains("seed") && output.stdout.is_empty(), "told before the run: {lines}");
}

#[test]
fn a_report_that_is_there_stays_until_there_is_another() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("all.json");
    std::fs::write(&path, "figures").expect("a report");
    let run = |args: &[&str]| {
        let mut bench = bench();
        bench.env("PATH", "/nonexistent").args(["cluster", "--nodes", "3", "--runs", "1"]);
        let output = bench.args(args).arg("--json").arg(&path).output().expect("it starts");
        (output.status.success(), text(&output.stderr))
    };
    let (done, lines) = run(&["--only", "go"]);
    assert!(!done && lines.contains("no library is left"), "{lines}");
    let same = path.display().to_string();
    let (done, lines) = run(&["--only", "net", "--plot", &same]);
    assert!(!done && lines.contains("the same file"), "{lines}");
    assert_eq!(std::fs::read_to_string(&path).expect("the report"), "figures");
}

/// Nobody of so few leaves, and nobody returns.
#[test]
fn what_is_not_done_has_no_figure() {
    let args = ["cluster", "--nodes", "2", "--runs", "1", "--only", "net", "--parts"];
    let output = bench().args(args).arg("leave,restart").output().expect("it starts");
    let (tables, lines) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success() && tables.contains("mass join"), "{tables}\n{lines}");
    assert!(!tables.contains("leave") && !tables.contains("return"), "{tables}");
}

#[test]
fn too_few_files_are_told_before_the_run_with_the_remedy() {
    let run = format!("ulimit -n 100; exec {} cluster --only net", env!("CARGO_BIN_EXE_bench"));
    let output = Command::new("sh").args(["-c", &run]).output().expect("it starts");
    let error = text(&output.stderr);
    assert!(!output.status.success() && error.contains("raise it with: ulimit -n"), "{error}");
    assert!(!error.contains("seed"), "nothing was measured: {error}");
}
