//! Values by column: what kind each is, and then what it differs by from those before it.

pub(super) use super::super::values::{BIG, BLOB, INT, NULL, REAL, TEXT};
use super::super::values::{put_varint, unzigzag, varint, zigzag};
use super::coder::Coder;
use super::habit::Habit;
use super::list::{Hits, LISTED_BITS, List, Place};
use super::model::{Contexts, INPUTS, Mixer, SHARED, Steady, hash};
use super::noise::Noise;
use super::number::{self, Beside, Numbers};
use super::real::{self, Factor};
use super::table::Table;
use super::text::{FORMS, Runs, Short, form_of};

pub(super) const COLUMNS: usize = 64;
const FIELDS: usize = 256;
const MEMO_BITS: u32 = 11;
pub(super) const SCALE_MAX: u8 = 17;

// Ways to say one of these.
pub(super) const DECIMAL: u8 = 6;
pub(super) const RESCALED: u8 = 7;
pub(super) const MULTIPLE: u8 = 8;
pub(super) const NEW_FACTOR: u8 = 9;
pub(super) const FIELDED: u8 = 10;
pub(super) const AFTER_LAST: u8 = 11;
pub(super) const LISTED: u8 = 12;
pub(super) const BESIDE: u8 = 13;
pub(super) const HEXED: u8 = 14;
pub(super) const DATED: u8 = 15;

#[derive(Clone, Copy)]
pub(super) struct Column {
    pub(super) way: u8,
    /// The way before that, which was another one.
    pub(super) other: u8,
    pub(super) ways: u32,
    pub(super) stays: Steady,
    /// Of its ways.
    pub(super) habit: Habit,
    pub(super) scale: u8,
    pub(super) factor: Factor,
    /// The last REALs, to choose a factor by. Only who encodes needs them.
    pub(super) recent: [u64; 8],
    pub(super) tries: u8,
    pub(super) integers: Numbers,
    pub(super) decimals: Numbers,
    pub(super) multiples: Numbers,
    pub(super) lengths: Numbers,
    /// The last TEXT or BLOB.
    pub(super) last: Place,
    pub(super) last_hash: u32,
    pub(super) list: List,
    /// Only who encodes needs them.
    pub(super) hits: Hits,
}

impl Column {
    const NEW: Self = Self {
        way: NULL,
        other: NULL,
        ways: 0,
        stays: Steady::NEW,
        habit: Habit::NEW,
        scale: 0,
        factor: Factor { mantissa: 0 },
        recent: [0; 8],
        tries: 0,
        integers: Numbers::NEW,
        decimals: Numbers::NEW,
        multiples: Numbers::NEW,
        lengths: Numbers::NEW,
        last: (0, 0),
        last_hash: 0,
        list: List::NEW,
        hits: Hits::NEW,
    };
}

/// All that is learned of the values in a frame.
pub(super) struct Values {
    pub(super) mixer: Mixer,
    pub(super) columns: Table<Column, COLUMNS>,
    /// Of the bytes of each column, and of those of other blocks.
    pub(super) noise: Table<Noise, { COLUMNS + 1 }>,
    fields: Table<Numbers, FIELDS>,
    /// By what stood before it: the place of a value.
    memo: Table<Place, { 1 << MEMO_BITS }>,
}

/// A column: which one, and a hash that tells its contexts from those of others.
#[derive(Clone, Copy)]
pub(super) struct Of {
    pub(super) index: usize,
    pub(super) id: u32,
}

/// How a value is said. Where it is decoded, only `way` is known.
#[derive(Clone, Copy)]
struct Said {
    way: u8,
    /// The bits of an INTEGER or REAL.
    bits: u64,
}

fn place_in(buf: &[u8], place: Place) -> &[u8] {
    buf.get(range(place)).unwrap_or_default()
}

pub(super) fn range(place: Place) -> core::ops::Range<usize> {
    usize::from(place.0)..usize::from(place.0) + usize::from(place.1)
}

