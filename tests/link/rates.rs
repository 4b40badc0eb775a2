//! The rate of the line: raised where both ends allow it and the cable carries it, and lost in good order where
//! it does not. In virtual time; what an end sends at one rate is noise to an end at another.
//!
//! A failure of the random test prints its seed; `LINK_SEED=n cargo test -p packmule-core --test link_rates` replays
//! it.

mod sim;

use packmule_core::link::{Config, Event};
use sim::{Faults, Port, Rng, World, make};

const S: u64 = 1_000_000;
const FIRST: u32 = 115_200;
const SIZE: u64 = 400_000;

/// Two boards; `most`: the highest rates of their ports.
fn world(seed: u64, faults: &Faults, most: [u32; 2]) -> World {
    let board = make::<32768, 32768, 2240, 256>;
    let settings = |config: &mut Config| {
        let second = config.nonce % 1_000_000 >= 200_000;
        config.baud_max = most[usize::from(second)];
        // Which end leads is no matter of which end it is.
        config.nonce ^= (seed as u32 & 1).wrapping_neg() & 0x8000_0000 & u32::from(second).wrapping_neg();
    };
    let mut world =
        World::new(seed, [faults.clone(), faults.clone()], [board(), board()], [SIZE, 1_000], settings);
    world.ends.iter_mut().for_each(|end| end.finishes = false);
    world
}

fn carried(world: &World) -> bool {
    world.ends[1].got == world.ends[0].total && world.ends[0].got == world.ends[1].total
}

/// Runs until all is carried; the seconds.
#[track_caller]
fn whole(world: &mut World, limit: u64) -> f64 {
    let begun = world.now;
    assert!(world.run(begun + limit, |w| carried(w)), "{}", world.report());
    (world.now - begun) as f64 / 1e6
}

/// The rates above the first that an end's port was set to.
fn tried(world: &World, who: usize) -> Vec<u32> {
    world.ends[who].rates.iter().map(|(_, rate)| *rate).filter(|rate| *rate != FIRST).collect()
}

fn now_at(world: &World) -> [u32; 2] {
    [0, 1].map(|who| world.ends[who].machine.baud())
}

#[test]
fn it_is_the_highest_that_both_allow() {
    for (seed, most, rate) in [
        (1, [921_600, 3_000_000], 921_600),
        (2, [3_000_000, 460_800], 460_800),
        (3, [250_000, 250_000], 250_000),
    ] {
        let mut world = world(seed, &Faults::clean(FIRST, 5_000), most);
        let seconds = whole(&mut world, 60 * S);
        assert_eq!(now_at(&world), [rate; 2], "{}", world.report());
        assert_eq!([tried(&world, 0), tried(&world, 1)], [[rate], [rate]], "at once, and once");
        let at_once = SIZE as f64 * 10.0 / f64::from(rate);
        assert!(seconds < 0.4 + at_once / 0.95, "{seconds} s, {at_once} s at {rate}");
        for end in &world.ends {
            assert!(end.events.contains(&Event::Baud(rate)) && !end.events.contains(&Event::Silent));
        }
        assert!(world.queue_worst_us() < 25_000.0, "{}", world.queue_worst_us());
    }
}

#[test]
fn with_an_end_that_does_not_change_it_is_as_before() {
    let seconds = |most| {
        let mut world = world(1, &Faults::clean(FIRST, 5_000), most);
        let seconds = whole(&mut world, 60 * S);
        assert_eq!([tried(&world, 0), tried(&world, 1)], [[0; 0], [0; 0]]);
        (seconds, world.ends[0].machine.stats())
    };
    let before = seconds([FIRST; 2]);
    assert_eq!(seconds([921_600, FIRST]), before);
    assert_eq!(seconds([FIRST, 921_600]), before);
}

