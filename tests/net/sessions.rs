//! Sessions over TCP: both ways, cut at random bytes, with somebody in between, with strangers at the door, begun on a
//! serial line. Nothing sleeps; where an end waits, it is for the other one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod between;
mod boards;
#[path = "../serial/cable.rs"]
#[allow(dead_code)] // Not all that it can.
mod cable;
#[path = "../common/mod.rs"]
mod common;
mod crowd;
mod relay;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::AtomicI64;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use between::{Ill, Relay};
use boards::{LONG, SAFE, board, fill};
use common::{Random, World, digests_equal, everything, rows, seeds, sql};

use packmule::Engine;
use packmule::carry::net::{self, Address, Error, Host, Listening, Options, SESSIONS_MAX, Serving, Status};
use packmule::carry::session::{self, Progress};
use packmule::carry::{Stop, serial};

const PLAIN: Options = Options { plain: true, patience: LONG };

/// Opens a database at which others are too: on a busy machine one waits long for the other.
fn patient(path: &Path, clock: &Arc<AtomicI64>) -> packmule::Result<Engine> {
    Engine::open_with(path, packmule::Options { busy_ms: 60_000, ..World::options_by(clock) })
}

/// Serves a database while `work` runs.
fn served<R>(
    path: &Path,
    clock: &Arc<AtomicI64>,
    options: &Options,
    work: impl FnOnce(SocketAddr, &Receiver<String>) -> R,
) -> R {
    let port = Listening::on("127.0.0.1:0".parse().unwrap()).unwrap();
    let at = port.address().unwrap();
    let stop = Stop::default();
    let (send, reports) = channel();
    let send: Mutex<Sender<String>> = Mutex::new(send);
    let report = |_: SocketAddr, status: &Status<'_>| {
        let said = match status {
            Status::Met { name, .. } => format!("met {name}"),
            Status::InStep(_) => "in step".into(),
            Status::Ended => "ended".into(),
            Status::Failed(e) => format!("failed: {e:?}"),
            Status::Moving(_) => return,
        };
        let _ = send.lock().unwrap().send(said);
    };
    let open = || patient(path, clock);
    let serving = Serving { open: &open, options, report: &report, web: None };
    std::thread::scope(|scope| {
        let server = scope.spawn(|| net::serve(&port, serving, &stop).unwrap());
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(at, &reports)));
        stop.stop();
        server.join().unwrap();
        result.unwrap_or_else(|e| std::panic::resume_unwind(e))
    })
}

fn sync(engine: &mut Engine, at: SocketAddr, options: &Options) -> Result<Progress, Error> {
    sync_by("tcp", engine, at, options)
}

/// By each of the ways that one port has.
const WAYS: [&str; 3] = ["tcp", "ws", "http"];

fn sync_by(way: &str, engine: &mut Engine, at: SocketAddr, options: &Options) -> Result<Progress, Error> {
    let address: Address = format!("{way}://{at}").parse().unwrap();
    net::sync(engine, &address, options, &Stop::default(), &mut |_| ())
}

/// Ends those that stay, however the test goes on.
struct Ends<'a>(&'a [Stop]);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.iter().for_each(Stop::stop);
    }
}

/// Waits until the server reports this.
#[track_caller]
fn wait_for(reports: &Receiver<String>, wanted: &str) {
    loop {
        let said =
            reports.recv_timeout(Duration::from_secs(60)).unwrap_or_else(|_| panic!("no `{wanted}` came"));
        if said.starts_with(wanted) {
            return;
        }
    }
}

#[test]
fn both_ways_at_once_encrypted_or_not() {
    for (options, way) in [SAFE, PLAIN].into_iter().flat_map(|options| WAYS.map(|way| (options, way))) {
        let world = World::new();
        let (mut a, mut b) = (board(&world, "a"), board(&world, "b"));
        fill(&mut a, "a", 20, 2_000);
        fill(&mut b, "b", 20, 2_000);
        served(b.path(), &world.clock, &options, |at, reports| {
            let done = sync_by(way, &mut a, at, &options).unwrap();
            assert!(done.sent.0 >= 20 && done.received.0 >= 20, "{way}: {done:?}");
            wait_for(reports, "ended");
            // Nothing is sent again.
            let done = sync_by(way, &mut a, at, &options).unwrap();
            assert_eq!((done.sent.0, done.received.0), (0, 0), "{way}");
        });
        digests_equal(&[&a, &b]);
        assert_eq!(rows(&b, "SELECT count(*) FROM t"), ["40"]);
        assert!(b.verify().unwrap().problems.is_empty());
    }
}

