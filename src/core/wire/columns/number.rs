//! Integers: what each differs by from the one before it in its column, or from what a filter expects.
//!
//! The filter is normalised least mean squares (Haykin, "Adaptive Filter Theory") over the last step of the column and
//! the steps that the two numbers before it in the row have just made. A column turns to it where it costs less: values
//! that follow from others (humidity from two temperatures), not those that stand on a grid.

use super::coder::Coder;
use super::model::{Contexts, Mixer, hash};

const TAPS: usize = 3;

/// What is known of the numbers of a column.
#[derive(Clone, Copy)]
pub(super) struct Numbers {
    pub(super) last: i64,
    step: i64,
    before: i64,
    /// The last difference, as it was coded, and whether it was that twice.
    moved: (i64, bool),
    weights: [f64; TAPS],
    /// Whether the filter's expectation is what numbers differ from.
    filtered: bool,
    /// What a number costs without the filter and with it, in 1/256 bit: a running mean.
    costs: [u32; 2],
}

impl Numbers {
    pub(super) const NEW: Self = Self {
        last: 0,
        step: 0,
        before: 0,
        moved: (0, false),
        weights: [0.0; TAPS],
        filtered: false,
        costs: [0, 64 * 256],
    };

    /// Goes on from another number, without a step.
    pub(super) fn set(&mut self, last: i64) {
        *self = Self { last, ..Self::NEW };
    }
}

/// The values before one in its row.
#[derive(Clone, Copy, Default)]
pub(super) struct Beside {
    /// A hash of the one before.
    pub(super) one: u32,
    /// A hash of the two before.
    pub(super) two: u32,
    /// The steps that the last two numbers have made.
    pub(super) steps: [f64; 2],
}

const AGAIN: u32 = 3;
const ZERO: u32 = 1;
const SIGN: u32 = 2;
const BITS: u32 = 64;
const DIGITS: u32 = 1 << 16;
/// So many of the highest digits are modelled together.
const MODELLED: u32 = 10;
/// A filter must save so much to be turned to.
const MARGIN: u32 = 192;

/// Returns a hash of a number.
pub(super) fn hash_of(number: i64) -> u32 {
    hash(number as u32, (number >> 32) as u32)
}

/// Returns the input of the filter, of a size with which it cannot overflow.
fn tap(step: i64) -> f64 {
    step.clamp(-(1 << 40), 1 << 40) as f64
}

/// Codes a number of the column `id`.
pub(super) fn code<C: Coder>(
    mixer: &mut Mixer,
    coder: &mut C,
    numbers: &mut Numbers,
    id: u32,
    beside: &mut Beside,
    number: i64,
) -> Result<i64, C::Stop> {
    let taps = [tap(numbers.step), beside.steps[0], beside.steps[1]];
    let expected: f64 = taps.iter().zip(&numbers.weights).map(|(tap, weight)| tap * weight).sum();
    let expected = (expected + if expected < 0.0 { -0.5 } else { 0.5 }) as i64;
    let base = if numbers.filtered { numbers.last.wrapping_add(expected) } else { numbers.last };
    let id = id ^ u32::from(numbers.filtered);
    let step = hash_of(numbers.step);
    let contexts: Contexts = [
        hash(id, 1),
        hash(hash(id, 2), step),
        hash(hash(id, 3), hash_of(numbers.last)),
        hash(hash(id, 4), beside.one),
        hash(hash(hash(id, 5), step), hash_of(numbers.before)),
        hash(hash(hash(id, 6), beside.two), hash_of(numbers.last)),
    ];
    let spent = mixer.spent;
    let again = Some(numbers.moved.0).filter(|again| numbers.moved.1 && *again != 0);
    let moved = step_code(mixer, coder, &contexts, id, (number.wrapping_sub(base), again))?;
    numbers.moved = (moved, moved == numbers.moved.0);
    let cost = mixer.spent.wrapping_sub(spent);
    let number = base.wrapping_add(moved);
    learn(numbers, taps, expected, number, cost);
    beside.steps = [tap(numbers.step), beside.steps[0]];
    Ok(number)
}

/// Learns from a number that has been coded.
fn learn(numbers: &mut Numbers, taps: [f64; TAPS], expected: i64, number: i64, cost: u32) {
    let step = number.wrapping_sub(numbers.last);
    let missed = tap(step) - tap(expected);
    let power: f64 = 1.0 + taps.iter().map(|tap| tap * tap).sum::<f64>();
    for (weight, tap) in numbers.weights.iter_mut().zip(taps) {
        *weight = (*weight + missed * tap / power / 64.0).clamp(-64.0, 64.0);
    }
    let mean = |old: u32, new: u32| (old * 31 + new) / 32;
    let [plain, filtered] = &mut numbers.costs;
    if numbers.filtered {
        *filtered = mean(*filtered, cost);
        numbers.filtered = *filtered < *plain + MARGIN;
        if !numbers.filtered {
            *filtered = 64 * 256;
        }
    } else {
        *plain = mean(*plain, cost);
        let guess = 64 - (missed as i64).unsigned_abs().leading_zeros() + 2;
        *filtered = mean(*filtered, guess * 256);
        numbers.filtered = *filtered + MARGIN < *plain;
    }
    (numbers.last, numbers.step, numbers.before) = (number, step, numbers.step);
}

/// Codes a difference; `again` is what it was twice.
fn step_code<C: Coder>(
    mixer: &mut Mixer,
    coder: &mut C,
    contexts: &Contexts,
    set: u32,
    (step, again): (i64, Option<i64>),
) -> Result<i64, C::Stop> {
    let mut decide = |node: u32, one: bool| mixer.code(coder, contexts, set, node, one);
    // What has gone on in equal steps costs one decision.
    if let Some(again) = again
        && decide(AGAIN, step == again)?
    {
        return Ok(again);
    }
    if decide(ZERO, step == 0)? {
        return Ok(0);
    }
    let down = decide(SIGN, step < 0)?;
    let size = step.unsigned_abs();
    let wanted = 63 - (size | 1).leading_zeros();
    let (mut bits, mut node) = (0, 1);
    for at in (0..6).rev() {
        let one = decide(BITS + node, wanted >> at & 1 == 1)?;
        bits = bits << 1 | u32::from(one);
        node = node << 1 | u32::from(one);
    }
    let mut found = 1u64;
    for at in (0..bits).rev() {
        let seen = bits - at - 1;
        let node = if seen < MODELLED { found as u32 } else { 1 << MODELLED | at };
        let one = decide(DIGITS + (bits << 14) + node, size >> at & 1 == 1)?;
        found = found << 1 | u64::from(one);
    }
    Ok(if down { (found as i64).wrapping_neg() } else { found as i64 })
}
