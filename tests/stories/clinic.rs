//! A clinic: two devices with the same patients, which disagree about some of them, and a nurse at one of the two who
//! decides.

use serde_json::Value;

use crate::support::{Desk, has};

const PATIENTS: u32 = 300;

/// A base and a ward with the same patients. The base's table of visits has a rule more.
fn clinic() -> Desk {
    let desk = Desk::new();
    desk.run("fleet new fleet.key").ok();
    desk.run("init base.db --name base --fleet fleet.key --base").ok();
    desk.run("init ward.db --name ward --fleet fleet.key").ok();
    for (db, rule) in [("base.db", " CHECK (note <> '')"), ("ward.db", "")] {
        desk.sql(
            db,
            &format!(
                "CREATE TABLE patients (id TEXT PRIMARY KEY, number INTEGER UNIQUE, name TEXT, phone TEXT);
                 CREATE TABLE visits (id TEXT PRIMARY KEY, patient TEXT REFERENCES patients(id), note TEXT{rule})"
            ),
        );
        desk.run(&format!("track {db} patients visits")).ok();
    }
    desk.sql(
        "base.db",
        &format!(
            "INSERT INTO patients WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < {PATIENTS})
             SELECT printf('p%03d', i), i, 'name ' || i, '555-' || i FROM n"
        ),
    );
    desk.carry("base", "ward");
    desk.carry("ward", "base");
    desk
}

/// What both write, of each kind of conflict.
fn disagree(desk: &Desk) {
    desk.sql(
        "ward.db",
        "UPDATE patients SET phone = 'ward' WHERE number <= 6;
         DELETE FROM patients WHERE id IN ('p007', 'p008');
         INSERT INTO patients VALUES ('n1', 401, 'Ada', '1'), ('n2', 402, 'Ben', '2');
         INSERT INTO patients VALUES ('u1', 501, 'Una', '51'), ('u2', 502, 'Uwe', '52'), ('u3', 503, 'Ute', '53');
         DELETE FROM patients WHERE id = 'p009';
         INSERT INTO visits VALUES ('v1', 'p010', '')",
    );
    desk.run("seal ward.db").ok();
    desk.sql(
        "base.db",
        "UPDATE patients SET phone = 'base' WHERE number <= 8;
         INSERT INTO patients VALUES ('n1', 411, 'Eve', '11'), ('n2', 412, 'Fay', '12');
         INSERT INTO patients VALUES ('x1', 501, 'Xia', '61'), ('x2', 502, 'Xul', '62'), ('x3', 503, 'Xan', '63');
         INSERT INTO visits VALUES ('v2', 'p009', 'fever')",
    );
    desk.carry("base", "ward");
    desk.carry("ward", "base");
}

fn conflicts(desk: &Desk, filter: &str) -> Vec<Value> {
    desk.run(&format!("conflicts base.db{filter} --json")).json()["conflicts"].as_array().unwrap().clone()
}

fn id(desk: &Desk, kind: &str) -> String {
    conflicts(desk, &format!(" --kind {kind}"))[0]["id"].as_str().unwrap().to_owned()
}

/// The conflict of the row `u1`, whose number another row has too.
fn id_of_u1(desk: &Desk) -> String {
    let unique = conflicts(desk, " --kind unique");
    let of_u1 = unique.iter().find(|c| c["versions"].to_string().contains("u1")).unwrap();
    of_u1["id"].as_str().unwrap().to_owned()
}

/// Closes what one device alone has: a CHECK of its own.
fn close_check(desk: &Desk) {
    desk.run(&format!("resolve base.db {} --set note=none", id(desk, "check"))).ok();
}

fn both_are_the_same(desk: &Desk) {
    desk.carry("base", "ward");
    desk.carry("ward", "base");
    assert_eq!(desk.run("digest base.db").ok(), desk.run("digest ward.db").ok());
}

