//! The tables that are captured: what they may be, and what applications make of them.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests are tests.

mod common;
mod pair;
mod skips;

use common::*;
use packmule::{Error, TrackOptions};
use pair::Pair;

#[test]
fn columns_that_the_application_adds_are_noticed() {
    let mut pair = Pair::plain();
    // Only the new column is written before the next seal.
    let ops = pair.write("ALTER TABLE t ADD COLUMN w; UPDATE t SET w = 7 WHERE k = 'a'");
    assert_eq!(ops, 1);
    assert_eq!(rows(&pair.b, "SELECT w FROM t ORDER BY k"), ["7", "NULL", "NULL"]);
    let ops = pair.write(
        "ALTER TABLE t ADD COLUMN unit TEXT NOT NULL DEFAULT 'C' COLLATE NOCASE; ALTER TABLE t ADD COLUMN n REAL DEFAULT -1.5;
         UPDATE t SET unit = 'c' WHERE k = 'b'; UPDATE t SET n = NULL WHERE k = 'c'",
    );
    assert_eq!(ops, 2);
    assert_eq!(
        rows(&pair.b, "SELECT unit, n FROM t ORDER BY k"),
        ["\"C\"|-1.5r", "\"c\"|-1.5r", "\"C\"|NULL"]
    );
    // From then on the triggers know it.
    assert_eq!(pair.write("UPDATE t SET w = 8 WHERE k = 'b'"), 1);
    assert_eq!(pair.write("UPDATE t SET unit = 'F', n = 0"), 3);
    assert_eq!(pair.write("INSERT INTO t (k, w) VALUES ('d', 'new')"), 1);
    // Alone, without any write.
    pair.app.execute_batch("ALTER TABLE t ADD COLUMN last INT DEFAULT 3").unwrap();
    pair.sealed("added and not written");
    assert_eq!(rows(&pair.b, "SELECT last FROM t WHERE k = 'd'"), ["3"]);
}

#[test]
fn a_column_added_while_rows_wait_to_be_sealed() {
    let mut pair = Pair::plain();
    let ops = pair.write(
        "UPDATE t SET v = 10 WHERE k = 'a'; DELETE FROM t WHERE k = 'b'; ALTER TABLE t ADD COLUMN w BLOB DEFAULT x'00ff';
         INSERT INTO t (k) VALUES ('d'); UPDATE t SET w = 'text' WHERE k = 'c'",
    );
    assert_eq!(ops, 4);
    assert_eq!(
        rows(&pair.b, "SELECT k, w FROM t ORDER BY k"),
        ["\"a\"|[00, ff]", "\"c\"|\"text\"", "\"d\"|[00, ff]"]
    );
}

#[test]
fn an_index_that_the_application_adds_is_noticed() {
    let mut pair = Pair::new(
        "CREATE TABLE t (k TEXT PRIMARY KEY, u, v); INSERT INTO t VALUES ('a', 1, 'x'), ('b', 2, 'y')",
        &["t"],
    );
    for (n, index) in ["t (u)", "t (u) WHERE v > 'a'", "t (abs(u))"].iter().enumerate() {
        pair.app.execute_batch(&format!("CREATE UNIQUE INDEX i{n} ON {index}")).unwrap();
        pair.sealed(index);
        pair.write("INSERT OR REPLACE INTO t VALUES ('c', 1, 'z')");
        assert_eq!(rows(&pair.b, "SELECT k FROM t ORDER BY k"), ["\"b\"", "\"c\""], "{index}");
        pair.write("INSERT OR REPLACE INTO t VALUES ('a', 1, 'x')");
        assert_eq!(rows(&pair.b, "SELECT k FROM t ORDER BY k"), ["\"a\"", "\"b\""], "{index}");
        pair.app.execute_batch(&format!("DROP INDEX i{n}")).unwrap();
        pair.sealed("dropped");
    }
}

/// An index is there, and used, before anything was sealed.
#[test]
fn an_index_added_and_used_before_the_next_seal() {
    let mut pair =
        Pair::new("CREATE TABLE t (k TEXT PRIMARY KEY, u); INSERT INTO t VALUES ('a', 1), ('b', 2)", &["t"]);
    pair.write("CREATE UNIQUE INDEX i ON t (u); INSERT OR REPLACE INTO t VALUES ('c', 1)");
    assert_eq!(rows(&pair.b, "SELECT k FROM t ORDER BY k"), ["\"b\"", "\"c\""]);
}

