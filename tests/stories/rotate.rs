//! The fleet gets another key: the old one signs the new one, and no board needs another certificate.

use rusqlite::types::Value as Sql;
use serde_json::Value;

use crate::card::{rounds, status};
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
