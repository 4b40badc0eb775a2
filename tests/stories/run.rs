//! `packmule run`: a board keeps its links up by itself; its file is read with care; systemd and `status` are told.

use std::io::{Read, Write};
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;

use rusqlite::types::Value as Sql;
use rustix::process::Signal;
use serde_json::Value;

use crate::faults_of_the_system::System;
use crate::line::cable;
use crate::network::Serve;
use crate::skips;
use crate::support::program::{LONG, Program, until};
use crate::support::{Desk, Ran, has};

/// A running `run`, with more in its environment.
fn run(desk: &Desk, config: &str, more: &[(&str, String)]) -> Program {
    std::fs::write(desk.path("run.toml"), config).unwrap();
    let mut command = desk.command(&["run", "north.db", "--config", "run.toml"]);
    Program::start(command.args(more.is_empty().then_some("--json")).envs(more.iter().cloned()))
}

/// Waits for an event of a link.
#[track_caller]
fn wait(run: &mut Program, link: &str, event: &str) -> Value {
    run.wait_for(|said| said["link"] == link && said["event"] == event)
}

fn readings(desk: &Desk) -> Sql {
    desk.value("base.db", "SELECT count(*) FROM readings")
}

fn links(desk: &Desk) -> Vec<Value> {
    desk.run("status north.db --json").json()["run"]["links"].as_array().unwrap().clone()
}

/// A board with a network to the base, a cable to another board and a card in its slot. What is written anywhere is
/// everywhere, and nobody types a thing.
#[test]
fn a_board_keeps_all_its_links_up() {
    let desk = Desk::fleet(&["north", "south"]);
    desk.sql("north.db", "INSERT INTO readings (value) VALUES (1), (2)");
    let mut serve = Serve::new(&desk, &["base.db"]);
    let wire = cable(&desk);
    let mut other = desk.command(&["serve", "south.db", "--json", "--baud", "4000000", "--serial"]);
    let other = Program::start(other.arg(&wire.ends[1]));
    let config = format!(
        "[[link]]\nname = \"base\"\nto = \"tcp://{}\"\nstay = true\n\n\
         [[link]]\nname = \"south\"\nto = \"serial:{}\"\nstay = true\nbaud = 4_000_000\n\n\
         [[link]]\nname = \"card\"\nto = \"card:card\"\nchanges = \"1s\"\njitter = \"none\"\n\n\
         [compact]\nevery = \"7d\"\n",
        serve.at,
        wire.ends[0].display()
    );
    let mut run = self::run(&desk, &config, &[]);
    // Which link is the first is nobody's choice.
    let mut awaited = vec![("card", "away"), ("base", "in step"), ("south", "in step")];
    let mut away = String::new();
    run.wait_for(|said| {
        let of = (said["link"].as_str().unwrap(), said["event"].as_str().unwrap());
        awaited.retain(|one| *one != of);
        away.push_str(said["text"].as_str().filter(|_| of.1 == "away").unwrap_or_default());
        awaited.is_empty()
    });
    has(&away, &["there is no card at card", "PACKMULE"]);
    assert_eq!(readings(&desk), Sql::Integer(2));
    // The card is put in: it is used at once.
    std::fs::create_dir_all(desk.path("card/PACKMULE")).unwrap();
    has(wait(&mut run, "card", "in step")["text"].as_str().unwrap(), &["left"]);
    assert_eq!(std::fs::read_dir(desk.path("card/PACKMULE")).unwrap().count(), 1);
    // Written at the far end of the cable, it comes to the base.
    desk.sql("south.db", "INSERT INTO settings VALUES ('of south', 1, NULL)");
    until(|| serve.wait("in step")["ops"].as_u64() > Some(0) && settings(&desk) == Sql::Integer(1));
    // Nothing is heard on the cable for a while. Then all is as it was, though nothing is carried that would tell.
    wire.hold_after(1);
    wait(&mut run, "south", "silent");
    wire.go_on();
    wait(&mut run, "south", "heard");
    until(|| links(&desk)[..3].iter().all(|link| link["state"] == "in step"));
    let all = links(&desk);
    let names: Vec<&str> = all.iter().map(|link| link["link"].as_str().unwrap()).collect();
    assert_eq!(names, ["base", "south", "card", "compact"]);
    assert_eq!(all[0]["failures"], 0);
    has(all[0]["peer"].as_str().unwrap(), &["base-"]);
    has(&desk.run("status north.db").ok(), &["run          since", "base (in step since", "south (in step"]);
    // A second one would be two for one thing.
    let second = desk.run("run north.db --config run.toml");
    has(&second.refused("north.db"), &["`packmule run` keeps its links up"]);
    run.end();
    assert_eq!(desk.run("status north.db --json").json()["run"], Value::Null);
    other.end();
    serve.end();
}

