//! The program over pseudo-terminals that the test carries: nothing sleeps; a limit of time only ends a
//! test that hangs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(dead_code)] // Not all that it can.
mod cable;
#[path = "../cli/support/mod.rs"]
mod support;

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use cable::Cable;
use rusqlite::types::Value as Sql;
use rustix::process::{Pid, Signal, kill_process};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use serde_json::Value;
use support::program::Program;
use support::{Desk, Ran, has};

const BAUD: &str = "4000000";

fn cable(desk: &Desk, name: &str) -> Cable {
    cable_for(desk, name, u32::MAX)
}

/// A cable that carries rates up to `most`.
fn cable_for(desk: &Desk, name: &str, most: u32) -> Cable {
    Cable::new(desk.path(format!("{name}-a")), desk.path(format!("{name}-b")), most)
}

fn on_line(desk: &Desk, command: &str, db: &str, ports: &[&Path]) -> Command {
    at_rate(desk, command, db, ports, &["--baud", BAUD])
}

fn at_rate(desk: &Desk, command: &str, db: &str, ports: &[&Path], rate: &[&str]) -> Command {
    let mut words = vec![command, db, "--json"];
    words.extend(rate);
    words.push("--serial");
    words.extend(ports.iter().map(|port| port.to_str().unwrap()));
    let mut command = desk.command(&words);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn sync(desk: &Desk, db: &str, port: &Path) -> Child {
    on_line(desk, "sync", db, &[port]).spawn().unwrap()
}

fn ended(child: Child) -> Ran {
    Ran::of(child.wait_with_output().unwrap(), &["sync"])
}

/// Begins a `serve`.
fn begin_serve(desk: &Desk, db: &str, ports: &[&Path]) -> Program {
    Program::start(&mut on_line(desk, "serve", db, ports))
}

/// A `serve` whose ports are open.
fn serve(desk: &Desk, db: &str, ports: &[&Path]) -> Program {
    let mut serve = begin_serve(desk, db, ports);
    for _ in ports {
        serve.wait("open");
    }
    serve
}

fn fill(desk: &Desk, board: &str, rows: u32, blob: u32) {
    desk.sql(
        &format!("{board}.db"),
        &format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
             INSERT INTO settings SELECT '{board}' || i, i, randomblob({blob}) FROM n;
             INSERT INTO readings (value) VALUES (1.5), (2.5);"
        ),
    );
}

fn digest(desk: &Desk, name: &str) -> String {
    desk.run(&format!("verify {name}.db")).ok();
    desk.run(&format!("digest {name}.db")).ok()
}

/// A program may open an end before the cable's thread begins.
#[test]
fn the_cable_tells_a_rate_from_none_however_late_it_begins() {
    let desk = Desk::new();
    let (cable, begin) = Cable::late(desk.path("wire-a"), desk.path("wire-b"), u32::MAX);
    let [mut from, mut to] = [0, 1]
        .map(|at: usize| std::fs::OpenOptions::new().read(true).write(true).open(&cable.ends[at]).unwrap());
    let set = |end: &std::fs::File, rate: Option<u32>| {
        let mut settings = tcgetattr(end).unwrap();
        settings.make_raw();
        if let Some(rate) = rate {
            settings.set_speed(rate).unwrap();
        }
        tcsetattr(end, OptionalActions::Now, &settings).unwrap();
    };
    set(&from, Some(4_000_000));
    set(&to, None);
    drop(begin);
    let mut carried = |byte: u8| {
        from.write_all(&[byte]).unwrap();
        let mut came = [0];
        to.read_exact(&mut came).unwrap();
        came[0]
    };
    assert_ne!(carried(b'x'), b'x', "the other end has no rate yet");
    set(&std::fs::File::open(&cable.ends[1]).unwrap(), Some(4_000_000));
    assert_eq!(carried(b'x'), b'x');
}

