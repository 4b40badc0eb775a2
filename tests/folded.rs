//! What one device has folded and another remembers makes no difference to what they show and list.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod common;
use common::*;
use packmule::{ConflictKind, Engine, Merge, TrackOptions};

/// Devices with a table that the first one makes, which all know each other.
fn fleet<const N: usize>(schema: &str, merge: Merge) -> (World, [Engine; N]) {
    let world = World::new();
    let mut devices: Vec<Engine> = (0..N).map(|n| world.board(&format!("d{n}"))).collect();
    sql(&devices[0], schema);
    devices[0].track("t", &TrackOptions { merge, ..TrackOptions::default() }).unwrap();
    let mut devices = devices.try_into().unwrap_or_else(|_| unreachable!());
    meet(&mut devices);
    (world, devices)
}

fn meet<const N: usize>(devices: &mut [Engine; N]) {
    carry_all(&mut devices.iter_mut().collect::<Vec<_>>());
}

fn alike<const N: usize>(devices: &mut [Engine; N]) {
    meet(devices);
    digests_equal(&devices.iter().collect::<Vec<_>>());
    for device in devices.iter() {
        assert_eq!(device.conflicts().unwrap(), devices[0].conflicts().unwrap());
    }
}

fn write(device: &mut Engine, text: &str) {
    sql(device, text);
    device.seal().unwrap();
}

fn shown(device: &Engine) -> Vec<String> {
    rows(device, "SELECT k FROM t ORDER BY k")
}

#[test]
fn a_unique_that_is_made_later_finds_the_same_row_first_everywhere() {
    let (_world, mut d) = fleet::<4>("CREATE TABLE t (k TEXT PRIMARY KEY, u)", Merge::Row);
    // By the stamps alone `z` is older; whoever makes the UNIQUE has seen `a`, and not `z`.
    write(&mut d[2], "INSERT INTO t VALUES ('z', 'w')");
    for n in 0..10 {
        write(&mut d[0], &format!("INSERT OR REPLACE INTO t VALUES ('other', {n})"));
    }
    write(&mut d[0], "INSERT INTO t VALUES ('a', 'w')");
    for n in [3, 1, 2] {
        let [first, others @ ..] = &mut d;
        carry(first, &mut others[n - 1]);
        carry(&mut others[n - 1], first);
    }
    assert!(d[0].compact().unwrap().versions > 0);
    sql(&d[3], "CREATE UNIQUE INDEX later ON t (u)");
    alike(&mut d);
    for device in &d {
        assert_eq!(shown(device), ["\"a\"", "\"other\""]);
    }
}

#[test]
fn a_row_that_comes_in_again_finds_the_same_claims_everywhere() {
    for merge in [Merge::Row, Merge::Cell] {
        let (world, mut d) = fleet::<3>("CREATE TABLE t (k TEXT PRIMARY KEY, p UNIQUE, q UNIQUE)", merge);
        write(&mut d[0], "INSERT INTO t VALUES ('first', 'p', NULL)");
        world.tick(1_000);
        write(&mut d[1], "INSERT INTO t VALUES ('kept out', 'p', 'q')");
        meet(&mut d);
        assert_eq!(shown(&d[1]), ["\"first\""]);
        write(&mut d[1], "INSERT INTO t VALUES ('third', NULL, 'q')");
        meet(&mut d);
        d[0].compact().unwrap();
        // `kept out` claimed its values before `third` did.
        write(&mut d[2], "UPDATE t SET p = 'free' WHERE k = 'first'");
        alike(&mut d);
        for device in &d {
            assert_eq!(shown(device), ["\"first\"", "\"kept out\""]);
        }
    }
}

