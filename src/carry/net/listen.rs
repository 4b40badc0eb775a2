//! Many at once, over TCP, WebSocket or HTTP, told apart by the first bytes: who connects stays at the door until it has said
//! who it is; then it has a thread and an engine.
//!
//! At the door a connection costs a socket and some bytes, no thread, no engine and no look at the database. It is gone
//! after some seconds; where too many stand there, the one that came first goes.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, Scope};
use std::time::{Duration, Instant};

use packmule_core::model::DeviceId;
use packmule_core::wire::{
    Certificate, Message, RECORD_HEAD_LEN, RecordHead, RecordKind, Refusal, write_record,
};
use rustix::net::{Shutdown, shutdown};

use super::end::End;
use super::http::{Asked, Refused, Request, What, asked, mask, refusal};
use super::records::Records;
use super::requests::{self, Asking, Web};
use super::stream::{Bell, Files, LEAVE_MAX, LEAVE_TIME, Stream, drain};
use super::turns::{Came, Turns};
use super::websocket::WebSocket;
use super::{Error, Options, PROOF_TIME, Status, served};
use crate::carry::channel::MAGIC;
use crate::carry::stop::{Stop, Wake};
use crate::engine::{self, Engine};

/// So many sessions at once; who comes then is told to come again.
pub const SESSIONS_MAX: usize = 8;
/// One more is begun for a device that has a session already: it takes its place.
const SPARE: usize = 1;
/// So many stand at the door.
const GUESTS_MAX: usize = 64;
/// How long one may stand there.
const GUEST_TIME: Duration = PROOF_TIME;
/// How long sessions over HTTP may take to end after [`Stop::stop`].
const CLOSE_TIME: Duration = Duration::from_secs(3);
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
#[derive(Clone, Copy)]
pub struct Serving<'a> {
    /// Opens the database anew, for each session.
    pub open: &'a (dyn Fn() -> engine::Result<Engine> + Sync),
    /// How sessions run.
    pub options: &'a Options,
    /// Is told by their threads what happens.
    pub report: &'a (dyn Fn(SocketAddr, &Status<'_>) + Sync),
    /// What is answered over HTTP besides sessions.
    pub web: Option<&'a dyn Web>,
}

/// A server that runs.
struct Server<'a> {
    serving: Serving<'a>,
    stop: &'a Stop,
    bell: Arc<Bell>,
    sessions: Mutex<Vec<Running>>,
    requests: requests::Running,
}

/// A session that runs.
struct Running {
    number: u64,
    peer: Option<DeviceId>,
    /// Its device has come again.
    replaced: bool,
    stop: Stop,
}

/// One at the door.
struct Guest {
    talk: Talk,
    from: SocketAddr,
    since: Instant,
    hello: Vec<u8>,
    /// It has been served before, over this connection, or is the session of such a one.
    known: bool,
    /// Over HTTP: is told when it has proved who it is.
    proved: Option<Arc<AtomicBool>>,
}

/// What a guest's connection has turned out to be.
enum Talk {
    /// Its first bytes, or its request, are not here whole.
    Unknown(Option<Files>, Vec<u8>),
    Records(Box<Records>),
    /// A request over HTTP, and what came behind its head.
    Asks(Option<(Files, Request, Vec<u8>)>),
    /// It was refused: so much of what it still says may come.
    Leaves(Box<dyn Stream>, usize),
}

/// What becomes of a guest.
#[derive(PartialEq)]
enum Fate {
    Waits,
    /// It has said who it is, which is not verified yet.
    Spoke,
    /// It asks for something over HTTP.
    Asks,
    Goes,
}

