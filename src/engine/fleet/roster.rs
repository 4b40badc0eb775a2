//! The list of devices, for people.

use packmule_core::model::{DeviceId, Stream};

use crate::engine::error::Result;
use crate::engine::fleet::devices::{DeviceInfo, Trust, TrustedAs};
use crate::engine::fleet::{clocks, membership, peers, revocation};
use crate::engine::table::catalog;
use crate::engine::table::replica::Replica;

/// Returns all known devices, this one first. Of what somebody only names, without a certificate, nothing is known.
pub(crate) fn devices(replica: &Replica) -> Result<Vec<DeviceInfo>> {
    catalog::reading(replica, |e| {
        let clocks = clocks::clocks(e)?;
        let mut revoked = revocation::revoked(e)?;
        let mut statement = e.db.prepare_cached(
            "SELECT n, id, name, base, trust, heard, retired,
                (SELECT seq FROM _pm_stream s WHERE s.dev = d.n AND stream = ?2),
                (SELECT seq FROM _pm_stream s WHERE s.dev = d.n AND stream = ?3),
                (SELECT CAST(min(total(seq), 9e18) AS INTEGER) FROM _pm_ack a WHERE a.peer = d.n AND a.dev = ?1)
             FROM _pm_device d WHERE n > 0 AND (n = ?1 OR public_key IS NOT NULL OR trust <> 0 OR retired)
             ORDER BY n <> ?1, name, id",
        )?;
        let rows =
            statement.query_map((e.me, Stream::Shared.number(), Stream::PerDevice.number()), |row| {
                let n: i64 = row.get(0)?;
                let this = n == e.me;
                let revoked_by = revoked.remove(&n);
                let info = DeviceInfo {
                    id: DeviceId(row.get(1)?),
                    name: row.get(2)?,
                    base: row.get(3)?,
                    this,
                    trust: match row.get(4)? {
                        _ if this => TrustedAs::ThisDevice,
                        Trust::Singly => TrustedAs::Singly,
                        Trust::ByFleet => TrustedAs::ByFleet,
                        Trust::Revoked => TrustedAs::Revoked,
                        Trust::None => TrustedAs::No,
                    },
                    heard: row.get(5)?,
                    retired: row.get(6)?,
                    retired_by: None,
                    revoked: revoked_by.is_some(),
                    revoked_by,
                    set_aside: 0,
                    state_rows: 0,
                    shared: row.get::<_, Option<u64>>(7)?.unwrap_or(0),
                    own: row.get::<_, Option<u64>>(8)?.unwrap_or(0),
                    acknowledged: row.get::<_, Option<u64>>(9)?.unwrap_or(0),
                    clock: if this { clocks.ours } else { clocks.others.get(&n).copied() },
                };
                Ok((n, info))
            })?;
        let mut devices = Vec::new();
        for found in rows.collect::<rusqlite::Result<Vec<_>>>()? {
            let (n, mut info) = found;
            info.retired_by = if info.retired { Some(membership::retired_by(e, n)?) } else { None };
            info.set_aside = if info.revoked { revocation::set_aside(e, n)? } else { 0 };
            info.state_rows = peers::state_rows(e, info.id)?;
            devices.push(info);
        }
        Ok(devices)
    })
}
