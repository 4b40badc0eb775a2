//! Who can read what is left on the card.
//!
//! With encryption, everything is left for this device and all whose certificates it knows. Who is not known yet leaves
//! an introduction: its certificate alone, in clear. The others know it from then on, and it gets to know them by what
//! they leave; so rows are a round later than without encryption, and come by themselves all the same.
//!
//! 1. Who knows nobody leaves an introduction and nothing else.
//! 2. Who finds a file that it cannot read leaves one too: whoever made that may not know it.
//! 3. What lies there in clear, or can be read by a device that is revoked, is removed and left anew. So is what cannot be
//!    read by one who lacks it.

use super::Visit;
use super::ours::Ours;
use super::report::Removed;
use crate::engine::{Readers, Result, Trusted};

/// Who can read what is left.
pub(super) enum Secrecy {
    /// Anyone.
    Clear,
    /// This device alone: it knows no other yet, so rows are not left.
    Nobody,
    /// These.
    To(Readers),
}

impl Secrecy {
    /// Returns who can read what is left; `None` is anyone.
    pub(super) fn readers(&self) -> Option<&Readers> {
        match self {
            Self::To(readers) => Some(readers),
            Self::Clear | Self::Nobody => None,
        }
    }

    /// Returns whether a bundle that lies there can be read by all who are to read it now.
    pub(super) fn fits(&self, ours: &Ours) -> bool {
        match (self, &ours.readers) {
            (Self::Clear, readers) => readers.is_none(),
            (Self::Nobody, _) | (Self::To(_), None) => false,
            (Self::To(now), Some(readers)) => now.devices().is_subset(readers),
        }
    }

    /// Returns whether a bundle is left in clear since others may not know this device.
    pub(super) fn introduces(&self, ours: &Ours) -> bool {
        !matches!(self, Self::Clear) && ours.is_introduction()
    }

    /// Returns whether a bundle of ours counts as left for anyone.
    pub(super) fn counts(&self, ours: &Ours) -> bool {
        matches!(self, Self::Clear) == ours.readers.is_none()
    }
}

impl Visit<'_> {
    /// Decides who can read what is left, once all that lies there is taken in.
    pub(super) fn choose_readers(&mut self) -> Result<()> {
        if matches!(self.secrecy, Secrecy::Nobody) {
            let readers = self.engine.fleet_readers()?;
            if readers.devices().len() > 1 {
                self.secrecy = Secrecy::To(readers);
            }
        }
        Ok(())
    }

    /// Returns why a bundle of ours is not to lie there, for whoever can read it or cannot.
    pub(super) fn is_for_others_eyes(&self, ours: &Ours, peers: &[Trusted]) -> Result<Option<Removed>> {
        let Some(readers) = &ours.readers else {
            let fits = matches!(self.secrecy, Secrecy::Clear) || self.secrecy.introduces(ours);
            return Ok((!fits).then_some(Removed::InClear));
        };
        for reader in readers {
            if self.engine.is_revoked(*reader)? {
                return Ok(Some(Removed::ReadByRevoked));
            }
        }
        let Secrecy::To(now) = &self.secrecy else { return Ok(None) };
        let now = now.devices();
        for peer in peers.iter().filter(|peer| now.contains(&peer.id) && !readers.contains(&peer.id)) {
            let for_it = ours.receiver.is_none_or(|receiver| receiver == peer.id);
            if for_it && !self.has(peer, &ours.spans)? {
                return Ok(Some(Removed::Unreadable));
            }
        }
        Ok(None)
    }

    /// Leaves an introduction, if one is needed and none lies there that is as it would be now; removes others.
    pub(super) fn introduce(&mut self) -> Result<()> {
        let needed = match self.secrecy {
            Secrecy::Clear => return Ok(()),
            Secrecy::Nobody => true,
            Secrecy::To(_) => self.locked,
        };
        let certificates = self.engine.introduction()?;
        let is_good = |ours: &Ours| needed && certificates == ours.certificates;
        let old = self.ours.extract_if(.., |ours| ours.is_introduction() && !is_good(ours));
        let old = old.map(|ours| (ours.path, Removed::Superseded)).collect();
        self.remove(old)?;
        if needed && !self.ours.iter().any(Ours::is_introduction) {
            self.leave_introduction()?;
        }
        Ok(())
    }
}
