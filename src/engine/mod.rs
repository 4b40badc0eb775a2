//! The engine: everything that knows SQLite, and the only place that holds SQL.
//!
//! Imports [`packmule_core`]; the carriers import this.
//!
//! | file | what it does |
//! |---|---|
//! | `store` | the `_pm_` tables |
//! | `keys`, `devices` | who we are, whom we trust, what they have |
//! | `def`, `ddl`, `value` | table definitions and values, between SQLite and the wire |
//! | `catalog` | the tables and definitions that are known |
//! | `capture`, `dirty` | triggers that note which rows change; the lists that they append to |
//! | `track`, `evolve`, `unite` | tables taken in and let go; tables changed, here and by others |
//! | `declare` | what devices declare of a table, and what comes of it where they differ |
//! | `log`, `seal`, `rows` | groups of frames written; rows read into them |
//! | `export`, `bundle` | the log as a stream of records; such a stream verified |
//! | `survey` | what a carrier needs to know: what a bundle has, what peers have, what could be given |
//! | `import`, `waits`, `apply` | frames stored, ordered, applied |
//! | `twin`, `fork` | two histories under one identity, found; the second goes on under a new one |
//! | `versions`, `columns`, `counters`, `blind` | what the versions of a row make of it |
//! | `settle`, `references` | constraints settled |
//! | `session` | what two ends that talk need of each other's log |
//! | `compact`, `snapshot`, `join`, `load` | what all have is folded away; newcomers start from what is left |
//! | `triggers` | the application's triggers, for rows of others |
//! | `conflicts`, `resolve` | what concurrent writes left open, and how it is closed |
//! | `clocks` | clocks that are far off |
//! | `digest`, `status`, `history`, `verify` | what there is to know |

mod apply;
mod blind;
mod bundle;
mod capture;
mod catalog;
mod clocks;
mod columns;
mod compact;
mod conflicts;
mod counters;
mod ddl;
mod declare;
mod def;
mod devices;
mod digest;
mod dirty;
mod error;
mod evolve;
mod export;
mod fork;
mod history;
mod import;
mod join;
mod keys;
mod load;
mod log;
mod references;
mod resolve;
mod rows;
mod seal;
mod session;
mod settle;
mod snapshot;
mod status;
mod store;
mod survey;
mod track;
mod triggers;
mod twin;
mod unite;
mod value;
mod verify;
mod versions;
mod waits;

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ed25519_compact::SecretKey;
use packmule_core::model::{DeviceId, WallMs};
use rusqlite::{Connection, OpenFlags};

pub use bundle::{BundleInfo, GroupInfo, inspect};
pub use clocks::clock_words;
pub use compact::CompactReport;
pub use conflicts::{Conflict, ConflictKind, ConflictVersion};
pub use devices::{DeviceInfo, label};
pub use error::{BundleProblem, Error, Result, Stranger};
pub use export::{ExportReport, Part, PartReport, Positions, Recipient};
pub use history::{HistoryEntry, HistoryOp};
pub use import::{ImportReport, Progress};
pub use join::{JoinOptions, JoinReport};
pub use keys::FleetKey;
pub use packmule_core::wire::{ColumnMerge, Merge, Mode, Policy};
pub use resolve::Resolution;
pub use seal::SealReport;
pub use session::Peer;
pub(crate) use session::{GroupOut, Staged, StreamOut, Told, told_of};
pub use snapshot::SnapshotReport;
pub use status::{Status, TableStatus};
pub use survey::{Span, Survey, Trusted};
pub use track::{TrackOptions, TrackReport};
pub(crate) use twin::applied;
pub use value::OwnedValue;
pub use verify::VerifyReport;
pub use waits::Wait;

use catalog::Catalog;

