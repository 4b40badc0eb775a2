//! What two ends of a session send each other besides frames. See `FORMAT.md`, "Session".

use ed25519_compact::{Noise, PublicKey, SecretKey, Signature};
use serde::{Deserialize, Serialize};

use super::{COUNT_MAX, DecodeError, NoRoom, SignatureError, joined, put, take};
use crate::model::{DeviceId, Stream};

/// The highest version of the session that this build speaks. Since 2 a peer that lacks what is folded is offered the
/// state, and hears before the proof which fleet keys follow which. Since 3 a peer that was set back is shown its own newest
/// checkpoints.
pub const SESSION_VERSION: u8 = 3;
/// The lowest version of the session that this build speaks.
pub const SESSION_VERSION_MIN: u8 = 1;
/// A [`Message::Chunk`] has at most so many bytes of a state.
pub const CHUNK_MAX: usize = 4_096;

/// Encodes what stands before the `len` bytes of a [`Message::Chunk`], for who has them elsewhere. Returns its length.
///
/// # Errors
/// [`NoRoom`].
pub fn begin_chunk(buf: &mut [u8], len: usize) -> Result<usize, NoRoom> {
    let (kind, rest) = buf.split_first_mut().ok_or(NoRoom)?;
    *kind = CHUNK;
    Ok(1 + put(rest, &(len as u64))?)
}

/// The number of a [`Message::Chunk`].
const CHUNK: u8 = 12;

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
    /// It has as many sessions as it takes: a later one gets further.
    Busy,
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
    /// The peer lacks frames that are folded here: it can go on from a state alone, which this session does not bring.
    Behind,
    /// The peer lacks frames that are folded here: the state of the shared tables is ready for it.
    Offer(Offer),
    /// It takes the state that was offered, from this byte on: it has those before.
    Want(u64),
    /// It cannot take the state that was offered.
    Decline,
    /// The next bytes of the state, at most [`CHUNK_MAX`].
    Chunk(&'a [u8]),
    /// It has taken in the state, durably.
    Took,
    /// A fleet key follows another one: the [`super::Certificate`] that says so. It comes before the proof, whose device
    /// the new key may have signed.
    Follows(&'a [u8]),
}

/// A state of the shared tables, as a bundle of so many bytes. The same hash means the same bytes, so that a transfer
/// goes on where it broke off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Offer {
    /// SHA-256 of the bundle.
    pub sha256: [u8; 32],
    /// Its length in bytes.
    pub bytes: u64,
    /// How many rows it has: for people who watch.
    pub rows: u64,
}

const PROOF_LEN: usize = 18 + 2 * 16 + 2 * 32;

fn proof(signer: (DeviceId, &[u8; 32]), other: (DeviceId, &[u8; 32])) -> [u8; PROOF_LEN] {
    joined(&[&b"packmule/1 session"[..], &signer.0.0, &other.0.0, signer.1, other.1])
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
        match message {
            Self::Offer(Offer { bytes: count, .. }) | Self::Want(count) if count > COUNT_MAX => {
                Err(DecodeError::Malformed("a count out of its range"))
            }
            Self::Chunk(bytes) if bytes.is_empty() || bytes.len() > CHUNK_MAX => {
                Err(DecodeError::Malformed("a chunk of another length"))
            }
            message => Ok(message),
        }
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
