//! The fleet gets another key: the old one signs the new one, and no board needs another certificate.

use rusqlite::types::Value as Sql;
use serde_json::Value;

use crate::support::{Desk, has};

fn exchange(desk: &Desk, devices: &[&str]) {
    devices.iter().for_each(|device| drop(desk.run(&format!("exchange {device}.db card")).ok()));
}

fn fleet(desk: &Desk, device: &str) -> Value {
    desk.run(&format!("status {device}.db --json")).json()["fleet"].clone()
}

#[test]
fn devices_follow_the_new_key() {
    let desk = Desk::fleet(&["north", "east"]);
    std::fs::create_dir(desk.path("card")).unwrap();
    desk.sql("north.db", "INSERT INTO readings (value) VALUES (1)");
    exchange(&desk, &["north", "east", "base", "north"]);
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
    exchange(&desk, &["new"]);
    // It carries the statement itself.
    exchange(&desk, &["base", "north", "new", "east", "base", "new"]);
    assert_eq!(desk.value("base.db", "SELECT count(*) FROM readings"), Sql::Integer(2));
    for device in ["base", "north", "east", "new"] {
        assert_eq!(fleet(&desk, device), made["fleet"], "{device}");
    }
    let listed = desk.run("devices base.db --json").json();
    assert_eq!(listed["devices"].as_array().unwrap().len(), 4, "a key is no device: {listed}");
    exchange(&desk, &["foreign"]);
    has(&desk.run("exchange base.db card").ok(), &["not trusted here"]);
    // A board without any key is admitted by the new one; its card has never met the others.
    std::fs::remove_dir_all(desk.path("card")).unwrap();
    std::fs::create_dir(desk.path("card")).unwrap();
    desk.run("init last.db --name last").ok();
    exchange(&desk, &["last"]);
    desk.run("admit card --fleet next.key").ok();
    exchange(&desk, &["last", "east", "base", "last"]);
    assert_eq!(fleet(&desk, "last"), made["fleet"]);
    desk.sql("east.db", "INSERT INTO settings VALUES ('a', 1, '')");
    exchange(&desk, &["east", "base", "last", "north", "new"]);
    assert_eq!(desk.run("digest base.db").ok(), desk.run("digest north.db").ok());
}

#[test]
fn a_base_is_told_and_tells_the_others_also_of_a_second_rotation() {
    let desk = Desk::fleet(&["north"]);
    std::fs::create_dir(desk.path("card")).unwrap();
    exchange(&desk, &["north", "base", "north"]);
    desk.run("fleet rotate fleet.key second.key").ok();
    let third = desk.run("fleet rotate second.key third.key --json").json();
    desk.run("admit base.db --fleet third.key").ok();
    assert_eq!(fleet(&desk, "base"), third["fleet"]);
    exchange(&desk, &["base", "north"]);
    assert_eq!(fleet(&desk, "north"), third["fleet"]);
    // A device that a key in between has signed is of the fleet too; a key that follows nothing is not.
    desk.run("init mid.db --name mid --fleet second.key").ok();
    exchange(&desk, &["mid", "base", "mid"]);
    assert_eq!(fleet(&desk, "mid"), third["fleet"]);
    desk.run("fleet new other.key").ok();
    desk.run("admit base.db --fleet other.key").refused("base.db");
}
