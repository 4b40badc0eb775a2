//! What a port answers over HTTP besides sessions: bundles brought and fetched, and the figures. Each request has a thread
//! as long as it lasts; there are few at once, and a bundle is in a file, never in memory.

#[cfg(test)]
#[allow(clippy::unwrap_used)] // Tests.
mod tests;

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use packmule_core::wire::{MAGIC, PACKED_MAGIC};

use super::http::{Refused, Request, What, answer, head, refusal};
use super::stream::{Bell, Files, LEAVE_MAX, LEAVE_TIME, Stream, drain};
use crate::carry::stop::Stop;
use crate::engine::ENCRYPTED_MAGIC;

/// So many requests for bundles and figures at once.
pub const REQUESTS_MAX: usize = 4;
/// So many of one address.
const OF_ONE_MAX: usize = 2;
/// A bundle that is brought or fetched has no more.
pub const BUNDLE_MAX: u64 = 256 << 20;
/// All that are brought at once have no more.
const BUNDLES_MAX: u64 = 2 * BUNDLE_MAX;
/// How long the other end may say or take nothing.
const SILENT: Duration = Duration::from_secs(20);
/// Slower than this, in bytes a second, it may be for a minute.
const SLOWEST: u64 = 512;
const SLOW_TIME: Duration = Duration::from_secs(60);
/// So much is moved at once.
const PIECE: usize = 16_384;

const BUSY: Refused = (503, "busy", "as many requests run as this end takes; try again");
const TOO_MANY: Refused =
    (429, "too-many", "this address has two requests here already; wait for one to end");
const LIMIT: &str = "a bundle over HTTP has at most 256 MiB; a session over this port has no limit: \
    `packmule sync DB http://HOST:PORT` on the device that has it; nor has a card: `packmule exchange DB DIRECTORY`";
const TOO_LARGE: Refused = (413, "too-large", LIMIT);
/// The same of one that is fetched.
const TOO_LONG: Refused = (507, "too-large", LIMIT);
const TOO_SLOW: Refused = (408, "too-slow", "the body did not come in time");
const NO_BUNDLE: Refused = (400, "not-a-bundle", "this is no bundle of Packmule");
const NO_ROOM: Refused =
    (507, "disk-full", "a bundle of this size does not fit beside the database: use sync");
const ELSEWHERE: Refused =
    (403, "metrics-local", "the figures are for programs on this machine: --metrics-from any");

/// What is answered.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status of HTTP.
    pub status: u16,
    /// The type of the body, such as `application/json`.
    pub kind: &'static str,
    /// The body.
    pub body: Vec<u8>,
}

/// Answers what is asked over HTTP, at most [`REQUESTS_MAX`] at once, by threads of their own.
pub trait Web: Sync {
    /// Makes an empty file for a bundle on its way, which goes when it is closed.
    ///
    /// # Errors
    /// What the system refuses.
    fn spool(&self) -> io::Result<File>;
    /// Takes in a bundle that has come whole, from this address.
    fn take(&self, from: SocketAddr, bundle: File) -> Reply;
    /// Writes a bundle for the device with this fingerprint, encrypted to it.
    ///
    /// # Errors
    /// What is answered in its place.
    fn give(&self, from: SocketAddr, device: &str, to: &mut dyn Write) -> Result<(), Reply>;
    /// Returns the figures, as Prometheus reads them.
    fn figures(&self) -> Reply;
    /// Returns whether other machines may read the figures.
    fn figures_for_all(&self) -> bool;
}

/// The requests that run: from where, and how much is to come of each.
#[derive(Default)]
pub(super) struct Running(Mutex<Vec<(IpAddr, u64)>>);

/// A request's place among them.
pub(super) struct Place<'a> {
    running: &'a Running,
    of: (IpAddr, u64),
}

impl Running {
    fn lock(&self) -> MutexGuard<'_, Vec<(IpAddr, u64)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a request a place.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn place(&self, from: SocketAddr, request: &Request) -> Result<Place<'_>, Refused> {
        let len = if matches!(request.what, What::Brings) { request.len } else { 0 };
        if len > BUNDLE_MAX {
            return Err(TOO_LARGE);
        }
        let mut running = self.lock();
        if running.iter().filter(|(other, _)| *other == from.ip()).count() >= OF_ONE_MAX {
            return Err(TOO_MANY);
        }
        let all: u64 = running.iter().map(|(_, len)| len).sum();
        if running.len() >= REQUESTS_MAX || all + len > BUNDLES_MAX {
            return Err(BUSY);
        }
        let of = (from.ip(), len);
        running.push(of);
        Ok(Place { running: self, of })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut running = self.running.lock();
        if let Some(at) = running.iter().position(|of| *of == self.of) {
            running.remove(at);
        }
    }
}

/// A request on its connection, with what came of its body.
pub(super) struct Asking {
    pub(super) files: Files,
    pub(super) from: SocketAddr,
    pub(super) request: Request,
    pub(super) rest: Vec<u8>,
}

/// Answers a request, and ends its connection: until then it has its place, or there would be threads without end.
pub(super) fn work(asking: Asking, _place: Place<'_>, web: &dyn Web, stop: &Stop) {
    let Ok(bell) = Bell::new(stop) else { return };
    let Asking { files, from, request, rest } = asking;
    let mut talk = Talk { files, from, bell, stop, begun: Instant::now(), moved: 0 };
    // Who has gone hears nothing.
    let _ = match request.what {
        What::Brings => match bring(&mut talk, &request, &rest, web) {
            Ok(reply) => talk.say(&reply),
            Err(Ill::Refused(why)) => talk.send_whole(&refusal(why)),
            Err(Ill::Gone) => return,
        },
        What::Wants(device) => give(&mut talk, &device, web),
        What::Metrics { local } => {
            let is_here = local && from.ip().to_canonical().is_loopback();
            if is_here || web.figures_for_all() {
                talk.say(&web.figures())
            } else {
                talk.send_whole(&refusal(ELSEWHERE))
            }
        }
        What::Turn(_) => return,
    };
    talk.leave();
}

