//! Both rows of a conflict kept: the shown one stays, each other version becomes a row under a new key.
//!
//! Two devices that made different rows under one integer key meant two things. So the rows that the author of a version
//! made refer to it go along with it: their foreign key gets the new value. Where such a row is itself one of two that were
//! made under one key, both of these are kept as well, since only here it is known to which row each of them refers. All of that
//! is planned before anything is written: a chain of such rows may be long.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use packmule_core::merge::value_order;
use packmule_core::model::DeviceId;
use packmule_core::wire::OpKind;
use rusqlite::params_from_iter;

use crate::engine::capture::dirty::{self, ChangeFlags};
use crate::engine::conflicts::children::{self, Reference, Referrers};
use crate::engine::conflicts::list::{self, ConflictKind, Open};
use crate::engine::conflicts::record::{own_sums, own_values, record_resolved};
use crate::engine::error::{Error, Result, Way};
use crate::engine::fleet::devices::BASELINE;
use crate::engine::merge::heads::{self, Head};
use crate::engine::merge::{compose, deferred, versions};
use crate::engine::show::triggers;
use crate::engine::store::value::{self, Affinity, Bind, OwnedValue};
use crate::engine::table::catalog;
use crate::engine::table::known::Table;
use crate::engine::table::replica::Replica;
use crate::engine::table::trial;

/// What an author's rows refer to now: in this column they have `new` in place of `old`.
#[derive(Clone)]
struct Moved {
    author: DeviceId,
    column: usize,
    old: OwnedValue,
    new: OwnedValue,
}

/// How much is read of the values of the versions.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Values {
    Whole,
    /// As they are listed: long ones by length and hash.
    Told,
}

/// A version that becomes a row of its own: so far under the old key, of which this column gets another value.
pub(crate) struct NewRow {
    author: DeviceId,
    row: Vec<OwnedValue>,
    column: usize,
    new: OwnedValue,
}

impl NewRow {
    /// Returns the row under its new key.
    pub(crate) fn renumbered(&self) -> Vec<OwnedValue> {
        self.renumber(self.row.clone())
    }

    fn renumber(&self, mut row: Vec<OwnedValue>) -> Vec<OwnedValue> {
        row[self.column] = self.new.clone();
        row
    }

    /// Says what the rows of its author refer to now by a column.
    fn moves(&self, column: usize) -> Moved {
        let Self { author, row, new, .. } = self;
        Moved { author: *author, column, old: row[self.column].clone(), new: new.clone() }
    }
}

/// A row whose versions are all kept.
pub(crate) struct Kept {
    pub table: Arc<Table>,
    pub key: Vec<u8>,
    pub shown: Vec<OwnedValue>,
    /// Whose the shown row is.
    author: Option<DeviceId>,
    /// The columns by which the shown row refers to another one then.
    moved: BTreeSet<usize>,
    pub made: Vec<NewRow>,
    moves: Vec<Moved>,
    /// Of a row that goes along: why it does.
    along: Option<Cause>,
}

impl Kept {
    /// Changes what the rows refer to, whose keys are made already.
    fn refer_to(&mut self, moves: &[Moved]) {
        let is_free = |moved: &&Moved| self.table.def.columns[moved.column].key == 0;
        let moves: Vec<Moved> = moves.iter().filter(is_free).cloned().collect();
        if let Some(author) = self.author {
            self.moved.extend(change(&moves, author, &mut self.shown));
        }
        for made in &mut self.made {
            change(&moves, made.author, &mut made.row);
        }
        self.moves.extend(moves);
    }
}

/// Why a contested row goes along.
#[derive(Clone)]
struct Cause {
    /// Its conflict.
    id: String,
    /// The column by which it refers to a row that is kept.
    column: usize,
    /// The row that it refers to goes along itself.
    is_further: bool,
}

/// A row that is not contested, and refers to a new row then.
pub(crate) struct Along {
    pub table: Arc<Table>,
    pub key: Vec<u8>,
    pub column: usize,
    pub new: OwnedValue,
}

