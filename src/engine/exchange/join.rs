//! Starting from a snapshot: a new device, or one that lacks what others have folded.
//!
//! A snapshot is taken in as the state that it is (`take_state.rs`): identity, log and what is not sealed stay. A new device
//! trusts first whom the maker answers for, on its owner's word. Only where others have built on a second history that is
//! here does the device start anew; the rest of this is about that.
//!
//! **Invariant.** Afterwards the shared tables are the snapshot's, and beside it stands every row here of which the
//! snapshot's maker cannot have heard, as a context-free write of this device: equal rows are one version, different
//! ones a conflict. Nothing that only this device had is lost, and nothing of the snapshot is overwritten.
//!
//! **Why it holds.** The rows that are brought along are those that a frame of ours touches beyond what the maker has
//! *applied* (not what is pending there, since its missing dependency may never come), those in the lists of changes
//! that no frame has yet, and, where the maker has another history of anybody or has pending frames, the rows of
//! other authors' groups that it has not applied. A probe counts as the maker's only if the chain tags agree
//! (`heard`). Of a per-device stream, what any base has acknowledged counts too. All these rows are copied aside
//! before anything is wiped. A context-free op dominates nothing but its own author's versions, so it can push out no
//! version of the snapshot; what it meets is gathered into one baseline version on every device
//! (`merge/context_free.rs`).
//!
//! A device that had frames takes a new identity, because its old numbers may stand for other frames elsewhere. The
//! old identity is retired, unless another device goes on as it. The snapshot's rows are its maker's word, under its
//! signature; the frames in it are their authors'. The snapshot is verified to its end before anything is written,
//! and all of this is one SQLite transaction.

use std::io::{BufReader, Read, Seek};
use std::path::Path;

use packmule_core::model::{DeviceId, Stream};
use packmule_core::wire::{Certificate, FrameFlags, Mode, Position, Probe};
use rusqlite::{OpenFlags, params_from_iter};

use crate::engine::capture::dirty::{self, ChangeFlags};
use crate::engine::capture::groups::{self, SealOptions};
use crate::engine::capture::watch;
use crate::engine::capture::{adopt, evolve, seal};
use crate::engine::error::{self, BundleProblem, Error, Result, UntrustedDevice};
use crate::engine::exchange::admit::{self, Admission, AdmitOptions};
use crate::engine::exchange::heard::{self, Heard};
use crate::engine::exchange::load::{self, JoinReport, Loader};
use crate::engine::exchange::state_values::RowLoader;
use crate::engine::exchange::{certificates, import, inspect, transaction};
use crate::engine::fleet::open::{self, InitOptions};
use crate::engine::fleet::{devices, membership, peers, positions, trust};
use crate::engine::log::bundle::{BundleReader, Item};
use crate::engine::log::frames;
use crate::engine::log::visit::{self, Part};
use crate::engine::merge::heads::Seen;
use crate::engine::merge::{compose, context_free, deferred};
use crate::engine::show::{self, constraints, triggers, write};
use crate::engine::store::connection::{self, Options};
use crate::engine::store::keys::{self, FleetKey};
use crate::engine::store::layout;
use crate::engine::store::value::{self, Bind, OwnedValue};
use crate::engine::table::catalog;
use crate::engine::table::def::TableDef;
use crate::engine::table::known::{State, Table};
use crate::engine::table::replica::Replica;

/// How a device starts from a snapshot.
#[derive(Clone, Copy, Default)]
pub struct JoinOptions<'a> {
    /// Its name; a device that was one before is renamed, as `Engine::rename` does it.
    pub name: Option<&'a str>,
    /// The fleet that issues its certificate.
    pub fleet: Option<&'a FleetKey>,
}

/// A snapshot that was verified.
struct Verified {
    maker: DeviceId,
    maker_name: String,
    certificate: Vec<u8>,
    /// All certificates in it.
    certificates: Vec<Vec<u8>>,
    fleet: Option<[u8; 32]>,
    /// What its maker has applied.
    applied: Vec<Position>,
    /// The maker's probes of all streams.
    probes: Vec<Probe>,
}