fn hash_bytes(bytes: &[u8]) -> u32 {
    let (fours, rest) = bytes.as_chunks::<4>();
    let h = fours.iter().fold(bytes.len() as u32, |h, four| hash(h, u32::from_le_bytes(*four)));
    rest.iter().fold(h, |h, byte| hash(h, u32::from(*byte)))
}

impl Values {
    pub(super) const fn new() -> Self {
        Self {
            mixer: Mixer::new(),
            columns: Table::all(Column::NEW),
            noise: Table::all(Noise::NEW),
            fields: Table::all(Numbers::NEW),
            memo: Table::all((0, 0)),
        }
    }

    pub(super) fn reset(&mut self) {
        self.mixer.reset();
        self.columns = Table::all(Column::NEW);
        self.noise = Table::all(Noise::NEW);
        self.fields = Table::all(Numbers::NEW);
        self.memo = Table::all((0, 0));
    }

    pub(super) fn memo(&mut self, of: u32) -> &mut Place {
        &mut self.memo[(of >> (32 - MEMO_BITS)) as usize]
    }

    /// Codes a decision by itself.
    pub(super) fn yes<C: Coder>(
        &mut self,
        coder: &mut C,
        contexts: &Contexts,
        set: u32,
        node: u32,
        one: bool,
    ) -> Result<bool, C::Stop> {
        let tree = self.mixer.tree(contexts, set, node);
        self.mixer.code(coder, &tree, 1, one)
    }

    /// Codes the byte at `at` of `buf`, in contexts of its own.
    pub(super) fn byte<C: Coder>(
        &mut self,
        coder: &mut C,
        buf: &mut [u8],
        at: usize,
        contexts: &Contexts,
        set: u32,
    ) -> Result<u8, C::Stop> {
        let slot = buf.get_mut(at).ok_or_else(C::bad)?;
        *slot = self.mixer.digits(coder, contexts, (set, 0), 8, u32::from(*slot))? as u8;
        Ok(*slot)
    }

    /// Codes the bytes at `at`, by those before them.
    fn bytes<C: Coder>(
        &mut self,
        coder: &mut C,
        buf: &mut [u8],
        at: core::ops::Range<usize>,
        of: Of,
    ) -> Result<(), C::Stop> {
        let id = of.id;
        let (mut prefix, mut one, mut two) = (0, 0, 0);
        let noise = of.index.min(COLUMNS);
        self.noise[noise].count();
        let (start, end) = (at.start, at.end);
        let mut i = start;
        while i < end {
            let place = i - start;
            if self.noise[noise].is_at(place) {
                let two_bytes = i + 1 < end && self.noise[noise].is_at(place + 1);
                let said = buf.get_mut(i..=i + usize::from(two_bytes)).ok_or_else(C::bad)?;
                let given = said.iter().fold(0, |all, byte| all << 8 | u32::from(*byte));
                let number = coder.direct(8 * said.len() as u32, given)?;
                i += said.len();
                for (byte, of) in said.iter_mut().rev().zip(number.to_le_bytes()) {
                    *byte = of;
                }
                // What comes after it begins as after nothing.
                (prefix, one, two) = (0, 0, 0);
                continue;
            }
            let spent = self.mixer.spent;
            let contexts: Contexts =
                [hash(id, 11), hash(hash(id, 12), prefix), hash(hash(id, 13), one), hash(hash(id, 14), two)];
            let byte = u32::from(self.byte(coder, buf, i, &contexts, id ^ 7)?) + 1;
            self.noise[noise].learn(place, self.mixer.spent.wrapping_sub(spent));
            prefix = hash(prefix, byte);
            (two, one) = (one << 9 | byte, byte);
            i += 1;
        }
        Ok(())
    }

