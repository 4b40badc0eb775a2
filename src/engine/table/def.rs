//! Table definitions: read from the database, carried as data, made into tables again.

use packmule_core::wire::Default as WireDefault;
use packmule_core::wire::{
    Collation, Column, ColumnMerge, DefId, DefReader, DefWriter, ForeignKey, Merge, Mode, Policy, TableHead,
};
use rusqlite::Connection;

use crate::engine::error::{Error, Result};
use crate::engine::store::value::{self, Affinity, OwnedValue};

/// A column's default, owned.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Default {
    None,
    Literal(OwnedValue),
    Time,
    Date,
    Timestamp,
    Expression,
}

/// One column.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ColumnDef {
    pub name: String,
    pub decl_type: String,
    pub collation: Collation,
    pub not_null: bool,
    /// The place in the primary key, from 1; 0 if it is not in it.
    pub key: u16,
    pub default: Default,
    pub merge: ColumnMerge,
}

/// A foreign key.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ForeignKeyDef {
    pub parent: String,
    /// Column names here and there.
    pub columns: Vec<(String, String)>,
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
    pub autoincrement: bool,
    pub columns: Vec<ColumnDef>,
    /// Column numbers of each UNIQUE constraint over plain columns.
    pub uniques: Vec<Vec<u16>>,
    pub foreign_keys: Vec<ForeignKeyDef>,
}

/// More columns than this do not fit into a frame even when every value is carried in pieces.
pub(crate) const COLUMNS_MAX: usize = 1000;

pub(super) const ACTIONS: [&str; 5] = ["NO ACTION", "RESTRICT", "SET NULL", "SET DEFAULT", "CASCADE"];