/// A certificate of a snapshot, as long as it is being verified.
struct Known {
    id: DeviceId,
    name: String,
    key: [u8; 32],
    fleet: Option<[u8; 32]>,
    bytes: Vec<u8>,
}

/// A per-device table that is to be tracked again.
struct OwnTable {
    def: TableDef,
    high_water: i64,
    dirty: Vec<(Vec<u8>, ChangeFlags)>,
}

/// Makes a database a device that starts from a snapshot; creates the file if need be.
pub(crate) fn join<R: Read + Seek>(
    path: &Path,
    snapshot: &mut R,
    join: &JoinOptions<'_>,
    options: Options,
) -> Result<(Replica, JoinReport)> {
    let verified = verify(&mut *snapshot)?;
    let is_device = path.exists() && {
        let db = connection::open_connection(path, OpenFlags::SQLITE_OPEN_READ_WRITE, &options)?;
        layout::present(&db)?
    };
    // A new device trusts the snapshot's maker on its owner's word, unless a fleet is named.
    if let Some(fleet) = join.fleet
        && !verified.fleet.is_some_and(|maker| fleet.public_keys().contains(&maker))
    {
        let name = Some(verified.maker_name);
        return Err(Error::Untrusted(vec![UntrustedDevice { id: verified.maker, name, revoked: false }]));
    }
    let mut engine = if is_device {
        open::open_as(path, options, OpenFlags::SQLITE_OPEN_READ_WRITE)?
    } else {
        let name = join.name.unwrap_or("device");
        open::init_with(path, &InitOptions { name, base: false, fleet: join.fleet }, options)?
    };
    if is_device {
        let outcome = catalog::reading(&engine, |e| {
            trust::verify_certificate(e, &Certificate::decode(&verified.certificate).map_err(error::bad)?)
        })?;
        if let Err(untrusted) = outcome {
            return Err(Error::Untrusted(vec![untrusted]));
        }
    }
    if let Some(name) = join.name.filter(|_| is_device) {
        certificates::rename(&mut engine, name)?;
    }
    let report = match take_in(&mut engine, snapshot, &verified, join, is_device) {
        // Others have built on the second history that is here: nothing else brings the two together.
        Err(Error::Forked { .. } | Error::Twin { .. }) => rebase(&mut engine, snapshot, &verified, join)?,
        taken => taken?,
    };
    let path = engine.path.clone();
    let options = std::mem::take(&mut engine.options);
    drop(engine);
    Ok((open::open_as(&path, options, OpenFlags::SQLITE_OPEN_READ_WRITE)?, report))
}

/// Takes in a snapshot as the state that it is: identity, log and what is not sealed stay.
fn take_in<R: Read + Seek>(
    replica: &mut Replica,
    snapshot: &mut R,
    verified: &Verified,
    join: &JoinOptions<'_>,
    is_device: bool,
) -> Result<JoinReport> {
    if !is_device {
        trust_all(replica, &verified.certificates)?;
    } else if let Some(fleet) = join.fleet.filter(|_| !replica.identity.admitted) {
        let mut admission = Admission::new(fleet);
        admit::read_database(&mut admission, replica)?;
        let own = [replica.identity.id];
        let admitted = admission.sign(&AdmitOptions { base: replica.identity.base, only: &own })?;
        admit::take_admitted(replica, &admitted)?;
    }
    let taken = import::import(replica, snapshot, &mut |_| ())?;
    Ok(JoinReport {
        maker: Some(verified.maker),
        maker_name: verified.maker_name.clone(),
        rows: taken.ops,
        waiting: taken.ops_waiting,
        frames: taken.frames,
        kept: 0,
        new_identity: taken.new_identity.is_some(),
    })
}

/// Trusts the devices that a snapshot's maker answers for: those of other fleets, or of none, singly. A new device does so
/// on its owner's word.
fn trust_all(replica: &mut Replica, all: &[Vec<u8>]) -> Result<()> {
    transaction::transaction(replica, |e| {
        for bytes in all {
            let certificate = Certificate::decode(bytes).map_err(error::bad)?;
            certificates::store_answered_for(e, &certificate, bytes)?;
        }
        Ok(())
    })
}

