//! Runs the program as a person or a script does, and writes to databases as any application does.
#![allow(dead_code, clippy::unwrap_used, clippy::panic)] // Tests; and not every one uses all of it.

pub mod executable;
pub mod json;
mod machine;
pub mod program;
pub mod proposals;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rusqlite::Connection;
use rusqlite::types::Value as Sql;
use serde_json::Value;

/// The program that is tested.
pub const PACKMULE: &str = env!("CARGO_BIN_EXE_packmule");

/// A directory with databases in it.
pub struct Desk {
    dir: tempfile::TempDir,
}

impl Desk {
    /// An empty one.
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// With a fleet key, a base, and boards with a `settings` and a `readings` table, tracked.
    pub fn fleet(boards: &[&str]) -> Self {
        let desk = Self::new();
        desk.run("fleet new fleet.key").ok();
        desk.run("init base.db --name base --fleet fleet.key --base").ok();
        for board in boards {
            desk.run(&format!("init {board}.db --name {board} --fleet fleet.key")).ok();
            desk.sql(
                &format!("{board}.db"),
                "CREATE TABLE settings (key TEXT PRIMARY KEY, value, note TEXT);
                 CREATE TABLE readings (id INTEGER PRIMARY KEY AUTOINCREMENT, value REAL);",
            );
            desk.run(&format!("track {board}.db settings")).ok();
            desk.run(&format!("track {board}.db readings --mode per-device --append")).ok();
        }
        desk
    }

    /// With one open conflict at the base and on both boards; its id.
    pub fn conflict() -> (Self, String) {
        let desk = Self::fleet(&["north", "east"]);
        desk.sql("north.db", "INSERT INTO settings VALUES ('interval', 60, 'factory')");
        desk.carry("north", "base");
        desk.carry("base", "east");
        desk.sql("north.db", "UPDATE settings SET value = 30");
        desk.sql("east.db", "UPDATE settings SET value = 10");
        desk.carry("north", "base");
        desk.carry("east", "base");
        let id =
            desk.run("conflicts base.db --json").json()["conflicts"][0]["id"].as_str().unwrap().to_owned();
        (desk, id)
    }

    /// Copies a board's card, with its database and its key, into a folder.
    pub fn copy_card(&self, board: &str, folder: &str) {
        std::fs::create_dir_all(self.path(folder)).unwrap();
        for file in [format!("{board}.db"), format!("{board}.db.pmkey")] {
            std::fs::copy(self.path(&file), self.path(folder).join(&file)).unwrap();
        }
    }

    /// A bundle from one to the other.
    pub fn carry(&self, from: &str, to: &str) {
        self.run(&format!("export {from}.db {from}-to-{to}.pmb")).ok();
        self.run(&format!("import {to}.db {from}-to-{to}.pmb")).ok();
    }

    /// Lets a device fold all that it has: the only other one that it knows was retired.
    pub fn compact_alone(&self, name: &str, fleet: &str) {
        let others = ["init", "gone.db", "--name", "gone", "--fleet", fleet];
        self.run_words(&others).ok();
        self.carry("gone", name);
        self.run(&format!("retire {name}.db gone")).ok();
        self.run(&format!("compact {name}.db")).ok();
    }

    /// A path in it.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs `packmule` in it, with words set apart by spaces.
    pub fn run(&self, line: &str) -> Ran {
        self.run_words(&line.split(' ').collect::<Vec<_>>())
    }

    /// Runs `packmule` in it, and what it proposes in a copy of it.
    pub fn run_words(&self, words: &[impl AsRef<OsStr>]) -> Ran {
        let mut command = self.command(words);
        let ran = Ran::of(command.stdin(Stdio::null()).output().unwrap(), words);
        let ran = Ran { desk: self.dir.path().to_owned(), ..ran };
        check_code(&ran);
        // Examples of help, words of completions, and what the demo shows of its own folder, are not about this desk.
        if !["help", "--help", "completions", "demo"].iter().any(|word| ran.line.contains(word)) {
            proposals::check(self.dir.path(), &ran.line, &format!("{}\n{}", ran.out, ran.err));
        }
        ran
    }

    /// Runs `packmule` in it with so much of time or memory, as the shell's `ulimit` takes it.
    pub fn run_within(&self, limits: &[&str], line: &str) -> Ran {
        let limits: String = limits.iter().map(|limit| format!("ulimit {limit} && ")).collect();
        let mut command = Command::new("sh");
        command.current_dir(self.dir.path()).args(["-c", &format!("{limits}exec \"$0\" {line}"), PACKMULE]);
        let words: Vec<&str> = line.split(' ').collect();
        Ran::of(command.stdin(Stdio::null()).output().unwrap(), &words)
    }

