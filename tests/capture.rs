//! Capture: whatever an application writes, with SQLite alone, is in the next seal, exactly.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests are tests.

mod common;
mod pair;
mod skips;

use common::*;
use packmule::{Error, SealReport, TrackOptions};
use pair::Pair;

const PLAIN: &str =
    "CREATE TABLE t (k TEXT PRIMARY KEY, v); INSERT INTO t VALUES ('a', 1), ('b', 2), ('c', 3)";

fn plain() -> Pair {
    Pair::new(PLAIN, &["t"])
}

#[test]
fn a_row_written_a_thousand_times_is_one_op() {
    let mut pair = plain();
    for n in 0..1000 {
        pair.app.execute("UPDATE t SET v = ?1 WHERE k = 'a'", [n]).unwrap();
    }
    assert_eq!(pair.sealed("updates"), 1);
    assert_eq!(rows(&pair.b, "SELECT v FROM t WHERE k = 'a'"), ["999"]);
    pair.app.execute_batch("BEGIN").unwrap();
    for n in 0..500 {
        pair.app.execute("INSERT OR REPLACE INTO t VALUES ('new', ?1)", [n]).unwrap();
        pair.app.execute("DELETE FROM t WHERE k = 'new'", []).unwrap();
    }
    pair.app.execute_batch("INSERT INTO t VALUES ('new', -1); COMMIT").unwrap();
    assert_eq!(pair.sealed("inserts and deletes"), 1);
}

#[test]
fn the_net_change_is_what_counts() {
    let mut pair = plain();
    assert!(pair.write("INSERT INTO t VALUES ('d', 4); DELETE FROM t WHERE k = 'd'") <= 1);
    assert_eq!(pair.write("DELETE FROM t WHERE k = 'a'; INSERT INTO t VALUES ('a', 9)"), 1);
    assert_eq!(pair.write("UPDATE t SET v = v"), 0, "nothing changed");
    assert_eq!(pair.write("UPDATE t SET v = 5 WHERE k = 'zzz'; DELETE FROM t WHERE k = 'zzz'"), 0);
}

#[test]
fn a_transaction_rolled_back_leaves_nothing() {
    let mut pair = plain();
    let before = everything(pair.a.path());
    pair.app
        .execute_batch(
            "BEGIN; INSERT INTO t VALUES ('x', 1); UPDATE t SET v = 0; DELETE FROM t WHERE k = 'b'; ROLLBACK;
             BEGIN; SAVEPOINT s; DELETE FROM t; ROLLBACK TO s; RELEASE s; COMMIT",
        )
        .unwrap();
    assert!(pair.app.execute_batch("INSERT INTO t VALUES ('y', 1), ('a', 2)").is_err(), "a clash of keys");
    assert_eq!(everything(pair.a.path()), before);
    assert_eq!(pair.a.seal().unwrap(), SealReport::default());
}

#[test]
fn untracked_tables_note_nothing() {
    let mut pair = plain();
    pair.app.execute_batch("CREATE TABLE other (k TEXT PRIMARY KEY, v)").unwrap();
    assert_eq!(pair.a.seal().unwrap(), SealReport::default());
    let lists =
        "SELECT name FROM sqlite_schema WHERE name LIKE '\\_pm\\_%' ESCAPE '\\' AND tbl_name = 'other'";
    assert_eq!(rows(&pair.a, lists).len(), 0);
    pair.app.execute_batch("INSERT INTO other VALUES ('a', 1); UPDATE other SET v = 2").unwrap();
    assert_eq!(pair.a.seal().unwrap(), SealReport::default());
    assert!(pair.a.status().unwrap().tables.iter().all(|t| t.name != "other"));
}

#[test]
fn an_untracked_table_is_no_longer_captured_and_can_be_tracked_again() {
    let mut pair = plain();
    pair.a.untrack("t").unwrap();
    pair.app.execute_batch("UPDATE t SET v = 100 WHERE k = 'a'").unwrap();
    assert_eq!(pair.a.seal().unwrap(), SealReport::default());
    let ours = "SELECT count(*) FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 't'";
    assert_eq!(rows(&pair.a, ours), ["0"]);
    pair.a.track("t", &TrackOptions::default()).unwrap();
    carry_all(&mut [&mut pair.a, &mut pair.b]);
    digests_equal(&[&pair.a, &pair.b]);
}

