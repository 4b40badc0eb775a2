//! Promise 12: one identity with two histories is found, named, and neither history is lost.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod common;
use std::path::{Path, PathBuf};

use common::*;
use packmule::core::model::Stream;
use packmule::{Engine, Error, HistoryItem, JoinOptions, TrackOptions};

const SQL: &str = "CREATE TABLE t (k TEXT PRIMARY KEY, v);
                   CREATE TABLE log (id INTEGER PRIMARY KEY AUTOINCREMENT, v)";

/// A clone of a device, as from an SD card's image; its key too.
fn copy(of: &Engine, world: &World, name: &str) -> PathBuf {
    let to = world.path(name);
    let _ = std::fs::remove_file(&to);
    copy_card(of, &to);
    to
}

fn device(world: &World, path: &Path) -> Engine {
    Engine::open_with(path, world.options()).unwrap()
}

/// A board with two tables, and a base that has met it.
fn met(world: &World) -> (Engine, Engine) {
    let mut a = world.board("a");
    sql(&a, SQL);
    a.track("t", &TrackOptions::default()).unwrap();
    a.track("log", &append()).unwrap();
    sql(&a, "INSERT INTO t VALUES ('both', 0); INSERT INTO log (v) VALUES (0)");
    let mut base = world.base("base");
    carry(&mut a, &mut base);
    carry(&mut base, &mut a);
    (a, base)
}

/// A board, a base that has its history, the board's second one, and a third device that has that.
fn two_histories(world: &World) -> [Engine; 4] {
    let (mut a, mut base) = met(world);
    let mut c = world.board("c");
    carry(&mut base, &mut c);
    let mut b = device(world, &copy(&a, world, "image"));
    write(&mut a, "a", 2);
    write(&mut b, "b", 2);
    carry(&mut a, &mut base);
    carry(&mut b, &mut c);
    [a, base, b, c]
}

fn write(engine: &mut Engine, what: &str, times: u32) {
    for n in 0..times {
        sql(
            engine,
            &format!(
                "INSERT INTO t VALUES ('{what}{n}', '{what}'); UPDATE t SET v = '{what}{n}' WHERE k = 'both'; \
                 INSERT INTO log (v) VALUES ('{what}{n}')"
            ),
        );
        engine.seal().unwrap();
    }
}

fn logged(base: &Engine) -> Vec<String> {
    rows(base, "SELECT v FROM log ORDER BY v")
}

/// A base hears of a board that it has another history than the base, and shows it the first one.
fn show(base: &mut Engine, board: &mut Engine) {
    let bytes = whole_bundle(board);
    // It is refused where it has frames of the second history.
    if let Err(e) = try_import(base, &bytes) {
        assert!(matches!(e, Error::Twin { .. }), "{e}");
    }
    let bytes = bundle(base, board);
    import(board, &bytes);
}

fn named(engine: &Engine, word: &str) -> bool {
    engine.status().unwrap().notices.iter().any(|notice| notice.text.contains(word))
}

fn rounds(devices: &mut [&mut Engine]) {
    carry_all(devices);
    carry_all(devices);
}

#[test]
fn a_rolled_back_board_recovers_its_frames_from_peers() {
    for whole in [false, true] {
        let world = World::new();
        let (mut a, mut base) = met(&world);
        let backup = copy(&a, &world, "backup");
        write(&mut a, "lost", 3);
        carry(&mut a, &mut base);
        let before = (a.identity().clone(), a.digest(false).unwrap());
        drop(a);
        let mut a = device(&world, &backup);
        world.tick(1000);
        if !whole {
            // What it says of itself makes the base send what it lacks.
            carry(&mut a, &mut base);
            let bytes = bundle(&mut base, &a);
            import(&mut a, &bytes);
        } else {
            import(&mut a, &whole_bundle(&mut base));
        }
        assert_eq!(a.identity(), &before.0, "it goes on as who it was");
        assert_eq!(a.digest(false).unwrap(), before.1);
        assert_eq!(logged(&a), ["0", "\"lost0\"", "\"lost1\"", "\"lost2\""]);
        write(&mut a, "new", 2);
        rounds(&mut [&mut a, &mut base]);
        digests_equal(&[&a, &base]);
        assert_eq!(logged(&base), ["0", "\"lost0\"", "\"lost1\"", "\"lost2\"", "\"new0\"", "\"new1\""]);
        assert_eq!(rows(&base, "SELECT count(DISTINCT device) FROM log"), ["1"]);
        assert!(a.conflicts().unwrap().is_empty() && a.verify().unwrap().problems.is_empty());
    }
}

