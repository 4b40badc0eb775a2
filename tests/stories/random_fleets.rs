//! Whole fleets at random, through the program: boards and bases that appear, write, meet a card and compact on their own,
//! prune, are restored from a backup, copied and merged, retired and back, revoked and back; tables that are let go, written to
//! and tracked again, and get columns by a person's word; triggers of the applications; cards that are lost; groups that
//! live apart. Some fleets encrypt all that they leave. Nobody types a cure, and no command ends with anything but 0.
//!
//! `PACKMULE_SEED=N` replays one fleet, `PACKMULE_SCHEDULES=N` says how many live, from `PACKMULE_FIRST=N` on.

use std::collections::BTreeSet;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use super::card::{fingerprint, status};
use super::random::{MIRROR, Random, on_all_cores, seeds};
use super::support::Desk;

const TABLES: &str = "CREATE TABLE notes (id TEXT PRIMARY KEY, body TEXT, n INT);
    CREATE TABLE tags (id TEXT PRIMARY KEY, name TEXT UNIQUE);
    CREATE TABLE marks (id TEXT PRIMARY KEY, tag TEXT REFERENCES tags (id), n INT);
    CREATE TABLE readings (id INTEGER PRIMARY KEY AUTOINCREMENT, v TEXT);
    CREATE TABLE state (k TEXT PRIMARY KEY, v TEXT)";

/// A trigger of a table that nobody tracks.
const ELSEWHERE: &str = "CREATE TABLE mine (id); CREATE TABLE seen (id);
    CREATE TRIGGER saw AFTER INSERT ON mine BEGIN INSERT INTO seen VALUES (NEW.id); END";

struct Member {
    name: String,
    /// Who it is, from when it appears on.
    fingerprint: String,
    base: bool,
    /// A backup of it was made.
    backup: bool,
    /// It was restored, and its application is not started again before the fleet has met.
    quiet: bool,
    revoked: bool,
    /// The card that goes round where it lives, while groups live apart.
    card: usize,
}

struct Fleet {
    desk: Desk,
    random: Random,
    /// What the applications have besides the tables.
    own: Option<&'static str>,
    cell: bool,
    /// All exchanges are encrypted.
    encrypts: bool,
    members: Vec<Member>,
    apart: bool,
    n: u32,
    trace: Vec<String>,
}

