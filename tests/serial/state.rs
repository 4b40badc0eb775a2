//! The state over a session, for who lacks what is folded: torn lines, killed programs, lost and forged files, peers that
//! know of no such thing.

#[path = "../bundles/mod.rs"]
pub mod bundles;

use std::path::{Path, PathBuf};

use common::open;
use packmule::core::wire::{CHUNK_MAX, RECORD_HEAD_LEN, RecordHead, RecordKind, write_record};

use super::*;

/// A base that has folded the rows of a board, and a newcomer with rows of its own, one of them contested.
struct Fleet {
    base: Engine,
    new: Engine,
    world: World,
}

/// How many rows are folded.
const ROWS: u32 = 150;

fn fleet(seed: u64) -> Fleet {
    let world = World::seeded(seed);
    let (mut base, mut a) = (world.base("base"), board(&world, "a"));
    exchange(&mut a, &mut base, 4_096);
    fill(&a, "a", ROWS, 300);
    for _ in 0..2 {
        exchange(&mut a, &mut base, 4_096);
    }
    assert!(base.compact().unwrap().frames > 0);
    let new = board(&world, "new");
    sql(&new, "INSERT INTO t VALUES ('own', 1), ('a1', 'of new'); INSERT INTO readings (v) VALUES (1)");
    Fleet { base, new, world }
}

/// The files of states beside a database.
fn files(engine: &Engine) -> Vec<PathBuf> {
    let name = engine.path().file_name().unwrap().to_string_lossy().into_owned() + ".pmstate-";
    let all = std::fs::read_dir(engine.path().parent().unwrap()).unwrap();
    all.map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(&name))
        .collect()
}

fn count(engine: &Engine) -> String {
    rows(engine, "SELECT count(*) FROM t").remove(0)
}

/// All of it is there, and nothing is left over.
#[track_caller]
fn is_done(fleet: &mut Fleet) {
    let Fleet { base, new, .. } = fleet;
    let (one, two) = exchange(base, new, 4_096);
    assert!(one.error.is_none() && two.error.is_none(), "{:?} {:?}", one.error, two.error);
    digests_equal(&[base, new]);
    assert_eq!(count(new), (ROWS + 1).to_string());
    assert_eq!(new.status().unwrap().conflicts, 1);
    assert_eq!((files(base), files(new)), (vec![], vec![]));
    for engine in [&*base, &*new] {
        assert!(engine.verify().unwrap().problems.is_empty());
    }
}

/// What a transfer over a line that is torn again and again did.
struct Torn {
    /// Bytes that came to the newcomer, in so many sessions; it was done in the last.
    came: usize,
    sessions: usize,
    done: bool,
    /// The bytes of the state.
    state: u64,
}

/// The line is torn after a random number of bytes; the programs at its ends live on, or are killed and come back.
/// `forgets`: whatever came of a state is lost each time.
fn torn(seed: u64, forgets: bool) -> (Fleet, Torn) {
    let mut random = Random(seed);
    let mut fleet = fleet(seed);
    let mut all = Torn { came: 0, sessions: 0, done: false, state: 0 };
    while !all.done && all.sessions < 60 {
        let Fleet { base, new, world } = &mut fleet;
        let (mut one, mut two) = (End::new(base, 1), End::new(new, 2));
        let most = 2_000 + random.below(16_000) as usize;
        talk((base, &mut one), (new, &mut two), 1 + random.below(3_000) as usize, most);
        assert!(one.error.is_none() && two.error.is_none(), "{:?} {:?}", one.error, two.error);
        if random.chance(50) {
            one.session.abandon(base, 1_000, &one.input).unwrap();
            two.session.abandon(new, 1_000, &two.input).unwrap();
        }
        all.came += two.came;
        all.sessions += 1;
        all.state = all.state.max(one.session.progress().state_to_send.0);
        all.done = one.session.in_step() && two.session.in_step();
        drop((one, two));
        for engine in [base, new] {
            if random.chance(50) {
                *engine = Engine::open_with(engine.path(), world.options()).unwrap();
            }
        }
        let here = count(&fleet.new);
        assert!(["2".to_owned(), (ROWS + 1).to_string()].contains(&here), "a part of a state: {here} rows");
        if forgets {
            files(&fleet.new).iter().for_each(|path| std::fs::remove_file(path).unwrap());
        }
    }
    (fleet, all)
}

/// What a torn line may cost at most: what was not written down yet, and what every session says at its beginning.
fn allowed(torn: &Torn) -> usize {
    torn.state as usize * 102 / 100 + torn.sessions * (2 * CHUNK_MAX + 1_000)
}

/// `PACKMULE_SEED` replays one.
#[test]
fn it_goes_on_where_a_torn_line_left_off() {
    let seeds = match std::env::var("PACKMULE_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => 1..13,
    };
    for seed in seeds {
        println!("PACKMULE_SEED={seed} replays it");
        let (mut fleet, torn) = torn(seed, false);
        println!("  {} bytes of a state of {} in {} sessions", torn.came, torn.state, torn.sessions);
        assert!(torn.done && torn.sessions > 3, "{} sessions", torn.sessions);
        assert!(torn.came <= allowed(&torn), "{} bytes, {} are allowed", torn.came, allowed(&torn));
        is_done(&mut fleet);
    }
    // Control: where nothing of it is kept, it never ends.
    let (_, torn) = torn(1, true);
    assert!(!torn.done && torn.came > 5 * torn.state as usize, "{} bytes, done: {}", torn.came, torn.done);
}

