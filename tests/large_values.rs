//! Values larger than a frame travel in pieces.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests are tests.

mod common;
use common::*;
use packmule::{Engine, Options, Resolution, TrackOptions};

const BLOB: usize = 5 << 20;
const TEXT: usize = 1 << 20;

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut random = Random(seed);
    (0..len / 8 + 1).flat_map(|_| random.next().to_le_bytes()).take(len).collect()
}

fn letters(seed: u64, len: usize) -> String {
    noise(seed, len).iter().map(|b| char::from(b'a' + b % 26)).collect()
}

fn device(world: &World, name: &str, frame_bytes: usize) -> Engine {
    drop(world.board(name));
    Engine::open_with(&world.path(name), Options { frame_bytes, ..world.options() }).unwrap()
}

/// Whether both have the same bytes, without printing 5 MB if not.
fn same(a: &Engine, b: &Engine, query: &str) {
    assert!(rows(a, query) == rows(b, query), "{query}");
}

fn longest_frame(engine: &Engine) -> usize {
    rows(engine, "SELECT max(length(body)) FROM _pm_frame")[0].parse().unwrap()
}

/// What a seal reads in the place of a large value (`capture/ops.rs`).
const MARK: &str = "x'5D3A91C760EB4F28B6D40793CE18A25F'";

#[test]
fn a_value_that_looks_like_what_stands_for_a_large_one_arrives_as_it_is() {
    let world = World::new();
    let mut a = device(&world, "a", 16_384);
    let mut b = device(&world, "b", 16_384);
    let application = app(&a);
    application.execute_batch("CREATE TABLE t (k BLOB PRIMARY KEY, b BLOB, t TEXT)").unwrap();
    application.execute(&format!("INSERT INTO t VALUES ({MARK}, ?1, {MARK})"), [noise(1, TEXT)]).unwrap();
    a.track("t", &TrackOptions::default()).unwrap();
    carry(&mut a, &mut b);
    application
        .execute_batch(&format!(
            "INSERT INTO t VALUES ('short', {MARK}, 'x'); UPDATE t SET b = {MARK} WHERE k = {MARK}"
        ))
        .unwrap();
    carry(&mut a, &mut b);
    same(&a, &b, "SELECT hex(k), typeof(b), hex(b), hex(t) FROM t");
    assert_eq!(rows(&b, &format!("SELECT count(*) FROM t WHERE b = {MARK}")), ["2"]);
}

#[test]
fn a_large_blob_and_a_large_text_arrive_whole() {
    for (tail, frame_bytes) in [("", 16_384), ("", 65_536), (" WITHOUT ROWID", 16_384)] {
        let world = World::new();
        let mut a = device(&world, "a", frame_bytes);
        let mut b = device(&world, "b", 16_384);
        let application = app(&a);
        application
            .execute_batch(&format!("CREATE TABLE t (k TEXT PRIMARY KEY, b BLOB, t TEXT, n INT, x){tail}"))
            .unwrap();
        application
            .execute(
                "INSERT INTO t VALUES ('before', ?1, ?2, 1, 'small')",
                (noise(1, BLOB), letters(2, TEXT)),
            )
            .unwrap();
        a.track("t", &TrackOptions::default()).unwrap();
        carry(&mut a, &mut b);
        same(&a, &b, "SELECT * FROM t");
        // As an update, in columns without affinity, and next to others in one row.
        application
            .execute(
                "INSERT INTO t VALUES ('all', ?1, ?2, 2, ?3)",
                (noise(3, BLOB / 4), letters(4, TEXT), noise(5, BLOB / 5)),
            )
            .unwrap();
        application.execute("UPDATE t SET x = ?1, b = NULL WHERE k = 'before'", [letters(6, TEXT)]).unwrap();
        let report = a.seal().unwrap();
        assert_eq!(report.ops, 2);
        assert!(longest_frame(&a) <= frame_bytes, "{}", longest_frame(&a));
        carry(&mut a, &mut b);
        same(&a, &b, "SELECT k, typeof(b), typeof(t), typeof(x), b, t, n, x FROM t ORDER BY k");
        digests_equal(&[&a, &b]);
        // Stored once: the log is little more than the values.
        let log: usize = rows(&a, "SELECT sum(length(body)) FROM _pm_frame")[0].parse().unwrap();
        let values = BLOB + TEXT + BLOB / 4 + TEXT + BLOB / 5 + TEXT + TEXT;
        assert!(log < values + values / 50, "{log} for {values}");
        assert_eq!(a.verify().unwrap().problems, [""; 0]);
        assert_eq!(b.verify().unwrap().problems, [""; 0]);
    }
}

