//! Tables that their application makes anew: what is as it was is no write, and what differs is the weakest of writes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod common;
use common::*;
use packmule::{ColumnMerge, ConflictKind, Engine, Merge, Mode, Policy, TrackOptions};

const ITEM: &str = "CREATE TABLE item (id TEXT PRIMARY KEY, name TEXT, n INTEGER)";

/// The twelve steps of a migration, with what the copy makes of each row.
fn rebuild(select: &str) -> String {
    format!(
        "PRAGMA foreign_keys = OFF; BEGIN;
         CREATE TABLE item_new (id TEXT PRIMARY KEY, name TEXT, n INTEGER, note TEXT DEFAULT 'x');
         INSERT INTO item_new (id, name, n) SELECT {select};
         DROP TABLE item; ALTER TABLE item_new RENAME TO item; COMMIT"
    )
}

fn as_it_was() -> String {
    rebuild("id, name, n FROM item")
}

const ALL: [(Merge, Policy); 4] = [
    (Merge::Row, Policy::Manual),
    (Merge::Row, Policy::Lww),
    (Merge::Cell, Policy::Manual),
    (Merge::Cell, Policy::Lww),
];

/// Three devices with three rows each has; `folded`: nobody remembers who wrote them.
fn three(merge: Merge, policy: Policy, folded: bool) -> (World, [Engine; 3]) {
    three_with(
        &TrackOptions { merge, policy, ..TrackOptions::default() },
        "('1', 'one', 1), ('2', 'two', 2), ('3', 'three', 3)",
        folded,
    )
}

fn three_with(options: &TrackOptions, items: &str, folded: bool) -> (World, [Engine; 3]) {
    let world = World::new();
    let mut devices = ["a", "b", "c"].map(|name| world.board(name));
    for device in &mut devices {
        sql(device, ITEM);
        device.track("item", options).unwrap();
    }
    sql(&devices[0], &format!("INSERT INTO item VALUES {items}"));
    meet(&mut devices);
    if folded {
        meet(&mut devices);
        for _ in 0..2 {
            devices.iter_mut().for_each(|device| drop(device.compact().unwrap()));
            meet(&mut devices);
        }
    }
    (world, devices)
}

fn meet(devices: &mut [Engine; 3]) {
    carry_all(&mut devices.iter_mut().collect::<Vec<_>>());
}

fn all_equal(devices: &[Engine; 3]) {
    let columns = |d: &Engine| rows(d, "SELECT count(*) FROM pragma_table_info('item')");
    if devices.iter().all(|device| columns(device) == columns(&devices[0])) {
        digests_equal(&devices.iter().collect::<Vec<_>>());
    }
    for device in devices {
        let shown = |d: &Engine| rows(d, "SELECT id, name, n FROM item ORDER BY id");
        assert_eq!(shown(device), shown(&devices[0]));
        assert_eq!(device.conflicts().unwrap(), devices[0].conflicts().unwrap());
        assert!(device.verify().unwrap().problems.is_empty());
    }
}

#[test]
fn a_rebuild_that_changes_nothing_undoes_nothing_and_travels_for_nothing() {
    for (merge, policy) in ALL {
        let (world, mut devices) = three(merge, policy, false);
        sql(&devices[0], "UPDATE item SET name = 'edited' WHERE id = '1'; DELETE FROM item WHERE id = '2'");
        devices[0].seal().unwrap();
        world.tick(5000);
        sql(&devices[1], &as_it_was());
        let sealed = devices[1].seal().unwrap();
        assert_eq!(sealed.ops, 0, "{merge:?} {policy:?}");
        meet(&mut devices);
        sql(&devices[2], &as_it_was());
        sql(&devices[0], &as_it_was());
        meet(&mut devices);
        all_equal(&devices);
        assert_eq!(
            rows(&devices[1], "SELECT id, name FROM item ORDER BY id"),
            ["\"1\"|\"edited\"", "\"3\"|\"three\""]
        );
        assert!(devices[0].conflicts().unwrap().is_empty(), "{merge:?} {policy:?}");
    }
}

