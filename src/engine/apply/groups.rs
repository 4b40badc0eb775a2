//! Applying a group: each of its ops is compared with the heads of its row.
//!
//! **Invariant.** The heads of a row are exactly its maximal versions: those of the applied groups that no other
//! applied version dominates. A head speaks for the columns that it wrote, without those that a version which
//! dominates it wrote too. One that speaks for no column is no head any more. (Compaction forgets heads of rows
//! that are settled everywhere; `upkeep/compact.rs` says which.)
//!
//! **Why it holds.** Groups are applied in causal order, so a new op is never dominated by one that is here.
//! Domination is decided by the author's context alone: a version dominates its own author's earlier ones, and
//! those that its context covers. Contexts are transitively closed, since an author has applied all that it had
//! seen before it says so. So a new version that dominates a head dominates all that the head had dominated, and
//! it is enough to compare it with the heads. Columns are only ever taken away, each by a version that dominates,
//! and sets subtract in any order. So heads and their columns are a function of the set of applied groups, not of
//! the order in which they came.
//!
//! A context-free op (flag CONTEXT_FREE) dominates only its own author's versions: see `merge/context_free.rs`.
//!
//! An op is written to its table at once only where nothing else speaks for what it writes: no other head, or
//! only heads of other columns, and the row is not quarantined. Every other row goes to the deferred queue, and
//! the constraint resolution pass at the end of the group makes it from its heads. Both ways give the same row;
//! the first is only faster.

use std::collections::HashMap;

use packmule_core::model::{DeviceId, Stream, Value};
use packmule_core::wire::{DefId, Frame, FrameFlags, Op, OpKind};

use crate::engine::apply::admissible::Rules;
use crate::engine::apply::aside::Pieces;
use crate::engine::apply::restated::{self, Restating, Spans};
use crate::engine::apply::vouched;
use crate::engine::capture::{gathering, heard, runs};
use crate::engine::error::{Error, Result};
use crate::engine::fleet::devices::{self, BASELINE};
use crate::engine::fleet::{membership, positions};
use crate::engine::log::visit::{self, Part};
use crate::engine::log::{contexts, frames, gave_up};
use crate::engine::merge::folds::{self, Fold};
use crate::engine::merge::heads::{self, Head, Kept, Seen, Stamp, Vector};
use crate::engine::merge::{compose, context_free, counters, deferred, given_up, late, late_held, register};
use crate::engine::show::write::{self, Counts, Origin, Writer};
use crate::engine::show::{constraints, count, references, unsaid};
use crate::engine::store::meta;
use crate::engine::table::catalog;
use crate::engine::table::columns::Columns;
use crate::engine::table::known::{Carried, OpDef, State, Table};
use crate::engine::table::opened::OpPlace;
use crate::engine::table::replica::Replica;
use crate::engine::table::trial;

