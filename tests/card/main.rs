//! The card: exchanges by way of a directory, on a card in memory that forgets what was not synced, and on
//! real file systems.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests are tests.

#[path = "../common/mod.rs"]
mod common;
mod disks;
mod memory;
mod pulled_out;
mod rules;
#[path = "../skips/mod.rs"]
mod skips;

use packmule::Engine;
use packmule::carry::card::{self, Exchange, Limits};
use packmule::carry::volume::Volume;

use common::*;

/// Three boards and a base; each board has rows of its own in two tables.
struct Fleet {
    world: World,
    devices: Vec<(&'static str, Engine)>,
    encrypt: bool,
}

const NAMES: [&str; 4] = ["north", "east", "south", "base"];

impl Fleet {
    fn new() -> Self {
        let world = World::new();
        let mut devices = Vec::new();
        for name in NAMES {
            let settings = "CREATE TABLE settings (key TEXT PRIMARY KEY, value);";
            let readings = "CREATE TABLE readings (id INTEGER PRIMARY KEY AUTOINCREMENT, value REAL);";
            let engine = if name == "base" {
                world.base(name) // It gathers the readings, and has none of its own.
            } else {
                let mut engine = world.board_with(name, &format!("{settings}{readings}"), &["settings"]);
                engine.track("readings", &append()).unwrap();
                engine
            };
            devices.push((name, engine));
        }
        let fleet = Self { world, devices, encrypt: false };
        fleet.write(0);
        fleet
    }

    /// Everybody writes something.
    fn write(&self, round: u32) {
        for (name, engine) in &self.devices {
            if *name != "base" {
                sql(
                    engine,
                    &format!(
                        "INSERT INTO settings VALUES ('{name} {round}', hex(zeroblob(300)));
                         INSERT OR REPLACE INTO settings VALUES ('all', '{name} {round}');
                         INSERT INTO readings (value) VALUES ({round}.5), ({round}.75);"
                    ),
                );
            }
        }
    }

    fn get(&mut self, name: &str) -> &mut Engine {
        &mut self.devices.iter_mut().find(|d| d.0 == name).unwrap().1
    }

    fn exchange(&mut self, name: &str, card: &mut dyn Volume) -> Exchange {
        self.try_exchange(name, card).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    fn try_exchange(&mut self, name: &str, card: &mut dyn Volume) -> packmule::Result<Exchange> {
        self.world.tick(60_000);
        let mut report = Exchange::default();
        let exchange = if self.encrypt { card::exchange_encrypted } else { card::exchange };
        exchange(self.get(name), card, &Limits::default(), &mut |_, _| (), &mut report)?;
        Ok(report)
    }

    /// Everybody has what everybody wrote, and the base has all readings.
    fn assert_same(&self, rounds: usize) {
        let engines: Vec<&Engine> = self.devices.iter().map(|d| &d.1).collect();
        digests_equal(&engines);
        for engine in &engines {
            let status = engine.status().unwrap();
            assert_eq!(status.waits, [], "{}", status.identity.name);
        }
        let base = engines[3];
        let of_boards = rows(base, "SELECT count(*) FROM readings");
        assert_eq!(of_boards, [(3 * 2 * rounds).to_string()], "readings at the base");
        assert_eq!(rows(base, "SELECT count(*) FROM settings"), [(3 * rounds + 1).to_string()]);
    }
}

/// Runs an exchange with other limits.
fn exchange_with(engine: &mut Engine, card: &mut dyn Volume, limits: &Limits) -> Exchange {
    let mut report = Exchange::default();
    card::exchange(engine, card, limits, &mut |_, _| (), &mut report).unwrap();
    report
}
