//! A board that was made without the fleet key: it asks for admission with whatever it sends, the keeper signs where
//! the key is, and the certificate comes back the way that the request came. Nobody types at the board.

use rusqlite::types::Value as Sql;
use serde_json::Value;

use crate::card::{are_equal, exchange, fingerprint, rounds, status};
use crate::support::{Desk, has};

/// A fleet with a base and a board, and a board `new` with rows of its own that nobody has admitted; a card.
fn desk() -> Desk {
    let desk = Desk::fleet(&["north"]);
    board(&desk, "new", "");
    std::fs::create_dir(desk.path("card")).unwrap();
    desk
}

/// Makes a board without the fleet key.
fn board(desk: &Desk, name: &str, more: &str) {
    desk.run(format!("init {name}.db --name {name} {more}").trim()).ok();
    desk.sql(
        &format!("{name}.db"),
        "CREATE TABLE settings (key TEXT PRIMARY KEY, value, note TEXT);
         CREATE TABLE readings (id INTEGER PRIMARY KEY AUTOINCREMENT, value REAL);
         INSERT INTO readings (value) VALUES (1), (2)",
    );
    desk.sql(&format!("{name}.db"), &format!("INSERT INTO settings VALUES ('of {name}', 1, '')"));
    desk.run(&format!("track {name}.db settings")).ok();
    desk.run(&format!("track {name}.db readings --mode per-device --append")).ok();
}

fn gathered(desk: &Desk) -> Sql {
    desk.value("base.db", "SELECT count(*) FROM readings")
}

/// Everybody exchanges, twice; then all are the same, and the base has all readings.
fn in_step(desk: &Desk, devices: &[&str]) {
    rounds(desk, devices, 2);
    are_equal(desk, devices);
}

/// A board that is in no fleet yet meets a card on which a fleet's bundles lie: what helps is said once, and helps.
#[test]
fn a_board_in_no_fleet_is_told_once_what_helps() {
    let desk = desk();
    desk.sql("north.db", "INSERT INTO settings VALUES ('of north', 1, '')");
    exchange(&desk, "north");
    exchange(&desk, "base");
    let said = exchange(&desk, "new");
    assert_eq!(said.matches(": skipped: the bundle has frames of devices").count(), 2, "{said}");
    assert_eq!(said.matches("no fleet has admitted this device yet").count(), 1, "{said}");
    assert!(said.lines().all(|line| line.chars().count() <= 96), "{said}");
    // Trusted one by one, as printed: their bundles are taken in.
    let trusts: Vec<&str> = said.lines().filter_map(|line| line.trim().strip_prefix("packmule ")).collect();
    assert_eq!(trusts.len(), 2, "{said}");
    trusts.iter().for_each(|command| drop(desk.run(command).ok()));
    has(&exchange(&desk, "new"), &["taken in: ", "1 row applied"]);
    // Or admitted, as printed.
    board(&desk, "late", "");
    let said = exchange(&desk, "late");
    has(&said, &["`packmule admit card --fleet FILE`"]);
    desk.run("admit card --fleet fleet.key").ok();
    for device in ["base", "late"] {
        exchange(&desk, device);
    }
    assert_ne!(status(&desk, "late")["fleet"], Value::Null);
    assert_eq!(
        desk.value("late.db", "SELECT count(*) FROM settings WHERE key = 'of north'"),
        Sql::Integer(1)
    );
}