#[test]
fn one_that_encrypts_and_one_that_does_not_say_so() {
    let world = World::new();
    let (mut a, b) = (board(&world, "a"), board(&world, "b"));
    for (there, here) in [(SAFE, PLAIN), (PLAIN, SAFE)] {
        served(b.path(), &world.clock, &there, |at, _| {
            let error = sync(&mut a, at, &here).unwrap_err();
            assert!(matches!(error, Error::Clear { theirs } if theirs == there.plain), "{error:?}");
        });
    }
}

#[test]
fn cut_at_any_byte_it_goes_on_where_it_was() {
    for seed in seeds(4) {
        println!("PACKMULE_SEED={seed}");
        let mut random = Random(seed);
        let world = World::seeded(seed);
        let (mut a, mut b) = (board(&world, "a"), board(&world, "b"));
        fill(&mut a, "a", 30, 1_500);
        fill(&mut b, "b", 30, 1_500);
        let (mut sent, mut received, mut cuts) = (0, 0, 0);
        served(b.path(), &world.clock, &SAFE, |at, reports| {
            for _ in 0..6 {
                let ills = [Ill::Cut(random.below(60_000) as usize), Ill::Nothing];
                let relay = Relay::new(at, if random.chance(50) { ills } else { [ills[1], ills[0]] });
                cuts += u64::from(sync(&mut a, relay.at, &SAFE).is_err());
                drop(relay);
                while let Ok(said) = reports.try_recv() {
                    assert!(!said.contains("Tampered") && !said.contains("Foreign"), "{said}");
                }
            }
            let done = sync(&mut a, at, &SAFE).unwrap();
            (sent, received) = (done.sent.0, done.received.0);
        });
        digests_equal(&[&a, &b]);
        assert_eq!(rows(&b, "SELECT count(*) FROM t"), ["60"]);
        assert!(sent <= 62 && received <= 62, "{sent} {received} after {cuts} cuts");
        assert!(a.verify().unwrap().problems.is_empty() && b.verify().unwrap().problems.is_empty());
    }
}

#[test]
fn what_came_before_a_cut_does_not_come_again() {
    let world = World::new();
    let (mut a, b) = (board(&world, "a"), board(&world, "b"));
    fill(&mut a, "a", 60, 2_000);
    served(b.path(), &world.clock, &SAFE, |at, reports| {
        let relay = Relay::new(at, [Ill::Cut(90_000), Ill::Nothing]);
        let error = sync(&mut a, relay.at, &SAFE).unwrap_err();
        assert!(matches!(error, Error::Ended | Error::Broken(_)), "{error:?}");
        drop(relay);
        wait_for(reports, "failed");
        let here: u64 = rows(&b, "SELECT count(*) FROM t")[0].parse().unwrap();
        assert!(here > 10, "{here} came");
        let done = sync(&mut a, at, &SAFE).unwrap();
        // All that was whole is there; the one on its way comes twice.
        assert!(done.sent.0 <= 61 - here, "{} more after {here}", done.sent.0);
    });
    digests_equal(&[&a, &b]);
}

/// An end that finds out, by what it sends, that the other is gone has not read yet all that came from it.
#[test]
fn what_has_come_from_one_that_is_gone_is_taken_in() {
    let world = World::new();
    let (mut a, b) = (board(&world, "a"), board(&world, "b"));
    fill(&mut a, "a", 60, 2_000);
    served(b.path(), &world.clock, &SAFE, |at, reports| {
        let relay = Relay::new(at, [Ill::Hold(20_000, 70_000), Ill::Nothing]);
        sync(&mut a, relay.at, &SAFE).unwrap_err();
        drop(relay);
        wait_for(reports, "failed");
        let here: u64 = rows(&b, "SELECT count(*) FROM t")[0].parse().unwrap();
        // The last record, of 16 KiB at most, is not whole.
        assert!(here >= 35, "{here} of some 44 came");
    });
}

#[test]
fn a_stranger_gets_nothing() {
    let (world, elsewhere) = (World::new(), World::seeded(9));
    let (mut a, mut stranger) = (board(&world, "a"), board(&elsewhere, "stranger"));
    fill(&mut a, "a", 5, 100);
    fill(&mut stranger, "s", 5, 100);
    let before = everything(a.path());
    served(a.path(), &world.clock, &SAFE, |at, reports| {
        let error = sync(&mut stranger, at, &SAFE).unwrap_err();
        let untrusted = matches!(
            &error,
            Error::Session(session::Error::UntrustedDevice(_) | session::Error::Refused { .. })
        );
        assert!(untrusted, "{error:?}");
        wait_for(reports, "failed: Session(UntrustedDevice");
    });
    assert!(everything(a.path()) == before, "nothing changed");
    assert_eq!(rows(&stranger, "SELECT count(*) FROM t"), ["5"]);
}

