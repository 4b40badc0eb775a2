//! Opening a database: [`Options`], and the settings of every connection of ours.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use packmule_core::model::WallMs;
use rusqlite::{Connection, OpenFlags};

use crate::engine::error::{Error, Result};
use crate::engine::store::{beginning, functions, keys, vfs};

/// The most that the page cache of TEMP tables takes, in KiB: a quarter of what the database's has, up to this.
const TEMP_CACHE_KIB: u32 = 256;

/// How an engine uses its machine.
pub struct Options {
    /// How long to wait for another program's transaction to end, in milliseconds.
    pub busy_ms: u32,
    /// The page cache, in KiB: most of the memory that the engine uses.
    pub cache_kib: u32,
    /// The size of a frame as it is stored and sent, in bytes: 1,024 to 65,536. A frame of rows that code well holds up to
    /// four times as much before it is coded, and at most 65,536; the whole of it is kept in memory.
    pub frame_bytes: usize,
    /// How many bytes of frames are applied in one transaction; a group is never split.
    pub window_bytes: usize,
    /// How many bytes the lists of what was folded may take, about; the oldest go first. They make states smaller, and
    /// fewer conflicts of who comes back late. Without any, all is as right.
    pub fold_list_bytes: u64,
    /// How many bytes of groups whose end has not come are kept of a peer of a session; `None`: as many as leave as much
    /// room on the disk.
    pub unfinished_bytes: Option<u64>,
    /// How many rows a run has of which a sum is kept, at least: by these sums a table that its application made anew is
    /// compared with what it was. A run that differs is sent whole.
    pub run_rows: u32,
    /// The page size of new databases: a power of two, 512 to 65,536.
    pub page_bytes: u32,
    /// The wall clock.
    pub clock: Box<dyn Fn() -> WallMs + Send>,
    /// Where the seed of a new secret key comes from: must not be guessable.
    pub random: fn(&mut [u8; 32]) -> std::io::Result<()>,
    /// For the tests of the tests: makes the winner depend on the order of arrival, which is wrong.
    #[cfg(feature = "_test")]
    pub broken_winner: bool,
    /// For the tests of the tests: takes a settled value for what a late write had seen, which is wrong.
    #[cfg(feature = "_test")]
    pub broken_verdict: bool,
    /// For the tests of the tests: takes every run of settled rows for what it was, which is wrong.
    #[cfg(feature = "_test")]
    pub broken_sums: bool,
}

impl Options {
    /// Returns whether the winner is to depend on the order of arrival, which is wrong.
    pub(crate) fn winner_is_by_arrival(&self) -> bool {
        #[cfg(feature = "_test")]
        return self.broken_winner;
        #[cfg(not(feature = "_test"))]
        false
    }

    /// Returns whether settled values count as seen by every write, which is wrong.
    pub(crate) fn late_counts_as_seen(&self) -> bool {
        #[cfg(feature = "_test")]
        return self.broken_verdict;
        #[cfg(not(feature = "_test"))]
        false
    }