#[test]
fn who_wrote_a_quarantined_row_is_listed_alike() {
    let (world, mut d) = fleet::<3>("CREATE TABLE t (k TEXT PRIMARY KEY, a, u UNIQUE)", Merge::Cell);
    // Its author's clock is far ahead: of what it wrote the greater part is still shown later on.
    world.tick(1_000_000_000);
    write(&mut d[2], "INSERT INTO t VALUES ('kept out', 's', NULL)");
    world.tick(-1_000_000_000);
    meet(&mut d);
    assert!(d[0].compact().unwrap().versions > 0);
    write(&mut d[2], "INSERT INTO t VALUES ('first', 's', 'w')");
    write(&mut d[1], "UPDATE t SET u = 'w' WHERE k = 'kept out'");
    alike(&mut d);
    let author = d[1].identity().id;
    for device in &d {
        let conflicts = device.conflicts().unwrap();
        let [conflict] = &conflicts[..] else { panic!("{conflicts:?}") };
        assert_eq!(conflict.kind, ConflictKind::Unique(vec!["u".into()]));
        assert_eq!(conflict.versions[0].device, Some(author));
    }
}

const PARENTS: &str =
    "CREATE TABLE p (k TEXT PRIMARY KEY); CREATE TABLE t (k TEXT PRIMARY KEY, p TEXT REFERENCES p (k))";

const FORGET: &str = "PRAGMA foreign_keys = OFF; DELETE FROM p";

/// Looks whether the devices list alike, as the one conflict, a row that refers to nothing, and nobody as its author.
fn lists_an_orphan<const N: usize>(devices: &mut [Engine; N]) {
    alike(devices);
    let conflicts = devices[0].conflicts().unwrap();
    let [conflict] = &conflicts[..] else { panic!("{conflicts:?}") };
    assert!(matches!(conflict.kind, ConflictKind::ForeignKey(..)));
    assert_eq!(conflict.versions[0].device, None);
}

fn family() -> (World, [Engine; 3]) {
    let (world, mut d) = fleet::<3>(PARENTS, Merge::Row);
    d[0].track("p", &TrackOptions::default()).unwrap();
    sql(&d[0], "INSERT INTO p VALUES ('gone'); INSERT INTO t VALUES ('old', NULL)");
    meet(&mut d);
    (world, d)
}

#[test]
fn a_row_that_refers_to_nothing_is_listed_alike_whoever_folds() {
    for folds in [0, 1, 2] {
        let (_world, mut d) = family();
        write(&mut d[0], "INSERT INTO t VALUES ('child', 'gone')");
        meet(&mut d);
        assert!(d[folds].compact().unwrap().versions > 0);
        write(&mut d[1], FORGET);
        lists_an_orphan(&mut d);
        write(&mut d[2], "PRAGMA foreign_keys = OFF; UPDATE t SET p = 'nobody' WHERE k = 'child'");
        d[folds].compact().unwrap();
        lists_an_orphan(&mut d);

        // The other row comes back, and goes again.
        write(&mut d[0], "INSERT INTO p VALUES ('nobody')");
        alike(&mut d);
        assert!(d[0].conflicts().unwrap().is_empty());
        d[folds].compact().unwrap();
        write(&mut d[0], FORGET);
        lists_an_orphan(&mut d);
    }
}

/// Who deleted the other row had not seen it. A newcomer has it from a state.
#[test]
fn a_row_that_refers_to_nothing_is_listed_alike_by_who_comes_later() {
    let (world, mut d) = family();
    write(&mut d[0], "INSERT INTO t VALUES ('child', 'gone')");
    write(&mut d[1], FORGET);
    meet(&mut d);
    d[0].compact().unwrap();
    let [a, b, c] = d;
    let late = world.board("late");
    app(&late).execute_batch(PARENTS).unwrap();
    let mut all = [a, b, c, late];
    ["p", "t"].iter().for_each(|table| _ = all[3].track(table, &TrackOptions::default()).unwrap());
    lists_an_orphan(&mut all);
}

