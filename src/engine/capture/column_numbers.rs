//! Columns that are renamed or dropped, in what is recorded of a table's rows: columns stand there by their numbers.

use rusqlite::types::Value as Sql;

use crate::engine::capture::dirty::{self, has_column};
use crate::engine::capture::respeak::Unread;
use crate::engine::error::Result;
use crate::engine::merge::{unread, versions};
use crate::engine::store::value;
use crate::engine::table::columns::Columns;
use crate::engine::table::def::TableDef;
use crate::engine::table::known::Table;
use crate::engine::table::replica::Replica;

/// Returns the UNIQUEs that a table has now, by the numbers that its columns have in `def`.
pub(crate) fn uniques_of(def: &TableDef, now: &TableDef) -> Vec<Vec<u16>> {
    let number = |at: &u16| def.column(&now.columns[usize::from(*at)].name).map(|at| at as u16);
    let mut uniques: Vec<Vec<u16>> =
        now.uniques.iter().filter_map(|u| u.iter().map(number).collect()).collect();
    uniques.sort();
    uniques
}

/// Returns the names of a definition's key after these columns were renamed.
pub(crate) fn key_names(def: &TableDef, renamed: &[(String, String)]) -> Vec<String> {
    def.keys().map(|at| name_after(renamed, &def.columns[at].name).to_owned()).collect()
}

/// Returns what a column is called after these were renamed.
pub(crate) fn name_after<'a>(renamed: &'a [(String, String)], name: &'a str) -> &'a str {
    renamed.iter().find(|(before, _)| before.eq_ignore_ascii_case(name)).map_or(name, |(_, after)| after)
}

/// Renames columns where values stand under their names.
pub(crate) fn rename_columns(replica: &Replica, table: &Table, renamed: &[(String, String)]) -> Result<()> {
    if renamed.is_empty() {
        return Ok(());
    }
    let list = table.quarantine_table();
    for (old, new) in renamed {
        if has_column(replica, &list, old)? {
            let (old, new) = (value::quote(old), value::quote(new));
            replica.db.execute_batch(&format!("ALTER TABLE {list} RENAME COLUMN {old} TO {new}"))?;
        }
    }
    for list in ["_pm_image", "_pm_unplaced"] {
        rename_in_baselines(replica, table, list, renamed)?;
    }
    Ok(())
}

