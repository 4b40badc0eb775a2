//! Lists of folds: who comes back late meets only what is true, and gets only the rows that changed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod common;

use common::*;
use packmule::Engine;

const NOTES: &str = "CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT)";

/// A base and two boards, and a board that was away, each with 200 rows that all have folded.
struct Fleet {
    world: World,
    devices: Vec<Engine>,
}

const BASE: usize = 0;
const AWAY: usize = 3;

impl Fleet {
    fn new(rows: usize) -> Self {
        let world = World::new();
        let mut base = world.base("base");
        sql(&base, NOTES);
        insert(&base, 0..rows, "x");
        base.track("notes", &packmule::TrackOptions::default()).unwrap();
        let mut devices = vec![base];
        devices.extend(["one", "two", "away"].map(|name| world.board(name)));
        let mut fleet = Self { world, devices };
        fleet.rounds(&[1, 2, AWAY], 4);
        fleet.compact(&[BASE, 1, 2, AWAY]);
        for device in &fleet.devices {
            assert_eq!(rows_of(device, "SELECT count(*) FROM _pm_head"), "0");
        }
        fleet
    }

    /// The boards meet the base in turn.
    fn rounds(&mut self, boards: &[usize], n: usize) {
        for _ in 0..n {
            for at in boards {
                let [base, board] = self.devices.get_disjoint_mut([BASE, *at]).unwrap();
                carry(board, base);
                carry(base, board);
            }
            self.world.tick(1000);
        }
    }

    fn compact(&mut self, devices: &[usize]) {
        for at in devices {
            self.devices[*at].compact().unwrap();
        }
    }

    fn retire_the_one_away(&mut self) {
        let id = self.devices[AWAY].identity().id;
        self.devices[BASE].retire(id).unwrap();
        self.rounds(&[1, 2], 3);
    }

    /// While a board is away the others change and fold rows, twice, and delete two of them.
    fn go_on_without(&mut self) {
        self.retire_the_one_away();
        for n in 0..3 {
            let at = 100 + n * 20;
            let more = if n == 1 { "0 AND 4".into() } else { format!("{at} AND {}", at + 9) };
            sql(&self.devices[1], &format!("UPDATE notes SET body = 'y{n}.' || id WHERE id BETWEEN {more}"));
            if n == 2 {
                sql(&self.devices[1], "DELETE FROM notes WHERE id IN (5, 6)");
            }
            self.rounds(&[1, 2], 3);
            self.compact(&[BASE, 1, 2]);
        }
        assert_eq!(rows_of(&self.devices[BASE], "SELECT count(*) FROM _pm_head"), "0");
    }

    fn conflicts(&mut self) -> Vec<String> {
        self.rounds(&[1, 2, AWAY], 3);
        digests_equal(&self.devices.iter().collect::<Vec<_>>());
        let ids = |c: &packmule::Conflict| format!("{:?}", c.key);
        self.devices[BASE].conflicts().unwrap().iter().map(ids).collect()
    }
}

fn insert(engine: &Engine, ids: std::ops::Range<usize>, word: &str) {
    sql(
        engine,
        &format!(
            "WITH RECURSIVE n(i) AS (SELECT {} UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {})
         INSERT INTO notes SELECT i, '{word}' || i FROM n",
            ids.start, ids.end
        ),
    );
}

fn rows_of(engine: &Engine, query: &str) -> String {
    rows(engine, query).concat()
}

/// A retired board comes back with 30 edits: 5 meet later changes, 2 later deletes. There are 7 conflicts, all true.
#[test]
fn a_retired_board_returns_with_true_conflicts_alone() {
    for base_first in [true, false] {
        let mut fleet = Fleet::new(200);
        fleet.go_on_without();
        sql(&fleet.devices[AWAY], "UPDATE notes SET body = 'z' || id WHERE id < 30");
        let [base, away] = fleet.devices.get_disjoint_mut([BASE, AWAY]).unwrap();
        if base_first {
            carry(away, base);
        } else {
            carry(base, away);
        }
        let open = fleet.conflicts();
        assert_eq!(open.len(), 7, "{open:?}");
        assert_eq!(rows_of(&fleet.devices[1], "SELECT count(*) FROM notes WHERE body = 'z' || id"), "25");
    }
}

