//! The `_pm_` tables: their layout, and its migrations.
//!
//! They use nothing that SQLite 3.34 does not have: applications write to the same database, with whatever library
//! they have.

use rusqlite::Connection;

use crate::engine::error::{Error, Result};
use crate::engine::store::{meta, value};

/// So many rows a stretch of heads has at most: each is an op of one frame, of a byte or more.
pub(crate) const ROWS_MAX: i64 = packmule_core::wire::FRAME_MAX as i64;

/// The version of the layout.
const LAYOUT: i64 = 5;

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
    -- Frames that a peer has sent in a session, of a group whose checkpoint has not come: known to that peer alone.
    CREATE TABLE _pm_staged (peer INTEGER, dev INTEGER, stream INTEGER, seq INTEGER, body BLOB NOT NULL,
        PRIMARY KEY (peer, dev, stream, seq));
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
    -- What an incarnation of a peer said last that it has, as long as it lacks frames of its own log; number: of that statement.
    CREATE TABLE _pm_copy (peer INTEGER, incarnation BLOB, dev INTEGER, stream INTEGER, seq INTEGER NOT NULL,
        number BLOB NOT NULL, PRIMARY KEY (peer, incarnation, dev, stream)) WITHOUT ROWID;
    -- Up to where each stream was stable at the last compaction: its watermark.
    CREATE TABLE _pm_floor (dev INTEGER, stream INTEGER, seq INTEGER NOT NULL, PRIMARY KEY (dev, stream)) WITHOUT ROWID;
    -- What the watermarks of shared streams are after each kept fold n, as far as it raised them; the first n is what was
    -- before the oldest kept fold. dev 0: about how many bytes the list of the fold takes; -1: the lists have all deletes.
    CREATE TABLE _pm_fold (n INTEGER, dev INTEGER, seq INTEGER NOT NULL, PRIMARY KEY (n, dev)) WITHOUT ROWID;
    -- The rows that the kept folds settled, each with the newest that did. gone: it was deleted.
    CREATE TABLE _pm_folded (tid INTEGER, key BLOB, n INTEGER NOT NULL, gone INTEGER NOT NULL, PRIMARY KEY (tid, key)) WITHOUT ROWID;
    -- Sums of runs of settled rows: the first run of each table; its further ones are in `_pm_runs_N`. sum: NULL if unknown.
    -- columns: how many columns are summed. split: whether there are further ones. seq: of a per-device table, the last frame
    -- of this device whose rows are summed; _pm_summed has it of shared tables, up to the last compaction.
    CREATE TABLE _pm_run (tid INTEGER PRIMARY KEY, sum INTEGER, columns INTEGER NOT NULL, seq INTEGER NOT NULL,
        split INTEGER NOT NULL);
    CREATE TABLE _pm_summed (dev INTEGER PRIMARY KEY, seq INTEGER NOT NULL);
    -- Devices of which another history was given up here: from frame first to last, frames of this history say that they had
    -- seen what they had not, but frames of the other with these numbers.
    CREATE TABLE _pm_fork (dev INTEGER PRIMARY KEY, first INTEGER NOT NULL, last INTEGER NOT NULL);
    -- The values of baseline versions, of which no frame is left.
    CREATE TABLE _pm_image (tid INTEGER, key BLOB, body BLOB NOT NULL, PRIMARY KEY (tid, key)) WITHOUT ROWID;
    -- Rows of which a verdict is still to be written: values that were settled here when a write came whose author had not
    -- seen them; n: 0 none, else the baseline version of that number, with its columns if not all; none of a row that was deleted.
    CREATE TABLE _pm_unplaced (tid INTEGER, key BLOB, n INTEGER, body BLOB, PRIMARY KEY (tid, key, n)) WITHOUT ROWID;
    -- The newest checkpoint of a stream whose group is folded: the proof of up to where it goes.
    CREATE TABLE _pm_newest (dev INTEGER, stream INTEGER, last INTEGER NOT NULL, checkpoint BLOB NOT NULL,
        PRIMARY KEY (dev, stream)) WITHOUT ROWID;
    -- The first bytes of a stream's chain after groups that are folded: by them a device that was set back is told from a
    -- second history. first: the group's first frame, or that of last where the group is not known.
    CREATE TABLE _pm_tag (dev INTEGER, stream INTEGER, last INTEGER, first INTEGER NOT NULL, tag BLOB NOT NULL,
        PRIMARY KEY (dev, stream, last)) WITHOUT ROWID;
    -- Keys of rows that a device deleted from its per-device tables in frames that are folded here, or that a base goes over: in
    -- which frame. The oldest by rowid are forgotten.
    CREATE TABLE _pm_gone (dev INTEGER, tid INTEGER, key BLOB, seq INTEGER NOT NULL, PRIMARY KEY (dev, tid, key));
    -- told: a log has it.
    CREATE TABLE _pm_def (id BLOB PRIMARY KEY, tid INTEGER NOT NULL, body BLOB NOT NULL, told INTEGER NOT NULL DEFAULT 1)
        WITHOUT ROWID;
    CREATE INDEX _pm_def_table ON _pm_def (tid);
    -- state: 0 known from other devices only, 1 tracked here, 2 gathered here from other devices, 3 no longer tracked here,
    -- 4 suspended: it was changed here in a way that does not travel. note: the reason of the state.
    -- appended: the high-water mark of an append table, by rowid. announced: its definition is in this device's log.
    -- gathers: the table of which it gathers the rows of other devices, if that is another one: this database has a table of
    -- its own under that name. Its own name here is one that no device can give to a table.
    -- deletes: 1 if an append table carries deletes. gaps: 1 if `_pm_gap` has the free ids up to the mark.
    -- root: of a table that is not the first of its name, which has another primary key: that one. One of them stands under the
    -- name here; the others have a name of ours, and what comes for them waits.
    CREATE TABLE _pm_table (tid INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE COLLATE NOCASE, def BLOB NOT NULL,
        state INTEGER NOT NULL, appended INTEGER NOT NULL DEFAULT 0, announced INTEGER NOT NULL DEFAULT 0, note TEXT, gathers INTEGER,
        deletes INTEGER NOT NULL DEFAULT 0, gaps INTEGER NOT NULL DEFAULT 0, root INTEGER);
    -- The marks of tables whose new rows no trigger records: the highest rowid before them.
    CREATE TABLE _pm_mark (tid INTEGER PRIMARY KEY, mark INTEGER NOT NULL);
    -- Of append tables, the ranges of ids up to the mark that no row has; and when which mark was reached.
    CREATE TABLE _pm_gap (tid INTEGER, first INTEGER, last INTEGER NOT NULL, PRIMARY KEY (tid, first)) WITHOUT ROWID;
    CREATE TABLE _pm_reached (tid INTEGER, mark INTEGER, wall INTEGER NOT NULL, PRIMARY KEY (tid, mark)) WITHOUT ROWID;
    -- The heads: versions of rows that no other version dominates. seq and place: the frame of their op, and its offset there,
    -- or 4294967295 where the op is found by the key.
    -- claim: the stamp of the write that gave the row its unique values. kind: 1 insert, 2 update, 3 delete.
    -- columns: the live ones, which no other version dominates, if not all.
    CREATE TABLE _pm_head (tid INTEGER, key BLOB, dev INTEGER, seq INTEGER, place INTEGER NOT NULL, claim INTEGER NOT NULL,
        wall INTEGER NOT NULL, kind INTEGER NOT NULL, columns BLOB, PRIMARY KEY (tid, key, dev, seq)) WITHOUT ROWID;
    -- Stretches of heads: of each row whose key is one INTEGER from first to last, the one head, which is an op of this frame. The
    -- row has none in _pm_head then. Stretches of a table have no row in common.
    CREATE TABLE _pm_stretch (tid INTEGER, last INTEGER, first INTEGER NOT NULL, dev INTEGER NOT NULL, seq INTEGER NOT NULL,
        claim INTEGER NOT NULL, wall INTEGER NOT NULL, kind INTEGER NOT NULL, PRIMARY KEY (tid, last)) WITHOUT ROWID;
    -- Recent writes to counters: what was added, or (absolute) what was left there, 2 if restated; of device 0 what the
    -- counter was before any of them. lamport: of their group.
    CREATE TABLE _pm_count (tid INTEGER, key BLOB, col INTEGER, dev INTEGER, seq INTEGER, absolute INTEGER NOT NULL,
        value, lamport INTEGER NOT NULL, PRIMARY KEY (tid, key, col, absolute, dev, seq)) WITHOUT ROWID;
    -- Rows with versions of different content.
    CREATE TABLE _pm_conflict (tid INTEGER, key BLOB, PRIMARY KEY (tid, key)) WITHOUT ROWID;
    -- Quarantined rows: a constraint of the table refuses their winner. blocker: the key of the blocking row.
    CREATE TABLE _pm_parked (tid INTEGER, key BLOB, reason TEXT NOT NULL, blocker BLOB, PRIMARY KEY (tid, key)) WITHOUT ROWID;
    CREATE INDEX _pm_parked_blocker ON _pm_parked (tid, blocker);
    -- Rows that may be orphans; whether they still are is looked up.
    CREATE TABLE _pm_dangling (tid INTEGER, key BLOB, PRIMARY KEY (tid, key)) WITHOUT ROWID;
    -- Rows of suspended tables of which versions of other devices have come since.
    CREATE TABLE _pm_held (tid INTEGER, key BLOB, PRIMARY KEY (tid, key)) WITHOUT ROWID;
    -- Up to where the stream of each device was applied when a table was suspended.
    CREATE TABLE _pm_suspended (tid INTEGER, dev INTEGER, seq INTEGER NOT NULL, PRIMARY KEY (tid, dev)) WITHOUT ROWID;
    -- What devices declared of shared tables; past: the declaration is superseded.
    -- what: 0 how the table merges, 1 what a column is, 2 what is done about concurrent writes to it, 3 a UNIQUE,
    -- 4 what the table is on the device, as it announced it last.
    CREATE TABLE _pm_declared (tid INTEGER, what INTEGER, name TEXT, dev INTEGER, seq INTEGER, lamport INTEGER NOT NULL,
        value BLOB NOT NULL, past INTEGER NOT NULL, def BLOB NOT NULL, PRIMARY KEY (tid, what, name, dev, seq)) WITHOUT ROWID;
    CREATE INDEX _pm_declared_standing ON _pm_declared (tid, what, past, name, value);
    -- By which way stretches of groups came here (a number of `Route`), and when: for people. The oldest by n are forgotten.
    CREATE TABLE _pm_route (n INTEGER PRIMARY KEY, dev INTEGER NOT NULL, stream INTEGER NOT NULL, first INTEGER NOT NULL,
        last INTEGER NOT NULL, route INTEGER NOT NULL, heard INTEGER NOT NULL, UNIQUE (dev, stream, last));
    -- Notices for people, which status shows.
    CREATE TABLE _pm_notice (what TEXT PRIMARY KEY, wall INTEGER NOT NULL, count INTEGER NOT NULL) WITHOUT ROWID;
    -- What sessions with a peer have carried over a kind of link, for people: when both were last in step, how many there were, bytes,
    -- the last rate in bytes a second, what a serial line has corrected and lost. It decides nothing.
    CREATE TABLE _pm_link (peer INTEGER, link TEXT, in_step INTEGER, sessions INTEGER NOT NULL, sent INTEGER NOT NULL,
        received INTEGER NOT NULL, goodput INTEGER NOT NULL, corrected INTEGER NOT NULL, lost INTEGER NOT NULL,
        PRIMARY KEY (peer, link)) WITHOUT ROWID;
    -- The open conflicts, as the view `packmule_conflicts` shows them. what: which of our lists the row is in, or the disputed
    -- column, where the key is empty. about, versions, ways and the key's text are JSON. beside: the key of the row that has the
    -- same UNIQUE value.
    CREATE TABLE _pm_listed (tid INTEGER NOT NULL, key BLOB NOT NULL, what TEXT NOT NULL, id TEXT NOT NULL, tbl_name TEXT NOT NULL,
        key_text TEXT NOT NULL, kind TEXT NOT NULL, about TEXT NOT NULL, versions TEXT NOT NULL, ways TEXT NOT NULL, beside BLOB,
        UNIQUE (tid, key, what));
    CREATE INDEX _pm_listed_id ON _pm_listed (id);
    -- What applications decided about conflicts in SQL, and was not carried out yet; refused: why it could not be.
    -- programs: 1 if a program decided so: it is not asked again.
    CREATE TABLE _pm_wish (n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, take TEXT, decision TEXT, refused TEXT,
            programs INTEGER NOT NULL DEFAULT 0);
