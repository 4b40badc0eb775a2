//! Tables of which each device owns its rows, and a base gathers them all.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests are tests.

mod bundles;
mod common;
use common::*;
use packmule::core::model::Stream;
use packmule::{Engine, Error, Keep, Recipient, TrackOptions};

const TABLES: &str = "CREATE TABLE reading (id INTEGER PRIMARY KEY AUTOINCREMENT, sensor TEXT, v REAL);
    CREATE TABLE state (k TEXT PRIMARY KEY, v, u INT UNIQUE);
    CREATE TABLE station (id TEXT PRIMARY KEY, name)";

fn board(world: &World, name: &str) -> Engine {
    let mut board = world.board_with(name, TABLES, &["station"]);
    board.track("reading", &append()).unwrap();
    board.track("state", &per_device()).unwrap();
    board
}

fn label(engine: &Engine) -> String {
    format!("{}-{:08x}", engine.identity().name, engine.identity().id.short())
}

/// The rows of one device as the base has them.
fn gathered(base: &Engine, of: &Engine, table: &str, columns: &str) -> Vec<String> {
    rows(base, &format!("SELECT {columns} FROM {table} WHERE device = '{}' ORDER BY 2", label(of)))
}

#[test]
fn a_base_gathers_the_rows_of_every_board_under_its_name() {
    let world = World::new();
    let mut boards = [board(&world, "north"), board(&world, "south")];
    let mut base = world.base("base");
    for (n, board) in boards.iter_mut().enumerate() {
        // The same keys and the same UNIQUE values on both: they never conflict.
        sql(
            board,
            &format!(
                "INSERT INTO reading (sensor, v) VALUES ('t', {n}), ('t', {n} + 0.5); INSERT INTO state VALUES ('mode', {n}, 1)"
            ),
        );
        carry(board, &mut base);
    }
    assert_eq!(base.conflicts().unwrap(), []);
    for board in &boards {
        for (table, columns) in [("reading", "sensor, id, v"), ("state", "v, k, u")] {
            let of_board = rows(board, &format!("SELECT {columns} FROM {table} ORDER BY 2"));
            assert_eq!(gathered(&base, board, table, columns), of_board);
        }
    }
    let key = "SELECT group_concat(name) FROM (SELECT name FROM pragma_table_info('reading') WHERE pk > 0 ORDER BY pk)";
    assert_eq!(rows(&base, key), ["\"device,id\""]);
    assert_eq!(rows(&base, "SELECT count(*) FROM reading"), ["4"]);
    assert_eq!(base.verify().unwrap().problems, [""; 0]);
}

#[test]
fn changes_and_deletes_of_a_boards_own_rows_follow() {
    let world = World::new();
    let mut a = board(&world, "a");
    let mut base = world.base("base");
    let follow = |a: &mut Engine, base: &mut Engine| {
        carry(a, base);
        assert_eq!(gathered(base, a, "state", "v, k, u"), rows(a, "SELECT v, k, u FROM state ORDER BY k"));
    };
    sql(&a, "INSERT INTO state VALUES ('a', 1, 1), ('b', 2, 2), ('c', 3, 3)");
    follow(&mut a, &mut base);
    sql(
        &a,
        "UPDATE state SET v = x'00' WHERE k = 'a'; DELETE FROM state WHERE k = 'b'; UPDATE state SET k = 'd' WHERE k = 'c'",
    );
    follow(&mut a, &mut base);
    sql(&a, "INSERT OR REPLACE INTO state VALUES ('e', 9, 1)");
    follow(&mut a, &mut base);
    sql(
        &a,
        "BEGIN; UPDATE state SET u = -u; UPDATE state SET u = 3 WHERE k = 'e'; UPDATE state SET u = 1 WHERE k = 'd'; COMMIT",
    );
    follow(&mut a, &mut base);
    sql(&a, "ALTER TABLE state ADD COLUMN more DEFAULT 'm'; UPDATE state SET more = 1 WHERE k = 'e'");
    follow(&mut a, &mut base);
    assert_eq!(gathered(&base, &a, "state", "more, k"), rows(&a, "SELECT more, k FROM state ORDER BY k"));
    sql(&a, "DELETE FROM state");
    follow(&mut a, &mut base);
    assert_eq!(rows(&base, "SELECT count(*) FROM state"), ["0"]);
}

