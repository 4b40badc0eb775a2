//! The JSON documents that commands print are those of `src/docs/json.md`.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::collections::BTreeSet;

use serde_json::Value;
use support::Desk;
use support::json::Page;

/// A desk, and what the documents that it printed have shown.
struct Checked {
    desk: Desk,
    page: Page,
    seen: BTreeSet<String>,
}

impl Checked {
    fn new(desk: Desk) -> Self {
        Self { desk, page: Page::read(), seen: BTreeSet::new() }
    }

    /// Runs a command, of which the page has this section, and checks its document.
    fn run(&mut self, section: &str, line: &str) -> Value {
        let ran = self.desk.run(&format!("{line} --json"));
        let document: Value =
            serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{line}: {e}\n{}{}", ran.out, ran.err));
        self.page.check(section, &document);
        self.seen.insert(section.to_owned());
        document
    }
}

#[test]
fn what_is_printed_is_what_the_page_has() {
    let (desk, id) = Desk::conflict();
    let mut on = Checked::new(desk);
    devices(&mut on);
    carrying(&mut on, &id);
    tables(&mut on);
    looking(&mut on);
    failing(&mut on);
    // These need a second program and a line between: `tests/serial/process.rs`.
    on.seen.extend(["sync".to_owned(), "serve".to_owned(), "run".to_owned()]);
    assert_eq!(on.seen, on.page.sections());
}

fn devices(on: &mut Checked) {
    on.run("fleet new", "fleet new other.key");
    on.run("init", "init new.db --name new --fleet other.key");
    on.run("init", "init alone.db --name alone");
    on.desk.run("export new.db new.pmb").ok();
    on.run("trust", "trust alone.db new.pmb");
    on.desk.run("export alone.db alone.pmb").ok();
    on.run("admit", "admit alone.pmb --fleet other.key");
    on.run("rename", "rename alone.db solo");
    on.run("init --remove", "init --remove alone.db --yes");
    on.run("fleet rotate", "fleet rotate other.key next.key");
    on.run("devices", "devices base.db");
    on.run("revoke", "revoke base.db east");
    on.desk.run("revoke base.db east --undo").ok();
    on.run("snapshot", "snapshot base.db start.pms");
    on.run("join", "join fresh.db start.pms --name fresh --fleet fleet.key");
    on.desk.carry("fresh", "base");
    on.run("retire", "retire base.db fresh");
}

fn carrying(on: &mut Checked, id: &str) {
    on.run("conflicts", "conflicts base.db");
    on.run("log", "log base.db settings interval");
    on.run("resolve", &format!("resolve base.db {id} --take east"));
    on.run("resolve --undo", &format!("resolve base.db --undo {id}"));
    on.desk.sql("north.db", "INSERT INTO settings VALUES ('b', x'00ff', 9e999)");
    on.run("seal", "seal north.db");
    on.desk.carry("base", "north");
    on.run("export", "export north.db north.pmb --for base");
    std::fs::create_dir(on.desk.path("card")).unwrap();
    std::fs::write(on.desk.path("card/photo.jpg"), "JFIF").unwrap();
    std::fs::copy(on.desk.path("north.pmb"), on.desk.path("card/north.pmb")).unwrap();
    on.run("import", "import base.db card");
    on.run("merge", "merge base.db card north.db");
    std::fs::create_dir(on.desk.path("stick")).unwrap();
    for board in ["base", "north", "base"] {
        on.run("exchange", &format!("exchange {board}.db stick"));
    }
    on.run("compact", "compact base.db");
    on.run("compact", "compact north.db");
    on.desk.sql("north.db", "CREATE TABLE beats (id INTEGER PRIMARY KEY AUTOINCREMENT, n)");
    on.desk.run("track north.db beats --mode per-device --append").ok();
    on.run("prune", "prune north.db beats --rows 10");
}

fn tables(on: &mut Checked) {
    on.desk
        .sql("north.db", "CREATE TABLE extra (id INTEGER PRIMARY KEY, v); INSERT INTO extra VALUES (1, 2)");
    on.run("track", "track north.db extra");
    on.run("schema", "schema north.db add-column extra unit TEXT --default C");
    on.run("schema", "schema north.db drop-column extra unit");
    on.run("untrack", "untrack north.db extra");
}

fn looking(on: &mut Checked) {
    std::fs::write(
        on.desk.path("run.toml"),
        "[[link]]\nto = \"tcp://base\"\n[[link]]\nto = \"card:x\"\n[compact]\nevery = \"7d\"\n",
    )
    .unwrap();
    on.run("find", "find base.db --seconds 0");
    on.run("run --check", "run base.db --check --config run.toml");
    for board in ["north", "base"] {
        on.run("status", &format!("status {board}.db"));
        on.run("digest", &format!("digest {board}.db"));
    }
    on.run("log", "log north.db");
    on.run("report", "report base.db fleet.html");
    on.desk.run("seal north.db").ok();
    on.run("at", "at north.db 2026-01-01 then.db");
    on.run("undo", "undo north.db --by north --since 2026-01-01 --dry-run");
    on.desk.sql("north.db", "INSERT INTO settings VALUES ('again', 1, '')");
    on.desk.run("seal north.db").ok();
    let groups = on.desk.run("log north.db settings again --json").json();
    let frame = groups["groups"][0]["frames"][0].as_u64().unwrap();
    on.run("restore", &format!("restore north.db settings again --from north:{frame}"));
    on.desk.run("track north.db settings --policy custom=true").ok();
    on.run("decide", "decide north.db");
    on.run("verify", "verify base.db");
    on.run("verify", "verify north.pmb");
    on.run("inspect", "inspect north.pmb");
    on.run("board", "board");
    on.run("board install", "board install --root root");
    on.run("board check", "board check --root root");
    on.run("board remove", "board remove --root root");
    on.run("board card", "board card /dev/nothing");
    on.run("completions", "completions bash");
    on.run("man", "man pages");
    on.run("demo", "demo");
}

fn failing(on: &mut Checked) {
    let section = "any command that fails";
    on.run(section, "status none.db");
    on.run(section, "track base.db");
    on.desk.run("init stranger.db --name stranger").ok();
    on.desk.run("export stranger.db stranger.pmb").ok();
    on.run(section, "import base.db stranger.pmb");
    // What is stepped over in a directory is no error.
    std::fs::create_dir(on.desk.path("bad")).unwrap();
    std::fs::write(on.desk.path("bad/torn.pmb"), "").unwrap();
    assert!(on.run("import", "import base.db bad")["error"].is_null());
    // This has a document of its own, with the error in it.
    on.desk.sql("north.db", "UPDATE _pm_frame SET body = zeroblob(length(body)) WHERE seq = 1");
    assert!(on.run("verify", "verify north.db")["error"].is_string());
}
