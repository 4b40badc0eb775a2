//! What was overwritten: seen, and brought back.

use crate::support::{Desk, has};

/// A base and two boards that have the same settings.
fn fleet() -> Desk {
    let desk = Desk::fleet(&["north", "south"]);
    desk.sql(
        "north.db",
        "INSERT INTO settings VALUES ('interval', 60, ''), ('unit', 'C', ''), ('old', 1, '')",
    );
    for (from, to) in [("north", "base"), ("base", "south"), ("south", "base")] {
        desk.carry(from, to);
    }
    desk
}

const ROWS: &str = "SELECT key, value, note FROM settings ORDER BY key";

#[test]
fn what_a_stolen_board_wrote_is_taken_back_in_one_command() {
    let desk = fleet();
    let before = desk.rows("base.db", ROWS);
    desk.sql(
        "north.db",
        "UPDATE settings SET value = 666, note = 'ha'; DELETE FROM settings WHERE key = 'old';
         INSERT INTO settings VALUES ('evil', 1, '')",
    );
    desk.carry("north", "base");
    // The board wrote before the theft too; since when is by its clock.
    let groups = desk.run("log base.db settings --by north --json").json();
    let theft = groups["groups"].as_array().unwrap().last().unwrap()["at"].as_str().unwrap().to_owned();
    let line = format!("undo base.db --by north --since {theft}");
    has(
        &desk.run(&format!("{line} --dry-run")).ok(),
        &["4 rows would be as they were before", "nothing has changed"],
    );
    let undone = desk.run(&line).ok();
    has(&undone, &["settings: key = evil is deleted", "4 rows are as they were before"]);
    assert!(!undone.contains("conflict"), "{undone}");
    assert_eq!(desk.rows("base.db", ROWS), before);
    desk.carry("base", "south");
    assert_eq!(desk.rows("south.db", ROWS), before);
    assert_eq!(desk.run("digest base.db").ok(), desk.run("digest south.db").ok());
    has(&desk.run("undo base.db --by north").usage(), &["--since TIME"]);
}

/// Who brings rows back is told if that leaves conflicts open.
#[test]
fn what_is_brought_back_says_that_conflicts_are_open() {
    let desk = fleet();
    desk.sql("base.db", "CREATE TABLE notes (id TEXT PRIMARY KEY, about TEXT REFERENCES settings (key))");
    desk.run("track base.db notes").ok();
    let frame = desk.run("log base.db settings interval --json").json()["groups"][0]["frames"][0].clone();
    desk.sql("north.db", "INSERT INTO settings VALUES ('evil', 1, '')");
    desk.carry("north", "base");
    desk.sql("base.db", "INSERT INTO notes VALUES ('n', 'evil')");
    desk.run("seal base.db").ok();
    let open = "1 conflict is open: `packmule conflicts base.db`";
    has(&desk.run("undo base.db --by north --since 1h").ok(), &["evil is deleted", open]);
    let line = format!("restore base.db settings interval --from north:{frame}");
    has(&desk.run(&line).ok(), &[open]);
    assert_eq!(desk.run(&format!("{line} --json")).json()["conflicts_open"], 1);
}

/// What was there before each write is what its author had there: of two that had not seen each other's, both have the same.
#[test]
fn the_log_tells_what_was_there_before() {
    let desk = Desk::fleet(&["north"]);
    desk.sql("north.db", "INSERT INTO settings VALUES ('lamp', 1, 'dim'), ('fan', 5, NULL)");
    desk.carry("north", "base");
    desk.carry("base", "north");
    desk.sql("base.db", "UPDATE settings SET value = 2 WHERE key = 'lamp'");
    desk.sql("north.db", "UPDATE settings SET value = 3, note = 'bright' WHERE key = 'lamp'; DELETE FROM settings WHERE key = 'fan'");
    desk.carry("north", "base");
    let told = ["value = 2 (was 1)", "value = 3 (was 1), note = bright (was dim)"];
    for of in ["", " settings lamp"] {
        let log = desk.run(&format!("log base.db{of} --values")).ok();
        told.iter().for_each(|line| assert!(log.contains(line), "{line}\n{log}"));
        assert!(!log.contains("(was 2)") && !log.contains("(was 3)"), "{log}");
    }
    has(&desk.run("log base.db --values").ok(), &["delete settings key = fan (was value = 5, note = NULL)"]);
    // Cells that were written side by side have both been seen by who writes next.
    desk.sql(
        "base.db",
        "CREATE TABLE beds (id PRIMARY KEY, floor, side); INSERT INTO beds VALUES (1, 0, 'l')",
    );
    desk.run("track base.db beds --merge cell").ok();
    desk.carry("base", "north");
    desk.sql("base.db", "UPDATE beds SET floor = 7");
    desk.sql("north.db", "UPDATE beds SET side = 'r'");
    desk.carry("north", "base");
    desk.sql("base.db", "UPDATE beds SET floor = 8, side = 'm'");
    desk.run("seal base.db").ok();
    let log = desk.run("log base.db beds --values").ok();
    has(log.lines().last().unwrap(), &["floor = 8 (was 7), side = m (was r)"]);
    // Who decides has seen both, and replaces what was shown; without --values nothing of it is told.
    desk.run("resolve base.db --all --set value=4").ok();
    let log = desk.run("log base.db settings lamp --values").ok();
    has(log.lines().last().unwrap(), &["value = 4 (was "]);
    assert!(!desk.run("log base.db settings lamp").ok().contains("was"));
    let groups = desk.run("log base.db settings lamp --values --json").json()["groups"].clone();
    assert!(
        groups.as_array().unwrap().iter().any(|group| group["rows"][0]["before"]["note"] == "dim"),
        "{groups}"
    );
}

