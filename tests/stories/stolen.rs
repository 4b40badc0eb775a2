//! A board is stolen: it is revoked, nobody else is cut off, and what the thief wrote is found and undone.

use rusqlite::types::Value as Sql;

use crate::card::{self, are_equal, fingerprint};
use crate::line::{line, synced};
use crate::support::{Desk, has};

/// A base, and boards that have all met on a card.
fn fleet(boards: &[&str]) -> Desk {
    let desk = Desk::fleet(boards);
    std::fs::create_dir(desk.path("card")).unwrap();
    desk.sql(
        &format!("{}.db", boards[0]),
        "INSERT INTO settings VALUES ('interval', 60, 'before the theft');
         INSERT INTO readings (value) VALUES (1)",
    );
    rounds(&desk, &everybody(boards), 3);
    desk
}

fn everybody<'a>(boards: &[&'a str]) -> Vec<&'a str> {
    boards.iter().copied().chain(["base"]).collect()
}

/// Everybody exchanges with the card, in turn.
fn rounds(desk: &Desk, devices: &[&str], n: usize) {
    for _ in 0..n {
        for device in devices {
            exchange(desk, device);
        }
    }
}

/// Exchanges with the card; nobody is told to trust anybody.
fn exchange(desk: &Desk, device: &str) -> String {
    let shown = card::exchange(desk, device);
    assert!(!shown.contains("packmule trust"), "{shown}");
    shown
}

fn setting(desk: &Desk, device: &str, key: &str) -> Option<Sql> {
    let rows = desk.rows(&format!("{device}.db"), &format!("SELECT value FROM settings WHERE key = '{key}'"));
    rows.into_iter().next().map(|row| row.into_iter().next().unwrap())
}

fn device<'a>(devices: &'a serde_json::Value, name: &str) -> &'a serde_json::Value {
    devices["devices"].as_array().unwrap().iter().find(|device| device["name"] == name).unwrap()
}

/// The thief meets an honest board that has not heard of the theft; then the revocation goes round.
#[test]
fn a_stolen_board_is_revoked_and_nobody_else_is_cut_off() {
    let boards = ["thief", "east", "west"];
    let desk = fleet(&boards);
    // The base revokes it, and has not met anybody since.
    let shown = desk.run("revoke base.db thief --fleet fleet.key").ok();
    has(&shown, &["nothing more is taken from thief-", "it travels", "packmule log base.db --by"]);
    assert!(!shown.contains("trust"), "{shown}");
    // Meanwhile the thief meets east, and nobody there knows: east takes that in, and west takes it from east.
    std::fs::create_dir(desk.path("other")).unwrap();
    desk.sql(
        "thief.db",
        "INSERT INTO settings VALUES ('by the thief', 1, ''); INSERT INTO readings (value) VALUES (9)",
    );
    desk.run("exchange thief.db other").ok();
    desk.run("exchange east.db other").ok();
    assert_eq!(setting(&desk, "east", "by the thief"), Some(Sql::Integer(1)));
    desk.sql("east.db", "UPDATE settings SET value = 30 WHERE key = 'interval'");
    // The card goes round. East's bundles hold frames of the thief, and are taken in whole.
    rounds(&desk, &["east", "west", "base"], 4);
    are_equal(&desk, &["east", "west", "base"]);
    for device in ["east", "west", "base"] {
        assert_eq!(setting(&desk, device, "interval"), Some(Sql::Integer(30)), "{device}");
        assert_eq!(
            setting(&desk, device, "by the thief"),
            Some(Sql::Integer(1)),
            "{device}: east had it before"
        );
    }
    // All have heard of it.
    for db in ["east.db", "west.db", "base.db"] {
        let devices = desk.run(&format!("devices {db} --json")).json();
        let thief = device(&devices, "thief");
        assert_eq!((&thief["revoked"], &thief["retired"]), (&true.into(), &false.into()), "{db}");
        assert_eq!(thief["revoked_by"], "by the fleet key", "{db}");
        assert_eq!(device(&devices, "west")["revoked"], false, "{db}");
        has(&desk.run(&format!("devices {db}")).ok(), &["thief-", "is revoked (by the fleet key)"]);
        has(&desk.run(&format!("status {db}")).ok(), &["revoked      thief-", "(by the fleet key)"]);
    }
    // From now on nothing is taken from the thief.
    desk.sql("thief.db", "UPDATE settings SET value = 666 WHERE key = 'interval'");
    desk.run("exchange thief.db card").ok();
    for honest in ["east", "base", "west", "east", "base"] {
        let shown = exchange(&desk, honest);
        has(&shown, &["skipped: ", "revoked", "thief"]);
    }
    are_equal(&desk, &["east", "west", "base"]);
    assert_eq!(setting(&desk, "base", "interval"), Some(Sql::Integer(30)));
}

