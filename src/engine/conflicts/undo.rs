//! A resolution undone: the rows that it wrote become what they were before.
//!
//! Each row that a resolution writes is told in its group as it was before, with the id of the conflict. So who has that
//! group can undo it, on any device. The undo tells the same of the rows that it writes: undoing it again brings the
//! decision back. A UNIQUE value is claimed as it was before, so that the row which had it is shown again, and the
//! conflict is open again.

use packmule_core::model::{Hex, Stream, decode_hex};
use packmule_core::wire::{Decision, FrameFlags, OpKind, Was};

use crate::engine::capture::groups::{self, Before, RowBefore};
use crate::engine::capture::ops::{self, Change};
use crate::engine::conflicts::change::RowChange;
use crate::engine::conflicts::told::{self, Told};
use crate::engine::conflicts::{list, rewind};
use crate::engine::error::{Error, ID_LEAST, Result};
use crate::engine::fleet::{devices, positions};
use crate::engine::log::frames;
use crate::engine::log::visit::{self, Part};
use crate::engine::log::writer::{self, GroupWriter};
use crate::engine::merge::heads::{self, Head};
use crate::engine::merge::{compose, deferred, versions};
use crate::engine::show::constraints;
use crate::engine::store::meta;
use crate::engine::store::value::{self, OwnedValue};
use crate::engine::table::catalog;
use crate::engine::table::columns::Columns;
use crate::engine::table::known::Table;
use crate::engine::table::renamed;
use crate::engine::table::replica::Replica;

/// What an undo did.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct UndoReport {
    /// The conflict's id, whole.
    pub conflict: String,
    /// Who had decided it: name and short id.
    pub decided_by: String,
    /// The table, of each row that it changed, and the row before and after the undo.
    pub rows: Vec<(String, RowChange)>,
}

/// Reads a conflict's id.
fn number(id: &str) -> Result<[u8; 5]> {
    let mut number = [0; 5];
    decode_hex(id, &mut number).map_err(|_| Error::damaged("a conflict's id is no hexadecimal number"))?;
    Ok(number)
}

/// Tells of a row that a resolution made that it was not there.
pub(crate) fn made(id: &str, tid: i64, key: &[u8]) -> Result<RowBefore> {
    Ok(RowBefore { conflict: number(id)?, tid, key: key.to_vec(), claim: 0, was: Before::Gone })
}

/// Returns what a row is, for the undo of what is done to it next; `told`: as it is in its table.
pub(crate) fn before(
    replica: &Replica,
    id: &str,
    (table, key): (&Table, &[u8]),
    told: &[(String, OwnedValue)],
) -> Result<RowBefore> {
    let conflict = number(id)?;
    let heads = heads::heads(replica, table.tid, key)?;
    let claim = versions::claim_of(table, &heads);
    let was = was(replica, table, key, told)?;
    Ok(RowBefore { conflict, tid: table.tid, key: key.to_vec(), claim, was })
}

/// Encodes a row as it is: as it is `told` of its table or, quarantined, beside it.
fn was(replica: &Replica, table: &Table, key: &[u8], told: &[(String, OwnedValue)]) -> Result<Before> {
    let (place, told) = match told {
        [] => (table.quarantine_table(), list::told_row(replica, table, &table.quarantine_table(), key)?),
        _ => (table.sql_name.clone(), told.to_vec()),
    };
    if told.is_empty() {
        return Ok(Before::Gone);
    }
    if !told::keeps(replica, &told) {
        return Ok(Before::Untold);
    }
    // What is listed by its hash is kept whole.
    let is_short = told.iter().all(|(_, value)| !matches!(value, OwnedValue::Large { .. }));
    let whole = if is_short { None } else { compose::row_in(replica, &place, table, key)? };
    let mut body = Vec::new();
    for (name, value) in &told {
        let whole = whole.as_ref().and_then(|row| row.get(table.def.column(name)?));
        value::push_named(&mut body, name, &whole.unwrap_or(value).borrow())?;
    }
    Ok(Before::Values(body))
}

/// A resolution in the log.
struct Found {
    dev: i64,
    frames: (u64, u64),
    conflict: String,
    rows: Vec<(i64, Vec<u8>, u64, Before)>,
}

impl Found {
    /// Leaves out the rows that it did not write: of two that claim one value, the one that stayed as it was. What
    /// others write to that is nothing that an undo would take away.
    fn written(mut self, replica: &Replica) -> Result<Self> {
        let mut rows = Vec::new();
        for row in std::mem::take(&mut self.rows) {
            for seq in self.frames.0..=self.frames.1 {
                if rewind::said_in_frame(replica, (self.dev, seq), (row.0, &row.1))?.is_some() {
                    rows.push(row);
                    break;
                }
            }
        }
        self.rows = rows;
        Ok(self)
    }
}

