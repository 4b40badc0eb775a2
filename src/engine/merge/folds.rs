//! Lists of folds: which rows each of the last compactions settled.
//!
//! **Invariant.** Of a row that is settled here, all that is applied here of it is within B after the newest kept fold
//! that lists it; of a row that no kept fold lists, within B before the oldest of them. B is the watermarks
//! (`_pm_floor`), and only rises, so who has seen B after a fold has seen B after each earlier one.
//!
//! So a late write whose author had seen that much is placed exactly, though it had not seen all of B
//! (`merge/late.rs`); a row that is not here, and is listed, was deleted; and who has seen B after some fold needs of
//! the state only the rows of later lists and those in flight (`exchange/state.rs`).
//!
//! **Cost.** A row is in the newest list alone that has it, by its key: so a deleted row can be named, and a listed row
//! be found, without a search through its table. That is the key and some 10 bytes a changed row. Lists are kept
//! within `Options::fold_list_bytes`, the oldest go first. They may go at any time: what is known then is only
//! less. Where a state was merged they begin anew, with B.
//!
//! `_pm_fold` has what B is after each fold, as far as the fold raised it. Its first number is B before the oldest
//! list. Each number also has an entry of the device [`BASELINE`]: about how many bytes its list takes.
//!
//! **Deletes** are listed longer: of lists that go they stay, up to half of the room. While all are (the entry of the device
//! [`ALL_DELETES`]), a row that is neither here nor listed was never here. So what a newcomer brings of its own needs no
//! word in a verdict.

use packmule_core::model::{Stream, Value};
use packmule_core::wire::OpKind;
use rusqlite::Rows;

use crate::engine::error::Result;
use crate::engine::fleet::devices::BASELINE;
use crate::engine::fleet::membership;
use crate::engine::merge::stretches::{self, Chosen};
use crate::engine::store::value;
use crate::engine::table::replica::Replica;

/// The number of a fold, or of what was before the oldest kept one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Fold(pub i64);

/// Less than every fold: where no list is kept.
const BEFORE_ALL: Fold = Fold(i64::MIN);

/// In the place of a device in `_pm_fold`: lists have all deletes that were folded.
const ALL_DELETES: i64 = -1;

/// A row of a list takes about so many bytes beside its key, and so does what a fold raised of one device.
const ENTRY_BYTES: u64 = 10;

/// Returns the first fold after which B is not within what somebody had seen; `None` if it had seen all of B. `saw`
/// gives up to where it had seen the stream of a device, by number.
pub(crate) fn first_unseen(replica: &Replica, saw: &dyn Fn(i64) -> u64) -> Result<Option<Fold>> {
    if membership::floors(replica)?.iter().all(|(dev, seq)| *seq <= saw(*dev)) {
        return Ok(None);
    }
    let mut statement =
        replica.db.prepare_cached("SELECT n, dev, seq FROM _pm_fold WHERE dev > 0 ORDER BY n")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if row.get::<_, u64>(2)? > saw(row.get(1)?) {
            return Ok(Some(Fold(row.get(0)?)));
        }
    }
    Ok(Some(BEFORE_ALL))
}

/// Returns the first fold after which B has a frame of a device from this one on, if B has.
pub(crate) fn first_with(replica: &Replica, dev: i64, seq: u64) -> Result<Option<Fold>> {
    first_unseen(replica, &|other| if other == dev { seq.saturating_sub(1) } else { u64::MAX })
}

/// Returns whether all that is settled of a row was within B before a fold.
pub(crate) fn settled_before(replica: &Replica, tid: i64, key: &[u8], fold: Fold) -> Result<bool> {
    let last = match listed(replica, tid, key)? {
        Some(last) => Some(last),
        None => base(replica)?,
    };
    Ok(last.is_some_and(|last| last < fold))
}

/// Returns the newest kept fold that lists a row.
pub(crate) fn listed(replica: &Replica, tid: i64, key: &[u8]) -> Result<Option<Fold>> {
    let sql = "SELECT n FROM _pm_folded WHERE tid = ?1 AND key = ?2";
    Ok(value::maybe(&replica.db, sql, (tid, key))?.map(Fold))
}

