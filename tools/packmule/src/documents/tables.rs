//! Documents about tables and the log.

#[cfg(test)]
use schemars::JsonSchema;
use serde::Serialize;

/// `track`.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Tracked<'a> {
    /// The tables that were given.
    pub tables: Vec<TrackedTable<'a>>,
}

/// A table that is tracked.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct TrackedTable<'a> {
    /// Its name.
    pub table: &'a str,
    /// It was tracked in this way already.
    pub already: bool,
    /// It was tracked already, and how it is tracked was changed.
    pub changed: bool,
    /// Rows that were taken in.
    pub rows: u64,
    /// What people should know about it.
    pub advice: &'a [String],
}

/// `untrack`.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Untracked<'a> {
    /// The tables that were given.
    pub untracked: Vec<&'a str>,
}

/// `schema`.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Changed<'a> {
    /// The table.
    pub table: &'a str,
    /// The column that was added or dropped.
    pub column: &'a str,
    /// Its declared type, of one that was added.
    #[serde(rename = "type")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decl_type: Option<&'a str>,
}

/// `seal`.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Sealed {
    /// Frames written to the log.
    pub frames: u64,
    /// Rows in them.
    pub ops: u64,
}

/// `snapshot`.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct SnapshotWritten {
    /// The file.
    pub snapshot: String,
    /// Shared tables in it.
    pub tables: u64,
    /// Their rows.
    pub rows: u64,
    /// Frames that are still in flight.
    pub frames: u64,
    /// The file's size.
    pub bytes: u64,
}