#[test]
fn fifteen_conflicts_of_all_kinds_are_closed_in_three_commands() {
    let desk = clinic();
    disagree(&desk);
    let listed = desk.run("conflicts base.db --brief").screen;
    has(
        &listed,
        &["15 conflicts are open", "patients", "update/update", "visits", "15 conflicts:", "--dry-run"],
    );
    assert!(listed.lines().all(|line| line.chars().count() <= 80), "{listed}");
    let before = desk.dump("base.db");
    let planned = desk.run("resolve base.db --all --take newest --dry-run").ok();
    has(
        &planned,
        &["13 conflicts would be closed; nothing has changed", "2 conflicts cannot be closed this way"],
    );
    assert_eq!(desk.dump("base.db"), before);

    let done = desk.run("resolve base.db --all --take newest").ok();
    has(&done, &["stays open", "13 conflicts are closed", "2 conflicts are still open"]);
    // What nothing fits is told, not only left.
    for none in ["conflicts base.db --kind schema", "resolve base.db --kind schema --take newest"] {
        has(&desk.run(none).ok(), &["2 conflicts are", "none of them fits what was asked for"]);
    }
    let orphan = id(&desk, "foreign-key");
    desk.run(&format!("resolve base.db {orphan} --set patient=p010")).ok();
    let broken = id(&desk, "check");
    has(
        &desk.run(&format!("resolve base.db {broken} --set note=none")).ok(),
        &["v1 comes in: patient = p010, note = none", "no conflict is open any more"],
    );
    both_are_the_same(&desk);
}

#[test]
fn a_resolution_says_what_it_removes_and_what_it_opens() {
    let desk = clinic();
    disagree(&desk);
    desk.sql("ward.db", "INSERT INTO visits VALUES ('v3', 'u1', 'cough')");
    desk.carry("ward", "base");
    let id = id_of_u1(&desk);
    has(
        &desk.run(&format!("conflicts base.db {id}")).ok(),
        &[
            "unique",
            "--take base",
            "removes the row id = u1 on all devices",
            "--take ward",
            "removes the row id = x1",
            "--set number=VALUE",
            "the row id = x1 comes in with it",
        ],
    );
    let done = desk.run(&format!("resolve base.db {id} --take base")).ok();
    has(&done, &["1 conflict opened by this"]);
    close_check(&desk);
    let ids = desk.run("conflicts base.db --kind foreign-key").ok();
    has(&ids, &["v3", "refers to a row of `patients` that is not there"]);
    both_are_the_same(&desk);
}

#[test]
fn ids_are_closed_all_or_none() {
    let desk = clinic();
    disagree(&desk);
    let before = desk.dump("base.db");
    let [row, orphan] = [id(&desk, "update/update"), id(&desk, "foreign-key")];
    has(
        &desk.run(&format!("resolve base.db {row} {orphan} --take newest")).refused("base.db"),
        &["refers to a row of `patients`", "--set"],
    );
    assert_eq!(desk.dump("base.db"), before);
    has(&desk.run("resolve base.db --take newest").usage(), &["ID is missing", "--all"]);
    let short = &row[..3];
    for line in [format!("resolve base.db {short} --take newest"), format!("resolve base.db --undo {short}")]
    {
        has(&desk.run(&line).refused("base.db"), &["is too short for a conflict's id", "at least 4 digits"]);
    }
    close_check(&desk);
    // Of two rows that are made of the two, a UNIQUE besides the key forbids nothing here: the numbers differ.
    let made = id(&desk, "insert/insert");
    has(&desk.run(&format!("conflicts base.db {made}")).ok(), &["--keep-both"]);
    desk.sql("base.db", "INSERT INTO patients VALUES ('n3', 701, 'Eve', '11')");
    desk.sql("ward.db", "INSERT INTO patients VALUES ('n3', 701, 'Ada', '1')");
    both_are_the_same(&desk);
    let clashing = conflicts(&desk, " --kind insert/insert");
    let clashing = clashing.iter().find(|c| c["key"]["id"] == "n3").unwrap()["id"].as_str().unwrap();
    has(
        &desk.run(&format!("conflicts base.db {clashing}")).ok(),
        &[&format!("resolve base.db {clashing} --keep-both --set ")],
    );
    desk.run(&format!("resolve base.db {clashing} --keep-both")).refused("base.db");
    has(
        &desk.run(&format!("resolve base.db {clashing} --keep-both --set number=702")).ok(),
        &["comes in", "number = 702"],
    );
    both_are_the_same(&desk);
}

