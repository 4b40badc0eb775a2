//! A session that hears what an honest peer said, changed on the way. Keys and nonces are the same every time, so that
//! what was said once is good again.

use ed25519_compact::{KeyPair, SecretKey, Seed};
use heapless::Vec as Fixed;
use packmule_core::model::Stream;
use packmule_core::session::Session;

use crate::pages::{Pages, Talk};

type End = Session<Fixed<u8, 512>>;
type Small = Pages<160, 24>;

fn fleet() -> SecretKey {
    KeyPair::from_seed(Seed::new([9; 32])).sk
}

fn board() -> Small {
    let mut board = Small::new(1, "board", false, &fleet());
    board.record(Stream::Shared, 2, b"of the board").unwrap();
    board
}

fn base() -> Small {
    let mut base = Small::new(2, "base", true, &fleet());
    base.record(Stream::Shared, 1, b"of the base").unwrap();
    base.record(Stream::Shared, 3, b"a group of three").unwrap();
    base
}

/// What the base says to the board in an honest session.
pub fn transcripts() -> Vec<Vec<u8>> {
    let (mut a, mut b) = (board(), base());
    let (mut a, mut b) = (Talk::new(&mut a), Talk::new(&mut b));
    let (mut one, mut two) = (End::new(&mut a, [1; 32], 0).unwrap(), End::new(&mut b, [2; 32], 0).unwrap());
    let mut said = Vec::new();
    for now in 0..400 {
        let out = one.output(&mut a).unwrap().to_vec();
        let taken = two.receive(&mut b, now, &out).unwrap();
        one.sent(taken);
        two.caught_up(&mut b).unwrap();
        let out = two.output(&mut b).unwrap().to_vec();
        let taken = one.receive(&mut a, now, &out).unwrap();
        said.extend_from_slice(&out[..taken]);
        two.sent(taken);
        one.caught_up(&mut a).unwrap();
        one.tick(&mut a, now).unwrap();
        two.tick(&mut b, now).unwrap();
    }
    assert!(one.in_step() && two.in_step(), "{one:?} {two:?}");
    vec![said]
}

/// Lets the board hear these bytes; how far it got.
pub fn session(bytes: &[u8]) -> u64 {
    let mut log = board();
    let mut talk = Talk::new(&mut log);
    let mut end = End::new(&mut talk, [1; 32], 0).unwrap();
    let (mut rest, mut steps) = (bytes, 0);
    for now in 0..bytes.len() as u64 + 20 {
        loop {
            let len = end.output(&mut talk).map_or(0, <[u8]>::len);
            if len == 0 {
                break;
            }
            end.sent(len);
            steps += 1;
            assert!(steps < 10_000, "it answers without end");
        }
        match end.receive(&mut talk, now, rest) {
            Ok(taken) => rest = &rest[taken..],
            Err(_) => return 100 + steps.min(40),
        }
        if end.caught_up(&mut talk).is_err() || end.tick(&mut talk, now).is_err() {
            return 200 + steps.min(40);
        }
        if rest.is_empty() && now > 4 {
            break;
        }
    }
    1_000 + steps.min(40)
}
