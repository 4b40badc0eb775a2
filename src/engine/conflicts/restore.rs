//! What was overwritten is written anew: one row as a frame has it, or all rows that a device wrote to, as they were before.

use packmule_core::model::{DeviceId, WallMs};

use crate::engine::capture::groups::Before;
use crate::engine::capture::ops;
use crate::engine::conflicts::change::RowChange;
use crate::engine::conflicts::rewind::{self, LeftOut};
use crate::engine::conflicts::told::{self, Told};
use crate::engine::conflicts::{history, list, undo};
use crate::engine::error::{Error, Result};
use crate::engine::fleet::devices;
use crate::engine::log::writer::GroupWriter;
use crate::engine::merge::deferred;
use crate::engine::merge::heads;
use crate::engine::store::value::OwnedValue;
use crate::engine::table::catalog;
use crate::engine::table::known::{State, Table};
use crate::engine::table::replica::Replica;

/// What was done about rows that a device wrote to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct TakenBack {
    /// How many rows are as they were before.
    pub rows: u64,
    /// How many are so already: somebody has written them so since.
    pub same: u64,
    /// Of how many nobody knows what they were: that is compacted away here, or too large.
    pub unknown: u64,
}

/// Writes rows as they were without what a device has written since a time, within the open transaction. What was written
/// here must be sealed. Rows that others wrote to since are as they wrote them.
pub(crate) fn take_back(
    replica: &Replica,
    (by, since): (DeviceId, WallMs),
    each: &mut dyn FnMut(&str, RowChange) -> Result<()>,
) -> Result<TakenBack> {
    rewind::find(replica, LeftOut { by: Some(by), since })?;
    let mut report = TakenBack::default();
    let mut after = (i64::MIN, Vec::new());
    undo::write_group(replica, &mut |group| {
        while let Some((tid, key, former)) = rewind::next(replica, &after)? {
            after = (tid, key.clone());
            let table = catalog::table(replica, tid)?;
            if matches!(former, Before::Untold) || !table.shows_shared() {
                report.unknown += 1;
            } else if let Some(change) = write_row(replica, group, &table, &key, &former)? {
                report.rows += 1;
                each(&table.def.name, change)?;
            } else {
                report.same += 1;
            }
        }
        Ok(())
    })?;
    replica.db.execute_batch("DROP TABLE temp._pm_former")?;
    Ok(report)
}

/// Writes a row as a frame of a device has it, within the open transaction. Returns what that changes, if anything.
pub(crate) fn restore(
    replica: &Replica,
    (table, key): (&str, &[OwnedValue]),
    (author, seq): (DeviceId, u64),
) -> Result<Option<RowChange>> {
    let table = catalog::tracked_table(replica, table)?;
    if table.state == State::Suspended {
        let held =
            format!("`{}` is held here, and nothing is written to it: `status` says why", table.def.name);
        return Err(Error::Usage(held).into());
    }
    if !table.shows_shared() {
        return Err(
            Error::Usage(format!("`{}` is no shared table that is tracked here", table.def.name)).into()
        );
    }
    let key = history::canonical_key(&table, key)?;
    let dev = devices::device_number(replica, author)?.unwrap_or_default();
    let former = rewind::in_frame(replica, (dev, seq), (table.tid, &key))?;
    if matches!(former, Before::Untold) {
        return Err(Error::Usage("the row has a value in that frame that is longer than 1 MiB".into()).into());
    }
    let mut change = None;
    undo::write_group(replica, &mut |group| {
        change = write_row(replica, group, &table, &key, &former)?;
        Ok(())
    })?;
    Ok(change)
}

/// Writes a row as it was; `None` if it is so already.
fn write_row(
    replica: &Replica,
    group: &mut GroupWriter<'_>,
    table: &Table,
    key: &[u8],
    was: &Before,
) -> Result<Option<RowChange>> {
    let values = list::told_row(replica, table, table.place(), key)?;
    let told = Told { kept: told::keeps(replica, &values), values, quarantined: false };
    let mut row = told.begin(table, key)?;
    let before = &row.before;
    let heads = heads::heads(replica, table.tid, key)?;
    let Some((values, change)) = undo::said(replica, (table, key), before, (None, was), heads)? else {
        return Ok(None);
    };
    let after: Vec<(String, OwnedValue)> = match was {
        Before::Values(_) => {
            let named =
                table.def.columns.iter().map(|column| column.name.clone()).zip(values.iter().cloned());
            let written = change.columns.clone();
            let kept = |name: &str| before.iter().find(|(of, _)| of == name).map(|(_, value)| value.clone());
            let all = named.enumerate().map(|(at, (name, value))| {
                let says = written.as_ref().is_none_or(|columns| columns.contains(at));
                let value = if says { value } else { kept(&name).unwrap_or(value) };
                (name, value.shortened())
            });
            all.collect()
        }
        _ => Vec::new(),
    };
    if after == *before {
        return Ok(None);
    }
    ops::seal_said(replica, table, group, &values, &change)?;
    deferred::defer(replica, table.tid, key)?;
    row.after = after;
    Ok(Some(row))
}
