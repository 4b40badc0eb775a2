//! How many tables, and how many definitions of one, are taken in from one device.
//!
//! **Why.** Who looks at a table looks at all definitions that it ever had, and each table that is made here for others is in the
//! schema that SQLite reads whenever the database is opened. Whoever has one device's key can sign any number of both. So
//! they are counted by who brought them here first: what is too much is the fault of that one alone. A table beyond
//! [`MADE_MAX`] is known and not made: its rows wait, by name, for somebody who wants it.

use crate::engine::error::{Error, Result};
use crate::engine::store::meta;
use crate::engine::table::def::TableDef;
use crate::engine::table::replica::Replica;

/// So many tables are made here by themselves for one device.
const MADE_MAX: u64 = 1_000;

/// So many tables are known by one device.
const TABLES_MAX: u64 = 4_096;

/// So many of them have one name, with different primary keys.
const KEYS_MAX: u64 = 32;

/// So many definitions one device has had of a table of a name, with so many columns in all.
const DEFINITIONS_MAX: u64 = 1_000;
const COLUMNS_MAX: u64 = 65_536;

/// Why a table that others have was not made here.
pub(crate) const NOT_MADE: &str =
    "the device that has it has more tables than are made here by themselves: make it, then track it";

/// Who says something of tables.
#[derive(Clone, Copy)]
pub(crate) struct Teller {
    /// Its number.
    pub dev: i64,
    /// How much it may say: a state has what its maker has heard of several.
    pub times: u64,
}

impl Teller {
    /// Returns who says it in frames of its own.
    pub(crate) fn of_frames(dev: i64) -> Self {
        Self { dev, times: 1 }
    }

    /// Returns who says it in a state.
    pub(crate) fn of_state(dev: i64) -> Self {
        Self { dev, times: 4 }
    }
}

/// Counts a definition that was not here before, of a table that is `new`, or has a name that another one has with another key.
///
/// # Errors
/// If it is more than what is taken from who says it.
pub(crate) fn count(replica: &Replica, by: Teller, def: &TableDef, new: bool, same_name: bool) -> Result<()> {
    if by.dev == replica.me {
        return Ok(());
    }
    if new {
        let tables = format!("tables {} {}", by.dev, by.times);
        let n = meta::get::<u64>(&replica.db, &tables)?.unwrap_or(0) + 1;
        refuse_beyond(n, TABLES_MAX * by.times, "tables of one device")?;
        meta::set(&replica.db, &tables, n)?;
    }
    let of_name = format!("definitions {} {} {}", by.dev, by.times, def.name.to_ascii_lowercase());
    let said: String = meta::get(&replica.db, &of_name)?.unwrap_or_default();
    let mut numbers = said.split(' ').map(|number| number.parse::<u64>().unwrap_or(0));
    let mut next = |more: u64| numbers.next().unwrap_or(0).saturating_add(more);
    let (definitions, columns) = (next(1), next(def.columns.len() as u64));
    let keys = next(u64::from(new && same_name));
    refuse_beyond(definitions, DEFINITIONS_MAX * by.times, "definitions of one table by one device")?;
    refuse_beyond(columns, COLUMNS_MAX * by.times, "columns in the definitions of one table by one device")?;
    refuse_beyond(keys, KEYS_MAX * by.times, "primary keys of tables of one name by one device")?;
    meta::set(&replica.db, &of_name, format!("{definitions} {columns} {keys}"))
}

fn refuse_beyond(n: u64, most: u64, of: &str) -> Result<()> {
    if n > most { Err(Error::damaged(format!("more than {most} {of}"))) } else { Ok(()) }
}

/// Counts a table that is made here for others. Returns whether it may be made.
pub(crate) fn may_make(replica: &Replica, by: Teller) -> Result<bool> {
    let made = format!("made by {} {}", by.dev, by.times);
    let n = meta::get::<u64>(&replica.db, &made)?.unwrap_or(0);
    if by.dev != replica.me && n >= MADE_MAX * by.times.min(2) {
        return Ok(false);
    }
    meta::set(&replica.db, &made, n.saturating_add(1))?;
    Ok(true)
}
