//! Promise 9: memory is set by a budget, not by the size of a BLOB, of a conflict, or by how many conflicts are open, nor by how
//! many rows wait while their table is held.
//!
//! An allocator counts what the library takes, and SQLite counts what it takes itself. Of that, its page cache is the
//! budget that was given. Alone in its program, in one test, since both count for all of a program.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests are tests.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use common::*;
use packmule::carry::card;
use packmule::carry::volume::Directory;
use packmule::{Engine, InitOptions, Options, Recipient, Resolution, Selection, TrackOptions};

/// The system's allocator, counted.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

fn more(bytes: usize) {
    let now = NOW.fetch_add(bytes, Ordering::Relaxed) + bytes;
    MOST.fetch_max(now, Ordering::Relaxed);
}

// SAFETY: every call goes on to the system's allocator as it is; the counts are apart from that.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        more(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The page cache of the devices here, and what is allowed beside it.
const CACHE_KIB: u32 = 512;
const ALLOWED: usize = 1 << 20;

/// What a piece of work took at its highest: the library's own, and SQLite's beside its page cache.
fn taken<R>(what: &str, work: impl FnOnce() -> R) -> ([usize; 2], R) {
    sqlite_memory(true);
    let start = (NOW.load(Ordering::Relaxed), sqlite_memory(false).0);
    MOST.store(start.0, Ordering::Relaxed);
    let result = work();
    let own = MOST.load(Ordering::Relaxed) - start.0;
    let sqlite = sqlite_memory(false).1.saturating_sub(start.1);
    let beside = sqlite.saturating_sub(CACHE_KIB as usize * 1024);
    let room = ALLOWED.saturating_sub(own + beside) >> 10;
    println!(
        "{what:>24}: {:>6} KiB of our own, {:>6} KiB of SQLite's, {room:>6} KiB of room",
        own >> 10,
        sqlite >> 10
    );
    ([own, beside], result)
}

/// Does a piece of work, which must stay within what is allowed.
fn within<R>(what: &str, allowed: usize, work: impl FnOnce() -> R) -> R {
    let (bytes, result) = taken(what, work);
    let bytes: usize = bytes.iter().sum();
    assert!(bytes <= allowed, "{what}: {bytes} bytes beside the page cache, {allowed} are allowed");
    result
}

fn device(world: &World, name: &str) -> Engine {
    drop(if name == "base" { world.base(name) } else { world.board(name) });
    Engine::open_with(&world.path(name), Options { cache_kib: CACHE_KIB, ..world.options() }).unwrap()
}

/// Every command that looks at a database or sends from it, within what is allowed.
fn every_command(world: &World, of: &mut Engine, allowed: usize) {
    let path = world.dir.path().join("out");
    within("status", allowed, || of.status().unwrap());
    within("conflicts", allowed, || of.each_conflict(&mut |_| Ok(())).unwrap());
    within("digest", allowed, || of.digest(false).unwrap());
    within("log", allowed, || of.log(None, &[], &mut |_| Ok(())).unwrap());
    within("devices", allowed, || of.devices().unwrap());
    within("verify", allowed, || of.verify().unwrap());
    let mut file = std::fs::File::create(&path).unwrap();
    within("export", allowed, || of.export(&mut file, Recipient::Anyone).unwrap());
    let file = std::fs::File::open(&path).unwrap();
    within("inspect", allowed, || packmule::inspect(std::io::BufReader::new(file)).unwrap());
    within("compact", allowed, || of.compact().unwrap());
    let mut file = std::fs::File::create(&path).unwrap();
    within("snapshot", allowed, || of.snapshot(&mut file).unwrap());
}

