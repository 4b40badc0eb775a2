//! What a base has gathered, taken in: by another base, and by an author that was set back.
//!
//! **Invariant.** Afterwards every row is here that the maker had gathered of the author up to the place that the state
//! proves, and the stream goes on after that place. Rows are added and changed; those alone are deleted whose keys are
//! listed, and whose deletion is news here. What a board has pruned is no deletion: a base keeps it.
//!
//! **Who may say it.** Rows of a per-device stream come from their author or from a base, and who is a base the fleet key
//! says. What anybody else sends of it is left out, with a notice.

use std::collections::BTreeMap;

use packmule_core::model::Stream;
use packmule_core::wire::{Chain, Mode};
use rusqlite::params_from_iter;

use crate::engine::apply::refill;
use crate::engine::capture::{heard, runs};
use crate::engine::error::{self, Error, Result};
use crate::engine::exchange::state_definitions::Definitions;
use crate::engine::exchange::state_rows::{Proof, StateRow, wrong};
use crate::engine::exchange::state_values::RowLoader;
use crate::engine::exchange::twin;
use crate::engine::fleet::gaps::{self, Gap};
use crate::engine::fleet::peers::Fit;
use crate::engine::fleet::positions::{self, StreamPosition};
use crate::engine::fleet::{devices, membership, peers, trust};
use crate::engine::log::{contexts, frames};
use crate::engine::merge::heads::{Seen, Stamp};
use crate::engine::show::triggers;
use crate::engine::store::meta;
use crate::engine::store::value::{self, Bind};
use crate::engine::table::catalog;
use crate::engine::table::def::TableDef;
use crate::engine::table::known::{State, Table};
use crate::engine::table::limits::Teller;
use crate::engine::table::replica::Replica;

/// A table as its maker has it.
struct Maker {
    def: TableDef,
    body: Vec<u8>,
}

/// So many tables can a base gather, with so many columns in all.
const TABLES_MAX: usize = 4_096;
const COLUMNS_MAX: usize = 65_536;

/// The rows of one author that are being taken in.
struct Author {
    dev: i64,
    proof: Proof,
    /// What is gathered here stands under this label; none in this device's own tables.
    label: Option<String>,
    /// Up to here its stream was applied before.
    had: u64,
    /// What the maker lacks of what is taken in, and was not here.
    left: Option<Gap>,
    /// Rows of it wait for a table that cannot take them in yet; `status` names that.
    waits: bool,
}

/// What a base has gathered, being taken in.
pub(super) struct GatheredMerge<'e> {
    replica: &'e Replica,
    /// Who sent it; `None` if that is this device itself, from a database that it reads.
    sender: Option<i64>,
    tables: BTreeMap<String, Maker>,
    columns: usize,
    author: Option<Author>,
    /// What the maker lacks of the stream that comes next, by its author's number.
    gap: Option<(i64, Gap)>,
    pub changed: u64,
}

impl<'e> GatheredMerge<'e> {
    pub(super) fn new(replica: &'e Replica, sender: Option<i64>) -> Self {
        Self { replica, sender, tables: BTreeMap::new(), columns: 0, author: None, gap: None, changed: 0 }
    }

    /// Keeps the definition that a table has where it is gathered.
    pub(super) fn table(&mut self, body: &[u8]) -> Result<()> {
        let def = TableDef::hear(body).map_err(error::bad)?;
        if def.mode != Mode::PerDevice {
            return Err(wrong());
        }
        self.columns += def.columns.len();
        if self.tables.len() >= TABLES_MAX || self.columns > COLUMNS_MAX {
            return Err(Error::damaged(format!(
                "more gathered tables than {TABLES_MAX}, or more columns of them than {COLUMNS_MAX}"
            )));
        }
        self.tables.insert(def.name.to_ascii_lowercase(), Maker { def, body: body.to_vec() });
        Ok(())
    }

