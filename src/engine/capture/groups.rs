//! Writes one group of frames of everything that was recorded since the last seal: one group a stream.

use std::collections::HashSet;
use std::sync::Arc;

use packmule_core::model::{DeviceId, Stream, Value};
use packmule_core::wire::{Decision, FrameFlags, KeptRun, Mode, OpKind, SchemaBits, Was};
use rusqlite::Row;

use crate::engine::capture::dirty::ChangeFlags;
use crate::engine::capture::ops::{self, Change, RowReader};
use crate::engine::capture::{append, changed_rows, declare, follow, fresh};
use crate::engine::error::{Error, Result};
use crate::engine::fleet::{membership, peers, positions, revocation};
use crate::engine::log::writer::{self, GroupWriter};
use crate::engine::merge::heads::{self, Seen, Stamp};
use crate::engine::merge::{compose, context_free, deferred, stretches};
use crate::engine::show::constraints;
use crate::engine::store::key_list::KeyList;
use crate::engine::store::{meta, value};
use crate::engine::table::catalog;
use crate::engine::table::columns::Columns;
use crate::engine::table::def::TableDef;
use crate::engine::table::known::{State, Table};
use crate::engine::table::replica::Replica;
use crate::engine::table::shapes;

/// What a seal made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct SealReport {
    /// Frames written to the log.
    pub frames: u64,
    /// Rows in them.
    pub ops: u64,
}

impl SealReport {
    /// Counts what another seal of the same transaction made.
    pub(crate) fn also_made(&mut self, other: &Self) {
        self.frames += other.frames;
        self.ops += other.ops;
    }
}

/// What a seal is for, beside what applications wrote.
#[derive(Clone, Copy, Default)]
pub(crate) struct SealOptions<'a> {
    pub flags: FrameFlags,
    /// Of a context-free group: it had seen all that is here, but for these frames.
    pub unseen: Option<&'a [KeptRun]>,
    /// Take in all rows of these tables, by number, each without the columns that Packmule made and that are not filled yet.
    pub take_in: &'a [(i64, Vec<String>)],
    /// Make an acknowledgement-only group if nothing was written: it says what this device has seen.
    pub acknowledge: bool,
    /// Say that this device will not come back.
    pub retire: Option<DeviceId>,
    /// Say that this device, which was retired, is back.
    pub came_back: Option<DeviceId>,
    /// Seal this table alone.
    pub only: Option<i64>,
    /// Leave what is recorded of these rows for later.
    pub without: Option<&'a KeyList<'a>>,
    /// Columns of the one table that Packmule made, and that are not filled yet.
    pub made: &'a [&'a str],
    /// Take in all rows of all per-device tables, and nothing else.
    pub reissue: bool,
    /// Declare this of a table, and seal nothing else.
    pub declare: Option<&'a TableDef>,
    /// Rows that a resolution writes, as they were before.
    pub decided: &'a [RowBefore],
    /// Say this of a table, and seal nothing else.
    pub says: Option<&'a Says<'a>>,
}

/// What this device says of a table.
pub(crate) struct Says<'a> {
    pub def: &'a TableDef,
    pub bits: SchemaBits,
    /// Columns that were renamed, with their names before and after; none after where it was dropped for all.
    pub names: &'a [(String, String)],
}

impl SealOptions<'_> {
    /// Returns whether what applications wrote is left for later.
    fn alone(&self) -> bool {
        self.declare.is_some() || self.says.is_some()
    }
}

/// A row before a resolution, for its undo.
pub(crate) struct RowBefore {
    /// The conflict's id.
    pub conflict: [u8; 5],
    pub tid: i64,
    pub key: Vec<u8>,
    /// When it claimed its unique values.
    pub claim: u64,
    pub was: Before,
}

/// What a row was.
pub(crate) enum Before {
    Gone,
    /// Names of columns and values in turn, encoded.
    Values(Vec<u8>),
    /// Larger than what is kept, or compacted away.
    Untold,
}

/// Writes what a row was into a group.
pub(crate) fn seal_before(replica: &Replica, group: &mut GroupWriter<'_>, row: &RowBefore) -> Result<()> {
    let was = match &row.was {
        Before::Gone => Was::Gone,
        Before::Values(values) => Was::Values(values),
        Before::Untold => Was::Untold,
    };
    let def = catalog::table(replica, row.tid)?.def_id;
    group.decision(&Decision { conflict: row.conflict, def, key: &row.key, claim: row.claim, was })
}