    /// Returns whether every run of settled rows counts as what it was, which is wrong.
    pub(crate) fn sums_always_match(&self) -> bool {
        #[cfg(feature = "_test")]
        return self.broken_sums;
        #[cfg(not(feature = "_test"))]
        false
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            busy_ms: 5_000,
            cache_kib: 4_096,
            frame_bytes: 16_384,
            window_bytes: 1 << 20,
            fold_list_bytes: 4 << 20,
            unfinished_bytes: None,
            run_rows: 64,
            page_bytes: 4_096,
            random: keys::system_random,
            #[cfg(feature = "_test")]
            broken_winner: false,
            #[cfg(feature = "_test")]
            broken_verdict: false,
            #[cfg(feature = "_test")]
            broken_sums: false,
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

/// Has SQLite sort within as much memory as the page cache of a database may take ([`Options::cache_kib`]). By itself it takes
/// room for 250 pages, where that is more: 16 MB where a page has 64 KiB.
///
/// It holds for all of a process, and has to be called before anything in it uses SQLite; later it does nothing.
pub fn sort_within_cache() {
    // SAFETY: this option takes one number of pages. SQLite refuses it where it is in use.
    let _ = unsafe { rusqlite::ffi::sqlite3_config(rusqlite::ffi::SQLITE_CONFIG_PMASZ, 4_u32) };
}

/// Rolls back the open transaction, if there is one. Returns whether none is open then.
pub(crate) fn roll_back(db: &Connection) -> bool {
    if !db.is_autocommit() {
        let _ = db.execute_batch("ROLLBACK");
    }
    db.is_autocommit()
}

/// Takes back what was done since a savepoint, which ends. Returns why; where SQLite has taken back all of the transaction by
/// itself, as it may where a disk is full or fails, that is the error: nothing may go on as if a transaction were open.
pub(crate) fn undo(db: &Connection, savepoint: &str, why: Box<Error>) -> Result<Box<Error>> {
    if db.is_autocommit() {
        return Err(why);
    }
    db.execute_batch(&format!("ROLLBACK TO {savepoint}; RELEASE {savepoint}"))?;
    Ok(why)
}

/// Returns the path of a file that SQLite keeps beside a database.
fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// Returns how many bytes a file has; none if it is not there.
fn bytes_of(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |file| file.len())
}

/// Returns how many bytes are free where a file is, if the system tells.
pub(crate) fn free_bytes(path: &Path) -> Option<u64> {
    #[cfg(unix)]
    return rustix::fs::statvfs(path).ok().map(|found| found.f_bavail.saturating_mul(found.f_frsize));
    #[cfg(not(unix))]
    None
}

/// Returns whether a database is in WAL mode and no connection has it open: all that was written is in it.
pub(crate) fn is_quiet_wal(path: &Path) -> bool {
    let mut header = [0; 20];
    let read = beginning::read_beginning(path, &mut header);
    let none = |end: &str| bytes_of(&beside(path, end)) == 0;
    // The version by which it may be read: 2 stands for WAL.
    read.is_ok() && header[19] == 2 && none("-wal") && none("-shm")
}

/// Opens a database that cannot be written to, without the files that SQLite would make beside it.
///
/// # Errors
/// [`Error::WalUnread`] if its last writes are in a `-wal` file, which only such files make readable.
pub(crate) fn open_unchanging(path: &Path, options: &Options) -> Result<Connection> {
    let wal = beside(path, "-wal");
    if bytes_of(&wal) > 0 {
        return Err(Error::WalUnread { path: wal }.into());
    }
    open_connection(
        Path::new(&beginning::uri_of_unchanging(path)),
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI,
        options,
    )
}

/// The longest SQL, in bytes: also of what the schema of a database says.
const SQL_MAX: i32 = 1_000_000;
/// How many steps of SQLite's machine reading a strange database may take: at first, and for each byte of it.
const STEPS: u64 = 1_000_000_000;
const STEPS_A_BYTE: u64 = 100;
/// How many steps are counted at once.
const STEPS_AT_ONCE: i32 = 1_000_000;

/// How many steps are left of one transaction that reads a strange database: what is honest may read it as often as it
/// likes.
#[derive(Clone, Default)]
pub(crate) struct Steps {
    left: Arc<AtomicU64>,
    all: u64,
}

impl Steps {
    /// Begins to count anew, with a transaction.
    pub(crate) fn renew(&self) {
        self.left.store(self.all, Ordering::Relaxed);
    }