/// Tears the line when some of the state is there.
fn begun(fleet: &mut Fleet) -> PathBuf {
    let Fleet { base, new, .. } = fleet;
    let (mut one, mut two) = (End::new(base, 1), End::new(new, 2));
    talk((base, &mut one), (new, &mut two), 1_000, 25_000);
    two.session.abandon(new, 1_000, &[]).unwrap();
    let files = files(new);
    assert_eq!(files.len(), 1, "{files:?}");
    assert!(std::fs::metadata(&files[0]).unwrap().len() > 15_000);
    files[0].clone()
}

/// The maker cannot produce the same bytes again, or has folded more since: it offers another, and of the first nothing
/// is left.
#[test]
fn where_the_state_is_another_one_it_starts_anew() {
    let mut lost = fleet(1);
    let first = begun(&mut lost);
    files(&lost.base).iter().for_each(|path| std::fs::remove_file(path).unwrap());
    let second = begun(&mut lost);
    assert_ne!(first, second);
    is_done(&mut lost);
    // Control: the same.
    let mut kept = fleet(1);
    assert_eq!(begun(&mut kept), begun(&mut kept));
    is_done(&mut kept);
}

/// What the disk spoiled of what was kept comes again, and what is after the damage.
#[test]
fn what_is_spoiled_comes_again() {
    let mut fleet = fleet(1);
    let file = begun(&mut fleet);
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[12_000] ^= 1;
    bytes.extend([0; 5_000]);
    std::fs::write(&file, bytes).unwrap();
    is_done(&mut fleet);
}

/// Writes a bundle whose check sums are right, with another value in one row of the state.
fn forge(path: &Path) {
    let mut records = bundles::records(&std::fs::read(path).unwrap());
    let is_row =
        |(kind, body): &&mut bundles::Record| *kind == RecordKind::State && body.starts_with(b"\x03row");
    let (_, row) = records.iter_mut().find(is_row).unwrap();
    *row.last_mut().unwrap() ^= 1;
    std::fs::write(path, bundles::join(&records)).unwrap();
}

/// A state that its maker has not signed so is refused whole, and keeps nothing else from coming in. It does not come
/// again until there is another.
#[test]
fn a_forged_state_is_refused_whole() {
    let mut fleet = fleet(1);
    begun(&mut fleet);
    forge(&files(&fleet.base)[0]);
    let before = common::dump(&open(fleet.new.path()), "SELECT * FROM t");
    for again in [false, true] {
        let (one, two) = exchange(&mut fleet.base, &mut fleet.new, 4_096);
        assert!(one.error.is_none() && two.error.is_none(), "{:?} {:?}", one.error, two.error);
        let (at_base, at_new) = (one.session.progress(), two.session.progress());
        assert!(at_new.taken.state_refused.as_ref().unwrap().contains("signature"), "{at_new:?}");
        assert!(at_base.peer_needs_snapshot && at_new.needs_snapshot);
        assert_eq!(two.came < 5_000, again, "{}", two.came);
        assert_eq!(common::dump(&open(fleet.new.path()), "SELECT * FROM t"), before);
        assert_eq!(rows(&fleet.base, "SELECT count(*) FROM readings"), ["1"], "its own rows came in");
    }
    files(&fleet.base).iter().for_each(|path| std::fs::remove_file(path).unwrap());
    is_done(&mut fleet);
}

/// A hello of a program that knows no offers.
fn of_version_1(bytes: &[u8]) -> Vec<u8> {
    let head = RecordHead::parse(bytes[..RECORD_HEAD_LEN].try_into().unwrap()).unwrap();
    let (body, rest) = bytes[RECORD_HEAD_LEN..].split_at(head.len as usize);
    let mut body = head.check(body).unwrap().to_vec();
    assert_eq!(body[..3], [0, 1, 3], "hello, from version 1 to 3");
    body[2] = 1;
    let mut record = vec![0; body.len() + 16];
    let len = write_record(&mut record, head.kind, &body).unwrap();
    [&record[..len], rest].concat()
}

/// To an end that is older all goes as before: it is said that a card brings the state, and the rest goes. What the
/// older end does by itself is not played.
#[test]
fn an_older_peer_is_offered_nothing() {
    for older in [[false, true], [true, true]] {
        let mut fleet = fleet(1);
        let Fleet { base, new, .. } = &mut fleet;
        let (mut one, mut two) = (End::new(base, 1), End::new(new, 2));
        let hellos = [one.turn(base, 0, 4_096), two.turn(new, 0, 4_096)];
        let [to_two, to_one] =
            [0, 1].map(|at| if older[at] { of_version_1(&hellos[at]) } else { hellos[at].clone() });
        (one.input, two.input) = (to_one, to_two);
        talk((base, &mut one), (new, &mut two), 4_096, usize::MAX);
        assert!(one.error.is_none() && two.error.is_none(), "{:?} {:?}", one.error, two.error);
        let (at_base, at_new) = (one.session.progress(), two.session.progress());
        assert_eq!((at_base.state_sent, at_new.state_received), ((0, 0), (0, 0)), "{older:?}");
        assert!(at_base.peer_needs_snapshot && at_new.needs_snapshot);
        assert_eq!(rows(base, "SELECT count(*) FROM t WHERE id = 'own'"), ["1"]);
        assert_eq!((files(base), files(new)), (vec![], vec![]));
        is_done(&mut fleet);
    }
}
