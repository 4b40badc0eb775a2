//! A log as a microcontroller would have it: some frames of fixed size, no heap, nothing of `std`. Its pages are in
//! memory here and in flash there; everything else is as it would be.

// Each test program uses a part of it.
#![allow(dead_code)]

use core::cmp::Reverse;

use ed25519_compact::{KeyPair, SecretKey, Seed};
use heapless::Vec;
use packmule_core::model::{DeviceId, Stream};
use packmule_core::session::{Body, Frontier, Group, Heard, Incoming, Log, NextGroup, Trust};
use packmule_core::wire::{
    CERT_MAX, CHECKPOINT_LEN, Certificate, Chain, Checkpoint, FORMAT_VERSION, Frame, FrameFlags, FrameWriter,
    GroupDigest, GroupStart, Header, HeaderReader, Message, NEWEST_LEN, Position, Refusal, Section,
};

/// The streams that it knows.
pub const STREAMS: usize = 6;
/// How many certificates, frames and checkpoints it stages.
const STAGED: usize = 8;

/// Why it refuses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// No page is free.
    Full,
    /// It is not in the log.
    Missing,
    /// A group does not go on from what is here, or its author did not sign it.
    Wrong,
    /// Nobody trusted wrote it.
    UntrustedDevice,
    /// The peer has another history than what is here of it.
    Twin,
}

/// A stream up to where it is applied.
#[derive(Clone, Copy)]
struct Known {
    section: Section,
    key: [u8; 32],
    seq: u64,
    chain: Chain,
}

struct Page<const FRAME: usize> {
    section: Section,
    seq: u64,
    bytes: Vec<u8, FRAME>,
}

/// A whole group, its frames in the pages.
#[derive(Clone, Copy)]
struct Whole {
    section: Section,
    lamport: u64,
    checkpoint: Checkpoint,
}

/// `PAGES` frames of at most `FRAME` bytes.
pub struct Pages<const FRAME: usize, const PAGES: usize> {
    key: SecretKey,
    fleet: [u8; 32],
    certificate: Vec<u8, CERT_MAX>,
    me: DeviceId,
    streams: Vec<Known, STREAMS>,
    pages: Vec<Page<FRAME>, PAGES>,
    groups: Vec<Whole, PAGES>,
    lamport: u64,
    /// Something was recorded since the log was sealed last.
    is_new: bool,
    /// Of a peer with another history: the newest checkpoint that is here of what it signed.
    pub newest: Option<[u8; NEWEST_LEN]>,
}

impl<const FRAME: usize, const PAGES: usize> Pages<FRAME, PAGES> {
    /// An empty log of the device with this seed.
    pub fn new(seed: u8, name: &str, base: bool, fleet: &SecretKey) -> Self {
        let key = KeyPair::from_seed(Seed::new([seed; 32])).sk;
        let mut certificate = Vec::new();
        certificate.resize(CERT_MAX, 0).unwrap();
        let vouched = Certificate::new(&key, name, base).unwrap().vouched(fleet).unwrap();
        let len = vouched.encode(&mut certificate).unwrap();
        certificate.truncate(len);
        let public_key = *key.public_key();
        let mut log = Self {
            me: DeviceId::of_key(&public_key),
            fleet: *fleet.public_key(),
            key,
            certificate,
            streams: Vec::new(),
            pages: Vec::new(),
            groups: Vec::new(),
            lamport: 0,
            is_new: false,
            newest: None,
        };
        log.learn(&public_key).unwrap();
        log
    }

    pub fn me(&self) -> DeviceId {
        self.me
    }

    /// Up to where a stream is applied.
    pub fn applied(&self, author: DeviceId, stream: Stream) -> u64 {
        self.streams.iter().find(|s| s.section == Section { author, stream }).map_or(0, |s| s.seq)
    }

    /// Writes a group of so many frames into a stream of this device.
    pub fn record(&mut self, stream: Stream, frames: u64, content: &[u8]) -> Result<(), Refused> {
        let section = Section { author: self.me, stream };
        let known = *self.streams.iter().find(|s| s.section == section).ok_or(Refused::Missing)?;
        let (first, last) = (known.seq + 1, known.seq + frames);
        let mut digest = GroupDigest::default();
        self.lamport += 1;
        for seq in first..=last {
            let start = GroupStart { lamport: self.lamport, wall: 0, pair: 0, context: &[] };
            let mut buf = [0; FRAME];
            let group = (seq == first).then_some(start);
            let mut writer =
                FrameWriter::new(&mut buf, FrameFlags::default(), seq, group).map_err(|_| Refused::Full)?;
            if !content.is_empty() {
                writer.piece(0, content).map_err(|_| Refused::Full)?;
            }
            let bytes = Vec::from_slice(writer.finish()).map_err(|_| Refused::Full)?;
            digest.add(&bytes);
            self.pages.push(Page { section, seq, bytes }).map_err(|_| Refused::Full)?;
        }
        let end = known.chain.after(&digest.finish());
        let checkpoint = Checkpoint::sign(&self.key, self.me, stream, first, last, known.chain, &end);
        self.keep_group(section, self.lamport, checkpoint, end)?;
        self.is_new = true;
        Ok(())
    }

