//! Up to where a device's own log is the same as another history of it (`twin.rs`).
//!
//! **Invariant.** The common prefix ([`common_prefix`]) is never above the true one. It takes only what somebody
//! was seen to have alike or what is folded (which everybody had), bounded by every contradiction, and then what
//! this device had sealed before that, in both streams, since a device seals one group after the other; what was
//! taken back from others it did not seal, and says nothing of the other stream, but of the other part of the same
//! seal. A prefix that is too high would leave frames under an identity that has others there, and they would be
//! lost; one that is too low would write the same frames twice.

use packmule_core::model::Stream;

use crate::engine::error::Result;
use crate::engine::fleet::membership;
use crate::engine::fleet::peers::{self, PeerEvidence};
use crate::engine::table::replica::Replica;

/// Computes up to where our own streams are certainly not a second history, by stream: what somebody was seen to have
/// the same of, with `acknowledged` also earlier, and what is folded, which everybody had; and whatever was
/// sealed before that.
pub(crate) fn common_prefix(
    replica: &Replica,
    same: [u64; 2],
    bound: [u64; 2],
    acknowledged: bool,
) -> Result<[u64; 2]> {
    let mut common_prefix = [0; 2];
    // SQLite's integers are signed.
    let limit = |seq: u64| seq.min(i64::MAX as u64);
    // What was sealed after the divergence point is not common, in whichever stream.
    let parted: Option<u64> = replica.db.query_row(
        "SELECT min(lamport) FROM _pm_group WHERE dev = ?1 AND applied
           AND ((stream = ?4 AND last > ?2) OR (stream = ?5 AND last > ?3))",
        (replica.me, limit(bound[0]), limit(bound[1]), Stream::Shared.number(), Stream::PerDevice.number()),
        |row| row.get(0),
    )?;
    let mut bound = bound;
    // What was taken back from others was not sealed by this database: of its other stream that says nothing.
    let back = [peers::taken_back(replica, Stream::Shared)?, peers::taken_back(replica, Stream::PerDevice)?];
    for stream in Stream::ALL {
        let at = PeerEvidence::at(stream);
        let first: Option<u64> = replica.db.query_row(
            "SELECT min(first) FROM _pm_group WHERE dev = ?1 AND stream = ?2 AND applied AND lamport >= ?3
               AND NOT (first >= ?4 AND last <= ?5)",
            (replica.me, stream.number(), parted, limit(back[at].0), limit(back[at].1)),
            |row| row.get(0),
        )?;
        bound[at] = first.map_or(bound[at], |first| bound[at].min(first - 1));
    }
    for stream in Stream::ALL {
        let at = PeerEvidence::at(stream);
        let acked = if acknowledged { peers::common_acked(replica, stream)? } else { 0 };
        common_prefix[at] =
            acked.max(same[at]).min(bound[at]).max(membership::watermark(replica, replica.me, stream)?);
    }
    let sealed: Option<u64> = replica.db.query_row(
        "SELECT max(lamport) FROM _pm_group WHERE dev = ?1 AND applied
           AND ((stream = ?4 AND last <= ?2 AND NOT (first >= ?6 AND last <= ?7))
             OR (stream = ?5 AND last <= ?3 AND NOT (first >= ?8 AND last <= ?9)))",
        (
            replica.me,
            limit(common_prefix[0]),
            limit(common_prefix[1]),
            Stream::Shared.number(),
            Stream::PerDevice.number(),
            limit(back[0].0),
            limit(back[0].1),
            limit(back[1].0),
            limit(back[1].1),
        ),
        |row| row.get(0),
    )?;
    for stream in Stream::ALL {
        let at = PeerEvidence::at(stream);
        let before: Option<u64> = replica.db.query_row(
            "SELECT max(last) FROM _pm_group WHERE dev = ?1 AND stream = ?2 AND applied AND lamport <= ?3",
            (replica.me, stream.number(), sealed),
            |row| row.get(0),
        )?;
        common_prefix[at] = common_prefix[at].max(before.unwrap_or(0).min(bound[at]));
    }
    with_other_parts(replica, common_prefix, bound)
}

/// Raises a common prefix of our own streams: whoever has one part of a seal has the other one too, whoever sealed it.
fn with_other_parts(replica: &Replica, mut common_prefix: [u64; 2], bound: [u64; 2]) -> Result<[u64; 2]> {
    let parts = "SELECT max(o.last) FROM _pm_group g JOIN _pm_group o
                   ON o.dev = g.dev AND o.stream <> g.stream AND o.first = g.pair AND o.pair = g.first
                 WHERE g.dev = ?1 AND g.stream = ?2 AND g.last <= ?3 AND g.applied AND o.applied";
    for stream in Stream::ALL {
        let (at, other) = (PeerEvidence::at(stream), PeerEvidence::at(stream.other()));
        let of = (replica.me, stream.number(), common_prefix[at].min(i64::MAX as u64));
        let part: Option<u64> = replica.db.prepare_cached(parts)?.query_row(of, |row| row.get(0))?;
        common_prefix[other] = common_prefix[other].max(part.unwrap_or(0).min(bound[other]));
    }
    Ok(common_prefix)
}
