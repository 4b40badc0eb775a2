//! What encrypts bundles, and the fleet key where it has a passphrase: keys, slots, chunks. The page
//! [`encrypted`](crate::docs::encrypted) has the format byte by byte, and why it is so.

use std::io;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use chacha20poly1305::{AeadInOut, ChaCha20Poly1305, Key, KeyInit, Nonce, Tag};
use ed25519_compact::x25519;
use ed25519_compact::{PublicKey, SecretKey};
use packmule_core::model::DeviceId;
use sha2::{Digest, Sha256};

use crate::engine::error::{BundleProblem, Error};

/// The first 8 bytes of an encrypted bundle.
pub const ENCRYPTED_MAGIC: [u8; 8] = *b"\x89PKE\r\n\x1a\n";

/// The version of the container that is written, and the only one that is read.
pub(crate) const CONTAINER_VERSION: u8 = 1;

/// The kinds of containers: to devices' keys, and to a passphrase.
pub(crate) const TO_DEVICES: u8 = 0;
pub(crate) const TO_PASSPHRASE: u8 = 1;

/// The bytes of plaintext in each chunk but the last, which has as many or fewer.
pub(crate) const CHUNK: usize = 1 << 16;

/// The bytes by which a chunk gets longer.
pub(crate) const TAG: usize = 16;

/// The bytes of a slot: an encrypted file key.
pub(crate) const SLOT: usize = 32 + TAG;

/// There are at least so many slots of devices, and a power of two: how many devices there are shows only roughly.
const SLOTS_MIN: usize = 4;

/// No container with more slots is written or read.
pub(crate) const SLOTS_MAX: usize = 1 << 14;

/// The bytes of a secret under a passphrase: salt, memory, passes, slot.
pub(crate) const PASSPHRASE_SLOT: usize = 16 + 4 + 4 + SLOT;

/// What argon2id is to cost: 12 MiB and three passes, so that a board with 40 MB for a program can read it.
const MEMORY_KIB: u32 = 12 << 10;
const PASSES: u32 = 3;

/// What a container can ask for at most.
const MEMORY_KIB_MAX: u32 = 64 << 10;
const PASSES_MAX: u32 = 16;

/// A source of random numbers.
pub(crate) type Random = fn(&mut [u8; 32]) -> io::Result<()>;

/// A device that can read an encrypted bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Reader {
    pub id: DeviceId,
    /// Its public key for the key agreement.
    pub key: [u8; 32],
}

impl Reader {
    /// Makes a reader of a device's public key; `None` if no key agreement is possible with it, which no device makes.
    pub(crate) fn of(public_key: [u8; 32]) -> Option<Self> {
        let key = x25519::PublicKey::from_ed25519(&PublicKey::new(public_key)).ok()?;
        Some(Self { id: DeviceId::of_key(&public_key), key: *key })
    }
}

/// Fills bytes from a source of random numbers.
pub(crate) fn fill(random: Random, bytes: &mut [u8]) -> io::Result<()> {
    for part in bytes.chunks_mut(32) {
        let mut drawn = [0; 32];
        random(&mut drawn)?;
        part.copy_from_slice(&drawn[..part.len()]);
    }
    Ok(())
}

/// Returns how many slots there are for so many devices.
pub(crate) fn slots_for(readers: usize) -> usize {
    readers.next_power_of_two().max(SLOTS_MIN)
}

/// Returns the public half of a key that is drawn for one file, and wraps the file key for each reader. What is left of
/// the slots is random.
pub(crate) fn device_slots(
    readers: &[Reader],
    file_key: &[u8; 32],
    random: Random,
) -> io::Result<([u8; 32], Vec<u8>)> {
    let mut drawn = [0; 32];
    random(&mut drawn)?;
    let weak = |_| io::Error::other("a key with which no agreement is possible");
    let ephemeral = x25519::SecretKey::new(drawn);
    let public = *ephemeral.recover_public_key().map_err(weak)?;
    let mut slots = vec![0; slots_for(readers.len()) * SLOT];
    fill(random, &mut slots)?;
    for (slot, reader) in slots.chunks_exact_mut(SLOT).zip(readers) {
        let shared = x25519::PublicKey::new(reader.key).dh(&ephemeral).map_err(weak)?;
        let key = derive(b"packmule/1 device slot", &[&public, &reader.key, &shared[..]]);
        fill_slot(&key, file_key, slot)?;
    }
    Ok((public, slots))
}

/// Encrypts a secret into a slot.
fn fill_slot(key: &[u8; 32], secret: &[u8; 32], slot: &mut [u8]) -> io::Result<()> {
    let (bytes, tag) = slot.split_at_mut(32);
    bytes.copy_from_slice(secret);
    tag.copy_from_slice(&Cipher::new(key).seal(0, true, bytes)?);
    Ok(())
}

/// Returns the key that opens this device's slot in a file with this ephemeral key.
pub(crate) fn slot_key(device: &SecretKey, ephemeral: [u8; 32]) -> Option<[u8; 32]> {
    let secret = x25519::SecretKey::from_ed25519(device).ok()?;
    let own = Reader::of(*device.public_key())?;
    let shared = x25519::PublicKey::new(ephemeral).dh(&secret).ok()?;
    Some(derive(b"packmule/1 device slot", &[&ephemeral, &own.key, &shared[..]]))
}

