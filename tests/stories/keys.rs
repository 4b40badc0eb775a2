//! Keys at rest: who can read their files, and what is left of one that is not used any more.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::card::{back_up, exchange, restore, rounds};
use crate::support::{Desk, PACKMULE, has};

fn set_mode(desk: &Desk, file: &str, mode: u32) {
    std::fs::set_permissions(desk.path(file), PermissionsExt::from_mode(mode)).unwrap();
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let desk = Desk::fleet(&["north"]);
    for mode in [0o644, 0o640, 0o606] {
        set_mode(&desk, "north.db.pmkey", mode);
        let said = desk.run("seal north.db").proposes(": run `chmod 600 *`").refused("north.db");
        has(&said, &["can be read by others than its owner", "run `chmod 600 "]);
    }
    // What was proposed names this file, and not one in a copy.
    set_mode(&desk, "north.db.pmkey", 0o644);
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
    // The file that is wrong is named, and not the key.
    std::fs::write(desk.path("empty.txt"), "\n").unwrap();
    desk.run(&format!("{init} --passphrase-file empty.txt")).refused("empty.txt");
    desk.run(&format!("{init} --passphrase-file nowhere.txt")).refused("nowhere.txt");
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

/// Runs `packmule` at a terminal, and types a line at each prompt; how it ended, and what the terminal showed.
pub fn at_a_terminal(desk: &Desk, line: &str, typed: &[&str]) -> (bool, String) {
    at_a_terminal_with(desk, line, typed, &[])
}

/// The same, with settings of the environment.
pub fn at_a_terminal_with(
    desk: &Desk,
    line: &str,
    typed: &[&str],
    settings: &[(&str, &str)],
) -> (bool, String) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let terminal =
        OpenOptions::new().read(true).write(true).open(OsStr::from_bytes(name.as_bytes())).unwrap();
    // It makes the terminal the one of a new session.
    let mut command = Command::new("setsid");
    command.args(["--ctty", "--wait"]).arg(PACKMULE).args(line.split(' ')).current_dir(desk.path(""));
    command.env_remove("NO_COLOR").env("TERM", "linux").envs(settings.iter().copied());
    let (input, output) = (terminal.try_clone().unwrap(), terminal.try_clone().unwrap());
    let mut child = command.stdin(input).stdout(output).stderr(terminal).spawn().unwrap();
    drop(command);
    let (mut master, mut shown) = (File::from(master), Vec::new());
    let read = |shown: &mut Vec<u8>, master: &mut File| {
        let mut byte = [0];
        // What ends the terminal is an error on Linux.
        let n = master.read(&mut byte).unwrap_or(0);
        shown.extend_from_slice(&byte[..n]);
        n > 0
    };
    for answer in typed {
        while !shown.ends_with(b": ") && read(&mut shown, &mut master) {}
        master.write_all(format!("{answer}\n").as_bytes()).unwrap();
        shown.push(b'|');
    }
    while read(&mut shown, &mut master) {}
    (child.wait().unwrap().success(), String::from_utf8_lossy(&shown).into_owned())
}

#[test]
fn a_passphrase_is_asked_for_and_not_shown() {
    let desk = Desk::new();
    let (done, shown) = at_a_terminal(&desk, "fleet new fleet.key --passphrase", &["six words", "six word"]);
    has(&shown, &["passphrase for fleet.key: ", "the same again: ", "differ"]);
    assert!(!done && !desk.path("fleet.key").exists(), "{shown}");
    let (done, shown) = at_a_terminal(&desk, "fleet new fleet.key --passphrase", &["six words", "six words"]);
    has(&shown, &["is a new fleet key"]);
    assert!(done && !shown.contains("six"), "{shown}");
    let init = "init base.db --name base --base --fleet fleet.key";
    let (done, shown) = at_a_terminal(&desk, init, &["seven words"]);
    has(&shown, &["passphrase of fleet.key: ", "not the passphrase"]);
    assert!(!done && !shown.contains("seven"), "{shown}");
    let (done, shown) = at_a_terminal(&desk, init, &["six words"]);
    assert!(done && !shown.contains("six"), "{shown}");
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
