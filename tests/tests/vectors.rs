//! The machine and the outer layers against what HashiCorp's Go memberlist was seen to do.
//!
//! Every case of every `*.json` file in `vectors/hashicorp/` is run. What a case asks is recognised
//! by its fields, so more cases of a known kind, in files of any name, need no code; a case of an
//! unknown kind fails. Where this library means to differ, `vectors/departures.rs` says so.

mod vectors {
    pub(crate) mod case;
    pub(crate) mod departures;
    mod formulas;
    mod go;
    mod queue_and_ring;
    mod security;
    mod suspicion;
    pub(crate) mod transitions;
    pub(crate) mod wire;

    use case::{Case, Outcome};

    /// What a case is about, or nothing if no runner knows it.
    pub(crate) fn run(case: &Case) -> Option<Outcome> {
        let runner = [
            transitions::runner(case),
            suspicion::runner(case),
            formulas::runner(case),
            queue_and_ring::runner(case),
            security::runner(case),
            wire::runner(case),
        ];
        let runner = runner.into_iter().flatten().next()?;
        Some(runner(case))
    }
}

use std::path::PathBuf;

use vectors::case::{Case, Mismatch, read_file};
use vectors::{departures, transitions, wire};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors/hashicorp")
}

fn report(cases: usize, mismatches: &[Mismatch]) {
    let list: Vec<String> = mismatches.iter().map(Mismatch::to_string).collect();
    let (wrong, list) = (list.len(), list.join("\n"));
    assert!(mismatches.is_empty(), "{wrong} mismatches in {cases} cases:\n{list}");
}

#[test]
fn vectors_captured_from_go() {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder())
        .expect("the folder of the vectors can be read")
        .map(|entry| entry.expect("the folder of the vectors can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no vectors in {}", folder().display());

    let (mut cases, mut mismatches) = (0, Vec::new());
    for file in &files {
        match read_file(file) {
            Ok(found) => {
                cases += found.len();
                found.iter().for_each(|case| run_one(case, &mut mismatches));
            }
            Err(mismatch) => mismatches.push(mismatch),
        }
    }
    report(cases, &mismatches);
}

fn run_one(case: &Case, mismatches: &mut Vec<Mismatch>) {
    match vectors::run(case) {
        Some(Ok(found)) => mismatches.extend(found),
        Some(Err(fault)) => mismatches.push(case.fault(&fault)),
        None => mismatches.push(case.fault("a case of an unknown kind: teach a runner its fields")),
    }
}

/// Each departure has cases of its own, so that none rests on what was captured by chance.
#[test]
fn vectors_departures_are_what_the_machine_does() {
    let mut mismatches = Vec::new();
    let mut cases = 0;
    for departure in departures::ALL {
        assert!(!departure.examples.is_empty(), "{}: no example", departure.reason);
        for (initial, message) in departure.examples {
            let case = transitions::example(initial, message);
            let inputs = transitions::Inputs::read(&case).expect("an example can be read");
            let applied: Vec<_> = departures::of(&inputs).map(|d| d.reason).collect();
            assert_eq!(applied, [departure.reason], "{}", case.name);
            run_one(&case, &mut mismatches);
            cases += 1;
        }
    }
    report(cases, &mismatches);
}

/// A runner that compares nothing would agree with everything.
#[test]
fn vectors_that_are_wrong_are_found() {
    let files = std::fs::read_dir(folder()).expect("the folder of the vectors can be read");
    for file in files.map(|entry| entry.expect("the folder can be read").path()) {
        let mut cases = read_file(&file).expect("the file can be read");
        for case in &mut cases {
            // What is expected of those is not in the file.
            let inputs = transitions::Inputs::read(case);
            if inputs.is_ok_and(|inputs| departures::of(&inputs).next().is_some()) {
                continue;
            }
            match wire::has_free_values(case) {
                true => case.cut(),
                false => case.spoil(),
            }
            let mut mismatches = Vec::new();
            run_one(case, &mut mismatches);
            assert!(!mismatches.is_empty(), "{}: a wrong result passes", case.name);
        }
    }
    let mut mismatches = Vec::new();
    run_one(&Case::of_unknown_kind(), &mut mismatches);
    assert!(mismatches[0].to_string().contains("unknown kind"));
}
