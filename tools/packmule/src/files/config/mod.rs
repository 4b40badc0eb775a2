//! The file of `packmule run`: TOML, read as a whole; each thing that is wrong is named with its line, and with what is
//! allowed there.

#[cfg(all(test, feature = "net"))]
mod fuzz;
mod read;
mod table;

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use packmule::Keep;
use packmule::carry::keep::Pace;
#[cfg(feature = "net")]
use packmule::carry::net::Address;
use packmule::carry::serial::Flow;

use crate::output::{Failure, code};
pub use read::UPKEEP_DELAY;

/// The longest such file.
const MOST: u64 = 1 << 20;

/// Where it is, where nobody says.
pub const PATH: &str = "/etc/packmule/packmule.toml";

/// What is to be kept up.
#[derive(Debug)]
pub struct Config {
    /// The links.
    pub links: Vec<Link>,
    /// What else is to be done.
    pub upkeep: Vec<Upkeep>,
    /// Whoever shows no sign of life for so long hangs.
    pub stuck: Duration,
}

/// A link.
#[derive(Debug)]
pub struct Link {
    /// Its name: as the file says, or where it leads.
    pub name: String,
    /// Where it leads, as the file says it.
    pub to: String,
    /// By which way.
    pub way: Way,
    /// When it is begun.
    pub pace: Pace,
    /// How long the other end may be silent.
    pub patience: Option<Duration>,
}

/// A way to others.
#[derive(Debug)]
pub enum Way {
    /// A network, or the pipes of another program.
    #[cfg(feature = "net")]
    Network {
        /// Where the other end is.
        address: Address,
        /// It is not encrypted.
        plain: bool,
    },
    /// A serial line.
    Line {
        /// The port.
        port: PathBuf,
        /// The rate at which it begins, and the highest one; those of the board where none is given.
        baud: Option<u32>,
        baud_max: Option<u32>,
        flow: Flow,
        /// It is not encrypted.
        plain: bool,
    },
    /// A directory that is a card when it has a folder `PACKMULE`.
    Card {
        /// The directory.
        directory: PathBuf,
        /// What is left there is encrypted.
        encrypt: bool,
    },
}

/// Something that is due once in a while.
#[derive(Debug)]
pub struct Upkeep {
    /// What.
    pub what: Chore,
    /// How often.
    pub every: Duration,
}

/// What can be due.
#[derive(Debug)]
pub enum Chore {
    /// The log is compacted.
    Compact {
        /// What was sealed within it stays.
        kept: Option<Duration>,
        /// The same, as the file says it.
        said: Option<String>,
    },
    /// The programs decide that tables name.
    Decide,
    /// Rows of a table are pruned.
    Prune {
        /// The table.
        table: String,
        /// Which rows stay.
        keep: Keep,
        /// The same, as the file says it.
        said: String,
    },
}

impl Config {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let mut text = String::new();
        let read = File::open(path).and_then(|file| file.take(MOST + 1).read_to_string(&mut text));
        if text.len() as u64 > MOST || read.as_ref().is_err_and(|e| e.kind() == ErrorKind::InvalidData) {
            return Err(Failure::of(path, "is no such file: it is text of at most 1 MiB").coded(code::CONFIG));
        }
        read.map_err(|e| {
            let failure = Failure::io(path, "read it", &e);
            match e.kind() {
                ErrorKind::NotFound => {
                    failure.and("; write one, as `packmule run --help` says, or name it with --config")
                }
                _ => failure,
            }
        })?;
        read::read(&text).map_err(|wrong| {
            let mut wrong = wrong
                .into_iter()
                .map(|(line, what)| (PathBuf::from(format!("{}:{line}", path.display())), what));
            let (first, what) = wrong.next().unwrap_or_default();
            let more: String =
                wrong.map(|(place, what)| format!("\npackmule: {}: {what}", place.display())).collect();
            Failure::of(&first, what + &more).coded(code::CONFIG)
        })
    }
}