#[test]
fn two_that_sync_are_in_step_and_leave_the_terminals_as_they_were() {
    let desk = Desk::fleet(&["north", "east"]);
    fill(&desk, "north", 50, 1_000);
    fill(&desk, "east", 40, 1_000);
    // A value of many frames.
    desk.sql("east.db", "INSERT INTO settings VALUES ('large', randomblob(300000), NULL)");
    let cable = cable(&desk, "wire");
    let north = sync(&desk, "north.db", &cable.ends[0]);
    let east = sync(&desk, "east.db", &cable.ends[1]);
    let (north, east) = (ended(north).json(), ended(east).json());
    assert_eq!(north["frames_sent"], east["frames_received"]);
    assert_eq!(north["frames_received"], east["frames_sent"]);
    assert!(north["peer"].as_str().unwrap().starts_with("east-"));
    assert_eq!(digest(&desk, "north"), digest(&desk, "east"));
    for end in &cable.ends {
        let after = tcgetattr(std::fs::File::open(end).unwrap()).unwrap();
        assert_eq!(format!("{after:?}"), format!("{:?}", cable.before), "echo and line editing are back");
    }
}

#[test]
fn the_rate_goes_up_to_what_both_ends_and_the_cable_carry() {
    for (most, rates, carries, rate, held) in [
        (["921600", "3000000"], [921_600; 2], u32::MAX, 921_600, 100_000),
        // Control: an end that stays where it began.
        (["921600", "115200"], [115_200; 2], u32::MAX, 115_200, 15_000),
        (["921600", "921600"], [460_800; 2], 500_000, 460_800, 100_000),
    ] {
        let desk = Desk::fleet(&["north", "east"]);
        fill(&desk, "north", held as u32 / 800, 1_000);
        let cable = cable_for(&desk, "wire", carries);
        let end = |at: usize, db: &str| {
            let rate = ["--baud", "115200", "--baud-max", most[at]];
            at_rate(&desk, "sync", db, &[&cable.ends[at]], &rate).spawn().unwrap()
        };
        cable.hold_after(held);
        let (north, east) = (end(0, "north.db"), end(1, "east.db"));
        cable.is_held();
        assert_eq!(cable.settings().map(|set| set.output_speed()), rates);
        cable.go_on();
        for ran in [ended(north), ended(east)] {
            let out = ran.json();
            assert_eq!(out["baud"], rate, "{out}");
        }
        assert_eq!(digest(&desk, "north"), digest(&desk, "east"));
        let after = tcgetattr(std::fs::File::open(&cable.ends[0]).unwrap()).unwrap();
        assert_eq!(format!("{after:?}"), format!("{:?}", cable.before));
    }
}

/// Whatever a login shell had set: no echo, no line editing, and the flow control that was asked for; for us alone.
#[test]
fn the_port_is_raw_and_for_one_program_alone() {
    use rustix::termios::{ControlModes, InputModes, LocalModes, OutputModes};
    let desk = Desk::fleet(&["north", "east"]);
    fill(&desk, "north", 100, 1_000);
    let cable = cable(&desk, "wire");
    assert!(cable.before.local_modes.contains(LocalModes::ECHO | LocalModes::ICANON), "as a shell has it");
    let serve = self::serve(&desk, "base.db", &[&cable.ends[1]]);
    cable.hold_after(50_000);
    let rate = ["--baud", BAUD, "--flow", "hardware"];
    let north = at_rate(&desk, "sync", "north.db", &[&cable.ends[0]], &rate).spawn().unwrap();
    cable.is_held();
    let port = cable.ends[0].to_str().unwrap();
    let second = desk.run(&format!("sync east.db --serial {port}"));
    let second = second.proposes_with(
        "(`sudo systemctl stop serial-getty@NAME` ends a login on /dev/NAME)",
        &[("NAME", "ttyAMA0")],
    );
    has(&second.refused(port), &["another program has the port open"]);
    let [with_flow, without] = cable.settings();
    for set in [&with_flow, &without] {
        let cooked = LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
        assert!(!set.local_modes.intersects(cooked), "{set:?}");
        let changed =
            InputModes::ICRNL | InputModes::INLCR | InputModes::IXON | InputModes::IXOFF | InputModes::ISTRIP;
        assert!(
            !set.input_modes.intersects(changed) && !set.output_modes.contains(OutputModes::OPOST),
            "{set:?}"
        );
    }
    assert!(with_flow.control_modes.contains(ControlModes::CRTSCTS));
    assert!(!without.control_modes.contains(ControlModes::CRTSCTS));
    cable.go_on();
    ended(north).json();
    assert_eq!(serve.ended_by(Signal::TERM), Some(0));
}

