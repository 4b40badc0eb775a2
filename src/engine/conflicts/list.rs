//! What concurrent writes left open: listed the same on every device.

use packmule_core::model::{DeviceId, WallMs};
use packmule_core::wire::{ColumnMerge, Merge, OpKind};
use rusqlite::params_from_iter;
use sha2::{Digest, Sha256};

use crate::engine::capture::declare;
use crate::engine::error::Result;
use crate::engine::fleet::devices;
use crate::engine::merge::heads::{self, Head};
use crate::engine::merge::{deferred, versions};
use crate::engine::show::references;
use crate::engine::store::value::{self, Bind, OwnedValue};
use crate::engine::table::catalog;
use crate::engine::table::known::Table;
use crate::engine::table::replica::Replica;

/// Why a row is in conflict.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConflictKind {
    /// Devices inserted different rows under one key.
    InsertInsert,
    /// Devices changed the row differently.
    UpdateUpdate,
    /// One device deleted the row, another changed it.
    UpdateDelete,
    /// The row claims a UNIQUE value that another has: these columns.
    Unique(Vec<String>),
    /// The row breaks another constraint of the table here: what SQLite says.
    Check(String),
    /// The row refers by these columns to a row that is not there.
    ForeignKey(Vec<String>, String),
    /// Devices declared this column differently, in type, collation or default: it waits.
    Schema(String),
}

impl ConflictKind {
    /// The kind in a word, as in `conflicts --json`.
    pub fn word(&self) -> &'static str {
        match self {
            Self::InsertInsert => "insert/insert",
            Self::UpdateUpdate => "update/update",
            Self::UpdateDelete => "update/delete",
            Self::Unique(_) => "unique",
            Self::Check(_) => "check",
            Self::ForeignKey(..) => "foreign-key",
            Self::Schema(_) => "schema",
        }
    }
}

/// One of the versions of a conflict.
#[derive(Clone, Debug, PartialEq)]
pub struct ConflictVersion {
    /// Who wrote it; `None` if it is older than the conflict: who made it one had seen it, so that other
    /// devices may have folded it away before. `None` also of a row that refers to one that is gone by a
    /// column that is no key, or to one that is kept out, or that is not as one author wrote it.
    pub device: Option<DeviceId>,
    /// The device's name.
    pub name: Option<String>,
    /// When, by its author's clock.
    pub at: Option<WallMs>,
    /// What its author did.
    pub op: &'static str,
    /// Its row is in the table.
    pub shown: bool,
    /// The row's values by column; of a delete, none.
    pub values: Vec<(String, OwnedValue)>,
}

/// An open conflict.
#[derive(Clone, Debug, PartialEq)]
pub struct Conflict {
    /// Names it, and its versions: the same on every device, another one when a version is added.
    pub id: String,
    /// The table.
    pub table: String,
    /// The row's key, by column; none of a `schema` conflict, which is about no row.
    pub key: Vec<(String, OwnedValue)>,
    /// Why.
    pub kind: ConflictKind,
    /// The versions, the shown one first. Of a `unique` conflict, the row that is kept out and the
    /// row that has the value.
    pub versions: Vec<ConflictVersion>,
}

/// A conflict with what is needed to resolve it.
pub(crate) struct Open {
    pub conflict: Conflict,
    pub tid: i64,
    pub key: Vec<u8>,
    /// The row's versions, as in the log.
    pub heads: Vec<Head>,
    /// Of a `unique` conflict: the key of the row that has the value.
    pub holder: Option<Vec<u8>>,
}

/// Every open conflict with every version.
pub(crate) fn conflicts(replica: &Replica) -> Result<Vec<Conflict>> {
    catalog::reading(replica, |e| Ok(open_list(e)?.into_iter().map(|open| open.conflict).collect()))
}

/// How many rows are in conflict.
pub(crate) fn open_conflicts(replica: &Replica) -> Result<u64> {
    let mut n: u64 = replica
        .db
        .prepare_cached(
            "SELECT (SELECT count(*) FROM _pm_conflict c JOIN _pm_table t USING (tid) WHERE t.state = 1)
                  + (SELECT count(*) FROM _pm_parked p JOIN _pm_table t USING (tid) WHERE t.state = 1)",
        )?
        .query_row([], |row| row.get(0))?;
    for (tid, key) in references::pairs(replica, "SELECT tid, key FROM _pm_dangling")? {
        n += u64::from(!references::dangles(replica, &*catalog::table(replica, tid)?, &key)?.is_empty());
    }
    for table in catalog::tables(replica).iter().filter(|t| t.shows_shared()) {
        n += (0..table.def.columns.len()).filter(|at| table.waiting.contains(*at)).count() as u64;
    }
    Ok(n)
}

