//! Compaction, retirement, snapshots and what starts from them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod common;
use std::io::Cursor;

use common::*;
use packmule::{ConflictKind, Engine, JoinOptions};

const NOTES: &str = "CREATE TABLE notes (id TEXT PRIMARY KEY, body TEXT, u TEXT UNIQUE)";

fn join(world: &World, name: &str, snapshot: &[u8]) -> (Engine, packmule::JoinReport) {
    let options = JoinOptions { name: Some(name), fleet: Some(&world.fleet) };
    Engine::join(&world.path(name), &mut Cursor::new(snapshot), &options, world.options()).unwrap()
}

fn snapshot(of: &mut Engine) -> Vec<u8> {
    let mut bytes = Vec::new();
    of.snapshot(&mut bytes).unwrap();
    bytes
}

fn counted(engine: &Engine, table: &str) -> String {
    rows(engine, &format!("SELECT count(*) FROM {table}")).remove(0)
}

/// Three devices in step, with some rows.
fn three() -> (World, Engine, Engine, Engine) {
    let world = World::new();
    let mut a = world.board_with("a", NOTES, &["notes"]);
    let mut b = world.board("b");
    let mut c = world.board("c");
    for n in 0..20 {
        sql(&a, &format!("INSERT INTO notes VALUES ('n{n}', 'first', 'u{n}')"));
    }
    carry_all(&mut [&mut a, &mut b, &mut c]);
    (world, a, b, c)
}

/// Everybody compacts, hears what the others have seen, and compacts again.
fn compact_all(devices: &mut [&mut Engine]) {
    for _ in 0..2 {
        for device in devices.iter_mut() {
            device.compact().unwrap();
        }
        carry_all(devices);
    }
}

#[test]
fn what_all_have_is_folded_and_the_digest_stays() {
    let (_world, mut a, mut b, mut c) = three();
    let digest = a.digest(false).unwrap();
    assert_ne!(counted(&b, HEADS), "0");
    compact_all(&mut [&mut a, &mut b, &mut c]);
    for device in [&mut a, &mut b, &mut c] {
        device.compact().unwrap();
        assert_eq!(device.digest(false).unwrap(), digest);
        assert_eq!(counted(device, HEADS), "0");
        assert_eq!(rows(device, "SELECT count(*) FROM _pm_frame WHERE length(body) > 400"), ["0"]);
        assert!(device.verify().unwrap().problems.is_empty());
    }
    // Life goes on.
    sql(&a, "UPDATE notes SET body = 'second' WHERE id = 'n1'");
    sql(&b, "UPDATE notes SET body = 'other' WHERE id = 'n1'");
    carry_all(&mut [&mut a, &mut b, &mut c]);
    digests_equal(&[&a, &b, &c]);
    assert_eq!(c.conflicts().unwrap().len(), 1);
}

/// What was sealed within some days stays, with all that comes after it; what is older goes. A clock that is far ahead keeps
/// nothing for ever.
#[test]
fn what_is_recent_is_kept_in_the_log() {
    const DAY: i64 = 86_400_000;
    let days = |n: u64| std::time::Duration::from_secs(n * 86_400);
    let (world, mut a, mut b, mut c) = three();
    world.tick(400 * DAY);
    sql(&c, "UPDATE notes SET body = 'ahead' WHERE id = 'n9'");
    c.seal().unwrap();
    world.tick(-390 * DAY);
    carry_all(&mut [&mut a, &mut b, &mut c]);
    sql(&a, "UPDATE notes SET body = 'second' WHERE id = 'n1'");
    a.seal().unwrap();
    world.tick(10 * DAY);
    carry_all(&mut [&mut a, &mut b, &mut c]);
    carry_all(&mut [&mut a, &mut b, &mut c]);
    let digest = a.digest(false).unwrap();
    let groups = |a: &Engine, of: &str| {
        let by = "SELECT count(*) FROM _pm_group g JOIN _pm_device d ON d.n = g.dev WHERE d.name =";
        rows(a, &format!("{by} '{of}'")).remove(0).parse::<u32>().unwrap()
    };
    let all = groups(&a, "a");
    // All is younger than a year; then the rows of the beginning go, and what was sealed ten days ago stays.
    assert_eq!(a.compact_keeping(days(365)).unwrap().versions, 0);
    assert_eq!(groups(&a, "a"), all);
    let some = a.compact_keeping(days(15)).unwrap();
    assert!(some.versions > 0 && groups(&a, "a") < all && groups(&a, "a") > 0, "{some:?}");
    assert_eq!(a.digest(false).unwrap(), digest);
    let more = a.compact_keeping(days(5)).unwrap();
    assert!(more.versions > 0, "{more:?}");
    assert_eq!(groups(&a, "c"), 0, "a clock that is ahead keeps nothing");
    assert_eq!(a.digest(false).unwrap(), digest);
    assert!(a.verify().unwrap().problems.is_empty());
    // Life goes on between who has folded and who has not.
    sql(&b, "UPDATE notes SET body = 'third' WHERE id = 'n1'");
    carry_all(&mut [&mut a, &mut b, &mut c]);
    digests_equal(&[&a, &b, &c]);
}

