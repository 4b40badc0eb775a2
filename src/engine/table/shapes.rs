//! What a table is on other devices, by the definition that each of them announced last.
//!
//! A device whose table Packmule made announces none: it follows. Devices that have the same frames know the same of each
//! other.

use packmule_core::wire::DefId;

use crate::engine::error::{Error, Result};
use crate::engine::store::meta;
use crate::engine::table::def::TableDef;
use crate::engine::table::replica::Replica;

/// Records the definition that a device announced of a table.
pub(crate) fn record_shape(replica: &Replica, tid: i64, dev: i64, id: DefId) -> Result<()> {
    meta::set(&replica.db, &format!("shape {tid} {dev}"), id.0)
}

/// Returns what a table is on each device that announced it and is not retired, this one left out.
pub(crate) fn shapes(replica: &Replica, tid: i64) -> Result<Vec<(i64, TableDef)>> {
    let mut statement = replica.db.prepare_cached(
        "SELECT d.n, f.body FROM _pm_device d JOIN _pm_meta m ON m.k = 'shape ' || ?1 || ' ' || d.n
         JOIN _pm_def f ON f.id = m.v WHERE d.n <> ?2 AND NOT d.retired AND d.trust <> 3 ORDER BY d.n",
    )?;
    let found = statement
        .query_map((tid, replica.me), |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<Vec<(i64, Vec<u8>)>>>()?;
    let decode = |(dev, body): (i64, Vec<u8>)| {
        let def = TableDef::decode(&body).map_err(|e| Error::damaged(format!("`_pm_def`: {e}")))?;
        Ok((dev, def))
    };
    found.into_iter().map(decode).collect()
}
