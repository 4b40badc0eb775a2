//! A microcontroller's session with a board's: the same machine over some pages on one side, over a database on the
//! other.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;
mod pages;

use common::{World, carry, sql};
use ed25519_compact::{KeyPair, SecretKey, Seed};
use packmule::carry::session::Session as OnDatabase;
use packmule::core::model::Stream;
use packmule::core::session::{Progress, Session as Machine};
use packmule::{DeviceInfo, Engine};
use pages::{Pages, Talk};

type Recorder = Pages<1_024, 24>;
type OnPages = Machine<heapless::Vec<u8, 1_200>>;

/// The key in a fleet's file: its second line, in hexadecimal digits.
fn fleet_key(world: &World) -> SecretKey {
    let file = std::fs::read_to_string(world.dir.path().join("fleet.key")).unwrap();
    let hex = file.lines().nth(1).unwrap();
    let byte = |at: usize| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap();
    KeyPair::from_seed(Seed::new(std::array::from_fn(byte))).sk
}

/// Lets both talk until each has all that the other has; how many frames the recorder sent and received.
fn exchange(recorder: &mut Recorder, board: &mut Engine) -> (u64, u64) {
    let (small, _) = talk(recorder, board);
    (small.sent.0, small.received.0)
}

/// Lets both talk until each has all that the other has; how far each came.
fn talk(recorder: &mut Recorder, board: &mut Engine) -> (Progress, packmule::carry::session::Progress) {
    let mut talk = Talk::new(recorder);
    let mut small = OnPages::new(&mut talk, [1; 32], 0).unwrap();
    let mut large = OnDatabase::new(board, [2; 32], 0).unwrap();
    let mut quiet = false;
    for now in 0.. {
        assert!(now < 10_000, "they never end: {small:?}");
        let out = small.output(&mut talk).unwrap();
        let count = out.len();
        large.receive(board, now, out).unwrap();
        small.sent(count);
        large.tick(board, now).unwrap();
        let out = large.output(board).unwrap();
        let back = out.len();
        let taken = small.receive(&mut talk, now, out).unwrap();
        large.sent(taken);
        small.tick(&mut talk, now).unwrap();
        if quiet && count + back == 0 && small.in_step() && large.in_step() {
            break;
        }
        quiet = count + back == 0;
    }
    small.finish(&mut talk).unwrap();
    large.finish(board).unwrap();
    assert_eq!(talk.recorded, talk.acked);
    (small.progress().clone(), large.progress().clone())
}

fn seen_of(recorder: &Recorder, board: &Engine) -> DeviceInfo {
    board.devices().unwrap().into_iter().find(|device| device.id == recorder.me()).unwrap()
}

#[test]
fn a_recorder_and_a_base_are_in_step() {
    let world = World::new();
    let mut base = world.base("base");
    sql(&base, "CREATE TABLE settings (key TEXT PRIMARY KEY, value); INSERT INTO settings VALUES ('a', 1)");
    base.track("settings", &packmule::TrackOptions::default()).unwrap();
    let mut recorder = Recorder::new(77, "recorder", false, &fleet_key(&world));
    for _ in 0..3 {
        recorder.record(Stream::Shared, 1, b"").unwrap();
        recorder.record(Stream::PerDevice, 2, b"").unwrap();
    }
    let (sent, received) = exchange(&mut recorder, &mut base);
    assert_eq!(sent, 9);
    assert!(received > 0);
    let info = seen_of(&recorder, &base);
    assert_eq!((info.shared, info.own), (3, 6));
    // What the board wrote is there, and acknowledged.
    let of_base = base.devices().unwrap()[0].shared;
    assert_eq!(recorder.applied(base.identity().id, Stream::Shared), of_base);
    assert_eq!(info.acknowledged, of_base);
    // The next time only what is new goes.
    recorder.record(Stream::Shared, 1, b"").unwrap();
    sql(&base, "UPDATE settings SET value = 2");
    let (sent, received) = exchange(&mut recorder, &mut base);
    assert_eq!(sent, 1);
    assert!(received > 0);
    assert_eq!(seen_of(&recorder, &base).shared, 4);
    assert!(base.verify().unwrap().problems.is_empty());
}

#[test]
fn a_board_that_is_no_base_gets_the_shared_stream_alone() {
    let world = World::new();
    let mut board = world.board("board");
    let mut recorder = Recorder::new(77, "recorder", false, &fleet_key(&world));
    recorder.record(Stream::Shared, 2, b"").unwrap();
    recorder.record(Stream::PerDevice, 2, b"").unwrap();
    assert_eq!(exchange(&mut recorder, &mut board).0, 2);
    let info = seen_of(&recorder, &board);
    assert_eq!((info.shared, info.own), (2, 0));
}

/// A microcontroller lacks what a base has folded. It takes no state, says so, and all the rest goes on.
#[test]
fn a_recorder_declines_the_state() {
    let world = World::new();
    let (mut base, mut board) = (world.base("base"), world.board("board"));
    sql(&base, "CREATE TABLE settings (key TEXT PRIMARY KEY, value); INSERT INTO settings VALUES ('a', 1)");
    base.track("settings", &packmule::TrackOptions::default()).unwrap();
    for _ in 0..2 {
        carry(&mut base, &mut board);
        carry(&mut board, &mut base);
    }
    assert!(base.compact().unwrap().frames > 0);
    let mut recorder = Recorder::new(77, "recorder", false, &fleet_key(&world));
    recorder.record(Stream::Shared, 2, b"").unwrap();
    recorder.record(Stream::PerDevice, 3, b"").unwrap();
    for sent in [5, 0] {
        let (small, large) = talk(&mut recorder, &mut base);
        assert!(small.needs_snapshot && large.peer_needs_snapshot);
        assert_eq!((large.state_sent, small.state_received), ((0, 0), (0, 0)));
        assert_eq!(small.sent.0, sent);
    }
    let info = seen_of(&recorder, &base);
    assert_eq!((info.shared, info.own), (2, 3));
}