impl TableDef {
    /// Reads the definition of a table of this database; how it merges is for the caller to set.
    pub(crate) fn read(db: &Connection, table: &str) -> Result<Self> {
        use rusqlite::OptionalExtension;
        let found = db
            .query_row(
                "SELECT name, type, wr, strict FROM pragma_table_list WHERE schema = 'main' AND name = ?1 COLLATE NOCASE",
                [table],
                |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get(2)?, row.get(3)?)),
            )
            .optional()?;
        let Some((name, kind, without_rowid, strict)) = found else {
            return Err(Error::cannot_track(table, "there is no such table in this database"));
        };
        let refuse = |reason: &str| Err(Error::cannot_track(&name, reason));
        if kind != "table" {
            return refuse(&format!("it is a {kind} table or view; track the tables that it is made from"));
        }
        let lower = name.to_ascii_lowercase();
        if lower.starts_with("_pm_") || lower.starts_with("sqlite_") {
            return refuse("it belongs to Packmule or to SQLite itself");
        }
        let mut def = Self {
            name,
            mode: Mode::Shared,
            merge: Merge::Row,
            policy: Policy::Manual,
            append: false,
            without_rowid,
            autoincrement: false,
            columns: Vec::new(),
            uniques: Vec::new(),
            foreign_keys: Vec::new(),
        };
        def.read_columns(db, strict)?;
        if def.columns.len() > COLUMNS_MAX {
            return Err(Error::cannot_track(&def.name, format!("it has more than {COLUMNS_MAX} columns")));
        }
        if def.keys().next().is_none() {
            return Err(Error::cannot_track(
                &def.name,
                "it has no primary key, so that its rows cannot be told apart; make a new table with one, and copy the rows",
            ));
        }
        if !def.without_rowid && ["rowid", "_rowid_", "oid"].iter().all(|name| def.column(name).is_some()) {
            return Err(Error::cannot_track(
                &def.name,
                "its columns have taken every name of the rowid, by which large values are read; rename one of \
                 `rowid`, `_rowid_` and `oid`",
            ));
        }
        def.read_uniques(db)?;
        def.read_foreign_keys(db)?;
        Ok(def)
    }

    fn read_columns(&mut self, db: &Connection, strict: bool) -> Result<()> {
        let mut statement =
            db.prepare("SELECT name, type, \"notnull\", dflt_value, pk, hidden FROM pragma_table_xinfo(?1)")?;
        let mut rows = statement.query([&self.name])?;
        while let Some(row) = rows.next()? {
            let hidden: i64 = row.get(5)?;
            if hidden != 0 {
                continue; // Generated columns make themselves.
            }
            let name: String = row.get(0)?;
            let (_, collation, _, _, autoincrement) =
                db.column_metadata(Some("main"), self.name.as_str(), name.as_str())?;
            let collation = collation.map(|c| c.to_string_lossy().to_ascii_uppercase()).unwrap_or_default();
            let collation = match collation.as_str() {
                "BINARY" | "" => Collation::Binary,
                "NOCASE" => Collation::NoCase,
                "RTRIM" => Collation::RTrim,
                other => {
                    return Err(Error::cannot_track(
                        &self.name,
                        format!(
                            "column `{name}` uses the collation {other}, which only your application has"
                        ),
                    ));
                }
            };
            self.autoincrement |= autoincrement;
            let mut decl_type: String = row.get(1)?;
            if strict && decl_type.eq_ignore_ascii_case("ANY") {
                // Takes values as they are, which elsewhere only a column without a type does.
                decl_type.clear();
            }
            let default: Option<String> = row.get(3)?;
            self.columns.push(ColumnDef {
                default: read_default(db, default.as_deref())?,
                name,
                decl_type,
                collation,
                not_null: row.get(2)?,
                key: row.get(4)?,
                merge: ColumnMerge::Table,
            });
        }
        Ok(())
    }

    fn read_uniques(&mut self, db: &Connection) -> Result<()> {
        let mut statement = db.prepare(
            "SELECT name FROM pragma_index_list(?1) WHERE \"unique\" AND origin <> 'pk' AND NOT partial ORDER BY name",
        )?;
        let names: Vec<String> =
            statement.query_map([&self.name], |row| row.get(0))?.collect::<Result<_, _>>()?;
        let mut columns = db.prepare("SELECT name FROM pragma_index_xinfo(?1) WHERE key ORDER BY seqno")?;
        for index in names {
            let names: Vec<Option<String>> =
                columns.query_map([&index], |row| row.get(0))?.collect::<Result<_, _>>()?;
            let unique: Option<Vec<u16>> = names
                .iter()
                .map(|name| name.as_ref().and_then(|name| self.column(name)).map(|at| at as u16))
                .collect();
            // One over an expression stays this database's own.
            if let Some(unique) = unique.filter(|unique| !self.uniques.contains(unique)) {
                self.uniques.push(unique);
            }
        }
        self.uniques.sort();
        Ok(())
    }

    fn read_foreign_keys(&mut self, db: &Connection) -> Result<()> {
        let mut statement = db.prepare(
            "SELECT id, \"table\", \"from\", \"to\", on_update, on_delete FROM pragma_foreign_key_list(?1) ORDER BY id, seq",
        )?;
        let mut rows = statement.query([&self.name])?;
        let mut last = None;
        let mut found: Vec<ForeignKeyDef> = Vec::new();
        while let Some(row) = rows.next()? {
            let id: i64 = row.get(0)?;
            let action = |at: usize| -> Result<u8> {
                let name: String = row.get(at)?;
                Ok(ACTIONS.iter().position(|a| *a == name).unwrap_or(0) as u8)
            };
            if last != Some(id) {
                found.push(ForeignKeyDef {
                    parent: row.get(1)?,
                    columns: Vec::new(),
                    on_update: action(4)?,
                    on_delete: action(5)?,
                });
                last = Some(id);
            }
            let to: Option<String> = row.get(3)?;
            if let Some(key) = found.last_mut() {
                // Without a column named, the parent's primary key is meant.
                let at = key.columns.len();
                let to = match to {
                    Some(to) => to,
                    None => parent_key(db, &key.parent, at)?,
                };
                key.columns.push((row.get(2)?, to));
            }
        }
        found.sort_by(|a, b| (&a.parent, &a.columns).cmp(&(&b.parent, &b.columns)));
        self.foreign_keys = found;
        Ok(())
    }

    /// The number of the column with this name.
    pub(crate) fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| c.name.eq_ignore_ascii_case(name))
    }

    /// The numbers of the key columns, in the order of the key.
    pub(crate) fn keys(&self) -> impl Iterator<Item = usize> + '_ {
        let n = self.columns.iter().map(|c| c.key).max().unwrap_or(0);
        (1..=n).filter_map(|place| self.columns.iter().position(|c| c.key == place))
    }

    /// Whether each column is part of the key.
    pub(crate) fn key_flags(&self) -> Vec<bool> {
        self.columns.iter().map(|c| c.key > 0).collect()
    }

    /// Whether the key is an alias of the rowid.
    pub(crate) fn integer_key(&self) -> bool {
        let mut keys = self.keys();
        match (keys.next(), keys.next()) {
            (Some(at), None) => {
                !self.without_rowid && self.columns[at].decl_type.eq_ignore_ascii_case("INTEGER")
            }
            _ => false,
        }
    }

    /// The definition as bytes, and its id.
    pub(crate) fn encode(&self) -> Result<(DefId, Vec<u8>)> {
        let mut buf = vec![0; 4096];
        loop {
            if let Ok(len) = self.encode_into(&mut buf) {
                buf.truncate(len);
                return Ok((DefId::of(&buf), buf));
            }
            if buf.len() > packmule_core::wire::FRAME_MAX {
                return Err(Error::cannot_track(&self.name, "its definition is too large for a frame"));
            }
            buf.resize(buf.len() * 2, 0);
        }
    }

    fn encode_into(&self, buf: &mut [u8]) -> std::result::Result<usize, packmule_core::wire::NoRoom> {
        let head = TableHead {
            name: &self.name,
            mode: self.mode,
            merge: self.merge,
            policy: self.policy,
            append: self.append,
            without_rowid: self.without_rowid,
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
                    Default::None => WireDefault::None,
                    Default::Literal(value) => WireDefault::Literal(value.borrow()),
                    Default::Time => WireDefault::Time,
                    Default::Date => WireDefault::Date,
                    Default::Timestamp => WireDefault::Timestamp,
                    Default::Expression => WireDefault::Expression,
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

    /// Reads a definition that came from outside, and refuses what no table can be.
    pub(crate) fn decode(encoded: &[u8]) -> Result<Self, packmule_core::wire::DecodeError> {
        let bad = packmule_core::wire::DecodeError::Malformed;
        let mut reader = DefReader::new(encoded)?;
        let head = reader.head;
        if head.columns as usize > COLUMNS_MAX || head.columns == 0 {
            return Err(bad("a table definition with an impossible number of columns"));
        }
        let lower = head.name.to_ascii_lowercase();
        if lower.is_empty()
            || lower.starts_with("_pm_")
            || lower.starts_with("sqlite_")
            || lower.contains('\0')
        {
            return Err(bad("a table definition whose name is reserved"));
        }
        let mut def = Self {
            name: head.name.into(),
            mode: head.mode,
            merge: head.merge,
            policy: head.policy,
            append: head.append,
            without_rowid: head.without_rowid,
            autoincrement: head.autoincrement,
            columns: Vec::new(),
            uniques: Vec::new(),
            foreign_keys: Vec::new(),
        };
        for _ in 0..head.columns {
            let c: Column<'_> = reader.item()?;
            if c.name.is_empty() || c.name.contains('\0') || def.column(c.name).is_some() {
                return Err(bad("a table definition with an impossible column"));
            }
            def.columns.push(ColumnDef {
                name: c.name.into(),
                decl_type: c.decl_type.into(),
                collation: c.collation,
                not_null: c.not_null,
                key: c.key,
                default: match c.default {
                    WireDefault::None => Default::None,
                    WireDefault::Literal(value) => Default::Literal(
                        OwnedValue::of(value)
                            .map_err(|_| bad("a table definition with an impossible default"))?,
                    ),
                    WireDefault::Time => Default::Time,
                    WireDefault::Date => Default::Date,
                    WireDefault::Timestamp => Default::Timestamp,
                    WireDefault::Expression => Default::Expression,
                },
                merge: c.merge,
            });
        }
        for _ in 0..head.uniques {
            let mut unique = Vec::new();
            for _ in 0..reader.item::<u16>()? {
                unique.push(reader.item::<u16>()?);
            }
            if unique.is_empty() || unique.iter().any(|at| *at >= head.columns) {
                return Err(bad("a table definition with an impossible UNIQUE"));
            }
            def.uniques.push(unique);
        }
        for _ in 0..head.foreign_keys {
            let key: ForeignKey<'_> = reader.item()?;
            let mut columns = Vec::new();
            for _ in 0..key.columns {
                let (here, there): (&str, &str) = reader.item()?;
                columns.push((here.to_owned(), there.to_owned()));
            }
            if columns.iter().any(|(here, _)| def.column(here).is_none())
                || key.on_delete > 4
                || key.on_update > 4
            {
                return Err(bad("a table definition with an impossible foreign key"));
            }
            def.foreign_keys.push(ForeignKeyDef {
                parent: key.parent.into(),
                columns,
                on_delete: key.on_delete,
                on_update: key.on_update,
            });
        }
        let n = def.columns.iter().filter(|c| c.key > 0).count();
        if n == 0 || def.keys().count() != n || !reader.at_end() {
            return Err(bad("a table definition with an impossible key"));
        }
        Ok(def)
    }

    /// A column of both that would make other values of the same ones: its name, and how each has it.
    pub(crate) fn different_column(&self, other: &Self) -> Option<String> {
        self.columns.iter().find_map(|a| {
            let b = &other.columns[other.column(&a.name)?];
            let kind = |c: &ColumnDef| (c.affinity(), c.collation, c.constant());
            (kind(a) != kind(b))
                .then(|| format!("column `{}` is {} here and {} there", a.name, a.show(), b.show()))
        })
    }

    /// Whether another definition has the same columns as its primary key, in the same order.
    pub(crate) fn has_key_of(&self, other: &Self) -> bool {
        let names =
            |def: &Self| def.keys().map(|at| def.columns[at].name.to_ascii_lowercase()).collect::<Vec<_>>();
        names(self) == names(other)
    }

    /// Why a base could not gather the table's rows.
    pub(crate) fn ungatherable(&self) -> Option<&'static str> {
        (self.mode == Mode::PerDevice && self.column(DEVICE_COLUMN).is_some()).then_some(
            "it has a column `device`, which is what a base puts before the rows of each device; rename it",
        )
    }

    /// The columns whose concurrent additions add up.
    pub(crate) fn counters(&self) -> Vec<usize> {
        (0..self.columns.len()).filter(|at| self.columns[*at].merge == ColumnMerge::Counter).collect()
    }

    /// Whether deletes must carry the row's last values.
    pub(crate) fn needs_image(&self) -> bool {
        self.mode == Mode::Shared && (self.merge == Merge::Cell || !self.counters().is_empty())
    }

    /// Whether the time of each write counts, and not only that of its seal.
    pub(crate) fn timed(&self) -> bool {
        self.mode == Mode::Shared
            && (self.policy == Policy::Lww || self.columns.iter().any(|c| c.merge == ColumnMerge::Lww))
    }
}

