//! What the versions of a row make of it: which are in conflict, whether the row is there, and the
//! row itself, put together in limbo.
//!
//! Limbo is a table beside each shared table, without constraints: a row that is contested or kept
//! out is put together there, from what the table showed and from the versions in the log, and
//! stays there while it is parked.

use std::collections::BTreeSet;

use packmule_core::merge::{Version, decides, precedence, winner};
use packmule_core::model::{Stream, Value};
use packmule_core::wire::{ColumnMerge, Merge, OpKind, Shape};

use crate::engine::error::{Error, Result};
use crate::engine::log::frames;
use crate::engine::merge::heads::Head;
use crate::engine::store::value::{self, OwnedValue};
use crate::engine::table::columns::Columns;
use crate::engine::table::known::Table;
use crate::engine::table::replica::Replica;

/// A version's values as they are compared: by column here, in a form that is equal exactly for
/// equal content.
pub(crate) type Content = Vec<(usize, Vec<u8>)>;

/// What the versions of a row come to.
pub(crate) struct Judgement {
    /// Someone must decide.
    pub open: bool,
    /// The row is in the table, unless a constraint keeps it out.
    pub present: bool,
    /// The places of the versions in order of precedence, the winner first.
    pub order: Vec<usize>,
    /// Which columns are disputed.
    pub disputed: BTreeSet<usize>,
}

/// Judges the versions of a row.
pub(crate) fn judge_versions(replica: &Replica, table: &Table, heads: &[Head]) -> Result<Judgement> {
    let n = table.def.columns.len();
    let policy = table.def.policy;
    let versions: Vec<Version> = heads.iter().map(Head::version).collect();
    let mut order: Vec<usize> = (0..heads.len()).collect();
    if !replica.options.winner_is_by_arrival() {
        order.sort_by(|a, b| precedence(policy, &versions[*b], &versions[*a]));
    }
    let decisive: Vec<usize> = order.iter().copied().filter(|at| is_decisive(table, &heads[*at])).collect();
    let deletes = decisive.iter().any(|at| versions[*at].delete);
    let writes = decisive.iter().any(|at| !versions[*at].delete);
    let present = decisive.first().is_some_and(|at| !versions[*at].delete) || (!deletes && !heads.is_empty());
    let mut judgement = Judgement { open: false, present, order, disputed: BTreeSet::new() };
    if heads.len() < 2 || decides(policy, &versions) {
        return Ok(judgement);
    }
    let contents = decisive
        .iter()
        .filter(|at| !versions[**at].delete)
        .map(|at| Ok((heads[*at].live(n), content(replica, table, &heads[*at])?)))
        .collect::<Result<Vec<(Columns, Content)>>>()?;
    for column in (0..n).filter(|c| table.def.columns[*c].merge == ColumnMerge::Table) {
        let mut values = contents
            .iter()
            .filter(|(live, _)| live.contains(column))
            .filter_map(|(_, content)| content.iter().find(|(at, _)| *at == column).map(|(_, v)| v));
        if let Some(first) = values.next()
            && values.any(|other| other != first)
        {
            judgement.disputed.insert(column);
        }
    }
    judgement.open = (deletes && writes) || !judgement.disputed.is_empty();
    Ok(judgement)
}

/// A version's values, by column here. Of a delete, its image, if it has one.
pub(crate) fn content(replica: &Replica, table: &Table, head: &Head) -> Result<Content> {
    if head.dev == 0 {
        let values = values(replica, table, head)?;
        let encoded = values.iter().map(|(column, value)| Ok((*column, value::encode(&value.borrow())?)));
        return encoded.collect();
    }
    frames::op_at(replica, head.dev, Stream::Shared, head.seq, head.place, |def, op| {
        let mut content = Vec::new();
        for (at, value) in op.values(Shape { keys: &def.key_flags }) {
            let Some(column) = table.def.column(&def.def.columns[at].name) else { continue };
            let value = match value {
                // Where the pieces are does not count.
                Value::Big(big) => Value::Big(packmule_core::model::Big { number: 0, back: 0, ..big }),
                value => value,
            };
            content.push((column, value::encode(&value)?));
        }
        content.sort();
        Ok(content)
    })
}

