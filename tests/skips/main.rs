//! A check whose tool is missing: it is counted, or fails.
#![allow(clippy::unwrap_used)]

#[path = "mod.rs"]
mod skips;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What the tests below run.
#[test]
#[ignore = "it needs a tool that nobody has"]
fn a_check_without_its_tool() {
    skips::skip("a check", "no-such-tool is missing");
    println!("the harness captures this");
}

fn run(ci: Option<&str>) -> Output {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--ignored", "--exact", "a_check_without_its_tool"]).env_remove("CI");
    if let Some(ci) = ci {
        child.env("CI", ci);
    }
    child.output().unwrap()
}

#[test]
fn without_ci_it_is_named_and_counted_and_with_ci_it_fails() {
    // The child's run is this process.
    let counted = || skips::take(std::process::id());
    for ci in [None, Some("")] {
        let ran = run(ci);
        assert!(ran.status.success(), "{ran:?}");
        let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        assert_eq!(err, "skipped: a check: no-such-tool is missing\n");
        assert!(!out.contains("captures"), "{out}");
        assert_eq!(counted().into_iter().collect::<Vec<_>>(), ["a check: no-such-tool is missing"]);
    }
    let ran = run(Some("true"));
    let out = String::from_utf8_lossy(&ran.stdout);
    assert!(!ran.status.success() && out.contains("a check: no-such-tool is missing"), "{out}");
    assert!(counted().is_empty());
}

/// The Rust files in a folder, with their paths.
fn sources(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
}

#[test]
fn no_test_skips_a_check_by_a_line_that_nobody_sees() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut all = Vec::new();
    sources(&here, &mut all);
    assert!(all.len() > 40);
    for (path, text) in all.iter().filter(|(path, _)| path.parent() != Some(&here.join("skips"))) {
        for (n, line) in text.lines().enumerate() {
            let words = ["skip", "not tested", "not installed", "not verified", "not there"];
            let silent = line.contains("print") && words.iter().any(|word| line.contains(word));
            assert!(!silent, "{}:{}: {line}: `skips::skip` counts it", path.display(), n + 1);
        }
    }
}
