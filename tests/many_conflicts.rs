//! Many conflicts in one frame: what they cost grows with their number alone.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::time::Instant;

use common::{World, bundle, carry, digests_equal, import, rows, sql};
use packmule::{Resolution, Selection};

/// How many: `PACKMULE_MANY=1000,4000,16000 cargo test --release --test many_conflicts -- --nocapture`.
fn numbers() -> Vec<u64> {
    let given = std::env::var("PACKMULE_MANY").unwrap_or_else(|_| "1000,4000".into());
    given.split(',').map(|n| n.parse().unwrap()).collect()
}

/// Two devices write the same keys at once; each frame has thousands of them. Prints the seconds for each number.
#[test]
fn thousands_of_conflicts_in_one_frame() {
    for many in numbers() {
        let world = World::new();
        let make = "CREATE TABLE t (k INTEGER PRIMARY KEY, v)";
        let mut a = world.board_with("a", make, &["t"]);
        let mut b = world.board_with("b", make, &["t"]);
        common::carry_all(&mut [&mut a, &mut b]);
        let numbers =
            format!("WITH RECURSIVE n(k) AS (VALUES (1) UNION ALL SELECT k + 1 FROM n WHERE k < {many})");
        sql(&a, &format!("INSERT INTO t {numbers} SELECT k, 1 FROM n"));
        sql(&b, &format!("INSERT INTO t {numbers} SELECT k, 2 FROM n"));
        let bytes = bundle(&mut a, &b);
        let start = Instant::now();
        let report = import(&mut b, &bytes);
        let imported = start.elapsed();
        assert_eq!(report.conflicts_opened, many);
        carry(&mut b, &mut a);
        let start = Instant::now();
        digests_equal(&[&a, &b]);
        println!("{many}: import {imported:?}, two digests {:?}", start.elapsed());
        let (start, mut first, mut listed) = (Instant::now(), None, 0);
        b.each_conflict(&mut |_| {
            first.get_or_insert_with(|| start.elapsed());
            listed += 1;
            Ok(())
        })
        .unwrap();
        println!("{many}: listed {:?}, the first after {first:?}", start.elapsed());
        assert_eq!(listed, many);
        // Half of them are decided in SQL, the rest by one command.
        let start = Instant::now();
        sql(&b, "UPDATE packmule_conflicts SET take = 'newest' WHERE json_extract(key, '$.k') % 2");
        b.seal().unwrap();
        println!("{many}: half of them decided in SQL {:?}", start.elapsed());
        assert_eq!(b.take_carried_out().closed, many / 2);
        let start = Instant::now();
        let done = b.resolve_all(&Selection::default(), &Resolution::Newest, &mut |_| Ok(())).unwrap();
        println!("{many}: the other half resolved {:?}", start.elapsed());
        assert_eq!((done.closed, done.open, done.opened), (many / 2, 0, 0));
        assert_eq!(rows(&b, "SELECT count(*) FROM packmule_conflicts"), ["0"]);
        carry(&mut b, &mut a);
        digests_equal(&[&a, &b]);
    }
}

/// A list in brief, a count and a digest need not know what could be done: no version is tried against the table's rules.
#[test]
fn conflicts_in_brief_are_the_same_but_for_what_can_be_done() {
    let world = World::new();
    let make = "CREATE TABLE t (k INTEGER PRIMARY KEY, v, n NOT NULL)";
    let mut a = world.board_with("a", make, &["t"]);
    let mut b = world.board_with("b", make, &["t"]);
    sql(&a, "INSERT INTO t VALUES (1, 1, 1), (2, 1, 1)");
    sql(&b, "INSERT INTO t VALUES (1, 2, 2), (2, 2, 2)");
    carry(&mut a, &mut b);
    let whole = b.conflicts().unwrap();
    assert!(whole.iter().all(|conflict| !conflict.ways.is_empty()));
    let mut brief = Vec::new();
    b.each_conflict_in_brief(&Selection::default(), &mut |conflict| {
        brief.push(conflict);
        Ok(())
    })
    .unwrap();
    assert!(brief.iter().all(|conflict| conflict.ways.is_empty()));
    brief.iter_mut().zip(&whole).for_each(|(brief, whole)| brief.ways.clone_from(&whole.ways));
    assert_eq!(brief, whole);
    let one = Selection { ids: vec![whole[1].id.clone()], ..Selection::default() };
    let mut found = 0;
    b.each_conflict_in_brief(&one, &mut |_| {
        found += 1;
        Ok(())
    })
    .unwrap();
    assert_eq!((found, whole.len()), (1, 2));
}