/// Whoever is in between: reads nothing, changes nothing, and a repeated session opens nothing.
#[test]
fn nobody_in_between_has_any_effect() {
    let world = World::new();
    let (mut a, mut b) = (board(&world, "windmill"), board(&world, "b"));
    fill(&mut a, "a", 10, 1_000);
    let mut recorded = Vec::new();
    served(b.path(), &world.clock, &SAFE, |at, reports| {
        let ills = [3, 5, 20, 60, 100, 250].map(Ill::Flip);
        let more = [Ill::Lose(60, 7), Ill::Lose(200, 90), Ill::Repeat(54, 120)];
        for ill in ills.into_iter().chain(more) {
            for way in [[ill, Ill::Nothing], [Ill::Nothing, ill]] {
                let relay = Relay::new(at, way);
                let short = Options { patience: Some(Duration::from_secs(2)), ..SAFE };
                let error = sync(&mut a, relay.at, &short).unwrap_err();
                let found = matches!(
                    error,
                    Error::Tampered
                        | Error::Foreign
                        | Error::Clear { .. }
                        | Error::Ended
                        | Error::Broken(_)
                        | Error::Nobody(_)
                );
                assert!(found, "{way:?}: {error:?}");
                drop(relay);
            }
        }
        assert_eq!(rows(&b, "SELECT count(*) FROM t"), ["0"]);
        // The control: with nobody who does anything, it is in step.
        let relay = Relay::new(at, [Ill::Nothing; 2]);
        sync(&mut a, relay.at, &SAFE).unwrap();
        let heard = relay.ended();
        wait_for(reports, "in step");
        assert!(!heard.iter().any(|way| has_word(way, b"windmill")), "not even who is there");
        recorded.extend(heard);
    });
    digests_equal(&[&a, &b]);
    // A whole session again, to the same device: it hears nothing but a handshake.
    fill(&mut b, "b", 3, 100);
    let before = everything(b.path());
    served(b.path(), &world.clock, &SAFE, |at, _| {
        let mut stream = TcpStream::connect(at).unwrap();
        let _ = stream.write_all(&recorded[0]);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.len() <= 54, "{} bytes", answer.len());
    });
    assert!(everything(b.path()) == before);
}

/// Says a turn of a session over HTTP, on a connection of its own.
fn turn(at: SocketAddr, token: &str, number: u32, body: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(at).unwrap();
    let token = if token.is_empty() { String::new() } else { format!("Packmule-Session: {token}\r\n") };
    let len = body.len();
    let head = format!(
        "POST /packmule/1/session HTTP/1.1\r\nContent-Length: {len}\r\nPackmule-Turn: {number}\r\n{token}\r\n"
    );
    stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
    stream
}

/// The head of an answer.
fn head_of(mut stream: &TcpStream) -> String {
    stream.set_read_timeout(LONG).unwrap();
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// Two turns are on their way at once, each on a connection of its own: which comes first is nobody's choice.
#[test]
fn the_second_of_two_turns_can_come_first() {
    let world = World::new();
    let b = board(&world, "b");
    served(b.path(), &world.clock, &PLAIN, |at, _| {
        let begun = head_of(&turn(at, "", 0, b"\x89PKS\x01\x00"));
        let token = begun.lines().find_map(|line| line.strip_prefix("Packmule-Session: ")).unwrap().trim();
        let second = turn(at, token, 2, b"hello, and no hello at all");
        // Who comes after it is answered after it was looked at.
        let after = head_of(&turn(at, &"0".repeat(32), 1, b""));
        assert!(after.starts_with("HTTP/1.1 404 "), "{after}");
        let first = turn(at, token, 1, b"no ");
        for answer in [head_of(&first), head_of(&second)] {
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        }
        // The control: one that is neither is refused, and ends the session.
        let begun = head_of(&turn(at, "", 0, b"\x89PKS\x01\x00"));
        let token = begun.lines().find_map(|line| line.strip_prefix("Packmule-Session: ")).unwrap().trim();
        let refused = head_of(&turn(at, token, 3, b"no hello"));
        assert!(refused.starts_with("HTTP/1.1 409 "), "{refused}");
        let lost = head_of(&turn(at, token, 1, b"no hello"));
        assert!(lost.starts_with("HTTP/1.1 404 "), "{lost}");
    });
}

fn has_word(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|some| some == word)
}

