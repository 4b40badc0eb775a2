//! Writing an encrypted bundle, with one chunk in memory.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, Write};

use packmule_core::model::DeviceId;
use sha2::{Digest, Sha256};

use crate::engine::store::cipher::{
    self, CHUNK, CONTAINER_VERSION, Cipher, ENCRYPTED_MAGIC, PASSPHRASE_SLOT, Random, Reader, SLOT, TAG,
    TO_DEVICES, TO_PASSPHRASE,
};

/// Who can read an encrypted bundle: devices, or whoever has a passphrase.
#[derive(Clone)]
pub struct Readers {
    pub(crate) who: Who,
    pub(crate) random: Random,
}

/// Who can read an encrypted bundle.
#[derive(Clone)]
pub(crate) enum Who {
    Devices(Vec<Reader>),
    Passphrase(Vec<u8>),
}

impl fmt::Debug for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.who {
            Who::Devices(devices) => f.debug_set().entries(devices.iter().map(|device| device.id)).finish(),
            Who::Passphrase(_) => f.write_str("who has the passphrase"),
        }
    }
}

impl Readers {
    /// Returns the devices; none where it is a passphrase.
    pub fn devices(&self) -> BTreeSet<DeviceId> {
        match &self.who {
            Who::Devices(devices) => devices.iter().map(|device| device.id).collect(),
            Who::Passphrase(_) => BTreeSet::new(),
        }
    }

    /// Returns how many bytes a bundle can have so that the file has no more than `most`.
    pub(crate) fn room_in(&self, most: u64) -> u64 {
        let (head, list) = match &self.who {
            Who::Devices(devices) => {
                (12 + 32 + cipher::slots_for(devices.len()) * SLOT, 2 + 16 * devices.len())
            }
            Who::Passphrase(_) => (10 + PASSPHRASE_SLOT, 2),
        };
        let body = most.saturating_sub(head as u64);
        let (chunk, tag) = (CHUNK as u64, TAG as u64);
        let (full, rest) = (body / (chunk + tag), body % (chunk + tag));
        (full * chunk + rest.saturating_sub(tag)).saturating_sub(list as u64)
    }
}

/// Encrypts what is written to it. Without [`Encrypting::finish`] it is a bundle that was not written to its end.
pub struct Encrypting<W> {
    to: W,
    cipher: Cipher,
    chunk: Vec<u8>,
    number: u64,
}

impl<W: Write> Encrypting<W> {
    /// Begins an encrypted bundle that these can read.
    ///
    /// # Errors
    /// What writing to `to` returns; that of the source of random numbers; [`io::ErrorKind::InvalidInput`] for more than
    /// 16,384 devices.
    pub fn new(mut to: W, readers: &Readers) -> io::Result<Self> {
        let mut file_key = [0; 32];
        (readers.random)(&mut file_key)?;
        let mut head = ENCRYPTED_MAGIC.to_vec();
        head.push(CONTAINER_VERSION);
        let mut list = Vec::new();
        match &readers.who {
            Who::Devices(devices) => {
                let slots = cipher::slots_for(devices.len());
                if slots > cipher::SLOTS_MAX {
                    return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is for too many devices"));
                }
                let (ephemeral, wrapped) = cipher::device_slots(devices, &file_key, readers.random)?;
                head.push(TO_DEVICES);
                head.extend_from_slice(&(slots as u16).to_le_bytes());
                head.extend_from_slice(&ephemeral);
                head.extend_from_slice(&wrapped);
                list.extend_from_slice(&(devices.len() as u16).to_le_bytes());
                devices.iter().for_each(|device| list.extend_from_slice(&device.id.0));
            }
            Who::Passphrase(passphrase) => {
                head.push(TO_PASSPHRASE);
                head.extend_from_slice(&cipher::wrap_by_passphrase(&file_key, passphrase, readers.random)?);
                list.extend_from_slice(&[0, 0]);
            }
        }
        to.write_all(&head)?;
        let cipher = Cipher::new(&cipher::chunk_key(&file_key, Sha256::new_with_prefix(&head)));
        let mut begun = Self { to, cipher, chunk: Vec::with_capacity(CHUNK + TAG), number: 0 };
        begun.write_all(&list)?;
        Ok(begun)
    }

    /// Returns what the encrypted bytes are written to.
    pub fn inner(&mut self) -> &mut W {
        &mut self.to
    }

    /// Writes the last chunk. Nothing is flushed, and nothing may be written afterwards.
    ///
    /// # Errors
    /// Those of writing.
    pub fn finish(&mut self) -> io::Result<()> {
        self.write_chunk(true)
    }

    /// Gives up, and returns what was written to.
    pub(crate) fn give_up(self) -> W {
        self.to
    }

    fn write_chunk(&mut self, last: bool) -> io::Result<()> {
        let tag = self.cipher.seal(self.number, last, &mut self.chunk)?;
        self.chunk.extend_from_slice(&tag);
        self.number += 1;
        let written = self.to.write_all(&self.chunk);
        self.chunk.clear();
        written
    }
}

impl<W: Write> Write for Encrypting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A full chunk waits until more comes: it may be the last.
        if self.chunk.len() == CHUNK && !bytes.is_empty() {
            self.write_chunk(false)?;
        }
        let n = bytes.len().min(CHUNK - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..n]);
        Ok(n)
    }

    /// Flushes the chunks that are full; what is in an open chunk stays in memory.
    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}