/// What else people and carriers do with a database, within what is allowed.
fn all_else(world: &World, of: &mut Engine, peer: &mut Engine, allowed: usize) {
    let (path, newcomer) = (world.dir.path().join("other"), format!("new-{}", of.identity().name));
    let since = |rehearsed: &mut Engine, by| {
        let every = &mut |_: &str, _| Ok(());
        rehearsed.take_back_writes(by, 0, true, every).unwrap()
    };
    let by = peer.identity().id;
    within("take back, rehearsed", allowed, || since(of, by));
    within("resolve all, rehearsed", allowed, || {
        of.rehearse(&Selection::default(), &Resolution::Newest, &mut |_| Ok(())).unwrap()
    });
    within("at", allowed, || of.at(i64::MAX, &path).unwrap());
    std::fs::remove_file(&path).unwrap();

    // Encrypted to the fleet; under a passphrase the key takes 12 MiB, which the page of security says.
    let readers = of.fleet_readers().unwrap();
    let file = std::fs::File::create(&path).unwrap();
    within("export, encrypted", allowed, || {
        let mut out = packmule::Encrypting::new(std::io::BufWriter::new(file), &readers).unwrap();
        of.export(&mut out, Recipient::Anyone).unwrap();
        out.finish().unwrap();
    });
    let file = std::fs::File::open(&path).unwrap();
    within("import, encrypted", allowed, || {
        let mut bundle = peer.open_bundle(std::io::BufReader::new(file), None).unwrap();
        peer.import(&mut bundle, &mut |_| ()).unwrap()
    });

    let card = world.dir.path().join(format!("card of {newcomer}"));
    std::fs::create_dir(&card).unwrap();
    for encrypted in [false, true] {
        for _ in 0..2 {
            for device in [&mut *of, &mut *peer] {
                let mut directory = Directory::open(&card).unwrap();
                let mut report = card::Exchange::default();
                let exchange = if encrypted { card::exchange_encrypted } else { card::exchange };
                let what = if encrypted { "exchange, encrypted" } else { "exchange" };
                within(what, allowed, || {
                    let limits = card::Limits::default();
                    exchange(device, &mut directory, &limits, &mut |_, _| (), &mut report).unwrap();
                });
            }
        }
    }

    // Who comes new gets the state: what is folded is nowhere else.
    within("compact", allowed, || of.compact().unwrap());
    let mut new = device(world, &newcomer);
    carry_by_file(world, of, &mut new, allowed);
    assert_eq!(new.digest(false).unwrap(), of.digest(false).unwrap());
    let from = of.path().to_owned();
    within("merge", allowed, || peer.import_database(&from, &mut |_| ()).unwrap());
}

/// One row of many columns, of which one is written again and again.
fn many_versions_of_a_row() {
    let world = World::new();
    let (mut a, mut b) = (device(&world, "a"), device(&world, "b"));
    sql(&a, "CREATE TABLE t (k INTEGER PRIMARY KEY, v TEXT, other TEXT)");
    a.track("t", &TrackOptions { merge: packmule::Merge::Cell, ..TrackOptions::default() }).unwrap();
    sql(&a, "INSERT INTO t VALUES (1, 'first', 'other')");
    a.seal().unwrap();
    for n in 0..400 {
        sql(&a, &format!("UPDATE t SET v = printf('%d %.*c', {n}, 3000, 'x')"));
        a.seal().unwrap();
    }
    carry_by_file(&world, &mut a, &mut b, ALLOWED);
    every_command(&world, &mut a, ALLOWED);
    let by = a.identity().id;
    within("take back, rehearsed", ALLOWED, || {
        b.take_back_writes(by, 0, true, &mut |_: &str, _| Ok(())).unwrap()
    });
    let restored = b.restore("t", &[packmule::OwnedValue::Int(1)], (by, 3), false);
    within("restore", ALLOWED, || restored.unwrap().unwrap());
    all_else(&world, &mut b, &mut a, ALLOWED);
}

/// Carries by a file, so that the bundle is not in memory.
fn carry_by_file(world: &World, from: &mut Engine, to: &mut Engine, allowed: usize) {
    let path = world.dir.path().join("bundle");
    let mut file = std::fs::File::create(&path).unwrap();
    let recipient = Recipient::Device(to.identity().id);
    within("seal and export", allowed, || from.export(&mut file, recipient).unwrap());
    let mut file = std::fs::File::open(&path).unwrap();
    within("import", allowed, || to.import(&mut file, &mut |_| ()).unwrap());
}

