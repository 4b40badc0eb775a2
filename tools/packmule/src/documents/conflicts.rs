//! Documents about conflicts.

use packmule::{Conflict, ConflictKind, ConflictVersion};
#[cfg(test)]
use schemars::JsonSchema;
use serde::Serialize;

use super::Row;
use crate::text::iso;

/// `conflicts`: the same list on every device that has the same frames.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Conflicts<'a> {
    /// The open conflicts.
    pub conflicts: Vec<ConflictDocument<'a>>,
}

/// An open conflict.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct ConflictDocument<'a> {
    /// What `resolve` takes.
    pub id: &'a str,
    /// The table.
    pub table: &'a str,
    /// The row's key, by column.
    pub key: Row<'a>,
    /// `insert/insert`, `update/update`, `update/delete`, `unique`, `check`, `foreign-key` or `schema`.
    pub kind: &'static str,
    /// The versions.
    pub versions: Vec<Version<'a>>,
    /// Of `unique`, `foreign-key` and `schema`: the columns that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub columns: Option<Vec<&'a str>>,
    /// Of `foreign-key`: the table that the row refers to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<&'a str>,
    /// Of `check`: what SQLite says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a str>,
}

/// A version of a conflict.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Version<'a> {
    /// Its author's fingerprint; null if it is not one author's.
    pub device: Option<String>,
    /// Its author's name.
    pub name: Option<&'a str>,
    /// When, by its author's clock.
    pub at: Option<String>,
    /// `insert`, `update` or `delete`.
    pub op: &'a str,
    /// The table shows this one.
    pub shown: bool,
    /// The row's values, by column: empty for a delete. A BLOB is `{"hex": …}`, text that is not UTF-8 has
    /// `"text": true` too, an infinity is `{"real": …}`.
    pub values: Row<'a>,
}

impl<'a> From<&'a Conflict> for ConflictDocument<'a> {
    fn from(conflict: &'a Conflict) -> Self {
        let names = |names: &'a [String]| Some(names.iter().map(String::as_str).collect());
        let (columns, parent, reason) = match &conflict.kind {
            ConflictKind::Unique(columns) => (names(columns), None, None),
            ConflictKind::ForeignKey(columns, parent) => (names(columns), Some(parent.as_str()), None),
            ConflictKind::Check(reason) => (None, None, Some(reason.as_str())),
            ConflictKind::Schema(column) => (Some(vec![column.as_str()]), None, None),
            _ => (None, None, None),
        };
        Self {
            id: &conflict.id,
            table: &conflict.table,
            key: Row(&conflict.key),
            kind: conflict.kind.word(),
            versions: conflict.versions.iter().map(Version::from).collect(),
            columns,
            parent,
            reason,
        }
    }
}

impl<'a> From<&'a ConflictVersion> for Version<'a> {
    fn from(version: &'a ConflictVersion) -> Self {
        Self {
            device: version.device.map(|id| id.to_string()),
            name: version.name.as_deref(),
            at: version.at.map(iso),
            op: version.op.word(),
            shown: version.shown,
            values: Row(&version.values),
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