    /// Begins the rows of an author, whose place is proved; leaves them out if they are not for this device to take from
    /// this sender, or no news.
    pub(super) fn begin(&mut self, said: &Definitions<'_>, proof: Proof) -> Result<()> {
        self.end_author()?;
        let replica = self.replica;
        let dev = devices::device_number_or_new(replica, proof.checkpoint.author)?;
        let here = positions::position(replica, dev, Stream::PerDevice)?;
        let theirs = self.gap.take().filter(|(of, _)| *of == dev && dev != replica.me).map(|(_, gap)| gap);
        let fills = self.filled(dev, &proof, theirs.as_ref())?;
        let had = fills.as_ref().map_or(here, |gap| gap.had);
        let ours = replica.identity.base || dev == replica.me;
        if !ours || proof.checkpoint.last <= had.seq || !self.is_of_history_here(&proof)? {
            return Ok(());
        }
        if let Some(sender) = self.sender
            && sender != dev
            && !trust::is_base_by_fleet(replica, sender)?
        {
            let what = format!(
                "{} sent per-device rows of {}, and is no base by the fleet key's word: they were left out",
                devices::device_label(replica, sender)?,
                devices::device_label(replica, dev)?
            );
            return meta::notice(&replica.db, &what, replica.now());
        }
        if dev == replica.me {
            runs::forget_all(replica)?;
        }
        let left = theirs.map(|theirs| theirs.beyond(had, fills.as_ref()));
        if let Some(gap) = &fills {
            refill::go_back(replica, dev, gap)?;
        }
        let label = if dev == replica.me { None } else { Some(devices::device_label(replica, dev)?) };
        self.author = Some(Author { dev, proof, label, had: had.seq, left: left.flatten(), waits: false });
        if dev != replica.me {
            let names: Vec<String> = self.tables.keys().cloned().collect();
            names.iter().try_for_each(|name| self.take_table(said, name))?;
        }
        Ok(())
    }

    /// Keeps what the maker lacks of the stream that comes next.
    pub(super) fn gap(&mut self, row: &StateRow<'_>) -> Result<()> {
        let chain = Chain(row.blob_at(3)?.try_into().map_err(|_| wrong())?);
        let had = StreamPosition { seq: row.seq_at(1)?, chain };
        let alike = self.sender.into_iter().collect();
        self.gap = Some((row.device_at(0)?, Gap { had, up_to: row.seq_at(2)?, alike }));
        Ok(())
    }

    /// Finds the gap here which the maker fills, or a part of it. One that has the same says so.
    fn filled(&self, dev: i64, proof: &Proof, theirs: Option<&Gap>) -> Result<Option<Gap>> {
        let replica = self.replica;
        let Some(mut gap) = gaps::gap(replica, dev)? else { return Ok(None) };
        if let (Some(theirs), Some(sender)) = (theirs, self.sender)
            && theirs.had.seq <= gap.had.seq
            && theirs.up_to >= gap.up_to
        {
            if !gap.alike.contains(&sender) {
                gap.alike.push(sender);
                gaps::record(replica, dev, &gap)?;
            }
            return Ok(None);
        }
        let here = positions::position(replica, dev, Stream::PerDevice)?.seq;
        let last = proof.checkpoint.last;
        let is_whole = last >= here || last >= gap.up_to && gaps::is_rest_in_log(replica, dev, &gap)?;
        Ok(Some(gap).filter(|_| is_whole))
    }

    /// Returns whether a proof is of the history that is here of its author.
    fn is_of_history_here(&self, proof: &Proof) -> Result<bool> {
        let Some(key) = trust::author_key(self.replica, proof.checkpoint.author)? else { return Ok(true) };
        Ok(twin::fit(self.replica, &proof.checkpoint, Some(&proof.end), &key)? == Fit::Fits)
    }

    /// Keeps what the author had seen, and by which numbers it names devices: its frames go on from there.
    pub(super) fn read_place(&self, row: &StateRow<'_>) -> Result<()> {
        let Some(author) = &self.author else { return Ok(()) };
        if row.device_at(0)? != author.dev {
            return Err(wrong());
        }
        match row.kind {
            "context" => {
                let (other, seq) = (row.device_at(2)?, row.seq_at(3)?);
                positions::set_context(self.replica, author.dev, Stream::PerDevice, other, seq)
            }
            _ => {
                let number = u32::try_from(row.int_at(2)?).map_err(|_| wrong())?;
                contexts::keep_number(self.replica, author.dev, Stream::PerDevice, number, row.device_at(3)?)
            }
        }
    }

