//! A session over HTTP, at who begins it: a thread that sends what this end has to say as the bodies of POSTs, and hands on
//! what the answers bring. For the session it is a stream like any other: a local socket, whose other end is here.
//!
//! One turn is always on its way, so that the other end can say something at any time. Where this end has something to say
//! meanwhile, it goes as the next turn, over a second connection, and the other end answers the first one at once.

#[cfg(test)]
#[allow(clippy::unwrap_used)] // Tests.
mod tests;

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, OnceLock};
use std::thread::{JoinHandle, spawn};
use std::time::{Duration, Instant};

use packmule_core::model::Hex;

use super::http::{ANSWER_MAX, Answered, HEAD_MAX, OVER, TOKEN, TURN, answered};
use super::stream::{Files, LOOK, Stream, ready};
use super::{Error, Host, connect};
use crate::carry::stop::Stop;

/// A turn says no more at once.
const SAID_MAX: usize = 32_768;
/// How long the other end may take nothing of a turn.
const WRITE_TIME: Duration = Duration::from_secs(30);
/// A connection that was quiet for so long is not used again: the other end, or a proxy, may be about to close it.
const FRESH: Duration = Duration::from_secs(4);
/// How long an end that has gone waits for the last answer.
const CLOSE_TIME: Duration = Duration::from_secs(3);

/// What is needed of the system.
trait Surroundings: Clone + Send + 'static {
    fn now(&self) -> Instant;
    /// Waits until one of these can be read from or (`true`) written to, or so long.
    fn wait(&self, files: &[(BorrowedFd<'_>, bool)], time: Duration);
    /// Connects, as long as patience lasts and nobody stops it.
    fn connect(&self, host: &Host, patience: Duration, stop: &Stop) -> Result<TcpStream, Error>;
}

/// The system itself.
#[derive(Clone)]
struct System;

impl Surroundings for System {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn wait(&self, files: &[(BorrowedFd<'_>, bool)], time: Duration) {
        ready(files, time);
    }

    fn connect(&self, host: &Host, patience: Duration, stop: &Stop) -> Result<TcpStream, Error> {
        connect(host, Some(patience), stop)
    }
}

/// The session's end of it. Its socket is closed first, which ends the thread.
struct Polled<S: Surroundings> {
    files: Files,
    _turns: Joined<S>,
}

/// A thread that is waited for. It is told since when: with two turns on their way it would not see that its socket is closed.
struct Joined<S: Surroundings> {
    thread: Option<JoinHandle<()>>,
    gone: Arc<OnceLock<Instant>>,
    /// Ends what it waits for where no socket of ours tells it.
    stop: Stop,
    system: S,
}

/// Begins a session at an address. The first turn says nothing: its answer has the session's token.
pub(super) fn open(
    (host, path): (&Host, &str),
    patience: Option<Duration>,
    stop: &Stop,
) -> Result<Box<dyn Stream>, Error> {
    open_in(System, (host, path), patience, stop)
}

fn open_in<S: Surroundings>(
    system: S,
    (host, path): (&Host, &str),
    patience: Option<Duration>,
    stop: &Stop,
) -> Result<Box<dyn Stream>, Error> {
    let (ours, theirs) = UnixStream::pair().map_err(Error::Unreachable)?;
    let files = Files::local(theirs).map_err(Error::Unreachable)?;
    ours.set_nonblocking(true).map_err(Error::Unreachable)?;
    let (gone, stop) = (Arc::<OnceLock<Instant>>::default(), stop.within());
    let mut turns = Turns {
        system: system.clone(),
        host: host.clone(),
        path: path.into(),
        patience,
        stop: stop.clone(),
        token: None,
        next: 0,
        local: ours,
        open: VecDeque::new(),
        idle: None,
        ended: None,
        gone: gone.clone(),
    };
    turns.first_turn()?;
    // From now on it is the session that shows a sign of life, or does not.
    turns.stop = stop.unwatched();
    let thread = spawn(move || {
        // Whatever ends it ends the stream.
        let _ = turns.run();
        let _ = turns.local.shutdown(Shutdown::Both);
    });
    Ok(Box::new(Polled { files, _turns: Joined { thread: Some(thread), gone, stop, system } }))
}

impl<S: Surroundings> Read for Polled<S> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.files.read(to)
    }
}

impl<S: Surroundings> Write for Polled<S> {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.files.write(from)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.files.flush()
    }
}

impl<S: Surroundings> Stream for Polled<S> {
    fn kind(&self) -> &'static str {
        self.files.kind()
    }

    fn files(&self) -> [BorrowedFd<'_>; 2] {
        self.files.files()
    }

    fn hang_up(&mut self) {
        self.files.hang_up();
    }
}