/// Seals: writes a group into each stream for which there is something. Within the open transaction.
pub(crate) fn seal_groups(replica: &Replica, options: SealOptions<'_>) -> Result<SealReport> {
    let mut streams = [false; 2];
    let mut with_something = HashSet::new();
    append::find_all_gaps(replica)?;
    for table in catalog::tables(replica).iter().filter(|_| !options.alone()) {
        if has_something(replica, table, options)? {
            streams[usize::from(stream_of(table).number())] = true;
            with_something.insert(table.tid);
        }
    }
    let says = options.retire.is_some() || options.came_back.is_some() || options.alone();
    let returns = membership::owes_return(replica)? && !peers::is_rolled_back(replica)?;
    let owes_word = revocation::owes_word(replica)?;
    streams[0] |= options.acknowledge || says || returns || owes_word;
    let mut report = SealReport::default();
    if streams == [false; 2] {
        return Ok(report);
    }
    if peers::is_rolled_back(replica)? {
        // What was written waits for the log that is missing; what somebody asks for now cannot.
        let asked = says || options.reissue || !options.take_in.is_empty() || !options.decided.is_empty();
        return if asked { Err(Error::RolledBack.into()) } else { Ok(report) };
    }
    let lamport = positions::next_lamport(replica)?;
    let firsts: Vec<u64> = Stream::ALL
        .iter()
        .map(|s| Ok(positions::position(replica, replica.me, *s)?.seq + 1))
        .collect::<Result<_>>()?;
    for stream in Stream::ALL {
        let at = usize::from(stream.number());
        if !streams[at] {
            continue;
        }
        let pair = if streams[1 - at] { firsts[1 - at] } else { 0 };
        let mut buf = writer::frame_memory(replica);
        let mut group = writer::begin_group(replica, stream, options.flags, lamport, pair, &mut buf)?;
        if stream == Stream::Shared {
            options.unseen.map_or(Ok(()), |runs| group.keep(runs.to_vec()))?;
            seal_membership(replica, &mut group, options, returns)?;
            seal_said(replica, &mut group, options)?;
            meta::set(&replica.db, "unanswered", false)?;
            if owes_word {
                revocation::give_word(replica)?;
            }
        }
        // Of hundreds of tables mostly a few were written to.
        let here = |t: &&Arc<Table>| stream_of(t) == stream && with_something.contains(&t.tid);
        for table in catalog::tables(replica).iter().filter(here) {
            seal_table(replica, table, &mut group, options)?;
        }
        report.frames += group.frames + 1;
        report.ops += group.ops;
        let position = group.finish()?;
        positions::set_position(replica, replica.me, stream, position)?;
        if let (Stream::Shared, Some(device)) = (stream, options.retire) {
            let rekeys = options.flags.has(FrameFlags::CONTEXT_FREE);
            membership::record_retired(replica, device, Some((replica.me, position.seq)), rekeys)?;
        }
    }
    catalog::reload_catalog(replica)?;
    if options.without.is_none() {
        // What is left must be sealed before its row is composed from its versions.
        constraints::resolve_constraints(replica)?;
    }
    Ok(report)
}

/// Writes what is declared and said of a table, and rows as they were before a resolution.
fn seal_said(replica: &Replica, group: &mut GroupWriter<'_>, options: SealOptions<'_>) -> Result<()> {
    if let Some(def) = options.declare {
        seal_def(replica, def, group, options)?;
    }
    if let Some(says) = options.says {
        seal_says(replica, says, group)?;
    }
    options.decided.iter().try_for_each(|row| seal_before(replica, group, row))
}

/// Writes who is retired, and who is back; `returns`: this device is.
fn seal_membership(
    replica: &Replica,
    group: &mut GroupWriter<'_>,
    options: SealOptions<'_>,
    returns: bool,
) -> Result<()> {
    if let Some(device) = options.retire {
        group.retire(device)?;
    }
    for device in options.came_back.into_iter().chain(returns.then_some(replica.identity.id)) {
        group.came_back(device)?;
        membership::hear_returned(replica, device, replica.me)?;
    }
    Ok(())
}

/// Returns whether a seal has something to write of a table.
pub(crate) fn has_something(replica: &Replica, table: &Table, options: SealOptions<'_>) -> Result<bool> {
    if table.state != State::Tracked || options.only.is_some_and(|tid| tid != table.tid) {
        return Ok(false);
    }
    if options.reissue {
        return Ok(table.def.mode == Mode::PerDevice);
    }
    if !table.announced || takes_in(table, options).is_some() {
        return Ok(true);
    }
    Ok(unsealed(replica, table, 1)? > 0)
}

