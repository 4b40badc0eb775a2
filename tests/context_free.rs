//! Context-free writes: rows from before a table was tracked, and third writes to them. In whatever order they come, and
//! whoever compacted in between, all list the same versions, and none is lost.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod common;
use common::*;
use packmule::{ColumnMerge, Engine, InitOptions, Merge, Options, OwnedValue, Policy, TrackOptions};

const TABLE: &str = "CREATE TABLE t (k TEXT PRIMARY KEY, v, w DEFAULT 'w', n INTEGER DEFAULT 0)";
const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

/// What A, D and N write. A's writes are sealed one by one; D hears of them, and tracks its table then; N has heard of
/// nothing.
struct Writes {
    how: TrackOptions,
    of_a: &'static [&'static str],
    of_d: &'static str,
    of_n: &'static str,
}

impl Writes {
    fn plain(of_d: &'static str) -> Self {
        Self {
            how: TrackOptions::default(),
            of_a: &["INSERT INTO t (k, v) VALUES ('b', 'of a')"],
            of_d,
            of_n: "INSERT INTO t (k, v) VALUES ('b', 'of n')",
        }
    }

    fn merging(merge: Merge, policy: Policy, rule: Option<ColumnMerge>) -> TrackOptions {
        let columns = rule.map(|rule| ("n".into(), rule)).into_iter().collect();
        TrackOptions { merge, policy, columns, ..TrackOptions::default() }
    }
}

const OF_D: &str = "INSERT INTO t (k, v) VALUES ('b', 'of d')";
const AS_OF_A: &str = "INSERT INTO t (k, v) VALUES ('b', 'of a')";

/// The devices to which the three bundles come: one for each order, then two that compact what is A's before the rest
/// comes, without knowing of anybody else. `broken`: settled values count as seen by every write.
struct Meeting {
    world: World,
    writers: Vec<Engine>,
    others: Vec<Engine>,
    folders: Vec<Engine>,
    bytes: [Vec<u8>; 3],
}

impl Meeting {
    fn new(writes: &Writes, broken: bool) -> Self {
        let world = World::new();
        let tracked = |name: String| {
            let init = InitOptions { name: &name, base: false, fleet: Some(&world.fleet) };
            let options = Options { broken_verdict: broken, ..world.options() };
            let mut device = Engine::init_with(&world.path(&name), &init, options).unwrap();
            sql(&device, TABLE);
            device.track("t", &writes.how).unwrap();
            device
        };
        let (mut a, mut n) = (tracked("a".into()), tracked("n".into()));
        let others: Vec<Engine> = (0..6).map(|at| tracked(format!("other{at}"))).collect();
        let folders: Vec<Engine> = (0..2).map(|at| tracked(format!("folder{at}"))).collect();
        let mut d = world.board("d");
        sql(&d, &format!("{TABLE}; {}", writes.of_d));
        for write in writes.of_a {
            world.tick(10);
            sql(&a, write);
            a.seal().unwrap();
        }
        world.tick(10);
        sql(&n, writes.of_n);
        let bytes = [&mut a, &mut n].map(whole_bundle);
        world.tick(10);
        import(&mut d, &bytes[0]);
        d.track("t", &writes.how).unwrap();
        let [of_a, of_n] = bytes;
        let bytes = [of_a, whole_bundle(&mut d), of_n];
        Self { world, writers: vec![a, d, n], others, folders, bytes }
    }

    /// Brings the bundles to all, and lets all meet. Returns what the first one lists.
    fn meet(mut self) -> Vec<Option<String>> {
        for (device, order) in self.others.iter_mut().zip(ORDERS) {
            order.iter().for_each(|at| drop(import(device, &self.bytes[*at])));
        }
        digests_equal(&self.others.iter().collect::<Vec<_>>());
        for (device, order) in self.folders.iter_mut().zip(ORDERS) {
            import(device, &self.bytes[0]);
            assert_ne!(device.compact().unwrap().versions, 0);
            order.iter().for_each(|at| drop(import(device, &self.bytes[*at])));
        }
        let all = self.writers.iter_mut().chain(&mut self.others).chain(&mut self.folders);
        carry_all(&mut all.collect::<Vec<_>>());
        let all: Vec<&Engine> = self.writers.iter().chain(&self.others).chain(&self.folders).collect();
        for device in &all {
            assert!(device.verify().unwrap().problems.is_empty());
        }
        digests_equal(&all);
        let _ = &self.world;
        contents(all[0])
    }
}

