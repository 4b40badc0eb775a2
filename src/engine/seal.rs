//! Sealing: what applications wrote since the last seal becomes a group of frames.
//!
//! The rows' values are read now, so that a row written a thousand times is one op. Everything is
//! streamed: a row at a time, and of a large value a piece at a time.

use std::sync::Arc;

use packmule_core::model::{Big, Stream, Value};
use packmule_core::wire::{FrameFlags, Mode, OpHead, OpKind};
use rusqlite::{MAIN_DB, Row, params_from_iter};
use sha2::{Digest, Sha256};

use super::Engine;
use super::apply::{Head, Seen};
use super::capture::note;
use super::catalog::{State, Table};
use super::error::{Error, Result};
use super::log::GroupWriter;
use super::settle::winning;
use super::value::{Affinity, Bind, from_sql, maybe, quote};
use super::{OwnedValue, store};

/// What a seal made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SealReport {
    /// Frames written to the log.
    pub frames: u64,
    /// Rows in them.
    pub ops: u64,
}

/// The longest key that travels, in bytes.
const KEY_MAX: usize = 1024;

/// What a seal is for, beside what applications wrote.
#[derive(Clone, Copy, Default)]
pub(crate) struct SealOptions<'a> {
    pub flags: FrameFlags,
    /// Take in all rows of this table.
    pub take_in: Option<&'a str>,
}

impl Engine {
    /// Turns what applications wrote since the last seal into frames: one atomic group.
    ///
    /// # Errors
    /// [`Error::KeyMissing`] without the secret key, [`Error::SchemaChanged`] if a tracked table was
    /// changed in a way that does not travel, [`Error::Sqlite`].
    pub fn seal(&mut self) -> Result<SealReport> {
        self.transaction(|e| {
            e.begin_settling()?;
            e.seal_here(SealOptions::default())
        })
    }

    /// Seals within the open transaction.
    pub(crate) fn seal_here(&self, options: SealOptions<'_>) -> Result<SealReport> {
        self.notice_schema_changes()?;
        let mut streams = [false; 2];
        for table in self.tables() {
            if self.has_something(&table, options)? {
                streams[usize::from(stream_of(&table).number())] = true;
            }
        }
        let mut report = SealReport::default();
        if streams == [false; 2] {
            return Ok(report);
        }
        let lamport = store::get::<u64>(&self.db, "lamport")?.unwrap_or(0) + 1;
        store::set(&self.db, "lamport", lamport)?;
        let firsts: Vec<u64> =
            Stream::ALL.iter().map(|s| Ok(self.position(self.me, *s)?.seq + 1)).collect::<Result<_>>()?;
        for stream in Stream::ALL {
            let at = usize::from(stream.number());
            if !streams[at] {
                continue;
            }
            let pair = if streams[1 - at] { firsts[1 - at] } else { 0 };
            let mut buf = vec![0; self.options.frame_bytes];
            let mut group = self.begin_group(stream, options.flags, lamport, pair, &mut buf)?;
            for table in self.tables().iter().filter(|t| t.state == State::Tracked && stream_of(t) == stream)
            {
                self.seal_table(table, &mut group, options)?;
            }
            report.frames += group.frames + 1;
            report.ops += group.ops;
            let position = group.finish()?;
            self.set_position(self.me, stream, position)?;
        }
        self.reload_catalog()?;
        self.settle()?;
        Ok(report)
    }

    fn has_something(&self, table: &Table, options: SealOptions<'_>) -> Result<bool> {
        if table.state != State::Tracked {
            return Ok(false);
        }
        if !table.announced || options.take_in == Some(table.def.name.as_str()) {
            return Ok(true);
        }
        Ok(self.unsealed(table, 1)? > 0)
    }

    /// How many notes of writes there are, and rows of an append table; each counted up to `most`.
    pub(crate) fn unsealed(&self, table: &Table, most: u32) -> Result<u64> {
        if table.state != State::Tracked {
            return Ok(0);
        }
        let mut n: u64 = self
            .db
            .prepare_cached(&format!("SELECT count(*) FROM (SELECT 1 FROM {} LIMIT ?1)", table.dirty()))?
            .query_row([most], |row| row.get(0))?;
        if table.def.append {
            let id = table.def.key_list("");
            n += self
                .db
                .prepare_cached(&format!(
                    "SELECT count(*) FROM (SELECT 1 FROM {} WHERE {id} > ?1 LIMIT ?2)",
                    table.sql_name
                ))?
                .query_row((table.appended, most), |row| row.get::<_, u64>(0))?;
        }
        Ok(n)
    }

