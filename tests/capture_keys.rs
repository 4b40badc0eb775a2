//! Every form of key: rows are found by it, moved to another one, and met by others' rows.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests are tests.

mod common;
mod pair;

use common::*;
use packmule::ConflictKind;
use pair::Pair;

/// The table, and keys that are all different in it.
const FORMS: &[(&str, &[&str])] = &[
    ("k INTEGER PRIMARY KEY, v", &["1", "0", "-5", "9223372036854775807", "-9223372036854775808"]),
    ("k INTEGER PRIMARY KEY AUTOINCREMENT, v", &["1", "7", "9223372036854775800"]),
    ("k INTEGER PRIMARY KEY DESC, v", &["1", "0", "-5", "9223372036854775807"]),
    ("k INTEGER PRIMARY KEY, v) WITHOUT ROWID", &["1", "0", "-5", "9223372036854775807"]),
    ("k INT PRIMARY KEY, v", &["1", "'text'", "1.5", "x'01'", "-9223372036854775808", "9e999", "''"]),
    (
        "k TEXT PRIMARY KEY, v",
        &["'a'", "'A'", "''", "' '", "'a' || char(0)", "CAST(x'ff' AS TEXT)", "'日本'", "x'61'", "12"],
    ),
    (
        "k TEXT PRIMARY KEY, v) WITHOUT ROWID",
        &["'a'", "'A'", "''", "'a' || char(0)", "CAST(x'ff' AS TEXT)", "x'61'"],
    ),
    ("k BLOB PRIMARY KEY, v", &["x''", "x'00'", "x'0000'", "x'ff'", "'text'", "7", "7.5"]),
    ("k BLOB PRIMARY KEY, v) WITHOUT ROWID", &["x''", "x'00'", "x'0000'", "x'ff'", "'text'", "7"]),
    ("k REAL PRIMARY KEY, v", &["0.0", "1", "-1.5", "9e999", "-9e999", "1e300", "'text'", "x'00'"]),
    ("k NUMERIC PRIMARY KEY, v", &["0", "1", "1.5", "'1.25'", "'text'", "9e999"]),
    ("k PRIMARY KEY, v", &["0", "1", "1.5", "'1'", "x'31'", "-9e999", "''", "x''"]),
    ("k PRIMARY KEY, v) WITHOUT ROWID", &["0", "1", "1.5", "'1'", "x'31'", "-9e999", "''", "x''"]),
    ("k TEXT PRIMARY KEY COLLATE NOCASE, v", &["'a'", "'b'", "'É'", "'é'", "''", "x'61'"]),
    ("k TEXT PRIMARY KEY COLLATE RTRIM, v", &["'a'", "'A'", "' a'", "''"]),
    ("k TEXT COLLATE NOCASE, v, PRIMARY KEY (k)) WITHOUT ROWID", &["'a'", "'b'", "''"]),
    ("k VARCHAR(10) NOT NULL PRIMARY KEY, v", &["'a'", "'longer than that'"]),
    ("k DATETIME PRIMARY KEY, v", &["'2026-01-01'", "20260101", "1.5"]),
];

/// What cannot travel for its key is of one device alone: it counts in no digest, and is named.
#[test]
fn rows_that_cannot_travel_for_their_key_count_in_no_digest() {
    let mut pair = Pair::new("CREATE TABLE t (a INTEGER, b TEXT, v, PRIMARY KEY (a, b))", &["t"]);
    pair.write("INSERT INTO t VALUES (1, 'one', 1)");
    let before = pair.a.digest(false).unwrap();
    for row in ["NULL, 'one', 2", "2, NULL, 2", "3, CAST(zeroblob(70000) AS TEXT), 2"] {
        sql(&pair.a, &format!("INSERT INTO t VALUES ({row})"));
        pair.a.seal().unwrap();
        assert_eq!(pair.a.digest(false).unwrap(), before, "{row}");
    }
    digests_equal(&[&pair.a, &pair.b]);
    let named: u64 = pair.a.not_sent().unwrap().iter().map(|rows| rows.rows).sum();
    assert_eq!(named, 3);
    sql(&pair.a, "UPDATE t SET v = 3 WHERE b = 'one' AND a = 1");
    carry(&mut pair.a, &mut pair.b);
    digests_equal(&[&pair.a, &pair.b]);
    assert_ne!(pair.a.digest(false).unwrap(), before);
}

