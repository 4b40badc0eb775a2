//! Bases that come late, and boards that are dead or were set back: what a base has gathered is a state too.

use rusqlite::types::Value as Sql;
use serde_json::json;

use crate::card::{back_up, fingerprint, restore, rounds, status};
use crate::support::{Desk, has};

/// A base, and boards that also have a table whose rows they change and delete; all in step, and folded.
fn folded(boards: &[&str]) -> Desk {
    let desk = Desk::fleet(boards);
    std::fs::create_dir(desk.path("card")).unwrap();
    for board in boards {
        let db = format!("{board}.db");
        desk.sql(&db, "CREATE TABLE state (k TEXT PRIMARY KEY, v, picture BLOB)");
        desk.run(&format!("track {db} state --mode per-device")).ok();
        desk.sql(
            &db,
            &format!(
                "INSERT INTO readings (value) VALUES (1), (2), (3);
                 INSERT INTO state VALUES ('mode', '{board}', zeroblob(100000)), ('gone', 1, NULL);
                 INSERT INTO settings VALUES ('{board}', 1, '')"
            ),
        );
    }
    let all: Vec<&str> = boards.iter().copied().chain(["base"]).collect();
    rounds(&desk, &all, 3);
    for board in boards {
        desk.sql(&format!("{board}.db"), "DELETE FROM state WHERE k = 'gone'");
    }
    rounds(&desk, &all, 3);
    for name in &all {
        desk.run(&format!("compact {name}.db")).ok();
        let left = desk.value(&format!("{name}.db"), "SELECT count(*) FROM _pm_frame WHERE stream = 1");
        assert_eq!(left, Sql::Integer(0), "{name}: all per-device frames are folded");
    }
    desk
}

const READINGS: &str = "SELECT device, id, value FROM readings ORDER BY 1, 2";
const STATE: &str = "SELECT device, k, v, picture FROM state ORDER BY 1, 2";

/// What a base has gathered.
fn gathered(desk: &Desk, base: &str) -> [Vec<Vec<Sql>>; 2] {
    [READINGS, STATE].map(|sql| desk.rows(&format!("{base}.db"), sql))
}

fn in_order(desk: &Desk, names: &[&str]) {
    for name in names {
        let status = status(desk, name);
        assert_eq!(status["waits"], json!([]), "{name}");
        // That an append table carries no deletes is no disorder.
        let notices = status["notices"].as_array().unwrap().iter();
        let others: Vec<_> =
            notices.filter(|n| !n.to_string().contains("rows that were deleted here")).collect();
        assert!(others.is_empty(), "{name}: {others:?}");
        desk.run(&format!("verify {name}.db")).ok();
    }
}

/// One board is dead by the time that the second base is added: what it had, the first base has.
#[test]
fn a_late_base_has_the_readings_of_a_dead_board_by_the_card() {
    let desk = folded(&["north", "east"]);
    let before = gathered(&desk, "base");
    assert_eq!((before[0].len(), before[1].len()), (6, 2));
    std::fs::remove_file(desk.path("east.db")).unwrap();
    desk.run("init late.db --name late --fleet fleet.key --base").ok();
    rounds(&desk, &["late", "base", "north"], 2);
    rounds(&desk, &["late"], 1);
    assert_eq!(gathered(&desk, "late"), before);
    assert_eq!(gathered(&desk, "base"), before, "nothing is doubled");
    // Both go on, and neither gets it again.
    desk.sql("north.db", "INSERT INTO readings (value) VALUES (4); DELETE FROM state");
    rounds(&desk, &["north", "late", "base"], 2);
    let after = gathered(&desk, "base");
    assert_eq!((after[0].len(), after[1].len()), (7, 1));
    assert_eq!(gathered(&desk, "late"), after);
    assert_eq!(desk.run("digest late.db --gathered").ok(), desk.run("digest base.db --gathered").ok());
    in_order(&desk, &["north", "base", "late"]);
    let left = desk.run("exchange base.db card --json").json();
    assert_eq!(left["left"], json!([]), "it is in step");
}

#[test]
fn a_late_base_has_all_readings_by_a_bundle() {
    let desk = folded(&["north", "east"]);
    desk.run("init late.db --name late --fleet fleet.key --base").ok();
    desk.carry("late", "base");
    desk.run("export base.db for-late.pmb --for late").ok();
    desk.run("import late.db for-late.pmb").ok();
    assert_eq!(gathered(&desk, "late"), gathered(&desk, "base"));
    in_order(&desk, &["base", "late"]);
    let again = desk.run("import late.db for-late.pmb --json").json();
    assert_eq!(again["ops"], 0);
    // For anyone: since somebody is known to lack it.
    desk.run("init other.db --name other --fleet fleet.key --base").ok();
    desk.carry("other", "base");
    desk.carry("base", "other");
    assert_eq!(gathered(&desk, "other"), gathered(&desk, "base"));
}

/// The first base's disk is taken to the new one.
#[test]
fn a_late_base_takes_in_the_database_of_the_first_one() {
    let desk = folded(&["north"]);
    desk.run("init late.db --name late --fleet fleet.key --base").ok();
    desk.run("merge late.db base.db").ok();
    assert_eq!(gathered(&desk, "late"), gathered(&desk, "base"));
    in_order(&desk, &["late"]);
}

