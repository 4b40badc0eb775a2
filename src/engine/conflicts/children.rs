//! The rows that refer to a row by its key, where that is one column.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use packmule_core::wire::OpKind;
use rusqlite::params_from_iter;

use crate::engine::error::Result;
use crate::engine::merge::{heads, versions};
use crate::engine::store::value::{self, OwnedValue};
use crate::engine::table::catalog;
use crate::engine::table::known::Table;
use crate::engine::table::replica::Replica;

/// A shared table that refers to another by this column.
pub(crate) struct Reference {
    pub child: Arc<Table>,
    pub column: usize,
}

/// Returns the shared tables that refer to the key of a table; one may be the table itself.
pub(crate) fn references_to(replica: &Replica, parent: &Table) -> Vec<Reference> {
    let mut found = Vec::new();
    let mut keys = parent.def.keys();
    let (Some(key), None) = (keys.next(), keys.next()) else { return found };
    let key = &parent.def.columns[key].name;
    for child in catalog::tables(replica).into_iter().filter(|t| t.shows_shared()) {
        for foreign in &child.def.foreign_keys {
            if let [(here, there)] = &foreign.columns[..]
                && foreign.parent.eq_ignore_ascii_case(&parent.def.name)
                && there.eq_ignore_ascii_case(key)
                && let Some(column) = child.def.column(here)
            {
                found.push(Reference { child: child.clone(), column });
            }
        }
    }
    found.sort_by(|a, b| a.child.def.name.cmp(&b.child.def.name).then(a.column.cmp(&b.column)));
    found
}

