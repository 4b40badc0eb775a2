//! A fleet's application is upgraded board by board, and goes on writing while its table is held, restored, compacted or
//! met by a newcomer. What was written follows what its writer had seen; nothing is lost, and all end the same.

use crate::card::{are_equal, back_up, exchange, restore, rounds};
use crate::support::{Desk, has};

const OLD: &str =
    "CREATE TABLE patient (id TEXT PRIMARY KEY, number INTEGER UNIQUE, name TEXT, ward TEXT DEFAULT 'A')";

/// What the application's upgrade does: a new column, a rebuild without an old one, and another name.
const UPGRADE: &str = "ALTER TABLE patient ADD COLUMN tel TEXT DEFAULT 'none';
    BEGIN;
    CREATE TABLE new_patient (id TEXT PRIMARY KEY, number INTEGER UNIQUE, name TEXT, tel TEXT DEFAULT 'none', born TEXT);
    INSERT INTO new_patient (id, number, name, tel) SELECT id, number, name, tel FROM patient;
    DROP TABLE patient;
    ALTER TABLE new_patient RENAME TO patient;
    COMMIT;
    ALTER TABLE patient RENAME COLUMN name TO full_name";

/// Devices with the application's table, and a card.
fn desk(names: &[&str]) -> Desk {
    let desk = Desk::new();
    std::fs::create_dir(desk.path("card")).unwrap();
    desk.run("fleet new fleet.key").ok();
    names.iter().for_each(|name| join(&desk, name, OLD));
    desk
}

fn join(desk: &Desk, name: &str, tables: &str) {
    let base = if name == "base" { " --base" } else { "" };
    desk.run(&format!("init {name}.db --name {name} --fleet fleet.key{base}")).ok();
    desk.sql(&format!("{name}.db"), tables);
    desk.run(&format!("track {name}.db patient")).ok();
}

/// How many conflicts are open.
fn open(desk: &Desk, name: &str) -> usize {
    desk.run(&format!("conflicts {name}.db --json")).json()["conflicts"].as_array().unwrap().len()
}

/// A board has compacted and rebuilt its table. Meanwhile the base deletes a row that it had from there, and is upgraded
/// before it meets the card: its table is held, its delete waits. It had seen the row; so the delete is all that there is.
#[test]
fn a_delete_that_waited_in_a_held_table_follows_what_was_seen_before() {
    for first in ["base", "north"] {
        let desk = desk(&["base", "north"]);
        desk.sql(
            "north.db",
            "INSERT INTO patient (id, number, name) VALUES ('p5', 14, 'Ida'), ('p6', 15, 'Jo')",
        );
        ["north", "base", "north"].iter().for_each(|name| drop(exchange(&desk, name)));
        has(&desk.run("compact north.db").ok(), &["compacted away"]);
        desk.sql("base.db", "DELETE FROM patient WHERE id = 'p5'");
        desk.sql("base.db", UPGRADE);
        desk.sql("north.db", UPGRADE);
        let order = if first == "base" { ["base", "north"] } else { ["north", "base"] };
        rounds(&desk, &order, 4);
        are_equal(&desk, &["base", "north"]);
        assert_eq!(open(&desk, "base"), 0, "{first} first");
        assert!(desk.rows("north.db", "SELECT 1 FROM patient WHERE id = 'p5'").is_empty(), "{first} first");
    }
}

/// A write to a held table is concurrent with what others wrote since it was held: a conflict, on all devices.
#[test]
fn a_write_that_waited_in_a_held_table_had_not_seen_what_came_meanwhile() {
    let desk = desk(&["base", "north"]);
    desk.sql("north.db", "INSERT INTO patient (id, number, name) VALUES ('p5', 14, 'Ida')");
    ["north", "base", "north"].iter().for_each(|name| drop(exchange(&desk, name)));
    desk.sql("base.db", UPGRADE);
    exchange(&desk, "base");
    desk.sql("base.db", "UPDATE patient SET full_name = 'Ida B.' WHERE id = 'p5'");
    desk.sql("north.db", "UPDATE patient SET name = 'Ida N.' WHERE id = 'p5'");
    ["north", "base"].iter().for_each(|name| drop(exchange(&desk, name)));
    desk.sql("north.db", UPGRADE);
    rounds(&desk, &["north", "base"], 3);
    are_equal(&desk, &["base", "north"]);
    assert_eq!((open(&desk, "base"), open(&desk, "north")), (1, 1));
}

