//! A system that fails under every command: a full disk, one that fails to write, sync or read, writes that are short,
//! no memory; and a program that is killed. Each command ends with 0, or with 1 and the cause; nothing is called damaged
//! that is not, nothing aborts, the database is whole, and the command can be run again.
//!
//! One place of each kind is tried for each command, always the same. `PACKMULE_FAULTS=N` tries N, `all` tries all, of the
//! allocations each hundredth. `PACKMULE_FAULT="KIND:N COMMAND"` tries one that was told as failed.

use std::path::Path;
use std::process::Command;

use super::faults_of_the_system::System;
use super::skips;
use super::support::{Desk, PACKMULE, Ran, has, not_forgotten, unfolded};

/// Commands, and the database that each is about.
const COMMANDS: [(&str, &str); 36] = [
    ("fleet new other.key", "base.db"),
    ("fleet rotate fleet.key rotated.key", "base.db"),
    ("admit asks.pmb --fleet fleet.key", "base.db"),
    ("trust base.db asks.pmb", "base.db"),
    ("init new.db --name new --fleet fleet.key", "new.db"),
    ("join new.db base.pms --name new --fleet fleet.key", "new.db"),
    ("track north.db more", "north.db"),
    ("untrack north.db settings", "north.db"),
    ("seal north.db", "north.db"),
    ("export north.db out.pmb --encrypt-to base", "north.db"),
    ("export north.db out.pmb", "north.db"),
    ("import base.db north.pmb", "base.db"),
    ("import base.db north.pmb east.pmb", "base.db"),
    ("exchange north.db card", "north.db"),
    ("exchange base.db card --encrypt", "base.db"),
    ("sync north.db exec:./end", "north.db"),
    ("merge base.db east.db", "base.db"),
    ("compact base.db", "base.db"),
    ("prune east.db readings --rows 1", "east.db"),
    ("snapshot base.db out.pms", "base.db"),
    ("resolve base.db --all --take newest", "base.db"),
    ("restore north.db settings interval --from north:2", "north.db"),
    ("undo base.db --by north --since 2020-01-01", "base.db"),
    ("retire base.db east", "base.db"),
    ("revoke base.db east --fleet fleet.key", "base.db"),
    ("rename north.db mast", "north.db"),
    ("schema base.db add-column settings extra TEXT", "base.db"),
    ("at base.db 2026-01-01 out.db", "base.db"),
    ("report base.db out.html", "base.db"),
    ("status base.db", "base.db"),
    ("devices base.db", "base.db"),
    ("conflicts base.db", "base.db"),
    ("digest base.db", "base.db"),
    ("log base.db --values", "base.db"),
    ("verify base.db", "base.db"),
    ("inspect north.pmb", "base.db"),
];

const KINDS: [(&str, &str); 6] = [
    ("k", "killed"),
    ("f", "disk full"),
    ("e", "write fails"),
    ("s", "short write"),
    ("r", "read fails"),
    ("m", "no memory"),
];

/// The commands that are not tried here, and why.
const NOT_HERE: [(&str, &str); 8] = [
    ("serve", "it is the other end of sync, and goes on when one session fails"),
    (
        "run",
        "it does not end; what it does is sync, exchange, compact and prune, and it goes on when one fails",
    ),
    ("decide", "it carries out what programs say, as `resolve` does what is typed"),
    ("find", "it reads and writes no file"),
    ("board", "it writes no database; what it installs is named file by file, and installed again"),
    ("completions", "it reads and writes no file"),
    ("man", "what it writes is made anew by the same command"),
    ("demo", "it runs commands that are here, in a folder that it makes"),
];

/// A base with conflicts of two boards, and what else the commands need.
fn prepared() -> Desk {
    let (desk, _) = Desk::conflict();
    for (n, board) in ["north", "east"].into_iter().enumerate() {
        let sql = format!(
            "CREATE TABLE more (k INTEGER PRIMARY KEY, v BLOB); INSERT INTO more VALUES (1, randomblob(90000));
             INSERT INTO settings VALUES ('of {board}', {n}, 'note'), ('of both', {n}, 'note');
             INSERT INTO readings (value) VALUES (1.5), (2.5), (3.5)"
        );
        desk.sql(&format!("{board}.db"), &sql);
    }
    desk.carry("east", "base");
    desk.carry("base", "east");
    desk.carry("base", "north");
    desk.sql("east.db", "INSERT INTO settings VALUES ('later', 1, 'note')");
    for line in [
        "export north.db north.pmb",
        "export east.db east.pmb",
        "snapshot base.db base.pms",
        "compact base.db",
    ] {
        desk.run(line).ok();
    }
    desk.sql(
        "north.db",
        "UPDATE settings SET note = 'not sealed'; INSERT INTO readings (value) VALUES (4.5)",
    );
    std::fs::create_dir(desk.path("card")).unwrap();
    desk.run("exchange east.db card").ok();
    desk.run("init asks.db --name asks").ok();
    desk.run("export asks.db asks.pmb").ok();
    // The other end of a session, which does not fail.
    desk.script("end", &format!("unset LD_PRELOAD; exec {PACKMULE} serve base.db --stdio"));
    desk
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&to).unwrap();
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), &to).unwrap();
        }
    }
}

fn copy_of(desk: &Desk) -> Desk {
    let copied = Desk::new();
    copy(&desk.path(""), &copied.path(""));
    copied
}

