//! A table that its application made anew (created, copied, dropped, renamed; or dropped and created) is restated.
//!
//! Its triggers are gone, so nobody knows what happened to it until they are back. What differs from what the log still
//! tells becomes restated ops, the weakest of writes (`merge/restated.rs`); a row that is as it was makes none. Of rows that
//! are settled nothing is remembered: where there may be such, the group has all rows of the table in *spans*, of which it
//! says that all else is gone.

use std::sync::Arc;

use packmule_core::model::Stream;
use packmule_core::wire::{FrameFlags, Mode, OpKind, Span};
use rusqlite::{Row, params_from_iter};

use crate::engine::capture::groups::{self, SealReport};
use crate::engine::capture::ops::{self, Change, RowReader};
use crate::engine::error::Result;
use crate::engine::fleet::{membership, peers, positions};
use crate::engine::log::writer::{self, GroupWriter};
use crate::engine::merge::heads::{self, Cause, Head, Seen};
use crate::engine::merge::{compose, context_free, deferred, versions};
use crate::engine::show::constraints;
use crate::engine::store::meta;
use crate::engine::store::value::{self, Bind, OwnedValue};
use crate::engine::table::catalog;
use crate::engine::table::columns::Columns;
use crate::engine::table::known::{State, Table};
use crate::engine::table::replica::Replica;

/// What is to be said of rows, in the order of their keys: `what` is a [`What`], `columns` those that differ, if not all.
const TEMP: &str = "
    CREATE TEMP TABLE IF NOT EXISTS _pm_restate (n INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, what INTEGER NOT NULL,
        columns BLOB);
    DELETE FROM temp._pm_restate;
";

/// What a restating group says of a row.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Written = 1,
    Gone = 2,
    /// It is as it was: said only in a span.
    Same = 3,
    /// There is no more of it here than what others wrote while the table was not there.
    Lacking = 4,
}

/// Restates a table. `added` are the columns that it did not have before. Within the open transaction, after a seal.
pub(crate) fn restate(replica: &Replica, tid: i64, added: &[String]) -> Result<SealReport> {
    let table = catalog::table(replica, tid)?;
    // What becomes of an append table that is made anew is told by its mark (`append.rs`).
    if table.state != State::Tracked || table.def.append || peers::is_rolled_back(replica)? {
        return Ok(SealReport::default());
    }
    replica.db.execute_batch(TEMP)?;
    let stream = groups::stream_of(&table);
    let spans = match stream {
        Stream::Shared => list_differences(replica, &table, added)?,
        Stream::PerDevice => list_all(replica, &table)?,
    };
    let any = "SELECT 1 FROM temp._pm_restate LIMIT 1";
    if !spans && value::maybe::<i64>(&replica.db, any, [])?.is_none() {
        return Ok(SealReport::default());
    }
    let lamport = positions::next_lamport(replica)?;
    let first = positions::position(replica, replica.me, stream)?.seq + 1;
    let mut buf = vec![0; replica.options.frame_bytes];
    let mut group = writer::begin_group(replica, stream, FrameFlags::RESTATED, lamport, 0, &mut buf)?;
    if spans {
        group.span(&Span { def: table.def_id, from: &[], to: &[] })?;
    }
    write_group(replica, &table, &mut group)?;
    notice_of_restating(replica, &table)?;
    let report = SealReport { frames: group.frames + 1, ops: group.ops };
    let position = group.finish()?;
    positions::set_position(replica, replica.me, stream, position)?;
    constraints::resolve_constraints(replica, &Cause { dev: replica.me, first, seen: &Seen::All })?;
    Ok(report)
}

