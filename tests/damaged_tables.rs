//! Somebody wrote into Packmule's own tables: that is said as damage, with what to do, and nothing ends in a panic.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests are tests.

mod bundles;
mod common;
mod wrong;

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::Path;

use common::{
    World, app, append, bundle, carry, carry_all, copy_card, import, key_file, open, per_device, rows,
    session_of_two, sql, try_import, whole_bundle,
};
use packmule::carry::Stop;
use packmule::carry::net;
use packmule::{ColumnMerge, Engine, Error, Hint, Keep, Options, Recipient, TrackOptions};

/// What is put in place of each value, in turn.
const WRONG: [&str; 5] = ["'nonsense'", "-7", "9223372036854775807", "x'00ff'", "NULL"];

/// A device, and a bundle that it has not seen.
struct Device {
    world: World,
    engine: Engine,
    bytes: Vec<u8>,
}

/// A device with all that is open: conflicts, rows that wait, decisions that were not carried out yet.
fn open_matters() -> Device {
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
    sql(a, "UPDATE packmule_conflicts SET take = 'newest'");
    let engine = both.remove(0);
    Device { world, engine, bytes }
}

/// A base that has folded most of its log, of counters, append tables and deleted rows, and has revoked a device.
fn settled() -> Device {
    let world = World::new();
    let counted =
        TrackOptions { columns: vec![("n".into(), ColumnMerge::Counter)], ..TrackOptions::default() };
    let board = |name: &str| {
        let mut one = world.board(name);
        sql(
            &one,
            "CREATE TABLE t (k INTEGER PRIMARY KEY, v, n INTEGER); CREATE TABLE r (k INTEGER PRIMARY KEY, v);
             CREATE TABLE l (k INTEGER PRIMARY KEY AUTOINCREMENT, v)",
        );
        one.track("t", &counted).unwrap();
        one.track("r", &per_device()).unwrap();
        one.track("l", &append()).unwrap();
        one
    };
    let (mut a, mut late, mut base) = (board("a"), board("late"), world.base("base"));
    sql(&a, "INSERT INTO t VALUES (1, 1, 1), (2, 2, 2), (3, 3, 3); INSERT INTO r VALUES (1, 1), (2, 2)");
    sql(&a, "INSERT INTO l VALUES (1, 1), (2, 2), (5, 5)");
    carry_all(&mut [&mut a, &mut late, &mut base]);
    sql(&late, "UPDATE t SET n = n + 100, v = 'late'; INSERT INTO t VALUES (7, 7, 7)");
    late.seal().unwrap();
    base.retire(late.identity().id, Some(&world.fleet)).unwrap();
    sql(&a, "DELETE FROM t WHERE k = 2; DELETE FROM r WHERE k = 2; UPDATE t SET n = n + 1, v = 'a'");
    for _ in 0..2 {
        carry_all(&mut [&mut a, &mut base]);
        a.compact().unwrap();
        base.compact().unwrap();
    }
    sql(&base, "UPDATE t SET n = n + 1 WHERE k = 1");
    carry(&mut late, &mut base);
    base.digest(true).unwrap();
    base.revoke(late.identity().id, Some(&world.fleet)).unwrap();
    sql(&a, "UPDATE t SET n = n + 1, v = 'new'; INSERT INTO l (v) VALUES (6); INSERT INTO r VALUES (3, 3)");
    let bytes = whole_bundle(&mut a);
    Device { world, engine: base, bytes }
}

