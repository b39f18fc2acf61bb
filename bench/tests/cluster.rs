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
    for library in ["go", "al8n", "kinship"] {
        assert!(tables.contains(&format!("{library}: NOT MEASURED, there is no")), "{tables}");
    }
    assert!(tables.contains("net: 0.1"), "{tables}");
}

#[test]
fn too_few_files_are_told_before_the_run_with_the_remedy() {
    let run = format!("ulimit -n 100; exec {} cluster --only net", env!("CARGO_BIN_EXE_bench"));
    let output = Command::new("sh").args(["-c", &run]).output().expect("it starts");
    let error = text(&output.stderr);
    assert!(!output.status.success() && error.contains("raise it with: ulimit -n"), "{error}");
    assert!(!error.contains("seed"), "nothing was measured: {error}");
}