fn settings(desk: &Desk) -> Sql {
    desk.value("base.db", "SELECT count(*) FROM settings")
}

/// An application that opens and closes the database for each row, as a script does, beside a board with several links, which
/// loses its power again and again: nothing that is committed on either side is lost, and the board stays who it is.
#[test]
fn applications_come_and_go_beside_a_board_with_several_links() {
    let desk = Desk::fleet(&["north"]);
    std::fs::create_dir_all(desk.path("card/PACKMULE")).unwrap();
    let serve = Serve::new(&desk, &["base.db"]);
    let config = format!(
        "changes = \"1s\"\n\n[[link]]\nname = \"base\"\nto = \"tcp://{}\"\nstay = true\n\n\
         [[link]]\nname = \"card\"\nto = \"card:card\"\n\n[compact]\nevery = \"1d\"\n",
        serve.at
    );
    let identity = || desk.run("status north.db --json").json()["fingerprint"].clone();
    let (before, mut rows) = (identity(), 0);
    for _ in 0..3 {
        let mut run = self::run(&desk, &config, &[]);
        run.wait_for(|said| said["link"] == "base" && said["event"] == "in step");
        for _ in 0..3 {
            rows += 1;
            desk.sql("north.db", &format!("INSERT INTO readings (value) VALUES ({rows})"));
            // Who has a database open in WAL mode keeps this file.
            assert!(desk.path("north.db-wal").exists(), "the application took itself for the last one");
            until(|| readings(&desk) == Sql::Integer(rows));
        }
        drop(run);
    }
    assert_eq!(identity(), before);
    assert_eq!(desk.value("north.db", "SELECT count(*) FROM readings"), Sql::Integer(rows));
    desk.run("verify north.db").ok();
    serve.end();
}

/// The base goes and comes back; the board is there again, and says so once each. A run that is killed is known as such.
#[test]
fn a_base_that_was_away_is_met_again() {
    let desk = Desk::fleet(&["north"]);
    let serve = Serve::new(&desk, &["base.db"]);
    let at = serve.at.clone();
    let config = format!("[[link]]\nname = \"base\"\nto = \"tcp://{at}\"\nstay = true\n");
    let mut run = self::run(&desk, &config, &[]);
    wait(&mut run, "base", "in step");
    serve.end();
    has(wait(&mut run, "base", "failed")["text"].as_str().unwrap(), &["nobody listens there"]);
    desk.sql("north.db", "INSERT INTO readings (value) VALUES (1)");
    let mut base = desk.command(&["serve", "base.db", "--listen", &at]);
    let base = Program::start(&mut base);
    wait(&mut run, "base", "in step");
    assert_eq!(readings(&desk), Sql::Integer(1));
    drop(run);
    let status = desk.run("status north.db --json").json();
    assert_eq!(status["run"]["running"], false);
    has(&desk.run("status north.db").ok(), &["NOT RUNNING"]);
    drop(base);
    // It begins again all the same.
    let mut again = self::run(&desk, &config, &[]);
    wait(&mut again, "base", "failed");
    again.end();
}

