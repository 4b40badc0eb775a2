//! Starting from a snapshot: a new device begins with what the snapshot's maker has; one that was there before takes that
//! in, as from any bundle.
//!
//! **Invariant.** The device keeps its identity, its log, and what it has written and not sealed. The snapshot is a
//! state: `take_state.rs` merges it row by row. It is verified to its end before anything is written.

use std::io::{BufReader, Read, Seek};
use std::path::Path;

use packmule_core::model::DeviceId;
use packmule_core::wire::Certificate;
use rusqlite::OpenFlags;

use crate::engine::error::{self, BundleProblem, Error, Result, UntrustedDevice};
use crate::engine::exchange::{import, inspect};
use crate::engine::fleet::devices::Trust;
use crate::engine::fleet::open::{self, InitOptions};
use crate::engine::fleet::trust;
use crate::engine::log::bundle::{BundleReader, Item};
use crate::engine::store::connection::{self, Options};
use crate::engine::store::keys::FleetKey;
use crate::engine::store::layout;
use crate::engine::table::catalog;
use crate::engine::table::replica::Replica;

/// How a device starts from a snapshot.
#[derive(Clone, Copy, Default)]
pub struct JoinOptions<'a> {
    /// Its name; a device that was one before keeps its own.
    pub name: Option<&'a str>,
    /// The fleet that issues its certificate.
    pub fleet: Option<&'a FleetKey>,
}

/// What a start from a snapshot did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct JoinReport {
    /// Who made the snapshot.
    pub maker: Option<DeviceId>,
    /// Its name.
    pub maker_name: String,
    /// Rows taken in.
    pub rows: u64,
    /// Frames in flight taken in.
    pub frames: u64,
}

/// A snapshot that was verified.
struct Verified {
    maker: DeviceId,
    maker_name: String,
    certificate: Vec<u8>,
    fleet: Option<[u8; 32]>,
    /// The certificates of all whose frames are in it.
    certificates: Vec<Known>,
}

/// A certificate of a snapshot.
struct Known {
    id: DeviceId,
    name: String,
    key: [u8; 32],
    fleet: Option<[u8; 32]>,
    bytes: Vec<u8>,
}

/// Makes a database a device that starts from a snapshot; creates the file if need be.
pub(crate) fn join<R: Read + Seek>(
    path: &Path,
    snapshot: &mut R,
    join: &JoinOptions<'_>,
    options: Options,
) -> Result<(Replica, JoinReport)> {
    let verified = verify(&mut *snapshot)?;
    let is_device = path.exists() && {
        let db = connection::open_connection(path, OpenFlags::SQLITE_OPEN_READ_WRITE, &options)?;
        layout::present(&db)?
    };
    // A new device trusts the snapshot's maker on its owner's word, unless a fleet is named.
    if let Some(fleet) = join.fleet
        && verified.fleet != Some(fleet.public_key())
    {
        let name = Some(verified.maker_name);
        return Err(Error::Untrusted(vec![UntrustedDevice { id: verified.maker, name, revoked: false }]));
    }
    let mut replica = if is_device {
        open::open_as(path, options, OpenFlags::SQLITE_OPEN_READ_WRITE)?
    } else {
        let name = join.name.unwrap_or("device");
        open::init_with(path, &InitOptions { name, base: false, fleet: join.fleet }, options)?
    };
    if is_device {
        let outcome = catalog::reading(&replica, |e| {
            trust::verify_certificate(e, &Certificate::decode(&verified.certificate).map_err(error::bad)?)
        })?;
        if let Err(untrusted) = outcome {
            return Err(Error::Untrusted(vec![untrusted]));
        }
    } else {
        trust_certificates(&replica, &verified.certificates)?;
    }
    let taken = import::import(&mut replica, snapshot, &mut |_| {})?;
    let report = JoinReport {
        maker: Some(verified.maker),
        maker_name: verified.maker_name,
        rows: taken.ops,
        frames: taken.frames,
    };
    Ok((replica, report))
}

/// Trusts those whose certificates are in a snapshot: its maker answers for those whose fleet is another, or none.
fn trust_certificates(replica: &Replica, certificates: &[Known]) -> Result<()> {
    for known in certificates {
        let certificate = Certificate::decode(&known.bytes).map_err(error::bad)?;
        let trust = match trust::verify_certificate(replica, &certificate)? {
            Ok(trust) => trust,
            Err(UntrustedDevice { revoked: true, .. }) => continue,
            Err(_) => Trust::Singly,
        };
        trust::store_certificate(replica, &certificate, &known.bytes, trust)?;
    }
    Ok(())
}

/// Finds the fleet that issued a device's certificate; for a second history, that of the identity before it.
fn fleet_of(certificates: &[Known], device: DeviceId) -> Option<[u8; 32]> {
    let mut issuer = certificates.iter().find(|c| c.id == device)?.fleet?;
    for _ in certificates {
        match certificates.iter().find(|c| c.key == issuer) {
            Some(before) => issuer = before.fleet?,
            None => break,
        }
    }
    Some(issuer)
}

/// Reads all of a snapshot and verifies every signature in it.
fn verify<R: Read + Seek>(snapshot: &mut R) -> Result<Verified> {
    snapshot.rewind().map_err(Error::Stream)?;
    let mut reader = BundleReader::new(BufReader::new(snapshot));
    let mut certificates: Vec<Known> = Vec::new();
    let mut maker = None;
    let mut verified = None;
    loop {
        let at = reader.offset();
        match reader.next_item()? {
            Item::Header(header) => maker = Some(header.header.sender),
            Item::Certificate(c, bytes) => certificates.push(Known {
                id: c.device(),
                name: c.name.into(),
                key: c.public_key,
                fleet: c.fleet.map(|f| f.fleet),
                bytes: bytes.to_vec(),
            }),
            Item::Checkpoint(checkpoint, _, end) => {
                let known = certificates.iter().find(|c| c.id == checkpoint.author);
                let good = known.is_some_and(|c| checkpoint.verify(&c.key, &end).is_ok());
                if !good {
                    return Err(Error::bundle(at, BundleProblem::Signature(checkpoint.author.to_string())));
                }
            }
            Item::Seal(signature, digest) => {
                let fleet = maker.and_then(|id| fleet_of(&certificates, id));
                let Some(maker) = maker.and_then(|id| certificates.iter().find(|c| c.id == id)) else {
                    return Err(Error::bundle(
                        at,
                        BundleProblem::Structure("its maker's certificate is not in it"),
                    ));
                };
                let good = inspect::is_sealed_by(&maker.key, &signature, &digest);
                if !good {
                    return Err(Error::bundle(at, BundleProblem::Signature(maker.name.clone())));
                }
                verified = Some(Verified {
                    maker: maker.id,
                    maker_name: maker.name.clone(),
                    certificate: maker.bytes.clone(),
                    fleet,
                    certificates: Vec::new(),
                });
            }
            Item::End => {
                let verified = verified.ok_or_else(|| Error::bundle(0, BundleProblem::IsABundle))?;
                return Ok(Verified { certificates, ..verified });
            }
            Item::Frame(..) | Item::State(_) | Item::Part(_) => {}
        }
    }
}
