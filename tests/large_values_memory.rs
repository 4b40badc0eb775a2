//! What SQLite takes of memory for a large value. Alone in its program, since SQLite counts for all
//! of a program.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests are tests.

mod common;
use common::*;
use packmule::{Engine, Options, TrackOptions};

/// SQLite's own memory while a large value is sealed and applied stays near its page cache.
#[test]
fn memory_does_not_follow_the_size_of_a_value() {
    let world = World::new();
    let options = |world: &World| Options { cache_kib: 512, ..world.options() };
    drop((world.board("a"), world.board("b")));
    let mut a = Engine::open_with(&world.path("a"), options(&world)).unwrap();
    let mut b = Engine::open_with(&world.path("b"), options(&world)).unwrap();
    sql(&a, "CREATE TABLE t (k INTEGER PRIMARY KEY, v BLOB)");
    a.track("t", &TrackOptions::default()).unwrap();
    sql(&a, "INSERT INTO t VALUES (1, zeroblob(40000000))");
    let path = world.dir.path().join("bundle");
    sqlite_memory(true);
    let start = sqlite_memory(false).0;
    a.export(&mut std::fs::File::create(&path).unwrap(), packmule::Recipient::Anyone).unwrap();
    b.import(&mut std::fs::File::open(&path).unwrap(), &mut |_| ()).unwrap();
    let (_, highest) = sqlite_memory(false);
    println!("SQLite's memory: {start} before, {highest} at its highest");
    assert_eq!(rows(&b, "SELECT length(v) FROM t"), ["40000000"]);
    assert!(highest - start < 4 << 20, "{start} → {highest}");

    // So it is where a newcomer starts from a snapshot.
    a.compact().unwrap();
    sqlite_memory(true);
    let start = sqlite_memory(false).0;
    a.snapshot(&mut std::fs::File::create(&path).unwrap()).unwrap();
    let join = packmule::JoinOptions { name: Some("c"), fleet: Some(&world.fleet) };
    let mut file = std::fs::File::open(&path).unwrap();
    let (c, _) = Engine::join(&world.path("c"), &mut file, &join, options(&world)).unwrap();
    let (_, highest) = sqlite_memory(false);
    println!("from a snapshot: {start} before, {highest} at its highest");
    assert_eq!(rows(&c, "SELECT length(v) FROM t"), ["40000000"]);
    assert!(highest - start < 4 << 20, "{start} → {highest}");
}
