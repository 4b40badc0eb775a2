//! A board that keeps its card free, and rows that do not travel.

use rusqlite::types::Value as Sql;

use crate::card::rounds;
use crate::support::Desk;

/// Before the base has been heard, nothing goes; then all that it has.
#[test]
fn a_board_deletes_what_the_base_has() {
    let desk = Desk::fleet(&["north"]);
    std::fs::create_dir(desk.path("card")).unwrap();
    desk.sql("north.db", "INSERT INTO readings (value) VALUES (1), (2), (3)");
    desk.run("exchange north.db card").ok();
    let told = desk.run("prune north.db readings --rows 1").ok();
    assert!(told.contains("nothing deleted: no base is known"), "{told}");
    rounds(&desk, &["base", "north"], 1);
    let before = desk.dump("north.db");
    let told = desk.run("prune north.db readings --rows 1 --dry-run").ok();
    assert!(told.contains("2 rows would be deleted that the base base"), "{told}");
    assert_eq!(desk.dump("north.db"), before);
    let told = desk.run("prune north.db readings --rows 1").ok();
    assert!(told.contains("2 rows deleted that the base base"), "{told}");
    assert_eq!(desk.value("north.db", "SELECT count(*) FROM readings"), Sql::Integer(1));
    rounds(&desk, &["north", "base"], 1);
    assert_eq!(desk.value("base.db", "SELECT count(*) FROM readings"), Sql::Integer(3));
    for wrong in [
        "prune north.db readings",
        "prune north.db readings --rows x",
        "prune north.db readings --rows 1 --keep 1d",
    ] {
        assert_eq!(desk.run(wrong).status, Some(2), "{wrong}");
    }
}

/// The base was restored from last night's backup, after the board had folded what came since: nobody can say which rows the
/// base has lost, so none goes before it has them again.
#[test]
fn nothing_goes_by_the_word_of_a_base_that_was_set_back() {
    let desk = Desk::fleet(&["north"]);
    std::fs::create_dir(desk.path("card")).unwrap();
    desk.sql("north.db", "INSERT INTO readings (value) VALUES (1), (2)");
    rounds(&desk, &["north", "base"], 2);
    desk.copy_card("base", "backup");
    desk.sql("north.db", "INSERT INTO readings (value) VALUES (3), (4)");
    rounds(&desk, &["north", "base"], 2);
    desk.run("compact north.db").ok();
    for file in ["base.db", "base.db.pmkey"] {
        std::fs::copy(desk.path("backup").join(file), desk.path(file)).unwrap();
    }
    rounds(&desk, &["base", "north"], 1);
    let told = desk.run("prune north.db readings --rows 1").ok();
    assert!(told.contains("4 rows stay"), "{told}");
    assert_eq!(desk.value("north.db", "SELECT count(*) FROM readings"), Sql::Integer(4));
    rounds(&desk, &["base", "north"], 2);
    let told = desk.run("prune north.db readings --rows 1").ok();
    assert!(told.contains("3 rows deleted that the base base"), "{told}");
    assert_eq!(desk.value("base.db", "SELECT count(*) FROM readings"), Sql::Integer(4));
}

