//! The application's own triggers, for rows that come from others.
//!
//! The engine's connection has the triggers of the database off: a row of another device is applied as it is, and
//! what its author's triggers wrote to tracked tables arrives by itself. But what an application derives from a row
//! and keeps to itself, such as a full-text index or a counter, must follow. So the triggers that write untracked
//! tables, and those alone, are copied as TEMP triggers, which are not off, for as long as a transaction lasts:
//!
//! | a trigger that | is |
//! |---|---|
//! | writes untracked tables only, virtual ones too | copied, and then those of the tables that it writes |
//! | writes a table that is tracked, here or by others | left out: its effect comes from where it was written |
//! | writes nothing, but may refuse | left out: the row's author accepted it |
//! | cannot be prepared here: a function of the application's, a view, a table that is gone | left out, with a notice |
//! | uses what a database must not be trusted with (`trusted_schema`) | left out, with a notice |
//! | may ROLLBACK, FAIL, or IGNORE the row | left out, with a notice |
//! | says OR IGNORE or the like, on a table whose constraints say ON CONFLICT | left out, with a notice |
//! | fails for a row | skipped for that row, with a notice |
//!
//! Of a table all of these are copied, or none: where one is left out with a notice the others are left out too, since
//! they may keep one thing together, as the triggers of a spatial index do. A row that is equal already is not written.
//!
//! An authorizer, and the program that SQLite makes of a trigger, say which of these it is. As with SQLite's default,
//! a trigger does not run within itself: `recursive_triggers` is off while any copies are there. A row that is
//! contested or quarantined is deleted and inserted again. The net effect is the same, but a trigger that counts only
//! what comes in counts it twice.

use std::collections::{HashMap, HashSet};

use rusqlite::{ErrorCode, Params, PrepFlags, params_from_iter};

use crate::engine::error::{self, Error, Result};
use crate::engine::store::value::{self, Bind};
use crate::engine::table::catalog;
use crate::engine::table::known::{OR_ABORT, State, Table};
use crate::engine::table::probe::{Access, Local, On, PREFIX};
use crate::engine::table::replica::Replica;

/// What is said of the other triggers of a table of which one cannot run.
const NOR_THE_OTHERS: &str = "; so no trigger of that table does";

/// What is done about a trigger.
enum Handling {
    Copy { writes: Vec<String>, reads: HashSet<String> },
    LeaveOut,
    Refuse(String),
}

struct Candidate {
    name: String,
    table: String,
    sql: String,
    /// A constraint of its table may say what it does where it is violated.
    with_clause: bool,
}

/// Returns whether triggers of the application run for rows of this table, and puts them in place.
pub(crate) fn has_local_triggers(replica: &Replica, table: &Table) -> Result<bool> {
    if !replica.triggers.borrow().ready {
        ready_triggers(replica)?;
    }
    Ok(replica.triggers.borrow().on.contains_key(&table.tid))
}

/// Returns whether such a trigger reads a column.
pub(crate) fn triggers_read(replica: &Replica, table: &Table, column: usize) -> bool {
    let triggers = replica.triggers.borrow();
    let on = triggers.on.get(&table.tid);
    on.is_some_and(|on| on.reads.contains(&table.def.columns[column].name.to_ascii_lowercase()))
}

/// Removes our copies before a commit.
pub(crate) fn remove_local_triggers(replica: &Replica) -> Result<()> {
    replica.triggers.borrow_mut().ready = false;
    replica.triggers.borrow_mut().has_none = false;
    if !replica.triggers.borrow().installed {
        return Ok(());
    }
    let found = replica.triggers.borrow().found.clone();
    found.iter().try_for_each(|local| replica.db.execute_batch(&local.drop_sql()))?;
    replica.triggers.borrow_mut().installed = false;
    set_recursion(replica, true)
}

/// Records that a rollback removed our copies. Returns whether all is as it was.
pub(crate) fn forget_local_triggers(replica: &Replica) -> bool {
    let mut triggers = replica.triggers.borrow_mut();
    (triggers.ready, triggers.has_none) = (false, false);
    !std::mem::take(&mut triggers.installed) || set_recursion(replica, true).is_ok()
}

