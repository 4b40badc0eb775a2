//! What a resolution reads of a version, and how it records a row for the seal.

use crate::engine::capture::dirty::{self, ChangeFlags};
use crate::engine::error::Result;
use crate::engine::merge::heads::Head;
use crate::engine::merge::versions::{self, Held};
use crate::engine::store::value::{self, OwnedValue};
use crate::engine::table::known::Table;
use crate::engine::table::replica::Replica;

/// Reads what a version itself says of a row: not its key, its counters and its disputed columns, and not what later
/// versions wrote over.
pub(crate) fn own_values(replica: &Replica, table: &Table, head: &Head) -> Result<Vec<(usize, Held)>> {
    let live = head.live(table.def.columns.len());
    let mut values = versions::held(replica, table, head)?;
    values.retain(|(at, _)| {
        live.contains(*at)
            && table.def.columns[*at].key == 0
            && !table.counters.contains(at)
            && !table.disputed.contains(*at)
    });
    Ok(values)
}

/// Reads the settled sums of counters that a verdict's version says.
pub(crate) fn own_sums(replica: &Replica, table: &Table, head: &Head) -> Result<Vec<(usize, OwnedValue)>> {
    if table.counters.is_empty() {
        return Ok(Vec::new());
    }
    let mut sums = versions::values(replica, table, head)?;
    sums.retain(|(at, _)| table.counters.contains(at) && versions::disputes(table, head, *at));
    Ok(sums)
}

/// Records that a row was resolved, so that the seal makes an op of it whatever it is like.
pub(crate) fn record_resolved(replica: &Replica, table: &Table, key: &[u8]) -> Result<()> {
    dirty::record_key(replica, table, &value::read_key(key)?, ChangeFlags::RESOLVED)
}