/// Starts anew from a snapshot, in one transaction.
fn rebase<R: Read + Seek>(
    replica: &mut Replica,
    snapshot: &mut R,
    verified: &Verified,
    join: &JoinOptions<'_>,
) -> Result<JoinReport> {
    snapshot.rewind().map_err(Error::Stream)?;
    let mut new_key = None;
    replica.db.execute_batch("BEGIN IMMEDIATE")?;
    let result = rebase_here(replica, snapshot, verified, join, &mut new_key);
    let result = show::transaction::end_transaction(replica, result);
    triggers::count_as_tracked(replica, &[]);
    let report = result?;
    if new_key.is_some() {
        keys::adopt_new_key(&keys::device_key_path(&replica.path))?;
    }
    Ok(report)
}

/// Does the work of [`rebase`], within its transaction.
fn rebase_here<R: Read + Seek>(
    replica: &mut Replica,
    snapshot: &mut R,
    verified: &Verified,
    join: &JoinOptions<'_>,
    new_key: &mut Option<ed25519_compact::SecretKey>,
) -> Result<JoinReport> {
    let mut report = JoinReport {
        maker: Some(verified.maker),
        maker_name: verified.maker_name.clone(),
        ..JoinReport::default()
    };
    catalog::load_catalog(replica)?;
    deferred::begin_deferring(replica)?;
    evolve::notice_schema_changes(replica)?;
    replica.db.execute_batch(
        "CREATE TEMP TABLE _pm_mine (name TEXT, key BLOB, present INTEGER, PRIMARY KEY (name, key)) WITHOUT ROWID",
    )?;
    let there = heard::heard(replica, &verified.applied, &verified.probes)?;
    let own = collect_own_rows(replica, &there)?;
    // Until they are tracked again, no trigger may write to those that were.
    triggers::count_as_tracked(replica, &catalog::tables(replica));
    let had_log = Stream::ALL.iter().try_fold(false, |any, s| {
        Ok::<_, Error>(any | (positions::position(replica, replica.me, *s)?.seq > 0))
    })?;
    wipe(replica)?;
    // Where another device goes on under this identity, that one will write more.
    let old = (had_log && !there.another).then_some(replica.identity.id);
    if had_log {
        if let Some(old) = old {
            membership::record_retired(replica, old, None, true)?;
        }
        *new_key = Some(new_identity(replica, join)?);
        replica.key.clone_from(new_key);
        report.new_identity = true;
    }
    let mut loader = Loader { engine: replica, rows: RowLoader::new(replica)?, report: &mut report };
    loader.load(BundleReader::new(BufReader::new(snapshot)))?;
    replica.quarantined.set(true); // Rows that were quarantined at the maker came along.
    for own in own {
        track_own_again(replica, &own)?;
    }
    catalog::reload_catalog(replica)?;
    report.kept = re_author_rows(replica, old)?;
    adopt::remember_schema(replica)?;
    replica.db.execute_batch("DROP TABLE temp._pm_mine")?;
    Ok(report)
}

/// Records the rows that the snapshot's maker has not heard of, and copies them aside.
fn collect_own_rows(replica: &Replica, there: &Heard) -> Result<Vec<OwnTable>> {
    let mut own = Vec::new();
    for table in catalog::tables(replica).iter().filter(|t| t.state == State::Tracked) {
        let stream = groups::stream_of(table);
        let mut unheard: Vec<Vec<u8>> = Vec::new();
        for seq in there.own[usize::from(stream.number())] + 1
            ..=positions::position(replica, replica.me, stream)?.seq
        {
            keys_in_frame(replica, table.tid, (replica.me, stream), seq, &mut unheard)?;
        }
        for group in there.others.iter().filter(|group| group.stream == stream) {
            for seq in group.first..=group.last {
                keys_in_frame(replica, table.tid, (group.dev, stream), seq, &mut unheard)?;
            }
        }
        let n = table.def.keys().count();
        let names: Vec<String> = (1..=n).map(|n| format!("k{n}")).collect();
        let mut dirty =
            replica.db.prepare(&format!("SELECT DISTINCT {} FROM {}", names.join(", "), table.dirty()))?;
        let mut rows = dirty.query([])?;
        while let Some(row) = rows.next()? {
            let values = (0..n)
                .map(|at| row.get_ref(at).map(value::from_sql))
                .collect::<rusqlite::Result<Vec<_>>>()?;
            unheard.push(table.key_of(values.into_iter())?);
        }
        drop(rows);
        unheard.sort();
        unheard.dedup();
        if table.def.mode == Mode::PerDevice {
            own.push(own_table(table, unheard)?);
            continue;
        }
        for key in unheard {
            load::copy_own_row(replica, &table.def, table, &key)?;
        }
    }
    Ok(own)
}

