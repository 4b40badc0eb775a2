//! Two sessions over logs of a few pages, as two microcontrollers would run them: everything has a fixed size, and
//! nothing of `std` is used but the test's own macros.

#![allow(clippy::unwrap_used, clippy::panic)]

mod pages;

use ed25519_compact::{KeyPair, SecretKey, Seed};
use heapless::Vec;
use packmule_core::model::Stream;
use packmule_core::session::{BUFFER_MIN, Error, Log, OVERHEAD, Session, State};
use packmule_core::wire::{Message, RECORD_HEAD_LEN, RecordHead, RecordKind, Refusal, Section, write_record};
use pages::{Pages, Refused, Talk};

const BUFFER: usize = 512;
type End = Session<Vec<u8, BUFFER>>;
type Small = Pages<160, 24>;

fn fleet() -> SecretKey {
    KeyPair::from_seed(Seed::new([9; 32])).sk
}

fn small(seed: u8, name: &str, base: bool) -> Small {
    Pages::new(seed, name, base, &fleet())
}

fn begin(talk: &mut Talk<'_, 160, 24>, nonce: u8) -> End {
    End::new(talk, [nonce; 32], 0).unwrap()
}

/// Moves what one end says to the other, in pieces. Returns whether anything moved.
fn turn<L: Log<Taken = ()>>(
    from: (&mut End, &mut L),
    to: (&mut End, &mut L),
    now: u64,
    piece: usize,
) -> Result<bool, Error<L::Error>> {
    let out = from.0.output(from.1)?;
    let some = out.len().min(piece);
    let taken = to.0.receive(to.1, now, &out[..some])?;
    from.0.sent(taken);
    to.0.caught_up(to.1)?;
    from.0.tick(from.1, now)?;
    Ok(some > 0)
}

/// Lets them talk until nothing moves, or for so many pieces.
fn talk<L: Log<Taken = ()>>(
    a: (&mut End, &mut L),
    b: (&mut End, &mut L),
    piece: usize,
    most: usize,
) -> Result<(), Error<L::Error>> {
    for now in 0..most as u64 {
        let moved = turn((a.0, a.1), (b.0, b.1), now, piece)?;
        if !turn((b.0, b.1), (a.0, a.1), now, piece)? && !moved {
            break;
        }
    }
    Ok(())
}

/// A whole session between two logs; how many frames each sent.
fn exchange(a: &mut Small, b: &mut Small, piece: usize) -> (u64, u64) {
    let (mut a, mut b) = (Talk::new(a), Talk::new(b));
    let (mut one, mut two) = (begin(&mut a, 1), begin(&mut b, 2));
    talk((&mut one, &mut a), (&mut two, &mut b), piece, usize::MAX).unwrap();
    assert!(one.in_step() && two.in_step(), "{one:?} {two:?}");
    one.finish(&mut a).unwrap();
    two.finish(&mut b).unwrap();
    talk((&mut one, &mut a), (&mut two, &mut b), piece, usize::MAX).unwrap();
    assert!(one.done() && two.done() && one.peer_done() && two.peer_done());
    assert_eq!((a.recorded, b.recorded), (a.acked, b.acked));
    (one.progress().sent.0, two.progress().sent.0)
}

#[test]
fn both_ways_in_pieces_of_any_size() {
    for piece in [1, 7, 100, 4_096] {
        let (mut a, mut b) = (small(1, "a", false), small(2, "base", true));
        a.record(Stream::Shared, 1, b"one").unwrap();
        a.record(Stream::Shared, 4, b"a group of four").unwrap();
        a.record(Stream::PerDevice, 2, b"for bases").unwrap();
        b.record(Stream::Shared, 2, b"from the base").unwrap();
        b.record(Stream::PerDevice, 1, b"for itself").unwrap();
        assert_eq!(exchange(&mut a, &mut b, piece), (7, 2));
        assert_eq!((b.applied(a.me(), Stream::Shared), b.applied(a.me(), Stream::PerDevice)), (5, 2));
        assert_eq!((a.applied(b.me(), Stream::Shared), a.applied(b.me(), Stream::PerDevice)), (2, 0));
        // Nothing is sent again.
        assert_eq!(exchange(&mut a, &mut b, piece), (0, 0));
    }
}

/// The peer hears what is here before its own vector is taken, which may end the session.
#[test]
fn the_peers_vector_is_received_after_our_own_is_sent() {
    let (mut a, mut b) = (small(1, "a", false), small(2, "b", false));
    let (mut a, mut b) = (Talk::new(&mut a), Talk::new(&mut b));
    let (mut one, mut two) = (begin(&mut a, 1), begin(&mut b, 2));
    // Both hellos, the proof of the second, then proof and vector of the first at once.
    for _ in 0..2 {
        turn((&mut one, &mut a), (&mut two, &mut b), 0, BUFFER).unwrap();
        turn((&mut two, &mut b), (&mut one, &mut a), 0, BUFFER).unwrap();
    }
    assert_eq!((one.state(), two.state()), (State::Greeting, State::Greeting));
    let vector = Vec::<u8, BUFFER>::from_slice(one.output(&mut a).unwrap()).unwrap();
    let taken = two.receive(&mut b, 0, &vector).unwrap();
    assert_eq!((taken, two.state()), (RECORD_HEAD_LEN, State::Greeting), "only the head of the record");
    let own = two.output(&mut b).unwrap();
    let head = RecordHead::parse(own[..RECORD_HEAD_LEN].try_into().unwrap()).unwrap();
    assert_eq!(head.kind, RecordKind::Header);
    assert_eq!(two.receive(&mut b, 0, &vector[taken..]).unwrap(), vector.len() - taken);
    assert_eq!(two.state(), State::Open);
}

