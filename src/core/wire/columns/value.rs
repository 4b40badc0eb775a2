//! Values by column: what kind each is, and then what it differs by from those before it.

pub(super) use super::super::values::{BIG, BLOB, INT, NULL, REAL, TEXT};
use super::super::values::{put_varint, unzigzag, varint, zigzag};
use super::coder::Coder;
use super::filter::{Filter, Row, Sight};
use super::habit::Habit;
use super::list::{Hits, List};
use super::model::{Contexts, INPUTS, Mixer, SHARED, Steady, hash};
use super::noise::Noise;
use super::number::{self, Numbers};
use super::prose::{Buckets, Prose};
use super::real::{self, Unit};
use super::table::{Place, Table};

pub(super) use super::table::COLUMNS;
const FIELDS: usize = 128;
/// So many columns have a filter of their own.
const FILTERS: usize = 32;
const MEMO_BITS: u32 = 11;
pub(super) const SCALE_MAX: u8 = 17;
/// Scales up to this are tried before a unit is looked for. A decimal with more places may come again by its number.
pub(super) const USUAL_SCALE: u8 = 6;

// Ways to say one of these.
pub(super) const DECIMAL: u8 = 6;
pub(super) const RESCALED: u8 = 7;
pub(super) const MULTIPLE: u8 = 8;
pub(super) const NEW_UNIT: u8 = 9;
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
    pub(super) unit: Unit,
    /// The last REALs, to choose a unit by, and that one. Only who encodes needs them.
    pub(super) recent: [u64; 8],
    pub(super) chosen: Unit,
    pub(super) tries: u8,
    pub(super) tries_of_parts: u8,
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
        unit: Unit::NONE,
        recent: [0; 8],
        chosen: Unit::NONE,
        tries: 0,
        tries_of_parts: 0,
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
    pub(super) prose: Prose,
    pub(super) columns: Table<Column, COLUMNS>,
    /// Of the bytes of each column, and of those of other blocks.
    pub(super) noise: Table<Noise, { COLUMNS + 1 }>,
    pub(super) fields: Table<Numbers, FIELDS>,
    /// By what stood before it: the place of a value.
    memo: Table<Place, { 1 << MEMO_BITS }>,
    /// The last value of any column that may come again.
    pub(super) beside: Place,
    row: Row,
    filters: Table<Filter, FILTERS>,
}

/// Of which column a value is: its number, and a hash that tells its contexts from those of others.
#[derive(Clone, Copy)]
pub(super) struct Of {
    pub(super) index: usize,
    pub(super) id: u32,
    /// A hash of the value before in its row.
    pub(super) before: u32,
}

/// How a value is said. Where it is decoded, only `way` is known.
#[derive(Clone, Copy)]
struct Said {
    way: u8,
    /// The bits of an INTEGER or REAL.
    bits: u64,
}

pub(super) fn place_in(buf: &[u8], place: Place) -> &[u8] {
    buf.get(range(place)).unwrap_or_default()
}

pub(super) fn range(place: Place) -> core::ops::Range<usize> {
    usize::from(place.0)..usize::from(place.0) + usize::from(place.1)
}

pub(super) fn hash_bytes(bytes: &[u8]) -> u32 {
    let (fours, rest) = bytes.as_chunks::<4>();
    let h = fours.iter().fold(bytes.len() as u32, |h, four| hash(h, u32::from_le_bytes(*four)));
    rest.iter().fold(h, |h, byte| hash(h, u32::from(*byte)))
}

impl Values {
    pub(super) const fn new() -> Self {
        Self {
            mixer: Mixer::new(),
            prose: Prose::new(),
            columns: Table::all(Column::NEW),
            noise: Table::all(Noise::NEW),
            fields: Table::all(Numbers::NEW),
            memo: Table::all((0, 0)),
            beside: (0, 0),
            row: Row::NEW,
            filters: Table::all(Filter::NEW),
        }
    }

