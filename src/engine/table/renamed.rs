//! Columns that were renamed: what a name in an older definition means.
//!
//! A device that announces a renamed column says what it was called before: a declaration of its own kind, which is never
//! superseded and travels with every state. What a name means is a function of what is said, and of the definitions that were
//! announced.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use packmule_core::wire::{DefId, SchemaBits};

use crate::engine::error::Result;
use crate::engine::table::declared::{self, Subject};
use crate::engine::table::def::TableDef;
use crate::engine::table::replica::Replica;

/// Records that a device has renamed a column.
pub(crate) fn record_renamed(
    replica: &Replica,
    tid: i64,
    place: (i64, u64, u64),
    id: DefId,
    (before, after): (&str, &str),
) -> Result<()> {
    let (before, after) = (before.to_ascii_lowercase(), after.to_ascii_lowercase());
    declared::record(replica, tid, (Subject::Renamed, &before), place, after.as_bytes(), id)
}

/// A column has no more names than that: who says more of them makes nobody look through all.
const NAMES_MAX: usize = 100;

/// What devices have said that columns of a table are called since, as far as it holds, in small letters.
pub(crate) struct Renames {
    /// By the name before: those after it, in the order of the alphabet.
    after: BTreeMap<String, BTreeSet<String>>,
    /// By a name, those that stand for the same column, before or after.
    beside: BTreeMap<String, BTreeSet<String>>,
}

impl Renames {
    /// Takes what devices have said: of a column, what it was called before and after. `announced` are the definitions in which
    /// an application ever had the table.
    ///
    /// A device that skips versions, or whose table has no rows, can take two columns for one. Another that had both at once
    /// tells (`Shapes::are_two`): what the first one said is void then, for everybody.
    pub(crate) fn known(mut said: Vec<(String, String)>, announced: &[TableDef]) -> Self {
        if !said.is_empty() {
            let shapes = Shapes::of(announced);
            said.retain(|(before, after)| !shapes.are_two(before, after));
        }
        Self::new(said)
    }

    /// Gives the columns of a definition the names that they have in `now`, where they were renamed.
    pub(crate) fn read_as(&self, def: &mut TableDef, now: &TableDef) {
        for at in 0..if self.is_empty() { 0 } else { def.columns.len() } {
            let name = &def.columns[at].name;
            let is_free = |name: &str| def.column(name).is_none();
            let found = match now.column(name) {
                None => self.meant(now, name, &is_free),
                // Where another column has got the name since, this one stands where it stood, before the new one.
                Some(reused) => self
                    .after(name)
                    .filter(|after| is_free(after))
                    .find_map(|after| now.column(after).filter(|at| *at < reused)),
            };
            if let Some(here) = found {
                def.columns[at].name.clone_from(&now.columns[here].name);
            }
        }
    }

    fn new(said: Vec<(String, String)>) -> Self {
        let mut all = Self { after: BTreeMap::new(), beside: BTreeMap::new() };
        for (before, after) in said {
            all.beside.entry(before.clone()).or_default().insert(after.clone());
            all.beside.entry(after.clone()).or_default().insert(before.clone());
            all.after.entry(before).or_default().insert(after);
        }
        all
    }

    fn is_empty(&self) -> bool {
        self.after.is_empty()
    }

    /// Returns the other names of a column: those that were said of the name first, in the order of the alphabet.
    fn names_of(&self, name: &str) -> Vec<String> {
        let mut names = vec![name.to_ascii_lowercase()];
        let mut known: HashSet<String> = names.iter().cloned().collect();
        let mut at = 0;
        while let Some(beside) = names.get(at).map(|name| self.beside.get(name)) {
            for other in beside.into_iter().flatten().take(NAMES_MAX) {
                if names.len() <= NAMES_MAX && known.insert(other.clone()) {
                    names.push(other.clone());
                }
            }
            at += 1;
        }
        names.remove(0);
        names
    }

    /// Returns the names that came after one, in the order of the alphabet.
    fn after(&self, name: &str) -> impl Iterator<Item = &String> {
        self.after.get(&name.to_ascii_lowercase()).into_iter().flatten().take(NAMES_MAX)
    }

    /// Finds the column of `now` that a name means which it has not, of the names that it `may` have.
    fn meant(&self, now: &TableDef, name: &str, may: &dyn Fn(&str) -> bool) -> Option<usize> {
        self.names_of(name).iter().filter(|name| may(name)).find_map(|name| now.column(name))
    }
}

/// Returns the other names that a column has or had, in small letters.
pub(crate) fn names_of(replica: &Replica, tid: i64, name: &str) -> Result<Vec<String>> {
    Ok(renames(replica, tid)?.names_of(name))
}

