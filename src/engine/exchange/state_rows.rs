//! Rows of a snapshot's state, put into the `_pm_` tables that they come from.

use packmule_core::model::{DeviceId, Stream, Value};
use packmule_core::wire::{Chain, Checkpoint, DecodeError, take};

use crate::engine::error::{BundleProblem, Error, Result};
use crate::engine::exchange::state_form;
use crate::engine::fleet::{devices, peers};
use crate::engine::log::frames;
use crate::engine::log::tags::{self, Place};
use crate::engine::store::value::Bind;
use crate::engine::table::catalog;
use crate::engine::table::columns::Columns;
use crate::engine::table::declared::{self, Subject};
use crate::engine::table::replica::Replica;

/// So many columns a table can have at most, in SQLite.
pub(super) const COLUMNS_MAX: usize = 4_096;

/// Makes the error of a record that does not decode.
pub(super) fn bad(error: DecodeError) -> Box<Error> {
    Error::bundle(0, BundleProblem::Decode(error))
}

/// Makes the error of a row that is not as its kind should be.
pub(super) fn wrong() -> Box<Error> {
    Error::bundle(0, BundleProblem::Structure("a row of a snapshot of another form"))
}

/// A row of the maker's state: its kind, and its values, with devices by their ids and tables by their names.
pub(super) struct StateRow<'a> {
    pub replica: &'a Replica,
    pub kind: &'a str,
    pub values: Vec<Value<'a>>,
}

impl<'a> StateRow<'a> {
    /// Reads a record of a state, and refuses one that no device writes.
    pub(super) fn parse(replica: &'a Replica, mut body: &'a [u8]) -> Result<Self> {
        let kind: &str = take(&mut body).map_err(bad)?;
        let mut values = Vec::new();
        while !body.is_empty() {
            values.push(take(&mut body).map_err(bad)?);
            if values.len() > COLUMNS_MAX {
                return Err(wrong());
            }
        }
        if state_form::has_form(kind, &values) { Ok(Self { replica, kind, values }) } else { Err(wrong()) }
    }

    /// Reads an integer.
    pub(super) fn int_at(&self, at: usize) -> Result<i64> {
        match self.values.get(at) {
            Some(Value::Int(i)) => Ok(*i),
            _ => Err(wrong()),
        }
    }

    /// Reads a BLOB.
    pub(super) fn blob_at(&self, at: usize) -> Result<&'a [u8]> {
        match self.values.get(at) {
            Some(Value::Blob(b)) => Ok(b),
            _ => Err(wrong()),
        }
    }

    /// Reads a text.
    pub(super) fn text_at(&self, at: usize) -> Result<&'a str> {
        match self.values.get(at) {
            Some(Value::Text(t)) => Ok(std::str::from_utf8(t).map_err(|_| wrong())?),
            _ => Err(wrong()),
        }
    }

    /// Reads a device's id.
    pub(super) fn device_id_at(&self, at: usize) -> Result<DeviceId> {
        Ok(DeviceId(self.blob_at(at)?.try_into().map_err(|_| wrong())?))
    }

    /// Reads a device's id as its number here.
    pub(super) fn device_at(&self, at: usize) -> Result<i64> {
        devices::device_number_or_new(self.replica, self.device_id_at(at)?)
    }

    /// Reads a table's name at the maker as its number here.
    pub(super) fn tid_at(&self, at: usize) -> Result<i64> {
        table_called(self.replica, self.text_at(at)?).ok_or_else(wrong)
    }

    /// Reads, of a declaration, for which table it is recorded here.
    pub(super) fn declared_of(&self) -> Result<i64> {
        let tid = self.tid_at(0)?;
        let of_name = self.int_at(1)? == Subject::Shape as i64;
        Ok(if of_name { declared::root_of(self.replica, tid) } else { tid })
    }

    /// Reads a number of frames.
    pub(super) fn seq_at(&self, at: usize) -> Result<u64> {
        u64::try_from(self.int_at(at)?).map_err(|_| wrong())
    }

    /// Reads, of a `since`, what who takes the state must have: a device's id, and up to where its shared stream.
    pub(super) fn since(&self) -> Result<(DeviceId, u64)> {
        Ok((self.device_id_at(0)?, self.seq_at(1)?))
    }

    /// Reads, of a `stream`, up to where the state stands for it.
    pub(super) fn place(&self) -> Result<(DeviceId, Stream, u64)> {
        let stream = u8::try_from(self.int_at(1)?).ok().and_then(Stream::from_number);
        Ok((self.device_id_at(0)?, stream.ok_or_else(wrong)?, self.seq_at(2)?))
    }

    /// Reads, of a `stream`, the proof of its place. Its signature is for the caller to verify.
    pub(super) fn proof(&self) -> Result<Proof> {
        let bytes = self.blob_at(4)?.to_vec();
        let checkpoint = Checkpoint::decode(&bytes).map_err(bad)?;
        let end = Chain(self.blob_at(3)?.try_into().map_err(|_| wrong())?);
        if self.place()? != (checkpoint.author, checkpoint.stream, checkpoint.last) {
            return Err(wrong());
        }
        Ok(Proof { checkpoint, bytes, end })
    }

    /// Returns, of `tags`, whether they are of a history of a device that is given up here.
    pub(super) fn is_of_given_up(&self) -> Result<bool> {
        let Some(dev) = devices::device_number(self.replica, self.device_id_at(0)?)? else {
            return Ok(false);
        };
        let Some(given_up) = peers::given_up(self.replica, dev)? else { return Ok(false) };
        Ok(self.places()?.iter().any(|place| given_up.ends.contains(&(place.seq, place.tag))))
    }

    /// Reads the places of `tags`.
    pub(super) fn places(&self) -> Result<Vec<Place>> {
        tags::unpacked(self.blob_at(1)?)
    }

    /// Reads, of `tags`, the places of this device's own stream, if they are of that.
    pub(super) fn own_places(&self) -> Result<Vec<Place>> {
        if self.device_id_at(0)? == self.replica.identity.id { self.places() } else { Ok(Vec::new()) }
    }
}

