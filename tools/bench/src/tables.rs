//! Public tables that the coder was not made on, as bytes: the bundle, each column by xz, the changeset by zstd.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use rusqlite::{Connection, params_from_iter};

use crate::report::{Cell, Section};
use crate::world::{Outcome, World, append};

/// The tables that are looked for in the folder, as `tables.py` puts them there.
const TABLES: [&str; 5] = ["airports", "diamonds", "seattle-temps", "seattle-weather", "stocks"];

/// A table as its file has it.
struct Csv {
    heads: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Csv {
    fn read(path: &Path) -> Outcome<Self> {
        let text = std::fs::read_to_string(path)?;
        let mut lines = text.lines().map(fields);
        let heads = lines.next().ok_or("a table without a first line")?;
        let rows = lines.collect::<Vec<_>>();
        match rows.iter().all(|row| row.len() == heads.len()) {
            true => Ok(Self { heads, rows }),
            false => Err(format!("{}: a line with another number of fields", path.display()).into()),
        }
    }

    /// Returns the values of a column.
    fn column(&self, at: usize) -> impl Iterator<Item = &str> {
        self.rows.iter().map(move |row| row[at].as_str())
    }

    /// Returns the declared type that a column's values have in common.
    fn kind(&self, at: usize) -> &'static str {
        let all = |is: fn(&str) -> bool| self.column(at).all(|value| is_null(value) || is(value));
        if all(|value| value.parse::<i64>().is_ok()) {
            "INTEGER"
        } else if all(|value| value.parse::<f64>().is_ok()) {
            "REAL"
        } else {
            "TEXT"
        }
    }

    /// Makes the table.
    fn create(&self, db: &Connection) -> Outcome {
        let column = |(at, name): (usize, &String)| format!("\"{name}\" {}", self.kind(at));
        let columns: Vec<String> = self.heads.iter().enumerate().map(column).collect();
        let columns = columns.join(", ");
        Ok(db.execute_batch(&format!(
            "CREATE TABLE rows_of (_id INTEGER PRIMARY KEY AUTOINCREMENT, {columns})"
        ))?)
    }

    /// Writes the rows, as one transaction.
    fn write(&self, db: &Connection) -> Outcome {
        db.execute_batch("BEGIN")?;
        let marks = vec!["?"; self.heads.len()].join(", ");
        let mut statement = db.prepare(&format!("INSERT INTO rows_of VALUES (NULL, {marks})"))?;
        for row in &self.rows {
            statement
                .execute(params_from_iter(row.iter().map(|value| (!is_null(value)).then_some(value))))?;
        }
        Ok(db.execute_batch("COMMIT")?)
    }
}

fn is_null(value: &str) -> bool {
    value.is_empty() || value == "NA"
}

/// Returns the fields of a line, of which those in quotation marks have commas.
fn fields(line: &str) -> Vec<String> {
    let (mut all, mut field, mut quoted) = (Vec::new(), String::new(), false);
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => all.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    all.push(field);
    all
}

/// Returns how long what a program makes of bytes is; `None` if there is no such program.
fn packed(program: &str, level: &str, bytes: &[u8]) -> Outcome<Option<usize>> {
    let mut command = Command::new(program);
    command.args([level, "-c"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let Ok(mut child) = command.spawn() else { return Ok(None) };
    let mut input = child.stdin.take().ok_or("no way into a program")?;
    let bytes = bytes.to_vec();
    let writer = std::thread::spawn(move || input.write_all(&bytes));
    let output = child.wait_with_output()?;
    writer.join().map_err(|_| "what wrote to a program failed")??;
    if output.status.success() { Ok(Some(output.stdout.len())) } else { Err(program.into()) }
}

/// Returns the bytes of a bundle of all rows, for a base that has answered.
fn bundle(world: &World, csv: &Csv) -> Outcome<u64> {
    let (mut board, mut base) = (world.device("board", false)?, world.device("base", true)?);
    let db = world.open(board.path())?;
    csv.create(&db)?;
    board.track("rows_of", &append())?;
    for _ in 0..2 {
        world.carry(&mut board, &mut base)?;
        world.carry(&mut base, &mut board)?;
    }
    csv.write(&db)?;
    board.seal()?;
    let path = world.path("bundle");
    let bytes = world.export(&mut board, Some(&base), &path)?;
    let applied = world.import(&mut base, &path)?.ops;
    std::fs::remove_file(&path)?;
    for device in [&board, &base] {
        world.remove(device.path());
    }
    if applied == csv.rows.len() as u64 { Ok(bytes) } else { Err("not all rows were applied".into()) }
}

/// Returns the changeset of all rows.
#[cfg(feature = "peers")]
fn changeset(world: &World, csv: &Csv) -> Outcome<Option<Vec<u8>>> {
    let path = world.path("session");
    let db = world.open(&path)?;
    csv.create(&db)?;
    let mut bytes = Vec::new();
    {
        let mut session = rusqlite::session::Session::new(&db)?;
        session.attach(Some("rows_of"))?;
        csv.write(&db)?;
        session.changeset_strm(&mut bytes)?;
    }
    drop(db);
    world.remove(&path);
    Ok(Some(bytes))
}

#[cfg(not(feature = "peers"))]
fn changeset(_: &World, _: &Csv) -> Outcome<Option<Vec<u8>>> {
    Ok(None)
}

/// Measures the bytes of each table that is in a folder.
pub fn measure(world: &World, dir: &Path) -> Outcome<Vec<Section>> {
    let mut section = Section {
        title: "Public tables",
        about: "Each as an append table, all rows in one seal: the whole bundle for a base that has answered; each column by itself, \
                a value a line, by xz -9; the changeset of the session extension by zstd -19. NULL where nothing stands."
            .into(),
        heads: vec!["", "rows", "bundle", "bytes a row", "xz -9, columns", "bundle, of xz", "changeset, zstd"],
        lines: Vec::new(),
    };
    let mut lacking = Vec::new();
    for name in TABLES {
        let path = dir.join(name).with_extension("csv");
        if !path.is_file() {
            lacking.push(name);
            continue;
        }
        eprintln!("tables: {name}");
        let csv = Csv::read(&path)?;
        let bytes = bundle(world, &csv)? as f64;
        let mut by_column = Some(0);
        for at in 0..csv.heads.len() {
            let column: String = csv.column(at).flat_map(|value| [value, "\n"]).collect();
            let packed = packed("xz", "-9", column.as_bytes())?;
            by_column = by_column.zip(packed).map(|(all, packed)| all + packed);
        }
        let changeset = changeset(world, &csv)?;
        let changeset = changeset.map(|bytes| packed("zstd", "-19", &bytes)).transpose()?.flatten();
        let number = |bytes: Option<usize>| bytes.map_or(Cell::None, |bytes| Cell::Number(bytes as f64, 0));
        let rows = csv.rows.len() as f64;
        section.line(
            name,
            vec![
                Cell::Number(rows, 0),
                Cell::Number(bytes, 0),
                Cell::Number(bytes / rows, 2),
                number(by_column),
                by_column.map_or(Cell::None, |of| Cell::Ratio(bytes / of as f64)),
                number(changeset),
            ],
        );
    }
    if !lacking.is_empty() {
        let (of, dir) = (lacking.join(", "), dir.display());
        section
            .about
            .push_str(&format!(" Left out, since {dir} has no such file (tables.py gets them): {of}."));
    }
    Ok(vec![section])
}
