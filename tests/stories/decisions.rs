//! Decisions that people do not type: an application's own screen decides in SQL, whatever its language, and a program
//! that was named at `track` decides by itself.

use std::process::Command;

use crate::network::Serve;
use crate::skips::skip;
use crate::support::program::Program;
use crate::support::{Desk, has};
use crate::typed::{block, typed};

const PAGE: &str = include_str!("../../src/docs/decisions.md");

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

/// The page's own examples: each statement is taken, and the last one that stands counts.
#[test]
fn the_page_as_it_stands() {
    let (desk, id) = Desk::conflict();
    let (_, examples) = PAGE.split_once("```sql\n").unwrap();
    let examples = examples.split_once("```").unwrap().0.replace("5f3a9c01d2", &id);
    let decided = |n: usize| {
        desk.sql("base.db", examples.lines().nth(n).unwrap());
        desk.rows("base.db", "SELECT take, decision FROM packmule_conflicts").remove(0)
    };
    let (text, null) = (|text: &str| rusqlite::types::Value::Text(text.into()), rusqlite::types::Value::Null);
    assert_eq!(decided(0), [text("newest"), null.clone()]);
    assert_eq!(decided(1), [null.clone(), text("{\"set\": {\"value\": 45}}")]);
    assert_eq!(decided(2), [text("shown"), null.clone()]);
    assert_eq!(decided(3), [null.clone(), null]);
    typed(&desk, &block(PAGE, Some("A program that decides")), |_, _| ());
    let said = flat(&desk.run("import base.db east-to-base.pmb").ok());
    has(&said, &["1 conflict stays open: the program that decides about `settings` failed: it ended with"]);
}

/// What readers of other makers are given: all of the view, as JSON, and a decision about the row that is named.
const READERS: [(&str, &[&str]); 3] = [
    (
        "python3",
        &[
            "-c",
            "import json, sqlite3, sys
db = sqlite3.connect('base.db')
db.row_factory = sqlite3.Row
print(json.dumps([dict(row) for row in db.execute('SELECT * FROM packmule_conflicts')]))
with db: db.execute('INSERT INTO packmule_conflicts (id, take) VALUES (?, ?)', sys.argv[1:])",
        ],
    ),
    (
        "node",
        &[
            "--no-warnings",
            "-e",
            "const { DatabaseSync } = require('node:sqlite')
const db = new DatabaseSync('base.db')
console.log(JSON.stringify(db.prepare('SELECT * FROM packmule_conflicts').all()))
db.prepare('INSERT INTO packmule_conflicts (id, take) VALUES (?, ?)').run(...process.argv.slice(1))",
        ],
    ),
    (
        "sh",
        &[
            "-c",
            "sqlite3 -json base.db 'SELECT * FROM packmule_conflicts' &&
sqlite3 base.db \"INSERT INTO packmule_conflicts (id, take) VALUES ('$0', '$1')\"",
        ],
    ),
];

/// Whether there is such a reader here.
fn is_there(reader: &str) -> bool {
    let (program, words): (_, &[&str]) = match reader {
        "node" => ("node", &["-e", "require('node:sqlite')"]),
        "sh" => ("sqlite3", &["--version"]),
        other => (other, &["-c", "import sqlite3"]),
    };
    Command::new(program).args(words).output().is_ok_and(|ran| ran.status.success())
}

/// A conflict as the program prints it, without which version cannot be taken: that hangs on other rows, and is not in the view.
fn as_in_view(desk: &Desk) -> serde_json::Value {
    let mut printed = desk.run("conflicts base.db --json").json()["conflicts"][0].clone();
    for version in printed["versions"].as_array_mut().unwrap() {
        assert!(version.as_object_mut().unwrap().remove("refused").is_some());
    }
    printed
}

