//! What a table is on other devices, by the definition that each of them announced last: a declaration of its own kind,
//! so that it travels with every state.
//!
//! A device whose table Packmule made announces none, or says that columns follow there. One that does not track the table any
//! more says so, and counts as one that has announced none.
//!
//! **At odds.** An application that renames or drops a column of its table, or changes a type, has its device announce
//! the table as *changed*. Its rows wait there until the shape fits what every other device has announced whose columns do
//! not follow. Until then the table is at odds: it counts in no digest. All of this is a function of what is announced in
//! the log, and of who is retired, revoked or left (`left`): these do not count.

use packmule_core::wire::{DefId, SchemaBits};

use crate::engine::error::Result;
use crate::engine::table::columns::Columns;
use crate::engine::table::declared::{self, Subject};
use crate::engine::table::def::TableDef;
use crate::engine::table::known::Table;
use crate::engine::table::replica::Replica;
use crate::engine::table::{dropped, left, renamed};

/// What a device announced last of a table.
pub(crate) struct Shape {
    pub dev: i64,
    pub lamport: u64,
    pub id: DefId,
    pub def: TableDef,
    pub bits: SchemaBits,
}

/// Records the definition that a device announced of a table, in a frame of this number, and what it said of it.
pub(crate) fn record_shape(
    replica: &Replica,
    tid: i64,
    (dev, seq, lamport): (i64, u64, u64),
    id: DefId,
    bits: SchemaBits,
) -> Result<()> {
    let tid = declared::root_of(replica, tid);
    replica
        .db
        .prepare_cached(
            "UPDATE _pm_declared SET past = 1 WHERE tid = ?1 AND what = ?2 AND name = '' AND dev = ?3
               AND seq = (SELECT max(seq) FROM _pm_declared WHERE tid = ?1 AND what = ?2 AND name = '' AND dev = ?3 AND seq < ?4)",
        )?
        .execute((tid, Subject::Shape, dev, seq))?;
    // The bits come after the id, where there are any.
    let value: Vec<u8> =
        id.0.iter().copied().chain((bits != SchemaBits::default()).then_some(bits.0)).collect();
    declared::record(replica, tid, (Subject::Shape, ""), (dev, seq, lamport), &value, id)
}

/// Forgets what a device declared in its frames after this one. What it announced of a table before is its last word again.
pub(crate) fn forget_after(replica: &Replica, dev: i64, seq: u64) -> Result<()> {
    replica.db.prepare_cached("DELETE FROM _pm_declared WHERE dev = ?1 AND seq > ?2")?.execute((dev, seq))?;
    replica
        .db
        .prepare_cached(
            "UPDATE _pm_declared AS p SET past = 0 WHERE dev = ?1 AND what = ?2 AND name = '' AND past
               AND seq = (SELECT max(seq) FROM _pm_declared l
                          WHERE l.tid = p.tid AND l.what = ?2 AND l.name = '' AND l.dev = ?1)",
        )?
        .execute((dev, Subject::Shape))?;
    Ok(())
}

/// Records what a device says of a column: that it was renamed, or, with no name after, that a person has dropped it for all.
pub(crate) fn record_said(
    replica: &Replica,
    tid: i64,
    place: (i64, u64, u64),
    id: DefId,
    (before, after): (&str, &str),
) -> Result<()> {
    match after {
        "" => dropped::record_dropped(replica, tid, place, id, before),
        after => renamed::record_renamed(replica, tid, place, id, (before, after)),
    }
}

/// Returns whether a device has announced this very definition of a table before, if only as one that it has changed: then ops
/// may have come in it.
pub(crate) fn is_announced(replica: &Replica, tid: i64, id: DefId) -> Result<bool> {
    let sql = "SELECT 1 FROM _pm_declared WHERE tid = ?1 AND what = ?2 AND name = '' AND def = ?3 LIMIT 1";
    let params = (declared::root_of(replica, tid), Subject::Shape, id.0);
    Ok(replica.db.prepare_cached(sql)?.exists(params)?)
}

