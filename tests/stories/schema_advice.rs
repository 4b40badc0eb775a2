//! What is proposed where a table is held or at odds: each way is taken as it is printed, and leads on.

use crate::card::{are_equal, rounds};
use crate::support::{Desk, has, unfolded};

const ALL: [&str; 3] = ["north", "east", "base"];

/// Two boards with an application each, and a base that has its tables from them.
fn desk(tables: [&str; 2]) -> Desk {
    let desk = Desk::new();
    std::fs::create_dir(desk.path("card")).unwrap();
    desk.run("fleet new fleet.key").ok();
    desk.run("init base.db --name base --fleet fleet.key --base").ok();
    for (board, table) in ALL.iter().zip(tables) {
        let db = format!("{board}.db");
        desk.run(&format!("init {db} --name {board} --fleet fleet.key")).ok();
        desk.sql(&db, &format!("{table}; CREATE TABLE other (id TEXT PRIMARY KEY, v)"));
        desk.run(&format!("track {db} item other --ids shared")).ok();
    }
    rounds(&desk, &ALL, 2);
    desk
}

/// What a seal of a board says, in one line.
fn said(desk: &Desk, board: &str) -> String {
    unfolded(&desk.run(&format!("seal {board}.db")).ok())
}

/// What stands in a text between two others.
#[track_caller]
fn between<'t>(text: &'t str, before: &str, after: &str) -> &'t str {
    let found = text.split_once(before).and_then(|(_, rest)| rest.split_once(after));
    found.unwrap_or_else(|| panic!("nothing between {before:?} and {after:?}: {text}")).0
}

/// The command that is printed for a table, as it is typed.
fn untrack(text: &str) -> String {
    let after = text.split_once("packmule untrack ").unwrap_or_else(|| panic!("{text}")).1;
    format!("untrack {}", after.split(['`', '\n']).next().unwrap())
}

/// No table is held or at odds.
fn goes_on(desk: &Desk, name: &str) {
    for table in desk.run(&format!("status {name}.db --json")).json()["tables"].as_array().unwrap() {
        assert!(
            table["how"] != "held" && table["note"].is_null() || table["how"] == "not tracked any more",
            "{name}: {table}"
        );
    }
}

const ITEM: &str = "CREATE TABLE item (id TEXT PRIMARY KEY, name TEXT)";

#[test]
fn a_table_that_was_renamed_is_renamed_back_or_tracked_anew() {
    let desk = desk([ITEM, ITEM]);
    desk.sql("north.db", "INSERT INTO item VALUES ('1', 'one')");
    rounds(&desk, &ALL, 2);
    // The first way: the statement that is printed.
    desk.sql("north.db", "ALTER TABLE item RENAME TO thing; UPDATE thing SET name = 'eins'");
    let told = said(&desk, "north");
    has(&told, &["table `item`: held: it is called `thing` here now"]);
    desk.sql("north.db", between(&told, "run ALTER", ":").replace(" TABLE", "ALTER TABLE").trim());
    rounds(&desk, &ALL, 2);
    are_equal(&desk, &ALL);
    assert_eq!(desk.rows("base.db", "SELECT 1 FROM item WHERE name = 'eins'").len(), 1);
    // The second: under its new name.
    desk.sql("north.db", "ALTER TABLE item RENAME TO thing");
    let told = said(&desk, "north");
    has(&told, &["or track it under its new name, and let the old one go"]);
    desk.run("track north.db thing").ok();
    desk.run(&untrack(&told)).ok();
    rounds(&desk, &ALL, 2);
    assert_eq!(desk.rows("east.db", "SELECT 1 FROM thing WHERE name = 'eins'").len(), 1);
    // Who has let it go keeps nobody waiting.
    desk.sql("east.db", "ALTER TABLE item RENAME COLUMN name TO title; UPDATE item SET title = 'on'");
    rounds(&desk, &ALL, 2);
    goes_on(&desk, "east");
    goes_on(&desk, "base");
    assert_eq!(desk.rows("base.db", "SELECT 1 FROM item WHERE title = 'on'").len(), 1);
}

