//! Somebody in between: takes a connection, makes another one to the server, and carries bytes both ways, until it does
//! something to them.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, spawn};

/// What is done to the bytes of one way, counted from the first.
#[derive(Clone, Copy, Debug)]
pub enum Ill {
    /// Nothing.
    Nothing,
    /// Both ways end after so many.
    Cut(usize),
    /// A bit of this byte is flipped.
    Flip(usize),
    /// So many from this one on do not arrive.
    Lose(usize, usize),
    /// From this one on, so many come twice.
    Repeat(usize, usize),
}

/// Everything that went each way.
pub type Heard = Arc<Mutex<[Vec<u8>; 2]>>;

/// Carries one connection. Returns where to connect to, what it heard, and its thread.
pub fn between(server: SocketAddr, ills: [Ill; 2]) -> (SocketAddr, Heard, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let heard = Heard::default();
    let copy = heard.clone();
    let carries = spawn(move || {
        let (client, _) = listener.accept().unwrap();
        let server = TcpStream::connect(server).unwrap();
        let ways = [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)];
        let ways: Vec<_> = ways
            .into_iter()
            .zip(ills)
            .enumerate()
            .map(|(way, (ends, ill))| {
                let heard = copy.clone();
                spawn(move || carry(ends, ill, way, &heard))
            })
            .collect();
        ways.into_iter().for_each(|way| way.join().unwrap());
    });
    (at, heard, carries)
}

fn carry((mut from, mut to): (TcpStream, TcpStream), ill: Ill, way: usize, heard: &Heard) {
    let mut at = 0;
    let mut bytes = [0; 1_000];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        let some = &mut bytes[..count];
        heard.lock().unwrap()[way].extend_from_slice(some);
        let mut out = Vec::new();
        for byte in &*some {
            match ill {
                Ill::Cut(n) if at >= n => {
                    let _ = to.write_all(&out);
                    for end in [&from, &to] {
                        let _ = end.shutdown(Shutdown::Both);
                    }
                    return;
                }
                Ill::Flip(n) if at == n => out.push(byte ^ 4),
                Ill::Lose(n, count) if (n..n + count).contains(&at) => {}
                _ => out.push(*byte),
            }
            at += 1;
            if let Ill::Repeat(n, count) = ill
                && at == n + count
            {
                let all = heard.lock().unwrap()[way].clone();
                out.extend_from_slice(&all[n..n + count]);
            }
        }
        if to.write_all(&out).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
