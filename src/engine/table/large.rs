//! Large values of rows, which are read and copied piece by piece: SQLite would hold them in memory whole.

use packmule_core::model::Big;
use rusqlite::blob::Blob;
use rusqlite::{MAIN_DB, params_from_iter};
use sha2::{Digest, Sha256};

use crate::engine::error::Result;
use crate::engine::store::value::{self, Affinity, Bind, LARGE};
use crate::engine::table::def::ColumnDef;
use crate::engine::table::known::Table;
use crate::engine::table::replica::Replica;

/// How much is read at once, in bytes.
const PIECE: usize = 16_384;

/// Returns whether a value of a column can be large: keys travel whole or not at all, and numbers are short.
pub(crate) fn can_be_large(column: &ColumnDef) -> bool {
    column.key == 0 && !matches!(Affinity::of(&column.decl_type), Affinity::Integer | Affinity::Real)
}

/// Returns the rowid of a row in a place: the name of its own table, or of the quarantine table.
pub(crate) fn rowid(replica: &Replica, table: &Table, place: &str, key: &[u8]) -> Result<i64> {
    let sql = format!(
        "SELECT {} FROM {} WHERE {}",
        table.def.rowid_name(),
        value::quote(place),
        table.key_match_from(0)
    );
    let key = value::read_key(key)?;
    let binds = params_from_iter(key.iter().map(|v| Bind(v.borrow())));
    Ok(replica.db.prepare_cached(&sql)?.query_row(binds, |row| row.get(0))?)
}

/// Opens a large value of a row for reading or writing in pieces.
pub(crate) fn open<'r>(
    replica: &'r Replica,
    table: &Table,
    place: &str,
    column: usize,
    rowid: i64,
    to_read: bool,
) -> Result<Blob<'r>> {
    let name = table.def.columns[column].name.as_str();
    Ok(replica.db.blob_open(MAIN_DB, place, name, rowid, to_read)?)
}

/// Returns the columns in which a row has a large BLOB.
pub(crate) fn blobs(replica: &Replica, table: &Table, place: &str, key: &[u8]) -> Result<Vec<usize>> {
    let columns: Vec<usize> =
        (0..table.def.columns.len()).filter(|at| can_be_large(&table.def.columns[*at])).collect();
    if columns.is_empty() {
        return Ok(columns);
    }
    let large = columns.iter().map(|at| {
        let c = value::column(&table.def.columns[*at].name);
        format!("typeof({c}) = 'blob' AND octet_length({c}) > {LARGE}")
    });
    let sql = format!(
        "SELECT {} FROM {} WHERE {}",
        large.collect::<Vec<_>>().join(", "),
        value::quote(place),
        table.key_match_from(0)
    );
    let key = value::read_key(key)?;
    let mut statement = replica.db.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(key.iter().map(|v| Bind(v.borrow()))))?;
    let Some(row) = rows.next()? else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for (n, at) in columns.into_iter().enumerate() {
        if row.get(n)? {
            found.push(at);
        }
    }
    Ok(found)
}

/// Returns whether the table says something of values as they are inserted, so that they must be whole then: a CHECK,
/// a generated column, a partial index.
pub(crate) fn is_checked(replica: &Replica, table: &Table) -> Result<bool> {
    let sql = "SELECT 1 FROM sqlite_schema WHERE tbl_name = ?1 COLLATE NOCASE
          AND (type = 'table' AND sql LIKE '%CHECK%(%' OR type = 'index' AND sql LIKE '%WHERE%')
        UNION ALL SELECT 1 FROM pragma_table_xinfo(?1) WHERE hidden IN (2, 3) LIMIT 1";
    Ok(value::maybe::<i64>(&replica.db, sql, [&table.def.name])?.is_some())
}

