//! Columns for which no version speaks any more: a verdict removed what did, and has no value in its place.
//!
//! **Rule.** Such a column begins anew, with its default: so it is the same whether the row was here before the verdict, or is
//! made by a write that comes after it. No honest verdict leaves a column so: it says the value of all that it settles.

use crate::engine::error::Result;
use crate::engine::merge::{compose, deferred};
use crate::engine::show::{constraints, quarantine};
use crate::engine::store::value;
use crate::engine::table::columns::Columns;
use crate::engine::table::known::Table;
use crate::engine::table::replica::Replica;

/// Has columns of a row, if it is here, begin anew. The row is shown again at the end of the group, if it can be.
pub(crate) fn begin_anew(replica: &Replica, table: &Table, key: &[u8], columns: &Columns) -> Result<()> {
    if columns.is_empty() || compose::row_of(replica, table, key)?.is_none() {
        return Ok(());
    }
    constraints::before_change(replica, table, key)?;
    quarantine::move_to_quarantine(replica, table, key)?;
    let all = table.def.columns.iter().enumerate();
    let begun = all.filter(|(at, _)| columns.contains(*at)).map(|(at, column)| {
        // As the table would store it: what is said of the row later is read from here.
        Ok((at, value::converted(&replica.db, &column.constant(), column.affinity())?))
    });
    let defaults = begun.collect::<Result<Vec<_>>>()?;
    compose::make_quarantined_row(replica, table, key, &defaults)?;
    deferred::defer(replica, table.tid, key)
}