/// Switches on or off whether a trigger runs within itself.
pub(crate) fn set_recursion(replica: &Replica, on: bool) -> Result<()> {
    let sql = if on { "PRAGMA recursive_triggers = ON" } else { "PRAGMA recursive_triggers = OFF" };
    Ok(replica.db.execute_batch(sql)?)
}

/// Puts the copies in place, and looks for the triggers again if the schema or what is tracked has changed.
fn ready_triggers(replica: &Replica) -> Result<()> {
    if replica.triggers.borrow().has_none {
        replica.triggers.borrow_mut().ready = true;
        return Ok(());
    }
    let version = catalog::schema_version(&replica.db)?;
    let found_for = (version, catalog::tables(replica).iter().map(|t| (t.tid, t.state)).collect());
    let known = replica.triggers.borrow().found_for.as_ref() == Some(&found_for);
    if !known {
        remove_local_triggers(replica)?;
        let (found, on) = find_triggers(replica)?;
        let mut triggers = replica.triggers.borrow_mut();
        (triggers.found_for, triggers.found, triggers.on) = (Some(found_for), found, on);
    }
    let found = match &*replica.triggers.borrow() {
        triggers if triggers.installed => Vec::new(),
        triggers => triggers.found.clone(),
    };
    if !found.is_empty() {
        set_recursion(replica, false)?;
        replica.triggers.borrow_mut().installed = true;
        found.iter().try_for_each(|local| replica.db.execute_batch(&local.sql))?;
    }
    replica.triggers.borrow_mut().ready = true;
    Ok(())
}

/// Returns the application's triggers, in the order in which they were made.
fn candidates(replica: &Replica) -> Result<Vec<Candidate>> {
    let mut statement = replica.db.prepare(
        "SELECT g.name, g.tbl_name, g.sql, t.sql LIKE '%ON%CONFLICT%' FROM main.sqlite_schema g
         JOIN main.sqlite_schema t ON t.type = 'table' AND t.name = g.tbl_name COLLATE NOCASE
         WHERE g.type = 'trigger' AND g.name NOT LIKE '\\_pm\\_%' ESCAPE '\\' ORDER BY g.rowid",
    )?;
    let found = statement.query_map([], |row| {
        let (name, table, sql, with_clause) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
        Ok(Candidate { name, table, sql, with_clause })
    })?;
    Ok(found.collect::<rusqlite::Result<_>>()?)
}

/// Finds the triggers to copy: those of synced tables, then those of the tables that they write.
fn find_triggers(replica: &Replica) -> Result<(Vec<Local>, HashMap<i64, On>)> {
    let (mut found, mut on) = (Vec::new(), HashMap::<i64, On>::new());
    let mut others_say = false;
    let candidates = candidates(replica)?;
    if candidates.is_empty() {
        // Nor can there be any before the end of the transaction, whatever becomes of tables: only an application makes some.
        replica.triggers.borrow_mut().has_none = !replica.db.is_autocommit();
        return Ok((found, on));
    }
    let synced = |t: &Table| t.shows_shared() || t.state == State::Gathered;
    let tables = catalog::tables(replica);
    let mut to_visit: Vec<String> =
        tables.iter().filter(|t| synced(t)).map(|t| t.def.name.to_ascii_lowercase()).collect();
    let mut visited: HashSet<String> = to_visit.iter().cloned().collect();
    let any_clause =
        candidates.iter().any(|c| c.with_clause && visited.contains(&c.table.to_ascii_lowercase()));
    while let Some(table) = to_visit.pop() {
        let tid = catalog::table_named(replica, &table).filter(|t| synced(t)).map(|t| t.tid);
        let mut copies = Vec::new();
        let mut refused = false;
        for candidate in candidates.iter().filter(|c| c.table.eq_ignore_ascii_case(&table)) {
            let copy = format!("{PREFIX}{}", found.len() + copies.len());
            let prefix = format!(
                "trigger `{}` of table `{}` does not run for rows that come from other devices: ",
                candidate.name, candidate.table
            );
            let sql = temp_sql(&candidate.sql, &copy);
            let overruled = if tid.is_some() { candidate.with_clause } else { any_clause };
            match judge_trigger(replica, candidate, &copy, &sql, (tid.is_some(), overruled))? {
                Handling::LeaveOut => {}
                Handling::Refuse(reason) => {
                    refused = true;
                    notice_once(replica, &format!("{prefix}{reason}{NOR_THE_OTHERS}"))?;
                    continue;
                }
                Handling::Copy { writes, reads } => {
                    let (name, table) = (candidate.name.clone(), candidate.table.clone());
                    copies.push((Local { copy, sql, name, table }, writes, reads));
                }
            }
            // What was wrong with it once is corrected.
            replica.db.execute("DELETE FROM _pm_notice WHERE substr(what, 1, length(?1)) = ?1", [prefix])?;
        }
        // Triggers of one table may keep one thing together, such as an index that one fills and another empties.
        for (local, writes, reads) in copies.into_iter().filter(|_| !refused) {
            let says = says_of_conflicts(&local.sql);
            if let Some(tid) = tid {
                let known = on.entry(tid).or_default();
                known.own.push(found.len());
                known.reads.extend(reads);
                known.says_of_conflicts |= says;
            } else {
                others_say |= says;
            }
            to_visit.extend(writes.into_iter().filter(|table| visited.insert(table.clone())));
            found.push(local);
        }
    }
    on.values_mut().for_each(|on| on.says_of_conflicts |= others_say);
    Ok((found, on))
}

