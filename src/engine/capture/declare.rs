//! What devices declare of a shared table: how it merges, what its columns are, which UNIQUEs it has.
//!
//! **Invariant.** For each (table, subject, name) the declarations that are not superseded are the maximal ones of
//! all definitions in the applied groups, as heads are for a row. What holds here is a pure function of them:
//!
//! | of | what holds everywhere |
//! |---|---|
//! | the policy and merge, a column's rule | the earliest, by Lamport timestamp and author; a notice names all. A column that anybody ever made a counter is one: additions that were made cannot be separated again |
//! | a column's type, collation and default | the one that is left. If two differ, none: the column is disputed. What is written into it stays in the log, and the table goes on without it, until somebody decides for one |
//! | a UNIQUE | every one that anybody declared; they only become more. (A database that drops one shows more rows than the others, and its status says so) |
//!
//! **Why it holds.** Definitions are applied in causal order with their author's context. A declaration supersedes
//! those that its author had seen. One that only repeats what its author had seen adds nothing (else every newcomer's
//! definition would count as a decision), unless its group resolves conflicts, or its author has made a column again what it
//! was before others made it something else. The Lamport timestamp and the author
//! order totally what is left.
//!
//! **Claims before a UNIQUE.** Of rows that are older than a UNIQUE, some devices remember when they claimed their
//! values, and others have compacted that. So all claims that the author of the UNIQUE had seen become 0, equally
//! old, everywhere. A claim that it had not seen cannot have been forgotten anywhere before the UNIQUE came: a version
//! is forgotten only once its author, too, has acknowledged it, and all that this author committed before is here. So
//! all devices compare the same claims.
//!
//! NOT NULL and CHECK are each database's own, and are declared to nobody: a row that breaks one is quarantined where
//! the constraint is.

use packmule_core::model::DeviceId;
use packmule_core::wire::{ColumnMerge, DefId, Merge, OpKind, Policy, SchemaBits};

use crate::engine::capture::{adopt, suspended, watch};
use crate::engine::error::{Error, Result};
use crate::engine::fleet::devices;
use crate::engine::merge::heads::{self, Stamp};
use crate::engine::merge::{context_free, counters, deferred, stretches, versions};
use crate::engine::store::{connection, meta, value};
use crate::engine::table::catalog;
use crate::engine::table::columns::Columns;
use crate::engine::table::declared::{self, Declared, Subject};
use crate::engine::table::def::{ColumnDef, TableDef};
use crate::engine::table::dropped;
use crate::engine::table::known::Table;
use crate::engine::table::replica::Replica;
use crate::engine::table::shapes;

/// Records what a definition declares, of the subjects that count. Returns whether that adds anything.
pub(crate) fn record_declared(
    replica: &Replica,
    tid: i64,
    (def, id): (&TableDef, DefId),
    stamp: &Stamp<'_>,
    counts: &dyn Fn(Subject, &str) -> bool,
) -> Result<bool> {
    let mut any = false;
    let had_seen = |dev: i64, seq: u64| dev == stamp.dev || stamp.seen.of(dev) >= seq;
    dropped::record_again(replica, tid, def, &had_seen)?;
    for (what, name, value) in items(def)?.into_iter().filter(|(what, name, _)| counts(*what, name)) {
        if !stamp.decides
            && is_repeated(replica, (tid, what, &name), &value, &had_seen)?
            && !is_changed_back(replica, (tid, what, &name), &value, stamp, &had_seen)?
        {
            continue;
        }
        any = true;
        for (dev, seq) in declared::standing(replica, tid, what, &name)? {
            if had_seen(dev, seq) {
                replica
                    .db
                    .prepare_cached(
                        "UPDATE _pm_declared SET past = 1
                         WHERE tid = ?1 AND what = ?2 AND name = ?3 AND dev = ?4 AND seq = ?5",
                    )?
                    .execute((tid, what, &name, dev, seq))?;
            }
        }
        let place = (stamp.dev, stamp.seq, stamp.lamport);
        declared::record(replica, tid, (what, &name), place, &value, id)?;
        if what == Subject::Unique {
            equalise_claims(replica, tid, stamp)?;
        }
    }
    Ok(any)
}