/// Returns the file key that is in a slot, if this key opens it.
pub(crate) fn open_slot(key: &[u8; 32], slot: &[u8]) -> Option<[u8; 32]> {
    let (mut secret, mut tag) = ([0; 32], [0; TAG]);
    if slot.len() != SLOT {
        return None;
    }
    secret.copy_from_slice(&slot[..32]);
    tag.copy_from_slice(&slot[32..]);
    Cipher::new(key).open(0, true, &mut secret, &tag).then_some(secret)
}

/// Wraps a secret under a passphrase.
pub(crate) fn wrap_by_passphrase(
    secret: &[u8; 32],
    passphrase: &[u8],
    random: Random,
) -> io::Result<[u8; PASSPHRASE_SLOT]> {
    let mut wrapped = [0; PASSPHRASE_SLOT];
    fill(random, &mut wrapped[..16])?;
    wrapped[16..20].copy_from_slice(&MEMORY_KIB.to_le_bytes());
    wrapped[20..24].copy_from_slice(&PASSES.to_le_bytes());
    let key = passphrase_key(passphrase, &wrapped[..16], (MEMORY_KIB, PASSES))?;
    fill_slot(&key, secret, &mut wrapped[24..])?;
    Ok(wrapped)
}

/// Why a passphrase opened nothing.
#[derive(Debug)]
pub(crate) enum NotOpened {
    /// It is another one, or the bytes were altered.
    Wrong,
    /// The bytes ask for more memory or passes than is allowed, or for none.
    Costs,
    /// There is not enough memory.
    Memory(io::Error),
}

/// Returns the secret that was wrapped under a passphrase.
pub(crate) fn unwrap_by_passphrase(
    wrapped: &[u8; PASSPHRASE_SLOT],
    passphrase: &[u8],
) -> std::result::Result<[u8; 32], NotOpened> {
    let number =
        |at: usize| u32::from_le_bytes([wrapped[at], wrapped[at + 1], wrapped[at + 2], wrapped[at + 3]]);
    let (memory, passes) = (number(16), number(20));
    if !(8..=MEMORY_KIB_MAX).contains(&memory) || !(1..=PASSES_MAX).contains(&passes) {
        return Err(NotOpened::Costs);
    }
    let key = passphrase_key(passphrase, &wrapped[..16], (memory, passes)).map_err(NotOpened::Memory)?;
    open_slot(&key, &wrapped[24..]).ok_or(NotOpened::Wrong)
}

/// Makes a key of a passphrase by argon2id.
fn passphrase_key(passphrase: &[u8], salt: &[u8], (memory, passes): (u32, u32)) -> io::Result<[u8; 32]> {
    let params = Params::new(memory, passes, 1, Some(32)).map_err(io::Error::other)?;
    let mut blocks: Vec<Block> = Vec::new();
    // Not by the allocator's own end of the program: a small board is told what was missing.
    blocks.try_reserve_exact(params.block_count()).map_err(|_| {
        io::Error::new(
            io::ErrorKind::OutOfMemory,
            format!("a passphrase takes {} MiB of memory, which are not free", memory >> 10),
        )
    })?;
    blocks.resize(params.block_count(), Block::new());
    let mut key = [0; 32];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into_with_memory(passphrase, salt, &mut key, &mut blocks[..])
        .map_err(io::Error::other)?;
    Ok(key)
}

/// Returns the key of the chunks: of the file key, and of all bytes before the first chunk, so that none of them can be
/// changed.
pub(crate) fn chunk_key(file_key: &[u8; 32], head: Sha256) -> [u8; 32] {
    derive(b"packmule/1 bundle body", &[file_key, &head.finalize()[..]])
}

fn derive(domain: &[u8; 22], parts: &[&[u8]]) -> [u8; 32] {
    let hash = parts.iter().fold(Sha256::new_with_prefix(domain), |hash, part| hash.chain_update(part));
    hash.finalize().into()
}

/// Encrypts and decrypts chunks.
pub(crate) struct Cipher(ChaCha20Poly1305);

impl Cipher {
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        Self(ChaCha20Poly1305::new(&Key::from(*key)))
    }

    /// Encrypts a chunk in its place; returns its tag.
    pub(crate) fn seal(&self, number: u64, last: bool, chunk: &mut [u8]) -> io::Result<[u8; TAG]> {
        let sealed = self.0.encrypt_inout_detached(&nonce(number, last), &[], chunk.into());
        Ok(sealed.map_err(|_| io::Error::other("a chunk could not be encrypted"))?.into())
    }

    /// Decrypts a chunk in its place. Returns whether it is the one that was encrypted.
    #[must_use]
    pub(crate) fn open(&self, number: u64, last: bool, chunk: &mut [u8], tag: &[u8; TAG]) -> bool {
        self.0.decrypt_inout_detached(&nonce(number, last), &[], chunk.into(), &Tag::from(*tag)).is_ok()
    }
}

/// The number of a chunk, and whether it is the last: chunks cannot be taken away, added or exchanged.
fn nonce(number: u64, last: bool) -> Nonce {
    let mut nonce = [0; 12];
    nonce[..8].copy_from_slice(&number.to_le_bytes());
    nonce[11] = last.into();
    nonce.into()
}

/// Says why a bundle under a passphrase was not opened.
pub(crate) fn not_opened(why: NotOpened) -> Box<Error> {
    match why {
        NotOpened::Wrong => Error::bundle(0, BundleProblem::WrongPassphrase),
        NotOpened::Costs => {
            let what = "it asks for more memory or time than a passphrase can take";
            Error::bundle(0, BundleProblem::Structure(what))
        }
        NotOpened::Memory(e) => Error::Stream(e).into(),
    }
}