/// Returns what this device announced last of a table, if it has: the others count on it.
pub(crate) fn own_shape(replica: &Replica, tid: i64) -> Result<Option<Shape>> {
    let own = announced(replica, tid)?;
    Ok(own.into_iter().find(|shape| shape.dev == replica.me))
}

/// Returns whether the others count on what this device announced last of a table: it has not said that it is left.
pub(crate) fn is_counted_on(replica: &Replica, tid: i64) -> Result<bool> {
    Ok(own_shape(replica, tid)?.is_some_and(|own| !own.bits.says(SchemaBits::LEFT)))
}

/// Returns what each device that counts announced last of the table of a name, and has not let it go since: of that and of
/// others with another primary key.
pub(crate) fn shapes(replica: &Replica, tid: i64) -> Result<Vec<Shape>> {
    let (mut shapes, left) = (announced(replica, tid)?, left::left(replica)?);
    shapes.retain(|shape| !shape.bits.says(SchemaBits::LEFT) && !left.contains(&shape.dev));
    Ok(shapes)
}

/// Returns the same, of this very table: with its primary key.
fn shapes_of(replica: &Replica, tid: i64) -> Result<Vec<Shape>> {
    let mut of = Vec::new();
    for shape in shapes(replica, tid)? {
        if renamed::is_of(replica, tid, &shape.def)? {
            of.push(shape);
        }
    }
    Ok(of)
}

/// Returns what each device that is neither retired nor revoked announced last of the table of a name; this device always.
///
/// Costs a look-up for each device that has announced any, however often it has.
fn announced(replica: &Replica, tid: i64) -> Result<Vec<Shape>> {
    let mut statement = replica.db.prepare_cached(
        "WITH RECURSIVE devs (dev) AS (
           SELECT min(dev) FROM _pm_declared WHERE tid = ?1 AND what = ?2 AND name = ''
           UNION ALL SELECT (SELECT min(dev) FROM _pm_declared WHERE tid = ?1 AND what = ?2 AND name = '' AND dev > devs.dev)
           FROM devs WHERE dev IS NOT NULL)
         SELECT p.dev, p.def, p.value, f.body, p.lamport FROM devs CROSS JOIN _pm_declared p CROSS JOIN _pm_device d
         CROSS JOIN _pm_def f
         WHERE p.tid = ?1 AND p.what = ?2 AND p.name = '' AND p.dev = devs.dev AND d.n = p.dev AND f.id = p.def
           AND p.seq = (SELECT max(seq) FROM _pm_declared WHERE tid = ?1 AND what = ?2 AND name = '' AND dev = devs.dev)
           AND (p.dev = ?3 OR (NOT d.retired AND d.trust <> 3))",
    )?;
    let mut rows = statement.query((declared::root_of(replica, tid), Subject::Shape, replica.me))?;
    let mut shapes = Vec::new();
    while let Some(row) = rows.next()? {
        let (value, body): (Vec<u8>, Vec<u8>) = (row.get(2)?, row.get(3)?);
        let bits = declared::bits_of(&value);
        let def = TableDef::stored(&body)?;
        shapes.push(Shape { dev: row.get(0)?, lamport: row.get(4)?, id: DefId(row.get(1)?), def, bits });
    }
    Ok(shapes)
}

/// Returns what the other devices announced last of a table, as far as it has not the very definition of here.
pub(crate) fn other_shapes(replica: &Replica, table: &Table) -> Result<Vec<Shape>> {
    let mut shapes = shapes_of(replica, table.tid)?;
    shapes.retain(|shape| shape.dev != replica.me && shape.id != table.def_id);
    Ok(shapes)
}