#[test]
fn a_conflict_outlives_compaction() {
    let (_world, mut a, mut b, mut c) = three();
    sql(&a, "UPDATE notes SET body = 'second' WHERE id = 'n1'");
    sql(&b, "UPDATE notes SET body = 'other' WHERE id = 'n1'");
    carry_all(&mut [&mut a, &mut b, &mut c]);
    let before = c.conflicts().unwrap();
    compact_all(&mut [&mut a, &mut b, &mut c]);
    c.compact().unwrap();
    assert_eq!(c.conflicts().unwrap(), before);
    c.resolve(&before[0].id, &packmule::Resolution::Take(a.identity().id)).unwrap();
    carry_all(&mut [&mut a, &mut b, &mut c]);
    digests_equal(&[&a, &b, &c]);
    assert_eq!(rows(&a, "SELECT body FROM notes WHERE id = 'n1'"), ["\"second\""]);
    compact_all(&mut [&mut a, &mut b, &mut c]);
    c.compact().unwrap();
    assert_eq!(counted(&c, HEADS), "0");
}

/// The row that has the value was listed without its author by who had folded it away.
#[test]
fn who_has_a_value_that_another_row_claims_is_listed_after_compaction() {
    let (_world, mut a, mut b, mut c) = three();
    sql(&a, "INSERT INTO notes VALUES ('p', 'of a', 'same')");
    sql(&b, "INSERT INTO notes VALUES ('q', 'of b', 'same')");
    carry_all(&mut [&mut a, &mut b, &mut c]);
    c.compact().unwrap();
    assert_eq!(a.conflicts().unwrap(), c.conflicts().unwrap());
    let conflict = c.conflicts().unwrap().remove(0);
    assert_eq!(conflict.versions[1].name.as_deref(), Some("a"));
    c.resolve(&conflict.id, &packmule::Resolution::Take(a.identity().id)).unwrap();
    carry_all(&mut [&mut a, &mut b, &mut c]);
    digests_equal(&[&a, &b, &c]);
    assert!(a.conflicts().unwrap().is_empty());
}