    /// Has this connection's transactions end after so many steps.
    fn limit(db: &mut Connection, steps: u64) -> Result<Self> {
        let limited = Self { left: Arc::default(), all: (steps / STEPS_AT_ONCE as u64).max(1) };
        limited.renew();
        let left = limited.left.clone();
        let over = move || {
            let before = left.load(Ordering::Relaxed);
            left.store(before.saturating_sub(1), Ordering::Relaxed);
            before <= 1
        };
        db.progress_handler(STEPS_AT_ONCE, Some(over))?;
        Ok(limited)
    }
}

/// Sets limits for reading a database that others may have made: no value is longer than its file, and no transaction goes
/// on for ever.
pub(crate) fn limit_reading(db: &mut Connection, path: &Path) -> Result<Steps> {
    let bytes = bytes_of(path).saturating_add(bytes_of(&beside(path, "-wal")));
    let longest = i32::try_from(bytes.max(1 << 20)).unwrap_or(i32::MAX);
    let allowed = db.limit(rusqlite::limits::Limit::SQLITE_LIMIT_LENGTH)?;
    db.set_limit(rusqlite::limits::Limit::SQLITE_LIMIT_LENGTH, longest.min(allowed))?;
    Steps::limit(db, STEPS.saturating_add(bytes.saturating_mul(STEPS_A_BYTE)))
}

/// Opens a connection of ours.
pub(crate) fn open_connection(path: &Path, flags: OpenFlags, options: &Options) -> Result<Connection> {
    let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = match vfs::name() {
        Some(name) => Connection::open_with_flags_and_vfs(path, flags, name)?,
        None => Connection::open_with_flags(path, flags)?,
    };
    db.busy_timeout(Duration::from_millis(options.busy_ms.into()))?;
    db.set_prepared_statement_cache_capacity(256);
    // Rows of other devices are applied as they are: the application's triggers ran where they were written.
    db.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    // Nothing here needs what this forbids, and the file may be anybody's.
    db.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    db.set_limit(rusqlite::limits::Limit::SQLITE_LIMIT_SQL_LENGTH, SQL_MAX)?;
    // Else SQLite prepares many statements anew for each value that is bound to them: 30 % of the work of an exchange.
    db.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    // EXTRA: what is acknowledged to a peer must be on the disk. With FULL, a rollback journal that was removed may be
    // back after a power cut, and undo the commit; in WAL mode both are the same. Foreign keys are checked by us,
    // after a group. With recursive triggers, a REPLACE runs our own TEMP triggers for the rows that it removes. TEMP tables
    // have a page cache of their own, which is 2 MiB if nothing is said.
    db.execute_batch(&format!(
        "PRAGMA synchronous = EXTRA; PRAGMA cell_size_check = ON; PRAGMA foreign_keys = OFF; PRAGMA recursive_triggers = ON; \
         PRAGMA trusted_schema = OFF; PRAGMA cache_size = -{}; PRAGMA temp.cache_size = -{}",
        options.cache_kib,
        TEMP_CACHE_KIB.min(options.cache_kib / 4).max(1)
    ))?;
    functions::register_functions(&db)?;
    // The first read of the file: it fails if this is no database.
    db.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    Ok(db)
}

/// What tells a file from another one that was put in its place; nothing, where the system has no such.
pub(crate) type FileId = Option<(u64, u64)>;

/// Returns what tells a file from others.
#[cfg(unix)]
pub(crate) fn file_id(path: &Path) -> FileId {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

/// Returns what tells a file from others.
#[cfg(not(unix))]
pub(crate) fn file_id(_path: &Path) -> FileId {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where SQLite takes back the whole transaction, nothing goes on without one: the error is what it was.
    #[test]
    fn nothing_goes_on_after_a_transaction_that_is_gone() {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch("CREATE TABLE t (k INTEGER PRIMARY KEY); INSERT INTO t VALUES (1)").unwrap();
        for (verb, stays) in [("ABORT", true), ("ROLLBACK", false)] {
            db.execute_batch("BEGIN; SAVEPOINT one").unwrap();
            let refused = db.execute_batch(&format!("INSERT OR {verb} INTO t VALUES (1)")).unwrap_err();
            let undone = undo(&db, "one", refused.into());
            assert_eq!(undone.is_ok(), stays);
            let (Ok(why) | Err(why)) = undone;
            assert!(why.to_string().contains("UNIQUE"), "{why}");
            assert_eq!(db.is_autocommit(), !stays);
            roll_back(&db);
        }
    }

    /// A board's database on a read-only card is read as often as somebody looks at it; one endless view is not.
    #[test]
    fn steps_are_counted_by_the_transaction() {
        let mut db = Connection::open_in_memory().unwrap();
        let steps = Steps::limit(&mut db, 8_000_000).unwrap();
        let read = |rows: i64| {
            let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1) SELECT count(*) FROM n";
            db.query_row(sql, [rows], |row| row.get::<_, i64>(0))
        };
        for _ in 0..4 {
            steps.renew();
            assert_eq!(read(150_000).unwrap(), 150_000);
        }
        let over = (0..8).map(|_| read(150_000)).find_map(|read| read.err()).unwrap();
        assert!(over.to_string().contains("interrupted"), "{over}");
        steps.renew();
        assert!(read(i64::MAX).is_err());
    }
}
