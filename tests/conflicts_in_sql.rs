//! The view `packmule_conflicts`: what any reader of SQLite sees of open conflicts, and decisions that are written into it.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests are tests.

mod common;

use common::*;
use packmule::{Answer, Engine, OwnedValue, TrackOptions};

/// Two devices that have written to the same rows.
fn two(rows: i64) -> (World, Engine, Engine) {
    let world = World::new();
    let make = "CREATE TABLE t (k INTEGER PRIMARY KEY, v, u UNIQUE, b BLOB)";
    let mut a = world.board_with("a", make, &["t"]);
    let mut b = world.board_with("b", make, &["t"]);
    carry_all(&mut [&mut a, &mut b]);
    let numbers =
        format!("WITH RECURSIVE n(k) AS (VALUES (1) UNION ALL SELECT k + 1 FROM n WHERE k < {rows})");
    sql(&a, &format!("INSERT INTO t {numbers} SELECT k, 'a', NULL, x'00ff' FROM n"));
    a.seal().unwrap();
    world.tick(1000);
    sql(&b, &format!("INSERT INTO t {numbers} SELECT k, 'b', NULL, zeroblob(5000) FROM n"));
    carry_all(&mut [&mut a, &mut b]);
    (world, a, b)
}

fn ids(engine: &Engine) -> Vec<String> {
    rows(engine, "SELECT id FROM packmule_conflicts WHERE kind NOT NULL ORDER BY key")
        .into_iter()
        .map(|id| id.trim_matches('"').to_owned())
        .collect()
}

#[test]
fn the_view_comes_and_goes_with_the_tables() {
    let world = World::new();
    let mut a = world.board("a");
    let is_there = "SELECT count(*) FROM sqlite_schema WHERE name LIKE 'packmule%'";
    assert_eq!(rows(&a, is_there), ["0"]);
    sql(&a, "CREATE TABLE t (k INTEGER PRIMARY KEY, v); CREATE TABLE u (k INTEGER PRIMARY KEY, v)");
    a.track_all(&["t", "u"], &TrackOptions::default()).unwrap();
    assert_eq!(rows(&a, is_there), ["1"]);
    // It is in nobody's way: not in that of a schema change, nor of what looks whether there was one.
    sql(&a, "INSERT INTO t VALUES (1, 1); ALTER TABLE t ADD COLUMN w; ALTER TABLE t DROP COLUMN w");
    assert_eq!(a.seal().unwrap().ops, 1);
    a.untrack("t").unwrap();
    assert_eq!(rows(&a, is_there), ["1"]);
    a.untrack("u").unwrap();
    assert_eq!(rows(&a, is_there), ["0"]);
    // What an application has under that name stays its own.
    sql(&a, "CREATE TABLE packmule_conflicts (x)");
    a.track("t", &TrackOptions::default()).unwrap();
    a.untrack("t").unwrap();
    let path = a.path().to_owned();
    drop(a);
    Engine::remove(&path, &packmule::Options::default()).unwrap();
    let left = "SELECT name FROM sqlite_schema WHERE name LIKE 'packmule%' OR name LIKE '_pm%'";
    assert_eq!(dump(&open(&path), left), ["\"packmule_conflicts\""]);
}

/// A reader with an old SQLite must be able to show it and to write into it: no function is used that it may lack, and no
/// form of SQL.
#[test]
fn the_view_needs_no_newer_sqlite_than_3_34() {
    let (_world, a, _b) = two(1);
    let of_view = "SELECT sql FROM sqlite_schema WHERE tbl_name = 'packmule_conflicts'";
    let sql = rows(&a, of_view).join("\n").to_ascii_lowercase();
    assert_eq!(sql.matches("create trigger").count(), 3, "{sql}");
    let old = ["coalesce", "cast", "exists", "length", "raise", "typeof", "_pm_wish", "values", "where"];
    for (at, _) in sql.match_indices('(') {
        let word =
            sql[..at].trim_end().rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap();
        assert!(word.is_empty() || old.contains(&word), "`{word}(` in {sql}");
    }
    for newer in ["->", "returning", "distinct from", "strict", "materialized", "json"] {
        assert!(!sql.contains(newer), "`{newer}` in {sql}");
    }
}

