//! Pruning: rows of an append table that a base has are deleted here, to make room.
//!
//! **Invariant.** A row is deleted only if a base that is not retired has acknowledged the frame that carries its last
//! content. The delete is this device's own affair: it is not captured and does not travel.
//!
//! What is not acknowledged is still in the log, so the rows to keep are those of the frames after the acknowledgement. But a
//! base can say less than before, as one that was set back does: where that is less than what is folded, nothing goes.

use packmule_core::model::Stream;

use crate::engine::capture::dirty::ChangeFlags;
use crate::engine::capture::groups::SealOptions;
use crate::engine::capture::{append, seal};
use crate::engine::error::{Error, Result};
use crate::engine::exchange::transaction;
use crate::engine::fleet::{devices, membership, peers, positions};
use crate::engine::log::frames;
use crate::engine::log::visit::{self, Part};
use crate::engine::merge::deferred;
use crate::engine::table::catalog;
use crate::engine::table::known::Table;
use crate::engine::table::replica::Replica;

/// So many rows are deleted between two looks at the room that is free.
const STEP: u64 = 500;

/// Which rows of a table a pruning leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Those that were sealed within so many milliseconds.
    Recent(u64),
    /// So many, the newest ones.
    Rows(u64),
    /// As many as can stay when so many bytes of the database file are to be free for new rows.
    Free(u64),
}

/// What a pruning did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct PruneReport {
    /// Rows that were deleted.
    pub rows: u64,
    /// Rows that are left in the table.
    pub rows_left: u64,
    /// Rows of the table that no base is known to have.
    pub unacknowledged: u64,
    /// The base whose acknowledgement counts; `None` if no base is known to have anything.
    pub base: Option<String>,
}

/// Deletes rows of an append table that a base has.
pub(crate) fn prune(replica: &mut Replica, name: &str, keep: Keep) -> Result<PruneReport> {
    transaction::transaction(replica, |e| {
        deferred::begin_deferring(e)?;
        seal::seal_here(e, SealOptions::default())?;
        prune_named(e, name, keep)
    })
}

/// Says what a pruning would do.
pub(crate) fn rehearse(replica: &mut Replica, name: &str, keep: Keep) -> Result<PruneReport> {
    transaction::rehearse(replica, |e| prune_named(e, name, keep))
}

fn prune_named(replica: &Replica, name: &str, keep: Keep) -> Result<PruneReport> {
    let table = catalog::tracked_table(replica, name)?;
    if !table.watches_gaps() {
        return Err(Error::Usage(format!(
            "only append tables are pruned (`track --mode per-device --append`), and `{name}` is none"
        ))
        .into());
    }
    prune_here(replica, &table, keep)
}

/// Prunes a table whose rows are sealed.
fn prune_here(replica: &Replica, table: &Table, keep: Keep) -> Result<PruneReport> {
    let mut report = PruneReport::default();
    let (base, acknowledged) = acknowledged(replica)?.unzip();
    report.base = base;
    // Which rows a base lacks of what is folded here (it was set back, or is new), no frame tells: all stay until it has them.
    let folded = membership::watermark(replica, replica.me, Stream::PerDevice)?;
    let Some(acknowledged) = acknowledged.filter(|acknowledged| *acknowledged >= folded) else {
        report.rows_left = rows_left(replica, table)?;
        report.unacknowledged = report.rows_left;
        return Ok(report);
    };
    report.unacknowledged = list_unacknowledged(replica, table, acknowledged)?;
    let bound = bound(replica, table, keep)?;
    // The triggers of the application run, as they do when it deletes a row itself.
    let triggers = rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER;
    replica.db.set_db_config(triggers, true)?;
    let deleted = delete_rows(replica, table, bound, keep);
    replica.db.set_db_config(triggers, false)?;
    report.rows = deleted?;
    if report.rows > 0 {
        append::record_filled(replica, table)?;
        append::forget_gaps(replica, table.tid)?;
        append::update_gaps(replica, table, table.high_water)?;
    }
    report.rows_left = rows_left(replica, table)?;
    catalog::reload_catalog(replica)?;
    Ok(report)
}

