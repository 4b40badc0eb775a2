//! The engine: everything that knows SQLite, and the only place that holds SQL.
//!
//! Imports [`packmule_core`]; the carriers import this. Rooms stand in the order of the data's way; each imports
//! only those before it, and `tests/layout` keeps that order. [`Engine`] is the public face, each method a line
//! or two; the functions of the rooms take the open database, `table::replica::Replica`.
//!
//! | room | what lives there |
//! |---|---|
//! | `store` | The file: the connection, our own tables in it, keys beside it, values between SQLite and the wire. |
//! | `table` | Tables: their definitions, what is known of each, and the open database that all further rooms take. |
//! | `fleet` | Who there is: devices, whom we trust, how far each stream has come here and at others. |
//! | `log` | The log: frames and checkpoints in the database, and as a stream of records. |
//! | `merge` | What the versions of a row make of it. Nothing here writes to a table of the application. |
//! | `show` | The winner goes into the application's table: writing, its triggers, UNIQUE and foreign keys. |
//! | `capture` | What applications wrote becomes frames. |
//! | `apply` | Frames of others become rows, in causal order. |
//! | `track` | Tables taken in and let go, by a person's word. |
//! | `conflicts` | What concurrent writes left open, and how it is closed. |
//! | `exchange` | What carriers call: the log given and taken. |
//! | `upkeep` | What keeps a database small and sound, and what there is to know of it. |

mod admission;
pub(crate) mod apply;
pub(crate) mod capture;
mod carriers;
mod confidential;
pub(crate) mod conflicts;
mod decisions;
pub(crate) mod error;
pub(crate) mod exchange;
pub(crate) mod fleet;
pub(crate) mod log;
pub(crate) mod merge;
mod rows;
pub(crate) mod show;
pub(crate) mod store;
pub(crate) mod table;
pub(crate) mod track;
pub(crate) mod upkeep;

use std::cell::OnceCell;
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use packmule_core::model::DeviceId;
use rusqlite::{Connection, OpenFlags};

pub use apply::report::{GatheredApart, ImportReport, Missing, Wait, WaitsForTable};
pub use capture::groups::SealReport;
pub use capture::not_sent::NotSent;
pub use confidential::open_bundle;
pub use conflicts::change::RowChange;
pub use conflicts::history::{HistoryEntry, HistoryItem, HistoryOp};
pub use conflicts::list::{Conflict, ConflictKind, ConflictVersion, VersionOp};
pub use conflicts::many::{Decided, DecisionReport};
pub use conflicts::resolve::Resolution;
pub use conflicts::restore::TakenBack;
pub use conflicts::selection::Selection;
pub use conflicts::undecided::Answer;
pub use conflicts::undo::UndoReport;
pub use error::{BundleProblem, Error, Hint, UntrustedDevice, Way};
pub use exchange::admit::{Admission, AdmitOptions, Admitted, Outcome};
pub use exchange::export::{ExportReport, Part, Recipient};
pub(crate) use exchange::import::More;
pub use exchange::inspect::{BundleInfo, GroupInfo, inspect};
pub use exchange::join::JoinOptions;
pub use exchange::join::JoinReport;
pub use exchange::peer::Peer;
pub use exchange::records::{PartReport, Positions};
pub use exchange::revoke::RevokeReport;
pub(crate) use exchange::session::{GroupOut, Staged, StreamOut, frontier_of};
pub use exchange::snapshot::SnapshotReport;
pub use exchange::survey::{Span, Survey, Trusted};
pub use exchange::verified::Progress;
pub use fleet::admission::Applicant;
pub use fleet::clocks::clock_words;
pub use fleet::devices::{DeviceInfo, SaidBy, TrustedAs, label};
#[cfg(all(unix, any(feature = "net", feature = "serial")))]
pub(crate) use fleet::links::Carried;
pub use fleet::links::LinkFigures;
pub(crate) use fleet::membership::Retirement;
pub use fleet::open::InitOptions;
pub(crate) use fleet::peers::PeerEvidence;
pub use packmule_core::wire::{ColumnMerge, Merge, Mode, Policy};
pub use store::beginning::read_beginning;
pub use store::cipher::ENCRYPTED_MAGIC;
pub use store::connection::{Options, sort_within_cache};
pub use store::decrypt::{BundleFile, Encryption};
pub use store::encrypt::{Encrypting, Readers};
pub use store::keys::FleetKey;
pub use store::meta::Notice;
pub use store::value::OwnedValue;
pub use table::carried::CarriedOut;
pub use table::replica::Identity;
pub use table::route::Route;
pub use track::options::{NewColumns, TrackOptions, TrackReport};
pub use upkeep::at::AtReport;
pub use upkeep::compact::CompactReport;
pub use upkeep::prune::{Keep, PruneReport};
pub use upkeep::remove::RemoveReport;
pub use upkeep::status::{Standing, Status, TableHow, TableStatus};
pub use upkeep::verify::VerifyReport;