#[test]
fn upserts_and_deletes_of_everything() {
    let mut pair = plain();
    let upsert = "INSERT INTO t VALUES ('a', 10), ('n', 11) ON CONFLICT (k) DO UPDATE SET v = excluded.v + 1";
    assert_eq!(pair.write(upsert), 2);
    assert_eq!(pair.write("INSERT INTO t VALUES ('a', 0) ON CONFLICT DO NOTHING"), 0);
    assert_eq!(pair.write("INSERT OR IGNORE INTO t VALUES ('b', 0)"), 0);
    assert_eq!(pair.write("REPLACE INTO t VALUES ('b', 77)"), 1);
    assert_eq!(pair.write("WITH n(x) AS (VALUES ('p'), ('q')) INSERT INTO t SELECT x, 1 FROM n"), 2);
    assert_eq!(pair.write("UPDATE t SET v = o.v FROM t AS o WHERE o.k = 'a' AND t.k = 'p'"), 1);
    assert_eq!(pair.write("DELETE FROM t"), 6);
    assert_eq!(rows(&pair.b, "SELECT count(*) FROM t"), ["0"]);
    assert_eq!(pair.write("INSERT INTO t VALUES ('a', 1)"), 1);
}

/// Each way in which SQLite removes a row without running its delete triggers.
#[test]
fn replace_removes_other_rows_and_the_seal_knows() {
    let three = "INSERT INTO t VALUES ('a', 1, 'x'), ('b', 2, 'y'), ('c', 3, 'z')";
    for (schema, statement, left) in [
        ("k TEXT PRIMARY KEY, u UNIQUE, v", "INSERT OR REPLACE INTO t VALUES ('d', 1, 'n')", "bcd"),
        ("k TEXT PRIMARY KEY, u UNIQUE, v", "UPDATE OR REPLACE t SET u = 1 WHERE k = 'c'", "bc"),
        ("k TEXT PRIMARY KEY, u UNIQUE, v", "UPDATE OR REPLACE t SET u = 9", "c"),
        ("k TEXT PRIMARY KEY, u UNIQUE, v", "UPDATE OR REPLACE t SET k = 'a' WHERE k = 'c'", "ab"),
        ("k TEXT PRIMARY KEY, u UNIQUE, v UNIQUE", "INSERT OR REPLACE INTO t VALUES ('d', 1, 'y')", "cd"),
        ("k TEXT PRIMARY KEY, u UNIQUE, v UNIQUE", "INSERT OR REPLACE INTO t VALUES ('c', 1, 'y')", "c"),
        (
            "k TEXT PRIMARY KEY, u UNIQUE, v UNIQUE",
            "UPDATE OR REPLACE t SET u = 1, v = 'y' WHERE k = 'c'",
            "c",
        ),
        ("k TEXT PRIMARY KEY, u, v, UNIQUE (u, v)", "INSERT OR REPLACE INTO t VALUES ('d', 1, 'x')", "bcd"),
        (
            "k TEXT PRIMARY KEY, u, v, UNIQUE (v, u)",
            "UPDATE OR REPLACE t SET u = 1, v = 'x' WHERE k = 'b'",
            "bc",
        ),
        ("k TEXT PRIMARY KEY, u INT UNIQUE, v", "INSERT OR REPLACE INTO t VALUES ('d', '1', 'n')", "bcd"),
        (
            "k TEXT PRIMARY KEY, u, v TEXT COLLATE NOCASE UNIQUE",
            "INSERT OR REPLACE INTO t VALUES ('d', 4, 'X')",
            "bcd",
        ),
        ("k TEXT PRIMARY KEY, u UNIQUE ON CONFLICT REPLACE, v", "INSERT INTO t VALUES ('d', 1, 'n')", "bcd"),
        ("k TEXT PRIMARY KEY, u UNIQUE ON CONFLICT REPLACE, v", "UPDATE t SET u = 1 WHERE k = 'b'", "bc"),
        ("k TEXT PRIMARY KEY ON CONFLICT REPLACE, u, v", "UPDATE t SET k = 'a' WHERE k = 'b'", "ac"),
        (
            "k TEXT PRIMARY KEY, u INT UNIQUE, v",
            "INSERT OR REPLACE INTO t SELECT k || k, u, v FROM t WHERE u < 3",
            "caabb",
        ),
        (
            "k TEXT PRIMARY KEY, u, v",
            "INSERT OR REPLACE INTO t (rowid, k, u, v) VALUES (1, 'd', 4, 'n')",
            "bcd",
        ),
        ("k TEXT PRIMARY KEY, u, v", "UPDATE OR REPLACE t SET rowid = 1 WHERE k = 'c'", "bc"),
        ("k TEXT PRIMARY KEY, u, v", "UPDATE OR REPLACE t SET _rowid_ = 2, v = 'w' WHERE k = 'a'", "ac"),
        ("k TEXT PRIMARY KEY, rowid UNIQUE, v", "UPDATE OR REPLACE t SET oid = 2 WHERE k = 'a'", "ac"),
        ("k TEXT PRIMARY KEY, u UNIQUE, v", "UPDATE OR REPLACE t SET rowid = 1, u = 2 WHERE k = 'c'", "c"),
        ("k TEXT, u UNIQUE, v, PRIMARY KEY (v, k)", "INSERT OR REPLACE INTO t VALUES ('d', 1, 'n')", "bcd"),
        (
            "k TEXT PRIMARY KEY, u UNIQUE, v) WITHOUT ROWID",
            "INSERT OR REPLACE INTO t VALUES ('d', 1, 'n')",
            "bcd",
        ),
        (
            "k TEXT PRIMARY KEY, u UNIQUE, v) WITHOUT ROWID",
            "UPDATE OR REPLACE t SET u = 2 WHERE k = 'a'",
            "ac",
        ),
        (
            "k TEXT PRIMARY KEY, u UNIQUE, v); CREATE UNIQUE INDEX i ON t (u COLLATE BINARY",
            "INSERT OR REPLACE INTO t VALUES ('d', 1, 'n')",
            "bcd",
        ),
        (
            "k TEXT PRIMARY KEY, u, v); CREATE UNIQUE INDEX i ON t (v COLLATE NOCASE",
            "INSERT OR REPLACE INTO t VALUES ('d', 4, 'X')",
            "bcd",
        ),
        (
            "k TEXT PRIMARY KEY, u, v); CREATE UNIQUE INDEX i ON t (v COLLATE RTRIM DESC",
            "INSERT OR REPLACE INTO t VALUES ('d', 4, 'x  ')",
            "bcd",
        ),
        (
            "k TEXT PRIMARY KEY, u, v); CREATE UNIQUE INDEX i ON t (v COLLATE NOCASE",
            "UPDATE OR REPLACE t SET v = 'X' WHERE k = 'b'",
            "bc",
        ),
        (
            "k TEXT PRIMARY KEY, u, v TEXT COLLATE NOCASE); CREATE UNIQUE INDEX i ON t (v COLLATE BINARY",
            "INSERT OR REPLACE INTO t VALUES ('d', 4, 'x')",
            "bcd",
        ),
        (
            "k TEXT PRIMARY KEY, u, v); CREATE UNIQUE INDEX i ON t (lower(v)",
            "INSERT OR REPLACE INTO t VALUES ('d', 4, 'X')",
            "bcd",
        ),
        (
            "k TEXT PRIMARY KEY, u, v); CREATE UNIQUE INDEX i ON t (lower(v)",
            "UPDATE OR REPLACE t SET v = 'X' WHERE k = 'b'",
            "bc",
        ),
        (
            "k TEXT PRIMARY KEY, u, v); CREATE UNIQUE INDEX i ON t (u % 3, lower(v) || '(,'",
            "INSERT OR REPLACE INTO t VALUES ('d', 4, 'X')",
            "bcd",
        ),
        (
            "k TEXT PRIMARY KEY, u, v); CREATE UNIQUE INDEX i ON t (u) WHERE (v < 'z'",
            "INSERT OR REPLACE INTO t VALUES ('d', 1, 'n')",
            "bcd",
        ),
        (
            "k TEXT PRIMARY KEY, u, v); CREATE UNIQUE INDEX i ON t (u) WHERE (v < 'z'",
            "INSERT OR REPLACE INTO t VALUES ('d', 3, 'n')",
            "abcd",
        ),
        (
            "k TEXT PRIMARY KEY, u, v); CREATE UNIQUE INDEX i ON t (abs(u)) WHERE (v < 'z'",
            "UPDATE OR REPLACE t SET u = -1 WHERE k = 'b'",
            "bc",
        ),
        (
            "k TEXT PRIMARY KEY, u, v); UPDATE t SET u = 1; CREATE UNIQUE INDEX i ON t (u) WHERE (v > 'y'",
            "UPDATE OR REPLACE t SET v = 'zz' WHERE k = 'a'",
            "ab",
        ),
        (
            "k TEXT PRIMARY KEY, u, v, g AS (u * 2) UNIQUE",
            "INSERT OR REPLACE INTO t VALUES ('d', 1, 'n')",
            "bcd",
        ),
        (
            "k TEXT PRIMARY KEY, u, v, g AS (u * 2) STORED); CREATE UNIQUE INDEX i ON t (g + 1",
            "UPDATE OR REPLACE t SET u = 1 WHERE k = 'b'",
            "bc",
        ),
    ] {
        for recursive in ["", "PRAGMA recursive_triggers = ON;"] {
            let end = if schema.ends_with("ROWID") { "" } else { ")" };
            // Indexes come after the rows, since some of them clash until they are changed.
            let (table, index) = schema.split_once(";").unwrap_or((schema, ""));
            let (table, index) = if index.is_empty() {
                (format!("{table}{end}"), String::new())
            } else {
                (table.into(), format!("{index})"))
            };
            let mut pair = Pair::new(&format!("CREATE TABLE t ({table}; {three}; {index}"), &["t"]);
            let ops = pair.write(&format!("{recursive} {statement}"));
            let keys =
                rows(&pair.b, "SELECT group_concat(k, '') FROM (SELECT k FROM t ORDER BY length(k), k)");
            assert_eq!(keys, [format!("{left:?}")], "{schema}: {statement}");
            let gone = "abc".chars().filter(|c| !left.contains(*c)).count() as u64;
            assert!(ops >= gone && ops <= 5, "{schema}: {statement}: {ops} ops");
        }
    }
}

