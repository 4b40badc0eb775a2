//! One table name and two primary keys: the device that Packmule made the table on goes over by itself to the one that is
//! left, whichever it met first. Nothing is lost on the way, and nothing that was said of it stays.

use rusqlite::types::Value as Sql;

use crate::card::{are_equal, exchange, rounds, status};
use crate::support::{Desk, has, unfolded};

const ALL: [&str; 3] = ["north", "east", "base"];

/// Two boards whose tables of one name have other keys, with a row each; a base that has met nobody.
fn desk() -> Desk {
    let desk = Desk::new();
    std::fs::create_dir(desk.path("card")).unwrap();
    desk.run("fleet new fleet.key").ok();
    desk.run("init base.db --name base --fleet fleet.key --base").ok();
    for (board, key, row) in [("north", "TEXT", "('1', 'one')"), ("east", "INTEGER", "(1, 'uno')")] {
        let db = format!("{board}.db");
        desk.run(&format!("init {db} --name {board} --fleet fleet.key")).ok();
        desk.sql(&db, &format!("CREATE TABLE item (id {key} PRIMARY KEY, name TEXT)"));
        desk.run(&format!("track {db} item --ids shared")).ok();
        desk.sql(&db, &format!("INSERT INTO item VALUES {row}"));
    }
    desk
}

/// The base meets one board, then the other.
fn meet(desk: &Desk, first: &str, second: &str) {
    for name in [first, "base", second, "base"] {
        exchange(desk, name);
    }
    rounds(desk, &ALL, 2);
}

/// The table of a board gets another name there.
fn give_way(desk: &Desk, board: &str) {
    let db = format!("{board}.db");
    desk.sql(&db, &format!("ALTER TABLE item RENAME TO item_{board}"));
    desk.run(&format!("track {db} item_{board} --ids shared")).ok();
    desk.run(&format!("untrack {db} item")).ok();
}

/// What the table holds on a device.
fn items(desk: &Desk, name: &str) -> Vec<String> {
    let rows =
        desk.rows(&format!("{name}.db"), "SELECT quote(id) || ' ' || quote(name) FROM item ORDER BY 1");
    let text = |row: Vec<Sql>| if let Sql::Text(text) = &row[0] { text.clone() } else { String::new() };
    rows.into_iter().map(text).collect()
}

/// Nothing is said of any other key.
#[track_caller]
fn nothing_is_said(desk: &Desk, name: &str) {
    let said = status(desk, name);
    for notice in said["notices"].as_array().unwrap() {
        assert!(!notice.to_string().contains("another primary key"), "{name}: {notice}");
    }
    for table in said["tables"].as_array().unwrap() {
        let waits = table["waiting"].as_u64().unwrap_or(0) > 0;
        assert!(!waits && table["how"] != "held" && table["note"].is_null(), "{name}: {table}");
    }
}

#[test]
fn whichever_key_the_base_met_first_it_has_the_one_that_is_left() {
    for (first, second) in [("east", "north"), ("north", "east")] {
        let desk = desk();
        meet(&desk, first, second);
        for name in ALL {
            let told = unfolded(&desk.run(&format!("status {name}.db")).ok());
            has(&told, &["table `item` has another primary key on", "1 row waits for it"]);
        }
        give_way(&desk, "east");
        rounds(&desk, &ALL, 3);
        for name in ALL {
            nothing_is_said(&desk, name);
            assert_eq!(items(&desk, name), ["'1' 'one'"], "{name}, {first} first");
            assert_eq!(desk.rows(&format!("{name}.db"), "SELECT 1 FROM item_east").len(), 1, "{name}");
        }
        are_equal(&desk, &ALL);
        // It goes on, also on the device that had another one.
        desk.sql("east.db", "INSERT INTO item VALUES ('2', 'two')");
        desk.sql("base.db", "UPDATE item SET name = 'eins' WHERE id = '1'");
        rounds(&desk, &ALL, 2);
        are_equal(&desk, &ALL);
        assert_eq!(items(&desk, "north"), ["'1' 'eins'", "'2' 'two'"]);
        ALL.iter().for_each(|name| desk.run(&format!("verify {name}.db")).ok().clear());
    }
}

