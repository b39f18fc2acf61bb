//! House rules that a machine can check.

use std::fs;
use std::path::{Path, PathBuf};

const MAX_LINES: usize = 1000;

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                rust_files(&path, found);
            }
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
}

fn all_rust_files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    rust_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".."), &mut found);
    assert!(found.len() > 50, "only {} files were found", found.len());
    found
}

#[test]
fn no_file_is_too_long_to_read() {
    for path in all_rust_files() {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= MAX_LINES, "{} has {lines} lines", path.display());
    }
}

#[test]
fn only_tests_of_the_native_format_know_bincode() {
    for path in all_rust_files() {
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let is_here = path.ends_with("tidy.rs");
        assert!(is_here || !code.contains("bincode::"), "{} uses bincode", path.display());
    }
}
