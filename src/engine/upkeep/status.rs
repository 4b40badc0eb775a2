//! The state of a device, at a glance.

use packmule_core::wire::Mode;

use crate::engine::apply::pending;
use crate::engine::apply::report::Wait;
use crate::engine::capture::{evolve, groups, heard, other_key, reshape};
use crate::engine::conflicts::walk;
use crate::engine::error::{Hint, Result};
use crate::engine::fleet::devices::{self, SaidBy};
use crate::engine::fleet::{clocks, membership, revocation};
use crate::engine::merge::{compose, stretches};
#[cfg(feature = "serde")]
use crate::engine::store::json;
use crate::engine::store::meta::{self, Notice};
use crate::engine::store::value;
use crate::engine::table::catalog;
use crate::engine::table::entries;
use crate::engine::table::known::{State, Table};
use crate::engine::table::replica::{Identity, Replica};

/// How a table takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TableHow {
    /// All devices edit its rows.
    Shared,
    /// Each device owns its rows.
    PerDevice,
    /// The rows of other devices are gathered in it.
    Gathered,
    /// Others track it; what comes for it is pending until it is tracked here.
    Waiting,
    /// It was let go here.
    Untracked,
    /// Its definition here does not fit: nothing of it is sealed or applied until it does.
    Suspended,
}

impl TableHow {
    fn of(table: &Table) -> Self {
        match (table.state, table.def.mode) {
            (State::Tracked, Mode::Shared) => Self::Shared,
            (State::Tracked, Mode::PerDevice) => Self::PerDevice,
            (State::Gathered, _) => Self::Gathered,
            (State::Known, _) => Self::Waiting,
            (State::Untracked, _) => Self::Untracked,
            (State::Suspended, _) => Self::Suspended,
        }
    }

    /// Names it in words, as in `status --json`.
    pub fn words(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::PerDevice => "per-device",
            Self::Gathered => "gathered",
            Self::Waiting => "waiting",
            Self::Untracked => "not tracked any more",
            Self::Suspended => "held",
        }
    }
}

#[cfg(feature = "serde")]
json::as_word!(TableHow, words);

/// The state of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct TableStatus {
    /// Its name.
    pub name: String,
    /// How it takes part.
    pub how: TableHow,
    /// Writes since the last seal; counted up to 1,000,000.
    pub unsealed: u64,
    /// Rows of others that wait for it, of a shared table; counted up to 1,000,000.
    pub waiting: u64,
    /// The status reason: why its rows are pending.
    pub note: Option<String>,
}

/// How the note of a table ends that gathers apart.
const HAS_ITS_OWN: &str = "of this database has its own";

impl TableStatus {
    /// Returns why it waits or is held: a table that gathers beside the application's own has a note, and does neither.
    pub fn trouble(&self) -> Option<&str> {
        self.note.as_deref().filter(|note| !note.ends_with(HAS_ITS_OWN))
    }

    /// Returns what a person can do about it.
    pub fn hint(&self) -> Option<Hint> {
        let table = self.name.clone();
        match (self.how, self.note.as_deref()) {
            (TableHow::Suspended, Some(evolve::DROPPED)) => Some(Hint::Untrack { table }),
            (TableHow::Suspended, Some(note))
                if note.ends_with(reshape::ANOTHER_KEY) || note.ends_with(evolve::RENAMED) =>
            {
                Some(Hint::Untrack { table })
            }
            (TableHow::Shared | TableHow::PerDevice, Some(GONE)) => Some(Hint::Seal),
            (TableHow::Waiting, Some(heard::UNTRACKED)) if self.waiting > 0 => Some(Hint::Track { table }),
            _ => None,
        }
    }

    /// Returns what shows how the table, and what belongs to it, is here.
    pub fn shown_by(&self) -> Hint {
        let plain = self.name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        let name = if plain { self.name.clone() } else { value::quote(&self.name) };
        Hint::ShowRows { query: format!(".schema {name}") }
    }
}

/// The state of a device.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Status {
    /// Who it is.
    pub identity: Identity,
    /// The secret key is there.
    pub can_sign: bool,
    /// The tables that are known.
    pub tables: Vec<TableStatus>,
    /// The database's journal mode, as SQLite names it: `wal`, unless somebody has set another.
    pub journal_mode: String,
    /// How many conflicts are open.
    pub conflicts: u64,
    /// Decisions that applications wrote into the view `packmule_conflicts`, and the next run carries out.
    pub decisions_waiting: u64,
    /// Those that were refused, and are kept with the reason.
    pub decisions_refused: u64,
    /// The pending groups in the log, with their missing dependencies.
    pub waits: Vec<Wait>,
    /// Frames in the log, and their bytes.
    pub log_frames: u64,
    /// Bytes of the frames in the log.
    pub log_bytes: u64,
    /// The device that holds back the most frames from being folded, and how many.
    #[cfg_attr(feature = "serde", serde(serialize_with = "json::held_back_by"))]
    pub held_back_by: Option<(String, u64)>,
    /// How far our own clock is off, in milliseconds, if anything shows that it is; ahead counts up.
    #[cfg_attr(feature = "serde", serde(rename = "clock_off_ms"))]
    pub clock: Option<i64>,
    /// The devices that are retired.
    pub retired: Vec<Standing>,
    /// The devices that are revoked.
    pub revoked: Vec<Standing>,
    /// What people should know.
    pub notices: Vec<Notice>,
}

/// A device that is retired or revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Standing {
    /// Its label.
    pub device: String,
    /// Who says so.
    pub by: SaidBy,
    /// Its frames that are set aside.
    pub set_aside: u64,
}

