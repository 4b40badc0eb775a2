//! Resolving a conflict: a write like any other, whose context covers all versions that it resolves.

use packmule_core::model::DeviceId;
use packmule_core::wire::{FrameFlags, OpKind};
use rusqlite::params_from_iter;

use crate::engine::capture::dirty::ChangeFlags;
use crate::engine::capture::groups::SealOptions;
use crate::engine::capture::{declare, redeclare, seal};
use crate::engine::conflicts::children::Referrers;
use crate::engine::conflicts::keep_both;
use crate::engine::conflicts::list::{ConflictKind, ConflictVersion, Open};
use crate::engine::conflicts::record::{own_sums, own_values, record_resolved};
use crate::engine::conflicts::{walk, ways};
use crate::engine::error::{Error, Result, Way};
use crate::engine::merge::heads::Head;
use crate::engine::merge::versions::Held;
use crate::engine::merge::{compose, deferred, versions};
use crate::engine::show::{quarantine, triggers, write};
use crate::engine::store::value::{self, Bind, OwnedValue};
use crate::engine::table::catalog;
use crate::engine::table::known::Table;
use crate::engine::table::replica::Replica;
use crate::engine::table::trial;

/// How a conflict is resolved.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Resolution {
    /// The version of this device is the row. Of two rows that claim one value, the other is deleted.
    Take(DeviceId),
    /// The version that was written last, by its author's clock; of two rows that claim one value, that row.
    Newest,
    /// The version that the table shows. Of two rows that claim one value, the quarantined one is deleted.
    Shown,
    /// Of two rows that claim one value, the quarantined one: it is shown, and the other is deleted.
    Quarantined,
    /// The row, with these columns changed.
    Set(Vec<(String, OwnedValue)>),
    /// The row is deleted.
    Delete,
    /// The shown version stays; each other one becomes a row of its own under a new key.
    KeepBoth,
    /// As [`Resolution::KeepBoth`]; the rows under new keys have these columns changed: what another UNIQUE forbids twice.
    KeepBothWith(Vec<(String, OwnedValue)>),
}

/// Resolves a conflict that was seen before, if it is as it was.
pub(crate) fn resolve_seen(replica: &Replica, seen: &Open, resolution: &Resolution) -> Result<()> {
    let id = &seen.conflict.id;
    match &walk::again(replica, seen)?.filter(|open| open.conflict.id == *id) {
        Some(open) => {
            let flags = close_open(replica, open, resolution)?.flags;
            seal::seal_here(replica, SealOptions { flags, ..SealOptions::default() })?;
            Ok(())
        }
        None => Err(walk::no_such_conflict(replica, id)?),
    }
}

/// What a resolution wrote, which is not sealed yet.
#[derive(Default)]
pub(crate) struct Closed {
    /// What the seal says of it.
    pub flags: FrameFlags,
    /// The keys of rows that are new in the table.
    pub made: Vec<Vec<u8>>,
}

/// Writes what a resolution says, without sealing it.
pub(crate) fn close_open(replica: &Replica, open: &Open, resolution: &Resolution) -> Result<Closed> {
    let table = catalog::table(replica, open.tid)?;
    if let ConflictKind::Schema(column) = &open.conflict.kind {
        close_schema(replica, &table, open, column, resolution)?;
        return Ok(Closed::default());
    }
    let made = match close(replica, &table, open, resolution) {
        Err(error) => match error.of_sqlite().filter(|e| trial::is_refused(e)) {
            Some(e) => {
                return Err(Error::cannot_resolve(
                    e.to_string(),
                    instead(replica, &table, open, resolution)?,
                ));
            }
            None => return Err(error),
        },
        Ok(made) => made,
    };
    Ok(Closed { flags: FrameFlags::RESOLUTION, made })
}

/// Returns what can be done where a constraint refuses what a resolution wrote.
fn instead(replica: &Replica, table: &Table, open: &Open, resolution: &Resolution) -> Result<&'static [Way]> {
    Ok(match resolution {
        Resolution::KeepBoth | Resolution::KeepBothWith(_) => {
            match ways::keeping_all(replica, table, open, Some(&mut Referrers::default()))?.0 {
                Some(Way::KeepBothWith) => &[Way::KeepBothWith],
                _ => &[Way::Take, Way::Set],
            }
        }
        _ => &[Way::Set],
    })
}

