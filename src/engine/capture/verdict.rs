//! Verdicts: what a fold made unknowable is put into the log by the device that meets it.
//!
//! **Invariant.** What versions a row has is a function of the set of frames alone. Folding has no part in it.
//!
//! **Why it holds.** Where a late write met a settled value, this device no longer knows whether one follows the other.
//! The verdict says what holds from then on, whatever the truth was: the versions that it names stay, the settled value
//! stays as a version of this device, and all else that its author had seen of the row is gone. Everybody applies that,
//! also who still knows the truth, and comes to the same heads. Whoever has folded the row as well makes a verdict of
//! its own; equal values are one version. No write is lost: what is gone is a version that another dominates, one whose
//! value the verdict says itself, or a delete that met a row.
//!
//! All rows of a verdict are in one group. Of two that followed each other, the second would remove the first's values.
//!
//! **Unique values.** A value of a verdict has the earliest claim, 0: it was there before what came late. Where the
//! winners of two rows claim one value, and one of the two is settled, its row is listed too: so all who compare the two
//! claims know both.

use packmule_core::model::{DeviceId, Stream, Value, WallMs};
use packmule_core::wire::{FrameFlags, KeptRun, OpHead, OpKind};

use crate::engine::capture::{groups, ops};
use crate::engine::error::{Error, Result};
use crate::engine::fleet::devices::BASELINE;
use crate::engine::fleet::{peers, positions};
use crate::engine::log::gave_up;
use crate::engine::log::writer::{self, GroupWriter};
use crate::engine::merge::counters::{self, Entry};
use crate::engine::merge::heads::{self, Head};
use crate::engine::merge::{
    compose, deferred, given_up, late, register, restated, unread, versions, written,
};
use crate::engine::show::{constraints, unsaid};
use crate::engine::store::meta;
use crate::engine::store::value;
use crate::engine::table::catalog;
use crate::engine::table::columns::Columns;
use crate::engine::table::known::Table;
use crate::engine::table::opened::OpPlace;
use crate::engine::table::replica::Replica;

/// Writes the verdict on the rows that a late write has met, if there are any. What was written here must be sealed.
///
/// A device without its key, or one that was set back and has not its own log again, puts that off.
pub(crate) fn seal_verdict(replica: &Replica) -> Result<()> {
    if !replica.can_sign() || peers::is_rolled_back(replica)? {
        return Ok(());
    }
    gave_up::say(replica)?;
    given_up::settle_claimed(replica)?;
    list_settled_claims(replica)?;
    if !late::any_unplaced(replica)? {
        return given_up::forget_done(replica);
    }
    let lamport = positions::next_lamport(replica)?;
    let first = positions::position(replica, replica.me, Stream::Shared)?.seq + 1;
    let mut buf = writer::frame_memory(replica);
    let mut group = writer::begin_group(replica, Stream::Shared, FrameFlags::VERDICT, lamport, 0, &mut buf)?;
    for tid in unplaced_tables(replica)? {
        groups::tell_definition(replica, &*catalog::table(replica, tid)?, &mut group)?;
    }
    let common = common_runs(replica, first)?;
    // What is said of a row a second time goes into a frame of its own: a frame has a row once.
    for before in 0.. {
        let mut after = (i64::MIN, Vec::new(), 0);
        let mut found = false;
        while let Some(row) = next_unplaced(replica, &after, before)? {
            if !std::mem::replace(&mut found, true) && before > 0 {
                group.separate()?;
            }
            judge_row(replica, &mut group, &row, &common)?;
            after = (row.tid, row.key, row.number);
        }
        if !found {
            break;
        }
    }
    let position = group.finish()?;
    positions::set_position(replica, replica.me, Stream::Shared, position)?;
    meta::set(&replica.db, "unanswered", false)?;
    replica.db.execute("DELETE FROM _pm_unplaced", [])?;
    given_up::forget_done(replica)?;
    catalog::reload_catalog(replica)?;
    constraints::resolve_constraints(replica)
}

/// A row of which a verdict is to be written, with its settled value of this number.
struct Unplaced {
    tid: i64,
    key: Vec<u8>,
    number: u64,
    body: Option<Vec<u8>>,
}

