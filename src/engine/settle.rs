//! Rows that cannot simply be written: contested, or kept out by a constraint.
//!
//! Which rows are shown is a function of the winners alone. Of rows that claim one UNIQUE value the
//! one whose claim is earlier is shown (greedily in the order of `claim_order`, which makes the
//! lexicographically first set of rows that do not clash); the others are parked, each with a row
//! that keeps it out, and tried again when that row changes. Since whether a row is shown depends
//! on rows of earlier claims only, taking what is put off in the order of claims settles each once.

use std::cmp::Ordering;

use packmule_core::merge::{claim_order, winner};
use packmule_core::model::{Stream, Value};
use packmule_core::wire::{OpKind, Shape};
use rusqlite::{ErrorCode, OptionalExtension, params_from_iter};

use super::Engine;
use super::apply::{Head, Place, Writer};
use super::catalog::{State, Table};
use super::error::{Error, Result};
use super::value::{Bind, from_sql, quote, read_key};

/// `claim` is NULL until the row has been looked at.
const PUT_OFF: &str = "
    CREATE TEMP TABLE IF NOT EXISTS _pm_put_off (tid INTEGER, key BLOB, claim INTEGER, PRIMARY KEY (tid, key)) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS temp._pm_put_off_claim ON _pm_put_off (claim, key, tid);
    CREATE TEMP TABLE IF NOT EXISTS _pm_to_check (tid INTEGER, key BLOB, PRIMARY KEY (tid, key)) WITHOUT ROWID;
    CREATE TEMP TABLE IF NOT EXISTS _pm_left (tid INTEGER, foreign_key INTEGER, value BLOB,
        PRIMARY KEY (tid, foreign_key, value)) WITHOUT ROWID;
";