/// Python's library, Node's, the shell: each shows all of the view, with every kind of value, and decides.
#[test]
fn readers_of_other_makers_show_the_view() {
    let (desk, _) = Desk::conflict();
    desk.sql("north.db", "UPDATE settings SET note = x'00ff', value = 9e999");
    desk.carry("north", "base");
    let printed = as_in_view(&desk);
    let id = printed["id"].as_str().unwrap();
    let copy = std::fs::read(desk.path("base.db")).unwrap();
    for (reader, words) in READERS {
        if !is_there(reader) {
            skip(reader, "it, or its SQLite, is not installed");
            continue;
        }
        std::fs::write(desk.path("base.db"), &copy).unwrap();
        let shown = tool(&desk, reader, &[words, &[id, "north"]].concat()).unwrap();
        let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(shown.as_array().unwrap().len(), 1, "{reader}: {shown}");
        for (column, field) in [("id", "id"), ("tbl_name", "table"), ("kind", "kind")] {
            assert_eq!(shown[0][column], printed[field], "{reader}");
        }
        for field in ["key", "versions", "ways"] {
            let json: serde_json::Value = serde_json::from_str(shown[0][field].as_str().unwrap()).unwrap();
            assert_eq!(json, printed[field], "{reader}");
        }
        let blob = "SELECT hex(note) FROM settings";
        has(&desk.run("seal base.db").ok(), &["1 conflict is closed, as applications decided in SQL"]);
        assert_eq!(desk.rows("base.db", blob), desk.rows("base.db", "SELECT '00FF'"), "{reader}");
    }
}

/// The view shows what `conflicts --json` prints.
#[test]
fn the_view_shows_what_the_program_prints() {
    let (desk, _) = Desk::conflict();
    let printed = as_in_view(&desk);
    let shown =
        desk.rows("base.db", "SELECT id, tbl_name, key, kind, versions, ways FROM packmule_conflicts");
    let json = |at: usize| match &shown[0][at] {
        rusqlite::types::Value::Text(text) if at > 1 && at != 3 => serde_json::from_str(text).unwrap(),
        rusqlite::types::Value::Text(text) => serde_json::Value::from(&**text),
        other => panic!("{other:?}"),
    };
    for (at, field) in ["id", "table", "key", "kind", "versions", "ways"].into_iter().enumerate() {
        assert_eq!(json(at), printed[field], "{field}");
    }
}

#[test]
fn a_decision_that_is_refused_is_told_and_taken_back() {
    let (desk, id) = Desk::conflict();
    let insert = format!(
        "INSERT INTO packmule_conflicts (id, take) VALUES ('{id}', 'west'), ('0123456789', 'newest')"
    );
    if tool(&desk, "sqlite3", &["base.db", &insert]).is_none() {
        return;
    }
    has(
        &desk.run("seal base.db").ok(),
        &[
            "2 decisions in SQL are refused",
            "`packmule conflicts base.db`",
            &id,
            "west",
            "0123456789",
            "no conflict",
        ],
    );
    has(&desk.run("status base.db").ok(), &["2 decisions could not be carried out"]);
    has(
        &desk.run("conflicts base.db --brief").ok(),
        &["1 conflict is open", "2 decisions could not be carried out", "0123456789: ", &id],
    );
    let document = desk.run("conflicts base.db --json").json();
    assert_eq!(document["refused_decisions"][0]["id"], "0123456789");
    assert_eq!(document["refused_decisions"][1]["id"], id.as_str());
    tool(&desk, "sqlite3", &["base.db", "DELETE FROM packmule_conflicts WHERE id = '0123456789'"]);
    let decide = format!(
        "UPDATE packmule_conflicts SET decision = '{{\"set\": {{\"value\": 45}}}}' WHERE id = '{id}'"
    );
    tool(&desk, "sqlite3", &["base.db", &decide]);
    let sealed = desk.run("seal base.db --json");
    assert_eq!(sealed.status, Some(0));
    has(&sealed.err, &["1 conflict is closed, as applications decided in SQL"]);
    assert_eq!(desk.run("status base.db --json").json()["decisions_refused"], 0);
    assert_eq!(desk.value("base.db", "SELECT value FROM settings"), rusqlite::types::Value::Integer(45));
    // It goes with all else of ours.
    desk.run("init --remove base.db --yes").ok();
    let left =
        "SELECT name FROM sqlite_schema WHERE name LIKE '%packmule%' OR name LIKE '\\_pm%' ESCAPE '\\'";
    assert_eq!(desk.rows("base.db", left), Vec::<Vec<_>>::new());
}

