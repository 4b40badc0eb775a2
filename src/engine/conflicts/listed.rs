//! The open conflicts as they are listed in the database, in `_pm_listed`: for the view `packmule_conflicts`, and to know
//! after a decision which conflicts were open before.
//!
//! **Invariant.** At the end of each transaction `_pm_listed` has what a walk through the open conflicts would give. Only
//! what may have changed is described anew: triggers of this connection have put that into `_pm_relist`
//! (`store/listing.rs`). So what this costs depends on what a transaction did, and not on how many conflicts are open.
//! Two things are looked up for all rows in each transaction that seals or applies something: whether a row that may be an
//! orphan is one; and, where a table has several UNIQUEs, which row has the value of a quarantined one.

use packmule_core::model::Iso;

use crate::engine::capture::adopt;
use crate::engine::conflicts::list::{self, Conflict, ConflictKind, ConflictVersion, Open};
use crate::engine::conflicts::walk::{List, Place};
use crate::engine::conflicts::ways;
use crate::engine::error::{Error, Result};
use crate::engine::show::references;
use crate::engine::store::listing::{self, ALL_KEYS, ALL_TABLES, ORPHANS};
use crate::engine::store::value::{self, OwnedValue};
use crate::engine::store::{json_text, meta};
use crate::engine::table::catalog;
use crate::engine::table::known::{State, Table};
use crate::engine::table::replica::Replica;

/// The form of what is listed: of another one all is described anew.
const FORM: i64 = 1;

/// The most bytes of the versions of a conflict, as they are listed. Of more, each long value is told by length and hash.
const VERSIONS_MOST: usize = 65_536;

/// Values of so many bytes are long then.
const LONG: usize = 64;

/// Brings the list up to date with what the open transaction did so far. Where columns are gone since the last seal, that is
/// put off: the next transaction lists all anew.
pub(crate) fn refresh(replica: &Replica) -> Result<()> {
    match list_changed(replica) {
        Err(e) if catalog::is_for_columns_gone(replica, &e)? => meta::forget(&replica.db, "listed"),
        listed => listed,
    }
}

/// Lists what has changed.
fn list_changed(replica: &Replica) -> Result<()> {
    let db = &replica.db;
    let is_whole = meta::get::<i64>(db, "listed")? == Some(FORM);
    if !is_whole {
        mark(replica, ALL_TABLES, ALL_KEYS)?;
        meta::set(db, "listed", FORM)?;
    } else if value::maybe::<i64>(db, "SELECT 1 FROM temp._pm_relist LIMIT 1", [])?.is_none() {
        return Ok(());
    }
    mark_beside(replica)?;
    let sql = "SELECT tid FROM temp._pm_relist WHERE key = ?1";
    let whole: Vec<i64> = {
        let mut statement = db.prepare_cached(sql)?;
        let rows = statement.query_map([ALL_KEYS], |row| row.get(0))?;
        rows.collect::<rusqlite::Result<_>>()?
    };
    db.prepare_cached("DELETE FROM temp._pm_relist WHERE key = ?1")?.execute([ALL_KEYS])?;
    if !whole.is_empty() {
        keep_view(replica)?;
    }
    if whole.contains(&ALL_TABLES) {
        db.execute("DELETE FROM _pm_listed", [])?;
        for table in catalog::tables(replica) {
            mark_table(replica, table.tid)?;
        }
    } else {
        whole.into_iter().try_for_each(|tid| mark_table(replica, tid))?;
    }
    list_marked(replica)
}

/// Notes that a row is to be listed anew.
fn mark(replica: &Replica, tid: i64, key: &[u8]) -> Result<()> {
    let sql = "INSERT OR IGNORE INTO temp._pm_relist (tid, key) VALUES (?1, ?2)";
    replica.db.prepare_cached(sql)?.execute((tid, key))?;
    Ok(())
}