";

/// Makes what is there of the `_pm_` tables for this connection alone: the view `_pm_any_head`, all heads of all tables.
pub(crate) fn make_views(db: &Connection) -> Result<()> {
    Ok(db.execute_batch(&format!("CREATE TEMP VIEW IF NOT EXISTS _pm_any_head AS {}", all_heads("")))?)
}

/// Returns a query of all heads, also those in stretches, for reading many; `only` is nothing, or a WHERE of one table.
pub(crate) fn all_heads(only: &str) -> String {
    format!(
        "SELECT tid, key, dev, seq, place, claim, wall, kind, columns FROM _pm_head {only} UNION ALL {}",
        heads_in_stretches(only)
    )
}

/// Returns a query of the heads in stretches, each by itself. SQLite looks at no condition outside of it before it has gone
/// through all of them. What is no stretch that a frame could have is left out, or this would not end: it is damage, of
/// which `verify` says what it lacks.
pub(crate) fn heads_in_stretches(only: &str) -> String {
    format!(
        "SELECT tid, _pm_key(k) AS key, dev, seq, 4294967295 AS place, claim, wall, kind, NULL AS columns FROM (
           WITH RECURSIVE row (tid, k, last, dev, seq, claim, wall, kind) AS (
             SELECT tid, first, last, dev, seq, claim, wall, kind FROM (SELECT * FROM _pm_stretch {only})
             WHERE typeof(first) = 'integer' AND typeof(last) = 'integer' AND last - first < {ROWS_MAX}
             UNION ALL SELECT tid, k + 1, last, dev, seq, claim, wall, kind FROM row WHERE k < last)
           SELECT tid, k, dev, seq, claim, wall, kind FROM row)"
    )
}

