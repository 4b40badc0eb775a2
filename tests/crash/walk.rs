//! A trip with a fault in it, from the step that it falls into.
//!
//! The trip is gone once without a fault, and before each step all files are kept, with what the disk knows of them. A
//! fault is then tried from there. When the databases have recovered, or a step is done, what they hold is summed: rows of
//! all tables, Packmule's own too, with their rowids, the schema, keys, cards, and what the trip remembers. All else
//! follows from that alone (ids are counted from a number that the step and the attempt give), so what was gone on with
//! once is not gone on with again. A file that has been found sound is not looked through again while its bytes are the same.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::os::unix::fs::PermissionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::common::{Random, count_keys_from};
use super::disk::{self, Fault};
use super::{Done, Plan, Trip, text};
use rusqlite::Connection;
use rusqlite::types::ValueRef;

/// What has been looked at in a trip.
#[derive(Default)]
pub struct Known {
    /// Images of databases in which nothing is wrong.
    pub sound: BTreeSet<u64>,
    /// The sum of the content of an image.
    content: BTreeMap<u64, u64>,
    /// From where the trip has been gone on with: step, attempt and content.
    gone_on: BTreeSet<u64>,
}

fn sum(of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// The ends of the files of a database.
const ENDS: [&str; 4] = ["", "-wal", "-journal", "-shm"];

/// The sum of a database's files, whatever SQLite makes of them.
pub fn image(db: &Path) -> u64 {
    let read = |end: &&str| std::fs::read(format!("{}{end}", db.display())).ok();
    sum(&(db, ENDS[..3].iter().map(read).collect::<Vec<_>>()))
}

fn add_value(hasher: &mut DefaultHasher, value: ValueRef<'_>) {
    match value {
        ValueRef::Null => 0.hash(hasher),
        ValueRef::Integer(n) => (1, n).hash(hasher),
        ValueRef::Real(r) => (2, r.to_bits()).hash(hasher),
        ValueRef::Text(bytes) => (3, bytes).hash(hasher),
        ValueRef::Blob(bytes) => (4, bytes).hash(hasher),
    }
}

fn add_rows(hasher: &mut DefaultHasher, db: &Connection, sql: &str) -> rusqlite::Result<()> {
    let mut statement = db.prepare(sql)?;
    let columns = statement.column_count();
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        for at in 0..columns {
            add_value(hasher, row.get_ref(at)?);
        }
    }
    Ok(())
}

/// Tables with random numbers, that are asked for nothing but whether they are alike, and the columns without those.
const WITHOUT_THEIR_NUMBERS: [(&str, &str); 3] =
    [("_pm_statement", "peer, n"), ("_pm_stated", "n"), ("_pm_copy", "peer, dev, stream, seq")];

/// The sum of all that a database holds.
fn content(db: &Connection) -> rusqlite::Result<u64> {
    let mut hasher = DefaultHasher::new();
    for pragma in ["user_version", "application_id", "schema_version", "journal_mode"] {
        add_rows(&mut hasher, db, &format!("PRAGMA {pragma}"))?;
    }
    add_rows(&mut hasher, db, "SELECT type, name, sql FROM sqlite_schema ORDER BY type, name")?;
    let mut tables = db.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")?;
    let names: Vec<String> = tables.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    for name in names {
        name.hash(&mut hasher);
        if let Some((_, columns)) = WITHOUT_THEIR_NUMBERS.iter().find(|(table, _)| *table == name) {
            add_rows(&mut hasher, db, &format!("SELECT {columns} FROM {name} ORDER BY {columns}"))?;
            continue;
        }
        let with_rowids = format!("SELECT rowid, * FROM \"{name}\" ORDER BY rowid");
        if db.prepare(&with_rowids).is_ok() {
            add_rows(&mut hasher, db, &with_rowids)?;
        } else {
            add_rows(&mut hasher, db, &format!("SELECT * FROM \"{name}\""))?;
        }
    }
    Ok(hasher.finish())
}

/// All files of a folder, with their modes.
type Files = BTreeMap<PathBuf, (u32, Vec<u8>)>;

fn read_files(folder: &Path, to: &mut Files) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            read_files(&path, to);
        } else {
            let mode = entry.metadata().unwrap().permissions().mode();
            to.insert(path.clone(), (mode, std::fs::read(path).unwrap()));
        }
    }
}

fn write_files(folder: &Path, files: &Files) {
    let mut there = Files::new();
    read_files(folder, &mut there);
    there
        .keys()
        .filter(|path| !files.contains_key(*path))
        .for_each(|path| std::fs::remove_file(path).unwrap());
    for (path, (mode, bytes)) in files.iter().filter(|(path, file)| there.get(*path) != Some(file)) {
        std::fs::write(path, bytes).unwrap();
        std::fs::set_permissions(path, PermissionsExt::from_mode(*mode)).unwrap();
    }
}