#[test]
fn a_silent_device_holds_the_log_back_until_it_is_retired() {
    let (_world, mut a, mut b, mut c) = three();
    sql(&a, "UPDATE notes SET body = 'second'");
    carry_all(&mut [&mut a, &mut b]);
    for device in [&mut a, &mut b] {
        device.compact().unwrap();
    }
    carry_all(&mut [&mut a, &mut b]);
    let report = a.compact().unwrap();
    assert!(report.held_back_by.clone().unwrap().0.starts_with("c-"), "{report:?}");
    assert_ne!(counted(&a, HEADS), "0");
    let c_id = c.identity().id;
    // Neither is a base: each says it for itself.
    let retired = |engine: &Engine| engine.devices().unwrap().iter().any(|d| d.id == c_id && d.retired);
    assert!(!a.retire(c_id, None).unwrap(), "it does not travel");
    carry_all(&mut [&mut a, &mut b]);
    assert!(retired(&a) && !retired(&b));
    assert!(b.compact().unwrap().held_back_by.is_some());
    assert!(!b.retire(c_id, None).unwrap());
    for device in [&mut a, &mut b] {
        let report = device.compact().unwrap();
        assert_eq!(counted(device, HEADS), "0", "{report:?}");
    }

    // The retired device comes back with a write of its own: nothing waits, and nothing is lost.
    sql(&c, "UPDATE notes SET body = 'of c' WHERE id = 'n2'; INSERT INTO notes VALUES ('new', 'of c', NULL)");
    let bytes = whole_bundle(&mut c);
    let report = import(&mut a, &bytes);
    assert!(report.waits.is_empty() && report.ops == 2, "{report:?}");
    assert!(!retired(&a) && retired(&b), "it writes, so it is back");
    carry_all(&mut [&mut a, &mut b, &mut c]);
    digests_equal(&[&a, &b, &c]);
    assert_eq!(rows(&b, "SELECT body FROM notes WHERE id = 'new'"), ["\"of c\""]);
    let conflicts = b.conflicts().unwrap();
    assert_eq!(conflicts.len(), 1, "{conflicts:?}");
    assert_eq!(conflicts[0].kind, ConflictKind::UpdateUpdate);
    assert_eq!(conflicts[0].versions.len(), 2);
    assert_eq!(conflicts, a.conflicts().unwrap());
    assert_eq!(conflicts, c.conflicts().unwrap());
}

#[test]
fn a_new_device_starts_from_a_snapshot_and_takes_part_in_conflicts() {
    let (world, mut a, mut b, mut c) = three();
    compact_all(&mut [&mut a, &mut b, &mut c]);
    sql(&b, "UPDATE notes SET body = 'in flight' WHERE id = 'n3'");
    carry(&mut b, &mut a);
    a.compact().unwrap();
    let bytes = snapshot(&mut a);
    let (mut d, report) = join(&world, "d", &bytes);
    assert_eq!((report.rows, report.new_identity), (20, false));
    digests_equal(&[&a, &d]);
    // An edit that is concurrent to one that was in flight, and one that is not.
    sql(&c, "UPDATE notes SET body = 'of c' WHERE id = 'n3'");
    sql(&d, "UPDATE notes SET body = 'of d' WHERE id = 'n4'");
    carry_all(&mut [&mut a, &mut b, &mut c, &mut d]);
    digests_equal(&[&a, &b, &c, &d]);
    assert_eq!(d.conflicts().unwrap().len(), 1);
    assert_eq!(rows(&b, "SELECT body FROM notes WHERE id = 'n4'"), ["\"of d\""]);
    assert!(d.verify().unwrap().problems.is_empty());
}

#[test]
fn a_database_with_rows_of_its_own_joins_and_loses_none() {
    let (world, mut a, mut b, mut c) = three();
    compact_all(&mut [&mut a, &mut b, &mut c]);
    let bytes = snapshot(&mut a);
    open(&world.path("d"))
        .execute_batch(&format!("{NOTES}; INSERT INTO notes VALUES ('n5', 'mine', 'u5'), ('mine', 'mine', NULL), ('n6', 'first', 'u6')"))
        .unwrap();
    let (mut d, report) = join(&world, "d", &bytes);
    assert_eq!((report.rows, report.waiting), (0, 20), "no table is tracked by arrival");
    d.track("notes", &Default::default()).unwrap();
    carry_all(&mut [&mut a, &mut b, &mut c, &mut d]);
    digests_equal(&[&a, &b, &c, &d]);
    assert_eq!(a.conflicts().unwrap().len(), 1);
    assert_eq!(rows(&a, "SELECT count(*) FROM notes"), ["21"]);
}

