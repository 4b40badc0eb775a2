//! A naive model of what the engine must do: every version that was ever sealed is kept, and the
//! state is computed from all of them again. It shares no code with the engine.
//!
//! Values are SQLite's literals as `common::dump` writes them.

pub mod log;

use std::collections::{BTreeMap, BTreeSet};

/// A row: its values by column.
pub type Row = BTreeMap<String, String>;
/// A table's number and a row's canonical key.
pub type Place = (usize, String);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    Manual,
    Lww,
    /// Device 0 is preferred, and a copy of it as long as it has its name.
    Prefer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    Table,
    Counter,
    Max,
    Min,
    Lww,
}

/// A UNIQUE: the value that a row claims, if it claims any.
pub type Unique = fn(&Row) -> Option<String>;

/// A table of the model.
pub struct Table {
    pub name: &'static str,
    /// How it is made, its indexes too.
    pub sql: &'static str,
    pub keys: &'static [&'static str],
    pub nocase: &'static [&'static str],
    /// The other columns, and what may be written into them.
    pub columns: &'static [(&'static str, &'static [&'static str])],
    /// A column that may be added: its name, type and default, and what may be written into it.
    pub added: Option<(&'static str, &'static str, &'static str, &'static [&'static str])>,
    pub cell: bool,
    pub policy: Policy,
    pub rules: &'static [(&'static str, Rule)],
    pub uniques: &'static [Unique],
    /// The columns that the uniques are over; without any, all.
    pub unique_columns: &'static [&'static str],
    /// A UNIQUE that may be made later: the column, and what a row claims by it.
    pub later: Option<(&'static str, Unique)>,
    pub check: fn(&Row) -> bool,
    /// A column that refers to a column of another table.
    pub foreign: Option<(&'static str, &'static str, &'static str)>,
}

impl Table {
    pub fn key(&self, row: &Row) -> String {
        let part = |at: &&str| {
            if self.nocase.contains(at) { row[*at].to_ascii_lowercase() } else { row[*at].clone() }
        };
        self.keys.iter().map(part).collect::<Vec<_>>().join("|")
    }

    pub fn rule(&self, column: &str) -> Rule {
        self.rules.iter().find(|(c, _)| *c == column).map_or(Rule::Table, |(_, rule)| *rule)
    }

    pub fn counters(&self) -> Vec<&'static str> {
        self.rules.iter().filter(|(_, rule)| *rule == Rule::Counter).map(|(c, _)| *c).collect()
    }

    /// Whether deletes carry the row's last values.
    pub fn images(&self) -> bool {
        self.cell || !self.counters().is_empty()
    }

    /// Whether the time of each write counts.
    pub fn timed(&self) -> bool {
        self.policy == Policy::Lww || self.rules.iter().any(|(_, rule)| *rule == Rule::Lww)
    }
}

/// What one seal did to one row.
#[derive(Clone, Debug)]
pub struct Write {
    /// What it carries; `None` is a delete.
    pub row: Option<Row>,
    /// What a deleted row was, where that counts.
    pub image: Option<Row>,
    /// It says what the row is, counters too; otherwise what was done to it.
    pub insert: bool,
    /// What was added to counters.
    pub added: BTreeMap<String, i64>,
    pub claim: u64,
    pub wall: Option<i64>,
    /// What the row was to an author that had folded that it was deleted, and so told only what
    /// it changed.
    pub base: Option<Row>,
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
    pub writes: BTreeMap<Place, Write>,
    /// The tables of which it tells that they have their later UNIQUE.
    pub uniques: BTreeSet<usize>,
}

impl Group {
    fn has_seen(&self, other: &Group) -> bool {
        if self.device == other.device {
            self.number > other.number
        } else {
            // Of one that joined later, nothing.
            self.seen.get(other.device).is_some_and(|seen| *seen > other.number)
        }
    }
}

/// A version that still speaks for some columns, or deletes.
#[derive(Clone, Debug)]
pub struct Head<'g> {
    pub group: &'g Group,
    pub write: &'g Write,
    pub live: BTreeSet<String>,
    /// When it claimed its values: 0 if the author of a later UNIQUE had seen it.
    pub claim: u64,
}

