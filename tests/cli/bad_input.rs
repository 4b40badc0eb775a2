//! Bad input: a clear error, exit status 1, and nothing changed.

#![allow(clippy::unwrap_used)]

#[path = "../skips/mod.rs"]
mod skips;
mod support;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;

use packmule::core::wire::{RecordHead, RecordKind, write_record};
use rusqlite::Connection;
use support::{Desk, PACKMULE, Ran, executable, has};

/// A base with rows of its own that are not sealed, and a bundle for it.
fn desk_with_a_bundle() -> (Desk, Vec<u8>) {
    let desk = Desk::fleet(&["north", "east"]);
    desk.sql("north.db", "INSERT INTO settings VALUES ('a', 1, 'first')");
    desk.carry("north", "base");
    desk.sql("base.db", "INSERT INTO settings VALUES ('mine', 1, NULL)");
    desk.sql("north.db", "UPDATE settings SET value = 2; INSERT INTO readings (value) VALUES (1.5), (2.5)");
    desk.run("export north.db good.pmb").ok();
    let good = std::fs::read(desk.path("good.pmb")).unwrap();
    (desk, good)
}

/// Imports these bytes, which must be refused without a trace.
fn refused(desk: &Desk, bytes: &[u8]) -> String {
    std::fs::write(desk.path("bad.pmb"), bytes).unwrap();
    let before = desk.dump("base.db");
    let files = desk.files();
    let reason = desk.run("import base.db bad.pmb").refused("bad.pmb");
    // All that is kept of who is not trusted: that it asks.
    desk.sql("base.db", "DELETE FROM _pm_meta WHERE k GLOB 'request ?*'");
    assert_eq!(desk.dump("base.db"), before);
    assert_eq!(desk.files(), files);
    reason
}

#[test]
fn a_truncated_bundle() {
    let (desk, good) = desk_with_a_bundle();
    for len in (1..good.len()).step_by(61).chain([7, 8, good.len() - 1]) {
        has(&refused(&desk, &good[..len]), &["cut short", "copy or export it again"]);
    }
    let longer = [&good[..], b"x"].concat();
    has(&refused(&desk, &longer), &["does not hold together"]);
    desk.run("import base.db good.pmb").ok();
}

#[test]
fn a_bundle_with_one_bit_flipped() {
    let (desk, good) = desk_with_a_bundle();
    for at in (0..good.len()).step_by(53) {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        refused(&desk, &bad);
    }
    desk.run("import base.db good.pmb").ok();
}

#[test]
fn a_foreign_and_an_empty_file() {
    let (desk, _) = desk_with_a_bundle();
    has(&refused(&desk, b"PK\x03\x04 a zip file"), &["not a Packmule bundle"]);
    has(&refused(&desk, b""), &["empty"]);
    desk.run("import base.db none.pmb").refused("none.pmb");
    has(&desk.run("inspect fleet.key").refused("fleet.key"), &["not a Packmule bundle"]);
    has(&desk.run("import base.db north.db").refused("north.db"), &["packmule merge base.db north.db"]);
    has(
        &desk.run("import good.pmb base.db").refused("good.pmb"),
        &["is a bundle", "the database comes first"],
    );
}

#[test]
fn a_bundle_of_another_version() {
    let (desk, good) = desk_with_a_bundle();
    let head = RecordHead::parse(good[8..16].try_into().unwrap()).unwrap();
    // The body without its CRC, which is made again.
    let body = &good[16..16 + head.len as usize - 4];
    for (version, says) in [(2, "update Packmule"), (0, "write it again")] {
        let mut other = body.to_vec();
        other[0] = version;
        let mut buf = vec![0; other.len() + 16];
        let n = write_record(&mut buf, RecordKind::Header, &other).unwrap();
        let bytes = [&good[..8], &buf[..n], &good[8 + n..]].concat();
        has(&refused(&desk, &bytes), &[says]);
    }
}

