//! Writes and deletes rows of the applications' tables as ops say.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use packmule_core::model::{Big, DeviceId, Stream, Value, WallMs};
use packmule_core::wire::{Op, OpKind};
use rusqlite::{CachedStatement, Connection, MAIN_DB, params_from_iter};

use crate::engine::error::{Error, Result};
use crate::engine::log::frames;
use crate::engine::show::triggers;
use crate::engine::store::value::{self, Bind};
use crate::engine::table::columns::Columns;
use crate::engine::table::known::{Carried, OpDef, Table};
use crate::engine::table::large;
use crate::engine::table::replica::Replica;

/// How many ops and rows an import touched.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    pub ops: u64,
    pub waiting: u64,
    /// By table, those that wait for it.
    pub waiting_for: BTreeMap<i64, u64>,
    /// By table, those that went into another table, which gathers them apart.
    pub apart: BTreeMap<i64, u64>,
}

/// How ops of one definition are written into their table here.
pub(crate) struct Writer<'e> {
    db: &'e Connection,
    pub table: Arc<Table>,
    /// For each column of the definition, its number here.
    pub columns: Vec<Option<usize>>,
    /// For an op that carries the whole row.
    upsert: String,
    /// It stays prepared as long as such ops come: to look for it costs as much as half of what it does.
    prepared: RefCell<Option<CachedStatement<'e>>>,
    pub delete: String,
    /// The definition has all the columns of the table here.
    pub whole: bool,
    /// What the author is called in a gathered table's first column.
    pub label: Option<String>,
    /// The definition has the primary key of the table here.
    pub same_key: bool,
}

impl<'e> Writer<'e> {
    /// Prepares the statements by which ops of a definition are written into a table.
    pub(crate) fn new(replica: &'e Replica, table: Arc<Table>, def: &OpDef, label: Option<String>) -> Self {
        let columns: Vec<Option<usize>> = def.def.columns.iter().map(|c| table.def.column(&c.name)).collect();
        let mut present: Vec<usize> = columns.iter().copied().flatten().collect();
        let whole = present.len() == table.def.columns.len();
        present.retain(|at| !table.leaves(*at));
        let (upsert, delete) = (table.upsert_sql(&present), table.delete_sql());
        let same_key = table.def.has_key_of(&def.def);
        let (db, prepared) = (&replica.db, RefCell::default());
        Self { db, upsert, prepared, delete, columns, whole, label, same_key, table }
    }

    /// Writes a whole row: the label where rows are gathered, then the values of the columns that are here.
    fn put<'v>(&'v self, values: impl Iterator<Item = Value<'v>>) -> Result<()> {
        let mut prepared = self.prepared.borrow_mut();
        let statement = match prepared.as_mut() {
            Some(statement) => statement,
            None => {
                let statement = prepared.insert(self.db.prepare_cached(&self.upsert)?);
                // It is the same for all rows, and stays bound.
                self.label.iter().try_for_each(|label| statement.raw_bind_parameter(1, label))?;
                statement
            }
        };
        let mut bound = usize::from(self.label.is_some());
        for value in values {
            bound += 1;
            statement.raw_bind_parameter(bound, Bind(value))?;
        }
        if bound != statement.parameter_count() {
            return Err(Error::damaged("a whole row without all its columns"));
        }
        statement.raw_execute()?;
        Ok(())
    }

    /// Returns the columns here that an op writes, or `None` if it writes all of them.
    pub(crate) fn carried(&self, def: &OpDef, op: &Op<'_>) -> Option<Columns> {
        if op.head.kind == OpKind::Delete || (self.whole && op.head.columns.is_none()) {
            return None;
        }
        Some(op.values(def.shape()).filter_map(|(at, _)| self.columns[at]).collect())
    }
}

/// Which frame an op comes from: its author, its number in the author's log, and its timestamps.
pub(crate) struct Origin {
    pub dev: i64,
    pub author: DeviceId,
    pub stream: Stream,
    pub seq: u64,
    pub lamport: u64,
    pub wall: WallMs,
}

