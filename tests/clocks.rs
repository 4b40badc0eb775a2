//! Clocks that are wrong: in 1970, in 2099, set back, equal. What came after wins over what it came
//! after, whatever they show, and a clock that is far off is named.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod common;
use common::*;
use packmule::{Engine, Merge, Policy, Resolution, TrackOptions};

const DAY: i64 = 86_400_000;
const NOW: i64 = 1_700_000_000_000; // November 2023
const Y1970: i64 = 60_000;
const Y2099: i64 = 4_086_000_000_000;
const TABLE: &str = "CREATE TABLE t (k TEXT PRIMARY KEY, v TEXT)";

/// Three devices with one row, each of which reads the clock of the world when it does something.
fn three(policy: Policy) -> (World, [Engine; 3]) {
    let world = World::new();
    set(&world, NOW - 30 * DAY);
    let mut a = world.board("a");
    sql(&a, TABLE);
    a.track("t", &TrackOptions { policy, ..TrackOptions::default() }).unwrap();
    sql(&a, "INSERT INTO t VALUES ('k', 'start')");
    let (mut b, mut c) = (world.board("b"), world.board("c"));
    carry(&mut a, &mut b);
    carry(&mut a, &mut c);
    set(&world, NOW);
    (world, [a, b, c])
}

/// Writes on a device whose clock shows this.
fn write_at(world: &World, device: &mut Engine, clock: i64, statement: &str) {
    sql(device, statement);
    written_at(device, clock);
    set(world, clock);
    device.seal().unwrap();
    set(world, NOW);
}

fn set(world: &World, clock: i64) {
    world.clock.store(clock, std::sync::atomic::Ordering::Relaxed);
}

fn value(device: &Engine) -> Vec<String> {
    rows(device, "SELECT v FROM t ORDER BY k")
}

fn lamports(device: &Engine) -> Vec<String> {
    rows(device, "SELECT lamport, wall FROM _pm_group ORDER BY lamport, wall")
}

#[test]
fn what_saw_another_wins_over_it_whatever_the_clocks_show() {
    for policy in [Policy::Manual, Policy::Lww] {
        for (first, second) in [(Y2099, Y1970), (NOW, Y1970), (Y2099, NOW), (Y1970, Y2099), (NOW, NOW)] {
            let (world, [mut a, mut b, mut c]) = three(policy);
            write_at(&world, &mut a, first, "UPDATE t SET v = 'first'");
            carry(&mut a, &mut b);
            write_at(&world, &mut b, second, "UPDATE t SET v = 'second'");
            // To one in order, to the other one backwards.
            let late = bundle(&mut b, &c);
            import(&mut c, &late);
            carry_all(&mut [&mut a, &mut b, &mut c]);
            digests_equal(&[&a, &b, &c]);
            for device in [&a, &b, &c] {
                assert_eq!(value(device), ["\"second\""], "{policy:?} {first} {second}");
                assert!(device.conflicts().unwrap().is_empty());
            }
            // A delete as well.
            write_at(&world, &mut c, Y1970, "DELETE FROM t");
            carry_all(&mut [&mut a, &mut b, &mut c]);
            assert_eq!(value(&a), [""; 0]);
            digests_equal(&[&a, &b, &c]);
        }
    }
}

#[test]
fn a_resolution_from_1970_settles_versions_from_2099() {
    let (world, [mut a, mut b, mut c]) = three(Policy::Manual);
    write_at(&world, &mut a, Y2099, "UPDATE t SET v = 'a'");
    write_at(&world, &mut b, NOW, "UPDATE t SET v = 'b'");
    carry_all(&mut [&mut a, &mut b, &mut c]);
    assert_eq!(value(&c), ["\"a\""], "of concurrent ones the later clock is shown");
    let id = c.conflicts().unwrap()[0].id.clone();
    set(&world, Y1970);
    c.resolve(&id, &Resolution::Take(b.identity().id)).unwrap();
    set(&world, NOW);
    carry_all(&mut [&mut a, &mut b, &mut c]);
    digests_equal(&[&a, &b, &c]);
    assert_eq!(value(&a), ["\"b\""]);
    assert!(a.conflicts().unwrap().is_empty());
    write_at(&world, &mut b, Y1970, "UPDATE t SET v = 'after'");
    carry_all(&mut [&mut a, &mut b, &mut c]);
    assert_eq!(value(&a), ["\"after\""]);
}