/// All that is done to keep the versions of a row, in its order: that row itself is the first one.
pub(crate) struct Plan {
    pub kept: Vec<Kept>,
    pub along: Vec<Along>,
}

/// Keeps the row as it is shown, and makes of each other version a row under a key of its own, with some columns changed.
/// Returns the keys of these.
pub(crate) fn keep_both(
    replica: &Replica,
    table: &Table,
    open: &Open,
    changes: &[(String, OwnedValue)],
) -> Result<Vec<Vec<u8>>> {
    let changes = changes
        .iter()
        .map(|(name, value)| match table.def.column(name) {
            Some(at) if table.def.columns[at].key == 0 => Ok((at, value)),
            Some(_) => Err(Error::cannot_resolve(format!("`{name}` is part of the key, which is made"), &[])),
            None => Err(Error::cannot_resolve(format!("`{}` has no column `{name}`", table.def.name), &[])),
        })
        .collect::<Result<Vec<_>>>()?;
    let Plan { kept, along } = plan(replica, open, Some(&mut Referrers::default()))?;
    let mut made = Vec::new();
    for kept in &kept {
        match &kept.along {
            None => made = keep(replica, kept, &changes)?,
            Some(cause) => drop(keep(replica, kept, &[]).map_err(|e| first(&kept.table, cause, *e))?),
        }
    }
    for Along { table, key, column, new } in along {
        change_reference(replica, &table, &key, (column, &new))?;
        record_resolved(replica, &table, &key)?;
    }
    Ok(made)
}

/// Says what becomes of a row whose versions are all kept, and of those that refer to it, or why they cannot be: nothing is
/// written. So what is offered and what is done are one thing. Without `referrers` the row alone is looked at.
pub(crate) fn plan(replica: &Replica, open: &Open, referrers: Option<&mut Referrers>) -> Result<Plan> {
    let mut planning = Planning::default();
    planning.add(replica, open, &[], None)?;
    if let Some(referrers) = referrers {
        let mut n = 0;
        while n < planning.kept.len() {
            planning.take_along(replica, n, referrers)?;
            n += 1;
        }
    }
    Ok(Plan { kept: planning.kept, along: planning.along })
}

#[derive(Default)]
struct Planning {
    kept: Vec<Kept>,
    along: Vec<Along>,
    /// Which of `kept` a row is.
    places: BTreeMap<(i64, Vec<u8>), usize>,
    keys: NewKeys,
}

impl Planning {
    /// Adds a contested row.
    fn add(&mut self, replica: &Replica, open: &Open, moves: &[Moved], along: Option<Cause>) -> Result<()> {
        let table = catalog::table(replica, open.tid)?;
        if deferred::is_quarantined(replica, table.tid, &open.key)? {
            return Err(Error::cannot_resolve(
                "the row is quarantined by a constraint: resolve that conflict first",
                &[Way::Set],
            ));
        }
        let Some(Versions { shown, author, moved, others }) =
            versions_of(replica, &table, &open.key, moves, Values::Told)?
        else {
            return Err(Error::cannot_resolve("the row is not shown", &[Way::Take]));
        };
        let mut made = Vec::new();
        for (head, row) in others {
            let (column, new) = self.keys.make(replica, &table, (&head, &row))?;
            made.push(NewRow { author: head.author, row, column, new });
        }
        if made.is_empty() && along.is_none() {
            let ways = &[Way::Take, Way::Delete];
            return Err(Error::cannot_resolve("the other version deletes the row", ways));
        }
        self.places.insert((table.tid, open.key.clone()), self.kept.len());
        let (key, moves) = (open.key.clone(), moves.to_vec());
        self.kept.push(Kept { table, key, shown, author, moved, made, moves, along });
        Ok(())
    }

