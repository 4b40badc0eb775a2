//! Many conflicts in one frame: what they cost grows with their number alone.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::time::Instant;

use common::{World, bundle, carry, digests_equal, import, sql};

/// Two devices write the same keys at once; each frame has thousands of them. Prints the seconds for each number.
#[test]
fn thousands_of_conflicts_in_one_frame() {
    for many in [1_000, 4_000] {
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
        assert_eq!(b.conflicts().unwrap().len() as u64, many);
    }
}
