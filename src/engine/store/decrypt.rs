//! Reading a bundle that may be encrypted, with one chunk in memory.
//!
//! A bundle is read twice before anything of it is taken in for good. It is decrypted both times: a decrypted copy
//! would have to lie on the disk.

use std::collections::BTreeSet;
use std::io::{self, Read, Seek, SeekFrom};

use ed25519_compact::SecretKey;
use packmule_core::model::DeviceId;
use packmule_core::wire::DecodeError;
use sha2::{Digest, Sha256};

use crate::engine::error::{BundleProblem, Error, Result};
use crate::engine::store::cipher::{
    self, CHUNK, CONTAINER_VERSION, Cipher, ENCRYPTED_MAGIC, PASSPHRASE_SLOT, SLOT, SLOTS_MAX, TAG,
    TO_DEVICES, TO_PASSPHRASE,
};

/// How a bundle is encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Encryption {
    /// To these devices.
    Devices(BTreeSet<DeviceId>),
    /// To a passphrase.
    Passphrase,
}

/// A bundle that is read as if it were not encrypted, whether or not it is.
pub struct BundleFile<R> {
    file: R,
    body: Option<Body>,
}

/// The encrypted part of a file.
struct Body {
    cipher: Cipher,
    encryption: Encryption,
    /// Where the first chunk begins.
    begin: u64,
    /// How many chunks there are, and how many bytes the last one has, without its tag.
    chunks: u64,
    last_len: usize,
    /// Where the bundle begins in what is decrypted.
    skip: u64,
    /// Where is read next in what is decrypted.
    at: u64,
    /// The chunk that is in memory, by its number, decrypted.
    number: Option<u64>,
    chunk: Vec<u8>,
}

impl<R: Read + Seek> BundleFile<R> {
    /// Opens a bundle with the key of a device, or with a passphrase. Of an encrypted one only the head and the first
    /// chunk are verified.
    ///
    /// # Errors
    /// [`Error::Bundle`] if no key that is given opens it, or it is cut short or damaged; [`Error::Stream`] if it cannot be
    /// read, or for too little memory.
    pub(crate) fn open(mut file: R, device: Option<&SecretKey>, passphrase: Option<&[u8]>) -> Result<Self> {
        file.rewind().map_err(Error::Stream)?;
        let mut magic = Vec::new();
        (&mut file).take(ENCRYPTED_MAGIC.len() as u64).read_to_end(&mut magic).map_err(Error::Stream)?;
        if magic != ENCRYPTED_MAGIC {
            file.rewind().map_err(Error::Stream)?;
            return Ok(Self { file, body: None });
        }
        let mut head = Head { file: &mut file, hash: Sha256::new_with_prefix(magic), len: 8 };
        let [version, kind] = head.next_bytes()?;
        if version != CONTAINER_VERSION {
            return Err(Error::bundle(8, DecodeError::Version(version.into())));
        }
        let (file_key, encryption) = match kind {
            TO_DEVICES => (head.device_slots(device)?, Encryption::Devices(BTreeSet::new())),
            TO_PASSPHRASE => (head.passphrase_slot(passphrase)?, Encryption::Passphrase),
            _ => {
                return Err(Error::bundle(
                    9,
                    DecodeError::Malformed("a container of a kind that is not known"),
                ));
            }
        };
        let (begin, hash) = (head.len, head.hash);
        let end = file.seek(SeekFrom::End(0)).map_err(Error::Stream)?;
        let whole = (CHUNK + TAG) as u64;
        let (len, tag) = (end.saturating_sub(begin), TAG as u64);
        let chunks = len.div_ceil(whole).max(1);
        let last_len = (len - (chunks - 1) * whole).checked_sub(tag);
        let last_len = last_len.ok_or_else(|| Error::bundle(begin, DecodeError::Short))?;
        let cipher = Cipher::new(&cipher::chunk_key(&file_key, hash));
        let body = Body {
            cipher,
            encryption,
            begin,
            chunks,
            last_len: last_len as usize,
            skip: 0,
            at: 0,
            number: None,
            chunk: Vec::with_capacity(CHUNK),
        };
        let mut opened = Self { file, body: Some(body) };
        opened.read_devices()?;
        Ok(opened)
    }

    /// Returns how it is encrypted; `None` if it is not.
    pub fn encryption(&self) -> Option<&Encryption> {
        self.body.as_ref().map(|body| &body.encryption)
    }

