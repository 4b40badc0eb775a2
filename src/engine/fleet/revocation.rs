//! Revocations: which devices are revoked, and who says so.
//!
//! A fleet's key says it in a signed statement that travels with everything ([`Revocation`]); a person here says it for
//! this database alone. Either covers the devices whose certificates the revoked one issued, and so on.
//!
//! What of a revoked author is still taken in, and why: `apply/vouched.rs`.

use std::collections::BTreeMap;

use packmule_core::model::{DeviceId, Stream};
use packmule_core::wire::{Certificate, REVOCATION_MAX, Revocation};

use crate::engine::error::{self, Error, Result};
use crate::engine::fleet::devices::{self, SaidBy, Trust};
use crate::engine::fleet::succession;
use crate::engine::store::keys::FleetKey;
use crate::engine::store::{meta, value};
use crate::engine::table::replica::Replica;

/// Returns whether anything was ever said about a device.
pub(crate) fn any(replica: &Replica) -> Result<bool> {
    Ok(value::maybe::<i64>(&replica.db, "SELECT 1 FROM _pm_revocation LIMIT 1", [])?.is_some())
}

/// Under this name `_pm_meta` has whether this device still has to say what it has of revoked devices.
const WORD_OWED: &str = "word owed";

/// Records that this device has to say what it has of revoked devices, with its next group in the shared stream or one of its own:
/// others take in what it says that it has. Who has lost a part of its log says so once it has that again.
pub(crate) fn owe_word(replica: &Replica) -> Result<()> {
    meta::set(&replica.db, WORD_OWED, true)
}

/// Returns whether it still has to.
pub(crate) fn owes_word(replica: &Replica) -> Result<bool> {
    Ok(meta::get(&replica.db, WORD_OWED)?.unwrap_or(false))
}

/// Records that it has.
pub(crate) fn give_word(replica: &Replica) -> Result<()> {
    meta::forget(&replica.db, WORD_OWED)
}

/// Returns whether a device is revoked. This device never is to itself.
pub(crate) fn is_revoked(replica: &Replica, dev: i64) -> Result<bool> {
    let sql = "SELECT 1 FROM _pm_device WHERE n = ?1 AND trust = ?2";
    Ok(value::maybe::<i64>(&replica.db, sql, (dev, Trust::Revoked))?.is_some())
}

/// Returns whether the device with this id is revoked.
pub(crate) fn is_revoked_id(replica: &Replica, id: DeviceId) -> Result<bool> {
    devices::device_number(replica, id)?.map_or(Ok(false), |dev| is_revoked(replica, dev))
}

/// Reads the statements of the fleet's key, in the order of devices.
pub(crate) fn statements(replica: &Replica) -> Result<Vec<Vec<u8>>> {
    let mut statement = replica.db.prepare_cached(
        "SELECT statement FROM _pm_revocation JOIN _pm_device ON n = dev WHERE statement IS NOT NULL ORDER BY id",
    )?;
    let mut all = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<Vec<u8>>>>()?;
    let mut retirements =
        replica.db.prepare_cached("SELECT v FROM _pm_meta WHERE k GLOB ?1 || '*' ORDER BY k")?;
    let retirements = retirements.query_map([RETIREMENT], |row| row.get(0))?;
    all.extend(retirements.collect::<rusqlite::Result<Vec<Vec<u8>>>>()?);
    Ok(all)
}

/// Under these names, with the device's id, `_pm_meta` has what the fleet's key says of retirements.
const RETIREMENT: &str = "retirement ";

/// Reads what the fleet's key says of the retirement of a device.
pub(crate) fn retirement_of(replica: &Replica, id: DeviceId) -> Result<Option<Revocation>> {
    let found: Option<Vec<u8>> = meta::get(&replica.db, &format!("{RETIREMENT}{id}"))?;
    found.map(|bytes| Revocation::decode(&bytes).map_err(error::bad)).transpose()
}

/// Reads what the fleet's key says of a device.
fn statement_about(replica: &Replica, dev: i64) -> Result<Option<Revocation>> {
    let found: Option<Vec<u8>> =
        value::maybe(&replica.db, "SELECT statement FROM _pm_revocation WHERE dev = ?1", [dev])?.flatten();
    found.map(|bytes| Revocation::decode(&bytes).map_err(error::bad)).transpose()
}

