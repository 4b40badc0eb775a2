//! Rows of a table that was rebuilt with other columns while its settled rows were remembered nowhere.
//!
//! Each device that rebuilds it says again all that it has, since nobody can tell any more which rows were changed since the
//! rebuild. Where another device has said so of a row before, and the row here differs, one of the two was written to, and
//! nobody knows which: the table stays held, so that neither is lost.

use rusqlite::params_from_iter;

use crate::engine::capture::{column_numbers, runs, watch};
use crate::engine::error::Result;
use crate::engine::merge::heads::{self, Head};
use crate::engine::merge::versions;
use crate::engine::store::value::{self, Bind, OwnedValue};
use crate::engine::table::def::TableDef;
use crate::engine::table::known::Table;
use crate::engine::table::replica::Replica;

/// Returns why a held table whose columns were changed stays so: others have restated some of its rows otherwise than they
/// are here. `now` is what the table is, `renamed` are the columns that are called otherwise in it.
pub(crate) fn why_held(
    replica: &Replica,
    table: &Table,
    now: &TableDef,
    renamed: &[(String, String)],
) -> Result<Option<String>> {
    // Of what the log still tells it is known who changed it.
    if watch::capture_intact(replica, table)? || !runs::is_any_folded(replica, table)? {
        return Ok(None);
    }
    let keys = replica
        .db
        .prepare("SELECT key FROM _pm_held WHERE tid = ?1 ORDER BY key")?
        .query_map([table.tid], |row| row.get(0))?
        .collect::<rusqlite::Result<Vec<Vec<u8>>>>()?;
    let mut differing = 0_u64;
    for key in keys {
        let heads = heads::all_heads(replica, table.tid, &key)?;
        // What others wrote to a row holds.
        if heads.iter().all(|head| head.weak) && differs(replica, table, now, renamed, &key, &heads)? {
            differing += 1;
        }
    }
    Ok((differing > 0).then(|| {
        format!(
            "it was rebuilt here and elsewhere, and {differing} of its rows differ from those of other devices, of \
             which nobody knows any more where they were changed: its rows wait, here and from other devices, and \
             nothing is lost; let it go and track it again, to begin again with what the table here has"
        )
    }))
}

/// Returns whether a row has another value than a version of it says.
fn differs(
    replica: &Replica,
    table: &Table,
    now: &TableDef,
    renamed: &[(String, String)],
    key: &[u8],
    heads: &[Head],
) -> Result<bool> {
    let n = table.def.columns.len();
    let values = value::read_key(key)?;
    let names = column_numbers::key_names(&table.def, renamed);
    let by_key: Vec<String> = names.iter().map(|name| format!("{} IS ?", value::quote(name))).collect();
    for head in heads {
        for (at, said) in versions::values(replica, table, head)? {
            let name = column_numbers::name_after(renamed, &table.def.columns[at].name);
            let Some(column) = now.column(name).filter(|_| head.live(n).contains(at)) else { continue };
            let sql = format!(
                "SELECT {} FROM {} WHERE {}",
                value::quote(name),
                table.sql_name,
                by_key.join(" AND ")
            );
            let mut statement = replica.db.prepare_cached(&sql)?;
            let mut rows = statement.query(params_from_iter(values.iter().map(|v| Bind(v.borrow()))))?;
            let Some(row) = rows.next()? else { return Ok(true) };
            let here = OwnedValue::of(value::from_sql(row.get_ref(0)?))?;
            if value::converted(&replica.db, &said, now.columns[column].affinity())? != here {
                return Ok(true);
            }
        }
    }
    Ok(false)
}
