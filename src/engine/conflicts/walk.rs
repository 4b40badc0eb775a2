//! Goes through the open conflicts one by one, in an order that is the same on every device: however many are open,
//! a few keys are in memory. No statement stays open between two of them, so that what is seen may be written to.

use std::collections::VecDeque;

use crate::engine::conflicts::children::{self, Referrers};
use crate::engine::conflicts::list::{self, Conflict, ConflictKind, Open};
use crate::engine::conflicts::selection::{Selection, names};
use crate::engine::conflicts::ways;
use crate::engine::error::{Error, Result};
use crate::engine::show::references;
use crate::engine::table::catalog;
use crate::engine::table::known::State;
use crate::engine::table::replica::Replica;

/// How many keys are read at once.
const KEYS: usize = 64;

/// Which of our lists a row is in; of one row they are listed in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum List {
    Contested,
    Quarantined,
    Dangling,
}

impl List {
    /// Returns the list that lies in this table.
    pub(crate) fn named(table: &str) -> Option<Self> {
        [Self::Contested, Self::Quarantined, Self::Dangling].into_iter().find(|list| list.table() == table)
    }

    fn table(self) -> &'static str {
        match self {
            Self::Contested => "_pm_conflict",
            Self::Quarantined => "_pm_parked",
            Self::Dangling => "_pm_dangling",
        }
    }
}

/// Where an open conflict is: cheap to name, while describing it reads all its versions.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// A row of a table, in one of our lists.
    Row(i64, Vec<u8>, List),
    /// A disputed column of a table.
    Column(i64, String),
}

impl Place {
    /// Returns where a conflict is that was seen.
    pub(crate) fn of(open: &Open) -> Self {
        let list = match &open.conflict.kind {
            ConflictKind::Schema(column) => return Self::Column(open.tid, column.clone()),
            ConflictKind::ForeignKey(..) => List::Dangling,
            ConflictKind::Unique(_) | ConflictKind::Check(_) => List::Quarantined,
            ConflictKind::InsertInsert | ConflictKind::UpdateUpdate | ConflictKind::UpdateDelete => {
                List::Contested
            }
        };
        Self::Row(open.tid, open.key.clone(), list)
    }

    /// Returns the table, the key of the row, and the list or the column: no two places have the same.
    pub(crate) fn parts(&self) -> (i64, &[u8], &str) {
        match self {
            Self::Row(tid, key, list) => (*tid, key, list.table()),
            Self::Column(tid, column) => (*tid, &[], column),
        }
    }

    /// Describes what is open there, without the ways in which it can be resolved ([`ways::add_ways`]), which cost as much
    /// again; `None` if a row's conflict was closed since the place was found.
    pub(crate) fn describe(self, replica: &Replica) -> Result<Option<Open>> {
        let (tid, key, list) = match self {
            Self::Row(tid, key, list) => (tid, key, list),
            Self::Column(tid, column) => {
                let table = catalog::table(replica, tid)?;
                return Ok(Some(list::schema_conflict(replica, &table, &column)?));
            }
        };
        let listed = format!("SELECT 1 FROM {} WHERE tid = ?1 AND key = ?2", list.table());
        if !replica.db.prepare_cached(&listed)?.exists((tid, &key))? {
            return Ok(None);
        }
        let open = match list {
            List::Contested => list::contested(replica, tid, key)?,
            List::Quarantined => list::quarantined(replica, tid, key)?,
            List::Dangling => {
                let table = catalog::table(replica, tid)?;
                match references::orphaned_by(replica, &table, &key)?.first() {
                    Some(foreign) => list::orphan(replica, &table, key, *foreign)?,
                    None => return Ok(None),
                }
            }
        };
        Ok(Some(open))
    }
}

/// A way through the open conflicts.
pub(crate) struct Walk {
    /// The tables to come, the next one last.
    tables: Vec<i64>,
    /// The rows of the present table that were read.
    rows: VecDeque<(Vec<u8>, List)>,
    /// The last row that was read, and its table.
    last: Option<(i64, Vec<u8>, List)>,
    /// The disputed columns of the present table, the next one last.
    columns: Vec<String>,
    /// What refers to the rows, read when it is asked for first.
    pub referrers: Referrers,
}

