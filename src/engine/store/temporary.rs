//! The TEMP tables that every connection has.
//!
//! They are made when it is opened, before anything else is prepared: whatever changes the schema of TEMP tables makes SQLite
//! prepare all statements of the connection anew.

use rusqlite::Connection;

use crate::engine::error::Result;

/// The tables of the deferred queue (`merge/deferred.rs`).
pub(crate) const QUEUE: [&str; 3] = ["_pm_put_off", "_pm_to_check", "_pm_left"];

/// `_pm_put_off` is the queue; `claim` is NULL until the row has been judged. `_pm_to_check` and `_pm_left` are for
/// foreign keys: rows whose references are checked, and values that rows had by which others refer to them. `_pm_head_at` has
/// the frames that have versions (`log/frames.rs`). `_pm_entry` has the
/// entries of the schema by name (`table/entries.rs`), `_pm_key` the keys of lists (`key_list.rs`),
/// `_pm_state_context` what a state says that authors had seen (`exchange/take_state.rs`): as much as devices times devices.
const TABLES: &str = "
    CREATE TEMP TABLE _pm_put_off (tid INTEGER, key BLOB, claim INTEGER, PRIMARY KEY (tid, key)) WITHOUT ROWID;
    CREATE INDEX temp._pm_put_off_claim ON _pm_put_off (claim, key, tid);
    CREATE TEMP TABLE _pm_to_check (tid INTEGER, key BLOB, PRIMARY KEY (tid, key)) WITHOUT ROWID;
    CREATE TEMP TABLE _pm_left (tid INTEGER, foreign_key INTEGER, value BLOB,
        PRIMARY KEY (tid, foreign_key, value)) WITHOUT ROWID;
    CREATE TEMP TABLE _pm_head_at (dev INTEGER, seq INTEGER, PRIMARY KEY (dev, seq)) WITHOUT ROWID;
    CREATE TEMP TABLE _pm_entry (name TEXT COLLATE NOCASE, what TEXT, place INTEGER, kind TEXT, wr INTEGER, strict INTEGER,
        PRIMARY KEY (name, what)) WITHOUT ROWID;
    CREATE TEMP TABLE _pm_state_context (dev INTEGER, other INTEGER, seq INTEGER NOT NULL, PRIMARY KEY (dev, other)) WITHOUT ROWID;
    CREATE TEMP TABLE _pm_key (list INTEGER, key BLOB, PRIMARY KEY (list, key)) WITHOUT ROWID;
";

/// Makes them.
pub(crate) fn make(db: &Connection) -> Result<()> {
    Ok(db.execute_batch(TABLES)?)
}
