//! A state meets a table of its name that is not tracked there: that table's rows wait, named, and nothing else does.

use rusqlite::types::Value as Sql;

use crate::card::{are_equal, exchange, rounds};
use crate::support::{Desk, has};

/// A base and a board that have compacted rows of two shared tables; a card.
fn folded() -> Desk {
    let desk = Desk::fleet(&["north"]);
    std::fs::create_dir(desk.path("card")).unwrap();
    desk.sql("north.db", "CREATE TABLE notes (id TEXT PRIMARY KEY, body)");
    desk.run("track north.db notes").ok();
    desk.sql(
        "north.db",
        "INSERT INTO settings VALUES ('a', 1, ''), ('b', 1, ''), ('c', 1, '');
         INSERT INTO notes VALUES ('n', 'first')",
    );
    rounds(&desk, &["north", "base"], 3);
    for name in ["base", "north"] {
        desk.run(&format!("compact {name}.db")).ok();
    }
    desk
}

#[test]
fn its_rows_wait_until_it_is_tracked_and_the_rest_comes_in() {
    let desk = folded();
    desk.run("init new.db --name new --fleet fleet.key").ok();
    // By the application's own script, and with rows: one as it is elsewhere, one of its own, one that differs.
    desk.sql(
        "new.db",
        "CREATE TABLE settings (key TEXT PRIMARY KEY, value, note TEXT);
         INSERT INTO settings VALUES ('a', 1, ''), ('c', 2, ''), ('own', 1, '')",
    );
    let before = desk.rows("new.db", "SELECT * FROM settings ORDER BY key");
    exchange(&desk, "new");
    rounds(&desk, &["base"], 1);
    let shown = exchange(&desk, "new");
    has(&shown, &["3 rows wait", "`packmule status new.db` says which"]);
    assert_eq!(desk.value("new.db", "SELECT body FROM notes"), Sql::Text("first".into()));
    assert_eq!(desk.rows("new.db", "SELECT * FROM settings ORDER BY key"), before);
    let status = desk.run("status new.db").proposes("packmule track * *").ok();
    has(&status, &["3 rows wait for table `settings`, which is here and not tracked"]);
    // That may be meant: nobody is asked for.
    desk.run("status new.db --check").ok();
    // What comes later waits as well; nothing else does.
    desk.sql(
        "north.db",
        "UPDATE settings SET value = 9 WHERE key = 'b'; INSERT INTO notes VALUES ('m', 'second')",
    );
    rounds(&desk, &["north", "base", "new"], 2);
    assert_eq!(desk.value("new.db", "SELECT count(*) FROM notes"), Sql::Integer(2));
    desk.run("track new.db settings").ok();
    assert_eq!(desk.value("new.db", "SELECT value FROM settings WHERE key = 'b'"), Sql::Integer(9));
    rounds(&desk, &["new", "base", "north"], 3);
    let all = ["new", "base", "north"];
    are_equal(&desk, &all);
    for name in all {
        assert_eq!(
            desk.value(&format!("{name}.db"), "SELECT count(*) FROM settings"),
            Sql::Integer(4),
            "{name}"
        );
        let open = desk.run(&format!("conflicts {name}.db --json")).json();
        assert_eq!(open["conflicts"].as_array().unwrap().len(), 1, "{name}: {open}");
        desk.run(&format!("verify {name}.db")).ok();
    }
}

