//! Tables without any key: what pandas and the sqlite3 shell's `.import` make of a CSV file.

use std::process::Command;

use rusqlite::types::Value as Sql;

use crate::card::{exchange, rounds};
use crate::skips;
use crate::support::{Desk, has};

/// A board and a base; a card.
fn desk() -> Desk {
    let desk = Desk::new();
    desk.run("fleet new fleet.key").ok();
    desk.run("init base.db --name base --fleet fleet.key --base").ok();
    desk.run("init north.db --name north --fleet fleet.key").ok();
    std::fs::create_dir(desk.path("card")).unwrap();
    desk
}

/// The rows of a table, and those that the base has of it: the same rows, each as often.
#[track_caller]
fn are_equal(desk: &Desk, columns: &str) {
    let of = |db: &str, from: &str| {
        let mut rows = desk.rows(db, &format!("SELECT {columns} FROM {from}"));
        rows.sort_by_key(|row| format!("{row:?}"));
        rows
    };
    assert_eq!(of("north.db", "log"), of("base.db", "log WHERE device LIKE 'north-%'"));
    desk.run("verify north.db").ok();
    desk.run("verify base.db").ok();
}

fn count(desk: &Desk, db: &str) -> i64 {
    match desk.value(db, "SELECT count(*) FROM log") {
        Sql::Integer(n) => n,
        other => panic!("{other:?}"),
    }
}

/// Frames that a seal makes.
fn frames(desk: &Desk) -> u64 {
    desk.run("seal north.db --json").json()["frames"].as_u64().unwrap()
}

const ROWS: &str = "CREATE TABLE log (at, what TEXT, n REAL);
    INSERT INTO log VALUES (1, 'a', 1.5), (1, 'a', 1.5), (2, 'b', NULL), (NULL, NULL, NULL), (3, 'c', 2), (1, 'a', 1.5)";

/// The same, and the table has rows and is tracked.
fn tracked() -> Desk {
    let desk = desk();
    desk.sql("north.db", ROWS);
    desk.run("track north.db log --mode per-device").ok();
    desk
}

#[test]
fn what_the_shell_imports_is_gathered() {
    let desk = desk();
    let shell = |command: &str| {
        Command::new("sqlite3").current_dir(desk.path("")).args(["north.db", command]).status()
    };
    std::fs::write(desk.path("x.csv"), "at,what\n1,a\n2,b\n1,a\n").unwrap();
    std::fs::write(desk.path("y.csv"), "4,d\n1,a\n").unwrap();
    match shell(".import --csv x.csv log") {
        Ok(status) => assert!(status.success()),
        Err(_) => return skips::skip("`.import` of the sqlite3 shell", "it is not installed"),
    }
    let said = desk.run("track north.db log").refused("north.db");
    has(&said.replace("\n  ", " "), &["no primary key", "--mode per-device, which needs no key"]);
    desk.run("track north.db log --mode per-device").ok();
    rounds(&desk, &["north", "base"], 2);
    assert_eq!(count(&desk, "base.db"), 3);
    are_equal(&desk, "at, what");
    assert!(shell(".import --csv y.csv log").unwrap().success());
    rounds(&desk, &["north", "base"], 2);
    assert_eq!(count(&desk, "base.db"), 5);
    are_equal(&desk, "at, what");
}

#[test]
fn equal_rows_are_counted_and_vacuum_loses_and_doubles_none() {
    let desk = tracked();
    rounds(&desk, &["north", "base"], 2);
    are_equal(&desk, "at, what, n");
    for (n, writes) in [
        "DELETE FROM log WHERE rowid = 2; UPDATE log SET n = 9 WHERE at = 3",
        // The rows are numbered anew before they are sealed, between two writes, and again.
        "DELETE FROM log WHERE rowid = 1; VACUUM; INSERT INTO log VALUES (7, 'new', 0); UPDATE log SET n = n + 1 WHERE at = 7",
        "INSERT INTO log VALUES (8, 'x', 1), (8, 'x', 1); DELETE FROM log WHERE at = 2; VACUUM; DELETE FROM log WHERE at = 3; VACUUM",
        "INSERT INTO log (rowid, at) VALUES (40, 40), (50, 50); VACUUM; INSERT INTO log VALUES (9, 'y', 2)",
        "UPDATE log SET rowid = rowid + 100; INSERT OR REPLACE INTO log (rowid, at) VALUES (101, 'in its place')",
        "DELETE FROM log; VACUUM; INSERT INTO log VALUES (1, 'a', 1.5), (1, 'a', 1.5)",
        // Made anew, as `to_sql(if_exists='replace')` does.
        "DROP TABLE log; CREATE TABLE log (at, what TEXT, n REAL); INSERT INTO log VALUES (1, 'a', 1), (5, 'e', 5), (5, 'e', 5)",
        "ALTER TABLE log ADD COLUMN more; UPDATE log SET more = 'm' WHERE at = 5; DELETE FROM log WHERE rowid = 1; VACUUM",
    ]
    .iter()
    .enumerate()
    {
        desk.sql("north.db", writes);
        rounds(&desk, &["north", "base"], 2);
        assert_eq!(count(&desk, "base.db"), count(&desk, "north.db"), "step {n}");
        are_equal(&desk, "at, what, n");
    }
    are_equal(&desk, "at, what, n, more");
}

#[test]
fn a_vacuum_costs_nothing_where_no_row_was_deleted() {
    let desk = tracked();
    desk.sql("north.db", "VACUUM");
    assert_eq!(frames(&desk), 0);
    desk.sql("north.db", "INSERT INTO log VALUES (4, 'd', 4); VACUUM; INSERT INTO log VALUES (4, 'd', 4)");
    assert_eq!(desk.run("seal north.db --json").json()["ops"], 2);
    assert_eq!(frames(&desk), 0);
    // The control: rows that were numbered anew are sealed anew.
    desk.sql("north.db", "DELETE FROM log WHERE rowid = 1");
    assert_eq!(desk.run("seal north.db --json").json()["ops"], 1);
    desk.sql("north.db", "VACUUM");
    assert_eq!(desk.run("seal north.db --json").json()["ops"], 7);
    assert_eq!(frames(&desk), 0);
    rounds(&desk, &["north", "base"], 2);
    are_equal(&desk, "at, what, n");
}

#[test]
fn a_table_without_a_key_that_was_let_go_meanwhile() {
    let desk = tracked();
    rounds(&desk, &["north", "base"], 2);
    desk.run("untrack north.db log").ok();
    desk.sql("north.db", "DELETE FROM log WHERE rowid < 4; VACUUM");
    desk.run("track north.db log --mode per-device").ok();
    rounds(&desk, &["north", "base"], 2);
    are_equal(&desk, "at, what, n");
    // A key that it gets holds it, until it is tracked again.
    desk.sql(
        "north.db",
        "DROP TABLE log; CREATE TABLE log (rowid INTEGER PRIMARY KEY, at, what TEXT, n REAL)",
    );
    has(&exchange(&desk, "north").replace("\n  ", " "), &["table `log`: held", "tracked without a key"]);
}
