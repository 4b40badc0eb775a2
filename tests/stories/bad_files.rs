//! A directory or a card with all sorts of bad files on it: each is named and stepped over, and the good ones come in.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use packmule::Engine;
use packmule::core::wire::{Frame, FrameFlags, FrameWriter, GroupStart, RecordKind};

use crate::bundles;
use crate::skips::skip;
use crate::support::{Desk, PACKMULE, Ran, executable, has};

/// Whoever may not read everything. Root may; so where we are root, this is nobody.
const NOBODY: u32 = 65_534;

/// A bad file, and a part of what is said about it.
type Said = (&'static str, &'static str);

/// What is wrong with the files in the folder `in`.
const BAD: [Said; 6] = [
    ("a-torn.pmb", "cut short"),
    ("b-foreign.pmb", "not a Packmule bundle"),
    ("c-empty.pmb", "empty"),
    ("e-other-fleet.pmb", "devices that are not trusted here"),
    ("f-for-others.pmb", "encrypted"),
    ("h-unreadable.pmb", "ermission denied"),
];

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

/// A base that knows three boards, and a folder with what they and others brought.
fn desk() -> Desk {
    let desk = Desk::fleet(&["north", "east", "west"]);
    for board in ["north", "east", "west"] {
        desk.sql(&format!("{board}.db"), &format!("INSERT INTO settings VALUES ('{board}', 1, NULL)"));
        desk.carry(board, "base");
        desk.carry("base", board);
        desk.sql(&format!("{board}.db"), "UPDATE settings SET value = 2 WHERE key = 'north'");
    }
    desk.carry("base", "north");
    fs::create_dir_all(desk.path("in/d-folder.pmb")).unwrap();
    desk.run("export north.db in/a-torn.pmb").ok();
    let whole = fs::read(desk.path("in/a-torn.pmb")).unwrap();
    fs::write(desk.path("in/a-torn.pmb"), &whole[..whole.len() / 2]).unwrap();
    fs::write(desk.path("in/b-foreign.pmb"), "a letter to somebody, which is no bundle").unwrap();
    fs::write(desk.path("in/c-empty.pmb"), "").unwrap();
    desk.run("fleet new other.key").ok();
    desk.run("init other.db --name other --fleet other.key").ok();
    desk.sql("other.db", "CREATE TABLE settings (key TEXT PRIMARY KEY, value, note TEXT)");
    desk.run("track other.db settings").ok();
    desk.run("export other.db in/e-other-fleet.pmb").ok();
    desk.run("export north.db in/f-for-others.pmb --encrypt-to east").ok();
    desk.run("export west.db in/g-signed.pmb").ok();
    let west = Engine::open(&desk.path("west.db")).unwrap();
    let signed = desk.path("in/g-signed.pmb");
    fs::write(&signed, newer_block(&fs::read(&signed).unwrap(), &west)).unwrap();
    desk.run("export north.db in/h-unreadable.pmb").ok();
    desk.run("export east.db in/z-good.pmb").ok();
    desk
}

/// The last group of a bundle with a block that nobody knows, signed by its author.
fn newer_block(bytes: &[u8], author: &Engine) -> Vec<u8> {
    let mut records = bundles::records(bytes);
    let at = records.iter().rposition(|(kind, _)| *kind == RecordKind::Frame).unwrap();
    let frame = Frame::parse(&records[at].1).unwrap();
    let head = frame.group.unwrap();
    let group = GroupStart { lamport: head.lamport, wall: head.wall, pair: 0, context: &[] };
    let mut buf = [0; 4_096];
    let mut writer = FrameWriter::new(&mut buf, FrameFlags::default(), frame.head.seq, Some(group)).unwrap();
    let body = bundles::with_blocks(writer.finish(), &[0x3f, 1, 2, 3]);
    bundles::replace_frame(&mut records, at, body, author);
    bundles::join(&records)
}

/// All in a folder gets another owner; but the unreadable one is left to whom nobody is.
fn give_away(folder: &Path, root: bool) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.ends_with("h-unreadable.pmb") {
            fs::set_permissions(&path, Permissions::from_mode(0o000)).unwrap();
            continue;
        }
        if path.is_dir() {
            give_away(&path, root);
        }
        if root {
            chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }
    if root {
        chown(folder, Some(NOBODY), Some(NOBODY)).unwrap();
    }
}

/// Runs a line as who may not read everything; nothing where no such program can be run.
fn run(desk: &Desk, line: &str) -> Option<Ran> {
    let (root, program) = (is_root(), desk.path("packmule"));
    if !program.exists() {
        executable::copy(PACKMULE, &program);
    }
    give_away(&desk.path(""), root);
    let words: Vec<&str> = line.split(' ').collect();
    let mut command = Command::new(&program);
    command.current_dir(desk.path("")).args(&words);
    if root {
        command.uid(NOBODY).gid(NOBODY);
    }
    match command.output() {
        Ok(output) => Some(Ran::of(output, &words)),
        Err(e) => {
            skip("bad files beside good ones", &format!("the program cannot be run as nobody: {e}"));
            None
        }
    }
}

