//! The UNIQUE indexes that Packmule makes, for what an application elsewhere has made UNIQUE: they are none of the table's own,
//! so that they can go again when it is UNIQUE nowhere else any more.

use crate::engine::error::Result;
use crate::engine::merge::deferred;
use crate::engine::show::{constraints, quarantine};
use crate::engine::store::{meta, value};
use crate::engine::table::def::TableDef;
use crate::engine::table::known::Table;
use crate::engine::table::replica::Replica;

/// What their names begin with.
const OURS: &str = "_pm_unique_";

/// Makes a UNIQUE that others have. Rows that conflict go to the quarantine table and into the deferred queue.
pub(crate) fn make_unique(replica: &Replica, table: &Table, unique: &[u16]) -> Result<()> {
    let names: Vec<String> =
        unique.iter().map(|at| value::quote(&table.def.columns[usize::from(*at)].name)).collect();
    let same: Vec<String> = names.iter().map(|c| format!("a.{c} = b.{c}")).collect();
    let set: Vec<String> = names.iter().map(|c| format!("{c} IS NOT NULL")).collect();
    let sql = format!(
        "WITH clash AS (SELECT {0} FROM {1} WHERE {2} GROUP BY {0} HAVING count(*) > 1)
         SELECT {3} FROM clash b JOIN {1} a ON {4}",
        names.join(", "),
        table.sql_name,
        set.join(" AND "),
        table.def.key_list("a."),
        same.join(" AND ")
    );
    let mut keys = Vec::new();
    {
        let mut statement = replica.db.prepare(&sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            keys.push(table.key_in(row)?);
        }
    }
    for key in keys {
        constraints::before_change(replica, table, &key)?;
        quarantine::move_to_quarantine(replica, table, &key)?;
        deferred::defer(replica, table.tid, &key)?;
    }
    let numbers: Vec<String> = unique.iter().map(u16::to_string).collect();
    replica.db.execute_batch(&format!(
        "CREATE UNIQUE INDEX IF NOT EXISTS {} ON {} ({})",
        value::quote(&format!("{OURS}{}_{}", table.tid, numbers.join("_"))),
        value::quote(&table.def.name),
        names.join(", ")
    ))?;
    Ok(())
}

/// Drops the indexes that Packmule made over just these columns of a table.
pub(crate) fn drop_unique(replica: &Replica, table: &Table, unique: &[u16]) -> Result<()> {
    let (ours, _) = indexes(replica, &table.def)?;
    let of = ours.iter().filter(|(_, columns)| is_over(columns, unique));
    of.map(|(index, _)| index).try_for_each(|index| drop_index(replica, index))
}

/// Keeps of some UNIQUEs of a table those of which Packmule alone made an index.
pub(crate) fn retain_ours(replica: &Replica, table: &Table, uniques: &mut Vec<Vec<u16>>) -> Result<()> {
    if uniques.is_empty() {
        return Ok(());
    }
    let (ours, own) = indexes(replica, &table.def)?;
    let has = |of: &[Index], unique: &[u16]| of.iter().any(|(_, columns)| is_over(columns, unique));
    uniques.retain(|unique| has(&ours, unique) && !has(&own, unique));
    Ok(())
}

/// Drops the indexes that Packmule made of which the application has made one of its own: that tells from now on whether the
/// columns are UNIQUE here. `now` is what the table is.
pub(crate) fn drop_doubled(replica: &Replica, now: &TableDef) -> Result<()> {
    let (ours, own) = indexes(replica, now)?;
    for (index, columns) in ours {
        if own.iter().any(|(_, of)| is_over(of, &columns)) {
            drop_index(replica, &index)?;
        }
    }
    Ok(())
}

fn drop_index(replica: &Replica, index: &str) -> Result<()> {
    Ok(replica.db.execute_batch(&format!("DROP INDEX main.{}", value::quote(index)))?)
}

/// A UNIQUE index: its name, and the numbers of its columns.
type Index = (String, Vec<u16>);

/// Returns the UNIQUE indexes over plain columns of a table: those that Packmule made, and the table's own.
fn indexes(replica: &Replica, def: &TableDef) -> Result<(Vec<Index>, Vec<Index>)> {
    let indexes = def.unique_indexes(&replica.db)?.into_iter();
    Ok(indexes.partition(|(index, _)| index.starts_with(OURS)))
}

/// Returns whether two UNIQUEs are over the same columns, in whatever order.
fn is_over(one: &[u16], two: &[u16]) -> bool {
    one.len() == two.len() && one.iter().all(|at| two.contains(at))
}

/// Returns what people should know of the UNIQUE indexes of a table that stay this database's own, as no definition says what
/// they are over: of those that they were not told of.
pub(crate) fn untold(replica: &Replica, table: &Table) -> Result<Vec<String>> {
    let before = meta::names(&replica.db, &told_key(table.tid))?;
    // Only an index of the table is looked up in the schema. Generated columns do not travel either.
    let mut statement = replica.db.prepare_cached(
        "WITH generated AS (SELECT name FROM pragma_table_xinfo(?1) WHERE hidden IN (2, 3)),
           own AS (SELECT l.name, l.partial OR EXISTS (
               SELECT 1 FROM pragma_index_xinfo(l.name) i WHERE i.key AND i.name IS NULL) AS has_expression,
             (SELECT group_concat('`' || i.name || '`', ', ') FROM pragma_index_xinfo(l.name) i
               WHERE i.key AND i.name IN (SELECT name FROM generated)) AS over
           FROM pragma_index_list(?1) l WHERE l.\"unique\")
         SELECT own.name, own.over, s.sql FROM own CROSS JOIN sqlite_schema s ON s.name = own.name
         WHERE own.has_expression OR own.over IS NOT NULL ORDER BY own.name",
    )?;
    let indexes = statement
        .query_map([&table.def.name], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))?
        .collect::<rusqlite::Result<Vec<(String, (Option<String>, Option<String>))>>>()?;
    let now: Vec<String> = indexes.iter().map(|(name, _)| name.clone()).collect();
    meta::set_names(&replica.db, &told_key(table.tid), &now)?;
    let told = |(name, (over, sql)): (String, (Option<String>, Option<String>))| {
        let elsewhere =
            "does not travel: where it is not, as at a base, rows are shown that are quarantined here";
        match (over, sql) {
            (Some(over), _) => format!(
                "the UNIQUE index over {over}, which is generated, {elsewhere}. Make one there over what the column is made of, \
                 once the table is there"
            ),
            (None, sql) => format!(
                "the UNIQUE index `{name}` is over an expression or over some of the rows alone, and {elsewhere}. Make it there \
                 too, once the table is there: `{}`",
                sql.unwrap_or_default()
            ),
        }
    };
    Ok(indexes.into_iter().filter(|(name, _)| !before.contains(name)).map(told).collect())
}

/// Makes notices of such indexes that an application has made since its table was looked at last.
pub(crate) fn notice_untold(replica: &Replica, table: &Table) -> Result<()> {
    if !table.shows_shared() {
        return Ok(());
    }
    let told = untold(replica, table)?.into_iter();
    told.map(|told| format!("table `{}`: {told}", table.def.name))
        .try_for_each(|what| meta::notice(&replica.db, &what, replica.now()))
}

/// Forgets of which indexes of a table people were told.
pub(crate) fn forget_told(replica: &Replica, tid: i64) -> Result<()> {
    meta::forget(&replica.db, &told_key(tid))
}

fn told_key(tid: i64) -> String {
    format!("own indexes {tid}")
}
