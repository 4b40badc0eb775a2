//! A board that keeps its card free, and rows that do not travel.

use rusqlite::types::Value as Sql;

use crate::support::Desk;

/// Runs a command, and returns what it said.
fn said(desk: &Desk, line: &str) -> String {
    desk.run(line).ok()
}

/// Before the base has been heard, nothing goes; then all that it has.
#[test]
fn a_board_deletes_what_the_base_has() {
    let desk = Desk::fleet(&["north"]);
    std::fs::create_dir(desk.path("card")).unwrap();
    desk.sql("north.db", "INSERT INTO readings (value) VALUES (1), (2), (3)");
    desk.run("exchange north.db card").ok();
    let told = said(&desk, "prune north.db readings --rows 1");
    assert!(told.contains("nothing deleted: no base is known"), "{told}");
    desk.run("exchange base.db card").ok();
    desk.run("exchange north.db card").ok();
    let told = said(&desk, "prune north.db readings --rows 1");
    assert!(told.contains("2 rows deleted that the base base"), "{told}");
    assert_eq!(desk.value("north.db", "SELECT count(*) FROM readings"), Sql::Integer(1));
    desk.run("exchange north.db card").ok();
    desk.run("exchange base.db card").ok();
    assert_eq!(desk.value("base.db", "SELECT count(*) FROM readings"), Sql::Integer(3));
    for wrong in [
        "prune north.db readings",
        "prune north.db readings --rows x",
        "prune north.db readings --rows 1 --keep 1d",
    ] {
        assert_eq!(desk.run(wrong).status, Some(2), "{wrong}");
    }
}

/// An application deletes old readings itself: each command that sends says how many stay elsewhere.
#[test]
fn what_does_not_travel_is_named_by_what_sends() {
    let desk = Desk::fleet(&["north"]);
    std::fs::create_dir(desk.path("card")).unwrap();
    desk.sql("north.db", "CREATE TABLE pairs (a INTEGER, b TEXT, v, PRIMARY KEY (a, b)); INSERT INTO pairs VALUES (1, NULL, 2)");
    let told = said(&desk, "track north.db pairs");
    assert!(told.contains("1 row of `pairs` is not sent: NULL"), "{told}");
    desk.sql(
        "north.db",
        "INSERT INTO readings (value) VALUES (1), (2); INSERT INTO pairs VALUES (2, NULL, 3), (1, 'x', 1)",
    );
    desk.run("seal north.db").ok();
    desk.sql("north.db", "DELETE FROM readings WHERE value = 1");
    for command in ["seal north.db", "export north.db north.pmb", "exchange north.db card"] {
        let told = said(&desk, command);
        assert!(
            told.contains("1 row of `readings` is not sent: they were deleted here"),
            "{command}: {told}"
        );
        assert!(told.contains("2 rows of `pairs` are not sent: NULL"), "{command}: {told}");
    }
}
