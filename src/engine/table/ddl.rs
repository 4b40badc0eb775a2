//! Definitions made into SQL. What comes from outside is quoted, or left out.

use crate::engine::store::value::{self, Affinity};
use crate::engine::table::def::{ACTIONS, ColumnDef, ColumnDefault, DEVICE_COLUMN, TableDef};

impl TableDef {
    /// Returns the `CREATE TABLE` for this definition. A gathered table has the column `device` before its own.
    ///
    /// A column is NOT NULL in the key alone: what others write into the rest is theirs to refuse, and an application that
    /// takes a NOT NULL away has not said so when the first row without a value comes. What is UNIQUE gets indexes of its own
    /// (`capture/uniques.rs`), but for a gathered table: each author keeps its rows unique, and at a base rows come one by one,
    /// of which two may exchange their values.
    pub(crate) fn create_sql(&self, gathered: bool) -> String {
        let mut parts = Vec::new();
        let integer_key = self.integer_key() && !gathered && !self.keyless;
        if gathered {
            parts.push(format!("{} TEXT NOT NULL", value::quote(DEVICE_COLUMN)));
        }
        // The rowid of a table without a key is a column at a base alone.
        let hidden = usize::from(self.keyless && !gathered);
        for c in &self.columns[hidden..] {
            let mut part = self.column_sql(&ColumnDef { not_null: c.not_null && c.key > 0, ..c.clone() });
            if integer_key && c.key > 0 {
                part.push_str(if self.autoincrement { " PRIMARY KEY AUTOINCREMENT" } else { " PRIMARY KEY" });
            }
            parts.push(part);
        }
        let list = |columns: &mut dyn Iterator<Item = usize>| {
            let device = gathered.then(|| value::quote(DEVICE_COLUMN));
            let columns = columns.map(|at| value::quote(&self.columns[at].name));
            device.into_iter().chain(columns).collect::<Vec<_>>().join(", ")
        };
        if !integer_key && hidden == 0 {
            parts.push(format!("PRIMARY KEY ({})", list(&mut self.keys())));
        }
        for key in self.foreign_keys.iter().filter(|_| !gathered) {
            let side = |there: bool| {
                let names = key.columns.iter().map(|c| value::quote(if there { &c.1 } else { &c.0 }));
                names.collect::<Vec<_>>().join(", ")
            };
            parts.push(format!(
                "FOREIGN KEY ({}) REFERENCES {} ({}) ON DELETE {} ON UPDATE {}",
                side(false),
                value::quote(&key.parent),
                side(true),
                ACTIONS[usize::from(key.on_delete)],
                ACTIONS[usize::from(key.on_update)],
            ));
        }
        let tail = if self.without_rowid && !gathered { " WITHOUT ROWID" } else { "" };
        format!("CREATE TABLE {} ({}){tail}", value::quote(&self.name), parts.join(", "))
    }

    /// Returns a column's part of `ADD COLUMN`, where SQLite takes no NOT NULL without a default, and no default
    /// that is not constant.
    pub(crate) fn addable_sql(&self, c: &ColumnDef) -> String {
        let literal = matches!(c.default, ColumnDefault::Literal(_));
        let default = if literal { c.default.clone() } else { ColumnDefault::None };
        self.column_sql(&ColumnDef { not_null: c.not_null && literal, default, ..c.clone() })
    }

    /// Returns a column of the quarantine table: without a type, so that every value stays what it is. Rows that are
    /// there already when a column is added have its default.
    pub(crate) fn quarantine_sql(&self, c: &ColumnDef) -> String {
        let default = match &c.default {
            ColumnDefault::Literal(value) => format!(" DEFAULT {}", value::literal(value)),
            _ => String::new(),
        };
        format!("{}{}{default}", value::quote(&c.name), c.collate())
    }

    /// Returns a column's part of `CREATE TABLE`.
    pub(crate) fn column_sql(&self, c: &ColumnDef) -> String {
        let mut sql = value::quote(&c.name);
        let decl_type = safe_type(&c.decl_type);
        if !decl_type.is_empty() {
            sql.push(' ');
            sql.push_str(&decl_type);
        }
        if c.not_null {
            sql.push_str(" NOT NULL");
        }
        sql.push_str(c.collate());
        match &c.default {
            ColumnDefault::None | ColumnDefault::Expression => {}
            ColumnDefault::Literal(value) => {
                sql.push_str(" DEFAULT ");
                sql.push_str(&value::literal(value));
            }
            ColumnDefault::Time => sql.push_str(" DEFAULT CURRENT_TIME"),
            ColumnDefault::Date => sql.push_str(" DEFAULT CURRENT_DATE"),
            ColumnDefault::Timestamp => sql.push_str(" DEFAULT CURRENT_TIMESTAMP"),
        }
        sql
    }
}

/// Returns a declared type if it is plainly one, and otherwise the type that stands for its affinity.
pub(crate) fn safe_type(decl_type: &str) -> String {
    const WORDS: [&str; 15] = [
        "PRIMARY",
        "UNIQUE",
        "NOT",
        "NULL",
        "CHECK",
        "DEFAULT",
        "COLLATE",
        "REFERENCES",
        "GENERATED",
        "ALWAYS",
        "AS",
        "CONSTRAINT",
        "ON",
        "DEFERRABLE",
        "KEY",
    ];
    let (words, args) = decl_type.split_once('(').map_or((decl_type, None), |(w, a)| (w, Some(a)));
    let plain = words.split_ascii_whitespace().all(|w| {
        w.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && w.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            && !WORDS.contains(&w.to_ascii_uppercase().as_str())
    });
    let args_plain = args.is_none_or(|a| {
        a.strip_suffix(')').is_some_and(|a| {
            a.split(',').count() <= 2
                && a.split(',').all(|n| !n.trim().is_empty() && n.trim().bytes().all(|b| b.is_ascii_digit()))
        })
    });
    if plain && args_plain && (args.is_none() || !words.trim().is_empty()) {
        return decl_type.to_owned();
    }
    (match Affinity::of(decl_type) {
        Affinity::Integer => "INT",
        Affinity::Text => "TEXT",
        Affinity::Blob => "BLOB",
        Affinity::Real => "REAL",
        Affinity::Numeric => "NUMERIC",
    })
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_from_outside_cannot_add_sql() {
        for (given, made) in [
            ("INTEGER", "INTEGER"),
            ("varchar(20)", "varchar(20)"),
            ("DECIMAL(10, 2)", "DECIMAL(10, 2)"),
            ("unsigned big int", "unsigned big int"),
            ("", ""),
            ("INT PRIMARY KEY", "INT"),
            ("TEXT) ; DROP TABLE x; --", "TEXT"),
            ("TEXT DEFAULT (load_extension('x'))", "TEXT"),
            ("\"x\"", "NUMERIC"),
        ] {
            assert_eq!(safe_type(given), made, "{given}");
        }
    }
}