/// Renames columns in the values of baseline versions: names and values in turn.
fn rename_in_baselines(
    replica: &Replica,
    table: &Table,
    list: &str,
    renamed: &[(String, String)],
) -> Result<()> {
    let bodies = replica
        .db
        .prepare(&format!("SELECT key, body FROM {list} WHERE tid = ?1 AND body IS NOT NULL"))?
        .query_map([table.tid], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<Vec<(Vec<u8>, Vec<u8>)>>>()?;
    // Found by its key: of such rows there can be many.
    let sql = format!("UPDATE {list} SET body = ?4 WHERE tid = ?1 AND key = ?2 AND body = ?3");
    for (key, body) in bodies {
        let mut changed = Vec::with_capacity(body.len());
        for (name, value) in versions::baseline_values(&body)? {
            value::push_named(&mut changed, name_after(renamed, &name), &value.borrow())?;
        }
        replica.db.prepare_cached(&sql)?.execute((table.tid, key, body, changed))?;
    }
    Ok(())
}

/// Gives what is listed of a column that came while a table was held, and turns out to be one that was renamed, the number of
/// that. `listed` are the columns of the list of changes, by their numbers there.
pub(crate) fn join_in_list(
    replica: &Replica,
    table: &Table,
    renamed: &[(String, String)],
    listed: &[String],
) -> Result<()> {
    let n = table.def.columns.len();
    let place = |name: &str| listed.iter().position(|listed| listed.eq_ignore_ascii_case(name));
    let mut joined: Vec<(usize, usize)> = renamed
        .iter()
        .filter_map(|(old, new)| Some((place(new)?, table.def.column(old)?)))
        .filter(|(from, _)| *from >= n)
        .collect();
    joined.sort_unstable();
    // From the last on, so that the numbers of those before stay.
    for (from, to) in joined.into_iter().rev() {
        let of = |at: usize| (at / dirty::MASK_BITS, at % dirty::MASK_BITS);
        let ((word, bit), (old_word, old_bit)) = (of(from), of(to));
        let list = table.dirty();
        if has_column(replica, &list, &format!("m{word}"))? {
            let said = format!("((coalesce(m{word}, 0) >> {bit}) & 1) << {old_bit}");
            replica.db.execute_batch(&format!("UPDATE {list} SET m{old_word} = m{old_word} | ({said})"))?;
        }
        let (last, was) = (format!("i{from}"), format!("i{to}"));
        if has_column(replica, &list, &last)? && has_column(replica, &list, &was)? {
            replica.db.execute_batch(&format!("UPDATE {list} SET {was} = coalesce({was}, {last})"))?;
        }
        forget_in_list(replica, table, from, from + 1)?;
    }
    Ok(())
}

/// Forgets what is recorded of columns of a table that are none any more; those after them get lower numbers.
/// What is said in columns that `come`, which are read otherwise from now on, stays.
pub(crate) fn forget_columns(
    replica: &Replica,
    table: &Table,
    names: &[String],
    come: &Unread,
) -> Result<()> {
    let mut gone: Vec<usize> = names.iter().filter_map(|name| table.def.column(name)).collect();
    gone.sort_unstable();
    let n = table.def.columns.len();
    // From the last on, so that the numbers of those before stay.
    for (taken, at) in gone.iter().rev().enumerate() {
        forget_in_heads(replica, table, *at)?;
        forget_in_counters(replica, table, *at, n - taken)?;
        forget_in_list(replica, table, *at, n - taken)?;
    }
    unread::forget_idle(replica, table, names, &|id, at| come.contains(&(id, at)))?;
    let list = table.quarantine_table();
    for name in names {
        if has_column(replica, &list, name)? {
            replica.db.execute_batch(&format!("ALTER TABLE {list} DROP COLUMN {}", value::quote(name)))?;
        }
    }
    Ok(())
}

/// Takes a column from what versions speak for.
fn forget_in_heads(replica: &Replica, table: &Table, gone: usize) -> Result<()> {
    let sets = replica
        .db
        .prepare("SELECT DISTINCT columns FROM _pm_head WHERE tid = ?1 AND columns IS NOT NULL")?
        .query_map([table.tid], |row| row.get(0))?
        .collect::<rusqlite::Result<Vec<Vec<u8>>>>()?;
    let moved = |bytes: &[u8]| -> Columns {
        let set = Columns::of_bytes(bytes);
        let all = (0..bytes.len() * 8).filter(|at| *at != gone && set.contains(*at));
        all.map(|at| if at > gone { at - 1 } else { at }).collect()
    };
    // Marked first, since a set that one becomes may be another's.
    for set in &sets {
        replica
            .db
            .prepare_cached("UPDATE _pm_head SET columns = ?3 WHERE tid = ?1 AND columns = ?2")?
            .execute((table.tid, set, Sql::Text(hex(moved(set).as_bytes()))))?;
    }
    for set in &sets {
        let now = moved(set);
        replica
            .db
            .prepare_cached("UPDATE _pm_head SET columns = ?3 WHERE tid = ?1 AND columns = ?2")?
            .execute((table.tid, Sql::Text(hex(now.as_bytes())), now.as_bytes()))?;
    }
    Ok(())
}

/// Writes bytes as text.
fn hex(bytes: &[u8]) -> String {
    packmule_core::model::Hex(bytes).to_string()
}

/// Forgets what was counted in a column.
fn forget_in_counters(replica: &Replica, table: &Table, gone: usize, n: usize) -> Result<()> {
    replica.db.execute("DELETE FROM _pm_count WHERE tid = ?1 AND col = ?2", (table.tid, gone))?;
    for at in gone + 1..n {
        let sql = "UPDATE _pm_count SET col = ?3 WHERE tid = ?1 AND col = ?2";
        replica.db.prepare_cached(sql)?.execute((table.tid, at, at - 1))?;
    }
    Ok(())
}

/// Takes a column from the list of changes: its bit in the masks, and what it was before.
fn forget_in_list(replica: &Replica, table: &Table, gone: usize, n: usize) -> Result<()> {
    let list = table.dirty();
    let (word, bit) = (gone / dirty::MASK_BITS, gone % dirty::MASK_BITS);
    let mut masks = 0;
    while has_column(replica, &list, &format!("m{masks}"))? {
        masks += 1;
    }
    let low = (1_i64 << bit) - 1;
    let sets: Vec<String> = (word..masks)
        .map(|m| {
            let kept = if m == word { low } else { 0 };
            let next = match m + 1 < masks {
                true => format!(" | ((coalesce(m{}, 0) & 1) << {})", m + 1, dirty::MASK_BITS - 1),
                false => String::new(),
            };
            format!("m{m} = (m{m} & {kept}) | ((m{m} >> 1) & ~{kept}){next}")
        })
        .collect();
    if !sets.is_empty() {
        replica.db.execute_batch(&format!("UPDATE {list} SET {}", sets.join(", ")))?;
    }
    for letter in ["o", "i"] {
        if has_column(replica, &list, &format!("{letter}{gone}"))? {
            replica.db.execute_batch(&format!("ALTER TABLE {list} DROP COLUMN {letter}{gone}"))?;
        }
        // A list of a held table may have columns that its definition has not yet.
        let mut last = n;
        while has_column(replica, &list, &format!("{letter}{last}"))? {
            last += 1;
        }
        for at in gone + 1..last {
            if has_column(replica, &list, &format!("{letter}{at}"))? {
                replica.db.execute_batch(&format!(
                    "ALTER TABLE {list} RENAME COLUMN {letter}{at} TO {letter}{}",
                    at - 1
                ))?;
            }
        }
    }
    Ok(())
}
