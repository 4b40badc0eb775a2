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
            assert_eq!(rows_of(device, &format!("SELECT count(*) FROM {HEADS}")), "0");
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
        self.devices[BASE].retire(id, None).unwrap();
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
        assert_eq!(rows_of(&self.devices[BASE], &format!("SELECT count(*) FROM {HEADS}")), "0");
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

/// The bytes of the verdicts in a device's log.
fn verdict_bytes(engine: &Engine) -> u64 {
    rows_of(engine, &format!("SELECT coalesce(sum(length(body)), 0) FROM _pm_frame WHERE {IS_VERDICT}"))
        .parse()
        .unwrap()
}

/// A newcomer brings 10,000 rows that nobody had heard of: no verdict says anything of them.
#[test]
fn rows_of_a_newcomer_cost_nothing() {
    for lists in [true, false] {
        let mut fleet = Fleet::new(200);
        if !lists {
            sql(&fleet.devices[BASE], "DELETE FROM _pm_folded; DELETE FROM _pm_fold");
        }
        let newcomer = fleet.world.board_with("new", NOTES, &["notes"]);
        insert(&newcomer, 1000..11_000, "of the newcomer ");
        fleet.devices.push(newcomer);
        let [base, newcomer] = fleet.devices.get_disjoint_mut([BASE, 4]).unwrap();
        let card = bundle(newcomer, base).len();
        carry(newcomer, base);
        let said = verdict_bytes(&fleet.devices[BASE]);
        // Where lists have gone, deletes too, each row is named by its key; in a frame by column these are some bytes.
        assert!(if lists { said == 0 } else { said < 1_000 }, "{said} bytes, the card {card}");
        assert!(fleet.devices[BASE].conflicts().unwrap().is_empty());
    }
}

/// Lists go within their budget; what they say of deletes stays longer.
#[test]
fn deletes_are_listed_longer() {
    let world = World::new();
    let lists = |name: &str, base| {
        let init = packmule::InitOptions { name, base, fleet: Some(&world.fleet) };
        let options = packmule::Options { fold_list_bytes: 2_000, ..world.options() };
        Engine::init_with(&world.path(name), &init, options).unwrap()
    };
    let mut d = [lists("base", true), lists("one", false)];
    sql(&d[0], NOTES);
    insert(&d[0], 0..1000, "x");
    d[0].track("notes", &packmule::TrackOptions::default()).unwrap();
    for n in 0..40 {
        carry_all(&mut d.iter_mut().collect::<Vec<_>>());
        d[0].compact().unwrap();
        assert_eq!(rows_of(&d[0], &format!("SELECT count(*) FROM {HEADS}")), "0");
        sql(&d[0], &format!("UPDATE notes SET body = 'later' WHERE id BETWEEN {n} * 20 AND {n} * 20 + 15"));
        sql(&d[0], &format!("DELETE FROM notes WHERE id = {n} * 20 + 18"));
    }
    let listed = rows_of(&d[0], "SELECT sum(length(key) + 10) FROM _pm_folded").parse::<u64>().unwrap();
    assert!(listed <= 2_000, "{listed} bytes");
    assert_eq!(rows_of(&d[0], "SELECT sum(gone) FROM _pm_folded"), "39");
    // A newcomer's row that was never here is placed; one that was deleted, in the first of the folds, is in conflict.
    let mut late = world.board_with("late", NOTES, &["notes"]);
    sql(&late, "INSERT INTO notes VALUES (18, 'again'), (5000, 'new')");
    carry(&mut late, &mut d[0]);
    let open = d[0].conflicts().unwrap();
    assert_eq!(open.len(), 1, "{open:#?}");
    assert_eq!(format!("{:?}", open[0].key), "[(\"id\", Int(18))]");
}

