//! Integers: what each differs by from the one before it in its column, from what a filter expects, or from where they
//! stand about.
//!
//! A column turns to its filter where that costs less: values that follow from others (humidity from two temperatures),
//! not those that stand on a grid.

use super::coder::Coder;
use super::filter::Sight;
use super::habit::Habit;
use super::level::{From, Level, mean};
use super::model::{Contexts, INPUTS, Mixer, SHARED, Steady, hash};
use super::size::{LowNoise, Sizes, tree_of};

/// What is known of the numbers of a column.
#[derive(Clone, Copy)]
pub(super) struct Numbers {
    pub(super) last: i64,
    step: i64,
    /// The last difference, as it was coded, and whether it was that twice.
    moved: (i64, bool),
    from: From,
    level: Level,
    /// What a number costs without the filter and with it, in 1/256 bit: running means.
    costs: [u32; 2],
    /// So many that are mixed must come before the filter is turned to.
    wait: u8,
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
        moved: (0, false),
        from: From::Last,
        level: Level::NEW,
        costs: [0; 2],
        wait: AT_FIRST,
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
        self.step = number.wrapping_sub(self.last);
        self.last = number;
    }

    /// Goes on from another number, without a step.
    pub(super) fn set(&mut self, last: i64) {
        *self = Self { last, ..Self::NEW };
    }
}

const KIND: u32 = 1;
/// A filter must save so much of a difference's length to be turned to, and what is left be so much below what a number costs.
const SAVES: u16 = 160;
const BELOW: u32 = 256;
/// It is turned from where numbers cost so much more by it.
const MARGIN: u32 = 64;
const AT_FIRST: u8 = 8;
const AGAIN: u8 = 255;
/// What differences downward stand under, where they are told from those upward.
const DOWN: u32 = 0x5A5A;

/// Returns a hash of a number.
pub(super) fn hash_of(number: i64) -> u32 {
    hash(number as u32, (number >> 32) as u32)
}

/// Codes a number of the column `id`, of which `before` is a hash of the value before it in its row.
pub(super) fn code<C: Coder>(
    mixer: &mut Mixer,
    coder: &mut C,
    numbers: &mut Numbers,
    (id, before): (u32, u32),
    mut sight: Option<Sight<'_>>,
    number: i64,
) -> Result<i64, C::Stop> {
    let by_filter = numbers.from == From::Filter;
    let mut taps = sight.as_ref().filter(|_| by_filter).map(|sight| sight.taps(numbers.last));
    let base = match (numbers.from, &sight, &taps) {
        (From::Filter, Some(sight), Some(taps)) => sight.filter.expect(taps).unwrap_or(numbers.last),
        (From::Level, ..) => numbers.level.kept,
        _ => numbers.last,
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
        return Ok(numbers.last);
    }
    let spent = (mixer.spent, mixer.spent_alone);
    let again = again.filter(|_| numbers.again.slot().is_none());
    let id = id ^ numbers.from as u32;
    let alone = numbers.habit.is_alone();
    let contexts: Contexts = if alone {
        [hash(id, 1); INPUTS]
    } else {
        [
            hash(id, 1),
            hash(hash(id, 2), hash_of(numbers.step)),
            hash(hash(id, 3), hash_of(numbers.last)),
            hash(hash(id, 4), before),
        ]
    };
    let moved = step_code(
        mixer,
        coder,
        (&contexts, alone),
        (id, numbers.from == From::Level),
        (&mut numbers.sizes, &mut numbers.noise),
        (wanted, again),
    )?;
    numbers.moved = (moved, moved == numbers.moved.0);
    numbers.again.count(numbers.moved.1 && moved != 0);
    let cost = mixer.spent.wrapping_sub(spent.0);
    if !alone {
        numbers.habit.learn(cost, mixer.spent_alone.wrapping_sub(spent.1));
        taps = taps.or_else(|| sight.as_ref().map(|sight| sight.taps(numbers.last)));
    }
    let number = base.wrapping_add(moved);
    // What is neither mixed nor expected by the filter does not train it.
    let misses = sight.as_mut().zip(taps).map(|(sight, taps)| {
        sight.filter.learn(&taps, number);
        sight.filter.misses
    });
    learn(numbers, misses, number, (!alone).then_some(cost));
    Ok(number)
}

/// Learns from a number that has been coded: where the next one is counted from. `misses` is what the filter misses by.
fn learn(numbers: &mut Numbers, misses: Option<u16>, number: i64, cost: Option<u32>) {
    let step = number.wrapping_sub(numbers.last);
    numbers.stand(number);
    let from = numbers.from;
    if from != From::Filter {
        numbers.from = numbers.level.learn(from, number, step);
    }
    let Some(cost) = cost else { return };
    let [plain, filtered] = &mut numbers.costs;
    if from == From::Filter {
        *filtered = mean(*filtered, cost, 32);
        if *filtered >= *plain + MARGIN {
            (numbers.from, numbers.wait) = (From::Last, AGAIN);
        }
        return;
    }
    *plain = mean(*plain, cost, 32);
    numbers.wait = numbers.wait.saturating_sub(1);
    let best = numbers.level.length_from(from);
    let pays = |misses: u16| misses + SAVES < best && u32::from(misses) + BELOW < *plain;
    if numbers.wait == 0 && misses.is_some_and(pays) {
        (numbers.from, *filtered) = (From::Filter, *plain);
    }
}

/// Codes a difference; `again` is what it was twice.
fn step_code<C: Coder>(
    mixer: &mut Mixer,
    coder: &mut C,
    (contexts, alone): (&Contexts, bool),
    (id, at_level): (u32, bool),
    (sizes, noise): (&mut Sizes, &mut LowNoise),
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
    let mut sided = *contexts;
    if down {
        // About a level the same values come again: those below it are not those above.
        let shared = usize::from(!at_level);
        sided.iter_mut().skip(shared).for_each(|context| *context ^= DOWN);
    }
    let contexts = &sided;
    let size = step.unsigned_abs();
    let bits = sizes.code(mixer, coder, (contexts, alone), id, 63 - (size | 1).leading_zeros())?;
    let found = noise.digits(mixer, coder, (contexts, alone), id, (size, bits))?;
    Ok(if down { (found as i64).wrapping_neg() } else { found as i64 })
}
