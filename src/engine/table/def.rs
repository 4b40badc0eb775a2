//! Table definitions: what a table is, wherever its definition comes from.
//!
//! `schema` reads one from a database, `encoding` from the log, and `ddl` makes a table of it again.

use packmule_core::wire::{Collation, ColumnMerge, Merge, Mode, Policy};

use crate::engine::error::Result;
use crate::engine::store::value::{self, Affinity, OwnedValue};

/// What SQL calls the rowid.
pub(crate) const ROWID_NAMES: [&str; 3] = ["rowid", "_rowid_", "oid"];

/// A column's default.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ColumnDefault {
    None,
    Literal(OwnedValue),
    /// `CURRENT_TIME`
    Time,
    /// `CURRENT_DATE`
    Date,
    /// `CURRENT_TIMESTAMP`
    Timestamp,
    /// Anything else, which does not travel.
    Expression,
}

/// A column's definition.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ColumnDef {
    pub name: String,
    pub decl_type: String,
    pub collation: Collation,
    pub not_null: bool,
    /// The place in the primary key, from 1; 0 if it is not in it.
    pub key: u16,
    pub default: ColumnDefault,
    pub merge: ColumnMerge,
}

/// A foreign key's definition.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ForeignKeyDef {
    pub parent: String,
    /// Column names here and there.
    pub columns: Vec<(String, String)>,
    /// Numbers of [`ACTIONS`].
    pub on_delete: u8,
    pub on_update: u8,
}

/// A table's definition.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TableDef {
    pub name: String,
    pub mode: Mode,
    pub merge: Merge,
    pub policy: Policy,
    pub append: bool,
    pub without_rowid: bool,
    /// The application's table has no key: its rowid stands as the first column, and is the key.
    pub keyless: bool,
    pub autoincrement: bool,
    pub columns: Vec<ColumnDef>,
    /// Column numbers of each UNIQUE constraint over plain columns.
    pub uniques: Vec<Vec<u16>>,
    pub foreign_keys: Vec<ForeignKeyDef>,
}

/// The first column of a gathered table.
pub(crate) const DEVICE_COLUMN: &str = "device";

/// The most columns that a table can have: more do not fit into a frame even when every value is carried in pieces.
pub(crate) const COLUMNS_MAX: usize = 1000;

/// The most UNIQUEs that a table can have, and the most foreign keys: each row that comes is held against all of them.
pub(crate) const RULES_MAX: usize = 100;

/// What a foreign key does, by the number that the wire has for it.
pub(super) const ACTIONS: [&str; 5] = ["NO ACTION", "RESTRICT", "SET NULL", "SET DEFAULT", "CASCADE"];

impl TableDef {
    /// Returns the number of the column with this name.
    pub(crate) fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| c.name.eq_ignore_ascii_case(name))
    }

    /// Returns the numbers of the key columns, in the order of the key.
    pub(crate) fn keys(&self) -> impl Iterator<Item = usize> + '_ {
        let n = self.columns.iter().map(|c| c.key).max().unwrap_or(0);
        (1..=n).filter_map(|place| self.columns.iter().position(|c| c.key == place))
    }

    /// Returns for each column whether it is part of the key.
    pub(crate) fn key_flags(&self) -> Vec<bool> {
        self.columns.iter().map(|c| c.key > 0).collect()
    }

    /// Returns whether the key is an alias of the rowid.
    pub(crate) fn integer_key(&self) -> bool {
        let mut keys = self.keys();
        match (keys.next(), keys.next()) {
            (Some(at), None) => {
                !self.without_rowid && self.columns[at].decl_type.eq_ignore_ascii_case("INTEGER")
            }
            _ => false,
        }
    }

    /// Compares the columns that both have. Returns, for people, one of which the two would make different values of
    /// the same input.
    pub(crate) fn different_column(&self, other: &Self) -> Option<String> {
        self.columns.iter().find_map(|a| {
            let b = &other.columns[other.column(&a.name)?];
            let kind = |c: &ColumnDef| (c.affinity(), c.collation, c.constant());
            (kind(a) != kind(b))
                .then(|| format!("column `{}` is {} here and {} there", a.name, a.show(), b.show()))
        })
    }

    /// Returns whether another definition has the same columns as its primary key, in the same order, and of the same
    /// kind: what tells rows apart here does there.
    pub(crate) fn has_key_of(&self, other: &Self) -> bool {
        let kinds = |def: &Self| {
            let kind = |c: &ColumnDef| (c.name.to_ascii_lowercase(), c.affinity(), c.collation);
            def.keys().map(|at| kind(&def.columns[at])).collect::<Vec<_>>()
        };
        kinds(self) == kinds(other)
    }

    /// Returns whether another definition has the same columns, in whatever order, which store and compare values alike.
    pub(crate) fn has_columns_of(&self, other: &Self) -> bool {
        let is_there =
            |c: &ColumnDef| other.column(&c.name).is_some_and(|at| other.columns[at].stores_like(c));
        self.columns.len() == other.columns.len() && self.columns.iter().all(is_there)
    }

    /// Shows the primary key, for people.
    pub(crate) fn show_key(&self) -> String {
        let columns = self.keys().map(|at| {
            let column = &self.columns[at];
            format!("`{}` {}", column.name, column.show())
        });
        columns.collect::<Vec<_>>().join(", ")
    }

    /// Returns the reason if a base cannot gather the table's rows.
    pub(crate) fn ungatherable(&self) -> Option<&'static str> {
        (self.mode == Mode::PerDevice && self.column(DEVICE_COLUMN).is_some()).then_some(
            "it has a column `device`, which is what a base puts before the rows of each device; rename it",
        )
    }

    /// Returns the columns whose concurrent additions add up.
    pub(crate) fn counters(&self) -> Vec<usize> {
        (0..self.columns.len()).filter(|at| self.columns[*at].merge == ColumnMerge::Counter).collect()
    }

    /// Returns whether deletes must carry the row's last values.
    pub(crate) fn needs_baseline(&self) -> bool {
        self.mode == Mode::Shared && (self.merge == Merge::Cell || !self.counters().is_empty())
    }

    /// Returns whether the wall-clock time of each write counts, and not only that of its seal.
    pub(crate) fn timed(&self) -> bool {
        self.mode == Mode::Shared
            && (self.policy == Policy::Lww || self.columns.iter().any(|c| c.merge == ColumnMerge::Lww))
    }

    /// Returns a name of the rowid that no column has taken.
    pub(crate) fn rowid_name(&self) -> &'static str {
        ROWID_NAMES.into_iter().find(|name| self.column(name).is_none()).unwrap_or("rowid")
    }

    /// Returns the columns of the key, quoted, each after a prefix.
    pub(crate) fn key_list(&self, prefix: &str) -> String {
        self.keys()
            .map(|at| format!("{prefix}{}", value::column(&self.columns[at].name)))
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// Says how it merges.
    pub(crate) fn how_it_merges(&self) -> String {
        let merge = match self.merge {
            Merge::Row => "row",
            Merge::Cell => "cell",
        };
        let policy = match self.policy {
            Policy::Manual => "manual".to_owned(),
            Policy::Lww => "lww".to_owned(),
            Policy::Prefer(device) => format!("prefer-device={device}"),
        };
        format!("merge {merge}, policy {policy}")
    }

    /// Returns whether its definition declares how its rows merge: that of a shared table.
    pub(crate) fn declares(&self) -> bool {
        self.mode == Mode::Shared
    }
}

