//! A database leaves Packmule: its application goes on with its own tables, as if nothing had been.

use rusqlite::types::Value as Sql;

use crate::support::{Desk, has};

fn ours(desk: &Desk, database: &str) -> Sql {
    desk.value(database, "SELECT count(*) FROM sqlite_schema WHERE name GLOB '*_pm_*' OR sql GLOB '*_pm_*'")
}

#[test]
fn a_device_becomes_a_plain_database_again() {
    let desk = Desk::fleet(&["north"]);
    desk.sql("north.db", "INSERT INTO settings VALUES ('a', 1, ''); INSERT INTO readings (value) VALUES (1)");
    desk.carry("north", "base");
    desk.carry("base", "north");
    desk.sql("north.db", "INSERT INTO settings VALUES ('b', 2, '')");
    let tables =
        "SELECT type, name, sql FROM sqlite_schema WHERE name IN ('settings', 'readings') ORDER BY name";
    let before = desk.rows("north.db", tables);
    // Nobody is there to be asked: nothing is changed, and what will be lost is said.
    let said = desk.run("init --remove north.db").refused("north.db");
    has(&said, &["will be gone for good", "1 unsealed write", "`packmule init --remove north.db --yes`"]);
    desk.run("status north.db").ok();
    has(
        &desk.run("init --remove north.db --yes").ok(),
        &["is a plain database again", "north.db.pmkey: removed"],
    );
    assert_eq!(ours(&desk, "north.db"), Sql::Integer(0));
    assert!(!desk.path("north.db.pmkey").exists());
    assert_eq!(desk.rows("north.db", tables), before);
    desk.sql("north.db", "INSERT INTO settings VALUES ('c', 3, ''); DELETE FROM settings WHERE key = 'a'");
    assert_eq!(desk.value("north.db", "SELECT count(*) FROM settings"), Sql::Integer(2));
    desk.run("init --remove north.db --yes").refused("north.db");
    desk.run("init --remove nowhere.db --yes").refused("nowhere.db");
    desk.run("init --remove base.db --base").usage();
    desk.run("init base.db --yes").usage();
    // What a base has gathered is its own then; and a database may come back as another device.
    desk.run("init --remove base.db --yes").ok();
    assert_eq!(ours(&desk, "base.db"), Sql::Integer(0));
    desk.sql("base.db", "DELETE FROM readings");
    desk.run("init north.db --name north --fleet fleet.key").ok();
}

/// Power was cut after the tables had gone, and before the key had.
#[test]
fn a_removal_that_was_cut_short_goes_on() {
    let desk = Desk::fleet(&["north"]);
    let key = std::fs::read(desk.path("north.db.pmkey")).unwrap();
    desk.run("init --remove north.db --yes").ok();
    std::fs::write(desk.path("north.db.pmkey"), key).unwrap();
    desk.run("init --remove north.db --yes").ok();
    assert!(!desk.path("north.db.pmkey").exists());
}

#[test]
fn all_tables_are_let_go_at_once() {
    let desk = Desk::fleet(&["north"]);
    desk.run("untrack north.db").usage();
    desk.run("untrack north.db settings --all").usage();
    has(
        &desk.run("untrack north.db --all").ok(),
        &["settings: no longer tracked", "readings: no longer tracked"],
    );
    has(&desk.run("untrack north.db --all").ok(), &["no table is tracked"]);
    let triggers = "SELECT count(*) FROM sqlite_schema WHERE type = 'trigger'";
    assert_eq!(desk.value("north.db", triggers), Sql::Integer(0));
}
