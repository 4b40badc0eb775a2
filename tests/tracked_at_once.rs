//! Many tables tracked by one command: their triggers are put into the schema at once, and are what SQLite makes of the
//! statements one after the other.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::*;
use packmule::{Engine, Merge, TrackOptions};

/// From so many tables on they are put there at once (`capture/at_once.rs`).
const MANY: usize = 32;

/// Makes tables of all forms; returns their names.
fn tables(engine: &Engine, n: usize) -> Vec<String> {
    let mut names = Vec::new();
    let mut made = String::from("BEGIN;");
    for at in 0..n {
        let (name, columns) = match at % 6 {
            0 => (format!("t{at}"), "(id INTEGER PRIMARY KEY, v, w TEXT)".to_owned()),
            1 => (format!("T{at}"), "(k TEXT PRIMARY KEY, u UNIQUE, v REAL, UNIQUE (u, v))".to_owned()),
            2 => (
                format!("t{at}"),
                "(a TEXT COLLATE NOCASE, b, c INT, PRIMARY KEY (a, b)) WITHOUT ROWID".to_owned(),
            ),
            3 => (
                format!("a \"name\" 'of' {at}"),
                "(\"a key\" INT PRIMARY KEY, \"it's\" UNIQUE, g AS (1))".to_owned(),
            ),
            4 => (
                format!("t{at}"),
                format!("(id INTEGER PRIMARY KEY AUTOINCREMENT, p REFERENCES t{} (id))", at - 4),
            ),
            _ => (format!("Ü{at}"), "(k BLOB PRIMARY KEY, u, v)".to_owned()),
        };
        let quoted = name.replace('"', "\"\"");
        made += &format!("CREATE TABLE \"{quoted}\" {columns};");
        if at % 6 == 5 {
            made += &format!("CREATE UNIQUE INDEX i{at} ON \"{quoted}\" (abs(u), lower(v)) WHERE v > 'a';");
        }
        names.push(name);
    }
    sql(engine, &(made + "COMMIT"));
    names
}

fn by_cell() -> TrackOptions {
    TrackOptions { merge: Merge::Cell, ids_shared: true, ..TrackOptions::default() }
}

fn schema(engine: &Engine) -> Vec<String> {
    rows(engine, "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name")
}

#[test]
fn triggers_of_many_tables_are_those_of_each() {
    let world = World::new();
    let (mut at_once, mut by_one) = (world.board("a"), world.board("b"));
    let names = tables(&at_once, MANY + 10);
    tables(&by_one, MANY + 10);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    at_once.track_all(&names, &by_cell()).unwrap();
    for name in &names {
        by_one.track(name, &by_cell()).unwrap();
    }
    let all = schema(&at_once);
    assert_eq!(all, schema(&by_one));
    assert!(all.iter().filter(|entry| entry.starts_with("\"trigger\"|\"_pm_")).count() > 3 * names.len());
    assert_eq!(rows(&at_once, "PRAGMA integrity_check"), ["\"ok\""]);
    // What the triggers are is what the next seal finds: nothing is looked at as if it had been made anew.
    assert_eq!(at_once.seal().unwrap().ops, 0);
    at_once.untrack_all(&names).unwrap();
    at_once.track_all(&names, &by_cell()).unwrap();
    assert_eq!(schema(&at_once).len(), all.len());
    assert!(at_once.verify().unwrap().problems.is_empty());
}

/// An application that has the database open, with statements prepared, writes on: its rows are captured.
#[test]
fn an_open_application_notices_the_triggers() {
    let world = World::new();
    let mut a = world.board("a");
    let names = tables(&a, MANY);
    let app = app(&a);
    let mut insert = app.prepare("INSERT INTO t0 (v) VALUES (?1)").unwrap();
    let mut update = app.prepare("UPDATE t0 SET v = v + 1").unwrap();
    insert.execute([1]).unwrap();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    a.track_all(&names, &by_cell()).unwrap();
    update.execute([]).unwrap();
    assert_eq!(a.seal().unwrap().ops, 1);
    insert.execute([2]).unwrap();
    update.execute([]).unwrap();
    assert_eq!(a.seal().unwrap().ops, 2);
}

/// All of them, or none: also if the last one cannot be tracked.
#[test]
fn one_that_cannot_be_tracked_leaves_nothing_of_the_others() {
    let world = World::new();
    let mut a = world.board("a");
    let mut names = tables(&a, MANY);
    sql(&a, "CREATE VIEW seen AS SELECT 1; INSERT INTO t0 (v) VALUES (1)");
    let before = schema(&a);
    names.push("seen".into());
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    assert!(a.track_all(&all, &by_cell()).is_err());
    assert_eq!(schema(&a), before);
    assert_eq!(a.seal().unwrap().ops, 0);
    let reports = a.track_all(&all[..MANY], &by_cell()).unwrap();
    assert_eq!(reports[0].rows, 1);
    // A table that is given twice, and those that were tracked before, are not tracked again.
    let mut twice = all[..MANY].to_vec();
    sql(&a, "CREATE TABLE more (k TEXT PRIMARY KEY, v)");
    twice.extend(["more", "more"]);
    let reports = a.track_all(&twice, &by_cell()).unwrap();
    assert_eq!(reports.iter().filter(|report| report.already).count(), MANY + 1);
}

/// Many tables that an import makes have the triggers that each would have that comes alone.
#[test]
fn triggers_of_many_tables_that_come_are_those_of_each() {
    let world = World::new();
    let mut a = world.board("a");
    let (mut at_once, mut by_one) = (world.board("b"), world.board("c"));
    let names = tables(&a, MANY + 10);
    for name in &names {
        a.track(name, &by_cell()).unwrap();
        carry(&mut a, &mut by_one);
    }
    sql(&a, "INSERT INTO t0 (v) VALUES (1)");
    carry(&mut a, &mut at_once);
    carry(&mut a, &mut by_one);
    let all = schema(&at_once);
    assert_eq!(all, schema(&by_one));
    assert!(all.iter().filter(|entry| entry.starts_with("\"trigger\"|\"_pm_")).count() > 3 * names.len());
    assert_eq!(rows(&at_once, "PRAGMA integrity_check"), ["\"ok\""]);
    assert_eq!(at_once.seal().unwrap().ops, 0, "nothing of it was written here");
    sql(&at_once, "UPDATE t0 SET v = 2; INSERT INTO t0 (v) VALUES (3)");
    assert_eq!(at_once.seal().unwrap().ops, 2);
    assert!(at_once.verify().unwrap().problems.is_empty());
    carry(&mut at_once, &mut a);
    digests_equal(&[&a, &at_once]);
}
