//! Upkeep: what keeps a database small and sound, and what there is to know of it.
//!
//! May import all rooms before it.
//!
//! | file | what it does |
//! |---|---|
//! | `at` | the tables as they were at a time |
//! | `compact` | what every device has, folded out of the log |
//! | `digest` | one line that is the same where the content is |
//! | `prune` | rows that a base has, deleted here |
//! | `remove` | a database that leaves Packmule |
//! | `status` | the state of a device |
//! | `verify` | the log verified |
//! | `waiting` | what waits in the log, looked into |

pub(crate) mod at;
pub(crate) mod compact;
pub(crate) mod digest;
pub(crate) mod prune;
pub(crate) mod remove;
pub(crate) mod status;
pub(crate) mod verify;
pub(crate) mod waiting;
