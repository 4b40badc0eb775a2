//! A fleet that encrypts: by cards alone, and by bundles that are mailed. What is lost tells nothing.

use std::path::PathBuf;

use rusqlite::types::Value as Sql;

use crate::card::{are_equal, back_up, fingerprint, lose, restore, status};
use crate::support::{Desk, has};

/// A device exchanges with the card, encrypted; what it says.
fn exchange(desk: &Desk, name: &str) -> String {
    desk.run(&format!("exchange {name}.db card --encrypt")).ok()
}

fn rounds(desk: &Desk, names: &[&str], times: usize) {
    for name in names.iter().cycle().take(names.len() * times) {
        exchange(desk, name);
    }
}

fn desk(boards: &[&str]) -> Desk {
    let desk = Desk::fleet(boards);
    for board in boards {
        write(&desk, board);
    }
    std::fs::create_dir(desk.path("card")).unwrap();
    desk
}

/// A board writes a setting and a reading that nothing else has in it. The setting goes in pieces, which no frame codes: in
/// clear, its bytes stand in the file.
fn write(desk: &Desk, board: &str) {
    let row = format!(
        "INSERT OR REPLACE INTO settings
         VALUES ('key-of-{board}', 'worth-of-{board} ' || hex(randomblob(50000)), 'noted-by-{board}')"
    );
    desk.sql(&format!("{board}.db"), &row);
    desk.sql(&format!("{board}.db"), "INSERT INTO readings (value) VALUES (20.25)");
}

/// The files on the card.
fn files(desk: &Desk) -> Vec<PathBuf> {
    let Ok(folder) = std::fs::read_dir(desk.path("card/PACKMULE")) else { return Vec::new() };
    folder.map(|entry| entry.unwrap().path()).collect()
}

/// Which of these stand in the bytes of a file on the card.
fn tells(desk: &Desk, words: &[&str]) -> Vec<String> {
    let mut told = Vec::new();
    for file in files(desk) {
        let bytes = std::fs::read(&file).unwrap();
        let has = |word: &&&str| bytes.windows(word.len()).any(|part| part == word.as_bytes());
        told.extend(words.iter().filter(has).map(|word| word.to_string()));
    }
    told
}

const ROWS: [&str; 6] = ["settings", "readings", "key-of-", "worth-of-", "noted-by-", "value"];

fn gathered(desk: &Desk) -> Sql {
    desk.value("base.db", "SELECT count(*) FROM readings")
}

#[test]
fn a_lost_card_tells_nothing() {
    let desk = desk(&["north", "east"]);
    let said = exchange(&desk, "north");
    has(&said, &["left for anyone: who this device is, in clear"]);
    assert_eq!(tells(&desk, &ROWS), [""; 0]);
    // At no time is there a row, or the name of a table.
    for name in ["base", "east", "north"].iter().cycle().take(15) {
        exchange(&desk, name);
        assert_eq!(tells(&desk, &ROWS), [""; 0]);
    }
    are_equal(&desk, &["base", "north", "east"]);
    assert_eq!(gathered(&desk), Sql::Integer(2));
    // Once they know each other, not even a name.
    assert_eq!(tells(&desk, &["north", "base", "east"]), [""; 0]);
    assert!(!files(&desk).is_empty());
    // At rest it stays at rest, and what is acknowledged goes.
    let before = files(&desk).len();
    rounds(&desk, &["base", "north", "east"], 2);
    assert_eq!(files(&desk).len(), before);
    assert!(before <= 3, "{before}");
    // The control: without encryption the same words are found.
    write(&desk, "north");
    desk.run("exchange north.db card").ok();
    assert_ne!(tells(&desk, &["worth-of-"]), [""; 0]);
    // And what lies there in clear is left anew.
    let said = exchange(&desk, "north");
    has(&said, &["removed: it was not encrypted", "encrypted"]);
    assert_eq!(tells(&desk, &ROWS), [""; 0]);
}

