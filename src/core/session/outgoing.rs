//! What goes out: one record at a time, so that the buffer need never hold two. What came meanwhile only sets what is
//! owed.

use super::buffer::written;
use super::state::{Acts, Input, next};
use super::{Buffer, Error, Group, Log, MESSAGE_MAX, Machine, NextGroup, SINCE_NEWEST, State};
use crate::model::DeviceId;
use crate::wire::{CERT_MAX, Message, NoRoom, RecordKind, Refusal, Section, put};

/// What is to be sent before the next frame, in this order.
#[derive(Default)]
pub(super) struct Owed {
    /// Which fleet keys follow which.
    successions: bool,
    proof: bool,
    /// Certificates that the peer is to hear first.
    certificates: bool,
    /// What is here beyond the vector, after this stream; then the vector.
    here: Option<Option<Section>>,
    /// The newest checkpoints of the peer's own streams, if it has less of them.
    newest: bool,
    plan: bool,
    revocations: bool,
    /// What changed in the vector.
    pub(super) header: bool,
    behind: bool,
    bye: bool,
}

/// A group that is being sent.
pub(super) struct Sending {
    group: Group,
    /// The peer has all certificates for it.
    introduced: bool,
    /// Its section has been sent.
    section: bool,
}

impl<B: Buffer, T> Machine<B, T> {
    /// Adds what a transition makes this end owe.
    pub(super) fn owe(&mut self, acts: &Acts) {
        let owed = &mut self.owed;
        owed.proof |= acts.prove;
        owed.plan |= acts.plan;
        owed.newest |= acts.plan && self.version >= SINCE_NEWEST;
        owed.revocations |= acts.introduce;
        owed.bye |= acts.bye;
        self.more_out |= acts.plan;
        if acts.introduce {
            owed.certificates = true;
            owed.here = Some(None);
        }
        if acts.bye {
            self.sending = None;
            self.transfer.stop_sending();
        }
    }

    /// Returns whether anything is owed.
    pub(super) fn owes(&self) -> bool {
        let Owed { successions, proof, certificates, here, newest, plan, revocations, header, behind, bye } =
            &self.owed;
        *successions
            || *proof
            || *certificates
            || here.is_some()
            || *header
            || *newest
            || *plan
            || *revocations
            || *behind
            || *bye
            || self.transfer.owes()
            || self.settled_out != self.committed_idle
    }

    /// Returns whether the peer does not know yet what is here.
    pub(super) fn owes_vector(&self) -> bool {
        self.owed.here.is_some()
    }

    /// Sends what is here, and what is owed before it.
    pub(super) fn introduce<L: Log<Taken = T>>(&mut self, log: &mut L) -> Result<(), Error<L::Error>> {
        while self.state != State::Over && self.owes_vector() {
            self.send_owed(log)?;
        }
        Ok(())
    }

    /// Appends the next record to `out`, which is empty, if there is anything to send.
    pub(super) fn produce<L: Log<Taken = T>>(&mut self, log: &mut L) -> Result<(), Error<L::Error>> {
        self.out.truncate(0);
        while self.state != State::Over && self.out.queued() == 0 {
            if !self.send_owed(log)? && !self.send_on(log)? {
                break;
            }
        }
        Ok(())
    }