impl ColumnDef {
    pub(crate) fn affinity(&self) -> Affinity {
        Affinity::of(&self.decl_type)
    }

    /// The default that rows have which were there before the column.
    pub(crate) fn constant(&self) -> OwnedValue {
        match &self.default {
            Default::Literal(value) => value.clone(),
            _ => OwnedValue::Null,
        }
    }

    /// Whether a row can be inserted without it.
    pub(crate) fn is_optional(&self) -> bool {
        !self.not_null || matches!(self.default, Default::Literal(_))
    }

    /// Its type, collation and default, for people.
    pub(crate) fn show(&self) -> String {
        let mut text = if self.decl_type.is_empty() { "no type" } else { &self.decl_type }.to_owned();
        text.push_str(match self.collation {
            Collation::Binary => "",
            Collation::NoCase => " COLLATE NOCASE",
            Collation::RTrim => " COLLATE RTRIM",
        });
        if let Default::Literal(value) = &self.default {
            text.push_str(&format!(" DEFAULT {}", value::literal(value)));
        }
        text
    }
}

/// The first column of a gathered table.
pub(crate) const DEVICE_COLUMN: &str = "device";

fn parent_key(db: &Connection, parent: &str, at: usize) -> Result<String> {
    use rusqlite::OptionalExtension;
    let name = db
        .query_row("SELECT name FROM pragma_table_info(?1) WHERE pk = ?2", (parent, at as i64 + 1), |row| {
            row.get(0)
        })
        .optional()?;
    Ok(name.unwrap_or_else(|| "rowid".into()))
}