    /// Adds what goes along with a contested row: the rows that the author of a new row made refer to it.
    fn take_along(&mut self, replica: &Replica, n: usize, referrers: &mut Referrers) -> Result<()> {
        let parent = self.kept[n].table.clone();
        let key = self.kept[n].key.clone();
        let references = children::references_to(replica, &parent);
        for of_child in references.chunk_by(|a, b| a.child.tid == b.child.tid) {
            let made = &self.kept[n].made;
            let moved = |of: &Reference| made.iter().map(|row| row.moves(of.column)).collect::<Vec<_>>();
            let moves: Vec<Moved> = of_child.iter().flat_map(moved).collect();
            let mut contested = BTreeSet::new();
            for reference in of_child {
                contested.extend(referrers.contested(replica, &parent, reference, &key)?);
            }
            for other in contested {
                if !referrers.tries(self.kept.len()) {
                    return Ok(());
                }
                self.take_contested(replica, &of_child[0].child, (other, n > 0), &moves)?;
            }
            for reference in of_child {
                for own in referrers.shown(replica, &parent, reference, &key)? {
                    self.refer(replica, reference, own, &moves)?;
                }
            }
        }
        Ok(())
    }

    /// Adds a contested row, if a version of it refers to what becomes a new row: of two rows under one key that may be the one
    /// that is not shown.
    fn take_contested(
        &mut self,
        replica: &Replica,
        child: &Table,
        (key, is_further): (Vec<u8>, bool),
        moves: &[Moved],
    ) -> Result<()> {
        let Some(column) = refers(replica, child, &key, moves)? else { return Ok(()) };
        // Also the row itself may be meant, or one of which another column was meant before.
        if let Some(place) = self.places.get(&(child.tid, key.clone())) {
            self.kept[*place].refer_to(moves);
            return Ok(());
        }
        let open = list::contested(replica, child.tid, key)?;
        if open.conflict.kind != ConflictKind::InsertInsert {
            return Ok(());
        }
        let cause = Cause { id: open.conflict.id.clone(), column, is_further };
        self.add(replica, &open, moves, Some(cause.clone())).map_err(|e| first(child, &cause, *e))
    }

    /// Adds a row that refers to one whose versions are kept, if all of it is from an author of a new row.
    fn refer(
        &mut self,
        replica: &Replica,
        Reference { child, column }: &Reference,
        key: Vec<u8>,
        moves: &[Moved],
    ) -> Result<()> {
        let heads = heads::heads(replica, child.tid, &key)?;
        let is_theirs = |of: &&Moved| {
            of.column == *column && !heads.is_empty() && heads.iter().all(|head| head.author == of.author)
        };
        let place = (child.tid, key);
        if let Some(of) = moves.iter().find(is_theirs).filter(|_| !self.places.contains_key(&place)) {
            let (table, key) = (child.clone(), place.1);
            self.along.push(Along { table, key, column: *column, new: of.new.clone() });
        }
        Ok(())
    }
}

/// What the versions of a row are that are all kept.
struct Versions {
    shown: Vec<OwnedValue>,
    /// Whose the shown row is.
    author: Option<DeviceId>,
    /// The columns by which the shown row refers to another one then.
    moved: BTreeSet<usize>,
    /// Each that is another row, with who says so.
    others: Vec<(Head, Vec<OwnedValue>)>,
}