#[test]
fn a_clock_that_jumps_back_loses_nothing() {
    for policy in [Policy::Manual, Policy::Lww] {
        let (world, [mut a, mut b, mut c]) = three(policy);
        for (clock, text) in [(Y2099, "one"), (NOW, "two"), (Y1970, "three"), (Y1970 - 120_000, "four")] {
            write_at(&world, &mut a, clock, &format!("UPDATE t SET v = '{text}'"));
        }
        carry_all(&mut [&mut a, &mut b, &mut c]);
        digests_equal(&[&a, &b, &c]);
        assert_eq!(value(&b), ["\"four\""], "{policy:?}");
        assert!(b.conflicts().unwrap().is_empty());
    }
}

#[test]
fn a_wrong_clock_moves_nobody_elses() {
    // The same writes with right and with wrong clocks: the same counts, and no other time changes.
    let run = |wrong: i64| {
        let (world, [mut a, mut b, mut c]) = three(Policy::Manual);
        write_at(&world, &mut a, wrong, "INSERT INTO t VALUES ('a', '1')");
        carry_all(&mut [&mut a, &mut b, &mut c]);
        write_at(&world, &mut b, NOW + 1, "INSERT INTO t VALUES ('b', '2')");
        carry_all(&mut [&mut a, &mut b, &mut c]);
        write_at(&world, &mut c, NOW + 2, "UPDATE t SET v = '3'");
        carry_all(&mut [&mut a, &mut b, &mut c]);
        assert_eq!(lamports(&a), lamports(&b));
        (lamports(&c), value(&c))
    };
    let right = run(NOW + 3);
    for wrong in [Y1970, Y2099, i64::MAX, i64::MIN] {
        let (lamports, values) = run(wrong);
        let swapped: Vec<String> =
            right.0.iter().map(|l| l.replace(&(NOW + 3).to_string(), &wrong.to_string())).collect();
        assert_eq!((lamports, values), (swapped, right.1.clone()), "{wrong}");
    }
}

#[test]
fn lww_compares_concurrent_writes_alone() {
    for merge in [Merge::Row, Merge::Cell] {
        let world = World::new();
        let mut a = world.board("a");
        sql(&a, TABLE);
        a.track("t", &TrackOptions { policy: Policy::Lww, merge, ..TrackOptions::default() }).unwrap();
        sql(&a, "INSERT INTO t VALUES ('k', 'start')");
        let mut b = world.board("b");
        carry(&mut a, &mut b);
        write_at(&world, &mut a, Y2099, "UPDATE t SET v = 'future'");
        write_at(&world, &mut b, NOW, "UPDATE t SET v = 'now'");
        carry_all(&mut [&mut a, &mut b]);
        assert_eq!(value(&b), ["\"future\""], "concurrent: the later clock");
        write_at(&world, &mut b, Y1970, "UPDATE t SET v = 'after'");
        carry_all(&mut [&mut a, &mut b]);
        assert_eq!(value(&a), ["\"after\""], "not concurrent: the clock does not count");
        digests_equal(&[&a, &b]);
    }
}

#[test]
fn equal_clocks_have_one_order_everywhere() {
    for policy in [Policy::Manual, Policy::Lww] {
        let mut shown = Vec::new();
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let (world, mut d) = three(policy);
            for (at, device) in d.iter_mut().enumerate() {
                write_at(&world, device, NOW, &format!("UPDATE t SET v = '{at}'"));
            }
            let bundles: Vec<Vec<u8>> = d.iter_mut().map(whole_bundle).collect();
            for device in &mut d {
                order.iter().for_each(|at| {
                    import(device, &bundles[*at]);
                });
            }
            let [a, b, c] = &d;
            digests_equal(&[a, b, c]);
            assert_eq!(a.conflicts().unwrap(), c.conflicts().unwrap());
            let versions: Vec<_> =
                a.conflicts().unwrap().into_iter().flat_map(|c| c.versions).map(|v| v.values).collect();
            shown.push((value(a), versions));
        }
        assert!(shown.windows(2).all(|pair| pair[0] == pair[1]), "{policy:?} {shown:?}");
    }
}

/// What `status` says of clocks.
fn named(engine: &Engine) -> Vec<String> {
    let notices = engine.status().unwrap().notices.into_iter().map(|notice| notice.text);
    notices.filter(|n| n.contains("clock")).collect()
}

fn offset(engine: &Engine, of: &Engine) -> Option<i64> {
    let devices = engine.devices().unwrap();
    devices.into_iter().find(|d| d.id == of.identity().id).unwrap().clock
}

