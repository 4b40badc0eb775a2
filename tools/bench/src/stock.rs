//! A small import into a large database: it may cost what comes in, not what is there.

use std::path::PathBuf;

use packmule::Engine;
use rusqlite::Connection;

use crate::report::{Cell, Section, cpu, wall};
use crate::time::{Sample, timed};
use crate::world::{Key, Outcome, World, create, insert, scramble, shared, update};

const OPS: u64 = 100;

/// Two boards that have the same rows, stable and compacted, and a plain database.
struct Stock {
    rows: u64,
    board: Engine,
    application: Connection,
    other: Engine,
    plain: Connection,
    /// Of new rows, imported and as plain SQL; then of updates.
    imports: [Vec<Sample>; 2],
    plains: [Vec<Sample>; 2],
    /// The first compacts all rows away.
    folds: Vec<Sample>,
    /// Bytes in `_pm_` tables after that, and in all.
    compacted: (u64, u64),
}

impl Stock {
    fn new(world: &World, rows: u64) -> Outcome<Self> {
        eprintln!("stock: {rows} rows");
        let mut board = world.device("board", false)?;
        let application = world.open(board.path())?;
        create(&application, Key::Integer)?;
        board.track("readings", &shared())?;
        let mut other = world.device("other", false)?;
        create(&world.open(other.path())?, Key::Integer)?;
        other.track("readings", &shared())?;
        insert(&application, Key::Integer, 1..=rows)?;
        let plain = world.open(&world.path("plain"))?;
        create(&plain, Key::Integer)?;
        insert(&plain, Key::Integer, 1..=rows)?;
        let mut stock = Self {
            rows,
            board,
            application,
            other,
            plain,
            imports: [Vec::new(), Vec::new()],
            plains: [Vec::new(), Vec::new()],
            folds: Vec::new(),
            compacted: (0, 0),
        };
        stock.exchange(world)?;
        stock.compact()?;
        // What it takes for each to know that the other knows it too.
        stock.exchange(world)?;
        stock.exchange(world)?;
        stock.compact()?;
        stock.compacted = stock.share(world)?;
        Ok(stock)
    }

    fn exchange(&mut self, world: &World) -> Outcome {
        world.carry(&mut self.board, &mut self.other)?;
        world.carry(&mut self.other, &mut self.board)?;
        Ok(())
    }

    fn compact(&mut self) -> Outcome {
        self.board.compact()?;
        let (sample, report) = timed(|| self.other.compact());
        let report = report?;
        eprintln!("stock: compacted away {} frames, {} left", report.frames, report.frames_left);
        self.folds.push(sample);
        Ok(())
    }

    /// Writes new rows, and then updates rows anywhere in the table; carries each to the other board.
    fn round(&mut self, world: &World, round: u64) -> Outcome {
        let rows = self.rows;
        let first = rows + (round - 1) * OPS;
        let new = first + 1..=first + OPS;
        let numbers = move || (0..OPS).map(move |n| 1 + scramble(round * OPS + n) % rows);
        for what in 0..2 {
            let write = |db: &Connection| match what {
                0 => insert(db, Key::Integer, new.clone()),
                _ => update(db, Key::Integer, numbers(), round),
            };
            write(&self.application)?;
            let bundle: PathBuf = world.path("bundle");
            world.export(&mut self.board, Some(&self.other), &bundle)?;
            let (sample, report) = timed(|| world.import(&mut self.other, &bundle));
            report?;
            self.imports[what].push(sample);
            world.carry(&mut self.other, &mut self.board)?;
            let (sample, done) = timed(|| write(&self.plain));
            self.plains[what].push(sample);
            done?;
        }
        Ok(())
    }

    /// Returns how many bytes of the file are in `_pm_` tables, and how many there are.
    fn share(&self, world: &World) -> Outcome<(u64, u64)> {
        let db = world.open(self.other.path())?;
        Ok(db.query_row(
            "SELECT coalesce(sum(pgsize) FILTER (WHERE name LIKE '\\_pm\\_%' ESCAPE '\\' OR name LIKE 'sqlite\\_autoindex\\__pm\\_%' ESCAPE '\\'), 0), sum(pgsize)
             FROM dbstat WHERE aggregate = 1",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?)
    }
}

/// Measures a database of 1,000 rows against a large one, in turns.
pub fn measure(world: &World, large: u64, repeats: usize) -> Outcome<Vec<Section>> {
    let mut stocks = [Stock::new(world, 1_000)?, Stock::new(world, large)?];
    for round in 1..=repeats.max(3) as u64 * 3 {
        for stock in &mut stocks {
            stock.round(world, round)?;
        }
    }
    let mut section = Section {
        title: "A small import",
        about: format!(
            "{OPS} new rows, and {OPS} updates of rows anywhere in the table, imported into a board that has all rows already, synced, stable and compacted; \
             and as plain SQL in one transaction; each against the same with 1,000 rows. Then the compaction of all rows before, \
             and after it what `_pm_` tables take of the importing board's file."
        ),
        heads: vec![
            "",
            "rows",
            "ms, wall",
            "ratio, wall",
            "ms, cpu",
            "ratio, cpu",
            "_pm_ MB",
            "file MB",
            "_pm_ %",
        ],
        lines: Vec::new(),
    };
    let [small, _] = &stocks;
    for stock in &stocks {
        for (name, samples, first) in [
            ("import of inserts", &stock.imports[0][..], &small.imports[0][..]),
            ("import of updates", &stock.imports[1], &small.imports[1]),
            ("plain inserts", &stock.plains[0], &small.plains[0]),
            ("plain updates", &stock.plains[1], &small.plains[1]),
            ("compaction", &stock.folds[..1], &small.folds[..1]),
        ] {
            let mut cells = vec![
                Cell::Number(stock.rows as f64, 0),
                Cell::Number(wall(samples) * 1e3, 2),
                Cell::Ratio(wall(samples) / wall(first)),
                Cell::Number(cpu(samples) * 1e3, 2),
                Cell::Ratio(cpu(samples) / cpu(first)),
            ];
            if name == "compaction" {
                let (ours, all) = stock.compacted;
                cells.push(Cell::Number(ours as f64 / 1e6, 2));
                cells.push(Cell::Number(all as f64 / 1e6, 2));
                cells.push(Cell::Number(100.0 * ours as f64 / all as f64, 2));
            } else {
                cells.extend([Cell::None; 3]);
            }
            section.line(name, cells);
        }
    }
    Ok(vec![section])
}
