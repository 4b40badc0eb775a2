//! Rows that a constraint keeps out: what is done about them, and what brings them back.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod common;
use common::*;
use packmule::{ConflictKind, Engine, Merge, OwnedValue, Resolution, TrackOptions};

fn text(value: &str) -> OwnedValue {
    OwnedValue::Text(value.into())
}

/// Three devices with tables that the first one makes.
fn three(schema: &str, tables: &[&str], options: &TrackOptions) -> (World, [Engine; 3]) {
    let world = World::new();
    let mut a = world.board("a");
    sql(&a, schema);
    tables.iter().for_each(|table| drop(a.track(table, options).unwrap()));
    let mut b = world.board("b");
    let mut c = world.board("c");
    carry_all(&mut [&mut a, &mut b, &mut c]);
    (world, [a, b, c])
}

fn all(devices: &mut [Engine; 3]) {
    let [a, b, c] = devices;
    carry_all(&mut [a, b, c]);
    digests_equal(&[a, b, c]);
    assert_eq!(a.conflicts().unwrap(), b.conflicts().unwrap());
    assert_eq!(a.conflicts().unwrap(), c.conflicts().unwrap());
}

const NAMED: &str = "CREATE TABLE t (k TEXT PRIMARY KEY, u TEXT UNIQUE, v)";

/// `a` and `b` claim one value; that of `b` is quarantined.
fn clash(merge: Merge) -> (World, [Engine; 3]) {
    let (world, mut d) = three(NAMED, &["t"], &TrackOptions { merge, ..TrackOptions::default() });
    sql(&d[0], "INSERT INTO t VALUES ('a', 'n', 1)");
    d[0].seal().unwrap();
    world.tick(1000);
    sql(&d[1], "INSERT INTO t VALUES ('b', 'n', 2)");
    all(&mut d);
    let conflicts = d[2].conflicts().unwrap();
    assert_eq!(conflicts[0].kind, ConflictKind::Unique(vec!["u".into()]));
    assert_eq!(rows(&d[1], "SELECT k FROM t"), ["\"a\""]);
    let kept_out = &conflicts[0].versions[0];
    assert_eq!(
        kept_out.values,
        [("k".into(), text("b")), ("u".into(), text("n")), ("v".into(), OwnedValue::Int(2))]
    );
    (world, d)
}

#[test]
fn a_quarantined_row_is_resolved_in_every_way_by_any_device() {
    for merge in [Merge::Row, Merge::Cell] {
        for who in 0..3 {
            for way in 0..5 {
                let (_world, mut d) = clash(merge);
                let [a, b] = [d[0].identity().id, d[1].identity().id];
                let (resolution, expected) = match way {
                    0 => (
                        Resolution::Set(vec![("u".into(), text("m"))]),
                        vec!["\"a\"|\"n\"|1", "\"b\"|\"m\"|2"],
                    ),
                    1 => (
                        Resolution::Set(vec![
                            ("u".into(), OwnedValue::Null),
                            ("v".into(), OwnedValue::Int(9)),
                        ]),
                        vec!["\"a\"|\"n\"|1", "\"b\"|NULL|9"],
                    ),
                    2 => (Resolution::Take(b), vec!["\"b\"|\"n\"|2"]),
                    3 => (Resolution::Take(a), vec!["\"a\"|\"n\"|1"]),
                    _ => (Resolution::Delete, vec!["\"a\"|\"n\"|1"]),
                };
                let id = d[who].conflicts().unwrap()[0].id.clone();
                d[who].resolve(&id, &resolution).unwrap();
                all(&mut d);
                assert_eq!(
                    rows(&d[0], "SELECT * FROM t ORDER BY k"),
                    expected,
                    "{merge:?} {who} {resolution:?}"
                );
                assert!(d[0].conflicts().unwrap().is_empty());
            }
            // What would clash again is refused, and nothing is changed.
            let (_world, mut d) = clash(merge);
            let id = d[who].conflicts().unwrap()[0].id.clone();
            let again = d[who].resolve(&id, &Resolution::Set(vec![("u".into(), text("n"))]));
            assert_eq!(again.unwrap_err().hint(), Some(packmule::Hint::Resolve(&[packmule::Way::Set])));
            assert_eq!(d[who].conflicts().unwrap()[0].id, id);
        }
    }
}

