//! The rooms of the program: each imports only those before it, no function is too long to read.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

/// In order, as `tools/packmule/src/main.rs` has them.
const ROOMS: [&str; 7] = ["text", "usage", "documents", "output", "files", "commands", "demo"];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
}

/// The names after `crate::` in these lines of code, `crate::{a, b}` too.
fn imports(text: &str) -> Vec<String> {
    let code: String = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| [line, "\n"])
        .collect();
    let mut names = Vec::new();
    for after in code.split("crate::").skip(1) {
        let list = after.strip_prefix('{').and_then(|list| list.split_once("};")).map(|(list, _)| list);
        let word = |text: &str| {
            let text = text.trim_start();
            text[..text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len())].to_owned()
        };
        match list {
            Some(list) => names.extend(list.split(',').map(word)),
            None => names.push(word(after)),
        }
    }
    names
}

/// The room that a file imports and may not, if there is one.
fn forbidden(room: &str, text: &str) -> Option<String> {
    let at = ROOMS.iter().position(|name| *name == room).unwrap();
    imports(text).into_iter().find(|name| !ROOMS[..=at].contains(&name.as_str()))
}

#[test]
fn each_room_imports_only_those_before_it() {
    for room in ROOMS {
        let mut found = Vec::new();
        files(&source().join(room), &mut found);
        assert!(found.iter().any(|path| path.ends_with("mod.rs")), "{room} has no first file");
        for path in found {
            let text = std::fs::read_to_string(&path).unwrap();
            assert_eq!(forbidden(room, &text), None, "{}", path.display());
            let up = text.matches("super::super").count();
            assert_eq!(up, 0, "{} imports by `super::super`", path.display());
        }
    }
    // All rooms, and nothing beside them but the file that runs a command line.
    let mut names: Vec<String> = std::fs::read_dir(source())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let mut all: Vec<&str> = ROOMS.to_vec();
    all.push("main.rs");
    all.sort_unstable();
    assert_eq!(names, all);
    // A control: one import upwards is found.
    assert_eq!(forbidden("text", "use crate::output::Out;\n"), Some("output".into()));
    assert_eq!(forbidden("text", "use crate::{\n    text,\n    run,\n};\n"), Some("run".into()));
    assert_eq!(forbidden("output", "use crate::text::{show, size};\n// crate::demo\n"), None);
}

#[test]
fn no_function_of_the_tools_is_too_long_to_read() {
    let mut found = Vec::new();
    files(&source(), &mut found);
    for tool in ["../boards", "../bench"] {
        files(&Path::new(env!("CARGO_MANIFEST_DIR")).join(tool).join("src"), &mut found);
    }
    let mut functions = 0;
    for path in found {
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let code = line.trim_start();
            let head = code.trim_start_matches("pub ").trim_start_matches("const ");
            if !head.starts_with("fn ") {
                continue;
            }
            functions += 1;
            // Formatted code ends a function with a brace under its first letter.
            let end = format!("{}}}", &line[..line.len() - code.len()]);
            let long = lines[at..].iter().position(|line| *line == end).map_or(1, |lines| lines + 1);
            assert!(long <= 70, "{}:{}: {code} has {long} lines", path.display(), at + 1);
        }
    }
    assert!(functions > 100);
}
