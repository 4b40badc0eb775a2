//! Tables that are held and that their application made anew: from the first run that finds them so, triggers tell which rows
//! are written, as in any other table. What happened before that is restated when the table goes on (`restate.rs`).

use crate::engine::capture::{column_numbers, dirty, renaming, reshape, suspended, watch};
use crate::engine::error::Result;
use crate::engine::store::meta;
use crate::engine::table::catalog;
use crate::engine::table::def::TableDef;
use crate::engine::table::known::Table;
use crate::engine::table::replica::Replica;

/// Has the next run that can seal restate a table that was made anew.
pub(crate) fn restate_later(replica: &Replica, tid: i64) -> Result<()> {
    meta::set(&replica.db, &suspended::flag(tid), true)?;
    catalog::doubt_schema(replica)
}

/// Forgets that a table was made anew: it goes on.
pub(crate) fn forget(replica: &Replica, tid: i64) -> Result<()> {
    meta::forget(&replica.db, &suspended::flag(tid))
}

/// Lets triggers watch a table that is held, if it has none, by the names that its columns have now. `now` is what it is;
/// its columns keep the numbers that they have in its definition before, and new ones come after them.
pub(crate) fn watch(replica: &Replica, table: &Table, now: &TableDef) -> Result<()> {
    // What becomes of an append table is told by its mark.
    if table.def.append {
        return Ok(());
    }
    let change = reshape::change_of(replica, table, now, &|_| false)?;
    // Nobody can say which row is which; or the triggers that are there alone say which column is which.
    if change.key || change.reused.is_some() {
        return Ok(());
    }
    let intact = watch::capture_intact(replica, table)?;
    let mut held = table.clone();
    for column in &mut held.def.columns {
        column.name = column_numbers::name_after(&change.renamed, &column.name).to_owned();
    }
    if !intact || suspended::is_made_anew(replica, table.tid)? {
        let new = now.columns.iter().filter(|c| held.def.column(&c.name).is_none()).cloned();
        held.def.columns.extend(new.collect::<Vec<_>>());
    }
    if !intact {
        meta::set(&replica.db, &suspended::flag(table.tid), true)?;
    } else if reshape::has_new_values(replica, table, now, &change)?
        && !suspended::is_to_restate(replica, table.tid)?
    {
        meta::set(&replica.db, &suspended::flag(table.tid), false)?;
    }
    if intact && !renaming::is_misnamed(replica, &held)? {
        return Ok(());
    }
    dirty::make_change_list(replica, &held)?;
    watch::rename_in_triggers(replica, &held)
}
