//! The `_pm_` tables: their layout, and the small things that are kept in them.
//!
//! None of them uses what SQLite 3.34 does not have: applications write to the same database, with
//! whatever library they have.

use rusqlite::Connection;

use crate::engine::error::{Error, Result};
use crate::engine::store::{meta, value};

/// The version of the layout.
const LAYOUT: i64 = 2;

/// `dev` is a device's number in `_pm_device`, of this database alone; `stream` is 0 shared, 1 own.
const TABLES: &str = "
    CREATE TABLE _pm_meta (k TEXT PRIMARY KEY, v) WITHOUT ROWID;
    -- retired: 1 it will not come back, 2 it goes on as another; said by which device in which of its frames, if it was said in the log.
    -- trust: 0 only heard of, 1 trusted singly, 2 vouched for by our fleet, 3 revoked.
    -- set_back: it has lost frames of its own that are here, and what it had seen does not count.
    CREATE TABLE _pm_device (n INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, public_key BLOB, name TEXT,
        base INTEGER NOT NULL DEFAULT 0, certificate BLOB, trust INTEGER NOT NULL DEFAULT 0, heard INTEGER,
        retired INTEGER NOT NULL DEFAULT 0, retired_by INTEGER, retired_seq INTEGER,
        set_back INTEGER NOT NULL DEFAULT 0);
    -- Up to where each stream has been applied, and its hash chain there.
    CREATE TABLE _pm_stream (dev INTEGER, stream INTEGER, seq INTEGER NOT NULL, chain BLOB NOT NULL,
        PRIMARY KEY (dev, stream)) WITHOUT ROWID;
    CREATE TABLE _pm_frame (dev INTEGER, stream INTEGER, seq INTEGER, body BLOB NOT NULL,
        PRIMARY KEY (dev, stream, seq));
    -- applied: 0 while it waits for what its author had seen. chain: after its last frame.
    CREATE TABLE _pm_group (dev INTEGER, stream INTEGER, last INTEGER, first INTEGER NOT NULL, lamport INTEGER NOT NULL,
        wall INTEGER NOT NULL, pair INTEGER NOT NULL, applied INTEGER NOT NULL, checkpoint BLOB NOT NULL,
        chain BLOB NOT NULL,
        PRIMARY KEY (dev, stream, last)) WITHOUT ROWID;
    CREATE INDEX _pm_group_order ON _pm_group (lamport);
    CREATE INDEX _pm_group_waiting ON _pm_group (dev, stream, first) WHERE NOT applied;
    -- What an author had seen at its last applied group.
    CREATE TABLE _pm_context (dev INTEGER, stream INTEGER, other INTEGER, seq INTEGER NOT NULL,
        PRIMARY KEY (dev, stream, other)) WITHOUT ROWID;
    -- What a peer has, as last heard of.
    CREATE TABLE _pm_ack (peer INTEGER, dev INTEGER, stream INTEGER, seq INTEGER NOT NULL,
        PRIMARY KEY (peer, dev, stream)) WITHOUT ROWID;
    -- Up to where each stream is folded away.
    CREATE TABLE _pm_floor (dev INTEGER, stream INTEGER, seq INTEGER NOT NULL, PRIMARY KEY (dev, stream)) WITHOUT ROWID;
    -- Of rows with a version of device 0, which is older than what is remembered: its values.
    CREATE TABLE _pm_image (tid INTEGER, key BLOB, body BLOB NOT NULL, PRIMARY KEY (tid, key)) WITHOUT ROWID;
    CREATE TABLE _pm_def (id BLOB PRIMARY KEY, tid INTEGER NOT NULL, body BLOB NOT NULL) WITHOUT ROWID;
    -- state: 0 known from others only, 1 tracked here, 2 gathered here from other devices, 3 no longer tracked here,
    -- 4 held: it was changed here in a way that does not travel.
    CREATE TABLE _pm_table (tid INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE COLLATE NOCASE, def BLOB NOT NULL,
        state INTEGER NOT NULL, appended INTEGER NOT NULL DEFAULT 0, announced INTEGER NOT NULL DEFAULT 0, note TEXT);
    -- The versions of recently written rows that no other version dominates, and where they are in the log.
    -- kind: 1 insert, 2 update, 3 delete.
    -- columns: those that the version still speaks for, if not all.
    CREATE TABLE _pm_head (tid INTEGER, key BLOB, dev INTEGER, seq INTEGER, place INTEGER NOT NULL, claim INTEGER NOT NULL,
        wall INTEGER NOT NULL, kind INTEGER NOT NULL, columns BLOB, PRIMARY KEY (tid, key, dev, seq)) WITHOUT ROWID;
    -- Recent writes to counters: what was added, or (absolute) what an insert or delete left there.
    CREATE TABLE _pm_count (tid INTEGER, key BLOB, col INTEGER, dev INTEGER, seq INTEGER, absolute INTEGER NOT NULL,
        value INTEGER NOT NULL, PRIMARY KEY (tid, key, col, absolute, dev, seq)) WITHOUT ROWID;
    -- Rows with versions of different content.
    CREATE TABLE _pm_conflict (tid INTEGER, key BLOB, PRIMARY KEY (tid, key)) WITHOUT ROWID;
    -- Rows whose winner a constraint keeps out of its table; the blocker is the row that keeps it out.
    CREATE TABLE _pm_parked (tid INTEGER, key BLOB, reason TEXT NOT NULL, blocker BLOB, PRIMARY KEY (tid, key)) WITHOUT ROWID;
    CREATE INDEX _pm_parked_blocker ON _pm_parked (tid, blocker);
    -- Rows that may refer to a row that is not there; whether they still do is looked up.
    -- told: by which of its foreign keys, as bits, its author is listed, whom who made it so had not seen.
    CREATE TABLE _pm_dangling (tid INTEGER, key BLOB, told INTEGER NOT NULL, PRIMARY KEY (tid, key)) WITHOUT ROWID;
    -- Rows of tables that are held of which others' versions came meanwhile.
    CREATE TABLE _pm_held (tid INTEGER, key BLOB, PRIMARY KEY (tid, key)) WITHOUT ROWID;
    -- What devices declared of shared tables; past: another declaration took its place.
    -- what: 0 how the table merges, 1 what a column is, 2 what is done about concurrent writes to it, 3 a UNIQUE.
    CREATE TABLE _pm_declared (tid INTEGER, what INTEGER, name TEXT, dev INTEGER, seq INTEGER, lamport INTEGER NOT NULL,
        value BLOB NOT NULL, past INTEGER NOT NULL, def BLOB NOT NULL, PRIMARY KEY (tid, what, name, dev, seq)) WITHOUT ROWID;
    -- What people should know: shown by status.
    CREATE TABLE _pm_notice (what TEXT PRIMARY KEY, wall INTEGER NOT NULL, count INTEGER NOT NULL) WITHOUT ROWID;
