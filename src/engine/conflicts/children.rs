//! The rows that refer to a row by its key, where that is one column.

use std::collections::BTreeSet;
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
    let c = value::quote(&child.def.columns[column].name);
    let sql = format!("SELECT {} FROM {} WHERE {c} = ?1", child.def.key_list(""), child.sql_name);
    let mut statement = replica.db.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(value::read_key(parent)?.iter()))?;
    let n = child.def.keys().count();
    let mut keys = Vec::new();
    while let Some(row) = rows.next()? {
        let values =
            (0..n).map(|at| row.get_ref(at).map(value::from_sql)).collect::<rusqlite::Result<Vec<_>>>()?;
        keys.push(child.key_of(values.into_iter())?);
    }
    keys.sort();
    Ok(keys)
}

/// Gives each row that refers to one of these rows of a table: the table that it is in, the key of the row that it refers
/// to, and its own. One walk through each table that refers, however many rows are asked for.
pub(crate) fn visit(
    replica: &Replica,
    parent: &Table,
    keys: &BTreeSet<Vec<u8>>,
    mut each: impl FnMut(&Table, &[u8], Vec<u8>) -> Result<()>,
) -> Result<()> {
    for Reference { child, column } in references_to(replica, parent) {
        let c = value::quote(&child.def.columns[column].name);
        let n = child.def.keys().count();
        let sql =
            format!("SELECT {}, {c} FROM {} WHERE {c} IS NOT NULL", child.def.key_list(""), child.sql_name);
        let mut statement = replica.db.prepare(&sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let referred = parent.key_of(std::iter::once(value::from_sql(row.get_ref(n)?)))?;
            if keys.contains(&referred) {
                let own = (0..n)
                    .map(|at| row.get_ref(at).map(value::from_sql))
                    .collect::<rusqlite::Result<Vec<_>>>()?;
                each(&child, &referred, child.key_of(own.into_iter())?)?;
            }
        }
    }
    Ok(())
}
