//! What is said of tables before it is too late: keys that two devices can take, and what only the application has.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod common;
use common::*;
use packmule::{ConflictKind, Engine, OwnedValue, Resolution, TableHow, TrackOptions};

const AUTHORS: &str = "
    CREATE TABLE author (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, mentor INTEGER REFERENCES author(id));
    CREATE TABLE book (id INTEGER PRIMARY KEY AUTOINCREMENT, title TEXT NOT NULL, author_id INTEGER REFERENCES author);
    CREATE TABLE page (id TEXT PRIMARY KEY, book_id INTEGER REFERENCES book(id))";

fn library(names: &[&str]) -> (World, Vec<Engine>) {
    let world = World::new();
    let devices = names.iter().map(|name| world.board_with(name, AUTHORS, &["author", "book", "page"]));
    let devices = devices.collect();
    (world, devices)
}

/// Who wrote what, page by page.
const PAGES: &str = "SELECT a.name, m.name, b.title, p.id FROM author a LEFT JOIN author m ON m.id = a.mentor
    JOIN book b ON b.author_id = a.id LEFT JOIN page p ON p.book_id = b.id ORDER BY 1, 2, 3, 4";

/// Two devices made authors, books and pages under the same numbers. Whoever keeps both authors keeps each one's books and
/// pages with them, however deep, on every device, also after all have compacted.
#[test]
fn children_stay_with_their_parents() {
    for compacted in [false, true] {
        let (_world, mut d) = library(&["a", "b", "c"]);
        sql(
            &d[0],
            "INSERT INTO author VALUES (1, 'Ann', NULL), (2, 'Amy', 1);
             INSERT INTO book VALUES (1, 'Ann 1', 1), (2, 'Ann 2', 1), (3, 'Amy 1', 2); INSERT INTO page VALUES ('a1', 1), ('a2', 2)",
        );
        sql(
            &d[1],
            "INSERT INTO author VALUES (1, 'Bob', NULL); INSERT INTO book VALUES (1, 'Bob 1', 1); INSERT INTO page VALUES ('b1', 1)",
        );
        carry_all(&mut d.iter_mut().collect::<Vec<_>>());
        if compacted {
            carry_all(&mut d.iter_mut().collect::<Vec<_>>());
            d.iter_mut().for_each(|device| {
                device.compact().unwrap();
            });
        }
        let open = d[2].conflicts().unwrap();
        assert!(open.iter().all(|c| c.kind == ConflictKind::InsertInsert) && open.len() == 2, "{open:?}");
        assert_eq!(open[0].table, "author");
        assert_eq!(open[0].referred_by["book"], 2, "{open:?}");
        assert_eq!(open[0].referred_by["author"], 1);
        let id = open[0].id.clone();
        d[2].resolve(&id, &Resolution::KeepBoth).unwrap();
        assert!(d[2].conflicts().unwrap().is_empty(), "the books were two things as well");
        carry_all(&mut d.iter_mut().collect::<Vec<_>>());
        digests_equal(&d.iter().collect::<Vec<_>>());
        for device in &d {
            assert_eq!(
                rows(device, PAGES),
                [
                    "\"Amy\"|\"Ann\"|\"Amy 1\"|NULL",
                    "\"Ann\"|NULL|\"Ann 1\"|\"a1\"",
                    "\"Ann\"|NULL|\"Ann 2\"|\"a2\"",
                    "\"Bob\"|NULL|\"Bob 1\"|\"b1\""
                ],
                "compacted: {compacted}"
            );
        }
    }
}

#[test]
fn integer_keys_that_others_refer_to_are_named_at_track() {
    let world = World::new();
    let mut a = world.board("a");
    sql(&a, AUTHORS);
    let reports = a.track_all(&["author", "book", "page"], &TrackOptions::default()).unwrap();
    let told = |at: usize| reports[at].advice.concat();
    assert!(told(0).contains("`author`, `book` refers to these numbers"), "{reports:?}");
    assert!(told(1).contains("`page` refers to these numbers") && told(2).is_empty(), "{reports:?}");
    let mut b = world.board("b");
    sql(&b, AUTHORS);
    let silent = TrackOptions { ids_shared: true, ..TrackOptions::default() };
    assert!(b.track_all(&["author", "book"], &silent).unwrap().iter().all(|r| r.advice.is_empty()));
    // The table that refers comes later: then it is said of the one that it refers to.
    let mut c = world.board("c");
    sql(&c, AUTHORS);
    c.track("author", &silent).unwrap();
    let report = c.track("book", &TrackOptions::default()).unwrap();
    assert!(report.advice.iter().any(|a| a.contains("`author` is shared")), "{report:?}");
}

