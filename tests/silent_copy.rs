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

fn fleet(shared: bool) -> Fleet {
    let world = World::new();
    let card = world.path("card");
    std::fs::create_dir(&card).unwrap();
    let (mut a, mut base) = (world.board("a"), world.base("base"));
    sql(&a, SQL);
    a.track("t", &TrackOptions::default()).unwrap();
    a.track("log", &append()).unwrap();
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