/// A default as SQLite shows it: its text, of which only literals travel.
fn read_default(db: &Connection, text: Option<&str>) -> Result<Default> {
    let Some(text) = text.map(str::trim) else { return Ok(Default::None) };
    let bare = text.trim_start_matches('(').trim_end_matches(')').trim();
    match bare.to_ascii_uppercase().as_str() {
        "CURRENT_TIME" => return Ok(Default::Time),
        "CURRENT_DATE" => return Ok(Default::Date),
        "CURRENT_TIMESTAMP" => return Ok(Default::Timestamp),
        "NULL" => return Ok(Default::None),
        _ => {}
    }
    let number = |t: &str| {
        !t.is_empty()
            && t.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'+' | b'-' | b'_'))
            && t.trim_start_matches(['+', '-']).starts_with(|c: char| c.is_ascii_digit() || c == '.')
    };
    let quoted = |t: &str, q: char| {
        t.len() >= 2
            && t.starts_with(q)
            && t.ends_with(q)
            && !t[1..t.len() - 1].replace(&format!("{q}{q}"), "").contains(q)
    };
    let blob = |t: &str| t.len() >= 3 && t[..1].eq_ignore_ascii_case("x") && quoted(&t[1..], '\'');
    let boolean = matches!(bare.to_ascii_uppercase().as_str(), "TRUE" | "FALSE");
    if !(number(bare) || quoted(bare, '\'') || bare.is_ascii() && blob(bare) || boolean) {
        // SQLite takes a double-quoted default for a string; so do we.
        if quoted(bare, '"') {
            let inner = bare[1..bare.len() - 1].replace("\"\"", "\"");
            return Ok(Default::Literal(OwnedValue::Text(inner.into_bytes())));
        }
        return Ok(Default::Expression);
    }
    let value = db
        .query_row(&format!("SELECT {bare}"), [], |row| Ok(OwnedValue::of(value::from_sql(row.get_ref(0)?))));
    match value {
        Ok(value) => Ok(Default::Literal(value?)),
        Err(_) => Ok(Default::Expression),
    }
}

