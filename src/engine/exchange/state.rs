//! State: what a device has of the shared tables, for who lacks frames that are folded here.
//!
//! It stands in a bundle after the certificates, or alone as a snapshot, and its maker's signature over all before it
//! closes it. Its rows are the maker's word; the frames that are still in flight are in it as their authors signed
//! them, so that the receiver takes part in conflicts from then on. `FORMAT.md` has the rows.
//!
//! Heads come before rows: who merges a row knows its versions then.
//!
//! **Partial.** Who has seen all of B as it was after some fold whose later ones are all listed (`merge/folds.rs`) gets only
//! the rows of these lists and those in flight; of a listed row that is gone, its key. All versions of the other rows are
//! within that B, which comes first, as a guard: who lacks any of it takes nothing of the state, and says in its next
//! bundle what it has. The whole goes to who has seen less than the lists reach back, a newcomer for instance; and as
//! a snapshot. Rows are looked up by their keys: the work is that of the rows that go.

use ed25519_compact::Noise;
use packmule_core::model::{Big, Stream, Value};
use packmule_core::wire::{Mode, RecordKind, put};
use rusqlite::types::ValueRef;
use rusqlite::{MAIN_DB, params_from_iter};
use sha2::{Digest, Sha256};

use crate::engine::error::{Error, Result};
use crate::engine::exchange::inspect::SEAL_DOMAIN;
use crate::engine::exchange::records::{self, RecordWriter};
use crate::engine::fleet::devices;
use crate::engine::merge::folds::{self, Fold};
use crate::engine::store::value::{self, Bind};
use crate::engine::table::catalog;
use crate::engine::table::known::{State, Table};
use crate::engine::table::replica::Replica;

/// A part of a large value has at most so many bytes.
pub(super) const PART_BYTES: usize = 32_768;

