//! Defaults that nobody has written: of a column that is newer than what is folded, a settled row has no value.

use std::collections::BTreeSet;

use packmule_core::model::Stream;
use packmule_core::wire::DefId;

use crate::engine::error::Result;
use crate::engine::fleet::membership;
use crate::engine::store::value::OwnedValue;
use crate::engine::table::columns::Columns;
use crate::engine::table::declared::{self, Subject};
use crate::engine::table::known::Table;
use crate::engine::table::replica::Replica;
use crate::engine::table::{catalog, renamed};

/// Returns the columns of a settled row that nobody has written: it has but their default, and no device had them within the
/// frames that were folded. What a migration fills in would lose to that default, or be in conflict with it.
pub(crate) fn unsaid(
    replica: &Replica,
    table: &Table,
    row: &[OwnedValue],
    folded: &dyn Fn(i64, u64) -> Result<bool>,
) -> Result<Columns> {
    let is_default = |at: &usize| {
        let column = &table.def.columns[*at];
        column.key == 0 && column.is_constant(&row[*at])
    };
    let defaults: Columns = (0..row.len()).filter(is_default).collect();
    if defaults.is_empty() {
        return Ok(defaults);
    }
    let since = columns_since(replica, table, folded)?;
    Ok((0..row.len()).filter(|at| defaults.contains(*at) && since.contains(*at)).collect())
}

/// Returns the same, of a row that is settled here.
pub(crate) fn unsaid_here(replica: &Replica, table: &Table, row: &[OwnedValue]) -> Result<Columns> {
    unsaid(replica, table, row, &|dev, seq| Ok(seq <= membership::watermark(replica, dev, Stream::Shared)?))
}

/// Returns the columns of a table that no device had announced in any of these frames: none of them can speak for one.
fn columns_since(
    replica: &Replica,
    table: &Table,
    within: &dyn Fn(i64, u64) -> Result<bool>,
) -> Result<Columns> {
    let sql = "SELECT dev, seq, def FROM _pm_declared WHERE tid = ?1 AND what = ?2 AND name = ''";
    let mut statement = replica.db.prepare_cached(sql)?;
    let mut rows = statement.query((declared::root_of(replica, table.tid), Subject::Shape))?;
    let mut defs = BTreeSet::new();
    while let Some(row) = rows.next()? {
        if within(row.get(0)?, row.get(1)?)? {
            defs.insert(row.get::<_, [u8; 8]>(2)?);
        }
    }
    let mut since = Columns::all(table.def.columns.len());
    for id in defs {
        let mut def = catalog::op_def(replica, DefId(id))?.def.clone();
        renamed::as_now(replica, table.tid, &mut def, &table.def)?;
        since =
            since.minus(&def.columns.iter().filter_map(|column| table.def.column(&column.name)).collect());
    }
    Ok(since)
}
