//! The application's own triggers, for rows that come from others: what is derived from them follows,
//! nothing is written twice, and no trigger stands in the way of a row.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod common;
#[path = "triggers/indexes.rs"]
mod indexes;
use common::*;
use indexes::{EXTERNAL, index_is_right};
use packmule::{Engine, Resolution, TrackOptions};

const DOCS: &str = "CREATE TABLE docs (id INTEGER PRIMARY KEY, title TEXT, body TEXT, tag TEXT UNIQUE)";

/// Two boards with the table `docs`; the second one with this of its own.
fn two(own: &str) -> (World, Engine, Engine) {
    let world = World::new();
    let mut a = world.board_with("a", DOCS, &["docs"]);
    let mut b = world.board("b");
    carry(&mut a, &mut b);
    sql(&b, own);
    (world, a, b)
}

fn notices(engine: &Engine) -> Vec<String> {
    engine.status().unwrap().notices.into_iter().map(|notice| notice.text).collect()
}

/// Nothing that was applied was noted as written here, and nothing of ours is left behind.
fn nothing_leaked(engine: &mut Engine) {
    for table in engine.status().unwrap().tables {
        assert_eq!(table.unsealed, 0, "{}", table.name);
    }
    assert_eq!(engine.seal().unwrap().frames, 0);
    let left = rows(engine, "SELECT name FROM sqlite_schema WHERE name LIKE '\\_pm\\_local%' ESCAPE '\\'");
    assert!(left.is_empty(), "{left:?}");
}

/// Two documents with one tag meet. The claim of `a` is the earlier one: the row of `b` must make room, and comes back.
fn one_makes_room(a: &mut Engine, b: &mut Engine) {
    sql(a, "INSERT INTO docs VALUES (1, 'red', 'one', 'x')");
    a.seal().unwrap();
    sql(b, "INSERT INTO docs VALUES (7, 'blue', 'two', 'y')");
    b.seal().unwrap();
    sql(b, "INSERT INTO docs VALUES (2, 'green', 'one two', 'x')");
    carry_all(&mut [a, b]);
    digests_equal(&[a, b]);
}

/// A trigger anywhere in the database, also on a table that takes no part.
#[test]
fn a_row_that_must_make_room_is_kept_whatever_triggers_there_are() {
    let marks = "CREATE TABLE marks (id INTEGER PRIMARY KEY, doc INT)";
    let seen = "CREATE TABLE seen (id); CREATE TRIGGER saw AFTER UPDATE ON {} BEGIN INSERT INTO seen VALUES (NEW.id); END";
    for on in ["docs", "marks"] {
        let world = World::new();
        let mut a = world.board_with("a", &format!("{DOCS}; {marks}"), &["docs", "marks"]);
        let mut b = world.board("b");
        carry(&mut a, &mut b);
        sql(&b, &seen.replace("{}", on));
        one_makes_room(&mut a, &mut b);
        for engine in [&a, &b] {
            assert_eq!(rows(engine, "SELECT id FROM docs ORDER BY 1"), ["1", "7"], "{on}");
            assert_eq!(engine.conflicts().unwrap().len(), 1, "{on}: the row that made room is listed");
        }
        sql(&a, "DELETE FROM docs WHERE id = 1");
        carry_all(&mut [&mut a, &mut b]);
        digests_equal(&[&a, &b]);
        assert_eq!(rows(&b, "SELECT id FROM docs ORDER BY 1"), ["2", "7"], "{on}");
        nothing_leaked(&mut b);
    }
}

const COUNTERS: &str = "
    CREATE TABLE counts (what TEXT PRIMARY KEY, n INTEGER DEFAULT 0);
    INSERT INTO counts (what) VALUES ('rows'), ('updates of title'), ('updates');
    CREATE TRIGGER ci BEFORE INSERT ON docs BEGIN UPDATE counts SET n = n + 1 WHERE what = 'rows'; END;
    CREATE TRIGGER cd AFTER DELETE ON docs BEGIN UPDATE counts SET n = n - 1 WHERE what = 'rows'; END;
    CREATE TRIGGER ct AFTER UPDATE OF title ON docs BEGIN UPDATE counts SET n = n + 1 WHERE what = 'updates of title'; END;
    CREATE TRIGGER cu AFTER UPDATE ON docs BEGIN UPDATE counts SET n = n + 1 WHERE what = 'updates'; END;";