/// What came after the theft is listed by its author, and undone row by row.
#[test]
fn what_the_thief_wrote_is_listed_and_undone() {
    let desk = fleet(&["thief", "east"]);
    desk.sql("thief.db", "UPDATE settings SET value = 666, note = 'ha' WHERE key = 'interval'");
    rounds(&desk, &["thief", "east", "base"], 2);
    desk.run("revoke base.db thief --fleet fleet.key").ok();
    let all = desk.run("log base.db --by thief --values").ok();
    has(&all, &["thief-", "settings key = interval: value = 60", "settings key = interval: value = 666"]);
    let late = desk.run("log base.db --by thief --since 2099-01-01").ok();
    has(&late, &["nothing in the log of that"]);
    assert!(desk.run("log base.db --by east --rows").ok().lines().all(|line| !line.contains("thief-")));
    desk.run("log base.db --by nobody").refused("base.db");
    desk.run("log base.db --since yesterday").usage();
    desk.sql("base.db", "UPDATE settings SET value = 60, note = 'before the theft' WHERE key = 'interval'");
    rounds(&desk, &["base", "east"], 3);
    are_equal(&desk, &["base", "east"]);
    assert_eq!(setting(&desk, "east", "interval"), Some(Sql::Integer(60)));
}

/// It was not stolen, it lay under the seat: the revocation is taken back, and what was set aside comes in.
#[test]
fn a_revocation_is_taken_back() {
    let desk = fleet(&["lost", "east"]);
    desk.run("revoke base.db lost --fleet fleet.key").ok();
    rounds(&desk, &["base", "east"], 2);
    desk.sql(
        "lost.db",
        "INSERT INTO settings VALUES ('meanwhile', 7, ''); INSERT INTO readings (value) VALUES (2)",
    );
    rounds(&desk, &["lost", "base", "east"], 2);
    assert_eq!(setting(&desk, "base", "meanwhile"), None);
    // Only the fleet's key takes it back.
    let refused = desk.run("revoke base.db lost --undo").refused("base.db");
    has(&refused, &["the fleet's key has revoked lost-"]);
    desk.run("trust base.db lost").refused("base.db");
    let shown = desk.run("revoke base.db lost --undo --fleet fleet.key").ok();
    has(&shown, &["taken back: lost-", "it travels"]);
    rounds(&desk, &["base", "east", "lost"], 4);
    are_equal(&desk, &["base", "east", "lost"]);
    assert_eq!(setting(&desk, "east", "meanwhile"), Some(Sql::Integer(7)));
    assert_eq!(desk.value("base.db", "SELECT count(*) FROM readings"), Sql::Integer(2));
    let devices = desk.run("devices east.db --json").json();
    assert_eq!(device(&devices, "lost")["revoked"], false);
    desk.run("revoke base.db lost --undo").refused("base.db");
}

/// Without the fleet key it holds at one place alone, and says so.
#[test]
fn without_the_fleet_key_it_holds_here_alone() {
    let desk = fleet(&["thief", "east"]);
    let shown = desk.run("revoke base.db thief").ok();
    has(&shown, &["this holds here alone", "--fleet FILE"]);
    desk.sql("thief.db", "INSERT INTO settings VALUES ('by the thief', 1, '')");
    rounds(&desk, &["thief", "east"], 2);
    // East took it in and did not hear of a revocation: that counts.
    assert_eq!(setting(&desk, "east", "by the thief"), Some(Sql::Integer(1)));
    desk.sql("east.db", "INSERT INTO settings VALUES ('by east', 2, '')");
    rounds(&desk, &["east", "base"], 3);
    are_equal(&desk, &["east", "base"]);
    let devices = desk.run("devices base.db --json").json();
    assert_eq!(device(&devices, "thief")["revoked_by"], "here alone");
    assert_eq!(device(&desk.run("devices east.db --json").json(), "thief")["revoked"], false);
    desk.run("revoke base.db thief --undo").ok();
    rounds(&desk, &["thief", "east", "base"], 3);
    are_equal(&desk, &["thief", "east", "base"]);
    let another = desk.run("fleet new other.key").ok();
    has(&another, &["other.key"]);
    has(&desk.run("revoke base.db thief --fleet other.key").refused("base.db"), &["another fleet"]);
}

