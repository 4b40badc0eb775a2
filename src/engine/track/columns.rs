//! A column added or dropped everywhere.

use std::sync::Arc;

use packmule_core::wire::{Collation, ColumnMerge, Mode};

use crate::engine::capture::groups::SealOptions;
use crate::engine::capture::{follow, redeclare, reshape, seal};
use crate::engine::error::{Error, Result};
use crate::engine::store::value::OwnedValue;
use crate::engine::table::def::{ColumnDef, ColumnDefault};
use crate::engine::table::known::{State, Table};
use crate::engine::table::replica::Replica;
use crate::engine::table::{catalog, ddl};

/// Returns a table of which a person may change the columns now.
fn table_to_change(replica: &Replica, name: &str) -> Result<Arc<Table>> {
    let table = catalog::tracked_table(replica, name)?;
    if table.state == State::Tracked {
        return Ok(table);
    }
    let why = table.note.as_deref().unwrap_or("rows of other devices are gathered in it");
    Err(Error::Usage(format!("the columns of `{}` cannot be changed now: {why}", table.def.name)).into())
}

/// Drops a column of a table here; others that track it drop it when they hear of it.
pub(crate) fn drop_column(replica: &Replica, table: &str, name: &str) -> Result<()> {
    let table = table_to_change(replica, table)?;
    let def = &table.def;
    let Some(at) = def.column(name) else {
        let columns = def.columns.iter().filter(|c| c.key == 0).map(|c| format!("`{}`", c.name));
        let columns = columns.collect::<Vec<_>>().join(", ");
        let what = format!("`{}` has no column `{name}`; those that can be dropped: {columns}", def.name);
        return Err(Error::Usage(what).into());
    };
    let name = &def.columns[at].name;
    if def.columns[at].key > 0 {
        let what = format!(
            "`{name}` is of the primary key of `{}`, by which devices know its rows: it cannot be dropped",
            def.name
        );
        return Err(Error::Usage(what).into());
    }
    let dropped = match def.mode {
        Mode::Shared => reshape::drop_for_all(replica, &table, name),
        Mode::PerDevice => reshape::drop_column(replica, &table, name)
            .and_then(|()| seal::seal_here(replica, SealOptions::default()).map(|_| ())),
    };
    match dropped {
        Err(e) if e.of_sqlite().and_then(rusqlite::Error::sqlite_error_code) == Some(rusqlite::ErrorCode::Unknown) => {
            Err(Error::Usage(format!(
                "column `{name}` of `{}` cannot be dropped here ({e}): drop what is in the way first, a view, a trigger, \
                 a CHECK or a UNIQUE of the table",
                def.name
            )).into())
        }
        other => other,
    }
}

/// Adds a column to a table here; others that track it add it when its declaration reaches them. A column that is
/// there with the same type stays as it is.
pub(crate) fn add_column(
    replica: &Replica,
    table: &str,
    name: &str,
    decl_type: &str,
    default: Option<&OwnedValue>,
) -> Result<()> {
    let table = table_to_change(replica, table)?;
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
        return Err(Error::Usage(format!("`{name} {decl_type}` is not the name and type of a column")).into());
    }
    if let Some(there) = table.def.column(name).map(|at| &table.def.columns[at]) {
        if there.decl_type.eq_ignore_ascii_case(decl_type) && there.default == column.default {
            return Ok(());
        }
        return Err(Error::Usage(format!(
            "`{}` has a column `{name}` already, with another type or default: {}",
            table.def.name,
            table.def.column_sql(there)
        ))
        .into());
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
