//! Both ends together, over the simulated line of `tests/link/sim.rs`: short runs, and the control
//! that shows that the harness notices a broken rule. The long runs are in `tests/link/`.

#[path = "../../../tests/link/sim.rs"]
mod sim;

use super::*;
use sim::{Faults, World, make};
use std::boxed::Box;
use std::{println, vec};

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
            |c| c.fec = false,
        );
        let good = world.run(60_000_000, |w| w.over());
        println!("{}", world.report());
        good
    };
    assert!(run(false));
    assert!(!run(true), "damaged bytes were delivered and nobody noticed");
}

/// The control of the tests of `tests/link/rates.rs`: an end that never comes back from a lost rate.
#[test]
fn the_harness_notices_when_a_lost_rate_is_not_left() {
    let run = |stubborn: bool| {
        let broken: sim::Make = Box::new(move |config| {
            let mut link = Link::<4096, 4096, 1200, 64>::new(config);
            link.rate.stubborn = stubborn;
            Box::new(link)
        });
        let mut faults = Faults::clean(115_200, 1_000);
        faults.carries = vec![(0, 200_000)];
        let makes = [make::<4096, 4096, 1200, 64>(), broken];
        let mut world =
            World::new(3, [faults.clone(), faults], makes, [60_000, 10], |c| c.baud_max = 921_600);
        world.run(120_000_000, |w| w.over())
    };
    assert!(run(false));
    assert!(!run(true), "two ends at two rates heard each other");
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

type Small = Link<4096, 4096, 1146, 64>;

fn small(nonce: u32) -> Small {
    Small::new(Config::new(921_600, nonce))
}

/// Passes packets between two ends on a perfect line for `ms`.
fn talk(now: &mut u64, ms: u64, a: &mut Small, b: &mut Small) {
    let mut out = [0; WIRE_MAX];
    for _ in 0..ms {
        *now += 1_000;
        let count = a.transmit(*now, &mut out);
        b.receive_bytes(*now, &out[..count]);
        let count = b.transmit(*now, &mut out);
        a.receive_bytes(*now, &out[..count]);
    }
}

fn events(link: &mut Small) -> std::vec::Vec<Event> {
    core::iter::from_fn(|| link.event()).collect()
}

fn pair() -> (u64, Small, Small) {
    let (mut now, mut a, mut b) = (0, small(10), small(20));
    talk(&mut now, 100, &mut a, &mut b);
    assert_eq!(events(&mut a), [Event::Connected]);
    assert_eq!(events(&mut b), [Event::Connected]);
    (now, a, b)
}

#[test]
fn a_restarted_peer_is_reported_and_old_and_new_never_mix() {
    let (mut now, mut a, mut b) = pair();
    let mut out = [0; 4096];
    assert_eq!(a.send(b"old"), 3);
    assert_eq!(b.send(&[1; 3000]), 3000);
    talk(&mut now, 50, &mut a, &mut b);
    assert_eq!((a.recv(&mut out[..2500]), a.recv_ready()), (2500, 500));
    let mut b = small(21);
    assert_eq!(b.send(&[2; 4096]), 4096, "also before a connection");
    talk(&mut now, 300, &mut a, &mut b);
    assert_eq!((a.send(b"x"), a.recv_ready(), a.recv(&mut out[..300])), (0, 500, 300));
    assert_eq!(a.event(), Some(Event::PeerRestarted));
    assert_eq!((a.send(b"x"), a.recv_ready(), a.recv(&mut out[300..])), (0, 200, 200));
    assert_eq!(out[..500], [1; 500], "until the next event, what came before");
    assert_eq!((a.recv_ready(), a.recv(&mut out)), (0, 0), "and nothing else");
    assert_eq!(events(&mut a), [Event::Connected]);
    assert!((3000..4096).contains(&a.recv_ready()), "{}: the rest had no room", a.recv_ready());
    let count = a.recv(&mut out);
    talk(&mut now, 100, &mut a, &mut b);
    assert_eq!(count + a.recv(&mut out[count..]), 4096);
    assert_eq!(out, [2; 4096]);
    assert_eq!(b.send(b"new"), 3);
    talk(&mut now, 100, &mut a, &mut b);
    assert_eq!((a.recv(&mut out), &out[..3]), (3, &b"new"[..]));
    assert_eq!(events(&mut b), [Event::Connected]);
    let peer = a.peer().map(|p| (p.version, p.nonce, p.receive, p.payload));
    assert_eq!(peer, Some((VERSION, 21, 4096, 1024)));
}

#[test]
fn the_caller_reconnects() {
    let (mut now, mut a, mut b) = pair();
    a.finish();
    b.finish();
    talk(&mut now, 200, &mut a, &mut b);
    assert_eq!(events(&mut a), [Event::Closed, Event::PeerFinished]);
    assert_eq!((a.state(), b.state(), a.all_acknowledged()), (State::Closed, State::Closed, true));
    assert_eq!(a.send(b"late"), 0);
    a.restart(11);
    talk(&mut now, 200, &mut a, &mut b);
    assert_eq!((a.state(), b.state()), (State::Calling, State::Closed), "only its caller wakes a closed end");
    b.restart(22);
    talk(&mut now, 600, &mut a, &mut b);
    assert_eq!((a.state(), b.state()), (State::Open, State::Open));
    assert_eq!(events(&mut a), [Event::Connected]);
}

/// Whoever is closed first may leave: what it sends before that closes the other end, also when some of it is lost.
#[test]
fn the_first_to_close_leaves_nobody_waiting() {
    for lost in 0..4 {
        let (mut now, mut a, mut b) = pair();
        a.finish();
        b.finish();
        let mut out = [0; WIRE_MAX];
        while a.state() != State::Closed {
            // Until one is: that is `a` then.
            core::mem::swap(&mut a, &mut b);
            now += 500;
            let count = b.transmit(now, &mut out);
            a.receive_bytes(now, &out[..count]);
        }
        assert_eq!(b.state(), State::Finishing);
        let mut said = 0;
        while a.is_draining() {
            let count = a.transmit(now, &mut out);
            assert!(count > 0, "they are due at once");
            if said >= lost {
                b.receive_bytes(now, &out[..count]);
            }
            said += 1;
        }
        assert_eq!((said, b.state() == State::Closed), (3, lost < 3));
    }
}

#[test]
fn finish_before_a_connection_closes() {
    let mut a = small(10);
    a.finish();
    assert_eq!(events(&mut a), [Event::Closed]);
    assert_eq!((a.state(), a.deadline()), (State::Closed, None));
}

#[test]
fn silence_is_reported_once_and_its_end_too() {
    let (mut now, mut a, mut b) = pair();
    a.send(b"lost at first");
    // What `a` sends reaches nobody.
    let mut out = [0; WIRE_MAX];
    let mut packets = 0;
    for _ in 0..10_000 {
        now += 1_000;
        packets += u32::from(a.transmit(now, &mut out) > 0);
    }
    assert_eq!(events(&mut a), [Event::Silent]);
    assert!((780..860).contains(&packets), "a probe every 12.5 ms, and hellos: {packets}");
    talk(&mut now, 100, &mut a, &mut b);
    assert_eq!(events(&mut a), [Event::Resumed]);
    assert_eq!(b.recv_ready(), 13);
    assert!(a.all_acknowledged());
}

#[test]
fn a_peer_of_another_version_is_named_once() {
    let mut a = small(10);
    let hello = Hello {
        lowest: 2,
        highest: 3,
        open: false,
        fec: true,
        changes_baud: false,
        note: 0,
        nonce: 77,
        echo: 0,
        receive: 4096,
        payload: 1024,
        baud: 9600,
        send: 4096,
    };
    let mut out = [0; WIRE_MAX];
    let count = a.write_packet(&mut out, true, &hello.bytes(), (&[], &[]), 0);
    a.receive_bytes(5, &out[..count]);
    a.receive_bytes(9, &out[..count]);
    assert_eq!(events(&mut a), [Event::Incompatible { lowest: 2, highest: 3 }]);
    assert_eq!(a.state(), State::Calling);
}

#[test]
fn a_deadline_is_kept_and_never_spins() {
    let (mut now, mut a, _) = pair();
    a.send(&[7; 4096]);
    let mut out = [0; WIRE_MAX];
    let mut woken = 0;
    let until = now + 2_000_000;
    while now < until {
        while a.transmit(now, &mut out) > 0 {}
        let at = a.deadline().unwrap();
        assert!(at > now, "nothing was due at {now}, and the deadline is {at}");
        now = at;
        woken += 1;
    }
    assert!(woken < 200, "{woken}");
}

#[test]
fn with_less_room_packets_are_shorter_and_corrected_all_the_same() {
    for room in [WIRE_MIN, 200, 600, WIRE_MAX] {
        let (mut now, mut a, mut b) = pair();
        (a.adapt.fec_rate, a.adapt.payload) = (4, 1024);
        assert_eq!(a.send(&[7; 4096]), 4096);
        let mut out = [0; WIRE_MAX];
        while b.recv_ready() == 0 {
            now += 100_000;
            let count = a.transmit(now, &mut out[..room]);
            assert!(count > 0 && count <= room, "{room}: {count}");
            b.receive_bytes(now, &out[..count]);
        }
        assert!(b.recv_ready() >= 48 && b.fec_rate_in == 4, "{room}: {}", b.recv_ready());
    }
}

#[test]
fn the_memory_is_as_the_page_says() {
    let (board, leaf) = (size_of::<BoardLink>(), size_of::<LeafLink>());
    println!("{board} and {leaf} bytes");
    assert!(board <= 2 * 32_768 + 2_240 + 20 * 256 + 640, "{board}");
    assert!(leaf <= 512 + 256 + 192 + 20 * 12 + 640, "{leaf}");
}

/// Past the check sum: whatever a packet with the right key says, the machine stays whole, its work
/// bounded, and a real peer still gets through or is reported.
#[test]
fn no_packet_with_a_right_key_does_harm() {
    for seed in 0..40 {
        let (mut now, mut a, mut b) = pair();
        let mut rng = sim::Rng::new(seed);
        let mut out = [0; WIRE_MAX];
        for _ in 0..2_000 {
            a.send(&[5; 300]);
            now += rng.below(3_000);
            while a.transmit(now, &mut out) > 0 {}
            let mut body = [0u8; 90];
            body.iter_mut().for_each(|b| *b = rng.next() as u8);
            // Half of them near the truth: the numbers that this connection is at.
            if rng.chance(0.5) {
                let near = a.receiver.highest.wrapping_add(rng.below(4) as u32);
                body[0] = body[0] & 0x70 | (near >> 8) as u8 & 15;
                body[1] = near as u8;
                body[2] = a.sender.number.wrapping_sub(rng.below(4) as u32) as u8;
            }
            let len = 1 + rng.below(90) as usize;
            let key = if rng.chance(0.05) { 0 } else { b.hand.key_out() };
            let count = b.write_packet(&mut out, false, &body[..len], (&[], &[]), key);
            a.receive_bytes(now, &out[..count]);
            let _ = a.recv(&mut out);
            assert!(a.deadline().is_some(), "seed {seed}");
        }
        talk(&mut now, 20, &mut a, &mut b);
    }
}
