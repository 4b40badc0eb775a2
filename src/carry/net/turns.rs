//! Sessions over HTTP, at who listens: what the other end has to say comes as the body of a POST, and what this one has
//! to say goes as its answer. Each is a stream like any other for the session: a local socket, whose other end is here.
//!
//! A turn is answered when there is something to say, when the next turn has come, or after [`HOLD`]. A turn whose
//! connection ends before its answer has gone is a piece of the stream that may be lost: the session is over then, as
//! when a cable is cut.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::http::{ANSWER_MAX, Refused, Request, Turn, turn_head};
use super::random;
use super::stream::{Files, Stream};

/// So many sessions over HTTP there are at once, those at the door included.
pub(super) const TOKENS_MAX: usize = 16;
/// The body of a turn has no more.
const BODY_MAX: u64 = 1 << 20;
/// How long a turn waits for something to be said.
const HOLD: Duration = Duration::from_secs(10);
/// How long the body of a turn may take, and a session be without any turn.
const IDLE: Duration = Duration::from_secs(30);
/// So much of a body is on its way at once.
const PIECE: usize = 4_096;

const LOST: Refused = (404, "session-lost", "there is no such session: it has ended; begin a new one");
const OUT_OF_TURN: Refused =
    (409, "session-lost", "this is not the next turn: the session has ended; begin a new one");
const TOO_LARGE: Refused = (413, "too-large", "a turn has at most 1 MiB");
const BUSY: Refused = (503, "busy", "as many sessions run as this end takes; try again");

/// A connection that has sent the head of a turn; what came behind it.
pub(super) struct Came {
    pub(super) stream: Files,
    pub(super) from: SocketAddr,
    pub(super) rest: Vec<u8>,
}

/// A new session: its stream, and where it is told that the other end has proved who it is.
pub(super) type Begun = (UnixStream, Arc<AtomicBool>);

/// All sessions over HTTP.
#[derive(Default)]
pub(super) struct Turns {
    all: Vec<Live>,
}

/// One of them.
struct Live {
    token: [u8; 16],
    stream: UnixStream,
    /// The number of the next turn.
    next: u64,
    /// The turns that are not answered: at most two.
    open: VecDeque<Exchange>,
    /// The turn after the next one, where it has come first: each has a connection of its own.
    early: Option<Exchange>,
    proved: Arc<AtomicBool>,
    heard: Instant,
    /// This end says no more.
    over: bool,
}

/// A turn that is not answered yet.
struct Exchange {
    stream: Files,
    from: SocketAddr,
    stays: bool,
    number: u64,
    /// The other end says no more.
    over: bool,
    /// It waits until there is something to be said.
    waits: bool,
    /// How much of its body is not here; what is here and is not on its way; whether all is.
    left: u64,
    body: Vec<u8>,
    taken: bool,
    since: Instant,
    /// The answer, once there is one; up to where it has gone.
    answer: Option<Vec<u8>>,
    gone: usize,
}

impl Turns {
    /// Takes a turn. Returns the stream of a session that begins with it.
    ///
    /// # Errors
    /// Why not, with the connection, which is to be told.
    pub(super) fn take(
        &mut self,
        turn: Turn,
        request: &Request,
        came: Came,
    ) -> Result<Option<Begun>, (Refused, Came)> {
        if request.len > BODY_MAX || came.rest.len() as u64 > request.len {
            return Err((TOO_LARGE, came));
        }
        let (at, begun) = match turn.token {
            None => match self.begin() {
                Some(begun) => (self.all.len() - 1, Some(begun)),
                None => return Err((BUSY, came)),
            },
            Some(token) => match self.all.iter().position(|live| live.token == token) {
                Some(at) => (at, None),
                None => return Err((LOST, came)),
            },
        };
        let live = &mut self.all[at];
        let is_early = live.is_early(turn.number);
        if !is_early && (live.next != turn.number || live.open.len() > 1) {
            drop(self.all.remove(at));
            return Err((OUT_OF_TURN, came));
        }
        live.heard = Instant::now();
        let exchange = Exchange {
            stream: came.stream,
            from: came.from,
            stays: request.stays,
            number: turn.number,
            over: turn.over,
            waits: turn.number > 0 || request.len > 0,
            left: request.len - came.rest.len() as u64,
            body: came.rest,
            taken: false,
            since: live.heard,
            answer: None,
            gone: 0,
        };
        if is_early {
            live.early = Some(exchange);
            return Ok(begun);
        }
        for turn in [exchange].into_iter().chain(live.early.take()) {
            live.next += 1;
            live.open.push_back(turn);
        }
        Ok(begun)
    }