/// What a plain board sends of another's rows is nobody's to send.
#[test]
fn only_a_base_of_the_fleet_gives_rows_of_others() {
    let desk = folded(&["north"]);
    // A base by its own word alone, which somebody trusts by its fingerprint.
    desk.run("init liar.db --name liar --base").ok();
    desk.run("merge liar.db base.db").refused("base.db");
    for name in ["base", "north"] {
        desk.run(&format!("trust liar.db {}", fingerprint(&desk, name))).ok();
    }
    desk.run("merge liar.db base.db").ok();
    assert_eq!(desk.value("liar.db", "SELECT count(*) FROM readings"), Sql::Integer(3));
    desk.run("compact liar.db").ok();
    desk.run("init late.db --name late --fleet fleet.key --base").ok();
    desk.run(&format!("trust late.db {}", fingerprint(&desk, "liar"))).ok();
    desk.run(&format!("trust liar.db {}", fingerprint(&desk, "late"))).ok();
    desk.carry("late", "liar");
    desk.run("export liar.db lies.pmb --for late").ok();
    desk.run("import late.db lies.pmb").ok();
    let there = desk.value("late.db", "SELECT count(*) FROM sqlite_schema WHERE name = 'readings'");
    assert_eq!(there, Sql::Integer(0));
    has(&desk.run("status late.db").ok(), &["liar-", "sent per-device rows of north-", "left out"]);
}

/// A board's card is replaced by last week's image: its own rows come back from the base, which has folded them.
#[test]
fn a_board_that_was_set_back_gets_its_own_rows_from_the_base() {
    let desk = Desk::fleet(&["north"]);
    std::fs::create_dir(desk.path("card")).unwrap();
    desk.sql("north.db", "INSERT INTO readings (value) VALUES (1), (2)");
    rounds(&desk, &["north", "base"], 2);
    back_up(&desk, "north", "image");
    desk.sql(
        "north.db",
        "INSERT INTO readings (value) VALUES (3), (4); INSERT INTO settings VALUES ('later', 1, '')",
    );
    rounds(&desk, &["north", "base"], 3);
    for name in ["base", "north", "base"] {
        desk.run(&format!("compact {name}.db")).ok();
        rounds(&desk, &["north", "base"], 1);
    }
    let frames = "SELECT count(*) FROM _pm_frame WHERE stream = 1";
    assert_eq!(desk.value("base.db", frames), Sql::Integer(0), "all of it is folded");
    let rows = desk.rows("north.db", "SELECT id, value FROM readings ORDER BY id");
    let identity = fingerprint(&desk, "north");
    restore(&desk, "north", "image");
    rounds(&desk, &["north", "base"], 3);
    assert_eq!(desk.rows("north.db", "SELECT id, value FROM readings ORDER BY id"), rows);
    assert_eq!(fingerprint(&desk, "north"), identity);
    // It goes on after them.
    desk.sql("north.db", "INSERT INTO readings (value) VALUES (5)");
    rounds(&desk, &["north", "base"], 2);
    assert_eq!(desk.value("base.db", "SELECT count(*) FROM readings"), Sql::Integer(5));
    assert_eq!(desk.run("digest north.db").ok(), desk.run("digest base.db").ok());
    in_order(&desk, &["north", "base"]);
}

/// A base was set back to before a row was deleted; all that is folded since. What a board has pruned is no deletion.
#[test]
fn deletes_that_are_folded_come_by_their_list_and_what_is_pruned_stays() {
    for meets in ["base", "north"] {
        let desk = Desk::fleet(&["north"]);
        std::fs::create_dir(desk.path("card")).unwrap();
        desk.run("init second.db --name second --fleet fleet.key --base").ok();
        desk.sql("north.db", "CREATE TABLE state (k TEXT PRIMARY KEY, v)");
        desk.run("track north.db state --mode per-device").ok();
        desk.sql(
            "north.db",
            "INSERT INTO readings (value) VALUES (1), (2);
             INSERT INTO state VALUES ('stays', 1), ('gone', 1), ('back', 1)",
        );
        let all = ["north", "base", "second"];
        rounds(&desk, &all, 2);
        back_up(&desk, "second", "backup");
        desk.sql("north.db", "DELETE FROM state WHERE k IN ('gone', 'back'); DELETE FROM readings");
        rounds(&desk, &all, 2);
        desk.sql("north.db", "INSERT INTO state VALUES ('back', 2)");
        rounds(&desk, &all, 3);
        for name in all {
            desk.run(&format!("compact {name}.db")).ok();
            let left = desk.value(&format!("{name}.db"), "SELECT count(*) FROM _pm_frame WHERE stream = 1");
            assert_eq!(left, Sql::Integer(0), "{name}");
        }
        restore(&desk, "second", "backup");
        std::fs::remove_dir_all(desk.path("card")).unwrap();
        std::fs::create_dir(desk.path("card")).unwrap();
        rounds(&desk, &["second", meets], 3);
        let state = desk.rows("second.db", "SELECT k, v FROM state ORDER BY k");
        let row = |k: &str, v| vec![Sql::Text(k.into()), Sql::Integer(v)];
        assert_eq!(state, [row("back", 2), row("stays", 1)], "by {meets}");
        assert_eq!(desk.value("second.db", "SELECT count(*) FROM readings"), Sql::Integer(2), "by {meets}");
        in_order(&desk, &["second", meets]);
    }
}
