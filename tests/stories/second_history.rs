//! The image of a board's card is written to a second card, and both boards work, at different places.

use rusqlite::types::Value as Sql;

use crate::card::{are_equal, fingerprint, rounds, status};
use crate::line::{line, synced};
use crate::support::Desk;

/// The board and its copy meet others who do not meet each other, until the cards go round. Each wrote, and another board
/// wrote on what the copy said: nobody types anything, that board stays who it is, and no row is lost.
#[test]
fn who_has_written_on_a_copys_rows_stays_who_it_is() {
    for first in ["copy/west", "east"] {
        let desk = Desk::fleet(&["west", "east"]);
        for dir in ["card", "other"] {
            std::fs::create_dir(desk.path(dir)).unwrap();
        }
        desk.sql(
            "west.db",
            "INSERT INTO settings VALUES ('a', 1, NULL); INSERT INTO readings (value) VALUES (1)",
        );
        rounds(&desk, &["west", "base", "east"], 2);
        desk.copy_card("west", "copy");
        desk.sql(
            "west.db",
            "UPDATE settings SET value = 2 WHERE key = 'a'; INSERT INTO readings (value) VALUES (2)",
        );
        desk.sql(
            "copy/west.db",
            "INSERT INTO settings VALUES ('b', 3, NULL); INSERT INTO readings (value) VALUES (3)",
        );
        rounds(&desk, &["west", "base"], 2);
        for device in ["copy/west", "east", "copy/west"] {
            desk.run(&format!("exchange {device}.db other")).ok();
            if device == "east" {
                desk.sql("east.db", "UPDATE settings SET value = 4 WHERE key IN ('a', 'b')");
            }
        }
        desk.run("exchange east.db other").ok();
        let who =
            |device: &str| desk.run(&format!("status {device}.db --json")).json()["fingerprint"].clone();
        let before = ["west", "east", "base", "copy/west"].map(who);
        let second = if first == "east" { "copy/west" } else { "east" };
        for _ in 0..2 {
            for device in [first, second, "base", "west"] {
                for card in ["card", "other"] {
                    desk.run(&format!("exchange {device}.db {card}")).ok();
                }
            }
        }
        rounds(&desk, &["base", "west", "east", "copy/west"], 3);
        let after = ["west", "east", "base", "copy/west"].map(who);
        assert_eq!(before[..3], after[..3], "{first}");
        assert_ne!(before[3], after[3], "{first}");
        let digest = |device: &str| desk.run(&format!("digest {device}.db")).ok();
        for device in ["west", "east", "copy/west"] {
            assert_eq!(digest(device), digest("base"), "{first}, {device}");
        }
        assert_eq!(desk.value("base.db", "SELECT value FROM settings WHERE key = 'b'"), Sql::Integer(4));
        // The first history and the board that wrote on the second both changed it.
        let conflicts = desk.run("conflicts base.db --json").json();
        let open = conflicts["conflicts"].as_array().unwrap();
        assert!(open.iter().any(|open| open["key"].to_string().contains('a')), "{first}: {conflicts}");
        let values = desk.value(
            "base.db",
            "SELECT group_concat(DISTINCT value) FROM (SELECT value FROM readings ORDER BY value)",
        );
        assert_eq!(values, Sql::Text("1.0,2.0,3.0".into()), "{first}");
        let status = desk.run("status east.db --json").json();
        assert!(status["notices"].to_string().contains("has two histories"), "{first}: {status}");
    }
}

/// Boards west and east, in step with the base over lines; and a copy of west's card.
fn copied() -> Desk {
    let desk = Desk::fleet(&["west", "east"]);
    desk.sql(
        "west.db",
        "INSERT INTO settings VALUES ('a', 1, NULL); INSERT INTO readings (value) VALUES (1)",
    );
    for board in ["west", "east"] {
        synced(&desk, board, "base");
    }
    desk.copy_card("west", "copy");
    desk
}

/// The same over lines alone: east has built on what the copy wrote, and gives that up for the first history when it hears
/// of it, whether by the base or by the board itself.
#[test]
fn who_has_built_on_a_copys_rows_gives_them_up_over_a_line() {
    for first in ["base", "west"] {
        let desk = copied();
        desk.sql(
            "west.db",
            "UPDATE settings SET value = 2 WHERE key = 'a'; INSERT INTO readings (value) VALUES (2)",
        );
        desk.sql(
            "copy/west.db",
            "INSERT INTO settings VALUES ('b', 3, NULL); INSERT INTO readings (value) VALUES (3)",
        );
        synced(&desk, "west", "base");
        synced(&desk, "copy/west", "east");
        desk.sql("east.db", "UPDATE settings SET value = 4 WHERE key IN ('a', 'b')");
        synced(&desk, "copy/west", "east");
        let all = ["west", "east", "base", "copy/west"];
        let before = all.map(|name| fingerprint(&desk, name));
        // Who hears that there are two histories may say so, and end; nobody types anything.
        line(&desk, "east", first);
        for _ in 0..3 {
            for board in ["east", "copy/west", "west"] {
                line(&desk, board, "base");
            }
        }
        for board in ["east", "copy/west", "west", "east", "copy/west"] {
            synced(&desk, board, "base");
        }
        are_equal(&desk, &all);
        let after = all.map(|name| fingerprint(&desk, name));
        assert_eq!(before[..3], after[..3], "{first}");
        assert_ne!(before[3], after[3], "{first}");
        assert_eq!(desk.value("base.db", "SELECT value FROM settings WHERE key = 'b'"), Sql::Integer(4));
        let values = "SELECT group_concat(DISTINCT value) FROM (SELECT value FROM readings ORDER BY value)";
        assert_eq!(desk.value("base.db", values), Sql::Text("1.0,2.0,3.0".into()), "{first}");
        for name in all {
            assert_eq!(status(&desk, name)["waits"], serde_json::json!([]), "{first}, {name}");
            desk.run(&format!("verify {name}.db")).ok();
        }
    }
}

/// A base in the middle, and boards that meet nobody else: the base alone shows the second of two boards with one card that
/// there are two, over a line, however much longer its history is.
#[test]
fn a_second_history_that_is_longer_is_told_by_the_base_over_a_line() {
    for seals in [1, 2, 5] {
        let desk = copied();
        desk.sql("west.db", "UPDATE settings SET value = 2; INSERT INTO readings (value) VALUES (2)");
        synced(&desk, "west", "base");
        for n in 0..seals {
            desk.sql(
                "copy/west.db",
                &format!(
                    "INSERT INTO settings VALUES ('b{n}', {n}, NULL); INSERT INTO readings (value) VALUES (3)"
                ),
            );
            desk.run("seal copy/west.db").ok();
        }
        let all = ["west", "east", "base", "copy/west"];
        let before = all.map(|name| fingerprint(&desk, name));
        for board in ["copy/west", "west", "east", "copy/west"] {
            synced(&desk, board, "base");
        }
        are_equal(&desk, &all);
        let after = all.map(|name| fingerprint(&desk, name));
        assert_eq!((&before[..3], before[3] == after[3]), (&after[..3], false), "{seals}");
        for name in all {
            assert_eq!(status(&desk, name)["waits"], serde_json::json!([]), "{seals}, {name}");
            desk.run(&format!("verify {name}.db")).ok();
        }
        assert_eq!(desk.value("east.db", "SELECT count(*) FROM settings"), Sql::Integer(1 + seals));
        assert_eq!(
            desk.value("base.db", "SELECT count(*) FROM readings WHERE value = 3"),
            Sql::Integer(seals)
        );
    }
}