/// A program that decides: it keeps what it was asked, and prints this.
fn program(desk: &Desk, name: &str, script: &str) {
    std::fs::write(desk.path(name), script).unwrap();
}

/// A base whose conflicts in `settings` are decided by a program, and boards.
fn with_program(script: &str) -> Desk {
    let desk = Desk::fleet(&["north", "east"]);
    program(&desk, "decide", script);
    desk.sql("north.db", "INSERT INTO settings VALUES ('interval', 60, 'factory'), ('level', 1, '')");
    desk.carry("north", "base");
    desk.carry("base", "east");
    let said = desk.run_words(&["track", "base.db", "settings", "--policy", "custom=sh ./decide"]).ok();
    has(&said, &["its conflicts are decided here, by `sh ./decide`"]);
    desk.sql("north.db", "UPDATE settings SET value = 30 WHERE key = 'interval'");
    desk.sql("east.db", "UPDATE settings SET value = 10 WHERE key = 'interval'");
    desk.carry("north", "base");
    desk
}

/// Takes in what makes the conflict.
fn meet(desk: &Desk) -> String {
    desk.run("export east.db east-to-base.pmb").ok();
    flat(&desk.run("import base.db east-to-base.pmb").ok())
}

/// Text as it is without its line breaks.
fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn value(desk: &Desk, db: &str) -> rusqlite::types::Value {
    desk.value(db, "SELECT value FROM settings WHERE key = 'interval'")
}

#[test]
fn a_program_decides_and_its_decision_travels() {
    let desk = with_program(
        "cat > asked.json\necho \"{\\\"set\\\": {\\\"value\\\": 20, \\\"note\\\": \\\"$PACKMULE_TABLE\\\"}}\"",
    );
    has(&meet(&desk), &["1 conflict is closed, as a program decided"]);
    let asked: serde_json::Value =
        serde_json::from_slice(&std::fs::read(desk.path("asked.json")).unwrap()).unwrap();
    assert_eq!((&asked["table"], &asked["kind"]), (&"settings".into(), &"update/update".into()));
    assert_eq!(asked["versions"].as_array().unwrap().len(), 2);
    std::fs::create_dir(desk.path("card")).unwrap();
    desk.run("exchange base.db card").ok();
    round(&desk);
    for db in ["base.db", "north.db", "east.db"] {
        assert_eq!(value(&desk, db), rusqlite::types::Value::Integer(20), "{db}");
        assert_eq!(desk.run(&format!("digest {db}")).ok(), desk.run("digest base.db").ok());
        // What is run here is told to nobody, and is in no database.
        let bytes = std::fs::read(desk.path(db)).unwrap();
        assert!(!bytes.windows(8).any(|part| part == b"./decide"), "{db}");
    }
    // Tracked in another way it is not asked any more; so it is with a table that is let go.
    assert!(desk.files().contains(&"base.db.pmprograms".to_owned()));
    desk.run("track base.db settings").ok();
    assert!(!desk.files().contains(&"base.db.pmprograms".to_owned()));
    desk.run_words(&["track", "base.db", "settings", "--policy", "custom=true"]).ok();
    desk.run("untrack base.db settings").ok();
    assert!(!desk.files().contains(&"base.db.pmprograms".to_owned()));
}