#[test]
fn a_board_made_without_the_key_is_admitted_at_the_base() {
    let desk = desk();
    let id = fingerprint(&desk, "new");
    assert_eq!(status(&desk, "new")["fleet"], Value::Null);
    has(&desk.run("status new.db").ok(), &["fleet        none yet: it asks"]);
    exchange(&desk, "new");
    // The base steps over it, says who asks, and what to type.
    let said = exchange(&desk, "base");
    has(
        &said,
        &[
            "skipped: new (",
            "new (fingerprint ",
            &id,
            "asks for admission",
            "\n  packmule admit base.db --fleet FILE",
        ],
    );
    assert_eq!(status(&desk, "new")["fleet"], Value::Null);
    let said = desk.run("admit base.db --fleet fleet.key").ok();
    has(&said, &["admitted: new", &id]);
    desk.sql("new.db", "INSERT INTO readings (value) VALUES (3)");
    // What it wrote meanwhile comes in at the next exchange, and the certificate goes back.
    exchange(&desk, "base");
    assert_eq!(gathered(&desk), Sql::Integer(2));
    let said = exchange(&desk, "new");
    has(&said, &["has admitted this device"]);
    assert_eq!(status(&desk, "new")["fleet"], status(&desk, "base")["fleet"]);
    assert_eq!(fingerprint(&desk, "new"), id);
    in_step(&desk, &["base", "new", "north", "base"]);
    assert_eq!(gathered(&desk), Sql::Integer(3));
    // The base carries the certificate no longer, and nobody asks any more.
    has(&desk.run("admit base.db --fleet fleet.key").ok(), &["nobody asks"]);
    let kept = desk
        .value("base.db", "SELECT count(*) FROM _pm_meta WHERE k GLOB 'admission *' OR k GLOB 'request *'");
    assert_eq!(kept, Sql::Integer(0));
    // A card at rest stays at rest.
    let files = std::fs::read_dir(desk.path("card/PACKMULE")).unwrap().count();
    in_step(&desk, &["base", "new", "north", "base"]);
    assert_eq!(std::fs::read_dir(desk.path("card/PACKMULE")).unwrap().count(), files);
}

#[test]
fn a_card_is_signed_where_the_key_is() {
    let desk = desk();
    exchange(&desk, "new");
    let said = exchange(&desk, "north");
    // At a board nobody is asked to bring the key there.
    has(
        &said,
        &[
            "new (fingerprint ",
            "asks for admission",
            "where the fleet key is:\n  packmule admit card --fleet FILE",
        ],
    );
    let done = desk.run("admit card --fleet fleet.key --json").json();
    assert_eq!(done["requests"][0]["admitted"], true);
    assert!(done["files"][0].as_str().unwrap().starts_with("card/PACKMULE/"), "{done}");
    // Again: nothing to do, and no second file.
    has(&desk.run("admit card --fleet fleet.key").ok(), &["nobody asks"]);
    // One exchange of the base takes in all of it, in whatever order the files lie there.
    exchange(&desk, "base");
    assert_eq!(gathered(&desk), Sql::Integer(2));
    in_step(&desk, &["new", "base", "north", "new"]);
    assert_eq!(status(&desk, "new")["fleet"], status(&desk, "base")["fleet"]);
}

#[test]
fn a_bundle_is_signed_beside_it_and_imported_as_a_file() {
    let desk = desk();
    desk.run("export new.db new.pmb").ok();
    let said = desk.run("import base.db new.pmb").refused("new.pmb");
    has(&said, &["is not of this fleet yet", "packmule admit base.db --fleet FILE"]);
    let done = desk.run("admit new.pmb --fleet fleet.key --json").json();
    let file = done["files"][0].as_str().unwrap().to_owned();
    desk.run(&format!("import new.db {file}")).ok();
    assert_eq!(status(&desk, "new")["fleet"], status(&desk, "base")["fleet"]);
    desk.run(&format!("import base.db {file}")).ok();
    desk.run("import base.db new.pmb").ok();
    assert_eq!(gathered(&desk), Sql::Integer(2));
}

#[test]
fn a_database_on_the_host_gets_its_certificate_at_once() {
    let desk = desk();
    has(&desk.run("admit new.db --fleet fleet.key").ok(), &["admitted: new"]);
    assert_eq!(status(&desk, "new")["fleet"], status(&desk, "base")["fleet"]);
    in_step(&desk, &["new", "base", "north", "new"]);
    desk.run("fleet new other.key").ok();
    let said = desk.run("admit new.db --fleet other.key").refused("new.db");
    has(&said, &["belongs to another fleet"]);
}