#[test]
fn what_is_written_meanwhile_is_sent_when_it_is_noticed() {
    let (mut a, mut b) = (small(1, "a", false), small(2, "b", false));
    let (mut a, mut b) = (Talk::new(&mut a), Talk::new(&mut b));
    let (mut one, mut two) = (begin(&mut a, 1), begin(&mut b, 2));
    talk((&mut one, &mut a), (&mut two, &mut b), 100, usize::MAX).unwrap();
    a.log().record(Stream::Shared, 1, b"late").unwrap();
    assert!(one.in_step());
    one.tick(&mut a, one.deadline()).unwrap();
    assert!(!one.in_step());
    talk((&mut one, &mut a), (&mut two, &mut b), 100, usize::MAX).unwrap();
    assert!(one.in_step() && two.in_step());
    assert_eq!(one.progress().acknowledged, 1);
}

/// Two logs, of which the first has a group of six frames that the second lacks.
fn six() -> (Small, Small) {
    let (mut a, b) = (small(1, "a", false), small(2, "b", false));
    a.record(Stream::Shared, 6, b"a group of six").unwrap();
    (a, b)
}

/// Wherever the stream breaks off, only what was not whole comes again.
#[test]
fn broken_off_anywhere_it_goes_on_where_it_was() {
    let (mut breaks, mut in_the_group) = (0, 0);
    // Another byte of a record each time: 13 divides the length of none.
    for after in (0..).step_by(13) {
        let (mut a, mut b) = six();
        let here = {
            let (mut a, mut b) = (Talk::new(&mut a), Talk::new(&mut b));
            let (mut one, mut two) = (begin(&mut a, 1), begin(&mut b, 2));
            talk((&mut one, &mut a), (&mut two, &mut b), 1, after).unwrap();
            if one.in_step() && two.in_step() {
                break;
            }
            one.abandon(&mut a, 10_000, &[]).unwrap();
            two.abandon(&mut b, 10_000, &[]).unwrap();
            assert_eq!((one.state(), two.state()), (State::Over, State::Over));
            two.progress().received.0
        };
        breaks += 1;
        in_the_group += u32::from((1..6).contains(&here));
        let (sent, _) = exchange(&mut a, &mut b, 4_096);
        assert_eq!(sent + here, 6, "broken off after {after} bytes");
        assert_eq!(b.applied(a.me(), Stream::Shared), 6);
    }
    println!("{breaks} breaks, {in_the_group} within the group");
    assert!(breaks > 50 && in_the_group > 10, "{breaks}, {in_the_group}");
}

#[test]
fn who_lacks_what_is_compacted_away_hears_so_once_and_gets_the_rest() {
    let (mut a, mut b) = (small(1, "a", false), small(2, "base", true));
    a.record(Stream::Shared, 2, b"gone").unwrap();
    a.record(Stream::PerDevice, 1, b"here").unwrap();
    let section = Section { author: a.me(), stream: Stream::Shared };
    a.forget(section, 2);
    let (mut a, mut b) = (Talk::new(&mut a), Talk::new(&mut b));
    let (mut one, mut two) = (begin(&mut a, 1), begin(&mut b, 2));
    talk((&mut one, &mut a), (&mut two, &mut b), 100, usize::MAX).unwrap();
    assert!(one.in_step() && two.in_step());
    assert!(one.progress().peer_needs_snapshot && two.progress().needs_snapshot);
    assert!(!two.progress().peer_needs_snapshot && !one.progress().needs_snapshot);
    assert_eq!((one.progress().sent.0, one.progress().acknowledged), (1, 1));
}

#[test]
fn a_device_of_another_fleet_is_refused_and_hears_why() {
    let mut a = small(1, "a", false);
    let mut b = Small::new(2, "b", false, &KeyPair::from_seed(Seed::new([8; 32])).sk);
    let id = b.me();
    let (mut a, mut b) = (Talk::new(&mut a), Talk::new(&mut b));
    let (mut one, mut two) = (begin(&mut a, 1), begin(&mut b, 2));
    let hello = Vec::<u8, BUFFER>::from_slice(two.pending_output()).unwrap();
    let refused = one.receive(&mut a, 0, &hello);
    assert_eq!(refused, Err(Error::Untrusted { device: id, revoked: false }));
    assert_eq!((one.state(), one.peer()), (State::Over, None));
    let heard = two.receive(&mut b, 0, one.pending_output());
    // Its own hello came before, and is refused first.
    assert!(matches!(heard, Err(Error::Untrusted { .. })), "{heard:?}");
}

