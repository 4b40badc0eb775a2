//! What the tests share: a fleet in a temporary folder, applications that know nothing of
//! Packmule, and bundles carried between them.
#![allow(dead_code)] // Each test uses a part of it.

mod random;

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use packmule::carry::card::{self, Exchange, Limits};
use packmule::carry::session::Session;
use packmule::carry::volume::Directory;
use packmule::{
    Engine, FleetKey, ImportReport, InitOptions, Mode, NewColumns, Options, Recipient, TrackOptions,
};
use rusqlite::Connection;

#[allow(unused_imports)] // Each test uses a part of it.
pub use random::*;

thread_local! {
    /// Counts the keys of a world, so that the same schedule has the same device ids every time.
    static KEYS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// From where on the ids of what is made next are counted: what is done again comes out alike.
#[allow(dead_code)] // Each test uses a part of this.
pub fn count_keys_from(n: u64) {
    KEYS.with(|keys| keys.set(n));
}

fn next_key(seed: &mut [u8; 32]) -> std::io::Result<()> {
    let n = KEYS.with(|keys| keys.replace(keys.get() + 1));
    seed[..8].copy_from_slice(&n.to_le_bytes());
    seed[31] = 1; // All zeros are no seed.
    Ok(())
}

pub struct World {
    pub dir: tempfile::TempDir,
    pub fleet: FleetKey,
    /// What every device takes for the time, in milliseconds since 1970.
    pub clock: Arc<AtomicI64>,
}

impl World {
    pub fn new() -> Self {
        Self::seeded(0)
    }

    /// A world whose devices have ids by this seed.
    pub fn seeded(seed: u64) -> Self {
        KEYS.with(|keys| keys.set(seed << 8));
        // In memory where there is such a folder: what is tested here is not the disk.
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() {
            tempfile::tempdir_in(memory).unwrap()
        } else {
            tempfile::tempdir().unwrap()
        };
        let fleet = FleetKey::create(&dir.path().join("fleet.key")).unwrap();
        Self { dir, fleet, clock: Arc::new(AtomicI64::new(1_700_000_000_000)) }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.db"))
    }

    pub fn options(&self) -> Options {
        Self::options_by(&self.clock)
    }

    /// Options of a device with a clock of its own.
    pub fn options_by(clock: &Arc<AtomicI64>) -> Options {
        let clock = clock.clone();
        Options {
            clock: Box::new(move || clock.load(Ordering::Relaxed)),
            busy_ms: 200,
            random: next_key,
            ..Options::default()
        }
    }

    pub fn board(&self, name: &str) -> Engine {
        self.device(name, false)
    }

    pub fn base(&self, name: &str) -> Engine {
        self.device(name, true)
    }

    fn device(&self, name: &str, base: bool) -> Engine {
        let init = InitOptions { name, base, fleet: Some(&self.fleet) };
        Engine::init_with(&self.path(name), &init, self.options()).unwrap()
    }

    /// A board whose tables are made by this SQL, and tracked as shared.
    pub fn board_with(&self, name: &str, sql: &str, tables: &[&str]) -> Engine {
        let mut engine = self.board(name);
        app(&engine).execute_batch(sql).unwrap();
        tables.iter().for_each(|table| {
            engine.track(table, &TrackOptions::default()).unwrap();
        });
        engine
    }

    pub fn now(&self) -> i64 {
        self.clock.load(Ordering::Relaxed)
    }

    pub fn tick(&self, ms: i64) {
        self.clock.fetch_add(ms, Ordering::Relaxed);
    }
}

/// The file of a device's secret key, beside its database.
pub fn key_file(db: &Path) -> PathBuf {
    db.with_extension("db.pmkey")
}

/// Copies a device with its key, as an image of its SD card would.
pub fn copy_card(of: &Engine, to: &Path) {
    sql(of, &format!("VACUUM INTO '{}'", to.display()));
    std::fs::copy(key_file(of.path()), key_file(to)).unwrap();
    open(to).execute_batch("PRAGMA journal_mode = WAL").unwrap();
}

/// An application's connection: SQLite's own defaults, nothing of Packmule.
pub fn app(engine: &Engine) -> Connection {
    open(engine.path())
}

pub fn open(path: &Path) -> Connection {
    let db = Connection::open(path).unwrap();
    db.busy_timeout(std::time::Duration::from_millis(200)).unwrap();
    db
}

pub fn sql(engine: &Engine, sql: &str) {
    let app = app(engine);
    // Where a session is at the database too, a busy machine keeps it long.
    app.busy_timeout(std::time::Duration::from_secs(60)).unwrap();
    app.execute_batch(sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
}

/// Sets when an application wrote what is not sealed yet. Under `lww` the trigger asks the system for the time, which
/// no test can set.
pub fn written_at(engine: &Engine, ms: i64) {
    note_time(engine, &format!("wall = {ms}"));
}

/// Says of what was written after this moment, by this machine's clock, that it was written then.
pub fn written_by(engine: &Engine, ms: i64) {
    note_time(engine, &format!("wall = {ms} WHERE wall > {ms}"));
}

fn note_time(engine: &Engine, set: &str) {
    for list in rows(
        engine,
        "SELECT name FROM sqlite_schema s WHERE name LIKE '\\_pm\\_dirty\\_%' ESCAPE '\\'
         AND EXISTS (SELECT 1 FROM pragma_table_info(s.name) WHERE name = 'wall')",
    ) {
        sql(engine, &format!("UPDATE {} SET {set}", list.trim_matches('"')));
    }
}

pub fn per_device() -> TrackOptions {
    TrackOptions { mode: Mode::PerDevice, ..TrackOptions::default() }
}

/// A table that gets the columns of other devices by itself, also where an application made it.
pub fn follow() -> TrackOptions {
    TrackOptions { new_columns: Some(NewColumns::Follow), ..TrackOptions::default() }
}

pub fn append() -> TrackOptions {
    TrackOptions { append: true, ..per_device() }
}

/// A bundle for one device, from what it is known to have.
pub fn bundle(from: &mut Engine, to: &Engine) -> Vec<u8> {
    let mut bytes = Vec::new();
    from.export(&mut bytes, Recipient::Device(to.identity().id)).unwrap();
    bytes
}

/// A bundle of all that is in the log.
pub fn whole_bundle(from: &mut Engine) -> Vec<u8> {
    let mut bytes = Vec::new();
    from.export(&mut bytes, Recipient::Anyone).unwrap();
    bytes
}

pub fn import(to: &mut Engine, bytes: &[u8]) -> ImportReport {
    try_import(to, bytes).unwrap()
}

pub fn try_import(to: &mut Engine, bytes: &[u8]) -> packmule::Result<ImportReport> {
    to.import(&mut Cursor::new(bytes), &mut |_| ())
}

pub fn carry(from: &mut Engine, to: &mut Engine) -> ImportReport {
    let bytes = bundle(from, to);
    import(to, &bytes)
}

/// Carries between two of many.
pub fn carry_between(devices: &mut [Engine], from: usize, to: usize) -> ImportReport {
    let [from, to] = devices.get_disjoint_mut([from, to]).unwrap();
    carry(from, to)
}

/// Carries until everybody has everything.
pub fn carry_all(devices: &mut [&mut Engine]) {
    for _ in 0..2 {
        for from in 0..devices.len() {
            for to in 0..devices.len() {
                if from != to {
                    let [from, to] = devices.get_disjoint_mut([from, to]).unwrap();
                    carry(from, to);
                }
            }
        }
    }
}

/// A device exchanges with the card that is mounted here.
pub fn exchange_with_card(engine: &mut Engine, card: &Path) -> Exchange {
    let mut report = Exchange::default();
    let mut directory = Directory::open(card).unwrap();
    card::exchange(engine, &mut directory, &Limits::default(), &mut |_, _| (), &mut report).unwrap();
    report
}

/// All rows of a query, each value exactly, in SQLite's own literals.
/// What is remembered of versions, in SQL.
pub const HEADS: &str = "(SELECT tid FROM _pm_head UNION ALL SELECT tid FROM _pm_stretch)";

/// What an application derives from the table `tags` by triggers, and keeps to itself: whatever comes in, it is what `tags` is.
pub const MIRROR: &str = "CREATE TABLE mirror (id TEXT PRIMARY KEY, name TEXT UNIQUE);
    CREATE TRIGGER made AFTER INSERT ON tags BEGIN INSERT OR REPLACE INTO mirror VALUES (NEW.id, NEW.name); END;
    CREATE TRIGGER gone AFTER DELETE ON tags BEGIN DELETE FROM mirror WHERE id = OLD.id; END;
    CREATE TRIGGER became AFTER UPDATE ON tags BEGIN
      DELETE FROM mirror WHERE id = OLD.id; INSERT OR REPLACE INTO mirror VALUES (NEW.id, NEW.name);
    END";

/// A session of two, in this process: some turns, in each of which one says about `most` bytes at the most; it is over before
/// that where `is_over` says so of the second one. Returns whether both are in step.
pub fn session_of_two(
    one: &mut Engine,
    other: &mut Engine,
    most: usize,
    is_over: &mut dyn FnMut(&Engine) -> bool,
) -> bool {
    let mut ends = [Session::new(one, [1; 32], 0).unwrap(), Session::new(other, [2; 32], 0).unwrap()];
    let devices = [one, other];
    let mut input = Vec::new();
    for turn in 0..1_000 {
        let (session, engine) = (&mut ends[turn % 2], &mut *devices[turn % 2]);
        session.receive(engine, turn as u64, &input).unwrap();
        session.caught_up(engine).unwrap();
        session.tick(engine, turn as u64).unwrap();
        input.clear();
        while input.len() < most
            && let out @ [_, ..] = session.output(engine).unwrap()
        {
            let len = out.len();
            input.extend_from_slice(out);
            session.sent(len);
        }
        if is_over(devices[1]) {
            break;
        }
    }
    ends.iter().all(Session::in_step)
}

pub fn rows(engine: &Engine, query: &str) -> Vec<String> {
    dump(&app(engine), query)
}

pub fn dump(db: &Connection, query: &str) -> Vec<String> {
    use rusqlite::types::ValueRef;
    let mut statement = db.prepare(query).unwrap();
    let n = statement.column_count();
    let mut rows = statement.query([]).unwrap();
    let mut all = Vec::new();
    while let Some(row) = rows.next().unwrap() {
        let values: Vec<String> = (0..n)
            .map(|at| match row.get_ref(at).unwrap() {
                ValueRef::Null => "NULL".into(),
                ValueRef::Integer(i) => i.to_string(),
                ValueRef::Real(r) => format!("{r:?}r"),
                ValueRef::Text(t) => match std::str::from_utf8(t) {
                    Ok(text) => format!("{text:?}"),
                    Err(_) => format!("text {t:02x?}"),
                },
                ValueRef::Blob(b) => format!("{b:02x?}"),
            })
            .collect();
        all.push(values.join("|"));
    }
    all
}

/// Everything in a database, `_pm_` tables included, to see that nothing changed.
pub fn everything(path: &Path) -> Vec<String> {
    let db = open(path);
    let names = dump(&db, "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name");
    let mut all = dump(&db, "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY 1, 2");
    for name in names {
        let name = name.trim_matches('"').to_owned();
        all.push(format!("== {name}"));
        all.extend(dump(&db, &format!("SELECT * FROM \"{name}\" ORDER BY 1, 2")));
    }
    all
}

/// Of a row of `_pm_frame`: it is a verdict. The flags are the second byte of a frame.
pub const IS_VERDICT: &str = "unicode(substr(CAST(body AS TEXT), 2, 1)) & 8";

pub fn digests_equal(devices: &[&Engine]) {
    let digests: Vec<String> = devices.iter().map(|d| d.digest(false).unwrap()).collect();
    if !digests.windows(2).all(|pair| pair[0] == pair[1]) {
        let conflicts: Vec<_> = devices.iter().map(|d| d.conflicts().unwrap()).collect();
        panic!("digests differ: {digests:?}\n{conflicts:#?}");
    }
    devices.iter().for_each(|device| view_shows_conflicts(device));
}

/// The view `packmule_conflicts` shows what is open, as it was when the engine wrote last.
#[track_caller]
pub fn view_shows_conflicts(engine: &Engine) {
    let json = |text: String| serde_json::from_str::<serde_json::Value>(&text).unwrap();
    let shared = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'packmule_conflicts')";
    let app = app(engine);
    let is_there: bool = app.query_row(shared, [], |row| row.get(0)).unwrap();
    let mut shown = Vec::new();
    if is_there {
        let query =
            "SELECT id, tbl_name, key, kind, versions, ways FROM packmule_conflicts WHERE kind NOT NULL";
        let mut statement = app.prepare(query).unwrap();
        let rows = statement.query_map([], |row| {
            Ok([row.get(0)?, row.get(1)?, row.get(3)?, row.get(2)?, row.get(4)?, row.get::<_, String>(5)?])
        });
        for row in rows.unwrap() {
            let [id, table, kind, key, versions, ways] = row.unwrap();
            shown.push((id, table, kind, json(key), json(versions), json(ways)));
        }
    }
    let open = engine.conflicts().unwrap().into_iter().map(|mut conflict| {
        conflict.versions.iter_mut().for_each(|version| version.refused = None);
        let whole = serde_json::to_value(&conflict).unwrap();
        let field = |name: &str| whole[name].clone();
        let kind = conflict.kind.word().to_owned();
        (conflict.id, conflict.table, kind, field("key"), field("versions"), field("ways"))
    });
    let mut open: Vec<_> = open.collect();
    open.sort_by(|a, b| a.0.cmp(&b.0));
    shown.sort_by(|a, b| a.0.cmp(&b.0));
    // Which version cannot be taken hangs on other rows, and is not in the view.
    let known = |open: serde_json::Value| json(open.to_string().replace(",\"refused\":null", ""));
    let open: Vec<_> = open.into_iter().map(|(a, b, c, d, e, f)| (a, b, c, d, known(e), f)).collect();
    assert_eq!(shown, open, "the view, and the open conflicts, of {}", engine.identity().name);
}

/// What SQLite has allocated in this program, and the most that it had since the last reset: bytes.
pub fn sqlite_memory(reset: bool) -> (usize, usize) {
    let (mut now, mut most) = (0, 0);
    // SAFETY: both pointers are to live variables.
    unsafe {
        rusqlite::ffi::sqlite3_status64(
            rusqlite::ffi::SQLITE_STATUS_MEMORY_USED,
            &mut now,
            &mut most,
            i32::from(reset),
        )
    };
    (now as usize, most as usize)
}
