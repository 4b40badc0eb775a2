//! What becomes of devices that a compaction did not wait for: newcomers, those that come back, groups apart.

use super::card::{exchange, fingerprint, rounds, status};
use super::support::{Desk, has};

const NOTES: &str = "CREATE TABLE notes (id TEXT PRIMARY KEY, body TEXT)";

/// A fleet's desk, with a card.
fn desk(boards: &[&str]) -> Desk {
    desk_with(boards, NOTES, "notes")
}

/// The same, with another table, which is tracked so.
fn desk_with(boards: &[&str], table: &str, track: &str) -> Desk {
    let desk = Desk::new();
    std::fs::create_dir(desk.path("card")).unwrap();
    desk.run("fleet new fleet.key").ok();
    begins(&desk, "base", " --base", table, track);
    boards.iter().for_each(|board| begins(&desk, board, "", table, track));
    desk
}

/// A device whose application makes its table itself.
fn begins(desk: &Desk, name: &str, role: &str, table: &str, track: &str) {
    desk.run(&format!("init {name}.db --name {name} --fleet fleet.key{role}")).ok();
    desk.sql(&format!("{name}.db"), table);
    desk.run(&format!("track {name}.db {track}")).ok();
}

fn newcomer(desk: &Desk, name: &str) {
    begins(desk, name, "", NOTES, "notes");
}

/// All show the same, nothing waits, and everybody is who it was.
fn all_the_same(desk: &Desk, names: &[&str], before: &[String]) {
    let digest = desk.run("digest base.db").ok();
    for (name, was) in names.iter().zip(before) {
        assert_eq!(desk.run(&format!("digest {name}.db")).ok(), digest, "{name}");
        let status = status(desk, name);
        assert_eq!(status["fingerprint"], **was, "{name}");
        assert_eq!(status["waits"].as_array().unwrap().len(), 0, "{name}: {status}");
    }
}

/// The base has compacted; a new board with rows of its own meets the card; an old board takes its bundle in before the
/// base does.
#[test]
fn a_newcomer_whose_card_an_old_board_sees_first() {
    let desk = desk(&["north", "south"]);
    desk.sql("north.db", "INSERT INTO notes VALUES ('a', 'first'), ('b', 'first'), ('c', 'first')");
    rounds(&desk, &["base", "north", "south"], 3);
    for name in ["base", "north", "south"] {
        desk.run(&format!("compact {name}.db")).ok();
    }
    newcomer(&desk, "new");
    desk.sql("new.db", "INSERT INTO notes VALUES ('b', 'of new'), ('own', 'only here')");
    let names = ["new", "south", "north", "base"];
    let before: Vec<String> = names.iter().map(|name| fingerprint(&desk, name)).collect();
    rounds(&desk, &names, 4);
    all_the_same(&desk, &names, &before);
    // The row that both have is a conflict that somebody decides; nothing else is.
    has(&desk.run("conflicts base.db").ok(), &["first", "of new"]);
    assert_eq!(desk.run("conflicts base.db --json").json()["conflicts"].as_array().unwrap().len(), 1);
    // The base takes in what comes later, of all of them.
    for name in ["new", "south", "north"] {
        desk.sql(&format!("{name}.db"), &format!("INSERT INTO notes VALUES ('later-{name}', 'x')"));
    }
    rounds(&desk, &names, 3);
    all_the_same(&desk, &names, &before);
    assert_eq!(desk.rows("base.db", "SELECT count(*) FROM notes WHERE id LIKE 'later-%'")[0][0], 3.into());
}

/// All have compacted, and know each other: what is written then travels alone, not with all that was ever written.
#[test]
fn a_fleet_that_has_compacted_carries_what_is_new() {
    let desk = desk(&["north", "south"]);
    desk.sql("north.db", "INSERT INTO notes VALUES ('a', 'first')");
    desk.sql("south.db", "INSERT INTO notes VALUES ('b', 'first')");
    let names = ["base", "north", "south"];
    rounds(&desk, &names, 3);
    names.iter().for_each(|name| _ = desk.run(&format!("compact {name}.db")).ok());
    for (i, writer) in names.iter().enumerate() {
        desk.sql(&format!("{writer}.db"), &format!("INSERT INTO notes VALUES ('new-{i}', 'x')"));
        let left = desk.run(&format!("exchange {writer}.db card --json")).json()["left"].clone();
        assert_eq!(left.as_array().unwrap().len(), 1, "{left}");
        assert_eq!(left[0]["state"], false, "{left}");
        rounds(&desk, &names, 3);
    }
    let digest = desk.run("digest base.db").ok();
    names.iter().for_each(|name| assert_eq!(desk.run(&format!("digest {name}.db")).ok(), digest));
}