/// It had written before it heard of what it lost.
#[test]
fn a_rolled_back_board_that_wrote_takes_a_new_identity() {
    for sealed in [false, true] {
        for whole in [false, true] {
            let world = World::new();
            let (mut a, mut base) = met(&world);
            let backup = copy(&a, &world, "backup");
            write(&mut a, "first", 2);
            carry(&mut a, &mut base);
            let id = a.identity().id;
            drop(a);
            let mut a = device(&world, &backup);
            world.tick(1000);
            if sealed {
                write(&mut a, "second", 1);
            } else {
                sql(&a, "INSERT INTO t VALUES ('second', 1); UPDATE t SET v = 'second' WHERE k = 'both'");
                sql(&a, "INSERT INTO log (v) VALUES ('second0')");
            }
            if whole {
                import(&mut a, &whole_bundle(&mut base));
            } else {
                show(&mut base, &mut a);
            }
            a.seal().unwrap();
            assert_ne!(a.identity().id, id, "sealed {sealed} whole {whole}");
            assert!(named(&a, "second history"), "{:?}", a.status().unwrap().notices);
            rounds(&mut [&mut a, &mut base]);
            digests_equal(&[&a, &base]);
            assert_eq!(logged(&base), ["0", "\"first0\"", "\"first1\"", "\"second0\""]);
            assert_eq!(rows(&a, "SELECT count(*) FROM t"), ["4"]);
            let conflicts = base.conflicts().unwrap();
            assert_eq!(conflicts.len(), 1, "both wrote to one row: {conflicts:?}");
            assert_eq!(conflicts[0].versions.len(), 2);
            for engine in [&a, &base] {
                assert_eq!(engine.verify().unwrap().problems, Vec::<String>::new());
            }
            write(&mut a, "later", 2);
            rounds(&mut [&mut a, &mut base]);
            digests_equal(&[&a, &base]);
        }
    }
}

#[test]
fn two_boards_from_one_image_both_keep_what_they_wrote() {
    for (of_a, of_b) in [(1, 1), (3, 1), (1, 3), (2, 2)] {
        for unmet in [false, true] {
            let world = World::new();
            let (mut a, mut base) = met(&world);
            if unmet {
                write(&mut a, "common", 2); // Nobody knows of it yet.
            }
            let image = copy(&a, &world, "image");
            let mut b = device(&world, &image);
            write(&mut a, "a", of_a);
            world.tick(1000);
            write(&mut b, "b", of_b);
            let same = a.identity().id;
            assert_eq!(b.identity().id, same);
            carry(&mut a, &mut base);
            let bytes = whole_bundle(&mut b);
            assert!(matches!(try_import(&mut base, &bytes), Err(Error::Twin { .. })));
            assert!(named(&base, "two histories"), "{:?}", base.status().unwrap().notices);
            let bytes = whole_bundle(&mut base);
            import(&mut b, &bytes);
            import(&mut a, &bytes);
            assert_eq!(a.identity().id, same, "the first goes on");
            assert_ne!(b.identity().id, same);
            assert!(named(&b, "second history"));
            rounds(&mut [&mut a, &mut b, &mut base]);
            digests_equal(&[&a, &b, &base]);
            let mut expected = vec!["0".to_owned()];
            expected.extend((0..of_a).map(|n| format!("\"a{n}\"")));
            expected.extend((0..of_b).map(|n| format!("\"b{n}\"")));
            if unmet {
                expected.extend(["\"common0\"".into(), "\"common1\"".into()]);
            }
            assert_eq!(logged(&base), expected, "each row once");
            let all = 1 + of_a + of_b + if unmet { 2 } else { 0 };
            assert_eq!(rows(&base, "SELECT count(*) FROM t"), [all.to_string()]);
            assert_eq!(base.conflicts().unwrap().len(), 1);
            for engine in [&a, &b, &base] {
                assert_eq!(engine.verify().unwrap().problems, Vec::<String>::new());
            }
            // Both go on, as two devices.
            write(&mut a, "more a", 1);
            write(&mut b, "more b", 1);
            rounds(&mut [&mut a, &mut b, &mut base]);
            digests_equal(&[&a, &b, &base]);
        }
    }
}