/// A device that starts from a snapshot knows of the revocation.
#[test]
fn a_snapshot_has_the_revocations() {
    let desk = fleet(&["thief", "east"]);
    desk.run("revoke base.db thief --fleet fleet.key").ok();
    rounds(&desk, &["base", "east"], 2);
    desk.run("compact base.db").ok();
    desk.run("snapshot base.db start.pms").ok();
    desk.run("join new.db start.pms --name new --fleet fleet.key").ok();
    assert_eq!(device(&desk.run("devices new.db --json").json(), "thief")["revoked"], true);
    desk.sql("thief.db", "INSERT INTO settings VALUES ('by the thief', 1, '')");
    desk.run("export thief.db thief.pmb").ok();
    let refused = desk.run("import new.db thief.pmb");
    assert_eq!(refused.status, Some(1), "{}", refused.out);
    assert!(!format!("{}{}", refused.out, refused.err).contains("packmule trust"), "{}", refused.err);
    rounds(&desk, &["new", "base", "east"], 3);
    are_equal(&desk, &["new", "base", "east"]);
}

/// The same over serial lines: east has met the thief, hears of the theft from the base, and is not cut off.
#[test]
fn a_stolen_board_is_revoked_over_a_serial_line() {
    let desk = Desk::fleet(&["thief", "east", "west"]);
    desk.sql("thief.db", "INSERT INTO settings VALUES ('interval', 60, '')");
    for board in ["thief", "east", "west", "thief"] {
        synced(&desk, board, "base");
    }
    desk.run("revoke base.db thief --fleet fleet.key").ok();
    desk.sql("thief.db", "INSERT INTO settings VALUES ('by the thief', 1, '')");
    synced(&desk, "thief", "east");
    desk.sql("east.db", "INSERT INTO settings VALUES ('by east', 2, '')");
    for board in ["east", "west", "east"] {
        synced(&desk, board, "base");
    }
    are_equal(&desk, &["east", "west", "base"]);
    for device in ["east", "west", "base"] {
        assert_eq!(
            setting(&desk, device, "by the thief"),
            Some(Sql::Integer(1)),
            "{device}: east had it before"
        );
        assert_eq!(setting(&desk, device, "by east"), Some(Sql::Integer(2)), "{device}");
        let devices = desk.run(&format!("devices {device}.db --json")).json();
        assert_eq!(self::device(&devices, "thief")["revoked"], true, "{device}");
    }
    // Nobody takes anything from the thief, and nobody is told to trust it.
    desk.sql("thief.db", "UPDATE settings SET value = 666");
    for honest in ["base", "east"] {
        let [thief, other] = line(&desk, "thief", honest);
        has(&other.err, &["revoked", "thief"]);
        has(&thief.err, &["revoked"]);
        for ran in [thief, other] {
            assert_eq!(ran.status, Some(1), "{}", ran.err);
            assert!(!ran.err.contains("packmule trust"), "{}", ran.err);
        }
    }
    // It is taken back over the line too, and what was written meanwhile comes in.
    desk.run("revoke base.db thief --undo --fleet fleet.key").ok();
    for board in ["thief", "east", "west", "thief", "east"] {
        synced(&desk, board, "base");
    }
    are_equal(&desk, &["thief", "east", "west", "base"]);
    assert_eq!(setting(&desk, "west", "interval"), Some(Sql::Integer(666)));
}

/// Copies a board's database and key, as somebody does who has its card.
fn copy_card(desk: &Desk, of: &str, to: &str) {
    desk.sql(&format!("{of}.db"), &format!("VACUUM INTO '{}'", desk.path(format!("{to}.db")).display()));
    std::fs::copy(desk.path(format!("{of}.db.pmkey")), desk.path(format!("{to}.db.pmkey"))).unwrap();
}