/// A decision that was wrong: undone at the other device, once it has travelled there, and undone again.
#[test]
fn a_wrong_decision_is_undone_also_where_it_has_travelled() {
    let desk = clinic();
    disagree(&desk);
    close_check(&desk);
    let id = id_of_u1(&desk);
    has(
        &desk.run(&format!("resolve base.db {id} --take base")).ok(),
        &["id = u1 is removed on all devices", "--undo", "1 conflict is closed"],
    );
    both_are_the_same(&desk);
    let of_number =
        |number: u32| desk.rows("ward.db", &format!("SELECT id FROM patients WHERE number = {number}"));
    assert_eq!(of_number(501), desk.rows("ward.db", "SELECT 'x1'"));

    // Open again, with the same id, and both rows whole.
    has(&desk.run(&format!("resolve ward.db --undo {id}")).ok(), &["base-", "undone", "u1 comes in", "Una"]);
    assert_eq!(of_number(501), desk.rows("ward.db", "SELECT 'u1'"));
    both_are_the_same(&desk);
    let again = conflicts(&desk, &format!(" {id}"));
    assert_eq!(again[0]["versions"].as_array().unwrap().len(), 2, "{again:?}");
    desk.run(&format!("resolve base.db {id} --set number=504")).ok();
    both_are_the_same(&desk);
    let both = "SELECT id, name FROM patients WHERE id IN ('u1', 'x1') ORDER BY id";
    assert_eq!(desk.rows("ward.db", both), desk.rows("ward.db", "VALUES ('u1', 'Una'), ('x1', 'Xia')"));

    // Of versions of one row: the row that was shown, and what is written since is not taken away.
    let row = id_of(&desk, "p001");
    desk.run(&format!("resolve base.db {row} --take ward")).ok();
    let phone = || desk.value("base.db", "SELECT phone FROM patients WHERE id = 'p001'");
    assert_eq!(phone(), rusqlite::types::Value::Text("ward".into()));
    desk.run(&format!("resolve base.db --undo {row}")).ok();
    assert_eq!(phone(), rusqlite::types::Value::Text("base".into()));
    desk.run(&format!("resolve base.db --undo {row}")).ok();
    assert_eq!(phone(), rusqlite::types::Value::Text("ward".into()));
    both_are_the_same(&desk);
    desk.sql("ward.db", "UPDATE patients SET phone = 'new' WHERE id = 'p001'");
    both_are_the_same(&desk);
    has(
        &desk.run(&format!("resolve base.db --undo {row}")).refused("base.db"),
        &["`patients` has been written to since, by ward-"],
    );
    has(&desk.run("resolve base.db --undo 0000000000").refused("base.db"), &["no resolution", "0000000000"]);
}

/// Whoever rehearses, or means some of many, changes nothing by an undo that has no such thing.
#[test]
fn an_undo_stands_alone() {
    let (desk, id) = Desk::conflict();
    desk.run(&format!("resolve base.db {id} --take east")).ok();
    let before = desk.dump("base.db");
    for more in ["--dry-run", "--table settings", "--kind update/update", "--by east", "--older-than 30d"] {
        has(&desk.run(&format!("resolve base.db --undo {id} {more}")).usage(), &["--undo stands alone"]);
        assert_eq!(desk.dump("base.db"), before, "{more}");
    }
    has(&desk.run(&format!("resolve base.db --undo {id}")).ok(), &["is undone"]);
}

