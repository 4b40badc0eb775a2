//! Somebody in between: takes connections, makes another one to the server for each, and carries bytes both ways, until it
//! does something to them.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, spawn};

/// What is done to the bytes of one way, counted from the first over all connections.
#[derive(Clone, Copy, Debug)]
pub enum Ill {
    /// Nothing.
    Nothing,
    /// Both ways of its connection end after so many.
    Cut(usize),
    /// From this one on they are held back until there are so many, which arrive at once, as the last of the connection.
    Hold(usize, usize),
    /// A bit of this byte is flipped.
    Flip(usize),
    /// So many from this one on do not arrive.
    Lose(usize, usize),
    /// From this one on, so many come twice.
    Repeat(usize, usize),
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
                    ways.push(spawn(move || carry(ends, ill, way, &heard)));
                }
            }
            ways.into_iter().for_each(|way| way.join().unwrap());
        });
        Self { at, ends, heard, carries: Some(carries) }
    }

    /// Waits until its connections have ended. Returns all that went each way.
    pub fn ended(self) -> AllHeard {
        let heard = Arc::clone(&self.heard);
        drop(self);
        std::mem::take(&mut heard.lock().unwrap())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.at);
        let _ = self.carries.take().map(JoinHandle::join);
    }
}

/// Carries bytes of one way.
fn carry((mut from, mut to): (TcpStream, TcpStream), ill: Ill, way: usize, heard: &Mutex<AllHeard>) {
    let mut bytes = [0; 1_000];
    let mut held = Vec::new();
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
                    Ill::Hold(n, count) if at >= n + count => cut = true,
                    Ill::Hold(n, _) if at >= n => held.push(*byte),
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
        if cut {
            out.append(&mut held);
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
