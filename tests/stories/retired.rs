//! A board will not come back: it is retired, visibly, and is taken back by a person's word or by itself.

use rusqlite::types::Value as Sql;
use serde_json::Value;

use crate::card::rounds;
use crate::support::{Desk, has};

fn fleet() -> Desk {
    let desk = Desk::fleet(&["north", "south"]);
    std::fs::create_dir(desk.path("card")).unwrap();
    desk.sql(
        "north.db",
        "INSERT INTO settings VALUES ('interval', 60, ''); INSERT INTO readings (value) VALUES (1)",
    );
    rounds(&desk, &["north", "south", "base"], 3);
    desk
}

fn at(desk: &Desk, db: &str, name: &str) -> Value {
    let devices = desk.run(&format!("devices {db} --json")).json();
    devices["devices"].as_array().unwrap().iter().find(|device| device["name"] == name).unwrap().clone()
}

/// The base retires a board; the same is not advised again, and all see it.
#[test]
fn a_lost_board_is_retired_once() {
    let desk = fleet();
    desk.sql("north.db", "UPDATE settings SET value = 30");
    rounds(&desk, &["north", "base", "north"], 1);
    let shown = desk.run("compact base.db").ok();
    has(&shown, &["south-", "is not known to have", "packmule retire base.db south-"]);
    let shown = desk.run("retire base.db south").ok();
    has(&shown, &["south-", "is retired", "here and wherever this is carried", "--undo` takes it back"]);
    for _ in 0..2 {
        let shown = desk.run("compact base.db").ok();
        assert!(!shown.contains("south-"), "{shown}");
        rounds(&desk, &["north", "base"], 2);
    }
    desk.run("compact north.db").ok();
    rounds(&desk, &["north", "base"], 2);
    let shown = desk.run("compact base.db").ok();
    assert!(!shown.contains("packmule retire"), "{shown}");
    for db in ["base.db", "north.db"] {
        let south = at(&desk, db, "south");
        assert_eq!((&south["retired"], &south["revoked"]), (&true.into(), &false.into()), "{db}");
        assert!(south["retired_by"].as_str().unwrap().starts_with("by base-"), "{db}: {south}");
        has(&desk.run(&format!("devices {db}")).ok(), &["south-", "is retired (by base-"]);
        has(&desk.run(&format!("status {db}")).ok(), &["retired      south-", "(by base-"]);
        assert!(
            desk.run(&format!("status {db} --json")).json()["retired"][0]
                .as_str()
                .unwrap()
                .starts_with("south-")
        );
    }
    // To say it twice changes nothing.
    desk.run("retire base.db south").ok();
    assert_eq!(desk.run("seal base.db --json").json()["frames"], 0);
}

#[test]
fn a_retirement_is_taken_back() {
    let desk = fleet();
    desk.run("retire base.db south").ok();
    rounds(&desk, &["base", "north"], 2);
    assert_eq!(at(&desk, "north.db", "south")["retired"], true);
    has(
        &desk.run("retire base.db south --undo").ok(),
        &["south-", "is no longer retired, here and wherever"],
    );
    rounds(&desk, &["base", "north"], 2);
    for db in ["base.db", "north.db"] {
        assert_eq!(at(&desk, db, "south")["retired"], false, "{db}");
        assert!(!desk.run(&format!("status {db}")).ok().contains("retired"), "{db}");
    }
    has(&desk.run("retire base.db south --undo").refused("base.db"), &["is not retired"]);
    has(&desk.run("retire base.db base").refused("base.db"), &["cannot retire itself"]);
}

/// The board was only away: what it brings is taken in, and nobody has to type anything.
#[test]
fn a_board_that_writes_again_is_back() {
    let desk = fleet();
    desk.run("retire base.db south").ok();
    rounds(&desk, &["base", "north"], 2);
    desk.sql(
        "south.db",
        "INSERT INTO settings VALUES ('back', 1, ''); INSERT INTO readings (value) VALUES (2)",
    );
    rounds(&desk, &["south", "base", "north"], 4);
    for db in ["base.db", "north.db", "south.db"] {
        assert_eq!(at(&desk, db, "south")["retired"], false, "{db}");
        assert_eq!(desk.value(db, "SELECT value FROM settings WHERE key = 'back'"), Sql::Integer(1), "{db}");
    }
    assert_eq!(desk.value("base.db", "SELECT count(*) FROM readings"), Sql::Integer(2));
    let digests: Vec<String> =
        ["north", "south", "base"].iter().map(|d| desk.run(&format!("digest {d}.db")).ok()).collect();
    assert!(digests.windows(2).all(|pair| pair[0] == pair[1]), "{digests:?}");
    // And stays back, until it is retired again.
    rounds(&desk, &["south", "base", "north"], 1);
    desk.run("retire base.db south").ok();
    rounds(&desk, &["base", "north"], 2);
    assert_eq!(at(&desk, "north.db", "south")["retired"], true);
}

/// It hears of its retirement and says that it is back, although nothing was written there.
#[test]
fn a_board_that_hears_that_it_is_retired_says_that_it_is_back() {
    let desk = fleet();
    desk.run("retire base.db south").ok();
    desk.run("export base.db for-south.pmb").ok();
    rounds(&desk, &["base", "north"], 2);
    desk.run("import south.db for-south.pmb").ok();
    assert_eq!(at(&desk, "south.db", "south")["retired"], true);
    rounds(&desk, &["south", "base", "north"], 3);
    for db in ["base.db", "north.db", "south.db"] {
        assert_eq!(at(&desk, db, "south")["retired"], false, "{db}");
    }
}

