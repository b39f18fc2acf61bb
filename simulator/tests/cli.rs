//! The command line: what cannot be used is refused in one line, a run is the same in any process,
//! and an interrupted one tells what it knows.

use std::io::Read;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

fn simulator(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_simulator")).args(args).output().unwrap()
}

#[test]
fn what_cannot_be_used_gets_one_line_and_no_work() {
    let refused: &[(&[&str], &str)] = &[
        (&[], "command"),
        (&["explore"], "--seeds"),
        (&["explore", "--seeds", "5..5"], "first seed"),
        (&["explore", "--seeds", "9..5"], "first seed"),
        (&["explore", "--seeds", "x..5"], "no number"),
        (&["explore", "--seeds", "5"], "A..B"),
        (&["scale", "--nodes", "0"], "from 1"),
        (&["scale", "--nodes", "-3"], "nodes"),
        (&["scale", "--nodes", "9999999"], "20000"),
        (&["scale", "--seconds", "0"], "seconds"),
        (&["convergence", "--loss", "1.5"], "from 0 to"),
        (&["convergence", "--loss", "-0.1"], "loss"),
        (&["convergence", "--loss", "NaN"], "from 0 to"),
        (&["convergence", "--nodes", "0"], "from 1"),
        (&["swim", "--jobs", "0"], "jobs"),
        (&["explore", "--seeds", "0..1", "--json", "/no/such/folder/x.json"], "cannot write"),
        (&["lifeguard", "--csv", "/"], "cannot write"),
        (&["swim", "--csv", "/tmp/review-x", "--json", "/tmp/../tmp/review-x"], "two outputs"),
        (&["explore", "--seeds", "0..1", "--svg", "/tmp/review-x"], "nothing to plot"),
        (&["scale", "--nodes", "5", "--svg", "/tmp/review-x"], "nothing to plot"),
        (&["explore", "--seeds", "0..1", "--trace", "--json", "/tmp/review-x"], "--json"),
    ];
    for (args, says) in refused {
        let output = simulator(args);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {error}");
        assert_eq!(error.lines().count(), 1, "{args:?}: {error}");
        assert!(error.contains(says), "{args:?}: {error}");
        assert!(output.stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn a_seed_gives_the_same_run_in_every_process() {
    let run = || simulator(&["explore", "--seeds", "26..29", "--trace"]);
    let (one, other) = (run(), run());
    assert!(one.status.success());
    let text = String::from_utf8(one.stdout).unwrap();
    assert_eq!(text.matches("digest").count(), 3, "{text}");
    assert_eq!(text, String::from_utf8(other.stdout).unwrap());
}

#[test]
fn results_are_written_for_people_and_programs() {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    let at = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let [json, csv, markdown, svg] = ["c.json", "c.csv", "c.md", "c.svg"].map(at);
    let output = simulator(&[
        "convergence",
        "--grid",
        "small",
        "--nodes",
        "20",
        "--loss",
        "0.1",
        "--json",
        &json,
        "--csv",
        &csv,
        "--markdown",
        &markdown,
        "--svg",
        &svg,
    ]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read = |path: &str| std::fs::read_to_string(path).unwrap();
    let results: serde_json::Value = serde_json::from_str(&read(&json)).unwrap();
    let rows = results["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    assert!(rows.iter().all(|row| row["members"] == 20 && row["loss"] == 0.1), "{rows:?}");
    let csv = read(&csv);
    assert!(csv.starts_with("table,row,column,value\n"), "{csv}");
    assert!(csv.contains("\"Convergence: one update, seconds\",1,N,20\n"), "{csv}");
    assert!(read(&markdown).contains("### Convergence"));
    assert!(read(&svg).contains("<svg"));
}

#[cfg(target_os = "linux")]
#[test]
fn an_interrupted_search_tells_what_it_knows() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_simulator"))
        .args(["explore", "--seeds", "0..10000000"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Not before it listens to the signal: only then does it open its threads.
    let threads = format!("/proc/{}/task", child.id());
    let bound = Instant::now() + Duration::from_secs(60);
    while std::fs::read_dir(&threads).is_ok_and(|tasks| tasks.count() < 3) {
        assert!(Instant::now() < bound, "it did not begin to work");
        std::thread::yield_now();
    }
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1), "{text}");
    assert!(text.contains("Fault search"), "{text}");
    assert!(text.contains("Interrupted: "), "{text}");
}
