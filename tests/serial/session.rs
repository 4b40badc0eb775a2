//! Sessions over pipes in memory: both ways at once, untrusted devices, breaks at every byte, bad bytes. The clock
//! is a number; nothing sleeps.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;
#[path = "copies.rs"]
mod copies;
#[path = "liar.rs"]
mod liar;
#[path = "state.rs"]
mod state;

use common::{Random, World, append, digests_equal, rows, sql};

use packmule::Engine;
use packmule::carry::session::{Error, Session};
use packmule::core::model::DeviceId;
use packmule::core::wire::{Message, RecordKind, Refusal, write_record};

/// One end: a session, and the bytes on their way to it.
struct End {
    session: Session,
    input: Vec<u8>,
    error: Option<Error>,
    /// How many bytes came in all.
    came: usize,
}

impl End {
    fn new(engine: &mut Engine, nonce: u8) -> Self {
        let session = Session::new(engine, [nonce; 32], 0).unwrap();
        Self { session, input: Vec::new(), error: None, came: 0 }
    }

    /// Takes what came and gives what is to go out, at most so much.
    fn turn(&mut self, engine: &mut Engine, now: u64, most: usize) -> Vec<u8> {
        let input = std::mem::take(&mut self.input);
        self.came += input.len();
        let mut out = Vec::new();
        if self.error.is_none() {
            let mut turn = || {
                self.session.receive(engine, now, &input)?;
                self.session.caught_up(engine)?;
                self.session.tick(engine, now)?;
                while out.len() < most {
                    let bytes = self.session.output(engine)?;
                    if bytes.is_empty() {
                        break;
                    }
                    let some = bytes.len().min(most - out.len());
                    out.extend_from_slice(&bytes[..some]);
                    self.session.sent(some);
                }
                Ok(())
            };
            self.error = turn().err();
        }
        if self.error.is_some() {
            out.extend_from_slice(self.session.pending_output());
            self.session.sent(usize::MAX / 2);
        }
        out
    }
}

/// Lets two talk until both are in step or have failed, or so many bytes have come to the second.
fn talk(a: (&mut Engine, &mut End), b: (&mut Engine, &mut End), chunk: usize, most: usize) {
    let mut now = 0;
    for turns in 0.. {
        assert!(turns < 200_000, "they never end");
        now += 1;
        let out = a.1.turn(a.0, now, chunk);
        let quiet = out.is_empty();
        let room = most - b.1.came.min(most);
        b.1.input.extend(&out[..out.len().min(room)]);
        if b.1.came + b.1.input.len() >= most {
            b.1.turn(b.0, now, 0);
            return;
        }
        let out = b.1.turn(b.0, now, chunk);
        let quiet = quiet && out.is_empty();
        a.1.input.extend(out);
        let over = |end: &End| end.session.in_step() || end.error.is_some();
        if quiet && over(a.1) && over(b.1) {
            return;
        }
    }
}

fn exchange(a: &mut Engine, b: &mut Engine, chunk: usize) -> (End, End) {
    let (mut one, mut two) = (End::new(a, 1), End::new(b, 2));
    talk((a, &mut one), (b, &mut two), chunk, usize::MAX);
    (one, two)
}

const TABLES: &str = "CREATE TABLE t (id TEXT PRIMARY KEY, v);
    CREATE TABLE readings (id INTEGER PRIMARY KEY AUTOINCREMENT, v BLOB);";

fn fill(engine: &Engine, name: &str, rows: u32, blob: u32) {
    sql(
        engine,
        &format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
             INSERT INTO t SELECT '{name}' || i, randomblob({blob}) FROM n"
        ),
    );
}

fn board(world: &World, name: &str) -> Engine {
    let mut board = world.board_with(name, TABLES, &["t"]);
    board.track("readings", &append()).unwrap();
    board
}

