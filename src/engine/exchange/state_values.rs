//! The rows of a state, put into their tables here: values by the maker's columns, large ones part by part.

use std::collections::HashMap;
use std::ops::Range;

use packmule_core::model::{Big, Value};
use rusqlite::{MAIN_DB, params_from_iter};

use crate::engine::capture::respeak::Unread;
use crate::engine::error::{BundleProblem, Error, Result};
use crate::engine::exchange::state_records::PART_BYTES;
use crate::engine::exchange::state_rows::{COLUMNS_MAX, StateRow, wrong};
use crate::engine::show::{triggers, write};
use crate::engine::store::value::{self, Bind, OwnedValue};
use crate::engine::table::catalog;
use crate::engine::table::columns::Columns;
use crate::engine::table::def::{ColumnDef, TableDef};
use crate::engine::table::known::Table;
use crate::engine::table::replica::Replica;

/// Writes the rows of a state.
pub(super) struct RowLoader<'e> {
    pub engine: &'e Replica,
    parts: i64,
    /// The maker's tables, by their numbers here.
    makers: HashMap<i64, MakerTable>,
}

/// What a table is at the maker.
struct MakerTable {
    /// Its columns have the maker's numbers, and the names that they have here.
    def: TableDef,
    /// The columns of definitions in the log that stand for none there.
    unread: Unread,
    /// The columns here for which some of these stand.
    lacking: Columns,
}

impl<'e> RowLoader<'e> {
    /// Makes room for the parts of large values.
    pub(super) fn new(engine: &'e Replica) -> Result<Self> {
        engine.db.execute_batch("CREATE TEMP TABLE IF NOT EXISTS _pm_part (n INTEGER PRIMARY KEY, body BLOB); DELETE FROM temp._pm_part")?;
        Ok(Self { engine, parts: 0, makers: HashMap::new() })
    }

    /// Keeps a part of a large value until its row comes.
    pub(super) fn keep_part(&mut self, body: &[u8]) -> Result<()> {
        self.parts += 1;
        let sql = "INSERT INTO temp._pm_part (n, body) VALUES (?1, ?2)";
        self.engine.db.prepare_cached(sql)?.execute((self.parts, body))?;
        Ok(())
    }