/// Returns whether one of these tables has something that is not sealed.
pub(crate) fn any_unsealed(replica: &Replica, of: &dyn Fn(&Table) -> bool) -> Result<bool> {
    for table in catalog::tables(replica).iter().filter(|table| of(table)) {
        if unsealed(replica, table, 1)? > 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Counts the entries in the list of changes, and the rows that no entry tells of; each up to `most`.
pub(crate) fn unsealed(replica: &Replica, table: &Table, most: u32) -> Result<u64> {
    if !matches!(table.state, State::Tracked | State::Suspended) {
        return Ok(0);
    }
    let mut n: u64 = replica
        .db
        .prepare_cached(&format!("SELECT count(*) FROM (SELECT 1 FROM {} LIMIT ?1)", table.dirty()))?
        .query_row([most], |row| row.get(0))?;
    n += fresh::unsealed(replica, table, most)?;
    if table.def.append && table.state == State::Tracked {
        n += append::unsealed(replica, table, most)?;
    }
    Ok(n)
}

/// Seals a table: its definition if that is not announced yet, then its rows.
pub(crate) fn seal_table(
    replica: &Replica,
    table: &Arc<Table>,
    group: &mut GroupWriter<'_>,
    options: SealOptions<'_>,
) -> Result<()> {
    if !table.announced || options.reissue {
        announce(replica, table, group, options)?;
    }
    let reader = RowReader::new(replica, table);
    stretches::gathering(replica, || seal_rows(replica, &reader, group, options))?;
    if table.def.append { append::note_sealed(replica, table, group.wall) } else { Ok(()) }
}

/// Writes a table's definition into the group: from then on it is announced.
fn announce(
    replica: &Replica,
    table: &Table,
    group: &mut GroupWriter<'_>,
    options: SealOptions<'_>,
) -> Result<()> {
    seal_def(replica, &table.def, group, options)?;
    replica.db.execute("UPDATE _pm_table SET announced = 1 WHERE tid = ?1", [table.tid])?;
    Ok(())
}

/// Writes a table's definition into a group that is to have rows of it, if no log has it.
pub(crate) fn tell_definition(replica: &Replica, table: &Table, group: &mut GroupWriter<'_>) -> Result<()> {
    if catalog::is_told(replica, table.def_id)? {
        return Ok(());
    }
    announce(replica, table, group, SealOptions::default())
}

/// Seals the rows of a table.
fn seal_rows(
    replica: &Replica,
    reader: &RowReader<'_>,
    group: &mut GroupWriter<'_>,
    options: SealOptions<'_>,
) -> Result<()> {
    let table = reader.table;
    let taken = takes_in(table, options);
    if options.reissue || taken.is_some() {
        seal_all(replica, reader, group, taken.unwrap_or_default())?;
        if options.reissue {
            seal_gone(replica, reader, group)?;
        }
    } else if table.def.append {
        append::seal_appended(replica, reader, group)?;
    }
    seal_dirty(replica, reader, group, options)
}

/// Returns the columns that are not filled yet, if all rows of a table are to be taken in.
fn takes_in<'o>(table: &Table, options: SealOptions<'o>) -> Option<&'o [String]> {
    let found = options.take_in.iter().find(|(tid, _)| *tid == table.tid);
    found.map(|(_, made)| made.as_slice())
}

/// Writes a definition into the group, and records what it declares.
pub(crate) fn seal_def(
    replica: &Replica,
    def: &TableDef,
    group: &mut GroupWriter<'_>,
    options: SealOptions<'_>,
) -> Result<()> {
    let (id, body) = def.encode()?;
    let seq = group.def(&def.name, &body)?;
    replica.db.execute("UPDATE _pm_def SET told = 1 WHERE id = ?1", [id.0])?;
    if let Some(table) = catalog::table_named(replica, &def.name).filter(|_| def.declares()) {
        let decides = options.declare.is_some();
        if !decides {
            let bits = SchemaBits::default();
            shapes::record_shape(replica, table.tid, (replica.me, seq, group.lamport), id, bits)?;
            if follow::follows(replica, &table)? {
                seal_says(replica, &Says { def, bits: SchemaBits::FOLLOWS, names: &[] }, group)?;
            }
        }
        let stamp = Stamp { dev: replica.me, seq, lamport: group.lamport, seen: &Seen::All, decides };
        declare::record_declared(replica, table.tid, (def, id), &stamp, &|_, _| true)?;
    }
    Ok(())
}