/// What some have folded and others not must count the same for rows that a newcomer brings
/// along: the conflicts had other kinds and ids, and by cell some were not seen.
#[test]
fn rows_that_a_newcomer_brings_along_meet_the_same_versions_everywhere() {
    for cell in [false, true] {
        let world = World::new();
        let mut a = world.board("a");
        sql(&a, "CREATE TABLE t (k TEXT PRIMARY KEY, v, w, n INTEGER)");
        let options = packmule::TrackOptions {
            merge: if cell { packmule::Merge::Cell } else { packmule::Merge::Row },
            columns: vec![("n".into(), packmule::ColumnMerge::Counter)],
            ..Default::default()
        };
        a.track("t", &options).unwrap();
        sql(&a, "INSERT INTO t VALUES ('x', 1, 1, 10), ('y', 1, 1, 10), ('z', 1, 1, 10), ('gone', 1, 1, 1)");
        let (mut b, mut c) = (world.board("b"), world.board("c"));
        carry_all(&mut [&mut a, &mut b, &mut c]);
        sql(&a, "UPDATE t SET v = 2, n = n + 1 WHERE k <> 'z'; DELETE FROM t WHERE k = 'gone'");
        carry_all(&mut [&mut a, &mut b, &mut c]);
        a.compact().unwrap();
        assert_eq!(counted(&a, HEADS), "0");
        assert_ne!(counted(&c, HEADS), "0");
        let mut d = world.board("d");
        sql(
            &d,
            "CREATE TABLE t (k TEXT PRIMARY KEY, v, w, n INTEGER);
             INSERT INTO t VALUES ('x', 2, 'd', 11), ('y', 2, 1, 30), ('z', 1, 1, 10), ('gone', 1, 1, 1), ('d', 1, 1, 1)",
        );
        // One write that the newcomer has not heard of.
        let known = whole_bundle(&mut c);
        sql(&b, "UPDATE t SET w = 'b', n = n + 5 WHERE k = 'y'");
        b.seal().unwrap();
        import(&mut d, &known);
        d.track("t", &options).unwrap();
        carry_all(&mut [&mut a, &mut b, &mut c, &mut d]);
        digests_equal(&[&a, &b, &c, &d]);
        for device in [&a, &b, &d] {
            assert_eq!(device.conflicts().unwrap(), c.conflicts().unwrap(), "{cell}");
            assert!(device.verify().unwrap().problems.is_empty());
        }
        let keys: Vec<_> = c.conflicts().unwrap().iter().map(|c| c.key[0].1.to_string()).collect();
        assert!(keys.iter().any(|k| k.contains('x')), "{keys:?}");
        sql(&c, "UPDATE t SET v = 9, n = n + 1");
        carry_all(&mut [&mut a, &mut b, &mut c, &mut d]);
        digests_equal(&[&a, &b, &c, &d]);
        assert!(a.conflicts().unwrap().is_empty() || cell);
    }
}

/// It was refused.
#[test]
fn a_row_of_ones_own_that_a_unique_value_of_the_snapshot_keeps_out_is_a_conflict() {
    // The table is made by the newcomer itself, with the UNIQUE and without it.
    for made in [NOTES, "CREATE TABLE notes (id TEXT PRIMARY KEY, body TEXT, u TEXT)"] {
        let (world, mut a, mut b, mut c) = three();
        compact_all(&mut [&mut a, &mut b, &mut c]);
        let bytes = snapshot(&mut a);
        let double = if made == NOTES { "" } else { ", ('twice', 'mine', 'own')" };
        open(&world.path("d"))
            .execute_batch(&format!(
                "{made}; INSERT INTO notes VALUES ('p', 'mine', 'u5'), ('q', 'mine', 'own'), ('r', 'mine', 'u6'){double}"
            ))
            .unwrap();
        let (mut d, _) = join(&world, "d", &bytes);
        d.track("notes", &Default::default()).unwrap();
        let twice = usize::from(!double.is_empty());
        carry_all(&mut [&mut a, &mut b, &mut c, &mut d]);
        digests_equal(&[&a, &b, &c, &d]);
        let conflicts = b.conflicts().unwrap();
        assert_eq!(conflicts.len(), 2 + twice, "{conflicts:?}");
        assert!(conflicts.iter().all(|c| c.kind == ConflictKind::Unique(vec!["u".into()])));
        assert_eq!(
            rows(&a, "SELECT id FROM notes WHERE u IN ('u5', 'u6') ORDER BY id"),
            ["\"n5\"", "\"n6\""]
        );
        // It comes back when its value is free.
        sql(&c, "UPDATE notes SET u = NULL WHERE id = 'n5'");
        carry_all(&mut [&mut a, &mut b, &mut c, &mut d]);
        digests_equal(&[&a, &b, &c, &d]);
        assert_eq!(rows(&d, "SELECT body FROM notes WHERE u = 'u5'"), ["\"mine\""]);
        assert!(d.verify().unwrap().problems.is_empty());
    }
}