/// Finds the last resolution, or undo, of the conflict with this id, or with the only one in the log that begins so.
fn find(replica: &Replica, id: &str) -> Result<Found> {
    let mut groups = replica.db.prepare(
        "SELECT dev, first, last FROM _pm_group WHERE stream = ?1 AND applied ORDER BY lamport DESC, dev, last DESC",
    )?;
    let mut groups = groups.query([Stream::Shared.number()])?;
    let mut newest: Option<Found> = None;
    while let Some(group) = groups.next()? {
        let Some(found) = in_group(replica, group.get(0)?, (group.get(1)?, group.get(2)?), id)? else {
            continue;
        };
        match &newest {
            None if found.conflict.len() == id.len() => return Ok(found),
            None => newest = Some(found),
            Some(newest) if newest.conflict != found.conflict => return Err(of_several(id)),
            Some(_) => {}
        }
    }
    newest.ok_or_else(|| {
        let none = "it has not come yet, is compacted away, or decided a column";
        Error::Usage(format!("no resolution of a conflict `{id}` is in the log here: {none}")).into()
    })
}

fn of_several(id: &str) -> Box<Error> {
    Error::Usage(format!("`{id}` is the beginning of several ids: give more of it")).into()
}

/// Finds the resolution in a group, if it is of a conflict with an id that begins so.
fn in_group(replica: &Replica, dev: i64, frames: (u64, u64), id: &str) -> Result<Option<Found>> {
    let mut found: Option<Found> = None;
    for seq in frames.0..=frames.1 {
        let body = frames::frame_here(replica, dev, Stream::Shared, seq)?;
        let frame = frames::parse(&body)?;
        if !frame.head.flags.has(FrameFlags::RESOLUTION) {
            break;
        }
        visit::visit(replica, &frame, |part| {
            let Part::Decision(Decision { conflict, def, key, claim, was }) = part else { return Ok(()) };
            let conflict = Hex(&conflict).to_string();
            if !conflict.starts_with(id) {
                return Ok(());
            }
            let found = found.get_or_insert_with(|| Found {
                dev,
                frames,
                conflict: conflict.clone(),
                rows: Vec::new(),
            });
            if found.conflict != conflict {
                return Err(of_several(id));
            }
            let was = match was {
                Was::Gone => Before::Gone,
                Was::Values(values) => Before::Values(values.to_vec()),
                Was::Untold => Before::Untold,
            };
            found.rows.push((catalog::op_def(replica, def)?.tid, key.to_vec(), claim, was));
            Ok(())
        })?;
    }
    Ok(found)
}

/// Undoes the last resolution of a conflict, within the open transaction. What was written here must be sealed.
pub(crate) fn undo(replica: &Replica, id: &str) -> Result<UndoReport> {
    if id.len() < ID_LEAST {
        return Err(Error::Usage(format!(
            "`{id}` is too short for a conflict's id: give at least {ID_LEAST} digits of it"
        ))
        .into());
    }
    let found = find(replica, id)?.written(replica)?;
    let mut report = UndoReport {
        conflict: found.conflict.clone(),
        decided_by: devices::device_label(replica, found.dev)?,
        rows: Vec::new(),
    };
    write_group(replica, &mut |group| {
        for (tid, key, ..) in &found.rows {
            let table = catalog::table(replica, *tid)?;
            let heads = heads::heads(replica, *tid, key)?;
            let told = Told::of(replica, &table, key)?;
            let shown = if told.quarantined { &[][..] } else { &told.values };
            written_since(replica, &found, (&table, key), &heads, shown)?;
            groups::seal_before(replica, group, &before(replica, &found.conflict, (&table, key), shown)?)?;
            report.rows.push((table.def.name.clone(), told.begin(&table, key)?));
        }
        for ((tid, key, claim, was), (_, now)) in found.rows.iter().zip(&report.rows) {
            let table = catalog::table(replica, *tid)?;
            let heads = heads::heads(replica, *tid, key)?;
            let was = (Some(*claim), was);
            let shown = if now.was_quarantined { &[][..] } else { &now.before };
            let Some((values, change)) = said(replica, (&table, key), shown, was, heads)? else {
                continue;
            };
            ops::seal_said(replica, &table, group, &values, &change)?;
            deferred::defer(replica, *tid, key)?;
        }
        Ok(())
    })?;
    for ((tid, key, ..), (_, change)) in found.rows.iter().zip(&mut report.rows) {
        let table = catalog::table(replica, *tid)?;
        let told = Told::of(replica, &table, key)?;
        (change.after, change.is_quarantined) = (told.values, told.quarantined);
    }
    report.rows.retain(|(_, change)| change.is_change());
    Ok(report)
}

