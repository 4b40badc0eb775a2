//! What the log alone makes of a table: the plain multi-version register over a set of ops, verdicts among them.
//! Folds have no part in it. It shares no code with the engine.

use std::collections::{BTreeMap, BTreeSet};

/// How far each device's stream is seen, by the device's id.
pub type Vector = BTreeMap<String, u64>;

/// One op of the log.
#[derive(Clone, Debug)]
pub struct Op {
    pub author: String,
    pub seq: u64,
    /// All that its author had seen when it sealed the op's group, of its own stream too.
    pub seen: Vector,
    pub key: String,
    /// `None` is a delete.
    pub value: Option<String>,
    /// It has no version of its own: it only says which ones stay.
    pub empty: bool,
    pub wall: i64,
    /// Of a verdict: the runs of frames whose versions stay.
    pub keeps: Vec<(String, u64, u64)>,
}

impl Op {
    fn removes(&self, other: &Op) -> bool {
        let stays = self
            .keeps
            .iter()
            .any(|(author, first, last)| *author == other.author && (*first..=*last).contains(&other.seq));
        let same = self.author == other.author && self.seq == other.seq;
        !stays && !same && self.seen.get(&other.author).is_some_and(|seen| *seen >= other.seq)
    }
}

/// The rows, and how many different versions each contested one has.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct State {
    pub shown: BTreeMap<String, String>,
    pub contested: BTreeMap<String, usize>,
}

/// What every device that has applied the log up to here must show.
pub fn state(ops: &BTreeMap<(String, u64, String), Op>, applied: &Vector, last_wins: bool) -> State {
    let mut rows: BTreeMap<&str, Vec<&Op>> = BTreeMap::new();
    for op in ops.values().filter(|op| applied.get(&op.author).is_some_and(|seq| *seq >= op.seq)) {
        rows.entry(&op.key).or_default().push(op);
    }
    let mut state = State::default();
    for (key, all) in rows {
        let heads: Vec<&&Op> =
            all.iter().filter(|op| !op.empty && !all.iter().any(|by| by.removes(op))).collect();
        let rank = |op: &Op| {
            let first = if last_wins { op.wall } else { 0 };
            (first, op.value.is_some(), op.wall, op.author.clone(), op.seq)
        };
        let winner = heads.iter().max_by_key(|op| rank(op));
        if let Some(value) = winner.and_then(|op| op.value.clone()) {
            state.shown.insert(key.into(), value);
        }
        let contents: BTreeSet<_> = heads.iter().map(|op| &op.value).collect();
        if contents.len() > 1 && !last_wins {
            state.contested.insert(key.into(), contents.len());
        }
    }
    state
}