    pub(super) fn reset(&mut self) {
        self.mixer.reset();
        self.prose.reset();
        self.columns = Table::all(Column::NEW);
        self.noise = Table::all(Noise::NEW);
        self.fields = Table::all(Numbers::NEW);
        self.memo = Table::all((0, 0));
        self.beside = (0, 0);
        self.row = Row::NEW;
        (0..FILTERS).for_each(|index| self.filters[index].forget());
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
    pub(super) fn bytes<C: Coder>(
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
        self.bytes(coder, buf, at..at + len, Of { index: COLUMNS, id, before: 0 })?;
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
        let number = number::code(&mut self.mixer, coder, numbers, (id, 0), None, given)?;
        if C::ENCODES { Ok(end) } else { put_varint(buf, at, zigzag(number)).ok_or_else(C::bad) }
    }

    /// Codes the value at `at` in `buf`, of a column; `before` is a hash of the one before it in its row, and becomes that of
    /// this one. Returns where it ends.
    pub(super) fn value<C: Coder>(
        &mut self,
        coder: &mut C,
        buf: &mut [u8],
        at: usize,
        index: usize,
        before: &mut u32,
        buckets: &mut Buckets,
    ) -> Result<usize, C::Stop> {
        let of = Of { index, id: hash(index as u32, 99), before: *before };
        let (end, bits) = if C::ENCODES { Self::given(buf, at).ok_or_else(C::bad)? } else { (at, 0) };
        let way = if C::ENCODES { self.way(buf, at..end, of, bits, buckets) } else { 0 };
        let said = Said { way: self.code_way(coder, of, way)?, bits };
        let (end, of_value) = match said.way {
            NULL => (put_tag::<C>(buf, at, NULL)?, 1),
            INT | DECIMAL | RESCALED | MULTIPLE | NEW_UNIT => {
                let (end, of_value) = self.number::<C>(coder, buf, at..end, of, said)?;
                if self.is_long(index, said.way) {
                    (end, self.note(buf, at..end, of, true, buckets).ok_or_else(C::bad)?)
                } else {
                    (end, of_value)
                }
            }
            BIG => {
                let mut end = put_tag::<C>(buf, at, BIG)?;
                end = self.raw(coder, buf, end, 1, of.id)?;
                for _ in 0..3 {
                    (_, end) = self.raw_varint(coder, buf, end, of.id)?;
                }
                (self.raw(coder, buf, end, 32, of.id)?, 2)
            }
            _ => self.run(coder, buf, at..end, of, said.way, buckets)?,
        };
        *before = of_value;
        Ok(end)
    }

    /// Returns whether a number of a column said this way has so many digits that it may be worth to say it by a number of
    /// fewer, when it comes again.
    pub(super) fn is_long(&self, index: usize, way: u8) -> bool {
        let column = &self.columns[index];
        match way {
            DECIMAL | RESCALED => column.scale > USUAL_SCALE,
            MULTIPLE | NEW_UNIT => matches!(column.unit, Unit::Parts { .. }),
            _ => way == REAL,
        }
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
    ) -> Result<(usize, u32), C::Stop> {
        let Of { index, id, before } = of;
        self.unit(coder, of, said)?;
        let column = &mut self.columns[index];
        let (unit, scale) = (column.unit, column.scale);
        let (numbers, given, units) = match said.way {
            INT => (&mut column.integers, Some(said.bits as i64), 1.0),
            DECIMAL | RESCALED => {
                (&mut column.decimals, real::mantissa(said.bits, scale), real::power(scale))
            }
            _ => (&mut column.multiples, unit.count(said.bits), unit.per_one()),
        };
        let given = if C::ENCODES { given.ok_or_else(C::bad)? } else { 0 };
        let id = numbers.known_as(id);
        let sight = Sight { filter: &mut self.filters[index], row: &self.row, index, units };
        let number = number::code(&mut self.mixer, coder, numbers, (id, before), Some(sight), given)?;
        if said.way == INT {
            self.row.note(index, number as f64);
            let start = put_tag::<C>(buf, at.start, INT)?;
            let end = if C::ENCODES {
                at.end
            } else {
                put_varint(buf, start, zigzag(number)).ok_or_else(C::bad)?
            };
            return Ok((end, number::hash_of(number)));
        }
        let is_decimal = matches!(said.way, DECIMAL | RESCALED);
        let number = if is_decimal { real::decimal(number, scale) } else { unit.times(number) };
        self.row.note(index, number);
        let start = put_tag::<C>(buf, at.start, REAL)?;
        let bits = number.to_bits();
        if !C::ENCODES {
            buf.get_mut(start..start + 8).ok_or_else(C::bad)?.copy_from_slice(&bits.to_le_bytes());
        }
        Ok((start + 8, number::hash_of(bits as i64)))
    }

    /// Codes what numbers of a column are counted in from here on, where it is new.
    fn unit<C: Coder>(&mut self, coder: &mut C, of: Of, said: Said) -> Result<(), C::Stop> {
        let column = &mut self.columns[of.index];
        let mixer = &mut self.mixer;
        let mut code = |id, given| {
            let mut numbers = Numbers::NEW;
            number::code(mixer, coder, &mut numbers, (id, 0), None, given)
        };
        if said.way == RESCALED {
            let new = (0..=SCALE_MAX).find(|scale| real::mantissa(said.bits, *scale).is_some()).unwrap_or(0);
            let new = code(SHARED ^ 6, i64::from(new))?;
            let new = u8::try_from(new).ok().filter(|new| *new <= SCALE_MAX).ok_or_else(C::bad)?;
            let up = 10i64.wrapping_pow(u32::from(new.saturating_sub(column.scale)));
            column.decimals.set(column.decimals.last.wrapping_mul(up));
            column.scale = new;
            self.filters[of.index].forget();
        }
        if said.way == NEW_UNIT {
            let given = code(SHARED ^ 8, column.chosen.number())?;
            column.unit = Unit::of_number(given).ok_or_else(C::bad)?;
            self.filters[of.index].forget();
        }
        Ok(())
    }
}

/// Returns the bytes of a TEXT or BLOB whose length takes one byte.
pub(super) fn body(value: &[u8]) -> &[u8] {
    value.get(2..).unwrap_or(&[])
}

/// Writes what is before a value, where it is not there yet. Returns where it ends.
pub(super) fn put_tag<C: Coder>(buf: &mut [u8], at: usize, tag: u8) -> Result<usize, C::Stop> {
    if !C::ENCODES {
        *buf.get_mut(at).ok_or_else(C::bad)? = tag;
    }
    Ok(at + 1)
}
