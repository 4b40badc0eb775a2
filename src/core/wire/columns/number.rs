//! Integers: what each differs by from the one before it in its column, or from what a filter expects.
//!
//! The filter is normalised least mean squares (Haykin, "Adaptive Filter Theory") over the last step of the column and
//! the steps that the two numbers before it in the row have just made. A column turns to it where it costs less: values
//! that follow from others (humidity from two temperatures), not those that stand on a grid.

use super::coder::Coder;
use super::habit::Habit;
use super::model::{Contexts, INPUTS, Mixer, Steady, TOGETHER, Tree, hash};

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
    noise: LowNoise,
    habit: Habit,
    /// Whether differences stay the same.
    again: Steady,
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
        noise: LowNoise::NEW,
        habit: Habit::NEW,
        again: Steady::NEW,
    };

    /// Stands at the next number.
    fn stand(&mut self, number: i64) {
        (self.before, self.step) = (self.step, number.wrapping_sub(self.last));
        self.last = number;
    }

    /// Goes on from another number, without a step.
    pub(super) fn set(&mut self, last: i64) {
        *self = Self { last, ..Self::NEW };
    }
}

/// The values before one in its row.
#[derive(Clone, Copy, Default)]
pub(super) struct Beside {
    /// A hash of the one before.
    pub(super) before: u32,
    /// The steps that the last two numbers have made.
    pub(super) steps: [f64; 2],
}

const KIND: u32 = 1;
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
    let expect = |weights: &[f64; TAPS]| {
        let expected: f64 = taps.iter().zip(weights).map(|(tap, weight)| tap * weight).sum();
        (expected + if expected < 0.0 { -0.5 } else { 0.5 }) as i64
    };
    let base = match numbers.filtered {
        true => numbers.last.wrapping_add(expect(&numbers.weights)),
        false => numbers.last,
    };
    let again = Some(numbers.moved.0).filter(|again| numbers.moved.1 && *again != 0);
    let wanted = number.wrapping_sub(base);
    let steady = match (again, numbers.again.slot()) {
        (Some(again), Some(slot)) => slot.code(coder, wanted == again)?.then_some(again),
        _ => None,
    };
    if let Some(moved) = steady {
        // The filter knows nothing better.
        numbers.stand(base.wrapping_add(moved));
        beside.steps = [tap(numbers.step), beside.steps[0]];
        return Ok(numbers.last);
    }
    let spent = (mixer.spent, mixer.spent_alone);
    let again = again.filter(|_| numbers.again.slot().is_none());
    let id = id ^ u32::from(numbers.filtered);
    let alone = numbers.habit.is_alone();
    let step = hash_of(numbers.step);
    let contexts: Contexts = if alone {
        [hash(id, 1); INPUTS]
    } else {
        [
            hash(id, 1),
            hash(hash(id, 2), step),
            hash(hash(id, 3), hash_of(numbers.last)),
            hash(hash(id, 4), beside.before),
        ]
    };
    let moved = step_code(mixer, coder, (&contexts, alone), (id, &mut numbers.noise), (wanted, again))?;
    numbers.moved = (moved, moved == numbers.moved.0);
    numbers.again.count(numbers.moved.1 && moved != 0);
    let cost = mixer.spent.wrapping_sub(spent.0);
    if !alone {
        numbers.habit.learn(cost, mixer.spent_alone.wrapping_sub(spent.1));
    }
    let number = base.wrapping_add(moved);
    learn(numbers, taps, expect(&numbers.weights), number, (!alone).then_some(cost));
    beside.steps = [tap(numbers.step), beside.steps[0]];
    Ok(number)
}

/// Learns from a number that has been coded.
fn learn(numbers: &mut Numbers, taps: [f64; TAPS], expected: i64, number: i64, cost: Option<u32>) {
    let step = number.wrapping_sub(numbers.last);
    let missed = tap(step) - tap(expected);
    let power: f64 = 1.0 + taps.iter().map(|tap| tap * tap).sum::<f64>();
    for (weight, tap) in numbers.weights.iter_mut().zip(taps) {
        *weight = (*weight + missed * tap / power / 64.0).clamp(-64.0, 64.0);
    }
    numbers.stand(number);
    let Some(cost) = cost else { return };
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
}