    /// Codes the varint at `at`, byte for byte. Returns it and where it ends.
    pub(super) fn raw_varint<C: Coder>(
        &mut self,
        coder: &mut C,
        buf: &mut [u8],
        at: usize,
        id: u32,
    ) -> Result<(u64, usize), C::Stop> {
        for i in 0..10 {
            let contexts = [hash(id, i); INPUTS];
            if self.byte(coder, buf, at + i as usize, &contexts, id)? < 128 {
                return varint(buf, at).ok_or_else(C::bad);
            }
        }
        Err(C::bad())
    }

    /// Codes bytes of no meaning. Returns where they end.
    pub(super) fn raw<C: Coder>(
        &mut self,
        coder: &mut C,
        buf: &mut [u8],
        at: usize,
        len: usize,
        id: u32,
    ) -> Result<usize, C::Stop> {
        if buf.len() < at || buf.len() - at < len {
            return Err(C::bad());
        }
        self.bytes(coder, buf, at..at + len, Of { index: COLUMNS, id })?;
        Ok(at + len)
    }

    /// Codes bytes of which nothing can be known. Returns where they end.
    pub(super) fn direct<C: Coder>(
        &mut self,
        coder: &mut C,
        buf: &mut [u8],
        at: usize,
        len: usize,
    ) -> Result<usize, C::Stop> {
        let end = at + len;
        for byte in buf.get_mut(at..end).ok_or_else(C::bad)? {
            *byte = coder.direct(8, u32::from(*byte))? as u8;
        }
        Ok(end)
    }

    /// Codes the signed number at `at`, a varint. Returns where it ends.
    pub(super) fn signed<C: Coder>(
        &mut self,
        coder: &mut C,
        buf: &mut [u8],
        at: usize,
        id: u32,
    ) -> Result<usize, C::Stop> {
        let (given, end) = if C::ENCODES { varint(buf, at).ok_or_else(C::bad)? } else { (0, at) };
        let given = unzigzag(given);
        let numbers = &mut self.fields[id as usize];
        let number = number::code(&mut self.mixer, coder, numbers, id, &mut Beside::default(), given)?;
        if C::ENCODES { Ok(end) } else { put_varint(buf, at, zigzag(number)).ok_or_else(C::bad) }
    }

    /// Codes the value at `at` in `buf`, of a column. Returns where it ends.
    pub(super) fn value<C: Coder>(
        &mut self,
        coder: &mut C,
        buf: &mut [u8],
        at: usize,
        index: usize,
        beside: &mut Beside,
    ) -> Result<usize, C::Stop> {
        let of = Of { index, id: hash(index as u32, 99) };
        let (end, bits) = if C::ENCODES { Self::given(buf, at).ok_or_else(C::bad)? } else { (at, 0) };
        let way = if C::ENCODES { self.way(buf, at..end, of, bits, *beside) } else { 0 };
        let said = Said { way: self.code_way(coder, of, *beside, way)?, bits };
        let (end, of_value) = match said.way {
            NULL => (put_tag::<C>(buf, at, NULL)?, 1),
            INT | REAL | DECIMAL | RESCALED | MULTIPLE | NEW_FACTOR => {
                self.number::<C>(coder, buf, at..end, of, said, beside)?
            }
            BIG => {
                let mut end = put_tag::<C>(buf, at, BIG)?;
                end = self.raw(coder, buf, end, 1, of.id)?;
                for _ in 0..3 {
                    (_, end) = self.raw_varint(coder, buf, end, of.id)?;
                }
                (self.raw(coder, buf, end, 32, of.id)?, 2)
            }
            _ => self.run(coder, buf, at, of, said.way, *beside)?,
        };
        beside.before = of_value;
        Ok(end)
    }

    /// Returns where the value at `at` ends, as far as the choice of its way asks, and its bits if it is a number.
    fn given(buf: &[u8], at: usize) -> Option<(usize, u64)> {
        let body = at + 1;
        Some(match *buf.get(at)? {
            NULL | BIG => (body, 0),
            INT => {
                let (number, end) = varint(buf, body)?;
                (end, unzigzag(number) as u64)
            }
            REAL => (body + 8, u64::from_le_bytes(*buf.get(body..)?.first_chunk()?)),
            TEXT | BLOB => {
                let (len, start) = varint(buf, body)?;
                let end = start.checked_add(usize::try_from(len).ok()?).filter(|end| *end <= buf.len())?;
                (end, 0)
            }
            _ => return None,
        })
    }

