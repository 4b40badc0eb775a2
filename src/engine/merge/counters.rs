//! Counters: columns whose concurrent additions add up.
//!
//! An update carries what it added, INTEGER or REAL, such that adding it to what was there gives exactly what its author
//! wrote. Where no number does that (NULL, text, a BLOB, a jump that rounding or 64 bits swallow) it is absolute, as an
//! insert and a delete are: it carries what the counter was.
//!
//! **Invariant.** A counter is the greatest of the absolute values that no later absolute write had seen, and then
//! every addition that none of those had seen, added one after the other in the order of (Lamport timestamp, author,
//! frame). Each step saturates at 64 bits, is rounded as SQLite rounds, and is stored as the column stores it.
//! `_pm_count` has exactly these; what the counter was before the first of them is an absolute value of device 0.
//!
//! **Why it holds.** An absolute write removes what its context covers, additions and absolute values, by the same
//! rule as a version removes heads; an addition removes nothing. Groups are applied in causal order, so what is
//! left is a function of the set of groups, and the order in which it is added up one too. The order respects causality:
//! our own newest write comes last, so a seal finds in the table just what it makes of it. Where no absolute value is left,
//! the counter begins at the column's default.
//!
//! **Restated values** (`restated.rs`) are absolute: nobody remembers what a settled counter was, so what a rebuild added
//! is not known, and a fleet that migrates device by device makes the same copy several times, which must not add up. As an
//! absolute value it contains all that its author had seen, and additions that the author had not seen count on top; it is
//! the same before a fold and after it. It is weak only against other absolute values: one begins the counter where no
//! other is left. It counts though the rest of its version loses.
//!
//! Compaction forgets the entries of a row all together and with its heads, once all are stable: the shown value then
//! contains them, and whatever comes later has them in its context, so that it comes after them in the order as well. A
//! version from before the column was a counter counts as absolute. A column that was ever a counter stays one.
//!
//! **Settled sums.** What a settled counter is made of nobody here knows. A late addition of an integer adds up with it all
//! the same, by its own frame. Any other late write (absolute, or one that rounding makes depend on the order) cannot be
//! placed: the sum waits for a verdict (`late.rs`), as an entry of device 0 with the number of the settled value. The
//! verdict says it as an absolute value of its author; the entries that its keep runs name stay, all else that its author
//! had seen is gone. Two sums that verdicts say, and that differ, are a conflict (`versions.rs`).

use std::cmp::Ordering;

use packmule_core::merge::{Version, dominates, value_order};
use packmule_core::model::DeviceId;
use packmule_core::wire::{ColumnMerge, Op, OpKind};
use rusqlite::Connection;

use crate::engine::error::Result;
use crate::engine::fleet::devices::BASELINE;
use crate::engine::merge::heads::{Head, Seen};
use crate::engine::store::value::{self, Affinity, Bind, OwnedValue};
use crate::engine::table::known::{OpDef, Table};
use crate::engine::table::replica::Replica;

/// Records the value of a version from before the column was a counter as absolute.
pub(crate) fn count_as_is(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    column: usize,
    head: &Head,
    value: &OwnedValue,
) -> Result<()> {
    put_entry(&replica.db, table.tid, key, &Entry::of(column, head, 0, true, value.clone()))
}

/// Returns what is added to a counter that was `before` and is `after`, so that adding it gives `after` exactly; `None` if
/// no number does.
pub(crate) fn difference(before: &OwnedValue, after: &OwnedValue, affinity: Affinity) -> Option<OwnedValue> {
    let real = |value: &OwnedValue| match value {
        OwnedValue::Int(i) => Some(*i as f64),
        OwnedValue::Real(r) => Some(*r),
        _ => None,
    };
    if before.borrow() == after.borrow() {
        return Some(OwnedValue::Int(0));
    }
    let gives = |added: &OwnedValue| plus(before, added, affinity).borrow() == after.borrow();
    if let (OwnedValue::Int(before), OwnedValue::Int(after)) = (before, after) {
        return after.checked_sub(*before).map(OwnedValue::Int).filter(gives);
    }
    let about = real(after)? - real(before)?;
    [about, about.next_up(), about.next_down()].into_iter().map(OwnedValue::Real).find(gives)
}

