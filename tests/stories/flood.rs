//! An open port, and strangers of every kind before it: noise, silence, half a request, answers that nobody reads, sessions
//! that nobody goes on with. Memory is bounded, and a board is served meanwhile, by every way.

use std::io::Write;
use std::net::TcpStream;
use std::process::Command;

use rusqlite::types::Value as Sql;

use crate::network::Serve;
use crate::support::{Desk, PACKMULE, has};

/// The most memory that the program may have had at once, in KiB.
const MEMORY: u64 = 40 << 10;

/// Begins as a stranger of some kind; what it says may be cut off by the end of its connection.
fn stranger(at: &str, kind: usize) -> TcpStream {
    let mut stream = TcpStream::connect(at).unwrap();
    let upgrade = "GET /packmule/1 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: packmule.1\r\n\r\n";
    let said: Vec<u8> = match kind {
        // Nothing: half open.
        0 => Vec::new(),
        // Noise, of which none is a handshake.
        1 => (0..900_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect(),
        // A handshake, and then a record that promises more than it has.
        2 => [&b"\x89PKS\x01\x01"[..], &[9; 32], &[0xff, 0x3f]].concat(),
        // Half a head, and one that is too long.
        3 => b"GET /metrics HTTP/1.1\r\nX: ".to_vec(),
        4 => [&b"GET / HTTP/1.1\r\nX: "[..], &[b'x'; 20_000]].concat(),
        // Half a bundle, and half a turn.
        5 => {
            b"POST /packmule/1/bundle HTTP/1.1\r\nContent-Length: 200000000\r\n\r\n\x89PKM\r\n\x1a\n".to_vec()
        }
        6 => b"POST /packmule/1/session HTTP/1.1\r\nContent-Length: 100\r\n\r\n\x89PKS".to_vec(),
        // Pings without end, to which no answer is read.
        7 => [upgrade.as_bytes(), &[0x89, 0x84, 0, 0, 0, 0, 1, 2, 3, 4].repeat(3_000)].concat(),
        // Requests whose answers nobody reads.
        8 => b"GET /metrics HTTP/1.1\r\n\r\n".to_vec(),
        _ => b"POST /packmule/1/session HTTP/1.1\r\nContent-Length: 0\r\n\r\n".repeat(20),
    };
    stream.set_nonblocking(true).unwrap();
    let _ = stream.write(&said);
    stream
}

#[test]
fn strangers_of_every_kind_keep_nobody_out_and_cost_nothing() {
    let desk = Desk::fleet(&["north"]);
    // In as much address space as the smallest board gives it.
    let limited = format!("ulimit -v {} && exec \"$0\" \"$@\"", 2 * MEMORY);
    let mut command = Command::new("sh");
    command
        .current_dir(desk.path(""))
        .args(["-c", &limited, PACKMULE, "serve", "base.db", "--json", "--listen", "0"]);
    let mut serve = Serve::of(&mut command);
    let mut crowd: Vec<TcpStream> = Vec::new();
    for (n, way) in ["tcp", "ws", "http", "tcp", "http"].into_iter().enumerate() {
        crowd.extend((0..64).map(|kind| stranger(&serve.at, kind % 10)));
        desk.sql("north.db", "INSERT INTO readings (value) VALUES (1)");
        let address = format!("{way}://{}", serve.at);
        has(&desk.run(&format!("sync north.db {address}")).ok(), &["in step with base-"]);
        assert_eq!(
            desk.value("base.db", "SELECT count(*) FROM readings"),
            Sql::Integer(n as i64 + 1),
            "{way}"
        );
        // The first of them go, others stay.
        crowd.drain(..40);
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", serve.program.id())).unwrap();
    let kib = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches("kB").trim().parse().unwrap()
    };
    // Without the pages of the program itself, which is large where it is not optimised.
    let peak = kib("VmHWM:") - kib("RssFile:");
    assert!(peak < MEMORY, "{peak} KiB");
    serve.wait("in step");
    serve.end();
    assert_eq!(desk.files().iter().filter(|name| name.contains("tmp")).count(), 0, "{:?}", desk.files());
}
