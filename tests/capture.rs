//! Capture: whatever an application writes, with SQLite alone, is in the next seal, exactly.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests are tests.

mod common;
mod pair;
mod skips;

use common::*;
use packmule::{Error, SealReport, TrackOptions};
use pair::Pair;

#[test]
fn a_row_written_a_thousand_times_is_one_op() {
    let mut pair = Pair::plain();
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
    let mut pair = Pair::plain();
    assert!(pair.write("INSERT INTO t VALUES ('d', 4); DELETE FROM t WHERE k = 'd'") <= 1);
    assert_eq!(pair.write("DELETE FROM t WHERE k = 'a'; INSERT INTO t VALUES ('a', 9)"), 1);
    assert_eq!(pair.write("UPDATE t SET v = v"), 0, "nothing changed");
    assert_eq!(pair.write("UPDATE t SET v = 5 WHERE k = 'zzz'; DELETE FROM t WHERE k = 'zzz'"), 0);
}

#[test]
fn a_transaction_rolled_back_leaves_nothing() {
    let mut pair = Pair::plain();
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
    let mut pair = Pair::plain();
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
    let mut pair = Pair::plain();
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
    let mut pair = Pair::plain();
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
    let mut pair = Pair::plain();
    pair.app.execute_batch("BEGIN; UPDATE t SET v = 50 WHERE k = 'a'").unwrap();
    assert!(matches!(pair.a.seal(), Err(Error::Sqlite(_))), "the database is locked");
    pair.app.execute_batch("UPDATE t SET v = 60 WHERE k = 'b'; COMMIT").unwrap();
    assert_eq!(pair.sealed("after"), 2);
}

/// A service and a person's command, each with the database open.
#[test]
fn two_engines_on_one_database_take_turns() {
    let mut pair = Pair::plain();
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
