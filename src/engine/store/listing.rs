//! The view `packmule_conflicts`, for applications and for any reader of SQLite, and what notes which conflicts changed.
//!
//! A version's content is in frames, which plain SQL cannot decode. So the open conflicts are described in `_pm_listed`
//! whenever they change, at the end of the transaction that changes them. Triggers of this connection alone note which rows
//! that may be: of all lists that a conflict depends on.

use rusqlite::Connection;

use crate::engine::error::Result;
use crate::engine::store::value;

/// Its name.
pub(crate) const VIEW: &str = "packmule_conflicts";

/// The most bytes of a decision in SQL.
pub(crate) const DECISION_MOST: usize = 65_536;

/// A key that no row has: all of a table.
pub(crate) const ALL_KEYS: &[u8] = &[];

/// A number that no table has: all tables.
pub(crate) const ALL_TABLES: i64 = i64::MIN;

/// A number that no table has: rows that may be orphans.
pub(crate) const ORPHANS: i64 = i64::MIN + 1;

/// Makes the table of what is to be listed anew, and the triggers that fill it, which run although triggers are off.
pub(crate) fn watch(db: &Connection) -> Result<()> {
    let mut sql = String::from(
        "CREATE TEMP TABLE IF NOT EXISTS _pm_relist (tid INTEGER, key BLOB, PRIMARY KEY (tid, key)) WITHOUT ROWID;",
    );
    // Not with OR IGNORE: the ON CONFLICT of the statement that fires a trigger holds in its place.
    let mut trigger = |name: &str, event: &str, of: &str, row: [&str; 2], when: &str| {
        let [tid, key] = row;
        sql += &format!(
            "CREATE TEMP TRIGGER IF NOT EXISTS _pm_relist_{name} {event} ON main.{of} {when} BEGIN
               INSERT INTO _pm_relist (tid, key) SELECT {tid}, {key}
               WHERE NOT EXISTS (SELECT 1 FROM _pm_relist WHERE tid = {tid} AND key = {key}); END;"
        );
    };
    for list in ["_pm_conflict", "_pm_parked", "_pm_dangling"] {
        // Before: also where the row is there, and gets another version.
        trigger(&format!("in{list}"), "BEFORE INSERT", list, ["NEW.tid", "NEW.key"], "");
        trigger(&format!("out{list}"), "AFTER DELETE", list, ["OLD.tid", "OLD.key"], "");
    }
    let (all, orphans) = (ALL_TABLES.to_string(), ORPHANS.to_string());
    let all_tables = [&*all, "x''"];
    let renamed = "WHEN OLD.name IS NOT NEW.name";
    trigger("named", "AFTER UPDATE OF name", "_pm_device", all_tables, renamed);
    // What is folded names no author any more.
    trigger("fold", "AFTER INSERT", "_pm_floor", all_tables, "");
    trigger("folds", "AFTER UPDATE", "_pm_floor", all_tables, "");
    trigger("table", "AFTER UPDATE OF name, def, state", "_pm_table", ["NEW.tid", "x''"], "");
    trigger("tables", "AFTER INSERT", "_pm_table", ["NEW.tid", "x''"], "");
    for (event, tid) in [("INSERT", "NEW.tid"), ("UPDATE", "NEW.tid"), ("DELETE", "OLD.tid")] {
        trigger(event, &format!("AFTER {event}"), "_pm_declared", [tid, "x''"], "");
    }
    trigger("seal", "AFTER INSERT", "_pm_stream", [&orphans, "x''"], "");
    trigger("seals", "AFTER UPDATE", "_pm_stream", [&orphans, "x''"], "");
    Ok(db.execute_batch(&sql)?)
}

/// Returns whether something of the view's name is in the database.
pub(crate) fn is_there(db: &Connection) -> Result<bool> {
    let sql = "SELECT 1 FROM main.sqlite_schema WHERE name = ?1 COLLATE NOCASE";
    Ok(value::maybe::<i64>(db, sql, [VIEW])?.is_some())
}

/// Makes the view. INSERT and UPDATE note a decision, DELETE takes it back; each is carried out, or refused, by the next run of
/// this program. It uses nothing that SQLite 3.34 does not have, and no function of an extension.
pub(crate) fn make_view(db: &Connection) -> Result<()> {
    let note = |row: &str, take: &str, decision: &str| {
        format!(
            "SELECT RAISE(ABORT, '{VIEW}: id is that of a conflict, as the view shows it')
               WHERE typeof({row}.id) <> 'text' OR length({row}.id) NOT BETWEEN 1 AND 64;
             SELECT RAISE(ABORT, '{VIEW}: give take or decision, one of the two')
               WHERE ({take} IS NULL) = ({decision} IS NULL);
             SELECT RAISE(ABORT, '{VIEW}: take and decision have at most {DECISION_MOST} bytes')
               WHERE length(CAST(coalesce({take}, {decision}) AS BLOB)) > {DECISION_MOST};
             DELETE FROM _pm_wish WHERE id = {row}.id;
             INSERT INTO _pm_wish (id, take, decision)
               VALUES ({row}.id, CAST({take} AS TEXT), CAST({decision} AS TEXT));"
        )
    };
    // Of a row that is updated the one that was changed counts.
    let changed = |this: &str, other: &str| {
        format!(
            "CASE WHEN NEW.{other} IS NOT OLD.{other} AND NEW.{this} IS OLD.{this} THEN NULL ELSE NEW.{this} END"
        )
    };
    Ok(db.execute_batch(&format!(
        "CREATE VIEW {VIEW} AS
           SELECT l.id AS id, l.tbl_name AS tbl_name, l.key_text AS key, l.kind AS kind, l.about AS about,
             l.versions AS versions, l.ways AS ways, w.take AS take, w.decision AS decision, w.refused AS refused
           FROM _pm_listed l LEFT JOIN _pm_wish w ON w.id = l.id
           UNION ALL SELECT w.id, NULL, NULL, NULL, NULL, NULL, NULL, w.take, w.decision, w.refused
           FROM _pm_wish w WHERE NOT EXISTS (SELECT 1 FROM _pm_listed l WHERE l.id = w.id);
         CREATE TRIGGER _pm_wish_insert INSTEAD OF INSERT ON {VIEW} BEGIN {} END;
         CREATE TRIGGER _pm_wish_update INSTEAD OF UPDATE ON {VIEW} BEGIN {} END;
         CREATE TRIGGER _pm_wish_delete INSTEAD OF DELETE ON {VIEW} BEGIN DELETE FROM _pm_wish WHERE id = OLD.id; END",
        note("NEW", "NEW.take", "NEW.decision"),
        note("OLD", &changed("take", "decision"), &changed("decision", "take"))
    ))?)
}

/// Drops the view, if that of this name is ours. Returns whether it was there.
pub(crate) fn drop_view(db: &Connection) -> Result<bool> {
    let ours = "SELECT 1 FROM main.sqlite_schema WHERE type = 'trigger' AND name = '_pm_wish_insert'";
    if value::maybe::<i64>(db, ours, [])?.is_none() {
        return Ok(false);
    }
    db.execute_batch(&format!("DROP VIEW IF EXISTS {VIEW}"))?;
    Ok(true)
}
