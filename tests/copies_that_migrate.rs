//! Boards that are copied or set back to a backup, and whose applications migrate before Packmule runs there.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod common;

use std::path::{Path, PathBuf};

use common::*;
use packmule::{Engine, TableHow};

const SQL: &str = "CREATE TABLE t (k TEXT PRIMARY KEY, name, photo)";
const RENAME: &str = "ALTER TABLE t RENAME COLUMN name TO full_name";
const EXTRA: &str = "ALTER TABLE t ADD COLUMN extra";
const MIGRATION: &str = "ALTER TABLE t RENAME COLUMN name TO full_name; ALTER TABLE t DROP COLUMN photo";

/// Two boards with applications, and a base that follows.
struct Fleet {
    world: World,
    card: PathBuf,
    devices: Vec<Engine>,
}

fn fleet() -> Fleet {
    let world = World::new();
    let card = world.dir.path().join("card");
    std::fs::create_dir(&card).unwrap();
    let devices =
        vec![world.board_with("a", SQL, &["t"]), world.board_with("b", SQL, &["t"]), world.base("base")];
    let mut fleet = Fleet { world, card, devices };
    fleet.write("before");
    fleet.rounds();
    fleet
}

impl Fleet {
    /// Each application of the version before writes a row.
    fn write(&self, key: &str) {
        for (n, board) in self.devices[..2].iter().enumerate() {
            sql(board, &format!("INSERT INTO t VALUES ('{key} {n}', {n}, '{key} {n}')"));
        }
    }

    fn rounds(&mut self) {
        for _ in 0..3 {
            for device in &mut self.devices {
                self.world.tick(1000);
                exchange_with_card(device, &self.card);
            }
        }
    }

    fn compact(&mut self) {
        self.devices.iter_mut().for_each(|device| drop(device.compact().unwrap()));
    }

    /// The applications of both boards migrate, and all meet.
    fn both_migrate(&mut self) {
        self.devices[..2].iter().for_each(|board| sql(board, MIGRATION));
        self.rounds();
        self.rounds();
    }

    fn back_up(&self, of: usize, name: &str) -> PathBuf {
        let to = self.world.path(name);
        copy_card(&self.devices[of], &to);
        to
    }

    fn open(&self, path: &Path) -> Engine {
        Engine::open_with(path, self.world.options()).unwrap()
    }

    fn note(&self, of: usize) -> (TableHow, Option<String>) {
        let table = self.devices[of].status().unwrap().tables.remove(0);
        (table.how, table.note)
    }

    #[track_caller]
    fn all_are_alike(&self) {
        for n in 0..self.devices.len() {
            assert_eq!(self.note(n), (TableHow::Shared, None), "{n}");
        }
        digests_equal(&self.devices.iter().collect::<Vec<_>>());
        let all: Vec<_> =
            self.devices.iter().map(|d| rows(d, "SELECT k, full_name FROM t ORDER BY k")).collect();
        assert!(all.iter().all(|rows| *rows == all[0]), "{all:?}");
    }
}

#[test]
fn a_board_that_was_set_back_and_migrates_first_is_not_held_by_the_one_that_it_was() {
    for compacted in [false, true] {
        let mut fleet = fleet();
        let backup = fleet.back_up(0, "backup");
        fleet.write("lost");
        fleet.rounds();
        if compacted {
            fleet.compact();
        }
        fleet.devices[0] = fleet.open(&backup);
        let was = fleet.devices[0].identity().id;
        sql(&fleet.devices[0], "INSERT INTO t VALUES ('after', 9, 9)");
        fleet.both_migrate();
        assert_ne!(fleet.devices[0].identity().id, was, "it has a second history");
        fleet.all_are_alike();
        assert_eq!(rows(&fleet.devices[1], "SELECT count(*) FROM t"), ["5"]);
    }
}

