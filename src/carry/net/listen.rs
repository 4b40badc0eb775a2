//! Many at once, over TCP or WebSocket, told apart by the first bytes: who connects stays at the door until it has said
//! who it is; then it has a thread and an engine.
//!
//! At the door a connection costs a socket and some bytes, no thread, no engine and no look at the database. It is gone
//! after some seconds; where too many stand there, the one that came first goes.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, Scope};
use std::time::{Duration, Instant};

use packmule_core::model::DeviceId;
use packmule_core::wire::{RECORD_HEAD_LEN, RecordHead, RecordKind};

use super::end::End;
use super::http::{Asked, asked, mask};
use super::records::{MAGIC, Records};
use super::stream::{Bell, Files, Stream};
use super::websocket::WebSocket;
use super::{Error, Options, PROOF_TIME, Status, served};
use crate::carry::stop::{Stop, Wake};
use crate::engine::{self, Engine};

/// So many sessions at once; who comes then waits at the door.
pub const SESSIONS_MAX: usize = 8;
/// So many stand at the door.
const GUESTS_MAX: usize = 64;
/// How long one may stand there.
const GUEST_TIME: Duration = PROOF_TIME;
/// A hello is no longer.
const HELLO_MAX: usize = 1_024;
/// A session's thread: SQLite and the merge take some 100 KiB.
const STACK: usize = 1 << 20;

/// An open port.
#[derive(Debug)]
pub struct Listening {
    listener: TcpListener,
}

impl Listening {
    /// Opens a port. Port 0 is one that is free.
    ///
    /// # Errors
    /// [`Error::Listen`].
    pub fn on(address: SocketAddr) -> Result<Self, Error> {
        let listener = TcpListener::bind(address).map_err(Error::Listen)?;
        listener.set_nonblocking(true).map_err(Error::Listen)?;
        Ok(Self { listener })
    }

    /// Returns its address.
    ///
    /// # Errors
    /// [`Error::Listen`].
    pub fn address(&self) -> Result<SocketAddr, Error> {
        self.listener.local_addr().map_err(Error::Listen)
    }
}

/// What a server needs besides its port.
struct Server<'a> {
    open: &'a (dyn Fn() -> engine::Result<Engine> + Sync),
    options: &'a Options,
    report: &'a (dyn Fn(SocketAddr, &Status<'_>) + Sync),
    bell: Arc<Bell>,
    sessions: Mutex<Vec<Running>>,
}

/// A session that runs.
struct Running {
    number: u64,
    peer: Option<DeviceId>,
    stop: Stop,
}

/// One at the door.
struct Guest {
    talk: Talk,
    from: SocketAddr,
    since: Instant,
    hello: Vec<u8>,
}

/// What a guest's connection has turned out to be.
enum Talk {
    /// Its first bytes, or its request, are not here whole.
    Unknown(Option<Files>, Vec<u8>),
    Records(Box<Records>),
}

/// What becomes of a guest.
#[derive(PartialEq)]
enum Fate {
    Waits,
    /// It has said who it is, which is not verified yet.
    Spoke,
    Goes,
}

/// Serves whoever comes, at most [`SESSIONS_MAX`] at once, until [`Stop::stop`]. `open` opens the database anew for each
/// of them; `report` is called by their threads.
///
/// # Errors
/// Only what keeps it from beginning.
pub fn serve(
    port: &Listening,
    open: &(dyn Fn() -> engine::Result<Engine> + Sync),
    options: &Options,
    stop: &Stop,
    report: &(dyn Fn(SocketAddr, &Status<'_>) + Sync),
) -> Result<(), Error> {
    let bell = Bell::new(stop).map_err(Error::Listen)?;
    let server = Server { open, options, report, bell, sessions: Mutex::new(Vec::new()) };
    std::thread::scope(|scope| {
        let mut guests: Vec<Guest> = Vec::new();
        let mut number = 0;
        while !stop.stopped() {
            server.let_in(port, &mut guests);
            let mut at = 0;
            while at < guests.len() {
                let busy = server.lock().len() >= SESSIONS_MAX;
                match guests[at].look(options.plain) {
                    Fate::Goes => drop(guests.remove(at)),
                    Fate::Spoke if !busy => {
                        number += 1;
                        server.begin(scope, guests.remove(at), number);
                    }
                    _ => at += 1,
                }
            }
            server.wait(port, &guests);
        }
        server.lock().iter().for_each(|session| session.stop.stop());
    });
    Ok(())
}

impl Server<'_> {
    fn lock(&self) -> MutexGuard<'_, Vec<Running>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets those in that have come.
    fn let_in(&self, port: &Listening, guests: &mut Vec<Guest>) {
        // Where the system has no more files, those at the door go, and then it is tried again.
        while let Ok((stream, from)) = port.listener.accept() {
            if guests.len() >= GUESTS_MAX {
                guests.remove(0);
            }
            guests.extend(Guest::new(stream, from));
        }
    }

    /// Waits until something happens.
    fn wait(&self, port: &Listening, guests: &[Guest]) {
        let mut files: Vec<(BorrowedFd<'_>, bool)> = vec![(port.listener.as_fd(), false)];
        files.extend(guests.iter().filter_map(Guest::file).map(|file| (file, false)));
        let first = guests.iter().map(|guest| GUEST_TIME.saturating_sub(guest.since.elapsed())).min();
        // Some more, or the time would not have passed.
        let time = first.map_or(Duration::from_secs(60), |time| time + Duration::from_millis(1));
        self.bell.wait(&files, time);
    }

    /// Gives a guest a thread.
    fn begin<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>, guest: Guest, number: u64) {
        let stop = Stop::default();
        self.lock().push(Running { number, peer: None, stop: stop.clone() });
        let work = move || {
            self.session(guest, number, &stop);
            self.lock().retain(|session| session.number != number);
            // Somebody may wait for the place.
            self.bell.wake();
        };
        if Builder::new().stack_size(STACK).spawn_scoped(scope, work).is_err() {
            self.lock().retain(|session| session.number != number);
        }
    }

    /// Runs a session to its end.
    fn session(&self, guest: Guest, number: u64, stop: &Stop) {
        let Guest { talk: Talk::Records(records), from, hello, .. } = guest else { return };
        let report = self.report;
        let run = || {
            let mut engine = (self.open)()?;
            let bell = Bell::new(stop).map_err(Error::Broken)?;
            let mut watch = |status: Status<'_>| {
                if let Status::Met { id, .. } = status {
                    self.meet(number, id);
                }
                report(from, &status);
            };
            let mut end = End::new(&mut engine, *records, bell, (stop, &mut watch));
            (end.goes_on, end.listens) = (true, true);
            end.patience = served(self.options);
            end.run(&hello)
        };
        match run() {
            Ok(_) => report(from, &Status::Ended),
            Err(Error::Stopped) if self.is_replaced(number) => {
                report(from, &Status::Failed(&Error::Replaced))
            }
            Err(Error::Stopped) => {}
            Err(e) => report(from, &Status::Failed(&e)),
        }
    }

    /// Ends the sessions that this device had before: the board has come again, and its old connection does not know.
    fn meet(&self, number: u64, id: DeviceId) {
        for session in self.lock().iter_mut() {
            if session.number == number {
                session.peer = Some(id);
            } else if session.peer == Some(id) {
                session.stop.stop();
            }
        }
    }

    /// Returns whether the device of this session has a newer one.
    fn is_replaced(&self, number: u64) -> bool {
        let sessions = self.lock();
        let peer = sessions.iter().find(|session| session.number == number).and_then(|session| session.peer);
        peer.is_some() && sessions.iter().any(|session| session.number > number && session.peer == peer)
    }
}