    /// Reads for which devices it is, which stands before the bundle.
    fn read_devices(&mut self) -> Result<()> {
        let mut devices = BTreeSet::new();
        let mut count = [0; 2];
        let begin = self.body.as_ref().map_or(0, |body| body.begin);
        self.read_exact(&mut count).map_err(|e| Error::reading(begin, e))?;
        for _ in 0..u16::from_le_bytes(count) {
            let mut id = [0; 16];
            self.read_exact(&mut id).map_err(|e| Error::reading(begin, e))?;
            devices.insert(DeviceId(id));
        }
        if let Some(body) = &mut self.body {
            body.skip = body.at;
            if let Encryption::Devices(of) = &mut body.encryption {
                *of = devices;
            }
        }
        Ok(())
    }
}

/// The bytes before the first chunk, of which all count.
struct Head<'r, R> {
    file: &'r mut R,
    hash: Sha256,
    len: u64,
}

impl<R: Read> Head<'_, R> {
    fn next_bytes<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.file.read_exact(&mut bytes).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => Error::bundle(self.len, DecodeError::Short),
            _ => Error::Stream(e).into(),
        })?;
        self.hash.update(bytes);
        self.len += N as u64;
        Ok(bytes)
    }

    /// Finds the file key in the slots of devices: each is tried, for none says whose it is.
    fn device_slots(&mut self, device: Option<&SecretKey>) -> Result<[u8; 32]> {
        let slots = usize::from(u16::from_le_bytes(self.next_bytes()?));
        if slots == 0 || slots > SLOTS_MAX {
            return Err(Error::bundle(
                10,
                DecodeError::Malformed("a container with too many slots, or none"),
            ));
        }
        let ephemeral = self.next_bytes()?;
        let key = device.and_then(|device| cipher::slot_key(device, ephemeral));
        let mut found = None;
        for _ in 0..slots {
            let slot: [u8; SLOT] = self.next_bytes()?;
            if found.is_none() {
                found = key.and_then(|key| cipher::open_slot(&key, &slot));
            }
        }
        let keyless = device.is_none();
        found.ok_or_else(|| Error::bundle(0, BundleProblem::NotForUs { slots: slots as u16, keyless }))
    }

    fn passphrase_slot(&mut self, passphrase: Option<&[u8]>) -> Result<[u8; 32]> {
        let wrapped: [u8; PASSPHRASE_SLOT] = self.next_bytes()?;
        let passphrase = passphrase.ok_or_else(|| Error::bundle(0, BundleProblem::PassphraseNeeded))?;
        cipher::unwrap_by_passphrase(&wrapped, passphrase).map_err(cipher::not_opened)
    }
}

impl Body {
    /// Returns how many bytes the decrypted part has.
    fn len(&self) -> u64 {
        (self.chunks - 1) * CHUNK as u64 + self.last_len as u64
    }

    /// Brings a chunk into memory.
    fn load<R: Read + Seek>(&mut self, file: &mut R, number: u64) -> io::Result<()> {
        if self.number == Some(number) {
            return Ok(());
        }
        self.number = None;
        let last = number + 1 == self.chunks;
        let at = self.begin + number * (CHUNK + TAG) as u64;
        file.seek(SeekFrom::Start(at))?;
        self.chunk.resize(if last { self.last_len } else { CHUNK }, 0);
        let mut tag = [0; TAG];
        let altered = || io::Error::new(io::ErrorKind::InvalidData, BundleProblem::Ciphertext { chunk: at });
        let read = file.read_exact(&mut self.chunk).and_then(|()| file.read_exact(&mut tag));
        read.map_err(|e| if e.kind() == io::ErrorKind::UnexpectedEof { altered() } else { e })?;
        if !self.cipher.open(number, last, &mut self.chunk, &tag) {
            self.chunk.clear();
            return Err(altered());
        }
        self.number = Some(number);
        Ok(())
    }
}

impl<R: Read + Seek> Read for BundleFile<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let Some(body) = &mut self.body else { return self.file.read(bytes) };
        if bytes.is_empty() || body.at >= body.len() {
            return Ok(0);
        }
        let chunk = CHUNK as u64;
        body.load(&mut self.file, body.at / chunk)?;
        let rest = &body.chunk[(body.at % chunk) as usize..];
        let n = rest.len().min(bytes.len());
        bytes[..n].copy_from_slice(&rest[..n]);
        body.at += n as u64;
        Ok(n)
    }
}

impl<R: Read + Seek> Seek for BundleFile<R> {
    /// Moves within the bundle, as it is without its encryption.
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let Some(body) = &mut self.body else { return self.file.seek(to) };
        let outside = || io::Error::new(io::ErrorKind::InvalidInput, "a place before the bundle's beginning");
        let len = body.len() - body.skip;
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => len.checked_add_signed(by),
            SeekFrom::Current(by) => (body.at - body.skip).checked_add_signed(by),
        };
        let at = at.ok_or_else(outside)?;
        body.at = body.skip.saturating_add(at);
        Ok(at)
    }
}