/// `serve` is started before the adaptor is plugged in.
#[test]
fn a_port_that_is_not_there_yet_is_waited_for() {
    let desk = Desk::fleet(&["north"]);
    let (here, there) = (desk.path("wire-a"), desk.path("wire-b"));
    let mut serve = begin_serve(&desk, "base.db", &[&there]);
    let away = serve.wait("away");
    assert!(away["text"].as_str().unwrap().contains("waiting for it"), "{away}");
    let cable = Cable::new(here, there, u32::MAX);
    serve.wait("open");
    ended(sync(&desk, "north.db", &cable.ends[0])).json();
    assert_eq!(serve.ended_by(Signal::TERM), Some(0));
}

/// What stands in the way of a port is said: it is not there, it is no port, this user may not use it.
#[test]
fn what_stands_in_the_way_of_a_port_is_said() {
    let desk = Desk::fleet(&[]);
    std::fs::write(desk.path("file"), "").unwrap();
    for (port, why) in [
        (desk.path("none"), "the port is not there; waiting for it"),
        (desk.path("file"), "the port cannot be used (it is not a serial port); waiting for it"),
    ] {
        let mut serve = begin_serve(&desk, "base.db", &[&port]);
        assert_eq!(serve.wait("away")["text"], why);
        assert_eq!(serve.ended_by(Signal::TERM), Some(0));
    }
    let denied = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
    std::fs::set_permissions(desk.path("file"), std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
    if std::fs::File::open(desk.path("file")).is_err_and(|e| e.kind() == denied.kind()) {
        let mut serve = begin_serve(&desk, "base.db", &[&desk.path("file")]);
        let said = serve.wait("away");
        assert!(said["text"].as_str().unwrap().starts_with("this user may not use the port"), "{said}");
        assert_eq!(serve.ended_by(Signal::TERM), Some(0));
    }
}

/// What a person sees meanwhile: a bar, how much has gone each way, the rate, and the time that is left.
#[test]
fn progress_is_drawn_on_a_terminal() {
    let desk = Desk::fleet(&["north"]);
    fill(&desk, "north", 600, 1_000);
    let cable = cable(&desk, "wire");
    let serve = self::serve(&desk, "base.db", &[&cable.ends[1]]);
    let screen = cable::End::new(&desk.path("screen"));
    let wide = 76;
    let size = rustix::termios::Winsize { ws_row: 24, ws_col: wide, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&screen.slave, size).unwrap();
    let line = ["sync", "north.db", "--baud", BAUD, "--serial"];
    let mut command = desk.command(&line);
    command.arg(&cable.ends[0]).stdin(Stdio::null()).stdout(Stdio::piped());
    let child = command.stderr(screen.slave.try_clone().unwrap()).spawn().unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success());
    let drawn = screen.said();
    let bar = drawn.split('\r').find(|line| line.contains("#-")).unwrap_or_else(|| panic!("{drawn:?}"));
    has(bar, &["[#", "-] ", " %", " out, ", "/s, ", " left"]);
    let lines = drawn.split("\r\u{1b}[K").map(|line| line.chars().count());
    assert!(lines.max() < Some(wide.into()), "a terminal breaks no line: {drawn:?}");
    assert!(drawn.ends_with("\r\u{1b}[K"), "the line is left empty: {drawn:?}");
    has(&String::from_utf8_lossy(&out.stdout), &["in step with base-", ": sent ", "frames"]);
    assert_eq!(serve.ended_by(Signal::TERM), Some(0));
}