fn id_of(desk: &Desk, patient: &str) -> String {
    let all = conflicts(desk, "");
    all.iter().find(|c| c["key"]["id"] == patient).unwrap()["id"].as_str().unwrap().to_owned()
}

#[test]
fn an_undo_finds_a_column_that_was_renamed_since() {
    let desk = clinic();
    disagree(&desk);
    close_check(&desk);
    let open = conflicts(&desk, " --kind update/update").remove(0);
    let (id, row) = (open["id"].as_str().unwrap(), open["key"]["id"].as_str().unwrap());
    desk.run(&format!("resolve base.db {id} --take ward")).ok();
    both_are_the_same(&desk);
    for name in ["base", "ward"] {
        desk.sql(&format!("{name}.db"), "ALTER TABLE patients RENAME COLUMN phone TO telephone");
    }
    both_are_the_same(&desk);
    let telephone = || desk.rows("base.db", &format!("SELECT telephone FROM patients WHERE id = '{row}'"));
    assert_eq!(telephone(), desk.rows("base.db", "SELECT 'ward'"));
    desk.run(&format!("resolve base.db --undo {id}")).ok();
    assert_eq!(telephone(), desk.rows("base.db", "SELECT 'base'"));
    both_are_the_same(&desk);
}

/// As long as the log has the decision, whatever else is compacted away.
#[test]
fn an_undo_reaches_as_far_as_the_log() {
    for keep in [true, false] {
        let (desk, id) = Desk::conflict();
        desk.run(&format!("resolve base.db {id} --set value=45")).ok();
        for _ in 0..2 {
            for board in ["north", "east"] {
                desk.carry("base", board);
                desk.carry(board, "base");
            }
        }
        desk.run(&format!("compact base.db{}", if keep { " --keep 30d" } else { "" })).ok();
        let told = desk.run("log base.db settings interval --values").ok();
        assert_eq!(told.contains("value = 10") && told.contains("value = 30"), keep, "{told}");
        let value = || desk.value("base.db", "SELECT value FROM settings");
        let decided = value();
        let undone = desk.run(&format!("resolve base.db --undo {id}"));
        if keep {
            has(&undone.ok(), &["is undone"]);
            assert_ne!(value(), decided);
        } else {
            has(&undone.refused("base.db"), &["no resolution", "compacted away"]);
            assert_eq!(value(), decided);
        }
    }
}

/// What stands on the page before the transcript.
const INTRO: &str = "\
# A clinic: fifteen conflicts, and a wrong decision

Two devices, `base` and `ward`, have the same 300 patients, each with a number that is UNIQUE, and their visits. Both were
written to for a while, apart. Then a card went round, and fifteen rows are in conflict: of two versions, of a row that was
deleted here and changed there, of two patients with one number, of a visit whose patient is gone, of a visit that breaks a
CHECK of the base alone.

Three commands close them all. One decision was wrong: it is undone at the other device, once it has travelled there, and
decided anew. In the end both are the same. This page is what the program printed: a test types it
(`tests/stories/clinic.rs`), and writes it with `PACKMULE_BLESS=1`. Times, and the ends of devices' names, are made equal.
";

/// A transcript: the commands as they are typed, and what they print.
struct Transcript {
    desk: Desk,
    text: String,
    /// What is another text each time, and what stands for it.
    always: Vec<(String, String)>,
}

impl Transcript {
    fn new(desk: Desk) -> Self {
        let devices = desk.run("devices base.db --json").json();
        let label = |device: &Value| device["label"].as_str().unwrap().to_owned();
        let always = devices["devices"]
            .as_array()
            .unwrap()
            .iter()
            .map(|device| (label(device), format!("{}-4c1f22aa", device["name"].as_str().unwrap())));
        Self { always: always.collect(), desk, text: INTRO.to_owned() }
    }

