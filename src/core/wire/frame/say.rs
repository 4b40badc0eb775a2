//! What a frame says beside rows: written by [`FrameWriter`].

use super::FrameWriter;
use crate::wire::blocks::{BLOCK_KEEP, BLOCK_SPAN, Decision, KeptRun, Span};
use crate::wire::schema::{SchemaBits, put_schema};
use crate::wire::{Bytes, NoRoom, put};

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
            len += put(self.buf.get_mut(len..usable).ok_or(NoRoom)?, &BLOCK_KEEP)?;
            len += put(&mut self.buf[len..usable], &count)?;
            for run in runs {
                len += put(&mut self.buf[len..usable], run)?;
            }
            Ok::<(), NoRoom>(())
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
        if self.room() < decision.len_most() {
            return Err(NoRoom);
        }
        self.close_rows();
        let usable = self.usable();
        self.len += decision.put(&mut self.buf[self.len..usable])?;
        self.empty = false;
        Ok(())
    }

    /// Writes which rows of a table the group has all of, if it restates them.
    ///
    /// # Errors
    /// [`NoRoom`]; nothing was written.
    pub fn span(&mut self, span: &Span<'_>) -> Result<(), NoRoom> {
        if self.room() < span.from.len() + span.to.len() + 2 * 5 + 10 {
            return Err(NoRoom);
        }
        self.close_rows();
        let usable = self.usable();
        self.buf[self.len] = BLOCK_SPAN;
        self.buf[self.len + 1..self.len + 9].copy_from_slice(&span.def.0);
        self.len += 9;
        for end in [span.from, span.to] {
            self.len += put(&mut self.buf[self.len..usable], &Bytes(end))?;
        }
        self.empty = false;
        Ok(())
    }

    /// Writes what this device says of its table; `names` are the columns that were renamed, before and after.
    ///
    /// # Errors
    /// [`NoRoom`]; nothing was written.
    pub fn schema(&mut self, def: &[u8], bits: SchemaBits, names: &[(&str, &str)]) -> Result<(), NoRoom> {
        let named: usize = names.iter().map(|(before, after)| before.len() + after.len() + 10).sum();
        if self.room() < def.len() + named + 16 {
            return Err(NoRoom);
        }
        self.close_rows();
        let usable = self.usable();
        self.len += put_schema(&mut self.buf[self.len..usable], def, bits, names)?;
        self.empty = false;
        Ok(())
    }
}