#[test]
fn what_was_written_to_the_table_that_goes_stays_under_another_name() {
    let desk = desk();
    meet(&desk, "east", "north");
    desk.sql("base.db", "INSERT INTO item VALUES (2, 'due')");
    rounds(&desk, &["base"], 1);
    give_way(&desk, "east");
    desk.sql("base.db", "INSERT INTO item VALUES (3, 'tre'); UPDATE item SET name = 'UNO' WHERE id = 1");
    rounds(&desk, &ALL, 3);
    assert_eq!(items(&desk, "base"), ["'1' 'one'"]);
    let told = unfolded(&desk.run("status base.db").ok());
    has(&told, &["its rows of here (3) are in the table `item_2`: drop that when nobody needs them"]);
    let kept =
        desk.rows("base.db", "SELECT 1 FROM item_2 WHERE (id, name) IN ((1, 'UNO'), (2, 'due'), (3, 'tre'))");
    assert_eq!(kept.len(), 3);
    ALL.iter().for_each(|name| nothing_is_said(&desk, name));
    are_equal(&desk, &ALL);
}

/// What waits for the other key is in no table: it must outlive a compaction, and reach who comes later by a state.
#[test]
fn rows_of_the_other_key_outlive_a_compaction_and_travel_in_a_state() {
    for (first, second) in [("east", "north"), ("north", "east")] {
        let desk = desk();
        meet(&desk, first, second);
        rounds(&desk, &ALL, 2);
        ALL.iter().for_each(|name| desk.run(&format!("compact {name}.db")).ok().clear());
        desk.run("init south.db --name south --fleet fleet.key").ok();
        let all = ["north", "east", "base", "south"];
        rounds(&desk, &["south", "base", "south"], 1);
        give_way(&desk, "east");
        rounds(&desk, &all, 3);
        for name in all {
            nothing_is_said(&desk, name);
            assert_eq!(items(&desk, name), ["'1' 'one'"], "{name}, {first} first");
        }
        are_equal(&desk, &all);
    }
}

/// The key of before comes back, and the other one goes: all rows of it are there, also those that were settled.
#[test]
fn a_key_that_comes_back_has_all_its_rows() {
    let desk = desk();
    meet(&desk, "east", "north");
    rounds(&desk, &ALL, 2);
    ALL.iter().for_each(|name| desk.run(&format!("compact {name}.db")).ok().clear());
    give_way(&desk, "east");
    rounds(&desk, &ALL, 3);
    assert_eq!(items(&desk, "base"), ["'1' 'one'"]);
    desk.run("untrack east.db item").ok();
    desk.sql("east.db", "DROP TABLE item; CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT); INSERT INTO item VALUES (1, 'uno'), (5, 'cinque')");
    let refused = desk.run("track east.db item --ids shared").refused("east.db");
    has(&unfolded(&refused), &["other devices have a table of this name with another primary key"]);
    give_way(&desk, "north");
    rounds(&desk, &["north", "base", "east"], 1);
    desk.run("track east.db item --ids shared").ok();
    rounds(&desk, &ALL, 3);
    for name in ["north", "east", "base"] {
        assert_eq!(items(&desk, name), ["1 'uno'", "5 'cinque'"], "{name}");
        nothing_is_said(&desk, name);
    }
    are_equal(&desk, &ALL);
}

#[test]
fn a_device_that_is_retired_holds_the_name_no_longer() {
    let desk = desk();
    meet(&desk, "east", "north");
    desk.run("retire base.db east").ok();
    rounds(&desk, &["north", "base"], 3);
    for name in ["north", "base"] {
        nothing_is_said(&desk, name);
        assert_eq!(items(&desk, name), ["'1' 'one'"], "{name}");
    }
    are_equal(&desk, &["north", "base"]);
}