#[test]
fn the_smallest_frames_carry_a_large_value() {
    let world = World::new();
    let mut a = device(&world, "a", 1024);
    let mut b = device(&world, "b", 65_536);
    let application = app(&a);
    application.execute_batch("CREATE TABLE t (k INTEGER PRIMARY KEY, v, w)").unwrap();
    a.track("t", &TrackOptions::default()).unwrap();
    // Around every border: nothing, a quarter of a frame, a frame, some frames.
    for (k, len) in
        (0..1100).step_by(37).chain([255, 256, 257, 1000, 1020, 1024, 2048, 5000, 300_000]).enumerate()
    {
        application
            .execute(
                "INSERT INTO t VALUES (?1, ?2, ?3)",
                (k, noise(k as u64, len), letters(k as u64, len / 2)),
            )
            .unwrap();
    }
    a.seal().unwrap();
    assert!(longest_frame(&a) <= 1024);
    carry(&mut a, &mut b);
    same(&a, &b, "SELECT * FROM t");
    // Back again through large frames: each value shorter by one.
    sql(&b, "UPDATE t SET v = substr(v, 2), w = w || w");
    carry(&mut b, &mut a);
    same(&a, &b, "SELECT * FROM t");
    digests_equal(&[&a, &b]);
    for (text, bad) in [("too small", 1023), ("too large", 65_537)] {
        assert!(
            Engine::open_with(a.path(), Options { frame_bytes: bad, ..world.options() }).is_err(),
            "{text}"
        );
    }
}

#[test]
fn a_wide_row_fits_by_its_values_going_in_pieces() {
    let world = World::new();
    for frame_bytes in [1024, 16_384] {
        let name = format!("a{frame_bytes}");
        let mut a = device(&world, &name, frame_bytes);
        let mut b = world.board(&format!("b{frame_bytes}"));
        // Each value is too small to be large, all together are too large for a frame.
        let n = if frame_bytes == 1024 { 12 } else { 300 };
        let columns: Vec<String> = (0..n).map(|c| format!("c{c}")).collect();
        sql(&a, &format!("CREATE TABLE t (k TEXT PRIMARY KEY, {}, last INTEGER)", columns.join(", ")));
        a.track("t", &TrackOptions::default()).unwrap();
        let values: Vec<String> = (0..n).map(|c| format!("'{}'", letters(c as u64, 200 + c % 50))).collect();
        sql(
            &a,
            &format!(
                "INSERT INTO t VALUES ('wide', {}, 7); INSERT INTO t (k, last) VALUES ('narrow', 1)",
                values.join(", ")
            ),
        );
        carry(&mut a, &mut b);
        same(&a, &b, "SELECT * FROM t ORDER BY k");
        sql(&a, "UPDATE t SET last = 8");
        carry(&mut a, &mut b);
        same(&a, &b, "SELECT * FROM t ORDER BY k");
        digests_equal(&[&a, &b]);
        assert!(longest_frame(&a) <= frame_bytes);
    }
}

#[test]
fn large_text_in_a_column_of_numbers_and_under_a_unique_index() {
    let world = World::new();
    let mut a = device(&world, "a", 4096);
    let mut b = world.board("b");
    let application = app(&a);
    application
        .execute_batch("CREATE TABLE t (k TEXT PRIMARY KEY, i INTEGER, r REAL, u BLOB UNIQUE)")
        .unwrap();
    a.track("t", &TrackOptions::default()).unwrap();
    application
        .execute(
            "INSERT INTO t VALUES ('a', ?1, ?2, ?3)",
            (letters(1, 20_000), noise(2, 30_000), noise(3, 40_000)),
        )
        .unwrap();
    a.seal().unwrap();
    application.execute("INSERT OR REPLACE INTO t VALUES ('b', 1, 2, ?1)", [noise(3, 40_000)]).unwrap();
    carry(&mut a, &mut b);
    same(&a, &b, "SELECT k, typeof(i), typeof(r), i, r, u FROM t");
    assert_eq!(rows(&b, "SELECT k FROM t"), ["\"b\""]);
}

