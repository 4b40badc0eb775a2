//! What the peer has, and which group goes to it next.

use std::collections::BTreeMap;

use packmule_core::model::DeviceId;
use packmule_core::session::{Frontier, Group, NextGroup};
use packmule_core::wire::Section;

use crate::engine::{Engine, GroupOut, Peer, Result, StreamOut, frontier_of};

/// The place of a group in the causal order.
type Place = (u64, DeviceId, u8, u64);

/// What goes to a peer.
#[derive(Default)]
pub(super) struct Outgoing {
    /// The peer frontier: what the peer has, or was sent; in the order of authors and streams.
    frontier: Vec<Frontier>,
    /// The next group of each stream that has one for the peer, in the causal order; `None` until it is looked up.
    heads: Option<BTreeMap<Place, GroupOut>>,
    /// The group that is being sent.
    current: Option<GroupOut>,
    /// Of a stream the peer lacks what is folded here; it has to hear of it.
    behind: bool,
}

impl Outgoing {
    /// The peer frontier.
    pub(super) fn frontier(&self) -> &[Frontier] {
        &self.frontier
    }

    /// Returns the group that is being sent.
    pub(super) fn current(&self) -> Option<&GroupOut> {
        self.current.as_ref()
    }

    /// Raises the peer frontier.
    pub(super) fn raise(&mut self, to: Frontier) {
        let key = |known: &Frontier| (known.section.author, known.section.stream);
        match self.frontier.binary_search_by_key(&key(&to), key) {
            Ok(at) => {
                if let Some(known) = self.frontier.get_mut(at) {
                    known.raise(&to);
                }
            }
            Err(at) => self.frontier.insert(at, to),
        }
    }

    /// Returns the next group for the peer. It costs as little with many devices as with few: the next of each stream
    /// is looked up once, and again only where something changed.
    pub(super) fn next_group(&mut self, engine: &Engine, peer: &Peer) -> Result<NextGroup> {
        self.current = None;
        if self.heads.is_none() {
            self.heads = Some(BTreeMap::new());
            for next in engine.streams_out(peer, &self.frontier)? {
                self.keep(next);
            }
        }
        // What is folded comes first: what follows it builds on it.
        if std::mem::take(&mut self.behind) {
            return Ok(NextGroup::Behind);
        }
        while let Some((place, group)) = self.heads.as_mut().and_then(BTreeMap::pop_first) {
            // It may have come to the peer, or was folded, since it was looked up.
            match self.next_of(engine, peer, group.section)? {
                StreamOut::Group(group) if group.place() == place => return Ok(self.begin(group)),
                next => self.keep(next),
            }
        }
        let behind = std::mem::take(&mut self.behind);
        Ok(if behind { NextGroup::Behind } else { NextGroup::Nothing })
    }

    /// Looks up all again: the peer has taken in a state.
    pub(super) fn look_up_all(&mut self) {
        (self.heads, self.behind) = (None, false);
    }

    fn begin(&mut self, group: GroupOut) -> NextGroup {
        self.current = Some(group);
        let GroupOut { section, first, last, .. } = group;
        let have = frontier_of(&self.frontier, section).map_or(0, |known| known.frames);
        NextGroup::Group(Group { section, first, last, next: (have + 1).clamp(first, last + 1) })
    }

    /// Records that the current group is sent, and looks up its stream's next.
    pub(super) fn group_sent(&mut self, engine: &Engine, peer: &Peer) -> Result<()> {
        let Some(GroupOut { section, last, .. }) = self.current else { return Ok(()) };
        self.raise(Frontier { section, groups: last, frames: last });
        self.look_up(engine, peer, section)
    }

    /// Looks up what goes to the peer next of a stream, if anything has been looked up yet.
    pub(super) fn look_up(&mut self, engine: &Engine, peer: &Peer, section: Section) -> Result<()> {
        if self.heads.is_some() {
            let next = self.next_of(engine, peer, section)?;
            self.keep(next);
        }
        Ok(())
    }

    fn next_of(&self, engine: &Engine, peer: &Peer, section: Section) -> Result<StreamOut> {
        let have = frontier_of(&self.frontier, section).map_or(0, |known| known.groups);
        engine.stream_out(peer, section, have)
    }

    fn keep(&mut self, next: StreamOut) {
        match next {
            StreamOut::Nothing => {}
            StreamOut::Group(group) => {
                if let Some(heads) = &mut self.heads {
                    heads.insert(group.place(), group);
                }
            }
            // Everything else still goes to it.
            StreamOut::Folded => self.behind = true,
        }
    }
}