/// Returns whether a statement is of our fleet and newer than what is here.
pub(crate) fn is_news(replica: &Replica, statement: &Revocation) -> Result<bool> {
    // What a key said that another one follows by now, still holds.
    let Some(ours) = replica.identity.fleet else { return Ok(false) };
    if !succession::is_of_fleet(&replica.db, statement.fleet, ours)? {
        return Ok(false);
    }
    if statement.retirement {
        let known = retirement_of(replica, statement.device)?;
        return Ok(known.is_none_or(|known| statement.supersedes(&known)));
    }
    let Some(dev) = devices::device_number(replica, statement.device)? else { return Ok(true) };
    Ok(statement_about(replica, dev)?.is_none_or(|known| statement.supersedes(&known)))
}

/// Stores a statement, if it is of our fleet and newer than what is here. Returns whether it was stored.
pub(crate) fn hear(replica: &Replica, statement: &Revocation) -> Result<bool> {
    if !is_news(replica, statement)? {
        return Ok(false);
    }
    let dev = devices::device_number_or_new(replica, statement.device)?;
    let mut buf = [0; REVOCATION_MAX];
    let len = statement.encode(&mut buf).map_err(|_| Error::damaged("a revocation without room"))?;
    if statement.retirement {
        meta::set(&replica.db, &format!("{RETIREMENT}{}", statement.device), buf.get(..len))?;
        return Ok(true);
    }
    replica.db.execute(
        "INSERT INTO _pm_revocation (dev, statement) VALUES (?1, ?2)
         ON CONFLICT (dev) DO UPDATE SET statement = excluded.statement",
        (dev, buf.get(..len)),
    )?;
    Ok(true)
}

/// Makes the fleet's key say that a device is revoked, or no longer so.
///
/// # Errors
/// [`Error::Usage`] if it is another fleet's key.
pub(crate) fn state(replica: &Replica, dev: i64, revoked: bool, key: &FleetKey) -> Result<Revocation> {
    must_be_ours(replica, key)?;
    let before = statement_about(replica, dev)?.map_or(0, |known| known.number + 1);
    let number = before.max(u64::try_from(replica.now()).unwrap_or(0));
    Revocation::sign(&key.0, devices::device_id(replica, dev)?, revoked, number)
        .map_err(|_| Error::damaged("a revocation whose number is too high"))
}

/// Makes the fleet's key say that a device is retired, or no longer so.
///
/// # Errors
/// [`Error::Usage`] if it is another fleet's key.
pub(crate) fn state_retirement(
    replica: &Replica,
    id: DeviceId,
    retired: bool,
    key: &FleetKey,
) -> Result<Revocation> {
    must_be_ours(replica, key)?;
    let before = retirement_of(replica, id)?.map_or(0, |known| known.number + 1);
    let number = before.max(u64::try_from(replica.now()).unwrap_or(0));
    Revocation::sign_retirement(&key.0, id, retired, number)
        .map_err(|_| Error::damaged("a retirement whose number is too high"))
}

/// Refuses the key of another fleet than this database's.
fn must_be_ours(replica: &Replica, key: &FleetKey) -> Result<()> {
    match replica.identity.fleet {
        Some(fleet) if succession::is_of_fleet(&replica.db, key.public_key(), fleet)? => Ok(()),
        Some(fleet) if key.public_keys().contains(&fleet) => Err(Error::Usage(
            "this key follows the one that this database knows as its fleet's: give it the statement first, with `admit`"
                .into(),
        ).into()),
        Some(_) => Err(Error::Usage("this is the key of another fleet than this database's".into()).into()),
        None => {
            Err(Error::Usage("this database belongs to no fleet: a fleet's key says nothing to it".into()).into())
        }
    }
}

/// Records whether a person here says that a device is revoked.
pub(crate) fn say_here(replica: &Replica, dev: i64, revoked: bool) -> Result<()> {
    replica.db.execute(
        "INSERT INTO _pm_revocation (dev, here) VALUES (?1, ?2)
         ON CONFLICT (dev) DO UPDATE SET here = excluded.here",
        (dev, revoked),
    )?;
    Ok(())
}

/// Returns who says that each revoked device is revoked.
pub(crate) fn revoked(replica: &Replica) -> Result<BTreeMap<i64, SaidBy>> {
    let mut said = BTreeMap::new();
    let mut statement = replica.db.prepare_cached("SELECT dev, here, statement FROM _pm_revocation")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (dev, here): (i64, bool) = (row.get(0)?, row.get(1)?);
        let statement: Option<Vec<u8>> = row.get(2)?;
        let by_fleet = match statement {
            Some(bytes) => Revocation::decode(&bytes).map_err(error::bad)?.revoked,
            None => false,
        };
        if by_fleet {
            said.insert(dev, SaidBy::Fleet);
        } else if here {
            said.insert(dev, SaidBy::Here);
        }
    }
    if !said.is_empty() {
        add_issued(replica, &mut said)?;
    }
    Ok(said)
}

