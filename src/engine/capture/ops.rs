//! Reads rows from their table and writes them into frames: one at a time, large values in pieces.

use std::borrow::Cow;
use std::sync::Arc;

use packmule_core::model::{Big, Value, WallMs};
use packmule_core::wire::{Mode, OpHead, OpKind};
use rusqlite::types::ValueRef;
use rusqlite::{Row, params_from_iter};
use sha2::{Digest, Sha256};

use crate::engine::capture::dirty::ChangeFlags;
use crate::engine::error::{Error, Result};
use crate::engine::log::writer::GroupWriter;
use crate::engine::merge::counters::Counted;
use crate::engine::merge::heads::{self, Head, Seen};
use crate::engine::merge::{counters, register};
use crate::engine::show::count;
use crate::engine::show::{constraints, references};
use crate::engine::store::meta;
use crate::engine::store::value::{self, Bind, OwnedValue};
use crate::engine::table::columns::Columns;
use crate::engine::table::known::Table;
use crate::engine::table::large;
use crate::engine::table::opened::OpPlace;
use crate::engine::table::replica::Replica;

/// The longest key that travels, in bytes.
pub(crate) const KEY_MAX: usize = 1024;

/// What an op says of a row, besides its values.
#[derive(Clone)]
pub(crate) struct Change {
    pub kind: OpKind,
    pub claim: Option<u64>,
    /// The columns that changed, if not the whole row counts.
    pub columns: Option<Columns>,
    pub wall: Option<WallMs>,
    /// What an update did to counters.
    pub counted: Vec<CounterChange>,
    /// The heads of the row, if they were looked up.
    pub heads: Option<Vec<Head>>,
    /// The row's canonical key, if it was made.
    pub key: Option<Vec<u8>>,
}

/// What an update did to a counter.
#[derive(Clone)]
pub(crate) struct CounterChange {
    pub column: usize,
    /// What the op carries of it.
    pub carried: OwnedValue,
    /// What it was before.
    pub before: OwnedValue,
}

impl Default for Change {
    fn default() -> Self {
        Self {
            kind: OpKind::Insert,
            claim: None,
            columns: None,
            wall: None,
            counted: Vec::new(),
            heads: None,
            key: None,
        }
    }
}

/// Writes a row that was read; its large values go first, in pieces.
pub(crate) fn seal_row(
    replica: &Replica,
    reader: &RowReader<'_>,
    group: &mut GroupWriter<'_>,
    row: &Row<'_>,
    change: &Change,
    seen: &Seen<'_>,
) -> Result<()> {
    let table = reader.table;
    let n = table.def.columns.len();
    let mut values = value::first_of(row, n)?;
    if !can_carry(replica, table, table.keys.iter().map(|(at, _)| values[*at]))? {
        return Ok(());
    }
    for counted in &change.counted {
        values[counted.column] = counted.carried.borrow();
    }
    let firsts = if values.iter().any(may_be_large) {
        write_all_large(replica, reader, group, &mut values, change)?
    } else {
        Vec::new()
    };
    seal_values(replica, table, group, values, firsts, change, false, seen)
}

/// Writes the large values of a row in pieces, and puts references into their places. Returns which they are, and the
/// frames in which they begin.
fn write_all_large<'v>(
    replica: &Replica,
    reader: &RowReader<'_>,
    group: &mut GroupWriter<'_>,
    values: &mut [Value<'v>],
    change: &Change,
) -> Result<Vec<(usize, u64)>> {
    let keys: Vec<Value<'v>> = reader.table.def.keys().map(|at| values[at]).collect();
    let mut firsts = Vec::new();
    for (at, value) in values.iter_mut().enumerate() {
        let carried = change.columns.as_ref().is_none_or(|columns| columns.contains(at));
        if carried && may_be_large(value) && reader.is_large(at, &keys)? {
            let (big, first) = write_large(replica, reader, group, at, &keys)?;
            *value = Value::Big(big);
            firsts.push((at, first));
        }
    }
    Ok(firsts)
}

