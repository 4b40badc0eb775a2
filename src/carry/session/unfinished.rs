//! How much a peer has sent of groups whose checkpoints have not come. It is kept on the disk, for that peer alone, and
//! nobody has verified it: without a bound whoever is trusted could fill the disk with one group that never ends.

use std::collections::BTreeMap;

use packmule_core::model::DeviceId;
use packmule_core::wire::Section;

use crate::engine::{Error, Result};

/// How often it is looked how much the disk has left, in bytes that came.
const LOOK: u64 = 4 << 20;

/// Bytes of frames, by stream.
#[derive(Default)]
pub(super) struct Unfinished {
    of: BTreeMap<(DeviceId, u8), u64>,
    looked: u64,
}

impl Unfinished {
    /// Counts a frame. `most`: how many bytes there may be. The disk's rest is one bound: a group is copied into the log
    /// when its checkpoint comes, so one of which more is here than is left would not go in either.
    ///
    /// # Errors
    /// [`Error::Endless`] where there are more.
    pub(super) fn frame(
        &mut self,
        section: Section,
        bytes: usize,
        most: impl FnOnce() -> Option<u64>,
    ) -> Result<()> {
        *self.of.entry((section.author, section.stream.number())).or_default() += bytes as u64;
        let all: u64 = self.of.values().sum();
        if all < self.looked + LOOK {
            return Ok(());
        }
        self.looked = all;
        match most() {
            Some(most) if all > most => Err(Error::Endless { bytes: all }),
            _ => Ok(()),
        }
    }

    /// Returns whether every group has ended.
    pub(super) fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// A group has ended.
    pub(super) fn checkpoint(&mut self, section: Section) {
        self.of.remove(&(section.author, section.stream.number()));
        // Never raised here: between groups that end, one that does not would never be looked at.
        self.looked = self.looked.min(self.of.values().sum());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // Tests.
mod tests {
    use packmule_core::model::Stream;

    use super::*;

    fn section(n: u8) -> Section {
        Section { author: DeviceId([n; 16]), stream: Stream::Shared }
    }

    /// Sends frames of 64 KiB of one group, with a whole group of another device's between them, on a disk with so much
    /// room. Returns how much is on it when it is refused.
    fn endless(mut room: u64) -> u64 {
        let (mut unfinished, mut kept) = (Unfinished::default(), 0);
        loop {
            let between = unfinished.frame(section(2), 100, || Some(room));
            unfinished.checkpoint(section(2));
            if between.and(unfinished.frame(section(1), 65_536, || Some(room))).is_err() {
                return kept;
            }
            (kept, room) = (kept + 65_536, room - 65_536);
        }
    }

    #[test]
    fn a_group_without_an_end_leaves_half_of_the_disk() {
        for room in [1 << 30, 100 << 20, 9 << 20] {
            let kept = endless(room);
            assert!(kept >= (room / 2).min(LOOK) && kept <= room / 2 + LOOK, "{kept} of {room}");
        }
    }

    #[test]
    fn groups_that_end_are_never_too_many() {
        let mut unfinished = Unfinished::default();
        for _ in 0..10_000 {
            unfinished.frame(section(1), 65_536, || Some(1)).unwrap();
            unfinished.checkpoint(section(1));
        }
    }
}