/// Makes the `_pm_` tables.
pub(crate) fn create(db: &Connection) -> Result<()> {
    db.execute_batch(TABLES)?;
    meta::set(db, "layout", LAYOUT)
}

/// The migrations, from version 1 on: the statement that makes the tables of a version those of the next one, and a
/// view that makes them look so where nothing may be written.
const MIGRATIONS: [[&str; 2]; 4] = [
    [
        "ALTER TABLE _pm_dangling ADD COLUMN told INTEGER NOT NULL DEFAULT 0",
        "",
    ],
    [
        // What a revocation covers is looked up again when the next one comes; until then it was said here.
        "ALTER TABLE _pm_table ADD COLUMN gathers INTEGER;
         CREATE TABLE _pm_statement (peer INTEGER, number BLOB, n INTEGER NOT NULL, PRIMARY KEY (peer, number)) WITHOUT ROWID;
         CREATE TABLE _pm_number (dev INTEGER, stream INTEGER, number INTEGER, other INTEGER NOT NULL,
            PRIMARY KEY (dev, stream, number)) WITHOUT ROWID;
         CREATE TABLE _pm_unplaced (tid INTEGER, key BLOB, n INTEGER, body BLOB, PRIMARY KEY (tid, key, n)) WITHOUT ROWID;
         CREATE TABLE _pm_newest (dev INTEGER, stream INTEGER, last INTEGER NOT NULL, checkpoint BLOB NOT NULL,
            PRIMARY KEY (dev, stream)) WITHOUT ROWID;
         CREATE TABLE _pm_revocation (dev INTEGER PRIMARY KEY, here INTEGER NOT NULL DEFAULT 0, statement BLOB,
            was INTEGER NOT NULL DEFAULT 0, vouched INTEGER NOT NULL DEFAULT 0, forked INTEGER NOT NULL DEFAULT 0);
         INSERT INTO _pm_revocation (dev, here, was) SELECT n, 1, 1 FROM _pm_device WHERE trust = 3;",
        "CREATE TEMP VIEW _pm_table AS SELECT *, NULL AS gathers, 0 AS deletes, 0 AS gaps, NULL AS root FROM main._pm_table;
         CREATE TEMP VIEW _pm_statement AS SELECT NULL AS peer, NULL AS number, NULL AS n WHERE 0;
         CREATE TEMP VIEW _pm_number AS SELECT 0 AS dev, 0 AS stream, 0 AS number, 0 AS other WHERE 0;
         CREATE TEMP VIEW _pm_unplaced AS SELECT NULL AS tid, NULL AS key, NULL AS n, NULL AS body WHERE 0;
         CREATE TEMP VIEW _pm_newest AS SELECT NULL AS dev, NULL AS stream, NULL AS last, NULL AS checkpoint WHERE 0;
         CREATE TEMP VIEW _pm_revocation AS
         SELECT n AS dev, 1 AS here, NULL AS statement, 1 AS was, 0 AS vouched, 0 AS forked FROM main._pm_device WHERE trust = 3",
    ],
    [
        "CREATE TABLE _pm_tag (dev INTEGER, stream INTEGER, last INTEGER, first INTEGER NOT NULL, tag BLOB NOT NULL,
            PRIMARY KEY (dev, stream, last)) WITHOUT ROWID;
         CREATE TABLE _pm_fold (n INTEGER, dev INTEGER, seq INTEGER NOT NULL, PRIMARY KEY (n, dev)) WITHOUT ROWID;
         CREATE TABLE _pm_folded (tid INTEGER, key BLOB, n INTEGER NOT NULL, gone INTEGER NOT NULL, PRIMARY KEY (tid, key)) WITHOUT ROWID;
         CREATE TABLE _pm_gone (dev INTEGER, tid INTEGER, key BLOB, seq INTEGER NOT NULL, PRIMARY KEY (dev, tid, key));
         ALTER TABLE _pm_count RENAME TO _pm_count_of_integers;
         CREATE TABLE _pm_count (tid INTEGER, key BLOB, col INTEGER, dev INTEGER, seq INTEGER, absolute INTEGER NOT NULL,
            value, lamport INTEGER NOT NULL, PRIMARY KEY (tid, key, col, absolute, dev, seq)) WITHOUT ROWID;
         INSERT INTO _pm_count SELECT tid, key, col, dev, seq, absolute, value, 0 FROM _pm_count_of_integers;
         DROP TABLE _pm_count_of_integers;
         ALTER TABLE _pm_table ADD COLUMN deletes INTEGER NOT NULL DEFAULT 0;
         ALTER TABLE _pm_table ADD COLUMN gaps INTEGER NOT NULL DEFAULT 0;
         CREATE TABLE _pm_gap (tid INTEGER, first INTEGER, last INTEGER NOT NULL, PRIMARY KEY (tid, first)) WITHOUT ROWID;
         CREATE TABLE _pm_reached (tid INTEGER, mark INTEGER, wall INTEGER NOT NULL, PRIMARY KEY (tid, mark)) WITHOUT ROWID;
         ALTER TABLE _pm_ack ADD COLUMN tag BLOB;
         CREATE TABLE _pm_aside (dev INTEGER, stream INTEGER, first INTEGER NOT NULL, reason TEXT NOT NULL, tried TEXT NOT NULL,
            PRIMARY KEY (dev, stream)) WITHOUT ROWID;
         CREATE TABLE _pm_stated (digest BLOB PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID;
         CREATE TABLE _pm_told (dev INTEGER, n INTEGER, seq INTEGER NOT NULL, tag BLOB NOT NULL, PRIMARY KEY (dev, n)) WITHOUT ROWID;",
        "CREATE TEMP VIEW _pm_tag AS SELECT NULL AS dev, NULL AS stream, NULL AS last, NULL AS first, NULL AS tag WHERE 0;
         CREATE TEMP VIEW _pm_fold AS SELECT 0 AS n, 0 AS dev, 0 AS seq WHERE 0;
         CREATE TEMP VIEW _pm_folded AS SELECT NULL AS tid, NULL AS key, NULL AS n, NULL AS gone WHERE 0;
         CREATE TEMP VIEW _pm_gone AS SELECT 0 AS dev, 0 AS tid, NULL AS key, 0 AS seq WHERE 0;
         CREATE TEMP VIEW _pm_count AS SELECT *, 0 AS lamport FROM main._pm_count;
         CREATE TEMP VIEW IF NOT EXISTS _pm_table AS SELECT *, 0 AS deletes, 0 AS gaps, NULL AS root FROM main._pm_table;
         CREATE TEMP VIEW _pm_gap AS SELECT 0 AS tid, 0 AS first, 0 AS last WHERE 0;
         CREATE TEMP VIEW _pm_reached AS SELECT 0 AS tid, 0 AS mark, 0 AS wall WHERE 0;
         CREATE TEMP VIEW _pm_aside AS SELECT NULL AS dev, NULL AS stream, NULL AS first, NULL AS reason, NULL AS tried WHERE 0;
         CREATE TEMP VIEW _pm_ack AS SELECT *, NULL AS tag FROM main._pm_ack;
         CREATE TEMP VIEW _pm_stated AS SELECT NULL AS digest, NULL AS n WHERE 0;
         CREATE TEMP VIEW _pm_told AS SELECT NULL AS dev, NULL AS n, NULL AS seq, NULL AS tag WHERE 0",
    ],
    [
        "CREATE TABLE _pm_staged (peer INTEGER, dev INTEGER, stream INTEGER, seq INTEGER, body BLOB NOT NULL,
            PRIMARY KEY (peer, dev, stream, seq));
         DELETE FROM _pm_frame WHERE NOT EXISTS (SELECT 1 FROM _pm_group g WHERE g.dev = _pm_frame.dev
            AND g.stream = _pm_frame.stream AND g.last >= _pm_frame.seq AND g.first <= _pm_frame.seq);
         CREATE TABLE _pm_run (tid INTEGER PRIMARY KEY, sum INTEGER, columns INTEGER NOT NULL, seq INTEGER NOT NULL,
            split INTEGER NOT NULL);
         CREATE TABLE _pm_copy (peer INTEGER, incarnation BLOB, dev INTEGER, stream INTEGER, seq INTEGER NOT NULL,
            number BLOB NOT NULL, PRIMARY KEY (peer, incarnation, dev, stream)) WITHOUT ROWID;
         CREATE TABLE _pm_summed (dev INTEGER PRIMARY KEY, seq INTEGER NOT NULL);
         CREATE TABLE _pm_mark (tid INTEGER PRIMARY KEY, mark INTEGER NOT NULL);
         CREATE TABLE _pm_fork (dev INTEGER PRIMARY KEY, first INTEGER NOT NULL, last INTEGER NOT NULL);
         CREATE TABLE _pm_stretch (tid INTEGER, last INTEGER, first INTEGER NOT NULL, dev INTEGER NOT NULL, seq INTEGER NOT NULL,
            claim INTEGER NOT NULL, wall INTEGER NOT NULL, kind INTEGER NOT NULL, PRIMARY KEY (tid, last)) WITHOUT ROWID;
         ALTER TABLE _pm_table ADD COLUMN root INTEGER;
         ALTER TABLE _pm_def ADD COLUMN told INTEGER NOT NULL DEFAULT 1;
         CREATE INDEX _pm_def_table ON _pm_def (tid);
         ALTER TABLE _pm_dangling DROP COLUMN told;
         CREATE TABLE _pm_suspended (tid INTEGER, dev INTEGER, seq INTEGER NOT NULL, PRIMARY KEY (tid, dev)) WITHOUT ROWID;
         CREATE TABLE _pm_link (peer INTEGER, link TEXT, in_step INTEGER, sessions INTEGER NOT NULL, sent INTEGER NOT NULL,
            received INTEGER NOT NULL, goodput INTEGER NOT NULL, corrected INTEGER NOT NULL, lost INTEGER NOT NULL,
            PRIMARY KEY (peer, link)) WITHOUT ROWID;
         CREATE TABLE _pm_listed (tid INTEGER NOT NULL, key BLOB NOT NULL, what TEXT NOT NULL, id TEXT NOT NULL, tbl_name TEXT NOT NULL,
            key_text TEXT NOT NULL, kind TEXT NOT NULL, about TEXT NOT NULL, versions TEXT NOT NULL, ways TEXT NOT NULL, beside BLOB,
            UNIQUE (tid, key, what));
         CREATE INDEX _pm_listed_id ON _pm_listed (id);
         CREATE TABLE _pm_wish (n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, take TEXT, decision TEXT, refused TEXT,
            programs INTEGER NOT NULL DEFAULT 0);
         CREATE TABLE _pm_route (n INTEGER PRIMARY KEY, dev INTEGER NOT NULL, stream INTEGER NOT NULL, first INTEGER NOT NULL,
            last INTEGER NOT NULL, route INTEGER NOT NULL, heard INTEGER NOT NULL, UNIQUE (dev, stream, last));
         CREATE INDEX _pm_declared_standing ON _pm_declared (tid, what, past, name, value);",
        "CREATE TEMP VIEW IF NOT EXISTS _pm_table AS SELECT *, NULL AS root FROM main._pm_table;
         CREATE TEMP VIEW _pm_def AS SELECT *, 1 AS told FROM main._pm_def;
         CREATE TEMP VIEW _pm_suspended AS SELECT 0 AS tid, 0 AS dev, 0 AS seq WHERE 0;
         CREATE TEMP VIEW _pm_link AS SELECT 0 AS peer, '' AS link, NULL AS in_step, 0 AS sessions, 0 AS sent, 0 AS received,
            0 AS goodput, 0 AS corrected, 0 AS lost WHERE 0;
         CREATE TEMP VIEW _pm_route AS SELECT 0 AS n, 0 AS dev, 0 AS stream, 0 AS first, 0 AS last, 0 AS route, 0 AS heard WHERE 0;
         CREATE TEMP VIEW _pm_mark AS SELECT 0 AS tid, 0 AS mark WHERE 0;
         CREATE TEMP VIEW _pm_staged AS SELECT 0 AS peer, 0 AS dev, 0 AS stream, 0 AS seq, NULL AS body WHERE 0;
         CREATE TEMP VIEW _pm_run AS SELECT 0 AS tid, 0 AS sum, 0 AS columns, 0 AS seq, 0 AS split WHERE 0;
         CREATE TEMP VIEW _pm_copy AS SELECT NULL AS peer, NULL AS incarnation, 0 AS dev, 0 AS stream, 0 AS seq, NULL AS number WHERE 0;
         CREATE TEMP VIEW _pm_summed AS SELECT 0 AS dev, 0 AS seq WHERE 0;
         CREATE TEMP VIEW _pm_fork AS SELECT 0 AS dev, 0 AS first, 0 AS last WHERE 0;
         CREATE TEMP VIEW _pm_stretch AS SELECT 0 AS tid, 0 AS last, 0 AS first, 0 AS dev, 0 AS seq, 0 AS claim, 0 AS wall,
            0 AS kind WHERE 0;
         CREATE TEMP VIEW _pm_listed AS SELECT 0 AS tid, NULL AS key, NULL AS what, NULL AS id WHERE 0;
         CREATE TEMP VIEW _pm_wish AS SELECT 0 AS n, NULL AS id, NULL AS take, NULL AS decision, NULL AS refused, 0 AS programs WHERE 0",
    ],
];

