//! What the heads of a row make of it: whether it is in conflict, whether it is there, and who wins.
//!
//! `compose` makes the row itself in the quarantine table: a table beside each shared one, without constraints. A
//! row that is contested, or that a constraint keeps out, is composed there from what its table showed and from the
//! versions in the log, and stays there while it is quarantined.
//!
//! **Invariant.** All of this is a pure function of the table's definition, of the heads (author, seq, wall time,
//! kind, columns, values), and of the row as it was before any of them.
//!
//! **Why it holds.** `precedence` is a total order: its last terms are the author and the sequence number, which no
//! two heads share. Nothing of it depends on when a version came. Values are compared by their encoded content
//! (reals by their bits, large values by length and hash), never by where they stand in the log. A column is
//! disputed if two heads that speak for it differ. A row is open if the policy does not decide and a column is
//! disputed, or a delete meets a write. Counters are disputed only where two verdicts say settled sums that differ.
//!
//! **Compaction must not show.** A head of an overwritten row that speaks only for columns which the later version
//! did not know may be forgotten on one device and be here on another. So it is not *decisive*: it fills its own
//! columns, and counts neither for the winner, nor for a claim, nor for whether the row is there.

use std::collections::BTreeSet;

use packmule_core::merge::{Version, decides, precedence, winner};
use packmule_core::model::{Big, Stream, Value};
use packmule_core::wire::{ColumnMerge, Merge, OpKind};
use sha2::{Digest, Sha256};

use crate::engine::error::{Error, Result};
use crate::engine::fleet::devices::BASELINE;
use crate::engine::log::frames;
use crate::engine::merge::heads::Head;
use crate::engine::store::value::{self, LARGE, OwnedValue};
use crate::engine::table::columns::Columns;
use crate::engine::table::known::Table;
use crate::engine::table::replica::Replica;

/// A version's values as they are compared: by column here, in a form that is equal exactly for
/// equal content.
pub(crate) type Content = Vec<(usize, Vec<u8>)>;

/// What the heads of a row come to.
pub(crate) struct Judgement {
    /// Nobody and no policy has decided yet.
    pub open: bool,
    /// Whether the row is there: in its table, or quarantined by a constraint.
    pub present: bool,
    /// The indexes of the versions in order of precedence, the winner first.
    pub order: Vec<usize>,
    /// The columns for which versions have different values.
    pub disputed: BTreeSet<usize>,
}

/// Judges the heads of a row.
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
    let present = decisive.first().is_some_and(|at| !versions[*at].delete) || (!deletes && !heads.is_empty());
    // What is restated is in conflict with nothing.
    let decisive: Vec<usize> = decisive.into_iter().filter(|at| !heads[*at].weak).collect();
    let deletes = decisive.iter().any(|at| versions[*at].delete);
    let writes = decisive.iter().any(|at| !versions[*at].delete);
    let mut judgement = Judgement { open: false, present, order, disputed: BTreeSet::new() };
    if heads.len() < 2 || decides(policy, &versions) {
        return Ok(judgement);
    }
    let contents = decisive
        .iter()
        .filter(|at| !versions[**at].delete)
        .map(|at| Ok((&heads[*at], content(replica, table, &heads[*at])?)))
        .collect::<Result<Vec<(&Head, Content)>>>()?;
    for column in 0..n {
        let mut values = contents
            .iter()
            .filter(|(head, _)| disputes(table, head, column))
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

/// Returns whether a version can be in conflict with others in a column: it speaks for it, and the column has no rule of its
/// own. Of a counter a settled sum that a verdict says can.
pub(crate) fn disputes(table: &Table, head: &Head, column: usize) -> bool {
    let by_rule = match table.def.columns[column].merge {
        ColumnMerge::Table => true,
        ColumnMerge::Counter => head.settles(),
        _ => false,
    };
    by_rule && head.live(table.def.columns.len()).contains(column)
}

/// Reads a version's values in the form that is compared, by column here; of a delete, the row's last values if it
/// carries them.
pub(crate) fn content(replica: &Replica, table: &Table, head: &Head) -> Result<Content> {
    let mut content = Vec::new();
    for (column, value) in held(replica, table, head)? {
        let value = match value {
            // Other devices may have it at hand, in larger frames.
            Held::Pieces(big) if big.len <= LARGE as u64 => {
                Held::Here(put_together(replica, (head.dev, head.seq), &big)?)
            }
            // Where the pieces stand in the log does not count.
            value => value,
        };
        content.push((column, value::encode_compared(value.borrow())?));
    }
    content.sort();
    Ok(content)
}

/// Returns whether a value of an op and one of a row are the same.
pub(crate) fn is_equal(said: &Value<'_>, here: &OwnedValue) -> bool {
    let Value::Big(big) = said else { return *said == here.borrow() };
    let (text, bytes) = match here {
        OwnedValue::Text(bytes) => (true, bytes),
        OwnedValue::Blob(bytes) => (false, bytes),
        _ => return false,
    };
    text == big.text && bytes.len() as u64 == big.len && <[u8; 32]>::from(Sha256::digest(bytes)) == big.sha256
}

/// A value of a version.
#[derive(Clone)]
pub(crate) enum Held {
    /// At hand.
    Here(OwnedValue),
    /// In pieces in the log.
    Pieces(Big),
}

impl Held {
    /// Returns it as a value of the wire.
    pub(crate) fn borrow(&self) -> Value<'_> {
        match self {
            Self::Here(value) => value.borrow(),
            Self::Pieces(big) => Value::Big(*big),
        }
    }

    /// Returns it as it is listed: a long one by length and hash.
    pub(crate) fn told(self, replica: &Replica, head: &Head) -> Result<OwnedValue> {
        match self {
            Self::Pieces(big) if big.len > LARGE as u64 => OwnedValue::told_of(Value::Big(big)),
            value => Ok(value.whole(replica, head)?.shortened()),
        }
    }

    /// Returns it whole.
    pub(crate) fn whole(self, replica: &Replica, head: &Head) -> Result<OwnedValue> {
        match self {
            Self::Here(value) => Ok(value),
            Self::Pieces(big) => put_together(replica, (head.dev, head.seq), &big),
        }
    }
}

