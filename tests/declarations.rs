//! Devices that declare one table differently: a column of another type, another policy.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod common;
use common::*;
use packmule::{ColumnMerge, ConflictKind, Engine, Merge, OwnedValue, Policy, Resolution, TrackOptions};

const T: &str = "CREATE TABLE t (k TEXT PRIMARY KEY, v); INSERT INTO t VALUES ('a', 1), ('b', 2)";

fn three(merge: Merge) -> (World, [Engine; 3]) {
    let world = World::new();
    let mut a = world.board("a");
    sql(&a, T);
    a.track("t", &TrackOptions { merge, ..follow() }).unwrap();
    let mut b = world.board("b");
    let mut c = world.board("c");
    carry(&mut a, &mut b);
    carry(&mut a, &mut c);
    carry_all(&mut [&mut a, &mut b, &mut c]);
    (world, [a, b, c])
}

fn all(devices: &mut [Engine; 3]) {
    let [a, b, c] = devices;
    carry_all(&mut [a, b, c]);
    digests_equal(&[a, b, c]);
    assert_eq!(a.conflicts().unwrap(), b.conflicts().unwrap());
    assert_eq!(a.conflicts().unwrap(), c.conflicts().unwrap());
    for device in [a, b, c] {
        assert_eq!(device.verify().unwrap().problems, [""; 0]);
    }
}

