//! The state of another device, merged with what is here: definitions, versions, rows, positions.
//!
//! **Invariant.** Afterwards this device shows what it would show had it applied, one by one, every frame that it or the
//! state's maker has applied; or the row waits for a verdict (`merge/late.rs`). Its identity, its log and what it has not
//! sealed stay. All of it is one transaction.
//!
//! **Why it holds.** `merge_rows.rs` has the cases of a row. What a state says beyond its author's own log is proved: each
//! entry of its vector comes with that author's newest checkpoint. Its rows are its maker's word, under its signature.

use std::cell::Cell;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

use packmule_core::model::{DeviceId, Stream};
use packmule_core::wire::{Chain, Checkpoint, DefId, Frame, GroupHead, Section};

use crate::engine::apply::report::{ImportReport, WaitsForTable};
use crate::engine::apply::{aside, groups, vouched};
use crate::engine::capture::respeak::Unread;
use crate::engine::capture::{declare, follow, heard};
use crate::engine::error::{self, BundleProblem, Error, Result};
use crate::engine::exchange::merge_rows::RowMerge;
use crate::engine::exchange::state_definitions::{Declaration, Definitions, MakersDef, MakersTable};
use crate::engine::exchange::state_rows::{self, Proof, StateRow, wrong};
use crate::engine::exchange::take_gathered::GatheredMerge;
use crate::engine::exchange::verified::Verified;
use crate::engine::exchange::{state_columns, state_restated};
use crate::engine::fleet::positions::{self, StreamPosition};
use crate::engine::fleet::{devices, membership, peers, routes};
use crate::engine::log::frames;
use crate::engine::log::tags;
use crate::engine::log::visit;
use crate::engine::merge::folds;
use crate::engine::merge::heads::{Seen, Stamp};
use crate::engine::show::constraints;
use crate::engine::table::catalog;
use crate::engine::table::declared::Subject;
use crate::engine::table::def::TableDef;
use crate::engine::table::known::ASIDE;
use crate::engine::table::limits::Teller;
use crate::engine::table::renamed::Renames;
use crate::engine::table::replica::Replica;

/// A state that is being merged.
pub(super) struct StateMerge<'e> {
    replica: &'e Replica,
    rows: RowMerge<'e>,
    gathered: GatheredMerge<'e>,
    /// The maker's definitions, and what it says of tables.
    said: Definitions<'e>,
    defined: bool,
    /// What the maker has applied, and where it keeps what.
    vector: Vec<(i64, Proof)>,
    floors: BTreeMap<i64, u64>,
    lamport: u64,
    /// This device lacks some of what the state goes on from: nothing of it is taken.
    ignored: bool,
    /// Who says all this.
    maker: Option<DeviceId>,
    /// The group whose checkpoint has not come yet.
    group: Option<GroupHead>,
    frames: u64,
}

impl<'e> StateMerge<'e> {
    /// Begins to merge a state that a device has sent.
    pub(super) fn new(replica: &'e Replica, verified: &Verified) -> Result<Self> {
        let maker = verified.sender.filter(|id| *id != replica.identity.id);
        let sender = maker.map(|id| devices::device_number_or_new(replica, id)).transpose()?;
        replica.maker_tables.borrow_mut().clear();
        replica.db.execute("DELETE FROM temp._pm_state_context", [])?;
        Ok(Self {
            replica,
            rows: RowMerge::new(replica)?,
            gathered: GatheredMerge::new(replica, sender),
            said: Definitions::new(replica)?,
            defined: false,
            vector: Vec::new(),
            floors: BTreeMap::new(),
            lamport: 0,
            ignored: verified.leaves_state,
            maker,
            group: None,
            frames: 0,
        })
    }

    /// Merges a record.
    ///
    /// # Errors
    /// [`Error::Bundle`] if what it says cannot be taken in: that is the file's fault, and not this database's.
    pub(super) fn record(&mut self, body: &[u8]) -> Result<()> {
        if self.ignored { Ok(()) } else { self.merge(body).map_err(of_state) }
    }

