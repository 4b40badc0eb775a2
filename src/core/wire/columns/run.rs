//! TEXTs and BLOBs, and REALs that are no short number: most of them have been there before.

use super::coder::Coder;
use super::list::{List, Lists, NUMBER_BITS};
use super::model::{Contexts, INPUTS, SHARED, hash};
use super::number;
use super::prose::Buckets;
use super::table::Place;
use super::text::{FORMS, Runs, Short, form_of};
use super::value::{
    AFTER_LAST, BESIDE, BLOB, COLUMNS, Column, DATED, FIELDED, HEXED, LISTED, Of, REAL, TEXT, Values, body,
    hash_bytes, put_tag, range,
};
use crate::wire::values::{put_varint, varint};

impl Values {
    /// Codes the value at `at`. Returns where it ends, and a hash of it.
    pub(super) fn run<C: Coder>(
        &mut self,
        coder: &mut C,
        buf: &mut [u8],
        at: core::ops::Range<usize>,
        of: Of,
        way: u8,
        buckets: &mut Buckets,
    ) -> Result<(usize, u32), C::Stop> {
        let Column { last, .. } = self.columns[of.index];
        let (given, at) = (at.clone(), at.start);
        let is_new = !matches!(way, AFTER_LAST | BESIDE | LISTED);
        let end = match way {
            AFTER_LAST => Self::repeat::<C>(buf, at, *self.after_last(of))?,
            BESIDE => Self::repeat::<C>(buf, at, *self.stood_here(of))?,
            LISTED => {
                let place = self.listed(coder, buf, given, of, buckets)?;
                Self::repeat::<C>(buf, at, place)?
            }
            FIELDED => {
                let last = buf.get(range(last)).filter(|last| last.first() == Some(&TEXT));
                let like = Short::of(body(last.ok_or_else(C::bad)?)).ok_or_else(C::bad)?;
                self.fields(coder, buf, at, of, like)?
            }
            DATED => {
                let like = self.form(coder, buf, at)?;
                self.fields(coder, buf, at, of, like)?
            }
            HEXED => self.hexed(coder, buf, at, of, last)?,
            REAL => self.real(coder, buf, at, of)?,
            TEXT if self.is_short(coder, buf, at, of)? => self.short(coder, buf, at, of, last, buckets)?,
            TEXT | BLOB => self.long(coder, buf, at, of, way)?,
            _ => return Err(C::bad()),
        };
        Ok((end, self.note(buf, at..end, of, is_new, buckets).ok_or_else(C::bad)?))
    }

    /// Says a value as the one at a place. Returns where it ends.
    fn repeat<C: Coder>(buf: &mut [u8], at: usize, place: Place) -> Result<usize, C::Stop> {
        let end = at + usize::from(place.1);
        if place.1 == 0 || end > buf.len() || range(place).end > buf.len() {
            return Err(C::bad());
        }
        if !C::ENCODES {
            buf.copy_within(range(place), at);
        }
        Ok(end)
    }

    /// Codes a REAL by its bytes, the highest first. Returns where it ends.
    fn real<C: Coder>(&mut self, coder: &mut C, buf: &mut [u8], at: usize, of: Of) -> Result<usize, C::Stop> {
        let start = put_tag::<C>(buf, at, REAL)?;
        let end = start + 8;
        let bytes = buf.get_mut(start..end).ok_or_else(C::bad)?;
        bytes.reverse();
        let coded = self.bytes(coder, buf, start..end, Of { index: of.index % COLUMNS, id: of.id ^ 5, ..of });
        if let Some(bytes) = buf.get_mut(start..end) {
            bytes.reverse();
        }
        coded.map(|()| end)
    }

    /// Codes a BLOB, or a TEXT that is not short. Returns where it ends.
    fn long<C: Coder>(
        &mut self,
        coder: &mut C,
        buf: &mut [u8],
        at: usize,
        of: Of,
        way: u8,
    ) -> Result<usize, C::Stop> {
        let Of { index, id, .. } = of;
        let start = put_tag::<C>(buf, at, way)?;
        let len = if C::ENCODES { varint(buf, start).ok_or_else(C::bad)?.0 as i64 } else { 0 };
        let lengths = &mut self.columns[index].lengths;
        let of_len = lengths.known_as(id ^ 9);
        let len = number::code(&mut self.mixer, coder, lengths, (of_len, 0), None, len)?;
        let start = put_varint(buf, start, len as u64).ok_or_else(C::bad)?;
        let len = usize::try_from(len).map_err(|_| C::bad())?;
        if len > buf.len() || start > buf.len() - len {
            return Err(C::bad());
        }
        let id = if self.columns[index].last.1 == 0 { SHARED } else { id };
        let of = Of { index: index % COLUMNS, id: id ^ u32::from(way), ..of };
        self.bytes(coder, buf, start..start + len, of)?;
        Ok(start + len)
    }

