//! Frames of others become rows, in causal order.
//!
//! May import `store` to `capture`.
//!
//! | file | what it does |
//! |---|---|
//! | `groups` | one group, applied |
//! | `ready` | the groups that nothing is missing for, in their order |
//! | `report` | what an import did |
//! | `waits` | groups that wait, and for whom |

pub(crate) mod groups;
pub(crate) mod ready;
pub(crate) mod report;
pub(crate) mod waits;
