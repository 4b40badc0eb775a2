//! A snapshot is a state in a file: a first start from it, and what becomes of a device that was one before.

use rusqlite::types::Value as Sql;

use crate::card::{are_equal, fingerprint, rounds};
use crate::support::{Desk, has};

fn folded() -> Desk {
    let desk = Desk::fleet(&["north"]);
    std::fs::create_dir(desk.path("card")).unwrap();
    desk.sql(
        "north.db",
        "INSERT INTO settings VALUES ('a', 1, ''), ('b', 1, ''); INSERT INTO readings (value) VALUES (1), (2)",
    );
    rounds(&desk, &["north", "base"], 3);
    for name in ["base", "north"] {
        desk.run(&format!("compact {name}.db")).ok();
    }
    desk.run("snapshot base.db start.pms").ok();
    desk
}

#[track_caller]
fn in_step(desk: &Desk, names: &[&str]) {
    rounds(desk, names, 3);
    are_equal(desk, names);
}

/// A base takes the snapshot of another base, or its own: it goes on gathering, in the same tables.
#[test]
fn a_base_takes_a_snapshot_and_goes_on_gathering() {
    let desk = folded();
    desk.run("init second.db --name second --fleet fleet.key --base").ok();
    rounds(&desk, &["second", "base", "north"], 2);
    rounds(&desk, &["second"], 1);
    for base in ["base", "second"] {
        let (db, before) = (format!("{base}.db"), fingerprint(&desk, base));
        desk.run(&format!("join {db} start.pms")).ok();
        assert_eq!(fingerprint(&desk, base), before, "{base}: no new identity");
        assert_eq!(desk.value(&db, "SELECT count(*) FROM readings"), Sql::Integer(2), "{base}");
        has(&desk.run(&format!("status {db}")).ok(), &["readings", "gathered"]);
    }
    desk.sql("north.db", "INSERT INTO readings (value) VALUES (3)");
    in_step(&desk, &["north", "base", "second"]);
    for base in ["base", "second"] {
        assert_eq!(
            desk.value(&format!("{base}.db"), "SELECT count(*) FROM readings"),
            Sql::Integer(3),
            "{base}"
        );
    }
}

/// A device with sealed and unsealed rows that joins keeps them, and its identity.
#[test]
fn a_device_that_joins_keeps_its_rows_sealed_or_not() {
    let desk = folded();
    desk.run("init new.db --name new --fleet fleet.key").ok();
    desk.sql(
        "new.db",
        "CREATE TABLE settings (key TEXT PRIMARY KEY, value, note TEXT);
         CREATE TABLE readings (id INTEGER PRIMARY KEY AUTOINCREMENT, value REAL);
         INSERT INTO settings VALUES ('sealed', 1, '')",
    );
    desk.run("track new.db settings").ok();
    desk.run("track new.db readings --mode per-device --append").ok();
    desk.sql(
        "new.db",
        "INSERT INTO settings VALUES ('unsealed', 1, ''); INSERT INTO readings (value) VALUES (7)",
    );
    let before = fingerprint(&desk, "new");
    let joined = desk.run("join new.db start.pms --json").json();
    assert_eq!((&joined["new_identity"], &joined["rows"]), (&false.into(), &2.into()), "{joined}");
    assert_eq!(fingerprint(&desk, "new"), before);
    assert_eq!(desk.value("new.db", "SELECT count(*) FROM settings"), Sql::Integer(4));
    in_step(&desk, &["new", "base", "north"]);
    assert_eq!(desk.value("north.db", "SELECT count(*) FROM settings"), Sql::Integer(4));
    assert_eq!(desk.value("base.db", "SELECT count(*) FROM readings"), Sql::Integer(3));
}

/// A plain database with a table of that name: it starts, and the table waits until somebody tracks it.
#[test]
fn a_database_that_has_such_a_table_starts_too() {
    let desk = folded();
    desk.sql(
        "new.db",
        "CREATE TABLE settings (key TEXT PRIMARY KEY, value, note TEXT); INSERT INTO settings VALUES ('own', 1, '')",
    );
    let shown = desk.run("join new.db start.pms --name new --fleet fleet.key").ok();
    has(&shown, &["new.db starts from what base", "2 rows wait", "packmule status new.db"]);
    desk.run("track new.db settings").ok();
    assert_eq!(desk.value("new.db", "SELECT count(*) FROM settings"), Sql::Integer(3));
    in_step(&desk, &["new", "base", "north"]);
    assert_eq!(desk.value("north.db", "SELECT count(*) FROM settings"), Sql::Integer(3));
}
