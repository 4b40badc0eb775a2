//! Tables that this device tracks no longer, said to the others.
//!
//! Others count on what a device announced of a table last: a column that they rename, drop or retype waits for it. So it is
//! said that a table is left, at once, or at the first seal that can say so: a device that was set back says nothing before
//! it has its own log back, and one whose key is not there never.

use packmule_core::wire::{Mode, SchemaBits};

use crate::engine::capture::groups::{self, SealOptions, SealReport};
use crate::engine::error::Result;
use crate::engine::fleet::peers;
use crate::engine::table::known::{State, Table};
use crate::engine::table::replica::Replica;
use crate::engine::table::{catalog, shapes};

/// Says of each table that is not tracked here any more that it is left, unless that was said.
pub(crate) fn leave_all(replica: &Replica) -> Result<SealReport> {
    let mut report = SealReport::default();
    for table in catalog::tables(replica).iter().filter(|table| table.state == State::Untracked) {
        report.also_made(&leave(replica, table)?);
    }
    Ok(report)
}

/// Says of one table that it is left: what the others do to theirs waits for this device no longer.
fn leave(replica: &Replica, table: &Table) -> Result<SealReport> {
    // What was announced is that of another table of the name.
    let is_anothers = catalog::namesakes(replica, table)
        .iter()
        .any(|other| matches!(other.state, State::Tracked | State::Suspended));
    let is_said = table.def.mode != Mode::Shared || !shapes::is_counted_on(replica, table.tid)?;
    if is_said || is_anothers || !replica.can_sign() || peers::is_rolled_back(replica)? {
        return Ok(SealReport::default());
    }
    let says = groups::Says { def: &table.def, bits: SchemaBits::LEFT, names: &[] };
    groups::seal_groups(replica, SealOptions { says: Some(&says), ..SealOptions::default() })
}
