//! Rows that cannot simply be written: contested, or kept out by a constraint.
//!
//! Which rows are shown is a function of the winners alone. Of rows that claim one UNIQUE value the
//! one whose claim is earlier is shown (greedily in the order of `claim_order`, which makes the
//! lexicographically first set of rows that do not clash); the others are parked, each with a row
//! that keeps it out, and tried again when that row changes. Since whether a row is shown depends
//! on rows of earlier claims only, taking what is put off in the order of claims settles each once.

use std::cmp::Ordering;

use packmule_core::merge::claim_order;
use rusqlite::{ErrorCode, OptionalExtension};

use crate::engine::error::{Error, Result};
use crate::engine::merge::heads::{self, Cause};
use crate::engine::merge::{compose, deferred, versions};
use crate::engine::show::{limbo, references, triggers};
use crate::engine::store::value;
use crate::engine::table::catalog;
use crate::engine::table::known::Table;
use crate::engine::table::replica::Replica;

/// A row is about to change: those that it keeps out may come in, and it may leave others dangling.
/// Whether it is there, if others may refer to it.
pub(crate) fn before_change(replica: &Replica, table: &Table, key: &[u8]) -> Result<bool> {
    if table.unique && replica.parked.get() {
        replica
            .db
            .prepare_cached(
                "INSERT OR REPLACE INTO temp._pm_put_off (tid, key, claim)
                 SELECT tid, key, NULL FROM _pm_parked WHERE tid = ?1 AND blocker = ?2",
            )?
            .execute((table.tid, key))?;
    }
    if table.is_parent { references::note_left(replica, table, key) } else { Ok(true) }
}

/// A row is shown as it should be.
pub(crate) fn after_shown(replica: &Replica, table: &Table, key: &[u8]) -> Result<()> {
    if replica.parked.get() {
        replica
            .db
            .prepare_cached("DELETE FROM _pm_parked WHERE tid = ?1 AND key = ?2")?
            .execute((table.tid, key))?;
    }
    if table.def.foreign_keys.is_empty() {
        Ok(())
    } else {
        references::to_check(replica, table.tid, key, 0, 0)
    }
}

/// Settles what was put off, then looks for references that lead nowhere.
pub(crate) fn settle(replica: &Replica, cause: &Cause<'_>) -> Result<()> {
    let mut evictions = Vec::new();
    loop {
        while let Some((tid, key)) = replica
            .db
            .prepare_cached("SELECT tid, key FROM temp._pm_put_off WHERE claim IS NULL LIMIT 1")?
            .query_row([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?)))
            .optional()?
        {
            clear_for_settling(replica, tid, &key)?;
        }
        let next = replica
            .db
            .prepare_cached("SELECT tid, key FROM temp._pm_put_off ORDER BY claim, key, tid LIMIT 1")?
            .query_row([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?)))
            .optional()?;
        let Some((tid, key)) = next else { break };
        deferred::no_longer_put_off(replica, tid, &key)?;
        place(replica, tid, &key, &mut evictions)?;
    }
    for tid in evictions {
        replica.db.execute_batch(&format!(
            "DROP TRIGGER IF EXISTS temp._pm_evict_{tid}; DROP TABLE temp._pm_evicted_{tid}"
        ))?;
    }
    references::check_references(replica, cause)
}

/// Takes a row out of its table into limbo, makes it there what its versions say, and finds out
/// when it claimed its place.
fn clear_for_settling(replica: &Replica, tid: i64, key: &[u8]) -> Result<()> {
    let table = catalog::table(replica, tid)?;
    if !table.shows_shared() {
        return deferred::no_longer_put_off(replica, tid, key);
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
    limbo::move_to_limbo(replica, &table, key)?;
    replica.db.prepare_cached("DELETE FROM _pm_parked WHERE tid = ?1 AND key = ?2")?.execute((tid, key))?;
    if !heads.is_empty() && !judgement.present {
        compose::delete_from(replica, &table.limbo(), &table, key)?;
        return deferred::no_longer_put_off(replica, tid, key);
    }
    compose::compose(replica, &table, key, &heads, &judgement)?;
    replica
        .db
        .prepare_cached("UPDATE temp._pm_put_off SET claim = ?3 WHERE tid = ?1 AND key = ?2")?
        .execute((tid, key, versions::claim_of(&table, &heads)))?;
    Ok(())
}

/// Puts a row that is in limbo into its table, if no earlier claim keeps it out.
fn place(replica: &Replica, tid: i64, key: &[u8], evictions: &mut Vec<i64>) -> Result<()> {
    let table = catalog::table(replica, tid)?;
    let claim = versions::claim_of(&table, &heads::heads(replica, tid, key)?);
    let refused = match limbo::move_from_limbo(replica, &table, key, false) {
        Ok(()) => return after_shown(replica, &table, key),
        Err(Error::Sqlite(e)) if e.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => e,
        Err(e) => return Err(e),
    };
    use rusqlite::ffi::{SQLITE_CONSTRAINT_PRIMARYKEY, SQLITE_CONSTRAINT_ROWID, SQLITE_CONSTRAINT_UNIQUE};
    let unique = matches!(
        refused.sqlite_error().map(|e| e.extended_code),
        Some(SQLITE_CONSTRAINT_UNIQUE | SQLITE_CONSTRAINT_PRIMARYKEY | SQLITE_CONSTRAINT_ROWID)
    );
    let reason = refused.to_string();
    if !unique {
        return park(replica, tid, key, &reason, None);
    }
    if !evictions.contains(&tid) {
        watch_evictions(replica, &table)?;
        evictions.push(tid);
    }
    replica.db.execute_batch(&format!("DELETE FROM temp._pm_evicted_{tid}; SAVEPOINT _pm_evict"))?;
    let replace =
        || limbo::move_from_limbo(replica, &table, key, true).and_then(|()| evicted(replica, &table, key));
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
                // It was only tried. The application's triggers see what comes of it.
                limbo::move_to_limbo(replica, &table, &other)?;
            }
            if table.is_parent {
                references::note_deleted(replica, &table, &other, false)?; // It has left already.
                references::note_changed(replica, &table)?;
            }
            deferred::put_off(replica, tid, &other)?;
        }
        if local {
            limbo::move_from_limbo(replica, &table, key, false)?;
        }
        return after_shown(replica, &table, key);
    }
    replica.db.execute_batch("ROLLBACK TO _pm_evict; RELEASE _pm_evict")?;
    match evicted {
        Err(Error::Sqlite(e)) if e.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
            park(replica, tid, key, &e.to_string(), None)
        }
        Err(e) => Err(e),
        Ok(_) => park(replica, tid, key, &reason, blocker.as_deref()),
    }
}

