//! The constraint resolution pass: works off the deferred queue, the rows that cannot simply be written because they
//! are contested or because a constraint may keep them out.
//!
//! **Invariant.** At the end of every group, of the rows of a table whose winner is no delete exactly those are shown
//! that a greedy pass in the order of (claim, key) would show: each row in turn, unless it conflicts by a UNIQUE with
//! one that is shown already. Every other row is quarantined with all its values, and with the blocking row that
//! keeps it out. So which rows are shown is a function of the winners and their claims alone, never of arrival.
//!
//! **Why one pass is enough.** Whether a row is shown depends only on rows of earlier claims. The queue is taken in
//! the order of claims. A row that gets in can evict only rows of later claims, and they go back into the queue
//! behind it. A row that changes or leaves can let in only rows that it kept out, and these have later claims too. So
//! the pass never has to go back, and it ends. A quarantined row that is not in the queue stays rightly where it is:
//! its blocking row is shown, unchanged, and has an earlier claim. When the blocking row changes, `before_change` puts
//! the quarantined one into the queue.
//!
//! SQLite itself says what conflicts: the row is inserted with REPLACE under a savepoint, and a TEMP trigger records
//! which rows that removed. So partial indexes and indexes over expressions count like any other.
//!
//! A NOT NULL or CHECK is this database's own. A row that breaks one is quarantined without a blocking row, and tried
//! again only when its versions or its table change.

use std::cmp::Ordering;

use packmule_core::merge::claim_order;
use rusqlite::OptionalExtension;

use crate::engine::error::{Error, Result};
use crate::engine::merge::heads;
use crate::engine::merge::{compose, deferred, versions};
use crate::engine::show::{quarantine, references, triggers, write};
use crate::engine::store::{connection, value};
use crate::engine::table::catalog;
use crate::engine::table::known::Table;
use crate::engine::table::replica::Replica;
use crate::engine::table::trial;

/// Prepares for the change of a row: the rows that it keeps out go into the deferred queue, and the values by which
/// others refer to it are recorded.
///
/// Returns false if others may refer to it, and it is not there.
pub(crate) fn before_change(replica: &Replica, table: &Table, key: &[u8]) -> Result<bool> {
    if table.unique && replica.quarantined.get() {
        replica
            .db
            .prepare_cached(
                "INSERT OR REPLACE INTO temp._pm_put_off (tid, key, claim)
                 SELECT tid, key, NULL FROM _pm_parked WHERE tid = ?1 AND blocker = ?2",
            )?
            .execute((table.tid, key))?;
    }
    if table.is_parent { references::record_left(replica, table, key) } else { Ok(true) }
}

/// Records that a row is shown as it should be: it is not quarantined any more, and its references are checked at
/// the end of the group.
pub(crate) fn after_shown(replica: &Replica, table: &Table, key: &[u8]) -> Result<()> {
    if replica.quarantined.get() {
        replica
            .db
            .prepare_cached("DELETE FROM _pm_parked WHERE tid = ?1 AND key = ?2")?
            .execute((table.tid, key))?;
    }
    if table.def.foreign_keys.is_empty() { Ok(()) } else { references::to_check(replica, table.tid, key) }
}

/// Works off the deferred queue, then looks for orphans.
pub(crate) fn resolve_constraints(replica: &Replica) -> Result<()> {
    let mut evictions = Vec::new();
    loop {
        while let Some((tid, key)) = replica
            .db
            .prepare_cached("SELECT tid, key FROM temp._pm_put_off WHERE claim IS NULL LIMIT 1")?
            .query_row([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?)))
            .optional()?
        {
            judge_deferred(replica, tid, &key)?;
        }
        let next = replica
            .db
            .prepare_cached("SELECT tid, key FROM temp._pm_put_off ORDER BY claim, key, tid LIMIT 1")?
            .query_row([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?)))
            .optional()?;
        let Some((tid, key)) = next else { break };
        deferred::undefer(replica, tid, &key)?;
        show_or_quarantine(replica, tid, &key, &mut evictions)?;
    }
    for tid in evictions {
        replica.db.execute_batch(&format!(
            "DROP TRIGGER IF EXISTS temp._pm_evict_{tid}; DROP TABLE temp._pm_evicted_{tid}"
        ))?;
    }
    references::check_references(replica)
}

