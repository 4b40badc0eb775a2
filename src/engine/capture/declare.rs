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

use packmule_core::wire::{ColumnMerge, DefId, Merge, OpKind, Policy};

use crate::engine::capture::{adopt, watch};
use crate::engine::error::{Error, Result};
use crate::engine::fleet::devices;
use crate::engine::merge::heads::{self, Stamp};
use crate::engine::merge::{context_free, counters, deferred, versions};
use crate::engine::store::{meta, value};
use crate::engine::table::catalog;
use crate::engine::table::columns::Columns;
use crate::engine::table::declared::{self, Declared, Subject};
use crate::engine::table::def::{ColumnDef, TableDef};
use crate::engine::table::known::Table;
use crate::engine::table::replica::Replica;

/// Notes what a definition declares. Whether that adds anything.
pub(crate) fn record_declared(
    replica: &Replica,
    tid: i64,
    def: &TableDef,
    id: DefId,
    stamp: &Stamp<'_>,
) -> Result<bool> {
    let mut any = false;
    for (what, name, value) in items(def)? {
        let entries = replica
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
            replica
                .db
                .prepare_cached(
                    "UPDATE _pm_declared SET past = 1
                     WHERE tid = ?1 AND what = ?2 AND name = ?3 AND dev = ?4 AND seq = ?5",
                )?
                .execute((tid, what, &name, dev, seq))?;
        }
        replica
            .db
            .prepare_cached(
                "INSERT OR REPLACE INTO _pm_declared (tid, what, name, dev, seq, lamport, value, past, def)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, ?8)",
            )?
            .execute((tid, what, &name, stamp.dev, stamp.seq, stamp.lamport, value, id.0))?;
        if what == Subject::Unique {
            equalise_claims(replica, tid, stamp)?;
        }
    }
    Ok(any)
}

/// The rows that the author of a UNIQUE had seen have claimed their values before it, all alike.
fn equalise_claims(replica: &Replica, tid: i64, stamp: &Stamp<'_>) -> Result<()> {
    let authors = replica
        .db
        .prepare_cached("SELECT DISTINCT dev FROM _pm_head WHERE tid = ?1 AND claim > 0")?
        .query_map([tid], |row| row.get(0))?
        .collect::<rusqlite::Result<Vec<i64>>>()?;
    for dev in authors {
        let seen = if dev == stamp.dev { stamp.seq } else { stamp.seen.of(dev) };
        replica
            .db
            .prepare_cached("UPDATE _pm_head SET claim = 0 WHERE tid = ?1 AND dev = ?2 AND seq <= ?3")?
            .execute((tid, dev, i64::try_from(seen).unwrap_or(i64::MAX)))?;
    }
    replica.db
        .prepare_cached(
            "INSERT OR REPLACE INTO temp._pm_put_off (tid, key, claim) SELECT tid, key, NULL FROM _pm_parked WHERE tid = ?1",
        )?
        .execute([tid])?;
    Ok(())
}

