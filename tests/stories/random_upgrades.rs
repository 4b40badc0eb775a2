//! Fleets at random, through the program, whose application is upgraded board by board: rows with UNIQUE values, references
//! and counters; newcomers, cards that are lost, boards that compact. In the end every application is at the last version,
//! everybody meets the card, and all show the same. No command ends with anything but 0.
//!
//! `PACKMULE_SEED=N` replays one fleet, `PACKMULE_SCHEDULES=N` says how many live, from `PACKMULE_FIRST=N` on.

use super::card::{are_equal, rounds};
use super::random::Random;
use super::random_fleets::all_live;
use super::support::Desk;

const FIRST: &str = "CREATE TABLE patient (id TEXT PRIMARY KEY, number INTEGER UNIQUE, name TEXT, ward TEXT DEFAULT 'A',
        visits INTEGER DEFAULT 0);
    CREATE TABLE visit (id TEXT PRIMARY KEY, patient TEXT REFERENCES patient (id) ON DELETE CASCADE, note TEXT, photo BLOB);
    CREATE TABLE readings (id INTEGER PRIMARY KEY AUTOINCREMENT, v REAL)";

/// What each version of the application does to the tables of the one before.
const UPGRADES: [&str; 5] = [
    "ALTER TABLE patient ADD COLUMN tel TEXT DEFAULT 'none'",
    "PRAGMA foreign_keys = OFF; BEGIN;
     CREATE TABLE new_patient (id TEXT PRIMARY KEY, number INTEGER UNIQUE, name TEXT, visits INTEGER DEFAULT 0,
        tel TEXT DEFAULT 'none', born TEXT);
     INSERT INTO new_patient (id, number, name, visits, tel) SELECT id, number, name, visits, tel FROM patient;
     DROP TABLE patient; ALTER TABLE new_patient RENAME TO patient; COMMIT",
    "ALTER TABLE visit DROP COLUMN photo; UPDATE visit SET note = note || '!' WHERE length(note) < 3",
    "BEGIN; CREATE TABLE new_readings (id INTEGER PRIMARY KEY AUTOINCREMENT, v REAL, unit TEXT DEFAULT 'C');
     INSERT INTO new_readings (id, v) SELECT id, v FROM readings;
     DROP TABLE readings; ALTER TABLE new_readings RENAME TO readings; COMMIT",
    "ALTER TABLE patient RENAME COLUMN name TO full_name",
];

struct Device {
    name: String,
    /// The version of its application; none if it only has what the others bring.
    version: Option<usize>,
}

struct Fleet {
    desk: Desk,
    random: Random,
    devices: Vec<Device>,
    n: u32,
    trace: Vec<String>,
}

impl Fleet {
    fn new(seed: u64) -> Self {
        let mut fleet =
            Self { desk: Desk::new(), random: Random(seed), devices: Vec::new(), n: 0, trace: Vec::new() };
        std::fs::create_dir(fleet.desk.path("card")).unwrap();
        fleet.run("fleet new fleet.key");
        fleet
    }

    fn below(&mut self, n: usize) -> usize {
        self.random.below(n as u64) as usize
    }

    fn run(&mut self, command: &str) {
        self.trace.push(command.into());
        self.desk.run(command).ok();
    }

    fn sql(&mut self, at: usize, sql: &str) {
        let db = format!("{}.db", self.devices[at].name);
        self.trace.push(format!("{db}: {sql}"));
        self.desk.sql(&db, sql);
    }

    fn appear(&mut self, base: bool, runs: bool) {
        let (at, role) = (self.devices.len(), if base { " --base" } else { "" });
        let name = format!("{}{at}", if base { "base" } else { "board" });
        self.run(&format!("init {name}.db --name {name} --fleet fleet.key{role}"));
        let version = self.devices.iter().filter_map(|device| device.version).max().unwrap_or(0);
        self.devices.push(Device { name: name.clone(), version: runs.then_some(version) });
        if !runs {
            return;
        }
        self.sql(at, FIRST);
        UPGRADES[..version].iter().for_each(|upgrade| self.sql(at, upgrade));
        self.run(&format!("track {name}.db patient --column visits=counter"));
        self.run(&format!("track {name}.db visit"));
        if !base {
            self.run(&format!("track {name}.db readings --mode per-device --append"));
        }
        self.write(at);
    }

    fn upgrade(&mut self, at: usize) {
        let Some(version) = self.devices[at].version.filter(|version| *version < UPGRADES.len()) else {
            return;
        };
        self.sql(at, UPGRADES[version]);
        self.devices[at].version = Some(version + 1);
    }

    fn write(&mut self, at: usize) {
        let Some(version) = self.devices[at].version else { return };
        self.n += 1;
        let (n, key, other, number) = (self.n, self.below(8), self.below(8), self.below(10));
        let name = if version == UPGRADES.len() { "full_name" } else { "name" };
        let patient = match self.below(6) {
            0 => format!("UPDATE patient SET {name} = 'n{n}' WHERE id = 'p{key}'"),
            1 => format!("UPDATE patient SET visits = visits + 1 WHERE id = 'p{key}'"),
            2 => {
                format!("DELETE FROM visit WHERE patient = 'p{key}'; DELETE FROM patient WHERE id = 'p{key}'")
            }
            3 => format!(
                "UPDATE OR IGNORE patient SET id = 'p{other}'
                 WHERE id = 'p{key}' AND id NOT IN (SELECT patient FROM visit)"
            ),
            _ => format!(
                "INSERT OR IGNORE INTO patient (id, number, {name}) VALUES ('p{key}', {number}, 'n{n}')"
            ),
        };
        let visit = match self.below(3) {
            0 => format!("UPDATE visit SET note = 'u{n}' WHERE patient = 'p{key}'"),
            _ => format!(
                "INSERT INTO visit (id, patient, note) SELECT 'v{n}', id, 'n' FROM patient WHERE id = 'p{key}'"
            ),
        };
        self.sql(at, &format!("{patient}; {visit}; INSERT INTO readings (v) VALUES ({n})"));
    }

    fn step(&mut self) {
        let at = self.below(self.devices.len());
        let name = self.devices[at].name.clone();
        match self.below(24) {
            0..=8 => self.write(at),
            9..=16 => self.run(&format!("exchange {name}.db card")),
            17..=18 => self.run(&format!("compact {name}.db")),
            19..=20 => self.upgrade(at),
            21 if self.devices.len() < 6 => {
                let base = self.random.chance(20);
                self.appear(base, true);
            }
            22 => {
                std::fs::remove_dir_all(self.desk.path("card")).unwrap();
                std::fs::create_dir(self.desk.path("card")).unwrap();
                self.trace.push("the card is lost".into());
            }
            _ => self.run(&format!("status {name}.db")),
        }
    }

    fn live(&mut self) {
        let runs = self.random.chance(30);
        self.appear(true, runs);
        self.appear(false, true);
        self.appear(false, true);
        for _ in 0..15 + self.below(25) {
            self.step();
        }
        for at in 0..self.devices.len() {
            UPGRADES.iter().for_each(|_| self.upgrade(at));
        }
        let names: Vec<String> = self.devices.iter().map(|device| device.name.clone()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        rounds(&self.desk, &names, 5);
        are_equal(&self.desk, &names);
        names.iter().for_each(|name| drop(self.desk.run(&format!("verify {name}.db")).ok()));
    }
}

#[test]
fn random_fleets_that_are_upgraded_board_by_board() {
    all_live(12, &Fleet::new, &Fleet::live, &|fleet| &fleet.trace);
}