/// Copies a BLOB of a row from one place to another that has room for it.
pub(crate) fn copy(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    column: usize,
    (from, to): (&str, &str),
) -> Result<()> {
    let open =
        |place, to_read| open(replica, table, place, column, rowid(replica, table, place, key)?, to_read);
    let (from, mut to) = (open(from, true)?, open(to, false)?);
    let mut at = 0;
    read(&from, &mut |bytes| {
        to.write_at(bytes, at)?;
        at += bytes.len();
        Ok(())
    })
}

/// Returns whether a row has the same BLOB in two places.
pub(crate) fn is_same(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    column: usize,
    (here, there): (&str, &str),
) -> Result<bool> {
    let open = |place| open(replica, table, place, column, rowid(replica, table, place, key)?, true);
    let (here, there) = (open(here)?, open(there)?);
    let (mut same, mut at, mut other) = (here.len() == there.len(), 0, vec![0; PIECE]);
    if same {
        read(&here, &mut |bytes| {
            let n = there.read_at(&mut other[..bytes.len()], at)?;
            same &= other[..n] == *bytes;
            at += n;
            Ok(())
        })?;
    }
    Ok(same)
}

/// Gives a value to `take`, piece by piece.
pub(crate) fn read(blob: &Blob<'_>, take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let mut piece = vec![0; PIECE.min(blob.len())];
    let mut at = 0;
    while at < blob.len() {
        let n = blob.read_at(&mut piece, at)?;
        take(&piece[..n])?;
        at += n;
    }
    Ok(())
}

/// The columns of a table as SQL, without their large values; at the end, whether there is any, and the rowid.
pub(crate) struct Guarded {
    pub sql: String,
    /// There is no large value that can be read in pieces.
    pub plain: bool,
}

impl Guarded {
    /// Prepares to read columns of a table, by their names and numbers.
    pub(crate) fn new(table: &Table, columns: &[(String, Option<usize>)]) -> Self {
        let (mut read, mut any) = (Vec::new(), Vec::new());
        for (name, at) in columns {
            let c = value::column(name);
            match at {
                Some(at) if !table.is_whole() && can_be_large(&table.def.columns[*at]) => {
                    any.push(format!("octet_length({c}) > {LARGE}"));
                    read.push(format!("CASE WHEN octet_length({c}) > {LARGE} THEN NULL ELSE {c} END"));
                }
                _ => read.push(c),
            }
        }
        let plain = any.is_empty();
        if !plain {
            let any: Vec<String> = any.iter().map(|any| format!("coalesce({any}, 0)")).collect();
            read.push(value::joined(&any, "OR"));
            read.push(table.def.rowid_name().into());
        }
        Self { sql: read.join(", "), plain }
    }
}

/// Returns whether a value is large: then whether it is TEXT, and its length.
pub(crate) fn look(
    replica: &Replica,
    table: &Table,
    place: &str,
    column: usize,
    rowid: i64,
) -> Result<Option<(bool, u64)>> {
    if !can_be_large(&table.def.columns[column]) {
        return Ok(None);
    }
    let c = value::column(&table.def.columns[column].name);
    let sql = format!(
        "SELECT typeof({c}) = 'text', octet_length({c}) FROM {} WHERE {} = ?1 AND octet_length({c}) > {LARGE}",
        value::quote(place),
        table.def.rowid_name()
    );
    let mut statement = replica.db.prepare_cached(&sql)?;
    let mut rows = statement.query([rowid])?;
    rows.next()?.map(|row| Ok((row.get(0)?, row.get(1)?))).transpose()
}

/// Hashes a large value: what stands for it where it is compared.
pub(crate) fn big(
    replica: &Replica,
    table: &Table,
    place: &str,
    column: usize,
    rowid: i64,
    text: bool,
) -> Result<Big> {
    let blob = open(replica, table, place, column, rowid, true)?;
    let mut hash = Sha256::new();
    read(&blob, &mut |bytes| {
        hash.update(bytes);
        Ok(())
    })?;
    Ok(Big { text, number: 0, back: 0, len: blob.len() as u64, sha256: hash.finalize().into() })
}
