//! Trust in who made a bundle.

use packmule_core::wire::Certificate;

use crate::engine::error::{BundleProblem, Error, Result, UntrustedDevice};
use crate::engine::exchange::{certificates, transaction};
use crate::engine::fleet::devices::{self, DeviceInfo, Trust};
use crate::engine::fleet::{roster, trust};
use crate::engine::log::bundle::{BundleReader, HeaderCheck, Item};
use crate::engine::table::replica::Replica;

/// Trusts the device that made a bundle, whose header and certificate are signed by the same key, and stores its
/// certificate.
pub(crate) fn trust_sender<R: std::io::Read>(replica: &mut Replica, bundle: &mut R) -> Result<DeviceInfo> {
    let mut reader = BundleReader::new(std::io::BufReader::new(bundle));
    let mut header = None;
    let mut found: Option<Vec<u8>> = None;
    loop {
        match reader.next_item()? {
            Item::Header(reader) => header = Some(HeaderCheck::of(&reader)),
            Item::Certificate(certificate, bytes)
                if header.as_ref().is_some_and(|h| h.sender == certificate.device()) =>
            {
                found = Some(bytes.to_vec());
            }
            Item::End => break,
            _ => {}
        }
    }
    let header = header.ok_or_else(|| Error::bundle(0, BundleProblem::Structure("no header")))?;
    let id = header.sender;
    let bytes =
        found.ok_or_else(|| Error::Untrusted(vec![UntrustedDevice { id, name: None, revoked: false }]))?;
    let certificate = Certificate::decode(&bytes).map_err(|e| Error::bundle(0, e))?;
    if !header.verify(&certificate.public_key) {
        let who = devices::label(id, Some(certificate.name));
        return Err(Error::bundle(0, BundleProblem::Signature(who)));
    }
    if id == replica.identity.id {
        return Err(Error::Usage("that is this device itself, which needs no trust".into()).into());
    }
    trust::refuse_revoked(replica, id)?;
    transaction::transaction(replica, |e| {
        let trust = trust::verify_certificate(e, &certificate)?.unwrap_or(Trust::Singly);
        certificates::store(e, &certificate, &bytes, trust)?;
        // A certificate that was there and stays can be of a device that was not trusted.
        let n = devices::device_number_or_new(e, id)?;
        e.db.execute("UPDATE _pm_device SET trust = ?2 WHERE n = ?1", (n, trust))?;
        Ok(())
    })?;
    let known = roster::devices(replica)?.into_iter().find(|device| device.id == id);
    known.ok_or_else(|| Error::damaged("a device that was just written is not there"))
}