#[test]
fn generated_columns_make_themselves() {
    let mut pair = Pair::new(
        "CREATE TABLE t (k TEXT PRIMARY KEY, v REAL, twice AS (v * 2), kept TEXT AS (k || '!') STORED, w);
         INSERT INTO t VALUES ('a', 1.5, 'w')",
        &["t"],
    );
    assert_eq!(pair.write("UPDATE t SET v = 2.5"), 1);
    assert_eq!(pair.write("INSERT INTO t (k, v) VALUES ('b', 1)"), 1);
    // A device that has made the table itself has them too.
    let mut c = pair.world.board("c");
    sql(
        &c,
        "CREATE TABLE t (k TEXT PRIMARY KEY, v REAL, twice AS (v * 2), kept TEXT AS (k || '!') STORED, w)",
    );
    c.track("t", &TrackOptions::default()).unwrap();
    carry(&mut pair.a, &mut c);
    assert_eq!(rows(&c, "SELECT * FROM t ORDER BY k"), rows(&pair.a, "SELECT * FROM t ORDER BY k"));
    digests_equal(&[&pair.a, &c]);
}

#[test]
fn names_that_need_quotes() {
    let mut pair = Pair::new(
        r#"CREATE TABLE "the ""t"" (é; --)" ("a b" TEXT PRIMARY KEY, "select" INT UNIQUE, "x'y" DEFAULT 'it''s', [c"d] REAL);
           INSERT INTO "the ""t"" (é; --)" ("a b", "select") VALUES ('k', 1)"#,
        &[],
    );
    let name = "the \"t\" (é; --)";
    pair.a.track(name, &TrackOptions::default()).unwrap();
    let table = r#""the ""t"" (é; --)""#;
    pair.app
        .execute_batch(&format!(
            r#"INSERT OR REPLACE INTO {table} ("a b", "select") VALUES ('l', 1); UPDATE {table} SET [c"d] = 2.5"#
        ))
        .unwrap();
    carry(&mut pair.a, &mut pair.b);
    let all = format!("SELECT * FROM {table}");
    assert_eq!(rows(&pair.b, &all), ["\"l\"|1|\"it's\"|2.5r"]);
    digests_equal(&[&pair.a, &pair.b]);
    pair.app
        .execute_batch(&format!(
            "ALTER TABLE {table} ADD COLUMN \"new \"\"one\" TEXT; UPDATE {table} SET \"new \"\"one\" = 1"
        ))
        .unwrap();
    carry(&mut pair.a, &mut pair.b);
    assert_eq!(rows(&pair.b, &all), rows(&pair.a, &all));
}

#[test]
fn columns_named_like_ours_and_like_sqlites_own() {
    for names in ["rowid", "oid", "rowid, oid", "note, k1, device", "old, new"] {
        let columns: Vec<String> = names.split(", ").map(|n| format!("{n} UNIQUE")).collect();
        let mut pair =
            Pair::new(&format!("CREATE TABLE t (k TEXT PRIMARY KEY, {}, v)", columns.join(", ")), &["t"]);
        let values: Vec<String> = columns.iter().enumerate().map(|(n, _)| format!("'v{n}'")).collect();
        assert_eq!(
            pair.write(&format!("INSERT INTO t VALUES ('a', {}, 1)", values.join(", "))),
            1,
            "{names}"
        );
        pair.write(&format!(
            "INSERT OR REPLACE INTO t VALUES ('b', {}, zeroblob(100000))",
            values.join(", ")
        ));
        assert_eq!(rows(&pair.b, "SELECT k, length(v) FROM t"), ["\"b\"|100000"], "{names}");
    }
}

fn refused(sql_text: &str, table: &str) -> String {
    let world = World::new();
    let mut a = world.board("a");
    sql(&a, sql_text);
    let before = everything(a.path());
    match a.track(table, &TrackOptions::default()) {
        Err(Error::CannotTrack { table: named, reason }) => {
            assert!(named.eq_ignore_ascii_case(table), "{named}");
            assert_eq!(everything(a.path()), before, "nothing is left behind");
            assert!(a.status().unwrap().tables.is_empty());
            reason
        }
        other => panic!("{sql_text}: {other:?}"),
    }
}

