//! The ways to say a value: which one is taken, and how it is told.

use super::coder::Coder;
use super::list::Place;
use super::model::{Contexts, INPUTS, SHARED, hash};
use super::number::Beside;
use super::real::{self, Factor};
use super::size::tree_of;
use super::text::{Hexed, Runs, form_of};
use super::value::{
    AFTER_LAST, BESIDE, BLOB, Column, DATED, DECIMAL, FIELDED, HEXED, LISTED, MULTIPLE, NEW_FACTOR, NULL, Of,
    REAL, RESCALED, SCALE_MAX, TEXT, Values, body, range,
};

/// What is looked for in a number's REAL by trying is not tried for ever.
const TRIES: u8 = 16;
/// Scales up to this are tried before a factor is looked for.
const USUAL_SCALE: u8 = 6;

impl Values {
    /// Chooses how to say a value.
    pub(super) fn way(
        &mut self,
        buf: &[u8],
        value: core::ops::Range<usize>,
        of: Of,
        bits: u64,
        beside: Beside,
    ) -> u8 {
        let Of { index, id } = of;
        match buf.get(value.start).copied().unwrap_or(NULL) {
            REAL => self.way_of_real(index, bits),
            kind @ (TEXT | BLOB) => {
                let Column { last, last_hash, .. } = self.columns[index];
                let bytes = buf.get(value).unwrap_or_default();
                let is = |place: Place| place.1 > 0 && buf.get(range(place)) == Some(bytes);
                let after = *self.memo(hash(hash(id, 1), last_hash));
                let beside = *self.memo(hash(hash(id, 2), beside.before));
                let mut right = None;
                for (n, (place, way)) in [(after, AFTER_LAST), (beside, BESIDE)].into_iter().enumerate() {
                    let hit = is(place);
                    let hits = &mut self.columns[index].hits;
                    hits.learn(n, hit);
                    if hit && hits.mostly(n) {
                        return way;
                    }
                    right = right.or(hit.then_some(way));
                }
                if self.columns[index].list.find(is).is_some() {
                    return LISTED;
                }
                if let Some(way) = right {
                    return way;
                }
                let last = buf.get(range(last)).unwrap_or_default();
                if kind == TEXT && last.is_empty() && form_of(body(bytes)).is_some() {
                    return DATED;
                }
                let alike =
                    kind == TEXT && Runs::same_but_digits(bytes, last) && Runs::of(body(last)).is_some();
                let is_short = bytes.get(1).is_some_and(|len| *len < 128);
                if alike && is_short {
                    return FIELDED;
                }
                let hexed =
                    if kind == TEXT && last.first() == Some(&TEXT) { Hexed::of(body(last)) } else { None };
                let alike = hexed.is_some_and(|of| of.same_but_digits(body(last), body(bytes)));
                if alike && is_short { HEXED } else { kind }
            }
            kind => kind,
        }
    }

    fn way_of_real(&mut self, index: usize, bits: u64) -> u8 {
        let column = &mut self.columns[index];
        column.recent.rotate_right(1);
        column.recent[0] = bits;
        if column.factor.mantissa > 0 && column.factor.count(bits).is_some() {
            return MULTIPLE;
        }
        if real::mantissa(bits, column.scale).is_some() {
            return DECIMAL;
        }
        let usual = (0..=USUAL_SCALE).find(|scale| real::mantissa(bits, *scale).is_some());
        if usual.is_some() {
            return if usual > Some(column.scale) { RESCALED } else { REAL };
        }
        if column.tries < TRIES {
            column.tries += 1;
            if Factor::of(bits, &column.recent).is_some() {
                return NEW_FACTOR;
            }
            if (USUAL_SCALE..=SCALE_MAX).any(|scale| real::mantissa(bits, scale).is_some()) {
                return RESCALED;
            }
        }
        REAL
    }

    pub(super) fn code_way<C: Coder>(
        &mut self,
        coder: &mut C,
        of: Of,
        beside: Beside,
        way: u8,
    ) -> Result<u8, C::Stop> {
        let Of { index, id } = of;
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
                hash(hash(id, 24), beside.before),
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
            NEW_FACTOR => MULTIPLE,
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