#[test]
fn a_quarantined_row_comes_back_when_its_value_is_free() {
    for free in [
        "DELETE FROM t WHERE k = 'a'",
        "UPDATE t SET u = 'other' WHERE k = 'a'",
        "UPDATE t SET u = NULL WHERE k = 'a'",
        "UPDATE t SET k = 'z', u = 'z' WHERE k = 'a'",
    ] {
        for who in 0..3 {
            let (_world, mut d) = clash(Merge::Row);
            // It may be changed meanwhile, and compacted: it is all there.
            for device in &mut d {
                device.compact().unwrap();
            }
            all(&mut d);
            sql(&d[who], free);
            all(&mut d);
            assert_eq!(rows(&d[0], "SELECT u, v FROM t WHERE k = 'b'"), ["\"n\"|2"], "{free} by {who}");
            assert!(d[0].conflicts().unwrap().is_empty());
        }
    }
}

#[test]
fn a_queue_for_one_value_moves_up_one_by_one() {
    let (world, mut d) = three(NAMED, &["t"], &TrackOptions::default());
    for round in 0..2 {
        for device in &mut d {
            let name = device.identity().name.clone();
            sql(device, &format!("INSERT INTO t VALUES ('{name}{round}', 'n{round}', 0)"));
            device.seal().unwrap();
            world.tick(1000);
        }
    }
    all(&mut d);
    for left in (0..=2usize).rev() {
        assert_eq!(rows(&d[0], "SELECT count(*) FROM t"), ["2"]);
        assert_eq!(d[0].conflicts().unwrap().len(), 2 * left);
        if left > 0 {
            sql(&d[left], "DELETE FROM t");
            all(&mut d);
        }
    }
}

#[test]
fn several_unique_indexes_at_once_and_nulls() {
    let (_world, mut d) = three(
        "CREATE TABLE t (k TEXT PRIMARY KEY, u UNIQUE, w, x, UNIQUE (w, x)); CREATE UNIQUE INDEX tx ON t (x, u)",
        &["t"],
        &TrackOptions::default(),
    );
    // NULLs are never the same.
    sql(&d[0], "INSERT INTO t VALUES ('a1', NULL, NULL, NULL), ('a2', NULL, 1, NULL), ('a3', 1, 1, 1)");
    d[0].seal().unwrap();
    sql(&d[1], "INSERT INTO t VALUES ('b1', NULL, NULL, NULL), ('b2', NULL, 1, NULL), ('b4', 2, 1, 1)");
    sql(&d[2], "INSERT INTO t VALUES ('c3', 1, 2, 2), ('c4', 2, 3, 3)");
    all(&mut d);
    let shown =
        |e: &Engine| rows(e, "SELECT group_concat(k) FROM (SELECT k FROM t WHERE u IS NOT NULL ORDER BY k)");
    assert_eq!(rows(&d[0], "SELECT count(*) FROM t WHERE u IS NULL"), ["4"]);
    assert_eq!(
        shown(&d[0]),
        ["\"a3,c4\""],
        "of two that clash with the same row neither is in the other's way"
    );
    let kinds: Vec<_> = d[0].conflicts().unwrap().into_iter().map(|c| c.kind).collect();
    let unique = |columns: &[&str]| ConflictKind::Unique(columns.iter().map(|c| c.to_string()).collect());
    assert_eq!(kinds, [unique(&["u"]), unique(&["u"])]);
    sql(&d[1], "DELETE FROM t WHERE u IS NOT NULL");
    all(&mut d);
    assert_eq!(shown(&d[0]), ["\"b4,c3\""], "both come back");
    assert!(d[0].conflicts().unwrap().is_empty());
}

