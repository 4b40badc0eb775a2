//! References: rows that refer by a foreign key to a row that is not there.
//!
//! Looked up at the end of a group, for rows that came and for what rows that changed or left were referred
//! to by. Such a row stays where it is, and is listed.

use packmule_core::wire::Collation;
use rusqlite::params_from_iter;

use super::catalog::{State, Table};
use super::def::ForeignKeyDef;
use super::error::Result;
use super::value::{Bind, from_sql, push_key, quote, read_key};
use super::{Engine, OwnedValue};

impl Engine {
    /// Keeps, for each foreign key that refers to a row, the values by which it does.
    pub(crate) fn note_left(&self, parent: &Table, key: &[u8]) -> Result<()> {
        for child in self.tables() {
            if !child.shows_shared() {
                continue;
            }
            for (n, foreign) in child.def.foreign_keys.iter().enumerate() {
                if !foreign.parent.eq_ignore_ascii_case(&parent.def.name) {
                    continue;
                }
                let columns: Vec<String> = foreign.columns.iter().map(|(_, there)| quote(there)).collect();
                let values = read_key(key)?;
                let mut statement = self.db.prepare_cached(&parent.select_sql(&columns.join(", ")))?;
                let mut rows = statement.query(params_from_iter(values.iter().map(|v| Bind(v.borrow()))))?;
                if let Some(row) = rows.next()? {
                    let mut value = Vec::new();
                    for at in 0..columns.len() {
                        push_key(&mut value, from_sql(row.get_ref(at)?), Collation::Binary)?;
                    }
                    self.db
                        .prepare_cached("INSERT OR IGNORE INTO temp._pm_left (tid, foreign_key, value) VALUES (?1, ?2, ?3)")?
                        .execute((child.tid, n as i64, value))?;
                }
            }
        }
        Ok(())
    }

    /// Notes rows that refer to one that is not there: those that came, and those that were left.
    pub(crate) fn check_references(&self) -> Result<()> {
        let mut left = self.db.prepare_cached("SELECT tid, foreign_key, value FROM temp._pm_left")?;
        let mut rows = left.query([])?;
        while let Some(row) = rows.next()? {
            let child = self.table(row.get(0)?)?;
            let foreign = &child.def.foreign_keys[row.get::<_, usize>(1)?];
            let values = read_key(&row.get::<_, Vec<u8>>(2)?)?;
            let matches: Vec<String> = foreign
                .columns
                .iter()
                .enumerate()
                .map(|(n, (here, _))| format!("{} = ?{}", quote(here), n + 1))
                .collect();
            let mut children = self.db.prepare_cached(&format!(
                "SELECT {} FROM {} WHERE {}",
                child.def.key_list(""),
                child.sql_name,
                matches.join(" AND ")
            ))?;
            let mut found = children.query(params_from_iter(values.iter().map(|v| Bind(v.borrow()))))?;
            let n = child.def.keys().count();
            while let Some(row) = found.next()? {
                let values =
                    (0..n).map(|at| row.get_ref(at).map(from_sql)).collect::<rusqlite::Result<Vec<_>>>()?;
                let key = child.key_of(values.into_iter())?;
                self.db
                    .prepare_cached("INSERT OR IGNORE INTO temp._pm_to_check (tid, key) VALUES (?1, ?2)")?
                    .execute((child.tid, key))?;
            }
        }
        drop(rows);
        let mut check = self.db.prepare_cached("SELECT tid, key FROM temp._pm_to_check")?;
        let mut rows = check.query([])?;
        while let Some(row) = rows.next()? {
            let (tid, key): (i64, Vec<u8>) = (row.get(0)?, row.get(1)?);
            if self.dangles(&*self.table(tid)?, &key)?.is_some() {
                self.db
                    .prepare_cached("INSERT OR IGNORE INTO _pm_dangling (tid, key) VALUES (?1, ?2)")?
                    .execute((tid, key))?;
            }
        }
        drop(rows);
        for sql in ["DELETE FROM temp._pm_to_check", "DELETE FROM temp._pm_left"] {
            self.db.prepare_cached(sql)?.execute([])?;
        }
        Ok(())
    }

