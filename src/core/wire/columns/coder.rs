//! Binary arithmetic coding: one decision at a time, at the probability that the model gives it.
//!
//! The carry-less coder of Mahoney's `lpaq`: a range of 32 bits, of which leading bytes that are settled go out. What is
//! past the end of the input reads as zeros, so the end costs one byte.

use super::super::{DecodeError, NoRoom};

/// One end of the coding. The same model drives both, so that they cannot differ.
pub(super) trait Coder {
    /// Why it ends.
    type Stop;
    /// Whether it writes.
    const ENCODES: bool;

    /// What it ends with where there is nothing that can be coded.
    fn bad() -> Self::Stop;

    /// Codes a decision: `one` is what it is (of no meaning where it is decoded), `p` the probability that it is
    /// true, in 1/65,536. Returns what it is.
    fn code(&mut self, one: bool, p: u16) -> Result<bool, Self::Stop>;

    /// Codes the lowest `bits`, up to 16, of a number of which nothing can be known: each is as probable as not.
    fn direct(&mut self, bits: u32, number: u32) -> Result<u32, Self::Stop>;
}

/// Writes decisions.
pub(super) struct Encoder<'b> {
    out: &'b mut [u8],
    len: usize,
    low: u32,
    high: u32,
}

impl<'b> Encoder<'b> {
    /// Writes into `out`.
    pub(super) fn new(out: &'b mut [u8]) -> Self {
        Self { out, len: 0, low: 0, high: u32::MAX }
    }

    fn put(&mut self, byte: u8) -> Result<(), NoRoom> {
        *self.out.get_mut(self.len).ok_or(NoRoom)? = byte;
        self.len += 1;
        Ok(())
    }

    fn settle(&mut self) -> Result<(), NoRoom> {
        while (self.low ^ self.high) >> 24 == 0 {
            self.put((self.high >> 24) as u8)?;
            self.low <<= 8;
            self.high = self.high << 8 | 255;
        }
        Ok(())
    }

    /// Ends it; returns the length.
    pub(super) fn finish(mut self) -> Result<usize, NoRoom> {
        // The shortest number within the range: its first bytes differ, so that one more than the lower's is not above.
        if self.low > 0 {
            self.put((self.low >> 24) as u8 + 1)?;
        }
        while self.len > 0 && self.out.get(self.len - 1) == Some(&0) {
            self.len -= 1;
        }
        Ok(self.len)
    }
}

/// Returns where the range is divided: the lower part is for `true`.
fn middle(low: u32, high: u32, p: u16) -> u32 {
    low + ((u64::from(high - low) * u64::from(p)) >> 16) as u32
}

/// Codes digits one after the other.
fn by_one<C: Coder>(coder: &mut C, bits: u32, number: u32) -> Result<u32, C::Stop> {
    let mut found = 0;
    for at in (0..bits).rev() {
        found = found << 1 | u32::from(coder.code(number >> at & 1 == 1, 1 << 15)?);
    }
    Ok(found)
}

/// Returns the part of the range that stands for `number`, of so many bits; `None` where the range is too narrow to be
/// divided so.
fn part(low: u32, high: u32, bits: u32, number: u32) -> Option<(u32, u32)> {
    let range = u64::from(high - low) + 1;
    let end = |number: u32| (range * u64::from(number)) >> bits;
    (range >> bits > 0).then(|| (low + end(number) as u32, low + (end(number + 1) - 1) as u32))
}

impl Coder for Encoder<'_> {
    type Stop = NoRoom;
    const ENCODES: bool = true;

    fn bad() -> NoRoom {
        NoRoom
    }

    fn code(&mut self, one: bool, p: u16) -> Result<bool, NoRoom> {
        let middle = middle(self.low, self.high, p);
        if one {
            self.high = middle;
        } else {
            self.low = middle + 1;
        }
        self.settle()?;
        Ok(one)
    }

    fn direct(&mut self, bits: u32, number: u32) -> Result<u32, NoRoom> {
        if let Some(part) = part(self.low, self.high, bits, number) {
            (self.low, self.high) = part;
            self.settle()?;
            return Ok(number);
        }
        by_one(self, bits, number)
    }
}

/// Reads decisions.
pub(super) struct Decoder<'a> {
    input: &'a [u8],
    low: u32,
    high: u32,
    code: u32,
}

impl<'a> Decoder<'a> {
    /// Reads from `input`.
    pub(super) fn new(input: &'a [u8]) -> Self {
        let mut decoder = Self { input, low: 0, high: u32::MAX, code: 0 };
        for _ in 0..4 {
            decoder.code = decoder.code << 8 | u32::from(decoder.next());
        }
        decoder
    }

    fn settle(&mut self) {
        while (self.low ^ self.high) >> 24 == 0 {
            self.low <<= 8;
            self.high = self.high << 8 | 255;
            self.code = self.code << 8 | u32::from(self.next());
        }
    }

    fn next(&mut self) -> u8 {
        match self.input.split_first() {
            Some((first, rest)) => {
                self.input = rest;
                *first
            }
            None => 0,
        }
    }
}

impl Coder for Decoder<'_> {
    type Stop = DecodeError;
    const ENCODES: bool = false;

    fn bad() -> DecodeError {
        DecodeError::Malformed("values by column that are none")
    }

    fn code(&mut self, _: bool, p: u16) -> Result<bool, DecodeError> {
        let middle = middle(self.low, self.high, p);
        let one = self.code <= middle;
        if one {
            self.high = middle;
        } else {
            self.low = middle + 1;
        }
        self.settle();
        Ok(one)
    }

    fn direct(&mut self, bits: u32, _: u32) -> Result<u32, DecodeError> {
        let range = u64::from(self.high - self.low) + 1;
        // The greatest number whose part does not begin after the code.
        let within = u64::from(self.code.wrapping_sub(self.low)) + 1;
        let number = (((within << bits) - 1) / range) as u32 & ((1 << bits) - 1);
        if let Some(part) = part(self.low, self.high, bits, number) {
            (self.low, self.high) = part;
            self.settle();
            return Ok(number);
        }
        by_one(self, bits, number)
    }
}