/// Nobody types anything but the same exchange: who comes, is admitted, goes back to a backup or begins anew, finds in.
#[test]
fn a_fleet_lives_by_encrypted_cards_alone() {
    let desk = desk(&["north", "east"]);
    rounds(&desk, &["base", "north", "east"], 4);
    are_equal(&desk, &["base", "north", "east"]);
    // A newcomer with a certificate of the fleet.
    desk.run("init west.db --name west --fleet fleet.key").ok();
    desk.sql("west.db", "CREATE TABLE settings (key TEXT PRIMARY KEY, value, note TEXT)");
    desk.run("track west.db settings").ok();
    desk.sql("west.db", "INSERT INTO settings VALUES ('key-of-west', 'worth-of-west', '')");
    let said = exchange(&desk, "west");
    has(&said, &["skipped: the bundle is encrypted", "this device is none of them"]);
    rounds(&desk, &["base", "west", "north", "east"], 4);
    are_equal(&desk, &["base", "north", "east", "west"]);
    assert_eq!(tells(&desk, &["west", "worth-of-"]), [""; 0]);
    // A board without the fleet key: its request is in clear, so that it can be signed where the key is.
    desk.run("init new.db --name new").ok();
    desk.sql("new.db", "CREATE TABLE settings (key TEXT PRIMARY KEY, value, note TEXT)");
    desk.run("track new.db settings").ok();
    desk.sql("new.db", "INSERT INTO settings VALUES ('key-of-new', 'worth-of-new', '')");
    exchange(&desk, "new");
    let said = desk.run("admit card --fleet fleet.key").ok();
    has(&said, &["admitted: new"]);
    let all = ["base", "new", "north", "east", "west"];
    rounds(&desk, &all, 4);
    assert_ne!(status(&desk, "new")["fleet"], serde_json::Value::Null);
    are_equal(&desk, &all);
    assert_eq!(tells(&desk, &ROWS), [""; 0]);
    // A base that was set back.
    back_up(&desk, "base", "backup");
    for board in ["north", "east"] {
        write(&desk, board);
    }
    rounds(&desk, &all, 3);
    restore(&desk, "base", "backup");
    rounds(&desk, &all, 3);
    are_equal(&desk, &all);
    assert_eq!(gathered(&desk), Sql::Integer(4));
    // A base that is gone, and another in its place: what lies there it cannot read.
    lose(&desk, "base");
    desk.run("init base.db --name base --fleet fleet.key --base").ok();
    rounds(&desk, &all, 5);
    are_equal(&desk, &all);
    assert_eq!(tells(&desk, &ROWS), [""; 0]);
}

#[test]
fn a_revoked_device_gets_no_slot() {
    let desk = desk(&["north", "east"]);
    rounds(&desk, &["base", "north", "east"], 4);
    let thief = fingerprint(&desk, "east");
    desk.run(&format!("revoke base.db {thief} --fleet fleet.key")).ok();
    rounds(&desk, &["base", "north"], 3);
    write(&desk, "north");
    rounds(&desk, &["north", "base"], 2);
    for file in files(&desk) {
        let file = file.strip_prefix(desk.path("")).unwrap().display().to_string();
        let seen = desk.run(&format!("inspect {file} --with north.db --json")).json();
        if seen["sender"] == thief.as_str() {
            continue; // It can read its own.
        }
        let said = desk.run(&format!("inspect {file} --with east.db")).refused(&file);
        has(&said, &["this device is none of them"]);
    }
    let said = desk.run("export base.db for-thief.pmb --encrypt-to east").refused("base.db");
    has(&said, &["is revoked"]);
}

