//! Whole fleets at random, as data that a test can let live: the devices with what is known of each by construction, what
//! their applications write, and the cards between them.

mod events;
mod judge;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use packmule::core::model::DeviceId;
use packmule::{ColumnMerge, Engine, InitOptions, Merge, Options, Policy, TrackOptions};
use rusqlite::Connection;

use crate::common::*;

/// One device of the fleet, with what is known of it by construction.
struct Device {
    engine: Engine,
    /// Its application's connection.
    app: Connection,
    base: bool,
    backups: Vec<PathBuf>,
    /// Up to where its streams went before it was restored, as long as it has not got them back.
    lost: Option<[u64; 2]>,
    /// It wrote something while it lacked what it had lost, or beside a copy of itself: a real second history.
    second: bool,
    /// How many frames of verdicts of its own it had when it was restored or copied.
    verdicts: usize,
    /// The device of which it is a copy, or the copy of it.
    twin: Option<usize>,
    /// It is a copy that is carried about, and writes nothing.
    silent: bool,
    /// It wrote something since it was copied.
    wrote: bool,
    revoked: bool,
    /// The identities under which it was revoked: it can have left these.
    revoked_as: Vec<DeviceId>,
    /// The group in which it lives, while groups live apart.
    group: u64,
}

/// What happened, so that it is known that something did.
#[derive(Default, Debug)]
pub struct Met {
    pub restored: u32,
    pub second: u32,
    pub copied: u32,
    pub silent: u32,
    pub folded: u64,
    pub states: u32,
    pub revoked: u32,
    pub retired: u32,
    pub back: u32,
    pub pruned: u64,
    pub merged: u32,
    pub resolved: u32,
    pub conflicts: usize,
    pub verdicts: usize,
    pub twice: usize,
}

impl Met {
    /// Adds what another thread's fleets met.
    pub fn add(&mut self, of: &Self) {
        self.restored += of.restored;
        self.second += of.second;
        self.copied += of.copied;
        self.silent += of.silent;
        self.folded += of.folded;
        self.states += of.states;
        self.revoked += of.revoked;
        self.retired += of.retired;
        self.back += of.back;
        self.pruned += of.pruned;
        self.merged += of.merged;
        self.resolved += of.resolved;
        self.conflicts += of.conflicts;
        self.verdicts += of.verdicts;
        self.twice += of.twice;
    }

    /// Whether everything happened that can happen.
    pub fn is_everything(&self) -> bool {
        let some =
            [self.restored, self.second, self.copied, self.states, self.revoked, self.retired, self.back];
        let more = [self.folded, self.pruned, self.merged.into(), self.resolved.into(), self.silent.into()];
        some.iter().all(|n| *n > 0) && more.iter().all(|n| *n > 0) && self.conflicts > 0 && self.verdicts > 0
    }
}

struct Fleet {
    world: World,
    random: Random,
    seed: u64,
    devices: Vec<Device>,
    cards: Vec<PathBuf>,
    /// Bundles under way: for which device.
    post: Vec<(usize, Vec<u8>)>,
    files: u32,
    values: u32,
    apart: bool,
    /// Which device wrote a reading.
    authors: BTreeMap<String, usize>,
    /// Readings that were pruned, by the word of a base, and that no base has lost with its card.
    pruned: BTreeSet<String>,
    /// Readings that any device pruned: a silent copy of it does not bring them back.
    ever_pruned: BTreeSet<String>,
    /// A base was restored: it may have lost what it said before that it has.
    base_restored: bool,
    trace: Vec<String>,
    /// The control: settled values count as seen by every write.
    broken: bool,
    without: Vec<String>,
}

const NOTES: &str =
    "CREATE TABLE notes (id TEXT PRIMARY KEY, body TEXT, n INTEGER DEFAULT 0, r REAL DEFAULT 0,
    hi INTEGER, lo INTEGER)";
/// The rules of its columns, in fleets that have such.
const RULES: [(&str, ColumnMerge); 4] = [
    ("n", ColumnMerge::Counter),
    ("r", ColumnMerge::Counter),
    ("hi", ColumnMerge::Max),
    ("lo", ColumnMerge::Min),
];
const TAGS: &str = "CREATE TABLE tags (id TEXT PRIMARY KEY, name TEXT UNIQUE);
    CREATE TABLE marks (id TEXT PRIMARY KEY, tag TEXT REFERENCES tags (id), n INT)";
