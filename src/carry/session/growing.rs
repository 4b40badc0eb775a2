//! A buffer for one record, on the heap.

use packmule_core::session::Buffer;
use packmule_core::wire::{FRAME_MAX, NoRoom};

/// More than that is given back when a record is done: a vector of a large fleet is longer than any frame, and rare.
const KEEP: usize = FRAME_MAX + 1_024;

/// Bytes, as many as a record has. The record's head bounds them before they come.
#[derive(Default)]
pub(super) struct Growing(Vec<u8>);

impl Buffer for Growing {
    fn filled(&self) -> &[u8] {
        &self.0
    }

    fn set_len(&mut self, len: usize) -> Result<&mut [u8], NoRoom> {
        self.0.resize(len, 0);
        if len == 0 {
            self.0.shrink_to(KEEP);
        }
        Ok(&mut self.0)
    }
}
