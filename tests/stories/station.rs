//! The page of a station in an afternoon: every command on it, as typed, while the card goes round.

use rusqlite::types::Value as Sql;

use crate::support::Desk;
use crate::typed::{block, typed};

const PAGE: &str = include_str!("../../src/docs/station.md");

const BOARDS: [&str; 3] = ["north", "east", "south"];

#[test]
fn every_command_of_the_page_is_run() {
    let desk = Desk::new();
    for board in BOARDS {
        std::fs::create_dir_all(desk.path(board).join("srv")).unwrap();
    }
    let script = "CREATE TABLE settings (key TEXT PRIMARY KEY, value, note TEXT);
                  CREATE TABLE readings (id INTEGER PRIMARY KEY AUTOINCREMENT, value REAL);";
    std::fs::write(desk.path("station.sql"), script).unwrap();
    let lines = block(PAGE, None);
    typed(&desk, &lines, |at, line| {
        // The card goes to each board, whose application has measured.
        if line.starts_with("mkdir card") {
            for board in BOARDS {
                let db = format!("{board}/srv/data.db");
                desk.sql(&db, "INSERT INTO readings (value) VALUES (21.5)");
                desk.run(&format!("exchange {db} card")).ok();
            }
            assert_eq!(at, lines.len() - 3);
        }
    });
    assert_eq!(desk.value("base.db", "SELECT count(*) FROM readings"), Sql::Integer(3));
    for board in BOARDS {
        let settings = std::fs::read_to_string(desk.path(board).join("etc/default/packmule")).unwrap();
        assert!(settings.contains("PACKMULE_DB=/srv/data.db\n"), "{settings}");
    }
}