/// Applies a group that is in the log and is ready.
pub(crate) fn apply_group(
    replica: &Replica,
    dev: i64,
    stream: Stream,
    first: u64,
    last: u64,
) -> Result<Counts> {
    let author = devices::device_id(replica, dev)?;
    let mut group = Heard::after(positions::context_of(replica, dev, stream)?);
    let (mut counts, mut writers) = (Counts::default(), Writers::default());
    let (mut spans, mut pieces) = (Spans::default(), Pieces::default());
    for seq in first..=last {
        let body = frames::frame_here(replica, dev, stream, seq)?;
        let frame = frames::parse(&body)?;
        group.hear(replica, (dev, stream), &frame)?;
        let Heard { lamport, wall, .. } = group;
        let restates = frame.head.flags.has(FrameFlags::RESTATED);
        let mut rules = Rules::of(&frame.head, stream)?;
        let (mut keep, mut late) = (Vec::new(), group.late);
        visit::visit(replica, &frame, |part| {
            match part {
                Part::Definition(body) => {
                    let decides = frame.head.flags.has(FrameFlags::RESOLUTION);
                    let stamp = Stamp { dev, seq, lamport, seen: &Seen::Context(&group.context), decides };
                    heard::hear_def(replica, stream, body, &stamp)?;
                    writers = Writers::default();
                }
                Part::Keep(runs) => {
                    keep = heads::kept_here(replica, runs)?;
                    late = group.see_kept(replica, dev, &keep)?;
                }
                Part::Schema(schema) => {
                    heard::hear_schema(replica, &schema, (dev, seq, lamport))?;
                    writers = Writers::default();
                }
                Part::Span(span) => spans.take_down(replica, &span)?,
                Part::Decision(_) => {} // An undo reads it; it decides about nothing.
                Part::Piece(piece) => pieces.note_piece(seq, &piece)?,
                Part::Return(_) | Part::Retire(_) => hear_standing(replica, &frame, &part, dev)?,
                Part::Op(def, ref op) => {
                    let values = &def.values_of(op)[..];
                    rules.check(stream, def, op, values)?;
                    pieces.claim(seq, values)?;
                    let writer = writers.of(def, || writer(replica, stream, def, dev))?;
                    let origin = &Origin { dev, author, stream, seq, lamport, wall };
                    let sight = &Sight { seen: &group.seen(&frame, &keep), late, restates };
                    if restates {
                        spans.note(replica, writer.table.tid, &def.key_of(values.iter().copied())?)?;
                    }
                    apply_op(replica, &Incoming { writer, def, op, values, origin, sight }, &mut counts)?;
                }
            }
            Ok(())
        })?;
    }
    let by = Restating { dev, last, seen: &Seen::Context(&group.context), late: group.late };
    counts.ops += remove_left_out(replica, stream, &spans, &by)?;
    if counts.ops > 0 && stream == Stream::Shared {
        meta::set(&replica.db, "unanswered", true)?;
    }
    constraints::resolve_constraints(replica)?;
    if dev == replica.me {
        catalog::reload_catalog(replica)?; // Up to where append tables are sealed.
    }
    Ok(counts)
}

/// What the first frame of a group says, for those after it.
#[derive(Default)]
pub(super) struct Heard {
    /// What its author had seen.
    context: Vector,
    pub lamport: u64,
    pub wall: i64,
    /// The first fold here that its author had not seen, if there is one.
    pub late: Option<Fold>,
    /// Of a context-free group: what counts as seen by its author.
    own: Option<Vector>,
}

impl Heard {
    /// Begins where the author had seen this.
    pub(super) fn after(context: impl IntoIterator<Item = (i64, u64)>) -> Self {
        Self { context: context.into_iter().collect(), ..Self::default() }
    }

    /// Takes in what a frame says of its group, if it is the first.
    pub(super) fn hear(
        &mut self,
        replica: &Replica,
        (dev, stream): (i64, Stream),
        frame: &Frame<'_>,
    ) -> Result<()> {
        let Some(group) = frame.group else { return Ok(()) };
        (self.lamport, self.wall) = (group.lamport, group.wall);
        for (id, seen) in contexts::context(replica, dev, stream, frame)? {
            if seen == 0 {
                continue; // It says nothing, but may introduce a number; nothing is kept of devices that nobody has.
            }
            let other = devices::device_number_or_new(replica, id)?;
            self.context.insert(other, seen);
            let here = positions::position(replica, other, Stream::Shared)?.seq;
            if here < seen
                && other != dev
                && gave_up::is_given_up(replica, (dev, frame.head.seq), other, seen)?
            {
                given_up::claim(replica, other, here + 1, seen)?;
            }
            positions::set_context(replica, dev, stream, other, seen)?;
        }
        gave_up::apply(replica, dev, frame)?;
        if contexts::keep_numbers(replica, dev, stream, frame)? {
            vouched::count_pending(replica, dev, stream)?; // They may name devices by these numbers.
        }
        (self.late, self.own) = if frame.head.flags.has(FrameFlags::CONTEXT_FREE) && stream == Stream::Shared
        {
            let (seen, late) = context_free::seen_by(replica, dev, None)?;
            (late, Some(seen))
        } else if stream == Stream::Shared {
            (late::first_unseen(replica, dev, &self.context)?, None)
        } else {
            (None, None)
        };
        see_settled(&mut self.context, self.late);
        Ok(())
    }

