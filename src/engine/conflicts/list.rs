//! Open conflicts: what concurrent writes left open, listed the same on every device.

use std::collections::BTreeMap;

use packmule_core::merge::value_order;
use packmule_core::model::{Big, DeviceId, Hex, WallMs};
use packmule_core::wire::{ColumnMerge, Merge, OpKind};
use rusqlite::params_from_iter;
use sha2::{Digest, Sha256};

use crate::engine::capture::declare;
use crate::engine::conflicts::change;
use crate::engine::error::{Result, Way};
use crate::engine::fleet::devices::{self, BASELINE};
use crate::engine::merge::deferred;
use crate::engine::merge::heads::{self, Head};
use crate::engine::merge::versions::{self, Judgement};
#[cfg(feature = "serde")]
use crate::engine::store::json;
use crate::engine::store::value::{self, Bind, OwnedValue};
use crate::engine::table::catalog;
use crate::engine::table::columns::Columns;
use crate::engine::table::known::Table;
use crate::engine::table::large;
use crate::engine::table::replica::Replica;
use crate::engine::table::shapes;

/// Why a row is in conflict.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
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
    /// The row is an orphan: it refers by these columns to a row of this table that is not there.
    ForeignKey(Vec<String>, String),
    /// The column is disputed: devices declared it differently, in type, collation or default.
    Schema(String),
}

impl ConflictKind {
    /// Names the kind in a word, as in `conflicts --json`.
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

/// Its word, with what it is about in fields of their own.
#[cfg(feature = "serde")]
impl serde::Serialize for ConflictKind {
    fn serialize<S: serde::Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("kind", self.word())?;
        match self {
            Self::InsertInsert | Self::UpdateUpdate | Self::UpdateDelete => {}
            Self::Unique(columns) => map.serialize_entry("columns", columns)?,
            Self::Check(reason) => map.serialize_entry("reason", reason)?,
            Self::ForeignKey(columns, parent) => {
                map.serialize_entry("columns", columns)?;
                map.serialize_entry("parent", parent)?;
            }
            Self::Schema(column) => map.serialize_entry("columns", &[column])?,
        }
        map.end()
    }
}

/// What the author of a version did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum VersionOp {
    /// Made the row.
    Insert,
    /// Changed the row.
    Update,
    /// Deleted the row.
    Delete,
    /// Nobody knows any more: the row as it was before the conflict.
    Row,
    /// Declared the column.
    Column,
}

impl VersionOp {
    /// Names it in a word, as in `conflicts --json`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Row => "row",
            Self::Column => "column",
        }
    }
}

#[cfg(feature = "serde")]
json::as_word!(VersionOp, word);

impl From<OpKind> for VersionOp {
    fn from(kind: OpKind) -> Self {
        match kind {
            OpKind::Insert => Self::Insert,
            OpKind::Update => Self::Update,
            OpKind::Delete => Self::Delete,
            OpKind::Keep => Self::Row,
        }
    }
}

/// One of the versions of a conflict.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ConflictVersion {
    /// Who wrote it; `None` if it is older than the conflict: the author of the write that opened the conflict had
    /// seen it, so that other devices may have folded it away before. `None` also of an orphan that refers by a
    /// column that is no key, of one that refers to a quarantined row, and of a row that is not as one author
    /// wrote it.
    pub device: Option<DeviceId>,
    /// The device's name.
    pub name: Option<String>,
    /// When, by its author's clock.
    #[cfg_attr(feature = "serde", serde(serialize_with = "json::time_if_any"))]
    pub at: Option<WallMs>,
    /// What its author did.
    pub op: VersionOp,
    /// Its row is in the table.
    pub shown: bool,
    /// Why it cannot be taken here, if it cannot: another row has its UNIQUE value, or what SQLite says of a rule of the table.
    pub refused: Option<String>,
    /// The row's values by column; of a delete, none.
    #[cfg_attr(feature = "serde", serde(serialize_with = "json::row"))]
    pub values: Vec<(String, OwnedValue)>,
}

