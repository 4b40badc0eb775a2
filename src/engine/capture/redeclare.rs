//! Seals declarations of this device: it decides for all devices how a table merges, or what a column is.

use std::collections::BTreeMap;

use packmule_core::wire::{ColumnMerge, FrameFlags};

use crate::engine::capture::groups::{self, SealOptions};
use crate::engine::capture::{declare, follow, reshape};
use crate::engine::error::{Error, Result};
use crate::engine::fleet::peers;
use crate::engine::show::constraints;
use crate::engine::table::catalog;
use crate::engine::table::declared::Subject;
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

/// What a person had decided of a table for all devices.
#[derive(Default)]
pub(crate) struct Decisions {
    /// How it merges, or what is done about concurrent writes to a column.
    merges: bool,
    /// Columns that were added, or made something else.
    columns: Vec<String>,
    dropped: Vec<String>,
}

/// Returns what a device's frames after this one have decided of each table, by its number, as far as it stands.
pub(crate) fn decisions_after(replica: &Replica, dev: i64, after: u64) -> Result<BTreeMap<i64, Decisions>> {
    // Who first declares something decides nothing: it does not supersede what others have said.
    let sql = "SELECT DISTINCT p.tid, p.what, p.name, EXISTS (
                 SELECT 1 FROM _pm_declared o WHERE o.tid = p.tid AND o.what = p.what AND o.name = p.name AND o.past <> 0
                   AND NOT (o.dev = ?1 AND o.seq > ?2))
               FROM _pm_declared p WHERE p.dev = ?1 AND p.seq > ?2 AND p.past = 0";
    let mut statement = replica.db.prepare_cached(sql)?;
    let mut rows = statement.query((dev, after))?;
    let mut all = BTreeMap::<i64, Decisions>::new();
    while let Some(row) = rows.next()? {
        let (tid, what, name, supersedes): (i64, i64, String, bool) =
            (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
        let is = |subject: Subject| what == subject as i64;
        if is(Subject::Dropped) {
            all.entry(tid).or_default().dropped.push(name);
        } else if is(Subject::Column) && (supersedes || follow::is_ordained(replica, tid, &name)?) {
            all.entry(tid).or_default().columns.push(name);
        } else if supersedes && (is(Subject::Merge) || is(Subject::Rule)) {
            let table = all.entry(tid).or_default();
            table.merges = true;
            if is(Subject::Rule) {
                table.columns.push(name);
            }
        }
    }
    Ok(all)
}

/// Decides the same again, as this device: the frames that did are cut off here.
pub(crate) fn decide_again(replica: &Replica, all: BTreeMap<i64, Decisions>) -> Result<()> {
    if peers::is_rolled_back(replica)? {
        return Ok(()); // It seals nothing; whose frames these were decides again itself.
    }
    for (tid, decisions) in all {
        let table = catalog::table(replica, tid)?;
        if !table.shows_shared() {
            continue;
        }
        let gone = |name: &String| table.def.column(name).is_none();
        let dropped: Vec<String> = decisions.dropped.into_iter().filter(gone).collect();
        if !dropped.is_empty() {
            reshape::say_dropped(replica, &table, &dropped)?;
        }
        let mut def = table.def.clone();
        def.columns
            .retain(|c| c.key > 0 || decisions.columns.iter().any(|name| c.name.eq_ignore_ascii_case(name)));
        if decisions.merges || def.columns.iter().any(|c| c.key == 0) {
            declare(replica, tid, def)?;
        }
    }
    Ok(())
}