#[test]
fn counters_count_what_an_application_would_have_counted() {
    let (_world, mut a, mut b) = two(COUNTERS);
    sql(&a, "INSERT INTO docs VALUES (1, 'red', 'one', 'x'), (2, 'green', 'two', 'y')");
    carry(&mut a, &mut b);
    sql(&a, "UPDATE docs SET body = 'three' WHERE id = 1");
    carry(&mut a, &mut b);
    sql(&a, "UPDATE docs SET title = 'blue' WHERE id = 1; DELETE FROM docs WHERE id = 2");
    let bytes = bundle(&mut a, &b);
    for _ in 0..3 {
        import(&mut b, &bytes);
    }
    let counts = || rows(&b, "SELECT what, n FROM counts ORDER BY 1");
    assert_eq!(counts(), ["\"rows\"|1", "\"updates\"|2", "\"updates of title\"|1"]);
    // A contested row is taken out and put back, which is as if nothing had been.
    sql(&a, "UPDATE docs SET body = 'a' WHERE id = 1");
    sql(&b, "UPDATE docs SET body = 'b' WHERE id = 1");
    carry_all(&mut [&mut a, &mut b]);
    assert_eq!(rows(&b, "SELECT n FROM counts WHERE what = 'rows'"), ["1"]);
    nothing_leaked(&mut b);
}

#[test]
fn what_writes_tracked_tables_does_not_run() {
    let world = World::new();
    let schema = "CREATE TABLE docs (id INTEGER PRIMARY KEY, title TEXT);
        CREATE TABLE log (id TEXT PRIMARY KEY DEFAULT (hex(randomblob(8))), what TEXT);
        CREATE TABLE queue (n INTEGER PRIMARY KEY, what TEXT);
        CREATE TABLE own (n INTEGER PRIMARY KEY, what TEXT);
        CREATE TRIGGER t1 AFTER INSERT ON docs BEGIN INSERT INTO log (what) VALUES ('direct ' || new.title); END;
        CREATE TRIGGER t2 AFTER INSERT ON docs BEGIN INSERT INTO queue (what) VALUES (new.title); END;
        CREATE TRIGGER t3 AFTER INSERT ON queue BEGIN INSERT INTO log (what) VALUES ('through ' || new.what); END;
        CREATE TRIGGER t4 AFTER INSERT ON docs BEGIN
          INSERT INTO queue (what) VALUES ('both'); INSERT INTO log (what) VALUES ('both'); END;
        CREATE TRIGGER t5 AFTER INSERT ON docs BEGIN INSERT INTO own (what) VALUES (new.title); END;";
    let mut boards: Vec<Engine> = ["a", "b"]
        .iter()
        .map(|name| {
            let mut board = world.board_with(name, schema, &["docs", "log"]);
            board.track("own", &per_device()).unwrap();
            board
        })
        .collect();
    let [a, b] = &mut boards[..] else { unreachable!() };
    sql(a, "INSERT INTO docs VALUES (1, 'red')");
    assert_eq!(rows(a, "SELECT count(*) FROM log"), ["4"]);
    carry_all(&mut [a, b]);
    digests_equal(&[a, b]);
    // What is local follows; what it set off in tracked tables came by itself, and once.
    assert_eq!(rows(b, "SELECT what FROM queue"), ["\"red\""]);
    assert_eq!(rows(b, "SELECT count(*) FROM log"), ["4"]);
    assert_eq!(rows(b, "SELECT count(*) FROM own"), ["0"]);
    assert_eq!(notices(b), [""; 0]);
    nothing_leaked(b);
}

