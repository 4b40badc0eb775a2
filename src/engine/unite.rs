//! One table of the definitions that several devices have of it: their columns and UNIQUEs together.

use packmule_core::model::Stream;
use packmule_core::wire::{OpKind, Shape};

use super::catalog::{State, Table};
use super::columns::Columns;
use super::def::TableDef;
use super::error::Result;
use super::value::quote;
use super::{Engine, store};

impl Engine {
    /// The definitions of a table that are known, without its own.
    pub(crate) fn other_defs(&self, tid: i64) -> Result<Vec<Vec<u8>>> {
        let mut statement = self.db.prepare(
            "SELECT body FROM _pm_def WHERE tid = ?1 AND id <> (SELECT def FROM _pm_table WHERE tid = ?1) ORDER BY id",
        )?;
        let bodies = statement.query_map([tid], |row| row.get(0))?;
        Ok(bodies.collect::<rusqlite::Result<_>>()?)
    }

    /// Takes in what others told of a table while it was not shown here. `before` is the definition by
    /// which versions were noted until now.
    pub(crate) fn unite_all(&self, tid: i64, before: &TableDef) -> Result<()> {
        let entry = self.table(tid)?;
        self.make_columns_plain(tid, before.columns.len())?;
        for body in self.other_defs(tid)? {
            let def = TableDef::decode(&body).map_err(super::log::bad)?;
            if def.mode == before.mode {
                self.unite(self.me, tid, &def)?;
            }
        }
        let table = self.table(tid)?;
        let names = |def: &TableDef| def.columns.iter().map(|c| c.name.clone()).collect::<Vec<_>>();
        if names(&table.def) == names(before) && names(&entry.def) == names(before) {
            return Ok(());
        }
        for key in self.remembered_keys(tid)? {
            for head in self.heads(tid, &key)?.iter().filter(|h| h.kind != OpKind::Delete) {
                let live = head.live(before.columns.len());
                // What it carries, without what was written over.
                let columns: Columns =
                    self.op_at(head.dev, Stream::Shared, head.seq, head.place, |def, op| {
                        let names = op.values(Shape { keys: &def.key_flags });
                        Ok(names
                            .map(|(at, _)| def.def.columns[at].name.as_str())
                            .filter(|name| before.column(name).is_none_or(|at| live.contains(at)))
                            .filter_map(|name| table.def.column(name))
                            .collect())
                    })?;
                self.db
                    .prepare_cached(
                        "UPDATE _pm_head SET columns = ?5 WHERE tid = ?1 AND key = ?2 AND dev = ?3 AND seq = ?4",
                    )?
                    .execute((tid, &key, head.dev, head.seq, columns.as_bytes()))?;
            }
        }
        Ok(())
    }

    /// Adds the columns and the UNIQUEs that a definition has and the table here has not.
    pub(crate) fn unite(&self, dev: i64, tid: i64, theirs: &TableDef) -> Result<()> {
        let table = &*self.table(tid)?;
        let mut def = table.def.clone();
        if !def.has_key_of(theirs) {
            let who = self.device_label(dev)?;
            let what = format!(
                "table `{0}` has another primary key on {who}: its rows cannot be matched with those here, and stay in the \
                 log; call the table otherwise on one of the two, or make it anew with the same key (`packmule untrack`, then \
                 `packmule track`)",
                def.name
            );
            return store::notice(&self.db, &what, self.now());
        }
        if let Some(different) = def.different_column(theirs).filter(|_| !def.declares()) {
            let what = format!(
                "table `{}` is defined differently on {}: {different}; rows that are equal there may not be equal here",
                def.name,
                self.device_label(dev)?
            );
            store::notice(&self.db, &what, self.now())?;
        }
        let added: Vec<_> =
            theirs.columns.iter().filter(|c| def.column(&c.name).is_none()).cloned().collect();
        for mut column in added {
            if let Some((_, first)) = self.declared_columns(tid, &column.name)?.into_iter().next() {
                column = first;
            }
            self.db.execute_batch(&format!(
                "ALTER TABLE {} ADD COLUMN {}",
                table.sql_name,
                def.addable_sql(&column)
            ))?;
            column.key = 0;
            def.columns.push(column);
        }
        let grown = def.columns.len() > table.def.columns.len();
        let mut uniques = Vec::new();
        for unique in theirs.uniques.iter().filter(|_| table.shows_shared()) {
            let names = unique.iter().map(|at| &theirs.columns[usize::from(*at)].name);
            let here: Option<Vec<u16>> = names.map(|name| def.column(name).map(|at| at as u16)).collect();
            if let Some(here) = here.filter(|here| !def.uniques.contains(here)) {
                def.uniques.push(here.clone());
                uniques.push(here);
            }
        }
        if !grown && uniques.is_empty() {
            return Ok(());
        }
        def.uniques.sort();
        self.adopt_def(table.tid, &def)?;
        self.reload_catalog()?;
        if table.state == State::Tracked {
            let table = self.table(tid)?;
            // Limbo needs the columns before rows are moved there, the triggers the indexes.
            self.make_lists(&table)?;
            for unique in &uniques {
                self.make_unique(&table, unique)?;
            }
            self.reload_catalog()?;
            self.install_capture(&*self.table(tid)?)?;
        }
        self.remember_schema()
    }

    /// Makes a UNIQUE that others have. Rows that clash go out of the way, to be settled with the group.
    pub(crate) fn make_unique(&self, table: &Table, unique: &[u16]) -> Result<()> {
        let names: Vec<String> =
            unique.iter().map(|at| quote(&table.def.columns[usize::from(*at)].name)).collect();
        let same: Vec<String> = names.iter().map(|c| format!("a.{c} = b.{c}")).collect();
        let n = table.def.keys().count();
        let set: Vec<String> = names.iter().map(|c| format!("{c} IS NOT NULL")).collect();
        let sql = format!(
            "WITH clash AS (SELECT {0} FROM {1} WHERE {2} GROUP BY {0} HAVING count(*) > 1)
             SELECT {3} FROM clash b JOIN {1} a ON {4}",
            names.join(", "),
            table.sql_name,
            set.join(" AND "),
            table.def.key_list("a."),
            same.join(" AND ")
        );
        let mut keys = Vec::new();
        {
            let mut statement = self.db.prepare(&sql)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let values = (0..n)
                    .map(|at| row.get_ref(at).map(super::value::from_sql))
                    .collect::<rusqlite::Result<Vec<_>>>()?;
                keys.push(table.key_of(values.into_iter())?);
            }
        }
        for key in keys {
            self.before_change(table, &key)?;
            self.move_to_limbo(table, &key)?;
            self.put_off(table.tid, &key)?;
        }
        let numbers: Vec<String> = unique.iter().map(u16::to_string).collect();
        self.db.execute_batch(&format!(
            "CREATE UNIQUE INDEX IF NOT EXISTS {} ON {} ({})",
            quote(&format!("_pm_unique_{}_{}", table.tid, numbers.join("_"))),
            quote(&table.def.name),
            names.join(", ")
        ))?;
        Ok(())
    }
}
