//! The page of a new board: every command on it, as typed.

use rusqlite::types::Value as Sql;

use crate::support::Desk;
use crate::typed::{block, mentioned, shell, typed};

const PAGE: &str = include_str!("../../src/docs/new-board.md");

fn desk() -> Desk {
    let desk = Desk::fleet(&["north"]);
    std::fs::create_dir(desk.path("card")).unwrap();
    desk.run("init new.db --name unused").ok();
    desk.run("init --remove new.db --yes").ok();
    desk.sql(
        "new.db",
        "CREATE TABLE readings (id INTEGER PRIMARY KEY AUTOINCREMENT, value REAL); INSERT INTO readings (value) VALUES (1.5)",
    );
    desk
}

#[test]
fn every_command_of_the_page_is_run() {
    let desk = desk();
    typed(&desk, &block(PAGE, None), |_, _| {});
    assert_eq!(desk.value("base.db", "SELECT count(*) FROM readings"), Sql::Integer(1));
    let fleet = |db: &str| desk.run(&format!("status {db} --json")).json()["fleet"].clone();
    assert_eq!(fleet("new.db"), fleet("base.db"));
}

/// The commands in the list below the block.
#[test]
fn the_other_ways_are_run_too() {
    let desk = desk();
    let ways = mentioned(PAGE);
    assert_eq!(ways.len(), 3, "{ways:?}");
    typed(&desk, &block(PAGE, None)[..4], |_, _| {});
    for way in ways {
        let way = if way.contains("--remove") { format!("{way} --yes") } else { way.to_owned() };
        shell(&desk, &way);
    }
}
