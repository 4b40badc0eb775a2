//! Writing, sealing, exporting and importing, by how a table is tracked; plain SQLite is 1.00.

use std::collections::BTreeMap;

use packmule::{Engine, Mode, TrackOptions};
use rusqlite::Connection;

use crate::report::{Cell, Section, cpu, thousands, wall};
use crate::time::{Sample, median, timed};
use crate::world::{Key, Outcome, World, append, create, delete, insert, per_device, shared, spread, update};

/// Who notes what is written.
enum Capture {
    /// Nobody.
    Plain,
    /// SQLite's session extension, on the connection that writes.
    #[cfg(feature = "peers")]
    Session,
    /// Packmule.
    Tracked(TrackOptions),
}

struct Case {
    name: &'static str,
    key: Key,
    capture: Capture,
}

fn cases() -> Vec<Case> {
    let case = |name, key, capture| Case { name, key, capture };
    vec![
        case("plain SQLite, integer key", Key::Integer, Capture::Plain),
        case("plain SQLite, autoincrement", Key::Auto, Capture::Plain),
        case("plain SQLite, text key", Key::Text, Capture::Plain),
        case("shared, integer key", Key::Integer, Capture::Tracked(shared())),
        case("shared, text key", Key::Text, Capture::Tracked(shared())),
        case("per-device, integer key", Key::Integer, Capture::Tracked(per_device())),
        case("append, autoincrement", Key::Auto, Capture::Tracked(append())),
        #[cfg(feature = "peers")]
        case("session extension, integer key", Key::Integer, Capture::Session),
        #[cfg(feature = "peers")]
        case("session extension, text key", Key::Text, Capture::Session),
    ]
}

/// What is timed, or counted in bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Write,
    Seal,
    Export,
    IntoBase,
    IntoBoard,
}

/// What is written.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Work {
    Insert,
    Update,
    Delete,
}

const WORKS: [Work; 3] = [Work::Insert, Work::Update, Work::Delete];

#[derive(Default)]
struct Found {
    times: BTreeMap<(usize, Work, Step), Vec<Sample>>,
    bytes: BTreeMap<(usize, Work), Vec<f64>>,
}

impl Found {
    fn time<R>(
        &mut self,
        case: usize,
        work: Work,
        step: Step,
        run: impl FnOnce() -> Outcome<R>,
    ) -> Outcome<R> {
        let (sample, result) = timed(run);
        self.times.entry((case, work, step)).or_default().push(sample);
        result
    }

    fn bytes(&mut self, case: usize, work: Work, bytes: u64) {
        self.bytes.entry((case, work)).or_default().push(bytes as f64);
    }
}

/// Measures all cases in turn, so that what else the machine does meets all of them.
pub fn measure(world: &World, rows: u64, repeats: usize, synchronous: &str) -> Outcome<Vec<Section>> {
    let cases = cases();
    let mut found = Found::default();
    let changed = rows / 10;
    for repeat in 1..=repeats {
        for (n, case) in cases.iter().enumerate() {
            eprintln!("writes, {repeat} of {repeats}: {}", case.name);
            match &case.capture {
                Capture::Plain => plain(world, (n, case.key), (rows, changed), &mut found)?,
                #[cfg(feature = "peers")]
                Capture::Session => session(world, (n, case.key), (rows, changed), &mut found)?,
                Capture::Tracked(options) => {
                    tracked(world, (n, case.key), options, (rows, changed), &mut found)?
                }
            }
        }
    }
    let counts = |work| if work == Work::Insert { rows } else { changed };
    Ok(vec![write_section(&cases, &found, &counts, synchronous), carry_section(&cases, &found, &counts)])
}

fn write(db: &Connection, key: Key, work: Work, (rows, changed): (u64, u64)) -> Outcome {
    match work {
        Work::Insert => insert(db, key, 1..=rows),
        Work::Update => update(db, key, spread(changed, rows), 1),
        Work::Delete => delete(db, key, spread(changed, rows)),
    }
}

fn plain(world: &World, (n, key): (usize, Key), counts: (u64, u64), found: &mut Found) -> Outcome {
    let path = world.path("plain");
    let db = world.open(&path)?;
    create(&db, key)?;
    for work in WORKS {
        found.time(n, work, Step::Write, || write(&db, key, work, counts))?;
    }
    drop(db);
    world.remove(&path);
    Ok(())
}

fn tracked(
    world: &World,
    (n, key): (usize, Key),
    options: &TrackOptions,
    counts: (u64, u64),
    found: &mut Found,
) -> Outcome {
    let mut board = world.device("board", false)?;
    let db = world.open(board.path())?;
    create(&db, key)?;
    board.track("readings", options)?;
    // Only bases take per-device rows.
    let mut peers: Vec<(Step, Engine)> = vec![(Step::IntoBase, world.device("base", true)?)];
    if options.mode == Mode::Shared {
        let other = world.device("other", false)?;
        peers.push((Step::IntoBoard, other));
    }
    for (_, peer) in &mut peers {
        if options.mode == Mode::Shared {
            create(&world.open(peer.path())?, key)?;
            peer.track("readings", options)?;
        }
        // Who they are, and what they track, is known before the clock runs.
        world.carry(peer, &mut board)?;
        world.carry(&mut board, peer)?;
        world.carry(peer, &mut board)?;
    }
    for work in WORKS {
        if options.append && work != Work::Insert {
            continue;
        }
        found.time(n, work, Step::Write, || write(&db, key, work, counts))?;
        found.time(n, work, Step::Seal, || Ok(board.seal()?))?;
        for (at, (step, peer)) in peers.iter_mut().enumerate() {
            let path = world.path("bundle");
            let bytes = if at == 0 {
                found.time(n, work, Step::Export, || world.export(&mut board, Some(peer), &path))?
            } else {
                world.export(&mut board, Some(peer), &path)?
            };
            if at == 0 {
                found.bytes(n, work, bytes);
            }
            let report = found.time(n, work, *step, || world.import(peer, &path))?;
            let wanted = if work == Work::Insert { counts.0 } else { counts.1 };
            if report.ops != wanted || report.ops_waiting != 0 {
                return Err(format!("{} ops applied of {wanted}", report.ops).into());
            }
            std::fs::remove_file(&path)?;
            world.carry(peer, &mut board)?;
        }
    }
    drop(db);
    let paths = peers.iter().map(|(_, peer)| peer.path().to_owned()).chain([board.path().to_owned()]);
    let paths: Vec<_> = paths.collect();
    drop((peers, board));
    paths.iter().for_each(|path| world.remove(path));
    Ok(())
}

