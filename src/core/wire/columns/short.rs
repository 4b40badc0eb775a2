//! Short texts: byte for byte, up to the end that they are said to have.

use super::coder::Coder;
use super::model::{INPUTS, hash};
use super::prose::{Buckets, VIEWS};
use super::table::Place;
use super::value::{Of, TEXT, Values, body, place_in, put_tag, range};

/// A text is short whose length takes one byte.
const SHORT: usize = 128;
/// So many bytes that are alike tell where to look for what comes next.
const ALIKE: usize = 4;

/// A text that is followed byte for byte, as long as there is a next one.
#[derive(Clone, Copy, Default)]
struct Followed {
    /// Where the next byte stands, and where the text ends; from 0 to 0: nothing is followed.
    at: usize,
    end: usize,
    /// How many bytes were as expected, since the last that was not; and how many of all were not.
    right: u32,
    wrong: u32,
}

impl Followed {
    /// Follows the TEXT at a place from its first byte on.
    fn text(buf: &[u8], place: Place) -> Self {
        let range = range(place);
        match buf.get(range.start) {
            Some(&TEXT) if !body(place_in(buf, place)).is_empty() => {
                Self { at: range.start + 2, end: range.end, ..Self::default() }
            }
            _ => Self::default(),
        }
    }

    /// Returns what is expected, more by 1: a byte, or the end; 0: nothing.
    fn expected(&self, buf: &[u8]) -> u32 {
        match buf.get(self.at) {
            _ if self.at == self.end && self.end > 0 => 1,
            Some(byte) if self.at < self.end => u32::from(*byte) + 1,
            _ => 0,
        }
    }

    /// Goes on, after a byte.
    fn go_on(&mut self, buf: &[u8], byte: u8) {
        if self.at < self.end && buf.get(self.at) == Some(&byte) {
            self.right += 1;
        } else {
            (self.right, self.wrong) = (0, self.wrong + 1);
        }
        self.at += 1;
    }
}

/// What has been read of a text.
struct Reading {
    /// The last four bytes, the last one lowest.
    last: u32,
    /// A hash of the letters since what is none; 0 where there are none.
    word: u32,
    len: usize,
    /// The column's last text, the one before it in its row, and what came after bytes like these.
    before: Followed,
    beside: Followed,
    alike: Followed,
}

impl Reading {
    /// Returns the contexts of the next byte, and the set of weights.
    fn contexts(&self, buf: &[u8], id: u32) -> ([u32; VIEWS], usize) {
        let Self { last, word, len, before, beside, alike } = self;
        let [of_before, of_beside, of_alike] = [before, beside, alike].map(|followed| followed.expected(buf));
        let place = (*len as u32).min(2);
        let beside_as = beside.wrong.min(2) << 4 | beside.right.min(3);
        let contexts = [
            hash(hash(id, 71), last & 0xFF | place.min(1) << 8),
            hash(72, last & 0xFFFF | place << 16),
            hash(73, *word),
            hash(hash(id, 74), of_before << 8 | before.wrong.min(1)),
            hash(75, of_alike << 8 | alike.right.min(7)),
            hash(hash(id, 76), of_beside << 8 | beside_as),
        ];
        let set = if of_alike == 0 { 0 } else { 1 + alike.right.min(15) as usize / 4 };
        let follows = beside.wrong == 0 && of_beside > 0;
        (contexts, set * 4 + usize::from(*len == 0) * 2 + usize::from(follows))
    }

    /// Takes in a byte.
    fn take_in(&mut self, buf: &[u8], byte: u8) {
        self.before.go_on(buf, byte);
        self.beside.go_on(buf, byte);
        if self.alike.end > 0 {
            self.alike.go_on(buf, byte);
            if self.alike.wrong > 0 {
                self.alike = Followed::default();
            }
        }
        self.last = self.last << 8 | u32::from(byte);
        let is_letter = byte.is_ascii_alphanumeric() || !byte.is_ascii();
        self.word = if is_letter { hash(self.word, u32::from(byte.to_ascii_lowercase())) } else { 0 };
        self.len += 1;
    }
}

impl Values {
    /// Codes whether the TEXT at `at` is short.
    pub(super) fn is_short<C: Coder>(
        &mut self,
        coder: &mut C,
        buf: &[u8],
        at: usize,
        of: Of,
    ) -> Result<bool, C::Stop> {
        let short = C::ENCODES && buf.get(at + 1).is_some_and(|len| usize::from(*len) < SHORT);
        self.yes(coder, &[hash(of.id, 61); INPUTS], of.id, 305, short)
    }

    /// Codes a short TEXT; `last` is the column's last one. Returns where it ends.
    pub(super) fn short<C: Coder>(
        &mut self,
        coder: &mut C,
        buf: &mut [u8],
        at: usize,
        of: Of,
        last: Place,
        buckets: &mut Buckets,
    ) -> Result<usize, C::Stop> {
        let id = of.id;
        let start = put_tag::<C>(buf, at, TEXT)? + 1;
        let given = if C::ENCODES { usize::from(*buf.get(at + 1).ok_or_else(C::bad)?) } else { SHORT };
        let (before, beside) = (Followed::text(buf, last), Followed::text(buf, self.beside));
        let mut reading = Reading { last: 0, word: 0, len: 0, before, beside, alike: Followed::default() };
        while reading.len < SHORT {
            let here = start + reading.len;
            let (contexts, set) = reading.contexts(buf, id);
            let ends = reading.len >= given;
            let byte = if ends { 0 } else { buf.get(here).copied().ok_or_else(C::bad)? };
            let byte = self.prose.letter(coder, buckets, &contexts, set, byte)?;
            if byte == 0 && self.yes(coder, &[hash(id, 62); INPUTS], id, 306, ends)? {
                *buf.get_mut(at + 1).ok_or_else(C::bad)? = reading.len as u8;
                return Ok(here);
            }
            *buf.get_mut(here).ok_or_else(C::bad)? = byte;
            reading.take_in(buf, byte);
            self.look_alike(buf, here + 1, &mut reading, buckets);
        }
        Err(C::bad())
    }

    /// Looks for bytes like those before `end`, where nothing of that kind is followed yet, and notes these.
    fn look_alike(&mut self, buf: &[u8], end: usize, reading: &mut Reading, buckets: &mut Buckets) {
        if reading.len < ALIKE {
            return;
        }
        let head = &mut self.prose.at(buckets, hash(reading.last, 5)).head;
        let from = usize::from(*head);
        let before = |end: usize| buf.get(end.checked_sub(ALIKE)?..end);
        if reading.alike.end == 0 && from > 0 && before(from) == before(end) {
            reading.alike = Followed { at: from, end: usize::MAX, right: 1, wrong: 0 };
        }
        *head = end as u16;
    }
}