/// What the application tries and SQLite refuses is no op.
#[test]
fn a_clash_that_is_ignored_or_refused_is_no_op() {
    let mut pair = Pair::new(
        "CREATE TABLE t (k TEXT PRIMARY KEY, u UNIQUE); INSERT INTO t VALUES ('a', 1), ('b', 2)",
        &["t"],
    );
    assert_eq!(
        pair.write("INSERT OR IGNORE INTO t VALUES ('c', 1); UPDATE OR IGNORE t SET u = 1 WHERE k = 'b'"),
        0
    );
    assert!(pair.app.execute("INSERT INTO t VALUES ('c', 1)", []).is_err());
    assert!(pair.app.execute("UPDATE t SET u = 1", []).is_err());
    assert_eq!(pair.sealed("refused"), 0);
    assert_eq!(pair.write("INSERT INTO t VALUES ('z', 2) ON CONFLICT (u) DO UPDATE SET u = 3"), 1);
}

#[test]
fn unique_values_swapped_in_one_group_arrive_swapped() {
    let mut pair = Pair::new(
        "CREATE TABLE t (k TEXT PRIMARY KEY, u INT UNIQUE); INSERT INTO t VALUES ('a', 1), ('b', 2), ('c', 3)",
        &["t"],
    );
    pair.write("BEGIN; UPDATE t SET u = -u; UPDATE t SET u = 2 WHERE k = 'a'; UPDATE t SET u = 3 WHERE k = 'b'; UPDATE t SET u = 1 WHERE k = 'c'; COMMIT");
    pair.write("BEGIN; DELETE FROM t WHERE k = 'a'; INSERT INTO t VALUES ('0', 2), ('z', 9); UPDATE t SET u = 10 WHERE k = 'b'; UPDATE t SET u = 3 WHERE k = 'z'; COMMIT");
    assert_eq!(rows(&pair.b, "SELECT k, u FROM t ORDER BY k"), ["\"0\"|2", "\"b\"|10", "\"c\"|1", "\"z\"|3"]);
}

