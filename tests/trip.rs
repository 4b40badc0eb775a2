//! One whole trip, with the same keys and the same clock everywhere: two boards and a base, a conflict and its
//! resolution. It prints its digests, which `tools/architectures` compares between architectures.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests are tests.

mod common;

use common::*;
use packmule::Resolution;

const TABLES: &str = "
    CREATE TABLE settings (key TEXT PRIMARY KEY COLLATE NOCASE, value);
    CREATE TABLE samples (id INTEGER PRIMARY KEY AUTOINCREMENT, r REAL, t TEXT, b BLOB);";

#[test]
fn the_trip_is_the_same_everywhere() {
    let world = World::new();
    let mut north = world.board_with("north", TABLES, &["settings"]);
    let mut south = world.board_with("south", TABLES, &["settings"]);
    let mut base = world.base("base");
    for board in [&mut north, &mut south] {
        board.track("samples", &append()).unwrap();
    }
    for (n, board) in [&north, &south].iter().enumerate() {
        sql(
            board,
            &format!(
                "INSERT INTO settings VALUES ('interval', 60), ('board {n}', -0.0), ('big', 9223372036854775807), ('inf', 9e999);
                 WITH RECURSIVE i(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM i WHERE i < 2000)
                 INSERT INTO samples (r, t, b) SELECT i * 0.1 + {n}, 'sample ' || i, zeroblob(i % 50) FROM i;
                 INSERT INTO samples (t, b) VALUES (CAST(x'ff00fe' AS TEXT), zeroblob(200000));"
            ),
        );
    }
    world.tick(1000);
    carry_all(&mut [&mut north, &mut south, &mut base]);
    sql(&north, "UPDATE settings SET value = 30 WHERE key = 'interval'");
    sql(&south, "UPDATE settings SET value = 10 WHERE key = 'INTERVAL'");
    world.tick(1000);
    carry_all(&mut [&mut north, &mut south, &mut base]);
    let with_conflicts = base.digest(false).unwrap();
    let open = base.conflicts().unwrap();
    assert!(!open.is_empty());
    for conflict in &open {
        let of = north.identity().id;
        base.resolve(&conflict.id, &Resolution::Take(of)).unwrap();
    }
    carry_all(&mut [&mut north, &mut south, &mut base]);
    digests_equal(&[&north, &south, &base]);
    assert_eq!(rows(&base, "SELECT count(*) FROM samples"), ["4002"]);
    println!("\ndigest with conflicts {with_conflicts}");
    println!("digest {}", base.digest(false).unwrap());
    println!("gathered {}", base.digest(true).unwrap());
}