#[test]
fn triggers_of_untracked_tables_run_on() {
    let (_world, mut a, mut b) = two(
        "CREATE TABLE one (id INTEGER PRIMARY KEY, title TEXT);
         CREATE TABLE \"two \"\"2\" (id INTEGER PRIMARY KEY, title TEXT, touched INTEGER DEFAULT 0);
         CREATE TRIGGER \"first 1\" AFTER INSERT ON docs BEGIN INSERT INTO one VALUES (new.id, new.title); END;
         CREATE TRIGGER [second;] AFTER INSERT ON one BEGIN INSERT INTO \"two \"\"2\" (id, title) VALUES (new.id, new.title); END;
         CREATE TRIGGER touch AFTER INSERT ON \"two \"\"2\" BEGIN UPDATE \"two \"\"2\" SET touched = touched + 1 WHERE id = new.id; END;
         -- With recursive triggers, this one would go on for ever.
         CREATE TRIGGER again AFTER UPDATE ON \"two \"\"2\" BEGIN UPDATE \"two \"\"2\" SET touched = touched + 1 WHERE id = new.id; END;
         -- With recursive triggers, this one would run for rows that a REPLACE removes.
         CREATE TABLE last (k INTEGER PRIMARY KEY, title TEXT);
         CREATE TABLE gone (title TEXT);
         CREATE TRIGGER l AFTER INSERT ON docs BEGIN INSERT OR REPLACE INTO last VALUES (1, new.title); END;
         CREATE TRIGGER g AFTER DELETE ON last BEGIN INSERT INTO gone VALUES (old.title); END;",
    );
    sql(&a, "INSERT INTO docs VALUES (1, 'red', '', NULL), (2, 'blue', '', NULL)");
    carry(&mut a, &mut b);
    assert_eq!(rows(&b, "SELECT * FROM \"two \"\"2\""), ["1|\"red\"|2", "2|\"blue\"|2"]);
    assert_eq!(rows(&b, "SELECT title FROM last"), ["\"blue\""]);
    assert_eq!(rows(&b, "SELECT count(*) FROM gone"), ["0"]);
    // Evicting a row takes recursive triggers, for a moment.
    sql(&b, "INSERT INTO docs VALUES (9, 'b', '', 'x')");
    b.seal().unwrap();
    sql(&a, "INSERT INTO docs VALUES (3, 'a', '', 'x')");
    a.seal().unwrap();
    sql(&a, "INSERT INTO docs VALUES (4, 'a', '', 'y')");
    carry_all(&mut [&mut a, &mut b]);
    digests_equal(&[&a, &b]);
    assert_eq!(rows(&b, "SELECT count(*) FROM gone"), ["0"]);
    assert_eq!(rows(&b, "SELECT max(touched) FROM \"two \"\"2\""), ["2"]);
    assert_eq!(notices(&b), [""; 0]);
    nothing_leaked(&mut b);
}

#[test]
fn a_failing_trigger_is_named_and_skipped() {
    let (_world, mut a, mut b) = two("CREATE TABLE seen (id INTEGER);
         CREATE TABLE small (n INTEGER CHECK (n < 10), u UNIQUE);
         CREATE TRIGGER good AFTER INSERT ON docs BEGIN INSERT INTO seen VALUES (new.id); END;
         CREATE TRIGGER fussy AFTER INSERT ON docs BEGIN
           INSERT INTO small (n) VALUES (1);
           SELECT RAISE(ABORT, 'no red here') WHERE new.title = 'red';
         END;
         CREATE TRIGGER tight AFTER UPDATE ON docs BEGIN INSERT INTO small (n) VALUES (new.id); END;
         CREATE TRIGGER claims AFTER UPDATE ON docs BEGIN INSERT INTO small (u) VALUES (new.body); END;");
    sql(
        &a,
        "INSERT INTO docs VALUES (1, 'red', '', NULL), (2, 'blue', '', NULL), (3, 'red', '', NULL), (20, 'green', '', NULL)",
    );
    carry(&mut a, &mut b);
    digests_equal(&[&a, &b]);
    assert_eq!(rows(&b, "SELECT id FROM seen"), ["1", "2", "3", "20"], "the others run all the same");
    assert_eq!(rows(&b, "SELECT count(*) FROM small"), ["2"], "what it did before it failed is undone");
    let told = notices(&b);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("`fussy` of table `docs`") && told[0].ends_with("no red here"), "{told:?}");
    sql(
        &a,
        "UPDATE docs SET title = 'white', body = id WHERE id IN (2, 20); UPDATE docs SET body = 2, title = 'x' WHERE id = 3",
    );
    carry(&mut a, &mut b);
    digests_equal(&[&a, &b]);
    assert!(b.conflicts().unwrap().is_empty(), "a constraint of another table is none of this one's");
    assert_eq!(rows(&b, "SELECT n FROM small WHERE n > 1 ORDER BY n"), ["2", "3"]);
    assert_eq!(rows(&b, "SELECT u FROM small WHERE u IS NOT NULL ORDER BY u"), ["\"2\"", "\"20\""]);
    let told = notices(&b);
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told.iter().any(|n| n.contains("`tight`") && n.contains("CHECK")), "{told:?}");
    assert!(told.iter().any(|n| n.contains("`claims`") && n.contains("small.u")), "{told:?}");
    nothing_leaked(&mut b);
}

