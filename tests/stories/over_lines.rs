//! The life of a fleet over serial lines alone: who lacks what is folded elsewhere gets the state by the line, and nobody
//! goes for a card.

use rusqlite::types::Value as Sql;
use serde_json::Value;

use crate::card::{self, back_up, fingerprint, status};
use crate::line::{line, synced, torn};
use crate::support::{Desk, has};

const NOTES: &str = "CREATE TABLE notes (id TEXT PRIMARY KEY, body TEXT)";

/// A fleet with a table of notes that everybody writes.
fn desk(boards: &[&str]) -> Desk {
    let desk = Desk::fleet(boards);
    let all = boards.iter().chain(&["base"]);
    all.for_each(|name| notes(&desk, name));
    desk
}

fn notes(desk: &Desk, name: &str) {
    desk.sql(&format!("{name}.db"), NOTES);
    desk.run(&format!("track {name}.db notes")).ok();
}

/// A board that nobody has met, whose application makes its table itself.
fn newcomer(desk: &Desk, name: &str) {
    desk.run(&format!("init {name}.db --name {name} --fleet fleet.key")).ok();
    notes(desk, name);
}

/// Every board meets the base over its line, in turn. Nobody is sent for a card.
fn rounds(desk: &Desk, boards: &[&str], n: usize) {
    for _ in 0..n {
        for board in boards {
            for end in synced(desk, board, "base") {
                assert_eq!(
                    (&end["needs_snapshot"], &end["peer_needs_snapshot"]),
                    (&false.into(), &false.into())
                );
            }
        }
    }
}

fn identities(desk: &Desk, names: &[&str]) -> Vec<String> {
    names.iter().map(|name| fingerprint(desk, name)).collect()
}

/// All show the same, nothing waits, everybody is who it was, and no file of a state is left.
#[track_caller]
fn all_the_same(desk: &Desk, names: &[&str], before: &[String]) {
    let digest = desk.run(&format!("digest {}.db", names[0])).ok();
    for (name, was) in names.iter().zip(before) {
        assert_eq!(desk.run(&format!("digest {name}.db")).ok(), digest, "{name}");
        let status = status(desk, name);
        assert_eq!(status["fingerprint"], **was, "{name}");
        assert_eq!(
            (&status["waits"], &status["notices"]),
            (&Value::Array(vec![]), &Value::Array(vec![])),
            "{name}"
        );
        desk.run(&format!("verify {name}.db")).ok();
    }
    assert!(desk.files().iter().all(|file| !file.contains("pmstate")), "{:?}", desk.files());
}

fn conflicts(desk: &Desk, name: &str) -> usize {
    desk.run(&format!("conflicts {name}.db --json")).json()["conflicts"].as_array().unwrap().len()
}

fn note(desk: &Desk, name: &str, id: &str) -> Option<Sql> {
    let rows = desk.rows(&format!("{name}.db"), &format!("SELECT body FROM notes WHERE id = '{id}'"));
    rows.into_iter().next().map(|row| row.into_iter().next().unwrap())
}

/// A base and its backup of last night.
fn backed_up() -> Desk {
    let desk = desk(&["north"]);
    desk.sql(
        "north.db",
        "INSERT INTO readings (value) VALUES (1), (2); INSERT INTO notes VALUES ('a', 'first')",
    );
    rounds(&desk, &["north"], 2);
    back_up(&desk, "base", "backup");
    desk.sql(
        "north.db",
        "INSERT INTO readings (value) VALUES (3), (4), (5); UPDATE notes SET body = 'second'; INSERT INTO notes VALUES ('b', 'x')",
    );
    rounds(&desk, &["north"], 2);
    assert_eq!(gathered(&desk), Sql::Integer(5));
    desk
}

fn gathered(desk: &Desk) -> Sql {
    desk.value("base.db", "SELECT count(*) FROM readings")
}

fn restore(desk: &Desk) {
    card::restore(desk, "base", "backup");
    assert_eq!(gathered(desk), Sql::Integer(2));
}