pub(crate) fn open_list(replica: &Replica) -> Result<Vec<Open>> {
    let mut all = Vec::new();
    // What is held shows nothing, and cannot be decided about.
    for (tid, key) in references::pairs(
        replica,
        "SELECT tid, key FROM _pm_conflict JOIN _pm_table USING (tid) WHERE state = 1",
    )? {
        all.push(contested(replica, tid, key)?);
    }
    for (tid, key) in references::pairs(
        replica,
        "SELECT tid, key FROM _pm_parked JOIN _pm_table USING (tid) WHERE state = 1",
    )? {
        all.push(parked(replica, tid, key)?);
    }
    for (tid, key) in references::pairs(replica, "SELECT tid, key FROM _pm_dangling")? {
        let table = catalog::table(replica, tid)?;
        if let Some(foreign) = references::dangles(replica, &table, &key)?.first() {
            all.push(dangling(replica, &table, key, *foreign)?);
        }
    }
    for table in catalog::tables(replica).iter().filter(|t| t.shows_shared()) {
        for at in (0..table.def.columns.len()).filter(|at| table.waiting.contains(*at)) {
            all.push(schema_conflict(replica, table, &table.def.columns[at].name)?);
        }
    }
    all.sort_by(|a, b| {
        let order =
            |o: &Open| (o.conflict.table.to_ascii_lowercase(), o.key.clone(), o.conflict.kind.clone());
        order(a).cmp(&order(b))
    });
    Ok(all)
}

fn contested(replica: &Replica, tid: i64, key: Vec<u8>) -> Result<Open> {
    let table = catalog::table(replica, tid)?;
    let n = table.def.columns.len();
    let heads = heads::heads(replica, tid, &key)?;
    let judgement = versions::judge_versions(replica, &table, &heads)?;
    let parked = deferred::is_parked(replica, tid, &key)?;
    let mut contents: Vec<Vec<u8>> = Vec::new();
    let mut versions = Vec::new();
    let mut taking_part: Vec<&Head> = Vec::new();
    let deletes = heads.iter().any(|h| h.kind == OpKind::Delete);
    for head in judgement.order.iter().map(|at| &heads[*at]) {
        let live = head.live(n);
        let disputes = judgement.disputed.iter().any(|column| live.contains(*column));
        if head.kind != OpKind::Delete && !disputes && !deletes {
            continue;
        }
        let mut content = vec![u8::from(head.kind == OpKind::Delete)];
        if head.kind != OpKind::Delete {
            // By name: the columns of devices may stand in different orders.
            let mut values: Vec<(String, Vec<u8>)> = Vec::new();
            for (column, value) in versions::content(replica, &table, head)? {
                // Of columns with a rule of their own, or that others do not dispute, nothing counts.
                let by_cell = table.def.merge == Merge::Cell && !deletes;
                let counts = if by_cell {
                    judgement.disputed.contains(&column)
                } else {
                    table.def.columns[column].merge == ColumnMerge::Table
                };
                if counts && live.contains(column) {
                    values.push((table.def.columns[column].name.to_ascii_lowercase(), value));
                }
            }
            values.sort();
            for (name, value) in values {
                content.extend_from_slice(name.as_bytes());
                content.push(0);
                content.extend_from_slice(&value);
            }
        }
        taking_part.push(head);
        if !contents.contains(&content) {
            contents.push(content);
            versions.push(version(replica, &table, head, versions.is_empty() && !parked)?);
        }
    }
    let kind = if deletes {
        ConflictKind::UpdateDelete
    } else if taking_part.iter().all(|h| h.kind == OpKind::Insert) {
        ConflictKind::InsertInsert
    } else {
        ConflictKind::UpdateUpdate
    };
    make(replica, &table, key, kind, versions, contents, heads, None)
}