#[test]
fn what_cannot_run_is_named_and_left_out() {
    let (_world, mut a, mut b) = two(
        "CREATE TABLE seen (id INTEGER);
         CREATE VIEW v AS SELECT id FROM seen;
         CREATE TRIGGER viewed INSTEAD OF INSERT ON v BEGIN INSERT INTO seen VALUES (new.id); END;
         CREATE TRIGGER t_function AFTER INSERT ON docs BEGIN INSERT INTO seen VALUES (mine(new.id)); END;
         CREATE TRIGGER t_unsafe AFTER INSERT ON docs BEGIN INSERT INTO seen VALUES (load_extension('x')); END;
         CREATE TRIGGER t_table AFTER INSERT ON docs BEGIN INSERT INTO gone VALUES (1); END;
         CREATE TRIGGER t_view AFTER INSERT ON docs BEGIN INSERT INTO v VALUES (new.id); END;
         CREATE TRIGGER t_ignore BEFORE INSERT ON docs BEGIN
           INSERT INTO seen VALUES (0); SELECT RAISE(IGNORE) WHERE new.id = 1; END;
         CREATE TRIGGER t_rollback AFTER INSERT ON docs BEGIN
           INSERT INTO seen VALUES (0); SELECT RAISE(ROLLBACK, 'x'); END;
         CREATE TRIGGER t_or_rollback AFTER INSERT ON docs BEGIN INSERT OR ROLLBACK INTO counted VALUES (1); END;
         CREATE TRIGGER t_fail AFTER INSERT ON docs BEGIN
           INSERT INTO seen VALUES (0); SELECT RAISE(FAIL, 'x'); END;
         CREATE TABLE counted (n UNIQUE);
         -- These two only check: whoever wrote the row was checked.
         CREATE TRIGGER check1 BEFORE INSERT ON docs BEGIN SELECT RAISE(IGNORE) WHERE new.id = 1; END;
         CREATE TRIGGER check2 BEFORE INSERT ON docs BEGIN SELECT RAISE(ROLLBACK, 'no') WHERE new.id = 1; END;
         CREATE TRIGGER works AFTER INSERT ON docs BEGIN INSERT INTO seen VALUES (new.id); END;",
    );
    sql(&a, "INSERT INTO docs VALUES (1, 'red', '', NULL), (2, 'blue', '', NULL)");
    carry(&mut a, &mut b);
    digests_equal(&[&a, &b]);
    assert_eq!(rows(&b, "SELECT id FROM seen"), [""; 0], "all triggers of a table run, or none");
    let told = notices(&b);
    for (name, reason) in [
        ("t_function", "no such function: mine"),
        ("t_unsafe", "unsafe use of load_extension()"),
        ("t_table", "no such table: gone"),
        ("t_view", "cannot modify v because it is a view"),
        ("t_ignore", "IGNORE"),
        ("t_rollback", "ROLLBACK"),
        ("t_or_rollback", "ROLLBACK"),
        ("t_fail", "FAIL"),
    ] {
        let of: Vec<_> = told.iter().filter(|n| n.contains(&format!("`{name}`"))).collect();
        assert_eq!(of.len(), 1, "{name}: {told:#?}");
        assert!(of[0].contains(reason), "{name}: {of:?}");
    }
    assert_eq!(told.len(), 8, "{told:#?}");
    // Once is enough; and what works again is not named any more.
    sql(&b, "CREATE TABLE gone (n); DROP TRIGGER t_view");
    sql(&a, "INSERT INTO docs VALUES (3, 'green', '', NULL)");
    carry(&mut a, &mut b);
    let told = notices(&b);
    assert!(told.iter().all(|n| !n.contains("`t_table`")), "{told:#?}");
    assert_eq!(rows(&b, "SELECT count(*) FROM gone"), ["0"]);
    sql(
        &b,
        "DROP TRIGGER t_function; DROP TRIGGER t_unsafe; DROP TRIGGER t_ignore; DROP TRIGGER t_rollback;
         DROP TRIGGER t_or_rollback; DROP TRIGGER t_fail",
    );
    sql(&a, "INSERT INTO docs VALUES (4, 'black', '', NULL)");
    carry(&mut a, &mut b);
    assert_eq!(rows(&b, "SELECT count(*) FROM gone"), ["1"]);
    assert_eq!(rows(&b, "SELECT id FROM seen"), ["4"]);
    nothing_leaked(&mut b);
}