#[test]
fn an_append_table_costs_nothing_and_is_read_on_from_the_last_id() {
    let world = World::new();
    let mut a = world.board("a");
    sql(&a, TABLES);
    sql(
        &a,
        "INSERT INTO reading (sensor, v) VALUES ('before', 1), ('before', 2); DELETE FROM reading WHERE id = 1",
    );
    let report = a.track("reading", &append()).unwrap();
    assert_eq!(report.rows, 1, "rows that were there");
    assert_eq!(
        rows(
            &a,
            "SELECT count(*) FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 'reading' AND sql LIKE '%INSERT ON%'"
        ),
        ["0"]
    );
    let mut base = world.base("base");
    carry(&mut a, &mut base);
    for n in 0..3 {
        sql(
            &a,
            &format!(
                "BEGIN; INSERT INTO reading (sensor, v) VALUES ('s', {n}), ('s', {n}); INSERT INTO reading (id, v) VALUES (1000 * {n} + 1000, 0); COMMIT"
            ),
        );
        assert_eq!(a.status().unwrap().tables[0].unsealed, 3);
        assert_eq!(a.seal().unwrap().ops, 3);
        assert_eq!(a.seal().unwrap().ops, 0);
        carry(&mut a, &mut base);
        assert_eq!(
            gathered(&base, &a, "reading", "v, id"),
            rows(&a, "SELECT v, id FROM reading ORDER BY id")
        );
    }
    // Rows that were rolled back were never there.
    assert!(
        app(&a)
            .execute_batch(
                "BEGIN; INSERT INTO reading (v) VALUES (1); ROLLBACK; INSERT INTO nowhere VALUES (1)"
            )
            .is_err()
    );
    assert_eq!(a.seal().unwrap().ops, 0);
    // An append table needs AUTOINCREMENT: a plain rowid may be used again.
    sql(&a, "CREATE TABLE plain (id INTEGER PRIMARY KEY, v)");
    match a.track("plain", &append()) {
        Err(Error::CannotTrack { table, reason }) => {
            assert!(table == "plain" && reason.contains("AUTOINCREMENT"), "{reason}")
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_the_base_gathers_is_guarded() {
    let world = World::new();
    let mut a = board(&world, "a");
    let mut base = world.base("base");
    sql(&a, "INSERT INTO reading (sensor, v) VALUES ('t', 1); INSERT INTO state VALUES ('a', 1, 1)");
    carry(&mut a, &mut base);
    let before = everything(base.path());
    for text in [
        "INSERT INTO reading VALUES ('me', 1, 't', 1)",
        "UPDATE reading SET v = 2",
        "DELETE FROM state",
        "REPLACE INTO state SELECT * FROM state",
    ] {
        let error = app(&base).execute_batch(text).unwrap_err().to_string();
        assert!(error.contains("changed on the device itself"), "{text}: {error}");
    }
    assert_eq!(everything(base.path()), before);
    assert_eq!(base.seal().unwrap().ops, 0, "what is gathered is not captured");
    // The next import goes through.
    sql(&a, "UPDATE state SET v = 2");
    carry(&mut a, &mut base);
    assert_eq!(rows(&base, "SELECT v FROM state"), ["2"]);
    assert!(matches!(base.track("state", &TrackOptions::default()), Err(Error::CannotTrack { .. })));
}

#[test]
fn other_boards_receive_none_of_it_and_order_and_verify_the_rest() {
    let world = World::new();
    let mut a = board(&world, "a");
    let mut b = board(&world, "b");
    let mut base = world.base("base");
    carry_all(&mut [&mut a, &mut b, &mut base]);
    let own = |bytes: &[u8]| bundles::split(bytes).iter().filter(|g| g.stream == Stream::PerDevice).count();
    for n in 0..5 {
        sql(
            &a,
            &format!(
                "BEGIN; INSERT INTO reading (sensor, v) VALUES ('secret', {n}); INSERT OR REPLACE INTO station VALUES ('s', {n}); COMMIT"
            ),
        );
        let for_b = bundle(&mut a, &b);
        assert_eq!(own(&for_b), 0, "never sent to a board");
        assert!(!for_b.windows(6).any(|w| w == b"secret"));
        let report = import(&mut b, &for_b);
        assert_eq!((report.skipped, report.waits), (0, vec![]));
        sql(&b, &format!("UPDATE station SET name = name + 10; INSERT INTO reading (v) VALUES ({n})"));
        carry(&mut b, &mut a);
        digests_equal(&[&a, &b]);
    }
    // A bundle for anyone has everything; a board passes over what is not its business.
    let all = whole_bundle(&mut a);
    assert!(own(&all) > 0);
    let before = everything(b.path());
    let report = import(&mut b, &all);
    assert!(report.skipped > 0 && report.frames == 0 && report.waits.is_empty(), "{report:?}");
    assert_eq!(everything(b.path()).len(), before.len() + 1, "that A's statement was heard");
    assert_eq!(
        rows(
            &b,
            "SELECT count(*) FROM _pm_frame f JOIN _pm_device d ON d.n = f.dev WHERE d.name = 'a' AND stream = 1"
        ),
        ["0"]
    );
    assert_eq!(rows(&b, "SELECT count(*) FROM reading"), ["5"]);
    carry(&mut b, &mut base);
    carry(&mut a, &mut base);
    assert_eq!(rows(&base, "SELECT count(*) FROM reading"), ["10"]);
    assert_eq!(base.status().unwrap().waits, []);
    // Nor does the base send it on.
    let mut bytes = Vec::new();
    base.export(&mut bytes, Recipient::Device(b.identity().id)).unwrap();
    assert_eq!(own(&bytes), 0);
    import(&mut b, &bytes);
    import(&mut a, &whole_bundle(&mut base));
    digests_equal(&[&a, &b, &base]);
    for engine in [&a, &b, &base] {
        assert_eq!(engine.verify().unwrap().problems, [""; 0]);
    }
}

#[test]
fn a_second_base_gets_everything_from_the_first() {
    let world = World::new();
    let mut a = board(&world, "a");
    let mut first = world.base("first");
    let mut second = world.base("second");
    sql(&a, "INSERT INTO reading (sensor, v) VALUES ('t', 1); INSERT INTO state VALUES ('k', 1, 1)");
    carry(&mut a, &mut first);
    carry(&mut first, &mut second);
    assert_eq!(first.digest(true).unwrap(), second.digest(true).unwrap());
    assert_eq!(rows(&second, "SELECT * FROM reading"), rows(&first, "SELECT * FROM reading"));
}

/// A base that is added late meets a board before it meets the base by whose word the board has pruned rows. Those come from
/// there, as frames or as what is gathered there; what the board wrote later stays as it is, and holds up nobody.
#[test]
fn a_late_base_gets_what_a_board_has_pruned() {
    for folded in [false, true] {
        let world = World::new();
        let mut a = board(&world, "a");
        let (mut first, mut late) = (world.base("first"), world.base("late"));
        let both = |from: &mut Engine, to: &mut Engine| {
            carry(from, to);
            carry(to, from);
        };
        sql(
            &a,
            "INSERT INTO reading (sensor, v) VALUES ('t', 1), ('t', 2);
             INSERT INTO state VALUES ('k', 1, 1), ('gone', 1, 2)",
        );
        both(&mut a, &mut first);
        sql(&a, "UPDATE state SET v = 2 WHERE k = 'k'; INSERT INTO reading (sensor, v) VALUES ('t', 3)");
        both(&mut a, &mut first);
        if folded {
            first.compact().unwrap();
        }
        a.compact().unwrap();
        assert_eq!(a.prune("reading", Keep::Rows(0)).unwrap().rows, 3);
        sql(&a, "UPDATE state SET v = 3 WHERE k = 'k'; DELETE FROM state WHERE k = 'gone'");
        sql(&a, "INSERT INTO reading (sensor, v) VALUES ('t', 4)");
        for _ in 0..2 {
            both(&mut a, &mut late);
        }
        assert_eq!(gathered(&late, &a, "reading", "v, id"), ["4.0r|4"], "{folded}");
        sql(&a, "UPDATE state SET v = 4 WHERE k = 'k'");
        for _ in 0..2 {
            both(&mut a, &mut late);
            both(&mut late, &mut first);
        }
        both(&mut late, &mut first);
        assert_eq!(gathered(&late, &a, "reading", "v, id").len(), 4, "{folded}");
        assert_eq!(gathered(&late, &a, "state", "v, k"), rows(&a, "SELECT v, k FROM state ORDER BY k"));
        both(&mut a, &mut late);
        both(&mut a, &mut first);
        for table in ["reading", "state"] {
            let all = format!("SELECT * FROM {table} ORDER BY 1, 2");
            assert_eq!(rows(&first, &all), rows(&late, &all), "{folded}");
        }
        assert_eq!(first.digest(true).unwrap(), late.digest(true).unwrap());
        for device in [&mut a, &mut first, &mut late] {
            device.compact().unwrap();
            assert_eq!(rows(device, "SELECT count(*) FROM _pm_frame WHERE stream = 1"), ["0"], "{folded}");
        }
    }
}

/// The base has a table of that name itself, which need not even fit: it stays as it is, and the rows of others stand
/// beside it.
#[test]
fn a_table_of_that_name_at_the_base() {
    let world = World::new();
    let mut a = board(&world, "a");
    let mut base = world.base("base");
    sql(&base, "CREATE TABLE reading (mine); INSERT INTO reading VALUES ('mine')");
    sql(
        &a,
        "INSERT INTO reading (sensor, v) VALUES ('t', 1), ('t', 2); INSERT INTO state VALUES ('k', 1, 1)",
    );
    let report = carry(&mut a, &mut base);
    assert_eq!((report.ops, report.ops_waiting), (3, 0));
    let apart = &report.gathered_apart[0];
    assert_eq!((&*apart.table, &*apart.gathered_in, apart.ops), ("reading", "reading_gathered", 2));
    assert_eq!(rows(&base, "SELECT * FROM reading"), ["\"mine\""]);
    assert_eq!(rows(&base, "SELECT count(*) FROM state"), ["1"]);
    assert_eq!(
        gathered(&base, &a, "reading_gathered", "v, id"),
        rows(&a, "SELECT v, id FROM reading ORDER BY id")
    );
    assert!(app(&base).execute_batch("DELETE FROM reading_gathered").is_err(), "guarded");
    // Renamed later, it leaves things as they are.
    sql(&base, "ALTER TABLE reading RENAME TO mine");
    sql(&a, "INSERT INTO reading (sensor, v) VALUES ('t', 3)");
    carry(&mut a, &mut base);
    assert_eq!(
        gathered(&base, &a, "reading_gathered", "v, id"),
        rows(&a, "SELECT v, id FROM reading ORDER BY id")
    );
    // A base that has them under their own name has the same.
    let mut other = world.base("other");
    carry(&mut base, &mut other);
    assert_eq!(rows(&other, "SELECT * FROM reading"), rows(&base, "SELECT * FROM reading_gathered"));
    assert_eq!(other.digest(true).unwrap(), base.digest(true).unwrap());
}

#[test]
fn a_column_that_is_called_device_is_refused() {
    let world = World::new();
    let mut a = world.board("a");
    sql(
        &a,
        "CREATE TABLE log (id INTEGER PRIMARY KEY AUTOINCREMENT, Device TEXT); CREATE TABLE other (k TEXT PRIMARY KEY, v)",
    );
    match a.track("log", &append()) {
        Err(Error::CannotTrack { table, reason }) => {
            assert!(table == "log" && reason.contains("`device`"), "{reason}")
        }
        other => panic!("{other:?}"),
    }
    a.track("other", &per_device()).unwrap();
    sql(&a, "ALTER TABLE other ADD COLUMN device");
    a.seal().unwrap();
    let held =
        a.status().unwrap().tables.into_iter().find(|t| t.how == packmule::TableHow::Suspended).unwrap();
    assert!(held.name == "other" && held.note.as_deref().unwrap().contains("`device`"), "{held:?}");
    sql(&a, "ALTER TABLE other RENAME COLUMN device TO machine");
    a.seal().unwrap();
    assert!(a.status().unwrap().tables.iter().all(|t| t.how == packmule::TableHow::PerDevice));
}

/// A table in which rows were gathered is let go, and gathers again: what came meanwhile is there, and
/// what stands in other tables is not touched.
#[test]
fn a_gathered_table_is_untracked_and_tracked_again() {
    let world = World::new();
    let mut a = board(&world, "a");
    let mut base = world.base("base");
    sql(
        &a,
        "INSERT INTO reading (sensor, v) VALUES ('t', 1); INSERT INTO state VALUES ('s', 1, 1), ('gone', 1, 2)",
    );
    carry(&mut a, &mut base);
    base.untrack("state").unwrap();
    sql(&base, "UPDATE state SET v = 'not guarded'");
    sql(
        &a,
        "UPDATE state SET v = 2 WHERE k = 's'; DELETE FROM state WHERE k = 'gone'; ALTER TABLE state ADD COLUMN more;
         INSERT INTO state VALUES ('new', 3, 3, 'm'); INSERT INTO reading (sensor, v) VALUES ('t', 2)",
    );
    assert_eq!(carry(&mut a, &mut base).ops_waiting, 3);
    assert_eq!(rows(&base, "SELECT DISTINCT v FROM state"), ["\"not guarded\""]);
    // Of the other tables nothing is applied again: rows of `reading` that are gone stay so.
    let raw = open(base.path());
    raw.execute_batch("DROP TRIGGER _pm_guard_DELETE_2").ok();
    let names = dump(
        &raw,
        "SELECT name FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 'reading' AND name LIKE '%DELETE%'",
    );
    for name in names {
        raw.execute_batch(&format!("DROP TRIGGER {name}")).unwrap();
    }
    raw.execute_batch("DELETE FROM reading WHERE v = 1").unwrap();
    let report = base.track("state", &per_device()).unwrap();
    assert_eq!((report.already, report.rows), (false, 2));
    assert_eq!(
        gathered(&base, &a, "state", "v, k, u, more"),
        rows(&a, "SELECT v, k, u, more FROM state ORDER BY k")
    );
    assert_eq!(rows(&base, "SELECT v FROM reading"), ["2.0r"]);
    assert!(app(&base).execute_batch("UPDATE state SET v = 0").is_err(), "guarded again");
    sql(&a, "DELETE FROM state WHERE k = 's'");
    carry(&mut a, &mut base);
    assert_eq!(
        gathered(&base, &a, "state", "v, k, u, more"),
        rows(&a, "SELECT v, k, u, more FROM state ORDER BY k")
    );
    let status = base.status().unwrap();
    assert!(
        status.tables.iter().all(|t| t.how != packmule::TableHow::Untracked && t.note.is_none()),
        "{status:?}"
    );
    // Dropped meanwhile, it is made again.
    base.untrack("state").unwrap();
    sql(&base, "DROP TABLE state");
    assert_eq!(base.track("state", &per_device()).unwrap().rows, 1);
}

/// The state of shared tables does not end a bundle: what follows it is listed, too.
#[test]
fn what_follows_a_state_is_shown_of_a_bundle() {
    let world = World::new();
    let (mut a, mut base) = (world.board("a"), world.base("base"));
    sql(
        &a,
        "CREATE TABLE t (k TEXT PRIMARY KEY); CREATE TABLE log (id INTEGER PRIMARY KEY AUTOINCREMENT, v)",
    );
    a.track("t", &TrackOptions::default()).unwrap();
    a.track("log", &append()).unwrap();
    sql(&a, "INSERT INTO t VALUES ('x'); INSERT INTO log (v) VALUES (1)");
    carry_all(&mut [&mut a, &mut base]);
    a.compact().unwrap();
    // The base that comes lacks what is folded of both.
    let mut late = world.base("late");
    carry(&mut late, &mut a);
    let bytes = bundle(&mut a, &late);
    let info = packmule::inspect(&bytes[..]).unwrap();
    assert!(info.state_rows > 0, "{info:?}");
    assert!(info.groups.iter().any(|group| group.stream == Stream::PerDevice), "{:?}", info.groups);
    assert_eq!(info.signed, Some(true));
    import(&mut late, &bytes);
    assert_eq!(rows(&late, "SELECT v FROM log"), ["1"]);
}

/// What a base gathers is no table of its own: whoever tracks it hears that nothing need be done.
#[test]
fn a_table_in_which_a_base_gathers_is_not_tracked() {
    let world = World::new();
    let (mut a, mut base) = (board(&world, "a"), world.base("base"));
    sql(&a, "INSERT INTO reading (v) VALUES (1)");
    carry(&mut a, &mut base);
    for options in [TrackOptions::default(), per_device(), append()] {
        let refused = base.track("reading", &options).unwrap_err().to_string();
        assert!(refused.contains("gathers the rows of other devices"), "{refused}");
    }
    assert_eq!(rows(&base, "SELECT v FROM reading"), ["1.0r"]);
}
