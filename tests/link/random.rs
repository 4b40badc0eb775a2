//! The link over lines that do everything wrong: whatever the seed, each byte arrives exactly once and
//! in order, in bounded memory and bounded work.
//!
//! A failure prints its seed; `LINK_SEED=n cargo test -p packmule-core --test link_random` replays it.
//! `LINK_RUNS=n` runs more seeds.

mod sim;

use packmule_core::link::{Config, Event, WIRE_MAX};
use sim::{Faults, Make, Rng, World, make};

const S: u64 = 1_000_000;

fn seeds(first: u64, usual: u64) -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    match number("LINK_SEED") {
        Some(seed) => vec![seed],
        None => (first..first + number("LINK_RUNS").unwrap_or(usual)).collect(),
    }
}

fn sizes(rng: &mut Rng) -> Make {
    match rng.below(5) {
        0 => make::<32768, 32768, 2240, 256>(),
        1 => make::<512, 256, 192, 12>(),
        2 => make::<64, 64, 128, 2>(),
        3 => make::<100_000, 70_000, 2295, 1000>(),
        _ => make::<4096, 2000, 700, 40>(),
    }
}

fn faults(rng: &mut Rng, bauds: [u32; 2]) -> Faults {
    let mut f = Faults::clean(bauds[rng.below(2) as usize], [0, 1_000, 5_000, 60_000][rng.below(4) as usize]);
    let pick = |rng: &mut Rng, all: &[f64]| all[rng.below(all.len() as u64) as usize];
    f.flip = pick(rng, &[0.0, 0.0, 1e-6, 1e-5, 1e-4, 5e-4]);
    f.drop = pick(rng, &[0.0, 0.0, 1e-5, 1e-4, 3e-4]);
    f.drop_run = 1 + rng.below(200);
    f.insert = pick(rng, &[0.0, 0.0, 1e-5, 3e-4]);
    f.repeat = pick(rng, &[0.0, 0.0, 1e-5, 1e-4]);
    f.stall = pick(rng, &[0.0, 0.0, 1e-6, 1e-5]);
    f.stall_us = rng.below(400_000);
    let mut at = S;
    for _ in 0..rng.below(3) {
        at += rng.below(4 * S);
        let to = at + rng.below(5 * S);
        f.cuts.push((at, to));
        at = to;
    }
    f
}

fn any(seed: u64) -> World {
    let mut rng = Rng::new(seed);
    let bauds = [[9_600, 115_200], [115_200, 921_600], [921_600, 3_000_000]][rng.below(3) as usize];
    let (a, b) = (faults(&mut rng, bauds), faults(&mut rng, bauds));
    let makes = [sizes(&mut rng), sizes(&mut rng)];
    let most = if bauds[0] == 9_600 { 6_000 } else { 60_000 };
    let totals = [8 + rng.below(most), 8 + rng.below(most)];
    let fec = rng.chance(0.7);
    let mut world = World::new(seed, [a, b], makes, totals, |c: &mut Config| c.fec = fec);
    for end in &mut world.ends {
        if rng.chance(0.4) {
            end.appetite = Some((20 + rng.below(700) as usize, 1 + rng.below(30_000)));
        }
    }
    world
}

#[test]
fn exactly_once_in_order_whatever_the_line_does() {
    for seed in seeds(1, 150) {
        let mut world = any(seed);
        let good = world.run(600 * S, |w| w.over());
        assert!(good, "LINK_SEED={seed} {}", world.report());
        assert!(world.steps < 3_000_000, "LINK_SEED={seed}: {} steps", world.steps);
        for end in &world.ends {
            let count = |event: Event| end.events.iter().filter(|e| **e == event).count();
            assert_eq!(count(Event::Connected), 1, "LINK_SEED={seed} {}", world.report());
            assert_eq!(count(Event::PeerRestarted), 0, "LINK_SEED={seed} {}", world.report());
            assert_eq!(count(Event::PeerFinished), 1, "LINK_SEED={seed} {}", world.report());
            assert_eq!(count(Event::Closed), 1, "LINK_SEED={seed} {}", world.report());
        }
    }
}

/// Either end is killed and comes up again at any moment, several times; then the last streams come
/// through whole, and no byte of one stream ever shows in another (the application checks each).
#[test]
fn ends_that_restart_never_mix_their_streams() {
    for seed in seeds(10_000, 100) {
        let mut world = any(seed);
        let mut rng = Rng::new(seed + 77);
        world.ends.iter_mut().for_each(|e| e.finishes = false);
        for _ in 0..1 + rng.below(5) {
            let until = world.now + rng.below(3 * S);
            let stopped = world.run(until, |_| false);
            assert!(
                !stopped && world.ends.iter().all(|e| e.wrong.is_none()),
                "LINK_SEED={seed} {}",
                world.report()
            );
            world.now = until;
            world.ends[rng.below(2) as usize].reset();
            if rng.chance(0.3) {
                world.clear_lines();
            }
        }
        world.ends.iter_mut().for_each(|e| e.finishes = true);
        let good = world.run(world.now + 600 * S, |w| w.over());
        assert!(good, "LINK_SEED={seed} {}", world.report());
    }
}

/// A line that carries nothing but noise: nothing is delivered, and the machine does bounded work.
#[test]
fn noise_alone_does_nothing() {
    for seed in seeds(20_000, 20) {
        let mut rng = Rng::new(seed);
        let mut world = any(seed);
        let mut bytes = [0; 64];
        for now in (0..2_000u64).map(|ms| ms * 1_000) {
            bytes.iter_mut().for_each(|b| *b = if rng.chance(0.02) { 0 } else { rng.next() as u8 });
            world.ends[0].machine.receive_bytes(now, &bytes);
            assert_eq!(world.ends[0].machine.recv(&mut [0; 8]), 0, "LINK_SEED={seed}");
            let mut out = [0; WIRE_MAX];
            let mut packets = 0;
            while world.ends[0].machine.transmit(now, &mut out) > 0 {
                packets += 1;
            }
            assert!(packets < 4, "LINK_SEED={seed}");
        }
        assert_eq!(world.ends[0].machine.event(), None, "LINK_SEED={seed}");
    }
}
