//! Both rows of a conflict kept: the shown one stays, each other version becomes a row under a new key.
//!
//! Two devices that made different rows under one integer key meant two things. So the rows that the author of a version
//! made refer to it go along with it: their foreign key gets the new value. Where such a row is itself one of two that were
//! made under one key, both of these are kept as well, since only here it is known to which row each of them refers.

use std::collections::{BTreeMap, BTreeSet};

use packmule_core::merge::value_order;
use packmule_core::model::DeviceId;
use packmule_core::wire::OpKind;
use rusqlite::params_from_iter;

use crate::engine::capture::dirty::{self, ChangeFlags};
use crate::engine::conflicts::children::{self, Reference};
use crate::engine::conflicts::list::{self, ConflictKind, Open};
use crate::engine::conflicts::record::{own_sums, own_values, record_resolved};
use crate::engine::error::{Error, Result, Way};
use crate::engine::fleet::devices::BASELINE;
use crate::engine::merge::heads::{self, Head};
use crate::engine::merge::{compose, deferred, versions};
use crate::engine::show::triggers;
use crate::engine::store::value::{self, Affinity, Bind, OwnedValue};
use crate::engine::table::known::Table;
use crate::engine::table::replica::Replica;
use crate::engine::table::trial;

/// What an author's rows refer to now: in this column they have `new` in place of `old`.
pub(crate) struct Moved {
    author: DeviceId,
    column: usize,
    old: OwnedValue,
    new: OwnedValue,
}

impl Moved {
    /// Changes a row of a version.
    fn change(&self, author: DeviceId, row: &mut [OwnedValue]) -> bool {
        let is = author == self.author && row[self.column] == self.old;
        if is {
            row[self.column] = self.new.clone();
        }
        is
    }
}

/// The rows that were closed so far.
type Closed = BTreeSet<(i64, Vec<u8>)>;

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
    keep_all(replica, table, open, (None, &changes), &mut Closed::new())
}

/// How much is read of the values of the versions.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Values {
    Whole,
    /// As they are listed: long ones by length and hash.
    Told,
}

/// A version that becomes a row of its own: so far under the old key, of which this column gets another value.
pub(crate) struct NewRow<'o> {
    head: &'o Head,
    pub row: Vec<OwnedValue>,
    pub column: usize,
    pub new: OwnedValue,
}

/// What becomes of a row whose versions are all kept.
pub(crate) struct Plan<'o> {
    pub shown: Vec<OwnedValue>,
    /// The shown row refers to another one then.
    is_moved: bool,
    pub made: Vec<NewRow<'o>>,
}

/// Says what becomes of a row whose versions are all kept, or why they cannot be: nothing is written. So what is offered
/// and what is done are one thing.
pub(crate) fn plan<'o>(
    replica: &Replica,
    table: &Table,
    open: &'o Open,
    moved: Option<&Moved>,
    values: Values,
) -> Result<Plan<'o>> {
    if deferred::is_quarantined(replica, table.tid, &open.key)? {
        return Err(Error::cannot_resolve(
            "the row is quarantined by a constraint: resolve that conflict first",
            &[Way::Set],
        ));
    }
    let Some(plain) = shown_row(replica, table, &open.key, values)? else {
        return Err(Error::cannot_resolve("the row is not shown", &[Way::Take]));
    };
    let order = versions::judge_versions(replica, table, &open.heads)?.order;
    let mut shown = plain.clone();
    let winner = order.iter().map(|at| &open.heads[*at]).find(|head| head.kind != OpKind::Delete);
    let is_moved = match (moved, winner) {
        (Some(moved), Some(winner)) => moved.change(winner.author, &mut shown),
        _ => false,
    };
    let mut plan = Plan { shown, is_moved, made: Vec::new() };
    let greatest = greatest_sums(replica, table, &open.heads)?;
    for parts in by_author(order.iter().map(|at| &open.heads[*at])) {
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
        if let Some(moved) = moved {
            moved.change(head.author, &mut row);
        }
        if plan.shown != row && plan.made.iter().all(|made| made.row != row) {
            let (column, new) = new_key(replica, table, (head, &row), &plan.made)?;
            plan.made.push(NewRow { head, row, column, new });
        }
    }
    if plan.made.is_empty() && moved.is_none() {
        return Err(Error::cannot_resolve("the other version deletes the row", &[Way::Take, Way::Delete]));
    }
    Ok(plan)
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

fn keep_all(
    replica: &Replica,
    table: &Table,
    open: &Open,
    (moved, changes): (Option<&Moved>, &[(usize, &OwnedValue)]),
    closed: &mut Closed,
) -> Result<Vec<Vec<u8>>> {
    closed.insert((table.tid, open.key.clone()));
    let plan = plan(replica, table, open, moved, Values::Whole)?;
    if let Some(moved) = moved.filter(|_| plan.is_moved) {
        change_reference(replica, table, &open.key, moved.column, &moved.new)?;
    }
    let mut made = Vec::new();
    for NewRow { head, mut row, column, new } in plan.made {
        for (column, value) in changes {
            row[*column] = (*value).clone();
        }
        let old = std::mem::replace(&mut row[column], new.clone());
        insert(replica, table, &row)?;
        made.push(table.key_of(table.def.keys().map(|at| row[at].borrow()))?);
        if table.def.keys().count() == 1 {
            take_along(replica, table, open, (head.author, &old, &new), closed)?;
        }
    }
    record_resolved(replica, table, &open.key)?;
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
    triggers::firing(replica, table, || Ok(replica.db.execute(&sql, params_from_iter(row))?))?;
    let key: Vec<OwnedValue> = table.def.keys().map(|at| row[at].clone()).collect();
    dirty::record_key(replica, table, &key, ChangeFlags::INSERT)
}