/// Without encryption a name can be read, so the test above would see it.
#[test]
fn in_clear_it_can_be_read() {
    let world = World::new();
    let (mut a, b) = (board(&world, "windmill"), board(&world, "b"));
    served(b.path(), &world.clock, &PLAIN, |at, _| {
        let relay = Relay::new(at, [Ill::Nothing; 2]);
        sync(&mut a, relay.at, &PLAIN).unwrap();
        let heard = relay.ended();
        assert!(has_word(&heard[0], b"windmill"));
    });
}

/// A proof is of one channel: who has a channel with each end cannot pass proofs on.
#[test]
fn a_nonce_of_another_channel_is_no_proof() {
    use packmule::carry::session::Session;
    let world = World::new();
    let (mut a, mut b) = (board(&world, "a"), board(&world, "b"));
    let nonces = [[1; 32], [2; 32]];
    let hello = |session: &mut Session, engine: &mut Engine| {
        let bytes = session.output(engine).unwrap().to_vec();
        session.sent(bytes.len());
        bytes
    };
    // In one channel.
    let mut one = Session::in_channel(&mut a, nonces, 0).unwrap();
    let mut two = Session::in_channel(&mut b, [nonces[1], nonces[0]], 0).unwrap();
    let said = hello(&mut two, &mut b);
    one.receive(&mut a, 0, &said).unwrap();
    // In another one.
    let mut one = Session::in_channel(&mut a, [[1; 32], [3; 32]], 0).unwrap();
    assert!(matches!(one.receive(&mut a, 0, &said), Err(session::Error::Proof)));
}

#[test]
fn noise_at_the_door_keeps_nobody_out() {
    let world = World::new();
    let (mut a, b) = (board(&world, "a"), board(&world, "b"));
    fill(&mut a, "a", 5, 100);
    served(b.path(), &world.clock, &SAFE, |at, reports| {
        let mut random = Random(1);
        let mut crowd = Vec::new();
        for n in 0..100 {
            let mut stream = TcpStream::connect(at).unwrap();
            let noise: Vec<u8> = (0..random.below(400)).map(|_| random.next() as u8).collect();
            let said: &[u8] = match n % 5 {
                0 => &noise,
                1 => b"\x89PK",
                2 => b"\x89PKS\x01\x01",
                // A handshake, and then nothing more.
                3 => b"\x89PKS\x01\x01a key that is a key of nobody at all",
                _ => b"",
            };
            // Some are closed at the first byte.
            let _ = stream.write_all(said);
            crowd.push(stream);
        }
        let done = sync(&mut a, at, &SAFE).unwrap();
        assert!(done.sent.0 >= 5);
        wait_for(reports, "in step");
        drop(crowd);
    });
    digests_equal(&[&a, &b]);
}

/// Eight stay; the ninth is told so at once, by each way, and is served when one of them has gone. One of the eight that
/// comes again takes its own place.
#[test]
fn eight_at_once_and_the_ninth_is_told_so() {
    let world = World::new();
    let base = world.base("base");
    let mut boards: Vec<Engine> = (0..=SESSIONS_MAX).map(|n| board(&world, &format!("b{n}"))).collect();
    for (n, board) in boards.iter_mut().enumerate() {
        sql(board, &format!("INSERT INTO readings (v) VALUES ({n})"));
    }
    let mut ninth = boards.pop().unwrap();
    let again = boards[0].path().to_owned();
    boards[0] = patient(&again, &world.clock).unwrap();
    served(base.path(), &world.clock, &SAFE, |at, reports| {
        let stops: Vec<Stop> = boards.iter().map(|_| Stop::default()).collect();
        std::thread::scope(|scope| {
            let _ends = Ends(&stops);
            for (n, (board, stop)) in boards.iter_mut().zip(&stops).enumerate() {
                let address: Address = format!("{}://{at}", WAYS[n % WAYS.len()]).parse().unwrap();
                scope.spawn(move || {
                    let stayed = net::stay(board, &address, &SAFE, stop, &mut |_| ());
                    assert!(matches!(stayed, Ok(_) | Err(Error::Stopped)), "{stayed:?}");
                });
                // Those that are there already are in step anew with each that comes.
                wait_for(reports, &format!("met b{n}"));
                wait_for(reports, "in step");
            }
            for way in WAYS {
                let error = sync_by(way, &mut ninth, at, &SAFE).unwrap_err();
                assert!(matches!(error, Error::Busy), "{way}: {error:?}");
            }
            // Its first connection does not know that the board has come again.
            let mut twice = patient(&again, &world.clock).unwrap();
            sync(&mut twice, at, &SAFE).unwrap();
            // Which of its two ends first is nobody's choice.
            let mut awaited = vec!["failed: Replaced", "ended"];
            while !awaited.is_empty() {
                let said = reports.recv_timeout(Duration::from_secs(60)).unwrap();
                awaited.retain(|one| !said.starts_with(one));
            }
            stops[1].stop();
            wait_for(reports, "ended");
            sync(&mut ninth, at, &SAFE).unwrap();
        });
    });
    let devices: BTreeSet<String> = rows(&base, "SELECT DISTINCT device FROM readings").into_iter().collect();
    assert_eq!(devices.len(), SESSIONS_MAX + 1);
}

