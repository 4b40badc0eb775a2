//! What a peer takes, and what of it it lacks.

use packmule_core::model::{DeviceId, Stream};

use crate::engine::{Positions, Span, Trusted};

/// Returns whether a peer takes a stream: a per-device stream only if it gathers, and its own.
pub(super) fn takes(peer: &Trusted, author: DeviceId, stream: Stream) -> bool {
    stream == Stream::Shared || peer.takes_own || author == peer.id
}

/// Counts the streams that a peer does not take as streams that it has.
pub(super) fn leave_out_not_taken(
    peer: &Trusted,
    streams: impl Iterator<Item = (DeviceId, Stream)>,
    have: &mut Positions,
) {
    have.extend(streams.filter(|(author, stream)| !takes(peer, *author, *stream)).map(|of| (of, u64::MAX)));
}

/// Returns whether a peer, or anybody, lacks something of the log.
pub(in crate::carry) fn lacks(log: &[Span], have: &Positions, peer: Option<&Trusted>) -> bool {
    log.iter()
        .filter(|s| peer.is_none_or(|peer| takes(peer, s.author, s.stream)))
        .any(|s| have.get(&(s.author, s.stream)).is_none_or(|have| *have < s.last))
}
