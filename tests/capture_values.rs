//! Every value that SQLite can hold arrives as it is.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests are tests.

mod common;
mod pair;

use common::*;
use packmule::TrackOptions;
use pair::Pair;

const VALUES: &[&str] = &[
    "NULL",
    "0",
    "1",
    "-1",
    "127",
    "-129",
    "65536",
    "9223372036854775807",
    "-9223372036854775808",
    "0.0",
    "-0.0",
    "1.0",
    "-1.5",
    "0.1",
    "1e300",
    "5e-324",
    "9007199254740993",
    "9007199254740992.0",
    "9223372036854775807.0",
    "9e999",
    "-9e999",
    "''",
    "' '",
    "'a'",
    "'A'",
    "'a '",
    "'1'",
    "'1.0'",
    "'0x1F'",
    "'it''s \"quoted\"'",
    "'grüße 日本語 🐎'",
    "CAST(x'ff00fe80' AS TEXT)",
    "CAST(x'c3' AS TEXT)",
    "CAST(x'00' AS TEXT)",
    "'a' || char(0) || 'b'",
    "x''",
    "x'00'",
    "x'ff00fe80'",
    "x'61'",
    "zeroblob(300)",
    "hex(zeroblob(2000))",
];

const COLUMNS: &str = "i INTEGER, r REAL, t TEXT, b BLOB, n NUMERIC, x, c TEXT COLLATE NOCASE, s VARCHAR(3) COLLATE RTRIM, a ANY, d DOUBLE, y BOOLEAN";
const NAMES: [&str; 11] = ["i", "r", "t", "b", "n", "x", "c", "s", "a", "d", "y"];

#[test]
fn every_value_in_every_column_as_an_insert() {
    for tail in ["", " WITHOUT ROWID"] {
        let mut pair = Pair::new(&format!("CREATE TABLE v (k INT PRIMARY KEY, {COLUMNS}){tail}"), &["v"]);
        let row = |k: usize, value: &str| {
            let values = vec![value; NAMES.len()].join(", ");
            format!("INSERT INTO v VALUES ({k}, {values});")
        };
        let all: String = VALUES.iter().enumerate().map(|(k, value)| row(k, value)).collect();
        assert_eq!(pair.write(&format!("BEGIN; {all} COMMIT")), VALUES.len() as u64);
        // A device that had the table already.
        let mut c = pair.world.board("c");
        sql(&c, &format!("CREATE TABLE v (k INT PRIMARY KEY, {COLUMNS}){tail}"));
        c.track("v", &TrackOptions::default()).unwrap();
        carry(&mut pair.a, &mut c);
        assert_eq!(rows(&c, "SELECT * FROM v ORDER BY k"), rows(&pair.a, "SELECT * FROM v ORDER BY k"));
    }
}

/// Each value becomes each other one, among them those that SQLite calls equal.
#[test]
fn every_value_becomes_every_other_one_in_every_column() {
    for name in NAMES {
        let mut pair =
            Pair::new(&format!("CREATE TABLE v (k INTEGER PRIMARY KEY, {COLUMNS}, other)"), &["v"]);
        let n = VALUES.len();
        let mut inserts = String::new();
        let mut updates = String::new();
        for (at, old) in VALUES.iter().enumerate() {
            for (to, new) in VALUES.iter().enumerate() {
                let k = at * n + to;
                inserts += &format!("INSERT INTO v (k, {name}) VALUES ({k}, {old});");
                updates += &format!("UPDATE v SET {name} = {new} WHERE k = {k};");
            }
        }
        assert_eq!(pair.write(&format!("BEGIN; {inserts} COMMIT")), (n * n) as u64);
        let before = rows(&pair.a, &format!("SELECT {name} FROM v ORDER BY k"));
        let ops = pair.write(&format!("BEGIN; {updates} COMMIT"));
        let after = rows(&pair.a, &format!("SELECT {name} FROM v ORDER BY k"));
        let changed = before.iter().zip(&after).filter(|(a, b)| a != b).count() as u64;
        // A zero in a column without affinity may count as changed though it was not.
        assert!(ops >= changed && ops <= changed + 20, "{name}: {ops} ops, {changed} changes");
    }
}