impl Head<'_> {
    fn delete(&self) -> bool {
        self.write.row.is_none()
    }

    fn wall(&self) -> i64 {
        self.write.wall.unwrap_or(self.group.wall)
    }
}

/// All that was written to each row, of the groups that are included.
fn history<'g>(groups: &[&'g Group]) -> BTreeMap<Place, Vec<(&'g Group, &'g Write)>> {
    let mut all: BTreeMap<Place, Vec<_>> = BTreeMap::new();
    for group in groups {
        for (place, write) in &group.writes {
            all.entry(place.clone()).or_default().push((*group, write));
        }
    }
    all
}

/// What is left of each version when those that had seen it are taken into account.
fn left<'g>(t: usize, versions: &[(&'g Group, &'g Write)], groups: &[&'g Group]) -> Vec<Head<'g>> {
    let mut heads = Vec::new();
    for (group, write) in versions {
        let mut live: BTreeSet<String> =
            write.row.as_ref().map(|row| row.keys().cloned().collect()).unwrap_or_default();
        let mut gone = false;
        for (later, by) in versions.iter().filter(|(later, _)| later.has_seen(group)) {
            let _ = later;
            match &by.row {
                None => gone = true,
                Some(row) => live.retain(|column| !row.contains_key(column)),
            }
            gone |= live.is_empty();
        }
        if !gone {
            let old = groups.iter().any(|g| g.uniques.contains(&t) && g.has_seen(group));
            heads.push(Head { group, write, live, claim: if old { 0 } else { write.claim } });
        }
    }
    heads
}

pub fn heads<'g>(groups: &[&'g Group]) -> BTreeMap<Place, Vec<Head<'g>>> {
    let left = |(place, versions): (Place, Vec<_>)| {
        let heads = left(place.0, &versions, groups);
        (place, heads)
    };
    history(groups).into_iter().map(left).collect()
}

/// Orders versions; the greatest is shown.
fn rank<'i>(policy: Policy, head: &Head<'_>, ids: &'i [String]) -> (i64, bool, i64, &'i String, usize) {
    let first = match policy {
        Policy::Manual => 0,
        Policy::Lww => head.wall(),
        Policy::Prefer => i64::from(ids[head.group.device] == ids[0]),
    };
    (first, !head.delete(), head.wall(), &ids[head.group.device], head.group.number)
}

/// The versions, the winner first.
pub fn ordered<'h, 'g>(table: &Table, heads: &'h [Head<'g>], ids: &[String]) -> Vec<&'h Head<'g>> {
    let mut order: Vec<_> = heads.iter().collect();
    order.sort_by(|a, b| rank(table.policy, b, ids).cmp(&rank(table.policy, a, ids)));
    order
}

