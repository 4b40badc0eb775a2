//! What an application makes of its rows in a migration: it stands, on its own board and everywhere. And what it forbids no
//! more is forbidden nowhere.

use rusqlite::types::Value as Sql;

use crate::card::rounds;
use crate::support::Desk;

const ALL: [&str; 3] = ["north", "east", "base"];

/// A table of people on two boards; the base has no application.
fn desk(columns: &str) -> Desk {
    let desk = Desk::fleet(&["north", "east"]);
    std::fs::create_dir(desk.path("card")).unwrap();
    for board in ["north.db", "east.db"] {
        desk.sql(board, &format!("CREATE TABLE people ({columns})"));
        desk.run(&format!("track {board} people")).ok();
    }
    rounds(&desk, &ALL, 2);
    desk
}

/// Makes the table anew.
fn anew(columns: &str, values: &str) -> String {
    format!(
        "BEGIN; CREATE TABLE new_people ({columns}); INSERT INTO new_people SELECT {values} FROM people;
         DROP TABLE people; ALTER TABLE new_people RENAME TO people; COMMIT"
    )
}

/// All show these rows, and nothing is open or held.
#[track_caller]
fn all_show(desk: &Desk, query: &str, wanted: &[&[&str]]) {
    let digests = ALL.map(|name| desk.run(&format!("digest {name}.db")).ok());
    assert!(digests.windows(2).all(|two| two[0] == two[1]), "{digests:?}");
    for name in ALL {
        let db = format!("{name}.db");
        let text = |value: &Sql| match value {
            Sql::Text(text) => text.clone(),
            Sql::Integer(n) => n.to_string(),
            other => format!("{other:?}"),
        };
        let found: Vec<Vec<String>> =
            desk.rows(&db, query).iter().map(|row| row.iter().map(text).collect()).collect();
        assert_eq!(found, wanted, "{name}");
        assert!(desk.run(&format!("conflicts {db}")).ok().contains("no conflict is open"), "{name}");
        desk.run(&format!("verify {db}")).ok();
    }
}

/// A column gets another name and other values in one go, on the board that is the last to do so, too: the log still tells what
/// the rows were.
#[test]
fn values_that_a_migration_makes_of_a_renamed_column_stand() {
    let desk = desk("id TEXT PRIMARY KEY, cm INTEGER");
    desk.sql("north.db", "INSERT INTO people VALUES ('a', 170)");
    desk.sql("east.db", "INSERT INTO people VALUES ('b', 180)");
    desk.run("seal north.db").ok();
    let migration = anew("id TEXT PRIMARY KEY, mm INTEGER NOT NULL", "id, cm * 10");
    desk.sql("north.db", &migration);
    desk.sql("east.db", &migration);
    // Nothing that Packmule does undoes it on its own board.
    for _ in 0..2 {
        desk.run("exchange north.db card").ok();
        desk.run("exchange east.db card").ok();
        assert_eq!(desk.value("north.db", "SELECT mm FROM people WHERE id = 'a'"), Sql::Integer(1_700));
        assert_eq!(desk.value("east.db", "SELECT mm FROM people WHERE id = 'b'"), Sql::Integer(1_800));
    }
    rounds(&desk, &ALL, 3);
    all_show(&desk, "SELECT id, mm FROM people ORDER BY id", &[&["a", "1700"], &["b", "1800"]]);
}

/// A NOT NULL and a UNIQUE that the application has taken away keep no row out of a table that Packmule made.
#[test]
fn what_the_application_forbids_no_more_is_forbidden_nowhere() {
    let desk = desk("id TEXT PRIMARY KEY, name TEXT NOT NULL, number INTEGER UNIQUE");
    desk.sql("north.db", "INSERT INTO people VALUES ('a', 'Ann', 1)");
    rounds(&desk, &ALL, 2);
    // The control: both hold as long as the application has them, the UNIQUE for all.
    let unique = "SELECT count(*) FROM pragma_index_list('people') WHERE \"unique\" AND origin <> 'pk'";
    assert_eq!(desk.value("base.db", unique), Sql::Integer(1));
    let migration = anew("id TEXT PRIMARY KEY, name TEXT, number INTEGER", "id, name, number");
    desk.sql("north.db", &migration);
    desk.sql("north.db", "INSERT INTO people VALUES ('b', NULL, 2), ('d', 'Di', 1)");
    rounds(&desk, &ALL, 2);
    assert!(desk.run("conflicts east.db").ok().contains("NOT NULL"), "there it is still forbidden");
    desk.sql("east.db", &migration);
    desk.sql("east.db", "INSERT INTO people VALUES ('c', 'Cy', 1)");
    rounds(&desk, &ALL, 3);
    let people = "SELECT id, coalesce(name, '-'), number FROM people ORDER BY id";
    all_show(&desk, people, &[&["a", "Ann", "1"], &["b", "-", "2"], &["c", "Cy", "1"], &["d", "Di", "1"]]);
    assert_eq!(desk.value("base.db", unique), Sql::Integer(0));
}

