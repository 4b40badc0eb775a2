//! What one end says: messages, the frames that the other lacks, and why it stops.

use std::collections::BTreeMap;

use packmule_core::model::DeviceId;
use packmule_core::wire::{
    Message, RECORD_HEAD_LEN, RecordKind, Refusal, Section, VectorEntry, put, write_record,
};

use super::{Error, Phase, RECORD_BEFORE_PROOF, Sending, Session};
use crate::engine::{Engine, Error as EngineError, GroupOut, StreamOut, Told, told_of};

impl Session {
    /// Puts the next thing to say into `out`, if there is any.
    pub(super) fn produce(&mut self, engine: &mut Engine) -> Result<(), Error> {
        if self.phase != Phase::Open || !self.peer_header {
            return Ok(());
        }
        if self.sending.is_none() {
            if self.bye || !self.more_out {
                return Ok(());
            }
            let Some(group) = self.next_group(engine)? else {
                self.more_out = false;
                if self.idle_current {
                    return Ok(());
                }
                self.idle += 1;
                self.idle_current = true;
                return self.say(&Message::Idle(self.idle));
            };
            self.idle_current = false;
            self.begin_group(engine, group)?;
        }
        let Some(sending) = &mut self.sending else { return Ok(()) };
        if sending.next > sending.group.last {
            let group = sending.group;
            self.sending = None;
            let Section { author, stream } = group.section;
            self.raise(Told { author, stream, groups: group.last, frames: group.last });
            self.offer(engine, group.section)?;
            let checkpoint = engine.checkpoint_out(&group)?;
            return self.put(RecordKind::Checkpoint, &checkpoint);
        }
        let frame = engine.frame_out(&sending.group, sending.next)?;
        sending.next += 1;
        self.progress.sent.0 += 1;
        self.progress.sent.1 += frame.len() as u64;
        self.progress.to_send.0 = self.progress.to_send.0.max(self.progress.sent.0);
        self.progress.to_send.1 = self.progress.to_send.1.max(self.progress.sent.1);
        self.put(RecordKind::Frame, &frame)
    }

    /// The next group for the peer. It costs as little with many devices as with few: the next of each stream is
    /// looked up once, and again only where something changed.
    fn next_group(&mut self, engine: &Engine) -> Result<Option<GroupOut>, Error> {
        if self.heads.is_none() {
            self.heads = Some(BTreeMap::new());
            let peer = self.peer.as_ref().ok_or(Error::Proof)?;
            for next in engine.streams_out(peer, &self.told)? {
                self.keep(next)?;
            }
        }
        while let Some((place, group)) = self.heads.as_mut().and_then(BTreeMap::pop_first) {
            // It may have come to the peer, or was folded away, since it was looked up.
            match self.next_of(engine, group.section)? {
                StreamOut::Group(group) if group.place() == place => return Ok(Some(group)),
                next => self.keep(next)?,
            }
        }
        Ok(None)
    }

    fn next_of(&self, engine: &Engine, section: Section) -> Result<StreamOut, Error> {
        let have = told_of(&self.told, section.author, section.stream).map_or(0, |told| told.groups);
        Ok(engine.stream_out(self.peer.as_ref().ok_or(Error::Proof)?, section, have)?)
    }

    /// Looks up what goes to the peer next of a stream, if anything has been looked up yet.
    fn offer(&mut self, engine: &Engine, section: Section) -> Result<(), Error> {
        if self.heads.is_none() {
            return Ok(());
        }
        let next = self.next_of(engine, section)?;
        self.keep(next)
    }

    fn keep(&mut self, next: StreamOut) -> Result<(), Error> {
        match next {
            StreamOut::Nothing => Ok(()),
            StreamOut::Group(group) => {
                if let Some(heads) = &mut self.heads {
                    heads.insert(group.place(), group);
                }
                Ok(())
            }
            // Everything else still goes to it.
            StreamOut::Folded if self.progress.peer_needs_snapshot => Ok(()),
            StreamOut::Folded => {
                self.progress.peer_needs_snapshot = true;
                self.say(&Message::Behind)
            }
        }
    }

