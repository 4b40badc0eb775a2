//! Whoever is new here, and types what is not quite right, or has no room: each message says what happened, to what, and
//! what leads on.

use rusqlite::Connection;

use crate::support::{Desk, has};

/// What is typed first, of an application's database.
const FIRST: [&str; 4] =
    ["init app.db --name app --fleet fleet.key", "track app.db notes", "seal app.db", "exchange app.db card"];

const NOTES: &str = "CREATE TABLE notes (id TEXT PRIMARY KEY, v); INSERT INTO notes VALUES ('told', 1)";

/// A fleet, and a folder for a card.
fn with_card() -> Desk {
    let desk = Desk::new();
    desk.run("fleet new fleet.key").ok();
    std::fs::create_dir(desk.path("card")).unwrap();
    desk
}

/// Whoever is new here gives another file, table or directory than was meant: what is said leads on.
#[test]
fn what_is_not_there_is_named_with_what_is() {
    let desk = Desk::fleet(&["north"]);
    std::fs::write(desk.path("notes.txt"), "no database\n".repeat(100)).unwrap();
    desk.run("init empty.db --name empty").ok();
    for (line, file, said) in [
        ("status notes.txt", "notes.txt", "give the one that the application writes to"),
        (
            "track north.db nosuch",
            "north.db",
            "no such table in this database; there are: readings, settings",
        ),
        ("track empty.db nosuch", "empty.db", "is it the one that the application writes to?"),
        ("exchange north.db nosuch", "nosuch", "is the card mounted, and there?"),
        ("run north.db --config no.toml", "no.toml", "write one, as `packmule run --help` says"),
    ] {
        let ran = desk.run(line);
        assert!(ran.screen.lines().all(|line| line.chars().count() <= 80), "{}", ran.screen);
        has(&ran.refused(file), &[said]);
    }
}

/// A file may not grow any more. The command says so, leaves nothing behind, and does all when there is room. The control: with
/// room for all of it the same command works.
#[test]
fn a_file_that_may_not_grow_is_an_error_and_no_sudden_end() {
    let desk = Desk::fleet(&["north"]);
    let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
                INSERT INTO settings SELECT i, hex(randomblob(50)), NULL FROM n";
    desk.sql("north.db", rows);
    // In blocks of 512 bytes.
    let within = |blocks: u32, line: &str| desk.run_within(&[&format!("-f {blocks}")], line);
    has(&within(80, "seal north.db").refused("north.db"), &["the disk did not take what was written"]);
    desk.run("verify north.db").ok();
    desk.run("seal north.db").ok();
    let before = desk.files();
    has(
        &within(80, "export north.db out.pmb").refused("out.pmb"),
        &["no file may become so large there: a limit (`ulimit -f` shows it)"],
    );
    assert_eq!(desk.files(), before);
    within(1 << 20, "export north.db out.pmb").ok();
    desk.run("import base.db out.pmb").ok();
}

/// An application was killed in the middle of a transaction: what it was told is there, what it was not is gone, whichever
/// journal it had, and nobody need know of it.
#[test]
fn what_a_killed_application_left_is_no_trouble() {
    for (mode, left) in [("wal", "-wal"), ("delete", "-journal")] {
        let desk = with_card();
        let app = Connection::open(desk.path("live.db")).unwrap();
        app.pragma_update(None, "journal_mode", mode).unwrap();
        app.execute_batch("PRAGMA cache_size = 2; PRAGMA wal_autocheckpoint = 0").unwrap();
        app.execute_batch(NOTES).unwrap();
        let many = "BEGIN; WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
                    INSERT INTO notes SELECT 'not told ' || i, randomblob(300) FROM n";
        app.execute_batch(many).unwrap();
        // What is on the disk while it is at work is what is left of it when it is killed.
        for end in ["", left] {
            let copy = |name: &str| desk.path(format!("{name}.db{end}"));
            std::fs::copy(copy("live"), copy("app")).unwrap();
        }
        assert!(
            std::fs::metadata(desk.path(format!("app.db{left}"))).unwrap().len() > 0,
            "the control: {mode}"
        );
        FIRST.iter().for_each(|line| drop(desk.run(line).ok()));
        assert_eq!(desk.rows("app.db", "SELECT id FROM notes").len(), 1, "{mode}");
        desk.run("verify app.db").ok();
    }
}

/// Another program writes, or reads, for long, with a rollback journal: each command says which program to look for, and does
/// its work when that has ended.
#[test]
fn a_database_that_is_not_let_go_of_is_named_with_what_to_do() {
    for holds in ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE", "BEGIN; SELECT * FROM notes"] {
        let desk = with_card();
        desk.sql("app.db", NOTES);
        let app = Connection::open(desk.path("app.db")).unwrap();
        for line in FIRST {
            if !line.starts_with("init") {
                desk.sql("app.db", "PRAGMA journal_mode = DELETE; UPDATE notes SET v = v + 1");
            }
            let mut held = app.prepare(holds.rsplit("; ").next().unwrap()).unwrap();
            if holds.contains("; ") {
                app.execute_batch("BEGIN").unwrap();
            }
            // A statement that has not come to its end holds what it reads.
            let row = held.query([]).unwrap().next().map(|row| row.is_some()).unwrap();
            assert_eq!(row, holds.contains("; "), "the control");
            let said = desk.run(&format!("{line} --wait 0.1")).refused("app.db");
            has(&said, &["locked by another program", "if it is not in WAL mode", "--wait SECONDS"]);
            drop(held);
            app.execute_batch("ROLLBACK").unwrap();
            desk.run(line).ok();
        }
    }
}

/// No file may grow: each of the first commands is done, or says why not and can be typed again when there is room.
#[test]
fn who_has_no_room_at_first_types_the_same_again() {
    for blocks in [1, 40, 120, 200, 400] {
        let desk = with_card();
        desk.sql("app.db", NOTES);
        desk.sql("app.db", "INSERT INTO notes VALUES ('large', randomblob(50000))");
        let mut refused = 0;
        for line in FIRST {
            // In blocks of 512 bytes.
            let ran = desk.run_within(&[&format!("-f {blocks}")], line);
            if ran.status != Some(0) {
                refused += 1;
                assert_eq!(ran.status, Some(1), "{line}: {}", ran.err);
                let says_why =
                    ["disk did not take what was written", "no file may become so large", "disk is full"];
                assert!(
                    says_why.iter().any(|words| ran.err.contains(words)),
                    "{blocks}: {line}: {}",
                    ran.err
                );
                desk.run(line).ok();
            }
            desk.run("verify app.db").ok();
        }
        println!("{blocks} blocks: {refused} refused");
        assert!(refused > 0 || blocks > 200, "the control: {blocks} blocks are enough");
    }
}
