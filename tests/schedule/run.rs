//! Runs a schedule on engines and on the model side by side.

mod carry;
mod clone;
mod resolve;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use packmule::core::model::Stream;
use packmule::{
    ColumnMerge, Conflict, ConflictKind, Engine, HistoryEntry, HistoryItem, InitOptions, Merge, NewColumns,
    Policy, TrackOptions,
};
use rusqlite::Connection;

use super::tables::TABLES;
use super::{Schedule, Step, render, show, value};
use crate::common::*;
use crate::model::{self, Group, Place, Row, Rule, State, Table, Write};

/// What statements did to a row since its device's last seal.
#[derive(Clone, Debug, Default)]
struct Touch {
    /// It got its unique values again.
    claimed: bool,
    /// It got its key again.
    inserted: bool,
    columns: BTreeSet<String>,
    added: BTreeMap<String, i64>,
    wall: Option<i64>,
    image: Option<Row>,
}

struct Device {
    engine: Engine,
    app: Connection,
    clock: Arc<AtomicI64>,
    touched: BTreeMap<Place, Touch>,
    /// The last frame of each of its groups.
    ends: Vec<u64>,
    lamport: u64,
    copy: Option<clone::Copy>,
}

/// How many rows were contested, quarantined and orphans, conflicts resolved, versions folded,
/// devices joined, UNIQUEs made, devices retired and clones that took a new identity.
pub type Counts = [usize; 9];

pub struct Run {
    world: World,
    tables: Vec<&'static Table>,
    devices: Vec<Device>,
    ids: Vec<String>,
    groups: Vec<Group>,
    /// With the device that made them.
    bundles: Vec<(usize, Vec<u8>)>,
    resolved: usize,
    folded: usize,
    joined: usize,
    uniques: usize,
    anew: usize,
    /// The devices that are lost.
    retired: BTreeSet<usize>,
    broken: bool,
    foreign_keys: bool,
    pub trace: Vec<String>,
}

fn table_rows(db: &Connection, table: &Table) -> BTreeMap<String, Row> {
    let names = dump(db, &format!("SELECT name FROM pragma_table_info('{}')", table.name));
    let names: Vec<&str> = names.iter().map(|n| n.trim_matches('"')).collect();
    let rows = dump(db, &format!("SELECT {} FROM {}", names.join(", "), table.name));
    rows.into_iter()
        .map(|line| {
            let row: Row =
                names.iter().map(|n| n.to_string()).zip(line.split('|').map(str::to_owned)).collect();
            (table.key(&row), row)
        })
        .collect()
}

fn number(value: Option<&String>) -> i64 {
    value.and_then(|v| v.parse().ok()).unwrap_or(0)
}

fn options(table: &Table, first: packmule::Policy) -> TrackOptions {
    let rule = |rule: Rule| match rule {
        Rule::Table => ColumnMerge::Table,
        Rule::Counter => ColumnMerge::Counter,
        Rule::Max => ColumnMerge::Max,
        Rule::Min => ColumnMerge::Min,
        Rule::Lww => ColumnMerge::Lww,
    };
    TrackOptions {
        merge: if table.cell { Merge::Cell } else { Merge::Row },
        policy: match table.policy {
            model::Policy::Manual => Policy::Manual,
            model::Policy::Lww => Policy::Lww,
            model::Policy::Prefer => first,
        },
        new_columns: Some(NewColumns::Follow),
        columns: table.rules.iter().map(|(c, r)| (c.to_string(), rule(*r))).collect(),
        ..TrackOptions::default()
    }
}

