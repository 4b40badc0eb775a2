//! Promise 3: the same frames make the same content, in whatever order, grouping and number they come.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests are tests.

mod bundles;
mod common;
use common::*;
use packmule::{Conflict, Engine};

/// Three devices share a start. What one writes is sealed by itself; between writes, one may see
/// what another has.
enum Step {
    Write(usize, &'static str),
    Carry(usize, usize),
}
use Step::{Carry, Write};

struct Outcome {
    digest: String,
    conflicts: Vec<Conflict>,
    rows: Vec<String>,
}

fn outcome(engine: &Engine, tables: &[&str]) -> Outcome {
    let mut all = Vec::new();
    for table in tables {
        // Columns by name: devices may have added them in different orders.
        let columns = rows(engine, &format!("SELECT name FROM pragma_table_info('{table}') ORDER BY name"));
        let mut found = rows(engine, &format!("SELECT {} FROM {table}", columns.join(", ")));
        found.sort();
        all.push(format!("== {table}"));
        all.append(&mut found);
    }
    Outcome { digest: engine.digest(false).unwrap(), conflicts: engine.conflicts().unwrap(), rows: all }
}

fn permutations(n: usize) -> Vec<Vec<usize>> {
    if n == 0 {
        return vec![vec![]];
    }
    let mut all = Vec::new();
    for smaller in permutations(n - 1) {
        for at in 0..=smaller.len() {
            let mut one = smaller.clone();
            one.insert(at, n - 1);
            all.push(one);
        }
    }
    all
}

/// Lets fresh devices take in what was written in every order; all must agree, with each other and
/// with the three that wrote. Returns what they agree on.
fn in_every_order(schema: &str, tables: &[&str], steps: &[Step]) -> Outcome {
    let world = World::new();
    let mut writers = vec![world.board_with("a", schema, tables), world.board("b"), world.board("c")];
    // Columns that the others add come to the first one too, whose application made the tables.
    for table in tables {
        writers[0].track(table, &follow()).unwrap();
    }
    let start = whole_bundle(&mut writers[0]);
    for writer in &mut writers[1..] {
        import(writer, &start);
    }
    for step in steps {
        world.tick(1000);
        match step {
            Write(who, text) => {
                sql(&writers[*who], text);
                writers[*who].seal().unwrap();
            }
            Carry(from, to) => {
                let bytes = whole_bundle(&mut writers[*from]);
                import(&mut writers[*to], &bytes);
            }
        }
    }
    // Each group of frames in a bundle of its own.
    let mut groups: Vec<bundles::Group> = Vec::new();
    let known: Vec<_> = bundles::split(&start).iter().map(|g| (g.author, g.first)).collect();
    for writer in &mut writers {
        for group in bundles::split(&whole_bundle(writer)) {
            let name = (group.author, group.first);
            if !known.contains(&name) && groups.iter().all(|g| (g.author, g.first) != name) {
                groups.push(group);
            }
        }
    }
    let n = steps.iter().filter(|s| matches!(s, Write(..))).count();
    assert_eq!(groups.len(), n, "one group a write");
    let mut expected: Option<Outcome> = None;
    for (round, order) in permutations(n).into_iter().enumerate() {
        let mut replica = world.board(&format!("r{round}"));
        import(&mut replica, &start);
        for at in &order {
            import(&mut replica, &groups[*at].bytes);
            if round % 3 == 0 {
                import(&mut replica, &groups[order[0]].bytes);
            }
        }
        assert_eq!(replica.status().unwrap().waits, [], "{order:?}");
        let found = outcome(&replica, tables);
        if let Some(expected) = &expected {
            same(&found, expected, &format!("{order:?}"));
        }
        if round % 10 == 0 {
            assert_eq!(replica.verify().unwrap().problems, [""; 0], "{order:?}");
        }
        expected = Some(found);
    }
    let expected = expected.unwrap();
    for writer in &mut writers {
        for group in &groups {
            import(writer, &group.bytes);
        }
        let (mut found, name) = (outcome(writer, tables), writer.identity().name.clone());
        // A writer that follows a column says so in a frame of its own, and from then on the column counts.
        let is_known = |name| known.contains(&name) || groups.iter().any(|g| (g.author, g.first) == name);
        if bundles::split(&whole_bundle(writer)).iter().any(|group| !is_known((group.author, group.first))) {
            found.digest.clone_from(&expected.digest);
        }
        same(&found, &expected, &name);
    }
    carry_all(&mut writers.iter_mut().collect::<Vec<_>>());
    digests_equal(&writers.iter().collect::<Vec<_>>());
    expected
}

fn same(found: &Outcome, expected: &Outcome, what: &str) {
    assert_eq!(found.rows, expected.rows, "{what}");
    assert_eq!(found.conflicts, expected.conflicts, "{what}");
    assert_eq!(found.digest, expected.digest, "{what}");
}

fn kinds(outcome: &Outcome) -> Vec<&'static str> {
    let mut kinds: Vec<_> = outcome.conflicts.iter().map(|c| c.kind.word()).collect();
    kinds.sort_unstable();
    kinds
}