/// Writes as the application, which has a function of its own.
fn as_app(engine: &Engine, text: &str) {
    let db = app(engine);
    let flags = rusqlite::functions::FunctionFlags::SQLITE_DETERMINISTIC
        | rusqlite::functions::FunctionFlags::SQLITE_UTF8;
    db.create_scalar_function("twice", 1, flags, |c| Ok(c.get::<Option<String>>(0)?.map(|t| t.repeat(2))))
        .unwrap();
    db.execute_batch(text).unwrap();
}

#[test]
fn a_table_that_an_import_cannot_write_is_refused() {
    for table in [
        "CREATE TABLE t (id TEXT PRIMARY KEY, v TEXT); CREATE UNIQUE INDEX ix ON t (twice(v))",
        "CREATE TABLE t (id TEXT PRIMARY KEY, v TEXT); CREATE INDEX ix ON t (twice(v))",
        "CREATE TABLE t (id TEXT PRIMARY KEY, v TEXT); CREATE INDEX ix ON t (v) WHERE twice(v) > 'b'",
        "CREATE TABLE t (id TEXT PRIMARY KEY, v TEXT CHECK (twice(v) <> 'xx'))",
        "CREATE TABLE t (id TEXT PRIMARY KEY, v TEXT, g TEXT AS (twice(v)) STORED)",
    ] {
        let world = World::new();
        let mut a = world.board("a");
        as_app(&a, table);
        let refused = a.track("t", &TrackOptions::default()).unwrap_err().to_string();
        assert!(
            refused.contains("only your application has") && refused.contains("`t`"),
            "{table}: {refused}"
        );
        assert!(a.status().unwrap().tables.is_empty(), "nothing is left of it");
        // Verifying names what it could not look at.
        let report = a.verify().unwrap();
        assert!(report.problems.is_empty(), "{report:?}");
    }
}

#[test]
fn a_later_index_holds_that_table_alone() {
    let world = World::new();
    let tables = "CREATE TABLE t (id TEXT PRIMARY KEY, v TEXT); CREATE TABLE other (id TEXT PRIMARY KEY, v)";
    let mut a = world.board_with("a", tables, &["t", "other"]);
    let mut b = world.board_with("b", tables, &["t", "other"]);
    carry_all(&mut [&mut a, &mut b]);
    as_app(&b, "CREATE INDEX ix ON t (twice(v))");
    sql(&a, "INSERT INTO t VALUES ('1', 'one'); INSERT INTO other VALUES ('1', 1)");
    carry(&mut a, &mut b);
    assert_eq!(rows(&b, "SELECT v FROM other"), ["1"], "the others go on");
    let held = b.status().unwrap().tables.into_iter().find(|t| t.how == TableHow::Suspended).unwrap();
    assert!(held.name == "t" && held.note.unwrap().contains("twice"));
    assert_eq!(b.verify().unwrap().unchecked.len(), 1);
    sql(&b, "DROP INDEX ix");
    carry_all(&mut [&mut a, &mut b]);
    digests_equal(&[&a, &b]);
    assert_eq!(rows(&b, "SELECT v FROM t"), ["\"one\""]);
}

/// One name, a TEXT key here and an INTEGER key there: that table alone stands still, on both sides, and is named.
#[test]
fn keys_of_another_kind_hold_their_table_alone() {
    let world = World::new();
    let other = "CREATE TABLE other (id TEXT PRIMARY KEY, v)";
    let mut a =
        world.board_with("a", &format!("{other}; CREATE TABLE t (id TEXT PRIMARY KEY, v)"), &["t", "other"]);
    let mut b = world.board_with(
        "b",
        &format!("{other}; CREATE TABLE t (id INTEGER PRIMARY KEY, v)"),
        &["t", "other"],
    );
    sql(&a, "INSERT INTO t VALUES ('x', 1); INSERT INTO other VALUES ('a', 1)");
    sql(&b, "INSERT INTO t VALUES (7, 1); INSERT INTO other VALUES ('b', 1)");
    carry_all(&mut [&mut a, &mut b]);
    for (engine, own) in [(&a, "\"x\""), (&b, "7")] {
        assert_eq!(rows(engine, "SELECT id FROM other ORDER BY id"), ["\"a\"", "\"b\""]);
        assert_eq!(rows(engine, "SELECT id FROM t"), [own]);
        let told = engine.status().unwrap().notices;
        assert!(told.iter().any(|n| n.text.contains("`t` has another primary key")), "{told:?}");
    }
}

