//! Table definitions, as data: never as SQL to run. See `FORMAT.md`, "Table definition".

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{DecodeError, NoRoom, joined, put_next, take};
use crate::model::{DeviceId, Value};

/// Names a table definition: the first 8 bytes of SHA-256("packmule/1 def" ‖ its encoding).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct DefId(pub [u8; 8]);

impl DefId {
    /// Returns the id of an encoded definition.
    pub fn of(encoded: &[u8]) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"packmule/1 def");
        hash.update(encoded);
        Self(joined(&[&hash.finalize()]))
    }
}

/// Who may write the rows of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Mode {
    /// All devices edit the same rows.
    Shared,
    /// Each device owns its rows; a base gathers them.
    PerDevice,
}

/// How fine concurrent writes are distinguished.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Merge {
    /// A row is always shown as one author wrote it.
    Row,
    /// Concurrent edits of different columns merge.
    Cell,
}

/// What is done about concurrent writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Policy {
    /// A conflict stays open until someone resolves it.
    Manual,
    /// The last writer, by wall time, wins.
    Lww,
    /// This device wins.
    Prefer(DeviceId),
}

/// What is done about concurrent writes to one column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum ColumnMerge {
    /// As the table's policy decides.
    Table,
    /// Concurrent additions add up.
    Counter,
    /// The greatest wins.
    Max,
    /// The least wins.
    Min,
    /// The last writer wins.
    Lww,
}

/// How text is compared, of the collations that every SQLite has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Collation {
    /// By bytes.
    Binary,
    /// By bytes, with the 26 letters of ASCII folded.
    NoCase,
    /// By bytes, without trailing spaces.
    RTrim,
}

/// A column's default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Default<'a> {
    /// None declared.
    None,
    /// A literal.
    Literal(#[serde(borrow)] Value<'a>),
    /// CURRENT_TIME.
    Time,
    /// CURRENT_DATE.
    Date,
    /// CURRENT_TIMESTAMP.
    Timestamp,
    /// An expression, which does not travel: rows do, with the values that it gave.
    Expression,
}

/// By what rows of a table are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Rows {
    /// By their rowid, beside the key.
    Rowid,
    /// Declared WITHOUT ROWID.
    WithoutRowid,
    /// By their rowid alone: the application's table has no key. The one key column, an INTEGER, is its rowid.
    Keyless,
}

/// A definition's head; columns, unique constraints and foreign keys follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct TableHead<'a> {
    /// The table's name.
    pub name: &'a str,
    /// Shared or per-device.
    pub mode: Mode,
    /// Row or cell.
    pub merge: Merge,
    /// The table's policy.
    pub policy: Policy,
    /// Rows are only ever added.
    pub append: bool,
    /// By what its rows are found.
    pub rows: Rows,
    /// The key is an INTEGER PRIMARY KEY AUTOINCREMENT.
    pub autoincrement: bool,
    /// How many columns follow.
    pub columns: u16,
    /// How many unique constraints follow them.
    pub uniques: u16,
    /// How many foreign keys follow these.
    pub foreign_keys: u16,
}

/// One column; generated columns are not among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Column<'a> {
    /// Its name.
    pub name: &'a str,
    /// The declared type, maybe empty.
    pub decl_type: &'a str,
    /// The declared collation.
    pub collation: Collation,
    /// Declared NOT NULL.
    pub not_null: bool,
    /// The place in the primary key, from 1; 0 if it is not in it.
    pub key: u16,
    /// The default.
    #[serde(borrow)]
    pub default: Default<'a>,
    /// What is done about concurrent writes to it.
    pub merge: ColumnMerge,
}

/// A foreign key; the pairs of column names (here, there) follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ForeignKey<'a> {
    /// The table that it refers to.
    pub parent: &'a str,
    /// ON DELETE: 0 no action, 1 restrict, 2 set null, 3 set default, 4 cascade.
    pub on_delete: u8,
    /// ON UPDATE: likewise.
    pub on_update: u8,
    /// How many pairs of column names follow.
    pub columns: u16,
}

/// Writes a definition: the head, then items in the order that the head announced.
pub struct DefWriter<'b> {
    buf: &'b mut [u8],
    len: usize,
}

/// Without the bytes, which would not fit into a log.
#[cfg(feature = "defmt")]
impl defmt::Format for DefWriter<'_> {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "DefWriter {{ len: {=usize} }}", self.len);
    }
}

impl<'b> DefWriter<'b> {
    /// Begins with the head.
    ///
    /// # Errors
    /// [`NoRoom`].
    pub fn new(buf: &'b mut [u8], head: &TableHead<'_>) -> Result<Self, NoRoom> {
        let mut writer = Self { buf, len: 0 };
        writer.item(head)?;
        Ok(writer)
    }

    /// Adds a [`Column`], a unique constraint's number of columns (`u16`), one of its column
    /// numbers (`u16`), a [`ForeignKey`], or one of its pairs of names.
    ///
    /// # Errors
    /// [`NoRoom`].
    pub fn item<T: Serialize>(&mut self, item: &T) -> Result<(), NoRoom> {
        put_next(self.buf, &mut self.len, item)
    }

    /// Returns the encoded definition.
    pub fn finish(self) -> &'b [u8] {
        let Self { buf, len } = self;
        buf.get(..len).unwrap_or_default()
    }
}

/// Reads a definition: the head, then items in the order that the head announces.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct DefReader<'a> {
    /// The head.
    pub head: TableHead<'a>,
    rest: &'a [u8],
}

impl<'a> DefReader<'a> {
    /// Reads the head.
    ///
    /// # Errors
    /// [`DecodeError`] if it is not one.
    pub fn new(encoded: &'a [u8]) -> Result<Self, DecodeError> {
        let mut rest = encoded;
        Ok(Self { head: take(&mut rest)?, rest })
    }

    /// Returns the next item: see [`DefWriter::item`].
    ///
    /// # Errors
    /// [`DecodeError`] if it is not of that type.
    pub fn item<T: Deserialize<'a>>(&mut self) -> Result<T, DecodeError> {
        take(&mut self.rest)
    }

    /// Returns whether all of the input has been read.
    pub fn at_end(&self) -> bool {
        self.rest.is_empty()
    }
}