/// The base has all; the board compacts and prunes by itself, and says so.
#[test]
fn upkeep_is_done_when_it_is_due() {
    let desk = Desk::fleet(&["north"]);
    let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50) INSERT INTO readings (value) SELECT i FROM n";
    desk.sql("north.db", rows);
    for _ in 0..2 {
        desk.carry("north", "base");
        desk.carry("base", "north");
    }
    // What is younger than it is to be kept stays in the log.
    let planned = || desk.run("compact north.db --dry-run --json").json();
    let before = planned();
    assert_ne!(before["frames_folded"], 0);
    let mut run = self::run(&desk, "[compact]\nevery = \"1s\"\nkeep = \"30d\"\n", &[]);
    wait(&mut run, "compact", "done");
    run.end();
    assert_eq!(planned(), before);
    let config = "[compact]\nevery = \"1s\"\n[[prune]]\ntable = \"readings\"\nevery = \"1s\"\nrows = 10\n";
    let mut run = self::run(&desk, config, &[]);
    let mut printed = String::new();
    while !["compacted away", "40 rows deleted"].iter().all(|wanted| printed.contains(wanted)) {
        printed += &run.line();
    }
    assert_eq!(desk.value("north.db", "SELECT count(*) FROM readings"), Sql::Integer(10));
    assert_eq!(planned()["frames_folded"], 0);
    // It is written down soon.
    until(|| links(&desk).iter().all(|link| link["state"] == "done"));
    // It is not made a plain database under the hands of who keeps its links up.
    has(
        &desk.run("init --remove north.db --yes").refused("north.db"),
        &["`packmule run` keeps its links up"],
    );
    run.end();
    desk.run("init --remove north.db --yes").ok();
    assert_eq!(readings(&desk), Sql::Integer(50));
}

/// What systemd and its journal are told.
#[test]
fn systemd_is_told_how_it_stands() {
    let desk = Desk::fleet(&["north"]);
    let socket = UnixDatagram::bind(desk.path("notify")).unwrap();
    let serve = Serve::new(&desk, &["base.db"]);
    let config = format!(
        "[[link]]\nname = \"base\"\nto = \"tcp://{}\"\nstay = true\n[[link]]\nname = \"none\"\nto = \"exec:exit 7\"\njitter = \"none\"\n\
         [[link]]\nname = \"{}\"\nto = \"exec:exit 7\"\n",
        serve.at,
        // Its lines have more than 80 letters.
        "ward ".repeat(15)
    );
    let to = desk.path("notify").display().to_string();
    let more = [("NOTIFY_SOCKET", to), ("WATCHDOG_USEC", "20000".to_owned())];
    let mut run = self::run(&desk, &config, &more);
    let (send, told) = channel();
    // Read all the time: what finds no room is not waited for.
    let reads = std::thread::spawn(move || {
        let mut bytes = [0; 1_024];
        while let Ok(count @ 1..) = socket.recv(&mut bytes) {
            send.send(String::from_utf8_lossy(&bytes[..count]).into_owned()).unwrap();
        }
    });
    let hears = |wanted: &str| until(|| told.recv_timeout(LONG).unwrap().starts_with(wanted));
    assert_eq!(told.recv_timeout(LONG).unwrap(), "READY=1");
    hears("WATCHDOG=1");
    hears("STATUS=1 of 3 links in step; none: the command ended");
    let mut printed = String::new();
    while ![
        "<6>base: in step with base-",
        "<4>none: the command ended",
        "ward : the command ended before it said anything (exit status: 7)",
    ]
    .iter()
    .all(|w| printed.contains(w))
    {
        printed += &run.line();
        printed.push('\n');
    }
    assert!(printed.lines().all(|line| line.starts_with('<')), "{printed}");
    run.end();
    hears("STOPPING=1");
    UnixDatagram::unbound().unwrap().send_to(b"", desk.path("notify")).unwrap();
    reads.join().unwrap();
    serve.end();
}

