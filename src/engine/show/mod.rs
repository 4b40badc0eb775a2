//! The winner goes into the application's table: writing, its triggers, UNIQUE and foreign keys.
//!
//! May import `store` to `merge`.
//!
//! | file | what it does |
//! |---|---|
//! | `count` | additions to the counters of a row |
//! | `quarantine` | moves rows between their table and the quarantine table |
//! | `references` | foreign keys: finds and records orphans |
//! | `constraints` | the constraint resolution pass over the deferred queue |
//! | `transaction` | ends a transaction |
//! | `unsaid` | columns for which no version speaks any more |
//! | `triggers` | the application's own triggers, for rows of other devices |
//! | `writable` | whether an import could write to a table at all |
//! | `write` | writes and deletes rows |

pub(crate) mod constraints;
pub(crate) mod count;
pub(crate) mod quarantine;
pub(crate) mod references;
pub(crate) mod transaction;
pub(crate) mod triggers;
pub(crate) mod unsaid;
pub(crate) mod writable;
pub(crate) mod write;