#[test]
fn foreign_keys_act_on_other_rows() {
    let schema = "PRAGMA foreign_keys = ON;
        CREATE TABLE station (id TEXT PRIMARY KEY, name);
        CREATE TABLE sensor (id TEXT PRIMARY KEY, station TEXT REFERENCES station ON DELETE CASCADE ON UPDATE CASCADE);
        CREATE TABLE reading (id TEXT PRIMARY KEY, sensor TEXT REFERENCES sensor (id) ON DELETE CASCADE ON UPDATE CASCADE, v);
        CREATE TABLE note (id TEXT PRIMARY KEY, station TEXT DEFAULT 'none' REFERENCES station ON DELETE SET NULL ON UPDATE SET NULL);
        CREATE TABLE mark (id TEXT PRIMARY KEY, station TEXT DEFAULT 's3' REFERENCES station ON DELETE SET DEFAULT);
        INSERT INTO station VALUES ('s1', 1), ('s2', 2), ('s3', 3);
        INSERT INTO sensor VALUES ('p', 's1'), ('q', 's1'), ('r', 's2');
        INSERT INTO reading VALUES ('1', 'p', 1), ('2', 'q', 2), ('3', 'r', 3);
        INSERT INTO note VALUES ('n', 's1'), ('m', 's2');
        INSERT INTO mark VALUES ('n', 's1'), ('m', 's2')";
    let mut pair = Pair::new(schema, &["station", "sensor", "reading", "note", "mark"]);
    assert_eq!(
        pair.write(
            "UPDATE station SET id = 's9' WHERE id = 's3'; UPDATE station SET id = 's3' WHERE id = 's9'"
        ),
        2
    );
    assert_eq!(pair.write("DELETE FROM station WHERE id = 's1'"), 1 + 2 + 2 + 1 + 1);
    assert_eq!(
        pair.write("UPDATE OR IGNORE sensor SET id = 'rr' WHERE id = 'r'"),
        3,
        "the key twice, and the reading"
    );
    assert_eq!(pair.write("DELETE FROM mark WHERE station = 's2'"), 1);
    assert_eq!(pair.write("UPDATE note SET station = 's2'; UPDATE station SET id = 'S2' WHERE id = 's2'; UPDATE station SET name = 22 WHERE id = 'S2'"), 2 + 2 + 1);
    // A row replaced by itself cascades as if it were deleted.
    pair.write("REPLACE INTO station VALUES ('S2', 'again')");
    assert_eq!(rows(&pair.b, "SELECT count(*) FROM reading"), ["0"]);
}

