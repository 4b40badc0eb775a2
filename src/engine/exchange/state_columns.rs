//! What the versions of a state say of columns that its maker lacks, and this device has.
//!
//! The maker tells of which columns a version speaks, as far as it has them. Of the others the op itself tells, in its frame:
//! the table of such a maker is not folded, so the frame is here, or it comes with the state, after the rows.

use packmule_core::model::Stream;
use packmule_core::wire::OpKind;
use rusqlite::OptionalExtension;

use crate::engine::error::Result;
use crate::engine::fleet::devices::BASELINE;
use crate::engine::log::frames;
use crate::engine::merge::heads::{self, Head};
use crate::engine::merge::written;
use crate::engine::table::catalog;
use crate::engine::table::columns::Columns;
use crate::engine::table::known::Table;
use crate::engine::table::replica::Replica;

/// The versions that speak for a column of which the maker cannot tell.
const TEMP: &str = "
    CREATE TEMP TABLE IF NOT EXISTS _pm_their_part (tid INTEGER, key BLOB, dev INTEGER, seq INTEGER,
        PRIMARY KEY (tid, key, dev, seq)) WITHOUT ROWID;
    DELETE FROM temp._pm_their_part;
";

/// Makes room for versions.
pub(super) fn begin(replica: &Replica) -> Result<()> {
    Ok(replica.db.execute_batch(TEMP)?)
}

/// Lists a version of a row, if it may speak for columns that the maker lacks.
pub(super) fn list(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    head: &Head,
    lacking: &Columns,
) -> Result<()> {
    if lacking.is_empty() || head.kind == OpKind::Delete || head.dev == BASELINE {
        return Ok(());
    }
    let sql = "INSERT OR IGNORE INTO temp._pm_their_part (tid, key, dev, seq) VALUES (?1, ?2, ?3, ?4)";
    replica.db.prepare_cached(sql)?.execute((table.tid, key, head.dev, head.seq))?;
    Ok(())
}

/// Leaves of the listed versions the columns that their ops have, once the frames are here.
pub(super) fn correct(replica: &Replica) -> Result<()> {
    let sql = "DELETE FROM temp._pm_their_part WHERE (tid, key, dev, seq) = (SELECT tid, key, dev, seq FROM temp._pm_their_part
               ORDER BY tid, key, dev, seq LIMIT 1) RETURNING tid, key, dev, seq";
    loop {
        let next = replica.db.prepare_cached(sql)?.query_row([], |row| {
            Ok((row.get(0)?, row.get::<_, Vec<u8>>(1)?, (row.get::<_, i64>(2)?, row.get::<_, u64>(3)?)))
        });
        let Some((tid, key, version)) = next.optional()? else { return Ok(()) };
        let table = catalog::table(replica, tid)?;
        let heads = heads::all_heads(replica, tid, &key)?;
        let Some(head) = heads.iter().find(|head| (head.dev, head.seq) == version) else { continue };
        let live = head.live(table.def.columns.len());
        let has = frames::op_at(replica, head.dev, Stream::Shared, head.seq, head.place, |def, op| {
            let columns =
                op.values(def.shape()).filter_map(|(at, _)| table.def.column(&def.def.columns[at].name));
            Ok(columns.filter(|at| live.contains(*at)).collect::<Columns>())
        })?;
        if has != live {
            written::leave_columns(replica, tid, &key, head, &has)?;
        }
    }
}
