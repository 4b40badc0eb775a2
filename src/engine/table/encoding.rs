//! Definitions as the log carries them.

use packmule_core::model::{Value, is_unseen};
use packmule_core::wire::{
    Column, DecodeError, DefId, DefReader, DefWriter, Default as WireDefault, FRAME_MAX, ForeignKey, Mode,
    NoRoom, Rows, TableHead,
};

use crate::engine::error::{Error, Result};
use crate::engine::store::value::OwnedValue;
use crate::engine::table::def::{
    ACTIONS, COLUMNS_MAX, ColumnDef, ColumnDefault, ForeignKeyDef, RULES_MAX, TableDef,
};

/// What stands in a frame besides a definition that fills it, in bytes, at most.
const FRAME_HEAD_MAX: usize = 128;

impl TableDef {
    /// Encodes the definition. Returns its id and the bytes.
    pub(crate) fn encode(&self) -> Result<(DefId, Vec<u8>)> {
        let mut buf = vec![0; 4096];
        loop {
            if let Ok(len) = self.encode_into(&mut buf) {
                buf.truncate(len);
                return Ok((DefId::of(&buf), buf));
            }
            if buf.len() > FRAME_MAX {
                return Err(Error::cannot_track(&self.name, "its definition is too large for a frame"));
            }
            buf.resize(buf.len() * 2, 0);
        }
    }

    /// Returns whether a frame of so many bytes has room for the definition.
    pub(crate) fn fits(&self, frame_bytes: usize) -> bool {
        self.encode().is_ok_and(|(_, body)| body.len() + FRAME_HEAD_MAX <= frame_bytes)
    }

    /// Encodes the definition into a buffer. Returns its length.
    fn encode_into(&self, buf: &mut [u8]) -> Result<usize, NoRoom> {
        let head = TableHead {
            name: &self.name,
            mode: self.mode,
            merge: self.merge,
            policy: self.policy,
            append: self.append,
            rows: match (self.without_rowid, self.keyless) {
                (_, true) => Rows::Keyless,
                (true, false) => Rows::WithoutRowid,
                (false, false) => Rows::Rowid,
            },
            autoincrement: self.autoincrement,
            columns: self.columns.len() as u16,
            uniques: self.uniques.len() as u16,
            foreign_keys: self.foreign_keys.len() as u16,
        };
        let mut writer = DefWriter::new(buf, &head)?;
        for c in &self.columns {
            writer.item(&Column {
                name: &c.name,
                decl_type: &c.decl_type,
                collation: c.collation,
                not_null: c.not_null,
                key: c.key,
                default: match &c.default {
                    ColumnDefault::None => WireDefault::None,
                    ColumnDefault::Literal(value) => WireDefault::Literal(value.borrow()),
                    ColumnDefault::Time => WireDefault::Time,
                    ColumnDefault::Date => WireDefault::Date,
                    ColumnDefault::Timestamp => WireDefault::Timestamp,
                    ColumnDefault::Expression => WireDefault::Expression,
                },
                merge: c.merge,
            })?;
        }
        for unique in &self.uniques {
            writer.item(&(unique.len() as u16))?;
            unique.iter().try_for_each(|at| writer.item(at))?;
        }
        for key in &self.foreign_keys {
            writer.item(&ForeignKey {
                parent: &key.parent,
                on_delete: key.on_delete,
                on_update: key.on_update,
                columns: key.columns.len() as u16,
            })?;
            key.columns.iter().try_for_each(|(here, there)| writer.item(&(here.as_str(), there.as_str())))?;
        }
        Ok(writer.finish().len())
    }

