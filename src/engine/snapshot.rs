//! Snapshots: what a device has of the shared tables, for a newcomer to start from.
//!
//! A snapshot is a stream of records like a bundle, closed by its maker's signature over all of it.
//! Its rows are the maker's word; the frames that are still in flight are in it as their authors
//! signed them, so that the newcomer takes part in conflicts from then on. `FORMAT.md` has the rows.

use std::io::Write;

use ed25519_compact::{Noise, PublicKey, Signature};
use packmule_core::model::{Big, Stream, Value};
use packmule_core::wire::{Mode, RecordKind, put};
use rusqlite::types::ValueRef;
use rusqlite::{MAIN_DB, params_from_iter};
use sha2::{Digest, Sha256};

use super::Engine;
use super::catalog::{State, Table};
use super::error::{Error, Result};
use super::export::{RecordWriter, Wanted};
use super::value::{Bind, from_sql, quote};

/// What the maker signs begins with this.
const SEAL_DOMAIN: &[u8] = b"packmule/1 snapshot";

/// Whether a snapshot with this digest carries the signature of this key.
pub(super) fn is_sealed_by(key: &[u8; 32], signature: &[u8; 64], digest: &[u8; 32]) -> bool {
    PublicKey::new(*key).verify([SEAL_DOMAIN, digest].concat(), &Signature::new(*signature)).is_ok()
}

/// A part of a large value has at most so many bytes.
pub(super) const PART_BYTES: usize = 32_768;

