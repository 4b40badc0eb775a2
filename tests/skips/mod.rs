//! What a test does where a tool that it needs is missing. With `CI` set, the test fails. Without, the check is
//! skipped: standard error says so at once, and `count.rs` counts at the end of the run what was skipped.
#![allow(dead_code, clippy::unwrap_used)] // Each test uses a part of it; helpers of tests are tests.

use std::collections::BTreeSet;
use std::fs::{OpenOptions, create_dir_all, read_to_string, remove_file};
use std::io::{Write, stderr};
use std::path::{Path, PathBuf};

/// Returns whether a missing tool fails the test.
pub fn is_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| !value.is_empty())
}

/// Skips a check, or fails with `CI` set.
///
/// # Panics
/// With `CI` set.
#[track_caller]
pub fn skip(check: &str, why: &str) {
    assert!(!is_ci(), "{check}: {why} (with CI set, no check is skipped)");
    let line = format!("{check}: {}\n", why.replace('\n', " "));
    // The harness captures what `eprintln!` writes. Whoever runs the tests should see this.
    let _ = write!(stderr(), "skipped: {line}");
    let file = file_of(run());
    let _ = create_dir_all(folder());
    let mut file = OpenOptions::new().create(true).append(true).open(&file).unwrap();
    file.write_all(line.as_bytes()).unwrap();
}

/// Takes what was skipped in a run, each check once.
pub fn take(run: u32) -> BTreeSet<String> {
    let file = file_of(run);
    let lines = read_to_string(&file).unwrap_or_default().lines().map(str::to_owned).collect();
    let _ = remove_file(&file);
    lines
}

/// The run that this test belongs to: all tests of a run are children of one Cargo.
pub fn run() -> u32 {
    #[cfg(unix)]
    return std::os::unix::process::parent_id();
    #[cfg(not(unix))]
    0
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("skipped")
}

fn file_of(run: u32) -> PathBuf {
    folder().join(run.to_string())
}
