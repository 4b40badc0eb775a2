//! The fleet gets another key: the old one signs the new one, and no board needs another certificate.

use rusqlite::types::Value as Sql;
use serde_json::Value;

use crate::card::{are_equal, rounds, status};
use crate::line::{line, synced};
use crate::support::{Desk, has};

fn fleet(desk: &Desk, device: &str) -> Value {
    status(desk, device)["fleet"].clone()
}

#[test]
fn devices_follow_the_new_key() {
    let desk = Desk::fleet(&["north", "east"]);
    std::fs::create_dir(desk.path("card")).unwrap();
    desk.sql("north.db", "INSERT INTO readings (value) VALUES (1)");
    rounds(&desk, &["north", "east", "base", "north"], 1);
    let old = fleet(&desk, "base");
    let made = desk.run("fleet rotate fleet.key next.key --json").json();
    assert_eq!(made["follows"], old);
    desk.run("fleet rotate fleet.key next.key").refused("next.key");
    // A board that the new key has signed: the control is a device that has not heard of that key.
    desk.run("init new.db --name new --fleet next.key").ok();
    desk.sql("new.db", "CREATE TABLE readings (id INTEGER PRIMARY KEY AUTOINCREMENT, value REAL); INSERT INTO readings (value) VALUES (2)");
    desk.run("track new.db readings --mode per-device --append").ok();
    desk.run("fleet new foreign.key").ok();
    desk.run("init foreign.db --name foreign --fleet foreign.key").ok();
    rounds(&desk, &["new"], 1);
    // It carries the statement itself.
    rounds(&desk, &["base", "north", "new", "east", "base", "new"], 1);
    assert_eq!(desk.value("base.db", "SELECT count(*) FROM readings"), Sql::Integer(2));
    for device in ["base", "north", "east", "new"] {
        assert_eq!(fleet(&desk, device), made["fleet"], "{device}");
    }
    let listed = desk.run("devices base.db --json").json();
    assert_eq!(listed["devices"].as_array().unwrap().len(), 4, "a key is no device: {listed}");
    rounds(&desk, &["foreign"], 1);
    has(&desk.run("exchange base.db card").ok(), &["not trusted here"]);
    // A board without any key is admitted by the new one; its card has never met the others.
    std::fs::remove_dir_all(desk.path("card")).unwrap();
    std::fs::create_dir(desk.path("card")).unwrap();
    desk.run("init last.db --name last").ok();
    rounds(&desk, &["last"], 1);
    desk.run("admit card --fleet next.key").ok();
    rounds(&desk, &["last", "east", "base", "last"], 1);
    assert_eq!(fleet(&desk, "last"), made["fleet"]);
    desk.sql("east.db", "INSERT INTO settings VALUES ('a', 1, '')");
    rounds(&desk, &["east", "base", "last", "north", "new"], 1);
    assert_eq!(desk.run("digest base.db").ok(), desk.run("digest north.db").ok());
}

#[test]
fn a_base_is_told_and_tells_the_others_also_of_a_second_rotation() {
    let desk = Desk::fleet(&["north"]);
    std::fs::create_dir(desk.path("card")).unwrap();
    rounds(&desk, &["north", "base", "north"], 1);
    desk.run("fleet rotate fleet.key second.key").ok();
    let third = desk.run("fleet rotate second.key third.key --json").json();
    desk.run("admit base.db --fleet third.key").ok();
    assert_eq!(fleet(&desk, "base"), third["fleet"]);
    rounds(&desk, &["base", "north"], 1);
    assert_eq!(fleet(&desk, "north"), third["fleet"]);
    // A device that a key in between has signed is of the fleet too; a key that follows nothing is not.
    desk.run("init mid.db --name mid --fleet second.key").ok();
    rounds(&desk, &["mid", "base", "mid"], 1);
    assert_eq!(fleet(&desk, "mid"), third["fleet"]);
    desk.run("fleet new other.key").ok();
    desk.run("admit base.db --fleet other.key").refused("base.db");
}