/// Finds the table here that the maker of a state calls so: the one of that name with its primary key.
pub(super) fn table_called(replica: &Replica, name: &str) -> Option<i64> {
    let found = replica.maker_tables.borrow().get(&name.to_ascii_lowercase()).copied();
    found.or_else(|| catalog::table_named(replica, name).map(|table| table.tid))
}

/// The proof of up to where a stream goes that a state stands for: the newest checkpoint, and the chain after it.
pub(super) struct Proof {
    pub checkpoint: Checkpoint,
    pub bytes: Vec<u8>,
    pub end: Chain,
}

/// Puts a version of a row into `_pm_head` or a table like it, with its columns here. `insert` names the table.
pub(super) fn put_head(row: &StateRow<'_>, insert: &str, columns: Option<&Columns>) -> Result<()> {
    row.replica
        .db
        .prepare_cached(&format!(
            "{insert} (tid, key, dev, seq, place, claim, wall, kind, columns)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)"
        ))?
        .execute((
            row.tid_at(0)?,
            row.blob_at(1)?,
            row.device_at(2)?,
            row.int_at(3)?,
            row.int_at(4)?,
            row.int_at(5)?,
            row.int_at(6)?,
            row.int_at(7)?,
            columns.map(Columns::as_bytes),
        ))?;
    Ok(())
}

/// Puts a recent write to a counter into `_pm_count` or a table like it; `column` is the counter's here.
/// One of a column that is not here any more is left out.
pub(super) fn put_count(row: &StateRow<'_>, insert: &str, column: Option<usize>) -> Result<()> {
    let Some(column) = column else { return Ok(()) };
    row.replica
        .db
        .prepare_cached(&format!(
            "{insert} (tid, key, col, dev, seq, absolute, value, lamport)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"
        ))?
        .execute((
            row.tid_at(0)?,
            row.blob_at(1)?,
            column as i64,
            row.device_at(3)?,
            row.int_at(4)?,
            row.int_at(5)?,
            Bind(row.values.get(6).copied().ok_or_else(wrong)?),
            if row.values.len() > 7 { row.int_at(7)? } else { 0 },
        ))?;
    Ok(())
}

/// Loads what the maker knew of a stream: its position, its context, its numbers, or its watermark.
pub(super) fn load_position(row: &StateRow<'_>) -> Result<()> {
    let db = &row.replica.db;
    match row.kind {
        "stream" => {
            if let Some(Value::Blob(checkpoint)) = row.values.get(4) {
                let checkpoint_of = Checkpoint::decode(checkpoint).map_err(bad)?;
                frames::put_newest(db, row.device_at(0)?, &checkpoint_of, checkpoint)?;
            }
            db.prepare_cached("INSERT INTO _pm_stream (dev, stream, seq, chain) VALUES (?1, ?2, ?3, ?4)")?
                .execute((row.device_at(0)?, row.int_at(1)?, row.int_at(2)?, row.blob_at(3)?))?
        }
        "context" => db
            .prepare_cached("INSERT INTO _pm_context (dev, stream, other, seq) VALUES (?1, ?2, ?3, ?4)")?
            .execute((row.device_at(0)?, row.int_at(1)?, row.device_at(2)?, row.int_at(3)?))?,
        "number" => db
            .prepare_cached(
                "INSERT OR IGNORE INTO _pm_number (dev, stream, number, other) VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute((row.device_at(0)?, row.int_at(1)?, row.int_at(2)?, row.device_at(3)?))?,
        _ => db.prepare_cached("INSERT INTO _pm_floor (dev, stream, seq) VALUES (?1, ?2, ?3)")?.execute((
            row.device_at(0)?,
            row.int_at(1)?,
            row.int_at(2)?,
        ))?,
    };
    Ok(())
}

/// Loads a declaration of a table.
pub(super) fn load_declared(row: &StateRow<'_>) -> Result<()> {
    row.replica
        .db
        .prepare_cached(
            "INSERT OR IGNORE INTO _pm_declared (tid, what, name, dev, seq, lamport, value, past, def)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute((
            row.declared_of()?,
            row.int_at(1)?,
            row.text_at(2)?,
            row.device_at(3)?,
            row.int_at(4)?,
            row.int_at(5)?,
            row.blob_at(6)?,
            row.int_at(7)? & 1,
            row.blob_at(8)?,
        ))?;
    Ok(())
}
