//! Definitions read from the schema of a database.

use packmule_core::wire::{Collation, ColumnMerge, Merge, Mode, Policy};
use rusqlite::Connection;

use crate::engine::error::{self, Error, Result};
use crate::engine::store::value::{self, OwnedValue};
use crate::engine::table::def::{
    ACTIONS, COLUMNS_MAX, ColumnDef, ColumnDefault, ForeignKeyDef, ROWID_NAMES, RULES_MAX, TableDef,
};
use crate::engine::table::encoding::hides_function;
use crate::engine::table::entries::{self, Kind};
use crate::engine::table::keyless::By;

/// So many tables are named where another one was meant.
const NAMED: usize = 8;

/// Says that a table is not there, and which are.
fn not_there(db: &Connection) -> Result<String> {
    let mut statement = db.prepare(
        "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table'
         AND name NOT LIKE 'sqlite~_%' ESCAPE '~' AND name NOT LIKE '~_pm~_%' ESCAPE '~' ORDER BY name LIMIT ?1",
    )?;
    let names = statement.query_map([NAMED + 1], |row| row.get(0))?;
    let mut names = names.collect::<rusqlite::Result<Vec<String>>>()?;
    if names.len() > NAMED {
        names.truncate(NAMED);
        names.push("…".into());
    }
    Ok(match names.is_empty() {
        true => "there is no such table in this database, and no other: is it the one that the application writes to?".into(),
        false => format!("there is no such table in this database; there are: {}", names.join(", ")),
    })
}

impl TableDef {
    /// Reads the definition of a table of this database. How it merges no schema says: the caller sets it.
    ///
    /// # Errors
    /// [`Error::CannotTrack`] if there is no such table, or if it cannot be tracked.
    pub(crate) fn read(db: &Connection, table: &str) -> Result<Self> {
        Self::read_by(db, table, By::Columns(&[]))
    }

    /// Reads it, as [`TableDef::read`] does; `by` says what tells rows apart where there is no primary key.
    ///
    /// # Errors
    /// As [`TableDef::read`].
    pub(crate) fn read_by(db: &Connection, table: &str, by: By<'_>) -> Result<Self> {
        let lower = table.to_ascii_lowercase();
        if lower.starts_with("_pm_") || lower.starts_with("sqlite_") {
            return Err(Error::cannot_track(table, "it belongs to Packmule or to SQLite itself"));
        }
        if hides_function(&lower) {
            let reason = "its name hides a function of SQLite's by which tables are read; rename it";
            return Err(Error::cannot_track(table, reason));
        }
        let Some(Kind { name, kind, without_rowid, strict }) = entries::kind_of(db, table)? else {
            return Err(Error::cannot_track(table, not_there(db)?));
        };
        let refuse = |reason: &str| Err(Error::cannot_track(&name, reason));
        if kind != "table" {
            let what = if kind == "view" { "a view".into() } else { format!("a {kind} table") };
            return refuse(&format!("it is {what}; track the tables that it is made from"));
        }
        let mut def = Self {
            name,
            mode: Mode::Shared,
            merge: Merge::Row,
            policy: Policy::Manual,
            append: false,
            without_rowid,
            keyless: false,
            autoincrement: false,
            columns: Vec::new(),
            uniques: Vec::new(),
            foreign_keys: Vec::new(),
        };
        def.read_columns(db, strict)?;
        if def.columns.len() > COLUMNS_MAX {
            return Err(Error::cannot_track(&def.name, format!("it has more than {COLUMNS_MAX} columns")));
        }
        match by {
            By::Rowid(name) => def.take_rowid(Some(name))?,
            By::Columns(key) => def.read_key(db, key, false)?,
            By::IndexOrRowid => def.read_key(db, &[], true)?,
        }
        def.tell_from_rowid(db)?;
        if !def.without_rowid && ROWID_NAMES.iter().all(|name| def.column(name).is_some()) {
            return Err(Error::cannot_track(
                &def.name,
                "its columns have taken every name of the rowid, by which large values are read; rename one of \
                 `rowid`, `_rowid_` and `oid`",
            ));
        }
        def.read_uniques(db)?;
        def.read_foreign_keys(db)?;
        if let Some(name) = def.unseen_name() {
            let reason = format!(
                "`{}` has a letter that nobody sees, with which one name looks like another: other devices refuse it; \
                 rename it",
                name.escape_debug()
            );
            return Err(Error::cannot_track(&def.name, reason));
        }
        def.can_be_heard()?;
        Ok(def)
    }

    /// Refuses a definition that others would refuse, and that could not be read back here.
    fn can_be_heard(&self) -> Result<()> {
        for (n, what) in [(self.uniques.len(), "UNIQUEs"), (self.foreign_keys.len(), "foreign keys")] {
            if n > RULES_MAX {
                return Err(Error::cannot_track(&self.name, format!("it has more than {RULES_MAX} {what}")));
            }
        }
        let mode = if self.keyless { Mode::PerDevice } else { self.mode };
        let (_, encoded) = Self { mode, ..self.clone() }.encode()?;
        match Self::hear(&encoded) {
            Ok(_) => Ok(()),
            Err(reason) => Err(Error::cannot_track(&self.name, format!("other devices refuse it: {reason}"))),
        }
    }