/// A trip between two steps.
struct Place {
    trip: Trip,
    files: Files,
    disk: disk::Saved,
    /// How many operations of a kind the step after it has.
    operations: [u64; KINDS.len()],
}

/// One fault for each kind of operation.
const KINDS: [Fault; 3] = [Fault::Cut, Fault::Unreadable, Fault::NoMemory];

/// Which kind of operation a fault falls on.
fn kind(fault: Fault) -> usize {
    match fault {
        Fault::Cut | Fault::Full | Fault::Broken => 0,
        Fault::Unreadable => 1,
        Fault::NoMemory => 2,
    }
}

impl Place {
    fn of(trip: &Trip) -> Self {
        let mut files = Files::new();
        read_files(trip.world.dir.path(), &mut files);
        Self { trip: trip.clone(), files, disk: disk::save(), operations: [0; KINDS.len()] }
    }

    /// The trip as it was here.
    fn back(&self) -> Trip {
        write_files(self.trip.world.dir.path(), &self.files);
        disk::restore(&self.disk);
        self.trip.clone()
    }
}

/// What a step makes is counted from here.
fn begin_step(n: usize, attempt: u64) {
    count_keys_from(1 << 32 | (n as u64) << 16 | attempt.min(2) << 12);
}

/// What may be left after a fault.
struct Faulty {
    random: Random,
    attempt: u64,
    /// Whether the power goes once more, while they recover.
    again: bool,
}

impl Faulty {
    /// The power comes back.
    fn recover(&mut self, trip: &Trip) {
        disk::power_on(&mut self.random);
        if std::mem::take(&mut self.again) {
            disk::next_fault(Some((Fault::Cut, 1 + self.random.below(12))));
            let _ = trip.check();
            if disk::state().0 {
                disk::power_on(&mut self.random);
            }
        }
        disk::next_fault(None);
    }
}

/// Says whether a failure of the disk is called damage.
fn is_called_damage(said: &str) -> bool {
    said.contains("damaged") || said.contains("malformed")
}

impl Trip {
    /// The sum of what a device holds.
    fn content_of(&self, name: &str) -> Done<u64> {
        let image = image(&self.world.path(name));
        if let Some(content) = self.known.borrow().content.get(&image) {
            return Ok(*content);
        }
        let content = content(&self.app(name)?).map_err(text)?;
        self.known.borrow_mut().content.insert(image, content);
        Ok(content)
    }

    /// The sum of all from which the trip goes on.
    fn sum(&self, n: usize, attempt: u64) -> Done<u64> {
        let mut files = Files::new();
        read_files(self.world.dir.path(), &mut files);
        let (mut contents, mut of_databases) = (Vec::new(), BTreeSet::new());
        for (path, _) in files.iter().filter(|(path, _)| path.extension().is_some_and(|end| end == "db")) {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            contents.push(self.content_of(&name)?);
            of_databases.extend(ENDS.map(|end| PathBuf::from(format!("{}{end}", path.display()))));
        }
        files.retain(|path, _| !of_databases.contains(path));
        // What was drawn for a bundle is in it, and in its signatures.
        let bundles = files.iter_mut().filter(|(path, _)| path.extension().is_some_and(|end| end == "PMB"));
        bundles.for_each(|(_, (_, bytes))| *bytes = bytes.len().to_le_bytes().into());
        let remembered = format!(
            "{:?}",
            (&self.told, &self.numbers, &self.gone, &self.devices, &self.identities, &self.decided)
        );
        Ok(sum(&(n, attempt.min(2), contents, files, remembered)))
    }

    /// Whether all that follows from here is known.
    fn is_known(&self, n: usize, attempt: u64) -> Done<bool> {
        let sum = self.sum(n, attempt)?;
        Ok(!self.known.borrow_mut().gone_on.insert(sum))
    }

    /// Goes on from a step in which something fails. `Ok(false)`: nothing has failed.
    fn go_on(mut self, mut n: usize, mut faulty: Faulty) -> Done<bool> {
        while n < self.plan.steps.len() {
            begin_step(n, faulty.attempt);
            self.skipped.clear();
            let done = self.plan.steps[n](&mut self);
            let (out, failed) = disk::state();
            let first = faulty.attempt == 0 && (out || failed);
            if out {
                faulty.recover(&self);
                self.check().map_err(|e| format!("after a cut in step {n}: {e}"))?;
            } else if failed {
                disk::next_fault(None);
                let said = [done.clone().err().unwrap_or_default(), self.skipped.clone()].concat();
                if is_called_damage(&said) {
                    return Err(format!("step {n}: a failure of the disk is called damage: {said}"));
                }
                self.check().map_err(|e| format!("after a failure in step {n}: {e}"))?;
            }
            if out || failed && done.is_err() {
                faulty.attempt += 1;
            } else {
                done.map_err(|e| format!("step {n}: {e}"))?;
                self.note();
                (n, faulty.attempt) = (n + 1, u64::from(first || faulty.attempt > 0));
            }
            if faulty.attempt == 0 {
                return Ok(false);
            }
            if self.is_known(n, faulty.attempt)? {
                return Ok(true);
            }
        }
        self.end().map_err(|e| format!("at the end: {e}")).map(|()| true)
    }
}

