//! Which ops an honest seal can have made: all others are refused, and their group with them.
//!
//! **Why.** What no seal makes was never thought through: whether a device takes it so or so can then depend on the order
//! in which frames come, and two devices differ for good. Here a frame is looked at by itself, with the definitions that
//! it names: so all devices refuse the same ones.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use packmule_core::model::{Stream, Value};
use packmule_core::wire::{ColumnMerge, DefId, FrameFlags, FrameHead, Mode, Op, OpKind, Span};
use rusqlite::{Connection, params_from_iter};

use crate::engine::error::{Error, Result};
use crate::engine::store::value::{self, Bind, OwnedValue};
use crate::engine::table::known::{Carried, OpDef};

/// What the ops of one frame must keep to.
pub(crate) struct Rules {
    flags: FrameFlags,
    /// Nothing else finds a row that comes twice.
    thorough: bool,
    /// The rows that the frame has had: of each the hash of its table and key, since a frame has room for many.
    rows: HashSet<[u64; 2]>,
}

impl Rules {
    /// Returns the rules for a frame, whose flags must go together.
    pub(crate) fn of(head: &FrameHead, stream: Stream) -> Result<Self> {
        let flags = head.flags;
        let kinds = [
            FrameFlags::CONTEXT_FREE,
            FrameFlags::RESOLUTION,
            FrameFlags::VERDICT,
            FrameFlags::RESTATED,
            FrameFlags::REISSUES,
        ];
        if kinds.iter().filter(|kind| flags.has(**kind)).count() > 1 {
            return Err(Error::damaged("a frame of two kinds at once"));
        }
        let of_other: &[FrameFlags] = match stream {
            Stream::Shared => &[FrameFlags::REISSUES],
            Stream::PerDevice => &[FrameFlags::RESOLUTION, FrameFlags::VERDICT],
        };
        if of_other.iter().any(|kind| flags.has(*kind)) {
            return Err(Error::damaged("a frame of a kind that its stream cannot have"));
        }
        let thorough = flags.has(FrameFlags::VERDICT) || flags.has(FrameFlags::RESTATED);
        Ok(Self { flags, thorough, rows: HashSet::new() })
    }

    /// Returns the rules for a frame that is not applied, so that its rows meet no versions.
    pub(crate) fn thorough(self) -> Self {
        Self { thorough: true, ..self }
    }