fn message(message: &Message<'_>) -> Vec<u8, BUFFER> {
    let (mut body, mut record) = ([0; 128], [0; 160]);
    let len = message.encode(&mut body).unwrap();
    let len = write_record(&mut record, RecordKind::Message, &body[..len]).unwrap();
    Vec::from_slice(&record[..len]).unwrap()
}

/// Every message that is out of turn is refused with the state in which it came, and the peer hears of it.
#[test]
fn what_is_out_of_turn_is_a_typed_error() {
    for (words, state) in [
        (Message::Proof(&[0; 64]), State::Hello),
        (Message::Idle(1), State::Hello),
        (Message::Bye, State::Hello),
        (Message::Behind, State::Hello),
    ] {
        let (mut a, mut b) = (small(1, "a", false), small(2, "b", false));
        let (mut a, mut b) = (Talk::new(&mut a), Talk::new(&mut b));
        let (mut one, mut two) = (begin(&mut a, 1), begin(&mut b, 2));
        let sent = one.pending_output().len();
        assert_eq!(one.receive(&mut a, 0, &message(&words)), Err(Error::OutOfTurn(state)), "{words:?}");
        let refusal = Vec::<u8, BUFFER>::from_slice(&one.pending_output()[sent..]).unwrap();
        let heard = two.receive(&mut b, 0, &refusal);
        assert!(matches!(heard, Err(Error::Refused { why: Refusal::Damaged, us: false, .. })), "{heard:?}");
        // After that nothing is taken any more, and nothing more is said.
        let words = one.pending_output().len();
        assert_eq!(one.receive(&mut a, 0, &[0xff; 100]), Ok(100));
        assert_eq!(one.output(&mut a).unwrap().len(), words);
    }
    let (mut a, mut b) = (small(1, "a", false), small(2, "b", false));
    let (mut a, mut b) = (Talk::new(&mut a), Talk::new(&mut b));
    let (mut one, mut two) = (begin(&mut a, 1), begin(&mut b, 2));
    talk((&mut one, &mut a), (&mut two, &mut b), 100, usize::MAX).unwrap();
    assert_eq!(one.state(), State::Open);
    let proof = message(&Message::Proof(&[0; 64]));
    assert_eq!(one.receive(&mut a, 0, &proof), Err(Error::OutOfTurn(State::Open)));
}

#[test]
fn what_has_no_room_is_a_typed_error() {
    // A record that is longer than the buffer: its head says so.
    let (mut a, mut b) = (small(1, "a", false), small(2, "b", false));
    let (mut a, mut b) = (Talk::new(&mut a), Talk::new(&mut b));
    let (mut one, mut two) = (begin(&mut a, 1), begin(&mut b, 2));
    talk((&mut one, &mut a), (&mut two, &mut b), 100, usize::MAX).unwrap();
    let mut long = [0; 2_000];
    let len = write_record(&mut long, RecordKind::Certificate, &[0; 1_000]).unwrap();
    assert_eq!(one.receive(&mut a, 0, &long[..len]), Err(Error::TooLong { len: 1_004 }));
    // A log that is full: what came and is whole stays, the peer hears that something failed.
    let mut full = small(3, "full", false);
    while full.record(Stream::Shared, 1, b"x").is_ok() {}
    let mut c = small(4, "c", false);
    c.record(Stream::Shared, 1, b"no room for it").unwrap();
    let (mut full, mut c) = (Talk::new(&mut full), Talk::new(&mut c));
    let (mut one, mut two) = (begin(&mut full, 1), begin(&mut c, 2));
    let ended = talk((&mut two, &mut c), (&mut one, &mut full), 100, usize::MAX);
    assert_eq!(ended, Err(Error::Log(Refused::Full)));
    // A buffer in which not even a hello fits.
    let tiny = Session::<Vec<u8, 64>>::new(&mut full, [1; 32], 0);
    assert_eq!(tiny.err(), Some(Error::NoRoom));
    assert!(Session::<Vec<u8, BUFFER_MIN>>::new(&mut full, [1; 32], 0).is_ok());
}

/// The sizes that the module's page promises.
#[test]
fn a_session_is_two_buffers_and_little_more() {
    for (size, buffer) in [
        (size_of::<Session<Vec<u8, BUFFER_MIN>>>(), BUFFER_MIN),
        (size_of::<Session<Vec<u8, 512>>>(), 512),
        (size_of::<Session<Vec<u8, 2_048>>>(), 2_048),
    ] {
        println!("two buffers of {buffer}: {size} bytes");
        assert!(size <= 2 * (buffer + 16) + OVERHEAD, "{size}");
        assert!(size + 64 >= 2 * buffer + OVERHEAD, "OVERHEAD says too much: {size}");
    }
}