/// A board that the new key has signed is met over a line by devices that have heard of the old key alone: it brings the
/// statement itself, and nobody types anything.
#[test]
fn a_device_of_the_new_key_is_accepted_over_a_line() {
    let desk = Desk::fleet(&["north"]);
    desk.sql("north.db", "INSERT INTO settings VALUES ('a', 1, '')");
    synced(&desk, "north", "base");
    let made = desk.run("fleet rotate fleet.key next.key --json").json();
    desk.run("fleet rotate next.key third.key").ok();
    desk.run("fleet new foreign.key").ok();
    for (name, key) in [("new", "next.key"), ("third", "third.key"), ("foreign", "foreign.key")] {
        desk.run(&format!("init {name}.db --name {name} --fleet {key}")).ok();
        desk.sql(
            &format!("{name}.db"),
            &format!("CREATE TABLE settings (key TEXT PRIMARY KEY, value, note TEXT); INSERT INTO settings VALUES ('{name}', 2, '')"),
        );
        desk.run(&format!("track {name}.db settings")).ok();
    }
    // Neither end is a base, and each is told only what the other says.
    synced(&desk, "new", "north");
    assert_eq!(fleet(&desk, "north"), made["fleet"]);
    // Two keys on at once.
    synced(&desk, "third", "base");
    for (one, two) in [("north", "base"), ("new", "base"), ("third", "base"), ("north", "base")] {
        synced(&desk, one, two);
    }
    let digest = desk.run("digest base.db").ok();
    for name in ["north", "new", "third"] {
        assert_eq!(desk.run(&format!("digest {name}.db")).ok(), digest, "{name}");
        assert_eq!(fleet(&desk, name), fleet(&desk, "third"), "{name}");
    }
    // Control: a device of a fleet that has nothing to do with it.
    for ran in line(&desk, "foreign", "base") {
        assert_eq!(ran.status, Some(1), "{}", ran.err);
        has(&ran.err, &["not trust"]);
    }
    assert_eq!(desk.run("digest base.db").ok(), digest);
}

fn is_revoked(desk: &Desk, at: &str, who: &str) -> bool {
    let devices = desk.run(&format!("devices {at}.db --json")).json();
    let known = devices["devices"].as_array().unwrap().iter().find(|device| device["name"] == who);
    known.is_some_and(|device| device["revoked"] == true)
}

/// A board is stolen, and the fleet gets another key at once: who hears of that first, or was made with the new key, hears
/// of the theft all the same; either key takes the word of the other back.
#[test]
fn a_revocation_outlives_the_key_that_signed_it() {
    let desk = Desk::fleet(&["north", "thief"]);
    std::fs::create_dir(desk.path("card")).unwrap();
    desk.sql("thief.db", "INSERT INTO settings VALUES ('a', 1, '')");
    rounds(&desk, &["thief", "north", "base", "north"], 2);
    desk.run("fleet rotate fleet.key next.key").ok();
    let early = desk.run("revoke base.db thief --fleet next.key").refused("base.db");
    has(&early.replace("\n  ", " "), &["follows the one that this database knows", "with `admit`"]);
    desk.run("revoke base.db thief --fleet fleet.key").ok();
    desk.run("admit base.db --fleet next.key").ok();
    for name in ["new", "lined"] {
        desk.run(&format!("init {name}.db --name {name} --fleet next.key")).ok();
    }
    rounds(&desk, &["base", "north", "new"], 2);
    synced(&desk, "base", "lined");
    for at in ["base", "north", "new", "lined"] {
        assert!(is_revoked(&desk, at, "thief"), "{at}");
    }
    desk.sql("thief.db", "UPDATE settings SET value = 666");
    rounds(&desk, &["thief", "new", "base", "north"], 1);
    assert_eq!(desk.value("north.db", "SELECT value FROM settings"), Sql::Integer(1));
    for (way, key, revoked) in [(" --undo", "next", false), ("", "fleet", true), (" --undo", "fleet", false)]
    {
        desk.run(&format!("revoke base.db thief{way} --fleet {key}.key")).ok();
        rounds(&desk, &["base", "north", "new"], 2);
        for at in ["base", "north", "new"] {
            assert_eq!(is_revoked(&desk, at, "thief"), revoked, "{at}, by {key}.key{way}");
        }
    }
    rounds(&desk, &["thief", "base", "north"], 2);
    are_equal(&desk, &["thief", "base", "north"]);
    assert_eq!(desk.value("north.db", "SELECT value FROM settings"), Sql::Integer(666));
}