#[test]
fn both_ways_at_once_in_pieces_of_any_size() {
    for chunk in [1, 7, 100, 4_096, 1 << 20] {
        let world = World::new();
        let (mut a, mut b) = (board(&world, "a"), board(&world, "b"));
        fill(&a, "a", 40, 100);
        fill(&b, "b", 30, 100);
        let (one, two) = exchange(&mut a, &mut b, chunk);
        assert!(one.error.is_none() && two.error.is_none(), "{:?} {:?}", one.error, two.error);
        digests_equal(&[&a, &b]);
        assert_eq!(rows(&a, "SELECT count(*) FROM t"), ["70"]);
        assert_eq!(one.session.progress().acknowledged, a.devices().unwrap()[0].shared);
        assert!(a.verify().unwrap().problems.is_empty());
        // Nothing is sent again.
        let (one, two) = exchange(&mut a, &mut b, chunk);
        assert_eq!((one.session.progress().sent.0, two.session.progress().sent.0), (0, 0));
    }
}

#[test]
fn own_streams_go_to_bases_alone() {
    let world = World::new();
    let (mut a, mut b, mut base) = (board(&world, "a"), board(&world, "b"), world.base("base"));
    sql(&a, "INSERT INTO readings (v) VALUES (1), (2), (3)");
    exchange(&mut a, &mut b, 4_096);
    let from_a =
        |e: &Engine| e.devices().unwrap().into_iter().find(|d| d.name.as_deref() == Some("a")).unwrap();
    assert_eq!(from_a(&b).own, 0);
    assert!(from_a(&b).shared > 0);
    exchange(&mut a, &mut base, 4_096);
    assert_eq!(from_a(&base).own, from_a(&a).own);
    assert_eq!(rows(&base, "SELECT count(*) FROM readings"), ["3"]);
}

#[test]
fn what_is_acknowledged_is_noted() {
    let world = World::new();
    let (mut a, mut b) = (board(&world, "a"), board(&world, "b"));
    fill(&a, "a", 10, 10);
    let (mut one, mut two) = exchange(&mut a, &mut b, 4_096);
    one.session.finish(&mut a).unwrap();
    two.session.finish(&mut b).unwrap();
    let of_b = a.devices().unwrap().into_iter().find(|d| d.name.as_deref() == Some("b")).unwrap();
    assert_eq!(of_b.acknowledged, a.devices().unwrap()[0].shared);
    assert!(of_b.heard.is_some());
}

#[test]
fn an_untrusted_device_is_refused_on_both_sides() {
    let (world, elsewhere) = (World::new(), World::new());
    let (mut a, mut b) = (board(&world, "a"), board(&elsewhere, "b"));
    fill(&a, "a", 10, 10);
    let before = (common::everything(a.path()), common::everything(b.path()));
    let (one, two) = exchange(&mut a, &mut b, 4_096);
    let of = |end: &End| match &end.error {
        Some(Error::UntrustedDevice(s)) => s.id,
        other => panic!("{other:?}"),
    };
    assert_eq!((of(&one), of(&two)), (b.identity().id, a.identity().id));
    assert!(one.error.unwrap().to_string().contains(&b.identity().id.to_string()));
    assert!(common::everything(b.path()) == before.1, "a refused session changes nothing");
    drop(before);
    // Trusted by one of them only: the other refuses, and the first hears of it.
    a.trust(b.identity().id).unwrap();
    let (one, two) = exchange(&mut a, &mut b, 4_096);
    assert!(matches!(&two.error, Some(Error::UntrustedDevice(s)) if s.id == a.identity().id));
    match &one.error {
        Some(Error::Refused {
            why: Refusal::Untrusted,
            about,
            us: true,
            by: Some((id, _)),
            asked: false,
        }) => {
            assert_eq!((*about, *id), (a.identity().id, b.identity().id));
        }
        other => panic!("{other:?}"),
    }
    // By both.
    b.trust(a.identity().id).unwrap();
    let (one, two) = exchange(&mut a, &mut b, 4_096);
    assert!(one.error.is_none() && two.error.is_none(), "{:?} {:?}", one.error, two.error);
    digests_equal(&[&a, &b]);
}

