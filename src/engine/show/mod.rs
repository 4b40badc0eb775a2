//! The winner goes into the application's table: writing, its triggers, UNIQUE and foreign keys.
//!
//! May import `store` to `merge`.
//!
//! | file | what it does |
//! |---|---|
//! | `count` | additions to counters of a row that is shown |
//! | `limbo` | a row moved out of its table and back |
//! | `references` | foreign keys: rows that refer to one that is gone |
//! | `settle` | rows that are contested or kept out by a constraint |
//! | `transaction` | the end of a transaction |
//! | `triggers` | the application's triggers, for rows of others |
//! | `write` | rows written and deleted |

pub(crate) mod count;
pub(crate) mod limbo;
pub(crate) mod references;
pub(crate) mod settle;
pub(crate) mod transaction;
pub(crate) mod triggers;
pub(crate) mod write;
