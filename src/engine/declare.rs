//! What devices declare of a shared table: how it merges, and what its columns are.
//!
//! Each definition in the log declares it anew. One that says what its author had heard already
//! adds nothing; one of a group that settles conflicts always counts. A declaration takes the place
//! of those that its author had heard of. Where several are left:
//!
//! | of | what holds everywhere |
//! |---|---|
//! | the policy and merge, a column's rule | the earliest, by stamp and author; a notice names all. A column that anybody made a counter is one |
//! | a column's type, collation and default | none: the column waits. What is written into it stays in the log, and its table goes on without it, until one of them is decided for |
//!
//! A UNIQUE holds everywhere from then on, whoever made it. Of the rows that are older than it, some
//! databases remember when they claimed their values and others have folded that away: in those that
//! its author had seen, all claims count as equally old.
//!
//! NOT NULL and CHECK are each database's own: a row that breaks them is kept out where they are.

use std::collections::BTreeSet;

use packmule_core::model::{DeviceId, Stream};
use packmule_core::wire::{ColumnMerge, DefId, FrameFlags, Merge, Mode, OpKind, Policy};

use super::apply::Seen;
use super::catalog::Table;
use super::columns::Columns;
use super::def::{ColumnDef, TableDef};
use super::error::{Error, Result};
use super::references::Cause;
use super::seal::SealOptions;
use super::value::{maybe, quote};
use super::versions::encode;
use super::{Engine, store};

/// What a declaration is about.
mod what {
    /// How the table merges, and its policy.
    pub const MERGE: i64 = 0;
    /// A column's type, collation and default.
    pub const COLUMN: i64 = 1;
    /// What is done about concurrent writes to a column.
    pub const RULE: i64 = 2;
    /// A UNIQUE, by its columns.
    pub const UNIQUE: i64 = 3;
}

/// Tables with a column that waits.
pub(crate) const WAITING_TABLES: &str = "SELECT tid FROM _pm_declared WHERE what = 1 AND NOT past
    GROUP BY tid, name HAVING count(DISTINCT value) > 1";

/// Where a definition stands in the log, and what its author had seen.
pub(crate) struct Stamp<'s> {
    pub dev: i64,
    pub seq: u64,
    pub lamport: u64,
    pub seen: &'s Seen<'s>,
    /// Its group settles conflicts.
    pub decides: bool,
}

/// One of the declarations that no other took the place of.
pub(crate) struct Declared {
    pub author: DeviceId,
    pub dev: i64,
    pub value: Vec<u8>,
    pub def: DefId,
}