/// Returns whether a declaration says what another one said that its author had seen.
fn is_repeated(
    replica: &Replica,
    (tid, what, name): (i64, Subject, &str),
    value: &[u8],
    had_seen: &dyn Fn(i64, u64) -> bool,
) -> Result<bool> {
    let mut statement = replica.db.prepare_cached(
        "SELECT dev, seq FROM _pm_declared WHERE tid = ?1 AND what = ?2 AND past IN (0, 1) AND name = ?3 AND value = ?4",
    )?;
    let mut rows = statement.query((tid, what, name, value))?;
    while let Some(row) = rows.next()? {
        if had_seen(row.get(0)?, row.get(1)?) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns whether a device says again of a column what was said before, since it has made it so again: what it had there till
/// then, and what was said last of all that it had seen, is something else; or it had the column, had it no more, and nobody
/// has said anything of it since. A device that comes with an old form of the table changes nothing by that.
///
/// One that takes back what it had announced as changed says so too: others may have followed it meanwhile.
fn is_changed_back(
    replica: &Replica,
    (tid, what, name): (i64, Subject, &str),
    value: &[u8],
    stamp: &Stamp<'_>,
    had_seen: &dyn Fn(i64, u64) -> bool,
) -> Result<bool> {
    if what != Subject::Column {
        return Ok(false);
    }
    let announced = shapes::announced_before(replica, tid, (stamp.dev, stamp.seq))?;
    if let Some((def, _)) = announced.filter(|(_, bits)| bits.says(SchemaBits::CHANGED))
        && def.column(name).map(|at| def.columns[at].kind()).transpose()?.is_some_and(|kind| kind != value)
    {
        return Ok(true);
    }
    // What it had last, and from when on nobody may have said anything: since it had the column no more, if that is so.
    let (mut was, mut since) = (None, None);
    shapes::each_before(replica, tid, (stamp.dev, stamp.seq), &mut |def, at| {
        since = since.or(Some(if def.column(name).is_some() { u64::MAX } else { at }));
        was = def.column(name).map(|at| def.columns[at].kind());
        was.is_none()
    })?;
    let (Some(was), Some(since)) = (was.transpose()?, since) else { return Ok(false) };
    if since == u64::MAX && was == value {
        return Ok(false);
    }
    let mut statement = replica.db.prepare_cached(
        "SELECT p.dev, p.seq, p.lamport, d.id, p.value FROM _pm_declared p JOIN _pm_device d ON d.n = p.dev
         WHERE p.tid = ?1 AND p.what = ?2 AND p.name = ?3",
    )?;
    let mut rows = statement.query((tid, what, name))?;
    let mut last: Option<(u64, DeviceId, Vec<u8>)> = None;
    while let Some(row) = rows.next()? {
        if had_seen(row.get(0)?, row.get(1)?) {
            last = last.max(Some((row.get(2)?, DeviceId(row.get(3)?), row.get(4)?)));
        }
    }
    Ok(last.is_some_and(|(lamport, _, last)| lamport <= since && last != value))
}

/// Returns whether what a person decides of a column adds it for all devices: its author had none of it in what it announced
/// before, and nobody has said anything else of it since. Who decides on a column of which devices disagree, or on how it
/// merges, adds none where an application lacks it.
pub(crate) fn is_addition(
    replica: &Replica,
    tid: i64,
    column: &ColumnDef,
    stamp: &Stamp<'_>,
) -> Result<bool> {
    let (mut last, mut had, mut since) = (None, false, 0);
    shapes::each_before(replica, tid, (stamp.dev, stamp.seq), &mut |def, at| match &last {
        None => {
            last = Some(def);
            true
        }
        Some(last) if *last == def => true,
        Some(_) => {
            (had, since) = (def.column(&column.name).is_some(), at);
            false
        }
    })?;
    let is_it = |c: &ColumnDef| c.stores_like(column) && c.merge == column.merge;
    let has = |def: &TableDef| def.column(&column.name).is_some_and(|at| is_it(&def.columns[at]));
    if had || !last.as_ref().is_some_and(has) {
        return Ok(false);
    }
    let sql = "SELECT dev, seq FROM _pm_declared WHERE tid = ?1 AND what = ?2 AND name = ?3 AND value <> ?4 AND lamport > ?5";
    let mut statement = replica.db.prepare_cached(sql)?;
    let name = column.name.to_ascii_lowercase();
    let mut rows = statement.query((tid, Subject::Column, name, column.kind()?, since))?;
    while let Some(row) = rows.next()? {
        let (dev, seq): (i64, u64) = (row.get(0)?, row.get(1)?);
        if dev == stamp.dev || stamp.seen.of(dev) >= seq {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Makes all claims equally old that the author of a UNIQUE had seen.
fn equalise_claims(replica: &Replica, tid: i64, stamp: &Stamp<'_>) -> Result<()> {
    stretches::spread(replica, Some(tid))?;
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

/// Makes the table here what was declared. `disputed` are the columns that were disputed before.
pub(crate) fn apply_declarations(replica: &Replica, tid: i64, disputed: &Columns) -> Result<()> {
    catalog::reload_table(replica, tid)?;
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
        && let Err(why) = retype(replica, &table, &def, &retyped, disputed)?
    {
        let (reason, name) = (why, &table.def.name);
        suspended::suspend(replica, &table, &reason)?;
        meta::notice(&replica.db, &format!("table `{name}` is suspended: {reason}"), replica.now())?;
        return catalog::reload_table(replica, tid);
    }
    let new_counters: Vec<usize> =
        def.counters().into_iter().filter(|at| !table.counters.contains(at)).collect();
    let changed = def != table.def;
    if changed {
        adopt::adopt_def(replica, tid, &def)?;
        catalog::reload_table(replica, tid)?;
    }
    let table = catalog::table(replica, tid)?;
    if changed || *disputed != table.disputed {
        watch::install_capture(replica, &table)?;
        adopt::remember_schema(replica)?;
    }
    for at in new_counters {
        recount(replica, &table, at)?;
    }
    if changed || !disputed.clone().minus(&table.disputed).is_empty() {
        deferred::defer_all(replica, tid)?;
    }
    Ok(())
}

/// Returns whether any device ever declared a column to be a counter.
fn was_counter(replica: &Replica, tid: i64, name: &str) -> Result<bool> {
    let sql = "SELECT 1 FROM _pm_declared WHERE tid = ?1 AND what = ?4 AND past IN (0, 1) AND name = ?2 AND value = ?3 LIMIT 1";
    let counter = rule_value(ColumnMerge::Counter);
    let params = (tid, name.to_ascii_lowercase(), counter, Subject::Rule);
    Ok(value::maybe::<i64>(&replica.db, sql, params)?.is_some())
}

/// Makes a notice of the different ways in which devices want a table to merge, and of which one holds.
fn notice_of_merges(replica: &Replica, table: &Table, column: &str, declared: &[Declared]) -> Result<()> {
    let [first, others @ ..] = declared else { return Ok(()) };
    if others.is_empty() {
        return Ok(());
    }
    let show = |declared: &Declared| -> Result<String> {
        let def = &catalog::op_def(replica, declared.def)?.def;
        let how = match def.column(column) {
            Some(at) => format!("{column} = {}", rule_word(def.columns[at].merge)),
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
        "table `{0}` was tracked with {1} and concurrently with {others}: {holds}; \
         tracking it again with other options on one device changes it on all",
        table.def.name,
        show(first)?
    );
    meta::notice(&replica.db, &what, replica.now())
}

/// Records that Packmule has made a column in an application's table, in the place of one that was renamed to make room: it
/// follows what the others do with theirs.
pub(crate) fn record_made(replica: &Replica, tid: i64, name: &str) -> Result<()> {
    meta::set(&replica.db, &made_key(tid, name), true)
}

/// Returns whether Packmule has made a column in an application's table.
pub(crate) fn is_made(replica: &Replica, tid: i64, name: &str) -> Result<bool> {
    Ok(meta::get::<bool>(&replica.db, &made_key(tid, name))? == Some(true))
}

/// Records that a column that Packmule may have made is called otherwise now, or is gone.
pub(crate) fn move_made(replica: &Replica, tid: i64, name: &str, now: Option<&str>) -> Result<()> {
    if is_made(replica, tid, name)? {
        meta::forget(&replica.db, &made_key(tid, name))?;
        now.map_or(Ok(()), |now| record_made(replica, tid, now))?;
    }
    Ok(())
}

fn made_key(tid: i64, name: &str) -> String {
    format!("column made {tid} {}", name.to_ascii_lowercase())
}

/// Replaces columns of a table by ones of another kind. Their values are converted as SQLite stores them there: those of rows
/// that are settled are nowhere else. Where a column was disputed, what it gave to rows itself becomes what the other gives
/// them. Returns the reason if that is not possible.
fn retype(
    replica: &Replica,
    table: &Table,
    def: &TableDef,
    columns: &[usize],
    disputed: &Columns,
) -> Result<std::result::Result<(), String>> {
    watch::remove_triggers(replica, table.tid)?;
    replica.db.execute_batch("SAVEPOINT _pm_retype")?;
    for at in columns {
        let column = &def.columns[*at];
        let given = disputed.contains(*at).then(|| value::literal(&table.def.columns[*at].constant()));
        let (quarantine, c) = (table.quarantine_table(), value::quote(&column.name));
        let quarantine_table = replace_sql(&quarantine, &c, &def.quarantine_sql(column), given.as_deref());
        let replaced = replace_column(replica, &def.name, def, column, given.as_deref());
        if let Err(error) = replaced.and_then(|()| Ok(replica.db.execute_batch(&quarantine_table)?)) {
            let Error::Sqlite(e) = &*error else { return Err(error) };
            if !matches!(
                e.sqlite_error_code(),
                Some(rusqlite::ErrorCode::Unknown | rusqlite::ErrorCode::ConstraintViolation)
            ) {
                return Err(error);
            }
            let said = e.to_string();
            connection::undo(&replica.db, "_pm_retype", error)?;
            meta::set(&replica.db, &owed_key(table.tid), column.name.to_ascii_lowercase())?;
            watch::install_capture(replica, table)?;
            return Ok(Err(format!(
                "its column `{}` was decided to be {}, and cannot be changed here ({said}); rename it with ALTER TABLE, and \
                 one that is so is added: until then its rows wait, here and from other devices, and nothing is lost",
                column.name,
                column.show()
            )));
        }
    }
    replica.db.execute_batch("RELEASE _pm_retype")?;
    Ok(Ok(()))
}

/// Returns whether a column is to be of another kind, and could not be made so: once it is gone, one that is so is added.
pub(crate) fn is_owed(replica: &Replica, tid: i64, name: &str) -> Result<bool> {
    let owed = meta::get::<String>(&replica.db, &owed_key(tid))?;
    Ok(owed.is_some_and(|owed| owed.eq_ignore_ascii_case(name)))
}

/// Forgets which column of a table was to be of another kind: it is.
pub(crate) fn forget_owed(replica: &Replica, tid: i64) -> Result<()> {
    meta::forget(&replica.db, &owed_key(tid))
}

fn owed_key(tid: i64) -> String {
    format!("column owed {tid}")
}

/// Drops a column of a table, and adds one of this name as a definition has it, with its values but those that
/// are `given`.
fn replace_column(
    replica: &Replica,
    name: &str,
    def: &TableDef,
    column: &ColumnDef,
    given: Option<&str>,
) -> Result<()> {
    // An index over the column prevents the drop: it is dropped before and made again after.
    let indexes = replica
        .db
        .prepare(
            "SELECT l.name, s.sql FROM pragma_index_list(?1) l CROSS JOIN sqlite_schema s ON s.name = l.name
             WHERE l.origin = 'c' AND (l.partial OR EXISTS (
               SELECT 1 FROM pragma_index_xinfo(l.name) i WHERE i.key AND (i.name IS NULL OR i.name = ?2 COLLATE NOCASE)))",
        )?
        .query_map((name, &column.name), |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<Vec<(String, String)>>>()?;
    for (index, _) in &indexes {
        replica.db.execute_batch(&format!("DROP INDEX main.{}", value::quote(index)))?;
    }
    let (table, c) = (format!("main.{}", value::quote(name)), value::quote(&column.name));
    replica.db.execute_batch(&replace_sql(&table, &c, &def.addable_sql(column), given))?;
    for (_, sql) in &indexes {
        replica.db.execute_batch(sql)?;
    }
    Ok(())
}

/// Returns what drops the column `c` of a table, and adds one of this name with its values but those that are
/// `given`, which it gives itself.
fn replace_sql(table: &str, c: &str, column: &str, given: Option<&str>) -> String {
    let kept = given.map_or(String::new(), |given| format!(" WHERE _pm_kept IS NOT {given}"));
    // They are kept in a column without a type, which converts nothing.
    format!(
        "ALTER TABLE {table} ADD COLUMN _pm_kept; UPDATE {table} SET _pm_kept = {c};
         ALTER TABLE {table} DROP COLUMN {c}; ALTER TABLE {table} ADD COLUMN {column};
         UPDATE {table} SET {c} = _pm_kept{kept}; ALTER TABLE {table} DROP COLUMN _pm_kept;"
    )
}

/// Records what the remembered versions say of a column that became a counter: its value.
fn recount(replica: &Replica, table: &Table, column: usize) -> Result<()> {
    context_free::each_remembered(replica, table.tid, &mut |key| {
        for head in heads::heads(replica, table.tid, key)? {
            let speaks = head.kind == OpKind::Delete || head.live(table.def.columns.len()).contains(column);
            let values = if speaks { versions::values(replica, table, &head)? } else { Vec::new() };
            if let Some((_, value)) = values.into_iter().find(|(at, _)| *at == column) {
                counters::count_as_is(replica, table, key, column, &head, &value)?;
            }
        }
        Ok(())
    })
}

/// Returns what a definition declares: about what, of which column, and the value that is compared.
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

/// Returns a column's rule in the form that is compared.
fn rule_value(rule: ColumnMerge) -> Vec<u8> {
    rule_word(rule).into()
}

/// Returns the word for a column's rule.
fn rule_word(rule: ColumnMerge) -> &'static str {
    match rule {
        ColumnMerge::Table => "none",
        ColumnMerge::Counter => "counter",
        ColumnMerge::Max => "max",
        ColumnMerge::Min => "min",
        ColumnMerge::Lww => "lww",
    }
}

/// Returns what a column was declared to be, the earliest declaration first; several where it is disputed.
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