/// By a bundle that has none of its own frames: its newest checkpoint is enough.
#[test]
fn a_vector_shows_a_second_history() {
    let world = World::new();
    let (mut a, mut base) = met(&world);
    let image = copy(&a, &world, "image");
    let mut b = device(&world, &image);
    write(&mut a, "a", 2);
    write(&mut b, "b", 2);
    carry(&mut a, &mut base);
    let same = a.identity().id;
    show(&mut base, &mut b);
    assert_ne!(b.identity().id, same);
    rounds(&mut [&mut a, &mut b, &mut base]);
    digests_equal(&[&a, &b, &base]);
    assert_eq!(logged(&base), ["0", "\"a0\"", "\"a1\"", "\"b0\"", "\"b1\""]);
}

/// Also where the groups of the second history span frames, both streams, large values, and had conflicts.
#[test]
fn large_groups_and_conflicts_move_with_their_writer() {
    let world = World::new();
    let (mut a, mut base) = met(&world);
    let mut c = world.board("c");
    carry(&mut base, &mut c);
    let image = copy(&a, &world, "image");
    let mut b = device(&world, &image);
    sql(&c, "UPDATE t SET v = 'c' WHERE k = 'both'");
    carry(&mut c, &mut base);
    carry(&mut base, &mut b);
    sql(&b, "UPDATE t SET v = 'b' WHERE k = 'both'; INSERT INTO t VALUES ('big', randomblob(200000))");
    sql(&b, "INSERT INTO log (v) VALUES (randomblob(100000)), ('b')");
    b.seal().unwrap();
    sql(&b, "INSERT INTO t SELECT 'n' || value, randomblob(500) FROM json_each('[1,2,3,4,5,6,7,8,9]')");
    b.seal().unwrap();
    write(&mut a, "a", 1);
    carry(&mut a, &mut base);
    let big = rows(&b, "SELECT hex(v) FROM t WHERE k = 'big'");
    import(&mut b, &whole_bundle(&mut base));
    rounds(&mut [&mut a, &mut b, &mut c, &mut base]);
    digests_equal(&[&a, &b, &c, &base]);
    assert_eq!(rows(&c, "SELECT hex(v) FROM t WHERE k = 'big'"), big);
    assert_eq!(rows(&base, "SELECT count(*) FROM log"), ["4"]);
    let conflicts = base.conflicts().unwrap();
    assert_eq!(conflicts.len(), 1, "{conflicts:?}");
    assert_eq!(conflicts[0].versions.len(), 2, "what it had seen it still has seen: {conflicts:?}");
    for engine in [&a, &b, &c, &base] {
        assert_eq!(engine.verify().unwrap().problems, Vec::<String>::new());
    }
}

