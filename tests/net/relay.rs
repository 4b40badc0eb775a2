//! Somebody in between for as long as a session lasts, over all its connections: whatever is done to the bytes, nothing is
//! applied that was not sent, nothing is taken for acknowledged that was not, and nobody believes to be in step who is not.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread::spawn;
use std::time::Duration;

use packmule::Engine;
use packmule::carry::Stop;
use packmule::carry::net::{self, Error, Options, Status};

use super::between::{Ill, Relay};
use super::common::{Random, World, digests_equal, everything, rows, seeds};
use super::{SAFE, board, fill, patient, served, sync_by};

/// An ill of a random kind at a random place.
fn ill(random: &mut Random) -> Ill {
    let at = random.below(12_000) as usize;
    let count = 1 + random.below(300) as usize;
    match random.below(4) {
        0 => Ill::Lose(at, count),
        1 => Ill::Repeat(at, count),
        _ => Ill::Flip(at),
    }
}

/// How many frames of `of` its peer has acknowledged, as it believes, and has.
fn acknowledged(of: &Engine, peer: &Engine) -> (u64, u64) {
    let at = of.devices().unwrap().into_iter().find(|d| d.id == peer.identity().id).unwrap();
    let has = peer.devices().unwrap().into_iter().find(|d| d.id == of.identity().id);
    (at.acknowledged, has.map_or(0, |has| has.shared + has.own))
}

#[test]
fn whatever_is_done_on_the_way_nothing_false_is_believed() {
    let mut failed = 0;
    for seed in seeds(1) {
        println!("PACKMULE_SEED={seed}");
        let mut random = Random(seed);
        for way in ["tcp", "http"] {
            let world = World::seeded(seed);
            let (mut a, b) = (board(&world, "a"), board(&world, "b"));
            let path = b.path().to_owned();
            // A session that was cut off may still be at it.
            let mut b = patient(&path, &world.clock).unwrap();
            served(&path, &world.clock, &SAFE, |at, _| {
                for round in 0..12 {
                    fill(&mut a, &format!("a{round}-"), 3, 1_000);
                    fill(&mut b, &format!("b{round}-"), 3, 1_000);
                    let (one, way_of) = (ill(&mut random), random.below(2) as usize);
                    let mut ills = [Ill::Nothing; 2];
                    ills[way_of] = one;
                    let relay = Relay::new(at, ills);
                    let short = Options { patience: Some(Duration::from_secs(2)), ..SAFE };
                    let result = sync_by(way, &mut a, relay.at, &short);
                    drop(relay);
                    for (of, peer) in [(&a, &b), (&b, &a)] {
                        let (believes, has) = acknowledged(of, peer);
                        assert!(believes <= has, "{way} {ills:?}: {believes} of {has}");
                    }
                    match result {
                        // The place was beyond its end, or in a header that says nothing.
                        Ok(_) => digests_equal(&[&a, &b]),
                        Err(e) => {
                            let false_news =
                                matches!(e, Error::Session(_) | Error::Busy | Error::Clear { .. });
                            assert!(!false_news || at_the_opening(one), "{way} {ills:?}: {e:?}");
                            failed += 1;
                        }
                    }
                }
                sync_by(way, &mut a, at, &SAFE).unwrap();
            });
            digests_equal(&[&a, &b]);
            assert_eq!(rows(&b, "SELECT count(*) FROM t"), ["72"]);
            assert!(a.verify().unwrap().problems.is_empty() && b.verify().unwrap().problems.is_empty());
        }
    }
    assert!(failed > 8, "the ills did nothing: {failed}");
}

/// Before there is a channel, bytes that are flipped can say other things, of which nothing follows.
fn at_the_opening(ill: Ill) -> bool {
    matches!(ill, Ill::Flip(at) | Ill::Lose(at, _) | Ill::Repeat(at, _) if at < 1_000)
}

/// A whole session again, in the place of either end: nobody hears or believes anything.
#[test]
fn a_session_that_is_repeated_has_no_effect_at_either_end() {
    for way in ["tcp", "ws", "http"] {
        let world = World::new();
        let (mut a, mut b) = (board(&world, "a"), board(&world, "b"));
        fill(&mut a, "a", 5, 500);
        fill(&mut b, "b", 5, 500);
        let heard = served(b.path(), &world.clock, &SAFE, |at, _| {
            // The control: what only passes through is a session.
            let relay = Relay::new(at, [Ill::Nothing; 2]);
            sync_by(way, &mut a, relay.at, &SAFE).unwrap();
            relay.ended()
        });
        digests_equal(&[&a, &b]);
        fill(&mut a, "more", 3, 100);
        a.seal().unwrap();
        let before = everything(a.path());
        // Somebody answers as the other end did.
        let [_, answers] = heard.clone();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let plays = spawn(move || {
            // One connection has them all; over HTTP the first answer alone fits the first request.
            let (mut client, _) = listener.accept().unwrap();
            let _ = client.read(&mut [0; 4_096]);
            let _ = client.write_all(&answers);
            let _ = client.shutdown(Shutdown::Write);
            drop(listener);
            let _ = client.read_to_end(&mut Vec::new());
        });
        let address = format!("{way}://{at}").parse().unwrap();
        let mut believed = Vec::new();
        let short = Options { patience: Some(Duration::from_secs(5)), ..SAFE };
        let result = net::sync(&mut a, &address, &short, &Stop::default(), &mut |status| match status {
            Status::Met { name, .. } => believed.push(name.to_owned()),
            Status::InStep(_) => believed.push("in step".into()),
            _ => {}
        });
        let error = result.unwrap_err();
        assert!(!matches!(error, Error::Session(_)), "{way}: {error:?}");
        assert!(believed.is_empty(), "{way}: {believed:?}");
        plays.join().unwrap();
        assert!(everything(a.path()) == before, "{way}: nothing was recorded");
        // And asks as this one did.
        fill(&mut b, "late", 3, 100);
        let before = everything(b.path());
        let [asked, _] = heard;
        served(b.path(), &world.clock, &SAFE, |at, reports| {
            let mut stream = TcpStream::connect(at).unwrap();
            let _ = stream.write_all(&asked);
            let _ = stream.shutdown(Shutdown::Write);
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            assert!(answer.len() < 1_000, "{way}: {} bytes", answer.len());
            assert!(reports.try_recv().is_err(), "{way}: nobody was met");
        });
        assert!(everything(b.path()) == before, "{way}: nothing was recorded");
    }
}