/// Adds to a counter, as it is stored in a column of this affinity. What is no number stays as it is.
fn plus(value: &OwnedValue, added: &OwnedValue, affinity: Affinity) -> OwnedValue {
    let sum = match (value, added) {
        _ if is_nothing(added) => return value.clone(),
        (OwnedValue::Int(a), OwnedValue::Int(b)) => return stored_int(a.saturating_add(*b), affinity),
        (OwnedValue::Int(a), OwnedValue::Real(b)) => *a as f64 + b,
        (OwnedValue::Real(a), OwnedValue::Int(b)) => a + *b as f64,
        (OwnedValue::Real(a), OwnedValue::Real(b)) => a + b,
        _ => return value.clone(),
    };
    let whole = matches!(affinity, Affinity::Integer | Affinity::Numeric) && sum.fract() == 0.0;
    // SQLite stores no NaN, and as an INTEGER what is one exactly, but for the two ends of the range.
    match sum {
        sum if sum.is_nan() => OwnedValue::Null,
        sum if whole && sum > i64::MIN as f64 && sum < i64::MAX as f64 => OwnedValue::Int(sum as i64),
        sum => OwnedValue::Real(sum),
    }
}

/// Returns an integer as it is stored in a column of this affinity.
fn stored_int(value: i64, affinity: Affinity) -> OwnedValue {
    if affinity == Affinity::Real { OwnedValue::Real(value as f64) } else { OwnedValue::Int(value) }
}

/// Returns whether adding a value changes nothing.
pub(crate) fn is_nothing(added: &OwnedValue) -> bool {
    matches!(added, OwnedValue::Int(0)) || matches!(added, OwnedValue::Real(r) if *r == 0.0)
}

/// Returns an absolute value as an update carries it: a number would be an addition.
pub(crate) fn carried_absolute(value: &OwnedValue) -> Result<OwnedValue> {
    Ok(match value {
        OwnedValue::Null | OwnedValue::Text(_) => value.clone(),
        value => OwnedValue::Blob(value::encode(&value.borrow())?),
    })
}

/// Reads what an update carries for a counter: what was added, or an absolute value, and whether it is one.
pub(crate) fn read_carried(value: OwnedValue) -> (OwnedValue, bool) {
    match value {
        OwnedValue::Int(_) | OwnedValue::Real(_) => (value, false),
        OwnedValue::Blob(bytes) => match value::read_key(&bytes).as_deref() {
            Ok([value]) => (value.clone(), true),
            _ => (OwnedValue::Blob(bytes), true),
        },
        value => (value, true),
    }
}

/// Returns what the counter in a column is by its entries; `None` if there are none.
pub(crate) fn total(table: &Table, entries: &[Entry], column: usize) -> Option<OwnedValue> {
    let affinity = table.def.columns[column].affinity();
    let of = |absolute: bool| entries.iter().filter(move |e| e.column == column && e.absolute == absolute);
    let greatest = |weak: bool| {
        let values = of(true).filter(|e| e.weak == weak).map(|e| &e.value);
        values.max_by(|a, b| value_order(&a.borrow(), &b.borrow()))
    };
    let start = greatest(false).or_else(|| greatest(true));
    let mut added: Vec<&Entry> = of(false).collect();
    if start.is_none() && added.is_empty() {
        return None;
    }
    let start = start.cloned().unwrap_or_else(|| table.def.columns[column].constant());
    added.sort_by(|a, b| a.order(b));
    Some(added.iter().fold(start, |sum, entry| plus(&sum, &entry.value, affinity)))
}

/// What a write says of a counter.
pub(crate) struct Counted {
    pub column: usize,
    pub value: OwnedValue,
    /// It says what the counter is, not what was added.
    pub absolute: bool,
    /// What the counter was before the write, if the table shows the write already.
    pub before: Option<OwnedValue>,
}