/// Reads what the versions of a row are; `None` if it is not shown.
fn versions_of(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    moves: &[Moved],
    values: Values,
) -> Result<Option<Versions>> {
    let Some(plain) = shown_row(replica, table, key, values)? else { return Ok(None) };
    let heads = heads::heads(replica, table.tid, key)?;
    let order = versions::judge_versions(replica, table, &heads)?.order;
    let mut shown = plain.clone();
    let winner = order.iter().map(|at| &heads[*at]).find(|head| head.kind != OpKind::Delete);
    let author = winner.map(|winner| winner.author);
    let moved = author.map_or_else(BTreeSet::new, |author| change(moves, author, &mut shown));
    let greatest = greatest_sums(replica, table, &heads)?;
    let mut others: Vec<(Head, Vec<OwnedValue>)> = Vec::new();
    for parts in by_author(order.iter().map(|at| &heads[*at])) {
        let [head, ..] = parts[..] else { continue };
        let mut row = plain.clone();
        for head in &parts {
            for (column, value) in own_values(replica, table, head)? {
                row[column] = match values {
                    Values::Whole => value.whole(replica, head)?,
                    Values::Told => value.told(replica, head)?,
                };
            }
            for (column, sum) in own_sums(replica, table, head)? {
                // The shown row has the greatest, with what was added since.
                if greatest.get(&column) != Some(&sum) {
                    row[column] = sum;
                }
            }
        }
        change(moves, head.author, &mut row);
        if shown != row && others.iter().all(|(_, other)| *other != row) {
            others.push((head.clone(), row));
        }
    }
    Ok(Some(Versions { shown, author, moved, others }))
}

/// Changes what a row of an author refers to. Returns the columns that are others now.
fn change(moves: &[Moved], author: DeviceId, row: &mut [OwnedValue]) -> BTreeSet<usize> {
    let mut changed = BTreeSet::new();
    for moved in moves.iter().filter(|moved| moved.author == author) {
        if row[moved.column] == moved.old && changed.insert(moved.column) {
            row[moved.column] = moved.new.clone();
        }
    }
    changed
}

/// Reads the row as its table shows it. As it is told, the columns are NULL that are each device's own.
fn shown_row(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    values: Values,
) -> Result<Option<Vec<OwnedValue>>> {
    if values == Values::Whole {
        return compose::shown_row(replica, table, key);
    }
    let told = list::told_row(replica, table, table.place(), key)?;
    let mut row = vec![OwnedValue::Null; table.def.columns.len()];
    for (name, value) in &told {
        if let Some(at) = table.def.column(name) {
            row[at] = value.clone();
        }
    }
    Ok((!told.is_empty()).then_some(row))
}

/// Writes the rows that all versions of a row become. Returns the keys of those that are new.
fn keep(replica: &Replica, kept: &Kept, changes: &[(usize, &OwnedValue)]) -> Result<Vec<Vec<u8>>> {
    let table = &*kept.table;
    let others = versions_of(replica, table, &kept.key, &kept.moves, Values::Whole)?;
    let others = others.map_or_else(Vec::new, |versions| versions.others);
    if others.len() != kept.made.len() {
        return Err(Error::damaged(format!("a row of `{}` changed while it was resolved", table.def.name)));
    }
    for column in &kept.moved {
        change_reference(replica, table, &kept.key, (*column, &kept.shown[*column]))?;
    }
    let mut made = Vec::new();
    for ((_, row), new) in others.into_iter().zip(&kept.made) {
        let mut row = new.renumber(row);
        for (column, value) in changes {
            row[*column] = (*value).clone();
        }
        insert(replica, table, &row)?;
        made.push(table.key_of(table.def.keys().map(|at| row[at].borrow()))?);
    }
    record_resolved(replica, table, &kept.key)?;
    Ok(made)
}

/// Puts the versions that are rows together by author: by cell, several writes of a device may each speak for a part.
fn by_author<'h>(heads: impl Iterator<Item = &'h Head>) -> Vec<Vec<&'h Head>> {
    let mut all: Vec<Vec<&Head>> = Vec::new();
    for head in heads.filter(|head| head.kind != OpKind::Delete) {
        let is_theirs = |parts: &&mut Vec<&Head>| head.dev != BASELINE && parts[0].dev == head.dev;
        match all.iter_mut().find(is_theirs) {
            Some(parts) => parts.push(head),
            None => all.push(vec![head]),
        }
    }
    all.iter_mut().for_each(|parts| parts.sort_by_key(|head| head.seq));
    all
}