/// Writes what a resolution says of a row, without sealing it. Returns the keys of rows that are new in the table.
fn close(replica: &Replica, table: &Table, open: &Open, resolution: &Resolution) -> Result<Vec<Vec<u8>>> {
    let cannot = |reason: &str, ways| Err(Error::cannot_resolve(reason, ways));
    match (&open.conflict.kind, resolution) {
        (_, Resolution::Delete) => delete_resolved(replica, table, &open.key),
        (ConflictKind::ForeignKey(..), Resolution::Set(values)) => set(replica, table, open, values),
        (ConflictKind::ForeignKey(_, parent), _) => cannot(
            &format!(
                "the row refers to a row of `{parent}` that is not there; it is closed too when that row is inserted"
            ),
            &[Way::Set, Way::Delete],
        ),
        (
            ConflictKind::Check(_),
            Resolution::Take(_) | Resolution::Newest | Resolution::Shown | Resolution::Quarantined,
        ) => cannot("the row breaks a constraint of the table here", &[Way::Set, Way::Delete]),
        (ConflictKind::Unique(_), Resolution::Take(device)) => take_claim(replica, table, open, *device),
        (ConflictKind::Unique(_), Resolution::Newest) => match open.conflict.newest() {
            Some((0, _)) => take_quarantined(replica, table, open),
            Some(_) => delete_resolved(replica, table, &open.key),
            None => cannot("nobody knows when the rows were written", &[Way::Take, Way::Set]),
        },
        (ConflictKind::Unique(_), Resolution::Shown) => delete_resolved(replica, table, &open.key),
        (ConflictKind::Unique(_), Resolution::Quarantined) => take_quarantined(replica, table, open),
        (_, Resolution::Quarantined) => {
            cannot("`quarantined` is one of two rows that claim one value", &[Way::Take, Way::Set])
        }
        (
            ConflictKind::Unique(_) | ConflictKind::Check(_),
            Resolution::KeepBoth | Resolution::KeepBothWith(_),
        ) => cannot(
            "both rows can be kept only with different values; the quarantined row is the one that is given others",
            &[Way::Set],
        ),
        (_, Resolution::Set(values)) => set(replica, table, open, values),
        (_, Resolution::Newest) => match open.conflict.newest() {
            Some((_, device)) => take(replica, table, open, device),
            None => cannot("nobody knows when the versions were written", &[Way::Take, Way::Set]),
        },
        (_, Resolution::Shown) if deferred::is_quarantined(replica, table.tid, &open.key)? => {
            cannot("the row is not shown: a constraint quarantines it", &[Way::Take, Way::Set])
        }
        (_, Resolution::Shown) => record_resolved(replica, table, &open.key),
        (_, Resolution::Take(device)) => take(replica, table, open, *device),
        (_, Resolution::KeepBoth) => return keep_both::keep_both(replica, table, open, &[]),
        (_, Resolution::KeepBothWith(values)) => return keep_both::keep_both(replica, table, open, values),
    }?;
    Ok(Vec::new())
}

/// Makes the row what a device's versions say.
fn take(replica: &Replica, table: &Table, open: &Open, device: DeviceId) -> Result<()> {
    // By cell, several writes of a device may each speak for a part.
    let mut heads: Vec<_> = open.heads.iter().filter(|h| h.author == device).collect();
    heads.sort_by_key(|h| h.seq);
    if heads.is_empty() {
        return Err(no_version(open));
    }
    take_versions(replica, table, open, &heads)
}

/// Makes one of the declarations of a disputed column hold on all devices.
fn close_schema(
    replica: &Replica,
    table: &Table,
    open: &Open,
    column: &str,
    resolution: &Resolution,
) -> Result<()> {
    let Resolution::Take(device) = resolution else {
        return Err(Error::cannot_resolve(
            format!(
                "`{column}` of table `{}` was declared differently; it becomes what one device declared, everywhere",
                table.def.name
            ),
            &[Way::Take],
        ));
    };
    let declared = declare::declared_columns(replica, table.tid, column)?;
    match declared.iter().find(|(declared, _)| declared.author == *device) {
        Some((_, column)) => redeclare::decide_column(replica, table.tid, column),
        None => Err(no_version(open)),
    }
}

/// Keeps the row of this device, of two that claim one value, and deletes the other.
fn take_claim(replica: &Replica, table: &Table, open: &Open, device: DeviceId) -> Result<()> {
    let [quarantined, blocking] = &open.conflict.versions[..] else {
        return Err(Error::damaged("a unique conflict without two rows"));
    };
    if quarantined.device == blocking.device {
        let reason = format!(
            "both rows are of {}: take the one that is `shown` or `quarantined`",
            quarantined.author()
        );
        return Err(Error::cannot_resolve(reason, &[Way::Take]));
    }
    if quarantined.device == Some(device) {
        return take_quarantined(replica, table, open);
    }
    if blocking.device != Some(device) {
        return Err(no_version(open));
    }
    delete_resolved(replica, table, &open.key)
}