/// Reads what an op says of counters.
pub(crate) fn read_counted(table: &Table, def: &OpDef, op: &Op<'_>) -> Vec<Counted> {
    if table.counters.is_empty() {
        return Vec::new();
    }
    let values = op.values(def.shape()).filter_map(|(at, value)| {
        let theirs = &def.def.columns[at];
        let column = table.def.column(&theirs.name).filter(|c| table.counters.contains(c))?;
        let value = OwnedValue::of(value).unwrap_or(OwnedValue::Null);
        // An update by an author to whom the column was no counter says what its value is.
        let plain = op.head.kind != OpKind::Update || theirs.merge != ColumnMerge::Counter;
        let (value, absolute) = if plain { (value, true) } else { read_carried(value) };
        Some(Counted { column, value, absolute, before: None })
    });
    values.collect()
}

/// Returns the settled sums of a row that a late write cannot be placed on. `row` is what the row shows.
pub(crate) fn unplaced_sums(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    row: &[OwnedValue],
    said: &[Counted],
    deletes: bool,
) -> Result<Vec<(usize, OwnedValue)>> {
    let entries = entries(&replica.db, "_pm_count", table.tid, key)?;
    let mut sums = Vec::new();
    for column in table.counters.iter().copied() {
        let Some(sum) = settled_sum(&entries, column, Some(row)) else { continue };
        let affinity = table.def.columns[column].affinity();
        let said = said.iter().find(|counted| counted.column == column);
        let fits = |counted: &Counted| {
            !counted.absolute
                && (is_nothing(&counted.value) || adds_in_any_order(&sum, &counted.value, affinity))
        };
        if said.map_or(deletes, |counted| !fits(counted)) {
            sums.push((column, sum));
        }
    }
    Ok(sums)
}

/// Returns what of a counter is settled: what it was before all that is remembered of it, if nobody knows of what that is
/// made. `row` is what the row shows, if it is there.
pub(crate) fn settled_sum(
    entries: &[Entry],
    column: usize,
    row: Option<&[OwnedValue]>,
) -> Option<OwnedValue> {
    let mut of = entries.iter().filter(|e| e.column == column).peekable();
    if of.peek().is_none() {
        return row.map(|row| row[column].clone());
    }
    of.find(|e| e.is_base() && e.seq == 0).map(|base| base.value.clone())
}

/// Returns whether it makes no difference when a value was added to those that make a sum.
fn adds_in_any_order(sum: &OwnedValue, added: &OwnedValue, affinity: Affinity) -> bool {
    match (sum, added) {
        (OwnedValue::Int(a), OwnedValue::Int(b)) => {
            affinity == Affinity::Integer && a.checked_add(*b).is_some() && ![i64::MIN, i64::MAX].contains(a)
        }
        _ => false,
    }
}

/// Keeps the settled sum of a counter as what waits for a verdict, by the number of the settled value.
pub(crate) fn settle(
    replica: &Replica,
    tid: i64,
    key: &[u8],
    number: u64,
    (column, value): (usize, OwnedValue),
) -> Result<()> {
    let base = Entry::base(column, value);
    forget_entry(&replica.db, tid, key, &base)?;
    put_entry(&replica.db, tid, key, &Entry { seq: number, ..base })
}

/// Remembers what a counter was before the first addition to it, unless an absolute value is remembered. Additions of an
/// older layout, which had no such value, are in it already.
pub(crate) fn put_base(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    column: usize,
    before: &OwnedValue,
) -> Result<()> {
    let known = entries(&replica.db, "_pm_count", table.tid, key)?;
    if known.iter().any(|e| e.column == column && e.absolute) {
        return Ok(());
    }
    let value = without(before, known.iter().filter(|e| e.column == column));
    put_entry(&replica.db, table.tid, key, &Entry::base(column, value))
}

/// Returns a counter without these additions to it, as far as they are integers.
fn without<'e>(value: &OwnedValue, added: impl Iterator<Item = &'e Entry>) -> OwnedValue {
    added.fold(value.clone(), |value, entry| match (value, &entry.value) {
        (OwnedValue::Int(a), OwnedValue::Int(b)) => OwnedValue::Int(a.saturating_sub(*b)),
        (value, _) => value,
    })
}

