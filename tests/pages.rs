//! The pages of the documentation and the README: every link leads somewhere, here and in the rustdoc, and
//! every path that a page names is there.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests are tests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The pages, by their paths from the repository on.
const FOLDERS: &[&str] = &["", "src/docs", "src/core/wire", "src/core/link", "tools/bench"];
/// What stands before each page in the rustdoc.
const LINKS: &str = "src/docs/links.md";
/// Where a path that a page names can begin.
const ROOTS: &[&str] = &["src/", "tests/", "tools/", "boards/", ".ci/"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A Markdown file.
struct Page {
    path: PathBuf,
    /// Without code blocks.
    text: String,
}

impl Page {
    fn read(path: &Path) -> Self {
        let mut code = false;
        let whole = std::fs::read_to_string(root().join(path)).unwrap();
        let prose = whole.lines().filter(|line| {
            let fence = line.starts_with("```");
            code ^= fence;
            !code && !fence
        });
        Self { path: path.into(), text: prose.collect::<Vec<_>>().join("\n") }
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// What stands in backticks.
    fn code(&self) -> impl Iterator<Item = &str> {
        self.text.split('`').skip(1).step_by(2)
    }

    /// Without what stands in backticks.
    fn prose(&self) -> String {
        self.text.split('`').step_by(2).collect::<Vec<_>>().join("`")
    }

    /// `[label]: target`.
    fn definitions(&self) -> BTreeMap<String, String> {
        let line = |line: &str| {
            let (label, target) = line.strip_prefix('[')?.split_once("]: ")?;
            Some((label.to_owned(), target.trim().to_owned()))
        };
        self.text.lines().filter_map(line).collect()
    }

    /// Targets of `[text](target)`; and labels of `[text][label]` and `[label]`.
    fn links(&self) -> (Vec<String>, Vec<String>) {
        let prose: Vec<String> =
            self.prose().lines().filter(|line| !is_definition(line)).map(str::to_owned).collect();
        let prose = prose.join("\n");
        let (mut targets, mut labels) = (Vec::new(), Vec::new());
        let mut rest = prose.as_str();
        while let Some(at) = rest.find('[') {
            rest = &rest[at + 1..];
            let Some(end) = rest.find(']') else { break };
            let (text, after) = (&rest[..end], &rest[end + 1..]);
            if let Some(target) = after.strip_prefix('(') {
                targets.push(target.split(')').next().unwrap_or_default().to_owned());
            } else if let Some(label) = after.strip_prefix('[') {
                labels.push(label.split(']').next().unwrap_or_default().to_owned());
                rest = &after[label.find(']').map_or(0, |end| end + 2)..];
            } else if !text.is_empty() && text.chars().all(|c| c.is_lowercase() || c == '-') {
                labels.push(text.to_owned());
            }
        }
        (targets, labels)
    }

    /// What `#fragment`s lead to, as both GitHub and rustdoc make them of headings.
    fn anchors(&self) -> BTreeSet<String> {
        let headings = self.text.lines().filter(|line| line.starts_with('#'));
        let anchor = |line: &str| {
            let words = line.trim_start_matches('#').trim().to_lowercase();
            let kept = words.chars().filter(|c| c.is_alphanumeric() || "-_ ".contains(*c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect::<String>()
        };
        headings.map(anchor).collect()
    }
}

fn is_definition(line: &str) -> bool {
    line.starts_with('[') && line.contains("]: ")
}

fn pages() -> Vec<Page> {
    let mut paths: Vec<PathBuf> = Vec::new();
    for folder in FOLDERS {
        let entries = std::fs::read_dir(root().join(folder)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name());
        paths.extend(names.map(|name| Path::new(folder).join(name)));
    }
    paths.retain(|path| path.extension().is_some_and(|e| e == "md") && path != Path::new(LINKS));
    paths.sort();
    assert!(paths.len() > 8, "{paths:?}");
    paths.iter().map(|path| Page::read(path)).collect()
}

/// Whether a link leads somewhere; if not, why.
fn dead(page: &Page, target: &str) -> Option<String> {
    if target.starts_with("https://") {
        return None;
    }
    let (file, fragment) = target.split_once('#').unwrap_or((target, ""));
    let path = match file {
        "" => root().join(&page.path),
        file => root().join(&page.path).parent().unwrap().join(file),
    };
    if !path.exists() {
        return Some(format!("{}: `{target}` is not there", page.name()));
    }
    let there = || Page::read(&std::fs::canonicalize(&path).unwrap()).anchors().contains(fragment);
    (!fragment.is_empty() && !there()).then(|| format!("{}: `{target}` has no such heading", page.name()))
}

#[track_caller]
fn none(found: &[String]) {
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn every_link_leads_somewhere() {
    let mut found = Vec::new();
    let mut links = 0;
    for page in pages() {
        let definitions = page.definitions();
        let (targets, labels) = page.links();
        links += targets.len() + labels.len();
        for label in labels.iter().filter(|label| !definitions.contains_key(*label)) {
            found.push(format!("{}: [{label}] is not defined", page.name()));
        }
        for label in definitions.keys().filter(|label| !labels.contains(label)) {
            found.push(format!("{}: [{label}] is defined and not used", page.name()));
        }
        found.extend(targets.iter().chain(definitions.values()).filter_map(|target| dead(&page, target)));
    }
    none(&found);
    assert!(links > 60, "{links} links: they are not found any more");
}

/// The rustdoc takes each page with the links of [`LINKS`] before it: a label means the same page in both.
#[test]
fn a_link_means_the_same_page_in_the_rustdoc() {
    let here = Page::read(Path::new(LINKS)).definitions();
    let modules = std::fs::read_to_string(root().join("src/docs/mod.rs")).unwrap();
    let mut found = Vec::new();
    for page in pages().iter().filter(|page| !page.path.starts_with("README.md")) {
        let includes = page.path.file_name().unwrap().to_str().unwrap();
        let is_page = modules.contains(&format!("{includes}\")]"));
        if page.path.starts_with("src/docs") && !is_page {
            found.push(format!("{}: is no module of src/docs/mod.rs", page.name()));
        }
        for (label, target) in page.definitions().iter().filter(|_| is_page) {
            let named = Path::new(target).file_stem().unwrap().to_str().unwrap().to_lowercase();
            let module = here.get(label).and_then(|path| path.rsplit("::").next());
            if module != Some(&named) {
                found.push(format!("{}: [{label}] is {target} here, and {module:?} in {LINKS}", page.name()));
            }
        }
        // The rustdoc has no file beside a page: what is not a page of ours must be a heading or a label.
        let files = page.links().0.into_iter().filter(|t| !t.starts_with('#') && !t.starts_with("https://"));
        found
            .extend(files.filter(|_| is_page).map(|t| format!("{}: ({t}) leads nowhere there", page.name())));
    }
    none(&found);
}

#[test]
fn every_path_that_a_page_names_is_there() {
    let mut found = Vec::new();
    let mut paths = 0;
    for page in pages() {
        for code in page.code() {
            let path = code.split([' ', ':']).next().unwrap_or_default();
            // `tests/vectors/*.hex` stands for the folder.
            let path = path.split_once('*').map_or(path, |(folder, _)| folder.trim_end_matches(|c| c != '/'));
            if !ROOTS.iter().any(|root| path.starts_with(root)) {
                continue;
            }
            paths += 1;
            if !root().join(path).exists() {
                found.push(format!("{}: {path} is not there", page.name()));
            }
        }
    }
    none(&found);
    assert!(paths > 50, "{paths} paths: they are not found any more");
}

/// Each line of what is defended names a test, and so does what is not; `FILE::TEST` is a function in it.
#[test]
fn every_test_that_the_page_of_security_names_is_there() {
    let page = Page::read(Path::new("src/docs/security.md"));
    let section = |name: &str| page.text.split(name).nth(1).unwrap().split("\n## ").next().unwrap();
    let defended = section("## What is defended");
    let rows = defended.lines().filter(|line| line.starts_with("| ")).skip(1);
    let mut said: Vec<&str> =
        rows.map(|line| line.trim_end_matches([' ', '|']).rsplit(" | ").next().unwrap()).collect();
    // Paragraph by paragraph, and point by point where one has points.
    for paragraph in section("## What is not defended").split("\n\n").filter(|text| !text.trim().is_empty()) {
        match paragraph.trim_start().starts_with("- ") {
            true => said.extend(paragraph.split("\n- ")),
            false if paragraph.ends_with(':') => {}
            false => said.push(paragraph),
        }
    }
    let (mut found, mut named) = (Vec::new(), 0);
    for text in said {
        let quoted = text.split('`').skip(1).step_by(2);
        let tests: Vec<&str> = quoted.filter(|word| word.contains(".rs")).collect();
        if tests.is_empty() {
            found.push(format!("no test is named: {text}"));
        }
        for test in tests {
            let (file, name) = test.split_once("::").unwrap_or((test, ""));
            let source = std::fs::read_to_string(root().join(file)).unwrap_or_default();
            let mark = if name.is_empty() { "#[test]".to_owned() } else { format!("#[test]\nfn {name}()") };
            let indented = mark.replace('\n', "\n    ");
            if !source.contains(&mark) && !source.contains(&indented) {
                found.push(format!("{test} is not there"));
            }
            named += 1;
        }
    }
    none(&found);
    assert!(named > 80, "{named} tests: they are not found any more");
}

#[test]
fn the_glossary_is_in_order() {
    let page = Page::read(Path::new("src/docs/glossary.md"));
    let terms: Vec<String> =
        page.text.lines().filter_map(|l| l.strip_prefix("### ")).map(str::to_lowercase).collect();
    assert!(terms.len() > 50 && terms.is_sorted(), "{terms:?}");
}

/// The checks see what is wrong.
#[test]
fn a_dead_link_is_found() {
    let page =
        Page { path: "src/docs/x.md".into(), text: "[a](b.md) [c][d] [glossary] `[e]` [f](#g)".into() };
    let (targets, labels) = page.links();
    assert_eq!(targets, ["b.md", "#g"]);
    assert_eq!(labels, ["d", "glossary"]);
    assert!(dead(&page, "b.md").is_some() && dead(&page, "glossary.md#no-such-term").is_some());
    assert!(dead(&page, "glossary.md#frame").is_none() && dead(&page, "../../README.md").is_none());
}