/// Composes a row of the queue from its versions, in the quarantine table, and finds out when it claimed its unique
/// values. One that its table shows just so stays there.
fn judge_deferred(replica: &Replica, tid: i64, key: &[u8]) -> Result<()> {
    let table = catalog::table(replica, tid)?;
    if !table.shows_shared() {
        return deferred::undefer(replica, tid, key);
    }
    let heads = heads::heads(replica, tid, key)?;
    let judgement = versions::judge_versions(replica, &table, &heads)?;
    let sql = if judgement.open {
        "INSERT OR IGNORE INTO _pm_conflict (tid, key) VALUES (?1, ?2)"
    } else {
        "DELETE FROM _pm_conflict WHERE tid = ?1 AND key = ?2"
    };
    replica.db.prepare_cached(sql)?.execute((tid, key))?;
    before_change(replica, &table, key)?;
    quarantine::copy_to_quarantine(replica, &table, key)?;
    replica.db.prepare_cached("DELETE FROM _pm_parked WHERE tid = ?1 AND key = ?2")?.execute((tid, key))?;
    if !heads.is_empty() && !judgement.present {
        write::delete_row(replica, &table, key)?;
        compose::delete_from(replica, &table.quarantine_table(), &table, key)?;
        return deferred::undefer(replica, tid, key);
    }
    compose::compose(replica, &table, key, &heads, &judgement)?;
    if compose::is_same_row(replica, &table, key)? {
        // Its table shows it already: it is not written, and no trigger runs. A row of an earlier claim that is
        // still in the queue evicts it.
        compose::delete_from(replica, &table.quarantine_table(), &table, key)?;
        after_shown(replica, &table, key)?;
        return deferred::undefer(replica, tid, key);
    }
    write::delete_row(replica, &table, key)?;
    replica
        .db
        .prepare_cached("UPDATE temp._pm_put_off SET claim = ?3 WHERE tid = ?1 AND key = ?2")?
        .execute((tid, key, versions::claim_of(&table, &heads)))?;
    Ok(())
}

/// Moves a row from the quarantine table into its table, unless a row of an earlier claim or another constraint keeps
/// it out: then records why.
fn show_or_quarantine(replica: &Replica, tid: i64, key: &[u8], evictions: &mut Vec<i64>) -> Result<()> {
    let table = catalog::table(replica, tid)?;
    let claim = versions::claim_of(&table, &heads::heads(replica, tid, key)?);
    let refused = match quarantine::move_from_quarantine(replica, &table, key, false) {
        Ok(()) => return after_shown(replica, &table, key),
        Err(e) => match *e {
            Error::Sqlite(e) if trial::is_refused(&e) && !replica.db.is_autocommit() => e,
            e => return Err(e.into()),
        },
    };
    use rusqlite::ffi::{SQLITE_CONSTRAINT_PRIMARYKEY, SQLITE_CONSTRAINT_ROWID, SQLITE_CONSTRAINT_UNIQUE};
    let unique = matches!(
        refused.sqlite_error().map(|e| e.extended_code),
        Some(SQLITE_CONSTRAINT_UNIQUE | SQLITE_CONSTRAINT_PRIMARYKEY | SQLITE_CONSTRAINT_ROWID)
    );
    let reason = refused.to_string();
    if !unique {
        return quarantine(replica, tid, key, &reason, None);
    }
    if !evictions.contains(&tid) {
        watch_evictions(replica, &table)?;
        evictions.push(tid);
    }
    replica.db.execute_batch(&format!("DELETE FROM temp._pm_evicted_{tid}; SAVEPOINT _pm_evict"))?;
    let replace = || {
        quarantine::move_from_quarantine(replica, &table, key, true)
            .and_then(|()| evicted(replica, &table, key))
    };
    let local = triggers::has_local_triggers(replica, &table)?;
    let evicted = if local { triggers::trying(replica, &table, replace) } else { replace() };
    let blocker = match &evicted {
        Err(_) => None,
        Ok(evicted) => {
            let earlier =
                |row: &&(u64, Vec<u8>)| claim_order((row.0, &row.1), (claim, key)) == Ordering::Less;
            evicted.iter().filter(earlier).min().map(|row| row.1.clone())
        }
    };
    if evicted.is_ok() && blocker.is_none() {
        replica.db.execute_batch("RELEASE _pm_evict")?;
        for (_, other) in evicted? {
            if local {
                // That was a trial without triggers. The application's triggers see what comes of it.
                quarantine::move_to_quarantine(replica, &table, &other)?;
            }
            if table.is_parent {
                // The row has left already: only its key still says by what others refer to it.
                references::record_deleted(replica, &table, &other)?;
                references::record_changed(replica, &table)?;
            }
            deferred::defer(replica, tid, &other)?;
        }
        if local {
            quarantine::move_from_quarantine(replica, &table, key, false)?;
        }
        return after_shown(replica, &table, key);
    }
    match evicted {
        Err(e) => match connection::undo(&replica.db, "_pm_evict", e)? {
            e if e.of_sqlite().is_some_and(trial::is_refused) => {
                quarantine(replica, tid, key, &e.to_string(), None)
            }
            e => Err(e),
        },
        Ok(_) => {
            replica.db.execute_batch("ROLLBACK TO _pm_evict; RELEASE _pm_evict")?;
            quarantine(replica, tid, key, &reason, blocker.as_deref())
        }
    }
}