/// Serves whoever comes, at most [`SESSIONS_MAX`] at once, until [`Stop::stop`], which closes the port too.
///
/// # Errors
/// Only what keeps it from beginning.
pub fn serve(port: &Listening, serving: Serving<'_>, stop: &Stop) -> Result<(), Error> {
    let bell = Bell::new(stop).map_err(Error::Listen)?;
    let server = Server { serving, stop, bell, sessions: Mutex::default(), requests: Default::default() };
    std::thread::scope(|scope| {
        let (mut guests, mut turns) = (Vec::new(), Turns::default());
        let mut number = 0;
        while !stop.stopped() {
            server.let_in(port, &mut guests);
            let mut at = 0;
            while at < guests.len() {
                match guests[at].look(serving.options.plain) {
                    Fate::Waits => at += 1,
                    Fate::Goes => drop(guests.remove(at)),
                    Fate::Spoke if server.is_busy(&guests[at]) => guests[at].refuse_busy(),
                    Fate::Spoke => {
                        number += 1;
                        server.begin(scope, guests.remove(at), number);
                    }
                    Fate::Asks => {
                        let guest = guests.remove(at);
                        guests.extend(server.handle_request(scope, guest, &mut turns));
                    }
                }
            }
            guests.extend(turns.step().into_iter().map(|(stream, from)| Guest::again(stream, from)));
            server.wait(port, &guests, &turns);
        }
        // Who comes while the last sessions end is refused, and not let in and then dropped.
        let _ = shutdown(&port.listener, Shutdown::Both);
        server.lock().iter().for_each(|session| session.stop.stop());
        server.end_turns(&mut turns);
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
                guests.remove(guests.iter().position(|guest| !guest.known).unwrap_or(0));
            }
            guests.extend(Guest::new(stream, from));
        }
    }

    /// Returns whether a guest that has said who it is comes too much.
    fn is_busy(&self, guest: &Guest) -> bool {
        let sessions = self.lock();
        let says =
            || guest.claimed_id().is_some_and(|id| sessions.iter().any(|session| session.peer == Some(id)));
        sessions.len() >= SESSIONS_MAX && (sessions.len() >= SESSIONS_MAX + SPARE || !says())
    }

    /// Begins what a guest asks for over HTTP. Returns who stands at the door for it: the session, or the guest that was
    /// refused.
    fn handle_request<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        guest: Guest,
        turns: &mut Turns,
    ) -> Option<Guest> {
        let Guest { talk: Talk::Asks(mut asks), from, .. } = guest else { return None };
        let (files, request, rest) = asks.take()?;
        if let What::Turn(turn) = request.what {
            return match turns.take(turn, &request, Came { stream: files, from, rest }) {
                Ok(begun) => begun.and_then(|(stream, proved)| {
                    let files = Files::local(stream).ok()?;
                    let records = Records::answer(Box::new(files), self.serving.options.plain, Vec::new());
                    let talk = Talk::Records(Box::new(records));
                    Some(Guest { proved: Some(proved), ..Guest::of(talk, from) })
                }),
                Err((why, came)) => Some(Guest::refused(came.stream, from, why)),
            };
        }
        let none: Refused = (404, "http-path", "no bundles and no figures are here");
        let Some(web) = self.serving.web else { return Some(Guest::refused(files, from, none)) };
        match self.requests.place(from, &request) {
            Ok(place) => {
                let asking = Asking { files, from, request, rest };
                let work = move || requests::work(asking, place, web, self.stop);
                let _ = Builder::new().stack_size(STACK).spawn_scoped(scope, work);
                None
            }
            Err(why) => Some(Guest::refused(files, from, why)),
        }
    }

    /// Carries what sessions over HTTP say last.
    fn end_turns(&self, turns: &mut Turns) {
        let until = Instant::now() + CLOSE_TIME;
        while !turns.is_empty() && !self.lock().is_empty() && Instant::now() < until {
            let _ = turns.step();
            let mut files = Vec::new();
            let _ = turns.files(&mut files);
            self.bell.wait(&files, CLOSE_TIME / 30);
        }
        let _ = turns.step();
    }

    /// Waits until something happens.
    fn wait(&self, port: &Listening, guests: &[Guest], turns: &Turns) {
        let mut files: Vec<(BorrowedFd<'_>, bool)> = vec![(port.listener.as_fd(), false)];
        files.extend(guests.iter().filter_map(Guest::file).map(|file| (file, false)));
        let first = guests.iter().map(|guest| guest.time().saturating_sub(guest.since.elapsed())).min();
        let time = turns.files(&mut files).min(first.unwrap_or(Duration::from_secs(60)));
        // Some more, or the time would not have passed.
        self.bell.wait(&files, time + Duration::from_millis(1));
    }

    /// Gives a guest a thread.
    fn begin<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>, guest: Guest, number: u64) {
        let stop = Stop::default();
        self.lock().push(Running { number, peer: None, replaced: false, stop: stop.clone() });
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
        let Guest { talk: Talk::Records(records), from, hello, proved, .. } = guest else { return };
        let Serving { open, options, report, .. } = self.serving;
        let run = || {
            let mut engine = open()?;
            let bell = Bell::new(stop).map_err(Error::Broken)?;
            let mut watch = |status: Status<'_>| {
                if let Status::Met { id, .. } = status {
                    proved.iter().for_each(|proved| proved.store(true, Ordering::Relaxed));
                    self.meet(number, id);
                }
                report(from, &status);
            };
            let mut end = End::new(&mut engine, *records, bell, (stop, &mut watch));
            (end.goes_on, end.listens) = (true, true);
            end.patience = served(options);
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
                session.replaced = true;
                session.stop.stop();
            }
        }
    }

    /// Returns whether the device of this session has come again. The newer session may have ended already.
    fn is_replaced(&self, number: u64) -> bool {
        self.lock().iter().any(|session| session.number == number && session.replaced)
    }
}

