//! Ends a transaction.

use crate::engine::error::Result;
use crate::engine::show::triggers;
use crate::engine::store::connection;
use crate::engine::table::replica::Replica;

/// Commits a transaction that succeeded, and rolls back one that failed.
pub(crate) fn end_transaction<R>(replica: &mut Replica, result: Result<R>) -> Result<R> {
    let result = result.and_then(|result| {
        triggers::remove_local_triggers(replica)?;
        replica.db.execute_batch("COMMIT")?;
        Ok(result)
    });
    if result.is_err() {
        take_back(replica);
    }
    *replica.bare.borrow_mut() = None;
    result
}

/// Rolls a transaction back, and forgets what it had changed in memory.
pub(crate) fn take_back(replica: &mut Replica) {
    // A rollback can fail, for instance when memory is short: this looks whether it did.
    replica.poisoned = !connection::roll_back(&replica.db) || !triggers::forget_local_triggers(replica);
    replica.catalog.borrow_mut().forget();
    *replica.fresh.borrow_mut() = None;
}
