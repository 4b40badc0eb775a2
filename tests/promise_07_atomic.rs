//! Promise 7: a device's transactions arrive whole.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests are tests.

mod bundles;
mod common;
use std::sync::atomic::{AtomicBool, Ordering};

use common::*;
use packmule::Options;
use packmule::core::model::Stream;

const ACCOUNTS: &str = "CREATE TABLE account (id TEXT PRIMARY KEY, balance INT);
    WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 1000) INSERT INTO account SELECT 'a' || x, 100 FROM n";

/// A reader in another thread never sees a sum that no seal had.
#[test]
fn a_reader_sees_all_of_a_seal_or_none() {
    let world = World::new();
    let mut a = world.board_with("a", ACCOUNTS, &["account"]);
    let small = |world: &World| Options { frame_bytes: 1024, window_bytes: 1, ..world.options() };
    let path = world.path("b");
    drop(world.board("b"));
    let mut b = packmule::Engine::open_with(&path, small(&world)).unwrap();
    carry(&mut a, &mut b);
    let path_a = a.path().to_owned();
    drop(a);
    let mut a = packmule::Engine::open_with(&path_a, small(&world)).unwrap();
    let mut random = Random(7);
    for round in 0..30 {
        let mut text = String::from("BEGIN;");
        for _ in 0..700 {
            let (from, to) = (random.below(1000) + 1, random.below(1000) + 1);
            text += &format!(
                "UPDATE account SET balance = balance - 10 WHERE id = 'a{from}'; UPDATE account SET balance = balance + 10 WHERE id = 'a{to}';"
            );
        }
        // The whole is worth one more each time, and rows come and go with what they had.
        text += &format!(
            "UPDATE account SET balance = balance + 1 WHERE id = 'a1'; INSERT INTO account SELECT 'n{round}', balance FROM account WHERE id = 'a2'; UPDATE account SET balance = 0 WHERE id = 'a2'; COMMIT"
        );
        sql(&a, &text);
        let sealed = a.seal().unwrap();
        assert!(sealed.frames > 1, "several frames make one group");
    }
    let bytes = bundle(&mut a, &b);
    let done = AtomicBool::new(false);
    let (seen, inside) = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let db = open(&path);
            let mut seen = Vec::new();
            let mut inside = 0;
            loop {
                let last = done.load(Ordering::SeqCst);
                db.execute_batch("BEGIN").unwrap();
                let read = || -> (i64, i64) {
                    db.query_row("SELECT sum(balance), count(*) FROM account", [], |r| {
                        Ok((r.get(0)?, r.get(1)?))
                    })
                    .unwrap()
                };
                let (first, second) = (read(), read());
                assert_eq!(first, second, "one state in one transaction");
                db.execute_batch("COMMIT").unwrap();
                inside += 1;
                assert_eq!(first.0 - 100_000, first.1 - 1000, "half of a seal was seen");
                if seen.last() != Some(&first.0) {
                    seen.push(first.0);
                }
                if last {
                    return (seen, inside);
                }
                std::thread::yield_now();
            }
        });
        import(&mut b, &bytes);
        done.store(true, Ordering::SeqCst);
        reader.join().unwrap()
    });
    println!("{inside} reads saw {} states", seen.len());
    assert_eq!(seen.last(), Some(&100_030));
    assert!(seen.windows(2).all(|w| w[0] < w[1]), "{seen:?}");
    digests_equal(&[&a, &b]);
}

/// One seal over a shared and a per-device table is one at the base.
#[test]
fn a_seal_over_both_kinds_of_tables_is_applied_as_one() {
    let world = World::new();
    let mut a = world.board_with(
        "a",
        "CREATE TABLE total (k TEXT PRIMARY KEY, n INT); CREATE TABLE reading (id INTEGER PRIMARY KEY AUTOINCREMENT, v INT); INSERT INTO total VALUES ('all', 0)",
        &["total"],
    );
    a.track("reading", &append()).unwrap();
    let mut base = world.base("base");
    carry(&mut a, &mut base);
    carry(&mut base, &mut a);
    sql(&a, "BEGIN; INSERT INTO reading (v) VALUES (3), (4); UPDATE total SET n = 7; COMMIT");
    let groups = bundles::split(&bundle(&mut a, &base));
    assert_eq!(groups.len(), 2, "one in each stream");
    let half = |stream| &groups.iter().find(|g| g.stream == stream).unwrap().bytes;
    let both = "SELECT (SELECT n FROM total), (SELECT count(*) FROM reading)";

    for (n, order) in
        [[Stream::Shared, Stream::PerDevice], [Stream::PerDevice, Stream::Shared]].into_iter().enumerate()
    {
        let mut other = world.base(&format!("other {n}"));
        let start = whole_bundle(&mut base);
        import(&mut other, &start);
        assert_eq!(rows(&other, both), ["0|0"]);
        let report = import(&mut other, half(order[0]));
        assert_eq!(report.ops, 0, "half of a seal waits");
        assert_eq!(report.waits.len(), 1, "{report:?}");
        assert!(report.waits[0].author.starts_with("a-"));
        assert!(
            matches!(
                report.waits[0].missing,
                packmule::Missing::Frames { up_to: 1.., .. }
                    | packmule::Missing::OtherPart { up_to: 1.., .. }
            ),
            "{report:?}"
        );
        assert_eq!(rows(&other, both), ["0|0"]);
        let path = other.path().to_owned();
        drop(other);
        let mut other = packmule::Engine::open_with(&path, world.options()).unwrap();
        let report = import(&mut other, half(order[1]));
        assert_eq!((report.ops, report.waits), (3, vec![]));
        assert_eq!(rows(&other, both), ["7|2"]);
        assert_eq!(other.verify().unwrap().problems, [""; 0]);
    }
    // A board has no use for the other half, and does not wait for it.
    let mut b = world.board("b");
    for group in bundles::split(&whole_bundle(&mut base)).iter().filter(|g| g.stream == Stream::Shared) {
        assert_eq!(import(&mut b, &group.bytes).waits, []);
    }
    assert_eq!(import(&mut b, half(Stream::Shared)).waits, []);
    assert_eq!(rows(&b, "SELECT n FROM total"), ["7"]);
}

/// An import of several windows that is broken off goes on where it was.
#[test]
fn a_group_is_never_split_by_a_window() {
    let world = World::new();
    let mut a = world.board_with("a", ACCOUNTS, &["account"]);
    drop(world.board("b"));
    let options = Options { window_bytes: 1, ..world.options() };
    let mut b = packmule::Engine::open_with(&world.path("b"), options).unwrap();
    for _ in 0..5 {
        sql(&a, "UPDATE account SET balance = balance + 1");
        a.seal().unwrap();
    }
    let bytes = whole_bundle(&mut a);
    let mut seen = Vec::new();
    let path = b.path().to_owned();
    b.import(&mut std::io::Cursor::new(&bytes), &mut |p| {
        let db = open(&path);
        let there = dump(&db, "SELECT 1 FROM sqlite_schema WHERE name = 'account'");
        if !p.verifying && !there.is_empty() {
            seen.push(dump(&db, "SELECT min(balance), max(balance), count(*) FROM account").remove(0));
        }
    })
    .unwrap();
    seen.dedup();
    let expected: Vec<String> = (100..=105).map(|n| format!("{n}|{n}|1000")).collect();
    assert_eq!(seen, expected);
}