/// Describes a per-device table of ours, with its rows that nobody has heard of.
fn own_table(table: &Table, unheard: Vec<Vec<u8>>) -> Result<OwnTable> {
    let mut high_water = table.high_water;
    let mut dirty = Vec::new();
    for key in unheard {
        if table.def.append {
            if let Some(OwnedValue::Int(id)) = value::read_key(&key)?.first() {
                high_water = high_water.min(id - 1);
            }
        } else {
            dirty.push((key, ChangeFlags::INSERT | ChangeFlags::DELETE));
        }
    }
    Ok(OwnTable { def: table.def.clone(), high_water, dirty })
}

/// Collects the keys of the rows of a table that a frame touches.
fn keys_in_frame(
    replica: &Replica,
    tid: i64,
    (dev, stream): (i64, Stream),
    seq: u64,
    keys: &mut Vec<Vec<u8>>,
) -> Result<()> {
    let body = frames::frame_here(replica, dev, stream, seq)?;
    let frame = frames::parse(&body)?;
    visit::visit(replica, &frame, |part| {
        if let Part::Op(def, op) = part
            && def.tid == tid
        {
            keys.push(def.key_of(op.values(def.shape()))?);
        }
        Ok(())
    })
}

/// The `_pm_` tables that are about the log, or name tables by numbers that are given anew.
const WIPED: [&str; 31] = [
    "stream", "frame", "group", "context", "ack", "copy", "floor", "def", "table", "head", "stretch",
    "image", "conflict", "parked", "dangling", "count", "held", "declared", "unplaced", "newest", "tag",
    "number", "fold", "folded", "gone", "gap", "reached", "aside", "run", "summed", "staged",
];

/// Forgets the log and all that was known by it.
fn wipe(replica: &Replica) -> Result<()> {
    for table in catalog::tables(replica) {
        if matches!(table.state, State::Tracked | State::Untracked) {
            watch::remove_capture(replica, &table)?;
        }
        replica.db.execute_batch(&format!("DROP TABLE IF EXISTS {}", table.quarantine_table()))?;
        if table.shows_shared() {
            load::empty(replica, &table)?;
        }
    }
    for name in WIPED {
        replica.db.execute_batch(&format!("DELETE FROM _pm_{name}"))?;
    }
    peers::forget_evidence(replica)?;
    catalog::reload_catalog(replica)
}

/// Becomes another device; the old one is retired.
fn new_identity(replica: &mut Replica, join: &JoinOptions<'_>) -> Result<ed25519_compact::SecretKey> {
    let name = join.name.unwrap_or(&replica.identity.name).to_owned();
    let (issuer, fleet) = (join.fleet.map(|f| &f.0), join.fleet.map(FleetKey::public_key));
    devices::take_identity(replica, |_| name, issuer, fleet)
}

/// Tracks a per-device table of ours again, with the rows that nobody has heard of in its list of changes.
fn track_own_again(replica: &Replica, own: &OwnTable) -> Result<()> {
    let (id, body) = own.def.encode()?;
    let tid = catalog::keep_def(replica, &own.def, id, &body)?;
    replica.db.execute(
        "UPDATE _pm_table SET def = ?2, state = ?4, announced = 0, appended = ?3, gaps = 0, note = NULL WHERE tid = ?1",
        (tid, id.0, own.high_water, State::Tracked),
    )?;
    catalog::reload_catalog(replica)?;
    let table = catalog::table(replica, tid)?;
    watch::install_capture(replica, &table)?;
    for (key, what) in &own.dirty {
        dirty::record_key(replica, &table, &value::read_key(key)?, *what)?;
    }
    Ok(())
}

