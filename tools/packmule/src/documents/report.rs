//! How the library's reports look that are printed as they are: for the page alone. A test of the program compares
//! the page with what is printed.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

/// An open conflict.
#[derive(JsonSchema, Serialize)]
pub struct Conflict {
    /// What `resolve` takes.
    pub id: String,
    /// The table.
    pub table: String,
    /// The row's key, by column.
    pub key: BTreeMap<String, Value>,
    /// `insert/insert`, `update/update`, `update/delete`, `unique`, `check`, `foreign-key` or `schema`.
    pub kind: String,
    /// The versions.
    pub versions: Vec<ConflictVersion>,
    /// Of `insert/insert`: how many rows refer to the row, by table. `--keep-both` takes those along that the author of
    /// a version made.
    pub referred_by: BTreeMap<String, u64>,
    /// The ways in which it can be resolved: `take`, `set`, `delete`, `keep_both`, `keep_both_with` (with `--set`).
    pub ways: Vec<String>,
    /// Of `keep_both_with`: the columns of which two rows in place of one need different values, for a UNIQUE.
    pub clashing: Vec<String>,
    /// Of `unique`, `foreign-key` and `schema`: the columns that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub columns: Option<Vec<String>>,
    /// Of `foreign-key`: the table that the row refers to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Of `check`: what SQLite says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A row's values, by column.
pub type Row = BTreeMap<String, Value>;

/// What a resolution does to a row.
#[derive(JsonSchema, Serialize)]
pub struct RowChange {
    /// The row's key, by column.
    pub key: Row,
    /// Its values before, by column; none if it was not there.
    pub before: Row,
    /// Its values then; none if it is not there any more: it is removed on all devices.
    pub after: Row,
    /// Before, a constraint kept it out of its table.
    pub was_quarantined: bool,
    /// Then, a constraint keeps it out of its table.
    pub is_quarantined: bool,
    /// It is kept whole as it was before, so that the resolution can be undone: a very large row is not.
    pub undoable: bool,
}

/// What was done about conflicts.
#[derive(JsonSchema, Serialize)]
pub struct DecisionReport {
    /// How many were closed.
    pub closed: u64,
    /// How many that were meant cannot be closed this way, and stay open.
    pub refused: u64,
    /// How many are open then.
    pub open: u64,
    /// How many of these it opened, or gave another version.
    pub opened: u64,
    /// The ids of the first 100 of them.
    pub opened_ids: Vec<String>,
}

/// What was done about rows that a device wrote to.
#[derive(JsonSchema, Serialize)]
pub struct TakenBack {
    /// How many rows are as they were before.
    pub rows: u64,
    /// How many are so already: somebody has written them so since.
    pub same: u64,
    /// Of how many nobody knows what they were: that is compacted away, or too large.
    pub unknown: u64,
}

/// What was written of a time.
#[derive(JsonSchema, Serialize)]
pub struct AtReport {
    /// How many rows of shared tables were written to since.
    pub rows: u64,
    /// Of how many of them nobody knows what they were: they are as they are now.
    pub unknown: u64,
}

/// A version of a conflict.
#[derive(JsonSchema, Serialize)]
pub struct ConflictVersion {
    /// Its author's fingerprint; null if it is not one author's.
    pub device: Option<String>,
    /// Its author's name.
    pub name: Option<String>,
    /// When, by its author's clock.
    pub at: Option<String>,
    /// `insert`, `update` or `delete`.
    pub op: String,
    /// The table shows this one.
    pub shown: bool,
    /// Why it cannot be taken here, if it cannot: another row has its UNIQUE value, or it breaks a rule of the table.
    pub refused: Option<String>,
    /// The row's values, by column: empty for a delete. A BLOB is `{"hex": …}`; a TEXT or BLOB of more than
    /// 4,096 bytes is `{"bytes": …, "sha256": …}`; text that is one of these has `"text": true` too; an infinity is
    /// `{"real": …}`.
    pub values: BTreeMap<String, Value>,
}

/// A table that is known.
#[derive(JsonSchema, Serialize)]
pub struct TableStatus {
    /// Its name.
    pub name: String,
    /// `shared`, `per-device`, `gathered`, `waiting`, `held` or `not tracked any more`.
    pub how: String,
    /// Writes that are not sealed yet, up to 1,000,000.
    pub unsealed: u64,
    /// Rows of others that wait for it, of a shared table, up to 1,000,000.
    pub waiting: u64,
    /// What people should know about it.
    pub note: Option<String>,
}

/// Rows that wait for a table.
#[derive(JsonSchema, Serialize)]
pub struct WaitsForTable {
    /// Its name.
    pub table: String,
    /// How many rows came that wait.
    pub ops: u64,
    /// Why, and what will end the waiting.
    pub why: String,
}

/// Rows of other devices in a table of another name than theirs.
#[derive(JsonSchema, Serialize)]
pub struct GatheredApart {
    /// Their table, of which this database has one of its own.
    pub table: String,
    /// Where they stand here.
    pub gathered_in: String,
    /// How many were applied.
    pub ops: u64,
}

/// A group of frames.
#[derive(JsonSchema, Serialize)]
pub struct HistoryEntry {
    /// Its author's fingerprint.
    pub device: String,
    /// Its author's name and the beginning of its fingerprint.
    pub label: String,
    /// `shared` or `per-device`.
    pub stream: String,
    /// Its first and its last frame.
    pub frames: [u64; 2],
    /// Its Lamport timestamp.
    pub stamp: u64,
    /// When, by its author's clock.
    pub at: String,
    /// It is applied here, and does not wait.
    pub applied: bool,
    /// It closes conflicts.
    pub resolution: bool,
    /// How many rows it has, of those that were asked for.
    pub ops: u64,
    /// By which way it came here: `file`, `card`, `serial`, `network` or `database`; null for what was written here, and where
    /// that is not known any more.
    pub route: Option<String>,
    /// When it came here, by this device's clock; null likewise.
    pub came: Option<String>,
}

/// A row of a group.
#[derive(JsonSchema, Serialize)]
pub struct HistoryOp {
    /// Its table.
    pub table: String,
    /// `insert`, `update` or `delete`.
    pub op: String,
    /// Its key, by column.
    pub key: BTreeMap<String, Value>,
    /// What was written to the row besides its key, by column.
    pub values: BTreeMap<String, Value>,
    /// With `--values`: what its author had there before, of what it has changed; of a row that it deletes all of it.
    pub before: BTreeMap<String, Value>,
}

/// A bundle that was left on a card.
#[derive(JsonSchema, Serialize)]
pub struct Left {
    /// The file.
    pub file: String,
    /// The receiver's fingerprint; null for anyone.
    #[serde(rename = "for")]
    pub receiver: Option<String>,
    /// Frames in it.
    pub frames: u64,
    /// The file's size.
    pub bytes: u64,
    /// It has the state of the shared tables: its receiver lacks frames that are compacted away here.
    pub state: bool,
    /// It is encrypted to the fleet.
    pub encrypted: bool,
    /// It has this device's certificate or request, and nothing else.
    pub introduction: bool,
}

/// `compact`.
#[derive(JsonSchema, Serialize)]
pub struct CompactReport {
    /// Frames that left the log.
    pub frames_folded: u64,
    /// Their bytes.
    pub bytes_folded: u64,
    /// Versions of rows that are no longer remembered.
    pub versions_forgotten: u64,
    /// Frames that stay in the log.
    pub frames_left: u64,
    /// The device for which the most frames stay.
    pub held_back_by: Option<HeldBack>,
}

/// `prune`.
#[derive(JsonSchema, Serialize)]
pub struct PruneReport {
    /// Rows that were deleted here.
    pub rows: u64,
    /// Rows that are left in the table.
    pub rows_left: u64,
    /// Rows of the table that no base is known to have.
    pub unacknowledged: u64,
    /// The base whose acknowledgement counts; null where no base is known to have anything.
    pub base: Option<String>,
}

/// A device for which frames stay in the log.
#[derive(JsonSchema, Serialize)]
pub struct HeldBack {
    /// Its name and the beginning of its fingerprint.
    pub device: String,
    /// How many frames it is not known to have.
    pub frames: u64,
}
