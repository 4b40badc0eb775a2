//! Composes the row that its versions make, in the quarantine table beside the real one.
//!
//! A column takes the value of the row's winner (merge by row), or of the winner among the heads that speak for it
//! (by cell, or by a rule of the column). Where no head speaks for a column, it keeps the value of the row before:
//! the value of a version that all devices have had or, where the row was deleted, the last value that the delete
//! carries. `versions` says why the result is the same everywhere.

use packmule_core::merge::{Version, column_winner};
use packmule_core::model::{Big, Stream};
use packmule_core::wire::{ColumnMerge, Merge};
use rusqlite::params_from_iter;

use crate::engine::error::Result;
use crate::engine::log::frames;
use crate::engine::merge::counters;
use crate::engine::merge::heads::Head;
use crate::engine::merge::versions::{self, Held, Judgement};
use crate::engine::store::value::{self, Bind, OwnedValue};
use crate::engine::table::def::ColumnDefault;
use crate::engine::table::entries;
use crate::engine::table::known::Table;
use crate::engine::table::large;
use crate::engine::table::replica::Replica;

/// Returns whether the application has not renamed a table, nor dropped it.
pub(crate) fn is_table_there(replica: &Replica, table: &Table) -> Result<bool> {
    entries::is_table(replica, &table.def.name)
}

/// Reads a row as its table shows it.
pub(crate) fn shown_row(replica: &Replica, table: &Table, key: &[u8]) -> Result<Option<Vec<OwnedValue>>> {
    row_in(replica, &table.sql_name, table, key)
}

/// Returns whether a row with these key values is in its table.
pub(crate) fn is_shown(replica: &Replica, table: &Table, key: &[OwnedValue]) -> Result<bool> {
    let binds = params_from_iter(key.iter().map(|v| Bind(v.borrow())));
    Ok(value::maybe::<i64>(&replica.db, &table.select_sql("1"), binds)?.is_some())
}

/// Reads a row from its table or, if it is quarantined, from the quarantine table.
pub(crate) fn row_of(replica: &Replica, table: &Table, key: &[u8]) -> Result<Option<Vec<OwnedValue>>> {
    match shown_row(replica, table, key)? {
        None => row_in(replica, &table.quarantine_table(), table, key),
        shown => Ok(shown),
    }
}

/// Reads a row from the table of this name: its own, or the quarantine table.
pub(crate) fn row_in(
    replica: &Replica,
    name: &str,
    table: &Table,
    key: &[u8],
) -> Result<Option<Vec<OwnedValue>>> {
    let keys = value::read_key(key)?;
    let sql = format!("SELECT {} FROM {name} WHERE {}", table.column_list(), table.key_match_from(0));
    let mut statement = replica.db.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(keys.iter().map(|v| Bind(v.borrow()))))?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let values = (0..table.def.columns.len()).map(|at| OwnedValue::of(value::from_sql(row.get_ref(at)?)));
    values.collect::<Result<_>>().map(Some)
}