/// What goes wrong with a program is told, and stops nothing; it is asked again by the next run.
#[test]
fn a_program_that_fails_stops_nothing() {
    let desk = with_program("echo 'no network today' >&2; exit 3");
    has(
        &meet(&desk),
        &[
            "1 conflict stays open: the program that decides about `settings` failed: it ended",
            "no network today",
        ],
    );
    let refused = "SELECT refused FROM packmule_conflicts";
    assert!(format!("{:?}", desk.value("base.db", refused)).contains("no network today"));
    has(
        &flat(&desk.run("conflicts base.db").ok()),
        &["1 decision could not be carried out", "no network today"],
    );
    program(&desk, "decide", "echo >&2; echo ' out of paper' >&2");
    has(&meet(&desk), &["failed: it printed nothing: out of paper"]);
    program(&desk, "decide", "printf '\\377'");
    has(&meet(&desk), &["it printed what is not UTF-8"]);
    program(&desk, "decide", "./none");
    has(&meet(&desk), &["it ended with exit status: 127: ", "./none"]);
    program(&desk, "decide", "yes '{}'");
    has(&meet(&desk), &["it printed more than 65536 bytes"]);
    program(&desk, "decide", "exec 0<&-; exec >&-; kill -9 $$");
    has(&meet(&desk), &["it ended with"]);
    // It says more on standard error than is kept, and sees that all of it is taken.
    program(
        &desk,
        "decide",
        "trap '' PIPE; head -c 1000000 /dev/zero >&2 || exit 5; echo '{\"take\": \"newest\"}'",
    );
    has(&meet(&desk), &["1 conflict is closed, as a program decided"]);
}