/// Notes which conflicts are others because other rows have changed, if anything was sealed or applied: orphans, and
/// quarantined rows whose value another row has now.
fn mark_beside(replica: &Replica) -> Result<()> {
    let db = &replica.db;
    let noted = "SELECT 1 FROM temp._pm_relist WHERE tid IN (?1, ?2)";
    if !db.prepare_cached(noted)?.exists((ORPHANS, ALL_TABLES))? {
        return Ok(());
    }
    db.prepare_cached("DELETE FROM temp._pm_relist WHERE tid = ?1")?.execute([ORPHANS])?;
    let listed = "SELECT 1 FROM _pm_listed WHERE tid = ?1 AND key = ?2 AND what = '_pm_dangling'";
    references::each_dangling(replica, &mut |tid, key| {
        let table = catalog::table(replica, tid)?;
        let is_orphan = !references::orphaned_by(replica, &table, key)?.is_empty();
        if is_orphan != db.prepare_cached(listed)?.exists((tid, key))? {
            mark(replica, tid, key)?;
        }
        Ok(())
    })?;
    let tables = catalog::tables(replica);
    tables.iter().filter(|table| table.shows_shared()).try_for_each(|table| mark_clashing(replica, table))
}

/// A quarantined row: its key, the row that keeps it out, and the row that is listed beside it.
type Kept = (Vec<u8>, Option<Vec<u8>>, Option<Vec<u8>>);

