//! What is not as it should be is refused with a typed error, and changes nothing.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests are tests.

mod bundles;
mod common;
use common::*;
use packmule::core::wire::{DecodeError, RecordKind};
use packmule::{BundleProblem, Engine, Error, FleetKey, InitOptions, Recipient, TrackOptions, inspect};

/// What is wrong with a database that was to be taken in.
fn of_source(error: Error) -> Error {
    match error {
        Error::Source { error, .. } => *error,
        other => panic!("{other:?}"),
    }
}

fn pair() -> (World, Engine, Engine, Vec<u8>) {
    let world = World::new();
    let mut a = world.board_with("a", "CREATE TABLE t (k TEXT PRIMARY KEY, v)", &["t"]);
    let mut b = world.board("b");
    carry(&mut a, &mut b);
    sql(&a, "INSERT INTO t VALUES ('x', zeroblob(20000))");
    a.seal().unwrap();
    sql(&a, "INSERT INTO t VALUES ('y', 1)");
    let bytes = whole_bundle(&mut a);
    (world, a, b, bytes)
}

#[test]
fn a_truncated_bundle() {
    let (_world, _a, mut b, bytes) = pair();
    let before = everything(b.path());
    for len in (1..bytes.len()).step_by(97).chain(bytes.len() - 100..bytes.len()).chain(1..20) {
        match try_import(&mut b, &bytes[..len]) {
            Err(Error::Bundle { cause: BundleProblem::Decode(DecodeError::Short), offset }) => {
                assert!(offset as usize <= len)
            }
            other => panic!("{len} of {}: {other:?}", bytes.len()),
        }
        assert!(matches!(inspect(&bytes[..len]), Err(Error::Bundle { .. })));
    }
    let error = try_import(&mut b, &bytes[..500]).unwrap_err();
    assert!(error.to_string().contains("cut short"), "{error}");
    assert_eq!(error.hint(), Some(packmule::Hint::ExportAgain));
    assert_eq!(everything(b.path()), before);
}