    pub(super) fn begin_group(&mut self, engine: &mut Engine, group: GroupOut) -> Result<(), Error> {
        let Section { author, stream } = group.section;
        if !self.introduced.contains(&author) && author != engine.identity().id {
            for (id, certificate) in engine.author_certificates(group.dev)? {
                if !self.introduced.contains(&id) {
                    self.put(RecordKind::Certificate, &certificate)?;
                    self.introduced.insert(id);
                }
            }
            self.introduced.insert(author);
        }
        let have = told_of(&self.told, author, stream).map_or(0, |told| told.frames);
        let next = (have + 1).clamp(group.first, group.last + 1);
        if self.section_out != Some(group.section) || next > group.first {
            let mut buf = [0; 32];
            let len = put(&mut buf, &group.section).map_err(|_| Error::Protocol("a section"))?;
            self.put(RecordKind::Section, buf.get(..len).unwrap_or_default())?;
            self.section_out = Some(group.section);
        }
        self.sending = Some(Sending { group, next });
        Ok(())
    }

    /// Tells the peer what changed in what is applied here.
    pub(super) fn tell_vector(&mut self, engine: &mut Engine) -> Result<(), Error> {
        let Some(peer) = self.peer.as_ref().map(|p| p.id) else { return Ok(()) };
        let vector = engine.session_vector()?;
        let me = engine.identity().id;
        let first = self.vector.is_empty();
        let place = |entry: &VectorEntry| (entry.author, entry.stream.number());
        let is_new = |entry: &&VectorEntry| {
            let known = self.vector.binary_search_by_key(&place(entry), place);
            known.ok().and_then(|at| self.vector.get(at)).is_none_or(|known| known != *entry)
        };
        let changed: Vec<VectorEntry> = vector.iter().filter(is_new).copied().collect();
        if first || !changed.is_empty() {
            let mut told = if first { engine.session_places(peer)? } else { Vec::new() };
            told.retain(|place| !vector.contains(place));
            told.extend(vector.iter().filter(|entry| entry.author == me || is_new(entry)).copied());
            let header = engine.session_header(peer, &told)?;
            self.put(RecordKind::Header, &header)?;
            self.vector = vector;
            for VectorEntry { author, stream, .. } in changed {
                self.offer(engine, Section { author, stream })?;
            }
        }
        Ok(())
    }

    pub(super) fn say(&mut self, message: &Message<'_>) -> Result<(), Error> {
        let mut buf = [0; RECORD_BEFORE_PROOF];
        let len = message.encode(&mut buf).map_err(|_| Error::Protocol("a message without room"))?;
        self.put(RecordKind::Message, buf.get(..len).unwrap_or_default())
    }

    pub(super) fn put(&mut self, kind: RecordKind, body: &[u8]) -> Result<(), Error> {
        let at = self.out.len();
        self.out.resize(at + RECORD_HEAD_LEN + body.len() + 4, 0);
        let len = write_record(&mut self.out[at..], kind, body)
            .map_err(|_| EngineError::Usage("a record is too long to be sent".into()))?;
        self.out.truncate(at + len);
        Ok(())
    }

    /// Ends the session, and tells the peer why.
    pub(super) fn fail(&mut self, error: Error) -> Error {
        if self.phase == Phase::Over {
            return error;
        }
        self.phase = Phase::Over;
        // What came before something wrong did is of the same hand. What the peer thinks of us says nothing of it.
        if !matches!(error, Error::Refused { .. }) {
            self.drop_staged();
        }
        let about = self.peer.as_ref().map_or(DeviceId([0; 16]), |peer| peer.id);
        let said = match &error {
            Error::Refused { .. } => None,
            Error::Stranger(s) => Some((if s.revoked { Refusal::Revoked } else { Refusal::Stranger }, s.id)),
            Error::Engine(EngineError::Strangers(all)) => {
                all.first().map(|s| (if s.revoked { Refusal::Revoked } else { Refusal::Stranger }, s.id))
            }
            Error::Itself => Some((Refusal::Itself, about)),
            Error::Anew { was, .. } => Some((Refusal::Anew, *was)),
            Error::Version { .. } => Some((Refusal::Version, about)),
            Error::Engine(EngineError::Twin { .. }) => {
                Some((Refusal::Twin, self.section.map_or(about, |s| s.author)))
            }
            Error::Engine(EngineError::Bundle { .. }) | Error::Proof | Error::Protocol(_) => {
                Some((Refusal::Damaged, about))
            }
            Error::Engine(_) => Some((Refusal::Failed, about)),
        };
        if let Some((why, device)) = said {
            // Errors of it say nothing that the first does not.
            let _ = self.say(&Message::Refused { why, device });
        }
        error
    }
}