    /// Runs commands, as a shell takes them, on a machine that they may change: its databases are in /var/lib/packmule; nothing
    /// where no such machine can be made.
    pub fn run_on_machine(&self, line: &str) -> Option<Ran> {
        let ran = Ran::of(machine::run(self.dir.path(), line, &proposals::path())?, &[line]);
        Some(Ran { desk: self.dir.path().to_owned(), ..ran })
    }

    /// Makes a program of these lines of the shell.
    pub fn script(&self, name: &str, lines: &str) {
        executable::make(&self.path(name), &format!("#!/bin/sh\n{lines}\n"));
    }

    /// The command, not run yet.
    pub fn command(&self, words: &[impl AsRef<OsStr>]) -> Command {
        let mut command = Command::new(PACKMULE);
        command.current_dir(self.dir.path()).args(words);
        command
    }

    /// Runs SQL as an application does.
    pub fn sql(&self, database: &str, sql: &str) {
        Connection::open(self.path(database)).unwrap().execute_batch(sql).unwrap();
    }

    /// The rows of a query.
    pub fn rows(&self, database: &str, sql: &str) -> Vec<Vec<Sql>> {
        rows(&Connection::open(self.path(database)).unwrap(), sql)
    }

    /// The first value of a query.
    pub fn value(&self, database: &str, sql: &str) -> Sql {
        self.rows(database, sql)[0][0].clone()
    }

    /// All that is in a database, Packmule's own tables too.
    pub fn dump(&self, database: &str) -> Vec<Vec<Vec<Sql>>> {
        let db = Connection::open(self.path(database)).unwrap();
        let mut all = vec![rows(&db, "SELECT type, name, sql FROM sqlite_schema ORDER BY type, name")];
        for table in rows(&db, "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name") {
            let Sql::Text(name) = &table[0] else { panic!("{table:?}") };
            let mut of_table = rows(&db, &format!("SELECT * FROM \"{name}\""));
            of_table.sort_by_key(|row| format!("{row:?}"));
            all.push(of_table);
        }
        all
    }

    /// The names of all files in it.
    pub fn files(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.ends_with("-wal") && !name.ends_with("-shm"))
            .collect();
        names.sort();
        names
    }
}

fn rows(db: &Connection, sql: &str) -> Vec<Vec<Sql>> {
    let mut statement = db.prepare(sql).unwrap();
    let columns = statement.column_count();
    let rows = statement.query_map([], |row| (0..columns).map(|at| row.get(at)).collect());
    rows.unwrap().collect::<rusqlite::Result<_>>().unwrap()
}

/// What fails with a document says so in it, with a code of the page.
fn check_code(ran: &Ran) {
    if ran.status != Some(1) || !ran.line.split(' ').any(|word| word == "--json") {
        return;
    }
    let page = include_str!("../../../src/docs/errors.md");
    let Ok(document) = serde_json::from_str::<Value>(&ran.out) else {
        panic!("packmule {}: no document\n{}{}", ran.line, ran.out, ran.err)
    };
    let code = document["code"].as_str().unwrap_or_else(|| panic!("packmule {}: {document}", ran.line));
    assert!(document["error"].is_string() && page.contains(&format!("\n| `{code}` |")), "{document}");
}

/// What a run of the program printed, and how it ended.
pub struct Ran {
    /// The exit status.
    pub status: Option<i32>,
    /// Standard output, with sentences whole that were folded into lines of 80.
    pub out: String,
    /// Standard error, the same.
    pub err: String,
    /// What a screen shows of both.
    pub screen: String,
    line: String,
    /// Where it ran; empty if it was not at a desk.
    desk: PathBuf,
}

impl Ran {
    /// Of a run.
    pub fn of(output: Output, words: &[impl AsRef<OsStr>]) -> Self {
        let words: Vec<_> = words.iter().map(|word| word.as_ref().to_string_lossy().into_owned()).collect();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        Self {
            status: output.status.code(),
            out: unfolded(&out),
            err: unfolded(&err),
            screen: format!("{out}{err}"),
            line: words.join(" "),
            desk: PathBuf::new(),
        }
    }

    /// The same, run at a desk.
    pub fn at(self, desk: &Desk) -> Self {
        Self { desk: desk.dir.path().to_owned(), ..self }
    }

    /// It proposes a command in words that fit these, where `*` is anything; and the command, as it is printed, works.
    #[track_caller]
    pub fn proposes(self, words: &str) -> Self {
        self.proposes_with(words, &[])
    }

