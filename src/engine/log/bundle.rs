//! A bundle as a stream of records, of which structure, check sums and chains are verified.
//!
//! Nothing here knows a database: `import` and `inspect` decide what to do with each item.

use std::io::Read;

use packmule_core::model::DeviceId;
use packmule_core::wire::{
    Certificate, Chain, Checkpoint, DecodeError, Footer, Frame, GroupDigest, HeaderReader, MAGIC,
    RECORD_HEAD_LEN, RecordHead, RecordKind, Revocation, Section, take,
};
use sha2::{Digest, Sha256};

use crate::engine::error::{BundleProblem, Error, Result};
use crate::engine::store::cipher::ENCRYPTED_MAGIC;

/// Reads a bundle, with one record in memory.
pub(crate) struct BundleReader<R> {
    input: R,
    offset: u64,
    hash: Sha256,
    body: Vec<u8>,
    state: Expect,
    groups: Groups,
    /// The first byte of the next record, if it was looked at.
    ahead: Option<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Expect {
    Magic,
    Header,
    Records,
    /// A state has ended: a snapshot does here, a bundle goes on.
    Sealed,
    Nothing,
}

/// A record that was read. Its body is in the reader.
struct Record {
    head: RecordHead,
    /// Where it begins.
    at: u64,
    /// The hash of everything before it.
    before: Sha256,
}

/// An item of a bundle.
pub(crate) enum Item<'a> {
    Header(HeaderReader<'a>),
    Certificate(Certificate<'a>, &'a [u8]),
    /// A fleet's revocation of a device.
    Revocation(Revocation),
    /// The statement that a fleet key follows another one, and its bytes.
    FleetKey(Certificate<'a>, &'a [u8]),
    /// A frame with an intact check sum, and its bytes. Whether it is its author's, the checkpoint after it shows.
    Frame(Section, Frame<'a>, &'a [u8]),
    /// A checkpoint that fits the frames before it, its bytes, and the chain after them. The caller verifies the
    /// signature.
    Checkpoint(Checkpoint, &'a [u8], Chain),
    End,
    /// A row of a state.
    State(&'a [u8]),
    /// A part of a large value of the next such row.
    Part(&'a [u8]),
    /// The end of a state: its maker's signature, and the hash that it is over. A snapshot ends there.
    Seal([u8; 64], [u8; 32]),
}

impl<R: Read> BundleReader<R> {
    /// Begins to read a bundle.
    pub(crate) fn new(input: R) -> Self {
        Self {
            input,
            offset: 0,
            hash: Sha256::new(),
            body: Vec::new(),
            state: Expect::Magic,
            groups: Groups::default(),
            ahead: None,
        }
    }

    /// Returns how many bytes have been read.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Returns the next item; after [`Item::End`] there is none.
    pub(crate) fn next_item(&mut self) -> Result<Item<'_>> {
        self.next_item_knowing(&|_| Ok(false))
    }

    /// Returns the next item, and does not check the signatures of a certificate whose bytes `is_known` has seen
    /// checked before.
    pub(crate) fn next_item_knowing(&mut self, is_known: &dyn Fn(&[u8]) -> Result<bool>) -> Result<Item<'_>> {
        if self.state == Expect::Magic {
            self.begin()?;
        }
        if self.state == Expect::Sealed && self.reached_end()? {
            self.state = Expect::Nothing;
            return Ok(Item::End);
        }
        let mut record = self.next_record()?;
        while record.head.kind == RecordKind::Section {
            let body = record.head.check(&self.body).map_err(|e| Error::bundle(record.at, e))?;
            self.groups.begin_section(body).map_err(|problem| Error::bundle(record.at, problem))?;
            record = self.next_record()?;
        }
        self.interpret(record, is_known)
    }

    /// Reads the magic bytes.
    fn begin(&mut self) -> Result<()> {
        let mut magic = Vec::new();
        let read = (&mut self.input).take(MAGIC.len() as u64).read_to_end(&mut magic);
        read.map_err(|e| Error::reading(0, e))?;
        if magic.is_empty() {
            return Err(Error::bundle(0, BundleProblem::Empty));
        }
        if magic == ENCRYPTED_MAGIC {
            return Err(Error::bundle(0, BundleProblem::Encrypted));
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

    /// Returns whether nothing follows; otherwise keeps the byte that was read.
    fn reached_end(&mut self) -> Result<bool> {
        let mut byte = [0];
        let n = self.input.read(&mut byte).map_err(|e| Error::reading(self.offset, e))?;
        self.ahead = (n > 0).then_some(byte[0]);
        Ok(n == 0)
    }

    /// Reads so many bytes into `body`.
    fn fill(&mut self, len: usize) -> Result<()> {
        self.body.resize(len, 0);
        let ahead = self.ahead.take();
        if let (Some(byte), Some(first)) = (ahead, self.body.first_mut()) {
            *first = byte;
        }
        let read = self.input.read_exact(&mut self.body[usize::from(ahead.is_some())..]);
        read.map_err(|e| Error::reading(self.offset, e))
    }

    /// Reads a record into `body`, and refuses one whose kind cannot stand there.
    fn next_record(&mut self) -> Result<Record> {
        let at = self.offset;
        let mut bytes = [0; RECORD_HEAD_LEN];
        self.fill(RECORD_HEAD_LEN)?;
        bytes.copy_from_slice(&self.body);
        let head = RecordHead::parse(&bytes).map_err(|e| Error::bundle(at, e))?;
        self.fill(head.len as usize)?;
        let before = self.hash.clone();
        self.hash.update(bytes);
        self.hash.update(&self.body);
        self.offset += (RECORD_HEAD_LEN + self.body.len()) as u64;
        let expected = match self.state {
            Expect::Header => head.kind == RecordKind::Header,
            Expect::Records | Expect::Sealed => {
                !matches!(head.kind, RecordKind::Header | RecordKind::Message)
            }
            _ => false,
        };
        if !expected {
            return Err(Error::bundle(at, MISPLACED));
        }
        self.state = Expect::Records;
        Ok(Record { head, at, before })
    }

    /// Checks a record's body, and makes an item of it.
    fn interpret(&mut self, record: Record, is_known: &dyn Fn(&[u8]) -> Result<bool>) -> Result<Item<'_>> {
        let at = record.at;
        let decode = |e: DecodeError| Error::bundle(at, e);
        let refuse = |problem: BundleProblem| Error::bundle(at, problem);
        let body = record.head.check(&self.body).map_err(decode)?;
        match record.head.kind {
            RecordKind::Header => Ok(Item::Header(HeaderReader::parse(body).map_err(decode)?)),
            RecordKind::Certificate => {
                let read = if is_known(body)? { Certificate::read } else { Certificate::decode };
                let certificate = read(body).map_err(decode)?;
                Ok(match certificate.is_fleet_key() {
                    true => Item::FleetKey(certificate, body),
                    false => Item::Certificate(certificate, body),
                })
            }
            RecordKind::Revocation => Ok(Item::Revocation(Revocation::decode(body).map_err(decode)?)),
            RecordKind::Frame => {
                let (section, frame) = self.groups.add_frame(body).map_err(refuse)?;
                Ok(Item::Frame(section, frame, body))
            }
            RecordKind::Checkpoint => {
                let (checkpoint, end) = self.groups.close(body).map_err(refuse)?;
                Ok(Item::Checkpoint(checkpoint, body, end))
            }
            RecordKind::Footer => {
                self.groups.check_footer(body, record.before.finalize().into()).map_err(refuse)?;
                end_of(&mut self.input, at)?;
                self.state = Expect::Nothing;
                Ok(Item::End)
            }
            RecordKind::State => Ok(Item::State(body)),
            RecordKind::Part => Ok(Item::Part(body)),
            RecordKind::Seal => {
                let of_another_length = BundleProblem::Structure("a seal of another length");
                let signature = <[u8; 64]>::try_from(body).map_err(|_| refuse(of_another_length))?;
                if self.groups.open.is_some() {
                    return Err(refuse(BYTES_AFTER));
                }
                self.state = Expect::Sealed;
                Ok(Item::Seal(signature, record.before.finalize().into()))
            }
            RecordKind::Section | RecordKind::Message => Err(refuse(MISPLACED)),
        }
    }
}

const MISPLACED: BundleProblem = BundleProblem::Structure("a record where none can be");

const BYTES_AFTER: BundleProblem = BundleProblem::Structure("bytes after its end");

/// Refuses bytes after the last record, which begins at `at`.
fn end_of(input: &mut impl Read, at: u64) -> Result<()> {
    match input.read(&mut [0]).map_err(|e| Error::reading(at, e))? {
        0 => Ok(()),
        _ => Err(Error::bundle(at, BYTES_AFTER)),
    }
}

/// The order of a bundle's frames: in sections and groups.
#[derive(Default)]
struct Groups {
    section: Option<Section>,
    open: Option<Open>,
    frames: u64,
}

/// A group whose checkpoint has not come yet.
struct Open {
    first: u64,
    next: u64,
    digest: GroupDigest,
}

impl Groups {
    /// Begins a section: the frames of one author's stream.
    fn begin_section(&mut self, mut body: &[u8]) -> Checked<()> {
        if self.open.is_some() {
            return Err(BundleProblem::Structure("a group without its checkpoint"));
        }
        self.section = Some(take(&mut body)?);
        Ok(())
    }

    /// Adds a frame, which must continue its group or begin one.
    fn add_frame<'a>(&mut self, body: &'a [u8]) -> Checked<(Section, Frame<'a>)> {
        let section = self.section.ok_or(BundleProblem::Structure("a frame of nobody"))?;
        let frame = Frame::parse(body)?;
        self.frames += 1;
        let seq = frame.head.seq;
        let group =
            self.open.get_or_insert_with(|| Open { first: seq, next: seq, digest: GroupDigest::default() });
        if seq != group.next || frame.group.is_some() != (seq == group.first) {
            return Err(BundleProblem::Structure("frames out of their order"));
        }
        group.next = seq + 1;
        group.digest.add(body);
        Ok((section, frame))
    }

    /// Closes a group by its checkpoint. Returns this with the chain after the group.
    fn close(&mut self, body: &[u8]) -> Checked<(Checkpoint, Chain)> {
        let section = self.section.ok_or(BundleProblem::Structure("a checkpoint of nobody"))?;
        let group = self.open.take().ok_or(BundleProblem::Structure("a checkpoint without frames"))?;
        let checkpoint = Checkpoint::decode(body)?;
        if (checkpoint.author, checkpoint.stream, checkpoint.first, checkpoint.last)
            != (section.author, section.stream, group.first, group.next - 1)
        {
            return Err(BundleProblem::Structure("a checkpoint that does not fit its frames"));
        }
        let end = checkpoint.prev.after(&group.digest.finish());
        Ok((checkpoint, end))
    }

    /// Checks a footer. Everything before it has the hash `sha256`.
    fn check_footer(&self, mut body: &[u8], sha256: [u8; 32]) -> Checked<()> {
        let footer: Footer = take(&mut body)?;
        if self.open.is_some() || footer.frames != self.frames || footer.sha256 != sha256 {
            return Err(BundleProblem::Structure("a footer that does not fit"));
        }
        Ok(())
    }
}

/// The outcome of a check. Only the reader knows where in the bundle it is.
type Checked<T> = std::result::Result<T, BundleProblem>;

/// A header whose signature is verified once the sender's key is known.
pub(crate) struct HeaderCheck {
    pub sender: DeviceId,
    bytes: Vec<u8>,
}

impl HeaderCheck {
    /// Copies a header.
    pub(crate) fn of(header: &HeaderReader<'_>) -> Self {
        Self { sender: header.header.sender, bytes: header.bytes().to_vec() }
    }

    /// Returns whether this key signed it.
    pub(crate) fn verify(&self, key: &[u8; 32]) -> bool {
        HeaderReader::parse(&self.bytes).is_ok_and(|header| header.verify(key).is_ok())
    }
}
