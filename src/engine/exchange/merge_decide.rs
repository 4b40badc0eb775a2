//! What becomes of a row of a state: the table at the head of `merge_rows`, line by line.

use std::cell::Cell;
use std::collections::HashMap;

use crate::engine::error::Result;
use crate::engine::exchange::merge_settled::{self, Folded, Settled};
use crate::engine::fleet::devices::BASELINE;
use crate::engine::fleet::positions;
use crate::engine::merge::folds::{self, Absence};
use crate::engine::merge::heads::{Head, is_in};
use crate::engine::merge::{compose, defaults, late, restated};
use crate::engine::store::value::{self, OwnedValue};
use crate::engine::table::columns::Columns;
use crate::engine::table::known::Table;
use crate::engine::table::replica::Replica;

/// A row of a state, and the row here.
pub(super) struct Meeting<'m> {
    pub table: &'m Table,
    pub key: &'m [u8],
    /// The maker has it; its values are in the quarantine table.
    pub present: bool,
    /// The maker had seen all that is settled here of it.
    pub they_saw: bool,
    /// Its values here, if a constraint keeps it out of its table. What no version of it speaks for stands nowhere else.
    pub kept_out: Option<Vec<OwnedValue>>,
}

/// The values of a settled row, and the columns of it that nobody has written.
type SettledRow = (Vec<OwnedValue>, Columns);

/// What becomes of a row.
pub(super) enum Outcome {
    /// It stays as it is here.
    Ours,
    /// It is as it is there, settled.
    Theirs,
    /// It has these heads; the row under them, for columns of which no head speaks, is ours or theirs.
    Heads(Vec<Head>, bool),
}

/// What is here and at the maker of a state.
pub(super) struct Sides<'e> {
    pub replica: &'e Replica,
    /// What is applied here, and what the maker has applied, by device number.
    pub had: HashMap<i64, u64>,
    pub vector: HashMap<i64, u64>,
    /// What is folded here, and there.
    pub folded: (Folded, Folded),
    /// This device had seen all that is settled there (B′ ≤ V).
    pub we_saw: bool,
    /// `_pm_marked` has what verdicts say that the maker had not seen.
    marked: Cell<bool>,
}

impl<'e> Sides<'e> {
    /// Begins with what is applied here.
    pub(super) fn new(replica: &'e Replica, had: HashMap<i64, u64>) -> Self {
        let (vector, folded, marked) = Default::default();
        Self { replica, had, vector, folded, we_saw: false, marked }
    }

    /// Decides what becomes of a row, by the table at the head of this file; keeps the values that wait for a verdict.
    pub(super) fn decide(&self, row: &Meeting<'_>, ours: &[Head], theirs: Vec<Head>) -> Result<Outcome> {
        let Meeting { table, they_saw, .. } = *row;
        match (ours.is_empty(), theirs.is_empty()) {
            (true, true) => self.decide_settled(row),
            (true, false) if they_saw => {
                let any = theirs.iter().any(|head| new_to(&self.had, head));
                Ok(if any { Outcome::Heads(theirs, true) } else { Outcome::Ours })
            }
            (true, false) => {
                let mine = self.settled_here(row)?;
                let there = if self.we_saw { None } else { self.settled_there(row)? };
                let below = Settled::under(table, &theirs, there)
                    .filter(|below| below.differs(mine.as_ref().map(|(row, _)| &row[..])));
                let mut new: Vec<Head> = theirs.into_iter().filter(|h| new_to(&self.had, h)).collect();
                if new.is_empty() && below.is_none() {
                    return Ok(Outcome::Ours);
                }
                let absence = folds::absence(self.replica, table.tid, row.key)?;
                new.extend(self.wait(row, 1, mine, absence)?);
                if let Some(below) = below {
                    new.push(below.keep(self.replica, table, row.key, 2)?);
                }
                Ok(Outcome::Heads(new, false))
            }
            (false, true) if self.we_saw => Ok(Outcome::Ours),
            (false, true) => {
                let mut new: Vec<Head> = ours.iter().filter(|h| new_to(&self.vector, h)).cloned().collect();
                let there = self.settled_there(row)?;
                let mine = if they_saw { None } else { self.settled_here(row)? };
                let below = Settled::under(table, ours, mine)
                    .filter(|below| below.differs(there.as_ref().map(|(row, _)| &row[..])));
                if new.is_empty() && below.is_none() && !self.is_marked(row)? {
                    return Ok(Outcome::Theirs);
                }
                new.extend(self.wait(row, 1, there, self.absence_there(row)?)?);
                if let Some(below) = below {
                    new.push(below.keep(self.replica, table, row.key, 2)?);
                }
                Ok(Outcome::Heads(new, true))
            }
            (false, false) => {
                // Of what one side had seen, its versions are judged; what it had not seen, they may meet.
                let mine = if they_saw { None } else { self.settled_here(row)? };
                let there = if self.we_saw { None } else { self.settled_there(row)? };
                let settled = (Settled::under(table, ours, mine), Settled::under(table, &theirs, there));
                let mut left = self.union(table, ours, theirs.clone(), they_saw);
                let only = |others: &[Head]| left.iter().filter(|h| !is_in(others, h)).cloned().collect();
                let new: (Vec<Head>, Vec<Head>) = (only(&theirs), only(ours));
                left.extend(merge_settled::keep_both(self.replica, table, row.key, settled, &new)?);
                Ok(if is_same(&left, ours) { Outcome::Ours } else { Outcome::Heads(left, !self.we_saw) })
            }
        }
    }

