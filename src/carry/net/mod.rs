//! A session over a network, or over the standard input and output of another program.
//!
//! One thread a session, blocking calls, no runtime. The stream is encrypted, and each end proves who it is for this
//! stream alone; a clock that says 1970 is no hindrance, as it would be to TLS.
//!
//! | file | what lives there |
//! |---|---|
//! | this one | [`sync`], [`serve_pipes`]: a session with one other end |
//! | `listen` | [`serve`]: many at once; strangers at the door |
//! | `find` | [`find()`], [`announce`]: who is on this network |
//! | `address`, `error` | where the other end is; why a connection came to its end |
//! | `names` | [`addresses`]: which addresses a name has |
//! | `end` | one end of a connection: from its first byte to its last |
//! | `records` | the channel over a stream |
//! | `stream` | streams that never make their caller wait |
//! | `http` | heads of HTTP: the opening of a WebSocket, requests and answers |
//! | `websocket` | its framing |
//! | `turns`, `poll` | a session over HTTP, at who listens and at who begins |
//! | `requests` | bundles and figures over HTTP |
//!
//! # Example
//! A base and a board that meet over TCP:
//! ```
//! use packmule::Engine;
//! use packmule::carry::Stop;
//! use packmule::carry::net::{self, Listening, Options, Serving};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # use packmule::{FleetKey, InitOptions, TrackOptions};
//! # let dir = tempfile::tempdir()?;
//! # let fleet = FleetKey::create(&dir.path().join("fleet.key"))?;
//! # let [base, north] = ["base", "north"].map(|name| dir.path().join(format!("{name}.db")));
//! # Engine::init(&base, &InitOptions { name: "base", base: true, fleet: Some(&fleet) })?;
//! # let mut engine = Engine::init(&north, &InitOptions { name: "north", base: false, fleet: Some(&fleet) })?;
//! # engine.connection()?.execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 'a')")?;
//! # engine.track("t", &TrackOptions::default())?;
//! let options = Options { plain: false, patience: None };
//! let (port, stop) = (Listening::on("127.0.0.1:0".parse()?)?, Stop::default());
//! let address = format!("tcp://{}", port.address()?).parse()?;
//! let open = || Engine::open(&base);
//! let serving = Serving { open: &open, options: &options, report: &|_, _| (), web: None };
//! let done = std::thread::scope(|scope| {
//!     let (port, stop) = (&port, &stop);
//!     scope.spawn(move || net::serve(port, serving, stop));
//!     // On the board:
//!     let mut engine = Engine::open(&north)?;
//!     let done = net::sync(&mut engine, &address, &options, stop, &mut |_| ());
//!     stop.stop();
//!     done
//! })?;
//! assert!(done.sent.0 > 0);
//! # let value: String =
//! #     Engine::open(&base)?.connection()?.query_row("SELECT v FROM t", [], |row| row.get(0))?;
//! # assert_eq!(value, "a");
//! # Ok(())
//! # }
//! ```
//!
//! # Memory
//! A session takes what [`session`](mod@super::session) says, at most 80 KiB for the records on their way, and an engine of
//! its own. A connection that has not said who it is takes at most 12 KiB.

mod address;
#[cfg(test)]
#[allow(clippy::unwrap_used)] // Tests.
mod between;
mod end;
mod error;
mod find;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)] // Tests.
mod fuzz;
mod http;
mod listen;
mod names;
mod poll;
mod records;
mod requests;
mod stream;
mod turns;
mod websocket;

use std::io;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use packmule_core::model::DeviceId;
use packmule_core::wire::Refusal;

use super::channel;
use super::session::{self, Progress};
use super::stop::Stop;
use crate::engine::Engine;
pub use address::{Address, Host, NoAddress, PORT};
use end::{End, Patience, begins_again};
pub use error::Error;
pub use find::{Found, announce, find};
pub use http::HTTP_CODES;
pub use listen::{Listening, SESSIONS_MAX, Serving, serve};
pub use names::addresses;
use records::Records;
pub use requests::{BUNDLE_MAX, REQUESTS_MAX, Reply, Web};
use stream::{Bell, Files, Stream};

