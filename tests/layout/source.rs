//! The source files of a crate, parsed: what each one imports, calls and defines.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};

/// A Rust file.
pub struct Source {
    /// Its path from the repository on.
    pub path: String,
    /// Its module, from the crate's root on: `engine/merge/heads`; of a `mod.rs` the folder's.
    pub module: Vec<String>,
    pub text: String,
    pub facts: Facts,
}

/// What is read from a file, tests left out.
#[derive(Default)]
pub struct Facts {
    /// Paths, whole from the crate on: `crate/engine/merge/heads/Head`.
    pub paths: BTreeSet<Vec<String>>,
    /// Methods that are called, by name.
    pub calls: BTreeSet<String>,
    /// Methods that are defined, with or without a body.
    pub methods: BTreeSet<String>,
    /// Functions with their length in lines.
    pub functions: Vec<(String, usize)>,
}

/// All files below a folder of the repository, which is the root of a crate.
pub fn crate_at(folder: &str, left_out: &[&str]) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let inner = path.strip_prefix(&root).unwrap().display().to_string();
            if path.is_dir() {
                if !left_out.contains(&inner.as_str()) {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|e| e == "rs") {
                files.push((path, inner));
            }
        }
    }
    files.sort();
    assert!(!files.is_empty(), "no Rust file below {folder}");
    files.into_iter().map(|(path, inner)| Source::read(folder, &path, &inner)).collect()
}

impl Source {
    fn read(folder: &str, path: &PathBuf, inner: &str) -> Self {
        Self::of(&format!("{folder}/{inner}"), inner, std::fs::read_to_string(path).unwrap())
    }

    /// A file of this text; `inner` is its path from the crate's root on.
    pub fn of(path: &str, inner: &str, text: String) -> Self {
        let mut module: Vec<String> = inner.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
        if module.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
            module.pop();
        }
        let parsed = syn::parse_file(&text).unwrap_or_else(|e| panic!("{path}: {e}"));
        let mut reader = Reader { module: module.clone(), facts: Facts::default() };
        reader.visit_file(&parsed);
        Self { path: path.to_owned(), module, text, facts: reader.facts }
    }
}

impl Source {
    /// Its lines without comments, with their numbers.
    pub fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().map(|(n, line)| (n + 1, line));
        lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

/// Walks a file and collects its facts.
struct Reader {
    module: Vec<String>,
    facts: Facts,
}

impl Reader {
    /// Makes a path whole: from `crate` on, or from another crate's name on.
    fn whole(&self, path: &[String]) -> Vec<String> {
        let mut at = vec!["crate".to_owned()];
        let mut rest = path;
        match path.first().map(String::as_str) {
            Some("crate") => rest = &path[1..],
            Some("self") => {
                at.extend(self.module.clone());
                rest = &path[1..];
            }
            Some("super") => {
                let mut module = self.module.clone();
                while rest.first().is_some_and(|part| part == "super") {
                    module.pop();
                    rest = &rest[1..];
                }
                at.extend(module);
            }
            _ => at.clear(),
        }
        at.extend(rest.iter().cloned());
        at
    }

    fn tree(&mut self, before: &[String], tree: &syn::UseTree) {
        let with = |name: &syn::Ident| {
            let mut path = before.to_vec();
            path.push(name.to_string());
            path
        };
        match tree {
            syn::UseTree::Path(path) => self.tree(&with(&path.ident), &path.tree),
            syn::UseTree::Name(name) if name.ident == "self" => self.note(before),
            syn::UseTree::Name(name) => self.note(&with(&name.ident)),
            syn::UseTree::Rename(name) => self.note(&with(&name.ident)),
            syn::UseTree::Glob(_) => self.note(before),
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.tree(before, tree)),
        }
    }

    fn note(&mut self, path: &[String]) {
        let whole = self.whole(path);
        self.facts.paths.insert(whole);
    }

    fn function(&mut self, signature: &syn::Signature, whole: impl syn::spanned::Spanned) {
        let span = whole.span();
        let lines = span.end().line - signature.span().start().line + 1;
        self.facts.functions.push((signature.ident.to_string(), lines));
    }
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|a| {
        a.path().is_ident("cfg") && a.parse_args::<syn::Path>().is_ok_and(|what| what.is_ident("test"))
    })
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_test(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.tree(&[], &item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let parts: Vec<String> = path.segments.iter().map(|s| s.ident.to_string()).collect();
        if parts.len() > 1 {
            self.note(&parts);
        }
        visit::visit_path(self, path);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        self.facts.calls.insert(call.method.to_string());
        visit::visit_expr_method_call(self, call);
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.sig, item);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.sig, item);
        if item.sig.receiver().is_some() {
            self.facts.methods.insert(item.sig.ident.to_string());
        }
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if item.sig.receiver().is_some() {
            self.facts.methods.insert(item.sig.ident.to_string());
        }
        visit::visit_trait_item_fn(self, item);
    }
}