#[test]
fn tables_that_cannot_be_tracked_are_refused_by_name_with_the_reason() {
    for (sql_text, table, says) in [
        ("CREATE TABLE t (a, b)", "t", "no primary key"),
        ("CREATE TABLE t (a, b)", "T", "no primary key"),
        ("CREATE TABLE t (a PRIMARY KEY, b); CREATE VIEW w AS SELECT * FROM t", "w", "view"),
        ("SELECT 1", "nowhere", "no such table"),
        ("CREATE TABLE t (k TEXT PRIMARY KEY, rowid, oid, _ROWID_)", "t", "every name of the rowid"),
        ("SELECT 1", "_pm_meta", "belongs to Packmule"),
        ("SELECT 1", "sqlite_schema", "SQLite"),
        ("CREATE TABLE t (a INTEGER PRIMARY KEY AUTOINCREMENT, b)", "sqlite_sequence", "SQLite"),
    ] {
        let reason = refused(sql_text, table);
        assert!(reason.contains(says), "{sql_text}: {reason}");
    }
    // A virtual table, and the tables that it keeps its content in.
    let fts = rusqlite::Connection::open_in_memory()
        .unwrap()
        .execute_batch("CREATE VIRTUAL TABLE f USING fts5(x, y)");
    match fts {
        Ok(()) => {
            assert!(refused("CREATE VIRTUAL TABLE f USING fts5(x, y)", "f").contains("virtual"));
            assert!(refused("CREATE VIRTUAL TABLE f USING fts5(x, y)", "f_data").contains("shadow"));
        }
        Err(e) => skips::skip("virtual tables are not tracked", &e.to_string()),
    }
}