    /// Hears which frames a verdict leaves; or, of a context-free group, which of its context its author had not seen. Returns
    /// the first fold here that a verdict may leave something of, or that the author had not seen: what is settled is not
    /// removed by it then.
    pub(super) fn see_kept(&mut self, replica: &Replica, dev: i64, keep: &[Kept]) -> Result<Option<Fold>> {
        let unseen = match &mut self.own {
            Some(own) => {
                let (seen, fold) = context_free::seen_by(replica, dev, Some((&self.context, keep)))?;
                *own = seen;
                fold
            }
            None => self.late.into_iter().chain(late::first_kept(replica, keep)?).min(),
        };
        see_settled(&mut self.context, unseen);
        Ok(unseen)
    }

    /// Returns what the author of a frame had seen, by the kind of the frame.
    pub(super) fn seen<'c>(&'c self, frame: &Frame<'_>, keep: &'c [Kept]) -> Seen<'c> {
        if let Some(own) = &self.own {
            Seen::Context(own)
        } else if frame.head.flags.has(FrameFlags::VERDICT) {
            Seen::Verdict(&self.context, keep)
        } else {
            Seen::Context(&self.context)
        }
    }
}

/// Has all that is settled here count as seen, whoever wrote it, where nothing of it is unseen.
pub(crate) fn see_settled(context: &mut HashMap<i64, u64>, unseen: Option<Fold>) {
    match unseen {
        None => context.insert(BASELINE, u64::MAX),
        Some(_) => context.remove(&BASELINE),
    };
}

/// Removes the rows that a restating group has no op of. Returns how many.
fn remove_left_out(replica: &Replica, stream: Stream, spans: &Spans, by: &Restating<'_>) -> Result<u64> {
    let mut removed = 0;
    while let Some((def, from, to)) = spans.take(replica)? {
        let def = catalog::op_def(replica, def)?;
        let writer = writer(replica, stream, &def, by.dev)?;
        let table = &writer.table;
        if writer.same_key && (table.shows_shared() || table.state == State::Gathered) {
            removed += restated::remove_left_out(replica, &writer, (&from, &to), by, &|_, _| Ok(false))?;
        }
    }
    Ok(removed)
}

/// Hears what a frame of a device says of who is retired, or back.
pub(crate) fn hear_standing(
    replica: &Replica,
    frame: &Frame<'_>,
    part: &Part<'_, '_>,
    dev: i64,
) -> Result<()> {
    match part {
        Part::Return(device) => membership::hear_returned(replica, *device, dev),
        Part::Retire(device) => {
            let goes_on = frame.head.flags.has(FrameFlags::CONTEXT_FREE);
            membership::hear_retired(replica, *device, (dev, frame.head.seq), goes_on)
        }
        _ => Ok(()),
    }
}

/// What the author of an op had seen.
pub(super) struct Sight<'a> {
    pub seen: &'a Seen<'a>,
    /// The first fold here that it had not seen, if any: what that settled, and later ones, it may not have seen.
    pub late: Option<Fold>,
    /// The op is a restated row.
    pub restates: bool,
}

/// The writers of the definitions that a group's ops have. Ops of one definition stand together: the last one is found
/// without a look into the places.
#[derive(Default)]
pub(super) struct Writers<'e> {
    all: Vec<Writer<'e>>,
    places: HashMap<DefId, usize>,
    last: Option<(DefId, usize)>,
}

