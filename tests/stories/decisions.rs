//! Decisions that people do not type: an application's own screen decides in SQL, whatever its language, and a program
//! that was named at `track` decides by itself.

use std::process::Command;

use crate::skips::skip;
use crate::support::{Desk, has};

/// A screen of an application, in Python's own library: what is open, as the view shows it, and what a nurse chose.
const SCREEN: &str = r#"
import json, sqlite3, sys
db = sqlite3.connect(sys.argv[1])
for id, table, key, versions in db.execute("SELECT id, tbl_name, key, versions FROM packmule_conflicts"):
    values = {version["name"]: version["values"]["value"] for version in json.loads(versions)}
    print(id, table, json.loads(key)["key"], sorted(values.items()))
    with db:
        db.execute("INSERT INTO packmule_conflicts (id, take) VALUES (?, ?)", (id, sys.argv[2]))
"#;

/// Runs a tool in the desk's folder; `None`, and the check is skipped, where there is none.
fn tool(desk: &Desk, name: &str, words: &[&str]) -> Option<String> {
    let Ok(ran) = Command::new(name).current_dir(desk.path("")).args(words).output() else {
        skip(name, "it is not installed");
        return None;
    };
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{name} {words:?}: {out}{err}");
    Some(out.into_owned())
}

/// A card goes round; nobody types anything at the boards.
fn round(desk: &Desk) {
    for device in ["north", "east", "base", "north", "east"] {
        desk.run(&format!("exchange {device}.db card")).ok();
    }
}

#[test]
fn a_screen_of_an_application_decides() {
    let (desk, id) = Desk::conflict();
    std::fs::create_dir(desk.path("card")).unwrap();
    let Some(shown) = tool(&desk, "python3", &["-c", SCREEN, "base.db", "north"]) else { return };
    has(&shown, &[&id, "settings interval [('east', 10), ('north', 30)]"]);
    has(&desk.run("status base.db").ok(), &["1 decision in SQL waits for the next `packmule seal base.db`"]);
    let taken = desk.run("exchange base.db card").ok();
    has(&taken, &["1 conflict is closed, as applications decided in SQL"]);
    round(&desk);
    let value = desk.value("east.db", "SELECT value FROM settings");
    assert_eq!(value, rusqlite::types::Value::Integer(30));
    assert_eq!(desk.run("digest base.db").ok(), desk.run("digest east.db").ok());
    assert_eq!(desk.rows("base.db", "SELECT * FROM packmule_conflicts"), Vec::<Vec<_>>::new());
    // Said once.
    assert!(!desk.run("seal base.db").ok().contains("decided in SQL"));
}

/// The view shows what `conflicts --json` prints.
#[test]
fn the_view_shows_what_the_program_prints() {
    let (desk, _) = Desk::conflict();
    let printed = desk.run("conflicts base.db --json").json();
    let shown = desk.rows("base.db", "SELECT id, tbl_name, key, kind, versions, ways FROM packmule_conflicts");
    let json = |at: usize| match &shown[0][at] {
        rusqlite::types::Value::Text(text) if at > 1 && at != 3 => serde_json::from_str(text).unwrap(),
        rusqlite::types::Value::Text(text) => serde_json::Value::from(&**text),
        other => panic!("{other:?}"),
    };
    for (at, field) in ["id", "table", "key", "kind", "versions", "ways"].into_iter().enumerate() {
        assert_eq!(json(at), printed["conflicts"][0][field], "{field}");
    }
}

#[test]
fn a_decision_that_is_refused_is_told_and_taken_back() {
    let (desk, id) = Desk::conflict();
    let insert = format!("INSERT INTO packmule_conflicts (id, take) VALUES ('{id}', 'west'), ('0123456789', 'newest')");
    if tool(&desk, "sqlite3", &["base.db", &insert]).is_none() {
        return;
    }
    has(
        &desk.run("seal base.db").ok(),
        &["2 decisions in SQL are refused", "`packmule conflicts base.db`", &id, "west", "0123456789", "no conflict"],
    );
    has(&desk.run("status base.db").ok(), &["2 decisions in SQL were refused"]);
    has(
        &desk.run("conflicts base.db --brief").ok(),
        &["1 conflict is open", "2 decisions in SQL were refused", "0123456789: ", &id],
    );
    let document = desk.run("conflicts base.db --json").json();
    assert_eq!(document["refused_decisions"][0]["id"], "0123456789");
    assert_eq!(document["refused_decisions"][1]["id"], id.as_str());
    tool(&desk, "sqlite3", &["base.db", "DELETE FROM packmule_conflicts WHERE id = '0123456789'"]);
    let decide = format!(
        "UPDATE packmule_conflicts SET decision = '{{\"set\": {{\"value\": 45}}}}', take = NULL WHERE id = '{id}'"
    );
    tool(&desk, "sqlite3", &["base.db", &decide]);
    let sealed = desk.run("seal base.db --json");
    assert_eq!(sealed.status, Some(0));
    has(&sealed.err, &["1 conflict is closed, as applications decided in SQL"]);
    assert_eq!(desk.run("status base.db --json").json()["decisions_refused"], 0);
    assert_eq!(desk.value("base.db", "SELECT value FROM settings"), rusqlite::types::Value::Integer(45));
    // It goes with all else of ours.
    desk.run("init --remove base.db --yes").ok();
    let left = "SELECT name FROM sqlite_schema WHERE name LIKE '%packmule%' OR name LIKE '\\_pm%' ESCAPE '\\'";
    assert_eq!(desk.rows("base.db", left), Vec::<Vec<_>>::new());
}