#[test]
fn a_table_whose_key_was_changed_goes_on_under_another_name_or_with_the_old_key() {
    let desk = desk([ITEM, ITEM]);
    desk.sql("north.db", "INSERT INTO item VALUES ('1', 'one')");
    rounds(&desk, &ALL, 2);
    let with_key = |key: &str| {
        format!(
            "CREATE TABLE new_item (id TEXT, name TEXT, PRIMARY KEY ({key})); INSERT INTO new_item SELECT id, name FROM item;
             DROP TABLE item; ALTER TABLE new_item RENAME TO item"
        )
    };
    desk.sql("north.db", &with_key("id, name"));
    let told = said(&desk, "north");
    has(&told, &["table `item`: held: its primary key is another one now", "put the old one back"]);
    desk.sql("north.db", &with_key("id"));
    rounds(&desk, &ALL, 2);
    ALL.iter().for_each(|name| goes_on(&desk, name));
    are_equal(&desk, &ALL);
    desk.sql("north.db", &with_key("id, name"));
    let told = said(&desk, "north");
    has(&told, &["or give the table another name, track that, and let this one go"]);
    desk.sql("north.db", "ALTER TABLE item RENAME TO item_2");
    desk.run("track north.db item_2").ok();
    desk.run(&untrack(&told)).ok();
    rounds(&desk, &ALL, 2);
    ALL.iter().for_each(|name| goes_on(&desk, name));
    assert_eq!(desk.rows("base.db", "SELECT 1 FROM item_2").len(), 1);
}

/// One table name, and keys of two types: that table alone is held, on both sides by name, until it has two names.
#[test]
fn two_tables_of_one_name_with_different_keys_get_two_names() {
    let desk = desk([ITEM, "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT)"]);
    desk.sql("north.db", "INSERT INTO item VALUES ('1', 'one')");
    desk.sql("east.db", "INSERT INTO item VALUES (1, 'uno'); INSERT INTO other VALUES ('o', 1)");
    rounds(&desk, &ALL, 2);
    assert_eq!(desk.rows("north.db", "SELECT 1 FROM other").len(), 1, "the rest goes on");
    for board in ["north", "east"] {
        let told = said(&desk, board);
        has(&told, &["table `item`: its primary key is", "until the table has another name on one side"]);
    }
    let told = unfolded(&desk.run("status east.db").ok());
    has(&told, &["on one of the two give the table another name, let `item` go there, and track that"]);
    desk.sql("east.db", "ALTER TABLE item RENAME TO item_east");
    desk.run("track east.db item_east --ids shared").ok();
    desk.run(&untrack(&told)).ok();
    rounds(&desk, &ALL, 3);
    ALL.iter().for_each(|name| goes_on(&desk, name));
    assert_eq!(desk.rows("north.db", "SELECT 1 FROM item_east WHERE name = 'uno'").len(), 1);
    assert_eq!(desk.rows("base.db", "SELECT 1 FROM item WHERE name = 'one'").len(), 1);
    are_equal(&desk, &["north", "base"]);
}

/// A dropped table that is not to come back, and one whose UNIQUE is gone.
#[test]
fn a_dropped_table_is_let_go_and_a_lost_unique_is_made_again() {
    let desk = desk([ITEM, ITEM]);
    desk.sql("north.db", "DROP TABLE item");
    let told = said(&desk, "north");
    has(&told, &["table `item`: held: it was dropped here"]);
    desk.run(&untrack(&told)).ok();
    desk.sql("east.db", "ALTER TABLE item ADD COLUMN size INTEGER; ALTER TABLE item DROP COLUMN name");
    rounds(&desk, &ALL, 2);
    ["east", "base"].iter().for_each(|name| goes_on(&desk, name));

    for board in ["north", "east"] {
        desk.sql(&format!("{board}.db"), "CREATE TABLE person (id TEXT PRIMARY KEY, mail TEXT); CREATE UNIQUE INDEX by_mail ON person (mail)");
        desk.run(&format!("track {board}.db person")).ok();
    }
    rounds(&desk, &ALL, 2);
    desk.sql("north.db", "DROP INDEX by_mail");
    desk.run("seal north.db").ok();
    let told = unfolded(&desk.run("status north.db").ok());
    has(&told, &["table `person` lost its UNIQUE (\"mail\") here"]);
    let made = between(&told, "to have it back: CREATE UNIQUE INDEX ...", ")");
    desk.sql("north.db", &format!("CREATE UNIQUE INDEX by_mail_again{made})"));
    rounds(&desk, &ALL, 2);
    ALL.iter().for_each(|name| goes_on(&desk, name));
}

