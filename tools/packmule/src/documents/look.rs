//! Documents about looking and checking, and of the demo.

use std::collections::BTreeMap;

use packmule::{BundleInfo, HistoryEntry, HistoryOp, LinkFigures, TableStatus};
#[cfg(test)]
use schemars::JsonSchema;
use serde::Serialize;

#[cfg(test)]
use super::report;
use super::{OwnError, RunState, WaitGroup};
use crate::text::{iso, stream};

/// `status`.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Status<'a> {
    /// The database.
    pub database: String,
    /// What people call the device.
    pub name: &'a str,
    /// Its fingerprint.
    pub fingerprint: String,
    /// It gathers the rows of per-device tables.
    pub base: bool,
    /// The public key of its fleet; null until one has admitted it.
    pub fleet: Option<String>,
    /// The public key of the only fleet that may admit it, as long as it has not.
    pub asks_fleet: Option<String>,
    /// Its secret key is there.
    pub can_seal: bool,
    /// The tables that are known.
    #[cfg_attr(test, schemars(with = "Vec<report::TableStatus>"))]
    pub tables: &'a [TableStatus],
    /// Its journal mode, as SQLite names it: `wal`, unless somebody has set another.
    pub journal_mode: &'a str,
    /// How many conflicts are open.
    pub conflicts: u64,
    /// Decisions that applications wrote into the view `packmule_conflicts`, and the next run carries out.
    pub decisions_waiting: u64,
    /// Those that were refused, and are kept with the reason.
    pub decisions_refused: u64,
    /// Groups of frames that wait for others.
    pub waits: Vec<WaitGroup<'a>>,
    /// The log's size.
    pub log: LogSize,
    /// The time, by this machine's clock.
    pub clock: String,
    /// This machine's clock is likely to be wrong.
    pub clock_wrong: bool,
    /// How far it is off, in milliseconds, if what others wrote shows that; ahead counts up.
    pub clock_off_ms: Option<i64>,
    /// The devices that are retired, and not revoked: name and the beginning of the fingerprint.
    pub retired: Vec<&'a str>,
    /// The devices that are revoked.
    pub revoked: Vec<&'a str>,
    /// What people should know.
    pub notices: Vec<String>,
    /// What sessions with each peer have carried, by the kind of link.
    pub links: Vec<LinkCarried<'a>>,
    /// How `packmule run` stands; null if it has not run since it last ended in good order.
    pub run: Option<&'a RunState>,
    /// Only a person can do something of what there is to do: `--check` ends with 3.
    pub person_needed: bool,
    /// What there is to do.
    pub to_do: Vec<ToDo<'a>>,
}

/// What all sessions with a peer over a kind of link have carried.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct LinkCarried<'a> {
    /// The peer's fingerprint.
    pub fingerprint: String,
    /// Its name; null if that is not known.
    pub name: Option<&'a str>,
    /// `tcp`, `ws`, `http`, `pipe` or `serial`.
    pub link: &'a str,
    /// When both had everything for the last time, by this device's clock; null if never.
    pub in_step: Option<String>,
    /// How many sessions there were.
    pub sessions: u64,
    /// Bytes of frames and states that were sent.
    pub bytes_sent: u64,
    /// The same that came.
    pub bytes_received: u64,
    /// Bytes a second, both ways together, the last time that some were on their way.
    pub goodput: u64,
    /// Bytes of a serial line that were corrected.
    pub bytes_corrected: u64,
    /// Packets of a serial line that were lost, or damaged beyond correction.
    pub packets_lost: u64,
}

impl<'a> From<&'a LinkFigures> for LinkCarried<'a> {
    fn from(of: &'a LinkFigures) -> Self {
        Self {
            fingerprint: of.peer.to_string(),
            name: of.name.as_deref(),
            link: &of.link,
            in_step: of.in_step.map(iso),
            sessions: of.sessions,
            bytes_sent: of.sent,
            bytes_received: of.received,
            goodput: of.goodput,
            bytes_corrected: of.corrected,
            packets_lost: of.lost,
        }
    }
}

/// Something to do.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct ToDo<'a> {
    /// What is the matter.
    pub what: &'a str,
    /// The command that helps, or shows more; null if none does.
    pub command: Option<&'a str>,
    /// Only a person can do it.
    pub person: bool,
}

