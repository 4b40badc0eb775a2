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

/// What an author's rows refer to now: in this column they have `new` in place of `old`.
#[derive(Clone)]
struct Moved {
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

fn keep_all(
    replica: &Replica,
    table: &Table,
    open: &Open,
    (moved, changes): (Option<&Moved>, &[(usize, &OwnedValue)]),
    closed: &mut Closed,
) -> Result<Vec<Vec<u8>>> {
    closed.insert((table.tid, open.key.clone()));
    if deferred::is_quarantined(replica, table.tid, &open.key)? {
        return Err(Error::cannot_resolve(
            "the row is quarantined by a constraint: resolve that conflict first",
            &[Way::Set],
        ));
    }
    let Some(mut shown) = compose::shown_row(replica, table, &open.key)? else {
        return Err(Error::cannot_resolve("the row is not shown", &[Way::Take]));
    };
    let order = versions::judge_versions(replica, table, &open.heads)?.order;
    let plain = shown.clone();
    let winner = order.iter().map(|at| &open.heads[*at]).find(|head| head.kind != OpKind::Delete);
    if let (Some(moved), Some(winner)) = (moved, winner)
        && moved.change(winner.author, &mut shown)
    {
        change_reference(replica, table, &open.key, moved.column, &moved.new)?;
    }
    let (mut known, mut made) = (vec![shown.clone()], Vec::new());
    let greatest = greatest_sums(replica, table, &open.heads)?;
    for parts in by_author(order.iter().map(|at| &open.heads[*at])) {
        let [head, ..] = parts[..] else { continue };
        let mut row = plain.clone();
        for head in &parts {
            for (column, value) in own_values(replica, table, head)? {
                row[column] = value.whole(replica, head)?;
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
        if known.contains(&row) {
            continue;
        }
        known.push(row.clone());
        for (column, value) in changes {
            row[*column] = (*value).clone();
        }
        let (column, new) = new_key(replica, table, head)?;
        let old = std::mem::replace(&mut row[column], new.clone());
        insert(replica, table, &row)?;
        made.push(table.key_of(table.def.keys().map(|at| row[at].borrow()))?);
        if table.def.keys().count() == 1 {
            take_along(replica, table, open, (head.author, &old, &new), closed)?;
        }
    }
    if known.len() == 1 && moved.is_none() {
        return Err(Error::cannot_resolve("the other version deletes the row", &[Way::Take, Way::Delete]));
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
                keep_all(replica, &child, &other, (Some(&moved), &[]), closed)?;
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

/// Makes a key that no row has: the next number, or the text with the author's name after it.
fn new_key(replica: &Replica, table: &Table, head: &Head) -> Result<(usize, OwnedValue)> {
    let last = table.def.keys().last().ok_or_else(|| Error::damaged("a table without a key"))?;
    let column = &table.def.columns[last];
    let c = value::column(&column.name);
    if matches!(Affinity::of(&column.decl_type), Affinity::Integer | Affinity::Numeric | Affinity::Real) {
        let next: Option<i64> = replica.db.query_row(
            &format!(
                "SELECT CAST(coalesce(max({c}), 0) AS INTEGER) FROM (SELECT {c} FROM {} UNION ALL SELECT {c} FROM {})",
                table.sql_name,
                table.quarantine_table()
            ),
            [],
            |row| row.get::<_, Option<i64>>(0).map(|max| max.and_then(|max| max.checked_add(1))),
        )?;
        return next.map(|next| (last, OwnedValue::Int(next))).ok_or_else(|| {
            Error::cannot_resolve("no key is left after the greatest; insert the row by hand", &[])
        });
    }
    let version = list::version(replica, table, head, false)?;
    let old = version
        .values
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(&column.name))
        .map(|(_, v)| v.clone());
    for n in 1..1000 {
        let suffix = if n == 1 { String::new() } else { format!("-{n}") };
        let tail = format!("-{}{suffix}", version.name.as_deref().unwrap_or("other"));
        let value = match &old {
            Some(OwnedValue::Text(text)) => OwnedValue::Text([text, tail.as_bytes()].concat()),
            Some(OwnedValue::Blob(blob)) => OwnedValue::Blob([blob, tail.as_bytes()].concat()),
            _ => {
                return Err(Error::cannot_resolve(
                    format!("no new key can be made for `{}`; insert the other row by hand", column.name),
                    &[Way::Take],
                ));
            }
        };
        let taken: Option<i64> = value::maybe(
            &replica.db,
            &format!(
                "SELECT 1 FROM {} WHERE {c} = ?1 UNION ALL SELECT 1 FROM {} WHERE {c} = ?1 LIMIT 1",
                table.sql_name,
                table.quarantine_table()
            ),
            [Bind(value.borrow())],
        )?;
        if taken.is_none() {
            return Ok((last, value));
        }
    }
    Err(Error::cannot_resolve("no free key was found; insert the row by hand", &[]))
}
