//! The records of a state, written: rows of `_pm_` tables, and rows of tables, large values part by part.

use packmule_core::model::{Big, Value};
use packmule_core::wire::{RecordKind, put};
use rusqlite::types::ValueRef;
use rusqlite::{MAIN_DB, params_from_iter};
use sha2::{Digest, Sha256};

use crate::engine::error::{Error, Result};
use crate::engine::exchange::records::RecordWriter;
use crate::engine::merge::folds::Fold;
use crate::engine::merge::stretches;
use crate::engine::store::value::{self, Bind};
use crate::engine::table::def::DEVICE_COLUMN;
use crate::engine::table::known::Table;
use crate::engine::table::replica::Replica;

/// A part of a large value has at most so many bytes.
pub(super) const PART_BYTES: usize = 32_768;

/// Writes a row of state as a record.
pub(super) fn state(out: &mut RecordWriter<'_>, kind: &str, values: &[Value<'_>]) -> Result<()> {
    let size = values.iter().fold(64, |size, value| {
        size + match value {
            Value::Text(b) | Value::Blob(b) => b.len() + 8,
            _ => 64,
        }
    });
    let mut buf = vec![0; size];
    let room = |_| Error::damaged("a row of a snapshot without room");
    let mut len = put(&mut buf, kind).map_err(room)?;
    for value in values {
        len += put(&mut buf[len..], value).map_err(room)?;
    }
    out.record(RecordKind::State, &buf[..len])
}

/// Writes the rows of a table that later folds than this one list, or that are in flight; of those that are not there,
/// the keys. Returns how many.
pub(super) fn write_changed_rows(
    replica: &Replica,
    out: &mut RecordWriter<'_>,
    table: &Table,
    fold: Fold,
) -> Result<u64> {
    let name = Value::Text(table.def.name.as_bytes());
    let mut changed = replica.db.prepare_cached(&format!(
        "SELECT key FROM _pm_folded WHERE tid = ?1 AND n > ?2
         UNION SELECT key FROM {} UNION SELECT key FROM _pm_count WHERE tid = ?1
         UNION SELECT key FROM _pm_parked WHERE tid = ?1 ORDER BY key",
        stretches::heads_of_table()
    ))?;
    let mut keys = changed.query((table.tid, fold.0))?;
    let mut n = 0;
    while let Some(row) = keys.next()? {
        let key: Vec<u8> = row.get(0)?;
        let shown = write_rows(replica, out, table, "row", &RowsOf::one(&table.sql_name, &key))?;
        let parked = write_rows(replica, out, table, "limbo", &RowsOf::one(&table.quarantine_table(), &key))?;
        if shown + parked == 0 {
            state(out, "deleted", &[name, Value::Blob(&key)])?;
        }
        n += 1;
    }
    Ok(n)
}

/// Which rows of a table are written.
pub(super) struct RowsOf<'a> {
    /// The table as it is named in SQL: its own, or its quarantine table.
    pub from: &'a str,
    /// The name that it has for the receiver, if that is another one.
    pub name: Option<&'a str>,
    /// The label of the device whose rows they are, where rows of several stand.
    pub label: Option<&'a str>,
    /// The key of the one row that is written.
    pub key: Option<&'a [u8]>,
}

impl<'a> RowsOf<'a> {
    /// All rows of a table of this name.
    pub(super) fn all(from: &'a str) -> Self {
        Self { from, name: None, label: None, key: None }
    }

    /// The row with this key, if it is there.
    fn one(from: &'a str, key: &'a [u8]) -> Self {
        Self { key: Some(key), ..Self::all(from) }
    }
}

/// Writes the rows of a table, each after the parts of its large values. Returns how many rows that were.
pub(super) fn write_rows(
    replica: &Replica,
    out: &mut RecordWriter<'_>,
    table: &Table,
    kind: &str,
    of: &RowsOf<'_>,
) -> Result<u64> {
    let from = of.from;
    let rowid = if from == table.sql_name && table.is_whole() { "NULL" } else { table.def.rowid_name() };
    let columns: Vec<String> = table
        .def
        .columns
        .iter()
        .map(|c| {
            let c = value::quote(&c.name);
            format!("CASE WHEN octet_length({c}) > {PART_BYTES} AND {rowid} IS NOT NULL THEN NULL ELSE {c} END, octet_length({c})")
        })
        .collect();
    let keys = of.key.map(value::read_key).transpose()?.unwrap_or_default();
    let only = match (of.key, of.label) {
        (Some(_), _) => format!("WHERE {}", table.key_match_from(0)),
        (None, Some(_)) => format!("WHERE {DEVICE_COLUMN} = ?1 ORDER BY {}", table.def.key_list("")),
        (None, None) => format!("ORDER BY {}", table.def.key_list("")),
    };
    let sql = format!("SELECT {rowid}, {} FROM {from} {only}", columns.join(", "));
    let mut statement = replica.db.prepare_cached(&sql)?;
    let mut rows = match of.label {
        Some(label) => statement.query([label])?,
        None => statement.query(params_from_iter(keys.iter().map(|value| Bind(value.borrow()))))?,
    };
    let name = of.name.unwrap_or(&table.def.name);
    let mut n = 0;
    while let Some(row) = rows.next()? {
        let rowid: Option<i64> = row.get(0)?;
        let mut values = vec![Value::Text(name.as_bytes())];
        for (at, column) in table.def.columns.iter().enumerate() {
            let value = row.get_ref(1 + at * 2)?;
            let len = row.get::<_, Option<i64>>(2 + at * 2)?.unwrap_or(0);
            values.push(match (value, rowid) {
                (ValueRef::Null, Some(rowid)) if len > PART_BYTES as i64 => {
                    write_parts(replica, out, table, from, &column.name, rowid)?
                }
                (value, _) => value::from_sql(value),
            });
        }
        state(out, kind, &values)?;
        n += 1;
    }
    Ok(n)
}

/// Writes the parts of a large value. Returns what stands for the value in its row.
fn write_parts(
    replica: &Replica,
    out: &mut RecordWriter<'_>,
    table: &Table,
    from: &str,
    column: &str,
    rowid: i64,
) -> Result<Value<'static>> {
    let name = if from == table.sql_name { table.def.name.clone() } else { table.quarantine_table() };
    let c = value::quote(column);
    let sql = format!("SELECT typeof({c}) = 'text' FROM {from} WHERE {} = ?1", table.def.rowid_name());
    let text: bool =
        replica.db.query_row(&sql, params_from_iter([Bind(Value::Int(rowid))]), |row| row.get(0))?;
    let blob = replica.db.blob_open(MAIN_DB, name.as_str(), column, rowid, true)?;
    let mut hash = Sha256::new();
    let mut chunk = vec![0; PART_BYTES];
    let mut at = 0;
    while at < blob.len() {
        let n = blob.read_at(&mut chunk, at)?;
        hash.update(&chunk[..n]);
        out.record(RecordKind::Part, &chunk[..n])?;
        at += n;
    }
    let len = blob.len() as u64;
    Ok(Value::Big(Big { text, number: 0, back: 0, len, sha256: hash.finalize().into() }))
}
