//! What a state says of tables, kept until all of it has come: definitions, which one each table has, and declarations.
//!
//! All of it lies in TEMP tables and is looked up by indexes: how much it is, its maker says.

use packmule_core::model::is_unseen;
use packmule_core::wire::{DefId, Mode, SchemaBits};
use rusqlite::OptionalExtension;

use crate::engine::error::{self, Error, Result};
use crate::engine::exchange::state_rows::{StateRow, wrong};
use crate::engine::store::value;
use crate::engine::table::declared::{self, Subject};
use crate::engine::table::def::TableDef;
use crate::engine::table::replica::Replica;

/// Made with the first state, as the table of parts is. `first` is when a definition was declared first, `real` what a table is
/// called in its definition.
const TABLES: &str = "
    CREATE TEMP TABLE IF NOT EXISTS _pm_state_def (id BLOB PRIMARY KEY, name TEXT COLLATE NOCASE, shared INTEGER, body BLOB,
        first INTEGER NOT NULL DEFAULT 9223372036854775807, by INTEGER);
    CREATE INDEX IF NOT EXISTS temp._pm_state_def_first ON _pm_state_def (shared, first, id);
    CREATE INDEX IF NOT EXISTS temp._pm_state_def_name ON _pm_state_def (name, shared);
    CREATE TEMP TABLE IF NOT EXISTS _pm_state_table (n INTEGER PRIMARY KEY, name TEXT COLLATE NOCASE UNIQUE, def BLOB,
        shown INTEGER, real TEXT COLLATE NOCASE);
    CREATE INDEX IF NOT EXISTS temp._pm_state_table_real ON _pm_state_table (real);
    CREATE TEMP TABLE IF NOT EXISTS _pm_state_declared (n INTEGER PRIMARY KEY, tbl TEXT COLLATE NOCASE, what INTEGER, name TEXT,
        dev INTEGER, seq INTEGER, lamport INTEGER, value BLOB, flags INTEGER, def BLOB, takes_part INTEGER, body BLOB);
    CREATE INDEX IF NOT EXISTS temp._pm_state_declared_of ON _pm_state_declared (tbl, what);
    CREATE INDEX IF NOT EXISTS temp._pm_state_declared_def ON _pm_state_declared (def, takes_part, lamport);
    CREATE INDEX IF NOT EXISTS temp._pm_state_declared_at ON _pm_state_declared (dev, seq, what, name);
    CREATE TEMP TABLE IF NOT EXISTS _pm_state_renamed (n INTEGER PRIMARY KEY, tbl TEXT COLLATE NOCASE, before TEXT, after TEXT,
        UNIQUE (tbl, before, after));
    DELETE FROM _pm_state_renamed; DELETE FROM _pm_state_def; DELETE FROM _pm_state_table; DELETE FROM _pm_state_declared;";

/// So many renamed columns of one table are looked at.
const RENAMED_MAX: i64 = 1_000;

/// A declaration of a table, as the maker has it.
pub(super) struct Declaration {
    n: i64,
    pub table: String,
    pub def: DefId,
    pub dev: i64,
    pub seq: u64,
    pub lamport: u64,
    pub past: bool,
    /// It is of a column that a person has added for all devices.
    pub ordained: bool,
    /// What it is about.
    pub what: i64,
    pub name: String,
    /// Its record, to be stored.
    pub body: Vec<u8>,
}

/// A table of the maker's.
pub(super) struct MakersTable {
    n: i64,
    pub name: String,
    pub def: DefId,
    /// Whether it shows it, and how.
    pub shown: i64,
}

/// A definition of the maker's, with the declaration by which its first device declared it.
pub(super) struct MakersDef {
    first: i64,
    id: DefId,
    pub body: Vec<u8>,
    pub declared: Option<Declaration>,
}

/// What a state says of tables.
pub(super) struct Definitions<'e>(&'e Replica);

impl<'e> Definitions<'e> {
    /// Begins with nothing.
    pub(super) fn new(replica: &'e Replica) -> Result<Self> {
        replica.db.execute_batch(TABLES)?;
        Ok(Self(replica))
    }

    /// Keeps a definition.
    pub(super) fn keep_def(&self, body: &[u8]) -> Result<()> {
        let def = TableDef::hear(body).map_err(error::bad)?;
        let sql = "INSERT OR IGNORE INTO temp._pm_state_def (id, name, shared, body) VALUES (?1, ?2, ?3, ?4)";
        let shared = def.mode == Mode::Shared;
        self.0.db.prepare_cached(sql)?.execute((DefId::of(body).0, def.name, shared, body))?;
        Ok(())
    }

