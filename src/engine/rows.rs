//! The part of the engine's face that is about rows that do not travel, or need not stay.

use super::Engine;
use crate::engine::capture::not_sent::{self, NotSent};
use crate::engine::error::Result;
use crate::engine::table::catalog;
use crate::engine::upkeep::prune::{self, Keep, PruneReport};

impl Engine {
    /// Lists what of the tracked tables does not travel: rows whose key does not tell them apart, and deletes of append
    /// tables. Whatever sends names it.
    ///
    /// # Errors
    /// [`Error::Sqlite`](crate::Error::Sqlite).
    pub fn not_sent(&self) -> Result<Vec<NotSent>> {
        catalog::reading(&self.replica, not_sent::not_sent)
    }

    /// Deletes rows of an append table here that a base has acknowledged; nothing where no base has. Seals first.
    ///
    /// The deletes do not travel. The word of one base that is not retired is enough.
    ///
    /// # Errors
    /// [`Error::UnknownTable`](crate::Error::UnknownTable); [`Error::Usage`](crate::Error::Usage) if it is no append
    /// table; [`Error::KeyMissing`](crate::Error::KeyMissing), [`Error::Sqlite`](crate::Error::Sqlite).
    pub fn prune(&mut self, table: &str, keep: Keep) -> Result<PruneReport> {
        prune::prune(&mut self.replica, table, keep)
    }

    /// Says what [`Engine::prune`] would do; nothing is changed.
    ///
    /// # Errors
    /// As [`Engine::prune`].
    pub fn rehearse_prune(&mut self, table: &str, keep: Keep) -> Result<PruneReport> {
        prune::rehearse(&mut self.replica, table, keep)
    }
}
