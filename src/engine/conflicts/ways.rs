//! The ways in which a conflict can be resolved: what could not work is not offered.

use rusqlite::params_from_iter;

use crate::engine::conflicts::keep_both::{self, Plan, Values};
use crate::engine::conflicts::list::{self, Conflict, ConflictKind, ConflictVersion, Open, VersionOp};
use crate::engine::error::{Error, Result, Way};
use crate::engine::merge::deferred;
use crate::engine::store::value::{self, Bind, OwnedValue};
use crate::engine::table::catalog;
use crate::engine::table::known::Table;
use crate::engine::table::replica::Replica;

/// Adds the ways in which a conflict can be resolved, which versions cannot be taken here, and of which columns two rows in
/// place of one need different values.
pub(crate) fn add_ways(replica: &Replica, open: &mut Open) -> Result<()> {
    let table = &*catalog::table(replica, open.tid)?;
    if is_of_versions(open) || matches!(open.conflict.kind, ConflictKind::Unique(_)) {
        for n in 0..open.conflict.versions.len() {
            open.conflict.versions[n].refused = refused(replica, table, open, n)?;
        }
    }
    offer(replica, table, open)
}

/// Adds the same, but not which versions cannot be taken: that hangs on any other row of the table.
pub(crate) fn add_offered(replica: &Replica, open: &mut Open) -> Result<()> {
    offer(replica, &*catalog::table(replica, open.tid)?, open)
}

fn offer(replica: &Replica, table: &Table, open: &mut Open) -> Result<()> {
    let (both, clashing) = match is_of_versions(open) {
        true => keeping_all(replica, table, open)?,
        false => (None, Vec::new()),
    };
    open.conflict.ways = offered(&open.conflict, both);
    open.conflict.clashing = clashing.into_iter().map(|at| table.def.columns[at].name.clone()).collect();
    Ok(())
}

/// Returns whether a conflict is one of versions of a row.
fn is_of_versions(open: &Open) -> bool {
    let kind = &open.conflict.kind;
    matches!(kind, ConflictKind::InsertInsert | ConflictKind::UpdateUpdate | ConflictKind::UpdateDelete)
}

/// Says why a version cannot become the row here, if it cannot: a row that is no party to the conflict has its UNIQUE value,
/// or it breaks a rule of the table, which may be this database's alone.
fn refused(replica: &Replica, table: &Table, open: &Open, n: usize) -> Result<Option<String>> {
    let version = &open.conflict.versions[n];
    if version.shown || version.op == VersionOp::Delete {
        return Ok(None);
    }
    let row = row_of(replica, table, open, version)?;
    let parties: Vec<&[u8]> = [&open.key].into_iter().chain(&open.blocking).map(Vec::as_slice).collect();
    for unique in &table.def.uniques {
        let unique: Vec<usize> = unique.iter().map(|at| usize::from(*at)).collect();
        let value = |at: &usize| row.iter().find(|(column, _)| column == at).map(|(_, value)| value.clone());
        if is_taken(replica, table, &unique, &unique.iter().map(value).collect(), &parties)? {
            let names: Vec<&str> = unique.iter().map(|at| table.def.columns[*at].name.as_str()).collect();
            return Ok(Some(format!("another row has the same {}", names.join(", "))));
        }
    }
    replica.trials.refusal(&replica.db, table, &[row])
}

/// Returns the row that a version makes of what is there, by column.
fn row_of(
    replica: &Replica,
    table: &Table,
    open: &Open,
    version: &ConflictVersion,
) -> Result<Vec<(usize, OwnedValue)>> {
    let quarantined = deferred::is_quarantined(replica, table.tid, &open.key)?;
    let place = if quarantined { table.quarantine_table() } else { table.place().into() };
    let mut row = list::told_row(replica, table, &place, &open.key)?;
    // By cell a device's versions are parts of a row, which are taken together.
    let same = |of: &&ConflictVersion| of.device == version.device && of.op != VersionOp::Delete;
    let of_device = open.conflict.versions.iter().filter(same).filter(|_| open.blocking.is_none());
    for (name, value) in of_device.chain([version]).flat_map(|version| &version.values) {
        row.retain(|(column, _)| column != name);
        row.push((name.clone(), value.clone()));
    }
    Ok(row.into_iter().filter_map(|(name, value)| Some((table.def.column(&name)?, value))).collect())
}