    /// Takes a UNIQUE index for the key of a table that has no primary key; or the rowid, if it may.
    fn read_key(&mut self, db: &Connection, key: &[String], or_rowid: bool) -> Result<()> {
        let names = |def: &Self, of: &[usize]| {
            of.iter().map(|at| def.columns[*at].name.to_ascii_lowercase()).collect::<Vec<_>>()
        };
        let wanted: Vec<String> = key.iter().map(|name| name.to_ascii_lowercase()).collect();
        let own: Vec<usize> = self.keys().collect();
        if !own.is_empty() {
            let same = wanted.is_empty() || names(self, &own) == wanted;
            let reason = "it has a primary key, which is what tells its rows apart: leave out --key";
            return if same { Ok(()) } else { Err(Error::cannot_track(&self.name, reason)) };
        }
        let mut found = self.unique_keys(db)?;
        let all: Vec<String> = found.iter().map(|of| names(self, of).join(",")).collect();
        if !wanted.is_empty() {
            found.retain(|of| names(self, of) == wanted);
        }
        let given = || if wanted.is_empty() { "name one".to_owned() } else { "give one of them".to_owned() };
        let reason = match (&found[..], all.is_empty()) {
            ([one], _) => {
                for (place, at) in one.iter().enumerate() {
                    self.columns[*at].key = place as u16 + 1;
                }
                return Ok(());
            }
            (_, true) if or_rowid => return self.take_rowid(None),
            (_, true) => "it has no primary key and no UNIQUE index over plain columns, so that devices cannot tell \
                          which of its rows are the same: make such an index (CREATE UNIQUE INDEX ... ON the columns \
                          that tell rows apart); or track it with --mode per-device, which needs no key"
                .to_owned(),
            (_, false) => format!(
                "it has no primary key, but UNIQUE indexes over: {}; {} with --key COL,...",
                all.join("; "),
                given()
            ),
        };
        Err(Error::cannot_track(&self.name, reason))
    }

    /// Calls an INTEGER key that is no alias of the rowid (a UNIQUE column, a `PRIMARY KEY DESC`) an INT: it stores every
    /// value, and whoever makes a table of the definition must make one that does.
    fn tell_from_rowid(&mut self, db: &Connection) -> Result<()> {
        if self.keyless || !self.integer_key() {
            return Ok(());
        }
        if !self.aliases_rowid(db)? {
            let key = self.columns.iter_mut().filter(|column| column.key > 0);
            key.for_each(|column| column.decl_type = "INT".into());
        }
        Ok(())
    }

    /// Returns whether the INTEGER key of the table here is an alias of the rowid.
    pub(crate) fn aliases_rowid(&self, db: &Connection) -> Result<bool> {
        Self::key_aliases_rowid(db, &self.name)
    }

    /// Returns whether a table here has a primary key that is an alias of the rowid. INTEGER PRIMARY KEY DESC has an index,
    /// and is none; nor is a UNIQUE column.
    pub(crate) fn key_aliases_rowid(db: &Connection, table: &str) -> Result<bool> {
        let alias = "SELECT EXISTS (SELECT 1 FROM pragma_table_info(?1) WHERE pk > 0)
            AND NOT EXISTS (SELECT 1 FROM pragma_index_list(?1) WHERE origin = 'pk')";
        Ok(db.prepare_cached(alias)?.query_row([table], |row| row.get(0))?)
    }

