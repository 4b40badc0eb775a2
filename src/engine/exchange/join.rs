//! Starting from a snapshot: a new device, or one that lacks what others have folded.
//!
//! A snapshot is taken in as the state that it is (`take_state.rs`): identity, log and what is not sealed stay. A new device
//! trusts first whom the maker answers for, on its owner's word. The snapshot is verified to its end before anything is
//! written.

use std::io::{BufReader, Read, Seek};
use std::path::Path;

use packmule_core::model::DeviceId;
use packmule_core::wire::Certificate;
use rusqlite::OpenFlags;

use crate::engine::error::{self, BundleProblem, Error, Result, UntrustedDevice};
use crate::engine::exchange::admit::{self, Admission, AdmitOptions};
use crate::engine::exchange::import::More;
use crate::engine::exchange::{certificates, import, inspect, transaction};
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
    /// Its name; a device that was one before is renamed, as `Engine::rename` does it.
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
    /// Rows that wait for a table of their name to be tracked.
    pub waiting: u64,
    /// Frames in flight taken in.
    pub frames: u64,
    /// The device has a new identity: it was a second history.
    pub new_identity: bool,
}

/// A snapshot that was verified.
struct Verified {
    maker: DeviceId,
    maker_name: String,
    certificate: Vec<u8>,
    /// All certificates in it.
    certificates: Vec<Vec<u8>>,
    fleet: Option<[u8; 32]>,
}

/// A certificate of a snapshot, as long as it is being verified.
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
        && !verified.fleet.is_some_and(|maker| fleet.public_keys().contains(&maker))
    {
        let name = Some(verified.maker_name);
        return Err(
            Error::Untrusted(vec![UntrustedDevice { id: verified.maker, name, revoked: false }]).into()
        );
    }
    let mut engine = if is_device {
        open::open_as(path, options, OpenFlags::SQLITE_OPEN_READ_WRITE)?
    } else {
        let name = join.name.unwrap_or("device");
        open::init_with(path, &InitOptions { name, base: false, fleet: join.fleet }, options)?
    };
    if is_device {
        let outcome = catalog::reading(&engine, |e| {
            trust::verify_certificate(e, &Certificate::decode(&verified.certificate).map_err(error::bad)?)
        })?;
        if let Err(untrusted) = outcome {
            return Err(Error::Untrusted(vec![untrusted]).into());
        }
    }
    let report = take_in(&mut engine, snapshot, &verified, join, is_device)?;
    // After all else: a join that is refused has changed nothing.
    if let Some(name) = join.name.filter(|_| is_device) {
        certificates::rename(&mut engine, name)?;
    }
    let path = engine.path.clone();
    let options = std::mem::take(&mut engine.options);
    drop(engine);
    Ok((open::open_as(&path, options, OpenFlags::SQLITE_OPEN_READ_WRITE)?, report))
}

/// Takes in a snapshot as the state that it is: identity, log and what is not sealed stay.
fn take_in<R: Read + Seek>(
    replica: &mut Replica,
    snapshot: &mut R,
    verified: &Verified,
    join: &JoinOptions<'_>,
    is_device: bool,
) -> Result<JoinReport> {
    if !is_device {
        trust_all(replica, &verified.certificates)?;
    } else if let Some(fleet) = join.fleet.filter(|_| !replica.identity.admitted) {
        let mut admission = Admission::new(fleet);
        admit::read_database(&mut admission, replica)?;
        let own = [replica.identity.id];
        let admitted = admission.sign(&AdmitOptions { base: replica.identity.base, only: &own })?;
        admit::take_admitted(replica, &admitted)?;
    }
    let taken = import::import(replica, snapshot, More::Nothing, &mut |_| ())?;
    Ok(JoinReport {
        maker: Some(verified.maker),
        maker_name: verified.maker_name.clone(),
        rows: taken.ops,
        waiting: taken.ops_waiting,
        frames: taken.frames,
        new_identity: taken.new_identity.is_some(),
    })
}

/// Trusts the devices that a snapshot's maker answers for: those of other fleets, or of none, singly. A new device does so
/// on its owner's word.
fn trust_all(replica: &mut Replica, all: &[Vec<u8>]) -> Result<()> {
    transaction::transaction(replica, |e| {
        for bytes in all {
            let certificate = Certificate::decode(bytes).map_err(error::bad)?;
            certificates::store_answered_for(e, &certificate, bytes)?;
        }
        Ok(())
    })
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
    loop {
        let at = reader.offset();
        match reader.next_item()? {
            Item::Header(header) => {
                maker = Some(header.header.sender);
            }
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
                let all = certificates.iter().map(|known| known.bytes.clone()).collect();
                let Some(maker) = maker.and_then(|id| certificates.into_iter().find(|c| c.id == id)) else {
                    return Err(Error::bundle(
                        at,
                        BundleProblem::Structure("its maker's certificate is not in it"),
                    ));
                };
                let good = inspect::is_sealed_by(&maker.key, &signature, &digest);
                if !good {
                    return Err(Error::bundle(at, BundleProblem::Signature(maker.name)));
                }
                let Item::End = reader.next_item()? else {
                    return Err(Error::bundle(at, BundleProblem::IsABundle));
                };
                return Ok(Verified {
                    maker: maker.id,
                    maker_name: maker.name,
                    certificate: maker.bytes,
                    certificates: all,
                    fleet,
                });
            }
            Item::End => {
                return Err(Error::bundle(0, BundleProblem::IsABundle));
            }
            Item::Frame(..)
            | Item::State(_)
            | Item::Part(_)
            | Item::Revocation(_)
            | Item::Newest(_)
            | Item::FleetKey(..) => {}
        }
    }
}