    /// Forgets the pages of a stream up to a group's end, as compaction does.
    pub fn forget(&mut self, section: Section, last: u64) {
        self.pages.retain(|page| page.section != section || page.seq > last);
        self.groups.retain(|group| group.section != section || group.checkpoint.last > last);
    }

    fn keep_group(
        &mut self,
        section: Section,
        lamport: u64,
        checkpoint: Checkpoint,
        end: Chain,
    ) -> Result<(), Refused> {
        self.groups.push(Whole { section, lamport, checkpoint }).map_err(|_| Refused::Full)?;
        self.lamport = self.lamport.max(lamport);
        let known = self.streams.iter_mut().find(|s| s.section == section).ok_or(Refused::UntrustedDevice)?;
        (known.seq, known.chain) = (checkpoint.last, end);
        Ok(())
    }

    fn learn(&mut self, key: &[u8; 32]) -> Result<(), Refused> {
        let author = DeviceId::of_key(key);
        if self.streams.iter().any(|s| s.section.author == author) {
            return Ok(());
        }
        for stream in Stream::ALL {
            let (section, chain) = (Section { author, stream }, Chain::start(key, stream));
            let known = Known { section, key: *key, seq: 0, chain };
            self.streams.push(known).map_err(|_| Refused::Full)?;
        }
        Ok(())
    }

    fn page(&self, section: Section, seq: u64) -> Option<&Page<FRAME>> {
        self.pages.iter().find(|page| page.section == section && page.seq == seq)
    }

    /// Frames behind what is applied, without a gap.
    fn beyond(&self, known: &Known) -> u64 {
        let mut seq = known.seq;
        while self.page(known.section, seq + 1).is_some() {
            seq += 1;
        }
        seq
    }

    fn apply(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        let checkpoint = Checkpoint::decode(bytes).map_err(|_| Refused::Wrong)?;
        let section = Section { author: checkpoint.author, stream: checkpoint.stream };
        let known = *self.streams.iter().find(|s| s.section == section).ok_or(Refused::UntrustedDevice)?;
        if checkpoint.last <= known.seq {
            return Ok(());
        }
        let mut digest = GroupDigest::default();
        let mut lamport = 0;
        for seq in checkpoint.first..=checkpoint.last {
            let page = self.page(section, seq).ok_or(Refused::Missing)?;
            digest.add(&page.bytes);
            let head = Frame::parse(&page.bytes).map_err(|_| Refused::Wrong)?.group;
            lamport = head.map_or(lamport, |head| head.lamport);
        }
        let end = known.chain.after(&digest.finish());
        let goes_on = checkpoint.first == known.seq + 1 && checkpoint.prev == known.chain;
        if !goes_on || checkpoint.verify(&known.key, &end).is_err() {
            return Err(Refused::Wrong);
        }
        self.keep_group(section, lamport, checkpoint, end)
    }
}

enum Staged<const FRAME: usize> {
    Certificate(Vec<u8, CERT_MAX>),
    Frame(Page<FRAME>),
    Checkpoint(Vec<u8, CHECKPOINT_LEN>),
}

/// The log while it talks to one peer.
pub struct Talk<'a, const FRAME: usize, const PAGES: usize> {
    log: &'a mut Pages<FRAME, PAGES>,
    /// The peer, its key, and whether it gathers own streams.
    peer: Option<(DeviceId, [u8; 32], bool)>,
    /// The peer frontier.
    has: Vec<Frontier, STREAMS>,
    /// What the peer knows to be applied here.
    sent: Vec<Position, STREAMS>,
    /// The streams of which it is behind.
    behind: Vec<Section, STREAMS>,
    current: Option<Whole>,
    staged: Vec<Staged<FRAME>, STAGED>,
    /// What the peer acknowledged of this device's frames, and how often that was recorded.
    pub acked: [u64; 2],
    pub recorded: [u64; 2],
}

impl<'a, const FRAME: usize, const PAGES: usize> Talk<'a, FRAME, PAGES> {
    pub fn new(log: &'a mut Pages<FRAME, PAGES>) -> Self {
        Self {
            log,
            peer: None,
            has: Vec::new(),
            sent: Vec::new(),
            behind: Vec::new(),
            current: None,
            staged: Vec::new(),
            acked: [0; 2],
            recorded: [0; 2],
        }
    }