#[test]
fn status_names_a_clock_that_is_far_off() {
    let (world, [mut a, mut b, mut c]) = three(Policy::Manual);
    carry_all(&mut [&mut a, &mut b, &mut c]);
    assert_eq!(named(&a), [""; 0]);
    // A bundle that travelled for a week is no wrong clock; nor are some hours.
    write_at(&world, &mut b, NOW - 7 * DAY, "INSERT INTO t VALUES ('old', '')");
    write_at(&world, &mut c, NOW + DAY / 2, "INSERT INTO t VALUES ('hours', '')");
    let (from_b, from_c) = (bundle(&mut b, &a), bundle(&mut c, &a));
    import(&mut a, &from_b);
    import(&mut a, &from_c);
    assert_eq!((offset(&a, &b), offset(&a, &c)), (None, None), "{:?}", named(&a));
    // In 2099, and in 1970.
    write_at(&world, &mut b, Y2099, "INSERT INTO t VALUES ('b', '')");
    write_at(&world, &mut c, Y1970, "INSERT INTO t VALUES ('c', '')");
    let (from_b, from_c) = (bundle(&mut b, &a), bundle(&mut c, &a));
    import(&mut a, &from_b);
    import(&mut a, &from_c);
    assert_eq!(offset(&a, &b), Some(Y2099 - NOW));
    assert_eq!(offset(&a, &c), Some(Y1970 - NOW));
    assert_eq!(offset(&a, &a), None);
    let told = named(&a);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told.iter().any(|n| n.contains(" b-") && n.contains("ahead")), "{told:?}");
    assert!(told.iter().any(|n| n.contains(" c-") && n.contains("behind")), "{told:?}");
    // Once they are set right they are not named any more.
    write_at(&world, &mut b, NOW, "DELETE FROM t WHERE k = 'b'");
    write_at(&world, &mut c, NOW, "DELETE FROM t WHERE k = 'c'");
    let (from_b, from_c) = (bundle(&mut b, &a), bundle(&mut c, &a));
    import(&mut a, &from_b);
    import(&mut a, &from_c);
    assert_eq!(named(&a), [""; 0]);
}

#[test]
fn a_clock_is_behind_if_it_shows_less_than_what_its_device_has_seen() {
    let (world, [mut a, mut b, mut c]) = three(Policy::Manual);
    write_at(&world, &mut b, NOW, "INSERT INTO t VALUES ('b', '')");
    carry(&mut b, &mut c);
    write_at(&world, &mut c, NOW - 30 * DAY, "INSERT INTO t VALUES ('c', '')");
    // Frames of `b` come along.
    let all = whole_bundle(&mut c);
    import(&mut a, &all);
    assert_eq!((offset(&a, &b), offset(&a, &c)), (None, Some(-30 * DAY)));
    // But nobody is behind because somebody else is in 2099.
    write_at(&world, &mut b, Y2099, "INSERT INTO t VALUES ('b2', '')");
    carry(&mut b, &mut c);
    write_at(&world, &mut c, NOW - DAY, "INSERT INTO t VALUES ('c2', '')");
    let all = whole_bundle(&mut c);
    import(&mut a, &all);
    assert_eq!((offset(&a, &b), offset(&a, &c)), (Some(Y2099 - NOW), None));
}

#[test]
fn our_own_clock_is_named() {
    let (world, [mut a, mut b, mut c]) = three(Policy::Manual);
    write_at(&world, &mut b, NOW, "INSERT INTO t VALUES ('b', '')");
    write_at(&world, &mut c, NOW, "INSERT INTO t VALUES ('c', '')");
    carry_all(&mut [&mut a, &mut b, &mut c]);
    // In 1970 it is ours that is wrong, and nobody else's.
    set(&world, Y1970);
    assert_eq!(offset(&a, &a), Some(Y1970 - NOW));
    assert_eq!((offset(&a, &b), offset(&a, &c)), (None, None));
    assert!(named(&a).len() == 1 && named(&a)[0].contains("this device"), "{:?}", named(&a));
    // A month behind all others it is ours as well.
    set(&world, NOW - 30 * DAY);
    assert_eq!(offset(&a, &a), Some(-30 * DAY));
    assert_eq!((offset(&a, &b), offset(&a, &c)), (None, None));
    set(&world, NOW);
    assert_eq!(named(&a), [""; 0]);
    // A device that was never heard of says nothing.
    let alone = world.board("alone");
    assert_eq!(named(&alone), [""; 0]);
    set(&world, Y1970);
    assert_eq!(named(&alone).len(), 1);
    set(&world, i64::MIN);
    assert_eq!(named(&alone).len(), 1);
}