#[test]
fn an_untrusted_devices_bundle() {
    let (desk, _) = desk_with_a_bundle();
    desk.run("init stranger.db --name stranger").ok();
    desk.sql("stranger.db", "CREATE TABLE settings (key TEXT PRIMARY KEY, value, note TEXT); INSERT INTO settings VALUES ('a', 9, 'x')");
    desk.run("track stranger.db settings").ok();
    desk.run("export stranger.db stranger.pmb").ok();
    let bytes = std::fs::read(desk.path("stranger.pmb")).unwrap();
    has(
        &refused(&desk, &bytes),
        &["stranger (fingerprint ", "asks for admission", "packmule admit base.db --fleet FILE"],
    );
}

#[test]
fn one_bad_file_of_several_that_were_named() {
    let (desk, good) = desk_with_a_bundle();
    std::fs::write(desk.path("bad.pmb"), &good[..100]).unwrap();
    let before = desk.dump("base.db");
    desk.run("import base.db good.pmb bad.pmb").refused("bad.pmb");
    assert_eq!(desk.dump("base.db"), before, "the good one before it is not taken in either");
    // Nor before an untrusted device's.
    desk.run("init stranger.db --name stranger").ok();
    desk.sql("stranger.db", "CREATE TABLE settings (key TEXT PRIMARY KEY, value, note TEXT)");
    desk.run("track stranger.db settings").ok();
    desk.run("export stranger.db stranger.pmb").ok();
    desk.run("import base.db good.pmb stranger.pmb").refused("stranger.pmb");
    assert_eq!(desk.dump("base.db"), before);
    // By its bundle it is trusted, with its name; and then both are taken in.
    has(&desk.run("trust base.db stranger.pmb").ok(), &["trusted now: stranger"]);
    has(&desk.run("devices base.db").ok(), &["stranger-", "singly"]);
    desk.run("import base.db good.pmb stranger.pmb").ok();
}

#[test]
fn several_tables_of_which_one_cannot_be_tracked() {
    let desk = Desk::new();
    desk.run("init a.db --name a").ok();
    desk.sql("a.db", "CREATE TABLE t (k TEXT PRIMARY KEY); CREATE TABLE none (v)");
    let before = desk.dump("a.db");
    has(&desk.run("track a.db t none").refused("a.db"), &["`none`", "no primary key"]);
    assert_eq!(desk.dump("a.db"), before);
}

/// A board's SD card was cloned, and both boards went on.
#[test]
fn a_cloned_database() {
    let desk = Desk::fleet(&["north"]);
    desk.sql("north.db", "PRAGMA wal_checkpoint(TRUNCATE)");
    std::fs::copy(desk.path("north.db"), desk.path("clone.db")).unwrap();
    std::fs::copy(desk.path("north.db.pmkey"), desk.path("clone.db.pmkey")).unwrap();
    for file in ["north.db", "clone.db"] {
        desk.sql(file, &format!("INSERT INTO settings VALUES ('{file}', 1, NULL)"));
    }
    for file in ["north.db", "clone.db"] {
        desk.run(&format!("seal {file}")).ok();
    }
    desk.run("merge base.db north.db").ok();
    let before = desk.dump("clone.db");
    has(&desk.run("merge base.db clone.db").refused("clone.db"), &["north-", "two histories"]);
    assert_eq!(desk.dump("clone.db"), before, "only its own commands write to it");
    desk.run("export base.db for-clone.pmb").ok();
    has(
        &desk.run("import clone.db for-clone.pmb").ok(),
        &["this database is a fork of a device", "a new identity, north-"],
    );
    has(&desk.run("merge base.db clone.db").ok(), &["1 row applied"]);
    let told = desk.run("status clone.db").ok();
    has(&told, &["second history of north-", "packmule retire clone.db "]);
    desk.run("status clone.db --json").proposes(": `packmule retire * *`").json();
    has(&desk.run("status base.db").ok(), &["north-", "two histories"]);
    // Once it is typed, it is not proposed again.
    let from = told.find("retire clone.db ").unwrap();
    let proposed = told[from..].split(['`', '\n']).next().unwrap();
    desk.run(proposed).ok();
    let told = desk.run("status clone.db").ok();
    has(&told, &["second history of north-"]);
    assert!(!told.contains(proposed) && !told.contains("retire that one"), "{told}");
}

