//! Verification of all that can be verified of a database.

use packmule_core::model::Stream;
use packmule_core::wire::{Chain, Checkpoint, GroupDigest};

use crate::engine::error::{self, Error, Result};
use crate::engine::fleet::devices::{self, BASELINE};
use crate::engine::log::frames;
use crate::engine::log::visit::{self, Part};
use crate::engine::merge::stretches;
use crate::engine::show::triggers;
use crate::engine::store::value;
use crate::engine::table::catalog;
use crate::engine::table::opened::OpPlace;
use crate::engine::table::replica::Replica;
use crate::engine::upkeep::waiting;

/// What `verify` looked at, and the problems that it found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct VerifyReport {
    /// Frames whose check sum, place and author's signature were checked.
    pub frames: u64,
    /// Groups among them.
    pub groups: u64,
    /// What is wrong, in words; empty if nothing is.
    pub problems: Vec<String>,
    /// What could not be checked, in words: tables that use what only the application has.
    pub unchecked: Vec<String>,
}

/// Verifies SQLite's own integrity, every frame, chain and signature of the log, and that every
/// version that is remembered is in it.
pub(crate) fn verify(replica: &Replica) -> Result<VerifyReport> {
    catalog::reading(replica, |e| {
        let mut report = VerifyReport::default();
        verify_file(e, &mut report)?;
        verify_log(e, &mut report)?;
        verify_heads(e, &mut report)?;
        waiting::verify_waiting(e, &mut report.problems)?;
        Ok(report)
    })
}