/// Adds the devices whose certificates a revoked one issued.
fn add_issued(replica: &Replica, said: &mut BTreeMap<i64, SaidBy>) -> Result<()> {
    let mut keys: BTreeMap<[u8; 32], i64> = BTreeMap::new();
    let mut issued: BTreeMap<[u8; 32], Vec<i64>> = BTreeMap::new();
    let mut statement = replica
        .db
        .prepare_cached("SELECT n, public_key, certificate FROM _pm_device WHERE public_key IS NOT NULL")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let n: i64 = row.get(0)?;
        keys.insert(row.get(1)?, n);
        let certificate: Option<Vec<u8>> = row.get(2)?;
        let issuer = certificate.as_deref().and_then(|c| Certificate::read(c).ok()).and_then(|c| c.fleet);
        if let Some(issuer) = issuer {
            issued.entry(issuer.fleet).or_default().push(n);
        }
    }
    let by_number: BTreeMap<i64, [u8; 32]> = keys.into_iter().map(|(key, n)| (n, key)).collect();
    let mut next: Vec<i64> = said.keys().copied().collect();
    while let Some(issuer) = next.pop() {
        for n in by_number.get(&issuer).and_then(|key| issued.get(key)).into_iter().flatten() {
            if !said.contains_key(n) {
                said.insert(*n, SaidBy::Issuer(devices::device_label(replica, issuer)?));
                next.push(*n);
            }
        }
    }
    Ok(())
}

/// Returns whether a group of an author that ends with this frame is set aside, since its author is revoked.
pub(crate) fn is_void(replica: &Replica, dev: i64, stream: Stream, last: u64) -> Result<bool> {
    if !is_revoked(replica, dev)? {
        return Ok(false);
    }
    Ok(last > vouched(replica, dev, stream)?)
}

/// Returns up to where devices that are not revoked have a stream of a revoked one.
fn vouched(replica: &Replica, dev: i64, stream: Stream) -> Result<u64> {
    let seq: Option<Option<u64>> = match stream {
        Stream::Shared => {
            value::maybe(&replica.db, "SELECT vouched FROM _pm_revocation WHERE dev = ?1", [dev])?
        }
        Stream::PerDevice => value::maybe(
            &replica.db,
            "SELECT max(seq) FROM _pm_ack JOIN _pm_device ON n = peer
             WHERE dev = ?1 AND stream = ?2 AND peer <> dev AND trust IN (?3, ?4)",
            (dev, stream.number(), Trust::Singly, Trust::ByFleet),
        )?,
    };
    Ok(seq.flatten().unwrap_or(0))
}

/// Counts the frames of a device that are set aside here.
pub(crate) fn set_aside(replica: &Replica, dev: i64) -> Result<u64> {
    let mut n = 0;
    let mut pending = replica.db.prepare_cached(
        "SELECT stream, first, last FROM _pm_group INDEXED BY _pm_group_waiting WHERE dev = ?1 AND NOT applied",
    )?;
    let mut rows = pending.query([dev])?;
    while let Some(row) = rows.next()? {
        let (first, last): (u64, u64) = (row.get(1)?, row.get(2)?);
        if is_void(replica, dev, value::stream_of_number(row.get(0)?)?, last)? {
            n += last - first + 1;
        }
    }
    Ok(n)
}

/// Records whether others have another history of a revoked device than is here: its thief signed both.
pub(crate) fn record_forked(replica: &Replica, dev: i64, forked: bool) -> Result<()> {
    replica
        .db
        .prepare_cached("UPDATE _pm_revocation SET forked = ?2 WHERE dev = ?1")?
        .execute((dev, forked))?;
    Ok(())
}

/// Returns whether a device is revoked and others have another history of it than is here. What they had seen of that
/// can never come: nobody waits for it.
pub(crate) fn is_forked(replica: &Replica, dev: i64) -> Result<bool> {
    let forked: Option<bool> =
        value::maybe(&replica.db, "SELECT forked FROM _pm_revocation WHERE dev = ?1", [dev])?;
    Ok(forked.unwrap_or(false) && is_revoked(replica, dev)?)
}