/// A board whose append table was pruned, and whose table was changed so that it is held, while rows of it came; it has
/// a session behind it, and a cut one; what one device signed cannot be read.
fn held() -> Device {
    let wrong::Fleet { world, mut base, mut good, mut insider, .. } = wrong::fleet();
    sql(&insider, "INSERT INTO settings VALUES (5, 'sound')");
    let sound = bundle(&mut insider, &good);
    let (_, content) = wrong::corpus().remove(0);
    import(&mut good, &wrong::forged(&insider, &sound, &content, &[]));
    sql(
        &good,
        "CREATE TABLE l (k INTEGER PRIMARY KEY AUTOINCREMENT, v); INSERT INTO l VALUES (1, 1), (4, 4), (9, 9)",
    );
    good.track("l", &append()).unwrap();
    good.seal().unwrap();
    world.tick(7_200_000);
    sql(&good, "DELETE FROM l WHERE k = 4; INSERT INTO l VALUES (20, 20)");
    good.prune("l", Keep::Rows(2)).unwrap();
    session(&mut good, &mut base);
    sql(&good, "ALTER TABLE settings RENAME TO other; UPDATE other SET value = 'held'");
    good.seal().unwrap();
    sql(&base, "INSERT INTO settings VALUES (6, 'comes')");
    carry(&mut base, &mut good);
    sql(&base, "INSERT INTO settings VALUES (7, randomblob(300000))");
    cut_session(&mut base, &mut good);
    sql(&base, "INSERT INTO settings VALUES (8, 'also')");
    let bytes = whole_bundle(&mut base);
    Device { world, engine: good, bytes }
}

/// A session of two, over a socket.
fn session(one: &mut Engine, other: &mut Engine) {
    let options = net::Options { plain: true, patience: None };
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = format!("tcp://{}", port.local_addr().unwrap()).parse().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (from, _) = port.accept().unwrap();
            let ends = (OwnedFd::from(from.try_clone().unwrap()), OwnedFd::from(from));
            net::serve_pipes(other, ends, &options, &Stop::default(), &mut |_| ()).unwrap();
        });
        net::sync(one, &at, &options, &Stop::default(), &mut |_| ()).unwrap();
    });
}

/// A session that ends in the middle of a large group, of which frames have come.
fn cut_session(from: &mut Engine, to: &mut Engine) {
    let is_staged = |engine: &Engine| rows(engine, "SELECT count(*) FROM _pm_staged") != ["0"];
    session_of_two(from, to, 50_000, &mut |engine| is_staged(engine));
    assert!(is_staged(to), "nothing is staged");
}

/// A board that has built on a second history of another one, which it has given up since; rows wait for a table of the other
/// one that has the name of its own, and another key.
fn two_histories() -> Device {
    let world = World::new();
    let (mut a, mut c, mut base) = (world.board("a"), world.board("c"), world.base("base"));
    for (board, key) in [(&mut a, "TEXT"), (&mut c, "INTEGER")] {
        sql(
            board,
            &format!(
                "CREATE TABLE t (k TEXT PRIMARY KEY, v); CREATE TABLE item (k {key} PRIMARY KEY, v);
                 INSERT INTO item VALUES ('1', 'one')"
            ),
        );
        board.track("t", &TrackOptions::default()).unwrap();
        board.track("item", &TrackOptions::default()).unwrap();
    }
    sql(&c, "INSERT INTO t VALUES ('r', 'c')");
    for _ in 0..3 {
        carry_all(&mut [&mut a, &mut c, &mut base]);
        [&mut a, &mut c, &mut base].into_iter().for_each(|device| drop(device.compact().unwrap()));
    }
    sql(&a, "ALTER TABLE item RENAME TO item_a");
    a.track("item_a", &TrackOptions::default()).unwrap();
    a.untrack("item").unwrap();
    carry_all(&mut [&mut a, &mut c, &mut base]);
    let to = world.path("image");
    copy_card(&a, &to);
    let mut copy = Engine::open_with(&to, world.options()).unwrap();
    sql(&a, "INSERT INTO t VALUES ('a', 1)");
    carry(&mut a, &mut base);
    for n in 0..4 {
        sql(&copy, &format!("UPDATE t SET v = 'copy {n}'"));
        copy.seal().unwrap();
    }
    carry(&mut copy, &mut c);
    // It is built on, so that its frames cannot be renamed.
    sql(&c, "INSERT INTO t VALUES ('c', 1)");
    carry(&mut c, &mut copy);
    import(&mut base, &whole_bundle(&mut c));
    import(&mut c, &whole_bundle(&mut base));
    sql(&a, "INSERT INTO t VALUES ('later', 1)");
    let bytes = whole_bundle(&mut a);
    Device { world, engine: c, bytes }
}