/// Indexes that are partial or over expressions are no part of the definition: where they are on
/// one device alone, they keep rows out there alone, and that is said.
#[test]
fn an_index_of_one_device_keeps_rows_out_there() {
    for (index, value) in [
        ("CREATE UNIQUE INDEX own ON t (lower(v))", "'X'"),
        ("CREATE UNIQUE INDEX own ON t (v) WHERE u = 'p'", "'x'"),
        ("CREATE UNIQUE INDEX own ON t (v, lower(u)) WHERE k < 'z'", "'x'"),
    ] {
        let (_world, mut d) = three(NAMED.replace(" UNIQUE", "").as_str(), &["t"], &TrackOptions::default());
        sql(&d[1], index);
        sql(&d[1], "INSERT INTO t VALUES ('b', 'p', 'x')");
        sql(&d[0], &format!("INSERT INTO t VALUES ('a', 'p', {value}), ('a2', 'q', 'y')"));
        let [a, b, c] = &mut d;
        carry_all(&mut [a, b, c]);
        digests_equal(&[a, c]);
        assert_eq!(rows(a, "SELECT k FROM t ORDER BY k"), ["\"a\"", "\"a2\"", "\"b\""], "{index}");
        let conflicts = b.conflicts().unwrap();
        assert_eq!(conflicts.len(), 1, "{index}");
        let ConflictKind::Check(reason) = &conflicts[0].kind else { panic!("{conflicts:?}") };
        assert!(reason.contains("UNIQUE"), "{reason}");
        // Freed, by the one that has it or by taking the index away.
        sql(b, "UPDATE t SET v = 'free' WHERE k = 'b'; UPDATE t SET v = 'free' WHERE k = 'a'");
        all(&mut d);
        assert!(d[1].conflicts().unwrap().is_empty());
    }
}

#[test]
fn one_bad_row_never_holds_up_the_others() {
    let world = World::new();
    let mut a = world.board("a");
    sql(
        &a,
        "CREATE TABLE p (k TEXT PRIMARY KEY);
         CREATE TABLE t (k TEXT PRIMARY KEY, u, v, p TEXT REFERENCES p)",
    );
    let mut b = world.board("b");
    sql(
        &b,
        "CREATE TABLE p (k TEXT PRIMARY KEY);
         CREATE TABLE t (k TEXT PRIMARY KEY, u NOT NULL CHECK (u < 100), v CHECK (v <> 'bad'), p TEXT REFERENCES p);
         CREATE UNIQUE INDEX own ON t (abs(u))",
    );
    for device in [&mut a, &mut b] {
        device.track_all(&["p", "t"], &TrackOptions::default()).unwrap();
    }
    sql(
        &a,
        "PRAGMA foreign_keys = OFF; INSERT INTO t VALUES ('1', 1, 1, NULL), ('2', NULL, 1, NULL), ('3', 2, 'bad', NULL), ('4', 500, 1, NULL),
           ('5', -1, 1, NULL), ('6', 6, 1, 'nowhere'), ('7', 7, 7, NULL); INSERT INTO p VALUES ('here')",
    );
    let report = carry(&mut a, &mut b);
    assert_eq!((report.ops, report.conflicts_opened, report.waits.len()), (8, 5, 0));
    assert_eq!(rows(&b, "SELECT k FROM t ORDER BY k"), ["\"1\"", "\"6\"", "\"7\""]);
    assert_eq!(rows(&b, "SELECT k FROM p"), ["\"here\""]);
    let kinds: Vec<_> = b.conflicts().unwrap().iter().map(|c| c.kind.word()).collect();
    assert_eq!(kinds, ["check", "check", "check", "check", "foreign-key"]);
    // What comes later is not held up either, and each is closed by itself.
    sql(
        &a,
        "UPDATE t SET u = 22 WHERE k = '2'; INSERT INTO p VALUES ('nowhere'); UPDATE t SET v = 8 WHERE k = '7'",
    );
    carry(&mut a, &mut b);
    assert_eq!(b.conflicts().unwrap().len(), 3);
    for (key, set) in
        [("3", ("v", text("good"))), ("4", ("u", OwnedValue::Int(50))), ("5", ("u", OwnedValue::Int(5)))]
    {
        let open = b.conflicts().unwrap();
        let id = &open.iter().find(|c| c.key[0].1 == text(key)).unwrap().id;
        b.resolve(id, &Resolution::Set(vec![(set.0.into(), set.1)])).unwrap();
    }
    carry_all(&mut [&mut a, &mut b]);
    digests_equal(&[&a, &b]);
    assert!(b.conflicts().unwrap().is_empty() && a.conflicts().unwrap().is_empty());
}

