//! A base that only gathers dies, and is restored from last night's backup.

use rusqlite::types::Value as Sql;
use serde_json::json;

use crate::card::{self, back_up, fingerprint, status};
use crate::network::Serve;
use crate::support::{Desk, PACKMULE, has};

const ALL: [&str; 2] = ["north", "base"];

/// A board and a base in step by a card; the base is backed up, and goes on.
fn backed_up() -> Desk {
    let desk = Desk::fleet(&["north"]);
    std::fs::create_dir(desk.path("card")).unwrap();
    desk.sql("north.db", "INSERT INTO readings (value) VALUES (1), (2)");
    rounds(&desk, 2);
    assert_eq!(gathered(&desk), Sql::Integer(2));
    back_up(&desk, "base", "backup");
    desk.sql("north.db", "INSERT INTO readings (value) VALUES (3), (4), (5)");
    rounds(&desk, 2);
    assert_eq!(gathered(&desk), Sql::Integer(5));
    desk
}

/// The board, then the base, with the card.
fn rounds(desk: &Desk, times: usize) {
    card::rounds(desk, &ALL, times);
}

fn restore(desk: &Desk) {
    card::restore(desk, "base", "backup");
    assert_eq!(gathered(desk), Sql::Integer(2));
}

fn gathered(desk: &Desk) -> Sql {
    desk.value("base.db", "SELECT count(*) FROM readings")
}

fn identities(desk: &Desk) -> [String; 2] {
    ALL.map(|name| fingerprint(desk, name))
}

#[test]
fn it_gets_back_what_it_lost_by_the_card() {
    let desk = backed_up();
    let before = identities(&desk);
    restore(&desk);
    rounds(&desk, 3);
    assert_eq!(gathered(&desk), Sql::Integer(5));
    assert_eq!(identities(&desk), before);
    for name in ALL {
        let status = status(&desk, name);
        assert_eq!((&status["waits"], &status["notices"]), (&json!([]), &json!([])), "{name}");
    }
}

#[test]
fn it_gets_back_what_it_lost_by_a_fresh_card_and_by_files() {
    let desk = backed_up();
    restore(&desk);
    std::fs::remove_dir_all(desk.path("card")).unwrap();
    std::fs::create_dir(desk.path("card")).unwrap();
    desk.run("export base.db says.pmb").ok();
    desk.run("import north.db says.pmb").ok();
    desk.run("export north.db for-base.pmb --for base").ok();
    has(&desk.run("import base.db for-base.pmb").ok(), &["3 rows applied"]);
}

/// Its backup is from before it had heard of the board, which leaves out of its files what the base had of it.
#[test]
fn one_from_before_the_board_waits_for_its_certificate_and_says_so() {
    let desk = Desk::fleet(&["north"]);
    back_up(&desk, "base", "backup");
    let to_base = || {
        desk.sql("north.db", "INSERT INTO readings (value) VALUES (1)");
        desk.run("export north.db for-base.pmb --for base").ok();
        desk.run("import base.db for-base.pmb").ok()
    };
    let to_board = || {
        desk.run("export base.db says.pmb").ok();
        desk.run("import north.db says.pmb").ok();
    };
    to_board();
    to_base();
    to_board();
    has(&to_base(), &["1 row applied"]);
    card::restore(&desk, "base", "backup");
    has(&to_base(), &["waits for its certificate", "restored from a backup", "comes again"]);
    let waits = desk.run("import base.db for-base.pmb --json").ok();
    has(&waits, &["the certificate of its author"]);
    to_board();
    has(&to_base(), &["4 rows applied"]);
    assert_eq!(gathered(&desk), Sql::Integer(4));
}

/// What the base said before is heard again afterwards, as it lies on another card: it counts once.
#[test]
fn an_old_statement_that_comes_again_says_nothing() {
    let desk = backed_up();
    desk.run("export base.db old.pmb").ok();
    desk.run("import north.db old.pmb").ok();
    restore(&desk);
    desk.run("export base.db says.pmb").ok();
    desk.run("import north.db says.pmb").ok();
    desk.run("import north.db old.pmb").ok();
    desk.run("export north.db for-base.pmb --for base").ok();
    desk.run("import base.db for-base.pmb").ok();
    assert_eq!(gathered(&desk), Sql::Integer(5));
}

/// The board has folded what the base has lost: its own table is the state of its stream.
#[test]
fn it_gets_back_what_the_board_has_compacted() {
    let desk = backed_up();
    let before = identities(&desk);
    rounds(&desk, 1);
    desk.run("compact north.db").ok();
    let frames = "SELECT count(*) FROM _pm_frame WHERE stream = 1";
    assert_eq!(desk.value("north.db", frames), Sql::Integer(0), "all of it is folded");
    restore(&desk);
    // A frame after what is folded, from before the board hears what the base lacks.
    desk.sql("north.db", "INSERT INTO readings (value) VALUES (6)");
    desk.run("seal north.db").ok();
    rounds(&desk, 3);
    assert_eq!(gathered(&desk), Sql::Integer(6));
    // It goes on from there; what was reissued is folded as all else, and not reissued again.
    desk.sql("north.db", "INSERT INTO readings (value) VALUES (7)");
    rounds(&desk, 3);
    assert_eq!(gathered(&desk), Sql::Integer(7));
    desk.run("compact north.db").ok();
    rounds(&desk, 2);
    assert_eq!(desk.value("north.db", frames), Sql::Integer(0));
    assert_eq!(identities(&desk), before);
    for name in ALL {
        let status = status(&desk, name);
        assert_eq!((&status["waits"], &status["notices"]), (&json!([]), &json!([])), "{name}");
        desk.run(&format!("verify {name}.db")).ok();
    }
}

/// By one session over whatever carries one; what the board has folded too. What the base said before counts no more.
#[test]
fn it_gets_back_what_it_lost_by_every_way_of_a_session() {
    for (way, folded) in [("tcp", true), ("ws", false), ("http", true), ("exec", true)] {
        let desk = backed_up();
        rounds(&desk, 1);
        if folded {
            desk.run("compact north.db").ok();
        }
        let before = identities(&desk);
        restore(&desk);
        let serve = Serve::new(&desk, &["base.db"]);
        let to = match way {
            "exec" => format!("exec:{PACKMULE} serve base.db --stdio"),
            way => format!("{way}://{}", serve.at),
        };
        for _ in 0..2 {
            desk.run_words(&["sync", "north.db", &to]).ok();
        }
        serve.end();
        assert_eq!(gathered(&desk), Sql::Integer(5), "{way}");
        assert_eq!(identities(&desk), before, "{way}");
        for name in ALL {
            let status = status(&desk, name);
            assert_eq!((&status["waits"], &status["notices"]), (&json!([]), &json!([])), "{way}, {name}");
        }
    }
}
