//! The newest checkpoint of a stream with the chain after it, which is kept when its group is folded: shown to the stream's
//! author, it proves that there is more of the author's log, or another history.
//!
//! What others only claim of a device's own log (a version vector, probes, the context of a frame) proves nothing to
//! that device: any device of the fleet can sign such a claim, and who believed it would stop to write, or take a new
//! identity. What the device has signed itself nobody else can make. So who has more of a device's log than the
//! device itself shows it the newest checkpoint. That costs nothing as long as nobody was set back:
//!
//! - a bundle for one device has those of the receiver's streams if the receiver said last that it has less, or if it
//!   was ever heard of with another history: a copy of its card may read it;
//! - every bundle has those of devices that said last that they have less than is here, and of those of which another history
//!   is known, until one of the two has left the identity (`fleet/copies.rs`);
//! - a bundle for anyone, which a device may read that was set back and has said nothing yet, has those of the other
//!   devices too, of [`DEVICES_MAX`] at the most;
//! - a session shows them once the peer's vector has come; and where it ends because a group of the peer is of another
//!   history, which its vector did not show, since that is longer than what is here.

use packmule_core::model::{DeviceId, Stream};
use packmule_core::wire::{Chain, Checkpoint, NEWEST_LEN, Newest, Position, RecordKind};

use crate::engine::error::{self, Error, Result};
use crate::engine::exchange::records::RecordWriter;
use crate::engine::exchange::twin;
use crate::engine::fleet::peers::{self, PeerEvidence};
use crate::engine::fleet::{copies, devices, membership, positions, trust};
use crate::engine::log::frames;
use crate::engine::table::replica::Replica;

/// A bundle for anyone shows the newest checkpoints of so many devices that nobody knows to have been set back: those
/// that were heard of last.
const DEVICES_MAX: usize = 32;

/// Hears the newest checkpoint of a stream. Only one of this device's own streams, with its own signature, says anything.
pub(crate) fn hear(replica: &Replica, shown: &Newest, evidence: &mut PeerEvidence) -> Result<()> {
    let Newest { checkpoint, end } = shown;
    if checkpoint.author != replica.identity.id {
        return Ok(());
    }
    let Some(key) = trust::author_key(replica, checkpoint.author)? else { return Ok(()) };
    if shown.verify(&key).is_ok() {
        let position = positions::position(replica, replica.me, checkpoint.stream)?.seq;
        evidence.see(checkpoint, twin::fit(replica, checkpoint, Some(end), &key)?, position);
    }
    Ok(())
}

/// Writes the newest checkpoints that a bundle shows, of streams of which none of the bundle's own groups shows it:
/// `goes` says which those are.
pub(crate) fn write(
    replica: &Replica,
    out: &mut RecordWriter<'_>,
    receiver: Option<DeviceId>,
    goes: &dyn Fn(i64, Stream) -> bool,
) -> Result<()> {
    let receiver_dev = receiver.map(|id| devices::device_number(replica, id)).transpose()?.flatten();
    let copied = receiver.map_or(Ok(false), |id| peers::was_copied(replica, id))?;
    let told = copies::to_be_told(replica)?;
    let mut statement = replica.db.prepare_cached(
        "SELECT n FROM _pm_device WHERE n > 0 AND n <> ?1 AND public_key IS NOT NULL ORDER BY heard DESC, id",
    )?;
    let mut rows = statement.query([replica.me])?;
    let mut others = 0;
    while let Some(row) = rows.next()? {
        let dev: i64 = row.get(0)?;
        let is_told = told.contains(&dev);
        if !is_told && receiver.is_some() && receiver_dev != Some(dev) {
            continue;
        }
        let to_anyone = receiver.is_none() && !is_told && others < DEVICES_MAX;
        others += usize::from(to_anyone);
        for stream in Stream::ALL {
            if goes(dev, stream) {
                continue;
            }
            let shows = is_told || to_anyone || copied && receiver_dev == Some(dev);
            for end in ends(replica, dev, stream)? {
                // Or the device said last that it has less of its own stream than is here.
                if shows || membership::has(replica, dev, dev, stream)? < end.seq {
                    newest(replica, (dev, stream), end)?
                        .map_or(Ok(()), |it| out.record(RecordKind::Newest, &it))?;
                }
            }
        }
    }
    Ok(())
}

/// Lists the newest checkpoints of the peer's own streams, encoded, of which more is here than it says (`applied`), or
/// another history than it says.
pub(crate) fn for_peer(replica: &Replica, peer: DeviceId, applied: &[Position]) -> Result<Vec<Vec<u8>>> {
    let mut all = Vec::new();
    let Some(dev) = devices::device_number(replica, peer)? else { return Ok(all) };
    for stream in Stream::ALL {
        let has = applied.iter().find(|e| (e.author, e.stream) == (peer, stream)).map_or(0, |e| e.seq);
        for end in ends(replica, dev, stream)? {
            if has < end.seq {
                all.extend(newest(replica, (dev, stream), end)?);
            }
        }
    }
    Ok(all)
}

/// Up to where a stream is here.
struct End {
    seq: u64,
    chain: Chain,
    /// The checkpoint of what waits, encoded, if it is that.
    waiting: Option<Vec<u8>>,
}

/// Finds up to where a stream is applied, and up to where it waits here: that can be of another history, which keeps it waiting.
fn ends(replica: &Replica, dev: i64, stream: Stream) -> Result<impl Iterator<Item = End>> {
    let applied = positions::position(replica, dev, stream)?;
    let waiting = frames::last_waiting(&replica.db, dev, stream)?.filter(|(last, ..)| *last > applied.seq);
    let waiting = waiting.map(|(seq, bytes, chain)| End { seq, chain, waiting: Some(bytes) });
    Ok([Some(End { seq: applied.seq, chain: applied.chain, waiting: None }), waiting].into_iter().flatten())
}

/// Encodes the newest checkpoint of a stream that ends there, with the chain after it; `None` where only an older program
/// had it.
fn newest(replica: &Replica, (dev, stream): (i64, Stream), end: End) -> Result<Option<Vec<u8>>> {
    let bytes = match end.waiting {
        Some(bytes) => bytes,
        None => match frames::newest(&replica.db, dev, stream)? {
            Some(bytes) => bytes,
            None => return Ok(None),
        },
    };
    let newest = Newest { checkpoint: Checkpoint::decode(&bytes).map_err(error::bad)?, end: end.chain };
    let mut buf = vec![0; NEWEST_LEN];
    newest.encode(&mut buf).map_err(|_| Error::damaged("a checkpoint without room"))?;
    Ok(Some(buf))
}
