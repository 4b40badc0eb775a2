//! Boards that meet over networks: with a shared table, and one of readings.

use std::time::Duration;

use packmule::Engine;
use packmule::carry::net::Options;

use crate::common::{World, append, sql};

const TABLES: &str = "CREATE TABLE t (id TEXT PRIMARY KEY, v);
    CREATE TABLE readings (id INTEGER PRIMARY KEY AUTOINCREMENT, v BLOB);";
/// A limit that only ends a test that hangs.
pub const LONG: Option<Duration> = Some(Duration::from_secs(60));
pub const SAFE: Options = Options { plain: false, patience: LONG };

pub fn board(world: &World, name: &str) -> Engine {
    let mut board = world.board_with(name, TABLES, &["t"]);
    board.track("readings", &append()).unwrap();
    board
}

/// Rows, each sealed by itself: so many groups, of a frame each.
pub fn fill(engine: &mut Engine, name: &str, groups: u32, blob: u32) {
    for group in 0..groups {
        sql(engine, &format!("INSERT INTO t VALUES ('{name}{group}', hex(randomblob({blob})))"));
        engine.seal().unwrap();
    }
}
