//! Peers that have another history of this device's shared stream than is here.
//!
//! **Invariant.** What such a peer has seen of this device counts as seen only up to where both histories can be one: by
//! numbers beyond that it means frames that are not here. Its groups that name such wait, as for any frames that are missing,
//! until this device has the other history, or goes on under another identity, to whom that is another device's. Else what
//! the peer wrote would remove what this device wrote in frames of the same numbers, which nobody has seen.
//!
//! It is the peer's own word, and holds up nothing but its own groups.

use packmule_core::model::DeviceId;

use crate::engine::error::Result;
use crate::engine::fleet::peers::PeerEvidence;
use crate::engine::store::{meta, value};
use crate::engine::table::replica::Replica;

impl PeerEvidence {
    /// Returns who sent it, if that one has another history of this device's shared stream.
    pub(crate) fn from_other(&self) -> Option<DeviceId> {
        self.sender.filter(|_| self.is_sender_apart)
    }
}

/// The name under which `_pm_meta` has the last frame of this device's shared stream that a peer's history of it can have, too.
fn name(peer: i64) -> String {
    format!("apart {peer}")
}

/// Returns up to which frame what a device has seen of this one counts; `None` if nothing limits it.
pub(crate) fn up_to(replica: &Replica, peer: i64) -> Result<Option<u64>> {
    meta::get(&replica.db, &name(peer))
}

/// Forgets all peers: this device has the other history, or has left the identity.
pub(crate) fn forget_all(replica: &Replica) -> Result<()> {
    replica.db.execute("DELETE FROM _pm_meta WHERE k > 'apart ' AND k < 'apart :'", [])?;
    Ok(())
}

/// Returns whether anything limits it of any device.
pub(crate) fn any(replica: &Replica) -> Result<bool> {
    let sql = "SELECT 1 FROM _pm_meta WHERE k > 'apart ' AND k < 'apart :' LIMIT 1";
    Ok(value::maybe::<i64>(&replica.db, sql, [])?.is_some())
}

/// Notes up to which frame what a device has seen of this one counts.
pub(crate) fn note(replica: &Replica, peer: i64, up_to: Option<u64>) -> Result<()> {
    match up_to {
        Some(up_to) => meta::set(&replica.db, &name(peer), up_to),
        None => meta::forget(&replica.db, &name(peer)),
    }
}