/// Refuses a database in which something that has a name of ours is not a plain table: a view or a generated column of a
/// strange file could go on for ever, or be of any size.
fn refuse_strange(db: &Connection) -> Result<()> {
    let ours = "name LIKE '\\_pm\\_%' ESCAPE '\\'";
    let strange = value::maybe::<String>(
        db,
        &format!(
            "SELECT name FROM main.sqlite_schema WHERE {ours} AND (type = 'view' OR type = 'table' AND rootpage = 0)"
        ),
        [],
    )?;
    let generated = match strange {
        Some(name) => Some(name),
        None => value::maybe(
            db,
            &format!(
                "SELECT name FROM main.sqlite_schema s WHERE {ours} AND type = 'table'
                 AND EXISTS (SELECT 1 FROM pragma_table_xinfo(s.name) WHERE hidden <> 0)"
            ),
            [],
        )?,
    };
    match generated {
        Some(name) => Err(Error::damaged(format!("`{}` is not a plain table", name.escape_debug()))),
        None => Ok(()),
    }
}

/// Returns whether the database has the tables. Those of an older version are migrated.
///
/// # Errors
/// [`Error::NewerDatabase`] if their version is newer than ours; [`Error::Damaged`] if something that has a name of ours
/// is not a plain table.
pub(crate) fn present(db: &Connection) -> Result<bool> {
    refuse_strange(db)?;
    let found: Option<i64> =
        value::maybe(db, "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = '_pm_meta'", [])?;
    if found.is_none() {
        return Ok(false);
    }
    match meta::get::<i64>(db, "layout")? {
        Some(LAYOUT) => Ok(true),
        Some(version) if version > LAYOUT => Err(Error::NewerDatabase { version }.into()),
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