#[test]
fn an_empty_file_and_foreign_ones() {
    let (_world, a, mut b, bytes) = pair();
    let before = everything(b.path());
    assert!(matches!(try_import(&mut b, &[]), Err(Error::Bundle { cause: BundleProblem::Empty, .. })));
    let database = std::fs::read(a.path()).unwrap();
    let mut text_mode = bytes.clone();
    text_mode.retain(|byte| *byte != b'\r');
    for foreign in
        [&b"hello, world"[..], &[0; 4096], &database, b"\x89PNG\r\n\x1a\n and a picture", &text_mode, b"x"]
    {
        match try_import(&mut b, foreign) {
            Err(Error::Bundle { cause: BundleProblem::NotABundle, .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(matches!(
        try_import(&mut b, &longer),
        Err(Error::Bundle { cause: BundleProblem::Structure(_), .. })
    ));
    let twice = [&bytes[..], &bytes[..]].concat();
    assert!(try_import(&mut b, &twice).is_err());
    assert_eq!(everything(b.path()), before);
}

#[test]
fn a_bundle_of_an_older_or_newer_version() {
    let (_world, _a, mut b, bytes) = pair();
    let before = everything(b.path());
    for version in [0, 2, 127] {
        let mut records = bundles::records(&bytes);
        assert_eq!(records[0], (RecordKind::Header, records[0].1.clone()));
        assert_eq!(records[0].1[0], 1, "the version is the first byte");
        records[0].1[0] = version;
        match try_import(&mut b, &bundles::join(&records)) {
            Err(e @ Error::Bundle { cause: BundleProblem::Decode(DecodeError::Version(v)), .. }) => {
                assert_eq!(v, u16::from(version));
                assert!(e.to_string().contains(&version.to_string()), "{e}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(everything(b.path()), before);
}

/// Noise in place of a part, with every length of it.
#[test]
fn noise_in_a_bundle() {
    let (_world, _a, mut b, bytes) = pair();
    let before = everything(b.path());
    let mut random = Random(11);
    for _ in 0..300 {
        let mut damaged = bytes.clone();
        let start = random.below(bytes.len() as u64 - 1) as usize;
        let len = 1 + random.below(64.min((bytes.len() - start) as u64)) as usize;
        damaged[start..start + len].iter_mut().for_each(|byte| *byte = random.next() as u8);
        if damaged != bytes {
            assert!(matches!(try_import(&mut b, &damaged), Err(Error::Bundle { .. })), "{start}, {len}");
        }
    }
    assert_eq!(everything(b.path()), before);
}

#[test]
fn a_file_that_is_no_database_or_no_device() {
    let (world, _a, mut b, _) = pair();
    let file = |name: &str, bytes: &[u8]| {
        let path = world.dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let text = file("text", b"this is not a database, but it is long enough to be taken for the head of one: 0123456789 0123456789");
    let is_none = |e: &Error| matches!(e, Error::Sqlite(e) if e.sqlite_error_code() == Some(rusqlite::ErrorCode::NotADatabase));
    assert!(Engine::open(&text).err().as_ref().is_some_and(is_none));
    let init = InitOptions { name: "x", base: false, fleet: None };
    assert!(Engine::init(&text, &init).err().as_ref().is_some_and(is_none));
    assert!(b.import_database(&text, &mut |_| ()).map_err(of_source).err().as_ref().is_some_and(is_none));
    assert!(std::fs::read(&text).unwrap().starts_with(b"this is not"));
    assert!(!world.dir.path().join("text.pmkey").exists());

    let plain = world.dir.path().join("plain.db");
    open(&plain).execute_batch("CREATE TABLE t (a, b)").unwrap();
    let before = everything(&plain);
    assert!(matches!(Engine::open(&plain), Err(Error::NotADevice)));
    assert!(matches!(b.import_database(&plain, &mut |_| ()).map_err(of_source), Err(Error::NotADevice)));
    assert_eq!(everything(&plain), before);
    let nothing = world.dir.path().join("nothing.db");
    assert!(matches!(Engine::open(&nothing), Err(Error::Io { .. })));
    assert!(!nothing.exists(), "opening makes no file");
    let empty = file("empty.db", b"");
    assert!(matches!(Engine::open(&empty), Err(Error::NotADevice)));
}

#[test]
fn a_device_twice_and_impossible_names() {
    let (world, a, _, _) = pair();
    let before = everything(a.path());
    let again = InitOptions { name: "again", base: true, fleet: Some(&world.fleet) };
    match Engine::init(a.path(), &again) {
        Err(Error::AlreadyADevice { device, name }) => {
            assert_eq!((device, name.as_str()), (a.identity().id, "a"))
        }
        other => panic!("{:?}", other.err()),
    }
    assert_eq!(everything(a.path()), before);
    for name in ["", "two\nlines", &"x".repeat(65)] {
        let path = world.dir.path().join("new.db");
        assert!(matches!(
            Engine::init(&path, &InitOptions { name, base: false, fleet: None }),
            Err(Error::Usage(_))
        ));
        assert!(!path.exists());
    }
    // A key file that lies there already belongs to somebody.
    let path = world.dir.path().join("other.db");
    std::fs::write(world.dir.path().join("other.db.pmkey"), "mine").unwrap();
    assert!(matches!(
        Engine::init(&path, &InitOptions { name: "o", base: false, fleet: None }),
        Err(Error::Replaced { .. })
    ));
    assert!(!path.exists());
    assert_eq!(std::fs::read(world.dir.path().join("other.db.pmkey")).unwrap(), b"mine");
}

#[test]
fn a_locked_database() {
    let (_world, mut a, mut b, bytes) = pair();
    sql(&b, "INSERT INTO t VALUES ('of b', 1)");
    let before = everything(b.path());
    let other = app(&b);
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let busy = |e: Option<Error>| {
        let e = e.unwrap();
        assert!(
            matches!(&e, Error::Sqlite(e) if e.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy)),
            "{e:?}"
        );
        assert!(e.to_string().contains("locked by another program"), "{e}");
    };
    busy(b.seal().err());
    busy(try_import(&mut b, &bytes).err());
    busy(b.export(&mut Vec::new(), Recipient::Anyone).err());
    busy(b.track("t", &TrackOptions::default()).err());
    busy(b.untrack("t").err());
    busy(b.trust(a.identity().id).err());
    assert_eq!(a.import_database(b.path(), &mut |_| ()).unwrap().unsealed, 1, "a source is only read");
    assert!(b.digest(false).is_ok() && b.conflicts().is_ok() && b.status().is_ok(), "reading goes on");
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(everything(b.path()), before);
    // The same handle goes on when the other has finished.
    assert_eq!(import(&mut b, &bytes).ops, 2);
}

#[test]
fn a_key_file_that_is_missing_or_another_devices() {
    let (world, a, b, _) = pair();
    let (path, key) = (a.path().to_owned(), a.path().with_file_name("a.db.pmkey"));
    let key_of_b = b.path().with_file_name("b.db.pmkey");
    drop((a, b));
    let kept = std::fs::read(&key).unwrap();
    #[cfg(unix)]
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&key).unwrap().permissions()) & 0o777,
        0o600
    );
    std::fs::remove_file(&key).unwrap();
    sql(&world.base("x"), "SELECT 1");
    let mut a = Engine::open_with(&path, world.options()).unwrap();
    sql(&a, "UPDATE t SET v = 7");
    let before = everything(&path);
    assert!(!a.can_sign());
    for result in [a.seal().err(), a.export(&mut Vec::new(), Recipient::Anyone).err()] {
        match result {
            Some(Error::KeyMissing { path, .. }) => assert!(path.ends_with("a.db.pmkey"), "{path:?}"),
            other => panic!("{other:?}"),
        }
    }
    assert!(a.digest(false).is_ok());
    assert_eq!(everything(&path), before);
    drop(a);
    std::fs::copy(&key_of_b, &key).unwrap();
    assert!(
        matches!(Engine::open(&path), Err(Error::KeyMissing { reason, .. }) if reason.contains("another device"))
    );
    for bad in [&b""[..], b"garbage", &kept[..30], b"\xff\xfe"] {
        std::fs::write(&key, bad).unwrap();
        assert!(matches!(Engine::open(&path), Err(Error::KeyMissing { .. })), "{bad:?}");
    }
    // A fleet's key is no device's key, and the other way round.
    std::fs::copy(world.dir.path().join("fleet.key"), &key).unwrap();
    assert!(matches!(Engine::open(&path), Err(Error::KeyMissing { .. })));
    assert!(matches!(FleetKey::open(&key_of_b), Err(Error::KeyMissing { .. })));
    std::fs::write(&key, &kept).unwrap();
    let mut a = Engine::open_with(&path, world.options()).unwrap();
    assert_eq!(a.seal().unwrap().ops, 2);
}

#[test]
fn names_that_nothing_has() {
    let (_world, mut a, _, _) = pair();
    let before = everything(a.path());
    assert!(matches!(a.untrack("nowhere"), Err(Error::UnknownTable { tracked, .. }) if tracked == ["t"]));
    assert!(
        matches!(a.find_device("nobody"), Err(Error::Device { candidates, .. }) if candidates.is_empty())
    );
    assert!(matches!(
        a.resolve("abcdef", &packmule::Resolution::Delete),
        Err(Error::NoSuchConflict { open: 0, .. })
    ));
    let column = TrackOptions {
        columns: vec![("nope".into(), packmule::ColumnMerge::Max)],
        ..TrackOptions::default()
    };
    assert!(
        matches!(a.track("t", &column), Err(Error::CannotTrack { reason, .. }) if reason.contains("nope"))
    );
    assert_eq!(everything(a.path()), before);
}

/// A database of a newer Packmule is left alone.
#[test]
fn a_database_of_a_newer_version() {
    let (_world, a, mut b, _) = pair();
    sql(&a, "UPDATE _pm_meta SET v = 99 WHERE k = 'layout'");
    let path = a.path().to_owned();
    drop(a);
    let before = everything(&path);
    assert!(matches!(Engine::open(&path), Err(Error::NewerDatabase { version: 99 })));
    let newer = b.import_database(&path, &mut |_| ()).map_err(of_source);
    assert!(matches!(newer, Err(Error::NewerDatabase { .. })));
    assert_eq!(everything(&path), before);
}

/// A database of an older Packmule is brought up to date when it is opened.
#[test]
fn a_database_of_an_older_version() {
    let fourth = "DROP VIEW IF EXISTS packmule_conflicts; DROP TABLE _pm_listed; DROP TABLE _pm_wish;
                 DROP TABLE _pm_staged; DROP TABLE _pm_mark; DROP TABLE _pm_run; DROP TABLE _pm_summed; DROP TABLE _pm_copy; DROP TABLE _pm_stretch; DROP TABLE _pm_route;
                 DROP TABLE _pm_fork; DROP TABLE _pm_link; DROP INDEX _pm_declared_standing;
                 ALTER TABLE _pm_table DROP COLUMN root;
                 DROP TABLE _pm_suspended; ALTER TABLE _pm_def DROP COLUMN told;
                 ALTER TABLE _pm_dangling ADD COLUMN told INTEGER NOT NULL DEFAULT 0;
                 DROP INDEX _pm_def_table";
    let third = format!("{fourth}; DROP TABLE _pm_tag; DROP TABLE _pm_fold; DROP TABLE _pm_folded; DROP TABLE _pm_gone;
                 ALTER TABLE _pm_table DROP COLUMN deletes; ALTER TABLE _pm_table DROP COLUMN gaps; DROP TABLE _pm_gap;
                 DROP TABLE _pm_reached; ALTER TABLE _pm_count DROP COLUMN lamport;
                 DROP TABLE _pm_stated; DROP TABLE _pm_told; DROP TABLE _pm_aside;
                 ALTER TABLE _pm_ack DROP COLUMN tag");
    let second = format!(
        "{third}; ALTER TABLE _pm_table DROP COLUMN gathers; DROP TABLE _pm_statement; DROP TABLE _pm_number;
         DROP TABLE _pm_unplaced; DROP TABLE _pm_newest; DROP TABLE _pm_revocation"
    );
    let first = format!("{second}; ALTER TABLE _pm_dangling DROP COLUMN told");
    for (version, changes) in [(1, first.as_str()), (2, second.as_str()), (3, third.as_str()), (4, fourth)] {
        brought_up_to_date(version, changes);
    }
}

fn brought_up_to_date(version: i64, changes: &str) {
    let (world, mut a, mut b, _) = pair();
    carry(&mut b, &mut a);
    // From version 3 on, what is said of a revocation has a table of its own.
    let said = if version < 3 {
        ""
    } else {
        "INSERT INTO _pm_revocation (dev, here, was) SELECT n, 1, 1 FROM _pm_device WHERE name = 'b'"
    };
    sql(
        &a,
        &format!(
            "{changes}; UPDATE _pm_device SET trust = 3 WHERE name = 'b'; UPDATE _pm_meta SET v = {version} WHERE k = 'layout';
             {said}"
        ),
    );
    let path = a.path().to_owned();
    drop(a);
    let before = everything(&path);
    let a = Engine::open_read_only(&path, world.options()).unwrap();
    assert!(a.conflicts().unwrap().is_empty() && !a.devices().unwrap().is_empty());
    let revoked = |engine: &Engine| -> Vec<_> {
        engine
            .devices()
            .unwrap()
            .into_iter()
            .filter(|d| d.revoked_by == Some(packmule::SaidBy::Here))
            .collect()
    };
    assert_eq!(revoked(&a).len(), 1, "what was revoked here stays revoked");
    drop(a);
    assert_eq!(everything(&path), before);
    let mut a = Engine::open_with(&path, world.options()).unwrap();
    a.seal().unwrap();
    a.compact().unwrap();
    assert_eq!(rows(&a, "SELECT v FROM _pm_meta WHERE k = 'layout'"), ["5"]);
    let id = revoked(&a)[0].id;
    a.take_back_revocation(id, None).unwrap();
    assert!(revoked(&a).is_empty() && a.peers().unwrap().iter().any(|peer| peer.id == id));
}

/// A read-only file can be read from, and is not sealed.
#[test]
fn a_database_opened_for_reading_alone() {
    let (world, mut a, mut b, _) = pair();
    a.seal().unwrap();
    sql(&a, "INSERT INTO t VALUES ('unsealed', 1)");
    let path = a.path().to_owned();
    drop(a);
    let before = everything(&path);
    let mut a = Engine::open_read_only(&path, world.options()).unwrap();
    let read_only = |e: Error| matches!(&e, Error::Sqlite(e) if e.sqlite_error_code() == Some(rusqlite::ErrorCode::ReadOnly));
    assert!(read_only(a.seal().unwrap_err()));
    assert!(a.digest(false).is_ok() && a.verify().unwrap().problems.is_empty());
    assert_eq!(everything(&path), before);
    drop(a);
    assert_eq!(b.import_database(&path, &mut |_| ()).unwrap().unsealed, 1, "a source is only read");
    assert_eq!(everything(&path), before);
    assert_eq!(rows(&b, "SELECT count(*) FROM t"), ["2"]);
    let itself = b.path().to_owned();
    assert!(matches!(b.import_database(&itself, &mut |_| ()), Err(Error::Usage(_))), "not itself");
}
