//! What `verify` finds wrong in a database.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests are tests.

mod common;
use common::*;

/// A version that is remembered, and stands elsewhere in the log or not at all, is named; else all is well.
#[test]
fn a_version_that_is_not_in_the_log_is_named() {
    let world = World::new();
    let schema =
        "CREATE TABLE t (k TEXT PRIMARY KEY, v TEXT); CREATE TABLE u (k INTEGER PRIMARY KEY, v TEXT)";
    let mut a = world.board_with("a", schema, &["t", "u"]);
    sql(&a, "INSERT INTO t VALUES (1, 'one'), (2, 'two'), (3, 'three'); INSERT INTO u SELECT * FROM t");
    a.seal().unwrap();
    sql(&a, "UPDATE t SET v = 'zwei' WHERE k = 2; UPDATE u SET v = 'zwei' WHERE k = 2");
    a.seal().unwrap();
    assert_eq!(a.verify().unwrap().problems, Vec::<String>::new());
    let one = "(tid, key, dev, seq) = (SELECT tid, key, dev, seq FROM _pm_head WHERE dev <> 0 LIMIT 1)";
    for (wrong, right) in [
        (
            format!("_pm_head SET place = place + 1 WHERE {one}"),
            format!("_pm_head SET place = place - 1 WHERE {one}"),
        ),
        (
            format!("_pm_head SET seq = seq + 100 WHERE {one}"),
            "_pm_head SET seq = seq - 100 WHERE seq > 100".to_owned(),
        ),
        (
            "_pm_stretch SET first = first - 1 WHERE first = 1".into(),
            "_pm_stretch SET first = 1 WHERE first = 0".into(),
        ),
        (
            "_pm_stretch SET seq = seq + 1 WHERE first = 1".into(),
            "_pm_stretch SET seq = seq - 1 WHERE first = 1".into(),
        ),
    ] {
        sql(&a, &format!("UPDATE {wrong}"));
        let problems = a.verify().unwrap().problems;
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].contains("is not where the log should have it"), "{problems:?}");
        sql(&a, &format!("UPDATE {right}"));
    }
    assert_eq!(a.verify().unwrap().problems, Vec::<String>::new());
}
