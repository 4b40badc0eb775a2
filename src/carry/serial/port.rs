//! A serial port: opened for us alone, raw, as quick as its driver can; left as it was found.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcsetattr};
use serialport::{ClearBuffer, DataBits, FlowControl, Parity, SerialPort, StopBits, TTYPort};

use super::Flow;

/// How long what is still in the port's queue may take when it is closed or set to another rate.
const DRAIN: Duration = Duration::from_millis(300);

/// A port as it was found, before anything is changed.
struct Found {
    io: File,
    before: Termios,
}

impl Found {
    fn at(path: &Path) -> io::Result<Self> {
        let flags = OFlags::NOCTTY | OFlags::NONBLOCK;
        let io = OpenOptions::new().read(true).write(true).custom_flags(flags.bits() as i32).open(path)?;
        if !isatty(&io) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a serial port"));
        }
        let before = tcgetattr(&io)?;
        Ok(Self { io, before })
    }

    /// Takes it for us alone, and sets it.
    fn take(self, path: &Path, baud: u32, flow: Flow) -> io::Result<Port> {
        let Self { io, before } = self;
        let flow = match flow {
            Flow::None => FlowControl::None,
            Flow::Hardware => FlowControl::Hardware,
        };
        let builder = serialport::new(path.to_string_lossy(), baud)
            .data_bits(DataBits::Eight)
            .parity(Parity::None)
            .stop_bits(StopBits::One)
            .flow_control(flow)
            .exclusive(true);
        let tty = match TTYPort::open(&builder) {
            Ok(tty) => tty,
            Err(e) => {
                let e = reason(&e);
                // What another program has open is set as that program needs it, also if it was not yet so when
                // it was found.
                if e.kind() != io::ErrorKind::ResourceBusy {
                    let _ = tcsetattr(&io, OptionalActions::Now, &before);
                }
                return Err(e);
            }
        };
        // What came before, at whatever rate, is noise.
        let _ = tty.clear(ClearBuffer::Input);
        let made_quick = super::quick::set_quick(&io, true);
        Ok(Port { io, tty, before, made_quick, baud })
    }
}

/// An open port.
pub(super) struct Port {
    /// For reading and writing, which never wait.
    io: File,
    /// Holds the port for us alone, and sets it.
    tty: TTYPort,
    before: Termios,
    /// The driver's low latency was switched on, and was off before.
    made_quick: bool,
    baud: u32,
}

impl Port {
    /// Opens a port at a rate, 8N1.
    pub(super) fn open(path: &Path, baud: u32, flow: Flow) -> io::Result<Self> {
        Found::at(path)?.take(path, baud, flow)
    }

    /// Sets another rate, once what was written has left; one that the driver refuses changes nothing. What came and
    /// was not read is noise then. Returns the rate that the port has.
    pub(super) fn set_baud(&mut self, baud: u32) -> u32 {
        self.drain();
        if self.tty.set_baud_rate(baud).is_ok() {
            self.baud = baud;
        }
        let _ = self.tty.clear(ClearBuffer::Input);
        self.baud
    }

    /// Waits until what was written has left the port, or for so long as that may take.
    fn drain(&self) {
        let until = Instant::now() + DRAIN;
        while self.tty.bytes_to_write().is_ok_and(|n| n > 0) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Reads what is there; `None` if nothing is.
    pub(super) fn read(&mut self, buf: &mut [u8]) -> io::Result<Option<usize>> {
        match self.io.read(buf) {
            Ok(0) => Err(io::Error::new(io::ErrorKind::NotConnected, "it was hung up")),
            Ok(n) => Ok(Some(n)),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Writes what fits now.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.io.write(bytes) {
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(0),
            written => written,
        }
    }
}

impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.io.as_fd()
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        // Another rate or a cleared queue would spoil the last bytes.
        self.drain();
        if self.made_quick {
            super::quick::set_quick(&self.io, false);
        }
        let _ = tcsetattr(&self.io, OptionalActions::Now, &self.before);
    }
}

/// Returns the system's reason, as the crate has it.
fn reason(e: &serialport::Error) -> io::Error {
    match e.kind() {
        serialport::ErrorKind::Io(kind) => io::Error::new(kind, e.description.clone()),
        serialport::ErrorKind::NoDevice => {
            io::Error::new(io::ErrorKind::ResourceBusy, "another program has it open")
        }
        _ => io::Error::new(io::ErrorKind::InvalidInput, e.description.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    const RATE: u32 = 921_600;

    /// Returns a terminal, its name, and what keeps it there.
    fn terminal() -> (std::os::fd::OwnedFd, std::path::PathBuf) {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        (master, name.into())
    }

    /// Of two programs that open a port at once, both find it as it was; one gets it.
    #[test]
    fn who_comes_too_late_leaves_the_settings_to_who_has_it() {
        let (_master, path) = terminal();
        let late = Found::at(&path).unwrap();
        let first = Port::open(&path, RATE, Flow::None).unwrap();
        let set = format!("{:?}", tcgetattr(&first).unwrap());
        let refused = late.take(&path, 115_200, Flow::None).map(drop).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ResourceBusy);
        assert_eq!(format!("{:?}", tcgetattr(&first).unwrap()), set);
        assert_eq!(tcgetattr(&first).unwrap().output_speed(), RATE);
    }
}
