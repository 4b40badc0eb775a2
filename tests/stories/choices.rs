//! Deciding, case by case: which conflicts are meant, how they are closed, and what is offered. What is offered works.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::{Desk, has};
use crate::typed::shell;

/// A base and boards with the same patients and visits, and a table that is merged by cell.
fn clinic(boards: &[(&str, &str)]) -> Desk {
    let desk = Desk::new();
    desk.run("fleet new fleet.key").ok();
    for (db, name) in [("base", "base")].iter().chain(boards) {
        let base = if *db == "base" { " --base" } else { "" };
        shell(&desk, &format!("packmule init {db}.db --name '{name}' --fleet fleet.key{base}"));
        desk.sql(
            &format!("{db}.db"),
            "CREATE TABLE patients (id TEXT PRIMARY KEY, number INTEGER UNIQUE, name TEXT, phone TEXT);
             CREATE TABLE visits (id TEXT PRIMARY KEY, patient TEXT REFERENCES patients(id), note TEXT);
             CREATE TABLE beds (id PRIMARY KEY, floor, side, state)",
        );
        desk.run(&format!("track {db}.db patients visits")).ok();
        desk.run(&format!("track {db}.db beds --merge cell")).ok();
    }
    desk.sql(
        "base.db",
        "INSERT INTO patients VALUES ('p1', 1, 'Ada', '1'), ('p2', 2, 'Ben', '2'), ('p3', 3, 'Cas', '3'),
         ('p4', 4, 'Dan', '4');
         INSERT INTO beds VALUES (1, 0, '', ''), ('b2', 0, '', '')",
    );
    for (db, _) in boards {
        desk.carry("base", db);
        desk.carry(db, "base");
    }
    desk
}

pub fn open(desk: &Desk, filter: &str) -> Vec<Value> {
    desk.run(&format!("conflicts base.db{filter} --json")).json()["conflicts"].as_array().unwrap().clone()
}

fn ids(desk: &Desk, filter: &str) -> BTreeSet<String> {
    open(desk, filter).iter().map(|conflict| conflict["id"].as_str().unwrap().to_owned()).collect()
}

/// The id of the conflict of a row, by its key.
#[track_caller]
fn id(desk: &Desk, key: impl Into<Value>) -> String {
    let key = key.into();
    let all = open(desk, "");
    all.iter().find(|conflict| conflict["key"]["id"] == key).unwrap()["id"].as_str().unwrap().to_owned()
}

/// The commands that are offered for a conflict, without the program's name.
pub fn offered(desk: &Desk, id: &str) -> Vec<String> {
    let shown = desk.run(&format!("conflicts base.db {id}")).ok();
    let lines = shown.lines().filter_map(|line| line.trim().strip_prefix("packmule "));
    lines.map(str::to_owned).collect()
}

/// Runs what is offered, as a rehearsal, with values that nobody else has.
#[track_caller]
pub fn works(desk: &Desk, command: &str) {
    let values = ["number=VALUE", "phone=VALUE", "patient=VALUE", "VALUE"];
    let given = ["number=990", "phone=990", "patient=p1", "990"];
    let command =
        values.iter().zip(given).fold(command.to_owned(), |c, (name, value)| c.replace(name, value));
    has(&shell(desk, &format!("packmule {command} --dry-run")), &["1 conflict would be closed"]);
}

/// Conflicts of every kind that a row can have, with names that two devices bear, or that mean something else.
fn of_all_kinds() -> Desk {
    let desk = clinic(&[("ward", "ward"), ("ward2", "ward"), ("new", "newest"), ("spare", "ward 3")]);
    desk.sql(
        "ward.db",
        "DELETE FROM patients WHERE id IN ('p3', 'p4'); UPDATE patients SET phone = 'ward';
         INSERT INTO patients VALUES ('u1', 51, 'Una', '');
         UPDATE beds SET floor = 1",
    );
    desk.run("seal ward.db").ok();
    desk.sql("ward.db", "UPDATE beds SET side = 'left'; INSERT INTO patients VALUES ('n1', 61, 'Nan', '')");
    desk.sql("ward2.db", "UPDATE patients SET phone = 'ward2' WHERE id = 'p2'");
    desk.sql("new.db", "INSERT INTO patients VALUES ('n1', 62, 'Nil', '')");
    desk.sql("spare.db", "UPDATE patients SET phone = 'spare' WHERE id = 'p1'");
    desk.sql(
        "base.db",
        "UPDATE patients SET phone = 'base' WHERE id IN ('p2', 'p3');
         INSERT INTO patients VALUES ('x1', 51, 'Xia', '');
         INSERT INTO visits VALUES ('v1', 'p4', 'fever');
         UPDATE beds SET floor = 2, side = 'right', state = 'clean'",
    );
    for board in ["ward", "ward2", "new", "spare"] {
        desk.carry(board, "base");
    }
    desk
}

