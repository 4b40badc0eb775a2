//! The commands that messages propose: each is run as it is printed, in a copy of the desk.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{LazyLock, Mutex};

use super::PACKMULE;

/// What stands for something that only the reader knows; a command with one of them need not succeed, but must be
/// right usage.
const PLACEHOLDERS: [&str; 4] = ["DB", "TABLE", "FILE", "DIRECTORY"];

/// Those that were run, by command and flags: each kind of proposal is run once by each test program.
static RUN: LazyLock<Mutex<BTreeSet<String>>> = LazyLock::new(Mutex::default);

/// The commands in what was printed: between backticks, or alone on a line that is set in. A command's bare name is
/// only mentioned, not proposed.
pub fn proposals(text: &str) -> Vec<String> {
    let quoted = text.split('`').skip(1).step_by(2);
    let alone = text.lines().filter(|line| line.starts_with("  ")).map(str::trim);
    let commands = quoted.chain(alone).filter(|command| command.starts_with("packmule "));
    let proposed = |command: &&str| {
        let words: Vec<&str> = command.split(' ').collect();
        words.len() > 2 && words[1..] != ["fleet", "new"] && words[1] != "COMMAND"
    };
    commands.filter(proposed).map(str::to_owned).collect()
}

/// Runs what a message proposes.
#[track_caller]
pub fn check(desk: &Path, line: &str, text: &str) {
    for command in proposals(text) {
        let words: Vec<&str> = command.split(' ').collect();
        // Without a root it would change this machine.
        if words[1] == "board" && !words.contains(&"--root") {
            continue;
        }
        let flags = words[2..].iter().filter(|word| word.starts_with("--"));
        let kind: Vec<&str> = [words[1]].into_iter().chain(flags.copied()).collect();
        if !RUN.lock().unwrap().insert(kind.join(" ")) {
            continue;
        }
        let copy = tempfile::tempdir().unwrap();
        copy_all(desk, copy.path());
        let path = Path::new(PACKMULE).parent().unwrap().display();
        let path = format!("{path}:{}", std::env::var("PATH").unwrap_or_default());
        let mut shell = Command::new("sh");
        shell.args(["-c", &command]).current_dir(copy.path()).env("PATH", path).stdin(Stdio::null());
        let ran = shell.output().unwrap();
        let open = words.iter().any(|word| PLACEHOLDERS.contains(word));
        let good = ran.status.success() || open && ran.status.code() == Some(1);
        let said = String::from_utf8_lossy(&ran.stderr);
        assert!(
            good,
            "`packmule {line}` proposes `{command}`, which fails:\n{said}\nIt is proposed in:\n{text}"
        );
    }
}

/// Copies what lies in a folder.
pub fn copy_all(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&target).unwrap();
            copy_all(&entry.path(), &target);
        } else if entry.path().is_file() {
            std::fs::copy(entry.path(), target).unwrap(); // A serial line's end is no file.
        }
    }
}
