//! The stack that a session's thread needs: `serve` and `run` give each 1 MiB.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::thread::Builder;

use common::{World, sql};
use packmule::{Engine, Recipient};

/// Half of it.
const STACK: usize = 512 << 10;

/// Frames whose rows say large values are taken apart one within another.
#[test]
fn frames_of_large_values_are_sealed_and_taken_in_on_a_small_stack() {
    let world = World::new();
    let tables = "CREATE TABLE t (id INTEGER PRIMARY KEY, v BLOB)";
    let [a, b] = ["a", "b"].map(|name| world.board_with(name, tables, &["t"]).path().to_owned());
    let work = || {
        let mut a = Engine::open(&a).unwrap();
        sql(
            &a,
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 64)
             INSERT INTO t SELECT i, randomblob(iif(i % 8 = 0, 200000, 4096)) FROM n",
        );
        let mut bundle = Vec::new();
        a.export(&mut bundle, Recipient::Anyone).unwrap();
        let mut b = Engine::open(&b).unwrap();
        b.import(&mut std::io::Cursor::new(bundle), &mut |_| ()).unwrap();
        assert_eq!(common::rows(&b, "SELECT count(*) FROM t"), ["64"]);
    };
    std::thread::scope(|scope| {
        Builder::new().stack_size(STACK).spawn_scoped(scope, work).unwrap().join().unwrap();
    });
}