/// What is wrong with how a command ended.
fn wrong_end(ran: &Ran, kind: &str) -> Option<String> {
    let all = format!("{:?}: {}{}", ran.status, ran.out, ran.err);
    let fine = match ran.status {
        Some(0) => true,
        Some(1) => ran.err.contains("packmule: "),
        None => kind == "k",
        _ => false,
    };
    let called_wrong =
        ["damaged", "malformed", "fault of Packmule", "panicked"].iter().any(|word| all.contains(word));
    (!fine || called_wrong).then_some(all)
}

/// Runs a command with a fault, looks, and runs it again.
fn tried(system: &System, from: &Desk, (line, db): (&str, &str), kind: &str, at: u64) -> Result<(), String> {
    let desk = copy_of(from);
    let ran = system.failing(&desk, line, kind, at);
    if let Some(wrong) = wrong_end(&ran, kind) {
        return Err(wrong);
    }
    let first = format!("{:?}: {}{}", ran.status, ran.out, ran.err);
    let again = desk.run(line);
    // What was done, and only not told, is done.
    let says_so =
        ["already", "no table `settings` is tracked here"].iter().any(|word| again.err.contains(word));
    let is_done = ran.status != Some(0) && says_so;
    let once = ran.status == Some(0) && again.status == Some(1);
    if again.status != Some(0) && !is_done && !once {
        return Err(format!("{first}\nagain: {:?}: {}{}", again.status, again.out, again.err));
    }
    let sound = desk.run(&format!("verify {db}"));
    if sound.status != Some(0) {
        return Err(format!("{first}\nverify: {}{}", sound.out, sound.err));
    }
    Ok(())
}

/// The places that are tried, of so many.
fn places(kind: &str, of: u64, salt: u64) -> Vec<u64> {
    let many = match std::env::var("PACKMULE_FAULTS").ok().as_deref() {
        Some("all") if kind == "m" => of / 100 + 1,
        Some("all") => of,
        Some(n) => n.parse().unwrap(),
        None => 1,
    };
    let many = many.min(of);
    (0..many).map(|k| (k * of / many + salt * 7) % of + 1).collect()
}

#[test]
fn a_system_that_fails_under_every_command() {
    let system = match System::new() {
        Ok(system) => system,
        Err(why) => return skips::skip("a system that fails", &why),
    };
    let from = prepared();
    not_forgotten(&COMMANDS.map(|(line, _)| line.to_owned()), &NOT_HERE);
    let only = std::env::var("PACKMULE_FAULT").ok();
    let (mut tries, mut wrong) = ([0; KINDS.len()], Vec::new());
    for (n, (line, db)) in COMMANDS.into_iter().enumerate() {
        let (ran, counts) = system.counted(&copy_of(&from), line);
        assert_eq!(ran.status, Some(0), "packmule {line}: {}{}", ran.out, ran.err);
        for (of_kind, (kind, name)) in KINDS.into_iter().enumerate() {
            let of = match kind {
                "r" => counts.reads,
                "m" => counts.allocations,
                _ => counts.writes,
            };
            for at in places(kind, of, n as u64) {
                let told = format!("{kind}:{at} {line}");
                if only.as_ref().is_some_and(|only| !told.ends_with(only.split_once(' ').unwrap().1)) {
                    continue;
                }
                let one = only.as_ref().and_then(|only| only.split_once(' ')?.0.split_once(':'));
                let at = match one {
                    Some((of_kind, _)) if of_kind != kind => continue,
                    Some((_, at)) => at.parse().unwrap(),
                    None => at,
                };
                tries[of_kind] += 1;
                if let Err(e) = tried(&system, &from, (line, db), kind, at) {
                    wrong.push(format!("{name} at {at} of {of}, PACKMULE_FAULT=\"{kind}:{at} {line}\": {e}"));
                }
            }
        }
    }
    for ((_, name), tries) in KINDS.into_iter().zip(tries) {
        println!("{name}: {tries} tried");
    }
    assert!(wrong.is_empty(), "{} went wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// Where nobody may write to a folder for temporary files, it is that which is said, and the advice works.
#[test]
fn without_a_folder_for_temporary_files_that_is_said() {
    let desk = Desk::fleet(&["north"]);
    desk.sql(
        "north.db",
        "CREATE TABLE many (k TEXT PRIMARY KEY, v, u UNIQUE);
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60000)
           INSERT INTO many SELECT hex(randomblob(16)), randomblob(60), i FROM n",
    );
    desk.run("track north.db many").ok();
    desk.run("export north.db north.pmb").ok();
    // The program and the desk can lie in one of these folders themselves.
    std::fs::copy(PACKMULE, desk.path("program")).unwrap();
    let tried = |with: &str| {
        let script = format!(
            "mount --bind . /mnt && for at in /tmp /var/tmp /usr/tmp /media; do
               test ! -d $at || mount -t tmpfs -o ro none $at || exit 90; done
             cd /media && exec env {with} /mnt/program import /mnt/base.db /mnt/north.pmb"
        );
        let flags = if rustix::process::geteuid().is_root() { "-m" } else { "-rm" };
        let mut own = Command::new("unshare");
        own.args([flags, "sh", "-c", &script]).current_dir(desk.path("."));
        own.output().ok().filter(|output| output.status.code() != Some(90))
    };
    let Some(output) = tried("-u TMPDIR") else {
        return skips::skip("no temporary folder", "nothing can be mounted");
    };
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = unfolded(&String::from_utf8(output.stderr).unwrap());
    has(&said, &["there is no folder for temporary files", "SQLITE_TMPDIR", "nothing of this was kept"]);
    let output = tried("SQLITE_TMPDIR=/mnt").unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}
