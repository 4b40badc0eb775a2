//! The ways in which a conflict can be resolved: what could not work is not offered.

use rusqlite::params_from_iter;

use crate::engine::conflicts::children::Referrers;
use crate::engine::conflicts::keep_both::{self, Along, Kept};
use crate::engine::conflicts::list::{self, Conflict, ConflictKind, ConflictVersion, Open, VersionOp};
use crate::engine::error::{Error, Result, Way};
use crate::engine::merge::deferred;
use crate::engine::store::value::{self, Bind, OwnedValue};
use crate::engine::table::catalog;
use crate::engine::table::known::Table;
use crate::engine::table::replica::Replica;

/// Adds the ways in which a conflict can be resolved, which versions cannot be taken here, and of which columns two rows in
/// place of one need different values.
pub(crate) fn add_ways(replica: &Replica, open: &mut Open, referrers: &mut Referrers) -> Result<()> {
    let table = &*catalog::table(replica, open.tid)?;
    if is_of_versions(open) || matches!(open.conflict.kind, ConflictKind::Unique(_)) {
        for n in 0..open.conflict.versions.len() {
            open.conflict.versions[n].refused = refused(replica, table, open, n)?;
        }
    }
    offer(replica, table, open, Some(referrers))
}

/// Adds the same, but not which versions cannot be taken, and whether rows that refer to it stand in the way: that hangs on any
/// other row.
pub(crate) fn add_offered(replica: &Replica, open: &mut Open) -> Result<()> {
    offer(replica, &*catalog::table(replica, open.tid)?, open, None)
}