#[test]
fn what_the_applications_own_triggers_write_is_captured_and_does_not_happen_twice() {
    let schema = "CREATE TABLE t (k TEXT PRIMARY KEY, v);
        CREATE TABLE audit (id TEXT PRIMARY KEY, what);
        CREATE TABLE total (k TEXT PRIMARY KEY, n INT);
        INSERT INTO total VALUES ('t', 0)";
    let triggers = "CREATE TRIGGER one AFTER INSERT ON t BEGIN
            INSERT INTO audit VALUES (hex(randomblob(8)), NEW.k); UPDATE total SET n = n + 1; END;
        CREATE TRIGGER two BEFORE DELETE ON t BEGIN UPDATE total SET n = n - 1; END;
        CREATE TRIGGER three AFTER UPDATE OF v ON t WHEN NEW.v < 0 BEGIN UPDATE t SET v = 0 WHERE k = NEW.k; END";
    let mut pair = Pair::new(schema, &["t", "audit", "total"]);
    pair.app.execute_batch(triggers).unwrap();
    sql(&pair.b, triggers);
    assert_eq!(pair.write("INSERT INTO t VALUES ('a', 1), ('b', 2)"), 2 + 2 + 1);
    assert_eq!(pair.write("UPDATE t SET v = -5 WHERE k = 'a'"), 1);
    assert_eq!(rows(&pair.b, "SELECT v FROM t WHERE k = 'a'"), ["0"]);
    assert_eq!(pair.write("DELETE FROM t"), 2 + 1);
    assert_eq!(rows(&pair.b, "SELECT (SELECT n FROM total), (SELECT count(*) FROM audit)"), ["0|2"]);
}

