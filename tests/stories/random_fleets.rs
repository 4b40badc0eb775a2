//! Whole fleets at random, through the program: boards that appear, write, meet a card and compact on their own, are
//! restored from a backup, retired; cards that are lost. Nobody types a cure, and no command ends with anything but 0.
//!
//! `PACKMULE_SEED=N` replays one fleet, `PACKMULE_SCHEDULES=N` says how many live, from `PACKMULE_FIRST=N` on.

use std::collections::BTreeSet;

use super::card::status;
use super::random::{Random, seeds};
use super::support::Desk;

const TABLES: &str = "CREATE TABLE notes (id TEXT PRIMARY KEY, body TEXT);
    CREATE TABLE readings (id INTEGER PRIMARY KEY AUTOINCREMENT, v TEXT)";

struct Board {
    name: String,
    /// A backup of it was made.
    backup: bool,
    /// It was restored, and its application is not started again before the fleet has met.
    quiet: bool,
}

struct Fleet {
    desk: Desk,
    random: Random,
    boards: Vec<Board>,
    n: u32,
    trace: Vec<String>,
    /// How many of a hundred exchanges encrypt.
    encrypt: u64,
}

impl Fleet {
    fn new(seed: u64, encrypt: u64) -> Self {
        let desk = Desk::new();
        ["card0", "card1", "card2"].iter().for_each(|card| std::fs::create_dir(desk.path(card)).unwrap());
        let mut fleet =
            Self { desk, random: Random(seed), boards: Vec::new(), n: 0, trace: Vec::new(), encrypt };
        fleet.run("fleet new fleet.key");
        fleet.run("init base.db --name base --base --fleet fleet.key");
        fleet.appear();
        fleet.appear();
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
        let encrypt = self.encrypt > 0 && self.random.below(100) < self.encrypt;
        self.run(&format!("exchange {name}.db card{card}{}", if encrypt { " --encrypt" } else { "" }));
    }

    fn appear(&mut self) {
        let name = format!("board{}", self.boards.len());
        self.run(&format!("init {name}.db --name {name} --fleet fleet.key"));
        self.desk.sql(&format!("{name}.db"), TABLES);
        self.run(&format!("track {name}.db notes"));
        self.run(&format!("track {name}.db readings --append"));
        self.boards.push(Board { name, backup: false, quiet: false });
        let board = self.boards.len() - 1;
        self.write(board);
    }

    fn write(&mut self, board: usize) {
        if self.boards[board].quiet {
            return;
        }
        self.n += 1;
        let (n, key) = (self.n, self.below(4));
        let sql = format!(
            "INSERT INTO notes VALUES ('k{key}', 'v{n}') ON CONFLICT (id) DO UPDATE SET body = excluded.body;
             INSERT INTO readings (v) VALUES ('r{n}')"
        );
        let db = format!("{}.db", self.boards[board].name);
        self.desk.sql(&db, &sql);
        self.trace.push(format!("{db}: {sql}"));
    }

    fn step(&mut self) {
        let board = self.below(self.boards.len());
        let name = self.boards[board].name.clone();
        let card = self.below(2);
        match self.below(20) {
            0..=6 => self.write(board),
            7..=12 => self.exchange(&name, card),
            13..=14 => self.exchange("base", card),
            15 => self.run(&format!("compact {name}.db")),
            16 => self.run("compact base.db"),
            17 if self.boards.len() < 4 => self.appear(),
            18 if !self.boards[board].backup => self.back_up(board),
            18 if !self.boards[board].quiet => self.restore(board),
            _ => {
                let path = self.desk.path(format!("card{card}"));
                std::fs::remove_dir_all(&path).unwrap();
                std::fs::create_dir(&path).unwrap();
                self.trace.push(format!("card{card} is lost"));
            }
        }
    }

    fn back_up(&mut self, board: usize) {
        let name = self.boards[board].name.clone();
        self.run(&format!("seal {name}.db"));
        let to = self.desk.path(format!("{name}.backup"));
        self.desk.sql(&format!("{name}.db"), &format!("VACUUM INTO '{}'", to.display()));
        self.boards[board].backup = true;
        self.trace.push(format!("{name} is backed up"));
    }

    fn restore(&mut self, board: usize) {
        let name = self.boards[board].name.clone();
        for end in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(self.desk.path(format!("{name}.db{end}")));
        }
        std::fs::copy(self.desk.path(format!("{name}.backup")), self.desk.path(format!("{name}.db")))
            .unwrap();
        self.boards[board].quiet = true;
        self.trace.push(format!("{name} is restored"));
    }

    fn names(&self) -> Vec<String> {
        let boards = self.boards.iter().map(|board| board.name.clone());
        std::iter::once("base".into()).chain(boards).collect()
    }

    fn live(&mut self) {
        let before: Vec<_> =
            self.names().iter().map(|n| status(&self.desk, n)["fingerprint"].clone()).collect();
        for _ in 0..self.below(25) + 10 {
            self.step();
        }
        let names = self.names();
        // Who encrypts is to be known first, and then to know the others.
        for _ in 0..if self.encrypt > 0 { 6 } else { 4 } {
            names.iter().for_each(|name| self.exchange(name, 2));
        }
        let digest = self.desk.run("digest base.db").ok();
        for (at, name) in names.iter().enumerate() {
            assert_eq!(self.desk.run(&format!("digest {name}.db")).ok(), digest, "{name}");
            let status = status(&self.desk, name);
            assert_eq!(status["waits"].as_array().unwrap().len(), 0, "{name}: {status}");
            assert!(before.get(at).is_none_or(|was| *was == status["fingerprint"]), "{name} is another");
        }
        let readings = |name: &str| self.desk.rows(&format!("{name}.db"), "SELECT v FROM readings");
        let gathered: Vec<String> = readings("base").iter().map(|row| format!("{:?}", row[0])).collect();
        let distinct: BTreeSet<&String> = gathered.iter().collect();
        assert_eq!(distinct.len(), gathered.len(), "{gathered:?}");
        for name in &names[1..] {
            for row in readings(name) {
                assert!(distinct.contains(&format!("{:?}", row[0])), "the base lacks {:?} of {name}", row[0]);
            }
        }
    }
}

#[test]
fn random_fleets_through_the_program() {
    play(0);
}

#[test]
fn random_fleets_that_encrypt() {
    play(100);
}

/// Some who come by encrypt, others do not.
#[test]
fn random_fleets_of_which_some_encrypt() {
    play(50);
}

fn play(encrypt: u64) {
    let mut failed = Vec::new();
    for seed in seeds(3) {
        let mut fleet = Fleet::new(seed, encrypt);
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| fleet.live())).is_err() {
            eprintln!("PACKMULE_SEED={seed} replays it:\n{}", fleet.trace.join("\n"));
            failed.push(seed);
        }
    }
    assert!(failed.is_empty(), "{} failed: {failed:?}", failed.len());
}