#[test]
fn large_values_in_conflict_are_kept_and_resolved() {
    let world = World::new();
    let mut a = device(&world, "a", 16_384);
    let mut b = device(&world, "b", 2048);
    sql(&a, "CREATE TABLE t (k TEXT PRIMARY KEY, v); INSERT INTO t VALUES ('x', 0)");
    a.track("t", &TrackOptions::default()).unwrap();
    carry(&mut a, &mut b);
    app(&a).execute("UPDATE t SET v = ?1", [noise(1, 200_000)]).unwrap();
    a.seal().unwrap();
    world.tick(1);
    app(&b).execute("UPDATE t SET v = ?1", [noise(2, 300_000)]).unwrap();
    carry_all(&mut [&mut a, &mut b]);
    digests_equal(&[&a, &b]);
    let conflict = a.conflicts().unwrap().remove(0);
    let told = &conflict.versions[1].values[1].1;
    assert!(matches!(told, packmule::OwnedValue::Large { text: false, bytes: 200_000, .. }), "{told:?}");
    b.resolve(&conflict.id, &Resolution::Take(a.identity().id)).unwrap();
    carry(&mut b, &mut a);
    digests_equal(&[&a, &b]);
    assert!(rows(&b, "SELECT v FROM t") == vec![format!("{:02x?}", noise(1, 200_000))]);
    // The same large value written on both, cut into other pieces, is one version.
    for engine in [&a, &b] {
        app(engine).execute("UPDATE t SET v = ?1", [noise(9, 100_000)]).unwrap();
    }
    carry_all(&mut [&mut a, &mut b]);
    assert!(a.conflicts().unwrap().is_empty());
    digests_equal(&[&a, &b]);
}

#[test]
fn large_values_of_per_device_tables_are_gathered() {
    let world = World::new();
    let mut a = device(&world, "a", 8192);
    let mut base = world.base("base");
    let application = app(&a);
    application
        .execute_batch("CREATE TABLE photo (id INTEGER PRIMARY KEY AUTOINCREMENT, jpeg BLOB, note TEXT)")
        .unwrap();
    a.track("photo", &append()).unwrap();
    for n in 0..3 {
        application
            .execute(
                "INSERT INTO photo (jpeg, note) VALUES (?1, ?2)",
                (noise(n, 500_000), letters(n, 20_000)),
            )
            .unwrap();
    }
    carry(&mut a, &mut base);
    same(&a, &base, "SELECT id, jpeg, note FROM photo ORDER BY id");
}

#[test]
fn rows_that_code_well_fill_their_frames_with_more() {
    let frames =
        |engine: &Engine| rows(engine, "SELECT count(*) FROM _pm_frame")[0].parse::<usize>().unwrap();
    let world = World::new();
    for (what, text) in [("even", "'the same in every row'"), ("noise", "hex(randomblob(20))")] {
        let mut a = device(&world, what, 4_096);
        sql(&a, "CREATE TABLE t (k INTEGER PRIMARY KEY, v TEXT)");
        a.track("t", &TrackOptions::default()).unwrap();
        a.seal().unwrap();
        let before = frames(&a);
        let fill = format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) INSERT INTO t SELECT NULL, {text} FROM n"
        );
        sql(&a, &fill);
        a.seal().unwrap();
        let count = frames(&a) - before;
        println!("{what}: {count} frames");
        assert!(longest_frame(&a) <= 4_096, "{}", longest_frame(&a));
        // What a row has before it is coded, and three bytes of the op. Digits of noise cost half of what they are.
        let plain = 2_000 * if what == "even" { 27 } else { 46 };
        let most = if what == "even" { 16_384 } else { 8_192 };
        assert!(count <= plain / most + 3, "{count} frames");
        // The next seal begins as the last one ended.
        sql(&a, &fill);
        a.seal().unwrap();
        assert!(frames(&a) - before - count <= count, "{} frames", frames(&a) - before - count);
    }
}

/// A definition that stands in a frame after a row is not known yet when the row is applied: the row's large value was looked for
/// in the whole frame, and the group set aside at whoever had not heard of the second table.
#[test]
fn tables_that_begin_in_the_frame_in_which_a_large_value_ends_arrive() {
    for len in [17_000, TEXT] {
        let world = World::new();
        let mut a = device(&world, "a", 16_384);
        let mut b = device(&world, "b", 16_384);
        let application = app(&a);
        application.execute_batch("CREATE TABLE photos (k TEXT PRIMARY KEY, b, t TEXT)").unwrap();
        application.execute_batch("CREATE TABLE words (k TEXT PRIMARY KEY, v)").unwrap();
        let (blob, text) = (noise(1, len), letters(2, len));
        application.execute("INSERT INTO photos VALUES ('one', ?1, ?2)", (blob, text)).unwrap();
        application.execute_batch("INSERT INTO words VALUES ('a', 1)").unwrap();
        let options = TrackOptions::default();
        a.track_all(&["photos", "words"], &options).unwrap();
        assert_eq!(rows(&a, "SELECT count(*) FROM _pm_group"), ["1"]);
        let report = carry(&mut a, &mut b);
        assert_eq!((report.ops, &report.waits[..]), (2, &[][..]));
        same(&a, &b, "SELECT k, hex(b), t FROM photos");
        digests_equal(&[&a, &b]);
    }
}
