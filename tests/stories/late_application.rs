//! The page of an application that starts where Packmule has made its tables: every command on it, as typed.

use crate::card::{are_equal, rounds};
use crate::support::{Desk, has};
use crate::typed::{block, typed};

const PAGE: &str = include_str!("../../src/docs/late-application.md");

const APPLICATION: &str =
    "CREATE TABLE settings (key TEXT PRIMARY KEY, value INTEGER NOT NULL DEFAULT 0 CHECK (value >= 0), note TEXT);
     CREATE INDEX by_note ON settings (note);";

/// A base whose application made the table, and a board that got it from Packmule.
fn desk() -> Desk {
    let desk = Desk::new();
    std::fs::create_dir(desk.path("card")).unwrap();
    std::fs::write(desk.path("settings.sql"), APPLICATION).unwrap();
    desk.run("fleet new fleet.key").ok();
    desk.run("init base.db --name base --fleet fleet.key --base").ok();
    desk.sql(
        "base.db",
        &format!("{APPLICATION} INSERT INTO settings VALUES ('interval', 60, 's'), ('place', 2, 'hall')"),
    );
    desk.run("track base.db settings").ok();
    desk.run("init board.db --name board --fleet fleet.key").ok();
    rounds(&desk, &["base", "board"], 2);
    desk
}

#[test]
fn every_command_of_the_page_is_run() {
    let desk = desk();
    let before = desk.run("digest board.db").ok();
    let lines = block(PAGE, None);
    let printed = typed(&desk, &lines, |_, _| ());
    assert_eq!(printed.last(), Some(&before));
    rounds(&desk, &["base", "board"], 1);
    are_equal(&desk, &["base", "board"]);
    let trace = desk.run("log board.db --by board").ok();
    assert!(!trace.contains("settings"), "nothing of it was written by the board: {trace}");
    let db = rusqlite::Connection::open(desk.path("board.db")).unwrap();
    assert!(
        db.execute("INSERT INTO settings VALUES ('x', -1, '')", []).is_err(),
        "the application's own rule holds"
    );
    // The next version of the application, at the base first: the board's application adds the column itself.
    let migration = "ALTER TABLE settings ADD COLUMN unit TEXT";
    desk.sql("base.db", &format!("{migration}; UPDATE settings SET unit = 's' WHERE key = 'interval'"));
    rounds(&desk, &["base", "board"], 1);
    has(&desk.run("status board.db").ok(), &["`unit`"]);
    desk.sql("board.db", &format!("{migration}; INSERT INTO settings VALUES ('own', 1, '', 'm')"));
    rounds(&desk, &["board", "base", "board"], 2);
    are_equal(&desk, &["base", "board"]);
    assert_eq!(desk.rows("board.db", "SELECT key FROM settings WHERE unit = 's'").len(), 1);
}

/// What the page says of a board that is left as it is: the application's plain CREATE TABLE fails, and a column of others
/// comes before its migration.
#[test]
fn what_happens_where_nobody_types_anything() {
    let desk = desk();
    let app = |sql: &str| rusqlite::Connection::open(desk.path("board.db")).unwrap().execute_batch(sql);
    let refused = app(APPLICATION).unwrap_err().to_string();
    assert!(refused.contains("table settings already exists"), "{refused}");
    app(&APPLICATION.replace("TABLE", "TABLE IF NOT EXISTS").replace("INDEX", "INDEX IF NOT EXISTS"))
        .unwrap();
    let migration = "ALTER TABLE settings ADD COLUMN unit TEXT";
    desk.sql("base.db", migration);
    rounds(&desk, &["base", "board"], 1);
    let refused = app(migration).unwrap_err().to_string();
    assert!(refused.contains("duplicate column name"), "{refused}");
    are_equal(&desk, &["base", "board"]);
}
