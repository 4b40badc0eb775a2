//! Columns that a migration adds and fills in: what is filled in is written, and holds against devices that have folded what the
//! rows were before there was such a column.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod common;
mod migrating;
use common::*;
use migrating::rebuild;
use packmule::{Merge, TrackOptions};

/// What Django does to add a field that has a default.
fn add_filled(value: &str) -> String {
    let columns = format!("k TEXT PRIMARY KEY, v, f INTEGER {value}");
    rebuild(&columns, "k, v, 0")
}

const T: &str = "CREATE TABLE t (k TEXT PRIMARY KEY, v)";

/// A board that has folded its first rows sends a newcomer a state, in which the newcomer's own row is as it was before the
/// migration: the column was NULL in it, which is no write. It was taken for one, and the newcomer lost its rows to its NOT NULL.
#[test]
fn what_a_migration_fills_in_is_not_emptied_by_a_state_from_before() {
    for merge in [Merge::Row, Merge::Cell] {
        let world = World::new();
        let options = TrackOptions { merge, ..TrackOptions::default() };
        let mut a = world.board("a");
        let mut base = world.base("base");
        sql(&a, T);
        a.track("t", &options).unwrap();
        sql(&a, "INSERT INTO t VALUES ('a', 1)");
        carry_all(&mut [&mut a, &mut base]);
        assert!(a.compact().unwrap().versions > 0);
        sql(&a, "INSERT INTO t VALUES ('a2', 1)");
        let mut b = world.board("b");
        sql(&b, T);
        b.track("t", &options).unwrap();
        sql(&b, "INSERT INTO t VALUES ('b', 1)");
        b.seal().unwrap();
        // Its log is on the card when the other board comes, and it has migrated by then.
        let before = bundle(&mut b, &a);
        sql(&a, &add_filled("NOT NULL"));
        a.seal().unwrap();
        import(&mut a, &before);
        sql(&b, &add_filled("NOT NULL"));
        b.seal().unwrap();
        carry(&mut a, &mut b);
        assert_eq!(rows(&b, "SELECT k, f FROM t ORDER BY k"), ["\"a\"|0", "\"a2\"|0", "\"b\"|0"]);
        carry_all(&mut [&mut a, &mut base, &mut b]);
        digests_equal(&[&a, &base, &b]);
        for device in [&a, &base, &b] {
            assert_eq!(rows(device, "SELECT k, f FROM t ORDER BY k"), ["\"a\"|0", "\"a2\"|0", "\"b\"|0"]);
            assert_eq!(device.conflicts().unwrap(), []);
        }
    }
}

/// The same by frames: a board that had been retired fills in a column of rows that others have folded meanwhile.
#[test]
fn what_a_migration_fills_in_is_no_late_write_beside_nothing() {
    for (merge, fill) in [(Merge::Row, true), (Merge::Cell, true), (Merge::Row, false), (Merge::Cell, false)]
    {
        let world = World::new();
        let mut b = world.board("b");
        let mut base = world.base("base");
        sql(&b, T);
        b.track("t", &TrackOptions { merge, ..TrackOptions::default() }).unwrap();
        sql(&b, "INSERT INTO t VALUES ('b', 1)");
        carry_all(&mut [&mut b, &mut base]);
        base.retire(b.identity().id, None).unwrap();
        sql(&base, "INSERT INTO t VALUES ('base', 1)");
        base.seal().unwrap();
        assert!(base.compact().unwrap().versions > 0);
        match fill {
            true => sql(&b, &add_filled("")),
            // A write of the application's, which meets nothing that anybody wrote.
            false => sql(&b, "ALTER TABLE t ADD COLUMN f INTEGER; UPDATE t SET f = 0"),
        }
        carry(&mut b, &mut base);
        assert_eq!(rows(&base, "SELECT f FROM t WHERE k = 'b'"), ["0"], "{merge:?} {fill}");
        carry_all(&mut [&mut b, &mut base]);
        digests_equal(&[&b, &base]);
        for device in [&base, &b] {
            assert_eq!(rows(device, "SELECT f FROM t WHERE k = 'b'"), ["0"], "{merge:?} {fill}");
            assert_eq!(device.conflicts().unwrap(), []);
        }
    }
}

/// What a version says of a column that waits is looked up in its frame while that is applied: what the frame defines after it was
/// not known then, and the group was set aside.
#[test]
fn a_column_that_waits_and_one_that_comes_after_it_in_the_same_frame_hold_up_nothing() {
    for merge in [Merge::Row, Merge::Cell] {
        let world = World::new();
        let options = TrackOptions { merge, ..TrackOptions::default() };
        let (mut a, mut b) = (world.board("a"), world.board("b"));
        for device in [&mut a, &mut b] {
            sql(device, &format!("{T}; CREATE TABLE u (k TEXT PRIMARY KEY, v)"));
            device.track_all(&["t", "u"], &options).unwrap();
        }
        sql(&a, "ALTER TABLE t ADD COLUMN x; INSERT INTO t VALUES ('a', 1, 1)");
        carry(&mut a, &mut b);
        sql(&a, "UPDATE t SET x = 2; ALTER TABLE u ADD COLUMN y; INSERT INTO u VALUES ('u', 1, 1)");
        assert_eq!(carry(&mut a, &mut b).waits, []);
        assert_eq!(rows(&b, "SELECT v FROM u"), ["1"]);
        sql(&b, "ALTER TABLE t ADD COLUMN x; ALTER TABLE u ADD COLUMN y");
        carry_all(&mut [&mut a, &mut b]);
        digests_equal(&[&a, &b]);
        assert_eq!(rows(&b, "SELECT x FROM t UNION ALL SELECT y FROM u"), ["2", "1"]);
    }
}