#[test]
fn a_certificate_without_its_key_opens_nothing() {
    let world = World::new();
    let (mut a, mut b, mut c) = (board(&world, "a"), board(&world, "b"), board(&world, "c"));
    // The hello and proof of `b`, as said to `c`, are played to `a`.
    let mut of_b = End::new(&mut b, 2);
    let hello = of_b.turn(&mut b, 0, 4_096);
    let mut of_c = End::new(&mut c, 3);
    of_b.input = of_c.turn(&mut c, 0, 4_096);
    let proof = of_b.turn(&mut b, 0, 4_096);
    let mut of_a = End::new(&mut a, 3);
    of_a.input = [hello, proof].concat();
    of_a.turn(&mut a, 0, 4_096);
    assert!(matches!(of_a.error, Some(Error::Proof)), "{:?}", of_a.error);
    assert!(of_a.session.peer().is_none());
}

#[test]
fn a_device_does_not_talk_to_itself() {
    let world = World::new();
    let mut a = board(&world, "a");
    let mut again = Engine::open_with(a.path(), world.options()).unwrap();
    let (one, two) = exchange(&mut a, &mut again, 100);
    assert!(matches!(one.error, Some(Error::Itself)) && two.error.is_some());
}

#[test]
fn broken_off_anywhere_it_goes_on_where_it_was() {
    let world = World::new();
    let (mut a, mut b) = (board(&world, "a"), board(&world, "b"));
    // One group of many frames, with a value that is longer than several of them.
    fill(&a, "a", 60, 2_000);
    fill(&a, "big", 1, 200_000);
    let total = {
        a.seal().unwrap();
        a.status().unwrap().log_bytes
    };
    let mut sent = 0;
    let mut frames = 0;
    let mut breaks = 0;
    loop {
        let (mut one, mut two) = (End::new(&mut a, 1), End::new(&mut b, 2));
        // The second end is gone, without a word and with what it had not written down, after so many bytes.
        talk((&mut a, &mut one), (&mut b, &mut two), 3_000, 50_000 + 777 * breaks);
        sent += one.session.progress().sent.1;
        frames += two.session.progress().received.0;
        assert!(one.error.is_none() && two.error.is_none(), "{:?} {:?}", one.error, two.error);
        assert!(b.verify().unwrap().problems.is_empty());
        if one.session.in_step() && two.session.in_step() {
            break;
        }
        assert_eq!(rows(&b, "SELECT count(*) FROM t"), ["0"], "nothing of a group before all of it is here");
        breaks += 1;
    }
    assert!(breaks >= 5, "{breaks}");
    // Frames of 16 KiB are in the log as soon as they are here: none came whole twice. At every break the frame on
    // its way is sent again, and what the sender had taken in hand.
    assert_eq!(frames, a.devices().unwrap()[0].shared);
    assert!(sent <= total + breaks as u64 * 2 * 16_384, "{sent} of {total} in {breaks} breaks");
    digests_equal(&[&a, &b]);
}

/// What came twice.
struct Twice {
    breaks: usize,
    frames: u64,
    bytes: u64,
}

/// Sends 400 small groups over a stream that breaks off again and again. `alive`: the processes live on at both ends;
/// otherwise the second is killed each time.
fn small_groups(alive: bool) -> Twice {
    let world = World::new();
    let (mut a, mut b) = (board(&world, "a"), board(&world, "b"));
    for i in 0..400 {
        fill(&a, &format!("{i}-"), 1, 200);
        a.seal().unwrap();
    }
    let (mut come, mut breaks, mut plan) = ((0, 0), 0, None);
    loop {
        let (mut one, mut two) = (End::new(&mut a, 1), End::new(&mut b, 2));
        // The clock of `talk` goes on by a millisecond with each 300 bytes: some 3 megabaud.
        talk((&mut a, &mut one), (&mut b, &mut two), 300, 9_000 + 777 * breaks);
        if alive {
            one.session.abandon(&mut a, 1_000, &one.input).unwrap();
            two.session.abandon(&mut b, 1_000, &two.input).unwrap();
            assert!(two.session.output(&mut b).unwrap().is_empty(), "nobody listens");
        }
        assert!(one.error.is_none() && two.error.is_none(), "{:?} {:?}", one.error, two.error);
        let (received, lacked) = (two.session.progress().received, two.session.progress().to_receive);
        plan.get_or_insert(lacked);
        come = (come.0 + received.0, come.1 + received.1);
        if lacked == received {
            break;
        }
        breaks += 1;
    }
    let plan = plan.unwrap();
    let twice = Twice { breaks, frames: come.0 - plan.0, bytes: come.1 - plan.1 };
    println!("{breaks} breaks: {} of {} frames came twice, {} bytes", twice.frames, plan.0, twice.bytes);
    assert!(breaks >= 5, "{breaks}");
    exchange(&mut a, &mut b, 4_096);
    digests_equal(&[&a, &b]);
    twice
}