fn schema_conflict(engine: &Engine) -> packmule::Conflict {
    let mut found: Vec<_> = engine.conflicts().unwrap();
    found.retain(|c| matches!(c.kind, ConflictKind::Schema(_)));
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

fn kind_of(engine: &Engine, column: &str) -> String {
    rows(engine, &format!("SELECT type FROM pragma_table_info('t') WHERE name = '{column}'")).remove(0)
}

/// `a` adds a TEXT, `b` an INTEGER; `c` hears of one of them first.
fn disputed(merge: Merge, first: usize) -> (World, [Engine; 3]) {
    let (world, mut d) = three(merge);
    sql(&d[0], "ALTER TABLE t ADD COLUMN x TEXT; UPDATE t SET x = '05' WHERE k = 'a'");
    world.tick(1000);
    sql(&d[1], "ALTER TABLE t ADD COLUMN x INTEGER; UPDATE t SET x = 7, v = 20 WHERE k = 'b'");
    let [a, b, c] = &mut d;
    let order: [&mut Engine; 2] = if first == 0 { [a, b] } else { [b, a] };
    for from in order {
        carry(from, c);
    }
    (world, d)
}

#[test]
fn a_column_of_two_types_is_disputed_and_the_table_goes_on() {
    for merge in [Merge::Row, Merge::Cell] {
        for first in [0, 1] {
            let (world, mut d) = disputed(merge, first);
            all(&mut d);
            for device in &d {
                let conflict = schema_conflict(device);
                assert_eq!(conflict.kind, ConflictKind::Schema("x".into()));
                let said: Vec<_> = conflict
                    .versions
                    .iter()
                    .map(|v| (v.name.as_deref().unwrap(), v.values[0].1.to_string()))
                    .collect();
                assert_eq!(said.len(), 2);
                assert!(
                    said.contains(&("a", "'TEXT'".into())) || said.contains(&("a", "TEXT".into())),
                    "{said:?}"
                );
                assert_eq!(rows(device, "SELECT k, v FROM t ORDER BY k"), ["\"a\"|1", "\"b\"|20"]);
                assert_eq!(device.status().unwrap().conflicts, 1);
            }
            assert_eq!(
                [kind_of(&d[0], "x"), kind_of(&d[1], "x")],
                ["\"TEXT\"", "\"INTEGER\""],
                "each application keeps its own"
            );
            assert_eq!(rows(&d[0], "SELECT x FROM t WHERE k = 'a'"), ["\"05\""]);
            assert_eq!(rows(&d[1], "SELECT x FROM t WHERE k = 'a'"), ["NULL"], "it waits");
            // The rest of these rows goes on, for as long as it takes, and takes nothing from what waits.
            for round in 0..3 {
                world.tick(1000);
                sql(&d[2], &format!("UPDATE t SET v = {round} WHERE k = 'a'"));
                sql(&d[0], &format!("INSERT INTO t VALUES ('n{round}', 0, 'n')"));
                all(&mut d);
                for device in &mut d {
                    device.compact().unwrap();
                }
                all(&mut d);
            }
            assert_eq!(rows(&d[1], "SELECT v FROM t WHERE k = 'a'"), ["2"]);
            // One is decided for, by whomever: what waited is there.
            let taken = d[first].identity().id;
            let id = schema_conflict(&d[2]).id;
            assert!(d[2].resolve(&id, &Resolution::Delete).is_err());
            d[2].resolve(&id, &Resolution::Take(taken)).unwrap();
            all(&mut d);
            let (a, b) = if first == 0 { ("\"05\"", "\"7\"") } else { ("5", "7") };
            for device in &d {
                assert!(device.conflicts().unwrap().is_empty());
                assert_eq!(kind_of(device, "x"), ["\"TEXT\"", "\"INTEGER\""][first]);
                assert_eq!(
                    rows(device, "SELECT x FROM t ORDER BY k"),
                    [a, b, "\"n\"", "\"n\"", "\"n\""],
                    "{merge:?} {first}"
                );
            }
            // And it is a column like any other from then on.
            sql(&d[1], "UPDATE t SET x = 9 WHERE k = 'b'");
            all(&mut d);
            assert_eq!(rows(&d[0], "SELECT CAST(x AS INT) FROM t WHERE k = 'b'"), ["9"]);
            for device in &mut d {
                device.compact().unwrap();
            }
            all(&mut d);
        }
    }
}

#[test]
fn an_application_that_renames_its_column_away_makes_room_for_the_other() {
    for again in ["", "; ALTER TABLE t ADD COLUMN x TEXT; UPDATE t SET x = x_old WHERE k = 'b'"] {
        let (_world, mut d) = disputed(Merge::Row, 1);
        all(&mut d);
        sql(&d[1], &format!("ALTER TABLE t RENAME COLUMN x TO x_old{again}"));
        all(&mut d);
        for device in &d {
            assert!(device.conflicts().unwrap().is_empty());
            assert_eq!(kind_of(device, "x"), "\"TEXT\"");
            assert_eq!(rows(device, "SELECT x, x_old FROM t ORDER BY k"), ["\"05\"|NULL", "\"7\"|7"]);
        }
    }
}

/// Who decides for one by making the table anew has not seen what others wrote into theirs: its rows have the default, or NULL,
/// and that was taken for a write.
#[test]
fn who_decides_by_making_its_table_anew_writes_nothing_into_what_waits() {
    let kinds = [("INTEGER", ["5", "7"]), ("TEXT DEFAULT 'n'", ["\"05\"", "\"7\""]), ("", ["\"05\"", "7"])];
    for (kind, expected) in kinds {
        for merge in [Merge::Row, Merge::Cell] {
            let (_world, mut d) = disputed(merge, 0);
            all(&mut d);
            sql(
                &d[0],
                &format!(
                    "BEGIN; CREATE TABLE t2 (k TEXT PRIMARY KEY, v, x {kind}); INSERT INTO t2 SELECT k, v, x FROM t;
                     DROP TABLE t; ALTER TABLE t2 RENAME TO t; COMMIT"
                ),
            );
            all(&mut d);
            for device in &d {
                assert_eq!(device.conflicts().unwrap(), []);
                assert_eq!(rows(device, "SELECT x FROM t ORDER BY k"), expected, "{kind} {merge:?}");
            }
        }
    }
}

#[test]
fn two_decisions_at_once_are_a_conflict_again() {
    let (_world, mut d) = disputed(Merge::Row, 0);
    all(&mut d);
    let id = schema_conflict(&d[0]).id;
    let [a, b] = [d[0].identity().id, d[1].identity().id];
    d[0].resolve(&id, &Resolution::Take(a)).unwrap();
    d[1].resolve(&id, &Resolution::Take(b)).unwrap();
    all(&mut d);
    let conflict = schema_conflict(&d[2]);
    d[2].resolve(&conflict.id, &Resolution::Take(b)).unwrap();
    all(&mut d);
    assert!(d[0].conflicts().unwrap().is_empty());
    assert_eq!(rows(&d[0], "SELECT x FROM t ORDER BY k"), ["5", "7"]);
}

#[test]
fn another_default_is_another_column_and_not_null_is_ones_own() {
    let (_world, mut d) = three(Merge::Row);
    sql(&d[0], "ALTER TABLE t ADD COLUMN x TEXT DEFAULT 'p'; ALTER TABLE t ADD COLUMN y TEXT DEFAULT 'q'");
    sql(
        &d[1],
        "ALTER TABLE t ADD COLUMN x TEXT DEFAULT 'r'; ALTER TABLE t ADD COLUMN y TEXT NOT NULL DEFAULT 'q'",
    );
    sql(&d[1], "INSERT INTO t (k, v) VALUES ('c', 3)");
    all(&mut d);
    let conflict = schema_conflict(&d[2]);
    assert_eq!(conflict.kind, ConflictKind::Schema("x".into()));
    let a = d[0].identity().id;
    d[2].resolve(&conflict.id, &Resolution::Take(a)).unwrap();
    all(&mut d);
    assert!(d[1].conflicts().unwrap().is_empty());
    assert_eq!(
        rows(&d[1], "SELECT k, x, y FROM t ORDER BY k"),
        ["\"a\"|\"p\"|\"q\"", "\"b\"|\"p\"|\"q\"", "\"c\"|\"r\"|\"q\""]
    );
}

#[test]
fn a_decided_column_that_cannot_be_changed_here_holds_the_table_until_it_is() {
    let (_world, mut d) = disputed(Merge::Row, 0);
    all(&mut d);
    sql(&d[0], "CREATE VIEW seen AS SELECT x FROM t");
    let id = schema_conflict(&d[2]).id;
    let b = d[1].identity().id;
    d[2].resolve(&id, &Resolution::Take(b)).unwrap();
    let [a, b, c] = &mut d;
    carry_all(&mut [a, b, c]);
    let table = |e: &Engine| e.status().unwrap().tables.into_iter().find(|t| t.name == "t").unwrap();
    assert_eq!(table(a).how, packmule::TableHow::Suspended);
    assert!(
        table(a).note.unwrap().contains("`x` is TEXT here, and INTEGER on other devices"),
        "{:?}",
        table(a)
    );
    sql(b, "UPDATE t SET v = 50 WHERE k = 'a'");
    carry_all(&mut [a, b, c]);
    sql(a, "ALTER TABLE t RENAME COLUMN x TO x_old");
    carry_all(&mut [a, b, c]);
    assert_eq!(table(a).how, packmule::TableHow::Shared);
    assert_eq!(rows(b, "SELECT k, x FROM t ORDER BY k"), ["\"a\"|5", "\"b\"|7"]);
}

/// Makes the table anew with a column of another type.
fn anew(kind: &str) -> String {
    format!(
        "BEGIN; CREATE TABLE t2 (k TEXT PRIMARY KEY, v {kind}); INSERT INTO t2 SELECT * FROM t; DROP TABLE t;
         ALTER TABLE t2 RENAME TO t; COMMIT"
    )
}

#[test]
fn a_type_that_is_changed_by_one_device_alone_holds_its_table() {
    let world = World::new();
    let [mut a, mut b] = ["a", "b"].map(|name| world.board_with(name, T, &["t"]));
    carry_all(&mut [&mut a, &mut b]);
    sql(&b, &anew("TEXT"));
    b.seal().unwrap();
    let table = b.status().unwrap().tables.remove(0);
    assert_eq!(table.how, packmule::TableHow::Suspended);
    let note = table.note.unwrap();
    assert!(note.contains("its column `v` has another type here, and not yet on a-"), "{note}");
    sql(&b, &anew(""));
    carry_all(&mut [&mut a, &mut b]);
    digests_equal(&[&a, &b]);
    assert_eq!(b.status().unwrap().tables.remove(0).how, packmule::TableHow::Shared);
}

/// Where columns follow on all devices, any of their applications changes them.
#[test]
fn a_type_follows_where_columns_do() {
    let (_world, mut d) = three(Merge::Row);
    for kind in ["TEXT", "INTEGER"] {
        sql(&d[1], &anew(kind));
        all(&mut d);
        for device in &d {
            assert_eq!(kind_of(device, "v"), format!("\"{kind}\""));
            assert!(device.conflicts().unwrap().is_empty());
        }
    }
    let texts = |device: &Engine| rows(device, "SELECT v, typeof(v) FROM t ORDER BY k");
    assert_eq!(texts(&d[0]), ["1|\"integer\"", "2|\"integer\""]);
}

#[test]
fn a_newcomer_learns_what_is_disputed() {
    let (world, mut d) = disputed(Merge::Row, 0);
    all(&mut d);
    let mut bytes = Vec::new();
    d[1].snapshot(&mut bytes).unwrap();
    let options = packmule::JoinOptions { name: Some("n"), fleet: Some(&world.fleet) };
    let (mut n, _) =
        Engine::join(&world.path("n"), &mut std::io::Cursor::new(&bytes), &options, world.options()).unwrap();
    let mut f = world.board("f");
    let [a, b, c] = &mut d;
    carry_all(&mut [a, b, c, &mut n, &mut f]);
    digests_equal(&[a, b, c, &n, &f]);
    let id = schema_conflict(&n).id;
    n.resolve(&id, &Resolution::Take(a.identity().id)).unwrap();
    carry_all(&mut [a, b, c, &mut n, &mut f]);
    digests_equal(&[a, b, c, &n, &f]);
    for device in [a, b, c, &mut n, &mut f] {
        assert_eq!(rows(device, "SELECT x FROM t ORDER BY k"), ["\"05\"", "\"7\""]);
    }
}

fn way(merge: Merge, policy: Policy, columns: &[(&str, ColumnMerge)]) -> TrackOptions {
    let columns = columns.iter().map(|(name, rule)| (name.to_string(), *rule)).collect();
    TrackOptions { merge, policy, columns, ..TrackOptions::default() }
}

const N: &str = "CREATE TABLE t (k TEXT PRIMARY KEY, v, n INTEGER)";

/// Two boards that track the same table in two ways before they meet; a third hears of `first` first.
fn differing(ways: [TrackOptions; 2], first: usize) -> (World, [Engine; 3]) {
    let world = World::new();
    let mut a = world.board("a");
    let mut b = world.board("b");
    let mut c = world.board("c");
    sql(&a, &format!("{N}; INSERT INTO t VALUES ('x', 1, 10), ('y', 1, 10)"));
    sql(&b, &format!("{N}; INSERT INTO t VALUES ('x', 1, 10), ('z', 1, 10)"));
    a.track("t", &ways[0]).unwrap();
    b.track("t", &ways[1]).unwrap();
    // Writes of both before they have heard of each other.
    sql(&a, "UPDATE t SET n = n + 1, v = 'a' WHERE k = 'x'");
    sql(&b, "UPDATE t SET n = n + 2 WHERE k = 'x'; DELETE FROM t WHERE k = 'z'");
    let order: [&mut Engine; 2] = if first == 0 { [&mut a, &mut b] } else { [&mut b, &mut a] };
    for from in order {
        carry(from, &mut c);
    }
    (world, [a, b, c])
}

#[test]
fn of_two_policies_the_earliest_holds_everywhere() {
    let ways = [
        way(Merge::Row, Policy::Manual, &[]),
        way(Merge::Cell, Policy::Manual, &[]),
        way(Merge::Row, Policy::Lww, &[]),
        way(Merge::Cell, Policy::Lww, &[("n", ColumnMerge::Max)]),
        way(Merge::Row, Policy::Manual, &[("n", ColumnMerge::Counter)]),
        way(Merge::Cell, Policy::Manual, &[("n", ColumnMerge::Counter)]),
    ];
    for (one, two) in (0..ways.len()).flat_map(|one| (0..ways.len()).map(move |two| (one, two))) {
        for first in [(one + two) % 2] {
            let (world, mut d) = differing([ways[one].clone(), ways[two].clone()], first);
            all(&mut d);
            if one != two {
                for device in &d {
                    let notices = device.status().unwrap().notices;
                    let both = |n: &&packmule::Notice| {
                        let on = |d: &Engine| format!("on {}-", d.identity().name);
                        n.text.contains(&on(&d[0])) && n.text.contains(&on(&d[1]))
                    };
                    assert!(notices.iter().any(|n| both(&n)), "{one} {two}: {notices:?}");
                }
            }
            for round in 0..2 {
                world.tick(1000);
                sql(&d[0], "UPDATE t SET v = 'p', n = n + 1 WHERE k = 'x'; DELETE FROM t WHERE k = 'y'");
                world.tick(1000);
                sql(&d[1], "UPDATE t SET v = 'q' WHERE k = 'x'; UPDATE t SET n = n + 5 WHERE k = 'y'");
                world.tick(1000);
                sql(
                    &d[2],
                    &format!(
                        "UPDATE t SET n = n + 10 WHERE k = 'x'; INSERT INTO t VALUES ('w{round}', 1, 1)"
                    ),
                );
                for device in &mut d {
                    device.seal().unwrap();
                }
                all(&mut d);
                for device in &mut d {
                    device.compact().unwrap();
                }
            }
        }
    }
}

#[test]
fn a_policy_that_is_declared_again_holds_from_then_on() {
    for first in [0, 1] {
        let (world, mut d) =
            differing([way(Merge::Row, Policy::Manual, &[]), way(Merge::Cell, Policy::Lww, &[])], first);
        all(&mut d);
        d[2].track("t", &way(Merge::Cell, Policy::Manual, &[("n", ColumnMerge::Counter)])).unwrap();
        sql(&d[0], "UPDATE t SET n = 100 WHERE k = 'y'");
        all(&mut d);
        sql(&d[0], "UPDATE t SET n = n + 1 WHERE k = 'y'");
        sql(&d[1], "UPDATE t SET n = n + 2, v = 'b' WHERE k = 'y'");
        world.tick(1000);
        all(&mut d);
        assert_eq!(rows(&d[2], "SELECT v, n FROM t WHERE k = 'y'"), ["\"b\"|103"]);
        // Back again, while another one adds a column that knows only of the old way.
        d[0].track("t", &way(Merge::Row, Policy::Lww, &[("n", ColumnMerge::Counter)])).unwrap();
        d[1].add_column("t", "z", "TEXT", Some(&OwnedValue::Text(b"old".to_vec()))).unwrap();
        all(&mut d);
        for device in &mut d {
            let again = way(Merge::Row, Policy::Lww, &[("n", ColumnMerge::Counter)]);
            assert!(device.track("t", &again).unwrap().already);
        }
        let refused = d[1].track("t", &way(Merge::Row, Policy::Lww, &[]));
        assert!(refused.is_err_and(|e| e.to_string().contains("`n` is a counter")));
    }
}

/// A row of the one overwrote rows of the other.
#[test]
fn tables_with_different_primary_keys_leave_each_other_alone() {
    let world = World::new();
    let mut a = world.board_with("a", "CREATE TABLE t (k TEXT PRIMARY KEY, id)", &["t"]);
    let mut b = world.board_with("b", "CREATE TABLE t (k, id TEXT PRIMARY KEY)", &["t"]);
    sql(&a, "INSERT INTO t VALUES ('x', 'of a')");
    sql(&b, "INSERT INTO t VALUES ('x', 'of b'), ('x', 'of a')");
    for _ in 0..2 {
        carry_all(&mut [&mut a, &mut b]);
        assert_eq!(rows(&a, "SELECT id FROM t"), ["\"of a\""]);
        assert_eq!(rows(&b, "SELECT id FROM t ORDER BY 1"), ["\"of a\"", "\"of b\""]);
    }
    for engine in [&a, &b] {
        let notices = engine.status().unwrap().notices;
        assert!(notices.iter().any(|n| n.text.contains("another primary key on")), "{notices:?}");
        assert!(engine.conflicts().unwrap().is_empty());
        assert!(engine.verify().unwrap().problems.is_empty());
    }
}

/// Two devices whose applications made a column of different types, and one without an application, have met.
fn disputed_from_the_start(merge: Merge) -> (World, [Engine; 3]) {
    let world = World::new();
    let mut d = ["a", "b", "c"].map(|name| world.board(name));
    for (device, kind) in d.iter_mut().zip(["INTEGER", "TEXT"]) {
        sql(device, &format!("CREATE TABLE t (k TEXT PRIMARY KEY, v, x {kind})"));
        device.track("t", &TrackOptions { merge, ..TrackOptions::default() }).unwrap();
    }
    sql(&d[0], "INSERT INTO t VALUES ('a', 1, 7)");
    sql(&d[1], "INSERT INTO t VALUES ('b', 2, '05')");
    all(&mut d);
    schema_conflict(&d[2]);
    (world, d)
}

/// Who renames a disputed column makes room for that of the others, which Packmule makes in its table. When another application
/// renamed or dropped its own too, it waited for ever for that column, which no application has: it follows the others now.
#[test]
fn two_applications_that_rename_a_disputed_column_go_on_both() {
    let kinds = [
        ("RENAME COLUMN x TO y", "y", ["\"7\"", "\"05\""]),
        ("RENAME COLUMN x TO z", "z", ["\"7\"", "\"05\""]),
        ("DROP COLUMN x", "k", ["\"a\"", "\"b\""]),
    ];
    for ((second, column, values), merge) in kinds.iter().flat_map(|k| [(k, Merge::Row), (k, Merge::Cell)]) {
        let (_world, mut d) = disputed_from_the_start(merge);
        sql(&d[0], "ALTER TABLE t RENAME COLUMN x TO y");
        all(&mut d);
        assert_eq!(
            kind_of(&d[0], "x"),
            "\"TEXT\"",
            "the control: it has one that its application did not make"
        );
        sql(&d[1], &format!("ALTER TABLE t {second}"));
        all(&mut d);
        all(&mut d);
        for device in &d {
            let table = device.status().unwrap().tables.remove(0);
            assert_eq!(table.how, packmule::TableHow::Shared, "{second}: {:?}", table.note);
            assert_eq!(device.conflicts().unwrap(), [], "{second}");
            let x = rows(device, "SELECT count(*) FROM pragma_table_info('t') WHERE name = 'x'");
            assert_eq!(x, ["0"], "{second} {}", device.identity().name);
            let shown = rows(device, &format!("SELECT {column} FROM t ORDER BY k"));
            assert_eq!(shown, *values, "{second} {}", device.identity().name);
        }
        // And the row that the first one wrote has its value under the name that this gave to it.
        assert_eq!(rows(&d[0], "SELECT CAST(y AS TEXT) FROM t WHERE k = 'a'"), ["\"7\""], "{second}");
    }
}

/// Two devices with an application and one without have met, with a disputed column; both applications rename it before they
/// meet again.
fn both_rename(merge: Merge, (first, second): (&str, &str), sealed: bool) -> (World, [Engine; 3]) {
    let (world, mut d) = disputed_from_the_start(merge);
    for (device, name) in d.iter_mut().zip([first, second]) {
        sql(device, &format!("ALTER TABLE t RENAME COLUMN x TO {name}"));
        if sealed {
            device.seal().unwrap();
            assert_eq!(columns(device), ["\"k\"", "\"v\"", &format!("\"{name}\""), "\"x\""], "the control");
        }
    }
    all(&mut d);
    all(&mut d);
    (world, d)
}

fn columns(engine: &Engine) -> Vec<String> {
    rows(engine, "SELECT name FROM pragma_table_info('t')")
}

/// Each makes room for the column of the other, which no application has any more: that goes again. What both renamed it to is
/// disputed now, as the column was before, and somebody decides.
#[test]
fn a_disputed_column_that_both_rename_is_disputed_under_its_new_name() {
    for (merge, sealed, taken) in [Merge::Row, Merge::Cell].iter().flat_map(|merge| {
        [(false, 0), (false, 1), (true, 0), (true, 1)].map(|(sealed, taken)| (*merge, sealed, taken))
    }) {
        let (world, mut d) = both_rename(merge, ("y", "y"), sealed);
        for device in &d {
            assert_eq!(columns(device), ["\"k\"", "\"v\"", "\"y\""]);
            assert_eq!(schema_conflict(device).kind, ConflictKind::Schema("y".into()));
            assert_eq!(device.status().unwrap().tables[0].note, None);
        }
        assert_eq!(rows(&d[0], "SELECT y FROM t ORDER BY k"), ["7", "NULL"]);
        assert_eq!(rows(&d[1], "SELECT y FROM t ORDER BY k"), ["NULL", "\"05\""]);
        world.tick(1000);
        sql(&d[0], "UPDATE t SET y = 8, v = 3 WHERE k = 'a'");
        for device in &mut d {
            device.compact().unwrap();
        }
        all(&mut d);
        let id = schema_conflict(&d[2]).id;
        let device = d[taken].identity().id;
        d[2].resolve(&id, &Resolution::Take(device)).unwrap();
        all(&mut d);
        all(&mut d);
        let (kind, a, b) = [("\"INTEGER\"", "8", "5"), ("\"TEXT\"", "\"8\"", "\"05\"")][taken];
        for device in &d {
            assert_eq!(device.conflicts().unwrap(), []);
            assert_eq!(kind_of(device, "y"), kind);
            assert_eq!(rows(device, "SELECT v, y FROM t ORDER BY k"), [format!("3|{a}"), format!("2|{b}")]);
        }
    }
}

/// Each waits for the other's column then, as for any that another application has.
#[test]
fn a_disputed_column_that_both_rename_otherwise_is_two_columns() {
    for (merge, sealed) in
        [(Merge::Row, false), (Merge::Row, true), (Merge::Cell, false), (Merge::Cell, true)]
    {
        let (_world, mut d) = both_rename(merge, ("y", "z"), sealed);
        assert_eq!(columns(&d[2]), ["\"k\"", "\"v\"", "\"y\"", "\"z\""]);
        assert_eq!(d[2].conflicts().unwrap(), []);
        sql(&d[0], "ALTER TABLE t ADD COLUMN z TEXT");
        sql(&d[1], "ALTER TABLE t ADD COLUMN y INTEGER");
        all(&mut d);
        all(&mut d);
        for device in &d {
            assert_eq!(device.status().unwrap().tables[0].note, None);
            assert_eq!(device.conflicts().unwrap(), []);
            assert_eq!(rows(device, "SELECT v, y, z FROM t ORDER BY k"), ["1|7|NULL", "2|NULL|\"05\""]);
        }
    }
}

/// Whoever decided of what type a disputed column is, or how a column merges, added it where an application lacks it: that one's
/// next insert by position failed.
#[test]
fn a_decision_on_a_column_adds_it_to_no_table_of_another_application() {
    for decides in ["the application", "a person", "how it merges"] {
        let world = World::new();
        let mut d = ["a", "b", "c"].map(|name| world.board(name));
        for device in &mut d {
            sql(device, "CREATE TABLE t (k TEXT PRIMARY KEY, v)");
            device.track("t", &TrackOptions::default()).unwrap();
        }
        all(&mut d);
        let disputed = decides != "how it merges";
        for (device, kind) in d.iter().zip(["INTEGER", if disputed { "TEXT" } else { "INTEGER" }]) {
            sql(device, &format!("ALTER TABLE t ADD COLUMN x {kind}"));
        }
        let [a, b, c] = &mut d;
        carry_all(&mut [a, b, c]);
        // A dispute on a column that some device lacks counts nowhere, as all else that is in the column.
        digests_equal(&[&d[0], &d[1], &d[2]]);
        assert_eq!(d[0].conflicts().unwrap().len(), usize::from(disputed), "the control");
        match decides {
            "the application" => {
                sql(&d[0], "ALTER TABLE t DROP COLUMN x; ALTER TABLE t ADD COLUMN x TEXT");
            }
            "a person" => {
                let (id, b) = (schema_conflict(&d[0]).id, d[1].identity().id);
                d[0].resolve(&id, &Resolution::Take(b)).unwrap();
            }
            _ => {
                let columns = vec![("x".to_owned(), ColumnMerge::Max)];
                d[0].track("t", &TrackOptions { columns, ..TrackOptions::default() }).unwrap();
            }
        }
        all(&mut d);
        assert_eq!(d[0].conflicts().unwrap(), [], "{decides}");
        sql(&d[2], "INSERT INTO t VALUES ('of c', 1)");
        all(&mut d);
        let there = rows(&d[0], "SELECT k, v FROM t");
        assert_eq!(there, ["\"of c\"|1"], "{decides}");
        assert!(note_of(&d[2]).contains("`x`"), "{decides}: {}", note_of(&d[2]));
        // What a person adds for all is there for all.
        d[1].add_column("t", "y", "TEXT", None).unwrap();
        all(&mut d);
        assert_eq!(kind_of(&d[2], "y"), "\"TEXT\"", "{decides}");
    }
}

fn note_of(engine: &Engine) -> String {
    engine.status().unwrap().tables.remove(0).note.unwrap_or_default()
}
