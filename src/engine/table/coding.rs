//! The memory in which frames are coded by column and made plain again: some 500 KiB, kept while the database is open.

use std::cell::RefCell;

use packmule_core::wire::{BUCKETS, Bucket, Columns, DecodeError, FRAME_MAX, Frame, Learned};

/// What one frame needs.
pub(crate) struct Coding {
    pub columns: Columns<Box<Learned>, Vec<Bucket>>,
    /// The other form of the frame.
    pub buf: Vec<u8>,
}

impl Coding {
    /// By itself: it passes over the stack, and the callers, one within another, are not to have room for it each.
    #[cold]
    #[inline(never)]
    fn new() -> Self {
        let columns = Columns::of(Box::new(Learned::new()), vec![Bucket::EMPTY; BUCKETS]);
        Self { columns, buf: vec![0; FRAME_MAX] }
    }
}

/// The memory that is not in use: that of one frame, mostly. More are open where one visit is within another.
#[derive(Default)]
pub(crate) struct Codings(RefCell<Vec<Coding>>);

impl Codings {
    /// Gives memory to `f`.
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut Coding) -> R) -> R {
        let mut coding = self.0.borrow_mut().pop().unwrap_or_else(Coding::new);
        let result = f(&mut coding);
        self.0.borrow_mut().push(coding);
        result
    }

    /// Gives a frame in its plain form to `f`.
    ///
    /// # Errors
    /// [`DecodeError`] if its blocks are not coded as they should be.
    pub(crate) fn plain<R>(
        &self,
        frame: &Frame<'_>,
        f: impl FnOnce(&Frame<'_>) -> R,
    ) -> Result<R, DecodeError> {
        if !frame.is_by_column() {
            return Ok(f(frame));
        }
        self.with(|coding| {
            let len = frame.plain(&mut coding.columns, &mut coding.buf)?;
            Ok(f(&Frame::parse(&coding.buf[..len])?))
        })
    }
}
