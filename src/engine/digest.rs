//! One line that is the same on two databases exactly when what they sync is.

use packmule_core::wire::Mode;
use sha2::{Digest, Sha256};

use super::Engine;
use super::catalog::{State, Table};
use super::error::{Error, Result};
use super::value::{from_sql, quote};

impl Engine {
    /// The digest of the shared tables' content and of the open conflicts: 64 hexadecimal digits.
    ///
    /// With `gathered`, the per-device rows that a base gathers count too: for comparing two bases.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub fn digest(&self, gathered: bool) -> Result<String> {
        self.reading(|e| {
            let mut tables: Vec<_> = e
                .tables()
                .into_iter()
                .filter(|t| t.shows_shared() || (gathered && t.state == State::Gathered))
                .collect();
            tables.sort_by_key(|t| t.def.name.to_ascii_lowercase());
            let mut hash = Sha256::new();
            hash.update(b"packmule/1 digest");
            for table in &tables {
                e.hash_table(table, &mut hash)?;
            }
            for open in e.open_list()? {
                hash.update(open.conflict.id.as_bytes());
            }
            Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect())
        })
    }

    fn hash_table(&self, table: &Table, hash: &mut Sha256) -> Result<()> {
        // Columns in the order of their names: devices may have added them in different orders.
        // What is in one that waits is each device's own.
        let here = table.def.columns.iter().enumerate().filter(|(at, _)| !table.waiting.contains(*at));
        let mut names: Vec<String> = here.map(|(_, c)| c.name.to_ascii_lowercase()).collect();
        names.sort();
        if table.state == State::Gathered {
            names.insert(0, super::def::DEVICE_COLUMN.into());
        }
        let mut add = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        add(table.def.name.to_ascii_lowercase().as_bytes());
        names.iter().for_each(|name| add(name.as_bytes()));
        let columns: Vec<String> = names.iter().map(|name| quote(name)).collect();
        let mut order = table.def.key_list("");
        if table.def.mode == Mode::PerDevice {
            order = format!("{}, {order}", super::def::DEVICE_COLUMN);
        }
        let mut statement = self.db.prepare(&format!(
            "SELECT {} FROM {} ORDER BY {order}",
            columns.join(", "),
            table.sql_name
        ))?;
        let mut rows = statement.query([])?;
        let mut buf = Vec::new();
        while let Some(row) = rows.next()? {
            for at in 0..columns.len() {
                let value = row.get_ref(at)?;
                let len = value.as_bytes_or_null().ok().flatten().map_or(0, <[u8]>::len);
                buf.resize(len + 24, 0);
                let len = packmule_core::wire::put(&mut buf, &from_sql(value))
                    .map_err(|_| Error::damaged("a value without room"))?;
                hash.update(&buf[..len]);
            }
        }
        Ok(())
    }
}