#[test]
fn what_a_rebuild_changes_loses_to_what_its_author_had_not_seen_and_wins_over_the_rest() {
    for folded in [false, true] {
        for (merge, policy) in ALL {
            let (world, mut devices) = three(merge, policy, folded);
            sql(&devices[0], "UPDATE item SET name = 'edited' WHERE id = '1'");
            devices[0].seal().unwrap();
            world.tick(5000);
            // It writes all names, leaves one row out, and deletes one before the next seal.
            sql(&devices[1], &rebuild("id, upper(name), n FROM item WHERE id <> '2'"));
            sql(
                &devices[1],
                "DELETE FROM item WHERE id = '3'; INSERT INTO item VALUES ('4', 'four', 4, 'new')",
            );
            sql(&devices[2], "UPDATE item SET n = 30 WHERE id = '3'");
            meet(&mut devices);
            all_equal(&devices);
            let what = format!("{merge:?} {policy:?} folded {folded}");
            let names = rows(&devices[0], "SELECT id, name, n FROM item ORDER BY id");
            assert_eq!(names, ["\"1\"|\"edited\"|1", "\"3\"|\"three\"|30", "\"4\"|\"four\"|4"], "{what}");
            assert!(devices[0].conflicts().unwrap().is_empty(), "{what}");
            // A next write is one like any other.
            sql(&devices[1], "UPDATE item SET name = 'again' WHERE id = '1'");
            meet(&mut devices);
            all_equal(&devices);
            assert_eq!(rows(&devices[2], "SELECT name FROM item WHERE id = '1'"), ["\"again\""], "{what}");
        }
    }
}

/// Two edits that had not seen each other are a conflict, also where one of them was rebuilt over.
#[test]
fn a_rebuild_hides_no_conflict() {
    for late in [false, true] {
        let (_world, mut devices) = three(Merge::Row, Policy::Manual, false);
        sql(&devices[0], "UPDATE item SET name = 'a' WHERE id = '1'");
        devices[0].seal().unwrap();
        sql(&devices[0], &rebuild("id, upper(name), n FROM item"));
        if late {
            let [a, _, c] = &mut devices;
            carry(a, c);
            assert_eq!(rows(c, "SELECT name FROM item WHERE id = '1'"), ["\"A\""]);
        }
        sql(&devices[1], "UPDATE item SET name = 'b' WHERE id = '1'");
        meet(&mut devices);
        all_equal(&devices);
        let conflicts = devices[2].conflicts().unwrap();
        assert_eq!(conflicts.len(), 1, "{conflicts:?}");
        assert_eq!(conflicts[0].versions.len(), 2);
        let id = conflicts[0].id.clone();
        devices[2].resolve(&id, &packmule::Resolution::Take(devices[0].identity().id)).unwrap();
        meet(&mut devices);
        all_equal(&devices);
        assert_eq!(rows(&devices[1], "SELECT name FROM item WHERE id = '1'"), ["\"a\""]);
    }
}

/// Nor is a delete that somebody else's edit disputes undone by who changes another column with a rebuild: the conflict was gone,
/// and where the column had been dropped it was left without versions.
#[test]
fn a_rebuild_of_a_column_decides_about_no_delete() {
    for merge in [Merge::Row, Merge::Cell] {
        let (_world, mut devices) = three(merge, Policy::Manual, false);
        sql(&devices[0], "DELETE FROM item WHERE id = '1'");
        sql(&devices[1], "UPDATE item SET name = 'b' WHERE id = '1'");
        meet(&mut devices);
        let open = |device: &Engine| {
            let listed = device.conflicts().unwrap().into_iter();
            listed.map(|one| (one.kind, one.versions.len())).collect::<Vec<_>>()
        };
        let before = [(ConflictKind::UpdateDelete, 2)];
        assert_eq!(open(&devices[2]), before);
        for (device, n) in devices.iter().zip(["n", "n", "n + 1"]) {
            sql(device, &rebuild(&format!("id, name, {n} FROM item")));
        }
        meet(&mut devices);
        all_equal(&devices);
        devices.iter().for_each(|device| assert_eq!(open(device), before, "{merge:?}"));
        assert_eq!(rows(&devices[0], "SELECT n FROM item WHERE id = '2'"), ["3"], "the control");
        devices.iter().for_each(|device| sql(device, "ALTER TABLE item DROP COLUMN n"));
        meet(&mut devices);
        digests_equal(&devices.iter().collect::<Vec<_>>());
        devices.iter().for_each(|device| assert_eq!(open(device), before, "{merge:?}"));
    }
}