#[test]
fn a_database_that_is_none() {
    let desk = Desk::new();
    std::fs::write(
        desk.path("text.db"),
        "this is text, and long enough to be looked at as a database header is",
    )
    .unwrap();
    desk.sql("plain.db", "CREATE TABLE t (a)");
    std::fs::create_dir(desk.path("folder.db")).unwrap();
    let files = desk.files();
    for command in ["status", "seal", "digest", "devices", "log", "conflicts"] {
        has(&desk.run(&format!("{command} text.db")).refused("text.db"), &["not an SQLite database"]);
        has(&desk.run(&format!("{command} plain.db")).refused("plain.db"), &["packmule init plain.db"]);
        has(&desk.run(&format!("{command} none.db")).refused("none.db"), &["no such file"]);
        has(&desk.run(&format!("{command} folder.db")).refused("folder.db"), &["directory"]);
    }
    has(&desk.run("init text.db").refused("text.db"), &["not an SQLite database"]);
    desk.run("init no/folder/a.db").refused("no/folder/a.db");
    desk.run("init plain.db --fleet text.db").refused("text.db");
    desk.run("init plain.db --fleet none.key").refused("none.key");
    desk.run_words(&["init", "plain.db", "--name", "line\nbreak"]).refused("plain.db");
    assert_eq!(desk.files(), files);
    std::fs::write(desk.path("plain.db.pmkey"), "somebody's key").unwrap();
    has(&desk.run("init plain.db").refused("plain.db"), &["plain.db.pmkey", "move the key away"]);
    std::fs::remove_file(desk.path("plain.db.pmkey")).unwrap();
    desk.run("init plain.db --name p").ok();
    has(&desk.run("init plain.db --name q").refused("plain.db"), &["already the device p"]);
    has(&desk.run("verify text.db").refused("text.db"), &["neither a database nor a bundle"]);
}

#[test]
fn a_locked_database() {
    let (desk, _) = desk_with_a_bundle();
    let before = desk.dump("base.db");
    let writer = Connection::open(desk.path("base.db")).unwrap();
    writer.execute_batch("BEGIN IMMEDIATE; INSERT INTO settings VALUES ('half', 1, NULL)").unwrap();
    for line in
        ["seal base.db", "import base.db good.pmb", "export base.db out.pmb", "untrack base.db settings"]
    {
        has(&desk.run(&format!("{line} --wait 0.1")).refused("base.db"), &["locked", "try again"]);
    }
    // What only looks need not wait.
    desk.run("status base.db --wait 0.1").ok();
    writer.execute_batch("ROLLBACK").unwrap();
    assert_eq!(desk.dump("base.db"), before);
    assert!(!desk.files().iter().any(|name| name.contains("out.pmb")), "{:?}", desk.files());
    desk.run("import base.db good.pmb").ok();
}

#[test]
fn a_boards_database_that_is_locked_or_damaged() {
    let (desk, _) = desk_with_a_bundle();
    desk.sql("north.db", "INSERT INTO settings VALUES ('late', 1, NULL)");
    let writer = Connection::open(desk.path("north.db")).unwrap();
    writer.execute_batch("BEGIN IMMEDIATE; INSERT INTO settings VALUES ('half', 1, NULL)").unwrap();
    // What is sealed in it can be read all the same.
    desk.run("merge base.db north.db --wait 0.1").ok();
    writer.execute_batch("ROLLBACK; PRAGMA journal_mode = DELETE; BEGIN EXCLUSIVE").unwrap();
    let before = desk.dump("base.db");
    has(&desk.run("merge base.db north.db --wait 0.1").refused("north.db"), &["locked", "try again"]);
    assert_eq!(desk.dump("base.db"), before);
    // In a directory it is skipped.
    let merged = desk.run("merge base.db . --wait 0.1 --json").json();
    has(&merged["stepped_over"].to_string(), &["./north.db", "locked"]);
    writer.execute_batch("ROLLBACK").unwrap();
    drop(writer);
    // The base is locked: that is no fault of the source, which has something new.
    desk.run("seal north.db").ok();
    let writer = Connection::open(desk.path("base.db")).unwrap();
    writer.execute_batch("BEGIN IMMEDIATE").unwrap();
    has(&desk.run("merge base.db north.db --wait 0.1").refused("base.db"), &["locked"]);
    writer.execute_batch("ROLLBACK").unwrap();

    desk.sql("plain.db", "CREATE TABLE t (a)");
    has(&desk.run("merge base.db plain.db").refused("plain.db"), &["packmule init plain.db"]);
    let mut bytes = std::fs::read(desk.path("plain.db")).unwrap();
    bytes[100..].fill(0xa5);
    std::fs::write(desk.path("plain.db"), bytes).unwrap();
    let ran = desk.run("merge base.db plain.db").proposes(": run `sqlite3 * 'PRAGMA integrity_check'`");
    has(&ran.refused("plain.db"), &["damaged"]);
    has(&desk.run("merge base.db base.db").refused("base.db"), &["this device itself"]);
}