    fn seal_table(
        &self,
        table: &Arc<Table>,
        group: &mut GroupWriter<'_>,
        options: SealOptions<'_>,
    ) -> Result<()> {
        if !table.announced {
            let (_, body) = table.def.encode()?;
            group.def(&table.def.name, &body)?;
            self.db.execute("UPDATE _pm_table SET announced = 1 WHERE tid = ?1", [table.tid])?;
        }
        let reader = RowReader::new(self, table);
        if options.take_in == Some(table.def.name.as_str()) {
            self.seal_all(&reader, group)?;
        } else if table.def.append {
            self.seal_appended(&reader, group)?;
        }
        self.seal_dirty(&reader, group, options)
    }

    /// All rows, in the order of their keys.
    fn seal_all(&self, reader: &RowReader<'_>, group: &mut GroupWriter<'_>) -> Result<()> {
        let table = reader.table;
        let sql =
            format!("SELECT {} FROM {} ORDER BY {}", reader.columns, table.sql_name, table.def.key_list(""));
        let mut statement = self.db.prepare(&sql)?;
        let mut rows = statement.query([])?;
        let mut last = 0;
        while let Some(row) = rows.next()? {
            self.seal_row(reader, group, row, OpHead::plain(OpKind::Insert), Seen::Blind)?;
            if table.def.append {
                last = reader.integer_key(row)?;
            }
        }
        self.db.execute("UPDATE _pm_table SET appended = ?2 WHERE tid = ?1", (table.tid, last))?;
        Ok(())
    }

    /// The rows after the last one that was sealed.
    fn seal_appended(&self, reader: &RowReader<'_>, group: &mut GroupWriter<'_>) -> Result<()> {
        let table = reader.table;
        let id = table.def.key_list("");
        let sql = format!("SELECT {} FROM {} WHERE {id} > ?1 ORDER BY {id}", reader.columns, table.sql_name);
        let mut statement = self.db.prepare_cached(&sql)?;
        let mut rows = statement.query([table.appended])?;
        let mut last = table.appended;
        while let Some(row) = rows.next()? {
            self.seal_row(reader, group, row, OpHead::plain(OpKind::Insert), Seen::All)?;
            last = reader.integer_key(row)?;
        }
        self.db.execute("UPDATE _pm_table SET appended = ?2 WHERE tid = ?1", (table.tid, last))?;
        Ok(())
    }

    /// The rows in the list of changes, each once.
    fn seal_dirty(
        &self,
        reader: &RowReader<'_>,
        group: &mut GroupWriter<'_>,
        options: SealOptions<'_>,
    ) -> Result<()> {
        let table = reader.table;
        let n = table.def.keys().count();
        let keys: Vec<String> = (1..=n).map(|n| format!("k{n}")).collect();
        let keys = keys.join(", ");
        // Each kind of note is a bit; SQLite has no aggregate that ors them.
        let bits: Vec<String> = (0..6).map(|bit| format!("max(note & {})", 1 << bit)).collect();
        let sql = format!("SELECT {keys}, {} FROM {} GROUP BY {keys}", bits.join(" | "), table.dirty());
        let mut statement = self.db.prepare_cached(&sql)?;
        let mut dirty = statement.query([])?;
        let mut select = self.db.prepare_cached(&table.select_sql(&reader.columns))?;
        let seen = || if options.flags.has(FrameFlags::BLIND) { Seen::Blind } else { Seen::All };
        while let Some(row) = dirty.next()? {
            let notes: i64 = row.get(n)?;
            let values =
                (0..n).map(|at| row.get_ref(at).map(from_sql)).collect::<rusqlite::Result<Vec<_>>>()?;
            let mut found = select.query(params_from_iter(values.iter().map(|v| Bind(*v))))?;
            let present = found.next()?;
            if notes == note::MAYBE_GONE && present.is_some() {
                continue;
            }
            let key = table.key_of(values.iter().copied())?;
            let heads =
                if table.def.mode == Mode::Shared { self.heads(table.tid, &key)? } else { Vec::new() };
            let known = winning(&heads);
            let mut head = OpHead::plain(match known {
                _ if present.is_none() => OpKind::Delete,
                Some(known) if known.kind != OpKind::Delete => OpKind::Update,
                _ if notes & note::INSERT != 0 => OpKind::Insert,
                _ => OpKind::Update,
            });
            match present {
                Some(row) => {
                    let claims = notes & !(note::UPDATE | note::MAYBE_GONE) != 0;
                    if table.unique && !claims {
                        head.claim = Some(known.map_or(0, |known| known.claim));
                    }
                    self.seal_row(reader, group, row, head, seen())?;
                }
                None => {
                    // What came and went unseen while the row itself was parked is not its end.
                    let parked: Option<i64> = maybe(
                        &self.db,
                        "SELECT 1 FROM _pm_parked WHERE tid = ?1 AND key = ?2",
                        (table.tid, &key),
                    )?;
                    if parked.is_none() || notes & note::RESOLVED != 0 {
                        self.seal_delete(reader, group, &values, &key, head, seen())?;
                    }
                }
            }
        }
        drop(dirty);
        self.db.execute(&format!("DELETE FROM {}", table.dirty()), [])?;
        Ok(())
    }