/// Puts a value that a frame refers to together from its pieces.
pub(crate) fn put_together(replica: &Replica, (dev, seq): (i64, u64), big: &Big) -> Result<OwnedValue> {
    let mut whole = Vec::new();
    frames::pieces(replica, (dev, Stream::Shared, seq), big, |bytes| {
        whole.extend_from_slice(bytes);
        Ok(())
    })?;
    Ok(if big.text { OwnedValue::Text(whole) } else { OwnedValue::Blob(whole) })
}

/// Reads a version's values by column here; those in pieces stay where they are.
pub(crate) fn held(replica: &Replica, table: &Table, head: &Head) -> Result<Vec<(usize, Held)>> {
    if head.dev == BASELINE {
        let values = read_baseline(replica, table, head.baseline.as_deref().unwrap_or_default())?;
        return Ok(values.into_iter().map(|(column, value)| (column, Held::Here(value))).collect());
    }
    frames::op_at(replica, head.dev, Stream::Shared, head.seq, head.place, |def, op| {
        let mut values = Vec::new();
        for (at, value) in op.values(def.shape()) {
            let Some(column) = table.def.column(&def.def.columns[at].name) else { continue };
            // The type may have been changed since.
            let now = || Some(table.def.columns[column].affinity()).filter(|now| *now != def.affinities[at]);
            let retyped = if def.id == table.def_id { None } else { now() };
            let value = match (value, retyped) {
                (Value::Big(big), _) => Held::Pieces(big),
                (value, Some(affinity)) => {
                    Held::Here(value::converted(&replica.db, &OwnedValue::of(value)?, affinity)?)
                }
                (value, None) => Held::Here(OwnedValue::of(value)?),
            };
            values.push((column, value));
        }
        Ok(values)
    })
}

/// Reads a version's values by column here, and puts those in pieces together.
pub(crate) fn values(replica: &Replica, table: &Table, head: &Head) -> Result<Vec<(usize, OwnedValue)>> {
    let held = held(replica, table, head)?.into_iter();
    held.map(|(column, value)| Ok((column, value.whole(replica, head)?))).collect()
}

/// Reads a version's values by column here, as they are listed: long ones by length and hash.
pub(crate) fn told(replica: &Replica, table: &Table, head: &Head) -> Result<Vec<(usize, OwnedValue)>> {
    let told = held(replica, table, head)?.into_iter().map(|(column, value)| {
        let told = match value {
            Held::Pieces(Big { text, len, sha256, .. }) if len > LARGE as u64 => {
                OwnedValue::Large { text, bytes: len, sha256 }
            }
            value => value.whole(replica, head)?.shortened(),
        };
        Ok((column, told))
    });
    told.collect()
}

/// Returns whether a version counts for the row as a whole. What is left of an overwritten row speaks only for
/// columns that the later version did not know; another device may have compacted it.
fn is_decisive(table: &Table, head: &Head) -> bool {
    if head.kind != OpKind::Delete && head.columns.as_ref().is_some_and(Columns::is_empty) {
        return false; // It speaks only for a column that waits: see `unread.rs`.
    }
    let Some(live) = head.columns.as_ref().filter(|_| table.def.merge == Merge::Row) else { return true };
    // A row that its author wrote in an older definition speaks for all columns of that, and so for the key.
    // Of an overwritten row only columns outside the key can be left.
    head.kind == OpKind::Delete || table.def.keys().all(|at| live.contains(at))
}

