//! Peer evidence about our own log, and what follows from it.

use packmule_core::model::Stream;

use crate::engine::error::Result;
use crate::engine::exchange::common_prefix::common_prefix;
use crate::engine::exchange::verified::Verified;
use crate::engine::exchange::{rekey, transaction, twin, unsay};
use crate::engine::fleet::peers::{self, PeerEvidence};
use crate::engine::fleet::{devices, positions};
use crate::engine::table::replica::Replica;

/// Reconciles this device's own log with the evidence of its peers: records that it was rolled back and recovers its
/// frames from them, or takes a new identity. Returns whether it took one.
///
/// # Errors
/// Those of taking a new identity: [`Error::KeyMissing`], [`Error::Io`].
pub(crate) fn reconcile_own_log(replica: &mut Replica, evidence: &PeerEvidence) -> Result<bool> {
    let mut positions = [0; 2];
    for stream in Stream::ALL {
        positions[PeerEvidence::at(stream)] = positions::position(replica, replica.me, stream)?.seq;
    }
    let more = evidence.more.iter().zip(positions).any(|(more, position)| *more > position);
    if !more && !evidence.is_other_shown {
        return Ok(false); // What others only say of our log proves nothing.
    }
    let bound = evidence.diverges_by.map(|apart| apart.unwrap_or(u64::MAX));
    // What a vector shows counts more than earlier acknowledgements: their sender can have the second history.
    let shown = evidence.is_divergent() && evidence.same != [0; 2];
    let mut same = evidence.same;
    for (same, exactly) in same.iter_mut().zip(evidence.diverges_at) {
        *same = exactly.map_or(0, |at| at.seq).max(*same);
    }
    let mut common = common_prefix(replica, same, bound, !shown)?;
    let (mut unknown, mut confirmed, mut bounds) = (false, false, bound);
    for stream in Stream::ALL {
        let at = PeerEvidence::at(stream);
        common[at] = evidence.diverges_at[at].map_or(common[at], |exactly| exactly.seq);
        // Others have more, a state of which would hide whether this device's last frames are among it.
        if evidence.by_state[at] && evidence.more[at] > positions[at] && common[at] < positions[at] {
            unknown = true;
            bounds[at] = common[at];
        }
        confirmed |= peers::is_confirmed(replica, replica.me, stream, common[at])?;
    }
    // A base has this history: who has the other one gives it up, or is it. Also what this device only said stays then:
    // taken back here, it would be another history at the base.
    if evidence.is_divergent() && !evidence.by_base && confirmed {
        let seq = evidence.diverges_after().unwrap_or(0);
        transaction::record(replica, |e| twin::record_twin(e, &devices::device_label(e, e.me)?, seq))?;
        return Ok(false);
    }
    // What others have may still come frame by frame, which shows it.
    let mut evidence = *evidence;
    if evidence.is_divergent() || unknown {
        if !unsay::take_back(replica, common, bounds, evidence.from_other)? {
            rekey::rekey(replica, common, evidence.diverges_at, evidence.from_other)?;
            return Ok(true);
        }
        // What others have in its place comes in again.
        for (more, other) in evidence.more.iter_mut().zip(evidence.others_have) {
            *more = other.max(*more);
        }
    }
    // A transaction that seals could take a new identity first, of which none of this is said.
    transaction::record(replica, |e| peers::record_evidence(e, &evidence))?;
    Ok(false)
}

/// Takes nothing of another history of this device's own streams that a bundle has, where this device goes on with what it has;
/// nor a state that stands for it, which would put the one in the place of the other.
pub(crate) fn leave_other_history(replica: &Replica, verified: &mut Verified) -> Result<()> {
    let evidence = &verified.evidence;
    for stream in Stream::ALL {
        let ours = positions::position(replica, replica.me, stream)?.seq;
        let parts = evidence.diverges_by[PeerEvidence::at(stream)];
        if evidence.is_other_shown && parts.is_some_and(|before| before < ours) {
            verified.loose.insert((replica.identity.id, stream), u64::MAX);
            verified.leaves_state |= stream == Stream::Shared;
        }
    }
    Ok(())
}

/// Records what the sender of a bundle has, if that is all that this device takes from it: it waits to know where its
/// history ends. Returns whether it does.
pub(crate) fn only_hears(replica: &mut Replica, verified: &Verified) -> Result<bool> {
    let waits = rekey::waits_here(replica)?;
    if waits && let Some(sender) = verified.sender {
        transaction::record(replica, |e| verified.record_acknowledged(e, sender))?;
    }
    Ok(waits)
}