/// A key that is deleted and made again, on one device or on two, against an update elsewhere.
#[test]
fn keys_that_are_made_again() {
    for merge in [Merge::Row, Merge::Cell] {
        let options = TrackOptions { merge, ..TrackOptions::default() };
        let start = "CREATE TABLE t (k TEXT PRIMARY KEY, u, v); INSERT INTO t VALUES ('x', 1, 1)";
        let (world, mut d) = three(start, &["t"], &options);
        sql(&d[0], "DELETE FROM t; INSERT INTO t VALUES ('x', 2, 2)");
        d[0].seal().unwrap();
        world.tick(1000);
        sql(&d[1], "UPDATE t SET v = 3");
        all(&mut d);
        let conflicts = d[2].conflicts().unwrap();
        assert_eq!(conflicts.len(), 1, "{merge:?}");
        assert_eq!(rows(&d[2], "SELECT v FROM t"), ["3"], "the later one is shown");
        // Both make it again: two new rows under one key.
        let (world, mut d) = three(start, &["t"], &options);
        sql(&d[0], "DELETE FROM t");
        d[0].seal().unwrap();
        sql(&d[0], "INSERT INTO t VALUES ('x', 2, 2)");
        d[0].seal().unwrap();
        world.tick(1000);
        sql(&d[1], "DELETE FROM t");
        d[1].seal().unwrap();
        sql(&d[1], "INSERT INTO t VALUES ('x', 2, 3)");
        all(&mut d);
        let conflicts = d[2].conflicts().unwrap();
        assert_eq!(conflicts.len(), 1, "{merge:?}");
        assert_eq!(conflicts[0].kind, ConflictKind::InsertInsert);
        assert_eq!(rows(&d[2], "SELECT u, v FROM t"), ["2|3"]);
        // Deleted here, deleted and made again there.
        let (_world, mut d) = three(start, &["t"], &options);
        sql(&d[0], "DELETE FROM t");
        sql(&d[1], "DELETE FROM t; INSERT INTO t VALUES ('x', 4, 4)");
        all(&mut d);
        assert_eq!(rows(&d[2], "SELECT u, v FROM t"), ["4|4"]);
        assert_eq!(d[2].conflicts().unwrap()[0].kind, ConflictKind::UpdateDelete);
    }
}

/// What referred to it was found on devices that took both rows in at once, and not on those that had
/// shown the one that gave way.
///
/// It is so where the column that one application adds waits on the others, and where it follows.
#[test]
fn a_row_that_gives_way_leaves_orphans() {
    gives_way(&TrackOptions::default());
    gives_way(&follow());
}

fn gives_way(options: &TrackOptions) {
    let world = World::new();
    let t = "CREATE TABLE notes (id TEXT PRIMARY KEY, a, b REAL); CREATE TABLE parts (id BLOB PRIMARY KEY, note TEXT REFERENCES notes (id), lo INT, hi INT)";
    let mut devices: Vec<_> =
        ["d0", "d1", "d2", "d3"].iter().map(|n| world.board_with(n, t, &["notes", "parts"])).collect();
    let [d0, d1, d2, d3] = &mut devices[..] else { panic!() };
    for device in [&mut *d0, &mut *d1, &mut *d2, &mut *d3] {
        device.track("notes", options).unwrap();
    }
    carry_all(&mut [d0, d1, d2, d3]);
    sql(d3, "INSERT INTO notes (id, a, b) VALUES ('k1', 1, 0.5)");
    carry_all(&mut [d0, d1, d2, d3]);
    sql(d3, "CREATE UNIQUE INDEX notes_later ON notes (a)");
    d3.seal().unwrap();
    // So that its claim on the value is the later one.
    for n in 0..3 {
        sql(d2, &format!("INSERT INTO parts VALUES (x'1{n}', NULL, 1, 1)"));
        d2.seal().unwrap();
    }
    sql(d2, "ALTER TABLE notes ADD COLUMN z TEXT DEFAULT 'old'; UPDATE notes SET z = 'x'");
    d2.seal().unwrap();
    let b0 = bundle(d3, d1);
    sql(
        d2,
        "INSERT INTO parts (id, note, lo, hi) VALUES (x'02', 'k1', 1, 2) ON CONFLICT (id) DO UPDATE SET note = excluded.note",
    );
    d2.seal().unwrap();
    sql(d1, "INSERT INTO notes (id, a, b) VALUES ('k3', 1.0, 0.5)");
    d1.seal().unwrap();
    import(d2, &b0);
    carry_all(&mut [d0, d1, d2, d3]);
    digests_equal(&[d0, d1, d2, d3]);
    assert_eq!(rows(d0, "SELECT name FROM pragma_table_info('notes') WHERE name = 'z'").len(), {
        usize::from(options.new_columns.is_some())
    });
    assert!(d2.conflicts().unwrap().iter().any(|c| matches!(c.kind, ConflictKind::ForeignKey(..))));
}

