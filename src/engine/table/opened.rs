//! Frames of the log that were opened last, with the places of their ops.
//!
//! To find an op, a frame must be read, checked and walked from its beginning. Where thousands of rows are in conflict,
//! their versions are in the same few frames, and each is looked for on its own: so the last few frames stay open, for
//! one transaction at the most.

use std::sync::Arc;

use packmule_core::wire::DefId;

/// Where the op of a version is in its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OpPlace {
    /// At this offset.
    At(u32),
    /// It is found by the row's table and integer key.
    OfKey(i64, i64),
}

impl OpPlace {
    /// What the column `place` has instead of an offset.
    pub(crate) const BY_KEY: u32 = u32::MAX;

    /// Returns what the column `place` has of it.
    pub(crate) fn number(self) -> u32 {
        match self {
            Self::At(offset) => offset,
            Self::OfKey(..) => Self::BY_KEY,
        }
    }
}

/// So many frames stay open: some hundred KiB each at the most.
const OPEN: usize = 3;

/// A frame, and where its ops are.
pub(crate) struct OpenFrame {
    /// Its device's number, its stream and its number.
    pub place: (i64, u8, u64),
    /// In its plain form.
    pub body: Vec<u8>,
    /// The offset of each op in it, ascending, and the definition in which it is encoded.
    pub ops: Vec<(u32, DefId)>,
    /// Of ops whose key is one integer, the table, the key and the offset; ascending.
    pub by_key: Vec<(i64, i64, u32)>,
}

impl OpenFrame {
    /// Returns the offset of an op.
    pub(crate) fn offset_of(&self, place: OpPlace) -> Option<u32> {
        match place {
            OpPlace::At(offset) => Some(offset),
            OpPlace::OfKey(tid, key) => {
                let at = self.by_key.binary_search_by_key(&(tid, key), |(tid, key, _)| (*tid, *key)).ok()?;
                self.by_key.get(at).map(|(.., offset)| *offset)
            }
        }
    }

    /// Returns the definition of the op that begins at an offset.
    pub(crate) fn def_at(&self, offset: u32) -> Option<DefId> {
        let at = self.ops.binary_search_by_key(&offset, |(offset, _)| *offset).ok()?;
        self.ops.get(at).map(|(_, def)| *def)
    }
}

/// The frames that were opened last, the newest last.
#[derive(Default)]
pub(crate) struct Opened(Vec<Arc<OpenFrame>>);

impl Opened {
    /// Finds a frame.
    pub(crate) fn opened_at(&self, place: (i64, u8, u64)) -> Option<Arc<OpenFrame>> {
        self.0.iter().find(|frame| frame.place == place).cloned()
    }

    /// Keeps a frame open; the oldest one is closed.
    pub(crate) fn keep_open(&mut self, frame: Arc<OpenFrame>) {
        if self.0.len() == OPEN {
            self.0.remove(0);
        }
        self.0.push(frame);
    }

    /// Closes all.
    pub(crate) fn close_all(&mut self) {
        self.0.clear();
    }
}