    /// Returns the place of the value that followed when the column's last one was the same.
    pub(super) fn after_last(&mut self, of: Of) -> &mut Place {
        let last = self.columns[of.index].last_hash;
        self.memo(hash(hash(of.id, 1), last))
    }

    /// Returns the place of the value that stood here when that before it in the row was the same.
    pub(super) fn stood_here(&mut self, of: Of) -> &mut Place {
        self.memo(hash(hash(of.id, 2), of.before))
    }

    /// Notes a value that may come again. Returns a hash of it.
    pub(super) fn note(
        &mut self,
        buf: &[u8],
        at: core::ops::Range<usize>,
        of: Of,
        is_new: bool,
        buckets: &mut Buckets,
    ) -> Option<u32> {
        let place = (at.start as u16, (at.end - at.start) as u16);
        let of_value = hash_bytes(buf.get(at)?);
        *self.after_last(of) = place;
        *self.stood_here(of) = place;
        let column = &mut self.columns[of.index];
        (column.last, column.last_hash) = (place, of_value);
        self.beside = place;
        if is_new {
            Lists { prose: &mut self.prose, buckets }.add(&mut column.list, of.id, of_value, place);
        }
        Some(of_value)
    }

    /// Codes which form the TEXT at `at` has.
    fn form<C: Coder>(&mut self, coder: &mut C, buf: &[u8], at: usize) -> Result<Short, C::Stop> {
        let given = if C::ENCODES { form_at(buf, at).ok_or_else(C::bad)? } else { 0 };
        let contexts = [hash(SHARED, 32); INPUTS];
        let form = self.mixer.digits(coder, &contexts, (SHARED, 544), 4, given as u32)?;
        Short::of(FORMS[form as usize]).ok_or_else(C::bad)
    }

    /// Codes which of the column's list a value is. Returns the place of that one.
    fn listed<C: Coder>(
        &mut self,
        coder: &mut C,
        buf: &[u8],
        at: core::ops::Range<usize>,
        of: Of,
        buckets: &mut Buckets,
    ) -> Result<Place, C::Stop> {
        let Of { index, id, before } = of;
        let List { said, .. } = self.columns[index].list;
        let bits = self.columns[index].list.bits();
        let given = if C::ENCODES { hash_bytes(buf.get(at).ok_or_else(C::bad)?) } else { 0 };
        let mut lists = Lists { prose: &mut self.prose, buckets };
        let given = if C::ENCODES { lists.find(id, given) } else { 0 };
        let contexts: Contexts = [
            hash(id, 51),
            hash(hash(id, 52), said & ((1 << NUMBER_BITS) - 1)),
            hash(hash(id, 53), said & ((1 << (2 * NUMBER_BITS)) - 1)),
            hash(hash(id, 54), before),
        ];
        let number = self.mixer.growing(coder, &contexts, (id ^ 10, 560), bits, given)?;
        self.columns[index].list.say(number);
        Ok(lists.place(id, number))
    }

    /// Codes a TEXT that differs from another one in its digits. Returns where it ends.
    fn fields<C: Coder>(
        &mut self,
        coder: &mut C,
        buf: &mut [u8],
        at: usize,
        of: Of,
        mut like: Short,
    ) -> Result<usize, C::Stop> {
        let Of { index, id, .. } = of;
        let text = like.bytes_mut();
        let len = text.len();
        let runs = Runs::of(text).ok_or_else(C::bad)?;
        let end = at + 2 + len;
        let whole = buf.get_mut(at..end).ok_or_else(C::bad)?;
        let (tag, given) = whole.split_at_mut_checked(2).ok_or_else(C::bad)?;
        let mut of_step = 0;
        for run in (0..runs.len).rev() {
            let field = index * 8 + run;
            let before = runs.number(run, text);
            let numbers = &mut self.fields[field];
            numbers.last = before;
            let given = if C::ENCODES { runs.number(run, given) } else { 0 };
            let id = numbers.known_as(hash(hash(id, 31), field as u32));
            let number = number::code(&mut self.mixer, coder, numbers, (id, of_step), None, given)?;
            if !runs.write(run, number, text) {
                return Err(C::bad());
            }
            let step = number.wrapping_sub(before);
            of_step = step.signum() as u32;
        }
        tag.copy_from_slice(&[TEXT, len as u8]);
        given.copy_from_slice(text);
        Ok(end)
    }
}

/// Returns which form the TEXT at `at` has.
fn form_at(buf: &[u8], at: usize) -> Option<usize> {
    let len = usize::from(*buf.get(at + 1)?);
    form_of(buf.get(at + 2..at + 2 + len)?)
}
