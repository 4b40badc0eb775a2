//! What the versions of a state say of columns that its maker does not read in their ops, and this device does.
//!
//! The maker tells of which columns a version speaks, as far as it reads them. It may lack a column that an op has; or have it
//! under another name, and not know yet that the two are one. Of these the op itself tells, in its frame: the table of such a
//! maker is not folded, so the frame is here, or it comes with the state, after the rows.

use packmule_core::model::Stream;
use packmule_core::wire::OpKind;
use rusqlite::OptionalExtension;

use crate::engine::capture::respeak::Unread;
use crate::engine::error::Result;
use crate::engine::exchange::state_rows::StateRow;
use crate::engine::exchange::state_values::RowLoader;
use crate::engine::fleet::devices::BASELINE;
use crate::engine::log::frames;
use crate::engine::merge::heads::{self, Head};
use crate::engine::merge::written;
use crate::engine::store::value;
use crate::engine::table::catalog;
use crate::engine::table::columns::Columns;
use crate::engine::table::known::Table;
use crate::engine::table::replica::Replica;

/// The versions that may speak for a column of which the maker cannot tell, with the columns here of which it tells.
const TEMP: &str = "
    CREATE TEMP TABLE IF NOT EXISTS _pm_their_part (tid INTEGER, key BLOB, dev INTEGER, seq INTEGER, told BLOB,
        PRIMARY KEY (tid, key, dev, seq)) WITHOUT ROWID;
    DELETE FROM temp._pm_their_part;
";

/// Makes room for versions.
pub(super) fn begin(replica: &Replica) -> Result<()> {
    Ok(replica.db.execute_batch(TEMP)?)
}

/// Lists a version of the maker's of a row, which by its word speaks for these columns.
pub(super) fn list(replica: &Replica, table: &Table, row: &StateRow<'_>, told: &Columns) -> Result<()> {
    let sql =
        "INSERT OR REPLACE INTO temp._pm_their_part (tid, key, dev, seq, told) VALUES (?1, ?2, ?3, ?4, ?5)";
    let place = (table.tid, row.blob_at(1)?, row.device_at(2)?, row.seq_at(3)?, told.as_bytes());
    replica.db.prepare_cached(sql)?.execute(place)?;
    Ok(())
}

/// Takes a version out of the list. Returns of which columns its maker tells.
fn take(replica: &Replica, tid: i64, key: &[u8], (dev, seq): (i64, u64)) -> Result<Option<Columns>> {
    let sql = "DELETE FROM temp._pm_their_part WHERE tid = ?1 AND key = ?2 AND dev = ?3 AND seq = ?4 RETURNING told";
    let told: Option<Vec<u8>> = value::maybe(&replica.db, sql, (tid, key, dev, seq))?;
    Ok(told.map(|told| Columns::of_bytes(&told)))
}

/// Leaves of versions of a row whose frames are here the columns for which they speak. Those whose frames come later stay listed.
pub(super) fn correct_known(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    mut theirs: Vec<Head>,
    unread: &Unread,
) -> Result<Vec<Head>> {
    for head in theirs.iter_mut().filter(|head| head.kind != OpKind::Delete && head.dev != BASELINE) {
        if !frames::is_here(replica, head.dev, Stream::Shared, head.seq)? {
            continue;
        }
        let Some(told) = take(replica, table.tid, key, (head.dev, head.seq))? else { continue };
        let (columns, _) = spoken_for(replica, table, head, (&told, unread))?;
        head.columns = Some(columns);
    }
    Ok(theirs)
}

/// Leaves of the listed versions that remain the columns for which they speak, once the frames are here.
pub(super) fn correct(replica: &Replica, loader: &RowLoader<'_>) -> Result<()> {
    let sql = "SELECT tid, key, dev, seq FROM temp._pm_their_part ORDER BY tid, key, dev, seq LIMIT 1";
    loop {
        let next = replica.db.prepare_cached(sql)?.query_row([], |row| {
            Ok((row.get(0)?, row.get::<_, Vec<u8>>(1)?, (row.get::<_, i64>(2)?, row.get::<_, u64>(3)?)))
        });
        let Some((tid, key, version)) = next.optional()? else { return Ok(()) };
        let Some(told) = take(replica, tid, &key, version)? else { continue };
        let table = catalog::table(replica, tid)?;
        let heads = heads::all_heads(replica, tid, &key)?;
        let Some(head) = heads.iter().find(|head| (head.dev, head.seq) == version) else { continue };
        if head.kind == OpKind::Delete || head.dev == BASELINE {
            continue;
        }
        let (columns, waits) = spoken_for(replica, &table, head, (&told, loader.unread(&table)?))?;
        if columns.is_empty() && waits {
            written::leave_nothing_yet(replica, tid, &key, head)?;
        } else if columns != head.live(table.def.columns.len()) {
            written::leave_columns(replica, tid, &key, head, &columns)?;
        }
    }
}

/// Returns for which of its columns a version speaks, of which its maker `told` some, and does not read others; and whether it
/// speaks for any that is not here.
fn spoken_for(
    replica: &Replica,
    table: &Table,
    head: &Head,
    (told, unread): (&Columns, &Unread),
) -> Result<(Columns, bool)> {
    let live = head.live(table.def.columns.len());
    let (mut said, mut waits) = (told.clone(), false);
    frames::op_at(replica, head.dev, Stream::Shared, head.seq, head.place, |def, op| {
        for (at, _) in op.values(def.shape()) {
            match table.def.column(&def.def.columns[at].name) {
                Some(here) if unread.contains(&(def.id, at)) => said.insert(here),
                Some(_) => {}
                None => waits = true,
            }
        }
        Ok(())
    })?;
    Ok(((0..table.def.columns.len()).filter(|at| live.contains(*at) && said.contains(*at)).collect(), waits))
}
