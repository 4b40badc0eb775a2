//! UNIQUE indexes that no definition has: over expressions or generated columns, or over some of the rows alone.

use std::sync::Arc;

use rusqlite::Connection;

use crate::engine::error::Result;
use crate::engine::store::value;
use crate::engine::table::def::TableDef;

/// A UNIQUE index that is this database's own.
pub(crate) struct OwnUnique {
    /// What it is over, as SQL, each with its collation.
    terms: Vec<(String, String)>,
    /// Which rows it has, if not all.
    condition: Option<String>,
    /// The table's columns that it names.
    pub columns: Vec<usize>,
}

impl OwnUnique {
    /// Returns a query for what the only row of a table claims; it has no row where that is not in the index.
    pub(crate) fn claim_sql(&self, table: &str) -> String {
        let terms: Vec<String> = self.terms.iter().map(|(term, _)| format!("({term})")).collect();
        let within = self.condition.as_ref().map_or_else(String::new, |within| format!(" WHERE {within}"));
        format!("SELECT {} FROM {table}{within}", terms.join(", "))
    }

    /// Returns the condition that a row claims the same.
    pub(crate) fn same_sql(&self) -> String {
        let equals = |(n, (term, collation)): (usize, &(String, String))| {
            format!("({term}) = ?{} COLLATE {}", n + 1, value::quote(collation))
        };
        let terms = self.terms.iter().enumerate().map(equals);
        terms
            .chain(self.condition.iter().map(|within| format!("({within})")))
            .collect::<Vec<_>>()
            .join(" AND ")
    }

    /// Returns what it is over, as people are told.
    pub(crate) fn told(&self) -> String {
        let terms: Vec<&str> = self.terms.iter().map(|(term, _)| term.as_str()).collect();
        let within = self.condition.as_ref().map_or_else(String::new, |within| format!(" WHERE {within}"));
        format!("{}{within}", terms.join(", "))
    }
}