#[test]
fn rows_of_every_form_of_key_are_written_changed_moved_and_deleted() {
    for (form, keys) in FORMS {
        let end = if form.ends_with("ROWID") { "" } else { ")" };
        let mut pair = Pair::new(&format!("CREATE TABLE t ({form}{end}"), &["t"]);
        let n = keys.len() as u64;
        let all: Vec<String> = keys.iter().map(|k| format!("({k}, 'v')")).collect();
        assert_eq!(pair.write(&format!("INSERT INTO t VALUES {}", all.join(", "))), n, "{form}");
        for key in *keys {
            assert_eq!(pair.write(&format!("UPDATE t SET v = v || '2' WHERE k = {key}")), 1, "{form}: {key}");
        }
        for key in *keys {
            assert_eq!(pair.write(&format!("REPLACE INTO t VALUES ({key}, 'r')")), 1, "{form}: {key}");
        }
        // To a key that is free, and back.
        pair.write(&format!("UPDATE t SET k = 77 WHERE k = {}", keys[0]));
        pair.write(&format!("UPDATE t SET k = {} WHERE k = 77", keys[0]));
        // Two rows change places.
        assert_eq!(
            pair.write(&format!(
                "BEGIN; UPDATE t SET v = 'first' WHERE k = {0}; UPDATE t SET k = 77 WHERE k = {0}; UPDATE t SET k = {0} WHERE k = {1};
                 UPDATE t SET k = {1} WHERE k = 77; COMMIT",
                keys[0], keys[1]
            )),
            3,
            "{form}: both, and the key in between"
        );
        for key in *keys {
            assert_eq!(pair.write(&format!("DELETE FROM t WHERE k = {key}")), 1, "{form}: {key}");
            assert_eq!(pair.write(&format!("INSERT INTO t VALUES ({key}, 'again')")), 1, "{form}: {key}");
        }
        assert_eq!(rows(&pair.b, "SELECT count(*) FROM t"), [n.to_string()]);
        assert_eq!(pair.write("DELETE FROM t"), n, "{form}");
    }
}

#[test]
fn keys_of_several_columns() {
    for schema in [
        "a TEXT, b INT, c BLOB, v, PRIMARY KEY (a, b, c))",
        "v, c BLOB, b INT, a TEXT, PRIMARY KEY (b, c, a)) WITHOUT ROWID",
        "c, v, a TEXT COLLATE NOCASE, b REAL, PRIMARY KEY (c, a DESC, b))",
    ] {
        let mut pair = Pair::new(&format!("CREATE TABLE t ({schema}"), &["t"]);
        let insert = "INSERT INTO t (a, b, c, v) VALUES";
        assert_eq!(pair.write(&format!("{insert} ('x', 1, x'00', 1), ('x', 2, x'00', 2), ('x', 1, x'', 3), ('', 1, x'00', 4), ('x', 1, 'x', 5)")), 5);
        assert_eq!(pair.write("UPDATE t SET b = b + 10"), 10, "{schema}");
        assert_eq!(pair.write("UPDATE t SET v = v + 1 WHERE a = 'x' AND b = 11"), 3);
        assert_eq!(
            pair.write("UPDATE OR REPLACE t SET b = 12 WHERE a = 'x' AND c = x'00'"),
            2,
            "{schema}: one takes the other's place"
        );
        assert_eq!(
            pair.write("DELETE FROM t WHERE a = ''; UPDATE t SET c = CAST(c AS TEXT), a = a || 'y'"),
            1 + 3 * 2
        );
    }
}

