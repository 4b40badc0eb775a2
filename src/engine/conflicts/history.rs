//! The history in the log: of everything, of a table, of one row.

use packmule_core::model::{DeviceId, Stream, WallMs};
use packmule_core::wire::{ColumnMerge, FrameFlags, Op};

use crate::engine::conflicts::before::{Befores, Place, Write};
use crate::engine::conflicts::list::VersionOp;
use crate::engine::error::{Error, Result};
use crate::engine::fleet::{devices, routes};
use crate::engine::log::frames;
use crate::engine::log::visit::{self, Part};
#[cfg(feature = "serde")]
use crate::engine::store::json;
use crate::engine::store::value::{self, OwnedValue};
use crate::engine::table::catalog;
use crate::engine::table::known::{OpDef, Table};
use crate::engine::table::replica::Replica;
use crate::engine::table::route::Route;

/// One op of a group.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct HistoryOp {
    /// The table.
    pub table: String,
    /// What was done to the row.
    pub op: VersionOp,
    /// The row's key, by column.
    #[cfg_attr(feature = "serde", serde(serialize_with = "json::row"))]
    pub key: Vec<(String, OwnedValue)>,
    /// What was written to the row besides its key, by column; of what is too large for a frame its length and hash.
    #[cfg_attr(feature = "serde", serde(serialize_with = "json::row"))]
    pub values: Vec<(String, OwnedValue)>,
    /// What the one who wrote it had there before, of what it has changed; of a row that it deletes all of it. Nothing, where
    /// that was not asked for, or is compacted away.
    #[cfg_attr(feature = "serde", serde(serialize_with = "json::row"))]
    pub before: Vec<(String, OwnedValue)>,
}

/// One group of frames.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct HistoryEntry {
    /// Who sealed it.
    #[cfg_attr(feature = "serde", serde(rename = "device"))]
    pub author: DeviceId,
    /// Its author's name and short id.
    pub label: String,
    /// The stream.
    pub stream: Stream,
    /// The frames.
    pub frames: (u64, u64),
    /// The stamp.
    #[cfg_attr(feature = "serde", serde(rename = "stamp"))]
    pub lamport: u64,
    /// When, by its author's clock.
    #[cfg_attr(feature = "serde", serde(rename = "at", serialize_with = "json::time"))]
    pub wall: WallMs,
    /// It is applied here, and not pending.
    pub applied: bool,
    /// It resolves conflicts.
    pub resolution: bool,
    /// How many ops it has, of those that were asked for.
    pub ops: u64,
    /// By which way it came here; `None` for what was written here, and where it is not known any more.
    pub route: Option<Route>,
    /// When it came here, by our clock.
    #[cfg_attr(feature = "serde", serde(serialize_with = "json::time_if_any"))]
    pub came: Option<WallMs>,
}