    fn merge(&mut self, body: &[u8]) -> Result<()> {
        let row = StateRow::parse(self.replica, body)?;
        match row.kind {
            "since" => {
                let (id, seq) = row.since()?;
                self.rows.partial = true;
                self.ignored = !self.rows.had(id, seq)?;
            }
            "def" => self.said.keep_def(row.blob_at(0)?)?,
            "gathers" => self.gathered.table(row.blob_at(0)?)?,
            "own" => self.gathered.row(&self.said, &mut self.rows.loader, &row)?,
            "gone" => self.gathered.gone(&row)?,
            "gap" => self.gathered.gap(&row)?,
            "context" | "number" if row.int_at(1)? == i64::from(Stream::PerDevice.number()) => {
                self.gathered.read_place(&row)?;
            }
            "table" => self.said.keep_table(&row)?,
            "declared" => self.said.keep_declaration(&row, body)?,
            "lamport" => self.lamport = row.seq_at(0)?,
            "stream" => {
                let proof = row.proof()?;
                if proof.checkpoint.stream == Stream::PerDevice {
                    self.define()?;
                    return self.gathered.begin(&self.said, proof);
                }
                let dev = devices::device_number_or_new(self.replica, proof.checkpoint.author)?;
                self.rows.sides.vector.insert(dev, proof.checkpoint.last);
                self.vector.push((dev, proof));
            }
            "context" => {
                let sql = "INSERT INTO temp._pm_state_context (dev, other, seq) VALUES (?1, ?2, ?3)
                    ON CONFLICT (dev, other) DO UPDATE SET seq = max(seq, excluded.seq)";
                let of = (row.device_at(0)?, row.device_at(2)?, row.seq_at(3)?);
                self.replica.db.prepare_cached(sql)?.execute(of)?;
            }
            "tags" => tags::keep_unknown(self.replica, row.device_at(0)?, row.blob_at(1)?)?,
            "number" => state_rows::load_position(&row)?,
            "floor" => {
                let floor = self.floors.entry(row.device_at(0)?).or_default();
                *floor = row.seq_at(2)?.max(*floor);
            }
            // Who is retired is for frames to say (`hear`); whether a row is in conflict, quarantined or an orphan is found here.
            "retired" | "conflict" | "parked" | "dangling" => {}
            "head" | "count" | "image" | "row" | "limbo" | "deleted" => {
                self.define()?;
                self.rows.record(&row)?;
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

    /// Takes in the maker's definitions, once all of them and all declarations have come: before the first row.
    fn define(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.defined, true) {
            return Ok(());
        }
        self.said.order()?;
        self.find_tables()?;
        self.take_shapes()?;
        self.ordain()?;
        let mut last = None;
        while let Some(def) = self.said.next_def(last.as_ref())? {
            self.take_in_def(&def)?;
            last = Some(def);
        }
        self.find_tables()?;
        self.ordain()?;
        self.said.each_declaration(&mut |declaration| self.declare(declaration))?;
        let mut last = None;
        while let Some(table) = self.said.next_table(last.as_ref())? {
            self.begin_table(&table)?;
            last = Some(table);
        }
        self.rows.begin(&self.floors.iter().map(|(dev, seq)| (*dev, *seq)).collect::<Vec<_>>())
    }

    /// Who answers for how much is said of tables.
    fn teller(&self) -> Result<Teller> {
        let maker = self.maker.map(|id| devices::device_number_or_new(self.replica, id)).transpose()?;
        Ok(Teller::of_state(maker.unwrap_or(self.replica.me)))
    }

    /// Takes in a definition of the maker's, as the device declared it that did so first: of that what is listed, since what had
    /// been declared before by others it only repeated.
    fn take_in_def(&self, MakersDef { body, declared, .. }: &MakersDef) -> Result<()> {
        let replica = self.replica;
        let def = TableDef::hear(body).map_err(error::bad)?;
        let names = self.said.renamed(&def.name)?;
        let (dev, seq, lamport) = declared.as_ref().map_or((replica.me, 0, 0), |d| (d.dev, d.seq, d.lamport));
        let stamp = Stamp { dev, seq, lamport, seen: &Seen::ContextFree, decides: false };
        let failed = Cell::new(None);
        let counts = |what: Subject, name: &str| {
            declared.is_none()
                || self.said.is_listed((dev, seq), what, name).unwrap_or_else(|e| {
                    failed.set(Some(e));
                    false
                })
        };
        if declared.is_some() || catalog::table_of(replica, &def, &names)?.is_none() {
            heard::take_in_def(replica, Stream::Shared, (body, self.teller()?), &stamp, &names, &counts)?;
            return failed.take().map_or(Ok(()), Err);
        }
        heard::keep_def(replica, (body, self.teller()?), &names)
    }

    /// Finds the maker's tables among those that are known here, by their primary keys.
    fn find_tables(&self) -> Result<()> {
        let mut found = HashMap::new();
        let mut last = None;
        while let Some(table) = self.said.next_table(last.as_ref())? {
            if let Some(body) = self.said.body(table.def)? {
                let def = TableDef::hear(&body).map_err(error::bad)?;
                if let Some(here) = catalog::table_of(self.replica, &def, &self.said.renamed(&def.name)?)? {
                    found.insert(table.name.to_ascii_lowercase(), here.tid);
                }
            }
            last = Some(table);
        }
        *self.replica.maker_tables.borrow_mut() = found;
        Ok(())
    }

    /// Takes in what the tables that are known here are on other devices: by that it is decided which columns follow.
    fn take_shapes(&self) -> Result<()> {
        let mut before = HashMap::new();
        self.said.each_declaration(&mut |renamed| {
            let of = (renamed.what == Subject::Renamed as i64)
                .then(|| state_rows::table_called(self.replica, &renamed.table));
            if let Some(tid) = of.flatten()
                && let Entry::Vacant(entry) = before.entry(tid)
            {
                let table = catalog::table(self.replica, tid)?;
                entry.insert(follow::readings(self.replica, tid, &table.def)?);
            }
            Ok(())
        })?;
        self.said.each_declaration(&mut |declaration| {
            let is_shape = declaration.what >= Subject::Shape as i64;
            if !is_shape || state_rows::table_called(self.replica, &declaration.table).is_none() {
                return Ok(());
            }
            if !catalog::is_told(self.replica, declaration.def)?
                && let Some(body) = self.said.body(declaration.def)?
            {
                let names = self.said.renamed(&TableDef::hear(&body).map_err(error::bad)?.name)?;
                heard::keep_def(self.replica, (&body, self.teller()?), &names)?;
            }
            self.declare(declaration)
        })?;
        catalog::doubt_schema(self.replica)?;
        catalog::reload_catalog(self.replica)?;
        before.iter().try_for_each(|(tid, before)| follow::read_renamed(self.replica, *tid, Some(before)))
    }

    /// Records which columns a person has added for all devices, of the tables that are known here.
    fn ordain(&self) -> Result<()> {
        self.said.each_declaration(&mut |declaration| {
            let of = declaration.ordained.then(|| state_rows::table_called(self.replica, &declaration.table));
            of.flatten().map_or(Ok(()), |tid| follow::ordain_column(self.replica, tid, &declaration.name))
        })
    }

    /// Stores a declaration; one that the maker knows to be superseded is so.
    fn declare(&self, declaration: &Declaration) -> Result<()> {
        let row = StateRow::parse(self.replica, &declaration.body)?;
        state_rows::load_declared(&row)?;
        if declaration.past {
            let tid = row.declared_of()?;
            self.replica.db.execute(
                "UPDATE _pm_declared SET past = 1 WHERE tid = ?1 AND what = ?2 AND name = ?3 AND dev = ?4 AND seq = ?5",
                (tid, row.int_at(1)?, row.text_at(2)?, declaration.dev, declaration.seq),
            )?;
        }
        Ok(())
    }

    /// Begins the rows of a table: what it is at the maker, and what it is here.
    fn begin_table(&mut self, MakersTable { name, def: id, shown, .. }: &MakersTable) -> Result<()> {
        let (id, shown) = (*id, *shown);
        let theirs = catalog::op_def(self.replica, id)?;
        if !theirs.def.name.eq_ignore_ascii_case(name) && !name.starts_with(ASIDE) {
            return Err(wrong());
        }
        let table = catalog::table_numbered(self.replica, theirs.tid).ok_or_else(wrong)?;
        if self.said.is_declared(name)? {
            declare::apply_declarations(self.replica, table.tid, &table.disputed.clone())?;
        }
        let table = catalog::table(self.replica, table.tid)?;
        let unread = self.unread_there(table.tid, name, id)?;
        self.rows.loader.keep_maker_def(&table, theirs.def.clone(), unread)?;
        let fits = table.def.has_key_of(&theirs.def) && table.def.mode == theirs.def.mode;
        self.rows.begin_table(&table, fits, shown != 0)
    }

    /// Finds which columns of definitions in the log stand for none at the maker, by what it knows of renamed ones: it may not
    /// know yet that a column which it has is one that others call otherwise.
    fn unread_there(&self, tid: i64, name: &str, id: DefId) -> Result<Unread> {
        let now = TableDef::hear(&self.said.body(id)?.ok_or_else(wrong)?).map_err(error::bad)?;
        let renamed = self.said.renamed(&now.name)?;
        let announced = if renamed.is_empty() { Vec::new() } else { self.said.announced(name, &now.name)? };
        follow::unread_there(self.replica, tid, &Renames::known(renamed, &announced), &now)
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
        let covered = self.rows.sides.vector.get(&dev).is_some_and(|seq| checkpoint.last <= *seq);
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
        routes::note(self.replica, dev, Stream::Shared, (checkpoint.first, checkpoint.last))?;
        let had = positions::position(self.replica, dev, Stream::Shared)?.seq;
        (checkpoint.first.max(had + 1)..=checkpoint.last)
            .try_for_each(|seq| self.hear(dev, seq))
            .map_err(of_state)
    }

    /// Hears what a frame in flight says of who is retired: that is for frames to say.
    fn hear(&self, dev: i64, seq: u64) -> Result<()> {
        let replica = self.replica;
        let body = frames::frame_here(replica, dev, Stream::Shared, seq)?;
        let frame = frames::parse(&body)?;
        visit::visit_defined(replica, &frame, |part| groups::hear_standing(replica, &frame, &part, dev))
            .map(drop)
    }

    /// Ends the merge: what only this device has, then positions, then what constraints say.
    ///
    /// Adds to the report how many rows changed, and how many wait for their table.
    ///
    /// # Errors
    /// As [`StateMerge::record`].
    pub(super) fn finish(self, report: &mut ImportReport) -> Result<()> {
        if self.ignored { Ok(()) } else { self.conclude(report).map_err(of_state) }
    }

    /// Takes the contexts of those streams of which the state has more: what a stream had seen can get less.
    fn take_contexts(&self) -> Result<()> {
        let had = |dev: &i64| self.rows.sides.had.get(dev).copied().unwrap_or(0);
        let ahead = self.vector.iter().filter(|(dev, proof)| proof.checkpoint.last > had(dev));
        let sql = "INSERT OR REPLACE INTO _pm_context (dev, stream, other, seq)
            SELECT dev, ?2, other, seq FROM temp._pm_state_context WHERE dev = ?1";
        for (dev, _) in ahead {
            positions::forget_context(self.replica, *dev, Stream::Shared)?;
            self.replica.db.prepare_cached(sql)?.execute((dev, Stream::Shared.number()))?;
        }
        Ok(())
    }

    fn conclude(mut self, report: &mut ImportReport) -> Result<()> {
        self.define()?;
        let replica = self.replica;
        // The statements that took the records in are not needed any more, and what follows has as many of its own.
        replica.db.flush_prepared_statement_cache();
        for (dev, proof) in &self.vector {
            let folded = self.floors.get(dev).copied();
            let had = self.rows.sides.had.get(dev).copied().unwrap_or(0);
            let span = (had, folded.unwrap_or(0), proof.checkpoint.last);
            self.rows.changed += state_restated::apply(replica, *dev, span, self.rows.sides.we_saw)?;
        }
        self.rows.finish()?;
        state_columns::correct(replica, &self.rows.loader)?;
        self.gathered.end_author()?;
        for (dev, proof) in &self.vector {
            self.advance(*dev, proof)?;
        }
        self.take_contexts()?;
        for (dev, seq) in &self.floors {
            membership::raise_floor(replica, *dev, Stream::Shared, *seq)?;
        }
        folds::restart(replica)?;
        vouched::recount(replica)?;
        positions::raise_lamport(replica, self.lamport)?;
        constraints::resolve_constraints(replica)?;
        catalog::reload_catalog(replica)?;
        if let Some(maker) = self.maker {
            peers::add_state_rows(replica, maker, self.rows.changed)?;
        }
        report.frames += self.frames;
        report.ops += self.rows.changed + self.gathered.changed;
        for (tid, ops) in self.rows.waiting {
            report.ops_waiting += ops;
            report.add_waiting_for(WaitsForTable::of(&*catalog::table(replica, tid)?, ops));
        }
        Ok(())
    }

    /// Records that a stream is applied up to where the maker had it.
    fn advance(&self, dev: i64, proof: &Proof) -> Result<()> {
        let replica = self.replica;
        let (seq, before) = (proof.checkpoint.last, positions::position(replica, dev, Stream::Shared)?);
        if seq > before.seq {
            tags::keep_position(replica, dev, Stream::Shared, before)?;
            let position = StreamPosition { seq, chain: proof.end };
            positions::set_position(replica, dev, Stream::Shared, position)?;
            if dev == replica.me {
                peers::record_taken_back(replica, Stream::Shared, before.seq + 1, seq)?;
            }
        }
        frames::put_newest(&replica.db, dev, &proof.checkpoint, &proof.bytes)?;
        tags::keep_proof(replica, dev, &proof.checkpoint, &proof.end)?;
        replica.db.execute(
            "UPDATE _pm_group SET applied = 1 WHERE dev = ?1 AND stream = ?2 AND last <= ?3 AND NOT applied",
            (dev, Stream::Shared.number(), seq),
        )?;
        Ok(())
    }
}

/// Says of an error that is about what a state says that the file is at fault.
fn of_state(error: Box<Error>) -> Box<Error> {
    match &*error {
        Error::Bundle { .. } => error,
        e if aside::is_of_content(e) => Error::bundle(0, BundleProblem::State(aside::said(e))),
        _ => error,
    }
}
