//! The thread that moves bytes between a port and its link, so that the line is served also while the
//! database is busy. It opens the port again when it vanishes.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use packmule_core::link::{BoardLink, Cause, Config, Event, Heard, State, WIRE_MAX};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Options;
use super::port::Port;
use crate::carry::channel::random;
use crate::carry::stop::Wake;

/// How often a port that is not there is looked for: at first, and once it is gone for [`LATER`].
const REOPEN: Duration = Duration::from_millis(40);
const REOPEN_LATER: Duration = Duration::from_millis(500);
const LATER: Duration = Duration::from_secs(10);
/// A wait that somebody else ends.
const LONG: Duration = Duration::from_secs(1);

/// What happened on the line.
pub(super) enum LineEvent {
    /// The port is open.
    Opened,
    /// The port cannot be opened, and why; reported once.
    Closed(io::Error),
    /// The link reports.
    Link(Event),
}

impl LineEvent {
    fn is_restart(&self) -> bool {
        matches!(self, Self::Link(Event::PeerRestarted))
    }
}

/// What both threads hold.
pub(super) struct Line {
    inner: Mutex<Inner>,
    changed: Condvar,
    waker: UnixStream,
}

/// The link and what is reported of it.
pub(super) struct Inner {
    pub(super) link: Box<BoardLink>,
    /// What the line brought.
    heard: Heard,
    /// All that it brought since the port was opened.
    heard_ever: Heard,
    pub(super) events: VecDeque<LineEvent>,
    /// What came of the connection before the other end began a new one: a receive buffer at most.
    pub(super) unread: Vec<u8>,
    stop: bool,
    begun: Instant,
}

impl Inner {
    /// Returns how many bytes were corrected, and how many packets lost or damaged beyond correction.
    pub(super) fn ills(&self) -> (u64, u64) {
        let stats = self.link.stats();
        (stats.corrected.into(), u64::from(stats.lost) + u64::from(stats.packets_refused))
    }

    /// Collects the link's events. Returns whether there are any. Until they were looked at, `send` and `recv` are
    /// left alone.
    pub(super) fn poll_events(&mut self) -> bool {
        while let Some(event) = self.link.event() {
            // Of two restarts in a row the second ends what nobody has begun to read.
            if event == Event::PeerRestarted && !self.events.iter().any(LineEvent::is_restart) {
                self.unread = self.receive_all();
            }
            self.events.push_back(LineEvent::Link(event));
        }
        !self.events.is_empty()
    }

    /// Returns whether the other end began a new connection, and the driver has yet to hear of it: the link is that
    /// of another connection.
    pub(super) fn restarted(&mut self) -> bool {
        self.poll_events() && self.events.iter().any(LineEvent::is_restart)
    }

    /// Returns what is here to be received, all of it.
    fn receive_all(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; self.link.recv_ready()];
        let count = self.link.recv(&mut bytes);
        bytes.truncate(count);
        bytes
    }

    /// Returns what came over the driver's connection and was not received. `over`: it has heard that the other end has
    /// begun a new connection.
    pub(super) fn take_unread(&mut self, over: bool) -> Vec<u8> {
        if over || self.restarted() { std::mem::take(&mut self.unread) } else { self.receive_all() }
    }

    /// Returns for how long the connection has not got on.
    pub(super) fn stalled(&self) -> Duration {
        Duration::from_micros(self.link.stalled_us(self.now()))
    }

    /// Returns what is wrong with the line, most likely.
    pub(super) fn cause(&self) -> Cause {
        let packets = self.link.stats().packets_received > 0;
        match self.heard.cause(packets) {
            // Where the same few packets come again and again, what came before says more.
            Cause::Unknown => self.heard_ever.cause(packets),
            cause => cause,
        }
    }

    /// Returns the link's clock.
    fn now(&self) -> u64 {
        self.begun.elapsed().as_micros() as u64
    }
}

impl Wake for Line {
    fn wake(&self) {
        self.notify();
    }
}