/// A trigger of another table, so that there are triggers, but none of `tags`.
const SEEN: &str = "CREATE TABLE seen (id TEXT);
    CREATE TRIGGER saw AFTER UPDATE ON marks BEGIN INSERT INTO seen VALUES (NEW.id); END";
const READINGS: &str = "CREATE TABLE readings (id INTEGER PRIMARY KEY AUTOINCREMENT, v TEXT)";
const STATE: &str = "CREATE TABLE state (k TEXT PRIMARY KEY, v TEXT)";

impl Fleet {
    fn new(seed: u64, broken: bool) -> Self {
        let without = std::env::var("PACKMULE_WITHOUT").unwrap_or_default();
        let mut fleet = Self {
            world: World::seeded(seed),
            random: Random(seed),
            seed,
            devices: Vec::new(),
            cards: Vec::new(),
            post: Vec::new(),
            files: 0,
            values: 0,
            apart: seed.is_multiple_of(3),
            authors: BTreeMap::new(),
            pruned: BTreeSet::new(),
            ever_pruned: BTreeSet::new(),
            base_restored: false,
            trace: Vec::new(),
            broken,
            without: without.split(',').map(str::to_owned).collect(),
        };
        (0..4).for_each(|n| fleet.cards.push(fleet.folder(n)));
        fleet.appear(true);
        (0..2).for_each(|_| fleet.appear(false));
        fleet
    }

    fn options(&self) -> Options {
        Options { broken_verdict: self.broken, ..self.world.options() }
    }

    fn folder(&self, n: u32) -> PathBuf {
        let path = self.world.dir.path().join(format!("card{n}"));
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    fn file(&mut self) -> PathBuf {
        self.files += 1;
        self.world.path(&format!("copy{}", self.files))
    }

    fn below(&mut self, n: usize) -> usize {
        self.random.below(n as u64) as usize
    }

    /// A device appears, with rows of its own before it meets anybody.
    fn appear(&mut self, base: bool) {
        let n = self.devices.len();
        let name = format!("{}{n}", if base { "base" } else { "board" });
        let init = InitOptions { name: &name, base, fleet: Some(&self.world.fleet) };
        let engine = Engine::init_with(&self.world.path(&name), &init, self.options()).unwrap();
        let group = self.random.below(2);
        self.devices.push(Device::new(engine, base, group));
        self.trace.push(format!("d{n} appears, a {}, in group {group}", if base { "base" } else { "board" }));
        self.connect(n);
        self.make_tables(n);
        self.write(n);
    }

    /// Boards have the tables of the fleet, most of them all; a base may have some, by the same script.
    fn make_tables(&mut self, d: usize) {
        let often = if self.devices[d].base { 30 } else { 80 };
        let merge = if self.seed % 4 == 1 { Merge::Cell } else { Merge::Row };
        let policy = if self.seed % 5 == 1 { Policy::Lww } else { Policy::Manual };
        let shared = TrackOptions { merge, policy, ..TrackOptions::default() };
        let rules = RULES.map(|(column, rule)| (column.to_owned(), rule));
        let columns = if self.seed % 4 < 3 { rules.into() } else { Vec::new() };
        let counting = TrackOptions { columns, ..shared.clone() };
        let [notes, unique, state] = [100, often, often].map(|percent| self.random.chance(percent));
        let notes = notes && (!self.devices[d].base || self.random.chance(30));
        let readings = !self.devices[d].base || self.random.chance(10);
        let tables: [(_, &[&str], _, _); 4] = [
            (notes, &["notes"], NOTES, &counting),
            (unique, &["tags", "marks"], TAGS, &shared),
            (readings, &["readings"], READINGS, &append()),
            (readings && state, &["state"], STATE, &per_device()),
        ];
        let device = &mut self.devices[d];
        let here = || tables.iter().filter(|(there, ..)| *there);
        here().for_each(|(_, _, text, _)| device.app.execute_batch(text).unwrap());
        match self.seed % 3 {
            0 if unique => device.app.execute_batch(MIRROR).unwrap(),
            1 if unique => device.app.execute_batch(SEEN).unwrap(),
            _ => {}
        }
        for (_, names, _, options) in here() {
            device.engine.track_all(names, options).unwrap();
        }
    }

    fn write(&mut self, d: usize) {
        if self.devices[d].silent {
            return;
        }
        self.values += 1;
        let n = self.values;
        let mut texts = Vec::new();
        if self.devices[d].has("notes") {
            texts.push(self.note());
        }
        if self.devices[d].has("tags") && self.random.chance(40) {
            texts.push(self.tag());
        }
        if self.devices[d].has("marks") && self.random.chance(25) {
            let (key, tag) = (self.below(3), self.below(4));
            texts.push(format!("INSERT OR REPLACE INTO marks VALUES ('m{key}', 't{tag}', {n})"));
        }
        if self.devices[d].owns("readings") {
            texts.push(format!("INSERT INTO readings (v) VALUES ('r{n}')"));
            self.authors.insert(format!("\"r{n}\""), d);
        }
        if self.devices[d].owns("state") && self.random.chance(40) {
            let key = self.below(3);
            texts.push(match self.below(4) {
                0 => format!("DELETE FROM state WHERE k = 's{key}'"),
                _ => format!("INSERT OR REPLACE INTO state VALUES ('s{key}', 'w{n}')"),
            });
        }
        for text in &mut texts {
            match self.devices[d].app.execute_batch(text) {
                Ok(()) => {}
                // Half of the fleets let SQLite watch their foreign keys.
                Err(e) if e.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation) => {
                    text.push_str(" -- is refused");
                }
                Err(e) => panic!("{text}: {e}"),
            }
        }
        // By this machine's clock no seed would live twice alike.
        written_by(&self.devices[d].engine, self.world.now());
        self.touched(d);
        self.trace.push(format!("d{d}: {}", texts.join("; ")));
    }

