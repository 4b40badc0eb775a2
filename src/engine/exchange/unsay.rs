//! What a copy of this device's card only said, taken back.
//!
//! A second history takes a new identity so that nothing of what it wrote is lost. Groups that write nothing (somebody
//! compacted a copy that is carried about: it said what it had seen; or it was retired, and said that it is back) are no
//! reason for one: they are dropped, and what the device has written elsewhere comes in again from its peers, as after a
//! backup was restored. Whoever built on them keeps the device from dropping them.

use packmule_core::model::Stream;
use packmule_core::wire::Block;

use crate::engine::error::Result;
use crate::engine::exchange::{cut, rekey, transaction};
use crate::engine::fleet::peers::{self, PeerEvidence};
use crate::engine::fleet::{membership, positions, statements};
use crate::engine::log::frames;
use crate::engine::table::replica::Replica;

/// Drops what this device's log has after the common prefix, if nothing of that writes anything and nobody has built on
/// it. Returns whether nothing is left of it.
pub(super) fn take_back(replica: &mut Replica, common: [u64; 2]) -> Result<bool> {
    transaction::record(replica, |e| {
        let common = rekey::whole_seals(e, common)?;
        let (mut ends, mut returns) = (Vec::new(), false);
        for stream in Stream::ALL {
            let after = common[PeerEvidence::at(stream)];
            let Some(end) = cut::end_at(e, e.me, stream, after)? else { return Ok(false) };
            let Some(back) = says_only(e, stream, after)? else { return Ok(false) };
            ends.push(end);
            returns |= back;
        }
        if cut::built_on_by(e, common[0])?.is_some() {
            return Ok(false);
        }
        let contexts = cut::contexts_at(e, e.me, common)?;
        for (stream, (end, context)) in Stream::ALL.into_iter().zip(ends.into_iter().zip(contexts)) {
            cut::cut_stream(e, (e.me, stream), end, &context)?;
            peers::forget_common_after(e, stream, end.seq)?;
        }
        if returns {
            membership::owe_return(e)?;
        }
        statements::forget_all(e)?;
        Ok(true)
    })
}

/// Returns whether the groups of a stream after a frame say that this device is back; `None` if they write anything, say
/// anything of another device, or are folded, so that nobody knows what they said.
fn says_only(replica: &Replica, stream: Stream, after: u64) -> Result<Option<bool>> {
    if cut::log_begins(replica, replica.me, stream)? > after {
        return Ok(None);
    }
    let mut back = false;
    for seq in after + 1..=positions::position(replica, replica.me, stream)?.seq {
        let body = frames::frame_here(replica, replica.me, stream, seq)?;
        let mut blocks = frames::parse(&body)?.blocks();
        loop {
            match blocks.next_block() {
                Ok(None) => break,
                Ok(Some(Block::Return(id))) if id == replica.identity.id => back = true,
                _ => return Ok(None),
            }
        }
    }
    Ok(Some(back))
}