#[test]
fn a_bundle_for_devices_opens_with_their_keys_alone() {
    let desk = desk(&["north", "east"]);
    // Nobody is known yet.
    let said = desk.run("export north.db north.pmb --encrypt-to fleet").refused("north.db");
    has(&said, &["no other device's certificate is known here", "--passphrase-file"]);
    desk.carry("base", "north");
    desk.carry("east", "north");
    let said = desk.run("export north.db north.pmb --encrypt-to base").ok();
    has(&said, &["encrypted: base-", " can read it, and this device, and nobody else"]);
    let bytes = std::fs::read(desk.path("north.pmb")).unwrap();
    for word in ROWS.iter().chain(&["north", "base"]) {
        assert!(!bytes.windows(word.len()).any(|part| part == word.as_bytes()), "{word}");
    }
    let said = desk.run("import east.db north.pmb").refused("north.pmb");
    has(&said, &["encrypted to 4 devices at most, and this device is none of them", "have it made again"]);
    // Without a key it is said what it is; with one, what is in it.
    has(&desk.run("inspect north.pmb").ok(), &["an encrypted bundle of", "4 devices at most"]);
    has(&desk.run("inspect north.pmb --with base.db").ok(), &["from         north", "encrypted    to "]);
    let seen = desk.run("inspect north.pmb --json").json();
    assert_eq!((&seen["encrypted"]["at_most"], &seen["encrypted"]["read"]), (&4.into(), &false.into()));
    has(&desk.run("verify north.pmb").refused("north.pmb"), &["no device's key is at hand"]);
    has(&desk.run("verify north.pmb --with base.db").ok(), &["all is well"]);
    // It is this device's own: another one takes its place.
    has(
        &desk.run("export north.db north.pmb --encrypt-to base east").ok(),
        &["encrypted: base-", ", east-", " can read it", "it replaces"],
    );
    for (name, applied) in [("base", "2 rows applied"), ("east", "1 row applied")] {
        has(&desk.run(&format!("import {name}.db north.pmb")).ok(), &[applied]);
    }
    let for_one = desk.run("export north.db one.pmb --for east --encrypt-to base").usage();
    has(&for_one, &["could not read it"]);
    // `merge` of a directory, and standard input.
    has(&desk.run("merge base.db north.pmb").ok(), &["nothing new"]);
}

#[test]
fn a_bundle_under_a_passphrase_goes_by_mail() {
    let desk = desk(&["north"]);
    std::fs::write(desk.path("secret.txt"), "correct horse\n").unwrap();
    std::fs::write(desk.path("other.txt"), "wrong horse\n").unwrap();
    std::fs::write(desk.path("empty.txt"), "\n").unwrap();
    let said = desk.run("export north.db north.pmb --passphrase-file secret.txt").ok();
    has(&said, &["whoever has the passphrase can read it"]);
    has(&desk.run("export north.db x.pmb --passphrase-file empty.txt").refused("empty.txt"), &["is empty"]);
    desk.run("export north.db x.pmb --passphrase-file secret.txt --encrypt-to fleet").usage();
    let said = desk.run("import base.db north.pmb").refused("north.pmb");
    has(&said, &["is encrypted with a passphrase, which is not given: give it with --passphrase-file FILE"]);
    let said = desk.run("import base.db north.pmb --passphrase-file other.txt").refused("north.pmb");
    has(&said, &["encrypted with another passphrase"]);
    has(&desk.run("inspect north.pmb").ok(), &["an encrypted bundle of"]);
    has(&desk.run("verify north.pmb --passphrase-file secret.txt").ok(), &["all is well"]);
    has(&desk.run("inspect north.pmb --passphrase-file secret.txt").ok(), &["with a passphrase"]);
    // Nor does `admit` read it, which takes the fleet key's passphrase alone.
    let said =
        desk.run("admit north.pmb --fleet fleet.key --passphrase-file secret.txt").refused("north.pmb");
    has(&said, &["a request in it is found in the database of a device that has taken it in"]);
    // What takes no passphrase says what does.
    has(&desk.run("trust base.db north.pmb").refused("north.pmb"), &["(of import, merge, inspect, verify)"]);
    // On a card it is named and stepped over.
    std::fs::copy(desk.path("north.pmb"), desk.path("card/north.pmb")).unwrap();
    has(&desk.run("exchange base.db card").ok(), &["skipped: the bundle is encrypted with a passphrase"]);
    has(&desk.run("import base.db card --passphrase-file secret.txt").ok(), &["2 rows applied"]);
    are_equal(&desk, &["base", "north"]);
    // A board with 40 MB has room enough for it.
    let small = |line: &str| desk.run_within(&["-v 40960"], line).ok();
    small("export base.db base.pmb --passphrase-file secret.txt");
    small("import north.db base.pmb --passphrase-file secret.txt");
}

