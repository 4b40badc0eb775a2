//! What was measured, as tables for people and as JSON.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::time::{Sample, median};

/// A table of figures.
pub struct Section {
    /// What is measured.
    pub title: &'static str,
    /// How, in a sentence or two.
    pub about: String,
    /// The heads of the columns; the first is over the lines' names.
    pub heads: Vec<&'static str>,
    /// The lines.
    pub lines: Vec<Line>,
}

/// A line of a table.
pub struct Line {
    /// What its figures are of.
    pub name: String,
    /// A figure a column.
    pub cells: Vec<Cell>,
}

/// A figure.
#[derive(Clone, Copy)]
pub enum Cell {
    /// Nothing to report.
    None,
    /// So many times another.
    Ratio(f64),
    /// Anything else, with digits after the point.
    Number(f64, usize),
}

impl Cell {
    fn text(self) -> String {
        match self {
            Self::None => "–".into(),
            Self::Ratio(r) => format!("{r:.2} ×"),
            Self::Number(n, digits) => thousands(&format!("{n:.digits$}")),
        }
    }

    fn json(self) -> Value {
        match self {
            Self::None => Value::Null,
            Self::Ratio(n) | Self::Number(n, _) => json!(n),
        }
    }
}

/// Puts a comma after every three digits.
pub fn thousands(number: &str) -> String {
    let whole = number.find('.').unwrap_or(number.len());
    let mut text = String::new();
    for (at, c) in number.chars().enumerate() {
        if at > 0 && at < whole && (whole - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(c);
    }
    text
}

/// Returns the median of what samples took by the wall, in seconds.
pub fn wall(samples: &[Sample]) -> f64 {
    median(samples.iter().map(|s| s.wall).collect())
}

/// Returns the median of what samples took on a processor, in seconds.
pub fn cpu(samples: &[Sample]) -> f64 {
    median(samples.iter().map(|s| s.cpu).collect())
}

impl Section {
    /// Adds a line.
    pub fn line(&mut self, name: impl Into<String>, cells: Vec<Cell>) {
        self.lines.push(Line { name: name.into(), cells });
    }

    fn markdown(&self, out: &mut String) {
        let mut rows = vec![self.heads.iter().map(|h| (*h).to_owned()).collect::<Vec<_>>()];
        for line in &self.lines {
            let cells = line.cells.iter().map(|c| c.text());
            rows.push(std::iter::once(line.name.clone()).chain(cells).collect());
        }
        let widths: Vec<usize> = (0..self.heads.len())
            .map(|at| rows.iter().filter_map(|r| r.get(at)).map(|c| c.chars().count()).max().unwrap_or(0))
            .collect();
        let _ = write!(out, "\n## {}\n\n{}\n\n", self.title, self.about);
        for (n, row) in rows.iter().enumerate() {
            for (at, width) in widths.iter().enumerate() {
                let cell = row.get(at).map_or("", String::as_str);
                let _ =
                    if at == 0 { write!(out, "| {cell:<width$} ") } else { write!(out, "| {cell:>width$} ") };
            }
            out.push_str("|\n");
            if n == 0 {
                for (at, width) in widths.iter().enumerate() {
                    let (width, end) = (width - usize::from(at > 0), if at > 0 { ":" } else { "" });
                    let _ = write!(out, "| {:-<width$}{end} ", "");
                }
                out.push_str("|\n");
            }
        }
    }

    fn json(&self) -> Value {
        let lines = self.lines.iter().map(|line| {
            let mut object = serde_json::Map::new();
            object.insert("name".into(), line.name.as_str().into());
            for (head, cell) in self.heads.iter().skip(1).zip(&line.cells) {
                object.insert((*head).into(), cell.json());
            }
            Value::Object(object)
        });
        json!({ "title": self.title, "about": self.about, "lines": lines.collect::<Vec<_>>() })
    }
}

/// Formats all of it, with what it was measured on.
pub fn markdown(machine: &[(&'static str, String)], sections: &[Section]) -> String {
    let mut out =
        "# What Packmule costs\n\nWritten by `packmule-bench`; every peer measured in the same run.\n\
                   wall: by the clock, waiting for the disk included. cpu: of it, on a processor.\n\n"
            .to_owned();
    for (what, value) in machine {
        let _ = writeln!(out, "- {what}: {value}");
    }
    sections.iter().for_each(|section| section.markdown(&mut out));
    out
}

/// Formats the same as JSON.
pub fn json(machine: &[(&'static str, String)], sections: &[Section]) -> String {
    let machine: serde_json::Map<String, Value> =
        machine.iter().map(|(what, value)| ((*what).to_owned(), value.as_str().into())).collect();
    let sections: Vec<Value> = sections.iter().map(Section::json).collect();
    format!("{:#}\n", json!({ "machine": machine, "sections": sections }))
}
