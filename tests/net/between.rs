//! Somebody in between: takes a connection, makes another one to the server, and carries bytes both ways, until it does
//! something to them.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
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

/// What went each way, over all connections, in its order.
type AllHeard = [Vec<u8>; 2];

/// Carries connections to a server, until it is dropped.
pub struct Relay {
    /// Where to connect to.
    pub at: SocketAddr,
    ends: Arc<AtomicBool>,
    heard: Arc<Mutex<AllHeard>>,
    carries: Option<JoinHandle<()>>,
}

impl Relay {
    pub fn new(server: SocketAddr, ills: [Ill; 2]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let (ends, heard) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let (stops, hears) = (Arc::clone(&ends), Arc::clone(&heard));
        let carries = spawn(move || {
            let mut ways = Vec::new();
            while let Ok((client, _)) = listener.accept() {
                if stops.load(Ordering::SeqCst) {
                    break;
                }
                let Ok(server) = TcpStream::connect(server) else { continue };
                let ends = [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)];
                for (way, (ends, ill)) in ends.into_iter().zip(ills).enumerate() {
                    let heard = Arc::clone(&hears);
                    ways.push(spawn(move || carry_all(ends, ill, way, &heard)));
                }
            }
            ways.into_iter().for_each(|way| way.join().unwrap());
        });
        Self { at, ends, heard, carries: Some(carries) }
    }

    pub fn heard(&self) -> AllHeard {
        self.heard.lock().unwrap().clone()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.at);
        let _ = self.carries.take().map(JoinHandle::join);
    }
}

/// Carries bytes of one way, which are counted over all connections.
fn carry_all((mut from, mut to): (TcpStream, TcpStream), ill: Ill, way: usize, heard: &Mutex<AllHeard>) {
    let mut bytes = [0; 1_000];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        let mut out = Vec::new();
        let mut cut = false;
        {
            let all = &mut heard.lock().unwrap()[way];
            for byte in &bytes[..count] {
                let at = all.len();
                all.push(*byte);
                match ill {
                    Ill::Cut(n) if at >= n => cut = true,
                    Ill::Flip(n) if at == n => out.push(byte ^ 4),
                    Ill::Lose(n, count) if (n..n + count).contains(&at) => {}
                    _ if cut => {}
                    _ => out.push(*byte),
                }
                if let Ill::Repeat(n, count) = ill
                    && at + 1 == n + count
                {
                    out.extend_from_slice(&all[n..]);
                }
            }
        }
        let gone = to.write_all(&out).is_err();
        if cut {
            for end in [&from, &to] {
                let _ = end.shutdown(Shutdown::Both);
            }
        }
        if gone || cut {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
    // Who has gone says no more either, also where he says nothing at the moment.
    let _ = from.shutdown(Shutdown::Read);
}