/// `report`.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Reported {
    /// The page.
    pub report: String,
    /// How many devices are on it.
    pub devices: usize,
    /// How many conflicts are open.
    pub conflicts: u64,
}

/// `undo`.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct TakenBackWrites<'a> {
    /// How many rows are as before.
    #[serde(flatten)]
    #[cfg_attr(test, schemars(with = "report::TakenBack"))]
    pub report: &'a packmule::TakenBack,
    /// Nothing has changed: this is what would be.
    pub dry_run: bool,
    /// How many conflicts are open now.
    pub conflicts_open: u64,
}

/// `restore`.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Restored<'a> {
    /// The row's table.
    pub table: &'a str,
    /// The row was not so already.
    pub changed: bool,
    /// Nothing has changed: this is what would be.
    pub dry_run: bool,
    /// How many conflicts are open now.
    pub conflicts_open: u64,
}

/// `at`.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct AtWritten<'a> {
    /// The new database.
    pub database: String,
    /// How many rows were written to since.
    #[serde(flatten)]
    #[cfg_attr(test, schemars(with = "report::AtReport"))]
    pub report: &'a packmule::AtReport,
}

/// The log's size.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct LogSize {
    /// Frames.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// `log`: groups of frames in the order in which they are applied.
#[cfg(test)]
#[derive(Serialize, JsonSchema)]
pub struct Log<'a> {
    /// The groups.
    pub groups: Vec<LogGroup<'a>>,
    /// Why the list broke off, if it did.
    #[serde(flatten)]
    pub failed: OwnError,
}

/// A group of frames, with its rows.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct LogGroup<'a> {
    /// The group.
    #[serde(flatten)]
    #[cfg_attr(test, schemars(with = "report::HistoryEntry"))]
    pub group: &'a HistoryEntry,
    /// The first 200 of them; with `--rows`, `--values` or a key.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<Vec<report::HistoryOp>>"))]
    pub rows: Option<&'a [HistoryOp]>,
}

/// `digest`.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Digest<'a> {
    /// 64 hexadecimal digits.
    pub digest: &'a str,
}

/// `verify`.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Verified<'a> {
    /// `database` or `bundle`.
    pub kind: &'static str,
    /// Nothing is wrong.
    pub ok: bool,
    /// What is wrong, in words.
    pub problems: &'a [String],
    /// What could not be checked, in words: tables that use a collation or a function that only the application has.
    pub unchecked: &'a [String],
    /// Frames that were checked.
    pub frames: u64,
    /// Groups that were checked.
    pub groups: u64,
    /// Of a bundle: groups whose author's certificate is not in it, so that an import alone checks their signature.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups_without_certificate: Option<u64>,
    /// How many problems there are, in words, if there are any.
    #[serde(flatten)]
    pub failed: OwnError,
}

/// `inspect`.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Inspected<'a> {
    /// The fingerprint of who made the bundle.
    pub sender: Option<String>,
    /// The fingerprint of the device that it is for; null for anyone.
    pub receiver: Option<String>,
    /// When, by the sender's clock; null if the bundle is encrypted, and could not be read.
    pub made: Option<String>,
    /// The sender's signature is right; null if its certificate is not in the bundle.
    pub signed: Option<bool>,
    /// The bundle's size; the file's, if it is encrypted and could not be read.
    pub bytes: u64,
    /// How it is encrypted; null if it is not.
    pub encrypted: Option<Encrypted>,
    /// The certificates in it.
    pub certificates: Vec<Certificate<'a>>,
    /// What its sender had; with `sender_had_differs`, only what differs from what the receiver said last.
    pub sender_had: Vec<SenderHad>,
    /// `sender_had` is not all that its sender had.
    pub sender_had_differs: bool,
    /// The groups of frames in it.
    pub groups: Vec<BundleGroup<'a>>,
}

/// How a bundle is encrypted.
#[derive(Clone, Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Encrypted {
    /// `devices` or `passphrase`.
    pub to: &'static str,
    /// It could be read with a key that was given.
    pub read: bool,
    /// It is for so many devices at most; null for a passphrase.
    pub at_most: Option<u64>,
    /// The fingerprints of these devices, if it could be read.
    pub devices: Vec<String>,
}