    fn note(&mut self) -> String {
        let (key, value) = (format!("k{}", self.below(5)), format!("v{}", self.values));
        let k = self.below(9) as i64 - 3;
        match self.below(10) {
            0 => format!("DELETE FROM notes WHERE id = '{key}'"),
            1 | 2 => format!("UPDATE notes SET n = n + {k} WHERE id = '{key}'"),
            3 => format!("UPDATE notes SET r = r + {k} * 0.1 WHERE id = '{key}'"),
            4 => format!("UPDATE notes SET hi = {k}, lo = {k} WHERE id = '{key}'"),
            5 => format!("UPDATE notes SET body = '{value}' WHERE id = '{key}'"),
            _ => format!(
                "INSERT INTO notes VALUES ('{key}', '{value}', {k}, {k} / 10.0, {k}, {k})
                 ON CONFLICT DO UPDATE SET body = excluded.body"
            ),
        }
    }

    /// Few names, so that two devices claim one.
    fn tag(&mut self) -> String {
        let (key, name) = (self.below(4), self.below(4));
        match self.below(6) {
            0 => format!("DELETE FROM tags WHERE id = 't{key}'"),
            1 => format!("UPDATE OR IGNORE tags SET name = 'n{name}' WHERE id = 't{key}'"),
            2 => format!("UPDATE tags SET name = NULL WHERE id = 't{key}'"),
            3 => format!("INSERT OR REPLACE INTO tags VALUES ('t{key}', 'n{name}')"),
            _ => format!("INSERT OR IGNORE INTO tags VALUES ('t{key}', 'n{name}')"),
        }
    }

    /// A device is to write something of its own.
    fn touched(&mut self, d: usize) {
        self.recovered(d);
        if self.devices[d].silent {
            return;
        }
        self.wrote(d);
        self.devices[d].second |= self.devices[d].lost.is_some();
    }

    /// Of a device and its copy that have both written, each is a second history.
    fn wrote(&mut self, d: usize) {
        self.devices[d].wrote = true;
        let Some(twin) = self.devices[d].twin else { return };
        if self.devices[twin].wrote {
            [d, twin].iter().for_each(|d| self.devices[*d].second = true);
        }
    }

    /// Finds whether a device that was restored has got back what it had lost.
    fn recovered(&mut self, d: usize) {
        let device = &self.devices[d];
        if device.lost.is_none() && device.twin.is_none() {
            return;
        }
        let now = positions(&device.engine);
        // A verdict is written, too. A copy that nobody writes to still says that it is back, if it was retired, and says
        // its rows again for a base that seems to lack them: others can take that in and build on it. The one stream can be
        // behind while the other is not.
        let is_ahead = |twin: usize| writes_otherwise(device, &self.devices[twin]);
        let ahead = device.silent && device.twin.is_some_and(is_ahead);
        let device = &mut self.devices[d];
        let said = ahead || own_verdicts(device) > device.verdicts;
        device.second |= device.lost.is_some() && said;
        if device.lost.is_some_and(|lost| lost.iter().zip(now).all(|(lost, now)| now >= *lost)) {
            device.lost = None;
        }
        if said {
            self.wrote(d);
        }
    }