/// Returns the keys of the contested rows of a table.
fn contested_keys(replica: &Replica, tid: i64) -> Result<BTreeSet<Vec<u8>>> {
    let mut statement = replica.db.prepare_cached("SELECT key FROM _pm_conflict WHERE tid = ?1")?;
    Ok(statement.query_map([tid], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
}

/// Gives each row that refers to one of these rows of a table: the table that it is in, the key of the row that it refers
/// to, and its own. One walk through each table that refers, however many rows are asked for.
fn visit(
    replica: &Replica,
    parent: &Table,
    references: &[Reference],
    keys: &BTreeSet<Vec<u8>>,
    mut each: impl FnMut(&Table, &[u8], Vec<u8>) -> Result<()>,
) -> Result<()> {
    for Reference { child, column } in references {
        let c = value::column(&child.def.columns[*column].name);
        let n = child.def.keys().count();
        let sql =
            format!("SELECT {}, {c} FROM {} WHERE {c} IS NOT NULL", child.def.key_list(""), child.sql_name);
        let mut statement = replica.db.prepare(&sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let referred = parent.key_of(std::iter::once(value::from_sql(row.get_ref(n)?)))?;
            if keys.contains(&referred) {
                each(child, &referred, child.key_in(row)?)?;
            }
        }
    }
    Ok(())
}

/// Gives each row that refers to a contested row: the table and the key of that, its own table and its own key. Only the
/// keys of contested rows to which others can refer are in memory.
pub(crate) fn of_contested(
    replica: &Replica,
    mut each: impl FnMut(&Table, &[u8], &Table, Vec<u8>) -> Result<()>,
) -> Result<()> {
    for parent in catalog::tables(replica).into_iter().filter(|t| t.shows_shared() && t.is_parent) {
        let references = references_to(replica, &parent);
        if references.is_empty() {
            continue;
        }
        let keys = contested_keys(replica, parent.tid)?;
        if !keys.is_empty() {
            visit(replica, &parent, &references, &keys, |child, referred, own| {
                each(&parent, referred, child, own)
            })?;
        }
    }
    Ok(())
}

/// How many rows of each table refer to a contested row, by the table and the key of that.
pub(crate) type Counts = BTreeMap<(i64, Vec<u8>), BTreeMap<String, u64>>;

/// Counts the rows that refer to contested rows.
pub(crate) fn counts(replica: &Replica) -> Result<Counts> {
    let mut counts = Counts::new();
    of_contested(replica, |parent, referred, child, _| {
        let of = counts.entry((parent.tid, referred.to_vec())).or_default();
        *of.entry(child.def.name.clone()).or_default() += 1;
        Ok(())
    })?;
    Ok(counts)
}

/// Keys of rows that refer to a row, by the key of that.
type ByReferred = BTreeMap<Vec<u8>, BTreeSet<Vec<u8>>>;

/// To list a conflict, so many rows that refer to its row are looked at, however long a chain they are.
const TRIED: usize = 16;

/// The rows that refer to others. To list all conflicts each table is read once; to resolve one, it is read as it is now.
#[derive(Default)]
pub(crate) struct Referrers {
    is_listing: bool,
    /// By table, column, and the table that is referred to.
    contested: BTreeMap<(i64, usize, i64), ByReferred>,
    others: BTreeMap<(i64, usize, i64), ByReferred>,
}

impl Referrers {
    /// Of rows that are not contested, only some are found, and only where their table may refuse another reference.
    pub(crate) fn for_listing() -> Self {
        Self { is_listing: true, ..Self::default() }
    }

    /// Returns whether one more contested row is looked at for a conflict of which so many are to be kept.
    pub(crate) fn tries(&self, kept: usize) -> bool {
        !self.is_listing || kept < TRIED
    }

    /// Returns the keys of the contested rows of which a version refers to a row.
    pub(crate) fn contested(
        &mut self,
        replica: &Replica,
        parent: &Table,
        Reference { child, column }: &Reference,
        key: &[u8],
    ) -> Result<Vec<Vec<u8>>> {
        let place = (child.tid, *column, parent.tid);
        let known = match self.contested.entry(place) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(none) => none.insert(contested_by_referred(replica, parent, child, *column)?),
        };
        let listed = "SELECT 1 FROM _pm_conflict WHERE tid = ?1 AND key = ?2";
        let mut still = replica.db.prepare_cached(listed)?;
        let mut found = Vec::new();
        for own in known.get(key).into_iter().flatten() {
            if still.exists((child.tid, own))? {
                found.push(own.clone());
            }
        }
        Ok(found)
    }

    /// Returns the keys of the rows of a table that refer to a row, as the table shows them.
    pub(crate) fn shown(
        &mut self,
        replica: &Replica,
        parent: &Table,
        reference: &Reference,
        key: &[u8],
    ) -> Result<Vec<Vec<u8>>> {
        let Reference { child, column } = reference;
        if !self.is_listing {
            return keys_of(replica, child, *column, key);
        }
        let known = match self.others.entry((child.tid, *column, parent.tid)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(none) => none.insert(some_by_referred(replica, parent, reference)?),
        };
        Ok(known.get(key).into_iter().flatten().cloned().collect())
    }
}

/// Reads which contested rows of a table refer to which rows by a column, in any of their versions.
fn contested_by_referred(
    replica: &Replica,
    parent: &Table,
    child: &Table,
    column: usize,
) -> Result<ByReferred> {
    let mut found = ByReferred::new();
    for key in contested_keys(replica, child.tid)? {
        for head in heads::heads(replica, child.tid, &key)?.iter().filter(|h| h.kind != OpKind::Delete) {
            let referred = versions::told(replica, child, head)?.into_iter().find(|(at, _)| *at == column);
            let Some((_, value)) = referred else { continue };
            if !matches!(value, OwnedValue::Null | OwnedValue::Large { .. }) {
                let referred = parent.key_of(std::iter::once(value.borrow()))?;
                found.entry(referred).or_default().insert(key.clone());
            }
        }
    }
    Ok(found)
}

/// Reads some of the rows that refer to contested rows, of a table that may refuse another reference.
fn some_by_referred(replica: &Replica, parent: &Table, reference: &Reference) -> Result<ByReferred> {
    let mut found = ByReferred::new();
    let Reference { child, column } = reference;
    let rules = "SELECT 1 FROM sqlite_schema WHERE tbl_name = ?1 COLLATE NOCASE
                 AND (sql LIKE '%check%' OR type = 'index' AND sql LIKE 'create unique %')";
    let is_in_unique = child.def.uniques.iter().any(|unique| unique.contains(&(*column as u16)));
    if !is_in_unique && !replica.db.prepare_cached(rules)?.exists([&child.def.name])? {
        return Ok(found);
    }
    let keys = contested_keys(replica, parent.tid)?;
    visit(replica, parent, std::slice::from_ref(reference), &keys, |_, referred, own| {
        let some = found.entry(referred.to_vec()).or_default();
        if some.len() < TRIED {
            some.insert(own);
        }
        Ok(())
    })?;
    Ok(found)
}

/// Returns the keys of the rows whose column has a row's key.
fn keys_of(replica: &Replica, child: &Table, column: usize, parent: &[u8]) -> Result<Vec<Vec<u8>>> {
    let c = value::column(&child.def.columns[column].name);
    let sql = format!("SELECT {} FROM {} WHERE {c} = ?1", child.def.key_list(""), child.sql_name);
    let mut statement = replica.db.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(value::read_key(parent)?.iter()))?;
    let mut keys = Vec::new();
    while let Some(row) = rows.next()? {
        keys.push(child.key_in(row)?);
    }
    keys.sort();
    Ok(keys)
}
