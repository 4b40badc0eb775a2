//! A bundle of ours that lies on the card.

use std::collections::BTreeSet;
use std::path::PathBuf;

use packmule_core::model::DeviceId;
use packmule_core::wire::Position;

use crate::engine::{Positions, Span};

/// A bundle of ours that lies on the card, whole.
pub(super) struct Ours {
    pub path: PathBuf,
    /// It states what we have as who we are now: as no copy of our card would, nor did we before we were set back.
    pub of_now: bool,
    pub receiver: Option<DeviceId>,
    pub vector: Positions,
    /// The same, with what tells one history from another.
    pub applied: Vec<Position>,
    pub spans: Vec<Span>,
    /// It has the state of the shared tables, for who has this.
    pub state: bool,
    pub since: Positions,
    pub certificates: BTreeSet<[u8; 32]>,
    /// Who can read it; `None` is anyone.
    pub readers: Option<BTreeSet<DeviceId>>,
}

impl Ours {
    /// Returns whether a device can read it.
    pub(super) fn opens_for(&self, device: DeviceId) -> bool {
        self.readers.as_ref().is_none_or(|readers| readers.contains(&device))
    }

    /// Returns whether it tells who this device is, and nothing else.
    pub(super) fn is_introduction(&self) -> bool {
        self.readers.is_none() && self.spans.is_empty() && self.vector.is_empty()
    }
}
