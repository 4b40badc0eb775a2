//! A session that is given up waits for its thread, which may wait itself: for answers, for somebody to take what it says, or for
//! a connection. The clock is the tests' own, so that it is seen how long that takes.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::Mutex;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::mpsc::channel;
use std::thread::{ThreadId, current, yield_now};

use rustix::net::sockopt;

use super::super::http::{TURNS, turn_head};
use super::*;

/// What happens to the second connection.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Second {
    /// What comes over it is taken, and not answered.
    Silent,
    /// Nothing is taken.
    TakesNothing,
    /// A little is taken now and then.
    TakesLittle,
    /// It does not come about.
    Never,
}

/// A clock that stands still until the session is given up, and then moves by what is waited for.
#[derive(Clone)]
struct Clock {
    begun: Instant,
    opener: ThreadId,
    passed: Arc<Mutex<Duration>>,
    /// So far it moves without that.
    limit: Arc<Mutex<Duration>>,
    /// What the session is given up by.
    stop: Arc<OnceLock<Stop>>,
    /// The session's thread is kept where it waits.
    held: Arc<AtomicBool>,
    /// It waits for what does not come.
    waits: Arc<AtomicBool>,
    connected: Arc<AtomicU32>,
    second: Second,
    /// Where the second connection comes, and what has come.
    taken: Arc<Mutex<(Option<TcpListener>, Option<TcpStream>)>>,
}

/// Nobody waits for so long.
const EVER: Duration = Duration::from_secs(3_600);

impl Clock {
    fn new(second: Second) -> Self {
        Self {
            begun: Instant::now(),
            opener: current().id(),
            passed: Arc::default(),
            limit: Arc::default(),
            stop: Arc::default(),
            held: Arc::new(true.into()),
            waits: Arc::default(),
            connected: Arc::default(),
            second,
            taken: Arc::default(),
        }
    }

    fn passed(&self) -> Duration {
        *self.passed.lock().unwrap()
    }

    fn pass(&self, time: Duration) {
        let given_up = self.stop.get().is_some_and(Stop::stopped);
        let mut passed = self.passed.lock().unwrap();
        if given_up || *passed < *self.limit.lock().unwrap() {
            *passed += time;
            assert!(*passed < EVER, "it would wait for ever");
        }
        drop(passed);
        yield_now();
    }

    /// Takes some of what is said over the second connection.
    fn take_some(&self) {
        let mut taken = self.taken.lock().unwrap();
        if let Some(listening) = taken.0.take() {
            taken.1 = Some(listening.accept().unwrap().0);
        }
        taken.1.as_mut().map(|stream| stream.read(&mut [0; 2_048]).unwrap());
    }
}

impl Surroundings for Clock {
    fn now(&self) -> Instant {
        self.begun + self.passed()
    }