/// An open conflict.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Conflict {
    /// Names it, and its versions: the same on every device, another one when a version is added.
    pub id: String,
    /// The table.
    pub table: String,
    /// The row's key, by column; none of a `schema` conflict, which is about no row.
    #[cfg_attr(feature = "serde", serde(serialize_with = "json::row"))]
    pub key: Vec<(String, OwnedValue)>,
    /// Why.
    #[cfg_attr(feature = "serde", serde(flatten))]
    pub kind: ConflictKind,
    /// The versions, the shown one first. Of a `unique` conflict, the quarantined row and the row that has the
    /// value.
    pub versions: Vec<ConflictVersion>,
    /// Where rows were made under one key: how many rows of which tables refer to it. When both are kept, those that the
    /// author of a version made go along with it.
    pub referred_by: BTreeMap<String, u64>,
    /// The ways in which it can be resolved; what could not work is not among them. Where conflicts are told in brief, and of
    /// one that was decided, they are not looked for.
    pub ways: Vec<Way>,
    /// Of [`Way::KeepBothWith`]: the columns of which two rows in place of one need different values, for a UNIQUE.
    pub clashing: Vec<String>,
}

impl Conflict {
    /// Returns which version was written last, by its author's clock: its place among the versions, and its author.
    pub fn newest(&self) -> Option<(usize, DeviceId)> {
        let known = self.versions.iter().enumerate().filter_map(|(n, v)| Some((v.at?, v.device?, n)));
        known.max().map(|(_, device, n)| (n, device))
    }
}

/// An open conflict with what is needed to resolve it.
pub(crate) struct Open {
    pub conflict: Conflict,
    pub tid: i64,
    pub key: Vec<u8>,
    /// The row's versions, as in the log.
    pub heads: Vec<Head>,
    /// Of a `unique` conflict: the key of the blocking row.
    pub blocking: Option<Vec<u8>>,
    /// It is about columns alone that other devices lack, where nobody knows of it: it counts in no digest.
    pub about_lacking: bool,
}

/// Describes a row that has concurrent versions of different content.
pub(crate) fn contested(replica: &Replica, tid: i64, key: Vec<u8>) -> Result<Open> {
    let table = catalog::table(replica, tid)?;
    let heads = heads::heads(replica, tid, &key)?;
    let judgement = versions::judge_versions(replica, &table, &heads)?;
    let quarantined = deferred::is_quarantined(replica, tid, &key)?;
    let mut contents: Vec<Vec<u8>> = Vec::new();
    let mut versions = Vec::new();
    let mut kinds: Vec<OpKind> = Vec::new();
    let deletes = heads.iter().any(|h| h.kind == OpKind::Delete && !h.weak);
    // Of columns that other devices lack nothing is in the id, which is the same everywhere.
    let lacking = shapes::lacking_columns(replica, &table)?;
    let mut everywhere: Vec<(Vec<u8>, OpKind)> = Vec::new();
    for head in in_order(replica, &table, &heads, &judgement)?.into_iter().filter(|head| !head.weak) {
        let disputes = judgement.disputed.iter().any(|column| versions::disputes(&table, head, *column));
        if head.kind != OpKind::Delete && !disputes && !deletes {
            continue;
        }
        let (content, known) = contents_of(replica, &table, head, &judgement, (&lacking, deletes))?;
        let known_there = |at: &&usize| !lacking.contains(**at);
        let disputes_known =
            judgement.disputed.iter().filter(known_there).any(|at| versions::disputes(&table, head, *at));
        if head.kind == OpKind::Delete || disputes_known || deletes {
            everywhere.push((known, head.kind));
        }
        kinds.push(head.kind);
        if !contents.contains(&content) {
            contents.push(content);
            versions.push(version(replica, &table, head, versions.is_empty() && !quarantined)?);
        }
    }
    let about_lacking = everywhere.iter().all(|(content, _)| *content == everywhere[0].0);
    if !about_lacking {
        kinds = everywhere.iter().map(|(_, kind)| *kind).collect();
        contents = everywhere.into_iter().map(|(content, _)| content).collect();
        contents.sort();
        contents.dedup();
    }
    let kind = if deletes {
        ConflictKind::UpdateDelete
    } else if kinds.iter().all(|kind| *kind == OpKind::Insert) {
        ConflictKind::InsertInsert
    } else {
        ConflictKind::UpdateUpdate
    };
    let open = make(&table, key, kind, versions, contents, heads, None)?;
    Ok(Open { about_lacking, ..open })
}