/// What is written at one device is with another one, by a third that serves both, while nobody begins anything.
#[test]
fn what_is_written_is_on_its_way_at_once() {
    let world = World::new();
    let (mut a, mut b, base) = (board(&world, "a"), board(&world, "b"), board(&world, "base"));
    let path = a.path().to_owned();
    served(base.path(), &world.clock, &SAFE, |at, _| {
        let address = Address::Tcp(Host { name: "127.0.0.1".into(), port: at.port() });
        let stop = Stop::default();
        let (send, applied) = channel();
        std::thread::scope(|scope| {
            let _ends = Ends(std::slice::from_ref(&stop));
            let (address, stop) = (&address, &stop);
            let ends = [&mut a, &mut b].map(|engine| {
                let send = send.clone();
                let mut report = move |status: Status<'_>| {
                    if let Status::InStep(progress) = status {
                        send.send(progress.taken.ops).unwrap();
                    }
                };
                scope.spawn(move || net::stay(engine, address, &SAFE, stop, &mut report))
            });
            let next = || applied.recv_timeout(Duration::from_secs(60)).unwrap();
            assert_eq!([next(), next()], [0, 0], "both are in step");
            common::open(&path).execute_batch("INSERT INTO t VALUES ('now', 1)").unwrap();
            // To the base, and from there to the other board.
            while next() == 0 {}
            stop.stop();
            for end in ends {
                assert!(matches!(end.join().unwrap(), Err(Error::Stopped)));
            }
        });
    });
    assert_eq!(rows(&b, "SELECT v FROM t"), ["1"]);
    digests_equal(&[&a, &b, &base]);
}

/// A server that takes connections and opens nothing: who waits for it is ended at once.
#[test]
fn a_wait_for_the_opening_can_be_ended() {
    let world = World::new();
    let mut a = board(&world, "a");
    for way in ["ws", "http"] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address: Address = format!("{way}://{}", listener.local_addr().unwrap()).parse().unwrap();
        let options = Options { plain: false, patience: None };
        let stop = Stop::default();
        let result = std::thread::scope(|scope| {
            let waits = scope.spawn(|| net::sync(&mut a, &address, &options, &stop, &mut |_| ()));
            let connection = listener.accept().unwrap();
            stop.stop();
            (waits.join().unwrap(), connection).0
        });
        assert!(matches!(result, Err(Error::Stopped)), "{way}: {result:?}");
    }
}

/// Begun over a serial line, which is pulled, ended over TCP.
#[test]
fn begun_on_a_line_and_ended_on_tcp() {
    let world = World::new();
    let (mut a, mut b) = (board(&world, "a"), board(&world, "b"));
    fill(&mut a, "a", 80, 2_000);
    let wire = cable::Cable::new(world.dir.path().join("wire-a"), world.dir.path().join("wire-b"), u32::MAX);
    wire.hold_after(100_000);
    let line = |path: &Path| serial::Options {
        path: path.into(),
        baud: 4_000_000,
        baud_max: 4_000_000,
        flow: serial::Flow::None,
        plain: false,
        patience: None,
    };
    let stop = Stop::default();
    std::thread::scope(|scope| {
        let ends = [(&mut a, &wire.ends[0]), (&mut b, &wire.ends[1])]
            .map(|(engine, end)| (engine, line(end), stop.clone()))
            .map(|(engine, line, stop)| scope.spawn(move || serial::sync(engine, &line, &stop, &mut |_| ())));
        wire.is_held();
        stop.stop();
        for end in ends {
            assert!(matches!(end.join().unwrap(), Err(serial::Error::Stopped)));
        }
    });
    let here: u64 = rows(&b, "SELECT count(*) FROM t")[0].parse().unwrap();
    assert!((20..80).contains(&here), "{here} came by the line");
    served(b.path(), &world.clock, &SAFE, |at, _| {
        let done = sync(&mut a, at, &SAFE).unwrap();
        assert!(done.sent.0 <= 81 - here, "{} more after {here}", done.sent.0);
    });
    digests_equal(&[&a, &b]);
}
