//! Starting from a snapshot: a new device, or one whose place in the log is gone.
//!
//! What a device had written itself and the snapshot's maker has not applied is kept, and what of others
//! is here and waits there: it is told anew, under a new identity, as written without regard to what the
//! snapshot has. Where both have a row and differ, that is a conflict.

use std::collections::HashMap;
use std::io::{BufReader, Read, Seek};
use std::path::Path;

use packmule_core::model::{DeviceId, Stream};
use packmule_core::wire::{Certificate, FrameFlags, Mode, VectorEntry};
use rusqlite::{ErrorCode, OpenFlags, params_from_iter};

use crate::engine::capture::dirty::ChangeFlags;
use crate::engine::capture::groups::{self, SealOptions};
use crate::engine::capture::watch;
use crate::engine::capture::{adopt, evolve, seal};
use crate::engine::conflicts::resolve;
use crate::engine::error::{self, BundleProblem, Error, Result, Stranger};
use crate::engine::exchange::load::{self, JoinReport, Loader};
use crate::engine::exchange::{inspect, twin};
use crate::engine::fleet::open::{self, InitOptions};
use crate::engine::fleet::{devices, membership, peers, positions, trust};
use crate::engine::log::bundle::{BundleReader, Item};
use crate::engine::log::frames;
use crate::engine::log::visit::{self, Part};
use crate::engine::merge::heads::Seen;
use crate::engine::merge::{compose, context_free, deferred};
use crate::engine::show::{constraints, transaction, triggers, write};
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
    /// Its name; a device that was one before keeps its own.
    pub name: Option<&'a str>,
    /// The fleet that vouches for its identity.
    pub fleet: Option<&'a FleetKey>,
}

/// A snapshot that was verified.
struct Verified {
    maker: DeviceId,
    maker_name: String,
    certificate: Vec<u8>,
    fleet: Option<[u8; 32]>,
    vector: Vec<VectorEntry>,
}

/// A certificate of a snapshot, as long as it is being verified.
struct Known {
    id: DeviceId,
    name: String,
    key: [u8; 32],
    fleet: Option<[u8; 32]>,
    bytes: Vec<u8>,
}

/// What a snapshot's maker has of what is here.
#[derive(Default)]
struct Heard {
    /// Up to where it, or any base, has what this device wrote, by stream.
    own: [u64; 2],
    /// Another goes on as who this device is.
    another: bool,
    /// It has another history of a third device than is here.
    another_of_others: bool,
    /// The groups of others that it has not, if one of these is so, or that wait there: nobody but this device
    /// may be able to bring them in.
    others: Vec<Group>,
}

/// A group of the log.
struct Group {
    dev: i64,
    stream: u8,
    first: u64,
    last: u64,
}

/// A per-device table, to be tracked again.
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
    // A device that is nobody's yet takes the snapshot's maker on its owner's word, unless a
    // fleet is named.
    if let Some(fleet) = join.fleet
        && verified.fleet != Some(fleet.public_key())
    {
        let name = Some(verified.maker_name);
        return Err(Error::Strangers(vec![Stranger { id: verified.maker, name, revoked: false }]));
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
        if let Err(stranger) = outcome {
            return Err(Error::Strangers(vec![stranger]));
        }
    }
    let report = rebase(&mut engine, snapshot, &verified, join)?;
    let path = engine.path.clone();
    let options = std::mem::take(&mut engine.options);
    drop(engine);
    Ok((open::open_as(&path, options, OpenFlags::SQLITE_OPEN_READ_WRITE)?, report))
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
    let result = transaction::end_transaction(replica, result);
    triggers::count_as_tracked(replica, &[]);
    let report = result?;
    if new_key.is_some() {
        keys::adopt_new_key(&keys::device_key_path(&replica.path))?;
    }
    Ok(report)
}

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
    let there = what_the_maker_has(replica, &verified.vector)?;
    let own = collect_own_rows(replica, &there)?;
    // Until they are tracked again, no trigger may write to those that were.
    triggers::count_as_tracked(replica, &catalog::tables(replica));
    let had_log = Stream::ALL.iter().try_fold(false, |any, s| {
        Ok::<_, Error>(any | (positions::position(replica, replica.me, *s)?.seq > 0))
    })?;
    wipe(replica)?;
    // Where another goes on as who this was, that one will write more.
    let old = (had_log && !there.another).then_some(replica.identity.id);
    if had_log {
        if let Some(old) = old {
            membership::record_retired(replica, old, None, true)?;
        }
        *new_key = Some(new_identity(replica, join)?);
        replica.key.clone_from(new_key);
        report.new_identity = true;
    }
    let mut loader = Loader { engine: replica, parts: 0, maker_defs: Vec::new(), report: &mut report };
    loader.load(BundleReader::new(BufReader::new(snapshot)))?;
    replica.quarantined.set(true); // What the maker had parked came along.
    for own in own {
        track_own_again(replica, &own)?;
    }
    catalog::reload_catalog(replica)?;
    report.kept = re_author_rows(replica, old)?;
    adopt::remember_schema(replica)?;
    replica.db.execute_batch("DROP TABLE temp._pm_mine")?;
    Ok(report)
}

