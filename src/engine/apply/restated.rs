//! Applying a group that restates rows of a table: what it says itself, and what it has no op of.
//!
//! `merge/restated.rs` states what holds of restated versions. A row that is as the op says is not written, and its op
//! does not count.

use packmule_core::model::Value;
use packmule_core::wire::{DefId, Op, OpKind, Span};
use rusqlite::params_from_iter;

use crate::engine::apply::admissible::SpanOrder;
use crate::engine::capture::dirty::{self, ChangeFlags};
use crate::engine::error::Result;
use crate::engine::fleet::devices::BASELINE;
use crate::engine::merge::folds::{self, Fold};
use crate::engine::merge::heads::{self, Head, Seen};
use crate::engine::merge::{compose, deferred, late, versions, written};
use crate::engine::show::write::{self, Writer};
use crate::engine::show::{constraints, references};
use crate::engine::store::value::{self, Bind, OwnedValue};
use crate::engine::table::catalog;
use crate::engine::table::columns::Columns;
use crate::engine::table::known::{OpDef, State, Table};
use crate::engine::table::replica::Replica;

/// The rows that the group in hand has ops of, and those of them that are gone here.
const TEMP: &str = "
    CREATE TEMP TABLE IF NOT EXISTS _pm_restated (tid INTEGER, key BLOB, PRIMARY KEY (tid, key)) WITHOUT ROWID;
    CREATE TEMP TABLE IF NOT EXISTS _pm_left_out (key BLOB PRIMARY KEY) WITHOUT ROWID;
    CREATE TEMP TABLE IF NOT EXISTS _pm_spanned (n INTEGER PRIMARY KEY, def BLOB, first BLOB, last BLOB);
    DELETE FROM temp._pm_restated; DELETE FROM temp._pm_spanned;
";

/// A span: the definition of its table, and the keys of its ends.
type Spanned = (DefId, Vec<u8>, Vec<u8>);

/// A group that restates a table.
pub(crate) struct Restating<'a> {
    pub dev: i64,
    /// Its last frame.
    pub last: u64,
    pub seen: &'a Seen<'a>,
    /// The first fold here that its author had not seen: what that settled, and later ones, waits for a verdict.
    pub late: Option<Fold>,
}

impl Restating<'_> {
    /// Returns whether its author had not seen a version.
    pub(crate) fn is_unseen(&self, head: &Head) -> bool {
        head.seq > if head.dev == self.dev { self.last } else { self.seen.of(head.dev) }
    }
}

/// The spans of a group: they lie in `_pm_spanned`, since a group may have any number of them.
#[derive(Default)]
pub(crate) struct Spans {
    any: bool,
    order: SpanOrder,
}

impl Spans {
    /// Takes a span down.
    pub(crate) fn take_down(&mut self, replica: &Replica, span: &Span<'_>) -> Result<()> {
        self.order.check(&replica.db, &*catalog::op_def(replica, span.def)?, span)?;
        if !self.any {
            replica.db.execute_batch(TEMP)?;
            self.any = true;
        }
        let sql = "INSERT INTO temp._pm_spanned (def, first, last) VALUES (?1, ?2, ?3)";
        replica.db.prepare_cached(sql)?.execute((span.def.0, span.from, span.to))?;
        Ok(())
    }

    /// Takes down that the group has an op of a row.
    pub(crate) fn note(&self, replica: &Replica, tid: i64, key: &[u8]) -> Result<()> {
        if !self.any {
            return Ok(());
        }
        replica
            .db
            .prepare_cached("INSERT OR IGNORE INTO temp._pm_restated (tid, key) VALUES (?1, ?2)")?
            .execute((tid, key))?;
        Ok(())
    }

    /// Takes one out.
    pub(crate) fn take(&self, replica: &Replica) -> Result<Option<Spanned>> {
        if !self.any {
            return Ok(None);
        }
        let sql = "DELETE FROM temp._pm_spanned WHERE n = (SELECT min(n) FROM temp._pm_spanned) RETURNING def, first, last";
        let mut statement = replica.db.prepare_cached(sql)?;
        let mut rows = statement.query([])?;
        rows.next()?.map(|row| Ok((DefId(row.get(0)?), row.get(1)?, row.get(2)?))).transpose()
    }
}