#[test]
fn unknown_tables_devices_and_conflicts() {
    let (desk, id) = Desk::conflict();
    let before = desk.dump("base.db");
    has(&desk.run("track base.db nothing").refused("base.db"), &["`nothing`", "no such table"]);
    has(&desk.run("untrack base.db nothing").refused("base.db"), &["`nothing`", "tracked are: "]);
    has(&desk.run("untrack base.db settings nothing").refused("base.db"), &["`nothing`"]);
    has(&desk.run("log base.db nothing").refused("base.db"), &["`nothing`"]);
    has(
        &desk.run("log base.db settings a b").refused("base.db"),
        &["key of `settings` is 1", "values given 2"],
    );
    has(
        &desk.run("export base.db a.pmb --for west").refused("base.db"),
        &["no device `west`", "packmule devices base.db", "without --for"],
    );
    has(&desk.run("revoke base.db west").refused("base.db"), &["no device `west`"]);
    has(&desk.run("trust base.db west").refused("west"), &["neither a bundle"]);
    has(
        &desk.run("track base.db settings --policy prefer-device=west").refused("base.db"),
        &["no device `west`"],
    );
    has(
        &desk.run("resolve base.db ffffffff --delete").refused("base.db"),
        &["no open conflict", "packmule conflicts base.db"],
    );
    has(
        &desk.run(&format!("resolve base.db {id} --take base")).refused("base.db"),
        &["take one of", "north"],
    );
    has(&desk.run(&format!("resolve base.db {id} --set valu=1")).refused("base.db"), &["no column `valu`"]);
    assert_eq!(desk.dump("base.db"), before);
}

#[test]
fn a_missing_key_file() {
    let (desk, _) = desk_with_a_bundle();
    std::fs::remove_file(desk.path("base.db.pmkey")).unwrap();
    let before = desk.dump("base.db");
    for line in ["seal base.db", "export base.db out.pmb", "import base.db good.pmb"] {
        has(&desk.run(line).refused("base.db"), &["secret key", "base.db.pmkey", "put it back"]);
    }
    let status = desk.run("status base.db").proposes("packmule init --remove * --dry-run");
    has(&status.ok(), &["secret key   MISSING", "put base.db.pmkey back"]);
    assert_eq!(desk.dump("base.db"), before);
}