/// How an engine uses its machine.
pub struct Options {
    /// How long to wait for another program's write to end, in milliseconds.
    pub busy_ms: u32,
    /// The page cache, in KiB: most of the memory that the engine uses.
    pub cache_kib: u32,
    /// The size of a frame, in bytes: 1,024 to 65,536. A frame is held in memory whole.
    pub frame_bytes: usize,
    /// How many bytes of frames are applied in one transaction; a group is never split.
    pub window_bytes: usize,
    /// The page size of databases that are made: a power of two, 512 to 65,536.
    pub page_bytes: u32,
    /// The wall clock.
    pub clock: Box<dyn Fn() -> WallMs + Send>,
    /// Where the seed of a new secret key comes from: must not be guessable.
    pub random: fn(&mut [u8; 32]) -> std::io::Result<()>,
    /// For the tests of the tests: the winner depends on the order of arrival, which is wrong.
    #[doc(hidden)]
    pub broken_winner: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            busy_ms: 5_000,
            cache_kib: 4_096,
            frame_bytes: 16_384,
            window_bytes: 1 << 20,
            page_bytes: 4_096,
            random: keys::system_random,
            broken_winner: false,
            clock: Box::new(|| {
                let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
                since.map_or_else(
                    |before| -(before.duration().as_millis() as i64),
                    |since| since.as_millis() as i64,
                )
            }),
        }
    }
}

/// What `init` makes of a database.
#[derive(Clone, Copy)]
pub struct InitOptions<'a> {
    /// The name that people see: 1 to 64 bytes, without control characters.
    pub name: &'a str,
    /// The device gathers the rows of per-device tables.
    pub base: bool,
    /// The fleet that vouches for it.
    pub fleet: Option<&'a FleetKey>,
}

/// Who a database is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The id, which is also the fingerprint.
    pub id: DeviceId,
    /// The name.
    pub name: String,
    /// It gathers the rows of per-device tables.
    pub base: bool,
    /// The fleet's public key, if it belongs to one.
    pub fleet: Option<[u8; 32]>,
}

/// A database that is a device of a fleet.
///
/// Every method leaves the database either as it was or with the whole of its effect, also across
/// a power cut.
pub struct Engine {
    db: Connection,
    /// The application's, opened when it is asked for: our own has triggers and foreign keys off.
    application: std::cell::OnceCell<Connection>,
    path: PathBuf,
    key: Option<SecretKey>,
    identity: Identity,
    /// Our number in `_pm_device`.
    me: i64,
    options: Options,
    catalog: RefCell<Catalog>,
    triggers: RefCell<triggers::Triggers>,
    probe: std::sync::Arc<triggers::Probe>,
    /// Whether `_pm_parked` may have rows: mostly it has none, and need not be asked for each op.
    parked: std::cell::Cell<bool>,
    poisoned: bool,
}

impl Engine {
    /// Makes a database a device; creates the file if need be. The secret key goes to a file of
    /// its own beside it, with `.pmkey` after the database's name.
    ///
    /// # Errors
    /// [`Error::AlreadyADevice`]; [`Error::Usage`] for an impossible name; [`Error::Io`] if the key
    /// file cannot be made; [`Error::Sqlite`] if the database cannot be opened or written.
    pub fn init(path: &Path, options: &InitOptions<'_>) -> Result<Self> {
        Self::init_with(path, options, Options::default())
    }

    /// [`Engine::init`] with options for the engine that it returns.
    ///
    /// # Errors
    /// As [`Engine::init`].
    pub fn init_with(path: &Path, init: &InitOptions<'_>, options: Options) -> Result<Self> {
        if init.name.is_empty() || init.name.len() > 64 || init.name.chars().any(char::is_control) {
            return Err(Error::Usage(format!(
                "a device's name is 1 to 64 bytes without control characters: `{}` is not",
                init.name.escape_debug()
            )));
        }
        let fresh = !path.exists();
        let db = open_connection(
            path,
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
            &options,
        )?;
        if fresh {
            db.execute_batch(&format!("PRAGMA page_size = {}", options.page_bytes))?;
        }
        let made = Self::make_device(&db, path, init, options.random);
        if made.is_err() {
            roll_back(&db);
            if fresh {
                drop(db);
                let _ = std::fs::remove_file(path);
            }
        }
        made?;
        Self::open_with(path, options)
    }