/// Gives the rows that the lists have of a fold and those after it.
pub(crate) fn each_listed(
    replica: &Replica,
    fold: Fold,
    each: &mut dyn FnMut(i64, &[u8]) -> Result<()>,
) -> Result<()> {
    let mut listed = replica.db.prepare_cached("SELECT tid, key FROM _pm_folded WHERE n >= ?1")?;
    let mut rows = listed.query([fold.0])?;
    while let Some(row) = rows.next()? {
        each(row.get(0)?, row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?)?;
    }
    Ok(())
}

/// Returns whether the lists have all rows of a fold and those after it.
pub(crate) fn lists_from(replica: &Replica, fold: Fold) -> Result<bool> {
    Ok(base(replica)?.is_some_and(|base| base < fold))
}

/// Returns the number of what was before the oldest kept list, if lists are kept.
fn base(replica: &Replica) -> Result<Option<Fold>> {
    Ok(value::maybe::<Option<i64>>(&replica.db, "SELECT min(n) FROM _pm_fold", [])?.flatten().map(Fold))
}

/// Drops all lists: what is folded from now on is after B.
pub(crate) fn restart(replica: &Replica) -> Result<()> {
    replica.db.execute_batch("DELETE FROM _pm_folded; DELETE FROM _pm_fold")?;
    let raised = replica.db.execute(
        "INSERT INTO _pm_fold (n, dev, seq) SELECT 0, dev, seq FROM _pm_floor WHERE stream = ?1 AND seq > 0",
        [Stream::Shared.number()],
    )?;
    put_entry(replica, Fold(0), BASELINE, 0)?;
    // Where nothing was folded yet, nothing that was deleted is forgotten.
    if raised == 0 { put_entry(replica, Fold(0), ALL_DELETES, 1) } else { Ok(()) }
}

fn put_entry(replica: &Replica, fold: Fold, dev: i64, seq: u64) -> Result<()> {
    let sql = "INSERT OR REPLACE INTO _pm_fold (n, dev, seq) VALUES (?1, ?2, ?3)";
    replica.db.prepare_cached(sql)?.execute((fold.0, dev, seq))?;
    Ok(())
}

/// What is known of a settled row that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Absence {
    /// A list of folds has it: it was deleted.
    Deleted,
    /// Lists have every row that was deleted and folded, and not this one.
    Never,
    /// It was deleted, or never was there.
    Unknown,
}

/// Looks up what is known of a settled row that is not here.
pub(crate) fn absence(replica: &Replica, tid: i64, key: &[u8]) -> Result<Absence> {
    if listed(replica, tid, key)?.is_some() {
        return Ok(Absence::Deleted);
    }
    let all = value::maybe::<i64>(&replica.db, "SELECT 1 FROM _pm_fold WHERE dev = ?1", [ALL_DELETES])?;
    Ok(all.map_or(Absence::Unknown, |_| Absence::Never))
}

/// Begins a fold, before the watermarks are raised. Returns its number.
pub(crate) fn begin(replica: &Replica) -> Result<Fold> {
    if base(replica)?.is_none() {
        restart(replica)?;
    }
    let last: i64 = replica.db.query_row("SELECT max(n) FROM _pm_fold", [], |row| row.get(0))?;
    Ok(Fold(last + 1))
}

/// Lists the rows of a fold, after the watermarks are raised: `rows` has their tables, keys, and whether they are deletes;
/// `stretches` has more of them.
/// Each is given to `each` too. Returns whether all are listed: of a list that is larger than all may be, only deletes are,
/// and of older ones.
pub(crate) fn list(
    replica: &Replica,
    fold: Fold,
    mut rows: Rows<'_>,
    stretches: &Chosen<'_>,
    each: &mut dyn FnMut(i64, &[u8]) -> Result<()>,
) -> Result<bool> {
    let most = replica.options.fold_list_bytes;
    let raised = replica.db.execute(
        "INSERT INTO _pm_fold (n, dev, seq) SELECT ?1, f.dev, f.seq FROM _pm_floor f WHERE f.stream = ?2
         AND f.seq > coalesce((SELECT max(p.seq) FROM _pm_fold p WHERE p.dev = f.dev), 0)",
        (fold.0, Stream::Shared.number()),
    )?;
    let mut put = replica.db.prepare_cached(
        "INSERT INTO _pm_folded (tid, key, n, gone) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (tid, key) DO UPDATE SET n = excluded.n, gone = excluded.gone",
    )?;
    let (mut bytes, mut of_deletes) = (raised as u64 * ENTRY_BYTES, 0);
    let mut list_one = |tid: i64, key: &[u8], gone: bool| -> Result<()> {
        let size = key.len() as u64 + ENTRY_BYTES;
        bytes += size;
        of_deletes += if gone { size } else { 0 };
        if (bytes <= most || gone) && of_deletes <= most {
            put.execute((tid, key, fold.0, gone))?;
        }
        each(tid, key)
    };
    while let Some(row) = rows.next()? {
        list_one(row.get(0)?, row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?, row.get(2)?)?;
    }
    drop(rows);
    stretches::each(replica, stretches, &mut |of| {
        (of.first..=of.last).try_for_each(|key| {
            list_one(of.tid, &value::encode(&Value::Int(key))?, of.kind == OpKind::Delete)
        })
    })?;
    if of_deletes > most {
        restart(replica)?;
    } else if bytes > most {
        drop_until(replica, fold, most)?;
    } else if bytes > 0 {
        put_entry(replica, fold, BASELINE, bytes)?;
        drop_oldest(replica, most)?;
    }
    Ok(bytes <= most)
}

