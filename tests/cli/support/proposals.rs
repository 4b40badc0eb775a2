//! The commands that messages propose: each is run as it is printed, in a copy of the desk.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{LazyLock, Mutex};

use super::{PACKMULE, machine};

/// What stands for something that only the reader knows; a command with one of them need not succeed, but must be
/// right usage. That something is wrong, or needs a person, is what others are there to say.
const PLACEHOLDERS: [&str; 4] = ["DB", "TABLE", "FILE", "DIRECTORY"];

/// What a command that is proposed begins with.
const PROGRAMS: [&str; 6] = ["packmule ", "sqlite3 ", "sudo ", "systemctl ", "chmod ", "kill "];

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
        let flags = words[2..].iter().filter(|word| word.starts_with("--"));
        let kind: Vec<&str> = [words[1]].into_iter().chain(flags.copied()).collect();
        if !RUN.lock().unwrap().insert(kind.join(" ")) {
            continue;
        }
        let (good, said) = run_in_copy(desk, &command);
        assert!(
            good,
            "`packmule {line}` proposes `{command}`, which fails:\n{said}\nIt is proposed in:\n{text}"
        );
    }
}

/// Runs a command in a copy of a desk; whether it did what it is proposed for, and what it said is wrong.
pub fn run_in_copy(desk: &Path, command: &str) -> (bool, String) {
    let copy = tempfile::tempdir().unwrap();
    copy_all(desk, copy.path());
    let path = path();
    let ran = match changes_the_machine(command) {
        true => match machine::run(copy.path(), command, &path) {
            Some(ran) => ran,
            None => {
                // In CI nothing is skipped.
                let why = "this machine makes no namespaces, so that it is not run";
                assert!(std::env::var_os("CI").is_none(), "`{command}`: {why}");
                return (true, why.into());
            }
        },
        false => {
            let mut shell = Command::new("sh");
            shell.args(["-c", command]).current_dir(copy.path()).env("PATH", path).stdin(Stdio::null());
            shell.output().unwrap()
        }
    };
    let good = match ran.status.code() {
        Some(0) => true,
        Some(1) => {
            command.starts_with("packmule verify ")
                || command.split(' ').any(|word| PLACEHOLDERS.contains(&word))
        }
        Some(3) => command.contains(" --check"),
        // It says what is wrong; so does its exit status.
        Some(11) => command.ends_with("'PRAGMA integrity_check'"),
        _ => false,
    };
    (good, String::from_utf8_lossy(&ran.stderr).into_owned())
}

/// Where programs are looked for: this one first.
pub fn path() -> String {
    let path = Path::new(PACKMULE).parent().unwrap().display();
    format!("{path}:{}", std::env::var("PATH").unwrap_or_default())
}

/// Returns whether a command changes more than the files of a desk.
fn changes_the_machine(command: &str) -> bool {
    let of_board = command.starts_with("packmule board ") && !command.contains(" --root");
    of_board || ["sudo ", "systemctl "].iter().any(|program| command.starts_with(program))
}

/// The command in a text that is proposed in these words, in which `*` is anything of its line.
pub fn proposed(text: &str, words: &str) -> Option<String> {
    let line = text.lines().find_map(|line| (0..line.len()).find_map(|at| fits(line.get(at..)?, words)))?;
    let begins = PROGRAMS.iter().filter_map(|program| Some((words.find(program)?, *program)));
    let command = &line[line.find(begins.min()?.1)?..];
    Some(command.split('`').next().unwrap_or(command).trim_end().to_owned())
}

/// The text, if it begins with these words.
fn fits<'t>(text: &'t str, words: &str) -> Option<&'t str> {
    let mut parts = words.split('*');
    let mut rest = text.strip_prefix(parts.next()?)?;
    for part in parts {
        let at = rest.find(part)?;
        rest = &rest[at + part.len()..];
    }
    Some(text)
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