/// What is asked for that would help nobody is said so, with what would.
#[test]
fn what_encrypts_to_nobody_else_is_refused() {
    let desk = desk(&["north"]);
    std::fs::write(desk.path("secret.txt"), "correct horse\n").unwrap();
    std::fs::write(desk.path("other.txt"), "wrong horse\n").unwrap();
    let said = desk.run("export north.db x.pmb --encrypt-to north").refused("north.db");
    has(&said, &["--encrypt-to names this device alone", "name another one too"]);
    // An older bundle under another passphrase may be anybody's; under the same one it is replaced.
    desk.run("export north.db north.pmb --passphrase-file secret.txt").ok();
    for with in ["", " --passphrase-file other.txt"] {
        let said = desk.run(&format!("export north.db north.pmb{with}")).refused("north.pmb");
        has(&said, &["is encrypted with another passphrase", "choose another name"]);
    }
    has(&desk.run("export north.db north.pmb --passphrase-file secret.txt").ok(), &["it replaces an older"]);
    // A passphrase of a fleet key that is not given.
    for line in ["init x.db", "join x.db north.pmb", "revoke north.db north", "retire north.db north"] {
        let said = desk.run(&format!("{line} --passphrase-file secret.txt")).usage();
        has(&said, &["--passphrase-file is for the fleet key", "--fleet FILE"]);
    }
    // What a new key proposes works as it is printed.
    let said = desk.run("fleet new f.key --passphrase-file secret.txt").ok();
    has(&said, &["`packmule init DB --fleet f.key --passphrase-file secret.txt`"]);
    desk.run("init y.db --fleet f.key --passphrase-file secret.txt").ok();
    let said = desk.run("fleet rotate f.key g.key --passphrase-file secret.txt").ok();
    has(&said, &["packmule admit DB --fleet g.key --passphrase-file secret.txt"]);
    desk.run("admit y.db --fleet g.key --passphrase-file secret.txt").ok();
    // A directory that is named as a bundle is named, as on a card.
    std::fs::create_dir_all(desk.path("in/odd.pmb")).unwrap();
    desk.run("export base.db in/base.pmb").ok();
    for command in ["import", "merge"] {
        has(&desk.run(&format!("{command} north.db in")).ok(), &["odd.pmb", "is a directory"]);
    }
}

/// What became of it on the way: a region of the file, with a byte flipped, and the file cut there.
fn changed(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let slots = usize::from(u16::from_le_bytes([bytes[10], bytes[11]]));
    let body = 44 + 48 * slots;
    let regions = [
        ("the magic", 1),
        ("the version", 8),
        ("the kind", 9),
        ("the number of slots", 10),
        ("the sender's key", 12),
        ("the sender's key, at its end", 43),
        ("the first slot", 44),
        ("the last slot", body - 1),
        ("the first chunk", body),
        ("in the first chunk", body + 20_000),
        ("the first chunk's tag", body + 65_536 + 3),
        ("the second chunk", body + 65_552),
        ("the last tag", bytes.len() - 1),
    ];
    let mut all = Vec::new();
    for (name, at) in regions {
        let mut flipped = bytes.to_vec();
        flipped[at] ^= 0x10;
        all.push((format!("{name}, flipped"), flipped));
        all.push((format!("{name}, cut"), bytes[..at].to_vec()));
    }
    all
}

/// By hand, and on a card: it is named, and nothing of it is taken in; then the one as it was made is.
#[test]
fn an_encrypted_bundle_that_was_changed_changes_nothing() {
    let desk = desk(&["north"]);
    desk.carry("base", "north");
    desk.run("export north.db whole.pmb --encrypt-to base").ok();
    let whole = std::fs::read(desk.path("whole.pmb")).unwrap();
    for (what, bytes) in changed(&whole) {
        let before = desk.dump("base.db");
        std::fs::write(desk.path("bad.pmb"), &bytes).unwrap();
        let refused = desk.run("import base.db bad.pmb").refused("bad.pmb");
        assert!(desk.dump("base.db") == before, "{what}: {refused}");
        std::fs::write(desk.path("card/bad.pmb"), &bytes).unwrap();
        let digest = desk.run("digest base.db").ok();
        has(&desk.run("exchange base.db card").ok(), &["bad.pmb"]);
        assert_eq!(desk.run("digest base.db").ok(), digest, "{what}, on a card");
    }
    // Somebody else's key, and none.
    desk.run("init other.db --name other --fleet fleet.key").ok();
    has(&desk.run("import other.db whole.pmb").refused("whole.pmb"), &["encrypted"]);
    desk.run("import base.db whole.pmb").ok();
    are_equal(&desk, &["base", "north"]);
}