    /// Puts the values of a row together, large ones from the parts before it.
    pub(super) fn put_together(&mut self, values: &[Value<'_>]) -> Result<Vec<OwnedValue>> {
        let mut part = self.first_part()?;
        let mut whole = Vec::with_capacity(values.len());
        for value in values {
            let Value::Big(big) = value else {
                whole.push(OwnedValue::of(*value)?);
                continue;
            };
            let end = part + parts_of(big)?;
            whole.push(self.whole(big, part..end)?);
            part = end;
        }
        self.drop_parts()?;
        Ok(whole)
    }

    /// Returns the definition that a table has at the maker.
    pub(super) fn maker_def(&self, tid: i64) -> Result<&TableDef> {
        Ok(&self.maker_table(tid)?.def)
    }

    fn maker_table(&self, tid: i64) -> Result<&MakerTable> {
        self.makers.get(&tid).ok_or_else(wrong)
    }

    /// Forgets the parts that were kept: their row is not taken in.
    pub(super) fn drop_parts(&mut self) -> Result<()> {
        Ok(self.engine.db.execute_batch("DELETE FROM temp._pm_part")?)
    }

    /// Keeps the definition that a table has at the maker, and which columns of definitions in the log stand for none there.
    pub(super) fn keep_maker_def(&mut self, table: &Table, def: TableDef, unread: Unread) -> Result<()> {
        let mut lacking = Columns::default();
        for (id, at) in &unread {
            let name = &catalog::op_def(self.engine, *id)?.def.columns[*at].name;
            lacking.extend(&table.def.column(name).into_iter().collect());
        }
        self.makers.insert(table.tid, MakerTable { def, unread, lacking });
        Ok(())
    }

    /// Finds the numbers here of the maker's columns.
    pub(super) fn columns_here(&self, table: &Table, theirs: &Columns) -> Result<Columns> {
        let maker = self.maker_def(table.tid)?;
        let here = |(at, c): (usize, &ColumnDef)| table.def.column(&c.name).filter(|_| theirs.contains(at));
        Ok(maker.columns.iter().enumerate().filter_map(here).collect())
    }

    /// Finds the columns here of which the maker cannot tell what versions say: it does not read them in all ops, by whatever
    /// name it has the column, if it has it.
    pub(super) fn lacking(&self, table: &Table) -> Result<&Columns> {
        Ok(&self.maker_table(table.tid)?.lacking)
    }

    /// Returns which columns of definitions in the log stand for none at the maker.
    pub(super) fn unread(&self, table: &Table) -> Result<&Unread> {
        Ok(&self.maker_table(table.tid)?.unread)
    }

    /// Returns the number of the first part that is kept.
    fn first_part(&self) -> Result<i64> {
        let first = value::maybe(&self.engine.db, "SELECT min(n) FROM temp._pm_part", [])?;
        Ok(first.flatten().unwrap_or(0))
    }

    /// Puts a large value together from its parts.
    fn whole(&self, big: &Big, parts: Range<i64>) -> Result<OwnedValue> {
        let mut bytes: Vec<u8> = Vec::new();
        for n in parts {
            bytes.extend(self.part(n)?);
        }
        if bytes.len() as u64 != big.len {
            return Err(wrong());
        }
        Ok(if big.text { OwnedValue::Text(bytes) } else { OwnedValue::Blob(bytes) })
    }

    /// Reads a part of a large value.
    fn part(&self, n: i64) -> Result<Vec<u8>> {
        value::maybe(&self.engine.db, "SELECT body FROM temp._pm_part WHERE n = ?1", [n])?.ok_or_else(|| {
            Error::bundle(0, BundleProblem::Structure("a large value of a snapshot is not whole"))
        })
    }

    /// Writes a row; large values come from the parts before it.
    pub(super) fn row(&mut self, table: &Table, quarantine: bool, values: &[Value<'_>]) -> Result<()> {
        let e = self.engine;
        let columns = columns_of(self.maker_def(table.tid)?, table, values.len())?;
        let first = self.first_part()?;
        let (whole, streamed, end) = self.assemble(table, quarantine, values, &columns, first)?;
        write_whole(e, table, quarantine, &columns, values, &whole)?;
        let rowid = if streamed.is_empty() { 0 } else { e.db.last_insert_rowid() };
        for large in streamed {
            self.write_large(table, quarantine, rowid, large)?;
        }
        if end > 0 {
            e.db.prepare_cached("DELETE FROM temp._pm_part WHERE n < ?1")?.execute([end])?;
        }
        Ok(())
    }

    /// Makes a row of a device what the maker's is: in the table in which rows are gathered under this label, or in this
    /// device's own. Columns that are not here are left out. Returns whether anything changed.
    pub(super) fn write_own(
        &mut self,
        table: &Table,
        label: Option<&str>,
        maker: &TableDef,
        values: &[Value<'_>],
    ) -> Result<bool> {
        let e = self.engine;
        let here = columns_of(maker, table, values.len())?;
        let first = self.first_part()?;
        let (whole, streamed, end) = self.assemble(table, false, values, &here, first)?;
        let label = label.map(|label| Bind(Value::Text(label.as_bytes())));
        let mut key: Vec<Bind<'_>> = label.into_iter().collect();
        for at in table.def.keys() {
            let position = here.iter().position(|c| *c == Some(at)).ok_or_else(wrong)?;
            key.push(Bind(whole[position].as_ref().map_or(values[position], OwnedValue::borrow)));
        }
        let columns: Vec<usize> = here.iter().flatten().copied().collect();
        let binds: Vec<Bind<'_>> = whole
            .iter()
            .zip(values)
            .zip(&here)
            .filter(|(_, here)| here.is_some())
            .map(|((whole, value), _)| Bind(whole.as_ref().map_or(*value, OwnedValue::borrow)))
            .collect();
        let before = e.db.total_changes();
        triggers::write_difference(e, table, &key, &columns, &binds, true)?;
        if !streamed.is_empty() {
            let sql = table.select_sql(table.def.rowid_name());
            let rowid = e.db.query_row(&sql, params_from_iter(&key), |row| row.get(0))?;
            streamed.into_iter().try_for_each(|large| self.write_large(table, false, rowid, large))?;
        }
        if end > 0 {
            e.db.prepare_cached("DELETE FROM temp._pm_part WHERE n < ?1")?.execute([end])?;
        }
        Ok(e.db.total_changes() > before)
    }

    /// Finds the number here of the column that a recent write to a counter is about, if it is here.
    pub(super) fn counter_here(&self, table: &Table, row: &StateRow<'_>) -> Result<Option<usize>> {
        let mut one = Columns::default();
        one.insert(usize::try_from(row.int_at(2)?).ok().filter(|c| *c < COLUMNS_MAX).ok_or_else(wrong)?);
        let here = self.columns_here(table, &one)?;
        Ok((0..table.def.columns.len()).find(|at| here.contains(*at)))
    }

    /// Encodes the key of a row from its values, which come in the order of the maker's definition.
    pub(super) fn key_of(&self, table: &Table, values: &[Value<'_>]) -> Result<Vec<u8>> {
        let columns = columns_of(self.maker_def(table.tid)?, table, values.len())?;
        let of = |at: usize| columns.iter().position(|c| *c == Some(at)).map(|position| values[position]);
        let keys: Option<Vec<Value<'_>>> = table.def.keys().map(of).collect();
        table.key_of(keys.ok_or_else(wrong)?.into_iter())
    }

    /// Puts the large values of a row together from the parts from `part` on. Returns the values, those that are to
    /// be written part by part, and the number after the last part.
    ///
    /// A large BLOB is written into its place part by part. Text must be whole for SQLite, and so must a value that
    /// is indexed or that a trigger reads.
    fn assemble(
        &self,
        table: &Table,
        quarantine: bool,
        values: &[Value<'_>],
        columns: &[Option<usize>],
        mut part: i64,
    ) -> Result<(Vec<Option<OwnedValue>>, Vec<Streamed>, i64)> {
        let e = self.engine;
        let local = !quarantine && triggers::has_local_triggers(e, table)?;
        let (mut whole, mut streamed) = (Vec::with_capacity(values.len()), Vec::new());
        for (value, column) in values.iter().zip(columns) {
            let Value::Big(big) = value else {
                whole.push(Some(OwnedValue::of(*value)?));
                continue;
            };
            let first = part;
            part += parts_of(big)?;
            let Some(column) = column else {
                whole.push(None);
                continue;
            };
            let needed = big.text
                || (table.is_whole() && !quarantine)
                || (local && triggers::triggers_read(e, table, *column))
                || (!quarantine && write::is_indexed(e, table, *column)?);
            if !needed && i32::try_from(big.len).is_ok() {
                streamed.push(Streamed { column: *column, parts: first..part, len: big.len });
                whole.push(None);
                continue;
            }
            whole.push(Some(self.whole(big, first..part)?));
        }
        Ok((whole, streamed, part))
    }

    /// Writes a large BLOB into the place that its row has for it.
    fn write_large(&self, table: &Table, quarantine: bool, rowid: i64, large: Streamed) -> Result<()> {
        let place = if quarantine { table.quarantine_table() } else { table.def.name.clone() };
        let name = table.def.columns[large.column].name.as_str();
        let mut blob = self.engine.db.blob_open(MAIN_DB, place.as_str(), name, rowid, false)?;
        let mut at = 0;
        for n in large.parts {
            let bytes = self.part(n)?;
            blob.write_at(&bytes, at)?;
            at += bytes.len();
        }
        if at as u64 == large.len { Ok(()) } else { Err(wrong()) }
    }
}

/// A large value that is written part by part.
struct Streamed {
    column: usize,
    parts: Range<i64>,
    len: u64,
}

/// Counts the parts of a large value.
fn parts_of(big: &Big) -> Result<i64> {
    i64::try_from(big.len.div_ceil(PART_BYTES as u64)).map_err(|_| wrong())
}

/// Finds the columns here of a row's values, which come in the order of the maker's definition. One that waits here
/// has its default, but for what versions say of it.
fn columns_of(maker: &TableDef, table: &Table, values: usize) -> Result<Vec<Option<usize>>> {
    if values != maker.columns.len() {
        return Err(wrong());
    }
    Ok(maker.columns.iter().map(|c| table.def.column(&c.name)).collect())
}

/// Inserts a row, with room for the values that are written part by part.
fn write_whole(
    replica: &Replica,
    table: &Table,
    quarantine: bool,
    columns: &[Option<usize>],
    values: &[Value<'_>],
    whole: &[Option<OwnedValue>],
) -> Result<()> {
    let names: Vec<String> =
        columns.iter().flatten().map(|at| value::column(&table.def.columns[*at].name)).collect();
    let marks: Vec<String> = (1..=names.len()).map(|n| format!("?{n}")).collect();
    let name = if quarantine { table.quarantine_table() } else { table.sql_name.clone() };
    let sql = format!("INSERT INTO {name} ({}) VALUES ({})", names.join(", "), marks.join(", "));
    let write = || {
        let values = whole
            .iter()
            .zip(values)
            .zip(columns)
            .filter(|(_, column)| column.is_some())
            .map(|((whole, value), _)| Bind(whole.as_ref().map_or(*value, OwnedValue::borrow)));
        Ok(replica.db.prepare_cached(&sql)?.execute(params_from_iter(values))?)
    };
    let written = if quarantine { write() } else { triggers::firing(replica, table, write) };
    written.map(|_| ())
}
