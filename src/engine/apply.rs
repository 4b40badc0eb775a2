//! Applying a group: its ops against the versions that are known of their rows.
//!
//! Groups come here in causal order, so that a new op is never dominated by one that is here
//! already. What may contest a row is put off to `settle`, at the end of the group.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use packmule_core::merge::{Version, dominates};
use packmule_core::model::{Big, DeviceId, Stream, Value, WallMs};
use packmule_core::wire::{Block, DefId, FrameFlags, Op, OpKind, Ops, Shape};
use rusqlite::{ErrorCode, MAIN_DB, params_from_iter};

use super::Engine;
use super::catalog::{OpDef, State, Table};
use super::columns::Columns;
use super::declare::Stamp;
use super::error::{Error, Result};
use super::log::{bad, parse};
use super::references::Cause;
use super::value::{Bind, quote};

/// A version of a row that no other dominates: a row of `_pm_head`.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub dev: i64,
    pub author: DeviceId,
    pub seq: u64,
    pub place: u32,
    pub claim: u64,
    pub wall: WallMs,
    pub kind: OpKind,
    /// The columns of which no later version is known; `None` if it wrote the whole row and no
    /// column of it was overwritten.
    pub columns: Option<Columns>,
    /// Of a version that is older than what is remembered: its values.
    pub image: Option<Vec<u8>>,
}

impl Head {
    /// The columns that it speaks for, of a table with `n`; a delete speaks for none.
    pub(crate) fn live(&self, n: usize) -> Columns {
        match (&self.columns, self.kind) {
            (_, OpKind::Delete) => Columns::default(),
            (Some(columns), _) => columns.clone(),
            (None, _) => Columns::all(n),
        }
    }

    pub(crate) fn version(&self) -> Version {
        Version { author: self.author, seq: self.seq, wall: self.wall, delete: self.kind == OpKind::Delete }
    }
}

pub(crate) fn kind_number(kind: OpKind) -> i64 {
    match kind {
        OpKind::Insert => 1,
        OpKind::Update => 2,
        OpKind::Delete => 3,
    }
}

pub(crate) fn kind_from(number: i64) -> Result<OpKind> {
    match number {
        1 => Ok(OpKind::Insert),
        2 => Ok(OpKind::Update),
        3 => Ok(OpKind::Delete),
        _ => Err(Error::damaged("`_pm_head` has a row of an unknown kind")),
    }
}

/// What the author of an op had seen.
pub(crate) enum Seen<'c> {
    /// All that is here: the op is our own.
    All,
    /// Up to these, by device number.
    Context(&'c HashMap<i64, u64>),
    /// Up to these, and all of this author's own: what the author of a blind op had heard.
    Heard(i64, &'c HashMap<i64, u64>),
    /// Nothing that counts.
    Blind,
}

impl Seen<'_> {
    pub(crate) fn of(&self, dev: i64) -> u64 {
        match self {
            Seen::All => u64::MAX,
            Seen::Context(context) => context.get(&dev).copied().unwrap_or(0),
            Seen::Heard(author, _) if *author == dev => u64::MAX,
            Seen::Heard(_, context) => context.get(&dev).copied().unwrap_or(0),
            Seen::Blind => 0,
        }
    }
}

/// How many ops and rows an import touched.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub ops: u64,
    pub waiting: u64,
}

/// How ops of one definition are written into their table here.
pub(crate) struct Writer {
    table: Arc<Table>,
    /// For each column of the definition, its number here.
    columns: Vec<Option<usize>>,
    /// For an op that carries the whole row.
    upsert: String,
    delete: String,
    /// The definition has all the columns of the table here.
    whole: bool,
    /// What the author is called in a gathered table's first column.
    label: Option<String>,
    /// The definition has the primary key of the table here.
    same_key: bool,
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
    fn carried(&self, def: &OpDef, op: &Op<'_>) -> Option<Columns> {
        if op.head.kind == OpKind::Delete || (self.whole && op.head.columns.is_none()) {
            return None;
        }
        let shape = Shape { keys: &def.key_flags };
        Some(op.values(shape).filter_map(|(at, _)| self.columns[at]).collect())
    }
}