/// Drops the oldest lists, if all of them are larger than they may be: some more than need be, since each time all lists
/// are read.
fn drop_oldest(replica: &Replica, most: u64) -> Result<()> {
    let mut statement =
        replica.db.prepare_cached("SELECT n, seq FROM _pm_fold WHERE dev = ?1 ORDER BY n DESC")?;
    let mut rows = statement.query([BASELINE])?;
    let (mut total, mut oldest, mut over) = (0, None, false);
    while let Some(row) = rows.next()? {
        total += row.get::<_, u64>(1)?;
        if total > most - most / 4 && oldest.is_none() {
            oldest = Some(Fold(row.get(0)?));
        }
        over |= total > most;
    }
    drop(rows);
    oldest.filter(|_| over).map_or(Ok(()), |oldest| drop_until(replica, oldest, most))
}

/// Drops the lists up to this fold, but for what they say was deleted, as long as that is little.
fn drop_until(replica: &Replica, fold: Fold, most: u64) -> Result<()> {
    let db = &replica.db;
    db.execute("DELETE FROM _pm_folded WHERE n <= ?1 AND NOT gone", [fold.0])?;
    let of_deletes: u64 = db.query_row(
        "SELECT coalesce(sum(length(key) + ?2), 0) FROM _pm_folded WHERE n <= ?1",
        (fold.0, ENTRY_BYTES),
        |row| row.get(0),
    )?;
    let too_many = of_deletes > most / 2;
    if too_many {
        db.execute("DELETE FROM _pm_folded WHERE n <= ?1", [fold.0])?;
        db.execute("DELETE FROM _pm_fold WHERE dev = ?1", [ALL_DELETES])?;
    }
    db.execute("UPDATE _pm_folded SET n = ?1 WHERE n < ?1", [fold.0])?;
    db.execute(
        "DELETE FROM _pm_fold AS f WHERE f.n <= ?1
         AND EXISTS (SELECT 1 FROM _pm_fold o WHERE o.dev = f.dev AND o.n <= ?1 AND o.n > f.n)",
        [fold.0],
    )?;
    db.execute("UPDATE _pm_fold SET n = ?1 WHERE n < ?1", [fold.0])?;
    put_entry(replica, fold, BASELINE, if too_many { 0 } else { of_deletes })
}

/// What somebody had seen of the folds here.
pub(crate) struct Since {
    pub fold: Fold,
    /// B after it, by device number.
    pub seen: Vec<(i64, u64)>,
}

/// Finds the newest fold after which B is within what somebody had seen, and is not nothing. `None` if lists do not reach
/// back so far.
pub(crate) fn newest_seen(replica: &Replica, saw: &dyn Fn(i64) -> u64) -> Result<Option<Since>> {
    let Some(unseen) = first_unseen(replica, saw)? else { return Ok(None) };
    let last: Option<i64> =
        replica.db.query_row("SELECT max(n) FROM _pm_fold WHERE n < ?1", [unseen.0], |row| row.get(0))?;
    let Some(last) = last else { return Ok(None) };
    let mut statement = replica
        .db
        .prepare_cached("SELECT dev, max(seq) FROM _pm_fold WHERE n <= ?1 AND dev > 0 GROUP BY dev")?;
    let rows = statement.query_map([last], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let seen = rows.collect::<rusqlite::Result<Vec<(i64, u64)>>>()?;
    Ok((!seen.is_empty()).then_some(Since { fold: Fold(last), seen }))
}