/// Root may write to whatever is read-only by its mode; so this is done as nobody, if we are root.
#[test]
fn a_read_only_database() {
    let (desk, _) = desk_with_a_bundle();
    let before = desk.dump("base.db");
    let root = std::fs::metadata("/proc/self").map(|m| std::os::unix::fs::MetadataExt::uid(&m)).unwrap() == 0;
    let program = desk.path("packmule");
    executable::copy(PACKMULE, &program);
    let mode = |name: &str, mode| {
        std::fs::set_permissions(desk.path(name), PermissionsExt::from_mode(mode)).unwrap()
    };
    for name in desk.files().iter().filter(|name| *name != "packmule") {
        mode(name, 0o444);
    }
    mode("packmule", 0o555);
    mode("", 0o555);
    let run = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let mut command = std::process::Command::new(&program);
        command.current_dir(desk.path("")).args(&words);
        if root {
            command.uid(65_534).gid(65_534);
        }
        command.output().map(|output| Ran::of(output, &words))
    };
    match run("--version") {
        Ok(ran) => drop(ran.ok()),
        Err(e) => {
            let why = format!("the program cannot be run as nobody in {}: {e}", desk.path("").display());
            return skips::skip("a read-only database", &why);
        }
    }
    for line in [
        "seal base.db",
        "import base.db good.pmb",
        "export base.db out.pmb",
        "track base.db settings --policy lww",
    ] {
        let reason = run(line).unwrap().refused("base.db");
        assert!(reason.contains("read-only") || reason.contains("cannot be opened"), "{line}: {reason}");
    }
    // What only reads needs no disk that can be written to; and a board's card can be mounted so.
    for line in [
        "status base.db",
        "digest base.db",
        "verify base.db",
        "devices base.db",
        "log base.db",
        "conflicts base.db",
    ] {
        run(line).unwrap().ok();
    }
    // Nor the secret key, which is its owner's alone.
    let (key, whole) =
        (std::fs::read(desk.path("base.db.pmkey")).unwrap(), run("status base.db --json").unwrap().json());
    mode("base.db.pmkey", 0o000);
    for line in [
        "digest base.db",
        "verify base.db",
        "devices base.db",
        "log base.db",
        "conflicts base.db",
        "status base.db",
    ] {
        run(line).unwrap().ok();
    }
    let status = run("status base.db").unwrap().ok();
    has(&status, &["secret key", "base.db.pmkey: this user may not read it"]);
    assert!(!status.contains("put base.db.pmkey back"), "{status}");
    assert_eq!(run("status base.db --json").unwrap().json()["fingerprint"], whole["fingerprint"]);
    assert_eq!(run("status base.db --check").unwrap().status, run("status north.db --check").unwrap().status);
    for (file, to) in [("base.db", 0o666), ("", 0o777)] {
        mode(file, to);
    }
    has(
        &run("fleet new nowhere/a.key").unwrap().refused("nowhere/a.key"),
        &["could not make the key file: no such"],
    );
    for line in ["seal base.db", "import base.db good.pmb", "export base.db out.pmb"] {
        let reason = run(line).unwrap().refused("base.db");
        has(&reason, &["the secret key", "base.db.pmkey is needed, and this user may not read it"]);
    }
    for (file, to) in [("base.db", 0o444), ("base.db.pmkey", 0o444), ("", 0o555)] {
        mode(file, to);
    }
    assert_eq!(std::fs::read(desk.path("base.db.pmkey")).unwrap(), key);
    let other = Desk::new();
    std::fs::set_permissions(other.path(""), PermissionsExt::from_mode(0o777)).unwrap();
    let base = other.path("base.db");
    let base = base.display();
    let merge = || run(&format!("merge {base} north.db --json")).unwrap();
    run(&format!("init {base} --base --name base")).unwrap().ok();
    for name in ["north", "base"] {
        let id = run(&format!("status {name}.db --json")).unwrap().json()["fingerprint"].clone();
        run(&format!("trust {base} {}", id.as_str().unwrap())).unwrap().ok();
    }
    assert!(merge().json()["ops"].as_u64().unwrap() >= 3);
    assert!(merge().json()["frames"] == 0);
    // But not the writes that are still beside the database.
    mode("", 0o755);
    std::fs::write(desk.path("north.db-wal"), "not read here").unwrap();
    mode("north.db-wal", 0o000);
    mode("", 0o555);
    for ran in [run("status north.db").unwrap(), merge()] {
        let file = if ran.err.contains("standard") { "" } else { "north.db" };
        has(&ran.refused(file), &["north.db-wal", "copy the database with that file"]);
    }
    mode("", 0o755);
    mode("base.db", 0o644);
    std::fs::remove_file(desk.path("north.db-wal")).unwrap();
    assert_eq!(desk.dump("base.db"), before);
}