    /// The same, with what only the reader knows in the place of what stands for it.
    #[track_caller]
    pub fn proposes_with(self, words: &str, known: &[(&str, &str)]) -> Self {
        let text = format!("{}\n{}", self.out, self.err);
        let Some(command) = proposals::proposed(&text, words) else {
            panic!("packmule {}: `{words}` is not proposed:\n{text}", self.line)
        };
        let put = |command: String, (name, is): &(&str, &str)| command.replace(name, is);
        let command = known.iter().fold(command, put);
        let (good, said) = proposals::run_in_copy(&self.desk, &command);
        assert!(good, "`{command}`, as it is proposed, fails:\n{said}\n{text}");
        self
    }

    fn ended(&self, status: i32) {
        assert_eq!(self.status, Some(status), "packmule {}\n{}{}", self.line, self.out, self.err);
        assert!(!self.err.contains("panicked"), "{}", self.err);
    }

    /// It was done, without a word on standard error; what it printed.
    pub fn ok(self) -> String {
        self.ended(0);
        assert_eq!(self.err, "", "packmule {}", self.line);
        self.out
    }

    /// It was done; its document.
    pub fn json(self) -> Value {
        self.ended(0);
        serde_json::from_str(&self.out)
            .unwrap_or_else(|e| panic!("packmule {}: {e}\n{}", self.line, self.out))
    }

    /// It was refused: status 1, and a reason on standard error that names the file.
    pub fn refused(self, file: &str) -> String {
        self.ended(1);
        let named = self.err.starts_with(&format!("packmule: {file}: "));
        assert!(named, "packmule {}: should begin with the file {file}: {}", self.line, self.err);
        // What the reason says to run can be run: no placeholder is left in it.
        assert!(!self.err.contains(" DB"), "{}", self.err);
        self.err
    }

    /// It was wrong usage: status 2, and the usage line.
    pub fn usage(self) -> String {
        self.ended(2);
        assert!(self.err.contains("\nusage: packmule "), "packmule {}: {}", self.line, self.err);
        assert_eq!(self.out, "", "packmule {}", self.line);
        self.err
    }
}

/// Text without the line ends that only make it fit into 80 columns: a line that goes on is set in by two more.
pub fn unfolded(text: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    // Of the line before: how far it is set in, and how wide it stands there.
    let (mut indent, mut wide) = (0, 0);
    for line in text.lines() {
        let begins = line.trim_start();
        let set_in = line.len() - begins.len();
        // A command between backquotes is one word.
        let mut words = begins.split_inclusive(' ');
        let mut word = words.next().unwrap_or_default().to_owned();
        while word.matches('`').count() % 2 == 1 {
            let Some(more) = words.next() else { break };
            word.push_str(more);
        }
        let command = word == "packmule " || word.is_empty();
        let too_wide = wide + 1 + word.trim_end().chars().count() > 80;
        let goes_on = wide > 0 && set_in == indent + 2 && too_wide && !command;
        wide = line.chars().count();
        // One that stands alone, set in, is not folded, and nothing goes on after it.
        let whole =
            |before: &&mut String| before.trim_start().starts_with("packmule ") && before.starts_with(' ');
        match lines.last_mut().filter(|before| goes_on && !whole(before)) {
            Some(before) => before.extend([" ", begins]),
            None => {
                indent = set_in;
                lines.push(line.to_owned());
            }
        }
    }
    lines.join("\n") + if text.ends_with('\n') { "\n" } else { "" }
}

/// Checks that text has each of these, in this order.
#[track_caller]
pub fn has(text: &str, wanted: &[&str]) {
    let mut rest = text;
    for part in wanted {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => panic!("`{part}` is not there, or not in its place:\n{text}"),
        }
    }
}

/// Checks that every command that the help has is among these lines, or among those that are left out with a reason.
pub fn not_forgotten(lines: &[String], left_out: &[(&str, &str)]) {
    let help = Desk::new().run("--help").ok();
    let is_word = |word: &&str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase());
    let commands: Vec<String> = help
        .lines()
        .take_while(|line| !line.starts_with("flags"))
        .filter_map(|line| line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ')))
        .map(|line| line.split("  ").next().unwrap_or(line))
        .map(|line| line.split(' ').take_while(is_word).collect::<Vec<_>>().join(" "))
        .collect();
    assert!(commands.len() > 35 && commands.contains(&"fleet rotate".to_owned()), "{commands:?}");
    let is_in = |line: &str, command: &str| line == command || line.starts_with(&format!("{command} "));
    let left: Vec<&String> = commands
        .iter()
        .filter(|command| !lines.iter().any(|line| is_in(line, command)))
        .filter(|command| !left_out.iter().any(|(name, _)| *name == command.as_str()))
        .collect();
    assert!(left.is_empty(), "no line here tries {left:?}");
}