/// Re-authors the rows that were copied aside where they differ from the snapshot's, and retires the old identity.
/// Returns how many rows that were.
fn re_author_rows(replica: &Replica, old: Option<DeviceId>) -> Result<u64> {
    let mut statement = replica.db.prepare("SELECT name, key, present FROM temp._pm_mine")?;
    let mine = statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<rusqlite::Result<Vec<(String, Vec<u8>, bool)>>>()?;
    let (mut kept, mut clashing) = (0, Vec::new());
    for (name, key, present) in mine {
        let Some(table) = catalog::table_named(replica, &name).filter(|t| t.shows_shared()) else { continue };
        let shown = compose::shown_row(replica, &table, &key)?;
        let row = if present {
            let Some(row) = row_aside(replica, &table, &name, &key)? else { continue };
            Some(row)
        } else {
            None
        };
        if row == shown {
            continue;
        }
        kept += 1;
        context_free::remember_heard(replica, &table, &key, &Seen::All, shown)?;
        write::delete_row(replica, &table, &key)?;
        let flags = if row.is_some() { ChangeFlags::INSERT } else { ChangeFlags::DELETE };
        match row.as_ref().map_or(Ok(()), |row| upsert_row(replica, &table, row)) {
            Err(Error::Sqlite(e)) if constraints::is_refused(&e) => {
                clashing.extend(row.map(|row| (table, key, row)));
            }
            written => {
                written?;
                dirty::record_key(replica, &table, &value::read_key(&key)?, flags)?;
            }
        }
    }
    let context_free = SealOptions { flags: FrameFlags::CONTEXT_FREE, ..SealOptions::default() };
    seal::seal_here(replica, SealOptions { retire: old, ..context_free })?;
    // A row of the snapshot has a unique value that one of ours claims. Ours is re-authored, and the constraint
    // resolution pass finds which of them is quarantined.
    for (table, key, row) in clashing {
        replace_row(replica, &table, &key, &row)?;
        dirty::record_key(replica, &table, &value::read_key(&key)?, ChangeFlags::INSERT)?;
        seal::seal_here(replica, context_free)?;
    }
    Ok(kept)
}

/// Reads a row of ours that was copied aside.
fn row_aside(replica: &Replica, table: &Table, name: &str, key: &[u8]) -> Result<Option<Vec<OwnedValue>>> {
    let keys = value::read_key(key)?;
    let sql = format!(
        "SELECT {} FROM temp.{} WHERE {}",
        table.column_list(),
        load::own_rows_table(name),
        table.key_match_from(0)
    );
    let mut select = replica.db.prepare(&sql)?;
    let mut rows = select.query(params_from_iter(keys.iter().map(|v| Bind(v.borrow()))))?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let values = (0..table.def.columns.len()).map(|at| OwnedValue::of(value::from_sql(row.get_ref(at)?)));
    values.collect::<Result<Vec<_>>>().map(Some)
}

/// Writes a whole row into its table.
fn upsert_row(replica: &Replica, table: &Table, row: &[OwnedValue]) -> Result<()> {
    let columns: Vec<usize> = (0..table.def.columns.len()).collect();
    let sql = table.upsert_sql(&columns);
    triggers::firing(replica, table, || {
        let values = row.iter().map(|v| Bind(v.borrow()));
        replica.db.prepare_cached(&sql)?.execute(params_from_iter(values))?;
        Ok(())
    })
}