#[test]
fn triggers_and_tables_that_change_between_imports() {
    let (_world, mut a, mut b) = two("CREATE TABLE seen (id INTEGER PRIMARY KEY, title TEXT)");
    sql(&a, "INSERT INTO docs VALUES (1, 'red', '', NULL)");
    carry(&mut a, &mut b);
    sql(&b, "CREATE TRIGGER t AFTER INSERT ON docs BEGIN INSERT INTO seen VALUES (new.id, new.title); END");
    sql(&a, "INSERT INTO docs VALUES (2, 'blue', '', NULL)");
    carry(&mut a, &mut b);
    assert_eq!(rows(&b, "SELECT id FROM seen"), ["2"]);
    sql(&a, "ALTER TABLE docs ADD COLUMN more TEXT; INSERT INTO docs (id, title) VALUES (3, 'white')");
    carry(&mut a, &mut b);
    assert_eq!(rows(&b, "SELECT id FROM seen"), ["2", "3"]);
    sql(&b, "ALTER TABLE seen RENAME TO found");
    sql(&a, "INSERT INTO docs (id) VALUES (4)");
    carry(&mut a, &mut b);
    assert_eq!(rows(&b, "SELECT id FROM found"), ["2", "3", "4"]);
    // What it writes is tracked from now on.
    b.track("found", &TrackOptions::default()).unwrap();
    sql(&a, "INSERT INTO docs (id) VALUES (5)");
    carry(&mut a, &mut b);
    assert_eq!(rows(&b, "SELECT id FROM found"), ["2", "3", "4"]);
    nothing_leaked(&mut b);
    b.untrack("found").unwrap();
    sql(&a, "INSERT INTO docs (id) VALUES (6)");
    carry(&mut a, &mut b);
    assert_eq!(rows(&b, "SELECT max(id) FROM found"), ["6"]);
    sql(&b, "DROP TRIGGER t");
    sql(&a, "INSERT INTO docs (id) VALUES (7)");
    carry(&mut a, &mut b);
    assert_eq!(rows(&b, "SELECT max(id) FROM found"), ["6"]);
    // An import that fails leaves nothing of ours behind in the connection.
    sql(&b, "CREATE TRIGGER t AFTER INSERT ON docs BEGIN INSERT INTO found (id) VALUES (new.id); END");
    sql(&a, "INSERT INTO docs (id) VALUES (8)");
    let mut bytes = bundle(&mut a, &b);
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    assert!(try_import(&mut b, &bytes).is_err());
    carry(&mut a, &mut b);
    assert_eq!(rows(&b, "SELECT max(id) FROM found"), ["8"]);
    assert_eq!(notices(&b), [""; 0]);
}

#[test]
fn rows_that_a_base_gathers() {
    let world = World::new();
    let mut a = world.board("a");
    sql(&a, "CREATE TABLE readings (id INTEGER PRIMARY KEY AUTOINCREMENT, value REAL)");
    a.track("readings", &append()).unwrap();
    let mut base = world.base("base");
    carry(&mut a, &mut base);
    sql(
        &base,
        "CREATE TABLE latest (device TEXT PRIMARY KEY, value REAL);
         CREATE TRIGGER l AFTER INSERT ON readings BEGIN
           INSERT INTO latest VALUES (new.device, new.value) ON CONFLICT DO UPDATE SET value = excluded.value; END",
    );
    sql(&a, "INSERT INTO readings (value) VALUES (1.5), (2.5)");
    carry(&mut a, &mut base);
    assert_eq!(rows(&base, "SELECT value FROM latest"), ["2.5r"]);
    assert_eq!(rows(&base, "SELECT count(*) FROM readings"), ["2"]);
    // Gathered again, with a trigger that fails for every row.
    base.untrack("readings").unwrap();
    sql(&a, "INSERT INTO readings (value) VALUES (3.5)");
    carry(&mut a, &mut base);
    sql(&a, "INSERT INTO readings (value) VALUES (4.5)");
    carry(&mut a, &mut base);
    sql(
        &base,
        "DELETE FROM readings;
         CREATE TRIGGER fails AFTER INSERT ON readings BEGIN
           DELETE FROM latest; SELECT RAISE(ABORT, 'not today'); END",
    );
    base.track("readings", &append()).unwrap();
    assert_eq!(rows(&base, "SELECT value FROM readings ORDER BY id"), ["1.5r", "2.5r", "3.5r", "4.5r"]);
    assert_eq!(rows(&base, "SELECT value FROM latest"), ["4.5r"]);
    assert_eq!(notices(&base).iter().filter(|n| n.contains("`fails`")).count(), 1);
}

