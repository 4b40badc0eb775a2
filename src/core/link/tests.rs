//! Both ends together, over the simulated line of `tests/link/sim.rs`: short runs, and the control
//! that shows that the harness notices a broken rule. The long runs are in `tests/link/`.

#[path = "../../../tests/link/sim.rs"]
mod sim;

use super::*;
use sim::{Faults, World, make};
use std::boxed::Box;
use std::println;

fn world(seed: u64, faults: Faults, totals: [u64; 2]) -> World {
    World::new(
        seed,
        [faults.clone(), faults],
        [make::<32768, 32768, 1200, 256>(), make::<32768, 32768, 1200, 256>()],
        totals,
        |_| {},
    )
}

#[test]
fn a_clean_line_both_ways() {
    let mut world = world(1, Faults::clean(115_200, 5_000), [20_000, 30_000]);
    assert!(world.run(60_000_000, |w| w.over()), "{}", world.report());
    let took = world.now - 1_000_000;
    assert!(took < 2_900_000, "30,000 bytes take 2.6 s on the line, took {took} us");
    assert_eq!(world.ends[0].machine.stats().repeats_sent, 0, "{}", world.report());
    assert!(world.queue_worst_us() < 12_500.0, "{}", world.queue_worst_us());
}

#[test]
fn the_harness_notices_when_the_crc_is_ignored() {
    let run = |ignore: bool| {
        let broken: sim::Make = Box::new(move |config| {
            let mut link = Link::<4096, 4096, 1200, 64>::new(config);
            link.ignore_crc = ignore;
            Box::new(link)
        });
        let mut faults = Faults::clean(921_600, 1_000);
        faults.flip = 1e-4;
        let mut world = World::new(
            3,
            [faults.clone(), faults],
            [make::<4096, 4096, 1200, 64>(), broken],
            [60_000, 10],
            |c| c.mend = false,
        );
        let good = world.run(60_000_000, |w| w.over());
        println!("{}", world.report());
        good
    };
    assert!(run(false));
    assert!(!run(true), "damaged bytes were delivered and nobody noticed");
}

#[test]
fn a_loop_is_not_a_peer() {
    let mut link = Link::<1024, 1024, 1200, 16>::new(Config::new(115_200, 5));
    let mut out = [0; WIRE_MAX];
    for now in (0..3_000_000u64).step_by(1000) {
        let count = link.transmit(now, &mut out);
        link.receive_bytes(now, &out[..count]);
        assert_eq!(link.state(), State::Calling);
    }
    assert_eq!(link.event(), None);
}