/// Notes the quarantined rows of a table beside which another row is listed than the one that has their value. Of the row
/// that keeps one out each change is noted by itself; another one may be listed, whose UNIQUE comes first.
fn mark_clashing(replica: &Replica, table: &Table) -> Result<()> {
    if table.def.uniques.is_empty() {
        return Ok(());
    }
    let one = table.def.uniques.len() == 1;
    let mut last = Vec::new();
    loop {
        let sql = "SELECT p.key, p.blocker, l.beside FROM _pm_parked p LEFT JOIN _pm_listed l
             ON l.tid = p.tid AND l.key = p.key AND l.what = '_pm_parked'
             WHERE p.tid = ?1 AND p.key > ?2 AND NOT (?3 AND p.blocker IS NOT NULL AND p.blocker IS l.beside)
             ORDER BY p.key LIMIT 64";
        let rows: Vec<Kept> = replica
            .db
            .prepare_cached(sql)?
            .query_map((table.tid, &last, one), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
            .collect::<rusqlite::Result<_>>()?;
        let Some((end, ..)) = rows.last() else { return Ok(()) };
        last = end.clone();
        for (key, blocker, beside) in rows {
            let now = list::blocking_row(replica, table, &key)?.map(|(_, key)| key);
            if now != beside || (now.is_some() && now != blocker) {
                mark(replica, table.tid, &key)?;
            }
        }
    }
}

/// Forgets what is listed of a table, and notes all that may have to be.
fn mark_table(replica: &Replica, tid: i64) -> Result<()> {
    let db = &replica.db;
    db.prepare_cached("DELETE FROM _pm_listed WHERE tid = ?1")?.execute([tid])?;
    for list in ["_pm_conflict", "_pm_parked", "_pm_dangling"] {
        let sql = format!(
            "INSERT OR IGNORE INTO temp._pm_relist (tid, key) SELECT tid, key FROM {list} WHERE tid = ?1"
        );
        db.prepare_cached(&sql)?.execute([tid])?;
    }
    let Some(table) = catalog::table_numbered(replica, tid) else { return Ok(()) };
    if table.shows_shared() {
        for at in (0..table.def.columns.len()).filter(|at| table.disputed.contains(*at)) {
            list_place(replica, Place::Column(tid, table.def.columns[at].name.to_ascii_lowercase()))?;
        }
    }
    Ok(())
}

/// Describes all rows anew that were noted.
fn list_marked(replica: &Replica) -> Result<()> {
    let db = &replica.db;
    loop {
        let next = "SELECT tid, key FROM temp._pm_relist LIMIT 64";
        let rows: Vec<(i64, Vec<u8>)> = db
            .prepare_cached(next)?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<_>>()?;
        if rows.is_empty() {
            return Ok(());
        }
        for (tid, key) in rows {
            db.prepare_cached("DELETE FROM temp._pm_relist WHERE tid = ?1 AND key = ?2")?
                .execute((tid, &key))?;
            db.prepare_cached("DELETE FROM _pm_listed WHERE tid = ?1 AND key = ?2")?.execute((tid, &key))?;
            // A suspended table shows nothing, so that nothing can be decided about its rows.
            let table = catalog::table_numbered(replica, tid);
            let tracked = table.is_some_and(|table| table.state == State::Tracked);
            for of in [List::Contested, List::Quarantined, List::Dangling] {
                if tracked || of == List::Dangling {
                    list_place(replica, Place::Row(tid, key.clone(), of))?;
                }
            }
        }
    }
}

/// Lists what is open in a place, if anything is. What cannot be read there is not listed: it stops nothing.
fn list_place(replica: &Replica, place: Place) -> Result<()> {
    let listed = place.clone().describe(replica).and_then(|open| {
        let Some(mut open) = open else { return Ok(()) };
        ways::add_offered(replica, &mut open)?;
        insert(replica, &place, &open)
    });
    match listed {
        Err(error) if matches!(*error, Error::Damaged(_) | Error::UnknownTable { .. }) => Ok(()),
        listed => listed,
    }
}

fn insert(replica: &Replica, place: &Place, open: &Open) -> Result<()> {
    let (tid, key, what) = place.parts();
    let Conflict { id, table, kind, ways, .. } = &open.conflict;
    let mut key_text = String::new();
    json_text::row(&mut key_text, &open.conflict.key);
    let mut offered = String::new();
    json_text::all(&mut offered, ['[', ']'], ways, |out, way| json_text::text(out, way.word()));
    replica
        .db
        .prepare_cached(
            "INSERT INTO _pm_listed (tid, key, what, id, tbl_name, key_text, kind, about, versions, ways, beside)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        )?
        .execute((
            tid,
            key,
            what,
            id,
            table,
            key_text,
            kind.word(),
            about(kind),
            versions(&open.conflict),
            offered,
            &open.blocking,
        ))?;
    Ok(())
}

/// Returns what a kind of conflict is about: an object with the fields of `conflicts --json`.
fn about(kind: &ConflictKind) -> String {
    let mut out = String::from("{");
    let columns = |out: &mut String, columns: &[String]| {
        out.push_str("\"columns\":");
        json_text::all(out, ['[', ']'], columns, |out, column| json_text::text(out, column));
    };
    match kind {
        ConflictKind::InsertInsert | ConflictKind::UpdateUpdate | ConflictKind::UpdateDelete => {}
        ConflictKind::Unique(of) => columns(&mut out, of),
        ConflictKind::Schema(column) => columns(&mut out, std::slice::from_ref(column)),
        ConflictKind::ForeignKey(of, parent) => {
            columns(&mut out, of);
            out.push_str(",\"parent\":");
            json_text::text(&mut out, parent);
        }
        ConflictKind::Check(reason) => {
            out.push_str("\"reason\":");
            json_text::text(&mut out, reason);
        }
    }
    out.push('}');
    out
}

/// Returns the versions of a conflict, as in `conflicts --json`, but not which cannot be taken: that hangs on other rows.
fn versions(conflict: &Conflict) -> String {
    let all = versions_with(conflict, &|value| value.clone());
    if all.len() <= VERSIONS_MOST {
        return all;
    }
    versions_with(conflict, &|value| value.clone().told_above(LONG))
}

fn versions_with(conflict: &Conflict, told: &dyn Fn(&OwnedValue) -> OwnedValue) -> String {
    let mut out = String::new();
    json_text::all(&mut out, ['[', ']'], &conflict.versions, |out, version| {
        let ConflictVersion { device, name, at, op, shown, values, .. } = version;
        let mut field = |field: &str, value: Option<String>| {
            out.push_str(field);
            match value {
                Some(value) => json_text::text(out, &value),
                None => out.push_str("null"),
            }
        };
        field("{\"device\":", device.map(|device| device.to_string()));
        field(",\"name\":", name.clone());
        field(",\"at\":", at.map(|at| Iso(at).to_string()));
        field(",\"op\":", Some(op.word().to_owned()));
        out.push_str(if *shown { ",\"shown\":true,\"values\":" } else { ",\"shown\":false,\"values\":" });
        let values: Vec<_> = values.iter().map(|(name, value)| (name.clone(), told(value))).collect();
        json_text::row(out, &values);
        out.push('}');
    });
    out
}

/// Makes the view where a table is tracked, and drops it where none is any more.
fn keep_view(replica: &Replica) -> Result<()> {
    let db = &replica.db;
    let wanted = catalog::tables(replica).iter().any(|table| table.shows_shared());
    // A change of the application's that was not looked at yet stays one.
    let seen = catalog::is_schema_known(replica)?;
    let changed = match (wanted, listing::is_there(db)?) {
        (true, false) => listing::make_view(db).map(|()| true)?,
        (false, true) => listing::drop_view(db)?,
        _ => false,
    };
    if changed && seen { adopt::remember_schema(replica) } else { Ok(()) }
}