/// Judges a trigger: makes its copy alone, and has SQLite prepare what would run it. `overruled` says that a constraint of the
/// table may say what a conflict does, which a statement of ours then says instead.
fn judge_trigger(
    replica: &Replica,
    candidate: &Candidate,
    copy: &str,
    sql: &str,
    (synced, overruled): (bool, bool),
) -> Result<Handling> {
    if let Err(e) = replica.db.execute_batch(sql) {
        return if is_the_triggers(&e) { Ok(Handling::Refuse(message(&e))) } else { Err(e.into()) };
    }
    let (looked, heard) = replica.probe.listen(|| halts_of(replica, &candidate.table));
    replica.db.execute_batch(&format!("DROP TRIGGER temp.{copy}"))?;
    let (mut writes, mut reads) = (Vec::new(), HashSet::new());
    for access in heard {
        match access {
            Access::Write(table) if !writes.contains(&table) => writes.push(table),
            Access::Read(table, column) if table.eq_ignore_ascii_case(&candidate.table) => {
                reads.insert(column);
            }
            _ => {}
        }
    }
    let tracked = |name: &String| {
        // A table that others track may be tracked here in a moment.
        let known = catalog::table_named(replica, name).is_some_and(|t| t.state != State::Untracked);
        known || name.starts_with("_pm_")
    };
    if writes.iter().any(tracked) {
        return Ok(Handling::LeaveOut);
    }
    let halts = match looked {
        Ok(halts) => halts,
        Err(e) if is_the_triggers(&e) => return Ok(Handling::Refuse(message(&e))),
        Err(e) => return Err(e.into()),
    };
    Ok(match halts {
        _ if writes.is_empty() => Handling::LeaveOut,
        halts if halts.gives_up => Handling::Refuse(
            "it can end with ROLLBACK or FAIL, which would leave an import half done; use ABORT".into(),
        ),
        halts if halts.ignores && synced => {
            Handling::Refuse("it can end with RAISE(IGNORE), which would leave the row out".into())
        }
        _ if overruled && says_of_conflicts(&candidate.sql) => Handling::Refuse(
            "its statements and its table's constraints both say what a conflict does (OR, ON CONFLICT), and one overrules \
             the other"
                .into(),
        ),
        _ => Handling::Copy { writes, reads },
    })
}