/// Story 1: the base dies, and is restored from last night's backup.
#[test]
fn a_restored_base_gets_back_what_it_lost() {
    let desk = backed_up();
    let names = ["north", "base"];
    let before = identities(&desk, &names);
    restore(&desk);
    rounds(&desk, &["north"], 2);
    assert_eq!(gathered(&desk), Sql::Integer(5));
    all_the_same(&desk, &names, &before);
}

/// The same, and the board has folded all that the base has lost: readings and notes.
#[test]
fn a_restored_base_gets_back_what_the_board_has_compacted() {
    let desk = backed_up();
    let names = ["north", "base"];
    let before = identities(&desk, &names);
    desk.run("compact north.db").ok();
    assert_eq!(desk.value("north.db", "SELECT count(*) FROM _pm_frame WHERE stream = 1"), Sql::Integer(0));
    restore(&desk);
    let [north, base] = synced(&desk, "north", "base");
    assert_eq!((&north["state_rows_sent"], &base["state_rows_received"]), (&2.into(), &2.into()), "{north}");
    rounds(&desk, &["north"], 2);
    assert_eq!(gathered(&desk), Sql::Integer(5));
    assert_eq!(note(&desk, "base", "a"), Some(Sql::Text("second".into())));
    all_the_same(&desk, &names, &before);
    // It goes on from there.
    desk.sql("north.db", "INSERT INTO readings (value) VALUES (6); DELETE FROM notes WHERE id = 'a'");
    desk.sql("base.db", "INSERT INTO notes VALUES ('by the base', 'y')");
    rounds(&desk, &["north"], 2);
    assert_eq!(gathered(&desk), Sql::Integer(6));
    all_the_same(&desk, &names, &before);
}

/// A base with two boards' readings, all of which are folded everywhere; one of the boards is dead. A second base is added.
fn late() -> Desk {
    let desk = desk(&["north", "east"]);
    let many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
                INSERT INTO readings (value) SELECT random() FROM n";
    for board in ["north", "east"] {
        desk.sql(&format!("{board}.db"), many);
    }
    rounds(&desk, &["north", "east"], 3);
    for name in ["base", "north", "east"] {
        desk.run(&format!("compact {name}.db")).ok();
        let left = desk.value(&format!("{name}.db"), "SELECT count(*) FROM _pm_frame WHERE stream = 1");
        assert_eq!(left, Sql::Integer(0), "{name}: all of it is folded");
    }
    std::fs::remove_file(desk.path("east.db")).unwrap();
    desk.run("init late.db --name late --fleet fleet.key --base").ok();
    desk
}

/// What a base has gathered.
fn readings(desk: &Desk, base: &str) -> Vec<Vec<Sql>> {
    desk.rows(&format!("{base}.db"), "SELECT device, id, value FROM readings ORDER BY 1, 2")
}

/// All that the first base has gathered is at the second one, and both go on.
#[track_caller]
fn both_gather(desk: &Desk) {
    let names = ["late", "base"];
    let before = identities(desk, &names);
    let all = readings(desk, "base");
    assert_eq!((all.len(), readings(desk, "late") == all), (4_000, true));
    // North meets the second one alone, which tells the first.
    desk.sql("north.db", "INSERT INTO readings (value) VALUES (7)");
    synced(desk, "north", "late");
    let ends = synced(desk, "late", "base");
    for end in &ends {
        assert_eq!((&end["state_rows_sent"], &end["state_rows_received"]), (&0.into(), &0.into()), "{end}");
    }
    for name in names {
        assert_eq!(readings(desk, name).len(), 4_001, "{name}");
    }
    synced(desk, "north", "base");
    all_the_same(desk, &names, &before);
    let digest = desk.run("digest base.db --gathered").ok();
    assert_eq!(desk.run("digest late.db --gathered").ok(), digest);
}

