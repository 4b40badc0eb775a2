//! A board whose key is in wrong hands, or whose database is not what it should be: it lies about what it has, and about
//! what the tables are. It harms itself, and who begins by its word.

use rusqlite::types::Value as Sql;

use crate::card::{are_equal, exchange, fingerprint, rounds, status};
use crate::line::{line, synced};
use crate::support::{Desk, has};

const HONEST: [&str; 3] = ["north", "east", "base"];

fn fleet() -> Desk {
    let desk = Desk::fleet(&["north", "liar", "east"]);
    ["card", "other"].iter().for_each(|card| std::fs::create_dir(desk.path(card)).unwrap());
    desk.sql(
        "north.db",
        "INSERT INTO settings VALUES ('a', 1, ''); INSERT INTO readings (value) VALUES (1), (2)",
    );
    rounds(&desk, &["north", "liar", "east", "base"], 2);
    desk
}

/// It says that it has all of everybody, and more than there is; who hears it compacts right after that.
#[test]
fn who_says_that_it_has_what_it_has_not_harms_itself_alone() {
    for by_line in [false, true] {
        let desk = fleet();
        let before = HONEST.map(|name| fingerprint(&desk, name));
        desk.sql(
            "north.db",
            "UPDATE settings SET value = 2; INSERT INTO settings VALUES ('b', 2, '');
             INSERT INTO readings (value) VALUES (3), (4)",
        );
        desk.run("seal north.db").ok();
        desk.sql(
            "liar.db",
            "UPDATE _pm_stream SET seq = seq + 100
             WHERE dev IN (SELECT n FROM _pm_device WHERE name IN ('north', 'east', 'base'))",
        );
        if by_line {
            line(&desk, "liar", "north");
        } else {
            for device in ["liar", "north"] {
                desk.run(&format!("exchange {device}.db other")).ok();
            }
        }
        desk.run("compact north.db").ok();
        // It goes on lying to everybody.
        for name in ["north", "east", "base", "north", "base"] {
            if by_line {
                line(&desk, "liar", name);
                let other = if name == "base" { "east" } else { "base" };
                synced(&desk, name, other);
            } else {
                desk.run("exchange liar.db card").ok();
                exchange(&desk, name);
            }
        }
        rounds(&desk, &HONEST, 2);
        are_equal(&desk, &HONEST);
        let readings =
            desk.value("base.db", "SELECT group_concat(value) FROM (SELECT value FROM readings ORDER BY 1)");
        assert_eq!(readings, Sql::Text("1.0,2.0,3.0,4.0".into()), "by line: {by_line}");
        assert_eq!(desk.value("east.db", "SELECT count(*) FROM settings"), Sql::Integer(2));
        for (name, before) in HONEST.iter().zip(&before) {
            assert_eq!(fingerprint(&desk, name), *before);
            assert_eq!(status(&desk, name)["waits"], serde_json::json!([]), "{name}");
            desk.run(&format!("verify {name}.db")).ok();
        }
    }
}