/// Returns the ways; `both`: how each version can become a row, if it can.
fn offered(conflict: &Conflict, both: Option<Way>) -> Vec<Way> {
    match &conflict.kind {
        ConflictKind::Schema(_) => vec![Way::Take],
        ConflictKind::ForeignKey(..) | ConflictKind::Check(_) => vec![Way::Set, Way::Delete],
        ConflictKind::Unique(_) => vec![Way::Take, Way::Set, Way::Delete],
        ConflictKind::InsertInsert | ConflictKind::UpdateUpdate | ConflictKind::UpdateDelete => {
            let mut ways = vec![Way::Take];
            if conflict.versions.iter().any(|version| version.op != VersionOp::Delete) {
                ways.push(Way::Set);
            }
            ways.push(Way::Delete);
            ways.extend(both);
            ways
        }
    }
}

/// Returns how each version becomes a row of its own, if it can, and the columns that need other values then.
pub(crate) fn keeping_all(
    replica: &Replica,
    table: &Table,
    open: &Open,
) -> Result<(Option<Way>, Vec<usize>)> {
    let plan = match keep_both::plan(replica, table, open, None, Values::Told) {
        Err(error) if matches!(*error, Error::CannotResolve { .. }) => return Ok((None, Vec::new())),
        plan => plan?,
    };
    let clashing = clashing(replica, table, &plan)?;
    let way = match plan.made.len() {
        _ if clashing.is_empty() => Way::KeepBoth,
        1 => Way::KeepBothWith,
        // All rows under new keys are given the same values.
        _ => return Ok((None, Vec::new())),
    };
    let mut rows = plan.made;
    rows.iter_mut().for_each(|made| made.row[made.column] = made.new.clone());
    let beside = Some(plan.shown).filter(|_| clashing.is_empty());
    // The values of a disputed column are each device's own.
    let of_all = |row: Vec<OwnedValue>| {
        row.into_iter().enumerate().filter(|(at, _)| !table.disputed.contains(*at)).collect()
    };
    let rows: Vec<Vec<(usize, OwnedValue)>> =
        beside.into_iter().chain(rows.into_iter().map(|made| made.row)).map(of_all).collect();
    Ok(match replica.trials.refusal(&replica.db, table, &rows)? {
        Some(_) => (None, Vec::new()),
        None => (Some(way), clashing),
    })
}

/// Returns the columns of a UNIQUE, besides the key, which two rows in place of one both claim, or a new row and one that
/// is in the table.
fn clashing(replica: &Replica, table: &Table, plan: &Plan<'_>) -> Result<Vec<usize>> {
    let last = table.def.keys().last();
    let mut found = Vec::new();
    for unique in &table.def.uniques {
        let unique: Vec<usize> = unique.iter().map(|at| usize::from(*at)).collect();
        // The key gets another value in its last column.
        if last.is_some_and(|last| unique.contains(&last)) {
            continue;
        }
        let claim =
            |row: &Vec<OwnedValue>| -> Claim { unique.iter().map(|at| Some(row[*at].clone())).collect() };
        let made: Vec<Claim> = plan.made.iter().map(|made| claim(&made.row)).collect();
        let shown = claim(&plan.shown);
        let mut others = made.iter().enumerate().map(|(n, one)| {
            let twice = made[..n].iter().chain([&shown]).any(|two| is_same(one, two));
            Ok(twice || is_taken(replica, table, &unique, one, &[])?)
        });
        if others.try_fold(false, |any, taken: Result<bool>| Ok::<_, Box<Error>>(any || taken?))? {
            found.extend(unique);
        }
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// The values of a row in the columns of a UNIQUE; none where nothing says what it is there.
type Claim = Vec<Option<OwnedValue>>;

/// Returns whether two rows have the same values, none of them NULL.
fn is_same(one: &Claim, two: &Claim) -> bool {
    one == two && !one.contains(&Some(OwnedValue::Null))
}

/// Returns whether a row of the table, but these, has what is claimed; of a long value that is not looked for.
fn is_taken(
    replica: &Replica,
    table: &Table,
    unique: &[usize],
    claim: &Claim,
    but: &[&[u8]],
) -> Result<bool> {
    let Some(mut binds) = claim.iter().cloned().collect::<Option<Vec<OwnedValue>>>() else {
        return Ok(false);
    };
    if binds.iter().any(|value| matches!(value, OwnedValue::Large { .. })) {
        return Ok(false);
    }
    let equals =
        |(n, at): (usize, &usize)| format!("{} = ?{}", value::column(&table.def.columns[*at].name), n + 1);
    let mut wanted = unique.iter().enumerate().map(equals).collect::<Vec<_>>().join(" AND ");
    for key in but {
        wanted.push_str(&format!(" AND NOT ({})", table.key_match_from(binds.len())));
        binds.extend(value::read_key(key)?);
    }
    let sql = format!("SELECT 1 FROM {} WHERE {wanted}", table.sql_name);
    let binds = params_from_iter(binds.iter().map(|value| Bind(value.borrow())));
    Ok(value::maybe::<i64>(&replica.db, &sql, binds)?.is_some())
}
