//! What applications wrote becomes frames.
//!
//! May import `store` to `show`.
//!
//! | file | what it does |
//! |---|---|
//! | `watch` | the triggers that note which rows change |
//! | `dirty` | the lists that they append to |
//! | `ops` | rows read into ops |
//! | `adopt` | a definition taken for that of a table here |
//! | `declare` | what comes of declarations that differ |
//! | `groups` | one group of frames, of everything that was noted |
//! | `redeclare` | a declaration of our own, sealed |
//! | `unite` | definitions of several devices made one |
//! | `evolve` | tables that the application changed, and what others declare |
//! | `seal` | the seal: schema changes first, then the groups |

pub(crate) mod adopt;
pub(crate) mod declare;
pub(crate) mod dirty;
pub(crate) mod evolve;
pub(crate) mod groups;
pub(crate) mod ops;
pub(crate) mod redeclare;
pub(crate) mod seal;
pub(crate) mod unite;
pub(crate) mod watch;