#[test]
fn a_copy_that_migrates_before_its_first_run_goes_on_when_all_have_migrated() {
    for compacted in [false, true] {
        let mut fleet = fleet();
        let copy = fleet.back_up(0, "copy");
        fleet.write("more");
        if compacted {
            fleet.rounds();
            fleet.compact();
        }
        fleet.devices.push(fleet.open(&copy));
        sql(&fleet.devices[3], MIGRATION);
        sql(&fleet.devices[3], "INSERT INTO t VALUES ('copy', 7)");
        fleet.rounds();
        fleet.both_migrate();
        fleet.all_are_alike();
        assert_eq!(rows(&fleet.devices[1], "SELECT count(*) FROM t"), ["5"]);
    }
}

/// Others have built on what the copy wrote, so that it goes on beside that: all of it counts, though its table is held.
#[test]
fn what_a_copy_sealed_before_it_migrated_arrives() {
    for unique in [false, true] {
        let mut fleet = fleet();
        if unique {
            let all = &fleet.devices[..2];
            all.iter().for_each(|board| sql(board, "CREATE UNIQUE INDEX by_photo ON t (photo)"));
            fleet.rounds();
        }
        let copy = fleet.back_up(0, "copy");
        let mut copy = fleet.open(&copy);
        fleet.write("more");
        for at in [0, 2] {
            exchange_with_card(&mut fleet.devices[at], &fleet.card);
        }
        sql(&copy, "INSERT INTO t VALUES ('built on', 7, 7)");
        carry(&mut copy, &mut fleet.devices[1]);
        sql(&fleet.devices[1], "UPDATE t SET name = 8 WHERE k = 'built on'");
        carry(&mut fleet.devices[1], &mut copy);
        // Another device has the same unique value meanwhile.
        sql(&copy, "INSERT INTO t VALUES ('later', 9, 9)");
        sql(&fleet.devices[0], "INSERT INTO t VALUES ('apart', 9, 9)");
        copy.seal().unwrap();
        let migration = if unique { RENAME } else { MIGRATION };
        sql(&copy, migration);
        fleet.devices.push(copy);
        fleet.rounds();
        assert_ne!(fleet.devices[3].identity().id, fleet.devices[0].identity().id);
        fleet.devices[..2].iter().for_each(|board| sql(board, migration));
        fleet.rounds();
        fleet.rounds();
        fleet.all_are_alike();
        for device in &fleet.devices {
            let count = "SELECT count(*) FROM t WHERE k IN ('built on', 'later', 'apart')";
            assert_eq!(rows(device, count), [if unique { "2" } else { "3" }]);
            assert_eq!(device.conflicts().unwrap().len(), usize::from(unique));
        }
    }
}

/// What others have folded comes as a state, also to a table that is held.
#[test]
fn a_board_that_has_migrated_alone_takes_a_state_in() {
    for migration in [MIGRATION, RENAME] {
        let mut fleet = fleet();
        sql(&fleet.devices[1], migration);
        fleet.rounds();
        let away = fleet.devices.remove(1);
        fleet.devices[1].retire(away.identity().id, None).unwrap();
        sql(
            &fleet.devices[0],
            "UPDATE t SET name = 'new', photo = 'new'; INSERT INTO t VALUES ('more', 1, 1)",
        );
        fleet.rounds();
        let folded = |device: &mut Engine| device.compact().unwrap().frames;
        assert!(fleet.devices.iter_mut().map(folded).sum::<u64>() > 0);
        fleet.devices.insert(1, away);
        fleet.rounds();
        assert_eq!(fleet.note(1).0, TableHow::Suspended);
        sql(&fleet.devices[0], migration);
        fleet.rounds();
        fleet.rounds();
        fleet.all_are_alike();
        assert_eq!(rows(&fleet.devices[1], "SELECT DISTINCT full_name FROM t"), ["1", "\"new\""]);
    }
}

/// The control: a board of which a copy runs is left by nobody. What it has counts as what any other has.
#[test]
fn a_copy_is_held_by_the_board_that_goes_on_as_it() {
    let mut fleet = fleet();
    let copy = fleet.back_up(0, "copy");
    fleet.devices.push(fleet.open(&copy));
    fleet.write("more");
    sql(&fleet.devices[3], "INSERT INTO t VALUES ('copy', 7, 7)");
    fleet.rounds();
    fleet.write("has heard");
    fleet.rounds();
    for at in [1, 3] {
        sql(&fleet.devices[at], MIGRATION);
    }
    fleet.rounds();
    let (how, note) = fleet.note(3);
    assert_eq!(how, TableHow::Suspended);
    assert!(note.unwrap().contains("not yet on a-"));
    sql(&fleet.devices[0], MIGRATION);
    fleet.rounds();
    fleet.rounds();
    fleet.all_are_alike();
}