/// What a board says of another holds for that board alone; and with no base left nothing of its own is folded.
#[test]
fn what_a_board_says_of_another_holds_for_itself() {
    let desk = fleet();
    let shown = desk.run("retire north.db south").ok();
    has(&shown, &["for this database alone", "for all devices, run it at a base"]);
    rounds(&desk, &["north", "base", "south"], 2);
    assert_eq!(at(&desk, "base.db", "south")["retired"], false);
    has(&desk.run("status north.db").ok(), &["retired      south-", "(here alone)"]);
    desk.run("retire north.db base").ok();
    desk.sql("north.db", "INSERT INTO readings (value) VALUES (3), (4)");
    desk.run("seal north.db").ok();
    desk.run("compact north.db").ok();
    let kept = desk.run("log north.db readings --rows").ok();
    has(&kept, &["insert readings id = 2", "insert readings id = 3"]);
    has(&desk.run("retire north.db south --undo").ok(), &["for this database alone"]);
    // The base is there after all, and has all of it.
    desk.run("retire north.db base --undo").ok();
    rounds(&desk, &["north", "base"], 2);
    assert_eq!(desk.value("base.db", "SELECT count(*) FROM readings"), Sql::Integer(3));
}

/// A board is retired that only reads: it meets the card all the same, and is left what it lacks, also once that is
/// folded. What it left before it was retired brings nothing back.
#[test]
fn a_retired_board_that_writes_nothing_is_kept_in_step() {
    let desk = fleet();
    desk.run("retire base.db south").ok();
    desk.sql("base.db", "INSERT INTO settings VALUES ('of base', 1, '')");
    let for_south = |said: &str| said.contains("left for south-");
    rounds(&desk, &["north", "base"], 2);
    for db in ["north.db", "base.db"] {
        desk.run(&format!("compact {db}")).ok();
        let said = desk.run(&format!("exchange {db} card")).ok();
        assert!(!for_south(&said), "{said}");
    }
    rounds(&desk, &["south", "base", "north"], 3);
    let digest = desk.run("digest base.db").ok();
    ["north.db", "south.db"].iter().for_each(|db| assert_eq!(desk.run(&format!("digest {db}")).ok(), digest));
    assert_eq!(
        desk.value("south.db", "SELECT count(*) FROM settings WHERE key = 'of base'"),
        Sql::Integer(1)
    );
}

/// The only base is dead. A person at another device has the fleet key: by its word the base is retired for all.
#[test]
fn the_fleet_key_retires_for_all() {
    let desk = fleet();
    desk.run("compact north.db").ok();
    let shown = desk.run("retire north.db base --fleet fleet.key").ok();
    has(
        &shown,
        &["base-", "is retired", "wherever this is carried", "--undo --fleet fleet.key` takes it back"],
    );
    rounds(&desk, &["north", "south"], 2);
    for db in ["north.db", "south.db"] {
        let base = at(&desk, db, "base");
        assert_eq!(
            (&base["retired"], &base["retired_by"]),
            (&true.into(), &"by the fleet key".into()),
            "{db}"
        );
        has(&desk.run(&format!("status {db}")).ok(), &["retired      base-", "(by the fleet key)"]);
    }
    // No base is left: what is each board's own is not folded.
    desk.sql("north.db", "INSERT INTO readings (value) VALUES (2)");
    for name in ["north", "south", "north"] {
        desk.run(&format!("compact {name}.db")).ok();
        rounds(&desk, &["north", "south"], 1);
    }
    assert_ne!(desk.value("north.db", "SELECT count(*) FROM _pm_frame WHERE stream = 1"), Sql::Integer(0));
    // Somebody took it back there already, for that database alone: then for all.
    has(&desk.run("retire south.db base --undo").ok(), &["for this database alone"]);
    desk.run("retire south.db base --undo --fleet fleet.key").ok();
    rounds(&desk, &["south", "north"], 2);
    assert_eq!(at(&desk, "north.db", "base")["retired"], false);
    // The key of another fleet says nothing here.
    desk.run("fleet new other.key").ok();
    has(&desk.run("retire north.db base --fleet other.key").refused("north.db"), &["another fleet"]);
}

/// What was left for a board that will not come back is removed for that reason, and no other.
#[test]
fn what_was_left_for_a_board_is_removed_for_what_became_of_it() {
    for encrypt in ["", " --encrypt"] {
        for (how, became) in [("retire", "retired"), ("revoke", "revoked")] {
            let desk = Desk::fleet(&["south"]);
            std::fs::create_dir(desk.path("card")).unwrap();
            let base = || desk.run(&format!("exchange base.db card{encrypt}")).ok();
            for _ in 0..3 {
                desk.run(&format!("exchange south.db card{encrypt}")).ok();
                base();
            }
            desk.sql("base.db", "INSERT INTO settings VALUES ('interval', 1, '')");
            has(&base(), &["left for south-"]);
            desk.run(&format!("{how} base.db south")).ok();
            let said = base();
            let why = match (became, encrypt) {
                ("revoked", " --encrypt") => "it was encrypted to a device that is revoked".to_owned(),
                _ => format!("it was for a device that is {became}"),
            };
            has(&said, &[&format!("removed: {why}")]);
            let other = if became == "retired" { "revoked" } else { "retired" };
            assert!(!said.contains(other), "{said}");
        }
    }
}
