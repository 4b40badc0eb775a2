//! States that an insider puts on a card, signed as they must be: of another fleet, of before, of rows that no device makes.
//! An honest board says what it did with the file, and keeps its rows.

use std::fs;

use packmule::Engine;
use packmule::core::wire::RecordKind;
use rusqlite::types::Value as Sql;

use crate::bundles::{self, Record};
use crate::common::{self, World, bundle, carry, sql};
use crate::support::{Desk, has};
use crate::wrong::{Fleet, folded_in, wrong_states};

/// A fleet whose late board has a row of its own.
struct Scene {
    fleet: Fleet,
    late: Engine,
}

impl Scene {
    fn new() -> Self {
        let (fleet, mut late) = folded_in(World::new());
        sql(&late, "INSERT INTO settings VALUES (7, 'own')");
        late.seal().unwrap();
        Self { fleet, late }
    }

    /// The state that the insider makes for the late board.
    fn state(&mut self) -> Vec<u8> {
        bundle(&mut self.fleet.insider, &self.late)
    }

    /// The late board finds a file on a card. What it says of it, and what rows it has then.
    fn finds(&self, bytes: &[u8]) -> (String, Vec<String>) {
        let desk = Desk::new();
        common::copy_card(&self.late, &desk.path("late.db"));
        fs::create_dir_all(desk.path("card/PACKMULE")).unwrap();
        fs::write(desk.path(FILE), bytes).unwrap();
        let said = desk.run("exchange late.db card").ok();
        desk.run("verify late.db").ok();
        let rows = desk.rows("late.db", "SELECT id || ' ' || value FROM settings ORDER BY id");
        let text = |row: &Vec<Sql>| match &row[0] {
            Sql::Text(text) => text.clone(),
            other => panic!("{other:?}"),
        };
        (said, rows.iter().map(text).collect())
    }

    /// The records of the state, and of one that somebody makes of another bundle under the insider's name.
    fn ours(&self, state: &[u8]) -> Vec<Record> {
        bundles::records(&bundles::lie(&self.fleet.insider, state, &self.late, &[], false))
    }

    fn sign(&self, mut records: Vec<Record>) -> Vec<u8> {
        bundles::seal_state(&mut records, &self.fleet.insider);
        bundles::join(&records)
    }
}

const FILE: &str = "card/PACKMULE/0A1B2C3D.PMB";

/// The control: the same state, as it should be.
#[test]
fn a_sound_state_on_a_card_is_taken_in_beside_own_rows() {
    let mut scene = Scene::new();
    let sound = scene.state();
    let (said, rows) = scene.finds(&scene.sign(scene.ours(&sound)));
    has(&said, &[&format!("{FILE}: taken in: 1 new frame, 3 rows applied")]);
    assert_eq!(rows, ["1 one", "2 two", "3 in flight", "7 own"]);
}

#[test]
fn the_state_of_another_fleet_is_refused_under_whosever_name_it_comes() {
    let mut scene = Scene::new();
    let ours = scene.state();
    let ours = scene.ours(&ours);
    let (mut other, newcomer) = folded_in(World::seeded(78));
    let theirs = bundle(&mut other.insider, &newcomer);
    // The header and the certificates are the insider's, and it has signed the rest.
    let is_front = |(kind, _): &&Record| matches!(kind, RecordKind::Header | RecordKind::Certificate);
    let told = bundles::records(&bundles::lie(&other.insider, &theirs, &newcomer, &[], false));
    let front = ours.iter().filter(is_front);
    let mixed = front.chain(told.iter().filter(|record| !is_front(record))).cloned().collect();
    for (bytes, whose) in [(theirs, "insider"), (scene.sign(mixed), "(no certificate)")] {
        let (said, rows) = scene.finds(&bytes);
        let why = "skipped: the bundle has frames of devices that are not trusted here";
        has(&said, &[&format!("{FILE}: {why}"), whose]);
        assert_eq!(rows, ["7 own"]);
    }
}

/// What is of a wrong form is refused whole; of all else the rows are its maker's word.
#[test]
fn a_state_of_odd_records_costs_a_board_nothing_of_its_own() {
    let mut scene = Scene::new();
    let sound = scene.state();
    let sound = scene.ours(&sound);
    let mut skipped = 0;
    for (what, at, body) in wrong_states(&sound).into_iter().step_by(5) {
        let mut records = sound.clone();
        records[at].1 = body;
        let (said, rows) = scene.finds(&scene.sign(records));
        has(&said, &[FILE]);
        assert!(rows.contains(&"7 own".into()), "{what}: {said}\n{rows:?}");
        if said.contains(&format!("{FILE}: skipped: ")) {
            skipped += 1;
            assert_eq!(rows, ["7 own"], "{what}");
        }
    }
    assert!(skipped > 5, "{skipped}");
}

/// The insider has kept the file; meanwhile rows were written and deleted.
#[test]
fn an_old_state_that_comes_again_brings_nothing_back() {
    let mut scene = Scene::new();
    let old = scene.state();
    let Scene { fleet, late } = &mut scene;
    sql(&fleet.good, "UPDATE settings SET value = 'new' WHERE id = 1; DELETE FROM settings WHERE id = 2");
    carry(&mut fleet.good, late);
    carry(&mut fleet.insider, late);
    let (said, rows) = scene.finds(&old);
    assert!(!said.contains(FILE), "{said}");
    assert_eq!(rows, ["1 new", "3 in flight", "7 own"]);
}