fn park(replica: &Replica, tid: i64, key: &[u8], reason: &str, blocker: Option<&[u8]>) -> Result<()> {
    replica.parked.set(true);
    replica
        .db
        .prepare_cached(
            "INSERT OR REPLACE INTO _pm_parked (tid, key, reason, blocker) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute((tid, key, reason, blocker))?;
    Ok(())
}

/// A TEMP trigger, which runs although triggers are off, says which rows a REPLACE removes and
/// keeps them in limbo: so SQLite itself decides what clashes, also by indexes that are partial
/// or over expressions.
fn watch_evictions(replica: &Replica, table: &Table) -> Result<()> {
    let tid = table.tid;
    let names: Vec<String> = (1..=table.def.keys().count()).map(|n| format!("k{n}")).collect();
    let old: Vec<String> =
        table.def.columns.iter().map(|c| format!("OLD.{}", value::quote(&c.name))).collect();
    replica.db.execute_batch(&format!(
        "CREATE TEMP TABLE _pm_evicted_{tid} ({names});
         CREATE TEMP TRIGGER _pm_evict_{tid} BEFORE DELETE ON main.{table} BEGIN
           INSERT INTO _pm_evicted_{tid} VALUES ({keys});
           INSERT OR REPLACE INTO {limbo} ({columns}) VALUES ({old});
         END",
        names = names.join(", "),
        table = value::quote(&table.def.name),
        keys = table.def.key_list("OLD."),
        limbo = table.limbo(),
        columns = table.column_list(),
        old = old.join(", "),
    ))?;
    Ok(())
}

/// Writes a row by a REPLACE, and puts off the rows that it removes.
pub(crate) fn replacing(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    write: impl FnOnce() -> Result<()>,
) -> Result<()> {
    watch_evictions(replica, table)?;
    write()?;
    let evicted = evicted(replica, table, key)?;
    replica.db.execute_batch(&format!(
        "DROP TRIGGER temp._pm_evict_{0}; DROP TABLE temp._pm_evicted_{0}",
        table.tid
    ))?;
    evicted.iter().try_for_each(|(_, other)| deferred::put_off(replica, table.tid, other))
}

/// The rows that a row which is kept out would take the place of, by any UNIQUE at all.
pub(crate) fn clashes(replica: &Replica, table: &Table, key: &[u8]) -> Result<Vec<Vec<u8>>> {
    let local = triggers::has_local_triggers(replica, table)?;
    // It may be kept out by a CHECK as well.
    replica.db.execute_batch("SAVEPOINT _pm_clashes; PRAGMA ignore_check_constraints = ON")?;
    let replace =
        || limbo::move_from_limbo(replica, table, key, true).and_then(|()| evicted(replica, table, key));
    let tried = watch_evictions(replica, table);
    let tried =
        tried.and_then(|()| if local { triggers::trying(replica, table, replace) } else { replace() });
    replica.db.execute_batch(
        "PRAGMA ignore_check_constraints = OFF; ROLLBACK TO _pm_clashes; RELEASE _pm_clashes",
    )?;
    match tried {
        Ok(rows) => Ok(rows.into_iter().map(|(_, key)| key).collect()),
        // A NOT NULL of this database alone: it would not come in with these values.
        Err(Error::Sqlite(e)) if e.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
            Ok(Vec::new())
        }
        Err(e) => Err(e),
    }
}

/// Claims and keys of the rows that a REPLACE removed, without the row itself.
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