#[test]
fn only_who_is_meant_is_admitted_and_nobody_becomes_a_base_unasked() {
    let desk = desk();
    desk.run("init second.db --name second --base").ok();
    desk.run("init north2.db --name north").ok();
    desk.run("init gone.db --name gone").ok();
    for device in ["new", "second", "north2", "gone", "north"] {
        exchange(&desk, device);
    }
    exchange(&desk, "base");
    let gone = fingerprint(&desk, "gone");
    desk.run(&format!("revoke base.db {gone}")).ok();
    let new = fingerprint(&desk, "new");
    let done = desk.run("admit card base.db --fleet fleet.key --json").json();
    let outcome = |name: &str| {
        let all = done["requests"].as_array().unwrap().iter();
        let of: Vec<_> =
            all.filter(|r| r["name"] == name && r["fingerprint"] != fingerprint(&desk, "north")).collect();
        (of[0]["admitted"].as_bool().unwrap(), of[0]["reason"].as_str().unwrap_or("").to_owned())
    };
    assert!(outcome("new").0);
    has(&outcome("second").1, &["add --base"]);
    has(&outcome("north").1, &["its name"]);
    has(&outcome("gone").1, &["revoked"]);
    assert_eq!(done["requests"].as_array().unwrap().iter().filter(|r| r["admitted"] == true).count(), 1);
    // A second base is one only where somebody says so; --only picks.
    let second = fingerprint(&desk, "second");
    let said = desk.run(&format!("admit card --fleet fleet.key --base --only {second}")).ok();
    has(&said, &["admitted as a base: second"]);
    exchange(&desk, "second");
    assert_eq!(status(&desk, "second")["base"], true);
    assert_eq!(status(&desk, "second")["fleet"], status(&desk, "base")["fleet"]);
    let nobody = desk.run(&format!("admit card --fleet fleet.key --only {}", "0".repeat(32)));
    assert_eq!(nobody.status, Some(1));
    desk.run("admit card").usage();
    desk.run("admit card --fleet fleet.key --only north").usage();
    // Not admitted twice.
    let again = desk.run(&format!("admit card --fleet fleet.key --only {new} --json")).json();
    assert!(again["requests"].as_array().unwrap().iter().all(|r| r["admitted"] == false), "{again}");
}

#[test]
fn a_board_waits_for_the_fleet_that_it_was_told() {
    let desk = Desk::fleet(&["north"]);
    std::fs::create_dir(desk.path("card")).unwrap();
    let made = desk.run("fleet new other.key --json").json();
    let other = made["fleet"].as_str().unwrap().to_owned();
    board(&desk, "new", &format!("--fleet-id {other}"));
    assert_eq!(status(&desk, "new")["asks_fleet"], other.as_str());
    exchange(&desk, "new");
    // Whoever else signs it: it does not take that.
    desk.run("admit card --fleet fleet.key").ok();
    exchange(&desk, "new");
    assert_eq!(status(&desk, "new")["fleet"], Value::Null);
    desk.run("admit card --fleet other.key").ok();
    has(&exchange(&desk, "new"), &["has admitted this device"]);
    assert_eq!(status(&desk, "new")["fleet"], other.as_str());
    // And from then on no other.
    desk.run("admit card --fleet fleet.key").ok();
    exchange(&desk, "new");
    assert_eq!(status(&desk, "new")["fleet"], other.as_str());
    desk.run("init x.db --name x --fleet-id 12").usage();
    desk.run(&format!("init x.db --name x --fleet fleet.key --fleet-id {other}")).usage();
}