/// Shows the quarantined row, and deletes the row that has the value.
fn take_quarantined(replica: &Replica, table: &Table, open: &Open) -> Result<()> {
    if let Some(blocking) = &open.blocking {
        delete_resolved(replica, table, blocking)?;
        quarantine::move_from_quarantine(replica, table, &open.key, false)?;
    }
    record_resolved(replica, table, &open.key)
}

/// Changes columns of a row to the values that were given.
fn set(replica: &Replica, table: &Table, open: &Open, values: &[(String, OwnedValue)]) -> Result<()> {
    let mut columns = Vec::new();
    for (name, value) in values {
        let at = table.def.column(name).ok_or_else(|| {
            Error::cannot_resolve(
                format!(
                    "`{}` has no column `{name}`; it has: {}",
                    table.def.name,
                    table.def.columns.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(", ")
                ),
                &[],
            )
        })?;
        if table.def.columns[at].key > 0 {
            return Err(Error::cannot_resolve(
                format!("`{name}` is part of the key, and another key is another row"),
                &[Way::KeepBoth],
            ));
        }
        if table.disputed.contains(at) {
            return Err(Error::cannot_resolve(
                format!(
                    "`{name}` is disputed, since devices declared it differently: close that conflict first"
                ),
                &[],
            ));
        }
        if table.counters.contains(&at) {
            record_counter(replica, table, open, at, value)?;
        }
        if matches!(value, OwnedValue::Large { .. }) {
            return Err(Error::cannot_resolve(
                format!("the value for `{name}` is only told by its length and hash: give it whole"),
                &[Way::Take],
            ));
        }
        columns.push((at, value));
    }
    write_columns(replica, table, open, &columns)?;
    record_resolved(replica, table, &open.key)
}

/// Names the table that a row is in: its own, or the quarantine table.
fn holding_table(replica: &Replica, table: &Table, key: &[u8]) -> Result<String> {
    Ok(if deferred::is_quarantined(replica, table.tid, key)? {
        table.quarantine_table()
    } else {
        table.sql_name.clone()
    })
}

/// Records what a counter was before it is set, so that the seal makes an addition of it.
fn record_counter(
    replica: &Replica,
    table: &Table,
    open: &Open,
    at: usize,
    value: &OwnedValue,
) -> Result<()> {
    let name = &table.def.columns[at].name;
    if !matches!(value, OwnedValue::Int(_) | OwnedValue::Real(_)) {
        return Err(Error::cannot_resolve(format!("`{name}` is a counter: it takes a number"), &[]));
    }
    let row = compose::row_of(replica, table, &open.key)?;
    let before = row.map_or(OwnedValue::Int(0), |mut row| row.swap_remove(at));
    let key = value::read_key(&open.key)?;
    let marks: Vec<String> = (1..=key.len()).map(|n| format!("?{n}")).collect();
    replica.db.execute(
        &format!(
            "INSERT INTO {} ({}, o{at}) VALUES ({}, {}, ?{})",
            table.dirty(),
            table.change_columns(),
            marks.join(", "),
            ChangeFlags::RESOLVED,
            key.len() + 1
        ),
        params_from_iter(key.iter().chain(std::iter::once(&before))),
    )?;
    Ok(())
}

/// Deletes a row where it is; where deletes carry the row's last values, records those.
fn delete_resolved(replica: &Replica, table: &Table, key: &[u8]) -> Result<()> {
    if table.needs_baseline() {
        let baselines: Vec<String> = (0..table.def.columns.len()).map(|at| format!("i{at}")).collect();
        let values = value::read_key(key)?;
        replica.db.execute(
            &format!(
                "INSERT INTO {} ({}, {}) SELECT {}, {}, {} FROM {} WHERE {}",
                table.dirty(),
                table.change_columns(),
                baselines.join(", "),
                table.def.key_list(""),
                ChangeFlags::DELETE,
                table.column_list(),
                holding_table(replica, table, key)?,
                table.key_match_from(0)
            ),
            params_from_iter(values.iter().map(|v| Bind(v.borrow()))),
        )?;
    }
    write::delete_row(replica, table, key)?;
    record_resolved(replica, table, key)
}

