//! The open database of this device, which the functions of every room take.
//!
//! Its fields are set when it is opened; [`super::catalog`] keeps what is known of tables in step with the file.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use ed25519_compact::SecretKey;
use packmule_core::model::{DeviceId, WallMs};
use rusqlite::Connection;

use crate::engine::error::{Error, Result};
use crate::engine::store::connection::{self, FileId, Options, Steps};
#[cfg(feature = "serde")]
use crate::engine::store::json;
use crate::engine::store::keys;
use crate::engine::table::carried::CarriedOut;
use crate::engine::table::coding::Codings;
use crate::engine::table::fresh::Fresh;
use crate::engine::table::known::Catalog;
use crate::engine::table::opened::Opened;
use crate::engine::table::probe::{Probe, Triggers};
use crate::engine::table::route::Route;
use crate::engine::table::stretch::Stretches;
use crate::engine::table::trial::Trials;

/// The identity of a database: which device it is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Identity {
    /// The id, which is also the fingerprint.
    #[cfg_attr(feature = "serde", serde(rename = "fingerprint"))]
    pub id: DeviceId,
    /// The name.
    pub name: String,
    /// It gathers the rows of per-device tables.
    pub base: bool,
    /// The public key of the fleet whose devices it trusts.
    #[cfg_attr(feature = "serde", serde(serialize_with = "json::digits_if_any"))]
    pub fleet: Option<[u8; 32]>,
    /// That fleet has signed its certificate: it belongs to it, and the fleet's devices take its frames in.
    pub admitted: bool,
}

/// The open database of this device.
pub(crate) struct Replica {
    pub db: Connection,
    pub path: PathBuf,
    /// The secret key, where its file lies beside the database.
    pub key: Option<SecretKey>,
    pub identity: Identity,
    /// Our number in `_pm_device`.
    pub me: i64,
    pub options: Options,
    pub catalog: RefCell<Catalog>,
    pub triggers: RefCell<Triggers>,
    pub probe: Arc<Probe>,
    pub opened: RefCell<Opened>,
    pub codings: Codings,
    pub stretches: Stretches,
    /// In a transaction of ours, what applications have inserted and no trigger has recorded, by table.
    pub fresh: RefCell<Option<BTreeMap<i64, Fresh>>>,
    /// In a transaction that makes them at its end, the tables that have no triggers yet (`capture/at_once.rs`).
    pub bare: RefCell<Option<Vec<i64>>>,
    /// Whether there may be quarantined rows: mostly there are none, and `_pm_parked` need not be read for each op.
    pub quarantined: Cell<bool>,
    /// The group of a shared stream that is being applied, by its device and first frame: its context is heard already.
    pub applying: Cell<Option<(i64, u64)>>,
    /// By which way comes what is taken in.
    pub route: Cell<Route>,
    /// The tables of the state that is being taken in, by the names that its maker has for them, in small letters.
    pub maker_tables: RefCell<HashMap<String, i64>>,
    /// Empty tables, on which rows are tried.
    pub trials: Trials,
    /// How long a transaction may be that only reads, where others may have made the file.
    pub steps: Steps,
    /// What tells the database file, as it was opened, from one that is put in its place.
    pub file: FileId,
    /// A transaction could not be ended: this connection does nothing more.
    pub poisoned: bool,
    /// What the open transaction carried out of what applications decided in SQL; and what earlier ones did.
    pub carrying: RefCell<CarriedOut>,
    pub carried: RefCell<CarriedOut>,
}

impl Replica {
    /// Reads the wall clock.
    pub(crate) fn now(&self) -> WallMs {
        (self.options.clock)()
    }

    /// Returns whether the secret key is there, so that the device can seal.
    pub(crate) fn can_sign(&self) -> bool {
        self.key.is_some()
    }

    /// Returns the secret key.
    ///
    /// # Errors
    /// [`Error::KeyMissing`].
    pub(crate) fn signing_key(&self) -> Result<&SecretKey> {
        Ok(self.key.as_ref().ok_or_else(|| Error::KeyMissing {
            path: keys::device_key_path(&self.path),
            reason: "is not there".into(),
        })?)
    }
}

/// Returns whether the database is not the file any more that is in its place: what is written to it nobody finds.
pub(crate) fn is_moved(replica: &Replica) -> bool {
    replica.file.is_some() && connection::file_id(&replica.path) != replica.file
}

/// Makes the next row look up the triggers again, since what is known of tables has changed.
pub(crate) fn doubt_triggers(replica: &Replica) {
    replica.triggers.borrow_mut().ready = false;
}
