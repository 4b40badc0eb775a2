//! A bundle as a stream: read record by record, its structure, check sums and chains verified.
//!
//! Knows nothing of a database; `import` and `inspect` say what to do with what comes.

use std::io::{self, Read};

use packmule_core::model::{DeviceId, Stream, WallMs};
use packmule_core::wire::{
    Block, Certificate, Chain, Checkpoint, DecodeError, DefReader, Footer, Frame, GroupDigest, Header,
    HeaderReader, MAGIC, RECORD_HEAD_LEN, RecordHead, RecordKind, Section, VectorEntry, take,
};
use sha2::{Digest, Sha256};

use super::error::{BundleProblem, Error, Result};

/// Reads a bundle; holds one record in memory.
pub(crate) struct BundleReader<R> {
    input: R,
    offset: u64,
    hash: Sha256,
    body: Vec<u8>,
    frames: u64,
    state: Expect,
    section: Option<Section>,
    group: Option<Open>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Expect {
    Magic,
    Header,
    Records,
    Nothing,
}

/// A group whose checkpoint has not come yet.
#[derive(Clone)]
struct Open {
    first: u64,
    next: u64,
    digest: GroupDigest,
}

/// What comes next in a bundle.
pub(crate) enum Item<'a> {
    Header(HeaderReader<'a>),
    Certificate(Certificate<'a>, &'a [u8]),
    /// A frame, checked; whether it is its author's, the checkpoint after it says.
    Frame(Section, Frame<'a>, &'a [u8]),
    /// A checkpoint that fits the frames before it, its bytes, and the chain at its end. The
    /// signature is for the caller to check.
    Checkpoint(Checkpoint, &'a [u8], Chain),
    End,
    /// Of a snapshot: a row of what its maker has.
    State(&'a [u8]),
    /// Of a snapshot: a part of a large value of the next row.
    Part(&'a [u8]),
    /// The end of a snapshot: its maker's signature, and what it is over.
    Seal([u8; 64], [u8; 32]),
}

impl<R: Read> BundleReader<R> {
    pub(crate) fn new(input: R) -> Self {
        Self {
            input,
            offset: 0,
            hash: Sha256::new(),
            body: Vec::new(),
            frames: 0,
            state: Expect::Magic,
            section: None,
            group: None,
        }
    }

    /// How many bytes have been read.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    fn fill(&mut self, len: usize) -> Result<()> {
        self.body.resize(len, 0);
        self.input.read_exact(&mut self.body).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => Error::bundle(self.offset, DecodeError::Short),
            _ => Error::Stream(e),
        })
    }

    fn begin(&mut self) -> Result<()> {
        let mut magic = Vec::new();
        (&mut self.input).take(MAGIC.len() as u64).read_to_end(&mut magic).map_err(Error::Stream)?;
        if magic.is_empty() {
            return Err(Error::bundle(0, BundleProblem::Empty));
        }
        if magic != MAGIC {
            let cut = MAGIC.starts_with(&magic);
            return Err(Error::bundle(
                0,
                if cut { DecodeError::Short.into() } else { BundleProblem::NotABundle },
            ));
        }
        self.hash.update(MAGIC);
        self.offset = MAGIC.len() as u64;
        self.state = Expect::Header;
        Ok(())
    }

    /// The next item; after [`Item::End`] there is none.
    pub(crate) fn next_item(&mut self) -> Result<Item<'_>> {
        if self.state == Expect::Magic {
            self.begin()?;
        }
        loop {
            let at = self.offset;
            let refuse = |what| Error::bundle(at, BundleProblem::Structure(what));
            let decode = |e: DecodeError| Error::bundle(at, e);
            let mut head = [0; RECORD_HEAD_LEN];
            self.fill(RECORD_HEAD_LEN)?;
            head.copy_from_slice(&self.body);
            let record = RecordHead::parse(&head).map_err(decode)?;
            self.fill(record.len as usize)?;
            let before = self.hash.clone();
            self.hash.update(head);
            self.hash.update(&self.body);
            self.offset += (RECORD_HEAD_LEN + self.body.len()) as u64;
            let expected = match self.state {
                Expect::Header => record.kind == RecordKind::Header,
                Expect::Records => !matches!(record.kind, RecordKind::Header | RecordKind::Message),
                _ => false,
            };
            if !expected {
                return Err(refuse("a record where none can be"));
            }
            self.state = Expect::Records;
            // A second borrow of the body, so that a section can be passed over.
            if record.kind == RecordKind::Section {
                let mut body = record.check(&self.body).map_err(decode)?;
                if self.group.is_some() {
                    return Err(refuse("a group without its checkpoint"));
                }
                self.section = Some(take(&mut body).map_err(decode)?);
                continue;
            }
            let body = record.check(&self.body).map_err(decode)?;
            return match record.kind {
                RecordKind::Header => Ok(Item::Header(HeaderReader::parse(body).map_err(decode)?)),
                RecordKind::Certificate => {
                    Ok(Item::Certificate(Certificate::decode(body).map_err(decode)?, body))
                }
                RecordKind::Frame => {
                    let section = self.section.ok_or_else(|| refuse("a frame of nobody"))?;
                    let frame = Frame::parse(body).map_err(decode)?;
                    self.frames += 1;
                    let seq = frame.head.seq;
                    let group = self.group.get_or_insert_with(|| Open {
                        first: seq,
                        next: seq,
                        digest: GroupDigest::default(),
                    });
                    if seq != group.next || frame.group.is_some() != (seq == group.first) {
                        return Err(refuse("frames out of their order"));
                    }
                    group.next = seq + 1;
                    group.digest.add(body);
                    Ok(Item::Frame(section, frame, body))
                }
                RecordKind::Checkpoint => {
                    let section = self.section.ok_or_else(|| refuse("a checkpoint of nobody"))?;
                    let group = self.group.take().ok_or_else(|| refuse("a checkpoint without frames"))?;
                    let checkpoint = Checkpoint::decode(body).map_err(decode)?;
                    if (checkpoint.author, checkpoint.stream, checkpoint.first, checkpoint.last)
                        != (section.author, section.stream, group.first, group.next - 1)
                    {
                        return Err(refuse("a checkpoint that does not fit its frames"));
                    }
                    let end = checkpoint.prev.after(&group.digest.finish());
                    Ok(Item::Checkpoint(checkpoint, body, end))
                }
                RecordKind::Footer => {
                    let mut body = body;
                    let footer: Footer = take(&mut body).map_err(decode)?;
                    let sha256: [u8; 32] = before.finalize().into();
                    if self.group.is_some() || footer.frames != self.frames || footer.sha256 != sha256 {
                        return Err(refuse("a footer that does not fit"));
                    }
                    let mut more = [0];
                    if self.input.read(&mut more).map_err(Error::Stream)? != 0 {
                        return Err(refuse("bytes after its end"));
                    }
                    self.state = Expect::Nothing;
                    Ok(Item::End)
                }
                RecordKind::State => Ok(Item::State(body)),
                RecordKind::Part => Ok(Item::Part(body)),
                RecordKind::Seal => {
                    let signature =
                        <[u8; 64]>::try_from(body).map_err(|_| refuse("a seal of another length"))?;
                    let mut more = [0];
                    if self.group.is_some() || self.input.read(&mut more).map_err(Error::Stream)? != 0 {
                        return Err(refuse("bytes after its end"));
                    }
                    self.state = Expect::Nothing;
                    Ok(Item::Seal(signature, before.finalize().into()))
                }
                RecordKind::Section | RecordKind::Message => Err(refuse("a record where none can be")),
            };
        }
    }
}

