//! Snapshots: a state in a file of its own, for a newcomer to start from.

use std::io::Write;

use crate::engine::error::Result;
use crate::engine::exchange::records::RecordWriter;
use crate::engine::exchange::state::Parts;
use crate::engine::exchange::{export, state, transaction, twin};
use crate::engine::fleet::positions;
use crate::engine::table::catalog;
use crate::engine::table::replica::Replica;

/// What went into a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct SnapshotReport {
    /// Shared tables.
    pub tables: u64,
    /// Their rows.
    pub rows: u64,
    /// Frames that are still in flight.
    pub frames: u64,
    /// Bytes of the file.
    pub bytes: u64,
}

/// Seals, then writes a snapshot of the shared tables, from which [`Engine::join`] starts.
pub(crate) fn snapshot(replica: &mut Replica, to: &mut dyn Write) -> Result<SnapshotReport> {
    replica.signing_key()?;
    transaction::seal(replica)?;
    catalog::reading(replica, |e| write_snapshot(e, to))
}

/// Writes a snapshot of what is sealed.
fn write_snapshot(replica: &Replica, to: &mut dyn Write) -> Result<SnapshotReport> {
    let key = replica.signing_key()?;
    let mut out = RecordWriter::new(to);
    let mut report = SnapshotReport::default();
    let (applied, probes) = (positions::vector(replica)?, twin::probes(replica)?);
    export::write_header(replica, &mut out, (key, replica.identity.id), None, (None, &applied, &probes))?;
    export::write_revocations(replica, &mut out)?;
    export::write_certificates(replica, &mut out, &|_| true)?;
    (report.tables, report.rows) =
        state::write_state(replica, &mut out, key, &Parts { shared: Some(&|_| 0), gathered: &[] })?;
    out.flush()?;
    report.frames = out.frames;
    report.bytes = out.bytes;
    Ok(report)
}