fn parked(replica: &Replica, tid: i64, key: Vec<u8>) -> Result<Open> {
    let table = catalog::table(replica, tid)?;
    let heads = heads::heads(replica, tid, &key)?;
    let mut versions = Vec::new();
    let mut kind = None;
    let mut holder = None;
    let version = row_version(replica, &table, &key, &heads, false, true)?;
    let mut contents = vec![content_of(&version)];
    if let Some((columns, found)) = holder_of(replica, &table, &version)? {
        kind = Some(ConflictKind::Unique(columns));
        // Without a claim it was there before what made this a conflict, here folded away and there not.
        let theirs = heads::heads(replica, tid, &found)?;
        let told = versions::claim_of(&table, &theirs) > 0;
        let row = row_version(replica, &table, &found, &theirs, true, told)?;
        contents.push(content_of(&row));
        versions.push(row);
        holder = Some(found);
    }
    versions.insert(0, version);
    let kind = match kind {
        Some(kind) => kind,
        None => {
            let reason: Option<String> = value::maybe(
                &replica.db,
                "SELECT reason FROM _pm_parked WHERE tid = ?1 AND key = ?2",
                (tid, &key),
            )?;
            ConflictKind::Check(reason.unwrap_or_default())
        }
    };
    make(replica, &table, key, kind, versions, contents, heads, holder)
}

/// The first UNIQUE of the definition by which a version clashes with a shown row, and that row.
fn holder_of(
    replica: &Replica,
    table: &Table,
    version: &ConflictVersion,
) -> Result<Option<(Vec<String>, Vec<u8>)>> {
    for unique in &table.def.uniques {
        let names: Vec<&String> = unique.iter().map(|at| &table.def.columns[usize::from(*at)].name).collect();
        let values: Option<Vec<&OwnedValue>> = names
            .iter()
            .map(|name| version.values.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v))
            .collect();
        let Some(values) = values else { continue };
        let same: Vec<String> = names
            .iter()
            .enumerate()
            .map(|(n, name)| format!("{} = ?{}", value::quote(name), n + 1))
            .collect();
        let sql =
            format!("SELECT {} FROM {} WHERE {}", table.def.key_list(""), table.sql_name, same.join(" AND "));
        let mut statement = replica.db.prepare_cached(&sql)?;
        let mut rows = statement.query(params_from_iter(values.iter().map(|v| Bind(v.borrow()))))?;
        if let Some(row) = rows.next()? {
            let n = table.def.keys().count();
            let values = (0..n)
                .map(|at| row.get_ref(at).map(value::from_sql))
                .collect::<rusqlite::Result<Vec<_>>>()?;
            let key = table.key_of(values.into_iter())?;
            return Ok(Some((names.into_iter().cloned().collect(), key)));
        }
    }
    Ok(None)
}

fn dangling(replica: &Replica, table: &Table, key: Vec<u8>, foreign: usize) -> Result<Open> {
    let heads = heads::heads(replica, table.tid, &key)?;
    let told = references::is_told(replica, table, &key, &heads, foreign)?;
    let row = row_version(replica, table, &key, &heads, true, told)?;
    let foreign = &table.def.foreign_keys[foreign];
    let columns = foreign.columns.iter().map(|(here, _)| here.clone()).collect();
    let kind = ConflictKind::ForeignKey(columns, foreign.parent.clone());
    let contents = vec![content_of(&row)];
    make(replica, table, key, kind, vec![row], contents, heads, None)
}

/// A column that waits, with what it was declared to be and by whom first.
fn schema_conflict(replica: &Replica, table: &Table, column: &str) -> Result<Open> {
    let column = column.to_ascii_lowercase();
    let mut contents = vec![column.clone().into_bytes()];
    let mut versions = Vec::new();
    for (declared, definition) in declare::declared_columns(replica, table.tid, &column)? {
        versions.push(ConflictVersion {
            device: Some(declared.author),
            name: name_of_number(replica, declared.dev)?,
            at: None,
            op: "column",
            shown: false,
            values: vec![(column.clone(), OwnedValue::Text(definition.show().into_bytes()))],
        });
        contents.push(declared.value);
    }
    make(replica, table, Vec::new(), ConflictKind::Schema(column), versions, contents, Vec::new(), None)
}