#[test]
fn a_column_of_another_type_is_named_when_the_table_is_tracked() {
    let (world, mut a, ..) = three();
    let bytes = snapshot(&mut a);
    open(&world.path("d"))
        .execute_batch("CREATE TABLE notes (id TEXT PRIMARY KEY, body INTEGER, u TEXT); INSERT INTO notes VALUES ('p', 1, 'u')")
        .unwrap();
    let options = JoinOptions { name: Some("d"), fleet: Some(&world.fleet) };
    let (mut d, _) =
        Engine::join(&world.path("d"), &mut Cursor::new(&bytes), &options, world.options()).unwrap();
    let refused = d.track("notes", &Default::default());
    assert!(refused.is_err_and(|e| e.to_string().contains("`body` is INTEGER here and TEXT there")));
}

#[test]
fn large_values_of_a_snapshot() {
    let world = World::new();
    let mut a = world.board("a");
    sql(
        &a,
        "CREATE TABLE files (id INTEGER PRIMARY KEY, one BLOB, two TEXT, three BLOB, four);
         CREATE TABLE keyed (id TEXT PRIMARY KEY, one BLOB) WITHOUT ROWID;
         CREATE TABLE byhash (id INTEGER PRIMARY KEY, one BLOB UNIQUE)",
    );
    for table in ["files", "keyed", "byhash"] {
        a.track(table, &Default::default()).unwrap();
    }
    sql(
        &a,
        "INSERT INTO files VALUES (1, randomblob(100000), hex(randomblob(40000)), randomblob(32768), randomblob(65536)),
           (2, randomblob(32769), 'short', NULL, hex(randomblob(50000))), (3, x'', '', randomblob(500000), 7);
         INSERT INTO keyed VALUES ('a', randomblob(90000)); INSERT INTO byhash VALUES (1, randomblob(90000))",
    );
    let bytes = snapshot(&mut a);
    let (b, _) = join(&world, "b", &bytes);
    digests_equal(&[&a, &b]);
    for table in ["files", "keyed", "byhash"] {
        let all = format!("SELECT * FROM {table} ORDER BY 1");
        assert_eq!(rows(&a, &all), rows(&b, &all));
    }
}

#[test]
fn a_snapshot_is_signed_and_whole() {
    let (world, mut a, ..) = three();
    sql(&a, "INSERT INTO notes VALUES ('big', replace(hex(zeroblob(100000)), '0', 'x'), NULL)");
    let bytes = snapshot(&mut a);
    let options = JoinOptions { name: Some("d"), fleet: Some(&world.fleet) };
    for at in (0..bytes.len()).step_by(997) {
        let mut bad = bytes.clone();
        bad[at] ^= 1;
        let joined = Engine::join(&world.path("bad"), &mut Cursor::new(&bad), &options, world.options());
        assert!(joined.is_err(), "a flip at {at}");
        let joined =
            Engine::join(&world.path("bad"), &mut Cursor::new(&bytes[..at]), &options, world.options());
        assert!(joined.is_err(), "cut at {at}");
    }
    assert!(!world.path("bad").exists());
    let (d, _) = join(&world, "d", &bytes);
    digests_equal(&[&a, &d]);
    assert_eq!(import(&mut a, &bytes).ops, 0, "a state is taken in like any bundle");
    let other = World::seeded(9);
    let stranger = JoinOptions { name: Some("e"), fleet: Some(&other.fleet) };
    let refused = Engine::join(&world.path("e"), &mut Cursor::new(&bytes), &stranger, world.options());
    assert!(matches!(refused, Err(packmule::Error::Untrusted(_))));
    assert!(!world.path("e").exists());
}

