//! What the versions of a row make of it: which are in conflict, whether the row is there, and the
//! row itself, put together in limbo.
//!
//! Limbo is a table beside each shared table, without constraints: a row that is contested or kept
//! out is put together there, from what the table showed and from the versions in the log, and
//! stays there while it is parked.

use std::collections::BTreeSet;

use packmule_core::merge::{Version, column_winner, decides, precedence, winner};
use packmule_core::model::{Stream, Value};
use packmule_core::wire::{ColumnMerge, Merge, OpKind, Shape};
use rusqlite::params_from_iter;

use super::apply::Head;
use super::catalog::Table;
use super::columns::Columns;
use super::ddl::literal;
use super::def::Default;
use super::error::{Error, Result};
use super::value::{Bind, from_sql, quote, read_key};
use super::{Engine, OwnedValue};

/// A version's values as they are compared: by column here, in a form that is equal exactly for
/// equal content.
pub(crate) type Content = Vec<(usize, Vec<u8>)>;

/// What the versions of a row come to.
pub(crate) struct Judgement {
    /// Someone must decide.
    pub open: bool,
    /// The row is in the table, unless a constraint keeps it out.
    pub present: bool,
    /// The places of the versions in order of precedence, the winner first.
    pub order: Vec<usize>,
    /// Which columns are disputed.
    pub disputed: BTreeSet<usize>,
}

impl Engine {
    /// Judges the versions of a row.
    pub(crate) fn judge_versions(&self, table: &Table, heads: &[Head]) -> Result<Judgement> {
        let n = table.def.columns.len();
        let policy = table.def.policy;
        let versions: Vec<Version> = heads.iter().map(Head::version).collect();
        let mut order: Vec<usize> = (0..heads.len()).collect();
        if !self.options.broken_winner {
            order.sort_by(|a, b| precedence(policy, &versions[*b], &versions[*a]));
        }
        let decisive: Vec<usize> =
            order.iter().copied().filter(|at| is_decisive(table, &heads[*at])).collect();
        let deletes = decisive.iter().any(|at| versions[*at].delete);
        let writes = decisive.iter().any(|at| !versions[*at].delete);
        let present =
            decisive.first().is_some_and(|at| !versions[*at].delete) || (!deletes && !heads.is_empty());
        let mut judgement = Judgement { open: false, present, order, disputed: BTreeSet::new() };
        if heads.len() < 2 || decides(policy, &versions) {
            return Ok(judgement);
        }
        let contents = decisive
            .iter()
            .filter(|at| !versions[**at].delete)
            .map(|at| Ok((heads[*at].live(n), self.content(table, &heads[*at])?)))
            .collect::<Result<Vec<(Columns, Content)>>>()?;
        for column in (0..n).filter(|c| table.def.columns[*c].merge == ColumnMerge::Table) {
            let mut values = contents
                .iter()
                .filter(|(live, _)| live.contains(column))
                .filter_map(|(_, content)| content.iter().find(|(at, _)| *at == column).map(|(_, v)| v));
            if let Some(first) = values.next()
                && values.any(|other| other != first)
            {
                judgement.disputed.insert(column);
            }
        }
        judgement.open = (deletes && writes) || !judgement.disputed.is_empty();
        Ok(judgement)
    }

    /// A version's values, by column here. Of a delete, its image, if it has one.
    pub(crate) fn content(&self, table: &Table, head: &Head) -> Result<Content> {
        if head.dev == 0 {
            let values = self.values(table, head)?;
            let encoded = values.iter().map(|(column, value)| Ok((*column, encode(&value.borrow())?)));
            return encoded.collect();
        }
        self.op_at(head.dev, Stream::Shared, head.seq, head.place, |def, op| {
            let mut content = Vec::new();
            for (at, value) in op.values(Shape { keys: &def.key_flags }) {
                let Some(column) = table.def.column(&def.def.columns[at].name) else { continue };
                let value = match value {
                    // Where the pieces are does not count.
                    Value::Big(big) => Value::Big(packmule_core::model::Big { number: 0, back: 0, ..big }),
                    value => value,
                };
                content.push((column, encode(&value)?));
            }
            content.sort();
            Ok(content)
        })
    }

    /// A version's values with those in pieces put together, by column here.
    pub(crate) fn values(&self, table: &Table, head: &Head) -> Result<Vec<(usize, OwnedValue)>> {
        if head.dev == 0 {
            return read_image(table, head.image.as_deref().unwrap_or_default());
        }
        self.op_at(head.dev, Stream::Shared, head.seq, head.place, |def, op| {
            let mut values = Vec::new();
            for (at, value) in op.values(Shape { keys: &def.key_flags }) {
                let Some(column) = table.def.column(&def.def.columns[at].name) else { continue };
                let value = match value {
                    Value::Big(big) => {
                        let mut whole = Vec::new();
                        self.pieces((head.dev, Stream::Shared, head.seq), &big, |bytes| {
                            whole.extend_from_slice(bytes);
                            Ok(())
                        })?;
                        if big.text { OwnedValue::Text(whole) } else { OwnedValue::Blob(whole) }
                    }
                    value => OwnedValue::of(value)?,
                };
                values.push((column, value));
            }
            Ok(values)
        })
    }

