//! Somebody wrote into Packmule's own tables: that is said as damage, with what to do, and nothing ends in a panic.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests are tests.

mod common;

use std::fs;
use std::path::Path;

use common::{World, app, append, carry, key_file, open, per_device, sql, try_import, whole_bundle};
use packmule::{Engine, Error, Hint, Options, Recipient};

/// What is put in place of each value, in turn.
const WRONG: [&str; 5] = ["'nonsense'", "-7", "9223372036854775807", "x'00ff'", "NULL"];

/// A device that has something of every kind, and a bundle that it has not seen.
fn devices() -> (World, Engine, Vec<u8>) {
    let world = World::new();
    let make = "CREATE TABLE t (k INTEGER PRIMARY KEY, u UNIQUE, v CHECK (v < 100));
         CREATE TABLE c (k INTEGER PRIMARY KEY, t REFERENCES t (k), n INTEGER);
         CREATE TABLE r (k INTEGER PRIMARY KEY, v);
         CREATE TABLE l (k INTEGER PRIMARY KEY AUTOINCREMENT, v);
         CREATE TABLE x (k INTEGER PRIMARY KEY, v)";
    let mut both = Vec::new();
    for name in ["a", "b"] {
        let mut one = world.board_with(name, make, &["t", "c", "x"]);
        one.track("r", &per_device()).unwrap();
        one.track("l", &append()).unwrap();
        both.push(one);
    }
    let [a, b] = &mut both[..] else { panic!() };
    sql(a, "INSERT INTO t VALUES (1, 'a', 1), (2, 'b', 2), (9, 'i', 9); INSERT INTO x VALUES (1, 1)");
    common::carry_all(&mut [a, b]);
    sql(
        a,
        "UPDATE t SET v = 10 WHERE k = 1; INSERT INTO t VALUES (3, 'same', 3); INSERT INTO c VALUES (1, 9, 1)",
    );
    sql(b, "UPDATE t SET v = 20 WHERE k = 1; INSERT INTO t VALUES (4, 'same', 4); DELETE FROM t WHERE k = 9");
    sql(a, "INSERT INTO r VALUES (1, 1); INSERT INTO l VALUES (1, 1); DROP TABLE x");
    sql(b, "INSERT INTO r VALUES (1, 2); INSERT INTO l VALUES (1, 2); ALTER TABLE t ADD COLUMN w");
    common::carry_all(&mut [a, b]);
    sql(a, "UPDATE t SET v = 30 WHERE k = 2");
    sql(b, "UPDATE t SET v = 40 WHERE k = 2");
    carry(b, a);
    sql(b, "INSERT INTO t VALUES (5, 'e', 5, 5); INSERT INTO r VALUES (2, 2)");
    let bytes = whole_bundle(b);
    sql(a, "INSERT INTO t (k, u) VALUES (6, 'f')");
    let a = both.remove(0);
    app(&a).execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    (world, a, bytes)
}

/// The columns of Packmule's own tables that have a row.
fn columns(path: &Path) -> Vec<(String, String)> {
    let db = open(path);
    let names = "SELECT t.name, c.name FROM sqlite_schema t, pragma_table_info(t.name) c
         WHERE t.type = 'table' AND t.name LIKE '\\_pm\\_%' ESCAPE '\\' ORDER BY 1, 2";
    let mut statement = db.prepare(names).unwrap();
    let all = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    let all = all.collect::<rusqlite::Result<Vec<(String, String)>>>().unwrap();
    let has_rows =
        |table: &String| db.prepare(&format!("SELECT 1 FROM {table}")).unwrap().exists([]).unwrap();
    all.into_iter().filter(|(table, _)| has_rows(table)).collect()
}

/// What a keeper does with a device: looks at it, checks it, exchanges with it. Returns what failed.
fn used(path: &Path, bytes: &[u8], options: Options) -> Vec<(&'static str, Error)> {
    let mut engine = match Engine::open_with(path, options) {
        Ok(engine) => engine,
        Err(error) => return vec![("open", error)],
    };
    let mut failed = Vec::new();
    let mut tried =
        |what, result: packmule::Result<()>| failed.extend(result.err().map(|error| (what, error)));
    tried("status", engine.status().map(drop));
    tried("devices", engine.devices().map(drop));
    tried("conflicts", engine.conflicts().map(drop));
    tried("log", engine.log(None, &[], &mut |_| Ok(())));
    tried("verify", engine.verify().map(drop));
    tried("digest", engine.digest(false).map(drop));
    tried("import", try_import(&mut engine, bytes).map(drop));
    tried("seal", engine.seal().map(drop));
    tried("export", engine.export(&mut Vec::new(), Recipient::Anyone).map(drop));
    failed
}

/// Puts a wrong value into a copy of the device: whether that was possible.
fn damage(copy: &Path, set: &str) -> bool {
    let db = open(copy);
    db.execute_batch("PRAGMA ignore_check_constraints = ON").unwrap();
    db.execute(set, []).is_ok_and(|changed| changed > 0)
}

#[test]
fn a_wrong_value_anywhere_in_packmules_own_tables_is_said_as_damage_or_does_no_harm() {
    let (world, a, bytes) = devices();
    let copy = world.path("copy");
    fs::copy(key_file(a.path()), key_file(&copy)).unwrap();
    let (mut tried, mut said) = (0, 0);
    let mut raw = Vec::new();
    for (table, column) in columns(a.path()) {
        for wrong in WRONG {
            for file in ["db-wal", "db-shm"] {
                fs::remove_file(copy.with_extension(file)).unwrap_or_default();
            }
            fs::copy(a.path(), &copy).unwrap();
            let set = format!("UPDATE OR IGNORE {table} SET {column} = {wrong}");
            if !damage(&copy, &set) {
                continue;
            }
            tried += 1;
            let failed = std::panic::catch_unwind(|| used(&copy, &bytes, world.options()));
            let Ok(failed) = failed else {
                raw.push(format!("{set}: a panic"));
                continue;
            };
            for (what, error) in failed {
                match &error {
                    Error::Damaged(_) => {
                        said += 1;
                        assert_eq!(error.hint(), Some(Hint::Verify), "{set}: {what}: {error}");
                    }
                    Error::Sqlite(_) => raw.push(format!("{set}: {what}: {error}")),
                    _ => {}
                }
            }
        }
    }
    assert!(raw.is_empty(), "{}", raw.join("\n"));
    // The control: wrong values were put into many places, and many of them were noticed.
    assert!(tried > 300 && said > 300, "{tried} tried, {said} said");
}