/// Only the frame that is torn at a break is sent again.
#[test]
fn no_whole_frame_comes_twice_while_the_processes_live() {
    assert_eq!(small_groups(true).frames, 0);
}

/// What comes twice after a killed process or a power cut is less than what is written down together.
#[test]
fn of_small_frames_little_comes_twice_after_a_kill() {
    let twice = small_groups(false);
    assert!(twice.frames > 0, "nothing was lost: this is no test of it");
    assert!(twice.bytes <= twice.breaks as u64 * 4_096, "{} bytes in {} breaks", twice.bytes, twice.breaks);
}

/// How many of eight frames, staged when `end` ended the session behind the last byte of the eighth, come again.
fn again_after(end: impl FnOnce(&mut Engine, &mut Session)) -> u64 {
    let world = World::new();
    let (mut a, mut b) = (board(&world, "a"), board(&world, "b"));
    for i in 0..40 {
        fill(&a, &format!("{i}-"), 1, 200);
        a.seal().unwrap();
    }
    let (mut one, mut two) = (End::new(&mut a, 1), End::new(&mut b, 2));
    while two.session.progress().received.0 < 8 {
        for byte in one.turn(&mut a, 1, 300) {
            if two.session.progress().received.0 < 8 {
                two.session.receive(&mut b, 1, &[byte]).unwrap();
            }
        }
        one.input = two.turn(&mut b, 1, 300);
    }
    end(&mut b, &mut two.session);
    let plan = two.session.progress().to_receive.0;
    assert!(b.verify().unwrap().problems.is_empty());
    let (one, two) = exchange(&mut a, &mut b, 4_096);
    assert!(one.error.is_none() && two.error.is_none(), "{:?} {:?}", one.error, two.error);
    digests_equal(&[&a, &b]);
    8 + two.session.progress().received.0 - plan
}

#[test]
fn an_abandoned_session_keeps_what_is_whole_and_nothing_doubtful() {
    let record = |message: &Message<'_>| {
        let (mut body, mut record) = ([0; 64], [0; 128]);
        let len = message.encode(&mut body).unwrap();
        let len = write_record(&mut record, RecordKind::Message, &body[..len]).unwrap();
        record[..len].to_vec()
    };
    let refused = record(&Message::Refused { why: Refusal::Failed, device: DeviceId([7; 16]) });
    assert_eq!(again_after(|_, _| {}), 8, "control: all of it was staged, and is gone with the process");
    assert_eq!(again_after(|b, s| s.abandon(b, 1_000, &[]).unwrap()), 0);
    // The other end gave up, before the break or with its last bytes: what it sent is as good as it was.
    let given_up = |b: &mut Engine, s: &mut Session| {
        assert!(matches!(s.receive(b, 1_000, &refused), Err(Error::Refused { .. })));
        s.abandon(b, 1_000, &[]).unwrap();
    };
    assert_eq!(again_after(given_up), 0);
    let with_its_last_bytes = |b: &mut Engine, s: &mut Session| {
        assert!(matches!(s.abandon(b, 1_000, &refused), Err(Error::Refused { .. })));
    };
    assert_eq!(again_after(with_its_last_bytes), 0);
    // It sent what makes no sense: nothing of that is written down, and why the session ended is still reported.
    let senseless = |b: &mut Engine, s: &mut Session| {
        let said = s.receive(b, 1_000, &[0xff; 64]);
        assert!(matches!(said, Err(Error::Protocol(_))), "{said:?}");
        let words = s.pending_output().len();
        assert!(words > 0);
        s.abandon(b, 1_000, &[0xff; 64]).unwrap();
        assert_eq!(s.pending_output().len(), words);
    };
    assert_eq!(again_after(senseless), 8);
}