#[test]
fn an_old_version_is_written_anew() {
    let desk = fleet();
    let groups = desk.run("log base.db settings interval --json").json();
    let frame = groups["groups"][0]["frames"][0].as_u64().unwrap();
    desk.sql("base.db", "UPDATE settings SET value = 5 WHERE key = 'interval'");
    // Said before: nothing is written, nor sealed.
    let before = desk.dump("base.db");
    has(
        &desk.run(&format!("restore base.db settings interval --from north:{frame} --dry-run")).ok(),
        &["settings: key = interval: value = 60", "so it would be; nothing has changed"],
    );
    assert_eq!(desk.dump("base.db"), before);
    has(
        &desk.run(&format!("restore base.db settings interval --from north:{frame}")).ok(),
        &["settings: key = interval: value = 60"],
    );
    has(
        &desk.run(&format!("restore base.db settings interval --from north:{frame}")).ok(),
        &["the row is so already"],
    );
    desk.sql("base.db", "DELETE FROM settings WHERE key = 'unit'");
    has(
        &desk.run(&format!("restore base.db settings unit --from north:{frame}")).ok(),
        &["comes back: value = C"],
    );
    desk.carry("base", "south");
    assert_eq!(desk.rows("base.db", ROWS), desk.rows("south.db", ROWS));
    has(&desk.run("restore base.db settings interval --from north:999").refused("base.db"), &["frame 999"]);
    has(&desk.run("restore base.db settings interval").usage(), &["--from DEVICE:FRAME"]);
}

/// A group of several frames is shown as one, so any of its frames stands for what it says of a row.
#[test]
fn an_old_version_is_found_by_any_frame_of_its_group() {
    let desk = fleet();
    desk.sql(
        "base.db",
        "UPDATE settings SET value = 5 WHERE key = 'interval';
         INSERT INTO settings VALUES ('a large one', hex(randomblob(100000)), ''), ('z', 1, '')",
    );
    desk.run("seal base.db").ok();
    let groups = desk.run("log base.db settings interval --by base --json").json();
    let frames = &groups["groups"][0]["frames"];
    let (first, last) = (frames[0].as_u64().unwrap(), frames[1].as_u64().unwrap());
    assert!(last > first, "the control: {groups}");
    for frame in first..=last {
        desk.sql("base.db", "UPDATE settings SET value = 7 WHERE key = 'interval'");
        let line = format!("restore base.db settings interval --from base:{frame}");
        has(&desk.run(&line).ok(), &["settings: key = interval: value = 5"]);
    }
}

/// What was written and is not sealed is not in the log: it says so, of the table that is asked for, and what to do.
#[test]
fn what_is_not_sealed_yet_is_said_where_it_is_looked_for() {
    let desk = fleet();
    let hint = "writes since the last seal are not in the log yet";
    desk.sql("base.db", "INSERT INTO settings VALUES ('new', 1, '')");
    for line in ["log base.db settings new", "log base.db settings interval", "log base.db"] {
        let ran =
            desk.run(line).proposes("writes since the last seal are not in the log yet: `packmule seal *`");
        has(&ran.ok(), &[hint]);
    }
    has(&desk.run("log base.db settings new").ok(), &["nothing in the log of that"]);
    let other = desk.run("log base.db readings").ok();
    assert!(!other.contains(hint), "{other}");
    desk.run("seal base.db").ok();
    let sealed = desk.run("log base.db settings new").ok();
    assert!(!sealed.contains(hint), "{sealed}");
}

