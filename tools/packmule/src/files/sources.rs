//! Files and directories to take in: what they are, by what is in them.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use packmule::ENCRYPTED_MAGIC;
use packmule::core::wire::{MAGIC, PACKED_MAGIC};

use super::beside;
use crate::output::Failure;
use crate::text::quoted;

/// What a file is, by its first bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A bundle, whole or not, encrypted or not.
    Bundle,
    /// An SQLite database.
    Database,
    /// Nothing is in it.
    Empty,
    /// Anything else.
    Other,
}

const SQLITE: &[u8; 16] = b"SQLite format 3\0";

/// Finds what a file is. Nothing else reads a file that may be the database which this program has open.
pub fn kind(path: &Path) -> io::Result<Kind> {
    let mut first = [0; 16];
    packmule::read_beginning(path, &mut first)?;
    Ok(match first {
        _ if first == [0; 16] && std::fs::metadata(path)?.len() == 0 => Kind::Empty,
        _ if [MAGIC, PACKED_MAGIC, ENCRYPTED_MAGIC].iter().any(|magic| first.starts_with(magic)) => {
            Kind::Bundle
        }
        _ if &first == SQLITE => Kind::Database,
        _ => Kind::Other,
    })
}

/// Opens what is given as a bundle or a snapshot. A database, which this program may have open, is not opened so: it says which
/// command makes what is wanted of it.
pub fn open_bundle(path: &Path, (command, end): (&str, &str)) -> Result<File, Failure> {
    let unreadable = |e| Failure::io(path, "read it", &e);
    match kind(path).map_err(unreadable)? {
        Kind::Database => {
            let makes =
                format!("`packmule {command} {} {}` makes one", quoted(path), quoted(&beside(path, end)));
            Err(Failure::of(
                path,
                format!("is a database, and a file that is made of one is wanted: {makes}"),
            ))
        }
        _ => File::open(path).map_err(unreadable),
    }
}

/// What a directory has.
#[derive(Default)]
pub struct Found {
    /// What may be bundles, in the order of their names.
    pub bundles: Vec<PathBuf>,
    /// Databases, in the order of their names.
    pub databases: Vec<PathBuf>,
    /// What could not be looked at, and why.
    pub unreadable: Vec<(PathBuf, String)>,
    /// Files that are none of these.
    pub others: Vec<PathBuf>,
}

/// How deep a directory is searched.
const DEPTH: usize = 8;

/// Searches a directory, and those in it.
pub fn search(directory: &Path) -> io::Result<Found> {
    let mut found = Found::default();
    let entries = std::fs::read_dir(directory)?;
    look(entries, DEPTH, &mut found);
    for list in [&mut found.bundles, &mut found.databases, &mut found.others] {
        list.sort();
    }
    Ok(found)
}

fn look(entries: std::fs::ReadDir, depth: usize, found: &mut Found) {
    for entry in entries.flatten() {
        let path = entry.path();
        let unreadable =
            |e: io::Error| (path.clone(), format!("cannot be read: {}", crate::text::file_text(&e)));
        // A link to a directory is not followed: it may lead in a circle.
        let directory = entry.file_type().is_ok_and(|t| t.is_dir());
        if directory {
            let before = found.bundles.len() + found.databases.len();
            match std::fs::read_dir(&path) {
                Ok(entries) if depth > 0 => look(entries, depth - 1, found),
                Ok(_) => found.unreadable.push((path.clone(), "is too deep in the directory".into())),
                Err(e) => found.unreadable.push(unreadable(e)),
            }
            let named = path.extension().is_some_and(|end| end.eq_ignore_ascii_case("pmb"));
            if named && before == found.bundles.len() + found.databases.len() {
                found.unreadable.push((path, "is a directory, and is named as a bundle".into()));
            }
            continue;
        }
        let name = entry.file_name().to_string_lossy().to_lowercase();
        if !path.is_file() || name.ends_with(".part") && name.starts_with('.') {
            continue; // A bundle that is being written, or was when the power went.
        }
        match kind(&path) {
            Ok(Kind::Bundle) => found.bundles.push(path),
            Ok(Kind::Database) => found.databases.push(path),
            Ok(_) if name.ends_with(".pmb") => found.bundles.push(path),
            Ok(_) if companion(&path, &name) => {}
            Ok(_) => found.others.push(path),
            Err(e) => found.unreadable.push(unreadable(e)),
        }
    }
}

/// Returns whether a file belongs to a database beside it.
fn companion(path: &Path, name: &str) -> bool {
    ["-wal", "-shm", "-journal", ".pmkey", ".pmkey.new", ".pmkey.old"].iter().any(|end| {
        name.ends_with(end) && path.to_str().is_some_and(|p| Path::new(&p[..p.len() - end.len()]).is_file())
    })
}