/// Tracking many tables is one seal, so that its cost follows their number.
#[test]
fn many_tables_are_tracked_in_one_group() {
    let world = World::new();
    let mut a = world.board("a");
    let names: Vec<String> = (0..60).map(|n| format!("t{n}")).collect();
    let text: String = names
        .iter()
        .map(|n| format!("CREATE TABLE {n} (id TEXT PRIMARY KEY, v); INSERT INTO {n} VALUES ('a', 1);"))
        .collect();
    sql(&a, &text);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let reports = a.track_all(&names, &TrackOptions::default()).unwrap();
    assert!(reports.iter().all(|r| r.rows == 1));
    assert_eq!(
        rows(&a, &format!("SELECT count(*) FROM _pm_group WHERE dev > 0 AND EXISTS (SELECT 1 FROM {HEADS})")),
        ["1"]
    );
    let mut b = world.board("b");
    carry(&mut a, &mut b);
    digests_equal(&[&a, &b]);
}

/// Tables without a primary key: a UNIQUE index tells rows apart, the only one or the one that is named.
#[test]
fn a_unique_index_is_a_key() {
    let world = World::new();
    let tiles =
        "CREATE TABLE tiles (zoom_level integer, tile_column integer, tile_row integer, tile_data blob);
        CREATE UNIQUE INDEX tile_index ON tiles (zoom_level, tile_column, tile_row)";
    let mut a = world.board_with("a", tiles, &["tiles"]);
    let mut b = world.board_with("b", tiles, &["tiles"]);
    let mut c = world.board("c");
    sql(
        &a,
        "INSERT INTO tiles VALUES (1, 2, 3, x'00'), (1, 2, 4, x'01'); INSERT OR REPLACE INTO tiles VALUES (1, 2, 3, x'02')",
    );
    carry_all(&mut [&mut a, &mut b, &mut c]);
    sql(
        &b,
        "UPDATE tiles SET tile_data = x'0304' WHERE tile_row = 4; UPDATE tiles SET tile_row = 9 WHERE tile_row = 3",
    );
    sql(&c, "INSERT INTO tiles VALUES (5, 5, 5, zeroblob(100000))");
    carry_all(&mut [&mut a, &mut b, &mut c]);
    digests_equal(&[&a, &b, &c]);
    let all = "SELECT zoom_level, tile_row, length(tile_data) FROM tiles ORDER BY 1, 2";
    assert_eq!(rows(&a, all), ["1|4|2", "1|9|1", "5|5|100000"]);
    sql(&a, "INSERT INTO tiles VALUES (NULL, 1, 1, x'')");
    a.seal().unwrap();
    assert_eq!(a.not_sent().unwrap()[0].rows, 1);
    // Two of them: one has to be named. An index that goes takes the table out of step, alone, until it is back.
    let mut d = world.board("d");
    sql(&d, "CREATE TABLE t (a UNIQUE NOT NULL, b INTEGER UNIQUE, v); CREATE TABLE bare (x)");
    let refused = d.track("t", &TrackOptions::default()).unwrap_err().to_string();
    assert!(refused.contains("a; b") && refused.contains("--key"), "{refused}");
    assert!(d.track("bare", &TrackOptions::default()).unwrap_err().to_string().contains("no primary key"));
    d.track("t", &TrackOptions { key: vec!["B".into()], ..TrackOptions::default() }).unwrap();
    sql(&d, "INSERT INTO t VALUES ('x', 1, 1), ('y', 2, 2); INSERT OR REPLACE INTO t VALUES ('x', 3, 3)");
    let mut e = world.board("e");
    carry_all(&mut [&mut d, &mut e]);
    digests_equal(&[&d, &e]);
    assert_eq!(rows(&e, "SELECT a, b FROM t ORDER BY b"), ["\"y\"|2", "\"x\"|3"]);
}

/// As many columns as fit, and one more.
#[test]
fn wide_tables() {
    for (columns, fits) in [(999, true), (1001, false)] {
        let world = World::new();
        let mut a = world.board("a");
        let names: Vec<String> = (0..columns).map(|n| format!("c{n}")).collect();
        sql(&a, &format!("CREATE TABLE wide (id TEXT PRIMARY KEY, {})", names[1..].join(", ")));
        let tracked = a.track("wide", &TrackOptions::default());
        assert_eq!(tracked.is_ok(), fits, "{tracked:?}");
        if fits {
            sql(&a, "INSERT INTO wide (id, c1) VALUES ('x', 1); UPDATE wide SET c998 = 2");
            let mut b = world.board("b");
            carry(&mut a, &mut b);
            sql(&b, "UPDATE wide SET c5 = 5");
            sql(&a, "UPDATE wide SET c6 = 6");
            carry_all(&mut [&mut a, &mut b]);
            digests_equal(&[&a, &b]);
            assert_eq!(rows(&b, "SELECT c1, c998 FROM wide"), ["1|2"]);
        } else {
            assert!(tracked.unwrap_err().to_string().contains("1000 columns"));
        }
    }
}