#[test]
fn large_values_that_a_trigger_reads() {
    let world = World::new();
    let mut a = world.board_with(
        "a",
        "CREATE TABLE files (name TEXT PRIMARY KEY, data BLOB, other BLOB)",
        &["files"],
    );
    let mut b = world.board("b");
    carry(&mut a, &mut b);
    sql(
        &b,
        "CREATE TABLE copies (name TEXT, data BLOB);
         CREATE TRIGGER c AFTER INSERT ON files BEGIN INSERT INTO copies VALUES (new.name, new.data); END;
         CREATE TRIGGER u AFTER UPDATE OF data ON files BEGIN UPDATE copies SET data = new.data WHERE name = new.name; END;",
    );
    sql(&a, "INSERT INTO files VALUES ('x', randomblob(100000), randomblob(100000))");
    carry(&mut a, &mut b);
    digests_equal(&[&a, &b]);
    let same = "SELECT count(*) FROM files f JOIN copies c ON f.name = c.name AND f.data = c.data AND length(c.data) = 100000";
    assert_eq!(rows(&b, same), ["1"]);
    sql(&a, "UPDATE files SET data = randomblob(100000)");
    carry(&mut a, &mut b);
    digests_equal(&[&a, &b]);
    assert_eq!(rows(&b, same), ["1"]);
    nothing_leaked(&mut b);
}

#[test]
fn keys_and_counters_that_change() {
    let world = World::new();
    let mut a = world.board("a");
    sql(&a, "CREATE TABLE stock (name TEXT COLLATE NOCASE PRIMARY KEY, n INTEGER DEFAULT 0, place TEXT)");
    let columns = vec![("n".to_owned(), packmule::ColumnMerge::Counter)];
    a.track("stock", &TrackOptions { columns, merge: packmule::Merge::Cell, ..TrackOptions::default() })
        .unwrap();
    let mut b = world.board("b");
    carry(&mut a, &mut b);
    sql(
        &b,
        "CREATE TABLE mirror (name TEXT COLLATE NOCASE PRIMARY KEY, n INTEGER, place TEXT);
         CREATE TRIGGER i AFTER INSERT ON stock BEGIN INSERT INTO mirror VALUES (new.name, new.n, new.place); END;
         CREATE TRIGGER d AFTER DELETE ON stock BEGIN DELETE FROM mirror WHERE name = old.name; END;
         CREATE TRIGGER u AFTER UPDATE ON stock BEGIN UPDATE mirror SET name = new.name, n = new.n, place = new.place WHERE name = old.name; END;",
    );
    let same = |b: &Engine| {
        assert_eq!(rows(b, "SELECT * FROM mirror ORDER BY 1"), rows(b, "SELECT * FROM stock ORDER BY 1"))
    };
    sql(&a, "INSERT INTO stock VALUES ('bolts', 10, 'shed'), ('nuts', 5, 'barn')");
    carry(&mut a, &mut b);
    same(&b);
    sql(&a, "UPDATE stock SET n = n + 7; UPDATE stock SET name = 'BOLTS' WHERE name = 'bolts'");
    sql(&b, "UPDATE stock SET n = n - 2, place = 'roof'");
    carry_all(&mut [&mut a, &mut b]);
    digests_equal(&[&a, &b]);
    same(&b);
    assert_eq!(rows(&b, "SELECT n FROM stock ORDER BY 1"), ["10", "15"]);
    sql(&a, "DELETE FROM stock WHERE name = 'nuts'");
    sql(&b, "UPDATE stock SET n = n + 1");
    carry_all(&mut [&mut a, &mut b]);
    digests_equal(&[&a, &b]);
    same(&b);
    assert_eq!(notices(&b), [""; 0]);
    nothing_leaked(&mut b);
}

