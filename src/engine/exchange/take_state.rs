//! The state of another device, merged with what is here: definitions, versions, rows, positions.
//!
//! **Invariant.** Afterwards this device shows what it would show had it applied, one by one, every frame that it or the
//! state's maker has applied; or the row waits for a verdict (`merge/late.rs`). Its identity, its log and what it has not
//! sealed stay. All of it is one transaction.
//!
//! **Why it holds.** `merge_rows.rs` has the cases of a row. What a state says beyond its author's own log is proved: each
//! entry of its vector comes with that author's newest checkpoint. Its rows are its maker's word, under its signature.

use packmule_core::model::{DeviceId, Stream};
use packmule_core::wire::{Chain, Checkpoint, DefId, Frame, GroupHead, Mode, Section};

use crate::engine::apply::{groups, vouched};
use crate::engine::capture::{declare, evolve};
use crate::engine::error::{self, BundleProblem, Error, Result};
use crate::engine::exchange::merge_rows::RowMerge;
use crate::engine::exchange::state_rows::{self, StateRow, bad, wrong};
use crate::engine::fleet::positions::{self, StreamPosition};
use crate::engine::fleet::{devices, membership, peers};
use crate::engine::log::frames;
use crate::engine::log::visit;
use crate::engine::merge::folds;
use crate::engine::merge::heads::{Cause, Seen, Stamp};
use crate::engine::show::constraints;
use crate::engine::table::catalog;
use crate::engine::table::def::TableDef;
use crate::engine::table::known::State;
use crate::engine::table::replica::Replica;

/// An entry of a state's vector, with its proof.
pub(super) struct Proof {
    pub author: DeviceId,
    pub seq: u64,
    pub checkpoint: Checkpoint,
    pub bytes: Vec<u8>,
    pub end: Chain,
}

/// Reads the entry of a state's vector that a record is, if it is one. Its signature is for the caller to verify.
pub(super) fn proof_of(replica: &Replica, body: &[u8]) -> Result<Option<Proof>> {
    let (kind, values) = state_rows::parse(body)?;
    if kind != "stream" {
        return Ok(None);
    }
    let row = StateRow { replica, values: &values };
    let (author, bytes) = (row.device_id_at(0)?, row.blob_at(4)?.to_vec());
    let seq = u64::try_from(row.int_at(2)?).map_err(|_| wrong())?;
    let checkpoint = Checkpoint::decode(&bytes).map_err(bad)?;
    let end = Chain(row.blob_at(3)?.try_into().map_err(|_| wrong())?);
    let fits = (checkpoint.author, checkpoint.stream, checkpoint.last) == (author, Stream::Shared, seq);
    if !fits || row.int_at(1)? != i64::from(Stream::Shared.number()) {
        return Err(wrong());
    }
    Ok(Some(Proof { author, seq, checkpoint, bytes, end }))
}

/// Reads what who takes a state must have, if a record says that: a device's id, and up to where its stream.
pub(super) fn since_of(replica: &Replica, body: &[u8]) -> Result<Option<(DeviceId, u64)>> {
    let (kind, values) = state_rows::parse(body)?;
    let row = StateRow { replica, values: &values };
    match kind {
        "since" => Ok(Some((row.device_id_at(0)?, u64::try_from(row.int_at(1)?).map_err(|_| wrong())?))),
        _ => Ok(None),
    }
}

/// A declaration of a table, as the maker has it.
struct Declaration {
    table: String,
    def: DefId,
    dev: i64,
    seq: u64,
    lamport: u64,
    past: bool,
    /// Its record, to be stored.
    body: Vec<u8>,
}

