//! Databases taken in as they are: copies of one that both went on, files that are none, long imports.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests are tests.

mod common;
use common::*;
use packmule::{Engine, Error, TrackOptions};

const TABLE: &str = "CREATE TABLE t (k TEXT PRIMARY KEY, v)";

/// A board that was cloned after `track`: the board, its copy's path, and a base that has both's past.
fn cloned(world: &World) -> (Engine, std::path::PathBuf, Engine) {
    let a = world.board_with("a", TABLE, &["t"]);
    let mut base = world.base("base");
    base.import_database(a.path(), &mut |_| ()).unwrap();
    app(&a).execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    let copy = world.path("copy");
    std::fs::copy(a.path(), &copy).unwrap();
    std::fs::copy(world.path("a").with_extension("db.pmkey"), copy.with_extension("db.pmkey")).unwrap();
    (a, copy, base)
}

fn write(path: &std::path::Path, key: &str, times: usize) {
    for n in 0..times {
        open(path).execute_batch(&format!("INSERT INTO t VALUES ('{key}{n}', 1)")).unwrap();
        Engine::open(path).unwrap().seal().unwrap();
    }
}

/// A copy that went on is named and not touched, also with its key beside it.
fn refused_as_twin(base: &mut Engine, path: &std::path::Path) {
    let before = (everything(base.path()).len(), everything(path));
    match base.import_database(path, &mut |_| ()) {
        Err(Error::Twin { device, .. }) => assert!(device.starts_with("a-"), "{device}"),
        other => panic!("{other:?}"),
    }
    assert!(base.status().unwrap().notices.iter().any(|n| n.text.contains("two histories")));
    assert_eq!((everything(base.path()).len() - before.0, everything(path)), (1, before.1), "one notice");
}

/// It takes a new identity by itself, when it hears of the base.
fn takes_a_new_identity(base: &mut Engine, path: &std::path::Path) {
    let mut copy = Engine::open(path).unwrap();
    let was = copy.identity().clone();
    let report = import(&mut copy, &whole_bundle(base));
    assert_ne!(copy.identity().id, was.id);
    assert_eq!(report.new_identity, Some(packmule::label(copy.identity().id, Some(&copy.identity().name))));
    assert!(copy.status().unwrap().notices[0].text.contains("second history of a-"));
    drop(copy);
    base.import_database(path, &mut |_| ()).unwrap();
}

#[test]
fn a_clone_that_went_on_is_found_however_far_it_went() {
    for (of_the_board, of_the_copy) in [(3, 1), (2, 2), (1, 3)] {
        let world = World::new();
        let (a, copy, mut base) = cloned(&world);
        write(a.path(), "a", of_the_board);
        write(&copy, "c", of_the_copy);
        base.import_database(a.path(), &mut |_| ()).unwrap();
        assert_eq!(rows(&base, "SELECT count(*) FROM t"), [of_the_board.to_string()]);
        refused_as_twin(&mut base, &copy);
        takes_a_new_identity(&mut base, &copy);
        assert_eq!(rows(&base, "SELECT count(*) FROM t"), [(of_the_board + of_the_copy).to_string()]);
        assert!(base.conflicts().unwrap().is_empty());
        assert_eq!(base.verify().unwrap().problems, Vec::<String>::new());
    }
}

#[test]
fn a_clone_with_a_row_that_is_not_sealed() {
    let world = World::new();
    let (a, copy, mut base) = cloned(&world);
    open(a.path()).execute_batch("INSERT INTO t VALUES ('a', 1)").unwrap();
    open(&copy).execute_batch("INSERT INTO t VALUES ('c', 1)").unwrap();
    Engine::open(a.path()).unwrap().seal().unwrap();
    base.import_database(a.path(), &mut |_| ()).unwrap();
    let report = base.import_database(&copy, &mut |_| ()).unwrap();
    assert_eq!((report.frames, report.unsealed), (0, 1), "as an older copy, it is no second history yet");
    takes_a_new_identity(&mut base, &copy);
    assert_eq!(rows(&base, "SELECT k FROM t ORDER BY k"), ["\"a\"", "\"c\""]);
}

/// A copy that is merely older is no second history.
#[test]
fn an_older_copy_has_nothing_new() {
    let world = World::new();
    let (a, copy, mut base) = cloned(&world);
    write(a.path(), "a", 2);
    base.import_database(a.path(), &mut |_| ()).unwrap();
    for path in [&copy, &a.path().to_owned()] {
        let report = base.import_database(path, &mut |_| ()).unwrap();
        assert_eq!((report.frames, report.unsealed), (0, 0), "{report:?}");
    }
    assert_eq!(rows(&base, "SELECT count(*) FROM t"), ["2"]);
}

/// Its bundle as well, also where its groups do not end where those that are here do.
#[test]
fn a_clones_bundle() {
    let world = World::new();
    let (a, copy, mut base) = cloned(&world);
    open(a.path()).execute_batch("INSERT INTO t VALUES ('long', randomblob(60000))").unwrap();
    Engine::open(a.path()).unwrap().seal().unwrap();
    base.import_database(a.path(), &mut |_| ()).unwrap();
    write(&copy, "c", 1);
    let bytes = whole_bundle(&mut Engine::open(&copy).unwrap());
    // Its header is heard: that its sender was set back. Nothing else of it is taken.
    let log = |base: &Engine| {
        ["frame", "group", "stream", "notice"]
            .map(|table| rows(base, &format!("SELECT count(*) FROM _pm_{table}")))
    };
    let [frames, groups, streams, _] = log(&base);
    assert!(matches!(try_import(&mut base, &bytes), Err(Error::Twin { .. })));
    assert_eq!(log(&base), [frames, groups, streams, vec!["1".to_owned()]], "one notice");
}

#[test]
fn what_is_wrong_with_the_source_is_said_of_the_source() {
    let world = World::new();
    let (_a, _copy, mut base) = cloned(&world);
    let plain = world.path("plain");
    open(&plain).execute_batch("CREATE TABLE t (a)").unwrap();
    let none = world.path("none");
    for path in [&plain, &none] {
        match base.import_database(path, &mut |_| ()) {
            Err(Error::Source { path: named, error }) => {
                assert_eq!(&named, path);
                assert!(matches!(*error, Error::NotADevice | Error::Io { .. }), "{error}");
            }
            other => panic!("{other:?}"),
        }
    }
    // The database itself being locked is not the source's fault.
    let writer = app(&base);
    writer.execute_batch("BEGIN IMMEDIATE").unwrap();
    let a = world.path("a");
    write(&a, "x", 1);
    assert!(matches!(base.import_database(&a, &mut |_| ()), Err(Error::Sqlite(_))));
}

#[test]
fn progress_is_reported_within_a_long_group() {
    let world = World::new();
    let mut a = world.board("a");
    sql(&a, TABLE);
    sql(
        &a,
        "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400) INSERT INTO t SELECT i, randomblob(15000) FROM n",
    );
    a.track("t", &TrackOptions::default()).unwrap();
    let bytes = whole_bundle(&mut a);
    assert!(bytes.len() > 6_000_000);
    let mut b = world.board("b");
    let mut told: Vec<(bool, u64)> = Vec::new();
    b.import(&mut std::io::Cursor::new(&bytes), &mut |at| told.push((at.verifying, at.done))).unwrap();
    for phase in [true, false] {
        let at: Vec<u64> = told.iter().filter(|(v, _)| *v == phase).map(|(_, done)| *done).collect();
        assert!(at.len() >= 5 && at.windows(2).all(|w| w[1] - w[0] < 1_200_000), "{phase}: {at:?}");
    }
}
