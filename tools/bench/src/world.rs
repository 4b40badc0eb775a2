//! Databases, devices and the rows that are written to them.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use packmule::{Engine, FleetKey, ImportReport, InitOptions, Mode, Recipient, TrackOptions};
use rusqlite::Connection;

/// Whatever goes wrong ends the run.
pub type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// Where the databases are, and how they are written to.
pub struct World {
    dir: PathBuf,
    fleet: FleetKey,
    synchronous: String,
    made: std::cell::Cell<u32>,
}

/// What a table's key is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Key {
    /// `INTEGER PRIMARY KEY`.
    Integer,
    /// `INTEGER PRIMARY KEY AUTOINCREMENT`.
    Auto,
    /// `TEXT PRIMARY KEY`, 16 random hexadecimal digits.
    Text,
}

impl World {
    /// Makes one in a new folder for this run alone.
    pub fn new(dir: &Path, synchronous: &str) -> Outcome<Self> {
        let fleet = FleetKey::create(&dir.join("fleet.key"))?;
        Ok(Self { dir: dir.into(), fleet, synchronous: synchronous.into(), made: 0.into() })
    }

    /// Returns the path of a file that is not there yet.
    pub fn path(&self, name: &str) -> PathBuf {
        self.made.set(self.made.get() + 1);
        self.dir.join(format!("{:04}-{name}", self.made.get()))
    }

    /// Makes a device; its tables are to follow.
    pub fn device(&self, name: &str, base: bool) -> Outcome<Engine> {
        let path = self.path(name);
        Ok(Engine::init(&path, &InitOptions { name, base, fleet: Some(&self.fleet) })?)
    }

    /// Opens an application's connection. `synchronous` is as the command line says, for plain SQLite too.
    pub fn open(&self, path: &Path) -> Outcome<Connection> {
        let db = Connection::open(path)?;
        db.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
        db.execute_batch(&format!("PRAGMA synchronous = {}", self.synchronous))?;
        db.busy_timeout(std::time::Duration::from_secs(5))?;
        Ok(db)
    }

    /// Removes a database that is no longer needed.
    pub fn remove(&self, path: &Path) {
        for end in ["", "-wal", "-shm", ".pmkey"] {
            let mut name = path.as_os_str().to_owned();
            name.push(end);
            let _ = std::fs::remove_file(name);
        }
    }

    /// Writes a bundle of what a peer lacks, or of everything; how long it is.
    pub fn export(&self, from: &mut Engine, to: Option<&Engine>, path: &Path) -> Outcome<u64> {
        let mut file = BufWriter::new(File::create(path)?);
        let recipient = to.map_or(Recipient::Anyone, |to| Recipient::Device(to.identity().id));
        let report = from.export(&mut file, recipient)?;
        file.flush()?;
        Ok(report.bytes)
    }

    /// Takes a bundle in.
    pub fn import(&self, to: &mut Engine, path: &Path) -> Outcome<ImportReport> {
        Ok(to.import(&mut File::open(path)?, &mut |_| ())?)
    }

    /// Carries a bundle from one to the other.
    pub fn carry(&self, from: &mut Engine, to: &mut Engine) -> Outcome<ImportReport> {
        let path = self.path("bundle");
        self.export(from, Some(to), &path)?;
        let report = self.import(to, &path);
        std::fs::remove_file(&path)?;
        report
    }
}

/// Returns the options of a table of shared rows.
pub fn shared() -> TrackOptions {
    TrackOptions::default()
}

/// Returns the options of a table of rows that belong to their device.
pub fn per_device() -> TrackOptions {
    TrackOptions { mode: Mode::PerDevice, ..TrackOptions::default() }
}

/// Returns the same for rows that are never changed.
pub fn append() -> TrackOptions {
    TrackOptions { append: true, ..per_device() }
}

/// Makes the table.
pub fn create(db: &Connection, key: Key) -> Outcome {
    let key = match key {
        Key::Integer => "INTEGER PRIMARY KEY",
        Key::Auto => "INTEGER PRIMARY KEY AUTOINCREMENT",
        Key::Text => "TEXT PRIMARY KEY",
    };
    Ok(db.execute_batch(&format!(
        "CREATE TABLE readings (id {key}, sensor TEXT, ts INTEGER, value REAL, note TEXT)"
    ))?)
}

/// Returns a number that looks random, the same in every run.
pub fn scramble(n: u64) -> u64 {
    let mut x = n.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// Returns the key of row number `n`, from 1.
fn key_of(key: Key, n: u64) -> rusqlite::types::Value {
    match key {
        Key::Integer | Key::Auto => (n as i64).into(),
        Key::Text => format!("{:016x}", scramble(n)).into(),
    }
}

const A_TRANSACTION: u64 = 1_000;

/// Runs `one` for each number, in transactions of 1,000.
fn in_transactions(
    db: &Connection,
    numbers: impl Iterator<Item = u64>,
    mut one: impl FnMut(u64) -> rusqlite::Result<usize>,
) -> Outcome {
    let mut n = 0;
    for number in numbers {
        if n % A_TRANSACTION == 0 {
            db.execute_batch("BEGIN IMMEDIATE")?;
        }
        one(number)?;
        n += 1;
        if n % A_TRANSACTION == 0 {
            db.execute_batch("COMMIT")?;
        }
    }
    if n % A_TRANSACTION != 0 {
        db.execute_batch("COMMIT")?;
    }
    Ok(())
}

/// Inserts rows of eight sensors; every tenth has a note.
pub fn insert(db: &Connection, key: Key, numbers: std::ops::RangeInclusive<u64>) -> Outcome {
    const SENSORS: [&str; 8] = ["temp-1", "temp-2", "temp-3", "hum-1", "hum-2", "press-1", "wind-1", "bat-1"];
    let mut statement =
        db.prepare("INSERT INTO readings (id, sensor, ts, value, note) VALUES (?1, ?2, ?3, ?4, ?5)")?;
    in_transactions(db, numbers, |n| {
        let value = (scramble(n) % 10_000) as f64 / 100.0;
        let note = n.is_multiple_of(10).then_some("door open");
        let sensor = SENSORS[(n % 8) as usize];
        let ts = 1_700_000_000 + n as i64;
        match key {
            Key::Auto => statement.execute((rusqlite::types::Null, sensor, ts, value, note)),
            key => statement.execute((key_of(key, n), sensor, ts, value, note)),
        }
    })
}

/// Updates one column of rows, each by its key; `salt` is another one every time.
pub fn update(db: &Connection, key: Key, numbers: impl Iterator<Item = u64>, salt: u64) -> Outcome {
    let mut statement = db.prepare("UPDATE readings SET value = ?2 WHERE id = ?1")?;
    in_transactions(db, numbers, |n| {
        // Never the value that is there: that would be no change.
        statement.execute((key_of(key, n), (scramble(n) % 10_000 + salt * 10_000) as f64 / 100.0))
    })
}

/// Deletes rows, each by its key.
pub fn delete(db: &Connection, key: Key, numbers: impl Iterator<Item = u64>) -> Outcome {
    let mut statement = db.prepare("DELETE FROM readings WHERE id = ?1")?;
    in_transactions(db, numbers, |n| statement.execute([key_of(key, n)]))
}

/// Returns `count` different numbers from 1 to `of`, spread over it.
pub fn spread(count: u64, of: u64) -> impl Iterator<Item = u64> {
    let step = (of / count).max(1);
    (0..count.min(of)).map(move |n| 1 + n * step)
}