/// Takes the rows that an author made refer to a row along to its new key.
fn take_along(
    replica: &Replica,
    table: &Table,
    open: &Open,
    (author, old, new): (DeviceId, &OwnedValue, &OwnedValue),
    closed: &mut Closed,
) -> Result<()> {
    for Reference { child, column } in children::references_to(replica, table) {
        let moved = Moved { author, column, old: old.clone(), new: new.clone() };
        // Of two rows under one key the author's may be the one that is not shown.
        let mut meant = Vec::new();
        for key in children::contested_keys(replica, child.tid)? {
            if refers(replica, &child, &heads::heads(replica, child.tid, &key)?, &moved)? {
                meant.push(list::contested(replica, child.tid, key)?);
            }
        }
        meant.retain(|other| other.conflict.kind == ConflictKind::InsertInsert);
        for other in meant {
            if !closed.contains(&(child.tid, other.key.clone())) {
                keep_all(replica, &child, &other, (Some(&moved), &[]), closed)
                    .map_err(|e| first((&child, column), &other, *e))?;
            }
        }
        for key in children::keys_of(replica, &child, column, &open.key)? {
            let heads = heads::heads(replica, child.tid, &key)?;
            let is_theirs = !heads.is_empty() && heads.iter().all(|head| head.author == author);
            if is_theirs && !closed.contains(&(child.tid, key.clone())) {
                change_reference(replica, &child, &key, column, new)?;
                record_resolved(replica, &child, &key)?;
            }
        }
    }
    Ok(())
}

/// Says which row that refers to it stands in the way, and why.
fn first((child, column): (&Table, usize), other: &Open, error: Error) -> Box<Error> {
    let refused = error.of_sqlite().filter(|e| trial::is_refused(e)).map(ToString::to_string);
    let reason = match (error, refused) {
        (_, Some(refused)) => refused,
        (Error::CannotResolve { reason, .. }, None) => reason,
        (other, None) => return Box::new(other),
    };
    let (id, table) = (&other.conflict.id, &child.def.name);
    let reason = format!(
        "a row of `{table}` refers to it that is contested, too: {reason}; resolve {id} first; if its row means the other one \
         of these two then, change its `{}`",
        child.def.columns[column].name
    );
    Error::cannot_resolve(reason, &[])
}

/// Returns whether a version of the author refers to the old key.
fn refers(replica: &Replica, child: &Table, heads: &[Head], moved: &Moved) -> Result<bool> {
    for head in heads.iter().filter(|head| head.author == moved.author && head.kind != OpKind::Delete) {
        let values = versions::values(replica, child, head)?;
        if values.iter().any(|(at, value)| *at == moved.column && *value == moved.old) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Makes a row refer to another one.
fn change_reference(
    replica: &Replica,
    child: &Table,
    key: &[u8],
    column: usize,
    new: &OwnedValue,
) -> Result<()> {
    let keys = value::read_key(key)?;
    let sql = child.update_sql(&[column]);
    triggers::firing(replica, child, || {
        Ok(replica.db.execute(&sql, params_from_iter(std::iter::once(new).chain(&keys)))?)
    })?;
    Ok(())
}

/// Makes a key that no row has, here or among those that are `made`: the next number, or the text with the author's name
/// after it. Only the last column of the key is another one.
fn new_key(
    replica: &Replica,
    table: &Table,
    (head, row): (&Head, &[OwnedValue]),
    made: &[NewRow<'_>],
) -> Result<(usize, OwnedValue)> {
    let keys: Vec<usize> = table.def.keys().collect();
    let Some((&last, before)) = keys.split_last() else {
        return Err(Error::damaged("a table without a key"));
    };
    let column = &table.def.columns[last];
    if matches!(Affinity::of(&column.decl_type), Affinity::Integer | Affinity::Numeric | Affinity::Real) {
        let next = greatest(replica, table, (last, before), row)?.checked_add(1 + made.len() as i64);
        return next.map(|next| (last, OwnedValue::Int(next))).ok_or_else(|| {
            Error::cannot_resolve("no key is left after the greatest; insert the row by hand", &[])
        });
    }
    let version = list::version(replica, table, head, false)?;
    let named = |(name, _): &&(String, OwnedValue)| name.eq_ignore_ascii_case(&column.name);
    let old = version.values.iter().find(named).map(|(_, value)| value);
    for n in 1..1000 {
        let suffix = if n == 1 { String::new() } else { format!("-{n}") };
        let tail = format!("-{}{suffix}", version.name.as_deref().unwrap_or("other"));
        let value = match old {
            Some(OwnedValue::Text(text)) => OwnedValue::Text([text, tail.as_bytes()].concat()),
            Some(OwnedValue::Blob(blob)) => OwnedValue::Blob([blob, tail.as_bytes()].concat()),
            _ => {
                return Err(Error::cannot_resolve(
                    format!("no new key can be made for `{}`; insert the other row by hand", column.name),
                    &[Way::Take],
                ));
            }
        };
        let mut key: Vec<OwnedValue> = before.iter().map(|at| row[*at].clone()).collect();
        key.push(value.clone());
        let taken = made.iter().any(|made| made.new == value) || is_key_taken(replica, table, &key)?;
        if !taken {
            return Ok((last, value));
        }
    }
    Err(Error::cannot_resolve("no free key was found; insert the row by hand", &[]))
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