    /// Returns the columns of each UNIQUE index that can be a key: over all rows and plain columns, which it compares as
    /// the columns themselves do.
    fn unique_keys(&self, db: &Connection) -> Result<Vec<Vec<usize>>> {
        let mut indexes = db.prepare(
            "SELECT name FROM pragma_index_list(?1) WHERE \"unique\" AND NOT partial ORDER BY name",
        )?;
        let mut terms =
            db.prepare("SELECT name, coll FROM pragma_index_xinfo(?1) WHERE key ORDER BY seqno")?;
        let mut found: Vec<Vec<usize>> = Vec::new();
        for index in indexes.query_map([&self.name], |row| row.get::<_, String>(0))? {
            let of = terms
                .query_map([index?], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<rusqlite::Result<Vec<(Option<String>, Option<String>)>>>()?;
            let columns: Option<Vec<usize>> = of
                .into_iter()
                .map(|(name, collation)| {
                    let at = self.column(&name?)?;
                    let same = match self.columns[at].collation {
                        Collation::Binary => "BINARY",
                        Collation::NoCase => "NOCASE",
                        Collation::RTrim => "RTRIM",
                    };
                    collation.filter(|c| c.eq_ignore_ascii_case(same)).map(|_| at)
                })
                .collect();
            found.extend(columns.filter(|columns| !found.contains(columns)));
        }
        Ok(found)
    }

    /// Reads the columns, but for generated ones.
    fn read_columns(&mut self, db: &Connection, strict: bool) -> Result<()> {
        let mut statement =
            db.prepare("SELECT name, type, \"notnull\", dflt_value, pk, hidden FROM pragma_table_xinfo(?1)")?;
        let mut rows = statement.query([&self.name])?;
        while let Some(row) = rows.next()? {
            let hidden: i64 = row.get(5)?;
            if hidden != 0 {
                continue; // Every database computes generated columns itself.
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

    /// Reads the UNIQUEs over plain columns, also those of `CREATE UNIQUE INDEX`.
    fn read_uniques(&mut self, db: &Connection) -> Result<()> {
        let key: Vec<u16> = self.keys().map(|at| at as u16).collect();
        for (_, unique) in self.unique_indexes(db)? {
            if !self.uniques.contains(&unique) && unique != key {
                self.uniques.push(unique);
            }
        }
        self.uniques.sort();
        Ok(())
    }

    /// Returns the UNIQUE indexes over plain columns that the table has, with the numbers of these. One over an expression
    /// stays this database's own.
    pub(crate) fn unique_indexes(&self, db: &Connection) -> Result<Vec<(String, Vec<u16>)>> {
        let mut statement = db.prepare_cached(
            "SELECT name FROM pragma_index_list(?1) WHERE \"unique\" AND origin <> 'pk' AND NOT partial ORDER BY name",
        )?;
        let names: Vec<String> =
            statement.query_map([&self.name], |row| row.get(0))?.collect::<Result<_, _>>()?;
        let mut columns =
            db.prepare_cached("SELECT name FROM pragma_index_xinfo(?1) WHERE key ORDER BY seqno")?;
        let mut found = Vec::new();
        for index in names {
            let names: Vec<Option<String>> =
                columns.query_map([&index], |row| row.get(0))?.collect::<Result<_, _>>()?;
            let number = |name: &Option<String>| self.column(name.as_ref()?).map(|at| at as u16);
            found.extend(names.iter().map(number).collect::<Option<_>>().map(|unique| (index, unique)));
        }
        Ok(found)
    }

    /// Reads the foreign keys, in an order that does not depend on how they were declared.
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
                // A foreign key that names no columns refers to the parent's primary key.
                let at = key.columns.len();
                let to = match to {
                    Some(to) => to,
                    None => parent_key(db, &key.parent, at)?,
                };
                key.columns.push((row.get(2)?, to));
            }
        }
        // One of a generated column stays this database's own, as the column does.
        found.retain(|key| key.columns.iter().all(|(here, _)| self.column(here).is_some()));
        found.sort_by(|a, b| (&a.parent, &a.columns).cmp(&(&b.parent, &b.columns)));
        self.foreign_keys = found;
        Ok(())
    }
}

/// Returns the name of the column at a place of a parent's primary key.
fn parent_key(db: &Connection, parent: &str, at: usize) -> Result<String> {
    use rusqlite::OptionalExtension;
    let name = db
        .query_row("SELECT name FROM pragma_table_info(?1) WHERE pk = ?2", (parent, at as i64 + 1), |row| {
            row.get(0)
        })
        .optional()?;
    Ok(name.unwrap_or_else(|| "rowid".into()))
}

/// Reads a default from its text in the schema. Only literals travel.
fn read_default(db: &Connection, text: Option<&str>) -> Result<ColumnDefault> {
    let Some(text) = text.map(str::trim) else { return Ok(ColumnDefault::None) };
    let bare = text.trim_start_matches('(').trim_end_matches(')').trim();
    match bare.to_ascii_uppercase().as_str() {
        "CURRENT_TIME" => return Ok(ColumnDefault::Time),
        "CURRENT_DATE" => return Ok(ColumnDefault::Date),
        "CURRENT_TIMESTAMP" => return Ok(ColumnDefault::Timestamp),
        "NULL" => return Ok(ColumnDefault::None),
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
            return Ok(ColumnDefault::Literal(OwnedValue::Text(inner.into_bytes())));
        }
        return Ok(ColumnDefault::Expression);
    }
    let value = db
        .query_row(&format!("SELECT {bare}"), [], |row| Ok(OwnedValue::of(value::from_sql(row.get_ref(0)?))));
    match value {
        Ok(value) => Ok(ColumnDefault::Literal(value?)),
        Err(e) if error::is_machine_failure(&e) => Err(e.into()),
        Err(_) => Ok(ColumnDefault::Expression),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A default that cannot be read now is not one that does not travel.
    #[test]
    fn a_failure_of_the_machine_is_no_expression() {
        let mut db = Connection::open_in_memory().unwrap();
        let it = Some("'it'");
        let literal = ColumnDefault::Literal(OwnedValue::Text(b"it".to_vec()));
        assert_eq!(read_default(&db, it).unwrap(), literal);
        db.progress_handler(1, Some(|| true)).unwrap();
        assert!(read_default(&db, it).unwrap_err().is_machines());
        db.progress_handler(1, None::<fn() -> bool>).unwrap();
        assert_eq!(read_default(&db, Some("1 +")).unwrap(), ColumnDefault::Expression);
    }
}
