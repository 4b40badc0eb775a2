//! Two hosts with a bad network between them: network namespaces, and a wire that loses, delays, repeats and reorders what
//! it carries, and is cut. They find each other without a router or a name, and converge. And one host by way of `ssh`.

use std::io::{BufRead, BufReader, Lines, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use rusqlite::types::Value as Sql;
use serde_json::Value;

use crate::random::seeds;
use crate::skips;
use crate::support::program::Program;
use crate::support::{Desk, PACKMULE, Ran, has};

/// Two hosts: A has the desk's `north.db`, B its `base.db`.
struct Hosts<'a> {
    desk: &'a Desk,
    wire: Child,
    said: Lines<BufReader<ChildStdout>>,
}

impl<'a> Hosts<'a> {
    /// Makes them, if this machine lets anybody make namespaces.
    fn new(desk: &'a Desk, seed: u64, loss: f64, delay_ms: u64) -> Option<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/net/wire.py");
        let mut command = Command::new("unshare");
        command.args(["-rnm", "python3"]).arg(script);
        command.args([seed.to_string(), loss.to_string(), delay_ms.to_string()]);
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let Ok(mut wire) = spawned else {
            skips::skip("two hosts", "unshare is not there");
            return None;
        };
        let mut said = BufReader::new(wire.stdout.take().unwrap()).lines();
        if said.next().is_none_or(|line| line.unwrap() != "ready") {
            skips::skip("two hosts", "this machine makes no network namespaces, or has no /dev/net/tun");
            return None;
        }
        Some(Self { desk, wire, said })
    }

    /// Cuts the wire, or joins it.
    fn wire(&mut self, what: &str) {
        writeln!(self.wire.stdin.as_mut().unwrap(), "{what}").unwrap();
        assert_eq!(self.said.next().unwrap().unwrap(), what);
    }

    /// The program on a host.
    fn command(&self, host: &str, line: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.wire.id().to_string(), "-U", "-n", "-m", "--preserve-credentials"]);
        command.arg(format!("--wd={}", self.desk.path("").display()));
        if host == "b" {
            // The namespace's own `ip netns exec` would leave the folder.
            command.args(["nsenter", "--net=/run/netns/b"]);
        }
        command.arg(PACKMULE).args(line.split(' ')).stdin(Stdio::null());
        command
    }

    fn run(&self, host: &str, line: &str) -> Ran {
        Ran::of(self.command(host, line).output().unwrap(), &[line])
    }

    fn start(&self, host: &str, line: &str) -> Program {
        Program::start(&mut self.command(host, line))
    }
}

impl Drop for Hosts<'_> {
    fn drop(&mut self) {
        let _ = self.wire.kill();
        let _ = self.wire.wait();
    }
}

const SERVE: &str = "serve base.db --listen [::]:7225 --announce --json";

#[test]
fn hosts_find_each_other_without_a_router_or_a_name() {
    let desk = Desk::fleet(&["north"]);
    desk.run("fleet new other.key").ok();
    desk.run("init stranger.db --name stranger --fleet other.key").ok();
    desk.sql("north.db", "INSERT INTO readings (value) VALUES (1)");
    let Some(hosts) = Hosts::new(&desk, 1, 0.05, 5) else { return };
    has(
        &hosts.run("a", "sync north.db find:").refused("find:"),
        &["nobody on this network says that it is of this fleet", "--announce"],
    );
    let mut serve = hosts.start("b", SERVE);
    serve.wait("listening");
    // A host that has just come to a network tells itself from others first, for a second or two.
    let found = (0..20)
        .map(|_| hosts.run("a", "find north.db --json").json())
        .find(|found| found["found"] != Value::Array(vec![]));
    let found = found.expect("nobody was found");
    let base = &found["found"][0];
    assert_eq!((&base["name"], &base["base"], &base["ours"]), (&"base".into(), &true.into(), &true.into()));
    has(&hosts.run("a", "find").ok(), &["base-", ": a base, as it says", "tcp://", ":7225"]);
    has(&hosts.run("a", "find stranger.db").ok(), &["not of this fleet"]);
    // Who claims to be a base of the fleet, and then proves nothing, keeps nobody from the next one.
    desk.run("init trap.db --name trap --fleet fleet.key --base").ok();
    let mut trap = hosts.start("b", "serve trap.db --plain --listen [::]:7300 --announce --json");
    trap.wait("listening");
    let two = |_: &i32| hosts.run("a", "find --json").json()["found"].as_array().unwrap().len() == 2;
    assert!((0..20).any(|n| two(&n)), "both are there");
    has(&hosts.run("a", "sync north.db find:").ok(), &["in step with base-"]);
    drop(trap);
    assert_eq!(desk.value("base.db", "SELECT count(*) FROM readings"), Sql::Integer(1));
    // Who is of another fleet takes nobody, however near.
    let others = hosts.run("a", "sync stranger.db find:").refused("find:");
    has(&others, &["nobody on this network", "(others are there: 1)"]);
}

