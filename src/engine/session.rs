//! What a session needs of the database: groups out, frame by frame; groups in, kept as they come and
//! applied once they are verified; who has what.
//!
//! A frame that came by a session is in `_pm_frame` at once, also while the checkpoint of its group
//! is still to come. Such a frame counts for nothing (no group covers it) but need not come again.

use packmule_core::model::{DeviceId, Stream};
use packmule_core::wire::{
    Certificate, Checkpoint, FORMAT_VERSION, Frame, GroupDigest, Header, Message, Section, VectorEntry,
};
use rusqlite::OptionalExtension;

use super::error::{BundleProblem, Error, Result, Stranger};
use super::import::ImportReport;
use super::seal::SealOptions;
use super::twin::Mirror;
use super::{Engine, log, store};

/// The other end of a session, once its certificate was judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its id.
    pub id: DeviceId,
    /// Its name.
    pub name: String,
    /// It gathers the rows of per-device tables.
    pub base: bool,
    pub(crate) public_key: [u8; 32],
    pub(crate) certificate: Vec<u8>,
}

/// A group that is to be sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GroupOut {
    pub dev: i64,
    pub section: Section,
    pub lamport: u64,
    pub first: u64,
    pub last: u64,
}

impl GroupOut {
    /// Its place in the causal order.
    pub(crate) fn place(&self) -> (u64, DeviceId, u8, u64) {
        (self.lamport, self.section.author, self.section.stream.number(), self.last)
    }
}

/// What goes to a peer next of a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) enum StreamOut {
    /// It has all that is here, or does not take the stream.
    Nothing,
    /// This group.
    Group(GroupOut),
    /// What it lacks is folded away here: only a snapshot brings it on.
    Folded,
}

/// Up to where a peer has a stream, and what it has of the group after that.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    pub author: DeviceId,
    pub stream: Stream,
    /// Groups up to here need not be sent.
    pub groups: u64,
    /// Nor frames up to here.
    pub frames: u64,
}

/// Something that came and is not in the database yet.
pub(crate) enum Staged {
    Certificate(Vec<u8>),
    Frame(Section, u64, Vec<u8>),
    Checkpoint(Vec<u8>),
}

impl Engine {
    /// Our certificate.
    pub(crate) fn own_certificate(&self) -> Result<Vec<u8>> {
        self.reading(|e| e.certificate_of(e.me))?.ok_or_else(|| Error::damaged("our certificate is missing"))
    }

    fn certificate_of(&self, dev: i64) -> Result<Option<Vec<u8>>> {
        let found: Option<Option<Vec<u8>>> =
            super::value::maybe(&self.db, "SELECT certificate FROM _pm_device WHERE n = ?1", [dev])?;
        Ok(found.flatten())
    }

    /// The certificate of an author, and before it those of the devices that vouch for it.
    pub(crate) fn author_certificates(&self, dev: i64) -> Result<Vec<(DeviceId, Vec<u8>)>> {
        self.reading(|e| {
            let chain = e.certificates_for(dev)?;
            chain.into_iter().map(|(n, bytes)| Ok((e.device_id(n)?, bytes))).collect()
        })
    }

    /// Whom a certificate names; an error if it is damaged, a stranger if it is not trusted.
    pub(crate) fn judge_peer(&self, certificate: &[u8]) -> Result<std::result::Result<Peer, Stranger>> {
        let decoded = Certificate::decode(certificate).map_err(|e| Error::bundle(0, e))?;
        let judged = self.reading(|e| e.judge(&decoded))?;
        Ok(judged.map(|_| Peer {
            id: decoded.device(),
            name: decoded.name.into(),
            base: decoded.base,
            public_key: decoded.public_key,
            certificate: certificate.into(),
        }))
    }

    /// Our proof that we have our key.
    pub(crate) fn prove(&self, nonce: &[u8; 32], peer: (DeviceId, &[u8; 32])) -> Result<[u8; 64]> {
        Ok(Message::prove(self.signing_key()?, (self.identity.id, nonce), peer))
    }

    /// Keeps the certificate of a peer that has proved its key, and notes that it was heard.
    pub(crate) fn meet(&mut self, peer: &Peer) -> Result<()> {
        self.transaction(|e| {
            let certificate = Certificate::decode(&peer.certificate).map_err(|e| Error::bundle(0, e))?;
            if let Ok(trust) = e.judge(&certificate)? {
                e.learn(&certificate, &peer.certificate, trust)?;
            }
            Ok(())
        })
    }

    /// What is applied here.
    pub(crate) fn session_vector(&self) -> Result<Vec<VectorEntry>> {
        self.reading(Self::vector)
    }

    /// Places in the log of the peer itself, for it to compare.
    pub(crate) fn session_places(&self, peer: DeviceId) -> Result<Vec<VectorEntry>> {
        self.reading(|e| e.places_of(Some(peer)))
    }

