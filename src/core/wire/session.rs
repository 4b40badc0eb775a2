//! What two ends of a session send each other besides frames. See `FORMAT.md`, "Session".

use ed25519_compact::{Noise, PublicKey, SecretKey, Signature};
use serde::{Deserialize, Serialize};

use super::{COUNT_MAX, DecodeError, NoRoom, SignatureError, put, take};
use crate::model::{DeviceId, Stream};

/// The version of the session that this build speaks.
pub const SESSION_VERSION: u8 = 1;

/// Why an end goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Refusal {
    /// It does not trust the device.
    Untrusted,
    /// It trusted the device once.
    Revoked,
    /// Both ends are the same device, or clones of it.
    Itself,
    /// The ends have no version in common.
    Version,
    /// The device has two histories.
    Twin,
    /// A signature or a record of the device is wrong.
    Damaged,
    /// Something failed at this end: its disk, its database.
    Failed,
    /// It was a second history of a device, and has re-keyed: it begins a new session.
    NewIdentity,
}

/// One message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Message<'a> {
    /// The first message of each end.
    Hello {
        /// The lowest and the highest [`SESSION_VERSION`] that it speaks.
        session: (u8, u8),
        /// The same of frames: [`super::FORMAT_VERSION`] to [`super::FRAME_VERSION`].
        format: (u8, u8),
        /// Random, new in every session.
        nonce: [u8; 32],
        /// Its [`super::Certificate`].
        certificate: &'a [u8],
    },
    /// It has the key of the certificate: a signature over both nonces, 64 bytes.
    Proof(&'a [u8]),
    /// What it has of a stream beyond its vector, so that it need not come again.
    Here {
        /// The author.
        author: DeviceId,
        /// The stream.
        stream: Stream,
        /// Whole groups are here up to this frame.
        groups: u64,
        /// Frames of the next group are here up to this one.
        frames: u64,
    },
    /// How much is to come, as far as is known: for people who watch.
    Plan {
        /// Frames.
        frames: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// It has nothing more to send for now; counts from 1.
    Idle(u32),
    /// Everything that came before the peer's [`Message::Idle`] with this number is durable.
    Settled(u32),
    /// It goes no further.
    Refused {
        /// Why.
        why: Refusal,
        /// Whom it is about.
        device: DeviceId,
    },
    /// It will send nothing more in this session.
    Bye,
    /// The peer lacks frames that are folded here: it can go on from a snapshot alone.
    Behind,
}

const PROOF_LEN: usize = 18 + 2 * 16 + 2 * 32;

fn proof(signer: (DeviceId, &[u8; 32]), other: (DeviceId, &[u8; 32])) -> [u8; PROOF_LEN] {
    let mut message = [0; PROOF_LEN];
    let mut at = 0;
    for part in [&b"packmule/1 session"[..], &signer.0.0, &other.0.0, signer.1, other.1] {
        message[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    message
}

impl<'a> Message<'a> {
    /// Encodes it; returns the length.
    ///
    /// # Errors
    /// [`NoRoom`].
    pub fn encode(&self, buf: &mut [u8]) -> Result<usize, NoRoom> {
        put(buf, self)
    }

    /// Decodes it.
    ///
    /// # Errors
    /// [`DecodeError`] if it is none of this version.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut rest = bytes;
        let message = take(&mut rest)?;
        if !rest.is_empty() {
            return Err(DecodeError::Malformed("bytes after the end of a message"));
        }
        if let Self::Here { groups, frames, .. } = message
            && groups.max(frames) > COUNT_MAX
        {
            return Err(DecodeError::Malformed("a count out of its range"));
        }
        Ok(message)
    }

    /// Returns the signature of a [`Message::Proof`], over both ends' ids and nonces.
    pub fn prove(key: &SecretKey, me: (DeviceId, &[u8; 32]), peer: (DeviceId, &[u8; 32])) -> [u8; 64] {
        *key.sign(proof(me, peer), None::<Noise>)
    }

    /// Checks a peer's [`Message::Proof`].
    ///
    /// # Errors
    /// [`SignatureError`].
    pub fn check_proof(
        signature: &[u8],
        public_key: &[u8; 32],
        peer: (DeviceId, &[u8; 32]),
        me: (DeviceId, &[u8; 32]),
    ) -> Result<(), SignatureError> {
        let signature = Signature::from_slice(signature).map_err(|_| SignatureError)?;
        PublicKey::new(*public_key).verify(proof(peer, me), &signature).map_err(|_| SignatureError)
    }
}
