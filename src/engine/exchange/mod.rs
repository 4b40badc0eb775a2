//! What carriers call: the log given and taken.
//!
//! May import `store` to `conflicts`.
//!
//! | file | what it does |
//! |---|---|
//! | `export` | bundles written |
//! | `fork` | a second history goes on under a new identity |
//! | `import` | bundles verified and taken in |
//! | `inspect` | what a bundle has, for people |
//! | `join` | a device starts from a snapshot |
//! | `load` | the snapshot read into the database |
//! | `peer` | the other end of a session |
//! | `reconcile` | what others know of our own log: the consequences |
//! | `session` | what two ends that talk need of each other |
//! | `snapshot` | snapshots written |
//! | `survey` | what a card needs to know |
//! | `transaction` | transactions, after which a second history has gone on as another |
//! | `trust_sender` | trust in who made a bundle |
//! | `twin` | two histories under one identity, found |

pub(crate) mod export;
pub(crate) mod fork;
pub(crate) mod import;
pub(crate) mod inspect;
pub(crate) mod join;
pub(crate) mod load;
pub(crate) mod peer;
pub(crate) mod reconcile;
pub(crate) mod session;
pub(crate) mod snapshot;
pub(crate) mod survey;
pub(crate) mod transaction;
pub(crate) mod trust_sender;
pub(crate) mod twin;