#[test]
fn all_that_is_offered_works() {
    let desk = of_all_kinds();
    let kinds: BTreeSet<String> =
        open(&desk, "").iter().map(|c| c["kind"].as_str().unwrap().to_owned()).collect();
    let wanted = ["foreign-key", "insert/insert", "unique", "update/delete", "update/update"];
    assert_eq!(kinds.iter().map(String::as_str).collect::<Vec<_>>(), wanted);
    let before = desk.dump("base.db");
    let mut ways = 0;
    for id in ids(&desk, "") {
        for command in offered(&desk, &id) {
            works(&desk, &command);
            ways += 1;
        }
    }
    assert!(ways > 25, "{ways}");
    assert_eq!(desk.dump("base.db"), before);
}

/// A name that two devices bear, one of another meaning here, and one with a space: what is offered means one device.
#[test]
fn a_name_that_two_devices_bear_is_told_apart() {
    let desk = of_all_kinds();
    let [p1, p2, n1] = ["p1", "p2", "n1"].map(|key| id(&desk, key));
    // Only one of the two has a version of this row; the other is known.
    let of_p1 = offered(&desk, &p1).join("\n");
    has(&of_p1, &["--take 'ward 3'", "--take ward-"]);
    assert!(!of_p1.contains("--take ward\n"), "{of_p1}");
    let refused = desk.run(&format!("resolve base.db {p1} --take ward")).refused("base.db");
    has(&refused, &["`ward` could be ward (", "or ward (", "give more of the id"]);
    has(&offered(&desk, &n1).join("\n"), &["--take newest-"]);
    // In a line of their own they are told apart only where that is needed.
    let brief = desk.run("conflicts base.db --brief").ok();
    let line = |id: &str| brief.lines().find(|line| line.starts_with(id)).unwrap().to_owned();
    has(&line(&p1), &["ward 3*: spare", "ward: ward"]);
    has(&line(&p2), &["ward-", "*: ward2 | base: base | wa"]);
    for command in offered(&desk, &p2).iter().filter(|command| command.contains("--take ward-")) {
        let device = command.rsplit_once(' ').unwrap().1;
        let said = desk.run(&format!("{command} --dry-run --json")).json();
        assert_eq!(said["closed"], 1, "{device}");
    }
}

/// A long value of one version leaves room for the others in a line.
#[test]
fn no_version_hides_another_in_a_line() {
    let (desk, id) = Desk::conflict();
    let long = "asked the mother on the phone, who will call again tomorrow, or the day after";
    desk.run(&format!("resolve base.db {id} --take north")).ok();
    desk.carry("base", "north");
    desk.sql("north.db", &format!("UPDATE settings SET note = 'north: {long}'"));
    desk.sql("base.db", &format!("UPDATE settings SET note = 'base: {long}'"));
    desk.carry("north", "base");
    let screen = desk.run("conflicts base.db --brief").screen;
    let line =
        screen.lines().find(|line| line.contains("update/update")).unwrap_or_else(|| panic!("{screen}"));
    // Whoever is shown is told first.
    assert!(["north", "base", "… | "].iter().all(|part| line.contains(part)), "{line}");
    assert!(line.ends_with('…') && line.chars().count() == 80, "{line}");
}