/// What can be tracked by no device is undone as it is said; nothing proposes to track it anew, which would be refused.
#[test]
fn a_definition_that_cannot_travel_is_held_until_what_is_in_the_way_is_gone() {
    let desk = desk([ITEM, ITEM]);
    desk.sql("north.db", "CREATE TABLE reading (id INTEGER PRIMARY KEY, v)");
    desk.run("track north.db reading --mode per-device").ok();
    desk.sql("north.db", "INSERT INTO item VALUES ('1', 'one'); INSERT INTO reading (v) VALUES (1)");
    rounds(&desk, &ALL, 2);

    let long = "x".repeat(70_000);
    desk.sql("north.db", &format!("ALTER TABLE item ADD COLUMN big TEXT DEFAULT '{long}'"));
    desk.sql("north.db", "ALTER TABLE reading ADD COLUMN device TEXT; INSERT INTO reading (v) VALUES (2)");
    let told = said(&desk, "north");
    has(
        &told,
        &["its definition is too large for a frame of", "drop a column, or give it a shorter default"],
    );
    has(
        &told,
        &["it has a column `device`, which is what a base puts before the rows of each device; rename it: "],
    );
    assert!(!told.contains("track"), "{told}");
    let told = unfolded(&desk.run("status north.db").ok());
    assert!(!told.contains("track it again") && !told.contains("packmule untrack"), "{told}");

    desk.sql("north.db", "ALTER TABLE item DROP COLUMN big; UPDATE item SET name = 'eins'");
    desk.sql("north.db", "ALTER TABLE reading RENAME COLUMN device TO sensor");
    rounds(&desk, &ALL, 2);
    ALL.iter().for_each(|name| goes_on(&desk, name));
    are_equal(&desk, &ALL);
    assert_eq!(desk.rows("base.db", "SELECT 1 FROM item WHERE name = 'eins'").len(), 1);
    assert_eq!(desk.rows("base.db", "SELECT sensor FROM reading").len(), 2);
}

/// Between the application's change and the next seal nobody knows yet what became of the table: `status` says so, and what
/// finds out, as the other commands do.
#[test]
fn a_table_that_is_gone_since_the_last_seal_is_something_to_do() {
    let change = ["DROP TABLE item", "ALTER TABLE item RENAME TO thing"];
    for (change, held) in change.into_iter().zip(["it was dropped here", "it is called `thing` here now"]) {
        let desk = desk([ITEM, ITEM]);
        desk.run("seal north.db").ok();
        assert_eq!(desk.run("status north.db --check").status, Some(0));
        desk.sql("north.db", change);
        let what = "table `item`: it was renamed or dropped since the last seal; a seal takes that in:";
        let checked = desk.run("status north.db --check");
        assert_eq!(checked.status, Some(3), "{}", checked.out);
        has(&checked.out, &[what, "packmule seal north.db"]);
        let status = desk.run("status north.db").ok();
        has(&status, &[what, "packmule seal north.db"]);
        assert!(!status.contains("nothing"), "{status}");
        desk.run("seal north.db");
        let after = desk.run("status north.db").ok();
        has(&after, &[held]);
        assert!(!after.contains("since the last seal"), "{after}");
    }
}

