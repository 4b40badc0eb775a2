//! Streams of bytes that never make their caller wait, and how to wait for several things at once.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{Shutdown, shutdown, sockopt};

use crate::carry::stop::{Stop, Wake};

/// How long a connection is quiet before the system asks whether the other end is still there, how often it asks again,
/// and after how many questions it is gone.
const KEEP_ALIVE: (Duration, Duration, u32) = (Duration::from_secs(30), Duration::from_secs(10), 3);

/// A stream of bytes. Reading and writing return [`io::ErrorKind::WouldBlock`] where a wait would be.
pub(super) trait Stream: Read + Write + Send {
    /// Names the kind of link, as figures have it.
    fn kind(&self) -> &'static str;
    /// The files to wait for: to be read from, to be written to.
    fn files(&self) -> [BorrowedFd<'_>; 2];
    /// Tells the other end that nothing more comes. It still listens.
    fn hang_up(&mut self);
}

/// A socket, or a pair of pipes.
pub(super) struct Files {
    from: File,
    to: Option<File>,
    is_socket: bool,
    is_local: bool,
    /// Pipes that this program was given are left as they were.
    given: bool,
}

impl Files {
    /// Takes a connection.
    pub(super) fn tcp(stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        // What is said is short, and waited for.
        let _ = stream.set_nodelay(true);
        let _ = sockopt::set_socket_keepalive(&stream, true);
        #[cfg(any(target_os = "linux", target_os = "android"))]
        {
            let (idle, again, times) = KEEP_ALIVE;
            let _ = sockopt::set_tcp_keepidle(&stream, idle);
            let _ = sockopt::set_tcp_keepintvl(&stream, again);
            let _ = sockopt::set_tcp_keepcnt(&stream, times);
        }
        let from = File::from(OwnedFd::from(stream));
        Ok(Self { to: Some(from.try_clone()?), from, is_socket: true, is_local: false, given: false })
    }

    /// Takes an end of a local socket, whose other end is in this program too: of a session over HTTP.
    pub(super) fn local(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let from = File::from(OwnedFd::from(stream));
        Ok(Self { to: Some(from.try_clone()?), from, is_socket: true, is_local: true, given: false })
    }

    /// Takes two pipes. `given`: they are the program's own, which others hold too.
    pub(super) fn pipes(from: OwnedFd, to: OwnedFd, given: bool) -> io::Result<Self> {
        for file in [&from, &to] {
            rustix::io::ioctl_fionbio(file, true)?;
        }
        Ok(Self { from: from.into(), to: Some(to.into()), is_socket: false, is_local: false, given })
    }
}

impl Read for Files {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        match self.from.read(to) {
            // What this end had said was not read any more: it has ended all the same.
            Err(e) if self.is_local && e.kind() == io::ErrorKind::ConnectionReset => Ok(0),
            read => read,
        }
    }
}

impl Write for Files {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.to.as_mut().map_or(Err(io::ErrorKind::BrokenPipe.into()), |to| to.write(from))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for Files {
    fn kind(&self) -> &'static str {
        match (self.is_socket, self.is_local) {
            (_, true) => "http",
            (true, false) => "tcp",
            (false, false) => "pipe",
        }
    }

    fn files(&self) -> [BorrowedFd<'_>; 2] {
        [self.from.as_fd(), self.to.as_ref().unwrap_or(&self.from).as_fd()]
    }

    fn hang_up(&mut self) {
        // A connection that is gone has ended.
        match &self.to {
            Some(to) if self.is_socket => drop(shutdown(to, Shutdown::Write)),
            Some(to) if self.given => drop(rustix::io::ioctl_fionbio(to, false)),
            _ => {}
        }
        self.to = None;
    }
}

/// How long a connection that was told the last word may stay, until it has gone by itself, and how much of what it still
/// says is read.
pub(super) const LEAVE_TIME: Duration = Duration::from_secs(2);
pub(super) const LEAVE_MAX: usize = 1 << 18;

/// Reads what still comes, or the system would throw the last word away with it. Returns whether more may come.
pub(super) fn drain(stream: &mut dyn Stream, left: &mut usize) -> bool {
    let mut some = [0; 4_096];
    loop {
        match stream.read(&mut some) {
            Ok(count @ 1..) if count < *left => *left -= count,
            Err(e) => return e.kind() == io::ErrorKind::WouldBlock,
            Ok(_) => return false,
        }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        self.hang_up();
        if self.given {
            let _ = rustix::io::ioctl_fionbio(&self.from, false);
        }
    }
}

/// Ends a wait from another thread.
pub(super) struct Bell {
    rings: UnixStream,
    hears: UnixStream,
}

impl Bell {
    /// Makes one that [`Stop::stop`] rings too.
    pub(super) fn new(stop: &Stop) -> io::Result<Arc<Self>> {
        let (rings, hears) = UnixStream::pair()?;
        rings.set_nonblocking(true)?;
        hears.set_nonblocking(true)?;
        let bell = Arc::new(Self { rings, hears });
        let waits: Arc<dyn Wake> = bell.clone();
        stop.wakes(Arc::downgrade(&waits));
        Ok(bell)
    }

    /// Waits until one of these can be read from or (`true`) written to, the bell rings, or so long.
    pub(super) fn wait(&self, files: &[(BorrowedFd<'_>, bool)], time: Duration) {
        if ready(&[&[(self.hears.as_fd(), false)], files].concat(), time) {
            let _ = (&self.hears).read(&mut [0; 64]);
        }
    }
}

/// Waits until one of these can be read from or (`true`) written to, or so long. Returns whether the first can.
pub(super) fn ready(files: &[(BorrowedFd<'_>, bool)], time: Duration) -> bool {
    let time = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() };
    let mut polled: Vec<PollFd<'_>> = files
        .iter()
        .map(|(file, writes)| {
            PollFd::from_borrowed_fd(*file, if *writes { PollFlags::OUT } else { PollFlags::IN })
        })
        .collect();
    // A signal only ends the wait.
    poll(&mut polled, Some(&time))
        .is_ok_and(|_| polled.first().is_some_and(|file| !file.revents().is_empty()))
}

impl Wake for Bell {
    fn wake(&self) {
        // A full pipe wakes it already.
        let _ = (&self.rings).write(&[1]);
    }
}