impl TableDef {
    /// A name for the rowid that no column has taken.
    pub(crate) fn rowid_name(&self) -> &'static str {
        ["rowid", "_rowid_", "oid"].into_iter().find(|name| self.column(name).is_none()).unwrap_or("rowid")
    }

    /// The columns of the key, quoted.
    pub(crate) fn key_list(&self, before: &str) -> String {
        self.keys()
            .map(|at| format!("{before}{}", value::quote(&self.columns[at].name)))
            .collect::<Vec<_>>()
            .join(", ")
    }
}

impl TableDef {
    /// As `track` would be told.
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
        format!("--merge {merge} --policy {policy}")
    }

    /// Whether its rows are what it declares about.
    pub(crate) fn declares(&self) -> bool {
        self.mode == Mode::Shared
    }
}

impl ColumnDef {
    /// What two columns must have in common to be one: the bytes are equal then.
    pub(crate) fn kind(&self) -> Result<Vec<u8>> {
        let mut kind = vec![self.affinity() as u8, self.collation as u8];
        kind.extend(value::encode(&self.constant().borrow())?);
        Ok(kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_round_trip_through_the_wire_and_through_sqlite() {
        let db = Connection::open_in_memory().unwrap();
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
            other.execute_batch(&back.create_sql(false)).unwrap();
            let mut again = TableDef::read(&other, table).unwrap();
            for (a, b) in again.columns.iter_mut().zip(&def.columns) {
                if b.default == Default::Expression {
                    a.default = Default::Expression;
                }
            }
            assert_eq!(again.encode().unwrap().0, id, "{again:?}");
        }
    }
}
