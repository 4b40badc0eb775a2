//! Documents about conflicts.

use std::cell::RefCell;

use packmule::Engine;
#[cfg(test)]
use schemars::JsonSchema;
use serde::ser::SerializeSeq;
use serde::{Serialize, Serializer};

#[cfg(test)]
use super::report;

/// `conflicts`: the same list on every device that has the same frames.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Conflicts<'a> {
    /// The open conflicts.
    #[cfg_attr(test, schemars(with = "Vec<report::Conflict>"))]
    pub conflicts: OpenConflicts<'a>,
}

/// The open conflicts of a database, which are read as they are printed.
pub struct OpenConflicts<'a> {
    pub engine: &'a Engine,
    /// Why they could not be read to the end, if so.
    pub failed: &'a RefCell<Option<packmule::Error>>,
}

impl Serialize for OpenConflicts<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut list = to.serialize_seq(None)?;
        let mut unwritten = None;
        let read = self.engine.each_conflict(&mut |conflict| {
            if unwritten.is_none() {
                unwritten = list.serialize_element(&conflict).err();
            }
            Ok(())
        });
        *self.failed.borrow_mut() = read.err();
        match unwritten {
            Some(e) => Err(e),
            None => list.end(),
        }
    }
}

/// `resolve`.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Resolved<'a> {
    /// The conflict that was closed, as it was given.
    pub resolved: &'a str,
    /// How many are open still.
    pub conflicts_open: u64,
}
