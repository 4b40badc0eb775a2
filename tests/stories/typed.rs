//! Pages whose commands are typed as they stand there: what a line says that it prints, it prints.

use std::path::Path;
use std::process::Command;

use crate::support::{Desk, PACKMULE, has, unfolded};

/// The pages with commands, and who types them.
const PAGES: &[(&str, &str)] = &[
    ("keeper.md", include_str!("keeper.rs")),
    ("new-board.md", include_str!("new_board.rs")),
    ("dead-base.md", include_str!("dead_base.rs")),
    ("station.md", include_str!("station.rs")),
    ("weekly.md", include_str!("weekly.rs")),
    ("upgrade.md", include_str!("upgrade.rs")),
    ("late-application.md", include_str!("late_application.rs")),
    ("decisions.md", include_str!("decisions.rs")),
];

/// The commands of a page, or of a section of it.
pub fn block(page: &'static str, section: Option<&str>) -> Vec<&'static str> {
    let from = match section {
        Some(section) => page.split_once(&format!("\n## {section}\n")).unwrap().1,
        None => page,
    };
    let block = from.split_once("```sh\n").unwrap().1.split_once("```").unwrap().0;
    block.lines().collect()
}

/// The commands that stand in a page's text.
pub fn mentioned(page: &'static str) -> Vec<&'static str> {
    let prose = page.split("```").step_by(2).flat_map(|text| text.split('`').skip(1).step_by(2));
    prose.filter(|code| code.starts_with("packmule ")).collect()
}

/// Types a line. Returns what it printed.
pub fn shell(desk: &Desk, line: &str) -> String {
    let program = Path::new(PACKMULE).parent().unwrap().display();
    let path = format!("{program}:{}", std::env::var("PATH").unwrap_or_default());
    let mut shell = Command::new("sh");
    shell.args(["-ec", line]).current_dir(desk.path("")).env("PATH", path);
    let ran = shell.output().unwrap();
    let out = unfolded(&String::from_utf8_lossy(&ran.stdout));
    let err = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success() && err.is_empty(), "{line}\n{out}{err}");
    if let Some((_, shows)) = line.split_once("# -> ") {
        has(&out, &[shows]);
    }
    out
}

/// Types lines, one after the other, with what happens elsewhere after each. Returns what each printed.
pub fn typed(desk: &Desk, lines: &[&str], mut then: impl FnMut(usize, &str)) -> Vec<String> {
    let mut printed = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        printed.push(shell(desk, line));
        then(at, line);
    }
    printed
}

/// No page has commands that nobody types.
#[test]
fn every_page_with_commands_is_typed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../src/docs");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name.ends_with(".md") && std::fs::read_to_string(&path).unwrap().contains("\n```sh\n") {
            found.push(name);
        }
    }
    found.sort();
    let mut typed: Vec<&str> = PAGES.iter().map(|(page, _)| *page).collect();
    typed.sort_unstable();
    assert_eq!(found, typed);
    for (page, story) in PAGES {
        let reads = format!("include_str!(\"../../src/docs/{page}\")");
        assert!(story.contains(&reads) && story.contains("typed("), "{page}");
    }
}
