//! Tables that this device tracks no longer, said to the others.
//!
//! Others count on what a device announced of a table last: a column that they rename, drop or retype waits for it. So it is
//! said that a table is left, at once, or at the first seal that can say so: a device that was set back says nothing before
//! it has its own log back, and one whose key is not there never.

use packmule_core::wire::{Mode, SchemaBits};

use crate::engine::capture::groups::{self, SealOptions, SealReport};
use crate::engine::error::Result;
use crate::engine::fleet::peers;
use crate::engine::store::meta;
use crate::engine::table::known::{State, Table};
use crate::engine::table::replica::Replica;
use crate::engine::table::{catalog, shapes};

/// Whether some table is left, and that is still to be said.
const OWED: &str = "leaves tables";

/// Says of all tables that are let go that they are left, now or later.
pub(crate) fn leave(replica: &Replica) -> Result<()> {
    meta::set(&replica.db, OWED, true)?;
    leave_owed(replica).map(|_| ())
}

/// Says of all tables that are left what could not be said when they were let go: what the others do to theirs waits for this
/// device no longer.
pub(crate) fn leave_owed(replica: &Replica) -> Result<SealReport> {
    let mut report = SealReport::default();
    let is_owed = meta::get(&replica.db, OWED)?.unwrap_or(false);
    if !is_owed || !replica.can_sign() || peers::is_rolled_back(replica)? {
        return Ok(report);
    }
    for table in catalog::tables(replica).iter().filter(|table| is_to_be_said(table)) {
        if shapes::is_counted_on(replica, table.tid)? && !is_anothers(replica, table) {
            let says = groups::Says { def: &table.def, bits: SchemaBits::LEFT, names: &[] };
            let options = SealOptions { says: Some(&says), ..SealOptions::default() };
            report.also_made(&groups::seal_groups(replica, options)?);
        }
    }
    meta::forget(&replica.db, OWED)?;
    Ok(report)
}

fn is_to_be_said(table: &Table) -> bool {
    table.state == State::Untracked && table.def.mode == Mode::Shared
}

/// Returns whether what this device announced under a table's name is another table of it, which it has.
fn is_anothers(replica: &Replica, table: &Table) -> bool {
    let mut others = catalog::namesakes(replica, table).into_iter();
    others.any(|other| matches!(other.state, State::Tracked | State::Suspended))
}