    /// A row as its table shows it.
    pub(crate) fn shown_row(&self, table: &Table, key: &[u8]) -> Result<Option<Vec<OwnedValue>>> {
        let keys = read_key(key)?;
        let mut statement = self.db.prepare_cached(&table.select_sql(&table.column_list()))?;
        let mut rows = statement.query(params_from_iter(keys.iter().map(|v| Bind(v.borrow()))))?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let values = (0..table.def.columns.len()).map(|at| OwnedValue::of(from_sql(row.get_ref(at)?)));
        values.collect::<Result<_>>().map(Some)
    }

    /// Moves a row from its table to limbo; one that is there already stays.
    pub(crate) fn move_to_limbo(&self, table: &Table, key: &[u8]) -> Result<()> {
        let values = read_key(key)?;
        let columns = table.column_list();
        let sql =
            format!("INSERT OR REPLACE INTO {} ({columns}) {}", table.limbo(), table.select_sql(&columns));
        self.db.prepare_cached(&sql)?.execute(params_from_iter(values.iter().map(|v| Bind(v.borrow()))))?;
        self.delete_row(table, key)
    }

    /// Moves a row from limbo to its table; with `replace`, removes rows that clash with it.
    pub(crate) fn move_from_limbo(&self, table: &Table, key: &[u8], replace: bool) -> Result<()> {
        let values = read_key(key)?;
        let columns = table.column_list();
        let sql = format!(
            "INSERT {} INTO {} ({columns}) SELECT {columns} FROM {} WHERE {}",
            if replace { "OR REPLACE" } else { "" },
            table.sql_name,
            table.limbo(),
            table.key_match_from(0)
        );
        self.firing(table, || {
            let values = values.iter().map(|v| Bind(v.borrow()));
            Ok(self.db.prepare_cached(&sql)?.execute(params_from_iter(values))?)
        })?;
        self.delete_from(&table.limbo(), table, key)
    }

    pub(crate) fn delete_from(&self, name: &str, table: &Table, key: &[u8]) -> Result<()> {
        let values = read_key(key)?;
        let sql = format!("DELETE FROM {name} WHERE {}", table.key_match_from(0));
        self.db.prepare_cached(&sql)?.execute(params_from_iter(values.iter().map(|v| Bind(v.borrow()))))?;
        Ok(())
    }

    /// Makes the row in limbo what its versions say.
    pub(crate) fn compose(
        &self,
        table: &Table,
        key: &[u8],
        heads: &[Head],
        judgement: &Judgement,
    ) -> Result<()> {
        if heads.is_empty() {
            return Ok(()); // Undisputed, and as the table showed it.
        }
        let n = table.def.columns.len();
        let versions: Vec<Version> = heads.iter().map(Head::version).collect();
        let values = heads.iter().map(|h| self.values(table, h)).collect::<Result<Vec<_>>>()?;
        let value_of =
            |at: usize, column: usize| values[at].iter().find(|(c, _)| *c == column).map(|(_, v)| v);
        let writers: Vec<usize> =
            judgement.order.iter().copied().filter(|at| !versions[*at].delete).collect();
        let image = judgement.order.iter().copied().find(|at| versions[*at].delete);
        let Some(first) = writers.first().copied() else { return Ok(()) };
        let row_winner = if table.def.merge == Merge::Row { Some(first) } else { None };
        let mut changes: Vec<(usize, OwnedValue)> = Vec::new();
        for column in 0..n {
            let definition = &table.def.columns[column];
            if definition.key > 0 {
                changes.extend(value_of(first, column).map(|v| (column, v.clone())));
                continue;
            }
            if definition.merge == ColumnMerge::Counter || table.leaves(column) {
                continue; // Added up elsewhere; or it waits.
            }
            let speaking: Vec<usize> = writers
                .iter()
                .copied()
                .filter(|at| heads[*at].live(n).contains(column) && value_of(*at, column).is_some())
                .collect();
            let candidates =
                speaking.iter().filter_map(|at| Some((&versions[*at], value_of(*at, column)?.borrow())));
            let chosen = if definition.merge == ColumnMerge::Table
                && let Some(row) = row_winner.filter(|row| speaking.contains(row))
            {
                Some(row)
            } else {
                column_winner(definition.merge, table.def.policy, candidates).map(|at| speaking[at])
            };
            match (chosen, image) {
                (Some(at), _) => changes.extend(value_of(at, column).map(|v| (column, v.clone()))),
                // Nobody who is left wrote it: it is what it was when the row was deleted.
                (None, Some(image)) => {
                    let default = match &definition.default {
                        Default::Literal(value) => value.clone(),
                        _ => OwnedValue::Null,
                    };
                    changes.push((column, value_of(image, column).cloned().unwrap_or(default)));
                }
                (None, None) => {}
            }
        }
        self.make_limbo_row(table, key, &changes)?;
        self.compose_counters(table, key)
    }