/// Notes the rows that the snapshot's maker has not heard of, and copies them aside.
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
        for group in there.others.iter().filter(|group| group.stream == stream.number()) {
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
            own.push(own_table(replica, table, unheard)?);
            continue;
        }
        for key in unheard {
            load::copy_own_row(replica, &table.def, table, &key)?;
        }
    }
    Ok(own)
}

/// What the snapshot's maker has of what is here.
fn what_the_maker_has(replica: &Replica, vector: &[VectorEntry]) -> Result<Heard> {
    let mut heard = Heard::default();
    let (mut others, mut pending_there) = (HashMap::new(), HashMap::new());
    let (mut come, mut same_here, mut bound) = ([0; 2], [0; 2], [u64::MAX; 2]);
    // What waits there may wait for ever.
    let applied: HashMap<_, _> =
        positions::applied(vector).map(|e| ((e.author, e.stream.number()), e.seq)).collect();
    for entry in vector.iter().filter(|entry| entry.seq > 0) {
        let place = (entry.author, entry.stream.number());
        let is_applied = applied.get(&place).is_some_and(|seq| entry.seq <= *seq);
        let Some(dev) = devices::device_number(replica, entry.author)? else { continue };
        let position = positions::position(replica, dev, entry.stream)?.seq;
        let same =
            twin::chain_at(replica, dev, entry.stream, entry.seq)?.map(|chain| chain.tag() == entry.tag);
        if dev == replica.me {
            let at = usize::from(entry.stream.number());
            if is_applied {
                come[at] = come[at].max(entry.seq);
            }
            match same {
                Some(true) if is_applied => same_here[at] = same_here[at].max(entry.seq),
                Some(true) => {}
                Some(false) => bound[at] = bound[at].min(entry.seq.saturating_sub(1)),
                None => {} // It has more than is here, or what is folded away, which everybody has.
            }
            heard.another |= same == Some(false) || entry.seq > position;
        } else {
            let other = same == Some(false) || (same.is_none() && entry.seq <= position);
            heard.another_of_others |=
                other && !membership::is_behind(replica, dev, entry.stream, entry.seq)?;
            if same == Some(true) {
                let there = if is_applied { &mut others } else { &mut pending_there };
                let there = there.entry((dev, entry.stream.number())).or_insert(0);
                *there = entry.seq.max(*there);
            }
        }
    }
    let apart = heard.another || heard.another_of_others;
    if apart || !pending_there.is_empty() {
        // What was built on the other history is of no use to anybody who has the first, and who wrote what
        // waits there may not come any more. Per-device rows of others are a board's own, from when it was
        // that other.
        let mut groups = replica.db.prepare_cached(
            "SELECT dev, stream, first, last FROM _pm_group WHERE dev <> ?1 AND (stream = 0 OR NOT ?2) AND applied
             ORDER BY dev, stream, last",
        )?;
        let groups = groups
            .query_map((replica.me, replica.identity.base), |row| {
                Ok(Group { dev: row.get(0)?, stream: row.get(1)?, first: row.get(2)?, last: row.get(3)? })
            })?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        let unheard = |g: &Group| others.get(&(g.dev, g.stream)).is_none_or(|seq| g.first > *seq);
        let waits = |g: &Group| pending_there.get(&(g.dev, g.stream)).is_some_and(|seq| g.last <= *seq);
        heard.others = groups.into_iter().filter(|g| unheard(g) && (apart || waits(g))).collect();
    }
    heard.own = if heard.another {
        // What is common need not have come there: the other stream takes another way.
        let common = twin::common_prefix(replica, same_here, bound, false)?;
        [common[0].min(come[0]), common[1].min(come[1])]
    } else {
        // Of per-device rows boards have none, but some base may have.
        let at_bases: Option<u64> = replica.db.query_row(
            "SELECT max(seq) FROM _pm_ack JOIN _pm_device ON n = peer AND base WHERE dev = ?1 AND stream = 1",
            [replica.me],
            |row| row.get(0),
        )?;
        let folded = twin::common_prefix(replica, [0; 2], [0; 2], false)?;
        [same_here[0].max(folded[0]), same_here[1].max(folded[1]).max(at_bases.unwrap_or(0))]
    };
    Ok(heard)
}

