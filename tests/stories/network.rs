//! A base with a port: boards meet it over a network, by a pipe through another program, and each by every way that there
//! is; strangers get nothing.

use std::path::Path;
use std::process::Command;

use rusqlite::types::Value as Sql;
use serde_json::Value;

use crate::line::synced;
use crate::skips;
use crate::support::program::Program;
use crate::support::{Desk, PACKMULE, has};

/// A running `serve`.
pub struct Serve {
    pub program: Program,
    /// Where it listens.
    pub at: String,
}

impl Serve {
    pub fn new(desk: &Desk, words: &[&str]) -> Self {
        let mut command = desk.command(&["serve"]);
        Self::of(command.args(words).args(["--json", "--listen", "0"]))
    }

    /// Runs a command that is `serve` on a port of this machine.
    pub fn of(command: &mut Command) -> Self {
        let mut program = Program::start(command);
        let at = program.wait("listening")["address"].as_str().unwrap().to_owned();
        assert!(at.starts_with("127.0.0.1:"), "a port alone is for this machine: {at}");
        Self { program, at }
    }

    /// Waits for an event.
    #[track_caller]
    pub fn wait(&mut self, event: &str) -> Value {
        self.program.wait(event)
    }

    /// Ends it as systemd does.
    pub fn end(self) {
        self.program.end();
    }
}

fn readings(desk: &Desk) -> Sql {
    desk.value("base.db", "SELECT count(*) FROM readings")
}

#[test]
fn boards_meet_the_base_over_the_network() {
    let desk = Desk::fleet(&["north", "south"]);
    desk.sql(
        "north.db",
        "INSERT INTO readings (value) VALUES (1), (2); INSERT INTO settings VALUES ('a', 1, NULL)",
    );
    desk.sql("south.db", "INSERT INTO readings (value) VALUES (3)");
    let mut serve = Serve::new(&desk, &["base.db"]);
    let north = desk.run(&format!("sync north.db tcp://{} --json", serve.at)).json();
    assert_eq!((&north["address"], &north["serial"]), (&format!("tcp://{}", serve.at).into(), &Value::Null));
    has(serve.wait("in step")["text"].as_str().unwrap(), &["in step with north-", "3 rows"]);
    serve.wait("ended");
    has(&desk.run(&format!("sync south.db tcp://{}", serve.at)).ok(), &["in step with base-"]);
    assert_eq!(readings(&desk), Sql::Integer(3));
    // What one brought, the other has.
    assert_eq!(desk.value("south.db", "SELECT value FROM settings"), Sql::Integer(1));
    let digest = desk.run("digest base.db").ok();
    assert_eq!(desk.run("digest south.db").ok(), digest);
    // A stranger is told who it is, and gets nothing.
    desk.run("fleet new other.key").ok();
    desk.run("init stranger.db --name stranger --fleet other.key").ok();
    let refused = desk.run(&format!("sync stranger.db tcp://{}", serve.at));
    has(&refused.refused(&format!("tcp://{}", serve.at)), &["not trust"]);
    has(serve.wait("failed")["text"].as_str().unwrap(), &["not trusted here", "stranger"]);
    let clear = desk.run(&format!("sync north.db tcp://{} --plain", serve.at));
    has(&clear.refused(&format!("tcp://{}", serve.at)), &["--plain", "leave it away here"]);
    let at = serve.at.clone();
    serve.end();
    let gone = desk.run(&format!("sync north.db tcp://{at}"));
    has(&gone.refused(&format!("tcp://{at}")), &["nobody listens there"]);
}

/// As every command that sends says it.
#[test]
fn a_server_says_what_is_not_carried() {
    let desk = Desk::fleet(&["north"]);
    desk.carry("north", "base");
    let mut serve = Serve::new(&desk, &["north.db"]);
    desk.run(&format!("sync base.db tcp://{}", serve.at)).ok();
    let said = serve.wait("in step")["text"].as_str().unwrap().to_owned();
    assert!(!said.contains("settings"), "{said}");
    desk.sql("north.db", "DROP TABLE settings");
    desk.run(&format!("sync base.db tcp://{}", serve.at)).ok();
    has(serve.wait("in step")["text"].as_str().unwrap(), &["table `settings`: held: it was dropped here"]);
    serve.end();
}

#[test]
fn a_board_meets_the_base_through_the_pipes_of_another_program() {
    let desk = Desk::fleet(&["north"]);
    desk.sql("north.db", "INSERT INTO readings (value) VALUES (1), (2)");
    let command = format!("exec:{PACKMULE} serve base.db --stdio");
    let done = desk.run_words(&["sync", "north.db", &command, "--json"]).json();
    assert_eq!((&done["address"], done["frames_sent"].as_u64() > Some(0)), (&command.clone().into(), true));
    assert_eq!(readings(&desk), Sql::Integer(2));
    desk.sql("base.db", "CREATE TABLE IF NOT EXISTS x (y)");
    let again = desk.run_words(&["sync", "north.db", &command]).ok();
    has(&again, &["in step with base-", "nothing new on either side"]);
    // What cannot be started, or is no Packmule, says so.
    let none = desk.run_words(&["sync", "north.db", "exec:exit 7"]);
    has(&none.refused("exec:exit 7"), &["the command ended before it said anything", "7"]);
    let other = desk.run_words(&["sync", "north.db", "exec:echo hello"]);
    has(&other.refused("exec:echo hello"), &["does not speak Packmule's protocol"]);
}