    /// A signed header with these entries.
    pub(crate) fn session_header(&self, to: DeviceId, entries: &[VectorEntry]) -> Result<Vec<u8>> {
        let header = Header {
            version: FORMAT_VERSION.into(),
            sender: self.identity.id,
            receiver: Some(to),
            wall: self.now(),
            entries: entries.len() as u32,
        };
        let mut buf = vec![0; 256 + entries.len() * 36];
        let len = header
            .encode(&mut buf, entries.iter().copied(), self.signing_key()?)
            .map_err(|_| Error::damaged("a header without room"))?;
        buf.truncate(len);
        Ok(buf)
    }

    /// What is here beyond the vector: groups that wait, and frames of one that is not whole.
    pub(crate) fn beyond_vector(&self) -> Result<Vec<Told>> {
        self.reading(|e| {
            let mut streams = e.db.prepare_cached(
                "SELECT d.n, d.id, f.stream, coalesce((SELECT seq FROM _pm_stream s WHERE s.dev = d.n AND s.stream = f.stream), 0)
                 FROM _pm_device d JOIN (SELECT 0 AS stream UNION ALL SELECT 1) f ORDER BY d.n, f.stream",
            )?;
            let mut rows = streams.query([])?;
            let mut all = Vec::new();
            while let Some(row) = rows.next()? {
                let (dev, number): (i64, u8) = (row.get(0)?, row.get(2)?);
                let stream = super::log::stream_of_number(number)?;
                let applied: u64 = row.get(3)?;
                let mut groups = applied;
                let mut group = e.db.prepare_cached(
                    "SELECT last FROM _pm_group INDEXED BY _pm_group_waiting
                     WHERE dev = ?1 AND stream = ?2 AND first = ?3 AND NOT applied",
                )?;
                while let Some(last) =
                    group.query_row((dev, number, groups + 1), |row| row.get(0)).optional()?
                {
                    groups = last;
                }
                let mut frames = groups;
                let mut frame = e.db.prepare_cached(
                    "SELECT 1 FROM _pm_frame WHERE dev = ?1 AND stream = ?2 AND seq = ?3",
                )?;
                while frame.exists((dev, number, frames + 1))? {
                    frames += 1;
                }
                if frames > applied {
                    all.push(Told { author: DeviceId(row.get(1)?), stream, groups, frames });
                }
            }
            Ok(all)
        })
    }

    /// What goes to a peer next of each stream of which it lacks something. `told` is in the order of authors and streams.
    pub(crate) fn streams_out(&self, peer: &Peer, told: &[Told]) -> Result<Vec<StreamOut>> {
        self.reading(|e| {
            let mut all = Vec::new();
            for entry in e.vector()? {
                let have = told_of(told, entry.author, entry.stream).map_or(0, |t| t.groups);
                match e.next_of(peer, entry.author, entry.stream, have)? {
                    StreamOut::Nothing => {}
                    next => all.push(next),
                }
            }
            Ok(all)
        })
    }

    /// What goes to a peer next of a stream that it has up to `have`.
    pub(crate) fn stream_out(&self, peer: &Peer, section: Section, have: u64) -> Result<StreamOut> {
        self.reading(|e| e.next_of(peer, section.author, section.stream, have))
    }

    fn next_of(&self, peer: &Peer, author: DeviceId, stream: Stream, have: u64) -> Result<StreamOut> {
        if !wants(peer, author, stream) {
            return Ok(StreamOut::Nothing);
        }
        let Some(dev) = self.device_number(author)? else { return Ok(StreamOut::Nothing) };
        self.next_in_log(Section { author, stream }, dev, have)
    }