/// Who trusts the fleet trusts the first identity, and by its word the second; revoking ends both.
#[test]
fn the_old_identity_vouches_for_the_new_one() {
    let world = World::new();
    let (mut a, mut base) = met(&world);
    let image = copy(&a, &world, "image");
    let mut b = device(&world, &image);
    write(&mut a, "a", 1);
    write(&mut b, "b", 1);
    carry(&mut a, &mut base);
    import(&mut b, &whole_bundle(&mut base));
    // One that has met neither.
    let mut new = world.board("new");
    import(&mut new, &whole_bundle(&mut b));
    assert_eq!(rows(&new, "SELECT count(*) FROM t"), ["3"]);
    let trusted =
        |engine: &Engine, id| engine.devices().unwrap().into_iter().find(|d| d.id == id).unwrap().trust;
    assert_eq!(trusted(&new, b.identity().id), packmule::TrustedAs::ByFleet);
    new.revoke(a.identity().id, None).unwrap();
    assert_eq!(trusted(&new, b.identity().id), packmule::TrustedAs::Revoked);
    sql(&b, "INSERT INTO t VALUES ('more', 1)");
    let bytes = whole_bundle(&mut b);
    assert!(matches!(try_import(&mut new, &bytes), Err(Error::Untrusted(_))));
    // An untrusted device's certificate is worth nothing.
    let elsewhere = World::seeded(99);
    let mut other = elsewhere.base("other");
    assert!(matches!(try_import(&mut other, &bytes), Err(Error::Untrusted(_))));
}

#[test]
fn clones_that_meet_each_other_are_named_and_decide_nothing() {
    let world = World::new();
    let (mut a, _base) = met(&world);
    let image = copy(&a, &world, "image");
    let mut b = device(&world, &image);
    write(&mut a, "a", 1);
    write(&mut b, "b", 1);
    let same = a.identity().id;
    let bytes = whole_bundle(&mut b);
    assert!(matches!(try_import(&mut a, &bytes), Err(Error::Twin { .. })));
    assert_eq!(a.identity().id, same);
    assert!(named(&a, "two histories"));
}

/// A third device that took in the second history gives it up for the first when that comes, by bundles alone: it stays
/// who it is, and nothing is lost.
#[test]
fn a_device_that_has_the_second_history_gives_it_up() {
    let world = World::new();
    let [mut a, mut base, mut b, mut c] = two_histories(&world);
    sql(&c, "INSERT INTO t VALUES ('c', 1)");
    let ids = [a.identity().id, base.identity().id, c.identity().id];
    // What is honest in its bundle is taken; it may wait for what it names.
    import(&mut base, &whole_bundle(&mut c));
    world.tick(3_600_000);
    carry(&mut base, &mut c);
    assert!(named(&c, "two histories"), "{:?}", c.status().unwrap().notices);
    // The second history came an hour ago; what is here in its place came now.
    let mut last = None;
    c.log(None, &[], &mut |item| {
        if let HistoryItem::Group(group) = item
            && (group.author, group.stream) == (ids[0], Stream::Shared)
        {
            last = group.came;
        }
        Ok(())
    })
    .unwrap();
    assert_eq!(last, Some(world.clock.load(std::sync::atomic::Ordering::Relaxed)));
    import(&mut b, &whole_bundle(&mut base));
    rounds(&mut [&mut a, &mut b, &mut c, &mut base]);
    assert_eq!([a.identity().id, base.identity().id, c.identity().id], ids);
    digests_equal(&[&a, &b, &c, &base]);
    assert_eq!(rows(&base, "SELECT k FROM t WHERE k IN ('a1', 'b1', 'c') ORDER BY k").len(), 3);
    assert!(base.conflicts().unwrap().len() <= 1, "{:?}", base.conflicts().unwrap());
}