/// Writes what this device says of a table into the group, and records it.
fn seal_says(replica: &Replica, says: &Says<'_>, group: &mut GroupWriter<'_>) -> Result<()> {
    let (id, body) = says.def.encode()?;
    let names: Vec<(&str, &str)> = says.names.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    let seq = group.schema(&says.def.name, &body, says.bits, &names)?;
    let tid = catalog::keep_said_def(replica, says.def, id, &body, says.names)?;
    let place = (replica.me, seq, group.lamport);
    shapes::record_shape(replica, tid, place, id, says.bits)?;
    for (before, after) in names {
        shapes::record_said(replica, tid, place, id, (before, after))?;
    }
    Ok(())
}

/// Seals all rows of a table, in the order of their keys, as context-free writes.
pub(crate) fn seal_all(
    replica: &Replica,
    reader: &RowReader<'_>,
    group: &mut GroupWriter<'_>,
    made: &[String],
) -> Result<()> {
    let table = reader.table;
    let made: Columns = made.iter().filter_map(|name| table.def.column(name)).collect();
    let columns = Columns::all(table.def.columns.len()).minus(&made);
    let change = Change { columns: Some(columns).filter(|_| !made.is_empty()), ..Change::default() };
    let (columns, keys) = (reader.columns(""), table.def.key_list(""));
    let sql = format!("SELECT {columns} FROM {} ORDER BY {keys}", table.sql_name);
    let mut statement = replica.db.prepare(&sql)?;
    let mut rows = statement.query([])?;
    let (own, _) = context_free::seen_by_us(replica, None)?;
    while let Some(row) = rows.next()? {
        ops::seal_row(replica, reader, group, row, &change, &Seen::Context(&own))?;
    }
    if table.def.append
        && let Some(last) = append::last_id(replica, table, (i64::MIN, i64::MAX))?
    {
        let sql = "UPDATE _pm_table SET appended = max(appended, ?2) WHERE tid = ?1";
        replica.db.execute(sql, (table.tid, last))?;
    }
    Ok(())
}

/// Seals the deletes of rows that are listed as deleted from a per-device table of this device (`reissue.rs`).
fn seal_gone(replica: &Replica, reader: &RowReader<'_>, group: &mut GroupWriter<'_>) -> Result<()> {
    let mut gone = replica.db.prepare("SELECT key FROM _pm_gone WHERE dev = ?1 AND tid = ?2 ORDER BY key")?;
    let mut rows = gone.query((replica.me, reader.table.tid))?;
    let change = Change { kind: OpKind::Delete, ..Change::default() };
    while let Some(row) = rows.next()? {
        let key = value::read_key(&row.get::<_, Vec<u8>>(0)?)?;
        if !compose::is_shown(replica, reader.table, &key)? {
            let keys: Vec<Value<'_>> = key.iter().map(|v| v.borrow()).collect();
            ops::seal_delete(replica, reader, group, &keys, &change, &Seen::ContextFree)?;
        }
    }
    Ok(())
}

/// Seals what applications did to the rows of a table, each row once: those that are new and in no list, then those in the
/// list of changes.
pub(crate) fn seal_dirty(
    replica: &Replica,
    reader: &RowReader<'_>,
    group: &mut GroupWriter<'_>,
    options: SealOptions<'_>,
) -> Result<()> {
    let table = reader.table;
    if options.without.is_some() {
        fresh::record(replica, table.tid)?;
    }
    let mut sealing = Changes::new(replica, reader, options)?;
    let new = fresh::take(replica, table.tid);
    if let Some(new) = &new {
        let mut statement = replica.db.prepare_cached(&changed_rows::fresh_sql(reader))?;
        let mut rows = statement.query((new.first, new.last))?;
        while let Some(row) = rows.next()? {
            sealing.new_row(group, row)?;
        }
    }
    let sql = changed_rows::sql(reader, changed_rows::are_in_order(replica, table)?);
    let mut statement = replica.db.prepare_cached(&sql)?;
    let mut dirty = statement.query([])?;
    while let Some(row) = dirty.next()? {
        // A new row that is there is sealed. One that went again is said to be gone.
        if let Some(new) = &new
            && row.get(sealing.at - 1)?
            && new.has(row.get(sealing.at)?)
        {
            continue;
        }
        sealing.row(group, row)?;
    }
    drop(dirty);
    sealing.finish()
}

/// The rows of a table that are sealed, one after the other.
struct Changes<'e, 'o> {
    replica: &'e Replica,
    reader: &'e RowReader<'e>,
    options: SealOptions<'o>,
    /// Where the key stands in a row of the query, after the row's own columns; then come the change flags.
    at: usize,
    /// How many columns it has.
    keys: usize,
    /// Columns that keep what the log has for them.
    unwritten: Columns,
    /// Some row of the table has heads.
    remembers: bool,
    /// What the author of a context-free group had seen.
    own: Option<heads::Vector>,
    /// How many rows were deleted whose deletes are not carried.
    deleted: u64,
    freed: bool,
}

