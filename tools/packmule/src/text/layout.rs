//! Columns, and lines of 80 letters.

use std::borrow::Cow;

use super::width::{beginning, width};

/// Aligns cells in columns that are as wide as they need to be.
pub fn columns(rows: &[Vec<String>]) -> Vec<String> {
    let widths: Vec<usize> = (0..rows.iter().map(Vec::len).max().unwrap_or(0))
        .map(|at| rows.iter().filter_map(|row| row.get(at)).map(|cell| width(cell)).max().unwrap_or(0))
        .collect();
    rows.iter()
        .map(|row| {
            let mut line = String::new();
            for (cell, most) in row.iter().zip(&widths) {
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', most + 2 - width(cell)));
            }
            line.truncate(line.trim_end().len());
            line
        })
        .collect()
}

/// The widest first cell beside which the others stand, where a line would be too long otherwise.
const FIRST_MAX: usize = 24;

/// Aligns cells as [`columns`] does; where a line would be longer than 80 letters, a first cell that is long has a line of
/// its own.
pub fn fitting_columns(rows: &[Vec<String>]) -> Vec<String> {
    let lines = columns(rows);
    if lines.iter().all(|line| width(line) <= 80) {
        return lines;
    }
    let is_long = |row: &&Vec<String>| row.first().is_some_and(|cell| width(cell) > FIRST_MAX);
    let short: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let first = if is_long(&row) { Some(String::new()) } else { row.first().cloned() };
            first.into_iter().chain(row.iter().skip(1).cloned()).collect()
        })
        .collect();
    let above = rows.iter().map(|row| row.first().filter(|_| is_long(&row)).cloned());
    above.zip(columns(&short)).flat_map(|(above, line)| above.into_iter().chain([line])).collect()
}

/// Cuts a line to 80 letters.
pub fn cut(line: &str) -> String {
    if width(line) <= 80 {
        return line.to_owned();
    }
    format!("{}…", beginning(line, 79))
}

/// Breaks words into lines of 80 letters; those after the first are set in.
pub fn wrap(words: &[String], indent: usize) -> String {
    let mut text = String::new();
    let mut taken = 0;
    for word in words {
        let len = width(word);
        if taken > 0 && taken + 1 + len > 80 {
            text.push('\n');
            text.extend(std::iter::repeat_n(' ', indent));
            taken = indent;
        } else if taken > 0 {
            text.push(' ');
            taken += 1;
        }
        text.push_str(word);
        taken += len;
    }
    text
}

/// Breaks a text into lines of 80 letters: the first is set in by `first`, the others by `indent`.
pub fn paragraph(text: &str, first: usize, indent: usize) -> String {
    let mut words = words(text);
    if let Some(word) = words.first_mut() {
        word.insert_str(0, &" ".repeat(first));
    }
    wrap(&words, indent)
}

/// Programs whose command lines are there to be copied: they stay whole.
const COPIED: &[&str] = &["packmule ", "systemctl ", "sudo ", "sqlite3 "];

/// Breaks every line of a text that is longer than 80 letters; what goes on is set in by two more. A command that stands
/// alone on its line stays whole, as does one between backquotes.
pub fn folded(text: &str) -> Cow<'_, str> {
    let long = |line: &str| width(line) > 80;
    if !text.lines().any(long) {
        return text.into();
    }
    let fold = |line: &str| {
        let begins = line.trim_start();
        if !long(line) || COPIED.iter().any(|program| begins.starts_with(program)) {
            return line.to_owned();
        }
        let indent = line.len() - begins.len();
        paragraph(begins, indent, indent + 2)
    };
    text.split('\n').map(fold).collect::<Vec<_>>().join("\n").into()
}

/// Takes a text apart into words; a command between backquotes is one.
pub fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match words.last_mut() {
            Some(last) if last.matches('`').count() % 2 == 1 => {
                last.push(' ');
                last.push_str(word);
            }
            _ => words.push(word.to_owned()),
        }
    }
    words
}