    /// Begins a session; in the place of the oldest one that has not proved who it is, if there are too many.
    fn begin(&mut self) -> Option<Begun> {
        if self.all.len() >= TOKENS_MAX {
            let at = self.all.iter().position(|live| !live.proved.load(Ordering::Relaxed))?;
            drop(self.all.remove(at));
        }
        let (stream, theirs) = UnixStream::pair().ok()?;
        stream.set_nonblocking(true).ok()?;
        let (token, proved) = (random().ok()?, Arc::new(AtomicBool::new(false)));
        self.all.push(Live {
            token,
            stream,
            next: 0,
            open: VecDeque::new(),
            early: None,
            proved: Arc::clone(&proved),
            heard: Instant::now(),
            over: false,
        });
        Some((theirs, proved))
    }

    /// Returns whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Moves what can be moved. Returns the connections that stay for another request.
    pub(super) fn step(&mut self) -> Vec<(Files, SocketAddr)> {
        let mut stay = Vec::new();
        self.all.retain_mut(|live| live.step(&mut stay).is_ok() && !live.is_idle());
        stay
    }

    /// Adds the files to wait for. Returns for how long at most.
    pub(super) fn files<'a>(&'a self, files: &mut Vec<(BorrowedFd<'a>, bool)>) -> Duration {
        let mut first = Duration::from_secs(60);
        for live in &self.all {
            for (n, turn) in live.open.iter().enumerate().filter(|(n, _)| live.is_next(*n)) {
                let [from, to] = turn.stream.files();
                if turn.answer.is_some() {
                    files.push((to, true));
                } else if !turn.taken && !turn.body.is_empty() {
                    files.push((live.stream.as_fd(), true));
                } else {
                    files.push((from, false));
                }
                if turn.taken && n == 0 && turn.answer.is_none() {
                    files.push((live.stream.as_fd(), false));
                    first = first.min(HOLD.saturating_sub(turn.since.elapsed()));
                }
            }
            first = first.min(IDLE.saturating_sub(live.since().elapsed()));
        }
        first
    }
}

impl Live {
    /// Returns whether this turn is the second of two that are on their way, of which the first has not come yet.
    fn is_early(&self, number: u64) -> bool {
        number == self.next + 1 && self.open.is_empty() && self.early.is_none()
    }

    /// Returns since when nothing was heard of it, or its first turn lasts.
    fn since(&self) -> Instant {
        self.open.front().map_or(self.heard, |turn| turn.since)
    }

    /// Returns whether nothing was heard of it for too long, or all is said.
    fn is_idle(&self) -> bool {
        self.since().elapsed() >= IDLE || self.over && self.open.is_empty()
    }

    /// Returns whether what the turn in this place says comes next: all before it is taken.
    fn is_next(&self, n: usize) -> bool {
        n == 0 || self.open[n - 1].taken
    }

    /// Moves what can be moved.
    fn step(&mut self, stay: &mut Vec<(Files, SocketAddr)>) -> io::Result<()> {
        for n in 0..self.open.len() {
            if self.is_next(n) {
                self.open[n].take_body(&self.stream)?;
            }
        }
        loop {
            let more = self.open.len() > 1;
            let Some(first) = self.open.front_mut() else { return Ok(()) };
            if first.answer.is_none() && first.taken {
                let mut said = Vec::new();
                self.over |= read_some(&self.stream, &mut said)?;
                let waited = !first.waits || more || first.since.elapsed() >= HOLD;
                if said.is_empty() && !self.over && !waited {
                    return Ok(());
                }
                let mut answer = turn_head(&self.token, first.number, (self.over, first.stays), said.len());
                answer.append(&mut said);
                first.answer = Some(answer);
            }
            if !first.send_answer()? {
                return Ok(());
            }
            self.heard = Instant::now();
            let done = self.open.pop_front();
            stay.extend(done.filter(|turn| turn.stays).map(|turn| (turn.stream, turn.from)));
        }
    }
}

