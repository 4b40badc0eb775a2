//! A base whose own application makes the same tables as the boards, by the same schema script.

use rusqlite::types::Value as Sql;

use crate::card::{exchange, rounds};
use crate::support::{Desk, has};

const SCRIPT: &str =
    "CREATE TABLE IF NOT EXISTS readings (id INTEGER PRIMARY KEY AUTOINCREMENT, value REAL);";

/// Two boards with their readings and a base, all of whose applications ran the script; a card.
fn desk() -> Desk {
    let desk = Desk::new();
    desk.run("fleet new fleet.key").ok();
    desk.run("init base.db --name base --fleet fleet.key --base").ok();
    desk.sql("base.db", SCRIPT);
    for board in ["north", "east"] {
        let db = format!("{board}.db");
        desk.run(&format!("init {db} --name {board} --fleet fleet.key")).ok();
        desk.sql(&db, SCRIPT);
        desk.run(&format!("track {db} readings --mode per-device --append")).ok();
        desk.sql(&db, "INSERT INTO readings (value) VALUES (1.5), (2.5), (3.5)");
    }
    std::fs::create_dir(desk.path("card")).unwrap();
    desk
}

/// Everybody in turn, twice; what the base printed the first time.
fn round(desk: &Desk) -> String {
    rounds(desk, &["north", "east"], 1);
    let said = exchange(desk, "base");
    rounds(desk, &["north", "east", "base"], 1);
    said
}

fn number(desk: &Desk, sql: &str) -> i64 {
    match desk.value("base.db", sql) {
        Sql::Integer(n) => n,
        other => panic!("{other:?}"),
    }
}

#[test]
fn rows_are_gathered_beside_an_empty_table_of_the_base() {
    let desk = desk();
    let said = round(&desk);
    has(&said, &["6 rows of other devices' `readings` applied in `readings_gathered`"]);
    assert_eq!(number(&desk, "SELECT count(*) FROM readings_gathered"), 6);
    assert_eq!(number(&desk, "SELECT count(*) FROM readings"), 0);
    assert_eq!(
        desk.rows("base.db", "SELECT name FROM pragma_table_info('readings_gathered') LIMIT 1"),
        [[Sql::Text("device".into())]]
    );
    let status = desk.run("status base.db").ok();
    has(&status, &["readings_gathered", "gathered", "the `readings` of this database has its own"]);
    assert!(!status.contains("waiting"), "nothing waits:\n{status}");
    desk.run("report base.db fleet.html").ok();
    let page = std::fs::read_to_string(desk.path("fleet.html")).unwrap();
    has(&page, &["<h2>What waits, and why</h2><p class=\"good\">Nothing.</p>"]);
    // It follows later rows and a later column, and goes on after the base has compacted.
    desk.sql(
        "north.db",
        "ALTER TABLE readings ADD COLUMN unit TEXT; INSERT INTO readings VALUES (9, 4.5, 'K')",
    );
    round(&desk);
    desk.run("compact base.db").ok();
    desk.sql("north.db", "INSERT INTO readings VALUES (10, 5.5, 'K')");
    round(&desk);
    assert_eq!(number(&desk, "SELECT count(*) FROM readings_gathered WHERE unit = 'K'"), 2);
    assert_eq!(number(&desk, "SELECT count(*) FROM readings_gathered"), 8);
}

#[test]
fn the_rows_of_the_base_itself_stay_in_its_table() {
    let desk = desk();
    desk.sql("base.db", "INSERT INTO readings (value) VALUES (99)");
    desk.run("track base.db readings --mode per-device --append").ok();
    round(&desk);
    desk.sql("base.db", "INSERT INTO readings (value) VALUES (98)");
    round(&desk);
    assert_eq!(number(&desk, "SELECT count(*) FROM readings_gathered"), 6);
    assert_eq!(number(&desk, "SELECT count(*) FROM readings WHERE value > 97"), 2);
    // A second base has the first one's rows too, and reckons the same of those that both gather.
    desk.run("init office.db --name office --fleet fleet.key --base").ok();
    for name in ["office", "base", "office"] {
        desk.run(&format!("exchange {name}.db card")).ok();
    }
    let all = desk.rows("office.db", "SELECT count(*) FROM readings");
    assert_eq!(all, [[Sql::Integer(8)]]);
}

#[test]
fn a_table_is_tracked_after_the_rows_of_others_have_come() {
    let desk = desk();
    desk.sql("base.db", "INSERT INTO readings (value) VALUES (99)");
    round(&desk);
    has(&desk.run("track base.db readings --mode per-device --append").ok(), &["1 row"]);
    desk.sql("north.db", "INSERT INTO readings (value) VALUES (7.5)");
    round(&desk);
    assert_eq!(number(&desk, "SELECT count(*) FROM readings_gathered"), 7);
    assert_eq!(number(&desk, "SELECT count(*) FROM readings"), 1);
}

#[test]
fn gathering_apart_ends_and_begins_by_a_persons_word() {
    let desk = desk();
    round(&desk);
    desk.run("untrack base.db readings_gathered").ok();
    desk.sql("north.db", "INSERT INTO readings (value) VALUES (7.5)");
    has(&round(&desk), &["1 row waits for a table or a column that is not here: `packmule status base.db`"]);
    assert_eq!(number(&desk, "SELECT count(*) FROM readings_gathered"), 6);
    desk.run("track base.db readings_gathered --mode per-device").ok();
    assert_eq!(number(&desk, "SELECT count(*) FROM readings_gathered"), 7);
}

#[test]
fn what_is_printed_as_applied_is_applied() {
    let desk = desk();
    // Shared tables of the same script that the base does not track: their rows wait, and are not counted.
    let script =
        "CREATE TABLE settings (k TEXT PRIMARY KEY, v); INSERT INTO settings VALUES ('a', 1), ('b', 2);";
    desk.sql("north.db", script);
    desk.run("track north.db settings").ok();
    desk.sql("base.db", "CREATE TABLE settings (k TEXT PRIMARY KEY, v)");
    desk.run("exchange north.db card").ok();
    let said = desk.run("exchange base.db card").ok();
    has(&said, &["3 rows applied", "2 rows wait for a table or a column that is not here"]);
}
