//! A board that was away comes back and lacks frames that are folded: what it is sent, beside what a newcomer is.

use crate::report::{Cell, Section};
use crate::time::timed;
use crate::world::{Key, Outcome, World, create, insert, shared, spread, update};

/// So many frames the board lacks, each with one row.
const FRAMES: u64 = 100;

/// Measures the bundles for a board that lacks some folded frames of a table of so many rows, and for a newcomer.
pub fn measure(world: &World, rows: u64) -> Outcome<Vec<Section>> {
    eprintln!("returning: {rows} rows");
    let mut base = world.device("base", true)?;
    let mut away = world.device("away", false)?;
    let mut new = world.device("new", false)?;
    for engine in [&mut base, &mut away, &mut new] {
        create(&world.open(engine.path())?, Key::Integer)?;
        engine.track("readings", &shared())?;
    }
    let application = world.open(base.path())?;
    insert(&application, Key::Integer, 1..=rows)?;
    for _ in 0..2 {
        world.carry(&mut base, &mut away)?;
        world.carry(&mut away, &mut base)?;
    }
    base.compact()?;
    base.retire(away.identity().id, None)?;
    for (n, id) in spread(FRAMES, rows).enumerate() {
        update(&application, Key::Integer, std::iter::once(id), n as u64 + 1)?;
        base.seal()?;
    }
    let folded = base.compact()?.frames;
    world.carry(&mut away, &mut base)?;
    let mut section = Section {
        title: "Who lacks what is folded",
        about: format!(
            "A table of {rows} rows; {FRAMES} frames of one changed row each, and {folded} in all, are folded at the base. \
             *back*: a board that has all before these. *new*: one that has nothing, and gets the whole state."
        ),
        heads: vec!["", "bytes of the bundle", "rows applied", "s, cpu"],
        lines: Vec::new(),
    };
    let path = world.path("state");
    let bytes = world.export(&mut base, Some(&away), &path)?;
    let (sample, report) = timed(|| world.import(&mut away, &path));
    let line = |bytes: u64, ops: u64, cpu: f64| {
        vec![Cell::Number(bytes as f64, 0), Cell::Number(ops as f64, 0), Cell::Number(cpu, 2)]
    };
    section.line("back", line(bytes, report?.ops, sample.cpu));
    world.carry(&mut new, &mut base)?;
    let bytes = world.export(&mut base, Some(&new), &path)?;
    let (sample, report) = timed(|| world.import(&mut new, &path));
    section.line("new", line(bytes, report?.ops, sample.cpu));
    std::fs::remove_file(&path)?;
    for other in [&away, &new] {
        if other.digest(false)? != base.digest(false)? {
            return Err("the digests differ".into());
        }
    }
    Ok(vec![section])
}