#[test]
fn what_the_cable_does_not_carry_is_tried_once() {
    for seed in 1..=4 {
        let faults = Faults { carries: vec![(0, 500_000)], ..Faults::clean(FIRST, 5_000) };
        let mut world = world(seed, &faults, [3_000_000; 2]);
        let seconds = whole(&mut world, 60 * S);
        assert_eq!(now_at(&world), [460_800; 2], "{}", world.report());
        let expected = [3_000_000, 1_500_000, 921_600, 460_800];
        assert_eq!([tried(&world, 0), tried(&world, 1)], [expected, expected]);
        assert!(seconds < SIZE as f64 / 46_080.0 + 3.0, "{seconds}");
        // Nothing above is tried again, however long it lasts.
        world.run(world.now + 60 * S, |_| false);
        assert_eq!(tried(&world, 0), expected);
    }
}

/// No rate at all: what the trials cost is bounded.
#[test]
fn a_cable_for_the_first_rate_alone() {
    let faults = Faults { carries: vec![(0, 200_000)], ..Faults::clean(FIRST, 5_000) };
    let mut world = world(1, &faults, [3_000_000; 2]);
    let seconds = whole(&mut world, 90 * S);
    assert_eq!(now_at(&world), [FIRST; 2]);
    assert_eq!(tried(&world, 1).len(), 5);
    let before = SIZE as f64 * 10.0 / f64::from(FIRST);
    assert!(seconds < before / 0.97 + 5.0 * 0.9, "{seconds} s, {before} s without trials");
}

#[test]
fn a_rate_that_is_lost_later_is_left_and_not_proposed_again() {
    for seed in 1..=4 {
        let worn = 3 * S;
        let faults = Faults { carries: vec![(0, u32::MAX), (worn, 300_000)], ..Faults::clean(FIRST, 5_000) };
        let mut world = world(seed, &faults, [921_600; 2]);
        world.ends[0].total = 3 * SIZE;
        whole(&mut world, 120 * S);
        for who in 0..2 {
            assert_eq!(tried(&world, who), [921_600, 460_800, 230_400], "{}", world.report());
            let (back, rate) = world.ends[who].rates[1];
            assert_eq!(rate, FIRST);
            assert!((worn + 1_900_000..worn + 2_200_000).contains(&back), "returned at {back}");
            assert!(!world.ends[who].events.contains(&Event::Silent), "heard again before that");
        }
        assert_eq!(now_at(&world), [230_400; 2]);
    }
}

#[test]
fn a_rate_that_carries_too_little_is_left() {
    let faults = Faults { edge: (500_000, 4e-3), ..Faults::clean(FIRST, 5_000) };
    let mut world = world(1, &faults, [921_600; 2]);
    whole(&mut world, 60 * S);
    assert_eq!(now_at(&world), [460_800; 2], "{}", world.report());
    assert_eq!(tried(&world, 0), [921_600, 460_800]);
    // Some loss is no reason: half of the higher rate is still more.
    let faults = Faults { edge: (500_000, 1e-4), ..Faults::clean(FIRST, 5_000) };
    let mut world = self::world(1, &faults, [921_600; 2]);
    whole(&mut world, 60 * S);
    assert_eq!(now_at(&world), [921_600; 2], "{}", world.report());
}

/// A cable that is pulled is no fault of the rate.
#[test]
fn after_a_long_cut_the_rate_is_raised_again() {
    for seed in 1..=4 {
        let faults = Faults { cuts: vec![(3 * S, 9 * S)], ..Faults::clean(FIRST, 5_000) };
        let mut world = world(seed, &faults, [921_600; 2]);
        world.ends[0].total = 3 * SIZE;
        whole(&mut world, 60 * S);
        assert_eq!(now_at(&world), [921_600; 2], "{}", world.report());
        assert_eq!(tried(&world, 0), [921_600; 2]);
        assert!(world.ends[0].events.contains(&Event::Silent));
    }
}

#[test]
fn a_short_cut_changes_nothing() {
    let faults = Faults { cuts: vec![(3 * S, 4_900_000)], ..Faults::clean(FIRST, 5_000) };
    let mut world = world(1, &faults, [921_600; 2]);
    world.ends[0].total = 3 * SIZE;
    whole(&mut world, 60 * S);
    assert_eq!([tried(&world, 0), tried(&world, 1)], [[921_600], [921_600]]);
}

