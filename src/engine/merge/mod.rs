//! What the versions of a row make of it. Nothing here writes to a table of the application.
//!
//! May import `store` to `log`.
//!
//! | file | what it does |
//! |---|---|
//! | `blind` | ops whose author knew less than it seems: what to remember for them |
//! | `compose` | the row that the versions make, in a table of its own beside the real one |
//! | `counters` | additions to a counter, and absolute writes |
//! | `deferred` | the rows that are put off to the end of the group |
//! | `heads` | the versions of a row that no other dominates |
//! | `register` | a version is added, those it dominates go |
//! | `versions` | winner, contest, authorship: judged from the heads |

pub(crate) mod blind;
pub(crate) mod compose;
pub(crate) mod counters;
pub(crate) mod deferred;
pub(crate) mod heads;
pub(crate) mod register;
pub(crate) mod versions;
