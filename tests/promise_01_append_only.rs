//! Promise 1: a sealed frame is never changed; resolving a conflict adds a frame.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests are tests.

mod common;
use common::*;
use packmule::{Engine, OwnedValue, Resolution};

/// Every frame, group and checkpoint of the log; whether a group is applied is not a part of it.
fn log(engine: &Engine) -> Vec<String> {
    let mut all = rows(
        engine,
        "SELECT d.id, f.stream, f.seq, f.body FROM _pm_frame f JOIN _pm_device d ON d.n = f.dev ORDER BY 1, 2, 3",
    );
    all.extend(rows(
        engine,
        "SELECT d.id, stream, last, first, lamport, wall, pair, checkpoint, chain FROM _pm_group g
         JOIN _pm_device d ON d.n = g.dev ORDER BY 1, 2, 3",
    ));
    all
}

fn grown(engine: &Engine, before: &mut Vec<String>, what: &str) -> usize {
    let now = log(engine);
    for line in before.iter() {
        assert!(now.contains(line), "{what}: changed or gone: {line}");
    }
    let grown = now.len() - before.len();
    *before = now;
    grown
}

#[test]
fn no_frame_changes_whatever_happens_afterwards() {
    let world = World::new();
    let mut a = world.board_with(
        "a",
        "CREATE TABLE t (k TEXT PRIMARY KEY, u UNIQUE, v); INSERT INTO t VALUES ('x', 1, 'old')",
        &["t"],
    );
    let mut b = world.board("b");
    carry(&mut a, &mut b);
    let (mut log_a, mut log_b) = (log(&a), log(&b));
    assert!(!log_a.is_empty());
    assert_eq!(log_a, log_b, "B has A's frames as they are");

    sql(&a, "UPDATE t SET v = 'a'; INSERT INTO t VALUES ('of a', 7, zeroblob(100000))");
    sql(&b, "UPDATE t SET v = 'b'; INSERT INTO t VALUES ('of b', 7, 2)");
    a.seal().unwrap();
    world.tick(5);
    b.seal().unwrap();
    assert!(grown(&a, &mut log_a, "seal") >= 2);
    assert!(grown(&b, &mut log_b, "seal") >= 2);
    carry_all(&mut [&mut a, &mut b]);
    grown(&a, &mut log_a, "import");
    grown(&b, &mut log_b, "import");
    assert_eq!(a.conflicts().unwrap().len(), 2, "the row, and the UNIQUE value");

    let of_row =
        a.conflicts().unwrap().into_iter().find(|c| c.key[0].1 == OwnedValue::Text(b"x".to_vec())).unwrap();
    a.resolve(&of_row.id, &Resolution::Set(vec![("v".into(), OwnedValue::Text(b"both".to_vec()))])).unwrap();
    assert_eq!(grown(&a, &mut log_a, "resolve"), 2, "a frame and its checkpoint");
    let unique = a.conflicts().unwrap()[0].id.clone();
    b.resolve(&unique, &Resolution::Delete).unwrap();
    grown(&b, &mut log_b, "resolve at B");
    carry_all(&mut [&mut a, &mut b]);
    let again = whole_bundle(&mut a);
    import(&mut b, &again);
    grown(&a, &mut log_a, "the end");
    grown(&b, &mut log_b, "the end");
    assert_eq!(log_a, log_b);
    sql(&a, "ALTER TABLE t ADD COLUMN w; DELETE FROM t");
    carry_all(&mut [&mut a, &mut b]);
    a.untrack("t").unwrap();
    grown(&a, &mut log_a, "schema, deletes, untrack");
    grown(&b, &mut log_b, "schema, deletes");
}

/// What is refused, or fails in the middle, adds nothing.
#[test]
fn a_refused_import_adds_no_frame() {
    let world = World::new();
    let mut a = world.board_with("a", "CREATE TABLE t (k TEXT PRIMARY KEY, v)", &["t"]);
    let mut b = world.board("b");
    carry(&mut a, &mut b);
    sql(&a, "INSERT INTO t VALUES ('x', 1)");
    let mut bytes = bundle(&mut a, &b);
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let before = everything(b.path());
    assert!(try_import(&mut b, &bytes).is_err());
    assert_eq!(everything(b.path()), before);
}
