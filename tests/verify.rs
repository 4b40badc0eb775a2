//! What `verify` finds wrong in a database.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests are tests.

mod common;
use common::*;

/// A version that is remembered, and stands elsewhere in the log or not at all, is named; else all is well.
#[test]
fn a_version_that_is_not_in_the_log_is_named() {
    let world = World::new();
    let mut a = world.board_with("a", "CREATE TABLE t (k INTEGER PRIMARY KEY, v TEXT)", &["t"]);
    sql(&a, "INSERT INTO t VALUES (1, 'one'), (2, 'two'), (3, 'three')");
    a.seal().unwrap();
    sql(&a, "UPDATE t SET v = 'zwei' WHERE k = 2");
    a.seal().unwrap();
    assert_eq!(a.verify().unwrap().problems, Vec::<String>::new());
    let one = "(tid, key, dev, seq) = (SELECT tid, key, dev, seq FROM _pm_head WHERE dev <> 0 LIMIT 1)";
    for (wrong, right) in [
        (format!("place = place + 1 WHERE {one}"), format!("place = place - 1 WHERE {one}")),
        (format!("seq = seq + 100 WHERE {one}"), "seq = seq - 100 WHERE seq > 100".to_owned()),
    ] {
        sql(&a, &format!("UPDATE _pm_head SET {wrong}"));
        let problems = a.verify().unwrap().problems;
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].contains("is not where the log should have it"), "{problems:?}");
        sql(&a, &format!("UPDATE _pm_head SET {right}"));
    }
    assert_eq!(a.verify().unwrap().problems, Vec::<String>::new());
}
