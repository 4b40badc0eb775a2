//! The page of an upgrade of the application: every command on it, as typed, while boards are upgraded one by one.

use crate::card::{are_equal, rounds};
use crate::support::{Desk, has};
use crate::typed::{block, mentioned, shell, typed};

const PAGE: &str = include_str!("../../src/docs/upgrade.md");

const BOARDS: [&str; 2] = ["north", "east"];

#[test]
fn every_command_of_the_page_is_run() {
    let desk = Desk::fleet(&BOARDS);
    std::fs::create_dir(desk.path("card")).unwrap();
    desk.sql("north.db", "INSERT INTO settings VALUES ('interval', 60, '')");
    rounds(&desk, &["north", "east", "base"], 2);
    let lines = block(PAGE, None);
    typed(&desk, &lines, |_, line| {
        if !line.starts_with("packmule exchange") && !line.starts_with("packmule status") {
            return;
        }
        rounds(&desk, &BOARDS, 1);
        if line.starts_with("packmule status") {
            has(&desk.run("status north.db").ok(), &["settings"]);
            for board in BOARDS {
                // It comes to this board; what waited is in the column, what it writes comes to all.
                desk.sql(&format!("{board}.db"), "ALTER TABLE settings ADD COLUMN unit TEXT");
                desk.sql(
                    &format!("{board}.db"),
                    &format!("INSERT INTO settings VALUES ('{board}', 1, '', 'm')"),
                );
                rounds(&desk, &BOARDS, 1);
            }
        }
    });
    rounds(&desk, &["north", "east", "base"], 2);
    are_equal(&desk, &["north", "east", "base"]);
    let units = "SELECT group_concat(unit, ' ') FROM (SELECT unit FROM settings ORDER BY key)";
    assert_eq!(desk.value("east.db", units), rusqlite::types::Value::Text("m s m".into()));
    // The other way, in the list.
    let ways = mentioned(PAGE);
    assert_eq!(ways.len(), 1);
    shell(&desk, ways[0]);
    rounds(&desk, &["base", "north", "east"], 1);
    assert_eq!(desk.rows("north.db", "SELECT place FROM settings").len(), 3);
}
