//! The page of the forms of migration: each row of its table is played, on one board and on all, and what it proposes.

use crate::card::{rounds, status};
use crate::support::Desk;
use crate::typed::shell;

const PAGE: &str = include_str!("../../src/docs/migrations.md");

const BOARDS: [&str; 2] = ["north", "east"];
const ALL: [&str; 3] = ["north", "east", "base"];

/// A row of the page's table.
struct Form {
    runs: &'static str,
    one: &'static str,
    all: &'static str,
    otherwise: &'static str,
}

fn forms() -> Vec<Form> {
    let rows = PAGE.lines().filter(|line| line.starts_with("| ")).skip(1);
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let &["", runs, one, all, otherwise, ""] = &cells[..] else { panic!("{row}") };
        Form { runs, one, all, otherwise }
    })
    .collect()
}

/// What is done on a board: what stands in the cell, or what its words mean.
fn script(cell: &str) -> String {
    if let Some(code) = cell.split('`').nth(1) {
        return code.to_owned();
    }
    let anew = |columns: &str, from: &str| {
        format!(
            "PRAGMA foreign_keys = OFF; BEGIN; CREATE TABLE new_settings ({columns});
             INSERT INTO new_settings SELECT {from} FROM settings; DROP TABLE settings;
             ALTER TABLE new_settings RENAME TO settings; COMMIT"
        )
    };
    let plain = "key TEXT PRIMARY KEY, value, note TEXT";
    match cell {
        "make it anew, the same" => anew(plain, "key, value, note"),
        "make it anew, with rows altered" => anew(plain, "key, value + 10, note"),
        "make it anew, a column of another type" => {
            anew("key TEXT PRIMARY KEY, value TEXT, note TEXT", "key, value, note")
        }
        "make it anew, with another key" => {
            anew("key TEXT, value, note TEXT, PRIMARY KEY (key, note)", "key, value, note")
        }
        "drop it, and create it with some of its rows" => format!(
            "DROP TABLE settings; CREATE TABLE settings ({plain}); INSERT INTO settings VALUES ('interval', 60, 'a')"
        ),
        _ => panic!("the page says what no test knows: {cell}"),
    }
}

/// A fleet in step, of which north runs a migration alone; east has written meanwhile.
fn migrated(form: &Form) -> Desk {
    let desk = Desk::fleet(&BOARDS);
    std::fs::create_dir(desk.path("card")).unwrap();
    desk.sql(
        "north.db",
        "INSERT INTO settings VALUES ('interval', 60, 'a'), ('place', 1, 'b'), ('old', 2, 'c')",
    );
    rounds(&desk, &ALL, 2);
    desk.sql("east.db", "UPDATE settings SET note = 'edited' WHERE key = 'place'");
    desk.run("seal east.db").ok();
    desk.sql("north.db", &script(form.runs));
    desk.sql("north.db", "INSERT INTO readings (value) VALUES (1.5)");
    rounds(&desk, &ALL, 2);
    desk
}

fn is_held(desk: &Desk, board: &str) -> bool {
    let status = status(desk, board);
    let settings = status["tables"].as_array().unwrap().iter().find(|table| table["name"] == "settings");
    settings.unwrap_or_else(|| panic!("{board}: {status}"))["how"] == "held"
}

/// All show the same. What waits or is held is named on standard error.
#[track_caller]
fn are_alike(desk: &Desk, names: &[&str]) {
    let digests: Vec<String> = names.iter().map(|name| desk.run(&format!("digest {name}.db")).out).collect();
    assert!(digests.windows(2).all(|pair| pair[0] == pair[1]), "{names:?} {digests:?}");
}

/// The table goes on everywhere, alike, with what east wrote.
#[track_caller]
fn goes_on(desk: &Desk, form: &Form) {
    are_alike(desk, &ALL);
    for name in ALL {
        assert!(!is_held(desk, name), "{}: {name}", form.runs);
        let db = format!("{name}.db");
        desk.run(&format!("verify {db}")).ok();
        assert!(desk.run(&format!("conflicts {db}")).ok().contains("no conflict is open"), "{}", form.runs);
        let all = desk.rows(&db, "SELECT * FROM settings WHERE key = 'place'");
        // A row that every board leaves out is gone.
        let kept = !form.runs.starts_with("drop it");
        assert_eq!(format!("{all:?}").contains("edited"), kept, "{}: {name}: {all:?}", form.runs);
    }
}

#[test]
fn each_form_does_on_one_board_and_on_all_what_the_page_says() {
    for form in forms() {
        let desk = migrated(&form);
        let readings = desk.rows("base.db", "SELECT 1 FROM readings").len();
        assert_eq!(readings, 1, "{}: no other table waits with it", form.runs);
        assert_eq!(is_held(&desk, "north"), form.one.starts_with("held"), "{}", form.runs);
        // A table that nobody can follow is left out on its board alone, by name.
        are_alike(&desk, if form.all.starts_with("held") { &ALL[1..] } else { &ALL });
        let place = desk.rows("base.db", "SELECT * FROM settings WHERE key = 'place'");
        let place = format!("{place:?}");
        assert!(place.contains("edited") && place.contains("Integer(1)"), "{}: {place}", form.runs);
        desk.sql("east.db", &script(form.runs));
        rounds(&desk, &ALL, 3);
        match form.all.starts_with("held") {
            true => BOARDS.iter().for_each(|board| assert!(is_held(&desk, board), "{}: {board}", form.runs)),
            false => goes_on(&desk, &form),
        }
    }
}

#[test]
fn what_the_page_proposes_leads_on() {
    for form in forms().iter().filter(|form| !form.otherwise.is_empty()) {
        let desk = migrated(form);
        let way = script(form.otherwise);
        match way.starts_with("packmule ") {
            true => drop(shell(&desk, &way)),
            false => desk.sql("north.db", &way),
        }
        rounds(&desk, &ALL, 3);
        if way.starts_with("packmule untrack") {
            assert_eq!(desk.rows("base.db", "SELECT 1 FROM settings").len(), 3, "they stay elsewhere");
            are_alike(&desk, &["east", "base"]);
        } else {
            goes_on(&desk, form);
        }
    }
}
