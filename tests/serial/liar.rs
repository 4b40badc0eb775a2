//! A peer that is trusted, and lies: frames without a checkpoint, groups without an end, checkpoints that refuse their
//! frames. It harms its own session; what honest peers bring goes in, and nothing of the lie stays.

use packmule::Options;
use packmule::core::wire::{RECORD_HEAD_LEN, RecordHead, RecordKind, Section, take, write_record};

use super::state::bundles;

use super::*;

/// What a liar says in place of a record.
type Lie<'l> = &'l mut dyn FnMut(RecordKind, &[u8]) -> Option<Vec<u8>>;

/// The base, two honest boards that have written, and the liar, which has all that they have.
struct Fleet {
    base: Engine,
    good: Engine,
    north: Engine,
    liar: Engine,
    world: World,
}

fn fleet() -> Fleet {
    let world = World::new();
    let mut base = world.base("base");
    let [mut good, mut north, mut liar] = ["good", "north", "liar"].map(|name| board(&world, name));
    common::carry_all(&mut [&mut base, &mut good, &mut north, &mut liar]);
    for (name, board) in [("good", &mut good), ("north", &mut north)] {
        fill(board, name, 5, 100);
        common::carry(board, &mut liar);
    }
    fill(&liar, "liar", 5, 100);
    liar.seal().unwrap();
    Fleet { base, good, north, liar, world }
}

/// The liar talks to another until nothing more comes. The other writes down what came whole.
fn lie_to(liar: &mut Engine, other: &mut Engine, lie: Lie<'_>) -> Option<Error> {
    let (mut one, mut two) = (End::new(liar, 1), End::new(other, 2));
    let mut said = Vec::new();
    for now in 0..2_000 {
        said.extend(one.turn(liar, now, 4_096));
        while let Some(head) = said.get(..RECORD_HEAD_LEN) {
            let head = RecordHead::parse(head.try_into().unwrap()).unwrap();
            let end = RECORD_HEAD_LEN + head.len as usize;
            let Some(body) = said.get(RECORD_HEAD_LEN..end) else { break };
            if let Some(body) = lie(head.kind, head.check(body).unwrap()) {
                let mut record = vec![0; body.len() + 64];
                let len = write_record(&mut record, head.kind, &body).unwrap();
                two.input.extend(&record[..len]);
            }
            said.drain(..end);
        }
        one.input.extend(two.turn(other, now, 4_096));
    }
    let error = two.error.take();
    let _ = two.session.abandon(other, 1_000, &two.input);
    error
}

/// The same frame with another byte in it, and its own check sum.
fn changed(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let at = frame.len() - 5;
    frame[at] ^= 1;
    bundles::with_blocks(&frame, &[])
}

/// How many streams have frames that wait for their checkpoint.
fn staged(device: &Engine) -> String {
    rows(device, "SELECT count(DISTINCT dev * 2 + stream) FROM _pm_staged").remove(0)
}

/// Honest peers are in step, in one session each, and nothing of what the liar said is left.
#[track_caller]
fn goes_on(fleet: &mut Fleet) {
    let Fleet { base, good, north, liar, world } = fleet;
    for of_north in [false, true, false] {
        let board = if of_north { &mut *north } else { &mut *good };
        let (one, two) = exchange(board, base, 4_096);
        assert!(one.error.is_none() && two.error.is_none(), "{:?} {:?}", one.error, two.error);
    }
    digests_equal(&[base, good]);
    assert_eq!(rows(base, "SELECT count(*) FROM t WHERE id GLOB 'good*' OR id GLOB 'north*'"), ["10"]);
    let unfinished = staged(base);
    assert!(["0", "1"].contains(&&*unfinished), "{unfinished} groups are kept");
    assert_eq!(base.verify().unwrap().problems, Vec::<String>::new());
    assert_eq!(base.status().unwrap().waits.len(), 0);
    base.log(None, &[], &mut |_| Ok(())).unwrap();
    base.compact().unwrap();
    base.revoke(liar.identity().id, Some(&world.fleet)).unwrap();
    let (one, two) = exchange(good, base, 4_096);
    assert!(one.error.is_none() && two.error.is_none(), "{:?} {:?}", one.error, two.error);
    digests_equal(&[base, good]);
}