#[test]
fn a_killed_end_goes_on_where_it_was() {
    let desk = Desk::fleet(&["north"]);
    fill(&desk, "north", 300, 1_000);
    let cable = cable(&desk, "wire");
    let serve = self::serve(&desk, "base.db", &[&cable.ends[1]]);
    // The sender is killed, then the receiver, each in the middle.
    cable.hold_after(120_000);
    let mut north = sync(&desk, "north.db", &cable.ends[0]);
    cable.is_held();
    north.kill().unwrap();
    north.wait().unwrap();
    cable.go_on();
    cable.hold_after(80_000);
    let north = sync(&desk, "north.db", &cable.ends[0]);
    cable.is_held();
    drop(serve);
    cable.go_on();
    let serve = self::serve(&desk, "base.db", &[&cable.ends[1]]);
    let told = ended(north).json();
    let total = desk.run("status north.db --json").json();
    let (frames, sent) = (total["log"]["frames"].as_u64().unwrap(), told["frames_sent"].as_u64().unwrap());
    // Some 200,000 bytes had come: twelve frames of 16 KiB, of which two were on their way at the kills.
    assert!(frames > 18 && sent <= frames - 9, "{sent} of {frames}");
    assert_eq!(serve.ended_by(Signal::TERM), Some(0));
    assert_eq!(digest(&desk, "north"), digest(&desk, "base"));
}

/// What a session had carried that was cut off counts once, and the next one's beside it.
#[test]
fn the_figures_of_a_session_that_was_cut_off_and_of_the_next_one_add_up() {
    let desk = Desk::fleet(&["north"]);
    fill(&desk, "north", 200, 1_000);
    let cable = cable(&desk, "wire");
    let mut serve = self::serve(&desk, "base.db", &[&cable.ends[1]]);
    cable.hold_after(120_000);
    let mut north = sync(&desk, "north.db", &cable.ends[0]);
    serve.wait("met");
    cable.is_held();
    north.kill().unwrap();
    north.wait().unwrap();
    cable.go_on();
    let told = ended(sync(&desk, "north.db", &cable.ends[0])).json();
    assert_eq!(serve.ended_by(Signal::TERM), Some(0));
    let page = desk.run("status base.db --prometheus").ok();
    let figure = |name: &str| -> u64 {
        let line = page.lines().find(|line| line.starts_with(&format!("{name}{{")));
        line.and_then(|line| line.rsplit(' ').next())
            .unwrap_or_else(|| panic!("{name}: {page}"))
            .parse()
            .unwrap()
    };
    assert_eq!(figure("packmule_link_sessions_total"), 2);
    let all = desk.run("status north.db --json").json()["log"]["bytes"].as_u64().unwrap();
    let (last, received) =
        (told["bytes_sent"].as_u64().unwrap(), figure("packmule_link_received_bytes_total"));
    assert!(last < all - 40_000 && received > last + 40_000, "{last} of {all}, and {received} came");
    assert!(received < all + 2 * 65_536, "{received} came of {all}");
    let rate = figure("packmule_link_goodput_bytes_per_second");
    assert!((1..100_000_000).contains(&rate), "{rate}");
}

#[test]
fn a_terminal_that_vanishes_is_opened_again() {
    let desk = Desk::fleet(&["north"]);
    fill(&desk, "north", 200, 1_000);
    let cable = cable(&desk, "wire");
    let serve = self::serve(&desk, "base.db", &[&cable.ends[1]]);
    cable.hold_after(100_000);
    let north = sync(&desk, "north.db", &cable.ends[0]);
    cable.is_held();
    cable.replug();
    let told = ended(north).json();
    assert!(told["frames_sent"].as_u64().unwrap() > 10);
    assert_eq!(digest(&desk, "north"), digest(&desk, "base"));
    assert_eq!(serve.ended_by(Signal::INT), Some(0));
}

#[test]
fn two_lines_at_once_and_one_hears_from_the_other() {
    let desk = Desk::fleet(&["north", "east"]);
    fill(&desk, "north", 60, 500);
    let cables = [cable(&desk, "one"), cable(&desk, "two")];
    let mut base = self::serve(&desk, "base.db", &[&cables[0].ends[1], &cables[1].ends[1]]);
    // East waits on its line; what north brings by the other comes to it by itself.
    let mut east = self::serve(&desk, "east.db", &[&cables[1].ends[0]]);
    base.wait("met");
    east.wait("in step");
    ended(sync(&desk, "north.db", &cables[0].ends[0])).json();
    while digest(&desk, "east") != digest(&desk, "north") {
        east.wait("in step");
    }
    assert_eq!(east.ended_by(Signal::TERM), Some(0));
    assert_eq!(base.ended_by(Signal::TERM), Some(0));
}