#[test]
fn concurrent_writes_to_one_row() {
    let found = in_every_order(
        "CREATE TABLE t (k TEXT PRIMARY KEY, v); INSERT INTO t VALUES ('x', 0), ('y', 0)",
        &["t"],
        &[
            Write(0, "UPDATE t SET v = 'a' WHERE k = 'x'"),
            Write(1, "UPDATE t SET v = 'b' WHERE k = 'x'"),
            Carry(1, 0),
            Write(0, "UPDATE t SET v = 'a2' WHERE k = 'x'"),
            Write(2, "DELETE FROM t WHERE k = 'x'; UPDATE t SET v = 'c' WHERE k = 'y'"),
        ],
    );
    assert_eq!(kinds(&found), ["update/delete"]);
    assert_eq!(found.rows, ["== t", "\"x\"|\"a2\"", "\"y\"|\"c\""]);
    assert_eq!(found.conflicts[0].versions.len(), 2, "A had seen B's");
}

#[test]
fn three_devices_claim_one_unique_value() {
    let found = in_every_order(
        "CREATE TABLE t (k TEXT PRIMARY KEY, u INT UNIQUE, v)",
        &["t"],
        &[
            Write(0, "INSERT INTO t VALUES ('a', 1, 'a'), ('a2', 2, 'a')"),
            Write(1, "INSERT INTO t VALUES ('b', 1, 'b')"),
            Write(2, "INSERT INTO t VALUES ('c', 1, 'c'), ('c2', 2, 'c')"),
            Write(0, "UPDATE t SET u = 3 WHERE k = 'a'"),
        ],
    );
    assert!(kinds(&found).iter().all(|k| *k == "unique"), "{:?}", found.conflicts);
    // Nothing is lost: every row is shown or listed.
    let shown = found.rows.len() - 1;
    assert_eq!(shown + found.conflicts.len(), 5);
}

#[test]
fn a_chain_of_claims_is_freed_from_its_head() {
    let found = in_every_order(
        "CREATE TABLE t (k TEXT PRIMARY KEY, u INT UNIQUE, w TEXT UNIQUE)",
        &["t"],
        &[
            Write(0, "INSERT INTO t VALUES ('a', 1, 'p')"),
            Write(1, "INSERT INTO t VALUES ('b', 1, 'q')"),
            Write(2, "INSERT INTO t VALUES ('c', 2, 'q')"),
            Write(2, "INSERT INTO t VALUES ('d', 3, 'p')"),
            Write(0, "DELETE FROM t WHERE k = 'a'"),
        ],
    );
    assert!(found.rows.iter().any(|r| r.starts_with("\"b\"")), "{:?}", found.rows);
    assert_eq!(found.rows.len() - 1 + found.conflicts.len(), 3);
}

