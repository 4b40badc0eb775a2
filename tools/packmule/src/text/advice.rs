//! What there is to do next, by how a device stands: each with the one command that helps.

use std::path::{Path, PathBuf};

use packmule::{DeviceInfo, Hint, NotSent, Notice, Status, TableHow, label};

use super::{command, count, hint, plural, quoted, set_clock, shell_word, shown, time};

/// After so many days without a word a device is named.
const UNHEARD_DAYS: i64 = 7;

/// So many of them are named.
const UNHEARD_NAMED: usize = 3;

const DAY: i64 = 86_400_000;

/// Something to do.
#[derive(Debug, PartialEq, Eq)]
pub struct Advice {
    /// Only a person can: `status --check` says so.
    pub person: bool,
    /// What is the matter.
    pub what: String,
    /// The command that helps, or shows more.
    pub command: Option<String>,
}

/// A link or upkeep of `packmule run` that hangs.
pub struct Hanging<'a> {
    pub link: &'a str,
    /// Since when, in ISO 8601.
    pub since: &'a str,
    /// The process.
    pub pid: u32,
}

impl Advice {
    fn person(what: impl Into<String>, command: Option<String>) -> Self {
        Self { person: true, what: what.into(), command }
    }

    fn by_itself(what: impl Into<String>, command: Option<String>) -> Self {
        Self { person: false, what: what.into(), command }
    }
}

