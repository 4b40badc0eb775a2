//! Runs every shell block of the README, so that what it promises can be typed.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::process::Command;

use support::{PACKMULE, unfolded};

fn readme() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md")).unwrap()
}

/// The code blocks with this tag.
fn blocks(text: &str, tag: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<(bool, String)> = None;
    for line in text.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(info)) => open = Some((info == tag, String::new())),
            (Some(_), Some(_)) => {
                blocks.extend(open.take().filter(|(wanted, _)| *wanted).map(|(_, block)| block))
            }
            (Some((_, block)), None) => {
                block.push_str(line);
                block.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block without an end");
    blocks
}

#[test]
fn every_shell_block_runs() {
    let text = readme();
    let shell = blocks(&text, "sh");
    assert!(!shell.is_empty(), "the README has no shell block");
    let program = Path::new(PACKMULE).parent().unwrap().display();
    let path = format!("{program}:{}", std::env::var("PATH").unwrap_or_default());
    // One after the other in one directory, as a reader would.
    let directory = tempfile::tempdir().unwrap();
    for block in shell {
        println!("{block}");
        let output = Command::new("bash")
            .args(["-euo", "pipefail", "-c", &block])
            .current_dir(directory.path())
            .env("PATH", &path)
            .output()
            .unwrap();
        let out = unfolded(&String::from_utf8_lossy(&output.stdout));
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{block}\n{out}{err}");
        assert!(err.is_empty(), "{block}\n{err}");
        println!("{out}");
        // What a block says that it prints, it prints.
        for line in block.lines().filter_map(|line| line.split_once("# -> ")) {
            assert!(out.contains(line.1.trim()), "`{}` is not in what it prints:\n{out}", line.1);
        }
    }
}

/// Too long to run here, or for a board that is not here. What they rest on is looked at: the demo has a test
/// of its own, this is one of the tests, CI makes the packages, and `tests/stories/board.rs` sets up a board.
#[test]
fn the_long_commands_are_those_of_the_workspace() {
    let console = blocks(&readme(), "console").join("\n");
    let manifest = include_str!("../../tools/packmule/Cargo.toml");
    assert!(manifest.contains("name = \"packmule-cli\"") && manifest.contains("name = \"packmule\""));
    let deb = format!("packmule_{}_arm64.deb", env!("CARGO_PKG_VERSION"));
    let commands: Vec<&str> = console.lines().filter_map(|line| line.strip_prefix("$ ")).collect();
    let expected = [
        "cargo run --release -p packmule-cli -- demo",
        "cargo test --workspace",
        "cargo install --locked --path tools/packmule",
        "just deb pi-zero-2w",
        &format!("scp target/{deb} pi@board:"),
        &format!("ssh pi@board sudo apt install ./{deb}"),
        "sudo packmule board install /home/pi/station/data.db",
        "packmule board check",
    ];
    assert_eq!(commands, expected);
    let ci = include_str!("../../.ci/run");
    assert!(ci.contains("tools/deb pi-zero-2w"), "CI makes the package that the README tells of");
    let just = include_str!("../../Justfile");
    assert!(just.contains("\ndeb BOARD:\n    tools/deb {{BOARD}}") && just.contains("\nbuild BOARD:"));
}

#[test]
fn every_promise_has_its_row() {
    let text = readme();
    for name in [
        "01_append_only",
        "02_causal",
        "03_deterministic",
        "04_explicit_conflicts",
        "05_idempotent",
        "06_any_carrier",
        "07_atomic",
        "08_crash_safe",
        "09_bounded",
        "10_any_writer",
        "11_authentic",
        "12_no_twins",
        "13_contained",
        "14_by_itself",
    ] {
        assert!(text.contains(&format!("tests/promise_{name}.rs")), "{name}");
    }
}