    /// Refuses what no seal makes. `values` are those of the op.
    pub(crate) fn check(
        &mut self,
        stream: Stream,
        def: &OpDef,
        op: &Op<'_>,
        values: &[Carried<'_>],
    ) -> Result<()> {
        let of_shared = def.def.mode == Mode::Shared;
        if of_shared != (stream == Stream::Shared) {
            return Err(Error::damaged("rows of a table in a stream that it does not go by"));
        }
        if !of_shared {
            return Ok(()); // A row has one author, and whoever gathers it stores what a small device wrote as SQLite does.
        }
        let (verdict, restates) = (self.flags.has(FrameFlags::VERDICT), self.flags.has(FrameFlags::RESTATED));
        if op.head.kind == OpKind::Keep && !verdict && !restates {
            return Err(Error::damaged("a row without values in a frame that says nothing of others"));
        }
        if op.head.kind == OpKind::Update && verdict {
            return Err(Error::damaged("a change of a row in a verdict, which says what a row is"));
        }
        if op.head.image && !def.def.needs_baseline() {
            return Err(Error::damaged("last values of a row where nothing can ask for them"));
        }
        for (at, value) in values {
            // An absolute value is no number here: see `merge::counters`.
            let adds = matches!(value, Value::Int(_) | Value::Real(_));
            if restates
                && op.head.kind == OpKind::Update
                && adds
                && def.def.columns[*at].merge == ColumnMerge::Counter
            {
                return Err(Error::damaged("an addition by who restates a table"));
            }
            check_value(def, *at, op.head.kind, value)?;
        }
        // Of a table that is tracked again, columns that are not back yet are not said.
        let may_be_part = verdict || self.flags.has(FrameFlags::CONTEXT_FREE);
        if op.head.kind == OpKind::Insert && !may_be_part && values.len() < def.def.columns.len() {
            return Err(Error::damaged("a new row without all its values"));
        }
        if self.thorough {
            let key = def.key_of(values.iter().copied())?;
            let row = [0_u8, 1].map(|part| {
                let mut hasher = DefaultHasher::new();
                (part, def.tid, &key).hash(&mut hasher);
                hasher.finish()
            });
            if !self.rows.insert(row) {
                return Err(Error::damaged("a row twice in one frame"));
            }
        }
        Ok(())
    }
}

/// Where the last span of a group ended: an honest seal says those of one table, one after the other.
///
/// Whoever applies them walks over each span's rows. So a group that said its whole table a thousand times would cost as
/// many walks over it.
#[derive(Default)]
pub(crate) struct SpanOrder {
    /// The definition, and the last key; none: to the end of the table.
    last: Option<(DefId, Vec<OwnedValue>)>,
}

impl SpanOrder {
    /// Refuses a span that no seal writes behind those before it.
    pub(crate) fn check(&mut self, db: &Connection, def: &OpDef, span: &Span<'_>) -> Result<()> {
        let (from, to) = (value::read_key(span.from)?, value::read_key(span.to)?);
        if [&from, &to].iter().any(|key| !key.is_empty() && key.len() != def.keys.len()) {
            return Err(Error::damaged("a span between keys that its table does not have"));
        }
        let begins = match &self.last {
            None => true,
            Some((id, _)) if *id != def.id => false,
            Some((_, end)) => !end.is_empty() && !from.is_empty() && is_in_order(db, def, end, &from)?,
        };
        let ends = from.is_empty() || to.is_empty() || is_in_order(db, def, &from, &to)?;
        if !begins || !ends {
            return Err(Error::damaged("spans that are not in the order of one table"));
        }
        self.last = Some((def.id, to));
        Ok(())
    }
}

/// Returns whether a key is another one, or before it, in the order of their table.
fn is_in_order(db: &Connection, def: &OpDef, key: &[OwnedValue], other: &[OwnedValue]) -> Result<bool> {
    let marks = |from: usize| {
        let columns = def.keys.iter().map(|(at, _)| def.def.columns[*at].collate());
        let marks: Vec<String> = columns.zip(from..).map(|(collate, n)| format!("?{n}{collate}")).collect();
        marks.join(", ")
    };
    let sql = format!("SELECT ({}) <= ({})", marks(1), marks(1 + def.keys.len()));
    let binds = params_from_iter(key.iter().chain(other).map(|value| Bind(value.borrow())));
    Ok(db.prepare_cached(&sql)?.query_row(binds, |row| row.get(0))?)
}

/// Refuses a value that the author's column cannot have.
fn check_value(def: &OpDef, at: usize, kind: OpKind, value: &Value<'_>) -> Result<()> {
    let (column, affinity) = (&def.def.columns[at], def.affinities[at]);
    let is_key = column.key > 0;
    let fits = if column.merge == ColumnMerge::Counter && kind == OpKind::Update && !is_key {
        match value {
            Value::Real(bits) => !f64::from_bits(bits.0).is_nan(),
            Value::Blob(bytes) => matches!(
                value::read_key(bytes).as_deref(),
                Ok([inner @ (OwnedValue::Int(_) | OwnedValue::Real(_) | OwnedValue::Blob(_))])
                    if affinity.stores(&inner.borrow())
            ),
            Value::Int(_) | Value::Null | Value::Big(_) => true,
            Value::Text(_) => affinity.stores(value),
        }
    } else {
        // A key of which no row is left is said in canonical form, which has whole REALs as INTEGERs.
        affinity.stores(value)
            || is_key && matches!(value, Value::Int(n) if affinity.stores(&Value::real(*n as f64)))
    };
    // A key that an alias of the rowid cannot hold is one that another table can, and no reason to refuse anything: until
    // version 5 a definition did not tell the two apart. Where it does not fit, its row is quarantined.
    if !fits || (is_key && matches!(value, Value::Null | Value::Big(_))) {
        return Err(Error::damaged(format!("a value that its column `{}` cannot have", column.name)));
    }
    Ok(())
}
