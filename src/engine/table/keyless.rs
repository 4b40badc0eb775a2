//! Tables without any key (what pandas' `to_sql` and the shell's `.import` make), which a device has to itself.
//!
//! Their rows are a multiset: two that are equal are two. What tells them apart is the rowid, which every such table has.
//! It stands in the definition as the first column and is the key, so that everything else treats the table as one with an
//! INTEGER PRIMARY KEY: `"rowid"` names the rowid where no column has taken that name. A base has a column of that name.
//!
//! VACUUM may give the rows other rowids: `capture/renumbered.rs`.

use packmule_core::wire::ColumnMerge;

use crate::engine::error::{Error, Result};
use crate::engine::table::def::{ColumnDef, ColumnDefault, ROWID_NAMES, TableDef};

/// By what the rows of a table are told apart, where it has no primary key.
#[derive(Clone, Copy)]
pub(crate) enum By<'a> {
    /// These columns of a UNIQUE index; the columns of the only one, if empty.
    Columns(&'a [String]),
    /// Those of the only UNIQUE index; the rowid, if there is none.
    IndexOrRowid,
    /// The rowid, which this name has in the definition.
    Rowid(&'a str),
}

impl TableDef {
    /// Returns by what the rows of a table that is tracked already are told apart.
    pub(crate) fn by<'a>(&'a self, columns: &'a mut Vec<String>) -> By<'a> {
        if self.keyless {
            return By::Rowid(&self.columns[0].name);
        }
        columns.extend(self.keys().map(|at| self.columns[at].name.clone()));
        By::Columns(columns)
    }

    /// Puts the rowid before the columns, as the key; by this name, if it had one before.
    pub(super) fn take_rowid(&mut self, named: Option<&str>) -> Result<()> {
        let free = |name: &&str| self.column(name).is_none();
        let name = match named {
            Some(name) => Some(name).filter(free),
            None => ROWID_NAMES.into_iter().find(free),
        };
        let Some(name) = name.filter(|_| self.keys().next().is_none()) else {
            let reason = "it was tracked without a key, and has a primary key or a column of the rowid's name now: \
                          undo that, or run `packmule untrack` and `packmule track` here, and at each base that gathers it";
            return Err(Error::cannot_track(&self.name, reason));
        };
        let rowid = ColumnDef {
            name: name.into(),
            decl_type: "INTEGER".into(),
            collation: packmule_core::wire::Collation::Binary,
            not_null: true,
            key: 1,
            default: ColumnDefault::None,
            merge: ColumnMerge::Table,
        };
        self.columns.insert(0, rowid);
        self.keyless = true;
        Ok(())
    }
}

impl ColumnDef {
    /// Returns whether it can be the rowid of a table without a key.
    pub(super) fn is_rowid(&self) -> bool {
        self.decl_type == "INTEGER" && ROWID_NAMES.contains(&self.name.as_str())
    }
}