/// What a state costs of a table of which 100 sealed changes, of 10 rows each, were folded while a board was away.
/// `PACKMULE_ROWS=N` says how many rows it has.
#[test]
fn a_state_is_as_large_as_what_changed() {
    let count = std::env::var("PACKMULE_ROWS").ok().and_then(|n| n.parse().ok()).unwrap_or(5_000);
    let mut fleet = Fleet::new(count);
    fleet.retire_the_one_away();
    let backup = fleet.world.path("backup");
    copy_card(&fleet.devices[AWAY], &backup);
    for n in 0..100 {
        let from = n * (count / 100);
        sql(
            &fleet.devices[1],
            &format!("UPDATE notes SET body = 'y' || id WHERE id BETWEEN {from} AND {from} + 9"),
        );
        fleet.devices[1].seal().unwrap();
    }
    fleet.rounds(&[1, 2], 3);
    let start = std::time::Instant::now();
    fleet.compact(&[BASE]);
    let folded = start.elapsed();
    let mut costs = Vec::new();
    for whole in [false, true] {
        let [base, away] = fleet.devices.get_disjoint_mut([BASE, AWAY]).unwrap();
        if whole {
            sql(base, "DELETE FROM _pm_folded; DELETE FROM _pm_fold");
            *away = Engine::open_with(&backup, fleet.world.options()).unwrap();
        }
        let start = std::time::Instant::now();
        let card = bundle(base, away);
        let made = start.elapsed();
        import(away, &card);
        println!(
            "{count} rows, whole {whole}: {} bytes, made in {made:.1?}, taken in {:.1?} (compaction {folded:.1?})",
            card.len(),
            start.elapsed() - made
        );
        digests_equal(&[base, away]);
        costs.push(card.len());
    }
    assert!(costs[0] < 40_000 && costs[1] > 20 * count, "{costs:?} bytes");
}

/// A late write to a cell of a row whose delete is folded: the conflict is listed, and the row has what the write says and
/// else its defaults, everywhere, also where the row was still there.
#[test]
fn a_late_write_to_a_cell_of_a_row_that_is_gone() {
    for lists in [true, false] {
        let world = World::new();
        let mut base = world.base("base");
        sql(&base, "CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT DEFAULT 'none', more TEXT)");
        sql(&base, "INSERT INTO notes VALUES (1, 'first', 'more of it'), (2, 'second', 'x')");
        let options = packmule::TrackOptions { merge: packmule::Merge::Cell, ..Default::default() };
        base.track("notes", &options).unwrap();
        let mut devices = vec![base];
        devices.extend(["one", "two", "away"].map(|name| world.board(name)));
        let mut fleet = Fleet { world, devices };
        fleet.rounds(&[1, 2, AWAY], 4);
        fleet.compact(&[BASE, 1]);
        fleet.retire_the_one_away();
        sql(&fleet.devices[1], "DELETE FROM notes WHERE id = 1");
        fleet.rounds(&[1, 2], 3);
        // The second board has not folded it.
        fleet.compact(&[BASE, 1]);
        if !lists {
            sql(&fleet.devices[BASE], "DELETE FROM _pm_folded; DELETE FROM _pm_fold");
            sql(&fleet.devices[1], "DELETE FROM _pm_folded; DELETE FROM _pm_fold");
        }
        sql(&fleet.devices[AWAY], "UPDATE notes SET more = 'late' WHERE id = 1");
        let [base, away] = fleet.devices.get_disjoint_mut([BASE, AWAY]).unwrap();
        carry(away, base);
        fleet.rounds(&[1, 2, AWAY], 3);
        for device in &fleet.devices {
            println!(
                "{lists}: {:?} {:?} {:?}",
                rows(device, "SELECT * FROM notes"),
                device.conflicts().unwrap(),
                rows(device, "SELECT hex(key), dev, seq, kind, hex(columns) FROM _pm_head")
            );
        }
        let open = fleet.conflicts();
        // Without lists the delete counts as nothing.
        assert_eq!(open.len(), usize::from(lists));
        for device in &fleet.devices {
            assert_eq!(rows_of(device, "SELECT * FROM notes WHERE id = 1"), "1|\"none\"|\"late\"");
        }
    }
}