impl Walk {
    /// Begins at the first one.
    pub(crate) fn new(replica: &Replica) -> Self {
        let mut tables: Vec<(String, i64)> =
            catalog::tables(replica).iter().map(|t| (t.def.name.to_ascii_lowercase(), t.tid)).collect();
        tables.sort();
        let tables = tables.into_iter().rev().map(|(_, tid)| tid).collect();
        let referrers = Referrers::for_listing();
        Self { tables, rows: VecDeque::new(), last: None, columns: Vec::new(), referrers }
    }

    /// Returns the next open conflict.
    pub(crate) fn next_open(&mut self, replica: &Replica) -> Result<Option<Open>> {
        self.next_of(replica, &mut |_| Ok(true))
    }

    /// Returns the next open conflict, with the ways in which it can be resolved.
    pub(crate) fn next_whole(&mut self, replica: &Replica) -> Result<Option<Open>> {
        let Some(mut open) = self.next_open(replica)? else { return Ok(None) };
        ways::add_ways(replica, &mut open, &mut self.referrers)?;
        Ok(Some(open))
    }

    /// Returns the next open conflict of those whose place is `wanted`: no other is described.
    pub(crate) fn next_of(
        &mut self,
        replica: &Replica,
        wanted: &mut dyn FnMut(&Place) -> Result<bool>,
    ) -> Result<Option<Open>> {
        while let Some(place) = self.next_place(replica)? {
            if wanted(&place)?
                && let Some(open) = place.describe(replica)?
            {
                return Ok(Some(open));
            }
        }
        Ok(None)
    }

    /// Returns the next place.
    fn next_place(&mut self, replica: &Replica) -> Result<Option<Place>> {
        let Some(tid) = self.present_table(replica)? else { return Ok(None) };
        if let Some(column) = self.columns.pop() {
            return Ok(Some(Place::Column(tid, column)));
        }
        Ok(self.rows.pop_front().map(|(key, list)| Place::Row(tid, key, list)))
    }

    /// Returns the present table, of which something is at hand; goes on to the next one if nothing is left of it.
    fn present_table(&mut self, replica: &Replica) -> Result<Option<i64>> {
        loop {
            if let Some((tid, ..)) = self.last.as_ref() {
                let tid = *tid;
                if self.columns.is_empty() && self.rows.is_empty() {
                    self.read_rows(replica)?;
                }
                if !self.columns.is_empty() || !self.rows.is_empty() {
                    return Ok(Some(tid));
                }
            }
            let Some(tid) = self.tables.pop() else { return Ok(None) };
            self.last = Some((tid, Vec::new(), List::Contested));
            let table = catalog::table(replica, tid)?;
            if table.shows_shared() {
                let disputed = (0..table.def.columns.len()).filter(|at| table.disputed.contains(*at));
                self.columns = disputed.map(|at| table.def.columns[at].name.to_ascii_lowercase()).collect();
                self.columns.sort_by(|a, b| b.cmp(a));
            }
        }
    }

    /// Reads the rows that come after the last one.
    fn read_rows(&mut self, replica: &Replica) -> Result<()> {
        let Some((tid, key, list)) = &self.last else { return Ok(()) };
        // A suspended table shows nothing, so that nothing can be decided about its rows.
        let tracked = catalog::table(replica, *tid)?.state == State::Tracked;
        let mut statement = replica.db.prepare_cached(
            "SELECT key, 0 AS list FROM _pm_conflict WHERE tid = ?1 AND key >= ?2 AND ?3
             UNION ALL SELECT key, 1 FROM _pm_parked WHERE tid = ?1 AND key >= ?2 AND ?3
             UNION ALL SELECT key, 2 FROM _pm_dangling WHERE tid = ?1 AND key >= ?2
             ORDER BY key, list LIMIT ?4",
        )?;
        // Of the last row's own key there are up to three.
        let mut rows = statement.query((tid, key, tracked, KEYS + 3))?;
        while let Some(row) = rows.next()? {
            let next = match row.get(1)? {
                0 => List::Contested,
                1 => List::Quarantined,
                _ => List::Dangling,
            };
            let row: Vec<u8> = row.get(0)?;
            // No row has an empty key: it stands for the beginning.
            if row.is_empty() {
                return Err(Error::damaged(format!("`{}` has a row without a key", next.table())));
            }
            if key.is_empty() || (&row, next) > (key, *list) {
                self.rows.push_back((row, next));
            }
        }
        if let Some((key, list)) = self.rows.back() {
            self.last = Some((*tid, key.clone(), *list));
        }
        Ok(())
    }
}