/// Who lacks what was compacted away gets the state over the line, and nobody is sent for a card.
#[test]
fn a_newcomer_gets_the_state_over_the_line() {
    let desk = Desk::fleet(&["north"]);
    fill(&desk, "north", 20, 100);
    desk.compact_alone("north", "fleet.key");
    desk.run("init new.db --name new --fleet fleet.key").ok();
    let cable = cable(&desk, "wire");
    let north = sync(&desk, "north.db", &cable.ends[0]);
    let new = sync(&desk, "new.db", &cable.ends[1]);
    let (north, new) = (ended(north).json(), ended(new).json());
    for out in [&north, &new] {
        assert_eq!((&out["needs_snapshot"], &out["peer_needs_snapshot"]), (&false.into(), &false.into()));
    }
    assert_eq!((&north["state_rows_sent"], &new["state_rows_received"]), (&20.into(), &20.into()));
    assert_eq!(north["state_bytes_sent"], new["state_bytes_received"]);
    assert_eq!(digest(&desk, "north"), digest(&desk, "new"));
    assert!(desk.files().iter().all(|file| !file.contains("pmstate")), "{:?}", desk.files());
}

#[test]
fn sigterm_in_the_middle_ends_it_in_good_order() {
    let desk = Desk::fleet(&["north"]);
    fill(&desk, "north", 300, 1_000);
    let cable = cable(&desk, "wire");
    let serve = self::serve(&desk, "base.db", &[&cable.ends[1]]);
    cable.hold_after(100_000);
    let north = sync(&desk, "north.db", &cable.ends[0]);
    cable.is_held();
    assert_eq!(serve.ended_by(Signal::TERM), Some(0));
    kill_process(Pid::from_child(&north), Signal::TERM).unwrap();
    let refused = ended(north);
    assert_eq!(refused.status, Some(1), "{}", refused.err);
    cable.go_on();
    let serve = self::serve(&desk, "base.db", &[&cable.ends[1]]);
    ended(sync(&desk, "north.db", &cable.ends[0])).json();
    assert_eq!(serve.ended_by(Signal::TERM), Some(0));
    assert_eq!(digest(&desk, "north"), digest(&desk, "base"));
}

#[test]
fn untrusted_devices_close_and_each_names_the_other() {
    let desk = Desk::new();
    for name in ["a", "b"] {
        desk.run(&format!("init {name}.db --name {name}")).ok();
    }
    let id = |name: &str| desk.run(&format!("status {name}.db --json")).json()["fingerprint"].clone();
    let cable = cable(&desk, "wire");
    let (a, b) = (sync(&desk, "a.db", &cable.ends[0]), sync(&desk, "b.db", &cable.ends[1]));
    for (ran, other, db) in [(ended(a), "b", "a.db"), (ended(b), "a", "b.db")] {
        assert_eq!(ran.status, Some(1));
        let id = id(other);
        has(&ran.err, &["not trusted here", other, &format!("packmule trust {db} {}", id.as_str().unwrap())]);
        let document: Value = serde_json::from_str(&ran.out).unwrap();
        assert_eq!(document["strangers"][0]["fingerprint"], id);
    }
}

/// An end whose peer has left repeats what it sent last until its time is over, and nobody hears them.
#[test]
fn of_two_that_part_none_is_left_alone_on_the_line() {
    let desk = Desk::new();
    for name in ["a", "b"] {
        desk.run(&format!("init {name}.db --name {name}")).ok();
    }
    let unheard = [0; 12].map(|_| {
        let cable = cable(&desk, "wire");
        let (a, b) = (sync(&desk, "a.db", &cable.ends[0]), sync(&desk, "b.db", &cable.ends[1]));
        assert_eq!([ended(a).status, ended(b).status], [Some(1); 2]);
        cable.unheard()
    });
    // A packet may be under way. Who waits until its time is over sends some 200.
    assert!(unheard.iter().all(|packets| *packets < 20), "{unheard:?} packets were heard by nobody");
}