/// It was let go here, and the others went on and compacted.
#[test]
fn a_table_that_was_let_go_waits_too() {
    let desk = folded();
    desk.run("init new.db --name new --fleet fleet.key").ok();
    rounds(&desk, &["new", "base", "north"], 3);
    are_equal(&desk, &["new", "base"]);
    desk.run("untrack new.db settings").ok();
    desk.run("retire base.db new").ok();
    desk.sql("north.db", "UPDATE settings SET value = 9 WHERE key = 'b'; UPDATE notes SET body = 'later'");
    rounds(&desk, &["north", "base"], 3);
    for name in ["base", "north"] {
        desk.run(&format!("compact {name}.db")).ok();
    }
    rounds(&desk, &["new", "base"], 3);
    assert_eq!(desk.value("new.db", "SELECT body FROM notes"), Sql::Text("later".into()));
    assert_eq!(desk.value("new.db", "SELECT value FROM settings WHERE key = 'b'"), Sql::Integer(1));
    desk.run("track new.db settings").ok();
    rounds(&desk, &["new", "base", "north"], 3);
    are_equal(&desk, &["new", "base", "north"]);
    // What it showed when it was tracked again was written without the others' knowledge: somebody decides.
    let open = desk.run("conflicts base.db --json").json();
    assert_eq!(open["conflicts"].as_array().unwrap().len(), 1, "{open}");
}

/// The same name, another primary key: that table is set aside, and says so.
#[test]
fn a_table_that_does_not_fit_is_set_aside_alone() {
    let desk = folded();
    desk.run("init new.db --name new --fleet fleet.key").ok();
    desk.sql("new.db", "CREATE TABLE settings (id INTEGER PRIMARY KEY, key TEXT, value)");
    desk.run("track new.db settings").ok();
    rounds(&desk, &["new", "base", "new"], 1);
    assert_eq!(desk.value("new.db", "SELECT body FROM notes"), Sql::Text("first".into()));
    has(&desk.run("status new.db").ok(), &["settings", "another primary key"]);
    desk.sql("north.db", "UPDATE notes SET body = 'later'");
    rounds(&desk, &["north", "base", "new"], 2);
    assert_eq!(desk.value("new.db", "SELECT body FROM notes"), Sql::Text("later".into()));
}

/// Whoever makes the table later need not know how the others track it.
#[test]
fn it_is_tracked_as_the_others_track_it() {
    let table = "CREATE TABLE stock (id TEXT PRIMARY KEY, amount INTEGER NOT NULL DEFAULT 0, place TEXT)";
    let desk = Desk::fleet(&["north"]);
    std::fs::create_dir(desk.path("card")).unwrap();
    desk.sql("north.db", table);
    desk.run("track north.db stock --merge cell --policy lww --column amount=counter").ok();
    desk.sql("north.db", "INSERT INTO stock VALUES ('bolt', 10, 'barn')");
    rounds(&desk, &["north", "base"], 1);
    desk.run("init new.db --name new --fleet fleet.key").ok();
    desk.sql("new.db", &format!("{table}; INSERT INTO stock VALUES ('nut', 3, 'hall')"));
    exchange(&desk, "new");
    let refused = desk.run("track new.db stock --merge row").refused("new.db");
    has(&refused, &["merge cell", "policy lww"]);
    desk.run("status new.db").proposes("packmule track * *").ok();
    desk.run("track new.db stock").ok();
    rounds(&desk, &["new", "base", "north"], 2);
    for (name, amount) in [("new", 1), ("north", 2)] {
        desk.sql(
            &format!("{name}.db"),
            &format!("UPDATE stock SET amount = amount + {amount}, place = '{name}' WHERE id = 'bolt'"),
        );
    }
    let all = ["new", "base", "north"];
    rounds(&desk, &all, 2);
    are_equal(&desk, &all);
    assert_eq!(desk.value("base.db", "SELECT amount FROM stock WHERE id = 'bolt'"), Sql::Integer(13));
    has(&desk.run("conflicts base.db").ok(), &["no conflict is open"]);
}

const SAMPLES: &str =
    "CREATE TABLE samples (id INTEGER PRIMARY KEY AUTOINCREMENT, v); INSERT INTO samples (v) VALUES (1), (2)";

