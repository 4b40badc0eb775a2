//! Keys at rest: who can read their files, and what is left of one that is not used any more.

use std::os::unix::fs::PermissionsExt;

use crate::card::{back_up, exchange, restore, rounds};
use crate::support::{Desk, has};

fn set_mode(desk: &Desk, file: &str, mode: u32) {
    std::fs::set_permissions(desk.path(file), PermissionsExt::from_mode(mode)).unwrap();
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let desk = Desk::fleet(&["north"]);
    for mode in [0o644, 0o640, 0o606] {
        set_mode(&desk, "north.db.pmkey", mode);
        let said = desk.run("seal north.db").refused("north.db");
        has(&said, &["can be read by others than its owner", "run `chmod 600 "]);
    }
    let said = desk.run("status north.db").refused("north.db");
    let fix = said.split("run `chmod 600 ").nth(1).unwrap().split('`').next().unwrap();
    set_mode(&desk, fix, 0o600);
    desk.run("seal north.db").ok();
    set_mode(&desk, "fleet.key", 0o644);
    let said = desk.run("init east.db --name east --fleet fleet.key").refused("fleet.key");
    has(&said, &["chmod 600 fleet.key"]);
    set_mode(&desk, "fleet.key", 0o400);
    desk.run("init east.db --name east --fleet fleet.key").ok();
}

#[test]
fn a_fleet_key_can_have_a_passphrase() {
    let desk = Desk::new();
    std::fs::write(desk.path("secret.txt"), "correct horse\r\nmore\n").unwrap();
    std::fs::write(desk.path("other.txt"), "wrong horse").unwrap();
    desk.run("fleet new fleet.key --passphrase-file secret.txt").ok();
    let text = std::fs::read_to_string(desk.path("fleet.key")).unwrap();
    has(&text, &["packmule fleet key 1 with a passphrase\n"]);
    assert_eq!(text.lines().nth(1).unwrap().len(), 144);
    let init = "init base.db --name base --base --fleet fleet.key";
    let said = desk.run(&format!("{init} --passphrase-file other.txt")).refused("fleet.key");
    has(&said, &["not the passphrase"]);
    desk.run(&format!("{init} --passphrase-file secret.txt")).ok();
    // Each command that takes it.
    desk.run("init north.db --name north").ok();
    desk.run("export north.db north.pmb").ok();
    let with = "--fleet fleet.key --passphrase-file secret.txt";
    has(&desk.run(&format!("admit north.pmb {with}")).ok(), &["admitted: north"]);
    desk.run(&format!("init east.db --name east {with}")).ok();
    desk.run("export east.db east.pmb").ok();
    desk.run("import base.db east.pmb").ok();
    desk.run(&format!("retire base.db east {with}")).ok();
    desk.run(&format!("revoke base.db east {with}")).ok();
    desk.run("fleet rotate fleet.key next.key --passphrase-file secret.txt").ok();
    has(&std::fs::read_to_string(desk.path("next.key")).unwrap(), &["with a passphrase\n"]);
    desk.run("init west.db --name west --fleet next.key --passphrase-file secret.txt").ok();
}

/// The key of an identity that is given up does not stay, nor one that an earlier version kept.
#[test]
fn an_old_key_does_not_stay() {
    let desk = Desk::fleet(&["north"]);
    std::fs::create_dir(desk.path("card")).unwrap();
    desk.sql("north.db", "INSERT INTO settings VALUES ('a', 1, '')");
    rounds(&desk, &["north", "base"], 2);
    back_up(&desk, "north", "backup");
    desk.sql("north.db", "INSERT INTO settings VALUES ('b', 1, '')");
    rounds(&desk, &["north", "base"], 2);
    let key = |desk: &Desk| std::fs::read(desk.path("north.db.pmkey")).unwrap();
    let before = key(&desk);
    // It goes on from the backup: a second history, with a new identity.
    restore(&desk, "north", "backup");
    desk.sql("north.db", "INSERT INTO settings VALUES ('c', 1, '')");
    desk.run("seal north.db").ok();
    rounds(&desk, &["north", "base", "north"], 2);
    assert_ne!(key(&desk), before);
    assert!(!desk.files().iter().any(|file| file.contains(".pmkey.")), "{:?}", desk.files());
    std::fs::write(desk.path("north.db.pmkey.old"), before).unwrap();
    exchange(&desk, "north");
    assert!(!desk.path("north.db.pmkey.old").exists());
}
