//! Whether something was written here that the other end lacks.

use packmule_core::model::DeviceId;

use super::Met;
use crate::carry::card::lacking::lacks;
use crate::engine::{Engine, Result, Span};

/// What was there when a round was begun, and whom it met. What cannot be read is no news: the next round says why.
///
/// A session writes to the database itself, and so do other links. So that two links do not wake each other without end,
/// something counts as news only if the log is not what it was, and the other end is not known to have it.
#[derive(Default)]
pub(super) struct Watch {
    version: Option<i64>,
    log: Vec<Span>,
    peer: Option<DeviceId>,
}

impl Watch {
    /// Records what is there now: what is written from here on is news.
    pub(super) fn begins(&mut self, engine: &mut Engine) {
        self.version = engine.data_version().ok();
        // What was written before is sealed now, and goes with this round.
        if let Ok(log) = sealed(engine) {
            self.log = log;
        }
    }

    /// Records whom the round has met. Of one that met nobody, such as a card, all that is in the log now has gone.
    pub(super) fn ended(&mut self, engine: &mut Engine, met: &Met) {
        self.peer = met.peer;
        if met.peer.is_none() {
            self.log = engine.log_spans().unwrap_or_default();
        }
    }

    /// Returns whether another program, or another link, has written to the database. Costs next to nothing.
    pub(super) fn has_changed(&mut self, engine: &Engine) -> bool {
        let Ok(version) = engine.data_version() else { return false };
        self.version.replace(version) != Some(version)
    }

    /// Seals what was written. Returns whether the other end lacks something that was not here before.
    pub(super) fn has_news(&mut self, engine: &mut Engine) -> bool {
        let Ok(log) = sealed(engine) else { return false };
        if log == self.log {
            return false;
        }
        let news = match self.peer {
            Some(peer) => peer_lacks(engine, peer, &log).unwrap_or(false),
            None => true,
        };
        self.log = log;
        news
    }
}

fn sealed(engine: &mut Engine) -> Result<Vec<Span>> {
    engine.seal()?;
    engine.log_spans()
}

fn peer_lacks(engine: &Engine, peer: DeviceId, log: &[Span]) -> Result<bool> {
    let peers = engine.peers()?;
    let Some(trusted) = peers.iter().find(|known| known.id == peer) else { return Ok(false) };
    let mut have = engine.acknowledged_by(peer)?;
    // It has what it wrote.
    have.extend(log.iter().filter(|span| span.author == peer).map(|span| ((peer, span.stream), u64::MAX)));
    Ok(lacks(log, &have, Some(trusted)))
}