/// What the versions of all open conflicts have in `v`, sorted; a delete has nothing.
fn contents(device: &Engine) -> Vec<Option<String>> {
    let all = device.conflicts().unwrap();
    let mut contents: Vec<_> = all
        .iter()
        .flat_map(|conflict| &conflict.versions)
        .map(|version| match version.values.iter().find(|(name, _)| name == "v") {
            Some((_, OwnedValue::Text(text))) => Some(String::from_utf8(text.clone()).unwrap()),
            _ => None,
        })
        .collect();
    contents.sort();
    contents
}

fn some(contents: &[&str]) -> Vec<Option<String>> {
    contents.iter().map(|content| Some((*content).to_owned())).collect()
}

#[test]
fn a_third_write_in_any_order() {
    let listed = Meeting::new(&Writes::plain(OF_D), false).meet();
    assert_eq!(listed, some(&["of a", "of d", "of n"]));
}

#[test]
fn equal_content_in_any_order() {
    let listed = Meeting::new(&Writes::plain(AS_OF_A), false).meet();
    assert_eq!(listed, some(&["of a", "of n"]));
}

/// The control.
#[test]
fn where_what_is_settled_counts_as_seen_a_version_is_lost() {
    let lost = std::panic::catch_unwind(|| Meeting::new(&Writes::plain(OF_D), true).meet());
    assert!(lost.is_err_and(|why| {
        why.downcast_ref::<String>().is_none_or(|why| why.contains("digest") || why.contains("left == right"))
    }));
}

#[test]
fn a_delete_that_was_heard_stays_beside_the_row() {
    let of_a = &["INSERT INTO t (k, v) VALUES ('b', 'of a')", "DELETE FROM t"];
    let listed = Meeting::new(&Writes { of_a, ..Writes::plain(OF_D) }, false).meet();
    assert!(listed.contains(&Some("of d".into())) && listed.contains(&Some("of n".into())), "{listed:?}");
}

#[test]
fn policies_and_merges_in_any_order() {
    let of_a = &[
        "INSERT INTO t (k, v, n) VALUES ('b', 'of a', 5)",
        "UPDATE t SET w = 'later', n = n + 3",
        "UPDATE t SET v = 'of a'",
    ];
    let of_n = "INSERT INTO t (k, v, n) VALUES ('b', 'of n', 6); UPDATE t SET n = n + 10";
    let merges = [(Merge::Row, Policy::Manual), (Merge::Cell, Policy::Manual), (Merge::Row, Policy::Lww)];
    for (merge, policy) in merges {
        for rule in [None, Some(ColumnMerge::Counter), Some(ColumnMerge::Max), Some(ColumnMerge::Lww)] {
            let equal = (merge == Merge::Row) == (rule == Some(ColumnMerge::Counter));
            let of_d = if equal { AS_OF_A } else { "INSERT INTO t VALUES ('b', 'of d', 'later', 8)" };
            println!("{merge:?} {policy:?} {rule:?} {of_d}");
            let how = Writes::merging(merge, policy, rule);
            let listed = Meeting::new(&Writes { how, of_a, of_d, of_n }, false).meet();
            assert_eq!(listed.is_empty(), policy == Policy::Lww, "{listed:?}");
        }
    }
}

/// Additions that the author of a context-free write had heard of count on top of its value, whoever folded them.
#[test]
fn counters_keep_every_addition() {
    let how = Writes::merging(Merge::Row, Policy::Manual, Some(ColumnMerge::Counter));
    let world = World::new();
    let mut devices = ["a", "b"].map(|name| {
        let mut device = world.board(name);
        sql(&device, TABLE);
        device.track("t", &how).unwrap();
        device
    });
    sql(&devices[0], "INSERT INTO t VALUES ('b', 'x', 'y', 5)");
    carry_all(&mut devices.each_mut());
    sql(&devices[1], "UPDATE t SET n = n + 3");
    carry_all(&mut devices.each_mut());
    let mut d = world.board("d");
    sql(&d, &format!("{TABLE}; INSERT INTO t VALUES ('b', 'x', 'y', 7)"));
    import(&mut d, &whole_bundle(&mut devices[1]));
    d.track("t", &how).unwrap();
    let [a, b] = &mut devices;
    carry_all(&mut [a, b, &mut d]);
    digests_equal(&[&devices[0], &devices[1], &d]);
    assert_eq!(rows(&d, "SELECT n FROM t"), ["10"]);
    assert!(d.conflicts().unwrap().is_empty());
}

