//! Single values, and notices for people.

use packmule_core::model::{DeviceId, decode_hex};
use rusqlite::{Connection, ToSql};

use crate::engine::error::{Hint, Result};
use crate::engine::store::value;

/// Returns a value of `_pm_meta`.
pub(crate) fn get<T: rusqlite::types::FromSql>(db: &Connection, k: &str) -> Result<Option<T>> {
    value::maybe(db, "SELECT v FROM _pm_meta WHERE k = ?1", [k])
}

/// Sets a value of `_pm_meta`.
pub(crate) fn set(db: &Connection, k: &str, v: impl ToSql) -> Result<()> {
    db.prepare_cached("INSERT OR REPLACE INTO _pm_meta (k, v) VALUES (?1, ?2)")?.execute((k, v))?;
    Ok(())
}

/// Forgets a value of `_pm_meta`.
pub(crate) fn forget(db: &Connection, k: &str) -> Result<()> {
    db.prepare_cached("DELETE FROM _pm_meta WHERE k = ?1")?.execute([k])?;
    Ok(())
}

/// Stands between two names of a list: no name has it.
const BETWEEN: char = '\0';

/// Returns a list of names of `_pm_meta`.
pub(crate) fn names(db: &Connection, k: &str) -> Result<Vec<String>> {
    let names = get::<String>(db, k)?;
    Ok(names.iter().flat_map(|names| names.split(BETWEEN)).map(String::from).collect())
}

/// Sets a list of names of `_pm_meta`, if it is another one.
pub(crate) fn set_names(db: &Connection, k: &str, list: &[String]) -> Result<()> {
    match list {
        _ if names(db, k)? == list => Ok(()),
        [] => forget(db, k),
        _ => set(db, k, list.join(&BETWEEN.to_string())),
    }
}

/// Something that people should know.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Notice {
    /// What happened, and to what.
    pub text: String,
    /// What a person can do about it.
    pub hint: Option<Hint>,
}

impl Notice {
    /// Reads what [`notice_with`] wrote.
    fn read(what: &str) -> Self {
        let (text, hint) = what.split_once(HINT).map_or((what, None), |(text, hint)| (text, read_hint(hint)));
        Self { text: text.to_owned(), hint }
    }
}

/// Stands between a notice's text and its hint, in one column: the layout has none for hints.
const HINT: char = '\u{1e}';

fn read_hint(hint: &str) -> Option<Hint> {
    let (kind, of) = hint.split_once(' ')?;
    match kind {
        "retire" => {
            let mut id = [0; 16];
            decode_hex(of, &mut id).ok().map(|()| Hint::Retire { device: DeviceId(id) })
        }
        "untrack" => Some(Hint::Untrack { table: of.to_owned() }),
        _ => None,
    }
}

/// Returns the recorded notices, the newest first.
pub(crate) fn notices(db: &Connection) -> Result<Vec<Notice>> {
    let mut statement = db.prepare_cached("SELECT what FROM _pm_notice ORDER BY wall DESC, what")?;
    let notices = statement.query_map([], |row| Ok(Notice::read(&row.get::<_, String>(0)?)))?;
    Ok(notices.collect::<rusqlite::Result<_>>()?)
}

/// Makes a notice with a hint: [`Hint::Retire`] or [`Hint::Untrack`].
pub(crate) fn notice_with(db: &Connection, text: &str, hint: &Hint, wall: i64) -> Result<()> {
    let hint = match hint {
        Hint::Retire { device } => format!("{HINT}retire {device}"),
        Hint::Untrack { table } => format!("{HINT}untrack {table}"),
        _ => String::new(),
    };
    notice(db, &format!("{text}{hint}"), wall)
}

/// Makes a notice for people, which `status` shows. One that is there already is only counted.
pub(crate) fn notice(db: &Connection, what: &str, wall: i64) -> Result<()> {
    notice_of(db, what, 1, wall)
}

/// Makes a notice for people that counts, so many more.
pub(crate) fn notice_of(db: &Connection, what: &str, more: u64, wall: i64) -> Result<()> {
    db.prepare_cached(
        "INSERT INTO _pm_notice (what, wall, count) VALUES (?1, ?2, ?3)
         ON CONFLICT (what) DO UPDATE SET wall = excluded.wall, count = count + excluded.count",
    )?
    .execute((what, wall, more))?;
    Ok(())
}
