//! Another device's database file, read as a bundle.

use std::collections::HashMap;
use std::io::BufWriter;

use crate::engine::apply::report::ImportReport;
use crate::engine::error::{Error, Result};
use crate::engine::exchange::import::{self, More};
use crate::engine::exchange::verified::Progress;
use crate::engine::exchange::{export, session, twin};
use crate::engine::fleet::{open, positions};
use crate::engine::store::connection::Options;
use crate::engine::table::replica::Replica;

/// Takes in what another device's database file has sealed. The file is read alone: what is not sealed in it is counted.
pub(crate) fn import_database(
    replica: &mut Replica,
    path: &std::path::Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<ImportReport> {
    let quick = Options { busy_ms: replica.options.busy_ms, ..Options::default() };
    let of_source = |error| Error::Source { path: path.into(), error };
    let source = open::open_source(path, quick).map_err(of_source)?;
    if source.identity.id == replica.identity.id {
        return Err(Error::Usage(format!("{} is this device itself, or a copy of it", path.display())).into());
    }
    let refused = twin::refuse_other_history(replica, &source);
    session::name_twin(replica, &refused)?;
    refused?;
    // Through a file, since a bundle is verified before it is taken in; its name is gone at once.
    let mut spool = tempfile::tempfile_in(replica.path.parent().unwrap_or(std::path::Path::new(".")))
        .map_err(Error::io("make a temporary file beside", &replica.path))?;
    let key = replica.signing_key()?;
    let here: HashMap<_, _> = positions::vector(replica)?
        .into_iter()
        .map(|entry| ((entry.author, entry.stream), entry.seq))
        .collect();
    let have = |id, stream| Ok(here.get(&(id, stream)).copied().unwrap_or(0));
    let exported =
        export::export_relay(&source, &mut BufWriter::new(&mut spool), (key, replica.identity.id), &have)
            .map_err(of_source)?;
    drop(source);
    let mut report = import::import(replica, &mut spool, More::Nothing, progress)?;
    report.unsealed = exported.unsealed;
    Ok(report)
}