/// A constraint can say what SQLite does where a statement violates it: that is for the statements of an application. What is
/// taken in is shown or kept out by the same rules whatever it says, and a trigger's statements do what they say.
#[test]
fn a_clash_is_a_conflict_whatever_its_constraint_says() {
    for clause in
        ["", "ON CONFLICT FAIL", "ON CONFLICT IGNORE", "ON CONFLICT REPLACE", "ON CONFLICT ROLLBACK"]
    {
        for unique in ["u TEXT UNIQUE", "u TEXT, w TEXT DEFAULT 'x', UNIQUE (u, w)"] {
            for verb in [None, Some("INSERT"), Some("INSERT OR IGNORE")] {
                let trigger = verb.map_or(String::new(), |verb| {
                    format!("CREATE TRIGGER noted AFTER INSERT ON notes BEGIN {verb} INTO seen VALUES (NEW.u); END;")
                });
                let schema = format!(
                    "CREATE TABLE seen (u PRIMARY KEY);
                     CREATE TABLE notes (id TEXT PRIMARY KEY, v, {unique} {clause}); {trigger}"
                );
                clash_of_two(&schema, &format!("{clause}, {unique}, {verb:?}"), |seen| match verb {
                    // Both say what is done, and one would overrule the other: so the trigger does not run.
                    Some("INSERT OR IGNORE") if !clause.is_empty() => seen == ["\"same\""],
                    Some(_) => seen == ["\"other\"", "\"same\""],
                    None => seen.is_empty(),
                });
            }
        }
    }
}

/// Two devices that have made these tables write the same value; `is_seen` says what the trigger of the second one notes.
fn clash_of_two(schema: &str, what: &str, is_seen: impl Fn(&[String]) -> bool) {
    let world = World::new();
    let [mut a, mut b] = ["a", "b"].map(|name| world.board_with(name, schema, &["notes"]));
    sql(&a, "INSERT INTO notes (id, v, u) VALUES ('of a', 1, 'same'), ('other', 1, 'other')");
    sql(&b, "INSERT INTO notes (id, v, u) VALUES ('of b', 2, 'same')");
    for _ in 0..2 {
        carry(&mut a, &mut b);
        carry(&mut b, &mut a);
    }
    digests_equal(&[&a, &b]);
    for device in [&a, &b] {
        let conflicts = device.conflicts().unwrap();
        assert_eq!(conflicts.len(), 1, "{what}: {conflicts:?}");
        assert_eq!(conflicts[0].versions.len(), 2, "{what}: {conflicts:?}");
        assert_eq!(rows(device, "SELECT id FROM notes").len(), 2, "{what}");
    }
    let seen = rows(&b, "SELECT u FROM seen ORDER BY u");
    assert!(is_seen(&seen), "{what}: {seen:?}, {:?}", b.status().unwrap().notices);
    // What a person decides removes nobody's row either.
    let id = b.conflicts().unwrap()[0].id.clone();
    b.resolve(&id, &Resolution::Set(vec![("u".into(), text("other"))])).unwrap_err();
    b.resolve(&id, &Resolution::Set(vec![("u".into(), text("new"))])).unwrap();
    carry(&mut b, &mut a);
    digests_equal(&[&a, &b]);
    assert_eq!(rows(&a, "SELECT id FROM notes").len(), 3, "{what}");
}