    /// Decodes a definition that came from outside, and refuses what no table can be.
    pub(crate) fn decode(encoded: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = DefReader::new(encoded)?;
        let head = reader.head;
        check_head(&head)?;
        let mut def = Self {
            name: head.name.into(),
            mode: head.mode,
            merge: head.merge,
            policy: head.policy,
            append: head.append,
            without_rowid: head.rows == Rows::WithoutRowid,
            keyless: head.rows == Rows::Keyless,
            autoincrement: head.autoincrement,
            columns: Vec::new(),
            uniques: Vec::new(),
            foreign_keys: Vec::new(),
        };
        for _ in 0..head.columns {
            let column = reader.item()?;
            def.add_column(column)?;
        }
        for _ in 0..head.uniques {
            def.uniques.push(decode_unique(&mut reader, head.columns)?);
        }
        for _ in 0..head.foreign_keys {
            let key = def.decode_foreign_key(&mut reader)?;
            def.foreign_keys.push(key);
        }
        let n = def.columns.iter().filter(|c| c.key > 0).count();
        if def.keyless && !(def.mode == Mode::PerDevice && n == 1 && def.columns[0].is_rowid()) {
            return Err(DecodeError::Malformed("a table without a key with an impossible key"));
        }
        let counted = def.columns.iter().all(|c| usize::from(c.key) <= n);
        if n == 0 || !counted || def.keys().count() != n || !reader.at_end() {
            return Err(DecodeError::Malformed("a table definition with an impossible key"));
        }
        Ok(def)
    }

    /// Decodes a definition of `_pm_def`.
    pub(crate) fn stored(encoded: &[u8]) -> Result<Self> {
        Self::decode(encoded).map_err(|e| Error::damaged(format!("`_pm_def`: {e}")))
    }

    /// Decodes a definition that another device has announced: besides, its names are ones that people can tell apart.
    pub(crate) fn hear(encoded: &[u8]) -> Result<Self, DecodeError> {
        let def = Self::decode(encoded)?;
        match def.unseen_name() {
            None => Ok(def),
            Some(_) => {
                Err(DecodeError::Malformed("a table definition whose names have letters that nobody sees"))
            }
        }
    }

    /// Returns a name of the table or of a column that has letters which nobody sees, or on which a terminal acts.
    pub(crate) fn unseen_name(&self) -> Option<&str> {
        let parents = self.foreign_keys.iter().map(|key| &key.parent);
        let columns = self.columns.iter().map(|column| &column.name);
        let mut names = std::iter::once(&self.name).chain(columns).chain(parents);
        names.find(|name| name.chars().any(is_unseen)).map(String::as_str)
    }

    /// Adds a decoded column, and refuses what no column can be.
    fn add_column(&mut self, c: Column<'_>) -> Result<(), DecodeError> {
        if c.name.is_empty() || c.name.contains('\0') || self.column(c.name).is_some() {
            return Err(DecodeError::Malformed("a table definition with an impossible column"));
        }
        let impossible =
            |_: Box<Error>| DecodeError::Malformed("a table definition with an impossible default");
        self.columns.push(ColumnDef {
            name: c.name.into(),
            decl_type: c.decl_type.into(),
            collation: c.collation,
            not_null: c.not_null,
            key: c.key,
            default: match c.default {
                WireDefault::None => ColumnDefault::None,
                // SQLite has no such value, and no literal of it.
                WireDefault::Literal(Value::Real(bits)) if f64::from_bits(bits.0).is_nan() => {
                    return Err(impossible(Error::damaged("NaN")));
                }
                WireDefault::Literal(Value::Big(_)) => {
                    return Err(impossible(Error::damaged("a value in pieces")));
                }
                WireDefault::Literal(value) => {
                    ColumnDefault::Literal(OwnedValue::of(value).map_err(impossible)?)
                }
                WireDefault::Time => ColumnDefault::Time,
                WireDefault::Date => ColumnDefault::Date,
                WireDefault::Timestamp => ColumnDefault::Timestamp,
                WireDefault::Expression => ColumnDefault::Expression,
            },
            merge: c.merge,
        });
        Ok(())
    }

