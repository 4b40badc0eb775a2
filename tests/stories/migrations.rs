//! An application that migrates its tables board by board, with a card between.

use rusqlite::types::Value as Sql;

use crate::card::exchange;
use crate::support::{Desk, has};

const ALL: [&str; 3] = ["north", "east", "base"];

const VERSION_1: &str = "CREATE TABLE item (id TEXT PRIMARY KEY, name TEXT NOT NULL, n INTEGER)";
/// What an ORM does for every change of a column.
const VERSION_2: &str = "PRAGMA foreign_keys = OFF; BEGIN;
    CREATE TABLE new__item (id TEXT PRIMARY KEY, name TEXT NOT NULL, n INTEGER, note TEXT DEFAULT 'x');
    INSERT INTO new__item (id, name, n) SELECT id, name, n FROM item;
    DROP TABLE item; ALTER TABLE new__item RENAME TO item; COMMIT";

/// Two boards that run the application, and a base that has its tables from them; a card.
fn desk() -> Desk {
    let desk = Desk::new();
    desk.run("fleet new fleet.key").ok();
    desk.run("init base.db --name base --fleet fleet.key --base").ok();
    for board in &ALL[..2] {
        let db = format!("{board}.db");
        desk.run(&format!("init {db} --name {board} --fleet fleet.key")).ok();
        desk.sql(&db, VERSION_1);
        desk.run(&format!("track {db} item")).ok();
    }
    desk.sql("north.db", "INSERT INTO item VALUES ('1', 'one', 1), ('2', 'two', 2)");
    std::fs::create_dir(desk.path("card")).unwrap();
    round(&desk);
    desk
}

fn round(desk: &Desk) -> String {
    ALL.iter().cycle().take(2 * ALL.len()).map(|name| exchange(desk, name)).collect()
}