/// What waits for a table is settled where it comes from: a late write that comes meanwhile, and own rows, stand beside it.
#[test]
fn what_waited_for_its_table_is_not_lost_to_who_had_not_seen_it() {
    for (own, expected) in [
        ("INSERT INTO t (k, v) VALUES ('c', 'mine')", ["of a", "of n"].as_slice()),
        (OF_D, &["of a", "of d", "of n"]),
        (AS_OF_A, &["of a", "of n"]),
    ] {
        let world = World::new();
        let how = TrackOptions::default();
        let mut all = ["a", "b", "n"].map(|name| world.board_with(name, TABLE, &[]));
        all.iter_mut().for_each(|device| drop(device.track("t", &how).unwrap()));
        let [mut a, mut b, mut n] = all;
        sql(&a, AS_OF_A);
        carry_all(&mut [&mut a, &mut b]);
        a.compact().unwrap();
        assert_eq!(rows(&a, "SELECT count(*) FROM _pm_head"), ["0"]);
        world.tick(10);
        sql(&n, "INSERT INTO t (k, v) VALUES ('b', 'of n')");
        let of_n = whole_bundle(&mut n);
        let mut d = world.board("d");
        sql(&d, &format!("{TABLE}; {own}"));
        carry(&mut a, &mut d);
        // A dies here; B has the version that A has folded.
        import(&mut d, &of_n);
        world.tick(10);
        d.track("t", &how).unwrap();
        carry_all(&mut [&mut b, &mut d, &mut n]);
        digests_equal(&[&b, &d, &n]);
        assert_eq!(contents(&b), some(expected), "{own}");
    }
}

/// By cell, one device has folded what the row was; its table is away while others write to the row, and its application
/// too. It had seen the row as it was: nothing of that stands beside what it wrote.
#[test]
fn what_was_settled_before_a_table_was_away_is_in_no_conflict() {
    let how = Writes::merging(Merge::Cell, Policy::Manual, Some(ColumnMerge::Counter));
    let world = World::new();
    let [mut a, mut b, mut c] = ["a", "b", "c"].map(|name| {
        let mut device = world.board_with(name, TABLE, &[]);
        device.track("t", &how).unwrap();
        device
    });
    sql(
        &c,
        "INSERT INTO t VALUES ('b', 'first', 'first', 5), ('gone', 'first', 'first', 5), ('only', 'first', 'first', 5)",
    );
    carry_all(&mut [&mut a, &mut b, &mut c]);
    assert_ne!(a.compact().unwrap().versions, 0);
    sql(&a, "ALTER TABLE t RENAME TO away");
    a.seal().unwrap();
    world.tick(10);
    sql(&b, "UPDATE t SET w = 'of b', n = n + 10 WHERE k <> 'gone'; DELETE FROM t WHERE k = 'gone'");
    carry_all(&mut [&mut a, &mut b, &mut c]);
    world.tick(10);
    sql(&a, "UPDATE away SET v = 'of a', n = n + 1 WHERE k = 'b'; DELETE FROM away WHERE k = 'gone'");
    sql(&a, "ALTER TABLE away RENAME TO t");
    carry_all(&mut [&mut a, &mut b, &mut c]);
    digests_equal(&[&a, &b, &c]);
    assert_eq!(
        rows(&c, "SELECT * FROM t ORDER BY k"),
        ["\"b\"|\"of a\"|\"of b\"|16", "\"only\"|\"first\"|\"of b\"|15"]
    );
    assert!(c.conflicts().unwrap().is_empty(), "{:?}", c.conflicts().unwrap());
}

/// A state comes while an application has renamed the table that it has rows of.
#[test]
fn a_state_is_taken_in_while_its_table_is_away() {
    let world = World::new();
    let [mut a, mut b] = ["a", "b"].map(|name| world.board_with(name, TABLE, &["t"]));
    sql(&b, "INSERT INTO t (k, v) VALUES ('b', 'of b'), ('c', 'of b')");
    carry_all(&mut [&mut a, &mut b]);
    sql(&a, "ALTER TABLE t RENAME TO away");
    a.seal().unwrap();
    sql(&b, "UPDATE t SET v = 'later' WHERE k = 'b'");
    // A newcomer that knows B alone folds what A lacks.
    let mut d = world.board_with("d", TABLE, &["t"]);
    for _ in 0..2 {
        carry(&mut b, &mut d);
        carry(&mut d, &mut b);
    }
    b.retire(a.identity().id, None).unwrap();
    assert_ne!(b.compact().unwrap().frames, 0);
    carry(&mut b, &mut a);
    sql(&a, "UPDATE away SET v = 'of a' WHERE k = 'c'; ALTER TABLE away RENAME TO t");
    carry_all(&mut [&mut a, &mut b, &mut d]);
    digests_equal(&[&a, &b, &d]);
    assert_eq!(rows(&d, "SELECT v FROM t WHERE k = 'b'"), ["\"later\""]);
    // Nobody can tell any more that A's application had changed what the state says.
    assert_eq!(contents(&d), some(&["of a", "of b"]));
}
