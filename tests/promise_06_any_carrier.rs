//! Promise 6: the same frames travel in any way, and the carrier is never trusted.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests are tests.

mod bundles;
mod common;
use common::*;
use packmule::core::wire::{HeaderReader, RecordKind};
use packmule::{Engine, Recipient};

fn board(world: &World) -> Engine {
    let mut a = world.board_with(
        "a",
        "CREATE TABLE t (k TEXT PRIMARY KEY, v); CREATE TABLE log (id INTEGER PRIMARY KEY AUTOINCREMENT, v);
         INSERT INTO t VALUES ('x', 1)",
        &["t"],
    );
    a.track("log", &append()).unwrap();
    sql(
        &a,
        "INSERT INTO t VALUES ('big', zeroblob(70000)); INSERT INTO log (v) VALUES ('one'), ('two'); UPDATE t SET v = 2 WHERE k = 'x'",
    );
    a
}

fn content(base: &Engine) -> (String, Vec<String>, Vec<String>) {
    (
        base.digest(true).unwrap(),
        rows(base, "SELECT * FROM log ORDER BY 1, 2"),
        rows(
            base,
            "SELECT d.id, f.stream, f.seq, f.body FROM _pm_frame f JOIN _pm_device d ON d.n = f.dev ORDER BY 1, 2, 3",
        ),
    )
}

#[test]
fn the_same_content_comes_by_every_way() {
    let world = World::new();
    let mut a = board(&world);
    let bytes = whole_bundle(&mut a);
    let mut reached = Vec::new();

    let mut by_bytes = world.base("by bytes");
    import(&mut by_bytes, &bytes);
    reached.push(by_bytes);

    let mut by_file = world.base("by file");
    let path = world.dir.path().join("a.pm");
    let mut file = std::fs::File::create(&path).unwrap();
    a.export(&mut file, Recipient::Device(by_file.identity().id)).unwrap();
    drop(file);
    by_file.import(&mut std::fs::File::open(&path).unwrap(), &mut |_| ()).unwrap();
    reached.push(by_file);

    let mut by_database = world.base("by database");
    let report = by_database.import_database(a.path(), &mut |_| ()).unwrap();
    assert_eq!(report.unsealed, 0);
    reached.push(by_database);

    // Through another base, which had it from a bundle, and through one more.
    let mut courier = world.base("courier");
    import(&mut courier, &bytes);
    let mut second = world.base("second");
    carry(&mut courier, &mut second);
    let mut by_third = world.base("by third");
    carry(&mut second, &mut by_third);
    reached.push(by_third);

    let mut by_database_of_another = world.base("by database of another");
    by_database_of_another.import_database(second.path(), &mut |_| ()).unwrap();
    reached.push(by_database_of_another);

    let mut by_pieces = world.base("by pieces");
    for group in bundles::split(&bytes).iter().rev() {
        import(&mut by_pieces, &group.bytes);
    }
    reached.push(by_pieces);

    let expected = content(&reached[0]);
    assert_eq!(expected.1.len(), 2);
    for base in &reached {
        assert!(content(base) == expected, "{}", base.identity().name);
        assert_eq!(base.verify().unwrap().problems, [""; 0]);
        assert_eq!(base.digest(false).unwrap(), a.digest(false).unwrap());
    }
}

/// A board passes on the shared frames of others; the rows of their own never went to it.
#[test]
fn a_board_carries_the_shared_rows_of_another_board() {
    let world = World::new();
    let mut a = board(&world);
    let mut b = world.board("b");
    let mut base = world.base("base");
    carry(&mut b, &mut a); // A hears that B is a board.
    carry(&mut a, &mut b);
    assert_eq!(rows(&b, "SELECT name FROM sqlite_schema WHERE name = 'log'").len(), 0);
    digests_equal(&[&a, &b]);
    // A wrote both kinds in one transaction, which a base takes whole: it is pending until the other half is there.
    let report = carry(&mut b, &mut base);
    assert_eq!(rows(&base, "SELECT * FROM t"), ["\"x\"|1"], "what was before it is there");
    assert_eq!(report.waits.len(), 1);
    assert!(matches!(report.waits[0].missing, packmule::Missing::OtherPart { .. }), "{report:?}");
    sql(&b, "INSERT INTO t VALUES ('of b', 1)");
    assert_eq!(
        carry(&mut b, &mut base).waits,
        [],
        "what B wrote after it does not wait for what A alone can bring"
    );
    // The rest comes from A itself, later.
    assert_eq!(carry(&mut a, &mut base).waits, []);
    carry(&mut base, &mut a);
    digests_equal(&[&a, &b, &base]);
    assert_eq!(rows(&base, "SELECT count(*) FROM log"), ["2"]);
    assert_eq!(base.verify().unwrap().problems, [""; 0]);
}