#[test]
fn what_cannot_be_is_refused_in_words() {
    let desk = Desk::fleet(&["north"]);
    has(&desk.run("sync north.db").usage(), &["--serial is missing"]);
    has(&desk.run("sync north.db --serial x --baud fast").usage(), &["--baud is a number"]);
    let backwards = desk.run("sync north.db --serial x --baud 9600 --baud-max 4800");
    has(&backwards.usage(), &["--baud-max is 4800, which is below the 9600"]);
    has(&desk.run("serve north.db --serial x x").usage(), &["given twice"]);
    has(&desk.run("sync north.db --serial nowhere").refused("nowhere"), &["there is no such port"]);
    has(&desk.run("sync north.db --serial north.db").refused("north.db"), &["not a serial port"]);
    // Nobody at the other end.
    let cable = cable(&desk, "wire");
    let port = cable.ends[0].to_str().unwrap();
    let alone = desk.run(&format!("sync north.db --patience 0.2 --serial {port}"));
    has(&alone.refused(port), &["nobody answered"]);
}

/// Encrypted unless both ends are told otherwise; an end that is told so alone gets nothing, and both say why.
#[test]
fn a_line_is_encrypted_unless_both_ends_are_plain() {
    let desk = Desk::fleet(&["north"]);
    desk.sql("north.db", "INSERT INTO readings (value) VALUES (1.5)");
    let cable = cable(&desk, "wire");
    let both = |plain: [bool; 2]| {
        let ends = [("north.db", 0), ("base.db", 1)].map(|(db, end)| {
            let rate: &[&str] = if plain[end] { &["--baud", BAUD, "--plain"] } else { &["--baud", BAUD] };
            at_rate(&desk, "sync", db, &[&cable.ends[end]], rate).spawn().unwrap()
        });
        ends.map(ended)
    };
    let count = |of: &str| desk.value("base.db", &format!("SELECT count(*) FROM {of}"));
    for plain in [0, 1] {
        let ran = both([plain == 0, plain == 1]);
        has(&ran[plain].err, &["this end runs with --plain, and the other one does not: nothing was sent"]);
        has(
            &ran[1 - plain].err,
            &["the other end runs with --plain, and this one does not: nothing was sent"],
        );
        assert_eq!([ran[0].status, ran[1].status], [Some(1); 2]);
        assert_eq!(count("sqlite_schema WHERE name = 'readings'"), Sql::Integer(0));
    }
    for plain in [[true; 2], [false; 2]] {
        for ran in both(plain) {
            ran.json();
        }
        assert_eq!(count("readings"), Sql::Integer(1));
    }
}

/// The second of two boards from one card's image goes on under a new identity, by itself.
#[test]
fn a_cloned_card_is_found_and_both_boards_are_in_step() {
    let desk = Desk::fleet(&["north"]);
    desk.sql("north.db", "PRAGMA wal_checkpoint(TRUNCATE)");
    for end in ["", ".pmkey"] {
        std::fs::copy(desk.path(format!("north.db{end}")), desk.path(format!("twin.db{end}"))).unwrap();
    }
    let cable = cable(&desk, "wire");
    let mut serve = self::serve(&desk, "base.db", &[&cable.ends[0]]);
    for board in ["north", "twin"] {
        desk.sql(
            &format!("{board}.db"),
            &format!(
                "INSERT INTO settings VALUES ('{board}', 1, NULL); INSERT INTO readings (value) VALUES (1.5)"
            ),
        );
        desk.run(&format!("seal {board}.db")).ok();
        ended(sync(&desk, &format!("{board}.db"), &cable.ends[1])).ok();
        serve.wait("in step");
    }
    assert_eq!(serve.ended_by(Signal::TERM), Some(0));
    has(&desk.run("status twin.db").ok(), &["the device `north-", "second history of north-"]);
    has(&desk.run("status base.db").ok(), &["north-", "two histories"]);
    let count = |text: &str| desk.value("base.db", text);
    assert_eq!(
        count("SELECT count(*) FROM settings WHERE key IN ('north', 'twin')"),
        rusqlite::types::Value::Integer(2)
    );
    assert_eq!(count("SELECT count(DISTINCT device) FROM readings"), rusqlite::types::Value::Integer(2));
}

