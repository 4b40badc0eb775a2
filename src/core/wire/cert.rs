//! Certificates: who a device is, and which fleet vouches for it. See `FORMAT.md`, "Certificate".

use ed25519_compact::{Noise, PublicKey, SecretKey, Signature};
use serde::{Deserialize, Serialize};

use super::{DecodeError, FORMAT_VERSION, NoRoom, SignatureError, check_version, put, take, take_bytes};
use crate::model::{DeviceId, is_unseen};

/// The longest encoded certificate, in bytes; a name has at most 64.
pub const CERT_MAX: usize = 1 + 32 + 2 + 64 + 1 + 64 + 1 + 32 + 64;

const NAME_MAX: usize = 64;

/// The highest serial of a device's certificate.
pub const SERIAL_MAX: u8 = 126;

/// The serial of a certificate that is no device's, but of a fleet key, signed by the fleet key that it follows.
const FLEET_KEY: u8 = 127;

fn name_is_possible(name: &str) -> bool {
    !name.is_empty() && name.len() <= NAME_MAX && !name.chars().any(is_unseen)
}

/// A fleet's signature for a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct FleetSignature {
    /// The fleet's public key.
    pub fleet: [u8; 32],
    /// The fleet's signature over the device's description.
    pub signature: [u8; 64],
}

/// Says which name and role go with a public key; signed by the device itself, and by its fleet if
/// it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Certificate<'a> {
    /// The device's ed25519 public key.
    pub public_key: [u8; 32],
    /// The name that people gave it: at most 64 bytes.
    pub name: &'a str,
    /// It gathers the rows of per-device tables.
    pub base: bool,
    /// Which of the device's certificates it is: a higher one takes the place of those before it.
    pub serial: u8,
    /// The device's own signature.
    pub signature: [u8; 64],
    /// The fleet's, if it belongs to one.
    pub fleet: Option<FleetSignature>,
}

#[derive(Serialize, Deserialize)]
struct Body<'a> {
    version: u8,
    public_key: [u8; 32],
    name: &'a str,
    /// The lowest bit: base. The others: serial.
    role: u8,
}

const SIGNED_MAX: usize = 22 + CERT_MAX;

impl<'a> Certificate<'a> {
    /// Makes a device's own certificate.
    ///
    /// # Errors
    /// [`NoRoom`] if the name is empty, longer than 64 bytes or has a control character in it:
    /// nobody would read the certificate.
    pub fn new(key: &SecretKey, name: &'a str, base: bool) -> Result<Self, NoRoom> {
        Self::numbered(key, name, base, 0)
    }

    /// Makes a device's own certificate that takes the place of those with a lower serial.
    ///
    /// # Errors
    /// [`NoRoom`] as for [`Certificate::new`], and if the serial is above [`SERIAL_MAX`].
    pub fn numbered(key: &SecretKey, name: &'a str, base: bool, serial: u8) -> Result<Self, NoRoom> {
        if serial > SERIAL_MAX {
            return Err(NoRoom);
        }
        Self::own(key, name, base, serial)
    }