/// Two devices change a large BLOB of one row; then somebody decides. `PACKMULE_BLOB=N`: so many bytes.
fn a_conflict_of_a_large_blob() {
    let large = std::env::var("PACKMULE_BLOB").map_or(3_000_000, |n| n.parse::<usize>().unwrap());
    let world = World::new();
    let (mut a, mut b) = (device(&world, "a"), device(&world, "b"));
    for of in [&a, &b] {
        sql(of, "CREATE TABLE t (k INTEGER PRIMARY KEY, note TEXT, v BLOB)");
    }
    a.track("t", &TrackOptions::default()).unwrap();
    b.track("t", &TrackOptions::default()).unwrap();
    sql(&a, &format!("INSERT INTO t VALUES (1, 'a', zeroblob({large}))"));
    world.tick(10);
    sql(&b, &format!("INSERT INTO t VALUES (1, 'b', CAST(zeroblob({large}) || 'b' AS BLOB))"));
    carry_by_file(&world, &mut a, &mut b, ALLOWED);
    carry_by_file(&world, &mut b, &mut a, ALLOWED);
    assert_eq!(a.digest(false).unwrap(), b.digest(false).unwrap());
    assert_eq!(a.conflicts().unwrap().len(), 1);
    assert_eq!(a.conflicts().unwrap(), b.conflicts().unwrap());
    assert_eq!(
        rows(&a, "SELECT note, octet_length(v) FROM t"),
        rows(&b, "SELECT note, octet_length(v) FROM t")
    );
    println!("{:?}", a.conflicts().unwrap()[0].versions);
    every_command(&world, &mut b, ALLOWED);
    all_else(&world, &mut b, &mut a, ALLOWED);
    let id = b.conflicts().unwrap()[0].id.clone();
    let mine = Resolution::Take(b.identity().id);
    within("resolve", ALLOWED, || b.resolve(&id, &mine).unwrap());
    carry_by_file(&world, &mut b, &mut a, ALLOWED);
    assert!(a.conflicts().unwrap().is_empty());
    every_command(&world, &mut a, ALLOWED);
}

/// Thousands of rows that two devices made under one key.
fn many_open_conflicts(n: u32) {
    let world = World::new();
    let (mut a, mut b) = (device(&world, "a"), device(&world, "b"));
    for of in [&mut a, &mut b] {
        sql(of, "CREATE TABLE t (k INTEGER PRIMARY KEY, v TEXT)");
        of.track("t", &TrackOptions::default()).unwrap();
    }
    for (of, word) in [(&a, "a"), (&b, "b")] {
        sql(
            of,
            &format!(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {n})
                 INSERT INTO t SELECT i, '{word} ' || i FROM n"
            ),
        );
    }
    carry_by_file(&world, &mut a, &mut b, ALLOWED);
    carry_by_file(&world, &mut b, &mut a, ALLOWED);
    assert_eq!(b.status().unwrap().conflicts, u64::from(n));
    assert_eq!(a.digest(false).unwrap(), b.digest(false).unwrap());
    every_command(&world, &mut b, ALLOWED);
    all_else(&world, &mut b, &mut a, ALLOWED);
    let mut ids = Vec::new();
    b.each_conflict(&mut |conflict| {
        ids.push(conflict.id);
        Ok(())
    })
    .unwrap();
    within("resolve", ALLOWED, || b.resolve(&ids[ids.len() / 2], &Resolution::Delete).unwrap());
    // The control: who keeps all of them in memory is found out.
    let (bytes, _) = taken("all in memory", || b.conflicts().unwrap());
    assert!(bytes.iter().sum::<usize>() > ALLOWED, "{bytes:?}");
    sql(&b, "UPDATE packmule_conflicts SET take = 'newest' WHERE id < '8'");
    within("decided in SQL", ALLOWED, || b.seal().unwrap());
    let carried = b.take_carried_out();
    let all = Selection::default();
    let done =
        within("resolve all", ALLOWED, || b.resolve_all(&all, &Resolution::Newest, &mut |_| Ok(())).unwrap());
    assert_eq!((carried.closed + done.closed, done.open), (u64::from(n) - 1, 0));
}

