//! The ways in which a conflict can be resolved: what could not work is not offered.

use packmule_core::model::DeviceId;

use crate::engine::conflicts::list::{Conflict, ConflictKind, ConflictVersion, VersionOp};
use crate::engine::error::Way;
use crate::engine::store::value::OwnedValue;
use crate::engine::table::known::Table;

/// Returns the ways in which a conflict can be resolved, and of which columns two rows in place of one need different
/// values.
pub(crate) fn ways(table: &Table, conflict: &Conflict) -> (Vec<Way>, Vec<String>) {
    let mut clashing = match &conflict.kind {
        ConflictKind::InsertInsert | ConflictKind::UpdateUpdate | ConflictKind::UpdateDelete => {
            clashing(table, conflict)
        }
        _ => Vec::new(),
    };
    let ways = offered(conflict, !clashing.is_empty());
    if !ways.contains(&Way::KeepBothWith) {
        clashing.clear();
    }
    (ways, clashing.into_iter().map(|at| table.def.columns[at].name.clone()).collect())
}

/// Returns the ways; `clash`: two rows in place of one need different values.
fn offered(conflict: &Conflict, clash: bool) -> Vec<Way> {
    match &conflict.kind {
        ConflictKind::Schema(_) => vec![Way::Take],
        ConflictKind::ForeignKey(..) | ConflictKind::Check(_) => vec![Way::Set, Way::Delete],
        ConflictKind::Unique(_) => {
            let mut ways = vec![Way::Set, Way::Delete];
            let devices: Vec<Option<DeviceId>> = conflict.versions.iter().map(|v| v.device).collect();
            // Of two rows of one device, or of nobody who is known, its name tells none.
            if matches!(devices[..], [one, other] if one != other) {
                ways.insert(0, Way::Take);
            }
            ways
        }
        ConflictKind::InsertInsert | ConflictKind::UpdateUpdate | ConflictKind::UpdateDelete => {
            let rows = conflict.versions.iter().filter(|version| version.op != VersionOp::Delete);
            let mut ways = vec![Way::Take];
            if rows.clone().count() > 0 {
                ways.push(Way::Set);
            }
            ways.push(Way::Delete);
            if rows.count() > 1 {
                ways.push(if clash { Way::KeepBothWith } else { Way::KeepBoth });
            }
            ways
        }
    }
}

/// Returns the columns of a UNIQUE, besides the key, which two versions of a row both claim: as two rows they clash.
fn clashing(table: &Table, conflict: &Conflict) -> Vec<usize> {
    let Some(shown) = conflict.versions.first() else { return Vec::new() };
    let keys: Vec<usize> = table.def.keys().collect();
    let uniques = table.def.uniques.iter().map(|unique| unique.iter().map(|at| usize::from(*at)));
    let mut others = uniques.map(Iterator::collect::<Vec<usize>>);
    let clashing = others.find(|unique| {
        // The key gets another value in its last column.
        let renewed = keys.last().is_some_and(|last| unique.contains(last));
        !renewed && conflict.versions.iter().skip(1).any(|other| is_same(table, unique, shown, other))
    });
    clashing.unwrap_or_default()
}

/// Returns whether two versions have the same values in all of these columns, none of them NULL. What a version does not say
/// of a row is as it is shown.
fn is_same(table: &Table, columns: &[usize], shown: &ConflictVersion, other: &ConflictVersion) -> bool {
    if other.op == VersionOp::Delete {
        return false;
    }
    columns.iter().all(|at| {
        let name = &table.def.columns[*at].name;
        let value = |of: &ConflictVersion| {
            of.values.iter().find(|(column, _)| column == name).map(|(_, value)| value.clone())
        };
        match (value(shown), value(other)) {
            (Some(OwnedValue::Null), _) | (_, Some(OwnedValue::Null)) => false,
            (Some(shown), Some(other)) => shown == other,
            _ => true,
        }
    })
}