fn texts(desk: &Desk, db: &str, sql: &str) -> Vec<String> {
    let rows = desk.rows(db, sql);
    rows.into_iter()
        .map(|row| {
            row.into_iter()
                .map(|v| match v {
                    Sql::Text(text) => text,
                    Sql::Integer(n) => n.to_string(),
                    other => format!("{other:?}"),
                })
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect()
}

fn in_step(desk: &Desk) {
    // A table that is held is named on standard error.
    let digests = ALL.map(|name| desk.run(&format!("digest {name}.db")).out);
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
}

#[test]
fn a_rebuild_on_one_board_undoes_nothing_of_another() {
    let desk = desk();
    desk.sql("east.db", "UPDATE item SET name = 'edited' WHERE id = '1'; DELETE FROM item WHERE id = '2'");
    desk.run("seal east.db").ok();
    desk.sql("north.db", VERSION_2);
    round(&desk);
    in_step(&desk);
    assert_eq!(texts(&desk, "north.db", "SELECT id, name, note FROM item"), ["1 edited x"]);
    assert!(desk.run("conflicts base.db").ok().contains("no conflict is open"));
    desk.sql("east.db", VERSION_2);
    round(&desk);
    in_step(&desk);
    assert_eq!(texts(&desk, "base.db", "SELECT id, name, note FROM item"), ["1 edited x"]);
}

/// A card comes by between the two updates of the application.
#[test]
fn a_column_waits_for_the_application() {
    let desk = desk();
    desk.sql(
        "north.db",
        "ALTER TABLE item ADD COLUMN colour TEXT; UPDATE item SET colour = 'red' WHERE id = '1'",
    );
    let said = round(&desk);
    has(&said.replace("\n  ", " "), &["table `item`", "`colour`", "waits until the application adds it"]);
    assert_eq!(
        texts(&desk, "base.db", "SELECT colour FROM item WHERE id = '1'"),
        ["red"],
        "Packmule made it"
    );
    desk.sql("east.db", "INSERT INTO item VALUES ('3', 'by position', 3)");
    round(&desk);
    in_step(&desk);
    for name in ["north", "east"] {
        desk.run(&format!("compact {name}.db")).ok();
    }
    desk.sql("east.db", "ALTER TABLE item ADD COLUMN colour TEXT");
    round(&desk);
    in_step(&desk);
    assert_eq!(texts(&desk, "east.db", "SELECT colour FROM item WHERE id = '1'"), ["red"]);
    assert!(desk.run("conflicts base.db").ok().contains("no conflict is open"));
}

#[test]
fn a_column_that_is_to_follow_follows() {
    let desk = desk();
    desk.run("track east.db item --columns follow").ok();
    desk.sql(
        "north.db",
        "ALTER TABLE item ADD COLUMN colour TEXT; UPDATE item SET colour = 'red' WHERE id = '1'",
    );
    round(&desk);
    in_step(&desk);
    assert_eq!(texts(&desk, "east.db", "SELECT colour FROM item WHERE id = '1'"), ["red"]);
    // One that a person adds is added everywhere.
    desk.run("track east.db item --columns wait").ok();
    desk.run("schema north.db add-column item size INTEGER").ok();
    round(&desk);
    in_step(&desk);
    desk.sql("east.db", "UPDATE item SET size = 7 WHERE id = '2'");
    round(&desk);
    assert_eq!(texts(&desk, "north.db", "SELECT size FROM item WHERE id = '2'"), ["7"]);
}

/// The application's own statement works, also where it merges by cell and counts.
#[test]
fn an_application_can_drop_a_column() {
    let desk = desk();
    for name in ["north", "east"] {
        desk.sql(
            &format!("{name}.db"),
            "CREATE TABLE stock (id TEXT PRIMARY KEY, n INTEGER, old TEXT, u TEXT UNIQUE)",
        );
        desk.run(&format!("track {name}.db stock --merge cell --column n=counter")).ok();
    }
    desk.sql("north.db", "INSERT INTO stock VALUES ('a', 1, 'x', 'u')");
    round(&desk);
    desk.sql("east.db", "ALTER TABLE stock DROP COLUMN old; UPDATE stock SET n = n + 1");
    let said = round(&desk);
    has(&said, &["table `stock`: held", "`old` is gone"]);
    desk.sql("north.db", "UPDATE item SET n = 9 WHERE id = '1'");
    round(&desk);
    assert_eq!(texts(&desk, "east.db", "SELECT n FROM item WHERE id = '1'"), ["9"], "the rest goes on");
    desk.sql("east.db", "ALTER TABLE stock ADD COLUMN old TEXT");
    round(&desk);
    in_step(&desk);
    assert_eq!(texts(&desk, "north.db", "SELECT n, old FROM stock"), ["2 x"]);
}

#[test]
fn a_table_that_was_dropped_goes_on_when_it_is_back() {
    let desk = desk();
    desk.sql("north.db", "DROP TABLE item");
    for command in ["seal north.db", "exchange north.db card", "export north.db x.pmb"] {
        has(&desk.run(command).ok(), &["table `item`: held: it was dropped here", "packmule untrack"]);
    }
    has(&desk.run("digest north.db").err, &["table `item`: held: it was dropped here"]);
    desk.sql("north.db", VERSION_1);
    desk.sql("north.db", "INSERT INTO item VALUES ('1', 'one', 1), ('9', 'nine', 9)");
    round(&desk);
    in_step(&desk);
    assert_eq!(texts(&desk, "base.db", "SELECT id, name FROM item ORDER BY id"), ["1 one", "9 nine"]);
}

/// Every board migrates by itself, in its own time, with a card between; nobody types anything but the application.
fn roll_out(migration: &str, check: &str, after: &[&str]) {
    let desk = desk();
    desk.sql("east.db", "UPDATE item SET name = 'before' WHERE id = '1'");
    desk.run("seal east.db").ok();
    desk.sql("north.db", migration);
    desk.sql("base.db", "UPDATE item SET name = 'at the base' WHERE id = '2'");
    let said = round(&desk);
    has(&said, &["table `item`: held: its column"]);
    has(&desk.run("digest north.db").err, &["table `item`: held: its column"]);
    in_step(&desk);
    desk.sql("east.db", migration);
    round(&desk);
    in_step(&desk);
    for name in ALL {
        let db = format!("{name}.db");
        assert_eq!(texts(&desk, &db, check), after, "{name}");
        let status = desk.run(&format!("status {db}")).ok();
        assert!(!status.contains("held"), "{status}");
        assert!(desk.run(&format!("conflicts {db}")).ok().contains("no conflict is open"));
        desk.run(&format!("verify {db}")).ok();
    }
    desk.sql("north.db", "DELETE FROM item WHERE id = '2'");
    round(&desk);
    in_step(&desk);
    assert_eq!(texts(&desk, "base.db", "SELECT id FROM item"), ["1"]);
}

#[test]
fn a_column_that_is_dropped_on_every_board_is_gone() {
    roll_out(
        "ALTER TABLE item DROP COLUMN n",
        "SELECT * FROM item ORDER BY id",
        &["1 before", "2 at the base"],
    );
}

#[test]
fn a_column_that_is_renamed_on_every_board_keeps_what_others_wrote() {
    roll_out(
        "ALTER TABLE item RENAME COLUMN name TO title; ALTER TABLE item RENAME COLUMN n TO count",
        "SELECT id, title, count FROM item ORDER BY id",
        &["1 before 1", "2 at the base 2"],
    );
}

#[test]
fn a_column_whose_type_is_changed_on_every_board_has_it_everywhere() {
    let migration = "BEGIN; CREATE TABLE new__item (id TEXT PRIMARY KEY, name TEXT NOT NULL, n TEXT);
        INSERT INTO new__item SELECT id, name, n FROM item; DROP TABLE item;
        ALTER TABLE new__item RENAME TO item; COMMIT";
    roll_out(
        migration,
        "SELECT id, name, typeof(n) FROM item ORDER BY id",
        &["1 before text", "2 at the base text"],
    );
}

/// It is undone where it was done.
#[test]
fn a_column_that_is_renamed_back_goes_on() {
    let desk = desk();
    desk.sql(
        "north.db",
        "ALTER TABLE item RENAME COLUMN name TO title; UPDATE item SET title = 'held' WHERE id = '1'",
    );
    let said = round(&desk);
    has(&said.replace("\n  ", " "), &["its column `name` is called `title` here, and not yet on east"]);
    desk.sql("north.db", "ALTER TABLE item RENAME COLUMN title TO name");
    round(&desk);
    in_step(&desk);
    assert_eq!(texts(&desk, "base.db", "SELECT name FROM item ORDER BY id"), ["held", "two"]);
}

/// The same name, and another key: nobody's rows can be matched, and the rest goes on.
#[test]
fn a_table_with_another_key_is_left_out_on_both_sides() {
    let desk = desk();
    for (board, key) in [("north", "TEXT"), ("east", "INTEGER")] {
        let db = format!("{board}.db");
        desk.sql(&db, &format!("CREATE TABLE place (id {key} PRIMARY KEY, v)"));
        desk.run(&format!("track {db} place --ids shared")).ok();
    }
    desk.sql("north.db", "INSERT INTO place VALUES ('x', 1)");
    desk.sql("east.db", "INSERT INTO place VALUES (1, 1); UPDATE item SET n = 9 WHERE id = '1'");
    let said = round(&desk);
    has(&said, &["table `place`: its primary key is"]);
    in_step(&desk);
    assert_eq!(texts(&desk, "north.db", "SELECT n FROM item WHERE id = '1'"), ["9"], "the rest goes on");
    for board in ["north", "east"] {
        has(&desk.run(&format!("digest {board}.db")).err, &["table `place`: its primary key is"]);
    }
}

/// A person at the base drops a column that the boards' applications made; a board is away meanwhile.
#[test]
fn a_column_that_a_person_drops_goes_everywhere() {
    let desk = desk();
    desk.run("schema base.db drop-column item n").ok();
    // East has not heard of it.
    desk.sql("east.db", "UPDATE item SET n = 9, name = 'of east' WHERE id = '1'");
    desk.run("seal east.db").ok();
    round(&desk);
    in_step(&desk);
    for name in ALL {
        let db = format!("{name}.db");
        assert_eq!(texts(&desk, &db, "SELECT * FROM item ORDER BY id"), ["1 of east", "2 two"], "{name}");
        assert!(!desk.run(&format!("status {db}")).ok().contains("column"), "{name}");
        desk.run(&format!("verify {db}")).ok();
    }
    // A board that was away that long brings its column back nowhere.
    desk.run("init west.db --name west --fleet fleet.key").ok();
    desk.sql("west.db", VERSION_1);
    desk.sql("west.db", "INSERT INTO item VALUES ('7', 'seven', 7)");
    desk.run("track west.db item").ok();
    for name in ["west", "north", "base", "east", "west"] {
        exchange(&desk, name);
    }
    for name in ["west", "north", "east", "base"] {
        let db = format!("{name}.db");
        let all = "SELECT * FROM item ORDER BY id";
        assert_eq!(texts(&desk, &db, all), ["1 of east", "2 two", "7 seven"], "{name}");
    }
    // It can be added again, by whomever, and is empty then.
    desk.run("schema east.db add-column item n INTEGER").ok();
    round(&desk);
    in_step(&desk);
    desk.sql("north.db", "UPDATE item SET n = 5 WHERE id = '2'");
    round(&desk);
    in_step(&desk);
    for name in ALL {
        let n = texts(&desk, &format!("{name}.db"), "SELECT n FROM item ORDER BY id");
        assert_eq!(n, ["Null", "5", "Null"], "{name}");
    }
}

/// Something on one board needs the column: its table alone is held, and goes on by itself.
#[test]
fn a_column_that_cannot_be_dropped_on_a_board_holds_its_table_there() {
    let desk = desk();
    desk.sql("north.db", "CREATE VIEW counts AS SELECT sum(n) AS n FROM item; CREATE INDEX by_n ON item (n)");
    desk.run("schema base.db drop-column item n").ok();
    let said = round(&desk).replace("\n  ", " ");
    has(&said, &["table `item`: held: others have changed its columns", "drop what is in the way"]);
    let status = desk.run("status north.db").proposes("sqlite3 * *");
    has(&status.out, &["; this shows the table as it is here:"]);
    desk.sql("north.db", "DROP VIEW counts; INSERT INTO item (id, name) VALUES ('3', 'three')");
    round(&desk);
    in_step(&desk);
    assert_eq!(texts(&desk, "north.db", "SELECT * FROM item ORDER BY id"), ["1 one", "2 two", "3 three"]);
    assert_eq!(texts(&desk, "base.db", "SELECT * FROM item ORDER BY id"), ["1 one", "2 two", "3 three"]);
}