/// Writes a delete, with the row's last values where an update of a part may restore it.
pub(crate) fn seal_delete(
    replica: &Replica,
    reader: &RowReader<'_>,
    group: &mut GroupWriter<'_>,
    keys: &[Value<'_>],
    change: &Change,
    seen: &Seen<'_>,
) -> Result<()> {
    let table = reader.table;
    if !can_carry(replica, table, keys.iter().copied())? {
        return Ok(());
    }
    let n = table.def.columns.len();
    let mut last: Option<Vec<OwnedValue>> = None;
    if table.needs_baseline() {
        let columns: Vec<String> = (0..n).map(|at| format!("i{at}")).collect();
        let sql = format!(
            "SELECT {} FROM {} WHERE {} AND note IN ({}, {}) ORDER BY rowid DESC LIMIT 1",
            columns.join(", "),
            table.dirty(),
            table.change_match(),
            ChangeFlags::DELETE,
            ChangeFlags::MAYBE_GONE
        );
        let mut statement = replica.db.prepare_cached(&sql)?;
        let mut rows = statement.query(params_from_iter(keys.iter().map(|v| Bind(*v))))?;
        if let Some(row) = rows.next()? {
            let values = (0..n).map(|at| last_value(replica, table, at, row.get_ref(at)?));
            last = Some(values.collect::<Result<_>>()?);
        }
    }
    let mut values = vec![Value::Null; n];
    if let Some(last) = &last {
        values = last.iter().map(OwnedValue::borrow).collect();
    }
    for (at, value) in table.def.keys().zip(keys) {
        values[at] = *value;
    }
    seal_values(replica, table, group, values, Vec::new(), change, last.is_some(), seen)
}

/// Reads the last value of a column of a row that was deleted, as the column would store it now: it may have been retyped since.
fn last_value(replica: &Replica, table: &Table, at: usize, value: ValueRef<'_>) -> Result<OwnedValue> {
    let value = OwnedValue::of(value::from_sql(value))?;
    let affinity = table.def.columns[at].affinity();
    if affinity.stores(&value.borrow()) { Ok(value) } else { value::converted(&replica.db, &value, affinity) }
}

/// Writes a row, or that it is gone, as these values say, and not as its table has it.
pub(crate) fn seal_said(
    replica: &Replica,
    table: &Table,
    group: &mut GroupWriter<'_>,
    values: &[OwnedValue],
    change: &Change,
) -> Result<()> {
    let values = values.iter().map(OwnedValue::borrow).collect();
    let image = change.kind == OpKind::Delete && table.needs_baseline();
    seal_values(replica, table, group, values, Vec::new(), change, image, &Seen::All)
}

/// Writes an op of a row without any value but the key's, into a group that restates its table: the row is as it was, or,
/// with an update, there is nothing of it here.
pub(crate) fn seal_unsaid(
    replica: &Replica,
    table: &Table,
    group: &mut GroupWriter<'_>,
    keys: &[Value<'_>],
    kind: OpKind,
) -> Result<()> {
    let none = vec![0; table.def.columns.len().div_ceil(8)];
    let columns = (kind != OpKind::Keep).then_some(&none[..]);
    let by_key: Vec<(usize, Value<'_>)> = {
        let mut all: Vec<_> = table.def.keys().zip(keys.iter().copied()).collect();
        all.sort_by_key(|(at, _)| *at);
        all
    };
    let head = OpHead { kind, claim: None, columns, wall: None, image: false };
    let carried: Vec<usize> = by_key.iter().map(|(at, _)| *at).collect();
    let mut values: Vec<Value<'_>> = by_key.iter().map(|(_, value)| *value).collect();
    write_op(replica, table, group, &head, |at| carried[at], &mut values, Vec::new())?;
    Ok(())
}

/// Writes an op with those of a row's values that it carries, and registers it as a version of the row.
#[allow(clippy::too_many_arguments)]
fn seal_values(
    replica: &Replica,
    table: &Table,
    group: &mut GroupWriter<'_>,
    all: Vec<Value<'_>>,
    firsts: Vec<(usize, u64)>,
    change: &Change,
    delete_has_values: bool,
    seen: &Seen<'_>,
) -> Result<()> {
    let def = &table.def;
    let n = def.columns.len();
    let mut mask = change.columns.as_ref().map(|columns| columns.as_bytes().to_vec());
    if let Some(mask) = &mut mask {
        mask.resize(n.div_ceil(8), 0);
    }
    let head = OpHead {
        kind: change.kind,
        claim: change.claim,
        columns: mask.as_deref(),
        wall: change.wall.filter(|_| def.timed()),
        image: delete_has_values,
    };
    let has_values = change.kind != OpKind::Delete || delete_has_values;
    let carries = |at: usize| {
        def.columns[at].key > 0
            || (has_values && change.columns.as_ref().is_none_or(|columns| columns.contains(at)))
    };
    // Mostly all are carried.
    let some: Option<Vec<usize>> =
        (!has_values || change.columns.is_some()).then(|| (0..n).filter(|at| carries(*at)).collect());
    let place_of = |at: usize| match &some {
        Some(some) => some.iter().position(|carried| *carried == at),
        None => Some(at),
    };
    let (mut values, firsts) = match &some {
        Some(some) => {
            let firsts =
                firsts.iter().filter_map(|(at, first)| place_of(*at).map(|place| (place, *first))).collect();
            (some.iter().map(|at| all[*at]).collect(), firsts)
        }
        None => (all, firsts),
    };
    let column = |place: usize| some.as_ref().map_or(place, |some| some[place]);
    let (seq, offset) = write_op(replica, table, group, &head, column, &mut values, firsts)?;
    if def.mode == Mode::PerDevice {
        return Ok(());
    }
    let value_of = |at: usize| place_of(at).map(|place| values[place]);
    let key = match &change.key {
        Some(key) => Cow::Borrowed(&key[..]),
        None => table.key_of(table.keys.iter().filter_map(|(at, _)| value_of(*at)))?.into(),
    };
    let new = Head {
        dev: replica.me,
        author: replica.identity.id,
        seq,
        place: OpPlace::At(offset),
        stretched: false,
        claim: head.claim.unwrap_or(group.lamport),
        wall: head.wall.unwrap_or(group.wall),
        kind: head.kind,
        weak: group.restates(),
        columns: change.columns.as_ref().and(some.as_ref()).map(|some| some.iter().copied().collect()),
        baseline: None,
    };
    let counted = counted_by(table, change, value_of);
    register_own(replica, table, &key, (&new, group.lamport), change.heads.as_deref(), &counted, seen)
}

/// Returns what an op says of counters, of which `value_of` has what it carries.
fn counted_by<'v>(
    table: &Table,
    change: &Change,
    value_of: impl Fn(usize) -> Option<Value<'v>>,
) -> Vec<Counted> {
    let counted = table.counters.iter().filter_map(|at| {
        let value = OwnedValue::of(value_of(*at)?).ok()?;
        let plain = change.kind != OpKind::Update;
        let (value, absolute) = if plain { (value, true) } else { counters::read_carried(value) };
        let before = change.counted.iter().find(|c| c.column == *at).map(|c| c.before.clone());
        Some(Counted { column: *at, value, absolute, before })
    });
    counted.collect()
}

/// Writes an op into the group. As long as it is too large for a frame, its largest value goes ahead of it in
/// pieces; `firsts` are the frames in which the pieces of values begin, `column` tells which column a value is of. Returns its frame and its offset there.
pub(crate) fn write_op(
    replica: &Replica,
    table: &Table,
    group: &mut GroupWriter<'_>,
    head: &OpHead<'_>,
    column: impl Fn(usize) -> usize,
    values: &mut [Value<'_>],
    mut firsts: Vec<(usize, u64)>,
) -> Result<(u64, u32)> {
    let def = &table.def;
    loop {
        if let Some(address) = group.op(table.def_id, head, values, &firsts)? {
            return Ok(address);
        }
        let bytes_of = |value: &Value<'_>| match value {
            Value::Text(bytes) | Value::Blob(bytes) => bytes.len(),
            _ => 0,
        };
        let largest = (0..values.len())
            .filter(|at| def.columns[column(*at)].key == 0)
            .max_by_key(|at| bytes_of(&values[*at]));
        let (at, text, bytes) = match largest.map(|at| (at, values[at])) {
            Some((at, Value::Text(bytes))) if bytes.len() > 64 => (at, true, bytes),
            Some((at, Value::Blob(bytes))) if bytes.len() > 64 => (at, false, bytes),
            _ => {
                return Err(Error::Row {
                    table: def.name.clone(),
                    reason: format!(
                        "it does not fit into a frame of {} bytes: use larger frames",
                        replica.options.frame_bytes
                    ),
                }
                .into());
            }
        };
        let number = group.next_big();
        let first = group.piece(number, bytes)?;
        let sha256 = Sha256::digest(bytes).into();
        values[at] = Value::Big(Big { text, number, back: 0, len: bytes.len() as u64, sha256 });
        firsts.push((at, first));
    }
}

/// Registers an op of this device as a version of its row, which the table shows already.
///
/// `known` are the heads of the row if they were looked up; `counted` is what the op says of counters.
fn register_own(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    (new, lamport): (&Head, u64),
    known: Option<&[Head]>,
    counted: &[Counted],
    seen: &Seen<'_>,
) -> Result<()> {
    constraints::before_change(replica, table, key)?;
    if table.is_parent {
        references::record_changed(replica, table)?;
        if new.kind == OpKind::Delete {
            references::record_deleted(replica, table, key)?;
        }
    }
    let old = match known {
        Some(heads) => Cow::Borrowed(heads),
        None => heads::heads(replica, table.tid, key)?.into(),
    };
    register::register(replica, table, key, new, &old, seen)?;
    count::count_values(replica, table, key, counted, (new, lamport), seen, true)?;
    constraints::after_shown(replica, table, key)
}

/// Begins the notice of a row that cannot travel for its key.
pub(crate) fn unkeyed_prefix(table: &str) -> String {
    format!("a row of `{table}` is not synced: ")
}

/// Returns whether the key can travel. If not, a notice says so, since the rest must go on.
fn can_carry<'v>(
    replica: &Replica,
    table: &Table,
    mut keys: impl Iterator<Item = Value<'v>>,
) -> Result<bool> {
    let problem = keys.find_map(|value| match value {
        Value::Null => Some("NULL in its primary key, which does not distinguish it from others".to_owned()),
        Value::Text(b) | Value::Blob(b) if b.len() > KEY_MAX => {
            Some(format!("a key of more than {KEY_MAX} bytes"))
        }
        _ => None,
    });
    if let Some(problem) = &problem {
        let what = format!("{}it has {problem}", unkeyed_prefix(&table.def.name));
        meta::notice(&replica.db, &what, replica.now())?;
    }
    Ok(problem.is_none())
}

