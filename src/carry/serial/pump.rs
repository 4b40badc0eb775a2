//! The thread that moves bytes between a port and its link, so that the line is served also while the
//! database is busy. It opens the port again when it vanishes.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use packmule_core::link::{BoardLink, Config, Event, State, WIRE_MAX};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::port::Port;
use super::{Options, random};

/// How often a port that is not there is looked for: at first, and once it is gone for [`LATER`].
const REOPEN: Duration = Duration::from_millis(40);
const REOPEN_LATER: Duration = Duration::from_millis(500);
const LATER: Duration = Duration::from_secs(10);
/// A wait that somebody else ends.
const LONG: Duration = Duration::from_secs(1);

/// What happened on the line.
pub(super) enum News {
    /// The port is open.
    Opened,
    /// The port cannot be opened, and why; told once.
    Closed(io::Error),
    /// The link says.
    Link(Event),
}

impl News {
    fn is_restart(&self) -> bool {
        matches!(self, Self::Link(Event::PeerRestarted))
    }
}

/// What both threads hold.
pub(super) struct Line {
    inner: Mutex<Inner>,
    changed: Condvar,
    bell: UnixStream,
}

/// The link and what is told of it.
pub(super) struct Inner {
    pub(super) link: Box<BoardLink>,
    pub(super) news: VecDeque<News>,
    /// What came of the connection before the other end began anew: a receive buffer at most.
    pub(super) rest: Vec<u8>,
    stop: bool,
    begun: Instant,
}

impl Inner {
    /// Takes the link's events; whether there is any news. Until it was looked at, `send` and `recv` are left alone.
    pub(super) fn has_news(&mut self) -> bool {
        while let Some(event) = self.link.event() {
            // Of two restarts in a row the second ends what nobody has begun to read.
            if event == Event::PeerRestarted && !self.news.iter().any(News::is_restart) {
                self.rest = self.come();
            }
            self.news.push_back(News::Link(event));
        }
        !self.news.is_empty()
    }

    /// Returns whether the other end began a new connection, and the driver has yet to hear of it: the link is that
    /// of another connection.
    pub(super) fn restarted(&mut self) -> bool {
        self.has_news() && self.news.iter().any(News::is_restart)
    }

    /// Returns what is here to be received, all of it.
    fn come(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; self.link.recv_ready()];
        let count = self.link.recv(&mut bytes);
        bytes.truncate(count);
        bytes
    }

    /// Returns what came over the driver's connection and was not received. `over`: it has heard that the other end has
    /// begun anew.
    pub(super) fn take_rest(&mut self, over: bool) -> Vec<u8> {
        if over || self.restarted() { std::mem::take(&mut self.rest) } else { self.come() }
    }

    /// Returns the link's clock.
    fn now(&self) -> u64 {
        self.begun.elapsed().as_micros() as u64
    }
}

impl Line {
    /// Makes a line whose link begins to call; its thread is [`Line::pump`].
    pub(super) fn new(options: &Options) -> io::Result<(Arc<Self>, UnixStream)> {
        let (bell, ear) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        ear.set_nonblocking(true)?;
        let mut config = Config::new(options.baud, u32::from_le_bytes(random()?));
        config.baud_max = options.baud_max.max(options.baud);
        let inner = Inner {
            link: Box::new(BoardLink::new(config)),
            news: VecDeque::new(),
            rest: Vec::new(),
            stop: false,
            begun: Instant::now(),
        };
        let line = Self { inner: Mutex::new(inner), changed: Condvar::new(), bell };
        Ok((Arc::new(line), ear))
    }