/// Returns whether the row that is shown is as an op says.
pub(super) fn is_as_it_was(
    replica: &Replica,
    writer: &Writer<'_>,
    key: &[u8],
    def: &OpDef,
    op: &Op<'_>,
) -> Result<bool> {
    let table = &writer.table;
    if table.state == State::Gathered {
        return Ok(false);
    }
    let Some(row) = compose::shown_row(replica, table, key)? else {
        return Ok(op.head.kind == OpKind::Delete);
    };
    if op.head.kind == OpKind::Delete {
        return Ok(false);
    }
    for (at, said) in op.values(def.shape()) {
        let Some(column) = writer.columns[at].filter(|column| !table.leaves(*column)) else { continue };
        if !versions::is_equal(&said, &row[column]) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Removes the rows of a span that the group has no op of, but for those that `stay`. Returns how many.
pub(crate) fn remove_left_out(
    replica: &Replica,
    writer: &Writer<'_>,
    (from, to): (&[u8], &[u8]),
    by: &Restating<'_>,
    stay: &dyn Fn(&Table, &[u8]) -> Result<bool>,
) -> Result<u64> {
    let table = &writer.table;
    list_left_out(replica, writer, from, to)?;
    let mut removed = 0;
    loop {
        let sql = "DELETE FROM temp._pm_left_out WHERE key = (SELECT min(key) FROM temp._pm_left_out) RETURNING key";
        let Some(key) = value::maybe::<Vec<u8>>(&replica.db, sql, [])? else { return Ok(removed) };
        removed += u64::from(match table.state {
            State::Gathered => remove_gathered(replica, writer, &key)?,
            _ => remove_row(replica, table, &key, by, stay)?,
        });
    }
}

/// Lists in `_pm_left_out` the rows of a span that the group has no op of.
fn list_left_out(replica: &Replica, writer: &Writer<'_>, from: &[u8], to: &[u8]) -> Result<()> {
    let table = &writer.table;
    let keys = table.def.key_list("");
    let mut binds = Vec::new();
    let mut conditions = Vec::new();
    for (key, compared) in [(from, ">="), (to, "<=")] {
        let values = value::read_key(key)?;
        if !values.is_empty() {
            let marks: Vec<String> = (1..=values.len()).map(|n| format!("?{}", n + binds.len())).collect();
            conditions.push(format!("({keys}) {compared} ({})", marks.join(", ")));
            binds.extend(values);
        }
    }
    if let Some(label) = &writer.label {
        binds.push(OwnedValue::Text(label.clone().into_bytes()));
        conditions.push(format!("device = ?{}", binds.len()));
    }
    let given = if conditions.is_empty() { "1".into() } else { conditions.join(" AND ") };
    let sql = format!("SELECT {keys} FROM {} WHERE {given}", table.sql_name);
    let mut statement = replica.db.prepare(&sql)?;
    let mut put = replica.db.prepare_cached(
        "INSERT OR IGNORE INTO temp._pm_left_out (key) SELECT ?2
         WHERE NOT EXISTS (SELECT 1 FROM temp._pm_restated WHERE tid = ?1 AND key = ?2)",
    )?;
    let mut rows = statement.query(params_from_iter(binds.iter().map(|v| Bind(v.borrow()))))?;
    while let Some(row) = rows.next()? {
        put.execute((table.tid, table.key_in(row)?))?;
    }
    Ok(())
}

/// Removes a row of another device that a base gathers.
fn remove_gathered(replica: &Replica, writer: &Writer<'_>, key: &[u8]) -> Result<bool> {
    let keys = value::read_key(key)?;
    let label = writer.label.iter().map(|l| Value::Text(l.as_bytes()));
    let binds = label.chain(keys.iter().map(OwnedValue::borrow)).map(Bind);
    Ok(replica.db.prepare_cached(&writer.delete)?.execute(params_from_iter(binds))? > 0)
}

/// Removes a shared row, unless it has a version that the author had not seen.
fn remove_row(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    by: &Restating<'_>,
    stay: &dyn Fn(&Table, &[u8]) -> Result<bool>,
) -> Result<bool> {
    let heads = heads::all_heads(replica, table.tid, key)?;
    let Some(row) = compose::shown_row(replica, table, key)? else { return Ok(false) };
    if stay(table, key)? {
        return Ok(false);
    }
    if heads.iter().any(|head| by.is_unseen(head)) {
        give_again(replica, table, key, Some(by))?;
        return Ok(false);
    }
    let unplaced = match by.late {
        Some(unseen) if heads.is_empty() => !folds::settled_before(replica, table.tid, key, unseen)?,
        _ => false,
    };
    if unplaced {
        late::keep_row(replica, table, key, &row)?;
        return Ok(false);
    }
    for head in heads.iter().filter(|head| head.weak || (head.dev, head.seq) == (BASELINE, 0)) {
        written::forget_head(replica, table.tid, key, head)?;
    }
    keep_image(replica, table, key, &row)?;
    constraints::before_change(replica, table, key)?;
    if table.is_parent {
        references::record_deleted(replica, table, key)?;
        references::record_changed(replica, table)?;
    }
    write::delete_row(replica, table, key)?;
    deferred::undefer(replica, table.tid, key)?;
    Ok(true)
}

/// Keeps what a row was that a restated delete removes, as long as a write may come whose author had not seen that it is
/// gone: it may be of some columns, and nobody may remember the others.
fn keep_image(replica: &Replica, table: &Table, key: &[u8], row: &[OwnedValue]) -> Result<()> {
    let body = versions::write_baseline(table, row, &Columns::all(table.def.columns.len()))?;
    let gone = Head { kind: OpKind::Delete, weak: true, ..Head::baseline(0, None) };
    written::forget_head(replica, table.tid, key, &gone)?;
    written::insert_image(replica, table.tid, key, &gone, &body)
}

/// Keeps what a row was that a restated delete, which is registered, removes. Where it lost, its author gets again what it
/// lacks of the row.
pub(super) fn keep_deleted(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    new: &Head,
    seen: &Seen<'_>,
) -> Result<()> {
    let heads = heads::all_heads(replica, table.tid, key)?;
    if !heads::is_in(&heads, new) {
        let by = Restating { dev: new.dev, last: new.seq, seen, late: None };
        return give_again(replica, table, key, Some(&by));
    }
    match compose::shown_row(replica, table, key)? {
        Some(row) => keep_image(replica, table, key, &row),
        None => Ok(()),
    }
}

/// Returns whether an op says that its author has nothing of the row but what others wrote.
pub(crate) fn is_lacking(def: &OpDef, op: &Op<'_>) -> bool {
    op.head.kind == OpKind::Update
        && op.values(def.shape()).all(|(at, _)| def.def.columns[at].key > 0)
        && def.def.columns.iter().any(|column| column.key == 0)
}

/// Writes a row again of which another device has lost all but what this one wrote: all of that, or what the
/// author of the group `by` had not seen of it.
pub(crate) fn give_again(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    by: Option<&Restating<'_>>,
) -> Result<()> {
    let n = table.def.columns.len();
    let heads = heads::all_heads(replica, table.tid, key)?;
    let has = |head: &&Head| by.is_none_or(|by| by.is_unseen(head));
    let own = |head: &&Head| head.dev == replica.me && head.kind != OpKind::Delete;
    let ours: Vec<&Head> = heads.iter().filter(own).filter(has).collect();
    let whole = (0..n).all(|at| ours.iter().any(|head| head.live(n).contains(at)));
    if ours.is_empty() || whole || compose::shown_row(replica, table, key)?.is_none() {
        return Ok(());
    }
    dirty::record_key(replica, table, &value::read_key(key)?, ChangeFlags::INSERT)
}
