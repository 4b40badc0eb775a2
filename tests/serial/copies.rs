//! Devices that were set back, or copied, and meet again at a line.

use super::*;

/// A clone of a database, with its key.
fn copy(of: &Engine, world: &World, name: &str) -> Engine {
    let to = world.path(name);
    common::copy_card(of, &to);
    Engine::open_with(&to, world.options()).unwrap()
}

/// A board, the base that it met, and a clone of the board.
fn copied(world: &World) -> (Engine, Engine, Engine) {
    let (mut a, mut base) = (board(world, "a"), world.base("base"));
    fill(&a, "common", 5, 10);
    exchange(&mut a, &mut base, 4_096);
    let copy = copy(&a, world, "copy");
    (a, base, copy)
}

#[test]
fn a_rolled_back_device_recovers_its_frames() {
    let world = World::new();
    let (mut a, mut base, mut old) = copied(&world);
    fill(&a, "lost", 20, 10);
    sql(&a, "INSERT INTO readings (v) VALUES (1), (2)");
    exchange(&mut a, &mut base, 4_096);
    drop(a);
    let (one, two) = exchange(&mut old, &mut base, 4_096);
    assert!(one.error.is_none() && two.error.is_none(), "{:?} {:?}", one.error, two.error);
    digests_equal(&[&old, &base]);
    assert_eq!(rows(&old, "SELECT count(*) FROM readings"), ["2"]);
    sql(&old, "INSERT INTO readings (v) VALUES (3)");
    exchange(&mut old, &mut base, 4_096);
    assert_eq!(rows(&base, "SELECT count(*), count(DISTINCT device) FROM readings"), ["3|1"]);
}

#[test]
fn a_second_history_rekeys_in_the_next_session() {
    let world = World::new();
    let (mut a, mut base, mut twin) = copied(&world);
    for (engine, name) in [(&mut a, "a"), (&mut twin, "twin")] {
        for n in 0..3 {
            fill(engine, &format!("{name}{n}"), 2, 10);
            sql(engine, "INSERT INTO readings (v) VALUES (1)");
            engine.seal().unwrap();
        }
    }
    let was = a.identity().id;
    exchange(&mut a, &mut base, 4_096);
    let (one, two) = exchange(&mut twin, &mut base, 4_096);
    assert!(
        matches!(&one.error, Some(e @ Error::NewIdentity { was: id, .. }) if *id == was && e.is_new_identity()),
        "{:?}",
        one.error
    );
    assert!(two.error.is_some_and(|e| e.is_new_identity()));
    assert_ne!(twin.identity().id, was);
    let (one, two) = exchange(&mut twin, &mut base, 4_096);
    assert!(one.error.is_none() && two.error.is_none(), "{:?} {:?}", one.error, two.error);
    exchange(&mut a, &mut base, 4_096);
    digests_equal(&[&a, &twin, &base]);
    assert_eq!(rows(&base, "SELECT count(*) FROM t"), ["17"]);
    assert_eq!(rows(&base, "SELECT count(*), count(DISTINCT device) FROM readings"), ["6|2"]);
    assert!(base.status().unwrap().notices.iter().any(|n| n.text.contains("two histories")));
    assert!(twin.status().unwrap().notices.iter().any(|n| n.text.contains("second history")));
    assert!(base.conflicts().unwrap().is_empty() && twin.verify().unwrap().problems.is_empty());
}

/// The other end learns of the two histories also where the vector by which the second finds itself out comes together
/// with the proof before it: what an end has it says before it takes what the other has.
#[test]
fn a_second_history_sends_what_it_has_before_it_rekeys() {
    for twin_first in [true, false] {
        let world = World::new();
        let (mut a, mut base, mut twin) = copied(&world);
        for (engine, name) in [(&mut a, "a"), (&mut twin, "twin")] {
            fill(engine, name, 2, 10);
            engine.seal().unwrap();
        }
        exchange(&mut a, &mut base, 4_096);
        let (of_twin, of_base) = if twin_first {
            exchange(&mut twin, &mut base, 4_096)
        } else {
            let (of_base, of_twin) = exchange(&mut base, &mut twin, 4_096);
            (of_twin, of_base)
        };
        assert!(matches!(&of_twin.error, Some(Error::NewIdentity { .. })), "{:?}", of_twin.error);
        assert!(
            matches!(&of_base.error, Some(Error::Refused { why: Refusal::NewIdentity, .. })),
            "{:?}",
            of_base.error
        );
        let notices = base.status().unwrap().notices;
        assert!(notices.iter().any(|n| n.text.contains("two histories")), "{twin_first}: {notices:?}");
    }
}

#[test]
fn two_clones_at_one_line_are_named_and_change_nothing_else() {
    let world = World::new();
    let (mut a, _base, mut twin) = copied(&world);
    let (one, two) = exchange(&mut a, &mut twin, 4_096);
    assert!(matches!(one.error, Some(Error::Itself)) && two.error.is_some());
    for engine in [&a, &twin] {
        assert!(engine.status().unwrap().notices.iter().any(|n| n.text.contains("copy of this device")));
    }
    assert_eq!(a.identity(), twin.identity());
}
