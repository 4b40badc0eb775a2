//! The hash chain over an author's frames, and the signatures that close groups.
//! See `FORMAT.md`, "Checkpoint".

use core::fmt;

use ed25519_compact::{Noise, PublicKey, SecretKey, Signature};
use sha2::{Digest, Sha256};

use super::{COUNT_MAX, DecodeError, FORMAT_VERSION, NoRoom, check_version, joined, take_bytes};
use crate::model::{DeviceId, Stream};

/// The hash chain of one stream of one author, up to some frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Chain(pub [u8; 32]);

impl Chain {
    /// Returns the chain before the first frame.
    pub fn start(public_key: &[u8; 32], stream: Stream) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"packmule/1 chain");
        hash.update(public_key);
        hash.update([stream.number()]);
        Self(hash.finalize().into())
    }

    /// Returns what a version vector has of the chain, so that two histories are found without a frame of
    /// either; one pair in 2^32 is missed, until frames come.
    pub fn tag(&self) -> [u8; 4] {
        [self.0[0], self.0[1], self.0[2], self.0[3]]
    }

    /// Returns the chain after a group whose frames have this digest.
    #[must_use]
    pub fn after(&self, group: &[u8; 32]) -> Self {
        let mut hash = Sha256::new();
        hash.update(self.0);
        hash.update(group);
        Self(hash.finalize().into())
    }
}

/// The digest over the frames of one group. It does not need the chain before them, which a
/// reader of a stream gets only from the checkpoint after them.
#[derive(Clone, Default)]
pub struct GroupDigest(Sha256);

impl GroupDigest {
    /// Adds the next frame, its CRC included.
    pub fn add(&mut self, frame: &[u8]) {
        self.0.update((frame.len() as u32).to_le_bytes());
        self.0.update(frame);
    }

    /// Returns the digest.
    pub fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

/// The signature is not the author's over these frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct SignatureError;

impl fmt::Display for SignatureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the author's signature does not match the content")
    }
}

impl core::error::Error for SignatureError {}

/// Closes a group of frames: which they are, the chain before them, and the author's signature
/// over the chain after them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Checkpoint {
    /// Who wrote the frames.
    pub author: DeviceId,
    /// The stream that they belong to.
    pub stream: Stream,
    /// The sequence number of the group's first frame.
    pub first: u64,
    /// The sequence number of its last.
    pub last: u64,
    /// The chain before the first.
    pub prev: Chain,
    /// ed25519, 64 bytes.
    pub signature: [u8; 64],
}

/// The encoded length of a checkpoint, in bytes.
pub const CHECKPOINT_LEN: usize = 1 + 1 + 16 + 8 + 8 + 32 + 64;

/// The encoded length of a [`Newest`], in bytes.
pub const NEWEST_LEN: usize = CHECKPOINT_LEN + 32;

const SIGNED_LEN: usize = 21 + 16 + 1 + 8 + 8 + 32 + 32;

impl Checkpoint {
    fn message(&self, end: &Chain) -> [u8; SIGNED_LEN] {
        joined(&[
            &b"packmule/1 checkpoint"[..],
            &self.author.0,
            &[self.stream.number()],
            &self.first.to_le_bytes(),
            &self.last.to_le_bytes(),
            &self.prev.0,
            &end.0,
        ])
    }

    /// Signs a group whose chain goes from `prev` to `end`.
    pub fn sign(
        key: &SecretKey,
        author: DeviceId,
        stream: Stream,
        first: u64,
        last: u64,
        prev: Chain,
        end: &Chain,
    ) -> Self {
        let mut checkpoint = Self { author, stream, first, last, prev, signature: [0; 64] };
        // Without noise the signature is deterministic, as RFC 8032 has it.
        checkpoint.signature = *key.sign(checkpoint.message(end), None::<Noise>);
        checkpoint
    }

    /// Checks the signature, given the chain after the group's frames.
    ///
    /// # Errors
    /// [`SignatureError`] if the author did not sign this.
    pub fn verify(&self, public_key: &[u8; 32], end: &Chain) -> Result<(), SignatureError> {
        PublicKey::new(*public_key)
            .verify(self.message(end), &Signature::new(self.signature))
            .map_err(|_| SignatureError)
    }

    /// Encodes it; returns [`CHECKPOINT_LEN`].
    ///
    /// # Errors
    /// [`NoRoom`] if `buf` is shorter than that.
    pub fn encode(&self, buf: &mut [u8]) -> Result<usize, NoRoom> {
        let buf = buf.get_mut(..CHECKPOINT_LEN).ok_or(NoRoom)?;
        let whole: [u8; CHECKPOINT_LEN] = joined(&[
            &[FORMAT_VERSION, self.stream.number()][..],
            &self.author.0,
            &self.first.to_le_bytes(),
            &self.last.to_le_bytes(),
            &self.prev.0,
            &self.signature,
        ]);
        buf.copy_from_slice(&whole);
        Ok(whole.len())
    }

    /// Decodes it.
    ///
    /// # Errors
    /// [`DecodeError`] if it is not a checkpoint of this version.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        fn array<const N: usize>(input: &mut &[u8]) -> Result<[u8; N], DecodeError> {
            let mut array = [0; N];
            array.copy_from_slice(take_bytes(input, N)?);
            Ok(array)
        }
        let mut rest = bytes;
        check_version(rest, FORMAT_VERSION)?;
        let [_, stream] = array(&mut rest)?;
        let stream =
            Stream::from_number(stream).ok_or(DecodeError::Malformed("a stream of an unknown kind"))?;
        let checkpoint = Self {
            author: DeviceId(array(&mut rest)?),
            stream,
            first: u64::from_le_bytes(array(&mut rest)?),
            last: u64::from_le_bytes(array(&mut rest)?),
            prev: Chain(array(&mut rest)?),
            signature: array(&mut rest)?,
        };
        if !rest.is_empty()
            || checkpoint.first == 0
            || checkpoint.first > checkpoint.last
            || checkpoint.last > COUNT_MAX
        {
            return Err(DecodeError::Malformed("a checkpoint of impossible extent"));
        }
        Ok(checkpoint)
    }
}

/// The newest checkpoint of a stream with the chain after it, without the frames: what proves to the stream's author, who
/// was set back, up to where its log goes elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Newest {
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// The chain after its group, which its signature covers.
    pub end: Chain,
}

impl Newest {
    /// Encodes it; returns [`NEWEST_LEN`].
    ///
    /// # Errors
    /// [`NoRoom`] if `buf` is shorter than that.
    pub fn encode(&self, buf: &mut [u8]) -> Result<usize, NoRoom> {
        let at = self.checkpoint.encode(buf)?;
        buf.get_mut(at..NEWEST_LEN).ok_or(NoRoom)?.copy_from_slice(&self.end.0);
        Ok(NEWEST_LEN)
    }

    /// Decodes it; the signature is not checked yet.
    ///
    /// # Errors
    /// [`DecodeError`] if it is not one of this version.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (checkpoint, end) = bytes.split_last_chunk().ok_or(DecodeError::Short)?;
        Ok(Self { checkpoint: Checkpoint::decode(checkpoint)?, end: Chain(*end) })
    }

    /// Checks the signature.
    ///
    /// # Errors
    /// [`SignatureError`] if the author did not sign this.
    pub fn verify(&self, public_key: &[u8; 32]) -> Result<(), SignatureError> {
        self.checkpoint.verify(public_key, &self.end)
    }
}