/// A database file is only read, with its key beside it or without: what is not sealed in it is counted.
#[test]
fn a_database_file_brings_what_is_sealed() {
    let world = World::new();
    let mut a = board(&world);
    a.seal().unwrap();
    sql(&a, "INSERT INTO t VALUES ('unsealed', 1), ('too', 2); INSERT INTO log (v) VALUES ('unsealed')");
    let path = a.path().to_owned();
    drop(a);
    open(&path).execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    let elsewhere = world.dir.path().join("card");
    std::fs::create_dir(&elsewhere).unwrap();
    let copy = elsewhere.join("a.db");
    std::fs::copy(&path, &copy).unwrap();
    let mut base = world.base("base");
    let report = base.import_database(&copy, &mut |_| ()).unwrap();
    assert_eq!(report.unsealed, 3);
    assert_eq!(rows(&base, "SELECT count(*) FROM t"), ["2"]);
    let before = std::fs::read(&path).unwrap();
    let report = base.import_database(&path, &mut |_| ()).unwrap();
    assert_eq!((report.unsealed, report.ops), (3, 0));
    assert!(std::fs::read(&path).unwrap() == before);
    assert!(!path.with_extension("db-shm").exists(), "not a file is made beside it");
    Engine::open(&path).unwrap().seal().unwrap();
    let report = base.import_database(&path, &mut |_| ()).unwrap();
    assert_eq!((report.unsealed, report.ops), (0, 3));
    assert_eq!(rows(&base, "SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM log)"), ["4|3"]);
}

/// A base to which the last group of a board has come, and none before it. Their bundles are given, without the last.
fn base_with_a_gap(world: &World, a: &mut Engine) -> (Engine, Vec<Vec<u8>>) {
    let mut base = world.base("base");
    for n in 0..3 {
        sql(a, &format!("INSERT INTO t VALUES ('more {n}', {n})"));
        a.seal().unwrap();
    }
    let mut groups: Vec<_> = bundles::split(&bundle(a, &base)).into_iter().map(|group| group.bytes).collect();
    assert_eq!(import(&mut base, &groups.pop().unwrap()).waits.len(), 1);
    (base, groups)
}

/// What is pending at a device it has not applied. Its probes name the frame, and acknowledge nothing.
#[test]
fn a_probe_alone_acknowledges_nothing() {
    let world = World::new();
    let mut a = board(&world);
    let (mut base, groups) = base_with_a_gap(&world, &mut a);
    let (me, last) = (a.identity().id, a.devices().unwrap()[0].shared);
    let answer = bundle(&mut base, &a);
    let (kind, header) = &bundles::records(&answer)[0];
    assert_eq!(*kind, RecordKind::Header);
    let header = HeaderReader::parse(header).unwrap();
    assert!(header.applied().all(|position| position.author != me || position.seq == 0));
    assert!(header.probes().any(|probe| (probe.author, probe.seq) == (me, last)));
    import(&mut a, &answer);
    assert_eq!(
        rows(&a, "SELECT * FROM _pm_ack WHERE dev = (SELECT n FROM _pm_device WHERE name = 'a')"),
        [""; 0]
    );
    // So all of it goes there again.
    assert_eq!(bundles::split(&bundle(&mut a, &base)).len(), groups.len() + 1);
    assert_eq!(carry(&mut a, &mut base).waits, []);
    digests_equal(&[&a, &base]);
}

/// A session brings what comes before a pending group.
#[test]
fn a_gap_before_a_pending_group_is_filled_by_a_session() {
    let world = World::new();
    let mut a = board(&world);
    let (mut base, _) = base_with_a_gap(&world, &mut a);
    assert!(session_of_two(&mut a, &mut base, usize::MAX, &mut |_| false));
    assert!(base.status().unwrap().waits.is_empty());
    digests_equal(&[&a, &base]);
}