    /// Locks the link. A thread that panicked with it left it whole: its calls do not stop halfway.
    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for something new from the line, or for the time.
    pub(super) fn wait<'a>(&self, guard: MutexGuard<'a, Inner>, time: Duration) -> MutexGuard<'a, Inner> {
        self.changed.wait_timeout(guard, time).unwrap_or_else(PoisonError::into_inner).0
    }

    /// Lets the line's thread look at the link.
    pub(super) fn ring(&self) {
        // A full pipe has rung already.
        let _ = (&self.bell).write(&[1]);
    }

    /// Wakes who waits for news.
    pub(super) fn wake(&self) {
        self.changed.notify_all();
    }

    /// Ends the line's thread.
    pub(super) fn stop(&self) {
        self.lock().stop = true;
        self.ring();
    }

    /// Runs the thread, until [`Line::stop`].
    pub(super) fn pump(&self, options: &Options, mut ear: UnixStream) {
        let mut port = None;
        let mut complaint: Option<io::ErrorKind> = None;
        let mut gone = Instant::now();
        let mut out = Outgoing { bytes: [0; WIRE_MAX], from: 0, to: 0 };
        while !self.lock().stop {
            let open = match port.take() {
                Some(open) => open,
                None => match self.open(options) {
                    Ok(open) => {
                        complaint = None;
                        (out.from, out.to) = (0, 0);
                        let mut inner = self.lock();
                        let now = inner.now();
                        inner.link.line_changed(now);
                        inner.news.push_back(News::Opened);
                        self.wake();
                        open
                    }
                    Err(e) => {
                        if complaint != Some(e.kind()) {
                            complaint = Some(e.kind());
                            self.lock().news.push_back(News::Closed(e));
                            self.wake();
                        }
                        let again = if gone.elapsed() < LATER { REOPEN } else { REOPEN_LATER };
                        self.sleep(&mut ear, None, again);
                        continue;
                    }
                },
            };
            match self.drive(open, &mut out, &mut ear) {
                Ok(open) => port = Some(open),
                Err(e) => {
                    complaint = Some(e.kind());
                    gone = Instant::now();
                    self.lock().news.push_back(News::Closed(e));
                    self.wake();
                }
            }
        }
    }

    /// Opens the port at the rate that the link has.
    fn open(&self, options: &Options) -> io::Result<Port> {
        let baud = self.lock().link.baud();
        Port::open(&options.path, baud, options.flow)
    }

    /// Moves what is due, then waits for more.
    fn drive(&self, mut port: Port, out: &mut Outgoing, ear: &mut UnixStream) -> io::Result<Port> {
        let mut bytes = [0; 4096];
        let came = port.read(&mut bytes)?;
        if let Some(count) = came {
            let mut inner = self.lock();
            let now = inner.now();
            inner.link.receive_bytes(now, bytes.get(..count).unwrap_or_default());
        }
        let mut inner = self.lock();
        let mut now = inner.now();
        let deadline = loop {
            if out.from == out.to {
                (out.from, out.to) = (0, inner.link.transmit(now, &mut out.bytes));
                if out.to == 0 {
                    let Some(baud) = inner.link.baud_wanted() else { break inner.link.deadline() };
                    drop(inner);
                    let baud = port.set_baud(baud);
                    inner = self.lock();
                    now = inner.now();
                    inner.link.set_baud(now, baud);
                    continue;
                }
            }
            let taken = port.write(out.bytes.get(out.from..out.to).unwrap_or_default())?;
            if taken == 0 {
                break None;
            }
            out.from += taken;
        };
        let closed = inner.link.state() == State::Closed;
        drop(inner);
        // The other thread takes the events itself: until it has, the link lets nothing of two connections mix. At
        // the end it waits for the last words to be out.
        if came.is_some() || closed {
            self.wake();
        }
        let wait = deadline.map_or(LONG, |at| Duration::from_micros(at.saturating_sub(now)).min(LONG));
        self.sleep(ear, Some((&port, out.from < out.to)), wait);
        Ok(port)
    }

    /// Waits for bytes, for room, for the bell, or for the time.
    fn sleep(&self, ear: &mut UnixStream, port: Option<(&Port, bool)>, time: Duration) {
        let time = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() };
        let wanted = |writing: bool| if writing { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
        let rung = {
            let mut fds = vec![PollFd::new(&*ear, PollFlags::IN)];
            if let Some((port, writing)) = port {
                fds.push(PollFd::new(port, wanted(writing)));
            }
            // A signal only ends the wait.
            poll(&mut fds, Some(&time)).is_ok_and(|_| fds.first().is_some_and(|fd| !fd.revents().is_empty()))
        };
        if rung {
            let _ = ear.read(&mut [0; 64]);
        }
    }
}

/// A packet that was handed out by the link and not yet taken by the port.
struct Outgoing {
    bytes: [u8; WIRE_MAX],
    from: usize,
    to: usize,
}