/// Lists what differs of a shared table from what the log tells. Returns whether there may be rows of which it tells
/// nothing any more: all rows are listed then.
fn list_differences(replica: &Replica, table: &Arc<Table>, added: &[String]) -> Result<bool> {
    let spans = membership::floors(replica)?.iter().any(|(_, seq)| *seq > 0);
    let n = table.def.columns.len();
    let sql =
        format!("SELECT {} FROM {} ORDER BY {}", table.column_list(), table.sql_name, table.def.key_list(""));
    let mut statement = replica.db.prepare(&sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let key = key_of(table, row)?;
        if deferred::is_quarantined(replica, table.tid, &key)? || is_held(replica, table.tid, &key)? {
            continue;
        }
        let heads = heads::heads(replica, table.tid, &key)?;
        if heads.is_empty() {
            put(replica, &key, What::Written, None)?;
            continue;
        }
        let own = (0..n).map(|at| OwnedValue::of(value::from_sql(row.get_ref(at)?)));
        let own = own.collect::<Result<Vec<_>>>()?;
        match differing(replica, table, &key, &own, &heads, added)? {
            Some(columns) if columns.is_empty() && spans => put(replica, &key, What::Same, None)?,
            Some(columns) if columns.is_empty() => {}
            Some(columns) => put(replica, &key, What::Written, Some(&columns))?,
            None => put(replica, &key, What::Written, None)?,
        }
    }
    drop(rows);
    for key in context_free::remembered_keys(replica, table.tid)? {
        let heads = heads::heads(replica, table.tid, &key)?;
        if compose::shown_row(replica, table, &key)?.is_none()
            && !is_held(replica, table.tid, &key)?
            && !deferred::is_quarantined(replica, table.tid, &key)?
            && versions::judge_versions(replica, table, &heads)?.present
        {
            put(replica, &key, What::Gone, None)?;
        }
    }
    if spans {
        list_unshown(replica, table)?;
    }
    Ok(spans)
}

/// Lists the rows that are not shown here: of these nothing is said, but that a part of a row is all that is left of it.
fn list_unshown(replica: &Replica, table: &Table) -> Result<()> {
    let n = table.def.columns.len();
    let sql = "SELECT key FROM _pm_held WHERE tid = ?1 UNION SELECT key FROM _pm_parked WHERE tid = ?1";
    let keys = replica
        .db
        .prepare(sql)?
        .query_map([table.tid], |row| row.get(0))?
        .collect::<rusqlite::Result<Vec<Vec<u8>>>>()?;
    for key in keys {
        let heads = heads::heads(replica, table.tid, &key)?;
        let whole = (0..n).all(|at| heads.iter().any(|head| head.live(n).contains(at)));
        let gone = heads.iter().any(|head| head.kind == OpKind::Delete);
        let lacks = !whole && !gone && compose::row_of(replica, table, &key)?.is_none();
        put(replica, &key, if lacks { What::Lacking } else { What::Same }, None)?;
    }
    Ok(())
}

/// Returns whether versions of a row have come while its table was suspended: they are still to be shown.
fn is_held(replica: &Replica, tid: i64, key: &[u8]) -> Result<bool> {
    let sql = "SELECT 1 FROM _pm_held WHERE tid = ?1 AND key = ?2";
    Ok(value::maybe::<i64>(&replica.db, sql, (tid, key))?.is_some())
}

/// Lists all rows of a per-device table: it has one writer, whose table is what holds.
fn list_all(replica: &Replica, table: &Table) -> Result<bool> {
    let keys = table.def.key_list("");
    let mut statement =
        replica.db.prepare(&format!("SELECT {keys} FROM {} ORDER BY {keys}", table.sql_name))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        put(replica, &table.key_in(row)?, What::Written, None)?;
    }
    Ok(true)
}

/// Returns the canonical key of a row of all columns.
fn key_of(table: &Table, row: &Row<'_>) -> Result<Vec<u8>> {
    let keys: Vec<usize> = table.def.keys().collect();
    let values =
        keys.iter().map(|at| row.get_ref(*at).map(value::from_sql)).collect::<rusqlite::Result<Vec<_>>>()?;
    table.key_of(values.into_iter())
}

/// Puts a row into the list.
fn put(replica: &Replica, key: &[u8], what: What, columns: Option<&Columns>) -> Result<()> {
    replica
        .db
        .prepare_cached("INSERT OR IGNORE INTO temp._pm_restate (key, what, columns) VALUES (?1, ?2, ?3)")?
        .execute((key, what as i64, columns.map(Columns::as_bytes)))?;
    Ok(())
}

/// Returns the columns in which a row differs from what its versions say; `None` if they say that it is not there.
///
/// Of a column of which no version speaks, nobody remembers what it was, unless it is new: then it was its default.
/// Counters are left out: what was added to them meanwhile nobody knows.
fn differing(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    own: &[OwnedValue],
    heads: &[Head],
    added: &[String],
) -> Result<Option<Columns>> {
    let judgement = versions::judge_versions(replica, table, heads)?;
    if !judgement.present {
        return Ok(None);
    }
    let n = table.def.columns.len();
    let mut spoken = Columns::default();
    heads.iter().for_each(|head| spoken.extend(&head.live(n)));
    let said = said_values(replica, table, key, own, heads, &judgement)?;
    let mut differing = Columns::default();
    for (at, column) in table.def.columns.iter().enumerate() {
        if column.key > 0 || table.counters.contains(&at) || table.disputed.contains(at) {
            continue;
        }
        let new = || added.iter().any(|name| name.eq_ignore_ascii_case(&column.name));
        let same = if spoken.contains(at) {
            said.get(at).is_some_and(|said| *said == own[at])
        } else {
            new() && own[at] == column.constant()
        };
        if !same {
            differing.insert(at);
        }
    }
    Ok(Some(differing))
}

