//! A base of many boards: what one reading costs, what looking costs, and what bundles cost that are known already.

use std::path::PathBuf;

use packmule::{Engine, Options};
use rusqlite::Connection;

use crate::report::{Cell, Section, cpu, wall};
use crate::time::{Sample, timed};
use crate::world::{Key, Outcome, World, append, create, insert, shared};

/// So many bundles that are known already are imported.
const KNOWN: usize = 1_000;

/// A base and its boards, each with a shared table and readings of its own.
struct Fleet {
    base: Engine,
    boards: Vec<(Engine, Connection)>,
    readings: u64,
}

impl Fleet {
    /// Makes the fleet, and lets everybody hear of everybody twice.
    fn new(world: &World, boards: usize) -> Outcome<Self> {
        eprintln!("fleet: {boards} boards");
        let mut base = world.device("base", true)?;
        create_settings(&world.open(base.path())?)?;
        base.track("settings", &shared())?;
        let mut fleet = Self { base, boards: Vec::new(), readings: 0 };
        for n in 0..boards {
            let mut board = world.device(&format!("board-{n:03}"), false)?;
            let db = world.open(board.path())?;
            create_settings(&db)?;
            create(&db, Key::Auto)?;
            board.track("settings", &shared())?;
            board.track("readings", &append())?;
            fleet.boards.push((board, db));
        }
        for round in 0..2 {
            eprintln!("fleet: round {round}");
            fleet.gather(world, round)?;
            for (board, _) in &mut fleet.boards {
                world.carry(&mut fleet.base, board)?;
            }
        }
        fleet.gather(world, 2)?;
        Ok(fleet)
    }

    /// Lets each board write one shared row, and the base take it in.
    fn gather(&mut self, world: &World, round: u64) -> Outcome {
        for (n, (board, db)) in self.boards.iter_mut().enumerate() {
            db.execute("INSERT OR REPLACE INTO settings (id, value) VALUES (?1, ?2)", (n as u64, round))?;
            world.carry(board, &mut self.base)?;
        }
        Ok(())
    }

    /// Lets the first board hear what the base has.
    fn hear(&mut self, world: &World) -> Outcome {
        let Self { base, boards, .. } = self;
        boards.first_mut().map_or(Ok(()), |(board, _)| world.carry(base, board).map(|_| ()))
    }

    /// Writes one reading on a board, and a bundle of it for the base. Returns the bundle.
    fn read(&mut self, world: &World, board: usize) -> Outcome<(PathBuf, u64)> {
        self.readings += 1;
        let (board, db) = &mut self.boards[board];
        insert(db, Key::Auto, self.readings..=self.readings)?;
        let path = world.path("reading");
        let bytes = world.export(board, Some(&self.base), &path)?;
        Ok((path, bytes))
    }

    /// Measures one reading: the bytes of its frame, and of the bundle for the base.
    fn reading(&mut self, world: &World, board: usize) -> Outcome<Vec<Cell>> {
        let (path, bytes) = self.read(world, board)?;
        let (_, db) = &self.boards[board];
        let frame: u64 = db.query_row(
            "SELECT length(body) FROM _pm_frame WHERE stream = 1 ORDER BY rowid DESC LIMIT 1",
            [],
            |row| row.get(0),
        )?;
        world.import(&mut self.base, &path)?;
        Ok(vec![Cell::Number(frame as f64, 0), Cell::Number(bytes as f64, 0)])
    }
}

fn create_settings(db: &Connection) -> Outcome {
    Ok(db.execute_batch("CREATE TABLE settings (id INTEGER PRIMARY KEY, value INTEGER)")?)
}

/// Measures a fleet of so many boards.
pub fn measure(world: &World, boards: usize, repeats: usize) -> Outcome<Vec<Section>> {
    let mut fleet = Fleet::new(world, boards)?;
    let about = format!("A base and {boards} boards, all of which know each other; no conflict is open.");
    let heads = vec!["", "bytes of the frame", "bytes of the bundle"];
    let mut bytes =
        Section { title: "One reading in a fleet", about: about.clone(), heads, lines: Vec::new() };
    fleet.hear(world)?;
    bytes.line("the first, after all boards have written a shared row", fleet.reading(world, 0)?);
    bytes.line("right after that, and nothing was heard", fleet.reading(world, 0)?);
    for rounds in [1, 2] {
        fleet.gather(world, 2 + rounds)?;
        fleet.hear(world)?;
        let what = ["", "after all have written another one", "and once more"];
        bytes.line(what[rounds as usize], fleet.reading(world, 0)?);
        fleet.hear(world)?;
        bytes.line("right after that, and the base was heard", fleet.reading(world, 0)?);
    }
    let heads = vec!["", "times", "ms, wall", "ms, cpu"];
    let mut times = Section { title: "A base of a fleet", about, heads, lines: Vec::new() };
    let mut look = |what: &str, samples: Vec<Sample>, n: usize| {
        let ms = |seconds: f64| Cell::Number(seconds * 1e3, 2);
        times.line(what, vec![Cell::Number(n as f64, 0), ms(wall(&samples)), ms(cpu(&samples))]);
    };
    let path = fleet.base.path().to_owned();
    let open = || Engine::open_read_only(&path, Options::default());
    let status = (0..repeats).map(|_| timed(|| open()?.status()));
    look("status", checked(status)?, 1);
    let conflicts = (0..repeats).map(|_| timed(|| open()?.conflicts()));
    look("conflicts", checked(conflicts)?, 1);
    let devices = (0..repeats).map(|_| timed(|| open()?.devices()));
    look("devices", checked(devices)?, 1);
    eprintln!("fleet: {KNOWN} bundles");
    let mut bundles = Vec::new();
    for n in 0..KNOWN {
        bundles.push(fleet.read(world, n % boards)?.0);
    }
    let base = &mut fleet.base;
    let mut all = || bundles.iter().try_for_each(|bundle| world.import(base, bundle).map(|_| ()));
    let new = timed(&mut all);
    look("import of new bundles", checked(std::iter::once(new))?, KNOWN);
    let known = (0..repeats.min(3)).map(|_| timed(&mut all));
    look("import of known bundles", checked(known)?, KNOWN);
    Ok(vec![bytes, times])
}

/// Returns the samples, if nothing failed.
fn checked<T, E: Into<Box<dyn std::error::Error>>>(
    timed: impl Iterator<Item = (Sample, Result<T, E>)>,
) -> Outcome<Vec<Sample>> {
    timed.map(|(sample, result)| result.map(|_| sample).map_err(Into::into)).collect()
}
