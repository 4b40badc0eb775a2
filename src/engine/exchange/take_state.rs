//! The state of another device, merged with what is here: definitions, versions, rows, positions.
//!
//! **Invariant.** Afterwards this device shows what it would show had it applied, one by one, every frame that it or the
//! state's maker has applied; or the row waits for a verdict (`merge/late.rs`). Its identity, its log and what it has not
//! sealed stay. All of it is one transaction.
//!
//! **Why it holds.** `merge_rows.rs` has the cases of a row. What a state says beyond its author's own log is proved: each
//! entry of its vector comes with that author's newest checkpoint. Its rows are its maker's word, under its signature.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};

use packmule_core::model::{DeviceId, Stream};
use packmule_core::wire::{Chain, Checkpoint, DefId, Frame, GroupHead, Mode, SchemaBits, Section};

use crate::engine::apply::report::{ImportReport, WaitsForTable};
use crate::engine::apply::{aside, groups, vouched};
use crate::engine::capture::respeak::Unread;
use crate::engine::capture::{declare, follow, heard};
use crate::engine::error::{self, BundleProblem, Error, Result};
use crate::engine::exchange::merge_rows::RowMerge;
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
use crate::engine::table::declared::{self, Subject};
use crate::engine::table::def::TableDef;
use crate::engine::table::known::ASIDE;
use crate::engine::table::renamed::Renames;
use crate::engine::table::replica::Replica;

/// A declaration of a table, as the maker has it.
struct Declaration {
    table: String,
    def: DefId,
    dev: i64,
    seq: u64,
    lamport: u64,
    past: bool,
    /// It is of a column that a person has added for all devices.
    ordained: bool,
    /// What it is about.
    what: i64,
    name: String,
    value: Vec<u8>,
    /// Its definition is one that takes part in what the table is here.
    takes_part: bool,
    /// Its record, to be stored.
    body: Vec<u8>,
}