    /// Keeps which definition a table has.
    pub(super) fn keep_table(&self, row: &StateRow<'_>) -> Result<()> {
        let sql = "INSERT OR IGNORE INTO temp._pm_state_table (name, def, shown, real)
            VALUES (?1, ?2, ?3, (SELECT name FROM temp._pm_state_def WHERE id = ?2 AND shared))";
        let id: [u8; 8] = row.blob_at(1)?.try_into().map_err(|_| wrong())?;
        let new = self.0.db.prepare_cached(sql)?.execute((row.text_at(0)?, id, row.int_at(2)?))?;
        if new == 0 { Err(wrong()) } else { Ok(()) }
    }

    /// Keeps a declaration.
    pub(super) fn keep_declaration(&self, row: &StateRow<'_>, body: &[u8]) -> Result<()> {
        let (what, value) = (row.int_at(1)?, row.blob_at(6)?);
        let def: [u8; 8] = row.blob_at(8)?.try_into().map_err(|_| wrong())?;
        let name = row.text_at(2)?;
        let after = (what == Subject::Renamed as i64).then(|| std::str::from_utf8(value).ok()).flatten();
        if name.chars().chain(after.into_iter().flat_map(str::chars)).any(is_unseen) {
            return Err(Error::damaged("columns whose names have letters that nobody sees"));
        }
        if let Some(after) = after {
            let sql = "INSERT OR IGNORE INTO temp._pm_state_renamed (tbl, before, after) VALUES (?1, ?2, ?3)";
            self.0.db.prepare_cached(sql)?.execute((row.text_at(0)?, name, after))?;
        }
        let sql = "INSERT INTO temp._pm_state_declared (tbl, what, name, dev, seq, lamport, value, flags, def, takes_part, body)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
        self.0.db.prepare_cached(sql)?.execute((
            row.text_at(0)?,
            what,
            name,
            row.device_at(3)?,
            row.seq_at(4)?,
            row.seq_at(5)?,
            value,
            row.int_at(7)?,
            def,
            declared::takes_part(what, value),
            body,
        ))?;
        Ok(())
    }

    /// Finds of each definition who declared it first, once all declarations have come.
    pub(super) fn order(&self) -> Result<()> {
        self.0.db.execute_batch(
            "UPDATE temp._pm_state_def AS f SET (first, by) =
               (SELECT lamport, n FROM temp._pm_state_declared WHERE def = f.id AND takes_part ORDER BY lamport, n LIMIT 1)
             WHERE shared AND EXISTS (SELECT 1 FROM temp._pm_state_declared WHERE def = f.id AND takes_part)",
        )?;
        Ok(())
    }