/// Makes a table's row what an op says, of which these are the values: written, or deleted. Updates leave counters as they
/// are.
///
/// Returns false if the op writes a part of a row, and the row is not there.
pub(crate) fn write_row(
    replica: &Replica,
    writer: &Writer<'_>,
    def: &OpDef,
    (op, values): (&Op<'_>, &[Carried<'_>]),
    origin: &Origin,
) -> Result<bool> {
    let table = &writer.table;
    let label = writer.label.iter().map(|l| Value::Text(l.as_bytes()));
    let keys = def
        .keys
        .iter()
        .filter_map(|(at, _)| values.iter().find(|(column, _)| column == at).map(|(_, value)| *value));
    let key = || label.clone().chain(keys.clone()).map(Bind);
    if op.head.kind == OpKind::Delete {
        triggers::firing(replica, table, || {
            Ok(replica.db.prepare_cached(&writer.delete)?.execute(params_from_iter(key()))?)
        })?;
        return Ok(true);
    }
    let partial = op.head.columns.is_some() || (op.head.kind == OpKind::Update && !table.counters.is_empty());
    let local = triggers::has_local_triggers(replica, table)?;
    if !partial && !local && !values.iter().any(|(_, value)| matches!(value, Value::Big(_))) {
        let here = |at: usize| writer.columns[at].is_some_and(|column| !table.leaves(column));
        writer.put(values.iter().filter(|(at, _)| here(*at)).map(|(_, value)| *value))?;
        return Ok(true);
    }
    let written = values.iter().filter_map(|(at, value)| {
        let column = writer.columns[*at].filter(|column| !table.leaves(*column))?;
        let spelling = op.head.columns.is_none() || def.def.columns[*at].key == 0;
        (!partial || (spelling && !table.counters.contains(&column))).then_some((column, *value))
    });
    let written: Vec<(usize, Value<'_>)> = written.collect();
    let large = read_large(replica, table, &written, origin)?;
    let mut texts = large.texts.iter();
    let columns = || written.iter().map(|(column, _)| *column).collect::<Vec<usize>>();
    let values = written.iter().map(|(column, value)| match value {
        Value::Big(_) if large.blobs.iter().any(|(c, _)| c == column) => *value,
        Value::Big(big) => {
            let whole = texts.next().map(Vec::as_slice).unwrap_or_default();
            if big.text { Value::Text(whole) } else { Value::Blob(whole) }
        }
        value => *value,
    });
    let values: Vec<Bind<'_>> = values.map(Bind).collect();
    let done = if local {
        let (key, columns) = (key().collect::<Vec<_>>(), columns());
        triggers::write_difference(replica, table, &key, &columns, &values, !partial)?
    } else if partial {
        let bound = params_from_iter(values.into_iter().chain(key()));
        replica.db.prepare_cached(&table.update_sql(&columns()))?.execute(bound)? > 0
    } else {
        writer.put(values.into_iter().map(|Bind(value)| value))?;
        true
    };
    if done && !large.blobs.is_empty() {
        write_blobs(replica, table, &key().collect::<Vec<_>>(), &large.blobs, origin)?;
    }
    Ok(done)
}

/// The large values of an op, which stand in the log in pieces.
#[derive(Default)]
struct Large {
    /// Those that must be put together in memory, in the order of the op's values.
    texts: Vec<Vec<u8>>,
    /// Those that are written into their place piece by piece, by column.
    blobs: Vec<(usize, Big)>,
}

/// Reads the large values of an op as far as they cannot be written piece by piece. Text must be put together.
fn read_large(
    replica: &Replica,
    table: &Table,
    written: &[(usize, Value<'_>)],
    origin: &Origin,
) -> Result<Large> {
    let row = (origin.dev, origin.stream, origin.seq);
    let mut large = Large::default();
    for (column, value) in written {
        let (Value::Big(big), column) = (value, *column) else { continue };
        if big.text || !takes_pieces(replica, table, column)? {
            let mut whole = Vec::new();
            frames::pieces(replica, row, big, |bytes| {
                whole.extend_from_slice(bytes);
                Ok(())
            })?;
            large.texts.push(whole);
        } else {
            // All pieces must be there before room is made for them.
            frames::pieces(replica, row, big, |_| Ok(()))?;
            if big.len > i32::MAX as u64 {
                return Err(Error::damaged("a BLOB of more than 2 GiB"));
            }
            large.blobs.push((column, *big));
        }
    }
    Ok(large)
}

/// Writes large BLOBs piece by piece into a row that has room for them.
fn write_blobs(
    replica: &Replica,
    table: &Table,
    key: &[Bind<'_>],
    blobs: &[(usize, Big)],
    origin: &Origin,
) -> Result<()> {
    let rowid: i64 = replica
        .db
        .prepare_cached(&table.select_sql(table.def.rowid_name()))?
        .query_row(params_from_iter(key), |row| row.get(0))?;
    for (column, big) in blobs {
        let name = table.def.columns[*column].name.as_str();
        let mut blob = replica.db.blob_open(MAIN_DB, table.def.name.as_str(), name, rowid, false)?;
        let mut at = 0;
        frames::pieces(replica, (origin.dev, origin.stream, origin.seq), big, |bytes| {
            blob.write_at(bytes, at)?;
            at += bytes.len();
            Ok(())
        })?;
    }
    Ok(())
}

/// Returns whether a BLOB of a column may be written piece by piece into a row that has room for it. Nothing may look
/// at the value before: no index, no CHECK, none of the application's triggers.
pub(crate) fn takes_pieces(replica: &Replica, table: &Table, column: usize) -> Result<bool> {
    if table.is_whole() || is_indexed(replica, table, column)? || large::is_checked(replica, table)? {
        return Ok(false);
    }
    let local = triggers::has_local_triggers(replica, table)?;
    Ok(!(local && triggers::triggers_read(replica, table, column)))
}

/// Returns whether SQLite refuses incremental writing for a column.
pub(crate) fn is_indexed(replica: &Replica, table: &Table, column: usize) -> Result<bool> {
    let name = &table.def.columns[column].name;
    let found: Option<i64> = value::maybe(
        &replica.db,
        "SELECT 1 FROM pragma_index_list(?1) l, pragma_index_info(l.name) i WHERE i.name = ?2 OR i.name IS NULL LIMIT 1",
        (&table.def.name, name),
    )?;
    Ok(found.is_some())
}

/// Deletes a row by its canonical key, which SQLite compares as equal to the stored one.
pub(crate) fn delete_row(replica: &Replica, table: &Table, key: &[u8]) -> Result<()> {
    let values = value::read_key(key)?;
    let sql = table.delete_sql();
    triggers::firing(replica, table, || {
        let values = values.iter().map(|value| Bind(value.borrow()));
        replica.db.prepare_cached(&sql)?.execute(params_from_iter(values))?;
        Ok(())
    })
}