/// A state that is being merged.
pub(super) struct StateMerge<'e> {
    replica: &'e Replica,
    rows: RowMerge<'e>,
    gathered: GatheredMerge<'e>,
    /// The maker's definitions of shared tables: of all its ops, and what tables have now, with whether it shows them.
    defs: Vec<(DefId, Vec<u8>)>,
    tables: Vec<(String, DefId, i64)>,
    declarations: Vec<Declaration>,
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
            defs: Vec::new(),
            tables: Vec::new(),
            declarations: Vec::new(),
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
            "def" => {
                let body = row.blob_at(0)?;
                let (id, def) = (DefId::of(body), TableDef::hear(body).map_err(error::bad)?);
                match def.mode {
                    Mode::Shared => self.defs.push((id, body.to_vec())),
                    Mode::PerDevice => self.gathered.def(id, def, body),
                }
            }
            "gathers" => self.gathered.table(row.blob_at(0)?)?,
            "own" => self.gathered.row(&mut self.rows.loader, &row)?,
            "gone" => self.gathered.gone(&row)?,
            "gap" => self.gathered.gap(&row)?,
            "context" | "number" if row.int_at(1)? == i64::from(Stream::PerDevice.number()) => {
                self.gathered.read_place(&row)?;
            }
            "table" => {
                let id = row.blob_at(1)?.try_into().map_err(|_| wrong())?;
                self.tables.push((row.text_at(0)?.to_owned(), DefId(id), row.int_at(2)?));
            }
            "declared" => self.declaration(&row, body)?,
            "lamport" => self.lamport = row.seq_at(0)?,
            "stream" => {
                let proof = row.proof()?;
                if proof.checkpoint.stream == Stream::PerDevice {
                    self.define()?;
                    return self.gathered.begin(proof);
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

    /// Keeps a declaration until all are known.
    fn declaration(&mut self, row: &StateRow<'_>, body: &[u8]) -> Result<()> {
        self.declarations.push(Declaration {
            table: row.text_at(0)?.to_owned(),
            def: DefId(row.blob_at(8)?.try_into().map_err(|_| wrong())?),
            dev: row.device_at(3)?,
            seq: row.seq_at(4)?,
            lamport: row.seq_at(5)?,
            past: row.int_at(7)? & 1 != 0,
            ordained: row.int_at(7)? & 2 != 0,
            what: row.int_at(1)?,
            name: row.text_at(2)?.to_owned(),
            value: row.blob_at(6)?.to_vec(),
            takes_part: declared::takes_part(row.int_at(1)?, row.blob_at(6)?),
            body: body.to_vec(),
        });
        Ok(())
    }

    /// Takes in the maker's definitions, once all of them and all declarations have come: before the first row.
    fn define(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.defined, true) {
            return Ok(());
        }
        self.find_tables()?;
        self.take_shapes()?;
        self.ordain()?;
        let takes_part = |d: &&Declaration| d.takes_part;
        let first = |id: &DefId| {
            self.declarations.iter().filter(takes_part).filter(|d| d.def == *id).min_by_key(|d| d.lamport)
        };
        let mut defs: Vec<_> = self.defs.iter().map(|(id, body)| (first(id), id.0, body)).collect();
        defs.sort_by_key(|(first, id, _)| (first.map_or(u64::MAX, |d| d.lamport), *id));
        let listed = self.declarations.iter().map(|d| (d.dev, d.seq, d.what, d.name.clone())).collect();
        for (declaration, _, body) in defs {
            take_in_def(
                self.replica,
                body,
                declaration,
                &self.renamed(&TableDef::hear(body).map_err(error::bad)?.name),
                &listed,
            )?;
        }
        self.find_tables()?;
        self.ordain()?;
        for declaration in &self.declarations {
            self.declare(declaration)?;
        }
        // They stay: what the maker calls renamed columns is looked up by them.
        for (name, id, shown) in self.tables.clone() {
            self.begin_table(&name, id, shown)?;
        }
        self.rows.begin(&self.floors.iter().map(|(dev, seq)| (*dev, *seq)).collect::<Vec<_>>())
    }

    /// Finds the maker's tables among those that are known here, by their primary keys.
    fn find_tables(&self) -> Result<()> {
        let mut found = HashMap::new();
        for (name, id, _) in &self.tables {
            let Some((_, body)) = self.defs.iter().find(|(of, _)| of == id) else { continue };
            let def = TableDef::hear(body).map_err(error::bad)?;
            if let Some(table) = catalog::table_of(self.replica, &def, &self.renamed(&def.name))? {
                found.insert(name.to_ascii_lowercase(), table.tid);
            }
        }
        *self.replica.maker_tables.borrow_mut() = found;
        Ok(())
    }

    /// Returns the columns of the tables of a name that were renamed, as the maker has it: what they were called before, and
    /// after.
    fn renamed(&self, table: &str) -> Vec<(String, String)> {
        let of = self.declarations.iter().filter(|d| d.what == Subject::Renamed as i64);
        let of = of.filter(|d| {
            let def = self.tables.iter().find(|(name, _, _)| name.eq_ignore_ascii_case(&d.table));
            let def = def.and_then(|(_, id, _)| self.defs.iter().find(|(of, _)| of == id));
            def.and_then(|(_, body)| TableDef::hear(body).ok())
                .is_some_and(|def| def.name.eq_ignore_ascii_case(table))
        });
        of.filter_map(|d| Some((d.name.clone(), String::from_utf8(d.value.clone()).ok()?))).collect()
    }

    /// Takes in what the tables that are known here are on other devices: by that it is decided which columns follow.
    fn take_shapes(&self) -> Result<()> {
        let mut before = HashMap::new();
        for renamed in self.declarations.iter().filter(|d| d.what == Subject::Renamed as i64) {
            let Some(tid) = state_rows::table_called(self.replica, &renamed.table) else { continue };
            if let Entry::Vacant(entry) = before.entry(tid) {
                let table = catalog::table(self.replica, tid)?;
                entry.insert(follow::readings(self.replica, tid, &table.def)?);
            }
        }
        for declaration in self.declarations.iter().filter(|d| d.what >= Subject::Shape as i64) {
            if state_rows::table_called(self.replica, &declaration.table).is_none() {
                continue;
            }
            for (_, body) in self.defs.iter().filter(|(id, _)| *id == declaration.def) {
                let def = TableDef::decode(body).map_err(error::bad)?;
                let names = self.renamed(&def.name);
                catalog::keep_said_def(self.replica, &def, declaration.def, body, &names)?;
            }
            self.declare(declaration)?;
        }
        catalog::doubt_schema(self.replica)?;
        catalog::reload_catalog(self.replica)?;
        before.iter().try_for_each(|(tid, before)| follow::read_renamed(self.replica, *tid, Some(before)))
    }

    /// Records which columns a person has added for all devices, of the tables that are known here.
    fn ordain(&self) -> Result<()> {
        self.declarations.iter().filter(|declaration| declaration.ordained).try_for_each(|declaration| {
            match state_rows::table_called(self.replica, &declaration.table) {
                Some(tid) => follow::ordain_column(self.replica, tid, &declaration.name),
                None => Ok(()),
            }
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
    fn begin_table(&mut self, name: &str, id: DefId, shown: i64) -> Result<()> {
        let theirs = catalog::op_def(self.replica, id)?;
        if !theirs.def.name.eq_ignore_ascii_case(name) && !name.starts_with(ASIDE) {
            return Err(wrong());
        }
        let table = catalog::table_numbered(self.replica, theirs.tid).ok_or_else(wrong)?;
        if self.declarations.iter().any(|d| d.table.eq_ignore_ascii_case(name)) {
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
        let body = |id: DefId| self.defs.iter().find(|(of, _)| *of == id).map(|(_, body)| body);
        let now = TableDef::hear(body(id).ok_or_else(wrong)?).map_err(error::bad)?;
        let of_table =
            |d: &&Declaration| d.table.eq_ignore_ascii_case(name) || d.table.eq_ignore_ascii_case(&now.name);
        let mut announced = Vec::new();
        for declaration in self.declarations.iter().filter(of_table) {
            let is_shape = declaration.what == Subject::Shape as i64 && declaration.name.is_empty();
            let bits = declared::bits_of(&declaration.value);
            if let Some(body) = body(declaration.def).filter(|_| is_shape && !bits.says(SchemaBits::FOLLOWS))
            {
                announced.push(TableDef::hear(body).map_err(error::bad)?);
            }
        }
        follow::unread_there(self.replica, tid, &Renames::known(self.renamed(&now.name), &announced), &now)
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

/// Takes in a definition of the maker's, as the device declared it that did so first: of that what is `listed`, since what had
/// been declared before by others it only repeated.
fn take_in_def(
    replica: &Replica,
    body: &[u8],
    declaration: Option<&Declaration>,
    names: &[(String, String)],
    listed: &HashSet<(i64, u64, i64, String)>,
) -> Result<()> {
    let (dev, seq, lamport) = declaration.map_or((replica.me, 0, 0), |d| (d.dev, d.seq, d.lamport));
    let stamp = Stamp { dev, seq, lamport, seen: &Seen::ContextFree, decides: false };
    if declaration.is_some() {
        let counts = |what: Subject, name: &str| listed.contains(&(dev, seq, what as i64, name.to_owned()));
        return heard::take_in_def(replica, Stream::Shared, body, &stamp, names, &counts);
    }
    let def = TableDef::hear(body).map_err(error::bad)?;
    if catalog::table_of(replica, &def, names)?.is_none() {
        return heard::take_in_def(replica, Stream::Shared, body, &stamp, names, &|_, _| true);
    }
    catalog::keep_said_def(replica, &def, DefId::of(body), body, names).map(|_| ())
}