    /// Returns whether a verdict that the maker had not seen says only what stays of a row.
    fn is_marked(&self, row: &Meeting<'_>) -> Result<bool> {
        if !self.marked.replace(true) {
            merge_settled::list_marked(self.replica, &self.vector)?;
        }
        let sql = "SELECT 1 FROM temp._pm_marked WHERE tid = ?1 AND key = ?2";
        Ok(value::maybe::<i64>(&self.replica.db, sql, (row.table.tid, row.key))?.is_some())
    }

    /// Reads a row as it is here, in its table or kept out of it.
    fn row_here(&self, row: &Meeting<'_>) -> Result<Option<Vec<OwnedValue>>> {
        match &row.kept_out {
            None => compose::shown_row(self.replica, row.table, row.key),
            kept_out => Ok(kept_out.clone()),
        }
    }

    /// Reads a row as the maker has it, if it has it.
    pub(super) fn row_there(&self, row: &Meeting<'_>) -> Result<Option<Vec<OwnedValue>>> {
        match row.present {
            true => compose::row_in(self.replica, &row.table.quarantine_table(), row.table, row.key),
            false => Ok(None),
        }
    }

    /// Reads what is settled of a row here, and the columns of it that nobody has written.
    fn settled_here(&self, row: &Meeting<'_>) -> Result<Option<SettledRow>> {
        self.unsaid(row, self.row_here(row)?, &self.folded.0)
    }

    /// Reads the same as the maker has it.
    fn settled_there(&self, row: &Meeting<'_>) -> Result<Option<SettledRow>> {
        self.unsaid(row, self.row_there(row)?, &self.folded.1)
    }

    fn unsaid(
        &self,
        row: &Meeting<'_>,
        values: Option<Vec<OwnedValue>>,
        folded: &Folded,
    ) -> Result<Option<SettledRow>> {
        let Some(values) = values else { return Ok(None) };
        let unsaid =
            defaults::unsaid(self.replica, row.table, &values, &|dev, seq| Ok(folded.has(dev, seq)))?;
        Ok(Some((values, unsaid)))
    }

    /// Looks up what the maker says of a row that is not there.
    fn absence_there(&self, row: &Meeting<'_>) -> Result<Absence> {
        let sql = "SELECT 1 FROM temp._pm_their_gone WHERE tid = ?1 AND key = ?2";
        let gone = value::maybe::<i64>(&self.replica.db, sql, (row.table.tid, row.key))?;
        Ok(gone.map_or(Absence::Unknown, |_| Absence::Deleted))
    }