fn offer(replica: &Replica, table: &Table, open: &mut Open, referrers: Option<&mut Referrers>) -> Result<()> {
    let (both, clashing) = match is_of_versions(open) {
        true => keeping_all(replica, table, open, referrers)?,
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
    for claim in claims(replica, table, &row)? {
        if has_row(replica, table, &claim, &parties)? {
            return Ok(Some(format!("another row has the same {}", claim.told)));
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
    referrers: Option<&mut Referrers>,
) -> Result<(Option<Way>, Vec<usize>)> {
    let cannot = (None, Vec::new());
    let plan = match keep_both::plan(replica, open, referrers) {
        Err(error) if matches!(*error, Error::CannotResolve { .. }) => return Ok(cannot),
        plan => plan?,
    };
    let [kept, further @ ..] = &plan.kept[..] else { return Ok(cannot) };
    let Some(clashing) = clashing(replica, kept)? else { return Ok(cannot) };
    let way = match kept.made.len() {
        _ if clashing.is_empty() => Way::KeepBoth,
        1 => Way::KeepBothWith,
        // All rows under new keys are given the same values.
        _ => return Ok(cannot),
    };
    // What is given other values says nothing of the row beside it.
    let beside = clashing.is_empty().then(|| of_all(table, &kept.shown));
    let rows: Vec<Row> = beside.into_iter().chain(made_rows(kept)).collect();
    let is_refused = replica.trials.refusal(&replica.db, table, &rows)?.is_some();
    Ok(match is_refused || stands_in_the_way(replica, further, &plan.along)? {
        true => cannot,
        false => (Some(way), clashing),
    })
}

/// A row by its columns.
type Row = Vec<(usize, OwnedValue)>;

/// Leaves out of a row the values that are each device's own: those of disputed columns.
fn of_all(table: &Table, row: &[OwnedValue]) -> Row {
    let all = row.iter().cloned().enumerate();
    all.filter(|(at, _)| !table.disputed.contains(*at)).collect()
}

/// Returns the new rows, under their new keys.
fn made_rows(kept: &Kept) -> impl Iterator<Item = Row> {
    kept.made.iter().map(|made| of_all(&kept.table, &made.renumbered()))
}

/// Returns whether one of the rows that go along cannot be what it becomes.
fn stands_in_the_way(replica: &Replica, further: &[Kept], along: &[Along]) -> Result<bool> {
    for kept in further {
        let rows: Vec<Row> =
            std::iter::once(of_all(&kept.table, &kept.shown)).chain(made_rows(kept)).collect();
        let clashes = clashing(replica, kept)?.is_none_or(|columns| !columns.is_empty());
        if clashes || replica.trials.refusal(&replica.db, &kept.table, &rows)?.is_some() {
            return Ok(true);
        }
    }
    for Along { table, key, column, new } in along {
        let told = list::told_row(replica, table, table.place(), key)?;
        let mut row: Row =
            told.into_iter().filter_map(|(name, value)| Some((table.def.column(&name)?, value))).collect();
        row.iter_mut().filter(|(at, _)| at == column).for_each(|(_, value)| *value = new.clone());
        for claim in claims(replica, table, &row)?.iter().filter(|claim| claim.columns.contains(column)) {
            if has_row(replica, table, claim, &[key])? {
                return Ok(true);
            }
        }
        if replica.trials.refusal(&replica.db, table, &[row])?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns the columns of which a new row needs other values, as a row that is in the table claims the same; `None` if no
/// other values help, as these are of the key.
fn clashing(replica: &Replica, kept: &Kept) -> Result<Option<Vec<usize>>> {
    let table = &*kept.table;
    let mut before = claims(replica, table, &of_all(table, &kept.shown))?;
    let mut found = Vec::new();
    for row in made_rows(kept) {
        let own = claims(replica, table, &row)?;
        for claim in &own {
            if !before.iter().any(|one| claim.is_same(one)) && !has_row(replica, table, claim, &[])? {
                continue;
            }
            let is_free = |at: &usize| table.def.columns[*at].key == 0 && !table.disputed.contains(*at);
            let free: Vec<usize> = claim.columns.iter().copied().filter(is_free).collect();
            if free.is_empty() {
                return Ok(None);
            }
            found.extend(free);
        }
        before.extend(own);
    }
    found.sort_unstable();
    found.dedup();
    Ok(Some(found))
}

/// What a row has in a UNIQUE, besides the key.
struct Claim {
    /// The columns that the UNIQUE names.
    columns: Vec<usize>,
    /// What it is over, as people are told.
    told: String,
    /// The condition that a row has the same.
    same: String,
    values: Vec<OwnedValue>,
}

impl Claim {
    /// Returns whether two rows have the same values, none of them NULL.
    fn is_same(&self, other: &Self) -> bool {
        self.same == other.same && self.values == other.values && !self.values.contains(&OwnedValue::Null)
    }
}

/// Returns what a row claims, also by the UNIQUE indexes that no definition has; nothing where the row says nothing of a column.
fn claims(replica: &Replica, table: &Table, row: &Row) -> Result<Vec<Claim>> {
    let mut all = Vec::new();
    for unique in &table.def.uniques {
        let columns: Vec<usize> = unique.iter().map(|at| usize::from(*at)).collect();
        let value = |at: &usize| row.iter().find(|(column, _)| column == at).map(|(_, value)| value.clone());
        let Some(values) = columns.iter().map(value).collect() else { continue };
        let name = |at: &usize| table.def.columns[*at].name.as_str();
        let equals = |(n, at): (usize, &usize)| format!("{} = ?{}", value::column(name(at)), n + 1);
        let same = columns.iter().enumerate().map(equals).collect::<Vec<_>>().join(" AND ");
        let told = columns.iter().map(name).collect::<Vec<_>>().join(", ");
        all.push(Claim { columns, told, same, values });
    }
    for (own, values) in replica.trials.own_claims(&replica.db, table, row)? {
        let (columns, told, same) = (own.columns.clone(), own.told(), own.same_sql());
        all.push(Claim { columns, told, same, values });
    }
    Ok(all)
}

/// Returns whether a row of the table, but these, has what is claimed; of a long value that is not looked for.
fn has_row(replica: &Replica, table: &Table, claim: &Claim, but: &[&[u8]]) -> Result<bool> {
    let mut binds = claim.values.clone();
    if binds.iter().any(|value| matches!(value, OwnedValue::Large { .. })) {
        return Ok(false);
    }
    let mut wanted = claim.same.clone();
    for key in but {
        wanted.push_str(&format!(" AND NOT ({})", table.key_match_from(binds.len())));
        binds.extend(value::read_key(key)?);
    }
    let sql = format!("SELECT 1 FROM {} WHERE {wanted}", table.sql_name);
    let binds = params_from_iter(binds.iter().map(|value| Bind(value.borrow())));
    Ok(value::maybe::<i64>(&replica.db, &sql, binds)?.is_some())
}
