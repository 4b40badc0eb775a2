//! Sentences that several commands print.

use std::io;
use std::path::Path;

use packmule::Wait;
use packmule::core::model::Stream;

use super::{plural, quoted};

/// Says what a group of frames waits for.
pub fn waiting(wait: &Wait) -> String {
    let Wait { author, missing, up_to, .. } = wait;
    let frames = range(wait.frames.0, wait.frames.1);
    let waits = if wait.frames.0 == wait.frames.1 { "waits" } else { "wait" };
    match up_to {
        // No frames bring it on.
        0 => format!("{frames} of {author} {waits} for {missing}"),
        up_to => format!(
            "{frames} of {author} {waits} for frames of {missing} up to {up_to}, and can be applied only after them"
        ),
    }
}

/// Says what to do for a device that lacks frames which are compacted away here.
pub fn behind(whom: &str, db: &Path) -> String {
    format!(
        "{whom} lacks frames that are compacted away here: run `packmule snapshot {} FILE` here, and \
         `packmule join` with that file there",
        quoted(db)
    )
}

/// Says how many conflicts are open, and which command lists them; says nothing where none is.
pub fn conflicts_open(open: u64, db: &Path) -> Option<String> {
    let these = plural(open, "conflict is open", "conflicts are open");
    (open > 0).then(|| format!("{these}: `packmule conflicts {}` lists every version", quoted(db)))
}

/// Names frames by their numbers.
pub fn range(first: u64, last: u64) -> String {
    if first == last { format!("frame {first}") } else { format!("frames {first} to {last}") }
}

/// Names a stream.
pub fn stream(stream: Stream) -> &'static str {
    match stream {
        Stream::Shared => "shared",
        Stream::Own => "per-device",
    }
}

/// Returns the system's reason, without its number.
pub fn io_text(e: &io::Error) -> String {
    let text = e.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    match letters.next() {
        // Not of a name or an abbreviation.
        Some(first) if letters.clone().next().is_some_and(|second| second.is_lowercase()) => {
            first.to_lowercase().chain(letters).collect()
        }
        _ => text.to_owned(),
    }
}

/// Puts the database's name into `packmule init DB` and the like.
pub fn with_database(text: &str, db: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(" DB") {
        let (before, after) = rest.split_at(at);
        let mut words = before.rsplit([' ', '`', '\n']);
        let (last, last_but_one) = (words.next(), words.next());
        let ends = !after[3..].starts_with(|c: char| c.is_alphanumeric() || c == '_');
        let command = last == Some("sqlite3") || last_but_one == Some("packmule");
        out.push_str(before);
        out.push_str(if ends && command { " " } else { " DB" });
        if ends && command {
            out.push_str(db);
        }
        rest = &after[3..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_name_the_database() {
        let hint = with_database(
            "no DB here: run `packmule init DB`, or `packmule track DB DBX`\n  packmule trust DB 00",
            "a.db",
        );
        assert_eq!(
            hint,
            "no DB here: run `packmule init a.db`, or `packmule track a.db DBX`\n  packmule trust a.db 00"
        );
        assert_eq!(
            with_database("run `sqlite3 DB 'PRAGMA x'`", "'a b.db'"),
            "run `sqlite3 'a b.db' 'PRAGMA x'`"
        );
    }
}
