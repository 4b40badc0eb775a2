//! Rows written and deleted.

use std::sync::Arc;

use packmule_core::model::{Big, DeviceId, Stream, Value, WallMs};
use packmule_core::wire::{Op, OpKind, Shape};
use rusqlite::{MAIN_DB, params_from_iter};

use crate::engine::error::{Error, Result};
use crate::engine::log::frames;
use crate::engine::show::triggers;
use crate::engine::store::value::{self, Bind};
use crate::engine::table::columns::Columns;
use crate::engine::table::known::{OpDef, Table};
use crate::engine::table::replica::Replica;

/// How many ops and rows an import touched.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub ops: u64,
    pub waiting: u64,
}

/// How ops of one definition are written into their table here.
pub(crate) struct Writer {
    pub table: Arc<Table>,
    /// For each column of the definition, its number here.
    pub columns: Vec<Option<usize>>,
    /// For an op that carries the whole row.
    pub upsert: String,
    pub delete: String,
    /// The definition has all the columns of the table here.
    pub whole: bool,
    /// What the author is called in a gathered table's first column.
    pub label: Option<String>,
    /// The definition has the primary key of the table here.
    pub same_key: bool,
}

impl Writer {
    pub(crate) fn new(table: Arc<Table>, def: &OpDef, label: Option<String>) -> Self {
        let columns: Vec<Option<usize>> = def.def.columns.iter().map(|c| table.def.column(&c.name)).collect();
        let mut present: Vec<usize> = columns.iter().copied().flatten().collect();
        let whole = present.len() == table.def.columns.len();
        present.retain(|at| !table.leaves(*at));
        let (upsert, delete) = (table.upsert_sql(&present), table.delete_sql());
        let same_key = table.def.has_key_of(&def.def);
        Self { upsert, delete, columns, whole, label, same_key, table }
    }

    /// The columns here that an op writes; `None` if it is all of them.
    pub(crate) fn carried(&self, def: &OpDef, op: &Op<'_>) -> Option<Columns> {
        if op.head.kind == OpKind::Delete || (self.whole && op.head.columns.is_none()) {
            return None;
        }
        let shape = Shape { keys: &def.key_flags };
        Some(op.values(shape).filter_map(|(at, _)| self.columns[at]).collect())
    }
}

/// Where an op stands.
pub(crate) struct Place {
    pub dev: i64,
    pub author: DeviceId,
    pub stream: Stream,
    pub seq: u64,
    pub lamport: u64,
    pub wall: WallMs,
}