#[test]
fn all_devices_migrate_one_after_the_other() {
    for folded in [false, true] {
        let (_world, mut devices) = three(Merge::Row, Policy::Manual, folded);
        for d in 0..3 {
            sql(&devices[d], &rebuild("id, name || '!', n FROM item"));
            sql(&devices[(d + 1) % 3], &format!("INSERT INTO item (id, name, n) VALUES ('n{d}', 'new', 0)"));
            meet(&mut devices);
            all_equal(&devices);
        }
        assert!(devices[0].conflicts().unwrap().is_empty());
        assert_eq!(rows(&devices[0], "SELECT count(*) FROM item"), ["6"]);
    }
}

/// An equal row is not written: no trigger of the application fires for it, and it is no op.
#[test]
fn an_equal_row_is_not_written() {
    let (_world, mut devices) = three(Merge::Row, Policy::Manual, true);
    sql(
        &devices[1],
        "CREATE TABLE audit (id); CREATE TRIGGER au AFTER UPDATE ON item BEGIN INSERT INTO audit VALUES (NEW.id); END;
         CREATE TRIGGER ai AFTER INSERT ON item BEGIN INSERT INTO audit VALUES (NEW.id); END;
         CREATE TRIGGER ad AFTER DELETE ON item BEGIN INSERT INTO audit VALUES (OLD.id); END",
    );
    sql(&devices[0], "BEGIN; CREATE TABLE x AS SELECT * FROM item; DROP TABLE item; CREATE TABLE item (id TEXT PRIMARY KEY, name TEXT, n INTEGER);
         INSERT INTO item SELECT * FROM x; DROP TABLE x; COMMIT");
    let [a, b, _] = &mut devices;
    assert_eq!(carry(a, b).ops, 0);
    assert!(rows(b, "SELECT * FROM audit").is_empty());
    meet(&mut devices);
    all_equal(&devices);
}

#[test]
fn per_device_rows_that_a_rebuild_leaves_out_are_gone_at_the_base() {
    let world = World::new();
    let mut board = world.board("board");
    let mut base = world.base("base");
    sql(&board, ITEM);
    board.track("item", &TrackOptions { mode: Mode::PerDevice, ..TrackOptions::default() }).unwrap();
    sql(&board, "INSERT INTO item VALUES ('1', 'one', 1), ('2', 'two', 2), ('3', 'three', 3)");
    carry(&mut board, &mut base);
    sql(&board, &rebuild("id, name, n FROM item WHERE id <> '2'"));
    sql(&board, "DELETE FROM item WHERE id = '3'; INSERT INTO item VALUES ('4', 'four', 4, 'y')");
    carry_all(&mut [&mut board, &mut base]);
    assert_eq!(
        rows(&base, "SELECT id, name, note FROM item ORDER BY id"),
        ["\"1\"|\"one\"|\"x\"", "\"4\"|\"four\"|\"y\""]
    );
}

/// Dropped and created again, with a seal between or not: it goes on as it was declared.
#[test]
fn a_dropped_table_goes_on_when_it_is_back() {
    for seal_between in [false, true] {
        for folded in [false, true] {
            let (_world, mut devices) = three(Merge::Cell, Policy::Lww, folded);
            sql(&devices[0], "DROP TABLE item");
            if seal_between {
                devices[0].seal().unwrap();
                let held = devices[0].status().unwrap().tables;
                assert_eq!(held[0].how, packmule::TableHow::Suspended);
            }
            sql(&devices[1], "UPDATE item SET name = 'edited' WHERE id = '2'");
            if seal_between {
                let [a, b, _] = &mut devices;
                carry(b, a);
            }
            sql(&devices[0], ITEM);
            sql(&devices[0], "INSERT INTO item VALUES ('1', 'one', 1), ('new', 'new', 0)");
            meet(&mut devices);
            meet(&mut devices);
            all_equal(&devices);
            let names = rows(&devices[2], "SELECT id, name FROM item ORDER BY id");
            assert_eq!(
                names,
                ["\"1\"|\"one\"", "\"2\"|\"edited\"", "\"new\"|\"new\""],
                "{seal_between} {folded}"
            );
            // As it was declared.
            sql(&devices[0], "UPDATE item SET name = 'a' WHERE id = '1'");
            sql(&devices[1], "UPDATE item SET n = 5 WHERE id = '1'");
            meet(&mut devices);
            all_equal(&devices);
            assert_eq!(rows(&devices[2], "SELECT name, n FROM item WHERE id = '1'"), ["\"a\"|5"]);
        }
    }
}

/// A row that a rebuild left out, and another device edits in part at the same time, stays, with all that it was.
#[test]
fn an_edit_in_part_keeps_the_whole_of_a_row_that_a_rebuild_leaves_out() {
    let orders: [&[(usize, usize)]; 8] = [
        &[],
        &[(0, 1)],
        &[(1, 0)],
        &[(0, 2), (1, 2)],
        &[(1, 2), (0, 2)],
        &[(1, 0), (0, 1), (1, 0)],
        &[(1, 2), (2, 0), (0, 2)],
        &[(1, 2), (2, 0), (0, 1)],
    ];
    for (merge, policy) in [(Merge::Row, Policy::Manual), (Merge::Cell, Policy::Lww)] {
        for folded in [false, true] {
            for order in orders {
                for written_before in [false, true] {
                    edit_in_part((merge, policy, folded), order, written_before, false);
                }
                if folded && !order.is_empty() {
                    edit_in_part((merge, policy, folded), order, false, true);
                }
            }
        }
    }
}

/// One device leaves a row out, another edits a part of it. `for_anyone`: where something is folded, bundles begin with a
/// state, which stands for the frames of the rebuild.
fn edit_in_part(
    (merge, policy, folded): (Merge, Policy, bool),
    order: &[(usize, usize)],
    written_before: bool,
    for_anyone: bool,
) {
    let how = format!("{merge:?} {policy:?} folded {folded} {order:?} {written_before} {for_anyone}");
    let (world, mut devices) = three(merge, policy, folded);
    if written_before {
        // The log tells of a part of the row, and nobody of the rest.
        sql(&devices[2], "UPDATE item SET name = 'first' WHERE id = '2'");
        meet(&mut devices);
    }
    sql(&devices[0], &rebuild("id, name, n FROM item WHERE id <> '2'"));
    devices[0].seal().unwrap();
    world.tick(5000);
    sql(&devices[1], "UPDATE item SET name = 'edited' WHERE id = '2'");
    for (from, to) in order {
        if for_anyone {
            let bytes = whole_bundle(&mut devices[*from]);
            import(&mut devices[*to], &bytes);
        } else {
            carry_between(&mut devices, *from, *to);
        }
    }
    meet(&mut devices);
    meet(&mut devices);
    let now = rows(&devices[0], "SELECT id, name, n FROM item WHERE id = '2'");
    assert_eq!(now, ["\"2\"|\"edited\"|2"], "{how}");
    all_equal(&devices);
}

/// A row that a rebuild leaves out goes also where a state stands for the rebuild's frames.
#[test]
fn a_state_leaves_out_what_a_rebuild_left_out() {
    for (merge, policy) in ALL {
        let (_world, mut devices) = three(merge, policy, true);
        sql(&devices[0], &rebuild("id, name, n FROM item WHERE id <> '2'"));
        for to in [1, 2] {
            let bytes = whole_bundle(&mut devices[0]);
            import(&mut devices[to], &bytes);
            assert_eq!(
                rows(&devices[to], "SELECT id FROM item ORDER BY id"),
                ["\"1\"", "\"3\""],
                "{merge:?}"
            );
        }
        meet(&mut devices);
        all_equal(&devices);
    }
}

/// What one rebuild leaves out, and another one writes at the same time, is what that writes, by whatever way they meet.
#[test]
fn of_two_rebuilds_the_one_that_has_a_row_wins() {
    for for_anyone in [false, true] {
        for (merge, policy) in ALL {
            let (_world, mut devices) = three(merge, policy, true);
            sql(&devices[0], &rebuild("id, name, n FROM item WHERE id <> '2'"));
            sql(&devices[1], &rebuild("id, name || '!', n FROM item"));
            for (from, to) in [(0, 2), (2, 1), (1, 2)] {
                if for_anyone {
                    let bytes = whole_bundle(&mut devices[from]);
                    import(&mut devices[to], &bytes);
                } else {
                    carry_between(&mut devices, from, to);
                }
            }
            meet(&mut devices);
            all_equal(&devices);
            let how = format!("{merge:?} {policy:?} {for_anyone}");
            assert_eq!(rows(&devices[2], "SELECT name FROM item WHERE id = '2'"), ["\"two!\""], "{how}");
        }
    }
}

/// What a rebuild wrote loses to what its author had not seen also where one of the two comes in a state, for a table that
/// is held there.
#[test]
fn what_a_rebuild_changes_loses_in_a_state_for_a_table_that_is_held() {
    for (merge, policy) in ALL {
        for (held, maker) in [(0, 1), (1, 0)] {
            let (_world, mut devices) = three(merge, policy, true);
            sql(&devices[0], &rebuild("id, name || '!', n FROM item"));
            devices[0].seal().unwrap();
            sql(&devices[1], "UPDATE item SET name = 'edited' WHERE id = '1'");
            devices[1].seal().unwrap();
            sql(&devices[held], "ALTER TABLE item RENAME COLUMN n TO m");
            let bytes = whole_bundle(&mut devices[maker]);
            import(&mut devices[held], &bytes);
            sql(&devices[held], "ALTER TABLE item RENAME COLUMN m TO n");
            meet(&mut devices);
            all_equal(&devices);
            for device in &devices {
                let names = rows(device, "SELECT name FROM item ORDER BY id");
                assert_eq!(names, ["\"edited\"", "\"two!\"", "\"three!\""], "{merge:?} {policy:?} {held}");
            }
        }
    }
}

/// A row that is deleted before its table gets a column had in it what the column gave to all others.
#[test]
fn a_row_that_was_deleted_before_a_column_came_comes_back_with_its_default() {
    let (_world, mut devices) = three(Merge::Cell, Policy::Manual, true);
    let add = "ALTER TABLE item ADD COLUMN note TEXT DEFAULT 'x'";
    sql(&devices[0], &format!("DELETE FROM item WHERE id = '2'; {add}"));
    sql(&devices[1], &format!("UPDATE item SET name = 'edited' WHERE id = '2'; {add}"));
    sql(&devices[2], add);
    meet(&mut devices);
    all_equal(&devices);
    for device in &devices {
        assert_eq!(rows(device, "SELECT name, note FROM item WHERE id = '2'"), ["\"edited\"|\"x\""]);
    }
}

/// What versions say of a column stays known where the state of a device comes that has not got the column yet.
#[test]
fn a_state_of_who_lacks_a_column_hides_nothing_of_it() {
    for (merge, policy) in ALL {
        let (world, mut devices) = three(merge, policy, true);
        let add = "ALTER TABLE item ADD COLUMN note TEXT DEFAULT 'x'";
        sql(&devices[0], add);
        sql(&devices[1], add);
        sql(&devices[1], "UPDATE item SET name = 'b', note = 'by b' WHERE id = '1'");
        devices[1].seal().unwrap();
        world.tick(5000);
        sql(&devices[2], "UPDATE item SET name = 'c' WHERE id = '1'");
        // The third, which has no such column, hears of it, and brings all to the first.
        for (from, to) in [(1, 2), (2, 0), (0, 1), (1, 0)] {
            let bytes = whole_bundle(&mut devices[from]);
            import(&mut devices[to], &bytes);
        }
        let open = |d: &Engine| d.conflicts().unwrap();
        assert_eq!(open(&devices[0]), open(&devices[1]), "{merge:?} {policy:?}");
        sql(&devices[2], add);
        meet(&mut devices);
        all_equal(&devices);
        let shown = |d: &Engine| rows(d, "SELECT name, note FROM item WHERE id = '1'");
        assert!(devices.iter().all(|d| shown(d) == shown(&devices[0])), "{merge:?} {policy:?}");
    }
}

/// A table with a counter is made anew on devices while others write to it; in the end all show the same. `rebuilt` and
/// `written` are by device: what the copy makes of the counter, and an update of the first row.
fn rebuild_counters(
    (merge, folded, backwards): (Merge, bool, bool),
    rebuilt: [Option<&str>; 3],
    written: [Option<&str>; 3],
) -> Vec<String> {
    let columns = vec![("n".into(), ColumnMerge::Counter)];
    let options = TrackOptions { merge, columns, ..TrackOptions::default() };
    let (_world, mut devices) = three_with(&options, "('1', 'one', 10), ('2', 'two', 20)", folded);
    for (device, (copied, update)) in devices.iter_mut().zip(rebuilt.iter().zip(written)) {
        if let Some(copied) = copied {
            sql(device, &rebuild(&format!("id, name, {copied} FROM item")));
            let before = rows(device, "SELECT * FROM item");
            let sealed = device.seal().unwrap();
            assert!(*copied != "n" || sealed.ops == 0, "as it was: {merge:?} folded {folded}");
            assert_eq!(rows(device, "SELECT * FROM item"), before, "a seal changes no row");
        }
        if let Some(update) = update {
            sql(device, &format!("UPDATE item SET {update} WHERE id = '1'"));
            device.seal().unwrap();
        }
    }
    let mut shown = Vec::new();
    for compacts in [false, true, true] {
        let mut all: Vec<&mut Engine> = devices.iter_mut().collect();
        if backwards {
            all.reverse();
        }
        carry_all(&mut all);
        all_equal(&devices);
        let now = rows(&devices[0], "SELECT n FROM item ORDER BY id");
        assert!(shown.is_empty() || shown == now, "{shown:?} {now:?}");
        shown = now;
        if compacts {
            devices.iter_mut().for_each(|device| drop(device.compact().unwrap()));
        }
    }
    shown
}

/// A counter that is as it was makes no op. One that differs is what the copy says, and additions that its author had not
/// seen come on top, whatever comes first and whoever has folded.
#[test]
fn a_rebuilt_counter_keeps_what_others_add() {
    for (rebuilt, written, expected) in [
        ([Some("n"), None, None], [None, Some("n = n + 5"), Some("n = n + 7, name = 'c'")], ["22", "20"]),
        ([Some("n + 100"), None, None], [None, None, None], ["110", "120"]),
        (
            [Some("n + 100"), None, None],
            [None, Some("n = n + 5"), Some("n = n + 7, name = 'c'")],
            ["122", "120"],
        ),
        ([Some("n + 100"), None, None], [Some("n = n + 1"), Some("n = n + 5"), None], ["116", "120"]),
        // The same migration on two devices: its copies are one.
        ([Some("n * 2"), None, Some("n * 2")], [None, Some("n = n + 5"), Some("n = n + 1")], ["26", "40"]),
        // What is no addition wins over the copy.
        ([Some("n + 100"), None, None], [None, Some("n = NULL"), None], ["NULL", "120"]),
    ] {
        for merge in [Merge::Row, Merge::Cell] {
            for (folded, backwards) in [(false, false), (false, true), (true, false), (true, true)] {
                let shown = rebuild_counters((merge, folded, backwards), rebuilt, written);
                let how = format!("{rebuilt:?} {written:?} {merge:?} folded {folded} backwards {backwards}");
                assert_eq!(shown, expected, "{how}");
            }
        }
    }
}

/// What an application does at random.
fn random_step(random: &mut Random, device: &Engine, migrated: &mut bool) -> String {
    let id = random.below(6);
    let n = random.below(100);
    match random.below(9) {
        0..=1 => format!("INSERT OR IGNORE INTO item (id, name, n) VALUES ('{id}', 'i{n}', {n})"),
        2..=3 => format!("UPDATE item SET name = 'u{n}' WHERE id = '{id}'"),
        4 => format!("UPDATE item SET n = {n} WHERE id = '{id}'"),
        5 => format!("DELETE FROM item WHERE id = '{id}'"),
        _ => {
            let columns = rows(device, "SELECT count(*) FROM pragma_table_info('item')");
            let note = if *migrated || columns == ["4"] { ", note TEXT DEFAULT 'x'" } else { "" };
            let copied = match random.below(4) {
                0 => format!("SELECT id, name || '{n}', n FROM item"),
                1 => format!("SELECT id, name, n FROM item WHERE id <> '{id}'"),
                _ => "SELECT id, name, n FROM item".into(),
            };
            let then = match random.below(3) {
                0 => format!("UPDATE item SET n = {n} WHERE id = '{id}'"),
                1 => format!("DELETE FROM item WHERE id = '{id}'"),
                _ => String::new(),
            };
            if random.chance(30) && note.is_empty() {
                *migrated = true;
                return "ALTER TABLE item ADD COLUMN note TEXT DEFAULT 'x'".into();
            }
            let made = format!("(id TEXT PRIMARY KEY, name TEXT, n INTEGER{note})");
            let gone = if random.chance(20) { "DROP TABLE item; CREATE TABLE item" } else { "" };
            if !gone.is_empty() {
                return format!(
                    "CREATE TEMP TABLE kept AS {copied}; {gone} {made};
                    INSERT INTO item (id, name, n) SELECT * FROM kept; DROP TABLE kept; {then}"
                );
            }
            format!(
                "BEGIN; CREATE TABLE item_new {made}; INSERT INTO item_new (id, name, n) {copied}; DROP TABLE item;
                 ALTER TABLE item_new RENAME TO item; COMMIT; {then}"
            )
        }
    }
}

/// One random schedule: writes, rebuilds, folds, bundles in any order; in the end all are equal.
fn random_schedule(seed: u64) {
    let mut random = Random(seed);
    let (merge, policy) = *random.pick(&ALL);
    let folded = random.chance(50);
    let (world, mut devices) = three(merge, policy, folded);
    let mut migrated = [false; 3];
    let mut trace = vec![format!("{merge:?} {policy:?} folded {folded}")];
    for _ in 0..20 + random.below(20) {
        world.tick(1000);
        let d = random.below(3) as usize;
        match random.below(10) {
            0..=5 => {
                let text = random_step(&mut random, &devices[d], &mut migrated[d]);
                trace.push(format!("{d}: {text}"));
                sql(&devices[d], &text);
            }
            6 => {
                trace.push(format!("{d}: seal"));
                devices[d].seal().unwrap();
            }
            7 => {
                trace.push(format!("{d}: compact"));
                devices[d].compact().unwrap();
            }
            _ => {
                let to = (d + 1 + random.below(2) as usize) % 3;
                trace.push(format!("{d} to {to}"));
                let bytes = whole_bundle(&mut devices[d]);
                import(&mut devices[to], &bytes);
            }
        }
    }
    for _ in 0..3 {
        meet(&mut devices);
    }
    let columns = |d: &Engine| rows(d, "SELECT name FROM pragma_table_info('item')").len();
    for device in &devices {
        if columns(device) < 4 {
            sql(device, "ALTER TABLE item ADD COLUMN note TEXT DEFAULT 'x'");
        }
    }
    for _ in 0..3 {
        meet(&mut devices);
    }
    let shown =
        |d: &Engine| (rows(d, "SELECT id, name, n, note FROM item ORDER BY id"), d.conflicts().unwrap());
    for device in &devices {
        assert_eq!(shown(device), shown(&devices[0]), "PACKMULE_SEED={seed}\n{}", trace.join("\n"));
        assert_eq!(device.digest(false).unwrap(), devices[0].digest(false).unwrap(), "PACKMULE_SEED={seed}");
        assert!(device.verify().unwrap().problems.is_empty(), "PACKMULE_SEED={seed}");
    }
}

/// `PACKMULE_SEED=N` replays one, `PACKMULE_SCHEDULES=N` says how many.
#[test]
fn random_migrations_end_alike() {
    on_all_cores(seeds(15), &random_schedule);
}
