//! Conflicts: what concurrent writes left open, and how it is resolved.
//!
//! May import `store` to `track`.
//!
//! | file | what it does |
//! |---|---|
//! | `history` | the log, for people |
//! | `list` | open conflicts with every version |
//! | `resolve` | a conflict resolved |
//! | `walk` | goes through the open conflicts one by one |

pub(crate) mod history;
pub(crate) mod list;
pub(crate) mod resolve;
pub(crate) mod walk;