impl Guest {
    /// Takes a connection; `None` if it is gone already.
    fn new(stream: TcpStream, from: SocketAddr) -> Option<Self> {
        let talk = Talk::Unknown(Some(Files::tcp(stream).ok()?), Vec::new());
        Some(Self { talk, from, since: Instant::now(), hello: Vec::new() })
    }

    /// Returns the file to wait for, if there is something to wait for.
    fn file(&self) -> Option<BorrowedFd<'_>> {
        match &self.talk {
            Talk::Unknown(stream, _) => stream.as_ref().map(|stream| stream.files()[0]),
            Talk::Records(records) => (!self.has_spoken()).then(|| records.stream.files()[0]),
        }
    }

    /// Reads what it has said.
    fn look(&mut self, plain: bool) -> Fate {
        if self.since.elapsed() >= GUEST_TIME {
            return Fate::Goes;
        }
        while let Talk::Unknown(stream, bytes) = &mut self.talk {
            let Some(stream) = stream else { return Fate::Goes };
            let mut some = [0; 512];
            match stream.read(&mut some) {
                Ok(0) => return Fate::Goes,
                Ok(count) => bytes.extend_from_slice(&some[..count]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Fate::Waits,
                Err(_) => return Fate::Goes,
            }
            if !self.is_known(plain) {
                return Fate::Goes;
            }
        }
        while !self.has_spoken() {
            let Talk::Records(records) = &mut self.talk else { return Fate::Goes };
            let mut bytes = [0; HELLO_MAX];
            match records.receive(&mut bytes) {
                Ok(None) => return Fate::Waits,
                Ok(Some(0)) | Err(_) => return Fate::Goes,
                Ok(Some(count)) => self.hello.extend_from_slice(&bytes[..count]),
            }
            if !self.may_be_hello() {
                return Fate::Goes;
            }
        }
        Fate::Spoke
    }

    /// Tells by the first bytes what the connection is. Returns whether it is something.
    fn is_known(&mut self, plain: bool) -> bool {
        let Talk::Unknown(stream, bytes) = &mut self.talk else { return true };
        let Some(mut inner) = stream.take() else { return false };
        if bytes.first() == MAGIC.first() {
            self.talk =
                Talk::Records(Box::new(Records::answer(Box::new(inner), plain, std::mem::take(bytes))));
            return true;
        }
        match asked(bytes) {
            Asked::More => *stream = Some(inner),
            Asked::Opens(answer, used) => {
                let rest = bytes.split_off(used);
                let mut socket = WebSocket::new(Box::new(inner), false, mask, (rest, answer));
                // Nothing was sent before: there is room.
                let _ = socket.flush();
                self.talk = Talk::Records(Box::new(Records::answer(Box::new(socket), plain, Vec::new())));
            }
            Asked::Else(answer) => {
                let _ = inner.write(&answer);
                return false;
            }
        }
        true
    }

    fn head(&self) -> Option<RecordHead> {
        self.hello.first_chunk::<RECORD_HEAD_LEN>().and_then(|head| RecordHead::parse(head).ok())
    }

    /// Returns whether its hello is here whole.
    fn has_spoken(&self) -> bool {
        self.head().is_some_and(|head| self.hello.len() >= RECORD_HEAD_LEN + head.len as usize)
    }

    /// Returns whether what it has said can be the beginning of a hello.
    fn may_be_hello(&self) -> bool {
        self.hello.len() < RECORD_HEAD_LEN
            || self.head().is_some_and(|head| {
                head.kind == RecordKind::Message
                    && head.len as usize <= HELLO_MAX
                    && self.hello.len() <= 4 * HELLO_MAX
            })
    }
}