#[test]
fn per_device_rows_are_folded_once_every_base_has_them() {
    let world = World::new();
    let mut base = world.base("base");
    let mut a = world.board("a");
    sql(&a, "CREATE TABLE readings (id INTEGER PRIMARY KEY AUTOINCREMENT, v REAL)");
    a.track("readings", &append()).unwrap();
    sql(&a, "INSERT INTO readings (v) VALUES (1.5), (2.5)");
    a.compact().unwrap();
    assert_ne!(rows(&a, "SELECT count(*) FROM _pm_frame WHERE stream = 1"), ["0"], "no base has them");
    carry_all(&mut [&mut a, &mut base]);
    a.compact().unwrap();
    base.compact().unwrap();
    for device in [&a, &base] {
        assert_eq!(rows(device, "SELECT count(*) FROM _pm_frame WHERE stream = 1"), ["0"]);
    }
    sql(&a, "INSERT INTO readings (v) VALUES (3.5)");
    carry_all(&mut [&mut a, &mut base]);
    assert_eq!(rows(&base, "SELECT v FROM readings ORDER BY id"), ["1.5r", "2.5r", "3.5r"]);
}

/// It was all folded, and a join took it for what everybody had.
#[test]
fn a_device_that_has_met_nobody_folds_nothing() {
    let world = World::new();
    let mut a = world.board_with("a", "CREATE TABLE t (k TEXT PRIMARY KEY, v)", &["t"]);
    sql(&a, "INSERT INTO t VALUES ('a', 1)");
    let before = a.compact().unwrap();
    assert_eq!(before.frames, 0, "{before:?}");
    let mut b = world.board_with("b", "CREATE TABLE t (k TEXT PRIMARY KEY, v)", &["t"]);
    sql(&b, "INSERT INTO t VALUES ('b', 1)");
    carry_all(&mut [&mut a, &mut b]);
    assert_eq!(rows(&b, "SELECT k FROM t ORDER BY k"), ["\"a\"", "\"b\""]);
    digests_equal(&[&a, &b]);
}

/// A board that the base did not wait for brings what it wrote: nothing of it waits, and its identity stays.
#[test]
fn what_a_base_did_not_wait_for_comes_in() {
    for (known, whole) in [(false, false), (false, true), (true, false), (true, true)] {
        let world = World::new();
        let mut base = world.base("base");
        let board = |name: &str| {
            let schema = "CREATE TABLE t (k TEXT PRIMARY KEY, v); CREATE TABLE log (id INTEGER PRIMARY KEY AUTOINCREMENT, v)";
            let mut board = world.board_with(name, schema, &["t"]);
            board.track("log", &append()).unwrap();
            board
        };
        let mut a = board("a");
        let mut b = board("b");
        if known {
            sql(&b, "INSERT INTO t VALUES ('old', 1); INSERT INTO log (v) VALUES ('old')");
            carry_all(&mut [&mut a, &mut b, &mut base]);
            base.retire(b.identity().id, None).unwrap();
        }
        carry_all(&mut [&mut a, &mut base]);
        sql(&a, "INSERT INTO t VALUES ('a', 1)");
        carry_all(&mut [&mut a, &mut base]);
        base.compact().unwrap();
        for n in 0..3 {
            sql(&b, &format!("INSERT INTO t VALUES ('b{n}', 1); INSERT INTO log (v) VALUES ('b{n}')"));
            let bytes = if whole { whole_bundle(&mut b) } else { bundle(&mut b, &base) };
            let waits = import(&mut base, &bytes).waits;
            assert!(waits.is_empty(), "{waits:?}");
            let bytes = if whole { whole_bundle(&mut base) } else { bundle(&mut base, &b) };
            import(&mut b, &bytes);
        }
        carry_all(&mut [&mut a, &mut b, &mut base]);
        digests_equal(&[&a, &b, &base]);
        let old: &[&str] = if known { &["\"old\""] } else { &[] };
        let new = ["\"b0\"", "\"b1\"", "\"b2\""];
        assert_eq!(rows(&base, "SELECT v FROM log"), [old, &new].concat(), "{known} {whole}");
        assert_eq!(rows(&base, "SELECT count(*) FROM t"), [(4 + old.len()).to_string()]);
    }
}