/// The advice for a table that was tracked as shared, and that nobody else has, is followed; it is gathered then.
fn in_another_mode(desk: &Desk) {
    let anew = "track north.db samples --mode per-device --append";
    has(&desk.run(anew).refused("north.db"), &["no other device is known to have it", "untrack it here"]);
    desk.run("untrack north.db samples").ok();
    desk.run(anew).ok();
    rounds(desk, &["north", "base"], 2);
    let gathered = desk.rows("base.db", "SELECT * FROM samples");
    assert_eq!(gathered.len(), 2, "{gathered:?}");
}

/// Nobody knows where a bundle is that has left: what is said then is true whether it comes or not, and works.
#[test]
fn a_table_whose_bundle_has_left_is_not_said_to_be_here_alone() {
    let desk = Desk::fleet(&["north"]);
    std::fs::create_dir(desk.path("card")).unwrap();
    desk.sql("north.db", SAMPLES);
    desk.run("track north.db samples --ids shared").ok();
    desk.run("export north.db left.pmb").ok();
    let said = desk.run("track north.db samples --mode per-device --append").refused("north.db");
    has(&said, &["no other device is known to have it", "If one has, that device will have it in this mode"]);
    desk.run("import base.db left.pmb").ok();
    let copied = SAMPLES.replace("samples", "own_samples");
    let (made, _) = copied.split_once(';').unwrap();
    desk.sql("north.db", &format!("{made}; INSERT INTO own_samples SELECT * FROM samples"));
    desk.run("track north.db own_samples --mode per-device --append").ok();
    rounds(&desk, &["north", "base"], 2);
    assert_eq!(desk.rows("base.db", "SELECT id, v FROM own_samples").len(), 2);
    assert_eq!(desk.rows("base.db", "SELECT id, v FROM samples").len(), 2);
    are_equal(&desk, &["north", "base"]);
}

/// Whether others have a table is asked of that table alone: what was tracked before it has long travelled.
#[test]
fn a_mode_that_was_wrong_is_changed_though_others_have_other_tables() {
    let desk = Desk::fleet(&["north"]);
    std::fs::create_dir(desk.path("card")).unwrap();
    desk.sql("north.db", "CREATE TABLE places (id TEXT PRIMARY KEY, v); INSERT INTO places VALUES ('a', 1)");
    desk.run("track north.db places").ok();
    rounds(&desk, &["north", "base"], 2);
    desk.sql("north.db", SAMPLES);
    let shared = "track north.db samples --ids shared";
    desk.run(shared).ok();
    in_another_mode(&desk);
    let back = desk.run("track north.db samples --mode shared").refused("north.db");
    has(&back, &["once other devices have a table, its mode stays"]);
    // The other way round, a table that others have is theirs also once it is untracked here.
    desk.run("untrack north.db places").ok();
    let own = desk.run("track north.db places --mode per-device").refused("north.db");
    has(&own, &["once other devices have a table, its mode stays"]);
}

/// A person sees, after the table is tracked, that another mode would have been right: nobody else has it yet, or they do.
#[test]
fn a_mode_that_was_wrong_is_changed_as_long_as_nobody_else_has_the_table() {
    let desk = Desk::fleet(&["north"]);
    std::fs::create_dir(desk.path("card")).unwrap();
    desk.sql("north.db", SAMPLES);
    has(&desk.run("track north.db samples").ok(), &["track it in the mode per-device"]);
    in_another_mode(&desk);
    // For a table that has travelled the advice is another one, and it works as it is said.
    let back = "track north.db samples --mode shared";
    has(&desk.run(back).refused("north.db"), &["once other devices have a table, its mode stays"]);
    desk.run("untrack north.db samples").ok();
    has(&desk.run(back).refused("north.db"), &["into a table of another name"]);
    desk.sql(
        "north.db",
        "CREATE TABLE counts (id TEXT PRIMARY KEY, v); INSERT INTO counts SELECT 'n' || id, v FROM samples",
    );
    desk.run("track north.db counts").ok();
    rounds(&desk, &["north", "base"], 2);
    assert_eq!(desk.rows("base.db", "SELECT * FROM counts").len(), 2);
}