/// A base that is added late has all readings by a cable to the first one, also those that boards have folded.
#[test]
fn a_late_base_gets_what_the_first_one_has_gathered() {
    let desk = late();
    let [base, late] = synced(&desk, "base", "late");
    assert_eq!((&base["state_rows_sent"], &late["state_rows_received"]), (&4_000.into(), &4_000.into()));
    both_gather(&desk);
}

/// The same, and the cable is pulled on the way.
#[test]
fn a_late_base_whose_cable_is_pulled_goes_on_where_it_was() {
    let desk = late();
    torn(&desk, "base", "late", 30_000);
    let kept = desk.files().into_iter().find(|file| file.starts_with("late.db.pmstate-from-")).unwrap();
    let here = std::fs::metadata(desk.path(&kept)).unwrap().len();
    let whole = std::fs::metadata(desk.path(files_to(&desk, "base"))).unwrap().len();
    assert!(here > 10_000 && here < whole, "{here} of {whole}");
    synced(&desk, "base", "late");
    both_gather(&desk);
}

/// A base and two boards that have folded all notes; a newcomer with rows of its own, one of them contested.
fn compacted() -> Desk {
    let desk = desk(&["north", "south"]);
    desk.sql("north.db", "INSERT INTO notes VALUES ('a', 'first'), ('b', 'first'), ('c', 'first')");
    rounds(&desk, &["north", "south"], 3);
    for name in ["base", "north", "south"] {
        desk.run(&format!("compact {name}.db")).ok();
    }
    newcomer(&desk, "new");
    desk.sql("new.db", "INSERT INTO notes VALUES ('b', 'of new'), ('own', 'only here')");
    desk
}

/// Story 2: a newcomer meets an old board first, then all meet the base.
#[test]
fn a_newcomer_comes_to_a_fleet_that_has_compacted() {
    let desk = compacted();
    let names = ["new", "north", "south", "base"];
    let before = identities(&desk, &names);
    // Two boards at one line, far from the base.
    let [new, north] = synced(&desk, "new", "north");
    // Three, and perhaps what it brought itself.
    assert!(north["state_rows_sent"].as_u64().unwrap() >= 3, "{north}");
    assert_eq!(north["state_rows_sent"], new["state_rows_received"], "{new}");
    assert_eq!(note(&desk, "new", "a"), Some(Sql::Text("first".into())));
    assert_eq!(note(&desk, "north", "own"), Some(Sql::Text("only here".into())));
    rounds(&desk, &["south", "north", "new"], 2);
    all_the_same(&desk, &names, &before);
    // The row that both have is a conflict that somebody decides; nothing else is.
    assert_eq!(conflicts(&desk, "base"), 1);
    has(&desk.run("conflicts base.db").ok(), &["first", "of new"]);
    for name in ["new", "south", "north"] {
        desk.sql(&format!("{name}.db"), &format!("INSERT INTO notes VALUES ('later-{name}', 'x')"));
    }
    rounds(&desk, &["new", "south", "north"], 2);
    all_the_same(&desk, &names, &before);
    assert_eq!(desk.value("base.db", "SELECT count(*) FROM notes WHERE id LIKE 'later-%'"), Sql::Integer(3));
}

/// The line is torn while the state is on its way, and both programs are gone; then they go on.
#[test]
fn a_newcomer_whose_cable_is_pulled_goes_on_where_it_was() {
    let desk = desk(&["north"]);
    desk.sql(
        "north.db",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400)
         INSERT INTO notes SELECT 'n' || i, hex(randomblob(200)) FROM n",
    );
    rounds(&desk, &["north"], 3);
    desk.run("compact base.db").ok();
    newcomer(&desk, "new");
    desk.sql("new.db", "INSERT INTO notes VALUES ('own', 'only here')");
    let names = ["new", "base", "north"];
    let before = identities(&desk, &names);
    torn(&desk, "base", "new", 90_000);
    let kept = desk.files().into_iter().find(|file| file.starts_with("new.db.pmstate-from-")).unwrap();
    let here = std::fs::metadata(desk.path(&kept)).unwrap().len();
    assert!(here > 40_000, "{here}");
    assert_eq!(note(&desk, "new", "n1"), None, "nothing of a state before all of it is here");
    // What is here does not come again: the cable carries less than all of it.
    let whole = std::fs::metadata(desk.path(files_to(&desk, "base"))).unwrap().len();
    let cable = crate::line::cable(&desk);
    let running =
        [crate::line::sync(&desk, "base", &cable.ends[0]), crate::line::sync(&desk, "new", &cable.ends[1])];
    let [base, new] = running.map(|child| crate::line::ended(child).json());
    assert_eq!(new["state_bytes_received"], whole, "{new}");
    assert_eq!(base["state_bytes_sent"], whole, "{base}");
    rounds(&desk, &["north", "new"], 1);
    all_the_same(&desk, &names, &before);
}

