//! Lines that eat or change certain bytes: an open connection on which nothing gets through any more is found within a
//! time that is stated, by a virtual clock, and the likely cause is named. A line that is only slow, noisy or waiting is
//! never taken for one.

mod sim;

use packmule_core::link::{Cause, Config, Heard};
use sim::cable::Change;
use sim::{Faults, World, make};

const S: u64 = 1_000_000;
/// How long nothing may get through.
const PATIENCE: u64 = 5 * S;

fn world(seed: u64, from: u64, change: Option<Change>) -> World {
    sending(seed, [200_000, 200_000], from, change, |_| {})
}

/// Both ends have so many bytes to say.
fn sending(
    seed: u64,
    bytes: [u64; 2],
    from: u64,
    change: Option<Change>,
    set: impl Fn(&mut Config),
) -> World {
    let faults = || Faults { changes: change.map(|change| (from, change)), ..Faults::clean(115_200, 1_000) };
    let big = || make::<32768, 32768, 2240, 256>();
    World::new(seed, [faults(), faults()], [big(), big()], bytes, set)
}

fn stalled(world: &World) -> bool {
    world.ends.iter().any(|end| end.machine.stalled_us(world.now) >= PATIENCE)
}

const CHANGES: [(&str, Cause, Change); 4] =
    [
        ("XON and XOFF are swallowed", Cause::FlowControl, |b| {
            if b == 0x11 || b == 0x13 { vec![] } else { vec![b] }
        }),
        ("LF becomes CR LF", Cause::LineEnds, |b| if b == b'\n' { vec![b'\r', b'\n'] } else { vec![b] }),
        ("CR becomes LF", Cause::LineEnds, |b| if b == b'\r' { vec![b'\n'] } else { vec![b] }),
        ("7 bits to a byte", Cause::SevenBits, |b| vec![b & 0x7f]),
    ];

#[test]
fn a_line_that_changes_bytes_is_found_and_named() {
    for (what, cause, change) in CHANGES {
        for seed in 1..6 {
            // From when the connection is open.
            let mut world = world(seed, 2 * S, Some(change));
            assert!(world.run(60 * S, |world| stalled(world)), "{what}, seed {seed}: {}", world.report());
            let end = &world.ends[0];
            let named = end.heard.cause(end.machine.stats().packets_received > 0);
            println!(
                "{what}, seed {seed}: found after {} s, {named:?}, {} bytes",
                world.now / S,
                end.heard.count()
            );
            assert_eq!(named, cause, "{what}, seed {seed}");
        }
    }
}

/// A hello has a number by chance: one with a byte that the line changes never comes through.
#[test]
fn a_line_over_which_no_hello_comes_through_is_named() {
    for (what, cause, change) in CHANGES {
        let changed = (0..=255).find(|byte| change(*byte) != [*byte]).unwrap();
        for seed in 1..6 {
            let mut world = sending(seed, [200_000, 200_000], 0, Some(change), |config| {
                config.nonce = config.nonce & 0x00ff_ffff | u32::from(changed) << 24;
            });
            world.run(20 * S, |_| false);
            for end in &world.ends {
                assert_eq!(end.machine.stats().packets_received, 0, "{what}, seed {seed}");
                assert_eq!(end.heard.cause(false), cause, "{what}, seed {seed}");
            }
        }
    }
}

/// An end that has nothing to say hears that the other is there, now and then, between packets that all come damaged.
#[test]
fn who_only_listens_finds_that_nothing_gets_through() {
    let (_, _, swallowed) = CHANGES[0];
    for seed in 1..11 {
        let mut world = sending(seed, [0, 0], 2 * S, Some(swallowed), |_| {});
        world.ends.iter_mut().for_each(|end| end.finishes = false);
        world.run(2 * S, |_| false);
        world.ends[1].total = 5_000;
        let found = world.run(60 * S, |world| world.ends[0].machine.stalled_us(world.now) >= PATIENCE);
        assert!(found, "seed {seed}: {}", world.report());
    }
}

#[test]
fn a_line_that_carries_is_never_taken_for_one_that_does_not() {
    for seed in 1..6 {
        let mut world = world(seed, 0, None);
        let over = world.run(300 * S, |world| {
            assert!(!stalled(world), "seed {seed}: {}", world.report());
            world.over()
        });
        assert!(over, "seed {seed}: {}", world.report());
    }
}

#[test]
fn what_is_no_link_is_named() {
    let mut prompt = Heard::new();
    prompt.hear(b"\r\nRaspbian GNU/Linux 12 north ttyS0\r\n\r\nnorth login: ");
    assert_eq!(prompt.cause(false), Cause::Text);
    // Packets of which none came through, since the line takes the highest bit off, or makes CR LF of LF.
    let packet = |seed: u32| (0..300u32).map(move |n| ((n + seed).wrapping_mul(2_654_435_761) >> 24) as u8);
    let mut seven = Heard::new();
    seven.hear(&packet(1).map(|byte| byte & 0x7f).collect::<Vec<u8>>());
    assert_eq!(seven.cause(false), Cause::SevenBits);
    let mut ends = Heard::new();
    for seed in 0..20 {
        let made = packet(seed * 300).flat_map(|b| if b == b'\n' { vec![b'\r', b'\n'] } else { vec![b] });
        ends.hear(&made.collect::<Vec<u8>>());
    }
    assert_eq!(ends.cause(false), Cause::LineEnds);
    let mut noise = Heard::new();
    noise.hear(&(0..200u32).map(|n| (n * 97 % 251) as u8).collect::<Vec<u8>>());
    assert_eq!(noise.cause(false), Cause::Noise);
    assert_eq!(Heard::new().cause(false), Cause::Nothing);
}
