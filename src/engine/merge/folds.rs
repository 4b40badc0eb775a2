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

use packmule_core::model::Stream;
use rusqlite::Rows;

use crate::engine::error::Result;
use crate::engine::fleet::devices::BASELINE;
use crate::engine::fleet::membership;
use crate::engine::store::value;
use crate::engine::table::replica::Replica;

/// The number of a fold, or of what was before the oldest kept one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Fold(pub i64);

/// Less than every fold: where no list is kept.
const BEFORE_ALL: Fold = Fold(i64::MIN);

/// A row of a list takes about so many bytes beside its key, and so does what a fold raised of one device.
const ENTRY_BYTES: u64 = 10;

/// Returns the first fold after which B is not within what somebody had seen; `None` if it had seen all of B. `saw`
/// gives up to where it had seen the stream of a device, by number.
pub(crate) fn first_unseen(replica: &Replica, saw: &dyn Fn(i64) -> u64) -> Result<Option<Fold>> {
    if membership::floors(replica)?.iter().all(|(dev, seq)| *seq <= saw(*dev)) {
        return Ok(None);
    }
    let mut statement =
        replica.db.prepare_cached("SELECT n, dev, seq FROM _pm_fold WHERE dev <> ?1 ORDER BY n")?;
    let mut rows = statement.query([BASELINE])?;
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

/// Returns the number of what was before the oldest kept list, if lists are kept.
fn base(replica: &Replica) -> Result<Option<Fold>> {
    Ok(value::maybe::<Option<i64>>(&replica.db, "SELECT min(n) FROM _pm_fold", [])?.flatten().map(Fold))
}

/// Drops all lists: what is folded from now on is after B.
pub(crate) fn restart(replica: &Replica) -> Result<()> {
    replica.db.execute_batch("DELETE FROM _pm_folded; DELETE FROM _pm_fold")?;
    replica.db.execute(
        "INSERT INTO _pm_fold (n, dev, seq) SELECT 0, dev, seq FROM _pm_floor WHERE stream = ?1 AND seq > 0
         UNION ALL SELECT 0, ?2, 0",
        (Stream::Shared.number(), BASELINE),
    )?;
    Ok(())
}

/// Begins a fold, before the watermarks are raised. Returns its number.
pub(crate) fn begin(replica: &Replica) -> Result<Fold> {
    if base(replica)?.is_none() {
        restart(replica)?;
    }
    let last: i64 = replica.db.query_row("SELECT max(n) FROM _pm_fold", [], |row| row.get(0))?;
    Ok(Fold(last + 1))
}

/// Lists the rows of a fold, which `rows` has by table and key, after the watermarks are raised. Returns whether the
/// list is kept: one that is larger than all lists may be is not, and none is then.
pub(crate) fn list(replica: &Replica, fold: Fold, mut rows: Rows<'_>) -> Result<bool> {
    let most = replica.options.fold_list_bytes;
    let raised = replica.db.execute(
        "INSERT INTO _pm_fold (n, dev, seq) SELECT ?1, f.dev, f.seq FROM _pm_floor f WHERE f.stream = ?2
         AND f.seq > coalesce((SELECT max(p.seq) FROM _pm_fold p WHERE p.dev = f.dev), 0)",
        (fold.0, Stream::Shared.number()),
    )?;
    let mut bytes = raised as u64 * ENTRY_BYTES;
    let mut put = replica.db.prepare_cached(
        "INSERT INTO _pm_folded (tid, key, n) VALUES (?1, ?2, ?3) ON CONFLICT (tid, key) DO UPDATE SET n = excluded.n",
    )?;
    while let Some(row) = rows.next()? {
        let (tid, key) = (row.get::<_, i64>(0)?, row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?);
        bytes += key.len() as u64 + ENTRY_BYTES;
        if bytes > most {
            restart(replica)?;
            return Ok(false);
        }
        put.execute((tid, key, fold.0))?;
    }
    if bytes > 0 {
        replica
            .db
            .prepare_cached("INSERT INTO _pm_fold (n, dev, seq) VALUES (?1, ?2, ?3)")?
            .execute((fold.0, BASELINE, bytes))?;
    }
    drop_oldest(replica, most)?;
    Ok(true)
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
            oldest = Some(row.get::<_, i64>(0)?);
        }
        over |= total > most;
    }
    let Some(oldest) = oldest.filter(|_| over) else { return Ok(()) };
    replica.db.execute("DELETE FROM _pm_folded WHERE n <= ?1", [oldest])?;
    replica.db.execute(
        "DELETE FROM _pm_fold AS f WHERE f.n <= ?1
         AND EXISTS (SELECT 1 FROM _pm_fold o WHERE o.dev = f.dev AND o.n <= ?1 AND o.n > f.n)",
        [oldest],
    )?;
    replica.db.execute(
        "UPDATE _pm_fold SET n = ?1, seq = iif(dev = ?2, 0, seq) WHERE n <= ?1",
        (oldest, BASELINE),
    )?;
    Ok(())
}

/// Finds the newest fold after which B is within what somebody had seen, and is not nothing; what needs to be known of
/// B then, by device number. `None` if lists do not reach back so far.
pub(crate) fn newest_seen(
    replica: &Replica,
    saw: &dyn Fn(i64) -> u64,
) -> Result<Option<(Fold, Vec<(i64, u64)>)>> {
    let Some(unseen) = first_unseen(replica, saw)? else { return Ok(None) };
    let last: Option<i64> =
        replica.db.query_row("SELECT max(n) FROM _pm_fold WHERE n < ?1", [unseen.0], |row| row.get(0))?;
    let Some(last) = last else { return Ok(None) };
    let mut statement = replica
        .db
        .prepare_cached("SELECT dev, max(seq) FROM _pm_fold WHERE n <= ?1 AND dev <> ?2 GROUP BY dev")?;
    let rows = statement.query_map((last, BASELINE), |row| Ok((row.get(0)?, row.get(1)?)))?;
    let seen = rows.collect::<rusqlite::Result<Vec<(i64, u64)>>>()?;
    Ok((!seen.is_empty()).then_some((Fold(last), seen)))
}