/// A board was away for a year and retired meanwhile; the others went on and compacted. It comes back with rows.
#[test]
fn a_board_that_was_retired_comes_back() {
    let desk = desk(&["north", "old"]);
    desk.sql("north.db", "INSERT INTO notes VALUES ('a', 'first'), ('b', 'first'), ('c', 'first')");
    rounds(&desk, &["base", "north", "old"], 3);
    desk.run("retire base.db old").ok();
    desk.sql("north.db", "UPDATE notes SET body = 'second' WHERE id IN ('a', 'b')");
    rounds(&desk, &["base", "north"], 3);
    for name in ["base", "north"] {
        desk.run(&format!("compact {name}.db")).ok();
    }
    desk.sql(
        "old.db",
        "UPDATE notes SET body = 'of old' WHERE id = 'a'; INSERT INTO notes VALUES ('old', 'x')",
    );
    let names = ["old", "base", "north"];
    let before: Vec<String> = names.iter().map(|name| fingerprint(&desk, name)).collect();
    rounds(&desk, &names, 4);
    all_the_same(&desk, &names, &before);
    has(&desk.run("conflicts base.db").ok(), &["second", "of old"]);
    assert_eq!(desk.rows("north.db", "SELECT body FROM notes WHERE id = 'old'")[0][0], "x".to_owned().into());
    // What it had not touched is as the others left it.
    assert_eq!(
        desk.rows("old.db", "SELECT body FROM notes WHERE id = 'b'")[0][0],
        "second".to_owned().into()
    );
}

/// The two groups of a fleet.
const GROUPS: [[&str; 2]; 2] = [["base", "north"], ["east", "west"]];

/// Both groups exchange and compact, each with a card of its own; then all meet, and show the same. Returns who they are.
fn live_apart_and_meet(desk: &Desk) -> Vec<String> {
    std::fs::create_dir(desk.path("other")).unwrap();
    for (card, group) in ["card", "other"].into_iter().zip(GROUPS) {
        for name in group.iter().cycle().take(group.len() * 3) {
            desk.run(&format!("exchange {name}.db {card}")).ok();
            desk.run(&format!("compact {name}.db")).ok();
        }
    }
    let names = GROUPS.as_flattened();
    let before: Vec<String> = names.iter().map(|name| fingerprint(desk, name)).collect();
    rounds(desk, names, 4);
    all_the_same(desk, names, &before);
    before
}

/// Two groups of boards have compacted each on its own, and meet for the first time.
#[test]
fn two_groups_that_compacted_apart_meet() {
    let desk = desk(&["north", "east", "west"]);
    desk.sql("north.db", "INSERT INTO notes VALUES ('same', 's'), ('both', 'north'), ('n', 'n')");
    desk.sql("east.db", "INSERT INTO notes VALUES ('same', 's'), ('both', 'east'), ('e', 'e')");
    live_apart_and_meet(&desk);
    let open = desk.run("conflicts west.db --json").json();
    assert_eq!(open["conflicts"].as_array().unwrap().len(), 1, "{open}");
    assert_eq!(desk.rows("west.db", "SELECT count(*) FROM notes")[0][0], 4.into());
}

/// Two groups of boards have counted the same things, each has compacted on its own: neither sum is known to have what the
/// other has. Both are listed, and somebody says what it is; what each adds from then on adds up.
#[test]
fn two_groups_that_counted_apart_meet() {
    let table = "CREATE TABLE stock (part TEXT PRIMARY KEY, n INTEGER DEFAULT 0)";
    let desk = desk_with(&["north", "east", "west"], table, "stock --column n=counter");
    desk.sql("north.db", "INSERT INTO stock VALUES ('bolt', 5), ('nut', 1)");
    desk.sql("east.db", "INSERT INTO stock VALUES ('bolt', 3), ('nut', 1)");
    let before = live_apart_and_meet(&desk);
    let listed = desk.run("conflicts base.db").ok();
    has(&listed, &["stock: part = bolt", "n  = 5", "n  = 3"]);
    assert!(!listed.contains("nut"), "equal sums are one: {listed}");
    let open = desk.run("conflicts base.db --json").json();
    let id = open["conflicts"][0]["id"].as_str().unwrap().to_owned();
    desk.run(&format!("resolve base.db {id} --set n=8")).ok();
    desk.sql("west.db", "UPDATE stock SET n = n + 1 WHERE part = 'nut'");
    desk.sql("north.db", "UPDATE stock SET n = n + 1 WHERE part = 'nut'");
    let names = GROUPS.as_flattened();
    rounds(&desk, names, 3);
    all_the_same(&desk, names, &before);
    assert_eq!(desk.rows("east.db", "SELECT n FROM stock ORDER BY part"), [[8.into()], [3.into()]]);
    has(&desk.run("conflicts east.db").ok(), &["no conflict is open"]);
}

