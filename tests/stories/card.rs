//! A card that goes round, and what all show then.

use std::path::Path;

use crate::support::Desk;

/// A device exchanges with the card; what it says.
pub fn exchange(desk: &Desk, name: &str) -> String {
    desk.run(&format!("exchange {name}.db card")).ok()
}

/// Everybody meets the card in turn, so many times over. No exchange ends with anything but 0.
pub fn rounds(desk: &Desk, names: &[&str], times: usize) {
    for name in names.iter().cycle().take(names.len() * times) {
        exchange(desk, name);
    }
}

/// All show the same.
#[track_caller]
pub fn are_equal(desk: &Desk, names: &[&str]) {
    let digests: Vec<String> = names.iter().map(|name| desk.run(&format!("digest {name}.db")).ok()).collect();
    assert!(digests.windows(2).all(|pair| pair[0] == pair[1]), "{names:?} {digests:#?}");
}

/// A device's status, as a program reads it.
pub fn status(desk: &Desk, name: &str) -> serde_json::Value {
    desk.run(&format!("status {name}.db --json")).json()
}

/// The fingerprint of a device.
pub fn fingerprint(desk: &Desk, name: &str) -> String {
    status(desk, name)["fingerprint"].as_str().unwrap().to_owned()
}

/// A device's database and key are copied into a folder, as they stand.
pub fn back_up(desk: &Desk, name: &str, folder: &str) {
    std::fs::create_dir_all(desk.path(folder)).unwrap();
    copy(name, &desk.path(""), &desk.path(folder));
}

/// A device's files are replaced by those that were backed up.
pub fn restore(desk: &Desk, name: &str, folder: &str) {
    lose(desk, name);
    copy(name, &desk.path(folder), &desk.path(""));
}

/// A device's files are lost.
pub fn lose(desk: &Desk, name: &str) {
    for end in ["", "-wal", "-shm", ".pmkey"] {
        let _ = std::fs::remove_file(desk.path(format!("{name}.db{end}")));
    }
}

fn copy(name: &str, from: &Path, to: &Path) {
    let copy = |end: &str| {
        let file = format!("{name}.db{end}");
        std::fs::copy(from.join(&file), to.join(&file))
    };
    for end in ["", ".pmkey"] {
        copy(end).unwrap();
    }
    // It is there only while somebody has the database open.
    let _ = copy("-wal");
}