    /// Makes the statement that a fleet key follows another one; both sign it.
    ///
    /// # Errors
    /// [`NoRoom`], which does not happen.
    pub fn succession(new: &SecretKey, old: &SecretKey) -> Result<Certificate<'static>, NoRoom> {
        Certificate::own(new, "fleet key", false, FLEET_KEY)?.vouched(old)
    }

    /// Returns whether it is no device's, but says that a fleet key follows another one.
    pub fn is_fleet_key(&self) -> bool {
        self.serial == FLEET_KEY
    }

    fn own(key: &SecretKey, name: &'a str, base: bool, serial: u8) -> Result<Self, NoRoom> {
        let mut certificate =
            Self { public_key: *key.public_key(), name, base, serial, signature: [0; 64], fleet: None };
        certificate.signature =
            certificate.signed(b"packmule/1 device cert", |m| *key.sign(m, None::<Noise>))?;
        Ok(certificate)
    }

    /// Adds the signature of a fleet, which vouches for it.
    ///
    /// # Errors
    /// [`NoRoom`] as for [`Certificate::new`].
    pub fn vouched(mut self, fleet: &SecretKey) -> Result<Self, NoRoom> {
        let signature = self.signed(b"packmule/1 fleet  cert", |m| *fleet.sign(m, None::<Noise>))?;
        self.fleet = Some(FleetSignature { fleet: *fleet.public_key(), signature });
        Ok(self)
    }

    fn signed<R>(&self, domain: &[u8; 22], with: impl FnOnce(&[u8]) -> R) -> Result<R, NoRoom> {
        let mut message = [0; SIGNED_MAX];
        let (first, body) = message.split_first_chunk_mut().ok_or(NoRoom)?;
        *first = *domain;
        let len = domain.len() + self.body(body)?;
        Ok(with(message.get(..len).ok_or(NoRoom)?))
    }

    fn body(&self, buf: &mut [u8]) -> Result<usize, NoRoom> {
        if !name_is_possible(self.name) || self.serial > FLEET_KEY {
            return Err(NoRoom);
        }
        let Self { public_key, name, base, serial, .. } = *self;
        put(buf, &Body { version: FORMAT_VERSION, public_key, name, role: u8::from(base) | serial << 1 })
    }

    /// Returns the device's id.
    pub fn device(&self) -> DeviceId {
        DeviceId::of_key(&self.public_key)
    }

    /// Encodes it; returns the length, at most [`CERT_MAX`].
    ///
    /// # Errors
    /// [`NoRoom`].
    pub fn encode(&self, buf: &mut [u8]) -> Result<usize, NoRoom> {
        let mut len = self.body(buf)?;
        let mut add = |part: &[u8]| {
            let end = len + part.len();
            buf.get_mut(len..end).ok_or(NoRoom)?.copy_from_slice(part);
            len = end;
            Ok(())
        };
        add(&self.signature)?;
        add(&[u8::from(self.fleet.is_some())])?;
        if let Some(fleet) = &self.fleet {
            add(&fleet.fleet)?;
            add(&fleet.signature)?;
        }
        Ok(len)
    }

    /// Decodes it and checks both signatures. Whether the fleet is one of ours is for the caller.
    ///
    /// # Errors
    /// [`DecodeError`] if it is not a certificate, or a signature in it does not match.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let certificate = Self::read(bytes)?;
        certificate
            .check()
            .map_err(|_| DecodeError::Malformed("a certificate whose signature does not match"))?;
        Ok(certificate)
    }

    /// Decodes it and checks no signature: for bytes of which [`Certificate::decode`] has done so before.
    ///
    /// # Errors
    /// [`DecodeError`] if it is not a certificate.
    pub fn read(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut rest = bytes;
        check_version(rest, FORMAT_VERSION)?;
        let body: Body<'a> = take(&mut rest)?;
        if !name_is_possible(body.name) {
            return Err(DecodeError::Malformed("a certificate with an impossible name"));
        }
        let mut signature = [0; 64];
        signature.copy_from_slice(take_bytes(&mut rest, 64)?);
        let fleet = match take::<u8>(&mut rest)? {
            0 => None,
            1 => {
                let mut fleet = FleetSignature { fleet: [0; 32], signature: [0; 64] };
                fleet.fleet.copy_from_slice(take_bytes(&mut rest, 32)?);
                fleet.signature.copy_from_slice(take_bytes(&mut rest, 64)?);
                Some(fleet)
            }
            _ => return Err(DecodeError::Malformed("a certificate of an unknown kind")),
        };
        if !rest.is_empty() {
            return Err(DecodeError::Malformed("bytes after the end of a certificate"));
        }
        let (base, serial) = (body.role & 1 == 1, body.role >> 1);
        Ok(Self { public_key: body.public_key, name: body.name, base, serial, signature, fleet })
    }

    fn check(&self) -> Result<(), SignatureError> {
        let verify = |domain: &[u8; 22], key: &[u8; 32], signature: &[u8; 64]| {
            self.signed(domain, |m| PublicKey::new(*key).verify(m, &Signature::new(*signature)))
                .map_err(|_| SignatureError)?
                .map_err(|_| SignatureError)
        };
        verify(b"packmule/1 device cert", &self.public_key, &self.signature)?;
        if let Some(fleet) = &self.fleet {
            verify(b"packmule/1 fleet  cert", &fleet.fleet, &fleet.signature)?;
        }
        Ok(())
    }
}
