//! What the versions of a row make of it. Nothing here writes to a table of the application.
//!
//! May import `store` to `log`.
//!
//! | file | what it does |
//! |---|---|
//! | `context_free` | context-free writes: what counts as seen by their author |
//! | `compose` | the row that the versions make, in the quarantine table |
//! | `counters` | additions to a counter, and absolute writes |
//! | `defaults` | columns that are newer than what is folded: their default is nobody's value |
//! | `deferred` | the deferred queue: rows that are worked out at the end of the group |
//! | `folds` | lists of folds: which rows each compaction settled |
//! | `given_up` | versions of a history that is given up, and of the one that is here instead |
//! | `heads` | the versions of a row that no other dominates; what an author had seen |
//! | `kind` | the kinds of versions, as the database has them |
//! | `late` | late writes, and the settled values that they meet |
//! | `late_held` | the same, of rows whose table is held |
//! | `register` | adds a version, removes those that it dominates |
//! | `restated` | the weakest of writes: what an application wrote when it made a table anew |
//! | `stretches` | the heads of many rows in one entry |
//! | `written` | writes to `_pm_head`, and the values of baseline versions |
//! | `unread` | columns of which a version speaks, and that wait here |
//! | `versions` | winner, conflict, authorship: judged from the heads |

pub(crate) mod compose;
pub(crate) mod context_free;
pub(crate) mod counters;
pub(crate) mod defaults;
pub(crate) mod deferred;
pub(crate) mod folds;
pub(crate) mod given_up;
pub(crate) mod heads;
pub(crate) mod kind;
pub(crate) mod late;
pub(crate) mod late_held;
pub(crate) mod register;
pub(crate) mod restated;
pub(crate) mod stretches;
pub(crate) mod unread;
pub(crate) mod versions;
pub(crate) mod written;
