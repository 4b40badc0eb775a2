//! What comes over a stream of bytes before anybody has proved anything: openings, messages of the handshake and records, changed
//! in every place. How it goes: `tests/fuzz/targets.rs`.

use crate::engine::store::fuzz_targets::{Signature, Target, got, try_all};

use super::{Broken, Wire};

/// What a caller says, in clear and encrypted, with records behind.
fn calls() -> Vec<Vec<u8>> {
    let records: &[u8] = b"\x04\x00said\x00\x00\x11\x00 and seventeen so.";
    [true, false]
        .map(|plain| {
            let caller = Wire::call(plain).unwrap();
            [&[u8::from(plain)], caller.to_go(), records].concat()
        })
        .into()
}

/// What comes to who listens, in pieces of a length that the first byte says.
fn answer(bytes: &[u8]) -> Signature {
    let Some((how, came)) = bytes.split_first() else { return 0 };
    heard(Wire::answer(how & 1 == 1, Vec::new()), came, usize::from(how >> 1) + 1)
}

/// What comes to who has called.
fn call(bytes: &[u8]) -> Signature {
    let Some((how, came)) = bytes.split_first() else { return 0 };
    heard(Wire::call(how & 1 == 1).unwrap(), came, usize::from(how >> 1) + 1)
}

/// Two ends that have opened, of which the one hears what the other has said, changed: nothing but that comes out.
fn opened(bytes: &[u8]) -> Signature {
    let (mut caller, mut other) = (Wire::call(false).unwrap(), Wire::answer(false, Vec::new()));
    for _ in 0..2 {
        pass(&mut caller, &mut other);
        pass(&mut other, &mut caller);
    }
    let said = b"what was said, and nothing else";
    caller.put(said);
    caller.seal().unwrap();
    let mut record = caller.to_go().to_vec();
    let whole = record.clone();
    let places = record.len();
    for change in bytes.chunks_exact(2) {
        record[usize::from(change[0]) % places] ^= change[1];
    }
    other.hear(&record);
    let mut to = [0; 100];
    match other.take(&mut to) {
        Ok(0) => 1,
        Ok(count) => {
            assert!(record == whole && to[..count] == said[..], "a changed record was taken in");
            2
        }
        Err(Broken::Tampered) => 3,
        Err(_) => 4,
    }
}

fn pass(from: &mut Wire, to: &mut Wire) {
    to.hear(from.to_go());
    from.went(from.waiting());
    let _ = to.take(&mut [0; 1]);
}

/// Lets an end hear bytes in pieces, and takes out what it makes of them.
fn heard(mut wire: Wire, came: &[u8], piece: usize) -> Signature {
    let (mut all, mut to) = (0, [0; 64]);
    for piece in came.chunks(piece) {
        wire.hear(piece);
        loop {
            match wire.take(&mut to) {
                Ok(0) => break,
                Ok(count) => all += count,
                Err(e) => return got(all) + 100 * why(&e),
            }
        }
    }
    assert!(all <= came.len(), "more comes out than went in");
    assert!(wire.waiting() <= 256 + 200, "it answers without end");
    got(all) + u64::from(wire.is_open())
}

fn why(e: &Broken) -> u64 {
    match e {
        Broken::Foreign => 1,
        Broken::Clear { theirs } => 2 + u64::from(*theirs),
        Broken::Tampered => 4,
        Broken::Random(e) => panic!("{e}"),
    }
}

fn changes() -> Vec<Vec<u8>> {
    vec![vec![0, 1], vec![5, 128, 7, 3], Vec::new()]
}

#[test]
fn nothing_that_comes_before_a_proof_panics_or_is_believed() {
    try_all(&[
        Target { name: "channel-answer", seeds: calls, run: answer, weight: 40 },
        Target { name: "channel-call", seeds: calls, run: call, weight: 40 },
        Target { name: "channel-opened", seeds: changes, run: opened, weight: 100 },
    ]);
}
