//! What of a device's second history is given up is said anew by who had it, and takes from the other versions of a row just
//! what it had taken before: also on a device that never had that history.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod common;

use common::*;
use packmule::{ColumnMerge, Engine, Error, Merge, TrackOptions};

/// A board, a base that has its history, its copy that has a second one, and a third device that has that; all of them have
/// rows that the third one wrote.
fn met(world: &World, merge: Merge, counter: bool) -> [Engine; 4] {
    let columns = if counter { vec![("n".to_owned(), ColumnMerge::Counter)] } else { Vec::new() };
    let options = TrackOptions { merge, columns, ..TrackOptions::default() };
    let (mut a, mut c, mut base) = (world.board("a"), world.board("c"), world.base("base"));
    for board in [&mut a, &mut c] {
        sql(board, "CREATE TABLE t (k TEXT PRIMARY KEY, x, y, z, n INTEGER DEFAULT 0)");
        board.track("t", &options).unwrap();
    }
    sql(&c, "INSERT INTO t VALUES ('r', 'c', 'c', 'c', 5), ('s', 'c', 'c', 'c', 5), ('d', 'c', 'c', 'c', 5)");
    carry_all(&mut [&mut a, &mut c, &mut base]);
    carry_all(&mut [&mut a, &mut c, &mut base]);
    let to = world.path("image");
    copy_card(&a, &to);
    let b = Engine::open_with(&to, world.options()).unwrap();
    [a, base, b, c]
}

/// All meet by the base, as often as it takes. What is of another history is refused until that is given up.
fn meet(devices: &mut [&mut Engine], base: &mut Engine) {
    for _ in 0..4 {
        for device in devices.iter_mut() {
            take(base, &whole_bundle(device));
            take(device, &whole_bundle(base));
        }
        // Whose history is the first one hears of each of them what it has given up.
        let (first, others) = devices.split_last_mut().unwrap();
        others.iter_mut().for_each(|other| take(first, &whole_bundle(other)));
    }
}

fn take(engine: &mut Engine, bytes: &[u8]) {
    if let Err(e) = try_import(engine, bytes) {
        assert!(matches!(e, Error::Twin { .. }), "{e}");
    }
}

#[test]
fn a_part_of_a_row_that_was_given_up_takes_that_part_alone_from_the_others_everywhere() {
    for (merge, counter) in
        [(Merge::Cell, false), (Merge::Cell, true), (Merge::Row, false), (Merge::Row, true)]
    {
        let world = World::new();
        let [mut a, mut base, mut b, mut c] = met(&world, merge, counter);
        sql(&a, "INSERT INTO t VALUES ('a', 1, 1, 1, 1)");
        carry(&mut a, &mut base);
        // A part of a row, and another part of it after that; a part, and a counter with it; a row that is gone.
        sql(
            &b,
            "UPDATE t SET x = 'b' WHERE k = 'r'; UPDATE t SET y = 'b', n = n - 1 WHERE k = 's'; DELETE FROM t WHERE k = 'd'",
        );
        b.seal().unwrap();
        sql(&b, "UPDATE t SET y = 'b' WHERE k = 'r'");
        carry(&mut b, &mut c);
        // It is built on, so that its frames cannot be renamed.
        sql(&c, "INSERT INTO t VALUES ('c', 1, 1, 1, 1)");
        carry(&mut c, &mut b);
        meet(&mut [&mut c, &mut b, &mut a], &mut base);
        let all = [&a, &b, &c, &base];
        digests_equal(&all);
        for device in all {
            assert_eq!(
                rows(device, "SELECT * FROM t WHERE k IN ('d', 'r', 's') ORDER BY k"),
                ["\"r\"|\"b\"|\"b\"|\"c\"|5", "\"s\"|\"c\"|\"b\"|\"c\"|4"],
                "{merge:?} {counter}"
            );
            let open = device.conflicts().unwrap();
            assert!(open.is_empty(), "{merge:?} {counter}: {open:?}");
        }
    }
}

