//! Promise 2: a frame is applied only after every frame that its author had seen.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests are tests.

mod bundles;
mod common;
use common::*;
use packmule::core::model::DeviceId;
use packmule::core::wire::{RecordKind, Section, take};
use packmule::{Engine, ImportReport, Missing};

const TABLE: &str = "CREATE TABLE t (k TEXT PRIMARY KEY, v)";

fn reopen(world: &World, engine: Engine) -> Engine {
    let path = engine.path().to_owned();
    drop(engine);
    Engine::open_with(&path, world.options()).unwrap()
}

/// As `devices` and `conflicts` name it: name and short id.
fn label(engine: &Engine) -> String {
    format!("{}-{:08x}", engine.identity().name, engine.identity().id.short())
}

/// One bundle a seal, each from what `to` is known to have had before.
fn parts(a: &mut Engine, b: &mut Engine, writes: &[&str]) -> Vec<Vec<u8>> {
    let mut parts = Vec::new();
    for write in writes {
        sql(a, write);
        parts.push(bundle(a, b));
        carry(a, b);
        carry(b, a); // B's acknowledgement.
    }
    parts
}

#[test]
fn a_gap_in_the_sequence_is_pending_and_survives_a_restart() {
    let world = World::new();
    let mut a = world.board_with("a", TABLE, &["t"]);
    let mut b = world.board("b");
    let mut c = world.board("c");
    carry(&mut a, &mut b);
    carry(&mut b, &mut a);
    let track = whole_bundle(&mut a);
    let parts =
        parts(&mut a, &mut b, &["INSERT INTO t VALUES ('x', 1)", "UPDATE t SET v = 2", "UPDATE t SET v = 3"]);
    import(&mut c, &track);
    let digest = c.digest(false).unwrap();
    let have = c.devices().unwrap().iter().find(|d| d.id == a.identity().id).unwrap().shared;

    let report = import(&mut c, &parts[2]);
    assert_eq!((report.ops, report.frames), (0, 1));
    let waits = |report: &ImportReport| -> Vec<_> {
        let waits = report.waits.iter();
        waits.map(|wait| (wait.author.clone(), wait.frames, wait.missing.clone())).collect()
    };
    let wait =
        |from: u64, to: u64, up_to: u64| (label(&a), (from, to), Missing::Frames { of: label(&a), up_to });
    assert_eq!(waits(&report), [wait(have + 3, have + 3, have + 2)]);
    assert_eq!(c.digest(false).unwrap(), digest, "nothing is applied");
    let mut c = reopen(&world, c);
    assert_eq!(c.status().unwrap().waits, report.waits, "still known after a restart");
    assert_eq!(import(&mut c, &parts[2]).waits, report.waits, "and after a repeat");

    let report = import(&mut c, &parts[1]);
    assert_eq!(report.ops, 0);
    assert_eq!(waits(&report), [wait(have + 2, have + 3, have + 1)]);
    let mut c = reopen(&world, c);
    let report = import(&mut c, &parts[0]);
    assert_eq!(report.ops, 3, "all three at once");
    assert_eq!(report.waits, []);
    assert_eq!(rows(&c, "SELECT * FROM t"), ["\"x\"|3"]);
    digests_equal(&[&a, &b, &c]);
    assert_eq!(c.verify().unwrap().problems, [""; 0]);
}