/// Describes a conflict that was seen before, as it is now; `None` if it is closed.
pub(crate) fn again(replica: &Replica, seen: &Open) -> Result<Option<Open>> {
    let place = Place::of(seen);
    let is_orphan = matches!(place, Place::Row(.., List::Dangling));
    if !is_orphan && !catalog::table(replica, seen.tid)?.shows_shared() {
        return Ok(None); // It was suspended meanwhile: nothing can be decided about its rows.
    }
    place.describe(replica)
}

/// Gives every open conflict to `each`, with what is needed to resolve it.
pub(crate) fn each(replica: &Replica, each: &mut dyn FnMut(Open) -> Result<()>) -> Result<()> {
    let mut walk = Walk::new(replica);
    while let Some(open) = walk.next_open(replica)? {
        each(open)?;
    }
    Ok(())
}

/// How much is told of a conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detail {
    /// All: also the ways in which it can be resolved, and how many rows refer to a row that was made twice.
    Whole,
    /// What it is, and its versions.
    Brief,
}

/// Gives every open conflict that is meant to `each`.
pub(crate) fn each_conflict(
    replica: &Replica,
    selection: &Selection,
    detail: Detail,
    give: &mut dyn FnMut(Conflict) -> Result<()>,
) -> Result<()> {
    selection.known_table(replica)?;
    // Looked up when it is asked for first: it costs a walk through the tables that refer.
    let mut counts = None;
    let mut unmet: Vec<&String> = selection.ids.iter().collect();
    let mut walk = Walk::new(replica);
    while let Some(mut open) = walk.next_open(replica)? {
        unmet.retain(|id| !names(id, &open.conflict));
        if !selection.wants(&open.conflict) {
            continue;
        }
        if detail == Detail::Brief {
            give(open.conflict)?;
            continue;
        }
        ways::add_ways(replica, &mut open, &mut walk.referrers)?;
        if open.conflict.kind == ConflictKind::InsertInsert {
            let counts = match &mut counts {
                Some(counts) => counts,
                none => none.insert(children::counts(replica)?),
            };
            let of = counts.remove(&(open.tid, std::mem::take(&mut open.key)));
            open.conflict.referred_by = of.unwrap_or_default();
        }
        give(open.conflict)?;
    }
    match unmet.first() {
        Some(id) => Err(no_such_conflict(replica, id)?),
        None => Ok(()),
    }
}

/// Returns the error that no open conflict has this id.
pub(crate) fn no_such_conflict(replica: &Replica, id: &str) -> Result<Box<Error>> {
    Ok(Error::NoSuchConflict { id: id.to_owned(), open: open_conflicts(replica)? as usize, begun: 0 }.into())
}

/// Counts the open conflicts.
pub(crate) fn open_conflicts(replica: &Replica) -> Result<u64> {
    let mut n: u64 = replica
        .db
        .prepare_cached(
            "SELECT (SELECT count(*) FROM _pm_conflict c JOIN _pm_table t USING (tid) WHERE t.state = ?1)
                  + (SELECT count(*) FROM _pm_parked p JOIN _pm_table t USING (tid) WHERE t.state = ?1)",
        )?
        .query_row([State::Tracked], |row| row.get(0))?;
    n += orphans(replica)?;
    for table in catalog::tables(replica).iter().filter(|t| t.shows_shared()) {
        n += (0..table.def.columns.len()).filter(|at| table.disputed.contains(*at)).count() as u64;
    }
    Ok(n)
}

/// Counts the rows that are orphans.
fn orphans(replica: &Replica) -> Result<u64> {
    let mut n = 0;
    references::each_dangling(replica, &mut |tid, key| {
        let table = catalog::table(replica, tid)?;
        n += u64::from(!references::orphaned_by(replica, &table, key)?.is_empty());
        Ok(())
    })?;
    Ok(n)
}