impl Run {
    pub fn new(schedule: &Schedule, broken: bool) -> Self {
        let world = World::seeded(schedule.seed);
        let tables: Vec<&'static Table> = schedule.tables.iter().map(|at| &TABLES[*at].0).collect();
        let foreign_keys = schedule.seed % 2 == 1;
        let mut run = Self {
            world,
            tables,
            devices: Vec::new(),
            ids: Vec::new(),
            groups: Vec::new(),
            bundles: Vec::new(),
            resolved: 0,
            folded: 0,
            joined: 0,
            uniques: 0,
            anew: 0,
            retired: BTreeSet::new(),
            broken,
            foreign_keys,
            trace: Vec::new(),
        };
        let mut first = None;
        for n in 0..schedule.devices {
            // Boards wake in 1970 and in 2099; two may have the same time.
            let start = [1_700_000_000_000, 1_700_000_000_000, 0, 4_070_908_800_000][n];
            let clock = Arc::new(AtomicI64::new(start));
            let name = format!("d{n}");
            let init = InitOptions { name: &name, base: false, fleet: Some(&run.world.fleet) };
            let mut engine = Engine::init_with(&run.path(n), &init, run.options_by(&clock)).unwrap();
            let prefer = *first.get_or_insert(Policy::Prefer(engine.identity().id));
            for table in &run.tables {
                sql(&engine, table.sql);
                engine.track(table.name, &options(table, prefer)).unwrap();
            }
            run.add_device(engine, clock, 0, None);
        }
        for d in 0..run.devices.len() {
            // The group of each table's definition: the model numbers it like any other.
            for frame in 1..=run.tables.len() as u64 {
                run.note_group(d, frame, BTreeMap::new());
            }
        }
        run
    }

    fn options_by(&self, clock: &Arc<AtomicI64>) -> packmule::Options {
        packmule::Options { broken_winner: self.broken, ..World::options_by(clock) }
    }

    fn add_device(&mut self, engine: Engine, clock: Arc<AtomicI64>, lamport: u64, copy: Option<clone::Copy>) {
        let app = app(&engine);
        app.pragma_update(None, "synchronous", "OFF").unwrap();
        app.pragma_update(None, "foreign_keys", self.foreign_keys).unwrap();
        self.ids.push(engine.identity().id.to_string());
        let (touched, ends) = (BTreeMap::new(), Vec::new());
        self.devices.push(Device { engine, app, clock, touched, ends, lamport, copy });
    }

    fn path(&self, d: usize) -> PathBuf {
        self.world.path(&format!("d{d}"))
    }

    fn now(&self, d: usize) -> i64 {
        self.devices[d].clock.load(Ordering::Relaxed)
    }

    /// How many groups of each device a device has applied, by what its engine says.
    fn seen(&self, d: usize) -> Vec<usize> {
        let known = self.devices[d].engine.devices().unwrap();
        let here = &self.devices[d];
        self.devices
            .iter()
            .enumerate()
            .map(|(n, other)| {
                // A copy and what it is of have one name for two histories.
                match (&here.copy, &other.copy) {
                    _ if n == d => return other.ends.len(),
                    (Some(copy), _) if copy.of == n => return copy.common,
                    (_, Some(_)) => return 0,
                    _ => {}
                }
                let id = other.engine.identity().id;
                let frames = known.iter().find(|k| k.id == id).map_or(0, |k| k.shared);
                other.ends.iter().filter(|end| **end <= frames).count()
            })
            .collect()
    }

    fn groups_at(&self, d: usize) -> Vec<&Group> {
        let seen = self.seen(d);
        self.groups.iter().filter(|g| seen[g.device] > g.number).collect()
    }

    fn state_at(&self, d: usize) -> State {
        model::state(&self.tables, &self.groups_at(d), &self.ids)
    }