/// So does a device on whose second history others have built: it alone gets another identity. A row that the third device
/// and the first history both wrote is a conflict, though that device's log says that it had seen a frame of this number.
#[test]
fn a_second_history_that_others_built_on_goes_on_beside_it() {
    for first in ["c", "b"] {
        let world = World::new();
        let [mut a, mut base, mut b, mut c] = two_histories(&world);
        sql(&c, "UPDATE t SET v = 'c' WHERE k = 'b0'; INSERT INTO t VALUES ('a1', 'c')");
        carry(&mut c, &mut b);
        let ids = [a.identity().id, base.identity().id, c.identity().id];
        let second = b.identity().id;
        for _ in 0..2 {
            let [x, y] = if first == "c" { [&mut c, &mut b] } else { [&mut b, &mut c] };
            for engine in [x, y] {
                // What the second history has of itself is refused until it goes on as another.
                match try_import(&mut base, &whole_bundle(engine)) {
                    Ok(_) => {}
                    Err(Error::Twin { .. }) => assert_eq!(engine.identity().id, second),
                    Err(e) => panic!("{e}"),
                }
                import(engine, &whole_bundle(&mut base));
            }
        }
        rounds(&mut [&mut a, &mut b, &mut c, &mut base]);
        assert_eq!([a.identity().id, base.identity().id, c.identity().id], ids);
        assert_ne!(b.identity().id, second);
        digests_equal(&[&a, &b, &c, &base]);
        assert_eq!(
            rows(&base, "SELECT v FROM t WHERE k IN ('a0', 'b0', 'b1') ORDER BY k"),
            ["\"a\"", "\"c\"", "\"b\""]
        );
        assert_eq!(logged(&base), ["0", "\"a0\"", "\"a1\"", "\"b0\"", "\"b1\""]);
        let conflicts = base.conflicts().unwrap();
        let of_a1 = |c: &packmule::Conflict| format!("{:?}", c.key).contains("[97, 49]");
        assert!(conflicts.iter().any(of_a1), "{conflicts:?}");
    }
}

/// The base's memory card too can be restored.
#[test]
fn a_rolled_back_base() {
    let world = World::new();
    let (mut a, mut base) = met(&world);
    let backup = copy(&base, &world, "backup");
    sql(&base, "INSERT INTO t VALUES ('base', 1)");
    write(&mut a, "a", 3);
    carry(&mut a, &mut base);
    carry(&mut base, &mut a);
    let before = base.identity().clone();
    let digest = base.digest(true).unwrap();
    drop(base);
    world.tick(1000);
    let mut base = device(&world, &backup);
    rounds(&mut [&mut base, &mut a]);
    assert_eq!(base.identity(), &before);
    assert_eq!(base.digest(true).unwrap(), digest, "{:?}", base.status().unwrap());
}

/// Control: a device that never hears of the first history is not touched by any of this.
#[test]
fn who_hears_nothing_of_another_history_keeps_its_identity() {
    let world = World::new();
    let (mut a, mut base) = met(&world);
    let same = a.identity().id;
    for n in 0..3 {
        write(&mut a, &format!("w{n}-"), 2);
        rounds(&mut [&mut a, &mut base]);
        // Old bundles, and its own, say nothing new.
        let own = whole_bundle(&mut a);
        import(&mut a, &own);
    }
    assert_eq!(a.identity().id, same);
    assert!(a.status().unwrap().notices.is_empty() && base.status().unwrap().notices.is_empty());
}

/// A base has folded what everybody had: the copy can still bring what it wrote.
#[test]
fn a_second_history_comes_in_where_the_first_is_folded_away() {
    let world = World::new();
    let (mut a, mut base) = met(&world);
    write(&mut a, "old", 3);
    rounds(&mut [&mut a, &mut base]);
    assert!(base.compact().unwrap().versions > 0);
    let card = copy(&a, &world, "card");
    world.tick(1000);
    write(&mut a, "first", 1);
    let mut b = device(&world, &card);
    world.tick(1000);
    write(&mut b, "second", 1);
    carry(&mut a, &mut base);
    show(&mut base, &mut b);
    rounds(&mut [&mut a, &mut b, &mut base]);
    digests_equal(&[&a, &b, &base]);
    assert!(base.status().unwrap().waits.is_empty());
    assert_eq!(logged(&base), ["0", "\"first0\"", "\"old0\"", "\"old1\"", "\"old2\"", "\"second0\""]);
}

