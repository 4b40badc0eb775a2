//! What applications decided about conflicts in SQL, by the view `packmule_conflicts`: carried out, or kept with the reason why
//! it could not be. None of it stops what else is done.
//!
//! A decision leaves `_pm_wish` in the transaction that carries it out: a power cut leaves both, or neither.

use rusqlite::OptionalExtension;

use crate::engine::conflicts::decision;
use crate::engine::conflicts::many::Run;
use crate::engine::conflicts::resolve::Resolution;
use crate::engine::conflicts::walk::{List, Place};
use crate::engine::conflicts::{listed, many};
use crate::engine::error::{Error, Result};
use crate::engine::fleet::peers;
use crate::engine::show::triggers;
use crate::engine::store::listing::DECISION_MOST;
use crate::engine::store::{connection, value};
use crate::engine::table::carried::CarriedOut;
use crate::engine::table::catalog;
use crate::engine::table::replica::Replica;

/// How many are carried out at once.
const AT_ONCE: usize = 64;

/// How many that were refused are kept; the oldest go, but for what a program has left to a person, as long as that is open: it is
/// not to be asked again.
const REFUSED_KEPT: u64 = 1_000;

/// The most bytes of a reason.
const REASON_MOST: usize = 400;

/// A decision that is to be carried out.
struct Wish {
    n: i64,
    id: String,
    take: Option<String>,
    decision: Option<String>,
}

/// Carries out what applications decided, within the open transaction. What was written here must be sealed.
pub(crate) fn carry_out(replica: &Replica) -> Result<()> {
    let waiting = "SELECT 1 FROM _pm_wish WHERE refused IS NULL LIMIT 1";
    if value::maybe::<i64>(&replica.db, waiting, [])?.is_none()
        || !replica.can_sign()
        || peers::is_rolled_back(replica)?
    {
        return Ok(());
    }
    listed::refresh(replica)?;
    let mut last = i64::MIN;
    loop {
        let wishes = read(replica, last)?;
        let Some(end) = wishes.last() else { break };
        last = end.n;
        // What the seal refuses is found out one by one.
        if within(replica, || carry(replica, &wishes))?.is_some() {
            for wish in &wishes {
                if let Some(error) = within(replica, || carry(replica, std::slice::from_ref(wish)))? {
                    refuse(replica, wish, &error, &mut replica.carrying.borrow_mut())?;
                }
            }
        }
    }
    replica.db.execute(
        "DELETE FROM _pm_wish WHERE refused IS NOT NULL AND n NOT IN
           (SELECT n FROM _pm_wish WHERE refused IS NOT NULL ORDER BY n DESC LIMIT ?1)
         AND NOT (programs AND EXISTS (SELECT 1 FROM _pm_listed l WHERE l.id = _pm_wish.id))",
        [REFUSED_KEPT],
    )?;
    Ok(())
}

/// Reads the next ones. What is longer than the view takes was written past it, and is as if it were not there.
fn read(replica: &Replica, last: i64) -> Result<Vec<Wish>> {
    let short = |column: &str| {
        format!("CASE WHEN length(CAST({column} AS BLOB)) <= {DECISION_MOST} THEN CAST({column} AS BLOB) END")
    };
    let sql = format!(
        "SELECT n, {}, {}, {} FROM _pm_wish WHERE refused IS NULL AND n > ?1 ORDER BY n LIMIT {AT_ONCE}",
        short("id"),
        short("take"),
        short("decision")
    );
    let mut statement = replica.db.prepare_cached(&sql)?;
    let wishes = statement.query_map([last], |row| {
        Ok(Wish {
            n: row.get(0)?,
            id: row.get::<_, Option<_>>(1)?.map(text).unwrap_or_default(),
            take: row.get::<_, Option<_>>(2)?.map(text),
            decision: row.get::<_, Option<_>>(3)?.map(text),
        })
    })?;
    Ok(wishes.collect::<rusqlite::Result<_>>()?)
}

/// Runs `work` under a savepoint. Returns why it failed, unless that is the machine's fault; all is as before then.
fn within(replica: &Replica, work: impl FnOnce() -> Result<CarriedOut>) -> Result<Option<Error>> {
    replica.db.execute_batch("SAVEPOINT _pm_wishes")?;
    match work() {
        Ok(carried) => {
            replica.db.execute_batch("RELEASE _pm_wishes")?;
            replica.carrying.borrow_mut().add(carried);
            Ok(None)
        }
        Err(error) if many::stops(&error) => Err(error),
        Err(error) => {
            let error = connection::undo(&replica.db, "_pm_wishes", error)?;
            triggers::forget_local_triggers(replica);
            replica.catalog.borrow_mut().forget();
            catalog::load_catalog(replica)?;
            Ok(Some(*error))
        }
    }
}

/// Carries out these, and seals them.
fn carry(replica: &Replica, wishes: &[Wish]) -> Result<CarriedOut> {
    let mut run = Run::new(replica);
    let mut carried = CarriedOut::default();
    for wish in wishes {
        match decide(&mut run, wish) {
            Ok(()) => {
                carried.closed += 1;
                replica.db.prepare_cached("DELETE FROM _pm_wish WHERE n = ?1")?.execute([wish.n])?;
            }
            Err(error) if many::stops(&error) => return Err(error),
            Err(error) => refuse(replica, wish, &error, &mut carried)?,
        }
    }
    run.seal()?;
    Ok(carried)
}