    fn note_group(&mut self, d: usize, end: u64, mut writes: BTreeMap<Place, Write>) {
        let mut seen = self.seen(d);
        seen[d] = 0;
        let highest = self.groups.iter().filter(|g| seen[g.device] > g.number).map(|g| g.lamport).max();
        let before = highest.unwrap_or(0).max(self.devices[d].lamport);
        let lamport = self.lamport_of(d, end);
        assert!(lamport > before, "a stamp is above all that its author had seen: {lamport}, {before}");
        for write in writes.values_mut().filter(|w| w.claim == u64::MAX) {
            write.claim = lamport;
        }
        let wall = self.now(d);
        let device = &mut self.devices[d];
        device.lamport = lamport;
        let number = device.ends.len();
        device.ends.push(end);
        self.groups.push(Group { device: d, number, seen, lamport, wall, writes, uniques: BTreeSet::new() });
    }

    /// The stamp of the group of rows that a device has just sealed. Groups that say something of a table alone may
    /// come between, so the model does not count stamps itself.
    fn lamport_of(&self, d: usize, end: u64) -> u64 {
        let since = self.devices[d].ends.last().copied().unwrap_or(0);
        let own = self.own_groups(d);
        let sealed =
            own.iter().filter(|g| g.stream == Stream::Shared && g.frames.0 > since && g.frames.1 <= end);
        sealed.map(|g| (g.ops > 0, g.lamport)).max().unwrap().1
    }

    /// The groups in a device's log that it has sealed itself.
    fn own_groups(&self, d: usize) -> Vec<HistoryEntry> {
        let (engine, mut own) = (&self.devices[d].engine, Vec::new());
        let mut each = |item: HistoryItem<'_>| {
            if let HistoryItem::Group(group) = item
                && group.author == engine.identity().id
            {
                own.push(group.clone());
            }
            Ok(())
        };
        engine.log(None, &[], &mut each).unwrap();
        own
    }

    pub fn step(&mut self, step: &Step) {
        // Of as many devices as there are now.
        let active = self.active();
        let of = |d: &usize| active[*d % active.len()];
        match step {
            Step::Write { d, t, sql, forced, moves } => self.write(of(d), *t, sql, forced.as_ref(), *moves),
            Step::Seal { d } => self.seal(of(d)),
            Step::Export { d, to, all } => self.export(of(d), *to, *all),
            Step::Import { d, bundle } => self.import(of(d), *bundle),
            Step::Resolve { d, .. } => self.resolve(of(d), step),
            Step::Reopen { d } => {
                let d = &of(d);
                let options = self.options_by(&self.devices[*d].clock);
                self.devices[*d].engine = Engine::open_with(&self.path(*d), options).unwrap();
                self.trace.push(format!("d{d}: opened again"));
            }
            Step::Clock { d, ms } => {
                let d = &of(d);
                self.devices[*d].clock.fetch_add(*ms, Ordering::Relaxed);
                self.trace.push(format!("d{d}: clock {ms:+}"));
            }
            Step::AddColumn { d, t, fill, command } => self.add_column(of(d), *t, *fill, *command),
            Step::MakeUnique { d, t } => self.make_unique(of(d), *t),
            Step::Meet => self.meet(),
            Step::Compact { d } => self.compact(of(d)),
            Step::Join { d } => self.join(of(d)),
            Step::Retire { d, who } => self.retire(of(d), *who),
            Step::Clone { d, writes } => self.clone(of(d), writes),
        }
    }

    pub fn finish(&mut self) {
        self.meet();
        self.enlighten();
        self.meet();
    }

    fn key(&self, table: &Table, values: &[(String, packmule::OwnedValue)]) -> String {
        let row: Row = values.iter().map(|(c, v)| (c.clone(), show(v))).collect();
        table.key(&row)
    }

    fn place(&self, conflict: &Conflict) -> Place {
        let t = self.tables.iter().position(|t| t.name == conflict.table).unwrap();
        (t, self.key(self.tables[t], &conflict.key))
    }

    /// A device's tables are as the model says of what it has.
    fn check_shown(&self, d: usize, state: &State) {
        for (t, table) in self.tables.iter().enumerate() {
            let shown = table_rows(&self.devices[d].app, table);
            let added = table.added.map(|a| a.0);
            let knows = added.is_some_and(|c| has_column(&self.devices[d].app, table, c));
            let expected: BTreeMap<String, Row> = state
                .shown
                .iter()
                .filter(|(place, _)| place.0 == t)
                .map(|(place, row)| {
                    let mut row = row.clone();
                    row.retain(|c, _| knows || added != Some(c.as_str()));
                    (place.1.clone(), row)
                })
                .collect();
            assert_eq!(shown, expected, "shown (left) and expected, {} on d{d}", table.name);
        }
    }

    pub fn check(&self) -> Counts {
        // What a lost device had not sent is lost with it.
        let active = self.active();
        let sent = self.seen(active[0]);
        let state = self.state_at(active[0]);
        let digest = self.devices[active[0]].engine.digest(false).unwrap();
        let first = self.devices[active[0]].engine.conflicts().unwrap();
        for (n, device) in active.iter().map(|n| (*n, &self.devices[*n])) {
            assert_eq!(self.seen(n), sent, "the groups that d{n} has");
            assert!(
                active.iter().all(|d| sent[*d] == self.devices[*d].ends.len()),
                "all of theirs: {sent:?}"
            );
            self.check_shown(n, &state);
            view_shows_conflicts(&device.engine);
            let conflicts = device.engine.conflicts().unwrap();
            let (mut contested, mut parked, mut dangling) =
                (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
            for conflict in &conflicts {
                let place = self.place(conflict);
                match conflict.kind {
                    ConflictKind::Unique(_) | ConflictKind::Check(_) => {
                        parked.insert(place);
                    }
                    ConflictKind::ForeignKey(..) => {
                        dangling.insert(place);
                    }
                    _ => {
                        contested.insert(place, conflict.versions.len());
                    }
                }
            }
            assert_eq!(contested, state.contested, "contested on d{n}");
            assert_eq!(parked, state.parked.keys().cloned().collect(), "parked on d{n}");
            assert_eq!(dangling, state.dangling, "dangling on d{n}");
            assert_eq!(conflicts, first, "conflicts on d{n}");
            assert_eq!(device.engine.digest(false).unwrap(), digest, "digest of d{n}");
            assert!(device.engine.verify().unwrap().problems.is_empty());
        }
        let rows = [state.contested.len(), state.parked.len(), state.dangling.len()];
        let done = [self.resolved, self.folded, self.joined, self.uniques, self.retired.len(), self.anew];
        [rows[0], rows[1], rows[2], done[0], done[1], done[2], done[3], done[4], done[5]]
    }
}