/// Each of these files is named on a line with what is wrong with it.
fn named(said: &str, files: &[Said]) {
    for (file, why) in files {
        let line = said.lines().find(|line| line.contains(file) && line.contains("skipped: "));
        assert!(line.is_some_and(|line| line.contains(why)), "{file} ({why}):\n{said}");
    }
}

/// The good one is in, the wrong one waits by name, and work goes on.
fn goes_on(desk: &Desk, said: &str) {
    let seen = desk.rows("base.db", "SELECT value FROM settings WHERE key = 'north'");
    assert_eq!(seen, [[rusqlite::types::Value::Integer(2)]], "{said}");
    let status = run(desk, "status base.db").unwrap().ok();
    assert!(status.contains("west-"), "who sent what cannot be read is named:\n{status}");
    desk.sql("east.db", "INSERT INTO settings VALUES ('later', 1, NULL)");
    run(desk, "export east.db later.pmb").unwrap().ok();
    run(desk, "import base.db later.pmb").unwrap().ok();
    assert_eq!(desk.rows("base.db", "SELECT 1 FROM settings WHERE key = 'later'").len(), 1);
}

#[test]
fn a_directory_of_bad_files_and_good_ones() {
    for command in ["import", "merge"] {
        let desk = desk();
        // A directory is searched, whatever its name is.
        fs::rename(desk.path("in/z-good.pmb"), desk.path("in/d-folder.pmb/z-good.pmb")).unwrap();
        desk.sql("in/plain.db", "CREATE TABLE t (a)");
        let Some(ran) = run(&desk, &format!("{command} base.db in")) else { return };
        let said = ran.ok();
        named(&said, &BAD);
        named(&said, &[("plain.db", "is a database")]);
        goes_on(&desk, &said);
    }
}

#[test]
fn a_card_of_bad_files_and_good_ones() {
    for folder in ["in", "in/PACKMULE"] {
        let desk = desk();
        if folder != "in" {
            fs::rename(desk.path("in"), desk.path("files")).unwrap();
            fs::create_dir(desk.path("in")).unwrap();
            fs::rename(desk.path("files"), desk.path(folder)).unwrap();
        }
        let Some(ran) = run(&desk, "exchange base.db in") else { return };
        let said = ran.ok();
        named(&said, &BAD);
        named(&said, &[("d-folder.pmb", "is not a bundle")]);
        goes_on(&desk, &said);
        // And again, with what it left there itself.
        named(&run(&desk, "exchange base.db in").unwrap().ok(), &BAD);
    }
}

/// A port that one may not use, and what makes one a member of its group.
#[test]
fn a_port_that_one_may_not_use() {
    let desk = Desk::fleet(&["north"]);
    fs::write(desk.path("h-unreadable.pmb"), "").unwrap();
    let Some(ran) = run(&desk, "sync north.db --serial h-unreadable.pmb") else { return };
    let ran = ran.at(&desk).proposes("(`sudo usermod -aG dialout $USER`, then log in again)");
    has(&ran.refused("h-unreadable.pmb"), &["become a member of its group"]);
}

/// The name of a file says nothing in the place of the program, and moves nothing on a terminal.
#[test]
fn a_name_of_two_lines_is_shown_in_one() {
    let desk = Desk::fleet(&["north"]);
    for folder in ["in", "card/PACKMULE"] {
        fs::create_dir_all(desk.path(folder)).unwrap();
        fs::write(desk.path(folder).join("A\npackmule: all is well\u{1b}[2J.PMB"), "no bundle").unwrap();
    }
    for command in ["import base.db in", "exchange base.db card", "admit in --fleet fleet.key"] {
        let ran = desk.run(command);
        let said = ran.out.clone() + &ran.err;
        has(&said, &[r"A\npackmule: all is well\u{1b}[2J.PMB"]);
        assert!(
            !said.contains('\u{1b}') && !said.lines().any(|line| line.starts_with("packmule: all")),
            "{said}"
        );
    }
}

/// The database itself, where what is made of one is wanted: it is not opened, and what makes it is said.
#[test]
fn a_database_in_the_place_of_a_bundle_or_a_snapshot_is_told_as_that() {
    let desk = Desk::fleet(&["north"]);
    let wanted = "is a database, and a file that is made of one is wanted";
    let trusted = desk
        .run("trust north.db base.db")
        .proposes("a file that is made of one is wanted: `packmule * * *` makes one");
    has(&trusted.refused("base.db"), &[wanted, "`packmule export base.db base.db.pmb`"]);
    let joined = desk
        .run("join new.db base.db")
        .proposes("a file that is made of one is wanted: `packmule * * *` makes one");
    has(&joined.refused("base.db"), &[wanted, "`packmule snapshot base.db base.db.pms`"]);
    assert!(!desk.path("new.db").exists());
}
