//! What of tracked tables does not travel: counted, so that whatever sends can name it.

use crate::engine::capture::append;
use crate::engine::capture::ops::{KEY_MAX, unkeyed_prefix};
use crate::engine::error::Result;
use crate::engine::store::value;
use crate::engine::table::catalog;
use crate::engine::table::known::{State, Table};
use crate::engine::table::replica::Replica;

/// Rows of a table that do not travel.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct NotSent {
    /// The table.
    pub table: String,
    /// How many rows.
    pub rows: u64,
    /// Why, and what helps.
    pub reason: String,
}

/// Says so in a line.
impl std::fmt::Display for NotSent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (rows, are) = if self.rows == 1 { ("row", "is") } else { ("rows", "are") };
        write!(f, "{} {rows} of `{}` {are} not sent: {}", self.rows, self.table, self.reason)
    }
}

/// Lists what of the tracked tables does not travel.
pub(crate) fn not_sent(replica: &Replica) -> Result<Vec<NotSent>> {
    let mut found = Vec::new();
    for table in catalog::tables(replica).iter().filter(|t| t.state == State::Tracked) {
        // Counting takes a walk through the table: only where a seal has met such a row.
        let prefix = unkeyed_prefix(table);
        let sql = "SELECT 1 FROM _pm_notice WHERE substr(what, 1, length(?1)) = ?1 LIMIT 1";
        if value::maybe::<i64>(&replica.db, sql, [&prefix])?.is_some() {
            found.extend(unkeyed(replica, table)?);
        }
        let sql = "SELECT count FROM _pm_notice WHERE what = ?1";
        if let Some(rows) = value::maybe(&replica.db, sql, [append::deleted_notice(table)])? {
            let reason = if table.carries_deletes {
                "they were deleted here before deletes were carried, and stay elsewhere"
            } else {
                "they were deleted here and stay elsewhere; `--deletes carry` at `track` carries further ones"
            };
            found.push(NotSent { table: table.def.name.clone(), rows, reason: reason.into() });
        }
    }
    Ok(found)
}

/// Counts the rows of a table that cannot travel for their key.
pub(crate) fn unkeyed(replica: &Replica, table: &Table) -> Result<Vec<NotSent>> {
    let names: Vec<String> = table.def.keys().map(|at| value::quote(&table.def.columns[at].name)).collect();
    let any = |what: &str| names.iter().map(|c| format!("{c} {what}")).collect::<Vec<_>>().join(" OR ");
    let long =
        names.iter().map(|c| format!("octet_length({c}) > {KEY_MAX}")).collect::<Vec<_>>().join(" OR ");
    let mut found = Vec::new();
    for (condition, reason) in [
        (any("IS NULL"), "NULL in their key, which does not tell them apart".to_owned()),
        (long, format!("a key of more than {KEY_MAX} bytes")),
    ] {
        let rows: u64 = replica
            .db
            .prepare(&format!("SELECT count(*) FROM {} WHERE {condition}", table.sql_name))?
            .query_row([], |row| row.get(0))?;
        if rows > 0 {
            found.push(NotSent { table: table.def.name.clone(), rows, reason });
        }
    }
    Ok(found)
}

/// Returns whether a key of the table can be NULL.
pub(crate) fn may_lack_key(table: &Table) -> bool {
    let def = &table.def;
    !def.without_rowid && !def.integer_key() && def.keys().any(|at| !def.columns[at].not_null)
}