/// Makes the table here what was declared. `waited` are the columns that waited before.
pub(crate) fn apply_declarations(replica: &Replica, tid: i64, waited: &Columns) -> Result<()> {
    catalog::reload_catalog(replica)?;
    let table = catalog::table(replica, tid)?;
    if !table.shows_shared() {
        return Ok(());
    }
    let mut def = table.def.clone();
    let merges = declared::declared(replica, tid, Subject::Merge, "")?;
    if let Some(first) = merges.first() {
        let first = catalog::op_def(replica, first.def)?;
        (def.merge, def.policy) = (first.def.merge, first.def.policy);
    }
    notice_of_merges(replica, &table, "", &merges)?;
    let mut retyped = Vec::new();
    for (at, column) in def.columns.iter_mut().enumerate().filter(|(_, c)| c.key == 0) {
        let rules = declared::declared(replica, tid, Subject::Rule, &column.name)?;
        notice_of_merges(replica, &table, &column.name, &rules)?;
        if was_counter(replica, tid, &column.name)? {
            column.merge = ColumnMerge::Counter;
        } else if let Some(first) = rules.first() {
            let first = catalog::op_def(replica, first.def)?;
            let there = first.def.column(&column.name).map(|at| first.def.columns[at].merge);
            column.merge = there.unwrap_or(column.merge);
        }
        if let [(_, decided)] = &declared_columns(replica, tid, &column.name)?[..]
            && decided.kind()? != column.kind()?
        {
            retyped.push(at);
            (column.decl_type, column.collation) = (decided.decl_type.clone(), decided.collation);
            (column.default, column.not_null) = (decided.default.clone(), decided.not_null);
        }
    }
    if !retyped.is_empty()
        && let Err(why) = retype(replica, &table, &def, &retyped)?
    {
        let (note, name) = (why, &table.def.name);
        replica.db.execute("UPDATE _pm_table SET state = 4, note = ?2 WHERE tid = ?1", (tid, &note))?;
        meta::notice(&replica.db, &format!("table `{name}` is held: {note}"), replica.now())?;
        return catalog::reload_catalog(replica);
    }
    let new_counters: Vec<usize> =
        def.counters().into_iter().filter(|at| !table.counters.contains(at)).collect();
    let changed = def != table.def;
    if changed {
        adopt::adopt_def(replica, tid, &def)?;
        catalog::reload_catalog(replica)?;
    }
    let table = catalog::table(replica, tid)?;
    if changed || *waited != table.waiting {
        watch::install_capture(replica, &table)?;
        adopt::remember_schema(replica)?;
    }
    for at in new_counters {
        recount(replica, &table, at)?;
    }
    if changed || !waited.clone().minus(&table.waiting).is_empty() {
        deferred::defer_all(replica, tid)?;
    }
    Ok(())
}

fn was_counter(replica: &Replica, tid: i64, name: &str) -> Result<bool> {
    let sql = "SELECT 1 FROM _pm_declared WHERE tid = ?1 AND what = 2 AND name = ?2 AND value = ?3 LIMIT 1";
    let counter = rule_value(ColumnMerge::Counter);
    Ok(value::maybe::<i64>(&replica.db, sql, (tid, name.to_ascii_lowercase(), counter))?.is_some())
}

