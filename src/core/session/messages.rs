//! What the peer sends besides frames.

use super::state::Input;
use super::{Buffer, Error, Frontier, Log, Machine, Peer, SINCE, Trust};
use crate::model::DeviceId;
use crate::wire::{
    Certificate, FRAME_VERSION, Message, Refusal, SESSION_VERSION, SESSION_VERSION_MIN, Section,
};

impl<B: Buffer, T> Machine<B, T> {
    pub(super) fn receive_message<L: Log<Taken = T>>(
        &mut self,
        log: &mut L,
        now_ms: u64,
        message: &Message<'_>,
    ) -> Result<(), Error<L::Error>> {
        match *message {
            Message::Refused { why, device } => Err(self.refused(log, why, device)),
            Message::Hello { session, format, nonce, certificate } => {
                self.allow(Input::Hello)?;
                // The highest that both speak.
                self.version = session.1.min(SESSION_VERSION);
                if self.version < session.0.max(SESSION_VERSION_MIN) {
                    return Err(Error::Version { theirs: session.1 });
                }
                if !(format.0..=format.1).contains(&FRAME_VERSION) {
                    return Err(Error::Version { theirs: format.1 });
                }
                self.receive_hello(log, &nonce, certificate)
            }
            Message::Proof(signature) => {
                self.allow(Input::Proof)?;
                self.receive_proof(log, signature)
            }
            Message::Follows(statement) => {
                self.step(log, Input::Follows)?;
                log.hear_succession(statement).map_err(Error::Log)
            }
            Message::Here { author, stream, groups, frames } => {
                self.step(log, Input::Here)?;
                let frontier = Frontier { section: Section { author, stream }, groups, frames };
                log.peer_has(frontier).map_err(Error::Log)
            }
            Message::Plan { frames, bytes } => {
                self.step(log, Input::Figure)?;
                self.progress.expect(frames, bytes);
                Ok(())
            }
            Message::Behind => {
                self.step(log, Input::Figure)?;
                self.progress.needs_snapshot = true;
                Ok(())
            }
            Message::Offer(_) | Message::Want(_) | Message::Decline | Message::Chunk(_) | Message::Took => {
                self.receive_of_state(log, now_ms, message)
            }
            Message::Idle(count) => {
                self.allow(Input::Idle)?;
                self.peer_idle = count;
                self.step(log, Input::Idle)
            }
            Message::Settled(count) => {
                self.allow(Input::Settled)?;
                if count > self.idle {
                    return Err(Error::Protocol("an answer that nobody asked for"));
                }
                self.settled_in = count;
                self.step(log, Input::Settled)
            }
            Message::Bye => {
                self.allow(Input::Bye)?;
                self.peer_bye = true;
                self.step(log, Input::Bye)
            }
        }
    }

    /// Returns why the session ends, where the peer goes no further: that it is not trusted here is the nearer reason.
    fn refused<L: Log<Taken = T>>(&self, log: &mut L, why: Refusal, about: DeviceId) -> Error<L::Error> {
        if let Some(Peer { pending: true, id, .. }) = self.peer
            && let Err(nearer) = log.verify_again().map_err(Error::Log).and_then(|trust| trusted(trust, id))
        {
            return nearer;
        }
        Error::Refused { why, about, us: about == self.me }
    }

    fn receive_hello<L: Log<Taken = T>>(
        &mut self,
        log: &mut L,
        nonce: &[u8; 32],
        bytes: &[u8],
    ) -> Result<(), Error<L::Error>> {
        if !log.may_have_nonce(nonce) {
            return Err(Error::Proof);
        }
        let certificate = Certificate::decode(bytes).map_err(Error::Damaged)?;
        let device = certificate.device();
        let trust = log.verify_certificate(&certificate, bytes).map_err(Error::Log)?;
        // An older peer says nothing that could decide.
        let pending = trust == Trust::Pending && self.version >= SINCE;
        if !pending {
            trusted(trust, device)?;
        }
        if device == self.me {
            return Err(Error::Itself { echo: *nonce == self.nonce });
        }
        let public_key = certificate.public_key;
        self.peer = Some(Peer { id: device, public_key, nonce: *nonce, proved: false, pending });
        self.step(log, Input::Hello)?;
        self.owe_successions(self.version >= SINCE);
        Ok(())
    }

    fn receive_proof<L: Log<Taken = T>>(
        &mut self,
        log: &mut L,
        signature: &[u8],
    ) -> Result<(), Error<L::Error>> {
        let peer = self.peer()?;
        let us = (self.me, &self.nonce);
        Message::check_proof(signature, &peer.public_key, (peer.id, &peer.nonce), us)
            .map_err(|_| Error::Proof)?;
        if peer.pending {
            trusted(log.verify_again().map_err(Error::Log)?, peer.id)?;
        }
        log.store_certificate().map_err(Error::Log)?;
        self.peer = Some(Peer { proved: true, pending: false, ..peer });
        self.step(log, Input::Proof)
    }
}

/// Refuses a device that is not trusted.
fn trusted<E>(trust: Trust, device: DeviceId) -> Result<(), Error<E>> {
    match trust {
        Trust::Trusted => Ok(()),
        Trust::Untrusted | Trust::Pending => Err(Error::Untrusted { device, revoked: false }),
        Trust::Revoked => Err(Error::Untrusted { device, revoked: true }),
    }
}