/// Returns the versions of a contested row, the shown one first. Of settled sums the greatest is shown.
fn in_order<'h>(
    replica: &Replica,
    table: &Table,
    heads: &'h [Head],
    judgement: &Judgement,
) -> Result<Vec<&'h Head>> {
    let mut order: Vec<&Head> = judgement.order.iter().map(|at| &heads[*at]).collect();
    let counts = |at: &usize| table.def.columns[*at].merge == ColumnMerge::Counter;
    let Some(column) = judgement.disputed.iter().next().filter(|_| judgement.disputed.iter().all(counts))
    else {
        return Ok(order);
    };
    let mut sums = BTreeMap::new();
    for head in heads.iter().filter(|head| versions::disputes(table, head, *column)) {
        let told = versions::told(replica, table, head)?.into_iter();
        sums.extend(told.filter(|(at, _)| at == column).map(|(_, sum)| ((head.dev, head.seq), sum)));
    }
    order.sort_by(|a, b| match (sums.get(&(b.dev, b.seq)), sums.get(&(a.dev, a.seq))) {
        (Some(b), Some(a)) => value_order(&b.borrow(), &a.borrow()),
        (b, a) => b.is_some().cmp(&a.is_some()),
    });
    Ok(order)
}

/// Returns what a version says in a conflict, as it is compared; and the same of columns that no device lacks.
fn contents_of(
    replica: &Replica,
    table: &Table,
    head: &Head,
    judgement: &Judgement,
    (lacking, deletes): (&Columns, bool),
) -> Result<(Vec<u8>, Vec<u8>)> {
    let mut content = vec![u8::from(head.kind == OpKind::Delete)];
    let mut known = content.clone();
    if head.kind == OpKind::Delete {
        return Ok((content, known));
    }
    // By name: the columns of devices may stand in different orders.
    let mut values: Vec<(String, Vec<u8>)> = Vec::new();
    let by_cell = table.def.merge == Merge::Cell && !deletes;
    for (column, value) in versions::content(replica, table, head)? {
        // Columns with a rule of their own, or of which no other version differs, do not count.
        let disputed = judgement.disputed.contains(&column);
        let counts = disputed || (!by_cell && table.def.columns[column].merge == ColumnMerge::Table);
        if counts && versions::disputes(table, head, column) {
            values.push((table.def.columns[column].name.to_ascii_lowercase(), value));
        }
    }
    values.sort();
    for (name, value) in values {
        let part = [name.as_bytes(), &[0], &value].concat();
        content.extend_from_slice(&part);
        if !is_in(lacking, table, &name) {
            known.extend_from_slice(&part);
        }
    }
    Ok((content, known))
}

