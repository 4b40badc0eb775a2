//! Documents about conflicts.

use packmule::Conflict;
#[cfg(test)]
use schemars::JsonSchema;
use serde::Serialize;

#[cfg(test)]
use super::report;

/// `conflicts`: the same list on every device that has the same frames.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Conflicts<'a> {
    /// The open conflicts.
    #[cfg_attr(test, schemars(with = "Vec<report::Conflict>"))]
    pub conflicts: &'a [Conflict],
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
