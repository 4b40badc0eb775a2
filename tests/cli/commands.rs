//! Every command on a good day: what it does, what it prints, and its JSON document.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use rusqlite::types::Value as Sql;
use serde_json::{Value, json};
use support::{Desk, Ran, has};

#[test]
fn init_makes_a_device_and_a_key_that_its_owner_alone_can_read() {
    let desk = Desk::new();
    let fleet = desk.run("fleet new fleet.key --json").json();
    assert_eq!(fleet["key_file"], "fleet.key");
    assert_eq!(fleet["fleet"].as_str().unwrap().len(), 64);

    let made = desk.run("init a.db --name north --fleet fleet.key --json").json();
    assert_eq!(
        (&made["name"], &made["base"], &made["fleet"]),
        (&json!("north"), &json!(false), &fleet["fleet"])
    );
    assert_eq!(made["fingerprint"].as_str().unwrap().len(), 32);
    for key in ["fleet.key", "a.db.pmkey"] {
        let mode = std::fs::metadata(desk.path(key)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
    }
    // A database that is in use already, without a name: it gets the host's.
    desk.sql("b.db", "CREATE TABLE t (a); INSERT INTO t VALUES (1)");
    has(
        &desk.run("init b.db").ok(),
        &["b.db is now the device", "fingerprint", "fleet        none", "b.db.pmkey"],
    );
    assert_eq!(desk.value("b.db", "SELECT a FROM t"), Sql::Integer(1));
    has(&desk.run("init base.db --name base --base").ok(), &["base.db is now the base `base`"]);
}

/// A name that nobody sees, or tells from another one, is refused where it is given: at `init`, `join` and `rename`.
#[test]
fn a_name_that_nobody_could_read_is_refused() {
    let desk = Desk::fleet(&["north"]);
    desk.run("snapshot base.db start.pms").ok();
    let before = desk.files();
    let long = "x".repeat(65);
    for name in ["", " ", "north ", "\u{a0}north", "x\u{1b}[2J", "a\u{202e}b", &long] {
        for words in [
            &["init", "new.db", "--name", name][..],
            &["join", "new.db", "start.pms", "--name", name],
            &["rename", "north.db", name],
        ] {
            let about = if words[0] == "join" { words[2] } else { words[1] };
            let said = desk.run_words(words).refused(about);
            has(&said, &["a device's name is 1 to 64 bytes", "nor spaces at its ends"]);
            assert!(!said.contains(['\u{1b}', '\u{202e}']), "{said:?}");
        }
    }
    assert_eq!(desk.files(), before);
}

#[test]
fn the_whole_trip_of_one_board() {
    let desk = Desk::fleet(&["north"]);
    desk.sql("north.db", "INSERT INTO settings VALUES ('interval', 60, NULL); INSERT INTO readings (value) VALUES (1.5), (2.5)");

    let status = desk.run("status north.db --json").json();
    assert_eq!(
        status["tables"][0],
        json!({ "name": "settings", "how": "shared", "unsealed": 1, "waiting": 0, "note": null })
    );
    assert_eq!(status["tables"][1]["unsealed"], 2);
    has(
        &desk.run("status north.db").ok(),
        &["device `north`", "settings", "1 write not sealed yet", "2 writes"],
    );

    assert_eq!(desk.run("seal north.db --json").json()["ops"], 3);
    has(&desk.run("seal north.db").ok(), &["nothing was written since the last seal"]);

    let exported = desk.run("export north.db north.pmb --json").json();
    assert_eq!((&exported["for"], &exported["replaced"]), (&Value::Null, &json!(false)));
    assert_eq!(exported["bytes"], std::fs::metadata(desk.path("north.pmb")).unwrap().len());

    let imported = desk.run("import base.db north.pmb --json").json();
    assert_eq!((&imported["ops"], &imported["ops_waiting"]), (&json!(3), &json!(0)));
    assert_eq!((&imported["conflicts_opened"], &imported["conflicts_open"]), (&json!(0), &json!(0)));
    assert_eq!(imported["frames"], exported["frames"]);
    assert_eq!((&imported["waits"], &imported["stepped_over"]), (&json!([]), &json!([])));
    assert_eq!(imported["files"][0]["file"], "north.pmb");
    has(&desk.run("import base.db north.pmb").ok(), &["north.pmb: nothing new", "known already"]);
    assert_eq!(desk.value("base.db", "SELECT count(*) FROM readings"), Sql::Integer(2));

    let digest = desk.run("digest base.db").ok();
    assert_eq!(digest.trim().len(), 64);
    assert_eq!(desk.run("digest north.db --json").json()["digest"], digest.trim());
    assert_ne!(desk.run("digest base.db --gathered").ok(), digest);

    let devices = desk.run("devices base.db --json").json();
    assert_eq!(
        (&devices["devices"][0]["this"], &devices["devices"][0]["base"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(
        (&devices["devices"][1]["name"], &devices["devices"][1]["trust"]),
        (&json!("north"), &json!("by the fleet"))
    );
    has(
        &desk.run("devices base.db").ok(),
        &["DEVICE", "TRUST", "base-", "this device", "north-", "by the fleet"],
    );

    // The base sends back only what the board lacks: nothing.
    desk.run("export base.db back.pmb --for north").ok();
    desk.run("import north.db back.pmb").ok();
    assert_eq!(desk.run("export north.db north.pmb --for base --json").json()["frames"], 0);
}

#[test]
fn log_shows_who_wrote_what_and_when() {
    let (desk, id) = Desk::conflict();
    desk.run(&format!("resolve base.db {id} --take east")).ok();
    let log = desk.run("log base.db settings interval --json").json();
    let groups = log["groups"].as_array().unwrap();
    assert_eq!(groups.len(), 4);
    assert_eq!(
        groups[0]["rows"],
        json!([{
            "table": "settings",
            "op": "insert",
            "key": { "key": "interval" },
            "values": { "value": 60, "note": "factory" },
            "before": {}
        }])
    );
    assert_eq!(groups[3]["resolution"], true);
    has(&desk.run("log base.db settings").ok(), &["north-", "1 row", "east-", "base-", "closes conflicts"]);
    has(&desk.run("log base.db --rows").ok(), &["insert settings key = interval", "update settings"]);
    // A key that looks like a number, in a text column and in an integer one.
    desk.sql("base.db", "INSERT INTO settings VALUES ('5', 1, NULL)");
    desk.run("seal base.db").ok();
    assert_eq!(desk.run("log base.db settings 5 --json").json()["groups"].as_array().unwrap().len(), 1);
    has(&desk.run("log base.db settings nothing").ok(), &["nothing in the log of that"]);
}

#[test]
fn conflicts_are_the_same_list_everywhere_and_resolve_closes_them_everywhere() {
    let (desk, id) = Desk::conflict();
    desk.carry("base", "north");
    desk.carry("base", "east");
    let listed = desk.run("conflicts base.db --json").json();
    for board in ["north", "east"] {
        assert_eq!(desk.run(&format!("conflicts {board}.db --json")).json(), listed);
    }
    let conflict = &listed["conflicts"][0];
    assert_eq!(conflict["key"], json!({ "key": "interval" }));
    assert_eq!((&conflict["table"], &conflict["kind"]), (&json!("settings"), &json!("update/update")));
    let versions = conflict["versions"].as_array().unwrap();
    assert_eq!(versions.len(), 2);
    assert_eq!(versions[0]["values"], json!({ "key": "interval", "value": 10, "note": "factory" }));
    assert_eq!(
        (&versions[0]["name"], &versions[0]["op"], &versions[0]["shown"]),
        (&json!("east"), &json!("update"), &json!(true))
    );
    assert_eq!(versions[1]["values"]["value"], 30);
    assert!(versions[1]["at"].as_str().unwrap().ends_with('Z'));
    has(
        &desk.run("conflicts base.db").ok(),
        &[
            &id,
            "settings: key = interval",
            "by east-",
            "shows this one",
            "* value",
            "= 10",
            "by north-",
            "= 30",
            "--take north",
        ],
    );
    has(&desk.run("status base.db").ok(), &["conflicts    1 open"]);

    let resolved =
        desk.run(&format!("resolve base.db {} --set value=45 note=agreed --json", &id[..6])).json();
    assert_eq!(resolved["conflicts_open"], 0);
    desk.carry("base", "north");
    desk.carry("base", "east");
    let digest = desk.run("digest base.db").ok();
    for board in ["north", "east"] {
        assert_eq!(desk.run(&format!("digest {board}.db")).ok(), digest);
        let row = desk.rows(&format!("{board}.db"), "SELECT value, note FROM settings");
        assert_eq!(row, [[Sql::Integer(45), Sql::Text("agreed".into())]]);
        has(&desk.run(&format!("conflicts {board}.db")).ok(), &["no conflict is open"]);
    }
}

#[test]
fn resolve_takes_deletes_and_keeps_both() {
    for (how, rows) in [("--take north", 1), ("--delete", 0), ("--keep-both", 2)] {
        let (desk, id) = Desk::conflict();
        has(
            &desk.run(&format!("resolve base.db {id} {how}")).ok(),
            &["is closed", "no conflict is open any more"],
        );
        assert_eq!(desk.value("base.db", "SELECT count(*) FROM settings"), Sql::Integer(rows), "{how}");
    }
}

#[test]
fn values_that_json_has_no_form_for_are_printed_exactly() {
    let desk = Desk::fleet(&["north", "east"]);
    let insert = |board: &str, value: &str| {
        desk.sql(&format!("{board}.db"), &format!("INSERT INTO settings VALUES ('a', {value}, NULL)"));
        desk.carry(board, "base");
    };
    insert("north", "x'00ff'");
    insert("east", "9e999");
    let listed = desk.run("conflicts base.db --json").json();
    let mut values: Vec<_> = listed["conflicts"][0]["versions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|version| version["values"]["value"].to_string())
        .collect();
    values.sort();
    assert_eq!(values, [r#"{"hex":"00ff"}"#, r#"{"real":"Infinity"}"#]);
    assert_eq!(listed["conflicts"][0]["kind"], "insert/insert");
    let id = listed["conflicts"][0]["id"].as_str().unwrap();
    desk.run(&format!("resolve base.db {id} --set value=x'ab00'")).ok();
    assert_eq!(desk.value("base.db", "SELECT value FROM settings"), Sql::Blob(vec![0xab, 0]));
}

#[test]
fn track_and_untrack_several_tables() {
    let desk = Desk::new();
    desk.run("init a.db --name a").ok();
    desk.sql(
        "a.db",
        "CREATE TABLE one (k TEXT PRIMARY KEY, v); CREATE TABLE two (id INTEGER PRIMARY KEY, v); INSERT INTO two VALUES (1, 2)",
    );
    let tracked = desk.run("track a.db one two --json").json();
    assert_eq!(
        tracked["tables"][0],
        json!({ "table": "one", "already": false, "changed": false, "rows": 0, "advice": [] })
    );
    assert_eq!(tracked["tables"][1]["rows"], 1);
    assert_eq!(tracked["tables"][1]["advice"].as_array().unwrap().len(), 1);
    has(&desk.run("track a.db one").ok(), &["one: tracked in this way already"]);
    assert_eq!(desk.run("untrack a.db one two --json").json()["untracked"], json!(["one", "two"]));
}

#[test]
fn trust_and_revoke_a_single_device() {
    let desk = Desk::new();
    desk.run("init base.db --name base").ok();
    desk.run("init north.db --name north").ok();
    desk.sql("north.db", "CREATE TABLE t (k TEXT PRIMARY KEY); INSERT INTO t VALUES ('a')");
    desk.run("track north.db t").ok();
    desk.run("export north.db north.pmb").ok();
    let fingerprint = desk.run("status north.db --json").json()["fingerprint"].as_str().unwrap().to_owned();

    let refused = desk.run("import base.db north.pmb --json");
    assert_eq!(refused.status, Some(1));
    let document: Value = serde_json::from_str(&refused.out).unwrap();
    assert_eq!(document["strangers"][0]["fingerprint"], fingerprint.as_str());
    has(
        &refused.err,
        &["packmule: north.pmb: ", &fingerprint, &format!("packmule trust base.db {fingerprint}")],
    );

    has(
        &desk.run("trust base.db north.pmb").ok(),
        &["trusted now: north", &fingerprint, "packmule revoke base.db"],
    );
    has(&desk.run("trust base.db north.pmb").ok(), &["trusted before: north"]);
    desk.run("import base.db north.pmb").ok();

    assert_eq!(desk.run("revoke base.db north --json").json()["fingerprint"], fingerprint.as_str());
    desk.sql("north.db", "INSERT INTO t VALUES ('b')");
    desk.run("export north.db north.pmb").ok();
    has(&desk.run("import base.db north.pmb").refused("north.pmb"), &["revoked"]);
    // Its digits set apart, as a person reads them out.
    let apart: Vec<&str> =
        fingerprint.as_bytes().chunks(4).map(|c| std::str::from_utf8(c).unwrap()).collect();
    let apart = apart.join(":");
    has(&desk.run(&format!("trust base.db {apart}")).refused("base.db"), &["was revoked here"]);
    desk.run(&format!("revoke base.db {apart} --undo")).ok();
    assert_eq!(desk.run("import base.db north.pmb --json").json()["ops"], 1);
}

#[test]
fn export_replaces_only_its_own_bundles() {
    let desk = Desk::fleet(&["north", "east"]);
    desk.run("export north.db card.pmb").ok();
    desk.sql("north.db", "INSERT INTO settings VALUES ('a', 1, NULL)");
    has(&desk.run("export north.db card.pmb").ok(), &["card.pmb", "replaces an older bundle of this device"]);
    std::fs::write(desk.path("letter.txt"), "dear base").unwrap();
    let before = std::fs::read(desk.path("card.pmb")).unwrap();
    has(
        &desk.run("export east.db card.pmb").refused("card.pmb"),
        &["bundle of another device", "another name"],
    );
    has(&desk.run("export east.db letter.txt").refused("letter.txt"), &["is there already", "another name"]);
    desk.run("export east.db no/folder.pmb").refused("no/folder.pmb");
    assert_eq!(std::fs::read(desk.path("card.pmb")).unwrap(), before);
    assert_eq!(std::fs::read(desk.path("letter.txt")).unwrap(), b"dear base");
    assert!(!desk.files().iter().any(|name| name.ends_with(".part")), "{:?}", desk.files());
}

#[test]
fn a_bundle_goes_through_a_pipe() {
    let desk = Desk::fleet(&["north"]);
    desk.sql("north.db", "INSERT INTO settings VALUES ('a', 1, NULL)");
    let exported = desk.command(&["export", "north.db", "-"]).output().unwrap();
    assert!(exported.status.success() && exported.stdout.starts_with(b"\x89PKM"));
    has(&String::from_utf8_lossy(&exported.stderr), &["standard output: "]);
    let mut import = desk.command(&["import", "base.db", "-", "--json"]);
    let mut import =
        import.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    import.stdin.take().unwrap().write_all(&exported.stdout).unwrap();
    let imported = Ran::of(import.wait_with_output().unwrap(), &["import"]).json();
    assert_eq!(imported["ops"], 1);
    assert_eq!(desk.run("export north.db - --json").status, Some(2));
    // So do the state of a base and the page of a fleet, of which no file is made then.
    let there = desk.files();
    let snapshot = desk.command(&["snapshot", "base.db", "-"]).output().unwrap();
    assert!(snapshot.status.success() && snapshot.stdout.starts_with(b"\x89PKM"));
    let page = desk.command(&["report", "base.db", "-"]).output().unwrap();
    let text = String::from_utf8(page.stdout).unwrap();
    assert!(
        page.status.success() && text.starts_with("<!doctype html>") && text.trim_end().ends_with("</html>")
    );
    assert_eq!(desk.files(), there);
    for command in ["snapshot", "report"] {
        let refused = desk.run(&format!("{command} base.db - --json"));
        assert_eq!(refused.status, Some(2));
        has(&refused.err, &["standard output cannot take both"]);
    }
    std::fs::write(desk.path("start.pms"), &snapshot.stdout).unwrap();
    desk.run("join new.db start.pms --name new --fleet fleet.key").ok();
    assert_eq!(desk.run("digest new.db").ok(), desk.run("digest base.db").ok());
}

/// What is to be a file or a folder, and is a pipe, is refused at once: to open it would wait for its other end.
#[test]
fn a_pipe_in_the_place_of_a_file_is_refused() {
    let desk = Desk::fleet(&["north"]);
    assert!(Command::new("mkfifo").arg(desk.path("pipe")).status().unwrap().success());
    for (line, said) in [
        ("status pipe", "is no plain file, and should be a database file"),
        ("digest pipe", "is no plain file"),
        ("import pipe north.pmb", "is no plain file"),
        ("exchange north.db pipe", "is not a directory"),
        ("report base.db pipe", "is not a plain file: use `-`"),
        ("export base.db pipe", "is not a plain file: use `-`"),
        ("snapshot base.db pipe", "is not a plain file: use `-`"),
        ("at base.db 2020-01-01 pipe", "pipe is there already"),
    ] {
        let ran = desk.run(line);
        let about = if line.starts_with("at ") { "base.db" } else { "pipe" };
        has(&ran.refused(about), &[said]);
    }
    // A file without an end is no configuration.
    has(&desk.run("run north.db --config /dev/zero").refused("/dev/zero"), &["text of at most 1 MiB"]);
}

#[test]
fn a_directory_is_searched_and_what_is_bad_in_it_is_skipped() {
    let desk = Desk::fleet(&["north", "east"]);
    for board in ["north", "east"] {
        desk.sql(&format!("{board}.db"), &format!("INSERT INTO settings VALUES ('{board}', 1, NULL)"));
    }
    std::fs::create_dir_all(desk.path("card/deep")).unwrap();
    desk.run("export north.db card/deep/NORTH.DAT").ok();
    desk.run("export east.db card/east.pmb").ok();
    let mut torn = std::fs::read(desk.path("card/east.pmb")).unwrap();
    torn.truncate(torn.len() / 2);
    std::fs::write(desk.path("card/torn.pmb"), &torn).unwrap();
    std::fs::write(desk.path("card/empty.pmb"), "").unwrap();
    std::fs::write(desk.path("card/photo.jpg"), "JFIF").unwrap();
    std::fs::write(desk.path("card/.half.pmb.part"), &torn).unwrap();
    let told = desk.run("import base.db card --json").json();
    assert_eq!((&told["ops"], told["files"].as_array().unwrap().len()), (&json!(2), 2));
    let stepped: Vec<_> = told["stepped_over"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| (s["file"].as_str().unwrap(), s["reason"].as_str().unwrap()))
        .collect();
    assert_eq!(
        stepped.iter().map(|s| s.0).collect::<Vec<_>>(),
        ["card/empty.pmb", "card/torn.pmb", "card/photo.jpg"]
    );
    has(stepped[0].1, &["empty"]);
    has(stepped[1].1, &["cut short"]);
    has(
        &desk.run("import base.db card").ok(),
        &["card/torn.pmb: skipped: ", "card/photo.jpg: skipped: is not a bundle"],
    );

    // Only bad ones: they are named, which is no failure. By its name one is.
    std::fs::create_dir(desk.path("bad")).unwrap();
    std::fs::write(desk.path("bad/torn.pmb"), &torn).unwrap();
    let told = desk.run("import base.db bad --json").json();
    assert_eq!((&told["files"], told["stepped_over"].as_array().unwrap().len()), (&json!([]), 1));
    has(&desk.run("import base.db bad").ok(), &["bad/torn.pmb: skipped: "]);
    desk.run("import base.db bad/torn.pmb").refused("bad/torn.pmb");
    // None at all: nothing was to be done.
    std::fs::create_dir(desk.path("none")).unwrap();
    has(&desk.run("import base.db none").ok(), &["no bundle was found"]);
}

#[test]
fn merge_takes_bundles_directories_and_database_files() {
    let desk = Desk::fleet(&["north", "east", "south"]);
    for board in ["north", "east", "south"] {
        desk.sql(&format!("{board}.db"), &format!("INSERT INTO settings VALUES ('{board}', 1, NULL)"));
    }
    std::fs::create_dir(desk.path("card")).unwrap();
    desk.run("export north.db card/north.pmb").ok();
    desk.run("seal east.db").ok();
    // On its card, without its key: what is not sealed is counted and named.
    desk.run("seal south.db").ok();
    desk.sql("south.db", "INSERT INTO settings VALUES ('late', 1, NULL)");
    std::fs::rename(desk.path("south.db.pmkey"), desk.path("kept.pmkey")).unwrap();
    let merged = desk.run("merge base.db card east.db south.db --json").json();
    assert_eq!((&merged["ops"], &merged["unsealed"]), (&json!(3), &json!(1)));
    assert_eq!(merged["files"].as_array().unwrap().len(), 3);
    has(
        &desk.run("merge base.db south.db").ok(),
        &["south.db: nothing new", "1 row in it is not sealed, and not taken in", "packmule seal"],
    );
    // The whole desk, with the base itself in it.
    std::fs::rename(desk.path("kept.pmkey"), desk.path("south.db.pmkey")).unwrap();
    let merged = desk.run("merge base.db . --json").json();
    assert_eq!((&merged["ops"], &merged["unsealed"]), (&json!(0), &json!(1)));
    has(&desk.run("merge base.db south.db").ok(), &["`packmule seal south.db` seals them"]);
    desk.run("seal south.db").ok();
    let merged = desk.run("merge base.db . --json").json();
    assert_eq!((&merged["ops"], &merged["unsealed"]), (&json!(1), &json!(0)));
    assert_eq!(desk.value("base.db", "SELECT count(*) FROM settings"), Sql::Integer(4));
}

/// Tables that are tracked together go in one group, rows between their definitions; those of the one may be large.
#[test]
fn tables_that_are_tracked_together_arrive_together() {
    let desk = Desk::fleet(&["north"]);
    desk.sql(
        "north.db",
        "CREATE TABLE photos (id TEXT PRIMARY KEY, jpeg BLOB); INSERT INTO photos VALUES ('a', randomblob(70000));
         CREATE TABLE words (id TEXT PRIMARY KEY, n); INSERT INTO words VALUES ('b', 1)",
    );
    desk.run("track north.db photos words").ok();
    desk.run("export north.db north.pmb").ok();
    let inspected = desk.run("inspect north.pmb --json").json();
    let defines = inspected["groups"].as_array().unwrap().iter().map(|group| &group["defines"]);
    assert!(defines.into_iter().any(|tables| *tables == json!(["photos", "words"])), "{inspected}");
    let imported = desk.run("import base.db north.pmb --json").json();
    assert_eq!((&imported["ops"], &imported["waits"]), (&json!(2), &json!([])), "{imported}");
    let digest = desk.run("digest north.db").ok();
    assert_eq!(desk.run("digest base.db").ok(), digest);
}

#[test]
fn verify_and_inspect_look_at_everything() {
    let desk = Desk::fleet(&["north"]);
    desk.sql("north.db", "INSERT INTO settings VALUES ('a', 1, NULL)");
    desk.run("export north.db north.pmb").ok();
    has(&desk.run("verify north.db").ok(), &["north.db: all is well"]);
    let verified = desk.run("verify north.pmb --json").json();
    assert_eq!(
        (&verified["kind"], &verified["ok"], &verified["problems"]),
        (&json!("bundle"), &json!(true), &json!([]))
    );
    let inspected = desk.run("inspect north.pmb --json").json();
    assert_eq!(inspected["sender"], desk.run("status north.db --json").json()["fingerprint"]);
    assert_eq!((&inspected["receiver"], &inspected["groups"][0]["signed"]), (&Value::Null, &json!(true)));
    assert_eq!(inspected["groups"][0]["defines"], json!(["settings"]));
    has(
        &desk.run("inspect north.pmb").ok(),
        &["north.pmb: a bundle", "from         north-", "defines settings"],
    );

    // A bit of the log flips on the disk.
    desk.sql("north.db", "UPDATE _pm_frame SET body = zeroblob(length(body)) WHERE seq = 1");
    let bad = desk.run("verify north.db --json");
    assert_eq!(bad.status, Some(1));
    assert_eq!(serde_json::from_str::<Value>(&bad.out).unwrap()["ok"], false);
    has(&bad.err, &["packmule: north.db: ", "found"]);
}

#[test]
fn the_demo_ends_with_equal_digests() {
    let desk = Desk::new();
    let told = desk.run("demo --keep kept --json").json();
    let digests = told["digests"].as_object().unwrap();
    assert_eq!(digests.len(), 4);
    assert!(digests.values().all(|digest| *digest == digests["base"]));
    assert!(told["readings"]["north"].as_u64().unwrap() > 0);
    assert_eq!(desk.run("digest kept/south.db").ok().trim(), digests["base"].as_str().unwrap());
    has(&desk.run("demo --keep kept").refused("kept"), &["not empty"]);
}

/// What it shows of a command is set in, and broken into lines once: no word stands alone in the middle.
#[test]
fn the_demo_breaks_lines_once() {
    let desk = Desk::new();
    let ran = desk.run("demo").proposes("done in * s (`packmule demo --keep DIRECTORY` keeps the files)");
    let screen = ran.screen;
    let lines: Vec<&str> = screen.lines().collect();
    for three in lines.windows(3) {
        let words = |line: &str| line.split_whitespace().count();
        let indent = |line: &str| line.len() - line.trim_start().len();
        let goes_on = indent(three[1]) > 4
            && indent(three[1]) == indent(three[0]) + 2
            && indent(three[2]) >= indent(three[1]);
        let alone = goes_on && words(three[1]) == 1 && three[0].chars().count() > 70 && words(three[2]) == 1;
        assert!(!alone, "{three:?}\n{screen}");
    }
    let long = lines.iter().find(|line| line.chars().count() > 80 && !line.contains("$ "));
    assert!(long.is_none_or(|line| line.trim_start().starts_with("packmule ")), "{long:?}");
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    let desk = Desk::fleet(&["north"]);
    for n in 0..50 {
        desk.sql("north.db", &format!("INSERT INTO settings VALUES ('{n}', 1, NULL)"));
        desk.run("seal north.db").ok();
    }
    for words in [&["log", "north.db", "--rows", "--json"][..], &["--help"]] {
        let mut command = desk.command(words);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let status = child.wait().unwrap();
        let mut err = String::new();
        child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        assert_eq!((status.code(), err.as_str()), (Some(0), ""));
    }
    let full = std::fs::File::create("/dev/full").unwrap();
    let failed = desk.command(&["status", "north.db"]).stdout(full).output().unwrap();
    assert_eq!(failed.status.code(), Some(1));
    has(&String::from_utf8_lossy(&failed.stderr), &["packmule: standard output: no space left"]);
}

#[test]
fn a_clock_that_is_far_off_is_named() {
    let desk = Desk::fleet(&["north"]);
    desk.carry("north", "base");
    assert_eq!(desk.run("status base.db --json").json()["clock_off_ms"], Value::Null);
    assert!(!desk.run("devices base.db").ok().contains("CLOCK"), "a column that says nothing");
    desk.sql("north.db", "INSERT INTO settings VALUES ('interval', 60, NULL)");
    let clock = || -> i64 { 4_086_000_000_000 };
    let options = packmule::Options { clock: Box::new(clock), ..packmule::Options::default() };
    packmule::Engine::open_with(&desk.path("north.db"), options).unwrap().seal().unwrap();
    desk.carry("north", "base");
    let devices = desk.run("devices base.db --json").json();
    assert_eq!(devices["devices"][0]["clock_off_ms"], Value::Null);
    assert!(devices["devices"][1]["clock_off_ms"].as_i64().unwrap() > 365 * 86_400_000, "{devices}");
    has(&desk.run("devices base.db").ok(), &["years ahead"]);
    has(&desk.run("status base.db").ok(), &["the clock of north-", "years ahead, or the one here is behind"]);
    let status = desk.run("status base.db --json").json();
    assert!(status["notices"][0].as_str().unwrap().contains("the clock of north-"), "{status}");
}

#[test]
fn a_column_is_added_here_and_where_the_table_is_tracked() {
    let desk = Desk::fleet(&["north"]);
    has(
        &desk.run("schema north.db add-column settings unit TEXT --default C").ok(),
        &["settings: has the column unit"],
    );
    let again = desk.run("schema north.db add-column settings unit TEXT --default C --json").json();
    assert_eq!(again, json!({ "table": "settings", "column": "unit", "type": "TEXT" }));
    desk.sql("north.db", "INSERT INTO settings (key, value) VALUES ('a', 1)");
    desk.carry("north", "base");
    assert_eq!(desk.value("base.db", "SELECT unit FROM settings WHERE key = 'a'"), Sql::Text("C".into()));
    has(
        &desk.run("schema north.db add-column settings unit INT").refused("north.db"),
        &["`unit`", "already"],
    );
    has(&desk.run("schema north.db add-column nothing unit INT").refused("north.db"), &["`nothing`"]);
    has(&desk.run("schema north.db add-column settings").usage(), &["schema DB add-column"]);
    has(&desk.run("schema north.db add-column settings unit").usage(), &["a column's name and its type"]);
    has(
        &desk.run("schema north.db rename-column settings unit x").usage(),
        &["`add-column` or `drop-column`"],
    );
}

#[test]
fn a_column_is_dropped_here_and_where_the_table_is_tracked() {
    let desk = Desk::fleet(&["north"]);
    desk.run("schema north.db add-column settings unit TEXT --default C").ok();
    desk.sql("north.db", "INSERT INTO settings (key, value) VALUES ('a', 1)");
    desk.carry("north", "base");
    has(
        &desk.run("schema north.db drop-column settings unit").ok(),
        &["settings: no longer has the column unit"],
    );
    let refused = desk.run("schema north.db drop-column settings unit").refused("north.db");
    has(&refused, &["`settings` has no column `unit`", "can be dropped: `value`"]);
    desk.carry("north", "base");
    let columns = "SELECT group_concat(name) FROM pragma_table_info('settings')";
    for db in ["north.db", "base.db"] {
        assert_eq!(desk.value(db, columns), Sql::Text("key,value,note".into()));
    }
    assert_eq!(desk.run("digest north.db").ok(), desk.run("digest base.db").ok());
    let refused = desk.run("schema north.db drop-column settings key").refused("north.db");
    has(&refused, &["`key` is of the primary key of `settings`"]);
    has(&desk.run("schema north.db drop-column nothing unit").refused("north.db"), &["`nothing`"]);
    has(&desk.run("schema north.db drop-column settings value INT").usage(), &["no type"]);
    has(&desk.run("schema north.db drop-column settings value --default 1").usage(), &["no --default"]);
    desk.sql("north.db", "CREATE VIEW seen AS SELECT value FROM settings");
    let refused = desk.run("schema north.db drop-column settings value").refused("north.db");
    has(&refused, &["`value`", "cannot be dropped here", "a view"]);
    desk.sql("north.db", "DROP VIEW seen");
    let dropped = desk.run("schema north.db drop-column settings value --json").json();
    assert_eq!(dropped, json!({ "table": "settings", "column": "value" }));
}