/// Says how devices want a table to merge differently, and which of them has its way.
fn notice_of_merges(replica: &Replica, table: &Table, column: &str, declared: &[Declared]) -> Result<()> {
    let [first, others @ ..] = declared else { return Ok(()) };
    if others.is_empty() {
        return Ok(());
    }
    let show = |declared: &Declared| -> Result<String> {
        let def = &catalog::op_def(replica, declared.def)?.def;
        let how = match def.column(column) {
            Some(at) => format!("--column {column}={}", rule_word(def.columns[at].merge)),
            None => def.how_it_merges(),
        };
        Ok(format!("`{how}` on {}", devices::device_label(replica, declared.dev)?))
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
    meta::notice(&replica.db, &what, replica.now())
}

/// Takes a column out of its table and puts it back as another one, empty; or says why it cannot.
fn retype(
    replica: &Replica,
    table: &Table,
    def: &TableDef,
    columns: &[usize],
) -> Result<std::result::Result<(), String>> {
    watch::remove_triggers(replica, table.tid)?;
    replica.db.execute_batch("SAVEPOINT _pm_retype")?;
    for column in columns.iter().map(|at| &def.columns[*at]) {
        let quarantine_table = format!(
            "ALTER TABLE {0} DROP COLUMN {1}; ALTER TABLE {0} ADD COLUMN {2};",
            table.quarantine_table(),
            value::quote(&column.name),
            def.quarantine_sql(column)
        );
        let replaced = replace_column(replica, &def.name, def, column);
        if let Err(e) = replaced.and_then(|()| Ok(replica.db.execute_batch(&quarantine_table)?)) {
            let Error::Sqlite(e) = e else { return Err(e) };
            if !matches!(
                e.sqlite_error_code(),
                Some(rusqlite::ErrorCode::Unknown | rusqlite::ErrorCode::ConstraintViolation)
            ) {
                return Err(e.into());
            }
            replica.db.execute_batch("ROLLBACK TO _pm_retype; RELEASE _pm_retype")?;
            watch::install_capture(replica, table)?;
            return Ok(Err(format!(
                "its column `{}` was decided to be {}, and cannot be changed here ({e}); rename it with ALTER TABLE, and \
                 one that is so is added: until then its rows wait, here and from other devices, and nothing is lost",
                column.name,
                column.show()
            )));
        }
    }
    replica.db.execute_batch("RELEASE _pm_retype")?;
    Ok(Ok(()))
}

/// Takes a column out of a table, and adds one of this name as it is in a definition.
pub(crate) fn replace_column(
    replica: &Replica,
    name: &str,
    def: &TableDef,
    column: &ColumnDef,
) -> Result<()> {
    // An index over it would be in the way: it is made anew.
    let indexes = replica
        .db
        .prepare(
            "SELECT l.name, s.sql FROM pragma_index_list(?1) l JOIN sqlite_schema s ON s.name = l.name
             WHERE l.origin = 'c' AND (l.partial OR EXISTS (
               SELECT 1 FROM pragma_index_xinfo(l.name) i WHERE i.key AND (i.name IS NULL OR i.name = ?2 COLLATE NOCASE)))",
        )?
        .query_map((name, &column.name), |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<Vec<(String, String)>>>()?;
    for (index, _) in &indexes {
        replica.db.execute_batch(&format!("DROP INDEX main.{}", value::quote(index)))?;
    }
    let c = value::quote(&column.name);
    replica.db.execute_batch(&format!(
        "ALTER TABLE main.{0} DROP COLUMN {c}; ALTER TABLE main.{0} ADD COLUMN {1};",
        value::quote(name),
        def.addable_sql(column)
    ))?;
    for (_, sql) in &indexes {
        replica.db.execute_batch(sql)?;
    }
    Ok(())
}

/// A column became a counter: the versions that are remembered said what it was.
fn recount(replica: &Replica, table: &Table, column: usize) -> Result<()> {
    for key in context_free::remembered_keys(replica, table.tid)? {
        for head in heads::heads(replica, table.tid, &key)? {
            let speaks = head.kind == OpKind::Delete || head.live(table.def.columns.len()).contains(column);
            let values = if speaks { versions::values(replica, table, &head)? } else { Vec::new() };
            if let Some((_, value)) = values.into_iter().find(|(at, _)| *at == column) {
                counters::count_as_is(replica, table, &key, column, &head, &value)?;
            }
        }
    }
    Ok(())
}

/// What a definition declares: about what, of which column, and the value that is compared.
fn items(def: &TableDef) -> Result<Vec<(Subject, String, Vec<u8>)>> {
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
    let mut items = vec![(Subject::Merge, String::new(), merge)];
    for column in def.columns.iter().filter(|c| c.key == 0) {
        let name = column.name.to_ascii_lowercase();
        items.push((Subject::Column, name.clone(), column.kind()?));
        items.push((Subject::Rule, name, rule_value(column.merge)));
    }
    for unique in &def.uniques {
        let names: Vec<String> = unique
            .iter()
            .map(|at| value::quote(&def.columns[usize::from(*at)].name.to_ascii_lowercase()))
            .collect();
        items.push((Subject::Unique, names.join(", "), Vec::new()));
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

/// What a column was declared to be, the earliest declaration first; several where it waits.
pub(crate) fn declared_columns(
    replica: &Replica,
    tid: i64,
    name: &str,
) -> Result<Vec<(Declared, ColumnDef)>> {
    let mut found = Vec::new();
    for declared in declared::declared(replica, tid, Subject::Column, name)? {
        let def = catalog::op_def(replica, declared.def)?;
        if let Some(at) = def.def.column(name) {
            found.push((declared, def.def.columns[at].clone()));
        }
    }
    Ok(found)
}
