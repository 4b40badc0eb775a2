//! What others know of our own log: the consequences.

use packmule_core::model::Stream;

use crate::engine::error::Result;
use crate::engine::exchange::{fork, transaction, twin};
use crate::engine::fleet::peers::{self, Mirror};
use crate::engine::fleet::positions;
use crate::engine::store::meta;
use crate::engine::table::replica::Replica;

/// Notes for people that a device has two histories, if something can be written now.
pub(crate) fn note_twin(replica: &Replica, device: &str, seq: u64) -> Result<()> {
    if replica.db.is_readonly(rusqlite::MAIN_DB)? {
        return Ok(());
    }
    let what = format!(
        "{device} has two histories, here and elsewhere, that part at frame {seq} or before: its database or SD card \
         was copied, or set back; the second one goes on under a new identity once it hears of the first"
    );
    meta::notice(&replica.db, &what, replica.now())
}

/// Draws the consequences of what others tell of this device's own log: it takes its frames in again, or
/// goes on under a new identity. Whether it did the latter.
///
/// # Errors
/// Those of going on under a new identity: [`Error::KeyMissing`], [`Error::Io`], [`Error::Forked`].
pub(crate) fn face(replica: &mut Replica, mirror: &Mirror) -> Result<bool> {
    let mut positions = [0; 2];
    for stream in Stream::ALL {
        positions[Mirror::at(stream)] = positions::position(replica, replica.me, stream)?.seq;
    }
    let more = mirror.more.iter().zip(positions).any(|(more, position)| *more > position);
    if !more && !mirror.is_apart() {
        return Ok(false);
    }
    let bound = mirror.apart.map(|apart| apart.unwrap_or(u64::MAX));
    // What a vector shows counts more than what was heard: who confirmed it can have the second history.
    let shown = mirror.is_apart() && mirror.same != [0; 2];
    let mut common = twin::certain(replica, mirror.same, bound, !shown)?;
    let mut unknown = false;
    for (at, position) in positions.into_iter().enumerate() {
        common[at] = mirror.parts[at].unwrap_or(common[at]);
        // Others have more, and whether this device's last frames are among it nothing tells.
        unknown |= mirror.more[at] > position && common[at] < position;
    }
    if mirror.is_apart() || unknown {
        fork::go_on_anew(replica, common)?;
        return Ok(true);
    }
    let mirror = *mirror;
    transaction::transaction(replica, |e| peers::note_mirror(e, &mirror))?;
    Ok(false)
}
