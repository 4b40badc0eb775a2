//! A bundle as a stream: read record by record, its structure, check sums and chains verified.
//!
//! Knows nothing of a database; `import` and `inspect` say what to do with what comes.

use std::io::{self, Read};

use packmule_core::model::DeviceId;
use packmule_core::wire::{
    Certificate, Chain, Checkpoint, DecodeError, Footer, Frame, GroupDigest, HeaderReader, MAGIC,
    RECORD_HEAD_LEN, RecordHead, RecordKind, Section, take,
};
use sha2::{Digest, Sha256};

use crate::engine::error::{BundleProblem, Error, Result};

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