/// Goes on with a table of many rows: what SQLite puts aside for one of its statements has a page cache of its own, of 100 pages.
fn go_on(world: &World, from: &mut Engine, to: &mut Engine) {
    const ASIDE: usize = 4 * 100 * 4096;
    let mut bytes = Vec::new();
    from.export(&mut bytes, Recipient::Device(to.identity().id)).unwrap();
    let path = world.dir.path().join("bundle");
    std::fs::write(&path, bytes).unwrap();
    let mut file = std::fs::File::open(&path).unwrap();
    let ([own, beside], _) = taken("go on", || to.import(&mut file, &mut |_| ()).unwrap());
    assert!(own <= ALLOWED && beside <= ALLOWED + ASIDE, "{own} bytes of our own, {beside} of SQLite's");
}

/// A table of many rows is held at one device, and written to on both, until the other has changed it as well.
fn many_rows_of_a_held_table(n: u32) {
    let world = World::new();
    let (mut a, mut b) = (device(&world, "a"), device(&world, "b"));
    let numbers = format!("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {n})");
    for of in [&mut a, &mut b] {
        sql(of, "CREATE TABLE t (k TEXT PRIMARY KEY, v, w)");
        of.track("t", &TrackOptions::default()).unwrap();
    }
    sql(&a, &format!("INSERT INTO t {numbers} SELECT printf('%0150d', i), 0, i FROM n"));
    carry_by_file(&world, &mut a, &mut b, ALLOWED);
    carry_by_file(&world, &mut b, &mut a, ALLOWED);
    sql(&b, "ALTER TABLE t RENAME COLUMN w TO x; UPDATE t SET v = 'b'");
    within("seal, held", ALLOWED, || b.seal().unwrap());
    sql(&a, "UPDATE t SET v = 'a'");
    carry_by_file(&world, &mut a, &mut b, ALLOWED);
    assert!(b.status().unwrap().tables[0].note.is_some());
    sql(&a, "ALTER TABLE t RENAME COLUMN w TO x; ALTER TABLE t ADD COLUMN y DEFAULT 5");
    go_on(&world, &mut a, &mut b);
    sql(&b, "ALTER TABLE t ADD COLUMN y DEFAULT 5");
    go_on(&world, &mut b, &mut a);
    go_on(&world, &mut a, &mut b);
    assert_eq!(b.status().unwrap().tables[0].note, None);
    assert_eq!(a.status().unwrap().conflicts, u64::from(n));
    assert_eq!(a.digest(false).unwrap(), b.digest(false).unwrap());
    assert_eq!(rows(&a, "SELECT * FROM t"), rows(&b, "SELECT * FROM t"));
}

/// Rows that were written in another order than that of their keys: the seal sorts what is recorded of them. Pages are as large
/// as can be.
fn many_changes_in_disorder(n: u32) {
    let world = World::new();
    let options = Options { page_bytes: 65_536, cache_kib: CACHE_KIB, ..world.options() };
    let init = InitOptions { name: "a", base: false, fleet: None };
    let mut a = Engine::init_with(&world.path("a"), &init, options).unwrap();
    let numbers = format!("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {n})");
    sql(
        &a,
        &format!(
            "CREATE TABLE t (k TEXT PRIMARY KEY, v); INSERT INTO t {numbers} SELECT printf('%0150d', i), i FROM n"
        ),
    );
    a.track("t", &TrackOptions::default()).unwrap();
    sql(&a, &format!("UPDATE t SET v = 0 WHERE v > {0}; UPDATE t SET v = -1 WHERE v > 0", n / 2));
    let sealed = within("seal, in disorder", ALLOWED, || a.seal().unwrap());
    assert_eq!(sealed.ops, u64::from(n));
}

#[test]
fn memory_follows_neither_a_blob_nor_a_conflict_nor_their_number() {
    packmule::sort_within_cache();
    a_conflict_of_a_large_blob();
    many_versions_of_a_row();
    // More than 1,024: what is kept in memory for each op of a frame has doubled its room by then.
    many_changes_in_disorder(8_000);
    many_rows_of_a_held_table(std::env::var("PACKMULE_ROWS").map_or(5_000, |n| n.parse().unwrap()));
    many_open_conflicts(std::env::var("PACKMULE_CONFLICTS").map_or(1_100, |n| n.parse().unwrap()));
}