#[test]
fn the_tables_as_they_were() {
    let desk = fleet();
    desk.sql("base.db", "UPDATE settings SET value = 5");
    has(&desk.run("at base.db 2020-01-01 then.db").refused("base.db"), &["not sealed"]);
    desk.run("seal base.db").ok();
    // Long ago there was nothing; of the far future all is as it is.
    has(&desk.run("at base.db 2020-01-01 then.db").ok(), &["3 rows written to since"]);
    assert_eq!(desk.rows("then.db", ROWS), desk.rows("then.db", "SELECT 1, 2, 3 WHERE 0"));
    desk.run("at base.db 2099-01-01 later.db").ok();
    assert_eq!(desk.rows("later.db", ROWS), desk.rows("base.db", ROWS));
    let ours = "SELECT name FROM sqlite_schema WHERE name GLOB '_pm_*'";
    assert_eq!(desk.rows("then.db", ours), desk.rows("then.db", "SELECT 1 WHERE 0"));
    has(&desk.run("at base.db 2020-01-01 then.db").refused("base.db"), &["is there already"]);
    has(&desk.run("at base.db 2020-01-01 nowhere/then.db").refused("nowhere/then.db"), &["no such file"]);
    for wrong in ["yesterday", "2026-02-30", "12x"] {
        has(&desk.run(&format!("at base.db {wrong} other.db")).usage(), &[wrong, "is not a time", "12h"]);
    }
    // How long ago is a time too.
    desk.run("at base.db 9999d long.db").ok();
    assert_eq!(desk.rows("long.db", ROWS), desk.rows("then.db", ROWS));
    desk.run("at base.db 0s now.db").ok();
    assert_eq!(desk.rows("now.db", ROWS), desk.rows("base.db", ROWS));
    let since = |time: &str| desk.run(&format!("log base.db --since {time} --json")).json()["groups"].clone();
    assert_eq!((since("9999d"), since("0s")), (since("2000-01-01"), serde_json::json!([])));
}

#[test]
fn the_tables_as_they_were_before_a_column_was_renamed() {
    let desk = Desk::fleet(&["north"]);
    desk.carry("north", "base");
    desk.sql("base.db", "INSERT INTO settings VALUES ('interval', 60, '')");
    desk.carry("base", "north");
    let groups = desk.run("log base.db settings --json").json();
    let written = groups["groups"].as_array().unwrap().last().unwrap()["at"].as_str().unwrap().to_owned();
    for name in ["base", "north"] {
        desk.sql(&format!("{name}.db"), "ALTER TABLE settings RENAME COLUMN value TO amount");
    }
    for (from, to) in [("base", "north"), ("north", "base"), ("base", "north")] {
        desk.carry(from, to);
    }
    desk.sql("base.db", "UPDATE settings SET amount = 5");
    desk.run("seal base.db").ok();
    desk.run(&format!("at base.db {written} then.db")).ok();
    assert_eq!(
        desk.rows("then.db", "SELECT key, amount FROM settings"),
        desk.rows("base.db", "SELECT 'interval', 60")
    );
}

/// Who took a thief's version had not heard of the theft: what the thief wrote is taken back with it.
#[test]
fn a_version_that_somebody_took_from_a_thief_is_taken_back_too() {
    let (desk, id) = Desk::conflict();
    desk.run(&format!("resolve base.db {id} --take east")).ok();
    desk.carry("base", "north");
    assert_eq!(desk.value("north.db", "SELECT value FROM settings"), rusqlite::types::Value::Integer(10));
    desk.run("undo base.db --by east --since 2026-01-01").ok();
    for (from, to) in [("base", "north"), ("north", "base")] {
        desk.carry(from, to);
    }
    assert_eq!(desk.value("north.db", "SELECT value FROM settings"), rusqlite::types::Value::Integer(30));
    // What somebody decided otherwise stays.
    desk.sql("base.db", "UPDATE settings SET value = 77");
    let said = desk.run("undo base.db --by east --since 2026-01-01").ok();
    has(&said, &["nothing"]);
    assert_eq!(desk.value("base.db", "SELECT value FROM settings"), rusqlite::types::Value::Integer(77));
}