/// The sizes of the bundles on the card, in bytes.
fn bytes_on(desk: &Desk, card: &str) -> u64 {
    let folder = std::fs::read_dir(desk.path(card).join("PACKMULE"));
    folder.into_iter().flatten().map(|file| file.unwrap().metadata().unwrap().len()).sum()
}

/// A base with 20,000 rows, which all boards have.
fn large(boards: &[&str]) -> Desk {
    let desk = desk(boards);
    desk.sql(
        "base.db",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
         INSERT INTO notes SELECT printf('n%05d', i), 'the first text of row ' || i FROM n",
    );
    rounds(&desk, &["base"].iter().chain(boards).copied().collect::<Vec<_>>(), 3);
    desk.run("compact base.db").ok();
    desk
}

/// While a board was away, 100 of 20,000 rows were changed, and that was folded. The card brings it these, and says so of
/// those that were deleted.
#[test]
fn a_board_that_was_away_gets_the_rows_that_changed() {
    let desk = large(&["north", "away"]);
    desk.run("retire base.db away").ok();
    desk.sql("base.db", "UPDATE notes SET body = 'later' WHERE id < 'n00091'");
    desk.sql("base.db", "DELETE FROM notes WHERE id BETWEEN 'n00091' AND 'n00100'");
    rounds(&desk, &["base", "north"], 3);
    desk.run("compact base.db").ok();
    let before = ["away", "base", "north"].map(|name| fingerprint(&desk, name));
    // It comes with a row, and says what it has.
    desk.sql("away.db", "INSERT INTO notes VALUES ('own', 'of away')");
    exchange(&desk, "away");
    let others = bytes_on(&desk, "card");
    let left = exchange(&desk, "base");
    has(&left, &["the state"]);
    let bytes = bytes_on(&desk, "card").saturating_sub(others);
    assert!(bytes < 20_000, "{bytes} bytes for 100 rows: {left}");
    rounds(&desk, &["away", "base", "north"], 2);
    all_the_same(&desk, &["away", "base", "north"], &before);
    assert_eq!(desk.rows("away.db", "SELECT count(*) FROM notes WHERE body = 'later'")[0][0], 90.into());
    assert_eq!(desk.rows("away.db", "SELECT count(*) FROM notes")[0][0], 19_991.into());
    assert_eq!(desk.run("conflicts base.db --json").json()["conflicts"].as_array().unwrap().len(), 0);
}

/// The board is set back, to a backup from before it had what the card goes on from: it takes nothing of that, says what it
/// has, and is left what it needs.
#[test]
fn a_board_that_was_away_is_restored_from_before() {
    let desk = desk(&["north", "away"]);
    let backup = || {
        desk.sql("away.db", &format!("VACUUM INTO '{}'", desk.path("backup.db").display()));
    };
    rounds(&desk, &["base", "north", "away"], 2);
    backup();
    desk.sql("base.db", "INSERT INTO notes VALUES ('a', 'first'), ('b', 'first')");
    rounds(&desk, &["base", "north", "away"], 3);
    desk.run("compact base.db").ok();
    desk.run("retire base.db away").ok();
    desk.sql("base.db", "UPDATE notes SET body = 'second' WHERE id = 'a'");
    rounds(&desk, &["base", "north"], 3);
    desk.run("compact base.db").ok();
    desk.sql("away.db", "INSERT INTO notes VALUES ('own', 'of away')");
    exchange(&desk, "away");
    has(&exchange(&desk, "base"), &["the state"]);
    for end in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(desk.path(format!("away.db{end}")));
    }
    std::fs::rename(desk.path("backup.db"), desk.path("away.db")).unwrap();
    let names = ["away", "base", "north"];
    let before = names.map(|name| fingerprint(&desk, name));
    rounds(&desk, &names, 3);
    all_the_same(&desk, &names, &before);
    assert_eq!(
        desk.rows("away.db", "SELECT group_concat(body) FROM notes")[0][0],
        "second,first,of away".to_owned().into()
    );
}