/// The fleet key is lost. Who has a database and its key takes it over to another fleet; those that know each other go on
/// meanwhile, whichever of the two they are in.
#[test]
fn a_fleet_whose_key_is_lost_goes_over_to_another_one() {
    let desk = Desk::fleet(&["north", "east"]);
    std::fs::create_dir(desk.path("card")).unwrap();
    let all = ["north", "east", "base"];
    desk.sql("north.db", "INSERT INTO settings VALUES ('a', 1, ''); INSERT INTO readings (value) VALUES (1)");
    rounds(&desk, &all, 2);
    let who = all.map(|name| status(&desk, name)["fingerprint"].clone());
    std::fs::remove_file(desk.path("fleet.key")).unwrap();
    desk.run("fleet new next.key").ok();
    has(&desk.run("admit base.db --fleet next.key").refused("base.db"), &["lost or stolen", "--anew"]);
    let refused = desk.run("admit base.db --fleet next.key --anew");
    assert_eq!(refused.status, Some(1), "{}", refused.out);
    has(&refused.out, &["it asks to be a base", "--base"]);
    let old = fleet(&desk, "north");
    assert_eq!(fleet(&desk, "base"), old, "nothing has changed");
    desk.run("admit base.db --fleet next.key --anew --base").ok();
    assert_ne!(fleet(&desk, "base"), old);
    // The boards' cards come by one after the other.
    for moved in ["east", "north"] {
        desk.sql(
            "north.db",
            "UPDATE settings SET value = value + 1; INSERT INTO readings (value) VALUES (2)",
        );
        desk.sql("east.db", "INSERT INTO readings (value) VALUES (3)");
        rounds(&desk, &all, 2);
        are_equal(&desk, &all);
        desk.run(&format!("admit {moved}.db --fleet next.key --anew")).ok();
    }
    rounds(&desk, &all, 2);
    // What only a member of the fleet can do: a new board, a base's word, the fleet's word.
    desk.run("init new.db --name new --fleet next.key").ok();
    desk.sql("new.db", "CREATE TABLE settings (key TEXT PRIMARY KEY, value, note TEXT); INSERT INTO settings VALUES ('new', 1, '')");
    desk.run("track new.db settings").ok();
    let four = ["new", "north", "east", "base"];
    rounds(&desk, &four, 3);
    are_equal(&desk, &four);
    assert_eq!(desk.value("base.db", "SELECT count(*) FROM readings"), Sql::Integer(5));
    desk.run("revoke base.db new --fleet next.key").ok();
    desk.run("retire base.db east").ok();
    rounds(&desk, &["base", "north"], 2);
    assert!(is_revoked(&desk, "north", "new"));
    has(&desk.run("devices north.db").ok(), &["is retired (by base-"]);
    for (name, who) in all.iter().zip(who) {
        assert_eq!(status(&desk, name)["fingerprint"], who, "{name}");
        assert_eq!(fleet(&desk, name), fleet(&desk, "new"), "{name}");
        desk.run(&format!("verify {name}.db")).ok();
    }
    // A bundle can be anybody's: nothing in it is taken over.
    desk.run("fleet new foreign.key").ok();
    desk.run("export north.db north.pmb").ok();
    desk.run("admit north.pmb --fleet foreign.key --anew").ok();
    assert_eq!(fleet(&desk, "north"), fleet(&desk, "base"));
}