/// The board had announced the column that it was to add, or had it already. Its copy, which takes that log back, has not added
/// it yet: that counted as a column that was dropped, and what others had written into it was left out when it came.
#[test]
fn a_column_that_a_copy_adds_later_was_not_dropped() {
    const ADD: &str = "ALTER TABLE t ADD COLUMN more";
    for adopted in [false, true] {
        let mut fleet = fleet();
        let copy = fleet.back_up(0, "copy");
        sql(&fleet.devices[0], &format!("{MIGRATION}; {ADD}"));
        exchange_with_card(&mut fleet.devices[0], &fleet.card);
        sql(&fleet.devices[1], &format!("{MIGRATION}; {ADD}; INSERT INTO t VALUES ('b', 1, 'more')"));
        if adopted {
            fleet.rounds();
        }
        exchange_with_card(&mut fleet.devices[1], &fleet.card);
        fleet.devices.push(fleet.open(&copy));
        sql(&fleet.devices[3], MIGRATION);
        exchange_with_card(&mut fleet.devices[3], &fleet.card);
        fleet.rounds();
        sql(&fleet.devices[3], ADD);
        fleet.rounds();
        fleet.rounds();
        fleet.all_are_alike();
        for device in &fleet.devices {
            assert_eq!(
                rows(device, "SELECT more FROM t WHERE k = 'b'"),
                ["\"more\""],
                "{}",
                device.identity().id
            );
        }
    }
}

/// Two boards had renamed a column so that nothing told it, and the base took the old name, which a copy had still, for a column
/// of its own. Once the copy says what it is called now, what versions say of the old one is said of it.
#[test]
fn two_columns_are_one_once_somebody_says_so() {
    let mut fleet = fleet();
    let retype = "CREATE TABLE new_t (k TEXT PRIMARY KEY, name); INSERT INTO new_t SELECT k, name FROM t; DROP TABLE t;
        ALTER TABLE new_t RENAME TO t";
    let drop = "ALTER TABLE t DROP COLUMN photo; UPDATE t SET name = 7 WHERE k LIKE '% 0'";
    sql(&fleet.devices[0], &format!("{drop}; {retype}"));
    let copy = fleet.back_up(0, "copy");
    fleet.devices.push(fleet.open(&copy));
    fleet.devices[3].seal().unwrap();
    sql(&fleet.devices[0], &format!("{RENAME}; UPDATE t SET full_name = 5"));
    sql(&fleet.devices[1], &format!("{drop}; {retype}; {RENAME}; UPDATE t SET full_name = 8"));
    fleet.rounds();
    let columns = "SELECT count(*) FROM pragma_table_info('t') WHERE name IN ('name', 'full_name')";
    assert_eq!(rows(&fleet.devices[2], columns), ["2"]);
    sql(&fleet.devices[3], RENAME);
    fleet.rounds();
    fleet.rounds();
    fleet.all_are_alike();
    let versions = |d: &Engine| format!("{:?}", d.conflicts().unwrap());
    for device in &fleet.devices {
        assert_eq!(versions(device), versions(&fleet.devices[0]));
    }
}