/// Returns the greatest of the settled sums that versions of a row say, by column.
fn greatest_sums(replica: &Replica, table: &Table, heads: &[Head]) -> Result<BTreeMap<usize, OwnedValue>> {
    let mut greatest = BTreeMap::new();
    for head in heads {
        for (column, sum) in own_sums(replica, table, head)? {
            let known = greatest.entry(column).or_insert_with(|| sum.clone());
            if value_order(&sum.borrow(), &known.borrow()).is_gt() {
                *known = sum;
            }
        }
    }
    Ok(greatest)
}

/// Inserts a row under its new key.
fn insert(replica: &Replica, table: &Table, row: &[OwnedValue]) -> Result<()> {
    let sql = table.insert_sql(&(0..row.len()).collect::<Vec<_>>());
    triggers::execute(replica, table, &sql, params_from_iter(row))?;
    let key: Vec<OwnedValue> = table.def.keys().map(|at| row[at].clone()).collect();
    dirty::record_key(replica, table, &key, ChangeFlags::INSERT)
}

/// Says which row that refers to it stands in the way, and why.
fn first(child: &Table, cause: &Cause, error: Error) -> Box<Error> {
    let refused = error.of_sqlite().filter(|e| trial::is_refused(e)).map(ToString::to_string);
    let reason = match (error, refused) {
        (_, Some(refused)) => refused,
        (Error::CannotResolve { reason, .. }, None) => reason,
        (other, None) => return Box::new(other),
    };
    let (id, table) = (&cause.id, &child.def.name);
    let what = if cause.is_further { "a row that goes along" } else { "it" };
    let reason = format!(
        "a row of `{table}` refers to {what} that is contested, too: {reason}; resolve {id} first; if its row means the other one \
         of these two then, change its `{}`",
        child.def.columns[cause.column].name
    );
    Error::cannot_resolve(reason, &[])
}

/// Returns the column by which a version of a row refers to what becomes a new row.
fn refers(replica: &Replica, child: &Table, key: &[u8], moves: &[Moved]) -> Result<Option<usize>> {
    for head in heads::heads(replica, child.tid, key)?.iter().filter(|head| head.kind != OpKind::Delete) {
        let mut of_author = moves.iter().filter(|moved| moved.author == head.author).peekable();
        if of_author.peek().is_none() {
            continue;
        }
        let values = versions::values(replica, child, head)?;
        let is_meant =
            |moved: &&Moved| values.iter().any(|(at, value)| *at == moved.column && *value == moved.old);
        if let Some(moved) = of_author.find(is_meant) {
            return Ok(Some(moved.column));
        }
    }
    Ok(None)
}

/// Makes a row refer to another one.
fn change_reference(
    replica: &Replica,
    child: &Table,
    key: &[u8],
    (column, new): (usize, &OwnedValue),
) -> Result<()> {
    let keys = value::read_key(key)?;
    let values = params_from_iter(std::iter::once(new).chain(&keys));
    triggers::execute(replica, child, &child.update_sql(&[column]), values).map(drop)
}

/// The keys of new rows that are not in their tables yet.
#[derive(Default)]
struct NewKeys {
    /// The greatest number, by table and what stands before it in the key.
    numbers: BTreeMap<(i64, Vec<u8>), i64>,
    others: BTreeSet<(i64, Vec<u8>)>,
}