/// A trip on which nothing fails, and its places.
struct Walk(Vec<Place>);

impl Walk {
    fn new(plan: &'static Plan, journal: Option<&'static str>, swallows: bool) -> Self {
        disk::begin(None, swallows);
        let mut trip = Trip::new(plan, journal);
        let mut places = Vec::new();
        for (n, step) in plan.steps.iter().enumerate() {
            let mut place = Place::of(&trip);
            disk::next_fault(None);
            begin_step(n, 0);
            let before = KINDS.map(disk::operations);
            step(&mut trip).unwrap_or_else(|e| panic!("{}, step {n}: {e}", plan.name));
            let after = KINDS.map(disk::operations);
            place.operations = std::array::from_fn(|at| after[at] - before[at]);
            trip.note();
            places.push(place);
        }
        trip.end().unwrap_or_else(|e| panic!("{}, at the end: {e}", plan.name));
        Self(places)
    }

    fn operations(&self, fault: Fault) -> u64 {
        self.0.iter().map(|place| place.operations[kind(fault)]).sum()
    }

    /// Tries a fault at one operation of all. `Ok(false)`: it was not come to.
    fn with(&self, fault: Fault, at: u64) -> Done<bool> {
        let (mut n, mut left) = (0, at);
        while left > self.0[n].operations[kind(fault)] {
            left -= self.0[n].operations[kind(fault)];
            n += 1;
        }
        let trip = self.0[n].back();
        disk::next_fault(Some((fault, left)));
        let mut random = Random(at);
        let again = random.chance(50);
        trip.go_on(n, Faulty { random, attempt: 0, again })
    }
}

/// Which operations are tried, of so many: evenly spread.
pub fn tried(fault: Fault, of: u64, usual: u64) -> Vec<u64> {
    if let Ok(one) = std::env::var("PACKMULE_CUT") {
        let (name, at) = one.split_once(':').unwrap();
        return if format!("{fault:?}") == name { vec![at.parse().unwrap()] } else { Vec::new() };
    }
    let n = match std::env::var("PACKMULE_CUTS").ok().as_deref() {
        // There are more than a million allocations on a trip.
        Some("all") if fault == Fault::NoMemory => of / 100,
        Some("all") => of,
        Some(n) => n.parse().unwrap(),
        None => usual,
    };
    (0..n.min(of)).map(|k| 1 + k * of / n.min(of)).collect()
}

/// Tries a fault at operations of a trip; what went wrong.
pub fn faults(
    plan: &'static Plan,
    journal: Option<&'static str>,
    fault: Fault,
    usual: u64,
    swallows: bool,
) -> Vec<String> {
    let walk = Walk::new(plan, journal, swallows);
    let of = walk.operations(fault);
    let at = tried(fault, of, usual);
    let (mode, begun) = (journal.unwrap_or("wal"), Instant::now());
    let (mut wrong, mut missed) = (Vec::new(), 0);
    for (n, at) in at.iter().enumerate() {
        match catch_unwind(AssertUnwindSafe(|| walk.with(fault, *at)))
            .unwrap_or_else(|_| Err("a panic".into()))
        {
            Ok(true) => {}
            Ok(false) => missed += 1,
            Err(e) => {
                let told = format!("{}, {mode}, {fault:?}:{at}: {e}", plan.name);
                // At once: all that follow can take long.
                println!("{told}");
                wrong.push(told);
            }
        }
        if (n + 1) % 500 == 0 {
            println!("{}, {mode}, {fault:?}: {} so far, {} s", plan.name, n + 1, begun.elapsed().as_secs());
        }
    }
    let known = walk.0[0].trip.known.borrow();
    println!(
        "{}, {mode}, {fault:?}: {} of {of} tried, {missed} not come to, {} images of databases, \
         {} states gone on from, {} failures, {} s",
        plan.name,
        at.len(),
        known.sound.len(),
        known.gone_on.len(),
        wrong.len(),
        begun.elapsed().as_secs()
    );
    wrong
}