impl Exchange {
    /// Passes its body on.
    fn take_body(&mut self, mut to: &UnixStream) -> io::Result<()> {
        while !self.taken {
            if self.body.is_empty() && self.left > 0 {
                let mut some = [0; PIECE];
                let room = self.left.min(PIECE as u64) as usize;
                match read(&mut self.stream, &mut some[..room])? {
                    None => return Ok(()),
                    Some(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    Some(count) => {
                        self.body.extend_from_slice(&some[..count]);
                        self.left -= count as u64;
                    }
                }
            }
            if !self.body.is_empty() {
                match to.write(&self.body) {
                    Ok(count) => drop(self.body.drain(..count)),
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    // The session is over: what it said last is still there.
                    Err(e) if e.kind() == io::ErrorKind::BrokenPipe => self.body.clear(),
                    Err(e) => return Err(e),
                }
            }
            if self.body.is_empty() && self.left == 0 {
                self.taken = true;
                if self.over {
                    let _ = to.shutdown(Shutdown::Write);
                }
            }
        }
        // Nothing more comes before the answer has gone; where the other end hangs up, it is lost.
        match self.answer.is_none().then(|| read(&mut self.stream, &mut [0])).transpose()? {
            None | Some(None) => Ok(()),
            Some(Some(_)) => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Sends its answer. Returns whether all of it has gone.
    fn send_answer(&mut self) -> io::Result<bool> {
        let Some(answer) = &self.answer else { return Ok(false) };
        while self.gone < answer.len() {
            match self.stream.write(&answer[self.gone..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.gone += count,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }
}

/// Reads what is there: `None` if there is nothing at the moment.
fn read(from: &mut impl Read, to: &mut [u8]) -> io::Result<Option<usize>> {
    loop {
        match from.read(to) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            read => return read.map(Some),
        }
    }
}

/// Reads what a session has to say, as much as an answer takes. Returns whether it says no more.
fn read_some(mut from: &UnixStream, to: &mut Vec<u8>) -> io::Result<bool> {
    let mut some = [0; PIECE];
    while to.len() + PIECE <= ANSWER_MAX {
        match read(&mut from, &mut some) {
            Ok(None) => return Ok(false),
            // Where it had not read all, the system says so in place of the end.
            Ok(Some(0)) => return Ok(true),
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Ok(true),
            Ok(Some(count)) => to.extend_from_slice(&some[..count]),
            Err(e) => return Err(e),
        }
    }
    Ok(false)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // Tests.
mod tests {
    use super::*;
    use crate::carry::net::http::What;
    use crate::carry::net::stream::ready;

    /// Has a turn come whose body has so many bytes, of which some are here. Returns what is begun, and the other end.
    fn come(turns: &mut Turns, turn: Turn, len: u64, rest: &[u8]) -> (Option<Begun>, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let request = Request { what: What::Turn(turn), len, stays: true, expects: false };
        let came = Came {
            stream: Files::local(ours).unwrap(),
            from: ([127, 0, 0, 1], 1).into(),
            rest: rest.to_vec(),
        };
        let begun = turns.take(turn, &request, came);
        (begun.unwrap_or_else(|(why, _)| panic!("{why:?}")), theirs)
    }

    /// Returns whether something that is waited for is there.
    fn is_ready(turns: &Turns) -> bool {
        let mut files = Vec::new();
        let _ = turns.files(&mut files);
        files.iter().any(|file| ready(&[*file], Duration::ZERO))
    }

    /// The first turn comes slowly, and the second one is here already: nothing can be done, and it is waited for the first.
    #[test]
    fn a_turn_behind_a_slow_one_keeps_nobody_busy() {
        let mut turns = Turns::default();
        let (begun, mut slow) = come(&mut turns, Turn { token: None, number: 0, over: false }, 4, b"");
        let (mut session, _) = begun.unwrap();
        let token = Some(turns.all[0].token);
        let (_, mut other) = come(&mut turns, Turn { token, number: 1, over: false }, 6, b"efg");
        other.write_all(b"hij").unwrap();
        assert!(turns.step().is_empty());
        assert!(!is_ready(&turns), "the loop would turn without a rest");
        slow.write_all(b"abcd").unwrap();
        assert!(is_ready(&turns));
        turns.step();
        let mut came = [0; 10];
        session.read_exact(&mut came).unwrap();
        assert_eq!(&came, b"abcdefghij");
    }
}
