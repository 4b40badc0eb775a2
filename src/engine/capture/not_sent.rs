//! What of tracked tables does not travel: counted, so that whatever sends can name it.

use packmule_core::wire::Mode;

use crate::engine::capture::append;
use crate::engine::capture::ops::{KEY_MAX, unkeyed_prefix};
use crate::engine::error::{Hint, Result};
use crate::engine::store::meta::Notice;
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
    /// Why.
    pub reason: String,
    /// What helps, or shows more.
    pub hint: Option<Hint>,
}

impl NotSent {
    /// Returns whether a notice says the same, without counting.
    pub fn is_noticed_by(&self, notice: &Notice) -> bool {
        let text = &notice.text;
        *text == append::deleted_notice(&self.table) || text.starts_with(&unkeyed_prefix(&self.table))
    }
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
        let name = &table.def.name;
        let prefix = unkeyed_prefix(name);
        let sql = "SELECT 1 FROM _pm_notice WHERE substr(what, 1, length(?1)) = ?1 LIMIT 1";
        if value::maybe::<i64>(&replica.db, sql, [&prefix])?.is_some() {
            found.extend(unkeyed(replica, table)?);
        }
        let sql = "SELECT count FROM _pm_notice WHERE what = ?1";
        if let Some(rows) = value::maybe(&replica.db, sql, [append::deleted_notice(name)])? {
            let (they_were, stay) = if rows == 1 { ("it was", "stays") } else { ("they were", "stay") };
            let before = if table.carries_deletes { " before deletes were carried" } else { "" };
            let reason = format!("{they_were} deleted here{before}, and {stay} elsewhere");
            let per_device = table.def.mode == Mode::PerDevice;
            let hint =
                (!table.carries_deletes).then(|| Hint::CarryDeletes { table: name.clone(), per_device });
            found.push(NotSent { table: name.clone(), rows, reason, hint });
        }
    }
    Ok(found)
}

/// Counts the rows of a table that cannot travel for their key.
pub(crate) fn unkeyed(replica: &Replica, table: &Table) -> Result<Vec<NotSent>> {
    let mut found = Vec::new();
    for (condition, reason) in unkeyed_conditions(table) {
        let rows: u64 = replica
            .db
            .prepare(&format!("SELECT count(*) FROM {} WHERE {condition}", table.sql_name))?
            .query_row([], |row| row.get(0))?;
        if rows > 0 {
            let hint = Some(Hint::ShowRows {
                query: format!("SELECT * FROM {} WHERE {condition}", value::quote(&table.def.name)),
            });
            found.push(NotSent { table: table.def.name.clone(), rows, reason, hint });
        }
    }
    Ok(found)
}

/// Returns which rows of a table cannot travel for their key, as SQL, each with the reason.
fn unkeyed_conditions(table: &Table) -> [(String, String); 2] {
    let names: Vec<String> = table.def.keys().map(|at| value::quote(&table.def.columns[at].name)).collect();
    let any = |is: &dyn Fn(&String) -> String| names.iter().map(is).collect::<Vec<_>>().join(" OR ");
    [
        (any(&|c| format!("{c} IS NULL")), "NULL in the key, which tells no row from another".to_owned()),
        (any(&|c| format!("octet_length({c}) > {KEY_MAX}")), format!("a key of more than {KEY_MAX} bytes")),
    ]
}

/// Returns a condition that leaves the rows of a shared table that can travel; none where all can.
pub(crate) fn keyed(table: &Table) -> Option<String> {
    if table.def.integer_key() {
        return None;
    }
    let [lacking, long] = unkeyed_conditions(table).map(|(condition, _)| condition);
    Some(if may_lack_key(table) { format!("NOT ({lacking} OR {long})") } else { format!("NOT ({long})") })
}

/// Returns whether a key of the table can be NULL.
pub(crate) fn may_lack_key(table: &Table) -> bool {
    let def = &table.def;
    !def.without_rowid && !def.integer_key() && def.keys().any(|at| !def.columns[at].not_null)
}
