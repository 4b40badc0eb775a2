//! The part of the engine's face that is about what does not travel, or need not stay.

use std::time::Duration;

use packmule_core::model::WallMs;

use super::Engine;
use crate::engine::Result;
use crate::engine::capture::not_sent::{self, NotSent};
use crate::engine::table::catalog;
use crate::engine::upkeep::compact::{self, CompactReport};
use crate::engine::upkeep::prune::{self, Keep, PruneReport};

impl Engine {
    /// Lists what of the tracked tables does not travel: rows whose key does not tell them apart, and deletes of append
    /// tables. Whatever sends names it.
    ///
    /// # Errors
    /// [`Error::Sqlite`](crate::Error::Sqlite).
    pub fn not_sent(&self) -> Result<Vec<NotSent>> {
        Ok(catalog::reading(&self.replica, not_sent::not_sent)?)
    }

    /// Deletes rows of an append table here that a base has acknowledged; nothing where no base has. Seals first.
    ///
    /// The deletes do not travel. The word of one base that is not retired is enough.
    ///
    /// # Errors
    /// [`Error::UnknownTable`](crate::Error::UnknownTable); [`Error::Usage`](crate::Error::Usage) if it is no append
    /// table; [`Error::KeyMissing`](crate::Error::KeyMissing), [`Error::Sqlite`](crate::Error::Sqlite).
    pub fn prune(&mut self, table: &str, keep: Keep) -> Result<PruneReport> {
        Ok(prune::prune(&mut self.replica, table, keep)?)
    }

    /// Says what [`Engine::prune`] would do; nothing is changed.
    ///
    /// # Errors
    /// As [`Engine::prune`].
    pub fn rehearse_prune(&mut self, table: &str, keep: Keep) -> Result<PruneReport> {
        Ok(prune::rehearse(&mut self.replica, table, keep)?)
    }

    /// Folds away what every device that is not retired has; the digest stays as it is.
    ///
    /// Says in the log what this device has seen, if it has not said so yet: others can fold that
    /// once they hear of it.
    ///
    /// # Errors
    /// [`Error::KeyMissing`](crate::Error::KeyMissing), [`Error::Sqlite`](crate::Error::Sqlite).
    pub fn compact(&mut self) -> Result<CompactReport> {
        Ok(compact::compact(&mut self.replica, None)?)
    }

    /// The same, but what was sealed within `age` stays in the log, by its author's clock: it can be undone, and `history`
    /// and `at` show it.
    ///
    /// # Errors
    /// As [`Engine::compact`].
    pub fn compact_keeping(&mut self, age: Duration) -> Result<CompactReport> {
        let from = self.before_now(age);
        Ok(compact::compact(&mut self.replica, Some(from))?)
    }

    /// Says what [`Engine::compact`] would do or, with `kept`, [`Engine::compact_keeping`]; nothing is changed.
    ///
    /// # Errors
    /// As [`Engine::compact`].
    pub fn rehearse_compact(&mut self, kept: Option<Duration>) -> Result<CompactReport> {
        let from = kept.map(|age| self.before_now(age));
        Ok(compact::rehearse(&mut self.replica, from)?)
    }

    fn before_now(&self, age: Duration) -> WallMs {
        let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        self.replica.now().saturating_sub_unsigned(age)
    }
}