/// A → B → C, and C's bundle comes to D first: it waits for B's, which waits for A's.
#[test]
fn a_chain_of_devices_waits_for_its_beginning() {
    let world = World::new();
    let mut a = world.board_with("a", TABLE, &["t"]);
    let mut b = world.board("b");
    let mut c = world.board("c");
    let mut d = world.board("d");
    let start = whole_bundle(&mut a);
    for device in [&mut b, &mut c, &mut d] {
        import(device, &start);
    }
    let ids: Vec<_> = [&a, &b, &c, &d].iter().map(|e| e.identity().id).collect();
    // Everybody has told B, and B everybody, what they have: bundles have only what is new.
    carry_all(&mut [&mut a, &mut b, &mut c, &mut d]);
    carry_all(&mut [&mut a, &mut b, &mut c, &mut d]);
    sql(&a, "INSERT INTO t VALUES ('row', 'a')");
    let from_a = bundle(&mut a, &d);
    carry(&mut a, &mut b);
    carry(&mut b, &mut a);
    sql(&b, "UPDATE t SET v = v || 'b'");
    b.seal().unwrap();
    let whole_b = bundle(&mut b, &d);
    import(&mut c, &whole_b);
    sql(&c, "UPDATE t SET v = v || 'c'");
    let whole_c = bundle(&mut c, &d);
    assert_eq!(rows(&c, "SELECT v FROM t"), ["\"abc\""]);

    // Only the own frames of each author, in bundles of their own.
    let only = |bytes: &[u8], who: usize| keep_author(bytes, ids[who]);
    let from_b = only(&whole_b, 1);
    let from_c = only(&whole_c, 2);
    let report = import(&mut d, &from_c);
    assert_eq!(report.ops, 0);
    assert_eq!(report.waits.len(), 1);
    assert_eq!(report.waits[0].author, label(&c));
    match &report.waits[0].missing {
        Missing::Frames { of, up_to } => {
            assert!([label(&a), label(&b)].contains(of) && *up_to > 0, "{report:?}")
        }
        other => panic!("{other:?}"),
    }
    let mut d = reopen(&world, d);
    let report = import(&mut d, &from_b);
    assert_eq!(report.ops, 0, "B had seen A");
    assert_eq!(report.waits.len(), 2);
    let of_b = report.waits.iter().find(|w| w.author == label(&b)).unwrap();
    assert!(matches!(&of_b.missing, Missing::Frames { of, .. } if *of == label(&a)), "{of_b:?}");
    assert_eq!(rows(&d, "SELECT * FROM t").len(), 0);
    let mut d = reopen(&world, d);
    let report = import(&mut d, &from_a);
    assert_eq!((report.ops, report.waits), (3, vec![]));
    assert_eq!(rows(&d, "SELECT v FROM t"), ["\"abc\""]);
    digests_equal(&[&c, &d]);
    assert_eq!(d.conflicts().unwrap(), []);
    assert_eq!(d.verify().unwrap().problems, [""; 0]);
}

/// A bundle with the frames of one author alone, as a sender might make it that has dropped the rest.
fn keep_author(bytes: &[u8], author: DeviceId) -> Vec<u8> {
    let mut records = bundles::records(bytes);
    let mut of_author = false;
    records.retain(|(kind, body)| match kind {
        RecordKind::Section => {
            of_author = take::<Section>(&mut &body[..]).unwrap().author == author;
            of_author
        }
        RecordKind::Frame | RecordKind::Checkpoint => of_author,
        _ => true,
    });
    assert!(records.iter().any(|(kind, _)| *kind == RecordKind::Frame));
    bundles::join(&records)
}

/// What waits does not hold up what does not need it.
#[test]
fn others_go_on_while_one_is_pending() {
    let world = World::new();
    let mut a = world.board_with("a", TABLE, &["t"]);
    let mut b = world.board("b");
    let mut c = world.board("c");
    let mut d = world.board("d");
    let start = whole_bundle(&mut a);
    [&mut b, &mut c, &mut d].into_iter().for_each(|e| {
        import(e, &start);
    });
    carry(&mut b, &mut a);
    let parts = parts(&mut a, &mut b, &["INSERT INTO t VALUES ('x', 1)", "UPDATE t SET v = 2"]);
    assert_eq!(import(&mut d, &parts[1]).waits.len(), 1);
    sql(&c, "INSERT INTO t VALUES ('y', 9)");
    let report = carry(&mut c, &mut d);
    assert_eq!((report.ops, report.waits.len()), (1, 1));
    assert_eq!(rows(&d, "SELECT * FROM t"), ["\"y\"|9"]);
    // What waits is not passed on, and D's own writes do not claim to have seen it.
    sql(&d, "INSERT INTO t VALUES ('x', 'of d')");
    carry(&mut d, &mut c);
    assert_eq!(c.status().unwrap().waits, []);
    import(&mut d, &parts[0]);
    carry_all(&mut [&mut a, &mut b, &mut c, &mut d]);
    digests_equal(&[&a, &b, &c, &d]);
    assert_eq!(a.conflicts().unwrap().len(), 1, "x was written without knowing of each other");
}

/// A wrong wall clock breaks no causality.
#[test]
fn clocks_do_not_matter_to_causality() {
    let world = World::new();
    let mut a = world.board_with("a", TABLE, &["t"]);
    let mut b = world.board("b");
    carry(&mut a, &mut b);
    for (n, wall) in [4_000_000_000_000, 0, -1, 1_700_000_000_000].into_iter().enumerate() {
        world.clock.store(wall, std::sync::atomic::Ordering::Relaxed);
        sql(&a, &format!("INSERT OR REPLACE INTO t VALUES ('x', 'a{n}')"));
        carry(&mut a, &mut b);
        world.clock.store(-wall, std::sync::atomic::Ordering::Relaxed);
        sql(&b, &format!("UPDATE t SET v = 'b{n}'"));
        carry(&mut b, &mut a);
        assert_eq!(rows(&a, "SELECT v FROM t"), [format!("\"b{n}\"")]);
        assert_eq!(a.conflicts().unwrap(), []);
        digests_equal(&[&a, &b]);
    }
}