/// Sends the last thing that is said on a connection, and ends this end's way of it.
fn leaves(mut stream: Box<dyn Stream>, last: &[u8]) -> Talk {
    // It is short, and nothing was sent before.
    let _ = stream.write(last);
    stream.hang_up();
    Talk::Leaves(stream, LEAVE_MAX)
}

impl Guest {
    /// Takes a connection; `None` if it is gone already.
    fn new(stream: TcpStream, from: SocketAddr) -> Option<Self> {
        Some(Self::of(Talk::Unknown(Some(Files::tcp(stream).ok()?), Vec::new()), from))
    }

    fn of(talk: Talk, from: SocketAddr) -> Self {
        Self { talk, from, since: Instant::now(), hello: Vec::new(), known: false, proved: None }
    }

    /// Takes a connection that stays for another request.
    fn again(files: Files, from: SocketAddr) -> Self {
        Self { known: true, ..Self::of(Talk::Unknown(Some(files), Vec::new()), from) }
    }

    /// Tells a connection why it is refused.
    fn refused(files: Files, from: SocketAddr, why: Refused) -> Self {
        Self::of(leaves(Box::new(files), &refusal(why)), from)
    }

    /// Tells it, in its own protocol, that as many sessions run as there can be.
    fn refuse_busy(&mut self) {
        let message = Message::Refused { why: Refusal::Busy, device: DeviceId([0; 16]) };
        let (mut body, mut record) = ([0; 32], [0; 64]);
        let written = message
            .encode(&mut body)
            .and_then(|len| write_record(&mut record, RecordKind::Message, &body[..len]));
        let gone = Talk::Unknown(None, Vec::new());
        if let (Talk::Records(mut records), Ok(len)) = (std::mem::replace(&mut self.talk, gone), written) {
            // It is short, and little was sent before.
            let _ = records.send(&record[..len]);
            self.talk = leaves(records.stream, &[]);
            self.since = Instant::now();
        }
    }

    /// Returns how long it may stand there.
    fn time(&self) -> Duration {
        if matches!(self.talk, Talk::Leaves(..)) { LEAVE_TIME } else { GUEST_TIME }
    }

    /// Returns the file to wait for, if there is something to wait for.
    fn file(&self) -> Option<BorrowedFd<'_>> {
        match &self.talk {
            Talk::Unknown(stream, _) => stream.as_ref().map(|stream| stream.files()[0]),
            Talk::Records(records) => (!self.has_spoken()).then(|| records.stream.files()[0]),
            Talk::Asks(_) => None,
            Talk::Leaves(stream, _) => Some(stream.files()[0]),
        }
    }

    /// Reads what it has said.
    fn look(&mut self, plain: bool) -> Fate {
        if self.since.elapsed() >= self.time() {
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
        if let Talk::Leaves(stream, left) = &mut self.talk {
            return if drain(&mut **stream, left) { Fate::Waits } else { Fate::Goes };
        }
        if matches!(self.talk, Talk::Asks(_)) {
            return Fate::Asks;
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
        let Some(inner) = stream.take() else { return false };
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
            Asked::Asks(request, used) => {
                let rest = bytes.split_off(used);
                self.talk = Talk::Asks(Some((inner, request, rest)));
            }
            Asked::Else(answer) => {
                self.talk = leaves(Box::new(inner), &answer);
                self.since = Instant::now();
            }
        }
        true
    }

    /// Returns who it says it is, which is not verified yet.
    fn claimed_id(&self) -> Option<DeviceId> {
        let head = self.head()?;
        let body = self.hello.get(RECORD_HEAD_LEN..RECORD_HEAD_LEN + head.len as usize)?;
        match Message::decode(head.check(body).ok()?).ok()? {
            Message::Hello { certificate, .. } => Some(Certificate::read(certificate).ok()?.device()),
            _ => None,
        }
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
