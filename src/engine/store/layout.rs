//! The `_pm_` tables: their layout, and its migrations.
//!
//! They use nothing that SQLite 3.34 does not have: applications write to the same database, with whatever library
//! they have.

use rusqlite::Connection;

use crate::engine::error::{Error, Result};
use crate::engine::store::{meta, value};

/// The version of the layout.
const LAYOUT: i64 = 3;

/// `dev` is a device's number in `_pm_device`, which means nothing in other databases; `stream` is 0 shared, 1 per-device.
/// Some names are older than the words that the code has now: they stay, since they are in databases.
const TABLES: &str = "
    CREATE TABLE _pm_meta (k TEXT PRIMARY KEY, v) WITHOUT ROWID;
    -- Number 0 stands for the author of every baseline version.
    -- retired: 1 it will not come back, 2 it goes on under a new identity; retired_by and retired_seq: in which frame of which device that is said, if it is in the log.
    -- trust: 0 only heard of, 1 trusted singly, 2 its certificate is signed by our fleet, 3 revoked.
    -- set_back: it is rolled back: it has lost frames of its own that are here, and its contexts do not count as acknowledged.
    CREATE TABLE _pm_device (n INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, public_key BLOB, name TEXT,
        base INTEGER NOT NULL DEFAULT 0, certificate BLOB, trust INTEGER NOT NULL DEFAULT 0, heard INTEGER,
        retired INTEGER NOT NULL DEFAULT 0, retired_by INTEGER, retired_seq INTEGER,
        set_back INTEGER NOT NULL DEFAULT 0);
    -- What is said about the revocation of a device. here: 1 if a person here revoked it. statement: the last one of the fleet's key.
    -- was: its trust before. vouched: up to where devices that are not revoked had seen its shared stream.
    -- forked: 1 if others have another history of it than is here, of which nothing can be taken in.
    CREATE TABLE _pm_revocation (dev INTEGER PRIMARY KEY, here INTEGER NOT NULL DEFAULT 0, statement BLOB,
        was INTEGER NOT NULL DEFAULT 0, vouched INTEGER NOT NULL DEFAULT 0, forked INTEGER NOT NULL DEFAULT 0);
    -- Up to where each stream is applied, and its hash chain there.
    CREATE TABLE _pm_stream (dev INTEGER, stream INTEGER, seq INTEGER NOT NULL, chain BLOB NOT NULL,
        PRIMARY KEY (dev, stream)) WITHOUT ROWID;
    CREATE TABLE _pm_frame (dev INTEGER, stream INTEGER, seq INTEGER, body BLOB NOT NULL,
        PRIMARY KEY (dev, stream, seq));
    -- applied: 0 while a dependency is missing. pair: the first frame of the group of the other stream in the same seal, or 0. chain: after its last frame.
    CREATE TABLE _pm_group (dev INTEGER, stream INTEGER, last INTEGER, first INTEGER NOT NULL, lamport INTEGER NOT NULL,
        wall INTEGER NOT NULL, pair INTEGER NOT NULL, applied INTEGER NOT NULL, checkpoint BLOB NOT NULL,
        chain BLOB NOT NULL,
        PRIMARY KEY (dev, stream, last)) WITHOUT ROWID;
    CREATE INDEX _pm_group_order ON _pm_group (lamport);
    CREATE INDEX _pm_group_waiting ON _pm_group (dev, stream, first) WHERE NOT applied;
    -- The context of an author's last applied group of each stream.
    CREATE TABLE _pm_context (dev INTEGER, stream INTEGER, other INTEGER, seq INTEGER NOT NULL,
        PRIMARY KEY (dev, stream, other)) WITHOUT ROWID;
    -- The small numbers by which an author's contexts name devices, as far as its stream is applied.
    CREATE TABLE _pm_number (dev INTEGER, stream INTEGER, number INTEGER, other INTEGER NOT NULL,
        PRIMARY KEY (dev, stream, number)) WITHOUT ROWID;
    -- The groups whose content cannot be applied here, by their first frame; tried: with which version and schema.
    CREATE TABLE _pm_aside (dev INTEGER, stream INTEGER, first INTEGER NOT NULL, reason TEXT NOT NULL, tried TEXT NOT NULL,
        PRIMARY KEY (dev, stream)) WITHOUT ROWID;
    -- What a peer has acknowledged, as it said last. tag: of the chain that it has there; NULL where what it said is not
    -- known word for word, so that nothing can be said by what differs from it.
    CREATE TABLE _pm_ack (peer INTEGER, dev INTEGER, stream INTEGER, seq INTEGER NOT NULL, tag BLOB,
        PRIMARY KEY (peer, dev, stream)) WITHOUT ROWID;
    -- What this device said itself that it has of the shared streams: n counts the vectors, digest names one; _pm_told has from
    -- which one on it said what of a stream.
    CREATE TABLE _pm_stated (digest BLOB PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE _pm_told (dev INTEGER, n INTEGER, seq INTEGER NOT NULL, tag BLOB NOT NULL, PRIMARY KEY (dev, n)) WITHOUT ROWID;
    -- The last statements of a peer of what it has, by the random number of each; n counts them.
    CREATE TABLE _pm_statement (peer INTEGER, number BLOB, n INTEGER NOT NULL, PRIMARY KEY (peer, number)) WITHOUT ROWID;
    -- Up to where each stream was stable at the last compaction: its watermark.
    CREATE TABLE _pm_floor (dev INTEGER, stream INTEGER, seq INTEGER NOT NULL, PRIMARY KEY (dev, stream)) WITHOUT ROWID;
    -- The values of baseline versions, of which no frame is left.
    CREATE TABLE _pm_image (tid INTEGER, key BLOB, body BLOB NOT NULL, PRIMARY KEY (tid, key)) WITHOUT ROWID;
    -- Rows of which a verdict is still to be written: values that were settled here when a write came whose author had not
    -- seen them; n: 0 none, else the baseline version of that number, with its columns if not all.
    CREATE TABLE _pm_unplaced (tid INTEGER, key BLOB, n INTEGER, body BLOB, PRIMARY KEY (tid, key, n)) WITHOUT ROWID;
    -- The newest checkpoint of a stream whose group is folded: the proof of up to where it goes.
    CREATE TABLE _pm_newest (dev INTEGER, stream INTEGER, last INTEGER NOT NULL, checkpoint BLOB NOT NULL,
        PRIMARY KEY (dev, stream)) WITHOUT ROWID;
    CREATE TABLE _pm_def (id BLOB PRIMARY KEY, tid INTEGER NOT NULL, body BLOB NOT NULL) WITHOUT ROWID;
    -- state: 0 known from other devices only, 1 tracked here, 2 gathered here from other devices, 3 no longer tracked here,
    -- 4 suspended: it was changed here in a way that does not travel. note: the reason of the state.
    -- appended: the high-water mark of an append table, by rowid. announced: its definition is in this device's log.
    -- gathers: the table of which it gathers the rows of other devices, if that is another one: this database has a table of
    -- its own under that name. Its own name here is one that no device can give to a table.
    CREATE TABLE _pm_table (tid INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE COLLATE NOCASE, def BLOB NOT NULL,
        state INTEGER NOT NULL, appended INTEGER NOT NULL DEFAULT 0, announced INTEGER NOT NULL DEFAULT 0, note TEXT, gathers INTEGER);
    -- The heads: versions of rows that no other version dominates. seq and place: the frame of their op, and its offset there.
    -- claim: the stamp of the write that gave the row its unique values. kind: 1 insert, 2 update, 3 delete.
    -- columns: the live ones, which no other version dominates, if not all.
    CREATE TABLE _pm_head (tid INTEGER, key BLOB, dev INTEGER, seq INTEGER, place INTEGER NOT NULL, claim INTEGER NOT NULL,
        wall INTEGER NOT NULL, kind INTEGER NOT NULL, columns BLOB, PRIMARY KEY (tid, key, dev, seq)) WITHOUT ROWID;
    -- Recent writes to counters: what was added, or (absolute) what an insert or delete left there.
    CREATE TABLE _pm_count (tid INTEGER, key BLOB, col INTEGER, dev INTEGER, seq INTEGER, absolute INTEGER NOT NULL,
        value INTEGER NOT NULL, PRIMARY KEY (tid, key, col, absolute, dev, seq)) WITHOUT ROWID;
    -- Rows with versions of different content.
    CREATE TABLE _pm_conflict (tid INTEGER, key BLOB, PRIMARY KEY (tid, key)) WITHOUT ROWID;
    -- Quarantined rows: a constraint of the table refuses their winner. blocker: the key of the blocking row.
    CREATE TABLE _pm_parked (tid INTEGER, key BLOB, reason TEXT NOT NULL, blocker BLOB, PRIMARY KEY (tid, key)) WITHOUT ROWID;
    CREATE INDEX _pm_parked_blocker ON _pm_parked (tid, blocker);
    -- Rows that may be orphans; whether they still are is looked up.
    -- told: the foreign keys, as bits, by which the row is attributed to its author: whoever deleted the parent had not seen it.
    CREATE TABLE _pm_dangling (tid INTEGER, key BLOB, told INTEGER NOT NULL, PRIMARY KEY (tid, key)) WITHOUT ROWID;
    -- Rows of suspended tables of which versions of other devices have come since.
    CREATE TABLE _pm_held (tid INTEGER, key BLOB, PRIMARY KEY (tid, key)) WITHOUT ROWID;
    -- What devices declared of shared tables; past: the declaration is superseded.
    -- what: 0 how the table merges, 1 what a column is, 2 what is done about concurrent writes to it, 3 a UNIQUE.
    CREATE TABLE _pm_declared (tid INTEGER, what INTEGER, name TEXT, dev INTEGER, seq INTEGER, lamport INTEGER NOT NULL,
        value BLOB NOT NULL, past INTEGER NOT NULL, def BLOB NOT NULL, PRIMARY KEY (tid, what, name, dev, seq)) WITHOUT ROWID;
    -- Notices for people, which status shows.
    CREATE TABLE _pm_notice (what TEXT PRIMARY KEY, wall INTEGER NOT NULL, count INTEGER NOT NULL) WITHOUT ROWID;
";

/// Makes the `_pm_` tables.
pub(crate) fn create(db: &Connection) -> Result<()> {
    db.execute_batch(TABLES)?;
    meta::set(db, "layout", LAYOUT)
}

/// The migrations, from version 1 on: the statement that makes the tables of a version those of the next one, and a
/// view that makes them look so where nothing may be written.
const MIGRATIONS: [[&str; 2]; 2] = [
    [
        "ALTER TABLE _pm_dangling ADD COLUMN told INTEGER NOT NULL DEFAULT 0",
        "CREATE TEMP VIEW _pm_dangling AS SELECT tid, key, 0 AS told FROM main._pm_dangling",
    ],
    [
        // What a revocation covers is looked up again when the next one comes; until then it was said here.
        "ALTER TABLE _pm_table ADD COLUMN gathers INTEGER;
         CREATE TABLE _pm_statement (peer INTEGER, number BLOB, n INTEGER NOT NULL, PRIMARY KEY (peer, number)) WITHOUT ROWID;
         CREATE TABLE _pm_number (dev INTEGER, stream INTEGER, number INTEGER, other INTEGER NOT NULL,
            PRIMARY KEY (dev, stream, number)) WITHOUT ROWID;
         ALTER TABLE _pm_ack ADD COLUMN tag BLOB;
         CREATE TABLE _pm_aside (dev INTEGER, stream INTEGER, first INTEGER NOT NULL, reason TEXT NOT NULL, tried TEXT NOT NULL,
            PRIMARY KEY (dev, stream)) WITHOUT ROWID;
         CREATE TABLE _pm_stated (digest BLOB PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID;
         CREATE TABLE _pm_told (dev INTEGER, n INTEGER, seq INTEGER NOT NULL, tag BLOB NOT NULL, PRIMARY KEY (dev, n)) WITHOUT ROWID;
         CREATE TABLE _pm_unplaced (tid INTEGER, key BLOB, n INTEGER, body BLOB, PRIMARY KEY (tid, key, n)) WITHOUT ROWID;
         CREATE TABLE _pm_newest (dev INTEGER, stream INTEGER, last INTEGER NOT NULL, checkpoint BLOB NOT NULL,
            PRIMARY KEY (dev, stream)) WITHOUT ROWID;
         CREATE TABLE _pm_revocation (dev INTEGER PRIMARY KEY, here INTEGER NOT NULL DEFAULT 0, statement BLOB,
            was INTEGER NOT NULL DEFAULT 0, vouched INTEGER NOT NULL DEFAULT 0, forked INTEGER NOT NULL DEFAULT 0);
         INSERT INTO _pm_revocation (dev, here, was) SELECT n, 1, 1 FROM _pm_device WHERE trust = 3;",
        "CREATE TEMP VIEW _pm_table AS SELECT *, NULL AS gathers FROM main._pm_table;
         CREATE TEMP VIEW _pm_statement AS SELECT NULL AS peer, NULL AS number, NULL AS n WHERE 0;
         CREATE TEMP VIEW _pm_number AS SELECT 0 AS dev, 0 AS stream, 0 AS number, 0 AS other WHERE 0;
         CREATE TEMP VIEW _pm_aside AS SELECT NULL AS dev, NULL AS stream, NULL AS first, NULL AS reason, NULL AS tried WHERE 0;
         CREATE TEMP VIEW _pm_ack AS SELECT *, NULL AS tag FROM main._pm_ack;
         CREATE TEMP VIEW _pm_stated AS SELECT NULL AS digest, NULL AS n WHERE 0;
         CREATE TEMP VIEW _pm_told AS SELECT NULL AS dev, NULL AS n, NULL AS seq, NULL AS tag WHERE 0;
         CREATE TEMP VIEW _pm_unplaced AS SELECT NULL AS tid, NULL AS key, NULL AS n, NULL AS body WHERE 0;
         CREATE TEMP VIEW _pm_newest AS SELECT NULL AS dev, NULL AS stream, NULL AS last, NULL AS checkpoint WHERE 0;
         CREATE TEMP VIEW _pm_revocation AS
         SELECT n AS dev, 1 AS here, NULL AS statement, 1 AS was, 0 AS vouched, 0 AS forked FROM main._pm_device WHERE trust = 3",
    ],
];

/// Returns whether the database has the tables. Those of an older version are migrated.
///
/// # Errors
/// [`Error::NewerDatabase`] if their version is newer than ours.
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
            migrate(db, version)?;
            Ok(true)
        }
        _ => Err(Error::damaged("`_pm_meta` has no layout version")),
    }
}

/// Migrates the tables in one transaction; where nothing may be written, views stand before them.
fn migrate(db: &Connection, version: i64) -> Result<()> {
    let steps = |from: i64| MIGRATIONS.iter().skip(usize::try_from(from - 1).unwrap_or(0));
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
