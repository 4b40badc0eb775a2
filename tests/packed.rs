//! A bundle for one device is packed: it says what it would say unpacked, and what is damaged or made up is refused.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests are tests.

mod bundles;
mod common;

use std::path::{Path, PathBuf};

use common::*;
use packmule::core::wire::{MAGIC, PACKED_MAGIC, RecordKind};
use packmule::{Engine, Error, Missing};

const READINGS: &str = "CREATE TABLE readings (id INTEGER PRIMARY KEY AUTOINCREMENT, v REAL)";

/// A board and a base that know each other's positions.
fn pair(world: &World) -> (Engine, Engine) {
    let mut board = world.board_with("board", READINGS, &[]);
    board.track("readings", &append()).unwrap();
    let mut base = world.base("base");
    for _ in 0..2 {
        sql(&board, "INSERT INTO readings (v) VALUES (20.5)");
        carry(&mut board, &mut base);
        carry(&mut base, &mut board);
    }
    (board, base)
}

/// Such a bundle, as it was once. Each has a number drawn for it, so another one has other bytes.
fn vector() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/packed.hex")
}

#[test]
fn the_file_is_read_as_its_page_has_it() {
    let hex: String = std::fs::read_to_string(vector()).unwrap().split_whitespace().collect();
    let bytes: Vec<u8> =
        (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect();
    let info = packmule::inspect(&bytes[..]).unwrap();
    assert_eq!((info.bytes, info.signed, info.vector.len()), (bytes.len() as u64, None, 1));
    assert_eq!((info.groups.len(), info.groups[0].first, info.groups[0].last), (1, 4, 4));
    let kinds: Vec<RecordKind> = bundles::records(&bytes).into_iter().map(|(kind, _)| kind).collect();
    use RecordKind::{Checkpoint, Footer, Frame, Header, Section};
    assert_eq!(kinds, [Header, Section, Frame, Checkpoint, Footer]);
    assert!(bundles::unpacked(&bytes).len() > bytes.len() + 100);
}

fn has(bytes: &[u8], kind: RecordKind) -> bool {
    bundles::records(bytes).iter().any(|(found, _)| *found == kind)
}

#[test]
fn one_row_for_a_known_peer_takes_less_than_300_bytes() {
    let world = World::new();
    let (mut board, mut base) = pair(&world);
    sql(&board, "INSERT INTO readings (v) VALUES (21.5)");
    let bytes = bundle(&mut board, &base);
    assert_eq!(bytes[..8], PACKED_MAGIC);
    let whole = bundles::unpacked(&bytes);
    println!("{} bytes, {} unpacked", bytes.len(), whole.len());
    assert!(bytes.len() < 300, "{}", bytes.len());
    if std::env::var_os("PACKMULE_BLESS").is_some() {
        let line = |line: &[u8]| line.iter().map(|b| format!("{b:02x}")).collect::<String>() + "\n";
        std::fs::write(vector(), bytes.chunks(32).map(line).collect::<String>()).unwrap();
    }
    assert_eq!(import(&mut base, &bytes).ops, 1);
    assert_eq!(rows(&base, "SELECT v FROM readings"), ["20.5r", "20.5r", "21.5r"]);
}

#[test]
fn it_says_what_it_says_unpacked() {
    let world = World::new();
    let mut from = world.board_with(
        "from",
        "CREATE TABLE t (k INTEGER PRIMARY KEY, v BLOB); CREATE TABLE r (id INTEGER PRIMARY KEY AUTOINCREMENT, v)",
        &["t"],
    );
    from.track("r", &append()).unwrap();
    let mut other = world.board_with("other", "CREATE TABLE t (k INTEGER PRIMARY KEY, v BLOB)", &["t"]);
    let to = world.base("to");
    // Groups of several frames and of one, in both streams, one after the other and in turn with another author's.
    for n in 0..4 {
        sql(&from, &format!("INSERT INTO t VALUES ({n}, randomblob(30000)); INSERT INTO r (v) VALUES ({n})"));
        from.seal().unwrap();
        sql(&from, &format!("UPDATE t SET v = zeroblob({n}) WHERE k = {n}"));
        from.seal().unwrap();
        sql(&other, &format!("INSERT INTO t VALUES (10 + {n}, {n})"));
        carry(&mut other, &mut from);
    }
    let packed = bundle(&mut from, &to);
    let whole = bundles::unpacked(&packed);
    assert_eq!((&packed[..8], &whole[..8]), (&PACKED_MAGIC[..], &MAGIC[..]));
    assert!(packed.len() < whole.len());
    let reports = [&packed, &whole].map(|bytes| packmule::inspect(&bytes[..]).unwrap());
    assert_eq!(format!("{:?}", reports[0].groups), format!("{:?}", reports[1].groups));
    assert_eq!(reports[0].vector, reports[1].vector);
    assert!(reports[0].signed == Some(true) && reports[0].groups.iter().all(|g| g.signed == Some(true)));
    let mut digests = Vec::new();
    for (name, bytes) in [("one", &packed), ("two", &whole)] {
        let mut base = world.base(name);
        import(&mut base, bytes);
        digests.push(base.digest(true).unwrap());
        assert_eq!(base.verify().unwrap().problems, [""; 0]);
    }
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn a_bit_flipped_or_a_byte_lost_anywhere_is_refused() {
    let world = World::new();
    let (mut board, mut base) = pair(&world);
    sql(&board, "INSERT INTO readings (v) VALUES (21.5)");
    let bytes = bundle(&mut board, &base);
    let before = everything(base.path());
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut wrong = bytes.clone();
            wrong[at] ^= 1 << bit;
            let refused =
                matches!(try_import(&mut base, &wrong), Err(Error::Bundle { .. } | Error::Untrusted(_)));
            assert!(refused, "bit {bit} of byte {at}");
        }
        assert!(matches!(try_import(&mut base, &bytes[..at]), Err(Error::Bundle { .. })), "{at} bytes");
    }
    assert!(try_import(&mut base, &[&bytes[..], b"x"].concat()).is_err());
    // Lengths that nothing has, and bytes that mean nothing: none is believed.
    let mut random = Random(5);
    for _ in 0..20_000 {
        let mut wrong = bytes[..8 + random.below(bytes.len() as u64 - 8) as usize].to_vec();
        wrong.extend((0..random.below(40)).map(|_| random.next() as u8));
        // Now and then chance makes the bundle itself: the number drawn for that is another one each time.
        if wrong == bytes {
            continue;
        }
        assert!(try_import(&mut base, &wrong).is_err());
        assert!(packmule::inspect(&wrong[..]).is_err());
    }
    assert_eq!(everything(base.path()), before);
    assert_eq!(import(&mut base, &bytes).ops, 1);
}