#[test]
fn columns_that_the_application_adds_are_noticed() {
    let mut pair = plain();
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
    let mut pair = plain();
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
    let mut pair = plain();
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
    let mut pair = plain();
    pair.app.execute_batch("UPDATE t SET v = 4 WHERE k = 'a'; ALTER TABLE t RENAME TO t2").unwrap();
    assert_eq!(pair.a.seal().unwrap().ops, 0);
    let table = pair.a.status().unwrap().tables.remove(0);
    assert_eq!((table.how, table.unsealed), (packmule::TableHow::Suspended, 1));
    assert!(table.note.unwrap().contains("`t2`"));
    pair.app.execute_batch("ALTER TABLE t2 RENAME TO t").unwrap();
    assert_eq!(pair.sealed("renamed back"), 1);
}

#[test]
fn rows_that_were_there_are_taken_in() {
    let world = World::new();
    let mut a = world.board("a");
    sql(&a, "CREATE TABLE t (k INTEGER PRIMARY KEY, v, b BLOB)");
    sql(
        &a,
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 5000) INSERT INTO t SELECT x, 'row ' || x, zeroblob(x % 97) FROM n",
    );
    let report = a.track("t", &TrackOptions::default()).unwrap();
    assert_eq!(report.rows, 5000);
    assert!(report.advice[0].contains("INTEGER PRIMARY KEY"), "{report:?}");
    assert!(a.track("t", &TrackOptions::default()).unwrap().already);
    let mut b = world.board("b");
    assert_eq!(carry(&mut a, &mut b).ops, 5000);
    assert_eq!(rows(&b, "SELECT * FROM t"), rows(&a, "SELECT * FROM t"));
    digests_equal(&[&a, &b]);
}

/// A row whose key cannot travel is named, and holds nothing else up.
#[test]
fn a_null_in_a_key_is_named_and_stays_here() {
    let world = World::new();
    let mut a = world.board_with("a", "CREATE TABLE t (k TEXT PRIMARY KEY, v)", &["t"]);
    let mut b = world.board("b");
    sql(&a, "INSERT INTO t VALUES (NULL, 1), (NULL, 2), ('a', 3); UPDATE t SET v = 9 WHERE k IS NULL");
    a.seal().unwrap();
    carry(&mut a, &mut b);
    assert_eq!(rows(&b, "SELECT * FROM t"), ["\"a\"|3"]);
    assert!(a.status().unwrap().notices.iter().any(|n| n.text.contains("`t`") && n.text.contains("NULL")));
    sql(&a, "DELETE FROM t WHERE k IS NULL");
    a.seal().unwrap();
}

