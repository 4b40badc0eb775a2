//! What carriers call: the log sent and received.
//!
//! May import `store` to `conflicts`.
//!
//! | file | what it does |
//! |---|---|
//! | `admit` | requests for admission found and signed; a place in a fleet taken |
//! | `certificates` | certificates stored; another name |
//! | `common_prefix` | up to where our own log is the same as another history of it |
//! | `cut` | what is here of a device's streams, cut off after a frame |
//! | `export` | bundles written |
//! | `import` | bundles verified and taken in |
//! | `fuzz` | what is read of files, tried with anything |
//! | `gathered_state` | what a base has gathered, for another base and for its author |
//! | `give_up` | another device's second history, given up for its first |
//! | `inspect` | the contents of a bundle, for people |
//! | `introduce` | this device's certificate alone, for those who encrypt and do not know it |
//! | `join` | a device starts from a snapshot |
//! | `merge_counters` | the counters of a state's rows, merged |
//! | `merge_decide` | what becomes of a row of a state |
//! | `merge_left` | what is left to be merged at the end of a state |
//! | `merge_waiting` | the rows of a state that wait for their table |
//! | `newest` | the newest checkpoints of devices that were set back, shown to them |
//! | `offer` | the state for the peer of a session |
//! | `peer` | the other end of a session |
//! | `merge_settled` | what is settled under versions of a part of a row |
//! | `merge_rows` | the rows of a state, merged with those here |
//! | `reconcile` | peer evidence about our own log, and what follows from it |
//! | `records` | records written: groups in causal order |
//! | `rekey` | a second history takes a new identity |
//! | `revoke` | devices revoked, and revocations heard |
//! | `session` | what two ends that talk need of each other |
//! | `snapshot` | snapshots written |
//! | `source` | another device's database file, read as a bundle |
//! | `staged` | frames of a session whose checkpoint has not come |
//! | `state` | what a device has of the shared tables, written |
//! | `state_columns` | what versions of a state say of columns that its maker lacks |
//! | `state_definitions` | what a state says of tables |
//! | `state_form` | the form that the rows of a state have |
//! | `state_records` | the records of a state, written |
//! | `state_restated` | what groups of a state leave out that restate a table |
//! | `state_rows` | a snapshot's rows of `_pm_` tables, put into theirs |
//! | `state_values` | the values of a state's rows |
//! | `survey` | what a card needs to know |
//! | `take_gathered` | what a base has gathered, taken in |
//! | `take_state` | another device's state, merged with what is here |
//! | `transaction` | transactions, before which a second history takes a new identity |
//! | `trust_sender` | trust in who made a bundle |
//! | `twin` | divergent histories of one identity, found |
//! | `unsay` | what a copy of this device's card only said, taken back |
//! | `verified` | what the first reading of a bundle finds |
//! | `window` | groups that an import takes in in one transaction |

pub(crate) mod admit;
pub(crate) mod certificates;
pub(crate) mod common_prefix;
pub(crate) mod cut;
pub(crate) mod export;
#[cfg(test)]
mod fuzz;
pub(crate) mod gathered_state;
pub(crate) mod give_up;
pub(crate) mod import;
pub(crate) mod inspect;
pub(crate) mod introduce;
pub(crate) mod join;
pub(crate) mod merge_counters;
pub(crate) mod merge_decide;
pub(crate) mod merge_left;
pub(crate) mod merge_rows;
pub(crate) mod merge_settled;
pub(crate) mod merge_waiting;
pub(crate) mod newest;
pub(crate) mod offer;
pub(crate) mod peer;
pub(crate) mod reconcile;
pub(crate) mod records;
pub(crate) mod rekey;
pub(crate) mod revoke;
pub(crate) mod session;
pub(crate) mod snapshot;
pub(crate) mod source;
pub(crate) mod staged;
pub(crate) mod state;
pub(crate) mod state_columns;
mod state_definitions;
mod state_form;
pub(crate) mod state_records;
pub(crate) mod state_restated;
pub(crate) mod state_rows;
pub(crate) mod state_values;
pub(crate) mod survey;
pub(crate) mod take_gathered;
pub(crate) mod take_state;
pub(crate) mod transaction;
pub(crate) mod trust_sender;
pub(crate) mod twin;
pub(crate) mod unsay;
pub(crate) mod verified;
mod window;