/// Returns the next row in the order of tables, keys and numbers, of those that have so many lower numbers.
fn next_unplaced(replica: &Replica, after: &(i64, Vec<u8>, u64), before: u32) -> Result<Option<Unplaced>> {
    use rusqlite::OptionalExtension;
    let found = replica
        .db
        .prepare_cached(
            "SELECT tid, key, n, body FROM _pm_unplaced u WHERE (tid, key, n) > (?1, ?2, ?3)
             AND (SELECT count(*) FROM _pm_unplaced o WHERE o.tid = u.tid AND o.key = u.key AND o.n < u.n) = ?4
             ORDER BY tid, key, n LIMIT 1",
        )?
        .query_row((after.0, &after.1, after.2, before), |row| {
            Ok(Unplaced { tid: row.get(0)?, key: row.get(1)?, number: row.get(2)?, body: row.get(3)? })
        })
        .optional()?;
    Ok(found)
}

/// Returns the tables that have rows of which a verdict is to be written.
fn unplaced_tables(replica: &Replica) -> Result<Vec<i64>> {
    let mut statement = replica.db.prepare_cached("SELECT DISTINCT tid FROM _pm_unplaced ORDER BY tid")?;
    Ok(statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
}

/// Returns whether something is said of a row twice.
fn any_second(replica: &Replica) -> Result<bool> {
    let sql = "SELECT 1 FROM _pm_unplaced GROUP BY tid, key HAVING count(*) > 1 LIMIT 1";
    Ok(value::maybe::<i64>(&replica.db, sql, [])?.is_some())
}

/// Returns runs of frames that have the versions which came, of all rows together, and this group itself, which says
/// something of some row twice. No run has a frame that is folded here: whoever reads it must see that no settled value is meant;
/// none is of a device whose frames are named row by row (`merge/given_up.rs`).
fn common_runs(replica: &Replica, first: u64) -> Result<Vec<KeptRun>> {
    let mut statement = replica.db.prepare(
        "SELECT d.id, min(h.seq), max(h.seq) FROM _pm_any_head h JOIN _pm_device d ON d.n = h.dev
         LEFT JOIN _pm_floor f ON f.dev = h.dev AND f.stream = ?2
         WHERE h.dev <> ?1 AND h.seq > coalesce(f.seq, 0) AND h.dev NOT IN (SELECT dev FROM _pm_fork)
           AND EXISTS (SELECT 1 FROM _pm_unplaced u WHERE u.tid = h.tid AND u.key = h.key)
         GROUP BY h.dev ORDER BY d.id",
    )?;
    let mut rows = statement.query((BASELINE, Stream::Shared.number()))?;
    let mut runs = Vec::new();
    while let Some(row) = rows.next()? {
        let device = DeviceId(row.get(0)?);
        runs.push(KeptRun { device, first: row.get(1)?, last: row.get(2)? });
    }
    if any_second(replica)? {
        runs.push(KeptRun { device: replica.identity.id, first, last: i64::MAX as u64 });
    }
    Ok(runs)
}

/// Writes what holds of a row: which versions stay, and the settled value.
fn judge_row(
    replica: &Replica,
    group: &mut GroupWriter<'_>,
    row: &Unplaced,
    common: &[KeptRun],
) -> Result<()> {
    let table = catalog::table(replica, row.tid)?;
    let heads = heads::all_heads(replica, row.tid, &row.key)?;
    let (baselines, kept): (Vec<Head>, Vec<Head>) = heads.into_iter().partition(|h| h.dev == BASELINE);
    let counted = counters::entries(&replica.db, "_pm_count", row.tid, &row.key)?;
    let is_sum = |entry: &&Entry| entry.is_base() && entry.seq == row.number && row.number > 0;
    let sums: Vec<&Entry> = counted.iter().filter(is_sum).collect();
    let settled = baselines.iter().find(|head| head.seq == row.number).cloned();
    let Some((kind, columns, mut values)) = said_of(replica, &table, row, settled.as_ref(), &kept, &sums)?
    else {
        return Ok(()); // It was overwritten here meanwhile, by who had seen it.
    };
    values.sort_by_key(|(column, _)| *column);
    let carried: Vec<usize> = values.iter().map(|(column, _)| *column).collect();
    let mask = mask_of(&table, &columns, &carried, kind);
    let said = mask.as_ref().map(|(_, columns)| columns);
    let (runs, beside) = match (given_up::is_given_up(row.number), sums.is_empty()) {
        (true, true) => stays_beside(&table, said, &kept, &counted, common),
        (true, false) => stays_beside_sums(replica, (&table, row), (&kept, &counted), &sums, common)?,
        (false, _) => (runs_of(frames_of(&kept, &counted).collect(), common), Vec::new()),
    };
    group.keep(runs)?;
    // What was given up has the time of its write.
    let wall = match settled.as_ref().map(|head| head.wall).filter(|wall| *wall > WallMs::MIN) {
        Some(wall) => wall,
        None => shown_first(replica, &kept, group.wall)?,
    };
    let version = kind != OpKind::Keep;
    let columns = mask.as_ref().map(|(bytes, _)| bytes.as_slice());
    let image = kind == OpKind::Delete && carried.len() > table.def.keys().count();
    let (claim, told) = (version.then_some(0), version.then_some(wall));
    let head = OpHead { kind, claim, columns, wall: told, image };
    let mut written: Vec<Value<'_>> = values.iter().map(|(_, value)| value.borrow()).collect();
    let (seq, offset) =
        ops::write_op(replica, &table, group, &head, |at| carried[at], &mut written, Vec::new())?;
    if let Some(settled) = &settled {
        written::forget_head(replica, row.tid, &row.key, settled)?;
    }
    // A delete without last values says nothing of sums: what is added beside it begins anew, here as elsewhere.
    let says_sums = kind == OpKind::Insert || head.image;
    say_sums(replica, &table, row, &sums, (seq, group.lamport), says_sums)?;
    if version {
        let new = Head {
            dev: replica.me,
            author: replica.identity.id,
            seq,
            place: OpPlace::At(offset),
            stretched: false,
            claim: 0,
            wall,
            kind,
            weak: false,
            columns: mask.map(|(_, columns)| columns),
            baseline: None,
        };
        // As everybody does who takes it in: it is not restated.
        restated::overrule(replica, &table, &row.key, &new, &[baselines, kept].concat())?;
        for head in &beside {
            let rest = register::left_beside_verdict(&table, head, &new);
            unread::leave(replica, &table, &row.key, (head, &rest), &new)?;
        }
        written::insert_head(replica, row.tid, &row.key, &new)?;
    }
    deferred::defer(replica, row.tid, &row.key)
}

/// Puts settled sums of a row, as this device says them in a frame, in the place of those that waited. Where it does not say them,
/// counters of which nothing else is remembered begin anew here, too.
fn say_sums(
    replica: &Replica,
    table: &Table,
    row: &Unplaced,
    sums: &[&Entry],
    (seq, lamport): (u64, u64),
    says: bool,
) -> Result<()> {
    for sum in sums {
        counters::forget_entry(&replica.db, row.tid, &row.key, sum)?;
        if says {
            let (dev, author) = (replica.me, replica.identity.id);
            let said = Entry { dev, author, seq, lamport, ..(*sum).clone() };
            counters::put_entry(&replica.db, row.tid, &row.key, &said)?;
        }
    }
    if says || sums.is_empty() {
        return Ok(());
    }
    let left = counters::entries(&replica.db, "_pm_count", row.tid, &row.key)?;
    let is_unsaid = |column: &usize| !left.iter().any(|entry| entry.column == *column);
    let unsaid = sums.iter().map(|sum| sum.column).filter(is_unsaid).collect();
    unsaid::begin_anew(replica, table, &row.key, &unsaid)
}

/// What is said of a row: how, of which columns if not of all, and the values.
type Said = (OpKind, Option<Columns>, Vec<(usize, value::OwnedValue)>);

/// Returns what is said of a row: its settled value and settled sums, or that it is gone, or nothing but what stays. `None`
/// where nothing is left to be said.
fn said_of(
    replica: &Replica,
    table: &Table,
    row: &Unplaced,
    settled: Option<&Head>,
    kept: &[Head],
    sums: &[&Entry],
) -> Result<Option<Said>> {
    let key = || key_values(table, &row.key);
    let (kind, columns, mut values) = match (settled, &row.body) {
        (Some(head), Some(body)) if head.kind == OpKind::Delete => {
            let last = versions::read_baseline(replica, table, body)?.into_iter();
            let sum = |column| sums.iter().find(|sum| sum.column == column).map(|sum| sum.value.clone());
            let values = last.map(|(column, value)| (column, sum(column).unwrap_or(value)));
            (OpKind::Delete, None, values.collect())
        }
        (Some(head), _) if head.kind == OpKind::Delete => (OpKind::Delete, None, key()?),
        (Some(head), Some(body)) => {
            (OpKind::Insert, head.columns.clone(), versions::read_baseline(replica, table, body)?)
        }
        (None, _) if !sums.is_empty() => (OpKind::Insert, Some(Columns::default()), key()?),
        (None, _) if row.number > 0 => return Ok(None),
        // All that came is deletes: so is what is said.
        _ if kept.iter().all(|head| head.kind == OpKind::Delete) && !kept.is_empty() => {
            (OpKind::Delete, None, key()?)
        }
        _ => (OpKind::Keep, None, key()?),
    };
    if kind != OpKind::Insert {
        return Ok(Some((kind, columns, values)));
    }
    values.extend(sums.iter().map(|sum| (sum.column, sum.value.clone())));
    let columns = columns.filter(|_| values.len() < table.def.columns.len());
    Ok(Some((kind, columns, values)))
}

/// Returns the mask of an op that does not carry all columns, as bytes and as columns.
fn mask_of(
    table: &Table,
    columns: &Option<Columns>,
    carried: &[usize],
    kind: OpKind,
) -> Option<(Vec<u8>, Columns)> {
    let n = table.def.columns.len();
    if kind != OpKind::Insert || (columns.is_none() && carried.len() == n) {
        return None;
    }
    let columns: Columns = carried.iter().copied().collect();
    let mut bytes = columns.as_bytes().to_vec();
    bytes.resize(n.div_ceil(8), 0);
    Some((bytes, columns))
}

/// Returns the frames that have versions of a row, and what was counted.
fn frames_of<'h>(kept: &'h [Head], counted: &'h [Entry]) -> impl Iterator<Item = (DeviceId, u64)> + 'h {
    let counted = counted.iter().filter(|entry| !entry.is_base()).map(|entry| (entry.author, entry.seq));
    kept.iter().map(|head| (head.author, head.seq)).chain(counted)
}

/// Returns the runs that say which versions of a row stay beside what was given up, and the versions that need not be named.
///
/// What it had taken from other versions it had taken on this device; others may never have had it. So no frame is named
/// that has no version of the row here. Where columns are `said`, and no counter, the versions that speak for others alone
/// are not named: elsewhere they lose these columns to the verdict, as they did here, and keep the rest. A version that is
/// named keeps all; so no frame is named there for what was counted.
fn stays_beside(
    table: &Table,
    said: Option<&Columns>,
    kept: &[Head],
    counted: &[Entry],
    common: &[KeptRun],
) -> (Vec<KeptRun>, Vec<Head>) {
    let own: Vec<KeptRun> = own_runs(common).collect();
    let Some(said) = said else { return (runs_of(frames_of(kept, counted).collect(), &own), Vec::new()) };
    let not = table.counted_or_key();
    let is_beside = |head: &Head| {
        let live = head.live(table.def.columns.len()).minus(&not);
        let is_own = own.iter().any(|run| is_in(run, (head.author, head.seq)));
        !head.weak && !is_own && !live.is_empty() && !live.meets(said)
    };
    let (beside, named): (Vec<Head>, Vec<Head>) = kept.iter().cloned().partition(is_beside);
    (runs_of(frames_of(&named, &[]).collect(), &own), beside)
}

/// Returns the same of sums of what was given up, and forgets the values that these begin with: such a sum has in it all that
/// the counter was before, so what stayed beside it would count once more, or in its place. Of a version that is not named
/// nothing is taken but the counter.
fn stays_beside_sums(
    replica: &Replica,
    (table, row): (&Table, &Unplaced),
    (kept, counted): (&[Head], &[Entry]),
    sums: &[&Entry],
    common: &[KeptRun],
) -> Result<(Vec<KeptRun>, Vec<Head>)> {
    let own: Vec<KeptRun> = own_runs(common).collect();
    let not = table.counted_or_key();
    let begins = |entry: &&Entry| {
        let is_summed = sums.iter().any(|sum| sum.column == entry.column);
        is_summed && entry.absolute && !entry.weak && !entry.is_base()
    };
    let begun: Vec<(DeviceId, u64)> =
        counted.iter().filter(begins).map(|entry| (entry.author, entry.seq)).collect();
    let is_beside = |head: &Head| {
        let frame = (head.author, head.seq);
        let says_more = !head.live(table.def.columns.len()).minus(&not).is_empty();
        begun.contains(&frame) && says_more && !own.iter().any(|run| is_in(run, frame))
    };
    let with_others = kept.iter().any(|head| head.kind == OpKind::Delete || head.weak);
    let (beside, named): (Vec<Head>, Vec<Head>) =
        kept.iter().cloned().partition(|head| !with_others && is_beside(head));
    let added: Vec<Entry> =
        counted.iter().filter(|entry| !begun.contains(&(entry.author, entry.seq))).cloned().collect();
    let runs = runs_of(frames_of(&named, &added).collect(), &own);
    for entry in counted.iter().filter(begins) {
        if !runs.iter().any(|run| is_in(run, (entry.author, entry.seq))) {
            counters::forget_entry(&replica.db, row.tid, &row.key, entry)?;
        }
    }
    Ok((runs, beside))
}

/// Returns the runs without an end: those of this device's own frames.
fn own_runs(common: &[KeptRun]) -> impl Iterator<Item = KeptRun> + '_ {
    common.iter().filter(|run| run.last == i64::MAX as u64).copied()
}

