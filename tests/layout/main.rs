//! The shape of the code: rooms in their order, each importing only those before it, with calls of methods
//! counted; no circle of files; functions and files that can be held in the head.
//!
//! `cargo test --test layout -- --nocapture` prints the rooms and the edges between them.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests are tests.

mod rooms;
mod source;

use rooms::House;
use source::{Source, crate_at};

/// Methods of ours whose names types outside the crate have as well: a call of one says nothing about rooms.
const COMMON: &[&str] = &[
    "all",
    "as_bytes",
    "check",
    "contains",
    "context",
    "create_new",
    "finish",
    "insert",
    "is_empty",
    "kind",
    "len",
    "lines",
    "load",
    "lock",
    "max",
    "open",
    "read",
    "remove",
    "take",
    "write",
];

const CORE: House<'static> = House {
    name: "packmule-core",
    rooms: &["model", "wire", "merge", "link", "session", "leaf", ""],
    common: COMMON,
};

/// The library: the engine's rooms, its face, the carriers.
const LIBRARY: House<'static> = House {
    name: "packmule",
    rooms: &[
        "engine/error",
        "engine/store",
        "engine/table",
        "engine/fleet",
        "engine/log",
        "engine/merge",
        "engine/show",
        "engine/capture",
        "engine/apply",
        "engine/track",
        "engine/conflicts",
        "engine/exchange",
        "engine/upkeep",
        "engine",
        "carry",
        "",
    ],
    common: COMMON,
};

/// The program: text at the bottom, commands and the demo on top; `main.rs` dispatches.
const PROGRAM: House<'static> = House {
    name: "packmule-cli",
    rooms: &["text", "usage", "documents", "output", "files", "commands", "demo", ""],
    common: COMMON,
};

#[test]
fn the_rooms_of_the_core_import_only_those_before_them() {
    CORE.hold(&crate_at("src/core", &[]));
}

#[test]
fn the_rooms_of_the_library_import_only_those_before_them() {
    LIBRARY.hold(&crate_at("src", &["core"]));
}

#[test]
fn the_rooms_of_the_program_import_only_those_before_them() {
    PROGRAM.hold(&crate_at("tools/packmule/src", &[]));
}

/// The control: one import, one inline path, one call of a method upwards is found, each by itself.
#[test]
fn a_call_upwards_is_found() {
    let lower = |body: &str| Source::of("src/engine/log/x.rs", "engine/log/x.rs", body.to_owned());
    let upper = || {
        let text = "pub struct Up; impl Up { pub fn rise(&self) {} } pub fn lift() {}";
        Source::of("src/engine/show/y.rs", "engine/show/y.rs", text.to_owned())
    };
    for (body, upward) in [
        ("use crate::engine::show::y::lift; fn f() { lift() }", 1),
        ("fn f() { super::super::show::y::lift() }", 1),
        ("fn f(up: &impl Fn()) { up.rise() }", 1),
        ("fn f() {}", 0),
    ] {
        let plan = LIBRARY.plan(&[lower(body), upper()]);
        assert_eq!(plan.upward.len(), upward, "{body}: {:?}", plan.upward);
    }
    let back = "use crate::engine::log::x::f; pub fn lift() { f() }".to_owned();
    let files = [
        lower("use crate::engine::show::y::lift; pub fn f() { lift() }"),
        Source::of("src/engine/show/y.rs", "engine/show/y.rs", back),
    ];
    assert_eq!(LIBRARY.plan(&files).circles.len(), 1);
}

#[test]
fn the_core_knows_nothing_of_sqlite_nor_the_engine_of_carriers() {
    for file in crate_at("src/core", &[]) {
        none(mentions(&file, &["rusqlite"]));
    }
    for file in crate_at("src/engine", &[]) {
        none(mentions(&file, &["super::super", "packmule::", "crate::carry"]));
    }
}

/// Where SQL is held: the engine, and the demo and the benchmarks, which are applications.
#[test]
fn only_the_engine_holds_sql() {
    let begins = [
        "SELECT ", "INSERT ", "UPDATE ", "DELETE ", "REPLACE ", "CREATE ", "DROP ", "ALTER ", "PRAGMA ",
        "BEGIN", "COMMIT", "ROLLBACK", "WITH ",
    ];
    for file in ["src/carry", "src/core", "tools/packmule"].into_iter().flat_map(|f| crate_at(f, &["target"]))
    {
        if file.path.contains("/demo/") {
            continue;
        }
        for (n, line) in file.code() {
            let sql =
                line.split('"').skip(1).step_by(2).any(|text| begins.iter().any(|b| text.starts_with(b)));
            assert!(!sql && !line.contains("rusqlite"), "{}:{n}: {}", file.path, line.trim());
        }
    }
}

/// Lines of a file, and of a function, that can be held in the head.
const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;

#[test]
fn no_file_and_no_function_is_too_long_to_hold_in_the_head() {
    let mut found = Vec::new();
    for file in ["src", "tools"].into_iter().flat_map(|f| crate_at(f, &["target"])) {
        let lines = file.text.lines().count();
        if lines > FILE_LINES_MAX {
            found.push(format!("{} has {lines} lines", file.path));
        }
        for (name, lines) in file.facts.functions.iter().filter(|(_, lines)| *lines > FUNCTION_LINES_MAX) {
            found.push(format!("{}: `{name}` has {lines} lines", file.path));
        }
    }
    none(found);
}

#[test]
fn nothing_is_left_for_later() {
    for file in ["src", "tools", "tests"].into_iter().flat_map(|f| crate_at(f, &["target", "layout"])) {
        none(mentions_anywhere(&file, &["TODO", "FIXME", "XXX", "todo!(", "unimplemented!("]));
    }
}

fn mentions(file: &Source, words: &[&str]) -> Vec<String> {
    let found = file.code().filter(|(_, line)| words.iter().any(|word| line.contains(word)));
    found.map(|(n, line)| format!("{}:{n}: {}", file.path, line.trim())).collect()
}

fn mentions_anywhere(file: &Source, words: &[&str]) -> Vec<String> {
    let lines =
        file.text.lines().enumerate().filter(|(_, line)| words.iter().any(|word| line.contains(word)));
    lines.map(|(n, line)| format!("{}:{}: {}", file.path, n + 1, line.trim())).collect()
}

#[track_caller]
fn none(found: Vec<String>) {
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}
