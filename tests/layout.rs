//! The order of the folders, as DESIGN §8 has it: each imports only those above it.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests are tests.

use std::path::{Path, PathBuf};

/// A Rust file, by its path from the repository on.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// Its lines without comments, with their numbers.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().map(|(n, line)| (n + 1, line));
        lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// The lines that name one of these modules of a crate, `crate` for its own: `from::name`, `from::{name, …}`.
    fn names(&self, from: &str, modules: &[&str]) -> Vec<String> {
        let mut found = Vec::new();
        let mut open = false;
        for (n, line) in self.code() {
            let group = format!("{from}::{{");
            let listed = if open { Some(line) } else { line.split(&group).nth(1) };
            let words = |text: &str, word: &str| {
                text.split(|c: char| !c.is_alphanumeric() && c != '_').any(|w| w == word)
            };
            for module in modules {
                let direct = line.match_indices(&format!("{from}::{module}")).any(|(at, name)| {
                    !line[at + name.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_')
                });
                if direct || listed.is_some_and(|list| words(list, module)) {
                    found.push(format!("{}:{n}: {}", self.path, line.trim()));
                }
            }
            open = listed.is_some_and(|list| !list.contains("};"));
        }
        found
    }
}

fn sources(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = vec![root.join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push(Source { path: path.strip_prefix(root).unwrap().display().to_string(), text });
            }
        }
    }
    found
}

#[track_caller]
fn none(found: Vec<String>) {
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn the_folders_of_the_core_import_only_those_above_them() {
    let order = ["model", "wire", "merge", "link", "session", "leaf"];
    for (at, folder) in order.iter().enumerate() {
        let files = sources(&format!("src/core/{folder}"));
        assert!(!files.is_empty() || *folder == "leaf", "{folder} is not there");
        for file in files {
            none(file.names("crate", &order[at + 1..]));
            none(file.names("packmule_core", &order[at + 1..]));
        }
    }
}

#[test]
fn the_core_knows_nothing_of_sqlite_nor_the_engine_of_carriers() {
    let mentions = |file: &Source, words: &[&str]| {
        let found = file.code().filter(|(_, line)| words.iter().any(|word| line.contains(word)));
        found.map(|(n, line)| format!("{}:{n}: {}", file.path, line.trim())).collect::<Vec<_>>()
    };
    for file in sources("src/core") {
        none(mentions(&file, &["rusqlite"]));
    }
    let engine = sources("src/engine");
    assert!(engine.len() > 20);
    for file in engine {
        none(file.names("crate", &["carry"]));
        none(mentions(&file, &["super::super", "packmule::"]));
    }
}

/// Where SQL is held: the engine, and the demo, which is an application.
#[test]
fn only_the_engine_holds_sql() {
    let begins = [
        "SELECT ", "INSERT ", "UPDATE ", "DELETE ", "REPLACE ", "CREATE ", "DROP ", "ALTER ", "PRAGMA ",
        "BEGIN", "COMMIT", "ROLLBACK", "WITH ",
    ];
    for file in ["src/carry", "src/core", "tools"].into_iter().flat_map(sources) {
        if file.path.contains("/demo/") || file.path.contains("bench") {
            continue;
        }
        for (n, line) in file.code() {
            let sql =
                line.split('"').skip(1).step_by(2).any(|text| begins.iter().any(|b| text.starts_with(b)));
            assert!(!sql && !line.contains("rusqlite"), "{}:{n}: {}", file.path, line.trim());
        }
    }
}

#[test]
fn no_file_is_too_long_to_read_and_none_is_unfinished() {
    let all: Vec<_> = ["src", "tools"].into_iter().flat_map(sources).collect();
    assert!(all.len() > 50);
    for file in all {
        let lines = file.text.lines().count();
        assert!(lines <= 600, "{} has {lines} lines", file.path);
        for (n, line) in file.text.lines().enumerate() {
            let unfinished =
                ["TODO", "FIXME", "XXX", "todo!(", "unimplemented!("].iter().any(|word| line.contains(word));
            assert!(!unfinished, "{}:{}: {line}", file.path, n + 1);
        }
    }
}