impl<'e, 'o> Changes<'e, 'o> {
    fn new(replica: &'e Replica, reader: &'e RowReader<'e>, options: SealOptions<'o>) -> Result<Self> {
        let table = reader.table;
        let def = &table.def;
        let mut unwritten = table.disputed.clone();
        options.made.iter().filter_map(|name| def.column(name)).for_each(|at| unwritten.insert(at));
        let remembers = def.mode == Mode::Shared && heads::has_any(replica, table.tid)?;
        let context_free = options.flags.has(FrameFlags::CONTEXT_FREE);
        let own = context_free.then(|| context_free::seen_by_us(replica, options.unseen)).transpose()?;
        let own = own.map(|(own, _)| own);
        let (at, keys) = (def.columns.len() + 1, def.keys().count());
        Ok(Self { replica, reader, options, at, keys, unwritten, remembers, own, deleted: 0, freed: false })
    }

    /// Seals a row of [`changed_rows::fresh_sql`]. Mostly nobody has known its key, and nothing but its values is looked at:
    /// each look into a row costs as much as a column of it.
    fn new_row(&mut self, group: &mut GroupWriter<'_>, row: &Row<'_>) -> Result<()> {
        let Self { replica, reader, at, .. } = *self;
        let mut change = Change { heads: Some(Vec::new()), ..Change::default() };
        if self.remembers {
            let key = reader.table.key_of(std::iter::once(value::from_sql(row.get_ref(at)?)))?;
            if !heads::heads(replica, reader.table.tid, &key)?.is_empty() {
                return self.row(group, row);
            }
            change.key = Some(key);
        }
        let seen = self.own.as_ref().map_or(Seen::All, Seen::Context);
        ops::seal_row(replica, reader, group, row, &change, &seen)
    }

    /// Seals a row.
    fn row(&mut self, group: &mut GroupWriter<'_>, row: &Row<'_>) -> Result<()> {
        let Self { replica, reader, at, keys: n, .. } = *self;
        let table = reader.table;
        let present: bool = row.get(at - 1)?;
        let flags: ChangeFlags = row.get(at + n)?;
        if flags == ChangeFlags::MAYBE_GONE && present {
            return Ok(());
        }
        let values = value::some_of(row, at..at + n)?;
        let key = table.key_of(values.iter().copied())?;
        if self.options.without.map_or(Ok(false), |without| without.has_key(&key))? {
            return Ok(());
        }
        // Each row comes once: what has become of others here is nothing to it.
        let heads = if self.remembers { heads::heads(replica, table.tid, &key)? } else { Vec::new() };
        let seen = self.own.as_ref().map_or(Seen::All, Seen::Context);
        if present {
            let change = changed_rows::change_of(table, row, (at + n, flags), &heads, &self.unwritten)?;
            let change = Change { heads: Some(heads), key: Some(key), ..change };
            return ops::seal_row(replica, reader, group, row, &change, &seen);
        }
        // What came and went unnoticed while the row itself was quarantined is not its end.
        if !flags.has(ChangeFlags::RESOLVED) && deferred::is_quarantined(replica, table.tid, &key)? {
            return Ok(());
        }
        if table.watches_gaps() {
            append::free_id(replica, table, &values)?;
            self.freed = true;
            if !table.carries_deletes {
                self.deleted += 1;
                return Ok(());
            }
        }
        let wall = row.get(at + n + 1)?;
        let change = Change { kind: OpKind::Delete, wall, heads: Some(heads), ..Change::default() };
        ops::seal_delete(replica, reader, group, &values, &change, &seen)
    }

    /// Empties the list of changes, unless some of it is left for later.
    fn finish(self) -> Result<()> {
        let Self { replica, reader, options, deleted, freed, .. } = self;
        let table = reader.table;
        if deleted > 0 {
            append::note_deleted(replica, table, deleted)?;
        }
        if freed {
            append::forget_narrow_gaps(replica, table.tid)?;
        }
        if options.without.is_none() {
            replica.db.execute(&format!("DELETE FROM {}", table.dirty()), [])?;
        }
        Ok(())
    }
}

/// Returns the stream that a table's rows go to.
pub(crate) fn stream_of(table: &Table) -> Stream {
    match table.def.mode {
        Mode::Shared => Stream::Shared,
        Mode::PerDevice => Stream::PerDevice,
    }
}