/// Rows of `_pm_` tables that travel, with devices by their ids and tables by their names.
const STATE: [(&str, &str); 12] = [
    ("lamport", "SELECT v FROM _pm_meta WHERE k = 'lamport'"),
    ("stream", "SELECT d.id, s.stream, s.seq, s.chain FROM _pm_stream s JOIN _pm_device d ON d.n = s.dev WHERE s.stream = 0"),
    (
        "context",
        "SELECT d.id, c.stream, o.id, c.seq FROM _pm_context c JOIN _pm_device d ON d.n = c.dev JOIN _pm_device o ON o.n = c.other
         WHERE c.stream = 0",
    ),
    ("floor", "SELECT d.id, f.stream, f.seq FROM _pm_floor f JOIN _pm_device d ON d.n = f.dev WHERE f.stream = 0"),
    (
        "retired",
        "SELECT d.id, b.id, d.retired_seq, d.retired FROM _pm_device d LEFT JOIN _pm_device b ON b.n = d.retired_by WHERE d.retired",
    ),
    ("declared", "SELECT t.name, p.what, p.name, d.id, p.seq, p.lamport, p.value, p.past, p.def
                  FROM _pm_declared p JOIN _pm_table t ON t.tid = p.tid JOIN _pm_device d ON d.n = p.dev"),
    ("head", "SELECT t.name, h.key, d.id, h.seq, h.place, h.claim, h.wall, h.kind, h.columns
              FROM _pm_head h JOIN _pm_table t ON t.tid = h.tid JOIN _pm_device d ON d.n = h.dev"),
    ("conflict", "SELECT t.name, c.key FROM _pm_conflict c JOIN _pm_table t ON t.tid = c.tid"),
    ("parked", "SELECT t.name, p.key, p.reason, p.blocker FROM _pm_parked p JOIN _pm_table t ON t.tid = p.tid"),
    ("dangling", "SELECT t.name, x.key, x.told FROM _pm_dangling x JOIN _pm_table t ON t.tid = x.tid"),
    ("count", "SELECT t.name, c.key, c.col, d.id, c.seq, c.absolute, c.value
               FROM _pm_count c JOIN _pm_table t ON t.tid = c.tid JOIN _pm_device d ON d.n = c.dev"),
    ("image", "SELECT t.name, i.key, i.body FROM _pm_image i JOIN _pm_table t ON t.tid = i.tid"),
];

/// What went into a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnapshotReport {
    /// Shared tables.
    pub tables: u64,
    /// Their rows.
    pub rows: u64,
    /// Frames that are still in flight.
    pub frames: u64,
    /// Bytes of the file.
    pub bytes: u64,
}

impl Engine {
    /// Seals, then writes a snapshot of the shared tables, from which [`Engine::join`] starts.
    ///
    /// # Errors
    /// [`Error::KeyMissing`], [`Error::Stream`], and whatever sealing meets.
    pub fn snapshot(&mut self, to: &mut dyn Write) -> Result<SnapshotReport> {
        self.signing_key()?;
        self.seal()?;
        self.reading(|e| e.write_snapshot(to))
    }

    fn write_snapshot(&self, to: &mut dyn Write) -> Result<SnapshotReport> {
        let key = self.signing_key()?;
        let mut out = RecordWriter::new(to);
        let mut report = SnapshotReport::default();
        self.write_header(&mut out, key, self.identity.id, None, true, self.places()?)?;
        self.write_certificates(&mut out, &|_| true)?;
        let mut defs = self.db.prepare("SELECT d.id, d.body FROM _pm_def d ORDER BY d.tid, d.id")?;
        let mut rows = defs.query([])?;
        while let Some(row) = rows.next()? {
            let def: Vec<u8> = row.get(1)?;
            self.state(&mut out, "def", &[Value::Blob(&def)])?;
        }
        for table in self.tables().iter().filter(|t| t.def.mode == Mode::Shared) {
            let shown = i64::from(table.state == State::Tracked);
            let name = Value::Text(table.def.name.as_bytes());
            self.state(&mut out, "table", &[name, Value::Blob(&table.def_id.0), Value::Int(shown)])?;
            if table.shows_shared() {
                report.tables += 1;
                report.rows += self.write_rows(&mut out, table, "row", &table.sql_name)?;
                self.write_rows(&mut out, table, "limbo", &table.limbo())?;
            }
        }
        for (kind, sql) in STATE {
            let mut statement = self.db.prepare(sql)?;
            let n = statement.column_count();
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let values =
                    (0..n).map(|at| row.get_ref(at).map(from_sql)).collect::<rusqlite::Result<Vec<_>>>()?;
                self.state(&mut out, kind, &values)?;
            }
        }
        let wanted: Vec<Wanted> = self
            .vector()?
            .iter()
            .filter(|entry| entry.stream == Stream::Shared)
            .map(|entry| {
                Ok(self.device_number(entry.author)?.map(|dev| Wanted { dev, stream: entry.stream, have: 0 }))
            })
            .collect::<Result<Vec<_>>>()?
            .into_iter()
            .flatten()
            .collect();
        self.write_log(&mut out, &wanted, (u64::MAX, u64::MAX))?;
        let digest: [u8; 32] = out.hash.clone().finalize().into();
        let signature = key.sign([SEAL_DOMAIN, &digest].concat(), None::<Noise>);
        out.record(RecordKind::Seal, &*signature)?;
        out.flush()?;
        report.frames = out.frames;
        report.bytes = out.bytes;
        Ok(report)
    }

    fn state(&self, out: &mut RecordWriter<'_>, kind: &str, values: &[Value<'_>]) -> Result<()> {
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

    /// The rows of a table, each after the parts of its large values.
    fn write_rows(&self, out: &mut RecordWriter<'_>, table: &Table, kind: &str, from: &str) -> Result<u64> {
        let rowid =
            if from == table.sql_name && table.def.without_rowid { "NULL" } else { table.def.rowid_name() };
        let columns: Vec<String> = table
            .def
            .columns
            .iter()
            .map(|c| {
                let c = quote(&c.name);
                format!("CASE WHEN octet_length({c}) > {PART_BYTES} AND {rowid} IS NOT NULL THEN NULL ELSE {c} END, octet_length({c})")
            })
            .collect();
        let sql =
            format!("SELECT {rowid}, {} FROM {from} ORDER BY {}", columns.join(", "), table.def.key_list(""));
        let mut statement = self.db.prepare(&sql)?;
        let mut rows = statement.query([])?;
        let mut n = 0;
        while let Some(row) = rows.next()? {
            let rowid: Option<i64> = row.get(0)?;
            let mut values = vec![Value::Text(table.def.name.as_bytes())];
            for (at, column) in table.def.columns.iter().enumerate() {
                let value = row.get_ref(1 + at * 2)?;
                let len = row.get::<_, Option<i64>>(2 + at * 2)?.unwrap_or(0);
                values.push(match (value, rowid) {
                    (ValueRef::Null, Some(rowid)) if len > PART_BYTES as i64 => {
                        self.write_parts(out, table, from, &column.name, rowid)?
                    }
                    (value, _) => from_sql(value),
                });
            }
            self.state(out, kind, &values)?;
            n += 1;
        }
        Ok(n)
    }

    fn write_parts(
        &self,
        out: &mut RecordWriter<'_>,
        table: &Table,
        from: &str,
        column: &str,
        rowid: i64,
    ) -> Result<Value<'static>> {
        let name = if from == table.sql_name { table.def.name.clone() } else { table.limbo() };
        let c = quote(column);
        let sql = format!("SELECT typeof({c}) = 'text' FROM {from} WHERE {} = ?1", table.def.rowid_name());
        let text: bool =
            self.db.query_row(&sql, params_from_iter([Bind(Value::Int(rowid))]), |row| row.get(0))?;
        let blob = self.db.blob_open(MAIN_DB, name.as_str(), column, rowid, true)?;
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
}
