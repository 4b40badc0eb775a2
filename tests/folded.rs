//! What one device has folded away and another remembers makes no difference to what they show and list.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod common;
use common::*;
use packmule::{ConflictKind, Engine, Merge, TrackOptions};

/// Devices with a table that the first one makes, which all know each other.
fn fleet<const N: usize>(schema: &str, merge: Merge) -> (World, [Engine; N]) {
    let world = World::new();
    let mut devices: Vec<Engine> = (0..N).map(|n| world.board(&format!("d{n}"))).collect();
    sql(&devices[0], schema);
    devices[0].track("t", &TrackOptions { merge, ..TrackOptions::default() }).unwrap();
    let mut devices = devices.try_into().unwrap_or_else(|_| unreachable!());
    meet(&mut devices);
    (world, devices)
}

fn meet<const N: usize>(devices: &mut [Engine; N]) {
    carry_all(&mut devices.iter_mut().collect::<Vec<_>>());
}

fn alike<const N: usize>(devices: &mut [Engine; N]) {
    meet(devices);
    digests_equal(&devices.iter().collect::<Vec<_>>());
}

fn write(device: &mut Engine, text: &str) {
    sql(device, text);
    device.seal().unwrap();
}

fn shown(device: &Engine) -> Vec<String> {
    rows(device, "SELECT k FROM t ORDER BY k")
}

#[test]
fn a_unique_that_is_made_later_finds_the_same_row_first_everywhere() {
    let (_world, mut d) = fleet::<4>("CREATE TABLE t (k TEXT PRIMARY KEY, u)", Merge::Row);
    // By the stamps alone `z` is older; whoever makes the UNIQUE has seen `a`, and not `z`.
    write(&mut d[2], "INSERT INTO t VALUES ('z', 'w')");
    for n in 0..10 {
        write(&mut d[0], &format!("INSERT OR REPLACE INTO t VALUES ('other', {n})"));
    }
    write(&mut d[0], "INSERT INTO t VALUES ('a', 'w')");
    for n in [3, 1, 2] {
        let [first, others @ ..] = &mut d;
        carry(first, &mut others[n - 1]);
        carry(&mut others[n - 1], first);
    }
    assert!(d[0].compact().unwrap().versions > 0);
    sql(&d[3], "CREATE UNIQUE INDEX later ON t (u)");
    alike(&mut d);
    for device in &d {
        assert_eq!(shown(device), ["\"a\"", "\"other\""]);
    }
}

#[test]
fn a_row_that_comes_in_again_finds_the_same_claims_everywhere() {
    for merge in [Merge::Row, Merge::Cell] {
        let (world, mut d) = fleet::<3>("CREATE TABLE t (k TEXT PRIMARY KEY, p UNIQUE, q UNIQUE)", merge);
        write(&mut d[0], "INSERT INTO t VALUES ('first', 'p', NULL)");
        world.tick(1_000);
        write(&mut d[1], "INSERT INTO t VALUES ('kept out', 'p', 'q')");
        meet(&mut d);
        assert_eq!(shown(&d[1]), ["\"first\""]);
        write(&mut d[1], "INSERT INTO t VALUES ('third', NULL, 'q')");
        meet(&mut d);
        d[0].compact().unwrap();
        // `kept out` claimed its values before `third` did.
        write(&mut d[2], "UPDATE t SET p = 'free' WHERE k = 'first'");
        alike(&mut d);
        for device in &d {
            assert_eq!(shown(device), ["\"first\"", "\"kept out\""]);
        }
    }
}

#[test]
fn who_wrote_a_row_that_is_kept_out_is_listed_alike() {
    let (world, mut d) = fleet::<3>("CREATE TABLE t (k TEXT PRIMARY KEY, a, u UNIQUE)", Merge::Cell);
    // Its author's clock is far ahead: of what it wrote the greater part is still shown later on.
    world.tick(1_000_000_000);
    write(&mut d[2], "INSERT INTO t VALUES ('kept out', 's', NULL)");
    world.tick(-1_000_000_000);
    meet(&mut d);
    assert!(d[0].compact().unwrap().versions > 0);
    write(&mut d[2], "INSERT INTO t VALUES ('first', 's', 'w')");
    write(&mut d[1], "UPDATE t SET u = 'w' WHERE k = 'kept out'");
    alike(&mut d);
    let author = d[1].identity().id;
    for device in &d {
        let conflicts = device.conflicts().unwrap();
        let [conflict] = &conflicts[..] else { panic!("{conflicts:?}") };
        assert_eq!(conflict.kind, ConflictKind::Unique(vec!["u".into()]));
        assert_eq!(conflict.versions[0].device, Some(author));
        assert_eq!(*conflict, d[0].conflicts().unwrap()[0]);
    }
}
