//! The state for the peer of a session: a bundle of what it lacks of the shared streams, and of what is gathered here.

use std::io::Write;

use packmule_core::model::Stream;
use packmule_core::session::Frontier;
use packmule_core::wire::{Position, Section};

use crate::engine::error::{Error, Result};
use crate::engine::exchange::export;
use crate::engine::exchange::peer::Peer;
use crate::engine::exchange::session::{self, StreamOut};
use crate::engine::exchange::transaction;
use crate::engine::table::catalog;
use crate::engine::table::replica::Replica;

/// Seals, then writes the state of the shared tables, with the frames in flight, for a peer with this frontier; and what is
/// gathered here that stands for folded frames of per-device streams. All else of these goes as frames. Returns whether
/// there is a state in it.
pub(crate) fn export_state(
    replica: &mut Replica,
    to: &mut dyn Write,
    peer: &Peer,
    frontier: &[Frontier],
) -> Result<bool> {
    replica.signing_key()?;
    // A verdict that is due too.
    transaction::seal(replica)?;
    let part = catalog::reading(replica, |e| {
        let have = |author, stream| {
            let section = Section { author, stream };
            let known = session::frontier_of(frontier, section).map_or(0, |known| known.groups);
            if stream == Stream::Shared {
                return Ok(known);
            }
            let next = session::next_of(e, peer, section, known)?;
            Ok(if matches!(next, StreamOut::Folded) { known } else { u64::MAX })
        };
        export::export_all(e, to, peer.id, &have)
    })?;
    to.write_all(&part.footer).and_then(|()| to.flush()).map_err(Error::Stream)?;
    Ok(part.state)
}

/// Returns whether a peer lacks frames of shared streams that are folded here, also when it has what stands in
/// `vector`.
pub(crate) fn is_behind_with(
    replica: &Replica,
    peer: &Peer,
    frontier: &[Frontier],
    vector: &[Position],
) -> Result<bool> {
    let mut has = frontier.to_vec();
    for Position { author, stream, seq, .. } in vector.iter().copied() {
        let section = Section { author, stream };
        match has.binary_search_by_key(&(author, stream), |f| (f.section.author, f.section.stream)) {
            Ok(at) => has.iter_mut().skip(at).take(1).for_each(|known| known.groups = known.groups.max(seq)),
            Err(at) => has.insert(at, Frontier { section, groups: seq, frames: seq }),
        }
    }
    let next = session::streams_out(replica, peer, &has)?;
    Ok(next.iter().any(|next| matches!(next, StreamOut::Folded)))
}