#[allow(clippy::too_many_arguments)]
fn make(
    _replica: &Replica,
    table: &Table,
    key: Vec<u8>,
    kind: ConflictKind,
    versions: Vec<ConflictVersion>,
    mut contents: Vec<Vec<u8>>,
    heads: Vec<Head>,
    holder: Option<Vec<u8>>,
) -> Result<Open> {
    contents.sort();
    let mut hash = Sha256::new();
    hash.update(b"packmule/1 conflict");
    let name = table.def.name.to_ascii_lowercase();
    for part in
        [kind.word().as_bytes(), name.as_bytes(), &key].into_iter().chain(contents.iter().map(Vec::as_slice))
    {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let id = hash.finalize()[..5].iter().map(|b| format!("{b:02x}")).collect();
    let names = table.def.keys().map(|at| table.def.columns[at].name.clone());
    let conflict = Conflict {
        id,
        table: table.def.name.clone(),
        key: names.zip(value::read_key(&key)?).collect(),
        kind,
        versions,
    };
    Ok(Open { conflict, tid: table.tid, key, heads, holder })
}

/// A version as it is in the log, with its large values put together. Of a part of a row, the
/// key and that part.
pub(crate) fn version(replica: &Replica, table: &Table, head: &Head, shown: bool) -> Result<ConflictVersion> {
    let mut values = Vec::new();
    if head.kind != OpKind::Delete {
        for (column, value) in versions::values(replica, table, head)? {
            // An update of a counter says what was added, which is no version of it.
            let rule = table.def.columns[column].merge;
            if rule != ColumnMerge::Counter || head.kind == OpKind::Insert {
                values.push((table.def.columns[column].name.clone(), value));
            }
        }
    }
    Ok(ConflictVersion {
        device: Some(head.author).filter(|_| head.dev != 0),
        name: name_of_number(replica, head.dev)?,
        at: Some(head.wall).filter(|_| head.dev != 0),
        op: if head.dev == 0 { "row" } else { word(head.kind) },
        shown,
        values,
    })
}

fn name_of_number(replica: &Replica, dev: i64) -> Result<Option<String>> {
    Ok(value::maybe(&replica.db, "SELECT name FROM _pm_device WHERE n = ?1", [dev])?.flatten())
}

/// A row as its table shows it, or as it is in limbo; with its author if that is `told`.
fn row_version(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    heads: &[Head],
    shown: bool,
    told: bool,
) -> Result<ConflictVersion> {
    let head = versions::writer_of(replica, table, heads)?.filter(|_| told);
    let key = value::read_key(key)?;
    let columns = table.column_list();
    let sql = if shown {
        table.select_sql(&columns)
    } else {
        format!("SELECT {columns} FROM {} WHERE {}", table.limbo(), table.key_match_from(0))
    };
    let mut statement = replica.db.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(key.iter().map(|v| Bind(v.borrow()))))?;
    let mut values = Vec::new();
    if let Some(row) = rows.next()? {
        for (at, column) in table.def.columns.iter().enumerate() {
            if table.waiting.contains(at) {
                continue; // What is in it is this device's own.
            }
            values.push((column.name.clone(), OwnedValue::of(value::from_sql(row.get_ref(at)?))?));
        }
    }
    let name = match head {
        Some(head) => name_of_number(replica, head.dev)?,
        None => None,
    };
    Ok(ConflictVersion {
        device: head.map(|h| h.author),
        name,
        at: head.map(|h| h.wall),
        op: head.map_or("row", |h| word(h.kind)),
        shown,
        values,
    })
}

/// Name and short id of a version's author.
pub(crate) fn author_label(version: &ConflictVersion) -> String {
    version
        .device
        .map_or_else(|| "(older than the conflict)".into(), |id| devices::label(id, version.name.as_deref()))
}

impl ConflictVersion {
    /// Name and short id of its author, for people.
    pub fn author(&self) -> String {
        author_label(self)
    }
}

fn word(kind: OpKind) -> &'static str {
    match kind {
        OpKind::Insert => "insert",
        OpKind::Update => "update",
        OpKind::Delete => "delete",
    }
}

fn content_of(version: &ConflictVersion) -> Vec<u8> {
    let mut values: Vec<_> = version.values.iter().collect();
    values.sort_by_key(|(name, _)| name.to_ascii_lowercase());
    let mut content = Vec::new();
    for (name, value) in values {
        content.extend_from_slice(name.to_ascii_lowercase().as_bytes());
        content.push(0);
        // Never fails: an owned value is never in pieces.
        let _ = value::push_key(&mut content, value.borrow(), packmule_core::wire::Collation::Binary);
    }
    content
}