    /// The number of the first foreign key by which a row refers to one that is not there.
    pub(crate) fn dangles(&self, table: &Table, key: &[u8]) -> Result<Option<usize>> {
        let values = read_key(key)?;
        if !table.shows_shared() {
            return Ok(None);
        }
        for (n, foreign) in table.def.foreign_keys.iter().enumerate() {
            let known = self.table_named(&foreign.parent);
            if !known.is_some_and(|parent| parent.state == State::Tracked) {
                continue; // Rows of tables that are not synced are nobody else's business.
            }
            let set: Vec<String> =
                foreign.columns.iter().map(|(here, _)| format!("c.{} IS NOT NULL", quote(here))).collect();
            let same: Vec<String> = foreign
                .columns
                .iter()
                .map(|(here, there)| format!("p.{} = c.{}", quote(there), quote(here)))
                .collect();
            let keys: Vec<String> = table
                .def
                .keys()
                .enumerate()
                .map(|(n, at)| format!("c.{} = ?{}", quote(&table.def.columns[at].name), n + 1))
                .collect();
            let sql = format!(
                "SELECT 1 FROM {} c WHERE {} AND {} AND NOT EXISTS (SELECT 1 FROM main.{} p WHERE {})",
                table.sql_name,
                keys.join(" AND "),
                set.join(" AND "),
                quote(&foreign.parent),
                same.join(" AND ")
            );
            let params = params_from_iter(values.iter().map(|v| Bind(v.borrow())));
            if super::value::maybe::<i64>(&self.db, &sql, params)?.is_some() {
                return Ok(Some(n));
            }
        }
        Ok(None)
    }

    /// The children of a row that is gone already: only its key is known.
    pub(crate) fn note_deleted(&self, parent: &Table, key: &[u8]) -> Result<()> {
        let values = read_key(key)?;
        for child in self.tables().iter().filter(|t| t.shows_shared()) {
            for (n, foreign) in child.def.foreign_keys.iter().enumerate() {
                if !foreign.parent.eq_ignore_ascii_case(&parent.def.name) {
                    continue;
                }
                let at_key = |there: &str| {
                    parent.def.keys().position(|at| parent.def.columns[at].name.eq_ignore_ascii_case(there))
                };
                let found: Option<Vec<&OwnedValue>> = foreign
                    .columns
                    .iter()
                    .map(|(_, there)| at_key(there).and_then(|at| values.get(at)))
                    .collect();
                match found {
                    Some(found) => {
                        let mut value = Vec::new();
                        for v in found {
                            push_key(&mut value, v.borrow(), Collation::Binary)?;
                        }
                        self.db
                            .prepare_cached("INSERT OR IGNORE INTO temp._pm_left (tid, foreign_key, value) VALUES (?1, ?2, ?3)")?
                            .execute((child.tid, n as i64, value))?;
                    }
                    None => self.note_all_children(child, foreign)?,
                }
            }
        }
        Ok(())
    }

    /// By which values a row was referred to that is gone is not known if it was not by its key:
    /// then all references of that kind that lead nowhere are looked for.
    fn note_all_children(&self, child: &Table, foreign: &ForeignKeyDef) -> Result<()> {
        let same: Vec<String> = foreign
            .columns
            .iter()
            .map(|(here, there)| format!("p.{} = c.{}", quote(there), quote(here)))
            .collect();
        let set: Vec<String> =
            foreign.columns.iter().map(|(here, _)| format!("c.{} IS NOT NULL", quote(here))).collect();
        let mut statement = self.db.prepare_cached(&format!(
            "SELECT {} FROM {} c WHERE {} AND NOT EXISTS (SELECT 1 FROM main.{} p WHERE {})",
            child.def.key_list("c."),
            child.sql_name,
            set.join(" AND "),
            quote(&foreign.parent),
            same.join(" AND ")
        ))?;
        let mut rows = statement.query([])?;
        let n = child.def.keys().count();
        while let Some(row) = rows.next()? {
            let values =
                (0..n).map(|at| row.get_ref(at).map(from_sql)).collect::<rusqlite::Result<Vec<_>>>()?;
            let key = child.key_of(values.into_iter())?;
            self.db
                .prepare_cached("INSERT OR IGNORE INTO temp._pm_to_check (tid, key) VALUES (?1, ?2)")?
                .execute((child.tid, key))?;
        }
        Ok(())
    }
}
