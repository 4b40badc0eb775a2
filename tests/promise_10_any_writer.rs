//! Promise 10: applications write with whatever SQLite they have; they load and call nothing of ours.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests are tests.

mod common;
mod skips;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use common::*;
use packmule::Engine;

const SCHEMA: &str = "CREATE TABLE t (k TEXT PRIMARY KEY, u INT UNIQUE, c TEXT COLLATE NOCASE, v);
    CREATE UNIQUE INDEX i ON t (lower(c)) WHERE v IS NOT NULL;
    CREATE TABLE pair (a INT, b TEXT, x, PRIMARY KEY (a, b)) WITHOUT ROWID;
    CREATE TABLE reading (id INTEGER PRIMARY KEY AUTOINCREMENT, v REAL);
    CREATE TABLE own (k BLOB PRIMARY KEY, v)";

fn board(world: &World) -> Engine {
    let mut a = world.board_with("a", SCHEMA, &["t", "pair"]);
    a.track("reading", &append()).unwrap();
    a.track("own", &per_device()).unwrap();
    a
}

/// Runs a program. Returns whether it is there: it is, or the check is skipped.
fn run(name: &str, arguments: &[&str], input: &str, database: &Path) -> bool {
    let check = format!("an application with the SQLite of {name}");
    let child = Command::new(name)
        .args(arguments)
        .env("DB", database)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        skips::skip(&check, "it is not installed");
        return false;
    };
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if let Some(lacks) = said.trim().strip_prefix("skip: ") {
        skips::skip(&check, lacks);
        return false;
    }
    assert!(output.status.success(), "{name}: {said}");
    println!("{name}: {said}");
    true
}

const WRITES: &str = "
    BEGIN;
    INSERT INTO t VALUES ('a', 1, 'one', 1), ('b', 2, 'two', 2), ('c', 3, 'three', NULL);
    INSERT INTO pair VALUES (1, 'x', 'p'), (1, 'y', 'q');
    INSERT INTO reading (v) VALUES (1.5), (2), (-0.25);
    INSERT INTO own VALUES (x'00ff', 'o');
    COMMIT;
    INSERT OR REPLACE INTO t VALUES ('d', 1, 'ONE!', 4);
    UPDATE OR REPLACE t SET c = 'TWO' WHERE k = 'd';
    UPDATE t SET c = 'THREE' WHERE k = 'c';
    UPDATE pair SET b = 'z', x = CAST(x'ff00' AS TEXT) WHERE b = 'y';
    DELETE FROM pair WHERE b = 'x';
    INSERT INTO t VALUES ('d', 9, 'nine', 9) ON CONFLICT (k) DO UPDATE SET v = excluded.v;
    UPDATE own SET v = 7;";

/// What was written arrives at a base, exactly.
fn arrives(a: &mut Engine, world: &World) {
    let mut base = world.base("base");
    assert_eq!(carry(a, &mut base).waits, []);
    assert_eq!(rows(a, "SELECT k FROM t ORDER BY k"), ["\"c\"", "\"d\""]);
    for query in ["SELECT * FROM t ORDER BY k", "SELECT * FROM pair ORDER BY a, b"] {
        assert_eq!(rows(&base, query), rows(a, query));
    }
    for (here, there) in [("SELECT id, v FROM reading", "reading"), ("SELECT k, v FROM own", "own")] {
        assert_eq!(rows(&base, here), rows(a, here), "{there}");
        assert_eq!(rows(&base, &format!("SELECT DISTINCT substr(device, 1, 2) FROM {there}")), ["\"a-\""]);
    }
    assert_eq!(rows(&base, "SELECT count(*) FROM reading"), ["3"]);
    digests_equal(&[a, &base]);
}

#[test]
fn the_writer_of_these_tests() {
    let world = World::new();
    let mut a = board(&world);
    sql(&a, WRITES);
    arrives(&mut a, &world);
}

#[test]
fn pythons_sqlite3() {
    let world = World::new();
    let mut a = board(&world);
    let script = format!(
        "import os, sqlite3\ndb = sqlite3.connect(os.environ['DB'])\ndb.executescript(\"\"\"{WRITES}\"\"\")\n\
         with db:\n    db.execute('UPDATE t SET v = ? WHERE k = ?', (b'\\x00\\xff', 'd'))\n\
         try:\n    with db:\n        db.execute('DELETE FROM t')\n        raise ValueError\nexcept ValueError: pass\n\
         print(sqlite3.sqlite_version)"
    );
    if run("python3", &["-"], &script, a.path()) {
        assert_eq!(rows(&a, "SELECT v FROM t WHERE k = 'd'"), ["[00, ff]"]);
        arrives(&mut a, &world);
    }
}

#[test]
fn the_sqlite3_shell() {
    let world = World::new();
    let mut a = board(&world);
    let database = a.path().to_owned();
    let script = format!(".bail on\nSELECT sqlite_version();\n{WRITES}\n");
    if run("sqlite3", &[database.to_str().unwrap()], &script, &database) {
        arrives(&mut a, &world);
    }
}

