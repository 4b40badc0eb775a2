//! Two boards: an application writes on one, and the other must end with exactly the same rows.
#![allow(dead_code)] // Each test uses a part of it.

use packmule::{Engine, TrackOptions};
use rusqlite::Connection;

use crate::common::*;

pub struct Pair {
    pub world: World,
    pub a: Engine,
    pub b: Engine,
    tables: Vec<String>,
    /// The application, one connection as in a program that stays open.
    pub app: Connection,
}

impl Pair {
    /// Makes the tables on A, tracks them, and brings B up to date.
    pub fn new(sql: &str, tables: &[&str]) -> Self {
        let world = World::new();
        let a = world.board("a");
        let b = world.board("b");
        let app = app(&a);
        app.execute_batch(sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
        let tables = tables.iter().map(|t| t.to_string()).collect();
        let mut pair = Self { world, a, b, tables, app };
        for table in pair.tables.clone() {
            pair.a.track(&table, &TrackOptions::default()).unwrap();
        }
        pair.follow();
        pair
    }

    /// A plain table with three rows.
    pub fn plain() -> Self {
        let sql = "CREATE TABLE t (k TEXT PRIMARY KEY, v); INSERT INTO t VALUES ('a', 1), ('b', 2), ('c', 3)";
        Self::new(sql, &["t"])
    }

    /// The application writes; how many ops that is, once B has followed.
    pub fn write(&mut self, sql: &str) -> u64 {
        self.app.execute_batch(sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
        self.sealed(sql)
    }

    /// Seals what was written by other means; how many ops that is, once B has followed.
    pub fn sealed(&mut self, what: &str) -> u64 {
        let before = self.contents(&self.a);
        let report = self.a.seal().unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(self.contents(&self.a), before, "a seal changes no row: {what}");
        assert_eq!(self.a.seal().unwrap(), Default::default(), "a second seal finds nothing: {what}");
        self.follow_after(what);
        report.ops
    }

    pub fn follow(&mut self) {
        self.follow_after("");
    }

    fn follow_after(&mut self, what: &str) {
        self.world.tick(1000);
        let report = carry(&mut self.a, &mut self.b);
        assert_eq!(report.waits, [], "{what}");
        assert_eq!(self.contents(&self.b), self.contents(&self.a), "{what}");
        digests_equal(&[&self.a, &self.b]);
        for engine in [&self.a, &self.b] {
            assert_eq!(engine.conflicts().unwrap(), [], "{what}");
        }
        assert_eq!(self.b.seal().unwrap(), Default::default(), "what was applied is not captured: {what}");
    }

    fn contents(&self, engine: &Engine) -> Vec<String> {
        let mut all = Vec::new();
        for table in &self.tables {
            // Columns by name: one that was added may stand elsewhere.
            let columns = dump(
                &crate::common::app(engine),
                &format!("SELECT '\"' || name || '\"' FROM pragma_table_info('{table}') ORDER BY name"),
            );
            let columns: Vec<String> =
                columns.iter().map(|c| c.replace("\\\"", "\"").trim_matches('"').to_owned()).collect();
            let columns: Vec<String> = columns.iter().map(|c| format!("\"{c}\"")).collect();
            let mut found = rows(engine, &format!("SELECT {} FROM \"{table}\"", columns.join(", ")));
            found.sort();
            all.push(format!("== {table} {columns:?}"));
            all.append(&mut found);
        }
        all
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            for engine in [&self.a, &self.b] {
                assert_eq!(engine.verify().unwrap().problems, [""; 0]);
            }
        }
    }
}
