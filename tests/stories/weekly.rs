//! The page of the weekly round: every command on it, as typed.

use rusqlite::types::Value as Sql;

use crate::card::rounds;
use crate::support::Desk;
use crate::typed::{block, typed};

const PAGE: &str = include_str!("../../src/docs/weekly.md");

#[test]
fn every_command_of_the_page_is_run() {
    let desk = Desk::fleet(&["north", "east"]);
    std::fs::create_dir(desk.path("card")).unwrap();
    std::fs::create_dir(desk.path("backup")).unwrap();
    // Two weeks: the second finds the files of the first.
    for week in 1..=2 {
        for board in ["north", "east"] {
            desk.sql(&format!("{board}.db"), "INSERT INTO readings (value) VALUES (21.5)");
        }
        rounds(&desk, &["north", "east"], 1);
        typed(&desk, &block(PAGE, None), |_, _| {});
        assert_eq!(desk.value("base.db", "SELECT count(*) FROM readings"), Sql::Integer(2 * week));
        assert_eq!(desk.run("digest backup/base.db").ok(), desk.run("digest base.db").ok());
    }
}
