//! What was carried out of the decisions that applications wrote in SQL.

/// What became of decisions that applications wrote into the view `packmule_conflicts`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CarriedOut {
    /// How many conflicts were closed.
    pub closed: u64,
    /// How many decisions were refused: they are kept, with the reason.
    pub refused: u64,
    /// The first 20 of them: the id that was given, and the reason.
    pub reasons: Vec<(String, String)>,
}

/// How many that were refused are named.
const REFUSED_NAMED: usize = 20;

impl CarriedOut {
    /// Counts one that was refused.
    pub(crate) fn refuse(&mut self, id: &str, reason: &str) {
        self.refused += 1;
        if self.reasons.len() < REFUSED_NAMED {
            self.reasons.push((id.to_owned(), reason.to_owned()));
        }
    }

    /// Adds what came later.
    pub(crate) fn add(&mut self, other: Self) {
        self.closed += other.closed;
        self.refused += other.refused;
        let room = REFUSED_NAMED - self.reasons.len().min(REFUSED_NAMED);
        self.reasons.extend(other.reasons.into_iter().take(room));
    }
}