/// The fleet's word for the first identity, and that one's for the second, are in the snapshot.
#[test]
fn a_newcomer_starts_from_the_snapshot_of_a_second_history() {
    let world = World::new();
    let (mut a, mut base) = met(&world);
    let card = copy(&a, &world, "card");
    write(&mut a, "first", 1);
    world.tick(1000);
    let mut b = device(&world, &card);
    write(&mut b, "second", 1);
    carry(&mut a, &mut base);
    show(&mut base, &mut b);
    assert_ne!(a.identity().id, b.identity().id);
    rounds(&mut [&mut a, &mut b, &mut base]);
    let mut snapshot = std::io::Cursor::new(Vec::new());
    b.snapshot(&mut snapshot).unwrap();
    let join = JoinOptions { name: Some("c"), fleet: Some(&world.fleet) };
    let (mut c, _) = Engine::join(&world.path("c"), &mut snapshot, &join, world.options()).unwrap();
    rounds(&mut [&mut a, &mut b, &mut c, &mut base]);
    digests_equal(&[&a, &b, &c, &base]);

    let other = World::seeded(1);
    let join = JoinOptions { name: Some("d"), fleet: Some(&other.fleet) };
    let refused = Engine::join(&other.path("d"), &mut snapshot, &join, other.options());
    assert!(matches!(refused, Err(Error::Untrusted(_))), "of another fleet");
}

/// What was declared in a group that is re-authored was declared by the new identity: what others declare
/// after the old one's groups of those numbers does not repeat it.
#[test]
fn what_a_second_history_declared_is_its_own() {
    let world = World::new();
    let (mut a, mut base) = met(&world);
    let mut twin = device(&world, &copy(&a, &world, "twin"));
    for (board, texts) in [
        (&mut a, ["INSERT INTO t VALUES ('x', 1)", "INSERT INTO t VALUES ('b', 'w')"]),
        (&mut twin, ["INSERT INTO t VALUES ('z', 'w')", "CREATE UNIQUE INDEX later ON t (v)"]),
    ] {
        for text in texts {
            world.tick(1000);
            sql(board, text);
            board.seal().unwrap();
        }
    }
    carry(&mut a, &mut base);
    sql(&base, "CREATE UNIQUE INDEX later ON t (v)");
    base.seal().unwrap();
    let bytes = whole_bundle(&mut base);
    import(&mut twin, &bytes);
    rounds(&mut [&mut a, &mut base, &mut twin]);
    digests_equal(&[&a, &base, &twin]);
    for board in [&a, &base, &twin] {
        assert_eq!(rows(board, "SELECT k FROM t WHERE v = 'w'"), ["\"b\""]);
    }
}

/// A copy that is carried about, and that somebody compacts: it seals what it has seen, and no row.
#[test]
fn a_copy_that_only_said_what_it_had_seen_keeps_its_identity() {
    for wrote in [false, true] {
        let world = World::new();
        let (mut a, mut base) = met(&world);
        sql(&base, "INSERT INTO t VALUES ('by the base', 1)");
        carry(&mut base, &mut a);
        let mut copied = device(&world, &copy(&a, &world, "copied"));
        let before = (copied.identity().clone(), copied.positions().unwrap());
        if wrote {
            sql(&copied, "INSERT INTO t VALUES ('by the copy', 1)");
        }
        copied.compact().unwrap();
        assert_ne!(copied.positions().unwrap(), before.1, "it has said something");
        write(&mut a, "a", 2);
        carry(&mut a, &mut base);
        for _ in 0..2 {
            show(&mut base, &mut copied);
        }
        assert_eq!(copied.identity().id == before.0.id, !wrote, "wrote {wrote}");
        rounds(&mut [&mut base, &mut a]);
        rounds(&mut [&mut base, &mut copied]);
        rounds(&mut [&mut base, &mut a]);
        digests_equal(&[&a, &base, &copied]);
        assert_eq!(
            rows(&base, "SELECT count(*) FROM t WHERE k = 'by the copy'"),
            [u8::from(wrote).to_string()]
        );
        assert_eq!(logged(&base).len(), 3);
        assert!(copied.verify().unwrap().problems.is_empty());
    }
}