/// What a board said of its table in the history that it lost stayed its word: its own digest was another one for ever. What it
/// lacks it has not dropped: who has followed keeps the column, and what was written into it is back once the board's application
/// has migrated again.
#[test]
fn a_board_that_was_set_back_says_what_its_table_is_now() {
    for (lost, extra) in [("", "NULL"), ("; INSERT INTO t VALUES ('lost', 1, 1, 1)", "1")] {
        let mut fleet = fleet();
        let backup = fleet.back_up(0, "backup");
        sql(&fleet.devices[0], &format!("{EXTRA}{lost}"));
        fleet.world.tick(1000);
        fleet.devices.iter_mut().for_each(|device| drop(exchange_with_card(device, &fleet.card)));
        let waits = fleet.note(1).1.unwrap_or_default();
        assert!(waits.contains("`extra`"), "the control: {waits}");
        fleet.devices[0] = fleet.open(&backup);
        fleet.both_migrate();
        let all: Vec<_> =
            fleet.devices.iter().map(|d| rows(d, "SELECT k, full_name FROM t ORDER BY k")).collect();
        assert_eq!((&all[0], &all[0]), (&all[1], &all[2]), "{lost}");
        digests_equal(&fleet.devices.iter().collect::<Vec<_>>());
        let kept = "SELECT max(extra) FROM t";
        assert_eq!(rows(&fleet.devices[2], kept), [extra], "{lost}");
        fleet.devices[..2].iter().for_each(|board| sql(board, EXTRA));
        fleet.rounds();
        fleet.all_are_alike();
        fleet.devices.iter().for_each(|device| assert_eq!(rows(device, kept), [extra], "{lost}"));
    }
}

/// The same where nobody follows, with a copy that runs beside its original: what that had written into the column was read by
/// nobody whose application added it later.
#[test]
fn what_a_column_had_is_back_when_a_copy_that_lacked_it_has_migrated() {
    for later in ["", "UPDATE t SET name = 'later' WHERE k = 'k'"] {
        let world = World::new();
        let card = world.dir.path().join("card");
        std::fs::create_dir(&card).unwrap();
        let devices = ["a", "b", "c"].map(|name| world.board_with(name, SQL, &["t"])).into();
        let mut fleet = Fleet { world, card, devices };
        fleet.rounds();
        let copy = fleet.back_up(1, "copy");
        sql(&fleet.devices[1], &format!("{EXTRA}; INSERT INTO t VALUES ('k', 1, 2, 3)"));
        fleet.devices.push(fleet.open(&copy));
        fleet.rounds();
        sql(&fleet.devices[3], later);
        fleet.rounds();
        [0, 2, 3].iter().for_each(|n| sql(&fleet.devices[*n], EXTRA));
        fleet.rounds();
        for device in &fleet.devices {
            assert_eq!(rows(device, "SELECT extra FROM t"), ["3"], "{}: {later}", device.identity().name);
        }
        digests_equal(&fleet.devices.iter().collect::<Vec<_>>());
    }
}

/// The control: a column that is dropped has none of its values when it is added again.
#[test]
fn what_was_dropped_is_not_back() {
    let mut fleet = fleet();
    fleet.devices[..2].iter().for_each(|board| sql(board, &format!("{EXTRA}; UPDATE t SET extra = 1")));
    fleet.rounds();
    fleet.devices[..2].iter().for_each(|board| sql(board, "ALTER TABLE t DROP COLUMN extra"));
    fleet.rounds();
    fleet.devices[..2].iter().for_each(|board| sql(board, EXTRA));
    fleet.rounds();
    for device in &fleet.devices {
        assert_eq!(rows(device, "SELECT max(extra) FROM t"), ["NULL"], "{}", device.identity().name);
    }
}

/// A copy that gives a column its new name when its original has changed the column's type as well, and all have followed: that
/// was taken for a decision to have the old type back, and the tables of the others were changed.
#[test]
fn a_copy_that_is_a_step_behind_decides_no_type() {
    let mut fleet = fleet();
    let retype = "BEGIN; CREATE TABLE new_t (k TEXT PRIMARY KEY, full_name TEXT, photo); INSERT INTO new_t SELECT * FROM t;
                  DROP TABLE t; ALTER TABLE new_t RENAME TO t; COMMIT";
    fleet.devices[..2].iter().for_each(|board| sql(board, RENAME));
    let copy = fleet.back_up(0, "copy");
    fleet.devices[..2].iter().for_each(|board| sql(board, retype));
    fleet.devices.push(fleet.open(&copy));
    fleet.rounds();
    let kind = "SELECT type FROM pragma_table_info('t') WHERE name = 'full_name'";
    for device in &fleet.devices[..2] {
        assert_eq!(rows(device, kind), ["\"TEXT\""], "{}", device.identity().name);
    }
    sql(&fleet.devices[3], retype);
    fleet.rounds();
    fleet.all_are_alike();
}