/// Returns how the triggers of a table, of which one is in place, can end.
fn halts_of(replica: &Replica, table: &str) -> rusqlite::Result<Halts> {
    let columns: Vec<String> = replica
        .db
        .prepare("SELECT name FROM pragma_table_info(?1)")?
        .query_map([table], |row| Ok(value::quote(&row.get::<_, String>(0)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let sets: Vec<String> = columns.iter().map(|c| format!("{c} = {c}")).collect();
    let table = value::quote(table);
    let mut halts = Halts::default();
    for event in [
        format!(
            "INSERT INTO main.{table} ({}) VALUES ({})",
            columns.join(", "),
            vec!["NULL"; columns.len()].join(", ")
        ),
        format!("UPDATE main.{table} SET {}", sets.join(", ")),
        format!("DELETE FROM main.{table}"),
    ] {
        // A TEMP trigger is trusted; the one that it is copied from is not.
        let flags = PrepFlags::SQLITE_PREPARE_FROM_DDL;
        let mut statement = replica.db.prepare_with_flags(&format!("EXPLAIN {event}"), flags)?;
        let mut rows = statement.query([])?;
        let mut programs = 0;
        while let Some(row) = rows.next()? {
            // Each program begins at 0; the first one is the statement itself.
            programs += u32::from(row.get::<_, i64>(0)? == 0);
            let opcode: String = row.get(1)?;
            if programs > 1 && matches!(opcode.as_str(), "Halt" | "HaltIfNull") {
                // 1 rolls back, 2 aborts, 3 fails, 4 ignores, as in sqliteInt.h.
                let how: i64 = row.get(3)?;
                halts.gives_up |= how == 1 || how == 3;
                halts.ignores |= how == 4;
            }
        }
    }
    Ok(halts)
}

/// Writes to a synced table, with the application's triggers. If one of them fails, the write is done without it,
/// with a notice.
pub(crate) fn firing<R>(replica: &Replica, table: &Table, mut write: impl FnMut() -> Result<R>) -> Result<R> {
    if !has_local_triggers(replica, table)? {
        return write();
    }
    let error = match write() {
        Ok(done) => return Ok(done),
        Err(error) => error,
    };
    let Error::Sqlite(cause) = &*error else { return Err(error) };
    if !is_the_triggers(cause) || is_of_the_row(table, cause) || replica.db.is_autocommit() {
        return Err(error);
    }
    let locals = locals_on(replica, table);
    let all: Vec<&Local> = locals.iter().collect();
    // If it fails without any trigger, the row itself is at fault. Of several triggers one is, as a rule.
    let alone = all.len() == 1;
    let done = without(replica, &all, alone, &mut write)?;
    let Ok(mut done) = done else { return Err(error) };
    let mut to_blame = &all[..];
    if !alone {
        let mut found = None;
        for one in all.chunks(1) {
            if let Ok(done) = without(replica, one, true, &mut write)? {
                found = Some((one, done));
                break;
            }
        }
        (to_blame, done) = match found {
            Some(found) => found,
            None => (to_blame, without(replica, to_blame, true, &mut write)??),
        };
    }
    for local in to_blame {
        notice_once(
            replica,
            &format!(
                "trigger `{}` of table `{}` failed for rows that came from other devices, which were taken in \
             without it: {}",
                local.name,
                local.table,
                message(cause)
            ),
        )?;
    }
    Ok(done)
}

/// Returns the copies of a table's triggers.
fn locals_on(replica: &Replica, table: &Table) -> Vec<Local> {
    let triggers = replica.triggers.borrow();
    let own = triggers.on.get(&table.tid).map(|on| on.own.as_slice()).unwrap_or_default();
    own.iter().map(|at| triggers.found[*at].clone()).collect()
}

/// Returns what statements that write to a table say of a violated constraint. What a statement says counts for the statements of
/// its triggers, too, whatever these say: where a trigger's do, ours says nothing. Then no constraint of the table says anything.
pub(crate) fn or_abort(replica: &Replica, table: &Table) -> Result<&'static str> {
    let runs = has_local_triggers(replica, table)?;
    let says = |on: &On| on.says_of_conflicts;
    let says = runs && replica.triggers.borrow().on.get(&table.tid).is_some_and(says);
    Ok(if says { "" } else { OR_ABORT })
}

/// Executes a statement of ours that writes to a table, and runs its triggers. Returns how many rows it changed.
pub(crate) fn execute(
    replica: &Replica,
    table: &Table,
    sql: &str,
    params: impl Params + Clone,
) -> Result<usize> {
    let sql = sql.replacen(OR_ABORT, or_abort(replica, table)?, 1);
    firing(replica, table, || Ok(replica.db.prepare_cached(&sql)?.execute(params.clone())?))
}

/// Returns whether statements of a trigger say what a violated constraint does; it may be that only a text in them does.
fn says_of_conflicts(sql: &str) -> bool {
    let words: Vec<&str> =
        sql.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty()).collect();
    let is = |word: &str, one_of: &[&str]| one_of.iter().any(|other| word.eq_ignore_ascii_case(other));
    words.windows(2).any(|pair| {
        is(pair[0], &["or"]) && is(pair[1], &["replace", "ignore", "fail", "rollback", "abort"])
            || is(pair[0], &["replace"]) && is(pair[1], &["into"])
    })
}

/// Tries a write without these triggers. What it wrote stays if it succeeds and `keep` says so.
fn without<R>(
    replica: &Replica,
    locals: &[&Local],
    keep: bool,
    write: &mut impl FnMut() -> Result<R>,
) -> Result<Result<R>> {
    replica.db.execute_batch("SAVEPOINT _pm_without")?;
    locals.iter().try_for_each(|local| replica.db.execute_batch(&local.drop_sql()))?;
    let result = write();
    if replica.db.is_autocommit() {
        return Err(result.err().unwrap_or(Error::Poisoned.into())); // The transaction is gone.
    }
    if result.as_ref().is_err_and(|failed| failed.is_machines()) {
        return result.map(Ok); // No trigger is to blame.
    }
    if result.is_ok() && keep {
        locals.iter().try_for_each(|local| replica.db.execute_batch(&local.sql))?;
    } else {
        replica.db.execute_batch("ROLLBACK TO _pm_without")?;
    }
    replica.db.execute_batch("RELEASE _pm_without")?;
    Ok(result)
}

/// Runs `work` without any trigger on a table, and undoes it.
pub(crate) fn trying<R>(replica: &Replica, table: &Table, work: impl FnOnce() -> Result<R>) -> Result<R> {
    let on = locals_on(replica, table);
    replica.db.execute_batch("SAVEPOINT _pm_try")?;
    on.iter().try_for_each(|local| replica.db.execute_batch(&local.drop_sql()))?;
    let result = work();
    if result.is_err() && replica.db.is_autocommit() {
        return result; // The transaction is gone.
    }
    replica.db.execute_batch("ROLLBACK TO _pm_try; RELEASE _pm_try")?;
    result
}

/// Runs a REPLACE so that a trigger sees which rows it removes: SQLite runs none for these where recursion is off, as it
/// is while copies are there, be they of other tables.
pub(crate) fn seeing_removed<R>(replica: &Replica, replace: impl FnOnce() -> Result<R>) -> Result<R> {
    if !replica.triggers.borrow().installed {
        return replace();
    }
    set_recursion(replica, true)?;
    let result = replace();
    set_recursion(replica, false)?;
    result
}

/// Writes a row by what differs, as an application would: by no upsert, whose INSERT triggers would run too, and
/// without columns that stay the same; where there is none, it is made if it `is_whole`. Returns whether there was a row, or one
/// was made.
pub(crate) fn write_difference(
    replica: &Replica,
    table: &Table,
    key: &[Bind<'_>],
    columns: &[usize],
    values: &[Bind<'_>],
    is_whole: bool,
) -> Result<bool> {
    let names: Vec<String> = columns.iter().map(|at| value::quote(&table.def.columns[*at].name)).collect();
    let names = if names.is_empty() { "1".into() } else { names.join(", ") };
    let differing = {
        let mut statement = replica.db.prepare_cached(&table.select_sql(&names))?;
        let mut rows = statement.query(params_from_iter(key))?;
        match rows.next()? {
            None => None,
            Some(row) => {
                let mut differing = Vec::new();
                for (at, value) in values.iter().enumerate() {
                    if value::from_sql(row.get_ref(at)?) != value.0 {
                        differing.push(at);
                    }
                }
                Some(differing)
            }
        }
    };
    match differing {
        None if !is_whole => Ok(false),
        None => {
            let values = params_from_iter(values_with(key, values, table));
            execute(replica, table, &table.insert_sql(columns), values).map(|_| true)
        }
        Some(differing) if differing.is_empty() => Ok(true),
        Some(differing) => {
            let set: Vec<usize> = differing.iter().map(|at| columns[*at]).collect();
            let values = differing.iter().map(|at| &values[*at]).chain(key);
            execute(replica, table, &table.update_sql(&set), params_from_iter(values))
                .map(|changed| changed > 0)
        }
    }
}

/// Makes a notice, unless it is there already.
fn notice_once(replica: &Replica, what: &str) -> Result<()> {
    replica
        .db
        .prepare_cached("INSERT OR IGNORE INTO _pm_notice (what, wall, count) VALUES (?1, ?2, 1)")?
        .execute((what, replica.now()))?;
    Ok(())
}

/// How a trigger's program can end, besides normally or with ABORT.
#[derive(Clone, Copy, Default)]
struct Halts {
    gives_up: bool,
    ignores: bool,
}

/// Returns the values of a row that is inserted: the device's label comes first where rows are gathered.
fn values_with<'b>(
    key: &'b [Bind<'b>],
    values: &'b [Bind<'b>],
    table: &Table,
) -> impl Iterator<Item = &'b Bind<'b>> + Clone {
    let gathered = usize::from(table.state == State::Gathered);
    key.iter().take(gathered).chain(values)
}