#[test]
fn an_end_that_restarts_is_met_at_the_first_rate() {
    for who in 0..2 {
        let mut world = world(1, &Faults::clean(FIRST, 5_000), [921_600; 2]);
        world.run(2 * S, |_| false);
        assert_eq!(now_at(&world), [921_600; 2]);
        world.ends[who].reset();
        let begun = world.now;
        let seconds = whole(&mut world, 60 * S);
        assert_eq!(now_at(&world), [921_600; 2], "a new connection, a new try");
        assert!(seconds < 2.6 + SIZE as f64 / 92_160.0 / 0.9, "{seconds} s from {begun}");
    }
}

#[test]
fn a_port_that_refuses_or_lies_costs_a_trial() {
    for (seed, port) in
        [(1, Port::Refuses(500_000)), (2, Port::Refuses(500_000)), (1, Port::Lies), (2, Port::Lies)]
    {
        let mut world = world(seed, &Faults::clean(FIRST, 5_000), [921_600; 2]);
        world.ends[0].port = port;
        whole(&mut world, 60 * S);
        let rate = if port == Port::Lies { FIRST } else { 460_800 };
        assert_eq!(now_at(&world), [rate; 2], "{}", world.report());
    }
}

/// Whatever the line does besides, each byte arrives once and in order, and the rate settles.
#[test]
fn exactly_once_in_order_whatever_the_rate_does() {
    let one = std::env::var("LINK_SEED").ok().and_then(|v| v.parse::<u64>().ok());
    for seed in one.map_or(1..200, |seed| seed..seed + 1) {
        let mut rng = Rng::new(seed);
        let first = [9_600, 115_200][rng.below(2) as usize];
        let mut faults = Faults::clean(first, [0, 1_000, 5_000, 60_000][rng.below(4) as usize]);
        faults.flip = [0.0, 1e-5, 1e-4, 5e-4][rng.below(4) as usize];
        faults.drop = [0.0, 0.0, 1e-4][rng.below(3) as usize];
        faults.carries = (0..rng.below(4))
            .map(|i| (i * 4 * S, [150_000, 500_000, 1_000_000, u32::MAX][rng.below(4) as usize]))
            .collect();
        faults.edge = (300_000, [0.0, 0.0, 1e-3, 1e-2][rng.below(4) as usize]);
        let at = S + rng.below(8 * S);
        faults.cuts = if rng.chance(0.4) { vec![(at, at + rng.below(6 * S))] } else { Vec::new() };
        let sizes = |leaf: bool| {
            if leaf { make::<512, 256, 192, 12>() } else { make::<32768, 32768, 2240, 256>() }
        };
        let makes = [sizes(rng.chance(0.3)), sizes(rng.chance(0.3))];
        let most = [38_400, 115_200, 921_600, 3_000_000][rng.below(4) as usize];
        let totals = [8 + rng.below(200_000 * u64::from(first) / 115_200), 8 + rng.below(5_000)];
        let mut world =
            World::new(seed, [faults.clone(), faults], makes, totals, |c| c.baud_max = c.baud.max(most));
        if rng.chance(0.3) {
            world.ends.iter_mut().for_each(|end| end.finishes = false);
            let until = world.now + rng.below(6 * S);
            assert!(!world.run(until, |_| false), "LINK_SEED={seed} {}", world.report());
            world.now = until;
            world.ends[rng.below(2) as usize].reset();
            world.ends.iter_mut().for_each(|end| end.finishes = true);
        }
        let good = world.run(world.now + 600 * S, |w| w.over());
        assert!(good, "LINK_SEED={seed} {}", world.report());
        for end in &world.ends {
            assert!(end.rates.len() <= 40, "LINK_SEED={seed} {:?}", end.rates);
        }
    }
}
