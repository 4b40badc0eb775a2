//! Documents about carrying.

use packmule::carry::card::Left;
use packmule::carry::session::Progress;
use packmule::{GatheredApart, ImportReport, Missing, Wait, WaitsForTable};
#[cfg(test)]
use schemars::JsonSchema;
use serde::Serialize;

#[cfg(test)]
use super::report;
use super::{Known, OwnError};
use crate::text::{iso, missing_words, waiting};

/// `export`.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Exported<'a> {
    /// The file.
    pub bundle: String,
    /// Frames in it.
    pub frames: u64,
    /// Groups of frames in it.
    pub groups: u64,
    /// The file's size.
    pub bytes: u64,
    /// The device that was given with `--for`.
    #[serde(rename = "for")]
    pub receiver: Option<&'a str>,
    /// An older bundle of this device was replaced.
    pub replaced: bool,
    /// It has the state of the shared tables: the receiver lacks frames that are compacted away here.
    pub state: bool,
    /// `devices` or `passphrase`, if it is encrypted.
    pub encrypted: Option<&'static str>,
    /// The fingerprints of the devices that can read it, if it is encrypted to devices; this one is among them.
    pub readers: Vec<String>,
}

/// What was taken in.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Taken<'a> {
    /// Frames that were new here.
    pub frames: u64,
    /// Frames that were here already.
    pub known: u64,
    /// Frames of other devices' per-device tables, which only a base takes in.
    pub passed_over: u64,
    /// Rows applied.
    pub ops: u64,
    /// Rows that wait for a table or a column that is not here.
    pub ops_waiting: u64,
    /// The tables that these wait for, and why.
    #[cfg_attr(test, schemars(with = "Vec<report::WaitsForTable>"))]
    pub waiting_for: &'a [WaitsForTable],
    /// Rows applied to a table of another name than theirs, of which this database has one of its own.
    #[cfg_attr(test, schemars(with = "Vec<report::GatheredApart>"))]
    pub gathered_apart: &'a [GatheredApart],
    /// Conflicts that are open now and were not before.
    pub conflicts_opened: u64,
    /// Rows of a database file that are not sealed there, and so were not taken in.
    pub unsealed: u64,
    /// The devices that are revoked now and were not before: the fleet key says so, in what came.
    pub revoked: &'a [String],
    /// The devices that are no longer revoked, since the fleet key says so.
    pub restored: &'a [String],
    /// The new name of this device, if it turned out to be a fork of another and has a new identity.
    pub new_identity: Option<&'a str>,
}

impl<'a> From<&'a ImportReport> for Taken<'a> {
    fn from(report: &'a ImportReport) -> Self {
        Self {
            frames: report.frames,
            known: report.known,
            passed_over: report.skipped,
            ops: report.ops,
            ops_waiting: report.ops_waiting,
            waiting_for: &report.waiting_for,
            gathered_apart: &report.gathered_apart,
            conflicts_opened: report.conflicts_opened,
            unsealed: report.unsealed,
            revoked: &report.revoked,
            restored: &report.restored,
            new_identity: report.new_identity.as_deref(),
        }
    }
}

/// A group of frames that waits for others.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct WaitGroup<'a> {
    /// Who wrote it.
    pub author: &'a str,
    /// Its first and its last frame.
    pub frames: [u64; 2],
    /// When the first of them was sealed, by its author's clock.
    pub since: String,
    /// Whose frames are missing.
    pub missing: String,
    /// Up to which one they are needed; 0 if no frames help.
    pub up_to: u64,
}

impl<'a> From<&'a Wait> for WaitGroup<'a> {
    fn from(wait: &'a Wait) -> Self {
        let frames = [wait.frames.0, wait.frames.1];
        let up_to = match wait.missing {
            Missing::Frames { up_to, .. } | Missing::OtherPart { up_to, .. } => up_to,
            _ => 0,
        };
        Self {
            author: &wait.author,
            frames,
            since: iso(wait.since),
            missing: missing_words(&wait.missing),
            up_to,
        }
    }
}

/// A file, with what was taken in of it.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct File<'a> {
    /// The file.
    pub file: String,
    /// What was taken in of it.
    #[serde(flatten)]
    pub taken: Taken<'a>,
}

/// A bundle of a card, with what was taken in of it.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct CardFile<'a> {
    /// The file, with what was taken in of it.
    #[serde(flatten)]
    pub file: File<'a>,
    /// Groups that wait after it.
    pub waits: Vec<WaitGroup<'a>>,
}

/// A file, with the reason of what was done with it.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Reason {
    /// The file.
    pub file: String,
    /// Why.
    pub reason: String,
}

/// `import` and `merge`.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Imported<'a> {
    /// What was taken in, of all files.
    #[serde(flatten)]
    pub taken: Taken<'a>,
    /// Groups that wait after the last file.
    pub waits: Vec<WaitGroup<'a>>,
    /// How many conflicts are open.
    pub conflicts_open: u64,
    /// The files that were taken in.
    pub files: Vec<File<'a>>,
    /// The files that were skipped.
    pub stepped_over: Vec<Reason>,
}

