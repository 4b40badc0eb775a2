//! A naive model of what the engine must do: every version that was ever sealed is kept, and the
//! state is computed from all of them anew. It shares no code with the engine.

use std::collections::{BTreeMap, BTreeSet};

/// A row: its values as literals, in the order of the columns.
pub type Row = Vec<String>;

/// What one seal did to one row.
#[derive(Clone, Debug)]
pub struct Write {
    /// `None` is a delete.
    pub row: Option<Row>,
    pub claim: u64,
}

/// One sealed group.
#[derive(Clone, Debug)]
pub struct Group {
    pub device: usize,
    /// Counts a device's groups from 0.
    pub number: usize,
    /// How many groups of each device its author had applied.
    pub seen: Vec<usize>,
    pub lamport: u64,
    pub wall: i64,
    /// By table and canonical key.
    pub writes: BTreeMap<(usize, String), Write>,
}

#[derive(Clone, Debug)]
pub struct Version<'g> {
    pub group: &'g Group,
    pub write: &'g Write,
}

/// A table of the model: which columns each UNIQUE covers.
pub struct Table {
    pub name: &'static str,
    pub columns: &'static [&'static str],
    pub keys: &'static [usize],
    pub nocase: &'static [usize],
    pub uniques: &'static [&'static [usize]],
}

impl Table {
    pub fn key(&self, row: &Row) -> String {
        let part = |at: &usize| {
            if self.nocase.contains(at) { row[*at].to_ascii_lowercase() } else { row[*at].clone() }
        };
        self.keys.iter().map(part).collect::<Vec<_>>().join("|")
    }
}

/// The versions of each row that no other dominates, of the groups that `includes` lets through.
pub fn heads<'g>(
    groups: &'g [Group],
    includes: impl Fn(&Group) -> bool,
) -> BTreeMap<(usize, String), Vec<Version<'g>>> {
    let mut all: BTreeMap<(usize, String), Vec<Version<'g>>> = BTreeMap::new();
    for group in groups.iter().filter(|g| includes(g)) {
        for (place, write) in &group.writes {
            all.entry(place.clone()).or_default().push(Version { group, write });
        }
    }
    for versions in all.values_mut() {
        let candidates = versions.clone();
        versions.retain(|old| {
            !candidates.iter().any(|new| {
                (new.group.device == old.group.device && new.group.number > old.group.number)
                    || (new.group.device != old.group.device
                        && new.group.seen[old.group.device] > old.group.number)
            })
        });
    }
    all
}

/// The version that is shown. `ids` orders devices as their ids do.
pub fn winner<'v, 'g>(versions: &'v [Version<'g>], ids: &[String]) -> &'v Version<'g> {
    versions
        .iter()
        .max_by_key(|v| (v.write.row.is_some(), v.group.wall, &ids[v.group.device]))
        .expect("a row has a version")
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct State {
    /// By table, the rows that are shown.
    pub shown: BTreeMap<usize, BTreeSet<Row>>,
    /// Rows with versions of different content, and how many contents.
    pub contested: BTreeMap<(usize, String), usize>,
    /// Rows that are kept out by a UNIQUE.
    pub parked: BTreeSet<(usize, String)>,
}

/// What every replica that has all groups must show.
pub fn state(tables: &[Table], groups: &[Group], ids: &[String]) -> State {
    let mut state = State::default();
    let mut claims: Vec<(u64, String, usize, Row)> = Vec::new();
    for ((table, key), versions) in &heads(groups, |_| true) {
        let contents: BTreeSet<_> = versions.iter().map(|v| &v.write.row).collect();
        if contents.len() > 1 {
            state.contested.insert((*table, key.clone()), contents.len());
        }
        let version = winner(versions, ids);
        if let Some(row) = &version.write.row {
            claims.push((version.write.claim, key.clone(), *table, row.clone()));
        }
    }
    // Ties are broken by the key's bytes on the wire, of which the model knows only the order of
    // lengths: the tests keep keys such that both orders agree.
    claims.sort_by_key(|(claim, key, ..)| (*claim, key_order(key)));
    for (_, key, table, row) in claims {
        let clashes = |unique: &[usize]| {
            let value = |row: &Row| unique.iter().map(|at| row[*at].clone()).collect::<Vec<_>>();
            !value(&row).contains(&"NULL".to_owned())
                && state
                    .shown
                    .get(&table)
                    .is_some_and(|rows| rows.iter().any(|other| value(other) == value(&row)))
        };
        if tables[table].uniques.iter().any(|unique| clashes(unique)) {
            state.parked.insert((table, key));
        } else {
            state.shown.entry(table).or_default().insert(row);
        }
    }
    state
}

/// Small non-negative integers are one byte on the wire, in their order.
fn key_order(key: &str) -> (usize, String) {
    (key.len(), key.to_owned())
}
