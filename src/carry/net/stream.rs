//! Streams of bytes that never make their caller wait, and how to wait for several things at once.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, FdFlags, fcntl_setfd, ioctl_fionbio};
use rustix::net::{AddressFamily, Shutdown, SocketType, shutdown, sockopt};

use crate::carry::stop::{Stop, Wake};

/// How long a connection is quiet before the system asks whether the other end is still there, how often it asks again,
/// and after how many questions it is gone.
const KEEP_ALIVE: (Duration, Duration, u32) = (Duration::from_secs(30), Duration::from_secs(10), 3);

/// How often at least whoever waits looks whether it is to end.
pub(super) const LOOK: Duration = Duration::from_secs(1);

/// A stream of bytes. Reading and writing return [`io::ErrorKind::WouldBlock`] where a wait would be.
pub(super) trait Stream: Read + Write + Send {
    /// Names the kind of link, as figures have it.
    fn kind(&self) -> &'static str;
    /// The files to wait for: to be read from, to be written to.
    fn files(&self) -> [BorrowedFd<'_>; 2];
    /// Tells the other end that nothing more comes. It still listens.
    fn hang_up(&mut self);
}

/// Connects, and waits for it as long as patience lasts and nobody stops it.
pub(super) fn connect(address: SocketAddr, patience: Option<Duration>, stop: &Stop) -> io::Result<TcpStream> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket(family, SocketType::STREAM, None)?;
    fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
    ioctl_fionbio(&socket, true)?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => {}
        Err(e) => return Err(e.into()),
    }
    wait_for((socket.as_fd(), true), patience.map(|time| Instant::now() + time), stop)?;
    sockopt::socket_error(&socket)??;
    ioctl_fionbio(&socket, false)?;
    Ok(TcpStream::from(socket))
}

/// Waits until a file can be read from or (`true`) written to.
pub(super) fn wait_for(file: (BorrowedFd<'_>, bool), until: Option<Instant>, stop: &Stop) -> io::Result<()> {
    loop {
        let left = until.map_or(LOOK, |until| until.saturating_duration_since(Instant::now()));
        if ready(&[file], left.min(LOOK)) {
            return Ok(());
        }
        if stop.stopped() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
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
            ioctl_fionbio(file, true)?;
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
            Some(to) if self.given => drop(ioctl_fionbio(to, false)),
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
            let _ = ioctl_fionbio(&self.from, false);
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
