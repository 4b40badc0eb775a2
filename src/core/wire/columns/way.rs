//! The ways to say a value: which one is taken, and how it is told.

use super::coder::Coder;
use super::list::Lists;
use super::model::{Contexts, INPUTS, SHARED, hash};
use super::prose::Buckets;
use super::real::{self, Unit};
use super::size::tree_of;
use super::table::Place;
use super::text::{Hexed, Runs, form_of};
use super::value::{
    AFTER_LAST, BESIDE, BLOB, DATED, DECIMAL, FIELDED, HEXED, LISTED, MULTIPLE, NEW_UNIT, NULL, Of, REAL,
    RESCALED, SCALE_MAX, TEXT, USUAL_SCALE, Values, body, hash_bytes, range,
};

/// What is looked for in a number's REAL by trying is not tried for ever.
const TRIES: u8 = 16;
const TRIES_OF_PARTS: u8 = 4;

impl Values {
    /// Chooses how to say a value.
    pub(super) fn way(
        &mut self,
        buf: &[u8],
        value: core::ops::Range<usize>,
        of: Of,
        bits: u64,
        buckets: &mut Buckets,
    ) -> u8 {
        let kind = match buf.get(value.start).copied().unwrap_or(NULL) {
            REAL => self.way_of_real(of.index, bits),
            kind => kind,
        };
        let is_text = kind == TEXT || kind == BLOB;
        if !is_text && !self.will_be_long(of.index, kind) {
            return kind;
        }
        let bytes = buf.get(value).unwrap_or_default();
        match self.repeated(buf, bytes, of, buckets) {
            Some(way) => way,
            None if is_text => self.way_of_text(buf, bytes, of.index),
            None => kind,
        }
    }

    /// Returns whether a REAL that is to be said this way will have many digits.
    fn will_be_long(&self, index: usize, way: u8) -> bool {
        match way {
            RESCALED => true,
            NEW_UNIT => matches!(self.columns[index].chosen, Unit::Parts { .. }),
            way => self.is_long(index, way),
        }
    }

    /// Returns how to say a value as one that was there before, if it was.
    fn repeated(&mut self, buf: &[u8], bytes: &[u8], of: Of, buckets: &mut Buckets) -> Option<u8> {
        let is = |place: Place| place.1 > 0 && buf.get(range(place)) == Some(bytes);
        let guesses = [(*self.after_last(of), AFTER_LAST), (*self.stood_here(of), BESIDE)];
        let mut right = None;
        for (n, (place, way)) in guesses.into_iter().enumerate() {
            let hit = is(place);
            let hits = &mut self.columns[of.index].hits;
            hits.learn(n, hit);
            if hit && hits.mostly(n) {
                return Some(way);
            }
            right = right.or(hit.then_some(way));
        }
        let mut lists = Lists { prose: &mut self.prose, buckets };
        let number = lists.find(of.id, hash_bytes(bytes));
        if is(lists.place(of.id, number)) { Some(LISTED) } else { right }
    }

    /// Returns how to say a TEXT or BLOB that was not there before.
    fn way_of_text(&self, buf: &[u8], bytes: &[u8], index: usize) -> u8 {
        let kind = bytes.first().copied().unwrap_or(NULL);
        let last = buf.get(range(self.columns[index].last)).unwrap_or_default();
        if kind == TEXT && last.is_empty() && form_of(body(bytes)).is_some() {
            return DATED;
        }
        let alike = kind == TEXT && Runs::same_but_digits(bytes, last) && Runs::of(body(last)).is_some();
        let is_short = bytes.get(1).is_some_and(|len| *len < 128);
        if alike && is_short {
            return FIELDED;
        }
        let hexed = if kind == TEXT && last.first() == Some(&TEXT) { Hexed::of(body(last)) } else { None };
        let alike = hexed.is_some_and(|of| of.same_but_digits(body(last), body(bytes)));
        if alike && is_short { HEXED } else { kind }
    }

    fn way_of_real(&mut self, index: usize, bits: u64) -> u8 {
        let column = &mut self.columns[index];
        column.recent.rotate_right(1);
        column.recent[0] = bits;
        let is_unit = column.unit != Unit::NONE;
        if is_unit && column.unit.count(bits).is_some() {
            return MULTIPLE;
        }
        let is_decimal = real::mantissa(bits, column.scale).is_some();
        if is_decimal && (column.scale <= USUAL_SCALE || is_unit || column.tries_of_parts >= TRIES_OF_PARTS) {
            return DECIMAL;
        }
        let usual = (0..=USUAL_SCALE).find(|scale| real::mantissa(bits, *scale).is_some());
        if usual.is_some() {
            return if is_decimal {
                DECIMAL
            } else if usual > Some(column.scale) {
                RESCALED
            } else {
                REAL
            };
        }
        if !is_unit && column.tries_of_parts < TRIES_OF_PARTS {
            column.tries_of_parts += 1;
            if let Some(unit) = Unit::parts_of(bits) {
                column.chosen = unit;
                return NEW_UNIT;
            }
        }
        if is_decimal {
            return DECIMAL;
        }
        if column.tries < TRIES {
            column.tries += 1;
            if let Some(unit) = Unit::factor_of(bits, &column.recent) {
                column.chosen = unit;
                return NEW_UNIT;
            }
            if (USUAL_SCALE..=SCALE_MAX).any(|scale| real::mantissa(bits, scale).is_some()) {
                return RESCALED;
            }
        }
        REAL
    }

    pub(super) fn code_way<C: Coder>(&mut self, coder: &mut C, of: Of, way: u8) -> Result<u8, C::Stop> {
        let Of { index, id, before } = of;
        let column = &mut self.columns[index];
        let steady = column.stays.slot();
        let was_steady = steady.is_some();
        if let Some(slot) = steady
            && slot.code(coder, way == column.way)?
        {
            return Ok(column.way);
        }
        let spent = (self.mixer.spent, self.mixer.spent_alone);
        let id = if column.ways == 0 { SHARED } else { id };
        let alone = column.habit.is_alone();
        // Alone: what comes after these two.
        let mut contexts: Contexts = [hash(hash(id, 22), column.ways & 0xFF); INPUTS];
        if !alone {
            contexts = [
                hash(hash(id, 22), column.ways & 0xFF),
                hash(id, 21),
                hash(hash(id, 23), column.ways & 0xFFFF),
                hash(hash(id, 24), before),
            ];
        }
        let set = id ^ 3;
        let tree = tree_of(&mut self.mixer, (&contexts, alone), set, 512);
        let other = column.other;
        let coded = if !was_steady && self.mixer.code(coder, &tree, 1, way == column.way)? {
            column.way
        } else if other != column.way && self.mixer.code(coder, &tree, 2, way == other)? {
            other
        } else {
            self.mixer.digits(coder, &contexts, (set, 520), 4, u32::from(way))? as u8
        };
        if !alone {
            let cost = self.mixer.spent.wrapping_sub(spent.0);
            column.habit.learn(cost, self.mixer.spent_alone.wrapping_sub(spent.1));
        }
        column.stays.count(coded == column.way);
        // What comes once is no sign of what comes next.
        let comes_on = match coded {
            RESCALED => DECIMAL,
            NEW_UNIT => MULTIPLE,
            DATED => FIELDED,
            other => other,
        };
        if comes_on != column.way {
            (column.other, column.way) = (column.way, comes_on);
        }
        column.ways = column.ways << 4 | u32::from(column.way);
        Ok(coded)
    }
}