/// Another program holds the database: the link's thread hangs. That is said, and systemd hears no more that all is well,
/// until it gets on. The control: where a thread may hang for an hour, systemd goes on hearing it.
#[test]
fn a_link_that_hangs_is_said_and_systemd_hears_no_more_that_all_is_well() {
    for (stuck, notices) in [("1s", true), ("1h", false)] {
        let desk = Desk::fleet(&["north"]);
        let serve = Serve::new(&desk, &["base.db"]);
        let socket = UnixDatagram::bind(desk.path("notify")).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        let config = format!(
            "stuck = \"{stuck}\"\n[[link]]\nname = \"base\"\nto = \"tcp://{}\"\nstay = true\n",
            serve.at
        );
        desk.sql("north.db", "INSERT INTO readings (value) VALUES (1)");
        let holder = rusqlite::Connection::open(desk.path("north.db")).unwrap();
        holder.execute_batch("BEGIN IMMEDIATE").unwrap();
        std::fs::write(desk.path("run.toml"), config).unwrap();
        let mut command =
            desk.command(&["run", "north.db", "--config", "run.toml", "--wait", "600", "--json"]);
        command.env("NOTIFY_SOCKET", desk.path("notify")).env("WATCHDOG_USEC", "20000");
        let mut run = Program::start(&mut command);
        let told = || {
            let mut bytes = [0; 1_024];
            let count = socket.recv(&mut bytes).unwrap();
            String::from_utf8_lossy(&bytes[..count]).into_owned()
        };
        until(|| told() == "WATCHDOG=1");
        if notices {
            has(
                wait(&mut run, "base", "stuck")["text"].as_str().unwrap(),
                &["has not let it go on", "systemd"],
            );
            until(|| told().starts_with("STATUS=0 of 1 link in step; base: the system or another program"));
            // It is written down half a second later: fifty times that systemd would have heard it.
            let state = || std::fs::read_to_string(desk.path("north.db.pmrun")).unwrap();
            until(|| serde_json::from_str::<Value>(&state()).unwrap()["links"][0]["state"] == "stuck");
            socket.set_nonblocking(true).unwrap();
            assert!(socket.recv(&mut [0; 64]).is_err(), "systemd still hears it");
            socket.set_nonblocking(false).unwrap();
        } else {
            (0..100).for_each(|_| until(|| told() == "WATCHDOG=1"));
        }
        holder.execute_batch("ROLLBACK").unwrap();
        if notices {
            wait(&mut run, "base", "goes on");
        }
        wait(&mut run, "base", "in step");
        until(|| told() == "WATCHDOG=1");
        run.end();
        serve.end();
    }
}

/// A link hangs. A person is needed, whoever asks: `status --check`, and Prometheus. What it says to do ends the program,
/// though the link's thread never ends. The control: before, and after, nobody is needed.
#[test]
fn a_link_that_hangs_needs_a_person_and_the_command_that_is_named_ends_the_program() {
    let desk = Desk::fleet(&["north"]);
    let serve = Serve::new(&desk, &["base.db"]);
    let asks = |status: Option<i32>| {
        let ran = desk.run("status north.db --check");
        assert_eq!(ran.status, status, "{}", ran.out);
        assert!(ran.screen.lines().all(|line| line.chars().count() <= 80), "{}", ran.screen);
        ran.out
    };
    asks(Some(0));
    desk.sql("north.db", "INSERT INTO readings (value) VALUES (1)");
    // A program of its own: to copy a file that this one holds lets go of it.
    let mut shell = Command::new("sqlite3");
    let shell = shell.arg(desk.path("north.db")).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut holder = match shell.spawn() {
        Ok(holder) => holder,
        Err(why) => return skips::skip("a program that holds the database", &why.to_string()),
    };
    holder.stdin.as_mut().unwrap().write_all(b"BEGIN IMMEDIATE;\n.print held\n").unwrap();
    assert_eq!(holder.stdout.as_mut().unwrap().read(&mut [0; 16]).unwrap(), 5);
    let config = format!("stuck = \"1s\"\n[[link]]\nname = \"base\"\nto = \"tcp://{}\"\n", serve.at);
    std::fs::write(desk.path("run.toml"), config).unwrap();
    let mut command = desk.command(&["run", "north.db", "--config", "run.toml", "--wait", "86400"]);
    let mut run = Program::start(&mut command);
    until(|| run.line().contains("has not let it go on"));
    until(|| links(&desk)[0]["state"] == "stuck");
    let said = asks(Some(3));
    has(&said, &["1 thing needs a person", "`base` of `packmule run` hangs since", "whether 1 thread of"]);
    let figures = |wanted| has(&desk.run("status north.db --prometheus").ok(), wanted);
    figures(&["packmule_person_needed 1\n", "packmule_run_running 1\n", "_link_stuck{link=\"base\"} 1\n"]);
    desk.run("status north.db").proposes("kill *").ok();
    until(|| run.line().ends_with("ended; base hangs, and was not waited for"));
    assert_eq!(run.ended(), Some(1));
    asks(Some(0));
    figures(&["packmule_person_needed 0\n", "packmule_run_running 0\n"]);
    drop(holder.stdin.take());
    holder.wait().unwrap();
    serve.end();
}