/// Describes a quarantined row, with the blocking row if a UNIQUE quarantined it.
pub(crate) fn quarantined(replica: &Replica, tid: i64, key: Vec<u8>) -> Result<Open> {
    let table = catalog::table(replica, tid)?;
    let heads = heads::heads(replica, tid, &key)?;
    let mut versions = Vec::new();
    let mut kind = None;
    let mut blocking = None;
    let version = row_version(replica, &table, &key, &heads, false, true)?;
    let lacking = shapes::lacking_columns(replica, &table)?;
    let mut contents = vec![content_of(&table, &version, &lacking)?];
    if let Some((columns, found)) = blocking_row(replica, &table, &key)? {
        kind = Some(ConflictKind::Unique(columns));
        // A row without a claim is older than the conflict. Some devices have folded its version, so none names it.
        let theirs = heads::heads(replica, tid, &found)?;
        let attributed = versions::claim_of(&table, &theirs) > 0;
        let row = row_version(replica, &table, &found, &theirs, true, attributed)?;
        contents.push(content_of(&table, &row, &lacking)?);
        versions.push(row);
        blocking = Some(found);
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
    make(&table, key, kind, versions, contents, heads, blocking)
}

/// Finds the first UNIQUE of the definition by which a quarantined row clashes with a shown row, and that row's key.
pub(crate) fn blocking_row(
    replica: &Replica,
    table: &Table,
    key: &[u8],
) -> Result<Option<(Vec<String>, Vec<u8>)>> {
    let mine = value::read_key(key)?;
    for unique in &table.def.uniques {
        let names: Vec<&String> = unique.iter().map(|at| &table.def.columns[usize::from(*at)].name).collect();
        if unique.iter().any(|at| table.disputed.contains(usize::from(*at))) {
            continue; // The values of a disputed column are each device's own.
        }
        let same: Vec<String> =
            names.iter().map(|name| format!("t.{0} = q.{0}", value::column(name))).collect();
        let sql = format!(
            "SELECT {} FROM (SELECT * FROM {} WHERE {}) AS q CROSS JOIN {} AS t WHERE {}",
            table.def.key_list("t."),
            table.quarantine_table(),
            table.key_match_from(0),
            table.sql_name,
            same.join(" AND ")
        );
        let mut statement = replica.db.prepare_cached(&sql)?;
        let mut rows = statement.query(params_from_iter(mine.iter().map(|v| Bind(v.borrow()))))?;
        if let Some(row) = rows.next()? {
            return Ok(Some((names.into_iter().cloned().collect(), table.key_in(row)?)));
        }
    }
    Ok(None)
}

/// Describes an orphan: a row whose foreign key refers to a row that is not there.
pub(crate) fn orphan(replica: &Replica, table: &Table, key: Vec<u8>, foreign: usize) -> Result<Open> {
    let heads = heads::heads(replica, table.tid, &key)?;
    let row = row_version(replica, table, &key, &heads, true, false)?;
    let foreign = &table.def.foreign_keys[foreign];
    let columns = foreign.columns.iter().map(|(here, _)| here.clone()).collect();
    let kind = ConflictKind::ForeignKey(columns, foreign.parent.clone());
    let contents = vec![content_of(table, &row, &shapes::lacking_columns(replica, table)?)?];
    make(table, key, kind, vec![row], contents, heads, None)
}

/// Describes a disputed column, with each declaration of it and who made it first.
pub(crate) fn schema_conflict(replica: &Replica, table: &Table, column: &str) -> Result<Open> {
    let column = column.to_ascii_lowercase();
    let mut contents = vec![column.clone().into_bytes()];
    let mut versions = Vec::new();
    for (declared, definition) in declare::declared_columns(replica, table.tid, &column)? {
        versions.push(ConflictVersion {
            device: Some(declared.author),
            name: name_of_number(replica, declared.dev)?,
            at: None,
            op: VersionOp::Column,
            shown: false,
            refused: None,
            values: vec![(column.clone(), OwnedValue::Text(definition.show().into_bytes()))],
        });
        contents.push(declared.value);
    }
    let about_lacking = is_in(&shapes::lacking_columns(replica, table)?, table, &column);
    let open = make(table, Vec::new(), ConflictKind::Schema(column), versions, contents, Vec::new(), None)?;
    Ok(Open { about_lacking, ..open })
}

/// Makes a conflict of its versions. Its id is a hash over its kind, its row and the contents of its versions, so
/// that it is the same on every device.
fn make(
    table: &Table,
    key: Vec<u8>,
    kind: ConflictKind,
    versions: Vec<ConflictVersion>,
    mut contents: Vec<Vec<u8>>,
    heads: Vec<Head>,
    blocking: Option<Vec<u8>>,
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
    let id = Hex(&hash.finalize()[..5]).to_string();
    let conflict = Conflict {
        id,
        table: table.def.name.clone(),
        key: change::named_key(table, &key)?,
        kind,
        versions,
        ways: Vec::new(),
        clashing: Vec::new(),
        referred_by: BTreeMap::new(),
    };
    Ok(Open { conflict, tid: table.tid, key, heads, blocking, about_lacking: false })
}

/// Describes a version as it is in the log, with its large values by length and hash; of a part of a row, the key and
/// that part.
pub(crate) fn version(replica: &Replica, table: &Table, head: &Head, shown: bool) -> Result<ConflictVersion> {
    let mut values = Vec::new();
    if head.kind != OpKind::Delete {
        for (column, value) in versions::told(replica, table, head)? {
            // An update of a counter says what was added, which is not a version of it.
            let rule = table.def.columns[column].merge;
            if rule != ColumnMerge::Counter || head.kind == OpKind::Insert {
                values.push((table.def.columns[column].name.clone(), value));
            }
        }
    }
    Ok(ConflictVersion {
        device: Some(head.author).filter(|_| head.dev != BASELINE),
        name: name_of_number(replica, head.dev)?,
        at: Some(head.wall).filter(|_| head.dev != BASELINE),
        op: if head.dev == BASELINE { VersionOp::Row } else { head.kind.into() },
        shown,
        refused: None,
        values,
    })
}

/// Looks up the name of a device by its number.
fn name_of_number(replica: &Replica, dev: i64) -> Result<Option<String>> {
    Ok(value::maybe(&replica.db, "SELECT name FROM _pm_device WHERE n = ?1", [dev])?.flatten())
}

/// Describes a row as its table shows it, or as it is in the quarantine table; with its author if that is
/// `attributed`.
fn row_version(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    heads: &[Head],
    shown: bool,
    attributed: bool,
) -> Result<ConflictVersion> {
    let head = versions::writer_of(replica, table, heads)?.filter(|_| attributed);
    let place = if shown { table.place().into() } else { table.quarantine_table() };
    let values = told_row(replica, table, &place, key)?;
    let name = match head {
        Some(head) => name_of_number(replica, head.dev)?,
        None => None,
    };
    Ok(ConflictVersion {
        device: head.map(|h| h.author),
        name,
        at: head.map(|h| h.wall),
        op: head.map_or(VersionOp::Row, |h| h.kind.into()),
        shown,
        refused: None,
        values,
    })
}

/// Reads a row by the names of its columns, as it is listed: its long values by length and hash.
pub(crate) fn told_row(
    replica: &Replica,
    table: &Table,
    place: &str,
    key: &[u8],
) -> Result<Vec<(String, OwnedValue)>> {
    // The values of a disputed column are each device's own.
    let columns: Vec<(String, Option<usize>)> = (0..table.def.columns.len())
        .filter(|at| !table.disputed.contains(*at))
        .map(|at| (table.def.columns[at].name.clone(), Some(at)))
        .collect();
    let guarded = large::Guarded::new(table, &columns);
    let key = value::read_key(key)?;
    let sql =
        format!("SELECT {} FROM {} WHERE {}", guarded.sql, value::quote(place), table.key_match_from(0));
    let mut statement = replica.db.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(key.iter().map(|v| Bind(v.borrow()))))?;
    let mut values = Vec::new();
    let Some(row) = rows.next()? else { return Ok(values) };
    let n = columns.len();
    let rowid = if guarded.plain || !row.get(n)? { None } else { Some(row.get(n + 1)?) };
    for (n, (name, at)) in columns.into_iter().enumerate() {
        let large = match (rowid, at) {
            (Some(rowid), Some(at)) => {
                let found = large::look(replica, table, place, at, rowid)?;
                found.map(|(text, _)| large::big(replica, table, place, at, rowid, text)).transpose()?
            }
            _ => None,
        };
        let value = match large {
            Some(Big { text, len, sha256, .. }) => OwnedValue::Large { text, bytes: len, sha256 },
            None => OwnedValue::of(value::from_sql(row.get_ref(n)?))?.shortened(),
        };
        values.push((name, value));
    }
    Ok(values)
}