#[test]
fn a_certificate_goes_to_who_lacks_it() {
    let world = World::new();
    let mut board = world.board_with("board", READINGS, &[]);
    board.track("readings", &append()).unwrap();
    let mut base = world.base("base");
    let early = world.path("early");
    copy_card(&base, &early);
    let write = |board: &mut Engine, base: &Engine| {
        sql(board, "INSERT INTO readings (v) VALUES (20.5)");
        bundle(board, base)
    };
    let first = write(&mut board, &base);
    assert!(has(&first, RecordKind::Certificate), "nothing is known of the base");
    import(&mut base, &first);
    assert!(has(&write(&mut board, &base), RecordKind::Certificate), "the base has not answered");
    carry(&mut base, &mut board);
    let known = write(&mut board, &base);
    assert!(!has(&known, RecordKind::Certificate), "the base has frames that came with it");
    import(&mut base, &known);
    assert!(has(&whole_bundle(&mut board), RecordKind::Certificate), "anyone may lack it");

    // The base is lost, and comes back as it was before it had heard of the board, which does not know that.
    drop(base);
    let mut base = Engine::open_with(&early, world.options()).unwrap();
    let before = everything(base.path());
    let next = write(&mut board, &base);
    assert!(!has(&next, RecordKind::Certificate));
    let waits = import(&mut base, &next).waits;
    assert_eq!(waits[0].missing, Missing::Certificate);
    assert_eq!((waits.len(), waits[0].frames), (1, (3, 5)));
    assert_eq!(everything(base.path()), before, "nothing of it is here");
    // Whom it is not for refuses it as a stranger's.
    let mut stranger = world.base("stranger");
    assert!(matches!(try_import(&mut stranger, &next), Err(Error::Untrusted(_))));

    carry(&mut base, &mut board);
    let again = write(&mut board, &base);
    assert!(has(&again, RecordKind::Certificate), "the base says that it has nothing");
    assert!(import(&mut base, &again).waits.is_empty());
    assert_eq!(rows(&base, "SELECT count(*) FROM readings"), ["5"]);
}