/// SQLite takes a foreign key to a column that is not there; `track`, and every import, ended with "no such column".
#[test]
fn a_foreign_key_to_a_column_that_is_not_there_is_in_nobodys_way() {
    for order in [["p", "c"], ["c", "p"]] {
        let world = World::new();
        let mut devices = ["a", "b"].map(|name| world.board(name));
        for device in &mut devices {
            let make = "CREATE TABLE p (id INTEGER PRIMARY KEY, v);
                CREATE TABLE c (id INTEGER PRIMARY KEY, wrong REFERENCES p (gone), p REFERENCES p (id), r REFERENCES p (rowid))";
            sql(device, make);
            order.iter().for_each(|table| drop(device.track(table, &TrackOptions::default()).unwrap()));
        }
        let [a, b] = &mut devices;
        sql(
            a,
            "PRAGMA foreign_keys = OFF; INSERT INTO p VALUES (1, 'one'), (2, 'two'); INSERT INTO c VALUES (1, 1, 1, 2), (2, 7, NULL, NULL)",
        );
        carry_all(&mut [a, b]);
        assert_eq!(rows(b, "SELECT * FROM c"), ["1|1|1|2", "2|7|NULL|NULL"]);
        assert_eq!((a.conflicts().unwrap(), b.conflicts().unwrap()), (vec![], vec![]));
        // The others are looked at as ever.
        sql(b, "PRAGMA foreign_keys = OFF; DELETE FROM p");
        carry_all(&mut [a, b]);
        assert_eq!(a.conflicts().unwrap().len(), 1);
        assert_eq!(a.conflicts().unwrap(), b.conflicts().unwrap());
        digests_equal(&[a, b]);
        assert!(a.verify().unwrap().problems.is_empty());
    }
}

/// By cell, an op on a row that is settled says nothing of its unique value but that this stands as early as what is settled: whoever
/// has the value's version in flight still had the row claim it when that was written, and kept out another row.
#[test]
fn a_row_claims_as_early_where_its_unique_value_is_in_flight_as_where_it_is_settled() {
    let ways = [(false, false), (true, false), (true, true)];
    for (merge, (by_frames, held)) in ways.map(|way| [(Merge::Row, way), (Merge::Cell, way)]).concat() {
        let world = World::new();
        let mut d = ["a", "b", "c"].map(|name| world.board(name));
        let options = TrackOptions { merge, ..TrackOptions::default() };
        for device in &mut d {
            sql(device, NAMED);
            device.track("t", &options).unwrap();
        }
        sql(&d[1], "INSERT INTO t VALUES ('x', 'other', 0)");
        d[1].seal().unwrap();
        sql(&d[1], "INSERT INTO t VALUES ('b', 'n', 1)");
        for _ in 0..2 {
            let [_, b, c] = &mut d;
            carry_all(&mut [b, c]);
        }
        assert!(d[2].compact().unwrap().versions > 0);
        sql(&d[2], "UPDATE t SET v = 2 WHERE k = 'b'");
        d[2].seal().unwrap();
        // It claims the value before the other by its stamp, and has been seen by nobody.
        sql(&d[0], "INSERT INTO t VALUES ('a', 'n', 9)");
        d[0].seal().unwrap();
        if by_frames {
            // From who has folded nothing; its table may be held meanwhile.
            let [a, b, c] = &mut d;
            let rename = |device: &Engine, from, to| {
                sql(device, &format!("ALTER TABLE t RENAME COLUMN {from} TO {to}"));
            };
            held.then(|| rename(b, "v", "w"));
            carry(c, b);
            held.then(|| rename(b, "w", "v"));
            carry(b, a);
        }
        all(&mut d);
        assert_eq!(
            rows(&d[0], "SELECT k, v FROM t WHERE u = 'n'"),
            ["\"b\"|2"],
            "{merge:?} {by_frames} {held}"
        );
    }
}