/// Returns the columns of a table that some device does not have yet, as far as it has announced: they count in no digest.
/// So does one that this device has followed, until its own log says so.
pub(crate) fn lacking_columns(replica: &Replica, table: &Table) -> Result<Columns> {
    let mut lacking = Columns::default();
    for theirs in shapes_of(replica, table.tid)?.iter().filter(|shape| shape.id != table.def_id) {
        for (at, column) in table.def.columns.iter().enumerate() {
            if theirs.def.mode == table.def.mode && theirs.def.column(&column.name).is_none() {
                lacking.insert(at);
            }
        }
    }
    Ok(lacking)
}

/// Returns what decides on the columns that follow: the table on each device whose columns do not follow; where they follow
/// on all, on the device whose application changed some last.
pub(crate) fn deciding(replica: &Replica, tid: i64) -> Result<Vec<Shape>> {
    let mut shapes = shapes_of(replica, tid)?;
    if shapes.iter().any(|shape| !shape.bits.says(SchemaBits::FOLLOWS)) {
        shapes.retain(|shape| !shape.bits.says(SchemaBits::FOLLOWS));
        return Ok(shapes);
    }
    let changed = last_change(replica, tid)?;
    shapes.retain(|shape| changed.is_some_and(|(dev, _)| shape.dev == dev));
    Ok(shapes)
}

/// Returns the device whose application changed columns of a table last, and the Lamport time of that.
fn last_change(replica: &Replica, tid: i64) -> Result<Option<(i64, u64)>> {
    let mut statement = replica.db.prepare_cached(
        "SELECT p.dev, p.lamport, p.value, f.body FROM _pm_declared p JOIN _pm_device d ON d.n = p.dev
         JOIN _pm_def f ON f.id = p.def WHERE p.tid = ?1 AND p.what = ?2 AND (p.dev = ?3 OR (NOT d.retired AND d.trust <> 3))
         ORDER BY p.lamport DESC, d.id DESC",
    )?;
    let left = left::left(replica)?;
    let mut rows = statement.query((declared::root_of(replica, tid), Subject::Shape, replica.me))?;
    while let Some(row) = rows.next()? {
        if !left.contains(&row.get(0)?)
            && !declared::takes_part(Subject::Shape as i64, &row.get::<_, Vec<u8>>(2)?)
            && renamed::is_of(replica, tid, &TableDef::stored(&row.get::<_, Vec<u8>>(3)?)?)?
        {
            return Ok(Some((row.get(0)?, row.get(1)?)));
        }
    }
    Ok(None)
}

/// Returns whether a column that a table had is none any more: of the devices that decide one has had it, and none has it
/// now, under whatever name. Where columns follow on all, one that a device announces later is one again.
pub(crate) fn is_gone(replica: &Replica, tid: i64, name: &str) -> Result<bool> {
    let names = renamed::names_of(replica, tid, name)?;
    let now = deciding(replica, tid)?;
    if now.iter().any(|shape| names.iter().any(|name| shape.def.column(name).is_some())) {
        return Ok(false);
    }
    is_gone_by_name(replica, tid, name)
}