/// Has SQLite verify the file. Where a table uses a collation or a function that only the application has, SQLite
/// verifies nothing at all: then each table is verified by itself, and those that cannot be are named.
fn verify_file(replica: &Replica, report: &mut VerifyReport) -> Result<()> {
    match integrity(replica, "10") {
        Ok(problems) => report.problems.extend(problems),
        Err(error) if lacks_the_applications(&error) => {
            let names: Vec<String> = replica
                .db
                .prepare(
                    "SELECT name FROM main.sqlite_schema WHERE type = 'table' AND rootpage > 0 ORDER BY name",
                )?
                .query_map([], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?;
            for name in names {
                match integrity(replica, &value::quote(&name)) {
                    Ok(problems) => report.problems.extend(problems),
                    Err(error) if lacks_the_applications(&error) => {
                        report.unchecked.push(format!("table `{name}`: {}", triggers::message(&error)));
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// Has SQLite verify all, or one table. Returns the problems.
fn integrity(replica: &Replica, what: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = replica.db.prepare(&format!("PRAGMA integrity_check({what})"))?;
    let lines = statement.query_map([], |row| row.get::<_, String>(0))?;
    let problems = lines.filter(|line| !matches!(line.as_deref(), Ok("ok")));
    problems.map(|line| line.map(|line| format!("SQLite: {line}"))).collect()
}

/// Returns whether SQLite lacks a collation or a function that only the application has.
fn lacks_the_applications(error: &rusqlite::Error) -> bool {
    let said = triggers::message(error);
    ["no such collation sequence", "unknown function", "no such function"]
        .iter()
        .any(|what| said.contains(what))
}

/// Verifies every group of the log, in the order of each stream.
fn verify_log(replica: &Replica, report: &mut VerifyReport) -> Result<()> {
    let mut groups = replica.db.prepare(
        "SELECT g.dev, g.stream, g.first, g.last, g.checkpoint, d.public_key, g.chain FROM _pm_group g
         JOIN _pm_device d ON d.n = g.dev ORDER BY g.dev, g.stream, g.last",
    )?;
    let mut rows = groups.query([])?;
    let mut last: Option<(i64, u8, u64, Chain)> = None;
    while let Some(row) = rows.next()? {
        let (dev, stream): (i64, u8) = (row.get(0)?, row.get(1)?);
        let (first, end): (u64, u64) = (row.get(2)?, row.get(3)?);
        let who = format!("frames {first} to {end} of {}", devices::device_label(replica, dev)?);
        let checked = verify_group(
            replica,
            (dev, stream),
            (first, end),
            &row.get::<_, Vec<u8>>(4)?,
            row.get(5)?,
            &last,
        );
        match checked {
            Ok(chain) if chain.0 == row.get::<_, [u8; 32]>(6)? => {
                last = Some((dev, stream, end, chain));
                report.frames += end - first + 1;
                report.groups += 1;
            }
            Ok(_) => report.problems.push(format!("{who}: the hash chain that is kept of them is another")),
            Err(e) => match *e {
                Error::Damaged(what) => report.problems.push(format!("{who}: {what}")),
                e => return Err(e.into()),
            },
        }
    }
    Ok(())
}

/// Verifies the frames of a group, its signature, and that it continues the group before it. Returns the chain at
/// its end.
fn verify_group(
    replica: &Replica,
    (dev, stream): (i64, u8),
    (first, end): (u64, u64),
    checkpoint: &[u8],
    key: Option<[u8; 32]>,
    last: &Option<(i64, u8, u64, Chain)>,
) -> Result<Chain> {
    let stream = value::stream_of_number(stream)?;
    let checkpoint = Checkpoint::decode(checkpoint).map_err(error::bad)?;
    let mut digest = GroupDigest::default();
    for seq in first..=end {
        let body = frames::frame_here(replica, dev, stream, seq)?;
        if frames::parse(&body)?.head.seq != seq {
            return Err(Error::damaged(format!("frame {seq} is another one")));
        }
        digest.add(&body);
    }
    let chain = checkpoint.prev.after(&digest.finish());
    let key = key.ok_or_else(|| Error::damaged("its author's key is not here"))?;
    if checkpoint.verify(&key, &chain).is_err() {
        return Err(Error::damaged("its author's signature does not match"));
    }
    if let Some((d, s, e, c)) = last
        && (*d, *s, *e + 1) == (dev, stream.number(), first)
        && *c != checkpoint.prev
    {
        return Err(Error::damaged("it does not continue what is before it"));
    }
    Ok(chain)
}

/// Verifies that every version that is remembered is in the log, at its place.
///
/// The log is walked once, and each op looked up among the versions: to look for each version in the log would walk
/// through a frame once for each of its ops. Only where one is missing it is looked for, to be named.
fn verify_heads(replica: &Replica, report: &mut VerifyReport) -> Result<()> {
    let heads: u64 = replica
        .db
        .prepare("SELECT count(*) FROM _pm_any_head WHERE dev <> ?1")?
        .query_row([BASELINE], |row| row.get(0))?;
    if count_heads(replica)? == heads { Ok(()) } else { name_lost_heads(replica, report) }
}

/// Counts the ops in the log that are remembered as versions of their rows, at their places.
fn count_heads(replica: &Replica) -> Result<u64> {
    let mut found = 0;
    let mut frames = replica.db.prepare("SELECT dev, seq, body FROM _pm_frame WHERE stream = ?1")?;
    let mut place = replica
        .db
        .prepare("SELECT place FROM _pm_head WHERE tid = ?1 AND key = ?2 AND dev = ?3 AND seq = ?4")?;
    let mut rows = frames.query([Stream::Shared.number()])?;
    while let Some(row) = rows.next()? {
        let (dev, seq): (i64, u64) = (row.get(0)?, row.get(1)?);
        let body = row.get_ref(2)?.as_blob().map_err(|_| Error::damaged("a frame that is no BLOB"))?;
        let Ok(frame) = frames::parse(body) else { continue };
        let walked = visit::visit_defined(replica, &frame, |part| {
            let Part::Op(def, op) = part else { return Ok(()) };
            let key = def.key_of(op.values(def.shape()))?;
            let mut known = place.query((def.tid, &key, dev, seq))?;
            if let Some(known) = known.next()? {
                let place = known.get::<_, u32>(0)?;
                found += u64::from(place == op.offset || place == OpPlace::BY_KEY);
            } else if let Some(integer) = value::integer_key(&key) {
                let stretch = stretches::find(replica, def.tid, integer)?;
                found += u64::from(stretch.is_some_and(|s| (s.dev, s.seq) == (dev, seq)));
            }
            Ok(())
        });
        match walked {
            // What is wrong with the frame is told by what is missing in it.
            Err(e) if !matches!(*e, Error::Damaged(_)) => return Err(e),
            _ => {}
        }
    }
    Ok(found)
}

/// Names the versions that are not in the log at their places.
fn name_lost_heads(replica: &Replica, report: &mut VerifyReport) -> Result<()> {
    let mut statement =
        replica.db.prepare("SELECT tid, key, dev, seq, place FROM _pm_any_head WHERE dev <> ?1")?;
    let mut rows = statement.query([BASELINE])?;
    while let Some(row) = rows.next()? {
        let (tid, key): (i64, Vec<u8>) = (row.get(0)?, row.get(1)?);
        let place = match (row.get(4)?, value::integer_key(&key)) {
            (OpPlace::BY_KEY, Some(integer)) => OpPlace::OfKey(tid, integer),
            (offset, _) => OpPlace::At(offset),
        };
        let found = frames::op_at(replica, row.get(2)?, Stream::Shared, row.get(3)?, place, |def, op| {
            Ok(def.tid == tid && def.key_of(op.values(def.shape()))? == key)
        });
        match found {
            Ok(true) => {}
            Err(e) if !matches!(*e, Error::Damaged(_)) => return Err(e),
            _ => {
                let table = catalog::table(replica, tid)?.def.name.clone();
                report
                    .problems
                    .push(format!("a version of a row of `{table}` is not where the log should have it"));
            }
        }
        if report.problems.len() > 20 {
            break;
        }
    }
    Ok(())
}
