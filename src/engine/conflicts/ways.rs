//! The ways in which a conflict can be resolved: what could not work is not offered.

use rusqlite::params_from_iter;

use crate::engine::conflicts::list::{Conflict, ConflictKind, ConflictVersion, VersionOp};
use crate::engine::error::{Result, Way};
use crate::engine::store::value::{self, Affinity, Bind, OwnedValue};
use crate::engine::table::known::Table;
use crate::engine::table::replica::Replica;

/// Returns the ways in which a conflict can be resolved, and of which columns two rows in place of one need different
/// values.
pub(crate) fn ways(replica: &Replica, table: &Table, conflict: &Conflict) -> Result<(Vec<Way>, Vec<String>)> {
    let (mut both, mut clashing) = (None, Vec::new());
    if let ConflictKind::InsertInsert | ConflictKind::UpdateUpdate | ConflictKind::UpdateDelete =
        conflict.kind
    {
        (both, clashing) = keeping_all(replica, table, conflict)?;
    }
    let ways = offered(conflict, both);
    Ok((ways, clashing.into_iter().map(|at| table.def.columns[at].name.clone()).collect()))
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
fn keeping_all(replica: &Replica, table: &Table, conflict: &Conflict) -> Result<(Option<Way>, Vec<usize>)> {
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
        return Ok((None, Vec::new()));
    }
    Ok(match clashing(replica, table, &all)? {
        clashing if clashing.is_empty() => (Some(Way::KeepBoth), clashing),
        clashing if all.len() == 2 => (Some(Way::KeepBothWith), clashing),
        // All rows under new keys are given the same values.
        _ => (None, Vec::new()),
    })
}

/// Returns whether new keys can be made from that of the row: a number, a text or a BLOB.
fn has_new_keys(table: &Table, conflict: &Conflict) -> bool {
    let Some(last) = table.def.keys().last().map(|at| &table.def.columns[at]) else { return false };
    let numbers =
        matches!(Affinity::of(&last.decl_type), Affinity::Integer | Affinity::Numeric | Affinity::Real);
    let of_row = conflict.key.iter().find(|(name, _)| *name == last.name);
    numbers || matches!(of_row, Some((_, OwnedValue::Text(_) | OwnedValue::Blob(_))))
}

/// Returns the columns of a UNIQUE, besides the key, which two rows in place of one both claim, or a new row and one that
/// is in the table.
fn clashing(replica: &Replica, table: &Table, all: &[Kept<'_>]) -> Result<Vec<usize>> {
    let last = table.def.keys().last();
    for unique in &table.def.uniques {
        let unique: Vec<usize> = unique.iter().map(|at| usize::from(*at)).collect();
        // The key gets another value in its last column.
        if last.is_some_and(|last| unique.contains(&last)) {
            continue;
        }
        let rows: Vec<Claim> = all.iter().map(|kept| claim(table, &unique, (kept, &all[0]))).collect();
        let twice = rows.iter().enumerate().any(|(n, one)| rows[n + 1..].iter().any(|two| is_same(one, two)));
        // The first stays as it is shown.
        if twice || is_taken(replica, table, &unique, &rows[1..])? {
            return Ok(unique);
        }
    }
    Ok(Vec::new())
}

/// The values of a row in the columns of a UNIQUE; none where no version says what is shown.
type Claim = Vec<Option<OwnedValue>>;

/// Returns what a version claims. What it does not say of a row is as it is `shown`.
fn claim(table: &Table, unique: &[usize], (kept, shown): (&Kept<'_>, &Kept<'_>)) -> Claim {
    let value = |at: &usize| {
        let name = &table.def.columns[*at].name;
        let mut values = kept.iter().chain(shown).flat_map(|version| &version.values);
        values.find(|(column, _)| column == name).map(|(_, value)| value.clone())
    };
    unique.iter().map(value).collect()
}

/// Returns whether two rows have the same values, none of them NULL.
fn is_same(one: &Claim, two: &Claim) -> bool {
    one == two && !one.contains(&Some(OwnedValue::Null))
}

/// Returns whether another row of the table has what one of these claims; of a long value that is not looked for.
fn is_taken(replica: &Replica, table: &Table, unique: &[usize], claims: &[Claim]) -> Result<bool> {
    let equals =
        |(n, at): (usize, &usize)| format!("{} = ?{}", value::column(&table.def.columns[*at].name), n + 1);
    let wanted = unique.iter().enumerate().map(equals).collect::<Vec<_>>().join(" AND ");
    let sql = format!("SELECT 1 FROM {} WHERE {wanted}", table.sql_name);
    for claim in claims {
        let Some(claim) = claim.iter().cloned().collect::<Option<Vec<OwnedValue>>>() else { continue };
        if claim.iter().any(|value| matches!(value, OwnedValue::Large { .. })) {
            continue;
        }
        let binds = params_from_iter(claim.iter().map(|value| Bind(value.borrow())));
        if value::maybe::<i64>(&replica.db, &sql, binds)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}