impl<'e> Writers<'e> {
    /// Returns the writer of a definition; prepares it if it is the first of its kind.
    pub(super) fn of(
        &mut self,
        def: &OpDef,
        prepare: impl FnOnce() -> Result<Writer<'e>>,
    ) -> Result<&Writer<'e>> {
        let at = match self.last {
            Some((last, at)) if last == def.id => at,
            _ => match self.places.get(&def.id) {
                Some(at) => *at,
                None => {
                    self.all.push(prepare()?);
                    self.places.insert(def.id, self.all.len() - 1);
                    self.all.len() - 1
                }
            },
        };
        self.last = Some((def.id, at));
        Ok(&self.all[at])
    }
}

/// Prepares to write a device's ops of one definition into its table here.
pub(crate) fn writer<'e>(replica: &'e Replica, stream: Stream, def: &OpDef, dev: i64) -> Result<Writer<'e>> {
    let of_another = stream == Stream::PerDevice && dev != replica.me;
    if of_another {
        gathering::gather_ops(replica, def.tid)?;
    }
    let table = match catalog::mirror_of(replica, def.tid).filter(|_| of_another) {
        Some(mirror) => mirror,
        None => catalog::table(replica, def.tid)?,
    };
    let gathered = table.state == State::Gathered;
    let label = gathered.then(|| devices::device_label(replica, dev)).transpose()?;
    Ok(Writer::new(replica, table, def, label))
}

/// An op that is being applied, with what its author had seen.
pub(super) struct Incoming<'a, 'e> {
    pub writer: &'a Writer<'e>,
    pub def: &'a OpDef,
    pub op: &'a Op<'a>,
    /// What it carries, decoded once.
    pub values: &'a [Carried<'a>],
    pub origin: &'a Origin,
    pub sight: &'a Sight<'a>,
}

/// What became of an op.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Done {
    Applied,
    /// It is pending in the log, for a table that does not show it.
    Waits,
    /// Its row is as it says already, or it lost: it does not count.
    Nothing,
}

/// Applies an op, and counts it.
pub(super) fn apply_op(replica: &Replica, incoming: &Incoming<'_, '_>, counts: &mut Counts) -> Result<()> {
    let Incoming { writer, def, origin, .. } = *incoming;
    let done = match origin.stream {
        Stream::PerDevice => apply_per_device_op(replica, incoming)?,
        Stream::Shared => apply_shared_op(replica, incoming)?,
    };
    counts.ops += u64::from(done != Done::Nothing);
    if done == Done::Waits {
        counts.waiting += 1;
        *counts.waiting_for.entry(def.tid).or_default() += 1;
    }
    if done == Done::Applied && writer.table.gathers.is_some() {
        *counts.apart.entry(writer.table.tid).or_default() += 1;
    }
    Ok(())
}

/// Applies an op of a per-device stream.
fn apply_per_device_op(replica: &Replica, incoming: &Incoming<'_, '_>) -> Result<Done> {
    let Incoming { writer, def, op, values, origin, sight } = *incoming;
    if op.head.kind == OpKind::Keep && sight.restates {
        return Ok(Done::Nothing);
    }
    if writer.table.state == State::Gathered {
        write::write_row(replica, writer, def, (op, values), origin)?;
    } else if origin.dev == replica.me && writer.table.state == State::Tracked {
        recover_row(replica, incoming)?;
    } else {
        return Ok(Done::Waits);
    }
    Ok(Done::Applied)
}