/// The base gets another address, as from a router that has started anew; nobody types anything.
#[test]
fn who_is_found_is_found_again_at_another_address() {
    let desk = Desk::fleet(&["north"]);
    let Some(mut hosts) = Hosts::new(&desk, 1, 0.0, 1) else { return };
    hosts.wire("move 10.9.0.2");
    let mut serve = hosts.start("b", SERVE);
    serve.wait("listening");
    let config = "patience = \"2s\"\n[[link]]\nto = \"find:\"\nstay = true\n";
    std::fs::write(desk.path("run.toml"), config).unwrap();
    let mut run = hosts.start("a", "run north.db --config run.toml --json");
    run.wait("in step");
    hosts.wire("move 10.9.0.7");
    desk.sql("north.db", "INSERT INTO readings (value) VALUES (1)");
    // The control: it was lost where it was.
    run.wait("failed");
    run.wait("in step");
    assert_eq!(desk.value("base.db", "SELECT count(*) FROM readings"), Sql::Integer(1));
    run.end();
    serve.end();
}

/// Loss, delay, frames that come twice or change places, and partitions; both hosts write all the while.
#[test]
fn two_hosts_with_a_bad_network_converge() {
    for seed in seeds(1) {
        println!("PACKMULE_SEED={seed}");
        let desk = Desk::fleet(&["north"]);
        desk.carry("north", "base");
        let Some(mut hosts) = Hosts::new(&desk, seed, 0.05, 20) else { return };
        let mut serve = hosts.start("b", SERVE);
        serve.wait("listening");
        let config = "patience = \"4s\"\n[[link]]\nto = \"tcp://10.9.0.2:7225\"\nstay = true\n";
        std::fs::write(desk.path("run.toml"), config).unwrap();
        let mut run = hosts.start("a", "run north.db --config run.toml --json");
        for round in 0..3 {
            if round > 0 {
                hosts.wire("cut");
            }
            write(&desk, "north", round);
            write(&desk, "base", round);
            if round > 0 {
                run.wait("failed");
                hosts.wire("join");
            }
            loop {
                run.wait("in step");
                let digests = ["north", "base"].map(|name| desk.run(&format!("digest {name}.db")).ok());
                let rows = desk.value("base.db", "SELECT count(*) FROM readings");
                if digests[0] == digests[1] && rows == Sql::Integer(20 * (round + 1)) {
                    break;
                }
            }
        }
        run.end();
        serve.end();
        for name in ["north", "base"] {
            desk.run(&format!("verify {name}.db")).ok();
            assert_eq!(desk.value(&format!("{name}.db"), "SELECT count(*) FROM settings"), Sql::Integer(120));
        }
    }
}

fn write(desk: &Desk, name: &str, round: i64) {
    let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20)";
    let settings =
        format!("{rows} INSERT INTO settings SELECT '{name}-{round}-' || i, hex(randomblob(500)), '' FROM n");
    desk.sql(&format!("{name}.db"), &settings);
    if name == "north" {
        desk.sql("north.db", &format!("{rows} INSERT INTO readings (value) SELECT i FROM n"));
    }
}

/// Debian's own `sshd`, with keys and a port of its own: SSH carries the session.
#[test]
fn a_board_meets_the_base_by_ssh() {
    let desk = Desk::fleet(&["north"]);
    desk.sql("north.db", "INSERT INTO readings (value) VALUES (1), (2)");
    for key in ["host", "user"] {
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(desk.path(key))
            .status();
        if !made.is_ok_and(|status| status.success()) {
            return skips::skip("ssh", "ssh-keygen is not there");
        }
    }
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let path = |name: &str| desk.path(name).display().to_string();
    let config = format!(
        "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\n\
         PidFile none\nPermitRootLogin yes\nPasswordAuthentication no\n",
        path("host"),
        path("user.pub")
    );
    std::fs::write(desk.path("sshd_config"), config).unwrap();
    // As root it wants a folder that its service makes.
    let _ = std::fs::create_dir_all("/run/sshd");
    let sshd = ["/usr/sbin/sshd", "/usr/bin/sshd"].into_iter().find(|path| Path::new(path).exists());
    let Some(sshd) = sshd else { return skips::skip("ssh", "sshd is not there") };
    let log = std::fs::File::create(desk.path("sshd.log")).unwrap();
    let mut command = Command::new(sshd);
    command.args(["-D", "-e", "-f", &path("sshd_config")]).stderr(log);
    let mut daemon = command.spawn().unwrap();
    let address = format!(
        "exec:ssh -F none -p {port} -i {} -o StrictHostKeyChecking=no -o UserKnownHostsFile={} -o BatchMode=yes \
         -o ConnectionAttempts=20 -o LogLevel=ERROR 127.0.0.1 {PACKMULE} serve {} --stdio",
        path("user"),
        path("known"),
        path("base.db")
    );
    let synced = desk.run_words(&["sync", "north.db", &address]);
    let again = desk.run_words(&["sync", "north.db", &address]);
    let _ = daemon.kill();
    let _ = daemon.wait();
    let log = std::fs::read_to_string(desk.path("sshd.log")).unwrap_or_default();
    assert_eq!(synced.status, Some(0), "{}\n{log}", synced.err);
    has(&synced.out, &["in step with base-"]);
    has(&again.ok(), &["nothing new on either side"]);
    assert_eq!(desk.value("base.db", "SELECT count(*) FROM readings"), Sql::Integer(2));
}