/// Lists the devices that are retired, and those that are revoked.
fn standings(replica: &Replica) -> Result<[Vec<Standing>; 2]> {
    let standing =
        |dev, by, set_aside| Ok(Standing { device: devices::device_label(replica, dev)?, by, set_aside });
    let revoked = revocation::revoked(replica)?;
    let retired = membership::retired(replica)?.into_iter().filter(|dev| !revoked.contains_key(dev));
    Ok([
        retired.map(|dev| standing(dev, membership::retired_by(replica, dev)?, 0)).collect::<Result<_>>()?,
        revoked
            .into_iter()
            .map(|(dev, by)| standing(dev, by, revocation::set_aside(replica, dev)?))
            .collect::<Result<_>>()?,
    ])
}

/// Reports the state of this device.
pub(crate) fn status(replica: &Replica) -> Result<Status> {
    catalog::reading(replica, |e| {
        entries::list(e)?;
        let mut tables = Vec::new();
        for table in catalog::tables(e) {
            let apart = catalog::mirror_of(e, table.tid).is_some_and(|m| m.state == State::Gathered);
            if table.aside || (table.state == State::Known && apart) {
                continue; // Another one stands under its name; or it is of the application alone, and nothing waits for it.
            }
            let unsealed = groups::unsealed(e, &table, 1_000_000)?;
            tables.push(TableStatus {
                name: table.def.name.clone(),
                how: TableHow::of(&table),
                unsealed,
                waiting: rows_waiting(e, &table)?,
                note: match is_gone(e, &table)? {
                    true => Some(GONE.into()),
                    false => table.note.clone().or_else(|| note_of_mirror(e, &table)),
                },
            });
        }
        let (log_frames, log_bytes) =
            e.db.query_row("SELECT count(*), coalesce(sum(length(body)), 0) FROM _pm_frame", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?;
        let clocks = clocks::clocks(e)?;
        let mut notices = clocks::clock_notices(e, &clocks)?;
        for table in catalog::tables(e) {
            notices.extend(other_key::notices(e, &table)?);
        }
        notices.extend(recorded_notices(e)?);
        let [retired, revoked] = standings(e)?;
        let decisions = "SELECT count(*) - count(refused), count(refused) FROM _pm_wish";
        let (decisions_waiting, decisions_refused) =
            e.db.query_row(decisions, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(Status {
            identity: e.identity.clone(),
            can_sign: e.can_sign(),
            tables,
            journal_mode: e.db.query_row("PRAGMA journal_mode", [], |row| row.get(0))?,
            conflicts: walk::open_conflicts(e)?,
            decisions_waiting,
            decisions_refused,
            waits: pending::pending_groups(e)?,
            log_frames,
            log_bytes,
            held_back_by: membership::held_back_by(e)?,
            clock: clocks.ours,
            retired,
            revoked,
            notices,
        })
    })
}

/// Returns what was recorded for people. Whoever is retired or revoked already is not to be retired.
fn recorded_notices(replica: &Replica) -> Result<Vec<Notice>> {
    let mut notices = meta::notices(&replica.db)?;
    for notice in &mut notices {
        let Some(Hint::Retire { device }) = notice.hint else { continue };
        let Some(n) = devices::device_number(replica, device)? else { continue };
        if membership::is_retired(replica, n)? || revocation::is_revoked(replica, n)? {
            notice.hint = None;
        } else {
            let label = devices::device_label(replica, n)?;
            notice.text += &format!(". Should no board go on as {label}, retire that one");
        }
    }
    Ok(notices)
}

/// Of a tracked table that has another name now, or none: the next seal finds out which.
const GONE: &str = "it was renamed or dropped since the last seal";

/// Returns whether a tracked table is not there any more, which no seal has seen.
fn is_gone(replica: &Replica, table: &Table) -> Result<bool> {
    Ok(table.state == State::Tracked
        && !compose::is_table_there(replica, table)?
        && !catalog::is_schema_known(replica)?)
}

/// Lists the tables of which not all travels: those that are suspended, and those with columns that wait.
pub(crate) fn left_out(replica: &Replica) -> Result<Vec<TableStatus>> {
    catalog::reading(replica, |e| {
        let tables = catalog::tables(e).into_iter();
        let of_note =
            tables.filter(|t| t.state == State::Suspended || (t.state == State::Tracked && t.note.is_some()));
        of_note
            .map(|table| {
                let (how, waiting) = (TableHow::of(&table), rows_waiting(e, &table)?);
                let (name, note) = (table.def.name.clone(), table.note.clone());
                Ok(TableStatus { name, how, unsealed: 0, waiting, note })
            })
            .collect()
    })
}

/// Counts the rows of which versions wait for a shared table, and for those of its name that have another primary key.
fn rows_waiting(replica: &Replica, table: &Table) -> Result<u64> {
    if table.def.mode != Mode::Shared {
        return Ok(0);
    }
    let heads = stretches::heads_of_table();
    let sql = format!("SELECT count(*) FROM (SELECT DISTINCT key FROM {heads} LIMIT 1000000)");
    let mut waiting = other_key::asides(replica, table)?;
    if !table.shows_shared() {
        waiting.push(table.tid);
    }
    let mut rows = 0;
    for tid in waiting {
        rows += replica.db.prepare_cached(&sql)?.query_row([tid], |row| row.get::<_, u64>(0))?;
    }
    Ok(rows)
}

/// Says of a table that gathers apart whose rows it has.
fn note_of_mirror(replica: &Replica, table: &Table) -> Option<String> {
    let own = catalog::table(replica, table.gathers?).ok()?;
    let of = &own.def.name;
    Some(format!("the rows of other devices' `{of}`; the `{of}` {HAS_ITS_OWN}"))
}
