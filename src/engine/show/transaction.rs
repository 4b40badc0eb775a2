//! The end of a transaction.

use crate::engine::error::Result;
use crate::engine::show::triggers;
use crate::engine::store::connection;
use crate::engine::table::replica::Replica;

/// Commits what went well, and rolls back what did not.
pub(crate) fn end_transaction<R>(replica: &mut Replica, result: Result<R>) -> Result<R> {
    let result = result.and_then(|result| {
        triggers::remove_local_triggers(replica)?;
        replica.db.execute_batch("COMMIT")?;
        Ok(result)
    });
    if result.is_err() {
        // A rollback can fail, for instance when memory is short: look whether it did.
        replica.poisoned = !connection::roll_back(&replica.db) || !triggers::forget_local_triggers(replica);
        replica.catalog.borrow_mut().forget();
    }
    result
}