/// Returns whether a row has the same values in its table and in the quarantine table, exactly. Large BLOBs are compared
/// piece by piece.
pub(crate) fn is_same_row(replica: &Replica, table: &Table, key: &[u8]) -> Result<bool> {
    let keys = value::read_key(key)?;
    let places = (table.place(), table.quarantine_table());
    let mut large = Vec::new();
    if !table.is_whole() {
        large = large::blobs(replica, table, places.0, key)?;
        if large != large::blobs(replica, table, &places.1, key)? {
            return Ok(false);
        }
    }
    let small = table.def.columns.iter().enumerate().filter(|(at, _)| !large.contains(at));
    let same = small.map(|(_, column)| {
        let c = value::column(&column.name);
        format!("a.{c} IS b.{c} COLLATE BINARY AND typeof(a.{c}) = typeof(b.{c})")
    });
    let same: Vec<String> = same.collect();
    let of = |name: &str| format!("(SELECT * FROM {name} WHERE {})", table.key_match_from(0));
    let sql = format!(
        "SELECT 1 FROM {} AS a JOIN {} AS b ON {}",
        of(&table.sql_name),
        of(&table.quarantine_table()),
        value::joined(&same, "AND")
    );
    let binds = params_from_iter(keys.iter().map(|v| Bind(v.borrow())));
    if value::maybe::<i64>(&replica.db, &sql, binds)?.is_none() {
        return Ok(false);
    }
    for column in large {
        if !large::is_same(replica, table, key, column, (places.0, &places.1))? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Deletes a row by its key from a table, the quarantine table as a rule, and runs no trigger.
pub(crate) fn delete_from(replica: &Replica, name: &str, table: &Table, key: &[u8]) -> Result<()> {
    let values = value::read_key(key)?;
    let sql = format!("DELETE FROM {name} WHERE {}", table.key_match_from(0));
    replica.db.prepare_cached(&sql)?.execute(params_from_iter(values.iter().map(|v| Bind(v.borrow()))))?;
    Ok(())
}

/// Makes the row in the quarantine table what its versions say.
pub(crate) fn compose(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    heads: &[Head],
    judgement: &Judgement,
) -> Result<()> {
    if heads.is_empty() {
        return Ok(()); // The row is undisputed, and as the table showed it.
    }
    let values = heads.iter().map(|h| versions::held(replica, table, h)).collect::<Result<Vec<_>>>()?;
    let value_of = |at: usize, column: usize| values[at].iter().find(|(c, _)| *c == column).map(|(_, v)| v);
    let Some(changes) = choose(replica, table, heads, judgement, &value_of)? else { return Ok(()) };
    let default = |column: usize| match &table.def.columns[column].default {
        ColumnDefault::Literal(value) => value.clone(),
        _ => OwnedValue::Null,
    };
    let (mut written, mut large) = (Vec::new(), Vec::new());
    for (column, at) in changes {
        written.push(match at.and_then(|at| Some((at, value_of(at, column)?.clone()))) {
            None => (column, default(column)),
            // The quarantine table has no index on it, so that it can be written piece by piece.
            Some((at, Held::Pieces(big))) if !big.text && i32::try_from(big.len).is_ok() => {
                large.push((column, at, big));
                (column, OwnedValue::Large { text: false, bytes: big.len, sha256: big.sha256 })
            }
            Some((at, held)) => (column, held.whole(replica, &heads[at])?),
        });
    }
    make_quarantined_row(replica, table, key, &written)?;
    for (column, at, big) in large {
        write_pieces(replica, table, &table.quarantine_table(), key, column, &heads[at], &big)?;
    }
    compose_counters(replica, table, key)
}

/// Columns, each with the version that its value is of, by its place among the heads.
type Chosen = Vec<(usize, Option<usize>)>;

/// Chooses of which version each column has its value; without one, it is a default. Returns none where no version
/// writes the row.
fn choose<'v>(
    replica: &Replica,
    table: &Table,
    heads: &[Head],
    judgement: &Judgement,
    value_of: &dyn Fn(usize, usize) -> Option<&'v Held>,
) -> Result<Option<Chosen>> {
    let n = table.def.columns.len();
    let versions: Vec<Version> = heads.iter().map(Head::version).collect();
    let writers: Vec<usize> = judgement.order.iter().copied().filter(|at| !versions[*at].delete).collect();
    let deleted = judgement.order.iter().copied().find(|at| versions[*at].delete);
    let Some(first) = writers.first().copied() else { return Ok(None) };
    let row_winner = if table.def.merge == Merge::Row { Some(first) } else { None };
    let mut changes: Vec<(usize, Option<usize>)> = Vec::new();
    for column in 0..n {
        let definition = &table.def.columns[column];
        if definition.key > 0 {
            changes.extend(value_of(first, column).map(|_| (column, Some(first))));
            continue;
        }
        if definition.merge == ColumnMerge::Counter || table.leaves(column) {
            continue; // `compose_counters` adds it up; or it is disputed and stays as it is.
        }
        let speaking: Vec<usize> = writers
            .iter()
            .copied()
            .filter(|at| heads[*at].live(n).contains(column) && value_of(*at, column).is_some())
            .collect();
        let candidates = candidates(replica, definition.merge, heads, &speaking, |at| value_of(at, column))?;
        let candidates = speaking.iter().zip(&candidates).map(|(at, held)| (&versions[*at], held.borrow()));
        let chosen = if definition.merge == ColumnMerge::Table
            && let Some(row) = row_winner.filter(|row| speaking.contains(row))
        {
            Some(row)
        } else {
            column_winner(definition.merge, table.def.policy, candidates).map(|at| speaking[at])
        };
        match (chosen, deleted) {
            (Some(at), _) => changes.push((column, Some(at))),
            // No head that is left wrote it: it is what it was when the row was deleted.
            (None, Some(deleted)) => {
                changes.push((column, value_of(deleted, column).map(|_| deleted)));
            }
            (None, None) => {}
        }
    }
    Ok(Some(changes))
}

/// Returns the values of one column among which its rule chooses, those that are compared by content whole.
fn candidates<'v>(
    replica: &Replica,
    rule: ColumnMerge,
    heads: &[Head],
    speaking: &[usize],
    value_of: impl Fn(usize) -> Option<&'v Held>,
) -> Result<Vec<Held>> {
    let by_content = matches!(rule, ColumnMerge::Max | ColumnMerge::Min);
    let values = speaking.iter().filter_map(|at| Some((*at, value_of(*at)?)));
    let values = values.map(|(at, held)| match held {
        held if by_content => Ok(Held::Here(held.clone().whole(replica, &heads[at])?)),
        Held::Pieces(big) => Ok(Held::Pieces(*big)),
        Held::Here(_) => Ok(Held::Here(OwnedValue::Null)), // Nobody looks at it.
    });
    values.collect()
}

