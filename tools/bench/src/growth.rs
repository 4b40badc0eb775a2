//! One row written many times, and more and more rows: nothing may be quadratic.

use crate::report::{Cell, Section, cpu, wall};
use crate::time::{Sample, timed};
use crate::world::{Key, Outcome, World, append, create, insert, shared};

/// Measures both.
pub fn measure(world: &World, large: u64, repeats: usize) -> Outcome<Vec<Section>> {
    Ok(vec![one_row(world, repeats.min(3))?, rows(world, large, repeats.min(3))?])
}

/// Measures a row updated between two seals, and a row updated and sealed.
fn one_row(world: &World, repeats: usize) -> Outcome<Section> {
    let mut section = Section {
        title: "One row",
        about: "A row updated many times between two seals, which makes one op; and updated and sealed many times, \
                imported into another board in one bundle."
            .into(),
        heads: vec!["", "times", "ops", "ms", "µs a time", "cpu µs a time"],
        lines: Vec::new(),
    };
    const TIMES: u64 = 100_000;
    eprintln!("growth: one row, {TIMES} updates");
    let mut seals = Vec::new();
    let mut ops = 0;
    for _ in 0..repeats {
        let mut board = world.device("board", false)?;
        let db = world.open(board.path())?;
        create(&db, Key::Text)?;
        insert(&db, Key::Text, 1..=1)?;
        board.track("readings", &shared())?;
        db.execute_batch("BEGIN")?;
        let mut statement = db.prepare("UPDATE readings SET ts = ?1")?;
        for n in 0..TIMES {
            statement.execute([n])?;
        }
        db.execute_batch("COMMIT")?;
        let (sample, report) = timed(|| board.seal());
        seals.push(sample);
        ops = report?.ops;
    }
    section.line("updated, then sealed: the seal", line(TIMES, ops, &seals));
    for times in [500, 1_000, 2_000] {
        eprintln!("growth: one row, {times} seals");
        let mut imports = Vec::new();
        let mut ops = 0;
        for _ in 0..repeats {
            let mut board = world.device("board", false)?;
            let db = world.open(board.path())?;
            create(&db, Key::Text)?;
            insert(&db, Key::Text, 1..=1)?;
            board.track("readings", &shared())?;
            let mut statement = db.prepare("UPDATE readings SET ts = ?1")?;
            for n in 0..times {
                statement.execute([n])?;
                board.seal()?;
            }
            let mut other = world.device("other", false)?;
            create(&world.open(other.path())?, Key::Text)?;
            other.track("readings", &shared())?;
            let bundle = world.path("bundle");
            world.export(&mut board, None, &bundle)?;
            let (sample, report) = timed(|| world.import(&mut other, &bundle));
            imports.push(sample);
            ops = report?.ops;
        }
        section.line("updated and sealed each time: the import", line(times, ops, &imports));
    }
    Ok(section)
}

fn line(times: u64, ops: u64, samples: &[Sample]) -> Vec<Cell> {
    let a_time = |seconds: f64| Cell::Number(seconds * 1e6 / times as f64, 2);
    vec![
        Cell::Number(times as f64, 0),
        Cell::Number(ops as f64, 0),
        Cell::Number(wall(samples) * 1e3, 1),
        a_time(wall(samples)),
        a_time(cpu(samples)),
    ]
}

/// Measures sealing and importing more and more rows at once.
fn rows(world: &World, large: u64, repeats: usize) -> Outcome<Section> {
    let mut section = Section {
        title: "More rows",
        about:
            "All rows in one seal, imported at once into an empty board (shared) or base (append): µs a row."
                .into(),
        heads: vec!["", "rows", "seal, wall", "seal, cpu", "import, wall", "import, cpu"],
        lines: Vec::new(),
    };
    for (name, key, options) in [
        ("shared, integer key", Key::Integer, shared()),
        ("shared, text key", Key::Text, shared()),
        ("append", Key::Auto, append()),
    ] {
        for rows in [large / 100, large / 10, large] {
            eprintln!("growth: {name}, {rows} rows");
            let (mut seals, mut imports) = (Vec::new(), Vec::new());
            for _ in 0..if rows > 200_000 { 1 } else { repeats } {
                let mut board = world.device("board", false)?;
                let db = world.open(board.path())?;
                create(&db, key)?;
                board.track("readings", &options)?;
                insert(&db, key, 1..=rows)?;
                let (sample, report) = timed(|| board.seal());
                report?;
                seals.push(sample);
                let mut other = world.device("other", options.append)?;
                if !options.append {
                    create(&world.open(other.path())?, key)?;
                    other.track("readings", &options)?;
                }
                let bundle = world.path("bundle");
                world.export(&mut board, None, &bundle)?;
                let (sample, report) = timed(|| world.import(&mut other, &bundle));
                report?;
                imports.push(sample);
                std::fs::remove_file(&bundle)?;
                drop(db);
                for engine in [board, other] {
                    let path = engine.path().to_owned();
                    drop(engine);
                    world.remove(&path);
                }
            }
            let a_row = |seconds: f64| Cell::Number(seconds * 1e6 / rows as f64, 2);
            section.line(
                name,
                vec![
                    Cell::Number(rows as f64, 0),
                    a_row(wall(&seals)),
                    a_row(cpu(&seals)),
                    a_row(wall(&imports)),
                    a_row(cpu(&imports)),
                ],
            );
        }
    }
    Ok(section)
}