    fn connect(&mut self, d: usize) {
        self.devices[d].connect(self.seed % 2 == 1);
    }

    fn off(&self, kind: &str) -> bool {
        self.broken || self.without.iter().any(|name| name == kind)
    }
}

impl Device {
    fn new(engine: Engine, base: bool, group: u64) -> Self {
        Self {
            app: Connection::open_in_memory().unwrap(),
            engine,
            base,
            backups: Vec::new(),
            lost: None,
            second: false,
            verdicts: 0,
            twin: None,
            silent: false,
            wrote: false,
            revoked: false,
            revoked_as: Vec::new(),
            group,
        }
    }

    /// Its application connects to the database, as it does when it starts.
    fn connect(&mut self, foreign_keys: bool) {
        self.app = app(&self.engine);
        self.app.pragma_update(None, "foreign_keys", foreign_keys).unwrap();
    }

    fn has(&self, table: &str) -> bool {
        self.app.prepare(&format!("SELECT 1 FROM {table}")).is_ok()
    }

    /// Whether it has a per-device table for rows of its own.
    fn owns(&self, table: &str) -> bool {
        self.has(table) && self.app.prepare(&format!("SELECT device FROM {table}")).is_err()
    }

    /// The rows of its own.
    fn own(&self, table: &str) -> Vec<String> {
        if !self.owns(table) {
            return Vec::new();
        }
        // Of readings, the ids of two histories of one device are the same.
        let what = if table == "readings" { "v" } else { "k, v" };
        dump(&self.app, &format!("SELECT {what} FROM {table} ORDER BY 1"))
    }

    /// What a base has gathered of all devices, or of the one that is so labelled.
    fn gathered(&self, table: &str, of: Option<&str>) -> Vec<String> {
        let beside = format!("{table}_gathered");
        let from = if self.owns(table) { beside.as_str() } else { table };
        if !self.has(from) {
            return Vec::new();
        }
        let what = if table == "readings" { "v" } else { "k, v" };
        let of = of.map(|label| format!("WHERE device = '{label}'")).unwrap_or_default();
        dump(&self.app, &format!("SELECT {what} FROM {from} {of} ORDER BY 1"))
    }

    fn label(&self) -> String {
        packmule::label(self.engine.identity().id, Some(&self.engine.identity().name))
    }
}

/// Up to where a device's own streams go.
fn positions(engine: &Engine) -> [u64; 2] {
    let this = engine.devices().unwrap().into_iter().find(|d| d.this).unwrap();
    [this.shared, this.own]
}

/// Whether of one of its own streams a device has what another database under its identity has not.
fn writes_otherwise(device: &Device, twin: &Device) -> bool {
    let id = device.engine.identity().id;
    let of = format!("dev = (SELECT n FROM _pm_device WHERE id = x'{id}')");
    let ends = dump(&device.app, &format!("SELECT stream, seq, hex(chain) FROM _pm_stream WHERE {of}"));
    let known = format!(
        "SELECT stream, seq, hex(chain) FROM _pm_stream WHERE {of}
         UNION ALL SELECT stream, last, hex(chain) FROM _pm_group WHERE {of}"
    );
    let known = dump(&twin.app, &known);
    positions(&device.engine).iter().zip(positions(&twin.engine)).any(|(ours, its)| *ours > its)
        || ends.iter().any(|end| {
            let place = &end[..=end.rfind('|').unwrap()];
            !known.contains(end) && known.iter().any(|other| other.starts_with(place))
        })
}

/// How many frames of verdicts a device has written, of those in its log.
fn own_verdicts(device: &Device) -> usize {
    let sql = format!(
        "SELECT count(*) FROM _pm_frame JOIN _pm_device ON n = dev
         WHERE id = x'{}' AND {IS_VERDICT}",
        device.engine.identity().id
    );
    dump(&device.app, &sql)[0].parse().unwrap()
}

/// Lets a fleet live; tells why it did not end as it should, and what happened to it.
pub fn life(seed: u64, broken: bool, met: &mut Met) -> Result<(), (String, String)> {
    let mut fleet = Fleet::new(seed, broken);
    let lived = catch_unwind(AssertUnwindSafe(|| fleet.live(met)));
    let why = match lived {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(why)) => why,
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
            format!("it panicked: {}", text.unwrap_or_default())
        }
    };
    Err((why, fleet.trace.join("\n")))
}

fn ids(devices: &[Device]) -> Vec<DeviceId> {
    devices.iter().map(|d| d.engine.identity().id).collect()
}