/// Applies an op of a shared stream.
fn apply_shared_op(replica: &Replica, incoming: &Incoming<'_, '_>) -> Result<Done> {
    let Incoming { writer, def, op, values, origin, sight } = *incoming;
    let (table, seen) = (&writer.table, sight.seen);
    if !writer.same_key {
        return Ok(Done::Waits); // Nobody can say which row here it would be.
    }
    let key = def.key_of(values.iter().copied())?;
    if sight.restates && op.head.kind == OpKind::Keep {
        return Ok(Done::Nothing);
    }
    if sight.restates && restated::is_lacking(def, op) {
        if table.shows_shared() {
            restated::give_again(replica, table, &key, None)?;
        }
        return Ok(Done::Nothing);
    }
    if op.head.kind == OpKind::Keep {
        apply_keep(replica, table, &key, origin.author, seen)?;
        return Ok(if table.shows_shared() { Done::Applied } else { Done::Waits });
    }
    let new = head_of(incoming);
    let mut old = heads::heads(replica, table.tid, &key)?;
    if heads::is_in(&old, &new) {
        return Err(Error::damaged("a row twice in one frame"));
    }
    if let (Some(unseen), true) = (sight.late, table.shows_shared()) {
        let said = counters::read_counted(table, def, op);
        late::keep_settled(replica, table, &key, &new, &old, &said, unseen)?;
        let unknown = old.is_empty() && !folds::settled_before(replica, table.tid, &key, unseen)?;
        if new.weak && unknown && compose::shown_row(replica, table, &key)?.is_none() {
            return Ok(Done::Nothing); // It loses to what nobody here knows any more, if only by a verdict.
        }
        old = heads::heads(replica, table.tid, &key)?;
    }
    if let (Some(unseen), State::Suspended) = (sight.late, table.state) {
        late_held::keep_settled(replica, table, &key, &new, &old, unseen)?;
        old = heads::heads(replica, table.tid, &key)?;
    }
    let writable = register::register(replica, table, &key, &new, &old, seen)?;
    if table.shows_shared() {
        if new.weak && new.kind == OpKind::Delete {
            restated::keep_deleted(replica, table, &key, &new, seen)?;
        }
        if new.weak && is_idle(replica, incoming, &key, writable)? {
            // Counters count though the rest of the version loses.
            count::count(replica, table, &key, def, op, (&new, origin.lamport), seen, false)?;
            count::show_totals(replica, table, &key)?;
            return Ok(Done::Nothing);
        }
        show_op(replica, incoming, &key, &new, writable)?;
        return Ok(Done::Applied);
    }
    count::count(replica, table, &key, def, op, (&new, origin.lamport), seen, true)?;
    if table.state == State::Suspended {
        replica
            .db
            .prepare_cached("INSERT OR IGNORE INTO _pm_held (tid, key) VALUES (?1, ?2)")?
            .execute((table.tid, &key))?;
    }
    Ok(Done::Waits)
}

/// Returns whether a restated version that was registered changes nothing that is shown.
fn is_idle(replica: &Replica, incoming: &Incoming<'_, '_>, key: &[u8], writable: bool) -> Result<bool> {
    let Incoming { writer, def, op, origin, .. } = *incoming;
    if writable {
        return restated::is_as_it_was(replica, writer, key, def, op);
    }
    let heads = heads::heads(replica, writer.table.tid, key)?;
    Ok(!heads.iter().any(|head| (head.dev, head.seq) == (origin.dev, origin.seq)))
}

/// Applies what a verdict without a version of its own says of a row: what it does not leave is gone. A settled row is
/// as it was, and a verdict of ours says so. With a delete goes what only the delete says: of the row's last values, columns
/// that no version is left for have their defaults, as where the delete was folded.
fn apply_keep(replica: &Replica, table: &Table, key: &[u8], author: DeviceId, seen: &Seen<'_>) -> Result<()> {
    let heads = heads::all_heads(replica, table.tid, key)?;
    let (removed, left) = register::remove_gone(replica, table, key, author, &heads, seen)?;
    let by = Head { author, ..Head::baseline(0, None) };
    let gone = count::forget_gone(replica, table, key, &by, seen)?;
    if !table.shows_shared() {
        return Ok(());
    }
    if heads.is_empty()
        && let Some(row) = compose::shown_row(replica, table, key)?
    {
        // Who has not folded the row compares its version with what the verdict names; here nobody can any more. An honest
        // verdict names it. Whatever this one does: the value is said again, and is there for all.
        return late::keep_row(replica, table, key, &row);
    }
    if removed.is_empty() {
        if gone.any {
            count::show_totals(replica, table, key)?;
        }
        return unsaid::begin_anew(replica, table, key, &gone.unsaid);
    }
    if left == 0 {
        runs::touch(replica, table, key)?;
    }
    if left == 0 || removed.iter().any(|head| head.kind == OpKind::Delete) {
        constraints::before_change(replica, table, key)?;
        write::delete_row(replica, table, key)?;
        compose::delete_from(replica, &table.quarantine_table(), table, key)?;
    } else {
        let unsaid = unsaid_of(table, &heads, &removed, gone.unsaid);
        unsaid::begin_anew(replica, table, key, &unsaid)?;
    }
    deferred::defer(replica, table.tid, key)
}