/// A board that was made without the fleet key asks for admission over the line, and its certificate comes back by it.
#[test]
fn a_board_without_the_key_is_admitted_over_the_line() {
    let desk = Desk::fleet(&[]);
    desk.run("init new.db --name new").ok();
    desk.sql("new.db", "CREATE TABLE readings (id INTEGER PRIMARY KEY AUTOINCREMENT, value REAL); INSERT INTO readings (value) VALUES (1.5)");
    desk.run("track new.db readings --mode per-device --append").ok();
    let cable = cable(&desk, "line");
    let (board, base) = (sync(&desk, "new.db", &cable.ends[0]), sync(&desk, "base.db", &cable.ends[1]));
    let (board, base) = (ended(board), ended(base));
    assert_eq!((board.status, base.status), (Some(1), Some(1)), "{} {}", board.err, base.err);
    has(&base.err, &["new (fingerprint ", "asks for admission", "\n  packmule admit base.db --fleet FILE"]);
    has(
        &board.err,
        &["base (fingerprint ", "has not admitted this device yet", "packmule admit DB --fleet FILE --only"],
    );
    desk.run("admit base.db --fleet fleet.key").ok();
    let (board, base) = (sync(&desk, "new.db", &cable.ends[0]), sync(&desk, "base.db", &cable.ends[1]));
    let (board, base) = (ended(board), ended(base));
    assert_eq!((board.status, base.status), (Some(0), Some(0)), "{} {}", board.err, base.err);
    let fleet = |db: &str| desk.run(&format!("status {db} --json")).json()["fleet"].clone();
    assert_eq!(fleet("new.db"), fleet("base.db"));
    assert_eq!(desk.value("base.db", "SELECT count(*) FROM readings"), rusqlite::types::Value::Integer(1));
    // Another name goes the same way.
    desk.run("rename new.db mast").ok();
    let both = || {
        let (board, base) = (sync(&desk, "new.db", &cable.ends[0]), sync(&desk, "base.db", &cable.ends[1]));
        for ran in [ended(board), ended(base)] {
            assert_eq!(ran.status, Some(0), "{}", ran.err);
        }
    };
    both();
    has(&desk.run("admit base.db --fleet fleet.key").ok(), &["admitted: mast"]);
    both();
    has(&desk.run("status new.db").ok(), &["is the device `mast`"]);
}

/// A base that only gathers dies and is restored from last night's backup: a session brings back what it lost.
#[test]
fn a_restored_base_gets_back_what_it_lost() {
    let desk = Desk::fleet(&["north"]);
    let _cable = cable(&desk, "line");
    let together = || {
        let (one, two) =
            (sync(&desk, "north.db", &desk.path("line-a")), sync(&desk, "base.db", &desk.path("line-b")));
        (ended(one).json(), ended(two).json())
    };
    let gathered = || desk.value("base.db", "SELECT count(*) FROM readings");
    desk.sql("north.db", "INSERT INTO readings (value) VALUES (1), (2)");
    together();
    std::fs::copy(desk.path("base.db"), desk.path("backup")).unwrap();
    desk.sql("north.db", "INSERT INTO readings (value) VALUES (3), (4), (5)");
    together();
    assert_eq!(gathered(), Sql::Integer(5));
    std::fs::copy(desk.path("backup"), desk.path("base.db")).unwrap();
    assert_eq!(gathered(), Sql::Integer(2));
    // The board hears of it, and so folds nothing that the base lacks.
    for line in ["export base.db says.pmb", "import north.db says.pmb", "compact north.db"] {
        let words: Vec<&str> = line.split(' ').collect();
        Ran::of(desk.command(&words).output().unwrap(), &words).ok();
    }
    let (_, at_base) = together();
    assert_eq!(at_base["ops"], 3);
    assert_eq!(gathered(), Sql::Integer(5));
    let (_, at_base) = together();
    assert_eq!((&at_base["ops"], &at_base["frames_received"]), (&0.into(), &0.into()));
    // The board has folded all of it: its own table is the state of its stream.
    let words = ["compact", "north.db"];
    Ran::of(desk.command(&words).output().unwrap(), &words).ok();
    assert_eq!(desk.value("north.db", "SELECT count(*) FROM _pm_frame WHERE stream = 1"), Sql::Integer(0));
    std::fs::copy(desk.path("backup"), desk.path("base.db")).unwrap();
    together();
    together();
    assert_eq!(gathered(), Sql::Integer(5));
}
