//! A board is restored from a backup. As long as nobody writes at it, it stays who it is, also where it hears of a column
//! which a person added meanwhile; and nobody waits for what is lost with it.

use rusqlite::types::Value as Sql;
use serde_json::json;

use crate::card::{are_equal, back_up, exchange, fingerprint, restore, rounds, status};
use crate::support::Desk;

const ALL: [&str; 3] = ["north", "base", "east"];

/// Three in step by a card; north is backed up.
fn backed_up() -> Desk {
    let desk = Desk::fleet(&["north", "east"]);
    for card in ["card", "other"] {
        std::fs::create_dir(desk.path(card)).unwrap();
    }
    desk.sql(
        "north.db",
        "INSERT INTO settings VALUES ('a', 1, NULL); INSERT INTO readings (value) VALUES (1)",
    );
    rounds(&desk, &ALL, 2);
    back_up(&desk, "north", "backup");
    desk
}

fn writes(desk: &Desk) {
    desk.sql("north.db", "UPDATE settings SET value = 2; INSERT INTO readings (value) VALUES (2)");
}

/// Everybody meets the other card and the usual one, until all are in step; nothing of what north wrote is lost, and it is
/// another device if that is `expected`.
#[track_caller]
fn ends(desk: &Desk, was: &str, expected: bool) {
    for card in ["other", "card", "card"] {
        for name in ALL.iter().cycle().take(ALL.len() * 2) {
            desk.run(&format!("exchange {name}.db {card}")).ok();
        }
    }
    are_equal(desk, &ALL);
    assert_eq!(fingerprint(desk, "north") != was, expected, "{}", status(desk, "north"));
    for name in ALL {
        assert_eq!(status(desk, name)["waits"], json!([]), "{name}");
        desk.run(&format!("verify {name}.db")).ok();
    }
    assert_eq!(desk.value("east.db", "SELECT value FROM settings WHERE key = 'a'"), Sql::Integer(2));
    let columns = "SELECT count(*) FROM pragma_table_info('settings') WHERE name = 'size'";
    assert!(ALL.iter().all(|name| desk.value(&format!("{name}.db"), columns) == Sql::Integer(1)));
    let gathered = "SELECT group_concat(DISTINCT value) FROM (SELECT value FROM readings ORDER BY value)";
    let expected = if expected { "1.0,2.0,3.0" } else { "1.0,2.0" };
    assert_eq!(desk.value("base.db", gathered), Sql::Text(expected.into()));
}

/// Others show it that they have more of its log than it has, and bring the column before they bring that. Where its
/// application has written, that is a second history.
#[test]
fn a_board_that_waits_for_its_own_log_announces_no_column_before() {
    for written in [false, true] {
        let desk = backed_up();
        writes(&desk);
        rounds(&desk, &ALL, 2);
        let was = fingerprint(&desk, "north");
        restore(&desk, "north", "backup");
        desk.run("schema east.db add-column settings size INTEGER").ok();
        rounds(&desk, &["east", "base"], 1);
        desk.run("exchange base.db other").ok();
        if written {
            desk.sql("north.db", "INSERT INTO readings (value) VALUES (3)");
        }
        desk.run("exchange north.db other").ok();
        ends(&desk, &was, written);
    }
}

/// What it wrote lies on a card that nobody has read. So nobody knows that it was set back, and it has said that it has the
/// column, too: it takes that back.
#[test]
fn a_board_of_which_nobody_knows_that_it_was_set_back_takes_back_what_it_only_announced() {
    for written in [false, true] {
        let desk = backed_up();
        writes(&desk);
        desk.run("exchange north.db other").ok();
        let was = fingerprint(&desk, "north");
        restore(&desk, "north", "backup");
        desk.run("schema east.db add-column settings size INTEGER").ok();
        exchange(&desk, "east");
        if written {
            desk.sql("north.db", "INSERT INTO readings (value) VALUES (3)");
        }
        exchange(&desk, "north");
        let announced = "SELECT max(seq) FROM _pm_frame WHERE dev = 1 AND stream = 0";
        assert_eq!(desk.value("north.db", announced), Sql::Integer(3), "it has announced the column");
        ends(&desk, &was, written);
    }
}

/// It had taken a new identity, and has lost that: a base, which heard by another board of the settings that were sealed
/// under it, waits for the readings of the same seal as little as that board does. Where no identity was before, the base
/// waits for the board to come.
#[test]
fn nobody_waits_for_readings_of_an_identity_that_was_lost_with_a_backup() {
    for second in [true, false] {
        let desk = backed_up();
        if second {
            desk.sql("north.db", "UPDATE settings SET value = 2");
            rounds(&desk, &["north", "base"], 1);
            let was = fingerprint(&desk, "north");
            restore(&desk, "north", "backup");
            desk.sql("north.db", "INSERT INTO settings VALUES ('b', 3, NULL)");
            rounds(&desk, &ALL, 2);
            assert_ne!(fingerprint(&desk, "north"), was);
        }
        desk.sql(
            "north.db",
            "INSERT INTO settings VALUES ('c', 4, NULL); INSERT INTO readings (value) VALUES (4)",
        );
        for name in ["north", "east"] {
            desk.run(&format!("exchange {name}.db other")).ok();
        }
        let here: &[&str] = if second {
            restore(&desk, "north", "backup");
            &ALL
        } else {
            &["base", "east"]
        };
        rounds(&desk, here, 3);
        let waits = status(&desk, "base")["waits"].as_array().unwrap().len();
        let c = desk.rows("base.db", "SELECT value FROM settings WHERE key = 'c'");
        if second {
            are_equal(&desk, here);
            assert_eq!((waits, c), (0, vec![vec![Sql::Integer(4)]]));
        } else {
            assert_eq!((waits, c), (1, Vec::new()));
        }
    }
}