/// Names a version's author: its name and short id.
pub(crate) fn author_label(version: &ConflictVersion) -> String {
    version
        .device
        .map_or_else(|| "(older than the conflict)".into(), |id| devices::label(id, version.name.as_deref()))
}

impl ConflictVersion {
    /// Names its author for people: name and short id.
    pub fn author(&self) -> String {
        author_label(self)
    }
}

/// Returns whether a column is one of these.
fn is_in(columns: &Columns, table: &Table, name: &str) -> bool {
    table.def.column(name).is_some_and(|at| columns.contains(at))
}

/// Encodes the values of a version, in the order of the column names, for comparing: of all columns but those that other
/// devices lack.
fn content_of(table: &Table, version: &ConflictVersion, lacking: &Columns) -> Result<Vec<u8>> {
    let mut values: Vec<_> = version.values.iter().filter(|(name, _)| !is_in(lacking, table, name)).collect();
    values.sort_by_key(|(name, _)| name.to_ascii_lowercase());
    let mut content = Vec::new();
    for (name, value) in values {
        content.extend_from_slice(name.to_ascii_lowercase().as_bytes());
        content.push(0);
        match value {
            OwnedValue::Large { .. } => content.extend(value::encode_compared(value.borrow())?),
            value => value::push_key(&mut content, value.borrow(), packmule_core::wire::Collation::Binary)?,
        }
    }
    Ok(content)
}