/// A board has compacted a row away and rebuilt its table; then comes a newcomer's row of the same key. It had not seen the
/// first one: a conflict, also where nobody remembers who wrote that.
#[test]
fn a_newcomers_row_meets_what_was_settled_before_the_table_was_rebuilt() {
    let desk = desk(&["base", "north"]);
    desk.sql("north.db", "INSERT INTO patient (id, number, name) VALUES ('p8', 14, 'Ida')");
    ["north", "base", "north"].iter().for_each(|name| drop(exchange(&desk, name)));
    desk.run("compact north.db").ok();
    for name in ["north", "base"] {
        desk.sql(&format!("{name}.db"), UPGRADE);
    }
    join(&desk, "east", &format!("{OLD}; {UPGRADE}"));
    desk.sql("east.db", "INSERT INTO patient (id, number, full_name) VALUES ('p8', 8, 'Olaf')");
    desk.run("seal east.db").ok();
    exchange(&desk, "north");
    rounds(&desk, &["east", "north", "base"], 4);
    are_equal(&desk, &["base", "north", "east"]);
    for name in ["base", "north", "east"] {
        assert_eq!(open(&desk, name), 1, "{name}");
    }
}

/// Of two rows that claim one number the first keeps it, on all devices, also where a rebuild says one of them again.
#[test]
fn a_rebuilt_row_claims_its_number_at_the_same_time_everywhere() {
    let desk = desk(&["base", "north", "east"]);
    desk.sql("north.db", "INSERT INTO patient (id, number, name) VALUES ('p4', 14, 'Ida')");
    ["north", "base", "north"].iter().for_each(|name| drop(exchange(&desk, name)));
    desk.run("compact north.db").ok();
    desk.sql("north.db", UPGRADE);
    desk.run("seal north.db").ok();
    desk.sql("east.db", "INSERT INTO patient (id, number, name) VALUES ('p7', 14, 'Olaf')");
    ["east", "base", "north"].iter().for_each(|name| drop(exchange(&desk, name)));
    ["east", "base"].iter().for_each(|name| desk.sql(&format!("{name}.db"), UPGRADE));
    rounds(&desk, &["east", "north", "base"], 4);
    are_equal(&desk, &["base", "north", "east"]);
}

/// A board is restored from a backup, and its application upgrades the tables before it has met anybody. It waits for its
/// log, without a word of failure, and no row is made of the names of columns that are gone.
#[test]
fn a_restored_board_that_is_upgraded_at_once_takes_its_log_back() {
    let desk = desk(&["base", "north"]);
    desk.sql("north.db", "INSERT INTO patient (id, number, name) VALUES ('p1', 1, 'Ida')");
    rounds(&desk, &["north", "base"], 2);
    back_up(&desk, "north", "backup");
    desk.sql("north.db", "UPDATE patient SET ward = 'B'");
    rounds(&desk, &["north", "base"], 2);
    restore(&desk, "north", "backup");
    rounds(&desk, &["base", "north"], 1);
    for name in ["north", "base"] {
        desk.sql(&format!("{name}.db"), UPGRADE);
        desk.sql(
            &format!("{name}.db"),
            &format!("INSERT INTO patient (id, full_name) VALUES ('{name}', 'x')"),
        );
    }
    rounds(&desk, &["north", "base"], 6);
    for name in ["base", "north"] {
        let literal = desk
            .rows(&format!("{name}.db"), "SELECT 1 FROM patient WHERE full_name IN ('name', 'full_name')");
        assert!(literal.is_empty(), "{name}");
    }
}

/// What reads rows says that a table has other columns now, and what to do. It never takes the name of a column that is gone
/// for its value.
#[test]
fn a_digest_of_a_table_that_was_changed_says_so() {
    let desk = desk(&["north"]);
    desk.sql("north.db", "INSERT INTO patient (id, number, name) VALUES ('p1', 1, 'Ida')");
    desk.run("seal north.db").ok();
    desk.sql("north.db", "ALTER TABLE patient RENAME COLUMN name TO full_name");
    has(&desk.run("digest north.db").refused("north.db"), &["other columns", "packmule seal north.db"]);
    desk.run("seal north.db").ok();
    desk.run("digest north.db").ok();
}