    /// Codes an INTEGER or a REAL, which stands at `at` where it is known. Returns where it ends, and a hash of it.
    fn number<C: Coder>(
        &mut self,
        coder: &mut C,
        buf: &mut [u8],
        at: core::ops::Range<usize>,
        of: Of,
        said: Said,
        beside: &mut Beside,
    ) -> Result<(usize, u32), C::Stop> {
        let (Of { index, id }, Said { way, bits }) = (of, said);
        let column = &mut self.columns[index];
        let mixer = &mut self.mixer;
        if way == INT {
            let id = column.integers.known_as(id);
            let number = number::code(mixer, coder, &mut column.integers, id, beside, bits as i64)?;
            let start = put_tag::<C>(buf, at.start, INT)?;
            let end = if C::ENCODES {
                at.end
            } else {
                put_varint(buf, start, zigzag(number)).ok_or_else(C::bad)?
            };
            return Ok((end, number::hash_of(number)));
        }
        let start = put_tag::<C>(buf, at.start, REAL)?;
        let end = start + 8;
        if way == REAL {
            self.bytes(coder, buf, start..end, Of { index: index % COLUMNS, id: id ^ 5 })?;
            return Ok((end, hash_bytes(buf.get(start..end).ok_or_else(C::bad)?)));
        }
        self.unit(coder, of, said)?;
        let column = &mut self.columns[index];
        let mixer = &mut self.mixer;
        let number = if way == DECIMAL || way == RESCALED {
            let given = if C::ENCODES { real::mantissa(bits, column.scale).ok_or_else(C::bad)? } else { 0 };
            let id = column.decimals.known_as(id);
            real::decimal(number::code(mixer, coder, &mut column.decimals, id, beside, given)?, column.scale)
        } else {
            let given = if C::ENCODES { column.factor.count(bits).ok_or_else(C::bad)? } else { 0 };
            let id = column.multiples.known_as(id);
            column.factor.times(number::code(mixer, coder, &mut column.multiples, id, beside, given)?)
        };
        let bits = number.to_bits();
        if !C::ENCODES {
            buf.get_mut(start..end).ok_or_else(C::bad)?.copy_from_slice(&bits.to_le_bytes());
        }
        Ok((end, number::hash_of(bits as i64)))
    }

    /// Codes what numbers of a column are counted in from here on, where it is new.
    fn unit<C: Coder>(&mut self, coder: &mut C, of: Of, said: Said) -> Result<(), C::Stop> {
        let column = &mut self.columns[of.index];
        let mixer = &mut self.mixer;
        let mut code = |id, given| {
            let mut numbers = Numbers::NEW;
            number::code(mixer, coder, &mut numbers, id, &mut Beside::default(), given)
        };
        if said.way == RESCALED {
            let new = (0..=SCALE_MAX).find(|scale| real::mantissa(said.bits, *scale).is_some()).unwrap_or(0);
            let new = code(SHARED ^ 6, i64::from(new))?;
            let new = u8::try_from(new).ok().filter(|new| *new <= SCALE_MAX).ok_or_else(C::bad)?;
            let up = 10i64.wrapping_pow(u32::from(new.saturating_sub(column.scale)));
            column.decimals.set(column.decimals.last.wrapping_mul(up));
            column.scale = new;
        }
        if said.way == NEW_FACTOR {
            let found = if C::ENCODES { Factor::of(said.bits, &column.recent) } else { None };
            column.factor = Factor { mantissa: code(SHARED ^ 8, found.map_or(0, |factor| factor.mantissa))? };
        }
        Ok(())
    }

