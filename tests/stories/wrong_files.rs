//! The files of `tests/wrong`, which one board of a fleet has signed: each comes to its base, or to a newcomer, and all that is
//! done there after it ends well.

use std::fs;

use crate::common;
use crate::support::Desk;
use crate::wrong::files::{Must, Wrong, files};
use crate::wrong::{Fleet, SETTINGS, fleet_in, folded_in, known_world};

/// The databases of the fleet that has signed the files.
const DEVICES: [&str; 5] = ["base", "good", "north", "insider", "late"];

/// A desk with a fleet's databases, and its key.
fn desk(for_newcomer: bool) -> Desk {
    let (fleet, mut late) = if for_newcomer {
        folded_in(known_world())
    } else {
        let fleet = fleet_in(known_world());
        let late = fleet.world.board_with("late", SETTINGS, &["settings"]);
        (fleet, late)
    };
    let Fleet { world, base, good, north, insider } = &fleet;
    late.seal().unwrap();
    let desk = Desk::new();
    for (name, device) in DEVICES.iter().zip([base, good, north, insider, &late]) {
        common::copy_card(device, &desk.path(format!("{name}.db")));
    }
    fs::copy(world.dir.path().join("fleet.key"), desk.path("fleet.key")).unwrap();
    desk
}

/// The databases as they were.
fn put_back(desk: &Desk) {
    for name in DEVICES {
        for end in ["db", "db.pmkey"] {
            fs::copy(desk.path(format!("as-it-was/{name}.{end}")), desk.path(format!("{name}.{end}")))
                .unwrap();
        }
        for end in ["db-wal", "db-shm"] {
            let _ = fs::remove_file(desk.path(format!("{name}.{end}")));
        }
    }
}

/// All that a person does after it.
fn goes_on(desk: &Desk, name: &str) {
    desk.sql("good.db", "INSERT INTO settings VALUES (1001, 'honest')");
    desk.carry("good", "base");
    desk.carry("base", "late");
    assert_eq!(desk.rows("late.db", "SELECT 1 FROM settings WHERE id = 1001").len(), 1, "{name}");
    let _ = fs::remove_dir_all(desk.path("card"));
    fs::create_dir(desk.path("card")).unwrap();
    desk.sql("north.db", "INSERT INTO settings VALUES (1002, 'honest')");
    desk.run("exchange north.db card").ok();
    for command in [
        "exchange base.db card",
        "devices base.db",
        "log base.db",
        "status base.db",
        "conflicts base.db",
        "compact base.db",
        "revoke base.db insider --fleet fleet.key",
        "sync base.db exec:PACKMULE\u{a0}serve\u{a0}late.db\u{a0}--stdio",
        "devices late.db",
        "log late.db",
        "status late.db",
    ] {
        let line = command.replace("PACKMULE", crate::support::PACKMULE);
        let words: Vec<String> = line.split(' ').map(|word| word.replace('\u{a0}', " ")).collect();
        desk.run_words(&words).ok();
    }
    assert_eq!(desk.rows("late.db", "SELECT 1 FROM settings WHERE id = 1002").len(), 1, "{name}");
    let digests = ["base", "late"].map(|db| desk.run(&format!("digest {db}.db")).ok());
    // The rows of a state are its maker's word.
    assert!(digests[0] == digests[1] || name == "state-row.pmb", "{name}");
}

#[test]
fn each_file_is_named_and_all_else_goes_on() {
    for for_newcomer in [false, true] {
        let desk = desk(for_newcomer);
        fs::create_dir(desk.path("as-it-was")).unwrap();
        for name in DEVICES {
            for end in ["db", "db.pmkey"] {
                fs::copy(desk.path(format!("{name}.{end}")), desk.path(format!("as-it-was/{name}.{end}")))
                    .unwrap();
            }
        }
        // Every third one: all of them are taken in by `tests/wrong_files.rs`.
        let mine = files().into_iter().filter(|file| file.for_newcomer == for_newcomer).step_by(3);
        for Wrong { name, must, bytes, .. } in mine {
            put_back(&desk);
            fs::write(desk.path(&name), bytes).unwrap();
            let to = if for_newcomer { "late.db" } else { "base.db" };
            let ran = desk.run_words(&["import", to, &name]);
            if must == Must::Refused {
                ran.refused(&name);
            } else {
                ran.ok();
            }
            let status = desk.run(&format!("status {to}")).ok();
            let told = status.lines().any(|line| line.contains("insider"));
            assert!(told || !matches!(must, Must::SetAside | Must::Waits), "{name}:\n{status}");
            goes_on(&desk, &name);
        }
    }
}
