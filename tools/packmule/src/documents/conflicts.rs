//! Documents about conflicts.

use std::cell::RefCell;

use packmule::{DecisionReport, Engine, OwnedValue, RowChange, Selection};
#[cfg(test)]
use schemars::JsonSchema;
use serde::ser::SerializeSeq;
use serde::{Serialize, Serializer};

use super::OwnError;
#[cfg(test)]
use super::report;

/// `conflicts`: the same list on every device that has the same frames.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Conflicts<'a> {
    /// The open conflicts.
    #[cfg_attr(test, schemars(with = "Vec<report::Conflict>"))]
    pub conflicts: OpenConflicts<'a>,
    /// The decisions that applications wrote into the view `packmule_conflicts`, and that were refused: the newest first.
    pub refused_decisions: Vec<RefusedDecision<'a>>,
    /// Why the list broke off, if it did.
    #[serde(flatten)]
    #[cfg_attr(test, schemars(with = "OwnError"))]
    pub failed: Broken<'a>,
}

/// Why the list of conflicts broke off: known once that is printed.
pub struct Broken<'a>(pub &'a RefCell<Option<OwnError>>);

impl Serialize for Broken<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.0.borrow().as_ref().unwrap_or(&OwnError::NONE).serialize(to)
    }
}

/// A decision that was refused.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct RefusedDecision<'a> {
    /// The conflict's id, as it was given.
    pub id: &'a str,
    /// Why.
    pub refused: &'a str,
}

/// `decide`.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct DecidedByPrograms<'a> {
    /// How many conflicts programs have closed.
    pub closed: u64,
    /// How many they leave to a person: they say so, or decide what cannot be.
    pub left: u64,
    /// At how many one failed: they stay open, and it is asked again.
    pub failed: u64,
    /// The same in words, with the reasons.
    pub text: &'a [String],
    /// How many conflicts are open now.
    pub conflicts_open: u64,
    /// Why it failed first, if it did.
    #[serde(flatten)]
    pub error: OwnError,
}

/// The open conflicts of a database, which are read as they are printed.
pub struct OpenConflicts<'a> {
    pub engine: &'a Engine,
    /// Which of them.
    pub selection: &'a Selection,
    /// Says why they could not be read to the end, if so.
    pub failed: &'a dyn Fn(packmule::Error),
}

impl Serialize for OpenConflicts<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut list = to.serialize_seq(None)?;
        let mut unwritten = None;
        let read = self.engine.each_conflict_of(self.selection, &mut |conflict| {
            if unwritten.is_none() {
                unwritten = list.serialize_element(&conflict).err();
            }
            Ok(())
        });
        if let Err(error) = read {
            (self.failed)(error);
        }
        match unwritten {
            Some(e) => Err(e),
            None => list.end(),
        }
    }
}

/// A conflict that was decided, or could not be.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct DecidedConflict<'a> {
    /// Its id.
    pub id: &'a str,
    /// Its table.
    pub table: &'a str,
    /// The row's key, by column.
    #[cfg_attr(test, schemars(with = "report::Row"))]
    #[serde(serialize_with = "row")]
    pub key: &'a [(String, OwnedValue)],
    /// Its kind, as `conflicts` has it.
    pub kind: &'static str,
    /// What it does to rows.
    #[cfg_attr(test, schemars(with = "Vec<report::RowChange>"))]
    pub rows: &'a [RowChange],
    /// Why it stays open, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

fn row<S: Serializer>(row: &[(String, OwnedValue)], to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(row.iter().map(|(name, value)| (name, value)))
}

/// `resolve`, after the list of what was decided.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Resolved<'a> {
    /// The conflict that was closed, as it was given; null if it was not one alone that was given.
    pub resolved: Option<&'a String>,
    /// Nothing has changed: this is what would be.
    pub dry_run: bool,
    /// How many were closed, and what is open then.
    #[serde(flatten)]
    #[cfg_attr(test, schemars(with = "report::DecisionReport"))]
    pub report: &'a DecisionReport,
    /// How many are open still: the same as `open`.
    pub conflicts_open: u64,
}

/// `resolve`.
#[cfg(test)]
#[derive(Serialize, JsonSchema)]
pub struct Resolution<'a> {
    /// The conflicts that were meant.
    pub decided: Vec<DecidedConflict<'a>>,
    #[serde(flatten)]
    pub resolved: Resolved<'a>,
}

/// `resolve --undo`.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Undone<'a> {
    /// The conflict's id.
    pub undone: &'a str,
    /// Who had decided it: name and the beginning of the fingerprint.
    pub decided_by: &'a str,
    /// The rows that are as they were before the decision.
    pub rows: Vec<UndoneRow<'a>>,
    /// How many conflicts are open now.
    pub conflicts_open: u64,
}

/// A row that is as it was before.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct UndoneRow<'a> {
    /// Its table.
    pub table: &'a str,
    /// Before and after the undo.
    #[serde(flatten)]
    #[cfg_attr(test, schemars(with = "report::RowChange"))]
    pub row: &'a RowChange,
}