/// Makes a table's row what an op says: written, or deleted. Counters are not touched by updates.
/// Whether there was a row to be updated, where only a part of it is.
pub(crate) fn write_row(
    replica: &Replica,
    writer: &Writer,
    def: &OpDef,
    op: &Op<'_>,
    place: &Place,
) -> Result<bool> {
    let shape = Shape { keys: &def.key_flags };
    let table = &writer.table;
    let label = writer.label.iter().map(|l| Value::Text(l.as_bytes()));
    let values: Vec<(usize, Value<'_>)> = op.values(shape).collect();
    let keys = || {
        def.keys
            .iter()
            .filter_map(|(at, _)| values.iter().find(|(column, _)| column == at).map(|(_, value)| *value))
    };
    if op.head.kind == OpKind::Delete {
        let key: Vec<Bind<'_>> = label.chain(keys()).map(Bind).collect();
        triggers::firing(replica, table, || {
            Ok(replica.db.prepare_cached(&writer.delete)?.execute(params_from_iter(&key))?)
        })?;
        return Ok(true);
    }
    let partial = op.head.columns.is_some() || (op.head.kind == OpKind::Update && !table.counters.is_empty());
    let writes = |at: usize| {
        writer.columns[at]
            .filter(|c| !table.leaves(*c))
            .is_some_and(|c| !partial || (def.def.columns[at].key == 0 && !table.counters.contains(&c)))
    };
    // Text in pieces must be put together, and what a trigger reads; a BLOB is written into its
    // place bit by bit.
    let local = triggers::has_local_triggers(replica, table)?;
    let mut texts: Vec<Vec<u8>> = Vec::new();
    let mut blobs: Vec<(usize, Big)> = Vec::new();
    for (at, value) in &values {
        if let (Value::Big(big), Some(column), true) = (value, writer.columns[*at], writes(*at)) {
            let whole = big.text
                || table.def.without_rowid
                || (local && triggers::triggers_read(replica, table, column));
            if whole || is_indexed(replica, table, column)? {
                let mut whole = Vec::new();
                frames::pieces(replica, (place.dev, place.stream, place.seq), big, |bytes| {
                    whole.extend_from_slice(bytes);
                    Ok(())
                })?;
                texts.push(whole);
            } else {
                // All pieces must be there before room is made for them.
                frames::pieces(replica, (place.dev, place.stream, place.seq), big, |_| Ok(()))?;
                if big.len > i32::MAX as u64 {
                    return Err(Error::damaged("a BLOB of more than 2 GiB"));
                }
                blobs.push((column, *big));
            }
        }
    }
    let mut texts_left = texts.iter();
    let mut bound: Vec<Bind<'_>> = if partial { Vec::new() } else { label.clone().map(Bind).collect() };
    let mut written = Vec::new();
    for (at, value) in &values {
        let Some(column) = writer.columns[*at].filter(|_| writes(*at)) else { continue };
        written.push(column);
        bound.push(Bind(match value {
            Value::Big(_) if blobs.iter().any(|(c, _)| *c == column) => *value,
            Value::Big(big) => {
                let whole = texts_left.next().map(Vec::as_slice).unwrap_or_default();
                if big.text { Value::Text(whole) } else { Value::Blob(whole) }
            }
            value => *value,
        }));
    }
    if local {
        let key: Vec<Bind<'_>> = label.clone().chain(keys()).map(Bind).collect();
        let values = if partial { &bound[..] } else { &bound[bound.len() - written.len()..] };
        let insert = if partial { None } else { Some(table.insert_sql(&written)) };
        if !triggers::write_difference(replica, table, &key, &written, values, insert.as_deref())? {
            return Ok(false);
        }
    } else if partial {
        bound.extend(label.clone().chain(keys()).map(Bind));
        let changed =
            replica.db.prepare_cached(&table.update_sql(&written))?.execute(params_from_iter(bound))?;
        if changed == 0 {
            return Ok(false);
        }
    } else {
        replica.db.prepare_cached(&writer.upsert)?.execute(params_from_iter(bound))?;
    }
    if blobs.is_empty() {
        return Ok(true);
    }
    let key: Vec<Bind<'_>> = label.chain(keys()).map(Bind).collect();
    let rowid: i64 = replica
        .db
        .prepare_cached(&table.select_sql(table.def.rowid_name()))?
        .query_row(params_from_iter(key), |row| row.get(0))?;
    for (column, big) in blobs {
        let name = table.def.columns[column].name.as_str();
        let mut blob = replica.db.blob_open(MAIN_DB, table.def.name.as_str(), name, rowid, false)?;
        let mut at = 0;
        frames::pieces(replica, (place.dev, place.stream, place.seq), &big, |bytes| {
            blob.write_at(bytes, at)?;
            at += bytes.len();
            Ok(())
        })?;
    }
    Ok(true)
}

/// Whether incremental writing is refused for a column.
pub(crate) fn is_indexed(replica: &Replica, table: &Table, column: usize) -> Result<bool> {
    let name = &table.def.columns[column].name;
    let found: Option<i64> = value::maybe(
        &replica.db,
        "SELECT 1 FROM pragma_index_list(?1) l, pragma_index_info(l.name) i WHERE i.name = ?2 OR i.name IS NULL LIMIT 1",
        (&table.def.name, name),
    )?;
    Ok(found.is_some())
}

/// Deletes a row by its canonical key, which SQLite takes for the stored one's equal.
pub(crate) fn delete_row(replica: &Replica, table: &Table, key: &[u8]) -> Result<()> {
    let values = value::read_key(key)?;
    let sql = table.delete_sql();
    triggers::firing(replica, table, || {
        let values = values.iter().map(|value| Bind(value.borrow()));
        replica.db.prepare_cached(&sql)?.execute(params_from_iter(values))?;
        Ok(())
    })
}
