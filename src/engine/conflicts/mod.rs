//! Conflicts: what concurrent writes left open, and how it is resolved.
//!
//! May import `store` to `track`.
//!
//! | file | what it does |
//! |---|---|
//! | `before` | what a row was before each write to it |
//! | `change` | what happens to a row, as it is told to people |
//! | `children` | the rows that refer to a row by its key |
//! | `decision` | a decision as a document |
//! | `history` | the log, for people |
//! | `keep_both` | both rows of a conflict kept, with the rows that refer to each |
//! | `list` | open conflicts with every version |
//! | `listed` | open conflicts as they are listed in the database, kept up to date |
//! | `many` | many conflicts resolved in one transaction, or what that would do |
//! | `record` | what a resolution reads of a version, and how it records a row |
//! | `resolve` | a conflict resolved |
//! | `restore` | what was overwritten is written anew |
//! | `rewind` | rows as they were without some groups of the log |
//! | `selection` | which of the open conflicts are meant |
//! | `told` | a row as it is told to people, wherever it is |
//! | `undecided` | conflicts that are given to a program which decides by itself |
//! | `undo` | a resolution undone |
//! | `walk` | goes through the open conflicts one by one |
//! | `ways` | the ways in which a conflict can be resolved |
//! | `wishes` | what applications decided in SQL, carried out |

mod before;
pub(crate) mod change;
pub(crate) mod children;
pub(crate) mod decision;
pub(crate) mod history;
mod keep_both;
pub(crate) mod list;
pub(crate) mod listed;
pub(crate) mod many;
pub(crate) mod record;
pub(crate) mod resolve;
pub(crate) mod restore;
pub(crate) mod rewind;
pub(crate) mod selection;
pub(crate) mod told;
pub(crate) mod undecided;
pub(crate) mod undo;
pub(crate) mod walk;
mod ways;
pub(crate) mod wishes;
