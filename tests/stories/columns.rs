//! What people read fits into 80 columns, also of a fleet with long names and of which all is the matter.

use crate::keys::at_a_terminal_with;
use crate::support::{Desk, has};

const BOARDS: [&str; 3] = ["north-station-on-the-hill", "south-station-by-the-river", "east"];

/// Command lines that stand alone are there to be copied: they stay whole.
const COPIED: [&str; 3] = ["packmule ", "systemctl ", "sudo "];

#[track_caller]
fn fits(line: &str, text: &str) {
    for wide in text.lines().filter(|line| line.chars().count() > 80) {
        let copied = COPIED.iter().any(|program| wide.trim_start().starts_with(program));
        // A command between backquotes stays whole too, on a line of its own.
        let quoted = wide.trim_start().starts_with('`') && wide.matches('`').count() == 2;
        assert!(copied || quoted, "{line}\n{wide}\n{text}");
    }
}

/// A fleet with conflicts of all kinds, a held table, a retired and a revoked board, and rows that wait.
fn fleet() -> Desk {
    let desk = Desk::new();
    std::fs::create_dir(desk.path("card")).unwrap();
    desk.run("fleet new fleet.key").ok();
    desk.run("init base.db --name base --fleet fleet.key --base").ok();
    let long = "set on the phone by somebody who had to guess what it should be at";
    for board in BOARDS {
        let db = format!("{board}.db");
        desk.run(&format!("init {db} --name {board} --fleet fleet.key")).ok();
        desk.sql(
            &db,
            "CREATE TABLE settings (key TEXT PRIMARY KEY, value, note TEXT);
             CREATE TABLE patients (id INTEGER PRIMARY KEY, number TEXT UNIQUE, name TEXT);
             CREATE TABLE visits (id TEXT PRIMARY KEY, patient INTEGER REFERENCES patients, note TEXT);
             CREATE TABLE maintenance_of_measuring_instruments (id TEXT PRIMARY KEY, what TEXT);
             CREATE TABLE readings (id INTEGER PRIMARY KEY AUTOINCREMENT, celsius REAL);",
        );
        let tables = "settings patients visits maintenance_of_measuring_instruments --ids shared";
        desk.run(&format!("track {db} {tables}")).ok();
        desk.run(&format!("track {db} readings --mode per-device --append")).ok();
    }
    let round = |names: &[&str]| {
        for name in names {
            desk.run(&format!("exchange {name}.db card")).ok();
        }
    };
    let all = ["north-station-on-the-hill", "south-station-by-the-river", "east", "base"];
    desk.sql("east.db", "INSERT INTO settings VALUES ('interval', 60, 'factory')");
    round(&all);
    round(&all);
    for (at, board) in BOARDS.iter().enumerate() {
        desk.sql(
            &format!("{board}.db"),
            &format!(
                "UPDATE settings SET value = {at}, note = '{long} {board}';
                 INSERT INTO patients VALUES ({at}, 'A-17', 'Maria {at}');
                 INSERT INTO visits VALUES ('v{at}', {at}, '');
                 INSERT INTO readings (celsius) VALUES (20.5), (20.7)"
            ),
        );
    }
    round(&all);
    desk.sql(
        "base.db",
        "ALTER TABLE maintenance_of_measuring_instruments RENAME COLUMN what TO what_was_done",
    );
    desk.run("retire base.db east").ok();
    desk.run("revoke base.db south-station-by-the-river --fleet fleet.key").ok();
    desk.sql("south-station-by-the-river.db", "UPDATE settings SET value = 666");
    round(&["south-station-by-the-river"]);
    desk
}

#[test]
fn every_screen_fits_into_eighty_columns() {
    let desk = fleet();
    let said: Vec<(&str, String)> = [
        "exchange base.db card",
        "status base.db",
        "status base.db --check",
        "status north-station-on-the-hill.db",
        "devices base.db",
        "conflicts base.db",
        "conflicts base.db --brief",
        "log base.db",
        "log base.db settings interval --values",
        "resolve base.db --all --take newest --dry-run",
        "undo base.db --by north-station-on-the-hill --since 2020-01-01 --dry-run",
        "seal base.db",
        "compact base.db",
        "verify base.db",
        "export base.db base.pmb",
        "inspect base.pmb",
        "import north-station-on-the-hill.db base.pmb",
        "admit base.db --fleet fleet.key",
        "digest base.db",
        "report base.db fleet.html",
        "board",
        "board check --root nowhere",
        "board install --root root",
        "status none.db",
        "track base.db nothing",
        "resolve base.db 0123456789 --take base",
    ]
    .map(|line| (line, desk.run(line).screen))
    .into();
    said.iter().for_each(|(line, text)| fits(line, text));
    let of = |wanted: &str| &said.iter().find(|(line, _)| *line == wanted).unwrap().1;
    // A name that is too long for the columns stands above them.
    let long = of("devices base.db")
        .lines()
        .any(|line| line.starts_with("north-station-on-the-hill-") && line.trim_end().chars().count() < 40);
    assert!(long, "{}", of("devices base.db"));
    has(of("conflicts base.db --brief"), &["unique", "update/update"]);
    has(of("status base.db"), &["to do", "held", "revoked", "retired"]);
}

/// Colour is for terminals that have it, and tells nothing that the words do not.
#[test]
fn colour_is_for_terminals_that_have_it() {
    let (desk, _) = Desk::conflict();
    for line in ["conflicts base.db", "status base.db", "conflicts nothing.db"] {
        let (_, painted) = at_a_terminal_with(&desk, line, &[], &[]);
        assert!(painted.contains("\x1b[") && painted.contains("\x1b[0m"), "{line}: {painted}");
        let bare = |text: &str| {
            ["\x1b[31m", "\x1b[1m", "\x1b[0m"].iter().fold(text.to_owned(), |t, code| t.replace(code, ""))
        };
        for setting in [("NO_COLOR", "1"), ("TERM", "dumb")] {
            let (_, plain) = at_a_terminal_with(&desk, line, &[], &[setting]);
            assert!(!plain.contains('\x1b'), "{line}: {plain}");
            // The clock goes on between the two.
            let said = |text: &str| text.lines().filter(|line| !line.contains("  clock ")).count();
            assert_eq!(said(&bare(&painted)), said(&plain), "{line}");
        }
        assert!(!desk.run(line).screen.contains('\x1b'), "{line}");
    }
}

/// The first screen of a terminal, 24 lines, says what matters: the counts stand at its top, then what to do.
#[test]
fn the_first_screen_of_status_has_what_matters() {
    let desk = fleet();
    let status = desk.run("status north-station-on-the-hill.db").screen;
    assert!(status.lines().count() <= 24, "{status}");
    has(&status, &["device", "fingerprint", "log", "conflicts", "to do", "tables"]);
    let brief = desk.run("conflicts base.db --brief").screen;
    assert!(brief.lines().count() <= 24, "{brief}");
}