#[test]
fn a_write_in_the_middle_is_not_sealed_by_half() {
    let mut pair = plain();
    pair.app.execute_batch("BEGIN; UPDATE t SET v = 50 WHERE k = 'a'").unwrap();
    assert!(matches!(pair.a.seal(), Err(Error::Sqlite(_))), "the database is locked");
    pair.app.execute_batch("UPDATE t SET v = 60 WHERE k = 'b'; COMMIT").unwrap();
    assert_eq!(pair.sealed("after"), 2);
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

/// A service and a person's command, each with the database open.
#[test]
fn two_engines_on_one_database_take_turns() {
    let mut pair = plain();
    let mut other = packmule::Engine::open_with(pair.a.path(), pair.world.options()).unwrap();
    for n in 0..5 {
        sql(&pair.a, &format!("INSERT INTO t (k) VALUES ('n{n}')"));
        assert_eq!(other.seal().unwrap().ops, 1);
        sql(&pair.a, &format!("CREATE TABLE t{n} (k TEXT PRIMARY KEY); INSERT INTO t{n} VALUES ('x')"));
        assert_eq!(pair.a.track(&format!("t{n}"), &TrackOptions::default()).unwrap().rows, 1);
        sql(
            &pair.a,
            &format!("ALTER TABLE t ADD COLUMN c{n}; UPDATE t SET c{n} = 1; INSERT INTO t{n} VALUES ('y')"),
        );
        other.seal().unwrap();
        carry(&mut pair.b, &mut other);
        pair.sealed("by the other one");
        assert_eq!(rows(&pair.b, &format!("SELECT count(*) FROM t{n}")), ["2"]);
    }
    assert_eq!(other.digest(false).unwrap(), pair.b.digest(false).unwrap());
}

/// The application changes the journal mode, vacuums, and analyzes, as people do.
#[test]
fn housekeeping_of_the_application_is_harmless() {
    let mut pair = Pair::new(
        "CREATE TABLE t (k TEXT PRIMARY KEY, u UNIQUE, v); INSERT INTO t VALUES ('a', 1, 1), ('b', 2, 2)",
        &["t"],
    );
    for what in [
        "VACUUM",
        "ANALYZE",
        "REINDEX",
        "PRAGMA wal_checkpoint(TRUNCATE)",
        "CREATE INDEX i ON t (v)",
        "CREATE VIEW w AS SELECT * FROM t",
        "DROP INDEX i",
    ] {
        pair.app.execute_batch(&format!("DELETE FROM t WHERE k = 'a'; {what}; INSERT OR REPLACE INTO t VALUES ('a', 2, '{what}'), ('b', 1, 1)")).unwrap();
        assert!(pair.sealed(what) <= 2, "{what}");
    }
}

/// A savepoint, a trigger that raises and a statement that fails half-way leave exactly what stays.
#[test]
fn statements_that_fail_half_way() {
    let mut pair = Pair::new(
        "CREATE TABLE t (k TEXT PRIMARY KEY, v CHECK (v < 10));
         CREATE TRIGGER no BEFORE UPDATE ON t WHEN NEW.v = 5 BEGIN SELECT RAISE(ABORT, 'no'); END;
         CREATE TRIGGER fail AFTER INSERT ON t WHEN NEW.v = 6 BEGIN SELECT RAISE(FAIL, 'stop here'); END;
         CREATE TRIGGER skip BEFORE DELETE ON t WHEN OLD.k = 'a' BEGIN SELECT RAISE(IGNORE); END;
         INSERT INTO t VALUES ('a', 1), ('b', 2), ('c', 3)",
        &["t"],
    );
    assert!(pair.app.execute_batch("UPDATE t SET v = v + 8").is_err());
    assert_eq!(pair.sealed("a check"), 0);
    assert!(pair.app.execute_batch("UPDATE OR FAIL t SET v = v + 8").is_err());
    assert_eq!(pair.sealed("what was done before the failure stays"), 1);
    assert!(pair.app.execute_batch("UPDATE t SET v = 5").is_err());
    assert_eq!(pair.sealed("a trigger that aborts"), 0);
    assert!(pair.app.execute_batch("INSERT INTO t VALUES ('x', 1), ('y', 6), ('z', 1)").is_err());
    assert_eq!(pair.sealed("a trigger that fails"), 2);
    assert_eq!(pair.write("DELETE FROM t"), 4, "and one that is ignored");
    assert!(
        pair.app
            .execute_batch("BEGIN; INSERT INTO t VALUES ('p', 1); INSERT OR ROLLBACK INTO t VALUES ('q', 99)")
            .is_err()
    );
    assert_eq!(pair.sealed("a rollback by a clause"), 0);
    assert_eq!(rows(&pair.b, "SELECT k FROM t"), ["\"a\""]);
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