/// Lists what there is to do, what only a person can first.
pub fn advice(
    path: &Path,
    status: &Status,
    devices: &[DeviceInfo],
    not_sent: &[NotSent],
    (hanging, now): (&[Hanging<'_>], i64),
) -> Vec<Advice> {
    let db = quoted(path);
    let mut all = Vec::new();
    // One that this user may not read is there all the same.
    all.extend((!status.can_sign && !key_of(path).exists()).then(|| without_key(path)));
    all.extend(hanging.iter().map(hangs));
    if status.conflicts > 0 {
        let open = plural(status.conflicts, "conflict is open", "conflicts are open");
        all.push(Advice::person(open, Some(format!("packmule conflicts {db} --brief"))));
    }
    if status.decisions_refused > 0 {
        let refused = plural(status.decisions_refused, "decision", "decisions");
        all.push(Advice::person(
            format!("{refused} could not be carried out"),
            Some(format!("packmule conflicts {db} --brief")),
        ));
    }
    all.extend(not_travelling(path, status, not_sent));
    for revoked in status.revoked.iter().filter(|revoked| revoked.set_aside > 0) {
        let frames = count(revoked.set_aside, "frame");
        let what = format!("{} is revoked, and {frames} of it set aside", revoked.device);
        let device = shell_word(&revoked.device);
        all.push(Advice::person(what, Some(format!("packmule log {db} --by {device} --values"))));
    }
    let counted = |notice: &&Notice| not_sent.iter().any(|rows| rows.is_noticed_by(notice));
    for notice in status.notices.iter().filter(|notice| !counted(notice)) {
        all.push(match notice.hint {
            Some(Hint::SetClock { here }) => {
                let whose = if here { "set it" } else { "set it there" };
                Advice::person(format!("{}: {whose}", notice.text), Some(set_clock(here)))
            }
            _ => match notice.hint.as_ref().and_then(|hint| command(hint, path)) {
                Some(command) => Advice::person(format!("{}:", notice.text), Some(command)),
                None => Advice::person(notice.text.clone() + &hint(notice.hint.clone(), path), None),
            },
        });
    }
    if let Some((device, frames)) = &status.held_back_by {
        let heard = devices.iter().find(|of| label(of.id, of.name.as_deref()) == *device);
        let since = heard.map_or_else(String::new, |of| match of.heard {
            Some(heard) => format!(", heard last at {},", time(heard)),
            None => ", never heard,".into(),
        });
        let what = format!(
            "{device}{since} is not known to have {}, which the log keeps for it: let it exchange; if it will not come back:",
            count(*frames, "frame")
        );
        all.push(Advice::by_itself(what, Some(format!("packmule retire {db} {}", shell_word(device)))));
    }
    all.extend(unheard(&db, devices, now));
    let unsealed: u64 = status.tables.iter().map(|table| table.unsealed).sum();
    if unsealed > 0 && status.can_sign {
        let what =
            format!("{} not sealed; whatever sends seals first", plural(unsealed, "write is", "writes are"));
        all.push(Advice::by_itself(what, Some(format!("packmule seal {db}"))));
    }
    all
}

/// Returns where a device's secret key is.
fn key_of(path: &Path) -> PathBuf {
    let mut key = path.as_os_str().to_owned();
    key.push(".pmkey");
    key.into()
}

/// Says what helps where the secret key is not there.
fn without_key(path: &Path) -> Advice {
    let what = format!(
        "the secret key is not there, so that nothing can be sealed or sent: put {}.pmkey back from where the database was \
         kept; if it is nowhere any more, make a plain database of this one, and that a new device; this says what would be \
         gone:",
        shown(path)
    );
    Advice::person(what, Some(format!("packmule init --remove {} --dry-run", quoted(path))))
}

/// Says of what hangs in `packmule run` what may be the matter, and how to end it.
fn hangs(Hanging { link, since, pid }: &Hanging<'_>) -> Advice {
    let since = since.split('.').next().unwrap_or_default();
    let what = format!(
        "`{link}` of `packmule run` hangs since {since}Z: look for a card or port that does not answer, or a program that \
         holds the database; if it lasts, this ends `packmule run`, which a service then begins anew, or you:"
    );
    Advice::person(what, Some(format!("kill {pid}")))
}

/// Names the tables that are held, and rows that are not sent.
fn not_travelling(path: &Path, status: &Status, not_sent: &[NotSent]) -> Vec<Advice> {
    let mut all = Vec::new();
    for table in status.tables.iter().filter(|table| table.how == TableHow::Suspended) {
        let note = table.note.clone().unwrap_or_default();
        let (end, help) = match table.hint().and_then(|hint| command(&hint, path)) {
            Some(help) => (":", help),
            None => (
                "; this shows the table as it is here:",
                command(&table.shown_by(), path).unwrap_or_default(),
            ),
        };
        all.push(Advice::person(format!("table `{}` is held: {note}{end}", table.name), Some(help)));
    }
    // Whether it is held then is not known before: a person looks again.
    for table in status.tables.iter().filter(|table| table.hint() == Some(Hint::Seal)) {
        let what = format!(
            "table `{}`: {}; a seal takes that in:",
            table.name,
            table.note.as_deref().unwrap_or_default()
        );
        all.push(Advice::person(what, Some(format!("packmule seal {}", quoted(path)))));
    }
    // That may be meant: an application's own table has the name of one that others share.
    for table in status.tables.iter().filter(|table| matches!(table.hint(), Some(Hint::Track { .. }))) {
        let rows = plural(table.waiting, "row waits", "rows wait");
        let what =
            format!("{rows} for table `{}`, which is here and not tracked; this takes them in:", table.name);
        all.push(Advice::by_itself(what, table.hint().and_then(|hint| command(&hint, path))));
    }
    for rows in not_sent {
        // Of what nothing helps any more, people are told, and nobody is waited for.
        all.push(match &rows.hint {
            None => Advice::by_itself(rows.to_string(), None),
            Some(hint) => Advice::person(rows.to_string(), command(hint, path)),
        });
    }
    all
}

/// Names the devices that were not heard for long, the longest first.
fn unheard(db: &str, devices: &[DeviceInfo], now: i64) -> Option<Advice> {
    let since = |device: &DeviceInfo| {
        let away = device.this || device.retired || device.revoked;
        let heard = device.heard.filter(|heard| now.saturating_sub(*heard) > UNHEARD_DAYS * DAY)?;
        (!away).then(|| (heard, label(device.id, device.name.as_deref())))
    };
    let mut long: Vec<(i64, String)> = devices.iter().filter_map(since).collect();
    long.sort();
    let days = |heard: i64| now.saturating_sub(heard) / DAY;
    let what = match &long[..] {
        [] => return None,
        [(heard, who)] => format!("{who} was not heard for {} days, since {}", days(*heard), time(*heard)),
        _ => {
            let named = long.iter().take(UNHEARD_NAMED);
            let mut named: Vec<String> =
                named.map(|(heard, who)| format!("{who} ({} days)", days(*heard))).collect();
            if let Some(more) = long.len().checked_sub(UNHEARD_NAMED).filter(|more| *more > 0) {
                named.push(format!("and {more} more"));
            }
            let n = count(long.len() as u64, "device");
            format!("{n} were not heard for over {UNHEARD_DAYS} days: {}", named.join(", "))
        }
    };
    Some(Advice::by_itself(what, Some(format!("packmule devices {db}"))))
}