/// The same board by one way after the other; each takes up where the one before left off.
#[test]
fn the_same_session_by_every_way() {
    let desk = Desk::fleet(&["north"]);
    let serve = Serve::new(&desk, &["base.db"]);
    let mut rows = 0;
    let ways = [
        format!("tcp://{}", serve.at),
        format!("ws://{}", serve.at),
        format!("exec:{PACKMULE} serve base.db --stdio"),
        "serial".into(),
    ];
    for way in ways {
        desk.sql("north.db", "INSERT INTO readings (value) VALUES (1)");
        rows += 1;
        if way == "serial" {
            synced(&desk, "north", "base");
        } else {
            desk.run_words(&["sync", "north.db", &way]).ok();
        }
        assert_eq!(readings(&desk), Sql::Integer(rows), "{way}");
    }
    serve.end();
}

#[test]
fn what_is_wrong_with_an_address_is_said() {
    let desk = Desk::fleet(&["north"]);
    for (line, said) in [
        ("sync north.db", "--serial is missing"),
        ("sync north.db base:7225", "begins with tcp://"),
        ("sync north.db ftp://base", "ftp:// is not known"),
        ("sync north.db tcp://base:port", "is no host with a port"),
        ("sync north.db https://base", "https:// is not spoken"),
        ("sync north.db wss://base:443/fleet", "ws://base:80/fleet, the port of the proxy that has no TLS"),
        ("sync north.db tcp://base --serial /dev/ttyUSB0", "one of them"),
        ("serve north.db", "--listen"),
        ("serve north.db --listen here", "--listen is an address and a port"),
        ("serve north.db --stdio --listen 0", "--stdio stands alone"),
        ("serve north.db --stdio --announce", "--stdio stands alone"),
        // What would be without any effect is not taken.
        ("sync north.db tcp://base --baud 9600", "--baud is for a serial line"),
        ("sync north.db find: --flow hardware", "--flow is for a serial line"),
        ("serve north.db --listen 0 --baud-max 9600", "--baud-max is for a serial line"),
        ("serve north.db --stdio --baud 9600", "--baud is for a serial line"),
        ("serve north.db --serial /dev/ttyUSB0 --metrics-from any", "--metrics-from is about --listen"),
        ("serve north.db --serial /dev/ttyUSB0 --announce", "--announce is about --listen"),
    ] {
        has(&desk.run(line).usage(), &[said]);
    }
    // What would be a line of its own in a request is no part of an address, and does nothing to a terminal.
    for (address, shown) in [
        (
            "http://base\r\nX: y",
            "`base\\r\\nX: y` is no host with a port: there are spaces or control characters in it",
        ),
        ("ws://base/\u{1b}[2J", "`/\\u{1b}[2J` is no path"),
    ] {
        let said = desk.run_words(&["sync", "north.db", address]).usage();
        has(&said, &[shown]);
        assert!(!said.contains(['\r', '\u{1b}']), "{said:?}");
        let link = format!("[[link]]\nto = {address:?}\n").replace("\\u{1b}", "\\u001b");
        std::fs::write(desk.path("links.toml"), link).unwrap();
        let said = desk.run("run north.db --check --config links.toml").refused("links.toml:2");
        has(&said, &[shown]);
    }
}

/// Who announces a device at an address that nobody else reaches is told so.
#[test]
fn an_announcement_that_nobody_can_follow_is_said() {
    let desk = Desk::fleet(&["north"]);
    for (more, is_said) in [("", false), (" --announce", true)] {
        let line = format!("serve north.db --listen 0 --json{more}");
        let words: Vec<&str> = line.split(' ').collect();
        let mut serve = Program::start(&mut desk.command(&words));
        let said = serve.wait_for(|said| said["event"] == "listening");
        assert_eq!(said["text"].as_str().unwrap().contains("nobody else finds it"), is_said, "{said}");
        serve.ended_by(rustix::process::Signal::TERM);
    }
}

/// Clients that nobody here wrote: Python's `websockets`, and curl.
#[test]
fn the_port_speaks_websocket_to_programs_that_nobody_here_wrote() {
    let desk = Desk::fleet(&["north"]);
    let serve = Serve::new(&desk, &["base.db", "--plain"]);
    let python = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../writers/bin/python");
    let has_module = Command::new(&python).args(["-c", "import websockets"]).output();
    if has_module.is_ok_and(|ran| ran.status.success()) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/net/websocket_client.py");
        let url = format!("ws://{}/packmule/1", serve.at);
        let ran = Command::new(python).arg(script).arg(url).output().unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    } else {
        skips::skip("websockets", "target/writers does not have it");
    }
    for (path, answer) in [("/", "404 Not Found"), ("/packmule/1", "426 Upgrade Required")] {
        match Command::new("curl").args(["-si", &format!("http://{}{path}", serve.at)]).output() {
            Ok(ran) => has(&String::from_utf8_lossy(&ran.stdout), &["HTTP/1.1 ", answer]),
            Err(_) => skips::skip("curl", "it is not installed"),
        }
    }
    // A real device is served all the same.
    has(&desk.run(&format!("sync north.db ws://{} --plain", serve.at)).ok(), &["in step with base-"]);
    let other = desk.run(&format!("sync north.db ws://{}/elsewhere --plain", serve.at));
    has(
        &other.refused(&format!("ws://{}/elsewhere", serve.at)),
        &["a web server answers there, with status 404"],
    );
    serve.end();
}
