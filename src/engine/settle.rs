//! Rows that cannot simply be written: contested, or kept out by a constraint.
//!
//! Which rows are shown is a function of the winners alone. Of rows that claim one UNIQUE value the
//! one whose claim is earlier is shown (greedily in the order of `claim_order`, which makes the
//! lexicographically first set of rows that do not clash); the others are parked, each with a row
//! that keeps it out, and tried again when that row changes. Since whether a row is shown depends
//! on rows of earlier claims only, taking what is put off in the order of claims settles each once.

use std::cmp::Ordering;

use packmule_core::merge::claim_order;
use packmule_core::wire::{Merge, OpKind};
use rusqlite::{ErrorCode, OptionalExtension};

use super::Engine;
use super::apply::Head;
use super::catalog::Table;
use super::error::{Error, Result};
use super::references::Cause;
use super::value::{from_sql, quote};
use super::versions::winning;

/// `claim` is NULL until the row has been looked at.
const PUT_OFF: &str = "
    CREATE TEMP TABLE IF NOT EXISTS _pm_put_off (tid INTEGER, key BLOB, claim INTEGER, PRIMARY KEY (tid, key)) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS temp._pm_put_off_claim ON _pm_put_off (claim, key, tid);
    CREATE TEMP TABLE IF NOT EXISTS _pm_to_check (tid INTEGER, key BLOB, gone INTEGER NOT NULL, deleted INTEGER NOT NULL,
        PRIMARY KEY (tid, key)) WITHOUT ROWID;
    CREATE TEMP TABLE IF NOT EXISTS _pm_left (tid INTEGER, foreign_key INTEGER, value BLOB, deleted INTEGER NOT NULL,
        PRIMARY KEY (tid, foreign_key, value)) WITHOUT ROWID;
";

impl Engine {
    /// Makes the temporary tables that this file works with; once a transaction.
    pub(crate) fn begin_settling(&self) -> Result<()> {
        self.db.execute_batch(PUT_OFF)?;
        self.db.execute_batch(
            "DELETE FROM temp._pm_put_off; DELETE FROM temp._pm_to_check; DELETE FROM temp._pm_left",
        )?;
        let parked = self.db.prepare_cached("SELECT EXISTS (SELECT 1 FROM _pm_parked)")?;
        self.parked.set({ parked }.query_row([], |row| row.get(0))?);
        Ok(())
    }

    /// Puts a row off to the end of the group.
    pub(crate) fn put_off(&self, tid: i64, key: &[u8]) -> Result<()> {
        self.db
            .prepare_cached(
                "INSERT OR REPLACE INTO temp._pm_put_off (tid, key, claim) VALUES (?1, ?2, NULL)",
            )?
            .execute((tid, key))?;
        Ok(())
    }

    /// Puts off all rows of a table of which versions are remembered: they are judged anew.
    pub(crate) fn put_off_all(&self, tid: i64) -> Result<()> {
        self.db
            .prepare_cached(
                "INSERT OR REPLACE INTO temp._pm_put_off (tid, key, claim) SELECT DISTINCT tid, key, NULL FROM _pm_head WHERE tid = ?1",
            )?
            .execute([tid])?;
        Ok(())
    }

    /// A row is about to change: those that it keeps out may come in, and it may leave others dangling.
    /// Whether it is there, if others may refer to it.
    pub(crate) fn before_change(&self, table: &Table, key: &[u8]) -> Result<bool> {
        if table.unique && self.parked.get() {
            self.db
                .prepare_cached(
                    "INSERT OR REPLACE INTO temp._pm_put_off (tid, key, claim)
                     SELECT tid, key, NULL FROM _pm_parked WHERE tid = ?1 AND blocker = ?2",
                )?
                .execute((table.tid, key))?;
        }
        if table.is_parent { self.note_left(table, key) } else { Ok(true) }
    }

    /// A row is shown as it should be.
    pub(crate) fn after_shown(&self, table: &Table, key: &[u8]) -> Result<()> {
        if self.parked.get() {
            self.db
                .prepare_cached("DELETE FROM _pm_parked WHERE tid = ?1 AND key = ?2")?
                .execute((table.tid, key))?;
        }
        if table.def.foreign_keys.is_empty() { Ok(()) } else { self.to_check(table.tid, key, 0, 0) }
    }

