//! What a frame says beside rows: written by [`FrameWriter`].

use super::FrameWriter;
use crate::wire::blocks::{BLOCK_KEEP, BLOCK_SPAN, Decision, KeptRun, Span};
use crate::wire::schema::{SchemaBits, put_schema};
use crate::wire::{Bytes, NoRoom, put, put_next};

impl FrameWriter<'_> {
    /// Writes which versions stay of the rows that follow, in this frame, of a verdict: frames of devices, each from the
    /// first to the last, up to 65,535 runs.
    ///
    /// # Errors
    /// [`NoRoom`]; nothing was written.
    pub fn keep(&mut self, runs: &[KeptRun]) -> Result<(), NoRoom> {
        let before = (self.len, self.rows);
        let usable = self.usable();
        // The old block's end has its byte in any case.
        self.close_rows();
        let mut len = self.len;
        let count = u16::try_from(runs.len()).map_err(|_| NoRoom)?;
        let mut write = || {
            let room = self.buf.get_mut(..usable).ok_or(NoRoom)?;
            put_next(room, &mut len, &BLOCK_KEEP)?;
            put_next(room, &mut len, &count)?;
            runs.iter().try_for_each(|run| put_next(room, &mut len, run))
        };
        if write().is_err() {
            (self.len, self.rows) = before;
            return Err(NoRoom);
        }
        (self.len, self.empty) = (len, false);
        Ok(())
    }

    /// Writes what a row was before a resolution.
    ///
    /// # Errors
    /// [`NoRoom`]; nothing was written.
    pub fn decision(&mut self, decision: &Decision<'_>) -> Result<(), NoRoom> {
        self.block(decision.len_most(), |buf| decision.put(buf))
    }

    /// Writes which rows of a table the group has all of, if it restates them.
    ///
    /// # Errors
    /// [`NoRoom`]; nothing was written.
    pub fn span(&mut self, span: &Span<'_>) -> Result<(), NoRoom> {
        let most = span.from.len() + span.to.len() + 2 * 5 + 10;
        self.block(most, |buf| put(buf, &(BLOCK_SPAN, span.def.0, Bytes(span.from), Bytes(span.to))))
    }

    /// Writes what this device says of its table; `names` are the columns that were renamed, before and after.
    ///
    /// # Errors
    /// [`NoRoom`]; nothing was written.
    pub fn schema(&mut self, def: &[u8], bits: SchemaBits, names: &[(&str, &str)]) -> Result<(), NoRoom> {
        let named: usize = names.iter().map(|(before, after)| before.len() + after.len() + 10).sum();
        self.block(def.len() + named + 16, |buf| put_schema(buf, def, bits, names))
    }
}