fn has_column(db: &Connection, table: &Table, column: &str) -> bool {
    let sql = format!("SELECT 1 FROM pragma_table_info('{}') WHERE name = '{column}'", table.name);
    !dump(db, &sql).is_empty()
}

/// Runs a schedule; the counts of [`Run::check`], or the trace and what went wrong.
pub fn run(schedule: &Schedule, broken: bool) -> Result<Counts, (Vec<String>, String)> {
    let mut run = Run::new(schedule, broken);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        for step in &schedule.steps {
            run.step(step);
        }
        run.finish();
        run.check()
    }));
    result.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| s.to_string()));
        (run.trace, text.unwrap_or_default())
    })
}

/// The shortest schedule that still fails: a prefix of it, then without each step that is not needed.
pub fn shrink(schedule: &Schedule, broken: bool) -> Schedule {
    let mut least = schedule.clone();
    let fails = |steps: &[Step]| {
        let steps = steps.to_vec();
        run(&Schedule { steps, ..schedule.clone() }, broken).is_err()
    };
    for n in 0..least.steps.len() {
        if fails(&least.steps[..n]) {
            least.steps.truncate(n);
            break;
        }
    }
    let mut at = 0;
    while at < least.steps.len() {
        let mut fewer = least.steps.clone();
        fewer.remove(at);
        if fails(&fewer) {
            least.steps = fewer;
        } else {
            at += 1;
        }
    }
    least
}