impl Fleet {
    fn new(seed: u64) -> Self {
        let desk = Desk::new();
        ["card0", "card1", "card2"].iter().for_each(|card| std::fs::create_dir(desk.path(card)).unwrap());
        let (cell, apart) = (seed % 4 == 1, seed.is_multiple_of(3));
        let (random, encrypts) = (Random(seed), seed % 5 == 2);
        let own = [Some(MIRROR), Some(ELSEWHERE), None][(seed % 3) as usize];
        let mut fleet =
            Self { desk, random, own, cell, encrypts, members: Vec::new(), apart, n: 0, trace: Vec::new() };
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

    fn exchange(&mut self, name: &str, card: usize) {
        let encrypt = if self.encrypts { " --encrypt" } else { "" };
        self.run(&format!("exchange {name}.db card{card}{encrypt}"));
    }

    /// What is said nowhere on a card of a fleet that encrypts: tables, columns, keys and values.
    fn cards_tell_nothing(&self) {
        for card in ["card0", "card1", "card2"] {
            let Ok(files) = std::fs::read_dir(self.desk.path(card).join("PACKMULE")) else { continue };
            for file in files {
                let bytes = std::fs::read(file.unwrap().path()).unwrap();
                for word in ["notes", "readings", "marks", "body", "CREATE"] {
                    let said = bytes.windows(word.len()).any(|part| part == word.as_bytes());
                    assert!(!said || !self.encrypts, "{card}: {word}");
                }
            }
        }
    }

    fn appear(&mut self, base: bool) {
        let at = self.members.len();
        let name = format!("{}{at}", if base { "base" } else { "board" });
        let role = if base { " --base" } else { "" };
        self.run(&format!("init {name}.db --name {name} --fleet fleet.key{role}"));
        let (fingerprint, card) = (fingerprint(&self.desk, &name), self.below(2));
        self.members.push(Member {
            name,
            fingerprint,
            base,
            backup: false,
            quiet: false,
            revoked: false,
            card,
        });
        if !base {
            self.make_tables(at);
            self.write(at);
        }
    }

    fn make_tables(&mut self, board: usize) {
        let db = format!("{}.db", self.members[board].name);
        self.desk.sql(&db, TABLES);
        self.own.into_iter().for_each(|own| self.desk.sql(&db, own));
        let merge = if self.cell { " --merge cell" } else { "" };
        self.run(&format!("track {db} notes tags marks{merge}"));
        self.run(&format!("track {db} readings --mode per-device --append"));
        self.run(&format!("track {db} state --mode per-device"));
    }

    fn write(&mut self, at: usize) {
        if self.members[at].quiet || self.members[at].base {
            return;
        }
        self.n += 1;
        let (n, key, name) = (self.n, self.below(4), self.below(3));
        let note = match self.below(5) {
            0 => format!("DELETE FROM notes WHERE id = 'k{key}'"),
            1 => format!("UPDATE notes SET n = {n} WHERE id = 'k{key}'"),
            _ => format!(
                "INSERT INTO notes (id, body, n) VALUES ('k{key}', 'v{n}', 0) ON CONFLICT (id) DO UPDATE SET body = excluded.body"
            ),
        };
        let tag = match self.below(4) {
            0 => format!("DELETE FROM marks WHERE tag = 't{key}'; DELETE FROM tags WHERE id = 't{key}'"),
            1 => format!(
                "INSERT OR IGNORE INTO marks (id, tag, n) SELECT 'm{n}', id, {n} FROM tags WHERE id = 't{key}'"
            ),
            _ => format!("INSERT OR IGNORE INTO tags VALUES ('t{key}', 'n{name}')"),
        };
        let state = match self.below(4) {
            0 => format!("DELETE FROM state WHERE k = 's{name}'"),
            _ => format!("INSERT OR REPLACE INTO state VALUES ('s{name}', 'w{n}')"),
        };
        let db = format!("{}.db", self.members[at].name);
        let added =
            self.column(&self.members[at].name, "SELECT name FROM pragma_table_info('notes')").len() > 3;
        let added =
            if added { format!("; UPDATE notes SET size = {n} WHERE id = 'k{name}'") } else { String::new() };
        let sql = format!("{note}{added}; {tag}; {state}; INSERT INTO readings (v) VALUES ('r{n}')");
        self.desk.sql(&db, &sql);
        self.trace.push(format!("{db}: {sql}"));
    }

    fn step(&mut self) {
        let at = self.below(self.members.len());
        let name = self.members[at].name.clone();
        let card = if self.apart { self.members[at].card } else { self.below(2) };
        let Member { base, quiet, backup, .. } = self.members[at];
        match self.below(33) {
            0..=8 => self.write(at),
            9..=17 => self.exchange(&name, card),
            18..=19 if !quiet => self.run(&format!("compact {name}.db")),
            20 if !base && !quiet => {
                let rows = self.below(3);
                self.run(&format!("prune {name}.db readings --rows {rows}"));
            }
            21 if self.members.len() < 5 => {
                let base = self.random.chance(25);
                self.appear(base);
            }
            22..=23 if !backup => self.back_up(at),
            22..=23 if !quiet && !base => self.restore(at),
            24 if base => self.merge(at),
            25..=26 if base => self.retire(at),
            27 if base => self.revoke(at),
            28 => self.apart = false,
            30 if !base && !quiet => self.track_again(at),
            31 if !base && !quiet => self.run(&format!("schema {name}.db add-column notes size INTEGER")),
            32 => self.run(&format!("status {name}.db")),
            29 => {
                let path = self.desk.path(format!("card{card}"));
                std::fs::remove_dir_all(&path).unwrap();
                std::fs::create_dir(&path).unwrap();
                self.trace.push(format!("card{card} is lost"));
            }
            _ => {}
        }
    }

    /// A table is let go, written to, and tracked again as the others have it.
    fn track_again(&mut self, at: usize) {
        let db = format!("{}.db", self.members[at].name);
        let tables = if self.random.chance(50) { "notes" } else { "tags marks" };
        self.run(&format!("untrack {db} {tables}"));
        self.write(at);
        self.run(&format!("track {db} {tables}"));
    }

    fn copy(&mut self, name: &str, to: &str) {
        self.run(&format!("seal {name}.db"));
        let path = self.desk.path(to);
        let _ = std::fs::remove_file(&path);
        self.desk.sql(&format!("{name}.db"), &format!("VACUUM INTO '{}'", path.display()));
    }

    fn back_up(&mut self, at: usize) {
        let name = self.members[at].name.clone();
        self.copy(&name, &format!("{name}.backup"));
        self.members[at].backup = true;
        self.trace.push(format!("{name} is backed up"));
    }

    fn restore(&mut self, at: usize) {
        let name = self.members[at].name.clone();
        for end in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(self.desk.path(format!("{name}.db{end}")));
        }
        std::fs::copy(self.desk.path(format!("{name}.backup")), self.desk.path(format!("{name}.db")))
            .unwrap();
        self.members[at].quiet = true;
        self.trace.push(format!("{name} is restored"));
    }

