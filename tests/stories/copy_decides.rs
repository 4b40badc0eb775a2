//! A board's card is copied, and a person decides something of a table at the copy: that is for all devices, under whatever
//! name the copy goes on; and who heard of it hands it on where the copy is lost.

use rusqlite::types::Value as Sql;
use serde_json::json;

use crate::card::{are_equal, rounds, status};
use crate::support::Desk;

/// What a person types, and how a table shows that it holds.
const DECISIONS: [(&str, &str); 3] = [
    ("schema copy/west.db add-column settings unit TEXT", "key,value,note,unit"),
    ("schema copy/west.db drop-column settings note", "key,value"),
    ("track copy/west.db settings --policy lww", "key,value,note"),
];

/// Boards west and east, in step with the base; and a copy of west, at which somebody has typed this and the application has
/// gone on. West has gone on too, less often: the base has that already, and has written on it.
fn copied(typed: &str) -> Desk {
    let desk = Desk::fleet(&["west", "east"]);
    std::fs::create_dir(desk.path("card")).unwrap();
    desk.sql("west.db", "INSERT INTO settings VALUES ('a', 1, 'old')");
    rounds(&desk, &["base", "west", "east"], 3);
    desk.copy_card("west", "copy");
    desk.run(typed).ok();
    for key in ["b", "c", "d", "e"] {
        desk.sql("copy/west.db", &format!("INSERT INTO settings (key, value) VALUES ('{key}', 2)"));
        desk.run("seal copy/west.db").ok();
    }
    desk
}

/// West goes on, and the base on what west wrote.
fn goes_on(desk: &Desk) {
    for key in ["f", "g"] {
        desk.sql("west.db", &format!("INSERT INTO settings (key, value) VALUES ('{key}', 3)"));
        desk.run("seal west.db").ok();
    }
    rounds(desk, &["west", "base"], 1);
    desk.sql("base.db", "INSERT INTO settings (key, value) VALUES ('h', 4)");
    desk.run("seal base.db").ok();
}

/// All write one row: whether that is a conflict tells which policy holds.
fn holds_everywhere(desk: &Desk, all: &[&str], (typed, columns): (&str, &str)) {
    for name in all {
        desk.sql(&format!("{name}.db"), &format!("INSERT INTO settings (key, value) VALUES ('z', '{name}')"));
    }
    rounds(desk, all, 4);
    are_equal(desk, all);
    for name in all {
        let query = "SELECT group_concat(name) FROM pragma_table_info('settings')";
        assert_eq!(desk.value(&format!("{name}.db"), query), Sql::Text(columns.into()), "{typed}: {name}");
        assert_eq!(status(desk, name)["waits"], json!([]), "{typed}: {name}");
        let open = desk.run(&format!("conflicts {name}.db --json")).json();
        let is_open = open["conflicts"].as_array().is_some_and(|open| !open.is_empty());
        assert_eq!(is_open, !typed.contains("lww"), "{typed}: {name}: {open}");
        desk.run(&format!("verify {name}.db")).ok();
    }
}

/// The copy hears first of what the base wrote, which names frames of west that the copy takes for its own: it cannot rename
/// what it wrote, and says again under its new name what was decided.
#[test]
fn what_a_person_decides_at_a_copy_holds_for_all() {
    for decision in DECISIONS {
        let desk = copied(decision.0);
        goes_on(&desk);
        desk.run("compact base.db").ok();
        desk.run("export base.db x.pmb --for west").ok();
        desk.run("import copy/west.db x.pmb").ok();
        rounds(&desk, &["base", "west", "east", "copy/west"], 4);
        let said = status(&desk, "copy/west")["notices"].to_string();
        assert!(said.contains("was a second history of west"), "{said}");
        holds_everywhere(&desk, &["base", "west", "east", "copy/west"], decision);
    }
}

/// East alone has met the copy, and has written on its rows, before the copy is lost for good. What east wrote names frames that
/// nobody will ever have: it says so, and nobody waits for them.
#[test]
fn what_a_lost_copy_said_reaches_all_by_who_heard_it() {
    for decision in DECISIONS {
        let desk = copied(decision.0);
        desk.run("export copy/west.db x.pmb").ok();
        desk.run("import east.db x.pmb").ok();
        desk.sql("east.db", "UPDATE settings SET value = 5 WHERE key = 'b'");
        desk.run("seal east.db").ok();
        goes_on(&desk);
        rounds(&desk, &["base", "west", "east"], 4);
        let value =
            |name: &str| desk.value(&format!("{name}.db"), "SELECT value FROM settings WHERE key = 'b'");
        for name in ["base", "west"] {
            assert_eq!(value(name), Sql::Integer(5), "{}: {name}", decision.0);
        }
        holds_everywhere(&desk, &["base", "west", "east"], decision);
    }
}