    /// What follows `have` of a stream.
    pub(crate) fn next_in_log(&self, section: Section, dev: i64, have: u64) -> Result<StreamOut> {
        let stream = section.stream;
        if have >= self.position(dev, stream)?.seq {
            return Ok(StreamOut::Nothing);
        }
        let found = self
            .db
            .prepare_cached(
                "SELECT lamport, first, last FROM _pm_group WHERE dev = ?1 AND stream = ?2 AND last > ?3 AND applied
                 ORDER BY last LIMIT 1",
            )?
            .query_row((dev, stream.number(), have), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()?;
        Ok(match found {
            Some((lamport, first, last)) if first <= have + 1 => {
                StreamOut::Group(GroupOut { dev, section, lamport, first, last })
            }
            _ => StreamOut::Folded,
        })
    }

    /// How many frames, and bytes of frames, a peer that has this much lacks.
    pub(crate) fn plan_out(&self, peer: &Peer, told: &[Told]) -> Result<(u64, u64)> {
        self.reading(|e| {
            let mut plan = (0, 0);
            for entry in e.vector()? {
                let stream = entry.stream.number();
                let known = told_of(told, entry.author, entry.stream);
                let have = known.map_or(0, |t| t.frames.max(t.groups));
                if have >= entry.seq || !wants(peer, entry.author, entry.stream) {
                    continue;
                }
                let Some(dev) = e.device_number(entry.author)? else { continue };
                let (frames, bytes): (u64, u64) =
                    e.db.prepare_cached(
                        "SELECT count(*), coalesce(sum(length(body)), 0) FROM _pm_frame
                         WHERE dev = ?1 AND stream = ?2 AND seq > ?3 AND seq <= ?4",
                    )?
                    .query_row((dev, stream, have, entry.seq), |row| Ok((row.get(0)?, row.get(1)?)))?;
                plan = (plan.0 + frames, plan.1 + bytes);
            }
            Ok(plan)
        })
    }

    /// A frame of a group that is sent.
    pub(crate) fn frame_out(&self, group: &GroupOut, seq: u64) -> Result<Vec<u8>> {
        self.reading(|e| e.frame_here(group.dev, group.section.stream, seq))
    }

    /// The checkpoint of a group that is sent.
    pub(crate) fn checkpoint_out(&self, group: &GroupOut) -> Result<Vec<u8>> {
        self.reading(|e| {
            let found: Option<Vec<u8>> = super::value::maybe(
                &e.db,
                "SELECT checkpoint FROM _pm_group WHERE dev = ?1 AND stream = ?2 AND last = ?3",
                (group.dev, group.section.stream.number(), group.last),
            )?;
            found.ok_or_else(|| Error::damaged("a group that was being sent is no longer in the log"))
        })
    }

    /// Takes in what came, in one transaction. Groups whose checkpoint is among it are verified, and
    /// applied if nothing that they need is missing.
    ///
    /// # Errors
    /// As [`Engine::import`]; nothing of it is kept then, and nothing either of an unfinished group that turned
    /// out to be wrong.
    pub(crate) fn take_staged(&mut self, staged: &[Staged], report: &mut ImportReport) -> Result<()> {
        let before = report.clone();
        let taken = self.transaction(|e| e.stage(staged, report));
        self.name_twin(&taken)?;
        if taken.is_err() {
            *report = before;
        }
        if let Err(Error::Bundle { .. } | Error::Twin { .. }) = &taken {
            for item in staged {
                if let Staged::Checkpoint(bytes) = item
                    && let Ok(checkpoint) = Checkpoint::decode(bytes)
                {
                    self.drop_unfinished(checkpoint.author, checkpoint.stream)?;
                }
            }
        }
        taken
    }

    /// Notes for people that there is a copy of this device.
    pub(crate) fn note_copy(&mut self) -> Result<()> {
        self.transaction(|e| {
            let what = "a copy of this device was at the other end of a line: whichever of the two meets another device \
                        second goes on under a new identity";
            store::notice(&e.db, what, e.now())
        })
    }

    /// Notes durably if two histories of a device were found.
    pub(crate) fn name_twin<R>(&mut self, found: &Result<R>) -> Result<()> {
        match found {
            Err(Error::Twin { device, seq }) => self.transaction(|e| e.note_twin(device, *seq)),
            _ => Ok(()),
        }
    }

    fn stage(&self, staged: &[Staged], report: &mut ImportReport) -> Result<()> {
        let groups = staged.iter().any(|item| matches!(item, Staged::Checkpoint(_)));
        let conflicts_before = if groups {
            self.begin_settling()?;
            // What was written here before this moment did not take the others into account.
            self.seal_here(SealOptions::default())?;
            self.open_conflicts()?
        } else {
            0
        };
        for item in staged {
            match item {
                Staged::Certificate(bytes) => {
                    let certificate = Certificate::decode(bytes).map_err(|e| Error::bundle(0, e))?;
                    match self.judge(&certificate)? {
                        Ok(trust) => self.learn(&certificate, bytes, trust)?,
                        Err(stranger) => return Err(Error::Strangers(vec![stranger])),
                    };
                }
                Staged::Frame(section, seq, body) => self.stage_frame(*section, *seq, body, report)?,
                Staged::Checkpoint(bytes) => self.stage_group(bytes)?,
            }
        }
        if groups {
            self.apply_waiting(report)?;
            report.waits = self.waits()?;
            report.conflicts_opened += self.open_conflicts()?.saturating_sub(conflicts_before);
        }
        Ok(())
    }

    fn stage_frame(&self, section: Section, seq: u64, body: &[u8], report: &mut ImportReport) -> Result<()> {
        if self.trusted_key(section.author)?.is_none() {
            let stranger = Stranger { id: section.author, name: None, revoked: false };
            return Err(Error::Strangers(vec![stranger]));
        }
        let dev = self.device_number_or_new(section.author)?;
        if section.stream == Stream::Own && !self.identity.base && dev != self.me {
            report.passed_over += 1;
            return Ok(());
        }
        let known = seq <= self.position(dev, section.stream)?.seq
            || !log::put_frame(&self.db, dev, section.stream, seq, body)?;
        report.known += u64::from(known);
        report.frames += u64::from(!known);
        Ok(())
    }

    /// Verifies a group whose frames are all in the log, and puts it there.
    fn stage_group(&self, bytes: &[u8]) -> Result<()> {
        let refuse = |what| Error::bundle(0, BundleProblem::Structure(what));
        let checkpoint = Checkpoint::decode(bytes).map_err(|e| Error::bundle(0, e))?;
        let stream = checkpoint.stream;
        let dev = self.device_number_or_new(checkpoint.author)?;
        if stream == Stream::Own && !self.identity.base && dev != self.me {
            return Ok(());
        }
        let Some(key) = self.trusted_key(checkpoint.author)? else {
            let stranger = Stranger { id: checkpoint.author, name: None, revoked: false };
            return Err(Error::Strangers(vec![stranger]));
        };
        if checkpoint.last <= self.position(dev, stream)?.seq {
            return self.refuse_twin(&checkpoint, None, &key);
        }
        let mut digest = GroupDigest::default();
        let mut head = None;
        for seq in checkpoint.first..=checkpoint.last {
            let Some(body) = self.frame(dev, stream, seq)? else {
                return Err(refuse("a checkpoint without all its frames"));
            };
            let frame = Frame::parse(&body).map_err(|e| Error::bundle(0, e))?;
            if frame.head.seq != seq || frame.group.is_some() != (seq == checkpoint.first) {
                return Err(refuse("frames out of their order"));
            }
            head = head.or(frame.group);
            digest.add(&body);
        }
        let Some(head) = head else { return Err(refuse("a group without its head")) };
        let end = checkpoint.prev.after(&digest.finish());
        if checkpoint.verify(&key, &end).is_err() {
            return Err(Error::bundle(0, BundleProblem::Signature(self.name_of(checkpoint.author)?)));
        }
        self.refuse_twin(&checkpoint, Some(&end), &key)?;
        let of_head = (head.lamport, head.wall, head.pair);
        log::put_group(&self.db, dev, (&checkpoint, bytes), of_head, &end, false)
    }

    /// Forgets the frames of a stream that no group covers.
    fn drop_unfinished(&mut self, author: DeviceId, stream: Stream) -> Result<()> {
        self.transaction(|e| {
            let Some(dev) = e.device_number(author)? else { return Ok(()) };
            e.db.execute(
                "DELETE FROM _pm_frame WHERE dev = ?1 AND stream = ?2
                   AND seq > coalesce((SELECT max(last) FROM _pm_group WHERE dev = ?1 AND stream = ?2), 0)
                   AND seq > coalesce((SELECT seq FROM _pm_stream WHERE dev = ?1 AND stream = ?2), 0)",
                (dev, stream.number()),
            )?;
            Ok(())
        })
    }

    /// Notes what a peer has. The header is the peer's own, and signed.
    pub(crate) fn note_vector(&mut self, peer: DeviceId, entries: &[VectorEntry]) -> Result<()> {
        self.transaction(|e| e.note_acknowledged(peer, entries, None))
    }

    /// Compares a peer's vector with what is here, and draws the consequences of what it tells of this device
    /// itself. Whether that goes on under a new identity.
    ///
    /// # Errors
    /// [`Error::Twin`] if the peer has another history of a third device than is here.
    pub(crate) fn hear_of_self(&mut self, peer: &Peer, entries: &mut Vec<VectorEntry>) -> Result<bool> {
        let mut mirror = Mirror::default();
        let compared = self.reading(|e| e.compare_vector(peer.id, entries, &mut mirror));
        self.name_twin(&compared)?;
        if let Some(seq) = compared? {
            self.transaction(|e| e.note_twin(&e.name_of(peer.id)?, seq))?;
        }
        self.face(&mirror)
    }

    /// A number that changes whenever another program, or another connection, wrote to the database.
    pub(crate) fn data_version(&self) -> Result<i64> {
        Ok(self.db.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?)
    }
}

/// What is known of a stream, in a list in the order of authors and streams.
pub(crate) fn told_of(told: &[Told], author: DeviceId, stream: Stream) -> Option<&Told> {
    let at = told.binary_search_by_key(&(author, stream.number()), |t| (t.author, t.stream.number()));
    at.ok().and_then(|at| told.get(at))
}

/// Whether a stream goes to a peer: the second only to who gathers it, and back to its author.
fn wants(peer: &Peer, author: DeviceId, stream: Stream) -> bool {
    stream == Stream::Shared || peer.base || author == peer.id
}