/// Returns the columns for which a head that was removed spoke, and none of those that are left does; and these counters.
fn unsaid_of(table: &Table, heads: &[Head], removed: &[Head], counters: Columns) -> Columns {
    let n = table.def.columns.len();
    let place = |head: &Head| (head.dev, head.seq);
    let mut unsaid = Columns::default();
    removed.iter().for_each(|head| unsaid.extend(&head.live(n)));
    let left = heads.iter().filter(|head| removed.iter().all(|other| place(other) != place(head)));
    unsaid = left.fold(unsaid, |unsaid, head| unsaid.minus(&head.live(n)));
    unsaid = unsaid.minus(&table.counted_or_key());
    unsaid.extend(&counters);
    unsaid
}

/// Makes the head that an op is of its row.
fn head_of(incoming: &Incoming<'_, '_>) -> Head {
    let Incoming { writer, def, op, origin, .. } = *incoming;
    Head {
        dev: origin.dev,
        author: origin.author,
        seq: origin.seq,
        place: OpPlace::At(op.offset),
        stretched: false,
        claim: op.head.claim.unwrap_or(origin.lamport),
        wall: op.head.wall.unwrap_or(origin.wall),
        kind: op.head.kind,
        weak: incoming.sight.restates,
        columns: writer.carried(def, op),
        baseline: None,
    }
}

/// Writes an op into its table if it is `writable`, and defers its row if a constraint is in its way.
fn show_op(
    replica: &Replica,
    incoming: &Incoming<'_, '_>,
    key: &[u8],
    new: &Head,
    writable: bool,
) -> Result<()> {
    let Incoming { writer, def, op, values, origin, sight } = *incoming;
    let (table, seen) = (&writer.table, sight.seen);
    let there = constraints::before_change(replica, table, key)?;
    if new.kind == OpKind::Delete && table.is_parent {
        references::record_deleted(replica, table, key)?;
    }
    if new.kind == OpKind::Delete && !there {
        references::record_changed(replica, table)?;
    }
    count::count(replica, table, key, def, op, (new, origin.lamport), seen, false)?;
    if !writable {
        return Ok(());
    }
    match write::write_row(replica, writer, def, (op, values), origin) {
        Ok(true) => constraints::after_shown(replica, table, key),
        // The row to be changed is not in its table.
        Ok(false) => deferred::defer(replica, table.tid, key),
        Err(e) if e.of_sqlite().is_some_and(trial::is_refused) => deferred::defer(replica, table.tid, key),
        Err(e) => Err(e),
    }
}

/// Writes a row of a per-device table of ours, which was rolled back.
fn recover_row(replica: &Replica, incoming: &Incoming<'_, '_>) -> Result<()> {
    let Incoming { writer, def, op, values, origin, .. } = *incoming;
    write::write_row(replica, writer, def, (op, values), origin)?;
    if !writer.table.def.append {
        return Ok(());
    }
    if let Some((_, Value::Int(id))) = values.iter().find(|(at, _)| def.def.columns[*at].key > 0) {
        replica
            .db
            .prepare_cached("UPDATE _pm_table SET appended = max(appended, ?2), gaps = 0 WHERE tid = ?1")?
            .execute((writer.table.tid, id))?;
    }
    Ok(())
}