use crate::engine::conflicts::{many, resolve, walk};
use crate::engine::exchange::{
    admit, certificates, export, import, join, revoke, snapshot, source, survey, transaction, trust_sender,
};
use crate::engine::fleet::{open, roster, trust};
use crate::engine::table::catalog;
use crate::engine::table::replica::Replica;
use crate::engine::track::{columns, tables};
use crate::engine::upkeep::{compact, digest, remove, status, verify};

/// The engine's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A database that is a device of a fleet.
///
/// Every method leaves the database either as it was or with the whole of its effect, also across
/// a power cut.
///
/// While it lives, its program must not open and close the database's file by other means than SQLite, as by copying it: the
/// process would lose its locks, and with them what is committed next ([`read_beginning`] says more).
pub struct Engine {
    replica: Replica,
    /// The application's, opened when it is asked for: our own has triggers and foreign keys off.
    application: OnceCell<Connection>,
    /// Who is told while SQLite works.
    life: Option<Life>,
}

/// Who is told that an engine gets on.
type Life = Arc<Mutex<dyn FnMut() + Send>>;

impl Engine {
    fn of(replica: Replica) -> Self {
        Self { replica, application: OnceCell::new(), life: None }
    }

    /// Makes a database a device; creates the file if need be. The secret key goes to a file of
    /// its own beside it, with `.pmkey` after the database's name.
    ///
    /// # Errors
    /// [`Error::AlreadyADevice`]; [`Error::Usage`] for an impossible name; [`Error::Io`] if the key
    /// file cannot be made; [`Error::Sqlite`] if the database cannot be opened or written.
    pub fn init(path: &Path, options: &InitOptions<'_>) -> Result<Self> {
        Self::init_with(path, options, Options::default())
    }

    /// Does what [`Engine::init`] does, with its errors and with options for the engine that it returns.
    pub fn init_with(path: &Path, init: &InitOptions<'_>, options: Options) -> Result<Self> {
        Ok(open::init_with(path, init, options).map(Self::of)?)
    }

