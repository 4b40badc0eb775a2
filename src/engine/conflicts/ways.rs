//! The ways in which a conflict can be resolved: what could not work is not offered.

use crate::engine::conflicts::list::{Conflict, ConflictKind, ConflictVersion, VersionOp};
use crate::engine::error::Way;
use crate::engine::store::value::{Affinity, OwnedValue};
use crate::engine::table::known::Table;

/// Returns the ways in which a conflict can be resolved, and of which columns two rows in place of one need different
/// values.
pub(crate) fn ways(table: &Table, conflict: &Conflict) -> (Vec<Way>, Vec<String>) {
    let (mut both, mut clashing) = (None, Vec::new());
    if let ConflictKind::InsertInsert | ConflictKind::UpdateUpdate | ConflictKind::UpdateDelete =
        conflict.kind
    {
        (both, clashing) = keeping_all(table, conflict);
    }
    let ways = offered(conflict, both);
    (ways, clashing.into_iter().map(|at| table.def.columns[at].name.clone()).collect())
}

/// Returns the ways; `both`: how each version can become a row, if it can.
fn offered(conflict: &Conflict, both: Option<Way>) -> Vec<Way> {
    match &conflict.kind {
        ConflictKind::Schema(_) => vec![Way::Take],
        ConflictKind::ForeignKey(..) | ConflictKind::Check(_) => vec![Way::Set, Way::Delete],
        ConflictKind::Unique(_) => vec![Way::Take, Way::Set, Way::Delete],
        ConflictKind::InsertInsert | ConflictKind::UpdateUpdate | ConflictKind::UpdateDelete => {
            let mut ways = vec![Way::Take];
            if rows(conflict).next().is_some() {
                ways.push(Way::Set);
            }
            ways.push(Way::Delete);
            ways.extend(both);
            ways
        }
    }
}

/// Returns the versions that are rows.
fn rows(conflict: &Conflict) -> impl Iterator<Item = &ConflictVersion> {
    conflict.versions.iter().filter(|version| version.op != VersionOp::Delete)
}

/// What becomes a row when all are kept: the versions of a device. By cell there may be several, each a part of it.
type Kept<'c> = Vec<&'c ConflictVersion>;

/// Returns how each device's version becomes a row of its own, if it can, and the columns that need other values then.
fn keeping_all(table: &Table, conflict: &Conflict) -> (Option<Way>, Vec<usize>) {
    let mut all: Vec<Kept<'_>> = Vec::new();
    for version in rows(conflict) {
        match all.iter_mut().find(|kept| version.device.is_some() && kept[0].device == version.device) {
            Some(kept) => kept.push(version),
            None => all.push(vec![version]),
        }
    }
    // One that a constraint keeps out stays where it is; that conflict comes first.
    let is_shown = conflict.versions.first().is_some_and(|version| version.shown);
    if all.len() < 2 || !is_shown || !has_new_keys(table, conflict) {
        return (None, Vec::new());
    }
    match clashing(table, &all) {
        clashing if clashing.is_empty() => (Some(Way::KeepBoth), clashing),
        clashing if all.len() == 2 => (Some(Way::KeepBothWith), clashing),
        // All rows under new keys are given the same values.
        _ => (None, Vec::new()),
    }
}

/// Returns whether new keys can be made from that of the row: a number, a text or a BLOB.
fn has_new_keys(table: &Table, conflict: &Conflict) -> bool {
    let Some(last) = table.def.keys().last().map(|at| &table.def.columns[at]) else { return false };
    let numbers =
        matches!(Affinity::of(&last.decl_type), Affinity::Integer | Affinity::Numeric | Affinity::Real);
    let of_row = conflict.key.iter().find(|(name, _)| *name == last.name);
    numbers || matches!(of_row, Some((_, OwnedValue::Text(_) | OwnedValue::Blob(_))))
}

/// Returns the columns of a UNIQUE, besides the key, which two rows in place of one both claim.
fn clashing(table: &Table, all: &[Kept<'_>]) -> Vec<usize> {
    let keys: Vec<usize> = table.def.keys().collect();
    let uniques = table.def.uniques.iter().map(|unique| unique.iter().map(|at| usize::from(*at)));
    let mut others = uniques.map(Iterator::collect::<Vec<usize>>);
    let clashing = others.find(|unique| {
        // The key gets another value in its last column.
        let renewed = keys.last().is_some_and(|last| unique.contains(last));
        let mut pairs =
            all.iter().enumerate().flat_map(|(n, one)| all[n + 1..].iter().map(move |two| (one, two)));
        !renewed && pairs.any(|(one, two)| is_same(table, unique, one, two))
    });
    clashing.unwrap_or_default()
}

/// Returns whether two rows have the same values in all of these columns, none of them NULL. What no version says of a
/// row is as it is shown.
fn is_same(table: &Table, columns: &[usize], one: &Kept<'_>, two: &Kept<'_>) -> bool {
    columns.iter().all(|at| {
        let name = &table.def.columns[*at].name;
        let value = |of: &Kept<'_>| {
            let mut values = of.iter().flat_map(|version| &version.values);
            values.find(|(column, _)| column == name).map(|(_, value)| value.clone())
        };
        match (value(one), value(two)) {
            (Some(OwnedValue::Null), _) | (_, Some(OwnedValue::Null)) => false,
            (Some(one), Some(two)) => one == two,
            _ => true,
        }
    })
}
