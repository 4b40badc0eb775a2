//! What is counted in a row, merged with what the maker of a state has: column by column.
//!
//! A counter is *known* on a side if all that makes it is remembered there, an absolute value among it. Else it has a
//! *base*, of which nobody there knows what it is made, and additions that are remembered.
//!
//! | here | there | what holds |
//! |---|---|---|
//! | known | known | as heads are: what is on both sides, and what is new to the other |
//! | base | anything, B of the row ≤ V′ | theirs, and what is new to them of mine |
//! | anything | base, B′ ≤ V | mine, and what is new to me of theirs |
//! | known | base, all of mine within V′ | theirs, and the additions of mine that are new to them |
//! | known | base, not so | the base waits for a verdict, beside what is new to the other |
//! | base | known, B of the row not ≤ V′ | as the last two, the other way round |
//! | known, a value of mine within V′ | gone | a sum that nobody knows waits for a verdict, beside what is new to them: who remembers the delete knows what it said |
//! | base | base, neither | equal sums stay; else both wait for a verdict, each with the additions that the other has in its own |
//!
//! **Why it is exact.** What made a base is within B, and whoever has seen B has added it up or knows what overwrote it. An
//! absolute value that had seen all of a base removes it; so a side with a base has no absolute value besides. Where several
//! lines fit, the first that does is taken: so it is of heads (`merge_rows.rs`), and an addition whose version stays in flight
//! must not be in the base too.

use std::collections::HashMap;

use crate::engine::error::Result;
use crate::engine::fleet::positions;
use crate::engine::merge::counters::{self, Entry};
use crate::engine::merge::late;
use crate::engine::store::value::OwnedValue;
use crate::engine::table::known::Table;
use crate::engine::table::replica::Replica;

/// A row whose counters are merged.
pub(super) struct Counting<'a> {
    pub replica: &'a Replica,
    pub table: &'a Table,
    pub key: &'a [u8],
    /// What the row shows here and there, if it is there.
    pub mine: Option<&'a [OwnedValue]>,
    pub theirs: Option<&'a [OwnedValue]>,
    /// What is applied here, and at the maker.
    pub had: &'a HashMap<i64, u64>,
    pub vector: &'a HashMap<i64, u64>,
    /// The maker had seen all that is settled here of the row; this device all that is settled there.
    pub they_saw: bool,
    pub we_saw: bool,
    /// The row is gone there, settled, and stays by what the maker had not seen.
    pub gone: bool,
}

/// What one side has of a counter.
struct Side {
    base: Option<OwnedValue>,
    /// What is remembered beside the base.
    entries: Vec<Entry>,
}

impl Side {
    fn new(all: &[Entry], column: usize, row: Option<&[OwnedValue]>) -> Self {
        let beside = |entry: &&Entry| entry.column == column && (!entry.is_base() || entry.seq > 0);
        let entries = all.iter().filter(beside).cloned().collect();
        Self { base: counters::settled_sum(all, column, row), entries }
    }

    fn has(&self, entry: &Entry) -> bool {
        self.entries.iter().any(|other| other.same_write(entry))
    }

    /// Returns the entries that the other side has not: those new to it, and those that it has in its base or knows to
    /// be overwritten.
    fn beside(&self, other: &Self, seen: &HashMap<i64, u64>) -> (Vec<Entry>, Vec<Entry>) {
        let only = self.entries.iter().filter(|entry| !other.has(entry)).cloned();
        only.partition(|entry| entry.is_base() || positions::lacks(seen, entry.dev, entry.seq))
    }
}

/// What a counter is in both together.
struct Merged {
    entries: Vec<Entry>,
    base: Option<OwnedValue>,
    /// What waits for a verdict, by the number of the settled value.
    sums: Vec<(u64, OwnedValue)>,
}

/// Merges the counters of a row. Returns whether anything is to be shown anew.
pub(super) fn merge(row: &Counting<'_>) -> Result<bool> {
    let Counting { replica, table, key, .. } = *row;
    if table.counters.is_empty() {
        return Ok(false);
    }
    let db = &replica.db;
    let ours = counters::entries(db, "_pm_count", table.tid, key)?;
    let theirs = counters::entries(db, "temp._pm_their_count", table.tid, key)?;
    let mut changed = false;
    for column in table.counters.iter().copied() {
        let mine = Side::new(&ours, column, row.mine);
        let there = Side::new(&theirs, column, row.theirs);
        let merged = merge_column(row, column, &mine, &there);
        for entry in ours.iter().filter(|entry| entry.column == column) {
            counters::forget_entry(db, table.tid, key, entry)?;
        }
        for entry in &merged.entries {
            counters::put_entry(db, table.tid, key, entry)?;
        }
        if let Some(base) = merged.base {
            counters::put_entry(db, table.tid, key, &Entry::base(column, base))?;
        }
        for (number, sum) in merged.sums {
            changed = true;
            late::keep_sums(replica, table, key, number, vec![(column, sum)])?;
        }
    }
    Ok(changed)
}

/// Merges one counter.
fn merge_column(row: &Counting<'_>, column: usize, mine: &Side, there: &Side) -> Merged {
    let (my_new, my_old) = mine.beside(there, row.vector);
    let (their_new, their_old) = there.beside(mine, row.had);
    let common = || mine.entries.iter().filter(|entry| there.has(entry)).cloned();
    let with = |own: &Side, new: &[Entry]| own.entries.iter().chain(new).cloned().collect();
    let absolute = |entries: &[Entry]| entries.iter().any(|entry| entry.absolute);
    let both = || common().chain(my_new.iter().cloned()).chain(their_new.iter().cloned()).collect();
    let kept = |entries: Vec<Entry>, base: &Option<OwnedValue>| {
        // Alone, it is what the row shows.
        let base = base.clone().filter(|_| !entries.is_empty());
        Merged { entries, base, sums: Vec::new() }
    };
    match (&mine.base, &there.base) {
        (None, None) if row.gone && absolute(&my_old) && !my_new.iter().any(Entry::is_base) => {
            let entries: Vec<Entry> = both();
            // Least of all values: another that is left counts.
            let begins = || row.table.def.columns[column].constant();
            let sum = if absolute(&entries) { OwnedValue::Null } else { begins() };
            Merged { entries, base: None, sums: vec![(1, sum)] }
        }
        (None, None) => kept(both(), &None),
        // First, as of heads: what came of them counts there what is settled here.
        (Some(_), _) if row.they_saw => kept(with(there, &my_new), &there.base),
        (_, Some(_)) if row.we_saw => kept(with(mine, &their_new), &mine.base),
        (None, Some(sum)) if absolute(&my_new) || (mine.entries.is_empty() && !row.they_saw) => {
            Merged { entries: both(), base: None, sums: vec![(1, sum.clone())] }
        }
        (None, base) => kept(with(there, &my_new), base),
        (Some(sum), None) if absolute(&their_new) || there.entries.is_empty() => {
            Merged { entries: both(), base: None, sums: vec![(1, sum.clone())] }
        }
        (base, None) => kept(with(mine, &their_new), base),
        (Some(a), Some(b)) => {
            let sum = |base: &OwnedValue, added: Vec<Entry>| {
                let all: Vec<Entry> = added.into_iter().chain([Entry::base(column, base.clone())]).collect();
                counters::total(row.table, &all, column).unwrap_or(OwnedValue::Null)
            };
            let (a, b) = (sum(a, my_old), sum(b, their_old));
            if a == b {
                return kept(both(), &Some(a));
            }
            Merged { entries: both(), base: None, sums: vec![(1, a), (2, b)] }
        }
    }
}
