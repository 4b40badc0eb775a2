//! Whoever is new here, and types what is not quite right, or has no room: each message says what happened, to what, and
//! what leads on.

use crate::support::{Desk, has};

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
