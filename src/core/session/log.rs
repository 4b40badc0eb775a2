//! What a session needs of the log: [`Log`], and what goes between the two.

use super::Body;
use crate::model::DeviceId;
use crate::wire::{Certificate, HeaderReader, Offer, Refusal, Section};

/// A log of frames as a session sees it: on a board a database, on a microcontroller some pages of flash.
///
/// What grows with the number of devices is here and not in the session: what the peer has (the *peer frontier*),
/// which certificates it was given, what came and is not committed yet. A log lives for longer than a session; what it
/// keeps for one session begins again with the next.
///
/// | when | calls |
/// |---|---|
/// | at the beginning | [`seal`](Log::seal), [`certificate`](Log::certificate) |
/// | who the peer is | [`verify_certificate`](Log::verify_certificate), [`next_succession`](Log::next_succession), [`hear_succession`](Log::hear_succession), [`verify_again`](Log::verify_again), [`prove`](Log::prove), [`store_certificate`](Log::store_certificate) |
/// | what is here | [`next_revocation`](Log::next_revocation), [`next_here`](Log::next_here), [`header`](Log::header) |
/// | what the peer has | [`peer_has`](Log::peer_has), [`receive_header`](Log::receive_header), [`record_acks`](Log::record_acks) |
/// | it was set back | [`next_newest`](Log::next_newest), [`hear_newest`](Log::hear_newest) |
/// | frames go out | [`plan`](Log::plan), [`next_group`](Log::next_group), [`next_certificate`](Log::next_certificate), [`frame`](Log::frame), [`checkpoint`](Log::checkpoint) |
/// | the state, for who lacks what is folded | [`offer_state`](Log::offer_state), [`state_chunk`](Log::state_chunk), [`state_taken`](Log::state_taken); [`want_state`](Log::want_state), [`take_state`](Log::take_state) |
/// | frames come in | [`stage`](Log::stage), [`commit`](Log::commit), [`settle`](Log::settle), [`discard`](Log::discard) |
///
/// # What must be durable
/// A log that loses its power at any moment must still have what [`commit`](Log::commit) returned for: the session
/// acknowledges it. It must never have a part of a group applied. What was only staged may be lost: it comes again.
/// What [`record_acks`](Log::record_acks) wrote may be lost too, never be there before the peer has sent it.
///
/// # Errors
/// Whatever a call returns as its error ends the session; the peer hears [`Log::refusal`] of it.
pub trait Log {
    /// Why the log refused.
    type Error;
    /// What the log reports of what it took in; `()` where nobody watches.
    type Taken: Default;

    /// From so many staged bytes on they are committed at once, also while more is there to be taken.
    const STAGE_BYTES: usize = 16_384;
    /// From so many staged bytes on they are committed as soon as nothing more is there. A transaction for every small
    /// frame would wear an SD card for nothing.
    const SOON_BYTES: usize = 4_096;

    /// Seals what was written here. Returns whether anything may have been, since the last time.
    ///
    /// # Errors
    /// As the trait says; so for all others.
    fn seal(&mut self) -> Result<bool, Self::Error>;