fn decides(table: &Table, heads: &[Head<'_>], ids: &[String]) -> bool {
    match table.policy {
        Policy::Manual => false,
        Policy::Lww => true,
        Policy::Prefer => heads.iter().any(|h| ids[h.group.device] == ids[0]),
    }
}

/// When the row claimed its unique values.
pub fn claim(table: &Table, heads: &[Head<'_>], ids: &[String]) -> u64 {
    if table.cell {
        heads.iter().filter(|h| !h.delete()).map(|h| h.claim).max().unwrap_or(0)
    } else {
        let order = ordered(table, heads, ids);
        decisive(table, &order).first().filter(|h| !h.delete()).map_or(0, |h| h.claim)
    }
}

/// Whether versions that count speak for the row as a whole.
fn decisive<'h, 'g>(table: &Table, order: &[&'h Head<'g>]) -> Vec<&'h Head<'g>> {
    let whole = |h: &Head<'_>| h.delete() || table.cell || table.keys.iter().all(|key| h.live.contains(*key));
    order.iter().copied().filter(|h| whole(h)).collect()
}

fn number(value: &str) -> i64 {
    value.parse().unwrap_or(0)
}

/// A counter: the greatest of the absolute values that no later one had seen, and all additions
/// that none had seen.
fn counter(versions: &[(&Group, &Write)], column: &str) -> Option<i64> {
    let absolute = |write: &Write| match (&write.row, &write.image) {
        (Some(row), _) if write.insert => row.get(column).map(|v| number(v)),
        (None, Some(image)) => image.get(column).map(|v| number(v)),
        _ => None,
    };
    let absolutes: Vec<_> =
        versions.iter().filter_map(|(group, write)| Some((*group, absolute(write)?))).collect();
    let last = |group: &Group| !absolutes.iter().any(|(later, _)| later.has_seen(group));
    let most = absolutes.iter().filter(|(group, _)| last(group)).map(|(_, v)| *v).max()?;
    let sum: i64 = versions
        .iter()
        .filter(|(group, _)| last(group))
        .filter_map(|(_, write)| write.added.get(column))
        .sum();
    Some(most + sum)
}

/// NULL before numbers.
fn order_of(value: &str) -> Option<i64> {
    value.parse().ok()
}

/// The row that the versions come to, if it is there at all.
fn compose(
    table: &Table,
    versions: &[(&Group, &Write)],
    heads: &[Head<'_>],
    ids: &[String],
    columns: &BTreeMap<String, String>,
) -> Option<Row> {
    let order = ordered(table, heads, ids);
    let decisive = decisive(table, &order);
    if decisive.first().map_or(heads.is_empty(), |h| h.delete()) {
        return None;
    }
    let writers: Vec<&Head<'_>> = order.iter().copied().filter(|h| !h.delete()).collect();
    let image = order.iter().find(|h| h.delete()).and_then(|h| h.write.image.as_ref());
    let based =
        versions.iter().filter(|(_, write)| write.base.is_some()).max_by_key(|(group, _)| group.lamport);
    let base = image.or(based.and_then(|(_, write)| write.base.as_ref()));
    let first = writers.first()?;
    let mut row = Row::new();
    for (column, default) in columns {
        let value_in = |h: &Head<'_>| h.write.row.as_ref().and_then(|row| row.get(column)).cloned();
        let rule = table.rule(column);
        let value = if table.keys.contains(&column.as_str()) {
            value_in(first)
        } else if rule == Rule::Counter {
            counter(versions, column).map(|n| n.to_string())
        } else {
            let mut speaking: Vec<&Head<'_>> =
                writers.iter().copied().filter(|h| h.live.contains(column)).collect();
            // Best first; the order of precedence decides among equals.
            match rule {
                Rule::Max => {
                    speaking.sort_by_key(|h| std::cmp::Reverse(value_in(h).and_then(|v| order_of(&v))));
                }
                Rule::Min => speaking.sort_by_key(|h| value_in(h).and_then(|v| order_of(&v))),
                Rule::Lww => {
                    speaking.sort_by(|a, b| rank(Policy::Lww, b, ids).cmp(&rank(Policy::Lww, a, ids)))
                }
                Rule::Table | Rule::Counter => {}
            }
            speaking.first().and_then(|h| value_in(h))
        };
        let value = value.or_else(|| base.and_then(|base| base.get(column).cloned()));
        row.insert(column.clone(), value.unwrap_or_else(|| default.clone()));
    }
    Some(row)
}

/// How many different versions an open conflict lists; `None` if there is nothing to decide.
fn contested(table: &Table, heads: &[Head<'_>], ids: &[String]) -> Option<usize> {
    if heads.len() < 2 || decides(table, heads, ids) {
        return None;
    }
    let order = ordered(table, heads, ids);
    let decisive = decisive(table, &order);
    let deletes = decisive.iter().any(|h| h.delete());
    let writes: Vec<_> = decisive.iter().filter(|h| !h.delete()).collect();
    let mut values: BTreeMap<&str, BTreeSet<&String>> = BTreeMap::new();
    for head in &writes {
        for (column, value) in head.write.row.iter().flatten() {
            if head.live.contains(column) && table.rule(column) == Rule::Table {
                values.entry(column).or_default().insert(value);
            }
        }
    }
    let disputed: BTreeSet<&str> =
        values.into_iter().filter(|(_, values)| values.len() > 1).map(|(column, _)| column).collect();
    if (!deletes || writes.is_empty()) && disputed.is_empty() {
        return None;
    }
    let mut contents = BTreeSet::new();
    for head in order {
        if !head.delete() && !deletes && !head.live.iter().any(|c| disputed.contains(c.as_str())) {
            continue;
        }
        let counts = |column: &str| {
            head.live.contains(column)
                && if table.cell && !deletes {
                    disputed.contains(column)
                } else {
                    table.rule(column) == Rule::Table
                }
        };
        let content: Option<Vec<(&String, &String)>> =
            head.write.row.as_ref().map(|row| row.iter().filter(|(c, _)| counts(c)).collect());
        contents.insert(content);
    }
    Some(contents.len())
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The rows that are shown.
    pub shown: BTreeMap<Place, Row>,
    /// Rows that someone must decide about, and how many versions are listed.
    pub contested: BTreeMap<Place, usize>,
    /// Rows that are quarantined by a constraint.
    pub parked: BTreeMap<Place, Row>,
    /// Rows that refer to one that is not shown.
    pub dangling: BTreeSet<Place>,
}

impl State {
    /// A row that is there, shown or not.
    pub fn row(&self, place: &Place) -> Option<&Row> {
        self.shown.get(place).or_else(|| self.parked.get(place))
    }
}

/// What every replica that has these groups must show.
pub fn state(tables: &[&Table], groups: &[&Group], ids: &[String]) -> State {
    let mut state = State::default();
    let mut claims: Vec<(u64, Place, Row)> = Vec::new();
    for (place, versions) in history(groups) {
        let table = tables[place.0];
        let heads = left(place.0, &versions, groups);
        if let Some(n) = contested(table, &heads, ids) {
            state.contested.insert(place.clone(), n);
        }
        let mut columns = BTreeMap::new();
        for column in table.keys.iter().chain(table.columns.iter().map(|(c, _)| c)) {
            columns.insert(column.to_string(), "NULL".to_owned());
        }
        if let Some((name, _, default, _)) = table.added {
            columns.insert(name.into(), default.into());
        }
        if let Some(row) = compose(table, &versions, &heads, ids, &columns) {
            claims.push((claim(table, &heads, ids), place, row));
        }
    }
    // Ties are broken by the key's bytes on the wire, of which the model knows only the order of
    // lengths: the tests keep keys such that both orders agree.
    claims.sort_by_key(|(claim, place, _)| (*claim, key_order(&place.1), place.0));
    let mut taken: BTreeSet<(usize, usize, String)> = BTreeSet::new();
    for (_, place, row) in claims {
        let table = tables[place.0];
        let later = table.later.filter(|_| groups.iter().any(|g| g.uniques.contains(&place.0)));
        let uniques = table.uniques.iter().copied().chain(later.map(|(_, unique)| unique));
        let values: Vec<_> =
            uniques.enumerate().filter_map(|(n, unique)| Some((place.0, n, unique(&row)?))).collect();
        if !(table.check)(&row) || values.iter().any(|value| taken.contains(value)) {
            state.parked.insert(place, row);
        } else {
            taken.extend(values);
            state.shown.insert(place, row);
        }
    }
    for (place, row) in &state.shown {
        let Some((column, parent, there)) = tables[place.0].foreign else { continue };
        let Some(parent) = tables.iter().position(|t| t.name == parent) else { continue };
        let mut parents = state.shown.iter().filter(|(place, _)| place.0 == parent);
        if row[column] != "NULL" && !parents.any(|(_, row_there)| row_there[there] == row[column]) {
            state.dangling.insert(place.clone());
        }
    }
    state
}

/// Small non-negative integers are one byte on the wire, in their order.
fn key_order(key: &str) -> (usize, String) {
    (key.len(), key.to_owned())
}
