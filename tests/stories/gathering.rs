//! What a base gathers waits for nothing of the shared tables.

use rusqlite::types::Value as Sql;
use serde_json::json;

use crate::card::rounds;
use crate::support::Desk;

/// A base and two boards that know each other, and what all have is compacted at the base.
fn folded() -> Desk {
    let desk = Desk::fleet(&["north", "east"]);
    std::fs::create_dir(desk.path("card")).unwrap();
    desk.sql("north.db", "INSERT INTO settings VALUES ('a', 1, NULL)");
    rounds(&desk, &["north", "east", "base"], 3);
    desk.run("compact base.db").ok();
    desk
}

fn gathered(desk: &Desk) -> Sql {
    desk.value("base.db", "SELECT count(*) FROM readings")
}

/// A new board has readings and one shared table, even empty, of which it had not seen what the base has folded.
#[test]
fn the_readings_of_a_newcomer_wait_for_no_shared_table() {
    let desk = folded();
    desk.run("init new.db --name new --fleet fleet.key").ok();
    desk.sql(
        "new.db",
        "CREATE TABLE settings (key TEXT PRIMARY KEY, value, note TEXT);
         CREATE TABLE readings (id INTEGER PRIMARY KEY AUTOINCREMENT, value REAL);
         INSERT INTO readings (value) WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) SELECT i FROM n",
    );
    desk.run("track new.db settings").ok();
    desk.run("track new.db readings --mode per-device --append").ok();
    rounds(&desk, &["new", "base"], 1);
    assert_eq!(gathered(&desk), Sql::Integer(2000));
    // Rows of both kinds in one transaction.
    desk.sql(
        "new.db",
        "BEGIN; INSERT INTO settings VALUES ('n', 1, NULL); INSERT INTO readings (value) VALUES (1); COMMIT",
    );
    rounds(&desk, &["new", "base"], 1);
    assert_eq!(gathered(&desk), Sql::Integer(2001));
}

/// North had seen what East wrote, and East's card has not come yet: only the shared part of what North wrote waits.
#[test]
fn readings_do_not_wait_for_missing_frames_of_others() {
    let desk = Desk::fleet(&["north", "east"]);
    desk.sql("east.db", "INSERT INTO settings VALUES ('e', 1, NULL)");
    desk.carry("east", "north");
    desk.sql("north.db", "UPDATE settings SET value = 2; INSERT INTO readings (value) VALUES (1.5)");
    // Of what North brings the base is to lack East's frames: they were lost with their bundle.
    desk.run("export north.db whole.pmb").ok();
    desk.run("revoke north.db east").ok();
    desk.run("export north.db north.pmb").ok();
    desk.run("import base.db north.pmb").ok();
    assert_eq!(gathered(&desk), Sql::Integer(1));
    desk.run("import base.db whole.pmb").ok();
    assert_eq!(desk.value("base.db", "SELECT value FROM settings"), Sql::Integer(2));
    assert_eq!(desk.run("status base.db --json").json()["waits"], json!([]));
}

/// A second base is added when the board and the first base have folded all: it has all readings.
#[test]
fn a_second_base_that_is_added_late_has_all_readings() {
    let desk = folded();
    desk.sql("north.db", "INSERT INTO readings (value) VALUES (1), (2), (3)");
    rounds(&desk, &["north", "east", "base"], 3);
    for name in ["base", "north", "east"] {
        desk.run(&format!("compact {name}.db")).ok();
    }
    let frames = "SELECT count(*) FROM _pm_frame WHERE stream = 1";
    assert_eq!(desk.value("north.db", frames), Sql::Integer(0), "all of it is folded");
    desk.run("init late.db --name late --fleet fleet.key --base").ok();
    for name in ["late", "north", "base", "late", "north", "late"] {
        desk.run_words(&["exchange", &format!("{name}.db"), "card"]);
    }
    assert_eq!(desk.value("late.db", "SELECT count(*) FROM readings"), Sql::Integer(3));
    assert_eq!(gathered(&desk), Sql::Integer(3), "nothing is doubled");
    desk.sql("north.db", "INSERT INTO readings (value) VALUES (4)");
    for name in ["north", "late", "base"] {
        desk.run_words(&["exchange", &format!("{name}.db"), "card"]);
    }
    assert_eq!(desk.value("late.db", "SELECT count(*) FROM readings"), Sql::Integer(4));
    assert_eq!(gathered(&desk), Sql::Integer(4));
}