    /// Appends this device's certificate. Returns the device's id.
    ///
    /// # Errors
    /// As the trait says.
    fn certificate(&mut self, body: &mut Body<'_>) -> Result<DeviceId, Self::Error>;

    /// Returns whether the peer may have this nonce. Where the channel is encrypted, both nonces follow from it: a proof,
    /// which signs them, then holds in this channel alone.
    fn may_have_nonce(&self, nonce: &[u8; 32]) -> bool {
        let _ = nonce;
        true
    }

    /// Decides whether the peer's certificate is trusted, whose own signatures are valid: whether the fleet that
    /// signed it is one of ours is for the log to say. The log remembers the peer for the rest of the session.
    ///
    /// # Errors
    /// As the trait says.
    fn verify_certificate(
        &mut self,
        certificate: &Certificate<'_>,
        bytes: &[u8],
    ) -> Result<Trust, Self::Error>;

    /// Appends the next statement that a fleet key follows another one, which the peer may need to trust this device.
    /// Returns whether there was one. A log that keeps none leaves it out.
    ///
    /// # Errors
    /// As the trait says.
    fn next_succession(&mut self, body: &mut Body<'_>) -> Result<bool, Self::Error> {
        let _ = body;
        Ok(false)
    }

    /// Hears such a statement of a peer that has proved nothing yet: only what a key of our own fleet has signed counts.
    ///
    /// # Errors
    /// As the trait says.
    fn hear_succession(&mut self, bytes: &[u8]) -> Result<(), Self::Error> {
        let _ = bytes;
        Ok(())
    }

    /// Decides about a peer that was [`Trust::Pending`] once more, after all that it says before its proof.
    ///
    /// # Errors
    /// As the trait says.
    fn verify_again(&mut self) -> Result<Trust, Self::Error> {
        Ok(Trust::Untrusted)
    }

    /// Signs, as [`Message::prove`](crate::wire::Message::prove) does, that this device has its key.
    ///
    /// # Errors
    /// As the trait says.
    fn prove(&mut self, nonce: &[u8; 32], peer: (DeviceId, &[u8; 32])) -> Result<[u8; 64], Self::Error>;

    /// Keeps the certificate that was last trusted: the peer has proved that it has the key.
    ///
    /// # Errors
    /// As the trait says.
    fn store_certificate(&mut self) -> Result<(), Self::Error>;

    /// Appends the next certificate that the peer is to hear before all else: its own, if a fleet has signed it and it
    /// does not know that; or a further one of this device. Returns whether there was one. A log that has no such thing
    /// leaves it out.
    ///
    /// # Errors
    /// As the trait says.
    fn next_introduction(&mut self, body: &mut Body<'_>) -> Result<bool, Self::Error> {
        let _ = body;
        Ok(false)
    }

    /// Returns the next stream of which more is here than the vector has, `None` after the last. `after`: the one that
    /// was returned before it, in whatever order. A log that has no such thing leaves it out.
    ///
    /// # Errors
    /// As the trait says.
    fn next_here(&mut self, after: Option<Section>) -> Result<Option<Frontier>, Self::Error> {
        let _ = after;
        Ok(None)
    }

    /// Appends a signed [`Header`](crate::wire::Header) with what is applied here: all of it the first time, later
    /// this device's own streams and what changed. Returns whether there is anything to send; the first time there is.
    ///
    /// # Errors
    /// As the trait says.
    fn header(&mut self, body: &mut Body<'_>) -> Result<bool, Self::Error>;

    /// Raises the peer frontier: frames up to there need not be sent. It acknowledges nothing.
    ///
    /// # Errors
    /// As the trait says.
    fn peer_has(&mut self, frontier: Frontier) -> Result<(), Self::Error>;

    /// Receives the peer's vector, whose signature is verified: compares it with what is here, raises the peer
    /// frontier, and collects what the peer acknowledges.
    ///
    /// # Errors
    /// As the trait says.
    fn receive_header(&mut self, header: &HeaderReader<'_>) -> Result<Heard, Self::Error>;

    /// Appends, as a [`Newest`](crate::wire::Newest), the next newest checkpoint of the peer's own streams, if its vector
    /// shows that it has less of them than is here, or another history. Returns whether there was one. A log that keeps
    /// none leaves it out: the peer's frames are shown by themselves.
    ///
    /// # Errors
    /// As the trait says.
    fn next_newest(&mut self, body: &mut Body<'_>) -> Result<bool, Self::Error> {
        let _ = body;
        Ok(false)
    }

    /// Hears up to where a stream of this device goes at the peer. Only what this device has signed itself says anything.
    /// Returns whether this device takes a new identity by it, as a divergent history of its own.
    ///
    /// # Errors
    /// As the trait says.
    fn hear_newest(&mut self, bytes: &[u8]) -> Result<bool, Self::Error> {
        let _ = bytes;
        Ok(false)
    }

    /// Records what the peer has acknowledged since the last time.
    ///
    /// # Errors
    /// As the trait says.
    fn record_acks(&mut self) -> Result<(), Self::Error>;

    /// Counts the frames, and their bytes, that the peer lacks: for people who watch.
    ///
    /// # Errors
    /// As the trait says.
    fn plan(&mut self) -> Result<(u64, u64), Self::Error> {
        Ok((0, 0))
    }

    /// Appends the next revocation that was not given to the peer in this session. Returns whether there was one. A log
    /// that keeps none leaves it out.
    ///
    /// # Errors
    /// As the trait says.
    fn next_revocation(&mut self, body: &mut Body<'_>) -> Result<bool, Self::Error> {
        let _ = body;
        Ok(false)
    }

    /// Returns the next group that the peer lacks, in an order in which no group comes before one that its author had
    /// seen. It is the current group until the next call.
    ///
    /// # Errors
    /// As the trait says.
    fn next_group(&mut self) -> Result<NextGroup, Self::Error>;

    /// Appends the next certificate that the peer needs to verify frames of this author and was not given in this
    /// session, issuers first. Returns whether there was one.
    ///
    /// # Errors
    /// As the trait says.
    fn next_certificate(&mut self, author: DeviceId, body: &mut Body<'_>) -> Result<bool, Self::Error>;

    /// Appends a frame of the current group.
    ///
    /// # Errors
    /// As the trait says.
    fn frame(&mut self, seq: u64, body: &mut Body<'_>) -> Result<(), Self::Error>;

    /// Appends the checkpoint of the current group, which the peer then has.
    ///
    /// # Errors
    /// As the trait says.
    fn checkpoint(&mut self, body: &mut Body<'_>) -> Result<(), Self::Error>;

    /// Makes the state ready that the peer needs to go on, if this log has such a thing; or finds the one that the peer
    /// has a part of, if that is still of use. It stays as it is, byte by byte, until another is offered.
    ///
    /// # Errors
    /// As the trait says.
    fn offer_state(&mut self) -> Result<Option<Offer>, Self::Error> {
        Ok(None)
    }

    /// Reads the bytes of the offered state from `at` on, as many as `to` has room for.
    ///
    /// # Errors
    /// As the trait says.
    fn state_chunk(&mut self, at: u64, to: &mut [u8]) -> Result<(), Self::Error> {
        let _ = (at, to);
        Ok(())
    }

    /// Handles that the peer has taken in the offered state. Its vector came before.
    ///
    /// # Errors
    /// As the trait says.
    fn state_taken(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }

    /// Returns from which byte on this log wants the state that the peer offers: what it has kept of it need not come
    /// again. `None` where it takes none; then what is folded at the peer comes by no session.
    ///
    /// # Errors
    /// As the trait says.
    fn want_state(&mut self, offer: &Offer) -> Result<Option<u64>, Self::Error> {
        let _ = offer;
        Ok(None)
    }

    /// Takes in the state, of which every chunk was committed: all of it, or nothing. One that is refused keeps the rest
    /// of the session from nothing.
    ///
    /// # Errors
    /// As the trait says.
    fn take_state(&mut self, taken: &mut Self::Taken) -> Result<Intake, Self::Error> {
        let _ = taken;
        Ok(Intake::Refused)
    }

    /// Decides what could not be decided before all had come, now that the peer has nothing more for the moment: this end
    /// says that it has all of it only after that. Returns whether there may be new groups for the peer.
    ///
    /// # Errors
    /// As the trait says.
    fn settle(&mut self) -> Result<bool, Self::Error> {
        Ok(false)
    }

    /// Keeps what came until it is committed. Nothing of it is verified but its form.
    ///
    /// # Errors
    /// As the trait says.
    fn stage(&mut self, item: Incoming<'_>) -> Result<(), Self::Error>;

    /// Commits what is staged, which is then no longer so, also after an error. Groups whose checkpoint is among it
    /// are verified before anything of them is applied.
    ///
    /// # Errors
    /// As the trait says.
    fn commit(&mut self, taken: &mut Self::Taken) -> Result<(), Self::Error>;

    /// Drops what is staged.
    fn discard(&mut self);

    /// Returns what the peer hears of an error, and whom it is about if not the peer.
    fn refusal(error: &Self::Error) -> (Refusal, Option<DeviceId>) {
        let _ = error;
        (Refusal::Failed, None)
    }
}

/// What a log decides about a certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Trust {
    /// The device is trusted.
    Trusted,
    /// It is not trusted.
    Untrusted,
    /// It was trusted once.
    Revoked,
    /// It is not trusted so far, but may be signed by a key that follows our fleet's: what it says before its proof
    /// decides.
    Pending,
}

/// Up to where somebody has a stream, and what it has of the group after that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Frontier {
    /// Whose stream.
    pub section: Section,
    /// Whole groups up to this frame.
    pub groups: u64,
    /// Frames up to this one.
    pub frames: u64,
}

impl Frontier {
    /// Raises it to another of the same stream; neither part is lowered.
    pub fn raise(&mut self, other: &Self) {
        self.groups = self.groups.max(other.groups);
        self.frames = self.frames.max(other.frames).max(self.groups);
    }
}

/// A group that goes to the peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Group {
    /// Whose.
    pub section: Section,
    /// Its first frame.
    pub first: u64,
    /// Its last.
    pub last: u64,
    /// The first frame of it that the peer lacks; one behind the last if it lacks the checkpoint alone.
    pub next: u64,
}

/// What goes to the peer next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum NextGroup {
    /// This group.
    Group(Group),
    /// Of some stream the peer lacks frames that are folded here. All others still go to it: the session
    /// informs the peer and asks again. A log returns it once for each such stream at the most.
    Behind,
    /// It has all that is here for it.
    Nothing,
}

/// What came, whole and well formed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Incoming<'a> {
    /// A device's certificate.
    Certificate(&'a [u8]),
    /// A fleet's revocation of a device.
    Revocation(&'a [u8]),
    /// A frame, and its sequence number.
    Frame(Section, u64, &'a [u8]),
    /// A group's checkpoint.
    Checkpoint(&'a [u8]),
    /// The next bytes of the state that is wanted. They may be lost without harm: the state is then whole later.
    Chunk(&'a [u8]),
}

impl Incoming<'_> {
    /// Returns how long it is.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Certificate(bytes)
            | Self::Revocation(bytes)
            | Self::Frame(_, _, bytes)
            | Self::Checkpoint(bytes)
            | Self::Chunk(bytes) => bytes.len(),
        }
    }
}

/// What a log makes of the peer's state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Intake {
    /// It is taken in.
    Taken,
    /// It is not, and nothing of it is here.
    Refused,
    /// It is taken in, and shows that this device is a divergent history of its identity, which has taken a new one.
    NewIdentity,
}

/// What a log makes of the peer's vector.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Heard {
    /// The peer has acknowledged so many frames in all that this device wrote.
    Acknowledged(u64),
    /// This device is a divergent history of its identity and has taken a new one.
    NewIdentity,
}
