//! Two devices at the ends of a serial line, each with `packmule sync`; the cable can be pulled while they talk.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use crate::cable::Cable;
use crate::support::{Desk, Ran};

/// A cable with new ends.
pub fn cable(desk: &Desk) -> Cable {
    static N: AtomicU32 = AtomicU32::new(0);
    let n = N.fetch_add(1, Ordering::Relaxed);
    Cable::new(desk.path(format!("wire{n}-a")), desk.path(format!("wire{n}-b")), u32::MAX)
}

/// Begins to sync at an end of a cable.
pub fn sync(desk: &Desk, device: &str, end: &Path) -> Child {
    let db = format!("{device}.db");
    let words = ["sync", &db, "--json", "--baud", "4000000", "--serial", end.to_str().unwrap()];
    let mut command = desk.command(&words);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// How it ended.
pub fn ended(child: Child) -> Ran {
    Ran::of(child.wait_with_output().unwrap(), &["sync"])
}

/// Both ends of a serial line sync; how each ended.
pub fn line(desk: &Desk, one: &str, two: &str) -> [Ran; 2] {
    let cable = cable(desk);
    let running = [sync(desk, one, &cable.ends[0]), sync(desk, two, &cable.ends[1])];
    running.map(ended)
}

/// Both ends sync, and are in step; what each says.
pub fn synced(desk: &Desk, one: &str, two: &str) -> [serde_json::Value; 2] {
    line(desk, one, two).map(Ran::json)
}

/// The line is torn after so many bytes from the first end, and both programs are killed.
pub fn torn(desk: &Desk, one: &str, two: &str, bytes: usize) {
    let cable = cable(desk);
    cable.hold_after(bytes);
    let mut running = [sync(desk, one, &cable.ends[0]), sync(desk, two, &cable.ends[1])];
    cable.is_held();
    for child in &mut running {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

/// At the other end is a login: it is named, with what stops it.
#[test]
fn a_login_at_the_other_end_is_named() {
    let desk = Desk::fleet(&["north"]);
    let cable = cable(&desk);
    // It never waits: nobody may read any more.
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let mut login = File::options().write(true).custom_flags(nonblocking).open(&cable.ends[1]).unwrap();
    let mut raw = tcgetattr(&login).unwrap();
    raw.make_raw();
    raw.set_speed(115_200).unwrap();
    tcsetattr(&login, OptionalActions::Now, &raw).unwrap();
    let end = cable.ends[0].to_str().unwrap();
    let words = ["sync", "north.db", "--baud", "115200", "--patience", "2", "--serial", end];
    let mut sync = desk.command(&words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while sync.try_wait().unwrap().is_none() {
        let _ = login.write_all(b"raspberrypi login: \r\n");
    }
    let ran = ended(sync).at(&desk);
    ran.proposes("(for instance `sudo systemctl disable --now serial-getty@ttyS0`)").refused(end);
}