/// The thief's key vouches for other identities, before it is revoked and after: they are all revoked with it.
#[test]
fn whom_the_stolen_board_vouches_for_is_revoked_with_it() {
    let desk = fleet(&["thief", "east"]);
    for copy in ["copy", "late"] {
        copy_card(&desk, "thief", copy);
    }
    desk.sql("thief.db", "INSERT INTO settings VALUES ('by the thief', 1, '')");
    desk.sql("copy.db", "INSERT INTO settings VALUES ('by the copy', 1, '')");
    rounds(&desk, &["thief", "base", "copy", "base", "east"], 2);
    assert_eq!(setting(&desk, "east", "by the copy"), Some(Sql::Integer(1)));
    let (thief, copy) = (fingerprint(&desk, "thief"), fingerprint(&desk, "copy"));
    assert_ne!(thief, copy, "it has another identity now");
    has(
        &desk.run(&format!("revoke base.db {thief} --fleet fleet.key")).ok(),
        &["with it", "for which it vouches"],
    );
    rounds(&desk, &["base", "east"], 2);
    are_equal(&desk, &["base", "east"]);
    for db in ["base.db", "east.db"] {
        let devices = desk.run(&format!("devices {db} --json")).json();
        let known = devices["devices"].as_array().unwrap().iter().find(|d| d["fingerprint"] == copy.as_str());
        assert_eq!(known.unwrap()["revoked"], true, "{db}");
        assert!(known.unwrap()["revoked_by"].as_str().unwrap().contains("vouches for it"), "{db}");
    }
    // A further identity, made where nobody has heard of the revocation.
    std::fs::create_dir(desk.path("den")).unwrap();
    desk.sql("late.db", "INSERT INTO settings VALUES ('late', 1, '')");
    desk.run("init naive.db --name naive --fleet fleet.key").ok();
    desk.carry("thief", "naive");
    desk.carry("naive", "late");
    desk.run("exchange late.db den").ok();
    assert!(![thief, copy].contains(&fingerprint(&desk, "late")));
    let shown = desk.run("exchange base.db den").ok();
    has(&shown, &["skipped: ", "revoked"]);
    assert!(!shown.contains("packmule trust"), "{shown}");
    desk.run("export late.db late.pmb").ok();
    let refused = desk.run("import east.db late.pmb").refused("late.pmb");
    assert!(refused.contains("revoked") && !refused.contains("packmule trust"), "{refused}");
    assert_eq!(setting(&desk, "base", "late"), None);
    // Nobody lists who was never taken in. Where an honest device had taken it in, it is listed with who vouches for it.
    let late = fingerprint(&desk, "late");
    let listed = || {
        let devices = desk.run("devices base.db --json").json()["devices"].as_array().unwrap().clone();
        devices.into_iter().find(|device| device["fingerprint"] == late.as_str())
    };
    assert!(listed().is_none_or(|late| late["revoked"] == true));
    desk.carry("late", "naive");
    desk.carry("naive", "base");
    let listed = listed().unwrap();
    assert_eq!(listed["revoked"], true, "{listed}");
    assert!(listed["revoked_by"].as_str().unwrap().contains("vouches for it"), "{listed}");
    has(&desk.run("devices base.db").ok(), &[listed["label"].as_str().unwrap(), "revoked"]);
}

/// The thief tells everybody another history of the board. That makes no sense any more, and cuts off nobody.
#[test]
fn several_histories_of_a_stolen_board_cut_off_nobody() {
    let desk = fleet(&["thief", "east", "west"]);
    copy_card(&desk, "thief", "copy");
    // One history is longer than the other.
    for value in [1, 2] {
        desk.sql("thief.db", &format!("INSERT INTO settings VALUES ('one {value}', 1, '')"));
        desk.run("seal thief.db").ok();
    }
    desk.sql("copy.db", "INSERT INTO settings VALUES ('other', 1, '')");
    for (board, thief) in [("east", "thief"), ("west", "copy")] {
        desk.run(&format!("export {thief}.db {thief}.pmb")).ok();
        desk.run(&format!("import {board}.db {thief}.pmb")).ok();
        desk.sql(&format!("{board}.db"), &format!("INSERT INTO settings VALUES ('by {board}', 2, '')"));
    }
    desk.run("revoke base.db thief --fleet fleet.key").ok();
    rounds(&desk, &["east", "base", "west"], 4);
    for device in ["east", "base", "west"] {
        for board in ["east", "west"] {
            assert_eq!(setting(&desk, device, &format!("by {board}")), Some(Sql::Integer(2)), "{device}");
        }
    }
}