/// Decides about the conflict that a decision is about.
fn decide(run: &mut Run<'_>, wish: &Wish) -> Result<()> {
    let resolution = wanted(run.replica, wish)?;
    let none = || {
        Error::cannot_resolve(
            "no conflict that is open has this id: it was closed meanwhile, or has another version now",
            &[],
        )
    };
    let open = place(run.replica, &wish.id)?.map(|place| place.describe(run.replica)).transpose()?.flatten();
    let open = open.filter(|open| open.conflict.id == wish.id).ok_or_else(none)?;
    let open = run.settled(open)?.ok_or_else(none)?;
    match run.decide(open, &resolution)?.refused {
        Some(refused) => Err(refused.into()),
        None => Ok(()),
    }
}

/// Returns what is to be done.
fn wanted(replica: &Replica, wish: &Wish) -> Result<Resolution> {
    match (&wish.take, &wish.decision) {
        (Some(whose), None) => decision::taken(replica, whose),
        (None, Some(document)) => decision::read(replica, document)?
            .ok_or_else(|| Error::cannot_resolve("it is left to a person", &[])),
        _ => Err(Error::cannot_resolve("give take or decision, one of the two", &[])),
    }
}

/// Finds where the conflict of this id is.
fn place(replica: &Replica, id: &str) -> Result<Option<Place>> {
    let sql = "SELECT tid, key, what FROM _pm_listed WHERE id = ?1";
    let mut statement = replica.db.prepare_cached(sql)?;
    let found = statement.query_row([id], |row| {
        let (tid, key, what): (i64, Vec<u8>, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(match List::named(&what) {
            Some(list) => Place::Row(tid, key, list),
            None => Place::Column(tid, what),
        })
    });
    Ok(found.optional()?)
}

/// Keeps a decision that could not be carried out, with the reason.
fn refuse(replica: &Replica, wish: &Wish, error: &Error, carried: &mut CarriedOut) -> Result<()> {
    let reason = shortened(&error.to_string());
    let sql = "UPDATE _pm_wish SET refused = ?2 WHERE n = ?1";
    replica.db.prepare_cached(sql)?.execute((wish.n, &reason))?;
    carried.refuse(&wish.id, &reason);
    Ok(())
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Returns those that were refused, the newest first: the id that was given, and the reason.
pub(crate) fn refused(replica: &Replica) -> Result<Vec<(String, String)>> {
    let mut statement = replica.db.prepare_cached(
        "SELECT CAST(substr(id, 1, 64) AS BLOB), CAST(substr(refused, 1, 1000) AS BLOB) FROM _pm_wish
         WHERE refused IS NOT NULL ORDER BY n DESC LIMIT ?1",
    )?;
    let refused = statement.query_map([REFUSED_KEPT], |row| Ok((text(row.get(0)?), text(row.get(1)?))))?;
    Ok(refused.collect::<rusqlite::Result<_>>()?)
}

/// Shortens a reason: what was given may be in it.
fn shortened(reason: &str) -> String {
    match reason.len() {
        0..=REASON_MOST => reason.to_owned(),
        _ => format!("{}…", String::from_utf8_lossy(&reason.as_bytes()[..REASON_MOST])),
    }
}

/// Notes what a program decided about a conflict; the seal that follows carries it out.
pub(crate) fn note_decided(replica: &Replica, id: &str, document: &str) -> Result<()> {
    note_of_program(replica, id, (Some(document), None, true))
}

/// Notes that a program failed to decide about a conflict. It is asked again.
pub(crate) fn note_failed(replica: &Replica, id: &str, reason: &str) -> Result<()> {
    note_of_program(replica, id, (None, Some(shortened(reason)), false))
}

/// Notes what a program says. What an application has decided while it thought goes before that.
fn note_of_program(
    replica: &Replica,
    id: &str,
    (decision, refused, programs): (Option<&str>, Option<String>, bool),
) -> Result<()> {
    let sql = "INSERT OR REPLACE INTO _pm_wish (id, decision, refused, programs) SELECT ?1, ?2, ?3, ?4
         WHERE NOT EXISTS (SELECT 1 FROM _pm_wish WHERE id = ?1 AND refused IS NULL)";
    replica.db.prepare_cached(sql)?.execute((id, decision, refused, programs))?;
    Ok(())
}

/// Returns whether something is noted about a conflict: what an application or a program decided, or why not.
pub(crate) fn is_noted(replica: &Replica, id: &str) -> Result<bool> {
    Ok(replica.db.prepare_cached("SELECT 1 FROM _pm_wish WHERE id = ?1")?.exists([id])?)
}

/// Returns the number of what was noted last.
pub(crate) fn last_noted(replica: &Replica) -> Result<i64> {
    Ok(value::maybe(&replica.db, "SELECT max(n) FROM _pm_wish", [])?.flatten().unwrap_or(0))
}

/// A failure: its number, the conflict's id, and where that is, if it is open.
type Failed = (i64, String, Option<Place>);

/// Returns the next conflict about which a program failed, or what was decided in SQL was refused: after one, up to another.
/// What a program has left to a person is none of them.
pub(crate) fn next_failed(replica: &Replica, (after, until): (i64, i64)) -> Result<Option<Failed>> {
    let sql = "SELECT n, CAST(substr(id, 1, 64) AS BLOB) FROM _pm_wish
               WHERE refused IS NOT NULL AND NOT programs AND n > ?1 AND n <= ?2 ORDER BY n LIMIT 1";
    let mut statement = replica.db.prepare_cached(sql)?;
    let found = statement.query_row((after, until), |row| Ok((row.get(0)?, text(row.get(1)?)))).optional()?;
    let Some((n, id)) = found else { return Ok(None) };
    let place = place(replica, &id)?;
    Ok(Some((n, id, place)))
}