/// Rows that cannot be kept beside each other in this way.
#[test]
fn keeping_both_is_offered_where_it_works() {
    let desk = of_all_kinds();
    let keeps = |id: &str| -> Vec<String> {
        let all =
            offered(&desk, id).into_iter().filter_map(|c| Some(c.split_once(" --keep-both")?.1.to_owned()));
        all.collect()
    };
    let [p1, p2, p3, x1, n1, b2] = ["p1", "p2", "p3", "x1", "n1", "b2"].map(|key| id(&desk, key));
    // Two versions with one number: the new row needs another. Of three the two new ones would be given the same.
    assert_eq!(keeps(&p1), [" --set number=VALUE"]);
    assert_eq!(keeps(&p2), [""; 0]);
    has(
        &desk.run(&format!("resolve base.db {p2} --keep-both --set number=9")).refused("base.db"),
        &["UNIQUE constraint failed: patients.number", "use --take DEVICE or --set COLUMN=VALUE"],
    );
    has(
        &desk.run(&format!("resolve base.db {p1} --keep-both")).refused("base.db"),
        &["UNIQUE constraint failed", "use --keep-both --set COLUMN=VALUE"],
    );
    // A delete is no row, and two rows with one value are two rows already.
    assert_eq!((keeps(&p3), keeps(&x1)), (Vec::new(), Vec::new()));
    // The numbers differ.
    assert_eq!(keeps(&n1), [""]);
    // No key can be made beside a number in a column without a type; beside a text it can.
    assert_eq!(keeps(&id(&desk, 1)), [""; 0]);
    assert_eq!(keeps(&b2), [""]);
    let refused = desk.run(&format!("resolve base.db {} --keep-both", id(&desk, 1))).refused("base.db");
    has(&refused, &["no new key can be made for `id`"]);
}

/// The number of the version that would be a new row is another row's by now: it needs another one.
#[test]
fn keeping_both_asks_for_another_value_where_a_third_row_has_it() {
    let desk = clinic(&[("ward", "ward")]);
    desk.sql("ward.db", "INSERT INTO patients VALUES ('n1', 41, 'Ada', '1')");
    desk.run("seal ward.db").ok();
    desk.sql("base.db", "INSERT INTO patients VALUES ('n1', 42, 'Eve', '11')");
    desk.carry("ward", "base");
    let made = id(&desk, "n1");
    let keeps = || -> Vec<String> {
        offered(&desk, &made).into_iter().filter(|command| command.contains("--keep-both")).collect()
    };
    assert_eq!(keeps(), [format!("resolve base.db {made} --keep-both")]);
    // The base wrote later: the ward's number is the one that is not shown.
    assert_eq!(desk.value("base.db", "SELECT number FROM patients WHERE id = 'n1'"), 42.into());
    desk.sql("base.db", "UPDATE patients SET number = 41 WHERE id = 'p1'");
    desk.run("seal base.db").ok();
    assert_eq!(keeps(), [format!("resolve base.db {made} --keep-both --set number=VALUE")]);
    desk.run(&format!("conflicts base.db {made}"))
        .proposes_with("packmule resolve * * --keep-both --set *", &[("VALUE", "990")])
        .ok();
    works(&desk, &keeps()[0]);
    desk.run(&format!("resolve base.db {made} --keep-both")).refused("base.db");
}