/// A state that is being merged.
pub(super) struct StateMerge<'e> {
    replica: &'e Replica,
    rows: RowMerge<'e>,
    /// The maker's definitions: of all its ops, and what tables have now, with whether it shows them.
    defs: Vec<(DefId, Vec<u8>)>,
    tables: Vec<(String, DefId, bool)>,
    declarations: Vec<Declaration>,
    defined: bool,
    /// What the maker has applied, and where it keeps what.
    vector: Vec<(i64, Proof)>,
    contexts: Vec<(i64, i64, u64)>,
    floors: Vec<(i64, u64)>,
    lamport: u64,
    /// This device lacks some of what the state goes on from: nothing of it is taken.
    ignored: bool,
    /// The group whose checkpoint has not come yet.
    group: Option<GroupHead>,
    pub frames: u64,
}

impl<'e> StateMerge<'e> {
    /// Begins to merge a state.
    pub(super) fn new(replica: &'e Replica) -> Result<Self> {
        Ok(Self {
            replica,
            rows: RowMerge::new(replica)?,
            defs: Vec::new(),
            tables: Vec::new(),
            declarations: Vec::new(),
            defined: false,
            vector: Vec::new(),
            contexts: Vec::new(),
            floors: Vec::new(),
            lamport: 0,
            ignored: false,
            group: None,
            frames: 0,
        })
    }

    /// Merges a record.
    pub(super) fn record(&mut self, body: &[u8]) -> Result<()> {
        if self.ignored {
            return Ok(());
        }
        if let Some((id, seq)) = since_of(self.replica, body)? {
            self.rows.partial = true;
            self.ignored = !self.rows.had(id, seq)?;
            return Ok(());
        }
        let (kind, values) = state_rows::parse(body)?;
        let row = StateRow { replica: self.replica, values: &values };
        match kind {
            "def" => self.defs.push((DefId::of(row.blob_at(0)?), row.blob_at(0)?.to_vec())),
            "table" => {
                let id = row.blob_at(1)?.try_into().map_err(|_| wrong())?;
                self.tables.push((row.text_at(0)?.to_owned(), DefId(id), row.int_at(2)? == 1));
            }
            "declared" => self.declaration(&row, body)?,
            "lamport" => self.lamport = u64::try_from(row.int_at(0)?).map_err(|_| wrong())?,
            "stream" => {
                let proof = proof_of(self.replica, body)?.ok_or_else(wrong)?;
                let dev = devices::device_number_or_new(self.replica, proof.author)?;
                self.rows.vector.insert(dev, proof.seq);
                self.vector.push((dev, proof));
            }
            "context" => {
                let seq = u64::try_from(row.int_at(3)?).map_err(|_| wrong())?;
                self.contexts.push((row.device_at(0)?, row.device_at(2)?, seq));
            }
            "number" => state_rows::load_position(&row, kind)?,
            "floor" => {
                let seq = u64::try_from(row.int_at(2)?).map_err(|_| wrong())?;
                self.floors.push((row.device_at(0)?, seq));
            }
            // Who is retired is for frames to say (`hear`); whether a row is in conflict, quarantined or an orphan is found here.
            "retired" | "conflict" | "parked" | "dangling" => {}
            "head" | "count" | "image" | "row" | "limbo" | "gone" => {
                self.define()?;
                self.rows.record(kind, &row)?;
            }
            _ => return Err(wrong()),
        }
        Ok(())
    }

    /// Keeps a part of a large value of the next row.
    pub(super) fn part(&mut self, body: &[u8]) -> Result<()> {
        if self.ignored {
            return Ok(());
        }
        self.rows.loader.keep_part(body)
    }

    /// Keeps a declaration until all are known.
    fn declaration(&mut self, row: &StateRow<'_>, body: &[u8]) -> Result<()> {
        self.declarations.push(Declaration {
            table: row.text_at(0)?.to_owned(),
            def: DefId(row.blob_at(8)?.try_into().map_err(|_| wrong())?),
            dev: row.device_at(3)?,
            seq: u64::try_from(row.int_at(4)?).map_err(|_| wrong())?,
            lamport: u64::try_from(row.int_at(5)?).map_err(|_| wrong())?,
            past: row.int_at(7)? != 0,
            body: body.to_vec(),
        });
        Ok(())
    }