/// A UNIQUE that no definition can say: the base is told of it where the table is tracked, and has it by the printed line.
#[test]
fn a_unique_index_of_an_expression_is_made_at_the_base_too() {
    for over in ["lower(place)", "place COLLATE NOCASE) WHERE (unit IS NOT NULL"] {
        let desk = Desk::fleet(&["north", "south"]);
        std::fs::create_dir(desk.path("card")).unwrap();
        let index = format!("CREATE UNIQUE INDEX one_place ON sensors ({over})");
        let mut told = String::new();
        for name in ["north", "south"] {
            desk.sql(
                &format!("{name}.db"),
                &format!("CREATE TABLE sensors (id TEXT PRIMARY KEY, place TEXT, unit TEXT); {index}"),
            );
            told = unfolded(&desk.run(&format!("track {name}.db sensors")).ok());
        }
        has(&told, &["the UNIQUE index `one_place`", "does not travel", "as at a base"]);
        rounds(&desk, &["north", "south", "base"], 1);
        let printed = told.split('`').find(|part| part.starts_with("CREATE UNIQUE INDEX")).unwrap();
        assert_eq!(printed, index);
        desk.sql("base.db", printed);
        desk.sql("north.db", "INSERT INTO sensors VALUES ('s1', 'Roof', 'C')");
        desk.sql("south.db", "INSERT INTO sensors VALUES ('s2', 'roof', 'K')");
        rounds(&desk, &["north", "south", "base"], 2);
        are_equal(&desk, &["north", "south", "base"]);
        let [at_board, at_base] =
            ["north", "base"].map(|name| desk.run(&format!("conflicts {name}.db --json")).json());
        assert_eq!(at_board, at_base);
        assert_eq!(at_base["conflicts"].as_array().unwrap().len(), 1);
    }
}

/// The same of one that the application makes later: a notice says so once, and again where it is another one.
#[test]
fn a_unique_index_of_an_expression_that_comes_later_is_told() {
    let desk = Desk::fleet(&["north"]);
    desk.sql("north.db", "CREATE TABLE sensors (id TEXT PRIMARY KEY, place TEXT, unit TEXT)");
    desk.run("track north.db sensors").ok();
    for (name, over) in [("one_place", "lower(place)"), ("one_unit", "unit) WHERE (place IS NOT NULL")] {
        let index = format!("CREATE UNIQUE INDEX {name} ON sensors ({over})");
        desk.sql("north.db", &index);
        desk.run("seal north.db").ok();
        let told = unfolded(&desk.run("status north.db").ok());
        has(&told, &[&format!("table `sensors`: the UNIQUE index `{name}`"), "does not travel", &index]);
    }
    desk.sql("north.db", "DROP INDEX one_place; CREATE INDEX plain ON sensors (unit)");
    desk.run("seal north.db").ok();
    let notices = desk.run("status north.db --json").json()["notices"].to_string();
    assert_eq!(notices.matches("the UNIQUE index").count(), 2, "{notices}");
}

/// The same over a generated column, in the table's own statement or by an index: generated columns do not travel, and at the base
/// an index over what the column is made of does it.
#[test]
fn a_unique_over_a_generated_column_is_made_at_the_base_over_what_that_is_made_of() {
    for (column, index) in [
        ("one AS (lower(place)) STORED UNIQUE", ""),
        ("one AS (lower(place))", "CREATE UNIQUE INDEX one_place ON sensors (unit, one)"),
    ] {
        let desk = Desk::fleet(&["north", "south"]);
        std::fs::create_dir(desk.path("card")).unwrap();
        for name in ["north", "south"] {
            let make = format!(
                "CREATE TABLE sensors (id TEXT PRIMARY KEY, place TEXT, unit TEXT, {column}); {index}"
            );
            desk.sql(&format!("{name}.db"), &make);
            let told = unfolded(&desk.run(&format!("track {name}.db sensors")).ok());
            has(&told, &["the UNIQUE index over `one`, which is generated, does not travel", "as at a base"]);
        }
        rounds(&desk, &["north", "south", "base"], 1);
        let at_base = if index.is_empty() { "lower(place)" } else { "unit, lower(place)" };
        desk.sql("base.db", &format!("CREATE UNIQUE INDEX one_place ON sensors ({at_base})"));
        desk.sql("north.db", "INSERT INTO sensors (id, place, unit) VALUES ('s1', 'Roof', 'C')");
        desk.sql("south.db", "INSERT INTO sensors (id, place, unit) VALUES ('s2', 'roof', 'C')");
        rounds(&desk, &["north", "south", "base"], 2);
        are_equal(&desk, &["north", "south", "base"]);
        // Which constraint of whose keeps it out is each database's own.
        let listed = ["north", "base"].map(|name| {
            let all = desk.run(&format!("conflicts {name}.db --json")).json();
            let all = all["conflicts"]
                .as_array()
                .unwrap()
                .iter()
                .map(|one| (one["id"].clone(), one["versions"].clone()));
            all.collect::<Vec<_>>()
        });
        assert_eq!(listed[0], listed[1]);
        assert_eq!(listed[0].len(), 1);
    }
}

