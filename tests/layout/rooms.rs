//! Rooms in their order, and the edges between them.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::Source;

/// A crate whose rooms stand in an order: each imports only those before it.
pub struct House<'a> {
    /// What the order is of, for messages.
    pub name: &'a str,
    /// Rooms from the ground up: folders or files, from the crate's root on; each file is in that of the
    /// longest path.
    pub rooms: &'a [&'a str],
    /// Names of methods that types outside this crate have as well: calls of these say nothing.
    pub common: &'a [&'a str],
}

/// What was found in a house.
#[derive(Default)]
pub struct Plan {
    /// From room to room, with how many imports and calls there are.
    pub edges: BTreeMap<(usize, usize), usize>,
    /// Imports and calls that run up.
    pub upward: Vec<String>,
    /// Files that import each other in a circle.
    pub circles: Vec<Vec<String>>,
    /// Files that stand in no room.
    pub homeless: Vec<String>,
}

impl House<'_> {
    fn room_of(&self, module: &[String]) -> Option<usize> {
        let inside = |room: &str| {
            let parts: Vec<&str> = room.split('/').filter(|part| !part.is_empty()).collect();
            (module.len() >= parts.len() && parts.iter().zip(module).all(|(a, b)| a == b))
                .then_some(parts.len())
        };
        let found = self.rooms.iter().enumerate().filter_map(|(n, room)| Some((inside(room)?, n)));
        found.max().map(|(_, n)| n)
    }

    /// Measures the files.
    pub fn plan(&self, files: &[Source]) -> Plan {
        let mut plan = Plan::default();
        let mut imports: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        let modules: BTreeMap<&[String], usize> =
            files.iter().enumerate().map(|(n, file)| (&file.module[..], n)).collect();
        let defined = self.methods(files);
        for (n, file) in files.iter().enumerate() {
            let Some(room) = self.room_of(&file.module) else {
                plan.homeless.push(file.path.clone());
                continue;
            };
            for path in &file.facts.paths {
                let Some(target) = target_of(path, &modules) else { continue };
                // A folder's first file names its own files: that is no import.
                let own = files[target].module.starts_with(&file.module) && is_first(file);
                if target != n && !own {
                    imports.entry(n).or_default().insert(target);
                }
                if let Some(to) = self.room_of(&files[target].module) {
                    self.edge(&mut plan, file, (room, to), &path.join("::"));
                }
            }
            for call in file.facts.calls.iter().filter(|call| !self.common.contains(&call.as_str())) {
                if let Some(rooms) = defined.get(call.as_str())
                    && let Some(lowest) = rooms.iter().min()
                {
                    self.edge(&mut plan, file, (room, *lowest), &format!(".{call}()"));
                }
            }
        }
        plan.circles = circles(&imports).into_iter().map(|c| names(files, &c)).collect();
        plan
    }

    fn edge(&self, plan: &mut Plan, file: &Source, (from, to): (usize, usize), what: &str) {
        if from == to {
            return;
        }
        *plan.edges.entry((from, to)).or_default() += 1;
        if to > from {
            plan.upward.push(format!("{}: {what} is in `{}`", file.path, self.rooms[to]));
        }
    }

    /// The rooms that define a method of this name.
    fn methods<'f>(&self, files: &'f [Source]) -> BTreeMap<&'f str, BTreeSet<usize>> {
        let mut all: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
        for file in files {
            let Some(room) = self.room_of(&file.module) else { continue };
            for method in &file.facts.methods {
                all.entry(method).or_default().insert(room);
            }
        }
        all
    }

    /// Prints the plan, and asserts that nothing runs up and that there is no circle.
    #[track_caller]
    pub fn hold(&self, files: &[Source]) {
        let plan = self.plan(files);
        let count: usize = plan.edges.values().sum();
        println!(
            "{}: {} files in {} rooms, {} edges ({count} imports and calls), {} upward, {} circles",
            self.name,
            files.len(),
            self.rooms.len(),
            plan.edges.len(),
            plan.upward.len(),
            plan.circles.len()
        );
        for (n, room) in self.rooms.iter().enumerate() {
            let below: Vec<&str> =
                plan.edges.keys().filter(|(from, _)| *from == n).map(|(_, to)| self.rooms[*to]).collect();
            println!("  {room} -> {}", below.join(", "));
        }
        assert!(plan.homeless.is_empty(), "in no room of {}: {:?}", self.name, plan.homeless);
        assert!(plan.upward.is_empty(), "{} runs up:\n{}", self.name, plan.upward.join("\n"));
        assert!(plan.circles.is_empty(), "circles in {}:\n{:#?}", self.name, plan.circles);
    }
}

fn is_first(file: &Source) -> bool {
    ["mod.rs", "lib.rs", "main.rs"].iter().any(|name| file.path.ends_with(name))
}

/// The file that a path leads into: the longest module that it begins with.
fn target_of(path: &[String], modules: &BTreeMap<&[String], usize>) -> Option<usize> {
    let inner = path.strip_prefix(&["crate".to_owned()])?;
    (0..=inner.len()).rev().find_map(|len| modules.get(&inner[..len]).copied())
}

fn names(files: &[Source], circle: &[usize]) -> Vec<String> {
    circle.iter().map(|n| files[*n].path.clone()).collect()
}

/// The groups of more than one that reach each other.
fn circles(imports: &BTreeMap<usize, BTreeSet<usize>>) -> Vec<Vec<usize>> {
    let reach = |from: usize| {
        let mut seen = BTreeSet::new();
        let mut next = vec![from];
        while let Some(n) = next.pop() {
            for to in imports.get(&n).into_iter().flatten() {
                if seen.insert(*to) {
                    next.push(*to);
                }
            }
        }
        seen
    };
    let reached: BTreeMap<usize, BTreeSet<usize>> = imports.keys().map(|n| (*n, reach(*n))).collect();
    let mut found: Vec<Vec<usize>> = Vec::new();
    for (n, to) in &reached {
        if to.contains(n) && !found.iter().any(|circle| circle.contains(n)) {
            found
                .push(to.iter().copied().filter(|m| reached.get(m).is_some_and(|r| r.contains(n))).collect());
        }
    }
    found
}