impl ColumnDef {
    /// Returns the affinity that SQLite gives to the declared type.
    pub(crate) fn affinity(&self) -> Affinity {
        Affinity::of(&self.decl_type)
    }

    /// Returns the default of rows that are older than the column.
    pub(crate) fn constant(&self) -> OwnedValue {
        match &self.default {
            ColumnDefault::Literal(value) => value.clone(),
            _ => OwnedValue::Null,
        }
    }

    /// Returns whether a value is that of rows which are older than the column: its default, as its type stores it (of
    /// integers, '7' is 7).
    pub(crate) fn is_constant(&self, value: &OwnedValue) -> bool {
        let constant = self.constant();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap_or_default();
        *value == constant
            || match (value, &constant) {
                (OwnedValue::Int(n), OwnedValue::Text(t)) => text(t).trim().parse() == Ok(*n),
                (OwnedValue::Real(x), OwnedValue::Text(t)) => text(t).trim().parse() == Ok(*x),
                (OwnedValue::Real(x), OwnedValue::Int(n)) => *x == *n as f64,
                (OwnedValue::Int(n), OwnedValue::Real(x)) => *x == *n as f64,
                (OwnedValue::Text(t), OwnedValue::Int(n)) => text(t) == n.to_string(),
                _ => false,
            } && self.affinity() != Affinity::Blob
    }

    /// Returns whether a row can be inserted without a value for it.
    pub(crate) fn is_optional(&self) -> bool {
        !self.not_null || matches!(self.default, ColumnDefault::Literal(_))
    }

    /// Returns its collation in SQL, to stand behind a name or a parameter.
    pub(crate) fn collate(&self) -> &'static str {
        match self.collation {
            Collation::Binary => "",
            Collation::NoCase => " COLLATE NOCASE",
            Collation::RTrim => " COLLATE RTRIM",
        }
    }

    /// Returns its type, collation and default, for people.
    pub(crate) fn show(&self) -> String {
        let mut text = if self.decl_type.is_empty() { "no type" } else { &self.decl_type }.to_owned();
        text.push_str(self.collate());
        if let ColumnDefault::Literal(value) = &self.default {
            text.push_str(&format!(" DEFAULT {}", value::literal(value)));
        }
        text
    }

    /// Returns whether another column stores and compares values as this one does: it has its affinity and collation.
    pub(crate) fn stores_like(&self, other: &Self) -> bool {
        (self.affinity(), self.collation) == (other.affinity(), other.collation)
    }

    /// Encodes what two columns must have in common to be one: type, collation and default.
    pub(crate) fn kind(&self) -> Result<Vec<u8>> {
        let mut kind = vec![self.affinity() as u8, self.collation as u8];
        kind.extend(value::encode(&self.constant().borrow())?);
        Ok(kind)
    }
}