/// A column that is dropped and added again with another type is another one: the values of before do not come back.
#[test]
fn a_column_that_was_dropped_and_added_again_is_a_new_one() {
    let desk = desk("id TEXT PRIMARY KEY, born TEXT");
    desk.sql("north.db", "INSERT INTO people VALUES ('a', 'May')");
    desk.sql("east.db", "INSERT INTO people VALUES ('b', 'June')");
    rounds(&desk, &ALL, 2);
    let migration = "ALTER TABLE people DROP COLUMN born; ALTER TABLE people ADD COLUMN born INTEGER";
    desk.sql("north.db", migration);
    desk.run("seal north.db").ok();
    desk.sql("north.db", "UPDATE people SET born = 1990 WHERE id = 'a'");
    desk.sql("east.db", migration);
    rounds(&desk, &ALL, 3);
    let people = "SELECT id, coalesce(born, '-') FROM people ORDER BY id";
    all_show(&desk, people, &[&["a", "1990"], &["b", "-"]]);
}

/// The UNIQUE goes with a change for which the table is held: it does not come back when it goes on.
#[test]
fn a_unique_that_went_while_the_table_was_held_stays_away() {
    let desk = desk("id TEXT PRIMARY KEY, cm INTEGER, number INTEGER UNIQUE");
    desk.sql("north.db", "INSERT INTO people VALUES ('a', 170, 1)");
    rounds(&desk, &ALL, 2);
    let migration = anew("id TEXT PRIMARY KEY, mm INTEGER, number INTEGER", "id, cm * 10, number");
    desk.sql("north.db", &migration);
    rounds(&desk, &ALL, 1);
    desk.sql("north.db", "INSERT INTO people VALUES ('b', 1600, 1)");
    desk.sql("east.db", &migration);
    desk.sql("east.db", "INSERT INTO people VALUES ('c', 1500, 1)");
    rounds(&desk, &ALL, 3);
    let people = "SELECT id, mm, number FROM people ORDER BY id";
    all_show(&desk, people, &[&["a", "1700", "1"], &["b", "1600", "1"], &["c", "1500", "1"]]);
}

/// What was written to a held table is sealed before a UNIQUE that has come meanwhile keeps it out: it is listed, and not deleted.
#[test]
fn a_row_of_a_held_table_outlives_a_unique_of_others() {
    let desk = desk("id TEXT PRIMARY KEY, cm INTEGER, number INTEGER");
    desk.sql("north.db", "INSERT INTO people VALUES ('a', 170, 1)");
    rounds(&desk, &ALL, 2);
    let migration = "ALTER TABLE people RENAME COLUMN cm TO mm";
    desk.sql("north.db", migration);
    rounds(&desk, &ALL, 1);
    desk.sql("north.db", "INSERT INTO people VALUES ('b', 160, 1)");
    desk.sql("east.db", "CREATE UNIQUE INDEX by_number ON people (number)");
    rounds(&desk, &ALL, 1);
    desk.sql("east.db", migration);
    rounds(&desk, &ALL, 3);
    for name in ALL {
        let listed = desk.run(&format!("conflicts {name}.db --json")).json();
        let listed = listed["conflicts"].as_array().unwrap();
        let [only] = &listed[..] else { panic!("{name}: {listed:?}") };
        assert_eq!((&only["kind"], &only["key"]["id"]), (&"unique".into(), &"b".into()), "{name}: {only}");
    }
    desk.run(&format!("resolve north.db {} --set number=2", conflict(&desk))).ok();
    rounds(&desk, &ALL, 2);
    all_show(
        &desk,
        "SELECT id, mm, number FROM people ORDER BY id",
        &[&["a", "170", "1"], &["b", "160", "2"]],
    );
}

/// The id of the open conflict.
fn conflict(desk: &Desk) -> String {
    desk.run("conflicts north.db --json").json()["conflicts"][0]["id"].as_str().unwrap().to_owned()
}