/// It has what the page says of its surroundings, and nothing else.
#[test]
fn a_program_s_environment_is_as_the_page_says() {
    let desk = with_program("env > environment; pwd > folder; echo '{\"leave\": true}'");
    meet(&desk);
    let read = |name: &str| std::fs::read_to_string(desk.path(name)).unwrap();
    let folder = desk.path("").canonicalize().unwrap();
    assert_eq!(std::path::Path::new(read("folder").trim()).canonicalize().unwrap(), folder);
    let names: Vec<String> =
        read("environment").lines().filter_map(|line| Some(line.split_once('=')?.0.to_owned())).collect();
    let known = ["PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "PACKMULE_DB", "PACKMULE_TABLE"];
    // These a shell makes by itself.
    let of_shell = ["PWD", "OLDPWD", "SHLVL", "_"];
    let other =
        names.iter().find(|name| !known.contains(&name.as_str()) && !of_shell.contains(&name.as_str()));
    assert_eq!(other, None);
    let db = format!("PACKMULE_DB={}", folder.join("base.db").display());
    assert!(read("environment").lines().any(|line| line == db), "{}", read("environment"));
}

/// Whatever ends the command that asks a program ends the program too.
#[test]
#[cfg(unix)]
fn a_program_ends_with_the_command_that_asks_it() {
    use rustix::process::Signal;
    // It holds one end of a pipe as long as it or what it has started lives. Unless it is ended it does so for a minute.
    let itself = "exec 3> held; sleep 60 3>&3; echo >> ended";
    // The same in a group of its own: beside the program, in its place, and left behind by one that is gone.
    let beside = "setsid sh -c 'exec 3> held; sleep 60; echo >> ended' & wait";
    let in_place = "exec setsid sh -c 'exec 3> held; sleep 60; echo >> ended'";
    let behind = "(setsid sh -c 'exec 3> held; setsid sleep 60; echo >> ended' &) ; sleep 60";
    let kinds = [(Signal::INT, itself), (Signal::TERM, itself), (Signal::HUP, itself)];
    let mut kinds = kinds.to_vec();
    if cfg!(target_os = "linux") {
        kinds.extend([beside, in_place, behind].map(|script| (Signal::TERM, script)));
    }
    for (signal, script) in kinds {
        let desk = with_program(script);
        assert!(Command::new("mkfifo").arg(desk.path("held")).status().unwrap().success());
        desk.run("export east.db east-to-base.pmb").ok();
        let importing = Program::start(&mut desk.command(&["import", "base.db", "east-to-base.pmb"]));
        let mut held = std::fs::File::open(desk.path("held")).unwrap();
        assert_eq!(importing.ended_by(signal), None, "a signal has ended it");
        std::io::Read::read_to_end(&mut held, &mut Vec::new()).unwrap();
        assert!(!desk.path("ended").exists());
        // Nothing of it stays: the next one decides.
        program(&desk, "decide", "echo '{\"take\": \"newest\"}'");
        has(&meet(&desk), &["1 conflict is closed, as a program decided"]);
    }
}

/// What came over a network, which `serve` takes in, is decided by a command of its own, or by `run` by itself.
#[test]
#[cfg(unix)]
fn what_came_over_a_network_is_decided_too() {
    use rustix::process::Signal;
    let take = "echo '{\"take\": \"north\"}'; echo x >> asked";
    let meet_over_network = |script: &str| {
        let desk = with_program(script);
        let serve = Serve::new(&desk, &["base.db"]);
        desk.run(&format!("sync east.db tcp://{}", serve.at)).ok();
        serve.end();
        assert!(!desk.path("asked").exists(), "serve asks nobody");
        has(&desk.run("status base.db").ok(), &["1 conflict is open"]);
        desk
    };
    // The command: it tells whether a program failed, and when nothing is left.
    let desk = meet_over_network("echo broken >&2; exit 3");
    let failed = desk.run("decide base.db");
    assert_eq!(failed.status, Some(1));
    has(&flat(&failed.out), &["1 conflict stays open", "broken"]);
    program(&desk, "decide", take);
    let decided = desk.run("decide base.db --json").json();
    assert_eq!((&decided["closed"], &decided["conflicts_open"]), (&1.into(), &0.into()));
    has(&desk.run("decide base.db").ok(), &["no conflict is open that a program has not been asked about"]);
    desk.run("decide north.db")
        .proposes_with(
            "no program decides here: `packmule track * TABLE --policy custom=COMMAND` names one",
            &[("TABLE", "settings"), ("COMMAND", "true")],
        )
        .refused("north.db");
    // In the background: asked again after a failure, and the link goes on.
    let desk = meet_over_network("echo broken >&2; exit 3");
    std::fs::write(desk.path("run.toml"), "[decide]\nevery = \"1s\"\n").unwrap();
    let mut run = Program::start(&mut desk.command(&["run", "base.db", "--config", "run.toml", "--json"]));
    let said = run.wait_for(|said| said["link"] == "decide" && said["event"] == "failed");
    has(said["text"].as_str().unwrap(), &["broken"]);
    program(&desk, "decide", take);
    let said = run.wait_for(|said| said["link"] == "decide" && said["event"] == "done");
    has(said["text"].as_str().unwrap(), &["1 conflict is closed, as a program decided"]);
    run.end();
    assert_eq!(value(&desk, "base.db"), rusqlite::types::Value::Integer(30));
    // It ends with `run`, which waits for nothing that it has started.
    let desk = meet_over_network("exec 3> held; sleep 60 3>&3");
    assert!(Command::new("mkfifo").arg(desk.path("held")).status().unwrap().success());
    std::fs::write(desk.path("run.toml"), "[decide]\nevery = \"1s\"\n").unwrap();
    let run = Program::start(&mut desk.command(&["run", "base.db", "--config", "run.toml", "--json"]));
    let mut held = std::fs::File::open(desk.path("held")).unwrap();
    assert_eq!(run.ended_by(Signal::TERM), Some(0));
    std::io::Read::read_to_end(&mut held, &mut Vec::new()).unwrap();
}

/// Where programs are named they are asked once a minute, without a word in the file.
#[test]
fn programs_are_asked_by_run_where_they_are_named() {
    let desk = with_program("true");
    std::fs::write(desk.path("run.toml"), "[[link]]\nto = \"tcp://base\"\n").unwrap();
    for (db, is_there) in [("base.db", true), ("north.db", false)] {
        let said = desk.run(&format!("run {db} --check --config run.toml")).ok();
        let asks = "decide: a minute after the start, then every 1 min; programs are asked";
        assert_eq!(said.contains(asks), is_there, "{said}");
    }
    std::fs::write(desk.path("run.toml"), "[decide]\nevery = \"2h\"\n").unwrap();
    let said = desk.run("run base.db --check --config run.toml").ok();
    assert_eq!((said.matches("decide: ").count(), said.contains("every 2 h")), (1, true), "{said}");
}

/// A command that is longer than the file beside the database may be is refused before anything is changed.
#[test]
fn a_command_that_is_too_long_is_refused() {
    let desk = Desk::fleet(&[]);
    let before = desk.files();
    desk.sql("base.db", "CREATE TABLE other (id INTEGER PRIMARY KEY, v)");
    let policy = format!("custom=true {}", "x".repeat(70_000));
    let refused = desk.run_words(&["track", "base.db", "other", "--policy", &policy]);
    has(&refused.refused("base.db.pmprograms"), &["at most 64 KiB", "put it into a file"]);
    assert_eq!(desk.files(), before);
    let tables = desk.run("status base.db --json").ok();
    assert!(!tables.contains("\"other\""), "{tables}");
    let policy = format!("custom=true {}", "x".repeat(60_000));
    desk.run_words(&["track", "base.db", "other", "--policy", &policy, "-q"]).ok();
    assert!(!desk.run("import base.db none.pmb").refused("none.pmb").contains("is not used"));
}

/// What it leaves to a person, and what it decides that cannot be, it is not asked again.
#[test]
fn a_program_leaves_a_conflict_to_a_person() {
    for (script, told) in [
        ("echo x >> asked; echo '{\"leave\": true}'", "left to a person"),
        ("echo x >> asked; echo 'take the newest'", "not JSON"),
        ("echo x >> asked; echo '{\"set\": {\"price\": 1}}'", "no column `price`"),
    ] {
        let desk = with_program(script);
        has(&meet(&desk), &["1 conflict is left to a person by a program", told]);
        meet(&desk);
        assert_eq!(std::fs::read_to_string(desk.path("asked")).unwrap(), "x\n");
        has(&desk.run("status base.db").ok(), &["1 conflict is open"]);
        // After it was mended it is asked again.
        program(&desk, "decide", "echo '{\"take\": \"newest\"}'");
        let again = "DELETE FROM packmule_conflicts WHERE refused IS NOT NULL";
        assert!(PAGE.contains(&format!("`{again}`")));
        desk.sql("base.db", again);
        has(&meet(&desk), &["1 conflict is closed, as a program decided"]);
    }
}

/// Two devices that decide differently do not answer each other for ever: what they disagree about is for a person.
#[test]
fn two_programs_do_not_answer_each_other() {
    let desk = with_program("echo '{\"set\": {\"value\": \"base\"}}'; echo x >> asked-base");
    program(&desk, "other", "echo '{\"set\": {\"value\": \"east\"}}'; echo x >> asked-east");
    desk.run_words(&["track", "east.db", "settings", "--policy", "custom=sh ./other"]).ok();
    desk.run("export east.db east-to-base.pmb").ok();
    desk.run("export base.db base-to-east.pmb").ok();
    desk.run("import base.db east-to-base.pmb").ok();
    desk.run("import east.db base-to-east.pmb").ok();
    for _ in 0..3 {
        desk.carry("base", "east");
        desk.carry("east", "base");
    }
    for asked in ["asked-base", "asked-east"] {
        assert_eq!(std::fs::read_to_string(desk.path(asked)).unwrap(), "x\n", "{asked}");
    }
    has(&desk.run("conflicts base.db").ok(), &["1 conflict is open", "base", "east"]);
    assert_eq!(desk.run("digest base.db").ok(), desk.run("digest east.db").ok());
}

/// What somebody else could have written is not run: a file that others can write to, or that came with another database.
#[test]
#[cfg(unix)]
fn what_came_from_outside_is_never_run() {
    use std::os::unix::fs::PermissionsExt;
    let desk = with_program("touch ran; echo '{\"take\": \"newest\"}'");
    let file = desk.path("base.db.pmprograms");
    let mode = |mode| std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    for wrong in [0o660, 0o606, 0o644] {
        mode(wrong);
        has(&meet(&desk), &["note: base.db.pmprograms is not used", "600"]);
    }
    mode(0o600);
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("base.db", "other.db")).unwrap();
    has(&meet(&desk), &["is not used", "a database in another place"]);
    std::fs::write(&file, "x".repeat(100_000)).unwrap();
    has(&meet(&desk), &["is not used", "it is not as it was written"]);
    assert!(!desk.path("ran").exists());
    desk.run_words(&["track", "base.db", "settings", "--policy", "custom=sh ./decide"]).ok();
    assert!(desk.path("ran").exists());
    desk.run("init --remove base.db --yes").ok();
    assert!(!file.exists());
}
