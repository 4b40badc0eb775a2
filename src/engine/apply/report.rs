//! What an import did.

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

impl ImportReport {
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
    /// That its content can be applied here: it cannot, for this reason. It is set aside; a newer version may read it.
    Unreadable {
        /// Why.
        reason: String,
    },
}
