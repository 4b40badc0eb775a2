//! A column added everywhere.

use packmule_core::wire::{Collation, ColumnMerge, Mode};

use crate::engine::capture::groups::SealOptions;
use crate::engine::capture::{follow, redeclare, seal};
use crate::engine::error::{Error, Result};
use crate::engine::store::value::OwnedValue;
use crate::engine::table::def::{ColumnDef, ColumnDefault};
use crate::engine::table::known::State;
use crate::engine::table::replica::Replica;
use crate::engine::table::{catalog, ddl};

/// Adds a column to a table here; others that track it add it when its declaration reaches them. A column that is
/// there with the same type stays as it is.
pub(crate) fn add_column(
    replica: &Replica,
    table: &str,
    name: &str,
    decl_type: &str,
    default: Option<&OwnedValue>,
) -> Result<()> {
    let table = catalog::tracked_table(replica, table)?;
    if table.state != State::Tracked {
        let why = table.note.as_deref().unwrap_or("rows of other devices are gathered in it");
        return Err(Error::Usage(format!("`{}` takes no column now: {why}", table.def.name)));
    }
    let column = ColumnDef {
        name: name.into(),
        decl_type: decl_type.into(),
        collation: Collation::Binary,
        not_null: false,
        key: 0,
        default: default.map_or(ColumnDefault::None, |value| ColumnDefault::Literal(value.clone())),
        merge: ColumnMerge::Table,
    };
    if name.is_empty() || name.contains('\0') || ddl::safe_type(decl_type) != decl_type {
        return Err(Error::Usage(format!("`{name} {decl_type}` is not the name and type of a column")));
    }
    if let Some(there) = table.def.column(name).map(|at| &table.def.columns[at]) {
        if there.decl_type.eq_ignore_ascii_case(decl_type) && there.default == column.default {
            return Ok(());
        }
        return Err(Error::Usage(format!(
            "`{}` has a column `{name}` already, with another type or default: {}",
            table.def.name,
            table.def.column_sql(there)
        )));
    }
    replica.db.execute_batch(&format!(
        "ALTER TABLE {} ADD COLUMN {}",
        table.sql_name,
        table.def.column_sql(&column)
    ))?;
    seal::seal_here(replica, SealOptions::default())?;
    if table.def.mode == Mode::PerDevice {
        return Ok(());
    }
    follow::ordain_column(replica, table.tid, name)?;
    redeclare::decide_column(replica, table.tid, &column)
}
