//! What a device says of its table, beside its definition: see `FORMAT.md`, "Blocks", block 11.

use super::{Bytes, DecodeError, NoRoom, put, put_next, read_part, take};

pub(super) const BLOCK_SCHEMA: u8 = 11;

/// What a block says of a table's definition, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct SchemaBits(pub u8);

impl SchemaBits {
    /// The application has renamed or dropped columns, or changed their types; its rows wait until all others have too.
    pub const CHANGED: Self = Self(1);
    /// On this device columns follow those of others.
    pub const FOLLOWS: Self = Self(2);
    /// A person has dropped the named columns for all devices.
    pub const DROPS: Self = Self(4);
    /// The device does not track the table any more: nobody waits for what it has of it.
    pub const LEFT: Self = Self(8);
    /// The device was set back to a backup: columns that it had by its own log, and lacks, were not dropped.
    pub const SET_BACK: Self = Self(16);
    const ALL: u8 = 31;

    /// Returns these bits and those.
    pub fn and(self, bits: Self) -> Self {
        Self(self.0 | bits.0)
    }

    /// Returns whether these bits are among them.
    pub fn says(self, bits: Self) -> bool {
        self.0 & bits.0 == bits.0
    }
}

/// What a device says of its table.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Schema<'a> {
    /// The definition that the table has there: see [`super::DefReader`].
    pub def: &'a [u8],
    /// What it says of it.
    pub bits: SchemaBits,
    /// Columns that were renamed there, or dropped.
    pub names: Renamed<'a>,
}

/// Iterates over renamed columns: the name before and after. A dropped one has none after.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Renamed<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Renamed<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        // `Schema::take` has decoded all of it once.
        if self.rest.is_empty() { None } else { take(&mut self.rest).ok() }
    }
}

impl<'a> Schema<'a> {
    /// Decodes one; `rest` is left with what follows.
    pub(super) fn take(rest: &mut &'a [u8]) -> Result<Self, DecodeError> {
        let def = take(rest)?;
        let bits: u8 = take(rest)?;
        let count: u16 = take(rest)?;
        let start = *rest;
        for _ in 0..count {
            let (before, _): (&str, &str) = take(rest)?;
            if before.is_empty() {
                return Err(DecodeError::Malformed("a renamed column without a name"));
            }
        }
        if bits & !SchemaBits::ALL != 0 {
            return Err(DecodeError::Malformed("a table of an unknown standing"));
        }
        let names = Renamed { rest: read_part(start, rest) };
        Ok(Self { def, bits: SchemaBits(bits), names })
    }
}

/// Encodes a block into a buffer. Returns its length.
pub(super) fn put_schema(
    buf: &mut [u8],
    def: &[u8],
    bits: SchemaBits,
    names: &[(&str, &str)],
) -> Result<usize, NoRoom> {
    let mut len = put(buf, &BLOCK_SCHEMA)?;
    put_next(buf, &mut len, &Bytes(def))?;
    put_next(buf, &mut len, &bits.0)?;
    put_next(buf, &mut len, &u16::try_from(names.len()).map_err(|_| NoRoom)?)?;
    for pair in names {
        put_next(buf, &mut len, pair)?;
    }
    Ok(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_what_it_writes_and_refuses_the_rest() {
        let mut buf = [0; 64];
        let names = [("two", "zwei"), ("old", "")];
        let len = put_schema(&mut buf, b"def", SchemaBits::CHANGED, &names).unwrap();
        assert_eq!(&buf[..len], b"\x0b\x03def\x01\x02\x03two\x04zwei\x03old\x00");
        let mut rest = &buf[1..len];
        let read = Schema::take(&mut rest).unwrap();
        assert!(rest.is_empty() && read.def == b"def" && read.bits == SchemaBits::CHANGED);
        assert!(read.names.eq(names));
        for cut in 1..len {
            assert!(Schema::take(&mut &buf[1..cut]).is_err());
        }
        buf[5] = 32;
        assert!(Schema::take(&mut &buf[1..len]).is_err());
        assert!(put_schema(&mut [0; 13], b"def", SchemaBits::CHANGED, &names).is_err());
    }
}