    fn make_device(
        db: &Connection,
        path: &Path,
        init: &InitOptions<'_>,
        random: fn(&mut [u8; 32]) -> std::io::Result<()>,
    ) -> Result<()> {
        if store::present(db)? {
            let identity = devices::identity(db)?.1;
            return Err(Error::AlreadyADevice { device: identity.id, name: identity.name });
        }
        db.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
        db.execute_batch("BEGIN IMMEDIATE")?;
        store::create(db)?;
        let database = std::fs::canonicalize(path).map_err(Error::io("find", path))?;
        // Only what is in the database makes it a device: until then the key has another name, and
        // one that a power cut left behind is nobody's.
        let key_path = keys::device_key_path(&database);
        if key_path.exists() {
            let there = std::io::Error::from(std::io::ErrorKind::AlreadyExists);
            return Err(Error::io("make the key file", key_path)(there));
        }
        let new_key_path = keys::new_key_path(&key_path);
        match std::fs::remove_file(&new_key_path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("remove what is left of an earlier `init`,", new_key_path)(e));
            }
            _ => {}
        }
        let key = keys::new_device_key(&new_key_path, random)?;
        let write = || -> Result<()> {
            let (voucher, fleet) = (init.fleet.map(|f| &f.0), init.fleet.map(FleetKey::public_key));
            devices::become_device(db, &key, (init.name, init.base), voucher, fleet)?;
            db.execute_batch("COMMIT")?;
            Ok(())
        };
        let written = write();
        if written.is_err() {
            let _ = std::fs::remove_file(&new_key_path);
        }
        written
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

    /// [`Engine::open`] with options.
    ///
    /// # Errors
    /// As [`Engine::open`], and [`Error::Usage`] for options out of their range.
    pub fn open_with(path: &Path, options: Options) -> Result<Self> {
        Self::open_as(path, options, OpenFlags::SQLITE_OPEN_READ_WRITE)
    }

    /// [`Engine::open_with`] for reading alone, for instance from a card that is mounted read-only.
    ///
    /// Where nothing can be written at all, the database is taken to change under nobody's hands.
    ///
    /// # Errors
    /// As [`Engine::open_with`]; [`Error::WalUnread`] where nothing can be written, and the last writes
    /// have not come from the -wal file into the database.
    pub fn open_read_only(path: &Path, options: Options) -> Result<Self> {
        Self::open_as(path, options, OpenFlags::SQLITE_OPEN_READ_ONLY)
    }

    fn open_as(path: &Path, options: Options, flags: OpenFlags) -> Result<Self> {
        if !(1024..=packmule_core::wire::FRAME_MAX).contains(&options.frame_bytes) {
            return Err(Error::Usage("a frame has 1,024 to 65,536 bytes".into()));
        }
        let path = std::fs::canonicalize(path).map_err(Error::io("open", path))?;
        let read_only = flags == OpenFlags::SQLITE_OPEN_READ_ONLY;
        let mut db = match open_connection(&path, flags, &options) {
            // In WAL mode, even reading makes a file beside the database.
            Err(e) if read_only && e.needs_to_write() => open_unchanging(&path, &options)?,
            db => db?,
        };
        let probe = triggers::Probe::of(&mut db)?;
        if !store::present(&db)? {
            return Err(Error::NotADevice);
        }
        let (me, identity) = devices::identity(&db)?;
        let key_path = keys::find_device_key(&path, identity.id)?;
        let key = if key_path.exists() { Some(keys::read_device_key(&key_path)?) } else { None };
        if key.as_ref().is_some_and(|key| DeviceId::of_key(&key.public_key()) != identity.id) {
            return Err(Error::KeyMissing { path: key_path, reason: "is the key of another device".into() });
        }
        let catalog = RefCell::new(Catalog::default());
        let application = std::cell::OnceCell::new();
        let triggers = RefCell::default();
        let engine = Self {
            db,
            application,
            path,
            key,
            identity,
            me,
            options,
            catalog,
            triggers,
            probe,
            parked: true.into(),
            poisoned: false,
        };
        engine.load_catalog()?;
        Ok(engine)
    }

    /// A connection for an application that is written in Rust: an ordinary one, opened at the first
    /// call. What it has not committed is not seen by the engine, and makes it wait.
    ///
    /// # Errors
    /// [`Error::Sqlite`] if it cannot be opened.
    pub fn connection(&self) -> Result<&Connection> {
        if self.application.get().is_none() {
            let db = Connection::open(&self.path)?;
            db.busy_timeout(Duration::from_millis(self.options.busy_ms.into()))?;
            let _ = self.application.set(db);
        }
        self.application.get().ok_or(Error::Poisoned)
    }

    /// Who this is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Where the database is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the secret key is there, so that the device can seal.
    pub fn can_sign(&self) -> bool {
        self.key.is_some()
    }

    fn now(&self) -> WallMs {
        (self.options.clock)()
    }

    fn signing_key(&self) -> Result<&SecretKey> {
        self.key.as_ref().ok_or_else(|| Error::KeyMissing {
            path: keys::device_key_path(&self.path),
            reason: "is not there".into(),
        })
    }

    /// Runs `work` in one transaction: all of it, or nothing.
    fn transaction<R>(&mut self, work: impl FnOnce(&Self) -> Result<R>) -> Result<R> {
        if self.poisoned {
            return Err(Error::Poisoned);
        }
        self.db.execute_batch("BEGIN IMMEDIATE")?;
        self.parked.set(true);
        if self.is_set_back()? && self.load_catalog().and_then(|()| self.must_fork())? {
            roll_back(&self.db);
            let common = self.certain([0; 2], [u64::MAX; 2], true)?;
            self.go_on_anew(common)?;
            self.db.execute_batch("BEGIN IMMEDIATE")?;
        }
        let result = self.load_catalog().and_then(|()| work(self));
        self.end_transaction(result)
    }

    /// Commits what went well, and rolls back what did not.
    fn end_transaction<R>(&mut self, result: Result<R>) -> Result<R> {
        let result = result.and_then(|result| {
            self.remove_local_triggers()?;
            self.db.execute_batch("COMMIT")?;
            Ok(result)
        });
        if result.is_err() {
            // A rollback can fail, for instance when memory is short: look whether it did.
            self.poisoned = !roll_back(&self.db) || !self.forget_local_triggers();
            self.catalog.borrow_mut().forget();
        }
        result
    }

    /// Runs `work` on one state of the database, without writing.
    fn reading<R>(&self, work: impl FnOnce(&Self) -> Result<R>) -> Result<R> {
        if self.poisoned {
            return Err(Error::Poisoned);
        }
        let nested = !self.db.is_autocommit();
        if !nested {
            self.db.execute_batch("BEGIN")?;
        }
        let result = self.load_catalog().and_then(|()| work(self));
        if !nested {
            roll_back(&self.db);
        }
        result
    }
}