/// A version that breaks a rule of the table here, or claims what a third row has, is not offered; what is offered works.
#[test]
fn what_cannot_be_taken_here_is_not_offered() {
    let desk = Desk::new();
    desk.run("fleet new fleet.key").ok();
    for (db, base, rules) in
        [("base", " --base", "name TEXT NOT NULL, age CHECK (age > 0)"), ("ward", "", "name TEXT, age")]
    {
        desk.run(&format!("init {db}.db --name {db} --fleet fleet.key{base}")).ok();
        let table =
            format!("CREATE TABLE patients (id TEXT PRIMARY KEY, number UNIQUE, phone UNIQUE, {rules})");
        desk.sql(&format!("{db}.db"), &table);
        desk.run(&format!("track {db}.db patients")).ok();
    }
    desk.sql("base.db", "INSERT INTO patients VALUES ('p1', 1, '1', 'Ada', 50), ('p2', 2, '2', 'Ben', 60)");
    desk.carry("base", "ward");
    desk.carry("ward", "base");
    desk.sql(
        "ward.db",
        "INSERT INTO patients VALUES ('z1', 51, '51', NULL, 1), ('z2', 52, 'third', 'Una', 1), ('z3', 53, '53', 'Ute', -1),
         ('z4', 54, '54', 'Uta', 1);
         UPDATE patients SET name = NULL WHERE id = 'p1'; UPDATE patients SET phone = 'other' WHERE id = 'p2'",
    );
    desk.run("seal ward.db").ok();
    desk.sql(
        "base.db",
        "INSERT INTO patients VALUES ('a1', 51, '-1', 'Xia', 1), ('a2', 52, '-2', 'Xul', 1), ('a3', 53, '-3', 'Xan', 1),
         ('a4', 54, '-4', 'Xin', 1), ('a5', 55, 'third', 'Xu', 1), ('a6', 56, 'other', 'Xo', 1);
         UPDATE patients SET age = 70",
    );
    desk.carry("ward", "base");
    let reasons = [
        ("z1", Some("NOT NULL constraint failed: patients.name"), "--set number=VALUE name=VALUE"),
        ("z2", Some("another row has the same phone"), "--set number=VALUE phone=VALUE"),
        ("z3", Some("CHECK constraint failed: age > 0"), "--set number=VALUE age=VALUE"),
        ("z4", None, "--set number=VALUE"),
        ("p1", Some("NOT NULL constraint failed: patients.name"), "--set name=VALUE"),
        ("p2", Some("another row has the same phone"), "--set phone=VALUE"),
    ];
    for (key, reason, set) in reasons {
        let id = id(&desk, key);
        let shown = desk.run(&format!("conflicts base.db {id}")).ok();
        let commands = offered(&desk, &id);
        assert_eq!(commands.iter().any(|c| c.ends_with("--take ward")), reason.is_none(), "{shown}");
        assert!(commands.iter().any(|c| c.ends_with("--take base")), "{shown}");
        has(&commands.join("\n"), &[set]);
        commands.iter().for_each(|command| works(&desk, command));
        let taken = desk.run(&format!("resolve base.db {id} --take ward --dry-run"));
        let Some(reason) = reason else {
            taken.ok();
            continue;
        };
        has(&shown, &["--take ward cannot be done here: ", reason]);
        taken.refused("base.db");
        let versions = &open(&desk, &format!(" {id}"))[0]["versions"];
        let refused = versions.as_array().unwrap().iter().filter(|version| !version["refused"].is_null());
        assert_eq!(refused.map(|version| &version["refused"]).collect::<Vec<_>>(), [reason]);
    }
    // A row that a rule keeps out all by itself: what is to be set is the column that it is about.
    desk.sql("ward.db", "INSERT INTO patients VALUES ('c1', 71, '71', NULL, 1)");
    desk.carry("ward", "base");
    let alone = offered(&desk, &id(&desk, "c1"));
    has(&alone.join("\n"), &["--set name=VALUE"]);
    alone.iter().for_each(|command| works(&desk, command));
}