#[test]
fn values_that_sqlite_calls_equal_are_different_content() {
    let mut pair = Pair::new(
        "CREATE TABLE v (k TEXT PRIMARY KEY, x, c TEXT COLLATE NOCASE, s TEXT COLLATE RTRIM, r REAL, n NUMERIC);
         INSERT INTO v VALUES ('k', 0.0, 'abc', 'abc', 0.0, 1)",
        &["v"],
    );
    for (set, shown) in [
        ("x = -0.0", "SELECT x FROM v"),
        ("x = 0.0", "SELECT x FROM v"),
        ("x = 0", "SELECT x FROM v"),
        ("x = 1", "SELECT x FROM v"),
        ("x = 1.0", "SELECT x FROM v"),
        ("x = '1'", "SELECT x FROM v"),
        ("x = x'31'", "SELECT x FROM v"),
        ("c = 'ABC'", "SELECT c FROM v"),
        ("s = 'abc  '", "SELECT s FROM v"),
    ] {
        assert_eq!(pair.write(&format!("UPDATE v SET {set}")), 1, "{set}");
        let given = set.split_once(" = ").unwrap().1;
        assert_eq!(rows(&pair.b, shown), rows(&pair.a, &format!("SELECT {given}")), "{set}");
    }
    // Where the column makes them the same there is nothing to carry.
    assert_eq!(pair.write("UPDATE v SET n = 1.0"), 0);
    assert_eq!(pair.write("UPDATE v SET n = '1'"), 0);
}

#[test]
fn infinities_and_the_ends_of_integers_survive_a_round_trip() {
    let mut pair = Pair::new("CREATE TABLE v (k TEXT PRIMARY KEY, x)", &["v"]);
    pair.write("INSERT INTO v VALUES ('a', 9e999), ('b', -9e999), ('c', -9223372036854775808), ('d', 9223372036854775807)");
    pair.a.track("v", &follow()).unwrap();
    // And back from B, which changes another column of the same rows.
    sql(&pair.b, "ALTER TABLE v ADD COLUMN note; UPDATE v SET note = 'seen'");
    carry(&mut pair.b, &mut pair.a);
    assert_eq!(
        rows(&pair.a, "SELECT x, note FROM v ORDER BY k"),
        ["infr|\"seen\"", "-infr|\"seen\"", "-9223372036854775808|\"seen\"", "9223372036854775807|\"seen\""]
    );
    digests_equal(&[&pair.a, &pair.b]);
}

/// Defaults travel with the definition: a row that omits a column means the same everywhere.
#[test]
fn defaults_travel() {
    let mut pair = Pair::new(
        "CREATE TABLE v (k TEXT PRIMARY KEY, a DEFAULT 1, b DEFAULT -1.5, c DEFAULT 'it''s', d DEFAULT x'00ff', e DEFAULT NULL,
            f DEFAULT 9e999, g DEFAULT '', h DEFAULT (1), i TEXT NOT NULL DEFAULT 'x', j DEFAULT TRUE, l DEFAULT -9223372036854775808)",
        &["v"],
    );
    pair.write("INSERT INTO v (k) VALUES ('a')");
    sql(&pair.b, "INSERT INTO v (k) VALUES ('b')");
    carry(&mut pair.b, &mut pair.a);
    let columns = "a, b, c, d, e, f, g, h, i, j, l";
    let found = rows(&pair.a, &format!("SELECT {columns} FROM v ORDER BY k"));
    assert_eq!(found.len(), 2);
    assert_eq!(found[0], found[1]);
    digests_equal(&[&pair.a, &pair.b]);
}

#[test]
fn a_database_in_utf_16_and_one_in_utf_8() {
    let world = World::new();
    open(&world.path("a"))
        .execute_batch("PRAGMA encoding = 'UTF-16le'; CREATE TABLE v (k TEXT PRIMARY KEY, x)")
        .unwrap();
    let mut a = world.board("a");
    a.track("v", &TrackOptions::default()).unwrap();
    let mut b = world.board("b");
    sql(&a, "INSERT INTO v VALUES ('grüße', '日本語 🐎'), ('b', 'a' || char(0) || 'b'), ('', '')");
    carry(&mut a, &mut b);
    let all = "SELECT * FROM v ORDER BY k";
    assert_eq!(rows(&b, all), rows(&a, all));
    sql(&b, "UPDATE v SET x = x || '!'");
    carry(&mut b, &mut a);
    assert_eq!(rows(&b, all), rows(&a, all));
    digests_equal(&[&a, &b]);
}