/// Finds the column of `now` that has this name, or another one since it was renamed.
pub(crate) fn column_now(replica: &Replica, tid: i64, now: &TableDef, name: &str) -> Result<Option<usize>> {
    match now.column(name) {
        Some(at) => Ok(Some(at)),
        None => Ok(renames(replica, tid)?.meant(now, name, &|_| true)),
    }
}

/// Gives the columns of a definition the names that they have in `now`, where they were renamed.
pub(crate) fn as_now(replica: &Replica, tid: i64, def: &mut TableDef, now: &TableDef) -> Result<()> {
    renames(replica, tid)?.read_as(def, now);
    Ok(())
}

/// Returns what devices have said that columns of a table are called since, each with its name before, as far as it holds.
pub(crate) fn renames(replica: &Replica, tid: i64) -> Result<Renames> {
    let sql = "SELECT DISTINCT name, CAST(value AS TEXT) FROM _pm_declared WHERE tid = ?1 AND what = ?2";
    let mut statement = replica.db.prepare_cached(sql)?;
    let rows = statement.query_map((tid, Subject::Renamed), |row| Ok((row.get(0)?, row.get(1)?)))?;
    let said = rows.collect::<rusqlite::Result<Vec<(String, String)>>>()?;
    let announced = if said.is_empty() { Vec::new() } else { ever_announced(replica, tid)? };
    Ok(Renames::known(said, &announced))
}

/// Returns the definitions in which an application ever had a table of a name, as far as devices have announced them: none that
/// Packmule made itself.
fn ever_announced(replica: &Replica, tid: i64) -> Result<Vec<TableDef>> {
    let mut statement = replica.db.prepare_cached(
        "SELECT body FROM _pm_def WHERE id IN (SELECT def FROM _pm_declared
           WHERE tid = ?1 AND what = ?2 AND name = '' AND coalesce(unicode(substr(value, 9, 1)), 0) & ?3 = 0)",
    )?;
    let params = (declared::root_of(replica, tid), Subject::Shape, SchemaBits::FOLLOWS.0);
    let bodies =
        statement.query_map(params, |row| row.get(0))?.collect::<rusqlite::Result<Vec<Vec<u8>>>>()?;
    bodies.iter().map(|body| TableDef::stored(body)).collect()
}

/// Where the columns stand in the definitions in which an application ever had a table: by a name in small letters, the numbers
/// of these definitions, and its place in each.
struct Shapes(HashMap<String, BTreeMap<usize, usize>>);

impl Shapes {
    fn of(defs: &[TableDef]) -> Self {
        let mut places: HashMap<String, BTreeMap<usize, usize>> = HashMap::new();
        for (n, def) in defs.iter().enumerate() {
            for (at, column) in def.columns.iter().enumerate() {
                places.entry(column.name.to_ascii_lowercase()).or_default().entry(n).or_insert(at);
            }
        }
        Self(places)
    }

    /// Returns whether devices have told that a name is of another column than the one before it: an application had both at
    /// once, and none had them the other way round. A column that gets the name of a renamed one comes after that.
    fn are_two(&self, before: &str, after: &str) -> bool {
        let place = |name: &str| self.0.get(&name.to_ascii_lowercase());
        let (Some(before), Some(after)) = (place(before), place(after)) else { return false };
        let mut both = before.iter().filter_map(|(n, at)| Some((at, after.get(n)?))).peekable();
        both.peek().is_some() && both.all(|(before, after)| before < after)
    }
}

/// Returns whether a column that is not there any more is known not to be the one that has this name now.
pub(crate) fn is_another(replica: &Replica, tid: i64, gone: &str, name: &str) -> Result<bool> {
    Ok(Shapes::of(&ever_announced(replica, tid)?).are_two(gone, name))
}

/// Returns whether a definition of a table's name has its primary key.
pub(crate) fn is_of(replica: &Replica, tid: i64, def: &TableDef) -> Result<bool> {
    let Some(table) = replica.catalog.borrow().tables.get(&tid).cloned() else { return Ok(false) };
    if table.def.has_key_of(def) || table.def.mode != def.mode {
        return Ok(true);
    }
    let mut def = def.clone();
    as_now(replica, tid, &mut def, &table.def)?;
    Ok(table.def.has_key_of(&def))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(names: usize) -> Renames {
        Renames::new((1..names).map(|n| (format!("c{}", n - 1), format!("c{n}"))).collect())
    }

    #[test]
    fn of_a_column_with_names_without_end_some_are_looked_through() {
        assert_eq!(chain(4).names_of("C1"), ["c0", "c2", "c3"]);
        assert_eq!(chain(100_000).names_of("c50000").len(), NAMES_MAX);
        let star = Renames::new((0..100_000).map(|n| ("c".into(), format!("d{n}"))).collect());
        assert_eq!((star.names_of("c").len(), star.names_of("d7").len()), (NAMES_MAX, NAMES_MAX));
    }
}