    /// Decodes a foreign key, whose columns must be there.
    fn decode_foreign_key(&self, reader: &mut DefReader<'_>) -> Result<ForeignKeyDef, DecodeError> {
        let key: ForeignKey<'_> = reader.item()?;
        let mut columns = Vec::new();
        for _ in 0..key.columns {
            let (here, there): (&str, &str) = reader.item()?;
            columns.push((here.to_owned(), there.to_owned()));
        }
        let action = |number: u8| ACTIONS.get(usize::from(number)).is_some();
        if columns.is_empty()
            || columns.iter().any(|(here, _)| self.column(here).is_none())
            || !action(key.on_delete)
            || !action(key.on_update)
        {
            return Err(DecodeError::Malformed("a table definition with an impossible foreign key"));
        }
        Ok(ForeignKeyDef {
            parent: key.parent.into(),
            columns,
            on_delete: key.on_delete,
            on_update: key.on_update,
        })
    }
}

/// Refuses a name that is reserved, and an impossible number of columns.
fn check_head(head: &TableHead<'_>) -> Result<(), DecodeError> {
    if usize::from(head.columns) > COLUMNS_MAX || head.columns == 0 {
        return Err(DecodeError::Malformed("a table definition with an impossible number of columns"));
    }
    if usize::from(head.uniques) > RULES_MAX || usize::from(head.foreign_keys) > RULES_MAX {
        return Err(DecodeError::Malformed(
            "a table definition with an impossible number of UNIQUEs or foreign keys",
        ));
    }
    let name = head.name.to_ascii_lowercase();
    let reserved = name.starts_with("_pm_") || name.starts_with("sqlite_") || hides_function(&name);
    if name.is_empty() || reserved || name.contains('\0') {
        return Err(DecodeError::Malformed("a table definition whose name is reserved"));
    }
    Ok(())
}

/// Returns whether a table of this name, in lower case, hides a function of SQLite's by which tables are read.
pub(super) fn hides_function(name: &str) -> bool {
    name.starts_with("pragma_") || matches!(name, "json_each" | "json_tree")
}

/// Decodes the columns of a UNIQUE, of a table with so many `columns`.
fn decode_unique(reader: &mut DefReader<'_>, columns: u16) -> Result<Vec<u16>, DecodeError> {
    let mut unique = Vec::new();
    for _ in 0..reader.item::<u16>()? {
        unique.push(reader.item::<u16>()?);
    }
    if unique.is_empty() || unique.iter().any(|at| *at >= columns) {
        return Err(DecodeError::Malformed("a table definition with an impossible UNIQUE"));
    }
    Ok(unique)
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;
    use crate::engine::store::temporary;

    #[test]
    fn definitions_round_trip_through_the_wire_and_through_sqlite() {
        let db = Connection::open_in_memory().unwrap();
        temporary::make(&db).unwrap();
        db.execute_batch(
            "CREATE TABLE p (a TEXT, b INT, PRIMARY KEY (b, a)) WITHOUT ROWID;
             CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, n TEXT COLLATE NOCASE NOT NULL DEFAULT 'it''s',
               x REAL DEFAULT -1.5, b BLOB DEFAULT x'00ff', w DEFAULT (abs(-1)), ts DEFAULT CURRENT_TIMESTAMP, y INT,
               g AS (x + 1), UNIQUE (n), UNIQUE (x, b), FOREIGN KEY (n, y) REFERENCES p (a, b) ON DELETE CASCADE)",
        )
        .unwrap();
        for table in ["t", "p"] {
            let def = TableDef::read(&db, table).unwrap();
            let (id, encoded) = def.encode().unwrap();
            let back = TableDef::decode(&encoded).unwrap();
            assert_eq!(back, def);
            let other = Connection::open_in_memory().unwrap();
            temporary::make(&other).unwrap();
            other.execute_batch(&back.create_sql(false)).unwrap();
            let mut again = TableDef::read(&other, table).unwrap();
            for (a, b) in again.columns.iter_mut().zip(&def.columns) {
                if b.default == ColumnDefault::Expression {
                    a.default = ColumnDefault::Expression;
                }
                assert!(!a.not_null || a.key > 0);
                a.not_null = b.not_null;
            }
            assert!(again.uniques.is_empty());
            again.uniques.clone_from(&def.uniques);
            assert_eq!(again.encode().unwrap().0, id, "{again:?}");
        }
    }
}