#[test]
fn starting_from_a_snapshot() {
    let schema = format!(
        "{DOCS};
         CREATE TABLE own (n INTEGER PRIMARY KEY, what TEXT);
         CREATE TABLE log (k TEXT PRIMARY KEY DEFAULT (hex(randomblob(8))), what TEXT);
         CREATE TRIGGER o AFTER INSERT ON docs BEGIN INSERT INTO own (what) VALUES (new.title); END;
         CREATE TRIGGER l AFTER INSERT ON docs BEGIN INSERT INTO log (what) VALUES (new.title); END;
         CREATE TRIGGER x AFTER DELETE ON docs BEGIN INSERT INTO log (what) VALUES (old.title); END;"
    );
    let world = World::new();
    let mut a = world.board_with("a", &schema, &["docs", "log"]);
    let mut b = world.board_with("b", &schema, &["docs", "log"]);
    b.track("own", &per_device()).unwrap();
    sql(&b, EXTERNAL);
    sql(&a, "INSERT INTO docs VALUES (1, 'red', 'one', 'x'), (2, 'green', 'two', 'y')");
    sql(&b, "INSERT INTO docs VALUES (3, 'blue', 'three', 'z')");
    // A table that was not tracked waits until it is.
    let plain = world.path("plain");
    open(&plain)
        .execute_batch(&format!("{schema} {EXTERNAL} INSERT INTO docs VALUES (4, 'red', 'three', 'p')"))
        .unwrap();
    let mut snapshot = Vec::new();
    a.snapshot(&mut snapshot).unwrap();
    let path = b.path().to_owned();
    drop(b);
    for (path, expected, logged) in [(path, 3, 1), (plain, 3, 1)] {
        let join = packmule::JoinOptions { name: Some("b"), fleet: Some(&world.fleet) };
        let mut read = std::io::Cursor::new(&snapshot);
        let (mut b, _) = Engine::join(&path, &mut read, &join, world.options()).unwrap();
        b.track_all(&["docs", "log"], &packmule::TrackOptions::default()).unwrap();
        assert_eq!(rows(&b, "SELECT count(*) FROM docs"), [expected.to_string()]);
        index_is_right(&b, true);
        // Its own logged row, and those of the snapshot: none that a trigger wrote just now.
        assert_eq!(rows(&b, "SELECT count(*) FROM log"), [(2 + logged).to_string()]);
        carry_all(&mut [&mut a, &mut b]);
        digests_equal(&[&a, &b]);
        assert_eq!(notices(&b), [""; 0]);
        nothing_leaked(&mut b);
    }
}

/// Rows that are the same on both sides already, at their first meeting: nothing is written, and nothing fires.
#[test]
fn equal_rows_fire_nothing() {
    const FIRED: &str = "CREATE TABLE fired (what);
        CREATE TRIGGER fi AFTER INSERT ON docs BEGIN INSERT INTO fired VALUES ('insert'); END;
        CREATE TRIGGER fu AFTER UPDATE ON docs BEGIN INSERT INTO fired VALUES ('update'); END;
        CREATE TRIGGER fd AFTER DELETE ON docs BEGIN INSERT INTO fired VALUES ('delete'); END;";
    let (_world, mut a, mut b) = two(FIRED);
    sql(&a, FIRED);
    for engine in [&a, &b] {
        sql(engine, "INSERT INTO docs VALUES (1, 'red', '', x'00'), (2, 'blue', '', 1.5); DELETE FROM fired");
    }
    carry_all(&mut [&mut a, &mut b]);
    digests_equal(&[&a, &b]);
    for engine in [&a, &b] {
        assert_eq!(rows(engine, "SELECT * FROM fired"), [""; 0]);
    }
    // The control: one that differs is written.
    sql(&a, "UPDATE docs SET title = 'green' WHERE id = 1");
    carry_all(&mut [&mut a, &mut b]);
    assert_eq!(rows(&b, "SELECT * FROM fired"), ["\"update\""]);
}