/// A copy only said what it had seen, and a base has that: it stays, though a board shows the copy the first history. Dropped
/// here, it would be another history at the base. Who wrote the first one gives way.
#[test]
fn what_a_copy_only_said_stays_where_a_base_has_it() {
    let world = World::new();
    let (mut a, mut base) = met(&world);
    let mut other = world.board_with("other", "CREATE TABLE t (k TEXT PRIMARY KEY, v)", &["t"]);
    sql(&base, "INSERT INTO t VALUES ('by the base', 1)");
    carry(&mut base, &mut a);
    let mut copied = device(&world, &copy(&a, &world, "copied"));
    let was = copied.identity().id;
    copied.compact().unwrap();
    carry(&mut copied, &mut base);
    carry(&mut base, &mut copied);
    let said = copied.positions().unwrap();
    write(&mut a, "a", 2);
    carry(&mut a, &mut other);
    let bytes = whole_bundle(&mut other);
    if let Err(e) = try_import(&mut copied, &bytes) {
        assert!(matches!(e, Error::Twin { .. }), "{e}");
    }
    let at = (was, packmule::core::model::Stream::Shared);
    assert_eq!((copied.identity().id, copied.positions().unwrap()[&at]), (was, said[&at]));
    assert!(named(&copied, "two histories"));
    for _ in 0..2 {
        show(&mut base, &mut a);
    }
    assert_ne!(a.identity().id, was);
    // The board has the second history, and refuses what comes from its author, until it is shown the first one.
    rounds(&mut [&mut base, &mut a, &mut other]);
    let bytes = bundle(&mut copied, &other);
    if let Err(e) = try_import(&mut other, &bytes) {
        assert!(matches!(e, Error::Twin { .. }), "{e}");
    }
    rounds(&mut [&mut base, &mut other]);
    rounds(&mut [&mut base, &mut a, &mut copied, &mut other]);
    digests_equal(&[&a, &base, &copied, &other]);
    assert_eq!(copied.identity().id, was);
    assert_eq!(logged(&base), ["0", "\"a0\"", "\"a1\""]);
}

/// What others had of the shared stream came back; of its own rows this database had written other ones. The identity before
/// keeps none of those: there they would be lost.
#[test]
fn what_was_taken_back_says_nothing_of_the_other_stream() {
    let world = World::new();
    let (mut a, mut base) = met(&world);
    let mut other = world.board_with("other", "CREATE TABLE t (k TEXT PRIMARY KEY, v)", &["t"]);
    let backup = copy(&a, &world, "backup");
    write(&mut a, "lost", 2);
    carry(&mut a, &mut other);
    carry(&mut a, &mut base);
    drop(a);
    let mut a = device(&world, &backup);
    let was = a.identity().id;
    sql(&a, "INSERT INTO log (v) VALUES ('written again')");
    a.seal().unwrap();
    // A board has the shared stream alone.
    let bytes = whole_bundle(&mut other);
    import(&mut a, &bytes);
    assert_eq!(a.identity().id, was);
    for _ in 0..2 {
        show(&mut base, &mut a);
    }
    assert_ne!(a.identity().id, was);
    rounds(&mut [&mut base, &mut a, &mut other]);
    digests_equal(&[&a, &base, &other]);
    assert_eq!(logged(&base), ["0", "\"lost0\"", "\"lost1\"", "\"written again\""]);
}