/// Why a bundle is not taken.
enum Ill {
    Refused(Refused),
    /// Its connection has ended.
    Gone,
}

/// Keeps a bundle that comes, and takes it in.
fn bring(talk: &mut Talk<'_>, request: &Request, rest: &[u8], web: &dyn Web) -> Result<Reply, Ill> {
    if rest.len() as u64 > request.len {
        return Err(Ill::Refused(NO_BUNDLE));
    }
    if request.expects && rest.is_empty() {
        talk.send_whole(b"HTTP/1.1 100 Continue\r\n\r\n").map_err(|_| Ill::Gone)?;
    }
    let mut file = web.spool().map_err(|e| Ill::Refused(of_disk(&e)))?;
    let mut first = Vec::new();
    let mut left = request.len;
    let mut piece = vec![0; PIECE];
    let mut some = rest.len().min(PIECE);
    piece[..some].copy_from_slice(&rest[..some]);
    loop {
        let came = &piece[..some];
        if first.len() < MAGIC.len() {
            first.extend(came.iter().take(MAGIC.len() - first.len()));
            // Noise is not kept.
            if ![MAGIC, PACKED_MAGIC, ENCRYPTED_MAGIC].iter().any(|magic| magic.starts_with(&first)) {
                return Err(Ill::Refused(NO_BUNDLE));
            }
        }
        file.write_all(came).map_err(|e| Ill::Refused(of_disk(&e)))?;
        left -= some as u64;
        if left == 0 {
            break;
        }
        let room = left.min(PIECE as u64) as usize;
        some = match talk.read(&mut piece[..room]) {
            Ok(0) => return Err(Ill::Gone),
            Ok(count) => count,
            Err(e) if e.kind() == io::ErrorKind::TimedOut => return Err(Ill::Refused(TOO_SLOW)),
            Err(_) => return Err(Ill::Gone),
        };
    }
    file.rewind().map_err(|e| Ill::Refused(of_disk(&e)))?;
    Ok(web.take(talk.from, file))
}

fn of_disk(e: &io::Error) -> Refused {
    match e.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => NO_ROOM,
        _ => (500, "io", "the bundle could not be kept: see what the server prints"),
    }
}

/// Writes a bundle to a file, and sends it.
fn give(talk: &mut Talk<'_>, device: &str, web: &dyn Web) -> io::Result<()> {
    let mut file = match web.spool() {
        Ok(file) => Bounded { file, len: 0 },
        Err(e) => return talk.send_whole(&refusal(of_disk(&e))),
    };
    if let Err(reply) = web.give(talk.from, device, &mut file) {
        // What is too long is said as such, whatever was made of it.
        return if file.len > BUNDLE_MAX { talk.send_whole(&refusal(TOO_LONG)) } else { talk.say(&reply) };
    }
    let Bounded { mut file, len } = file;
    file.rewind()?;
    talk.send_whole(head(200, "application/octet-stream", len).as_bytes())?;
    let mut piece = vec![0; PIECE];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(()),
            count => talk.send_whole(&piece[..count])?,
        }
    }
}

/// A file that grows no longer than a bundle may be.
struct Bounded {
    file: File,
    len: u64,
}

impl Write for Bounded {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.len += from.len() as u64;
        if self.len > BUNDLE_MAX {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.write_all(from).map(|()| from.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A connection that its thread waits for, but not for ever.
struct Talk<'a> {
    files: Files,
    from: SocketAddr,
    bell: Arc<Bell>,
    stop: &'a Stop,
    begun: Instant,
    moved: u64,
}

impl Talk<'_> {
    /// Does something that would make it wait, once there is no need to.
    fn when_ready(
        &mut self,
        writes: bool,
        mut what: impl FnMut(&mut Files) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let since = Instant::now();
        loop {
            match what(&mut self.files) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Ok(count) => {
                    self.moved += count as u64;
                    return Ok(count);
                }
                Err(e) => return Err(e),
            }
            let slow = SLOW_TIME + Duration::from_secs(self.moved / SLOWEST);
            if self.stop.stopped() || since.elapsed() >= SILENT || self.begun.elapsed() >= slow {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let file = self.files.files()[usize::from(writes)];
            self.bell.wait(&[(file, writes)], SILENT.saturating_sub(since.elapsed()));
        }
    }

    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.when_ready(false, |files| files.read(to))
    }

    fn send_whole(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let count = self.when_ready(true, |files| files.write(bytes))?;
            bytes = &bytes[count..];
        }
        Ok(())
    }

    fn say(&mut self, reply: &Reply) -> io::Result<()> {
        self.send_whole(&answer(reply.status, reply.kind, &reply.body))
    }

    /// Ends the connection, once the other end has gone or some time has passed.
    fn leave(&mut self) {
        self.files.hang_up();
        let (since, mut left) = (Instant::now(), LEAVE_MAX);
        while drain(&mut self.files, &mut left) && !self.stop.stopped() && since.elapsed() < LEAVE_TIME {
            let rest = LEAVE_TIME.saturating_sub(since.elapsed());
            self.bell.wait(&[(self.files.files()[0], false)], rest);
        }
    }
}