/// Writes a large value in pieces. Returns its reference and the frame in which the pieces begin.
fn write_large(
    replica: &Replica,
    reader: &RowReader<'_>,
    group: &mut GroupWriter<'_>,
    at: usize,
    keys: &[Value<'_>],
) -> Result<(Big, u64)> {
    let table = reader.table;
    let number = group.next_big();
    let mut hash = Sha256::new();
    let binds = || params_from_iter(keys.iter().map(|v| Bind(*v)));
    let c = value::column(&table.def.columns[at].name);
    let (text, len): (bool, u64) = replica
        .db
        .prepare_cached(&table.select_sql(&format!("typeof({c}) = 'text', octet_length({c})")))?
        .query_row(binds(), |row| Ok((row.get(0)?, row.get(1)?)))?;
    let mut first = None;
    if table.is_whole() {
        // SQLite reads such a row whole in any case.
        let sql = table.select_sql(&format!("CAST({c} AS BLOB)"));
        let mut statement = replica.db.prepare_cached(&sql)?;
        let mut rows = statement.query(binds())?;
        if let Some(row) = rows.next()? {
            let bytes =
                row.get_ref(0)?.as_bytes().map_err(|_| Error::damaged("a large value that is not bytes"))?;
            hash.update(bytes);
            first = Some(group.piece(number, bytes)?);
        }
    } else {
        let rowid: i64 = replica
            .db
            .prepare_cached(&table.select_sql(table.def.rowid_name()))?
            .query_row(binds(), |row| row.get(0))?;
        let blob = large::open(replica, table, table.place(), at, rowid, true)?;
        let mut chunk = vec![0; replica.options.frame_bytes];
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

/// What stands for a large value in a row that was read: a random BLOB. A row that really has it is told by its length.
const MARK: [u8; 16] = 0x5D3A_91C7_60EB_4F28_B6D4_0793_CE18_A25F_u128.to_be_bytes();

/// Returns whether a large value may stand where this was read.
fn may_be_large(value: &Value<'_>) -> bool {
    matches!(value, Value::Blob(bytes) if **bytes == MARK)
}

/// Reads rows of a table without their large values, which are read one by one.
pub(crate) struct RowReader<'e> {
    replica: &'e Replica,
    pub table: &'e Arc<Table>,
    /// Values longer than this are large, in bytes.
    large: usize,
}

impl<'e> RowReader<'e> {
    /// Prepares to read rows of a table.
    pub(crate) fn new(replica: &'e Replica, table: &'e Arc<Table>) -> Self {
        Self { replica, table, large: replica.options.frame_bytes / 4 }
    }

    /// Returns the columns as SQL, the name of each after a prefix.
    pub(crate) fn columns(&self, prefix: &str) -> String {
        let columns = self.table.def.columns.iter().map(|column| {
            let c = format!("{prefix}{}", value::column(&column.name));
            match large::can_be_large(column) {
                false => c,
                true => format!(
                    "CASE WHEN octet_length({c}) > {} THEN {} ELSE {c} END",
                    self.large,
                    value::hex_literal(&MARK)
                ),
            }
        });
        columns.collect::<Vec<_>>().join(", ")
    }

    /// Returns whether a value of a row is large.
    fn is_large(&self, at: usize, keys: &[Value<'_>]) -> Result<bool> {
        let column = &self.table.def.columns[at];
        if !large::can_be_large(column) {
            return Ok(false);
        }
        let sql = self.table.select_sql(&format!(
            "coalesce(octet_length({}) > {}, 0)",
            value::column(&column.name),
            self.large
        ));
        let params = params_from_iter(keys.iter().map(|v| Bind(*v)));
        Ok(self.replica.db.prepare_cached(&sql)?.query_row(params, |row| row.get(0))?)
    }
}
