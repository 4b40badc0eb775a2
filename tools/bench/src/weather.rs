//! Hourly weather of three stations, as bytes: all at once, in groups of 512 rows, in a bundle a day, and row by row.

use std::path::Path;

use packmule::Engine;
use rusqlite::{Connection, params_from_iter};

use crate::line;
use crate::report::{Cell, Section};
use crate::world::{Outcome, World, append};

/// The month that the repository has.
const JANUARY: &str = include_str!("../../../tests/vectors/weather-january.csv");

const SCHEMA: &str = "CREATE TABLE readings (id INTEGER PRIMARY KEY AUTOINCREMENT, origin TEXT, year INT, month INT,
    day INT, hour INT, temp REAL, dewp REAL, humid REAL, wind_dir INT, wind_speed REAL, wind_gust REAL, precip REAL,
    pressure REAL, visib REAL, time_hour TEXT)";

/// A station's board, its rows, and the base that it talks to, which answers each bundle.
struct Station<'r> {
    board: Engine,
    base: Engine,
    application: Connection,
    rows: Vec<&'r str>,
}

impl<'r> Station<'r> {
    fn new(world: &World, text: &'r str, name: &str) -> Outcome<Self> {
        let rows = text.lines().filter(|line| line.starts_with(name)).collect();
        let mut board = world.device(&name.to_lowercase(), false)?;
        let mut base = world.device("base", true)?;
        let application = world.open(board.path())?;
        application.execute_batch(SCHEMA)?;
        board.track("readings", &append())?;
        for _ in 0..2 {
            world.carry(&mut board, &mut base)?;
            world.carry(&mut base, &mut board)?;
        }
        Ok(Self { board, base, application, rows })
    }

    /// Writes rows, as one transaction.
    fn write(&self, rows: &[&str]) -> Outcome {
        self.application.execute_batch("BEGIN")?;
        let marks = vec!["?"; 15].join(", ");
        let mut statement = self.application.prepare_cached(&format!(
            "INSERT INTO readings (origin, year, month, day, hour, temp, dewp, humid, wind_dir, wind_speed, wind_gust,
             precip, pressure, visib, time_hour) VALUES ({marks})"
        ))?;
        for row in rows {
            statement.execute(params_from_iter(row.split(',').map(|v| (v != "NA").then_some(v))))?;
        }
        Ok(self.application.execute_batch("COMMIT")?)
    }

    /// Carries what is new to the base, which answers. Returns the bytes of the bundle.
    fn carry(&mut self, world: &World) -> Outcome<u64> {
        let path = world.path("bundle");
        let bytes = world.export(&mut self.board, Some(&self.base), &path)?;
        world.import(&mut self.base, &path)?;
        std::fs::remove_file(&path)?;
        world.carry(&mut self.base, &mut self.board)?;
        Ok(bytes)
    }
}

/// Measures the bytes of bundles of a file like the repository's.
pub fn measure(world: &World, file: Option<&Path>) -> Outcome<Vec<Section>> {
    eprintln!("weather");
    let text = file.map_or_else(|| Ok(JANUARY.to_owned()), std::fs::read_to_string)?;
    let rows = text.lines().count() - 1;
    let mut section = Section {
        title: "The weather of three stations",
        about: format!(
            "{rows} rows of hourly weather, each station's by a board of its own into an append table; to a base that answered \
             the bundle before. The bytes are those of whole bundles."
        ),
        heads: vec!["", "rows", "bundles", "bytes", "bytes a row"],
        lines: Vec::new(),
    };
    let cases = [
        ("all rows in one bundle", usize::MAX, usize::MAX),
        ("groups of 512 rows in one bundle", 512, usize::MAX),
        ("a bundle for 24 rows", 24, 24),
        ("a bundle for one row", 1, 1),
    ];
    for (name, a_group, a_bundle) in cases {
        let (mut bytes, mut bundles, mut carried) = (0, 0, 0);
        for origin in ["EWR", "JFK", "LGA"] {
            let mut station = Station::new(world, &text, origin)?;
            let rows = std::mem::take(&mut station.rows);
            // One row a bundle is the same every time.
            let rows = if a_bundle == 1 { &rows[..rows.len().min(50)] } else { &rows[..] };
            carried += rows.len();
            for bundle in rows.chunks(a_bundle) {
                for group in bundle.chunks(a_group) {
                    station.write(group)?;
                    station.board.seal()?;
                }
                bytes += station.carry(world)?;
                bundles += 1;
            }
        }
        section.line(
            name,
            vec![
                Cell::Number(carried as f64, 0),
                Cell::Number(f64::from(bundles), 0),
                Cell::Number(bytes as f64, 0),
                Cell::Number(bytes as f64 / carried as f64, 2),
            ],
        );
    }
    Ok(vec![section, over_a_line(world, &text)?])
}

/// Measures a session of each board with its base, over the line of `line`.
fn over_a_line(world: &World, text: &str) -> Outcome<Section> {
    let mut section = Section {
        title: "The weather over a serial line",
        about: format!(
            "The same rows, each board's in one seal, by a session over {} baud (8N1, clean, 1 ms), from the first hello to the \
             last acknowledgement, by virtual clock: computing takes no time in it.",
            line::BAUD
        ),
        heads: vec!["", "rows", "line KB", "seconds"],
        lines: Vec::new(),
    };
    let mut all = [0.0; 3];
    for origin in ["EWR", "JFK", "LGA"] {
        let mut station = Station::new(world, text, origin)?;
        let rows = std::mem::take(&mut station.rows);
        station.write(&rows)?;
        station.board.seal()?;
        let (seconds, bytes) = line::in_step([&mut station.board, &mut station.base])?;
        let figures = [rows.len() as f64, bytes as f64 / 1e3, seconds];
        all.iter_mut().zip(figures).for_each(|(all, figure)| *all += figure);
    }
    let digits = [0, 1, 1];
    section.line(
        "all three, one after the other",
        all.into_iter().zip(digits).map(|(n, d)| Cell::Number(n, d)).collect(),
    );
    Ok(section)
}