    /// The office takes in a copy of a board's card, its key beside it.
    fn merge(&mut self, base: usize) {
        let of = self.below(self.members.len());
        if of == base || self.apart || self.members[of].revoked {
            return;
        }
        let (name, of) = (self.members[base].name.clone(), self.members[of].name.clone());
        self.copy(&of, "copy.db");
        std::fs::copy(self.desk.path(format!("{of}.db.pmkey")), self.desk.path("copy.db.pmkey")).unwrap();
        self.run(&format!("merge {name}.db copy.db"));
    }

    /// What a base knows of another device, if it knows it.
    fn known(&self, base: &str, of: &str) -> Option<serde_json::Value> {
        let devices = self.desk.run(&format!("devices {base}.db --json")).json();
        devices["devices"].as_array().unwrap().iter().find(|d| d["name"] == of).cloned()
    }

    /// Says that a device will not come back; or that it is back, if that was said.
    fn retire(&mut self, base: usize) {
        let of = self.below(self.members.len());
        let (name, of) = (self.members[base].name.clone(), self.members[of].name.clone());
        let Some(known) = self.known(&name, &of).filter(|_| name != of) else { return };
        let undo = if known["retired"] == true { " --undo" } else { "" };
        self.run(&format!("retire {name}.db {of}{undo}"));
    }

    /// A board is stolen; or found again.
    fn revoke(&mut self, base: usize) {
        let at = self.below(self.members.len());
        let (name, of) = (self.members[base].name.clone(), self.members[at].name.clone());
        let Some(known) = self.known(&name, &of).filter(|_| !self.members[at].base) else { return };
        let revoked = known["revoked"] == true;
        if revoked != self.members[at].revoked {
            return; // Another base has said so.
        }
        let undo = if revoked { " --undo" } else { "" };
        self.run(&format!("revoke {name}.db {of} --fleet fleet.key{undo}"));
        self.members[at].revoked = !revoked;
    }