    /// Codes a TEXT or BLOB. Returns where it ends, and a hash of it.
    fn run<C: Coder>(
        &mut self,
        coder: &mut C,
        buf: &mut [u8],
        at: usize,
        of: Of,
        way: u8,
        beside: Beside,
    ) -> Result<(usize, u32), C::Stop> {
        let Of { index, id } = of;
        let Column { last, last_hash, .. } = self.columns[index];
        let after = hash(hash(id, 1), last_hash);
        let beside_key = hash(hash(id, 2), beside.before);
        let is_new = !matches!(way, AFTER_LAST | BESIDE | LISTED);
        let end = match way {
            AFTER_LAST | BESIDE | LISTED => {
                let place = match way {
                    AFTER_LAST => *self.memo(after),
                    BESIDE => *self.memo(beside_key),
                    _ => self.listed(coder, buf, at, of, beside)?,
                };
                let end = at + usize::from(place.1);
                if place.1 == 0 || end > buf.len() || range(place).end > buf.len() {
                    return Err(C::bad());
                }
                if !C::ENCODES {
                    buf.copy_within(range(place), at);
                }
                end
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
            TEXT | BLOB => {
                let start = put_tag::<C>(buf, at, way)?;
                let len = if C::ENCODES { varint(buf, start).ok_or_else(C::bad)?.0 as i64 } else { 0 };
                let lengths = &mut self.columns[index].lengths;
                let of_len = lengths.known_as(id ^ 9);
                let len = number::code(&mut self.mixer, coder, lengths, of_len, &mut Beside::default(), len)?;
                let start = put_varint(buf, start, len as u64).ok_or_else(C::bad)?;
                let len = usize::try_from(len).map_err(|_| C::bad())?;
                if len > buf.len() || start > buf.len() - len {
                    return Err(C::bad());
                }
                let id = if last.1 == 0 { SHARED } else { id };
                let of = Of { index: index % COLUMNS, id: id ^ u32::from(way) };
                self.bytes(coder, buf, start..start + len, of)?;
                start + len
            }
            _ => return Err(C::bad()),
        };
        let place = (at as u16, (end - at) as u16);
        let of_value = hash_bytes(buf.get(at..end).ok_or_else(C::bad)?);
        *self.memo(after) = place;
        *self.memo(beside_key) = place;
        let column = &mut self.columns[index];
        (column.last, column.last_hash) = (place, of_value);
        if is_new {
            column.list.add(place);
        }
        Ok((end, of_value))
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
        at: usize,
        of: Of,
        beside: Beside,
    ) -> Result<Place, C::Stop> {
        let id = of.id;
        let list = &self.columns[of.index].list;
        let is = |place: Place| {
            place.1 > 0 && buf.get(at..).is_some_and(|rest| rest.starts_with(place_in(buf, place)))
        };
        let given = if C::ENCODES { list.find(is).ok_or_else(C::bad)? } else { 0 };
        let contexts: Contexts = [
            hash(id, 51),
            hash(hash(id, 52), list.said & 0xF),
            hash(hash(id, 53), list.said & 0xFF),
            hash(hash(id, 54), beside.before),
        ];
        let number = self.mixer.digits(coder, &contexts, (id ^ 10, 560), LISTED_BITS, given)?;
        let list = &mut self.columns[of.index].list;
        list.say(number);
        Ok(list.place(number))
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
        let Of { index, id } = of;
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
            let mut around = Beside { before: of_step, steps: [0.0; 2] };
            let number = number::code(&mut self.mixer, coder, numbers, id, &mut around, given)?;
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

/// Returns the bytes of a TEXT or BLOB whose length takes one byte.
pub(super) fn body(value: &[u8]) -> &[u8] {
    value.get(2..).unwrap_or(&[])
}

/// Writes what is before a value, where it is not there yet. Returns where it ends.
fn put_tag<C: Coder>(buf: &mut [u8], at: usize, tag: u8) -> Result<usize, C::Stop> {
    if !C::ENCODES {
        *buf.get_mut(at).ok_or_else(C::bad)? = tag;
    }
    Ok(at + 1)
}