/// The log tells by which way each group came, also long after; what was written here has none.
#[test]
fn the_log_has_the_ways_by_which_groups_came() {
    let desk = Desk::fleet(&["north", "south", "east"]);
    std::fs::create_dir(desk.path("card")).unwrap();
    for (board, key) in [("north", "a"), ("south", "b"), ("east", "c")] {
        desk.sql(&format!("{board}.db"), &format!("INSERT INTO settings VALUES ('{key}', 1, '')"));
    }
    desk.run("exchange north.db card").ok();
    desk.run("exchange base.db card").ok();
    desk.carry("south", "base");
    desk.run("seal east.db").ok();
    desk.run("merge base.db east.db").ok();
    desk.sql("base.db", "INSERT INTO settings VALUES ('d', 1, '')");
    desk.run("seal base.db").ok();
    for (key, way) in [("a", Some("card")), ("b", Some("file")), ("c", Some("database")), ("d", None)] {
        let said = desk.run(&format!("log base.db settings {key}")).ok();
        match way {
            Some(way) => has(&said, &[", 1 row, by ", way]),
            None => assert!(!said.contains(", by "), "{said}"),
        }
        let group = desk.run(&format!("log base.db settings {key} --json")).json()["groups"][0].clone();
        assert_eq!(group["route"].as_str(), way, "{group}");
        assert_eq!(group["came"].is_null(), way.is_none(), "{group}");
    }
    // Again by another way changes nothing: it was here.
    desk.carry("north", "base");
    has(&desk.run("log base.db settings a").ok(), &["by card"]);
    // A network, from one end to the other.
    desk.sql("north.db", "INSERT INTO settings VALUES ('e', 1, '')");
    let command = format!("exec:{} serve base.db --stdio", crate::support::PACKMULE);
    desk.run_words(&["sync", "north.db", &command]).ok();
    has(&desk.run("log base.db settings e").ok(), &["by network"]);
    // North has it by the card from whoever wrote it.
    desk.run("exchange south.db card").ok();
    has(&desk.run("log south.db settings a").ok(), &["by card"]);
}

/// Who looks for what was written finds that, without definitions and what devices say of themselves.
#[test]
fn the_log_leaves_out_groups_without_rows_unless_all_are_asked_for() {
    let desk = fleet();
    let all = desk.run("log base.db --all").ok();
    let (bare, with_rows): (Vec<&str>, Vec<&str>) = all.lines().partition(|line| line.contains(", 0 rows"));
    assert!(bare.len() > 1 && !with_rows.is_empty(), "{all}");
    assert_eq!(desk.run("log base.db").ok().lines().collect::<Vec<_>>(), with_rows);
    let groups = desk.run("log base.db --json").json()["groups"].as_array().unwrap().len();
    assert_eq!(groups, bare.len() + with_rows.len());
    has(&desk.run("log base.db --since 2999-01-01").ok(), &["nothing in the log of that"]);
    let fresh = Desk::fleet(&["new"]);
    fresh.run("seal new.db").ok();
    has(&fresh.run("log new.db").ok(), &["nothing in the log but groups without rows, which --all shows"]);
}

/// Values that go in pieces: what was written is told by length and hash, and brought back whole by each command that
/// brings back, also over a value that is long itself. What is longer than 1 MiB stays, and is counted.
#[test]
fn long_values_are_seen_and_brought_back_whole() {
    for (bytes, comes_back) in [(30_000, true), (300_000, true), (1_100_000, false)] {
        let desk = fleet();
        let write = |db: &str, n: u8| {
            desk.sql(db, &format!("UPDATE settings SET note = printf('%.{bytes}c', '{n}')"))
        };
        write("base.db", 1);
        desk.carry("base", "north");
        let groups = desk.run("log base.db settings --by base --json").json();
        let last = groups["groups"].as_array().unwrap().last().unwrap();
        let (frame, at) = (last["frames"][1].as_u64().unwrap(), last["at"].as_str().unwrap());
        let rows = |db: &str| {
            desk.rows(db, "SELECT key, value, length(note), substr(note, 9, 1) FROM settings ORDER BY key")
        };
        let whole = rows("base.db");
        write("north.db", 2);
        desk.sql("north.db", "DELETE FROM settings WHERE key = 'old'");
        desk.carry("north", "base");
        let seen = desk.run("log base.db settings unit --values").ok();
        assert_eq!(seen.matches(&format!("note = TEXT of {bytes} bytes, SHA-256 ")).count(), 2, "{seen}");
        let groups = desk.run("log base.db settings --by north --json").json();
        let theft = groups["groups"].as_array().unwrap().last().unwrap()["at"].as_str().unwrap().to_owned();
        let before = desk.run(&format!("at base.db {at} before.db")).ok();
        let undo = desk.run(&format!("undo base.db --by north --since {theft}")).ok();
        let restore = format!("restore base.db settings unit --from base:{frame}");
        if comes_back {
            assert_eq!(rows("before.db"), whole);
            has(&undo, &["3 rows are as they were before"]);
            assert_eq!(rows("base.db"), whole);
            desk.sql("base.db", "UPDATE settings SET note = 'short' WHERE key = 'unit'");
            has(&desk.run(&restore).ok(), &["settings: key = unit: note = TEXT of"]);
            assert_eq!(rows("base.db"), whole);
            has(&desk.run(&restore).ok(), &["the row is so already"]);
            desk.carry("base", "south");
            assert_eq!(desk.run("digest south.db").ok(), desk.run("digest base.db").ok());
        } else {
            has(&before, &["3 of these rows are as they are now", "or too large"]);
            has(&undo, &["3 rows stay as they are", "or too large"]);
            has(&desk.run(&restore).refused("base.db"), &["longer than 1 MiB"]);
        }
    }
}