/// Messages of what is wrong with the file: what it is, and what to do.
#[test]
fn the_file_itself() {
    let world = World::new();
    let a = world.board_with("a", "CREATE TABLE t (id TEXT PRIMARY KEY, v)", &["t"]);
    let path = a.path().to_owned();
    drop(a);
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN IMMEDIATE; DELETE FROM t; COMMIT").unwrap();
    let told = Engine::open_with(&path, world.options()).err().unwrap().to_string();
    assert!(told.contains("locking_mode = EXCLUSIVE"), "{told}");
    drop(other);
    // An application builds a new file and puts it in the place of the old one.
    for end in ["", "-wal", "-shm"] {
        let mut name = path.clone().into_os_string();
        name.push(end);
        let _ = std::fs::remove_file(name);
    }
    rusqlite::Connection::open(&path)
        .unwrap()
        .execute_batch("CREATE TABLE t (id TEXT PRIMARY KEY, v)")
        .unwrap();
    let told = Engine::open_with(&path, world.options()).err().unwrap().to_string();
    assert!(told.contains("put a new file in its place") && told.contains(".pmkey"), "{told}");
    // What the disk does.
    for (code, word) in [
        (rusqlite::ffi::SQLITE_FULL, "full"),
        (rusqlite::ffi::SQLITE_IOERR_READ, "could not be read"),
        (rusqlite::ffi::SQLITE_IOERR_WRITE, "did not take"),
    ] {
        let failure = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None);
        let told = packmule::Error::from(failure).to_string();
        assert!(
            told.contains(word) && told.contains("try again") != (code == rusqlite::ffi::SQLITE_IOERR_READ),
            "{told}"
        );
    }
}

/// A table that was tracked in the wrong way can be tracked in another, as long as nobody has heard of it.
#[test]
fn another_mode_before_anybody_has_heard() {
    let world = World::new();
    let mut a = world.board_with(
        "a",
        "CREATE TABLE t (id TEXT PRIMARY KEY, v); INSERT INTO t VALUES ('x', 1)",
        &["t"],
    );
    a.untrack("t").unwrap();
    a.track("t", &per_device()).unwrap();
    sql(&a, "UPDATE t SET v = 2");
    let mut base = world.base("base");
    carry_all(&mut [&mut a, &mut base]);
    a.untrack("t").unwrap();
    let refused = a.track("t", &TrackOptions::default()).unwrap_err().to_string();
    assert!(refused.contains("per-device"), "{refused}");
}

/// Three devices made an author, a book and a mentor under the same numbers: each one's rows go along to their own author, also by
/// two columns at once, and no two new rows get one number.
#[test]
fn children_of_three_stay_with_their_parents() {
    let schema = "
        CREATE TABLE author (id INTEGER PRIMARY KEY, name, mentor REFERENCES author (id));
        CREATE TABLE book (id INTEGER PRIMARY KEY, title, author REFERENCES author (id), editor REFERENCES author (id))";
    let world = World::new();
    let mut d: Vec<Engine> =
        ["a", "b", "c"].iter().map(|name| world.board_with(name, schema, &["author", "book"])).collect();
    for (device, name) in d.iter().zip(["a", "b", "c"]) {
        sql(
            device,
            &format!(
                "INSERT INTO author VALUES (1, '{name}', 1), (2, '{name}', 1);
                 INSERT INTO book VALUES (1, '{name}', 1, 1), (2, '{name}', 1, 2)"
            ),
        );
    }
    carry_all(&mut d.iter_mut().collect::<Vec<_>>());
    let open = d[0].conflicts().unwrap();
    let id = |key| {
        open.iter().find(|c| c.table == "author" && c.key[0].1 == OwnedValue::Int(key)).unwrap().id.clone()
    };
    d[0].resolve(&id(1), &Resolution::KeepBoth).unwrap();
    d[0].resolve(&id(2), &Resolution::KeepBoth).unwrap_err();
    carry_all(&mut d.iter_mut().collect::<Vec<_>>());
    digests_equal(&d.iter().collect::<Vec<_>>());
    for device in &d {
        assert!(device.conflicts().unwrap().is_empty());
        let of = "SELECT a.name, m.name FROM author a JOIN author m ON m.id = a.mentor ORDER BY 1, 2";
        assert_eq!(
            rows(device, of),
            ["\"a\"|\"a\"", "\"a\"|\"a\"", "\"b\"|\"b\"", "\"b\"|\"b\"", "\"c\"|\"c\"", "\"c\"|\"c\""]
        );
        let of = "SELECT b.title, a.name, e.name FROM book b JOIN author a ON a.id = b.author
                  JOIN author e ON e.id = b.editor ORDER BY 1, 2, 3";
        let each = ["a", "b", "c"].map(|name| format!("\"{name}\"|\"{name}\"|\"{name}\""));
        assert_eq!(rows(device, of), [0, 0, 1, 1, 2, 2].map(|n| each[n].clone()));
    }
}