#[test]
fn flipped_bytes_are_refused_and_leave_nothing_behind() {
    let world = World::new();
    let (mut a, mut b) = (board(&world, "a"), board(&world, "b"));
    fill(&a, "a", 30, 1_000);
    let mut random = Random(7);
    for _ in 0..60 {
        let (mut one, mut two) = (End::new(&mut a, 1), End::new(&mut b, 2));
        let mut at = random.below(40_000) as usize;
        for now in 1..500 {
            let mut out = one.turn(&mut a, now, 1_000);
            if at < out.len() {
                out[at] ^= 1 << random.below(8);
            }
            at = at.checked_sub(out.len()).unwrap_or(usize::MAX);
            two.input.extend(out);
            one.input = two.turn(&mut b, now, 1_000);
        }
        assert!(two.error.is_some() || two.session.in_step());
        assert!(b.verify().unwrap().problems.is_empty());
        if two.session.in_step() {
            break;
        }
    }
    let (one, two) = exchange(&mut a, &mut b, 1_000);
    assert!(one.error.is_none() && two.error.is_none(), "{:?} {:?}", one.error, two.error);
    digests_equal(&[&a, &b]);
}

#[test]
fn what_is_written_meanwhile_is_sent_when_it_is_noticed() {
    let world = World::new();
    let (mut a, mut b) = (board(&world, "a"), board(&world, "b"));
    let (mut one, mut two) = exchange(&mut a, &mut b, 4_096);
    sql(&a, "INSERT INTO t VALUES ('late', 1)");
    sql(&b, "INSERT INTO t VALUES ('later', 2)");
    // A second later both look.
    for now in [2_000, 2_001, 2_002, 2_003, 4_000, 4_001, 4_002] {
        two.input.extend(one.turn(&mut a, now, 1 << 20));
        one.input.extend(two.turn(&mut b, now, 1 << 20));
    }
    assert!(one.session.in_step() && two.session.in_step());
    assert_eq!(rows(&a, "SELECT count(*) FROM t"), ["2"]);
    digests_equal(&[&a, &b]);
}

#[test]
fn frames_travel_on_through_a_third() {
    let world = World::new();
    let (mut a, mut b, mut c) = (board(&world, "a"), board(&world, "b"), board(&world, "c"));
    fill(&a, "a", 20, 50);
    exchange(&mut a, &mut b, 500);
    fill(&b, "b", 20, 50);
    let (one, two) = exchange(&mut b, &mut c, 500);
    assert!(one.error.is_none() && two.error.is_none(), "{:?} {:?}", one.error, two.error);
    digests_equal(&[&b, &c]);
    exchange(&mut a, &mut c, 500);
    digests_equal(&[&a, &b, &c]);
}

#[test]
fn an_unfinished_group_does_not_hinder_a_bundle() {
    let world = World::new();
    let (mut a, mut b) = (board(&world, "a"), board(&world, "b"));
    fill(&a, "a", 60, 2_000);
    let (mut one, mut two) = (End::new(&mut a, 1), End::new(&mut b, 2));
    talk((&mut a, &mut one), (&mut b, &mut two), 3_000, 60_000);
    common::carry(&mut a, &mut b);
    digests_equal(&[&a, &b]);
    assert!(b.verify().unwrap().problems.is_empty());
}