#[test]
fn a_decision_is_carried_out_by_the_next_run_once() {
    let (_world, mut a, mut b) = two(6);
    let id = ids(&a);
    assert_eq!(id.len(), 6);
    let device = b.identity().id.to_string();
    for (id, columns, values) in [
        (&id[0], "take", "'newest'".to_owned()),
        (&id[1], "take", "'a'".to_owned()),
        (&id[2], "take", format!("'{device}'")),
        (&id[3], "decision", r#"'{"set": {"v": 1.5, "b": {"hex": "ab"}}}'"#.to_owned()),
        (&id[4], "decision", r#"'{"delete": true}'"#.to_owned()),
        (&id[5], "decision", r#"'{"keep_both": true, "set": {"v": "both"}}'"#.to_owned()),
    ] {
        let insert = format!("INSERT INTO packmule_conflicts (id, {columns}) VALUES ('{id}', {values})");
        sql(&a, &insert);
        sql(&a, &insert);
    }
    assert_eq!(rows(&a, "SELECT count(*) FROM packmule_conflicts WHERE refused IS NULL"), ["6"]);
    a.seal().unwrap();
    let carried = a.take_carried_out();
    assert_eq!((carried.closed, carried.refused), (6, 0), "{carried:?}");
    assert_eq!(a.take_carried_out().closed, 0);
    assert_eq!(rows(&a, "SELECT count(*) FROM packmule_conflicts"), ["0"]);
    let now = rows(&a, "SELECT k, v, length(b) FROM t ORDER BY k");
    assert_eq!(
        now,
        ["1|\"b\"|5000", "2|\"a\"|2", "3|\"b\"|5000", "4|1.5r|1", "6|\"b\"|5000", "7|\"both\"|2"]
    );
    let frames = a.seal().unwrap().frames;
    assert_eq!(frames, 0);
    carry_all(&mut [&mut a, &mut b]);
    digests_equal(&[&a, &b]);
    assert_eq!(rows(&b, "SELECT k, v, length(b) FROM t ORDER BY k"), now);
}

/// Also by UPDATE, and withdrawn by DELETE; by whatever run seals: here an import.
#[test]
fn a_decision_by_update_is_carried_out_by_an_import() {
    let (_world, mut a, mut b) = two(3);
    sql(&a, "UPDATE packmule_conflicts SET take = 'shown' WHERE kind = 'insert/insert'");
    let id = ids(&a);
    sql(&a, &format!("DELETE FROM packmule_conflicts WHERE id = '{}'", id[0]));
    assert_eq!(rows(&a, "SELECT count(*) FROM packmule_conflicts WHERE take = 'shown'"), ["2"]);
    sql(&b, "INSERT INTO t VALUES (100, 'more', NULL, NULL)");
    carry(&mut b, &mut a);
    assert_eq!(a.take_carried_out().closed, 2);
    assert_eq!(ids(&a), id[..1]);
    carry_all(&mut [&mut a, &mut b]);
    digests_equal(&[&a, &b]);
}

/// Whatever is wrong with a decision is told beside it, and stops nothing.
#[test]
fn a_decision_that_cannot_be_carried_out_is_kept_with_the_reason() {
    let (_world, mut a, mut b) = two(12);
    sql(&a, "INSERT INTO t VALUES (200, 'taken', 7, NULL)");
    a.seal().unwrap();
    let id = ids(&a);
    let long = "x".repeat(60_000);
    let deep = format!("{{\"set\": {}{} }}", "[".repeat(20_000), "]".repeat(20_000));
    let wrong = [
        ("0123456789", "take", "'newest'", "no conflict that is open"),
        (&id[0], "take", "'nobody'", "nobody"),
        (&id[1], "decision", "'{\"take\": '", "not JSON"),
        (&id[2], "decision", "'[1, 2]'", "JSON object"),
        (&id[3], "decision", "'{\"take\": \"newest\", \"delete\": true}'", "one of"),
        (&id[4], "decision", "'{\"set\": {\"nothing\": 1}}'", "no column `nothing`"),
        (&id[5], "decision", "'{\"set\": {\"u\": 7}}'", "UNIQUE"),
        (&id[6], "decision", &format!("'{deep}'"), "not JSON"),
        (&id[7], "take", &format!("'{long}'"), "xxx"),
        (&id[8], "decision", "x'ff00ff'", "not JSON"),
        // Half a surrogate: SQLite makes a text of it that is not UTF-8.
        (&id[9], "decision", r#"'{"take": "\ud800"}'"#, "\u{fffd}"),
        (&id[10], "decision", r#"'{"\ud800": 1}'"#, "no field"),
        (&id[11], "decision", r#"'{"set": {"\ud800": 1}}'"#, "no column"),
    ];
    for (id, column, value, _) in &wrong {
        sql(&a, &format!("INSERT INTO packmule_conflicts (id, {column}) VALUES ('{id}', {value})"));
    }
    let report = carry(&mut b, &mut a);
    assert_eq!(report.conflicts_opened, 0);
    let carried = a.take_carried_out();
    assert_eq!((carried.closed, carried.refused), (0, 13), "{carried:?}");
    for (id, _, _, reason) in &wrong {
        let told = rows(&a, &format!("SELECT refused FROM packmule_conflicts WHERE id = '{id}'"));
        assert!(told[0].contains(reason), "{told:?} should have {reason}");
    }
    // It is not tried again, until it is written again.
    a.seal().unwrap();
    assert_eq!(a.take_carried_out().refused, 0);
    sql(&a, &format!("INSERT INTO packmule_conflicts (id, take) VALUES ('{}', 'newest')", id[0]));
    a.seal().unwrap();
    assert_eq!(a.take_carried_out().closed, 1);
    assert_eq!(rows(&a, "SELECT count(*) FROM packmule_conflicts WHERE refused NOT NULL"), ["12"]);
    carry_all(&mut [&mut a, &mut b]);
    digests_equal(&[&a, &b]);
}

/// What makes no sense at all is refused by the view; what is written past it is as if it were not there.
#[test]
fn hostile_decisions() {
    let (_world, mut a, _b) = two(2);
    let id = ids(&a);
    let db = app(&a);
    let refused = |sql: &str| db.execute_batch(sql).unwrap_err().to_string();
    let of = |values: &str| format!("INSERT INTO packmule_conflicts (id, take, decision) VALUES ({values})");
    for (values, told) in [
        ("NULL, 'newest', NULL", "id is that"),
        ("7, 'newest', NULL", "id is that"),
        ("hex(zeroblob(40)), 'newest', NULL", "id is that"),
        ("'abcd', NULL, NULL", "one of the two"),
        ("'abcd', 'newest', '{}'", "one of the two"),
        ("'abcd', hex(zeroblob(40000)), NULL", "at most 65536 bytes"),
        ("'abcd', NULL, zeroblob(100000)", "at most 65536 bytes"),
    ] {
        let reason = refused(&of(values));
        assert!(reason.contains(told), "{values}: {reason}");
    }
    db.execute_batch(&format!(
        "INSERT INTO _pm_wish (id, take) VALUES (zeroblob(1000000), zeroblob(3000000)), (x'ff', 1), ('{}', NULL);
         INSERT INTO _pm_wish (id, take, decision) VALUES ('{}', 5, x'00')",
        id[0], id[1]
    ))
    .unwrap();
    a.seal().unwrap();
    let carried = a.take_carried_out();
    assert_eq!((carried.closed, carried.refused), (0, 4), "{carried:?}");
    assert_eq!(ids(&a), id);
}

/// What an application decides while a program thinks about the same conflict is not lost, whatever the program says.
#[test]
fn what_is_decided_while_a_program_thinks_goes_before_it() {
    for answer in [Answer::Decided(r#"{"take": "a"}"#.into()), Answer::Failed("it is broken".into())] {
        let (_world, mut a, _b) = two(1);
        let application = app(&a);
        let carried = a
            .decide_with(&["t"], &mut |conflict| {
                let decision = "INSERT INTO packmule_conflicts (id, take) VALUES (?1, 'b')";
                application.execute(decision, [&conflict.id]).unwrap();
                answer.clone()
            })
            .unwrap();
        assert_eq!((carried.closed, carried.refused), (1, 0), "{answer:?}: {carried:?}");
        assert_eq!(rows(&a, "SELECT v FROM t"), ["\"b\""], "{answer:?}");
        assert_eq!(rows(&a, "SELECT count(*) FROM packmule_conflicts"), ["0"]);
    }
}

/// Thousands of decisions cost what they are, and no more than so many that were refused are kept.
#[test]
fn many_decisions() {
    let (_world, mut a, mut b) = two(1_500);
    sql(&a, "UPDATE packmule_conflicts SET take = 'newest'");
    a.seal().unwrap();
    assert_eq!(a.take_carried_out().closed, 1_500);
    carry_all(&mut [&mut a, &mut b]);
    digests_equal(&[&a, &b]);
    let numbers = "WITH RECURSIVE n(k) AS (VALUES (1) UNION ALL SELECT k + 1 FROM n WHERE k < 1200)";
    sql(
        &a,
        &format!("INSERT INTO packmule_conflicts (id, take) {numbers} SELECT 'none' || k, 'newest' FROM n"),
    );
    a.seal().unwrap();
    assert_eq!(a.take_carried_out().refused, 1_200);
    assert_eq!(rows(&a, "SELECT count(*) FROM packmule_conflicts"), ["1000"]);
}

/// Of a row whose versions are all compacted away nobody remembers who wrote last. An undo looks whether it is still what was
/// decided: what was written since is not taken away.
#[test]
fn an_undo_of_a_row_that_is_compacted() {
    for written in [false, true] {
        let (world, mut a, mut b) = two(1);
        for (of, word) in [(&a, "a"), (&b, "b")] {
            sql(of, &format!("DELETE FROM t; INSERT INTO t VALUES (50, '{word}', NULL, NULL)"));
        }
        carry_all(&mut [&mut a, &mut b]);
        let id = ids(&a).remove(0);
        let before = rows(&a, "SELECT v FROM t WHERE k = 50").remove(0);
        let other = if before == "\"a\"" { &b } else { &a }.identity().id;
        let mine = packmule::Resolution::Take(other);
        a.resolve(&id, &mine).unwrap();
        carry_all(&mut [&mut a, &mut b]);
        world.tick(1000);
        if written {
            sql(&b, "UPDATE t SET v = 'later' WHERE k = 50");
        }
        carry_all(&mut [&mut a, &mut b]);
        carry_all(&mut [&mut a, &mut b]);
        // All versions are forgotten; the log keeps what it has.
        let path = a.path().to_owned();
        drop(a);
        let db = open(&path);
        db.execute_batch("DELETE FROM _pm_head; DELETE FROM _pm_stretch").unwrap();
        drop(db);
        let mut a = Engine::open_with(&path, world.options()).unwrap();
        let undone = a.undo_resolution(&id);
        if written {
            let told = undone.unwrap_err().to_string();
            assert!(told.contains("has been written to since"), "{told}");
            assert_eq!(rows(&a, "SELECT v FROM t WHERE k = 50"), ["\"later\""]);
        } else {
            undone.unwrap();
            assert_eq!(rows(&a, "SELECT v FROM t WHERE k = 50"), [before]);
        }
    }
}

/// However many a program leaves to a person, it is asked about none of them again; until that is taken back.
#[test]
fn what_is_left_to_a_person_is_asked_once() {
    let (_world, mut a, _b) = two(1_200);
    let mut asked = || {
        let mut n = 0;
        let mut leave = |_: &packmule::Conflict| {
            n += 1;
            Answer::Decided(r#"{"leave": true}"#.into())
        };
        a.decide_with(&["t"], &mut leave).unwrap();
        n
    };
    assert_eq!([asked(), asked()], [1_200, 0]);
    // What is closed needs no note.
    sql(&a, "UPDATE packmule_conflicts SET take = 'newest'");
    a.seal().unwrap();
    assert_eq!(rows(&a, "SELECT count(*) FROM packmule_conflicts"), ["0"]);
}

/// A program that fails at some conflicts is asked about all others before it is asked about these again, the oldest first.
#[test]
fn what_fails_keeps_no_others_from_a_program() {
    let (_world, mut a, _b) = two(7);
    let fails = [0, 1, 2, 4];
    let key = |conflict: &packmule::Conflict| match conflict.key[0].1 {
        OwnedValue::Int(key) => key,
        _ => panic!("{conflict:?}"),
    };
    let first = a.conflicts().unwrap().iter().map(key).min().unwrap();
    let mut run = || {
        let (mut asked, mut in_a_row) = (Vec::new(), 0);
        let mut ask = |conflict: &packmule::Conflict| {
            if in_a_row == 3 {
                return Answer::Stop;
            }
            let key = key(conflict) - first;
            asked.push(key);
            in_a_row = if fails.contains(&key) { in_a_row + 1 } else { 0 };
            let fails = || Answer::Failed("it is broken".into());
            if in_a_row > 0 { fails() } else { Answer::Decided(r#"{"take": "newest"}"#.into()) }
        };
        a.decide_with(&["t"], &mut ask).unwrap();
        asked
    };
    assert_eq!(run(), [0, 1, 2]);
    assert_eq!(run(), [3, 4, 5, 6, 0, 1, 2]);
    // Nothing is asked twice in one run.
    assert_eq!(run(), [4, 0, 1]);
    assert_eq!(run(), [2, 4, 0]);
}