    /// Makes a table of the maker's known here, as its author would have.
    fn take_table(&self, said: &Definitions<'_>, name: &str) -> Result<()> {
        let replica = self.replica;
        let (Some(author), Some(maker)) = (&self.author, self.tables.get(name)) else { return Ok(()) };
        let stamp = Stamp {
            dev: author.dev,
            seq: author.proof.checkpoint.last,
            lamport: 0,
            seen: &Seen::ContextFree,
            decides: false,
        };
        let by = Teller::of_state(self.sender.unwrap_or(replica.me));
        // Of a table that this device has itself, it knows the columns better.
        let own = author.dev == replica.me && catalog::table_named(replica, name).is_some();
        if !own {
            heard::take_in_def(replica, Stream::PerDevice, (&maker.body, by), &stamp, &[], &|_, _| true)?;
        }
        // Ops of the frames that follow name them.
        for body in said.of_gathered(name)? {
            heard::keep_def(replica, (&body, by), &[])?;
        }
        Ok(())
    }

    /// Finds the table in which rows of the author stand; `None` if they cannot be taken in here.
    fn place(&self, name: &str) -> Option<std::sync::Arc<Table>> {
        let author = self.author.as_ref()?;
        let table = catalog::table_named(self.replica, name)?;
        let (table, wanted) = if author.label.is_some() {
            (catalog::mirror_of(self.replica, table.tid).unwrap_or(table), State::Gathered)
        } else {
            (table, State::Tracked)
        };
        let fits = |t: &Table| t.state == wanted && t.def.mode == Mode::PerDevice;
        let same_key =
            |t: &Table| self.tables.get(&name.to_ascii_lowercase()).is_some_and(|m| t.def.has_key_of(&m.def));
        Some(table).filter(|t| fits(t) && same_key(t))
    }

    /// Takes in a row of the author; large values are in the parts before it.
    pub(super) fn row(
        &mut self,
        said: &Definitions<'_>,
        loader: &mut RowLoader<'e>,
        row: &StateRow<'_>,
    ) -> Result<()> {
        let name = row.text_at(0)?.to_ascii_lowercase();
        let Some(author) = &self.author else { return loader.drop_parts() };
        let mut place = self.place(&name);
        if author.label.is_none() && place.is_none() {
            self.take_table(said, &name)?;
            place = self.place(&name);
        }
        let (Some(table), Some(maker)) = (place, self.tables.get(&name)) else {
            if let Some(author) = &mut self.author {
                author.waits = true;
            }
            return loader.drop_parts();
        };
        let values = row.values.get(1..).unwrap_or_default();
        let Some(author) = &self.author else { return Ok(()) };
        self.changed += u64::from(loader.write_own(&table, author.label.as_deref(), &maker.def, values)?);
        Ok(())
    }

    /// Deletes a row that the author had deleted after what was here of its stream.
    pub(super) fn gone(&mut self, row: &StateRow<'_>) -> Result<()> {
        let replica = self.replica;
        let name = row.text_at(0)?;
        let Some(author) = &self.author else { return Ok(()) };
        let seq = row.seq_at(2)?;
        let is_news = seq > author.had && seq <= author.proof.checkpoint.last;
        let Some(table) = self.place(name).filter(|_| is_news) else { return Ok(()) };
        let key = value::read_key(row.blob_at(1)?)?;
        let label = author.label.as_deref().map(|label| packmule_core::model::Value::Text(label.as_bytes()));
        let sql = table.delete_sql();
        let deleted = triggers::firing(replica, &table, || {
            let values = label.into_iter().chain(key.iter().map(|v| v.borrow())).map(Bind);
            Ok(replica.db.prepare_cached(&sql)?.execute(params_from_iter(values))?)
        })?;
        self.changed += deleted as u64;
        let tid = table.gathers.unwrap_or(table.tid);
        frames::put_gone(&replica.db, author.dev, tid, row.blob_at(1)?, seq)
    }

    /// Ends the rows of an author: its stream goes on after them. Where some wait for a table, it stays where it was, and
    /// they come again.
    pub(super) fn end_author(&mut self) -> Result<()> {
        let replica = self.replica;
        let Some(author) = self.author.take() else { return Ok(()) };
        let Author { dev, proof, had, left, waits, .. } = author;
        if waits {
            return Ok(());
        }
        let (stream, seq) = (Stream::PerDevice, proof.checkpoint.last);
        frames::forget_pending(&replica.db, dev, stream, seq)?;
        positions::set_position(replica, dev, stream, StreamPosition { seq, chain: proof.end })?;
        frames::put_newest(&replica.db, dev, &proof.checkpoint, &proof.bytes)?;
        membership::raise_floor(replica, dev, stream, seq)?;
        if let Some(left) = left {
            gaps::record(replica, dev, &left)?;
        }
        if dev == replica.me {
            peers::record_taken_back(replica, stream, had + 1, seq)?;
        }
        Ok(())
    }
}