/// Writes a whole row into its table, and removes the rows that clash with it.
fn replace_row(replica: &Replica, table: &Table, key: &[u8], row: &[OwnedValue]) -> Result<()> {
    let columns: Vec<usize> = (0..table.def.columns.len()).collect();
    let sql = table.insert_sql(&columns).replacen("INSERT", "INSERT OR REPLACE", 1);
    constraints::replacing(replica, table, key, || {
        triggers::firing(replica, table, || {
            let values = row.iter().map(|v| Bind(v.borrow()));
            replica.db.prepare_cached(&sql)?.execute(params_from_iter(values))?;
            Ok(())
        })
    })
}

/// Finds the fleet that issued a device's certificate; for a second history, that of the identity before it.
fn fleet_of(certificates: &[Known], device: DeviceId) -> Option<[u8; 32]> {
    let mut issuer = certificates.iter().find(|c| c.id == device)?.fleet?;
    for _ in certificates {
        match certificates.iter().find(|c| c.key == issuer) {
            Some(before) => issuer = before.fleet?,
            None => break,
        }
    }
    Some(issuer)
}

/// Reads all of a snapshot and verifies every signature in it.
fn verify<R: Read + Seek>(snapshot: &mut R) -> Result<Verified> {
    snapshot.rewind().map_err(Error::Stream)?;
    let mut reader = BundleReader::new(BufReader::new(snapshot));
    let mut certificates: Vec<Known> = Vec::new();
    let mut maker = None;
    let (mut applied, mut probes) = (Vec::new(), Vec::new());
    loop {
        let at = reader.offset();
        match reader.next_item()? {
            Item::Header(header) => {
                maker = Some(header.header.sender);
                applied = header.applied().collect();
                probes = header.probes().collect();
            }
            Item::Certificate(c, bytes) => certificates.push(Known {
                id: c.device(),
                name: c.name.into(),
                key: c.public_key,
                fleet: c.fleet.map(|f| f.fleet),
                bytes: bytes.to_vec(),
            }),
            Item::Checkpoint(checkpoint, _, end) => {
                let known = certificates.iter().find(|c| c.id == checkpoint.author);
                let good = known.is_some_and(|c| checkpoint.verify(&c.key, &end).is_ok());
                if !good {
                    return Err(Error::bundle(at, BundleProblem::Signature(checkpoint.author.to_string())));
                }
            }
            Item::Seal(signature, digest) => {
                let fleet = maker.and_then(|id| fleet_of(&certificates, id));
                let all = certificates.iter().map(|known| known.bytes.clone()).collect();
                let Some(maker) = maker.and_then(|id| certificates.into_iter().find(|c| c.id == id)) else {
                    return Err(Error::bundle(
                        at,
                        BundleProblem::Structure("its maker's certificate is not in it"),
                    ));
                };
                let good = inspect::is_sealed_by(&maker.key, &signature, &digest);
                if !good {
                    return Err(Error::bundle(at, BundleProblem::Signature(maker.name)));
                }
                let Item::End = reader.next_item()? else {
                    return Err(Error::bundle(at, BundleProblem::IsABundle));
                };
                return Ok(Verified {
                    maker: maker.id,
                    maker_name: maker.name,
                    certificate: maker.bytes,
                    certificates: all,
                    fleet,
                    applied,
                    probes,
                });
            }
            Item::End => {
                return Err(Error::bundle(0, BundleProblem::IsABundle));
            }
            Item::Frame(..)
            | Item::State(_)
            | Item::Part(_)
            | Item::Revocation(_)
            | Item::Newest(_)
            | Item::FleetKey(..) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_table_is_wiped_or_outlives_the_log() {
        // Who is known and trusted, and what was said to people; `peers::forget_evidence` forgets the last two.
        let kept = ["meta", "device", "revocation", "statement", "notice", "stated", "told"];
        let db = rusqlite::Connection::open_in_memory().unwrap();
        layout::create(&db).unwrap();
        let mut all = db.prepare("SELECT substr(name, 5) FROM sqlite_schema WHERE type = 'table'").unwrap();
        let all = all.query_map([], |row| row.get(0)).unwrap().collect::<rusqlite::Result<Vec<String>>>();
        let mut all = all.unwrap();
        let mut named: Vec<&str> = WIPED.into_iter().chain(kept).collect();
        all.sort();
        named.sort();
        assert_eq!(all, named);
    }
}
