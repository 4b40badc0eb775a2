//! Revocations and retirements: what a fleet's key says of a device. See `FORMAT.md`, "Revocation".

use ed25519_compact::{Noise, PublicKey, SecretKey, Signature};
use serde::{Deserialize, Serialize};

use super::{COUNT_MAX, DecodeError, FORMAT_VERSION, NoRoom, check_version, put, take, take_bytes};
use crate::model::DeviceId;

/// The longest encoded revocation, in bytes.
pub const REVOCATION_MAX: usize = 1 + 16 + 1 + 10 + 32 + 64;

const DOMAIN: &[u8; 22] = b"packmule/1 revocation ";

/// Says that a device is revoked or retired, or no longer so; signed by its fleet's key. Of two of one kind about one
/// device that with the higher number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Revocation {
    /// The device.
    pub device: DeviceId,
    /// It is about a retirement: the device will not come back. Otherwise nothing is to be taken from it.
    pub retirement: bool,
    /// It is revoked, or retired; otherwise what was said earlier is taken back.
    pub revoked: bool,
    /// Higher than that of every earlier one about the device that the signer knew: the signer's wall time in
    /// milliseconds, where that is.
    pub number: u64,
    /// The fleet's public key.
    pub fleet: [u8; 32],
    /// The fleet's signature.
    pub signature: [u8; 64],
}

#[derive(Serialize, Deserialize)]
struct Body {
    version: u8,
    device: DeviceId,
    /// The lowest bit: revoked. The next: retirement.
    says: u8,
    number: u64,
    fleet: [u8; 32],
}

impl Revocation {
    /// Signs one.
    ///
    /// # Errors
    /// [`NoRoom`] if the number is out of its range: nobody would read it.
    pub fn sign(fleet: &SecretKey, device: DeviceId, revoked: bool, number: u64) -> Result<Self, NoRoom> {
        Self::sign_either(fleet, device, (false, revoked), number)
    }

    /// Signs one that says whether a device is retired.
    ///
    /// # Errors
    /// [`NoRoom`] as for [`Revocation::sign`].
    pub fn sign_retirement(
        fleet: &SecretKey,
        device: DeviceId,
        retired: bool,
        number: u64,
    ) -> Result<Self, NoRoom> {
        Self::sign_either(fleet, device, (true, retired), number)
    }

    fn sign_either(
        fleet: &SecretKey,
        device: DeviceId,
        (retirement, revoked): (bool, bool),
        number: u64,
    ) -> Result<Self, NoRoom> {
        if number > COUNT_MAX {
            return Err(NoRoom);
        }
        let fleet_key = *fleet.public_key();
        let mut new = Self { device, retirement, revoked, number, fleet: fleet_key, signature: [0; 64] };
        new.signature = new.signed(|message| *fleet.sign(message, None::<Noise>))?;
        Ok(new)
    }

    /// Returns whether this one counts, and not the other, which is of the same kind and about the same device. Of two with the same number
    /// it is the one that revokes.
    pub fn supersedes(&self, other: &Self) -> bool {
        (self.number, self.revoked) > (other.number, other.revoked)
    }

    fn body(&self, buf: &mut [u8]) -> Result<usize, NoRoom> {
        let Self { device, retirement, revoked, number, fleet, .. } = *self;
        let says = u8::from(revoked) | u8::from(retirement) << 1;
        put(buf, &Body { version: FORMAT_VERSION, device, says, number, fleet })
    }

    fn signed<R>(&self, with: impl FnOnce(&[u8]) -> R) -> Result<R, NoRoom> {
        let mut message = [0; DOMAIN.len() + REVOCATION_MAX];
        let (domain, rest) = message.split_at_mut(DOMAIN.len());
        domain.copy_from_slice(DOMAIN);
        let len = DOMAIN.len() + self.body(rest)?;
        Ok(with(message.get(..len).ok_or(NoRoom)?))
    }

    /// Encodes it; returns the length, at most [`REVOCATION_MAX`].
    ///
    /// # Errors
    /// [`NoRoom`].
    pub fn encode(&self, buf: &mut [u8]) -> Result<usize, NoRoom> {
        let len = self.body(buf)?;
        let end = len + self.signature.len();
        buf.get_mut(len..end).ok_or(NoRoom)?.copy_from_slice(&self.signature);
        Ok(end)
    }

    /// Decodes it and checks its signature. Whether the fleet is ours is for the caller.
    ///
    /// # Errors
    /// [`DecodeError`] if it is not a revocation, or the signature does not match.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut rest = bytes;
        check_version(rest, FORMAT_VERSION)?;
        let Body { device, says, number, fleet, .. } = take(&mut rest)?;
        if says > 3 {
            return Err(DecodeError::Malformed("a revocation of an unknown kind"));
        }
        let (retirement, revoked) = (says & 2 != 0, says & 1 != 0);
        let mut signature = [0; 64];
        signature.copy_from_slice(take_bytes(&mut rest, 64)?);
        if number > COUNT_MAX {
            return Err(DecodeError::Malformed("a count out of its range"));
        }
        if !rest.is_empty() {
            return Err(DecodeError::Malformed("bytes after the end of a revocation"));
        }
        let revocation = Self { device, retirement, revoked, number, fleet, signature };
        let verified = revocation
            .signed(|message| PublicKey::new(fleet).verify(message, &Signature::new(signature)).is_ok());
        if verified != Ok(true) {
            return Err(DecodeError::Malformed("a revocation whose signature does not match"));
        }
        Ok(revocation)
    }
}