/// Reads the UNIQUE indexes of a table that its definition does not have. One that is not understood is left out.
pub(crate) fn own_uniques(db: &Connection, def: &TableDef) -> Result<Vec<Arc<OwnUnique>>> {
    // Only an index of the table is looked up in the schema.
    let mut statement = db.prepare(
        "SELECT l.name, l.partial, s.sql FROM pragma_index_list(?1) l CROSS JOIN sqlite_schema s ON s.name = l.name
         WHERE l.\"unique\" AND l.origin <> 'pk' AND s.type = 'index' ORDER BY l.name",
    )?;
    let indexes = statement
        .query_map([&def.name], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<rusqlite::Result<Vec<(String, bool, Option<String>)>>>()?;
    let mut terms = db.prepare("SELECT name, coll FROM pragma_index_xinfo(?1) WHERE key ORDER BY seqno")?;
    let mut found = Vec::new();
    for (name, partial, sql) in indexes {
        let over = terms
            .query_map([&name], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<Vec<(Option<String>, Option<String>)>>>()?;
        let is_plain =
            |(name, _): &(Option<String>, _)| name.as_ref().is_some_and(|n| def.column(n).is_some());
        if partial || !over.iter().all(is_plain) {
            let written = sql.as_deref().map(Written::read).unwrap_or_default();
            found.extend(understood(def, over, written).map(Arc::new));
        }
    }
    Ok(found)
}

fn understood(
    def: &TableDef,
    over: Vec<(Option<String>, Option<String>)>,
    written: Written,
) -> Option<OwnUnique> {
    let of_term = |(n, (name, collation)): (usize, (Option<String>, Option<String>))| {
        let term = match name {
            Some(name) => value::quote(&name),
            None => written.terms.get(n)?.clone(),
        };
        Some((term, collation.unwrap_or_else(|| "BINARY".into())))
    };
    let terms = over.into_iter().enumerate().map(of_term).collect::<Option<Vec<_>>>()?;
    let text = terms.iter().map(|(term, _)| term).chain(&written.condition);
    let named: Vec<String> = text.flat_map(|sql| names(sql)).collect();
    let is_named = |at: &usize| named.iter().any(|name| name.eq_ignore_ascii_case(&def.columns[*at].name));
    let columns = (0..def.columns.len()).filter(is_named).collect();
    Some(OwnUnique { terms, condition: written.condition, columns })
}

/// What a CREATE INDEX statement says.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Written {
    /// Its terms, without ASC and DESC at their ends.
    pub terms: Vec<String>,
    /// What stands after WHERE.
    condition: Option<String>,
}

impl Written {
    /// Reads a statement that SQLite has taken.
    pub(crate) fn read(sql: &str) -> Self {
        let bytes = sql.as_bytes();
        let mut terms = Vec::new();
        let (mut depth, mut start, mut at) = (0, 0, 0);
        while at < bytes.len() {
            let end = skipped(bytes, at);
            match bytes[at] {
                _ if end > at => at = end,
                b'(' => {
                    depth += 1;
                    if depth == 1 {
                        start = at + 1;
                    }
                }
                b',' if depth == 1 => {
                    terms.push(term(&sql[start..at]));
                    start = at + 1;
                }
                b')' => {
                    depth -= 1;
                    if depth == 0 {
                        terms.push(term(&sql[start..at]));
                        return Self { terms, condition: condition(&sql[at + 1..]) };
                    }
                }
                _ => {}
            }
            at += 1;
        }
        Self { terms, condition: None }
    }
}

/// Returns the last byte of a quoted name, a text or a comment that begins here; else this place.
fn skipped(bytes: &[u8], at: usize) -> usize {
    let until = |from: usize, end: &[u8]| {
        let found = bytes.get(from..).and_then(|rest| rest.windows(end.len()).position(|part| part == end));
        found.map_or(bytes.len(), |n| from + n + end.len() - 1)
    };
    match (bytes[at], bytes.get(at + 1)) {
        (quote @ (b'\'' | b'"' | b'`'), _) => {
            let mut end = until(at + 1, &[quote]);
            // Twice it stands for itself.
            while bytes.get(end + 1) == Some(&quote) {
                end = until(end + 2, &[quote]);
            }
            end
        }
        (b'[', _) => until(at + 1, b"]"),
        (b'-', Some(b'-')) => until(at + 2, b"\n"),
        (b'/', Some(b'*')) => until(at + 2, b"*/"),
        _ => at,
    }
}

/// Returns a term without ASC or DESC at its end.
fn term(text: &str) -> String {
    let text = without_comments(text);
    let lower = text.to_ascii_lowercase();
    let end =
        [" asc", " desc"].iter().find(|e| lower.ends_with(**e)).map_or(text.len(), |e| text.len() - e.len());
    text[..end].trim().to_owned()
}

/// Returns what stands after the WHERE of a partial index.
fn condition(rest: &str) -> Option<String> {
    let rest = without_comments(rest);
    let (word, what) = rest.split_at_checked(5)?;
    word.eq_ignore_ascii_case("where").then(|| what.trim().to_owned())
}

/// Returns SQL without its comments: what is put together with it must not be hidden by one.
fn without_comments(sql: &str) -> String {
    let bytes = sql.as_bytes();
    let mut out = String::new();
    let (mut start, mut at) = (0, 0);
    while at < bytes.len() {
        let end = skipped(bytes, at);
        if end > at && matches!(bytes[at], b'-' | b'/') {
            out.push_str(&sql[start..at]);
            out.push(' ');
            start = (end + 1).min(bytes.len());
        }
        at = end + 1;
    }
    out.push_str(sql.get(start..).unwrap_or_default());
    out.trim().to_owned()
}

/// Returns what could be a column's name in SQL: its words, and what is quoted as a name.
fn names(sql: &str) -> Vec<String> {
    let bytes = sql.as_bytes();
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || !byte.is_ascii();
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let mut end = skipped(bytes, at);
        if is_word(bytes[at]) {
            end = at + bytes[at..].iter().take_while(|byte| is_word(**byte)).count() - 1;
            found.push(sql[at..=end].to_owned());
        } else if let (quote @ (b'"' | b'`' | b'['), true) = (bytes[at], end > at && end < bytes.len()) {
            let twice = if quote == b'[' { "]".into() } else { char::from(quote).to_string() };
            found.push(sql[at + 1..end].replace(&twice.repeat(2), &twice));
        }
        at = end + 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_of_an_index() {
        for (sql, terms, condition) in [
            ("CREATE UNIQUE INDEX i ON t (a, b)", &["a", "b"][..], None),
            (
                "CREATE UNIQUE INDEX i ON \"t(x\" (lower(a), b COLLATE NOCASE DESC) WHERE (c, 1) > 2",
                &["lower(a)", "b COLLATE NOCASE"],
                Some("(c, 1) > 2"),
            ),
            (
                "CREATE UNIQUE INDEX i ON t(coalesce(a, ',)('), /* , */ [x,y] asc -- last\n)/* where */where a -- 'that",
                &["coalesce(a, ',)(')", "[x,y]"],
                Some("a"),
            ),
        ] {
            let condition = condition.map(str::to_owned);
            assert_eq!(
                Written::read(sql),
                Written { terms: terms.iter().map(|t| (*t).into()).collect(), condition }
            );
        }
    }

    #[test]
    fn names_in_an_expression() {
        for (sql, found) in [
            ("lower(a) || 'b' -- c\n + größe", &["lower", "a", "größe"][..]),
            ("[x,y] + `a``b` /* c */ * 2", &["x,y", "a`b", "2"]),
            ("\"never ended", &[]),
        ] {
            assert_eq!(names(sql), found, "{sql}");
        }
    }
}