/// Returns whether a column is none any more under this name of it.
pub(crate) fn is_gone_by_name(replica: &Replica, tid: i64, name: &str) -> Result<bool> {
    let now = deciding(replica, tid)?;
    if now.iter().any(|shape| shape.def.column(name).is_some()) {
        return Ok(false);
    }
    if let ([one], Some((_, lamport))) = (&now[..], last_change(replica, tid)?)
        && one.bits.says(SchemaBits::FOLLOWS)
        && shapes_of(replica, tid)?.iter().any(|s| s.lamport > lamport && s.def.column(name).is_some())
    {
        return Ok(false);
    }
    for shape in &now {
        if has_dropped(replica, tid, shape.dev, name)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns whether another device had a column, as one that takes part in what the table is, and has dropped it.
pub(crate) fn is_dropped_elsewhere(replica: &Replica, tid: i64, name: &str) -> Result<bool> {
    for shape in deciding(replica, tid)?.iter().filter(|shape| shape.dev != replica.me) {
        if has_dropped(replica, tid, shape.dev, name)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns whether a disputed column that Packmule made here, in the place of one that the application renamed, is one that no
/// application has: on each of these devices that has it, it was made in the same way. There it is of another kind than before,
/// and a column that came with that is of the kind that it was.
pub(crate) fn is_nobodys(replica: &Replica, tid: i64, others: &[Shape], name: &str) -> Result<bool> {
    for shape in others {
        let Some(at) = shape.def.column(name) else { continue };
        let (mut after, now, mut is_made) = (shape.def.clone(), &shape.def.columns[at], false);
        each_before(replica, tid, (shape.dev, i64::MAX as u64), &mut |before, _| {
            let Some(was) = before.column(name).map(|at| &before.columns[at]) else { return false };
            if was.stores_like(now) {
                after = before;
                return true;
            }
            let mut come = after.columns.iter().filter(|column| before.column(&column.name).is_none());
            is_made = come.any(|column| column.stores_like(was));
            false
        })?;
        if !is_made {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Returns whether a device that does not have a column has had it: neither one that was set back to a backup from before that,
/// and whose application will add it again, nor one that never had it.
fn has_dropped(replica: &Replica, tid: i64, dev: i64, name: &str) -> Result<bool> {
    let mut statement = replica.db.prepare_cached(
        "SELECT f.body, p.value FROM _pm_declared p JOIN _pm_def f ON f.id = p.def
         WHERE p.tid = ?1 AND p.what = ?2 AND p.name = '' AND p.dev = ?3 ORDER BY p.seq",
    )?;
    let mut rows = statement.query((declared::root_of(replica, tid), Subject::Shape, dev))?;
    let (mut had, mut dropped) = (false, false);
    while let Some(row) = rows.next()? {
        let (body, value): (Vec<u8>, Vec<u8>) = (row.get(0)?, row.get(1)?);
        let def = TableDef::stored(&body)?;
        if !renamed::is_of(replica, tid, &def)? {
            continue;
        }
        if def.column(name).is_some() {
            (had, dropped) = (true, false);
        } else if had {
            (had, dropped) = (false, !declared::bits_of(&value).says(SchemaBits::SET_BACK));
        }
    }
    Ok(dropped)
}

/// Returns whether nobody has a column any more that a table had: the devices that decide have dropped it, or a person has for
/// all.
pub(crate) fn is_dropped(replica: &Replica, tid: i64, name: &str) -> Result<bool> {
    Ok(dropped::is_dropped(replica, tid, name)? || is_gone(replica, tid, name)?)
}

/// Returns the definitions that a device announced of a table before its last.
pub(crate) fn past_shapes(replica: &Replica, tid: i64, dev: i64) -> Result<Vec<TableDef>> {
    let mut statement = replica.db.prepare_cached(
        "SELECT DISTINCT f.body FROM _pm_declared p JOIN _pm_def f ON f.id = p.def
         WHERE p.tid = ?1 AND p.what = ?2 AND p.dev = ?3 AND p.past",
    )?;
    let bodies = statement
        .query_map((declared::root_of(replica, tid), Subject::Shape, dev), |row| row.get(0))?
        .collect::<rusqlite::Result<Vec<Vec<u8>>>>()?;
    let mut past = Vec::new();
    for body in bodies {
        let def = TableDef::stored(&body)?;
        if renamed::is_of(replica, tid, &def)? {
            past.push(def);
        }
    }
    Ok(past)
}

/// Returns whether a table in which a device changed something fits what another device has of it. `before` is the table
/// as it was: columns that it never had do not count. One that was renamed is the same column, and may be retyped as well.
pub(crate) fn fits(
    replica: &Replica,
    tid: i64,
    now: &TableDef,
    before: &TableDef,
    other: &TableDef,
) -> Result<bool> {
    if now.mode != other.mode || !now.has_key_of(other) {
        return Ok(false);
    }
    for column in &other.columns {
        let Some(here) = now.column(&column.name) else {
            if before.column(&column.name).is_some() {
                return Ok(false);
            }
            continue;
        };
        let was = renamed::column_now(replica, tid, before, &column.name)?;
        let here = &now.columns[here];
        let retyped = was.is_some_and(|was| !before.columns[was].stores_like(here));
        if retyped && !here.stores_like(column) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Returns whether devices have a table in forms that do not fit: it counts in no digest.
pub(crate) fn is_at_odds(replica: &Replica, tid: i64) -> Result<bool> {
    let mut shapes = shapes(replica, tid)?;
    shapes.retain(|shape| !shape.bits.says(SchemaBits::FOLLOWS));
    for one in &shapes {
        let mut others = shapes.iter().filter(|other| other.dev != one.dev && other.def.mode == one.def.mode);
        let at_odds = match before(replica, tid, one.dev)? {
            Some(before) if one.bits.says(SchemaBits::CHANGED) => {
                let fit = others.map(|other| fits(replica, tid, &one.def, &before, &other.def));
                fit.collect::<Result<Vec<_>>>()?.contains(&false)
            }
            _ => others.any(|other| !one.def.has_key_of(&other.def)),
        };
        if at_odds {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns what a device announced last of a table before a frame of its own, and what it said of it.
pub(crate) fn announced_before(
    replica: &Replica,
    tid: i64,
    (dev, seq): (i64, u64),
) -> Result<Option<(TableDef, SchemaBits)>> {
    let sql = "SELECT p.value, f.body FROM _pm_declared p CROSS JOIN _pm_def f
         WHERE p.tid = ?1 AND p.what = ?2 AND p.name = '' AND p.dev = ?3 AND p.seq < ?4 AND f.id = p.def
         ORDER BY p.seq DESC LIMIT 1";
    let mut statement = replica.db.prepare_cached(sql)?;
    let of = (declared::root_of(replica, tid), Subject::Shape, dev, i64::try_from(seq).unwrap_or(i64::MAX));
    let mut rows = statement.query(of)?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let (value, body): (Vec<u8>, Vec<u8>) = (row.get(0)?, row.get(1)?);
    Ok(Some((TableDef::stored(&body)?, declared::bits_of(&value))))
}

/// Returns the definition that a device announced before it changed the table.
pub(crate) fn before(replica: &Replica, tid: i64, dev: i64) -> Result<Option<TableDef>> {
    let mut found = None;
    each_before(replica, tid, (dev, i64::MAX as u64), &mut |def, _| {
        found = Some(def);
        false
    })?;
    Ok(found)
}

/// Calls `each` with the definitions that a device had of a table before a frame of its own, as ones that take part, and their
/// Lamport times: the last one first, as long as it says so, and none from before the device let the table go.
pub(crate) fn each_before(
    replica: &Replica,
    tid: i64,
    (dev, seq): (i64, u64),
    each: &mut dyn FnMut(TableDef, u64) -> bool,
) -> Result<()> {
    let mut statement = replica.db.prepare_cached(
        "SELECT p.value, f.body, p.lamport FROM _pm_declared p CROSS JOIN _pm_def f
         WHERE p.tid = ?1 AND p.what = ?2 AND p.name = '' AND p.dev = ?3 AND p.seq < ?4 AND f.id = p.def ORDER BY p.seq DESC",
    )?;
    let mut rows = statement.query((declared::root_of(replica, tid), Subject::Shape, dev, seq))?;
    while let Some(row) = rows.next()? {
        let value: Vec<u8> = row.get(0)?;
        if declared::bits_of(&value).says(SchemaBits::LEFT) {
            break;
        }
        let takes_part = declared::takes_part(Subject::Shape as i64, &value);
        if takes_part && !each(TableDef::stored(&row.get::<_, Vec<u8>>(1)?)?, row.get(2)?) {
            break;
        }
    }
    Ok(())
}