/// How a session runs over a stream.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// It is not encrypted: what is sent can be read and altered on the way, but for what devices have signed. Both ends
    /// must have it.
    pub plain: bool,
    /// The session ends when the other end was not heard for so long, or took nothing; `None`: never.
    pub patience: Option<Duration>,
}

/// What happened, for whoever watches.
#[derive(Debug)]
pub enum Status<'a> {
    /// The other end has proved who it is.
    Met {
        /// Its id.
        id: DeviceId,
        /// Its name.
        name: &'a str,
    },
    /// How far it is; comes often.
    Moving(&'a Progress),
    /// Each end has all that the other has.
    InStep(&'a Progress),
    /// The session ended in good order.
    Ended,
    /// The session failed.
    Failed(&'a Error),
}

/// How long a device that answers may take to prove who it is.
const PROOF_TIME: Duration = Duration::from_secs(10);
/// How long one that is served may say or take nothing, where nothing else is said.
const SERVED_SILENT: Duration = Duration::from_secs(300);
/// How long it is waited for answers where nobody says who is wanted.
const FIND_TIME: Duration = Duration::from_secs(2);
/// How long a command whose pipes are closed may take to end.
const COMMAND_TIME: Duration = Duration::from_secs(3);

/// Exchanges with whoever is at the address until each has all that the other has.
///
/// # Errors
/// [`Error`]. What came until then is kept.
pub fn sync(
    engine: &mut Engine,
    address: &Address,
    options: &Options,
    stop: &Stop,
    report: &mut dyn FnMut(Status<'_>),
) -> Result<Progress, Error> {
    connected(engine, address, options, false, (stop, report))
}

/// Exchanges with whoever is at the address, and stays: what is written here or there is with the other within a second
/// or so.
///
/// # Errors
/// [`Error`], in any case but that the other end has gone in good order. What came until then is kept.
pub fn stay(
    engine: &mut Engine,
    address: &Address,
    options: &Options,
    stop: &Stop,
    report: &mut dyn FnMut(Status<'_>),
) -> Result<Progress, Error> {
    connected(engine, address, options, true, (stop, report))
}

fn connected(
    engine: &mut Engine,
    address: &Address,
    options: &Options,
    stays: bool,
    (stop, report): (&Stop, &mut dyn FnMut(Status<'_>)),
) -> Result<Progress, Error> {
    let ways = match address {
        Address::Find => found(engine, stop)?,
        other => vec![other.clone()],
    };
    let mut result = Err(Error::NotFound(0));
    for way in &ways {
        let mut met = false;
        let mut watch = |status: Status<'_>| {
            met |= matches!(status, Status::Met { .. });
            report(status);
        };
        result = with_one(engine, way, options, stays, (stop, &mut watch));
        // Of those that were found, one that proves nothing keeps nobody from the next one.
        if met || stop.stopped() || result.is_ok() {
            break;
        }
    }
    result
}

/// Finds where those serve who say that they are of this device's fleet: bases first.
fn found(engine: &Engine, stop: &Stop) -> Result<Vec<Address>, Error> {
    let all = find(FIND_TIME, PORT, stop)?;
    let mut ways = Vec::new();
    for found in &all {
        if found.is_of_ours(engine)? {
            ways.extend(found.served_at());
        }
    }
    if ways.is_empty() { Err(Error::NotFound(all.len())) } else { Ok(ways) }
}

fn with_one(
    engine: &mut Engine,
    address: &Address,
    options: &Options,
    stays: bool,
    (stop, report): (&Stop, &mut dyn FnMut(Status<'_>)),
) -> Result<Progress, Error> {
    // For a board's word alone nobody gives way.
    let mut shown = !engine.identity().base;
    loop {
        let (stream, command) = open(address, options, stop)?;
        let records = Records::call(stream, options.plain)?;
        let bell = Bell::new(stop).map_err(Error::Unreachable)?;
        let mut met = false;
        let mut watch = |status: Status<'_>| {
            met |= matches!(status, Status::Met { .. });
            report(status);
        };
        let mut end = End::new(engine, records, bell, (stop, &mut watch));
        end.goes_on = stays;
        end.patience = Patience { proof: options.patience, silence: options.patience };
        let result = end.run(&[]);
        let status = command.and_then(ended).filter(|status| !met && !status.success());
        match (result, status) {
            (Err(Error::Ended | Error::Broken(_) | Error::Foreign), Some(status)) => {
                return Err(Error::Command(status));
            }
            (Err(e), _) if is_busy(&e) => return Err(Error::Busy),
            (Err(e), _) if begins_again(&e, &mut shown) => report(Status::Failed(&e)),
            (result, _) => return result,
        }
    }
}

/// Returns whether the other end has said that it has as many sessions as it takes.
fn is_busy(error: &Error) -> bool {
    matches!(error, Error::Session(session::Error::Refused { why: Refusal::Busy, .. }))
}

/// Serves the one peer that is at the other end of two pipes or sockets, such as standard input and output, until it
/// goes.
///
/// # Errors
/// [`Error`]. What came until then is kept.
pub fn serve_pipes(
    engine: &mut Engine,
    (from, to): (OwnedFd, OwnedFd),
    options: &Options,
    stop: &Stop,
    report: &mut dyn FnMut(Status<'_>),
) -> Result<Progress, Error> {
    let stream = Files::pipes(from, to, true).map_err(Error::Broken)?;
    let records = Records::answer(Box::new(stream), options.plain, Vec::new());
    let bell = Bell::new(stop).map_err(Error::Broken)?;
    let mut end = End::new(engine, records, bell, (stop, report));
    (end.goes_on, end.listens) = (true, true);
    end.patience = served(options);
    end.run(&[])
}

/// Returns how long a peer that is served may take.
fn served(options: &Options) -> Patience {
    Patience { proof: Some(PROOF_TIME), silence: options.patience.or(Some(SERVED_SILENT)) }
}

/// Opens a stream to an address, and starts its command if it has one.
fn open(
    address: &Address,
    options: &Options,
    stop: &Stop,
) -> Result<(Box<dyn Stream>, Option<Child>), Error> {
    match address {
        Address::Tcp(host) => {
            let stream = connect(host, options.patience, stop)?;
            Ok((Box::new(Files::tcp(stream).map_err(Error::Unreachable)?), None))
        }
        Address::WebSocket(host, path) => {
            let stream = connect(host, options.patience, stop)?;
            Ok((http::open(stream, (host, path), options.patience, stop)?, None))
        }
        Address::Http(host, path) => Ok((poll::open((host, path), options.patience, stop)?, None)),
        Address::Exec(command) => {
            let mut shell = Command::new("/bin/sh");
            shell.args(["-c", command]).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = shell.spawn().map_err(Error::Unreachable)?;
            let (Some(from), Some(to)) = (child.stdout.take(), child.stdin.take()) else {
                return Err(Error::Unreachable(io::ErrorKind::BrokenPipe.into()));
            };
            let pipes = Files::pipes(from.into(), to.into(), false).map_err(Error::Unreachable)?;
            Ok((Box::new(pipes), Some(child)))
        }
        Address::Find => Err(Error::NotFound(0)),
    }
}

/// Connects to the first of a host's addresses that answers.
fn connect(host: &Host, patience: Option<Duration>, stop: &Stop) -> Result<TcpStream, Error> {
    let mut why = Error::Unreachable(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    let unreachable = |e| if stop.stopped() { Error::Stopped } else { Error::Unreachable(e) };
    for address in names::addresses(host, patience, stop).map_err(unreachable)? {
        match stream::connect(address, patience, stop) {
            Ok(stream) => return Ok(stream),
            Err(_) if stop.stopped() => return Err(Error::Stopped),
            Err(e) => why = unreachable(e),
        }
    }
    Err(why)
}

/// Waits for a command whose pipes are closed, and ends it if it does not end.
fn ended(mut command: Child) -> Option<std::process::ExitStatus> {
    let until = Instant::now() + COMMAND_TIME;
    while Instant::now() < until {
        match command.try_wait() {
            Ok(None) => std::thread::sleep(Duration::from_millis(10)),
            other => return other.ok().flatten(),
        }
    }
    let _ = command.kill();
    command.wait().ok()
}

/// Returns random bytes.
fn random<const N: usize>() -> Result<[u8; N], Error> {
    channel::random().map_err(Error::Broken)
}