/// Writes a large BLOB of a version piece by piece into a row of this place that has room for it.
pub(crate) fn write_pieces(
    replica: &Replica,
    table: &Table,
    place: &str,
    key: &[u8],
    column: usize,
    head: &Head,
    big: &Big,
) -> Result<()> {
    let rowid = large::rowid(replica, table, place, key)?;
    let mut blob = large::open(replica, table, place, column, rowid, false)?;
    let mut at = 0;
    frames::pieces(replica, (head.dev, Stream::Shared, head.seq), big, |bytes| {
        blob.write_at(bytes, at)?;
        at += bytes.len();
        Ok(())
    })
}

/// Changes columns of a row in the quarantine table; makes the row if it is not there.
pub(crate) fn make_quarantined_row(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    changes: &[(usize, OwnedValue)],
) -> Result<()> {
    let keys = value::read_key(key)?;
    let quarantine_table = table.quarantine_table();
    let there: Option<i64> = value::maybe(
        &replica.db,
        &format!("SELECT 1 FROM {quarantine_table} WHERE {}", table.key_match_from(0)),
        params_from_iter(keys.iter().map(|v| Bind(v.borrow()))),
    )?;
    let names = || changes.iter().map(|(at, _)| value::column(&table.def.columns[*at].name));
    let values = changes.iter().map(|(_, v)| Bind(v.borrow()));
    if there.is_some() {
        let sets: Vec<String> = names().enumerate().map(|(n, name)| format!("{name} = ?{}", n + 1)).collect();
        let sql = format!(
            "UPDATE {quarantine_table} SET {} WHERE {}",
            sets.join(", "),
            table.key_match_from(changes.len())
        );
        let all = values.chain(keys.iter().map(|v| Bind(v.borrow())));
        replica.db.prepare_cached(&sql)?.execute(params_from_iter(all))?;
        return Ok(());
    }
    // A column of which no version says anything has its default.
    let rest: Vec<usize> =
        (0..table.def.columns.len()).filter(|c| changes.iter().all(|(at, _)| at != c)).collect();
    let rest_names = rest.iter().map(|at| value::column(&table.def.columns[*at].name));
    let marks = (1..=changes.len()).map(|n| format!("?{n}"));
    let defaults = rest.iter().map(|at| match &table.def.columns[*at].default {
        ColumnDefault::Literal(value) => value::literal(value),
        _ => "NULL".into(),
    });
    let sql = format!(
        "INSERT INTO {quarantine_table} ({}) VALUES ({})",
        names().chain(rest_names).collect::<Vec<_>>().join(", "),
        marks.chain(defaults).collect::<Vec<_>>().join(", ")
    );
    replica.db.prepare_cached(&sql)?.execute(params_from_iter(values))?;
    Ok(())
}

/// Sets the counters of a quarantined row of which writes are remembered.
pub(crate) fn compose_counters(replica: &Replica, table: &Table, key: &[u8]) -> Result<()> {
    if table.counters.is_empty() {
        return Ok(());
    }
    let entries = counters::entries(&replica.db, "_pm_count", table.tid, key)?;
    for column in table.counters.iter().copied() {
        if let Some(total) = counters::total(table, &entries, column) {
            make_quarantined_row(replica, table, key, &[(column, total)])?;
        }
    }
    Ok(())
}

/// Remembers what the counters of a quarantined row are, as far as they are settled.
pub(crate) fn keep_bases(replica: &Replica, table: &Table, key: &[u8]) -> Result<()> {
    let Some(row) = row_in(replica, &table.quarantine_table(), table, key)? else { return Ok(()) };
    let mut columns = table.counters.iter();
    columns.try_for_each(|column| counters::put_base(replica, table, key, *column, &row[*column]))
}
