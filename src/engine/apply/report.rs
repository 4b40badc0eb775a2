//! What an import did.

#[cfg(feature = "serde")]
use crate::engine::store::json;
use crate::engine::table::known::{State, Table};

/// What an import did.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ImportReport {
    /// Frames that are new here.
    pub frames: u64,
    /// Frames that were here already.
    pub known: u64,
    /// Frames of per-device tables of others, which only bases take.
    #[cfg_attr(feature = "serde", serde(rename = "passed_over"))]
    pub skipped: u64,
    /// Rows applied; those that are pending are not among them.
    pub ops: u64,
    /// Rows that are pending in the log, for a table or column that is not here.
    pub ops_waiting: u64,
    /// The tables that these wait for.
    pub waiting_for: Vec<WaitsForTable>,
    /// Rows that were applied to a table of another name than theirs, which gathers them apart.
    pub gathered_apart: Vec<GatheredApart>,
    /// Conflicts that are open now and were not before.
    pub conflicts_opened: u64,
    /// Devices that are revoked now and were not before: the fleet's key says so, in what came.
    pub revoked: Vec<String>,
    /// Devices that are no longer revoked, since the fleet's key says so.
    pub restored: Vec<String>,
    /// Groups that are pending, with their missing dependencies.
    pub waits: Vec<Wait>,
    /// Rows of a database file that are not sealed there, and so were not taken in.
    pub unsealed: u64,
    /// Why the state that came over a session was not taken in: nothing of it is here.
    pub state_refused: Option<String>,
    /// The name of the new identity that this device has taken: it turned out to be a second history of another.
    pub new_identity: Option<String>,
}

/// Rows of other devices that went into a table of another name, since this database has one of theirs itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct GatheredApart {
    /// Their table, of which this database has one of its own.
    pub table: String,
    /// Where they stand here.
    pub gathered_in: String,
    /// How many were applied.
    pub ops: u64,
}

/// Rows that wait for a table.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct WaitsForTable {
    /// Its name.
    pub table: String,
    /// How many rows came that wait.
    pub ops: u64,
    /// Why, and what will end the waiting.
    pub why: String,
}

impl WaitsForTable {
    /// Says why rows wait for a table.
    pub(crate) fn of(table: &Table, ops: u64) -> Self {
        let why = table.note.clone().unwrap_or_else(|| match table.state {
            _ if table.aside => "its primary key is another one here".into(),
            State::Known => "it is not here: make it, then track it".into(),
            State::Suspended => "it is suspended here until it fits again".into(),
            _ => {
                "its key or its mode is another one here: rename it, or make it as the others have it".into()
            }
        });
        Self { table: table.def.name.clone(), ops, why }
    }
}

impl ImportReport {
    /// Adds rows that wait for a table.
    pub fn add_waiting_for(&mut self, more: WaitsForTable) {
        match self.waiting_for.iter_mut().find(|known| known.table == more.table) {
            Some(known) => known.ops += more.ops,
            None => self.waiting_for.push(more),
        }
    }

    /// Adds what another import did, after this one.
    pub fn add_import(&mut self, more: Self) {
        self.frames += more.frames;
        self.known += more.known;
        self.skipped += more.skipped;
        self.ops += more.ops;
        self.ops_waiting += more.ops_waiting;
        more.gathered_apart.iter().for_each(|more| self.add_gathered_apart(more));
        more.waiting_for.into_iter().for_each(|more| self.add_waiting_for(more));
        self.conflicts_opened += more.conflicts_opened;
        self.revoked.extend(more.revoked);
        self.restored.extend(more.restored);
        // What waits in the log is the same after both; a bundle that was left is told of by its own report alone.
        let left = std::mem::replace(&mut self.waits, more.waits);
        self.waits.extend(left.into_iter().filter(|wait| wait.missing == Missing::Certificate));
        self.unsealed += more.unsealed;
        self.state_refused = more.state_refused;
        self.new_identity = more.new_identity.or(self.new_identity.take());
    }

    /// Adds rows that were gathered apart.
    pub fn add_gathered_apart(&mut self, more: &GatheredApart) {
        let known = self.gathered_apart.iter_mut().find(|known| known.gathered_in == more.gathered_in);
        match known {
            Some(known) => known.ops += more.ops,
            None => self.gathered_apart.push(more.clone()),
        }
    }
}

/// A pending group of frames, with its missing dependency.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Wait {
    /// Whose group is pending.
    pub author: String,
    /// Its frames.
    pub frames: (u64, u64),
    /// When the first of them was sealed, by its author's clock.
    #[cfg_attr(feature = "serde", serde(serialize_with = "json::time"))]
    pub since: i64,
    /// What is missing.
    pub missing: Missing,
}

/// What a pending group lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Missing {
    /// Frames of this device, up to this one.
    Frames {
        /// The device.
        of: String,
        /// The last one that is needed.
        up_to: u64,
    },
    /// The other part of the same seal, in the other stream of the same device.
    OtherPart {
        /// The device.
        of: String,
        /// The last frame of it.
        up_to: u64,
    },
    /// That its author is no longer revoked, or that a device that is not had taken these frames in before it heard of
    /// it. Until then they are set aside.
    Vouching,
    /// The certificate of its author, who sent it: the bundle leaves it out, since this device has once said that it has it.
    /// Nothing of the bundle is taken in; what is sent from here next tells its author, who sends all of it again.
    Certificate,
    /// A newer Packmule here: its author's has written what this one cannot read.
    Newer,
    /// That its content can be applied here: it cannot, for this reason. It is set aside; a newer version may read it.
    Unreadable {
        /// Why.
        reason: String,
    },
}