/// A header, kept until its signer's key is known.
pub(crate) struct HeaderCheck {
    pub sender: DeviceId,
    bytes: Vec<u8>,
}

impl HeaderCheck {
    pub(crate) fn of(header: &HeaderReader<'_>) -> Self {
        Self { sender: header.header.sender, bytes: header.bytes().to_vec() }
    }

    pub(crate) fn verify(&self, key: &[u8; 32]) -> bool {
        HeaderReader::parse(&self.bytes).is_ok_and(|header| header.verify(key).is_ok())
    }
}

/// What a bundle says of itself.
#[derive(Clone, Debug, Default)]
pub struct BundleInfo {
    /// Who made it.
    pub sender: Option<DeviceId>,
    /// For whom, if for one device.
    pub receiver: Option<DeviceId>,
    /// When, by the sender's clock.
    pub wall: WallMs,
    /// What the sender had when it made it.
    pub vector: Vec<VectorEntry>,
    /// The header's signature is that of the sender's certificate in the bundle; `None` if it has none.
    pub signed: Option<bool>,
    /// The devices whose certificates are in it: id, name, base, vouched for by a fleet.
    pub devices: Vec<(DeviceId, String, bool, bool)>,
    /// The groups of frames.
    pub groups: Vec<GroupInfo>,
    /// Of a snapshot: rows of what its maker had.
    pub state_rows: u64,
    /// Bytes in all.
    pub bytes: u64,
}