impl Engine {
    /// The versions of a row that are known, in the order of device numbers.
    pub(crate) fn heads(&self, tid: i64, key: &[u8]) -> Result<Vec<Head>> {
        let mut statement = self.db.prepare_cached(
            "SELECT dev, seq, place, claim, wall, kind, (SELECT id FROM _pm_device WHERE n = dev), columns
             FROM _pm_head WHERE tid = ?1 AND key = ?2",
        )?;
        let mut rows = statement.query((tid, key))?;
        let mut heads = Vec::new();
        while let Some(row) = rows.next()? {
            heads.push(Head {
                dev: row.get(0)?,
                seq: row.get(1)?,
                place: row.get(2)?,
                claim: row.get(3)?,
                wall: row.get(4)?,
                kind: kind_from(row.get(5)?)?,
                author: DeviceId(row.get(6)?),
                columns: row.get_ref(7)?.as_blob_or_null().ok().flatten().map(Columns::of_bytes),
                image: None,
            });
        }
        if let Some(old) = heads.first_mut().filter(|head| head.dev == 0) {
            let sql = "SELECT body FROM _pm_image WHERE tid = ?1 AND key = ?2";
            old.image = super::value::maybe(&self.db, sql, (tid, key))?;
        }
        Ok(heads)
    }