/// A changeset stands for the seal and the bundle: it is all that a peer is given.
#[cfg(feature = "peers")]
fn session(world: &World, (n, key): (usize, Key), counts: (u64, u64), found: &mut Found) -> Outcome {
    use rusqlite::session::{ConflictAction, Session};
    let (path, other_path) = (world.path("session"), world.path("session-other"));
    let (db, other) = (world.open(&path)?, world.open(&other_path)?);
    create(&db, key)?;
    create(&other, key)?;
    for work in WORKS {
        let mut session = Session::new(&db)?;
        session.attach(None::<&str>)?;
        found.time(n, work, Step::Write, || write(&db, key, work, counts))?;
        let bundle = world.path("changeset");
        found.time(n, work, Step::Seal, || {
            let mut file = std::io::BufWriter::new(std::fs::File::create(&bundle)?);
            session.changeset_strm(&mut file)?;
            Ok(std::io::Write::flush(&mut file)?)
        })?;
        found.bytes(n, work, std::fs::metadata(&bundle)?.len());
        found.time(n, work, Step::IntoBoard, || {
            let mut file = std::io::BufReader::new(std::fs::File::open(&bundle)?);
            Ok(other.apply_strm(&mut file, None::<fn(&str) -> bool>, |_, _| {
                ConflictAction::SQLITE_CHANGESET_ABORT
            })?)
        })?;
        std::fs::remove_file(&bundle)?;
    }
    drop((db, other));
    world.remove(&path);
    world.remove(&other_path);
    Ok(())
}

fn write_section(cases: &[Case], found: &Found, counts: &dyn Fn(Work) -> u64, synchronous: &str) -> Section {
    let mut section = Section {
        title: "Writing",
        about: format!(
            "{} inserts, then {} updates and deletes by key, in transactions of 1,000, into `readings(id, sensor, ts, value, note)`; \
             WAL, synchronous = {synchronous}. Each against plain SQLite with the same key in the same run.",
            thousands(&counts(Work::Insert).to_string()),
            thousands(&counts(Work::Update).to_string())
        ),
        heads: vec!["", "µs a row", "capture, wall", "capture, cpu", "with seal, wall", "with seal, cpu"],
        lines: Vec::new(),
    };
    for (work, name) in WORKS.iter().zip(["insert", "update", "delete"]) {
        for (n, case) in cases.iter().enumerate() {
            let Some(write) = found.times.get(&(n, *work, Step::Write)) else { continue };
            let plain = cases.iter().position(|c| c.key == case.key && matches!(c.capture, Capture::Plain));
            let plain = plain.and_then(|at| found.times.get(&(at, *work, Step::Write)));
            let Some(plain) = plain else { continue };
            let sealed: Option<Vec<Sample>> = found.times.get(&(n, *work, Step::Seal)).map(|seals| {
                let sum = |(w, s): (&Sample, &Sample)| Sample { wall: w.wall + s.wall, cpu: w.cpu + s.cpu };
                write.iter().zip(seals).map(sum).collect()
            });
            let ratio = |of: fn(&[Sample]) -> f64, samples: Option<&[Sample]>| {
                samples.map_or(Cell::None, |s| Cell::Ratio(of(s) / of(plain)))
            };
            section.line(
                format!("{name}: {}", case.name),
                vec![
                    Cell::Number(wall(write) * 1e6 / counts(*work) as f64, 2),
                    ratio(wall, Some(write)),
                    ratio(cpu, Some(write)),
                    ratio(wall, sealed.as_deref()),
                    ratio(cpu, sealed.as_deref()),
                ],
            );
        }
    }
    section
}

fn carry_section(cases: &[Case], found: &Found, counts: &dyn Fn(Work) -> u64) -> Section {
    let mut section = Section {
        title: "Carrying",
        about: "Rows a second, by the wall, and bytes of the bundle a row. The session extension's changeset stands for seal and bundle: \
                unsigned, without stamps and contexts, applied without looking for concurrent writes."
            .into(),
        heads: vec![
            "",
            "bytes a row",
            "seal, rows/s",
            "export, rows/s",
            "into a base, rows/s",
            "into a board, rows/s",
        ],
        lines: Vec::new(),
    };
    for (work, name) in WORKS.iter().zip(["insert", "update", "delete"]) {
        for (n, case) in cases.iter().enumerate() {
            let Some(bytes) = found.bytes.get(&(n, *work)) else { continue };
            let rows = counts(*work) as f64;
            let speed = |step| match found.times.get(&(n, *work, step)) {
                Some(samples) => Cell::Number(rows / wall(samples), 0),
                None => Cell::None,
            };
            let mut cells = vec![Cell::Number(median(bytes.clone()) / rows, 1)];
            cells.extend([Step::Seal, Step::Export, Step::IntoBase, Step::IntoBoard].map(speed));
            section.line(format!("{name}: {}", case.name), cells);
        }
    }
    section
}
