//! Integers: what each differs by from the one before it in its column, from what a filter expects, or from where they
//! stand about.
//!
//! The filter is normalised least mean squares (Haykin, "Adaptive Filter Theory") over the last step of the column and
//! the steps that the two numbers before it in the row have just made. A column turns to it where it costs less: values
//! that follow from others (humidity from two temperatures), not those that stand on a grid.

use super::coder::Coder;
use super::habit::Habit;
use super::level::{From, Level, mean, real};
use super::model::{Contexts, INPUTS, Mixer, SHARED, Steady, hash};
use super::size::{LowNoise, Sizes, tree_of};

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
    from: From,
    level: Level,
    /// What a number costs without the filter and with it, in 1/256 bit: a running mean.
    costs: [u32; 2],
    sizes: Sizes,
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
        from: From::Last,
        level: Level::NEW,
        costs: [0, 64 * 256],
        sizes: Sizes::NEW,
        noise: LowNoise::NEW,
        habit: Habit::NEW,
        again: Steady::NEW,
    };

    /// Returns what tells its contexts from those of others: of first numbers all are alike.
    pub(super) fn known_as(&self, id: u32) -> u32 {
        if self.sizes.is_new() { SHARED } else { id }
    }

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
/// A filter must save so much to be turned to.
const MARGIN: u32 = 192;

/// Returns a hash of a number.
pub(super) fn hash_of(number: i64) -> u32 {
    hash(number as u32, (number >> 32) as u32)
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
    let taps = [real(numbers.step), beside.steps[0], beside.steps[1]];
    let expect = |weights: &[f64; TAPS]| {
        let expected: f64 = taps.iter().zip(weights).map(|(tap, weight)| tap * weight).sum();
        (expected + if expected < 0.0 { -0.5 } else { 0.5 }) as i64
    };
    let base = match numbers.from {
        From::Last => numbers.last,
        From::Filter => numbers.last.wrapping_add(expect(&numbers.weights)),
        From::Level => numbers.level.kept,
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
        beside.steps = [real(numbers.step), beside.steps[0]];
        return Ok(numbers.last);
    }
    let spent = (mixer.spent, mixer.spent_alone);
    let again = again.filter(|_| numbers.again.slot().is_none());
    let id = id ^ numbers.from as u32;
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
    let moved = step_code(
        mixer,
        coder,
        (&contexts, alone),
        (id, &mut numbers.sizes, &mut numbers.noise),
        (wanted, again),
    )?;
    numbers.moved = (moved, moved == numbers.moved.0);
    numbers.again.count(numbers.moved.1 && moved != 0);
    let cost = mixer.spent.wrapping_sub(spent.0);
    if !alone {
        numbers.habit.learn(cost, mixer.spent_alone.wrapping_sub(spent.1));
    }
    let number = base.wrapping_add(moved);
    // What is neither mixed nor expected by the filter does not train it.
    let expected = (!alone || numbers.from == From::Filter).then(|| expect(&numbers.weights));
    learn(numbers, taps, expected, number, (!alone).then_some(cost));
    beside.steps = [real(numbers.step), beside.steps[0]];
    Ok(number)
}

/// Learns from a number that has been coded.
fn learn(numbers: &mut Numbers, taps: [f64; TAPS], expected: Option<i64>, number: i64, cost: Option<u32>) {
    let step = number.wrapping_sub(numbers.last);
    let mut missed = 0.0;
    if let Some(expected) = expected {
        missed = real(step) - real(expected);
        let power: f64 = 1.0 + taps.iter().map(|tap| tap * tap).sum::<f64>();
        for (weight, tap) in numbers.weights.iter_mut().zip(taps) {
            *weight = (*weight + missed * tap / power / 64.0).clamp(-64.0, 64.0);
        }
    }
    numbers.stand(number);
    if numbers.from != From::Filter {
        numbers.from = numbers.level.learn(numbers.from, number, step);
    }
    let Some(cost) = cost else { return };
    let [plain, filtered] = &mut numbers.costs;
    match numbers.from {
        From::Filter => {
            *filtered = mean(*filtered, cost, 32);
            if *filtered >= *plain + MARGIN {
                numbers.from = From::Last;
                *filtered = 64 * 256;
            }
        }
        From::Last => {
            *plain = mean(*plain, cost, 32);
            let guess = 64 - (missed as i64).unsigned_abs().leading_zeros() + 2;
            *filtered = mean(*filtered, guess * 256, 32);
            if *filtered + MARGIN < *plain {
                numbers.from = From::Filter;
            }
        }
        From::Level => {}
    }
}

/// Codes a difference; `again` is what it was twice.
fn step_code<C: Coder>(
    mixer: &mut Mixer,
    coder: &mut C,
    (contexts, alone): (&Contexts, bool),
    (id, sizes, noise): (u32, &mut Sizes, &mut LowNoise),
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
    let bits = sizes.code(mixer, coder, (contexts, alone), id, 63 - (size | 1).leading_zeros())?;
    let found = noise.digits(mixer, coder, (contexts, alone), id, (size, bits))?;
    Ok(if down { (found as i64).wrapping_neg() } else { found as i64 })
}