/// A row that a resolution does not keep whole is not promised to come back; one that it keeps comes back whole.
#[test]
fn what_is_too_large_for_an_undo_is_not_promised_one() {
    // The board's frames are of 4,096 bytes.
    for (bytes, board, kept) in [
        (2_900, "milkv-duo", true),
        (5_000, "milkv-duo", false),
        (10_000, "host", true),
        (40_000, "host", false),
    ] {
        let desk = clinic(&[("ward", "ward")]);
        desk.sql(
            "ward.db",
            &format!("INSERT INTO patients VALUES ('u1', 501, hex(zeroblob({bytes} / 2)), '51')"),
        );
        desk.run("seal ward.db").ok();
        desk.sql("base.db", "INSERT INTO patients VALUES ('x1', 501, 'Xia', '61')");
        desk.carry("ward", "base");
        let unique = &open(&desk, " --kind unique")[0];
        let id = unique["id"].as_str().unwrap();
        let told = desk.run(&format!("conflicts base.db {id} --board {board}")).ok();
        let removes = told.lines().find(|line| line.contains("removes the row id = u1")).unwrap();
        assert_eq!(removes.contains("--undo brings it back"), kept, "{bytes}\n{told}");
        assert_eq!(removes.contains("it is too large for resolve --undo"), !kept, "{bytes}\n{told}");
        let take = format!("resolve base.db {id} --take base --board {board}");
        let done = desk.run(&take).ok();
        has(&done, &["id = u1 is removed on all devices"]);
        assert_eq!(done.contains(&format!("resolve base.db --undo {id}")), kept, "{done}");
        assert_eq!(done.contains("it is too large for `resolve --undo`"), !kept, "{done}");
        let undone = desk.run(&format!("resolve base.db --undo {id}"));
        if !kept {
            has(&undone.refused("base.db"), &["too large to be kept for an undo"]);
            continue;
        }
        has(&undone.ok(), &["is undone"]);
        desk.run(&format!("resolve base.db {id} --set number=502")).ok();
        let size = "SELECT length(name) FROM patients WHERE id = 'u1'";
        assert_eq!(desk.rows("base.db", size), desk.rows("base.db", &format!("SELECT {bytes}")));
    }
    // A row that is not removed, but is another one then: that is said too, and what brings back what it was.
    let desk = clinic(&[("ward", "ward")]);
    desk.sql("ward.db", "UPDATE patients SET name = 'Ada of the ward' WHERE id = 'p1'");
    desk.run("seal ward.db").ok();
    desk.sql("base.db", "UPDATE patients SET name = hex(zeroblob(20000)) WHERE id = 'p1'");
    desk.carry("ward", "base");
    let done = desk.run(&format!("resolve base.db {} --take ward", id(&desk, "p1"))).ok();
    has(&done, &["it is too large for `resolve --undo`; `restore` brings back what it was"]);
    let log = desk.run("log base.db patients p1 --by base --json").json();
    // Inserted, made long, decided.
    assert_eq!(log["groups"].as_array().unwrap().len(), 3, "{log}");
    let frame = &log["groups"][1]["frames"][1];
    desk.run(&format!("restore base.db patients p1 --from base:{frame}")).ok();
    assert_eq!(desk.value("base.db", "SELECT length(name) FROM patients WHERE id = 'p1'"), 40_000.into());
}

/// However long a row is: what is removed is never cut off.
#[test]
fn a_line_never_hides_that_a_row_is_removed() {
    let desk = clinic(&[("ward", "ward")]);
    let long = "a-key-that-is-as-long-as-a-line-of-eighty-letters-and-some-more-for-good-measure-";
    for n in 0..3 {
        desk.sql("ward.db", &format!("INSERT INTO patients VALUES ('u{long}{n}', {}, 'Una', '51')", 501 + n));
    }
    desk.run("seal ward.db").ok();
    for n in 0..3 {
        desk.sql("base.db", &format!("INSERT INTO patients VALUES ('x{long}{n}', {}, 'Xia', '61')", 501 + n));
    }
    desk.carry("ward", "base");
    for flag in [" --dry-run", ""] {
        let ran = desk.run(&format!("resolve base.db --kind unique --take newest{flag}"));
        let said = ran.screen.clone();
        assert_eq!(ran.ok().matches("is removed on all devices").count(), 3, "{said}");
        assert!(said.lines().all(|line| line.chars().count() <= long.len() + 20), "{said}");
    }
}

/// By cell two writes of a device are two versions, of different columns, and one choice.
#[test]
fn two_versions_of_a_device_are_one_choice() {
    let desk = of_all_kinds();
    let bed = id(&desk, "b2");
    let versions = &open(&desk, &format!(" {bed}"))[0]["versions"];
    let by: Vec<&str> = versions.as_array().unwrap().iter().map(|v| v["name"].as_str().unwrap()).collect();
    assert_eq!(by, ["base", "ward", "ward"]);
    let takes: Vec<String> = offered(&desk, &bed).into_iter().filter(|c| c.contains("--take")).collect();
    let ward = takes[1].rsplit_once(' ').unwrap().1;
    assert_eq!(takes.len(), 2, "{takes:?}");
    has(
        &desk.run(&format!("resolve base.db {bed} --take {ward} --dry-run")).ok(),
        &["floor 2 -> 1, side right -> left"],
    );
    // Kept beside the other it is one row, too.
    has(&desk.run(&format!("resolve base.db {bed} --keep-both")).ok(), &["comes in: floor = 1, side = left"]);
    let rows = "SELECT floor, side, state FROM beds WHERE id LIKE 'b2%' ORDER BY id";
    let wanted = "VALUES (2, 'right', 'clean'), (1, 'left', 'clean')";
    assert_eq!(desk.rows("base.db", rows), desk.rows("base.db", wanted));
}