/// No name server answers, and the system waits for one for ever. Whoever has asked is ended all the same; a link is called
/// again later, and says why. The control: they do wait, in the middle of the question.
#[test]
fn no_name_server_answers_and_everybody_ends_when_told_to() {
    let system = match System::new() {
        Ok(system) => system,
        Err(why) => return skips::skip("names that nobody knows", &why),
    };
    let desk = Desk::fleet(&["north"]);
    for (line, status) in [
        ("sync north.db tcp://base.example:7225", 1),
        ("sync north.db ws://base.example:7225", 1),
        ("sync north.db http://base.example:7225", 1),
        ("serve north.db --listen base.example:7225", 1),
    ] {
        let (mut command, asked) = system.without_names(&desk, line);
        let program = Program::start(&mut command);
        until(|| asked.exists());
        assert_eq!(program.ended_by(Signal::TERM), Some(status), "{line}");
        std::fs::remove_file(asked).unwrap();
    }
    let config =
        "patience = \"1s\"\n[[link]]\nname = \"base\"\nto = \"tcp://base.example:7225\"\nstay = true\n";
    std::fs::write(desk.path("run.toml"), config).unwrap();
    let (mut command, _) = system.without_names(&desk, "run north.db --config run.toml --json");
    let mut run = Program::start(&mut command);
    has(
        wait(&mut run, "base", "failed")["text"].as_str().unwrap(),
        &["no name server has told the address of `base.example`, within 1 s", "/etc/hosts"],
    );
    run.end();
}

#[test]
fn the_file_is_read_and_said() {
    let desk = Desk::fleet(&["north"]);
    std::fs::write(
        desk.path("run.toml"),
        "interval = \"1h\"\npatience = \"for ever\"\n\
         [[link]]\nname = \"base\"\nto = \"tcp://base:7225\"\nstay = true\n\
         [[link]]\nto = \"serial:/dev/ttyUSB0\"\nbaud = 921600\nchanges = \"never\"\nplain = true\n\
         [[link]]\nto = \"card:/media/card\"\nencrypt = true\ninterval = \"1d\"\njitter = \"none\"\n\
         [[link]]\nto = \"ws://10.0.0.1/fleet\"\nplain = true\n\
         [compact]\nevery = \"7d\"\n[[prune]]\ntable = \"readings\"\nevery = \"1d\"\nkeep = \"30d\"\n",
    )
    .unwrap();
    let ran = desk.run("run north.db --check --config run.toml");
    let ran = ran.proposes("what hangs for * is stuck: it is said, `packmule status * --check` ends with 3");
    let screen = ran.screen.clone();
    let said = ran.ok();
    has(
        &said,
        &[
            "run.toml is in order: 4 links of north.db",
            "base: tcp://base:7225, stays connected",
            "serial:/dev/ttyUSB0: every 1 h, up to 6 min later; at 921,600",
            "card:/media/card: every 1 d; and 30 s after something is written",
            "encrypted",
            "NOT encrypted",
            "compact: ",
            "every 7 d",
            "prune readings: ",
            "rows of the last 30d",
            "what hangs for 5 min is stuck",
        ],
    );
    assert!(screen.lines().all(|line| line.chars().count() <= 80), "{screen}");
    // What a terminal would act on takes the room of what is printed in its place, and some letters take that of two.
    for name in ["\\u001b[2J clears it", "山の小屋の温度"] {
        let link = format!("[[link]]\nname = \"{name}\"\nto = \"card:/media/the card of the hut\"\n");
        std::fs::write(desk.path("odd.toml"), link).unwrap();
        let screen = desk.run("run north.db --check --config odd.toml").screen;
        let columns = |line: &str| line.chars().map(|c| if c > '\u{2e80}' { 2 } else { 1 }).sum::<usize>();
        assert!(screen.lines().all(|line| columns(line) <= 80), "{screen}");
        assert!(screen.contains("山") || screen.contains("\\u{1b}[2J clears"), "{screen}");
    }
    let document = desk.run("run north.db --check --config run.toml --json").json();
    assert_eq!(
        (&document["links"][0]["stays"], &document["links"][1]["jitter"]),
        (&true.into(), &360.into())
    );
    assert_eq!(document["stuck"], 300);
}