    fn live(&mut self) {
        [true, false, false].into_iter().for_each(|base| self.appear(base));
        for _ in 0..self.below(35) + 15 {
            self.step();
        }
        let names: Vec<String> = self.members.iter().filter(|m| !m.revoked).map(|m| m.name.clone()).collect();
        // Who encrypts learns first to whom.
        for _ in 0..if self.encrypts { 6 } else { 4 } {
            names.iter().for_each(|name| self.exchange(name, 2));
            self.cards_tell_nothing();
        }
        let digest = self.desk.run(&format!("digest {}.db", names[0])).ok();
        for member in self.members.iter().filter(|m| !m.revoked) {
            let name = &member.name;
            assert_eq!(self.desk.run(&format!("digest {name}.db")).ok(), digest, "{name}");
            if self.own == Some(MIRROR) && !member.base {
                let [is, mirrored] = ["tags", "mirror"].map(|t| {
                    self.column(name, &format!("SELECT id || ifnull(name, '') FROM {t} ORDER BY 1"))
                });
                assert_eq!(is, mirrored, "{name}");
            }
            let status = status(&self.desk, name);
            // What a revoked device wrote and nobody had taken in is void.
            let waits = status["waits"].as_array().unwrap().iter();
            let stolen: Vec<&str> =
                self.members.iter().filter(|m| m.revoked).map(|m| m.name.as_str()).collect();
            let of_stolen = |wait: &&serde_json::Value| {
                stolen.iter().any(|name| wait["author"].as_str().is_some_and(|of| of.starts_with(name)))
            };
            assert_eq!(waits.filter(|wait| !of_stolen(wait)).count(), 0, "{name}: {status}");
            assert_eq!(status["fingerprint"], *member.fingerprint, "{name} is another");
        }
        self.bases_have_gathered();
    }

    fn bases_have_gathered(&self) {
        for base in self.members.iter().filter(|m| m.base) {
            let gathered: Vec<String> = self.column(&base.name, "SELECT v FROM readings");
            let distinct: BTreeSet<&String> = gathered.iter().collect();
            assert_eq!(distinct.len(), gathered.len(), "{}: {gathered:?}", base.name);
            for board in self.members.iter().filter(|m| !m.base && !m.revoked) {
                for row in self.column(&board.name, "SELECT v FROM readings") {
                    assert!(distinct.contains(&row), "{} lacks {row} of {}", base.name, board.name);
                }
                let own = self.column(&board.name, "SELECT k || v FROM state ORDER BY 1");
                let sql = format!("SELECT k || v FROM state WHERE device LIKE '{}-%' ORDER BY 1", board.name);
                assert_eq!(self.column(&base.name, &sql), own, "{} has of {}", base.name, board.name);
            }
        }
    }

    fn column(&self, name: &str, sql: &str) -> Vec<String> {
        self.desk.rows(&format!("{name}.db"), sql).iter().map(|row| format!("{:?}", row[0])).collect()
    }
}

/// Has as many fleets live as usual, or as the environment says. Of each that fails, its seed and its `trace` are told.
#[track_caller]
pub fn all_live<F>(
    usual: u64,
    new: &(dyn Fn(u64) -> F + Sync),
    live: &(dyn Fn(&mut F) + Sync),
    trace: &(dyn Fn(&F) -> &[String] + Sync),
) {
    all_of(seeds(usual), new, live, trace);
}

/// The same of these seeds.
#[track_caller]
fn all_of<F>(
    seeds: Range<u64>,
    new: &(dyn Fn(u64) -> F + Sync),
    live: &(dyn Fn(&mut F) + Sync),
    trace: &(dyn Fn(&F) -> &[String] + Sync),
) {
    let failed = Mutex::new(Vec::new());
    on_all_cores(seeds, &|seed| {
        let mut fleet = new(seed);
        if catch_unwind(AssertUnwindSafe(|| live(&mut fleet))).is_err() {
            eprintln!("PACKMULE_SEED={seed} replays it:\n{}", trace(&fleet).join("\n"));
            failed.lock().unwrap().push(seed);
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{} failed: {failed:?}", failed.len());
}

#[test]
fn random_fleets_through_the_program() {
    all_live(6, &Fleet::new, &Fleet::live, &|fleet| &fleet.trace);
}

/// Boards that were restored to before a person added a column, and announced it before they had their own log back.
const PARTED: [u64; 4] = [2063, 2079, 2125, 2225];

#[test]
fn random_fleets_that_parted_once_end_the_same() {
    PARTED.iter().for_each(|seed| all_of(*seed..seed + 1, &Fleet::new, &Fleet::live, &|fleet| &fleet.trace));
}