/// Forgets what an absolute write had seen. Returns whether any entry is left.
pub(crate) fn forget_counted(
    replica: &Replica,
    tid: i64,
    key: &[u8],
    column: usize,
    new: &Head,
    seen: &Seen<'_>,
) -> Result<bool> {
    let mut left = false;
    for entry in entries(&replica.db, "_pm_count", tid, key)?.into_iter().filter(|e| e.column == column) {
        // As of heads: who has seen no baseline version has not seen number 0 either.
        let seq = entry.seq + u64::from(entry.is_base());
        let old = Version { author: entry.author, seq, wall: 0, delete: false };
        let kept = seen.keeps_at(entry.dev, entry.seq);
        if !kept && dominates(new.author, matches!(seen, Seen::ContextFree), &old, seen.of(entry.dev)) {
            forget_entry(&replica.db, tid, key, &entry)?;
        } else {
            left = true;
        }
    }
    Ok(left)
}

/// A recent write to a counter.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub column: usize,
    pub dev: i64,
    pub author: DeviceId,
    pub seq: u64,
    /// That of its group.
    pub lamport: u64,
    pub absolute: bool,
    /// It is an absolute value of a restated version.
    pub weak: bool,
    pub value: OwnedValue,
}

impl Entry {
    /// Makes the entry of a write.
    pub(crate) fn of(column: usize, write: &Head, lamport: u64, absolute: bool, value: OwnedValue) -> Self {
        let Head { dev, author, seq, .. } = *write;
        Self { column, dev, author, seq, lamport, absolute, weak: absolute && write.weak, value }
    }

    /// Makes the entry of what a counter was before any write that is remembered.
    pub(crate) fn base(column: usize, value: OwnedValue) -> Self {
        let author = DeviceId([0; 16]);
        Self { column, dev: BASELINE, author, seq: 0, lamport: 0, absolute: true, weak: false, value }
    }

    /// Returns whether it is such an entry.
    pub(crate) fn is_base(&self) -> bool {
        self.dev == BASELINE
    }

    /// Compares by the order in which additions are added up.
    fn order(&self, other: &Self) -> Ordering {
        (self.lamport, self.author, self.seq).cmp(&(other.lamport, other.author, other.seq))
    }

    /// Returns whether two are the same write.
    pub(crate) fn same_write(&self, other: &Self) -> bool {
        (self.column, self.dev, self.seq) == (other.column, other.dev, other.seq)
    }
}

/// The `absolute` of a restated value.
const WEAK: i64 = 2;

/// Reads what is remembered of a row's counters, from `_pm_count` or a table like it.
pub(crate) fn entries(db: &Connection, from: &str, tid: i64, key: &[u8]) -> Result<Vec<Entry>> {
    let sql = format!(
        "SELECT col, dev, seq, absolute, value, lamport, (SELECT id FROM _pm_device WHERE n = dev)
         FROM {from} WHERE tid = ?1 AND key = ?2"
    );
    let mut statement = db.prepare_cached(&sql)?;
    let mut rows = statement.query((tid, key))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(Entry {
            column: row.get(0)?,
            dev: row.get(1)?,
            seq: row.get(2)?,
            absolute: row.get::<_, i64>(3)? != 0,
            weak: row.get::<_, i64>(3)? == WEAK,
            value: OwnedValue::of(value::from_sql(row.get_ref(4)?))?,
            lamport: row.get(5)?,
            author: DeviceId(row.get(6)?),
        });
    }
    Ok(found)
}

/// Remembers a write to a counter.
pub(crate) fn put_entry(db: &Connection, tid: i64, key: &[u8], entry: &Entry) -> Result<()> {
    db.prepare_cached(
        "INSERT OR REPLACE INTO _pm_count (tid, key, col, dev, seq, absolute, value, lamport)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute((
        tid,
        key,
        entry.column as i64,
        entry.dev,
        entry.seq,
        if entry.weak { WEAK } else { i64::from(entry.absolute) },
        Bind(entry.value.borrow()),
        entry.lamport,
    ))?;
    Ok(())
}

/// Forgets a write to a counter.
pub(crate) fn forget_entry(db: &Connection, tid: i64, key: &[u8], entry: &Entry) -> Result<()> {
    db.prepare_cached(
        "DELETE FROM _pm_count WHERE tid = ?1 AND key = ?2 AND col = ?3 AND dev = ?4 AND seq = ?5",
    )?
    .execute((tid, key, entry.column as i64, entry.dev, entry.seq))?;
    Ok(())
}
