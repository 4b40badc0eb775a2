//! What keeps a database small and sound, and what there is to know of it.
//!
//! May import all rooms before it.
//!
//! | file | what it does |
//! |---|---|
//! | `compact` | what all have is folded away |
//! | `digest` | one line that is the same where the content is |
//! | `status` | how a device stands |
//! | `verify` | the log checked |

pub(crate) mod compact;
pub(crate) mod digest;
pub(crate) mod status;
pub(crate) mod verify;