    /// Returns the heads of both, without those that the other knows to be dominated.
    fn union(&self, table: &Table, ours: &[Head], theirs: Vec<Head>, they_saw: bool) -> Vec<Head> {
        let n = table.def.columns.len();
        let mut left: Vec<Head> = Vec::new();
        for head in ours {
            match theirs.iter().find(|other| (other.dev, other.seq) == (head.dev, head.seq)) {
                Some(other) => left.extend(head.left_with(other, n)),
                None if new_to(&self.vector, head) => left.push(head.clone()),
                None if self.we_saw => left.extend(self.folded.1.part(table, head, &theirs)),
                None => {}
            }
        }
        let known = |head: &Head| is_in(ours, head);
        left.extend(theirs.into_iter().filter(|head| !known(head)).filter_map(|head| match head {
            head if new_to(&self.had, &head) => Some(head),
            head if they_saw => self.folded.0.part(table, &head, ours),
            _ => None,
        }));
        restated::meet(&mut left, ours, &|head| new_to(&self.vector, head), n);
        left.sort_by_key(|head| (head.dev, head.seq));
        left
    }

    /// Decides about a row that is settled on both sides.
    fn decide_settled(&self, row: &Meeting<'_>) -> Result<Outcome> {
        if self.we_saw || self.is_same(row)? {
            return Ok(Outcome::Ours);
        }
        if row.they_saw && !self.is_marked(row)? {
            return Ok(Outcome::Theirs);
        }
        let (mine, there) = (self.settled_here(row)?, self.settled_there(row)?);
        if let (Some((ours, mine_unsaid)), Some((theirs, their_unsaid))) = (&mine, &there) {
            let others: Columns = (0..ours.len()).filter(|at| ours[*at] != theirs[*at]).collect();
            if others.clone().minus(their_unsaid).is_empty() {
                return Ok(Outcome::Ours);
            }
            if others.minus(mine_unsaid).is_empty() && !self.is_marked(row)? {
                return Ok(Outcome::Theirs);
            }
        }
        let theirs_below = mine.is_none();
        let mut waiting = Vec::new();
        for (values, number) in [mine, there].into_iter().flatten().zip(1..) {
            waiting.extend(self.wait(row, number, Some(values), Absence::Unknown)?);
        }
        Ok(Outcome::Heads(waiting, theirs_below))
    }

    /// Returns whether a row is the same here and there, or absent in both.
    fn is_same(&self, row: &Meeting<'_>) -> Result<bool> {
        if row.present && row.kept_out.is_none() {
            return compose::is_same_row(self.replica, row.table, row.key);
        }
        Ok(self.row_here(row)? == self.row_there(row)?)
    }

    /// Keeps a settled value of a row until the verdict; none counts as nothing, unless it was deleted. Returns its
    /// baseline version.
    fn wait(
        &self,
        row: &Meeting<'_>,
        number: u64,
        values: Option<SettledRow>,
        absence: Absence,
    ) -> Result<Option<Head>> {
        let Meeting { table, key, .. } = *row;
        let Some((values, unsaid)) = values else {
            return late::keep_absent(self.replica, table, key, absence);
        };
        let counters: Columns = table.counters.iter().copied().collect();
        let columns = Columns::all(table.def.columns.len()).minus(&counters).minus(&unsaid);
        late::add_baseline(self.replica, table, key, number, &values, &columns).map(Some)
    }
}

/// Returns whether a version is new to who has applied what is in a vector. Of a baseline version nobody knows.
fn new_to(vector: &HashMap<i64, u64>, head: &Head) -> bool {
    head.dev == BASELINE || positions::lacks(vector, head.dev, head.seq)
}

/// Returns whether versions are the same, in the same order.
pub(super) fn is_same(a: &[Head], b: &[Head]) -> bool {
    let same =
        |(a, b): (&Head, &Head)| (a.dev, a.seq, a.claim) == (b.dev, b.seq, b.claim) && a.columns == b.columns;
    a.len() == b.len() && a.iter().zip(b).all(same)
}