    fn wait(&self, files: &[(BorrowedFd<'_>, bool)], time: Duration) {
        while current().id() != self.opener && self.held.load(SeqCst) {
            yield_now();
        }
        if !files.iter().any(|file| ready(&[*file], Duration::ZERO)) {
            let is_due = match self.second {
                Second::Silent => files.len() == 1 && self.connected.load(SeqCst) == 2,
                Second::TakesNothing | Second::TakesLittle => files.iter().any(|(_, writes)| *writes),
                Second::Never => false,
            };
            self.waits.fetch_or(is_due, SeqCst);
            self.pass(time);
            if self.second == Second::TakesLittle && is_due {
                self.take_some();
            }
        }
    }

    fn connect(&self, host: &Host, patience: Duration, stop: &Stop) -> Result<TcpStream, Error> {
        let _ = self.stop.set(stop.clone());
        let is_second = self.connected.fetch_add(1, SeqCst) == 1;
        let since = self.passed();
        if is_second && self.second == Second::Never {
            self.waits.store(true, SeqCst);
            while !stop.stopped() && self.passed() - since < patience {
                self.pass(LOOK);
            }
            return Err(Error::Unreachable(io::ErrorKind::TimedOut.into()));
        }
        let stream = TcpStream::connect((host.name.as_str(), host.port)).unwrap();
        if is_second && matches!(self.second, Second::TakesNothing | Second::TakesLittle) {
            sockopt::set_socket_send_buffer_size(&stream, 4_096).unwrap();
        }
        Ok(stream)
    }
}

/// Reads the head of a turn.
fn heard(from: &mut TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        from.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
}

/// A session of which the first turn was answered, and the second one is not; the thread has more to say, over a second
/// connection, and waits. The other end's connections stay as long as they are kept.
fn session(second: Second, patience: Option<Duration>) -> (Box<dyn Stream>, Clock, (TcpStream, TcpListener)) {
    session_until(second, patience, &Stop::default())
}

/// One that can be ended from elsewhere.
fn session_until(
    second: Second,
    patience: Option<Duration>,
    stop: &Stop,
) -> (Box<dyn Stream>, Clock, (TcpStream, TcpListener)) {
    let listening = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    sockopt::set_socket_recv_buffer_size(&listening, 4_096).unwrap();
    let host = Host { name: "127.0.0.1".into(), port: listening.local_addr().unwrap().port() };
    let clock = Clock::new(second);
    let answers = listening.try_clone().unwrap();
    let other = spawn(move || {
        let mut first = answers.accept().unwrap().0;
        heard(&mut first);
        first.write_all(&turn_head(&[7; 16], 0, (false, true), 0)).unwrap();
        heard(&mut first);
        first
    });
    let mut stream = open_in(clock.clone(), (&host, TURNS), patience, stop).unwrap();
    let first = other.join().unwrap();
    clock.taken.lock().unwrap().0 = Some(listening.try_clone().unwrap());
    // All of it is there when the thread looks for it.
    stream.write_all(&vec![1; SAID_MAX]).unwrap();
    clock.held.store(false, SeqCst);
    while !clock.waits.load(SeqCst) {
        yield_now();
    }
    (stream, clock, (first, listening))
}

/// Gives a session up, and returns how long that took. Where it never ends, that is said after a minute.
fn give_up(stream: Box<dyn Stream>, clock: &Clock) -> Duration {
    let since = clock.passed();
    let (ended, ends) = channel();
    spawn(move || {
        drop(stream);
        let _ = ended.send(());
    });
    ends.recv_timeout(Duration::from_secs(60)).unwrap();
    clock.passed() - since
}

const ALL: [Second; 4] = [Second::Silent, Second::TakesNothing, Second::TakesLittle, Second::Never];

/// Whatever the thread waits for, and however patient it is, a session that is given up is gone soon.
#[test]
fn a_session_that_is_given_up_ends_whatever_its_thread_waits_for() {
    for second in ALL {
        for patience in [None, Some(Duration::from_secs(600))] {
            let (stream, clock, _other) = session(second, patience);
            let took = give_up(stream, &clock);
            assert!(took <= CLOSE_TIME + LOOK, "{second:?}, {patience:?}: {took:?}");
        }
    }
}

/// A session that is to end waits for its end itself; its thread does not wait as long once more after that.
#[test]
fn the_thread_of_a_session_that_is_to_end_is_gone_when_the_session_is() {
    for second in ALL {
        let stop = Stop::default();
        let (mut stream, clock, _other) = session_until(second, None, &stop);
        let since = clock.passed();
        stop.stop();
        while stream.read(&mut [0]).is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock) {
            yield_now();
        }
        let took = clock.passed() - since;
        assert!(took <= CLOSE_TIME + LOOK, "{second:?}: {took:?}");
    }
}

/// The control: one that is not given up waits much longer, and is gone as soon then.
#[test]
fn a_session_that_is_not_given_up_waits_on() {
    let long = 10 * CLOSE_TIME;
    for second in ALL.into_iter().filter(|second| *second != Second::TakesLittle) {
        let (mut stream, clock, _other) = session(second, Some(EVER));
        *clock.limit.lock().unwrap() = long;
        while clock.passed() < long {
            yield_now();
        }
        let heard = stream.read(&mut [0]).map_err(|e| e.kind());
        assert_eq!(heard, Err(io::ErrorKind::WouldBlock), "{second:?}");
        assert!(give_up(stream, &clock) <= CLOSE_TIME + LOOK, "{second:?}");
    }
}