#[test]
fn unique_values_swapped_within_a_group_while_others_claim_them() {
    let found = in_every_order(
        "CREATE TABLE t (k TEXT PRIMARY KEY, u INT UNIQUE); INSERT INTO t VALUES ('x', 1), ('y', 2), ('z', 3)",
        &["t"],
        &[
            Write(
                0,
                "BEGIN; UPDATE t SET u = -u; UPDATE t SET u = 2 WHERE k = 'x'; UPDATE t SET u = 1 WHERE k = 'y'; UPDATE t SET u = 3 WHERE k = 'z'; COMMIT",
            ),
            Write(1, "INSERT OR REPLACE INTO t VALUES ('n', 1)"),
            Write(
                2,
                "BEGIN; UPDATE t SET u = -u; UPDATE t SET u = 3 WHERE k = 'y'; UPDATE t SET u = 2 WHERE k = 'z'; UPDATE t SET u = 1 WHERE k = 'x'; COMMIT",
            ),
            Carry(0, 1),
            Write(1, "UPDATE t SET u = 50 WHERE k = 'z'"),
        ],
    );
    assert!(!found.conflicts.is_empty());
}

#[test]
fn references_that_lead_nowhere() {
    let found = in_every_order(
        "CREATE TABLE station (id TEXT PRIMARY KEY, name);
         CREATE TABLE sensor (id TEXT PRIMARY KEY, station TEXT REFERENCES station (id), v);
         INSERT INTO station VALUES ('s', 1), ('t', 2); INSERT INTO sensor VALUES ('p', 's', 0)",
        &["station", "sensor"],
        &[
            Write(0, "DELETE FROM sensor; DELETE FROM station WHERE id = 's'"),
            Write(1, "INSERT INTO sensor VALUES ('q', 's', 1)"),
            Write(2, "INSERT INTO sensor VALUES ('r', 't', 2); UPDATE sensor SET v = 9 WHERE id = 'p'"),
            Write(2, "PRAGMA foreign_keys = OFF; INSERT INTO sensor VALUES ('w', 'none', 2)"),
        ],
    );
    assert_eq!(kinds(&found).iter().filter(|k| **k == "foreign-key").count(), 3, "{:?}", found.conflicts);
    assert_eq!(kinds(&found).iter().filter(|k| **k == "update/delete").count(), 1);
}

#[test]
fn keys_changed_and_rows_replaced() {
    in_every_order(
        "CREATE TABLE t (a TEXT COLLATE NOCASE, b, u UNIQUE, PRIMARY KEY (a, b)) WITHOUT ROWID;
         INSERT INTO t VALUES ('x', 1, 10), ('y', 1, 20)",
        &["t"],
        &[
            Write(0, "UPDATE t SET a = 'X', b = 1.0 WHERE a = 'x'"),
            Write(1, "UPDATE t SET a = 'z' WHERE a = 'x'; UPDATE OR REPLACE t SET u = 10 WHERE a = 'y'"),
            Write(2, "INSERT OR REPLACE INTO t VALUES ('n', 1, 10)"),
            Carry(2, 1),
            Write(1, "UPDATE t SET b = 2"),
        ],
    );
}

#[test]
fn a_table_and_a_column_that_come_later() {
    let found = in_every_order(
        "CREATE TABLE t (k TEXT PRIMARY KEY, v); INSERT INTO t VALUES ('x', 0)",
        &["t"],
        &[
            Write(0, "ALTER TABLE t ADD COLUMN unit TEXT DEFAULT 'C'; UPDATE t SET unit = 'F'"),
            Write(1, "ALTER TABLE t ADD COLUMN note; INSERT INTO t VALUES ('y', 1, 'n')"),
            Write(2, "INSERT INTO t VALUES ('z', 2)"),
            Write(0, "UPDATE t SET v = 5"),
        ],
    );
    assert_eq!(found.rows.len(), 4);
}

#[test]
fn resolutions_against_each_other() {
    let found = in_every_order(
        "CREATE TABLE t (k TEXT PRIMARY KEY, v); INSERT INTO t VALUES ('x', 0)",
        &["t"],
        &[
            Write(0, "UPDATE t SET v = 'a'"),
            Write(1, "UPDATE t SET v = 'b'"),
            Carry(0, 2),
            Carry(1, 2),
            Write(2, "UPDATE t SET v = 'settled'"),
            Carry(0, 1),
            Write(1, "UPDATE t SET v = 'settled otherwise'"),
        ],
    );
    assert_eq!(kinds(&found), ["update/update"]);
    assert_eq!(found.conflicts[0].versions.len(), 2);
}