/// Returns the version that the table's policy shows.
pub(crate) fn winning<'h>(table: &Table, heads: &'h [Head]) -> Option<&'h Head> {
    let decisive = heads.iter().filter(|head| is_decisive(table, head));
    let (heads, versions): (Vec<_>, Vec<_>) = decisive.map(|h| (h, h.version())).unzip();
    winner(table.def.policy, &versions).map(|at| heads[at])
}

/// Returns the version whose author wrote a row: its winner, or where the table merges by cell the last write to
/// it, which no device compacts before those that it left a part of.
pub(crate) fn writer_of<'h>(replica: &Replica, table: &Table, heads: &'h [Head]) -> Result<Option<&'h Head>> {
    if table.def.merge == Merge::Row {
        return Ok(winning(table, heads));
    }
    let mut last: Option<(u64, &Head)> = None;
    for head in heads.iter().filter(|h| h.kind != OpKind::Delete) {
        let lamport = lamport_of(replica, head)?;
        if last.is_none_or(|(other, of)| (lamport, head.author) > (other, of.author)) {
            last = Some((lamport, head));
        }
    }
    Ok(last.map(|(_, head)| head))
}

/// Returns the Lamport time of a version.
pub(crate) fn lamport_of(replica: &Replica, head: &Head) -> Result<u64> {
    let lamport: Option<u64> = value::maybe(
        &replica.db,
        "SELECT lamport FROM _pm_group WHERE dev = ?1 AND stream = ?3 AND last >= ?2 ORDER BY last LIMIT 1",
        (head.dev, head.seq, Stream::Shared.number()),
    )?;
    Ok(lamport.unwrap_or(0))
}

/// Returns when a row claimed its unique values: when its shown version did or, where the table merges by cell,
/// when the last of its shown versions did. It is 0, before all others, if none is remembered.
pub(crate) fn claim_of(table: &Table, heads: &[Head]) -> u64 {
    let claim = match table.def.merge {
        Merge::Row => winning(table, heads).filter(|h| h.kind != OpKind::Delete).map(|h| h.claim),
        Merge::Cell => heads.iter().filter(|h| h.kind != OpKind::Delete).map(|h| h.claim).max(),
    };
    claim.unwrap_or(0)
}

/// Writes the values of a row that a baseline version of these columns has, and its key: names and values in turn.
/// Disputed columns are not among them.
pub(crate) fn write_baseline(table: &Table, row: &[OwnedValue], columns: &Columns) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    for (at, (column, value)) in table.def.columns.iter().zip(row).enumerate() {
        if (columns.contains(at) || column.key > 0) && !table.disputed.contains(at) {
            value::push_named(&mut body, &column.name, &value.borrow())?;
        }
    }
    Ok(body)
}

/// Reads the names of columns and the values of a baseline version.
pub(crate) fn baseline_values(body: &[u8]) -> Result<Vec<(String, OwnedValue)>> {
    named_values(body, OwnedValue::of)
}

/// Reads names of columns and values; `of` says what may be a value.
pub(crate) fn named_values(
    mut body: &[u8],
    of: fn(Value<'_>) -> Result<OwnedValue>,
) -> Result<Vec<(String, OwnedValue)>> {
    let bad = |e| Error::damaged(format!("`_pm_image`: {e}"));
    let mut values = Vec::new();
    while !body.is_empty() {
        let name: Value<'_> = packmule_core::wire::take(&mut body).map_err(bad)?;
        let value: Value<'_> = packmule_core::wire::take(&mut body).map_err(bad)?;
        let Value::Text(name) = name else {
            return Err(Error::damaged("`_pm_image`: a value without the name of its column"));
        };
        values.push((String::from_utf8_lossy(name).into_owned(), of(value)?));
    }
    Ok(values)
}

/// Reads the values of a baseline version by column here, as its type is now: it may have been changed since.
pub(crate) fn read_baseline(
    replica: &Replica,
    table: &Table,
    body: &[u8],
) -> Result<Vec<(usize, OwnedValue)>> {
    let mut values = Vec::new();
    for (name, value) in baseline_values(body)? {
        if let Some(at) = table.def.column(&name) {
            values.push((at, value::converted(&replica.db, &value, table.def.columns[at].affinity())?));
        }
    }
    values.sort_by_key(|(column, _)| *column);
    Ok(values)
}