/// A device that was retired comes back, and what it lacks is folded: it gets the state, and then what follows.
#[test]
fn a_device_whose_place_in_the_log_is_gone_gets_the_state() {
    let world = World::new();
    let (mut a, mut b, mut c) = (board(&world, "a"), board(&world, "b"), world.base("c"));
    fill(&a, "a", 20, 50);
    for _ in 0..2 {
        exchange(&mut a, &mut b, 500);
        exchange(&mut a, &mut c, 500);
    }
    sql(&a, "UPDATE t SET v = 2");
    exchange(&mut a, &mut b, 500);
    a.retire(c.identity().id, None).unwrap();
    for _ in 0..3 {
        exchange(&mut a, &mut b, 500);
        assert!(a.compact().unwrap().held_back_by.is_none_or(|(name, _)| !name.starts_with("c-")));
        b.compact().unwrap();
    }
    // What it needs is gone; of `a`'s own rows nothing is.
    sql(&a, "INSERT INTO readings (v) VALUES (1), (2)");
    sql(&c, "INSERT INTO t VALUES ('of c', 1)");
    let (one, two) = exchange(&mut a, &mut c, 500);
    assert!(one.error.is_none() && two.error.is_none(), "{:?} {:?}", one.error, two.error);
    let (at_a, at_c) = (one.session.progress(), two.session.progress());
    assert!(!at_a.peer_needs_snapshot && !at_c.needs_snapshot, "{at_a:?} {at_c:?}");
    assert_eq!((at_a.state_sent, at_c.state_received.1), (at_a.state_to_send, 20), "{at_a:?} {at_c:?}");
    assert!(at_c.received.0 > 0, "the rows of its own stream");
    digests_equal(&[&a, &c]);
    // What it wrote waits for nothing.
    assert!(at_a.taken.waits.is_empty(), "{:?}", at_a.taken.waits);
    assert_eq!(rows(&a, "SELECT count(*) FROM t WHERE id = 'of c'"), ["1"]);
    // The next time there is nothing new.
    let (one, two) = exchange(&mut a, &mut c, 500);
    assert_eq!((one.session.progress().sent.0, two.session.progress().sent.0), (0, 0));
    assert_eq!((one.session.progress().state_sent.0, two.session.progress().state_sent.0), (0, 0));
    // Control: one that is not behind gets none.
    let (one, two) = exchange(&mut a, &mut b, 500);
    assert_eq!((one.session.progress().state_sent.0, two.session.progress().state_sent.0), (0, 0));
    digests_equal(&[&a, &b]);
}

/// A newcomer's rows come in over a line also where what it lacks is folded, and it gets the state by the same line.
#[test]
fn what_a_newcomer_brings_over_a_line_waits_for_nothing() {
    for sessions in [1, 2, 3] {
        let world = World::new();
        let (mut base, mut a) = (world.base("base"), board(&world, "a"));
        for _ in 0..2 {
            exchange(&mut a, &mut base, 4_096);
            fill(&a, "a", 1, 10);
            sql(&a, "UPDATE t SET v = 0");
            exchange(&mut a, &mut base, 4_096);
            sql(&a, "DELETE FROM t");
        }
        assert!(base.compact().unwrap().frames > 0);
        let mut b = board(&world, "b");
        for n in 0..sessions {
            fill(&b, &format!("b{n}-"), 2, 10);
            sql(&b, &format!("INSERT INTO readings (v) VALUES ('b{n}')"));
            let (one, _) = exchange(&mut b, &mut base, 4_096);
            assert!(one.error.is_none() && !one.session.progress().needs_snapshot, "{:?}", one.error);
            assert_eq!(one.session.progress().state_received.0 > 0, n == 0);
            assert!(one.session.progress().acknowledged > 0);
            assert_eq!(rows(&base, "SELECT count(*) FROM readings"), [(n + 1).to_string()]);
        }
        assert_eq!(rows(&base, "SELECT count(*) FROM t WHERE id LIKE 'b%'"), [(2 * sessions).to_string()]);
        digests_equal(&[&b, &base]);
        assert_eq!(rows(&base, "SELECT count(*) FROM readings"), [sessions.to_string()]);
    }
}