/// Writes one group of what `rows` writes into it; nothing, if it writes nothing. What was written here must be sealed.
pub(crate) fn write_group(
    replica: &Replica,
    rows: &mut dyn FnMut(&mut GroupWriter<'_>) -> Result<()>,
) -> Result<()> {
    let lamport = positions::next_lamport(replica)?;
    let mut buf = writer::frame_memory(replica);
    let flags = FrameFlags::RESOLUTION;
    let mut group = writer::begin_group(replica, Stream::Shared, flags, lamport, 0, &mut buf)?;
    rows(&mut group)?;
    let position = group.finish()?;
    positions::set_position(replica, replica.me, Stream::Shared, position)?;
    meta::set(&replica.db, "unanswered", false)?;
    catalog::reload_catalog(replica)?;
    constraints::resolve_constraints(replica)
}

/// Refuses to undo what somebody has written over since. Of a row whose versions are all compacted away it is compared
/// with what was decided.
fn written_since(
    replica: &Replica,
    found: &Found,
    (table, key): (&Table, &[u8]),
    heads: &[Head],
    told: &[(String, OwnedValue)],
) -> Result<()> {
    let of_it = |head: &&Head| head.dev == found.dev && (found.frames.0..=found.frames.1).contains(&head.seq);
    let by = match heads.iter().find(|head| !of_it(head)) {
        Some(head) => format!(", by {}", devices::device_label(replica, head.dev)?),
        None if !heads.is_empty() || is_as_decided(replica, found, (table, key), told)? => return Ok(()),
        None => String::new(),
    };
    Err(Error::Usage(format!(
        "the row of `{}` has been written to since{by}: an undo would take that away; `restore` brings single rows back",
        table.def.name,
    )).into())
}

/// Returns whether a row, now `told` so of its table, has all that its decision wrote.
fn is_as_decided(
    replica: &Replica,
    found: &Found,
    (table, key): (&Table, &[u8]),
    told: &[(String, OwnedValue)],
) -> Result<bool> {
    for seq in found.frames.0..=found.frames.1 {
        let Some(said) = rewind::said_in_frame(replica, (found.dev, seq), (table.tid, key))? else {
            continue;
        };
        return Ok(match was_values(replica, table, &said) {
            Ok(None) => told.is_empty(),
            Ok(Some(values)) => values.into_iter().all(|(at, value)| {
                let name = &table.def.columns[at].name;
                let now = told.iter().find(|(of, _)| of == name).map(|(_, now)| now);
                table.counters.contains(&at) || now == Some(&value.shortened())
            }),
            Err(_) => false,
        });
    }
    // It was decided that it stays as it was shown.
    Ok(true)
}

/// Returns what makes a row, now `told` so of its table, what it was: its values, and what the op says beside them; `None`
/// if it is not there, and was not.
pub(crate) fn said(
    replica: &Replica,
    (table, key): (&Table, &[u8]),
    told: &[(String, OwnedValue)],
    (claim, was): (Option<u64>, &Before),
    heads: Vec<Head>,
) -> Result<Option<(Vec<OwnedValue>, Change)>> {
    let now = match self::was(replica, table, key, told)? {
        // A resolution would not keep it; here it is at hand.
        Before::Untold => {
            compose::row_of(replica, table, key)?.map(|row| row.into_iter().enumerate().collect())
        }
        was => was_values(replica, table, &was)?,
    };
    let mut values = vec![OwnedValue::Null; table.def.columns.len()];
    for (at, value) in table.def.keys().zip(value::read_key(key)?) {
        values[at] = value;
    }
    let Some(before) = was_values(replica, table, was)? else {
        let Some(now) = now else { return Ok(None) };
        for (at, value) in now {
            values[at] = value;
        }
        return Ok(Some((values, Change { kind: OpKind::Delete, heads: Some(heads), ..Change::default() })));
    };
    let mut columns: Columns = before.iter().map(|(at, _)| *at).collect();
    let kind = if now.is_some() { OpKind::Update } else { OpKind::Insert };
    if kind == OpKind::Update {
        // What was added since stays: an undo is about what was decided.
        columns = columns.minus(&table.counters.iter().copied().collect());
    }
    for (at, value) in before {
        values[at] = value;
    }
    let whole = columns == Columns::all(table.def.columns.len());
    let claim = claim.filter(|_| table.unique);
    let columns = Some(columns).filter(|_| !whole);
    Ok(Some((values, Change { kind, claim, columns, heads: Some(heads), ..Change::default() })))
}

/// Decodes a row as it was: its values by column, also where that was renamed since; `None` if it was not there.
fn was_values(replica: &Replica, table: &Table, was: &Before) -> Result<Option<Vec<(usize, OwnedValue)>>> {
    match was {
        Before::Gone => Ok(None),
        Before::Values(body) => {
            let mut values = Vec::new();
            for (name, value) in versions::baseline_values(body)? {
                let at = renamed::column_now(replica, table.tid, &table.def, &name)?;
                values.extend(at.map(|at| (at, value)));
            }
            Ok(Some(rewind::last_values(values)))
        }
        Before::Untold => Err(Error::Usage(format!(
            "a row of `{}` was too large to be kept for an undo; `log --values` shows its versions, and `restore --from` \
             writes one anew",
            table.def.name
        ))
        .into()),
    }
}