/// Rolls back what is open; whether nothing is open then.
fn roll_back(db: &Connection) -> bool {
    if !db.is_autocommit() {
        let _ = db.execute_batch("ROLLBACK");
    }
    db.is_autocommit()
}

/// Opens a database that nobody can write to, without the files that SQLite would make beside it.
fn open_unchanging(path: &Path, options: &Options) -> Result<Connection> {
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    if std::fs::metadata(&wal).is_ok_and(|wal| wal.len() > 0) {
        return Err(Error::WalUnread { path: wal.into() });
    }
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => {
                uri.push(char::from(*byte))
            }
            byte => uri.push_str(&format!("%{byte:02x}")),
        }
    }
    uri.push_str("?immutable=1");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    open_connection(Path::new(&uri), flags, options)
}

fn open_connection(path: &Path, flags: OpenFlags, options: &Options) -> Result<Connection> {
    let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)?;
    db.busy_timeout(Duration::from_millis(options.busy_ms.into()))?;
    db.set_prepared_statement_cache_capacity(256);
    // Rows of others are applied as they are: their authors' triggers ran where they were written.
    db.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    // FULL: what is acknowledged to a peer must be on the disk. Foreign keys are checked by us,
    // after a group. Recursive triggers let REPLACE tell our own TEMP triggers what it removes.
    db.execute_batch(&format!(
        "PRAGMA synchronous = FULL; PRAGMA foreign_keys = OFF; PRAGMA recursive_triggers = ON; \
         PRAGMA trusted_schema = OFF; PRAGMA cache_size = -{}",
        options.cache_kib
    ))?;
    counters::register_functions(&db)?;
    dirty::register_functions(&db)?;
    // The first read of the file: says whether it is a database at all.
    db.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    Ok(db)
}