    /// The log, to write to it meanwhile.
    pub fn log(&mut self) -> &mut Pages<FRAME, PAGES> {
        self.log
    }

    fn has(&self, section: Section) -> (u64, u64) {
        self.has.iter().find(|f| f.section == section).map_or((0, 0), |f| (f.groups, f.frames))
    }

    fn wants(&self, section: Section) -> bool {
        let peer = self.peer.is_some_and(|(id, _, base)| base || section.author == id);
        section.stream == Stream::Shared || peer
    }

    fn current(&self) -> Result<&Whole, Refused> {
        self.current.as_ref().ok_or(Refused::Missing)
    }
}

impl<const FRAME: usize, const PAGES: usize> Log for Talk<'_, FRAME, PAGES> {
    type Error = Refused;
    type Taken = ();
    const STAGE_BYTES: usize = FRAME;
    const SOON_BYTES: usize = 1;

    fn seal(&mut self) -> Result<bool, Refused> {
        Ok(core::mem::take(&mut self.log.is_new))
    }

    fn certificate(&mut self, body: &mut Body<'_>) -> Result<DeviceId, Refused> {
        body.extend(&self.log.certificate);
        Ok(self.log.me)
    }

    fn verify_certificate(&mut self, certificate: &Certificate<'_>, _: &[u8]) -> Result<Trust, Refused> {
        if certificate.fleet.is_none_or(|fleet| fleet.fleet != self.log.fleet) {
            return Ok(Trust::Untrusted);
        }
        self.peer = Some((certificate.device(), certificate.public_key, certificate.base));
        Ok(Trust::Trusted)
    }

    fn prove(&mut self, nonce: &[u8; 32], peer: (DeviceId, &[u8; 32])) -> Result<[u8; 64], Refused> {
        Ok(Message::prove(&self.log.key, (self.log.me, nonce), peer))
    }

    fn store_certificate(&mut self) -> Result<(), Refused> {
        let (_, key, _) = self.peer.ok_or(Refused::UntrustedDevice)?;
        self.log.learn(&key)
    }

    fn next_here(&mut self, after: Option<Section>) -> Result<Option<Frontier>, Refused> {
        let streams = &self.log.streams;
        let from = after.map_or(0, |section| {
            streams.iter().position(|s| s.section == section).map_or(streams.len(), |at| at + 1)
        });
        let mut beyond = streams.iter().skip(from).map(|s| (s, self.log.beyond(s)));
        let found = beyond.find(|(known, frames)| *frames > known.seq);
        Ok(found.map(|(known, frames)| Frontier { section: known.section, groups: known.seq, frames }))
    }

    fn header(&mut self, body: &mut Body<'_>) -> Result<bool, Refused> {
        let first = self.sent.is_empty();
        let mut changed = Vec::<Position, STREAMS>::new();
        let mut all = Vec::<Position, STREAMS>::new();
        for Known { section, seq, chain, .. } in &self.log.streams {
            let Section { author, stream } = *section;
            let entry = Position { author, stream, seq: *seq, tag: chain.tag() };
            let own = author == self.log.me;
            if own || !self.sent.contains(&entry) {
                changed.push(entry).map_err(|_| Refused::Full)?;
            }
            all.push(entry).map_err(|_| Refused::Full)?;
        }
        if !first && all == self.sent {
            return Ok(false);
        }
        self.sent = all;
        changed.sort_unstable_by_key(|entry| (entry.author, entry.stream));
        let header = Header {
            version: FORMAT_VERSION.into(),
            sender: self.log.me,
            receiver: self.peer.map(|(id, ..)| id),
            wall: 0,
            statement: [0; 8],
            base: None,
            applied: changed.len() as u32,
            probes: 0,
        };
        let mut buf = [0; 128 + STREAMS * 32];
        let encoded = header.encode(&mut buf, changed.iter().copied(), core::iter::empty(), &self.log.key);
        body.extend(&buf[..encoded.map_err(|_| Refused::Full)?]);
        Ok(true)
    }

    fn peer_has(&mut self, frontier: Frontier) -> Result<(), Refused> {
        match self.has.iter_mut().find(|f| f.section == frontier.section) {
            Some(known) => known.raise(&frontier),
            // Of streams that are not known here nothing is sent.
            None => drop(self.has.push(frontier)),
        }
        Ok(())
    }

    fn next_newest(&mut self, body: &mut Body<'_>) -> Result<bool, Refused> {
        Ok(self.log.newest.take().is_some_and(|newest| {
            body.extend(&newest);
            true
        }))
    }

    fn receive_header(&mut self, header: &HeaderReader<'_>) -> Result<Heard, Refused> {
        if self.log.newest.is_some() {
            return Err(Refused::Twin);
        }
        for Position { author, stream, seq, .. } in header.applied() {
            self.peer_has(Frontier { section: Section { author, stream }, groups: seq, frames: seq })?;
            if author == self.log.me {
                let acked = &mut self.acked[usize::from(stream.number())];
                *acked = seq.max(*acked);
            }
        }
        Ok(Heard::Acknowledged(self.acked.iter().sum()))
    }

    fn record_acks(&mut self) -> Result<(), Refused> {
        self.recorded = self.acked;
        Ok(())
    }

    fn next_group(&mut self) -> Result<NextGroup, Refused> {
        self.current = None;
        let lacks = |group: &&Whole| {
            let (groups, _) = self.has(group.section);
            let (first, last) = (group.checkpoint.first, group.checkpoint.last);
            self.wants(group.section) && first <= groups + 1 && last > groups
        };
        let order = |group: &&Whole| Reverse((group.lamport, group.section.author, group.section.stream));
        if let Some(group) = self.log.groups.iter().filter(lacks).max_by_key(order).copied() {
            self.current = Some(group);
            let (_, frames) = self.has(group.section);
            let (first, last) = (group.checkpoint.first, group.checkpoint.last);
            return Ok(NextGroup::Group(Group { section: group.section, first, last, next: frames + 1 }));
        }
        let is_behind = |known: &&Known| {
            self.wants(known.section)
                && self.has(known.section).0 < known.seq
                && !self.behind.contains(&known.section)
        };
        let Some(section) = self.log.streams.iter().find(is_behind).map(|s| s.section) else {
            return Ok(NextGroup::Nothing);
        };
        self.behind.push(section).map_err(|_| Refused::Full)?;
        Ok(NextGroup::Behind)
    }

    fn next_certificate(&mut self, _: DeviceId, _: &mut Body<'_>) -> Result<bool, Refused> {
        // It passes nobody's frames on to who does not know the author.
        Ok(false)
    }

    fn frame(&mut self, seq: u64, body: &mut Body<'_>) -> Result<(), Refused> {
        let section = self.current()?.section;
        body.extend(&self.log.page(section, seq).ok_or(Refused::Missing)?.bytes);
        Ok(())
    }

    fn checkpoint(&mut self, body: &mut Body<'_>) -> Result<(), Refused> {
        let Whole { section, checkpoint, .. } = *self.current()?;
        let room = body.room(CHECKPOINT_LEN).ok_or(Refused::Full)?;
        checkpoint.encode(room).map_err(|_| Refused::Full)?;
        self.peer_has(Frontier { section, groups: checkpoint.last, frames: checkpoint.last })
    }

    fn stage(&mut self, item: Incoming<'_>) -> Result<(), Refused> {
        let item = match item {
            // A leaf trusts whom its fleet has signed, and keeps no list.
            Incoming::Revocation(_) => return Ok(()),
            // It has wanted none.
            Incoming::Chunk(_) => return Err(Refused::Wrong),
            Incoming::Certificate(bytes) => Vec::from_slice(bytes).map(Staged::Certificate).ok(),
            Incoming::Frame(section, seq, bytes) => {
                Vec::from_slice(bytes).map(|bytes| Staged::Frame(Page { section, seq, bytes })).ok()
            }
            Incoming::Checkpoint(bytes) => Vec::from_slice(bytes).map(Staged::Checkpoint).ok(),
        };
        self.staged.push(item.ok_or(Refused::Full)?).map_err(|_| Refused::Full)
    }

    fn commit(&mut self, (): &mut ()) -> Result<(), Refused> {
        for item in core::mem::take(&mut self.staged) {
            match item {
                Staged::Certificate(bytes) => {
                    let certificate = Certificate::decode(&bytes).map_err(|_| Refused::Wrong)?;
                    if certificate.fleet.is_none_or(|fleet| fleet.fleet != self.log.fleet) {
                        return Err(Refused::UntrustedDevice);
                    }
                    self.log.learn(&certificate.public_key)?;
                }
                Staged::Frame(page) => {
                    let applied = self.log.applied(page.section.author, page.section.stream);
                    if page.seq > applied && self.log.page(page.section, page.seq).is_none() {
                        self.log.pages.push(page).map_err(|_| Refused::Full)?;
                    }
                }
                Staged::Checkpoint(bytes) => self.log.apply(&bytes)?,
            }
        }
        Ok(())
    }

    fn discard(&mut self) {
        self.staged.clear();
    }

    fn refusal(error: &Refused) -> (Refusal, Option<DeviceId>) {
        match error {
            Refused::Full | Refused::Missing => (Refusal::Failed, None),
            Refused::Wrong => (Refusal::Damaged, None),
            Refused::UntrustedDevice => (Refusal::Untrusted, None),
            Refused::Twin => (Refusal::Twin, None),
        }
    }
}