    /// Notes a new version of a row, and what it leaves of those that it dominates. Whether it can
    /// be written as it is; if not, the row is put off to `settle`.
    /// `old` are the versions that are known.
    pub(crate) fn register(
        &self,
        table: &Table,
        key: &[u8],
        new: &Head,
        old: &[Head],
        seen: &Seen<'_>,
    ) -> Result<bool> {
        let (tid, n) = (table.tid, table.def.columns.len());
        let mine = new.live(n);
        let blind = matches!(seen, Seen::Blind);
        let mut left = Vec::new();
        for head in old {
            if !dominates(new.author, blind, &head.version(), seen.of(head.dev)) {
                left.push((head.kind, head.live(n)));
                continue;
            }
            let rest = match new.columns {
                Some(_) if new.kind != OpKind::Delete => head.live(n).minus(&mine),
                _ => Columns::default(),
            };
            let place = (tid, key, head.dev, head.seq);
            if rest.is_empty() {
                self.db
                    .prepare_cached(
                        "DELETE FROM _pm_head WHERE tid = ?1 AND key = ?2 AND dev = ?3 AND seq = ?4",
                    )?
                    .execute(place)?;
            } else {
                self.db
                    .prepare_cached(
                        "UPDATE _pm_head SET columns = ?5 WHERE tid = ?1 AND key = ?2 AND dev = ?3 AND seq = ?4",
                    )?
                    .execute((tid, key, head.dev, head.seq, rest.as_bytes()))?;
                left.push((head.kind, rest));
            }
        }
        self.db
            .prepare_cached(
                "INSERT INTO _pm_head (tid, key, dev, seq, place, claim, wall, kind, columns)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            )?
            .execute((
                tid,
                key,
                new.dev,
                new.seq,
                new.place,
                new.claim,
                new.wall,
                kind_number(new.kind),
                new.columns.as_ref().map(Columns::as_bytes),
            ))?;
        let apart = |(kind, columns): &(OpKind, Columns)| *kind != OpKind::Delete && !columns.meets(&mine);
        let alone = left.is_empty() || (new.kind != OpKind::Delete && left.iter().all(apart));
        if !alone || (old.len() > 1 && !left.is_empty()) || self.is_parked(tid, key)? {
            self.put_off(tid, key)?;
            return Ok(false);
        }
        if old.len() > 1 {
            self.db
                .prepare_cached("DELETE FROM _pm_conflict WHERE tid = ?1 AND key = ?2")?
                .execute((tid, key))?;
        }
        Ok(true)
    }

    /// Applies a group that is in the log and whose time has come.
    pub(crate) fn apply_group(&self, dev: i64, stream: Stream, first: u64, last: u64) -> Result<Counts> {
        let author = self.device_id(dev)?;
        let mut context: HashMap<i64, u64> = self.context_of(dev, stream)?.into_iter().collect();
        let mut counts = Counts::default();
        let mut lamport = 0;
        let mut wall = 0;
        let mut writers: HashMap<DefId, Writer> = HashMap::new();
        for seq in first..=last {
            let body = self.frame_here(dev, stream, seq)?;
            let frame = parse(&body)?;
            if let Some(group) = frame.group {
                (lamport, wall) = (group.lamport, group.wall);
                for (id, seen) in frame.context() {
                    let other = self.device_number_or_new(id)?;
                    context.insert(other, seen);
                    self.set_context(dev, stream, other, seen)?;
                }
            }
            let seen =
                if frame.head.flags.has(FrameFlags::BLIND) { Seen::Blind } else { Seen::Context(&context) };
            let mut blocks = frame.blocks();
            while let Some(block) = blocks.next_block().map_err(bad)? {
                match block {
                    Block::Def(body) => {
                        let decides = frame.head.flags.has(FrameFlags::RESOLUTION);
                        let seen = Seen::Context(&context);
                        let stamp = Stamp { dev, seq, lamport, seen: &seen, decides };
                        self.take_in_def(stream, body, &stamp)?;
                        writers.clear();
                    }
                    Block::Piece(_) => {}
                    Block::Retire(device) => {
                        let goes_on = frame.head.flags.has(FrameFlags::BLIND);
                        self.note_retired(device, Some((dev, seq)), goes_on)?;
                    }
                    Block::Rows { def: id, body, offset } => {
                        let def = self.op_def(id)?;
                        let writer = match writers.entry(id) {
                            Entry::Occupied(known) => known.into_mut(),
                            Entry::Vacant(new) => new.insert(self.writer(def.tid, &def, dev)?),
                        };
                        let mut ops = Ops::new(body, offset, Shape { keys: &def.key_flags });
                        while let Some(op) = ops.next_op().map_err(bad)? {
                            let place = Place { dev, author, stream, seq, lamport, wall };
                            self.apply_op(writer, &def, &op, &place, (&seen, &context), &mut counts)?;
                        }
                        blocks.resume(ops.rest());
                    }
                }
            }
        }
        if counts.ops > 0 && stream == Stream::Shared {
            super::store::set(&self.db, "unanswered", true)?;
        }
        self.settle(&Cause { dev, first, seen: &Seen::Context(&context) })?;
        if dev == self.me {
            self.reload_catalog()?; // Up to where append tables are sealed.
        }
        Ok(counts)
    }

    /// For ops of a device.
    fn writer(&self, tid: i64, def: &OpDef, dev: i64) -> Result<Writer> {
        let table = self.table(tid)?;
        let gathered = table.state == State::Gathered;
        let label = gathered.then(|| self.device_label(dev)).transpose()?;
        Ok(Writer::new(table, def, label))
    }

    /// Writes what the log has for one gathered table, and nothing else of it.
    pub(crate) fn replay_gathered(&self, tid: i64) -> Result<()> {
        let name = self.table(tid)?.def.name.clone();
        let mut groups = self.db.prepare(
            "SELECT dev, first, last FROM _pm_group WHERE stream = 1 AND applied AND dev <> ?1 ORDER BY dev, last",
        )?;
        // A trigger that fails is undone with a rollback, which no open statement survives.
        let groups = groups
            .query_map([self.me], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
            .collect::<rusqlite::Result<Vec<(i64, u64, u64)>>>()?;
        for (dev, first, last) in groups {
            let (author, stream) = (self.device_id(dev)?, Stream::Own);
            let mut writers: HashMap<DefId, Writer> = HashMap::new();
            for seq in first..=last {
                let body = self.frame_here(dev, stream, seq)?;
                let frame = parse(&body)?;
                let mut blocks = frame.blocks();
                while let Some(block) = blocks.next_block().map_err(bad)? {
                    match block {
                        Block::Def(body) => {
                            let def = super::def::TableDef::decode(body).map_err(bad)?;
                            if def.name.eq_ignore_ascii_case(&name) {
                                let stamp =
                                    Stamp { dev, seq, lamport: 0, seen: &Seen::Blind, decides: false };
                                self.take_in_def(stream, body, &stamp)?;
                                writers.clear();
                            }
                        }
                        Block::Piece(_) | Block::Retire(_) => {}
                        Block::Rows { def: id, body, offset } => {
                            let def = self.op_def(id)?;
                            if let (true, Entry::Vacant(new)) = (def.tid == tid, writers.entry(id)) {
                                new.insert(self.writer(tid, &def, dev)?);
                            }
                            let mut ops = Ops::new(body, offset, Shape { keys: &def.key_flags });
                            while let Some(op) = ops.next_op().map_err(bad)? {
                                if let Some(writer) = writers.get(&id) {
                                    let place = Place { dev, author, stream, seq, lamport: 0, wall: 0 };
                                    self.write_row(writer, &def, &op, &place)?;
                                }
                            }
                            blocks.resume(ops.rest());
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn apply_op(
        &self,
        writer: &Writer,
        def: &OpDef,
        op: &Op<'_>,
        place: &Place,
        (seen, context): (&Seen<'_>, &HashMap<i64, u64>),
        counts: &mut Counts,
    ) -> Result<()> {
        counts.ops += 1;
        let table = &writer.table;
        if place.stream == Stream::Own {
            if table.state == State::Gathered {
                self.write_row(writer, def, op, place)?;
            } else if place.dev == self.me && table.state == State::Tracked {
                self.take_back(writer, def, op, place)?;
            } else {
                counts.waiting += 1;
            }
            return Ok(());
        }
        if !writer.same_key {
            counts.waiting += 1; // Which row here it would be nobody can say.
            return Ok(());
        }
        let key = def.key_of(op.values(Shape { keys: &def.key_flags }))?;
        let new = Head {
            dev: place.dev,
            author: place.author,
            seq: place.seq,
            place: op.offset,
            claim: op.head.claim.unwrap_or(place.lamport),
            wall: op.head.wall.unwrap_or(place.wall),
            kind: op.head.kind,
            columns: writer.carried(def, op),
            image: None,
        };
        if matches!(seen, Seen::Blind) && table.shows_shared() {
            self.meet_blind_op(table, &key, &Seen::Heard(place.dev, context), def, op)?;
        }
        let writable = self.register(table, &key, &new, &self.heads(table.tid, &key)?, seen)?;
        if !table.shows_shared() {
            self.count(table, &key, def, op, &new, seen, true)?;
            if table.state == State::Held {
                self.db
                    .prepare_cached("INSERT OR IGNORE INTO _pm_held (tid, key) VALUES (?1, ?2)")?
                    .execute((table.tid, &key))?;
            }
            counts.waiting += 1;
            return Ok(());
        }
        let there = self.before_change(table, &key)?;
        if new.kind == OpKind::Delete && table.is_parent {
            self.note_deleted(table, &key, true)?;
        }
        if new.kind == OpKind::Delete && !there {
            self.note_changed(table)?;
        }
        self.count(table, &key, def, op, &new, seen, false)?;
        if !writable {
            return Ok(());
        }
        match self.write_row(writer, def, op, place) {
            Ok(true) => self.after_shown(table, &key),
            // The row to be changed is not in its table.
            Ok(false) => self.put_off(table.tid, &key),
            Err(Error::Sqlite(e)) if e.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
                self.put_off(table.tid, &key)
            }
            Err(e) => Err(e),
        }
    }

    /// Writes a row of a per-device table of ours, which was set back.
    fn take_back(&self, writer: &Writer, def: &OpDef, op: &Op<'_>, place: &Place) -> Result<()> {
        self.write_row(writer, def, op, place)?;
        if !writer.table.def.append {
            return Ok(());
        }
        let mut values = op.values(Shape { keys: &def.key_flags });
        if let Some(Value::Int(id)) = values.find(|(at, _)| def.def.columns[*at].key > 0).map(|(_, v)| v) {
            self.db
                .prepare_cached("UPDATE _pm_table SET appended = max(appended, ?2) WHERE tid = ?1")?
                .execute((writer.table.tid, id))?;
        }
        Ok(())
    }

    /// Makes a table's row what an op says: written, or deleted. Counters are not touched by updates.
    /// Whether there was a row to be updated, where only a part of it is.
    pub(crate) fn write_row(&self, writer: &Writer, def: &OpDef, op: &Op<'_>, place: &Place) -> Result<bool> {
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
            self.firing(table, || {
                Ok(self.db.prepare_cached(&writer.delete)?.execute(params_from_iter(&key))?)
            })?;
            return Ok(true);
        }
        let partial =
            op.head.columns.is_some() || (op.head.kind == OpKind::Update && !table.counters.is_empty());
        let writes = |at: usize| {
            writer.columns[at]
                .filter(|c| !table.leaves(*c))
                .is_some_and(|c| !partial || (def.def.columns[at].key == 0 && !table.counters.contains(&c)))
        };
        // Text in pieces must be put together, and what a trigger reads; a BLOB is written into its
        // place bit by bit.
        let local = self.has_local_triggers(table)?;
        let mut texts: Vec<Vec<u8>> = Vec::new();
        let mut blobs: Vec<(usize, Big)> = Vec::new();
        for (at, value) in &values {
            if let (Value::Big(big), Some(column), true) = (value, writer.columns[*at], writes(*at)) {
                let whole =
                    big.text || table.def.without_rowid || (local && self.triggers_read(table, column));
                if whole || self.is_indexed(table, column)? {
                    let mut whole = Vec::new();
                    self.pieces((place.dev, place.stream, place.seq), big, |bytes| {
                        whole.extend_from_slice(bytes);
                        Ok(())
                    })?;
                    texts.push(whole);
                } else {
                    // All pieces must be there before room is made for them.
                    self.pieces((place.dev, place.stream, place.seq), big, |_| Ok(()))?;
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
            if !self.write_difference(table, &key, &written, values, insert.as_deref())? {
                return Ok(false);
            }
        } else if partial {
            bound.extend(label.clone().chain(keys()).map(Bind));
            let changed =
                self.db.prepare_cached(&table.update_sql(&written))?.execute(params_from_iter(bound))?;
            if changed == 0 {
                return Ok(false);
            }
        } else {
            self.db.prepare_cached(&writer.upsert)?.execute(params_from_iter(bound))?;
        }
        if blobs.is_empty() {
            return Ok(true);
        }
        let key: Vec<Bind<'_>> = label.chain(keys()).map(Bind).collect();
        let rowid: i64 = self
            .db
            .prepare_cached(&table.select_sql(table.def.rowid_name()))?
            .query_row(params_from_iter(key), |row| row.get(0))?;
        for (column, big) in blobs {
            let name = table.def.columns[column].name.as_str();
            let mut blob = self.db.blob_open(MAIN_DB, table.def.name.as_str(), name, rowid, false)?;
            let mut at = 0;
            self.pieces((place.dev, place.stream, place.seq), &big, |bytes| {
                blob.write_at(bytes, at)?;
                at += bytes.len();
                Ok(())
            })?;
        }
        Ok(true)
    }

    /// Whether incremental writing is refused for a column.
    pub(crate) fn is_indexed(&self, table: &Table, column: usize) -> Result<bool> {
        let name = &table.def.columns[column].name;
        let found: Option<i64> = super::value::maybe(
            &self.db,
            "SELECT 1 FROM pragma_index_list(?1) l, pragma_index_info(l.name) i WHERE i.name = ?2 OR i.name IS NULL LIMIT 1",
            (&table.def.name, name),
        )?;
        Ok(found.is_some())
    }

    /// Deletes a row by its canonical key, which SQLite takes for the stored one's equal.
    pub(crate) fn delete_row(&self, table: &Table, key: &[u8]) -> Result<()> {
        let values = super::value::read_key(key)?;
        let sql = table.delete_sql();
        self.firing(table, || {
            let values = values.iter().map(|value| Bind(value.borrow()));
            self.db.prepare_cached(&sql)?.execute(params_from_iter(values))?;
            Ok(())
        })
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

impl super::def::TableDef {
    /// A name for the rowid that no column has taken.
    pub(crate) fn rowid_name(&self) -> &'static str {
        ["rowid", "_rowid_", "oid"].into_iter().find(|name| self.column(name).is_none()).unwrap_or("rowid")
    }

    /// The columns of the key, quoted.
    pub(crate) fn key_list(&self, before: &str) -> String {
        self.keys()
            .map(|at| format!("{before}{}", quote(&self.columns[at].name)))
            .collect::<Vec<_>>()
            .join(", ")
    }
}