impl NewKeys {
    /// Makes a key that no row has, here or among those that are new: the next number, or the text with the author's name
    /// after it. Only the last column of the key is another one.
    fn make(
        &mut self,
        replica: &Replica,
        table: &Table,
        (head, row): (&Head, &[OwnedValue]),
    ) -> Result<(usize, OwnedValue)> {
        let keys: Vec<usize> = table.def.keys().collect();
        let Some((&last, before)) = keys.split_last() else {
            return Err(Error::damaged("a table without a key"));
        };
        let column = &table.def.columns[last];
        let with = |value: &OwnedValue| -> Result<(i64, Vec<u8>)> {
            let before = before.iter().map(|at| row[*at].borrow());
            Ok((table.tid, table.key_of(before.chain([value.borrow()]))?))
        };
        if matches!(Affinity::of(&column.decl_type), Affinity::Integer | Affinity::Numeric | Affinity::Real) {
            let place = with(&OwnedValue::Null)?;
            let last_made = match self.numbers.get(&place) {
                Some(made) => *made,
                None => greatest(replica, table, (last, before), row)?,
            };
            let Some(next) = last_made.checked_add(1) else {
                let reason = "no key is left after the greatest; insert the row by hand";
                return Err(Error::cannot_resolve(reason, &[]));
            };
            self.numbers.insert(place, next);
            return Ok((last, OwnedValue::Int(next)));
        }
        let version = list::version(replica, table, head, false)?;
        let named = |(name, _): &&(String, OwnedValue)| name.eq_ignore_ascii_case(&column.name);
        let old = version.values.iter().find(named).map(|(_, value)| value);
        for n in 1..1000 {
            let Some(value) = beside(old, version.name.as_deref(), n) else {
                let reason =
                    format!("no new key can be made for `{}`; insert the other row by hand", column.name);
                return Err(Error::cannot_resolve(reason, &[Way::Take]));
            };
            let mut key: Vec<OwnedValue> = before.iter().map(|at| row[*at].clone()).collect();
            key.push(value.clone());
            if !is_key_taken(replica, table, &key)? && self.others.insert(with(&value)?) {
                return Ok((last, value));
            }
        }
        Err(Error::cannot_resolve("no free key was found; insert the row by hand", &[]))
    }
}

/// Returns the key of another row beside one: its text with the author's name, and a number from the second on.
fn beside(old: Option<&OwnedValue>, name: Option<&str>, n: u32) -> Option<OwnedValue> {
    let suffix = if n == 1 { String::new() } else { format!("-{n}") };
    let tail = format!("-{}{suffix}", name.unwrap_or("other"));
    match old? {
        OwnedValue::Text(text) => Some(OwnedValue::Text([text, tail.as_bytes()].concat())),
        OwnedValue::Blob(blob) => Some(OwnedValue::Blob([blob, tail.as_bytes()].concat())),
        _ => None,
    }
}

/// Returns the greatest number that the last column of the key has, in rows whose key is the same `before` it; at least 0.
fn greatest(
    replica: &Replica,
    table: &Table,
    (last, before): (usize, &[usize]),
    row: &[OwnedValue],
) -> Result<i64> {
    let name = |at: usize| value::column(&table.def.columns[at].name);
    let same = before.iter().enumerate().map(|(n, at)| format!(" AND {} = ?{}", name(*at), n + 1));
    let (c, same) = (name(last), same.collect::<String>());
    // Each is one look into an index.
    let of = |place: &str| format!("coalesce((SELECT max({c}) FROM {place} WHERE {c} IS NOT NULL{same}), 0)");
    let sql =
        format!("SELECT CAST(max({}, {}) AS INTEGER)", of(&table.sql_name), of(&table.quarantine_table()));
    let binds = params_from_iter(before.iter().map(|at| Bind(row[*at].borrow())));
    Ok(value::maybe(&replica.db, &sql, binds)?.unwrap_or_default())
}

/// Returns whether a row has a key, also one that a constraint keeps out.
fn is_key_taken(replica: &Replica, table: &Table, key: &[OwnedValue]) -> Result<bool> {
    let with_key = table.key_match_from(0);
    let sql = format!(
        "SELECT 1 FROM {} WHERE {with_key} UNION ALL SELECT 1 FROM {} WHERE {with_key} LIMIT 1",
        table.sql_name,
        table.quarantine_table()
    );
    Ok(value::maybe::<i64>(&replica.db, &sql, params_from_iter(key.iter().map(|v| Bind(v.borrow()))))?
        .is_some())
}