    /// Opens a device.
    ///
    /// Without its key file it can be read from, but not seal.
    ///
    /// # Errors
    /// [`Error::NotADevice`], [`Error::NewerDatabase`], [`Error::KeyMissing`] if the key file is there
    /// and is not this device's, [`Error::Sqlite`].
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_with(path, Options::default())
    }

    /// Opens a device with options.
    ///
    /// # Errors
    /// As [`Engine::open`], and [`Error::Usage`] for options out of their range.
    pub fn open_with(path: &Path, options: Options) -> Result<Self> {
        Ok(open::open_as(path, options, OpenFlags::SQLITE_OPEN_READ_WRITE).map(Self::of)?)
    }

    /// Opens a device for reading alone, for instance from a card that is mounted read-only.
    ///
    /// Where nothing can be written at all, the database is taken to change under nobody's hands.
    ///
    /// # Errors
    /// As [`Engine::open_with`]; [`Error::WalUnread`] where nothing can be written, and the last writes
    /// have not come from the -wal file into the database.
    pub fn open_read_only(path: &Path, options: Options) -> Result<Self> {
        Ok(open::open_as(path, options, OpenFlags::SQLITE_OPEN_READ_ONLY).map(Self::of)?)
    }

    /// Returns a connection for an application that is written in Rust: an ordinary one, opened at the first
    /// call. What it has not committed is not seen by the engine, and makes it wait.
    ///
    /// # Errors
    /// [`Error::Sqlite`] if it cannot be opened.
    pub fn connection(&self) -> Result<&Connection> {
        if self.application.get().is_none() {
            let db = Connection::open(&self.replica.path)?;
            db.busy_timeout(Duration::from_millis(self.replica.options.busy_ms.into()))?;
            let _ = self.application.set(db);
        }
        self.application.get().ok_or(Error::Poisoned)
    }

    /// Returns who this is.
    pub fn identity(&self) -> &Identity {
        &self.replica.identity
    }

    /// Returns where the database is.
    pub fn path(&self) -> &Path {
        &self.replica.path
    }

    /// Returns whether the secret key is there, so that the device can seal.
    pub fn can_sign(&self) -> bool {
        self.replica.key.is_some()
    }

    /// Says that a device will not come back: the log waits for it no longer. With the fleet's key it travels, and holds at
    /// once; at a base it travels, and holds once all others know; elsewhere it holds for this device alone. Returns
    /// whether it travels.
    ///
    /// It is taken back by [`Engine::take_back_retirement`], and by itself when the device writes again.
    ///
    /// # Errors
    /// [`Error::Usage`] for this device or another fleet's key, [`Error::KeyMissing`], [`Error::Sqlite`].
    pub fn retire(&mut self, id: DeviceId, key: Option<&FleetKey>) -> Result<bool> {
        Ok(compact::retire(&mut self.replica, id, key)?)
    }

    /// Says that a device which was retired is back: with the fleet's key or at a base for all, elsewhere for this device
    /// alone. Returns whether it travels.
    ///
    /// # Errors
    /// [`Error::Usage`] if it is not retired, or goes on under a new identity; [`Error::KeyMissing`],
    /// [`Error::Sqlite`].
    pub fn take_back_retirement(&mut self, id: DeviceId, key: Option<&FleetKey>) -> Result<bool> {
        Ok(compact::take_back_retirement(&mut self.replica, id, key)?)
    }

    /// Lists every open conflict in memory, with the errors of [`Engine::each_conflict`], which holds one at a time.
    pub fn conflicts(&self) -> Result<Vec<Conflict>> {
        let mut all = Vec::new();
        self.each_conflict(&mut |conflict| {
            all.push(conflict);
            Ok(())
        })?;
        Ok(all)
    }

    /// Gives every open conflict to `each`, with every version, in an order that is the same on every device. TEXT
    /// and BLOB of more than 4,096 bytes are told by length and hash.
    ///
    /// # Errors
    /// [`Error::Sqlite`], whatever `each` returns.
    pub fn each_conflict(&self, each: &mut dyn FnMut(Conflict) -> Result<()>) -> Result<()> {
        self.each_conflict_of(&Selection::default(), each)
    }

    /// Finds a device by its name, or by enough of its id, of which a label's end is the beginning.
    ///
    /// # Errors
    /// [`Error::Device`] if none or several are meant.
    pub fn find_device(&self, given: &str) -> Result<DeviceId> {
        Ok(trust::find_device(&self.replica, given)?)
    }

    /// Trusts one device by its fingerprint, which is its id; its frames are taken in from then on.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub fn trust(&mut self, id: DeviceId) -> Result<()> {
        Ok(transaction::transaction(&mut self.replica, |replica| trust::trust(replica, id))?)
    }

    /// Trusts the device that made a bundle, whose header and certificate are signed by the same key;
    /// keeps the certificate.
    ///
    /// # Errors
    /// [`Error::Bundle`] if the bundle is damaged, or not made by whom it says; [`Error::Untrusted`] if
    /// its sender's certificate is not in it; [`Error::Usage`] if that is this device itself.
    pub fn trust_sender<R: std::io::Read>(&mut self, bundle: &mut R) -> Result<DeviceInfo> {
        Ok(trust_sender::trust_sender(&mut self.replica, bundle)?)
    }

    /// Revokes a device: nothing is taken from it any more, nor from those that it vouches for. What other devices
    /// had taken in of it before they heard of the revocation stays, and is taken in from them.
    ///
    /// With the fleet's key the revocation travels, with everything; without it, it holds here alone.
    ///
    /// # Errors
    /// [`Error::Usage`] if the device is this one, or the key that of another fleet; whatever sealing meets.
    pub fn revoke(&mut self, id: DeviceId, key: Option<&FleetKey>) -> Result<RevokeReport> {
        Ok(revoke::revoke(&mut self.replica, id, key)?)
    }

    /// Takes a revocation back. What was set aside of the device is applied.
    ///
    /// # Errors
    /// [`Error::Usage`] if the device is not revoked, or the fleet's key said so and is not given; whatever sealing
    /// meets.
    pub fn take_back_revocation(&mut self, id: DeviceId, key: Option<&FleetKey>) -> Result<RevokeReport> {
        Ok(revoke::take_back(&mut self.replica, id, key)?)
    }

    /// Lists all devices that are known, this one first.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub fn devices(&self) -> Result<Vec<DeviceInfo>> {
        Ok(roster::devices(&self.replica)?)
    }

    /// Lists the tables of which not all travels, with the reasons: those that are held, and those with columns of other
    /// devices that wait for the application. Their writes are not counted. Cheap: every command that sends calls it.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub fn left_out(&self) -> Result<Vec<TableStatus>> {
        Ok(status::left_out(&self.replica)?)
    }

    /// Computes the digest of the shared tables' content and of the open conflicts: 64 hexadecimal digits.
    ///
    /// With `gathered`, the per-device rows that a base gathers count too: for comparing two bases.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub fn digest(&self, gathered: bool) -> Result<String> {
        Ok(digest::digest(&self.replica, gathered)?)
    }

    /// Adds a column to a table here; others that track it add it when they hear of it. A column that
    /// is there with the same type stays as it is.
    ///
    /// # Errors
    /// [`Error::UnknownTable`]; [`Error::Usage`] if the type is none, or the column is there with
    /// another; [`Error::KeyMissing`], [`Error::Sqlite`].
    pub fn add_column(
        &mut self,
        table: &str,
        name: &str,
        decl_type: &str,
        default: Option<&OwnedValue>,
    ) -> Result<()> {
        Ok(transaction::after_seal(&mut self.replica, |replica| {
            columns::add_column(replica, table, name, decl_type, default)
        })?)
    }

    /// Drops a column of a table here; others that track it drop it when they hear of it, also where an application made
    /// the table. Of a per-device table it is dropped here alone.
    ///
    /// # Errors
    /// [`Error::UnknownTable`]; [`Error::Usage`] if there is no such column, it is of the primary key, or something of the
    /// schema is in the way; [`Error::KeyMissing`], [`Error::Sqlite`].
    pub fn drop_column(&mut self, table: &str, name: &str) -> Result<()> {
        Ok(transaction::after_seal(&mut self.replica, |replica| columns::drop_column(replica, table, name))?)
    }

    /// Seals, then writes a bundle: the frames that the recipient lacks.
    ///
    /// A lost bundle is no lost data: what a peer has is known only from itself.
    ///
    /// # Errors
    /// [`Error::KeyMissing`], [`Error::Stream`], and whatever sealing meets.
    pub fn export(&mut self, to: &mut dyn Write, recipient: Recipient) -> Result<ExportReport> {
        Ok(export::export(&mut self.replica, to, recipient)?)
    }

    /// Writes what of the log is not in `part.have`, up to a limit, without sealing first. The footer is
    /// left to the caller, so that what is before it can be made durable first.
    ///
    /// # Errors
    /// [`Error::KeyMissing`], [`Error::Stream`], [`Error::Sqlite`].
    pub fn export_part(&self, to: &mut dyn Write, part: &Part<'_>) -> Result<PartReport> {
        Ok(export::export_part(&self.replica, to, part)?)
    }

    /// Takes in a bundle.
    ///
    /// Importing it again, whole or in part, changes nothing.
    ///
    /// # Errors
    /// [`Error::Bundle`] if it is damaged, [`Error::Untrusted`] if it has frames of devices that are not
    /// trusted, [`Error::Twin`] if a device in it has two histories; nothing is changed then.
    pub fn import<R: Read + Seek>(
        &mut self,
        bundle: &mut R,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<ImportReport> {
        self.comes_by(Route::File);
        self.import_carried(bundle, More::Nothing, progress)
    }

    /// Does the first half of an import alone: refuses what [`Engine::import`] would refuse, and changes nothing.
    ///
    /// # Errors
    /// As [`Engine::import`].
    pub fn check<R: Read + Seek>(&self, bundle: &mut R) -> Result<()> {
        Ok(import::check(&self.replica, bundle)?)
    }

    /// Takes in what another device's database file has sealed. The file is read alone, be it a copy or the device's
    /// own: nothing is written to it, nor sealed in its name; what is not sealed in it is counted.
    ///
    /// # Errors
    /// As [`Engine::import`]; [`Error::Source`] if the file cannot be read, or is no device.
    pub fn import_database(
        &mut self,
        path: &std::path::Path,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<ImportReport> {
        self.comes_by(Route::Database);
        Ok(source::import_database(&mut self.replica, path, progress)?)
    }

    /// Makes a database a device that starts from a snapshot; creates the file if need be.
    ///
    /// # Errors
    /// [`Error::Bundle`] if the snapshot is damaged, [`Error::Untrusted`] if its maker is not of the given
    /// fleet and not trusted, and those of [`Engine::init`]. The tables are as they were then.
    pub fn join<R: Read + Seek>(
        path: &Path,
        snapshot: &mut R,
        join: &JoinOptions<'_>,
        options: Options,
    ) -> Result<(Self, JoinReport)> {
        let (replica, report) = join::join(path, snapshot, join, options)?;
        Ok((Self::of(replica), report))
    }

    /// Gives this device another name. Of a device of a fleet the fleet key has to sign that: the request goes with whatever
    /// is sent, and until it is admitted the old name stays. Returns whether the name counts at once.
    ///
    /// # Errors
    /// [`Error::Usage`] for an impossible name, [`Error::KeyMissing`].
    pub fn rename(&mut self, name: &str) -> Result<bool> {
        Ok(certificates::rename(&mut self.replica, name)?)
    }

    /// Returns the name that this device asks its fleet to sign, if it asks for another.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub fn asked_name(&self) -> Result<Option<String>> {
        Ok(admit::asked_name(&self.replica)?)
    }

    /// Makes a device a plain database again: all `_pm_` tables and triggers go, and the key files. The application's
    /// tables stay as they are, those too in which rows were gathered.
    ///
    /// # Errors
    /// [`Error::NotADevice`]; [`Error::Io`] if a key file cannot be removed, which the next call tries again.
    pub fn remove(path: &Path, options: &Options) -> Result<RemoveReport> {
        Ok(remove::remove(path, options, false)?)
    }

    /// Says what [`Engine::remove`] would do; nothing is changed.
    ///
    /// # Errors
    /// [`Error::NotADevice`], [`Error::Sqlite`].
    pub fn rehearse_remove(path: &Path, options: &Options) -> Result<RemoveReport> {
        Ok(remove::remove(path, options, true)?)
    }

    /// Closes the conflict with this id, of which a beginning that is its alone will do.
    ///
    /// # Errors
    /// [`Error::NoSuchConflict`], [`Error::CannotResolve`] with the reason, [`Error::KeyMissing`].
    pub fn resolve(&mut self, id: &str, resolution: &Resolution) -> Result<()> {
        Ok(transaction::after_seal(&mut self.replica, |replica| many::resolve(replica, id, resolution))?)
    }

    /// Lets the application decide: `decide` sees each open conflict with all its versions, and its
    /// decision travels as a resolution. `None` leaves a conflict open. Returns how many were closed.
    ///
    /// # Errors
    /// As [`Engine::resolve`]; conflicts that were closed before stay closed.
    pub fn resolve_with(&mut self, decide: &mut dyn FnMut(&Conflict) -> Option<Resolution>) -> Result<u64> {
        let mut closed = 0;
        let mut walk = catalog::reading(&self.replica, |e| Ok(walk::Walk::new(e)))?;
        while let Some(open) = catalog::reading(&self.replica, |e| walk.next_whole(e))? {
            if let Some(resolution) = decide(&open.conflict) {
                transaction::after_seal(&mut self.replica, |e| resolve::resolve_seen(e, &open, &resolution))?;
                closed += 1;
            }
        }
        Ok(closed)
    }

    /// Turns what applications wrote since the last seal into frames: one atomic group.
    ///
    /// # Errors
    /// [`Error::KeyMissing`] without the secret key, [`Error::Sqlite`].
    pub fn seal(&mut self) -> Result<SealReport> {
        Ok(transaction::seal(&mut self.replica)?)
    }

    /// Seals, then writes a snapshot of the shared tables, from which [`Engine::join`] starts.
    ///
    /// # Errors
    /// [`Error::KeyMissing`], [`Error::Stream`], and whatever sealing meets.
    pub fn snapshot(&mut self, to: &mut dyn Write) -> Result<SnapshotReport> {
        Ok(snapshot::snapshot(&mut self.replica, to)?)
    }

    /// Reports the state of this device.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub fn status(&self) -> Result<Status> {
        Ok(status::status(&self.replica)?)
    }

    /// Reads a bundle to its end and reports what it has. Holds one record in memory, and a few numbers
    /// a stream.
    pub fn survey(&self, input: impl Read) -> Survey {
        survey::survey(&self.replica, input)
    }

    /// Takes note of what a bundle's sender has, and of its frames nothing: for a bundle that is for
    /// another device, or has nothing new. That it is whole is for the caller to know. Returns the devices of which
    /// the sender says that it has another history than is here: frames of theirs in the bundle can show it.
    ///
    /// # Errors
    /// [`Error::Untrusted`] if the sender is not trusted, [`Error::Bundle`] if the header is not its own.
    pub fn hear(&mut self, input: impl Read) -> Result<Vec<DeviceId>> {
        Ok(survey::hear(&mut self.replica, input)?)
    }

    /// Lists the trusted devices other than this one that were not retired: bases first, then by id.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub fn peers(&self) -> Result<Vec<Trusted>> {
        Ok(survey::peers(&self.replica)?)
    }

    /// Returns what is applied here.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub fn positions(&self) -> Result<Positions> {
        Ok(survey::positions(&self.replica)?)
    }

    /// Tracks a table: takes in the rows that it has, and captures what is written from now on.
    ///
    /// # Errors
    /// [`Error::CannotTrack`] with the reason, [`Error::KeyMissing`], [`Error::Sqlite`].
    pub fn track(&mut self, table: &str, options: &TrackOptions) -> Result<TrackReport> {
        Ok(self.track_all(&[table], options)?.pop().unwrap_or_default())
    }

    /// Tracks several tables in the same way: all of them, or none. The reports are in their order.
    ///
    /// # Errors
    /// As [`Engine::track`], for the first that cannot be tracked.
    pub fn track_all(&mut self, names: &[&str], options: &TrackOptions) -> Result<Vec<TrackReport>> {
        Ok(transaction::after_seal(&mut self.replica, |replica| tables::track_all(replica, names, options))?)
    }

    /// Lets a table go: its rows stay, here and elsewhere; what is written from now on stays here.
    ///
    /// # Errors
    /// [`Error::UnknownTable`], [`Error::Sqlite`].
    pub fn untrack(&mut self, table: &str) -> Result<()> {
        self.untrack_all(&[table])
    }

    /// Lets several tables go: all of them, or none.
    ///
    /// # Errors
    /// As [`Engine::untrack`], for the first that is not tracked.
    pub fn untrack_all(&mut self, names: &[&str]) -> Result<()> {
        Ok(transaction::after_seal(&mut self.replica, |replica| tables::untrack_all(replica, names))?)
    }

    /// Checks SQLite's own integrity, every frame, chain and signature of the log, and that every
    /// version that is remembered is in it.
    ///
    /// # Errors
    /// [`Error::Sqlite`]; what is wrong in the database is in the report.
    pub fn verify(&self) -> Result<VerifyReport> {
        Ok(verify::verify(&self.replica)?)
    }
}
