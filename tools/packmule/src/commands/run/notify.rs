//! What systemd is told, by the protocol of `sd_notify(3)`: datagrams to the socket that it names.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

/// How long the last thing may find no room.
const LAST: Duration = Duration::from_secs(1);

/// Where it is told, if anybody wants to know.
pub struct Notify {
    to: Option<(UnixDatagram, OsString)>,
    /// How often it wants to hear that this program is alive.
    pub watchdog: Option<Duration>,
    last: String,
}

impl Notify {
    /// Makes one for whoever has started this program.
    pub fn of_environment() -> Self {
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let socket = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty());
        let open = || {
            let socket = UnixDatagram::unbound().ok()?;
            // Who does not listen must not hold this program up.
            socket.set_nonblocking(true).ok()?;
            Some(socket)
        };
        let to = socket.and_then(|name| Some((open()?, name)));
        // It may be meant for another process.
        let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|micros| is_ours && *micros > 0);
        // Twice as often as it must be.
        Self { to, watchdog: watchdog.map(|micros| Duration::from_micros(micros / 2)), last: String::new() }
    }

    /// Tells that everything is under way.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// Tells that this program is alive.
    pub fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    /// Tells that it ends. This is the last that it is told: where what was told before is not read yet, that is waited for.
    pub fn stopping(&self) {
        if let Some((socket, _)) = &self.to {
            let _ = socket.set_nonblocking(false).and_then(|()| socket.set_write_timeout(Some(LAST)));
        }
        self.send("STOPPING=1");
    }

    /// Tells how it stands, in one line, if that is new.
    pub fn status(&mut self, text: &str) {
        let text = text.replace('\n', " ");
        // What has found no room is told the next time.
        if text != self.last && self.send(&format!("STATUS={text}")) {
            self.last = text;
        }
    }

    /// Returns whether it was told. Nobody listens any more: that is no reason to end.
    fn send(&self, text: &str) -> bool {
        let Some((socket, name)) = &self.to else { return false };
        let sent = match name.as_bytes().strip_prefix(b"@") {
            Some(name) => send_abstract(socket, text, name),
            None => socket.send_to(text.as_bytes(), name),
        };
        sent.is_ok()
    }
}

#[cfg(target_os = "linux")]
fn send_abstract(socket: &UnixDatagram, text: &str, name: &[u8]) -> std::io::Result<usize> {
    use std::os::linux::net::SocketAddrExt;
    let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
    socket.send_to_addr(text.as_bytes(), &address)
}

#[cfg(not(target_os = "linux"))]
fn send_abstract(_: &UnixDatagram, _: &str, _: &[u8]) -> std::io::Result<usize> {
    Err(std::io::ErrorKind::Unsupported.into())
}
