//! Tables tracked and untracked, by a person's word.
//!
//! May import `store` to `apply`.
//!
//! | file | what it does |
//! |---|---|
//! | `columns` | a column added or dropped everywhere |
//! | `gathered` | per-device tables gathered at a base |
//! | `options` | how a table is tracked |
//! | `tables` | track and untrack |
//! | `told` | whether other devices have a table of this device's |

pub(crate) mod columns;
pub(crate) mod gathered;
pub(crate) mod options;
pub(crate) mod tables;
mod told;
