//! Promise 5: importing a bundle N times, whole or in part, equals importing it once.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests are tests.

mod bundles;
mod common;
use common::*;

const TABLES: &str = "CREATE TABLE t (k TEXT PRIMARY KEY, u INT UNIQUE, v);
    CREATE TABLE log (id INTEGER PRIMARY KEY AUTOINCREMENT, v);
    INSERT INTO t VALUES ('x', 1, 0), ('y', 2, 0)";

/// A board and a base with a conflict, a quarantined row, per-device rows and a large value between them.
fn busy() -> (World, packmule::Engine, packmule::Engine) {
    let world = World::new();
    let mut a = world.board_with("a", TABLES, &["t"]);
    a.track("log", &append()).unwrap();
    let mut base = world.base("base");
    carry(&mut a, &mut base);
    sql(
        &a,
        "UPDATE t SET v = 'a' WHERE k = 'x'; INSERT INTO t VALUES ('a', 9, zeroblob(50000)); DELETE FROM t WHERE k = 'y'",
    );
    sql(&a, "INSERT INTO log (v) VALUES (1), (2), (3)");
    a.seal().unwrap();
    sql(&a, "UPDATE t SET v = 'a2' WHERE k = 'x'; INSERT INTO log (v) VALUES (4)");
    world.tick(5);
    sql(
        &base,
        "UPDATE t SET v = 'base' WHERE k = 'x'; INSERT INTO t VALUES ('b', 9, 1); UPDATE t SET v = 1 WHERE k = 'y'",
    );
    base.seal().unwrap();
    (world, a, base)
}

#[test]
fn a_bundle_again_changes_nothing() {
    let (world, mut a, mut base) = busy();
    let bytes = whole_bundle(&mut a);
    let first = import(&mut base, &bytes);
    assert!(first.ops > 0 && first.conflicts_opened == 3, "{first:?}");
    let before = everything(base.path());
    for _ in 0..3 {
        let again = import(&mut base, &bytes);
        assert_eq!((again.frames, again.ops, again.conflicts_opened), (0, 0, 0));
        assert!(again.known > 0 && again.waits.is_empty());
        assert_eq!(everything(base.path()), before, "not a byte");
    }
    drop(world);
}

#[test]
fn a_bundle_that_was_taken_in_by_parts_changes_nothing() {
    let (world, mut a, mut base) = busy();
    let mut other = world.base("other");
    let of_base = whole_bundle(&mut base);
    let bytes = whole_bundle(&mut a);
    import(&mut other, &of_base);
    for group in bundles::split(&bytes) {
        import(&mut other, &group.bytes);
        import(&mut other, &group.bytes);
    }
    import(&mut base, &bytes);
    assert_eq!(other.digest(true).unwrap(), base.digest(true).unwrap());
    assert_eq!(other.conflicts().unwrap(), base.conflicts().unwrap());
    let before = everything(other.path());
    assert_eq!(import(&mut other, &bytes).frames, 0);
    assert_eq!(everything(other.path()), before);
}

/// All that is in a database but what is known of peers: what they said that they have, and when.
fn content_and_log(all: Vec<String>) -> Vec<String> {
    let mut of_peers = false;
    let kept = all.into_iter().filter(|line| {
        if line.starts_with("== ") {
            of_peers = [
                "== _pm_ack",
                "== _pm_device",
                "== _pm_statement",
                "== _pm_stated",
                "== _pm_told",
                "== _pm_meta",
            ]
            .contains(&&**line);
        }
        !of_peers
    });
    kept.collect()
}

/// An old bundle after newer ones, and our own frames that come back.
#[test]
fn what_is_old_or_our_own_changes_nothing() {
    let (world, mut a, mut base) = busy();
    let old = whole_bundle(&mut a);
    carry(&mut a, &mut base);
    carry(&mut base, &mut a);
    sql(&a, "UPDATE t SET v = 'newest' WHERE k = 'x'; DELETE FROM t WHERE k = 'a'");
    carry(&mut a, &mut base);
    digests_equal(&[&a, &base]);
    let (before_base, before_a) = (everything(base.path()), everything(a.path()));
    import(&mut base, &old);
    // Its statement was not heard before: it counts as said last, until A speaks again. Nothing else follows from it.
    assert!(content_and_log(everything(base.path())) == content_and_log(before_base.clone()));
    let known = everything(base.path());
    import(&mut base, &old);
    assert!(everything(base.path()) == known, "it is heard once");
    carry(&mut a, &mut base);
    let of_peers = "SELECT peer, dev, stream, seq FROM _pm_ack UNION ALL SELECT n, set_back, 0, 0 FROM _pm_device WHERE n > 0";
    let acknowledged = rows(&base, of_peers);
    carry(&mut a, &mut base);
    assert_eq!(rows(&base, of_peers), acknowledged);
    assert!(rows(&base, "SELECT 1 FROM _pm_device WHERE set_back").is_empty(), "A has lost nothing");
    let back = whole_bundle(&mut base);
    let report = import(&mut a, &back);
    assert_eq!((report.frames, report.ops), (0, 0));
    assert!(content_and_log(everything(a.path())) == content_and_log(before_a));
    digests_equal(&[&a, &base]);
    drop(world);
}