/// `'a'` → `'A'` in a NOCASE key, 1 → 1.0 in a key without affinity: the same row, another value.
#[test]
fn a_key_that_becomes_an_equal_one() {
    for (form, from, to) in [
        ("k TEXT PRIMARY KEY COLLATE NOCASE, v", "'abc'", "'ABC'"),
        ("k TEXT COLLATE NOCASE, v, PRIMARY KEY (k)) WITHOUT ROWID", "'abc'", "'ABC'"),
        ("k TEXT PRIMARY KEY COLLATE RTRIM, v", "'abc'", "'abc  '"),
        ("k PRIMARY KEY, v", "1", "1.0"),
        ("k BLOB PRIMARY KEY, v", "1", "1.0"),
        ("k PRIMARY KEY, v) WITHOUT ROWID", "1.0", "1"),
        ("k PRIMARY KEY, v", "0.0", "-0.0"),
        ("k PRIMARY KEY, v", "9007199254740992", "9007199254740992.0"),
    ] {
        let end = if form.ends_with("ROWID") { "" } else { ")" };
        let mut pair =
            Pair::new(&format!("CREATE TABLE t ({form}{end}; INSERT INTO t VALUES ({from}, 1)"), &["t"]);
        assert_eq!(pair.write(&format!("UPDATE t SET k = {to}")), 1, "{form}");
        assert_eq!(rows(&pair.b, "SELECT k FROM t"), rows(&pair.a, &format!("SELECT {to}")), "{form}");
        assert_eq!(pair.write(&format!("REPLACE INTO t VALUES ({from}, 2)")), 1, "{form}");
        assert_eq!(rows(&pair.b, "SELECT k FROM t"), rows(&pair.a, &format!("SELECT {from}")), "{form}");
        assert_eq!(pair.write(&format!("DELETE FROM t; INSERT INTO t VALUES ({to}, 3)")), 1, "{form}");
        // Written at the same time on two devices, it is one row.
        sql(&pair.a, &format!("UPDATE t SET k = {from}, v = 'of a'"));
        pair.a.seal().unwrap();
        sql(&pair.b, &format!("UPDATE t SET k = {to}, v = 'of b'"));
        carry_all(&mut [&mut pair.a, &mut pair.b]);
        digests_equal(&[&pair.a, &pair.b]);
        let conflicts = pair.a.conflicts().unwrap();
        assert_eq!(conflicts.len(), 1, "{form}: {conflicts:?}");
        assert_eq!(conflicts, pair.b.conflicts().unwrap());
        assert_eq!(conflicts[0].kind, ConflictKind::UpdateUpdate);
        assert_eq!(rows(&pair.a, "SELECT * FROM t").len(), 1);
        assert_eq!(rows(&pair.a, "SELECT * FROM t"), rows(&pair.b, "SELECT * FROM t"));
    }
}

#[test]
fn equal_keys_inserted_on_two_devices_are_one_row_in_conflict() {
    for (form, here, there) in [
        ("k PRIMARY KEY, v", "1", "1.0"),
        ("k TEXT PRIMARY KEY COLLATE NOCASE, v", "'x'", "'X'"),
        ("k TEXT PRIMARY KEY COLLATE RTRIM, v", "'x'", "'x '"),
        ("k INTEGER PRIMARY KEY, v", "5", "5.0"),
    ] {
        let mut pair = Pair::new(&format!("CREATE TABLE t ({form})"), &["t"]);
        sql(&pair.a, &format!("INSERT INTO t VALUES ({here}, 'a')"));
        pair.a.seal().unwrap();
        pair.world.tick(10);
        sql(&pair.b, &format!("INSERT INTO t VALUES ({there}, 'b')"));
        carry_all(&mut [&mut pair.a, &mut pair.b]);
        digests_equal(&[&pair.a, &pair.b]);
        assert_eq!(pair.a.conflicts().unwrap().len(), 1, "{form}");
        assert_eq!(
            rows(&pair.a, "SELECT * FROM t"),
            rows(&pair.a, &format!("SELECT {there}, 'b'"))
                .into_iter()
                .map(|r| if form.contains("INTEGER") { r.replace("5.0r", "5") } else { r })
                .collect::<Vec<_>>(),
            "{form}: the later one"
        );
    }
}

/// Keys that look alike are still different rows.
#[test]
fn keys_that_are_different_stay_different_rows() {
    let mut pair = Pair::new("CREATE TABLE t (k PRIMARY KEY, v)", &["t"]);
    pair.write("INSERT INTO t VALUES (1, 'int'), ('1', 'text'), (x'31', 'blob'), ('1.0', 'text'), (1.5, 'real'), (9007199254740993, 'odd'), (9007199254740992.0, 'even')");
    assert_eq!(pair.write("DELETE FROM t WHERE k = '1'"), 1);
    assert_eq!(pair.write("UPDATE t SET v = 'x' WHERE k = 9007199254740993"), 1);
    assert_eq!(rows(&pair.b, "SELECT count(*) FROM t"), ["6"]);
}

#[test]
fn the_longest_key_travels_and_a_longer_one_is_named() {
    let mut pair = Pair::new("CREATE TABLE t (k TEXT PRIMARY KEY, v)", &["t"]);
    pair.write("INSERT INTO t VALUES (substr(hex(zeroblob(1000)), 1, 1024), 1)");
    sql(&pair.a, "INSERT INTO t VALUES (hex(zeroblob(513)), 2), ('short', 3)");
    pair.a.seal().unwrap();
    carry(&mut pair.a, &mut pair.b);
    assert_eq!(rows(&pair.b, "SELECT v FROM t ORDER BY v"), ["1", "3"]);
    assert!(pair.a.status().unwrap().notices.iter().any(|n| n.text.contains("1024")));
}