/// `exchange`.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Exchanged<'a> {
    /// The bundles that were taken in.
    pub taken: Vec<CardFile<'a>>,
    /// Bundles for others, from which only what their senders have was learnt.
    pub heard: Vec<String>,
    /// The files that were skipped.
    pub stepped_over: Vec<Reason>,
    /// The bundles that were left.
    #[cfg_attr(test, schemars(with = "Vec<report::Left>"))]
    pub left: &'a [Left],
    /// Bundles of this device that lie there from earlier.
    pub waiting: Vec<String>,
    /// Bundles of this device that were removed.
    pub removed: Vec<Reason>,
    /// Why not everything could be left.
    pub not_left: Option<String>,
    /// Devices that ask this fleet to sign their certificates.
    pub asks: Vec<Known<'a>>,
    /// The fleet has admitted this device in this exchange.
    pub admitted: bool,
    /// How many conflicts are open.
    pub conflicts_open: u64,
    /// Why the exchange broke off, if it did.
    #[serde(flatten)]
    pub failed: OwnError,
}

/// What a session has carried.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Counts {
    /// Frames that were sent.
    pub frames_sent: u64,
    /// Their bytes.
    pub bytes_sent: u64,
    /// Frames that came.
    pub frames_received: u64,
    /// Their bytes.
    pub bytes_received: u64,
    /// Rows of the state that was sent to a peer that lacks what is compacted away here.
    pub state_rows_sent: u64,
    /// Bytes of it; what came over the line before it broke off is among them.
    pub state_bytes_sent: u64,
    /// Rows of the state that came, since what is compacted away at the other end was not here.
    pub state_rows_received: u64,
    /// Bytes of it; what came over the line before it broke off is among them.
    pub state_bytes_received: u64,
    /// Why the state that came was not taken in; nothing of it is here then, and the rest came in.
    pub state_refused: Option<String>,
    /// Rows applied.
    pub ops: u64,
    /// Rows that wait for a table or a column that is not here.
    pub ops_waiting: u64,
    /// Rows applied to a table of another name than theirs, of which this database has one of its own.
    #[cfg_attr(test, schemars(with = "Vec<report::GatheredApart>"))]
    pub gathered_apart: Vec<GatheredApart>,
    /// Conflicts that are open now and were not before.
    pub conflicts_opened: u64,
    /// This device lacks frames that are compacted away at the other end, and the state did not come over the line.
    pub needs_snapshot: bool,
    /// The other end lacks frames that are compacted away here, and the state did not go over the line.
    pub peer_needs_snapshot: bool,
    /// What groups wait for, in words.
    pub waits: Vec<String>,
}

impl From<&Progress> for Counts {
    fn from(done: &Progress) -> Self {
        Self {
            frames_sent: done.sent.0,
            bytes_sent: done.sent.1,
            frames_received: done.received.0,
            bytes_received: done.received.1,
            state_rows_sent: done.state_sent.1,
            state_bytes_sent: done.state_sent.0,
            state_rows_received: done.state_received.1,
            state_bytes_received: done.state_received.0,
            state_refused: done.taken.state_refused.clone(),
            ops: done.taken.ops,
            ops_waiting: done.taken.ops_waiting,
            gathered_apart: done.taken.gathered_apart.clone(),
            conflicts_opened: done.taken.conflicts_opened,
            needs_snapshot: done.needs_snapshot,
            peer_needs_snapshot: done.peer_needs_snapshot,
            waits: done.taken.waits.iter().map(waiting).collect(),
        }
    }
}

/// `sync`.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Synced {
    /// The port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// The rate at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baud: Option<u32>,
    /// The address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The other end's name and the beginning of its fingerprint.
    pub peer: Option<String>,
    /// The other end's fingerprint.
    pub fingerprint: Option<String>,
    /// How long it took.
    pub seconds: f64,
    /// How many conflicts are open.
    pub conflicts_open: u64,
    /// What was carried.
    #[serde(flatten)]
    pub counts: Counts,
}

/// One line of `serve` or `run`, on a line of its own.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Event<'a> {
    /// When, by this machine's clock.
    pub at: String,
    /// The serial port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<&'a str>,
    /// Over a network: where the other end is; of `listening`, where this one is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<&'a str>,
    /// Of `run`: the link's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<&'a str>,
    /// `open`, `away`, `listening`, `met`, `in step`, `baud`, `silent`, `heard`, `ended` or `failed`; over HTTP also
    /// `bundle in` and `bundle out`; of `run` also `stuck` and `goes on`, and of upkeep `done`.
    pub event: &'static str,
    /// The other end's name and the beginning of its fingerprint, once it is known.
    pub peer: Option<&'a str>,
    /// The same for people.
    pub text: &'a str,
    /// Of `met`: the other end's fingerprint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// Of `baud`: the rate from now on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baud: Option<u32>,
    /// Of `in step`: what was carried since it was in step before.
    #[serde(flatten)]
    pub counts: Option<Counts>,
}