/// All is folded, and a newcomer meets the liar first, whose tables are not what the log makes of them. It has that on the
/// liar's word, and is told so; the others are what they were, and take nothing of it.
#[test]
fn who_lies_in_a_state_harms_who_begins_by_it_and_is_named() {
    let desk = fleet();
    desk.sql("north.db", "INSERT INTO settings VALUES ('b', 1, ''), ('c', 1, '')");
    rounds(&desk, &["north", "liar", "east", "base"], 3);
    for name in ["north", "liar", "east", "base"] {
        desk.run(&format!("compact {name}.db")).ok();
    }
    // Behind the back of the triggers.
    let triggers = "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 'settings'";
    let triggers = desk.rows("liar.db", triggers);
    let text = |value: &Sql| match value {
        Sql::Text(text) => text.clone(),
        other => panic!("{other:?}"),
    };
    triggers.iter().for_each(|t| desk.sql("liar.db", &format!("DROP TRIGGER \"{}\"", text(&t[0]))));
    desk.sql(
        "liar.db",
        "UPDATE settings SET value = 666 WHERE key = 'a'; DELETE FROM settings WHERE key = 'b';
         INSERT INTO settings VALUES ('x', 666, '')",
    );
    triggers.iter().for_each(|t| desk.sql("liar.db", &text(&t[1])));
    let begins = |name: &str| {
        desk.run(&format!("init {name}.db --name {name} --fleet fleet.key")).ok();
        desk.sql(&format!("{name}.db"), "CREATE TABLE settings (key TEXT PRIMARY KEY, value, note TEXT)");
        desk.run(&format!("track {name}.db settings")).ok();
    };
    begins("new");
    desk.sql("new.db", "INSERT INTO settings VALUES ('own', 5, '')");
    for device in ["new", "liar", "new"] {
        desk.run(&format!("exchange {device}.db other")).ok();
    }
    let shown = "SELECT group_concat(key || value) FROM (SELECT key, value FROM settings ORDER BY key)";
    assert_eq!(desk.value("new.db", shown), Sql::Text("a666,c1,own5,x666".into()));
    let listed = desk.run("devices new.db").ok();
    has(&listed, &["3 rows came in a state that liar-", "on its word"]);
    rounds(&desk, &["new", "north", "liar", "east", "base"], 3);
    let true_rows = Sql::Text("a1,b1,c1,own5".into());
    for name in HONEST {
        assert_eq!(desk.value(&format!("{name}.db"), shown), true_rows, "{name}");
    }
    are_equal(&desk, &HONEST);
    // It is found by its digest, and begins again where somebody can be believed; its own row is everywhere already.
    assert_ne!(desk.run("digest new.db").ok(), desk.run("digest base.db").ok());
    desk.run("init --remove new.db --yes").ok();
    std::fs::remove_file(desk.path("new.db")).unwrap();
    desk.run("revoke base.db liar --fleet fleet.key").ok();
    begins("again");
    rounds(&desk, &["again", "base", "again"], 2);
    assert_eq!(desk.value("again.db", shown), true_rows);
    let listed = desk.run("devices again.db --json").json();
    let rows = |name: &str| {
        let mut all = listed["devices"].as_array().unwrap().iter();
        all.find(|device| device["name"] == name).unwrap()["state_rows"].clone()
    };
    assert_eq!((rows("base"), rows("liar")), (4.into(), 0.into()));
}

/// A base has made the state for one device; others find the file and take it in too: those that have all of it, a newcomer
/// with rows of its own, a base.
#[test]
fn a_state_for_another_device_is_taken_in_by_whoever_finds_it() {
    let desk = fleet();
    rounds(&desk, &["north", "liar", "east", "base"], 1);
    for name in ["north", "liar", "east", "base"] {
        desk.run(&format!("compact {name}.db")).ok();
    }
    for (name, role) in [("new", ""), ("young", ""), ("late", " --base")] {
        desk.run(&format!("init {name}.db --name {name} --fleet fleet.key{role}")).ok();
        desk.sql(&format!("{name}.db"), "CREATE TABLE settings (key TEXT PRIMARY KEY, value, note TEXT)");
        desk.run(&format!("track {name}.db settings")).ok();
    }
    desk.sql("new.db", "INSERT INTO settings VALUES ('a', 10, ''), ('new', 1, '')");
    desk.sql("young.db", "INSERT INTO settings VALUES ('a', 20, ''), ('young', 1, '')");
    for name in ["new", "late"] {
        desk.carry(name, "base");
    }
    for name in ["new", "late"] {
        has(&desk.run(&format!("export base.db for-{name}.pmb --for {name}")).ok(), &["it has the state"]);
    }
    let all = ["new", "young", "late", "north", "east", "liar", "base"];
    let before = all.map(|name| fingerprint(&desk, name));
    for name in ["north", "young", "late", "east", "new"] {
        for file in ["for-new.pmb", "for-late.pmb", "for-new.pmb"] {
            desk.run(&format!("import {name}.db {file}")).ok();
        }
    }
    assert_eq!(desk.value("young.db", "SELECT count(*) FROM settings WHERE key = 'young'"), Sql::Integer(1));
    rounds(&desk, &all, 4);
    are_equal(&desk, &all);
    assert_eq!(desk.run("digest late.db --gathered").ok(), desk.run("digest base.db --gathered").ok());
    let open = desk.run("conflicts base.db --json").json();
    assert_eq!(open["conflicts"].as_array().unwrap().len(), 1, "{open}");
    let listed = desk.run("conflicts base.db").ok();
    ["value  = 1\n", "value  = 10\n", "value  = 20\n"].iter().for_each(|value| has(&listed, &[value]));
    for (name, before) in all.iter().zip(&before) {
        assert_eq!(fingerprint(&desk, name), *before, "{name}");
        let status = status(&desk, name);
        assert_eq!(status["waits"], serde_json::json!([]), "{name}");
        desk.run(&format!("verify {name}.db")).ok();
    }
}