/// Codes a difference; `again` is what it was twice.
fn step_code<C: Coder>(
    mixer: &mut Mixer,
    coder: &mut C,
    (contexts, alone): (&Contexts, bool),
    (id, noise): (u32, &mut LowNoise),
    (step, again): (i64, Option<i64>),
) -> Result<i64, C::Stop> {
    let tree = tree_of(mixer, (contexts, alone), id, KIND);
    // What has gone on in equal steps costs one decision.
    if let Some(again) = again
        && mixer.code(coder, &tree, 1, step == again)?
    {
        return Ok(again);
    }
    if mixer.code(coder, &tree, 2, step == 0)? {
        return Ok(0);
    }
    let down = mixer.code(coder, &tree, 3, step < 0)?;
    let size = step.unsigned_abs();
    let bits = bits_code(mixer, coder, (contexts, alone), id, 63 - (size | 1).leading_zeros())?;
    let mut found = 1u64;
    let mut left = bits;
    let direct = noise.below(bits);
    while left > direct {
        let seen = bits - left;
        let node = if seen < MODELLED { found as u32 } else { 1 << MODELLED | left };
        let tree = tree_of(mixer, (contexts, alone), id ^ 2 << 4, DIGITS + (bits << 14) + node);
        let mut below = 1;
        for _ in 0..TOGETHER.min(left - direct) {
            left -= 1;
            let spent = mixer.spent;
            let one = mixer.code(coder, &tree, below, size >> left & 1 == 1)?;
            if !alone {
                noise.learn(left, mixer.spent.wrapping_sub(spent));
            }
            below = below << 1 | u32::from(one);
            found = found << 1 | u64::from(one);
        }
    }
    found = found << left | u64::from(coder.direct(left, size as u32 & ((1 << left) - 1))?);
    Ok(if down { (found as i64).wrapping_neg() } else { found as i64 })
}

fn tree_of(mixer: &mut Mixer, (contexts, alone): (&Contexts, bool), id: u32, node: u32) -> Tree {
    if alone { mixer.tree_alone(contexts[0], node) } else { mixer.tree(contexts, id, node) }
}

/// Codes how many bits a number has, less 1: in sevens, each of three decisions, of which the last is not full.
fn bits_code<C: Coder>(
    mixer: &mut Mixer,
    coder: &mut C,
    contexts: (&Contexts, bool),
    id: u32,
    bits: u32,
) -> Result<u32, C::Stop> {
    let mut from = 0;
    loop {
        let tree = tree_of(mixer, contexts, id ^ 1 << 4, BITS + from);
        let here = (bits - from.min(bits)).min(7);
        let mut node = 1;
        for at in (0..TOGETHER).rev() {
            let one = mixer.code(coder, &tree, node, here >> at & 1 == 1)?;
            node = node << 1 | u32::from(one);
        }
        let here = node & 7;
        if here < 7 || from == 56 {
            return Ok((from + here).min(63));
        }
        from += 7;
    }
}

/// What the lowest digits of a column's differences cost: those of which nothing can be learned are said as they are.
#[derive(Clone, Copy)]
pub(super) struct LowNoise {
    /// Running means, in 1/256 bit.
    costs: [u8; LOW],
    numbers: u8,
}

const LOW: usize = 12;
/// What a digit costs at which nothing is to be gained.
const NOTHING: u8 = 251;
/// One number in so many is tried.
const TRIED: u8 = 16;

impl LowNoise {
    const NEW: Self = Self { costs: [224; LOW], numbers: 0 };

    /// Counts a number of so many digits; returns how many of the lowest are said as they are.
    fn below(&mut self, bits: u32) -> u32 {
        self.numbers = self.numbers.wrapping_add(1);
        if self.numbers.is_multiple_of(TRIED) {
            return 0;
        }
        let noisy = self.costs.iter().take_while(|cost| **cost >= NOTHING).count();
        (noisy as u32).min(bits)
    }

    /// Learns what a digit has cost.
    fn learn(&mut self, digit: u32, cost: u32) {
        if let Some(mean) = self.costs.get_mut(digit as usize) {
            *mean = ((u32::from(*mean) * 15 + cost.min(271) + 8) / 16).min(255) as u8;
        }
    }
}
