//! Applications as people have them, with their own migrations, rolled out board by board with a card between: README.md.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests are tests.

#[path = "../skips/mod.rs"]
mod skips;
#[path = "../cli/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::Desk;

const BOARDS: [&str; 2] = ["north", "east"];
const DEVICES: [&str; 3] = ["north", "east", "base"];

/// An application, and the folder in which its databases lie.
struct Writer {
    script: &'static str,
    tables: &'static str,
    /// Whether the base runs the application too; if not, it has the tables from Packmule.
    at_base: bool,
    /// The last version that is rolled out.
    last: usize,
    desk: Desk,
}

/// Returns the Python that has what the applications need, if it has this module.
fn python(module: &str) -> Option<PathBuf> {
    let python = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../writers/bin/python");
    let import = Command::new(&python).args(["-c", &format!("import {module}")]).output();
    match import {
        Ok(ran) if ran.status.success() => Some(python),
        Ok(_) => {
            skips::skip(module, "target/writers does not have it");
            None
        }
        Err(_) => {
            skips::skip(module, "there is no target/writers");
            None
        }
    }
}

impl Writer {
    /// Runs the application; it must succeed. Returns what it printed.
    fn app(&self, python: &Path, database: &str, command: &str, version: usize, words: &str) -> String {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/writers").join(self.script);
        let ran = Command::new(python)
            .arg(script)
            .arg(self.desk.path(database))
            .args([command, &version.to_string()])
            .args(words.split_whitespace())
            .output()
            .unwrap();
        let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        assert!(ran.status.success(), "{} {database} {command} {version} {words}: {out}{err}", self.script);
        out.into_owned()
    }

    /// Everybody meets the card, so many times over.
    fn rounds(&self, times: usize) {
        for name in DEVICES.iter().cycle().take(times * DEVICES.len()) {
            let ran = self.desk.run(&format!("exchange {name}.db card"));
            assert_eq!(ran.status, Some(0), "{name}: {}{}", ran.out, ran.err);
        }
    }

    /// Rolls out the versions, and compares with one database that had all writes from the first.
    fn plays(&self, module: &str) {
        let Some(python) = python(module) else { return };
        let app = |db: &str, command: &str, version: usize, words: &str| {
            self.app(&python, &format!("{db}.db"), command, version, words)
        };
        let desk = &self.desk;
        std::fs::create_dir(desk.path("card")).unwrap();
        desk.run("fleet new fleet.key").ok();
        desk.run("init base.db --name base --fleet fleet.key --base").ok();
        for board in BOARDS {
            desk.run(&format!("init {board}.db --name {board} --fleet fleet.key")).ok();
        }
        for db in ["control", "north"] {
            app(db, "migrate", 1, "");
            app(db, "begin", 1, &BOARDS.join(" "));
        }
        for db in &DEVICES[..if self.at_base { 3 } else { 2 }] {
            if *db != "north" {
                app(db, "migrate", 1, "");
            }
            desk.run(&format!("track {db}.db {} --ids shared", self.tables)).ok();
        }
        self.rounds(2);
        let mut versions: BTreeMap<&str, usize> = DEVICES.iter().map(|name| (*name, 1)).collect();
        let mut turn = 0_i32;
        for version in 2..=self.last {
            app("control", "migrate", version, "");
            for at in 0..DEVICES.len() {
                let migrating = DEVICES[(at + version) % DEVICES.len()];
                for migrates in [false, true] {
                    if migrates && (migrating != "base" || self.at_base) {
                        app(migrating, "migrate", version, "");
                        versions.insert(migrating, version);
                    }
                    for (board, other) in [("north", "east"), ("east", "north")] {
                        // What is written between a rebuild and the next run yields to what others wrote (README.md).
                        let other = if migrates && board == migrating { "none" } else { other };
                        let words =
                            |other| format!("{board} {turn} {} {other} {}", versions[board], turn - 3);
                        let found = app(board, "write", versions[board], &words(other));
                        let wrote = if found.trim() == "1" { other } else { "none" };
                        app("control", "write", version, &words(wrote));
                    }
                    turn += 1;
                }
                self.rounds(1);
            }
            self.rounds(2);
            self.shows_all(&app, &versions, version);
        }
    }

    /// All show what the one database shows; they are in step and whole.
    fn shows_all(
        &self,
        app: &dyn Fn(&str, &str, usize, &str) -> String,
        versions: &BTreeMap<&str, usize>,
        version: usize,
    ) {
        let desk = &self.desk;
        for conflict in desk.run("conflicts base.db --json").json()["conflicts"].as_array().unwrap() {
            desk.run(&format!("resolve base.db {} --keep-both", conflict["id"].as_str().unwrap())).ok();
        }
        self.rounds(2);
        assert!(desk.run("conflicts base.db").ok().contains("no conflict is open"));
        let control = app("control", "dump", version, "");
        let digest = desk.run("digest base.db").ok();
        for name in DEVICES {
            if name != "base" || self.at_base {
                assert_eq!(app(name, "dump", versions[name], ""), control, "{name} at version {version}");
            }
            assert_eq!(desk.run(&format!("digest {name}.db")).ok(), digest, "{name} at version {version}");
            desk.run(&format!("verify {name}.db")).ok();
        }
    }
}

#[test]
fn django() {
    let tables = "shop_author shop_tag shop_book shop_book_tags";
    Writer { script: "django_app.py", tables, at_base: true, last: 3, desk: Desk::new() }.plays("django");
}

#[test]
fn alembic() {
    let tables = "author tag book book_tag";
    Writer { script: "alembic_app.py", tables, at_base: true, last: 3, desk: Desk::new() }.plays("alembic");
}

#[test]
fn peewee() {
    let tables = "author tag book book_tag_through";
    Writer { script: "peewee_app.py", tables, at_base: true, last: 3, desk: Desk::new() }.plays("peewee");
}

#[test]
fn sqlite_utils() {
    let tables = "author tag book book_tag";
    Writer { script: "sqlite_utils_app.py", tables, at_base: true, last: 3, desk: Desk::new() }
        .plays("sqlite_utils");
}