impl<'a> Inspected<'a> {
    /// Makes a document of a bundle that was read, or of nothing but how it is encrypted.
    pub fn new(info: &'a BundleInfo, encrypted: Option<Encrypted>) -> Self {
        let certificates = info.devices.iter().map(|(id, name, base, fleet)| Certificate {
            fingerprint: id.to_string(),
            name,
            base: *base,
            fleet: *fleet,
        });
        let sender_had = info.vector.iter().map(|entry| SenderHad {
            device: entry.author.to_string(),
            stream: stream(entry.stream),
            frames: entry.seq,
        });
        let groups = info.groups.iter().map(|group| BundleGroup {
            device: group.author.to_string(),
            stream: stream(group.stream),
            frames: [group.first, group.last],
            stamp: group.lamport,
            at: iso(group.wall),
            bytes: group.bytes,
            defines: &group.tables,
            signed: group.signed,
        });
        Self {
            sender: info.sender.map(|id| id.to_string()),
            receiver: info.receiver.map(|id| id.to_string()),
            made: encrypted.as_ref().is_none_or(|how| how.read).then(|| iso(info.wall)),
            signed: info.signed,
            bytes: info.bytes,
            encrypted,
            certificates: certificates.collect(),
            sender_had: sender_had.collect(),
            sender_had_differs: info.vector_differs,
            groups: groups.collect(),
        }
    }
}

/// A certificate in a bundle.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Certificate<'a> {
    /// The device's fingerprint.
    pub fingerprint: String,
    /// Its name.
    pub name: &'a str,
    /// It gathers the rows of per-device tables.
    pub base: bool,
    /// A fleet has signed it.
    pub fleet: bool,
}

/// How much a bundle's sender had of a log.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct SenderHad {
    /// The log's author, by its fingerprint.
    pub device: String,
    /// `shared` or `per-device`.
    pub stream: &'static str,
    /// Up to which frame.
    pub frames: u64,
}

/// A group of frames in a bundle.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct BundleGroup<'a> {
    /// Its author's fingerprint.
    pub device: String,
    /// `shared` or `per-device`.
    pub stream: &'static str,
    /// Its first and its last frame.
    pub frames: [u64; 2],
    /// Its Lamport timestamp.
    pub stamp: u64,
    /// When, by its author's clock.
    pub at: String,
    /// Bytes of its frames.
    pub bytes: u64,
    /// Tables that are defined in it.
    pub defines: &'a [String],
    /// Its signature is right; null if its author's certificate is not in the bundle.
    pub signed: Option<bool>,
}

/// `board`.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Board<'a> {
    /// The board whose profile is used.
    pub board: &'a str,
    /// The board that was found.
    pub found: &'a str,
    /// What the device tree says.
    pub device_tree: &'a [String],
    /// What has been tried of it.
    pub note: &'a str,
    /// What the program is built for.
    pub target: &'a str,
    /// The program that links for it.
    pub linker: &'a str,
    /// The program is one file, without a shared library.
    #[serde(rename = "static")]
    pub is_static: bool,
    /// Its budgets.
    pub memory: Memory,
    /// Its serial line.
    pub uart: Uart<'a>,
}

/// How much memory the engine uses.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Memory {
    /// The page cache, in KiB.
    pub cache_kib: u32,
    /// The size of a frame.
    pub frame_bytes: u32,
    /// How many bytes of frames are applied in one transaction.
    pub window_bytes: u32,
    /// The page size of new databases.
    pub page_bytes: u32,
}

/// A serial line.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Uart<'a> {
    /// The port.
    pub device: &'a str,
    /// Bits a second at the beginning.
    pub baud: u32,
    /// The highest rate to go up to.
    pub baud_max: u32,
}

/// `demo`.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Demo {
    /// The id of the conflict that was met.
    pub conflict: String,
    /// Each database's digest, by name.
    pub digests: BTreeMap<String, String>,
    /// How many readings each board took, by name.
    pub readings: BTreeMap<String, i64>,
    /// The command lines that were run.
    pub commands: Vec<String>,
    /// The directory that keeps the files.
    pub kept: Option<String>,
}