#[test]
fn nodes_sqlite() {
    let world = World::new();
    let mut a = board(&world);
    let script = format!(
        "let lib; try {{ lib = require('node:sqlite') }} catch (e) {{ console.log('skip: node ' + process.version + ' has no node:sqlite'); process.exit(0) }}\n\
         const db = new lib.DatabaseSync(process.env.DB); db.exec(`{WRITES}`); db.close()"
    );
    if run("node", &["-"], &script, a.path()) {
        arrives(&mut a, &world);
    }
}

/// An application with a connection of its own that stays open, through seals and imports.
#[test]
fn a_connection_that_stays_open_across_seals_imports_and_new_triggers() {
    let world = World::new();
    let mut a = board(&world);
    let mut base = world.base("base");
    let application = app(&a);
    let mut insert = application.prepare("INSERT INTO pair (a, b, x) VALUES (?1, 'row', 1)").unwrap();
    for n in 0..20 {
        insert.execute([n]).unwrap();
        a.seal().unwrap();
        sql(&base, "CREATE TABLE IF NOT EXISTS untracked (x)");
        carry(&mut a, &mut base);
        sql(&base, &format!("UPDATE pair SET x = {n} WHERE a = {n}"));
        if n == 10 {
            sql(&base, "ALTER TABLE pair ADD COLUMN later");
        }
        carry(&mut base, &mut a);
    }
    assert_eq!(rows(&a, "SELECT count(*), sum(x = a) FROM pair"), ["20|20"]);
    digests_equal(&[&a, &base]);
}

/// Nothing of ours in the database needs an SQLite that is newer than 3.34, or a function of ours.
#[test]
fn old_sqlite_can_read_the_schema_and_run_the_triggers() {
    let world = World::new();
    let mut a = board(&world);
    let mut base = world.base("base");
    sql(&a, WRITES);
    carry(&mut a, &mut base);
    for engine in [&a, &base] {
        let ours = "SELECT lower(sql) FROM sqlite_schema WHERE (name LIKE '\\_pm\\_%' ESCAPE '\\' OR tbl_name LIKE '\\_pm\\_%' ESCAPE '\\') AND sql IS NOT NULL";
        let found = rows(engine, ours);
        assert!(found.len() > 20, "{found:?}");
        for text in found {
            for new in [
                "strict",
                "->",
                "returning",
                "unixepoch",
                "octet_length",
                "iif(",
                "concat(",
                "string_agg",
                "format(",
                "unhex",
                "timediff",
                "json",
                "sign(",
                "ceil(",
                "floor(",
                "trunc",
                "pow(",
                "sqrt",
                "log(",
                "mod(",
                "exp(",
                "full join",
                "right join",
                "is distinct",
                "materialized",
                "drop column",
                "any)",
            ] {
                assert!(!text.contains(new), "`{new}` in {text}");
            }
            // The functions that are called are ones that every SQLite has.
            let mut rest = text.as_str();
            while let Some(at) = rest.find('(') {
                let name = rest[..at]
                    .trim_end_matches(' ')
                    .rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                    .next()
                    .unwrap();
                let called = rest[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
                if called && !text.starts_with("\"create table") && !text.starts_with("\"create index") {
                    let old = ["values", "typeof", "lower", "raise", "cast", "coalesce", "length"];
                    assert!(old.contains(&name), "{name}() in {text}");
                }
                rest = &rest[at + 1..];
            }
        }
        // Neither tables that hide what is in them nor indexes of a kind that a library may lack.
        assert_eq!(rows(engine, "SELECT name FROM sqlite_schema WHERE sql LIKE 'CREATE VIRTUAL%'").len(), 0);
    }
}

/// Has a database open, looks how its file begins, and lets an application write and close it. Returns whether the file is
/// still there in which SQLite keeps what is committed next; nothing, where there is no application.
fn keeps_the_wal(look: impl FnOnce(&Path)) -> Option<bool> {
    let world = World::new();
    let mut a = board(&world);
    a.seal().unwrap();
    look(a.path());
    let script = ".bail on\nINSERT INTO own VALUES (x'01', 'last')\n;\n";
    let ran = run("sqlite3", &[a.path().to_str().unwrap()], script, a.path());
    let mut wal = a.path().as_os_str().to_owned();
    wal.push("-wal");
    ran.then(|| Path::new(&wal).exists())
}

/// An application that closes the database takes itself for the last one that has it open, where Packmule has lost its locks;
/// what Packmule commits after that is in no file.
#[test]
fn who_looks_at_a_database_that_it_has_open_keeps_its_locks() {
    let mut begins = [0; 16];
    let Some(kept) = keeps_the_wal(|path| packmule::read_beginning(path, &mut begins).unwrap()) else {
        return;
    };
    assert!(kept && begins == *b"SQLite format 3\0");
    // The control: any other way to read a file, which ends by closing it.
    assert_eq!(keeps_the_wal(|path| assert!(std::fs::read(path).unwrap().starts_with(&begins))), Some(false));
}
