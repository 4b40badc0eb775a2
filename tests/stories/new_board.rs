//! The page of a new board: every command on it, as typed.

use std::path::Path;
use std::process::Command;

use rusqlite::types::Value as Sql;

use crate::support::{Desk, PACKMULE, has};

const PAGE: &str = include_str!("../../src/docs/new-board.md");

fn block() -> Vec<&'static str> {
    let block = PAGE.split("```").nth(1).unwrap();
    block.lines().filter(|line| line.starts_with("packmule ")).collect()
}

pub fn shell(desk: &Desk, line: &str) -> String {
    let program = Path::new(PACKMULE).parent().unwrap().display();
    let path = format!("{program}:{}", std::env::var("PATH").unwrap_or_default());
    let mut shell = Command::new("sh");
    shell.args(["-c", line]).current_dir(desk.path("")).env("PATH", path);
    let ran = shell.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{line}\n{out}{err}");
    out.into_owned()
}

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
    let mut said = Vec::new();
    for line in block() {
        said.push(shell(&desk, line));
        if let Some((_, shows)) = line.split_once("# -> ") {
            has(said.last().unwrap(), &[shows]);
        }
    }
    assert_eq!(desk.value("base.db", "SELECT count(*) FROM readings"), Sql::Integer(1));
    let fleet = |db: &str| desk.run(&format!("status {db} --json")).json()["fleet"].clone();
    assert_eq!(fleet("new.db"), fleet("base.db"));
}

/// The commands in the list below the block.
#[test]
fn the_other_ways_are_run_too() {
    let desk = desk();
    let all = PAGE.rsplit("```").next().unwrap();
    let ways: Vec<&str> =
        all.split('`').skip(1).step_by(2).filter(|code| code.starts_with("packmule ")).collect();
    assert_eq!(ways.len(), 3, "{ways:?}");
    for line in block().iter().take(4) {
        shell(&desk, line);
    }
    for way in ways {
        let way = if way.contains("--remove") { format!("{way} --yes") } else { way.to_owned() };
        shell(&desk, &way);
    }
}