impl Engine {
    /// Makes the temporary tables that this file works with; once a transaction.
    pub(crate) fn begin_settling(&self) -> Result<()> {
        self.db.execute_batch(PUT_OFF)?;
        self.db.execute_batch(
            "DELETE FROM temp._pm_put_off; DELETE FROM temp._pm_to_check; DELETE FROM temp._pm_left",
        )?;
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

    /// A row is about to change: those that it keeps out may come in, and it may leave others dangling.
    pub(crate) fn before_change(&self, table: &Table, key: &[u8]) -> Result<()> {
        if table.unique {
            self.db
                .prepare_cached(
                    "INSERT OR REPLACE INTO temp._pm_put_off (tid, key, claim)
                     SELECT tid, key, NULL FROM _pm_parked WHERE tid = ?1 AND blocker = ?2",
                )?
                .execute((table.tid, key))?;
        }
        if table.is_parent {
            self.note_left(table, key)?;
        }
        Ok(())
    }

    /// A row is shown as it should be.
    pub(crate) fn after_shown(&self, table: &Table, key: &[u8]) -> Result<()> {
        self.db
            .prepare_cached("DELETE FROM _pm_parked WHERE tid = ?1 AND key = ?2")?
            .execute((table.tid, key))?;
        if !table.def.foreign_keys.is_empty() {
            self.db
                .prepare_cached("INSERT OR IGNORE INTO temp._pm_to_check (tid, key) VALUES (?1, ?2)")?
                .execute((table.tid, key))?;
        }
        Ok(())
    }

    /// Settles what was put off, then looks for references that lead nowhere.
    pub(crate) fn settle(&self) -> Result<()> {
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
        self.check_references()
    }

    fn no_longer_put_off(&self, tid: i64, key: &[u8]) -> Result<()> {
        self.db
            .prepare_cached("DELETE FROM temp._pm_put_off WHERE tid = ?1 AND key = ?2")?
            .execute((tid, key))?;
        Ok(())
    }

    /// Takes a row out of its table, and finds out when its winner claimed its place.
    fn clear_for_settling(&self, tid: i64, key: &[u8]) -> Result<()> {
        let table = self.table(tid)?;
        let heads = self.heads(tid, key)?;
        if heads.is_empty() || !table.shows_shared() {
            // Its version is older than what is remembered, and so undisputed; or it is not shown here.
            return self.no_longer_put_off(tid, key);
        }
        let distinct = self.distinct(tid, &heads)?;
        let sql = if distinct > 1 {
            "INSERT OR IGNORE INTO _pm_conflict (tid, key) VALUES (?1, ?2)"
        } else {
            "DELETE FROM _pm_conflict WHERE tid = ?1 AND key = ?2"
        };
        self.db.prepare_cached(sql)?.execute((tid, key))?;
        self.before_change(&table, key)?;
        self.delete_row(&table, key)?;
        self.db.prepare_cached("DELETE FROM _pm_parked WHERE tid = ?1 AND key = ?2")?.execute((tid, key))?;
        match winning(&heads) {
            Some(head) if head.kind != OpKind::Delete => {
                self.db
                    .prepare_cached("UPDATE temp._pm_put_off SET claim = ?3 WHERE tid = ?1 AND key = ?2")?
                    .execute((tid, key, head.claim))?;
                Ok(())
            }
            _ => self.no_longer_put_off(tid, key),
        }
    }

    /// How many different contents the versions have.
    fn distinct(&self, tid: i64, heads: &[Head]) -> Result<usize> {
        let mut contents: Vec<Vec<u8>> = Vec::new();
        for head in heads {
            let content = self.content(tid, head)?;
            if !contents.contains(&content) {
                contents.push(content);
            }
        }
        Ok(contents.len())
    }

    /// A version's content in a form that is equal exactly for equal content: its columns by name.
    pub(crate) fn content(&self, _tid: i64, head: &Head) -> Result<Vec<u8>> {
        self.op_at(head.dev, Stream::Shared, head.seq, head.place, |def, op| {
            if op.head.kind == OpKind::Delete {
                return Ok(Vec::new());
            }
            let mut values: Vec<_> = op.values(Shape { keys: &def.key_flags }).collect();
            values.sort_by_key(|(at, _)| def.def.columns[*at].name.to_ascii_lowercase());
            let mut content = Vec::new();
            let mut buf = Vec::new();
            for (at, value) in values {
                let value = match value {
                    // Where the pieces are does not count.
                    Value::Big(big) => Value::Big(packmule_core::model::Big { number: 0, back: 0, ..big }),
                    value => value,
                };
                content.extend_from_slice(def.def.columns[at].name.to_ascii_lowercase().as_bytes());
                content.push(0);
                let len = match value {
                    Value::Text(b) | Value::Blob(b) => b.len(),
                    _ => 0,
                };
                buf.resize(len + 80, 0);
                let len = packmule_core::wire::put(&mut buf, &value)
                    .map_err(|_| Error::damaged("a value without room"))?;
                content.extend_from_slice(&buf[..len]);
            }
            Ok(content)
        })
    }

    /// Puts a row that is not in its table into its place, if no earlier claim keeps it out.
    fn place(&self, tid: i64, key: &[u8], evictions: &mut Vec<i64>) -> Result<()> {
        let table = self.table(tid)?;
        let heads = self.heads(tid, key)?;
        let Some(head) = winning(&heads) else { return Ok(()) };
        let refused = match self.show(&table, &head, false) {
            Ok(()) => return self.after_shown(&table, key),
            Err(Error::Sqlite(e)) if e.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => e,
            Err(e) => return Err(e),
        };
        let unique = matches!(
            refused.sqlite_error().map(|e| e.extended_code),
            Some(
                rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE
                    | rusqlite::ffi::SQLITE_CONSTRAINT_PRIMARYKEY
                    | rusqlite::ffi::SQLITE_CONSTRAINT_ROWID
            )
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
        let written = self.show(&table, &head, true);
        let evicted = written.and_then(|()| self.evicted(&table, key));
        let blocker = match &evicted {
            Err(_) => None,
            Ok(evicted) => {
                let earlier = |row: &&(Option<u64>, Vec<u8>)| {
                    row.0
                        .is_none_or(|claim| claim_order((claim, &row.1), (head.claim, key)) == Ordering::Less)
                };
                evicted.iter().filter(earlier).min().map(|row| row.1.clone())
            }
        };
        if evicted.is_ok() && blocker.is_none() {
            self.db.execute_batch("RELEASE _pm_evict")?;
            for (_, other) in evicted? {
                self.put_off(tid, &other)?;
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

    fn park(&self, tid: i64, key: &[u8], reason: &str, blocker: Option<&[u8]>) -> Result<()> {
        self.db
            .prepare_cached(
                "INSERT OR REPLACE INTO _pm_parked (tid, key, reason, blocker) VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute((tid, key, reason, blocker))?;
        Ok(())
    }

    /// Writes a version into the table; with `replace`, removes rows that clash with it.
    pub(crate) fn show(&self, table: &std::sync::Arc<Table>, head: &Head, replace: bool) -> Result<()> {
        self.op_at(head.dev, Stream::Shared, head.seq, head.place, |def, op| {
            let writer = Writer::new(table.clone(), def, replace);
            let place = Place {
                dev: head.dev,
                author: head.author,
                stream: Stream::Shared,
                seq: head.seq,
                lamport: head.claim,
                wall: head.wall,
            };
            self.write_row(&writer, def, op, &place)
        })
    }

    /// A TEMP trigger, which runs although triggers are off, says which rows a REPLACE removes: so
    /// SQLite itself decides what clashes, also by indexes that are partial or over expressions.
    fn watch_evictions(&self, table: &Table) -> Result<()> {
        let tid = table.tid;
        let names: Vec<String> = (1..=table.def.keys().count()).map(|n| format!("k{n}")).collect();
        self.db.execute_batch(&format!(
            "CREATE TEMP TABLE _pm_evicted_{tid} ({names});
             CREATE TEMP TRIGGER _pm_evict_{tid} BEFORE DELETE ON main.{table} BEGIN
               INSERT INTO _pm_evicted_{tid} VALUES ({old});
             END",
            names = names.join(", "),
            table = quote(&table.def.name),
            old = table.def.key_list("OLD."),
        ))?;
        Ok(())
    }

    /// Claims and keys of the rows that a REPLACE removed, without the row itself. A row of which no
    /// version is remembered, and which therefore is older than all that are, has no claim.
    fn evicted(&self, table: &Table, own: &[u8]) -> Result<Vec<(Option<u64>, Vec<u8>)>> {
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
                let claim = winning(&self.heads(table.tid, &key)?).map(|head| head.claim);
                found.push((claim, key));
            }
        }
        Ok(found)
    }

    /// Keeps, for each foreign key that refers to a row, the values by which it does.
    fn note_left(&self, parent: &Table, key: &[u8]) -> Result<()> {
        for child in self.tables() {
            if !child.shows_shared() {
                continue;
            }
            for (n, foreign) in child.def.foreign_keys.iter().enumerate() {
                if !foreign.parent.eq_ignore_ascii_case(&parent.def.name) {
                    continue;
                }
                let columns: Vec<String> = foreign.columns.iter().map(|(_, there)| quote(there)).collect();
                let values = read_key(key)?;
                let mut statement = self.db.prepare_cached(&parent.select_sql(&columns.join(", ")))?;
                let mut rows = statement.query(params_from_iter(values.iter().map(|v| Bind(v.borrow()))))?;
                if let Some(row) = rows.next()? {
                    let mut value = Vec::new();
                    for at in 0..columns.len() {
                        super::value::push_key(
                            &mut value,
                            from_sql(row.get_ref(at)?),
                            packmule_core::wire::Collation::Binary,
                        )?;
                    }
                    self.db
                        .prepare_cached("INSERT OR IGNORE INTO temp._pm_left (tid, foreign_key, value) VALUES (?1, ?2, ?3)")?
                        .execute((child.tid, n as i64, value))?;
                }
            }
        }
        Ok(())
    }

    /// Notes rows that refer to one that is not there: those that came, and those that were left.
    fn check_references(&self) -> Result<()> {
        let mut left = self.db.prepare_cached("SELECT tid, foreign_key, value FROM temp._pm_left")?;
        let mut rows = left.query([])?;
        while let Some(row) = rows.next()? {
            let child = self.table(row.get(0)?)?;
            let foreign = &child.def.foreign_keys[row.get::<_, usize>(1)?];
            let values = read_key(&row.get::<_, Vec<u8>>(2)?)?;
            let matches: Vec<String> = foreign
                .columns
                .iter()
                .enumerate()
                .map(|(n, (here, _))| format!("{} = ?{}", quote(here), n + 1))
                .collect();
            let mut children = self.db.prepare_cached(&format!(
                "SELECT {} FROM {} WHERE {}",
                child.def.key_list(""),
                child.sql_name,
                matches.join(" AND ")
            ))?;
            let mut found = children.query(params_from_iter(values.iter().map(|v| Bind(v.borrow()))))?;
            let n = child.def.keys().count();
            while let Some(row) = found.next()? {
                let values =
                    (0..n).map(|at| row.get_ref(at).map(from_sql)).collect::<rusqlite::Result<Vec<_>>>()?;
                let key = child.key_of(values.into_iter())?;
                self.db
                    .prepare_cached("INSERT OR IGNORE INTO temp._pm_to_check (tid, key) VALUES (?1, ?2)")?
                    .execute((child.tid, key))?;
            }
        }
        drop(rows);
        let mut check = self.db.prepare_cached("SELECT tid, key FROM temp._pm_to_check")?;
        let mut rows = check.query([])?;
        while let Some(row) = rows.next()? {
            let (tid, key): (i64, Vec<u8>) = (row.get(0)?, row.get(1)?);
            if self.dangles(&*self.table(tid)?, &key)?.is_some() {
                self.db
                    .prepare_cached("INSERT OR IGNORE INTO _pm_dangling (tid, key) VALUES (?1, ?2)")?
                    .execute((tid, key))?;
            }
        }
        drop(rows);
        self.db.execute_batch("DELETE FROM temp._pm_to_check; DELETE FROM temp._pm_left")?;
        Ok(())
    }

    /// The number of the first foreign key by which a row refers to one that is not there.
    pub(crate) fn dangles(&self, table: &Table, key: &[u8]) -> Result<Option<usize>> {
        let values = read_key(key)?;
        for (n, foreign) in table.def.foreign_keys.iter().enumerate() {
            let known = self.table_named(&foreign.parent);
            if !known.is_some_and(|parent| parent.state == State::Tracked) {
                continue; // Rows of tables that are not synced are nobody else's business.
            }
            let set: Vec<String> =
                foreign.columns.iter().map(|(here, _)| format!("c.{} IS NOT NULL", quote(here))).collect();
            let same: Vec<String> = foreign
                .columns
                .iter()
                .map(|(here, there)| format!("p.{} = c.{}", quote(there), quote(here)))
                .collect();
            let keys: Vec<String> = table
                .def
                .keys()
                .enumerate()
                .map(|(n, at)| format!("c.{} = ?{}", quote(&table.def.columns[at].name), n + 1))
                .collect();
            let sql = format!(
                "SELECT 1 FROM {} c WHERE {} AND {} AND NOT EXISTS (SELECT 1 FROM main.{} p WHERE {})",
                table.sql_name,
                keys.join(" AND "),
                set.join(" AND "),
                quote(&foreign.parent),
                same.join(" AND ")
            );
            let params = params_from_iter(values.iter().map(|v| Bind(v.borrow())));
            if super::value::maybe::<i64>(&self.db, &sql, params)?.is_some() {
                return Ok(Some(n));
            }
        }
        Ok(None)
    }
}

/// The version that is shown.
pub(crate) fn winning(heads: &[Head]) -> Option<Head> {
    let versions: Vec<_> = heads.iter().map(Head::version).collect();
    winner(&versions).map(|at| heads[at])
}
