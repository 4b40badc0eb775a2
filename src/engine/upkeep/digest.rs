//! The digest: one line that is the same on two databases exactly when their synced content is.

use std::collections::BTreeSet;

use packmule_core::model::Hex;
use packmule_core::wire::Mode;
use sha2::{Digest, Sha256};

use crate::engine::capture::not_sent;
use crate::engine::conflicts::walk;
use crate::engine::error::Result;
use crate::engine::table::catalog;
use crate::engine::table::def::DEVICE_COLUMN;
use crate::engine::table::known::{State, Table};
use crate::engine::table::replica::Replica;
use crate::engine::table::row_hash::RowHash;
use crate::engine::table::shapes;

/// Computes the digest of the shared tables' content and of the open conflicts: 64 hexadecimal digits.
///
/// Rows that cannot travel for their key are left out: [`NotSent`](crate::NotSent).
///
/// With `gathered`, the per-device rows that a base gathers count too: for comparing two bases.
pub(crate) fn digest(replica: &Replica, gathered: bool) -> Result<String> {
    catalog::reading(replica, |e| {
        let mut tables: Vec<_> = catalog::tables(e)
            .into_iter()
            .filter(|t| t.shows_shared() || (gathered && t.state == State::Gathered))
            .collect();
        let mut at_odds = BTreeSet::new();
        for table in catalog::tables(e) {
            if table.def.mode == Mode::Shared && shapes::is_at_odds(e, table.tid)? {
                at_odds.insert(table.def.name.to_ascii_lowercase());
            }
        }
        tables.retain(|table| !at_odds.contains(&table.def.name.to_ascii_lowercase()));
        tables.sort_by_key(|t| name_in_log(e, t));
        let mut hash = Sha256::new();
        hash.update(b"packmule/1 digest");
        for table in &tables {
            hash_table(e, table, &mut hash)?;
        }
        walk::each(e, &mut |open| {
            if !open.about_lacking && !at_odds.contains(&open.conflict.table.to_ascii_lowercase()) {
                hash.update(open.conflict.id.as_bytes());
            }
            Ok(())
        })?;
        Ok(Hex(&hash.finalize()).to_string())
    })
}

/// Returns the name that a table has in the log, in small letters.
fn name_in_log(replica: &Replica, table: &Table) -> String {
    let of = table.gathers.and_then(|tid| catalog::table(replica, tid).ok());
    of.as_deref().unwrap_or(table).def.name.to_ascii_lowercase()
}

/// Hashes a table: its name, its columns and its rows.
fn hash_table(replica: &Replica, table: &Table, hash: &mut Sha256) -> Result<()> {
    // Columns in the order of their names: devices may have added them in different orders.
    // The values of a disputed column are each device's own.
    // A column that some device still lacks counts nowhere.
    let lacking = shapes::lacking_columns(replica, table)?;
    let counts = |at: usize| !table.disputed.contains(at) && !lacking.contains(at);
    let here = table.def.columns.iter().enumerate().filter(|(at, _)| counts(*at));
    let mut names: Vec<String> = here.map(|(_, c)| c.name.to_ascii_lowercase()).collect();
    names.sort();
    if table.state == State::Gathered {
        names.insert(0, DEVICE_COLUMN.into());
    }
    let mut add = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    add(name_in_log(replica, table).as_bytes());
    names.iter().for_each(|name| add(name.as_bytes()));
    let columns: Vec<(String, Option<usize>)> =
        names.into_iter().map(|name| (table.def.column(&name), name)).map(|(at, name)| (name, at)).collect();
    let n = columns.len();
    let mut rows_hash = RowHash::new(replica, table, columns);
    let mut order = table.def.key_list("");
    if table.def.mode == Mode::PerDevice {
        order = format!("{}, {order}", DEVICE_COLUMN);
    }
    // What cannot travel for its key is of this device alone.
    let only = Some(table).filter(|table| table.def.mode == Mode::Shared).and_then(not_sent::keyed);
    let only = only.map_or_else(String::new, |only| format!("WHERE {only}"));
    let sql = format!("SELECT {} FROM {} {only} ORDER BY {order}", rows_hash.sql(), table.sql_name);
    let mut statement = replica.db.prepare(&sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        rows_hash.add_row(row, n, hash)?;
    }
    Ok(())
}