/// A version's values with those in pieces put together, by column here.
pub(crate) fn values(replica: &Replica, table: &Table, head: &Head) -> Result<Vec<(usize, OwnedValue)>> {
    if head.dev == 0 {
        return read_baseline(table, head.image.as_deref().unwrap_or_default());
    }
    frames::op_at(replica, head.dev, Stream::Shared, head.seq, head.place, |def, op| {
        let mut values = Vec::new();
        for (at, value) in op.values(Shape { keys: &def.key_flags }) {
            let Some(column) = table.def.column(&def.def.columns[at].name) else { continue };
            let value = match value {
                Value::Big(big) => {
                    let mut whole = Vec::new();
                    frames::pieces(replica, (head.dev, Stream::Shared, head.seq), &big, |bytes| {
                        whole.extend_from_slice(bytes);
                        Ok(())
                    })?;
                    if big.text { OwnedValue::Text(whole) } else { OwnedValue::Blob(whole) }
                }
                value => OwnedValue::of(value)?,
            };
            values.push((column, value));
        }
        Ok(values)
    })
}

/// Whether a version counts for the row as a whole. What is left of an overwritten row speaks only for columns
/// that the later one did not know; another device may have folded it away.
fn is_decisive(table: &Table, head: &Head) -> bool {
    let Some(live) = head.columns.as_ref().filter(|_| table.def.merge == Merge::Row) else { return true };
    // A row that its author wrote in an older definition speaks for all of its columns, of which the key
    // is one; of an overwritten one only columns outside the key can be left.
    head.kind == OpKind::Delete || table.def.keys().all(|at| live.contains(at))
}

/// Whether a row is as one author wrote it, and nobody contests that.
pub(crate) fn is_of_one(table: &Table, heads: &[Head]) -> bool {
    table.def.merge == Merge::Row && heads.iter().filter(|head| is_decisive(table, head)).count() == 1
}

/// The version that is shown where the policy is the table's.
pub(crate) fn winning<'h>(table: &Table, heads: &'h [Head]) -> Option<&'h Head> {
    let decisive = heads.iter().filter(|head| is_decisive(table, head));
    let (heads, versions): (Vec<_>, Vec<_>) = decisive.map(|h| (h, h.version())).unzip();
    winner(table.def.policy, &versions).map(|at| heads[at])
}

/// Who wrote a row: the author of its winner, or by cell of the last write to it, which no device folds
/// away before those that it left a part of.
pub(crate) fn writer_of<'h>(replica: &Replica, table: &Table, heads: &'h [Head]) -> Result<Option<&'h Head>> {
    if table.def.merge == Merge::Row {
        return Ok(winning(table, heads));
    }
    let mut last: Option<(u64, &Head)> = None;
    for head in heads.iter().filter(|h| h.kind != OpKind::Delete) {
        let lamport: Option<u64> = value::maybe(
            &replica.db,
            "SELECT lamport FROM _pm_group WHERE dev = ?1 AND stream = 0 AND last >= ?2 ORDER BY last LIMIT 1",
            (head.dev, head.seq),
        )?;
        let lamport = lamport.unwrap_or(0);
        if last.is_none_or(|(other, of)| (lamport, head.author) > (other, of.author)) {
            last = Some((lamport, head));
        }
    }
    Ok(last.map(|(_, head)| head))
}

/// When a row claimed its unique values: when its shown version did, or by cell the last of those
/// that are shown; 0, before all others, if none is remembered.
pub(crate) fn claim_of(table: &Table, heads: &[Head]) -> u64 {
    let claim = match table.def.merge {
        Merge::Row => winning(table, heads).filter(|h| h.kind != OpKind::Delete).map(|h| h.claim),
        Merge::Cell => heads.iter().filter(|h| h.kind != OpKind::Delete).map(|h| h.claim).max(),
    };
    claim.unwrap_or(0)
}

/// The values of an image: names and values in turn.
pub(crate) fn read_baseline(table: &Table, mut body: &[u8]) -> Result<Vec<(usize, OwnedValue)>> {
    let bad = |e| Error::damaged(format!("`_pm_image`: {e}"));
    let mut values = Vec::new();
    while !body.is_empty() {
        let name: Value<'_> = packmule_core::wire::take(&mut body).map_err(bad)?;
        let value: Value<'_> = packmule_core::wire::take(&mut body).map_err(bad)?;
        if let Value::Text(name) = name
            && let Some(column) = table.def.column(&String::from_utf8_lossy(name))
        {
            values.push((column, OwnedValue::of(value)?));
        }
    }
    values.sort_by_key(|(column, _)| *column);
    Ok(values)
}
