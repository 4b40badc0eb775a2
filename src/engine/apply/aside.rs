//! Groups that cannot be applied for a reason of their own: they are set aside by name, and harm nobody else.
//!
//! **Why.** Whoever has one device's key can sign anything: an unknown block, a definition that SQLite refuses, a key of
//! another class, pieces that are not there. Each group is applied in a savepoint of its own. If what fails is the
//! content, the savepoint is undone, and the group waits in the log with the reason ([`Missing::Unreadable`]): the
//! stream of this one author stands still, and whatever else is in the same import goes in. What fails for another reason
//! (a full disk, a lock) fails for all, as before.
//!
//! It is tried again when this program is another version, a definition has come, or the schema has changed: a newer
//! version's block is read by a newer Packmule, and rows may wait for a definition that comes by somebody else.
//!
//! [`Missing::Unreadable`]: crate::engine::apply::report::Missing::Unreadable

use std::collections::HashMap;

use packmule_core::model::{Big, Stream, Value};
use packmule_core::wire::Piece;

use crate::engine::error::{self, Error, Result};
use crate::engine::store::{connection, value};
use crate::engine::table::catalog;
use crate::engine::table::known::Carried;
use crate::engine::table::replica::Replica;

/// The longest reason that is kept, in characters.
const REASON_MAX: usize = 200;

/// So many large values can a group begin before the rows that have them: a seal says those of one row, before it.
const VALUES_MAX: usize = 4_096;

/// A group, by its device, its stream and its first frame.
pub(crate) type Place = (i64, Stream, u64);

/// Runs `work`, which applies groups of one device, the parts of one seal, in a savepoint. Returns `None`, with nothing of
/// it done, if their content cannot be applied: then they are set aside.
pub(crate) fn contained<R>(
    replica: &Replica,
    places: &[Place],
    work: impl FnOnce() -> Result<R>,
) -> Result<Option<R>> {
    for place in places {
        if is_hopeless(replica, *place)? {
            return Ok(None);
        }
    }
    replica.db.execute_batch("SAVEPOINT _pm_apply")?;
    match work() {
        Ok(done) => {
            replica.db.execute_batch("RELEASE _pm_apply")?;
            let sql = "DELETE FROM _pm_aside WHERE dev = ?1 AND stream = ?2";
            for (dev, stream, _) in places {
                replica.db.prepare_cached(sql)?.execute((dev, stream.number()))?;
            }
            Ok(Some(done))
        }
        Err(e) if is_of_content(&e) => {
            let e = connection::undo(&replica.db, "_pm_apply", e)?;
            catalog::reload_catalog(replica)?;
            let reason = said(&e);
            let tried = tried(replica)?;
            let sql = "INSERT OR REPLACE INTO _pm_aside (dev, stream, first, reason, tried) VALUES (?1, ?2, ?3, ?4, ?5)";
            for (dev, stream, first) in places {
                replica.db.prepare_cached(sql)?.execute((dev, stream.number(), first, &reason, &tried))?;
            }
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

/// Says what is wrong with content.
pub(crate) fn said(error: &Error) -> String {
    let said = match error {
        // It is not this database that is damaged.
        Error::Damaged(what) => what.clone(),
        other => other.to_string(),
    };
    said.chars().take(REASON_MAX).collect()
}

/// Names what a group was tried with: this version of the program, the database's schema, and how many definitions.
fn tried(replica: &Replica) -> Result<String> {
    let defs: Option<u64> = value::maybe(&replica.db, "SELECT count(*) FROM _pm_def", [])?;
    let (version, schema) = (env!("CARGO_PKG_VERSION"), catalog::schema_version(&replica.db)?);
    Ok(format!("{version} {schema} {}", defs.unwrap_or_default()))
}

/// Returns whether a group was tried as things are, and failed.
fn is_hopeless(replica: &Replica, (dev, stream, first): Place) -> Result<bool> {
    let sql = "SELECT tried FROM _pm_aside WHERE dev = ?1 AND stream = ?2 AND first = ?3";
    let last: Option<String> = value::maybe(&replica.db, sql, (dev, stream.number(), first))?;
    last.map_or(Ok(false), |last| Ok(last == tried(replica)?))
}

/// Returns why the group of a stream that begins with a frame is set aside, if it is.
pub(crate) fn reason(replica: &Replica, (dev, stream, first): Place) -> Result<Option<String>> {
    let sql = "SELECT reason FROM _pm_aside WHERE dev = ?1 AND stream = ?2 AND first = ?3";
    value::maybe(&replica.db, sql, (dev, stream.number(), first))
}

/// Returns whether an error is about what was to be applied, and not about this machine or its disk.
pub(crate) fn is_of_content(error: &Error) -> bool {
    match error {
        Error::Sqlite(rusqlite::Error::SqliteFailure(failure, _)) => !error::is_of_machine(failure.code),
        Error::Sqlite(_)
        | Error::Damaged(_)
        | Error::Bundle { .. }
        | Error::CannotTrack { .. }
        | Error::UnknownTable { .. }
        | Error::Row { .. }
        | Error::Usage(_) => true,
        _ => false,
    }
}

/// The pieces of large values of a group that no row has had yet: by the value's number, the first one's frame, and how
/// many bytes there are.
#[derive(Default)]
pub(crate) struct Pieces(HashMap<u32, (u64, u64)>);

impl Pieces {
    /// Adds a piece that stands in a frame.
    pub(crate) fn note_piece(&mut self, seq: u64, piece: &Piece<'_>) -> Result<()> {
        if self.0.len() >= VALUES_MAX && !self.0.contains_key(&piece.number) {
            return Err(Error::damaged("pieces of more large values than rows have"));
        }
        let (_, len) = self.0.entry(piece.number).or_insert((seq, 0));
        *len = len.saturating_add(piece.bytes.len() as u64);
        Ok(())
    }

    /// Finds that the pieces of all large values of a row in a frame are there.
    pub(crate) fn claim(&mut self, seq: u64, values: &[Carried<'_>]) -> Result<()> {
        for (_, value) in values {
            if let Value::Big(big) = value {
                self.claim_value(seq, big)?;
            }
        }
        Ok(())
    }

    fn claim_value(&mut self, seq: u64, big: &Big) -> Result<()> {
        match self.0.remove(&big.number) {
            Some((first, len)) if seq.checked_sub(big.back.into()) == Some(first) && len == big.len => Ok(()),
            _ if big.len == 0 => Ok(()),
            _ => Err(Error::damaged("a large value whose pieces are not all there")),
        }
    }
}
