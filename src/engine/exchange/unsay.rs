//! What a copy of this device's card only said, taken back.
//!
//! A second history takes a new identity so that nothing of what it wrote is lost. Groups that write nothing (somebody
//! compacted a copy that is carried about: it said what it had seen; or it was retired, and said that it is back) are no
//! reason for one: they are dropped, and what the device has written elsewhere comes in again from its peers, as after a
//! backup was restored. Whoever built on them keeps the device from dropping them.

use std::collections::BTreeMap;

use packmule_core::model::Stream;
use packmule_core::wire::{Block, Chain, Named};

use crate::engine::error::Result;
use crate::engine::exchange::{cut, rekey, transaction, twin};
use crate::engine::fleet::positions::{self, StreamPosition};
use crate::engine::fleet::{membership, peers, statements};
use crate::engine::log::{frames, tags};
use crate::engine::store::value;
use crate::engine::table::replica::Replica;

/// Drops what this device's log has after the common prefix, if nothing of that writes anything and nobody has built on
/// it. Returns whether nothing is left of it.
pub(super) fn take_back(replica: &mut Replica, common: [u64; 2]) -> Result<bool> {
    transaction::record(replica, |e| {
        let common = rekey::whole_seals(e, common)?;
        let (mut chains, mut returns) = ([None; 2], false);
        for stream in Stream::ALL {
            let at = usize::from(stream.number());
            chains[at] = match common[at] {
                0 => None,
                seq => twin::chain_at(e, e.me, stream, seq)?,
            };
            let known = chains[at].is_some() || common[at] == 0;
            let Some(back) = says_only(e, stream, common[at])?.filter(|_| known) else { return Ok(false) };
            returns |= back;
        }
        if is_built_on(e, common[0])? {
            return Ok(false);
        }
        let contexts = cut::contexts_at(e, e.me, common)?;
        for stream in Stream::ALL {
            let at = usize::from(stream.number());
            drop_after(e, stream, common[at], chains[at], &contexts[at])?;
        }
        if returns {
            membership::owe_return(e)?;
        }
        statements::forget_all(e)?;
        Ok(true)
    })
}

/// Returns whether the groups of a stream after a frame say that this device is back; `None` if they write anything, or say
/// anything of another device.
fn says_only(replica: &Replica, stream: Stream, after: u64) -> Result<Option<bool>> {
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

/// Returns whether another device had seen a shared frame of this one after this.
fn is_built_on(replica: &Replica, after: u64) -> Result<bool> {
    let sql = "SELECT 1 FROM _pm_context WHERE other = ?1 AND dev <> ?1 AND seq > ?2 LIMIT 1";
    Ok(value::maybe::<i64>(&replica.db, sql, (replica.me, after))?.is_some())
}

/// Drops the frames of a stream after this one, and what is known by them.
fn drop_after(
    replica: &Replica,
    stream: Stream,
    after: u64,
    chain: Option<Chain>,
    context: &BTreeMap<i64, u64>,
) -> Result<()> {
    let (db, me, n) = (&replica.db, replica.me, stream.number());
    for seq in after + 1..=positions::position(replica, me, stream)?.seq {
        let body = frames::frame_here(replica, me, stream, seq)?;
        for (named, _) in frames::parse(&body)?.context() {
            if let Named::Introduced(number, _) = named {
                let forget = "DELETE FROM _pm_number WHERE dev = ?1 AND stream = ?2 AND number = ?3";
                db.prepare_cached(forget)?.execute((me, n, number))?;
            }
        }
    }
    for sql in [
        "DELETE FROM _pm_frame WHERE dev = ?1 AND stream = ?2 AND seq > ?3",
        "DELETE FROM _pm_group WHERE dev = ?1 AND stream = ?2 AND last > ?3",
        "UPDATE _pm_ack SET seq = ?3, tag = NULL WHERE dev = ?1 AND stream = ?2 AND seq > ?3",
    ] {
        db.prepare_cached(sql)?.execute((me, n, after))?;
    }
    tags::forget_after(replica, me, stream, after)?;
    match chain {
        Some(chain) => positions::set_position(replica, me, stream, StreamPosition { seq: after, chain })?,
        None => {
            db.execute("DELETE FROM _pm_stream WHERE dev = ?1 AND stream = ?2", (me, n))?;
        }
    }
    cut::set_contexts(replica, me, stream, context)?;
    peers::forget_common_after(replica, stream, after)
}