/// Changes columns of the row where it is. A quarantined row moves into its table with the changes, since a
/// constraint refuses it without them.
fn write_columns(
    replica: &Replica,
    table: &Table,
    open: &Open,
    columns: &[(usize, &OwnedValue)],
) -> Result<()> {
    let key = value::read_key(&open.key)?;
    let numbers: Vec<usize> = columns.iter().map(|(at, _)| *at).collect();
    let params = columns.iter().map(|(_, v)| *v).chain(&key).map(|v| Bind(v.borrow()));
    let sql = table.update_sql(&numbers);
    if triggers::execute(replica, table, &sql, params_from_iter(params))? > 0 {
        return Ok(());
    }
    if deferred::is_quarantined(replica, table.tid, &open.key)? {
        let changes: Vec<_> = columns.iter().map(|(at, v)| (*at, (*v).clone())).collect();
        compose::make_quarantined_row(replica, table, &open.key, &changes)?;
        return quarantine::move_from_quarantine(replica, table, &open.key, false);
    }
    match open.heads.iter().find(|h| h.kind != OpKind::Delete) {
        Some(head) => insert_version(replica, table, head, columns),
        None => Err(Error::cannot_resolve("all versions delete the row", &[Way::Delete])),
    }
}

/// Makes the row what a device's versions say; of parts of a row, just those parts.
fn take_versions(replica: &Replica, table: &Table, open: &Open, heads: &[&Head]) -> Result<()> {
    if heads.iter().any(|h| h.kind == OpKind::Delete) {
        return delete_resolved(replica, table, &open.key);
    }
    let mut columns: Vec<(usize, &Head, Held)> = Vec::new();
    for head in heads {
        let sums = settled_sums(replica, table, open, head)?;
        for (at, value) in own_values(replica, table, head)?.into_iter().chain(sums) {
            columns.retain(|(column, ..)| *column != at);
            columns.push((at, head, value));
        }
    }
    // The spelling and the type of the key are the version's too.
    if let Some(last) = heads.last() {
        let values = versions::held(replica, table, last)?.into_iter();
        columns.extend(
            values.filter(|(at, _)| table.def.columns[*at].key > 0).map(|(at, value)| (at, *last, value)),
        );
    }
    let (mut written, mut large) = (Vec::new(), Vec::new());
    for (at, head, value) in columns {
        written.push(match value {
            Held::Pieces(big) if !big.text && write::takes_pieces(replica, table, at)? => {
                large.push((at, head, big));
                (at, OwnedValue::Large { text: false, bytes: big.len, sha256: big.sha256 })
            }
            value => (at, value.whole(replica, head)?),
        });
    }
    let written: Vec<_> = written.iter().map(|(at, value)| (*at, value)).collect();
    write_columns(replica, table, open, &written)?;
    for (at, head, big) in large {
        compose::write_pieces(replica, table, table.place(), &open.key, at, head, &big)?;
    }
    record_resolved(replica, table, &open.key)
}

/// Returns the settled sums that a verdict's version says: the counters become these.
fn settled_sums(replica: &Replica, table: &Table, open: &Open, head: &Head) -> Result<Vec<(usize, Held)>> {
    let mut sums = own_sums(replica, table, head)?;
    sums.retain(|(_, sum)| matches!(sum, OwnedValue::Int(_) | OwnedValue::Real(_)));
    for (at, sum) in &sums {
        record_counter(replica, table, open, *at, sum)?;
    }
    Ok(sums.into_iter().map(|(at, sum)| (at, Held::Here(sum))).collect())
}

/// Inserts a version with some columns changed.
fn insert_version(
    replica: &Replica,
    table: &Table,
    head: &Head,
    changes: &[(usize, &OwnedValue)],
) -> Result<()> {
    let mut row = versions::held(replica, table, head)?;
    row.retain(|(column, _)| changes.iter().all(|(at, _)| at != column));
    let mut row: Vec<(usize, OwnedValue)> = row
        .into_iter()
        .map(|(column, value)| Ok((column, value.whole(replica, head)?)))
        .collect::<Result<_>>()?;
    for (at, value) in changes {
        row.push((*at, (*value).clone()));
    }
    let sql = table.insert_sql(&row.iter().map(|(at, _)| *at).collect::<Vec<_>>());
    let values = params_from_iter(row.iter().map(|(_, v)| Bind(v.borrow())));
    triggers::execute(replica, table, &sql, values).map(drop)
}

/// Makes the error of a device of which no version is.
fn no_version(open: &Open) -> Box<Error> {
    Error::cannot_resolve(
        format!("no version is of that device; take one of: {}", authors(open)),
        &[Way::Take],
    )
}

/// Names the authors of a conflict's versions.
fn authors(open: &Open) -> String {
    let known = open.conflict.versions.iter().filter(|v| v.device.is_some());
    let mut known: Vec<String> = known.map(ConflictVersion::author).collect();
    known.dedup();
    known.join(", ")
}