    /// Settles what was put off, then looks for references that lead nowhere.
    pub(crate) fn settle(&self, cause: &Cause<'_>) -> Result<()> {
        let mut evictions = Vec::new();
        loop {
            while let Some((tid, key)) = self
                .db
                .prepare_cached("SELECT tid, key FROM temp._pm_put_off WHERE claim IS NULL LIMIT 1")?
                .query_row([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?)))
                .optional()?
            {
                self.clear_for_settling(tid, &key)?;
            }
            let next = self
                .db
                .prepare_cached("SELECT tid, key FROM temp._pm_put_off ORDER BY claim, key, tid LIMIT 1")?
                .query_row([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?)))
                .optional()?;
            let Some((tid, key)) = next else { break };
            self.no_longer_put_off(tid, &key)?;
            self.place(tid, &key, &mut evictions)?;
        }
        for tid in evictions {
            self.db.execute_batch(&format!(
                "DROP TRIGGER IF EXISTS temp._pm_evict_{tid}; DROP TABLE temp._pm_evicted_{tid}"
            ))?;
        }
        self.check_references(cause)
    }

    fn no_longer_put_off(&self, tid: i64, key: &[u8]) -> Result<()> {
        self.db
            .prepare_cached("DELETE FROM temp._pm_put_off WHERE tid = ?1 AND key = ?2")?
            .execute((tid, key))?;
        Ok(())
    }

    /// Takes a row out of its table into limbo, makes it there what its versions say, and finds out
    /// when it claimed its place.
    fn clear_for_settling(&self, tid: i64, key: &[u8]) -> Result<()> {
        let table = self.table(tid)?;
        if !table.shows_shared() {
            return self.no_longer_put_off(tid, key);
        }
        let heads = self.heads(tid, key)?;
        let judgement = self.judge_versions(&table, &heads)?;
        let sql = if judgement.open {
            "INSERT OR IGNORE INTO _pm_conflict (tid, key) VALUES (?1, ?2)"
        } else {
            "DELETE FROM _pm_conflict WHERE tid = ?1 AND key = ?2"
        };
        self.db.prepare_cached(sql)?.execute((tid, key))?;
        self.before_change(&table, key)?;
        self.move_to_limbo(&table, key)?;
        self.db.prepare_cached("DELETE FROM _pm_parked WHERE tid = ?1 AND key = ?2")?.execute((tid, key))?;
        if !heads.is_empty() && !judgement.present {
            self.delete_from(&table.limbo(), &table, key)?;
            return self.no_longer_put_off(tid, key);
        }
        self.compose(&table, key, &heads, &judgement)?;
        self.db
            .prepare_cached("UPDATE temp._pm_put_off SET claim = ?3 WHERE tid = ?1 AND key = ?2")?
            .execute((tid, key, claim_of(&table, &heads)))?;
        Ok(())
    }

    /// Puts a row that is in limbo into its table, if no earlier claim keeps it out.
    fn place(&self, tid: i64, key: &[u8], evictions: &mut Vec<i64>) -> Result<()> {
        let table = self.table(tid)?;
        let claim = claim_of(&table, &self.heads(tid, key)?);
        let refused = match self.move_from_limbo(&table, key, false) {
            Ok(()) => return self.after_shown(&table, key),
            Err(Error::Sqlite(e)) if e.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => e,
            Err(e) => return Err(e),
        };
        use rusqlite::ffi::{
            SQLITE_CONSTRAINT_PRIMARYKEY, SQLITE_CONSTRAINT_ROWID, SQLITE_CONSTRAINT_UNIQUE,
        };
        let unique = matches!(
            refused.sqlite_error().map(|e| e.extended_code),
            Some(SQLITE_CONSTRAINT_UNIQUE | SQLITE_CONSTRAINT_PRIMARYKEY | SQLITE_CONSTRAINT_ROWID)
        );
        let reason = refused.to_string();
        if !unique {
            return self.park(tid, key, &reason, None);
        }
        if !evictions.contains(&tid) {
            self.watch_evictions(&table)?;
            evictions.push(tid);
        }
        self.db.execute_batch(&format!("DELETE FROM temp._pm_evicted_{tid}; SAVEPOINT _pm_evict"))?;
        let replace = || self.move_from_limbo(&table, key, true).and_then(|()| self.evicted(&table, key));
        let local = self.has_local_triggers(&table)?;
        let evicted = if local { self.trying(&table, replace) } else { replace() };
        let blocker = match &evicted {
            Err(_) => None,
            Ok(evicted) => {
                let earlier =
                    |row: &&(u64, Vec<u8>)| claim_order((row.0, &row.1), (claim, key)) == Ordering::Less;
                evicted.iter().filter(earlier).min().map(|row| row.1.clone())
            }
        };
        if evicted.is_ok() && blocker.is_none() {
            self.db.execute_batch("RELEASE _pm_evict")?;
            for (_, other) in evicted? {
                if local {
                    // It was only tried. The application's triggers see what comes of it.
                    self.move_to_limbo(&table, &other)?;
                }
                if table.is_parent {
                    self.note_deleted(&table, &other, false)?; // It has left already.
                    self.note_changed(&table)?;
                }
                self.put_off(tid, &other)?;
            }
            if local {
                self.move_from_limbo(&table, key, false)?;
            }
            return self.after_shown(&table, key);
        }
        self.db.execute_batch("ROLLBACK TO _pm_evict; RELEASE _pm_evict")?;
        match evicted {
            Err(Error::Sqlite(e)) if e.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
                self.park(tid, key, &e.to_string(), None)
            }
            Err(e) => Err(e),
            Ok(_) => self.park(tid, key, &reason, blocker.as_deref()),
        }
    }

    pub(crate) fn is_parked(&self, tid: i64, key: &[u8]) -> Result<bool> {
        if !self.parked.get() {
            return Ok(false);
        }
        let sql = "SELECT 1 FROM _pm_parked WHERE tid = ?1 AND key = ?2";
        Ok(super::value::maybe::<i64>(&self.db, sql, (tid, key))?.is_some())
    }

    fn park(&self, tid: i64, key: &[u8], reason: &str, blocker: Option<&[u8]>) -> Result<()> {
        self.parked.set(true);
        self.db
            .prepare_cached(
                "INSERT OR REPLACE INTO _pm_parked (tid, key, reason, blocker) VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute((tid, key, reason, blocker))?;
        Ok(())
    }

    /// A TEMP trigger, which runs although triggers are off, says which rows a REPLACE removes and
    /// keeps them in limbo: so SQLite itself decides what clashes, also by indexes that are partial
    /// or over expressions.
    fn watch_evictions(&self, table: &Table) -> Result<()> {
        let tid = table.tid;
        let names: Vec<String> = (1..=table.def.keys().count()).map(|n| format!("k{n}")).collect();
        let old: Vec<String> = table.def.columns.iter().map(|c| format!("OLD.{}", quote(&c.name))).collect();
        self.db.execute_batch(&format!(
            "CREATE TEMP TABLE _pm_evicted_{tid} ({names});
             CREATE TEMP TRIGGER _pm_evict_{tid} BEFORE DELETE ON main.{table} BEGIN
               INSERT INTO _pm_evicted_{tid} VALUES ({keys});
               INSERT OR REPLACE INTO {limbo} ({columns}) VALUES ({old});
             END",
            names = names.join(", "),
            table = quote(&table.def.name),
            keys = table.def.key_list("OLD."),
            limbo = table.limbo(),
            columns = table.column_list(),
            old = old.join(", "),
        ))?;
        Ok(())
    }

    /// Writes a row by a REPLACE, and puts off the rows that it removes.
    pub(crate) fn replacing(
        &self,
        table: &Table,
        key: &[u8],
        write: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        self.watch_evictions(table)?;
        write()?;
        let evicted = self.evicted(table, key)?;
        self.db.execute_batch(&format!(
            "DROP TRIGGER temp._pm_evict_{0}; DROP TABLE temp._pm_evicted_{0}",
            table.tid
        ))?;
        evicted.iter().try_for_each(|(_, other)| self.put_off(table.tid, other))
    }

    /// The rows that a row which is kept out would take the place of, by any UNIQUE at all.
    pub(crate) fn clashes(&self, table: &Table, key: &[u8]) -> Result<Vec<Vec<u8>>> {
        let local = self.has_local_triggers(table)?;
        // It may be kept out by a CHECK as well.
        self.db.execute_batch("SAVEPOINT _pm_clashes; PRAGMA ignore_check_constraints = ON")?;
        let replace = || self.move_from_limbo(table, key, true).and_then(|()| self.evicted(table, key));
        let tried = self.watch_evictions(table);
        let tried = tried.and_then(|()| if local { self.trying(table, replace) } else { replace() });
        self.db.execute_batch(
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
    fn evicted(&self, table: &Table, own: &[u8]) -> Result<Vec<(u64, Vec<u8>)>> {
        let mut statement =
            self.db.prepare_cached(&format!("SELECT * FROM temp._pm_evicted_{}", table.tid))?;
        let mut rows = statement.query([])?;
        let n = table.def.keys().count();
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let values =
                (0..n).map(|at| row.get_ref(at).map(from_sql)).collect::<rusqlite::Result<Vec<_>>>()?;
            let key = table.key_of(values.into_iter())?;
            if key != own {
                found.push((claim_of(table, &self.heads(table.tid, &key)?), key));
            }
        }
        Ok(found)
    }
}

/// When a row claimed its unique values: when its shown version did, or by cell the last of those
/// that are shown; 0, before all others, if none is remembered.
pub(crate) fn claim_of(table: &Table, heads: &[Head]) -> u64 {
    let claim = match table.def.merge {
        Merge::Row => winning(table, heads).filter(|h| h.kind != OpKind::Delete).map(|h| h.claim),
        Merge::Cell => heads.iter().filter(|h| h.kind != OpKind::Delete).map(|h| h.claim).max(),
    };
    claim.unwrap_or(0)
}