/// Without lists the same is right, and says more than need be.
#[test]
fn without_lists_more_conflicts_are_listed() {
    let mut fleet = Fleet::new(200);
    fleet.go_on_without();
    sql(&fleet.devices[BASE], "DELETE FROM _pm_folded; DELETE FROM _pm_fold");
    sql(&fleet.devices[AWAY], "UPDATE notes SET body = 'z' || id WHERE id < 30");
    let [base, away] = fleet.devices.get_disjoint_mut([BASE, AWAY]).unwrap();
    carry(away, base);
    assert_eq!(fleet.conflicts().len(), 28);
}

/// Who was set back to less than a state goes on from takes nothing of it, and gets the whole then.
#[test]
fn a_state_for_who_has_less_is_ignored() {
    let mut fleet = Fleet::new(200);
    let backup = fleet.world.path("backup");
    sql(&fleet.devices[AWAY], "DELETE FROM notes");
    fleet.rounds(&[AWAY, 1, 2], 2);
    copy_card(&fleet.devices[AWAY], &backup);
    sql(&fleet.devices[1], "INSERT INTO notes VALUES (1, 'one'), (2, 'two')");
    fleet.rounds(&[1, 2, AWAY], 3);
    fleet.compact(&[BASE]);
    fleet.go_on_without();
    let [base, away] = fleet.devices.get_disjoint_mut([BASE, AWAY]).unwrap();
    let partial = bundle(base, away);
    *away = Engine::open_with(&backup, fleet.world.options()).unwrap();
    let report = import(away, &partial);
    assert_eq!((report.ops, report.frames), (0, 0), "{report:?}");
    assert_eq!(rows_of(away, "SELECT count(*) FROM notes"), "0");
    assert_eq!(fleet.conflicts(), Vec::<String>::new());
    assert_eq!(rows_of(&fleet.devices[AWAY], "SELECT group_concat(body) FROM notes"), "\"y1.1,y1.2\"");
}

/// A late write to a row that a kept list says was deleted is in conflict with that, on whichever side it is met; what
/// nobody had heard of is not.
#[test]
fn a_late_write_to_a_row_that_was_deleted() {
    for base_first in [true, false] {
        let mut fleet = Fleet::new(20);
        fleet.retire_the_one_away();
        sql(&fleet.devices[1], "DELETE FROM notes WHERE id = 3");
        fleet.rounds(&[1, 2], 3);
        fleet.compact(&[BASE, 1, 2]);
        sql(
            &fleet.devices[AWAY],
            "UPDATE notes SET body = 'late' WHERE id = 3; INSERT INTO notes VALUES (99, 'new')",
        );
        let [base, away] = fleet.devices.get_disjoint_mut([BASE, AWAY]).unwrap();
        if base_first {
            carry(away, base)
        } else {
            carry(base, away)
        };
        assert_eq!(fleet.conflicts(), ["[(\"id\", Int(3))]"]);
        let open = fleet.devices[2].conflicts().unwrap();
        assert!(open[0].versions.iter().any(|v| v.op == packmule::VersionOp::Delete), "{open:#?}");
        assert_eq!(rows_of(&fleet.devices[2], "SELECT body FROM notes WHERE id = 3"), "\"late\"");
        // It is decided like any other.
        let take = packmule::Resolution::Delete;
        fleet.devices[BASE].resolve(&open[0].id, &take).unwrap();
        assert!(fleet.conflicts().is_empty());
        assert_eq!(rows_of(&fleet.devices[AWAY], "SELECT count(*) FROM notes WHERE id = 3"), "0");
    }
}