#[test]
fn frames_without_a_checkpoint_are_known_of_their_sender_alone() {
    let mut fleet = fleet();
    // Of one device, so that no honest peer is refused for so many.
    let of = fleet.good.identity().id;
    let mut is_of = false;
    let lie: Lie<'_> = &mut |kind, body| match kind {
        RecordKind::Section => {
            is_of = take::<Section>(&mut &body[..]).unwrap().author == of;
            Some(body.to_vec())
        }
        RecordKind::Frame => is_of.then(|| changed(body)),
        RecordKind::Checkpoint => None,
        _ => Some(body.to_vec()),
    };
    let error = lie_to(&mut fleet.liar, &mut fleet.base, lie);
    assert!(error.is_none(), "{error:?}");
    assert_eq!(staged(&fleet.base), "1", "what a peer has not finished yet");
    assert_eq!(rows(&fleet.base, "SELECT count(*) FROM t"), ["0"]);
    goes_on(&mut fleet);
    assert_eq!(staged(&fleet.base), "0", "the honest one's are in its place");
}

/// Else they would fill the disk.
#[test]
fn unfinished_groups_of_many_are_refused_and_dropped() {
    let mut fleet = fleet();
    let lie: Lie<'_> = &mut |kind, body| (kind != RecordKind::Checkpoint).then(|| body.to_vec());
    let error = lie_to(&mut fleet.liar, &mut fleet.base, lie);
    assert!(error.is_some_and(|e| e.to_string().contains("one more group")));
    assert_eq!(staged(&fleet.base), "0");
    goes_on(&mut fleet);
}

/// Nor does one group without an end: what came of it goes, and the session ends with the reason. What another peer has
/// begun stays, also where it is larger than what stays over sessions of who comes again.
#[test]
fn a_group_without_an_end_is_refused_and_dropped() {
    let mut fleet = fleet();
    let (one, two) = exchange(&mut fleet.liar, &mut fleet.base, 4_096);
    assert!(one.error.is_none() && two.error.is_none(), "{:?} {:?}", one.error, two.error);
    let options = Options { unfinished_bytes: Some(3 << 20), ..fleet.world.options() };
    fleet.base = Engine::open_with(&fleet.world.path("base"), options).unwrap();
    // As random as what no coding makes shorter.
    sql(
        &fleet.liar,
        "UPDATE t SET v = randomblob(6000000) WHERE id = (SELECT min(id) FROM t WHERE id GLOB 'liar*')",
    );
    let begun = "INSERT INTO _pm_staged SELECT d.n, d.n, 0, max(s.seq) + 1, randomblob(100) FROM _pm_device d
                 JOIN _pm_stream s WHERE d.name = 'north' GROUP BY d.n";
    fleet.base.connection().unwrap().execute_batch(begun).unwrap();
    let lie: Lie<'_> = &mut |kind, body| (kind != RecordKind::Checkpoint).then(|| body.to_vec());
    let error = lie_to(&mut fleet.liar, &mut fleet.base, lie);
    let said = error.map(|e| e.to_string()).unwrap_or_default();
    assert!(said.contains("4 MiB of one transaction came over the line, and not its end"), "{said}");
    let whose = "SELECT d.name FROM _pm_staged s JOIN _pm_device d ON d.n = s.peer";
    assert_eq!(rows(&fleet.base, whose), ["\"north\""]);
    sql(&fleet.base, "DELETE FROM _pm_staged");
    // The control: with room for it the whole group goes in.
    fleet.base = Engine::open_with(&fleet.world.path("base"), fleet.world.options()).unwrap();
    let (one, two) = exchange(&mut fleet.liar, &mut fleet.base, 65_536);
    assert!(one.error.is_none() && two.error.is_none(), "{:?} {:?}", one.error, two.error);
    assert_eq!(rows(&fleet.base, "SELECT max(length(v)) FROM t"), ["6000000"]);
}

#[test]
fn a_checkpoint_that_refuses_its_frames_drops_them() {
    let mut fleet = fleet();
    let lie: Lie<'_> = &mut |kind, body| match kind {
        RecordKind::Frame => Some(changed(body)),
        _ => Some(body.to_vec()),
    };
    let error = lie_to(&mut fleet.liar, &mut fleet.base, lie);
    assert!(matches!(error, Some(Error::Engine(_))), "{error:?}");
    assert_eq!(staged(&fleet.base), "0");
    goes_on(&mut fleet);
}
