//! The tables that schedules write to.

use crate::model::{Policy, Row, Rule, Table};

fn value(row: &Row, column: &str) -> Option<String> {
    row.get(column).filter(|v| *v != "NULL").cloned()
}

const PLAIN: Table = Table {
    name: "",
    sql: "",
    keys: &["id"],
    nocase: &[],
    columns: &[],
    added: None,
    cell: false,
    policy: Policy::Manual,
    rules: &[],
    uniques: &[],
    unique_columns: &[],
    later: None,
    check: |_| true,
    foreign: None,
};

const ANY: &[&str] = &["NULL", "1.0", "'a'", "'A'", "x'00ff'", "0", "1", "2"];
const SMALL: &[&str] = &["0", "1", "2", "3"];
const SMALL_OR_NULL: &[&str] = &["0", "1", "2", "3", "NULL"];

/// Each with the keys that rows of it may have.
pub static TABLES: [(Table, &[&[&str]]); 10] = [
    (
        Table {
            name: "notes",
            sql: "CREATE TABLE notes (id TEXT PRIMARY KEY, a, b REAL)",
            columns: &[("a", ANY), ("b", &["0.5", "-0.0", "2.0", "NULL"])],
            later: Some(("a", |row| Some(value(row, "a")?.trim_end_matches(".0r").to_owned()))),
            added: Some(("z", "TEXT DEFAULT 'old'", "\"old\"", &["'x'", "'y'", "NULL"])),
            ..PLAIN
        },
        &[&["'k1'", "'k2'", "'k3'"]],
    ),
    (
        Table {
            name: "pairs",
            sql: "CREATE TABLE pairs (x INT, y TEXT COLLATE NOCASE, v, PRIMARY KEY (x, y)) WITHOUT ROWID",
            keys: &["x", "y"],
            nocase: &["y"],
            columns: &[("v", ANY)],
            ..PLAIN
        },
        &[&["0", "1"], &["'p'", "'P'", "'q'"]],
    ),
    (
        Table {
            name: "names",
            sql: "CREATE TABLE names (id INTEGER PRIMARY KEY, name TEXT UNIQUE, age INT NOT NULL)",
            columns: &[("name", &["'ann'", "'bob'", "'cy'", "NULL"]), ("age", SMALL)],
            uniques: &[|row| value(row, "name")],
            unique_columns: &["name"],
            ..PLAIN
        },
        &[&["1", "2", "3", "4", "5"]],
    ),
    (
        // Several uniques at once: over NULLs, over an expression, and a partial one.
        Table {
            name: "badges",
            sql: "CREATE TABLE badges (id TEXT PRIMARY KEY, a TEXT, b INT, n INT, UNIQUE (a, b));
                  CREATE UNIQUE INDEX badges_a ON badges (lower(a) DESC, n);
                  CREATE UNIQUE INDEX badges_n ON badges (n) WHERE b IS NULL",
            columns: &[
                ("a", &["'x'", "'X'", "'y'", "'z'", "NULL"]),
                ("b", SMALL_OR_NULL),
                ("n", SMALL_OR_NULL),
            ],
            uniques: &[
                |row| Some(format!("{} {}", value(row, "a")?, value(row, "b")?)),
                |row| Some(format!("{} {}", value(row, "a")?.to_ascii_lowercase(), value(row, "n")?)),
                |row| if row["b"] == "NULL" { value(row, "n") } else { None },
            ],
            added: Some(("z", "INT", "NULL", SMALL)),
            ..PLAIN
        },
        &[&["'b1'", "'b2'", "'b3'", "'b4'"]],
    ),
    (
        Table {
            name: "parts",
            sql: "CREATE TABLE parts (id BLOB PRIMARY KEY, note TEXT REFERENCES notes (id), lo INT, hi INT,
                  CHECK (lo <= hi))",
            columns: &[("note", &["'k1'", "'k2'", "'k9'", "NULL"]), ("lo", SMALL_OR_NULL), ("hi", SMALL)],
            cell: true,
            check: |row| row["lo"] == "NULL" || row["hi"] == "NULL" || row["lo"] <= row["hi"],
            foreign: Some(("note", "notes", "id")),
            added: Some(("z", "TEXT DEFAULT 'old'", "\"old\"", &["'x'", "'y'", "NULL"])),
            ..PLAIN
        },
        &[&["x'01'", "x'02'", "x'03'"]],
    ),
    (
        Table {
            name: "tallies",
            sql: "CREATE TABLE tallies (id TEXT PRIMARY KEY, c INTEGER NOT NULL DEFAULT 0, hi INT, lo INT, last TEXT,
                  note TEXT)",
            columns: &[
                ("c", SMALL),
                ("hi", SMALL_OR_NULL),
                ("lo", SMALL_OR_NULL),
                ("last", &["'r'", "'s'", "NULL"]),
                ("note", &["'u'", "'v'"]),
            ],
            rules: &[("c", Rule::Counter), ("hi", Rule::Max), ("lo", Rule::Min), ("last", Rule::Lww)],
            ..PLAIN
        },
        &[&["'t1'", "'t2'", "'t3'"]],
    ),
    (
        Table {
            name: "cells",
            sql: "CREATE TABLE cells (id TEXT PRIMARY KEY, a TEXT, c INTEGER NOT NULL DEFAULT 0, u TEXT UNIQUE)",
            columns: &[("a", &["'r'", "'s'", "NULL"]), ("c", SMALL), ("u", &["'u'", "'v'", "'w'", "NULL"])],
            cell: true,
            rules: &[("c", Rule::Counter)],
            uniques: &[|row| value(row, "u")],
            unique_columns: &["u"],
            added: Some(("z", "INT DEFAULT 7", "7", SMALL)),
            ..PLAIN
        },
        &[&["'c1'", "'c2'", "'c3'"]],
    ),
    (
        Table {
            name: "latest",
            sql: "CREATE TABLE latest (id TEXT PRIMARY KEY, a, b INT)",
            columns: &[("a", ANY), ("b", SMALL)],
            later: Some(("b", |row| value(row, "b"))),
            cell: true,
            policy: Policy::Lww,
            ..PLAIN
        },
        &[&["'l1'", "'l2'"]],
    ),
    (
        Table {
            name: "preferred",
            sql: "CREATE TABLE preferred (id TEXT PRIMARY KEY, a, b INT)",
            columns: &[("a", ANY), ("b", SMALL)],
            policy: Policy::Prefer,
            rules: &[("b", Rule::Max)],
            ..PLAIN
        },
        &[&["'m1'", "'m2'"]],
    ),
    (
        // Refers to a column that is no key.
        Table {
            name: "visits",
            sql: "CREATE TABLE visits (id TEXT PRIMARY KEY, who TEXT REFERENCES names (name), n INT)",
            columns: &[("who", &["'ann'", "'bob'", "'dan'", "NULL"]), ("n", SMALL)],
            foreign: Some(("who", "names", "name")),
            ..PLAIN
        },
        &[&["'v1'", "'v2'", "'v3'"]],
    ),
];