impl Line {
    /// Makes a line whose link begins to call, and lets the other end know this; its thread is [`Line::pump`].
    pub(super) fn new(options: &Options, note: u8) -> io::Result<(Arc<Self>, UnixStream)> {
        let (waker, wake_pipe) = UnixStream::pair()?;
        waker.set_nonblocking(true)?;
        wake_pipe.set_nonblocking(true)?;
        let mut config = Config::new(options.baud, u32::from_le_bytes(random()?));
        config.baud_max = options.baud_max.max(options.baud);
        config.note = note;
        let inner = Inner {
            link: Box::new(BoardLink::new(config)),
            heard: Heard::new(),
            heard_ever: Heard::new(),
            events: VecDeque::new(),
            unread: Vec::new(),
            stop: false,
            begun: Instant::now(),
        };
        let line = Self { inner: Mutex::new(inner), changed: Condvar::new(), waker };
        Ok((Arc::new(line), wake_pipe))
    }

    /// Locks the link. A thread that panicked with it left it whole: its calls do not stop halfway.
    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for an event of the line, or for the time.
    pub(super) fn wait<'a>(&self, guard: MutexGuard<'a, Inner>, time: Duration) -> MutexGuard<'a, Inner> {
        self.changed.wait_timeout(guard, time).unwrap_or_else(PoisonError::into_inner).0
    }

    /// Lets the line's thread look at the link.
    pub(super) fn wake_pump(&self) {
        // A full pipe wakes it already.
        let _ = (&self.waker).write(&[1]);
    }

    /// Wakes who waits for events.
    pub(super) fn notify(&self) {
        self.changed.notify_all();
    }

    /// Ends the line's thread.
    pub(super) fn stop(&self) {
        self.lock().stop = true;
        self.wake_pump();
    }

    /// Runs the thread, until [`Line::stop`].
    pub(super) fn pump(&self, options: &Options, mut wake_pipe: UnixStream) {
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
                        inner.heard_ever = Heard::new();
                        inner.link.line_changed(now);
                        inner.events.push_back(LineEvent::Opened);
                        self.notify();
                        open
                    }
                    Err(e) => {
                        if complaint != Some(e.kind()) {
                            complaint = Some(e.kind());
                            self.lock().events.push_back(LineEvent::Closed(e));
                            self.notify();
                        }
                        let wait = if gone.elapsed() < LATER { REOPEN } else { REOPEN_LATER };
                        self.sleep(&mut wake_pipe, None, wait);
                        continue;
                    }
                },
            };
            match self.drive(open, &mut out, &mut wake_pipe) {
                Ok(open) => port = Some(open),
                Err(e) => {
                    complaint = Some(e.kind());
                    gone = Instant::now();
                    self.lock().events.push_back(LineEvent::Closed(e));
                    self.notify();
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
    fn drive(&self, mut port: Port, out: &mut Outgoing, wake_pipe: &mut UnixStream) -> io::Result<Port> {
        let mut bytes = [0; 4096];
        let came = port.read(&mut bytes)?;
        if let Some(count) = came {
            let mut inner = self.lock();
            let now = inner.now();
            let bytes = bytes.get(..count).unwrap_or_default();
            inner.link.receive_bytes(now, bytes);
            // What came before the connection stopped getting on says nothing of the line as it is.
            if inner.link.state() == State::Open && inner.link.stalled_us(now) == 0 {
                inner.heard = Heard::new();
            }
            inner.heard.hear(bytes);
            inner.heard_ever.hear(bytes);
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
        // the end it waits until the link has drained.
        if came.is_some() || closed {
            self.notify();
        }
        let wait = deadline.map_or(LONG, |at| Duration::from_micros(at.saturating_sub(now)).min(LONG));
        self.sleep(wake_pipe, Some((&port, out.from < out.to)), wait);
        Ok(port)
    }

    /// Waits for bytes, for room, for the waker, or for the time.
    fn sleep(&self, wake_pipe: &mut UnixStream, port: Option<(&Port, bool)>, time: Duration) {
        let time = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() };
        let wanted = |writing: bool| if writing { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
        let woken = {
            let mut fds = vec![PollFd::new(&*wake_pipe, PollFlags::IN)];
            if let Some((port, writing)) = port {
                fds.push(PollFd::new(port, wanted(writing)));
            }
            // A signal only ends the wait.
            poll(&mut fds, Some(&time)).is_ok_and(|_| fds.first().is_some_and(|fd| !fd.revents().is_empty()))
        };
        if woken {
            let _ = wake_pipe.read(&mut [0; 64]);
        }
    }
}

/// A packet that was handed out by the link and not yet accepted by the port.
struct Outgoing {
    bytes: [u8; WIRE_MAX],
    from: usize,
    to: usize,
}