/// Returns whether a run has a frame.
fn is_in(run: &KeptRun, (device, seq): (DeviceId, u64)) -> bool {
    run.device == device && (run.first..=run.last).contains(&seq)
}

/// Returns the common runs, if they have all of these frames; else a run for each of them.
fn runs_of(mut kept: Vec<(DeviceId, u64)>, common: &[KeptRun]) -> Vec<KeptRun> {
    if kept.iter().all(|frame| common.iter().any(|run| is_in(run, *frame))) {
        return common.to_vec();
    }
    kept.sort();
    kept.dedup();
    let mut runs: Vec<KeptRun> =
        kept.into_iter().map(|(device, seq)| KeptRun { device, first: seq, last: seq }).collect();
    runs.extend(own_runs(common));
    runs.sort_by_key(|run| (run.device, run.first));
    runs
}

/// Returns the values of a key, by column.
fn key_values(table: &Table, key: &[u8]) -> Result<Vec<(usize, value::OwnedValue)>> {
    let values = value::read_key(key)?;
    if values.len() != table.def.keys().count() {
        return Err(Error::damaged("`_pm_unplaced` has a key of another table"));
    }
    Ok(table.def.keys().zip(values).collect())
}

/// Returns a wall time with which the settled value is shown before what came late: policies that compare times take the
/// latest of what is folded.
fn shown_first(replica: &Replica, kept: &[Head], now: i64) -> Result<i64> {
    let folded = meta::get::<i64>(&replica.db, "folded_wall")?;
    let latest = kept.iter().map(|head| head.wall.saturating_add(1)).max();
    Ok(folded.unwrap_or(i64::MIN).max(latest.unwrap_or(now)))
}

/// Lists the settled rows that claim a unique value which another row's winner claims; those of a held table when it goes on.
fn list_settled_claims(replica: &Replica) -> Result<()> {
    if !replica.quarantined.get() {
        return Ok(());
    }
    let sql = "SELECT tid, key FROM _pm_parked WHERE blocker IS NOT NULL AND (tid, key) > (?1, ?2)
         UNION SELECT tid, blocker FROM _pm_parked WHERE blocker IS NOT NULL AND (tid, blocker) > (?1, ?2)
         ORDER BY tid, key";
    value::each_listed(&replica.db, sql, i64::MIN, &mut |tid, key| {
        let table = catalog::table(replica, tid)?;
        if !table.shows_shared() || !heads::all_heads(replica, tid, key)?.is_empty() {
            return Ok(());
        }
        let Some(row) = compose::row_of(replica, &table, key)? else { return Ok(()) };
        let counters: Columns = table.counters.iter().copied().collect();
        let columns = Columns::all(table.def.columns.len()).minus(&counters);
        late::add_baseline(replica, &table, key, 1, &row, &columns).map(|_| ())
    })
}