    /// Changes columns of a row in limbo; makes it if it is not there.
    pub(crate) fn make_limbo_row(
        &self,
        table: &Table,
        key: &[u8],
        changes: &[(usize, OwnedValue)],
    ) -> Result<()> {
        let keys = read_key(key)?;
        let limbo = table.limbo();
        let there: Option<i64> = super::value::maybe(
            &self.db,
            &format!("SELECT 1 FROM {limbo} WHERE {}", table.key_match_from(0)),
            params_from_iter(keys.iter().map(|v| Bind(v.borrow()))),
        )?;
        let names = || changes.iter().map(|(at, _)| quote(&table.def.columns[*at].name));
        let values = changes.iter().map(|(_, v)| Bind(v.borrow()));
        if there.is_some() {
            let sets: Vec<String> =
                names().enumerate().map(|(n, name)| format!("{name} = ?{}", n + 1)).collect();
            let sql = format!(
                "UPDATE {limbo} SET {} WHERE {}",
                sets.join(", "),
                table.key_match_from(changes.len())
            );
            let all = values.chain(keys.iter().map(|v| Bind(v.borrow())));
            self.db.prepare_cached(&sql)?.execute(params_from_iter(all))?;
            return Ok(());
        }
        // What no version tells has its default.
        let rest: Vec<usize> =
            (0..table.def.columns.len()).filter(|c| changes.iter().all(|(at, _)| at != c)).collect();
        let rest_names = rest.iter().map(|at| quote(&table.def.columns[*at].name));
        let marks = (1..=changes.len()).map(|n| format!("?{n}"));
        let defaults = rest.iter().map(|at| match &table.def.columns[*at].default {
            Default::Literal(value) => literal(value),
            _ => "NULL".into(),
        });
        let sql = format!(
            "INSERT INTO {limbo} ({}) VALUES ({})",
            names().chain(rest_names).collect::<Vec<_>>().join(", "),
            marks.chain(defaults).collect::<Vec<_>>().join(", ")
        );
        self.db.prepare_cached(&sql)?.execute(params_from_iter(values))?;
        Ok(())
    }
}

/// The values of an image: names and values in turn.
fn read_image(table: &Table, mut body: &[u8]) -> Result<Vec<(usize, OwnedValue)>> {
    let bad = |e| Error::damaged(format!("`_pm_image`: {e}"));
    let mut values = Vec::new();
    while !body.is_empty() {
        let name: Value<'_> = packmule_core::wire::take(&mut body).map_err(bad)?;
        let value: Value<'_> = packmule_core::wire::take(&mut body).map_err(bad)?;
        if let Value::Text(name) = name
            && let Some(column) = table.def.column(&String::from_utf8_lossy(name))
        {
            values.push((column, OwnedValue::of(value)?));
        }
    }
    values.sort_by_key(|(column, _)| *column);
    Ok(values)
}

/// Whether a version counts for the row as a whole. What is left of an overwritten row speaks only for columns
/// that the later one did not know; another device may have folded it away.
fn is_decisive(table: &Table, head: &Head) -> bool {
    let Some(live) = head.columns.as_ref().filter(|_| table.def.merge == Merge::Row) else { return true };
    // A row that its author wrote in an older definition speaks for all of its columns, of which the key
    // is one; of an overwritten one only columns outside the key can be left.
    head.kind == OpKind::Delete || table.def.keys().all(|at| live.contains(at))
}

/// Whether a row is as one author wrote it, and nobody contests that.
pub(crate) fn is_of_one(table: &Table, heads: &[Head]) -> bool {
    table.def.merge == Merge::Row && heads.iter().filter(|head| is_decisive(table, head)).count() == 1
}

/// The version that is shown where the policy is the table's.
pub(crate) fn winning<'h>(table: &Table, heads: &'h [Head]) -> Option<&'h Head> {
    let decisive = heads.iter().filter(|head| is_decisive(table, head));
    let (heads, versions): (Vec<_>, Vec<_>) = decisive.map(|h| (h, h.version())).unzip();
    winner(table.def.policy, &versions).map(|at| heads[at])
}

/// A value in the form that it is compared in.
pub(crate) fn encode(value: &Value<'_>) -> Result<Vec<u8>> {
    let len = match value {
        Value::Text(b) | Value::Blob(b) => b.len(),
        _ => 0,
    };
    let mut buf = vec![0; len + 80];
    let len =
        packmule_core::wire::put(&mut buf, value).map_err(|_| Error::damaged("a value without room"))?;
    buf.truncate(len);
    Ok(buf)
}
