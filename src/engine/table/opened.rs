//! Frames of the log that were opened last, with the places of their ops.
//!
//! To find an op, a frame must be read, checked and walked from its beginning. Where thousands of rows are in conflict,
//! their versions are in the same few frames, and each is looked for on its own: so the last few frames stay open, for
//! one transaction at the most.

use std::sync::Arc;

use packmule_core::wire::{DefId, Ops};

use crate::engine::error::{self, Error, Result};
use crate::engine::store::value;
use crate::engine::table::known::OpDef;

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

/// So many frames stay open: at most some 160 KiB each, of which 64 KiB are the frame. Rows of a byte or two are thousands
/// in a frame, so that of each as little as can be is kept: where it is.
const OPEN: usize = 3;

/// A frame, and where its ops are.
pub(crate) struct OpenFrame {
    /// Its device's number, its stream and its number.
    pub place: (i64, u8, u64),
    /// In its plain form.
    pub body: Vec<u8>,
    /// The definitions of its ops, each with the offset from which on it is that.
    defs: Vec<(u16, Arc<OpDef>)>,
    /// The offset of each op in it, ascending.
    ops: Vec<u16>,
    /// The offsets of the ops whose key is one integer, each at the place that its table and key have, or in the next one
    /// that was free; 0 where there is none: no op stands at a frame's beginning.
    by_key: Vec<u16>,
}

impl OpenFrame {
    /// Opens a frame of which nothing is known yet.
    pub(crate) fn of(place: (i64, u8, u64)) -> Self {
        Self { place, body: Vec::new(), defs: Vec::new(), ops: Vec::new(), by_key: Vec::new() }
    }

    /// Adds the op that is next.
    pub(crate) fn add_op(&mut self, def: &Arc<OpDef>, offset: u32) -> Result<()> {
        let offset = u16::try_from(offset).map_err(|_| Error::damaged("a frame that is too long"))?;
        if self.defs.last().is_none_or(|(_, last)| last.id != def.id) {
            self.defs.push((offset, def.clone()));
        }
        self.ops.push(offset);
        Ok(())
    }

    /// Makes the ops known by their keys, once all are added, in the frame's plain form.
    pub(crate) fn index_keys(&mut self, body: Vec<u8>) -> Result<()> {
        self.body = body;
        self.ops.shrink_to_fit();
        // A third of the places stays free, so that the next free one is near.
        self.by_key = vec![0; self.ops.len() + self.ops.len() / 2 + 1];
        for at in 0..self.ops.len() {
            if let Some((tid, key)) = self.key_at(self.ops[at])? {
                let place = self.places_of(tid, key).find(|place| self.by_key[*place] == 0);
                if let Some(place) = place {
                    self.by_key[place] = self.ops[at];
                }
            }
        }
        Ok(())
    }

    /// Returns the places where an op can be known by its key, in the order in which they are tried.
    fn places_of(&self, tid: i64, key: i64) -> impl Iterator<Item = usize> + use<> {
        // Keys that follow one another are spread over all places.
        let mixed = (tid as u64).rotate_left(32) ^ key as u64;
        let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let all = self.by_key.len();
        let first = ((u128::from(mixed) * all as u128) >> 64) as usize;
        (first..all).chain(0..first)
    }

    /// Returns the table and the key of the op at an offset, if the key is one integer.
    fn key_at(&self, offset: u16) -> Result<Option<(i64, i64)>> {
        let Some(def) = self.def_from(offset) else { return Ok(None) };
        let body = self.body.get(usize::from(offset)..).unwrap_or_default();
        let op = Ops::new(body, offset.into(), def.shape()).next_op().map_err(error::bad)?;
        let Some(op) = op else { return Ok(None) };
        Ok(value::integer_key(&def.key_of(op.values(def.shape()))?).map(|key| (def.tid, key)))
    }

    /// Returns the definition that ops at an offset have.
    fn def_from(&self, offset: u16) -> Option<&Arc<OpDef>> {
        let after = self.defs.partition_point(|(from, _)| *from <= offset);
        self.defs.get(after.checked_sub(1)?).map(|(_, def)| def)
    }

    /// Returns the offset of an op.
    pub(crate) fn offset_of(&self, place: OpPlace) -> Result<Option<u32>> {
        let (tid, key) = match place {
            OpPlace::At(offset) => return Ok(Some(offset)),
            OpPlace::OfKey(tid, key) => (tid, key),
        };
        for place in self.places_of(tid, key) {
            let offset = self.by_key[place];
            if offset == 0 {
                break;
            }
            if self.key_at(offset)? == Some((tid, key)) {
                return Ok(Some(offset.into()));
            }
        }
        Ok(None)
    }

    /// Returns the definition of the op that begins at an offset.
    pub(crate) fn def_at(&self, offset: u32) -> Option<DefId> {
        let offset = u16::try_from(offset).ok()?;
        self.ops.binary_search(&offset).ok()?;
        self.def_from(offset).map(|def| def.id)
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

    /// Closes the oldest one where there is no room for another: before that is decoded, which takes more.
    pub(crate) fn make_room(&mut self) {
        if self.0.len() >= OPEN {
            self.0.remove(0);
        }
    }

    /// Keeps a frame open.
    pub(crate) fn keep_open(&mut self, frame: Arc<OpenFrame>) {
        self.make_room();
        self.0.push(frame);
    }

    /// Closes all.
    pub(crate) fn close_all(&mut self) {
        self.0.clear();
    }
}