#[test]
fn who_has_a_value_that_a_later_unique_disputes_is_listed_alike() {
    let (_world, mut d) = fleet::<3>("CREATE TABLE t (k TEXT PRIMARY KEY, u)", Merge::Row);
    write(&mut d[0], "INSERT INTO t VALUES ('a', 'w')");
    meet(&mut d);
    assert!(d[0].compact().unwrap().versions > 0);
    write(&mut d[1], "CREATE UNIQUE INDEX later ON t (u)");
    write(&mut d[2], "INSERT INTO t VALUES ('b', 'w')");
    alike(&mut d);
    let conflicts = d[0].conflicts().unwrap();
    let [conflict] = &conflicts[..] else { panic!("{conflicts:?}") };
    let devices: Vec<_> = conflict.versions.iter().map(|v| v.device).collect();
    assert_eq!(devices, [Some(d[2].identity().id), None]);
}

/// By which value it was referred to a device cannot ask of a row that its application has changed.
#[test]
fn a_row_that_was_referred_to_by_another_column_changes_it() {
    for change in ["UPDATE p SET code = 'new'", "DELETE FROM p", "UPDATE p SET k = 'other', code = 'new'"] {
        let (_world, mut d) = fleet::<3>(
            "CREATE TABLE p (k TEXT PRIMARY KEY, code UNIQUE); CREATE TABLE t (k TEXT PRIMARY KEY, c REFERENCES p (code))",
            Merge::Row,
        );
        d[0].track("p", &TrackOptions::default()).unwrap();
        sql(&d[0], "INSERT INTO p VALUES ('p', 'old'); INSERT INTO t VALUES ('child', 'old')");
        meet(&mut d);
        write(&mut d[1], &format!("PRAGMA foreign_keys = OFF; {change}"));
        alike(&mut d);
        let conflicts = d[0].conflicts().unwrap();
        assert!(
            matches!(&conflicts[..], [only] if matches!(only.kind, ConflictKind::ForeignKey(..))),
            "{change}"
        );
    }
}

/// References compare by the collation of what they refer to.
#[test]
fn a_row_that_was_referred_to_in_another_spelling_is_deleted() {
    for (parent, child, value) in [
        ("TEXT COLLATE NOCASE", "TEXT", "'A'"),
        ("TEXT COLLATE RTRIM", "TEXT COLLATE NOCASE", "'a '"),
        ("INTEGER", "", "'1'"),
        ("TEXT", "", "1"),
    ] {
        let (_world, mut d) = fleet::<3>(
            &format!(
                "CREATE TABLE p (k {parent} PRIMARY KEY); CREATE TABLE t (k TEXT PRIMARY KEY, p {child} REFERENCES p (k))"
            ),
            Merge::Row,
        );
        d[0].track("p", &TrackOptions::default()).unwrap();
        sql(
            &d[0],
            &format!("INSERT INTO p VALUES (lower({value})); INSERT INTO t VALUES ('child', {value})"),
        );
        meet(&mut d);
        assert!(d[0].conflicts().unwrap().is_empty());
        write(&mut d[1], FORGET);
        alike(&mut d);
        assert_eq!(d[0].conflicts().unwrap().len(), 1, "{parent}");
        write(&mut d[2], &format!("INSERT INTO p VALUES (lower({value}))"));
        alike(&mut d);
        assert!(d[0].conflicts().unwrap().is_empty());
    }
}

/// That a row refers to nothing matters from when the other table is synced, whichever came first.
#[test]
fn a_table_that_rows_refer_to_is_tracked_later() {
    let (_world, mut d) = fleet::<3>(PARENTS, Merge::Row);
    write(&mut d[0], "PRAGMA foreign_keys = OFF; INSERT INTO t VALUES ('before', 'nothing')");
    meet(&mut d);
    write(&mut d[1], "PRAGMA foreign_keys = OFF; INSERT INTO t VALUES ('meanwhile', 'nothing')");
    d[0].track("p", &TrackOptions::default()).unwrap();
    alike(&mut d);
    assert_eq!(d[0].conflicts().unwrap().len(), 2);
}