/// What a choice removes is said before, while it is done, and for many at once. It comes back.
#[test]
fn whatever_removes_a_record_says_so() {
    let desk = of_all_kinds();
    let [x1, p3] = ["x1", "p3"].map(|key| id(&desk, key));
    let removes = |id: &str, way: &str| {
        let shown = desk.run(&format!("conflicts base.db {id}")).ok();
        let mut lines = shown.lines().skip_while(|line| !line.trim().ends_with(way));
        lines.nth(1).unwrap_or_default().trim().to_owned()
    };
    assert_eq!(
        removes(&x1, "--take base"),
        "removes the row id = u1 on all devices; resolve --undo brings it back"
    );
    assert_eq!(
        removes(&x1, "--delete"),
        "removes the row id = x1 on all devices; resolve --undo brings it back"
    );
    assert_eq!(
        removes(&p3, "--delete"),
        "removes the row id = p3 on all devices; resolve --undo brings it back"
    );
    let takes = offered(&desk, &p3);
    let ward = takes.iter().find(|command| command.contains("--take ward-")).unwrap();
    let ward = ward.rsplit_once(' ').unwrap().1;
    assert_eq!(removes(&p3, ward), removes(&p3, "--delete"));
    has(
        &desk.run("resolve base.db --table patients --take shown --dry-run").ok(),
        &["x1 is removed on all devices", "1 row would be removed on all devices", "--undo"],
    );
    // The shown one stays, so the quarantined one goes: everywhere, and it can be had back anywhere.
    let rows = |db: &str| desk.rows(db, "SELECT id, name FROM patients WHERE number = 51");
    for way in [&*format!("--take {ward}"), "--take shown", "--delete"] {
        has(
            &desk.run(&format!("resolve base.db {x1} {way}")).ok(),
            &["x1 is removed on all devices (number = 51, name = Xia", "stays in the log", "--undo"],
        );
        desk.carry("base", "ward");
        assert_eq!(rows("ward.db"), desk.rows("ward.db", "SELECT 'u1', 'Una'"));
        assert_eq!(desk.run("digest base.db").ok(), desk.run("digest ward.db").ok());
        // What others write to the other row is nothing that an undo takes away.
        desk.sql("ward.db", "UPDATE patients SET phone = phone || '+' WHERE id = 'u1'");
        has(
            &desk.run(&format!("resolve ward.db --undo {x1}")).ok(),
            &["is undone", "x1 is quarantined: number = 51, name = Xia"],
        );
        desk.carry("ward", "base");
        let again = ids(&desk, " --kind unique");
        assert_eq!(again.len(), 1, "{way}");
        // Both rows are by the ward now, which undid it; still each of them can be had.
        let again = again.first().unwrap();
        has(&offered(&desk, again).join("\n"), &["--take quarantined", "--take shown"]);
        has(
            &desk.run(&format!("resolve base.db {again} --take {ward}")).refused("base.db"),
            &["both rows are of ward-", "`shown` or `quarantined`"],
        );
        has(
            &desk.run(&format!("resolve base.db {again} --take quarantined")).ok(),
            &["x1 comes in", "u1 is removed on all devices"],
        );
        assert_eq!(rows("base.db"), desk.rows("base.db", "SELECT 'x1', 'Xia'"));
        desk.run(&format!("resolve base.db --undo {again}")).ok();
        desk.sql("base.db", "UPDATE patients SET phone = '' WHERE id = 'u1'");
        desk.carry("base", "ward");
        desk.carry("ward", "base");
        assert!(ids(&desk, "").contains(&x1), "{way}");
    }
}

