//! Documents about what is kept up in the background, and who is on this network.

#[cfg(test)]
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::text::Hanging;

/// `run --check`: what the file says.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct RunChecked {
    /// The file.
    pub config: String,
    /// The database.
    pub database: String,
    /// The links.
    pub links: Vec<LinkChecked>,
    /// What else is done.
    pub upkeep: Vec<UpkeepChecked>,
    /// Seconds after which what shows no sign of life is `stuck`.
    pub stuck: u64,
}

/// A link of the file.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct LinkChecked {
    /// Its name.
    pub link: String,
    /// Where it leads.
    pub to: String,
    /// It stays connected.
    pub stays: bool,
    /// Seconds from one round to the next; null if it stays connected.
    pub interval: Option<u64>,
    /// At random up to so many seconds later.
    pub jitter: u64,
    /// It also begins so many seconds after something was written; null if not.
    pub changes: Option<u64>,
    /// The same for people.
    pub text: String,
}

/// Upkeep of the file.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct UpkeepChecked {
    /// `compact`, or `prune` and the table.
    pub what: String,
    /// Seconds from one time to the next.
    pub every: u64,
    /// The same for people.
    pub text: String,
}

/// What `run` is doing: kept in a file beside the database, and shown by `status`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct RunState {
    /// It is running; if not, what stands here is how it ended.
    pub running: bool,
    /// Its process.
    pub pid: u32,
    /// Its file.
    pub config: String,
    /// Since when it runs, by this machine's clock.
    pub since: String,
    /// The links and the upkeep, in the file's order.
    pub links: Vec<LinkState>,
}

/// How a link stands.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct LinkState {
    /// Its name.
    pub link: String,
    /// `begins`, `away` (a card or port is not there), `met`, `in step`, `silent` (the other end of a serial line is not
    /// heard), `ended`, `failed`, `stuck` (it hangs: the system, or another program, does not let it go on); of upkeep `done`.
    pub state: String,
    /// How it stood before it was `silent` or `stuck`.
    #[serde(skip)]
    pub before: String,
    /// Since when.
    pub since: String,
    /// What was said last of it, for people.
    pub text: String,
    /// The other end's name and the beginning of its fingerprint, once it was met.
    pub peer: Option<String>,
    /// When both had everything for the last time, or the upkeep was done.
    pub in_step: Option<String>,
    /// How often it has failed since then.
    pub failures: u64,
    /// When it begins again; null while it is under way.
    pub next: Option<String>,
    /// Frames that were sent since `run` began.
    pub frames_sent: u64,
    /// Their bytes.
    pub bytes_sent: u64,
    /// Frames that came since `run` began.
    pub frames_received: u64,
    /// Their bytes.
    pub bytes_received: u64,
}

impl RunState {
    /// Returns what hangs, while it runs.
    pub fn hanging(&self) -> Vec<Hanging<'_>> {
        let hang = self.links.iter().filter(|link| self.running && link.is_stuck());
        hang.map(|link| Hanging { link: &link.link, since: &link.since, pid: self.pid }).collect()
    }
}

impl LinkState {
    /// Returns whether it hangs.
    pub fn is_stuck(&self) -> bool {
        self.state == "stuck"
    }
}

/// `find`.
#[cfg(any(feature = "net", test))]
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct FoundDevices {
    /// Who announces itself on this network: bases first. None of it is proved before a session.
    pub found: Vec<FoundDevice>,
}

/// A device that announces itself.
#[cfg(any(feature = "net", test))]
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct FoundDevice {
    /// Its fingerprint, as it says.
    pub fingerprint: String,
    /// Its name, as it says.
    pub name: String,
    /// It says that it gathers.
    pub base: bool,
    /// Where it serves.
    pub addresses: Vec<String>,
    /// It says that it is of the fleet of the database that was given; null if none was.
    pub ours: Option<bool>,
}
