//! The UNIQUE indexes that Packmule makes, for what an application elsewhere has made UNIQUE: they are none of the table's own,
//! so that they can go again when it is UNIQUE nowhere else any more.

use crate::engine::error::Result;
use crate::engine::merge::deferred;
use crate::engine::show::{constraints, quarantine};
use crate::engine::store::value;
use crate::engine::table::known::Table;
use crate::engine::table::replica::Replica;

/// What their names begin with.
const OURS: &str = "_pm_unique_";

/// Makes a UNIQUE that others have. Rows that conflict go to the quarantine table and into the deferred queue.
pub(crate) fn make_unique(replica: &Replica, table: &Table, unique: &[u16]) -> Result<()> {
    let names: Vec<String> =
        unique.iter().map(|at| value::quote(&table.def.columns[usize::from(*at)].name)).collect();
    let same: Vec<String> = names.iter().map(|c| format!("a.{c} = b.{c}")).collect();
    let set: Vec<String> = names.iter().map(|c| format!("{c} IS NOT NULL")).collect();
    let sql = format!(
        "WITH clash AS (SELECT {0} FROM {1} WHERE {2} GROUP BY {0} HAVING count(*) > 1)
         SELECT {3} FROM clash b JOIN {1} a ON {4}",
        names.join(", "),
        table.sql_name,
        set.join(" AND "),
        table.def.key_list("a."),
        same.join(" AND ")
    );
    let mut keys = Vec::new();
    {
        let mut statement = replica.db.prepare(&sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            keys.push(table.key_in(row)?);
        }
    }
    for key in keys {
        constraints::before_change(replica, table, &key)?;
        quarantine::move_to_quarantine(replica, table, &key)?;
        deferred::defer(replica, table.tid, &key)?;
    }
    let numbers: Vec<String> = unique.iter().map(u16::to_string).collect();
    replica.db.execute_batch(&format!(
        "CREATE UNIQUE INDEX IF NOT EXISTS {} ON {} ({})",
        value::quote(&format!("{OURS}{}_{}", table.tid, numbers.join("_"))),
        value::quote(&table.def.name),
        names.join(", ")
    ))?;
    Ok(())
}

/// Drops the indexes that Packmule made over just these columns of a table.
pub(crate) fn drop_unique(replica: &Replica, table: &Table, unique: &[u16]) -> Result<()> {
    for (index, _) in indexes(replica, table)?.iter().filter(|(_, columns)| *columns == names(table, unique))
    {
        if index.starts_with(OURS) {
            drop_index(replica, index)?;
        }
    }
    Ok(())
}

/// Returns whether Packmule alone made an index over just these columns of a table.
pub(crate) fn is_ours(replica: &Replica, table: &Table, unique: &[u16]) -> Result<bool> {
    let names = names(table, unique);
    let mut of = indexes(replica, table)?.into_iter().filter(|(_, columns)| *columns == names).peekable();
    Ok(of.peek().is_some() && of.all(|(index, _)| index.starts_with(OURS)))
}

/// Returns the names of the columns of a UNIQUE, in order.
fn names(table: &Table, unique: &[u16]) -> Vec<String> {
    let name = |at: &u16| table.def.columns[usize::from(*at)].name.to_ascii_lowercase();
    let mut names: Vec<String> = unique.iter().map(name).collect();
    names.sort();
    names
}

/// Drops the indexes that Packmule made of which the application has made one of its own: that tells from now on whether the
/// columns are UNIQUE here.
pub(crate) fn drop_doubled(replica: &Replica, table: &Table) -> Result<()> {
    let indexes = indexes(replica, table)?;
    let (ours, own): (Vec<_>, Vec<_>) = indexes.into_iter().partition(|(index, _)| index.starts_with(OURS));
    for (index, columns) in ours {
        if own.iter().any(|(_, of)| *of == columns) {
            drop_index(replica, &index)?;
        }
    }
    Ok(())
}

fn drop_index(replica: &Replica, index: &str) -> Result<()> {
    Ok(replica.db.execute_batch(&format!("DROP INDEX main.{}", value::quote(index)))?)
}

/// Returns the UNIQUE indexes over plain columns of a table, each with the names of its columns, in order.
fn indexes(replica: &Replica, table: &Table) -> Result<Vec<(String, Vec<String>)>> {
    let mut statement = replica.db.prepare_cached(
        "SELECT l.name, i.name FROM pragma_index_list(?1) l JOIN pragma_index_info(l.name) i
         WHERE l.\"unique\" AND NOT l.partial AND l.origin <> 'pk' ORDER BY l.name, i.name",
    )?;
    let mut rows = statement.query([&table.def.name])?;
    let mut indexes: Vec<(String, Vec<String>)> = Vec::new();
    while let Some(row) = rows.next()? {
        let (index, column): (String, Option<String>) = (row.get(0)?, row.get(1)?);
        // An expression has no name: no column is called so.
        let column = column.unwrap_or_default().to_ascii_lowercase();
        match indexes.last_mut().filter(|(of, _)| *of == index) {
            Some((_, columns)) => columns.push(column),
            None => indexes.push((index, vec![column])),
        }
    }
    indexes.iter_mut().for_each(|(_, columns)| columns.sort());
    Ok(indexes)
}
