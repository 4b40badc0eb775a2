//! Seals declarations of this device: it decides for all devices how a table merges, or what a column is.

use packmule_core::wire::{ColumnMerge, FrameFlags};

use crate::engine::capture::declare;
use crate::engine::capture::groups::{self, SealOptions};
use crate::engine::error::{Error, Result};
use crate::engine::show::constraints;
use crate::engine::table::catalog;
use crate::engine::table::def::{ColumnDef, TableDef};
use crate::engine::table::known::Table;
use crate::engine::table::replica::Replica;

/// Declares for all devices that a table merges in another way.
pub(crate) fn redeclare(replica: &Replica, known: &Table, wanted: &TableDef) -> Result<()> {
    let mut def = known.def.clone();
    (def.merge, def.policy) = (wanted.merge, wanted.policy);
    for column in &mut def.columns {
        if let Some(at) = wanted.column(&column.name) {
            column.merge = wanted.columns[at].merge;
        }
    }
    let old = &known.def;
    if let Some(at) = old.counters().into_iter().find(|at| def.columns[*at].merge != ColumnMerge::Counter) {
        return Err(Error::cannot_track(
            &def.name,
            format!(
                "column `{0}` is a counter, and what was added to it elsewhere would be lost: it must stay one",
                def.columns[at].name
            ),
        ));
    }
    def.columns
        .retain(|c| c.key > 0 || old.column(&c.name).is_some_and(|at| old.columns[at].merge != c.merge));
    declare(replica, known.tid, def)
}

/// Seals a declaration that resolves what others declared, and makes the table here so.
pub(crate) fn declare(replica: &Replica, tid: i64, mut def: TableDef) -> Result<()> {
    def.uniques.clear();
    def.foreign_keys.clear();
    let disputed = catalog::table(replica, tid)?.disputed.clone();
    let (id, body) = def.encode()?;
    catalog::keep_def(replica, &def, id, &body)?;
    let flags = FrameFlags::RESOLUTION;
    groups::seal_groups(replica, SealOptions { flags, declare: Some(&def), ..SealOptions::default() })?;
    declare::apply_declarations(replica, tid, &disputed)?;
    constraints::resolve_constraints(replica)
}

/// Declares for all devices what a column is: a group that resolves what others declared.
pub(crate) fn decide_column(replica: &Replica, tid: i64, column: &ColumnDef) -> Result<()> {
    let mut def = catalog::table(replica, tid)?.def.clone();
    let rule = def.column(&column.name).map_or(ColumnMerge::Table, |at| def.columns[at].merge);
    def.columns.retain(|c| c.key > 0);
    def.columns.push(ColumnDef { merge: rule, key: 0, ..column.clone() });
    declare(replica, tid, def)
}