/// Returns the values of a row that its versions say; those of which none speaks are as they are.
fn said_values(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    own: &[OwnedValue],
    heads: &[Head],
    judgement: &versions::Judgement,
) -> Result<Vec<OwnedValue>> {
    if let [only] = heads {
        let mut said = own.to_vec();
        for (at, value) in versions::values(replica, table, only)? {
            said[at] = value;
        }
        return Ok(said);
    }
    let changes: Vec<_> = own.iter().cloned().enumerate().collect();
    compose::make_quarantined_row(replica, table, key, &changes)?;
    compose::compose(replica, table, key, heads, judgement)?;
    let said = compose::row_in(replica, &table.quarantine_table(), table, key)?;
    compose::delete_from(replica, &table.quarantine_table(), table, key)?;
    Ok(said.unwrap_or_default())
}

/// Writes what is listed into the group.
fn write_group(replica: &Replica, table: &Arc<Table>, group: &mut GroupWriter<'_>) -> Result<()> {
    let reader = RowReader::new(replica, table);
    let mut list = replica.db.prepare("SELECT key, what, columns FROM temp._pm_restate ORDER BY n")?;
    let mut listed = list.query([])?;
    let mut select = replica.db.prepare_cached(&table.select_sql(&reader.columns))?;
    while let Some(entry) = listed.next()? {
        let (key, what): (Vec<u8>, i64) = (entry.get(0)?, entry.get(1)?);
        let columns = entry.get::<_, Option<Vec<u8>>>(2)?.map(|bytes| Columns::of_bytes(&bytes));
        let values = value::read_key(&key)?;
        let heads = match table.def.mode {
            Mode::Shared => heads::heads(replica, table.tid, &key)?,
            Mode::PerDevice => Vec::new(),
        };
        let borrowed: Vec<_> = values.iter().map(OwnedValue::borrow).collect();
        if what == What::Written as i64 {
            let claim = keeps_claim(table, columns.as_ref()).then(|| versions::claim_of(table, &heads));
            let kind = if columns.is_some() { OpKind::Update } else { OpKind::Insert };
            let change = Change { kind, claim, columns, heads: Some(heads), ..Change::default() };
            let mut found = select.query(params_from_iter(borrowed.iter().map(|v| Bind(*v))))?;
            if let Some(row) = found.next()? {
                ops::seal_row(replica, &reader, group, row, &change, &Seen::All)?;
            }
        } else if what == What::Gone as i64 {
            let change = Change { kind: OpKind::Delete, heads: Some(heads), ..Change::default() };
            ops::seal_delete(replica, &reader, group, &borrowed, &change, &Seen::All)?;
        } else {
            let kind = if what == What::Same as i64 { OpKind::Keep } else { OpKind::Update };
            ops::seal_unsaid(replica, table, group, &borrowed, kind)?;
        }
    }
    Ok(())
}

/// Makes a notice that a table was rebuilt, if any row of it may differ.
fn notice_of_restating(replica: &Replica, table: &Table) -> Result<()> {
    let rows: u64 = replica.db.query_row(
        "SELECT count(*) FROM temp._pm_restate WHERE what <> ?1",
        [What::Same as i64],
        |row| row.get(0),
    )?;
    // Nobody else writes to a per-device table.
    if rows == 0 || table.def.mode == Mode::PerDevice {
        return Ok(());
    }
    let what = format!(
        "table `{}` was rebuilt here: {rows} of its rows may have changed at that moment or until the next seal; \
         where other devices wrote to the same rows meanwhile, theirs hold",
        table.def.name
    );
    meta::notice(&replica.db, &what, replica.now())
}

/// Returns whether a row keeps its claim to its unique values: none of their columns differs.
fn keeps_claim(table: &Table, columns: Option<&Columns>) -> bool {
    let Some(columns) = columns.filter(|_| table.unique) else { return false };
    !table.def.uniques.iter().flatten().any(|at| columns.contains(usize::from(*at)))
}
