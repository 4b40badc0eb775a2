//! What the file says.

use std::path::PathBuf;
use std::time::Duration;

use packmule::Keep;
use packmule::carry::keep::Pace;
#[cfg(feature = "net")]
use packmule::carry::net::Address;
use packmule::carry::serial::Flow;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::table::{Table, Wrong};
use super::{Chore, Config, Link, Upkeep, Way};
use crate::text::{read_age, read_size};

const FILE: &[&str] =
    &["interval", "jitter", "changes", "patience", "stuck", "link", "compact", "prune", "decide"];
const LINK: &[&str] = &[
    "to", "name", "stay", "interval", "jitter", "changes", "patience", "plain", "baud", "baud-max", "flow",
    "encrypt",
];
const COMPACT: &[&str] = &["every", "keep"];
const DECIDE: &[&str] = &["every"];
const PRUNE: &[&str] = &["table", "every", "keep", "rows", "free"];
/// Where a link can lead.
const TO: &str = "\"tcp://HOST:PORT\", \"ws://HOST:PORT\", \"http://HOST:PORT\", \"serial:FILE\", \"exec:COMMAND\", \"find:\" or \"card:DIRECTORY\"";
/// Jitter where none is given: a tenth of the interval.
const JITTER: u32 = 10;
/// How long a link may show no sign of life, where nothing is said: slow cards take long to write.
const STUCK: Duration = Duration::from_secs(5 * 60);
/// Upkeep does not begin with everything else.
pub const UPKEEP_DELAY: Duration = Duration::from_secs(60);

/// What holds for every link that says nothing else.
#[derive(Clone, Copy)]
struct Usual {
    interval: Duration,
    jitter: Option<Duration>,
    changes: Option<Duration>,
    patience: Option<Duration>,
}

/// Reads the text of a file, or returns what is wrong with it, with the lines.
pub fn read(text: &str) -> Result<Config, Vec<(usize, String)>> {
    let mut wrong = Wrong::new(text);
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        wrong.at(&error.span().unwrap_or_default(), format!("this is not TOML: {}", error.message()));
    }
    if !errors.is_empty() {
        return Err(wrong.found());
    }
    let mut file = Table::new("", FILE, (document.get_ref(), 0..0), &mut wrong);
    let usual = Usual {
        interval: file.time("interval", None).flatten().unwrap_or(Duration::from_secs(15 * 60)),
        jitter: file.time("jitter", Some("none")).map(Option::unwrap_or_default),
        changes: file.time("changes", Some("never")).unwrap_or(Some(Duration::from_secs(30))),
        patience: file.time("patience", Some("for ever")).unwrap_or(Some(Duration::from_secs(60))),
    };
    let stuck = file.time("stuck", None).flatten().unwrap_or(STUCK);
    let links = tables(&mut file, "link");
    let prunes = tables(&mut file, "prune");
    let [compact, decide] = ["compact", "decide"].map(|key| self::table(&mut file, key));
    let mut config = Config { links: Vec::new(), upkeep: Vec::new(), stuck };
    for link in links {
        let place = link.1.clone();
        let Some(link) = self::link(Table::new("link", LINK, link, &mut wrong), &usual) else { continue };
        if config.links.iter().any(|other| other.name == link.name) {
            wrong.at(&place, format!("two links are called `{}`: give this one another `name`", link.name));
        }
        config.links.push(link);
    }
    if let Some(compact) = compact {
        config.upkeep.extend(self::compact(Table::new("compact", COMPACT, compact, &mut wrong)));
    }
    if let Some(decide) = decide {
        let every = self::every(&mut Table::new("decide", DECIDE, decide, &mut wrong));
        config.upkeep.extend(every.map(|every| Upkeep { what: Chore::Decide, every }));
    }
    for prune in prunes {
        config.upkeep.extend(self::prune(Table::new("prune", PRUNE, prune, &mut wrong)));
    }
    if config.links.is_empty() && config.upkeep.is_empty() && wrong.is_empty() {
        wrong.at(
            &(0..0),
            "nothing is to be done: there is no [[link]], no [compact], no [[prune]], no [decide]".into(),
        );
    }
    if wrong.is_empty() { Ok(config) } else { Err(wrong.found()) }
}

type Place<'t> = (&'t DeTable<'t>, std::ops::Range<usize>);

/// Returns a table.
fn table<'t>(file: &mut Table<'t, '_>, key: &str) -> Option<Place<'t>> {
    let value = file.of_key(key)?;
    if value.get_ref().as_table().is_none() {
        file.wrong.at(&value.span(), format!("`{key}` is a table: [{key}]"));
    }
    Some((value.get_ref().as_table()?, value.span()))
}

/// Returns the tables of a list.
fn tables<'t>(file: &mut Table<'t, '_>, key: &str) -> Vec<Place<'t>> {
    let Some(value) = file.of_key(key) else { return Vec::new() };
    let of = |value: &'t Spanned<DeValue<'t>>| Some((value.get_ref().as_table()?, value.span()));
    let all: Option<Vec<_>> = value.get_ref().as_array().and_then(|all| all.iter().map(of).collect());
    if all.is_none() {
        file.wrong.at(&value.span(), format!("`{key}` is a list of tables: [[{key}]]"));
    }
    all.unwrap_or_default()
}

fn link(mut table: Table<'_, '_>, usual: &Usual) -> Option<Link> {
    let pace = pace(&mut table, usual);
    let patience = table.time("patience", Some("for ever")).unwrap_or(usual.patience);
    let name = table.text("name", "a name");
    table.needs("to", TO);
    let to = table.text("to", TO)?;
    let way = way(&mut table, &to)?;
    if matches!(way, Way::Card { .. }) {
        ["stay", "patience", "plain"].iter().for_each(|key| table.amiss(key, "is of no use for a card"));
    }
    Some(Link { name: name.unwrap_or_else(|| to.clone()), to, way, pace, patience })
}