/// A group of frames in a bundle.
#[derive(Clone, Debug)]
pub struct GroupInfo {
    /// Who wrote it.
    pub author: DeviceId,
    /// In which of its streams.
    pub stream: Stream,
    /// The first frame.
    pub first: u64,
    /// The last frame.
    pub last: u64,
    /// The author's stamp.
    pub lamport: u64,
    /// When it was sealed, by the author's clock.
    pub wall: WallMs,
    /// Bytes of frames.
    pub bytes: u64,
    /// Tables that are defined in it.
    pub tables: Vec<String>,
    /// The signature is that of the certificate in the bundle; `None` if there is no certificate.
    pub signed: Option<bool>,
}

/// Shows what is in a bundle and checks all that can be checked without a database.
///
/// # Errors
/// [`Error::Bundle`] if it is damaged, [`Error::Stream`] if it cannot be read.
pub fn inspect(input: impl Read) -> Result<BundleInfo> {
    let mut reader = BundleReader::new(input);
    let mut info = BundleInfo::default();
    let mut keys = std::collections::HashMap::new();
    let mut open: Option<GroupInfo> = None;
    let mut check = None;
    loop {
        let at = reader.offset();
        match reader.next_item()? {
            Item::Header(header) => {
                let Header { sender, receiver, wall, .. } = header.header;
                (info.sender, info.receiver, info.wall) = (Some(sender), receiver, wall);
                // Of the receiver's own streams earlier places come before.
                for entry in header.vector() {
                    info.vector
                        .retain(|e: &VectorEntry| (e.author, e.stream) != (entry.author, entry.stream));
                    info.vector.push(entry);
                }
                check = Some(HeaderCheck::of(&header));
            }
            Item::Certificate(certificate, _) => {
                let id = certificate.device();
                keys.insert(id, certificate.public_key);
                info.devices.push((
                    id,
                    certificate.name.into(),
                    certificate.base,
                    certificate.fleet.is_some(),
                ));
            }
            Item::Frame(section, frame, bytes) => {
                let group = open.get_or_insert_with(|| GroupInfo {
                    author: section.author,
                    stream: section.stream,
                    first: frame.head.seq,
                    last: frame.head.seq,
                    lamport: frame.group.map_or(0, |g| g.lamport),
                    wall: frame.group.map_or(0, |g| g.wall),
                    bytes: 0,
                    tables: Vec::new(),
                    signed: None,
                });
                group.bytes += bytes.len() as u64;
                // Definitions come before the rows; those after rows are not looked for.
                let mut blocks = frame.blocks();
                while let Some(Block::Def(body)) = blocks.next_block().map_err(|e| Error::bundle(at, e))? {
                    let def = DefReader::new(body).map_err(|e| Error::bundle(at, e))?;
                    group.tables.push(def.head.name.into());
                }
            }
            Item::Checkpoint(checkpoint, _, end) => {
                if let Some(mut group) = open.take() {
                    group.last = checkpoint.last;
                    group.signed =
                        keys.get(&checkpoint.author).map(|key| checkpoint.verify(key, &end).is_ok());
                    info.groups.push(group);
                }
            }
            Item::State(_) => info.state_rows += 1,
            Item::Part(_) => {}
            Item::Seal(signature, digest) => {
                let key = info.sender.and_then(|maker| keys.get(&maker));
                let good = key.is_some_and(|key| super::snapshot::is_sealed_by(key, &signature, &digest));
                if !good {
                    return Err(Error::bundle(at, BundleProblem::Signature("its maker".into())));
                }
                info.bytes = reader.offset();
                return Ok(info);
            }
            Item::End => {
                info.bytes = reader.offset();
                info.signed = check.and_then(|check| Some(check.verify(keys.get(&check.sender)?)));
                return Ok(info);
            }
        }
    }
}
