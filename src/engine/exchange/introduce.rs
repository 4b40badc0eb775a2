//! The introduction: this device's certificate or request, alone and in clear, for those who encrypt and do not know it.
//!
//! Its header tells nothing of what the device has: it says that it differs by nothing from a vector that nobody has
//! stated. Who reads it learns the certificate, and keeps what the device said before.

use std::collections::BTreeSet;
use std::io::Write;

use packmule_core::wire::RecordKind;
use sha2::{Digest, Sha256};

use crate::engine::error::Result;
use crate::engine::exchange::records::{PartReport, RecordWriter};
use crate::engine::exchange::{certificates, export};
use crate::engine::fleet::{admission, copies, succession};
use crate::engine::table::catalog;
use crate::engine::table::replica::Replica;

/// Lists the certificates of an introduction: ours with those that vouch for it, the request for another name, and the
/// statements that fleet keys follow each other.
fn own_certificates(replica: &Replica) -> Result<Vec<Vec<u8>>> {
    let mut all = succession::statements(&replica.db)?;
    all.extend(certificates::certificates_for(replica, replica.me)?.into_iter().map(|(_, bytes)| bytes));
    all.extend(admission::own_request(replica)?);
    Ok(all)
}

/// Returns the hashes of the certificates in an introduction that is written now.
pub(crate) fn hashes(replica: &Replica) -> Result<BTreeSet<[u8; 32]>> {
    let all = catalog::reading(replica, own_certificates)?;
    Ok(all.iter().map(|bytes| Sha256::digest(bytes).into()).collect())
}

/// Writes an introduction. The footer is left to the caller.
pub(crate) fn write(replica: &Replica, to: &mut dyn Write) -> Result<PartReport> {
    let vector = (Some(copies::number(None)?), &[][..], &[][..]);
    catalog::reading(replica, |e| {
        let mut out = RecordWriter::new(to);
        export::write_header(e, &mut out, (e.signing_key()?, e.identity.id), None, vector)?;
        for bytes in own_certificates(e)? {
            out.record(RecordKind::Certificate, &bytes)?;
        }
        out.flush()?;
        let (footer, bytes) = export::footer(out)?;
        Ok(PartReport { footer, bytes, ..PartReport::default() })
    })
}