/// Selects the rows of `_pm_` tables that travel, with devices by their ids and tables by their names.
const STATE: [(&str, &str); 10] = [
    ("lamport", "SELECT v FROM _pm_meta WHERE k = 'lamport'"),
    (
        "stream",
        "SELECT d.id, s.stream, s.seq, s.chain, coalesce(g.checkpoint, n.checkpoint) FROM _pm_stream s JOIN _pm_device d ON d.n = s.dev
         LEFT JOIN _pm_group g ON g.dev = s.dev AND g.stream = s.stream AND g.last = s.seq
         LEFT JOIN _pm_newest n ON n.dev = s.dev AND n.stream = s.stream WHERE s.stream = :shared AND s.seq > 0",
    ),
    (
        "context",
        "SELECT d.id, c.stream, o.id, c.seq FROM _pm_context c JOIN _pm_device d ON d.n = c.dev JOIN _pm_device o ON o.n = c.other
         WHERE c.stream = :shared",
    ),
    (
        "number",
        "SELECT d.id, m.stream, m.number, o.id FROM _pm_number m JOIN _pm_device d ON d.n = m.dev JOIN _pm_device o ON o.n = m.other
         WHERE m.stream = :shared",
    ),
    ("floor", "SELECT d.id, f.stream, f.seq FROM _pm_floor f JOIN _pm_device d ON d.n = f.dev WHERE f.stream = :shared"),
    (
        "retired",
        "SELECT d.id, b.id, d.retired_seq, d.retired FROM _pm_device d LEFT JOIN _pm_device b ON b.n = d.retired_by WHERE d.retired",
    ),
    ("declared", "SELECT t.name, p.what, p.name, d.id, p.seq, p.lamport, p.value, p.past, p.def
                  FROM _pm_declared p JOIN _pm_table t ON t.tid = p.tid JOIN _pm_device d ON d.n = p.dev"),
    ("head", "SELECT t.name, h.key, d.id, h.seq, h.place, h.claim, h.wall, h.kind, h.columns
              FROM _pm_head h JOIN _pm_table t ON t.tid = h.tid JOIN _pm_device d ON d.n = h.dev"),
    ("count", "SELECT t.name, c.key, c.col, d.id, c.seq, c.absolute, c.value
               FROM _pm_count c JOIN _pm_table t ON t.tid = c.tid JOIN _pm_device d ON d.n = c.dev"),
    ("image", "SELECT t.name, i.key, i.body FROM _pm_image i JOIN _pm_table t ON t.tid = i.tid"),
];

/// Selects what follows from the rest, for who starts from nothing else.
const JUDGED: [(&str, &str); 3] = [
    ("conflict", "SELECT t.name, c.key FROM _pm_conflict c JOIN _pm_table t ON t.tid = c.tid"),
    (
        "parked",
        "SELECT t.name, p.key, p.reason, p.blocker FROM _pm_parked p JOIN _pm_table t ON t.tid = p.tid",
    ),
    ("dangling", "SELECT t.name, x.key, x.told FROM _pm_dangling x JOIN _pm_table t ON t.tid = x.tid"),
];

/// Writes the state of the shared tables, with the groups in flight and those after what `have` gives for a device's
/// number, and signs all that was written. Returns how many tables and rows.
pub(crate) fn write_state(
    replica: &Replica,
    out: &mut RecordWriter<'_>,
    have: &dyn Fn(i64) -> u64,
) -> Result<(u64, u64)> {
    let (mut tables, mut rows) = (0, 0);
    let since = folds::newest_seen(replica, have)?;
    for (dev, seq) in since.iter().flat_map(|since| &since.seen) {
        let id = devices::device_id(replica, *dev)?;
        state(out, "since", &[Value::Blob(&id.0), Value::Int(*seq as i64)])?;
    }
    let since = since.map(|since| since.fold);
    write_definitions(replica, out)?;
    write_records(replica, out, &STATE)?;
    for table in catalog::tables(replica).iter().filter(|t| t.shows_shared()) {
        tables += 1;
        rows += match since {
            Some(fold) => write_changed_rows(replica, out, table, fold)?,
            None => {
                let shown = write_rows(replica, out, table, ("row", &table.sql_name), None)?;
                write_rows(replica, out, table, ("limbo", &table.quarantine_table()), None)?;
                shown
            }
        };
    }
    write_records(replica, out, &JUDGED)?;
    records::write_groups_in_flight(replica, out, have)?;
    let digest: [u8; 32] = out.hash.clone().finalize().into();
    let signature = replica.signing_key()?.sign([SEAL_DOMAIN, &digest].concat(), None::<Noise>);
    out.record(RecordKind::Seal, &*signature)?;
    Ok((tables, rows))
}

/// Writes the definitions, and which one each shared table has here.
fn write_definitions(replica: &Replica, out: &mut RecordWriter<'_>) -> Result<()> {
    let mut defs = replica.db.prepare(
        "SELECT d.id, d.body FROM _pm_def d JOIN _pm_table t ON t.tid = d.tid AND t.gathers IS NULL ORDER BY d.tid, d.id",
    )?;
    let mut rows = defs.query([])?;
    while let Some(row) = rows.next()? {
        let def: Vec<u8> = row.get(1)?;
        state(out, "def", &[Value::Blob(&def)])?;
    }
    for table in catalog::tables(replica).iter().filter(|t| t.def.mode == Mode::Shared) {
        let shown = i64::from(table.state == State::Tracked);
        let name = Value::Text(table.def.name.as_bytes());
        state(out, "table", &[name, Value::Blob(&table.def_id.0), Value::Int(shown)])?;
    }
    Ok(())
}

/// Writes rows of `_pm_` tables.
fn write_records(replica: &Replica, out: &mut RecordWriter<'_>, of: &[(&str, &str)]) -> Result<()> {
    for (kind, sql) in of {
        let mut statement = replica.db.prepare(sql)?;
        let n = statement.column_count();
        if let Some(at) = statement.parameter_index(":shared")? {
            statement.raw_bind_parameter(at, Stream::Shared.number())?;
        }
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next()? {
            let values = (0..n)
                .map(|at| row.get_ref(at).map(value::from_sql))
                .collect::<rusqlite::Result<Vec<_>>>()?;
            state(out, kind, &values)?;
        }
    }
    Ok(())
}

/// Writes a row of state as a record.
fn state(out: &mut RecordWriter<'_>, kind: &str, values: &[Value<'_>]) -> Result<()> {
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
fn write_changed_rows(
    replica: &Replica,
    out: &mut RecordWriter<'_>,
    table: &Table,
    fold: Fold,
) -> Result<u64> {
    let name = Value::Text(table.def.name.as_bytes());
    let mut changed = replica.db.prepare(
        "SELECT key FROM _pm_folded WHERE tid = ?1 AND n > ?2
         UNION SELECT key FROM _pm_head WHERE tid = ?1 UNION SELECT key FROM _pm_count WHERE tid = ?1
         UNION SELECT key FROM _pm_parked WHERE tid = ?1 ORDER BY key",
    )?;
    let mut keys = changed.query((table.tid, fold.0))?;
    let mut n = 0;
    while let Some(row) = keys.next()? {
        let key: Vec<u8> = row.get(0)?;
        let shown = write_rows(replica, out, table, ("row", &table.sql_name), Some(&key))?;
        let parked = write_rows(replica, out, table, ("limbo", &table.quarantine_table()), Some(&key))?;
        if shown + parked == 0 {
            state(out, "gone", &[name, Value::Blob(&key)])?;
        }
        n += 1;
    }
    Ok(n)
}

/// Writes the rows of a table, or the one with this key if it is there, each after the parts of its large values. `kind`
/// says which they are, `from` where they are. Returns how many rows that were.
fn write_rows(
    replica: &Replica,
    out: &mut RecordWriter<'_>,
    table: &Table,
    (kind, from): (&str, &str),
    key: Option<&[u8]>,
) -> Result<u64> {
    let rowid =
        if from == table.sql_name && table.def.without_rowid { "NULL" } else { table.def.rowid_name() };
    let columns: Vec<String> = table
        .def
        .columns
        .iter()
        .map(|c| {
            let c = value::quote(&c.name);
            format!("CASE WHEN octet_length({c}) > {PART_BYTES} AND {rowid} IS NOT NULL THEN NULL ELSE {c} END, octet_length({c})")
        })
        .collect();
    let which = match key {
        Some(_) => format!("WHERE {}", table.key_match_from(0)),
        None => format!("ORDER BY {}", table.def.key_list("")),
    };
    let sql = format!("SELECT {rowid}, {} FROM {from} {which}", columns.join(", "));
    let mut statement = replica.db.prepare_cached(&sql)?;
    let keys = key.map(value::read_key).transpose()?.unwrap_or_default();
    let mut rows = statement.query(params_from_iter(keys.iter().map(|value| Bind(value.borrow()))))?;
    let mut n = 0;
    while let Some(row) = rows.next()? {
        let rowid: Option<i64> = row.get(0)?;
        let mut values = vec![Value::Text(table.def.name.as_bytes())];
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