/// Records that a row is quarantined, and by which blocking row if there is one.
fn quarantine(replica: &Replica, tid: i64, key: &[u8], reason: &str, blocker: Option<&[u8]>) -> Result<()> {
    replica.quarantined.set(true);
    replica
        .db
        .prepare_cached(
            "INSERT OR REPLACE INTO _pm_parked (tid, key, reason, blocker) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute((tid, key, reason, blocker))?;
    Ok(())
}

/// Makes a TEMP trigger, which runs although triggers are off: it records which rows a REPLACE removes, and keeps
/// them in the quarantine table.
fn watch_evictions(replica: &Replica, table: &Table) -> Result<()> {
    let tid = table.tid;
    let names: Vec<String> = (1..=table.def.keys().count()).map(|n| format!("k{n}")).collect();
    let old: Vec<String> =
        table.def.columns.iter().map(|c| format!("OLD.{}", value::quote(&c.name))).collect();
    replica.db.execute_batch(&format!(
        "CREATE TEMP TABLE _pm_evicted_{tid} ({names});
         CREATE TEMP TRIGGER _pm_evict_{tid} BEFORE DELETE ON main.{table} BEGIN
           INSERT INTO _pm_evicted_{tid} VALUES ({keys});
           INSERT OR REPLACE INTO {quarantine_table} ({columns}) VALUES ({old});
         END",
        names = names.join(", "),
        table = value::quote(&table.def.name),
        keys = table.def.key_list("OLD."),
        quarantine_table = table.quarantine_table(),
        columns = table.column_list(),
        old = old.join(", "),
    ))?;
    Ok(())
}

/// Returns the rows that a quarantined row would remove from its table, by any UNIQUE at all.
pub(crate) fn conflicting_rows(replica: &Replica, table: &Table, key: &[u8]) -> Result<Vec<Vec<u8>>> {
    let local = triggers::has_local_triggers(replica, table)?;
    // A CHECK may keep it out as well.
    replica.db.execute_batch("SAVEPOINT _pm_clashes; PRAGMA ignore_check_constraints = ON")?;
    let replace = || {
        quarantine::move_from_quarantine(replica, table, key, true)
            .and_then(|()| evicted(replica, table, key))
    };
    let tried = watch_evictions(replica, table);
    let tried =
        tried.and_then(|()| if local { triggers::trying(replica, table, replace) } else { replace() });
    replica.db.execute_batch("PRAGMA ignore_check_constraints = OFF")?;
    if tried.is_err() && replica.db.is_autocommit() {
        return tried.map(|_| Vec::new()); // The transaction is gone.
    }
    replica.db.execute_batch("ROLLBACK TO _pm_clashes; RELEASE _pm_clashes")?;
    match tried {
        Ok(rows) => Ok(rows.into_iter().map(|(_, key)| key).collect()),
        // It breaks a NOT NULL, which is this database's own, or is no INTEGER: with these values it removes nothing.
        Err(e) if e.of_sqlite().is_some_and(trial::is_refused) => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}

/// Returns claims and keys of the rows that a REPLACE removed, without the row itself.
fn evicted(replica: &Replica, table: &Table, own: &[u8]) -> Result<Vec<(u64, Vec<u8>)>> {
    let mut statement =
        replica.db.prepare_cached(&format!("SELECT * FROM temp._pm_evicted_{}", table.tid))?;
    let mut rows = statement.query([])?;
    let n = table.def.keys().count();
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let values =
            (0..n).map(|at| row.get_ref(at).map(value::from_sql)).collect::<rusqlite::Result<Vec<_>>>()?;
        let key = table.key_of(values.into_iter())?;
        if key != own {
            found.push((versions::claim_of(table, &heads::heads(replica, table.tid, &key)?), key));
        }
    }
    Ok(found)
}