/// Returns the base that has acknowledged the most of this device's per-device stream, and up to where.
fn acknowledged(replica: &Replica) -> Result<Option<(String, u64)>> {
    if peers::is_rolled_back(replica)? {
        return Ok(None);
    }
    use rusqlite::OptionalExtension;
    let found: Option<(i64, u64)> = replica
        .db
        .query_row(
            "SELECT a.peer, a.seq FROM _pm_ack a JOIN _pm_device d ON d.n = a.peer
             WHERE d.base AND NOT d.retired AND d.trust IN (1, 2) AND a.dev = ?1 AND a.stream = ?2 AND a.seq > 0
             ORDER BY a.seq DESC, d.id LIMIT 1",
            (replica.me, Stream::PerDevice.number()),
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    found.map(|(peer, seq)| Ok((devices::device_label(replica, peer)?, seq))).transpose()
}

/// Lists the ids of the rows whose frames are not acknowledged. Returns how many.
fn list_unacknowledged(replica: &Replica, table: &Table, acknowledged: u64) -> Result<u64> {
    replica.db.execute_batch(
        "CREATE TEMP TABLE IF NOT EXISTS _pm_kept (id INTEGER PRIMARY KEY); DELETE FROM temp._pm_kept",
    )?;
    let last = positions::position(replica, replica.me, Stream::PerDevice)?.seq;
    let mut put = replica.db.prepare("INSERT OR IGNORE INTO temp._pm_kept (id) VALUES (?1)")?;
    for seq in acknowledged + 1..=last {
        let body = frames::frame_here(replica, replica.me, Stream::PerDevice, seq)?;
        visit::visit(replica, &frames::parse(&body)?, |part| {
            if let Part::Op(def, op) = part
                && def.tid == table.tid
                && let Some((_, packmule_core::model::Value::Int(id))) =
                    op.values(def.shape()).find(|(at, _)| def.key_flags[*at])
            {
                put.execute([id])?;
            }
            Ok(())
        })?;
    }
    Ok(replica.db.query_row("SELECT count(*) FROM temp._pm_kept", [], |row| row.get(0))?)
}

/// Returns the greatest id that may go.
fn bound(replica: &Replica, table: &Table, keep: Keep) -> Result<Option<i64>> {
    let id = table.def.key_list("");
    Ok(match keep {
        Keep::Recent(age) => replica.db.query_row(
            "SELECT max(mark) FROM _pm_reached WHERE tid = ?1 AND wall <= ?2",
            (table.tid, replica.now().saturating_sub_unsigned(age)),
            |row| row.get(0),
        )?,
        Keep::Rows(rows) => replica.db.query_row(
            &format!(
                "SELECT max({id}) FROM (SELECT {id} FROM {} ORDER BY {id} DESC LIMIT -1 OFFSET ?1)",
                table.sql_name
            ),
            [i64::try_from(rows).unwrap_or(i64::MAX)],
            |row| row.get(0),
        )?,
        Keep::Free(_) => Some(i64::MAX),
    })
}

/// Deletes the oldest rows up to a bound. Returns how many.
fn delete_rows(replica: &Replica, table: &Table, bound: Option<i64>, keep: Keep) -> Result<u64> {
    let Some(bound) = bound else { return Ok(0) };
    replica.db.execute_batch("CREATE TEMP TABLE IF NOT EXISTS _pm_pruned (id INTEGER PRIMARY KEY)")?;
    let id = table.def.key_list("");
    let list = format!(
        "INSERT INTO temp._pm_pruned (id) SELECT {id} FROM {} WHERE {id} > ?1 AND {id} <= ?2
         AND {id} NOT IN (SELECT id FROM temp._pm_kept) ORDER BY {id} LIMIT ?3",
        table.sql_name
    );
    let delete = format!("DELETE FROM {} WHERE {id} IN (SELECT id FROM temp._pm_pruned)", table.sql_name);
    let (mut deleted, mut last) = (0, i64::MIN);
    loop {
        replica.db.execute_batch("DELETE FROM temp._pm_pruned")?;
        let enough = match keep {
            Keep::Free(bytes) => free_bytes(replica)? >= bytes,
            _ => false,
        };
        if enough || replica.db.execute(&list, (last, bound, STEP as i64))? == 0 {
            record_put_back(replica, table, last)?;
            return Ok(deleted);
        }
        last = replica.db.query_row("SELECT max(id) FROM temp._pm_pruned", [], |row| row.get(0))?;
        deleted += replica.db.execute(&delete, [])? as u64;
        // Only of these rows: what triggers of the application did to others meanwhile is sealed like all that it writes.
        let entries = format!("DELETE FROM {} WHERE k1 IN (SELECT id FROM temp._pm_pruned)", table.dirty());
        replica.db.execute(&entries, [])?;
    }
}

/// Records the rows up to this id that triggers of the application put back while others were pruned.
fn record_put_back(replica: &Replica, table: &Table, last: i64) -> Result<()> {
    let id = table.def.key_list("");
    let sql = format!(
        "INSERT INTO {} (k1, note) SELECT {id}, {} FROM {} WHERE {id} <= ?1 AND {id} NOT IN (SELECT id FROM temp._pm_kept)",
        table.dirty(),
        ChangeFlags::INSERT,
        table.sql_name
    );
    replica.db.execute(&sql, [last])?;
    Ok(())
}

/// Returns how many bytes of the database file are free for new rows.
fn free_bytes(replica: &Replica) -> Result<u64> {
    let pragma = |name: &str| -> Result<u64> {
        Ok(replica.db.query_row(&format!("PRAGMA main.{name}"), [], |row| row.get(0))?)
    };
    Ok(pragma("freelist_count")? * pragma("page_size")?)
}

fn rows_left(replica: &Replica, table: &Table) -> Result<u64> {
    Ok(replica.db.query_row(&format!("SELECT count(*) FROM {}", table.sql_name), [], |row| row.get(0))?)
}