/// Each thing that is wrong is named with its line, and with what is allowed.
#[test]
fn what_is_wrong_in_the_file_is_said() {
    let desk = Desk::fleet(&["north"]);
    for (config, line, said) in [
        ("", 1, "there is no [[link]]"),
        (
            "intervall = \"1h\"",
            1,
            "`intervall` is not known (did you mean `interval`?); the file has: interval,",
        ),
        ("\n[[link]]\nto = \"tcp://a\"\nurl = 1", 4, "`url` is not known; `link` has: to, name,"),
        ("[[link]]\nname = \"a\"", 1, "`link.to` is missing: \"tcp://HOST:PORT\""),
        ("[[link]]\nto = \"base:7225\"", 2, "begins with tcp://"),
        ("[[link]]\nto = 7225", 2, "`link.to` is \"tcp://HOST:PORT\""),
        ("[[link]]\nto = \"tcp://a\"\ninterval = 15", 3, "`link.interval` is a time such as \"90s\""),
        ("[[link]]\nto = \"tcp://a\"\nstay = 1", 3, "`link.stay` is true or false, not 1"),
        ("[[link]]\nto = \"tcp://a\"\nstay = true\ninterval = \"1h\"", 4, "has none"),
        ("[[link]]\nto = \"tcp://a\"\nbaud = 9600", 3, "`link.baud`: is for serial alone"),
        ("[[link]]\nto = \"serial:x\"\nbaud = 1", 3, "`link.baud` is a number from 300 to 20000000, not 1"),
        (
            "[[link]]\nto = \"serial:x\"\nflow = \"soft\"",
            3,
            "`link.flow` is \"none\" or \"hardware\", not \"soft\"",
        ),
        ("[[link]]\nto = \"card:\"", 2, "`link.to` is"),
        ("[link]\nto = \"tcp://a\"", 1, "`link` is a list of tables: [[link]]"),
        (
            "[[link]]\nto = \"tcp://a\"\n[[link]]\nto = \"tcp://a\"",
            3,
            "two links are called `tcp://a`: give this one",
        ),
        ("[[link]]\nto = \"wss://a\"", 2, "type ws://a:7225"),
        ("[[link]]\nto = \"ftp://a\"", 2, "or \"card:DIRECTORY\""),
        ("compact = true", 1, "`compact` is a table: [compact]"),
        ("[decide]", 1, "`decide.every` is missing: how often"),
        ("[compact]", 1, "`compact.every` is missing: how often"),
        ("[[prune]]\nevery = \"1d\"\ntable = \"r\"", 1, "exactly one of keep = \"30d\", rows"),
        ("[[prune]]\nevery = \"1d\"\ntable = \"r\"\nkeep = \"long\"", 4, "`prune.keep` is an age"),
        ("a = = b", 1, "this is not TOML"),
    ] {
        std::fs::write(desk.path("run.toml"), config).unwrap();
        let ran: Ran = desk.run("run north.db --check --config run.toml");
        has(&ran.refused(&format!("run.toml:{line}")), &[said]);
    }
    // What could never be done.
    let prune = |table: &str| format!("[[prune]]\ntable = \"{table}\"\nevery = \"1d\"\nkeep = \"30d\"\n");
    std::fs::write(desk.path("run.toml"), prune("readings") + &prune("settings") + &prune("none")).unwrap();
    let said = desk.run("run north.db --check --config run.toml").refused("run.toml");
    has(&said, &["prune settings: ", "only append tables are pruned", "packmule: run.toml: prune none: "]);
    has(&said, &["no table `none` is tracked here"]);
    assert!(!said.contains("prune readings"), "{said}");
    // All of them at once.
    std::fs::write(desk.path("run.toml"), "jiter = 1\n[[link]]\nto = 5\n").unwrap();
    let ran = desk.run("run north.db --check --config run.toml");
    has(&ran.err, &["packmule: run.toml:1: `jiter`", "packmule: run.toml:3: `link.to`"]);
    let code = desk.run("run north.db --check --config run.toml --json");
    assert_eq!(serde_json::from_str::<Value>(&code.out).unwrap()["code"], "config");
    has(&desk.run("run north.db --config none.toml").refused("none.toml"), &["could not read it"]);
}
