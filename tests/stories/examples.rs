//! The examples of the help of each command, as people copy them: each is typed, and works.

use std::process::{Command, Stdio};

use crate::support::proposals::copy_all;
use crate::support::{Desk, PACKMULE};

/// What cannot be typed here as it stands, and the test that runs it.
const ELSEWHERE: [(&str, &str); 11] = [
    ("packmule serve ", "tests/serial/process.rs, tests/stories/network.rs: it goes on until it is stopped"),
    ("packmule run north.db --config", "tests/stories/run.rs: it goes on until it is stopped"),
    ("packmule sync north.db --serial", "tests/serial/process.rs: it needs a line"),
    ("packmule sync north.db tcp:", "tests/stories/network.rs: it needs the other end"),
    ("packmule find", "tests/stories/two_hosts.rs: it needs a network"),
    ("packmule fleet new fleet.key --passphrase", "tests/stories/keys.rs: it needs a terminal"),
    ("packmule board check", "tests/stories/board.rs: it looks at this machine"),
    ("packmule board install /home", "tests/stories/board.rs: it looks at this machine"),
    ("source <(packmule completions bash)", "tests/cli/habits.rs: it needs bash"),
    ("packmule demo", "tests/cli/commands.rs: it is long"),
    ("packmule board install card", "tests/stories/board.rs: it needs the users of another system"),
];

/// All examples, without their backslashes.
fn examples(desk: &Desk) -> Vec<String> {
    let general = desk.run("help").ok();
    let commands = general.lines().filter_map(|line| line.strip_prefix("  "));
    let names = commands.filter_map(|line| line.split(' ').next()).filter(|name| !name.is_empty());
    let mut all = Vec::new();
    for name in names.filter(|name| name.chars().all(|c| c.is_ascii_lowercase())) {
        let mut helps = vec![name.to_owned()];
        if name == "fleet" {
            helps = vec!["fleet new".into(), "fleet rotate".into()];
        }
        for help in helps {
            let text = desk.run(&format!("help {help}")).ok();
            let (_, after) = text.split_once("\nexample").unwrap();
            let typed = after.lines().filter_map(|line| line.strip_prefix("  "));
            all.extend(typed.map(str::to_owned));
        }
    }
    all.sort();
    all.dedup();
    all
}

/// A fleet that has all that the examples name. Returns also what stands for the ids in them.
fn fleet() -> (Desk, [(&'static str, String); 4]) {
    let (desk, id) = Desk::conflict();
    for folder in ["card", "north", ".config/fish/completions", ".zfunc"] {
        std::fs::create_dir_all(desk.path(folder)).unwrap();
    }
    desk.run("init south.db --name south --fleet fleet.key").ok();
    desk.sql(
        "north.db",
        "CREATE TABLE stock (id TEXT PRIMARY KEY, amount INTEGER); CREATE TABLE scratch (id TEXT PRIMARY KEY)",
    );
    desk.run("track north.db scratch").ok();
    for board in ["south", "north"] {
        desk.run(&format!("exchange {board}.db card")).ok();
    }
    desk.carry("south", "base");
    desk.carry("base", "north");
    desk.run("export north.db north.pmb").ok();
    desk.run("export north.db card/north.pmb").ok();
    desk.run("snapshot base.db start.pms").ok();
    desk.copy_card("north", "north");
    desk.run("init new.db --name new").ok();
    desk.run("exchange new.db card").ok();
    std::fs::write(desk.path("secret.txt"), "six words\n").unwrap();
    std::fs::write(desk.path("packmule.toml"), "[[link]]\nto = \"card:card\"\n").unwrap();
    let new = desk.run("status new.db --json").json()["fingerprint"].as_str().unwrap().to_owned();
    let log = desk.run("log base.db settings interval").ok();
    let frame = log.lines().find(|line| line.contains("  north-")).unwrap();
    let frame = frame.split_once("frame ").unwrap().1.split([',', ' ']).next().unwrap();
    let named = [
        ("5f3a9c01d2", id),
        ("3f9a61c20b7d4e5586a7c1d2e3f40516", new),
        ("north:5", format!("north:{frame}")),
        ("/media/", String::new()),
    ];
    (desk, named)
}

/// What was typed before, where an example goes on with something.
fn before(example: &str) -> &'static str {
    match example {
        e if e.starts_with("packmule init --remove") => "",
        e if e.starts_with("packmule init ") => "rm -f base.db* north.db*",
        e if e.starts_with("packmule fleet new") => "rm -f fleet.key",
        e if e.starts_with("packmule join ") => "rm -f south.db*",
        e if e.contains("retire base.db south --undo") => "packmule retire base.db south",
        e if e.contains("revoke base.db north --undo") => "packmule revoke base.db north --fleet fleet.key",
        e if e.contains("drop-column") => "packmule schema north.db add-column settings unit TEXT",
        e if e.contains("decide base.db") => "packmule track base.db settings --policy custom='echo {}'",
        e if e.contains("resolve base.db --undo") => "packmule resolve base.db --all --take east",
        _ => "",
    }
}

#[test]
fn every_example_of_help_works() {
    let (desk, named) = fleet();
    let all = examples(&desk);
    assert!(all.len() > 60, "{all:#?}");
    let path = std::path::Path::new(PACKMULE).parent().unwrap().display();
    let path = format!("{path}:{}", std::env::var("PATH").unwrap_or_default());
    let mut typed = 0;
    for example in &all {
        if ELSEWHERE.iter().any(|(begins, _)| example.starts_with(begins)) {
            continue;
        }
        let line = named.iter().fold(example.clone(), |line, (shown, is)| line.replace(shown, is));
        // The other machine is this one.
        let line = line.replace("ssh base ", "");
        let copy = tempfile::tempdir().unwrap();
        copy_all(&desk.path(""), copy.path());
        let run = |line: &str| {
            let mut shell = Command::new("sh");
            shell.args(["-ec", line]).current_dir(copy.path()).env("PATH", &path).env("HOME", copy.path());
            let ran = shell.stdin(Stdio::null()).output().unwrap();
            (ran.status.code(), String::from_utf8_lossy(&ran.stderr).into_owned())
        };
        let ran = run(before(example));
        assert_eq!(ran.0, Some(0), "before {line}: {}", ran.1);
        let (status, said) = run(&line);
        // A person is needed: that is what is asked there.
        let good = status == Some(0) || example.contains("--check") && status == Some(3);
        // Without a person at a terminal nothing is removed.
        let asks = example.contains("--remove") && said.contains("--yes");
        assert!(good || asks, "{example}\n{line}\n{said}");
        typed += 1;
    }
    assert!(typed > 50, "{typed} of {all:#?}");
    for (begins, test) in ELSEWHERE {
        assert!(all.iter().any(|example| example.starts_with(begins)), "{begins}: {test}");
    }
}