/// Each filter, with `conflicts` and with `resolve`: they mean the same. Together they mean what meets all of them.
#[test]
fn what_is_meant_is_meant_by_both_commands() {
    let desk = of_all_kinds();
    let all = ids(&desk, "");
    let ward = desk.run("devices base.db --json").json()["devices"].as_array().unwrap().iter().fold(
        String::new(),
        |found, device| match device["name"] == "ward 3" {
            true => device["fingerprint"].as_str().unwrap().to_owned(),
            false => found,
        },
    );
    let before = desk.dump("base.db");
    let mut seen = BTreeSet::new();
    for filter in [
        "--table patients",
        "--table PATIENTS",
        "--table beds",
        "--kind update/update",
        "--kind unique",
        "--kind foreign-key",
        "--by base",
        "--by newest",
        &format!("--by {ward}"),
        "--older-than 0s",
        "--older-than 30d",
        "--table patients --kind update/update --by base",
        "--table beds --kind unique",
    ] {
        let listed = ids(&desk, &format!(" {filter}"));
        let brief = desk.run(&format!("conflicts base.db --brief {filter}")).ok();
        let lines = brief.lines().filter(|line| all.iter().any(|id| line.starts_with(&**id))).count();
        let done = desk.run(&format!("resolve base.db --take shown --dry-run --json {filter}"));
        let done: Value = serde_json::from_str(&done.out).unwrap();
        let decided = done["decided"].as_array().unwrap();
        let decided: BTreeSet<String> =
            decided.iter().map(|decided| decided["id"].as_str().unwrap().to_owned()).collect();
        assert_eq!((&decided, lines), (&listed, listed.len()), "{filter}");
        if listed.is_empty() {
            let wanted = ["none of them fits what was asked for"];
            has(&brief, &wanted);
            has(&desk.run(&format!("resolve base.db --take shown {filter}")).ok(), &wanted);
        }
        seen.insert(listed);
    }
    assert_eq!(desk.dump("base.db"), before);
    assert!(seen.contains(&all) && seen.contains(&BTreeSet::new()) && seen.len() > 6, "{seen:?}");
    let [x1, p1] = ["x1", "p1"].map(|key| id(&desk, key));
    // Several ids, and beginnings of them; one that is none is named.
    let two = desk.run(&format!("conflicts base.db {} {p1} --brief", &x1[..6])).ok();
    has(&two, &[&p1, &x1, "2 conflicts:"]);
    let one = desk.run(&format!("conflicts base.db {p1} 0000 --brief"));
    has(&one.out, &[&p1]);
    has(&one.refused("base.db"), &["no open conflict has the id `0000`", "see `packmule conflicts base.db`"]);
    for line in ["conflicts base.db --brief", "resolve base.db --dry-run --take shown"] {
        let none = desk.run(&format!("{line} --table patient"));
        has(&none.refused("base.db"), &["no table `patient` is tracked here", "patients"]);
    }
    has(
        &desk.run("conflicts base.db --kind schema").ok(),
        &["none of them fits", "open are:", "unique", "patients"],
    );
    has(&desk.run("conflicts base.db --kind uniqe").usage(), &["--kind is one of", "did you mean `unique`?"]);
    has(&desk.run("conflicts base.db --older-than soon").usage(), &["`soon` is no age", "30d, 12h"]);
    has(&desk.run("resolve base.db --all --take").usage(), &["--take"]);
    has(&desk.run(&format!("resolve base.db --all {p1} --take shown")).usage(), &["either --all or ids"]);
    has(&desk.run("resolve base.db --all").usage(), &["say how: one of --take DEVICE"]);
    has(&desk.run("resolve base.db --all --take base --delete").usage(), &["say how: one of"]);
}

/// A rehearsal says what the decision then does: the same rows, the same counts.
#[test]
fn a_rehearsal_says_what_is_done_then() {
    for way in ["--take newest", "--take shown", "--take base", "--delete", "--keep-both", "--set phone=7"] {
        let desk = of_all_kinds();
        desk.sql("base.db", "INSERT INTO visits VALUES ('v2', 'u1', '')");
        desk.carry("base", "ward");
        let before = desk.dump("base.db");
        let planned = desk.run(&format!("resolve base.db --all {way} --dry-run --json")).json();
        assert_eq!(desk.dump("base.db"), before, "{way}");
        let mut done = desk.run(&format!("resolve base.db --all {way} --json")).json();
        assert_eq!((&planned["dry_run"], &done["dry_run"]), (&true.into(), &false.into()));
        done["dry_run"] = true.into();
        assert_eq!(planned, done, "{way}");
        let open = open(&desk, "").len() as u64;
        assert_eq!(done["conflicts_open"], open, "{way}");
        // What stays open says why.
        let refused = done["decided"].as_array().unwrap().iter().filter(|one| one["refused"].is_string());
        assert_eq!(done["refused"], refused.count() as u64, "{way}");
        for (from, to) in [("base", "ward"), ("ward", "base")] {
            desk.carry(from, to);
        }
        assert_eq!(desk.run("digest base.db").ok(), desk.run("digest ward.db").ok(), "{way}");
    }
}

