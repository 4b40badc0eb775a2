//! Fleet keys that follow one another. A statement that both keys have signed joins them: what either has signed is of
//! one and the same fleet. Statements go with everything that is sent.
//!
//! In `_pm_meta`: `succession KEY` is the statement about the fleet key with that public key.

use packmule_core::model::Hex;
use packmule_core::wire::Certificate;
use rusqlite::Connection;

use crate::engine::error::{Error, Result};
use crate::engine::store::keys::FleetKey;
use crate::engine::store::{meta, value};

/// How many statements are kept.
const STATEMENTS_MAX: usize = 32;

/// Lists the statements that are known.
pub(crate) fn statements(db: &Connection) -> Result<Vec<Vec<u8>>> {
    let mut statement =
        db.prepare_cached("SELECT v FROM _pm_meta WHERE k GLOB 'succession ?*' ORDER BY k")?;
    let rows = statement.query_map([], |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Returns the public keys of a fleet: this one, and those that statements join with it.
pub(crate) fn keys_of(db: &Connection, fleet: [u8; 32]) -> Result<Vec<[u8; 32]>> {
    let statements = statements(db)?;
    let joined = statements.iter().filter_map(|bytes| joins(&Certificate::decode(bytes).ok()?));
    let joined: Vec<_> = joined.collect();
    let mut keys = vec![fleet];
    let mut at = 0;
    while let Some(key) = keys.get(at).copied() {
        at += 1;
        for (old, new) in &joined {
            let other = if *old == key { *new } else { *old };
            if (*old == key || *new == key) && !keys.contains(&other) {
                keys.push(other);
            }
        }
    }
    Ok(keys)
}

/// Returns whether a key is our fleet's, or one that is joined with it.
pub(crate) fn is_of_fleet(db: &Connection, key: [u8; 32], ours: [u8; 32]) -> Result<bool> {
    Ok(key == ours || keys_of(db, ours)?.contains(&key))
}

/// Returns the key that is followed and the one that follows it.
pub(crate) fn joins(statement: &Certificate<'_>) -> Option<([u8; 32], [u8; 32])> {
    let old = statement.fleet.filter(|_| statement.is_fleet_key())?;
    Some((old.fleet, statement.public_key))
}

/// Keeps a statement that joins a key with our fleet, and follows it. Returns whether it was new. `wall` is now.
pub(crate) fn keep(db: &Connection, statement: &Certificate<'_>, bytes: &[u8], wall: i64) -> Result<bool> {
    let Some((old, new)) = joins(statement) else { return Ok(false) };
    let Some(ours) = meta::get::<[u8; 32]>(db, "fleet")? else { return Ok(false) };
    let key = format!("succession {}", Hex(&new));
    let known: Option<i64> = value::maybe(db, "SELECT 1 FROM _pm_meta WHERE k = ?1", [&key])?;
    let keys = keys_of(db, ours)?;
    let of_ours = keys.contains(&old) || keys.contains(&new);
    if known.is_some() || !of_ours || statements(db)?.len() >= STATEMENTS_MAX {
        return Ok(false);
    }
    meta::set(db, &key, bytes)?;
    if old == ours {
        meta::set(db, "fleet", new)?;
        let what = format!("the fleet has another key: {}… follows {}…", Hex(&new[..8]), Hex(&old[..8]));
        meta::notice(db, &what, wall)?;
    }
    Ok(true)
}

/// Keeps the statements of a fleet key, for a device that it has just signed.
pub(crate) fn keep_all(db: &Connection, fleet: &FleetKey) -> Result<()> {
    for bytes in fleet.1.iter().rev() {
        let statement =
            Certificate::decode(bytes).map_err(|e| Error::damaged(format!("the fleet key: {e}")))?;
        keep(db, &statement, bytes, 0)?;
    }
    Ok(())
}