    fn seal_delete(
        &self,
        reader: &RowReader<'_>,
        group: &mut GroupWriter<'_>,
        values: &[Value<'_>],
        key: &[u8],
        head: OpHead<'_>,
        seen: Seen<'_>,
    ) -> Result<()> {
        let table = reader.table;
        if !self.can_carry(table, values)? {
            return Ok(());
        }
        // In the order of the columns, as everywhere.
        let mut by_column: Vec<(usize, Value<'_>)> = table.def.keys().zip(values.iter().copied()).collect();
        by_column.sort_by_key(|(at, _)| *at);
        let mut values: Vec<Value<'_>> = by_column.into_iter().map(|(_, value)| value).collect();
        let place = group.op(table.def_id, &head, &mut values, &[])?.ok_or_else(|| Error::Row {
            table: table.def.name.clone(),
            reason: "its key is too long".into(),
        })?;
        self.sealed(table, key, group, place, &head, &seen)
    }

    /// Writes a row that was read; large values first, in pieces.
    fn seal_row(
        &self,
        reader: &RowReader<'_>,
        group: &mut GroupWriter<'_>,
        row: &Row<'_>,
        mut head: OpHead<'_>,
        seen: Seen<'_>,
    ) -> Result<()> {
        let table = reader.table;
        let n = table.def.columns.len();
        let mut values =
            (0..n).map(|at| row.get_ref(at).map(from_sql)).collect::<rusqlite::Result<Vec<_>>>()?;
        let keys: Vec<Value<'_>> = table.def.keys().map(|at| values[at]).collect();
        if !self.can_carry(table, &keys)? {
            return Ok(());
        }
        let key =
            if table.def.mode == Mode::Shared { table.key_of(keys.iter().copied())? } else { Vec::new() };
        let mut firsts = Vec::new();
        if reader.guarded && row.get::<_, bool>(n)? {
            for (at, value) in values.iter_mut().enumerate() {
                if reader.is_large(at, &keys)? {
                    let (big, first) = self.write_large(reader, group, at, &keys)?;
                    *value = Value::Big(big);
                    firsts.push((at, first));
                }
            }
        }
        let place = loop {
            if let Some(place) = group.op(table.def_id, &head, &mut values, &firsts)? {
                break place;
            }
            // Still too large for a frame: the largest value goes the same way.
            let size = |value: &Value<'_>| match value {
                Value::Text(b) | Value::Blob(b) => b.len(),
                _ => 0,
            };
            let largest =
                (0..n).filter(|at| table.def.columns[*at].key == 0).max_by_key(|at| size(&values[*at]));
            match largest {
                Some(at) if size(&values[at]) > 64 => {
                    let (text, bytes) = match values[at] {
                        Value::Text(bytes) => (true, bytes),
                        Value::Blob(bytes) => (false, bytes),
                        _ => break Err(Error::damaged("a value that was none"))?,
                    };
                    let number = group.next_big();
                    let first = group.piece(number, bytes)?;
                    let sha256 = Sha256::digest(bytes).into();
                    values[at] = Value::Big(Big { text, number, back: 0, len: bytes.len() as u64, sha256 });
                    firsts.push((at, first));
                }
                _ => {
                    return Err(Error::Row {
                        table: table.def.name.clone(),
                        reason: format!(
                            "it does not fit into a frame of {} bytes: use larger frames",
                            self.options.frame_bytes
                        ),
                    });
                }
            }
        };
        head.columns = None;
        self.sealed(table, &key, group, place, &head, &seen)
    }

    /// Registers a version of our own.
    fn sealed(
        &self,
        table: &Table,
        key: &[u8],
        group: &GroupWriter<'_>,
        (seq, offset): (u64, u32),
        head: &OpHead<'_>,
        seen: &Seen<'_>,
    ) -> Result<()> {
        if table.def.mode == Mode::PerDevice {
            return Ok(());
        }
        let new = Head {
            dev: self.me,
            author: self.identity.id,
            seq,
            place: offset,
            claim: head.claim.unwrap_or(group.lamport),
            wall: head.wall.unwrap_or(group.wall),
            kind: head.kind,
        };
        self.before_change(table, key)?;
        if head.kind == OpKind::Delete && table.is_parent {
            self.note_deleted(table, key)?;
        }
        self.register(table.tid, key, &new, seen)?;
        self.after_shown(table, key)
    }

    /// Whether the key can travel; if not, says so in a notice, since the rest must go on.
    fn can_carry(&self, table: &Table, keys: &[Value<'_>]) -> Result<bool> {
        let problem = keys.iter().find_map(|value| match value {
            Value::Null => Some("NULL in its primary key, by which it cannot be told from others".to_owned()),
            Value::Text(b) | Value::Blob(b) if b.len() > KEY_MAX => {
                Some(format!("a key of more than {KEY_MAX} bytes"))
            }
            _ => None,
        });
        if let Some(problem) = &problem {
            let what = format!("a row of `{}` is not synced: it has {problem}", table.def.name);
            store::notice(&self.db, &what, self.now())?;
        }
        Ok(problem.is_none())
    }

    /// Streams a large value into pieces.
    fn write_large(
        &self,
        reader: &RowReader<'_>,
        group: &mut GroupWriter<'_>,
        at: usize,
        keys: &[Value<'_>],
    ) -> Result<(Big, u64)> {
        let table = reader.table;
        let name = &table.def.columns[at].name;
        let number = group.next_big();
        let mut hash = Sha256::new();
        let binds = || params_from_iter(keys.iter().map(|v| Bind(*v)));
        let c = quote(name);
        let (text, len): (bool, u64) = self
            .db
            .prepare_cached(&table.select_sql(&format!("typeof({c}) = 'text', octet_length({c})")))?
            .query_row(binds(), |row| Ok((row.get(0)?, row.get(1)?)))?;
        let mut first = None;
        if table.def.without_rowid {
            // SQLite reads such a row whole in any case.
            let sql = table.select_sql(&format!("CAST({c} AS BLOB)"));
            let mut statement = self.db.prepare_cached(&sql)?;
            let mut rows = statement.query(binds())?;
            if let Some(row) = rows.next()? {
                let bytes = row
                    .get_ref(0)?
                    .as_bytes()
                    .map_err(|_| Error::damaged("a large value that is not bytes"))?;
                hash.update(bytes);
                first = Some(group.piece(number, bytes)?);
            }
        } else {
            let rowid: i64 = self
                .db
                .prepare_cached(&table.select_sql(table.def.rowid_name()))?
                .query_row(binds(), |row| row.get(0))?;
            let blob = self.db.blob_open(MAIN_DB, table.def.name.as_str(), name.as_str(), rowid, true)?;
            let mut chunk = vec![0; self.options.frame_bytes];
            let mut offset = 0;
            while offset < blob.len() {
                let n = blob.read_at(&mut chunk, offset)?;
                hash.update(&chunk[..n]);
                let seq = group.piece(number, &chunk[..n])?;
                first.get_or_insert(seq);
                offset += n;
            }
        }
        let first = first.ok_or_else(|| Error::damaged("a large value that is empty"))?;
        Ok((Big { text, number, back: 0, len, sha256: hash.finalize().into() }, first))
    }
}

/// The stream that a table's rows go to.
pub(crate) fn stream_of(table: &Table) -> Stream {
    match table.def.mode {
        Mode::Shared => Stream::Shared,
        Mode::PerDevice => Stream::Own,
    }
}

/// Reads rows of a table; large values are left out of it, and read by themselves.
struct RowReader<'e> {
    engine: &'e Engine,
    table: &'e Arc<Table>,
    /// The columns, and if `guarded` last whether any value is large.
    columns: String,
    guarded: bool,
    /// Values longer than this are large, in bytes.
    large: usize,
}

impl<'e> RowReader<'e> {
    fn new(engine: &'e Engine, table: &'e Arc<Table>) -> Self {
        let large = engine.options.frame_bytes / 4;
        let mut columns = Vec::new();
        let mut any = Vec::new();
        for column in &table.def.columns {
            let c = quote(&column.name);
            // Keys travel whole or not at all; numbers are never large.
            if column.key > 0 || matches!(Affinity::of(&column.decl_type), Affinity::Integer | Affinity::Real)
            {
                columns.push(c);
            } else {
                let is_large = format!("octet_length({c}) > {large}");
                columns.push(format!("CASE WHEN {is_large} THEN NULL ELSE {c} END"));
                any.push(format!("coalesce({is_large}, 0)"));
            }
        }
        let guarded = !any.is_empty();
        if guarded {
            columns.push(any.join(" OR "));
        }
        Self { engine, table, columns: columns.join(", "), guarded, large }
    }

    fn is_large(&self, at: usize, keys: &[Value<'_>]) -> Result<bool> {
        let column = &self.table.def.columns[at];
        if column.key > 0 || matches!(Affinity::of(&column.decl_type), Affinity::Integer | Affinity::Real) {
            return Ok(false);
        }
        let sql = self.table.select_sql(&format!(
            "coalesce(octet_length({}) > {}, 0)",
            quote(&column.name),
            self.large
        ));
        let params = params_from_iter(keys.iter().map(|v| Bind(*v)));
        Ok(self.engine.db.prepare_cached(&sql)?.query_row(params, |row| row.get(0))?)
    }

    fn integer_key(&self, row: &Row<'_>) -> Result<i64> {
        let at =
            self.table.def.keys().next().ok_or_else(|| Error::damaged("an append table without a key"))?;
        Ok(row.get(at)?)
    }
}

impl Engine {
    /// The children of a row that is gone already: only its key is known.
    fn note_deleted(&self, parent: &Table, key: &[u8]) -> Result<()> {
        let values = super::value::read_key(key)?;
        for child in self.tables().iter().filter(|t| t.shows_shared()) {
            for (n, foreign) in child.def.foreign_keys.iter().enumerate() {
                if !foreign.parent.eq_ignore_ascii_case(&parent.def.name) {
                    continue;
                }
                let at_key = |there: &str| {
                    parent.def.keys().position(|at| parent.def.columns[at].name.eq_ignore_ascii_case(there))
                };
                let found: Option<Vec<&OwnedValue>> = foreign
                    .columns
                    .iter()
                    .map(|(_, there)| at_key(there).and_then(|at| values.get(at)))
                    .collect();
                match found {
                    Some(found) => {
                        let mut value = Vec::new();
                        for v in found {
                            super::value::push_key(
                                &mut value,
                                v.borrow(),
                                packmule_core::wire::Collation::Binary,
                            )?;
                        }
                        self.db
                            .prepare_cached("INSERT OR IGNORE INTO temp._pm_left (tid, foreign_key, value) VALUES (?1, ?2, ?3)")?
                            .execute((child.tid, n as i64, value))?;
                    }
                    None => self.note_all_children(child, foreign)?,
                }
            }
        }
        Ok(())
    }

    /// By which values a row was referred to that is gone is not known if it was not by its key:
    /// then all references of that kind that lead nowhere are looked for.
    fn note_all_children(&self, child: &Table, foreign: &super::def::ForeignKeyDef) -> Result<()> {
        let same: Vec<String> = foreign
            .columns
            .iter()
            .map(|(here, there)| format!("p.{} = c.{}", quote(there), quote(here)))
            .collect();
        let set: Vec<String> =
            foreign.columns.iter().map(|(here, _)| format!("c.{} IS NOT NULL", quote(here))).collect();
        let mut statement = self.db.prepare_cached(&format!(
            "SELECT {} FROM {} c WHERE {} AND NOT EXISTS (SELECT 1 FROM main.{} p WHERE {})",
            child.def.key_list("c."),
            child.sql_name,
            set.join(" AND "),
            quote(&foreign.parent),
            same.join(" AND ")
        ))?;
        let mut rows = statement.query([])?;
        let n = child.def.keys().count();
        while let Some(row) = rows.next()? {
            let values =
                (0..n).map(|at| row.get_ref(at).map(from_sql)).collect::<rusqlite::Result<Vec<_>>>()?;
            let key = child.key_of(values.into_iter())?;
            self.db
                .prepare_cached("INSERT OR IGNORE INTO temp._pm_to_check (tid, key) VALUES (?1, ?2)")?
                .execute((child.tid, key))?;
        }
        Ok(())
    }
}
