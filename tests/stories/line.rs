//! Two devices at the ends of a serial line, each with `packmule sync`; the cable can be pulled while they talk.

use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

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
