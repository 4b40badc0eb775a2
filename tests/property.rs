//! Random writes on 2–4 devices, each with a clock of its own, carried about in any order, in part
//! and repeatedly, resolved anywhere, under changing schemas; devices fold, are lost, cloned, and
//! started from snapshots: all devices end alike, like a naive model, and no version is lost.
//!
//! `PACKMULE_SEED=N` replays one schedule; `PACKMULE_SCHEDULES=N` says how many are run, from
//! `PACKMULE_FIRST=N` on.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod bundles;
mod common;
mod model;
mod schedule;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use schedule::Schedule;
use schedule::run::{run, shrink};

/// How many schedules are run where it is not said: as many as the suite has time for.
const USUAL: u64 = 300;
/// The same of those in which devices fold as they like.
const USUAL_FOLDS: u64 = 60;

/// What the schedules that failed wrote to standard error would be in the way.
fn quietly() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let show = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let quiet = info.location().is_some_and(|l| l.file().contains("schedule"));
            if !quiet {
                show(info);
            }
        }));
    });
}

#[test]
fn all_schedules_converge_to_the_model() {
    quietly();
    let seeds: Vec<u64> = common::seeds(USUAL).collect();
    // Two cores: each takes every other schedule.
    let failed = Mutex::new(Vec::new());
    let totals: [AtomicUsize; 9] = Default::default();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match run(&Schedule::new(*seed), false) {
                        Ok(counts) => counts.iter().zip(&totals).for_each(|(n, total)| {
                            total.fetch_add(*n, Ordering::Relaxed);
                        }),
                        Err(_) => failed.lock().unwrap().push(*seed),
                    }
                    if failed.lock().unwrap().len() >= 5 {
                        return;
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner().unwrap();
    failed.sort_unstable();
    if let Some(seed) = failed.first() {
        let least = shrink(&Schedule::new(*seed), false);
        let (trace, text) = run(&least, false).unwrap_err();
        panic!("failed: {failed:?}; the first, shrunk:\nPACKMULE_SEED={seed}\n{}\n{text}", trace.join("\n"));
    }
    println!(
        "{} schedules; rows contested, parked, dangling; conflicts resolved; versions folded, devices joined, UNIQUEs made, devices retired, copies gone on anew: {totals:?}",
        seeds.len()
    );
    // A run in which nothing clashed would show nothing.
    assert!(seeds.len() < USUAL as usize || totals.iter().all(|n| n.load(Ordering::Relaxed) > 0));
}

#[test]
fn a_winner_by_arrival_fails_within_a_hundred_schedules() {
    quietly();
    let failed = (0..100).find(|seed| run(&Schedule::new(*seed), true).is_err());
    assert!(failed.is_some(), "the test does not see that the winner depends on the order of arrival");
}

#[test]
fn whoever_folds_what_nobody_else_has_shows_what_the_log_says() {
    quietly();
    let totals: [AtomicUsize; 7] = Default::default();
    let failed = Mutex::new(Vec::new());
    let seeds = common::seeds(USUAL_FOLDS);
    let n = seeds.end - seeds.start;
    common::on_all_cores(seeds, &|seed| match schedule::folds::run(seed, false) {
        Ok(counts) => counts.iter().zip(&totals).for_each(|(n, total)| {
            total.fetch_add(*n, Ordering::Relaxed);
        }),
        Err((trace, text)) => failed.lock().unwrap().push((seed, trace, text)),
    });
    println!(
        "{n} schedules; verdicts on rows, versions folded, newcomers, backups taken back, conflicts open at the end, \
         resolutions, revocations: {totals:?}"
    );
    let mut failed = failed.into_inner().unwrap();
    failed.sort();
    let numbers: Vec<u64> = failed.iter().map(|(seed, ..)| *seed).collect();
    if let Some((seed, trace, text)) = failed.first() {
        panic!("failed: {numbers:?}; the first:\nPACKMULE_SEED={seed}\n{}\n{text}", trace.join("\n"));
    }
    // A run in which nothing was judged would show nothing.
    assert!(n < USUAL_FOLDS || totals.iter().all(|n| n.load(Ordering::Relaxed) > 0));
}

#[test]
fn a_settled_value_that_counts_as_seen_fails_within_a_hundred_schedules() {
    quietly();
    let failed = (0..100).find(|seed| schedule::folds::run(*seed, true).is_err());
    assert!(failed.is_some(), "the test does not see that a write is lost where a verdict is due");
}
