//! Two cards of one identity, of which one is behind: it takes back what its peers know of its own log.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod common;

use std::path::PathBuf;

use common::*;
use packmule::{Engine, TrackOptions};

const SQL: &str = "CREATE TABLE t (k TEXT PRIMARY KEY, v);
                   CREATE TABLE log (id INTEGER PRIMARY KEY AUTOINCREMENT, v)";

/// A board that has met a base by a card, and a copy of it; the board has gone on since, and the base has taken that in.
struct Fleet {
    world: World,
    card: PathBuf,
    devices: [Engine; 3],
}

const BOARD: usize = 0;
const COPY: usize = 1;
const BASE: usize = 2;

/// A card, a board with tables, and a base that has none yet.
fn board_and_base(world: &World) -> (PathBuf, Engine, Engine) {
    let card = world.path("card");
    std::fs::create_dir(&card).unwrap();
    let mut a = world.board("a");
    sql(&a, SQL);
    a.track("t", &TrackOptions::default()).unwrap();
    a.track("log", &append()).unwrap();
    (card, a, world.base("base"))
}

fn fleet(shared: bool) -> Fleet {
    let world = World::new();
    let (card, mut a, mut base) = board_and_base(&world);
    sql(&a, "INSERT INTO t VALUES ('both', 0); INSERT INTO log (v) VALUES (0)");
    for _ in 0..2 {
        exchange_with_card(&mut a, &card);
        exchange_with_card(&mut base, &card);
    }
    let to = world.path("copy");
    copy_card(&a, &to);
    let copy = Engine::open_with(&to, world.options()).unwrap();
    sql(&a, "INSERT INTO log (v) VALUES (1), (2)");
    if shared {
        sql(&a, "INSERT INTO t VALUES ('more', 1)");
    }
    for _ in 0..3 {
        exchange_with_card(&mut a, &card);
        exchange_with_card(&mut base, &card);
    }
    world.tick(1000);
    Fleet { world, card, devices: [a, copy, base] }
}

impl Fleet {
    fn rounds(&mut self, order: &[usize], n: usize) {
        for _ in 0..n {
            for d in order {
                self.world.tick(1000);
                let report = exchange_with_card(&mut self.devices[*d], &self.card);
                println!("{d}: {report:?}");
            }
        }
    }
}

const ORDERS: [&[usize]; 5] = [
    &[BOARD, COPY, BASE],
    &[COPY, BOARD, BASE],
    &[BOARD, BASE, COPY, BASE],
    &[BASE, BOARD, COPY],
    &[COPY, BOARD, COPY, BASE, BOARD],
];

#[test]
fn a_copy_that_is_behind_gets_back_what_it_lacks() {
    let mut failed = Vec::new();
    for shared in [false, true] {
        for (n, order) in ORDERS.iter().enumerate() {
            println!("== shared {shared}, order {order:?}");
            let mut fleet = fleet(shared);
            let id = fleet.devices[BOARD].identity().id;
            fleet.rounds(order, 5);
            let [a, copy, base] = &fleet.devices;
            let same = copy.identity().id == id && a.identity().id == id;
            let log = "SELECT v FROM log ORDER BY v";
            let all = rows(copy, log) == ["0", "1", "2"] && rows(base, log) == ["0", "1", "2"];
            let t = rows(copy, "SELECT * FROM t") == rows(a, "SELECT * FROM t");
            if !(same && all && t) {
                failed.push((shared, n, same, rows(copy, log), t));
            }
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn when_both_write_readings_the_second_history_gets_a_new_identity() {
    let mut failed = Vec::new();
    for (n, order) in ORDERS.iter().enumerate() {
        println!("== order {order:?}");
        let mut fleet = fleet(false);
        let id = fleet.devices[BOARD].identity().id;
        sql(&fleet.devices[COPY], "INSERT INTO log (v) VALUES (7)");
        fleet.rounds(order, 5);
        let [a, copy, base] = &fleet.devices;
        let new = copy.identity().id != id && a.identity().id == id;
        let there = rows(base, "SELECT v FROM log ORDER BY v");
        if !new || there != ["0", "1", "2", "7"] {
            failed.push((n, new, there, rows(copy, "SELECT v FROM log ORDER BY v")));
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

/// A base, copies of its card that write nothing and are each behind by more, and a board that goes on writing.
struct Copied {
    world: World,
    card: PathBuf,
    /// The base, its copies, the board.
    devices: Vec<Engine>,
}

fn copied_base(copies: usize, base_writes: bool, folds: bool) -> Copied {
    let world = World::new();
    let (card, mut a, mut base) = board_and_base(&world);
    let mut all = Vec::new();
    for n in 0..=copies {
        sql(&a, &format!("INSERT INTO t VALUES ('a {n}', {n}); INSERT INTO log (v) VALUES ({n})"));
        for _ in 0..3 {
            exchange_with_card(&mut a, &card);
            exchange_with_card(&mut base, &card);
        }
        if base_writes {
            sql(&base, &format!("INSERT INTO t VALUES ('base {n}', {n})"));
            base.seal().unwrap();
        }
        if n < copies {
            let to = world.path(&format!("copy{n}"));
            copy_card(&base, &to);
            all.push(Engine::open_with(&to, world.options()).unwrap());
        }
        world.tick(1000);
    }
    if folds {
        for _ in 0..2 {
            exchange_with_card(&mut base, &card);
            exchange_with_card(&mut a, &card);
        }
        base.compact().unwrap();
        a.compact().unwrap();
    }
    all.insert(0, base);
    all.push(a);
    Copied { world, card, devices: all }
}

/// The base may have written nothing itself: nothing of its own log tells then that there are several databases.
#[test]
fn each_of_several_silent_copies_of_a_base_gets_what_it_lacks() {
    let mut failed = Vec::new();
    for (copies, order) in
        [(1, &[2, 1, 0][..]), (1, &[1, 0, 2]), (1, &[0, 2, 1]), (2, &[0, 3, 1, 2]), (3, &[4, 2, 0, 1, 3])]
    {
        for (base_writes, folds) in [(false, false), (true, false), (false, true), (true, true)] {
            let mut fleet = copied_base(copies, base_writes, folds);
            let id = fleet.devices[0].identity().id;
            for d in order.repeat(5) {
                fleet.world.tick(1000);
                exchange_with_card(&mut fleet.devices[d], &fleet.card);
            }
            let has = |of: &Engine| {
                ["SELECT * FROM t ORDER BY k", "SELECT v FROM log ORDER BY v"].map(|sql| rows(of, sql))
            };
            let [base, others @ ..] = &fleet.devices[..=copies] else { unreachable!() };
            let wrong: Vec<_> =
                others.iter().filter(|of| of.identity().id != id || has(of) != has(base)).map(has).collect();
            if !wrong.is_empty() || has(base)[1].len() != copies + 1 {
                failed.push((order, base_writes, folds, wrong));
            }
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}
