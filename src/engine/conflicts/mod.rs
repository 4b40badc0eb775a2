//! Conflicts: what concurrent writes left open, and how it is resolved.
//!
//! May import `store` to `track`.
//!
//! | file | what it does |
//! |---|---|
//! | `children` | the rows that refer to a row by its key |
//! | `history` | the log, for people |
//! | `keep_both` | both rows of a conflict kept, with the rows that refer to each |
//! | `list` | open conflicts with every version |
//! | `record` | what a resolution reads of a version, and how it records a row |
//! | `resolve` | a conflict resolved |
//! | `walk` | goes through the open conflicts one by one |

pub(crate) mod children;
pub(crate) mod history;
mod keep_both;
pub(crate) mod list;
pub(crate) mod record;
pub(crate) mod resolve;
pub(crate) mod walk;