/// An application deletes old readings itself: each command that sends says how many stay elsewhere.
#[test]
fn what_does_not_travel_is_named_by_what_sends() {
    let desk = Desk::fleet(&["north"]);
    std::fs::create_dir(desk.path("card")).unwrap();
    desk.sql("north.db", "CREATE TABLE pairs (a INTEGER, b TEXT, v, PRIMARY KEY (a, b)); INSERT INTO pairs VALUES (1, NULL, 2)");
    let told = desk.run("track north.db pairs").ok();
    assert!(told.contains("1 row of `pairs` is not sent: NULL"), "{told}");
    desk.sql(
        "north.db",
        "INSERT INTO readings (value) VALUES (1), (2); INSERT INTO pairs VALUES (2, NULL, 3), (1, 'x', 1)",
    );
    desk.run("seal north.db").ok();
    desk.sql("north.db", "DELETE FROM readings WHERE value = 1");
    for command in ["seal north.db", "export north.db north.pmb", "exchange north.db card"] {
        let ran = desk.run(command);
        let screen = ran.screen.clone();
        let told = ran.ok();
        assert!(told.contains("1 row of `readings` is not sent: it was deleted here"), "{command}: {told}");
        assert!(told.contains("2 rows of `pairs` are not sent: NULL"), "{command}: {told}");
        assert!(screen.lines().all(|line| line.chars().count() <= 80), "{command}: {screen}");
    }
    // Where standard output has something for a program, standard error has it.
    for command in ["seal north.db --json", "export north.db -", "exchange north.db card --json"] {
        let ran = desk.run(command);
        assert_eq!(ran.status, Some(0), "{command}: {}", ran.err);
        assert!(!ran.out.contains("not sent"), "{command}: {}", ran.out);
        assert!(ran.err.contains("2 rows of `pairs` are not sent: NULL"), "{command}: {}", ran.err);
    }
}

/// Tracking again in another way says that it is another way, and only in the same way that there was nothing to do.
#[test]
fn tracking_again_says_what_it_changed() {
    let desk = Desk::fleet(&["north"]);
    desk.sql("north.db", "CREATE TABLE stock (id TEXT PRIMARY KEY, amount INTEGER)");
    let changed = "is tracked in this way from now on";
    for (command, told) in [
        ("track north.db stock", "stock: tracked, 0 rows taken in"),
        ("track north.db stock --columns wait", "stock: tracked in this way already"),
        ("track north.db stock --columns follow", changed),
        ("track north.db stock --columns follow", "stock: tracked in this way already"),
        ("track north.db stock", "stock: tracked in this way already"),
        ("track north.db stock --columns wait", changed),
        ("track north.db stock --merge cell", changed),
        ("track north.db stock --merge cell --ids shared", "stock: tracked in this way already"),
        ("track north.db readings --mode per-device --append --deletes carry", changed),
        ("track north.db readings --mode per-device --append", changed),
    ] {
        let said = desk.run(command).ok();
        assert!(said.contains(told), "{command}: {said}");
    }
    for (wrong, told) in [
        ("track north.db stock --ids anything", "--ids can only be shared, not `anything`"),
        ("track north.db stock --columns never", "--columns is one of wait|follow, not `never`"),
    ] {
        let ran = desk.run(wrong);
        assert_eq!(ran.status, Some(2), "{wrong}");
        assert!(ran.err.contains(told), "{wrong}: {}", ran.err);
    }
}

/// Once deletes are carried, what was deleted before is still named, and nobody is told to have them carried.
#[test]
fn what_is_carried_already_is_not_proposed() {
    let desk = Desk::fleet(&["north"]);
    desk.sql("north.db", "INSERT INTO readings (value) VALUES (1), (2), (3)");
    desk.run("seal north.db").ok();
    desk.sql("north.db", "DELETE FROM readings WHERE value = 1");
    let told = desk.run("export north.db north.pmb").ok();
    assert!(told.contains(" --append --deletes carry`"), "{told}");
    assert_eq!(desk.run("status north.db --check").status, Some(3));
    desk.run("track north.db readings --mode per-device --append --deletes carry").ok();
    // Nobody can do anything about it any more.
    desk.run("status north.db --check").ok();
    desk.sql("north.db", "DELETE FROM readings WHERE value = 2");
    let told = desk.run("export north.db north.pmb").ok();
    assert!(told.contains("1 row of `readings` is not sent: it was deleted here"), "{told}");
    assert!(!told.contains("--deletes"), "{told}");
    desk.run("import base.db north.pmb").ok();
    assert_eq!(
        desk.value("base.db", "SELECT group_concat(value) FROM readings"),
        Sql::Text("1.0,3.0".into())
    );
}