impl<S: Surroundings> Drop for Joined<S> {
    fn drop(&mut self) {
        let _ = self.gone.set(self.system.now());
        self.stop.stop();
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// The thread's side.
struct Turns<S> {
    system: S,
    host: Host,
    path: String,
    patience: Option<Duration>,
    stop: Stop,
    token: Option<[u8; 16]>,
    /// The number of the next turn.
    next: u64,
    local: UnixStream,
    /// The turns that are not answered, with what came of their answers: at most two.
    open: VecDeque<(TcpStream, Vec<u8>)>,
    /// A connection that can be used again, and since when.
    idle: Option<(TcpStream, Instant)>,
    /// Since when this end says no more.
    ended: Option<Instant>,
    /// Since when the session has gone, and waits for this thread; or since when it is to end.
    gone: Arc<OnceLock<Instant>>,
}

impl<S: Surroundings> Turns<S> {
    /// Takes the first turn.
    fn first_turn(&mut self) -> Result<(), Error> {
        let begun = self.system.now();
        self.say(&[])?;
        while self.hear()? {
            if self.stop.stopped() {
                return Err(Error::Stopped);
            }
            if let Some(patience) = self.patience.filter(|patience| self.passed(begun) >= *patience) {
                return Err(Error::Nobody(patience));
            }
            self.wait();
        }
        Ok(())
    }

    /// Takes turns until the other end says no more, or this one has gone.
    fn run(&mut self) -> Result<(), Error> {
        let mut said = vec![0; SAID_MAX];
        loop {
            let mut count = 0;
            let mut ends = false;
            if self.open.len() < 2 && self.ended.is_none() {
                match self.local.read(&mut said) {
                    Ok(0) => ends = true,
                    Ok(some) => count = some,
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                    Err(_) => ends = true,
                }
            }
            if ends {
                self.ended = Some(self.system.now());
            }
            if count > 0 || ends || self.open.is_empty() {
                self.say(&said[..count])?;
            }
            if self.ended.or(self.gone_since()).is_some_and(|since| self.passed(since) >= CLOSE_TIME) {
                return Ok(());
            }
            self.wait();
            while !self.open.is_empty() && !self.hear()? {}
        }
    }

    /// Sends a turn.
    fn say(&mut self, body: &[u8]) -> Result<(), Error> {
        let fresh = self.idle.take().filter(|(_, since)| self.passed(*since) < FRESH);
        let stream = match fresh {
            Some((stream, _)) => stream,
            None => {
                let stream = self.system.connect(&self.host, self.write_limit(), &self.stop)?;
                stream.set_nonblocking(true).map_err(Error::Unreachable)?;
                let _ = stream.set_nodelay(true);
                stream
            }
        };
        let (host, path, len, number) = (self.host.of_request(), &self.path, body.len(), self.next);
        let mut request = format!(
            "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/octet-stream\r\nContent-Length: {len}\r\n\
             {TURN}: {number}\r\n"
        );
        if let Some(token) = &self.token {
            request += &format!("{TOKEN}: {}\r\n", Hex(token));
        }
        if self.ended.is_some() {
            request += &format!("{OVER}: 1\r\n");
        }
        let request = [(request + "\r\n").as_bytes(), body].concat();
        self.say_all(&stream, &request).map_err(Error::Broken)?;
        self.next += 1;
        self.open.push_back((stream, Vec::new()));
        Ok(())
    }

    /// Hears what came of the first answer that is due. Returns whether it is not whole.
    fn hear(&mut self) -> Result<bool, Error> {
        let Some((stream, came)) = self.open.front_mut() else { return Ok(true) };
        let mut some = [0; 8_192];
        let head = loop {
            match answered(came)? {
                Some(head) if came.len() >= head.len[0] + head.len[1] => break head,
                _ if came.len() > HEAD_MAX + ANSWER_MAX => return Err(Error::Foreign),
                _ => {}
            }
            match stream.read(&mut some) {
                Ok(0) => return Err(Error::Broken(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => came.extend_from_slice(&some[..count]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::Broken(e)),
            }
        };
        let due = self.next - self.open.len() as u64;
        let Some((stream, came)) = self.open.pop_front() else { return Ok(true) };
        self.take(&head, due, &came)?;
        if head.stays {
            self.idle = Some((stream, self.system.now()));
        }
        Ok(false)
    }

    /// Takes an answer.
    fn take(&mut self, head: &Answered, due: u64, came: &[u8]) -> Result<(), Error> {
        let [at, len] = head.len;
        if head.number != due || self.token.is_some_and(|token| token != head.token) || came.len() != at + len
        {
            return Err(Error::Foreign);
        }
        self.token = Some(head.token);
        // Where this end has gone nobody hears it.
        if self.say_all(&self.local, &came[at..]).is_err() && self.ended.is_none() {
            self.ended = Some(self.system.now());
        }
        if head.over { Err(Error::Ended) } else { Ok(()) }
    }

    /// Returns since when the session has gone or is to end: it waits no longer for its end than this thread does.
    fn gone_since(&self) -> Option<Instant> {
        if self.stop.stopped() {
            let _ = self.gone.set(self.system.now());
        }
        self.gone.get().copied()
    }

    fn passed(&self, since: Instant) -> Duration {
        self.system.now().saturating_duration_since(since)
    }

    /// Returns how long somebody may take nothing.
    fn write_limit(&self) -> Duration {
        if self.ended.is_some() || self.stop.stopped() {
            CLOSE_TIME
        } else {
            self.patience.unwrap_or(WRITE_TIME)
        }
    }

    /// Waits until something can be said or heard.
    fn wait(&self) {
        let mut files = Vec::new();
        if self.open.len() < 2 && self.ended.is_none() && self.token.is_some() {
            files.push((self.local.as_fd(), false));
        }
        files.extend(self.open.front().map(|(stream, _)| (stream.as_fd(), false)));
        self.system.wait(&files, LOOK);
    }

    /// Writes all of it, to a file that makes nobody wait.
    fn say_all<'a, F: AsFd>(&self, to: &'a F, bytes: &[u8]) -> io::Result<()>
    where
        &'a F: Write,
    {
        let (mut to, file, mut rest) = (to, to.as_fd(), bytes);
        let mut moved = self.system.now();
        while !rest.is_empty() {
            match to.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    rest = &rest[count..];
                    moved = self.system.now();
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    // Also who takes a byte now and then does not keep a session that has gone.
                    let has_gone = self.gone_since().is_some_and(|since| self.passed(since) >= CLOSE_TIME);
                    if has_gone || self.passed(moved) >= self.write_limit() {
                        return Err(e);
                    }
                    self.system.wait(&[(file, true)], LOOK);
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}