fn pace(table: &mut Table<'_, '_>, usual: &Usual) -> Pace {
    let interval = table.time("interval", None).flatten();
    let jitter = table.time("jitter", Some("none")).map(Option::unwrap_or_default).or(usual.jitter);
    let changes = table.time("changes", Some("never"));
    if table.switch("stay") {
        let why = "a link that stays connected (`stay`) has none";
        ["interval", "changes"].iter().for_each(|key| table.amiss(key, why));
        return Pace { jitter: jitter.unwrap_or_default(), ..Pace::stay() };
    }
    let interval = interval.unwrap_or(usual.interval);
    Pace {
        jitter: jitter.unwrap_or(interval / JITTER),
        changes: changes.unwrap_or(usual.changes),
        ..Pace::every(interval)
    }
}

/// The keys of some ways alone.
const OWN: &[(&str, &str)] =
    &[("baud", "serial"), ("baud-max", "serial"), ("flow", "serial"), ("encrypt", "card")];

fn way(table: &mut Table<'_, '_>, to: &str) -> Option<Way> {
    let kind = ["serial", "card"].into_iter().find(|kind| to.starts_with(&format!("{kind}:")));
    for (key, of) in OWN {
        if *of != kind.unwrap_or("net") {
            table.amiss(key, &format!("is for {of} alone"));
        }
    }
    let path = to.split_once(':').map(|(_, path)| PathBuf::from(path)).filter(|p| p.as_os_str() != "");
    match kind {
        None => network(table, to),
        Some(_) if path.is_none() => {
            table.refuse("to", TO);
            None
        }
        Some("card") => Some(Way::Card { directory: path?, encrypt: table.switch("encrypt") }),
        Some(_) => {
            let rates = 300..20_000_001;
            let [baud, baud_max] = ["baud", "baud-max"].map(|key| table.number(key, rates.clone()));
            let flow = table.text_as("flow", "\"none\" or \"hardware\"", |flow| match flow {
                "none" => Some(Flow::None),
                "hardware" => Some(Flow::Hardware),
                _ => None,
            });
            let flow = flow.map_or(Flow::None, |(flow, _)| flow);
            if baud_max.is_some() && baud_max < baud {
                table.amiss("baud-max", "is below `baud`, at which the line begins");
            }
            let rate = |rate: Option<u64>| rate.and_then(|rate| rate.try_into().ok());
            let plain = table.switch("plain");
            Some(Way::Line { port: path?, baud: rate(baud), baud_max: rate(baud_max), flow, plain })
        }
    }
}

#[cfg(feature = "net")]
fn network(table: &mut Table<'_, '_>, to: &str) -> Option<Way> {
    let plain = table.switch("plain");
    match to.parse::<Address>() {
        Ok(address) => Some(Way::Network { address, plain }),
        Err(e) => {
            // An address with TLS is refused with what to type in its place.
            let has_others = ["wss://", "https://"].iter().any(|scheme| to.starts_with(scheme));
            let others = if has_others { String::new() } else { format!("; it is {TO}") };
            table.amiss("to", &format!("{e}{others}"));
            None
        }
    }
}

#[cfg(not(feature = "net"))]
fn network(table: &mut Table<'_, '_>, _: &str) -> Option<Way> {
    table.amiss("to", "this program was built without `net`: it is \"serial:FILE\" or \"card:DIRECTORY\"");
    None
}

fn every(table: &mut Table<'_, '_>) -> Option<Duration> {
    table.needs("every", "how often, such as \"7d\"");
    table.time("every", None).flatten()
}

/// An age, as it is said where a key is wrong.
const AGE: &str = "an age such as \"30d\" or \"12h\"";

fn compact(mut table: Table<'_, '_>) -> Option<Upkeep> {
    let every = every(&mut table);
    let kept = match table.of_key("keep") {
        Some(_) => Some(table.text_as("keep", AGE, |text| read_age(text)?.try_into().ok())?),
        None => None,
    };
    let (kept, said) = kept.map(|(age, said)| (Duration::from_millis(age), said)).unzip();
    Some(Upkeep { what: Chore::Compact { kept, said }, every: every? })
}

fn prune(mut table: Table<'_, '_>) -> Option<Upkeep> {
    let every = every(&mut table);
    let append = "the name of an append table";
    table.needs("table", append);
    let name = table.text("table", append);
    let given: Vec<&str> =
        ["keep", "rows", "free"].into_iter().filter(|key| table.of_key(key).is_some()).collect();
    let [which] = given[..] else {
        table.missing("keep", "exactly one of keep = \"30d\", rows = 100000, free = \"200M\"");
        return None;
    };
    let (keep, said) = match which {
        "rows" => {
            let rows = table.number("rows", 0..1 << 53)?;
            (Keep::Rows(rows), format!("the newest {rows} rows stay"))
        }
        "keep" => {
            let (age, text) = table.text_as("keep", AGE, |text| read_age(text)?.try_into().ok())?;
            (Keep::Recent(age), format!("rows of the last {text} stay"))
        }
        _ => {
            let must = "a size such as \"500K\", \"200M\" or \"1G\"";
            let (size, text) = table.text_as("free", must, read_size)?;
            (Keep::Free(size), format!("until {text} of the file are free"))
        }
    };
    Some(Upkeep { what: Chore::Prune { table: name?, keep, said }, every: every? })
}
