//! How inputs are made from others, and what is kept of them.
//!
//! What is mutated is what a target begins with and `tests/fuzz/corpus`, where it keeps the inputs that brought something
//! new: an end or a number of steps that no earlier input had, and inputs that reached branches which no other reached, as a run
//! guided by coverage (libFuzzer) found them. Ordinary runs replay all of these, and try some thousand
//! mutations, always the same. `PACKMULE_EXECUTIONS=N` tries N of each target, `PACKMULE_SEED=N` others,
//! `PACKMULE_TARGET=NAME` one target alone; with `PACKMULE_BLESS=1` what is new goes into the corpus.

#[path = "corpus.rs"]
mod corpus;
#[path = "../common/random.rs"]
#[allow(dead_code)] // Each test uses a part of it.
pub mod random;

use std::collections::BTreeSet;
use std::panic::catch_unwind;
use std::time::Instant;

use random::{Random, number};

/// How an input ended, and how far it got: two inputs of one signature teach the same.
pub type Signature = u64;

/// Something that reads what somebody sends.
pub struct Target {
    pub name: &'static str,
    pub seeds: fn() -> Vec<Vec<u8>>,
    pub run: fn(&[u8]) -> Signature,
    /// How many executions one counts for: those that take long are tried less often.
    pub weight: u64,
}

/// Up to where something went: the first steps each, then by powers of two.
pub fn got(steps: usize) -> Signature {
    let steps = steps as u64;
    1_000_000 + if steps < 16 { steps } else { 16 + u64::from(steps.ilog2()) }
}

/// Changes a few places; `bytes` stays short.
fn mutate(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let below = |random: &mut Random, end: usize| random.below(end.max(1) as u64) as usize;
    for _ in 0..=random.below(4) {
        let at = below(random, bytes.len());
        let to = (at + below(random, 20)).min(bytes.len());
        match random.below(9) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 if at < bytes.len() => bytes[at] = random.next() as u8,
            // The ends of ranges, the longest varints, kinds and flags.
            2 if at < bytes.len() => bytes[at] = *random.pick(&[0, 1, 2, 3, 4, 5, 0x7f, 0x80, 0xff]),
            3 => bytes.insert(at, *random.pick(&[0, 1, 0x80, 0xff, 0x40])),
            4 => drop(bytes.drain(at..to)),
            5 => bytes.truncate(to),
            6 if at < bytes.len() => bytes[at] = bytes[at].wrapping_add(*random.pick(&[1, 0xff, 8, 0xf8])),
            7 if !other.is_empty() && bytes.len() < 4_000 => {
                let from = below(random, other.len());
                let end = (from + below(random, 60)).min(other.len());
                drop(bytes.splice(at..to, other[from..end].iter().copied()));
            }
            _ if bytes.len() < 4_000 => {
                let copy = bytes[at..to].to_vec();
                let into = below(random, bytes.len());
                drop(bytes.splice(into..into, copy));
            }
            _ => {}
        }
    }
}

/// Runs an input. What goes wrong names it.
fn run(target: &Target, input: &[u8]) -> Signature {
    catch_unwind(|| (target.run)(input))
        .unwrap_or_else(|_| panic!("{}: {}", target.name, corpus::to_hex(input)))
}

/// Replays what is known of a target, then tries so many mutations of it; how many inputs brought something new.
fn fuzz(target: &Target, executions: u64) -> (usize, usize) {
    let mut inputs = (target.seeds)();
    inputs.extend(corpus::of(target.name));
    let mut known: BTreeSet<Signature> = inputs.iter().map(|input| run(target, input)).collect();
    let (had, mut new) = (inputs.len(), Vec::new());
    let mut random = Random(number("PACKMULE_SEED").unwrap_or(1) << 8 ^ target.name.len() as u64);
    let mut bytes = Vec::new();
    for _ in 0..executions {
        bytes.clone_from(random.pick(&inputs));
        let other = random.below(inputs.len() as u64) as usize;
        mutate(&mut bytes, &inputs[other], &mut random);
        if known.insert(run(target, &bytes)) && inputs.len() < had + 4_000 {
            inputs.push(bytes.clone());
            new.push(bytes.clone());
        }
    }
    if std::env::var_os("PACKMULE_BLESS").is_some() {
        corpus::add(target.name, &new);
    }
    (known.len(), new.len())
}

/// Tries all that are wanted.
pub fn try_all(targets: &[Target]) {
    let only = std::env::var("PACKMULE_TARGET").ok();
    let wanted = number("PACKMULE_EXECUTIONS");
    for target in targets.iter().filter(|target| only.as_ref().is_none_or(|only| only == target.name)) {
        let executions = wanted.unwrap_or(8_000 / target.weight + 200);
        let begun = Instant::now();
        let (ends, new) = fuzz(target, executions);
        println!(
            "{:>20}: {executions} executions, {ends} ends, {new} new, {} ms",
            target.name,
            begun.elapsed().as_millis()
        );
        assert!(ends > 1, "{}: the mutations find nothing to do", target.name);
    }
}
