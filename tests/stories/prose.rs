//! The commands that stand in the text of a page, not in a block: each is typed, or stands in a test that types it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{Desk, PACKMULE};

/// The pages, from the repository on.
const PAGES: &[&str] = &["README.md", "src/docs"];

/// How a command of a page's text is tried.
enum How {
    /// Typed so: it ends well.
    Types(&'static str),
    /// Typed so: it says that it serves, and goes on.
    Serves(&'static str),
    /// A test of this file has this: the command as it stands, or what of it is another one's there.
    In(&'static str, &'static str),
}
use How::{In, Serves, Types};

const BUNDLE: &str = "packmule export north.db out.pmb --passphrase-file pass";
const SERIAL: &str = "tests/serial/process.rs";

const HOW: &[(&str, How)] = &[
    ("packmule export north.db north.pmb --passphrase-file FILE", Types(BUNDLE)),
    ("packmule serve base.db --serial /dev/ttyUSB0", In(SERIAL, "\"serve\"")),
    ("packmule sync north.db --serial /dev/ttyAMA0", In(SERIAL, "\"sync\"")),
    ("packmule serve base.db --listen 0.0.0.0:7225", Serves("packmule serve base.db --listen 0.0.0.0:0")),
    (
        "packmule sync north.db tcp://192.168.1.5:7225",
        In("tests/stories/network.rs", "sync north.db tcp://{}"),
    ),
    (
        "packmule sync north.db 'exec:ssh base packmule serve base.db --stdio'",
        Types("packmule sync north.db 'exec:sh -c \"packmule serve base.db --stdio\"'"),
    ),
    ("packmule sync north.db find:", In("tests/stories/two_hosts.rs", "find:")),
    ("packmule decide base.db", In("tests/stories/decisions.rs", "decide base.db")),
    ("packmule run north.db --config packmule.toml", In("tests/stories/run.rs", "\"--config\"")),
    (
        "packmule admit DB... --fleet NEW --anew",
        Types("packmule admit base.db north.db --fleet new.key --anew --base"),
    ),
    ("packmule revoke --fleet", Types("packmule revoke base.db north --fleet fleet.key")),
    ("packmule --help", Types("packmule --help")),
    ("packmule COMMAND --help", Types("packmule resolve --help")),
    (
        "packmule resolve DB --table T --kind update/update --take newest",
        Types("packmule resolve base.db --table settings --kind update/update --take newest"),
    ),
    ("packmule resolve DB --undo ID", In("tests/stories/clinic.rs", "resolve base.db --undo {")),
    ("packmule resolve base.db --undo ID", In("tests/stories/clinic.rs", "resolve base.db --undo {")),
    ("packmule log DB TABLE KEY", Types("packmule log base.db settings interval")),
    ("packmule seal DB", Types("packmule seal base.db")),
    ("packmule log --by", Types("packmule log base.db --by north")),
    ("packmule merge second.db base.db", In("tests/stories/dead_base.rs", "mentioned(PAGE)")),
    (
        "packmule schema base.db drop-column settings value",
        Types("packmule schema base.db drop-column settings value"),
    ),
    (
        "packmule schema north.db add-column settings size INTEGER",
        In("tests/stories/migration_forms.rs", "shell(&desk, &way)"),
    ),
    (
        "packmule track base.db settings --columns follow",
        Types("packmule track base.db settings --columns follow"),
    ),
    ("packmule untrack north.db settings", In("tests/stories/migration_forms.rs", "shell(&desk, &way)")),
    ("packmule devices DB", Types("packmule devices base.db")),
    ("packmule status DB", Types("packmule status base.db")),
    ("packmule status DB --check", In("tests/stories/run.rs", "status north.db --check")),
    ("packmule conflicts DB", Types("packmule conflicts base.db")),
    ("packmule run DB --check", Types("packmule run north.db --check --config packmule.toml")),
    ("packmule run DB --check --config FILE", Types("packmule run north.db --check --config packmule.toml")),
    ("packmule run DB --config FILE", In("tests/stories/run.rs", "\"--config\"")),
    ("packmule revoke DB DEVICE --undo", In("tests/stories/keeper.rs", "revoke base.db north --undo")),
    (
        "packmule revoke base.db north --undo --fleet fleet.key",
        In("tests/stories/keeper.rs", "revoke base.db north --undo --fleet fleet.key"),
    ),
    ("packmule track DB TABLE", Types("packmule track base.db notes")),
    ("packmule fleet rotate", Types("packmule fleet rotate fleet.key next.key")),
    ("packmule sync DB", In("tests/stories/network.rs", "\"sync\"")),
    ("packmule sync DB find:", In("tests/stories/two_hosts.rs", "find:")),
    ("packmule serve DB --listen ADDR:PORT", Serves("packmule serve base.db --listen 127.0.0.1:0")),
    ("packmule serve DB --stdio", Types("packmule sync north.db 'exec:packmule serve base.db --stdio'")),
    ("packmule serve DB --listen [::]:7225 --announce", In("tests/stories/two_hosts.rs", "--announce")),
    ("packmule serve DB --serial FILE", In(SERIAL, "\"serve\"")),
    ("packmule find DB", Types("packmule find base.db --seconds 1")),
    ("packmule admit card --fleet fleet.key", In("tests/stories/new_board.rs", "mentioned(PAGE)")),
    ("packmule rename new.db new-2", In("tests/stories/new_board.rs", "mentioned(PAGE)")),
    ("packmule init --remove new.db", In("tests/stories/new_board.rs", "mentioned(PAGE)")),
    (
        "packmule schema base.db add-column settings place TEXT",
        In("tests/stories/upgrade.rs", "mentioned(PAGE)"),
    ),
];

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// The commands in the text of all pages; a name alone is only mentioned.
fn mentioned() -> Vec<String> {
    let mut files = Vec::new();
    for page in PAGES.iter().map(|page| root().join(page)) {
        if page.is_dir() {
            let entries = std::fs::read_dir(page).unwrap().map(|entry| entry.unwrap().path());
            files.extend(entries.filter(|path| path.extension().is_some_and(|end| end == "md")));
        } else {
            files.push(page);
        }
    }
    files.retain(|path| !path.ends_with("changelog.md"));
    let mut all = Vec::new();
    for path in files {
        let page = std::fs::read_to_string(path).unwrap();
        let prose: String = page.split("```").step_by(2).collect();
        let flat = prose.split_whitespace().collect::<Vec<_>>().join(" ");
        let code = flat.split('`').skip(1).step_by(2);
        all.extend(
            code.filter(|code| {
                code.starts_with("packmule ") && code.split(' ').count() > 2 || *code == "packmule --help"
            })
            .map(str::to_owned),
        );
    }
    all.sort();
    all.dedup();
    all
}

/// A base and a board with a conflict, and the files that the commands name.
fn desk() -> Desk {
    let (desk, _) = Desk::conflict();
    desk.sql("base.db", "CREATE TABLE notes (id TEXT PRIMARY KEY, v)");
    std::fs::write(desk.path("pass"), "a good long passphrase\n").unwrap();
    std::fs::write(desk.path("packmule.toml"), "[compact]\nevery = \"7d\"\nkeep = \"90d\"\n").unwrap();
    desk.run("fleet new new.key").ok();
    desk
}

fn shell(desk: &Desk, line: &str) -> Command {
    let program = Path::new(PACKMULE).parent().unwrap().display();
    let path = format!("{program}:{}", std::env::var("PATH").unwrap_or_default());
    let mut shell = Command::new("sh");
    shell.args(["-ec", &format!("exec {line}")]).current_dir(desk.path("")).env("PATH", path);
    shell.stdin(Stdio::null());
    shell
}

#[test]
fn every_command_in_the_text_of_a_page_is_tried() {
    let mentioned = mentioned();
    assert!(mentioned.len() > 30, "{mentioned:#?}");
    let untried: Vec<&String> =
        mentioned.iter().filter(|line| !HOW.iter().any(|(known, _)| known == line)).collect();
    assert!(untried.is_empty(), "say in HOW how each of these is tried: {untried:#?}");
    let gone: Vec<&str> =
        HOW.iter().map(|(line, _)| *line).filter(|line| !mentioned.iter().any(|of| of == line)).collect();
    assert!(gone.is_empty(), "no page has these any more: {gone:#?}");
    for (line, how) in HOW {
        match how {
            Types(typed) => {
                let desk = desk();
                let ran = shell(&desk, typed).output().unwrap();
                let said = String::from_utf8_lossy(&ran.stderr);
                assert!(ran.status.success(), "`{line}`, typed as `{typed}`:\n{said}");
            }
            Serves(typed) => {
                let desk = desk();
                let mut serving = shell(&desk, typed).stdout(Stdio::piped()).spawn().unwrap();
                let mut first = String::new();
                BufReader::new(serving.stdout.take().unwrap()).read_line(&mut first).unwrap();
                serving.kill().unwrap();
                serving.wait().unwrap();
                assert!(first.contains("listen"), "`{line}`, typed as `{typed}`: {first}");
            }
            In(file, has) => {
                let test = std::fs::read_to_string(root().join(file)).unwrap();
                assert!(test.contains(has), "`{line}`: {file} has no `{has}`");
            }
        }
    }
}