/// What is taken is that very version: the key as it was spelled there, and of the type that it had, though it is equal to the
/// other one's.
#[test]
fn what_is_taken_has_its_key_as_it_was_written() {
    for (of, spelled, kind) in [("north", "Key", "integer"), ("east", "KEY", "real")] {
        let desk = Desk::fleet(&["north", "east"]);
        for (name, key, number) in [("north", "Key", "1"), ("east", "KEY", "1.0")] {
            let db = format!("{name}.db");
            let tables = "CREATE TABLE words (k TEXT COLLATE NOCASE PRIMARY KEY, v); CREATE TABLE numbers (k PRIMARY KEY, v)";
            let rows = format!(
                "INSERT INTO words VALUES ('{key}', '{name}'); INSERT INTO numbers VALUES ({number}, '{name}')"
            );
            desk.sql(&db, &format!("{tables}; {rows}"));
            desk.run(&format!("track {db} words numbers")).ok();
        }
        desk.carry("north", "east");
        desk.carry("east", "north");
        let open = desk.run("conflicts east.db --json").json();
        let ids = open["conflicts"].as_array().unwrap().iter().filter_map(|c| c["id"].as_str());
        let ids: Vec<&str> = ids.collect();
        assert_eq!(ids.len(), 2, "{open}");
        desk.run(&format!("resolve east.db {} --take {of}", ids.join(" "))).ok();
        desk.carry("east", "north");
        for db in ["north.db", "east.db"] {
            let said = desk.rows(db, "SELECT w.k, typeof(n.k), w.v, n.v FROM words w, numbers n");
            let wanted = [spelled, kind, of, of].map(|text| rusqlite::types::Value::Text(text.into()));
            assert_eq!(said, [wanted], "{db}");
        }
    }
}

/// The beginning of an id is enough, where it is that of one conflict alone.
#[test]
fn the_beginning_of_several_ids_decides_none_of_them() {
    let desk = clinic(&[("ward", "ward")]);
    // Of two thousand ids some begin with the same four digits: the chance that none do is 10 to the minus 13.
    for db in ["base", "ward"] {
        let beds = "WITH RECURSIVE n(i) AS (SELECT 10 UNION ALL SELECT i + 1 FROM n WHERE i < 2009)";
        desk.sql(&format!("{db}.db"), &format!("{beds} INSERT INTO beds SELECT i, 1, '', '{db}' FROM n"));
    }
    desk.carry("ward", "base");
    let ids = ids(&desk, "");
    assert_eq!(ids.len(), 2_000);
    let (of_two, other) = ids.iter().zip(ids.iter().skip(1)).find(|(a, b)| a[..4] == b[..4]).unwrap();
    let said = desk.run(&format!("resolve base.db {} --take newest", &of_two[..4])).refused("base.db");
    has(&said, &[&format!("open conflicts begin with `{}`: give more digits", &of_two[..4])]);
    // As much as tells them apart is enough.
    let alone = (5..10).find(|len| of_two[..*len] != other[..*len]).unwrap();
    desk.run(&format!("resolve base.db {} --take newest", &of_two[..alone])).ok();
    let left = self::ids(&desk, "");
    assert!(left.len() == 1_999 && left.contains(other) && !left.contains(of_two));
    // To take back as well.
    desk.run("resolve base.db --all --take newest").ok();
    let said = desk.run(&format!("resolve base.db --undo {}", &of_two[..4])).refused("base.db");
    has(&said, &[&format!("`{}` is the beginning of several ids: give more of it", &of_two[..4])]);
    let said = desk.run(&format!("resolve base.db --undo {}", &of_two[..alone])).ok();
    has(&said, &[&format!("{of_two}: what base-")]);
}