fn own_table(_replica: &Replica, table: &Table, unheard: Vec<Vec<u8>>) -> Result<OwnTable> {
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
    for name in [
        "stream", "frame", "group", "context", "ack", "floor", "def", "table", "head", "image", "conflict",
        "parked", "dangling", "count", "held", "declared",
    ] {
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

fn track_own_again(replica: &Replica, own: &OwnTable) -> Result<()> {
    let (id, body) = own.def.encode()?;
    let tid = catalog::keep_def(replica, &own.def, id, &body)?;
    replica.db.execute(
        "UPDATE _pm_table SET def = ?2, state = 1, announced = 0, appended = ?3, note = NULL WHERE tid = ?1",
        (tid, id.0, own.high_water),
    )?;
    catalog::reload_catalog(replica)?;
    let table = catalog::table(replica, tid)?;
    watch::install_capture(replica, &table)?;
    for (key, what) in &own.dirty {
        resolve::record_key(replica, &table, &value::read_key(key)?, *what)?;
    }
    Ok(())
}

/// Writes the rows that were copied aside where they differ, and seals them; says that the old identity
/// will write nothing more.
fn re_author_rows(replica: &Replica, old: Option<DeviceId>) -> Result<u64> {
    let mut statement = replica.db.prepare("SELECT name, key, present FROM temp._pm_mine")?;
    let mine = statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<rusqlite::Result<Vec<(String, Vec<u8>, bool)>>>()?;
    let (mut kept, mut clashing) = (0, Vec::new());
    for (name, key, present) in mine {
        let Some(table) = catalog::table_named(replica, &name).filter(|t| t.shows_shared()) else { continue };
        let copy = load::own_rows_table(&name);
        let shown = compose::shown_row(replica, &table, &key)?;
        let keys = value::read_key(&key)?;
        let row = if present {
            let columns = table.column_list();
            let sql = format!("SELECT {columns} FROM temp.{copy} WHERE {}", table.key_match_from(0));
            let mut select = replica.db.prepare(&sql)?;
            let mut rows = select.query(params_from_iter(keys.iter().map(|v| Bind(v.borrow()))))?;
            match rows.next()? {
                Some(row) => {
                    let values = (0..table.def.columns.len())
                        .map(|at| OwnedValue::of(value::from_sql(row.get_ref(at)?)));
                    Some(values.collect::<Result<Vec<_>>>()?)
                }
                None => continue,
            }
        } else {
            None
        };
        if row == shown {
            continue;
        }
        kept += 1;
        context_free::remember_heard(replica, &table, &key, &Seen::All, shown)?;
        write::delete_row(replica, &table, &key)?;
        if let Some(row) = &row {
            let columns: Vec<usize> = (0..table.def.columns.len()).collect();
            let sql = table.upsert_sql(&columns);
            let written = triggers::firing(replica, &table, || {
                let values = row.iter().map(|v| Bind(v.borrow()));
                Ok(replica.db.prepare_cached(&sql)?.execute(params_from_iter(values))?)
            });
            match written {
                Err(Error::Sqlite(e)) if e.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
                    clashing.push((table, key, row.clone()));
                    continue;
                }
                written => written?,
            };
        }
        resolve::record_key(
            replica,
            &table,
            &keys,
            if row.is_some() { ChangeFlags::INSERT } else { ChangeFlags::DELETE },
        )?;
    }
    let context_free = SealOptions { flags: FrameFlags::BLIND, ..SealOptions::default() };
    seal::seal_here(replica, SealOptions { retire: old, ..context_free })?;
    // A row of the snapshot has a value that one of ours claims: ours is told, and then it is
    // settled which of them is kept out.
    for (table, key, row) in clashing {
        let columns: Vec<usize> = (0..table.def.columns.len()).collect();
        let sql = table.insert_sql(&columns).replacen("INSERT", "INSERT OR REPLACE", 1);
        constraints::replacing(replica, &table, &key, || {
            triggers::firing(replica, &table, || {
                let values = row.iter().map(|v| Bind(v.borrow()));
                replica.db.prepare_cached(&sql)?.execute(params_from_iter(values))?;
                Ok(())
            })
        })?;
        resolve::record_key(replica, &table, &value::read_key(&key)?, ChangeFlags::INSERT)?;
        seal::seal_here(replica, context_free)?;
    }
    Ok(kept)
}

/// The fleet that vouches for a device; for a second history, by the word of the identity before.
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

/// Reads all of a snapshot and checks every signature in it.
fn verify<R: Read + Seek>(snapshot: &mut R) -> Result<Verified> {
    snapshot.rewind().map_err(Error::Stream)?;
    let mut reader = BundleReader::new(BufReader::new(snapshot));
    let mut certificates: Vec<Known> = Vec::new();
    let mut maker = None;
    let mut vector = Vec::new();
    loop {
        let at = reader.offset();
        match reader.next_item()? {
            Item::Header(header) => {
                maker = Some(header.header.sender);
                vector = header.vector().collect();
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
                return Ok(Verified {
                    maker: maker.id,
                    maker_name: maker.name,
                    certificate: maker.bytes,
                    fleet,
                    vector,
                });
            }
            Item::End => {
                return Err(Error::bundle(0, BundleProblem::IsABundle));
            }
            Item::Frame(..) | Item::State(_) | Item::Part(_) => {}
        }
    }
}