    fn says(&mut self, text: &str) {
        self.text.push_str(&format!("\n{text}\n\n"));
    }

    /// Types commands that stand in one block.
    fn types(&mut self, lines: &[&str]) {
        self.text.push_str("```console\n");
        for line in lines {
            let ran = self.desk.run(line.strip_prefix("packmule ").unwrap());
            let screen = ran.screen.clone();
            ran.ok();
            self.text.push_str(&format!("$ {line}\n{}", self.same(&screen)));
        }
        self.text.push_str("```\n");
    }

    /// Replaces what is another text each time by one of the same width.
    fn same(&self, text: &str) -> String {
        let text = self.always.iter().fold(text.to_owned(), |text, (is, then)| text.replace(is, then));
        let mut same = String::new();
        let mut rest = &*text;
        while let Some(at) = rest.find("T").filter(|at| *at >= 10) {
            let (before, after) = rest.split_at(at);
            let is_time = after.len() >= 10 && after[9..].starts_with('Z') && after[3..].starts_with(':');
            match is_time.then(|| before.split_at(at - 10)) {
                Some((kept, _)) => {
                    same.push_str(kept);
                    same.push_str("2026-11-27T09:00:00Z");
                    rest = &after[10..];
                }
                None => {
                    same.push_str(before);
                    same.push('T');
                    rest = &after[1..];
                }
            }
        }
        same + rest
    }
}

/// The page is what happens: fifteen conflicts of all kinds are closed, one decision is undone, and both are the same.
#[test]
fn the_page_of_the_clinic_is_what_is_printed() {
    let desk = clinic();
    disagree(&desk);
    std::fs::create_dir(desk.path("card")).unwrap();
    let [orphan, check, una] = [id(&desk, "foreign-key"), id(&desk, "check"), id_of_u1(&desk)];
    let mut page = Transcript::new(desk);
    page.says("## What there is");
    page.types(&["packmule conflicts base.db --brief"]);
    page.says("## Closed\n\nMost of them at once. What it would do is said before: which rows are removed, and what stays open.");
    page.types(&[
        "packmule resolve base.db --all --take newest --dry-run",
        "packmule resolve base.db --all --take newest",
    ]);
    page.says("The other two need a value each that a person knows.");
    page.types(&[
        &format!("packmule resolve base.db {orphan} --set patient=p010"),
        &format!("packmule resolve base.db {check} --set note=none"),
    ]);
    page.says("## One was wrong\n\nThe card goes to the ward. There somebody knows Una: the number is hers, and she must not be removed. The decision is\nundone, and Xia, whom the base has under the same number, gets another one.");
    page.types(&[
        "packmule -q exchange base.db card",
        "packmule -q exchange ward.db card",
        &format!("packmule resolve ward.db --undo {una}"),
        &format!("packmule resolve ward.db {una} --set number=504"),
    ]);
    page.says("## Both are the same");
    page.types(&[
        "packmule -q exchange ward.db card",
        "packmule -q exchange base.db card",
        "packmule -q exchange ward.db card",
        "packmule conflicts base.db",
        "packmule digest base.db",
        "packmule digest ward.db",
    ]);
    let digest = |db: &str| page.desk.run(&format!("digest {db}")).ok();
    assert_eq!(digest("base.db"), digest("ward.db"));
    let known = "SELECT number, name FROM patients WHERE id IN ('u1', 'x1') ORDER BY id";
    for db in ["base.db", "ward.db"] {
        assert_eq!(page.desk.rows(db, known), page.desk.rows(db, "VALUES (501, 'Una'), (504, 'Xia')"));
    }
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../src/docs/clinic.md");
    if std::env::var_os("PACKMULE_BLESS").is_some() {
        std::fs::write(&path, &page.text).unwrap();
    }
    let is = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(is == page.text, "the page differs: run with PACKMULE_BLESS=1 and look at it\n{}", page.text);
}