#[test]
fn a_board_that_joined_without_the_key_says_so_and_is_admitted() {
    let desk = Desk::fleet(&["north"]);
    std::fs::create_dir(desk.path("card")).unwrap();
    desk.sql("north.db", "INSERT INTO settings VALUES ('interval', 60, '')");
    exchange(&desk, "north");
    exchange(&desk, "base");
    desk.run("snapshot base.db start.pms").ok();
    has(&desk.run("join new.db start.pms --name new").ok(), &["fleet        none yet"]);
    assert_eq!(status(&desk, "new")["fleet"], Value::Null);
    desk.sql("new.db", "UPDATE settings SET value = 30");
    exchange(&desk, "new");
    has(&exchange(&desk, "base"), &["new (fingerprint ", "asks for admission"]);
    desk.run("admit base.db --fleet fleet.key").ok();
    in_step(&desk, &["base", "new", "north", "base"]);
    assert_eq!(desk.value("north.db", "SELECT value FROM settings"), Sql::Integer(30));
    assert_eq!(status(&desk, "new")["fleet"], status(&desk, "base")["fleet"]);
}

/// A device that was of the fleet and joins again without the key is of it no longer.
#[test]
fn the_status_of_who_joined_again_without_the_key_shows_no_fleet() {
    let desk = Desk::fleet(&["north"]);
    desk.sql("north.db", "INSERT INTO settings VALUES ('interval', 60, '')");
    desk.carry("north", "base");
    desk.run("snapshot base.db start.pms").ok();
    let joined = desk.run("join north.db start.pms --json").json();
    if joined["new_identity"] == true {
        assert_eq!(status(&desk, "north")["fleet"], Value::Null);
    } else {
        assert_eq!(status(&desk, "north")["fleet"], status(&desk, "base")["fleet"]);
    }
}

#[test]
fn a_board_gets_another_name_and_its_readings_go_along() {
    let desk = Desk::fleet(&["north", "east"]);
    std::fs::create_dir(desk.path("card")).unwrap();
    desk.sql("north.db", "INSERT INTO readings (value) VALUES (1), (2)");
    in_step(&desk, &["north", "east", "base", "north"]);
    let id = fingerprint(&desk, "north");
    let gathered = |name: &str| {
        let label = format!("{name}-{}", &id[..8]);
        desk.value("base.db", &format!("SELECT count(*) FROM readings WHERE device = '{label}'"))
    };
    assert_eq!(gathered("north"), Sql::Integer(2));
    has(
        &desk.run("rename north.db mast").ok(),
        &["the fleet is asked for the name `mast`", "the name is `north`"],
    );
    has(&desk.run("status north.db").ok(), &["`north`", "asks for     the name `mast`"]);
    desk.sql("north.db", "INSERT INTO readings (value) VALUES (3)");
    exchange(&desk, "north");
    // Its readings come in under the old name, and the base says what is asked for.
    has(&exchange(&desk, "base"), &["mast (fingerprint ", "packmule admit base.db --fleet FILE"]);
    assert_eq!(gathered("north"), Sql::Integer(3));
    desk.run("admit base.db --fleet fleet.key").ok();
    assert_eq!((gathered("north"), gathered("mast")), (Sql::Integer(0), Sql::Integer(3)));
    in_step(&desk, &["base", "north", "east", "base"]);
    assert_eq!(status(&desk, "north")["name"], "mast");
    assert_eq!(fingerprint(&desk, "north"), id);
    desk.sql("north.db", "INSERT INTO readings (value) VALUES (4)");
    in_step(&desk, &["north", "base", "east", "north"]);
    assert_eq!(desk.value("base.db", "SELECT sum(value) FROM readings"), Sql::Real(10.0));
    assert_eq!(gathered("mast"), Sql::Integer(4));
    // An old bundle does not bring the old name back; a name that is in use is not signed.
    desk.run("rename east.db mast").ok();
    exchange(&desk, "east");
    exchange(&desk, "base");
    let refused = desk.run("admit base.db --fleet fleet.key");
    assert_eq!(refused.status, Some(1));
    has(&refused.out, &["not admitted: mast", "its name is that of another device"]);
    // Back to its own name: nothing is asked for any more.
    has(&desk.run("rename east.db east").ok(), &["`east` now"]);
    // A device of no fleet has its name at once.
    desk.run("init alone.db --name alone").ok();
    has(&desk.run("rename alone.db solo").ok(), &["`solo` now"]);
    let long = "n".repeat(65);
    desk.run(&format!("rename alone.db {long}")).refused("alone.db");
}