/// A conflict of a table that the application has changed since the last seal: nothing is printed before it is known whether it can
/// be told, and nobody takes it for closed.
#[test]
fn a_conflict_of_a_table_that_was_changed_is_not_half_told() {
    let desk = desk([ITEM, ITEM]);
    desk.sql("north.db", "INSERT INTO item VALUES ('1', 'one')");
    rounds(&desk, &ALL, 2);
    for name in ["north", "east"] {
        desk.sql(&format!("{name}.db"), &format!("UPDATE item SET name = '{name}'"));
    }
    rounds(&desk, &ALL, 2);
    has(&desk.run("conflicts north.db").ok(), &["1 conflict is open", "item: id = '1'"]);
    desk.sql("north.db", "ALTER TABLE item RENAME COLUMN name TO title");
    for form in ["", " --json"] {
        let told = desk.run(&format!("conflicts north.db{form}"));
        assert!(
            !told.out.contains("1 conflict is open") && !told.out.contains("conflicts\""),
            "{}",
            told.out
        );
        has(&unfolded(&told.refused("north.db")), &["`packmule seal north.db` takes that in"]);
    }
    has(&desk.run("conflicts north.db --brief").ok(), &["1 conflict is open", "item '1'"]);
    let rehearsed = desk.run("resolve north.db --all --take newest --dry-run");
    rehearsed.proposes("what is held by that is left out, as `packmule seal *` says").ok();
    desk.run("seal north.db").ok();
    for command in ["conflicts north.db", "resolve north.db --all --take newest"] {
        let told = desk
            .run(command)
            .proposes("what is open in tables that are held (*) is left out: `packmule status *`");
        has(&unfolded(&told.ok()), &["no conflict is open", "held (`item`) is left out"]);
    }
    has(
        &desk.run("restore north.db item 1 --from north:1").refused("north.db"),
        &["`item` is held here", "`status`"],
    );
    desk.sql("north.db", "ALTER TABLE item RENAME COLUMN title TO name");
    desk.run("seal north.db").ok();
    has(&desk.run("conflicts north.db").ok(), &["1 conflict is open", "item: id = '1'"]);
}

/// An application's own collation, as that of Anki: the tables that have it are refused by name, and every command works on the
/// rest, saying what it could not look at.
#[test]
fn a_collation_of_the_application_is_in_nobodys_way() {
    let desk = Desk::fleet(&["north"]);
    std::fs::create_dir(desk.path("card")).unwrap();
    let db = rusqlite::Connection::open(desk.path("north.db")).unwrap();
    // As a library leaves it that has the collation.
    db.execute_batch(
        "CREATE TABLE decks (id TEXT PRIMARY KEY, name TEXT COLLATE NOCASE);
         CREATE UNIQUE INDEX of_decks ON decks (name);
         CREATE TABLE cards (id TEXT PRIMARY KEY, v);
         INSERT INTO decks VALUES ('1', 'Übung'); INSERT INTO cards VALUES ('1', 'one');
         PRAGMA writable_schema = ON;
         UPDATE sqlite_schema SET sql = replace(sql, 'NOCASE', 'unicase') WHERE name = 'decks';
         PRAGMA writable_schema = RESET",
    )
    .unwrap();
    drop(db);
    let refused = unfolded(&desk.run("track north.db decks").refused("north.db"));
    has(&refused, &["`decks`", "UNICASE"]);
    desk.run("track north.db cards").ok();
    rounds(&desk, &["north", "base"], 2);
    for command in ["status", "digest", "log", "conflicts", "devices", "seal", "compact"] {
        desk.run(&format!("{command} north.db")).ok();
    }
    desk.run("report north.db page.html").ok();
    desk.run("snapshot north.db copy.db").ok();
    has(&unfolded(&desk.run("verify north.db").ok()), &["not checked", "unicase"]);
    assert_eq!(desk.rows("base.db", "SELECT * FROM cards").len(), 1);
    are_equal(&desk, &["north", "base"]);
}
