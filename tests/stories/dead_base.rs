//! The page of a dead base: every command on it, as typed, while the cards go round.

use rusqlite::types::Value as Sql;

use crate::card::{are_equal, lose, rounds};
use crate::support::Desk;
use crate::typed::{block, mentioned, shell, typed};

const PAGE: &str = include_str!("../../src/docs/dead-base.md");

/// A fleet whose base has gathered and compacted all, and is gone.
fn desk() -> Desk {
    let desk = Desk::fleet(&["north", "east"]);
    std::fs::create_dir(desk.path("card")).unwrap();
    for board in ["north", "east"] {
        desk.sql(
            &format!("{board}.db"),
            &format!(
                "INSERT INTO readings (value) VALUES (1), (2); INSERT INTO settings VALUES ('{board}', 1, '')"
            ),
        );
    }
    rounds(&desk, &["north", "east", "base"], 3);
    for name in ["north", "east", "base"] {
        desk.run(&format!("compact {name}.db")).ok();
    }
    rounds(&desk, &["north", "east", "base"], 1);
    desk
}

/// Types the commands of the page; after each the boards exchange, as they always do.
fn type_all(desk: &Desk) {
    typed(desk, &block(PAGE, None), |_, _| rounds(desk, &["north", "east"], 1));
}

#[test]
fn every_command_of_the_page_is_run() {
    let desk = desk();
    lose(&desk, "base");
    type_all(&desk);
    rounds(&desk, &["second", "north", "east"], 2);
    assert_eq!(desk.value("second.db", "SELECT count(*) FROM readings"), Sql::Integer(4));
    are_equal(&desk, &["second", "north", "east"]);
    // The boards fold again: the new base has what they wrote.
    rounds(&desk, &["second", "north", "east"], 2);
    let shown = desk.run("compact north.db").ok();
    assert!(!shown.contains("base-"), "nothing waits for the dead one:\n{shown}");
    assert_eq!(desk.value("north.db", "SELECT count(*) FROM _pm_frame WHERE stream = 1"), Sql::Integer(0));
}

/// The disk of the dead base can be read, and a board has deleted what it had: the merge that the list names.
#[test]
fn the_disk_of_the_dead_base_has_what_boards_have_not() {
    let desk = desk();
    desk.sql("north.db", "DELETE FROM readings");
    std::fs::remove_file(desk.path("base.db.pmkey")).unwrap();
    let merge = mentioned(PAGE).into_iter().find(|code| code.starts_with("packmule merge ")).unwrap();
    shell(&desk, "packmule init second.db --name second --fleet fleet.key --base");
    shell(&desk, merge);
    assert_eq!(desk.value("second.db", "SELECT count(*) FROM readings"), Sql::Integer(4));
    type_all_but_init(&desk);
    assert_eq!(desk.value("second.db", "SELECT count(*) FROM readings"), Sql::Integer(4));
}

fn type_all_but_init(desk: &Desk) {
    for line in ["packmule exchange second.db card", "packmule retire second.db base --fleet fleet.key"] {
        assert!(PAGE.contains(line));
        shell(desk, line);
        rounds(desk, &["north", "east"], 1);
    }
}