/// What a table is called, whatever the number of the table that it is about.
fn kind(table: &str) -> String {
    table.trim_end_matches(|c: char| c.is_ascii_digit()).to_owned()
}

/// The columns of Packmule's own tables, and whether they have a row.
fn columns(path: &Path) -> Vec<(String, String, bool)> {
    let db = open(path);
    let names = "SELECT t.name, c.name FROM sqlite_schema t, pragma_table_info(t.name) c
         WHERE t.type = 'table' AND t.name LIKE '\\_pm\\_%' ESCAPE '\\' ORDER BY 1, 2";
    let mut statement = db.prepare(names).unwrap();
    let all = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    let all = all.collect::<rusqlite::Result<Vec<(String, String)>>>().unwrap();
    let has_rows =
        |table: &String| db.prepare(&format!("SELECT 1 FROM {table}")).unwrap().exists([]).unwrap();
    all.into_iter()
        .map(|(table, column)| (has_rows(&table), table, column))
        .map(|(some, table, column)| (table, column, some))
        .collect()
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

/// What came of wrong values.
#[derive(Default)]
struct Tried {
    values: usize,
    said: usize,
    /// What was not said as it should be.
    raw: Vec<String>,
}

/// Puts each wrong value into a column of a copy of the device, and uses that.
fn try_column(device: &Device, (table, column): (&str, &str), tried: &mut Tried) {
    let Device { world, engine, bytes } = device;
    let copy = world.path("damaged");
    for wrong in WRONG {
        for file in ["db-wal", "db-shm"] {
            fs::remove_file(copy.with_extension(file)).unwrap_or_default();
        }
        fs::copy(engine.path(), &copy).unwrap();
        let set = format!("UPDATE OR IGNORE {table} SET {column} = {wrong}");
        if !damage(&copy, &set) {
            continue;
        }
        tried.values += 1;
        let Ok(failed) = std::panic::catch_unwind(|| used(&copy, bytes, world.options())) else {
            tried.raw.push(format!("{set}: a panic"));
            continue;
        };
        for (what, error) in failed {
            match &error {
                Error::Damaged(_) => {
                    tried.said += 1;
                    assert_eq!(error.hint(), Some(Hint::Verify), "{set}: {what}: {error}");
                }
                Error::Sqlite(_) => tried.raw.push(format!("{set}: {what}: {error}")),
                _ => {}
            }
        }
    }
}

/// What no device here has rows of.
const EMPTY: [&str; 2] = [
    // No copy of a card that is behind has told a device here what it has.
    "_pm_copy",
    // The verdicts on such rows are written before the work that brought them ends.
    "_pm_unplaced",
];

#[test]
fn a_wrong_value_anywhere_in_packmules_own_tables_is_said_as_damage_or_does_no_harm() {
    let mut tried = Tried::default();
    let (mut empty, mut done) = (BTreeSet::new(), BTreeSet::new());
    for device in [open_matters(), settled(), held(), two_histories()] {
        let path = device.engine.path();
        app(&device.engine).execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        fs::copy(key_file(path), key_file(&device.world.path("damaged"))).unwrap();
        // Each kind of table is tried on the first device that has rows of it.
        let mut here = BTreeSet::new();
        for (table, column, some) in columns(path) {
            let kind = kind(&table);
            if !some {
                empty.insert(kind);
            } else if !done.contains(&kind) {
                try_column(&device, (&table, &column), &mut tried);
                here.insert(kind);
            }
        }
        println!("{:?}: {:?}", path.file_name(), here);
        done.append(&mut here);
    }
    let empty: Vec<&str> = empty.difference(&done).map(String::as_str).collect();
    assert_eq!(empty, EMPTY, "what no device here has rows of");
    assert!(tried.raw.is_empty(), "{}", tried.raw.join("\n"));
    println!("{} tried, {} said", tried.values, tried.said);
    // The control: wrong values were put into many places, and many of them were noticed.
    assert!(tried.values > 600 && tried.said > 600, "{} tried, {} said", tried.values, tried.said);
}
