//! `run --check`: what the file says, link by link; nothing is begun.

use std::path::Path;
use std::time::Duration;

use packmule::Engine;
use packmule::carry::serial;

use super::super::Context;
use crate::documents::{LinkChecked, RunChecked, UpkeepChecked};
use crate::files::config::{Chore, Config, Link, Upkeep, Way};
use crate::output::{Failure, code, engine_text, say};
use crate::text::{count, number, paragraph, quoted, shown};

/// Prints what the file says.
pub fn print(context: &mut Context<'_, '_>, file: &Path, config: &Config, lines: &[Option<serial::Options>]) {
    let links = config.links.iter().zip(lines).map(|(link, line)| checked(link, line.as_ref()));
    let upkeep = config.upkeep.iter().map(|Upkeep { what, every }| UpkeepChecked {
        what: self::what(what),
        every: every.as_secs(),
        text: chore(what, *every),
    });
    let database = shown(context.args.path(0));
    let document = RunChecked {
        config: shown(file),
        database,
        links: links.collect(),
        upkeep: upkeep.collect(),
        stuck: config.stuck.as_secs(),
    };
    let out = &mut *context.out;
    out.document(&document);
    let links = count(document.links.len() as u64, "link");
    say!(out, "{} is in order: {links} of {}", document.config, document.database);
    for link in &document.links {
        let to = if link.link == link.to { String::new() } else { format!("{}, ", link.to) };
        say!(out, "{}", paragraph(&format!("{}: {to}{}", link.link, link.text), 2, 4));
    }
    for upkeep in &document.upkeep {
        say!(out, "{}", paragraph(&format!("{}: {}", upkeep.what, upkeep.text), 2, 4));
    }
    let stuck = format!(
        "what hangs for {} is stuck: it is said, `packmule status {} --check` ends with 3, and systemd begins `packmule run` \
         anew",
        age(config.stuck),
        quoted(context.args.path(0))
    );
    say!(out, "{}", paragraph(&stuck, 2, 4));
}

/// Refuses chores that could never be done: a table is not tracked, or is none that is pruned.
pub fn refuse_chores(engine: &mut Engine, db: &Path, file: &Path, config: &Config) -> Result<(), Failure> {
    let mut wrong = Vec::new();
    for Upkeep { what, .. } in &config.upkeep {
        let Chore::Prune { table, keep, .. } = what else { continue };
        if let Err(e) = engine.rehearse_prune(table, *keep) {
            wrong.push(format!("prune {table}: {}", engine_text(db, db, &e)));
        }
    }
    let more = format!("\npackmule: {}: ", shown(file));
    if wrong.is_empty() { Ok(()) } else { Err(Failure::of(file, wrong.join(&more)).coded(code::CONFIG)) }
}

fn checked(link: &Link, line: Option<&serial::Options>) -> LinkChecked {
    let pace = &link.pace;
    let mut text = match pace.interval {
        None => "stays connected; when it is lost, it is called again after 1 s at first, after up to 15 min later"
            .to_owned(),
        Some(interval) => {
            let mut text = format!("every {}", age(interval));
            if !pace.jitter.is_zero() {
                text += &format!(", up to {} later", age(pace.jitter));
            }
            if let Some(changes) = pace.changes {
                text += &format!("; and {} after something is written", age(changes));
            }
            text
        }
    };
    text += &match &link.way {
        #[cfg(feature = "net")]
        Way::Network { plain: true, .. } => "; NOT encrypted".to_owned(),
        #[cfg(feature = "net")]
        Way::Network { .. } => String::new(),
        Way::Card { encrypt, .. } => {
            let encrypted = if *encrypt { "; what is left there is encrypted" } else { "" };
            format!("; when a folder PACKMULE is there{encrypted}")
        }
        Way::Line { plain, .. } => line.map_or(String::new(), |line| {
            let clear = if *plain { "; NOT encrypted" } else { "" };
            format!("; at {} baud, up to {}{clear}", number(line.baud.into()), number(line.baud_max.into()))
        }),
    };
    LinkChecked {
        link: link.name.clone(),
        to: link.to.clone(),
        stays: pace.interval.is_none(),
        interval: pace.interval.map(|time| time.as_secs()),
        jitter: pace.jitter.as_secs(),
        changes: pace.changes.map(|time| time.as_secs()),
        text,
    }
}

/// Names a chore.
pub fn what(chore: &Chore) -> String {
    match chore {
        Chore::Compact { .. } => "compact".into(),
        Chore::Decide => "decide".into(),
        Chore::Prune { table, .. } => format!("prune {table}"),
    }
}

fn chore(what: &Chore, every: Duration) -> String {
    let first = "a minute after the start, then every";
    match what {
        Chore::Compact { said: None, .. } => format!("{first} {}", age(every)),
        Chore::Compact { said: Some(kept), .. } => {
            format!("{first} {}; what was sealed within {kept} stays", age(every))
        }
        Chore::Decide => format!("{first} {}; programs are asked about open conflicts", age(every)),
        Chore::Prune { said, .. } => {
            format!("{first} {}; {said}, of the others what a base has is deleted", age(every))
        }
    }
}

/// Formats a span of time exactly.
pub fn age(time: Duration) -> String {
    let seconds = time.as_secs();
    let units = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let fits = units.iter().find(|(of, _)| seconds >= *of && seconds.is_multiple_of(*of));
    fits.map_or(format!("{seconds} s"), |(of, unit)| format!("{} {unit}", seconds / of))
}