/// What a walk of the log comes by.
#[derive(Clone, Copy, Debug)]
pub enum HistoryItem<'a> {
    /// An op that was asked for; its group comes after its ops.
    Op(&'a HistoryOp),
    /// A group.
    Group(&'a HistoryEntry),
}

/// Walks the log in the order in which groups are applied: each group that has ops of the table
/// (any, if `None`) and key (any, if empty), after those ops; `with_before`: with what was there before each.
pub(crate) fn log(
    replica: &Replica,
    (table, key): (Option<&str>, &[OwnedValue]),
    with_before: bool,
    each: &mut dyn FnMut(HistoryItem<'_>) -> Result<()>,
) -> Result<()> {
    catalog::reading(replica, |e| walk_log(e, (table, key), with_before, each))
}

/// Encodes the key values that were asked for as the canonical key of a table; none, if there are none.
pub(crate) fn canonical_key(table: &Table, key: &[OwnedValue]) -> Result<Vec<u8>> {
    let mut canonical = Vec::new();
    if key.is_empty() {
        return Ok(canonical);
    }
    let columns: Vec<usize> = table.def.keys().collect();
    if columns.len() != key.len() {
        return Err(Error::Usage(format!(
            "the number of columns in the key of `{}` is {}, and that of the values given {}",
            table.def.name,
            columns.len(),
            key.len()
        ))
        .into());
    }
    for (value, at) in key.iter().zip(columns) {
        value::push_key(&mut canonical, value.borrow(), table.def.columns[at].collation)?;
    }
    Ok(canonical)
}

/// Does the work of [`log`], on a catalog that is up to date.
fn walk_log(
    replica: &Replica,
    (table, key): (Option<&str>, &[OwnedValue]),
    with_before: bool,
    each: &mut dyn FnMut(HistoryItem<'_>) -> Result<()>,
) -> Result<()> {
    let wanted = match table {
        None => None,
        Some(name) => match catalog::table_named(replica, name) {
            Some(table) => Some(table),
            None => return catalog::tracked_table(replica, name).map(|_| ()),
        },
    };
    let wanted_key = wanted.as_ref().map_or_else(|| Ok(Vec::new()), |table| canonical_key(table, key))?;
    let mut groups = replica.db.prepare(
        "SELECT g.dev, g.stream, g.first, g.last, g.lamport, g.wall, g.applied, d.id FROM _pm_group g
         JOIN _pm_device d ON d.n = g.dev ORDER BY g.lamport, d.id, g.stream, g.last",
    )?;
    let mut befores = if with_before { Some(Befores::new(replica)?) } else { None };
    let mut rows = groups.query([])?;
    while let Some(row) = rows.next()? {
        let dev: i64 = row.get(0)?;
        let stream = value::stream_of_number(row.get(1)?)?;
        let mut entry = HistoryEntry {
            author: DeviceId(row.get(7)?),
            label: devices::device_label(replica, dev)?,
            stream,
            frames: (row.get(2)?, row.get(3)?),
            lamport: row.get(4)?,
            wall: row.get(5)?,
            applied: row.get(6)?,
            resolution: false,
            ops: 0,
            route: None,
            came: None,
        };
        (entry.route, entry.came) = routes::of(replica, dev, stream, entry.frames.0)?.unzip();
        for seq in entry.frames.0..=entry.frames.1 {
            let body = frames::frame_here(replica, dev, stream, seq)?;
            let frame = frames::parse(&body)?;
            entry.resolution |= frame.head.flags.has(FrameFlags::RESOLUTION);
            if let Some(befores) = &mut befores {
                befores.hear(dev, stream, &frame)?;
            }
            // The definitions of a pending group may be missing.
            visit::visit_defined(replica, &frame, |part| {
                let Part::Op(def, op) = part else { return Ok(()) };
                if wanted.as_ref().is_some_and(|t| t.tid != def.tid) {
                    return Ok(());
                }
                let op_key = def.key_of(op.values(def.shape()))?;
                if !wanted_key.is_empty() && wanted_key != op_key {
                    return Ok(());
                }
                entry.ops += 1;
                let place = Place { dev, stream, seq, flags: frame.head.flags };
                each(HistoryItem::Op(&told(def, &op, &op_key, (befores.as_mut(), place))?))
            })?;
        }
        if entry.ops > 0 || wanted.is_none() {
            each(HistoryItem::Group(&entry))?;
        }
    }
    Ok(())
}

/// Tells an op, with what was there before if that is wanted.
fn told(
    def: &OpDef,
    op: &Op<'_>,
    op_key: &[u8],
    (befores, place): (Option<&mut Befores<'_>>, Place),
) -> Result<HistoryOp> {
    let column = |at: usize| &def.def.columns[at];
    let names = def.keys.iter().map(|(at, _)| column(*at).name.clone());
    let key = names.zip(value::read_key(op_key)?).collect();
    let (mut values, mut plain) = (Vec::new(), Vec::new());
    for (at, value) in op.values(def.shape()).filter(|(at, _)| column(*at).key == 0) {
        let value = (column(at).name.clone(), OwnedValue::told_of(value)?);
        // What is added to a counter is no value that takes the place of another one.
        if befores.is_some() && column(at).merge != ColumnMerge::Counter {
            plain.push(value.clone());
        }
        values.push(value);
    }
    let kind = op.head.kind;
    let before = match befores {
        Some(befores) => befores.of(&Write { place, row: (def.tid, op_key), kind, values: &plain })?,
        None => Vec::new(),
    };
    Ok(HistoryOp { table: def.def.name.clone(), op: kind.into(), key, values, before })
}