impl Engine {
    /// Notes what a definition declares. Whether that adds anything.
    pub(crate) fn note_declared(
        &self,
        tid: i64,
        def: &TableDef,
        id: DefId,
        stamp: &Stamp<'_>,
    ) -> Result<bool> {
        let mut any = false;
        for (what, name, value) in items(def)? {
            let entries = self
                .db
                .prepare_cached(
                    "SELECT dev, seq, value FROM _pm_declared WHERE tid = ?1 AND what = ?2 AND name = ?3",
                )?
                .query_map((tid, what, &name), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
                .collect::<rusqlite::Result<Vec<(i64, u64, Vec<u8>)>>>()?;
            let heard = |dev: i64, seq: u64| dev == stamp.dev || stamp.seen.of(dev) >= seq;
            let heard: Vec<_> = entries.iter().filter(|(dev, seq, _)| heard(*dev, *seq)).collect();
            if !stamp.decides && heard.iter().any(|(.., known)| *known == value) {
                continue;
            }
            any = true;
            for (dev, seq, _) in heard {
                self.db
                    .prepare_cached(
                        "UPDATE _pm_declared SET past = 1
                         WHERE tid = ?1 AND what = ?2 AND name = ?3 AND dev = ?4 AND seq = ?5",
                    )?
                    .execute((tid, what, &name, dev, seq))?;
            }
            self.db
                .prepare_cached(
                    "INSERT OR REPLACE INTO _pm_declared (tid, what, name, dev, seq, lamport, value, past, def)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, ?8)",
                )?
                .execute((tid, what, &name, stamp.dev, stamp.seq, stamp.lamport, value, id.0))?;
            if what == what::UNIQUE {
                self.level_claims(tid, stamp)?;
            }
        }
        Ok(any)
    }

    /// The rows that the author of a UNIQUE had seen have claimed their values before it, all alike.
    fn level_claims(&self, tid: i64, stamp: &Stamp<'_>) -> Result<()> {
        let authors = self
            .db
            .prepare_cached("SELECT DISTINCT dev FROM _pm_head WHERE tid = ?1 AND claim > 0")?
            .query_map([tid], |row| row.get(0))?
            .collect::<rusqlite::Result<Vec<i64>>>()?;
        for dev in authors {
            let seen = if dev == stamp.dev { stamp.seq } else { stamp.seen.of(dev) };
            self.db
                .prepare_cached("UPDATE _pm_head SET claim = 0 WHERE tid = ?1 AND dev = ?2 AND seq <= ?3")?
                .execute((tid, dev, i64::try_from(seen).unwrap_or(i64::MAX)))?;
        }
        self.db
            .prepare_cached(
                "INSERT OR REPLACE INTO temp._pm_put_off (tid, key, claim) SELECT tid, key, NULL FROM _pm_parked WHERE tid = ?1",
            )?
            .execute([tid])?;
        Ok(())
    }

    /// The declarations that are left, the earliest first, each value once.
    fn declared(&self, tid: i64, what: i64, name: &str) -> Result<Vec<Declared>> {
        let mut statement = self.db.prepare_cached(
            "SELECT d.id, p.dev, p.value, p.def FROM _pm_declared p JOIN _pm_device d ON d.n = p.dev
             WHERE p.tid = ?1 AND p.what = ?2 AND p.name = ?3 AND NOT p.past ORDER BY p.lamport, d.id",
        )?;
        let all = statement
            .query_map((tid, what, name.to_ascii_lowercase()), |row| {
                Ok(Declared {
                    author: DeviceId(row.get(0)?),
                    dev: row.get(1)?,
                    value: row.get(2)?,
                    def: DefId(row.get(3)?),
                })
            })?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        let mut seen = BTreeSet::new();
        Ok(all.into_iter().filter(|d| seen.insert(d.value.clone())).collect())
    }

    /// What a column was declared to be, the earliest declaration first; several where it waits.
    pub(crate) fn declared_columns(&self, tid: i64, name: &str) -> Result<Vec<(Declared, ColumnDef)>> {
        let mut found = Vec::new();
        for declared in self.declared(tid, what::COLUMN, name)? {
            let def = self.op_def(declared.def)?;
            if let Some(at) = def.def.column(name) {
                found.push((declared, def.def.columns[at].clone()));
            }
        }
        Ok(found)
    }

    /// The columns of each table that wait: numbers by the table's definition.
    pub(crate) fn waiting_columns(&self, tid: i64, def: &TableDef) -> Result<Columns> {
        let mut statement = self.db.prepare_cached(
            "SELECT name FROM _pm_declared WHERE tid = ?1 AND what = 1 AND NOT past
             GROUP BY name HAVING count(DISTINCT value) > 1",
        )?;
        let names =
            statement.query_map([tid], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
        Ok(names.iter().filter_map(|name| def.column(name)).collect())
    }

    /// Makes the table here what was declared. `waited` are the columns that waited before.
    pub(crate) fn settle_declared(&self, tid: i64, waited: &Columns) -> Result<()> {
        self.reload_catalog()?;
        let table = self.table(tid)?;
        if !table.shows_shared() {
            return Ok(());
        }
        let mut def = table.def.clone();
        let merges = self.declared(tid, what::MERGE, "")?;
        if let Some(first) = merges.first() {
            let first = self.op_def(first.def)?;
            (def.merge, def.policy) = (first.def.merge, first.def.policy);
        }
        self.tell_of_merges(&table, "", &merges)?;
        let mut retyped = Vec::new();
        for (at, column) in def.columns.iter_mut().enumerate().filter(|(_, c)| c.key == 0) {
            let rules = self.declared(tid, what::RULE, &column.name)?;
            self.tell_of_merges(&table, &column.name, &rules)?;
            if self.was_counter(tid, &column.name)? {
                column.merge = ColumnMerge::Counter;
            } else if let Some(first) = rules.first() {
                let first = self.op_def(first.def)?;
                let there = first.def.column(&column.name).map(|at| first.def.columns[at].merge);
                column.merge = there.unwrap_or(column.merge);
            }
            if let [(_, decided)] = &self.declared_columns(tid, &column.name)?[..]
                && decided.kind()? != column.kind()?
            {
                retyped.push(at);
                (column.decl_type, column.collation) = (decided.decl_type.clone(), decided.collation);
                (column.default, column.not_null) = (decided.default.clone(), decided.not_null);
            }
        }
        if !retyped.is_empty()
            && let Err(why) = self.retype(&table, &def, &retyped)?
        {
            let (note, name) = (why, &table.def.name);
            self.db.execute("UPDATE _pm_table SET state = 4, note = ?2 WHERE tid = ?1", (tid, &note))?;
            store::notice(&self.db, &format!("table `{name}` is held: {note}"), self.now())?;
            return self.reload_catalog();
        }
        let new_counters: Vec<usize> =
            def.counters().into_iter().filter(|at| !table.counters.contains(at)).collect();
        let changed = def != table.def;
        if changed {
            self.adopt_def(tid, &def)?;
            self.reload_catalog()?;
        }
        let table = self.table(tid)?;
        if changed || *waited != table.waiting {
            self.install_capture(&table)?;
            self.remember_schema()?;
        }
        for at in new_counters {
            self.count_anew(&table, at)?;
        }
        if changed || !waited.clone().minus(&table.waiting).is_empty() {
            self.put_off_all(tid)?;
        }
        Ok(())
    }

    fn was_counter(&self, tid: i64, name: &str) -> Result<bool> {
        let sql =
            "SELECT 1 FROM _pm_declared WHERE tid = ?1 AND what = 2 AND name = ?2 AND value = ?3 LIMIT 1";
        let counter = rule_value(ColumnMerge::Counter);
        Ok(maybe::<i64>(&self.db, sql, (tid, name.to_ascii_lowercase(), counter))?.is_some())
    }

    /// Says how devices want a table to merge differently, and which of them has its way.
    fn tell_of_merges(&self, table: &Table, column: &str, declared: &[Declared]) -> Result<()> {
        let [first, others @ ..] = declared else { return Ok(()) };
        if others.is_empty() {
            return Ok(());
        }
        let show = |declared: &Declared| -> Result<String> {
            let def = &self.op_def(declared.def)?.def;
            let how = match def.column(column) {
                Some(at) => format!("--column {column}={}", rule_word(def.columns[at].merge)),
                None => def.how_it_merges(),
            };
            Ok(format!("`{how}` on {}", self.device_label(declared.dev)?))
        };
        let others = others.iter().map(show).collect::<Result<Vec<_>>>()?.join(", ");
        let holds = match declared.iter().map(|d| &d.value).any(|v| *v == rule_value(ColumnMerge::Counter)) {
            true if !column.is_empty() => "it is a counter everywhere",
            _ => "the first of them holds everywhere",
        };
        let what = format!(
            "table `{0}` was tracked with {1} and, neither having heard of the other, {others}: {holds}; \
             `packmule track` on one device with other options changes it on all",
            table.def.name,
            show(first)?
        );
        store::notice(&self.db, &what, self.now())
    }

    /// Takes a column out of its table and puts it back as another one, empty; or says why it cannot.
    fn retype(
        &self,
        table: &Table,
        def: &TableDef,
        columns: &[usize],
    ) -> Result<std::result::Result<(), String>> {
        self.remove_triggers(table.tid)?;
        self.db.execute_batch("SAVEPOINT _pm_retype")?;
        for column in columns.iter().map(|at| &def.columns[*at]) {
            let limbo = format!(
                "ALTER TABLE {0} DROP COLUMN {1}; ALTER TABLE {0} ADD COLUMN {2};",
                table.limbo(),
                quote(&column.name),
                def.limbo_sql(column)
            );
            let replaced = self.replace_column(&def.name, def, column);
            if let Err(e) = replaced.and_then(|()| Ok(self.db.execute_batch(&limbo)?)) {
                let Error::Sqlite(e) = e else { return Err(e) };
                if !matches!(
                    e.sqlite_error_code(),
                    Some(rusqlite::ErrorCode::Unknown | rusqlite::ErrorCode::ConstraintViolation)
                ) {
                    return Err(e.into());
                }
                self.db.execute_batch("ROLLBACK TO _pm_retype; RELEASE _pm_retype")?;
                self.install_capture(table)?;
                return Ok(Err(format!(
                    "its column `{}` was decided to be {}, and cannot be changed here ({e}); rename it with ALTER TABLE, and \
                     one that is so is added: until then its rows wait, here and from other devices, and nothing is lost",
                    column.name,
                    column.show()
                )));
            }
        }
        self.db.execute_batch("RELEASE _pm_retype")?;
        Ok(Ok(()))
    }

    /// Takes a column out of a table, and adds one of this name as it is in a definition.
    pub(crate) fn replace_column(&self, name: &str, def: &TableDef, column: &ColumnDef) -> Result<()> {
        // An index over it would be in the way: it is made anew.
        let indexes = self
            .db
            .prepare(
                "SELECT l.name, s.sql FROM pragma_index_list(?1) l JOIN sqlite_schema s ON s.name = l.name
                 WHERE l.origin = 'c' AND (l.partial OR EXISTS (
                   SELECT 1 FROM pragma_index_xinfo(l.name) i WHERE i.key AND (i.name IS NULL OR i.name = ?2 COLLATE NOCASE)))",
            )?
            .query_map((name, &column.name), |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<Vec<(String, String)>>>()?;
        for (index, _) in &indexes {
            self.db.execute_batch(&format!("DROP INDEX main.{}", quote(index)))?;
        }
        let c = quote(&column.name);
        self.db.execute_batch(&format!(
            "ALTER TABLE main.{0} DROP COLUMN {c}; ALTER TABLE main.{0} ADD COLUMN {1};",
            quote(name),
            def.addable_sql(column)
        ))?;
        for (_, sql) in &indexes {
            self.db.execute_batch(sql)?;
        }
        Ok(())
    }

    /// A column became a counter: the versions that are remembered said what it was.
    fn count_anew(&self, table: &Table, column: usize) -> Result<()> {
        for key in self.remembered_keys(table.tid)? {
            for head in self.heads(table.tid, &key)? {
                let speaks =
                    head.kind == OpKind::Delete || head.live(table.def.columns.len()).contains(column);
                let values = if speaks { self.values(table, &head)? } else { Vec::new() };
                if let Some((_, value)) = values.into_iter().find(|(at, _)| *at == column) {
                    self.count_as_is(table, &key, column, &head, &value)?;
                }
            }
        }
        Ok(())
    }

    /// Declares that a column is so, for all: a frame that settles what others declared.
    pub(crate) fn decide_column(&self, tid: i64, column: &ColumnDef) -> Result<()> {
        let mut def = self.table(tid)?.def.clone();
        let rule = def.column(&column.name).map_or(ColumnMerge::Table, |at| def.columns[at].merge);
        def.columns.retain(|c| c.key > 0);
        def.columns.push(ColumnDef { merge: rule, key: 0, ..column.clone() });
        self.declare(tid, def)
    }

    /// Declares that a table merges in another way, for all.
    pub(crate) fn redeclare(&self, known: &Table, wanted: &TableDef) -> Result<()> {
        let mut def = known.def.clone();
        (def.merge, def.policy) = (wanted.merge, wanted.policy);
        for column in &mut def.columns {
            if let Some(at) = wanted.column(&column.name) {
                column.merge = wanted.columns[at].merge;
            }
        }
        let old = &known.def;
        if let Some(at) = old.counters().into_iter().find(|at| def.columns[*at].merge != ColumnMerge::Counter)
        {
            return Err(Error::cannot_track(
                &def.name,
                format!(
                    "column `{0}` is a counter, and what was added to it elsewhere would be lost; keep --column {0}=counter",
                    def.columns[at].name
                ),
            ));
        }
        def.columns
            .retain(|c| c.key > 0 || old.column(&c.name).is_some_and(|at| old.columns[at].merge != c.merge));
        self.declare(known.tid, def)
    }

    fn declare(&self, tid: i64, mut def: TableDef) -> Result<()> {
        def.uniques.clear();
        def.foreign_keys.clear();
        let waited = self.table(tid)?.waiting.clone();
        let (id, body) = def.encode()?;
        self.keep_def(&def, id, &body)?;
        let flags = FrameFlags::RESOLUTION;
        let first = self.position(self.me, Stream::Shared)?.seq + 1;
        self.seal_groups(SealOptions { flags, declare: Some(&def), ..SealOptions::default() })?;
        self.settle_declared(tid, &waited)?;
        self.settle(&Cause { dev: self.me, first, seen: &Seen::All })
    }
}

/// What a definition declares: about what, of which column, and the value that is compared.
fn items(def: &TableDef) -> Result<Vec<(i64, String, Vec<u8>)>> {
    let mut merge = vec![match def.merge {
        Merge::Row => 0,
        Merge::Cell => 1,
    }];
    match def.policy {
        Policy::Manual => merge.push(0),
        Policy::Lww => merge.push(1),
        Policy::Prefer(device) => {
            merge.push(2);
            merge.extend(device.0);
        }
    }
    let mut items = vec![(what::MERGE, String::new(), merge)];
    for column in def.columns.iter().filter(|c| c.key == 0) {
        let name = column.name.to_ascii_lowercase();
        items.push((what::COLUMN, name.clone(), column.kind()?));
        items.push((what::RULE, name, rule_value(column.merge)));
    }
    for unique in &def.uniques {
        let names: Vec<String> =
            unique.iter().map(|at| quote(&def.columns[usize::from(*at)].name.to_ascii_lowercase())).collect();
        items.push((what::UNIQUE, names.join(", "), Vec::new()));
    }
    Ok(items)
}

fn rule_value(rule: ColumnMerge) -> Vec<u8> {
    rule_word(rule).into()
}

fn rule_word(rule: ColumnMerge) -> &'static str {
    match rule {
        ColumnMerge::Table => "none",
        ColumnMerge::Counter => "counter",
        ColumnMerge::Max => "max",
        ColumnMerge::Min => "min",
        ColumnMerge::Lww => "lww",
    }
}

impl TableDef {
    /// As `track` would be told.
    pub(crate) fn how_it_merges(&self) -> String {
        let merge = match self.merge {
            Merge::Row => "row",
            Merge::Cell => "cell",
        };
        let policy = match self.policy {
            Policy::Manual => "manual".to_owned(),
            Policy::Lww => "lww".to_owned(),
            Policy::Prefer(device) => format!("prefer-device={device}"),
        };
        format!("--merge {merge} --policy {policy}")
    }

    /// Whether its rows are what it declares about.
    pub(crate) fn declares(&self) -> bool {
        self.mode == Mode::Shared
    }
}

impl ColumnDef {
    /// What two columns must have in common to be one: the bytes are equal then.
    pub(crate) fn kind(&self) -> Result<Vec<u8>> {
        let mut kind = vec![self.affinity() as u8, self.collation as u8];
        kind.extend(encode(&self.constant().borrow())?);
        Ok(kind)
    }
}