/// Two bases have each gathered another history of a board, and both copies have folded all of theirs: they leave the identity
/// with all that their tables have, and each base has the rows of both.
#[test]
fn two_bases_that_gathered_two_histories_of_one_board_get_what_is_folded_there() {
    let world = World::new();
    let mut a = world.board("a");
    sql(
        &a,
        "CREATE TABLE t (k TEXT PRIMARY KEY, v); CREATE TABLE log (id INTEGER PRIMARY KEY AUTOINCREMENT, v)",
    );
    a.track("t", &TrackOptions::default()).unwrap();
    a.track("log", &append()).unwrap();
    sql(&a, "INSERT INTO log (v) VALUES ('both')");
    a.seal().unwrap();
    let to = world.path("image");
    copy_card(&a, &to);
    let mut b = Engine::open_with(&to, world.options()).unwrap();
    let (mut first, mut second) = (world.base("first"), world.base("second"));
    for (board, base, v) in [(&mut a, &mut first, "a"), (&mut b, &mut second, "b")] {
        sql(board, &format!("INSERT INTO log (v) VALUES ('{v}'); INSERT INTO t VALUES ('{v}', 1)"));
        carry(board, base);
        carry(base, board);
        board.compact().unwrap();
        base.compact().unwrap();
    }
    for _ in 0..4 {
        for board in [&mut a, &mut b] {
            for base in [&mut first, &mut second] {
                take(board, &whole_bundle(base));
                take(base, &whole_bundle(board));
            }
        }
        take(&mut first, &whole_bundle(&mut second));
        take(&mut second, &whole_bundle(&mut first));
    }
    digests_equal(&[&a, &b, &first, &second]);
    for base in [&first, &second] {
        assert_eq!(rows(base, "SELECT DISTINCT v FROM log ORDER BY v"), ["\"a\"", "\"b\"", "\"both\""]);
    }
}

/// A base was set back; it writes, gives up its board and folds what it wrote, alone. Then it hears of its first history: what
/// it folded of the second one is in nobody's log, and still goes to everybody. What was settled before both is no news.
#[test]
fn what_a_second_history_folded_goes_to_all() {
    for settled in [false, true] {
        let world = World::new();
        let (mut base, mut board) = (world.base("base"), world.board("board"));
        sql(&board, "CREATE TABLE t (k TEXT PRIMARY KEY, v, n INTEGER DEFAULT 0)");
        let columns = vec![("n".into(), ColumnMerge::Counter)];
        board.track("t", &TrackOptions { columns, ..TrackOptions::default() }).unwrap();
        sql(
            &board,
            "INSERT INTO t VALUES ('counted', 0, 5), ('deleted', 0, 0), ('edited', 0, 5), ('old', 0, 0)",
        );
        carry_all(&mut [&mut base, &mut board]);
        if settled {
            // The base has a history already that both have folded.
            sql(&base, "UPDATE t SET v = 'before' WHERE k = 'old'");
            carry_all(&mut [&mut base, &mut board]);
            base.compact().unwrap();
            board.compact().unwrap();
        }
        let backup = world.path("backup");
        copy_card(&base, &backup);
        sql(&base, "INSERT INTO t VALUES ('first', 1, 1)");
        if settled {
            sql(&base, "UPDATE t SET v = 'first' WHERE k = 'old'");
        }
        carry(&mut base, &mut board);
        drop(base);

        let mut base = Engine::open_with(&backup, world.options()).unwrap();
        sql(
            &base,
            "UPDATE t SET v = 'second' WHERE k = 'edited'; UPDATE t SET n = n + 3 WHERE k = 'counted';
             DELETE FROM t WHERE k = 'deleted'; INSERT INTO t VALUES ('second', 2, 2)",
        );
        base.seal().unwrap();
        base.retire(board.identity().id, None).unwrap();
        base.compact().unwrap();
        let bytes = whole_bundle(&mut board);
        assert!(import(&mut base, &bytes).new_identity.is_some());
        carry_all(&mut [&mut base, &mut board]);
        digests_equal(&[&base, &board]);
        let old = if settled { "old|first|0" } else { "old|0|0" };
        let expected = ["counted|0|8", "edited|second|5", "first|1|1", old, "second|2|2"];
        let shown = rows(&board, "SELECT * FROM t ORDER BY k")
            .iter()
            .map(|row| row.replace('"', ""))
            .collect::<Vec<_>>();
        assert_eq!(shown, expected, "settled: {settled}");
        assert!(base.conflicts().unwrap().is_empty(), "{:?}", base.conflicts());
    }
}
