//! What carriers call: the log sent and received.
//!
//! May import `store` to `conflicts`.
//!
//! | file | what it does |
//! |---|---|
//! | `export` | bundles written |
//! | `heard` | what a snapshot's maker has of what is here |
//! | `import` | bundles verified and taken in |
//! | `inspect` | the contents of a bundle, for people |
//! | `join` | a device starts from a snapshot |
//! | `load` | the snapshot read into the database |
//! | `peer` | the other end of a session |
//! | `reconcile` | peer evidence about our own log, and what follows from it |
//! | `rekey` | a second history takes a new identity |
//! | `revoke` | devices revoked, and revocations heard |
//! | `session` | what two ends that talk need of each other |
//! | `snapshot` | snapshots written |
//! | `state_rows` | a snapshot's rows of `_pm_` tables, put into theirs |
//! | `survey` | what a card needs to know |
//! | `transaction` | transactions, before which a second history takes a new identity |
//! | `trust_sender` | trust in who made a bundle |
//! | `twin` | divergent histories of one identity, found |

pub(crate) mod export;
pub(crate) mod heard;
pub(crate) mod import;
pub(crate) mod inspect;
pub(crate) mod join;
pub(crate) mod load;
pub(crate) mod peer;
pub(crate) mod reconcile;
pub(crate) mod rekey;
pub(crate) mod revoke;
pub(crate) mod session;
pub(crate) mod snapshot;
pub(crate) mod state_rows;
pub(crate) mod survey;
pub(crate) mod transaction;
pub(crate) mod trust_sender;
pub(crate) mod twin;