";

/// Makes the `_pm_` tables.
pub(crate) fn create(db: &Connection) -> Result<()> {
    db.execute_batch(TABLES)?;
    meta::set(db, "layout", LAYOUT)
}

/// What makes the tables of each older version those of the next one, from version 1 on; and what makes them
/// look so where nothing may be written.
const STEPS: [[&str; 2]; 1] = [[
    "ALTER TABLE _pm_dangling ADD COLUMN told INTEGER NOT NULL DEFAULT 0",
    "CREATE TEMP VIEW _pm_dangling AS SELECT tid, key, 0 AS told FROM main._pm_dangling",
]];

/// Whether the database has them; brings those of an older version up to date, and refuses newer ones.
pub(crate) fn present(db: &Connection) -> Result<bool> {
    let found: Option<i64> =
        value::maybe(db, "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = '_pm_meta'", [])?;
    if found.is_none() {
        return Ok(false);
    }
    match meta::get::<i64>(db, "layout")? {
        Some(LAYOUT) => Ok(true),
        Some(version) if version > LAYOUT => Err(Error::NewerDatabase { version }),
        Some(version @ 1..) => {
            bring_up_to_date(db, version)?;
            Ok(true)
        }
        _ => Err(Error::damaged("`_pm_meta` has no layout version")),
    }
}

fn bring_up_to_date(db: &Connection, version: i64) -> Result<()> {
    let steps = |from: i64| STEPS.iter().skip(usize::try_from(from - 1).unwrap_or(0));
    if db.is_readonly(rusqlite::MAIN_DB)? {
        return Ok(steps(version).try_for_each(|[_, view]| db.execute_batch(view))?);
    }
    db.execute_batch("BEGIN IMMEDIATE")?;
    // Another process may have done it meanwhile.
    let version = meta::get(db, "layout")?.unwrap_or(version);
    steps(version).try_for_each(|[change, _]| db.execute_batch(change))?;
    meta::set(db, "layout", LAYOUT)?;
    Ok(db.execute_batch("COMMIT")?)
}
