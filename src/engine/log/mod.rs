//! The log: frames and checkpoints in the database, and as a stream of records.
//!
//! May import `store`, `table`, `fleet`.
//!
//! | file | what it does |
//! |---|---|
//! | `bundle` | a stream of records, read and verified |
//! | `contexts` | which device each number in a frame's context names |
//! | `frames` | frames and groups, stored in the database and read again |
//! | `gave_up` | histories of other devices that an author had, and has given up |
//! | `packed` | the same without what its reader knows from what is before |
//! | `tags` | where a stream was, of groups that are folded |
//! | `visit` | the one walk through a frame's definitions, pieces and ops |
//! | `writer` | a group of our own, written frame by frame |

pub(crate) mod bundle;
pub(crate) mod contexts;
pub(crate) mod frames;
pub(crate) mod gave_up;
pub(crate) mod packed;
pub(crate) mod tags;
pub(crate) mod visit;
pub(crate) mod writer;