#[test]
fn a_collation_of_the_applications_own_is_refused() {
    let world = World::new();
    let mut a = world.board("a");
    // As a library would leave it that has the collation.
    sql(
        &a,
        "CREATE TABLE t (k TEXT PRIMARY KEY, v COLLATE NOCASE); PRAGMA writable_schema = ON;
         UPDATE sqlite_schema SET sql = replace(sql, 'NOCASE', 'mine') WHERE name = 't'; PRAGMA writable_schema = RESET",
    );
    match a.track("t", &TrackOptions::default()) {
        Err(Error::CannotTrack { reason, .. }) => {
            assert!(reason.to_lowercase().contains("collation mine"), "{reason}")
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_dropped_table_is_let_go_and_the_rest_goes_on() {
    let mut pair = Pair::new(
        "CREATE TABLE t (k TEXT PRIMARY KEY, v); CREATE TABLE other (k TEXT PRIMARY KEY, v);
         INSERT INTO t VALUES ('a', 1); INSERT INTO other VALUES ('a', 1)",
        &["other", "t"],
    );
    pair.app.execute_batch("INSERT INTO t VALUES ('b', 2); DROP TABLE t; UPDATE other SET v = 2").unwrap();
    assert_eq!(pair.a.seal().unwrap().ops, 1);
    carry(&mut pair.a, &mut pair.b);
    assert_eq!(rows(&pair.b, "SELECT v FROM other"), ["2"]);
    assert_eq!(rows(&pair.b, "SELECT * FROM t"), ["\"a\"|1"], "others keep it");
    assert!(pair.a.status().unwrap().notices.iter().any(|n| n.text.contains("`t` was dropped")));
    let left = "SELECT name FROM sqlite_schema WHERE name LIKE '%dirty%' OR type = 'trigger' ORDER BY name";
    assert_eq!(rows(&pair.a, left).iter().filter(|n| n.contains("dirty")).count(), 2, "it may come back");
    // What others write to it waits, and comes when it is tracked again.
    sql(&pair.b, "INSERT INTO t VALUES ('c', 3)");
    assert_eq!(carry(&mut pair.b, &mut pair.a).ops_waiting, 1);
    pair.app.execute_batch("CREATE TABLE t (k TEXT PRIMARY KEY, v)").unwrap();
    pair.a.track("t", &TrackOptions::default()).unwrap();
    carry_all(&mut [&mut pair.a, &mut pair.b]);
    assert!(rows(&pair.a, "SELECT * FROM t ORDER BY k").contains(&"\"c\"|3".to_owned()));
}

/// The 12 steps of <https://sqlite.org/lang_altertable.html#otheralter>, which drop the triggers.
#[test]
fn a_table_made_again_is_captured_again() {
    let mut pair = Pair::plain();
    pair.app
        .execute_batch(
            "UPDATE t SET v = 5 WHERE k = 'a';
             PRAGMA foreign_keys = OFF; BEGIN;
             CREATE TABLE new_t (k TEXT PRIMARY KEY, v, w TEXT DEFAULT 'w', CHECK (v < 1000));
             INSERT INTO new_t (k, v) SELECT k, v FROM t;
             DROP TABLE t; ALTER TABLE new_t RENAME TO t; COMMIT;
             UPDATE t SET v = 6 WHERE k = 'b'; INSERT INTO t VALUES ('d', 4, 'x')",
        )
        .unwrap();
    pair.sealed("made anew");
    assert!(pair.a.status().unwrap().notices.iter().any(|n| n.text.contains("`t` was rebuilt")));
    assert_eq!(
        rows(&pair.b, "SELECT k, v, w FROM t ORDER BY k").join(" "),
        "\"a\"|5|\"w\" \"b\"|6|\"w\" \"c\"|3|\"w\" \"d\"|4|\"x\""
    );
    assert_eq!(pair.write("UPDATE t SET v = 7 WHERE k = 'c'"), 1, "the triggers are back");
}

#[test]
fn what_is_not_additive_suspends_the_table_until_it_is_undone() {
    let mut pair = Pair::plain();
    pair.app.execute_batch("UPDATE t SET v = 4 WHERE k = 'a'; ALTER TABLE t RENAME TO t2").unwrap();
    assert_eq!(pair.a.seal().unwrap().ops, 0);
    let table = pair.a.status().unwrap().tables.remove(0);
    assert_eq!((table.how, table.unsealed), (packmule::TableHow::Suspended, 1));
    assert!(table.note.unwrap().contains("`t2`"));
    pair.app.execute_batch("ALTER TABLE t2 RENAME TO t").unwrap();
    assert_eq!(pair.sealed("renamed back"), 1);
}

/// A STRICT table's ANY keeps what it is given; elsewhere a column called ANY would not.
#[test]
fn strict_tables_of_a_newer_sqlite() {
    let mut pair = Pair::new(
        "CREATE TABLE t (k TEXT PRIMARY KEY, x ANY, i INT, r REAL, s TEXT, b BLOB) STRICT; INSERT INTO t (k, x) VALUES ('a', '1')",
        &["t"],
    );
    assert_eq!(rows(&pair.b, "SELECT x FROM t"), ["\"1\""]);
    for value in ["1", "1.0", "'1.0'", "x'31'", "-0.0", "0.0", "NULL"] {
        assert_eq!(pair.write(&format!("UPDATE t SET x = {value}, r = NULL WHERE k = 'a'")), 1, "{value}");
    }
    pair.write("ALTER TABLE t ADD COLUMN later ANY; UPDATE t SET later = '007'");
    pair.write("INSERT INTO t VALUES ('b', '2', 2, 2, '2', x'02', 2.0)");
    sql(&pair.b, "UPDATE t SET x = '3', later = '4.50' WHERE k = 'b'");
    carry(&mut pair.b, &mut pair.a);
    assert_eq!(rows(&pair.a, "SELECT x, later FROM t WHERE k = 'b'"), ["\"3\"|\"4.50\""]);
    digests_equal(&[&pair.a, &pair.b]);
}

/// The same table with other types would make other values: it is refused, or at least said.
#[test]
fn a_table_that_others_define_differently_is_not_silent() {
    for (here, says) in [("v INTEGER", "`v`"), ("v TEXT COLLATE NOCASE", "NOCASE"), ("v", "no type")] {
        let world = World::new();
        let mut a = world.board_with(
            "a",
            "CREATE TABLE t (k TEXT PRIMARY KEY, v TEXT); INSERT INTO t VALUES ('x', '007')",
            &["t"],
        );
        let mut b = world.board("b");
        let mut c = world.board_with("c", &format!("CREATE TABLE t (k TEXT PRIMARY KEY, {here})"), &["t"]);
        sql(&b, &format!("CREATE TABLE t (k TEXT PRIMARY KEY, {here})"));
        carry(&mut a, &mut b);
        match b.track("t", &TrackOptions::default()) {
            Err(Error::CannotTrack { table, reason }) => {
                assert!(table == "t" && reason.contains(says), "{reason}")
            }
            other => panic!("{here}: {other:?}"),
        }
        carry(&mut a, &mut c);
        let conflicts = c.conflicts().unwrap();
        assert_eq!(conflicts.len(), 1);
        let said: String = conflicts[0].versions.iter().map(|v| format!("`v` {} ", v.values[0].1)).collect();
        assert!(conflicts[0].kind.word() == "schema" && said.contains(says), "{said}");
    }
}
