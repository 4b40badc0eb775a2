//! Transactions, before which a second history takes a new identity.

use crate::engine::capture::groups::{SealOptions, SealReport};
use crate::engine::capture::{at_once, fresh, other_key, reissue, reshape, seal, verdict};
use crate::engine::conflicts::{listed, wishes};
use crate::engine::error::{Error, Result};
use crate::engine::exchange::common_prefix::common_prefix;
use crate::engine::exchange::rekey;
use crate::engine::fleet::{peers, statements};
use crate::engine::merge::{deferred, late};
use crate::engine::show::transaction::{end_transaction, take_back};
use crate::engine::store::connection;
use crate::engine::table::catalog;
use crate::engine::table::known::State;
use crate::engine::table::replica::{self, Replica};

/// Begins a transaction, where this handle can still write to the file that is in its place.
fn begin(replica: &Replica) -> Result<()> {
    if replica.poisoned {
        return Err(Error::Poisoned.into());
    }
    if replica::is_moved(replica) {
        return Err(Error::Moved { path: replica.path.clone() }.into());
    }
    Ok(replica.db.execute_batch("BEGIN IMMEDIATE")?)
}

/// Runs `work` in one transaction: all of it, or nothing.
pub(crate) fn transaction<R>(replica: &mut Replica, work: impl FnOnce(&Replica) -> Result<R>) -> Result<R> {
    begin(replica)?;
    replica.quarantined.set(true);
    if peers::is_rolled_back(replica)?
        && catalog::load_catalog(replica).and_then(|()| rekey::must_rekey(replica))?
    {
        connection::roll_back(&replica.db);
        let common = common_prefix(replica, [0; 2], [u64::MAX; 2], true)?;
        rekey::rekey(replica, common, [None; 2], None)?;
        replica.db.execute_batch("BEGIN IMMEDIATE")?;
    }
    end_listed(replica, |e| {
        fresh::begin(e)?;
        *e.bare.borrow_mut() = Some(Vec::new());
        let done = work(e)?;
        at_once::install_bare(e)?;
        fresh::end(e)?;
        Ok(done)
    })
}

/// Runs `work`, brings the list of open conflicts up to date, and ends the transaction.
fn end_listed<R>(replica: &mut Replica, work: impl FnOnce(&Replica) -> Result<R>) -> Result<R> {
    let result = catalog::load_catalog(replica).and_then(|()| work(replica)).and_then(|done| {
        listed::refresh(replica)?;
        Ok(done)
    });
    let carried = replica.carrying.take();
    let result = end_transaction(replica, result);
    if result.is_ok() {
        replica.carried.borrow_mut().add(carried);
    }
    result
}

/// Runs `work`, which neither seals nor applies anything, in one transaction.
pub(crate) fn record<R>(replica: &mut Replica, work: impl FnOnce(&Replica) -> Result<R>) -> Result<R> {
    begin(replica)?;
    end_listed(replica, work)
}

/// Runs `work` in one transaction, after what was written here was sealed: `work` decides about rows.
pub(crate) fn after_seal<R>(replica: &mut Replica, work: impl FnOnce(&Replica) -> Result<R>) -> Result<R> {
    transaction(replica, |e| seal_first(e, work))
}

/// Seals what was written here, and carries out what applications decided in SQL: what comes next takes it into account.
pub(crate) fn seal_written(replica: &Replica) -> Result<SealReport> {
    deferred::begin_deferring(replica)?;
    let report = seal::seal_here(replica, SealOptions::default())?;
    wishes::carry_out(replica)?;
    Ok(report)
}

/// Seals what was written here, then runs `work`.
fn seal_first<R>(replica: &Replica, work: impl FnOnce(&Replica) -> Result<R>) -> Result<R> {
    seal_written(replica)?;
    work(replica)
}

/// Runs `work` as [`after_seal`] does, and takes all of it back: tells what would be.
pub(crate) fn rehearse<R>(replica: &mut Replica, work: impl FnOnce(&Replica) -> Result<R>) -> Result<R> {
    begin(replica)?;
    replica.quarantined.set(true);
    let result = catalog::load_catalog(replica)
        .and_then(|()| fresh::begin(replica))
        .and_then(|()| seal_first(replica, work));
    replica.carrying.take();
    take_back(replica);
    result
}

/// Remembers what is applied here: it is about to be said. Where that was said before, nothing is written.
pub(crate) fn remember(replica: &mut Replica) -> Result<()> {
    if catalog::reading(replica, statements::is_remembered)? {
        return Ok(());
    }
    transaction(replica, statements::remember)
}

/// Turns what applications wrote since the last seal into frames: one atomic group. A verdict that is still to be written
/// follows: whatever sends calls this first.
pub(crate) fn seal(replica: &mut Replica) -> Result<SealReport> {
    if rekey::waits_here(replica)? {
        record(replica, peers::wait_once_more)?;
        return Ok(SealReport::default());
    }
    transaction(replica, |replica| {
        let mut report = seal_written(replica)?;
        let reissued = reissue::reissue_for_bases(replica)?;
        report.frames += reissued.frames;
        report.ops += reissued.ops;
        verdict::seal_verdict(replica)?;
        Ok(report)
    })
}

/// Writes the verdict that is still to be written, if there is one.
pub(crate) fn settle(replica: &mut Replica) -> Result<()> {
    if catalog::reading(replica, late::any_unplaced)? {
        transaction(replica, |replica| seal_first(replica, verdict::seal_verdict))
    } else {
        Ok(())
    }
}

/// Lets a table that was held go on, where it fits what others have announced now; one whose columns follow is made so.
pub(crate) fn release_held(replica: &Replica) -> Result<()> {
    if !catalog::is_schema_doubted(replica)? || !replica.can_sign() || peers::is_rolled_back(replica)? {
        return Ok(());
    }
    for table in catalog::tables(replica) {
        let is_due = table.state == State::Suspended
            || !reshape::due(replica, &table)?.is_nothing()
            || other_key::due(replica, &table)?.is_some();
        if is_due {
            seal::seal_here(replica, SealOptions::default())?;
            break;
        }
    }
    Ok(())
}