    /// Returns the definition of a shared table that comes after another one, in the order in which they were declared first.
    pub(super) fn next_def(&self, after: Option<&MakersDef>) -> Result<Option<MakersDef>> {
        let sql = "SELECT first, id, body, by FROM temp._pm_state_def
            WHERE shared = 1 AND (first, id) > (?1, ?2) ORDER BY first, id LIMIT 1";
        let (first, id) = after.map_or((-1, [0; 8]), |def| (def.first, def.id.0));
        let found = self.0.db.prepare_cached(sql)?.query_row((first, id), |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get::<_, Option<i64>>(3)?))
        });
        let Some((first, id, body, by)) = found.optional()? else { return Ok(None) };
        let declared = by.map(|by| self.next_declaration(by - 1)).transpose()?.flatten();
        Ok(Some(MakersDef { first, id: DefId(id), body, declared }))
    }

    /// Returns the body of a definition of a shared table.
    pub(super) fn body(&self, id: DefId) -> Result<Option<Vec<u8>>> {
        value::maybe(&self.0.db, "SELECT body FROM temp._pm_state_def WHERE id = ?1 AND shared", [id.0])
    }

    /// Lists the definitions of the per-device tables of a name.
    pub(super) fn of_gathered(&self, name: &str) -> Result<Vec<Vec<u8>>> {
        let sql = "SELECT body FROM temp._pm_state_def WHERE name = ?1 AND shared = 0";
        let mut statement = self.0.db.prepare_cached(sql)?;
        let bodies = statement.query_map([name], |row| row.get(0))?;
        Ok(bodies.collect::<rusqlite::Result<_>>()?)
    }

    /// Returns the table that came after another one.
    pub(super) fn next_table(&self, after: Option<&MakersTable>) -> Result<Option<MakersTable>> {
        let sql = "SELECT n, name, def, shown FROM temp._pm_state_table WHERE n > ?1 ORDER BY n LIMIT 1";
        let found = self.0.db.prepare_cached(sql)?.query_row([after.map_or(0, |table| table.n)], |row| {
            let (n, name, shown) = (row.get(0)?, row.get(1)?, row.get(3)?);
            Ok(MakersTable { n, name, def: DefId(row.get(2)?), shown })
        });
        Ok(found.optional()?)
    }

    /// Does something with each declaration, in the order in which they came. No statement stays open meanwhile.
    pub(super) fn each_declaration(&self, work: &mut dyn FnMut(&Declaration) -> Result<()>) -> Result<()> {
        let mut after = 0;
        while let Some(declaration) = self.next_declaration(after)? {
            work(&declaration)?;
            after = declaration.n;
        }
        Ok(())
    }

    fn next_declaration(&self, after: i64) -> Result<Option<Declaration>> {
        let sql =
            "SELECT n, tbl, def, dev, seq, lamport, flags, what, name, body FROM temp._pm_state_declared
            WHERE n > ?1 ORDER BY n LIMIT 1";
        let found = self.0.db.prepare_cached(sql)?.query_row([after], |row| {
            let flags: i64 = row.get(6)?;
            Ok(Declaration {
                n: row.get(0)?,
                table: row.get(1)?,
                def: DefId(row.get(2)?),
                dev: row.get(3)?,
                seq: row.get(4)?,
                lamport: row.get(5)?,
                past: flags & 1 != 0,
                ordained: flags & 2 != 0,
                what: row.get(7)?,
                name: row.get(8)?,
                body: row.get(9)?,
            })
        });
        Ok(found.optional()?)
    }

    /// Returns whether anything is declared of a table.
    pub(super) fn is_declared(&self, table: &str) -> Result<bool> {
        let sql = "SELECT 1 FROM temp._pm_state_declared WHERE tbl = ?1 LIMIT 1";
        Ok(self.0.db.prepare_cached(sql)?.exists([table])?)
    }

    /// Returns whether a device declares something in a frame.
    pub(super) fn is_listed(&self, (dev, seq): (i64, u64), what: Subject, name: &str) -> Result<bool> {
        let sql = "SELECT 1 FROM temp._pm_state_declared WHERE dev = ?1 AND seq = ?2 AND what = ?3 AND name = ?4 LIMIT 1";
        Ok(self.0.db.prepare_cached(sql)?.exists((dev, seq, what, name))?)
    }

    /// Returns the columns of the tables of a name that were renamed, as the maker has it: what they were called before, and
    /// after.
    pub(super) fn renamed(&self, table: &str) -> Result<Vec<(String, String)>> {
        let sql = "SELECT r.before, r.after FROM temp._pm_state_table t CROSS JOIN temp._pm_state_renamed r ON r.tbl = t.name
            WHERE t.real = ?1 ORDER BY r.n LIMIT ?2";
        let mut statement = self.0.db.prepare_cached(sql)?;
        let renamed = statement.query_map((table, RENAMED_MAX), |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(renamed.collect::<rusqlite::Result<_>>()?)
    }

    /// Returns the definitions that devices have announced of a table, which has two names: at the maker, and in its definition.
    pub(super) fn announced(&self, name: &str, real: &str) -> Result<Vec<TableDef>> {
        let sql = "SELECT f.body FROM temp._pm_state_def f WHERE f.shared AND f.id IN (
              SELECT d.def FROM temp._pm_state_declared d WHERE d.tbl IN (?1, ?2) AND d.what = ?3 AND d.name = ''
                AND coalesce(unicode(substr(d.value, 9, 1)), 0) & ?4 = 0)";
        let mut statement = self.0.db.prepare_cached(sql)?;
        let follows = SchemaBits::FOLLOWS.0;
        let bodies =
            statement.query_map((name, real, Subject::Shape, follows), |row| row.get::<_, Vec<u8>>(0))?;
        bodies.map(|body| TableDef::hear(&body?).map_err(error::bad)).collect()
    }
}