    /// Takes in the maker's definitions, once all of them and all declarations have come: before the first row.
    fn define(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.defined, true) {
            return Ok(());
        }
        let mut defs: Vec<(u64, &[u8], Option<&Declaration>)> = Vec::new();
        for (id, body) in &self.defs {
            let first = self.declarations.iter().filter(|d| d.def == *id).min_by_key(|d| d.lamport);
            defs.push((first.map_or(u64::MAX, |d| d.lamport), body, first));
        }
        defs.sort_by_key(|(lamport, body, _)| (*lamport, DefId::of(body).0));
        for (_, body, declaration) in defs {
            if TableDef::decode(body).map_err(error::bad)?.mode == Mode::Shared {
                take_in_def(self.replica, body, declaration)?;
            }
        }
        for declaration in &self.declarations {
            self.declare(declaration)?;
        }
        for (name, id, shown) in std::mem::take(&mut self.tables) {
            self.begin_table(&name, id, shown)?;
        }
        self.rows.begin(&self.floors)
    }

    /// Stores a declaration; one that the maker knows to be superseded is so.
    fn declare(&self, declaration: &Declaration) -> Result<()> {
        let (_, values) = state_rows::parse(&declaration.body)?;
        let row = StateRow { replica: self.replica, values: &values };
        state_rows::load_declared(&row)?;
        if declaration.past {
            let tid = row.tid_at(0)?;
            self.replica.db.execute(
                "UPDATE _pm_declared SET past = 1 WHERE tid = ?1 AND what = ?2 AND name = ?3 AND dev = ?4 AND seq = ?5",
                (tid, row.int_at(1)?, row.text_at(2)?, declaration.dev, declaration.seq),
            )?;
        }
        Ok(())
    }

    /// Begins the rows of a table: what it is at the maker, and what it is here.
    fn begin_table(&mut self, name: &str, id: DefId, shown: bool) -> Result<()> {
        let theirs = catalog::op_def(self.replica, id)?;
        if !theirs.def.name.eq_ignore_ascii_case(name) {
            return Err(wrong());
        }
        self.rows.loader.keep_maker_def(theirs.def.clone());
        let table = catalog::table_named(self.replica, name).ok_or_else(wrong)?;
        if self.declarations.iter().any(|d| d.table.eq_ignore_ascii_case(name)) {
            declare::apply_declarations(self.replica, table.tid, &table.disputed.clone())?;
        }
        let table = catalog::table_named(self.replica, name).ok_or_else(wrong)?;
        if shown && !table.shows_shared() {
            let reason = match table.state {
                State::Suspended => {
                    "it is suspended here, and its state cannot be merged until it fits again"
                }
                _ => "a table of this name is here that does not take in these rows; track it, or rename it",
            };
            return Err(Error::cannot_track(name, reason));
        }
        self.rows.begin_table(&table)
    }

    /// Stores a frame in flight.
    pub(super) fn frame(&mut self, section: Section, frame: &Frame<'_>, body: &[u8]) -> Result<()> {
        self.group = frame.group.or(self.group);
        if self.ignored {
            return Ok(());
        }
        let dev = devices::device_number_or_new(self.replica, section.author)?;
        let new = frames::put_frame(&self.replica.db, dev, section.stream, frame.head.seq, body)?;
        self.frames += u64::from(new);
        Ok(())
    }

    /// Stores a group in flight, whose signature is verified. It is applied: its effects are in the rows.
    pub(super) fn checkpoint(&mut self, checkpoint: &Checkpoint, bytes: &[u8], end: &Chain) -> Result<()> {
        let head = self.group.take().ok_or_else(wrong)?;
        if self.ignored {
            return Ok(());
        }
        let dev = devices::device_number_or_new(self.replica, checkpoint.author)?;
        let covered = self.rows.vector.get(&dev).is_some_and(|seq| checkpoint.last <= *seq);
        if checkpoint.stream != Stream::Shared || !covered {
            return Err(Error::bundle(
                0,
                BundleProblem::Structure("a state with frames that it does not cover"),
            ));
        }
        frames::put_group(
            &self.replica.db,
            dev,
            (checkpoint, bytes),
            (head.lamport, head.wall, head.pair),
            end,
            false,
        )?;
        (checkpoint.first..=checkpoint.last).try_for_each(|seq| self.hear(dev, seq))
    }

    /// Hears what a frame in flight says of who is retired: that is for frames to say.
    fn hear(&self, dev: i64, seq: u64) -> Result<()> {
        let replica = self.replica;
        if seq <= positions::position(replica, dev, Stream::Shared)?.seq {
            return Ok(());
        }
        let body = frames::frame_here(replica, dev, Stream::Shared, seq)?;
        let frame = frames::parse(&body)?;
        visit::visit_defined(replica, &frame, |part| groups::hear_standing(replica, &frame, &part, dev))
    }

    /// Ends the merge: what only this device has, then positions, then what constraints say.
    pub(super) fn finish(mut self) -> Result<u64> {
        if self.ignored {
            return Ok(0);
        }
        self.define()?;
        self.rows.finish()?;
        let replica = self.replica;
        for (dev, proof) in &self.vector {
            self.advance(*dev, proof)?;
        }
        for (dev, other, seq) in &self.contexts {
            positions::set_context(replica, *dev, Stream::Shared, *other, *seq)?;
        }
        for (dev, seq) in &self.floors {
            membership::raise_floor(replica, *dev, Stream::Shared, *seq)?;
        }
        folds::restart(replica)?;
        vouched::recount(replica)?;
        positions::raise_lamport(replica, self.lamport)?;
        let first = positions::position(replica, replica.me, Stream::Shared)?.seq + 1;
        constraints::resolve_constraints(replica, &Cause { dev: replica.me, first, seen: &Seen::All })?;
        catalog::reload_catalog(replica)?;
        Ok(self.rows.changed)
    }

    /// Records that a stream is applied up to where the maker had it.
    fn advance(&self, dev: i64, proof: &Proof) -> Result<()> {
        let replica = self.replica;
        if proof.seq > positions::position(replica, dev, Stream::Shared)?.seq {
            let position = StreamPosition { seq: proof.seq, chain: proof.end };
            positions::set_position(replica, dev, Stream::Shared, position)?;
            if dev == replica.me {
                peers::record_common(replica, Stream::Shared, proof.seq)?;
            }
        }
        frames::put_newest(&replica.db, dev, &proof.checkpoint, &proof.bytes)?;
        replica.db.execute(
            "UPDATE _pm_group SET applied = 1 WHERE dev = ?1 AND stream = ?2 AND last <= ?3 AND NOT applied",
            (dev, Stream::Shared.number(), proof.seq),
        )?;
        Ok(())
    }
}

/// Takes in a definition of the maker's, as the device declared it that did so first.
fn take_in_def(replica: &Replica, body: &[u8], declaration: Option<&Declaration>) -> Result<()> {
    let (dev, seq, lamport) = declaration.map_or((replica.me, 0, 0), |d| (d.dev, d.seq, d.lamport));
    let stamp = Stamp { dev, seq, lamport, seen: &Seen::ContextFree, decides: false };
    if declaration.is_some() {
        return evolve::take_in_def(replica, Stream::Shared, body, &stamp);
    }
    let def = TableDef::decode(body).map_err(error::bad)?;
    if catalog::table_named(replica, &def.name).is_none() {
        return evolve::take_in_def(replica, Stream::Shared, body, &stamp);
    }
    catalog::keep_def(replica, &def, DefId::of(body), body).map(|_| ())
}
