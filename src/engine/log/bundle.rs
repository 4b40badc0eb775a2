//! A bundle as a stream of records, of which structure, check sums and chains are verified.
//!
//! Nothing here knows a database: `import` and `inspect` decide what to do with each item.

use std::io::Read;

use packmule_core::model::{DeviceId, Stream};
use packmule_core::wire::{
    CHECKPOINT_LEN, Certificate, Chain, Checkpoint, DecodeError, Footer, Frame, GroupDigest, HeaderReader,
    MAGIC, Newest, NoRoom, PACKED_MAGIC, RECORD_HEAD_LEN, RecordHead, RecordKind, Revocation, Section, crc32,
    put, take,
};
use sha2::{Digest, Sha256};

use crate::engine::error::{BundleProblem, Error, Result};
use crate::engine::log::packed::{self, Between};
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
    /// It is packed: between whom, once the header was read.
    packed: Option<Option<Between>>,
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
    /// The newest checkpoint of a stream, with the chain after it. The caller verifies the signature.
    Newest(Newest),
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
            packed: None,
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
        if magic == PACKED_MAGIC {
            self.packed = Some(None);
        } else if magic != MAGIC {
            let cut = MAGIC.starts_with(&magic) || PACKED_MAGIC.starts_with(&magic);
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

    /// Reads so many bytes into `body`, after those that it has.
    fn fill(&mut self, len: usize) -> Result<()> {
        let begin = self.body.len();
        self.body.resize(begin + len, 0);
        let mut into = &mut self.body[begin..];
        if let (Some(byte), false) = (self.ahead, into.is_empty()) {
            self.ahead = None;
            into[0] = byte;
            into = &mut into[1..];
        }
        self.input.read_exact(into).map_err(|e| Error::reading(self.offset, e))
    }

    /// Reads a record into `body`, and refuses one whose kind cannot stand there.
    fn next_record(&mut self) -> Result<Record> {
        let at = self.offset;
        self.body.clear();
        let (head, read) = match self.packed {
            None => {
                self.fill(RECORD_HEAD_LEN)?;
                let bytes = self.body.first_chunk().ok_or_else(|| Error::bundle(at, DecodeError::Short))?;
                let head = RecordHead::parse(bytes).map_err(|e| Error::bundle(at, e))?;
                self.body.clear();
                self.fill(head.len as usize)?;
                (head, RECORD_HEAD_LEN + self.body.len())
            }
            Some(between) => self.unpack(at, between)?,
        };
        let before = self.hash.clone();
        self.hash.update(head.to_bytes());
        self.hash.update(&self.body);
        self.offset += read as u64;
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

    /// Reads a packed record, and makes that of `body` which it was packed from. Returns its head, and how many bytes were
    /// read.
    fn unpack(&mut self, at: u64, between: Option<Between>) -> Result<(RecordHead, usize)> {
        let refuse = |problem: BundleProblem| Error::bundle(at, problem);
        let kind = if between.is_none() {
            packed::HEADER
        } else {
            self.fill(1)?;
            self.body[0]
        };
        let len = match kind {
            packed::FOOTER => packed::FOOTER_LEN,
            packed::CHECKPOINT => packed::CHAIN_LEN + packed::SIGNATURE_LEN,
            packed::NEXT_CHECKPOINT => packed::SIGNATURE_LEN,
            kind if packed::OWN_SECTIONS.contains(&kind) => 0,
            packed::HEADER => self.packed_len(at, kind)? + packed::SIGNATURE_LEN,
            packed::FIRST_FRAME => self.packed_len(at, RecordKind::Frame.number())?,
            _ => self.packed_len(at, kind)?,
        };
        let begin = self.body.len();
        self.fill(len)?;
        let read = self.body.len();
        let body = &self.body[begin..];
        let (kind, whole) = match kind {
            packed::HEADER => {
                let (between, header) = packed::unpack_header(body).map_err(|e| refuse(e.into()))?;
                self.packed = Some(Some(between));
                (RecordKind::Header.number(), header)
            }
            packed::FOOTER => {
                let sha256: [u8; 32] = self.hash.clone().finalize().into();
                if sha256[..packed::FOOTER_LEN] != *body {
                    return Err(refuse(OTHER_FOOTER));
                }
                let footer = Footer { frames: self.groups.frames, sha256 };
                (RecordKind::Footer.number(), small(|buf| put(buf, &footer)))
            }
            packed::CHECKPOINT | packed::NEXT_CHECKPOINT => {
                let checkpoint = self.groups.unpack_checkpoint(body).map_err(refuse)?;
                let mut whole = vec![0; CHECKPOINT_LEN];
                checkpoint.encode(&mut whole).map_err(|_| refuse(MISPLACED))?;
                (RecordKind::Checkpoint.number(), whole)
            }
            kind if packed::OWN_SECTIONS.contains(&kind) => {
                let stream = if kind == packed::OWN_SECTIONS[0] { Stream::Shared } else { Stream::PerDevice };
                let author = between.ok_or_else(|| refuse(MISPLACED))?.sender;
                (RecordKind::Section.number(), small(|buf| put(buf, &Section { author, stream })))
            }
            packed::FIRST_FRAME => {
                let made = between.ok_or_else(|| refuse(MISPLACED))?.wall;
                let frame = packed::since(body, made);
                (RecordKind::Frame.number(), frame.ok_or_else(|| refuse(MISPLACED))?)
            }
            _ => {
                self.body.copy_within(begin.., 0);
                self.body.truncate(read - begin);
                return Ok((self.finish_unpacked(kind).map_err(refuse)?, read));
            }
        };
        self.body = whole;
        Ok((self.finish_unpacked(kind).map_err(refuse)?, read))
    }

    /// Reads the length of a packed record of a kind: up to three bytes, since no record is longer.
    fn packed_len(&mut self, at: u64, kind: u8) -> Result<usize> {
        let mut len = 0;
        for place in 0..3 {
            self.fill(1)?;
            let byte = self.body.last().copied().unwrap_or(0);
            len |= usize::from(byte & 0x7f) << (7 * place);
            if byte < 0x80 {
                head_of(kind, len).map_err(|e| Error::bundle(at, e))?;
                return Ok(len);
            }
        }
        Err(Error::bundle(at, DecodeError::Malformed("a record of impossible length")))
    }

    /// Adds the check sum that a record has which is not packed. Returns its head.
    fn finish_unpacked(&mut self, kind: u8) -> Checked<RecordHead> {
        let head = head_of(kind, self.body.len())?;
        if head.kind != RecordKind::Frame {
            let crc = crc32(&self.body);
            self.body.extend_from_slice(&crc.to_le_bytes());
        }
        Ok(head)
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
            RecordKind::Newest => Ok(Item::Newest(Newest::decode(body).map_err(decode)?)),
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

/// Returns the head that a record of `len` bytes, without a check sum, has where it is not packed.
fn head_of(kind: u8, len: usize) -> Result<RecordHead, DecodeError> {
    let crc = if kind == RecordKind::Frame.number() { 0 } else { 4 };
    let [l0, l1, l2, _] = ((len + crc) as u32).to_le_bytes();
    let mut bytes = [kind, l0, l1, l2, 0, 0, 0, 0];
    let crc = crc32(&bytes[..4]).to_le_bytes();
    bytes[4..].copy_from_slice(&crc);
    RecordHead::parse(&bytes)
}

/// Returns what is put into 64 bytes, which are enough for it.
fn small(put: impl FnOnce(&mut [u8]) -> Result<usize, NoRoom>) -> Vec<u8> {
    let mut buf = [0; 64];
    put(&mut buf).map_or_else(|_| Vec::new(), |len| buf[..len].to_vec())
}

const OTHER_FOOTER: BundleProblem = BundleProblem::Structure("a footer that does not fit");

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
    /// The last frame of the group that closed last, and the chain there, if no section has begun since.
    closed: Option<(u64, Chain)>,
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
        (self.section, self.closed) = (Some(take(&mut body)?), None);
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
        self.closed = Some((checkpoint.last, end));
        Ok((checkpoint, end))
    }

    /// Makes the checkpoint of the open group of the chain before it, unless that is known, and the signature.
    fn unpack_checkpoint(&self, packed: &[u8]) -> Checked<Checkpoint> {
        let (Some(Section { author, stream }), Some(group)) = (self.section, &self.open) else {
            return Err(BundleProblem::Structure("a checkpoint without frames"));
        };
        let (chain, signature) = packed.split_last_chunk().ok_or(DecodeError::Short)?;
        let prev = match (<[u8; 32]>::try_from(chain), self.closed) {
            (Ok(chain), _) => Chain(chain),
            (Err(_), Some((last, chain))) if last + 1 == group.first => chain,
            _ => return Err(BundleProblem::Structure("a checkpoint after none")),
        };
        Ok(Checkpoint {
            author,
            stream,
            first: group.first,
            last: group.next - 1,
            prev,
            signature: *signature,
        })
    }

    /// Checks a footer. Everything before it has the hash `sha256`.
    fn check_footer(&self, mut body: &[u8], sha256: [u8; 32]) -> Checked<()> {
        let footer: Footer = take(&mut body)?;
        if self.open.is_some() || footer.frames != self.frames || footer.sha256 != sha256 {
            return Err(OTHER_FOOTER);
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
