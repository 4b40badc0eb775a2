//! The office copies a board's card, with its database and its key, and merges the copy.

use rusqlite::types::Value as Sql;
use serde_json::json;

use crate::card::{are_equal, rounds};
use crate::support::{Desk, has};

/// A board with sealed rows and some that are not, and a copy of its card on the office's desk.
fn copied() -> Desk {
    let desk = Desk::fleet(&["north"]);
    desk.sql(
        "north.db",
        "INSERT INTO readings (value) VALUES (1.5), (2.5); INSERT INTO settings VALUES ('a', 1, NULL)",
    );
    desk.run("seal north.db").ok();
    desk.sql("north.db", "INSERT INTO readings (value) VALUES (3.5)");
    desk.copy_card("north", "copy");
    desk
}

fn bytes(desk: &Desk) -> (Vec<u8>, Vec<String>) {
    let names = std::fs::read_dir(desk.path("copy")).unwrap();
    let mut names: Vec<String> = names.map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    (std::fs::read(desk.path("copy/north.db")).unwrap(), names)
}

#[test]
fn a_copy_is_read_and_never_written_to() {
    let desk = copied();
    let before = bytes(&desk);
    let said = desk.run("merge base.db copy/north.db").ok();
    has(
        &said,
        &["3 rows applied", "1 row in it is not sealed, and not taken in", "`packmule seal copy/north.db`"],
    );
    assert!(bytes(&desk) == before, "not a byte, nor a file beside it");
}

#[test]
fn readings_are_not_doubled_and_the_board_stays_who_it_is() {
    let desk = copied();
    let who = desk.run("status north.db --json").json()["fingerprint"].clone();
    desk.run("merge base.db copy/north.db").ok();
    // The board goes on meanwhile, and comes to the base itself, by card.
    desk.sql("north.db", "INSERT INTO readings (value) VALUES (4.5)");
    std::fs::create_dir(desk.path("card")).unwrap();
    for _ in 0..2 {
        desk.run("exchange north.db card").ok();
        desk.run("exchange base.db card").ok();
    }
    // Somebody finds the copy again.
    has(&desk.run("merge base.db copy/north.db").ok(), &["nothing new"]);
    desk.run("exchange north.db card").ok();
    assert_eq!(desk.value("base.db", "SELECT count(*) FROM readings"), Sql::Integer(4));
    assert_eq!(desk.value("base.db", "SELECT count(DISTINCT device) FROM readings"), Sql::Integer(1));
    let status = desk.run("status north.db --json").json();
    assert_eq!(status["fingerprint"], who);
    assert_eq!(status["notices"], json!([]));
    assert_eq!(desk.run("status base.db --json").json()["notices"], json!([]));
}

/// The control: a copy on which somebody has sealed is a second history, and is named.
#[test]
fn a_copy_that_wrote_is_named_and_stays_as_it_is() {
    let desk = copied();
    desk.sql("copy/north.db", "INSERT INTO readings (value) VALUES (9.5)");
    desk.run("seal copy/north.db").ok();
    desk.run("seal north.db").ok();
    desk.run("merge base.db north.db").ok();
    let before = bytes(&desk);
    let refused = desk.run("merge base.db copy/north.db");
    assert_eq!(refused.status, Some(1));
    assert!(refused.err.contains("two histories"), "{}", refused.err);
    assert!(bytes(&desk) == before);
    assert_eq!(desk.value("base.db", "SELECT count(*) FROM readings"), Sql::Integer(3));
}

/// What the board has folded stands in its tables alone, and a row there has a write that is not sealed: that is no settled
/// value. Nothing of it comes before its seal, and then once.
#[test]
fn what_is_not_sealed_in_a_copy_counts_once() {
    let desk = Desk::fleet(&["north"]);
    std::fs::create_dir(desk.path("card")).unwrap();
    desk.sql(
        "north.db",
        "CREATE TABLE stock (id INTEGER PRIMARY KEY, n INTEGER); INSERT INTO stock VALUES (1, 5)",
    );
    desk.run("track north.db stock --column n=counter").ok();
    rounds(&desk, &["base", "north"], 3);
    desk.run("compact north.db").ok();
    desk.sql("north.db", "UPDATE stock SET n = n + 3");
    desk.copy_card("north", "copy");
    desk.run("init office.db --name office --base --fleet fleet.key").ok();
    let said = desk.run("merge office.db copy/north.db").ok();
    has(&said, &["1 row in it is not sealed, and not taken in"]);
    rounds(&desk, &["base", "north", "office"], 3);
    are_equal(&desk, &["base", "north", "office"]);
    for name in ["base", "north", "office"] {
        assert_eq!(desk.value(&format!("{name}.db"), "SELECT n FROM stock"), Sql::Integer(8), "{name}");
    }
}
