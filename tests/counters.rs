//! Counters of every storage class: what was added adds up, on every device alike, and no seal changes what an
//! application wrote.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod common;
use common::*;
use packmule::{ColumnMerge, Engine, TrackOptions};

/// Three devices with a counter of this type, at this value.
fn three(decl_type: &str, value: &str) -> (World, [Engine; 3]) {
    let world = World::new();
    let options =
        TrackOptions { columns: vec![("n".into(), ColumnMerge::Counter)], ..TrackOptions::default() };
    let mut devices = ["a", "b", "c"].map(|name| world.board(name));
    for device in &mut devices {
        sql(device, &format!("CREATE TABLE meter (k TEXT PRIMARY KEY, n {decl_type})"));
        device.track("meter", &options).unwrap();
    }
    sql(&devices[0], &format!("INSERT INTO meter VALUES ('house', {value})"));
    carry_all(&mut devices.each_mut());
    (world, devices)
}

fn shown(device: &Engine) -> String {
    rows(device, "SELECT n FROM meter").concat()
}

/// Each writes, seals, and still shows what it wrote; then all meet, in one order or the other. Returns what all show.
fn meet(devices: &mut [Engine; 3], writes: [&str; 3], backwards: bool) -> String {
    for (device, write) in devices.iter_mut().zip(writes).filter(|(_, write)| !write.is_empty()) {
        for one in write.split(';') {
            sql(device, &format!("UPDATE meter SET n = {one}"));
        }
        let before = shown(device);
        device.seal().unwrap();
        assert_eq!(shown(device), before, "a seal changes no row");
    }
    let mut all: Vec<&mut Engine> = devices.iter_mut().collect();
    if backwards {
        all.reverse();
    }
    carry_all(&mut all);
    digests_equal(&devices.each_ref());
    assert!(devices.iter().all(|d| d.conflicts().unwrap().is_empty()));
    shown(&devices[0])
}

#[test]
fn additions_of_every_kind_add_up() {
    for (decl_type, at, writes, expected) in [
        ("REAL", "100", ["n + 5", "n + 0.5; n + 0.25", ""], "105.75r"),
        ("NUMERIC", "100", ["n + 0.5", "n + 0.5", "n + 1"], "102"),
        ("", "1", ["n + 1.5", "n + 1", ""], "3.5r"),
        ("INTEGER", "9223372036854775800", ["n + 7", "n + 7", "n + 7"], "9223372036854775807"),
        ("INTEGER", "-9223372036854775800", ["n - 8", "n - 8", ""], "-9223372036854775808"),
        ("REAL", "0.1", ["n + 0.2", "n + 1e16", "n - 0.3"], ""),
        // What cannot be added is what it says; what was added beside it counts on top where it is a number.
        ("INTEGER", "10", ["NULL", "", ""], "NULL"),
        ("INTEGER", "10", ["'off'", "n + 1", ""], "\"off\""),
        ("INTEGER", "NULL", ["5", "", ""], "5"),
        ("TEXT", "'10'", ["n + 1", "", ""], "\"11\""),
        ("REAL", "1e16", ["0.1", "", ""], "0.1r"),
        ("", "x'00'", ["x'0102'", "", ""], "[01, 02]"),
        ("INTEGER", "-9223372036854775808", ["9223372036854775807", "n + 1", ""], ""),
    ] {
        let mut seen = Vec::new();
        for backwards in [false, true] {
            let (_world, mut devices) = three(decl_type, at);
            let all = meet(&mut devices, writes, backwards);
            assert!(expected.is_empty() || all == expected, "{decl_type} {at} {writes:?}: {all}");
            seen.push(all);
            // What comes after had seen all of it.
            let before = shown(&devices[1]);
            assert_eq!(meet(&mut devices, ["n", "n", "n"], backwards), before);
        }
        if decl_type != "REAL" {
            assert_eq!(seen[0], seen[1], "{decl_type} {at} {writes:?}");
        }
    }
}

/// Many additions that rounding makes depend on their order, with a compaction on one side only.
#[test]
fn sums_are_the_same_whoever_compacts() {
    for (decl_type, step) in [("REAL", "n * 1.1 + 0.1"), ("INTEGER", "n + 4611686018427387904")] {
        for backwards in [false, true] {
            let (_world, mut devices) = three(decl_type, "3");
            for round in 0..6 {
                meet(
                    &mut devices,
                    [step, "n - 0.7; n + 3", if round % 2 == 0 { step } else { "" }],
                    backwards,
                );
                devices[round % 2].compact().unwrap();
            }
        }
    }
}
