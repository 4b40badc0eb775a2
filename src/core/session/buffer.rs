//! Where a session keeps the record that is coming and the one that is going.

use crate::wire::{NoRoom, RECORD_HEAD_LEN, RecordKind, finish_record};

/// Bytes in a row, from none up to as many as the implementer has room for.
///
/// A microcontroller takes a [`heapless::Vec`]. Where there is a heap, a vector that grows holds no more than what is
/// on its way.
pub trait Buffer: Default {
    /// Returns the bytes.
    fn filled(&self) -> &[u8];

    /// Makes it so long, with zeros at its end if it grows, and returns the bytes. One of length 0 may free what
    /// it holds of the heap.
    ///
    /// # Errors
    /// [`NoRoom`] if it cannot be so long; then it is as it was.
    fn set_len(&mut self, len: usize) -> Result<&mut [u8], NoRoom>;
}

impl<const N: usize> Buffer for heapless::Vec<u8, N> {
    fn filled(&self) -> &[u8] {
        self
    }

    fn set_len(&mut self, len: usize) -> Result<&mut [u8], NoRoom> {
        self.resize(len, 0).map_err(|_| NoRoom)?;
        Ok(self)
    }
}

/// What becomes the body of a record: the log appends to it.
///
/// A log need not care whether there is room. If there was not, the session ends with
/// [`super::Error::NoRoom`].
pub struct Body<'a> {
    buffer: &'a mut dyn Grow,
    full: bool,
}

/// [`Buffer`], without what keeps it from being used by reference.
trait Grow {
    fn filled_len(&self) -> usize;
    fn grow(&mut self, len: usize) -> Result<&mut [u8], NoRoom>;
}

impl<B: Buffer> Grow for B {
    fn filled_len(&self) -> usize {
        self.filled().len()
    }

    fn grow(&mut self, len: usize) -> Result<&mut [u8], NoRoom> {
        let at = self.filled().len();
        let all = self.set_len(at + len)?;
        Ok(all.get_mut(at..).unwrap_or_default())
    }
}

impl<'a> Body<'a> {
    /// Appends to the end of `buffer`.
    pub(super) fn new<B: Buffer>(buffer: &'a mut B) -> Self {
        Self { buffer, full: false }
    }

    /// Appends bytes.
    pub fn extend(&mut self, bytes: &[u8]) {
        if let Some(room) = self.room(bytes.len()) {
            room.copy_from_slice(bytes);
        }
    }

    /// Appends so many zeros, to be written over; `None` if there is no room for them.
    pub fn room(&mut self, len: usize) -> Option<&mut [u8]> {
        match self.buffer.grow(len) {
            Ok(room) => Some(room),
            Err(NoRoom) => {
                self.full = true;
                None
            }
        }
    }

    fn check(&self) -> Result<usize, NoRoom> {
        if self.full { Err(NoRoom) } else { Ok(self.buffer.filled_len()) }
    }
}

/// Appends to `buffer` what `write` appends. Returns its length.
///
/// # Errors
/// [`NoRoom`], and what `write` meets, as the inner result.
pub(super) fn written<B: Buffer, R, E>(
    buffer: &mut B,
    write: impl FnOnce(&mut Body<'_>) -> Result<R, E>,
) -> Result<Result<R, E>, NoRoom> {
    let mut body = Body::new(buffer);
    let result = write(&mut body);
    body.check().map(|_| result)
}

/// The length of a refusal, as a record: there is always room for it.
const REFUSAL_LEN: usize = RECORD_HEAD_LEN + 2 + 16 + 4;

/// The bytes that go out: records, of which the stream has accepted the first `at` bytes.
#[derive(Default)]
pub(super) struct Out<B> {
    buffer: B,
    at: usize,
}

impl<B: Buffer> Out<B> {
    /// Returns what the stream has not accepted.
    pub(super) fn rest(&self) -> &[u8] {
        self.buffer.filled().get(self.at..).unwrap_or_default()
    }

    /// Records that the stream accepted so many.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.at = self.at.saturating_add(bytes).min(self.queued());
    }

    /// Returns how many bytes were appended since it was last empty.
    pub(super) fn queued(&self) -> usize {
        self.buffer.filled().len()
    }

    /// Drops all that was appended after it was so long.
    pub(super) fn truncate(&mut self, len: usize) {
        if len < self.queued() {
            // It was longer: this cannot fail.
            let _ = self.buffer.set_len(len);
            self.at = self.at.min(len);
        }
    }

    /// Appends a record whose body `write` appends, or nothing if that returns `false`. Returns the body's length.
    ///
    /// # Errors
    /// [`NoRoom`], and what `write` meets, as the inner result; then nothing was appended.
    pub(super) fn record<E>(
        &mut self,
        kind: RecordKind,
        write: impl FnOnce(&mut Body<'_>) -> Result<bool, E>,
    ) -> Result<Result<Option<usize>, E>, NoRoom> {
        let start = self.queued();
        let result = self.try_record(kind, REFUSAL_LEN, write);
        if !matches!(result, Ok(Ok(Some(_)))) {
            self.truncate(start);
        }
        result
    }

    /// Appends the last record of all, for which room was kept.
    pub(super) fn last_record(&mut self, kind: RecordKind, body: &[u8]) {
        let start = self.queued();
        let write = |to: &mut Body<'_>| -> Result<bool, NoRoom> {
            to.extend(body);
            Ok(true)
        };
        if !matches!(self.try_record(kind, 0, write), Ok(Ok(Some(_)))) {
            self.truncate(start);
        }
    }

    fn try_record<E>(
        &mut self,
        kind: RecordKind,
        reserve: usize,
        write: impl FnOnce(&mut Body<'_>) -> Result<bool, E>,
    ) -> Result<Result<Option<usize>, E>, NoRoom> {
        let start = self.queued();
        let body = start + RECORD_HEAD_LEN;
        self.buffer.set_len(body)?;
        match written(&mut self.buffer, write)? {
            Ok(true) => {}
            Ok(false) => return Ok(Ok(None)),
            Err(e) => return Ok(Err(e)),
        }
        let len = self.queued() - body;
        let whole = self.buffer.set_len(body + len + 4 + reserve)?;
        let record = finish_record(whole.get_mut(start..).unwrap_or_default(), kind, len)?;
        self.buffer.set_len(start + record)?;
        Ok(Ok(Some(len)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_any_record_there_is_room_for_the_last() {
        let mut out = Out::<heapless::Vec<u8, 100>>::default();
        let append = |out: &mut Out<_>, len: usize| {
            out.record(RecordKind::Frame, |body| {
                body.extend(&[7; 100][..len]);
                Ok::<_, ()>(true)
            })
        };
        assert_eq!(append(&mut out, 100 - 8 - 4 - REFUSAL_LEN + 1), Err(NoRoom));
        assert_eq!(out.queued(), 0, "nothing of it stays");
        let most = 100 - 8 - 4 - REFUSAL_LEN;
        assert_eq!(append(&mut out, most), Ok(Ok(Some(most))));
        let before = out.queued();
        out.last_record(RecordKind::Message, &[6; 18]);
        assert_eq!(out.queued(), before + REFUSAL_LEN);
        out.truncate(before);
        assert_eq!(out.rest().len(), before);
    }
}