/// Returns whether an error can be a trigger's doing, and not the machine's.
fn is_the_triggers(error: &rusqlite::Error) -> bool {
    let Some(cause) = error.sqlite_error() else { return false };
    match cause.code {
        ErrorCode::DatabaseCorrupt => cause.extended_code == rusqlite::ffi::SQLITE_CORRUPT_VTAB,
        code => !error::is_of_machine(code),
    }
}

/// Returns whether an error names the table itself, which no trigger that we run writes.
fn is_of_the_row(table: &Table, error: &rusqlite::Error) -> bool {
    let message = message(error);
    ["UNIQUE", "NOT NULL"].iter().any(|what| {
        message
            .strip_prefix(&format!("{what} constraint failed: "))
            .and_then(|rest| rest.strip_prefix(table.def.name.as_str()))
            .is_some_and(|rest| rest.starts_with('.'))
    })
}

/// Returns what SQLite says, without the statement.
pub(crate) fn message(error: &rusqlite::Error) -> String {
    match error {
        rusqlite::Error::SqliteFailure(_, Some(message)) => message.clone(),
        rusqlite::Error::SqlInputError { msg, .. } => msg.clone(),
        other => other.to_string(),
    }
}

/// Returns the statement that makes our copy: SQLite keeps `CREATE TRIGGER name …`, whatever was typed.
fn temp_sql(sql: &str, copy: &str) -> String {
    let rest = sql.get("CREATE TRIGGER".len()..).unwrap_or_default().trim_start();
    let end = match rest.chars().next() {
        Some(open @ ('"' | '`' | '\'' | '[')) => {
            let close = if open == '[' { ']' } else { open };
            let mut at = 1;
            loop {
                match rest.get(at..).and_then(|tail| tail.find(close)) {
                    // A doubled quote stands for itself.
                    Some(found) if close != ']' && rest[at + found + 1..].starts_with(close) => {
                        at += found + 2
                    }
                    Some(found) => break at + found + 1,
                    None => break rest.len(),
                }
            }
        }
        _ => rest
            .find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$' || !c.is_ascii()))
            .unwrap_or(rest.len()),
    };
    format!("CREATE TEMP TRIGGER {copy}{}", &rest[end..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_replaced() {
        for sql in [
            "CREATE TRIGGER name AFTER INSERT ON t",
            "CREATE TRIGGER \"a \"\"name\"\"\" AFTER INSERT ON t",
            "CREATE TRIGGER [a \"name] AFTER INSERT ON t",
            "CREATE TRIGGER `na``me` AFTER INSERT ON t",
            "CREATE TRIGGER 'it''s' AFTER INSERT ON t",
            "CREATE TRIGGER größe$1 AFTER INSERT ON t",
        ] {
            assert_eq!(temp_sql(sql, "c"), "CREATE TEMP TRIGGER c AFTER INSERT ON t", "{sql}");
        }
        assert_eq!(temp_sql("CREATE TRIGGER a/**/AFTER", "c"), "CREATE TEMP TRIGGER c/**/AFTER");
        assert_eq!(temp_sql("CREATE", "c"), "CREATE TEMP TRIGGER c");
        assert_eq!(temp_sql("CREATE TRIGGER \"a", "c"), "CREATE TEMP TRIGGER c");
    }
}