fn files_to(desk: &Desk, name: &str) -> String {
    desk.files().into_iter().find(|file| file.starts_with(&format!("{name}.db.pmstate-to-"))).unwrap()
}

/// Story 4: a board was away for a year and retired meanwhile; the others went on and compacted.
#[test]
fn a_board_that_was_retired_comes_back() {
    let desk = desk(&["north", "old"]);
    desk.sql("north.db", "INSERT INTO notes VALUES ('a', 'first'), ('b', 'first'), ('c', 'first')");
    rounds(&desk, &["north", "old"], 3);
    desk.run("retire base.db old").ok();
    desk.sql("north.db", "UPDATE notes SET body = 'second' WHERE id IN ('a', 'b')");
    rounds(&desk, &["north"], 3);
    for name in ["base", "north"] {
        desk.run(&format!("compact {name}.db")).ok();
    }
    desk.sql(
        "old.db",
        "UPDATE notes SET body = 'of old' WHERE id = 'a'; INSERT INTO notes VALUES ('old', 'x')",
    );
    desk.sql("old.db", "INSERT INTO readings (value) VALUES (7)");
    let names = ["old", "base", "north"];
    let before = identities(&desk, &names);
    let [old, _] = synced(&desk, "old", "base");
    // Three, and perhaps the one that it brought itself.
    assert!([3, 4].contains(&old["state_rows_received"].as_u64().unwrap()), "{old}");
    rounds(&desk, &["north", "old", "north"], 1);
    all_the_same(&desk, &names, &before);
    has(&desk.run("conflicts base.db").ok(), &["second", "of old"]);
    assert_eq!(note(&desk, "north", "old"), Some(Sql::Text("x".into())));
    // What it had not touched is as the others left it.
    assert_eq!(note(&desk, "old", "b"), Some(Sql::Text("second".into())));
    assert_eq!(gathered(&desk), Sql::Integer(1));
}

/// Story 8: a board is stolen, and the fleet has compacted since; a newcomer gets the state, and the revocation with it.
#[test]
fn a_newcomer_hears_of_the_stolen_board_with_the_state() {
    let desk = desk(&["thief", "east"]);
    desk.sql("thief.db", "INSERT INTO notes VALUES ('a', 'of the thief, before')");
    rounds(&desk, &["thief", "east"], 2);
    desk.run("revoke base.db thief --fleet fleet.key").ok();
    rounds(&desk, &["east"], 3);
    for name in ["base", "east"] {
        desk.run(&format!("compact {name}.db")).ok();
    }
    newcomer(&desk, "new");
    let names = ["new", "base", "east"];
    let before = identities(&desk, &names);
    rounds(&desk, &["new", "east", "new"], 1);
    all_the_same(&desk, &names, &before);
    assert_eq!(note(&desk, "new", "a"), Some(Sql::Text("of the thief, before".into())));
    // Nobody takes anything from the thief, and the newcomer neither.
    desk.sql("thief.db", "UPDATE notes SET body = 'mine'");
    let [thief, new] = line(&desk, "thief", "new");
    has(&new.err, &["revoked", "thief"]);
    assert_eq!((thief.status, new.status), (Some(1), Some(1)), "{}", thief.err);
    all_the_same(&desk, &names, &before);
}
