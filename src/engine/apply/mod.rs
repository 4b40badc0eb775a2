//! Frames of others become rows, in causal order.
//!
//! May import `store` to `capture`.
//!
//! | file | what it does |
//! |---|---|
//! | `admissible` | which ops an honest seal can have made |
//! | `again` | ops of this device, applied again where others' writes had not seen them |
//! | `aside` | groups that cannot be applied, set aside by name |
//! | `groups` | one group, applied |
//! | `ready` | the groups that are ready, applied in causal order |
//! | `refill` | what fills a gap in a per-device stream |
//! | `report` | what an import did |
//! | `restated` | groups that restate rows of a table that was made anew |
//! | `vouched` | what of a revoked author is still taken in |
//! | `pending` | the groups that are pending, and their missing dependencies |

pub(crate) mod admissible;
pub(crate) mod again;
pub(crate) mod aside;
pub(crate) mod groups;
pub(crate) mod pending;
pub(crate) mod ready;
pub(crate) mod refill;
pub(crate) mod report;
pub(crate) mod restated;
pub(crate) mod vouched;
