//! The rows that refer to a row by its key, where that is one column.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rusqlite::params_from_iter;

use crate::engine::error::Result;
use crate::engine::store::value;
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

/// Returns the keys of the rows whose column has a row's key.
pub(crate) fn keys_of(
    replica: &Replica,
    child: &Table,
    column: usize,
    parent: &[u8],
) -> Result<Vec<Vec<u8>>> {
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

/// Returns the keys of the contested rows of a table.
pub(crate) fn contested_keys(replica: &Replica, tid: i64) -> Result<BTreeSet<Vec<u8>>> {
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