#[test]
fn a_row_of_a_table_of_each_device_is_referred_to() {
    let (_world, mut d) = fleet::<3>(PARENTS, Merge::Row);
    for device in &mut d {
        sql(device, "CREATE TABLE IF NOT EXISTS p (k TEXT PRIMARY KEY)");
        device
            .track("p", &TrackOptions { mode: packmule::Mode::PerDevice, ..TrackOptions::default() })
            .unwrap();
    }
    sql(&d[0], "INSERT INTO p VALUES ('mine'); INSERT INTO t VALUES ('child', 'mine')");
    alike(&mut d);
    assert!(d[2].conflicts().unwrap().is_empty());
}

/// A table that a device lets go and tracks again: what is done to it there meanwhile, and elsewhere, and which of both has
/// folded what was before. A settled row that went there is in no log.
#[test]
fn a_table_that_is_tracked_again_ends_alike_whoever_has_folded() {
    const WRITES: [&str; 4] = [
        "SELECT 1",
        "DELETE FROM t WHERE k = 'a'",
        "UPDATE t SET u = 'other' WHERE k = 'a'",
        "DELETE FROM t; INSERT INTO t VALUES ('d', 'new')",
    ];
    for (folds, before) in [[false, false], [true, false], [false, true], [true, true]]
        .into_iter()
        .flat_map(|folds| [(folds, true), (folds, false)])
    {
        for (here, there) in WRITES.iter().flat_map(|here| WRITES.map(|there| (here, there))) {
            let (_world, mut d) = fleet::<2>("CREATE TABLE t (k TEXT PRIMARY KEY, u)", Merge::Row);
            write(&mut d[0], "INSERT INTO t VALUES ('a', 1), ('b', 2), ('c', 3)");
            meet(&mut d);
            for device in d.iter_mut().zip(folds).filter(|(_, folds)| *folds) {
                assert!(device.0.compact().unwrap().versions > 0);
            }
            d[0].untrack("t").unwrap();
            sql(&d[0], here);
            write(&mut d[1], there);
            if before {
                meet(&mut d);
            }
            d[0].track("t", &TrackOptions::default()).unwrap();
            meet(&mut d);
            let what = format!("{folds:?}, {here}; {there}, heard before: {before}");
            let [one, other] = [0, 1].map(|n| d[n].digest(false).unwrap());
            assert_eq!(one, other, "{what}");
            assert_eq!(d[0].conflicts().unwrap(), d[1].conflicts().unwrap(), "{what}");
            assert_eq!(shown(&d[0]), shown(&d[1]), "{what}");
        }
    }
}

/// What a person adds is added everywhere, also where an application made the table, and where it comes with a state.
#[test]
fn a_column_that_a_person_added_comes_with_a_state() {
    for later in [false, true] {
        let (world, mut d) = fleet::<2>("CREATE TABLE t (k TEXT PRIMARY KEY, u)", Merge::Row);
        write(&mut d[0], "INSERT INTO t VALUES ('a', 1)");
        meet(&mut d);
        d[0].add_column("t", "size", "INTEGER", None).unwrap();
        meet(&mut d);
        for device in &mut d {
            device.compact().unwrap();
        }
        meet(&mut d);
        let mut new = world.board("new");
        sql(&new, "CREATE TABLE t (k TEXT PRIMARY KEY, u); INSERT INTO t VALUES ('b', 2)");
        if later {
            carry(&mut d[0], &mut new);
        }
        new.track("t", &TrackOptions::default()).unwrap();
        carry_all(&mut [&mut new, &mut d[0]]);
        digests_equal(&[&new, &d[0]]);
        let columns = "SELECT name FROM pragma_table_info('t')";
        assert_eq!(rows(&new, columns), rows(&d[0], columns), "tracked later: {later}");
        sql(&new, "UPDATE t SET size = 5");
        carry(&mut new, &mut d[0]);
        assert_eq!(rows(&d[0], "SELECT size FROM t"), ["5", "5"]);
    }
}
