//! What a copy of this device's card only said, taken back.
//!
//! A second history takes a new identity so that nothing of what it wrote is lost. Groups that write nothing are no reason
//! for one: somebody compacted a copy that is carried about, and it said what it had seen; it was retired, and said that it
//! is back; a person added a column on another device, and it said that it has that, too; a base lacked what is folded of
//! its per-device tables, and it reissued the rows. They are dropped, and what the
//! device has written elsewhere comes in again from its peers, as after a backup was restored. Whoever built on them keeps
//! the device from dropping them.

use packmule_core::model::{DeviceId, Stream};
use packmule_core::wire::{DefId, FrameFlags, SchemaBits};

use crate::engine::capture::{adopt, reissue};
use crate::engine::error::Result;
use crate::engine::exchange::{cut, rekey, transaction};
use crate::engine::fleet::peers::{self, GivenUp, PeerEvidence};
use crate::engine::fleet::{membership, positions, revocation, statements};
use crate::engine::log::visit::{self, Part};
use crate::engine::log::{frames, tags};
use crate::engine::store::value;
use crate::engine::table::catalog;
use crate::engine::table::declared::Subject;
use crate::engine::table::replica::Replica;

/// Drops what this device's log has after the common prefix, if nothing of that writes anything and nobody has built on
/// it. Where some of it does, what only says something after that is dropped, if the log can be one with what others have then:
/// it goes no further than `bounds`. Returns whether nothing is left that contradicts them. What `other`, a device, has built on is
/// the other history.
pub(super) fn take_back(
    replica: &mut Replica,
    common: [u64; 2],
    bounds: [u64; 2],
    other: Option<DeviceId>,
) -> Result<bool> {
    transaction::record(replica, |e| {
        let mut to = rekey::whole_seals(e, common)?;
        let mut said = Said::default();
        for stream in Stream::ALL {
            let at = PeerEvidence::at(stream);
            to[at] = says_only_after(e, stream, to[at], &mut said)?;
        }
        if rekey::whole_seals(e, to)? != to || to.iter().zip(bounds).any(|(to, bound)| *to > bound) {
            return Ok(false);
        }
        let mut ends = Vec::new();
        for stream in Stream::ALL {
            let Some(end) = cut::end_at(e, e.me, stream, to[PeerEvidence::at(stream)])? else {
                return Ok(false);
            };
            ends.push(end);
        }
        if cut::built_on_by(e, to[0], other)?.is_some() {
            return Ok(false);
        }
        let contexts = cut::contexts_at(e, e.me, to)?;
        remember(e, to[PeerEvidence::at(Stream::Shared)])?;
        for (stream, (end, context)) in Stream::ALL.into_iter().zip(ends.into_iter().zip(contexts)) {
            cut::cut_stream(e, (e.me, stream), end, &context)?;
            peers::forget_common_after(e, stream, end.seq)?;
        }
        if said.back {
            membership::owe_return(e)?;
        }
        if revocation::any(e)? {
            revocation::owe_word(e)?;
        }
        reissue::forget_after(e, to[PeerEvidence::at(Stream::PerDevice)])?;
        // It may be in what comes in again.
        said.tables.iter().try_for_each(|tid| adopt::announce_again(e, *tid))?;
        catalog::reload_catalog(e)?;
        statements::forget_all(e)?;
        Ok(true)
    })
}

/// Remembers the history after a frame as given up, before those of earlier times: what lies of it on cards does not come in again.
fn remember(replica: &Replica, common: u64) -> Result<()> {
    let mut ends = tags::ends_after(replica, replica.me, Stream::Shared, common)?;
    // What only waits is what others have in its place.
    let here = positions::position(replica, replica.me, Stream::Shared)?.seq;
    ends.retain(|(seq, _)| *seq <= here);
    if ends.is_empty() {
        return Ok(());
    }
    ends.extend(peers::given_up(replica, replica.me)?.map(|before| before.ends).unwrap_or_default());
    peers::record_given_up(replica, replica.me, Some(&GivenUp { common, ends }))
}

/// What groups say that write nothing.
#[derive(Default)]
struct Said {
    /// This device is back.
    back: bool,
    /// What these tables are here.
    tables: Vec<i64>,
}

/// Finds the frame, this one or later, after which the groups of a stream only say something of this device, and what. They do
/// not if they write anything, say anything of another device, decide anything, or are folded, so that nobody knows what they
/// said.
fn says_only_after(replica: &Replica, stream: Stream, after: u64, said: &mut Said) -> Result<u64> {
    let begins = cut::log_begins(replica, replica.me, stream)?;
    let mut from = positions::position(replica, replica.me, stream)?.seq;
    while from > after.max(begins) && says_only(replica, stream, from, said)? {
        from -= 1;
    }
    Ok(from)
}

/// Returns whether a frame only says something of this device, and what.
fn says_only(replica: &Replica, stream: Stream, seq: u64, said: &mut Said) -> Result<bool> {
    let body = frames::frame_here(replica, replica.me, stream, seq)?;
    let frame = frames::parse(&body)?;
    if frame.head.flags.has(FrameFlags::REISSUES) {
        return Ok(true); // What it has was sealed before.
    }
    let (mut only, mut defs) = (true, Vec::new());
    let walked = visit::visit(replica, &frame, |part| {
        match part {
            Part::Return(id) if id == replica.identity.id => said.back = true,
            Part::Definition(def) => defs.push(DefId::of(def)),
            Part::Schema(schema) if SchemaBits::FOLLOWS.and(SchemaBits::SET_BACK).says(schema.bits) => {
                defs.push(DefId::of(schema.def));
            }
            _ => only = false,
        }
        Ok(())
    });
    match walked {
        Err(failed) if failed.is_machines() => return Err(failed),
        Ok(()) if only => {}
        _ => return Ok(false),
    }
    for def in defs {
        let Some(tid) = announced(replica, seq, def)? else { return Ok(false) };
        said.tables.push(tid);
    }
    Ok(true)
}

/// Returns the table of a definition in a frame of this device, if that says nothing but what the table is here: it declares
/// nothing for others, and takes back nothing that anybody has declared.
fn announced(replica: &Replica, seq: u64, def: DefId) -> Result<Option<i64>> {
    let declares = "SELECT 1 FROM _pm_declared WHERE dev = ?1 AND seq = ?2 AND what <> ?3 LIMIT 1";
    if replica.db.prepare_cached(declares)?.exists((replica.me, seq, Subject::Shape))? {
        return Ok(None);
    }
    let table = "SELECT tid FROM _pm_def d WHERE id = ?1 AND NOT EXISTS
                 (SELECT 1 FROM _pm_declared p WHERE p.tid = d.tid AND p.what = ?2 AND p.past)";
    value::maybe(&replica.db, table, (def.0, Subject::Dropped))
}