    /// Sends the first thing that is owed. Returns whether there was one.
    fn send_owed<L: Log<Taken = T>>(&mut self, log: &mut L) -> Result<bool, Error<L::Error>> {
        use core::mem::take;
        if self.owed.successions {
            self.send_succession(log)?;
        } else if take(&mut self.owed.proof) {
            let peer = self.peer()?;
            let proof = log.prove(&self.nonce, (peer.id, &peer.nonce)).map_err(Error::Log)?;
            self.send_message(&Message::Proof(&proof))?;
        } else if self.owed.revocations {
            // Before the vector: what the peer has of a revoked device need not be compared.
            let given = self.out.record(RecordKind::Revocation, |body| log.next_revocation(body))?;
            self.owed.revocations = given.map_err(Error::Log)?.is_some();
        } else if self.owed.certificates {
            let sent = self.out.record(RecordKind::Certificate, |body| log.next_introduction(body))?;
            self.owed.certificates = sent.map_err(Error::Log)?.is_some();
        } else if let Some(after) = self.owed.here {
            let Some(here) = log.next_here(after).map_err(Error::Log)? else {
                self.owed.here = None;
                self.send_vector(log)?;
                return Ok(true);
            };
            self.owed.here = Some(Some(here.section));
            let Section { author, stream } = here.section;
            self.send_message(&Message::Here { author, stream, groups: here.groups, frames: here.frames })?;
        } else if self.owed.newest {
            // Before all groups: a peer that was set back is to write no more before it has them.
            let shown = self.out.record(RecordKind::Newest, |body| log.next_newest(body))?;
            self.owed.newest = shown.map_err(Error::Log)?.is_some();
        } else if take(&mut self.owed.plan) {
            self.progress.to_send = log.plan().map_err(Error::Log)?;
            let (frames, bytes) = self.progress.to_send;
            self.send_message(&Message::Plan { frames, bytes })?;
        } else if take(&mut self.owed.header) {
            self.send_vector(log)?;
        } else if self.settled_out != self.committed_idle {
            self.settled_out = self.committed_idle;
            self.send_message(&Message::Settled(self.settled_out))?;
        } else if self.send_word()? {
        } else if take(&mut self.owed.behind) {
            self.send_message(&Message::Behind)?;
        } else if take(&mut self.owed.bye) {
            self.send_message(&Message::Bye)?;
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    /// Goes on with the group that is being sent, or begins the next. Returns whether there was anything to do.
    fn send_on<L: Log<Taken = T>>(&mut self, log: &mut L) -> Result<bool, Error<L::Error>> {
        if self.state != State::Open {
            return Ok(false);
        }
        if self.sending.is_some() {
            self.send_group(log)?;
            return Ok(true);
        }
        if self.transfer.is_going() {
            return self.send_chunk(log);
        }
        if !self.more_out {
            return Ok(false);
        }
        match log.next_group().map_err(Error::Log)? {
            NextGroup::Group(group) => {
                self.idle_current = false;
                self.begin_group(group);
            }
            NextGroup::Behind => {
                if !self.offer_state(log)? {
                    self.say_behind();
                }
            }
            NextGroup::Nothing => {
                self.more_out = false;
                if self.idle_current {
                    return Ok(false);
                }
                self.idle += 1;
                self.idle_current = true;
                self.send_message(&Message::Idle(self.idle))?;
            }
        }
        Ok(true)
    }

    /// Makes this end owe the peer which fleet keys follow which.
    pub(super) fn owe_successions(&mut self, owes: bool) {
        self.owed.successions |= owes;
    }

    /// Sends the next statement that a fleet key follows another one.
    fn send_succession<L: Log<Taken = T>>(&mut self, log: &mut L) -> Result<(), Error<L::Error>> {
        let mut statement = heapless::Vec::<u8, CERT_MAX>::new();
        let more = written(&mut statement, |body| log.next_succession(body))?.map_err(Error::Log)?;
        self.owed.successions = more;
        if more { self.send_message(&Message::Follows(&statement)) } else { Ok(()) }
    }

    /// Tells the peer once that it lacks what this session does not bring.
    pub(super) fn say_behind(&mut self) {
        self.owed.behind |= !self.progress.peer_needs_snapshot;
        self.progress.peer_needs_snapshot = true;
    }

    fn begin_group(&mut self, group: Group) {
        let next = group.next.clamp(group.first, group.last + 1);
        self.sending = Some(Sending {
            group: Group { next, ..group },
            // Our own certificate went with the hello.
            introduced: group.section.author == self.me,
            // A group that goes on where it broke off begins with its section.
            section: self.section_out == Some(group.section) && next == group.first,
        });
    }

    /// Sends the next record of the group: certificates, section, frames, checkpoint.
    fn send_group<L: Log<Taken = T>>(&mut self, log: &mut L) -> Result<(), Error<L::Error>> {
        let Some(Sending { group, introduced, section }) = &mut self.sending else { return Ok(()) };
        if !*introduced {
            let author = group.section.author;
            let given =
                self.out.record(RecordKind::Certificate, |body| log.next_certificate(author, body))?;
            *introduced = given.map_err(Error::Log)?.is_none();
        } else if !*section {
            *section = true;
            self.section_out = Some(group.section);
            let section = group.section;
            self.out.record(RecordKind::Section, |body| {
                let mut encoded = [0; 32];
                let len = put(&mut encoded, &section)?;
                body.extend(encoded.get(..len).unwrap_or_default());
                Ok::<_, NoRoom>(true)
            })??;
        } else if group.next <= group.last {
            let seq = group.next;
            group.next += 1;
            let sent = self.out.record(RecordKind::Frame, |body| log.frame(seq, body).map(|()| true))?;
            self.progress.count_sent(sent.map_err(Error::Log)?.unwrap_or(0));
        } else {
            self.sending = None;
            self.out
                .record(RecordKind::Checkpoint, |body| log.checkpoint(body).map(|()| true))?
                .map_err(Error::Log)?;
        }
        Ok(())
    }

    /// Sends what is applied here, if the peer does not know it.
    fn send_vector<L: Log<Taken = T>>(&mut self, log: &mut L) -> Result<(), Error<L::Error>> {
        self.out.record(RecordKind::Header, |body| log.header(body))?.map_err(Error::Log)?;
        Ok(())
    }

    pub(super) fn send_message<E>(&mut self, message: &Message<'_>) -> Result<(), Error<E>> {
        self.out.record(RecordKind::Message, |body| {
            let mut encoded = [0; MESSAGE_MAX];
            let len = message.encode(&mut encoded)?;
            body.extend(encoded.get(..len).unwrap_or_default());
            Ok::<_, NoRoom>(true)
        })??;
        Ok(())
    }

    /// Ends the session, and owes the peer the reason.
    pub(super) fn fail<L: Log<Taken = T>>(&mut self, log: &mut L, error: Error<L::Error>) -> Error<L::Error> {
        let refused = matches!(error, Error::Refused { .. });
        let input = if refused { Input::Refused } else { Input::Failure };
        let Some((to, acts)) = next(self.state, input) else { return error };
        self.state = to;
        if acts.discard {
            self.discard(log);
        }
        if let (true, Some((why, about))) = (acts.refuse, error.refusal::<L>()) {
            let peer = self.peer.map_or(DeviceId([0; 16]), |peer| peer.id);
            let author = self.section.filter(|_| why == Refusal::Twin).map(|section| section.author);
            let device = about.or(author).unwrap_or(peer);
            if why == Refusal::Twin && self.version >= SINCE_NEWEST {
                self.show_newest(log);
            }
            let mut encoded = [0; 32];
            if let Ok(len) = (Message::Refused { why, device }).encode(&mut encoded) {
                self.out.last_record(RecordKind::Message, encoded.get(..len).unwrap_or_default());
            }
        }
        error
    }

    /// Shows a peer of which another history is here what is here, as far as there is room: a history that is longer could
    /// not be told by its vector, and the peer hears by this which of the two is the second.
    fn show_newest<L: Log<Taken = T>>(&mut self, log: &mut L) {
        while let Ok(Ok(Some(_))) = self.out.record(RecordKind::Newest, |body| log.next_newest(body)) {}
    }
}
